data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_organizations_organization" "current" {
  count = var.create_trail && var.is_organization_trail ? 1 : 0
}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  name      = "${var.prefix}-${var.environment}"

  # Bucket names are global: the account makes them unique.
  bucket_suffix = "${local.account}-${var.aws_region}"

  # Names that policies need before the resources exist. An organization's trail belongs to the management account, also
  # where a delegated administrator makes it.
  trail_name    = "${local.name}-trail"
  trail_account = var.is_organization_trail && var.create_trail ? data.aws_organizations_organization.current[0].master_account_id : local.account
  new_trail_arn = "arn:${local.partition}:cloudtrail:${var.aws_region}:${local.trail_account}:trail/${local.trail_name}"
  cluster_name  = local.name
  service_name  = "${local.name}-trailhound"
  service_arn   = "arn:${local.partition}:ecs:${var.aws_region}:${local.account}:service/${local.cluster_name}/${local.service_name}"
  log_group     = "/ecs/${local.name}-trailhound"

  trail_arn  = var.create_trail ? aws_cloudtrail.this[0].arn : var.existing_trail_arn
  bucket     = var.create_trail ? aws_s3_bucket.logs[0].id : var.existing_bucket_name
  bucket_arn = "arn:${local.partition}:s3:::${local.bucket == null ? "missing" : local.bucket}"
  # Encrypts what the pipeline writes. The logs of an existing trail may have a key of their own.
  kms_key_arn = var.kms_key_arn == null ? aws_kms_key.this[0].arn : var.kms_key_arn
  logs_key_arn = (
    var.create_trail ? (var.log_kms ? local.kms_key_arn : null) : var.existing_bucket_kms_key_arn
  )

  # What feeds the queue.
  from_notification = var.create_trail
  from_eventbridge  = !var.create_trail && var.existing_trail_topic_arn == null
  from_topic        = !var.create_trail && var.existing_trail_topic_arn != null
  realtime          = var.realtime_events != "off"

  chat = var.slack != null || var.teams != null
  # Whether they show alerts beside the alarms.
  chat_alerts = local.chat && var.alert_format == "chatbot"
  chat_topics = !local.chat ? [] : concat([aws_sns_topic.chat[0].arn], local.chat_alerts ? [aws_sns_topic.alerts.arn] : [])
}
