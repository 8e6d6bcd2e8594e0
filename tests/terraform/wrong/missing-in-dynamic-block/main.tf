# 12: aws_dynamodb_table this: attribute: type is missing
resource "aws_dynamodb_table" "this" {
  name         = "events"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "EventId"
  attribute {
    name = "EventId"
    type = "S"
  }
  dynamic "attribute" {
    for_each = toset(["Timestamp"])
    content {
      name = attribute.value
    }
  }
}
