//! `trailhound replay`: the past through the whole pipeline, in place or through the queue.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::output::{Format, Output, Progress, table, until_gone};
use super::when::{When, when};
use super::{Failure, environment, rules, stoppable};
use crate::alert::shown;
use crate::app::{self, Daemon};
use crate::aws;
use crate::config::{Config, Origin};
use crate::context::AlertPolicy;
use crate::env::{Clock, Compute, Env, Phase, Random, Stop, StopHandle, TaskRoot};
use crate::health::Health;
use crate::journal::Journal;
use crate::listing::{self, AsyncEach, ListError, Listed, Location, ObjectLister, Page, Selection, Sending};
use crate::metrics::Metrics;
use crate::ports::{ErrorClass, PortError};
use crate::reload::{RulePath, RuleSource};
use crate::replay::{MessageSender, Outcome, Part, Plan, ReplayQueue, Resume, cost, day, message};
use crate::rules::{RuleSet, Severity};
use crate::telemetry;

pub(super) const HELP: &str = "\
Without --in-place or --to-queue nothing is done but counted: objects, bytes, and what the requests would cost.

An event that is in the table already, and settled, is not alerted again. One that is older than the retention may have
expired from the table: it is only stored, unless --alert-old is given.

Exit code: 0 if everything was done; 1 if something was not; 64 for wrong arguments; 78 for wrong rules or configuration;
130 when interrupted. With --resume, the next run goes on where this one ended.

Examples:
  trailhound replay s3://example-trail-logs --from 2026-05-01 --to 2026-05-31 --region eu-west-1
  trailhound replay s3://example-trail-logs --from 2026-05-01 --to 2026-05-31 --in-place --no-alert --resume may.jsonl
  trailhound replay s3://example-trail-logs/org --account 111122223333 --from 30d --to-queue --rate 50";

/// Objects that are listed ahead: the sooner all are known, the sooner the bar tells the time left.
const AHEAD: usize = 100_000;

/// SQS takes at most this many messages in one call.
const BATCH: usize = 10;

/// How often one message is sent before it counts as failed.
const ATTEMPTS: u32 = 5;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct ReplayArgs {
    /// `s3://BUCKET/PREFIX`, above or below `AWSLogs/`
    #[arg(value_name = "s3://BUCKET/PREFIX")]
    location: Location,
    /// Only objects that were delivered on that day or later: 30d (ago), 2026-05-01
    #[arg(long, value_name = "TIME", value_parser = when)]
    from: Option<When>,
    /// Only objects that were delivered on that day or before
    #[arg(long, value_name = "TIME", value_parser = when)]
    to: Option<When>,
    /// Only logs of this account; may be repeated
    #[arg(long, value_name = "ID")]
    account: Vec<String>,
    /// Only logs of this region; may be repeated
    #[arg(long, value_name = "REGION")]
    region: Vec<String>,
    /// Process the objects here
    #[arg(long, conflicts_with = "to_queue")]
    in_place: bool,
    /// Send a notification for each object to the queue (queue.url), so that the fleet shares the work
    #[arg(long)]
    to_queue: bool,
    /// Only store what matches, as settled
    #[arg(long, requires = "in_place", conflicts_with_all = ["alert_old", "to_queue"])]
    no_alert: bool,
    /// Alert also for events that are older than the retention
    #[arg(long)]
    alert_old: bool,
    /// Send at most so many notifications a second
    #[arg(long, requires = "to_queue", conflicts_with = "in_place", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Write down what is done, and pass over what is written there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// The rule file; rules.path of the configuration without it
    #[arg(long, requires = "in_place", conflicts_with = "to_queue", value_name = "FILE")]
    rules: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(config: Option<&Path>, args: ReplayArgs) -> Result<(), Failure> {
    let needed: &[&str] = match (args.in_place, args.to_queue) {
        (true, _) => &["alerting.topic_arn", "store.table"],
        (_, true) => &["queue.url"],
        _ => &[],
    };
    let (mut settings, origins) = Config::load_with(config, environment(), needed)?;
    if args.to_queue && settings.queue.url.rsplit('.').next() == Some("fifo") {
        return Err(Failure::Other(format!(
            "{} is a FIFO queue, which takes no notifications: name a standard queue, or use --in-place",
            settings.queue.url
        )));
    }
    // Where nobody asked for more, only what needs a person is logged: the bar tells the rest.
    if matches!(origins.get("log.level"), Origin::Default) {
        "warn".clone_into(&mut settings.log.level);
    }
    telemetry::start(&settings.log).map_err(|error| Failure::at("log.level", error))?;
    // Who names a bucket here allows it.
    settings.source.allowed_buckets = vec![args.location.bucket.clone()];
    // The queue in memory has one of its own.
    settings.queue.visibility = None;
    let rules = if args.in_place { Some(rules::load(config, args.rules.clone())?) } else { None };
    let resume = match args.resume.as_deref() {
        Some(path) => Resume::open(path).map_err(|error| Failure::at(path.display(), error))?,
        None => Resume::default(),
    };
    let now = OffsetDateTime::now_utc();
    let (from, to) = (args.from.map(|from| from.at(now).date()), args.to.map(|to| to.at(now).date()));
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Failure::Usage("--from is later than --to".to_owned()));
    }
    let retention = time::Duration::days(i64::from(settings.store.retention_days));
    let replay = Replay {
        selection: Selection { accounts: args.account.clone(), regions: args.region.clone(), from, to },
        oldest: now.saturating_sub(retention),
        output: Arc::new(Output::new(args.format)),
        settings,
        args,
    };
    stoppable(|handle, stop| async move {
        match rules {
            Some(rules) => {
                let source = RulePath::from(replay.args.rules.clone().unwrap_or_default());
                replay.in_place(handle, stop, resume, rules, source).await
            }
            None if replay.args.to_queue => replay.to_queue(&stop, resume).await,
            None => tokio::select! {
                biased;
                () = stop.reached(Phase::Draining) => Ok(()),
                done = replay.dry(&resume) => done,
            },
        }
    })
}

