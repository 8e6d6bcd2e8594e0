//! The configuration in force, checked.
//!
//! Embedded defaults (`config/trailhound.toml`), then `--config FILE`, then the plain names (`SQS_QUEUE_URL`, ...),
//! then `TRAILHOUND_SECTION__KEY`. AWS settings come from the SDK's own chain.

mod layers;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::alert::AlertFormat;
use crate::cloudtrail::Limits;
use crate::reload::RulePath;
use crate::rules::NamedLists;
use crate::telemetry;

use layers::Layers;
pub use layers::{Origin, Origins, plain_variable, variable};
use parse::Raw;
pub(crate) use parse::queue_url;

/// The embedded defaults, and their documentation.
pub const DEFAULTS: &str = include_str!("../../config/trailhound.toml");

/// What the daemon cannot do without, and has no default for.
const DEPLOYMENT: [&str; 3] = ["queue.url", "alerting.topic_arn", "store.table"];

/// See `docs/configuration.md`.
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
    pub emf: EmfConfig,
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
    pub path: RulePath,
    /// How often rules in S3 are looked at, 1 s to 24 h.
    pub poll_interval: Duration,
    /// Names or ARNs of the trails that feed the queue.
    pub own_trails: Vec<String>,
    /// Names or ARNs of the ECS services that run this daemon.
    pub own_services: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertingConfig {
    pub topic_arn: String,
    /// 0: any number.
    pub max_per_minute: u32,
    pub format: AlertFormat,
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

impl LogFormat {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Json, Self::Text];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

/// Metrics for CloudWatch, on standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmfConfig {
    pub enabled: bool,
    pub namespace: String,
    /// The value of the one dimension, `Service`.
    pub service: String,
    /// From one line to the next.
    pub interval: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long after SIGTERM held messages may be finished. At least `queue.wait`, at most `stop_timeout`.
    pub deadline: Duration,
    /// The container's own limit: what kills the process after SIGTERM.
    pub stop_timeout: Duration,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `None` where a file or a variable as a whole is meant.
    pub key: Option<String>,
    pub origin: Origin,
    /// What is wrong and what to do; follows the key and the origin.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.origin) {
            (Some(key), Origin::Default) => write!(f, "{key}: {}", self.message),
            (Some(key), origin) => write!(f, "{key} ({origin}): {}", self.message),
            (None, origin) => write!(f, "{origin}: {}", self.message),
        }
    }
}

