//! One process of a simulation.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;
use tokio::sync::oneshot;
use tokio::time::timeout;
use trailhound::alert::AlertFormat;
use trailhound::app::{Daemon, run};
use trailhound::cloudtrail::Limits;
use trailhound::config::{
    AlertingConfig, Config, EmfConfig, HttpConfig, LogConfig, LogFormat, PipelineConfig, QueueConfig, RulesConfig,
    ShutdownConfig, SourceConfig, StoreConfig,
};
use trailhound::env::{Clock, Compute, Env, Phase, Random, StopHandle, TaskRoot};
use trailhound::health::Health;
use trailhound::metrics::Metrics;
use trailhound::reload::{RulePath, RuleSource};
use trailhound::rules::RuleSet;

use crate::fakes::{World, lock};

pub const CONCURRENCY: usize = 3;

/// Dropping it is a crash.
pub struct Process {
    /// As its world counts.
    pub number: u64,
    tasks: Arc<Mutex<Option<TaskRoot>>>,
    stop: StopHandle,
    ended: oneshot::Receiver<()>,
    rules: RuleSource,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    clock: Clock,
}

pub fn config() -> Config {
    Config {
        queue: QueueConfig { url: String::new(), pollers: 1, wait: Duration::from_secs(20), visibility: None },
        source: SourceConfig {
            allowed_buckets: Vec::new(),
            inline_records: true,
            limits: Limits {
                max_compressed_bytes: 1 << 30,
                max_decompressed_bytes: 1 << 33,
                max_ratio: 200,
                max_record_bytes: 2 << 20,
            },
        },
        pipeline: PipelineConfig { concurrency: CONCURRENCY, decoders: 1 },
        rules: RulesConfig {
            path: RulePath::File("monitored_events.json".into()),
            poll_interval: Duration::from_secs(60),
            own_trails: Vec::new(),
            own_services: Vec::new(),
        },
        alerting: AlertingConfig { topic_arn: String::new(), max_per_minute: 0, format: AlertFormat::Json },
        store: StoreConfig { table: String::new(), retention_days: 90 },
        http: HttpConfig { listen: "127.0.0.1:0".parse().unwrap() },
        log: LogConfig { level: "info".to_owned(), format: LogFormat::Auto },
        emf: EmfConfig {
            enabled: false,
            namespace: "trailhound".to_owned(),
            service: "trailhound".to_owned(),
            interval: Duration::from_secs(60),
        },
        shutdown: ShutdownConfig { deadline: Duration::from_secs(25), stop_timeout: Duration::from_secs(30) },
    }
}

impl Process {
    pub fn start(world: &Arc<World>, rules: &Path, seed: u64) -> Self {
        Self::start_with(world, rules, seed, config())
    }

    pub fn start_with(world: &Arc<World>, rules: &Path, seed: u64, config: Config) -> Self {
        Self::start_at(world, rules, seed, config, datetime!(2026-05-01 12:10 UTC))
    }

    /// A process whose clock shows `now`.
    pub fn start_at(world: &Arc<World>, rules: &Path, seed: u64, config: Config, now: OffsetDateTime) -> Self {
        Self::start_computing(world, rules, seed, config, now, Compute::Inline)
    }

    /// A process that does its long work there.
    pub fn start_computing(
        world: &Arc<World>,
        rules: &Path,
        seed: u64,
        config: Config,
        now: OffsetDateTime,
        compute: Compute,
    ) -> Self {
        let tasks = TaskRoot::new();
        let (stop_handle, stop) = StopHandle::new();
        let clock = Clock::starting_at(now);
        let env = Env { clock, random: Random::from_seed(seed), tasks: tasks.spawner(), compute, stop };
        let metrics = Arc::new(Metrics::new().unwrap());
        let config = Arc::new(config);
        let health = Arc::new(Health::new(Arc::clone(&metrics), config.queue.wait));
        // Parsed without the lint, which takes longer than the rest of a start.
        let set = RuleSet::parse(&std::fs::read_to_string(rules).unwrap()).unwrap();
        let rules = RuleSource::new(RulePath::File(rules.to_owned()), set, clock.now(), Arc::clone(&metrics));
        let daemon = Daemon {
            config,
            rules: rules.clone(),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            journal: Arc::default(),
            stop: stop_handle.clone(),
            policy: trailhound::context::AlertPolicy::All,
        };
        let (done, ended) = oneshot::channel();
        let spawner = tasks.spawner();
        let tasks = Arc::new(Mutex::new(Some(tasks)));
        let dying = Arc::clone(&tasks);
        let (number, ports) = world.ports_of(move || drop(lock(&dying).take()));
        spawner.spawn(async move {
            run(ports, env, daemon).await;
            let _nobody = done.send(());
        });
        Self { number, tasks, stop: stop_handle, ended, rules, health, metrics, clock }
    }

    /// Whether it did not die in the middle of a call.
    pub fn lives(&self) -> bool {
        lock(&self.tasks).is_some()
    }

    pub fn reload(&self) {
        self.rules.reload(self.clock.now()).unwrap();
    }

    /// Whether a reload is refused and changes nothing.
    pub fn refuses_to_reload(&self) -> bool {
        let before = self.rules_hash();
        self.rules.reload(self.clock.now()).is_err() && self.rules_hash() == before
    }

    /// Of the rules in force.
    pub fn rules_hash(&self) -> String {
        self.rules.current().hash().to_owned()
    }

    /// SIGTERM.
    pub fn tell_to_stop(&self) {
        self.stop.advance(Phase::Draining);
    }

    /// Whether it ends within its deadline, and whether it dies before that.
    pub async fn end_or_die(mut self) -> (bool, bool) {
        let ended = timeout(Duration::from_secs(26), &mut self.ended).await.is_ok_and(|ended| ended.is_ok());
        (ended, !self.lives())
    }

    /// SIGTERM. Whether it ended within its deadline.
    pub async fn stop(mut self) -> bool {
        self.tell_to_stop();
        timeout(Duration::from_secs(26), &mut self.ended).await.is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(lock(&self.tasks).take());
    }
}
