# expect: block ttl stands twice
resource "aws_dynamodb_table" "t" {
  name = "t"

  ttl {
    enabled = true
  }

  ttl {
    enabled = false
  }
}
