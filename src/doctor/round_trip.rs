//! The round trip: a record that no AWS service writes, from the queue to an alert that is marked as a test.

use std::time::Duration;

use serde_json::json;

use super::{Finding, Looked, Unknown, plural, quoted};
use crate::rules::{TEST_EVENT, TEST_RULE};

pub const ROUND_TRIP: &str = "round-trip";

/// What is sent, and by which key its item is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub event_id: String,
    /// RFC 3339, UTC, whole seconds: so it becomes the item's `Timestamp` as it stands.
    pub time: String,
    pub account: String,
    pub region: String,
    /// Who ran the doctor.
    pub caller: String,
}

impl Test {
    /// The record, as JSON.
    #[must_use]
    pub fn record(&self) -> serde_json::Value {
        let (source, name) = TEST_EVENT;
        json!({
            "eventVersion": "1.11",
            "userIdentity": {
                "type": "AWSService",
                "accountId": self.account,
                "invokedBy": "trailhound doctor",
            },
            "eventTime": self.time,
            "eventSource": source,
            "eventName": name,
            "awsRegion": self.region,
            "sourceIPAddress": "trailhound doctor",
            "userAgent": concat!("trailhound doctor/", env!("CARGO_PKG_VERSION")),
            "requestParameters": { "startedBy": self.caller },
            "responseElements": null,
            "additionalEventData": { "test": "Nothing happened: trailhound doctor sent this to test the installation." },
            "eventID": self.event_id,
            "readOnly": true,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": self.account,
            "eventCategory": "Management",
        })
    }

    /// The message: an event of `EventBridge`, as for any call that CloudTrail records.
    #[must_use]
    pub fn message(&self) -> String {
        json!({
            "version": "0",
            "id": self.event_id,
            "detail-type": "AWS API Call via CloudTrail",
            "source": TEST_EVENT.0,
            "account": self.account,
            "time": self.time,
            "region": self.region,
            "resources": [],
            "detail": self.record(),
        })
        .to_string()
    }
}

/// The rule that must be there, as it stands in the default rules.
#[must_use]
pub fn missing_rule(path: &str) -> Finding {
    let (source, name) = TEST_EVENT;
    let rule = json!({
        "id": TEST_RULE,
        "title": "Test of the installation by trailhound doctor: nothing happened",
        "description": "Test of the installation by trailhound doctor: nothing happened.",
        "severity": "LOW",
        "eventSource": source,
        "eventName": name,
    });
    Finding::problem(
        ROUND_TRIP,
        format!("{path} has no rule that alerts for the test: nothing was sent"),
        format!("add to its events, and let the daemon reload: {rule}"),
    )
}

/// What an item says about its alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub rules: Vec<String>,
    pub alerted_at: Option<String>,
    pub alert_ids: Vec<String>,
}

/// How far the test came, and where the messages were at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    pub event_id: String,
    /// After how long the item was there.
    pub stored: Option<(Duration, Stored)>,
    /// After how long it was marked as alerted.
    pub alerted: Option<Duration>,
    /// How long was waited.
    pub waited: Duration,
    /// The table could not be asked any more.
    pub blind: Option<Unknown>,
    /// Visible and in flight, at the end.
    pub queue: Looked<(u64, u64)>,
    /// Messages in the dead-letter queue, before and at the end; `None` where there is none to look at.
    pub dead: Option<(u64, u64)>,
}