struct Replay {
    args: ReplayArgs,
    settings: Config,
    selection: Selection,
    /// What happened before may have expired from the table.
    oldest: OffsetDateTime,
    output: Arc<Output>,
}

/// A count, for machines.
#[derive(Serialize)]
struct PlanLine<'a> {
    account: &'a str,
    region: &'a str,
    objects: u64,
    bytes: u64,
    first_day: Option<&'a str>,
    last_day: Option<&'a str>,
}

#[derive(Serialize)]
struct TotalLine {
    objects: u64,
    bytes: u64,
    done_before: u64,
    too_old: u64,
    list_requests: u64,
    s3_usd: f64,
    sqs_usd: f64,
}

#[derive(Serialize)]
struct DoneLine<'a> {
    object: String,
    outcome: &'a str,
}

impl Replay {
    fn aws_settings(&self) -> aws::Settings {
        aws::Settings {
            queue_url: self.settings.queue.url.clone(),
            topic_arn: self.settings.alerting.topic_arn.clone(),
            table: self.settings.store.table.clone(),
            allowed_buckets: self.settings.source.allowed_buckets.clone(),
        }
    }

    /// Whether an object is left out because the fleet would alert for events that may have expired.
    fn is_too_old(&self, object: &Listed) -> bool {
        let oldest = self.oldest.date().to_string();
        !self.args.in_place && !self.args.alert_old && day(&object.key).is_some_and(|day| day < oldest)
    }

    async fn lister(&self, metrics: &Arc<Metrics>) -> Arc<Counted> {
        let (_, lister) = aws::log_buckets(&self.aws_settings(), Arc::clone(metrics)).await;
        Arc::new(Counted { lister, pages: AtomicU64::new(0) })
    }

    /// Sends what is listed. Once all is, the bar knows how much there is.
    fn list(
        &self,
        lister: Arc<Counted>,
        sender: mpsc::Sender<Listed>,
        progress: &Arc<Progress>,
    ) -> JoinHandle<Result<(), ListError>> {
        let (location, selection) = (self.args.location.clone(), self.selection.clone());
        let progress = Arc::downgrade(progress);
        tokio::spawn(async move {
            let mut sending = Sending::new(sender);
            let done = listing::logs(&*lister, &location, &selection, &mut sending).await;
            if let Some(progress) = progress.upgrade() {
                progress.known(sending.count);
            }
            done
        })
    }

