# General

variable "aws_region" {
  description = "The region of everything here. Global services (IAM, sign-in of the root user) send EventBridge events to us-east-1 only."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region is the code of a region, such as us-east-1."
  }
}

variable "prefix" {
  description = "The first part of every name."
  type        = string
  default     = "security-monitoring"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.prefix))
    error_message = "prefix has 3 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen: it becomes part of bucket names."
  }
}

variable "environment" {
  description = "The second part of every name."
  type        = string
  default     = "test"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?$", var.environment))
    error_message = "environment has 1 to 10 lower-case letters, digits and hyphens: it becomes part of bucket names."
  }
}

variable "tags" {
  description = "Further tags of every resource."
  type        = map(string)
  default     = {}
}

variable "kms_key_arn" {
  description = "A KMS key of yours. Its policy must hold the statements of kms.tf. Not set: a key is made."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key (arn:aws:kms:...:key/...), not of an alias."
  }
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted. Set to false before a destroy."
  type        = bool
  default     = true
}

variable "force_destroy" {
  description = "Whether a destroy also deletes the objects in the buckets and the images in the repository."
  type        = bool
  default     = false
}

# The trail and its bucket

variable "create_trail" {
  description = "Whether to make a trail and its bucket. false: the logs of an existing trail are read (existing_*)."
  type        = bool
  default     = true
}

variable "is_organization_trail" {
  description = "Whether the trail records every account of the organization. Only in the management account, or one that CloudTrail administration is delegated to."
  type        = bool
  default     = false
}

variable "log_kms" {
  description = "Whether log objects are encrypted with the KMS key. false: with keys of S3 (SSE-S3)."
  type        = bool
  default     = true
}

variable "log_expiration_days" {
  description = "After how many days log objects expire; 0: never. Expired versions are kept for 30 days more."
  type        = number
  default     = 365

  validation {
    condition     = var.log_expiration_days == 0 || var.log_expiration_days > 180
    error_message = "log_expiration_days is 0 (never) or more than 180: objects move to Glacier Instant Retrieval after 90 days, which bills at least 90 more."
  }
}

variable "access_logs" {
  description = "Whether reads of the log bucket are recorded in a bucket of their own."
  type        = bool
  default     = false
}

variable "existing_trail_arn" {
  description = "The trail that writes existing_bucket_name, for the rules that guard the pipeline. With create_trail = false."
  type        = string
  default     = null

  validation {
    condition     = var.existing_trail_arn == null || can(regex("^arn:[a-z-]+:cloudtrail:[a-z0-9-]+:[0-9]{12}:trail/.+$", var.existing_trail_arn))
    error_message = "existing_trail_arn is the ARN of a trail, arn:aws:cloudtrail:...:trail/NAME."
  }
}

variable "existing_bucket_name" {
  description = "The bucket that the existing trail writes. Required with create_trail = false. Its policy must let the task role in if it belongs to another account."
  type        = string
  default     = null
}

variable "existing_bucket_kms_key_arn" {
  description = "The key that the existing trail encrypts its logs with, if any. Its policy must let the task role decrypt."
  type        = string
  default     = null
}

variable "existing_trail_topic_arn" {
  description = "The SNS topic that the existing trail announces its log files on, in aws_region. Not set: EventBridge events of the bucket feed the queue; turn them on in the bucket's properties."
  type        = string
  default     = null

  validation {
    condition     = var.existing_trail_topic_arn == null || can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+$", var.existing_trail_topic_arn))
    error_message = "existing_trail_topic_arn is the ARN of a standard SNS topic."
  }
}

# The queue

variable "queue_encryption" {
  description = "\"sqs\": with keys of SQS, at no cost. \"kms\": with the KMS key, which then also lets S3, EventBridge and SNS in."
  type        = string
  default     = "sqs"

  validation {
    condition     = contains(["sqs", "kms"], var.queue_encryption)
    error_message = "queue_encryption is sqs or kms."
  }
}

