//! `trailhound demo`: an attacked account, told by the real daemon on the emulator.
//!
//! Nothing here is special to the demo on the daemon's side: it runs [`app::run`] on the AWS adapters, over HTTP, with
//! the configuration, the probes and the metrics that production has.

mod logs;
mod reasons;
mod screen;
mod story;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::reasons::Reasons;
use self::screen::{Alert, Screen};
use self::story::Story;
use self::summary::Summary;
use crate::admin::{Admin, AdminState};
use crate::alert::{Source, detected_event};
use crate::app::{self, Daemon};
use crate::aws;
use crate::config::Config;
use crate::context::AlertPolicy;
use crate::emulator::{Emulator, Names, Options, Resources};
use crate::env::{Clock, Compute, Env, Phase, Random, StopHandle, TaskRoot};
use crate::health::Health;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::reload::{RulePath, RuleSource};
use crate::rules::{Correlation, DEFAULT_RULES, Detection, Matcher, Mode, NamedLists, RuleSet};
use crate::tracker::{Entry, TrackerId, episodes};

const BUCKET: &str = "example-cloudtrail-logs";

/// The story's seed: any other tells the same with other ids.
const SEED: u64 = 20_260_301;

/// Between two deliveries of the story, so that one can watch.
const PACE: Duration = Duration::from_millis(150);

/// How often it is looked whether everything is done.
const LOOK: Duration = Duration::from_millis(100);

/// The story takes ten seconds; what takes so long hangs.
const PATIENCE: Duration = Duration::from_mins(3);

/// What `trailhound demo` takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// End after the summary; fails if the outcome is not as the story says
    #[arg(long)]
    pub exit: bool,
    /// Read your own `CloudTrail` files (.json, .json.gz), from a folder and those below it, instead of the story
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// Use your own rules
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Where /livez, /readyz, /metrics and /rules answer; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: Option<SocketAddr>,
}

/// What must come of the records.
#[derive(Default)]
struct Expected {
    /// The events that match, by their ids.
    events: BTreeMap<String, Wanted>,
    /// How many of them each group counts.
    groups: BTreeMap<TrackerId, u64>,
    /// How many episodes the events of each key of a threshold or a sequence make.
    episodes: BTreeMap<TrackerId, usize>,
}

struct Wanted {
    /// How many rules match it.
    rules: usize,
    /// It is alerted by itself: a rule matches that is not in shadow and has no group.
    alert: bool,
}

impl Expected {
    /// How many alerts groups must give: one for each step that their counts reach.
    fn steps(&self) -> u64 {
        self.groups.values().map(|count| u64::from(count.checked_ilog10().map_or(0, |digits| digits + 1))).sum()
    }
}

/// Runs the demo to its end.
///
/// # Errors
///
/// What could not be started or read.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let reasons = Reasons::listen(&log_level())?;
    let mut interrupted = Interrupted::watch()?;
    let metrics = Arc::new(Metrics::new()?);
    let clock = Clock::starting_at(OffsetDateTime::now_utc());
    let rules = load_rules(&args, clock, &metrics)?;
    let plan = match &args.logs {
        Some(folder) => Plan::from_folder(folder)?,
        None => Plan::from_story(&Story::new(SEED, clock.now())?, &rules)?,
    };

    let emulator = Emulator::start(Options::default()).context("cannot start the emulator")?;
    let (alerts, mut arriving) = mpsc::unbounded_channel();
    emulator.on_publish(move |published| {
        // Nobody watches any more when the demo ends.
        let _ended = alerts.send(Alert::read(published));
    });
    let names = Names {
        bucket: BUCKET.to_owned(),
        versioned: true,
        visibility: Duration::from_secs(3),
        max_receive_count: 3,
        ..Names::default()
    };
    let made = emulator.set_up(&names).await.context("cannot set up the emulator")?;
    let rule_set = rules.current();
    let running = Running::start(&emulator, &made, &args, rules, &metrics, clock)?;

    let screen = Screen::on_stdout();
    screen::introduce(&emulator, running.admin.address(), &plan);
    let started = Instant::now();
    let uploading = plan.upload(&emulator);
    tokio::pin!(uploading);
    let mut uploaded = false;
    let mut seen = Vec::new();
    let mut look = tokio::time::interval(LOOK);
    let done = loop {
        tokio::select! {
            biased;
            () = interrupted.told() => break false,
            Some(alert) = arriving.recv() => {
                screen.alert(&alert);
                seen.push(alert);
            }
            result = &mut uploading, if !uploaded => {
                result.context("cannot upload")?;
                uploaded = true;
            }
            _ = look.tick() => {
                let idle = uploaded && emulator.queue_counts(&made.queue_url)?.total() == 0;
                if idle && metrics.messages_in_flight.get() == 0 && arriving.is_empty() {
                    break true;
                }
                anyhow::ensure!(!running.daemon.is_finished(), "the daemon ended by itself; this is a bug, please report it");
                if args.logs.is_none() && started.elapsed() > PATIENCE {
                    break true;
                }
            }
        }
    };

    let mut code = ExitCode::SUCCESS;
    if done {
        let summary = Summary {
            seconds: started.elapsed().as_secs_f64(),
            uploads: plan.uploads.len(),
            alerts: &seen,
            items: emulator.items(&made.table).await?,
            left_over: emulator.queue_counts(&made.queue_url)?.total(),
            dead_letters: emulator.bodies(&made.dlq_url)?,
            reasons: reasons.taken(),
            metrics: &metrics,
            rules: &rule_set,
        };
        screen::say(&summary.to_string());
        if let Some(expected) = &plan.expected {
            let problems = summary.problems(expected);
            screen.verdict(&problems, expected);
            if !problems.is_empty() {
                code = ExitCode::FAILURE;
            }
        }
        if !args.exit {
            screen::say("Going on until Ctrl-C: ask the endpoints above, or upload more files.");
            loop {
                tokio::select! {
                    biased;
                    () = interrupted.told() => break,
                    Some(alert) = arriving.recv() => screen.alert(&alert),
                }
            }
            code = ExitCode::SUCCESS;
        }
    }
    tokio::select! {
        biased;
        () = running.stop() => Ok(code),
        // A second Ctrl-C waits for nothing.
        () = interrupted.told() => Ok(ExitCode::from(130)),
    }
}

