# expect: nothing
variable "names" {
  description = "Names of queues."
  type        = list(string)
}

locals {
  first = var.names[0]
}

data "aws_iam_policy_document" "q" {
  count = length(var.names)

  dynamic "statement" {
    for_each = [for name in var.names : upper(name)]

    content {
      actions   = [statement.value]
      resources = [aws_sqs_queue.q[count.index].arn]
    }
  }
}

resource "aws_sqs_queue" "q" {
  count = length(var.names)
  name  = "${local.first}-${count.index}"

  lifecycle {
    ignore_changes = [policy]

    precondition {
      condition     = length(var.names) > 0
      error_message = "Give a name."
    }
  }
}

output "policies" {
  description = "The policies, by queue."
  value       = { for i, it in aws_sqs_queue.q[*] : it.name => data.aws_iam_policy_document.q[i].json }
}
