//! `trailhound doctor`: gathers facts about the installation, has them judged, and prints the findings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use super::output::{Format, Output, Paint, Progress, Unprinted, until_gone};
use super::when::{When, when};
use super::{Failure, environment, healthcheck, interruptible};
use crate::alert::shown;
use crate::aws::{self, Installation};
use crate::config::{Config, Origins};
use crate::doctor::bucket::{self, Around};
use crate::doctor::caller::{self, Caller, Regions};
use crate::doctor::queue::{self, QueueFacts, Redrive, Wants};
use crate::doctor::round_trip::{self, ROUND_TRIP, Test, Trip};
use crate::doctor::trail::TrailFacts;
use crate::doctor::{Finding, Looked, Status, Unknown, table, topic, trail};
use crate::metrics::Metrics;
use crate::reload::{LoadError, RulePath, fetch, read_text};
use crate::rules::{Diagnostic, Loaded, Matcher, Mode, RuleSet, Surroundings};

pub(super) const HELP: &str = "\
Examples:
  trailhound doctor
  trailhound doctor --bucket example-cloudtrail-logs --trail organization-trail
  trailhound doctor --round-trip --timeout 5m
  trailhound doctor --format jsonl | jq 'select(.status == \"problem\")'

Nothing is written, unless --round-trip is given. docs/tools.md has the policy of a role that may ask everything.";

/// Not more of a text is shown.
const MAX_FOUND: usize = 1_500;

/// A command that cannot be pasted whole mends nothing.
const MAX_MEND: usize = 8_000;

/// How often the table is asked for the item of the test.
const PAUSE: Duration = Duration::from_millis(500);

const CONFIGURATION: &str = "configuration";
const RULES: &str = "rules";
const DAEMON: &str = "daemon";

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Look at this bucket of log files, besides those of `source.allowed_buckets`
    #[arg(long = "bucket", value_name = "NAME")]
    buckets: Vec<String>,
    /// Look at this trail, by name or ARN, instead of those that write into the buckets
    #[arg(long, value_name = "NAME")]
    trail: Option<String>,
    /// Send a record that is marked as a test to the queue, and wait for its alert
    #[arg(long)]
    round_trip: bool,
    /// How long to wait for the alert of --round-trip, such as 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = length)]
    timeout: Duration,
}

fn length(text: &str) -> Result<Duration, String> {
    match when(text) {
        Ok(When::Ago(length)) => Ok(length),
        _ => Err("write a length of time such as 90s, 5m or 1h".to_owned()),
    }
}

pub(super) fn run(file: Option<&Path>, args: &DoctorArgs) -> Result<(), Failure> {
    interruptible(async {
        let mut report = Report { output: Output::new(args.format), counts: BTreeMap::new() };
        until_gone(examine(file, args, &mut report).await)?;
        if report.count(Status::Problem) > 0 { Err(Failure::Told(1)) } else { Ok(()) }
    })
}

/// What was told so far.
struct Report {
    output: Output,
    counts: BTreeMap<Status, usize>,
}

impl Report {
    fn count(&self, status: Status) -> usize {
        self.counts.get(&status).copied().unwrap_or(0)
    }

    fn tell(&mut self, finding: &Finding) -> Result<(), Unprinted> {
        *self.counts.entry(finding.status).or_default() += 1;
        if !self.output.is_for_people() {
            return self.output.json(finding);
        }
        let paint = match finding.status {
            Status::Ok => Paint::Good,
            Status::Warning => Paint::Warn,
            Status::Problem => Paint::Bad,
            Status::Skipped => Paint::Dim,
        };
        let status = self.output.paint(paint, &format!("{:<8}", finding.status.as_str()));
        let on = finding.on.as_ref().map(|on| format!("{on}: ")).unwrap_or_default();
        let because = if finding.status == Status::Skipped { "skipped, because " } else { "" };
        let found = shown(&format!("{on}{because}{}", finding.found), MAX_FOUND);
        self.output.line(&format!("{status} {:<22} {found}", finding.check))?;
        match &finding.mend {
            Some(mend) => self.output.line(&format!("{:31} -> {}", "", shown(mend, MAX_MEND))),
            None => Ok(()),
        }
    }

