# expect: validation of a reads var.b
variable "a" {
  description = "A."
  type        = number

  validation {
    condition     = var.a < var.b
    error_message = "a is below b."
  }
}

variable "b" {
  description = "B."
  type        = number
}

output "sum" {
  description = "Both."
  value       = var.a + var.b
}
