//! What an alert says of the group whose step it tells.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sentence::Mark;
use super::text::inert;
use super::{correlation, shown};
use crate::tracker::{Crossing, KeyPart, quiet_after};

/// Values of the key that are told.
const MAX_KEY_PARTS: usize = 20;
/// Those that stand in a sentence, and what is told of each.
const MAX_SHORT_KEY_PARTS: usize = 3;
const MAX_SHORT_KEY_CHARS: usize = 128;
/// Names, and addresses, that are told: the most frequent.
const MAX_FREQUENT: usize = 5;
/// What is told of a path, a value, a name or an address.
pub(super) const MAX_CHARS: usize = 256;

/// The field `group` of the document.
#[derive(Serialize)]
pub(super) struct GroupDocument {
    id: String,
    by: Vec<KeyPart>,
    window: String,
    from: String,
    to: String,
    step: u64,
    count: u64,
    first: String,
    last: String,
    names: Vec<Frequent>,
    addresses: Vec<Frequent>,
    previous_count: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Frequent {
    value: String,
    count: u64,
}

impl Frequent {
    pub(super) fn told(&self) -> String {
        format!("{} {}", inert(&self.value, MAX_CHARS), self.count)
    }
}

impl GroupDocument {
    pub(super) fn new(crossing: &Crossing) -> Self {
        let Crossing { tracker, step, state, previous, claim: _ } = crossing;
        Self {
            id: tracker.to_string(),
            by: key(crossing),
            window: window(state.window),
            from: tracker.from().to_owned(),
            to: tracker.to(state.window),
            step: *step,
            count: state.count,
            first: state.first.clone(),
            last: state.last.clone(),
            names: frequent(&state.names),
            addresses: frequent(&state.addresses),
            previous_count: *previous,
        }
    }
}

pub(super) fn key(crossing: &Crossing) -> Vec<KeyPart> {
    let parts = crossing.state.key.iter().take(MAX_KEY_PARTS);
    let bounded = |text: &String| shown(text, MAX_CHARS);
    parts.map(|part| KeyPart { path: bounded(&part.path), value: part.value.as_ref().map(bounded) }).collect()
}

/// The most frequent first.
pub(super) fn frequent(all: &BTreeMap<String, u64>) -> Vec<Frequent> {
    let mut all: Vec<_> =
        all.iter().map(|(value, count)| Frequent { value: shown(value, MAX_CHARS), count: *count }).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    all.truncate(MAX_FREQUENT);
    all
}

/// A length of time as rule files write it.
pub(super) fn window(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(unit, letter)| format!("{}{letter}", seconds / unit))
}

/// For the subject: how many events, where the alert does not open the group.
pub(super) fn events(crossing: &Crossing) -> Option<String> {
    if let Some(correlated) = &crossing.state.correlated {
        return Some(correlation::subject(correlated));
    }
    (crossing.step > 1).then(|| format!("{} events", crossing.state.count))
}

/// The first values of the key, for a sentence.
pub(super) fn short_key(crossing: &Crossing, mark: Mark) -> String {
    let all = &crossing.state.key;
    let parts = all.iter().take(MAX_SHORT_KEY_PARTS).map(|part| match &part.value {
        Some(value) => format!("{} = {}", mark(&part.path, MAX_SHORT_KEY_CHARS), mark(value, MAX_SHORT_KEY_CHARS)),
        None => format!("no {}", mark(&part.path, MAX_SHORT_KEY_CHARS)),
    });
    let mut text = parts.collect::<Vec<_>>().join(", ");
    if all.len() > MAX_SHORT_KEY_PARTS {
        text.push_str(", ...");
    }
    text
}

