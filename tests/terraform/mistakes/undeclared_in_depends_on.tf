# expect: aws_sqs_queue.other is not declared
resource "aws_sqs_queue" "q" {
  depends_on = [aws_sqs_queue.other]
}
