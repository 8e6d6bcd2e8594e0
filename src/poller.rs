//! Receives as many messages as can be started at once, and never more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::context::Context;
use crate::env::Phase;
use crate::health::{Dependency, Intake, Retrying};
use crate::lease::Lease;
use crate::ports::{PortError, ReceivedMessage};
use crate::retry::Backoff;
use crate::settle::{Deleter, give_back};
use crate::worker::work;

/// SQS gives at most this many messages in one receive.
const RECEIVE: usize = 10;
/// How long a poller waits for more free slots before it receives for those it has.
const GATHER: Duration = Duration::from_millis(100);
/// While messages are only tried one at a time: the pause between two tries.
const TRIAL_PAUSE: Duration = Duration::from_secs(5);
/// How often a waiting poller shows that it is alive.
const TICK: Duration = Duration::from_secs(10);
/// While receiving keeps failing, the log says so this often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the pollers share: the slots for messages in work.
#[derive(Clone, Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    total: usize,
}

impl Slots {
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(total)), total }
    }

    fn busy(&self) -> usize {
        self.total.saturating_sub(self.free.available_permits())
    }

    /// Waits until every slot is free again.
    pub async fn all_free(&self) {
        let _all = self.free.acquire_many(u32::try_from(self.total).unwrap_or(u32::MAX)).await;
    }
}

/// Receives and starts messages until the process drains.
pub async fn poll(context: Context, number: usize, slots: Slots, deleter: Deleter, visibility: Duration) {
    let mut failing = Failing::default();
    while context.env.stop.phase() == Phase::Running {
        context.health.poller_moved(number);
        moved(&context);
        let Some(permits) = turn(&context, number, &slots).await else {
            continue;
        };
        // Never dropped before its end. It takes as long as it waits, and a call's time: if it stands still for longer,
        // so does the poll loop.
        match context.ports.queue.receive(permits.len(), context.config.queue.wait, visibility).await {
            Ok(messages) => {
                failing.ended(&context);
                start(&context, &slots, &deleter, messages, permits, visibility).await;
            }
            Err(error) => {
                drop(permits);
                let pause = failing.failed(&context, &error);
                tokio::select! {
                    biased;
                    () = context.env.stop.reached(Phase::Draining) => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a Unix time in seconds fits an f64")]
fn moved(context: &Context) {
    context.metrics.poll_last_timestamp.set(context.env.clock.now().unix_timestamp() as f64);
}

/// Waits for a turn to receive. `None` after a while, so that the caller shows that it is alive and asks again.
async fn turn(context: &Context, number: usize, slots: &Slots) -> Option<Vec<OwnedSemaphorePermit>> {
    let intake = context.health.intake();
    let wait = async {
        match intake {
            Intake::Open => gather(slots).await,
            Intake::Trial if number == 0 && slots.busy() <= context.health.all_waiting() => {
                tokio::select! {
                    biased;
                    () = context.health.intake_changed(Intake::Trial) => return None,
                    () = sleep(TRIAL_PAUSE) => {}
                }
                Some(vec![Arc::clone(&slots.free).try_acquire_owned().ok()?])
            }
            Intake::Trial => {
                let soon = sleep(TRIAL_PAUSE);
                tokio::select! {
                    biased;
                    () = context.health.intake_changed(Intake::Trial) => {}
                    () = soon => {}
                }
                None
            }
            Intake::Closed => {
                context.health.intake_changed(Intake::Closed).await;
                None
            }
        }
    };
    tokio::select! {
        biased;
        () = context.env.stop.reached(Phase::Draining) => None,
        permits = timeout(TICK, wait) => permits.ok().flatten().filter(|_| context.health.intake() == intake),
    }
}

/// A free slot, and as many more as become free within [`GATHER`], so that at saturation requests stay in tens.
async fn gather(slots: &Slots) -> Option<Vec<OwnedSemaphorePermit>> {
    let mut permits = vec![Arc::clone(&slots.free).acquire_owned().await.ok()?];
    let most = RECEIVE.min(slots.total);
    let deadline = Instant::now() + GATHER;
    while permits.len() < most {
        if let Ok(permit) = Arc::clone(&slots.free).try_acquire_owned() {
            permits.push(permit);
            continue;
        }
        match tokio::time::timeout_at(deadline, Arc::clone(&slots.free).acquire_owned()).await {
            Ok(Ok(permit)) => permits.push(permit),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Some(permits)
}

/// Starts a task for each message, or gives them back if the process began to drain meanwhile.
async fn start(
    context: &Context,
    slots: &Slots,
    deleter: &Deleter,
    messages: Vec<ReceivedMessage>,
    permits: Vec<OwnedSemaphorePermit>,
    visibility: Duration,
) {
    let mut permits = permits.into_iter();
    context.metrics.messages_received.inc_by(u64::try_from(messages.len()).unwrap_or(u64::MAX));
    let now = context.env.clock.now();
    for message in messages {
        if let Some(sent) = message.sent_at {
            context.metrics.message_age.observe((now - sent).as_seconds_f64().max(0.0));
        }
        // A queue that gives more than was asked for: the surplus waits for a slot of its own.
        let permit = match permits.next() {
            Some(permit) => permit,
            None => match Arc::clone(&slots.free).acquire_owned().await {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        if context.env.stop.phase() >= Phase::Draining {
            // Received while the process was told to stop: it never began.
            let lease = Lease::take(context, &message, visibility);
            context.metrics.messages_released.with_label_values(&["stop"]).inc();
            let giving = context.clone();
            context.env.tasks.spawn(async move {
                give_back(&giving, lease, Duration::ZERO).await;
                drop(permit);
            });
            continue;
        }
        let (working, deleting) = (context.clone(), deleter.clone());
        context.env.tasks.spawn(async move {
            working.metrics.messages_in_flight.inc();
            let _in_flight = InFlight(&working);
            work(&working, &deleting, message, visibility).await;
            drop(permit);
        });
    }
}

/// Counts down even if the work panics.
struct InFlight<'a>(&'a Context);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.messages_in_flight.dec();
    }
}

/// Receives that fail one after another.
#[derive(Debug, Default)]
struct Failing {
    backoff: Option<Backoff>,
    count: u64,
    logged: Option<Instant>,
    retrying: Option<Retrying>,
}

impl Failing {
    /// Counts a failure, says so now and then, and tells how long to wait.
    fn failed(&mut self, context: &Context, error: &PortError) -> Duration {
        context.metrics.poll_errors.inc();
        let _logged_below = context.failed(Dependency::Queue, error);
        self.retrying.get_or_insert_with(|| context.health.retrying(Dependency::Queue));
        self.count += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            tracing::warn!(class = ?error.class, %error, failures = self.count, "cannot receive messages, will try again");
        }
        self.backoff
            .get_or_insert_with(|| Backoff::new(Duration::from_millis(500), Duration::from_secs(30)))
            .pause(&context.env.random)
    }

    fn ended(&mut self, context: &Context) {
        let failures = self.count;
        *self = Self { logged: self.logged, ..Self::default() };
        // Deletes and extensions may go on failing.
        if context.health.checked(Dependency::Queue) && failures > 0 {
            tracing::info!(failures, "messages can be received again");
        }
    }
}
