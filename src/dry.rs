//! The daemon's own step for one message, without side effects: what would become of it now?
//!
//! [`worker::attempt`] runs as in the daemon: it parses the body, reads the objects with the configured limits and from
//! the allowed buckets only, decodes them and evaluates the rules. Only the object store is real. The store answers that
//! everything is settled, so that nothing is claimed, counted or published; the publisher and the queue are never asked
//! for anything, and would refuse. So what happens after a match (storing and alerting) is not tried.
//!
//! The daemon waits for an outage of S3 as long as it takes. Here each message has a limit of time, and credentials or
//! settings that are no good end it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::alert::{EventKey, Outbound, StoredItem};
use crate::claim::{Claim, ClaimToken, Mark, Recorded};
use crate::config::Config;
use crate::context::{AlertPolicy, Context};
use crate::deliver::{Delivered, InWork, Undelivered};
use crate::env::{Env, lock};
use crate::health::Health;
use crate::journal::Journal;
use crate::lease::Lease;
use crate::limit::Limit;
use crate::metrics::Metrics;
use crate::ports::{
    AlertPublisher, AlertStore, ErrorClass, Fault, MessageQueue, ObjectBody, ObjectRequest, ObjectStore, PortError,
    Ports, QueueAttributes, Receipt, ReceivedMessage,
};
use crate::reload::RuleSource;
use crate::rules::Matchers;
use crate::tracker::{CrossAttempt, Crossed, TrackerId};
use crate::worker::{self, Problem, Unread, Unreadable};

/// The lease of a message in a rehearsal: longer than any. Who really holds it keeps it invisible.
const LEASE: Duration = Duration::from_secs(12 * 3600);

/// What messages are rehearsed with. Cheap to share; each message has a health, figures and a store of its own, so that
/// none is judged by what others did.
pub struct Rehearsal {
    pub objects: Arc<dyn ObjectStore>,
    pub env: Env,
    pub config: Arc<Config>,
    pub rules: RuleSource,
    pub matchers: Matchers,
}

/// What would become of a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything in it can be read.
    Succeeds,
    /// A part of it cannot be read, and trying again does not help.
    Fails,
    /// Nobody can say: S3 cannot be reached, or denies what is asked with these credentials; the daemon's may be others.
    Unknown,
}

/// How a rehearsal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    pub verdict: Verdict,
    /// What is wrong, in the words of the daemon's log; empty if nothing is.
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub untold: usize,
    /// Records that were evaluated, each once even where an object was read again.
    pub records: u64,
    /// Different events that matched.
    pub events: u64,
    /// How many of these events matched which rule.
    pub rules: BTreeMap<String, u64>,
}

impl Rehearsal {
    /// Works on a message as the daemon would, for `limit` at most. May be dropped at any point.
    ///
    /// # Errors
    ///
    /// The figures cannot be kept, which is a bug.
    pub async fn of(&self, message: &ReceivedMessage, limit: Duration) -> Result<Rehearsed, prometheus::Error> {
        let metrics = Arc::new(Metrics::new()?);
        let store = Arc::new(Settled::default());
        let objects = Arc::new(Watched::new(Arc::clone(&self.objects), Arc::clone(&metrics)));
        let context = Context {
            ports: Ports {
                queue: Arc::new(Untouched),
                objects: Arc::clone(&objects) as Arc<dyn ObjectStore>,
                publisher: Arc::new(Untouched),
                store: Arc::clone(&store) as Arc<dyn AlertStore>,
            },
            env: self.env.clone(),
            config: Arc::clone(&self.config),
            rules: self.rules.clone(),
            metrics: Arc::clone(&metrics),
            health: Arc::new(Health::new(Arc::clone(&metrics), self.config.queue.wait)),
            journal: Arc::new(Journal::default()),
            in_work: InWork::default(),
            matchers: self.matchers.clone(),
            limit: Arc::new(Limit::new(0)),
            policy: AlertPolicy::All,
        };
        let lease = Lease::take(&context, message, LEASE);
        let outcome = tokio::select! {
            biased;
            () = objects.useless.notified() => Err(Cut::Useless),
            outcome = timeout(limit, worker::attempt(&context, &lease, message)) => outcome.map_err(|_| Cut::TimedOut),
        };
        let (problems, untold) = match outcome {
            Ok(Ok(delivery)) => match delivery.finish() {
                Ok(_not_deleted) => (Vec::new(), 0),
                Err(Undelivered::Refused(detail)) => (vec![Problem { reason: "refused", detail }], 0),
                Err(Undelivered::Unfinished) => (vec![bug("not every part was read")], 0),
            },
            Ok(Err(Unread::Left(parts) | Unread::Denied(parts))) => flat(parts),
            // Nothing interrupts a rehearsal.
            Ok(Err(Unread::Interrupted(why))) => (vec![bug(&format!("interrupted: {why:?}"))], 0),
            Err(cut) => (vec![objects.problem(cut, limit)], 0),
        };
        let stored = lock(&store.0);
        Ok(Rehearsed {
            verdict: verdict(&problems),
            problems,
            untold,
            records: evaluated(&metrics).saturating_sub(lock(&objects.seen).repeated),
            events: u64::try_from(stored.events.len()).unwrap_or(u64::MAX),
            rules: stored.rules.clone(),
        })
    }
}

