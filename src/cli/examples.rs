//! What stands at the end of `--help`: commands as people type them.

pub(super) const ALL: &str = "\
Examples:
  trailhound demo                                what it does, on an AWS inside of this process
  trailhound rules check monitored_events.json   whether the daemon would take these rules
  trailhound scan logs/                          what the rules find in these files
  trailhound doctor                              whether an installation is in order
  trailhound events list --since 24h             what was detected
  trailhound                                     the daemon itself";

pub(super) const RUN: &str = "\
Examples:
  SQS_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound \\
  SNS_TOPIC_ARN=arn:aws:sns:eu-west-1:111122223333:trailhound-alerts \\
  DYNAMODB_TABLE=trailhound-events trailhound run
  trailhound run --config trailhound.toml
  kill -HUP $(pidof trailhound)    reloads the rules";

pub(super) const CONFIG: &str = "\
Examples:
  trailhound config
  trailhound config --config trailhound.toml --format json | jq '.[\"queue.url\"]'
  trailhound config > trailhound.toml    the configuration in force as a file";

pub(super) const RULES: &str = "\
Examples:
  trailhound rules check
  trailhound rules explain --rule root-user-activity record.json
  trailhound rules import --from sigma rules/*.yml > imported.json";

pub(super) const RULES_CHECK: &str = "\
Examples:
  trailhound rules check monitored_events.json
  trailhound rules check --cost --format json s3://example-config/monitored_events.json | jq .errors";

pub(super) const RULES_TEST: &str = "\
Examples:
  trailhound rules test
  trailhound rules test monitored_events.json --tests monitored_events.tests.json";

pub(super) const RULES_EXPLAIN: &str = "\
Examples:
  trailhound rules explain record.json
  trailhound rules explain --rule root-user-activity --index 12 111122223333_CloudTrail_eu-west-1_20260501T1205Z_Qz4L.json.gz";

pub(super) const RULES_LIST: &str = "\
Examples:
  trailhound rules list
  trailhound rules list --format json monitored_events.json | jq -r '.[].id'";

pub(super) const RULES_IMPORT: &str = "\
Examples:
  aws events describe-rule --name console-sign-in | trailhound rules import --from eventbridge -
  trailhound rules import --from sigma aws_root_account_usage.yml > imported.json";

pub(super) const RULES_SCHEMA: &str = "\
Examples:
  trailhound rules schema > monitored_events.schema.json";

pub(super) const HEALTHCHECK: &str = "\
Examples:
  trailhound healthcheck
  trailhound healthcheck --url http://127.0.0.1:8080/readyz";

#[cfg(feature = "emulator")]
pub(super) const DEMO: &str = "\
Examples:
  trailhound demo
  trailhound demo --exit --logs logs/ --rules monitored_events.json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  trailhound completions bash > ~/.local/share/bash-completion/completions/trailhound
  trailhound completions zsh > ~/.zfunc/_trailhound
  trailhound completions fish > ~/.config/fish/completions/trailhound.fish";

pub(super) const MAN: &str = "\
Examples:
  trailhound man > trailhound.1 && man ./trailhound.1";
