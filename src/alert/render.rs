//! The alert as SNS takes it: subject, message and attributes, within its limits.

use serde::Serialize;

use super::document::{MAX_KEY, document, rfc3339};
use super::event::own_id;
use super::text::{ascii, inert, shown};
use super::{AttributeValue, DetectedEvent, Facts, Outbound, Outcome, PUBLISH_LIMIT};
use crate::claim::ClaimedAlert;
use crate::cloudtrail::json;
use crate::rules::{RuleSet, Severity};

/// What SNS may count beyond what we do.
const HEADROOM: usize = 2048;

const SUBJECT_LIMIT: usize = 100;

const SMS_LIMIT: usize = 160;

/// Rules named in the attribute `rule_ids`, and in the mail.
const MAX_NAMED_RULES: usize = 50;

pub(super) const MAX_RULE_ID: usize = 128;

/// How much of an event is told.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    pub(super) record: bool,
    /// At most so many rules.
    pub(super) rules: usize,
    /// At most so many characters of a rule's description.
    pub(super) description: usize,
}

/// From the whole to what always fits; the record goes first.
const DETAILS: [Detail; 4] = [
    Detail { record: true, rules: usize::MAX, description: 2048 },
    Detail { record: false, rules: usize::MAX, description: 2048 },
    Detail { record: false, rules: 500, description: 64 },
    Detail { record: false, rules: 10, description: 64 },
];

/// A rule of the alert: its id, and what is still known of it.
pub(super) struct ToldRule<'a> {
    pub(super) id: &'a str,
    pub(super) severity: Severity,
    pub(super) description: Option<&'a str>,
}

/// See [`super::render`].
pub(super) fn render(event: &DetectedEvent, alert: &ClaimedAlert, rules: &RuleSet) -> Outbound {
    let told = told_rules(event, alert, rules);
    let severity = told.first().map_or(alert.severity, |rule| rule.severity);
    let subject = subject(&event.facts, severity);
    let attributes = attributes(&event.facts, severity, &told);
    let mut outbound = Outbound {
        alert_id: alert.alert_id.clone(),
        message: String::new(),
        attributes,
        group_id: group_id(event.facts.account_id.as_deref()),
        subject,
    };
    let email = email(event, alert, severity, &told);
    let sms = sms(&outbound.subject, event, &told);
    for detail in DETAILS {
        // A record that is too large by itself is not rendered in vain.
        if detail.record && event.record.len() > PUBLISH_LIMIT {
            continue;
        }
        let default = document(event, alert, severity, &told, detail);
        outbound.message = message(&default, &email, &sms);
        if outbound.size() + HEADROOM <= PUBLISH_LIMIT {
            break;
        }
    }
    outbound
}

/// The gravest first.
fn told_rules<'a>(event: &'a DetectedEvent, alert: &'a ClaimedAlert, rules: &'a RuleSet) -> Vec<ToldRule<'a>> {
    let mut told: Vec<ToldRule<'a>> = alert
        .rules
        .iter()
        .map(|id| {
            let known = event.rules.iter().find(|rule| rule.id == *id).or_else(|| rules.find(id));
            ToldRule {
                id,
                severity: known.map_or(alert.severity, |rule| rule.severity),
                description: known.map(|rule| rule.description.as_str()),
            }
        })
        .collect();
    told.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.id.cmp(b.id)));
    told
}

/// `[HIGH] CreateAccessKey by Admin/alice in 123456789012 us-east-1`
fn subject(facts: &Facts, severity: Severity) -> String {
    let name = ascii(facts.event_name.as_deref().unwrap_or("event without a name"), 34);
    let outcome = match facts.outcome {
        Outcome::Success => String::new(),
        other => format!(" ({})", other.as_str()),
    };
    let start = format!("[{severity}] {name}{outcome}");
    let place: Vec<String> =
        [&facts.account_id, &facts.region].into_iter().flatten().map(|part| ascii(part, 16)).collect();
    let place = if place.is_empty() { String::new() } else { format!(" in {}", place.join(" ")) };
    let by = facts.actor.as_deref().map(|actor| {
        let room = SUBJECT_LIMIT.saturating_sub(start.len() + " by ".len() + place.len());
        format!(" by {}", ascii(short_actor(actor), room))
    });
    ascii(&format!("{start}{}{place}", by.unwrap_or_default()), SUBJECT_LIMIT)
}

/// An ARN without what the account and the service say: `user/alice`.
fn short_actor(actor: &str) -> &str {
    let resource = actor.strip_prefix("arn:").and_then(|arn| arn.splitn(5, ':').nth(4));
    resource.filter(|resource| !resource.is_empty()).unwrap_or(actor)
}

fn message(default: &str, email: &str, sms: &str) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        default: &'a str,
        email: &'a str,
        sms: &'a str,
    }
    // Strings always serialise.
    serde_json::to_string(&Message { default, email, sms }).unwrap_or_default()
}

