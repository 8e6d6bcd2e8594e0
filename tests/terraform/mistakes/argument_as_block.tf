# expect: dimensions in aws_cloudwatch_metric_alarm is an argument
resource "aws_cloudwatch_metric_alarm" "a" {
  alarm_name          = "a"
  comparison_operator = "LessThanThreshold"
  evaluation_periods  = 1

  dimensions {
    QueueName = "q"
  }
}
