//! Everything that the data path needs of the world and that is not a port: the clock, randomness, tasks, threads for
//! decoding, and the word to stop. A simulation brings its own.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The world of one process. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub clock: Clock,
    pub random: Random,
    pub tasks: Spawner,
    pub compute: Compute,
    pub stop: Stop,
}

/// Wall time, derived from tokio's clock, so that pausing the one pauses the other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: OffsetDateTime,
    started: Instant,
}

impl Clock {
    /// A clock that shows `wall` now.
    #[must_use]
    pub fn starting_at(wall: OffsetDateTime) -> Self {
        Self { wall, started: Instant::now() }
    }

    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        let elapsed = time::Duration::try_from(self.started.elapsed()).unwrap_or(time::Duration::MAX);
        self.wall.saturating_add(elapsed)
    }
}

/// A seeded source of randomness, for jitter and for claim tokens. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<fastrand::Rng>>);

impl Random {
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Seeded by the operating system.
    #[must_use]
    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// 128 random bits in hexadecimal.
    #[must_use]
    pub fn token(&self) -> String {
        format!("{:032x}", lock(&self.0).u128(..))
    }

    /// `duration` times a factor between 0.5 and 1.
    #[must_use]
    pub fn jitter(&self, duration: Duration) -> Duration {
        duration.mul_f64(0.5 + lock(&self.0).f64() / 2.0)
    }
}

/// Starts tasks. The only way to: whoever owns the [`TaskRoot`] ends them all by dropping it.
#[derive(Clone, Debug)]
pub struct Spawner(Weak<Mutex<JoinSet<()>>>);

/// Owns the tasks of a process. Dropping it aborts them where they stand, as a crash would.
#[derive(Debug, Default)]
pub struct TaskRoot(Arc<Mutex<JoinSet<()>>>);

impl TaskRoot {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

impl Drop for TaskRoot {
    fn drop(&mut self) {
        lock(&self.0).abort_all();
    }
}

impl Spawner {
    /// Starts a task, unless the process has already ended.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(tasks) = self.0.upgrade() else {
            return;
        };
        let mut tasks = lock(&tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task panicked; this is a bug, please report it");
            }
        }
        tasks.spawn(task);
    }
}

/// Texts up to this length are worked on where they are. The aim is half a millisecond of work at most;
/// `benches/async_threads.rs` measures each kind of work at this length and beyond.
const SHORT: usize = 16 * 1024;

/// Where decoding, and other work on long texts, runs.
#[derive(Clone, Debug)]
pub enum Compute {
    /// On the caller's task, for simulations.
    Inline,
    /// On blocking threads, at most as many at once as there are permits.
    Pool(Arc<Semaphore>),
}

impl Compute {
    #[must_use]
    pub fn pool(threads: usize) -> Self {
        Self::Pool(Arc::new(Semaphore::new(threads.max(1))))
    }

    /// Runs CPU work away from the async threads. `None` if the work panicked or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self {
            Self::Inline => Some(work()),
            Self::Pool(permits) => {
                let _permit = permits.acquire().await.ok()?;
                tokio::task::spawn_blocking(work).await.ok()
            }
        }
    }

    /// Runs work that takes as long as a text of this length is: on the caller's task if that is short, else as
    /// [`Self::run`] does. A panic goes on in the caller, and a runtime that shuts down ends the caller here.
    pub async fn run_for<T: Send + 'static>(&self, length: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permits = match self {
            Self::Pool(permits) if length > SHORT => permits,
            _ => return work(),
        };
        let Ok(_permit) = permits.acquire().await else {
            return std::future::pending().await;
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// How far the process is in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Take in nothing new, finish what is held.
    Draining,
    /// Finish the call in flight, then give back what is held.
    GivingBack,
}

/// The word to stop. The sender's side is [`StopHandle`].
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Reached>);

#[derive(Clone, Debug)]
pub struct StopHandle(Arc<watch::Sender<Reached>>);

#[derive(Clone, Copy, Debug)]
struct Reached {
    phase: Phase,
    /// In [`Phase::GivingBack`]: until when calls may go on.
    last_call: Instant,
}

impl StopHandle {
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(Reached { phase: Phase::Running, last_call: Instant::now() });
        (Self(Arc::new(sender)), Stop(receiver))
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.reach(Reached { phase, last_call: Instant::now() });
    }

    /// Moves on to [`Phase::GivingBack`], for which there is so much time. Calls in flight may take half of it: a hanging
    /// service must not use up the time in which messages can be given back.
    pub fn give_back(&self, within: Duration) {
        self.reach(Reached { phase: Phase::GivingBack, last_call: Instant::now() + within / 2 });
    }

    fn reach(&self, next: Reached) {
        self.0.send_if_modified(|now| {
            let later = next.phase > now.phase;
            if later {
                *now = next;
            }
            later
        });
    }
}

impl Stop {
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    /// Waits until the process is at least in `phase`; for ever when nobody can stop it any more.
    pub async fn reached(&self, phase: Phase) {
        self.wait_for(phase).await;
    }

    /// Waits until no call may go on any more, since the process must give back what it holds.
    pub async fn last_call(&self) {
        let end = self.wait_for(Phase::GivingBack).await.last_call;
        tokio::time::sleep_until(end).await;
    }

    async fn wait_for(&self, phase: Phase) -> Reached {
        let mut receiver = self.0.clone();
        match receiver.wait_for(|now| now.phase >= phase).await.map(|now| *now) {
            Ok(reached) => reached,
            Err(_) => std::future::pending().await,
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding one of these locks leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn short_work_stays_and_long_work_leaves() {
        let here = std::thread::current().id();
        let there = || std::thread::current().id();
        let pool = Compute::pool(1);
        assert_eq!(pool.run_for(SHORT, there).await, here);
        assert_ne!(pool.run_for(SHORT + 1, there).await, here);
        assert_eq!(Compute::Inline.run_for(SHORT + 1, there).await, here);
    }

    #[tokio::test]
    async fn long_work_is_done_by_no_more_threads_than_there_are() {
        let pool = Compute::pool(2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            pool.run_for(SHORT + 1, move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        };
        join_all((0..200).map(work)).await;
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    /// As it would if the work were done where it is asked for; the thread is free again.
    #[tokio::test]
    async fn a_panic_of_long_work_is_the_callers() {
        let pool = Compute::pool(1);
        let asking = pool.clone();
        let failed = tokio::spawn(async move { asking.run_for(SHORT + 1, || panic!("on purpose")).await });
        assert!(failed.await.unwrap_err().is_panic());
        assert_eq!(pool.run_for(SHORT + 1, || 7).await, 7);
    }
}
