# expect: output q has no description
resource "aws_sqs_queue" "q" {}

output "q" {
  value = aws_sqs_queue.q.arn
}
