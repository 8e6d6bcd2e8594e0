//! A record's identity and facts, and the item to store for it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DetectedEvent, EventKey, Facts, Outcome, Source, StoredEvent, StoredItem, shown};
use crate::cloudtrail::{event_time, json};
use crate::rules::{Mode, RuleInfo};
use crate::tracker::{MAX_TRACKERS, Membership, RESERVED_PREFIX, membership, sighting};

/// DynamoDB takes at most 400 KB in one item, names included.
const ITEM_LIMIT: usize = 400 * 1024;

/// Left free for what is added to an item later: names, the claim's token, marks, rules of later rule sets.
const ITEM_HEADROOM: usize = 24 * 1024;

/// A record up to this size is stored as readable JSON, if the rest of the item lets it.
const JSON_LIMIT: usize = 350 * 1024;

/// DynamoDB's limit for a sort key and, for one length everywhere, ours for the partition key.
const MAX_EVENT_ID_BYTES: usize = 1024;

/// Names, regions, addresses, codes.
const SHORT: usize = 256;

/// Actors, user agents, messages.
const LONG: usize = 1024;

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Reads the identity and the time of an event from nothing but the record.
pub(super) fn key_and_time(raw: &[u8]) -> (EventKey, Option<OffsetDateTime>) {
    let time = event_time(raw).and_then(|time| Some((time, time.format(&Rfc3339).ok()?)));
    let event_id = own_id(raw).unwrap_or_else(|| hex(&Sha256::digest(json::canonical(raw))));
    match time {
        Some((time, timestamp)) => (EventKey { event_id, timestamp }, Some(time)),
        None => (EventKey { event_id, timestamp: EPOCH.to_owned() }, None),
    }
}

