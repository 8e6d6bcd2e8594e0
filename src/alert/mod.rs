//! What a match becomes: the event's identity and facts, the item to store, and the alert within SNS's limits.

mod event;
mod render;

use std::collections::BTreeSet;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::claim::ClaimedAlert;
use crate::rules::{Detection, RuleInfo, RuleSet, Severity};

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
    /// Ids; never empty.
    pub rules: BTreeSet<String>,
    pub severity: Severity,
    pub event: StoredEvent,
    pub source: Source,
    pub rule_set_hash: String,
    pub detected_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
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
    /// What this alert counts towards [`PUBLISH_LIMIT`]: message, and names, types and values of the attributes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.len()
    }
}

/// The id of the alert that tells `rules` about an event: 32 hexadecimal digits of a SHA-256.
#[must_use]
pub fn alert_id(_event_id: &str, _rules: &BTreeSet<String>) -> String {
    String::new()
}

/// Reads a matched record's identity and facts.
#[must_use]
pub fn detected_event(
    _detection: &Detection,
    _source: Source,
    _detected_at: OffsetDateTime,
    _rule_set_hash: &str,
) -> DetectedEvent {
    todo!()
}

/// The item to store for an event. `retention` is counted from the detection.
#[must_use]
pub fn stored_item(_event: &DetectedEvent, _retention: time::Duration) -> StoredItem {
    todo!()
}

/// Renders exactly the claimed alert, which may tell fewer rules than matched, or rules of a set that is no more: what
/// `rules` does not know is told by its id.
#[must_use]
pub fn render(_event: &DetectedEvent, _alert: &ClaimedAlert, _rules: &RuleSet) -> Outbound {
    todo!()
}
