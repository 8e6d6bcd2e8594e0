//! The topic that alerts go to, and who hears them.

use super::key::{self, KeyFacts};
use super::{Finding, Looked, Unknown, in_region, plural, quoted};

const TOPIC: &str = "topic";
const SUBSCRIPTIONS: &str = "topic-subscriptions";
const KEY: &str = "topic-key";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    pub arn: String,
    /// The key that encrypts it, if there is one.
    pub key: Option<Looked<KeyFacts>>,
    pub subscriptions: Looked<Vec<Subscription>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `email`, `sqs`, `https`, ...
    pub protocol: String,
    pub endpoint: String,
    pub confirmed: bool,
}

/// The topic of the alerts.
#[must_use]
pub fn topic(facts: &Looked<TopicFacts>) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(unknown) => {
            let because = match unknown {
                Unknown::Missing(_) => "the topic does not exist",
                _ => "the topic's attributes are not known",
            };
            return vec![Finding::unknown(TOPIC, unknown), Finding::skipped(SUBSCRIPTIONS, because)];
        }
    };
    let fifo = if facts.arn.strip_suffix(".fifo").is_some() { " (FIFO: only queues can subscribe)" } else { "" };
    let mut findings = vec![Finding::ok(TOPIC, format!("{}{fifo}", facts.arn))];
    findings.extend(facts.key.as_ref().map(|key| key::works(KEY, key)));
    findings.push(subscriptions(facts));
    findings
}

fn subscriptions(facts: &TopicFacts) -> Finding {
    let all = match &facts.subscriptions {
        Ok(all) => all,
        Err(unknown) => return Finding::unknown(SUBSCRIPTIONS, unknown),
    };
    let (confirmed, pending): (Vec<_>, Vec<_>) = all.iter().partition(|subscription| subscription.confirmed);
    let count = |of: &[&Subscription]| u64::try_from(of.len()).unwrap_or(u64::MAX);
    let waiting: Vec<String> = pending.iter().take(5).map(|one| format!("{} {}", one.protocol, one.endpoint)).collect();
    let waiting = waiting.join(", ");
    let confirm =
        "open the link in the message that SNS sent there; the message is sent again by subscribing once more";
    match (count(&confirmed), count(&pending)) {
        (0, 0) => Finding::problem(
            SUBSCRIPTIONS,
            "nobody is subscribed: alerts are published and heard by nobody",
            format!(
                "aws sns subscribe --topic-arn {} --protocol email --notification-endpoint you@example.com{}",
                quoted(&facts.arn),
                in_region(&facts.arn)
            ),
        ),
        (0, _) => Finding::problem(
            SUBSCRIPTIONS,
            format!("no subscription is confirmed, so nobody hears alerts; waiting: {waiting}"),
            confirm,
        ),
        (heard, 0) => Finding::ok(SUBSCRIPTIONS, format!("{} confirmed", plural(heard, "subscription"))),
        (heard, left) => Finding::warning(
            SUBSCRIPTIONS,
            format!("{} confirmed, {} not: {waiting}", plural(heard, "subscription"), plural(left, "subscription")),
            confirm,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;
    use crate::doctor::tests::assert_finding;

    fn subscribed(confirmed: &[bool]) -> Vec<Finding> {
        let subscription = |confirmed: &bool| Subscription {
            protocol: "email".to_owned(),
            endpoint: "ada@example.com".to_owned(),
            confirmed: *confirmed,
        };
        topic(&Ok(TopicFacts {
            arn: "arn:aws:sns:eu-west-1:111122223333:alerts".to_owned(),
            key: None,
            subscriptions: Ok(confirmed.iter().map(subscription).collect()),
        }))
    }

    #[test]
    fn alerts_need_somebody_who_hears_them() {
        assert_finding(&subscribed(&[true]), SUBSCRIPTIONS, Status::Ok, &["1 subscription confirmed"]);
        assert_finding(
            &subscribed(&[]),
            SUBSCRIPTIONS,
            Status::Problem,
            &["aws sns subscribe --topic-arn arn:aws:sns:", " --region eu-west-1"],
        );
        assert_finding(
            &subscribed(&[false]),
            SUBSCRIPTIONS,
            Status::Problem,
            &["no subscription is confirmed", "email ada"],
        );
        assert_finding(
            &subscribed(&[true, false, true]),
            SUBSCRIPTIONS,
            Status::Warning,
            &["2 subscriptions confirmed, 1"],
        );
    }

    #[test]
    fn a_topic_that_is_not_there_skips_its_subscriptions() {
        let findings = topic(&Err(Unknown::Missing("NotFound".to_owned())));
        assert_finding(&findings, TOPIC, Status::Problem, &["NotFound"]);
        assert_finding(&findings, SUBSCRIPTIONS, Status::Skipped, &["does not exist"]);
    }

    #[test]
    fn its_key_must_be_enabled() {
        let key = KeyFacts {
            arn: "arn:aws:kms:eu-west-1:111122223333:key/0a1b".to_owned(),
            state: "Disabled".to_owned(),
            managed: false,
            policy: Ok(None),
        };
        let facts = TopicFacts {
            arn: "arn:aws:sns:eu-west-1:111122223333:alerts.fifo".to_owned(),
            key: Some(Ok(key)),
            subscriptions: Ok(Vec::new()),
        };
        let findings = topic(&Ok(facts));
        assert_finding(&findings, KEY, Status::Problem, &["Disabled"]);
        assert_finding(&findings, TOPIC, Status::Ok, &["FIFO"]);
    }
}
