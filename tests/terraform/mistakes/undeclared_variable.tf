# expect: var.nmae is not declared
resource "aws_sqs_queue" "q" {
  name = "${var.nmae}-q"
}
