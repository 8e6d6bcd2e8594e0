//! What is shown: an introduction, each alert as it arrives, the verdict. Text from records is untrusted: it is escaped.

use std::fmt::Display;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;

use serde_json::Value;

use super::{Expected, Plan};
use crate::alert::shown;
use crate::emulator::{Emulator, Published};
use crate::rules::Severity;

/// The longest text of a record that is shown, in characters.
const LIMIT: usize = 120;

/// An alert as a subscriber of the topic gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) event_id: String,
    /// The group's id and step, and what is said of its count.
    pub(super) group: Option<(String, u64, String)>,
    /// The id of a correlation's key, and what is said of it.
    pub(super) correlation: Option<(String, String)>,
    pub(super) severity: Option<Severity>,
    pub(super) event_time: String,
    pub(super) event_name: String,
    pub(super) event_source: String,
    pub(super) region: String,
    pub(super) actor: String,
    pub(super) source_ip: String,
    pub(super) outcome: String,
    /// Ids and titles, or descriptions where there is no title.
    pub(super) rules: Vec<(String, String)>,
}

impl Alert {
    /// Reads the alert's JSON document; what is missing there stays empty.
    pub(super) fn read(published: &Published) -> Self {
        let document: Value = serde_json::from_str(&published.message).unwrap_or_default();
        let text = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).map(|text| shown(text, LIMIT)).unwrap_or_default()
        };
        let field = |name| text(&document, name);
        let outcome = match field("error_code") {
            code if code.is_empty() => field("outcome"),
            code => format!("{} ({code})", field("outcome")),
        };
        let told = |rule: &Value| match text(rule, "title") {
            title if title.is_empty() => text(rule, "description"),
            title => title,
        };
        let group = document.get("group").map(|group| {
            let number = |name: &str| group.get(name).and_then(Value::as_u64).unwrap_or_default();
            let (step, count, window) = (number("step"), number("count"), text(group, "window"));
            let told = match step {
                1 => format!("opens a group of {window}"),
                _ => format!("{count} events in a group of {window}"),
            };
            (text(group, "id"), step, told)
        });
        let correlation = document.get("correlation").map(|correlation| {
            let count = correlation.get("count").and_then(Value::as_u64).unwrap_or_default();
            let window = text(correlation, "window");
            let told = match text(correlation, "kind").as_str() {
                "first_seen" => format!("first seen, not in the {window} before"),
                kind => format!("{kind} reached: {count} events within {window}"),
            };
            (text(correlation, "id"), told)
        });
        let rules = document.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Self {
            event_id: document.get("event_id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            group,
            correlation,
            severity: document.get("severity").and_then(|severity| serde_json::from_value(severity.clone()).ok()),
            event_time: field("event_time"),
            event_name: field("event_name"),
            event_source: field("event_source"),
            region: field("region"),
            actor: field("actor"),
            source_ip: field("source_ip"),
            outcome,
            rules: rules.iter().map(|rule| (text(rule, "id"), told(rule))).collect(),
        }
    }

    fn lines(&self, colour: bool) -> String {
        let severity = self.severity.map_or("?", Severity::as_str);
        let painted = match self.severity {
            Some(severity) if colour => format!("{}{severity:<8}\x1b[0m", paint(severity)),
            _ => format!("{severity:<8}"),
        };
        let or = |text: &str, instead: &str| if text.is_empty() { instead.to_owned() } else { text.to_owned() };
        let mut lines = format!(
            "{time}  {painted}  {name}  ({source}, {region})\n{pad}who    {actor} from {ip}: {outcome}",
            time = or(&self.event_time, "no time"),
            name = or(&self.event_name, "an event without a name"),
            source = or(&self.event_source, "unknown source"),
            region = or(&self.region, "unknown region"),
            actor = or(&self.actor, "unknown"),
            ip = or(&self.source_ip, "an unknown place"),
            outcome = or(&self.outcome, "outcome unknown"),
            pad = PAD,
        );
        for (id, told) in &self.rules {
            let colon = if told.is_empty() { "" } else { ": " };
            lines.extend(["\n", PAD, "rule   ", id, colon, told]);
        }
        if let Some((_, _, told)) = &self.group {
            lines.extend(["\n", PAD, "group  ", told]);
        }
        if let Some((_, told)) = &self.correlation {
            lines.extend(["\n", PAD, "why    ", told]);
        }
        lines
    }
}

/// As wide as a time and two spaces.
const PAD: &str = "                      ";

fn paint(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "\x1b[1;97;41m",
        Severity::High => "\x1b[1;31m",
        Severity::Medium => "\x1b[33m",
        Severity::Low => "\x1b[36m",
    }
}

