# 4: aws_sqs_queue this: lifecycle has no prevent_destruction
resource "aws_sqs_queue" "this" {
  name = "queue"
  lifecycle {
    prevent_destruction = true
  }
}
