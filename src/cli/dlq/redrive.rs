//! `trailhound dlq redrive`: messages back to the queue of the daemon, none lost on the way.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::super::Failure;
use super::super::output::{Output, Paint, Progress, Unprinted, until_gone};
use super::why::Engine;
use super::{Common, Held, Opened, Selection, configuration, count, note};
use crate::alert::shown;
use crate::aws::dead_letters::{DeadLetter, SourceQueue};
use crate::dry::{Rehearsed, Verdict};
use crate::env::Stop;
use crate::ports::{ErrorClass, PortError};

pub(super) const HELP: &str = "\
A message is sent to queue.url, with its body, its attributes and its group, and deleted from the dead-letter queue only after
SQS confirmed that it has it. None is lost; one may be there twice after a crash or a lost answer, which is harmless: an event
is alerted once. Each message that is looked at and stays has one receive more.

The exit code is 1 if a message could not be moved, or one that was named was not.

Examples:
  trailhound dlq redrive --dry-run
  trailhound dlq redrive
  trailhound dlq redrive --all --rate 10
  trailhound dlq redrive --all 3f2a8a0e-6d5b-4c39-9e2b-5c8c0a4c7e11";

/// Messages on their way at once.
const AT_ONCE: usize = 8;
const DETAIL: usize = 600;

#[derive(Debug, Args)]
pub(in crate::cli) struct RedriveArgs {
    #[command(flatten)]
    common: Common,
    /// Move all messages, without running them first
    #[arg(long, conflicts_with = "succeeding")]
    all: bool,
    /// Move only messages that would succeed now, as `dlq why` says (the default)
    #[arg(long)]
    succeeding: bool,
    /// Look at no more than N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Move no more than N messages a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Only say what would be moved
    #[arg(long)]
    dry_run: bool,
    /// Give up on running a message after so many seconds: it then stays
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    timeout: u32,
    /// Only these messages; all on the queue are received until they are found
    #[arg(value_name = "MESSAGE_ID")]
    messages: Vec<String>,
}

pub(super) async fn redrive(file: Option<&Path>, arguments: RedriveArgs, stop: Stop) -> Result<(), Failure> {
    let RedriveArgs { common, all, succeeding: _, limit, rate, dry_run, timeout, messages } = arguments;
    let config = configuration(file, &common, true)?;
    let engine = if all {
        None
    } else {
        match Engine::start(file, &config, timeout, &stop).await? {
            None => return Ok(()),
            engine => engine,
        }
    };
    let Some(opened) = Opened::find(&common, &config.queue.url, &stop).await? else { return Ok(()) };
    let output = Output::new(common.format);
    let held = Held::new(&opened.queue, &stop);
    let source = SourceQueue::at(&config.queue.url).await;
    let mover = Mover { held: &held, source: &source, pace: Pace::new(rate), dry_run };
    held.during(async {
        if let Err(unprinted) = opened.tell(&output) {
            return until_gone(Err(unprinted));
        }
        let mut selection = Selection::new(limit, &messages);
        let progress = Progress::new("messages", Some(opened.depth.visible));
        let mut tally = Tally::default();
        'rounds: loop {
            let letters = selection.next(&held).await?;
            if letters.is_empty() {
                break;
            }
            for (letter, outcome) in round(&mover, engine.as_ref(), letters).await? {
                progress.add(1);
                tally.add(&outcome);
                if let Err(unprinted) = progress.around(|| print(&output, &letter, &outcome)) {
                    return until_gone(Err(unprinted));
                }
                tally.hopeless |= matches!(&outcome, Outcome::Failed(error) if error.class != ErrorClass::Permanent);
            }
            if tally.hopeless {
                note("the queue takes no messages now: no more are tried");
                break 'rounds;
            }
        }
        drop(progress);
        let all_found = held.is_stopped() || tally.hopeless || selection.all_found();
        if output.is_for_people() {
            until_gone(output.line(&tally.summary(source.name(), opened.queue.name())))?;
        }
        let named_and_left = !messages.is_empty() && tally.left > 0;
        if tally.failed + tally.twice > 0 || named_and_left || !all_found { Err(Failure::Told(1)) } else { Ok(()) }
    })
    .await
}

/// Moves those of these messages that are to be moved. Messages of a FIFO queue keep their order.
async fn round(
    mover: &Mover<'_>,
    engine: Option<&Engine>,
    letters: Vec<DeadLetter>,
) -> Result<Vec<(DeadLetter, Outcome)>, Failure> {
    let mut judged = Vec::new();
    match engine {
        None => judged.extend(letters.into_iter().map(|letter| (letter, None))),
        Some(engine) => {
            let mut rehearsed = std::pin::pin!(engine.rehearse(mover.held, letters));
            while let Some((letter, rehearsed)) = rehearsed.next().await {
                judged.push((letter, Some(rehearsed?)));
            }
        }
    }
    let at_once = if mover.source.is_fifo() { 1 } else { AT_ONCE };
    let treated = futures_util::stream::iter(judged).map(async |(letter, rehearsed)| {
        let outcome = mover.treat(&letter, rehearsed).await?;
        Some((letter, outcome))
    });
    Ok(treated.buffered(at_once).filter_map(std::future::ready).collect().await)
}

