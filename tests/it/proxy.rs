//! A proxy between the daemon and the emulator that spoils calls as networks, load balancers and services in trouble do.
//!
//! A [`Plan`] chooses for each call what happens to it, and may be changed while calls run. What it may draw from depends
//! on a seed, the operation and how often that was called before, so a seed spoils the same calls however they interleave.
//! It runs on a thread and a runtime of its own: a test that blocks does not hold it up.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use trailhound::emulator::Emulator;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The answer is late by so much.
    Late(Duration),
    /// The connection is reset after so many bytes of the request: the service never has it whole.
    ResetRequest { after: usize },
    /// The service answers, and the connection is reset after so many bytes of that.
    ResetAnswer { after: usize },
    /// Answered with an error. The service never sees the call.
    Instead(Refusal),
    /// The service does what was asked, and the answer is an error all the same.
    Despite(Refusal),
    /// Never answered, on a connection that stays open. The service never sees the call.
    Silent,
    /// The same, though the service does what was asked.
    SilentAfter,
    /// The answer comes in pieces of so many bytes, with a pause after each.
    Slow { piece: usize, pause: Duration },
    /// The answer announces so many bytes more or fewer than it has; after the last byte the connection is closed.
    WrongLength(i64),
}

/// An error answer, in the words of each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// HTTP 500.
    Broken,
    /// HTTP 503.
    Unavailable,
    /// What the service says when it is called too often.
    Throttled,
    /// HTTP 502 in HTML, from something in between.
    Gateway,
    /// The key that signed the call is not known any more.
    Revoked,
}

/// A call, as a plan sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// `s3`, `sqs`, `sns` or `dynamodb`.
    pub service: &'static str,
    /// The API's name of the operation, such as `PutItem`.
    pub operation: String,
    /// How many calls of the operation came before.
    pub number: u64,
    /// Bytes of the request.
    pub size: usize,
    /// The id of the access key that signed it.
    pub key: String,
}

/// Decides what happens to a call; asked once for each, as soon as its request was read.
pub type Plan = Box<dyn Fn(&Call) -> Option<Trouble> + Send + Sync>;

/// Any trouble on any service of these, for about so many calls of a hundred.
pub fn weather(seed: u64, percent: u32, services: &'static [&'static str]) -> Plan {
    Box::new(move |call| {
        if !services.contains(&call.service) {
            return None;
        }
        let mut random = call.random(seed);
        (random.u32(0..100) < percent).then(|| any_trouble(&mut random, call))
    })
}

/// One service is out in one way.
pub fn outage(service: &'static str, trouble: Trouble) -> Plan {
    Box::new(move |call| (call.service == service).then(|| trouble.clone()))
}

impl Call {
    /// The source of everything that is drawn for this call.
    fn random(&self, seed: u64) -> fastrand::Rng {
        let mut hasher = DefaultHasher::new();
        (seed, &self.operation, self.number).hash(&mut hasher);
        fastrand::Rng::with_seed(hasher.finish())
    }
}

fn any_trouble(random: &mut fastrand::Rng, call: &Call) -> Trouble {
    let refusals = [Refusal::Broken, Refusal::Unavailable, Refusal::Throttled, Refusal::Gateway];
    let refusal = refusals[random.usize(0..refusals.len())];
    // Answers of the emulator have heads of some 200 bytes: within the head, at its end, and within the body.
    let after = if random.bool() { random.usize(0..300) } else { random.usize(0..3000) };
    // Silence costs the daemon ten seconds, so there is less of it.
    match random.u32(0..33) {
        0 => Trouble::Silent,
        1 => Trouble::SilentAfter,
        2..7 => Trouble::Late(Duration::from_millis(random.u64(1..1500))),
        7..11 => Trouble::ResetRequest { after: random.usize(0..call.size) },
        11..16 => Trouble::ResetAnswer { after },
        16..21 => Trouble::Instead(refusal),
        21..25 => Trouble::Despite(refusal),
        25..29 => Trouble::Slow { piece: random.usize(20..400), pause: Duration::from_millis(random.u64(1..60)) },
        29..31 => Trouble::WrongLength(random.i64(1..200)),
        _ => Trouble::WrongLength(-random.i64(1..200)),
    }
}

/// When to stop a call for good, so that a test can kill the daemon in the middle of it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Calls of this operation are counted; `None`: all calls.
    pub operation: Option<&'static str>,
    /// The how many-th of them it is, from 1 on.
    pub number: u64,
    pub stage: Stage,
    /// Whatever the operation, no more calls than this.
    pub at_most: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The service has not seen the call.
    Asked,
    /// The service did what was asked; the daemon knows nothing of it.
    Done,
    /// Half of the answer came.
    HalfAnswered,
    /// The answer came.
    Answered,
}

