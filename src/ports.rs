//! The ports: what the data path asks of a queue, an object store, a publisher and a table.
//!
//! Common to all of them:
//!
//! - `Ok` means that the other side confirmed it. `Err` never proves that nothing happened: an answer can be lost, so
//!   every operation is safe to repeat.
//! - The caller owns the deadline and may drop the future at any await point, which counts as a lost answer. The one
//!   exception is [`MessageQueue::receive`].
//! - An adapter does not retry. It classifies the error once, where it enters ([`ErrorClass`]).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;

use crate::alert::{EventKey, Outbound, StoredItem};
use crate::claim::{Claim, ClaimToken, Mark, Recorded};
use crate::deliver::Delivered;
use crate::tracker::{CrossAttempt, Crossed, TrackerId};

/// The outside of the data path.
#[derive(Clone)]
pub struct Ports {
    pub queue: Arc<dyn MessageQueue>,
    pub objects: Arc<dyn ObjectStore>,
    pub publisher: Arc<dyn AlertPublisher>,
    pub store: Arc<dyn AlertStore>,
}

/// What an error means for the message in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It may work later: throttling, 5xx, time-outs, broken connections, truncated bodies.
    Transient,
    /// This input can never work.
    Permanent,
    /// This process cannot work as it is configured: denied, no such queue, table or topic, credentials expired.
    Config,
}

/// What went wrong, as far as the data path makes a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Throttled, 5xx, timed out, connection refused or broken.
    Unavailable,
    /// The body ended before its announced length.
    Truncated,
    /// An IAM action is missing, named as `service:Action`.
    Denied { action: &'static str },
    /// KMS refused to decrypt or encrypt; the missing action is `kms:Decrypt` or `kms:GenerateDataKey`.
    KmsDenied { action: &'static str },
    /// The key, bucket, queue, topic or table does not exist.
    Missing,
    /// The object changed since its first byte was read (`If-Match` failed).
    Changed,
    /// The receipt handle is no longer valid, or the message is no longer in flight.
    LeaseLost,
    /// Credentials are absent, expired or refused.
    Credentials,
    /// Others wrote to the same items at the same time.
    Contended,
    /// The service refuses the request's content.
    Invalid,
}

/// An error of a port, classified where it entered.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {detail}")]
pub struct PortError {
    pub class: ErrorClass,
    pub fault: Fault,
    /// `service:Operation`, such as `sqs:ReceiveMessage`.
    pub operation: &'static str,
    /// What the service said, with its code, and what to do; never a body or a credential.
    pub detail: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl PortError {
    /// The call did not end within the caller's deadline.
    #[must_use]
    pub fn timed_out(operation: &'static str, after: Duration) -> Self {
        Self {
            class: ErrorClass::Transient,
            fault: Fault::Unavailable,
            operation,
            detail: format!("no answer within {after:?}"),
            source: None,
        }
    }
}

/// Names one receive of one message; a later receive of the same message has another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever holds a receipt handle can delete the message: it stays out of the logs.
        f.write_str("Receipt(..)")
    }
}

/// A message as it was received.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    pub message_id: String,
    pub receipt: Receipt,
    pub body: String,
    /// How often this message was received, this time included; at least 1.
    pub receive_count: u32,
    /// When it was sent to the queue; `None` where the queue does not tell.
    pub sent_at: Option<OffsetDateTime>,
}

/// What the queue says of itself. Counts are approximate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAttributes {
    pub visibility_timeout: Duration,
    pub visible: u64,
    pub in_flight: u64,
    pub delayed: u64,
    /// After how many receives a message moves to the dead-letter queue; `None` without a redrive policy.
    pub max_receive_count: Option<u32>,
}

/// A queue that delivers at least once, in any order.
#[async_trait]
pub trait MessageQueue: Send + Sync + 'static {
    /// The queue's attributes. Also the reachability check.
    async fn attributes(&self) -> Result<QueueAttributes, PortError>;

    /// Waits up to `wait` for up to `max` (1 to 10) messages, invisible to others for `visibility` from now on.
    ///
    /// Not cancel-safe: a dropped call may have received messages that nobody holds. Never drop it; the adapter ends
    /// it by itself some seconds after `wait`.
    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<ReceivedMessage>, PortError>;

    /// Makes the message invisible for `visibility` (rounded up to whole seconds) from now on; zero gives it back
    /// at once.
    /// [`Fault::LeaseLost`] when the receipt is no longer valid.
    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), PortError>;

    /// Deletes up to ten delivered messages. The outer error is the call's; an inner one is that entry's, in the order
    /// of the entries. Deleting what is already gone is `Ok`.
    async fn delete(&self, delivered: &[Delivered]) -> Result<Vec<Result<(), PortError>>, PortError>;
}

