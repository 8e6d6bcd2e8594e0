# expect: aws_sqs_queue.other is not declared
resource "aws_sqs_queue_policy" "p" {
  queue_url = aws_sqs_queue.other.url
  policy    = "{}"
}
