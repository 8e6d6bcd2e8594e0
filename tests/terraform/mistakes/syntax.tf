# expect: cannot be parsed
resource "aws_sqs_queue" "q" {
  name = = "q"
}
