# expect: Terraform 1.5 has no function strlen
resource "aws_sqs_queue" "q" {
  name = "queue-${strlen("a")}"
}
