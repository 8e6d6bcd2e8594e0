# Rules: in the image, or an object that tasks look at every minute (rules.poll_interval), so that a new one is a reload.

locals {
  rules_key = "monitored_events.json"
  # The bucket and the key of rules_uri; the version, if any, stays in the URI.
  rules_parts  = var.rules_uri == null ? null : regex("^s3://([^/]+)/([^?]+)", var.rules_uri)
  rules_bucket = var.rules_file != null ? aws_s3_bucket.rules[0].id : try(local.rules_parts[0], null)
  rules_object = var.rules_file != null ? local.rules_key : try(local.rules_parts[1], null)
  rules_in_s3  = var.rules_file != null || var.rules_uri != null
  rules_pin    = var.rules_file != null && var.pin_rules_version ? "?versionId=${aws_s3_object.rules[0].version_id}" : ""
  rules_path   = var.rules_file != null ? "s3://${local.rules_bucket}/${local.rules_key}${local.rules_pin}" : var.rules_uri
}

resource "aws_s3_bucket" "rules" {
  #checkov:skip=CKV_AWS_18:One object that tasks look at every minute: the trail tells who wrote it, if it records data events.
  #checkov:skip=CKV_AWS_144:The rule file has its source elsewhere, and Terraform writes it again.
  #checkov:skip=CKV2_AWS_62:Tasks look at the object's tag themselves.
  count = var.rules_file == null ? 0 : 1

  bucket        = "${local.name}-rules-${local.bucket_suffix}"
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_versioning" "rules" {
  count = var.rules_file == null ? 0 : 1

  bucket = aws_s3_bucket.rules[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "rules" {
  count = var.rules_file == null ? 0 : 1

  bucket = aws_s3_bucket.rules[0].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = local.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "rules" {
  count = var.rules_file == null ? 0 : 1

  bucket                  = aws_s3_bucket.rules[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "rules" {
  count = var.rules_file == null ? 0 : 1

  bucket = aws_s3_bucket.rules[0].id

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days           = 365
      newer_noncurrent_versions = 10
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.rules]
}

data "aws_iam_policy_document" "rules" {
  count = var.rules_file == null ? 0 : 1

  # Nobody reads or writes without TLS.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.rules[0].arn, "${aws_s3_bucket.rules[0].arn}/*"]

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

resource "aws_s3_bucket_policy" "rules" {
  count = var.rules_file == null ? 0 : 1

  bucket = aws_s3_bucket.rules[0].id
  policy = data.aws_iam_policy_document.rules[0].json

  depends_on = [aws_s3_bucket_public_access_block.rules]
}

resource "aws_s3_object" "rules" {
  count = var.rules_file == null ? 0 : 1

  bucket       = aws_s3_bucket.rules[0].id
  key          = local.rules_key
  source       = var.rules_file
  source_hash  = filemd5(var.rules_file)
  content_type = "application/json"
  kms_key_id   = local.kms_key_arn

  # The first version must be one: without versioning its id would be null.
  depends_on = [aws_s3_bucket_versioning.rules, aws_s3_bucket_server_side_encryption_configuration.rules]
}