impl Config {
    /// Lays the embedded defaults, a file and the environment over each other and checks the result.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once, the deepest layer's complaints first.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Origins), ConfigErrors> {
        Self::load_with(file, env, &DEPLOYMENT)
    }

    /// As [`Self::load`], for a tool that needs only these keys of queue, topic and table: the others are empty where
    /// they are not set.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`].
    pub fn load_with(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        needed: &[&str],
    ) -> Result<(Self, Origins), ConfigErrors> {
        let mut from = Checker(Layers::read(file, env));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);

        let url = from.needed(needed, "queue.url", |raw| parse::queue_url(raw.text()?));
        let pollers = from.required("queue.pollers", |raw| raw.integer(1..=16));
        let wait = from.required("queue.wait", |raw| raw.seconds(0..=20));
        let visibility = from.optional("queue.visibility", |raw| raw.seconds(10..=12 * 3_600));
        let allowed_buckets = from.required("source.allowed_buckets", |raw| parse::bucket_names(raw.list()?));
        let inline_records = from.required("source.inline_records", Raw::boolean);
        let max_compressed_bytes = from.required("source.max_compressed_bytes", Raw::size);
        let max_decompressed_bytes = from.required("source.max_decompressed_bytes", Raw::size);
        let max_ratio = from.required("source.max_ratio", |raw| raw.integer(1..=1_000_000));
        let max_record_bytes = from.required("source.max_record_bytes", Raw::held_size);
        let concurrency = from.required("pipeline.concurrency", |raw| raw.integer(1..=1_000));
        let decoders = from.required("pipeline.decoders", |raw| raw.integer(0..=256));
        let path = from.required("rules.path", Raw::rule_path);
        let poll_interval = from.required("rules.poll_interval", |raw| raw.seconds(1..=24 * 3_600));
        let own_trails = from.required("rules.own_trails", Raw::list);
        let own_services = from.required("rules.own_services", Raw::list);
        let topic_arn = from.needed(needed, "alerting.topic_arn", |raw| parse::topic_arn(raw.text()?));
        let max_per_minute = from.required("alerting.max_per_minute", |raw| raw.integer(0..=100_000));
        let alert_format = from.required("alerting.format", Raw::alert_format);
        let table = from.needed(needed, "store.table", |raw| parse::table_name(raw.text()?));
        let retention_days = from.required("store.retention_days", |raw| raw.integer(1..=36_500));
        let listen = from.required("http.listen", |raw| parse::listen(raw.text()?));
        let level = from.required("log.level", |raw| {
            let level = raw.text()?;
            telemetry::filter(level).map(|_| level.to_owned())
        });
        let format = from.required("log.format", Raw::log_format);
        let enabled = from.required("emf.enabled", Raw::boolean);
        let namespace = from.required("emf.namespace", |raw| parse::metric_namespace(raw.text()?));
        let service = from.required("emf.service", |raw| parse::dimension_value(raw.text()?));
        let interval = from.required("emf.interval", |raw| raw.seconds(10..=300));
        let deadline = from.required("shutdown.deadline", Raw::duration);
        let stop_timeout = from.required("shutdown.stop_timeout", Raw::duration);

        from.at_most(("queue.wait", wait), ("shutdown.deadline", deadline), "a receive in flight ends before it");
        from.at_most(
            ("shutdown.deadline", deadline),
            ("shutdown.stop_timeout", stop_timeout),
            "the container is killed after it",
        );

        let Layers { origins, errors, .. } = from.0;
        // Every `None` left an error behind.
        let checked = || {
            Some(Self {
                queue: QueueConfig { url: url?, pollers: pollers?, wait: wait?, visibility },
                source: SourceConfig {
                    allowed_buckets: allowed_buckets?,
                    inline_records: inline_records?,
                    limits: Limits {
                        max_compressed_bytes: max_compressed_bytes?,
                        max_decompressed_bytes: max_decompressed_bytes?,
                        max_ratio: max_ratio?,
                        max_record_bytes: max_record_bytes?,
                    },
                },
                pipeline: PipelineConfig {
                    concurrency: concurrency?,
                    decoders: decoders.map(|given| if given == 0 { cores } else { given })?,
                },
                rules: RulesConfig {
                    path: path?,
                    poll_interval: poll_interval?,
                    own_trails: own_trails?,
                    own_services: own_services?,
                },
                alerting: AlertingConfig {
                    topic_arn: topic_arn?,
                    max_per_minute: max_per_minute?,
                    format: alert_format?,
                },
                store: StoreConfig { table: table?, retention_days: retention_days? },
                http: HttpConfig { listen: listen? },
                log: LogConfig { level: level?, format: format? },
                emf: EmfConfig { enabled: enabled?, namespace: namespace?, service: service?, interval: interval? },
                shutdown: ShutdownConfig { deadline: deadline?, stop_timeout: stop_timeout? },
            })
        };
        match checked() {
            Some(config) if errors.is_empty() => Ok((config, origins)),
            _ => Err(ConfigErrors(errors)),
        }
    }

    /// Only where HTTP is answered, for those who ask: nothing else needs to be right.
    ///
    /// # Errors
    ///
    /// What is wrong with `http.listen`, or with the file as a whole.
    pub fn listen(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<SocketAddr, ConfigErrors> {
        let mut from = Checker(Layers::read(file, env));
        from.0.errors.retain(|error| error.key.is_none() && matches!(error.origin, Origin::File { .. }));
        match from.required("http.listen", |raw| parse::listen(raw.text()?)) {
            Some(listen) if from.0.complete => Ok(listen),
            _ => Err(ConfigErrors(from.0.errors)),
        }
    }

    /// What the tools for rules need, from a configuration that may lack the rest.
    ///
    /// # Errors
    ///
    /// What is wrong with the file or with the keys that are read here.
    pub fn for_rules(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(RulePath, NamedLists), ConfigErrors> {
        let mut from = Checker(Layers::read(file, env));
        from.0.errors.retain(|error| error.key.is_none() && matches!(error.origin, Origin::File { .. }));
        let path = from.required("rules.path", Raw::rule_path);
        let text = |from: &mut Checker, key: &'static str| from.optional(key, |raw| Ok(raw.text()?.to_owned()));
        let list = |from: &mut Checker, key: &'static str| from.optional(key, Raw::list).unwrap_or_default();
        let pipeline = Pipeline {
            queue_url: text(&mut from, "queue.url"),
            topic_arn: text(&mut from, "alerting.topic_arn"),
            table: text(&mut from, "store.table"),
            buckets: list(&mut from, "source.allowed_buckets"),
            trails: list(&mut from, "rules.own_trails"),
            services: list(&mut from, "rules.own_services"),
            rules: path.clone(),
        };
        match path {
            // What is not set here is perhaps set where the daemon runs: nothing is said about an empty list.
            Some(path) if from.0.complete && from.0.errors.is_empty() => {
                Ok((path, pipeline.lists().into_iter().filter(|(_, values)| !values.is_empty()).collect()))
            }
            _ => Err(ConfigErrors(from.0.errors)),
        }
    }

    /// The parts of this very pipeline, as conditions for the built-in lists of the rules.
    #[must_use]
    pub fn rule_lists(&self) -> NamedLists {
        Pipeline {
            queue_url: Some(self.queue.url.clone()),
            topic_arn: Some(self.alerting.topic_arn.clone()),
            table: Some(self.store.table.clone()),
            buckets: self.source.allowed_buckets.clone(),
            trails: self.rules.own_trails.clone(),
            services: self.rules.own_services.clone(),
            rules: Some(self.rules.path.clone()),
        }
        .lists()
    }

    /// Every key with its value, as it could stand in a file.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, serde_json::Value)> {
        let Self { queue, source, pipeline, rules, alerting, store, http, log, emf, shutdown } = self;
        let Limits { max_compressed_bytes, max_decompressed_bytes, max_ratio, max_record_bytes } = source.limits;
        vec![
            ("queue.url", json!(queue.url)),
            ("queue.pollers", json!(queue.pollers)),
            ("queue.wait", json!(parse::show_duration(queue.wait))),
            ("queue.visibility", json!(queue.visibility.map(parse::show_duration).unwrap_or_default())),
            ("source.allowed_buckets", json!(source.allowed_buckets)),
            ("source.inline_records", json!(source.inline_records)),
            ("source.max_compressed_bytes", json!(parse::show_size(max_compressed_bytes))),
            ("source.max_decompressed_bytes", json!(parse::show_size(max_decompressed_bytes))),
            ("source.max_ratio", json!(max_ratio)),
            ("source.max_record_bytes", json!(parse::show_size(max_record_bytes as u64))),
            ("pipeline.concurrency", json!(pipeline.concurrency)),
            ("pipeline.decoders", json!(pipeline.decoders)),
            ("rules.path", json!(rules.path.to_string())),
            ("rules.poll_interval", json!(parse::show_duration(rules.poll_interval))),
            ("rules.own_trails", json!(rules.own_trails)),
            ("rules.own_services", json!(rules.own_services)),
            ("alerting.topic_arn", json!(alerting.topic_arn)),
            ("alerting.max_per_minute", json!(alerting.max_per_minute)),
            ("alerting.format", json!(alerting.format.as_str())),
            ("store.table", json!(store.table)),
            ("store.retention_days", json!(store.retention_days)),
            ("http.listen", json!(http.listen.to_string())),
            ("log.level", json!(log.level)),
            ("log.format", json!(log.format.as_str())),
            ("emf.enabled", json!(emf.enabled)),
            ("emf.namespace", json!(emf.namespace)),
            ("emf.service", json!(emf.service)),
            ("emf.interval", json!(parse::show_duration(emf.interval))),
            ("shutdown.deadline", json!(parse::show_duration(shutdown.deadline))),
            ("shutdown.stop_timeout", json!(parse::show_duration(shutdown.stop_timeout))),
        ]
    }
}

