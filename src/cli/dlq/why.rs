//! `trailhound dlq why`: each message through the daemon's own step, without side effects.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use time::OffsetDateTime;

use super::super::output::{Output, Paint, Progress, Unprinted, until_gone};
use super::super::{Failure, environment};
use super::{Common, Held, Opened, Selection, configuration, count, note};
use crate::alert::shown;
use crate::aws::dead_letters::DeadLetter;
use crate::aws::{self, Settings};
use crate::config::Config;
use crate::dry::{Rehearsal, Rehearsed, Verdict};
use crate::env::{Clock, Compute, Env, Phase, Random, Stop, StopHandle, TaskRoot};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::reload::{Loading, RulePath, RuleSource};
use crate::rules::Matchers;

pub(super) const HELP: &str = "\
Each message goes through the step that the daemon would take: its notification is read, its objects are read from S3 with
the configured limits, decoded, and their records evaluated. Nothing is stored, alerted or deleted, so that what the table
and the topic would say is not known; nor what the daemon's own role may do, if these credentials are others.

The exit code is 0 if every message that was looked at would succeed now, else 1.

Examples:
  trailhound dlq why
  trailhound dlq why --limit 10 --timeout 5
  trailhound dlq why 3f2a8a0e-6d5b-4c39-9e2b-5c8c0a4c7e11
  trailhound dlq why --format jsonl | jq -r 'select(.verdict != \"succeeds\") | .problems[].reason' | sort | uniq -c";

/// Messages in work at once.
const AT_ONCE: usize = 4;
/// More of a detail is not shown.
const DETAIL: usize = 1_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct WhyArgs {
    #[command(flatten)]
    common: Common,
    /// Look at no more than N messages
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Give up on a message after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    timeout: u32,
    /// Only these messages; all on the queue are received until they are found
    #[arg(value_name = "MESSAGE_ID")]
    messages: Vec<String>,
}

pub(super) async fn why(file: Option<&Path>, arguments: WhyArgs, stop: Stop) -> Result<(), Failure> {
    let WhyArgs { common, limit, timeout, messages } = arguments;
    let config = configuration(file, &common, false)?;
    let Some(engine) = Engine::start(file, &config, timeout, &stop).await? else { return Ok(()) };
    let Some(opened) = Opened::find(&common, &config.queue.url, &stop).await? else { return Ok(()) };
    let output = Output::new(common.format);
    let held = Held::new(&opened.queue, &stop);
    let (counts, all_found) = held
        .during(async {
            let mut counts = Counts::default();
            if let Err(unprinted) = opened.tell(&output) {
                return until_gone(Err(unprinted)).map(|()| (counts, true));
            }
            let mut selection = Selection::new(Some(limit), &messages);
            let progress = Progress::new("messages", Some(opened.depth.visible.min(limit.into())));
            loop {
                let letters = selection.next(&held).await?;
                if letters.is_empty() {
                    break;
                }
                let mut rehearsed = std::pin::pin!(engine.rehearse(&held, letters));
                while let Some((letter, rehearsed)) = rehearsed.next().await {
                    let rehearsed = rehearsed?;
                    progress.add(1);
                    counts.add(rehearsed.verdict);
                    if let Err(unprinted) = progress.around(|| print(&output, &letter, &rehearsed)) {
                        return until_gone(Err(unprinted)).map(|()| (counts, true));
                    }
                }
            }
            drop(progress);
            selection.tell_rest(limit, opened.depth);
            let all_found = held.is_stopped() || selection.all_found();
            if output.is_for_people() && counts.sum() > 0 {
                until_gone(output.line(&counts.summary()))?;
            }
            Ok((counts, all_found))
        })
        .await?;
    if counts.sum() > 0 {
        note(NOT_TRIED);
    }
    if counts.fail + counts.unknown > 0 || !all_found { Err(Failure::Told(1)) } else { Ok(()) }
}

const NOT_TRIED: &str = "storing and alerting were not tried, and the daemon's role may be allowed other things than these \
     credentials";

/// What runs messages again.
pub(super) struct Engine {
    rehearsal: Rehearsal,
    timeout: Duration,
    _tasks: TaskRoot,
    _never_stopped: StopHandle,
}

