//! Passes of the daemon and of what it is compared with, and what they come to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;

use crate::plan::{Plan, Scenario, Sizes};
use crate::process::{Daemon, Server, Settings, sdk};
use crate::server::{Gunzip, Hello, Order, Status};
use crate::usage::{Cpu, Resident};

/// Runs the daemon against an AWS in a process of its own, and measures it.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "load")]
pub struct Options {
    /// What arrives when
    #[arg(long, value_enum, default_value = "backlog")]
    scenario: Scenario,
    /// Log objects, one message each
    #[arg(long, default_value_t = 200)]
    objects: u64,
    /// Records of each object: a number, or a range such as 1-50
    #[arg(long, default_value = "5000")]
    records: Sizes,
    /// The share of records that match a rule
    #[arg(long, default_value_t = 0.0)]
    matches: f64,
    /// The share of objects that repeat an earlier one
    #[arg(long, default_value_t = 0.0)]
    duplicates: f64,
    /// How long each call takes at least, in milliseconds
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// `pipeline.concurrency`
    #[arg(long, default_value_t = 10)]
    concurrency: usize,
    /// `queue.pollers`
    #[arg(long, default_value_t = 1)]
    pollers: usize,
    /// `pipeline.decoders`; 0 takes the cores
    #[arg(long, default_value_t = 0)]
    decoders: usize,
    /// The daemon's cores; the other side keeps off them, as far as there are others [default: all, shared]
    #[arg(long)]
    cores: Option<usize>,
    /// The daemon's rule file
    #[arg(long, default_value = "monitored_events.json")]
    rules: PathBuf,
    /// Runs this too, in each round
    #[arg(long, value_enum)]
    compare: Vec<Compare>,
    /// How often everything is run; medians are told
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Tells the resident size over time
    #[arg(long)]
    soak: bool,
    /// Only measures so many starts: from exec until /readyz says yes
    #[arg(long, value_name = "STARTS")]
    start: Option<usize>,
    /// Everything once, small: shows that it works, not how fast
    #[arg(long)]
    short: bool,
    /// Prints one JSON object for each figure instead of text
    #[arg(long)]
    json: bool,
    /// Another build of the daemon
    #[arg(long, value_name = "BINARY")]
    daemon: Option<PathBuf>,
    /// More settings of the daemon, such as `TRAILHOUND_LOG__LEVEL=warn`
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compare {
    /// Decompressing the same objects, alone and on one thread
    Gunzip,
    /// The same calls by the SDK's clients alone
    Sdk,
    /// The daemon on one core and on two
    Cores,
}

/// What one pass came to.
#[derive(Clone, Debug, Serialize)]
struct Pass {
    what: &'static str,
    round: usize,
    cores: Option<usize>,
    objects: u64,
    records: u64,
    decompressed_bytes: u64,
    elapsed_seconds: f64,
    cpu_seconds: f64,
    cpu_user_seconds: f64,
    /// The other side's, in the same time.
    server_cpu_seconds: f64,
    requests: BTreeMap<String, u64>,
    alerts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latencies: Vec<Latencies>,
    /// What a call was held back for on the mean, in milliseconds.
    latency_served: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    before: u64,
    after: u64,
    peak: u64,
}

/// In milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Latencies {
    what: &'static str,
    count: usize,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Latencies {
    fn of(what: &'static str, sorted: &[u64]) -> Option<Self> {
        let at = |share: f64| {
            let place = (float(sorted.len()) * share).ceil();
            // The number of the value, counted from 1.
            let place = (1..=sorted.len()).find(|number| float(*number) >= place)?;
            sorted.get(place - 1).map(|micros| float(*micros) / 1000.0)
        };
        Some(Self { what, count: sorted.len(), p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

trait AsFloat {
    fn float(self) -> f64;
}

impl AsFloat for u64 {
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn float(self) -> f64 {
        self as f64
    }
}

impl AsFloat for usize {
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn float(self) -> f64 {
        self as f64
    }
}

fn float(value: impl AsFloat) -> f64 {
    value.float()
}

fn megabytes(bytes: u64) -> f64 {
    float(bytes) / 1e6
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

impl Pass {
    fn rate(&self) -> f64 {
        float(self.records) / self.elapsed_seconds.max(1e-9)
    }

    fn rate_of_a_core(&self) -> f64 {
        float(self.records) / self.cpu_seconds.max(1e-9)
    }

    fn tell(&self) {
        let Self { what, round, elapsed_seconds, cpu_seconds, cpu_user_seconds, server_cpu_seconds, .. } = self;
        let cores = self.cores.map(|cores| format!(", {cores} of the cores")).unwrap_or_default();
        println!(
            "{what}, round {round}{cores}: {} objects, {} records in {elapsed_seconds:.3} s",
            self.objects, self.records
        );
        println!(
            "  {:.0} records/s, {:.1} MB/s decompressed, {:.0} objects/s",
            self.rate(),
            megabytes(self.decompressed_bytes) / elapsed_seconds.max(1e-9),
            float(self.objects) / elapsed_seconds.max(1e-9),
        );
        println!(
            "  CPU {cpu_seconds:.2} s ({cpu_user_seconds:.2} user): {:.0} records for each second of it, {:.3} s for a \
             million records, {:.0} us for an object; the other side {server_cpu_seconds:.2} s",
            self.rate_of_a_core(),
            cpu_seconds * 1e6 / float(self.records.max(1)),
            cpu_seconds * 1e6 / float(self.objects.max(1)),
        );
        let total: u64 = self.requests.values().sum();
        let each: Vec<_> = self.requests.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("  requests: {:.3} for an object ({})", float(total) / float(self.objects.max(1)), each.join(", "));
        if self.alerts > 0 {
            println!("  alerts: {}", self.alerts);
        }
        if let Some(memory) = self.memory {
            println!(
                "  resident: {:.1} MiB before, {:.1} after, {:.1} at most",
                mebibytes(memory.before),
                mebibytes(memory.after),
                mebibytes(memory.peak)
            );
        }
        for Latencies { what, count, p50, p95, p99, max } in &self.latencies {
            println!(
                "  {what}, {count} of them: p50 {p50:.1} ms, p95 {p95:.1}, p99 {p99:.1}, max {max:.1} \
                 (a call was held back for {:.2})",
                self.latency_served
            );
        }
    }
}

/// The middle of several figures.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if !options.short {
            return measure(&options).await;
        }
        let small = Options {
            objects: 40,
            records: "1-50".parse()?,
            matches: 0.02,
            duplicates: 0.2,
            compare: vec![Compare::Gunzip],
            ..options
        };
        measure(&small).await?;
        measure(&Options { matches: 0.0, latency: 1, compare: vec![Compare::Sdk], soak: true, ..small.clone() })
            .await?;
        measure(&Options { scenario: Scenario::Latency, objects: 3, compare: Vec::new(), ..small.clone() }).await?;
        measure(&Options { scenario: Scenario::Fair, objects: 20, compare: Vec::new(), ..small.clone() }).await?;
        measure(&Options { start: Some(1), compare: Vec::new(), ..small }).await
    })
}

struct Run<'a> {
    options: &'a Options,
    server: Server,
    folder: tempfile::TempDir,
    passes: Vec<Pass>,
    gunzip: Vec<Gunzip>,
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let plan = Plan {
        scenario: options.scenario,
        objects: options.objects,
        records: options.records.clone(),
        matches: options.matches,
        duplicates: options.duplicates,
        latency: Duration::from_millis(options.latency),
        timed: !options.soak,
        seed: options.seed,
    };
    let server = Server::start(&plan, server_cores(options.cores).as_deref())?;
    let mut run = Run { options, server, folder: tempfile::tempdir()?, passes: Vec::new(), gunzip: Vec::new() };
    if let Some(starts) = options.start {
        return run.starts(starts).await;
    }
    let compared = |with| options.compare.contains(&with);
    for round in 1..=options.rounds {
        if compared(Compare::Cores) {
            run.daemon(round, Some(1)).await?;
            run.daemon(round, Some(2)).await?;
        } else {
            run.daemon(round, options.cores).await?;
        }
        if compared(Compare::Sdk) {
            run.sdk(round).await?;
        }
        if compared(Compare::Gunzip) {
            let gunzip: Gunzip = run.server.ask(&Order::Gunzip)?;
            run.gunzip.push(gunzip);
            if !options.json {
                println!("gunzip alone, round {round}: {:.0} MB/s on one core", gunzip_rate(&gunzip));
            }
        }
    }
    run.conclude();
    Ok(())
}

/// MB of decompressed bytes for a second of CPU time.
fn gunzip_rate(gunzip: &Gunzip) -> f64 {
    megabytes(gunzip.bytes) / gunzip.cpu.as_secs_f64().max(1e-9)
}

/// `taskset`'s list of the daemon's cores.
fn daemon_cores(cores: Option<usize>) -> Option<String> {
    cores.map(|cores| format!("0-{}", cores.max(1) - 1))
}

/// The cores that are left, where some are.
fn server_cores(cores: Option<usize>) -> Option<String> {
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.filter(|cores| *cores < all).map(|cores| format!("{cores}-{}", all - 1))
}

impl Run<'_> {
    fn settings(&self, cores: Option<usize>) -> anyhow::Result<Settings> {
        let Options { concurrency, pollers, decoders, daemon, rules, set, .. } = self.options;
        let mut variables = vec![
            ("TRAILHOUND_PIPELINE__CONCURRENCY".to_owned(), concurrency.to_string()),
            ("TRAILHOUND_PIPELINE__DECODERS".to_owned(), decoders.to_string()),
            ("TRAILHOUND_QUEUE__POLLERS".to_owned(), pollers.to_string()),
            // The stop waits for the long poll.
            ("TRAILHOUND_QUEUE__WAIT".to_owned(), "5s".to_owned()),
        ];
        for one in set {
            let Some((name, value)) = one.split_once('=') else { bail!("\"{one}\" is not NAME=VALUE") };
            variables.push((name.to_owned(), value.to_owned()));
        }
        Ok(Settings {
            program: daemon.clone(),
            cores: daemon_cores(cores),
            rules: rules.clone(),
            variables,
            folder: self.folder.path().to_owned(),
        })
    }

