# expect: aws_sqs_queue.q has count or for_each
resource "aws_sqs_queue" "q" {
  count = 1
}

output "q" {
  description = "The queue."
  value       = aws_sqs_queue.q.arn
}
