//! Takes one message from its receipt to its settlement.

use std::time::Duration;

use tracing::Instrument;

use crate::context::Context;
use crate::deliver::{Delivery, Undelivered};
use crate::lease::Lease;
use crate::notification::{self, Notification, NotificationError};
use crate::object::{ObjectError, Reader};
use crate::ports::ReceivedMessage;
use crate::retry::Interruption;
use crate::settle::{Deleter, give_back, release};

/// Works on a message until it is deleted, given back, or no longer ours.
pub async fn work(context: &Context, deleter: &Deleter, message: ReceivedMessage, visibility: Duration) {
    let span = tracing::info_span!(
        "message",
        id = %message.message_id,
        receive_count = message.receive_count
    );
    async {
        let lease = Lease::take(context, &message, visibility);
        match attempt(context, &lease, &message).await {
            Ok(delivery) => match delivery.finish() {
                Ok(delivered) => deleter.delete(delivered, lease).await,
                Err(Undelivered::Refused(detail)) => {
                    leave(context, lease, &message, visibility, "refused", &detail).await;
                }
                Err(Undelivered::Unfinished) => {
                    leave(context, lease, &message, visibility, "bug", "not every part was read").await;
                }
            },
            Err(Unread::Left(Unreadable { first, .. })) => {
                leave(context, lease, &message, visibility, first.reason, &first.detail).await;
            }
            Err(Unread::Denied(Unreadable { first, .. })) => postpone(context, lease, &message, &first.detail).await,
            Err(Unread::Interrupted(why)) => release(context, lease, why).await,
        }
    }
    .instrument(span)
    .await;
}

/// Why a message was not read to its end.
#[derive(Debug)]
pub enum Unread {
    /// Parts of it cannot be read.
    Left(Unreadable),
    /// Parts of it cannot be read, some of them only because their bucket denies everything.
    Denied(Unreadable),
    Interrupted(Interruption),
}

/// The parts of a message that cannot be read, in its order. The first decides what becomes of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub first: Problem,
    /// At most [`MAX_TOLD`] less one.
    pub others: Vec<Problem>,
    /// How many more there are.
    pub untold: usize,
}

/// Why a part of a message cannot be read, as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As `docs/metrics.md` lists them.
    pub reason: &'static str,
    /// What is wrong, and with which object or record.
    pub detail: String,
}

/// Reads every part of a message and has it delivered. A part that cannot be read does not stop the others.
///
/// # Errors
///
/// What cannot be read, or why the work was interrupted.
pub async fn attempt(context: &Context, lease: &Lease, message: &ReceivedMessage) -> Result<Delivery, Unread> {
    let rules = context.rules.current();
    let body = message.body.clone();
    let parsed = context.env.compute.run_for(body.len(), move || notification::parse(&body)).await;
    let Notification { objects, records, ignored, problems } = parsed;
    for one in ignored {
        context.metrics.messages_ignored.with_label_values(&[one.reason()]).inc();
        tracing::debug!(reason = one.reason(), "a part of the message is not for us");
    }
    let mut unread = Problems::default();
    for problem in problems {
        unread.add(problem_reason(&problem), problem.to_string());
    }
    let mut delivery = Delivery::begin(message, objects.len() + usize::from(!records.is_empty()));
    let reader = Reader { context, lease, message_id: &message.message_id, rules: &rules };

    if !records.is_empty() {
        if context.config.source.inline_records {
            match reader.records(&records, &mut delivery).await {
                Ok(exhausted) => delivery.part_ended(exhausted),
                Err(error) => unread.add_object(error, "a record in the message")?,
            }
        } else {
            unread.add("inline_records_off", "it holds a record, and source.inline_records is off".to_owned());
        }
    }
    let allowed = &context.config.source.allowed_buckets;
    for object in &objects {
        if !allowed.is_empty() && !allowed.contains(&object.bucket) {
            let bucket = object.bucket.escape_default();
            unread.add("bucket_not_allowed", format!("bucket {bucket} is not in source.allowed_buckets"));
            continue;
        }
        match reader.object(object, &mut delivery).await {
            Ok(exhausted) => delivery.part_ended(exhausted),
            Err(error) => {
                let name = format!("s3://{}/{}", object.bucket.escape_default(), object.key.escape_default());
                unread.add_object(error, &name)?;
            }
        }
    }
    unread.tell_the_rest();
    let bucket_denied = unread.bucket_denied;
    match unread.end() {
        Some(unreadable) if bucket_denied => Err(Unread::Denied(unreadable)),
        Some(unreadable) => Err(Unread::Left(unreadable)),
        None => Ok(delivery),
    }
}