/// Why a rehearsal ended before the step did.
#[derive(Clone, Copy)]
enum Cut {
    TimedOut,
    /// No call can work.
    Useless,
}

/// One part that fails for good decides.
fn verdict(problems: &[Problem]) -> Verdict {
    if problems.is_empty() {
        Verdict::Succeeds
    } else if problems.iter().any(|problem| is_final(problem.reason)) {
        Verdict::Fails
    } else {
        Verdict::Unknown
    }
}

/// Whether a reason says that this input can never work, whoever tries.
fn is_final(reason: &str) -> bool {
    !matches!(reason, "denied" | "kms_denied" | "bucket_denied" | "unavailable" | UNREACHABLE | TIMED_OUT)
}

/// Reasons that the daemon has not, since it waits.
const UNREACHABLE: &str = "unreachable";
const TIMED_OUT: &str = "timed_out";

fn bug(detail: &str) -> Problem {
    Problem { reason: "bug", detail: detail.to_owned() }
}

fn flat(parts: Unreadable) -> (Vec<Problem>, usize) {
    let Unreadable { first, others, untold } = parts;
    (std::iter::once(first).chain(others).collect(), untold)
}

fn evaluated(metrics: &Metrics) -> u64 {
    metrics.records.with_label_values(&["evaluated"]).get()
}

/// The real object store, and what was seen of it.
struct Watched {
    inner: Arc<dyn ObjectStore>,
    metrics: Arc<Metrics>,
    seen: Mutex<Seen>,
    /// Credentials or settings are no good.
    useless: Notify,
}

#[derive(Default)]
struct Seen {
    /// The trouble with the last open.
    trouble: Option<String>,
    /// The object that was last opened at its beginning, and how many records were evaluated before.
    begun: Option<(ObjectRequest, u64)>,
    /// Records that were evaluated in readings which began again.
    repeated: u64,
}

impl Seen {
    /// An object is opened at its beginning after so many records were evaluated.
    fn begins(&mut self, request: &ObjectRequest, evaluated: u64) {
        if let Some((_, before)) = self.begun.as_ref().filter(|(last, _)| last == request) {
            self.repeated = self.repeated.saturating_add(evaluated.saturating_sub(*before));
        }
        self.begun = Some((request.clone(), evaluated));
    }
}

