//! What an alert says of the threshold, the sequence or the new key that it tells.

use serde::Serialize;
use time::OffsetDateTime;

use super::document::rfc3339;
use super::group::{Frequent, MAX_CHARS, frequent, key, named, window};
use super::sentence::Mark;
use super::shown;
use super::text::inert;
use crate::rules::{Correlation, Threshold};
use crate::tracker::{Correlated, Crossing, KeyPart};

/// The field `correlation` of the document.
#[derive(Serialize)]
pub(super) struct CorrelationDocument {
    kind: &'static str,
    id: String,
    by: Vec<KeyPart>,
    window: String,
    step: u64,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct: Option<Distinct>,
    first: Option<String>,
    last: Option<String>,
    names: Vec<Frequent>,
    addresses: Vec<Frequent>,
}

#[derive(Serialize)]
struct Distinct {
    path: String,
    count: u64,
}

impl CorrelationDocument {
    /// Events of what is told.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// The events of what is told, as far as they were known when it was claimed.
struct Episode {
    count: u64,
    distinct: u64,
    first: Option<String>,
    last: Option<String>,
}

impl Episode {
    fn of(correlated: &Correlated) -> Self {
        let told = correlated.pending;
        let entries = || correlated.entries.iter().filter(move |entry| told.is_none_or(|told| told.holds(entry.at)));
        let time = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).ok().map(rfc3339);
        let mut values: Vec<_> = entries().filter_map(|entry| entry.value.as_deref()).collect();
        values.sort_unstable();
        values.dedup();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            count: number(entries().count()),
            distinct: number(values.len()),
            first: entries().next().and_then(|entry| time(entry.at)),
            last: entries().next_back().and_then(|entry| time(entry.at)),
        }
    }
}

/// Of what counts distinct values: where these stand.
fn distinct_path(correlation: &Correlation) -> Option<&str> {
    match correlation {
        Correlation::Threshold(Threshold { distinct, .. }) => distinct.as_deref(),
        _ => None,
    }
}

pub(super) fn document(crossing: &Crossing) -> Option<CorrelationDocument> {
    let correlated = crossing.state.correlated.as_ref()?;
    let episode = Episode::of(correlated);
    let path = distinct_path(&correlated.correlation);
    Some(CorrelationDocument {
        kind: correlated.correlation.kind(),
        id: crossing.tracker.steps().to_string(),
        by: key(crossing),
        window: window(crossing.state.window),
        step: crossing.step,
        count: episode.count,
        distinct: path.map(|path| Distinct { path: shown(path, MAX_CHARS), count: episode.distinct }),
        first: episode.first,
        last: episode.last,
        names: frequent(&crossing.state.names),
        addresses: frequent(&crossing.state.addresses),
    })
}

/// For the subject.
pub(super) fn subject(correlated: &Correlated) -> String {
    let episode = Episode::of(correlated);
    match &correlated.correlation {
        Correlation::Threshold(Threshold { distinct: Some(_), .. }) => format!("{} different", episode.distinct),
        Correlation::Threshold(_) | Correlation::Sequence(_) => format!("{} events", episode.count),
        Correlation::FirstSeen(_) => "first seen".to_owned(),
    }
}

/// For the sentence that goes on with one of the events: how many there are of this key, within which time.
pub(super) fn introduction(correlated: &Correlated, of: &str, window: &str, mark: Mark) -> String {
    let episode = Episode::of(correlated);
    match &correlated.correlation {
        Correlation::Threshold(Threshold { distinct: Some(path), .. }) => {
            let path = mark(path, MAX_CHARS);
            format!(
                "{} events with {} different {path} within {window} for {of}, such as this",
                episode.count, episode.distinct
            )
        }
        Correlation::Threshold(_) => format!("{} events within {window} for {of}, such as this", episode.count),
        Correlation::Sequence(_) => {
            format!("A sequence of {} events within {window} for {of}, with this", episode.count)
        }
        Correlation::FirstSeen(_) => format!("For the first time in {window} for {of}"),
    }
}

