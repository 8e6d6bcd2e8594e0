//! What an alert tells, whatever its format.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::event::own_id;
use super::{DetectedEvent, hex};
use crate::claim::ClaimedAlert;
use crate::cloudtrail::json;
use crate::rules::{RuleInfo, RuleSet, Severity};
use crate::tracker::Crossing;

/// Everything that is told.
pub(super) struct Told<'a> {
    pub(super) event: &'a DetectedEvent,
    pub(super) record: Record<'a>,
    pub(super) alert: &'a ClaimedAlert,
    pub(super) severity: Severity,
    /// The gravest first.
    pub(super) rules: Vec<ToldRule<'a>>,
    pub(super) crossing: Option<&'a Crossing>,
}

/// A rule of the alert: its id, and what is still known of it.
pub(super) struct ToldRule<'a> {
    pub(super) id: &'a str,
    pub(super) severity: Severity,
    known: Option<&'a RuleInfo>,
}

impl<'a> ToldRule<'a> {
    pub(super) fn title(&self) -> Option<&'a str> {
        self.known?.title.as_deref()
    }

    pub(super) fn description(&self) -> Option<&'a str> {
        self.known.map(|rule| rule.description.as_str())
    }

    pub(super) fn check(&self) -> Option<&'a str> {
        self.known?.check.as_deref()
    }

    pub(super) fn attack(&self) -> &'a [String] {
        self.known.map_or(&[], |rule| &rule.attack)
    }

    pub(super) fn attack_version(&self) -> Option<&'a str> {
        self.known?.attack_version.as_deref()
    }

    pub(super) fn tags(&self) -> &'a [String] {
        self.known.map_or(&[], |rule| &rule.tags)
    }

    pub(super) fn runbook(&self) -> Option<&'a str> {
        self.known?.runbook.as_deref()
    }
}

impl<'a> Told<'a> {
    pub(super) fn new(
        event: &'a DetectedEvent,
        alert: &'a ClaimedAlert,
        rules: &'a RuleSet,
        crossing: Option<&'a Crossing>,
    ) -> Self {
        let rules = told_rules(event, alert, rules);
        let severity = rules.first().map_or(alert.severity, |rule| rule.severity);
        Self { event, record: Record::new(event), alert, severity, rules, crossing }
    }

    /// What people call the event. An Insight is about many calls, not one.
    pub(super) fn name(&self) -> String {
        let name = self.event.facts.event_name.as_deref().unwrap_or("unnamed event");
        if self.record.is_insight() { format!("{name} insight") } else { name.to_owned() }
    }

    /// What all alerts about the same thing have in common: the group's, or the key's, or the event's.
    pub(super) fn thread(&self) -> String {
        match self.crossing {
            Some(crossing) => crossing.tracker.steps().to_string(),
            None => plain_id(&self.event.key.event_id),
        }
    }
}

/// An id as it stands where it is plain and short, else its hash.
fn plain_id(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(is_plain) {
        return id.to_owned();
    }
    hex(&Sha256::digest(id))
}

fn told_rules<'a>(event: &'a DetectedEvent, alert: &'a ClaimedAlert, rules: &'a RuleSet) -> Vec<ToldRule<'a>> {
    let known = |id: &str| event.rules.iter().find(|rule| rule.id == id).or_else(|| rules.find(id));
    let mut told: Vec<ToldRule<'a>> = alert
        .rules
        .iter()
        .map(|id| {
            let known: Option<&Arc<RuleInfo>> = known(id);
            ToldRule {
                id,
                severity: known.map_or(alert.severity, |rule| rule.severity),
                known: known.map(|rule| &**rule),
            }
        })
        .collect();
    told.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.id.cmp(b.id)));
    told
}

/// The members of a record that alerts read, found in one pass: records may be megabytes long.
pub(super) struct Record<'a>(Vec<(&'static str, &'a [u8])>);

const MEMBERS: [&str; 12] = [
    "userIdentity",
    "requestParameters",
    "responseElements",
    "resources",
    "insightDetails",
    "eventName",
    "eventSource",
    "eventType",
    "errorCode",
    "errorMessage",
    "requestID",
    "recipientAccountId",
];

impl<'a> Record<'a> {
    pub(super) fn new(event: &'a DetectedEvent) -> Self {
        let known = json::members(event.record.as_bytes())
            .filter_map(|member| Some((*MEMBERS.iter().find(|name| json::key_is(member.key, name))?, member.value)));
        Self(known.collect())
    }

    /// One of [`MEMBERS`]; empty where it is absent. Of several the last one counts.
    pub(super) fn get(&self, name: &str) -> &'a [u8] {
        self.0.iter().rev().find(|(known, _)| *known == name).map_or(&[], |(_, value)| value)
    }

    /// A string, as it stands in the record: neither cut nor escaped. Nothing where it is empty or no string.
    pub(super) fn text(&self, path: &[&str]) -> Option<String> {
        let (first, rest) = path.split_first()?;
        text_at(self.get(first), rest)
    }

    /// Of the first element of a list, a string.
    pub(super) fn first_of(&self, list: &[&str], path: &[&str]) -> Option<String> {
        let (first, rest) = list.split_first()?;
        text_at(json::elements(json::get_path(self.get(first), rest)?).next()?, path)
    }

    pub(super) fn is_insight(&self) -> bool {
        json::is_object(self.get("insightDetails"))
    }
}

/// As [`Record::text`], below any value.
pub(super) fn text_at(value: &[u8], path: &[&str]) -> Option<String> {
    let text = json::get_path(value, path).and_then(json::string)?;
    (!text.is_empty()).then(|| text.into_owned())
}

/// The event in CloudTrail's console, where it has an id and a region of a partition whose console we know. Insight
/// events are not on that page.
pub(super) fn console_link(told: &Told<'_>) -> Option<String> {
    let id = own_id(told.event.record.as_bytes()).filter(|_| !told.record.is_insight())?;
    // The region becomes a host name: it must not bring one of its own.
    let region = region(told.event)?;
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

/// The record's region, where it looks like one.
pub(super) fn region(event: &DetectedEvent) -> Option<&str> {
    event.facts.region.as_deref().filter(|region| is_region(region))
}

fn is_region(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
