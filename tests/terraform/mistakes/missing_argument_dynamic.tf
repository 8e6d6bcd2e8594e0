# expect: aws_dynamodb_table.attribute needs type
resource "aws_dynamodb_table" "t" {
  name = "t"

  dynamic "attribute" {
    for_each = ["a", "b"]

    content {
      name = attribute.value
    }
  }
}
