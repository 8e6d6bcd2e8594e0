# expect: unknown argument key_arn in aws_dynamodb_table.server_side_encryption
resource "aws_dynamodb_table" "t" {
  name = "t"

  server_side_encryption {
    enabled = true
    key_arn = "arn"
  }
}