/// Judges a test that was sent.
#[must_use]
pub fn judge(trip: &Trip, table: &str, retention_days: u32) -> Finding {
    let after = |length: Duration| format!("{:.1} s", length.as_secs_f64());
    let kept = format!("its item {} stays in table {table} until it expires in {retention_days} days", trip.event_id);
    if let (Some((stored, item)), Some(alerted)) = (&trip.stored, trip.alerted) {
        let ids = item.alert_ids.join(", ");
        return Finding::ok(
            ROUND_TRIP,
            format!("stored after {}, alerted after {} (alert {ids}, a test); {kept}", after(*stored), after(alerted)),
        );
    }
    if let Some(unknown) = &trip.blind {
        let mut finding = Finding::unknown(ROUND_TRIP, unknown);
        finding.found = format!("sent, but the table could not be asked: {}", finding.found);
        return finding;
    }
    let waited = after(trip.waited);
    if let Some((stored, item)) = &trip.stored {
        let rules = if item.rules.is_empty() { "no rule".to_owned() } else { item.rules.join(", ") };
        return Finding::problem(
            ROUND_TRIP,
            format!("stored after {} for {rules}, but not alerted within {waited}; {kept}", after(*stored)),
            "the daemon cannot publish: look at its log and at /readyz (sns:Publish, kms:GenerateDataKey), and whether \
             the rule's mode is alert",
        );
    }
    if let Some((before, now)) = trip.dead
        && now > before
    {
        let more = plural(now - before, "message");
        return Finding::problem(
            ROUND_TRIP,
            format!("not stored within {waited}; {more} came to the dead-letter queue meanwhile"),
            "trailhound dlq why",
        );
    }
    match &trip.queue {
        Ok((visible, _)) if *visible > 0 => Finding::problem(
            ROUND_TRIP,
            format!("not taken from the queue within {waited}, as it seems: {} waiting", plural(*visible, "message")),
            "start the daemon, or let it catch up: its log says `receiving` once everything could be reached; then ask \
             with a longer --timeout",
        ),
        Ok((_, held)) if *held > 0 => Finding::problem(
            ROUND_TRIP,
            format!("taken from the queue, but not stored within {waited}: {} in work", plural(*held, "message")),
            "the daemon holds it while something fails: look at its log and at /readyz (dynamodb:PutItem, kms)",
        ),
        Ok(_) => Finding::problem(
            ROUND_TRIP,
            format!("taken from the queue and deleted, but not stored in {table} within {waited}"),
            format!(
                "the daemon runs with rules that lack {} or with another table, or something else reads this queue",
                quoted(TEST_RULE)
            ),
        ),
        Err(_) => Finding::problem(
            ROUND_TRIP,
            format!("not stored within {waited}; where the message is cannot be seen"),
            "look at the daemon's log",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::doctor::Status;
    use crate::rules::{DEFAULT_RULES, Matcher, RuleSet, ids};

    fn test() -> Test {
        Test {
            event_id: "0f5b1c9e-2b1f-4a53-9d3c-6c5c7a1e0b42".to_owned(),
            time: "2026-05-01T12:00:00Z".to_owned(),
            account: "111122223333".to_owned(),
            region: "eu-west-1".to_owned(),
            caller: "arn:aws:iam::111122223333:user/ada".to_owned(),
        }
    }

    #[test]
    fn the_record_matches_the_rule_for_tests_and_no_other() {
        let rules = Arc::new(RuleSet::parse(DEFAULT_RULES).unwrap());
        let found = Matcher::new(rules).matches(test().record().to_string().as_bytes());
        assert_eq!(ids(&found).into_iter().collect::<Vec<_>>(), [TEST_RULE]);
        assert!(found[0].title.as_deref().unwrap().contains("nothing happened"));
    }

    #[test]
    fn the_rule_that_is_offered_is_one_and_matches() {
        let mend = missing_rule("rules.json").mend.unwrap();
        let (_, rule) = mend.split_once(": ").unwrap();
        let rules = Arc::new(RuleSet::parse(&format!("[{rule}]")).unwrap());
        assert_eq!(Matcher::new(rules).matches(test().record().to_string().as_bytes()).len(), 1);
    }

    #[test]
    fn the_message_is_one_that_the_daemon_knows() {
        let message = test().message();
        let parsed = crate::notification::parse(&message);
        let records = parsed.records;
        assert!(parsed.problems.is_empty(), "{message}");
        assert_eq!(records.len(), 1, "{message}");
    }

    fn trip() -> Trip {
        Trip {
            event_id: "e".to_owned(),
            stored: None,
            alerted: None,
            waited: Duration::from_secs(120),
            blind: None,
            queue: Ok((0, 0)),
            dead: Some((2, 2)),
        }
    }

    fn stored() -> (Duration, Stored) {
        let item = Stored { rules: vec![TEST_RULE.to_owned()], alerted_at: None, alert_ids: vec!["a1".to_owned()] };
        (Duration::from_millis(1_250), item)
    }

    #[test]
    fn where_a_test_stopped_is_told() {
        let judged = |trip: Trip| judge(&trip, "events", 90);
        let done = judged(Trip { stored: Some(stored()), alerted: Some(Duration::from_secs(2)), ..trip() });
        assert_eq!(done.status, Status::Ok);
        for word in ["stored after 1.2 s", "alerted after 2.0 s", "a1", "expires in 90 days"] {
            assert!(done.found.contains(word), "{done:?}");
        }
        for (trip, word) in [
            (
                Trip { stored: Some(stored()), ..trip() },
                "stored after 1.2 s for trailhound-doctor-test, but not alerted",
            ),
            (
                Trip { queue: Ok((1, 0)), ..trip() },
                "not taken from the queue within 120.0 s, as it seems: 1 message waiting",
            ),
            (Trip { queue: Ok((0, 3)), ..trip() }, "taken from the queue, but not stored within 120.0 s: 3 messages"),
            (Trip { dead: Some((2, 3)), queue: Ok((1, 0)), ..trip() }, "1 message came to the dead-letter queue"),
            (trip(), "taken from the queue and deleted"),
            (Trip { queue: Err(Unknown::Failed(String::new())), ..trip() }, "cannot be seen"),
        ] {
            let finding = judged(trip);
            assert_eq!(finding.status, Status::Problem);
            assert!(finding.found.contains(word), "no {word:?} in {finding:?}");
            assert!(finding.mend.is_some());
        }
        let denied = Unknown::Denied { action: "dynamodb:GetItem".to_owned(), on: "arn:aws:x".to_owned() };
        assert_eq!(judged(Trip { blind: Some(denied), ..trip() }).status, Status::Skipped);
    }
}
