# 3: each stands where there is no for_each
resource "aws_sqs_queue" "this" {
  name = each.key
}
