//! What a message body says. Recognised by structure, never by where it came from.

mod key;
mod usual;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::key::classify;
use crate::alert::shown;

/// How many SNS envelopes may stand around a message: S3 to one topic is one, a topic that feeds a topic is two.
pub const MAX_ENVELOPES: usize = 4;

/// S3's limit for a key, in bytes. Buckets' names and version ids are no longer, and what is would only fill the log.
const MAX_NAME_BYTES: usize = 1024;

/// At most this many problems are kept for one message, and their number beyond.
const MAX_PROBLEMS: usize = 16;

/// The work that one message names. A message may hold several kinds at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notification {
    /// Log objects to read, in the order of the message, each once.
    pub objects: Vec<ObjectRef>,
    /// Records in the message itself.
    pub records: Vec<InlineRecord>,
    /// Parts that are not for us: acknowledged and counted.
    pub ignored: Vec<Ignored>,
    /// Parts that nobody can read: they keep the message on its way to the dead-letter queue.
    pub problems: Vec<NotificationError>,
}

/// An object that a message names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    pub bucket: String,
    /// Decoded, as S3 stores it; for EventBridge as it stood in the message.
    pub key: String,
    /// EventBridge only: the decoded key, where it differs, to be tried if `key` is not found.
    pub fallback_key: Option<String>,
    pub version_id: Option<String>,
    /// In bytes, as announced; unknown is not zero.
    pub size: Option<u64>,
    pub region: Option<String>,
    /// When the object was created, as the notification tells it.
    pub created_at: Option<OffsetDateTime>,
    pub kind: LogKind,
}

/// Which log an object holds, by the tail of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    CloudTrail,
    Insight,
}

/// A CloudTrail record that travelled in the message: EventBridge's `detail`, as its bytes stood there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineRecord {
    pub raw: Bytes,
    pub region: Option<String>,
}

/// Why a part of a message is acknowledged without being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    S3TestEvent,
    /// An S3 event that is not `ObjectCreated:*`.
    OtherS3Event,
    CloudTrailValidation,
    SnsSubscription,
    /// A digest file of CloudTrail's integrity chain.
    Digest,
    /// An object that is not a CloudTrail log.
    OtherObject,
    /// A key that ends in `/`.
    Folder,
}

impl Ignored {
    pub const ALL: [Self; 7] = [
        Self::S3TestEvent,
        Self::OtherS3Event,
        Self::CloudTrailValidation,
        Self::SnsSubscription,
        Self::Digest,
        Self::OtherObject,
        Self::Folder,
    ];

    /// The value of the metrics label `reason`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::S3TestEvent => "s3_test_event",
            Self::OtherS3Event => "other_s3_event",
            Self::CloudTrailValidation => "cloudtrail_validation",
            Self::SnsSubscription => "sns_subscription",
            Self::Digest => "digest",
            Self::OtherObject => "other_object",
            Self::Folder => "folder",
        }
    }
}

/// Why a message, or a part of it, can never be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body is JSON of no known shape: {0}")]
    UnknownShape(String),
    #[error("SNS envelopes are nested more than {0} deep")]
    TooDeep(usize),
    #[error("record {index} of the notification: {detail}")]
    BadRecord { index: usize, detail: String },
}

/// Reads a message body. Never fails as a whole: what cannot be read is in `problems`. `docs/messages.md` has the
/// shapes.
#[must_use]
pub fn parse(body: &str) -> Notification {
    let mut reader = Reader::default();
    reader.text(body, 0);
    if reader.problems_beyond > 0 {
        let more = format!("{} more parts of the message", reader.problems_beyond);
        reader.found.problems.push(NotificationError::UnknownShape(more));
    }
    reader.found
}

/// The members of a JSON object, unread; the last of duplicate names wins.
type Members<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Default)]
struct Reader {
    found: Notification,
    /// Bucket, key and version of each object found.
    seen: HashSet<(String, String, Option<String>)>,
    problems_beyond: usize,
}

