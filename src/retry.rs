//! The one retry layer: a call is repeated until it works, cannot work, or does not matter any more.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::context::{CALL_DEADLINE, Context};
use crate::env::{Phase, Random, Stop};
use crate::health::{Dependency, Refusal};
use crate::lease::{Lease, LeaseEnd};
use crate::ports::{ErrorClass, Fault, PortError};

/// The longest pause between two attempts, so that work resumes within a minute of a recovery.
const LONGEST: Duration = Duration::from_secs(30);
/// The pause after the first failure.
const SHORTEST: Duration = Duration::from_millis(100);

/// How often others may be in between before that counts as a failure: some ten seconds.
const CONTENDED: u32 = 7;

/// Doubling pauses with jitter.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(SHORTEST, LONGEST)
    }
}

impl Backoff {
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { next: shortest, longest }
    }

    /// The next pause: between half and all of a doubling time.
    pub fn pause(&mut self, random: &Random) -> Duration {
        let pause = random.jitter(self.next);
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }
}

/// Why work on a message ends before it is done, without a fault of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The process is stopping and its time is up.
    Stopping,
    /// The message is no longer ours.
    LeaseLost,
    /// SQS holds a message for twelve hours at most.
    LeaseExpired,
}

/// Why a call was given up.
#[derive(Debug)]
pub enum GaveUp {
    Interrupted(Interruption),
    /// [`ErrorClass::Permanent`].
    Refused(PortError),
}

/// What ends the repetition of a call.
#[derive(Clone, Copy)]
pub enum Until<'a> {
    /// The message is lost or was held for twelve hours, or the process gives back what it holds.
    Held(&'a Lease),
    /// Only that the process gives back what it holds: for what must be finished once it is begun.
    Stopping(&'a Stop),
}

impl Until<'_> {
    /// Waits until there is a reason to give up.
    pub async fn interrupted(self) -> Interruption {
        match self {
            Self::Held(lease) => lease.interrupted().await,
            Self::Stopping(stop) => {
                stop.reached(Phase::GivingBack).await;
                Interruption::Stopping
            }
        }
    }

    /// The reason to give up, if there is one by now.
    #[must_use]
    pub fn now(self) -> Option<Interruption> {
        match self {
            Self::Held(lease) => lease.interruption(),
            Self::Stopping(stop) => (stop.phase() >= Phase::GivingBack).then_some(Interruption::Stopping),
        }
    }
}

impl From<LeaseEnd> for Interruption {
    fn from(end: LeaseEnd) -> Self {
        match end {
            LeaseEnd::Lost => Self::LeaseLost,
            LeaseEnd::Expired => Self::LeaseExpired,
        }
    }
}

/// One call under the core's deadline.
pub async fn call<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    timeout(CALL_DEADLINE, call).await.unwrap_or_else(|_| Err(PortError::timed_out(operation, CALL_DEADLINE)))
}

/// A call for the sake of a message. Once the process gives back what it holds, one that does not answer soon is given
/// up, which counts as a lost answer.
pub async fn call_for_message<T>(
    stop: &Stop,
    operation: &'static str,
    attempt: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    let began = Instant::now();
    tokio::select! {
        biased;
        answer = call(operation, attempt) => answer,
        () = stop.last_call() => Err(PortError::timed_out(operation, began.elapsed())),
    }
}

/// Sleeps, unless there is a reason to give up.
pub async fn sleep(pause: Duration, until: Until<'_>) -> Result<(), Interruption> {
    tokio::select! {
        biased;
        why = until.interrupted() => Err(why),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

/// Repeats `attempt`, a call for this event, while it fails with something that can pass, and tells `Health` meanwhile.
/// Each attempt runs to its end or its deadline. Gives also when the first attempt began: its answer may have been lost
/// and its work done.
///
/// # Errors
///
/// [`GaveUp::Refused`] with a permanent error, unless every recent event is refused; [`GaveUp::Interrupted`] when `until`
/// says so between two attempts.
pub async fn persist<T, F>(
    context: &Context,
    (dependency, operation): (Dependency, &'static str),
    event: &str,
    until: Until<'_>,
    mut attempt: impl FnMut() -> F,
) -> Result<(T, Instant), GaveUp>
where
    F: Future<Output = Result<T, PortError>>,
{
    let mut backoff = Backoff::default();
    let mut retrying = None;
    let mut contended = 0;
    let began = Instant::now();
    loop {
        let error = match call_for_message(&context.env.stop, operation, attempt()).await {
            Ok(value) => {
                if context.health.accepted(dependency, operation) {
                    tracing::info!(dependency = dependency.name(), operation, "works again");
                }
                return Ok((value, began));
            }
            // Whoever was in between answered for the service: it works. Only what goes on is a failure.
            Err(error) if error.fault == Fault::Contended && contended < CONTENDED => {
                contended += 1;
                tracing::debug!(dependency = dependency.name(), error = %error, "others are at it, will be repeated");
                sleep(backoff.pause(&context.env.random), until).await.map_err(GaveUp::Interrupted)?;
                continue;
            }
            Err(error) => error,
        };
        if error.class == ErrorClass::Permanent {
            match context.health.refused(dependency, operation, event, &error) {
                Refusal::Event => return Err(GaveUp::Refused(error)),
                Refusal::Process { tell } => tell_refusals(tell, dependency, &error),
            }
        } else if context.failed(dependency, &error) {
            tracing::warn!(
                dependency = dependency.name(),
                class = ?error.class,
                error = %error,
                "a call fails; held messages wait and nothing more is received until it works"
            );
        } else {
            tracing::debug!(dependency = dependency.name(), error = %error, "a call fails, will be repeated");
        }
        retrying.get_or_insert_with(|| context.health.retrying(dependency));
        sleep(backoff.pause(&context.env.random), until).await.map_err(GaveUp::Interrupted)?;
    }
}

/// Says that every recent event was refused, and what to do.
pub fn tell_refusals(tell: bool, dependency: Dependency, error: &PortError) {
    if tell {
        tracing::error!(
            dependency = dependency.name(),
            %error,
            "every recent event is refused; messages are held until one is accepted: look at what the error names"
        );
    } else {
        tracing::debug!(dependency = dependency.name(), %error, "an event is refused like every other, will be repeated");
    }
}