/// What happened, when, and the gravest rule: as ASCII, since another alphabet leaves 70 characters to a message.
fn sms(subject: &str, event: &DetectedEvent, rules: &[ToldRule<'_>]) -> String {
    let time = event.facts.event_time.map(|_| event.key.timestamp.as_str());
    let rule = rules.first().map(|rule| rule.id);
    let parts: Vec<&str> = [Some(subject), time, rule].into_iter().flatten().collect();
    ascii(&inert(&parts.join(" "), SMS_LIMIT), SMS_LIMIT)
}

fn attributes(facts: &Facts, severity: Severity, rules: &[ToldRule<'_>]) -> Vec<(&'static str, AttributeValue)> {
    let ids = rules.iter().filter(|rule| !rule.id.is_empty()).take(MAX_NAMED_RULES);
    let ids: Vec<String> = ids.map(|rule| shown(rule.id, MAX_RULE_ID)).collect();
    let mut attributes = vec![("severity", AttributeValue::String(severity.as_str().to_owned()))];
    if !ids.is_empty() {
        attributes.push(("rule_ids", AttributeValue::StringArray(ids)));
    }
    let Facts { event_name, event_source, account_id, region, .. } = facts;
    let optional =
        [("event_name", event_name), ("event_source", event_source), ("account_id", account_id), ("region", region)];
    // SNS refuses an empty value.
    let present = optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let present = present.filter(|(_, value)| !value.is_empty());
    attributes.extend(present.map(|(name, value)| (name, AttributeValue::String(value))));
    attributes
}

/// SNS takes 128 letters, digits and punctuation marks.
fn group_id(account_id: Option<&str>) -> String {
    let fits = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    account_id.filter(fits).unwrap_or("unknown").to_owned()
}

fn email(event: &DetectedEvent, alert: &ClaimedAlert, severity: Severity, rules: &[ToldRule<'_>]) -> String {
    let facts = &event.facts;
    let line = |text: &str| inert(text, 1024);
    let joined = |parts: &[Option<&str>], between: &str| {
        let present: Vec<&str> = parts.iter().flatten().copied().collect();
        if present.is_empty() { None } else { Some(line(&present.join(between))) }
    };
    let mut text = Lines::default();
    let name = facts.event_name.as_deref().unwrap_or("An event without a name");
    text.line(&format!("{severity}: {} ({})", line(name), facts.outcome.as_str()));
    text.line("");

    let of_type = facts.user_identity_type.as_ref().map(|of_type| format!("({of_type})"));
    text.field("Who", joined(&[facts.actor.as_deref(), of_type.as_deref()], " "));
    let on = facts.event_source.as_ref().map(|source| format!("on {source}"));
    text.field("What", joined(&[facts.event_name.as_deref(), on.as_deref()], " "));
    text.field("Account", joined(&[facts.account_id.as_deref(), facts.region.as_deref()], ", "));
    text.field("From", joined(&[facts.source_ip.as_deref(), facts.user_agent.as_deref()], ", "));
    let outcome = [Some(facts.outcome.as_str()), facts.error_code.as_deref(), facts.error_message.as_deref()];
    text.field("Outcome", joined(&outcome, ": "));
    text.field("Happened", facts.event_time.map(|_| event.key.timestamp.clone()));
    text.field("Detected", Some(rfc3339(event.detected_at)));
    text.line("");

    text.line("Why:");
    for rule in rules.iter().take(MAX_NAMED_RULES) {
        let description = rule.description.unwrap_or("not in the rules in force");
        let id = shown(rule.id, MAX_RULE_ID);
        text.line(&format!("- {} {id}: {}", rule.severity, shown(description, 256)));
    }
    if let Some(more) = rules.len().checked_sub(MAX_NAMED_RULES).filter(|more| *more > 0) {
        text.line(&format!("- and {more} more"));
    }
    text.line("");

    match &event.source.object {
        Some(object) => {
            let version = object.version_id.as_ref().map(|version| format!(", version {}", shown(version, MAX_KEY)));
            let (bucket, key) = (shown(&object.bucket, MAX_KEY), shown(&object.key, MAX_KEY));
            text.field("Object", Some(format!("s3://{bucket}/{key}{}", version.unwrap_or_default())));
            text.field("Record", Some(format!("{}, counted from 0", event.source.index)));
        }
        None => text.field("Record", Some("came in a message, not in an object".to_owned())),
    }
    text.field("Event id", Some(line(&event.key.event_id)));
    text.field("CloudTrail", console_link(event));
    text.field("Alert id", Some(alert.alert_id.clone()));
    text.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn field(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.line(&format!("{:<12}{value}", format!("{name}:")));
        }
    }
}

/// The event in CloudTrail's console, where it has an id and a region of a partition whose console we know. Insight
/// events are not on that page.
fn console_link(event: &DetectedEvent) -> Option<String> {
    let record = event.record.as_bytes();
    let id = own_id(record)?;
    if json::get(record, "insightDetails").is_some_and(json::is_object) {
        return None;
    }
    // The region becomes a host name: it must not bring one of its own.
    let region = event.facts.region.as_deref().filter(|region| is_region(region))?;
    let domain = if region.starts_with("cn-") {
        "console.amazonaws.cn"
    } else if region.starts_with("us-gov-") {
        "console.amazonaws-us-gov.com"
    } else if region.starts_with("us-iso") || region.starts_with("eu-iso") || region.starts_with("eusc-") {
        return None;
    } else {
        "console.aws.amazon.com"
    };
    let id = percent_encoding::utf8_percent_encode(&id, ID_ESCAPES);
    Some(format!("https://{region}.{domain}/cloudtrailv2/home?region={region}#/events/{id}"))
}

const ID_ESCAPES: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn is_region(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
