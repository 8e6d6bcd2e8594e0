# The tasks' security group, and a small VPC where none is given: endpoints, no internet gateway, no NAT.

data "aws_availability_zones" "current" {
  count = var.vpc_id == null ? 1 : 0

  state = "available"

  # Fargate runs no ARM64 tasks in the first, and no tasks at all in the others.
  exclude_zone_ids = ["use1-az3", "usw1-az2", "apne1-az3"]

  filter {
    name   = "zone-type"
    values = ["availability-zone"]
  }
}

locals {
  vpc_id     = var.vpc_id == null ? aws_vpc.this[0].id : var.vpc_id
  subnet_ids = var.vpc_id == null ? aws_subnet.this[*].id : var.subnet_ids

  # What a task calls: the queue, the topic, its log, and the registry. It asks KMS and STS for nothing itself.
  endpoint_services = var.vpc_id == null ? toset(["sqs", "sns", "logs", "ecr.api", "ecr.dkr"]) : toset([])
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:Nothing but the tasks and the endpoints is in this VPC, and there is no way out; flow logs would record only the tasks' calls.
  count = var.vpc_id == null ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = local.name }
}

# Closed: without rules.
resource "aws_default_security_group" "this" {
  count = var.vpc_id == null ? 1 : 0

  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "this" {
  count = var.vpc_id == null ? var.availability_zones : 0

  vpc_id            = aws_vpc.this[0].id
  availability_zone = data.aws_availability_zones.current[0].names[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 3, count.index)

  tags = { Name = "${local.name}-${count.index + 1}" }
}

resource "aws_route_table" "this" {
  count = var.vpc_id == null ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = local.name }
}

resource "aws_route_table_association" "this" {
  count = var.vpc_id == null ? var.availability_zones : 0

  subnet_id      = aws_subnet.this[count.index].id
  route_table_id = aws_route_table.this[0].id
}

# Tasks: nothing comes in, HTTPS goes out.

resource "aws_security_group" "tasks" {
  name        = "${local.name}-tasks"
  description = "trailhound: nothing in, HTTPS out"
  vpc_id      = local.vpc_id

  tags = { Name = "${local.name}-tasks" }
}

# In the VPC that is made here, that leads to its endpoints only.
resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id = aws_security_group.tasks.id
  description       = "AWS APIs and the image registry"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_security_group" "endpoints" {
  count = var.vpc_id == null ? 1 : 0

  name        = "${local.name}-endpoints"
  description = "AWS APIs, for the tasks of trailhound"
  vpc_id      = local.vpc_id

  tags = { Name = "${local.name}-endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = var.vpc_id == null ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "HTTPS from the tasks"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.tasks.id
}

# Endpoints serve this account's roles alone; what each may do, its own policy says (iam.tf).
data "aws_iam_policy_document" "endpoint" {
  statement {
    sid       = "OwnAccount"
    actions   = ["sqs:*", "sns:Publish", "sns:GetTopicAttributes", "logs:CreateLogStream", "logs:PutLogEvents", "ecr:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.endpoint_services

  vpc_id              = local.vpc_id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${var.aws_region}.${each.value}"
  private_dns_enabled = true
  subnet_ids          = local.subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  policy              = data.aws_iam_policy_document.endpoint.json

  tags = { Name = "${local.name}-${each.value}" }
}

data "aws_iam_policy_document" "s3_endpoint" {
  #checkov:skip=CKV_AWS_283:The condition names the account; an endpoint's policy needs a principal of "*" for that.

  # Tasks read log objects, and the rules where these are in S3.
  statement {
    sid     = "Objects"
    actions = ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"]
    resources = concat(
      [local.bucket_arn, "${local.bucket_arn}/*"],
      local.rules_in_s3 ? ["arn:${local.partition}:s3:::${local.rules_bucket}", "arn:${local.partition}:s3:::${local.rules_bucket}/*"] : [],
    )

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }

  # ECR keeps the layers of images in this bucket of its own, and signs the requests itself.
  statement {
    sid       = "ImageLayers"
    actions   = ["s3:GetObject"]
    resources = ["arn:${local.partition}:s3:::prod-${var.aws_region}-starport-layer-bucket/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}

resource "aws_vpc_endpoint" "s3" {
  count = var.vpc_id == null ? 1 : 0

  vpc_id            = local.vpc_id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.aws_region}.s3"
  route_table_ids   = [aws_route_table.this[0].id]
  policy            = data.aws_iam_policy_document.s3_endpoint.json

  tags = { Name = "${local.name}-s3" }
}

data "aws_iam_policy_document" "dynamodb_endpoint" {
  # Tasks store detected events.
  statement {
    sid       = "Table"
    actions   = ["dynamodb:PutItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:DescribeTable"]
    resources = [aws_dynamodb_table.events.arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

resource "aws_vpc_endpoint" "dynamodb" {
  count = var.vpc_id == null ? 1 : 0

  vpc_id            = local.vpc_id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.aws_region}.dynamodb"
  route_table_ids   = [aws_route_table.this[0].id]
  policy            = data.aws_iam_policy_document.dynamodb_endpoint.json

  tags = { Name = "${local.name}-dynamodb" }
}
