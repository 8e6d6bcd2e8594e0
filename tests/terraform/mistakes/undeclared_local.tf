# expect: local.nmae is not declared
resource "aws_sqs_queue" "q" {
  name = upper(local.nmae)
}
