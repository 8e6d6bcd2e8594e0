# expect: is declared twice
resource "aws_sqs_queue" "q" {
  name = "q"
}

resource "aws_sqs_queue" "q" {}
