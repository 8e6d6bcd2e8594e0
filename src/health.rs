//! Which dependency works, whether to take in more work, and whether the process is ready.
//!
//! The data path reports every call; the poller asks before each receive; the admin server answers probes. A
//! dependency is failing from its first failed call until its next successful one, and while the store, the publisher or
//! the objects fail nothing more is received: what is held waits under its heartbeat. A failing queue is the poller's
//! own affair. A denied object is no failure of a dependency: denials are counted for each bucket, and one that denies
//! everything makes the process unready, and intake falls to one message at a time until an object of any bucket is read.
//! Nor is an event that the store or the publisher refuses, until one of their calls refused [`REFUSALS`] events in a row:
//! then it is the process's own fault, and one message at a time finds out when that is mended.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::env::lock;
use crate::metrics::Metrics;
use crate::ports::{ErrorClass, PortError};

/// Of how many messages a bucket's objects must be denied in a row before the denial is the process's own.
pub const DENIALS: usize = 8;

/// How many different events a call must refuse in a row before the refusal is the process's own.
pub const REFUSALS: usize = 8;

/// Failures shorter than this do not make the process unready: a single throttled call is no outage.
const GRACE: Duration = Duration::from_secs(5);

/// How often the log speaks of one dependency, however many calls fail and however often it comes back.
const REMINDER: Duration = Duration::from_secs(60);

/// How many buckets are watched for denials; beyond that the one that changed longest ago is forgotten.
const MAX_BUCKETS: usize = 64;

/// A bucket that denied everything, and of which nothing came for so long, no longer makes the process unready.
const FORGOTTEN: Duration = Duration::from_secs(12 * 3600);

/// What the data path depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    Queue,
    Objects,
    Publisher,
    Store,
}

impl Dependency {
    pub const ALL: [Self; 4] = [Self::Queue, Self::Objects, Self::Publisher, Self::Store];

    /// The value of the metrics label `dependency`, and the name of its check.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Objects => "objects",
            Self::Publisher => "publisher",
            Self::Store => "store",
        }
    }
}

/// Whose fault it is that an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The event's.
    Event,
    /// The process's: the call refuses every event. `tell` if the log is to say so: it has not for a minute.
    Process { tell: bool },
}

/// Whether the poller may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    Open,
    /// One message at a time, to find out whether objects can be read again.
    Trial,
    Closed,
}

/// The answer of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub ok: bool,
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What is wrong and what to do; empty when all is well.
    pub detail: String,
}

#[derive(Clone, Debug)]
struct Failure {
    since: Instant,
    class: ErrorClass,
    detail: String,
    /// The service answers, so that the failure may be of what was asked.
    reachable: bool,
    /// The log spoke of it.
    told: bool,
}

#[derive(Debug)]
struct Known {
    reached: bool,
    failure: Option<Failure>,
    /// When the log last spoke of a failure.
    told: Option<Instant>,
    /// Tasks that repeat a call of their own until it works.
    retrying: usize,
    /// By operation, hashes of the events that it refused since it last accepted one; each once, up to [`REFUSALS`].
    refusals: BTreeMap<&'static str, Vec<u64>>,
}

impl Known {
    /// Whether one of its calls refuses every event.
    fn refuses_everything(&self) -> bool {
        self.refusals.values().any(|events| events.len() >= REFUSALS)
    }
}

#[derive(Debug)]
struct State {
    known: BTreeMap<Dependency, Known>,
    /// When each poller last moved; empty before the first receive.
    pollers: Vec<Instant>,
    started: Instant,
    stopping: bool,
    /// Why the rules are not loaded yet.
    rules_awaited: Option<String>,
    was_ready: bool,
    object_read: Option<Instant>,
    /// Buckets with denials, the one that changed last at the back.
    denied: VecDeque<Denied>,
    /// When an object of any bucket was last opened, or known not to be there.
    answered: Option<Instant>,
    /// Buckets of which an object was opened, the one that was longest ago at the front.
    read: VecDeque<String>,
    /// Tasks that hold a message because its bucket denies everything.
    holding: usize,
}

/// A bucket whose objects were denied, without one that was not since.
#[derive(Debug)]
struct Denied {
    bucket: String,
    /// Whether the configuration names it.
    expected: bool,
    /// Hashes of the messages that named the objects, each once, up to [`DENIALS`].
    messages: Vec<u64>,
    /// When the last of these messages was added.
    since: Instant,
    /// When any object was last denied.
    last: Instant,
    detail: String,
}

impl Denied {
    fn new(bucket: &str, expected: bool, now: Instant) -> Self {
        let bucket = bucket.to_owned();
        Self { bucket, expected, messages: Vec::new(), since: now, last: now, detail: String::new() }
    }
}