impl Moment {
    /// Any stage of one of the first calls of any of these operations.
    pub fn of(random: &mut fastrand::Rng, operations: &[&'static str]) -> Self {
        let stages = [Stage::Asked, Stage::Done, Stage::HalfAnswered, Stage::Answered];
        Self {
            operation: Some(operations[random.usize(0..operations.len())]),
            number: random.u64(1..5),
            stage: stages[random.usize(0..stages.len())],
            at_most: u64::MAX,
        }
    }
}

struct Trap {
    moment: Moment,
    counted: u64,
    all: u64,
    sprung: Option<oneshot::Sender<()>>,
}

impl Trap {
    /// Whether it is this call.
    fn springs(&mut self, operation: &str) -> Option<(Stage, oneshot::Sender<()>)> {
        self.all += 1;
        self.counted += u64::from(self.moment.operation.is_none_or(|it| it == operation));
        if self.counted < self.moment.number && self.all < self.moment.at_most {
            return None;
        }
        Some((self.moment.stage, self.sprung.take()?))
    }
}

/// A running proxy. Stops when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    service: SocketAddr,
    plan: Mutex<Option<Arc<Plan>>>,
    trap: Mutex<Option<Trap>>,
    ahead: Mutex<time::Duration>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: BTreeMap<String, u64>,
    /// By service and kind of trouble.
    spoiled: BTreeMap<(&'static str, &'static str), u64>,
}

