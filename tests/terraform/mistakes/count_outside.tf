# expect: count.index outside
resource "aws_sqs_queue" "q" {
  name = "q-${count.index}"
}