impl Engine {
    /// Loads the rules and reaches for S3 as the daemon does. `None` if the command is to end first.
    pub(super) async fn start(
        file: Option<&Path>,
        config: &Config,
        timeout: u32,
        stop: &Stop,
    ) -> Result<Option<Self>, Failure> {
        tokio::select! {
            biased;
            () = stop.reached(Phase::Draining) => Ok(None),
            engine = Self::load(file, config, Duration::from_secs(timeout.into())) => engine.map(Some),
        }
    }

    async fn load(file: Option<&Path>, config: &Config, timeout: Duration) -> Result<Self, Failure> {
        let (path, lists) = Config::for_rules(file, environment())?;
        let metrics = Arc::new(Metrics::new().map_err(|error| Failure::at("cannot register the metrics", error))?);
        let settings = Settings {
            queue_url: config.queue.url.clone(),
            topic_arn: config.alerting.topic_arn.clone(),
            table: config.store.table.clone(),
            allowed_buckets: config.source.allowed_buckets.clone(),
        };
        let objects = aws::connect(&settings, Arc::clone(&metrics)).await.objects;
        let (never_stopped, stop) = StopHandle::new();
        let tasks = TaskRoot::new();
        let env = Env {
            clock: Clock::starting_at(OffsetDateTime::now_utc()),
            random: Random::from_entropy(),
            tasks: tasks.spawner(),
            compute: Compute::pool(config.pipeline.decoders),
            stop,
        };
        let rules = match path {
            RulePath::File(file) => {
                let (now, metrics) = (env.clock.now(), Arc::clone(&metrics));
                let load = move || RuleSource::load(&file, lists, now, metrics);
                let loaded = tokio::task::spawn_blocking(load).await;
                loaded.map_err(|error| Failure::at("cannot load the rules", error))??
            }
            RulePath::Object(object) => {
                let health = Health::new(Arc::clone(&metrics), config.queue.wait);
                let loading = Loading { objects: &*objects, env: &env, health: &health, metrics: &metrics, lists };
                let loaded = tokio::time::timeout(timeout, loading.first(&object)).await;
                loaded.map_err(|_| {
                    let details = health.ready().checks.into_iter().map(|check| check.detail);
                    let detail = details.filter(|detail| !detail.is_empty()).collect::<Vec<_>>().join("; ");
                    Failure::at(format_args!("cannot read the rules {object} within {timeout:?}"), detail)
                })??
            }
        };
        let config = Arc::new(config.clone());
        let rehearsal = Rehearsal { objects, env, config, rules, matchers: Matchers::default() };
        Ok(Self { rehearsal, timeout, _tasks: tasks, _never_stopped: never_stopped })
    }

    /// Runs messages again, several at once, in their order. Ends early when the command is to end.
    pub(super) fn rehearse<'a>(
        &'a self,
        held: &'a Held<'_>,
        letters: Vec<DeadLetter>,
    ) -> impl Stream<Item = (DeadLetter, Result<Rehearsed, Failure>)> + 'a {
        let one = move |letter: DeadLetter| async move {
            let rehearsed = tokio::select! {
                biased;
                () = held.stopped() => return None,
                rehearsed = self.rehearsal.of(&letter.message, self.timeout) => rehearsed,
            };
            Some((letter, rehearsed.map_err(|error| Failure::at("cannot register the metrics", error))))
        };
        futures_util::stream::iter(letters).map(one).buffered(AT_ONCE).filter_map(std::future::ready)
    }
}