impl Proxy {
    pub fn start(emulator: &Emulator) -> Self {
        let service = emulator.endpoint().strip_prefix("http://").unwrap().parse().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            service,
            plan: Mutex::new(None),
            trap: Mutex::new(None),
            ahead: Mutex::new(time::Duration::ZERO),
            counts: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to calls from now on, in place of an earlier plan.
    pub fn plan(&self, plan: Plan) {
        *lock(&self.shared.plan) = Some(Arc::new(plan));
    }

    /// From now on nothing is spoiled.
    pub fn clear(&self) {
        *lock(&self.shared.plan) = None;
    }

    /// Stops one call for good; the receiver hears of it at that moment. Replaces an earlier trap.
    pub fn trap(&self, moment: Moment) -> oneshot::Receiver<()> {
        let (sprung, hears) = oneshot::channel();
        *lock(&self.shared.trap) = Some(Trap { moment, counted: 0, all: 0, sprung: Some(sprung) });
        hears
    }

    pub fn no_trap(&self) {
        *lock(&self.shared.trap) = None;
    }

    /// The clock of the services, as their answers show it, runs ahead by so much.
    pub fn clock_ahead(&self, by: time::Duration) {
        *lock(&self.shared.ahead) = by;
    }

    pub fn calls(&self, operation: &str) -> u64 {
        lock(&self.shared.counts).calls.get(operation).copied().unwrap_or(0)
    }

    /// How many calls of a service were spoiled.
    pub fn spoiled(&self, service: &str) -> u64 {
        lock(&self.shared.counts).spoiled.iter().filter(|((of, _), _)| *of == service).map(|(_, count)| count).sum()
    }

    /// The kinds of trouble that there were, and how often.
    pub fn kinds(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for ((_, kind), count) in &lock(&self.shared.counts).spoiled {
            *kinds.entry(*kind).or_default() += count;
        }
        kinds
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _already_ended = self.stop.take().map(|it| it.send(()));
        let _panicked = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl Trouble {
    fn kind(&self) -> &'static str {
        match self {
            Self::Late(_) => "late",
            Self::ResetRequest { .. } => "request reset",
            Self::ResetAnswer { .. } => "answer reset",
            Self::Instead(_) => "refused",
            Self::Despite(_) => "done and refused",
            Self::Silent => "silent",
            Self::SilentAfter => "done and silent",
            Self::Slow { .. } => "slow",
            Self::WrongLength(by) if *by < 0 => "length too small",
            Self::WrongLength(_) => "length too great",
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        // An error is a client that went away, or trouble that was asked for.
        tokio::spawn(async move { drop(connection(client, &shared).await) });
    }
}

/// Passes one call after another, until a trouble or one of the sides ends it.
async fn connection(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let service = TcpStream::connect(shared.service).await?;
    service.set_nodelay(true)?;
    let (mut client, mut service) = (Wire::new(client), Wire::new(service));
    while let Some(request) = client.message(true).await? {
        let call = shared.count(&request);
        let head_only = call.operation.starts_with("Head");
        let trap = lock(&shared.trap).as_mut().and_then(|it| it.springs(&call.operation));
        if let Some((stage, sprung)) = trap {
            return spring(&mut client, &mut service, &request, (stage, sprung), head_only).await;
        }
        let trouble = shared.decide(&call);
        match trouble {
            Some(Trouble::ResetRequest { after }) => {
                service.stream.write_all(&request.bytes[..after.min(request.bytes.len() - 1)]).await?;
                service.stream.set_zero_linger()?;
                return client.stream.set_zero_linger();
            }
            Some(Trouble::Instead(refusal)) => {
                client.stream.write_all(&refusal.answer(call.service, head_only)).await?;
                continue;
            }
            Some(Trouble::Silent) => return client.gone().await,
            _ => {}
        }
        service.stream.write_all(&request.bytes).await?;
        let Some(mut answer) = service.message(!head_only).await? else {
            return Ok(());
        };
        let ahead = *lock(&shared.ahead);
        if !ahead.is_zero() {
            answer.shift_clock(ahead, &call.operation);
        }
        match trouble {
            Some(Trouble::Late(by)) => {
                tokio::time::sleep(by).await;
                client.stream.write_all(&answer.bytes).await?;
            }
            Some(Trouble::ResetAnswer { after }) => {
                client.stream.write_all(&answer.bytes[..after.min(answer.bytes.len() - 1)]).await?;
                return client.stream.set_zero_linger();
            }
            Some(Trouble::Despite(refusal)) => {
                client.stream.write_all(&refusal.answer(call.service, head_only)).await?;
            }
            Some(Trouble::SilentAfter) => return client.gone().await,
            Some(Trouble::Slow { piece, pause }) => {
                // Not for ever, however long the answer is.
                for piece in answer.bytes.chunks(piece.max(answer.bytes.len() / 50)) {
                    client.stream.write_all(piece).await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Some(Trouble::WrongLength(by)) => {
                answer.announce(by);
                client.stream.write_all(&answer.bytes).await?;
                return client.stream.shutdown().await;
            }
            _ => client.stream.write_all(&answer.bytes).await?,
        }
    }
    Ok(())
}

/// Stops a call at its stage, tells the test, and waits until the daemon is gone.
async fn spring(
    client: &mut Wire,
    service: &mut Wire,
    request: &Message,
    (stage, sprung): (Stage, oneshot::Sender<()>),
    head_only: bool,
) -> io::Result<()> {
    if stage != Stage::Asked {
        service.stream.write_all(&request.bytes).await?;
        if let Some(answer) = service.message(!head_only).await? {
            let passed = match stage {
                Stage::HalfAnswered => answer.bytes.len() / 2,
                Stage::Answered => answer.bytes.len(),
                Stage::Asked | Stage::Done => 0,
            };
            client.stream.write_all(&answer.bytes[..passed]).await?;
        }
    }
    let _nobody = sprung.send(());
    client.gone().await
}

impl Shared {
    fn count(&self, request: &Message) -> Call {
        let (service, operation) = request.operation();
        let signed = request.header("authorization").and_then(|it| it.split_once("Credential=")?.1.split('/').next());
        let key = signed.unwrap_or_default().to_owned();
        let mut counts = lock(&self.counts);
        let count = counts.calls.entry(operation.clone()).or_default();
        *count += 1;
        Call { service, operation, number: *count - 1, size: request.bytes.len(), key }
    }

    fn decide(&self, call: &Call) -> Option<Trouble> {
        let plan = lock(&self.plan).clone()?;
        let trouble = plan(call)?;
        *lock(&self.counts).spoiled.entry((call.service, trouble.kind())).or_default() += 1;
        Some(trouble)
    }
}

/// One side of a connection, and what came there beyond the last message.
struct Wire {
    stream: TcpStream,
    pending: Vec<u8>,
}

/// A request or an answer.
struct Message {
    bytes: Vec<u8>,
    /// Length of the head, with the empty line.
    head: usize,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// The next message; `None` at the end of the stream. Whoever speaks to this proxy announces lengths.
    async fn message(&mut self, has_body: bool) -> io::Result<Option<Message>> {
        let head = loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Ok(None);
            }
        };
        let message = Message { bytes: self.pending[..head].to_vec(), head };
        let length = message.header("content-length").filter(|_| has_body).map_or(0, |length| length.parse().unwrap());
        while self.pending.len() < head + length {
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Ok(None);
            }
        }
        let rest = self.pending.split_off(head + length);
        Ok(Some(Message { bytes: std::mem::replace(&mut self.pending, rest), head }))
    }

    /// Waits until the other side has closed the connection.
    async fn gone(&mut self) -> io::Result<()> {
        while self.stream.read_buf(&mut self.pending).await? > 0 {
            self.pending.clear();
        }
        Ok(())
    }
}

impl Message {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.head]).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.text().lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn set_header(&mut self, name: &str, value: &str) {
        let replaced = format!("{name}: {value}");
        let lines = self.text().trim_end().lines().map(|line| match line.split_once(':') {
            Some((found, _)) if found.eq_ignore_ascii_case(name) => replaced.as_str(),
            _ => line,
        });
        let head = lines.collect::<Vec<_>>().join("\r\n") + "\r\n\r\n";
        self.bytes.splice(..self.head, head.bytes());
        self.head = head.len();
    }

