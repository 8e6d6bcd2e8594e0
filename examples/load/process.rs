//! The processes of a run: this program again, in another role.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::plan::Plan;
use crate::server::{Hello, Order, REGION};

/// Names the role of a process of a run; the rest of its variables are its arguments.
pub const ROLE: &str = "LOAD_ROLE";
pub const PLAN: &str = "LOAD_PLAN";
pub const QUEUE: &str = "LOAD_QUEUE";
pub const CONCURRENCY: &str = "LOAD_CONCURRENCY";
pub const POLLERS: &str = "LOAD_POLLERS";

/// How long anything may take to start.
const PATIENCE: Duration = Duration::from_secs(300);

/// Which processors a process may use: `taskset`'s list.
fn command(program: &Path, cores: Option<&str>) -> Command {
    match cores {
        None => Command::new(program),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(cores).arg(program);
            command
        }
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The other side.
pub struct Server {
    pub process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    pub fn start(plan: &Plan, cores: Option<&str>) -> anyhow::Result<Self> {
        let mut child = command(&std::env::current_exe()?, cores)
            .env(ROLE, "server")
            .env(PLAN, serde_json::to_string(plan)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let process = Process(child);
        let (input, output) = pipes.context("the server has no pipes")?;
        Ok(Self { process, input, output: BufReader::new(output) })
    }

    pub fn ask<T: DeserializeOwned>(&mut self, order: &Order) -> anyhow::Result<T> {
        writeln!(self.input, "{}", serde_json::to_string(order)?)?;
        self.input.flush()?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the server ended; what it said stands above");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// How to run the daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Another binary than the code that this program was built from.
    pub program: Option<PathBuf>,
    pub cores: Option<String>,
    pub rules: PathBuf,
    pub variables: Vec<(String, String)>,
    /// Where logs go.
    pub folder: PathBuf,
}

/// The variables by which the SDK finds the server.
fn endpoints(command: &mut Command, hello: &Hello) {
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("AWS_ENDPOINT_URL", &hello.aws)
        .env("AWS_ENDPOINT_URL_SQS", &hello.lean)
        .env("AWS_ENDPOINT_URL_S3", &hello.lean)
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        .stdin(Stdio::null());
}

/// The daemon under test.
#[derive(Debug)]
pub struct Daemon {
    pub process: Process,
    address: SocketAddr,
    log: PathBuf,
    /// When it was started.
    pub started: Instant,
}

impl Daemon {
    pub fn start(settings: &Settings, hello: &Hello) -> anyhow::Result<Self> {
        // The port is free until the daemon takes it, as far as anybody can tell.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = settings.folder.join(format!("daemon-{}.log", address.port()));
        let own = std::env::current_exe()?;
        let mut command = command(settings.program.as_ref().unwrap_or(&own), settings.cores.as_deref());
        endpoints(&mut command, hello);
        command
            .env(ROLE, "daemon")
            .env("SQS_QUEUE_URL", &hello.queue_url)
            .env("SNS_TOPIC_ARN", &hello.topic_arn)
            .env("DYNAMODB_TABLE", &hello.table)
            .env("SECURITY_EVENTS_PATH", &settings.rules)
            .env("TRAILHOUND_HTTP__LISTEN", address.to_string())
            .envs(settings.variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let started = Instant::now();
        let process = Process(command.spawn().context("cannot start the daemon")?);
        Ok(Self { process, address, log, started })
    }

    /// Waits until `/readyz` answers with 200; gives how long that took from the start of the process.
    pub async fn ready(&mut self) -> anyhow::Result<Duration> {
        while self.get("/readyz").is_none() {
            if self.process.0.try_wait()?.is_some() || self.started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the daemon is not ready; its log:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.started.elapsed())
    }

    /// Stops it as a container would be; an end other than a clean one is an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status();
        ensure!(told.context("cannot run kill")?.success(), "cannot stop the daemon");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.0.try_wait()? {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                ensure!(status.success(), "the daemon ended with {status}; its log:\n{log}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the daemon does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The body of an answer with status 200.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: daemon\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// The sum of a metric over its labels, as far as these hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> anyhow::Result<u64> {
        let text = self.get("/metrics").context("the daemon does not show its metrics")?;
        let mut sum = 0;
        for line in text.lines().filter(|line| line.contains(label)) {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
            if let Some((_, value)) = rest.and_then(|rest| rest.rsplit_once(' ')) {
                sum += value.parse::<u64>().with_context(|| format!("{name} is no whole number: {value}"))?;
            }
        }
        Ok(sum)
    }
}

/// The same calls by the SDK alone.
pub fn sdk(hello: &Hello, cores: Option<&str>, concurrency: usize, pollers: usize) -> anyhow::Result<Process> {
    let mut command = command(&std::env::current_exe()?, cores);
    endpoints(&mut command, hello);
    let variables: [(&str, OsString); 4] = [
        (ROLE, "sdk".into()),
        (QUEUE, hello.queue_url.clone().into()),
        (CONCURRENCY, concurrency.to_string().into()),
        (POLLERS, pollers.to_string().into()),
    ];
    Ok(Process(command.envs(variables).spawn().context("cannot start the SDK's clients")?))
}
