# 4: resource aws_sqs_queue.that is not declared
output "arn" {
  description = "The queue"
  value       = aws_sqs_queue.that[0].arn
}
