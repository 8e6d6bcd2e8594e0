//! The other side, a process of its own: SQS and S3 as lean as they can be, so that they cost the machine little, and
//! the emulator's SNS and DynamoDB behind them. It is told what to do line by line, and answers so.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;
use trailhound::emulator::{Emulator, Names, Options, Published, Resources};

use crate::plan::{Objects, Plan, Scenario, key, object_of};
use crate::usage::of_this_thread;

pub const REGION: &str = "eu-central-1";
const BUCKET: &str = "example-cloudtrail-logs";
const ACCOUNT: &str = "000000000000";
/// Between two messages of [`Scenario::Latency`]: long enough that the daemon is idle again.
const IDLE: Duration = Duration::from_millis(150);
/// Between two small objects of [`Scenario::Fair`].
const SMALL: Duration = Duration::from_millis(20);

/// A line to the server.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// A new pass: counts are zero, the queue and the table are empty.
    Prepare,
    /// The messages of the plan are sent.
    Go,
    /// Answers when everything is deleted, or after this time.
    Wait(Duration),
    /// Decompresses every object once, on one thread.
    Gunzip,
}

/// What there is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub lean: String,
    pub aws: String,
    pub queue_url: String,
    pub topic_arn: String,
    pub table: String,
    pub objects: u64,
    pub records: u64,
    pub compressed: u64,
    pub decompressed: u64,
    /// Events that match, each counted once.
    pub matches: u64,
}

/// How far a pass is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub deleted: u64,
    pub done: bool,
    /// Since the messages were sent, until the last one was deleted.
    pub elapsed: Duration,
    /// By service and operation, since [`Order::Go`].
    pub requests: BTreeMap<String, u64>,
    /// The same, before it.
    pub requests_before: BTreeMap<String, u64>,
    pub published: u64,
    /// What a call was held back for on the mean.
    pub latency: Duration,
    /// Microseconds.
    pub times: Times,
}

/// Microseconds, sorted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    pub sent_to_published: Vec<u64>,
    pub received_to_published: Vec<u64>,
    /// Until the message was deleted; only of objects without a match.
    pub received_to_deleted: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Gunzip {
    pub bytes: u64,
    pub cpu: Duration,
}

/// Serves until its standard input ends.
pub fn run(plan: Plan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(plan))
}

async fn serve(plan: Plan) -> anyhow::Result<()> {
    let objects = Arc::new(Objects::make(&plan)?);
    let latency = Some(plan.latency).filter(|latency| !latency.is_zero());
    let emulator = Emulator::start(Options { region: REGION.to_owned(), latency, ..Options::default() })?;
    let mut made = emulator.set_up(&Names::default()).await?;
    let state = Arc::new(State::new(plan, Arc::clone(&objects)));
    let publishing = Arc::clone(&state);
    emulator.on_publish(move |published| publishing.published(published));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let lean = format!("http://{}", listener.local_addr()?);
    let accepting = Arc::clone(&state);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _best_effort = stream.set_nodelay(true);
            let state = Arc::clone(&accepting);
            tokio::spawn(async move {
                let service = service_fn(|request| answer(&state, request));
                let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });

    let (sender, mut orders) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str::<Order>(&line).ok()) else { break };
            if sender.blocking_send(order).is_err() {
                break;
            }
        }
    });
    let mut pass = 0;
    let mut before = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Prepare => {
                pass += 1;
                made.table = format!("security-events-{pass}");
                emulator.create_table(&made.table).await?;
                state.prepare();
                before = sinks(&emulator);
                tell(&state.hello(&lean, &emulator, &made)?)?;
            }
            Order::Go => {
                let so_far = difference(&sinks(&emulator), &before);
                before = sinks(&emulator);
                state.go(so_far);
                if state.plan.scenario != Scenario::Backlog {
                    tokio::spawn(send(Arc::clone(&state)));
                }
                tell(&())?;
            }
            Order::Wait(time) => {
                let _done_or_not = tokio::time::timeout(time, state.until(|queue| queue.ended.is_some())).await;
                tell(&state.status(&difference(&sinks(&emulator), &before)))?;
            }
            Order::Gunzip => tell(&gunzip(&objects)?)?,
        }
    }
    Ok(())
}

