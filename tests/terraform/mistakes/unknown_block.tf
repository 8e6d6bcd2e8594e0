# expect: unknown block redrive in aws_sqs_queue
resource "aws_sqs_queue" "q" {
  redrive {}
}