    async fn dry(&self, resume: &Resume) -> Result<(), Failure> {
        let lister = self.lister(&metrics()?).await;
        let mut planning =
            Planning { replay: self, resume, plan: Plan::default(), progress: Progress::new("objects", None) };
        listing::logs(&*lister, &self.args.location, &self.selection, &mut planning).await.map_err(told)?;
        let plan = planning.plan;
        drop(planning.progress);
        let pages = lister.pages.load(Ordering::Relaxed);
        until_gone(if self.output.is_for_people() { self.print(&plan, pages) } else { self.print_json(&plan, pages) })
    }

    fn print(&self, plan: &Plan, pages: u64) -> Result<(), super::output::Unprinted> {
        let text = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text, 64) };
        let rows = plan.parts.iter().map(|((account, region), part)| {
            let Part { objects, bytes, first, last } = part;
            let day = |day: &Option<String>| day.clone().unwrap_or_else(|| "-".to_owned());
            vec![text(account), text(region), objects.to_string(), size(*bytes), day(first), day(last)]
        });
        let (objects, bytes) = (plan.objects(), plan.bytes());
        if objects > 0 {
            self.output.line(&table(&["account", "region", "objects", "size", "first day", "last day"], rows))?;
            self.output.line("")?;
        }
        self.output.line(&format!("{objects} objects, {} as stored", size(bytes)))?;
        if plan.done > 0 {
            self.output.line(&format!("{} more are done already (--resume)", plan.done))?;
        }
        if plan.too_old > 0 {
            let days = self.settings.store.retention_days;
            self.output.line(&format!(
                "{} of them are older than {days} days (store.retention_days): --to-queue leaves them out without --alert-old, \
                 --in-place only stores what they hold",
                plan.too_old
            ))?;
        }
        let (here, fleet) = (cost(objects, pages, false), cost(objects.saturating_sub(plan.too_old), pages, true));
        self.output.line(&format!(
            "Requests, by the public prices of us-east-1: {:.2} USD for S3 ({objects} GET, {pages} LIST); with --to-queue {:.2} USD \
             more for SQS. Each event that matches costs one to three writes in DynamoDB (1.25 USD for a million on demand), each \
             alert one request of SNS (0.50 USD for a million). Decryption by KMS and traffic between regions come on top.",
            here.s3, fleet.sqs
        ))?;
        self.output.line("Nothing was done: --in-place processes them here, --to-queue sends them to the queue.")
    }

    fn print_json(&self, plan: &Plan, pages: u64) -> Result<(), super::output::Unprinted> {
        for ((account, region), part) in &plan.parts {
            let Part { objects, bytes, first, last } = part;
            self.output.json(&PlanLine {
                account,
                region,
                objects: *objects,
                bytes: *bytes,
                first_day: first.as_deref(),
                last_day: last.as_deref(),
            })?;
        }
        let objects = plan.objects();
        let (here, fleet) = (cost(objects, pages, false), cost(objects.saturating_sub(plan.too_old), pages, true));
        self.output.json(&TotalLine {
            objects,
            bytes: plan.bytes(),
            done_before: plan.done,
            too_old: plan.too_old,
            list_requests: pages,
            s3_usd: here.s3,
            sqs_usd: fleet.sqs,
        })
    }

    /// The daemon's own loop, on a queue in memory.
    async fn in_place(
        self,
        stop_handle: StopHandle,
        stop: Stop,
        resume: Resume,
        rules: RuleSet,
        source: RulePath,
    ) -> Result<(), Failure> {
        let metrics = metrics()?;
        let lister = self.lister(&metrics).await;
        let (sender, objects) = mpsc::channel(AHEAD);
        let progress = Arc::new(Progress::new("objects", None));
        let listing = self.list(lister, sender, &progress);
        let policy = match (self.args.no_alert, self.args.alert_old) {
            (true, _) => AlertPolicy::None,
            (_, true) => AlertPolicy::All,
            _ => AlertPolicy::Since(self.oldest),
        };
        let clock = Clock::starting_at(OffsetDateTime::now_utc());
        let telling = {
            let (progress, bucket) = (Arc::clone(&progress), self.args.location.bucket.clone());
            let output = Arc::clone(&self.output);
            move |key: &str, outcome: &Outcome| {
                progress.add(1);
                let (outcome, is_told) = match outcome {
                    Outcome::Before => return,
                    Outcome::Done => ("done", !output.is_for_people()),
                    Outcome::Failed => ("failed", true),
                };
                if is_told {
                    let object = format!("s3://{bucket}/{key}");
                    // A reader that is gone does not stop the work.
                    let _printed = progress.around(|| {
                        if output.is_for_people() {
                            output.line(&format!("{outcome}: {}", shown(&object, 2048)))
                        } else {
                            output.json(&DoneLine { object, outcome })
                        }
                    });
                }
            }
        };
        let queue = ReplayQueue::new(&self.args.location.bucket, objects, resume, stop_handle.clone(), telling);
        let mut ports = aws::connect(&self.aws_settings(), Arc::clone(&metrics)).await;
        ports.queue = Arc::<ReplayQueue>::clone(&queue);
        let tasks = TaskRoot::new();
        let env = Env {
            clock,
            random: Random::from_entropy(),
            tasks: tasks.spawner(),
            compute: Compute::pool(self.settings.pipeline.decoders),
            stop,
        };
        let health = Arc::new(Health::new(Arc::clone(&metrics), self.settings.queue.wait));
        let daemon = Daemon {
            rules: RuleSource::new(source, rules, clock.now(), Arc::clone(&metrics)),
            config: Arc::new(self.settings),
            metrics: Arc::clone(&metrics),
            health,
            journal: Arc::new(Journal::default()),
            stop: stop_handle,
            policy,
        };
        app::run(ports, env, daemon).await;
        drop(progress);
        let (tally, left) = queue.tally();
        let alerts =
            Severity::ALL.map(|severity| metrics.alerts_published.with_label_values(&[severity.as_str()]).get());
        super::complain(&Failure::Other(format!(
            "{} objects done, {} failed; {} events stored for the first time, {} alerts",
            tally.done,
            tally.failed,
            metrics.store_writes.get(),
            alerts.iter().sum::<u64>()
        )));
        if let Some(error) = queue.broken() {
            return Err(Failure::at("cannot write the resume file", error));
        }
        if listing.is_finished() {
            listing.await.map_err(|error| Failure::at("the listing failed", error))?.map_err(told)?;
        }
        match (tally.failed, left) {
            (0, 0) => Ok(()),
            (failed, left) => Err(Failure::Other(format!(
                "{failed} objects failed and {left} were left undone: the log says why; run it again with the same --resume"
            ))),
        }
    }

    async fn to_queue(&self, stop: &Stop, resume: Resume) -> Result<(), Failure> {
        let metrics = metrics()?;
        let lister = self.lister(&metrics).await;
        let (sender, mut objects) = mpsc::channel::<Listed>(AHEAD);
        let progress = Arc::new(Progress::new("notifications", None));
        let listing = self.list(lister, sender, &progress);
        let queue = aws::message_sender(&self.aws_settings(), metrics).await;
        let mut pace = Pace::new(self.args.rate);
        let (mut sent, mut failed, mut too_old) = (0_u64, 0_u64, 0_u64);
        // No more at once than a second allows.
        let most = self.args.rate.and_then(|rate| usize::try_from(rate).ok()).map_or(BATCH, |rate| rate.min(BATCH));
        let mut batch = Vec::new();
        let bucket = &self.args.location.bucket;
        loop {
            let next = tokio::select! {
                biased;
                () = stop.reached(Phase::Draining) => None,
                next = objects.recv() => next,
            };
            let is_last = next.is_none();
            if let Some(object) = next {
                if resume.is_done(bucket, &object.key) {
                    progress.add(1);
                    continue;
                }
                if self.is_too_old(&object) {
                    progress.add(1);
                    too_old += 1;
                    continue;
                }
                batch.push(object.key);
            }
            if batch.len() >= most || is_last && !batch.is_empty() {
                let stopped = tokio::select! {
                    biased;
                    () = stop.reached(Phase::Draining) => true,
                    () = pace.wait(batch.len()) => false,
                };
                if stopped {
                    break;
                }
                let keys = std::mem::take(&mut batch);
                for (key, result) in send(&*queue, bucket, &keys).await? {
                    match result {
                        Ok(()) => {
                            sent += 1;
                            progress.add(1);
                            resume
                                .note(bucket, key)
                                .map_err(|error| Failure::at("cannot write the resume file", error))?;
                        }
                        Err(error) => {
                            failed += 1;
                            progress.around(|| super::complain(&Failure::at(shown(key, 1024), error)));
                        }
                    }
                }
            }
            if is_last {
                break;
            }
        }
        drop(progress);
        let old = match too_old {
            0 => String::new(),
            count => format!("; {count} left out as older than the retention (--alert-old)"),
        };
        super::complain(&Failure::Other(format!("{sent} notifications sent, {failed} failed{old}")));
        if stop.phase() == Phase::Running {
            listing.await.map_err(|error| Failure::at("the listing failed", error))?.map_err(told)?;
        }
        if failed == 0 { Ok(()) } else { Err(Failure::Other("run it again with the same --resume".to_owned())) }
    }
}

