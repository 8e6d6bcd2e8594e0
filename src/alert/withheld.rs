//! The alert that tells which alerts were held back by `alerting.max_per_minute`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::document::rfc3339;
use super::ocsf::{Activity, Common};
use super::render::{MAX_RULE_ID, message};
use super::text::{ascii, inert, visible_json};
use super::{AlertFormat, AttributeValue, Outbound, chatbot, hex, ocsf, shown};
use crate::rules::Severity;

const SCHEMA: &str = "trailhound.withheld/1";
/// Told one by one; the table has all.
const MAX_EVENTS: usize = 200;
const MAX_RULES: usize = 100;
/// In a mail.
const MAX_LINES: usize = 20;
const SUBJECT_LIMIT: usize = 100;
const SMS_LIMIT: usize = 160;

/// An alert that was held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    pub alert_id: String,
    pub event_id: String,
    /// As the item's sort key.
    pub event_time: Option<String>,
    pub event_name: Option<String>,
    pub account_id: Option<String>,
    pub severity: Severity,
    pub rules: BTreeSet<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    alert_id: &'a str,
    severity: Severity,
    count: usize,
    max_per_minute: u32,
    at: String,
    table: &'a str,
    rules: Vec<Rule<'a>>,
    events: Vec<Event<'a>>,
    truncated: bool,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: String,
    severity: Severity,
    count: usize,
    #[serde(skip)]
    name: &'a str,
}

#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the document's own names")]
struct Event<'a> {
    event_id: String,
    event_time: Option<&'a str>,
    event_name: Option<&'a str>,
    account_id: Option<&'a str>,
    severity: Severity,
    rules: Vec<String>,
}

/// Renders the alert that tells all of these, never none.
#[must_use]
pub fn render_withheld<'a>(
    all: impl IntoIterator<Item = &'a Withheld>,
    max_per_minute: u32,
    table: &str,
    at: OffsetDateTime,
    format: AlertFormat,
) -> Outbound {
    let mut all: Vec<&Withheld> = all.into_iter().collect();
    all.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.alert_id.cmp(&b.alert_id)));
    let severity = all.first().map_or(Severity::Low, |one| one.severity);
    let mut hash = Sha256::new();
    for one in &all {
        hash.update(format!("{}\n", one.alert_id));
    }
    let alert_id = hex(hash.finalize().get(..16).unwrap_or_default());

    let mut by_rule: BTreeMap<&str, (Severity, usize)> = BTreeMap::new();
    for one in &all {
        for rule in &one.rules {
            let (gravest, count) = by_rule.entry(rule).or_insert((one.severity, 0));
            *gravest = (*gravest).max(one.severity);
            *count += 1;
        }
    }
    let mut rules: Vec<Rule<'_>> = by_rule
        .into_iter()
        .map(|(name, (severity, count))| Rule { id: shown(name, MAX_RULE_ID), severity, count, name })
        .collect();
    rules.sort_by(|a, b| b.severity.cmp(&a.severity).then(b.count.cmp(&a.count)).then(a.name.cmp(b.name)));
    let truncated = all.len() > MAX_EVENTS || rules.len() > MAX_RULES;
    rules.truncate(MAX_RULES);
    let events = all.iter().take(MAX_EVENTS).map(|one| Event {
        event_id: shown(&one.event_id, 256),
        event_time: one.event_time.as_deref(),
        event_name: one.event_name.as_deref(),
        account_id: one.account_id.as_deref(),
        severity: one.severity,
        rules: one.rules.iter().take(10).map(|rule| shown(rule, MAX_RULE_ID)).collect(),
    });
    let count = all.len();
    let (were, alerts) = if count == 1 { ("was", "alert") } else { ("were", "alerts") };
    let subject = ascii(&format!("[{severity}] {count} {alerts} {were} held back"), SUBJECT_LIMIT);

    let mut lines = vec![
        format!("{count} {alerts} {were} held back: more than {max_per_minute} in a minute (alerting.max_per_minute)."),
        format!("Their events are stored in the table {}; none of them alerts again.", inert(table, 256)),
        String::new(),
    ];
    for rule in rules.iter().take(MAX_LINES) {
        lines.push(format!("{:>8}  {:<8}  {}", rule.count, rule.severity.as_str(), inert(rule.name, MAX_RULE_ID)));
    }
    if rules.len() > MAX_LINES {
        lines.push(format!("          and {} more rules", rules.len().saturating_sub(MAX_LINES)));
    }
    lines.push(String::new());
    for one in all.iter().take(MAX_LINES) {
        let name = one.event_name.as_deref().unwrap_or("unnamed event");
        let time = one.event_time.as_deref().unwrap_or("at an unknown time");
        lines.push(format!("{} {} {}  {}", inert(time, 64), one.severity, inert(name, 128), inert(&one.event_id, 128)));
    }
    if count > MAX_LINES {
        lines.push(format!("and {} more events", count.saturating_sub(MAX_LINES)));
    }
    lines.push(String::new());
    lines.push(format!("Alert {alert_id}"));
    let ids = rules.iter().take(50).map(|rule| rule.id.clone()).collect();
    let text = lines.join("\n");
    let document = Document {
        schema: SCHEMA,
        alert_id: &alert_id,
        severity,
        count,
        max_per_minute,
        at: rfc3339(at),
        table,
        rules,
        events: events.collect(),
        truncated,
    };
    let default = match format {
        // Strings and numbers always serialise.
        AlertFormat::Json => visible_json(serde_json::to_string(&document).unwrap_or_default()),
        AlertFormat::Chatbot => notification(&document, &subject),
        AlertFormat::Ocsf => finding(&document, &subject, at),
    };
    Outbound {
        message: message(&default, &text, &ascii(&subject, SMS_LIMIT)),
        attributes: vec![
            ("severity", AttributeValue::String(severity.as_str().to_owned())),
            ("rule_ids", AttributeValue::StringArray(ids)),
        ],
        group_id: "trailhound".to_owned(),
        subject,
        alert_id,
    }
}

