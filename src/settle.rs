//! Deletes what was delivered, in batches, and gives back what was not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout_at};

use crate::context::Context;
use crate::deliver::Delivered;
use crate::env::Phase;
use crate::health::Dependency;
use crate::lease::Lease;
use crate::ports::{ErrorClass, Fault, PortError};
use crate::retry::{Backoff, Interruption, call, call_for_message};

/// SQS deletes at most this many messages in one call.
const BATCH: usize = 10;
/// How long a delete may wait for others to share its call.
const LINGER: Duration = Duration::from_millis(100);
/// Attempts at a batch after which its messages count as failed, though they are tried again.
const ATTEMPTS: u32 = 8;
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

/// Repeats a batch until each entry is deleted or cannot be. What is delivered stays under its heartbeat meanwhile: left
/// to its redelivery, it would come back again and again, and end on the dead-letter queue.
async fn delete_batch(context: &Context, mut batch: Vec<Deletion>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut retrying = None;
    let mut attempts = 0;
    loop {
        let (entries, leases): (Vec<_>, Vec<_>) = batch.into_iter().map(|it| (it.delivered, it.lease)).unzip();
        let deleting = context.ports.queue.delete(&entries);
        let results = call_for_message(&context.env.stop, "sqs:DeleteMessageBatch", deleting).await;
        let open = entries.into_iter().zip(leases).map(|(delivered, lease)| Deletion { delivered, lease });
        let (failed, error) = match results {
            Ok(results) => settle_entries(context, open, results),
            Err(error) => (open.collect(), Some(error)),
        };
        batch = failed;
        if let Some(error) = &error {
            retrying.get_or_insert_with(|| context.health.retrying(Dependency::Queue));
            if context.failed(Dependency::Queue, error) {
                let count = batch.len();
                tracing::warn!(class = ?error.class, %error, count, "messages cannot be deleted; they are held until they can");
            }
        } else if retrying.take().is_some() && context.health.checked(Dependency::Queue) {
            tracing::info!("messages can be deleted again");
        }
        if batch.is_empty() {
            return;
        }
        attempts += 1;
        if attempts == ATTEMPTS {
            count_failures(context, batch.len());
        }
        let pause = backoff.pause(&context.env.random);
        tokio::select! {
            biased;
            () = context.env.stop.reached(Phase::GivingBack) => {}
            () = sleep(pause) => {}
        }
        let left = let_go(context, batch).await;
        batch = left.kept;
        if attempts < ATTEMPTS {
            count_failures(context, left.released);
        }
        if batch.is_empty() {
            return;
        }
    }
}

/// Gives the entries to try again, and why.
fn settle_entries(
    context: &Context,
    open: impl Iterator<Item = Deletion>,
    results: Vec<Result<(), PortError>>,
) -> (Vec<Deletion>, Option<PortError>) {
    let (mut failed, mut last_error) = (Vec::new(), None);
    let mut results = results.into_iter();
    for deletion in open {
        let message_id = deletion.delivered.message_id();
        match results.next() {
            Some(Ok(())) => {
                context.metrics.messages_deleted.inc();
                tracing::debug!(message.id = message_id, "deleted");
            }
            Some(Err(error)) if error.class == ErrorClass::Permanent => {
                // Somebody else has it by now, and will find it settled.
                context.metrics.message_delete_failures.inc();
                tracing::debug!(message.id = message_id, %error, "no longer ours to delete");
            }
            Some(Err(error)) => {
                last_error = Some(error);
                failed.push(deletion);
            }
            None => failed.push(deletion),
        }
    }
    (failed, last_error)
}

fn count_failures(context: &Context, count: usize) {
    context.metrics.message_delete_failures.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
}

/// What is left of a batch.
struct Left {
    kept: Vec<Deletion>,
    released: usize,
}

/// Gives back what cannot be held any longer.
async fn let_go(context: &Context, batch: Vec<Deletion>) -> Left {
    let (mut kept, mut ended) = (Vec::new(), Vec::new());
    for deletion in batch {
        match deletion.lease.interruption() {
            Some(why) => ended.push((deletion.lease, why)),
            None => kept.push(deletion),
        }
    }
    let released = ended.len();
    if released > 0 {
        tracing::warn!(count = released, "messages could not be deleted; their redelivery is harmless");
        let releasing = ended.into_iter().map(|(lease, why)| release(context, lease, why));
        futures_util::future::join_all(releasing).await;
    }
    Left { kept, released }
}

/// Gives a message back at once, because work on it must end.
pub async fn release(context: &Context, lease: Lease, why: Interruption) {
    let reason = match why {
        Interruption::Stopping => "stop",
        Interruption::LeaseExpired => "expired",
        Interruption::LeaseLost => {
            tracing::debug!("work on the message ends: it is no longer ours");
            return;
        }
    };
    context.metrics.messages_released.with_label_values(&[reason]).inc();
    give_back(context, lease, Duration::ZERO).await;
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
