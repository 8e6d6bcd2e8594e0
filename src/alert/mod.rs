//! What a match becomes: the event's identity and facts, the item to store, and the alert within SNS's limits.

mod chatbot;
mod commands;
mod correlation;
mod document;
mod email;
mod event;
mod exception;
mod group;
mod ocsf;
mod render;
mod sentence;
#[cfg(test)]
mod testing;
mod text;
mod told;
mod withheld;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

pub(crate) use self::event::{account_id, hex};
pub(crate) use self::text::{is_hidden, quoted, shown, visible_json};
pub use self::withheld::{Withheld, render_withheld};
use crate::cloudtrail::json;

use crate::claim::ClaimedAlert;
use crate::rules::{Detection, RuleInfo, RuleSet, Severity};
use crate::tracker::{Crossing, Membership};

/// SNS takes at most this many bytes in one publish or one batch, attributes included.
pub const PUBLISH_LIMIT: usize = 262_144;

/// The key of a stored item. Two copies of one event have the same key, whatever path they came by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// The record's `eventID`; without one, or with one over 1 KB, the SHA-256 of its canonical JSON.
    pub event_id: String,
    /// The record's `eventTime` in RFC 3339; the epoch where it is missing or no time.
    pub timestamp: String,
}

/// Where a record was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `None` for a record that travelled in a message.
    pub object: Option<SourceObject>,
    /// Position in the object, from 0.
    pub index: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceObject {
    pub bucket: String,
    pub key: String,
    pub version_id: Option<String>,
}

/// What the record says, bounded and free of control characters; absent where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub event_name: Option<String>,
    pub event_source: Option<String>,
    pub region: Option<String>,
    /// `recipientAccountId`, then `userIdentity.accountId`, then the session issuer's.
    pub account_id: Option<String>,
    /// Session issuer and session name, arn, user name, principal, service: the first that is there.
    pub actor: Option<String>,
    pub user_identity_type: Option<String>,
    pub source_ip: Option<String>,
    pub user_agent: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// When it happened, where `eventTime` is a time.
    pub event_time: Option<OffsetDateTime>,
    /// `success`, `denied` or `failed`.
    pub outcome: Outcome,
}

/// How the call ended, as far as the record tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    #[default]
    Success,
    Denied,
    Failed,
}

/// The record in an item: compressed, then left out, as DynamoDB's 400 KB draw near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredEvent {
    Json(String),
    Gzip(Vec<u8>),
    Omitted,
}

/// A detected event: everything that is stored and told about it.
#[derive(Clone, Debug)]
pub struct DetectedEvent {
    pub key: EventKey,
    pub facts: Facts,
    /// The rules that matched; never empty.
    pub rules: Vec<Arc<RuleInfo>>,
    /// Where its rules with groups count it, by rule; empty where the record tells no time.
    pub groups: BTreeMap<String, Membership>,
    /// The record as valid JSON: bad UTF-8 and lone surrogates replaced; a JSON string where it is no JSON at all.
    pub record: String,
    pub source: Source,
    pub detected_at: OffsetDateTime,
    pub rule_set_hash: String,
}

/// The item of an event, as [`crate::ports::AlertStore`] stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredItem {
    pub key: EventKey,
    pub facts: Facts,
    /// What matched; never empty.
    pub rules: BTreeMap<String, Severity>,
    /// Those of them that are never alerted: of mode `shadow`.
    pub recorded_only: BTreeSet<String>,
    /// Where those of them count it that have groups and alert; at most [`crate::tracker::MAX_TRACKERS`].
    pub groups: BTreeMap<String, Membership>,
    pub event: StoredEvent,
    pub source: Source,
    pub rule_set_hash: String,
    pub detected_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

impl StoredItem {
    /// The highest of all rules that matched.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.rules.values().max().copied().unwrap_or(Severity::Low)
    }

    /// Makes it one that no rule alerts and that is counted nowhere.
    pub fn only_record(&mut self) {
        self.recorded_only = self.rules.keys().cloned().collect();
        self.groups.clear();
    }

    /// The rules that ask for an alert.
    #[must_use]
    pub fn alerting(&self) -> BTreeSet<String> {
        self.rules.keys().filter(|rule| !self.recorded_only.contains(*rule)).cloned().collect()
    }
}

