output "trail_arn" {
  description = "The trail, or the existing one if it was named."
  value       = local.trail_arn
}

output "bucket_name" {
  description = "The bucket of the log files."
  value       = local.bucket
}

output "topic_arn" {
  description = "The topic of alerts: subscribe to it what should hear of them."
  value       = aws_sns_topic.alerts.arn
}

output "table_name" {
  description = "The table of detected events."
  value       = aws_dynamodb_table.events.name
}

output "queue_url" {
  description = "The queue that the daemon reads."
  value       = aws_sqs_queue.events.url
}

output "dead_letter_queue_url" {
  description = "The queue of messages that could not be read."
  value       = aws_sqs_queue.dead.url
}

output "dead_letter_queue_arn" {
  description = "The same, for moving messages back."
  value       = aws_sqs_queue.dead.arn
}

output "cluster_name" {
  description = "The ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "The ECS service."
  value       = aws_ecs_service.this.name
}

output "ecr_repository_url" {
  description = "Where to push images; null where image is set."
  value       = one(aws_ecr_repository.this[*].repository_url)
}

output "log_group_name" {
  description = "The daemon's own log."
  value       = aws_cloudwatch_log_group.this.name
}

output "rules_uri" {
  description = "Where tasks read their rules; null: in the image."
  value       = local.rules_path
}

output "kms_key_arn" {
  description = "The key that encrypts the pipeline."
  value       = local.kms_key_arn
}

output "key_policy" {
  description = "The policy that a key of your own (kms_key_arn) needs."
  value       = data.aws_iam_policy_document.key.json
}

output "operator_role_arn" {
  description = "The role for the tools of the command line; null: nobody may assume one."
  value       = one(aws_iam_role.operator[*].arn)
}
