# The bucket of the log files.

resource "aws_s3_bucket" "logs" {
  #checkov:skip=CKV_AWS_144:Replication is an organization's decision; versioning and validation guard the logs here.
  count = var.create_trail ? 1 : 0

  bucket        = "${local.name}-logs-${local.bucket_suffix}"
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_versioning" "logs" {
  count = var.create_trail ? 1 : 0

  bucket = aws_s3_bucket.logs[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  count = var.create_trail ? 1 : 0

  bucket = aws_s3_bucket.logs[0].id

  rule {
    # Without a bucket key: with one, CloudTrail would need kms:Decrypt as well, and S3 would name the bucket, not the trail, as
    # the context that the key's policy asks for.
    bucket_key_enabled = false

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.log_kms ? "aws:kms" : "AES256"
      kms_master_key_id = local.logs_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "logs" {
  count = var.create_trail ? 1 : 0

  bucket                  = aws_s3_bucket.logs[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  count = var.create_trail ? 1 : 0

  bucket = aws_s3_bucket.logs[0].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  count = var.create_trail ? 1 : 0

  bucket = aws_s3_bucket.logs[0].id

  # Objects below 128 KB stay in Standard, where they are cheaper: S3 moves none of them by default.
  rule {
    id     = "cheaper-with-age"
    status = "Enabled"

    filter {}

    transition {
      days          = 30
      storage_class = "STANDARD_IA"
    }

    transition {
      days          = 90
      storage_class = "GLACIER_IR"
    }

    dynamic "expiration" {
      for_each = var.log_expiration_days > 0 ? [var.log_expiration_days] : []

      content {
        days = expiration.value
      }
    }

    # What expired above, or was overwritten or deleted, which CloudTrail never does: a month to notice it.
    noncurrent_version_expiration {
      noncurrent_days = 30
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.logs]
}

data "aws_iam_policy_document" "logs" {
  count = var.create_trail ? 1 : 0

  # CloudTrail looks at the bucket before it writes.
  statement {
    sid       = "TrailAclCheck"
    actions   = ["s3:GetBucketAcl"]
    resources = [aws_s3_bucket.logs[0].arn]

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

  # This trail writes the account's files, an organization's trail those of every member.
  statement {
    sid     = "TrailWrite"
    actions = ["s3:PutObject"]
    resources = concat(
      ["${aws_s3_bucket.logs[0].arn}/AWSLogs/${local.trail_account}/*"],
      [for id in data.aws_organizations_organization.current[*].id : "${aws_s3_bucket.logs[0].arn}/AWSLogs/${id}/*"],
    )

    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "s3:x-amz-acl"
      values   = ["bucket-owner-full-control"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.new_trail_arn]
    }
  }

  # Nobody reads or writes without TLS.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.logs[0].arn, "${aws_s3_bucket.logs[0].arn}/*"]

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

resource "aws_s3_bucket_policy" "logs" {
  count = var.create_trail ? 1 : 0

  bucket = aws_s3_bucket.logs[0].id
  policy = data.aws_iam_policy_document.logs[0].json

  depends_on = [aws_s3_bucket_public_access_block.logs]
}

# Log files and insights, not digests: these come every hour even where no log file does, and would hide that from the alarm
# "no-logs". An organization's keys cannot be told apart by a prefix; trailhound passes its digests over.
resource "aws_s3_bucket_notification" "logs" {
  count = var.create_trail ? 1 : 0

  bucket = aws_s3_bucket.logs[0].id

  dynamic "queue" {
    for_each = var.is_organization_trail ? ["AWSLogs/"] : [for it in ["CloudTrail", "CloudTrail-Insight"] : "AWSLogs/${local.account}/${it}/"]

    content {
      queue_arn     = aws_sqs_queue.events.arn
      events        = ["s3:ObjectCreated:*"]
      filter_prefix = queue.value
      filter_suffix = ".json.gz"
    }
  }

  # S3 sends a test message when this is made.
  depends_on = [aws_sqs_queue_policy.events, aws_kms_key.this]
}

# Who read the logs, optionally.

resource "aws_s3_bucket" "access" {
  #checkov:skip=CKV_AWS_144:Access logs are kept for a year and not replicated.
  #checkov:skip=CKV_AWS_145:S3 writes access logs only into buckets with SSE-S3.
  #checkov:skip=CKV2_AWS_62:Nobody waits for access logs.
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket        = "${local.name}-access-${local.bucket_suffix}"
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_logging" "logs" {
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket        = aws_s3_bucket.logs[0].id
  target_bucket = aws_s3_bucket.access[0].id
  target_prefix = "logs/"

  depends_on = [aws_s3_bucket_policy.access]
}

resource "aws_s3_bucket_versioning" "access" {
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "access" {
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "access" {
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket                  = aws_s3_bucket.access[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "access" {
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id

  rule {
    id     = "one-year"
    status = "Enabled"

    filter {}

    expiration {
      days = 365
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

data "aws_iam_policy_document" "access" {
  count = var.create_trail && var.access_logs ? 1 : 0

  # S3's log delivery, for this one bucket.
  statement {
    sid       = "LogDelivery"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.access[0].arn}/logs/*"]

    principals {
      type        = "Service"
      identifiers = ["logging.s3.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_s3_bucket.logs[0].arn]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  # Nobody reads or writes without TLS.
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.access[0].arn, "${aws_s3_bucket.access[0].arn}/*"]

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

resource "aws_s3_bucket_policy" "access" {
  count = var.create_trail && var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id
  policy = data.aws_iam_policy_document.access[0].json

  depends_on = [aws_s3_bucket_public_access_block.access]
}
