# expect: var.name is never used
variable "name" {
  description = "A name."
  type        = string

  validation {
    condition     = var.name != ""
    error_message = "Give a name."
  }
}