    /// One pass of the daemon.
    async fn daemon(&mut self, round: usize, cores: Option<usize>) -> anyhow::Result<()> {
        let hello: Hello = self.server.ask(&Order::Prepare)?;
        let mut daemon = Daemon::start(&self.settings(cores)?, &hello)?;
        daemon.ready().await?;
        let id = daemon.process.id();
        let before = Resident::of(id)?;
        let (status, cpu, server) = self.pass(id)?;
        let resident = Resident::of(id)?;
        let evaluated = daemon.metric("trailhound_records_total", "outcome=\"evaluated\"")?;
        ensure!(evaluated == hello.records, "{evaluated} records of {} were evaluated", hello.records);
        ensure!(status.published == hello.matches, "{} alerts for {} matching events", status.published, hello.matches);
        daemon.stop().await?;
        let times = &status.times;
        let latencies = [
            ("sent to published", &times.sent_to_published),
            ("received to published", &times.received_to_published),
            ("received to deleted, without a match", &times.received_to_deleted),
        ];
        let pass = Pass {
            what: "daemon",
            cores,
            memory: Some(Memory { before: before.now, after: resident.now, peak: resident.peak }),
            alerts: status.published,
            latencies: latencies.into_iter().filter_map(|(what, sorted)| Latencies::of(what, sorted)).collect(),
            ..Pass::of(round, &hello, &status, cpu, server)
        };
        self.keep(pass)
    }

