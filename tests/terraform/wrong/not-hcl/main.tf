# 3: this is not HCL
resource "aws_sqs_queue" "this" {
  name = = "queue"
}
