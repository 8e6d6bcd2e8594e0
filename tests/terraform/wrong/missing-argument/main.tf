# 2: aws_sqs_queue_policy this: policy is missing
resource "aws_sqs_queue_policy" "this" {
  queue_url = "https://sqs.us-east-1.amazonaws.com/111122223333/queue"
}
