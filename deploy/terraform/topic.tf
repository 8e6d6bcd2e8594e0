resource "aws_sns_topic" "alerts" {
  name              = "${local.name}-alerts"
  kms_master_key_id = local.kms_key_arn
}

data "aws_iam_policy_document" "alerts" {
  # Alarms go here too, unless alarm_topic names another topic. The task role publishes by its own policy (iam.tf).
  dynamic "statement" {
    for_each = var.alarm_topic == null ? [1] : []

    content {
      sid       = "Alarms"
      actions   = ["sns:Publish"]
      resources = [aws_sns_topic.alerts.arn]

      principals {
        type        = "Service"
        identifiers = ["cloudwatch.amazonaws.com"]
      }

      condition {
        test     = "ArnLike"
        variable = "aws:SourceArn"
        values   = ["arn:${local.partition}:cloudwatch:${var.aws_region}:${local.account}:alarm:${local.name}-*"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }

  # Nobody publishes without TLS.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]

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

resource "aws_sns_topic_policy" "alerts" {
  arn    = aws_sns_topic.alerts.arn
  policy = data.aws_iam_policy_document.alerts.json
}

resource "aws_sns_topic_subscription" "email" {
  count = var.alert_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = var.alert_email
}

# Amazon Q Developer in chat applications. It shows messages of AWS services and custom notifications, and drops others
# without a word: a topic of its own gets the alarms, and it looks at the alerts topic only where alert_format is "chatbot".

resource "aws_sns_topic" "chat" {
  count = local.chat ? 1 : 0

  name              = "${local.name}-chat"
  kms_master_key_id = local.kms_key_arn
}

data "aws_iam_policy_document" "chat" {
  count = local.chat ? 1 : 0

  # Alarms, and nothing else.
  statement {
    sid       = "Alarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.chat[0].arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:cloudwatch:${var.aws_region}:${local.account}:alarm:${local.name}-*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  # Nobody publishes without TLS.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.chat[0].arn]

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

resource "aws_sns_topic_policy" "chat" {
  count = local.chat ? 1 : 0

  arn    = aws_sns_topic.chat[0].arn
  policy = data.aws_iam_policy_document.chat[0].json
}

resource "aws_chatbot_slack_channel_configuration" "this" {
  count = var.slack == null ? 0 : 1

  configuration_name    = "${local.name}-slack"
  iam_role_arn          = aws_iam_role.chat[0].arn
  slack_team_id         = var.slack.team_id
  slack_channel_id      = var.slack.channel_id
  sns_topic_arns        = local.chat_topics
  guardrail_policy_arns = [aws_iam_policy.chat[0].arn]
  logging_level         = "ERROR"
}

resource "aws_chatbot_teams_channel_configuration" "this" {
  count = var.teams == null ? 0 : 1

  configuration_name    = "${local.name}-teams"
  iam_role_arn          = aws_iam_role.chat[0].arn
  tenant_id             = var.teams.tenant_id
  team_id               = var.teams.team_id
  channel_id            = var.teams.channel_id
  sns_topic_arns        = local.chat_topics
  guardrail_policy_arns = [aws_iam_policy.chat[0].arn]
  logging_level         = "ERROR"
}