/// The values of the key, with their paths.
pub(super) fn named(crossing: &Crossing) -> String {
    let parts = key(crossing).into_iter().map(|part| match part.value {
        Some(value) => format!("{} = {}", inert(&part.path, MAX_CHARS), inert(&value, MAX_CHARS)),
        None => format!("no {}", inert(&part.path, MAX_CHARS)),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// For the mail: the fields that tell of the group.
pub(super) fn lines(crossing: &Crossing) -> Vec<(&'static str, String)> {
    if let Some(correlated) = &crossing.state.correlated {
        return correlation::lines(crossing, correlated);
    }
    let Crossing { tracker, step, state, previous, claim: _ } = crossing;
    let window = window(state.window);
    let of = format!("{}, {window} from {}", named(crossing), tracker.from());
    let next = quiet_after(*step).saturating_add(1);
    let mut lines = Vec::new();
    if *step == 1 {
        lines.push(("Group", format!("opened for {of}")));
        lines.push(("More", format!("counted, and told at {next} events")));
        lines.push((
            "Before",
            match previous {
                Some(1) => format!("1 event in the {window} before"),
                Some(count) => format!("{count} events in the {window} before"),
                None => format!("none in the {window} before"),
            },
        ));
    } else {
        lines.push(("Group", of));
        lines.push(("Events", format!("{} from {} to {}", state.count, state.first, state.last)));
        lines.push(("More", format!("counted, and told at {next} events")));
        for (name, all) in [("Names", &state.names), ("Addresses", &state.addresses)] {
            let all: Vec<_> = frequent(all).iter().map(Frequent::told).collect();
            if !all.is_empty() {
                lines.push((name, all.join(", ")));
            }
        }
    }
    lines.push(("Group id", tracker.to_string()));
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::super::testing::valid;
    use super::*;
    use crate::alert::{AlertFormat, DetectedEvent, Source, detected_event, render};
    use crate::claim::{Claim, ClaimToken, ClaimedAlert};
    use crate::rules::{Detection, Group, RuleInfo, RuleSet, Severity};
    use crate::tracker::{TrackerState, membership};

    const RECORD: &str = r#"{"eventID":"e-1","eventTime":"2024-05-01T12:34:56Z","eventName":"StopLogging",
        "awsRegion":"us-east-1","recipientAccountId":"111122223333","sourceIPAddress":"203.0.113.7",
        "userIdentity":{"arn":"arn:aws:iam::111122223333:user/alice"}}"#;

    fn event() -> DetectedEvent {
        let rule = RuleInfo { group: Some(group()), ..RuleInfo::new("often", Severity::High, "Happens often") };
        let detection = Detection { index: 0, raw: Bytes::from(RECORD), rules: vec![Arc::new(rule)] };
        detected_event(&detection, Source::default(), datetime!(2024-05-01 12:40 UTC), "0123456789abcdef")
    }

    fn group() -> Group {
        Group { by: vec!["userIdentity.arn".to_owned(), "errorCode".to_owned()], window: "60m".to_owned() }
    }

    fn crossing(step: u64, state: TrackerState, previous: Option<u64>) -> Crossing {
        let at = datetime!(2024-05-01 12:34:56 UTC);
        let member = membership("often", &group(), RECORD.as_bytes(), at, None, None);
        let alert = ClaimedAlert {
            alert_id: member.tracker.alert_id(step),
            rules: ["often".to_owned()].into(),
            severity: Severity::High,
        };
        let claim = Claim { token: ClaimToken("t".to_owned()), length: Duration::from_secs(30), alert };
        let state = TrackerState { rule: "often".to_owned(), key: member.key, window: member.window, ..state };
        Crossing { tracker: member.tracker, step, claim, state, previous }
    }

    fn many() -> TrackerState {
        let names = [("StopLogging", 7), ("DeleteTrail", 100), ("http://evil.example/\n", 5)];
        TrackerState {
            count: 112,
            first: "2024-05-01T12:00:03Z".to_owned(),
            last: "2024-05-01T12:58:00Z".to_owned(),
            names: names.map(|(name, count)| (name.to_owned(), count)).into(),
            addresses: (0..9).map(|at| (format!("203.0.113.{at}"), 10 + at)).collect(),
            ..TrackerState::default()
        }
    }

    fn one() -> TrackerState {
        let time = "2024-05-01T12:34:56Z".to_owned();
        let names = [("StopLogging".to_owned(), 1)].into();
        TrackerState { count: 1, first: time.clone(), last: time, names, ..TrackerState::default() }
    }

    /// Subject, mail and document.
    fn rendered(crossing: &Crossing) -> (String, String, Value) {
        let outbound = render(&event(), &crossing.claim.alert, &RuleSet::default(), Some(crossing), AlertFormat::Json);
        assert_eq!(outbound.alert_id, crossing.claim.alert.alert_id);
        for format in [AlertFormat::Chatbot, AlertFormat::Ocsf] {
            valid(&render(&event(), &crossing.claim.alert, &RuleSet::default(), Some(crossing), format), format);
        }
        let message: Value = serde_json::from_str(&outbound.message).unwrap();
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        (outbound.subject, text("email"), serde_json::from_str(&text("default")).unwrap())
    }

    fn told(crossing: &Crossing) -> String {
        let id = crossing.tracker.to_string();
        let lines = lines(crossing).into_iter().map(|(name, text)| format!("{name}: {}", text.replace(&id, "ID")));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_alert_that_opens_a_group_says_so() {
        let opening = crossing(1, one(), Some(1));
        insta::assert_snapshot!(told(&opening), @r"
        Group: opened for userIdentity.arn = arn:aws:iam::111122223333:user/alice, no errorCode, 1h from 2024-05-01T12:00:00Z
        More: counted, and told at 10 events
        Before: 1 event in the 1h before
        Group id: ID
        ");
        let (subject, email, document) = rendered(&opening);
        assert_eq!(subject, "[HIGH] StopLogging by user/alice in 111122223333 us-east-1");
        assert!(email.starts_with("HIGH: user/alice called StopLogging in account"), "{email}");
        assert!(email.contains("Group:      opened for userIdentity.arn = arn:"), "{email}");
        assert_eq!(
            document["group"],
            json!({
                "id": opening.tracker.to_string(),
                "by": [
                    { "path": "userIdentity.arn", "value": "arn:aws:iam::111122223333:user/alice" },
                    { "path": "errorCode", "value": null },
                ],
                "window": "1h", "from": "2024-05-01T12:00:00Z", "to": "2024-05-01T13:00:00Z", "step": 1, "count": 1,
                "first": "2024-05-01T12:34:56Z", "last": "2024-05-01T12:34:56Z",
                "names": [{ "value": "StopLogging", "count": 1 }], "addresses": [], "previous_count": 1,
            })
        );
        assert!(told(&crossing(1, one(), None)).contains("Before: none in the 1h before"));
    }

    #[test]
    fn a_later_step_says_how_many_when_and_what() {
        let later = crossing(100, many(), None);
        insta::assert_snapshot!(told(&later), @r"
        Group: userIdentity.arn = arn:aws:iam::111122223333:user/alice, no errorCode, 1h from 2024-05-01T12:00:00Z
        Events: 112 from 2024-05-01T12:00:03Z to 2024-05-01T12:58:00Z
        More: counted, and told at 1000 events
        Names: DeleteTrail 100, StopLogging 7, http[:]//evil.example/\n 5
        Addresses: 203.0.113.8 18, 203.0.113.7 17, 203.0.113.6 16, 203.0.113.5 15, 203.0.113.4 14
        Group id: ID
        ");
        let (subject, email, document) = rendered(&later);
        assert_eq!(
            email.lines().next().unwrap(),
            "HIGH: 112 events since 2024-05-01T12:00:03Z for userIdentity.arn = arn:aws:iam::111122223333:user/alice, no errorCode, \
             such as this: user/alice called StopLogging in account 111122223333, us-east-1, and it succeeded."
        );
        assert_eq!(subject, "[HIGH] 112 events: StopLogging by user/alice in 111122223333 us-east-1");
        assert_eq!((&document["group"]["count"], &document["group"]["previous_count"]), (&json!(112), &Value::Null));
        assert_eq!(document["group"]["names"][0], json!({ "value": "DeleteTrail", "count": 100 }));
        assert_eq!(document["group"]["addresses"].as_array().unwrap().len(), MAX_FREQUENT);
    }

    #[test]
    fn an_alert_of_an_event_says_nothing_of_groups() {
        let alert = crossing(1, one(), None).claim.alert;
        let outbound = render(&event(), &alert, &RuleSet::default(), None, AlertFormat::Json);
        let message: Value = serde_json::from_str(&outbound.message).unwrap();
        let document: Value = serde_json::from_str(message["default"].as_str().unwrap()).unwrap();
        assert_eq!(document.get("group"), None);
        assert!(!message["email"].as_str().unwrap().contains("Group"));
    }

    #[test]
    fn windows_are_written_as_in_rule_files() {
        let all = [1, 59, 60, 90, 3600, 5400, 86_400, 7 * 86_400, 0].map(window);
        assert_eq!(all, ["1s", "59s", "1m", "90s", "1h", "90m", "1d", "7d", "0s"]);
    }
}
