# expect: aws_sqs_queue.q is one
resource "aws_sqs_queue" "q" {}

output "q" {
  description = "The queue."
  value       = aws_sqs_queue.q[0].arn
}
