//! A record's identity and facts, and the item to store for it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::{DetectedEvent, EventKey, Facts, Outcome, Source, StoredEvent, StoredItem, shown};
use crate::cloudtrail::json;
use crate::rules;

/// DynamoDB takes at most 400 KB in one item, names included.
const ITEM_LIMIT: usize = 400 * 1024;

/// Left free for what is added to an item later: names, the claim's token, marks, rules of later rule sets.
const ITEM_HEADROOM: usize = 24 * 1024;

/// A record up to this size is stored as readable JSON, if the rest of the item lets it.
const JSON_LIMIT: usize = 350 * 1024;

/// `eventID`s that begin so are hashed: the prefix is reserved for items that are not events.
const RESERVED_PREFIX: &str = "trailhound#";

/// DynamoDB's limit for a sort key and, for one length everywhere, ours for the partition key.
const MAX_EVENT_ID_BYTES: usize = 1024;

/// Names, regions, addresses, codes.
const SHORT: usize = 256;

/// Actors, user agents, messages.
const LONG: usize = 1024;

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Reads the identity and the time of an event from nothing but the record.
pub(super) fn key_and_time(raw: &[u8]) -> (EventKey, Option<OffsetDateTime>) {
    let time = json::get(raw, "eventTime")
        .and_then(json::string)
        .and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok())
        .and_then(|time| time.checked_to_offset(UtcOffset::UTC))
        .and_then(|time| Some((time, time.format(&Rfc3339).ok()?)));
    let event_id = own_id(raw).unwrap_or_else(|| hex(&Sha256::digest(json::canonical(raw))));
    match time {
        Some((time, timestamp)) => (EventKey { event_id, timestamp }, Some(time)),
        None => (EventKey { event_id, timestamp: EPOCH.to_owned() }, None),
    }
}

