//! `trailhound dlq ...`: what is on the dead-letter queue, why, and what to do with it.

mod held;
mod peek;
mod purge;
mod redrive;
mod why;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};

use self::held::Held;
use super::output::{self, Unprinted};
use super::{Failure, environment, stoppable};
use crate::aws::dead_letters::{BATCH, DeadLetter, DeadLetters, Depth};
use crate::config::{Config, queue_url};
use crate::env::Stop;

pub(super) const HELP: &str = "\
Examples:
  trailhound dlq peek
  trailhound dlq why
  trailhound dlq redrive --dry-run
  trailhound dlq redrive
  trailhound dlq purge";

#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// Show the messages; each stays where it is, and its receive count rises by one
    #[command(after_long_help = peek::HELP)]
    Peek(peek::PeekArgs),
    /// Run messages again without side effects, and say what is wrong and whether they would succeed now
    #[command(after_long_help = why::HELP)]
    Why(why::WhyArgs),
    /// Move messages back to the queue of the daemon
    #[command(after_long_help = redrive::HELP)]
    Redrive(redrive::RedriveArgs),
    /// Delete every message for good, after its name was typed
    #[command(after_long_help = purge::HELP)]
    Purge(purge::PurgeArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// The dead-letter queue, instead of the one in the redrive policy of queue.url
    #[arg(long, value_name = "URL", value_parser = queue_url)]
    queue_url: Option<String>,
    #[arg(long, value_enum, default_value_t = output::Format::Text)]
    format: output::Format,
}

pub(super) fn run(config: Option<&Path>, command: DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::Peek(arguments) => stoppable(|_, stop| peek::peek(config, arguments, stop)),
        DlqCommand::Why(arguments) => stoppable(|_, stop| why::why(config, arguments, stop)),
        DlqCommand::Redrive(arguments) => stoppable(|_, stop| redrive::redrive(config, arguments, stop)),
        DlqCommand::Purge(arguments) => stoppable(|_, stop| purge::purge(config, arguments, stop)),
    }
}

/// A dead-letter queue that was found, and how much is on it.
struct Opened {
    queue: DeadLetters,
    depth: Depth,
}

impl Opened {
    /// Finds the queue; `source` is queue.url of the configuration. Ends early when the command is to end: nothing is held
    /// yet.
    async fn find(common: &Common, source: &str, stop: &Stop) -> Result<Option<Self>, Failure> {
        tokio::select! {
            biased;
            () = stop.reached(crate::env::Phase::Draining) => Ok(None),
            opened = Self::look_up(common, source) => opened.map(Some),
        }
    }

    async fn look_up(common: &Common, source: &str) -> Result<Self, Failure> {
        let queue = match &common.queue_url {
            Some(url) => DeadLetters::at(url).await,
            None => DeadLetters::of(source).await.map_err(|error| Failure::Other(error.to_string()))?,
        };
        if queue.url() == source {
            return Err(Failure::Other(format!(
                "{source} is queue.url, from which the daemon receives: name its dead-letter queue"
            )));
        }
        let depth = queue.depth().await;
        let depth = depth.map_err(|error| Failure::at(format_args!("cannot look at {}", queue.url()), error))?;
        if let Some(count) = depth.max_receive_count {
            note(&format!(
                "{} has a dead-letter queue itself: a message moves on after {count} receives, and each look is one",
                queue.name()
            ));
        }
        Ok(Self { queue, depth })
    }

    /// How many messages there are, for people.
    fn summary(&self) -> String {
        let (name, Depth { visible, invisible, .. }) = (self.queue.name(), self.depth);
        let rest = match invisible {
            0 => String::new(),
            count => format!("; {count} more cannot be received now, since they are in flight or delayed"),
        };
        format!("dead-letter queue {name}: about {}{rest}", count(visible, "message"))
    }

    /// Says how many messages there are: as the first line for people, beside the output for machines.
    fn tell(&self, output: &output::Output) -> Result<(), Unprinted> {
        if output.is_for_people() {
            return output.line(&output.paint(output::Paint::Bold, &self.summary()));
        }
        note(&self.summary());
        Ok(())
    }
}

/// The configuration; queue.url may be missing where the dead-letter queue is named and nothing is sent.
fn configuration(file: Option<&Path>, common: &Common, sends: bool) -> Result<Config, Failure> {
    let needed: &[&str] = if common.queue_url.is_some() && !sends { &[] } else { &["queue.url"] };
    Ok(Config::load_with(file, environment(), needed)?.0)
}

/// Which messages a command is about.
struct Selection {
    /// Empty: all.
    named: BTreeSet<String>,
    found: BTreeSet<String>,
    left: usize,
}

impl Selection {
    /// At most `limit` messages, or those named.
    fn new(limit: Option<u32>, named: &[String]) -> Self {
        let left = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Self { named: named.iter().cloned().collect(), found: BTreeSet::new(), left }
    }

    /// Some more of them, ten at most; none at the end. SQS finds no message by its id, so that everything is received
    /// until all that were named are found.
    async fn next(&mut self, held: &Held<'_>) -> Result<Vec<DeadLetter>, Failure> {
        loop {
            let complete = !self.named.is_empty() && self.found.len() == self.named.len();
            if self.left == 0 || complete {
                return Ok(Vec::new());
            }
            let max = if self.named.is_empty() { self.left.min(BATCH) } else { BATCH };
            let mut letters = held.next(max).await?;
            if letters.is_empty() {
                return Ok(letters);
            }
            letters.retain(|letter| self.named.is_empty() || self.named.contains(&letter.message.message_id));
            letters.truncate(self.left);
            self.found.extend(letters.iter().map(|letter| letter.message.message_id.clone()));
            self.left = self.left.saturating_sub(letters.len());
            if !letters.is_empty() {
                return Ok(letters);
            }
        }
    }

    /// Says which of those that were named were not found. True if there are none.
    fn all_found(&self) -> bool {
        let missing: Vec<&String> = self.named.difference(&self.found).collect();
        let why = match self.left {
            0 => "was not looked for: --limit is reached",
            _ => "was not found: it is not on this queue, or in flight",
        };
        for id in &missing {
            note(&format!("message {} {why}", crate::alert::shown(id, 100)));
        }
        missing.is_empty()
    }

    /// Says that the limit left some out, as far as SQS tells their number.
    fn tell_rest(&self, limit: u32, depth: Depth) {
        if self.left == 0 && self.named.is_empty() && depth.visible > u64::from(limit) {
            let all = count(depth.visible, "message");
            note(&format!("{limit} of about {all} were looked at: raise --limit for the rest"));
        }
    }
}

/// Says something beside the output.
fn note(text: &str) {
    // Nobody is left to be told that the reader is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// "1 message", "2 messages".
fn count<N: std::fmt::Display + PartialEq + Copy + From<u8>>(number: N, what: &str) -> String {
    let s = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{s}")
}
