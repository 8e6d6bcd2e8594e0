# expect: local.name is never used
locals {
  name = "n"
}
