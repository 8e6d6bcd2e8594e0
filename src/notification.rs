//! What a message body says. Recognised by structure, never by where it came from.

use bytes::Bytes;
use time::OffsetDateTime;

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

/// Reads a message body. Never fails as a whole: what cannot be read is in `problems`.
#[must_use]
pub fn parse(_body: &str) -> Notification {
    Notification::default()
}
