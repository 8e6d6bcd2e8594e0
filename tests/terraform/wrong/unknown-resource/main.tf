# 2: the provider has no resource aws_sqs_queues
resource "aws_sqs_queues" "this" {
  name = "queue"
}
