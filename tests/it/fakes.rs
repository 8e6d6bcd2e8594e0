//! Fakes of the four ports over one world in memory, on tokio's clock. They pass the same contract suite as the
//! adapters (`contract.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use trailhound::alert::{EventKey, Outbound, StoredItem};
use trailhound::claim::{Attempt, Claim, ClaimToken, Decision, ItemState, Mark, Recorded, decide};
use trailhound::deliver::Delivered;
use trailhound::ports::{
    AlertPublisher, AlertStore, ErrorClass, Fault, MessageQueue, ObjectBody, ObjectChunks, ObjectRequest, ObjectStore,
    PortError, Ports, QueueAttributes, Receipt, ReceivedMessage,
};
use trailhound::tracker::{
    Correlated, CountKind, CrossAttempt, CrossDecision, Crossed, Crossing, TrackerId, TrackerKind, TrackerState,
    decide_crossing, elsewhere, quiet_after, room_for_one, whole,
};

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It fails and did nothing.
    Fail(ErrorClass, Fault),
    /// It did its work, and the answer is lost.
    LoseAnswer,
    /// It did nothing and never ends.
    Hang,
    /// It did its work and never ends.
    HangAfter,
    /// It does its work so much later.
    Slow(Duration),
    /// The process that called dies before the call did anything.
    DieBefore,
    /// The process that called dies when the call did its work.
    DieAfter,
    /// It does its work and is answered; the process that called dies when every task that can run had so many turns.
    DieSoon(u32),
    /// Batches only: the entries whose bit is set fail, and only they.
    FailEntries(u32),
    /// Objects only: the body breaks off after so many bytes.
    Break(u64),
    /// Objects only: the body stands still after so many bytes.
    Stall(u64),
    /// Objects only: the body ends after so many bytes, as if that were all.
    Cut(u64),
    /// Objects only: the body breaks off after so many bytes, since another object took its place.
    Replace(u64),
}

impl Trouble {
    fn loses_the_answer(&self) -> bool {
        matches!(self, Self::LoseAnswer | Self::HangAfter | Self::DieAfter)
    }
}

/// What a witness of a world sees, as it happens.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A call begins; of a receive, how many messages it asks for.
    Began {
        operation: &'static str,
        max: usize,
    },
    /// Trouble comes over a call about these receipts, object keys, event or alert ids.
    Troubled {
        operation: &'static str,
        subjects: &'a [String],
        trouble: &'a Trouble,
    },
    /// A call is answered; `ok` also where the answer is that something is denied or missing.
    Ended {
        operation: &'static str,
        ok: bool,
    },
    Received {
        message: &'a str,
        receipt: &'a str,
    },
    /// A message that was received and not given back is visible again.
    Lapsed {
        receipt: &'a str,
    },
    VisibilityChanged {
        receipt: &'a str,
        delay: Duration,
    },
    /// A message is about to be deleted.
    Deleting {
        message: &'a str,
        receipt: &'a str,
    },
    /// An item is about to be stored, or looked at.
    Recording {
        item: &'a StoredItem,
    },
    /// An alert is about to be accepted.
    Accepting {
        alert: &'a Outbound,
        document: &'a serde_json::Value,
    },
    Marked {
        alert_id: &'a str,
    },
    /// A claim bears a token for the first time; `before` is the token of the claim that is taken over, if one is.
    Claimed {
        token: &'a str,
        before: Option<&'a str>,
    },
    /// The claim of somebody else is shown.
    Held {
        token: &'a str,
    },
    /// These alerts are about to be sent.
    Publishing {
        alerts: &'a [Outbound],
    },
    /// What these receipts or alert ids stand for was done, and whoever called never learns of it.
    AnswerLost {
        subjects: &'a [String],
    },
    Died,
}

