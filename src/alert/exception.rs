//! The exception to paste where what an alert tells is expected.

use serde_json::{Map, Value, json};
use time::Duration;
use time::macros::format_description;

use super::text::visible_json;
use super::told::raw_text;
use super::{DetectedEvent, Outcome};
use crate::cloudtrail::json as record_json;

/// Rule files take no longer value, in bytes.
const MAX_VALUE: usize = 1024;

/// How long the exception holds.
const DAYS: i64 = 90;

/// What names the caller, the most lasting first: of a session its role.
const ACTORS: [&[&str]; 5] =
    [&["sessionContext", "sessionIssuer", "arn"], &["arn"], &["principalId"], &["userName"], &["invokedBy"]];

/// An element of a rule's `unless`, as JSON on one line: this call by this caller; where it did not succeed, only with the
/// same error. Nothing where the record does not name both.
pub(super) fn exception(event: &DetectedEvent) -> Option<String> {
    let record = event.record.as_bytes();
    let fits = |text: &String| text.len() <= MAX_VALUE;
    let identity = record_json::get(record, "userIdentity")?;
    let (path, actor) = ACTORS.into_iter().find_map(|path| Some((path, raw_text(identity, path).filter(fits)?)))?;
    let name = raw_text(record, &["eventName"]).filter(fits)?;
    let mut pattern = Map::new();
    for (key, text) in [("eventSource", raw_text(record, &["eventSource"])), ("eventName", Some(name.clone()))] {
        if let Some(text) = text.filter(fits) {
            pattern.insert(key.to_owned(), json!([text]));
        }
    }
    if event.facts.outcome != Outcome::Success
        && let Some(code) = raw_text(record, &["errorCode"]).filter(fits)
    {
        pattern.insert("errorCode".to_owned(), json!([code]));
    }
    let caller = path.iter().rev().fold(json!([actor]), |inner, key| json!({ *key: inner }));
    pattern.insert("userIdentity".to_owned(), caller);
    let day = event.facts.event_time.unwrap_or(event.detected_at).checked_add(Duration::days(DAYS))?;
    let until = day.date().format(format_description!("[year]-[month]-[day]")).ok()?;
    let exception =
        json!({ "pattern": Value::Object(pattern), "reason": "Expected: say why, and who agreed", "until": until });
    // Another spelling of the same text, of which no mail program makes a link.
    Some(visible_json(exception.to_string().replace("://", r":\/\/")))
}
