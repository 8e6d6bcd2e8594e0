//! Keeps a received message invisible to others for as long as it is worked on.
//!
//! The heartbeat extends the visibility whenever a third of it has passed, repeats a failed extension until it works,
//! and stops at SQS's limit: a message is invisible for twelve hours at most, counted from its receipt.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::context::{CALL_DEADLINE, Context};
use crate::env::{Phase, Stop};
use crate::health::Dependency;
use crate::ports::{Fault, PortError, Receipt, ReceivedMessage};
use crate::retry::{Backoff, Interruption, call_for_message};

/// SQS's twelve hours, less a minute for giving the message back.
const LONGEST: Duration = Duration::from_secs(12 * 3600 - 60);

const EXTENSION: &str = "sqs:ChangeMessageVisibility";

/// How a lease ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The receipt is no longer valid: the message is visible, or somebody else's.
    Lost,
    /// Twelve hours are over.
    Expired,
}

/// A message held. Its heartbeat ends with it.
#[derive(Debug)]
pub struct Lease {
    receipt: Receipt,
    end: watch::Receiver<Option<LeaseEnd>>,
    stop: Stop,
    /// Dropped to stop the heartbeat.
    beating: oneshot::Sender<()>,
    /// Ends when no extension is in flight any more.
    stopped: oneshot::Receiver<()>,
}

impl Lease {
    /// Starts the heartbeat of a message that was just received with this visibility.
    pub fn take(context: &Context, message: &ReceivedMessage, visibility: Duration) -> Self {
        let (ended, end) = watch::channel(None);
        let (beating, silence) = oneshot::channel();
        let (at_rest, stopped) = oneshot::channel();
        let heart = Heart {
            context: context.clone(),
            receipt: message.receipt.clone(),
            message_id: message.message_id.clone(),
            visibility,
            received: Instant::now(),
            silence,
        };
        context.env.tasks.spawn(async move {
            if let Some(why) = heart.beat().await {
                ended.send_replace(Some(why));
            }
            drop(at_rest);
            // Held open, so that whoever asks later still learns why it ended.
            ended.closed().await;
        });
        Self { receipt: message.receipt.clone(), end, stop: context.env.stop.clone(), beating, stopped }
    }

    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Why work on this message must end, if there is a reason by now.
    #[must_use]
    pub fn interruption(&self) -> Option<Interruption> {
        let ended = *self.end.borrow();
        ended
            .map(Interruption::from)
            .or_else(|| (self.stop.phase() >= Phase::GivingBack).then_some(Interruption::Stopping))
    }

    /// Waits until work on this message must end.
    pub async fn interrupted(&self) -> Interruption {
        let mut end = self.end.clone();
        let ended = async {
            match end.wait_for(Option::is_some).await.map(|end| *end) {
                Ok(Some(why)) => why,
                // The tasks are gone, and so is whoever waits here.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            why = ended => why.into(),
            () = self.stop.reached(Phase::GivingBack) => Interruption::Stopping,
        }
    }

    /// Stops the heartbeat and waits for the extension in flight, so that none can follow on what comes next.
    pub async fn end(self) -> Receipt {
        drop(self.beating);
        let _at_rest = timeout(CALL_DEADLINE, self.stopped).await;
        self.receipt
    }
}

struct Heart {
    context: Context,
    receipt: Receipt,
    message_id: String,
    visibility: Duration,
    received: Instant,
    silence: oneshot::Receiver<()>,
}

impl Heart {
    /// Beats until the lease is dropped (`None`) or cannot be kept.
    async fn beat(mut self) -> Option<LeaseEnd> {
        let mut pause = self.visibility / 3;
        let mut backoff = self.retries();
        let mut retrying = None;
        loop {
            tokio::select! {
                biased;
                _dropped = &mut self.silence => return None,
                () = sleep(pause) => {}
            }
            let left = LONGEST.saturating_sub(self.received.elapsed());
            if left < Duration::from_secs(1) {
                tracing::warn!(message.id = %self.message_id, "held for twelve hours, which is all that SQS allows");
                return Some(LeaseEnd::Expired);
            }
            let visibility = self.visibility.min(left);
            let extension = self.context.ports.queue.change_visibility(&self.receipt, visibility);
            let extension = call_for_message(&self.context.env.stop, EXTENSION, extension);
            let answer = timeout(self.deadline(), extension).await;
            match answer.unwrap_or_else(|_| Err(PortError::timed_out(EXTENSION, self.deadline()))) {
                Ok(()) => {
                    self.count("ok");
                    if retrying.take().is_some() && self.context.health.checked(Dependency::Queue) {
                        tracing::info!("visibilities can be extended again");
                    }
                    backoff = self.retries();
                    pause = visibility / 3;
                }
                Err(error) if error.fault == Fault::LeaseLost => {
                    self.context.metrics.leases_lost.inc();
                    tracing::debug!(message.id = %self.message_id, "the receipt handle is no longer valid");
                    return Some(LeaseEnd::Lost);
                }
                Err(error) => {
                    self.count("failed");
                    retrying.get_or_insert_with(|| self.context.health.retrying(Dependency::Queue));
                    if self.context.failed(Dependency::Queue, &error) {
                        tracing::warn!(class = ?error.class, %error, "cannot extend the visibility of messages, will try again");
                    } else {
                        tracing::debug!(message.id = %self.message_id, %error, "cannot extend the visibility, will try again");
                    }
                    pause = backoff.pause(&self.context.env.random);
                }
            }
        }
    }

    /// Several extensions that get no answer fit into what is left of a visibility when the first is sent.
    fn deadline(&self) -> Duration {
        (self.visibility / 6).clamp(Duration::from_secs(1), CALL_DEADLINE)
    }

    /// Hard: a lease that runs out costs a receive.
    fn retries(&self) -> Backoff {
        Backoff::new(Duration::from_millis(100), (self.visibility / 10).min(Duration::from_secs(5)))
    }

    fn count(&self, outcome: &str) {
        self.context.metrics.lease_extensions.with_label_values(&[outcome]).inc();
    }
}
