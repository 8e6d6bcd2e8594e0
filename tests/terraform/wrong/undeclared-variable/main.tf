# 3: var.name is not declared
resource "aws_sqs_queue" "this" {
  name = "${var.name}-queue"
}
