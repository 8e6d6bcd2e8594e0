# 3: Terraform 1.5 has no function strlen
resource "aws_sqs_queue" "this" {
  name = "queue-${strlen("a")}"
}
