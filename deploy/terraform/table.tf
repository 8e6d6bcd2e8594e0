# Detected events, one item for each. README.md makes the same table with the AWS CLI.
resource "aws_dynamodb_table" "events" {
  name                        = "${local.name}-events"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "EventId"
  range_key                   = "Timestamp"
  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "EventId"
    type = "S"
  }

  attribute {
    name = "Timestamp"
    type = "S"
  }

  attribute {
    name = "Day"
    type = "S"
  }

  # For reading by time, without the records themselves.
  global_secondary_index {
    name               = "ByDay"
    hash_key           = "Day"
    range_key          = "Timestamp"
    projection_type    = "INCLUDE"
    non_key_attributes = ["Severity", "Rules", "EventName", "EventSource", "AccountId", "AwsRegion", "Actor"]
  }

  ttl {
    attribute_name = "ExpiresAt"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = local.kms_key_arn
  }
}
