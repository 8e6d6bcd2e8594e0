//! An AWS in this process: S3, SQS, SNS, DynamoDB, and what is described of trails and keys, over HTTP on loopback, for the demo and the tests.
//!
//! The `winterbaume` crates keep the state; this module adds what they leave out: notifications from S3 to SQS and SNS,
//! deliveries from SNS to SQS, DynamoDB's atomicity, SQS's long polls and error answers, and faults on demand. It runs on
//! a thread and a runtime of its own, so that neither a paused clock nor a busy data path disturbs it. Signatures are
//! not checked: the credential scope only tells the service.

mod cloudtrail;
mod dynamodb;
mod kms;
mod resources;
mod s3;
mod server;
mod sns;
mod sqs;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use winterbaume_core::{MockRequest, MockResponse};

pub use self::resources::{Names, QueueCounts, Resources};
use crate::env::lock;

/// The account that owns everything in the emulator.
pub const ACCOUNT: &str = winterbaume_core::DEFAULT_ACCOUNT_ID;

/// How to start an emulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The one region it serves, whatever region a request is signed for.
    pub region: String,
    /// How long each call takes at least.
    pub latency: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, region: "eu-central-1".to_owned(), latency: None }
    }
}

/// A message that a topic accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub topic_arn: String,
    pub message_id: String,
    pub subject: Option<String>,
    /// What a queue receives: the message, or its `default` text if it has a structure.
    pub message: String,
    /// The texts for each protocol, `default` among them, if the message has a structure; otherwise empty.
    pub texts: BTreeMap<String, String>,
    /// Name to data type and value.
    pub attributes: BTreeMap<String, (String, String)>,
    pub group_id: Option<String>,
    pub deduplication_id: Option<String>,
    pub at: OffsetDateTime,
}

/// What a fault hook decides about.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// `s3`, `sqs`, `sns`, `dynamodb`, `cloudtrail`, `kms` or `sts`.
    pub service: &'static str,
    /// The API's name of the operation, such as `PutItem`.
    pub operation: String,
    /// Path and query as they came: for S3 `/bucket/key`.
    pub path: String,
    pub body: Bytes,
}

/// How a call goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this HTTP status and error code; nothing happens.
    Before { status: u16, code: String },
    /// Does what was asked, then answers with this HTTP status and error code.
    After { status: u16, code: String },
    /// Does what was asked, then closes the connection without an answer.
    LoseAnswer,
    /// Closes the connection; nothing happens.
    Refuse,
    /// Announces the whole answer and closes the connection after so many bytes of its body.
    CutBody { after: usize },
    /// Takes this much longer.
    Delay(Duration),
}

impl Fault {
    #[must_use]
    pub fn before(status: u16, code: &str) -> Self {
        Self::Before { status, code: code.to_owned() }
    }

    #[must_use]
    pub fn after(status: u16, code: &str) -> Self {
        Self::After { status, code: code.to_owned() }
    }
}

/// Decides which calls go wrong; asked once for each call, before it takes effect.
pub type FaultHook = Box<dyn Fn(&RequestInfo) -> Option<Fault> + Send + Sync>;

type PublishHook = Box<dyn Fn(&Published) + Send + Sync>;

