//! `trailhound scan`: what the rules find in log files, without a daemon and without AWS.

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::output::{Format, Output, Paint, Progress, Unprinted, severity};
use super::when::{When, when};
use super::{Failure, environment, rules, stoppable};
use crate::alert::{DetectedEvent, Outcome, SourceObject, account_id, shown};
use crate::aws;
use crate::cloudtrail::{Limits, event_time, json};
use crate::config::Config;
use crate::env::Phase;
use crate::listing::{self, ListError, Listed, Location, ObjectLister, Selection, Sending};
use crate::metrics::Metrics;
use crate::noise;
use crate::ports::{ErrorClass, ObjectRequest, ObjectStore, PortError};
use crate::rules::{Mode, RuleInfo, RuleSet, Severity, Wanted};
use crate::scan::{
    Body, Figures, FileEnd, Found, Give, Hold, Ledger, Room, Scan, Told, ToldAlert, Work, find, give_file,
};

pub(super) const HELP: &str = "\
Files may be log files of CloudTrail, bare records, one record a line, arrays of records, EventBridge events, or what
`aws cloudtrail lookup-events` prints; each plain, or compressed with gzip or zstd. In folders, files are read whose names
end in .json, .jsonl, .ndjson (.gz, .zst), .tar (.gz, .zst), .tgz or .zip.

Exit code: 0 if everything was read; 1 if something could not be, or if an alert is as grave as --fail-on says; 64 for wrong
arguments; 78 for wrong rules or configuration.

Examples:
  trailhound scan logs/
  trailhound scan --summary --rules new-rules.json s3://example-trail-logs/AWSLogs/111122223333/ --from 7d
  aws cloudtrail lookup-events --output json | trailhound scan -
  trailhound scan --fail-on HIGH --format jsonl events.jsonl | jq -r .eventID";

/// Objects that are fetched ahead.
const FETCHES: usize = 32;

/// How much is held in memory of objects and of files in archives, unless one alone is larger.
const ROOM_BYTES: u64 = 256 << 20;

/// How often an object is fetched before it counts as unreadable.
const ATTEMPTS: u32 = 4;

/// How long a scan that is interrupted may take to end.
const STOPPING: std::time::Duration = std::time::Duration::from_secs(2);

/// Files of one day are delivered on the next one, too.
const LATE: Duration = Duration::DAY;

#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// Files, folders, archives (.tar, .tar.gz, .tgz, .tar.zst, .zip), `s3://BUCKET/PREFIX`, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The rule file; rules.path of the configuration without it
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Only events from then on: 24h (ago), 2026-05-01, 2026-05-01T12:00, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when)]
    from: Option<When>,
    /// Only events before then
    #[arg(long, value_name = "TIME", value_parser = when)]
    to: Option<When>,
    /// Only events of this account; may be repeated
    #[arg(long, value_name = "ID")]
    account: Vec<String>,
    /// Only events of this region; may be repeated
    #[arg(long, value_name = "REGION")]
    region: Vec<String>,
    /// Only rules as grave as this, or graver
    #[arg(long, value_parser = severity(), ignore_case = true, value_name = "SEVERITY")]
    severity: Option<Severity>,
    /// Only this rule; may be repeated
    #[arg(long, value_name = "ID")]
    rule: Vec<String>,
    /// Tell what each rule did instead of each match: hits, events, groups, alerts, and what exceptions withheld
    #[arg(long)]
    summary: bool,
    /// Exit with code 1 if there is an alert as grave as this, or graver
    #[arg(long, value_parser = severity(), ignore_case = true, value_name = "SEVERITY")]
    fail_on: Option<Severity>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Where a path leads.
enum Input {
    Files(Vec<PathBuf>),
    Bucket(Location),
    Stdin,
}

