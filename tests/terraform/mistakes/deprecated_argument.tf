# expect: acl in aws_s3_bucket is deprecated
resource "aws_s3_bucket" "b" {
  acl = "private"
}