/// A running emulator. Stops when dropped.
pub struct Emulator {
    address: SocketAddr,
    aws: Arc<Aws>,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Emulator {
    /// Binds the port and serves it from a thread of its own.
    pub fn start(options: Options) -> io::Result<Self> {
        let Options { port, region, latency } = options;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("emulator")
            .enable_all()
            .build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let aws = Arc::new(Aws::new(region, latency, address));
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        let serving = Arc::clone(&aws);
        // The runtime is dropped on this thread: dropping it among async tasks would panic.
        let thread = std::thread::Builder::new().name("emulator".to_owned()).spawn(move || {
            runtime.block_on(server::serve(listener, serving, stopped));
            runtime.shutdown_background();
        })?;
        Ok(Self { address, aws, runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, as `AWS_ENDPOINT_URL` wants it: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    #[must_use]
    pub fn region(&self) -> &str {
        &self.aws.region
    }

    /// Every message that a topic accepted, in order.
    #[must_use]
    pub fn published(&self) -> Vec<Published> {
        lock(&self.aws.published).clone()
    }

    /// Calls `hook` for each message that a topic accepts from now on; it must not block.
    pub fn on_publish(&self, hook: impl Fn(&Published) + Send + Sync + 'static) {
        write(&self.aws.publish_hooks).push(Box::new(hook));
    }

    /// Asks `hook` about each call over HTTP from now on, in place of an earlier one.
    pub fn set_fault(&self, hook: FaultHook) {
        *write(&self.aws.fault) = Some(hook);
    }

    pub fn clear_fault(&self) {
        *write(&self.aws.fault) = None;
    }

    /// How many calls came over HTTP, by service and operation.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<(&'static str, String), u64> {
        lock(&self.aws.requests).clone()
    }

    /// How many calls of one operation came over HTTP.
    #[must_use]
    pub fn count(&self, service: &'static str, operation: &str) -> u64 {
        lock(&self.aws.requests).get(&(service, operation.to_owned())).copied().unwrap_or(0)
    }

    /// Calls an operation of SQS, DynamoDB, CloudTrail or KMS past HTTP, faults and counts. An error answer is an error.
    pub async fn json(&self, service: &'static str, operation: &str, body: Value) -> io::Result<Value> {
        let answer = self.answer(wire::json_request(service, operation, &body)?).await?;
        wire::expect_json(operation, &answer)
    }

    /// Calls an operation of SNS past HTTP, faults and counts; gives the XML of the answer.
    pub async fn query(&self, operation: &str, parameters: &[(&str, &str)]) -> io::Result<String> {
        let answer = self.answer(wire::query_request(operation, parameters)?).await?;
        wire::expect_text(operation, &answer)
    }

    /// Calls S3 past HTTP, faults and counts. `path` is `/bucket/key?query`, percent-encoded.
    pub async fn rest(&self, method: &str, path: &str, body: impl Into<Bytes>) -> io::Result<Bytes> {
        let answer = self.answer(wire::rest_request(method, path, body.into())).await?;
        wire::expect_text(path, &answer)?;
        Ok(answer.body)
    }

    async fn answer(&self, request: MockRequest) -> io::Result<MockResponse> {
        let aws = Arc::clone(&self.aws);
        // On the emulator's runtime: its clock is never paused.
        self.runtime
            .spawn(async move {
                let called = wire::recognise(&request);
                aws.answer(&called, request).await
            })
            .await
            .map_err(io::Error::other)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _already_ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Everything behind the port.
struct Aws {
    region: String,
    latency: Option<Duration>,
    s3: s3::Buckets,
    sqs: sqs::Queues,
    sns: sns::Topics,
    dynamodb: dynamodb::Tables,
    cloudtrail: cloudtrail::Trails,
    kms: kms::Keys,
    fault: RwLock<Option<FaultHook>>,
    requests: Mutex<BTreeMap<(&'static str, String), u64>>,
    published: Mutex<Vec<Published>>,
    publish_hooks: RwLock<Vec<PublishHook>>,
}

impl Aws {
    fn new(region: String, latency: Option<Duration>, address: SocketAddr) -> Self {
        Self {
            latency,
            s3: s3::Buckets::new(&region),
            sqs: sqs::Queues::new(&region, address),
            sns: sns::Topics::new(&region),
            dynamodb: dynamodb::Tables::new(&region),
            cloudtrail: cloudtrail::Trails::new(&region),
            kms: kms::Keys::new(&region),
            region,
            fault: RwLock::new(None),
            requests: Mutex::new(BTreeMap::new()),
            published: Mutex::new(Vec::new()),
            publish_hooks: RwLock::new(Vec::new()),
        }
    }

    async fn answer(&self, called: &wire::Called, request: MockRequest) -> MockResponse {
        match called.service {
            "s3" => self.s3.answer(self, called, request).await,
            "sqs" => self.sqs.answer(&called.operation, &request.body).await,
            "sns" => self.sns.answer(self, called, request).await,
            "dynamodb" => self.dynamodb.answer(&called.operation, &request.body),
            "cloudtrail" => self.cloudtrail.answer(&called.operation, &request.body),
            "kms" => self.kms.answer(&called.operation, &request.body),
            "sts" if called.operation == "GetCallerIdentity" => wire::caller_identity(),
            service => wire::error(service, 400, "InvalidAction", "the emulator does not know this operation"),
        }
    }

    /// Sends a message from another service to a queue; a queue that does not exist drops it, as in AWS.
    fn send(&self, queue_arn: &str, body: &str, attributes: HashMap<String, (String, String)>) {
        let name = queue_arn.rsplit(':').next().unwrap_or_default();
        if let Err(error) = self.sqs.send(name, body, attributes) {
            tracing::debug!(%error, queue = name, "the emulator could not deliver a message");
        }
    }

    fn publish(&self, published: Published) {
        for hook in read(&self.publish_hooks).iter() {
            hook(&published);
        }
        lock(&self.published).push(published);
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