pub(super) fn run(config: Option<&Path>, args: ScanArgs) -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc();
    let (settings, _) = Config::load_with(config, environment(), &[])?;
    let limits = settings.source.limits;
    let rules = Arc::new(rules::load(config, args.rules.clone())?);
    let (from, to) = (args.from.map(|when| when.at(now)), args.to.map(|when| when.at(now)));
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Failure::Usage("--from is not before --to".to_owned()));
    }
    if let Some(unknown) = args.rule.iter().find(|id| rules.find(id).is_none()) {
        return Err(Failure::Usage(format!("--rule {unknown}: the rule file has no such rule")));
    }
    let inputs = inputs(&args.paths)?;
    let files = inputs.iter().map(|input| match input {
        Input::Files(files) => Some(files.len() as u64),
        Input::Stdin => Some(1),
        Input::Bucket(_) => None,
    });
    let files: Option<u64> = files.sum();
    let days = Selection {
        accounts: args.account.clone(),
        regions: args.region.clone(),
        from: from.map(OffsetDateTime::date),
        to: to.map(|to| to.saturating_add(LATE).date()),
    };
    let scan = Scan {
        rules: Arc::clone(&rules),
        limits,
        wanted: wanted(&args, from, to),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let figures = Arc::new(Figures::default());
    stoppable(|_, stop| async move {
        let (stopping, ended) = (Arc::clone(&figures), stop.clone());
        tokio::spawn(async move {
            stop.reached(Phase::Draining).await;
            stopping.stop.store(true, Ordering::Relaxed);
        });
        let buckets = if inputs.iter().any(|input| matches!(input, Input::Bucket(_))) {
            let metrics = Metrics::new().map_err(|error| Failure::at("cannot register the metrics", error))?;
            Some(aws::log_buckets(&aws::Settings::default(), Arc::new(metrics)).await)
        } else {
            None
        };
        let handle = Handle::current();
        let works = move |give: Give<'_>| give_all(inputs, limits, buckets.as_ref(), &days, &handle, give);
        let scanning = tokio::task::spawn_blocking(move || {
            let mut teller = Teller::new(&args, rules, files, Arc::clone(&figures))?;
            let _early = scan.run(works, &figures, |name, found| teller.found(name, found));
            teller.end()
        });
        // A reader of the output that has stopped reading, such as a pager, holds the scan up for ever.
        let abandoned = async {
            ended.reached(Phase::Draining).await;
            tokio::time::sleep(STOPPING).await;
        };
        tokio::select! {
            biased;
            done = scanning => {
                done.map_err(|error| Failure::at("the scan failed; this is a bug, please report it", error))?
            }
            () = abandoned => Ok(()),
        }
    })
}

/// What the filters leave.
fn wanted(args: &ScanArgs, from: Option<OffsetDateTime>, to: Option<OffsetDateTime>) -> Option<Wanted> {
    let (accounts, regions, severity, rules) =
        (args.account.clone(), args.region.clone(), args.severity, args.rule.clone());
    if from.is_none()
        && to.is_none()
        && accounts.is_empty()
        && regions.is_empty()
        && severity.is_none()
        && rules.is_empty()
    {
        return None;
    }
    Some(Wanted(Arc::new(move |rule: &RuleInfo, record: &[u8]| {
        let among = |wanted: &[String], is: Option<&str>| {
            wanted.is_empty() || is.is_some_and(|is| wanted.iter().any(|wanted| wanted == is))
        };
        let in_time = || {
            if from.is_none() && to.is_none() {
                return true;
            }
            let at = event_time(record);
            at.is_some_and(|at| from.is_none_or(|from| from <= at) && to.is_none_or(|to| at < to))
        };
        severity.is_none_or(|least| rule.severity >= least)
            && among(&rules, Some(&rule.id))
            && (regions.is_empty() || among(&regions, json::get(record, "awsRegion").and_then(json::string).as_deref()))
            && (accounts.is_empty() || among(&accounts, account_id(record).as_deref()))
            && in_time()
    })))
}

fn inputs(paths: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    let input = |path: &PathBuf| {
        if path == Path::new("-") {
            return Ok(Input::Stdin);
        }
        if let Some(text) = path.to_str().filter(|text| text.starts_with("s3://")) {
            return text.parse().map(Input::Bucket).map_err(Failure::Usage);
        }
        if path.is_dir() {
            return Ok(Input::Files(find(path)));
        }
        // One that is not there is told with its name, like any other that cannot be read.
        Ok(Input::Files(vec![path.clone()]))
    };
    paths.iter().map(input).collect()
}

type Buckets = (Arc<dyn ObjectStore>, Arc<dyn ObjectLister>);

