//! `trailhound events ...`: what was detected, read back from the table.

mod export;
mod list;
mod show;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use futures_util::stream::{self, StreamExt as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{Format, Unprinted, severity, until_gone};
use super::when::{When, when};
use super::{Failure, complain, environment, interruptible, rules};
use crate::aws;
use crate::config::Config;
use crate::events::{Detail, EventReader, Events, Filter, Order, Question, Range, ReadError};
use crate::rules::{RuleSet, Severity};

pub(super) const HELP: &str = "\
Examples:
  trailhound events list --since 24h --severity HIGH
  trailhound events list --rule root-login --account 111122223333 --since 7d --format jsonl
  trailhound events list --actor 'Admin/alice' --from 2026-05-01T11:00 --to 2026-05-01T13:00
  trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
  trailhound events export --from 2026-05-01 --to 2026-06-01 --records --output may.jsonl

It needs dynamodb:Query and dynamodb:GetItem on the table and its index ByDay, and dynamodb:Scan for --scan.";

const LIST_HELP: &str = "\
Examples:
  trailhound events list
  trailhound events list --since 7d --severity HIGH --region us-east-1
  trailhound events list --actor 'Admin/*' --name 'Delete*' --since 2d
  trailhound events list --from 2026-05-01 --to 2026-05-02 --rule root-login --format jsonl
  trailhound events list --from 1970-01-01 --to 1970-01-02     # those whose records have no time
  trailhound events list --scan --limit 100                    # of a table without the index ByDay";

const SHOW_HELP: &str = "\
Examples:
  trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
  trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91 --around 6h
  trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91 --format jsonl | jq .event";

const EXPORT_HELP: &str = "\
Examples:
  trailhound events export --since 7d --severity HIGH > high.jsonl
  trailhound events export --from 2026-05-01 --to 2026-06-01 --output may.jsonl
  trailhound events export --since 30d --rule root-login --records --output records.jsonl";

/// More days than these are asked of the index by mistake.
const MAX_DAYS: u64 = 3_660;

/// Until when events are read where nobody says it: the clocks of two machines differ.
const AHEAD: Duration = Duration::from_secs(3_600);

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// List events, the newest first
    #[command(after_long_help = LIST_HELP)]
    List(ListArgs),
    /// Show an event: its alert, its whole record, where it came from, what else its actor did; exit code 1 if there is none
    #[command(after_long_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Write events with their whole records, one JSON document a line, the oldest first
    #[command(after_long_help = EXPORT_HELP)]
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Not more events than these
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// The oldest first
    #[arg(long)]
    reverse: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The event's id, as in its alert
    #[arg(value_name = "EVENT_ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// How long before and after it to look for what else its actor did; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = length)]
    around: Duration,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Only the CloudTrail records, as `scan` reads them
    #[arg(long)]
    records: bool,
    /// The file to write, which is there only once it is complete; without it, standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ExportFormat {
    /// One JSON document a line
    #[default]
    Jsonl,
}

/// Which events.
#[derive(Debug, Args)]
struct Which {
    /// From so long ago, or from a time, until now [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = when, conflicts_with_all = ["from", "to"])]
    since: Option<When>,
    /// From a time, such as 2026-05-01, 2026-05-01T12:00 (UTC), 2026-05-01T12:00:00+02:00, or 48h (ago)
    #[arg(long, value_name = "TIME", value_parser = when)]
    from: Option<When>,
    /// Up to a time, and without it
    #[arg(long, value_name = "TIME", value_parser = when, requires = "from")]
    to: Option<When>,
    /// Of this severity or a higher one
    #[arg(long, value_name = "SEVERITY", value_parser = severity(), ignore_case = true)]
    severity: Option<Severity>,
    /// That this rule matched; may be given several times
    #[arg(long = "rule", value_name = "ID")]
    rules: Vec<String>,
    /// In this account; may be given several times
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// In this region; may be given several times
    #[arg(long = "region", value_name = "REGION")]
    regions: Vec<String>,
    /// By this actor, exactly as alerts name it; `*` and `?` are wildcards; may be given several times
    #[arg(long = "actor", value_name = "ACTOR")]
    actors: Vec<String>,
    /// Of this name (eventName); `*` and `?` are wildcards; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Read the whole table, not its index by day; without a time then, all of it
    #[arg(long)]
    scan: bool,
}