fn tell(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(answer)?)?;
    Ok(output.flush()?)
}

fn sinks(emulator: &Emulator) -> BTreeMap<String, u64> {
    emulator
        .requests()
        .into_iter()
        .map(|((service, operation), count)| (format!("{service}:{operation}"), count))
        .collect()
}

fn difference(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = |(name, count): (&String, &u64)| (name.clone(), count - before.get(name).copied().unwrap_or(0));
    now.iter().map(since).filter(|(_, count)| *count > 0).collect()
}

/// Sends the messages that are not there from the beginning.
async fn send(state: Arc<State>) {
    let first = state.objects.big;
    if state.plan.scenario == Scenario::Latency {
        // The clock starts with an idle daemon whose long poll is open.
        tokio::time::sleep(IDLE).await;
    }
    for object in first..state.plan.objects {
        state.send(object);
        if state.plan.scenario == Scenario::Latency {
            state.until(|queue| queue.deleted > object).await;
            tokio::time::sleep(IDLE).await;
        } else {
            tokio::time::sleep(SMALL).await;
        }
    }
}

/// Every object once through the decompressor that the daemon has, and nothing else.
fn gunzip(objects: &Objects) -> anyhow::Result<Gunzip> {
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    let began = of_this_thread()?;
    for body in objects.all() {
        let mut decoder = flate2::bufread::MultiGzDecoder::new(&*body.gzip);
        loop {
            let read = decoder.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            bytes += u64::try_from(read)?;
        }
    }
    Ok(Gunzip { bytes, cpu: of_this_thread()?.saturating_sub(began) })
}

struct State {
    plan: Plan,
    objects: Arc<Objects>,
    queue: Mutex<Queue>,
    /// Messages came, or one was deleted.
    changed: Notify,
    /// For each object of a timed plan, in microseconds since the pass began; 0 where it did not happen.
    timelines: Vec<Timeline>,
    latency_calls: AtomicU64,
    latency_micros: AtomicU64,
    published: AtomicU64,
    random: Mutex<fastrand::Rng>,
}

#[derive(Debug, Default)]
struct Timeline {
    sent: AtomicU64,
    received: AtomicU64,
    published: AtomicU64,
    deleted: AtomicU64,
}

struct Queue {
    began: Instant,
    ended: Option<Instant>,
    /// Messages that are sent one by one, or given back.
    visible: VecDeque<u64>,
    /// The rest of the backlog: the next object of it, and its end.
    next: u64,
    end: u64,
    in_flight: HashSet<u64>,
    deleted: u64,
    requests: BTreeMap<&'static str, u64>,
    requests_before: BTreeMap<String, u64>,
}

impl Queue {
    fn empty() -> Self {
        Self {
            began: Instant::now(),
            ended: None,
            visible: VecDeque::new(),
            next: 0,
            end: 0,
            in_flight: HashSet::new(),
            deleted: 0,
            requests: BTreeMap::new(),
            requests_before: BTreeMap::new(),
        }
    }
}

