# Roles. Each statement says who needs it and for what.

data "aws_iam_policy_document" "assume_tasks" {
  # ECS, for tasks of this account and region.
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ecs:${var.aws_region}:${local.account}:*"]
    }
  }
}

# The execution role: what Fargate does before and around the container.

locals {
  # An image of some ECR repository, of this account or another, needs leave to be pulled; others need none.
  ecr_image      = try(regex("^([0-9]{12})[.]dkr[.]ecr[.]([a-z0-9-]+)[.][^/]+/([^:@]+)", local.image_or_repository), null)
  repository_arn = local.ecr_image == null ? null : "arn:${local.partition}:ecr:${local.ecr_image[1]}:${local.ecr_image[0]}:repository/${local.ecr_image[2]}"
  # The repository alone, so that a new tag leaves the role as it is.
  image_or_repository = var.image != null ? var.image : aws_ecr_repository.this[0].repository_url
}

data "aws_iam_policy_document" "execution" {
  # Fargate signs in to the registry; the action knows no resource.
  dynamic "statement" {
    for_each = local.repository_arn == null ? [] : [1]

    content {
      sid       = "RegistryToken"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }

  # Fargate pulls the image.
  dynamic "statement" {
    for_each = local.repository_arn == null ? [] : [1]

    content {
      sid       = "Image"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = [local.repository_arn]
    }
  }

  # The log driver writes the daemon's log.
  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:log-stream:*"]
  }
}

resource "aws_iam_role" "execution" {
  name               = "${local.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.assume_tasks.json
}

resource "aws_iam_role_policy" "execution" {
  name   = "execution"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

# The task role: what the daemon does.

data "aws_iam_policy_document" "task" {
  # The poller receives, the heartbeat extends and gives back, the settle step deletes; the start reads the queue's timeout.
  statement {
    sid       = "Queue"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.events.arn]
  }

  # The object step reads log files, in the version that the message names.
  statement {
    sid       = "LogObjects"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = ["${local.bucket_arn}/*"]
  }

  # HeadBucket at the start; and S3 tells a missing object from a denied one only to who may list.
  statement {
    sid       = "LogBucket"
    actions   = ["s3:ListBucket"]
    resources = [local.bucket_arn]
  }

  # The rules' object, where these are in S3: read at the start, then looked at every minute.
  dynamic "statement" {
    for_each = local.rules_in_s3 ? [1] : []

    content {
      sid       = "RulesObject"
      actions   = ["s3:GetObject", "s3:GetObjectVersion"]
      resources = ["arn:${local.partition}:s3:::${local.rules_bucket}/${local.rules_object}"]
    }
  }

  # So that a missing rules' object is told from a denied one.
  dynamic "statement" {
    for_each = local.rules_in_s3 ? [1] : []

    content {
      sid       = "RulesBucket"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${local.partition}:s3:::${local.rules_bucket}"]
    }
  }

  # The deliver step stores, claims and marks; the start looks whether the table is there.
  statement {
    sid       = "Table"
    actions   = ["dynamodb:PutItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:DescribeTable"]
    resources = [aws_dynamodb_table.events.arn]
  }

  # The deliver step alerts; the start looks whether the topic is there.
  statement {
    sid       = "Topic"
    actions   = ["sns:Publish", "sns:GetTopicAttributes"]
    resources = [aws_sns_topic.alerts.arn]
  }

  # SNS encrypts alerts and DynamoDB items in the daemon's name, with the pipeline's key; where queue or rules are encrypted
  # with it, SQS and S3 decrypt.
  statement {
    sid       = "PipelineKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [local.kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [for it in ["dynamodb", "s3", "sns", "sqs"] : "${it}.${var.aws_region}.${data.aws_partition.current.dns_suffix}"]
    }
  }

  # DynamoDB asks for these, too, of who uses a table with such a key.
  statement {
    sid       = "TableKey"
    actions   = ["kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = [local.kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["dynamodb.${var.aws_region}.${data.aws_partition.current.dns_suffix}"]
    }
  }

  # S3 decrypts log files and rules that are encrypted with keys of others.
  dynamic "statement" {
    for_each = length(local.foreign_key_arns) > 0 ? [1] : []

    content {
      sid       = "LogKey"
      actions   = ["kms:Decrypt"]
      resources = local.foreign_key_arns

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }
}

locals {
  foreign_key_arns = compact([
    var.create_trail ? null : var.existing_bucket_kms_key_arn,
    var.rules_uri == null ? null : var.rules_kms_key_arn,
  ])
}

resource "aws_iam_role" "task" {
  name               = "${local.name}-task"
  assume_role_policy = data.aws_iam_policy_document.assume_tasks.json
}

resource "aws_iam_role_policy" "task" {
  name   = "task"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.task.json
}

# The operator role: what docs/operations.md does with the AWS command line, and trailhound's own tools for it as they come
# (dlq, events, replay to the queue, doctor).

data "aws_iam_policy_document" "assume_operator" {
  count = length(var.operator_principal_arns) > 0 ? 1 : 0

  # The people and roles that were named.
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.operator_principal_arns
    }
  }
}