    /// Service and operation of a request of the SDK.
    fn operation(&self) -> (&'static str, String) {
        let scope = self.header("authorization").and_then(|it| it.split('/').nth(3)).unwrap_or_default();
        let service = ["s3", "sqs", "sns", "dynamodb", "sts"].into_iter().find(|it| *it == scope).unwrap();
        let body = String::from_utf8_lossy(&self.bytes[self.head..]);
        let mut line = self.text().split(' ');
        let (method, path) = (line.next().unwrap(), line.next().unwrap());
        let is_object = path.split('?').next().unwrap().trim_matches('/').contains('/');
        let operation = match (service, method) {
            ("s3", "HEAD") if !is_object => "HeadBucket".to_owned(),
            ("s3", "GET") if is_object => "GetObject".to_owned(),
            ("s3", method) => format!("{method} {path}"),
            ("sns" | "sts", _) => {
                body.split('&').find_map(|it| it.strip_prefix("Action=")).unwrap_or_default().to_owned()
            }
            _ => self.header("x-amz-target").unwrap().split('.').next_back().unwrap().to_owned(),
        };
        (service, operation)
    }

    /// Announces more or fewer bytes than there are.
    fn announce(&mut self, by: i64) {
        let length = i64::try_from(self.bytes.len() - self.head).unwrap();
        self.set_header("content-length", &(length + by).max(0).to_string());
    }

    /// Every time of the services in this answer is later by so much.
    fn shift_clock(&mut self, by: time::Duration, operation: &str) {
        let format = time::macros::format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        let date = (OffsetDateTime::now_utc() + by).format(format).unwrap();
        self.set_header("date", &date);
        self.set_header("last-modified", &date);
        if operation != "ReceiveMessage" {
            return;
        }
        let mut answer: Value = serde_json::from_slice(&self.bytes[self.head..]).unwrap();
        for message in answer["Messages"].as_array_mut().into_iter().flatten() {
            for name in ["SentTimestamp", "ApproximateFirstReceiveTimestamp"] {
                if let Some(at) = message["Attributes"].get_mut(name) {
                    let milliseconds: i128 = at.as_str().unwrap().parse().unwrap();
                    *at = (milliseconds + by.whole_milliseconds()).to_string().into();
                }
            }
        }
        self.bytes.truncate(self.head);
        self.bytes.extend_from_slice(answer.to_string().as_bytes());
        self.announce(0);
    }
}

