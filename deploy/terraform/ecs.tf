# The repository, where no image is given.

resource "aws_ecr_repository" "this" {
  count = var.image == null ? 1 : 0

  name                 = local.service_name
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.force_destroy

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = local.kms_key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  count = var.image == null ? 1 : 0

  repository = aws_ecr_repository.this[0].name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Images without a tag go after a week"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 7 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "The last twenty images stay, to go back to"
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 20 }
        action       = { type = "expire" }
      },
    ]
  })
}

# The daemon's log, on which the alarm "alerts failing" listens, and metrics where these are on.

resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = local.kms_key_arn
}

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:Container Insights costs about 10 USD a month for one service, and nothing here reads it: scaling and alarms use metrics that are free.
  name = local.cluster_name

  setting {
    name  = "containerInsights"
    value = "disabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

locals {
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
  fargate_memory = {
    "256"  = [512, 1024, 2048]
    "512"  = [for gib in range(1, 5) : gib * 1024]
    "1024" = [for gib in range(2, 9) : gib * 1024]
    "2048" = [for gib in range(4, 17) : gib * 1024]
    "4096" = [for gib in range(8, 31) : gib * 1024]
  }

  image = var.image != null ? var.image : "${aws_ecr_repository.this[0].repository_url}:${var.image_tag == null ? "missing" : var.image_tag}"

  # docs/configuration.md explains each. tests/terraform holds them to what `trailhound config` takes.
  environment = merge(
    {
      AWS_REGION                          = var.aws_region
      SQS_QUEUE_URL                       = aws_sqs_queue.events.url
      SNS_TOPIC_ARN                       = aws_sns_topic.alerts.arn
      DYNAMODB_TABLE                      = aws_dynamodb_table.events.name
      LOG_LEVEL                           = var.log_level
      TRAILHOUND_LOG__FORMAT              = "json"
      TRAILHOUND_ALERTING__FORMAT         = var.alert_format
      TRAILHOUND_ALERTING__MAX_PER_MINUTE = tostring(var.max_alerts_per_minute)
      TRAILHOUND_STORE__RETENTION_DAYS    = tostring(var.retention_days)
      TRAILHOUND_SOURCE__ALLOWED_BUCKETS  = local.bucket
      TRAILHOUND_SOURCE__INLINE_RECORDS   = tostring(local.realtime)
      TRAILHOUND_RULES__OWN_TRAILS        = local.trail_arn == null ? "" : local.trail_arn
      TRAILHOUND_RULES__OWN_SERVICES      = local.service_arn
      # Nothing comes in: only the health check, from inside of the container.
      TRAILHOUND_HTTP__LISTEN           = "127.0.0.1:8080"
      TRAILHOUND_SHUTDOWN__DEADLINE     = "25s"
      TRAILHOUND_SHUTDOWN__STOP_TIMEOUT = "30s"
    },
    local.rules_in_s3 ? {
      TRAILHOUND_RULES__PATH          = local.rules_path
      TRAILHOUND_RULES__POLL_INTERVAL = "1m"
    } : {},
    var.metrics == "emf" ? {
      TRAILHOUND_EMF__ENABLED   = "true"
      TRAILHOUND_EMF__NAMESPACE = "trailhound"
      TRAILHOUND_EMF__SERVICE   = local.service_name
      TRAILHOUND_EMF__INTERVAL  = "1m"
    } : {},
  )
}

resource "aws_ecs_task_definition" "this" {
  family                   = local.service_name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.task_cpu
  memory                   = var.task_memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  container_definitions = jsonencode([
    {
      name                   = "trailhound"
      image                  = local.image
      essential              = true
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      # shutdown.stop_timeout tells the daemon the same number; its own deadline lies below.
      stopTimeout = 30

      linuxParameters = {
        capabilities = { drop = ["ALL"] }
      }

      # The image has no shell: CMD, not CMD-SHELL. It fails until everything was reachable once.
      healthCheck = {
        command     = ["CMD", "/usr/local/bin/trailhound", "healthcheck"]
        interval    = 30
        timeout     = 5
        retries     = 3
        startPeriod = 120
      }

      environment  = [for name, value in local.environment : { name = name, value = value }]
      mountPoints  = []
      portMappings = []
      volumesFrom  = []

      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.this.name
          awslogs-region        = var.aws_region
          awslogs-stream-prefix = "trailhound"
          # In blocking mode an outage of CloudWatch Logs would stop the daemon at its next line. Alerts come first: what
          # does not fit into the buffer meanwhile is lost from the log.
          mode            = "non-blocking"
          max-buffer-size = "8m"
        }
      }
    },
  ])

  lifecycle {
    precondition {
      condition     = var.image != null || var.image_tag != null
      error_message = "Set image_tag to a tag that was pushed to the repository, or image. README.md tells how to push the first one."
    }

    precondition {
      condition     = length(local.name) <= 28
      error_message = "prefix and environment have more than 28 characters together: bucket names would be too long."
    }

    precondition {
      condition     = var.create_trail || var.existing_bucket_name != null
      error_message = "create_trail = false needs existing_bucket_name."
    }

    precondition {
      condition     = !var.create_trail || (var.existing_bucket_name == null && var.existing_trail_arn == null && var.existing_trail_topic_arn == null && var.existing_bucket_kms_key_arn == null)
      error_message = "existing_* belong to create_trail = false."
    }

    precondition {
      condition     = var.rules_file == null || var.rules_uri == null
      error_message = "Set rules_file or rules_uri, not both."
    }

    precondition {
      condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
      error_message = "Set vpc_id and subnet_ids together, or neither."
    }

    precondition {
      condition     = var.vpc_id != null || !var.assign_public_ip
      error_message = "assign_public_ip belongs to subnets of your own: the VPC that is made here has no internet gateway."
    }

    precondition {
      condition     = contains(local.fargate_memory[tostring(var.task_cpu)], var.task_memory)
      error_message = "Fargate has no task of ${var.task_cpu} CPU units and ${var.task_memory} MiB; with this task_cpu, task_memory is one of ${join(", ", local.fargate_memory[tostring(var.task_cpu)])}."
    }

    precondition {
      condition     = var.max_tasks >= var.min_tasks
      error_message = "max_tasks is below min_tasks."
    }
  }
}

