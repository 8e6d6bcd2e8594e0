# One key for what the pipeline writes. Each statement says who needs it; for the account's own roles IAM decides (iam.tf).

resource "aws_kms_key" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  description             = "${local.name}: CloudTrail logs, alerts and detected events"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.this[0].key_id
}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:A key policy speaks of its own key alone; the first statement is what lets IAM decide at all.
  #checkov:skip=CKV_AWS_111:A key policy speaks of its own key alone.
  #checkov:skip=CKV_AWS_356:In a key policy the resource "*" means this key.

  # The account's administrators, through IAM. Without it nobody could change this policy again.
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }

  # CloudTrail encrypts the log files of this trail.
  dynamic "statement" {
    for_each = var.create_trail && var.log_kms ? [1] : []

    content {
      sid       = "Trail"
      actions   = ["kms:GenerateDataKey*"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["cloudtrail.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceArn"
        values   = [local.new_trail_arn]
      }

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:cloudtrail:arn"
        values   = ["arn:${local.partition}:cloudtrail:*:${local.trail_account}:trail/*"]
      }
    }
  }

  # CloudTrail looks at the key when the trail is made.
  dynamic "statement" {
    for_each = var.create_trail && var.log_kms ? [1] : []

    content {
      sid       = "TrailDescribe"
      actions   = ["kms:DescribeKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["cloudtrail.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceArn"
        values   = [local.new_trail_arn]
      }
    }
  }

  # CloudWatch sends alarms to the encrypted topics. The key aws/sns would not let it.
  statement {
    sid       = "Alarms"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  # CloudWatch Logs encrypts the daemon's log.
  statement {
    sid       = "Logs"
    actions   = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${var.aws_region}.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.partition}:logs:${var.aws_region}:${local.account}:log-group:${local.log_group}"]
    }
  }

  # S3 sends its notifications to the encrypted queue.
  dynamic "statement" {
    for_each = var.queue_encryption == "kms" && local.from_notification ? [1] : []

    content {
      sid       = "QueueFromBucket"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["s3.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }

  # EventBridge sends events to the encrypted queue.
  dynamic "statement" {
    for_each = var.queue_encryption == "kms" && (local.from_eventbridge || local.realtime) ? [1] : []

    content {
      sid       = "QueueFromEventBridge"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }

  # The existing trail's topic sends to the encrypted queue.
  dynamic "statement" {
    for_each = var.queue_encryption == "kms" && local.from_topic ? [1] : []

    content {
      sid       = "QueueFromTopic"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["sns.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = [var.existing_trail_topic_arn]
      }
    }
  }
}
