//! `trailhound dlq peek`: what the messages say.

use std::path::Path;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::Failure;
use super::super::output::{Output, Unprinted, cell, table, until_gone};
use super::{Common, Held, Opened, Selection, configuration};
use crate::alert::shown;
use crate::aws::dead_letters::DeadLetter;
use crate::env::Stop;
use crate::notification::{self, Notification};
use crate::worker::problem_reason;

pub(super) const HELP: &str = "\
A message is received once and visible again at the end, also after Ctrl-C: its receive count rises by one. Of a message
group of a FIFO queue only the first ten are seen.

Examples:
  trailhound dlq peek
  trailhound dlq peek --limit 5 --body
  trailhound dlq peek --queue-url https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound-dead-letters
  trailhound dlq peek --limit 1000 --format jsonl | jq -r 'select(.kind == \"unreadable\") | .messageId'";

/// More of a body is not shown, in characters.
const BODY: usize = 4_000;
/// Nor of a name or a reason in a table.
const CELL: usize = 160;
/// Nor more objects of one message, in JSON.
const OBJECTS: usize = 100;

#[derive(Debug, Args)]
pub(in crate::cli) struct PeekArgs {
    #[command(flatten)]
    common: Common,
    /// Show no more than N messages
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show the bodies too, their first 4,000 characters
    #[arg(long)]
    body: bool,
}

pub(super) async fn peek(file: Option<&Path>, arguments: PeekArgs, stop: Stop) -> Result<(), Failure> {
    let PeekArgs { common, limit, body } = arguments;
    let config = configuration(file, &common, false)?;
    let Some(opened) = Opened::find(&common, &config.queue.url, &stop).await? else { return Ok(()) };
    let output = Output::new(common.format);
    let held = Held::new(&opened.queue, &stop);
    held.during(async {
        if let Err(unprinted) = opened.tell(&output) {
            return until_gone(Err(unprinted));
        }
        let mut selection = Selection::new(Some(limit), &[]);
        let mut rows = Vec::new();
        loop {
            let letters = selection.next(&held).await?;
            if letters.is_empty() {
                break;
            }
            let looked_at = letters.iter().map(|letter| Row::new(letter, body));
            if output.is_for_people() {
                rows.extend(looked_at);
            } else {
                for row in looked_at {
                    if let Err(unprinted) = output.json(&row) {
                        return until_gone(Err(unprinted));
                    }
                }
            }
        }
        selection.tell_rest(limit, opened.depth);
        until_gone(if rows.is_empty() { Ok(()) } else { print(&output, &rows) })
    })
    .await
}

/// What there is to say of a message without its objects.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) message_id: String,
    sent_at: Option<String>,
    receive_count: u32,
    /// The name of the queue that it comes from, where SQS tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_queue: Option<String>,
    kind: Kind,
    /// Why it is unreadable or ignored: the label of the log, and for what cannot be read the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    objects: Vec<Object>,
    object_count: usize,
    inline_records: usize,
    ignored: usize,
    unreadable: usize,
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// What a message is, by the gravest of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Unreadable,
    Objects,
    InlineRecords,
    Ignored,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    bucket: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<String>,
}

impl Row {
    pub(super) fn new(letter: &DeadLetter, with_body: bool) -> Self {
        let message = &letter.message;
        let Notification { objects, records, ignored, problems } = notification::parse(&message.body);
        let (kind, reason, detail) = if let Some(problem) = problems.first() {
            (Kind::Unreadable, Some(problem_reason(problem)), Some(problem.to_string()))
        } else if !objects.is_empty() {
            (Kind::Objects, None, None)
        } else if !records.is_empty() {
            (Kind::InlineRecords, None, None)
        } else {
            (Kind::Ignored, ignored.first().map(|ignored| ignored.reason()), None)
        };
        Self {
            message_id: message.message_id.clone(),
            sent_at: message.sent_at.map(time),
            receive_count: message.receive_count,
            source_queue: letter.source.clone(),
            kind,
            reason,
            detail,
            object_count: objects.len(),
            inline_records: records.len(),
            ignored: ignored.len(),
            unreadable: problems.len(),
            body_bytes: message.body.len(),
            body: with_body.then(|| message.body.chars().take(BODY).collect()),
            objects: objects
                .into_iter()
                .take(OBJECTS)
                .map(|one| Object { bucket: one.bucket, key: one.key, version_id: one.version_id })
                .collect(),
        }
    }

    /// What it is about, on one line.
    fn about(&self) -> String {
        match (&self.detail, self.objects.first()) {
            (Some(detail), _) => detail.clone(),
            (None, Some(first)) => {
                let name = format!("s3://{}/{}", first.bucket, first.key);
                let more = self.object_count.saturating_sub(1);
                if more == 0 { name } else { format!("{} and {more} more", shown(&name, CELL - 20)) }
            }
            (None, None) if self.inline_records > 0 => super::count(self.inline_records, "record"),
            (None, None) => self.reason.unwrap_or_default().to_owned(),
        }
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Objects => "objects",
            Self::InlineRecords => "inline records",
            Self::Ignored => "ignored",
        }
    }
}

pub(super) fn time(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// The rows as a table, and the bodies below it.
pub(super) fn print(output: &Output, rows: &[Row]) -> Result<(), Unprinted> {
    let cells = rows.iter().map(|row| {
        vec![
            cell(Some(&row.message_id), 100),
            cell(row.sent_at.as_deref(), 30),
            row.receive_count.to_string(),
            row.kind.as_str().to_owned(),
            shown(&row.about(), CELL),
        ]
    });
    output.line(&table(&["message", "sent", "received", "kind", "about"], cells))?;
    for row in rows {
        if let Some(body) = &row.body {
            let cut = if body.len() < row.body_bytes {
                format!(", of {} bytes the first", row.body_bytes)
            } else {
                String::new()
            };
            output.line(&format!("\n{}{cut}:\n  {}", shown(&row.message_id, 100), shown(body, BODY)))?;
        }
    }
    Ok(())
}