impl State {
    /// Whether it is no longer the objects' fault, but the process's. Whoever can send to the queue can name objects of
    /// any bucket: one that is neither configured nor was ever read counts only while nothing else could be read either.
    fn is_own_fault(&self, denied: &Denied) -> bool {
        let ours = denied.expected || self.answered.is_none() || self.read.contains(&denied.bucket);
        ours && denied.messages.len() >= DENIALS
    }
}

/// Shared by the data path, which reports, and the admin server, which answers.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    intake: watch::Sender<Intake>,
    metrics: Arc<Metrics>,
    /// How long a poller may stand still: the long poll and a minute.
    stall: Duration,
    hasher: RandomState,
}

impl Health {
    /// `wait` is the length of a long poll.
    pub fn new(metrics: Arc<Metrics>, wait: Duration) -> Self {
        let known = Dependency::ALL
            .into_iter()
            .map(|it| {
                let refusals = BTreeMap::new();
                (it, Known { reached: false, failure: None, told: None, retrying: 0, refusals })
            })
            .collect();
        Self {
            state: Mutex::new(State {
                known,
                pollers: Vec::new(),
                started: Instant::now(),
                stopping: false,
                rules_awaited: None,
                was_ready: false,
                object_read: None,
                denied: VecDeque::new(),
                answered: None,
                read: VecDeque::new(),
                holding: 0,
            }),
            intake: watch::channel(Intake::Open).0,
            metrics,
            stall: wait.saturating_add(Duration::from_secs(60)),
            hasher: RandomState::new(),
        }
    }

    /// A call worked. True if this ended a failure of which the log spoke.
    pub fn succeeded(&self, dependency: Dependency) -> bool {
        self.change(|state| {
            let Some(known) = state.known.get_mut(&dependency) else {
                return false;
            };
            known.reached = true;
            if known.refuses_everything() {
                // Another of its calls.
                return false;
            }
            known.failure.take().is_some_and(|failure| failure.told)
        })
    }

    /// A call accepted an event. True if this ended a failure of which the log spoke.
    pub fn accepted(&self, dependency: Dependency, operation: &'static str) -> bool {
        self.change(|state| {
            if let Some(known) = state.known.get_mut(&dependency) {
                known.refusals.remove(operation);
            }
        });
        self.succeeded(dependency)
    }

    /// A call refused an event for good. It is the process's fault once [`REFUSALS`] different events in a row were.
    pub fn refused(&self, dependency: Dependency, operation: &'static str, event: &str, error: &PortError) -> Refusal {
        let hash = self.hasher.hash_one(event);
        self.change(|state| {
            let Some(known) = state.known.get_mut(&dependency) else {
                return Refusal::Event;
            };
            known.reached = true;
            let events = known.refusals.entry(operation).or_default();
            if events.len() < REFUSALS && !events.contains(&hash) {
                events.push(hash);
            }
            if events.len() < REFUSALS {
                // An answer, though not the one wanted: the service works.
                if !known.refuses_everything() {
                    known.failure = None;
                }
                return Refusal::Event;
            }
            let now = Instant::now();
            let tell = known.told.is_none_or(|at| now.saturating_duration_since(at) >= REMINDER);
            if tell {
                known.told = Some(now);
            }
            let (since, told) = known.failure.as_ref().map_or((now, false), |before| (before.since, before.told));
            known.failure = Some(Failure {
                since,
                class: ErrorClass::Config,
                detail: format!("the last {REFUSALS} events were all refused: {error}"),
                reachable: true,
                told: told || tell,
            });
            Refusal::Process { tell }
        })
    }

    /// A call failed in a way that concerns everybody who calls. True if the log is to say so: it has not for a minute.
    pub fn failed(&self, dependency: Dependency, error: &PortError) -> bool {
        self.change(|state| {
            let Some(known) = state.known.get_mut(&dependency) else {
                return false;
            };
            let now = Instant::now();
            let tell = known.told.is_none_or(|at| now.saturating_duration_since(at) >= REMINDER);
            if tell {
                known.told = Some(now);
            }
            let (since, told) = known.failure.as_ref().map_or((now, false), |before| (before.since, before.told));
            known.failure = Some(Failure {
                since,
                class: error.class,
                detail: error.to_string(),
                reachable: false,
                told: told || tell,
            });
            tell
        })
    }