/// Runs on a thread of its own.
fn give_all(
    inputs: Vec<Input>,
    limits: Limits,
    buckets: Option<&Buckets>,
    days: &Selection,
    handle: &Handle,
    give: Give<'_>,
) -> ControlFlow<()> {
    let room = Room::new(ROOM_BYTES);
    for input in inputs {
        match (input, buckets) {
            (Input::Files(files), _) => files.iter().try_for_each(|file| give_file(file, limits, &room, give))?,
            (Input::Stdin, _) => give(stdin())?,
            (Input::Bucket(location), Some(buckets)) => {
                give_bucket(&location, limits, buckets, days, &room, handle, give)?;
            }
            (Input::Bucket(_), None) => {}
        }
    }
    ControlFlow::Continue(())
}

fn stdin() -> Work {
    let body = if std::io::stdin().is_terminal() {
        Body::Failed("standard input is a terminal: pipe records into it, or name files".to_owned())
    } else {
        Body::Stream(Box::new(std::io::stdin()))
    };
    Work { name: "-".to_owned(), object: None, body }
}

/// Objects are listed and fetched ahead, and given in the order of the listing.
fn give_bucket(
    location: &Location,
    limits: Limits,
    (store, lister): &Buckets,
    days: &Selection,
    room: &Arc<Room>,
    handle: &Handle,
    give: Give<'_>,
) -> ControlFlow<()> {
    let (sender, receiver) = mpsc::channel::<Listed>(FETCHES);
    let listing = {
        let (lister, location, days) = (Arc::clone(lister), location.clone(), days.clone());
        handle.spawn(async move { list(&*lister, &location, &days, Sending::new(sender)).await })
    };
    let objects = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|object| (object, receiver))
    });
    let bucket = &location.bucket;
    // One after another gets its room, so that the first one always has it.
    let objects = objects.then(|object| {
        let room = Arc::clone(room);
        let size = if object.size > limits.max_compressed_bytes { 0 } else { object.size };
        async move { (object, tokio::task::spawn_blocking(move || room.take(size)).await) }
    });
    let works = objects.map(|(object, hold)| fetch(&**store, bucket, object, limits, hold)).buffered(FETCHES);
    let mut works = std::pin::pin!(works);
    let mut is_empty = true;
    while let Some(work) = handle.block_on(works.next()) {
        is_empty = false;
        give(work)?;
    }
    let failed = match handle.block_on(listing) {
        // As a file that is not there. Where days are named, there may have been nothing on them.
        Ok(Ok(Listing::All)) if is_empty => "no log file of CloudTrail is there".to_owned(),
        Ok(Ok(_)) => return ControlFlow::Continue(()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("the listing failed; this is a bug, please report it: {error}"),
    };
    give(Work { name: location.to_string(), object: None, body: Body::Failed(failed) })
}

/// What is below the prefix; only the days that are asked for, where CloudTrail's folders tell days.
async fn list(
    lister: &dyn ObjectLister,
    location: &Location,
    days: &Selection,
    mut sending: Sending,
) -> Result<Listing, ListError> {
    match listing::logs(lister, location, days, &mut sending).await {
        Err(ListError::NoLogs(_)) => {
            listing::logs(lister, location, &Selection::default(), &mut sending).await.map(|()| Listing::All)
        }
        Ok(()) if *days == Selection::default() => Ok(Listing::All),
        done => done.map(|()| Listing::Days),
    }
}

/// What was listed.
enum Listing {
    /// All that is below the prefix.
    All,
    /// Only the days, regions and accounts that are named.
    Days,
}

async fn fetch(
    store: &dyn ObjectStore,
    bucket: &str,
    object: Listed,
    limits: Limits,
    hold: Result<Hold, JoinError>,
) -> Work {
    let request = ObjectRequest {
        bucket: bucket.to_owned(),
        key: object.key.clone(),
        version_id: None,
        region: None,
        start: 0,
        if_match: None,
    };
    let limit = limits.max_compressed_bytes;
    let body = if object.size > limit {
        Body::Failed(format!("more than {limit} compressed bytes (source.max_compressed_bytes)"))
    } else {
        let mut attempt = 1;
        loop {
            // It may have been replaced by a larger one since it was listed.
            match download(store, &request, object.size).await {
                Ok(bytes) if bytes.len() as u64 > object.size => {
                    break Body::Failed("it grew while it was read: scan it again".to_owned());
                }
                Ok(bytes) => {
                    break match hold {
                        Ok(hold) => Body::Bytes(bytes, hold),
                        Err(error) => Body::Failed(error.to_string()),
                    };
                }
                Err(error) if error.class == ErrorClass::Transient && attempt < ATTEMPTS => attempt += 1,
                Err(error) => break Body::Failed(error.to_string()),
            }
        }
    };
    let source = SourceObject { bucket: bucket.to_owned(), key: object.key.clone(), version_id: None };
    Work { name: format!("s3://{bucket}/{}", object.key), object: Some(source), body }
}