impl Reader {
    /// A whole body, or the message inside `depth` SNS envelopes.
    fn text(&mut self, text: &str, depth: usize) {
        let text = text.trim_start_matches('\u{feff}').trim();
        match usual::read(text) {
            Some(objects) => {
                for (index, object) in objects.into_iter().enumerate() {
                    self.object_ref(index, object);
                }
            }
            None => self.any_shape(text, depth),
        }
    }

    fn any_shape(&mut self, text: &str, depth: usize) {
        if is_validation_message(text) {
            self.found.ignored.push(Ignored::CloudTrailValidation);
            return;
        }
        match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => self.value(value, depth),
            // A syntax error tells a position and an expectation, never the text.
            Err(error) => self.problem(NotificationError::NotJson(within(depth, &error.to_string()))),
        }
    }

    fn value(&mut self, value: &RawValue, depth: usize) {
        if let Some(object) = members(value) {
            return self.object(&object, depth);
        }
        if let Some(text) = string(value) {
            return if is_validation_message(text.trim()) {
                self.found.ignored.push(Ignored::CloudTrailValidation);
            } else {
                self.unknown(depth, "a string");
            };
        }
        // EventBridge Pipes send batches as an array.
        match elements(value) {
            Some(parts) if parts.is_empty() => self.unknown(depth, "an empty array"),
            Some(parts) => {
                for part in parts {
                    match members(part) {
                        Some(object) => self.object(&object, depth),
                        None => self.unknown(depth, "an array of something else than objects"),
                    }
                }
            }
            None => self.unknown(depth, "neither an object nor an array, or with names that are no text"),
        }
    }

    fn object(&mut self, object: &Members<'_>, depth: usize) {
        let text = |name: &str| object.get(name).and_then(|value| string(value));
        match text("Type").as_deref() {
            Some("Notification") => return self.envelope(object, depth),
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => {
                return self.found.ignored.push(Ignored::SnsSubscription);
            }
            _ => {}
        }
        if text("Event").as_deref() == Some("s3:TestEvent") {
            self.found.ignored.push(Ignored::S3TestEvent);
        } else if let Some(records) = object.get("Records").and_then(|value| elements(value)) {
            self.s3_records(&records, depth);
        } else if object.contains_key("s3Bucket") && object.contains_key("s3ObjectKey") {
            self.cloudtrail_message(object);
        } else if let (Some(detail_type), Some(source)) = (text("detail-type"), text("source")) {
            self.event_bridge(object, &detail_type, &source, depth);
        } else {
            self.unknown(depth, &names(object));
        }
    }

    fn envelope(&mut self, envelope: &Members<'_>, depth: usize) {
        if depth == MAX_ENVELOPES {
            return self.problem(NotificationError::TooDeep(MAX_ENVELOPES));
        }
        match envelope.get("Message").and_then(|value| string(value)) {
            Some(message) => self.text(&message, depth + 1),
            None => self.unknown(depth, "an SNS envelope without a \"Message\" string"),
        }
    }

    fn s3_records(&mut self, records: &[&RawValue], depth: usize) {
        if records.is_empty() {
            return self.unknown(depth, "an empty list of \"Records\"");
        }
        for (index, record) in records.iter().enumerate() {
            match s3_record(record) {
                Ok(Some(object)) => self.object_ref(index, object),
                Ok(None) => self.found.ignored.push(Ignored::OtherS3Event),
                Err(detail) => self.problem(NotificationError::BadRecord { index, detail }),
            }
        }
    }

    fn cloudtrail_message(&mut self, message: &Members<'_>) {
        let Some(bucket) = filled(message.get("s3Bucket")) else {
            return self.bad(0, "\"s3Bucket\" is not a bucket's name");
        };
        let Some(keys) = message.get("s3ObjectKey") else { return };
        let keys = elements(keys).unwrap_or_else(|| vec![keys]);
        if keys.is_empty() {
            return self.bad(0, "\"s3ObjectKey\" is an empty list");
        }
        for (index, key) in keys.into_iter().enumerate() {
            match filled(Some(&key)) {
                Some(key) => self.object_ref(index, Found { bucket: bucket.clone(), key, ..Found::default() }),
                None => self.bad(index, "an element of \"s3ObjectKey\" is not a key"),
            }
        }
    }

    fn event_bridge(&mut self, event: &Members<'_>, detail_type: &str, source: &str, depth: usize) {
        let region = filled(event.get("region"));
        let detail = event.get("detail").copied();
        let detail_is_record = detail.is_some_and(is_record);
        // S3's own API calls come from `aws.s3` too: the detail type decides, or a detail that is plainly a record.
        if detail_type.ends_with(" via CloudTrail") || detail_is_record {
            match detail.filter(|detail| detail.get().starts_with('{')) {
                Some(detail) => {
                    let raw = Bytes::copy_from_slice(detail.get().as_bytes());
                    self.found.records.push(InlineRecord { raw, region });
                }
                None => self.bad(0, "the \"detail\" of the EventBridge event is not a CloudTrail record"),
            }
        } else if source != "aws.s3" {
            let seen = format!("an EventBridge event {} from {}", quoted(detail_type), quoted(source));
            self.unknown(depth, &seen);
        } else if detail_type != "Object Created" {
            self.found.ignored.push(Ignored::OtherS3Event);
        } else {
            match event_bridge_object(detail, region, time(event.get("time"))) {
                Ok(object) => self.object_ref(0, object),
                Err(detail) => self.bad(0, detail),
            }
        }
    }

    fn object_ref(&mut self, index: usize, found: Found) {
        let Found { bucket, key, fallback_key, version_id, size, region, created_at } = found;
        let recognised = match (classify(&key), &fallback_key) {
            (Err(Ignored::OtherObject), Some(decoded)) => classify(decoded),
            (recognised, _) => recognised,
        };
        let kind = match recognised {
            Ok(kind) => kind,
            Err(ignored) => return self.found.ignored.push(ignored),
        };
        let (key, fallback_key) = match fallback_key {
            Some(decoded) if key.len() > MAX_NAME_BYTES => (decoded, None),
            fallback_key => (key, fallback_key),
        };
        if [Some(&bucket), Some(&key), version_id.as_ref()]
            .into_iter()
            .flatten()
            .any(|name| name.len() > MAX_NAME_BYTES)
        {
            return self.bad(index, "a bucket, key or version longer than S3 has any");
        }
        if self.seen.insert((bucket.clone(), key.clone(), version_id.clone())) {
            let object = ObjectRef { bucket, key, fallback_key, version_id, size, region, created_at, kind };
            self.found.objects.push(object);
        }
    }

    fn unknown(&mut self, depth: usize, seen: &str) {
        self.problem(NotificationError::UnknownShape(within(depth, seen)));
    }

    fn bad(&mut self, index: usize, detail: &str) {
        self.problem(NotificationError::BadRecord { index, detail: detail.to_owned() });
    }

    fn problem(&mut self, problem: NotificationError) {
        if self.found.problems.len() < MAX_PROBLEMS {
            self.found.problems.push(problem);
        } else {
            self.problems_beyond += 1;
        }
    }
}

