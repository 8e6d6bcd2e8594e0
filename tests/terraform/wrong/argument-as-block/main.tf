# 4: aws_sqs_queue this: tags is an argument, written with =
resource "aws_sqs_queue" "this" {
  name = "queue"
  tags {
    Name = "queue"
  }
}
