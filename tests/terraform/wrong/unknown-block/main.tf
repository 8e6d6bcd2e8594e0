# 4: aws_sqs_queue this: there is no block redrive; did you mean redrive_policy?
resource "aws_sqs_queue" "this" {
  name = "queue"
  redrive {
    max_receive_count = 10
  }
}
