# expect: aws_cloudwatch_metric_alarm needs comparison_operator
resource "aws_cloudwatch_metric_alarm" "a" {
  alarm_name         = "a"
  evaluation_periods = 1
}
