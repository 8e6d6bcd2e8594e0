//! The configuration in force, checked.
//!
//! Embedded defaults (`config/trailhound.toml`), then `--config FILE`, then the plain names (`SQS_QUEUE_URL`, ...),
//! then `TRAILHOUND_SECTION__KEY`. AWS settings come from the SDK's own chain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cloudtrail::Limits;

/// The embedded defaults, and their documentation.
pub const DEFAULTS: &str = include_str!("../../config/trailhound.toml");

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub queue: QueueConfig,
    pub source: SourceConfig,
    pub pipeline: PipelineConfig,
    pub rules: RulesConfig,
    pub alerting: AlertingConfig,
    pub store: StoreConfig,
    pub http: HttpConfig,
    pub log: LogConfig,
    pub shutdown: ShutdownConfig,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    pub url: String,
    /// Concurrent receive loops; at least 1.
    pub pollers: usize,
    /// Long poll, 0 to 20 s.
    pub wait: Duration,
    /// `None`: the queue's own visibility timeout.
    pub visibility: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// Empty: any bucket.
    pub allowed_buckets: Vec<String>,
    /// Whether records that travel in messages are evaluated.
    pub inline_records: bool,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Messages in work at once; at least 1.
    pub concurrency: usize,
    /// Decoding steps at once; defaults to the cores.
    pub decoders: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesConfig {
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertingConfig {
    pub topic_arn: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    pub table: String,
    pub retention_days: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A `tracing` filter: `info`, or `info,trailhound::deliver=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable on a terminal, JSON otherwise.
    Auto,
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long after SIGTERM held messages may be finished. At least `queue.wait`, at most `stop_timeout`.
    pub deadline: Duration,
    /// The container's own limit: what kills the process after SIGTERM.
    pub stop_timeout: Duration,
}
