//! Deletes what was delivered, in batches, and gives back what was not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout_at};

use crate::context::Context;
use crate::deliver::Delivered;
use crate::env::Phase;
use crate::lease::Lease;
use crate::ports::{Fault, PortError};
use crate::retry::{Backoff, call, call_for_message};

/// SQS deletes at most this many messages in one call.
const BATCH: usize = 10;
/// How long a delete may wait for others to share its call.
const LINGER: Duration = Duration::from_millis(100);
/// Attempts at one entry before it is left to its redelivery.
const ATTEMPTS: usize = 8;
/// Delete calls in flight at once.
const CALLS: usize = 4;

/// A delivered message on its way to deletion, under its heartbeat until that is confirmed.
#[derive(Debug)]
struct Deletion {
    delivered: Delivered,
    lease: Lease,
}

/// Collects deletes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deleter(mpsc::Sender<Deletion>);

/// Ends when every delete was settled, after the last [`Deleter`] was dropped.
#[derive(Debug)]
pub struct Deleted(oneshot::Receiver<()>);

impl Deleter {
    /// Starts the task that batches deletes.
    pub fn start(context: &Context) -> (Self, Deleted) {
        let (sender, receiver) = mpsc::channel(BATCH * CALLS);
        let (done, deleted) = oneshot::channel();
        let batching = context.clone();
        context.env.tasks.spawn(async move {
            delete_all(batching, receiver).await;
            drop(done);
        });
        (Self(sender), Deleted(deleted))
    }

    /// Deletes a message. This is the only way to a delete, and the proof is used up.
    pub async fn delete(&self, delivered: Delivered, lease: Lease) {
        // Fails only in a process that is already gone; the redelivery is harmless.
        let _gone = self.0.send(Deletion { delivered, lease }).await;
    }
}

impl Deleted {
    pub async fn wait(self) {
        let _closed = self.0.await;
    }
}

async fn delete_all(context: Context, mut deletions: mpsc::Receiver<Deletion>) {
    let calls = Arc::new(Semaphore::new(CALLS));
    while let Some(first) = deletions.recv().await {
        let mut batch = vec![first];
        let deadline = tokio::time::Instant::now() + LINGER;
        while batch.len() < BATCH {
            match timeout_at(deadline, deletions.recv()).await {
                Ok(Some(next)) => batch.push(next),
                Ok(None) | Err(_) => break,
            }
        }
        let Ok(permit) = Arc::clone(&calls).acquire_owned().await else {
            return;
        };
        let calling = context.clone();
        context.env.tasks.spawn(async move {
            delete_batch(&calling, batch).await;
            drop(permit);
        });
    }
    // All permits back: no call is in flight any more.
    let _all = calls.acquire_many(u32::try_from(CALLS).unwrap_or(u32::MAX)).await;
}

async fn delete_batch(context: &Context, batch: Vec<Deletion>) {
    let mut leases = Vec::new();
    let mut entries = Vec::new();
    for deletion in batch {
        entries.push(deletion.delivered);
        leases.push(deletion.lease);
    }
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    for attempt in 1..=ATTEMPTS {
        let deleting = context.ports.queue.delete(&entries);
        let results = call_for_message(&context.env.stop, "sqs:DeleteMessageBatch", deleting).await;
        let mut failed = Vec::new();
        let mut last_error: Option<PortError> = None;
        match results {
            Ok(results) => {
                let mut results = results.into_iter();
                for entry in entries {
                    match results.next() {
                        Some(Ok(())) => {
                            context.metrics.messages_deleted.inc();
                            tracing::debug!(message.id = entry.message_id(), "deleted");
                        }
                        Some(Err(error)) if error.fault == Fault::LeaseLost => {
                            // Somebody else has it by now, and will find it settled.
                            context.metrics.message_delete_failures.inc();
                            tracing::debug!(message.id = entry.message_id(), %error, "no longer ours to delete");
                        }
                        Some(Err(error)) => {
                            last_error = Some(error);
                            failed.push(entry);
                        }
                        None => failed.push(entry),
                    }
                }
            }
            Err(error) => {
                last_error = Some(error);
                failed = entries;
            }
        }
        if failed.is_empty() {
            return;
        }
        entries = failed;
        if attempt == ATTEMPTS || context.env.stop.phase() >= Phase::GivingBack {
            let count = entries.len();
            context.metrics.message_delete_failures.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
            let error = last_error.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(count, error, "messages could not be deleted; their redelivery is harmless");
            return;
        }
        sleep(backoff.pause(&context.env.random)).await;
    }
}

/// Makes a message visible again after `delay`. Tried a few times; if it cannot be done, the visibility runs out.
pub async fn give_back(context: &Context, lease: Lease, delay: Duration) {
    let receipt = lease.end().await;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    for _attempt in 0..3 {
        let change = context.ports.queue.change_visibility(&receipt, delay);
        match call("sqs:ChangeMessageVisibility", change).await {
            Ok(()) => return,
            Err(error) if error.fault == Fault::LeaseLost => return,
            Err(error) => {
                tracing::debug!(%error, "cannot give a message back, will try again");
                sleep(backoff.pause(&context.env.random)).await;
            }
        }
    }
    tracing::warn!("a message could not be given back; it is visible again when its timeout runs out");
}