async fn download(store: &dyn ObjectStore, request: &ObjectRequest, limit: u64) -> Result<Bytes, PortError> {
    let mut body = store.open(request).await?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.chunks.next().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            break;
        }
    }
    Ok(bytes.freeze())
}

/// A match, for machines.
#[derive(Serialize)]
struct Match<'a> {
    #[serde(rename = "eventID")]
    event_id: &'a str,
    #[serde(rename = "eventTime")]
    event_time: Option<&'a str>,
    #[serde(rename = "eventName")]
    event_name: Option<&'a str>,
    #[serde(rename = "eventSource")]
    event_source: Option<&'a str>,
    #[serde(rename = "awsRegion")]
    region: Option<&'a str>,
    #[serde(rename = "accountId")]
    account_id: Option<&'a str>,
    actor: Option<&'a str>,
    #[serde(rename = "sourceIPAddress")]
    source_ip: Option<&'a str>,
    #[serde(rename = "errorCode")]
    error_code: Option<&'a str>,
    outcome: &'static str,
    rules: Vec<&'a str>,
    severity: Severity,
    file: &'a str,
    index: u64,
    /// The event was told before, from another place.
    copy: bool,
    /// What would be sent because of it.
    alerts: Vec<Alert<'a>>,
}

#[derive(Serialize)]
struct Alert<'a> {
    #[serde(rename = "alert_id")]
    id: &'a str,
    severity: Severity,
    rules: Vec<&'a str>,
}

impl<'a> Alert<'a> {
    fn new(alert: &'a ToldAlert) -> Self {
        let ToldAlert { alert_id, severity, rules } = alert;
        Self { id: alert_id, severity: *severity, rules: rules.iter().map(String::as_str).collect() }
    }
}

/// Prints what is found.
struct Teller {
    output: Output,
    progress: Progress,
    ledger: Ledger,
    rules: Arc<RuleSet>,
    summary: bool,
    fail_on: Option<Severity>,
    gravest: Option<Severity>,
    files: u64,
    records: u64,
    matches: u64,
    unreadable_files: u64,
    unreadable_records: u64,
    unprinted: Option<Unprinted>,
}

impl Teller {
    fn new(args: &ScanArgs, rules: Arc<RuleSet>, files: Option<u64>, figures: Arc<Figures>) -> Result<Self, Failure> {
        let ledger =
            Ledger::new(Arc::clone(&rules)).map_err(|error| Failure::at("cannot register the metrics", error))?;
        Ok(Self {
            output: Output::new(args.format),
            progress: Progress::reading("files", files, figures),
            ledger,
            rules,
            summary: args.summary,
            fail_on: args.fail_on,
            gravest: None,
            files: 0,
            records: 0,
            matches: 0,
            unreadable_files: 0,
            unreadable_records: 0,
            unprinted: None,
        })
    }

    fn found(&mut self, name: &str, found: Found) -> ControlFlow<()> {
        match found {
            Found::Events(events) => events.iter().try_for_each(|event| self.event(name, event)),
            Found::End(end) => {
                self.ended(name, &end);
                ControlFlow::Continue(())
            }
        }
    }

