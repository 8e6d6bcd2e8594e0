# 8: resource aws_sqs_queue has no attribute queue_arn
resource "aws_sqs_queue" "this" {
  name = "queue"
}

output "arn" {
  description = "The queue"
  value       = aws_sqs_queue.this.queue_arn
}
