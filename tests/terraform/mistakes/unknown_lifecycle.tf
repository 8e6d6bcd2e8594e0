# expect: unknown argument prevent_deletion
resource "aws_sqs_queue" "q" {
  lifecycle {
    prevent_deletion = true
  }
}
