# expect: aws_ecr_repository.image_scanning_configuration needs scan_on_push
resource "aws_ecr_repository" "r" {
  name = "r"

  image_scanning_configuration {}
}
