# expect: variable a has no type
variable "a" {
  description = "A."
}

output "a" {
  description = "It."
  value       = var.a
}
