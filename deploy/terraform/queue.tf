# The queue, its dead-letter queue, and what may write to them.

resource "aws_sqs_queue" "dead" {
  name = "${local.name}-dead-letters"
  # A dead letter keeps the time at which it was first sent: this must be longer than the queue's own retention.
  message_retention_seconds = 14 * 24 * 3600
  # The key aws/sqs would lock out S3 and EventBridge: it is SQS's own keys, or a key of ours.
  sqs_managed_sse_enabled           = var.queue_encryption == "sqs" ? true : null
  kms_master_key_id                 = var.queue_encryption == "kms" ? local.kms_key_arn : null
  kms_data_key_reuse_period_seconds = var.queue_encryption == "kms" ? 3600 : null
}

resource "aws_sqs_queue" "events" {
  name                              = "${local.name}-events"
  message_retention_seconds         = 7 * 24 * 3600
  receive_wait_time_seconds         = 20
  visibility_timeout_seconds        = 120
  sqs_managed_sse_enabled           = var.queue_encryption == "sqs" ? true : null
  kms_master_key_id                 = var.queue_encryption == "kms" ? local.kms_key_arn : null
  kms_data_key_reuse_period_seconds = var.queue_encryption == "kms" ? 3600 : null

  # A killed task, or SQS's twelve hours, cost a receive: ten leave room.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = 10
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.events.arn]
  })
}

data "aws_iam_policy_document" "events" {
  # This bucket announces log files.
  dynamic "statement" {
    for_each = local.from_notification ? [1] : []

    content {
      sid       = "Bucket"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.events.arn]

      principals {
        type        = "Service"
        identifiers = ["s3.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = [local.bucket_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }

  # Our EventBridge rules: of the existing bucket, and of calls themselves.
  dynamic "statement" {
    for_each = local.from_eventbridge || local.realtime ? [1] : []

    content {
      sid       = "EventBridge"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.events.arn]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = concat(aws_cloudwatch_event_rule.objects[*].arn, aws_cloudwatch_event_rule.realtime[*].arn)
      }
    }
  }

  # The existing trail's topic.
  dynamic "statement" {
    for_each = local.from_topic ? [1] : []

    content {
      sid       = "Topic"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.events.arn]

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

  # Nobody sends or receives without TLS.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.events.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sqs_queue_policy" "events" {
  queue_url = aws_sqs_queue.events.id
  policy    = data.aws_iam_policy_document.events.json
}

data "aws_iam_policy_document" "dead" {
  # EventBridge leaves here what it could not deliver to the queue.
  dynamic "statement" {
    for_each = local.from_eventbridge ? [1] : []

    content {
      sid       = "EventBridge"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.dead.arn]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = aws_cloudwatch_event_rule.objects[*].arn
      }
    }
  }

  # Nobody sends or receives without TLS. SQS itself moves messages here: that needs no statement.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.dead.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sqs_queue_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id
  policy    = data.aws_iam_policy_document.dead.json
}

# An existing bucket: its own notification configuration is one document, and writing it would overwrite that of others.

resource "aws_cloudwatch_event_rule" "objects" {
  count = local.from_eventbridge ? 1 : 0

  name        = "${local.name}-log-files"
  description = "Log files of the existing trail, to trailhound"

  event_pattern = jsonencode({
    source        = ["aws.s3"]
    "detail-type" = ["Object Created"]
    detail = {
      bucket = { name = [var.existing_bucket_name] }
      # Not the digests: see bucket.tf.
      object = { key = [{ wildcard = "*/CloudTrail/*.json.gz" }, { wildcard = "*/CloudTrail-Insight/*.json.gz" }] }
    }
  })
}

resource "aws_cloudwatch_event_target" "objects" {
  count = local.from_eventbridge ? 1 : 0

  rule      = aws_cloudwatch_event_rule.objects[0].name
  target_id = "queue"
  arn       = aws_sqs_queue.events.arn

  # What EventBridge cannot deliver for a day: nothing else would tell of that file.
  dead_letter_config {
    arn = aws_sqs_queue.dead.arn
  }
}

resource "aws_sns_topic_subscription" "trail" {
  count = local.from_topic ? 1 : 0

  topic_arn            = var.existing_trail_topic_arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.events.arn
  raw_message_delivery = true
}

# The calls themselves, seconds after they were made. A record that arrives this way and in a log file is one event and one
# alert. All of them, not only those that today's rules name: rules change without Terraform, and events of AWS services cost
# nothing on the default bus. KMS's read-only calls (Decrypt, GenerateDataKey) are left to the log files: the pipeline makes
# some itself, and each would bring on the next.
resource "aws_cloudwatch_event_rule" "realtime" {
  count = local.realtime ? 1 : 0

  name        = "${local.name}-calls"
  description = "API calls and sign-ins via CloudTrail, to trailhound"
  state       = var.realtime_events == "all" ? "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS" : "ENABLED"

  event_pattern = jsonencode({
    "detail-type" = [
      "AWS API Call via CloudTrail",
      "AWS Console Action via CloudTrail",
      "AWS Console Sign In via CloudTrail",
      "AWS Insight via CloudTrail",
      "AWS Service Event via CloudTrail",
    ]
    "$or" = [
      { source = [{ "anything-but" = "aws.kms" }] },
      { detail = { readOnly = [false] } },
    ]
  })
}

# Without a dead-letter queue: what EventBridge cannot deliver for a day comes by the log file.
resource "aws_cloudwatch_event_target" "realtime" {
  count = local.realtime ? 1 : 0

  rule      = aws_cloudwatch_event_rule.realtime[0].name
  target_id = "queue"
  arn       = aws_sqs_queue.events.arn
}
