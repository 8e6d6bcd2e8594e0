//! Keys of KMS: whether they work, and let a service use them.

use serde_json::json;

use super::policy::{Principal, Request, Verdict, evaluate};
use super::{Finding, Looked, in_region, quoted};

/// A key as KMS describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    pub arn: String,
    /// `Enabled`, `Disabled`, `PendingDeletion`, ...
    pub state: String,
    /// AWS's own key for a service, whose policy nobody can change.
    pub managed: bool,
    /// Of a key of one's own; a key of AWS is not asked for it.
    pub policy: Looked<Option<String>>,
}

impl KeyFacts {
    fn is_enabled(&self) -> bool {
        self.state == "Enabled"
    }
}

/// Whether a key works at all.
pub(super) fn works(check: &'static str, key: &Looked<KeyFacts>) -> Finding {
    match key {
        Err(unknown) => Finding::unknown(check, unknown),
        Ok(key) if key.is_enabled() => {
            let whose = if key.managed { "AWS's key" } else { "key" };
            Finding::ok(check, format!("{whose} {} is enabled", key.arn))
        }
        Ok(key) => {
            let command = if key.state == "PendingDeletion" { "cancel-key-deletion" } else { "enable-key" };
            Finding::problem(
                check,
                format!("key {} is {}: nothing that it encrypts can be used", key.arn, key.state),
                format!("aws kms {command} --key-id {}{}", quoted(&key.arn), in_region(&key.arn)),
            )
        }
    }
}

/// Whether the key's policy lets a service encrypt for a queue. `context` as for [`Request`].
pub(super) fn lets_in(
    check: &'static str,
    key: &KeyFacts,
    service: &str,
    context: &[(&str, Option<&str>)],
) -> Option<Finding> {
    let policy = match &key.policy {
        Ok(Some(policy)) => policy,
        Ok(None) => return None,
        Err(unknown) => return Some(Finding::unknown(check, unknown)),
    };
    let statement = json!({
        "Effect": "Allow",
        "Principal": { "Service": service },
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": "*",
    });
    let mend = format!("add to the policy of key {}: {statement}", key.arn);
    for action in ["kms:GenerateDataKey", "kms:Decrypt"] {
        let request = Request { principal: Principal::Service(service), action, resource: &key.arn, context };
        let finding = match evaluate(policy, &request) {
            Ok(Verdict::Allowed) => continue,
            Ok(Verdict::NotAllowed(near)) => {
                let near = if near.is_empty() { String::new() } else { format!(" ({})", near.join("; ")) };
                let found = format!("the policy of key {} does not let {service} call {action}{near}", key.arn);
                Finding::problem(check, found, mend)
            }
            Ok(Verdict::Denied(statement)) => Finding::problem(
                check,
                format!("{statement} of the policy of key {} denies {service} {action}", key.arn),
                "except the service from that statement",
            ),
            Ok(Verdict::Unclear(why)) => {
                Finding::warning(check, format!("{service} may call {action} on key {} if: {why}", key.arn), mend)
            }
            Err(why) => Finding::problem(check, why, mend),
        };
        return Some(finding);
    }
    Some(Finding::ok(check, format!("key {} is enabled and lets {service} in", key.arn)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Status, Unknown};

    fn key(state: &str, policy: &str) -> KeyFacts {
        KeyFacts {
            arn: "arn:aws:kms:eu-west-1:111122223333:key/0a1b".to_owned(),
            state: state.to_owned(),
            managed: false,
            policy: Ok(Some(policy.to_owned())),
        }
    }

    #[test]
    fn a_key_that_is_not_enabled_is_a_problem_and_how_to_mend_it_depends_on_why() {
        for (state, status, words) in [
            ("Enabled", Status::Ok, ""),
            ("Disabled", Status::Problem, "aws kms enable-key"),
            ("PendingDeletion", Status::Problem, "aws kms cancel-key-deletion"),
        ] {
            let finding = works("queue-key", &Ok(key(state, "{}")));
            assert_eq!(finding.status, status);
            let mend = finding.mend.unwrap_or_default();
            assert!(mend.starts_with(words), "{mend}");
            assert!(words.is_empty() || mend.ends_with(" --region eu-west-1"), "{mend}");
        }
        let denied = Unknown::Denied { action: "kms:DescribeKey".to_owned(), on: "alias/trail".to_owned() };
        assert_eq!(works("queue-key", &Err(denied)).status, Status::Skipped);
    }

    #[test]
    fn a_service_needs_both_actions() {
        let policy = |actions: &str| {
            format!(
                r#"{{"Statement": [{{"Effect": "Allow", "Principal": {{"Service": "s3.amazonaws.com"}},
                    "Action": {actions}, "Resource": "*"}}]}}"#
            )
        };
        for (actions, status) in [
            (r#"["kms:Decrypt", "kms:GenerateDataKey*"]"#, Status::Ok),
            (r#""kms:*""#, Status::Ok),
            (r#""kms:Decrypt""#, Status::Problem),
            (r#""kms:GenerateDataKey""#, Status::Problem),
        ] {
            let finding = lets_in("queue-key", &key("Enabled", &policy(actions)), "s3.amazonaws.com", &[]).unwrap();
            assert_eq!(finding.status, status, "{actions}");
        }
        let root = r#"{"Statement": {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
            "Action": "kms:*", "Resource": "*"}}"#;
        let finding = lets_in("queue-key", &key("Enabled", root), "s3.amazonaws.com", &[]).unwrap();
        assert_eq!(finding.status, Status::Problem);
        assert!(finding.mend.unwrap().contains(r#""Principal":{"Service":"s3.amazonaws.com"}"#));
    }
}