impl Refusal {
    fn answer(self, service: &str, head_only: bool) -> Vec<u8> {
        let (status, code) = match (self, service) {
            (Self::Gateway, _) => (502, ""),
            (Self::Broken, "sqs") => (500, "InternalFailure"),
            (Self::Broken, "dynamodb") => (500, "InternalServerError"),
            (Self::Broken, _) => (500, "InternalError"),
            (Self::Unavailable, _) => (503, "ServiceUnavailable"),
            (Self::Throttled, "s3") => (503, "SlowDown"),
            (Self::Throttled, "sqs") => (403, "RequestThrottled"),
            (Self::Throttled, "sns") => (400, "Throttling"),
            (Self::Throttled, _) => (400, "ProvisionedThroughputExceededException"),
            (Self::Revoked, "s3") => (403, "InvalidAccessKeyId"),
            (Self::Revoked, "dynamodb") => (400, "UnrecognizedClientException"),
            (Self::Revoked, _) => (403, "InvalidClientTokenId"),
        };
        let (kind, body) = match (code, service) {
            ("", _) => ("text/html", "<html><body><h1>502 Bad Gateway</h1></body></html>".to_owned()),
            (_, "s3") => (
                "application/xml",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>Please try again.\
                     </Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
                ),
            ),
            (_, "sns") => (
                "text/xml",
                format!(
                    "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Receiver</Type>\
                     <Code>{code}</Code><Message>Please try again.</Message></Error>\
                     <RequestId>9dd01905-5012-5f99-8663-4b3ecd0dfaef</RequestId></ErrorResponse>"
                ),
            ),
            _ => (
                "application/x-amz-json-1.0",
                format!("{{\"__type\":\"com.amazonaws.{service}#{code}\",\"message\":\"Please try again.\"}}"),
            ),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        (head + if head_only { "" } else { &body }).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use trailhound::emulator::{Names, Options};

    use super::*;

    const HEAD: &str = "Host: localhost\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260501/us-east-1/";

    struct Scene {
        proxy: Proxy,
        emulator: Emulator,
    }

    impl Scene {
        async fn new() -> Self {
            let emulator = Emulator::start(Options::default()).unwrap();
            let made = emulator.set_up(&Names::default()).await.unwrap();
            emulator.put_object(&made.bucket, "a/b", "0123456789".repeat(10)).await.unwrap();
            Self { proxy: Proxy::start(&emulator), emulator }
        }

        /// What comes for a read of the object, and whether the connection was reset in the end.
        async fn read(&self, trouble: Trouble) -> (String, bool) {
            self.proxy.plan(outage("s3", trouble));
            let mut stream = TcpStream::connect(self.proxy.address).await.unwrap();
            let request = format!("GET /{}/a/b HTTP/1.1\r\n{HEAD}s3/aws4_request\r\n\r\n", Names::default().bucket);
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            loop {
                match tokio::time::timeout(Duration::from_millis(500), stream.read_buf(&mut got)).await {
                    Ok(Ok(0)) | Err(_) => return (String::from_utf8(got).unwrap(), false),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                        return (String::from_utf8(got).unwrap(), true);
                    }
                }
            }
        }

        fn reads(&self) -> u64 {
            self.emulator.count("s3", "GetObject")
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_trouble_is_what_it_says() {
        let scene = Scene::new().await;
        let (whole, _) = scene.read(Trouble::Late(Duration::ZERO)).await;
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("789"), "{whole}");
        assert_eq!(scene.reads(), 1);

        assert_eq!(scene.read(Trouble::ResetRequest { after: 20 }).await, (String::new(), true));
        assert_eq!(scene.read(Trouble::Silent).await, (String::new(), false));
        let (refused, _) = scene.read(Trouble::Instead(Refusal::Throttled)).await;
        assert!(refused.starts_with("HTTP/1.1 503 Said") && refused.contains("<Code>SlowDown</Code>"), "{refused}");
        assert_eq!(scene.reads(), 1, "none of these reached the service");

        assert_eq!(scene.read(Trouble::SilentAfter).await, (String::new(), false));
        let (refused, _) = scene.read(Trouble::Despite(Refusal::Gateway)).await;
        assert!(refused.starts_with("HTTP/1.1 502 Said"), "{refused}");
        let (part, reset) = scene.read(Trouble::ResetAnswer { after: 30 }).await;
        assert!(reset && part.len() == 30 && whole.starts_with(&part), "{part}");
        let (slow, _) = scene.read(Trouble::Slow { piece: 100, pause: Duration::from_millis(10) }).await;
        assert!(slow.len() == whole.len() && slow.ends_with("789"), "{slow}");
        let (more, _) = scene.read(Trouble::WrongLength(5)).await;
        assert!(more.contains("content-length: 105\r\n") && more.ends_with("789"), "{more}");
        let (less, _) = scene.read(Trouble::WrongLength(-5)).await;
        assert!(less.contains("content-length: 95\r\n") && less.ends_with("789"), "{less}");
        assert_eq!(scene.reads(), 7, "all of these reached it");
        assert_eq!(scene.proxy.spoiled("s3"), 10);
        assert_eq!(scene.proxy.spoiled("sqs"), 0);
    }

    #[test]
    fn a_seed_spoils_the_same_calls_in_the_same_way() {
        let troubles = |seed| -> Vec<Option<Trouble>> {
            let plan = weather(seed, 40, &["sqs"]);
            let call = |number| Call {
                service: "sqs",
                operation: "ReceiveMessage".to_owned(),
                number,
                size: 500,
                key: String::new(),
            };
            (0..500).map(|number| plan(&call(number))).collect()
        };
        assert_eq!(troubles(1), troubles(1));
        assert_ne!(troubles(1), troubles(2));
        let kinds: std::collections::BTreeSet<_> = troubles(1).iter().flatten().map(Trouble::kind).collect();
        assert_eq!(kinds.len(), 10, "{kinds:?}");
        let spoiled = troubles(1).iter().flatten().count();
        assert!((150..250).contains(&spoiled), "{spoiled}");
    }
}
