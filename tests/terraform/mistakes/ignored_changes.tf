# expect: ignore_changes names desired
resource "aws_sqs_queue" "q" {
  lifecycle {
    ignore_changes = [desired]
  }
}