/// What the text `default` of an alert is: what queues, functions, web hooks and chat applications get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlertFormat {
    /// Our own document, `trailhound.alert/1`.
    #[default]
    Json,
    /// A custom notification of Amazon Q Developer in chat applications, for Slack and Teams.
    Chatbot,
    /// A Detection Finding of the Open Cybersecurity Schema Framework, for SIEMs.
    Ocsf,
}

impl AlertFormat {
    pub const ALL: [Self; 3] = [Self::Json, Self::Chatbot, Self::Ocsf];

    /// As the configuration names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Chatbot => "chatbot",
            Self::Ocsf => "ocsf",
        }
    }
}

/// An alert, rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub alert_id: String,
    /// At most 100 printable ASCII characters.
    pub subject: String,
    /// A JSON object for `MessageStructure: json`: `default`, `email`, `sms`.
    pub message: String,
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// For FIFO topics; the deduplication id is the alert id.
    pub group_id: String,
}

/// A message attribute for filter policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    String(String),
    /// `String.Array`: a JSON array of strings.
    StringArray(Vec<String>),
}

impl Outbound {
    /// What this alert counts towards [`PUBLISH_LIMIT`]: message, and names, types and values of the attributes. The
    /// subject is counted too: SNS does not say.
    #[must_use]
    pub fn size(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.size()).sum();
        self.message.len() + self.subject.len() + attributes
    }
}

impl AttributeValue {
    /// As SNS names it.
    #[must_use]
    pub fn data_type(&self) -> &'static str {
        match self {
            Self::String(_) => "String",
            Self::StringArray(_) => "String.Array",
        }
    }

    /// The value as SNS takes it; an array as JSON.
    #[must_use]
    pub fn string_value(&self) -> String {
        match self {
            Self::String(text) => text.clone(),
            Self::StringArray(texts) => serde_json::Value::from(texts.as_slice()).to_string(),
        }
    }

    fn size(&self) -> usize {
        self.data_type().len() + self.string_value().len()
    }
}

impl Outcome {
    /// What an error's code alone tells.
    #[must_use]
    pub fn of_code(code: Option<&str>) -> Self {
        event::outcome(b"", code, None)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// The id of the alert that tells `rules` about an event: 32 hexadecimal digits of a SHA-256.
#[must_use]
pub fn alert_id(event_id: &str, rules: &BTreeSet<String>) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(event_id).chain(rules.iter().map(String::as_str)) {
        // Lengths keep one list of parts from reading as another.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(hash.finalize().get(..16).unwrap_or_default())
}

/// Reads a matched record's identity and facts, from nothing but the record.
#[must_use]
pub fn detected_event(
    detection: &Detection,
    source: Source,
    detected_at: OffsetDateTime,
    rule_set_hash: &str,
) -> DetectedEvent {
    let (key, event_time) = event::key_and_time(&detection.raw);
    let facts = event::facts(&detection.raw, event_time);
    DetectedEvent {
        groups: event::groups(&detection.rules, &detection.raw, &key.event_id, &facts),
        key,
        rules: detection.rules.clone(),
        facts,
        record: json::to_valid(&detection.raw),
        source,
        detected_at,
        rule_set_hash: rule_set_hash.to_owned(),
    }
}

/// The item to store for an event. `retention` is counted from the detection.
#[must_use]
pub fn stored_item(event: &DetectedEvent, retention: time::Duration) -> StoredItem {
    event::stored_item(event, retention)
}

/// Renders exactly the claimed alert, which may tell fewer rules than matched, or rules of a set that is no more: what
/// neither the event nor `rules` knows is told by its id. Of a group's alert, `crossing` is the step that it tells, with
/// `event` as an example. The result keeps [`PUBLISH_LIMIT`]; `docs/alerts.md` has the formats.
#[must_use]
pub fn render(
    event: &DetectedEvent,
    alert: &ClaimedAlert,
    rules: &RuleSet,
    crossing: Option<&Crossing>,
    format: AlertFormat,
) -> Outbound {
    render::render(event, alert, rules, crossing, format)
}

/// The text of the mail alone, as [`render`] would send it for this alert.
#[must_use]
pub fn text(event: &DetectedEvent, alert: &ClaimedAlert, rules: &RuleSet) -> String {
    email::email(&told::Told::new(event, alert, rules, None))
}