struct Mover<'a> {
    held: &'a Held<'a>,
    source: &'a SourceQueue,
    pace: Pace,
    dry_run: bool,
}

/// What became of a message.
enum Outcome {
    Moved,
    WouldMove,
    /// It would not succeed now.
    Left(Rehearsed),
    /// It comes from another queue, of this name.
    Foreign(String),
    /// It is on the other queue, and still on this one.
    Twice(PortError),
    Failed(PortError),
}

impl Mover<'_> {
    /// `None` if the command is to end: what was not begun is not.
    async fn treat(&self, letter: &DeadLetter, rehearsed: Option<Rehearsed>) -> Option<Outcome> {
        if let Some(foreign) = letter.source.as_ref().filter(|name| *name != self.source.name()) {
            return Some(Outcome::Foreign(foreign.clone()));
        }
        if let Some(rehearsed) = rehearsed.filter(|rehearsed| rehearsed.verdict != Verdict::Succeeds) {
            return Some(Outcome::Left(rehearsed));
        }
        if self.dry_run {
            return (!self.held.is_stopped()).then_some(Outcome::WouldMove);
        }
        tokio::select! {
            biased;
            () = self.held.stopped() => return None,
            () = self.pace.turn() => {}
        }
        // From here on to the end, whatever is asked: a message sent and not deleted is there twice.
        match self.source.send(letter).await {
            Ok(id) => self.held.ignore(id),
            Err(error) => return Some(Outcome::Failed(error)),
        }
        let deleted = self.held.delete(std::slice::from_ref(&letter.message.message_id)).await;
        Some(match deleted.and_then(|results| results.into_iter().collect()) {
            Ok(()) => Outcome::Moved,
            Err(error) => Outcome::Twice(error),
        })
    }
}

/// So many turns a second.
struct Pace {
    gap: Option<Duration>,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { gap: rate.map(|rate| Duration::from_secs(1) / rate), next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let Some(gap) = self.gap else { return };
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        let now = Instant::now();
        *next = now.checked_add(gap).unwrap_or(now);
    }
}

#[derive(Default)]
struct Tally {
    moved: usize,
    would_move: usize,
    left: usize,
    twice: usize,
    failed: usize,
    /// A send failed in a way that others would too.
    hopeless: bool,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Moved => self.moved += 1,
            Outcome::WouldMove => self.would_move += 1,
            Outcome::Left(_) | Outcome::Foreign(_) => self.left += 1,
            Outcome::Twice(_) => self.twice += 1,
            Outcome::Failed(_) => self.failed += 1,
        }
    }

    fn summary(&self, to: &str, from: &str) -> String {
        let mut parts = Vec::new();
        if self.would_move > 0 {
            parts.push(format!("{} would be moved to {to}", count(self.would_move, "message")));
        }
        if self.moved > 0 || self.would_move == 0 {
            parts.push(format!("{} moved to {to}", count(self.moved, "message")));
        }
        if self.left > 0 {
            parts.push(format!("{} left on {from}", self.left));
        }
        if self.twice > 0 {
            parts.push(format!("{} now on both queues, which is harmless", self.twice));
        }
        if self.failed > 0 {
            parts.push(format!("{} could not be moved and stay on {from}", self.failed));
        }
        parts.join(", ")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    message_id: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

fn print(output: &Output, letter: &DeadLetter, outcome: &Outcome) -> Result<(), Unprinted> {
    let (label, words, paint, reason, detail) = match outcome {
        Outcome::Moved => ("moved", "moved", Paint::Good, None, None),
        Outcome::WouldMove => ("would_move", "would be moved", Paint::Good, None, None),
        Outcome::Left(rehearsed) => {
            let first = rehearsed.problems.first();
            let words =
                if rehearsed.verdict == Verdict::Fails { "left, fails for good" } else { "left, cannot tell now" };
            ("left", words, Paint::Warn, first.map(|one| one.reason), first.map(|one| one.detail.clone()))
        }
        Outcome::Foreign(queue) => {
            let detail = format!("it comes from the queue {queue}: redrive it with that queue as queue.url");
            ("left", "left", Paint::Warn, Some("other_queue"), Some(detail))
        }
        Outcome::Twice(error) => ("sent_not_deleted", "sent, not deleted", Paint::Bad, None, Some(error.to_string())),
        Outcome::Failed(error) => ("failed", "not moved", Paint::Bad, None, Some(error.to_string())),
    };
    if !output.is_for_people() {
        return output.json(&Line { message_id: &letter.message.message_id, outcome: label, reason, detail });
    }
    let why = match (reason, detail) {
        (Some(reason), Some(detail)) => format!(": {reason}: {}", shown(&detail, DETAIL)),
        (None, Some(detail)) => format!(": {}", shown(&detail, DETAIL)),
        _ => String::new(),
    };
    output.line(&format!("{}  {}{why}", shown(&letter.message.message_id, 100), output.paint(paint, words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_a_second() {
        let (pace, began) = (Pace::new(Some(4)), Instant::now());
        for _ in 0..9 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        let (free, began) = (Pace::new(None), Instant::now());
        for _ in 0..1_000 {
            free.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