variable "realtime_events" {
  description = "EventBridge events beside the log files, seconds after the call: \"off\", \"writes\" (no read-only calls), or \"all\" management events."
  type        = string
  default     = "off"

  validation {
    condition     = contains(["off", "writes", "all"], var.realtime_events)
    error_message = "realtime_events is off, writes or all."
  }
}

# Alerts

variable "alert_email" {
  description = "An address that gets alerts and alarms by email. AWS sends it a link to confirm."
  type        = string
  default     = null

  validation {
    condition     = var.alert_email == null || can(regex("^[^@ ]+@[^@ ]+$", var.alert_email))
    error_message = "alert_email is one email address."
  }
}

variable "alert_format" {
  description = "What subscribers of the alerts topic other than email and SMS get: \"json\", \"chatbot\" (for Slack and Teams, which then show alerts beside alarms) or \"ocsf\" (for SIEMs)."
  type        = string
  default     = "json"

  validation {
    condition     = contains(["json", "chatbot", "ocsf"], var.alert_format)
    error_message = "alert_format is \"json\", \"chatbot\" or \"ocsf\"."
  }
}

variable "max_alerts_per_minute" {
  description = "How many alerts a minute each task sends; what is beyond is told together by one. 0 is any number."
  type        = number
  default     = 0

  validation {
    condition     = var.max_alerts_per_minute >= 0 && var.max_alerts_per_minute <= 100000 && floor(var.max_alerts_per_minute) == var.max_alerts_per_minute
    error_message = "max_alerts_per_minute is a whole number from 0 to 100000."
  }
}

variable "alarm_topic" {
  description = "The ARN of the topic that CloudWatch alarms go to. Not set: the alerts topic, which then cannot tell that it fails itself."
  type        = string
  default     = null
}

variable "oldest_message_seconds" {
  description = "The alarm for a message that waits too long."
  type        = number
  default     = 900

  validation {
    condition     = var.oldest_message_seconds >= 60
    error_message = "oldest_message_seconds is at least 60."
  }
}

variable "slack" {
  description = "A Slack channel that Amazon Q Developer in chat applications shows alarms in, and alerts with alert_format = \"chatbot\". The workspace must be authorized in the console first."
  type        = object({ team_id = string, channel_id = string })
  default     = null
}

variable "teams" {
  description = "A Microsoft Teams channel, likewise."
  type        = object({ tenant_id = string, team_id = string, channel_id = string })
  default     = null
}

variable "retention_days" {
  description = "After how many days stored events expire."
  type        = number
  default     = 90

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 36500 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days is a whole number from 1 to 36500."
  }
}

# The daemon

variable "image" {
  description = "The image, with tag or digest. Not set: image_tag of a repository that is made here."
  type        = string
  default     = null
}

variable "image_tag" {
  description = "The tag in the repository that is made here. Tags are immutable: each version has its own."
  type        = string
  default     = null

  validation {
    condition     = var.image_tag == null || can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag))
    error_message = "image_tag is a tag alone, such as 1.0.0."
  }
}

variable "cpu_architecture" {
  description = "ARM64 (Graviton, a fifth cheaper) or X86_64. The image must be built for it."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.cpu_architecture)
    error_message = "cpu_architecture is ARM64 or X86_64."
  }
}

variable "task_cpu" {
  description = "CPU units of a task: 1024 are one core."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.task_cpu)
    error_message = "task_cpu is 256, 512, 1024, 2048 or 4096."
  }
}

variable "task_memory" {
  description = "Memory of a task in MiB, one of those that Fargate offers with task_cpu."
  type        = number
  default     = 512

  validation {
    condition     = var.task_memory >= 512 && var.task_memory % 512 == 0
    error_message = "task_memory is a multiple of 512 that Fargate offers with task_cpu."
  }
}

variable "use_spot" {
  description = "Whether tasks run on Fargate Spot: 70 % cheaper, may be stopped with a warning of two minutes. Nothing is lost by it."
  type        = bool
  default     = false
}