impl State {
    fn new(plan: Plan, objects: Arc<Objects>) -> Self {
        let timelines = if plan.timed { plan.objects } else { 0 };
        Self {
            timelines: (0..timelines).map(|_| Timeline::default()).collect(),
            random: Mutex::new(fastrand::Rng::with_seed(plan.seed)),
            plan,
            objects,
            queue: Mutex::new(Queue::empty()),
            changed: Notify::new(),
            latency_calls: AtomicU64::new(0),
            latency_micros: AtomicU64::new(0),
            published: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self, lean: &str, emulator: &Emulator, made: &Resources) -> anyhow::Result<Hello> {
        let mut hello = Hello {
            lean: lean.to_owned(),
            aws: emulator.endpoint(),
            queue_url: format!("{lean}/{ACCOUNT}/trailhound"),
            topic_arn: made.topic_arn.clone(),
            table: made.table.clone(),
            objects: self.plan.objects,
            records: 0,
            compressed: 0,
            decompressed: 0,
            matches: self.objects.distinct().iter().map(|body| body.matches).sum(),
        };
        for body in self.objects.all() {
            hello.records += body.records;
            hello.compressed += u64::try_from(body.gzip.len())?;
            hello.decompressed += body.decompressed;
        }
        Ok(hello)
    }

    fn prepare(&self) {
        *self.lock() = Queue::empty();
        for timeline in &self.timelines {
            for time in [&timeline.sent, &timeline.received, &timeline.published, &timeline.deleted] {
                time.store(0, Ordering::Relaxed);
            }
        }
        for count in [&self.latency_calls, &self.latency_micros, &self.published] {
            count.store(0, Ordering::Relaxed);
        }
    }

    fn go(&self, sinks_so_far: BTreeMap<String, u64>) {
        let mut queue = self.lock();
        queue.began = Instant::now();
        queue.requests_before = sinks_so_far;
        let requests = std::mem::take(&mut queue.requests);
        queue.requests_before.extend(requests.into_iter().map(|(name, count)| (name.to_owned(), count)));
        queue.end = match self.plan.scenario {
            Scenario::Backlog => self.plan.objects,
            Scenario::Fair => self.objects.big,
            Scenario::Latency => 0,
        };
        for timeline in self.timelines.iter().take(usize::try_from(queue.end).unwrap_or(usize::MAX)) {
            timeline.sent.store(1, Ordering::Relaxed);
        }
        drop(queue);
        self.changed.notify_waiters();
    }

    fn send(&self, object: u64) {
        let mut queue = self.lock();
        queue.visible.push_back(object);
        self.note(&queue, object, |timeline| &timeline.sent);
        drop(queue);
        self.changed.notify_waiters();
    }

    fn note(&self, queue: &Queue, object: u64, time: impl Fn(&Timeline) -> &AtomicU64) {
        let Some(timeline) = usize::try_from(object).ok().and_then(|at| self.timelines.get(at)) else { return };
        let now = u64::try_from(queue.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        // The first of several counts.
        let _earlier = time(timeline).compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn published(&self, published: &Published) {
        self.published.fetch_add(1, Ordering::Relaxed);
        let document: Value = serde_json::from_str(&published.message).unwrap_or_default();
        let object = document.pointer("/source/key").and_then(Value::as_str).and_then(object_of);
        if let Some(object) = object {
            self.note(&self.lock(), object, |timeline| &timeline.published);
        }
    }

    async fn until(&self, condition: impl Fn(&Queue) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn status(&self, sinks: &BTreeMap<String, u64>) -> Status {
        let queue = self.lock();
        let mut requests = sinks.clone();
        requests.extend(queue.requests.iter().map(|(name, count)| ((*name).to_owned(), *count)));
        let calls = self.latency_calls.load(Ordering::Relaxed).max(1);
        let mut times = Times::default();
        if queue.ended.is_some() {
            for timeline in &self.timelines {
                let [sent, received, published, deleted] =
                    [&timeline.sent, &timeline.received, &timeline.published, &timeline.deleted]
                        .map(|time| time.load(Ordering::Relaxed));
                if published > 0 {
                    times.sent_to_published.push(published.saturating_sub(sent));
                    times.received_to_published.push(published.saturating_sub(received));
                } else {
                    times.received_to_deleted.push(deleted.saturating_sub(received));
                }
            }
            times.sent_to_published.sort_unstable();
            times.received_to_published.sort_unstable();
            times.received_to_deleted.sort_unstable();
        }
        Status {
            deleted: queue.deleted,
            done: queue.ended.is_some(),
            elapsed: queue.ended.unwrap_or_else(Instant::now) - queue.began,
            requests,
            requests_before: queue.requests_before.clone(),
            published: self.published.load(Ordering::Relaxed),
            latency: Duration::from_micros(self.latency_micros.load(Ordering::Relaxed) / calls),
            times,
        }
    }

    async fn hold_back(&self) {
        if self.plan.latency.is_zero() {
            return;
        }
        let began = Instant::now();
        tokio::time::sleep(self.plan.latency).await;
        self.latency_calls.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(0);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Up to `max` messages that are there now.
    fn take(&self, max: u64) -> Vec<u64> {
        let mut queue = self.lock();
        let mut taken = Vec::new();
        for _ in 0..max {
            // Like a standard queue, in no certain order: which of the two is chance.
            let waiting = u64::try_from(queue.visible.len()).unwrap_or(u64::MAX);
            let backlog = queue.end - queue.next;
            let total = waiting.saturating_add(backlog);
            if total == 0 {
                break;
            }
            let first = self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(..total) < waiting;
            let object = if first { queue.visible.pop_front() } else { None };
            let object = object.unwrap_or_else(|| {
                queue.next += 1;
                queue.next - 1
            });
            queue.in_flight.insert(object);
            self.note(&queue, object, |timeline| &timeline.received);
            taken.push(object);
        }
        taken
    }

    async fn receive(&self, input: &Value) -> Value {
        let max = input.get("MaxNumberOfMessages").and_then(Value::as_u64).unwrap_or(1).min(10);
        let wait = input.get("WaitTimeSeconds").and_then(Value::as_u64).unwrap_or(0);
        let deadline = Instant::now() + Duration::from_secs(wait);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let taken = self.take(max);
            if !taken.is_empty() {
                let messages: Vec<_> = taken.into_iter().filter_map(|object| self.message(object)).collect();
                return json!({ "Messages": messages });
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return json!({});
            }
        }
    }

    fn message(&self, object: u64) -> Option<Value> {
        let now = OffsetDateTime::now_utc();
        let body = json!({ "Records": [{
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": REGION,
            "eventTime": "2026-05-01T12:05:31.125Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": { "principalId": "AWS:AROAI3FHNEXAMPLE:regional-delivery-session" },
            "requestParameters": { "sourceIPAddress": "192.0.2.44" },
            "responseElements": {
                "x-amz-request-id": "4A2C7EXAMPLE9F01",
                "x-amz-id-2": "EXAMPLE123/5678abcdefghijklambdaisawesome/mnopqrstuvwxyzABCDEFGH0123456789abc",
            },
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "trailhound",
                "bucket": {
                    "name": BUCKET,
                    "ownerIdentity": { "principalId": "A3NL1KOZZKExample" },
                    "arn": format!("arn:aws:s3:::{BUCKET}"),
                },
                "object": {
                    "key": key(object),
                    "size": self.objects.body(object)?.gzip.len(),
                    "eTag": "0123456789abcdef0123456789abcdef",
                    "sequencer": format!("00662A{object:010X}"),
                },
            },
        }]});
        Some(json!({
            "MessageId": format!("{object:08x}-0000-4000-8000-000000000000"),
            // As long as those of AWS.
            "ReceiptHandle": format!("AQEB{object:0300}"),
            "Body": body.to_string(),
            "Attributes": {
                "SentTimestamp": (now.unix_timestamp_nanos() / 1_000_000).to_string(),
                "ApproximateReceiveCount": "1",
            },
        }))
    }

    fn delete(&self, input: &Value) -> Value {
        let entries = input.get("Entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut queue = self.lock();
        let mut successful = Vec::new();
        for entry in entries {
            if let Some(object) = receipt(entry).filter(|object| queue.in_flight.remove(object)) {
                queue.deleted += 1;
                self.note(&queue, object, |timeline| &timeline.deleted);
            }
            successful.push(json!({ "Id": entry.get("Id") }));
        }
        if queue.deleted >= self.plan.objects && queue.ended.is_none() {
            queue.ended = Some(Instant::now());
        }
        drop(queue);
        self.changed.notify_waiters();
        json!({ "Successful": successful, "Failed": [] })
    }

    fn change_visibility(&self, input: &Value) -> Value {
        let at_once = input.get("VisibilityTimeout").and_then(Value::as_u64) == Some(0);
        if let Some(object) = receipt(input).filter(|_| at_once) {
            let mut queue = self.lock();
            if queue.in_flight.remove(&object) {
                queue.visible.push_back(object);
            }
            drop(queue);
            self.changed.notify_waiters();
        }
        json!({})
    }

    fn attributes(&self) -> Value {
        let queue = self.lock();
        let visible = u64::try_from(queue.visible.len()).unwrap_or(0) + queue.end - queue.next;
        json!({ "Attributes": {
            "VisibilityTimeout": "300",
            "ApproximateNumberOfMessages": visible.to_string(),
            "ApproximateNumberOfMessagesNotVisible": queue.in_flight.len().to_string(),
            "ApproximateNumberOfMessagesDelayed": "0",
            "RedrivePolicy": format!(
                "{{\"deadLetterTargetArn\":\"arn:aws:sqs:{REGION}:{ACCOUNT}:dead-letters\",\"maxReceiveCount\":10}}"
            ),
        }})
    }

    fn count(&self, operation: &'static str) {
        *self.lock().requests.entry(operation).or_default() += 1;
    }
}

fn receipt(entry: &Value) -> Option<u64> {
    entry.get("ReceiptHandle")?.as_str()?.strip_prefix("AQEB")?.parse().ok()
}

async fn answer(state: &State, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = match request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()) {
        Some(target) => {
            let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
            queue_call(state, &operation, request).await
        }
        None => object_call(state, &request).await,
    };
    Ok(answered.unwrap_or_else(|error| {
        let mut response = Response::new(Full::from(format!("{error:#}")));
        *response.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
        response
    }))
}

async fn queue_call(
    state: &State,
    operation: &str,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let input: Value = serde_json::from_slice(&body)?;
    let (name, output) = match operation {
        "ReceiveMessage" => {
            // Counted when it ends: a long poll is open while a pass begins.
            state.hold_back().await;
            ("sqs:ReceiveMessage", state.receive(&input).await)
        }
        "DeleteMessageBatch" => {
            state.hold_back().await;
            ("sqs:DeleteMessageBatch", state.delete(&input))
        }
        "ChangeMessageVisibility" => {
            state.hold_back().await;
            ("sqs:ChangeMessageVisibility", state.change_visibility(&input))
        }
        "GetQueueAttributes" => {
            state.hold_back().await;
            ("sqs:GetQueueAttributes", state.attributes())
        }
        other => return Err(anyhow!("this server does not know {other}")),
    };
    state.count(name);
    let mut response = Response::new(Full::from(output.to_string()));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/x-amz-json-1.0"));
    Ok(response)
}

async fn object_call(state: &State, request: &Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    state.hold_back().await;
    let path = request.uri().path().trim_start_matches('/');
    let name = path.split_once('/').map_or("", |(_, key)| key);
    match (request.method(), path.is_empty(), name.is_empty()) {
        (&Method::GET, true, _) => {
            state.count("s3:ListBuckets");
            Ok(Response::new(Full::from("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")))
        }
        (&Method::HEAD, false, true) => {
            state.count("s3:HeadBucket");
            Ok(Response::new(Full::default()))
        }
        (&Method::GET, false, false) => {
            state.count("s3:GetObject");
            let object = object_of(name).with_context(|| format!("no object {name}"))?;
            let body = state.objects.body(object).with_context(|| format!("no object {name}"))?;
            let mut response = Response::new(Full::new(body.gzip.clone()));
            let headers = response.headers_mut();
            headers.insert(http::header::ETAG, format!("\"{object:032x}\"").parse()?);
            headers.insert(http::header::CONTENT_TYPE, "application/json".parse()?);
            headers.insert(http::header::CONTENT_ENCODING, "gzip".parse()?);
            headers.insert(http::header::ACCEPT_RANGES, "bytes".parse()?);
            headers.insert("x-amz-server-side-encryption", "AES256".parse()?);
            headers.insert("x-amz-request-id", "4A2C7EXAMPLE9F01".parse()?);
            headers.insert(http::header::LAST_MODIFIED, "Fri, 01 May 2026 12:05:31 GMT".parse()?);
            Ok(response)
        }
        (method, ..) => Err(anyhow!("this server does not know {method} {}", request.uri())),
    }
}
