# 4: aws_sqs_queue this: there is no argument message_retention; did you mean message_retention_seconds?
resource "aws_sqs_queue" "this" {
  name              = "queue"
  message_retention = 1209600
}