/// Sees what each process, by its number, does in a world. It may lock anything of the world.
pub type Witness = Box<dyn FnMut(&World, u64, Seen<'_>) + Send>;

/// Decides about each call by its operation, such as `sns:Publish`.
pub type Troubles = Box<dyn FnMut(&'static str) -> Option<Trouble> + Send>;

/// The same, and by the number of the process that calls.
pub type TroublesOf = Box<dyn FnMut(u64, &'static str) -> Option<Trouble> + Send>;

#[derive(Debug)]
pub struct QueuedMessage {
    pub id: String,
    pub body: String,
    pub visible_at: Instant,
    pub receive_count: u32,
    pub receipt: Option<String>,
    pub received_at: Option<Instant>,
    /// Whether somebody received it and its visibility was not set otherwise since.
    pub held: bool,
}

#[derive(Debug, Default)]
pub struct QueueState {
    pub messages: Vec<QueuedMessage>,
    pub dead: Vec<QueuedMessage>,
    pub deleted: Vec<String>,
    /// The most messages that were invisible at once.
    pub most_in_flight: usize,
    /// The most receives of a message that was deleted.
    pub most_receives: u32,
    next: u64,
}

#[derive(Clone, Debug)]
pub struct StoredObject {
    pub bytes: Bytes,
    pub etag: String,
    /// Every body of this object breaks off here.
    pub breaks: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub item: StoredItem,
    pub state: ItemState,
    pub alert_ids: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct Accepted {
    pub alert: Outbound,
    /// The `trailhound.alert/1` document.
    pub document: serde_json::Value,
}

pub struct World {
    pub queue: Mutex<QueueState>,
    pub objects: Mutex<HashMap<(String, String), StoredObject>>,
    /// Buckets that deny everything.
    pub denied: Mutex<BTreeSet<String>>,
    pub table: Mutex<BTreeMap<EventKey, Row>>,
    /// Taken after the table, where both are.
    pub trackers: Mutex<BTreeMap<TrackerId, TrackerState>>,
    pub topic: Mutex<Vec<Accepted>>,
    pub troubles: Mutex<Troubles>,
    /// Asked first.
    pub troubles_of: Mutex<TroublesOf>,
    /// Events that an operation refuses for good, by their id.
    pub refused: Mutex<BTreeSet<(&'static str, String)>>,
    pub trace: Mutex<Vec<String>>,
    pub witness: Mutex<Witness>,
    pub visibility: Duration,
    pub max_receive_count: u32,
    /// Whether a receive that hangs ends in a time-out, as the adapter has it.
    pub receives_end: AtomicBool,
    /// How to kill each process, by its number.
    kills: Mutex<BTreeMap<u64, Kill>>,
    processes: AtomicU64,
    random: Mutex<fastrand::Rng>,
    arrived: Notify,
    began: Instant,
}

/// What the adapter adds to the wait of a receive before it ends the call.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);

type Kill = Box<dyn FnOnce() + Send>;

pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    pub fn new(seed: u64, visibility: Duration, max_receive_count: u32) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            objects: Mutex::default(),
            denied: Mutex::default(),
            table: Mutex::default(),
            trackers: Mutex::default(),
            topic: Mutex::default(),
            troubles: Mutex::new(Box::new(|_| None)),
            troubles_of: Mutex::new(Box::new(|_, _| None)),
            refused: Mutex::default(),
            trace: Mutex::default(),
            witness: Mutex::new(Box::new(|_, _, _| ())),
            visibility,
            max_receive_count,
            receives_end: AtomicBool::new(false),
            kills: Mutex::default(),
            processes: AtomicU64::new(0),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            arrived: Notify::new(),
            began: Instant::now(),
        })
    }

    /// The ports of a new process.
    pub fn ports(self: &Arc<Self>) -> Ports {
        self.ports_of(|| ()).1
    }

    /// The number of a new process, which `kill` kills, and its ports.
    pub fn ports_of(self: &Arc<Self>, kill: impl FnOnce() + Send + 'static) -> (u64, Ports) {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        lock(&self.kills).insert(process, Box::new(kill));
        let fake = Arc::new(Fake(Arc::clone(self), process));
        (process, Ports { queue: fake.clone(), objects: fake.clone(), publisher: fake.clone(), store: fake })
    }

    /// Kills a process where it stands.
    pub fn kill(&self, process: u64) {
        let kill = lock(&self.kills).remove(&process);
        if let Some(kill) = kill {
            kill();
            self.note(format!("process {process} dies"));
            self.saw(process, Seen::Died);
        }
    }

    fn saw(&self, process: u64, seen: Seen<'_>) {
        lock(&self.witness)(self, process, seen);
    }

    /// Makes held messages visible, as if their leases had run out: the one received longest ago, or every one. Gives
    /// their receipts.
    pub fn end_leases(&self, every: bool) -> Vec<String> {
        let now = Instant::now();
        let mut queue = lock(&self.queue);
        let mut held: Vec<_> = queue.messages.iter_mut().filter(|it| it.held && it.visible_at > now).collect();
        held.sort_by_key(|it| it.received_at);
        let mut receipts = Vec::new();
        for message in held.into_iter().take(if every { usize::MAX } else { 1 }) {
            message.visible_at = now;
            receipts.extend(message.receipt.clone());
        }
        drop(queue);
        self.arrived.notify_waiters();
        receipts
    }

    pub fn trouble(&self, troubles: impl FnMut(&'static str) -> Option<Trouble> + Send + 'static) {
        *lock(&self.troubles) = Box::new(troubles);
    }

    pub fn send(&self, body: impl Into<String>) -> String {
        let mut queue = lock(&self.queue);
        queue.next += 1;
        let id = format!("message-{}", queue.next);
        queue.messages.push(QueuedMessage {
            id: id.clone(),
            body: body.into(),
            visible_at: Instant::now(),
            receive_count: 0,
            receipt: None,
            received_at: None,
            held: false,
        });
        drop(queue);
        self.arrived.notify_waiters();
        id
    }

    pub fn put_object(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let etag = format!("\"{:x}-{}\"", bytes.len(), lock(&self.objects).len());
        lock(&self.objects).insert((bucket.to_owned(), key.to_owned()), StoredObject { bytes, etag, breaks: None });
    }

    /// Since the world began.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn note(&self, line: impl std::fmt::Display) {
        let at = self.began.elapsed().as_secs_f64();
        lock(&self.trace).push(format!("{at:10.3} {line}"));
    }
}

pub fn error(class: ErrorClass, fault: Fault, operation: &'static str) -> PortError {
    PortError { class, fault, operation, detail: "injected".to_owned(), source: None }
}

fn lost(operation: &'static str) -> PortError {
    error(ErrorClass::Transient, Fault::Unavailable, operation)
}

/// What one process, of this number, sees of the world.
struct Fake(Arc<World>, u64);

impl Fake {
    fn saw(&self, seen: Seen<'_>) {
        self.0.saw(self.1, seen);
    }

    /// A few milliseconds, so that calls interleave.
    async fn begin(&self, operation: &'static str, subjects: &[String]) -> Result<Option<Trouble>, PortError> {
        let Self(world, process) = self;
        let latency = lock(&world.random).u64(1..20);
        sleep(Duration::from_millis(latency)).await;
        let own = lock(&world.troubles_of)(*process, operation);
        let trouble = own.or_else(|| lock(&world.troubles)(operation));
        if let Some(trouble) = &trouble {
            world.note(format!("{process} {operation}: {trouble:?}"));
            self.saw(Seen::Troubled { operation, subjects, trouble });
        }
        match trouble {
            Some(Trouble::Fail(class, fault)) => {
                self.saw(Seen::Ended { operation, ok: class == ErrorClass::Permanent });
                Err(error(class, fault, operation))
            }
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::DieBefore) => self.die().await,
            Some(Trouble::Slow(delay)) => {
                sleep(delay).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    async fn end<T>(&self, trouble: Option<&Trouble>, operation: &'static str, value: T) -> Result<T, PortError> {
        match trouble {
            Some(Trouble::LoseAnswer) => {
                self.saw(Seen::Ended { operation, ok: false });
                return Err(lost(operation));
            }
            Some(Trouble::HangAfter) => std::future::pending().await,
            Some(Trouble::DieAfter) => self.die().await,
            Some(Trouble::DieSoon(turns)) => {
                let (world, process, turns) = (Arc::clone(&self.0), self.1, Turns(*turns));
                tokio::spawn(async move {
                    turns.await;
                    world.kill(process);
                });
            }
            _ => {}
        }
        self.saw(Seen::Ended { operation, ok: true });
        Ok(value)
    }

    /// Refuses what this operation is to refuse of an event.
    fn accepts(&self, operation: &'static str, event_id: &str, subject: &str) -> Result<(), PortError> {
        if !lock(&self.0.refused).contains(&(operation, event_id.to_owned())) {
            return Ok(());
        }
        self.0.note(format!("{} {operation}: {event_id} is refused", self.1));
        let trouble = Trouble::Fail(ErrorClass::Permanent, Fault::Invalid);
        self.saw(Seen::Troubled { operation, subjects: &[subject.to_owned()], trouble: &trouble });
        self.saw(Seen::Ended { operation, ok: true });
        Err(error(ErrorClass::Permanent, Fault::Invalid, operation))
    }

    async fn receive_or_hang(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<ReceivedMessage>, PortError> {
        let (world, operation) = (&self.0, "sqs:ReceiveMessage");
        self.saw(Seen::Began { operation, max });
        let trouble = self.begin(operation, &[]).await?;
        let deadline = Instant::now() + wait;
        loop {
            let arrived = world.arrived.notified();
            let (received, next) = self.take(max, visibility);
            if !received.is_empty() || Instant::now() >= deadline {
                if trouble.as_ref().is_some_and(Trouble::loses_the_answer) {
                    let subjects: Vec<_> = received.iter().map(|it| it.receipt.0.clone()).collect();
                    self.saw(Seen::AnswerLost { subjects: &subjects });
                }
                // On its way back: whoever drops the call now has received what nobody holds.
                let latency = lock(&world.random).u64(1..20);
                sleep(Duration::from_millis(latency)).await;
                return self.end(trouble.as_ref(), operation, received).await;
            }
            tokio::select! {
                biased;
                () = arrived => {}
                () = sleep_until(next.unwrap_or(deadline).min(deadline)) => {}
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.0.kill(self.1);
        std::future::pending().await
    }
}

/// Lets every task that can run have a turn, so many times.
struct Turns(u32);

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[async_trait]
impl MessageQueue for Fake {
    async fn attributes(&self) -> Result<QueueAttributes, PortError> {
        let trouble = self.begin("sqs:GetQueueAttributes", &[]).await?;
        let attributes = {
            let queue = lock(&self.0.queue);
            let now = Instant::now();
            let visible = queue.messages.iter().filter(|it| it.visible_at <= now).count() as u64;
            QueueAttributes {
                visibility_timeout: self.0.visibility,
                visible,
                in_flight: queue.messages.len() as u64 - visible,
                delayed: 0,
                max_receive_count: Some(self.0.max_receive_count),
            }
        };
        self.end(trouble.as_ref(), "sqs:GetQueueAttributes", attributes).await
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<ReceivedMessage>, PortError> {
        let receiving = self.receive_or_hang(max, wait, visibility);
        if !self.0.receives_end.load(Ordering::Relaxed) {
            return receiving.await;
        }
        let Ok(answer) = tokio::time::timeout(wait + RECEIVE_TIMEOUT, receiving).await else {
            let operation = "sqs:ReceiveMessage";
            self.saw(Seen::Ended { operation, ok: false });
            return Err(lost(operation));
        };
        answer
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), PortError> {
        let operation = "sqs:ChangeMessageVisibility";
        let trouble = self.begin(operation, std::slice::from_ref(&receipt.0)).await?;
        let (changed, lapsed) = {
            let mut queue = lock(&self.0.queue);
            let now = Instant::now();
            let message = queue.messages.iter_mut().find(|it| it.receipt.as_deref() == Some(receipt.0.as_str()));
            match message {
                Some(message) if message.visible_at > now => {
                    let longest = message.received_at.map(|at| at + Duration::from_secs(12 * 3600));
                    if longest.is_some_and(|longest| now + visibility > longest) {
                        (Err(Fault::Invalid), false)
                    } else {
                        message.visible_at = now + visibility;
                        message.held = !visibility.is_zero();
                        (Ok(()), false)
                    }
                }
                other => (Err(Fault::LeaseLost), other.is_some_and(|it| std::mem::take(&mut it.held))),
            }
        };
        if lapsed {
            self.saw(Seen::Lapsed { receipt: &receipt.0 });
        }
        if let Err(fault) = changed {
            self.saw(Seen::Ended { operation, ok: true });
            return Err(error(ErrorClass::Permanent, fault, operation));
        }
        self.saw(Seen::VisibilityChanged { receipt: &receipt.0, delay: visibility });
        if visibility.is_zero() {
            self.0.note(format!("{} {} given back", self.1, receipt.0));
            self.0.arrived.notify_waiters();
        }
        self.end(trouble.as_ref(), operation, ()).await
    }

    async fn delete(&self, delivered: &[Delivered]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let operation = "sqs:DeleteMessageBatch";
        assert!(!delivered.is_empty() && delivered.len() <= 10, "SQS deletes one to ten messages at once");
        let receipts: Vec<_> = delivered.iter().map(|it| it.receipt().0.clone()).collect();
        let trouble = self.begin(operation, &receipts).await?;
        let mut results = Vec::new();
        for (entry, one) in delivered.iter().enumerate() {
            if fails(trouble.as_ref(), entry) {
                results.push(Err(lost(operation)));
                continue;
            }
            results.push(Ok(()));
            let there = lock(&self.0.queue)
                .messages
                .iter()
                .position(|it| it.receipt.as_deref() == Some(one.receipt().0.as_str()));
            if there.is_some() {
                self.saw(Seen::Deleting { message: one.message_id(), receipt: &one.receipt().0 });
                let mut queue = lock(&self.0.queue);
                if let Some(at) = queue.messages.iter().position(|it| it.id == one.message_id()) {
                    let message = queue.messages.remove(at);
                    queue.most_receives = queue.most_receives.max(message.receive_count);
                    queue.deleted.push(message.id);
                }
                self.0.note(format!("{} {} deleted", self.1, one.receipt().0));
            }
        }
        self.end(trouble.as_ref(), operation, results).await
    }
}

impl Fake {
    /// Receives what is visible, and moves to the dead-letter queue what was received too often. Gives also when the
    /// next message will be visible.
    fn take(&self, max: usize, visibility: Duration) -> (Vec<ReceivedMessage>, Option<Instant>) {
        let world = &self.0;
        let now = Instant::now();
        let (mut received, mut lapsed) = (Vec::new(), Vec::new());
        let mut queue = lock(&world.queue);
        for message in std::mem::take(&mut queue.messages) {
            let visible = message.visible_at <= now;
            let dies = visible && message.receive_count >= world.max_receive_count;
            let mut message = message;
            if dies || (visible && received.len() < max) {
                lapsed.extend(message.receipt.clone().filter(|_| message.held));
            }
            if dies {
                world.note(format!("{} is dead", message.id));
                queue.dead.push(message);
                continue;
            }
            if visible && received.len() < max {
                message.receive_count += 1;
                message.visible_at = now + visibility;
                message.received_at = Some(now);
                message.held = true;
                let receipt = format!("{}/{}", message.id, message.receive_count);
                message.receipt = Some(receipt.clone());
                world.note(format!("{} {receipt} received", self.1));
                received.push(ReceivedMessage {
                    message_id: message.id.clone(),
                    receipt: Receipt(receipt),
                    body: message.body.clone(),
                    receive_count: message.receive_count,
                    sent_at: None,
                });
            }
            queue.messages.push(message);
        }
        let in_flight = queue.messages.iter().filter(|it| it.visible_at > now).count();
        queue.most_in_flight = queue.most_in_flight.max(in_flight);
        let next = queue.messages.iter().map(|it| it.visible_at).min();
        drop(queue);
        for receipt in lapsed {
            self.saw(Seen::Lapsed { receipt: &receipt });
        }
        for ReceivedMessage { message_id, receipt, .. } in &received {
            self.saw(Seen::Received { message: message_id, receipt: &receipt.0 });
        }
        (received, next)
    }
}

/// Whether this entry of a batch is one that fails.
fn fails(trouble: Option<&Trouble>, entry: usize) -> bool {
    matches!(trouble, Some(Trouble::FailEntries(which)) if which >> entry & 1 == 1)
}

#[async_trait]
impl ObjectStore for Fake {
    async fn open(&self, request: &ObjectRequest) -> Result<ObjectBody, PortError> {
        let operation = "s3:GetObject";
        let trouble = self.begin(operation, std::slice::from_ref(&request.key)).await?;
        let object = self.find(request);
        let object = match object {
            Ok(object) => object,
            Err(error) => {
                self.saw(Seen::Ended { operation, ok: true });
                return Err(error);
            }
        };
        let start = usize::try_from(request.start).unwrap().min(object.bytes.len());
        let mut rest = object.bytes.slice(start..);
        let (mut breaks, mut stalls) = (object.breaks.map(|at| at.saturating_sub(request.start)), None);
        match trouble {
            Some(Trouble::Break(after)) => breaks = Some(after),
            Some(Trouble::Stall(after)) => stalls = Some(after),
            Some(Trouble::Cut(after)) => rest.truncate(usize::try_from(after).unwrap()),
            Some(Trouble::Replace(after)) => {
                breaks = Some(after);
                let place = (request.bucket.clone(), request.key.clone());
                if let Some(object) = lock(&self.0.objects).get_mut(&place) {
                    object.etag.insert(1, 'r');
                }
            }
            _ => {}
        }
        let length = rest.len() as u64;
        let body = ObjectBody {
            etag: Some(object.etag),
            length: Some(length),
            chunks: Box::new(Chunks { rest, breaks, stalls }),
        };
        self.end(trouble.as_ref(), operation, body).await
    }

    async fn check(&self) -> Result<(), PortError> {
        let trouble = self.begin("s3:HeadBucket", &[]).await?;
        self.end(trouble.as_ref(), "s3:HeadBucket", ()).await
    }
}

impl Fake {
    fn find(&self, request: &ObjectRequest) -> Result<StoredObject, PortError> {
        let operation = "s3:GetObject";
        if lock(&self.0.denied).contains(&request.bucket) {
            let (process, key) = (self.1, &request.key);
            self.0.note(format!("{process} {key} is denied"));
            // The objects of the second trail are encrypted, and it is their key that is denied.
            let denied = if key.starts_with("trail-b/") {
                Fault::KmsDenied { action: "kms:Decrypt" }
            } else {
                Fault::Denied { action: "s3:GetObject" }
            };
            let trouble = Trouble::Fail(ErrorClass::Permanent, denied.clone());
            self.saw(Seen::Troubled { operation, subjects: std::slice::from_ref(key), trouble: &trouble });
            return Err(error(ErrorClass::Permanent, denied, operation));
        }
        let object = lock(&self.0.objects)
            .get(&(request.bucket.clone(), request.key.clone()))
            .cloned()
            .ok_or_else(|| error(ErrorClass::Permanent, Fault::Missing, operation))?;
        if request.if_match.as_ref().is_some_and(|etag| *etag != object.etag) {
            return Err(error(ErrorClass::Transient, Fault::Changed, operation));
        }
        Ok(object)
    }
}

struct Chunks {
    rest: Bytes,
    /// Bytes to give before the connection breaks.
    breaks: Option<u64>,
    /// Bytes to give before the connection stands still.
    stalls: Option<u64>,
}

#[async_trait]
impl ObjectChunks for Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, PortError> {
        if self.breaks == Some(0) {
            return Err(error(ErrorClass::Transient, Fault::Truncated, "s3:GetObject"));
        }
        if self.stalls == Some(0) {
            return std::future::pending().await;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut length = self.rest.len().min(700);
        for left in [&mut self.breaks, &mut self.stalls].into_iter().flatten() {
            length = length.min(usize::try_from(*left).unwrap());
            *left -= length as u64;
        }
        Ok(Some(self.rest.split_to(length)))
    }
}

/// The operation that refuses a whole call for one of its alerts, where `sns:PublishBatch` refuses that entry.
pub const WHOLE_PUBLISH: &str = "sns:PublishBatch, whole";

fn document(alert: &Outbound) -> serde_json::Value {
    let copies: serde_json::Value = serde_json::from_str(&alert.message).unwrap();
    serde_json::from_str(copies["default"].as_str().unwrap()).unwrap()
}

#[async_trait]
impl AlertPublisher for Fake {
    async fn publish(&self, alerts: &[Outbound]) -> Result<Vec<Result<String, PortError>>, PortError> {
        let operation = "sns:PublishBatch";
        assert!(!alerts.is_empty() && alerts.len() <= 10, "SNS takes one to ten alerts at once");
        let subjects: Vec<_> = alerts.iter().map(|it| it.alert_id.clone()).collect();
        self.saw(Seen::Publishing { alerts });
        let trouble = self.begin(operation, &subjects).await?;
        for alert in alerts {
            self.accepts(WHOLE_PUBLISH, document(alert)["event_id"].as_str().unwrap_or_default(), &alert.alert_id)?;
        }
        let mut ids = Vec::new();
        for (entry, alert) in alerts.iter().enumerate() {
            if fails(trouble.as_ref(), entry) {
                ids.push(Err(lost(operation)));
                continue;
            }
            let document = document(alert);
            if let Err(refused) =
                self.accepts(operation, document["event_id"].as_str().unwrap_or_default(), &alert.alert_id)
            {
                ids.push(Err(refused));
                continue;
            }
            self.0.note(format!("{} {} accepted", self.1, alert.alert_id));
            self.saw(Seen::Accepting { alert, document: &document });
            let mut topic = lock(&self.0.topic);
            ids.push(Ok(format!("sns-{}", topic.len())));
            topic.push(Accepted { alert: alert.clone(), document });
        }
        if trouble.as_ref().is_some_and(Trouble::loses_the_answer) {
            self.saw(Seen::AnswerLost { subjects: &subjects });
        }
        if ids.iter().all(Result::is_err) {
            let refused =
                |id: &Result<String, PortError>| id.as_ref().is_err_and(|it| it.class == ErrorClass::Permanent);
            self.saw(Seen::Ended { operation, ok: ids.iter().all(refused) });
            return Ok(ids);
        }
        self.end(trouble.as_ref(), operation, ids).await
    }

    async fn check(&self) -> Result<(), PortError> {
        let trouble = self.begin("sns:GetTopicAttributes", &[]).await?;
        self.end(trouble.as_ref(), "sns:GetTopicAttributes", ()).await
    }
}

#[async_trait]
impl AlertStore for Fake {
    async fn record(
        &self,
        item: &StoredItem,
        token: &ClaimToken,
        length: Duration,
        expired: Option<&ClaimToken>,
    ) -> Result<Recorded, PortError> {
        let operation = "dynamodb:PutItem";
        let trouble = self.begin(operation, std::slice::from_ref(&item.key.event_id)).await?;
        self.accepts(operation, &item.key.event_id, &item.key.event_id)?;
        self.saw(Seen::Recording { item });
        let before;
        let (mut claimed, mut held) = (None, None);
        let recorded = {
            let mut table = lock(&self.0.table);
            let mut trackers = lock(&self.0.trackers);
            let there = table.get(&item.key).map(|row| &row.state);
            let live = there.and_then(|it| it.claim.as_ref().filter(|claim| !claim.alert.rules.is_subset(&it.settled)));
            before = live.map(|claim| claim.token.0.clone());
            match decide(there, Attempt { item, token, length, expired, trackers: &trackers }) {
                Decision::Answer(Recorded::Held(claim)) => {
                    held = Some(claim.token.0.clone());
                    Recorded::Held(claim)
                }
                Decision::Answer(recorded) => recorded,
                Decision::Write(change) => {
                    let row = table.entry(item.key.clone()).or_insert_with(|| Row {
                        item: item.clone(),
                        state: ItemState::default(),
                        alert_ids: BTreeSet::new(),
                    });
                    row.state.rules.extend(change.rules.iter().cloned());
                    row.state.settled.extend(change.settled.iter().cloned());
                    if let Some(claim) = &change.claim {
                        row.state.claim = Some(claim.clone());
                        claimed = Some(claim.token.0.clone());
                    }
                    for count in &change.counts {
                        let member = &count.membership;
                        row.state.groups.insert(member.rule.clone(), member.tracker.clone());
                        let before = trackers.remove(&member.tracker);
                        trackers.insert(member.tracker.clone(), count.applied(before));
                        if let (CountKind::Opening, Some(sighting)) = (count.kind, &member.sighting) {
                            trackers.entry(sighting.keys.clone()).or_default().count += 1;
                        }
                    }
                    change.answer()
                }
            }
        };
        if let Some(token) = &held {
            self.saw(Seen::Held { token });
        }
        if let Some(token) = &claimed {
            self.saw(Seen::Claimed { token, before: before.as_deref() });
        }
        self.end(trouble.as_ref(), operation, recorded).await
    }

    async fn cross(&self, attempt: CrossAttempt<'_>) -> Result<Crossed, PortError> {
        let operation = "dynamodb:UpdateItem#cross";
        let trouble = self.begin(operation, &[attempt.tracker.to_string()]).await?;
        let (mut token, mut held, mut before) = (None, None, None);
        let crossed = {
            let mut trackers = lock(&self.0.trackers);
            let id = attempt.tracker;
            let state_of = |trackers: &BTreeMap<TrackerId, TrackerState>| match id.kind() {
                TrackerKind::Correlation => whole(id, |id| trackers.get(id).cloned()),
                _ => trackers.get(id).cloned(),
            };
            let claimed = |trackers: &BTreeMap<TrackerId, TrackerState>, claim: Claim| {
                let mut state = state_of(trackers).unwrap();
                let step = state.step();
                if let Some(there) = elsewhere(id, &state) {
                    state = whole(&there, |id| trackers.get(id).cloned()).unwrap_or(state);
                }
                let before = id.previous(state.window).filter(|_| step == 1 && state.correlated.is_none());
                Crossed::Claimed(Box::new(Crossing {
                    tracker: id.clone(),
                    step,
                    claim,
                    previous: before.and_then(|before| Some(trackers.get(&before)?.count)),
                    state,
                }))
            };
            loop {
                let state = state_of(&trackers);
                let opened = || TrackerState { quiet: 0, claim: None, ..state.clone().unwrap() };
                match decide_crossing(state.as_ref(), attempt) {
                    CrossDecision::Clear => break Crossed::Clear,
                    CrossDecision::Held(claim) => {
                        held = Some(claim.token.0.clone());
                        break Crossed::Held(claim);
                    }
                    CrossDecision::Claimed(claim) => break claimed(&trackers, claim),
                    CrossDecision::Write(claim, span) => {
                        let steps = trackers.entry(id.steps()).or_insert_with(opened);
                        if let Some(correlated) = &mut steps.correlated {
                            correlated.pending = span;
                            correlated.told = room_for_one(&correlated.told);
                        }
                        let replaced = steps.claim.replace(claim.clone());
                        before = replaced.filter(|it| it.alert.alert_id == claim.alert.alert_id).map(|it| it.token.0);
                        token = Some(claim.token.0.clone());
                        break claimed(&trackers, claim);
                    }
                    CrossDecision::Remember(told) => {
                        let steps = trackers.entry(id.steps()).or_insert_with(opened);
                        steps.quiet += 1;
                        steps.correlated.as_mut().unwrap().told = told;
                    }
                    CrossDecision::Begin(from) => {
                        let correlated = state.as_ref().unwrap().correlated.clone().unwrap();
                        let since = trackers.entry(correlated.since_at()).or_default();
                        since.correlated = Some(Correlated { since: Some(from), ..correlated });
                    }
                }
            }
        };
        if let Some(token) = &held {
            self.saw(Seen::Held { token });
        }
        if let Some(token) = &token {
            self.saw(Seen::Claimed { token, before: before.as_deref() });
        }
        self.end(trouble.as_ref(), operation, crossed).await
    }

    async fn mark_step(&self, tracker: &TrackerId, step: u64, mark: &Mark) -> Result<bool, PortError> {
        let operation = "dynamodb:UpdateItem#mark";
        let trouble = self.begin(operation, std::slice::from_ref(&mark.alert.alert_id)).await?;
        let clear = lock(&self.0.trackers).get_mut(&tracker.steps()).is_none_or(|state| {
            let Some(correlated) = &mut state.correlated else {
                state.quiet = state.quiet.max(quiet_after(step));
                return !state.is_due();
            };
            if state.quiet < step {
                state.quiet = step;
                correlated.told.extend(correlated.pending);
            }
            false
        });
        self.0.note(format!("{} {} marked", self.1, mark.alert.alert_id));
        self.saw(Seen::Marked { alert_id: &mark.alert.alert_id });
        self.end(trouble.as_ref(), operation, clear).await
    }

    async fn settle(&self, key: &EventKey, rules: &BTreeSet<String>) -> Result<(), PortError> {
        let operation = "dynamodb:UpdateItem#settle";
        let trouble = self.begin(operation, std::slice::from_ref(&key.event_id)).await?;
        if let Some(row) = lock(&self.0.table).get_mut(key) {
            row.state.settled.extend(rules.iter().cloned());
        }
        self.end(trouble.as_ref(), operation, ()).await
    }

    async fn renew(&self, key: &EventKey, claim: &Claim, fresh: &ClaimToken) -> Result<bool, PortError> {
        let operation = "dynamodb:UpdateItem";
        let trouble = self.begin(operation, std::slice::from_ref(&key.event_id)).await?;
        self.accepts(operation, &key.event_id, &key.event_id)?;
        let mut renewed = false;
        let ours = {
            let mut table = lock(&self.0.table);
            let mut trackers = lock(&self.0.trackers);
            let held = match TrackerId::of_key(key) {
                Some(tracker) => trackers.get_mut(&tracker).and_then(|state| state.claim.as_mut()),
                None => table.get_mut(key).and_then(|row| row.state.claim.as_mut()),
            };
            match held {
                Some(held) if held.token == claim.token => {
                    held.token = fresh.clone();
                    renewed = true;
                    true
                }
                Some(held) => held.token == *fresh,
                None => false,
            }
        };
        if renewed {
            self.saw(Seen::Claimed { token: &fresh.0, before: None });
        }
        self.end(trouble.as_ref(), operation, ours).await
    }

    async fn mark(&self, key: &EventKey, mark: &Mark) -> Result<(), PortError> {
        let operation = "dynamodb:UpdateItem#mark";
        let trouble = self.begin(operation, std::slice::from_ref(&mark.alert.alert_id)).await?;
        self.accepts(operation, &key.event_id, &mark.alert.alert_id)?;
        if let Some(row) = lock(&self.0.table).get_mut(key) {
            row.state.settled.extend(mark.alert.rules.iter().cloned());
            row.alert_ids.insert(mark.alert.alert_id.clone());
        }
        self.0.note(format!("{} {} marked", self.1, mark.alert.alert_id));
        self.saw(Seen::Marked { alert_id: &mark.alert.alert_id });
        self.end(trouble.as_ref(), operation, ()).await
    }

    async fn check(&self) -> Result<(), PortError> {
        let trouble = self.begin("dynamodb:DescribeTable", &[]).await?;
        self.end(trouble.as_ref(), "dynamodb:DescribeTable", ()).await
    }
}