variable "min_tasks" {
  description = "The fewest tasks."
  type        = number
  default     = 1

  validation {
    condition     = var.min_tasks >= 1
    error_message = "min_tasks is at least 1: without a task nobody reads the queue."
  }
}

variable "max_tasks" {
  description = "The most tasks."
  type        = number
  default     = 4

  validation {
    condition     = var.max_tasks >= 1
    error_message = "max_tasks is at least 1, and not below min_tasks."
  }
}

variable "backlog_per_task" {
  description = "How many waiting messages a task should have at most; more tasks start beyond it."
  type        = number
  default     = 100

  validation {
    condition     = var.backlog_per_task >= 1
    error_message = "backlog_per_task is at least 1."
  }
}

variable "log_level" {
  description = "The daemon's log level. ERROR and OFF are not offered: the alarm \"alerts failing\" reads warnings."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["TRACE", "DEBUG", "INFO", "WARN"], var.log_level)
    error_message = "log_level is TRACE, DEBUG, INFO or WARN. Anything quieter would silence the alarm for alerts that fail."
  }
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the daemon's own log."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of the periods that CloudWatch Logs offers, such as 30, 90 or 365."
  }
}

variable "metrics" {
  description = "\"none\", or \"emf\": the daemon writes its metrics into its log, and CloudWatch reads them there."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "emf"], var.metrics)
    error_message = "metrics is none or emf."
  }
}

# Rules

variable "rules_file" {
  description = "A rule file on this machine, put into a bucket. A new apply after an edit reloads it without a deployment. Not set, nor rules_uri: the rules in the image."
  type        = string
  default     = null

  validation {
    condition     = var.rules_file == null || can(jsondecode(file(var.rules_file)))
    error_message = "rules_file is the path of a JSON file that exists; `trailhound rules check` tells more."
  }
}

variable "rules_uri" {
  description = "A rule file that others keep: s3://bucket/key, optionally with ?versionId=ID. Not together with rules_file."
  type        = string
  default     = null

  validation {
    condition     = var.rules_uri == null || can(regex("^s3://[a-z0-9.-]{3,63}/[^?]+([?]versionId=[^?]+)?$", var.rules_uri))
    error_message = "rules_uri is s3://bucket/key or s3://bucket/key?versionId=ID."
  }
}

variable "rules_kms_key_arn" {
  description = "The key that the object of rules_uri is encrypted with, if any."
  type        = string
  default     = null
}

variable "pin_rules_version" {
  description = "Whether tasks read exactly the version of rules_file that was applied. A change is then a new deployment, and a circuit breaker rolls it back."
  type        = bool
  default     = false
}

# The network

variable "vpc_id" {
  description = "A VPC of yours. Not set: a small one is made, with endpoints and without a way to the internet."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Subnets of vpc_id, from which S3, SQS, SNS, DynamoDB, CloudWatch Logs and the image's registry can be reached."
  type        = list(string)
  default     = []
}

variable "assign_public_ip" {
  description = "Whether tasks have a public address: needed in public subnets of yours without NAT. Nothing may come in either way."
  type        = bool
  default     = false
}

variable "vpc_cidr" {
  description = "The addresses of the VPC that is made here."
  type        = string
  default     = "10.93.0.0/24"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 3, 0)) && can(regex("/(1[6-9]|2[0-4])$", var.vpc_cidr))
    error_message = "vpc_cidr is a network of /16 to /24, such as 10.93.0.0/24."
  }
}

variable "availability_zones" {
  description = "In how many zones the VPC that is made here has a subnet and endpoints. One halves the price of the endpoints; while its zone is out, alerts wait."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2, 3], var.availability_zones)
    error_message = "availability_zones is 1, 2 or 3."
  }
}

# People

variable "operator_principal_arns" {
  description = "Who may assume the operator role, for the tools of the command line. Empty: there is no such role."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.operator_principal_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/.+$", arn))])
    error_message = "operator_principal_arns are ARNs of IAM roles or users: no account, no *."
  }
}