/// How many messages have which verdict.
#[derive(Clone, Copy, Default)]
struct Counts {
    succeed: usize,
    fail: usize,
    unknown: usize,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Succeeds => self.succeed += 1,
            Verdict::Fails => self.fail += 1,
            Verdict::Unknown => self.unknown += 1,
        }
    }

    fn sum(self) -> usize {
        self.succeed + self.fail + self.unknown
    }

    fn summary(self) -> String {
        let Self { succeed, fail, unknown } = self;
        format!("\n{succeed} would succeed now, {fail} fail for good, {unknown} cannot be told now")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    message_id: &'a str,
    verdict: &'static str,
    problems: Vec<Problem<'a>>,
    problems_untold: usize,
    records: u64,
    events: u64,
    rules: &'a BTreeMap<String, u64>,
    not_tried: [&'static str; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    reason: &'static str,
    detail: &'a str,
    advice: &'static str,
}

fn print(output: &Output, letter: &DeadLetter, rehearsed: &Rehearsed) -> Result<(), Unprinted> {
    let Rehearsed { verdict, problems, untold, records, events, rules } = rehearsed;
    if !output.is_for_people() {
        let problems = problems.iter();
        return output.json(&Line {
            message_id: &letter.message.message_id,
            verdict: label(*verdict),
            problems: problems
                .map(|one| Problem { reason: one.reason, detail: &one.detail, advice: advice(one.reason) })
                .collect(),
            problems_untold: *untold,
            records: *records,
            events: *events,
            rules,
            not_tried: ["storing", "alerting"],
        });
    }
    let (paint, words) = match verdict {
        Verdict::Succeeds => (Paint::Good, "would succeed now"),
        Verdict::Fails => (Paint::Bad, "fails for good"),
        Verdict::Unknown => (Paint::Warn, "cannot tell now"),
    };
    let found = if rules.is_empty() {
        String::new()
    } else {
        let rules: Vec<_> = rules.iter().map(|(rule, count)| format!("{} {count}", shown(rule, 100))).collect();
        format!(" ({})", rules.join(", "))
    };
    output.line(&format!(
        "\n{}  {}\n  {} evaluated, {} matching{found}",
        shown(&letter.message.message_id, 100),
        output.paint(paint, words),
        count(*records, "record"),
        count(*events, "event"),
    ))?;
    for problem in problems {
        output.line(&format!("  {}: {}", problem.reason, shown(&problem.detail, DETAIL)))?;
        output.line(&output.paint(Paint::Dim, &format!("    {}", advice(problem.reason))))?;
    }
    if *untold > 0 {
        output.line(&format!("  and {untold} more parts that cannot be read"))?;
    }
    Ok(())
}

pub(super) fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeds => "succeeds",
        Verdict::Fails => "fails",
        Verdict::Unknown => "unknown",
    }
}

/// What to do about a reason.
fn advice(reason: &str) -> &'static str {
    match reason {
        "not_json" | "unknown_shape" | "too_deep" | "bad_notification" => {
            "whoever sends this is no source of CloudTrail notifications: look at it with `dlq peek --body`; once `dlq redrive` moved the good ones, `dlq purge` deletes the rest"
        }
        "inline_records_off" => "turn source.inline_records on, if an EventBridge rule is meant to feed the queue",
        "bucket_not_allowed" => "add the bucket to source.allowed_buckets, if its logs are to be read",
        "missing" => "restore the object, under its version if the message names one; without it its records are lost",
        "denied" | "kms_denied" | "bucket_denied" => {
            "grant what is named to the daemon's role, and to these credentials to be told more"
        }
        "refused" => "an archived object has to be restored first; anything else that S3 refuses stays unreadable",
        "unavailable" | "unreachable" => "try again when S3 answers; the message can wait",
        "timed_out" => "give it more time with --timeout",
        "too_many_compressed_bytes" | "too_many_decompressed_bytes" | "ratio_too_high" => {
            "raise the limit that is named, if the object is CloudTrail's own"
        }
        "bad_records" => {
            "the other records were read: raise source.max_record_bytes if it is named, else look at the object"
        }
        "damaged" | "ends_early" | "bad_json" | "json_ends_early" | "empty" | "no_records" => {
            "look at the object: put a whole copy in its place, or give it up (a message that names a version is about that \
             one: then send a notification of the new one); `aws cloudtrail validate-logs` tells whether it is as \
             CloudTrail wrote it"
        }
        _ => "this is a bug of trailhound: please report it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reason of docs/metrics.md that leaves a message has advice of its own.
    #[test]
    fn there_is_advice_for_each_reason() {
        let reasons = include_str!("../../../docs/metrics.md").split("## Reasons").nth(1).unwrap();
        let reasons = reasons.split("\n## ").next().unwrap().lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let reason = cells.next()?.trim_end_matches('`');
            (cells.next()?.trim() == "yes").then_some(reason)
        });
        let reasons: Vec<_> = reasons.collect();
        assert!(reasons.len() > 15, "{reasons:?}");
        let without: Vec<_> = reasons.into_iter().filter(|reason| advice(reason) == advice("bug")).collect();
        assert_eq!(without, ["bug"]);
    }
}