    fn event(&mut self, name: &str, event: &DetectedEvent) -> ControlFlow<()> {
        self.matches += 1;
        let told = self.ledger.take(event);
        self.gravest = self.gravest.max(told.alerts.iter().map(|alert| alert.severity).max());
        if self.summary {
            return ControlFlow::Continue(());
        }
        let printed = self.progress.around(|| {
            if self.output.is_for_people() {
                self.output.line(&self.line(name, event, &told))
            } else {
                self.output.json(&document(name, event, &told))
            }
        });
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(unprinted) => {
                self.unprinted = Some(unprinted);
                ControlFlow::Break(())
            }
        }
    }

    fn line(&self, name: &str, event: &DetectedEvent, told: &Told) -> String {
        let facts = &event.facts;
        let severity = gravest(event);
        let time = facts.event_time.map_or("no time", |_| event.key.timestamp.as_str());
        let padding = " ".repeat("CRITICAL".len().saturating_sub(severity.as_str().len()));
        let mut what = vec![self.output.paint(Paint::Bold, facts.event_name.as_deref().unwrap_or("unnamed event"))];
        if facts.outcome != Outcome::Success {
            what.push(format!("({})", facts.outcome.as_str()));
        }
        for (word, fact) in [("by", &facts.actor), ("from", &facts.source_ip), ("in", &facts.account_id)] {
            what.extend(fact.as_ref().map(|fact| format!("{word} {fact}")));
        }
        what.extend(facts.region.clone());
        let rules: Vec<_> = event
            .rules
            .iter()
            .map(|rule| if rule.mode == Mode::Shadow { format!("{} (shadow)", rule.id) } else { rule.id.clone() })
            .collect();
        let becomes = match (told.is_copy, told.alerts.len()) {
            (true, 0) => " [copy]",
            (false, 0) => " [no alert of its own]",
            _ => "",
        };
        let place = format!("{}#{}", shown(name, 2048), event.source.index);
        let (severity, place) = (self.output.severity(severity), self.output.paint(Paint::Dim, &place));
        format!("{time:<20}  {severity}{padding}  {}  {}{becomes}  {place}", what.join(" "), rules.join(", "))
    }

    fn ended(&mut self, name: &str, end: &FileEnd) {
        self.files += 1;
        self.records += end.records;
        self.unreadable_records += end.unreadable;
        self.ledger.suppressed(&end.suppressed);
        self.progress.add(1);
        if let Some(problem) = &end.problem {
            self.unreadable_files += 1;
            let more = match end.unreadable {
                0 | 1 => String::new(),
                count => format!(" (one of {count} such problems)"),
            };
            self.progress.around(|| complain(&format!("{}: {}{more}", shown(name, 2048), shown(problem, 2048))));
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self.unprinted {
            Some(Unprinted::Gone) => return Ok(()),
            Some(Unprinted::Failed(failure)) => return Err(failure),
            None => {}
        }
        drop(self.progress);
        let rows = self.ledger.noise();
        if self.summary {
            let printed = if self.output.is_for_people() {
                noise::table(&rows).iter().try_for_each(|line| self.output.line(line))
            } else {
                rows.iter().filter(|row| row.is_heard()).try_for_each(|row| self.output.json(row))
            };
            super::output::until_gone(printed)?;
        }
        let (events, alerts) = self.ledger.totals();
        complain(&format!(
            "{} files, {} records, {} rules: {} matches of {events} events, {alerts} alerts",
            self.files,
            self.records,
            self.rules.rules().len(),
            self.matches
        ));
        if self.unreadable_files > 0 {
            let records = match self.unreadable_records {
                0 => String::new(),
                count => format!(", with {count} records that are none"),
            };
            return Err(Failure::Other(format!("{} files could not be read whole{records}", self.unreadable_files)));
        }
        match (self.fail_on, self.gravest) {
            (Some(limit), Some(gravest)) if gravest >= limit => {
                Err(Failure::Other(format!("there is an alert of {gravest} (--fail-on {limit})")))
            }
            _ => Ok(()),
        }
    }
}

fn gravest(event: &DetectedEvent) -> Severity {
    event.rules.iter().map(|rule| rule.severity).max().unwrap_or(Severity::Low)
}

fn document<'a>(name: &'a str, event: &'a DetectedEvent, told: &'a Told) -> Match<'a> {
    let facts = &event.facts;
    Match {
        event_id: &event.key.event_id,
        event_time: facts.event_time.map(|_| event.key.timestamp.as_str()),
        event_name: facts.event_name.as_deref(),
        event_source: facts.event_source.as_deref(),
        region: facts.region.as_deref(),
        account_id: facts.account_id.as_deref(),
        actor: facts.actor.as_deref(),
        source_ip: facts.source_ip.as_deref(),
        error_code: facts.error_code.as_deref(),
        outcome: facts.outcome.as_str(),
        rules: event.rules.iter().map(|rule| rule.id.as_str()).collect(),
        severity: gravest(event),
        file: name,
        index: event.source.index,
        copy: told.is_copy,
        alerts: told.alerts.iter().map(Alert::new).collect(),
    }
}

fn complain(text: &str) {
    use std::io::Write as _;
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}
