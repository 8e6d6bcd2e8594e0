//! `trailhound events show`.

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Detail, EventReader, Filter, Order, Question, Range, ShowArgs, bounded, list, unread};
use crate::alert::{shown, visible_json};
use crate::cli::Failure;
use crate::cli::output::{Output, Paint, Unprinted};
use crate::events::{Document, Record, State, Stored, laid_out};
use crate::rules::RuleSet;

/// Not more is shown of what else an actor did.
const AROUND: usize = 100;

/// Ids, keys and names of versions, whole.
const LONG: usize = 2048;

pub(super) async fn run(
    reader: &dyn EventReader,
    args: &ShowArgs,
    table: &str,
    rules: &RuleSet,
) -> Result<(), Unprinted> {
    let output = Output::new(args.format);
    let id = shown(&args.id, LONG);
    let found = reader.of_id(&args.id).await.map_err(unread)?;
    let found: Vec<_> = found.into_iter().filter(Stored::is_event).collect();
    if found.is_empty() {
        let why = "ids are exact, only events that matched a rule are stored, and they expire (store.retention_days)";
        return Err(Unprinted::Failed(Failure::Other(format!("no event {id} in table {table}: {why}"))));
    }
    let mut failed = None;
    for (number, event) in found.iter().enumerate() {
        let around = around(reader, args, event).await;
        if output.is_for_people() {
            if number > 0 {
                output.line("")?;
            }
            if found.len() > 1 {
                let which = format!("{} of {} events with this id", number.saturating_add(1), found.len());
                output.line(&output.paint(Paint::Bold, &which))?;
            }
            print(&output, event, rules)?;
            match &around {
                Ok(around) => print_around(&output, event, around.as_ref())?,
                Err(_) => output.line("Around it:  cannot be read")?,
            }
        } else {
            let document = Document::with_record(event).told(event.alert_text(rules));
            output.json(&match &around {
                Ok(Some(around)) => document.amid(&around.range, &around.events, around.more),
                _ => document,
            })?;
        }
        failed = failed.or(around.err());
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What else an actor did.
struct Around {
    range: Range,
    events: Vec<Stored>,
    more: bool,
}

/// `None` where nobody is named, or no time, or where it is not asked for.
async fn around(reader: &dyn EventReader, args: &ShowArgs, event: &Stored) -> Result<Option<Around>, Unprinted> {
    let (Some(actor), Some(_), Some(at)) = (&event.actor, event.event_time(), event.time()) else { return Ok(None) };
    if args.around.is_zero() {
        return Ok(None);
    }
    let length = time::Duration::try_from(args.around).unwrap_or(time::Duration::MAX);
    let end = at.saturating_add(length).saturating_add(time::Duration::NANOSECOND);
    let range = Range::new(at.saturating_sub(length), end);
    bounded(&range).map_err(Unprinted::Failed)?;
    let filter = Filter { actors: vec![actor.clone()], ..Filter::default() };
    let question = Question { range, filter: &filter, order: Order::OldestFirst, detail: Detail::Attributes };
    let others = question
        .by_index(reader)
        .try_filter(|other| std::future::ready(other.actor.as_ref() == Some(actor) && other.key != event.key));
    let mut events: Vec<_> = others.take(AROUND.saturating_add(1)).try_collect().await.map_err(unread)?;
    let more = events.len() > AROUND;
    events.truncate(AROUND);
    Ok(Some(Around { range, events, more }))
}

fn print(output: &Output, event: &Stored, rules: &RuleSet) -> Result<(), Unprinted> {
    output.line(&event.alert_text(rules))?;
    let field = |name: &str, value: &str| output.line(&format!("{:<12}{value}", format!("{name}:")));
    let at = |time: Option<&str>| time.map_or_else(String::new, |time| format!(" {}", shown(time, 64)));
    let state = event.state();
    let paint = match state {
        State::Open => Paint::Warn,
        State::Alerted => Paint::Good,
        State::Grouped | State::Recorded => Paint::Plain,
    };
    field("Alert", &format!("{}{}", output.paint(paint, state.as_str()), at(event.alerted_at.as_deref())))?;
    for id in &event.alert_ids {
        field("Alert id", &shown(id, LONG))?;
    }
    if let Some(message) = &event.sns_message_id {
        field("SNS id", &format!("{} (of the last alert)", shown(message, 256)))?;
    }
    for rule in &event.rules {
        let settled = if event.settled.contains(rule) { "settled" } else { "open" };
        let group = event.groups.get(rule).map(|id| format!(", counted in {}", shown(id, 256))).unwrap_or_default();
        field("Rule", &format!("{}: {settled}{group}", shown(rule, 256)))?;
    }
    if let Some(claim) = &event.claim {
        let spent = if claim.alert.rules.is_subset(&event.settled) { "spent" } else { "live, or its holder died" };
        let rules: Vec<_> = claim.alert.rules.iter().map(|rule| shown(rule, 256)).collect();
        let (id, seconds) = (shown(&claim.alert.alert_id, 256), claim.length.as_secs());
        field("Claim", &format!("{spent}: alert {id} of {}, for {seconds} s at a time", rules.join(", ")))?;
    }
    if let Some(source) = &event.source {
        if let Some(object) = &source.object {
            field("Bucket", &shown(&object.bucket, LONG))?;
            field("Key", &shown(&object.key, LONG))?;
            if let Some(version) = &object.version_id {
                field("Version", &shown(version, LONG))?;
            }
        }
        field("Index", &format!("{}, counted from 0", source.index))?;
    }
    if let Some(detected) = &event.detected_at {
        field("Detected", &shown(detected, 64))?;
    }
    if let Some(hash) = &event.rule_set_hash {
        field("Rule set", &shown(hash, 64))?;
    }
    if let Some(expires) = event.expires_at.and_then(|time| time.format(&Rfc3339).ok()) {
        field("Expires", &expires)?;
    }
    output.line("")?;
    let object = event.source.as_ref().is_some_and(|source| source.object.is_some());
    let elsewhere = if object { ": read it in the object above, at that index" } else { "" };
    match event.record() {
        Record::Json(json) => output.line(&laid_out(&visible_json(json))),
        Record::LeftOut => output.line(&format!("The record is not in the item, which would be too large{elsewhere}")),
        Record::Damaged => output.line(&format!("The record in the item cannot be read{elsewhere}")),
    }
}

fn print_around(output: &Output, event: &Stored, around: Option<&Around>) -> Result<(), Unprinted> {
    output.line("")?;
    let Some(Around { range, events, more }) = around else {
        return match (&event.actor, event.event_time()) {
            (None, _) => output.line("Around it:  the record names no actor"),
            (_, None) => output.line("Around it:  the record has no time"),
            _ => Ok(()),
        };
    };
    let text = |time: OffsetDateTime| time.truncate_to_second().format(&Rfc3339).unwrap_or_default();
    let (from, to) = (text(range.from()), text(range.to()));
    let actor = event.actor.as_deref().unwrap_or_default();
    let number = match events.len() {
        0 => "no other event".to_owned(),
        1 => "1 other event".to_owned(),
        AROUND if *more => format!("the first {AROUND} other events"),
        number => format!("{number} other events"),
    };
    output.line(&format!("Around it:  {number} of {} from {from} to {to}", shown(actor, LONG)))?;
    list::print(output, events)?;
    if *more {
        let actor = shown(actor, LONG).replace('\'', r"'\''");
        // Up to a time is without it. A name may look like an option.
        let to = text(range.to().saturating_add(time::Duration::SECOND));
        output.line(&format!("All of them: trailhound events list --actor='{actor}' --from {from} --to {to}"))?;
    }
    Ok(())
}