/// As [`AlertFormat::Chatbot`].
fn notification(document: &Document<'_>, title: &str) -> String {
    let table = chatbot::code(document.table, 256);
    let limit = document.max_per_minute;
    let mut paragraphs = vec![format!(
        "{title}: more than {limit} in a minute (alerting.max_per_minute). Their events are stored in the table {table}; \
         none of them alerts again."
    )];
    let rules = document
        .rules
        .iter()
        .take(MAX_LINES)
        .map(|rule| format!("{} {}: {}", rule.severity, chatbot::code(rule.name, MAX_RULE_ID), rule.count));
    paragraphs.push(rules.collect::<Vec<_>>().join("\n"));
    let events = document.events.iter().take(MAX_LINES).map(|event| {
        let name = event.event_name.unwrap_or("unnamed event");
        let time = event.event_time.unwrap_or("at an unknown time");
        let [time, name, id] = [time, name, &event.event_id].map(|text| chatbot::code(text, 128));
        format!("{} {name} {time} {id}", event.severity)
    });
    paragraphs.push(events.collect::<Vec<_>>().join("\n"));
    chatbot::Parts {
        alert_id: document.alert_id.to_owned(),
        thread: document.alert_id.to_owned(),
        title: title.to_owned(),
        paragraphs,
        steps: vec!["Raise `alerting.max_per_minute`, or give the rules at the top a `group`.".to_owned()],
        keywords: vec![document.severity.as_str().to_owned()],
        resources: Vec::new(),
        context: BTreeMap::from([
            ("count", document.count.to_string()),
            ("severity", document.severity.as_str().to_owned()),
            ("detected_at", document.at.clone()),
        ]),
    }
    .text()
}

