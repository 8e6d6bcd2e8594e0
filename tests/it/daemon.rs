//! The real binary, and an emulator for it to run against.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use serde_json::Value;
use trailhound::emulator::{Emulator, Names, Options, Resources};

/// How long a condition may take on a slow machine. Nothing is claimed about how long it takes.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Asks until the answer is yes.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An AWS with everything that the daemon needs, and a folder for its rules.
pub struct Account {
    pub emulator: Emulator,
    pub made: Resources,
    pub folder: tempfile::TempDir,
}

impl Account {
    pub async fn new(names: Names) -> Self {
        Self::answering_after(None, names).await
    }

    /// Each call takes this long at least.
    pub async fn answering_after(latency: Option<Duration>, names: Names) -> Self {
        let emulator =
            Emulator::start(Options { region: "us-east-1".to_owned(), latency, ..Options::default() }).unwrap();
        let made = emulator.set_up(&names).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rules.json"), crate::sim::rule_file(false)).unwrap();
        Self { emulator, made, folder }
    }

    /// What any command needs to work here.
    pub fn configure<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", self.emulator.endpoint())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
            .env("SQS_QUEUE_URL", &self.made.queue_url)
            .env("SNS_TOPIC_ARN", &self.made.topic_arn)
            .env("DYNAMODB_TABLE", &self.made.table)
            .env("SECURITY_EVENTS_PATH", self.rules())
    }

    pub fn rules(&self) -> PathBuf {
        self.folder.path().join("rules.json")
    }

    pub async fn log(&self, trail: &str, number: u32, events: &[u32]) {
        let key = crate::sim::log_key(trail, number);
        self.emulator.put_object(&self.made.bucket, &key, crate::sim::log_object(events)).await.unwrap();
    }

    pub fn left(&self) -> u64 {
        self.emulator.queue_counts(&self.made.queue_url).unwrap().total()
    }

    pub fn dead(&self) -> u64 {
        self.emulator.queue_counts(&self.made.dlq_url).unwrap().total()
    }

    pub async fn drained(&self) {
        until("the queue is empty", async || self.left() == 0).await;
    }

    /// The alert documents that were published.
    pub fn documents(&self) -> Vec<Value> {
        self.emulator.published().iter().map(|it| serde_json::from_str(&it.message).unwrap()).collect()
    }

    pub async fn items(&self) -> Vec<Value> {
        self.emulator.items(&self.made.table).await.unwrap()
    }
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    pub port: u16,
    log: PathBuf,
    output: PathBuf,
}

/// Another build of the daemon to test, such as the release's.
pub fn other_binary() -> Option<std::ffi::OsString> {
    std::env::var_os("TRAILHOUND_TEST_BINARY")
}

fn binary() -> std::ffi::OsString {
    other_binary().unwrap_or_else(|| env!("CARGO_BIN_EXE_trailhound").into())
}

impl Daemon {
    pub fn start(account: &Account, settings: &[(&str, &str)]) -> Self {
        Self::start_with(account, settings, None)
    }

    /// With a standard output of the caller's choice; otherwise [`Self::output`] tells what was printed.
    pub fn start_with(account: &Account, settings: &[(&str, &str)], output: Option<Stdio>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = account.folder.path().join(format!("log-{port}.jsonl"));
        let output_file = account.folder.path().join(format!("output-{port}"));
        let mut command = Command::new(binary());
        command.env_clear();
        account
            .configure(&mut command)
            .env("TRAILHOUND_HTTP__LISTEN", format!("127.0.0.1:{port}"))
            .env("TRAILHOUND_QUEUE__WAIT", "1s")
            .env("TRAILHOUND_SHUTDOWN__DEADLINE", "10s");
        for (name, value) in settings {
            command.env(name, value);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.unwrap_or_else(|| std::fs::File::create(&output_file).unwrap().into()))
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, port, log, output: output_file }
    }

    pub async fn ready(account: &Account, settings: &[(&str, &str)]) -> Self {
        let mut daemon = Self::start(account, settings);
        daemon.becomes_ready().await;
        daemon
    }

    pub async fn becomes_ready(&mut self) {
        until("ready", async || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended early:\n{}", self.log());
            self.status("/readyz") == Some(200)
        })
        .await;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it printed on standard output.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// `TERM`, `HUP`, `INT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// The most memory that it had in use, in bytes. Only Linux tells.
    pub fn peak_memory(&self) -> Option<u64> {
        self.memory("VmHWM")
    }

    /// A figure of its memory, in bytes: `VmRSS`, or the parts of it, `RssAnon` and `RssFile`. Only Linux tells.
    pub fn memory(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let mut lines = status.lines();
        let kibibytes =
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB"))?;
        Some(kibibytes.parse::<u64>().ok()? * 1024)
    }

    /// `kill -9`, and reaped.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn status(&self, path: &str) -> Option<u16> {
        self.get(path).map(|(status, _)| status)
    }

    pub fn json(&self, path: &str) -> Value {
        let (_, body) = self.get(path).expect("an answer");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// The value of a metric with exactly these labels, as they are printed.
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let (_, body) = self.get("/metrics")?;
        body.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ')?.parse().ok())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Replaces a symbolic link in one step, as a deployment does.
pub fn swap_link(link: &Path, target: &Path) {
    let fresh = link.with_extension("fresh");
    std::os::unix::fs::symlink(target, &fresh).unwrap();
    std::fs::rename(&fresh, link).unwrap();
}
