//! `trailhound events list`.

use futures_util::stream::StreamExt as _;

use super::{Detail, EventReader, ListArgs, Order, Question, Range, events, unread};
use crate::cli::output::{Output, Paint, Progress, Unprinted, cell, table};
use crate::events::{Document, Stored};

/// Rows of one table: what is printed before all is read, and held until then.
const BLOCK: usize = 500;

const TITLES: [&str; 11] =
    ["Time", "Severity", "Event", "Error", "Actor", "From", "Account", "Region", "Rules", "Alert", "Event id"];

pub(super) async fn run(reader: &dyn EventReader, args: &ListArgs, range: Range) -> Result<(), Unprinted> {
    let output = Output::new(args.format);
    let filter = args.which.filter();
    let order = if args.reverse { Order::OldestFirst } else { Order::NewestFirst };
    let question = Question { range, filter: &filter, order, detail: Detail::Attributes };
    // One more tells that there are more.
    let limit = args.limit.map_or(usize::MAX, usize::from);
    let progress = Progress::new("events", None);
    let mut found = events(reader, &args.which, question, args.limit.map(|_| limit.saturating_add(1))).await?;
    let (mut block, mut count, mut more) = (Vec::new(), 0_usize, false);
    let mut failed = None;
    while let Some(event) = found.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        if count == limit {
            more = true;
            break;
        }
        count = count.saturating_add(1);
        progress.add(1);
        if !output.is_for_people() {
            progress.around(|| output.json(&Document::new(&event)))?;
            continue;
        }
        block.push(event);
        if block.len() == BLOCK {
            progress.around(|| print(&output, &block))?;
            block.clear();
        }
    }
    drop(progress);
    print(&output, &block)?;
    if let Some(error) = failed {
        return Err(unread(error));
    }
    if output.is_for_people() {
        let number = if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
        let rest = if more { "; there are more: raise --limit, or name a shorter time" } else { "" };
        output.line(&output.paint(Paint::Dim, &format!("{number}{rest}")))?;
    }
    Ok(())
}

/// Prints events as a table; nothing for none.
pub(super) fn print(output: &Output, events: &[Stored]) -> Result<(), Unprinted> {
    if events.is_empty() {
        return Ok(());
    }
    let table = table(&TITLES, events.iter().map(row));
    let mut lines = table.lines();
    if let Some(titles) = lines.next() {
        output.line(&output.paint(Paint::Bold, titles.trim_end()))?;
    }
    for (line, event) in lines.zip(events) {
        let line = line.trim_end();
        // Painted after the table is laid out, which would count the colour as text. The time before it has no letters
        // of a severity.
        match event.severity {
            Some(severity) => output.line(&line.replacen(severity.as_str(), &output.severity(severity), 1))?,
            None => output.line(line)?,
        }
    }
    Ok(())
}

fn row(event: &Stored) -> Vec<String> {
    let rules: Vec<_> = event.rules.iter().map(|rule| cell(Some(rule), 64)).collect();
    vec![
        cell(event.event_time(), 32),
        cell(event.severity.map(crate::rules::Severity::as_str), 8),
        cell(event.event_name.as_deref(), 64),
        cell(event.error_code.as_deref(), 48),
        cell(event.actor.as_deref(), 96),
        cell(event.source_ip.as_deref(), 48),
        cell(event.account_id.as_deref(), 16),
        cell(event.region.as_deref(), 16),
        if rules.is_empty() { "-".to_owned() } else { cell(Some(&rules.join(", ")), 160) },
        event.state().as_str().to_owned(),
        cell(Some(&event.key.event_id), 128),
    ]
}