/// For the mail.
pub(super) fn lines(crossing: &Crossing, correlated: &Correlated) -> Vec<(&'static str, String)> {
    let episode = Episode::of(correlated);
    let of = named(crossing);
    let within = window(crossing.state.window);
    let mut lines = Vec::new();
    match &correlated.correlation {
        Correlation::Threshold(Threshold { count, distinct, .. }) => {
            let what = match distinct {
                Some(path) => format!("different {}", inert(path, MAX_CHARS)),
                None => "events".to_owned(),
            };
            lines.push(("Threshold", format!("{count} {what} within {within}, for {of}")));
        }
        Correlation::Sequence(sequence) => {
            let steps: Vec<_> = sequence.steps.iter().map(ToString::to_string).collect();
            lines.push(("Sequence", format!("{} events within {within}, for {of}", steps.join(" and then "))));
        }
        Correlation::FirstSeen(_) => lines.push(("First seen", format!("{of}: not in the {within} before"))),
    }
    if let (Some(first), Some(last)) = (&episode.first, &episode.last)
        && !matches!(correlated.correlation, Correlation::FirstSeen(_))
    {
        lines.push(("Events", format!("{} from {first} to {last}", episode.count)));
        for (name, all) in [("Names", &crossing.state.names), ("Addresses", &crossing.state.addresses)] {
            let all: Vec<_> = frequent(all).iter().map(Frequent::told).collect();
            if !all.is_empty() {
                lines.push((name, all.join(", ")));
            }
        }
        lines.push(("More", "counted, and told again only after a pause".to_owned()));
    }
    lines.push(("Key id", crossing.tracker.steps().to_string()));
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::super::testing::valid;
    use super::super::{AlertFormat, DetectedEvent, Source, detected_event, render};
    use super::*;
    use crate::claim::{ClaimToken, ClaimedAlert};
    use crate::rules::{Detection, RuleInfo, RuleSet, Severity};
    use crate::tracker::{CrossAttempt, CrossDecision, TrackerId, TrackerState, decide_crossing, whole};

    fn record(minute: u32, name: &str) -> String {
        format!(
            r#"{{"eventID":"e-{minute}","eventTime":"2024-05-01T12:{minute:02}:00Z","eventName":"{name}","awsRegion":"us-east-1",
            "recipientAccountId":"111122223333","sourceIPAddress":"203.0.113.{minute}","eventSource":"signin.amazonaws.com",
            "userIdentity":{{"arn":"arn:aws:iam::111122223333:user/alice"}}}}"#
        )
    }

    fn event(rule: &RuleInfo, record: &str) -> DetectedEvent {
        let detection =
            Detection { index: 0, raw: Bytes::from(record.to_owned()), rules: vec![Arc::new(rule.clone())] };
        detected_event(&detection, Source::default(), datetime!(2024-05-01 13:00 UTC), "0123456789abcdef")
    }

    /// The rule of a file, with steps that every record meets.
    fn rule(with: &Value) -> RuleInfo {
        let mut rule = json!({ "id": "often", "severity": "HIGH", "eventSource": "signin.amazonaws.com" });
        rule.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let set = RuleSet::parse(&json!([rule]).to_string()).unwrap();
        let steps = vec![0, 1];
        RuleInfo { steps, ..RuleInfo::clone(&set.rules()[0]) }
    }

    /// What is due once these were counted, and the last of them.
    fn crossing(rule: &RuleInfo, records: &[String], since: i64) -> (Crossing, DetectedEvent) {
        let mut trackers: BTreeMap<TrackerId, TrackerState> = BTreeMap::new();
        let mut last = None;
        for record in records {
            let event = event(rule, record);
            let count = crate::tracker::Count::decide_among(&trackers, &event.groups["often"]);
            let id = event.groups["often"].tracker.clone();
            let state = count.applied(trackers.remove(&id));
            trackers.insert(id.clone(), state);
            last = Some((id, event));
        }
        let (tracker, event) = last.unwrap();
        let mut state = whole(&tracker, |id| trackers.get(id).cloned()).unwrap();
        state.correlated.as_mut().unwrap().since = Some(since);
        let token = ClaimToken("t".to_owned());
        let attempt = CrossAttempt {
            tracker: &tracker,
            rule: "often",
            severity: Severity::High,
            token: &token,
            length: Duration::from_secs(30),
            expired: None,
        };
        let CrossDecision::Write(claim, span) = decide_crossing(Some(&state), attempt) else {
            panic!("nothing is due")
        };
        state.correlated.as_mut().unwrap().pending = span;
        (Crossing { step: state.step(), tracker, claim, state, previous: None }, event)
    }

    fn told(crossing: &Crossing) -> String {
        let id = crossing.tracker.steps().to_string();
        let lines = lines(crossing, crossing.state.correlated.as_ref().unwrap());
        let lines = lines.into_iter().map(|(name, text)| format!("{name}: {}", text.replace(&id, "ID")));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The sentence of the mail.
    fn sentence(crossing: &Crossing, event: &DetectedEvent) -> String {
        let outbound = render(event, &crossing.claim.alert, &RuleSet::default(), Some(crossing), AlertFormat::Json);
        let message: Value = serde_json::from_str(&outbound.message).unwrap();
        message["email"].as_str().unwrap().lines().next().unwrap().to_owned()
    }

    fn rendered(crossing: &Crossing, event: &DetectedEvent) -> (String, Value) {
        let alert: &ClaimedAlert = &crossing.claim.alert;
        let outbound = render(event, alert, &RuleSet::default(), Some(crossing), AlertFormat::Json);
        for format in [AlertFormat::Chatbot, AlertFormat::Ocsf] {
            valid(&render(event, alert, &RuleSet::default(), Some(crossing), format), format);
        }
        let message: Value = serde_json::from_str(&outbound.message).unwrap();
        (outbound.subject, serde_json::from_str(message["default"].as_str().unwrap()).unwrap())
    }

    #[test]
    fn a_threshold_says_what_was_reached_by_whom_and_when() {
        let rule = rule(&json!({ "threshold": { "count": 3, "window": "30m", "by": ["userIdentity.arn"] } }));
        let records = [record(1, "ConsoleLogin"), record(20, "ConsoleLogin"), record(9, "SwitchRole")];
        let (crossing, event) = crossing(&rule, &records, 0);
        insta::assert_snapshot!(told(&crossing), @r"
        Threshold: 3 events within 30m, for userIdentity.arn = arn:aws:iam::111122223333:user/alice
        Events: 3 from 2024-05-01T12:01:00Z to 2024-05-01T12:20:00Z
        Names: ConsoleLogin 2, SwitchRole 1
        Addresses: 203.0.113.1 1, 203.0.113.20 1, 203.0.113.9 1
        More: counted, and told again only after a pause
        Key id: ID
        ");
        insta::assert_snapshot!(sentence(&crossing, &event), @"HIGH: 3 events within 30m for userIdentity.arn = arn:aws:iam::111122223333:user/alice, such as this: user/alice called SwitchRole in account 111122223333, us-east-1, and it succeeded.");
        let (subject, document) = rendered(&crossing, &event);
        assert_eq!(subject, "[HIGH] 3 events: SwitchRole by user/alice in 111122223333 us-east-1");
        assert_eq!(document.get("group"), None);
        let correlation = &document["correlation"];
        assert_eq!(
            (&correlation["kind"], &correlation["count"], &correlation["window"]),
            (&json!("threshold"), &json!(3), &json!("30m"))
        );
        assert_eq!(
            correlation["by"],
            json!([{ "path": "userIdentity.arn", "value": "arn:aws:iam::111122223333:user/alice" }])
        );
    }

    #[test]
    fn distinct_values_are_counted_and_not_shown() {
        let rule = rule(
            &json!({ "threshold": { "count": 2, "window": "1h", "by": ["userIdentity.arn"], "distinct": "sourceIPAddress" } }),
        );
        let (crossing, event) = crossing(&rule, &[record(1, "ConsoleLogin"), record(2, "ConsoleLogin")], 0);
        assert!(
            told(&crossing).starts_with("Threshold: 2 different sourceIPAddress within 1h, for userIdentity.arn = arn")
        );
        insta::assert_snapshot!(sentence(&crossing, &event), @"HIGH: 2 events with 2 different sourceIPAddress within 1h for userIdentity.arn = arn:aws:iam::111122223333:user/alice, such as this: user/alice signed in to the console in account 111122223333, us-east-1.");
        let (subject, document) = rendered(&crossing, &event);
        assert!(subject.starts_with("[HIGH] 2 different: ConsoleLogin by user/alice"), "{subject}");
        assert_eq!(document["correlation"]["distinct"], json!({ "path": "sourceIPAddress", "count": 2 }));
    }

    #[test]
    fn a_sequence_says_how_many_events_of_each_step_it_takes() {
        let steps = json!([{ "eventName": "ConsoleLogin", "count": 2 }, { "eventName": "ConsoleLogin" }]);
        let rule = rule(&json!({ "sequence": steps, "by": ["userIdentity.arn"], "window": "15m" }));
        let records = [record(1, "ConsoleLogin"), record(2, "ConsoleLogin"), record(3, "ConsoleLogin")];
        let (crossing, event) = crossing(&rule, &records, 0);
        assert!(told(&crossing).starts_with("Sequence: 2 and then 1 events within 15m, for userIdentity.arn = arn"));
        insta::assert_snapshot!(sentence(&crossing, &event), @"HIGH: A sequence of 3 events within 15m for userIdentity.arn = arn:aws:iam::111122223333:user/alice, with this: user/alice signed in to the console in account 111122223333, us-east-1.");
        assert_eq!(rendered(&crossing, &event).1["correlation"]["kind"], "sequence");
    }

    #[test]
    fn a_new_key_is_first_seen() {
        let rule = rule(&json!({ "first_seen": { "by": ["sourceIPAddress"], "within": "30d" } }));
        let (crossing, event) = crossing(&rule, &[record(7, "ConsoleLogin")], 0);
        insta::assert_snapshot!(told(&crossing), @r"
        First seen: sourceIPAddress = 203.0.113.7: not in the 30d before
        Key id: ID
        ");
        insta::assert_snapshot!(sentence(&crossing, &event), @"HIGH: For the first time in 30d for sourceIPAddress = 203.0.113.7: user/alice signed in to the console in account 111122223333, us-east-1.");
        let (subject, document) = rendered(&crossing, &event);
        assert_eq!(subject, "[HIGH] first seen: ConsoleLogin by user/alice in 111122223333 us-east-1");
        assert_eq!(document["correlation"]["first"], "2024-05-01T00:00:00Z");
    }
}
