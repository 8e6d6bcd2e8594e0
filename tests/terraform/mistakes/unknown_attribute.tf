# expect: aws_sqs_queue.q has no attribute uri
resource "aws_sqs_queue" "q" {}

output "q" {
  description = "The queue."
  value       = aws_sqs_queue.q.uri
}
