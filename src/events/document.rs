//! A stored event as a line of JSON. Fields are added to it, never changed; `docs/tools.md` lists them.

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Range, Record, Stored};
use crate::rules::Severity;

/// See the head of this module.
#[derive(Serialize)]
pub struct Document<'a> {
    event_id: &'a str,
    timestamp: &'a str,
    event_time: Option<&'a str>,
    severity: Option<Severity>,
    state: &'static str,
    rules: Vec<&'a str>,
    settled_rules: Vec<&'a str>,
    groups: Vec<Group<'a>>,
    alert_ids: Vec<&'a str>,
    alerted_at: Option<&'a str>,
    sns_message_id: Option<&'a str>,
    event_name: Option<&'a str>,
    event_source: Option<&'a str>,
    account_id: Option<&'a str>,
    region: Option<&'a str>,
    actor: Option<&'a str>,
    user_identity_type: Option<&'a str>,
    source_ip: Option<&'a str>,
    user_agent: Option<&'a str>,
    error_code: Option<&'a str>,
    source: Option<Place<'a>>,
    detected_at: Option<&'a str>,
    expires_at: Option<String>,
    rule_set: Option<&'a str>,
    /// Only where the record was asked for: `stored`, `left_out`, `damaged`.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'static str>,
    /// With `record`: null where it is not `stored`.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    around: Option<Around<'a>>,
}

/// A record, or null.
#[derive(Serialize)]
#[serde(transparent)]
struct Told(Option<Box<RawValue>>);

/// What else an actor did.
#[derive(Serialize)]
struct Around<'a> {
    from: String,
    to: String,
    events: Vec<Document<'a>>,
    /// Whether there are more.
    truncated: bool,
}

#[derive(Serialize)]
struct Group<'a> {
    rule: &'a str,
    id: &'a str,
}

#[derive(Serialize)]
struct Place<'a> {
    bucket: Option<&'a str>,
    key: Option<&'a str>,
    version: Option<&'a str>,
    index: u64,
}

impl<'a> Document<'a> {
    /// Without the record.
    #[must_use]
    pub fn new(event: &'a Stored) -> Self {
        fn all(texts: &std::collections::BTreeSet<String>) -> Vec<&str> {
            texts.iter().map(String::as_str).collect()
        }
        let place = |source: &'a crate::alert::Source| {
            let object = source.object.as_ref();
            Place {
                bucket: object.map(|object| object.bucket.as_str()),
                key: object.map(|object| object.key.as_str()),
                version: object.and_then(|object| object.version_id.as_deref()),
                index: source.index,
            }
        };
        Self {
            event_id: &event.key.event_id,
            timestamp: &event.key.timestamp,
            event_time: event.event_time(),
            severity: event.severity,
            state: event.state().as_str(),
            rules: all(&event.rules),
            settled_rules: all(&event.settled),
            groups: event.groups.iter().map(|(rule, id)| Group { rule, id }).collect(),
            alert_ids: all(&event.alert_ids),
            alerted_at: event.alerted_at.as_deref(),
            sns_message_id: event.sns_message_id.as_deref(),
            event_name: event.event_name.as_deref(),
            event_source: event.event_source.as_deref(),
            account_id: event.account_id.as_deref(),
            region: event.region.as_deref(),
            actor: event.actor.as_deref(),
            user_identity_type: event.user_identity_type.as_deref(),
            source_ip: event.source_ip.as_deref(),
            user_agent: event.user_agent.as_deref(),
            error_code: event.error_code.as_deref(),
            source: event.source.as_ref().map(place),
            detected_at: event.detected_at.as_deref(),
            expires_at: event.expires_at.and_then(|time| time.format(&Rfc3339).ok()),
            rule_set: event.rule_set_hash.as_deref(),
            record: None,
            event: None,
            alert_text: None,
            around: None,
        }
    }

    /// With the record, as it is stored.
    #[must_use]
    pub fn with_record(event: &'a Stored) -> Self {
        let (record, event_of_record) = match event.record() {
            Record::Json(text) => ("stored", RawValue::from_string(text).ok()),
            Record::LeftOut => ("left_out", None),
            Record::Damaged => ("damaged", None),
        };
        Self { record: Some(record), event: Some(Told(event_of_record)), ..Self::new(event) }
    }

    /// Also with the text of its alert.
    #[must_use]
    pub fn told(self, alert_text: String) -> Self {
        Self { alert_text: Some(alert_text), ..self }
    }

    /// Also with what else its actor did, within this time.
    #[must_use]
    pub fn amid(self, range: &Range, events: &'a [Stored], truncated: bool) -> Self {
        let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        let events = events.iter().map(Document::new).collect();
        let around = Around { from: text(range.from()), to: text(range.to()), events, truncated };
        Self { around: Some(around), ..self }
    }
}

/// JSON on one line, laid out over several; nothing else of it changes.
#[must_use]
pub fn laid_out(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut characters = json.chars().peekable();
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = characters.next() {
        if in_string {
            text.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                text.push(character);
            }
            '{' | '[' => {
                text.push(character);
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth = depth.saturating_add(1);
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn json_is_laid_out_as_people_read_it() {
        let json = r#"{"a":[1,{"b":"x,{\"y\":[\\"}],"c":{},"d":[],"e":12345678901234567890123}"#;
        insta::assert_snapshot!(laid_out(json), @r#"
        {
          "a": [
            1,
            {
              "b": "x,{\"y\":[\\"
            }
          ],
          "c": {},
          "d": [],
          "e": 12345678901234567890123
        }
        "#);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn laid_out_json_means_the_same(value in value()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&laid_out(&value.to_string())).unwrap(), value);
        }
    }
}
