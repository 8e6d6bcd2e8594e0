# 6: aws_ecs_service this: deployment_circuit_breaker: there is no argument roll_back; did you mean rollback?
resource "aws_ecs_service" "this" {
  name = "trailhound"
  deployment_circuit_breaker {
    enable    = true
    roll_back = true
    rollback  = true
  }
}
