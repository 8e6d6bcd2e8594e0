# expect: ttl in aws_dynamodb_table is a block
resource "aws_dynamodb_table" "t" {
  name = "t"
  ttl  = { enabled = true }
}
