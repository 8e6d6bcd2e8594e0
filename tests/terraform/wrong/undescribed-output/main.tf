# 6: output queue has no description
resource "aws_sqs_queue" "this" {
  name = "queue"
}

output "queue" {
  value = aws_sqs_queue.this.arn
}