/// As [`AlertFormat::Ocsf`]: the document stands in `unmapped`.
fn finding(document: &Document<'_>, title: &str, at: OffsetDateTime) -> String {
    let message = format!(
        "{title}: more than {} in a minute (alerting.max_per_minute). Their events are stored in the table {}.",
        document.max_per_minute,
        shown(document.table, 256)
    );
    let common = Common {
        alert_id: document.alert_id.to_owned(),
        activity: Activity::Create,
        severity: document.severity,
        at,
        detected_at: at,
        count: u64::try_from(document.count).ok(),
        message,
        info: vec![
            ("uid", document.alert_id.into()),
            ("title", title.into()),
            ("types", vec!["alerts-held-back"].into()),
        ],
        original_time: None,
        account: None,
        region: None,
        unmapped: serde_json::to_value(document).unwrap_or_default(),
    };
    ocsf::text(&common.finding())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use time::macros::datetime;

    use super::super::testing::valid;
    use super::*;
    use crate::alert::PUBLISH_LIMIT;

    fn withheld(number: usize, severity: Severity, rules: &[&str]) -> Withheld {
        Withheld {
            alert_id: format!("{number:032}"),
            event_id: format!("00000000-0000-4000-8000-{number:012}"),
            event_time: Some("2024-05-01T12:00:00Z".to_owned()),
            event_name: Some("Stop\u{1b}Logging".to_owned()),
            account_id: Some("111122223333".to_owned()),
            severity,
            rules: rules.iter().map(ToString::to_string).collect(),
        }
    }

    fn rendered(all: &[Withheld]) -> (Outbound, Value, Value) {
        let outbound = render_withheld(all, 10, "events", datetime!(2024-05-01 12:05 UTC), AlertFormat::Json);
        for format in [AlertFormat::Chatbot, AlertFormat::Ocsf] {
            valid(&render_withheld(all, 10, "events", datetime!(2024-05-01 12:05 UTC), format), format);
        }
        let message: Value = serde_json::from_str(&outbound.message).unwrap();
        let document = serde_json::from_str(message["default"].as_str().unwrap()).unwrap();
        (outbound, message, document)
    }

    #[test]
    fn it_says_what_was_held_back_and_where_it_is() {
        let all = [
            withheld(1, Severity::Low, &["often"]),
            withheld(2, Severity::High, &["trail-stopped"]),
            withheld(3, Severity::Low, &["often"]),
        ];
        let (outbound, message, document) = rendered(&all);
        assert_eq!(outbound.subject, "[HIGH] 3 alerts were held back");
        insta::assert_snapshot!(message["email"].as_str().unwrap(), @r"
        3 alerts were held back: more than 10 in a minute (alerting.max_per_minute).
        Their events are stored in the table events; none of them alerts again.

               1  HIGH      trail-stopped
               2  LOW       often

        2024-05-01T12:00:00Z HIGH Stop\u{1b}Logging  00000000-0000-4000-8000-000000000002
        2024-05-01T12:00:00Z LOW Stop\u{1b}Logging  00000000-0000-4000-8000-000000000001
        2024-05-01T12:00:00Z LOW Stop\u{1b}Logging  00000000-0000-4000-8000-000000000003

        Alert e50b9e4314d8fec391a329b38247806b
        ");
        assert_eq!(
            (&document["schema"], &document["count"], &document["table"]),
            (&"trailhound.withheld/1".into(), &3.into(), &"events".into())
        );
        assert_eq!(document["events"].as_array().unwrap().len(), 3);
        assert_eq!(document["rules"][1]["count"], 2);
        // The same are told under the same id, in whichever order they came.
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(rendered(&reversed).0, outbound);
    }

    #[test]
    fn thousands_fit_into_one_alert() {
        let all: Vec<_> =
            (0..5_000).map(|number| withheld(number, Severity::Low, &[&format!("{number:064}")])).collect();
        let (outbound, _, document) = rendered(&all);
        assert!(outbound.size() < PUBLISH_LIMIT, "{}", outbound.size());
        assert_eq!((&document["count"], &document["truncated"]), (&5_000.into(), &true.into()));
    }
}