    fn tell_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), Unprinted> {
        findings.into_iter().try_for_each(|finding| self.tell(&finding))
    }

    fn skip(&mut self, checks: &[&'static str], because: &str) -> Result<(), Unprinted> {
        self.tell_all(checks.iter().map(|check| Finding::skipped(check, because)))
    }

    /// For people, at the end.
    fn sum_up(&self) -> Result<(), Unprinted> {
        if !self.output.is_for_people() {
            return Ok(());
        }
        let count = |status: Status, word: &str| format!("{} {word}", self.count(status));
        let (warnings, problems) = (self.count(Status::Warning), self.count(Status::Problem));
        self.output.line(&format!(
            "\n{}, {}, {}, {}",
            count(Status::Ok, "ok"),
            count(Status::Warning, if warnings == 1 { "warning" } else { "warnings" }),
            count(Status::Problem, if problems == 1 { "problem" } else { "problems" }),
            count(Status::Skipped, "skipped"),
        ))
    }
}

async fn examine(file: Option<&Path>, args: &DoctorArgs, report: &mut Report) -> Result<(), Unprinted> {
    let Some((config, origins)) = configuration(file, report)? else {
        let because = "the configuration cannot be read";
        report.skip(&[RULES, "region", "credentials", "queue", "bucket", "topic", "table", "trail"], because)?;
        return report.sum_up();
    };
    let rules = Box::pin(rules(&config)).await;
    report.tell(&told_rules(&config, &rules))?;

    let settings = aws::Settings {
        queue_url: config.queue.url.clone(),
        topic_arn: config.alerting.topic_arn.clone(),
        table: config.store.table.clone(),
        allowed_buckets: config.source.allowed_buckets.clone(),
    };
    let installation = Box::pin(Installation::open(&settings)).await;
    let (own, origin) = installation.region();
    let (queue_region, topic_region) = (installation.queue_region(), installation.topic_region());
    report.tell(&caller::region(&Regions { own, origin, queue: queue_region, topic: topic_region }))?;
    let caller = Box::pin(installation.caller()).await;
    let queue_arn = installation.queue_arn();
    report.tell(&caller::credentials(&caller, queue_arn.as_deref(), Some(&settings.topic_arn)))?;
    report.tell(&caller::clock(installation.clock_ahead()))?;
    if matches!(caller, Err(Unknown::Credentials(_))) {
        let because = "the credentials are no good";
        report.skip(&["queue", "bucket", "topic", "table", "trail"], because)?;
        report.tell(&daemon(&config).await)?;
        report.skip(&[ROUND_TRIP], because)?;
        return report.sum_up();
    }

    let examination =
        Examination { installation: &installation, config: &config, origins: &origins, args, caller: &caller };
    let queue = Box::pin(examination.aws(report)).await?;
    report.tell(&daemon(&config).await)?;
    let trip = Box::pin(examination.round_trip(&rules, queue.as_ref())).await;
    report.tell(&trip)?;
    report.sum_up()
}

/// The configuration as far as it is right; `None` if nothing of it can be used.
fn configuration(file: Option<&Path>, report: &mut Report) -> Result<Option<(Config, Origins)>, Unprinted> {
    let errors = match Config::load(file, environment()) {
        Ok(loaded) => {
            report.tell(&Finding::ok(CONFIGURATION, "it is right; `trailhound config` prints it"))?;
            return Ok(Some(loaded));
        }
        Err(errors) => errors,
    };
    for error in &errors.0 {
        let mend = "docs/configuration.md lists every key; `trailhound config` checks again";
        report.tell(&Finding::problem(CONFIGURATION, error.to_string(), mend))?;
    }
    // What is missing hides nothing of the rest.
    Ok(Config::load_with(file, environment(), &[]).ok())
}

/// The rules, and what in them is probably not meant.
type Rules = Result<(Arc<RuleSet>, Vec<Diagnostic>), LoadError>;

async fn rules(config: &Config) -> Rules {
    let text = match &config.rules.path {
        RulePath::File(file) => read_text(file)?,
        RulePath::Object(object) => {
            let metrics = Arc::new(Metrics::new().map_err(|_| LoadError::Bug)?);
            let ports = aws::connect(&aws::Settings::default(), metrics).await;
            fetch(&*ports.objects, object, None).await?.unwrap_or_default().text
        }
    };
    let today = Some(OffsetDateTime::now_utc().date());
    // What is not set is no fault of the rules.
    let lists = config.rule_lists().into_iter().filter(|(_, values)| !values.is_empty()).collect();
    let Loaded { rules, warnings } = RuleSet::load(&text, &Surroundings { lists, today });
    let rules = rules.map_err(|errors| LoadError::Rules { path: config.rules.path.clone(), errors })?;
    Ok((Arc::new(rules), warnings))
}