    /// A check worked while calls were failing. Ends the failure if no task is there to find out by its own call;
    /// for objects it only says that the service answers, since one object can fail for ever. True if this ended a failure
    /// of which the log spoke.
    pub fn checked(&self, dependency: Dependency) -> bool {
        self.change(|state| {
            let Some(known) = state.known.get_mut(&dependency) else {
                return false;
            };
            known.reached = true;
            if known.retrying == 0 {
                return known.failure.take().is_some_and(|failure| failure.told);
            }
            if dependency == Dependency::Objects
                && let Some(failure) = &mut known.failure
            {
                failure.reachable = true;
            }
            false
        })
    }

    /// Registers a task that repeats its call until it works.
    pub(crate) fn retrying(self: &Arc<Self>, dependency: Dependency) -> Retrying {
        self.change(|state| {
            if let Some(known) = state.known.get_mut(&dependency) {
                known.retrying += 1;
            }
        });
        Retrying { health: Arc::clone(self), dependency }
    }

    /// The dependencies that are failing.
    pub fn failing(&self) -> Vec<Dependency> {
        let state = lock(&self.state);
        state.known.iter().filter(|(_, known)| known.failure.is_some()).map(|(it, _)| *it).collect()
    }

    /// How many tasks repeat a call of this kind until it works.
    pub fn waiting(&self, dependency: Dependency) -> usize {
        lock(&self.state).known.get(&dependency).map_or(0, |known| known.retrying)
    }

    /// How many tasks repeat a call for the sake of a message's content until it works.
    pub fn all_waiting(&self) -> usize {
        let state = lock(&self.state);
        state.known.iter().filter(|(it, _)| **it != Dependency::Queue).map(|(_, known)| known.retrying).sum()
    }

    /// An object was read to its end.
    pub fn object_read(&self) {
        lock(&self.state).object_read = Some(Instant::now());
    }

    /// Whether any object was read to its end after `instant`.
    pub fn object_read_since(&self, instant: Instant) -> bool {
        lock(&self.state).object_read.is_some_and(|at| at > instant)
    }

    /// An object of this bucket was opened.
    pub fn object_opened(&self, bucket: &str) {
        self.change(|state| {
            state.read.retain(|it| it != bucket);
            if state.read.len() >= MAX_BUCKETS {
                state.read.pop_front();
            }
            state.read.push_back(bucket.to_owned());
        });
        self.object_answered(bucket);
    }

    /// An object of this bucket was opened, or is known not to be there.
    pub fn object_answered(&self, bucket: &str) {
        self.change(|state| {
            state.denied.retain(|denied| denied.bucket != bucket);
            state.answered = Some(Instant::now());
        });
    }

    /// An object that this message names was denied. True if this makes it the process's own fault: the objects of the
    /// last [`DENIALS`] messages for this bucket were all denied, and the bucket is `expected` by the configuration, was
    /// read before, or is like every other.
    pub fn object_denied(&self, bucket: &str, expected: bool, message: &str, error: &PortError) -> bool {
        let hash = self.hasher.hash_one(message);
        self.change(|state| {
            let now = Instant::now();
            let known = state.denied.iter().position(|denied| denied.bucket == bucket);
            let known = known.and_then(|at| state.denied.remove(at));
            let mut denied = known.unwrap_or_else(|| Denied::new(bucket, expected, now));
            if denied.messages.len() < DENIALS && !denied.messages.contains(&hash) {
                denied.messages.push(hash);
                denied.since = now;
            }
            denied.last = now;
            denied.detail = format!("the last {DENIALS} objects of bucket {bucket} were all denied: {error}");
            let own_fault = state.is_own_fault(&denied);
            if state.denied.len() >= MAX_BUCKETS {
                state.denied.pop_front();
            }
            state.denied.push_back(denied);
            own_fault
        })
    }

    /// Leave to hold a message whose bucket denies everything, as long as fewer than `limit` are held: the other slots
    /// are for messages of other buckets.
    pub(crate) fn hold_denied(self: &Arc<Self>, limit: usize) -> Option<Holding> {
        let mut state = lock(&self.state);
        if state.holding >= limit {
            return None;
        }
        state.holding += 1;
        Some(Holding(Arc::clone(self)))
    }

