# expect: aws_s3_bucket_versioning needs versioning_configuration
resource "aws_s3_bucket_versioning" "v" {
  bucket = "b"
}
