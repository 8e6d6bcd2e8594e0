# expect: aws_security_group_rule is deprecated
resource "aws_security_group_rule" "r" {
  type              = "egress"
  from_port         = 443
  to_port           = 443
  protocol          = "tcp"
  security_group_id = "sg"
}