data "aws_iam_policy_document" "operator" {
  count = length(var.operator_principal_arns) > 0 ? 1 : 0

  # dlq: look at dead letters, send them back, delete them.
  statement {
    sid = "DeadLetters"
    actions = [
      "sqs:CancelMessageMoveTask",
      "sqs:ChangeMessageVisibility",
      "sqs:DeleteMessage",
      "sqs:GetQueueAttributes",
      "sqs:GetQueueUrl",
      "sqs:ListMessageMoveTasks",
      "sqs:PurgeQueue",
      "sqs:ReceiveMessage",
      "sqs:StartMessageMoveTask",
    ]
    resources = [aws_sqs_queue.dead.arn]
  }

  # dlq redrive, replay and doctor send to the queue; nobody but the tasks receives from it.
  statement {
    sid       = "Queue"
    actions   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
    resources = [aws_sqs_queue.events.arn]
  }

  # events: read what was detected, by key and by day. doctor: keys and TTL.
  statement {
    sid       = "Table"
    actions   = ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive", "dynamodb:GetItem", "dynamodb:Query"]
    resources = [aws_dynamodb_table.events.arn, "${aws_dynamodb_table.events.arn}/index/ByDay"]
  }

  # replay and scan list and read log files, dlq why reads those that failed.
  statement {
    sid       = "LogObjects"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = ["${local.bucket_arn}/*"]
  }

  # The same lists; doctor reads where the bucket sends its notifications.
  statement {
    sid       = "LogBucket"
    actions   = ["s3:GetBucketLocation", "s3:GetBucketNotification", "s3:ListBucket"]
    resources = [local.bucket_arn]
  }

  # doctor: are the subscriptions confirmed?
  statement {
    sid       = "Topic"
    actions   = ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic"]
    resources = [aws_sns_topic.alerts.arn]
  }

  # doctor: does the trail log, in all regions, with validation? DescribeTrails knows no resource.
  statement {
    sid       = "Trails"
    actions   = ["cloudtrail:DescribeTrails"]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = var.create_trail || var.existing_trail_arn != null ? [1] : []

    # doctor, likewise.
    content {
      sid       = "Trail"
      actions   = ["cloudtrail:GetEventSelectors", "cloudtrail:GetTrail", "cloudtrail:GetTrailStatus"]
      resources = [local.trail_arn]
    }
  }

  # doctor: is the service as it should be?
  statement {
    sid       = "Service"
    actions   = ["ecs:DescribeServices"]
    resources = [local.service_arn]
  }

  # The log of the daemon, to read why a message is dead.
  statement {
    sid       = "Log"
    actions   = ["logs:FilterLogEvents", "logs:GetLogEvents"]
    resources = [aws_cloudwatch_log_group.this.arn, "${aws_cloudwatch_log_group.this.arn}:*"]
  }

  # All of these read what is encrypted; sending to an encrypted queue needs a data key.
  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = distinct(compact([local.kms_key_arn, local.logs_key_arn]))

    condition {
      test     = "StringLike"
      variable = "kms:ViaService"
      values   = [for it in ["dynamodb", "s3", "sqs"] : "${it}.*.${data.aws_partition.current.dns_suffix}"]
    }
  }

  # doctor: is the key there and enabled?
  statement {
    sid       = "KeyState"
    actions   = ["kms:DescribeKey"]
    resources = distinct(compact([local.kms_key_arn, local.logs_key_arn]))
  }
}

resource "aws_iam_role" "operator" {
  count = length(var.operator_principal_arns) > 0 ? 1 : 0

  name                 = "${local.name}-operator"
  description          = "Tools of trailhound's command line: dead letters, events, replay, doctor"
  assume_role_policy   = data.aws_iam_policy_document.assume_operator[0].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "operator" {
  count = length(var.operator_principal_arns) > 0 ? 1 : 0

  name   = "operator"
  role   = aws_iam_role.operator[0].id
  policy = data.aws_iam_policy_document.operator[0].json
}

# Amazon Q Developer in chat applications: shows alarms and their graphs.

data "aws_iam_policy_document" "assume_chat" {
  count = local.chat ? 1 : 0

  # The chat service, for this account.
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["chatbot.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "chat_role" {
  #checkov:skip=CKV_AWS_356:Reads of metrics and alarms, which know no resource.
  count = local.chat ? 1 : 0

  # The chat service draws the metric of an alarm. These know no resource.
  statement {
    sid       = "Graphs"
    actions   = ["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:GetMetricWidgetImage"]
    resources = ["*"]
  }
}

# Also the guardrail: whatever someone types in the channel, more than this is not allowed.
resource "aws_iam_policy" "chat" {
  count = local.chat ? 1 : 0

  name        = "${local.name}-chat"
  description = "What Amazon Q Developer may do in chat channels: show alarms"
  policy      = data.aws_iam_policy_document.chat_role[0].json
}

resource "aws_iam_role" "chat" {
  count = local.chat ? 1 : 0

  name               = "${local.name}-chat"
  assume_role_policy = data.aws_iam_policy_document.assume_chat[0].json
}

resource "aws_iam_role_policy_attachment" "chat" {
  count = local.chat ? 1 : 0

  role       = aws_iam_role.chat[0].name
  policy_arn = aws_iam_policy.chat[0].arn
}