/// At most this many parts of a message that cannot be read are told each in a line of its own.
const MAX_TOLD: usize = 16;

/// What could not be read of a message so far.
#[derive(Default)]
struct Problems {
    /// At most [`MAX_TOLD`].
    told: Vec<Problem>,
    count: usize,
    /// Some of it only because its bucket denies everything.
    bucket_denied: bool,
}

impl Problems {
    fn add(&mut self, reason: &'static str, detail: String) {
        self.count += 1;
        if self.count <= MAX_TOLD {
            tracing::warn!(reason, detail, "a part of the message cannot be read");
        } else {
            tracing::debug!(reason, detail, "a part of the message cannot be read");
        }
        if self.told.len() < MAX_TOLD {
            self.told.push(Problem { reason, detail });
        }
    }

    /// `None` where everything could be read.
    fn end(self) -> Option<Unreadable> {
        let untold = self.count.saturating_sub(self.told.len());
        let mut told = self.told.into_iter();
        Some(Unreadable { first: told.next()?, others: told.collect(), untold })
    }

    /// Whoever writes to the queue must not fill the log: one message can name thousands of objects.
    fn tell_the_rest(&self) {
        if let Some(count) = self.count.checked_sub(MAX_TOLD).filter(|count| *count > 0) {
            tracing::warn!(count, "more parts of the message cannot be read");
        }
    }

    fn add_object(&mut self, error: ObjectError, name: &str) -> Result<(), Unread> {
        match error {
            ObjectError::Interrupted(why) => Err(Unread::Interrupted(why)),
            error => {
                self.bucket_denied |= matches!(error, ObjectError::BucketDenied(_));
                self.add(error.reason(), format!("{name}: {error}"));
                Ok(())
            }
        }
    }
}

/// The label of a problem of the message itself.
pub(crate) fn problem_reason(problem: &NotificationError) -> &'static str {
    match problem {
        NotificationError::NotJson(_) => "not_json",
        NotificationError::UnknownShape(_) => "unknown_shape",
        NotificationError::TooDeep(_) => "too_deep",
        NotificationError::BadRecord { .. } => "bad_notification",
    }
}

/// Leaves a message on its way to the dead-letter queue.
async fn leave(
    context: &Context,
    lease: Lease,
    message: &ReceivedMessage,
    visibility: Duration,
    reason: &'static str,
    detail: &str,
) {
    context.metrics.messages_left.with_label_values(&[reason]).inc();
    let delay = redrive_delay(message.receive_count, visibility);
    tracing::warn!(reason, detail, delay_seconds = delay.as_secs(), "message left for redrive");
    context.journal.failed(context.env.clock.now(), reason, detail);
    give_back(context, lease, delay).await;
}

/// Puts a message off for hours: its bucket denies everything, which somebody has to mend first.
async fn postpone(context: &Context, lease: Lease, message: &ReceivedMessage, detail: &str) {
    context.metrics.messages_released.with_label_values(&["bucket_denied"]).inc();
    let delay = denied_delay(message.receive_count);
    tracing::warn!(detail, delay_seconds = delay.as_secs(), "message put off until its bucket can be read");
    give_back(context, lease, delay).await;
}

/// How long a message waits whose bucket denies everything: 1, 2, 4, then 8 hours, so that it is not on the dead-letter
/// queue before somebody has granted what is missing.
fn denied_delay(receive_count: u32) -> Duration {
    const HOUR: u64 = 3600;
    Duration::from_secs(HOUR << receive_count.saturating_sub(1).min(3))
}

/// How long to wait before the next receive of a message that cannot be read: doubling from a second, and never longer
/// than the queue itself would.
fn redrive_delay(receive_count: u32, visibility: Duration) -> Duration {
    let doubled = 1_u64 << receive_count.saturating_sub(1).min(10);
    Duration::from_secs(doubled).min(visibility)
}
