# expect: unknown argument visibility_timeout in aws_sqs_queue
resource "aws_sqs_queue" "q" {
  visibility_timeout = 30
}
