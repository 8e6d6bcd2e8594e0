//! Fakes of the four ports over one world in memory, on tokio's clock. They pass the same contract suite as the
//! adapters (`contract.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
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
    /// Objects only: the body breaks off after so many bytes.
    Break(u64),
}

/// Decides about each call by its operation, such as `sns:Publish`.
pub type Troubles = Box<dyn FnMut(&'static str) -> Option<Trouble> + Send>;

pub type OnDelete = Box<dyn FnMut(&World, &str) + Send>;

#[derive(Debug)]
pub struct QueuedMessage {
    pub id: String,
    pub body: String,
    pub visible_at: Instant,
    pub receive_count: u32,
    pub receipt: Option<String>,
    pub received_at: Option<Instant>,
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
    pub topic: Mutex<Vec<Accepted>>,
    pub troubles: Mutex<Troubles>,
    pub trace: Mutex<Vec<String>>,
    /// Called with the id of each message that is deleted, before it is.
    pub on_delete: Mutex<OnDelete>,
    pub visibility: Duration,
    pub max_receive_count: u32,
    /// How to kill each process, by its number.
    kills: Mutex<BTreeMap<u64, Kill>>,
    processes: AtomicU64,
    random: Mutex<fastrand::Rng>,
    arrived: Notify,
}

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
            topic: Mutex::default(),
            troubles: Mutex::new(Box::new(|_| None)),
            trace: Mutex::default(),
            on_delete: Mutex::new(Box::new(|_, _| ())),
            visibility,
            max_receive_count,
            kills: Mutex::default(),
            processes: AtomicU64::new(0),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            arrived: Notify::new(),
        })
    }

    /// The ports of a new process.
    pub fn ports(self: &Arc<Self>) -> Ports {
        self.ports_of(|| ())
    }

    /// The ports of a new process, which `kill` kills.
    pub fn ports_of(self: &Arc<Self>, kill: impl FnOnce() + Send + 'static) -> Ports {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        lock(&self.kills).insert(process, Box::new(kill));
        let fake = Arc::new(Fake(Arc::clone(self), process));
        Ports { queue: fake.clone(), objects: fake.clone(), publisher: fake.clone(), store: fake }
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

    pub fn note(&self, line: impl Into<String>) {
        lock(&self.trace).push(line.into());
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
    /// A few milliseconds, so that calls interleave.
    async fn begin(&self, operation: &'static str) -> Result<Option<Trouble>, PortError> {
        let Self(world, _) = self;
        let latency = lock(&world.random).u64(1..20);
        sleep(Duration::from_millis(latency)).await;
        let trouble = lock(&world.troubles)(operation);
        if let Some(trouble) = &trouble {
            world.note(format!("{operation}: {trouble:?}"));
        }
        match trouble {
            Some(Trouble::Fail(class, fault)) => Err(error(class, fault, operation)),
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
            Some(Trouble::LoseAnswer) => Err(lost(operation)),
            Some(Trouble::HangAfter) => std::future::pending().await,
            Some(Trouble::DieAfter) => self.die().await,
            _ => Ok(value),
        }
    }

    async fn die<T>(&self) -> T {
        let kill = lock(&self.0.kills).remove(&self.1);
        if let Some(kill) = kill {
            kill();
        }
        std::future::pending().await
    }
}

#[async_trait]
impl MessageQueue for Fake {
    async fn attributes(&self) -> Result<QueueAttributes, PortError> {
        let trouble = self.begin("sqs:GetQueueAttributes").await?;
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
        let world = &self.0;
        let trouble = self.begin("sqs:ReceiveMessage").await?;
        let deadline = Instant::now() + wait;
        loop {
            let arrived = world.arrived.notified();
            let (received, next) = {
                let mut queue = lock(&world.queue);
                let now = Instant::now();
                let (dead, mut alive): (Vec<_>, Vec<_>) = std::mem::take(&mut queue.messages)
                    .into_iter()
                    .partition(|it| it.visible_at <= now && it.receive_count >= world.max_receive_count);
                for message in &dead {
                    world.note(format!("{} is dead", message.id));
                }
                queue.dead.extend(dead);
                let mut received = Vec::new();
                for message in alive.iter_mut().filter(|it| it.visible_at <= now).take(max) {
                    message.receive_count += 1;
                    message.visible_at = now + visibility;
                    message.received_at = Some(now);
                    let receipt = format!("{}/{}", message.id, message.receive_count);
                    message.receipt = Some(receipt.clone());
                    world.note(format!("{receipt} received"));
                    received.push(ReceivedMessage {
                        message_id: message.id.clone(),
                        receipt: Receipt(receipt),
                        body: message.body.clone(),
                        receive_count: message.receive_count,
                        sent_at: None,
                    });
                }
                let in_flight = alive.iter().filter(|it| it.visible_at > now).count();
                queue.most_in_flight = queue.most_in_flight.max(in_flight);
                let next = alive.iter().map(|it| it.visible_at).min();
                queue.messages = alive;
                (received, next)
            };
            if !received.is_empty() || Instant::now() >= deadline {
                // On its way back: whoever drops the call now has received what nobody holds.
                let latency = lock(&world.random).u64(1..20);
                sleep(Duration::from_millis(latency)).await;
                return self.end(trouble.as_ref(), "sqs:ReceiveMessage", received).await;
            }
            tokio::select! {
                biased;
                () = arrived => {}
                () = sleep_until(next.unwrap_or(deadline).min(deadline)) => {}
            }
        }
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), PortError> {
        let operation = "sqs:ChangeMessageVisibility";
        let trouble = self.begin(operation).await?;
        {
            let mut queue = lock(&self.0.queue);
            let now = Instant::now();
            let message = queue
                .messages
                .iter_mut()
                .find(|it| it.receipt.as_deref() == Some(receipt.0.as_str()) && it.visible_at > now)
                .ok_or_else(|| error(ErrorClass::Permanent, Fault::LeaseLost, operation))?;
            message.visible_at = now + visibility;
            if message.received_at.is_some_and(|at| message.visible_at > at + Duration::from_secs(12 * 3600)) {
                return Err(error(ErrorClass::Permanent, Fault::Invalid, operation));
            }
        }
        if visibility.is_zero() {
            self.0.note(format!("{} given back", receipt.0));
            self.0.arrived.notify_waiters();
        }
        self.end(trouble.as_ref(), operation, ()).await
    }

    async fn delete(&self, delivered: &[Delivered]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let operation = "sqs:DeleteMessageBatch";
        assert!(!delivered.is_empty() && delivered.len() <= 10, "SQS deletes one to ten messages at once");
        let trouble = self.begin(operation).await?;
        for one in delivered {
            let there = lock(&self.0.queue)
                .messages
                .iter()
                .position(|it| it.receipt.as_deref() == Some(one.receipt().0.as_str()));
            if there.is_some() {
                let mut check = std::mem::replace(&mut *lock(&self.0.on_delete), Box::new(|_, _| ()));
                check(&self.0, one.message_id());
                *lock(&self.0.on_delete) = check;
                let mut queue = lock(&self.0.queue);
                if let Some(at) = queue.messages.iter().position(|it| it.id == one.message_id()) {
                    let message = queue.messages.remove(at);
                    queue.most_receives = queue.most_receives.max(message.receive_count);
                    queue.deleted.push(message.id);
                }
                self.0.note(format!("{} deleted", one.receipt().0));
            }
        }
        self.end(trouble.as_ref(), operation, delivered.iter().map(|_| Ok(())).collect()).await
    }
}

#[async_trait]
impl ObjectStore for Fake {
    async fn open(&self, request: &ObjectRequest) -> Result<ObjectBody, PortError> {
        let operation = "s3:GetObject";
        let trouble = self.begin(operation).await?;
        if lock(&self.0.denied).contains(&request.bucket) {
            return Err(error(ErrorClass::Permanent, Fault::Denied { action: "s3:GetObject" }, operation));
        }
        let object = lock(&self.0.objects)
            .get(&(request.bucket.clone(), request.key.clone()))
            .cloned()
            .ok_or_else(|| error(ErrorClass::Permanent, Fault::Missing, operation))?;
        if request.if_match.as_ref().is_some_and(|etag| *etag != object.etag) {
            return Err(error(ErrorClass::Transient, Fault::Changed, operation));
        }
        let start = usize::try_from(request.start).unwrap().min(object.bytes.len());
        let rest = object.bytes.slice(start..);
        let length = rest.len() as u64;
        let breaks = match trouble {
            Some(Trouble::Break(after)) => Some(after),
            Some(Trouble::LoseAnswer | Trouble::HangAfter | Trouble::DieAfter) => {
                return self.end(trouble.as_ref(), operation, ()).await.and(Err(lost(operation)));
            }
            _ => object.breaks.map(|at| at.saturating_sub(request.start)),
        };
        Ok(ObjectBody { etag: Some(object.etag), length: Some(length), chunks: Box::new(Chunks { rest, breaks }) })
    }

    async fn check(&self) -> Result<(), PortError> {
        let trouble = self.begin("s3:HeadBucket").await?;
        self.end(trouble.as_ref(), "s3:HeadBucket", ()).await
    }
}

struct Chunks {
    rest: Bytes,
    /// Bytes to give before the connection breaks.
    breaks: Option<u64>,
}

#[async_trait]
impl ObjectChunks for Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, PortError> {
        if self.breaks == Some(0) {
            return Err(error(ErrorClass::Transient, Fault::Truncated, "s3:GetObject"));
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut length = self.rest.len().min(700);
        if let Some(left) = &mut self.breaks {
            length = length.min(usize::try_from(*left).unwrap());
            *left -= length as u64;
        }
        Ok(Some(self.rest.split_to(length)))
    }
}

#[async_trait]
impl AlertPublisher for Fake {
    async fn publish(&self, alerts: &[Outbound]) -> Result<Vec<Result<String, PortError>>, PortError> {
        let operation = "sns:PublishBatch";
        assert!(!alerts.is_empty() && alerts.len() <= 10, "SNS takes one to ten alerts at once");
        let trouble = self.begin(operation).await?;
        let mut ids = Vec::new();
        for alert in alerts {
            let copies: serde_json::Value = serde_json::from_str(&alert.message).unwrap();
            let document = serde_json::from_str(copies["default"].as_str().unwrap()).unwrap();
            let mut topic = lock(&self.0.topic);
            ids.push(Ok(format!("sns-{}", topic.len())));
            topic.push(Accepted { alert: alert.clone(), document });
            self.0.note(format!("{} accepted", alert.alert_id));
        }
        self.end(trouble.as_ref(), operation, ids).await
    }

    async fn check(&self) -> Result<(), PortError> {
        let trouble = self.begin("sns:GetTopicAttributes").await?;
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
        let trouble = self.begin(operation).await?;
        let recorded = {
            let mut table = lock(&self.0.table);
            let there = table.get(&item.key).map(|row| &row.state);
            match decide(there, Attempt { item, token, length, expired }) {
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
                    }
                    change.answer()
                }
            }
        };
        self.end(trouble.as_ref(), operation, recorded).await
    }

    async fn renew(&self, key: &EventKey, claim: &Claim, fresh: &ClaimToken) -> Result<bool, PortError> {
        let operation = "dynamodb:UpdateItem";
        let trouble = self.begin(operation).await?;
        let ours = {
            let mut table = lock(&self.0.table);
            let held = table.get_mut(key).and_then(|row| row.state.claim.as_mut());
            match held {
                Some(held) if held.token == claim.token => {
                    held.token = fresh.clone();
                    true
                }
                Some(held) => held.token == *fresh,
                None => false,
            }
        };
        self.end(trouble.as_ref(), operation, ours).await
    }

    async fn mark(&self, key: &EventKey, mark: &Mark) -> Result<(), PortError> {
        let operation = "dynamodb:UpdateItem#mark";
        let trouble = self.begin(operation).await?;
        if let Some(row) = lock(&self.0.table).get_mut(key) {
            row.state.settled.extend(mark.alert.rules.iter().cloned());
            row.alert_ids.insert(mark.alert.alert_id.clone());
            self.0.note(format!("{} marked", mark.alert.alert_id));
        }
        self.end(trouble.as_ref(), operation, ()).await
    }

    async fn check(&self) -> Result<(), PortError> {
        let trouble = self.begin("dynamodb:DescribeTable").await?;
        self.end(trouble.as_ref(), "dynamodb:DescribeTable", ()).await
    }
}