/// An object before its key is judged.
#[derive(Default)]
struct Found {
    bucket: String,
    key: String,
    fallback_key: Option<String>,
    version_id: Option<String>,
    size: Option<u64>,
    region: Option<String>,
    created_at: Option<OffsetDateTime>,
}

/// `Ok(None)` is an S3 event of another kind. Format: the
/// [event message structure](https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
fn s3_record(record: &RawValue) -> Result<Option<Found>, String> {
    let record = members(record).ok_or("not an object")?;
    let s3 = record.get("s3").and_then(|value| members(value));
    let from_s3 = filled(record.get("eventSource")).is_some_and(|source| source == "aws:s3");
    if s3.is_none() && !from_s3 {
        return Err(format!("not an S3 event: {}", names(&record)));
    }
    let name = filled(record.get("eventName")).ok_or("no \"eventName\"")?;
    if !name.strip_prefix("s3:").unwrap_or(&name).starts_with("ObjectCreated:") {
        return Ok(None);
    }
    let s3 = s3.ok_or("no \"s3\"")?;
    let object = s3.get("object").and_then(|value| members(value)).ok_or("no \"s3.object\"")?;
    let bucket = s3.get("bucket").and_then(|value| members(value)).ok_or("no \"s3.bucket\"")?;
    Ok(Some(Found {
        bucket: filled(bucket.get("name")).ok_or("no \"s3.bucket.name\"")?,
        key: key::decode(&filled(object.get("key")).ok_or("no \"s3.object.key\"")?),
        fallback_key: None,
        version_id: filled(object.get("versionId")),
        size: size(object.get("size")),
        region: filled(record.get("awsRegion")),
        created_at: time(record.get("eventTime")),
    }))
}