resource "aws_ecs_service" "this" {
  name                   = local.service_name
  cluster                = aws_ecs_cluster.this.id
  task_definition        = aws_ecs_task_definition.this.arn
  desired_count          = var.min_tasks
  platform_version       = "LATEST"
  propagate_tags         = "SERVICE"
  enable_execute_command = false
  # ECS changes use_spot only with a new deployment.
  force_new_deployment  = true
  wait_for_steady_state = true

  # The new task is healthy before the old one stops. Two at once share the queue; no event is alerted twice.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  capacity_provider_strategy {
    capacity_provider = var.use_spot ? "FARGATE_SPOT" : "FARGATE"
    weight            = 1
  }

  network_configuration {
    subnets          = local.subnet_ids
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = var.assign_public_ip
  }

  lifecycle {
    # Scaling decides.
    ignore_changes = [desired_count]
  }

  # A task that starts before it may read and write only fails its health check.
  depends_on = [
    aws_ecs_cluster_capacity_providers.this,
    aws_iam_role_policy.execution,
    aws_iam_role_policy.task,
    aws_s3_object.rules,
    aws_route_table_association.this,
    aws_vpc_endpoint.dynamodb,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.s3,
    aws_vpc_security_group_egress_rule.tasks,
    aws_vpc_security_group_ingress_rule.endpoints,
  ]
}

# Scaling: waiting messages for each running task.

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.min_tasks
  max_capacity       = var.max_tasks
}

resource "aws_appautoscaling_policy" "backlog" {
  name               = "${local.name}-backlog"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = var.backlog_per_task
    scale_in_cooldown  = 300
    scale_out_cooldown = 60

    customized_metric_specification {
      metrics {
        id          = "waiting"
        label       = "Messages that wait"
        return_data = false

        metric_stat {
          stat = "Average"

          metric {
            namespace   = "AWS/SQS"
            metric_name = "ApproximateNumberOfMessagesVisible"

            dimensions {
              name  = "QueueName"
              value = aws_sqs_queue.events.name
            }
          }
        }
      }

      # Each task reports its CPU once a minute: the number of reports is the number of tasks, without Container Insights.
      metrics {
        id          = "tasks"
        label       = "Running tasks"
        return_data = false

        metric_stat {
          stat = "SampleCount"

          metric {
            namespace   = "AWS/ECS"
            metric_name = "CPUUtilization"

            dimensions {
              name  = "ClusterName"
              value = aws_ecs_cluster.this.name
            }

            dimensions {
              name  = "ServiceName"
              value = aws_ecs_service.this.name
            }
          }
        }
      }

      metrics {
        id          = "backlog"
        label       = "Messages that wait for each task"
        expression  = "waiting / FILL(tasks, 1)"
        return_data = true
      }
    }
  }
}
