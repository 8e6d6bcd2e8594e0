# expect: each.key outside
resource "aws_sqs_queue" "q" {
  name = each.key
}