/// The record's own `eventID`, where it can serve as the key.
/// One that begins as the items do that are not events is hashed.
pub(super) fn own_id(raw: &[u8]) -> Option<String> {
    let id = json::get(raw, "eventID").and_then(json::string)?;
    (1..=MAX_EVENT_ID_BYTES).contains(&id.len()).then_some(())?;
    (!id.starts_with(RESERVED_PREFIX)).then(|| id.into_owned())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
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
        account_id: account_id(raw),
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

/// See [`Facts::account_id`].
pub(crate) fn account_id(raw: &[u8]) -> Option<String> {
    let identity = json::get(raw, "userIdentity").unwrap_or_default();
    let issuer = || json::get_path(identity, &["sessionContext", "sessionIssuer"]).unwrap_or_default();
    fact(raw, "recipientAccountId", SHORT)
        .or_else(|| fact(identity, "accountId", SHORT))
        .or_else(|| fact(issuer(), "accountId", SHORT))
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

pub(super) fn outcome(raw: &[u8], code: Option<&str>, message: Option<&str>) -> Outcome {
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

/// The trackers of rules that do not alert for each event. A record without a time is in no bucket.
pub(super) fn groups(
    rules: &[Arc<RuleInfo>],
    raw: &[u8],
    event_id: &str,
    facts: &Facts,
) -> BTreeMap<String, Membership> {
    let Some(at) = facts.event_time else { return BTreeMap::new() };
    let (name, address) = (facts.event_name.as_deref(), facts.source_ip.as_deref());
    let of = |rule: &Arc<RuleInfo>| match (&rule.group, &rule.correlation) {
        (Some(group), _) => Some(membership(&rule.id, group, raw, at, name, address)),
        (None, Some(correlation)) => {
            Some(sighting(&rule.id, correlation, &rule.steps, raw, event_id, (at, name, address)))
        }
        (None, None) => None,
    };
    let alerting = rules.iter().filter(|rule| rule.mode == Mode::Alert);
    alerting.filter_map(|rule| Some((rule.id.clone(), of(rule)?))).collect()
}

/// See [`super::stored_item`].
pub(super) fn stored_item(event: &DetectedEvent, retention: time::Duration) -> StoredItem {
    let shadow = event.rules.iter().filter(|rule| rule.mode == Mode::Shadow);
    StoredItem {
        key: event.key.clone(),
        facts: event.facts.clone(),
        rules: event.rules.iter().map(|rule| (rule.id.clone(), rule.severity)).collect(),
        recorded_only: shadow.map(|rule| rule.id.clone()).collect(),
        groups: event.groups.iter().take(MAX_TRACKERS).map(|(rule, member)| (rule.clone(), member.clone())).collect(),
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
    // A rule's id stands in `Rules`, in `SettledRules` and, quoted, in `Claim`, or in `Groups` behind its tracker's.
    let rules: usize = event.rules.iter().map(|rule| 3 * (rule.id.len() + 4)).sum();
    let rules = rules + event.groups.len().min(MAX_TRACKERS) * 56;
    let Source { object, index: _ } = &event.source;
    let source = object
        .as_ref()
        .map_or(0, |object| object.bucket.len() + object.key.len() + object.version_id.as_ref().map_or(0, String::len));
    facts + rules + source + event.key.event_id.len() + event.key.timestamp.len() + event.rule_set_hash.len()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::rules::{Detection, RuleInfo, Severity};

    fn key(record: &str) -> EventKey {
        key_and_time(record.as_bytes()).0
    }

    fn timestamp(event_time: &str) -> String {
        key(&format!(r#"{{"eventID":"1","eventTime":{event_time}}}"#)).timestamp
    }

    fn actor(user_identity: &str) -> Option<String> {
        facts(format!(r#"{{"userIdentity":{user_identity}}}"#).as_bytes(), None).actor
    }

    fn outcome_of(record: &str) -> Outcome {
        facts(record.as_bytes(), None).outcome
    }

    fn detected(record: String, rules: usize) -> DetectedEvent {
        let rule = |i| RuleInfo::new(format!("rule-{i:04}"), Severity::High, "");
        let rules = (0..rules).map(|i| Arc::new(rule(i))).collect();
        let detection = Detection { index: 0, raw: Bytes::from(record), rules };
        super::super::detected_event(&detection, Source::default(), datetime!(2024-05-01 12:05 UTC), "0123456789abcdef")
    }

    /// Text that no compression makes smaller than about three quarters.
    fn noise(length: usize) -> String {
        let mut random = fastrand::Rng::with_seed(7);
        (0..length).map(|_| random.alphanumeric()).collect()
    }

    #[test]
    fn the_key_is_the_records_own() {
        let found = key(r#"{"eventTime":"2024-05-01T12:00:00Z","eventID":"c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91"}"#);
        assert_eq!(found.event_id, "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91");
        assert_eq!(found.timestamp, "2024-05-01T12:00:00Z");
    }

    #[test]
    fn a_record_without_a_usable_id_has_the_hash_of_its_content_on_every_path() {
        let long = "x".repeat(1025);
        for id in ["null", "\"\"", "7", "{}", "\"trailhound#state\"", &format!("\"{long}\"")] {
            let compact = format!(r#"{{"eventID":{id},"eventTime":"2024-05-01T12:00:00Z","n":1.0,"u":"é/\""}}"#);
            let spaced =
                format!(r#"{{ "u": "\u00e9\/\u0022", "n" : 1, "eventTime":"2024-05-01T12:00:00Z", "eventID": {id} }}"#);
            assert_eq!(key(&compact).event_id.len(), 64, "{id}");
            assert_eq!(key(&compact), key(&spaced), "{id}");
        }
        assert_ne!(key(r#"{"eventName":"A"}"#), key(r#"{"eventName":"B"}"#));
        assert_eq!(key(&format!(r#"{{"eventID":"{}"}}"#, "x".repeat(1024))).event_id.len(), 1024);
    }

    #[test]
    fn times_are_utc_and_what_is_no_time_is_the_epoch() {
        for (text, expected) in [
            ("\"2024-05-01T12:00:00Z\"", "2024-05-01T12:00:00Z"),
            ("\"2024-05-01T12:00:00.250Z\"", "2024-05-01T12:00:00.25Z"),
            ("\"2024-05-01T12:00:00.000Z\"", "2024-05-01T12:00:00Z"),
            ("\"2024-05-01T14:00:00+02:00\"", "2024-05-01T12:00:00Z"),
            ("\"9999-12-31T23:59:59-23:59\"", EPOCH),
            ("\"0000-01-01T00:00:00+23:59\"", EPOCH),
            ("\"yesterday\"", EPOCH),
            ("1714564800", EPOCH),
            ("null", EPOCH),
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
    }

    #[test]
    fn the_actor_is_the_most_telling_name() {
        let issuer =
            r#""sessionContext":{"sessionIssuer":{"userName":"Admin","arn":"arn:aws:iam::111122223333:role/Admin"}}"#;
        for (identity, expected) in [
            (format!(r#"{{"arn":"arn:aws:sts::111122223333:assumed-role/Admin/alice",{issuer}}}"#), Some("Admin/alice")),
            (format!(r#"{{"principalId":"AROAEXAMPLE:bob",{issuer}}}"#), Some("Admin/bob")),
            (format!("{{{issuer}}}"), Some("Admin")),
            (r#"{"arn":"arn:aws:iam::111122223333:user/carol","userName":"carol","sessionContext":{"sessionIssuer":{}}}"#.to_owned(), Some("arn:aws:iam::111122223333:user/carol")),
            (r#"{"userName":"dave","principalId":"AIDAEXAMPLE"}"#.to_owned(), Some("dave")),
            (r#"{"principalId":"AIDAEXAMPLE","invokedBy":"x"}"#.to_owned(), Some("AIDAEXAMPLE")),
            (r#"{"type":"AWSService","invokedBy":"ec2.amazonaws.com"}"#.to_owned(), Some("ec2.amazonaws.com")),
            (r#"{"type":"IdentityCenterUser","onBehalfOf":{"userId":"94d8a1b2-example"}}"#.to_owned(), Some("94d8a1b2-example")),
            (r#"{"arn":null,"userName":""}"#.to_owned(), None),
            ("null".to_owned(), None),
            ("\"root\"".to_owned(), None),
        ] {
            assert_eq!(actor(&identity).as_deref(), expected, "{identity}");
        }
    }

    #[test]
    fn the_outcome_tells_denials_from_failures() {
        for code in [
            "AccessDenied",
            "AccessDeniedException",
            "Client.UnauthorizedOperation",
            "UnauthorizedOperation",
            "UnauthorizedException",
            "VpceAccessDenied",
        ] {
            assert_eq!(outcome_of(&format!(r#"{{"errorCode":"{code}"}}"#)), Outcome::Denied, "{code}");
        }
        assert_eq!(outcome_of(r#"{"errorCode":"NoSuchEntityException"}"#), Outcome::Failed);
        assert_eq!(outcome_of(r#"{"errorMessage":"Failed authentication"}"#), Outcome::Failed);
        assert_eq!(outcome_of(r#"{"responseElements":{"ConsoleLogin":"Failure"}}"#), Outcome::Failed);
        assert_eq!(outcome_of(r#"{"responseElements":{"ConsoleLogin":"Success"}}"#), Outcome::Success);
        assert_eq!(outcome_of(r#"{"errorCode":null,"errorMessage":null,"responseElements":null}"#), Outcome::Success);
    }

    #[test]
    fn the_account_is_the_first_that_is_named() {
        let account = |record: &str| facts(record.as_bytes(), None).account_id;
        let issuer = r#""sessionContext":{"sessionIssuer":{"accountId":"3"}}"#;
        let all = format!(r#"{{"recipientAccountId":"1","userIdentity":{{"accountId":"2",{issuer}}}}}"#);
        assert_eq!(account(&all).as_deref(), Some("1"));
        assert_eq!(account(&all.replace("\"1\"", "null")).as_deref(), Some("2"));
        assert_eq!(account(&format!(r#"{{"userIdentity":{{{issuer}}}}}"#)).as_deref(), Some("3"));
        assert_eq!(account(r#"{"recipientAccountId":111122223333}"#).as_deref(), Some("111122223333"));
    }

    #[test]
    fn an_insight_has_the_name_of_the_call_it_is_about() {
        let record = include_str!("../../tests/fixtures/notifications/eventbridge_insight.json");
        let record = json::get(record.as_bytes(), "detail").unwrap();
        let facts = facts(record, None);
        assert_eq!(facts.event_name.as_deref(), Some("ListUsers"));
        assert_eq!(facts.event_source.as_deref(), Some("iam.amazonaws.com"));
        assert_eq!(facts.actor, None);
    }

    #[test]
    fn facts_are_short_and_visible() {
        let record = format!(r#"{{"eventName":"a\nb\u202e","userAgent":"{}"}}"#, "x".repeat(100_000));
        let facts = facts(record.as_bytes(), None);
        assert_eq!(facts.event_name.as_deref(), Some("a\\nb\\u{202e}"));
        assert_eq!(facts.user_agent.unwrap().chars().count(), LONG);
    }

    #[test]
    fn an_item_keeps_the_record_readable_then_compressed_then_not_at_all() {
        let item = |text: String| {
            stored_item(&detected(format!(r#"{{"eventID":"1","big":"{text}"}}"#), 1), time::Duration::days(90))
        };
        let small = item("x".repeat(300 * 1024));
        assert!(matches!(small.event, StoredEvent::Json(text) if text.len() > 300 * 1024));
        assert_eq!(small.expires_at, datetime!(2024-07-30 12:05 UTC));

        let StoredEvent::Gzip(compressed) = item("x".repeat(1024 * 1024)).event else { panic!("not compressed") };
        let mut text = String::new();
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), 1024 * 1024 + r#"{"eventID":"1","big":""}"#.len());

        assert_eq!(item(noise(1024 * 1024)).event, StoredEvent::Omitted);
    }

    #[test]
    fn an_item_knows_which_of_its_rules_are_only_recorded() {
        let rule = |id, severity, mode| Arc::new(RuleInfo { mode, ..RuleInfo::new(id, severity, "") });
        let mut event = detected(r#"{"eventID":"1"}"#.to_owned(), 0);
        event.rules =
            vec![rule("on-trial", Severity::Critical, Mode::Shadow), rule("alerting", Severity::Low, Mode::Alert)];
        let item = stored_item(&event, time::Duration::days(1));
        assert_eq!(item.rules.keys().collect::<Vec<_>>(), ["alerting", "on-trial"]);
        assert_eq!(item.recorded_only, ["on-trial".to_owned()].into());
        assert_eq!(item.alerting(), ["alerting".to_owned()].into());
        assert_eq!(item.severity(), Severity::Critical, "of all rules that matched");
    }

    #[test]
    fn many_rules_leave_less_room_for_the_record() {
        let record = format!(r#"{{"eventID":"1","big":"{}"}}"#, noise(340 * 1024));
        let stored = |rules| stored_item(&detected(record.clone(), rules), time::Duration::days(1)).event;
        assert!(matches!(stored(1), StoredEvent::Json(_)));
        assert!(matches!(stored(1500), StoredEvent::Gzip(_)));
        assert_eq!(stored(5000), StoredEvent::Omitted);
    }

    proptest! {
        #[test]
        fn any_record_has_a_key_that_dynamodb_takes(raw in any::<Vec<u8>>(), id in any::<String>(), at in any::<String>()) {
            let record = serde_json::json!({ "eventID": id, "eventTime": at }).to_string();
            for raw in [raw.as_slice(), record.as_bytes()] {
                let (key, _) = key_and_time(raw);
                prop_assert!((1..=MAX_EVENT_ID_BYTES).contains(&key.event_id.len()));
                prop_assert!(!key.event_id.starts_with(RESERVED_PREFIX));
                prop_assert!(key.timestamp.ends_with('Z'));
            }
        }
    }
}