fn told_rules(config: &Config, rules: &Rules) -> Finding {
    let path = config.rules.path.to_string();
    match rules {
        Ok((rules, _)) if rules.rules().is_empty() => Finding::problem(
            RULES,
            format!("{path} has no rules: nothing is ever detected"),
            "name another with rules.path",
        ),
        Ok((rules, warnings)) => match warnings.first() {
            None => Finding::ok(RULES, format!("{} rules in {path}", rules.rules().len())),
            Some(first) => Finding::warning(
                RULES,
                format!("{} rules in {path}, {} warnings; the first: {first}", rules.rules().len(), warnings.len()),
                "trailhound rules check",
            ),
        },
        Err(error) => Finding::problem(RULES, error.to_string(), "trailhound rules check"),
    }
}

/// The daemon, if it answers on this machine.
async fn daemon(config: &Config) -> Finding {
    let Ok(url) = healthcheck::address(config.http.listen, "/readyz") else {
        return Finding::skipped(DAEMON, "http.listen leaves the port open");
    };
    match healthcheck::readiness(&url).await {
        Ok(Ok(())) => Finding::ok(DAEMON, format!("{url}: ready")),
        Ok(Err(missing)) => Finding::problem(
            DAEMON,
            format!("{url}: not ready: {missing}"),
            "its log says why; the checks above, how to mend it",
        ),
        Err(_) => Finding::skipped(DAEMON, format!("no daemon answers at {url}: it may run elsewhere")),
    }
}

/// What all that is asked of AWS has in common.
struct Examination<'a> {
    installation: &'a Installation,
    config: &'a Config,
    origins: &'a Origins,
    args: &'a DoctorArgs,
    caller: &'a Looked<Caller>,
}

/// The trails to look at, the buckets, and how they were chosen.
struct Chosen {
    trails: Looked<Vec<TrailFacts>>,
    /// Follows "no trail that can be seen".
    asked: String,
    buckets: Vec<String>,
    /// Why there are no buckets.
    because: String,
}

