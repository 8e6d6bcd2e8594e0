# 4: aws_ecs_service this: network_configuration is a block, written without =
resource "aws_ecs_service" "this" {
  name                  = "trailhound"
  network_configuration = { subnets = [] }
}