/// The daemon and what it needs to live.
struct Running {
    stop: StopHandle,
    daemon: tokio::task::JoinHandle<()>,
    admin: Admin,
    _tasks: TaskRoot,
}

impl Running {
    fn start(
        emulator: &Emulator,
        made: &Resources,
        args: &DemoArgs,
        rules: RuleSource,
        metrics: &Arc<Metrics>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let settings = [
            ("TRAILHOUND_QUEUE__URL", made.queue_url.clone()),
            ("TRAILHOUND_QUEUE__WAIT", "1s".to_owned()),
            ("TRAILHOUND_ALERTING__TOPIC_ARN", made.topic_arn.clone()),
            ("TRAILHOUND_STORE__TABLE", made.table.clone()),
            ("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", made.bucket.clone()),
            ("TRAILHOUND_HTTP__LISTEN", listen.to_string()),
            ("TRAILHOUND_SHUTDOWN__DEADLINE", "10s".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let (config, _) = Config::load(None, settings.into_iter())?;
        let health = Arc::new(Health::new(Arc::clone(metrics), config.queue.wait));
        let listener = TcpListener::bind(config.http.listen)
            .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"))?;
        let journal = Arc::new(Journal::default());
        let state = AdminState {
            health: Arc::clone(&health),
            metrics: Arc::clone(metrics),
            journal: Arc::clone(&journal),
            clock,
            rules: Arc::new(OnceLock::from(rules.clone())),
        };
        let admin = Admin::start(listener, state).context("cannot serve HTTP")?;

        let settings = aws::Settings {
            queue_url: config.queue.url.clone(),
            topic_arn: config.alerting.topic_arn.clone(),
            table: config.store.table.clone(),
            allowed_buckets: config.source.allowed_buckets.clone(),
        };
        let ports = aws::connect_to(&emulator.endpoint(), emulator.region(), &settings, Arc::clone(metrics));
        let (stop, stopped) = StopHandle::new();
        let tasks = TaskRoot::new();
        let env = Env {
            clock,
            random: Random::from_entropy(),
            tasks: tasks.spawner(),
            compute: Compute::pool(config.pipeline.decoders),
            stop: stopped,
        };
        let daemon = Daemon {
            config: Arc::new(config),
            rules,
            metrics: Arc::clone(metrics),
            health,
            journal,
            stop: stop.clone(),
            policy: AlertPolicy::All,
        };
        Ok(Self { stop, daemon: tokio::spawn(app::run(ports, env, daemon)), admin, _tasks: tasks })
    }

    async fn stop(self) {
        self.stop.advance(Phase::Draining);
        if self.daemon.await.is_err() {
            tracing::error!("the daemon panicked; this is a bug, please report it");
        }
    }
}

/// What is uploaded, and what must come of it.
struct Plan {
    uploads: Vec<Upload>,
    pace: Duration,
    /// Only the story's outcome is known beforehand.
    expected: Option<Expected>,
    told: String,
}

struct Upload {
    key: String,
    body: Body,
}

enum Body {
    Here(Vec<u8>),
    InFile(PathBuf),
}

impl Plan {
    fn from_folder(folder: &std::path::Path) -> anyhow::Result<Self> {
        let found = logs::find(folder, OffsetDateTime::now_utc())
            .with_context(|| format!("cannot read the folder {} (--logs)", folder.display()))?;
        anyhow::ensure!(!found.is_empty(), "no .json or .json.gz file is in {} (--logs)", folder.display());
        let told = format!("{} files from {}", found.len(), folder.display());
        let uploads = found.into_iter().map(|(key, path)| Upload { key, body: Body::InFile(path) }).collect();
        Ok(Self { uploads, pace: Duration::ZERO, expected: None, told })
    }

    fn from_story(story: &Story, rules: &RuleSource) -> anyhow::Result<Self> {
        let mut matcher = Matcher::new(rules.current());
        let mut expected = Expected::default();
        let mut sighted: BTreeMap<TrackerId, (Correlation, BTreeSet<Entry>)> = BTreeMap::new();
        let mut records = BTreeSet::new();
        let mut uploads = Vec::new();
        for file in &story.files {
            for record in &file.records {
                if records.insert(&record.event_id) {
                    let raw = Bytes::from(serde_json::to_vec(record)?);
                    let rules = matcher.matches(&raw);
                    if !rules.is_empty() {
                        let detection = Detection { index: 0, raw, rules };
                        let event = detected_event(&detection, Source::default(), OffsetDateTime::UNIX_EPOCH, "");
                        let mut alerting = event.rules.iter().filter(|rule| rule.mode != Mode::Shadow);
                        let alert = alerting.any(|rule| !event.groups.contains_key(&rule.id));
                        expected.events.insert(record.event_id.clone(), Wanted { rules: event.rules.len(), alert });
                        for (_, member) in event.groups {
                            if let Some(sighting) = member.sighting {
                                let opened = || (sighting.correlation, BTreeSet::new());
                                let (_, entries) = sighted.entry(member.tracker.steps()).or_insert_with(opened);
                                entries.insert(sighting.entry);
                            } else {
                                *expected.groups.entry(member.tracker).or_default() += 1;
                            }
                        }
                    }
                }
            }
            uploads.push(Upload { key: file.key.clone(), body: Body::Here(file.body()?) });
        }
        // What is seen in the first hour is learned.
        sighted.retain(|_, (correlation, _)| !matches!(correlation, Correlation::FirstSeen(_)));
        expected.episodes = sighted
            .into_iter()
            .map(|(head, (correlation, entries))| (head, episodes(&correlation, &entries).len()))
            .collect();
        let told = format!(
            "an attacked account over an hour: {} records, delivered twice by two trails in {} files, one of them cut off",
            records.len(),
            uploads.len()
        );
        let (key, body) = story.digest.clone();
        uploads.push(Upload { key, body: Body::Here(body) });
        Ok(Self { uploads, pace: PACE, expected: Some(expected), told })
    }

    async fn upload(&self, emulator: &Emulator) -> anyhow::Result<()> {
        for upload in &self.uploads {
            let body = match &upload.body {
                Body::Here(body) => body.clone(),
                Body::InFile(path) => {
                    tokio::fs::read(path).await.with_context(|| format!("cannot read {}", path.display()))?
                }
            };
            emulator.put_object(BUCKET, &upload.key, body).await?;
            tokio::time::sleep(self.pace).await;
        }
        Ok(())
    }
}

fn load_rules(args: &DemoArgs, clock: Clock, metrics: &Arc<Metrics>) -> anyhow::Result<RuleSource> {
    if let Some(path) = &args.rules {
        return Ok(RuleSource::load(path, NamedLists::new(), clock.now(), Arc::clone(metrics))?);
    }
    let built_in = RuleSet::parse(DEFAULT_RULES)?;
    Ok(RuleSource::new(RulePath::File("monitored_events.json".into()), built_in, clock.now(), Arc::clone(metrics)))
}

fn log_level() -> String {
    std::env::var("LOG_LEVEL").ok().filter(|level| !level.is_empty()).unwrap_or_else(|| "warn".to_owned())
}

/// Ctrl-C, or being told to end.
struct Interrupted {
    interrupts: tokio::signal::unix::Signal,
    terminates: tokio::signal::unix::Signal,
}

impl Interrupted {
    fn watch() -> anyhow::Result<Self> {
        let watched = "cannot watch signals";
        Ok(Self {
            interrupts: signal(SignalKind::interrupt()).context(watched)?,
            terminates: signal(SignalKind::terminate()).context(watched)?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupts.recv() => {}
            _ = self.terminates.recv() => {}
        }
    }
}
