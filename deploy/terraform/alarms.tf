# Alarms. docs/operations.md says what each means and what to do.

locals {
  alarm_topics = compact([
    var.alarm_topic == null ? aws_sns_topic.alerts.arn : var.alarm_topic,
    # Not where the chat channels look at the alerts topic, and would show an alarm twice.
    local.chat && !(local.chat_alerts && var.alarm_topic == null) ? aws_sns_topic.chat[0].arn : null,
  ])

  # What the daemon logs while alerts cannot leave, about once a minute. tests/terraform finds these words in src/.
  failing_messages = [
    "alerts are not accepted; held messages wait",
    "a call fails; held messages wait",
    "an event is refused for good; its message is left for redrive",
    "every recent event is refused; messages are held until one is accepted",
    "every recent object of this bucket is denied; the message is held until one can be read",
  ]
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${local.name}-dead-letters"
  alarm_description   = "Messages that could not be read lie in the dead-letter queue: records in them were not evaluated."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead.name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_metric_alarm" "oldest_message" {
  alarm_name          = "${local.name}-oldest-message"
  alarm_description   = "A message waits for longer than ${var.oldest_message_seconds} seconds: alerts are late."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.events.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_message_seconds
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_metric_alarm" "no_task" {
  alarm_name          = "${local.name}-no-task"
  alarm_description   = "No task of trailhound runs: nothing is evaluated. The queue keeps messages for seven days."
  namespace           = "AWS/ECS"
  metric_name         = "CPUUtilization"
  dimensions          = { ClusterName = aws_ecs_cluster.this.name, ServiceName = aws_ecs_service.this.name }
  statistic           = "SampleCount"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_log_metric_filter" "alerts_failing" {
  name           = "${local.name}-alerts-failing"
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = "{ ${join(" || ", [for it in local.failing_messages : "($.message = \"${it}*\")"])} }"

  metric_transformation {
    namespace     = local.name
    name          = "AlertsFailing"
    value         = "1"
    default_value = "0"
  }
}

# Three within five minutes: one throttled call that works at its next try is no outage.
resource "aws_cloudwatch_metric_alarm" "alerts_failing" {
  alarm_name          = "${local.name}-alerts-failing"
  alarm_description   = "The daemon cannot store or publish, or not read what it holds: alerts wait until it can. Its log says why."
  namespace           = local.name
  metric_name         = aws_cloudwatch_log_metric_filter.alerts_failing.metric_transformation[0].name
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_metric_alarm" "alerts_undelivered" {
  alarm_name          = "${local.name}-alerts-undelivered"
  alarm_description   = "SNS accepted alerts, but could not deliver them to a subscriber."
  namespace           = "AWS/SNS"
  metric_name         = "NumberOfNotificationsFailed"
  dimensions          = { TopicName = aws_sns_topic.alerts.name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

# A trail of any account in use delivers every five minutes; where log files are encrypted with KMS, reading one is a call that
# the next one records. Silence means that logging was stopped, or that the way to the queue is broken. What EventBridge sends of
# calls is taken off: it must not hide that log files are missing. Digests do not count (bucket.tf), except those of an organization.
resource "aws_cloudwatch_metric_alarm" "no_logs" {
  alarm_name          = "${local.name}-no-logs"
  alarm_description   = "No log file was announced for an hour: is the trail logging, and does its bucket reach the queue?"
  evaluation_periods  = 1
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics

  metric_query {
    id          = "files"
    label       = "Log files announced"
    expression  = local.realtime ? "sent - FILL(calls, 0)" : "sent"
    return_data = true
  }

  metric_query {
    id          = "sent"
    return_data = false

    metric {
      namespace   = "AWS/SQS"
      metric_name = "NumberOfMessagesSent"
      dimensions  = { QueueName = aws_sqs_queue.events.name }
      stat        = "Sum"
      period      = 3600
    }
  }

  dynamic "metric_query" {
    for_each = aws_cloudwatch_event_rule.realtime[*].name

    content {
      id          = "calls"
      return_data = false

      metric {
        namespace   = "AWS/Events"
        metric_name = "Invocations"
        dimensions  = { RuleName = metric_query.value }
        stat        = "Sum"
        period      = 3600
      }
    }
  }
}