impl Which {
    fn range(&self, now: OffsetDateTime) -> Result<Range, Failure> {
        let from = match self.since.or(self.from) {
            Some(when) => when.at(now),
            None if self.scan => Range::ALL.from(),
            None => When::Ago(Duration::from_secs(24 * 3_600)).at(now),
        };
        let to = match self.to {
            Some(when) => when.at(now),
            None if self.scan => Range::ALL.to(),
            None => now.saturating_add(time::Duration::try_from(AHEAD).unwrap_or_default()),
        };
        let range = Range::new(from, to);
        if range.is_empty() {
            let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
            return Err(Failure::Usage(format!("--from, {}, is not before --to, {}", text(from), text(to))));
        }
        if !self.scan {
            bounded(&range)?;
        }
        Ok(range)
    }

    fn filter(&self) -> Filter {
        Filter {
            severity: self.severity,
            rules: self.rules.clone(),
            accounts: self.accounts.clone(),
            regions: self.regions.clone(),
            actors: self.actors.clone(),
            names: self.names.clone(),
        }
    }
}

/// The index has eight partitions for each day, and each is a request.
fn bounded(range: &Range) -> Result<(), Failure> {
    match range.day_count() {
        days if days > MAX_DAYS => {
            let advice = "name a shorter time, or read the whole table with --scan";
            Err(Failure::Usage(format!(
                "{days} days are more than the {MAX_DAYS} that are read by the index: {advice}"
            )))
        }
        _ => Ok(()),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    match when(text) {
        Ok(When::Ago(length)) => Ok(length),
        _ => Err("write a length of time as 30m, 1h or 2d".to_owned()),
    }
}

pub(super) fn run(file: Option<&Path>, command: EventsCommand) -> Result<(), Failure> {
    let (config, _) = Config::load_with(file, environment(), &["store.table"])?;
    let table = config.store.table;
    let settings = aws::Settings { table: table.clone(), ..aws::Settings::default() };
    let now = OffsetDateTime::now_utc();
    match command {
        EventsCommand::List(args) => {
            let range = args.which.range(now)?;
            tool(&settings, async |reader| list::run(&*reader, &args, range).await)
        }
        EventsCommand::Show(args) => {
            // An alert is told by the rules in force, as far as they can be read: it must be readable without them.
            let rules = rules::load(file, None).unwrap_or_else(|failure| {
                complain(&Failure::at("the rules in force are not told, only their ids", failure));
                RuleSet::default()
            });
            tool(&settings, async |reader| show::run(&*reader, &args, &table, &rules).await)
        }
        EventsCommand::Export(args) => {
            let range = args.which.range(now)?;
            tool(&settings, async |reader| export::run(&*reader, &args, range).await)
        }
    }
}

fn tool(
    settings: &aws::Settings,
    run: impl AsyncFnOnce(Arc<dyn EventReader>) -> Result<(), Unprinted>,
) -> Result<(), Failure> {
    interruptible(async { until_gone(run(aws::event_reader(settings).await).await) })
}

/// The events that are asked for, in this order; with a limit, at least so many of them.
async fn events<'a>(
    reader: &'a dyn EventReader,
    which: &Which,
    question: Question<'a>,
    limit: Option<usize>,
) -> Result<Events<'a>, Unprinted> {
    if !which.scan {
        return Ok(question.by_index(reader));
    }
    let sorted = question.by_sorted_scan(reader, limit).await.map_err(unread)?;
    Ok(stream::iter(sorted.into_iter().map(Ok)).boxed())
}

fn unread(error: impl Into<ReadError>) -> Unprinted {
    Unprinted::Failed(Failure::at("cannot read the events", error.into()))
}