    /// A poller moved, or is paused on purpose.
    pub fn poller_moved(&self, poller: usize) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if state.pollers.len() <= poller {
            state.pollers.resize(poller + 1, now);
        }
        if let Some(moved) = state.pollers.get_mut(poller) {
            *moved = now;
        }
    }

    /// Rules that are not a file cannot be read yet, and why; `None` once they are loaded.
    pub fn rules_awaited(&self, why: Option<String>) {
        self.change(|state| state.rules_awaited = why);
    }

    /// The process is waiting for its rules or its dependencies before the first receive.
    pub fn starting(&self) {
        lock(&self.state).started = Instant::now();
    }

    pub fn stopping(&self) {
        self.change(|state| state.stopping = true);
    }

    /// Whether, and how, to receive.
    pub fn intake(&self) -> Intake {
        *self.intake.borrow()
    }

    /// Waits for a change of [`Self::intake`].
    pub async fn intake_changed(&self, from: Intake) {
        let mut receiver = self.intake.subscribe();
        if receiver.wait_for(|now| *now != from).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the poll loop moved recently or is paused on purpose.
    pub fn live(&self) -> Report {
        let state = lock(&self.state);
        let oldest = state.pollers.iter().min().copied().unwrap_or(state.started);
        let still = oldest.elapsed();
        let ok = state.stopping || still <= self.stall;
        let detail = if ok {
            String::new()
        } else {
            format!("the poll loop has stood still for {} s; restart the process", still.as_secs())
        };
        report(vec![Check { name: "poll_loop", ok, detail }])
    }

    /// Whether the rules are loaded, queue, table, topic and objects are reachable, no bucket denies everything, and the
    /// process is not stopping.
    pub fn ready(&self) -> Report {
        let mut state = lock(&self.state);
        let awaited = state.rules_awaited.clone();
        let mut checks = vec![Check { name: "rules", ok: awaited.is_none(), detail: awaited.unwrap_or_default() }];
        for (dependency, known) in &state.known {
            let failure = known
                .failure
                .as_ref()
                .filter(|failure| failure.class == ErrorClass::Config || failure.since.elapsed() >= GRACE);
            let (ok, detail) = match failure {
                Some(failure) => (false, failure.detail.clone()),
                None if known.reached => (true, String::new()),
                None => match &known.failure {
                    Some(failure) => (false, failure.detail.clone()),
                    None => (false, "not reached yet".to_owned()),
                },
            };
            checks.push(Check { name: dependency.name(), ok, detail });
        }
        let denial = state.denied.iter().rev().find(|it| state.is_own_fault(it) && it.last.elapsed() < FORGOTTEN);
        let denial = denial.map(|denied| denied.detail.clone());
        checks.push(Check { name: "object_access", ok: denial.is_none(), detail: denial.unwrap_or_default() });
        let stopping = state.stopping;
        checks.push(Check {
            name: "running",
            ok: !stopping,
            detail: if stopping { "the process is stopping".to_owned() } else { String::new() },
        });
        let report = report(checks);
        state.was_ready |= report.ok;
        self.metrics.ready.set(i64::from(report.ok));
        report
    }

    /// Whether [`Self::ready`] was true at any time.
    pub fn was_ready(&self) -> bool {
        let ready = self.ready().ok;
        ready || lock(&self.state).was_ready
    }

    /// Changes the state and tells what follows from it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let answer = change(&mut state);
        let mut intake = Intake::Open;
        for (dependency, known) in &state.known {
            if known.reached || known.failure.is_some() {
                let up = known.reached && known.failure.is_none();
                self.metrics.dependency_up.with_label_values(&[dependency.name()]).set(i64::from(up));
            }
            intake = match (dependency, &known.failure) {
                // The poller's own back-off is the pause for the queue.
                (Dependency::Queue, _) | (_, None) => intake,
                (_, Some(failure)) if failure.reachable && intake == Intake::Open => Intake::Trial,
                (_, Some(failure)) if failure.reachable => intake,
                (_, Some(_)) => Intake::Closed,
            };
        }
        // "Until one succeeds": when another bucket can be read, it is not the whole process that cannot.
        let all_denied = state
            .denied
            .iter()
            .any(|denied| state.is_own_fault(denied) && state.answered.is_none_or(|at| at < denied.since));
        if all_denied && intake == Intake::Open {
            intake = Intake::Trial;
        }
        self.metrics.intake_paused.set(i64::from(intake == Intake::Closed));
        self.intake.send_if_modified(|now| std::mem::replace(now, intake) != intake);
        answer
    }
}

fn report(checks: Vec<Check>) -> Report {
    Report { ok: checks.iter().all(|check| check.ok), checks }
}

/// A task that repeats its call; dropped when it stops doing so.
#[derive(Debug)]
pub(crate) struct Retrying {
    health: Arc<Health>,
    dependency: Dependency,
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.health.change(|state| {
            if let Some(known) = state.known.get_mut(&self.dependency) {
                known.retrying = known.retrying.saturating_sub(1);
            }
        });
    }
}

/// A message held because its bucket denies everything.
#[derive(Debug)]
pub(crate) struct Holding(Arc<Health>);

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.holding = state.holding.saturating_sub(1);
    }
}
