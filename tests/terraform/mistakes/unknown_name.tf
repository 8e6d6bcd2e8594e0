# expect: unknown name item
resource "aws_sqs_queue" "q" {
  name = join("-", [for it in ["a"] : item])
}
