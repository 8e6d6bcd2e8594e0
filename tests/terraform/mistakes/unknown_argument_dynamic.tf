# expect: unknown argument action in aws_iam_policy_document.statement
data "aws_iam_policy_document" "p" {
  dynamic "statement" {
    for_each = [1]

    content {
      action = ["sqs:*"]
    }
  }
}

output "p" {
  description = "The policy."
  value       = data.aws_iam_policy_document.p.json
}