/// Whether a stream wants colours: a terminal does, unless `NO_COLOR` says otherwise (<https://no-color.org>).
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes a line. Unlike `println!` it does not panic when the reader is gone.
pub(super) fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _nobody_reads = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

pub(super) fn introduce(emulator: &Emulator, admin: SocketAddr, plan: &Plan) {
    let endpoint = emulator.endpoint();
    say(&format!(
        "trailhound demo: the daemon, on an AWS inside of this process\n\n  \
         AWS        {endpoint}  (S3, SQS, SNS and DynamoDB, in {region})\n  \
         daemon     http://{admin}/  (its status page)  /livez  /readyz  /metrics  /rules\n  \
         input      {told}\n\n\
         Alerts, as they arrive on the topic:\n",
        region = emulator.region(),
        told = shown(&plan.told, 400),
    ));
}

pub(super) struct Screen {
    colour: bool,
}

impl Screen {
    pub(super) fn on_stdout() -> Self {
        Self { colour: colours(&std::io::stdout()) }
    }

    pub(super) fn alert(&self, alert: &Alert) {
        say(&format!("{}\n", alert.lines(self.colour)));
    }

    /// Whether the outcome is as the story says.
    pub(super) fn verdict(&self, problems: &[String], expected: &Expected) {
        let (paint, plain) = match (self.colour, problems.is_empty()) {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[1;32m", "\x1b[0m"),
            (true, false) => ("\x1b[1;31m", "\x1b[0m"),
        };
        let alerted = expected.events.values().filter(|wanted| wanted.alert).count();
        let (stored, groups, steps) = (expected.events.len(), expected.groups.len(), expected.steps());
        if problems.is_empty() {
            say(&format!(
                "{paint}As it should be:{plain} every detected event ({stored}) was stored once, each that belongs to no \
                 group ({alerted}) was alerted once, the groups ({groups}) counted theirs and alerted {steps} times, and \
                 the file that is cut off is in the dead-letter queue.\n"
            ));
        } else {
            say(&format!("{paint}Not as it should be:{plain}\n{}\n", list(problems)));
        }
    }
}

fn list(lines: &[impl Display]) -> String {
    lines.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;

    fn published(document: &Value) -> Published {
        Published {
            topic_arn: "arn:aws:sns:eu-central-1:123456789012:security-alerts".to_owned(),
            message_id: "1".to_owned(),
            subject: None,
            message: document.to_string(),
            texts: BTreeMap::new(),
            attributes: BTreeMap::new(),
            group_id: None,
            deduplication_id: None,
            at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_alert_says_what_who_from_where_and_why() {
        let alert = Alert::read(&published(&json!({
            "event_id": "e", "severity": "HIGH", "event_time": "2026-03-01T10:00:00Z", "event_name": "RunInstances",
            "event_source": "ec2.amazonaws.com", "region": "eu-central-1", "actor": "mara", "source_ip": "203.0.113.66",
            "outcome": "denied", "error_code": "Client.UnauthorizedOperation",
            "rules": [
                { "id": "gpu", "severity": "HIGH", "title": "Costly instances started", "description": "Miners want them" },
                { "id": "unauthorized-api-calls", "severity": "LOW", "title": null, "description": "A call was denied" },
            ],
        })));
        insta::assert_snapshot!(alert.lines(false), @r"
        2026-03-01T10:00:00Z  HIGH      RunInstances  (ec2.amazonaws.com, eu-central-1)
                              who    mara from 203.0.113.66: denied (Client.UnauthorizedOperation)
                              rule   gpu: Costly instances started
                              rule   unauthorized-api-calls: A call was denied
        ");
        assert!(alert.lines(true).contains("\x1b[1;31mHIGH"));
    }

    #[test]
    fn text_from_a_record_cannot_steer_the_terminal() {
        let alert = Alert::read(&published(&json!({
            "severity": "LOW", "event_name": "\u{1b}[2J\u{202e}evil\nline", "actor": "a".repeat(5_000),
        })));
        let lines = alert.lines(false);
        assert!(!lines.contains(['\u{1b}', '\u{202e}']), "{lines}");
        assert_eq!(lines.lines().count(), 2);
        assert!(lines.chars().count() < 500);
    }

    #[test]
    fn a_message_that_is_no_alert_is_shown_all_the_same() {
        let alert = Alert::read(&Published { message: "hello".to_owned(), ..published(&json!({})) });
        assert!(alert.lines(false).contains("an event without a name"));
    }
}