    async fn sdk(&mut self, round: usize) -> anyhow::Result<()> {
        let hello: Hello = self.server.ask(&Order::Prepare)?;
        let Options { cores, concurrency, pollers, .. } = self.options;
        let process = sdk(&hello, daemon_cores(*cores).as_deref(), *concurrency, *pollers)?;
        // The clients are made, and their long polls open, as the daemon's are.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (status, cpu, server) = self.pass(process.id())?;
        self.keep(Pass { what: "SDK alone", ..Pass::of(round, &hello, &status, cpu, server) })
    }

    /// Sends the messages and waits until all are deleted.
    fn pass(&mut self, id: u32) -> anyhow::Result<(Status, Cpu, Cpu)> {
        let server = self.server.process.id();
        let (before, server_before) = (Cpu::of(id)?, Cpu::of(server)?);
        let () = self.server.ask(&Order::Go)?;
        let mut told = 0;
        let status = loop {
            let status: Status = self.server.ask(&Order::Wait(Duration::from_secs(1)))?;
            let part = status.deleted * 20 / self.options.objects.max(1);
            if self.options.soak && (part > told || status.done) {
                told = part;
                let resident = Resident::of(id)?;
                if self.options.json {
                    let (seconds, now, peak) = (status.elapsed.as_secs_f64(), resident.now, resident.peak);
                    println!(
                        "{}",
                        serde_json::json!({ "deleted": status.deleted, "seconds": seconds, "resident": now, "peak": peak })
                    );
                } else {
                    println!(
                        "  {} objects after {:.0} s: {:.1} MiB resident, {:.1} at most",
                        status.deleted,
                        status.elapsed.as_secs_f64(),
                        mebibytes(resident.now),
                        mebibytes(resident.peak)
                    );
                }
            }
            if status.done {
                break status;
            }
        };
        Ok((status, Cpu::of(id)?.since(before), Cpu::of(server)?.since(server_before)))
    }