/// Which bytes of which object to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRequest {
    pub bucket: String,
    /// The key as S3 stores it: decoded.
    pub key: String,
    pub version_id: Option<String>,
    /// The bucket's region, where the notification told it.
    pub region: Option<String>,
    /// The offset of the first byte wanted.
    pub start: u64,
    /// The entity tag of the bytes already read: with it, another object in its place is [`Fault::Changed`].
    pub if_match: Option<String>,
}

/// The open body of an object.
pub struct ObjectBody {
    pub etag: Option<String>,
    /// How many bytes the answer announced, from `start` on.
    pub length: Option<u64>,
    pub chunks: Box<dyn ObjectChunks>,
}

/// The bytes of a body, in order.
#[async_trait]
pub trait ObjectChunks: Send {
    /// The next bytes, never empty; `None` at the end. An end before the announced length is [`Fault::Truncated`].
    async fn next(&mut self) -> Result<Option<Bytes>, PortError>;
}

/// Where log objects are read.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// Opens an object's body. A missing key and a denial are [`ErrorClass::Permanent`]: that object's own fault, as
    /// far as one call can tell.
    async fn open(&self, request: &ObjectRequest) -> Result<ObjectBody, PortError>;

    /// Whether the service answers at all; a denial is an answer.
    async fn check(&self) -> Result<(), PortError>;
}

/// Accepts alerts.
#[async_trait]
pub trait AlertPublisher: Send + Sync + 'static {
    /// Publishes up to ten alerts of together at most [`crate::alert::PUBLISH_LIMIT`] bytes. The outer error is the
    /// call's; an inner one is that entry's, in the order of the entries. `Ok` holds the publisher's message id.
    async fn publish(&self, alerts: &[Outbound]) -> Result<Vec<Result<String, PortError>>, PortError>;

    /// Whether the topic is there and can be asked.
    async fn check(&self) -> Result<(), PortError>;
}

/// Where detected events are kept, and where it is decided who alerts for them.
#[async_trait]
pub trait AlertStore: Send + Sync + 'static {
    /// Makes sure that the event is stored, with its rules that are only recorded as settled, and tries to win the right
    /// to alert for its unsettled rules. One that is held by somebody else may be stored without the caller's rules.
    /// What has a group is counted in its tracker in the same step, if it was not before.
    ///
    /// `token` is fresh for each attempt; repeating the call with the same token after a lost answer gives the same
    /// result. `expired` is a token that the caller saw unchanged for the whole length of its claim, on its own
    /// monotonic clock: a claim that still bears it is taken over, with exactly its alert.
    ///
    /// Decides as [`crate::claim::decide`] does, atomically against every other caller.
    async fn record(
        &self,
        item: &StoredItem,
        token: &ClaimToken,
        length: Duration,
        expired: Option<&ClaimToken>,
    ) -> Result<Recorded, PortError>;

    /// Tries to win the right to tell the next step of a tracker, if it was reached. [`Crossed::Clear`] covers every event
    /// that was counted before the call.
    ///
    /// Decides as [`crate::tracker::decide_crossing`] does, atomically against every other caller. Repeating it with the same
    /// token after a lost answer gives the same step.
    async fn cross(&self, attempt: CrossAttempt<'_>) -> Result<Crossed, PortError>;

    /// Says that the alert of a tracker's step was accepted. Does nothing where that step was marked before. `Ok(true)` if
    /// no further step is due, which covers every event that was counted before the call.
    async fn mark_step(&self, tracker: &TrackerId, step: u64, mark: &Mark) -> Result<bool, PortError>;

    /// Settles rules of an event that are counted, once no step of their trackers is due. Unconditional and additive.
    async fn settle(&self, key: &EventKey, rules: &BTreeSet<String>) -> Result<(), PortError>;

    /// Replaces the token of one's own claim, on an event's alert or on a tracker's step (`key` is its item's). `Ok(false)` when somebody else took it over. A claim that already bears
    /// `fresh` is one's own (a lost answer).
    async fn renew(&self, key: &EventKey, claim: &Claim, fresh: &ClaimToken) -> Result<bool, PortError>;

    /// Says that an alert was accepted: its rules are settled. Unconditional and additive.
    async fn mark(&self, key: &EventKey, mark: &Mark) -> Result<(), PortError>;

    /// Whether the table is there and has the right keys.
    async fn check(&self) -> Result<(), PortError>;
}
