# expect: unknown resource aws_sqs_queues
resource "aws_sqs_queues" "q" {}