fn metrics() -> Result<Arc<Metrics>, Failure> {
    Metrics::new().map(Arc::new).map_err(|error| Failure::at("cannot register the metrics", error))
}

fn told(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

/// Sends a notification for each key; gives what became of each.
async fn send<'a>(
    queue: &dyn MessageSender,
    bucket: &str,
    keys: &'a [String],
) -> Result<Vec<(&'a str, Result<(), PortError>)>, Failure> {
    let mut results = Vec::with_capacity(keys.len());
    let mut left: Vec<&str> = keys.iter().map(String::as_str).collect();
    for attempt in 1.. {
        let bodies: Vec<String> = left.iter().map(|key| message(bucket, key)).collect();
        let answers = match queue.send(&bodies).await {
            Ok(answers) => answers,
            // The SDK has repeated it already: nothing of this process gets through.
            Err(error) => return Err(Failure::Other(error.to_string())),
        };
        let mut again = Vec::new();
        for (key, answer) in left.into_iter().zip(answers) {
            match answer {
                Err(error) if error.class == ErrorClass::Transient && attempt < ATTEMPTS => again.push(key),
                answer => results.push((key, answer)),
            }
        }
        left = again;
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200) * attempt).await;
    }
    Ok(results)
}

/// At most so many a second.
struct Pace {
    each: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { each: rate.and_then(|rate| Duration::from_secs(1).checked_div(rate)), next: Instant::now() }
    }

    /// Waits until so many more may go.
    async fn wait(&mut self, count: usize) {
        let Some(each) = self.each else { return };
        tokio::time::sleep_until(self.next).await;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.next = self.next.max(Instant::now()) + each.saturating_mul(count);
    }
}