impl Examination<'_> {
    fn account(&self) -> Option<&str> {
        self.caller.as_ref().ok().map(|caller| caller.account.as_str()).filter(|account| !account.is_empty())
    }

    /// Asks about everything, and tells it. Gives the queue for the round trip.
    async fn aws(&self, report: &mut Report) -> Result<Option<QueueFacts>, Unprinted> {
        let Config { queue, alerting, store, .. } = self.config;
        let account = self.account().unwrap_or("*");
        let (queue_facts, topic_facts, table_facts, chosen) = tokio::join!(
            Box::pin(given(!queue.url.is_empty(), self.installation.queue())),
            Box::pin(given(!alerting.topic_arn.is_empty(), self.installation.topic())),
            Box::pin(given(!store.table.is_empty(), self.installation.table(account))),
            Box::pin(self.choose()),
        );
        let Chosen { trails, asked, buckets, because } = chosen;
        let seen: &[TrailFacts] = trails.as_deref().unwrap_or_default();
        let bucket_facts = join_all(buckets.iter().map(async |name| {
            let prefixes = prefixes(name, seen);
            Box::pin(self.installation.bucket(name, self.account(), &prefixes)).await
        }))
        .await;
        let mut topics: Vec<String> = seen.iter().filter_map(|trail| trail.topic.clone()).collect();
        for facts in &bucket_facts {
            let targets = facts.notification.as_ref().map(|it| it.targets.as_slice()).unwrap_or_default();
            topics.extend(targets.iter().map(|target| target.arn.clone()).filter(|arn| arn.contains(":sns:")));
        }
        topics.sort();
        topics.dedup();
        let topics = Box::pin(self.installation.subscriptions_of(topics)).await;

        let known = queue_facts.as_ref().and_then(|facts| facts.as_ref().ok());
        match &queue_facts {
            None => report.skip(&["queue"], "queue.url is not set")?,
            Some(facts) => {
                let target = known.and_then(|facts| Redrive::parse(facts.redrive_policy.as_deref()?));
                let dead = match target {
                    Some(redrive) => Some(Box::pin(self.installation.dead_letters(&redrive.target_arn)).await),
                    None => None,
                };
                let wants = Wants {
                    wait: queue.wait.as_secs(),
                    visibility: queue.visibility.map(|visibility| visibility.as_secs()),
                };
                report.tell_all(queue::queue(facts, dead.as_ref(), wants))?;
            }
        }
        let queue_arn = known.map(|facts| facts.arn.clone()).or_else(|| self.installation.queue_arn());
        let around = Around { queue_arn: queue_arn.as_deref(), topics: &topics, trails: seen, account: self.account() };
        let mut senders = Vec::new();
        for facts in &bucket_facts {
            let (findings, more) = bucket::bucket(facts, around);
            report.tell_all(findings)?;
            senders.extend(more.into_iter().filter(|sender| !senders.contains(sender)).collect::<Vec<_>>());
        }
        if bucket_facts.is_empty() {
            report.skip(&["bucket"], &because)?;
        }
        if let Some(facts) = known {
            for sender in &senders {
                report.tell_all(queue::sender(facts, sender))?;
            }
            if senders.is_empty() {
                report.skip(&["queue-policy"], "no bucket is known that should send")?;
            }
            report.tell_all(queue::strangers(facts))?;
        }
        match &topic_facts {
            None => report.skip(&["topic"], "alerting.topic_arn is not set")?,
            Some(facts) => report.tell_all(topic::topic(facts))?,
        }
        match &table_facts {
            None => report.skip(&["table"], "store.table is not set")?,
            Some(facts) => report.tell_all(table::table(facts))?,
        }
        report.tell_all(trail::trails(&trails, &asked, OffsetDateTime::now_utc()))?;
        Ok(queue_facts.and_then(Result::ok))
    }

    /// Which trails and buckets belong to this installation.
    async fn choose(&self) -> Chosen {
        let mut buckets: Vec<String> = Vec::new();
        for name in self.config.source.allowed_buckets.iter().chain(&self.args.buckets) {
            // A pattern names no bucket.
            if !name.contains(['*', '?']) && !buckets.contains(name) {
                buckets.push(name.clone());
            }
        }
        let named: Vec<&String> = match &self.args.trail {
            Some(trail) => vec![trail],
            None if buckets.is_empty() => self.config.rules.own_trails.iter().collect(),
            None => Vec::new(),
        };
        let is_named = |trail: &TrailFacts| named.iter().any(|name| **name == trail.name || **name == trail.arn);
        let because = "no bucket is configured, and none is known by a trail: name it with --bucket".to_owned();
        let all = match self.installation.trails().await {
            Ok(all) => all,
            Err(unknown) => return Chosen { trails: Err(unknown), asked: String::new(), buckets, because },
        };
        let called = named.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" or ");
        let (wanted, asked): (Vec<TrailFacts>, String) = if !named.is_empty() {
            (all.into_iter().filter(is_named).collect(), format!("is called {called}"))
        } else if !buckets.is_empty() {
            let asked = format!("writes into {}", buckets.join(" or "));
            (all.into_iter().filter(|trail| buckets.contains(&trail.bucket)).collect(), asked)
        } else {
            let mut into: Vec<&str> = all.iter().map(|trail| trail.bucket.as_str()).collect();
            into.sort_unstable();
            into.dedup();
            if into.len() > 1 {
                let because = format!("trails write into {}: say with --bucket which is meant", into.join(", "));
                let trails = Ok(Vec::new());
                let asked = "was chosen: several are there, and --trail names one".to_owned();
                return Chosen { trails, asked, buckets, because };
            }
            (all, "is there".to_owned())
        };
        for trail in &wanted {
            if !trail.bucket.is_empty() && !buckets.contains(&trail.bucket) {
                buckets.push(trail.bucket.clone());
            }
        }
        let trails = join_all(wanted.into_iter().map(|trail| Box::pin(self.installation.look_into(trail)))).await;
        Chosen { trails: Ok(trails), asked, buckets, because }
    }

    async fn round_trip(&self, rules: &Rules, queue: Option<&QueueFacts>) -> Finding {
        if !self.args.round_trip {
            return Finding::skipped(ROUND_TRIP, "--round-trip was not given: it sends a synthetic event");
        }
        let Some(queue) = queue else {
            return Finding::skipped(ROUND_TRIP, "the queue is not known");
        };
        if self.config.store.table.is_empty() {
            return Finding::skipped(ROUND_TRIP, "store.table is not set");
        }
        if !self.config.source.inline_records {
            let origin = self.origins.get("source.inline_records");
            let because = format!(
                "source.inline_records is off ({origin}): the daemon would leave the test for the dead-letter queue"
            );
            return Finding::skipped(ROUND_TRIP, because).mended_by(
                "upload a log file into the bucket instead: bucket-notification and bucket-read tell of that way",
            );
        }
        let test = match self.test(queue) {
            Ok(test) => test,
            Err(error) => return Finding::skipped(ROUND_TRIP, error),
        };
        if let Ok((rules, _)) = rules {
            // The rules of this machine; whether the daemon has the same will show.
            let matched = Matcher::new(Arc::clone(rules)).matches(test.record().to_string().as_bytes());
            if !matched.iter().any(|rule| rule.mode == Mode::Alert) {
                return round_trip::missing_rule(&self.config.rules.path.to_string());
            }
        }
        match self.travel(&test, queue).await {
            Ok(trip) => round_trip::judge(&trip, &self.config.store.table, self.config.store.retention_days),
            Err(unknown) => {
                let mut finding = Finding::unknown(ROUND_TRIP, &unknown);
                finding.found = format!("nothing was sent: {}", finding.found);
                finding
            }
        }
    }

    fn test(&self, queue: &QueueFacts) -> Result<Test, String> {
        let arn = crate::doctor::Arn::parse(&queue.arn);
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        Ok(Test {
            event_id: uuid(),
            time: now.format(&Rfc3339).map_err(|error| format!("this machine's time cannot be written: {error}"))?,
            account: self.account().or(arn.map(|arn| arn.account)).unwrap_or_default().to_owned(),
            region: arn.map(|arn| arn.region).unwrap_or_default().to_owned(),
            caller: self.caller.as_ref().map(|caller| caller.arn.clone()).unwrap_or_default(),
        })
    }

    /// Sends the test and waits for its alert. `Err`: nothing was sent.
    async fn travel(&self, test: &Test, queue: &QueueFacts) -> Looked<Trip> {
        let account = self.account().unwrap_or("*");
        let ask = || Box::pin(self.installation.stored(&test.event_id, &test.time, account));
        // Whoever may not look would wait in vain.
        ask().await?;
        let dead = Redrive::parse(queue.redrive_policy.as_deref().unwrap_or_default()).map(|it| it.target_arn);
        let dead_before = self.dead(dead.as_deref()).await;
        Box::pin(self.installation.send(&test.message(), &queue.arn)).await?;
        let started = Instant::now();
        let _watched = Progress::new("waiting for the alert of the test", None);
        let (mut stored, mut alerted) = (None, None);
        let mut blind;
        loop {
            match ask().await {
                Ok(Some(item)) => {
                    blind = None;
                    let after = stored.as_ref().map_or_else(|| started.elapsed(), |(after, _)| *after);
                    if item.alerted_at.is_some() {
                        alerted = Some(started.elapsed());
                    }
                    stored = Some((after, item));
                }
                Ok(None) => blind = None,
                Err(unknown) => blind = Some(unknown),
            }
            if alerted.is_some() || started.elapsed() >= self.args.timeout {
                break;
            }
            sleep(PAUSE).await;
        }
        let waited = started.elapsed();
        let counts = Box::pin(self.installation.queue()).await.map(|facts| (facts.visible, facts.in_flight));
        let dead_after = self.dead(dead.as_deref()).await;
        Ok(Trip {
            event_id: test.event_id.clone(),
            stored,
            alerted,
            waited,
            blind,
            queue: counts,
            dead: dead_before.zip(dead_after),
        })
    }

    async fn dead(&self, arn: Option<&str>) -> Option<u64> {
        let facts = Box::pin(self.installation.dead_letters(arn?)).await.ok()?;
        Some(facts.visible.saturating_add(facts.in_flight))
    }
}

/// Only where there is something to ask about.
async fn given<T>(is: bool, asked: impl Future<Output = Looked<T>>) -> Option<Looked<T>> {
    if is { Some(asked.await) } else { None }
}

/// Where the log files of these trails lie in a bucket.
fn prefixes(bucket: &str, trails: &[TrailFacts]) -> Vec<String> {
    let of_trails = trails.iter().filter(|trail| trail.bucket == bucket);
    let mut prefixes: Vec<String> = of_trails
        .map(|trail| trail.prefix.as_ref().map_or_else(String::new, |it| format!("{it}/")) + "AWSLogs/")
        .collect();
    if prefixes.is_empty() {
        prefixes.push("AWSLogs/".to_owned());
    }
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

/// A random UUID (version 4).
fn uuid() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}