impl Watched {
    fn new(inner: Arc<dyn ObjectStore>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics, seen: Mutex::default(), useless: Notify::new() }
    }

    fn problem(&self, cut: Cut, limit: Duration) -> Problem {
        let trouble = lock(&self.seen).trouble.clone();
        match (cut, trouble) {
            (Cut::Useless, trouble) => {
                let why = trouble.unwrap_or_default();
                Problem { reason: UNREACHABLE, detail: format!("S3 cannot be asked: {why}") }
            }
            (Cut::TimedOut, Some(why)) => {
                Problem { reason: UNREACHABLE, detail: format!("S3 is unreachable, for {limit:?} now: {why}") }
            }
            (Cut::TimedOut, None) => {
                Problem { reason: TIMED_OUT, detail: format!("not read to its end within {limit:?}") }
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn open(&self, request: &ObjectRequest) -> Result<ObjectBody, PortError> {
        if request.start == 0 {
            lock(&self.seen).begins(request, evaluated(&self.metrics));
        }
        let opened = self.inner.open(request).await;
        lock(&self.seen).trouble = match &opened {
            Err(error) if error.class != ErrorClass::Permanent => Some(error.to_string()),
            _ => None,
        };
        if opened.as_ref().is_err_and(|error| error.class == ErrorClass::Config) {
            self.useless.notify_one();
        }
        opened
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }
}

/// A store in which everything is settled already: nothing is left to claim, to count or to alert.
#[derive(Default)]
struct Settled(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    events: BTreeSet<EventKey>,
    rules: BTreeMap<String, u64>,
}

#[async_trait]
impl AlertStore for Settled {
    async fn record(
        &self,
        item: &StoredItem,
        _token: &ClaimToken,
        _length: Duration,
        _expired: Option<&ClaimToken>,
    ) -> Result<Recorded, PortError> {
        let mut counted = lock(&self.0);
        // An object may hold a record twice, and a second reading finds it again.
        if counted.events.insert(item.key.clone()) {
            for rule in item.rules.keys() {
                *counted.rules.entry(rule.clone()).or_default() += 1;
            }
        }
        Ok(Recorded::Settled)
    }

    async fn cross(&self, _attempt: CrossAttempt<'_>) -> Result<Crossed, PortError> {
        Err(touched("dynamodb:UpdateItem"))
    }

    async fn mark_step(&self, _tracker: &TrackerId, _step: u64, _mark: &Mark) -> Result<bool, PortError> {
        Err(touched("dynamodb:UpdateItem"))
    }

    async fn settle(&self, _key: &EventKey, _rules: &BTreeSet<String>) -> Result<(), PortError> {
        Err(touched("dynamodb:UpdateItem"))
    }

    async fn renew(&self, _key: &EventKey, _claim: &Claim, _fresh: &ClaimToken) -> Result<bool, PortError> {
        Err(touched("dynamodb:UpdateItem"))
    }

    async fn mark(&self, _key: &EventKey, _mark: &Mark) -> Result<(), PortError> {
        Err(touched("dynamodb:UpdateItem"))
    }

    async fn check(&self) -> Result<(), PortError> {
        Err(touched("dynamodb:DescribeTable"))
    }
}

/// A queue and a topic that a rehearsal has no business with.
struct Untouched;

fn touched(operation: &'static str) -> PortError {
    PortError {
        class: ErrorClass::Permanent,
        fault: Fault::Invalid,
        operation,
        detail: "a rehearsal changes nothing; this is a bug, please report it".to_owned(),
        source: None,
    }
}

#[async_trait]
impl MessageQueue for Untouched {
    async fn attributes(&self) -> Result<QueueAttributes, PortError> {
        Err(touched("sqs:GetQueueAttributes"))
    }

    async fn receive(&self, _: usize, _: Duration, _: Duration) -> Result<Vec<ReceivedMessage>, PortError> {
        Err(touched("sqs:ReceiveMessage"))
    }

    async fn change_visibility(&self, _: &Receipt, _: Duration) -> Result<(), PortError> {
        Err(touched("sqs:ChangeMessageVisibility"))
    }

    async fn delete(&self, _: &[Delivered]) -> Result<Vec<Result<(), PortError>>, PortError> {
        Err(touched("sqs:DeleteMessageBatch"))
    }
}

#[async_trait]
impl AlertPublisher for Untouched {
    async fn publish(&self, _: &[Outbound]) -> Result<Vec<Result<String, PortError>>, PortError> {
        Err(touched("sns:PublishBatch"))
    }

    async fn check(&self) -> Result<(), PortError> {
        Err(touched("sns:GetTopicAttributes"))
    }
}
