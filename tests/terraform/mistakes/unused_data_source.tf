# expect: data.aws_region.current is never used
data "aws_region" "current" {}