/// Format: the
/// [EventBridge event message structure](https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html).
fn event_bridge_object(
    detail: Option<&RawValue>,
    region: Option<String>,
    created_at: Option<OffsetDateTime>,
) -> Result<Found, &'static str> {
    let detail = detail.and_then(members).ok_or("no \"detail\"")?;
    let object = detail.get("object").and_then(|value| members(value)).ok_or("no \"detail.object\"")?;
    let bucket = detail.get("bucket").and_then(|value| members(value)).ok_or("no \"detail.bucket\"")?;
    let key = filled(object.get("key")).ok_or("no \"detail.object.key\"")?;
    let decoded = key::decode(&key);
    Ok(Found {
        bucket: filled(bucket.get("name")).ok_or("no \"detail.bucket.name\"")?,
        fallback_key: (decoded != key).then_some(decoded),
        key,
        version_id: filled(object.get("version-id")),
        size: size(object.get("size")),
        region,
        created_at,
    })
}

/// Whether this has the fields that CloudTrail gives every record of a call.
fn is_record(detail: &RawValue) -> bool {
    let has = |fields: &Members<'_>, name: &str| filled(fields.get(name)).is_some();
    members(detail).is_some_and(|fields| {
        ["eventVersion", "eventSource", "eventName", "eventTime"].iter().all(|name| has(&fields, name))
    })
}

/// What CloudTrail publishes when a topic is set on a trail.
fn is_validation_message(text: &str) -> bool {
    text == "CloudTrail validation message."
}

fn members(value: &RawValue) -> Option<Members<'_>> {
    value.get().starts_with('{').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    value.get().starts_with('[').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

fn string(value: &RawValue) -> Option<String> {
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

/// A string that is not empty.
fn filled(value: Option<&&RawValue>) -> Option<String> {
    value.and_then(|value| string(value)).filter(|text| !text.is_empty())
}

/// A number, or a string that holds one.
fn size(value: Option<&&RawValue>) -> Option<u64> {
    value.and_then(|value| value.get().trim_matches('"').parse().ok())
}

fn time(value: Option<&&RawValue>) -> Option<OffsetDateTime> {
    filled(value).and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok())
}

fn within(depth: usize, detail: &str) -> String {
    match depth {
        0 => detail.to_owned(),
        _ => format!("in the \"Message\" of an SNS envelope: {detail}"),
    }
}

