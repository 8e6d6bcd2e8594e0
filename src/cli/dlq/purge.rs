//! `trailhound dlq purge`: what is lost, then a typed confirmation, then the end of it.
//!
//! Message by message, not with SQS's `PurgeQueue`: that would also delete what arrived after the list was shown.

use std::io::{BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::super::Failure;
use super::super::output::{Output, until_gone};
use super::peek::{Row, print};
use super::{Common, Held, Opened, Selection, configuration, count, note};
use crate::aws::dead_letters::BATCH;
use crate::env::Stop;

pub(super) const HELP: &str = "\
Shows every message first, then asks for the name of the dead-letter queue. What arrives after that list stays, and so does
what is in flight elsewhere. A record that is only in these messages or in objects that only they name is then never alerted:
see `dlq why` first.

The exit code is 1 if the name was not typed, or a message could not be deleted.

Examples:
  trailhound dlq purge
  trailhound dlq purge --confirm trailhound-dead-letters --format jsonl";

/// More than this is not read of what is typed.
const TYPED: u64 = 1_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    common: Common,
    /// The name of the dead-letter queue, where nobody can type it
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

pub(super) async fn purge(file: Option<&Path>, arguments: PurgeArgs, stop: Stop) -> Result<(), Failure> {
    let PurgeArgs { common, confirm } = arguments;
    if confirm.is_none() && !std::io::stdin().is_terminal() {
        return Err(Failure::Other(
            "standard input is no terminal, so that nobody can type the queue's name: give it with --confirm"
                .to_owned(),
        ));
    }
    let config = configuration(file, &common, false)?;
    let Some(opened) = Opened::find(&common, &config.queue.url, &stop).await? else { return Ok(()) };
    let name = opened.queue.name();
    if confirm.as_ref().is_some_and(|typed| typed != name) {
        return Err(refused(name));
    }
    let output = Output::new(common.format);
    let held = Held::new(&opened.queue, &stop);
    held.during(async {
        if let Err(unprinted) = opened.tell(&output) {
            // Whoever cannot see what is lost cannot confirm it.
            return until_gone(Err(unprinted));
        }
        let rows = all(&held).await?;
        if held.is_stopped() {
            note("nothing was deleted");
            return Ok(());
        }
        if rows.is_empty() {
            note("there is no message to delete");
            return Ok(());
        }
        let listed = if output.is_for_people() {
            print(&output, &rows)
        } else {
            rows.iter().try_for_each(|row| output.json(row))
        };
        if listed.is_err() {
            note("nothing was deleted: the list of what is lost could not be printed");
            return until_gone(listed).and(Err(Failure::Told(1)));
        }
        if confirm.is_none() {
            let prompt =
                format!("Type the name of the queue, {name}, to delete {} for good: ", count(rows.len(), "message"));
            let typed = tokio::task::spawn_blocking(move || ask(&prompt, &mut BufReader::new(std::io::stdin())));
            let typed = tokio::select! {
                biased;
                () = held.stopped() => {
                    note("\nnothing was deleted");
                    return Ok(());
                }
                typed = typed => typed.map_err(|error| Failure::at("cannot read what is typed", error))?,
            };
            if typed.map_err(|error| Failure::at("cannot read what is typed", error))? != name {
                return Err(refused(name));
            }
        }
        let done = delete(&held, &rows).await;
        if output.is_for_people() {
            until_gone(output.line(&done.summary(name)))?;
        } else {
            until_gone(output.json(&done))?;
        }
        if let Some(error) = &done.error {
            note(error);
        }
        if done.not_deleted > 0 { Err(Failure::Told(1)) } else { Ok(()) }
    })
    .await
}

/// Every message that can be received.
async fn all(held: &Held<'_>) -> Result<Vec<Row>, Failure> {
    let mut selection = Selection::new(None, &[]);
    let mut rows = Vec::new();
    loop {
        let letters = selection.next(held).await?;
        if letters.is_empty() {
            return Ok(rows);
        }
        rows.extend(letters.iter().map(|letter| Row::new(letter, false)));
    }
}

/// Asks on standard error, and gives what was typed.
fn ask(prompt: &str, input: &mut impl BufRead) -> std::io::Result<String> {
    let mut output = std::io::stderr();
    output.write_all(prompt.as_bytes())?;
    output.flush()?;
    let mut typed = String::new();
    input.take(TYPED).read_line(&mut typed)?;
    Ok(typed.trim().to_owned())
}

fn refused(name: &str) -> Failure {
    Failure::Other(format!("that is not the name of the queue, {name}: nothing was deleted"))
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    deleted: usize,
    not_deleted: usize,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Done {
    fn summary(&self, name: &str) -> String {
        let deleted = format!("{} deleted from {name}", count(self.deleted, "message"));
        if self.not_deleted == 0 { deleted } else { format!("{deleted}, {} not", self.not_deleted) }
    }
}

/// Until the command is to end.
async fn delete(held: &Held<'_>, rows: &[Row]) -> Done {
    let mut done = Done::default();
    for batch in rows.chunks(BATCH) {
        if held.is_stopped() {
            done.not_deleted += batch.len();
            continue;
        }
        let ids: Vec<String> = batch.iter().map(|row| row.message_id.clone()).collect();
        match held.delete(&ids).await {
            Ok(results) => {
                for result in results {
                    match result {
                        Ok(()) => done.deleted += 1,
                        Err(error) => {
                            done.not_deleted += 1;
                            done.error = Some(error.to_string());
                        }
                    }
                }
            }
            Err(error) => {
                done.not_deleted += ids.len();
                done.error = Some(error.to_string());
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_one_line() {
        let asked = |text: &str| ask("", &mut text.as_bytes()).unwrap();
        assert_eq!(asked("trail-dead\n"), "trail-dead");
        assert_eq!(asked("trail-dead\r\nmore"), "trail-dead");
        assert_eq!(asked(""), "");
        assert_eq!(asked(&"a".repeat(5_000)).len(), 1_000);
    }
}