/// The record's own `eventID`, where it can serve as the key.
pub(super) fn own_id(raw: &[u8]) -> Option<String> {
    let id = json::get(raw, "eventID").and_then(json::string)?;
    (1..=MAX_EVENT_ID_BYTES).contains(&id.len()).then_some(())?;
    (!id.starts_with(RESERVED_PREFIX)).then(|| id.into_owned())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads what a record says. Fields: the
/// [record contents](https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html).
pub(super) fn facts(raw: &[u8], event_time: Option<OffsetDateTime>) -> Facts {
    let identity = json::get(raw, "userIdentity").unwrap_or_default();
    let insight = json::get(raw, "insightDetails").unwrap_or_default();
    let issuer = json::get_path(identity, &["sessionContext", "sessionIssuer"]).unwrap_or_default();
    let error_code = fact(raw, "errorCode", SHORT);
    let error_message = fact(raw, "errorMessage", LONG);
    Facts {
        event_name: fact(raw, "eventName", SHORT).or_else(|| fact(insight, "eventName", SHORT)),
        event_source: fact(raw, "eventSource", SHORT).or_else(|| fact(insight, "eventSource", SHORT)),
        region: fact(raw, "awsRegion", SHORT),
        account_id: fact(raw, "recipientAccountId", SHORT)
            .or_else(|| fact(identity, "accountId", SHORT))
            .or_else(|| fact(issuer, "accountId", SHORT)),
        actor: actor(identity, issuer),
        user_identity_type: fact(identity, "type", SHORT),
        source_ip: fact(raw, "sourceIPAddress", SHORT),
        user_agent: fact(raw, "userAgent", LONG),
        outcome: outcome(raw, error_code.as_deref(), error_message.as_deref()),
        error_code,
        error_message,
        event_time,
    }
}

fn fact(object: &[u8], name: &str, limit: usize) -> Option<String> {
    let text = json::get(object, name).and_then(json::scalar_text)?;
    (!text.is_empty()).then(|| shown(&text, limit))
}

/// The role and the session of an assumed role, else the first name that the identity has.
fn actor(identity: &[u8], issuer: &[u8]) -> Option<String> {
    let arn = fact(identity, "arn", LONG);
    let principal = fact(identity, "principalId", LONG);
    let session = || {
        // arn:aws:sts::<account>:assumed-role/<role>/<session>, and <role's id>:<session>.
        let of_arn = arn.as_deref().and_then(|arn| arn.rsplit_once('/'));
        let of_principal = principal.as_deref().and_then(|principal| principal.split_once(':'));
        of_arn.or(of_principal).map(|(_, session)| session).filter(|session| !session.is_empty())
    };
    if let Some(issuer) = fact(issuer, "userName", SHORT) {
        return Some(session().map_or(issuer.clone(), |session| shown(&format!("{issuer}/{session}"), LONG)));
    }
    let on_behalf_of = || json::get(identity, "onBehalfOf").and_then(|user| fact(user, "userId", LONG));
    arn.or_else(|| fact(identity, "userName", LONG))
        .or(principal)
        .or_else(|| fact(identity, "invokedBy", LONG))
        .or_else(on_behalf_of)
}

fn outcome(raw: &[u8], code: Option<&str>, message: Option<&str>) -> Outcome {
    const DENIALS: [&str; 4] = ["AccessDenied", "Unauthorized", "NotAuthorized", "AuthorizationError"];
    let sign_in = || json::get_path(raw, &["responseElements", "ConsoleLogin"]).and_then(json::string);
    match code {
        Some(code) if DENIALS.iter().any(|denial| code.contains(denial)) => Outcome::Denied,
        Some(_) => Outcome::Failed,
        // A failed sign-in has no error code.
        None if message.is_some() || sign_in().is_some_and(|result| result == "Failure") => Outcome::Failed,
        None => Outcome::Success,
    }
}

/// See [`super::stored_item`].
pub(super) fn stored_item(event: &DetectedEvent, retention: time::Duration) -> StoredItem {
    StoredItem {
        key: event.key.clone(),
        facts: event.facts.clone(),
        rules: rules::ids(&event.rules),
        severity: rules::highest(&event.rules),
        event: stored_event(&event.record, ITEM_LIMIT.saturating_sub(ITEM_HEADROOM + size_without_record(event))),
        source: event.source.clone(),
        rule_set_hash: event.rule_set_hash.clone(),
        detected_at: event.detected_at,
        expires_at: event.detected_at.saturating_add(retention),
    }
}

fn stored_event(record: &str, room: usize) -> StoredEvent {
    if record.len() <= room.min(JSON_LIMIT) {
        return StoredEvent::Json(record.to_owned());
    }
    match gzip(record) {
        Some(compressed) if compressed.len() <= room => StoredEvent::Gzip(compressed),
        _ => StoredEvent::Omitted,
    }
}

fn gzip(text: &str) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).ok()?;
    encoder.finish().ok()
}

fn size_without_record(event: &DetectedEvent) -> usize {
    let Facts {
        event_name,
        event_source,
        region,
        account_id,
        actor,
        user_identity_type,
        source_ip,
        user_agent,
        error_code,
        error_message,
        event_time: _,
        outcome: _,
    } = &event.facts;
    let facts = [
        event_name,
        event_source,
        region,
        account_id,
        actor,
        user_identity_type,
        source_ip,
        user_agent,
        error_code,
        error_message,
    ];
    let facts: usize = facts.into_iter().flatten().map(String::len).sum();
    // A rule's id stands in `Rules`, in `SettledRules` and, quoted, in `Claim`.
    let rules: usize = event.rules.iter().map(|rule| 3 * (rule.id.len() + 4)).sum();
    let Source { object, index: _ } = &event.source;
    let source = object
        .as_ref()
        .map_or(0, |object| object.bucket.len() + object.key.len() + object.version_id.as_ref().map_or(0, String::len));
    facts + rules + source + event.key.event_id.len() + event.key.timestamp.len() + event.rule_set_hash.len()
}