/// Counts the pages, each of which is a request.
struct Counted {
    lister: Arc<dyn ObjectLister>,
    pages: AtomicU64,
}

#[async_trait::async_trait]
impl ObjectLister for Counted {
    async fn page(&self, bucket: &str, prefix: &str, folders: bool, after: Option<&str>) -> Result<Page, PortError> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.lister.page(bucket, prefix, folders, after).await
    }
}

struct Planning<'a> {
    replay: &'a Replay,
    resume: &'a Resume,
    plan: Plan,
    progress: Progress,
}

#[async_trait::async_trait]
impl AsyncEach for Planning<'_> {
    async fn object(&mut self, object: Listed) -> ControlFlow<()> {
        self.progress.add(1);
        if self.resume.is_done(&self.replay.args.location.bucket, &object.key) {
            self.plan.done += 1;
        } else {
            if self.replay.is_too_old(&object) {
                self.plan.too_old += 1;
            }
            self.plan.add(&object);
        }
        ControlFlow::Continue(())
    }
}

/// In the largest unit that leaves a digit before the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS.into_iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let all = [0, 1023, 1024, 1536, 5 << 30, 3 << 42].map(size);
        assert_eq!(all, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB", "12.0 TiB"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept() {
        let (mut pace, began) = (Pace::new(Some(10)), Instant::now());
        for _ in 0..4 {
            pace.wait(5).await;
        }
        assert_eq!(began.elapsed(), Duration::from_millis(1_500));
        let mut pace = Pace::new(None);
        pace.wait(1_000_000).await;
        assert_eq!(began.elapsed(), Duration::from_millis(1_500));
    }
}
