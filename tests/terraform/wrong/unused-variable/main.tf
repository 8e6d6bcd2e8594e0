# 2: var.name is declared and not used
variable "name" {
  type        = string
  description = "The name of the queue"
}