/// What rules that guard the pipeline compare with.
struct Pipeline {
    queue_url: Option<String>,
    topic_arn: Option<String>,
    table: Option<String>,
    buckets: Vec<String>,
    trails: Vec<String>,
    services: Vec<String>,
    rules: Option<RulePath>,
}

impl Pipeline {
    /// Calls name a resource by its name or its ARN, whichever the caller chose.
    fn lists(self) -> NamedLists {
        let by_name_or_arn = |names: Vec<String>| {
            let both = names.into_iter().flat_map(|name| match name.rsplit_once('/') {
                Some((_, short)) if name.starts_with("arn:") => vec![json!(name), json!(short)],
                _ => vec![json!(name), json!({ "suffix": format!("/{name}") })],
            });
            both.collect::<Vec<_>>()
        };
        let topics = self.topic_arn.into_iter();
        let mut lists = BTreeMap::from([
            ("trailhound.queues".to_owned(), self.queue_url.into_iter().map(|url| json!(url)).collect()),
            (
                "trailhound.topics".to_owned(),
                // An ARN of a subscription goes on from that of its topic.
                topics.flat_map(|arn| [json!(arn), json!({ "prefix": format!("{arn}:") })]).collect(),
            ),
            ("trailhound.tables".to_owned(), by_name_or_arn(self.table.into_iter().collect())),
            ("trailhound.buckets".to_owned(), self.buckets.into_iter().map(|bucket| json!(bucket)).collect()),
            ("trailhound.trails".to_owned(), by_name_or_arn(self.trails)),
            ("trailhound.services".to_owned(), by_name_or_arn(self.services)),
        ]);
        // A file cannot be guarded by CloudTrail: then these are not empty by mistake.
        if let Some(RulePath::Object(object)) = self.rules {
            lists.insert("trailhound.rule_buckets".to_owned(), vec![json!(object.bucket)]);
            lists.insert("trailhound.rule_keys".to_owned(), vec![json!(object.key)]);
        }
        lists
    }
}