    fn keep(&mut self, pass: Pass) -> anyhow::Result<()> {
        if self.options.json {
            println!("{}", serde_json::to_string(&pass)?);
        } else {
            pass.tell();
        }
        self.passes.push(pass);
        Ok(())
    }

    /// Ratios of medians.
    fn conclude(&self) {
        let of = |what: &str, cores: Option<usize>, figure: fn(&Pass) -> f64| {
            let those = self.passes.iter().filter(|pass| pass.what == what && pass.cores == cores);
            median(those.map(figure).collect())
        };
        let cores = self.options.cores;
        let mut ratios = Vec::new();
        let rate = |pass: &Pass| megabytes(pass.decompressed_bytes) / pass.cpu_seconds.max(1e-9);
        if let Some((daemon, gunzip)) =
            of("daemon", cores, rate).zip(median(self.gunzip.iter().map(gunzip_rate).collect()))
        {
            ratios.push(("decompressed bytes for a second of CPU, daemon to gunzip alone", daemon / gunzip));
        }
        let cpu = |pass: &Pass| pass.cpu_seconds / float(pass.objects.max(1));
        if let Some((daemon, sdk)) = of("daemon", cores, cpu).zip(of("SDK alone", None, cpu)) {
            ratios.push(("CPU time for an object, daemon to SDK alone", daemon / sdk));
        }
        if let Some((one, two)) = of("daemon", Some(1), Pass::rate).zip(of("daemon", Some(2), Pass::rate)) {
            ratios.push(("records a second, two cores to one", two / one));
        }
        for (what, ratio) in ratios {
            if self.options.json {
                println!("{}", serde_json::json!({ "what": what, "ratio": ratio }));
            } else {
                println!("{what}: {ratio:.2}");
            }
        }
    }

    /// Starts the daemon again and again.
    async fn starts(&mut self, starts: usize) -> anyhow::Result<()> {
        let (mut times, mut cpus, mut requests) = (Vec::new(), Vec::new(), BTreeMap::new());
        for _ in 0..starts {
            let hello: Hello = self.server.ask(&Order::Prepare)?;
            let mut daemon = Daemon::start(&self.settings(self.options.cores)?, &hello)?;
            times.push(daemon.ready().await?.as_secs_f64() * 1000.0);
            cpus.push(Cpu::of(daemon.process.id())?.total().as_secs_f64() * 1000.0);
            drop(daemon);
            let () = self.server.ask(&Order::Go)?;
            let status: Status = self.server.ask(&Order::Wait(Duration::ZERO))?;
            requests = status.requests_before;
        }
        let calls: Vec<_> = requests.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let (slowest, time, cpu) =
            (times.iter().copied().fold(0.0, f64::max), median(times).unwrap_or(0.0), median(cpus).unwrap_or(0.0));
        if self.options.json {
            println!(
                "{}",
                serde_json::json!({ "what": "start", "starts": starts, "median_ms": time, "max_ms": slowest, "cpu_ms": cpu })
            );
        } else {
            println!(
                "{starts} starts, until /readyz said yes: median {time:.1} ms, at most {slowest:.1}, CPU {cpu:.0} ms; each call \
                 takes {} ms; the calls before it: {}",
                self.options.latency,
                calls.join(", ")
            );
        }
        Ok(())
    }
}

impl Pass {
    fn of(round: usize, hello: &Hello, status: &Status, cpu: Cpu, server: Cpu) -> Self {
        Self {
            what: "",
            round,
            cores: None,
            objects: hello.objects,
            records: hello.records,
            decompressed_bytes: hello.decompressed,
            elapsed_seconds: status.elapsed.as_secs_f64(),
            cpu_seconds: cpu.total().as_secs_f64(),
            cpu_user_seconds: cpu.user.as_secs_f64(),
            server_cpu_seconds: server.total().as_secs_f64(),
            requests: status.requests.clone(),
            alerts: status.published,
            memory: None,
            latencies: Vec::new(),
            latency_served: status.latency.as_secs_f64() * 1000.0,
        }
    }
}
