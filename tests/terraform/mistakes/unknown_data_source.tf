# expect: unknown data source aws_caller
data "aws_caller" "c" {}

output "c" {
  description = "It."
  value       = data.aws_caller.c.id
}