/// Takes one value after another and keeps what is wrong with each.
struct Checker(Layers);

impl Checker {
    /// `None` if the value is missing or wrong, and then an error is kept.
    fn required<T>(&mut self, key: &str, parse: impl FnOnce(&Raw) -> Result<T, String>) -> Option<T> {
        if self.0.value(key).is_none() && self.0.complete {
            self.error(key, missing(key));
        }
        self.optional(key, parse)
    }

    /// As [`Self::required`] if the key is one of these; else a value that is not set is empty.
    fn needed(
        &mut self,
        keys: &[&str],
        key: &str,
        parse: impl FnOnce(&Raw) -> Result<String, String>,
    ) -> Option<String> {
        if keys.contains(&key) { self.required(key, parse) } else { self.optional(key, parse).or(Some(String::new())) }
    }

    /// `None` if the value is not set, or if it is wrong, and then an error is kept.
    fn optional<T>(&mut self, key: &str, parse: impl FnOnce(&Raw) -> Result<T, String>) -> Option<T> {
        let value = self.0.value(key)?;
        let from_env = matches!(self.0.origins.get(key), Origin::Env(_));
        parse(&Raw { value, from_env }).map_err(|message| self.error(key, message)).ok()
    }

    fn at_most(&mut self, (key, less): (&str, Option<Duration>), (limit, more): (&str, Option<Duration>), why: &str) {
        let (Some(less), Some(more)) = (less, more) else {
            return;
        };
        if less > more {
            let [less, more] = [less, more].map(parse::show_duration);
            let origin = self.0.origins.get(limit);
            let message =
                format!("{less} is longer than {limit} ({origin}), {more}: {why}; lower the one or raise the other");
            self.error(key, message);
        }
    }

    fn error(&mut self, key: &str, message: String) {
        let origin = self.0.origins.get(key);
        self.0.errors.push(ConfigError { key: Some(key.to_owned()), origin, message });
    }
}

fn missing(key: &str) -> String {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let plain = plain_variable(key).map(|plain| format!("{plain} or ")).unwrap_or_default();
    format!(
        "is not set: write `{name} = \"...\"` below [{section}] in the file of --config, or set the environment variable {plain}{}",
        variable(key)
    )
}

#[cfg(test)]
mod tests;
