resource "aws_cloudtrail" "this" {
  #checkov:skip=CKV_AWS_252:The bucket's notifications announce log files; a topic of the trail would announce them twice.
  #checkov:skip=CKV2_AWS_10:trailhound evaluates every record; a copy in CloudWatch Logs would cost 0.50 USD a GB and serve nobody.
  count = var.create_trail ? 1 : 0

  name                          = local.trail_name
  s3_bucket_name                = aws_s3_bucket.logs[0].id
  kms_key_id                    = local.logs_key_arn
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  is_organization_trail         = var.is_organization_trail

  # CloudTrail tries to write when the trail is made.
  depends_on = [aws_s3_bucket_policy.logs, aws_kms_key.this]
}