/// The names of an object's first members, as a log may show them.
fn names(object: &Members<'_>) -> String {
    const SHOWN: usize = 12;
    if object.is_empty() {
        return "an object without members".to_owned();
    }
    let first: Vec<String> = object.keys().take(SHOWN).map(|name| quoted(name)).collect();
    let more = match object.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("an object with {}{more}", first.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text, 64))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn fixture(name: &str) -> String {
        std::fs::read_to_string(format!("{}/tests/fixtures/notifications/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn summary(name: &str) -> String {
        told(&parse(&fixture(name)))
    }

    /// What a message means, a line for each part.
    fn told(notification: &Notification) -> String {
        let mut text = String::new();
        for object in &notification.objects {
            let ObjectRef { bucket, key, fallback_key, version_id, size, region, created_at, kind } = object;
            writeln!(text, "{kind:?} s3://{bucket}/{key}").unwrap();
            if let Some(key) = fallback_key {
                writeln!(text, "  or {key}").unwrap();
            }
            let at = created_at.map(|time| time.format(&Rfc3339).unwrap());
            let (version, region) = (version_id.as_deref().unwrap_or("-"), region.as_deref().unwrap_or("-"));
            writeln!(text, "  version {version}, size {size:?}, {region}, {}", at.as_deref().unwrap_or("-")).unwrap();
        }
        for record in &notification.records {
            let value: Value = serde_json::from_slice(&record.raw).unwrap();
            writeln!(text, "record {} in {:?}", value["eventID"], record.region).unwrap();
        }
        for ignored in &notification.ignored {
            writeln!(text, "ignored {}", ignored.reason()).unwrap();
        }
        for problem in &notification.problems {
            writeln!(text, "problem: {problem}").unwrap();
        }
        text
    }

    fn envelope(message: &str) -> String {
        json!({ "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:eu-west-1:111122223333:t", "Message": message })
            .to_string()
    }

    #[test]
    fn an_s3_notification_names_an_object() {
        insta::assert_snapshot!(summary("s3_put.json"), @r"
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE, size Some(4211), eu-west-1, 2024-05-01T12:07:31.482Z
        ");
    }

    #[test]
    fn every_record_of_a_notification_counts_and_a_bad_one_costs_only_itself() {
        insta::assert_snapshot!(summary("s3_many.json"), @r#"
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version -, size Some(4211), eu-west-1, 2024-05-01T12:07:31.482Z
        CloudTrail s3://example-trail-logs/audit logs/café+1/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1210Z_Ab3De6Gh9Jk2Mn5P.json.gz
          version -, size Some(20971520), eu-west-1, 2024-05-01T12:07:31.482Z
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1215Z_Tt7Vv0Xx3Zz6Bb9D.json.gz
          version -, size Some(4211), eu-west-1, 2024-05-01T12:07:31.482Z
        Insight s3://example-trail-logs/AWSLogs/111122223333/CloudTrail-Insight/eu-west-1/2024/05/01/111122223333_CloudTrail-Insight_eu-west-1_20240501T1205Z_Ii1Jj2Kk3Ll4Mm5N.json.gz
          version -, size Some(4211), eu-west-1, 2024-05-01T12:07:31.482Z
        ignored other_s3_event
        ignored digest
        ignored folder
        ignored other_object
        problem: record 9 of the notification: no "s3.object"
        "#);
    }

    #[test]
    fn other_s3_events_are_ignored() {
        for name in ["s3_removed.json", "s3_restored.json", "eventbridge_object_deleted.json"] {
            assert_eq!(summary(name), "ignored other_s3_event\n", "{name}");
        }
    }

    #[test]
    fn an_envelope_changes_nothing() {
        assert_eq!(parse(&fixture("sns_s3_put.json")), parse(&fixture("s3_put.json")));
        assert_eq!(parse(&fixture("sns_in_sns_s3_put.json")), parse(&fixture("s3_put.json")));
        assert_eq!(parse(&fixture("cloudtrail_sns.json")), parse(&fixture("cloudtrail_raw_delivery.json")));
        assert_eq!(summary("sns_eventbridge_api_call.json"), summary("eventbridge_api_call.json"));
    }

    #[test]
    fn messages_without_work_are_ignored() {
        for (name, reason) in [
            ("s3_test_event.json", "s3_test_event"),
            ("sns_s3_test_event.json", "s3_test_event"),
            ("cloudtrail_validation.txt", "cloudtrail_validation"),
            ("sns_cloudtrail_validation.json", "cloudtrail_validation"),
            ("sns_subscription_confirmation.json", "sns_subscription"),
            ("sns_unsubscribe_confirmation.json", "sns_subscription"),
        ] {
            assert_eq!(summary(name), format!("ignored {reason}\n"), "{name}");
        }
        for body in ["\"CloudTrail validation message.\"", "  CloudTrail validation message.\r\n"] {
            assert_eq!(told(&parse(body)), "ignored cloudtrail_validation\n");
            assert_eq!(told(&parse(&envelope(body))), "ignored cloudtrail_validation\n");
        }
    }

    #[test]
    fn cloudtrails_own_message_names_several_objects_each_once() {
        insta::assert_snapshot!(summary("cloudtrail_sns.json"), @r"
        CloudTrail s3://example-trail-logs/a+b%20c/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version -, size None, -, -
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Rr5Ss6Tt7Uu8Vv9W.json.gz
          version -, size None, -, -
        ");
        insta::assert_snapshot!(summary("cloudtrail_organization.json"), @r"
        CloudTrail s3://example-org-logs/AWSLogs/o-exampleorg1/444455556666/CloudTrail/eu-west-1/2024/05/01/444455556666_CloudTrail_eu-west-1_20240501T1205Z_Oo1Pp2Qq3Rr4Ss5T.json.gz
          version -, size None, -, -
        ");
        insta::assert_snapshot!(summary("cloudtrail_one_key.json"), @r"
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version -, size None, -, -
        ");
    }

    #[test]
    fn eventbridge_keys_are_used_as_they_stand_and_decoded_as_a_fallback() {
        insta::assert_snapshot!(summary("eventbridge_object_created.json"), @r"
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE, size Some(4211), eu-west-1, 2024-05-01T12:07:31Z
        ");
        insta::assert_snapshot!(summary("eventbridge_object_created_encoded.json"), @r"
        CloudTrail s3://example-trail-logs/audit+logs%2FAWSLogs%2F111122223333%2FCloudTrail%2Feu-west-1%2F2024%2F05%2F01%2F111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          or audit logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE, size Some(4211), eu-west-1, 2024-05-01T12:07:31Z
        ");
    }

    #[test]
    fn records_travel_in_eventbridge_events() {
        for name in [
            "eventbridge_api_call.json",
            "eventbridge_console_sign_in.json",
            "eventbridge_service_event.json",
            "eventbridge_insight.json",
        ] {
            let notification = parse(&fixture(name));
            assert_eq!(notification.records.len(), 1, "{name}");
            let expected = Notification { records: notification.records.clone(), ..Notification::default() };
            assert_eq!(notification, expected, "{name}");
        }
        insta::assert_snapshot!(summary("eventbridge_batch.json"), @r#"
        CloudTrail s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz
          version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE, size Some(4211), eu-west-1, 2024-05-01T12:07:31Z
        record "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91" in Some("us-east-1")
        "#);
    }

    #[test]
    fn a_detail_that_is_plainly_a_record_is_one_whatever_its_type_says() {
        let detail = r#"{"eventVersion":"1.11","eventSource":"iam.amazonaws.com","eventName":"CreateUser","eventTime":"2024-05-01T12:00:00Z"}"#;
        let body = format!(r#"{{"detail-type":"Forwarded","source":"custom.security","detail":{detail}}}"#);
        assert_eq!(parse(&body).records.len(), 1);
        let other = body.replace("eventName", "name");
        assert!(parse(&other).records.is_empty());
    }

    #[test]
    fn an_inline_record_keeps_its_bytes() {
        let detail = r#"{ "eventID" : "1",  "n": 1.50e3, "eventID":"2", "odd": "\ud800", "source": "x" }"#;
        let body = format!(
            r#"{{"detail-type":"AWS API Call via CloudTrail","source":"aws.s3","region":7,"detail": {detail} }}"#
        );
        let found = parse(&body);
        assert_eq!(found.records, [InlineRecord { raw: Bytes::copy_from_slice(detail.as_bytes()), region: None }]);
        assert_eq!(parse(&envelope(&body)), found);
    }

    #[test]
    fn unknown_bodies_say_what_was_seen_and_not_what_they_hold() {
        let seen = |body: &str| told(&parse(body));
        insta::assert_snapshot!(summary("eventbridge_other.json"), @r#"problem: the body is JSON of no known shape: an EventBridge event "ECR Image Scan" from "aws.ecr""#);
        insta::assert_snapshot!(seen(r#"{"user\n\u202ename":"secret","password":"hunter2"}"#), @r#"problem: the body is JSON of no known shape: an object with "password", "user\n\u{202e}name""#);
        insta::assert_snapshot!(seen(&envelope(r#"{"password":"hunter2"}"#)), @r#"problem: the body is JSON of no known shape: in the "Message" of an SNS envelope: an object with "password""#);
        insta::assert_snapshot!(seen(&envelope("hello")), @r#"problem: the body is not JSON: in the "Message" of an SNS envelope: expected value at line 1 column 1"#);
        insta::assert_snapshot!(seen(r#"{"Type":"Notification","Messagess":"{}"}"#), @r#"problem: the body is JSON of no known shape: an SNS envelope without a "Message" string"#);
        insta::assert_snapshot!(seen(""), @"problem: the body is not JSON: EOF while parsing a value at line 1 column 0");
        insta::assert_snapshot!(seen("{\"Records\":[{\"s3\""), @"problem: the body is not JSON: EOF while parsing an object at line 1 column 17");
        insta::assert_snapshot!(seen("[]"), @"problem: the body is JSON of no known shape: an empty array");
        insta::assert_snapshot!(seen("[1,{}]"), @r"
        problem: the body is JSON of no known shape: an array of something else than objects
        problem: the body is JSON of no known shape: an object without members
        ");
        insta::assert_snapshot!(seen("17"), @"problem: the body is JSON of no known shape: neither an object nor an array, or with names that are no text");
        insta::assert_snapshot!(seen("\"hunter2\""), @"problem: the body is JSON of no known shape: a string");
        insta::assert_snapshot!(seen(r#"{"Records":[]}"#), @r#"problem: the body is JSON of no known shape: an empty list of "Records""#);
        insta::assert_snapshot!(seen(r#"{"Records":[{"eventName":"ConsoleLogin","eventSource":"signin.amazonaws.com"}]}"#), @r#"problem: record 0 of the notification: not an S3 event: an object with "eventName", "eventSource""#);
        insta::assert_snapshot!(seen(r#"{"s3Bucket":"b","s3ObjectKey":["",7]}"#), @r#"
        problem: record 0 of the notification: an element of "s3ObjectKey" is not a key
        problem: record 1 of the notification: an element of "s3ObjectKey" is not a key
        "#);
        insta::assert_snapshot!(seen(r#"{"detail-type":"AWS API Call via CloudTrail","source":"aws.iam","detail":null}"#), @r#"problem: record 0 of the notification: the "detail" of the EventBridge event is not a CloudTrail record"#);
        insta::assert_snapshot!(seen(r#"{"detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"b"}}}"#), @r#"problem: record 0 of the notification: no "detail.object""#);
    }

    #[test]
    fn names_longer_than_s3_has_any_are_problems() {
        let tail = "/111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz";
        let key = |length: usize| format!("{}{tail}", "k".repeat(length - tail.len()));
        let cloudtrail = |bucket: &str, key: &str| json!({ "s3Bucket": bucket, "s3ObjectKey": ["b.json.gz", key] });
        let s3 = |key: &str, version: &str| {
            json!({ "Records": [{ "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                "s3": { "bucket": { "name": "b" }, "object": { "key": key, "versionId": version } } }] })
        };
        let event_bridge = |key: &str| {
            json!({ "detail-type": "Object Created", "source": "aws.s3",
                "detail": { "bucket": { "name": "b" }, "object": { "key": key } } })
        };
        for body in [cloudtrail("b", &key(1024)), s3(&key(1024).replace('k', "%6B"), "v"), event_bridge(&key(1024))] {
            let found = parse(&body.to_string());
            assert_eq!((found.objects.len(), found.problems.len()), (1, 0), "{body}");
        }
        for (index, body) in [
            (1, cloudtrail("b", &key(1025))),
            (1, cloudtrail(&"b".repeat(70_000), &key(100))),
            (0, s3(&key(1025), "v")),
            (0, s3(&key(100), &"v".repeat(1025))),
            (0, event_bridge(&key(1025))),
        ] {
            let found = parse(&body.to_string());
            let detail = "a bucket, key or version longer than S3 has any".to_owned();
            assert_eq!(found.problems, [NotificationError::BadRecord { index, detail }]);
            assert_eq!(found.objects, []);
        }
        // A key that is too long only because it is encoded can only be meant decoded.
        let encoded = parse(&event_bridge(&key(1000).replace('k', "%6B")).to_string());
        assert_eq!((&encoded.objects[0].key, &encoded.objects[0].fallback_key), (&key(1000), &None));
    }

    #[test]
    fn envelopes_nest_to_a_bound() {
        let mut body = fixture("s3_put.json");
        for _ in 0..MAX_ENVELOPES {
            body = envelope(&body);
        }
        assert_eq!(parse(&body), parse(&fixture("s3_put.json")));
        assert_eq!(parse(&envelope(&body)).problems, [NotificationError::TooDeep(MAX_ENVELOPES)]);
    }

    #[test]
    fn a_body_full_of_rubbish_has_few_problems() {
        let body = format!("[{}]", vec!["{}"; 1000].join(","));
        let problems = parse(&body).problems;
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        insta::assert_snapshot!(problems.last().unwrap(), @"the body is JSON of no known shape: 984 more parts of the message");

        let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(parse(&deep).problems.len(), 1);
        let wide = format!("{{{}}}", (0..50_000).map(|i| format!("\"k{i}\":{i}")).collect::<Vec<_>>().join(","));
        assert!(parse(&wide).problems[0].to_string().len() < 400);
    }

    proptest! {
        #[test]
        fn no_text_panics(body in any::<String>()) {
            let _ = parse(&body);
        }

        #[test]
        fn the_usual_shape_read_in_one_pass_says_what_the_general_way_says(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<prop::sample::Index>()), 0..3),
            escaped in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut body = fixture("s3_put.json");
            prop_assert!(usual::read(&body).is_some());
            for (at, of_value, change) in changes {
                let values = ["null", "[]", "{}", "7", "-0", "1.5", "\"\"", "\"x\"", "[\"b\"]", "{\"key\":\"k\",\"key\":\"l\"}"];
                let names = ["\"key\"", "\"name\"", "\"Type\"", "\"Event\"", "\"s3\"", "\"size\"", "\"versionId\"", "\"\\ud800\""];
                // One of its values, or of its names, becomes another one.
                let colons: Vec<_> = body.match_indices("\":").map(|(at, _)| at).collect();
                if colons.is_empty() {
                    break;
                }
                let colon = colons[at.index(colons.len())];
                if of_value {
                    let start = colon + 2;
                    let mut values_after = serde_json::Deserializer::from_str(body.get(start..).unwrap()).into_iter::<&RawValue>();
                    let length = values_after.next().unwrap().unwrap().get().len();
                    body.replace_range(start..start + length, values[change.index(values.len())]);
                } else {
                    let start = body.get(..colon).unwrap().rfind('"').unwrap();
                    body.replace_range(start..=colon, names[change.index(names.len())]);
                }
            }
            let letters: Vec<_> = body.match_indices("\"k").map(|(at, _)| at + 1).collect();
            if let Some(escaped) = escaped.filter(|_| !letters.is_empty()) {
                let at = letters[escaped.index(letters.len())];
                body.replace_range(at..=at, "\\u006b");
            }
            let mut general = Reader::default();
            general.any_shape(body.trim(), 0);
            prop_assert_eq!(parse(&body), general.found, "{}", body);
        }

        #[test]
        fn no_damaged_message_panics(
            which in prop::sample::select(vec!["s3_many.json", "cloudtrail_sns.json", "eventbridge_batch.json"]),
            at in any::<prop::sample::Index>(),
            put in "[\\[\\]{}\",:a0 ]{0,3}",
        ) {
            let mut chars: Vec<char> = fixture(which).chars().collect();
            let at = at.index(chars.len());
            chars.splice(at..=at, put.chars());
            let found = parse(&chars.into_iter().collect::<String>());
            prop_assert!(found.problems.len() <= MAX_PROBLEMS + 1);
        }
    }
}
