//! The JSON document `trailhound.alert/1`, described in `docs/alerts.md`. Fields are added to it, never changed: what
//! means something else gets another number.

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::correlation::{self, CorrelationDocument};
use super::group::GroupDocument;
use super::render::{Detail, MAX_RULE_ID};
use super::sentence::sentence;
use super::text::visible_json;
use super::told::{Told, ToldRule};
use super::{Facts, Source, SourceObject, shown};
use crate::rules::Severity;

const SCHEMA: &str = "trailhound.alert/1";

/// Techniques told of one rule; `T1098.001` is long for one.
const MAX_TECHNIQUES: usize = 20;
const MAX_TECHNIQUE: usize = 16;

/// S3's limit for a key, in bytes; a longer one was never an object's.
pub(super) const MAX_KEY: usize = 1024;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    alert_id: &'a str,
    event_id: &'a str,
    event_time: Option<&'a str>,
    detected_at: String,
    severity: Severity,
    summary: String,
    rules: Vec<Rule>,
    event_name: Option<&'a str>,
    event_source: Option<&'a str>,
    account_id: Option<&'a str>,
    region: Option<&'a str>,
    actor: Option<&'a str>,
    user_identity_type: Option<&'a str>,
    source_ip: Option<&'a str>,
    user_agent: Option<&'a str>,
    outcome: &'static str,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    source: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<CorrelationDocument>,
    event: Option<&'a RawValue>,
    truncated: bool,
}

#[derive(Serialize)]
struct Rule {
    id: String,
    severity: Severity,
    title: Option<String>,
    description: Option<String>,
    check: Option<String>,
    attack: Vec<String>,
    runbook: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Place {
    bucket: Option<String>,
    key: Option<String>,
    version: Option<String>,
    index: u64,
}

/// The document as JSON text, without hidden characters.
pub(super) fn document(told: &Told<'_>, detail: Detail) -> String {
    let Told { event, record: _, alert, severity, rules, crossing } = told;
    let Facts { event_name, event_source, region, account_id, actor, user_identity_type, .. } = &event.facts;
    let Facts { source_ip, user_agent, error_code, error_message, event_time, outcome, .. } = &event.facts;
    let record = detail.record.then(|| record(&event.record)).flatten();
    let told_rules: Vec<Rule> = rules
        .iter()
        .take(detail.rules)
        .map(|rule| Rule {
            id: shown(rule.id, MAX_RULE_ID),
            severity: rule.severity,
            title: rule.title().map(|text| shown(text, detail.text)),
            description: rule.description().map(|text| shown(text, detail.text)),
            check: rule.check().map(|text| shown(text, detail.text)),
            attack: rule.attack().iter().take(MAX_TECHNIQUES).map(|text| shown(text, MAX_TECHNIQUE)).collect(),
            runbook: rule.runbook().map(|text| shown(text, detail.text)),
        })
        .collect();
    let is_cut = |rule: &ToldRule<'_>| {
        let is_longer = |text: &str, limit: usize| text.chars().nth(limit).is_some();
        let texts = [rule.title(), rule.description(), rule.check(), rule.runbook()];
        texts.into_iter().flatten().any(|text| is_longer(text, detail.text))
            || rule.attack().len() > MAX_TECHNIQUES
            || rule.attack().iter().any(|text| is_longer(text, MAX_TECHNIQUE))
    };
    let truncated = record.is_none() || told_rules.len() < rules.len() || rules.iter().any(is_cut);
    let document = Document {
        schema: SCHEMA,
        alert_id: &alert.alert_id,
        event_id: &event.key.event_id,
        event_time: event_time.map(|_| event.key.timestamp.as_str()),
        detected_at: rfc3339(event.detected_at),
        severity: *severity,
        summary: sentence(told, shown),
        rules: told_rules,
        event_name: event_name.as_deref(),
        event_source: event_source.as_deref(),
        account_id: account_id.as_deref(),
        region: region.as_deref(),
        actor: actor.as_deref(),
        user_identity_type: user_identity_type.as_deref(),
        source_ip: source_ip.as_deref(),
        user_agent: user_agent.as_deref(),
        outcome: outcome.as_str(),
        error_code: error_code.as_deref(),
        error_message: error_message.as_deref(),
        source: place(&event.source),
        group: crossing.filter(|crossing| crossing.state.correlated.is_none()).map(GroupDocument::new),
        correlation: crossing.and_then(correlation::document),
        event: record,
        truncated,
    };
    // Strings, numbers and valid JSON always serialise.
    visible_json(serde_json::to_string(&document).unwrap_or_default())
}

/// The record, where it is an object.
pub(super) fn record(text: &str) -> Option<&RawValue> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

pub(super) fn place(source: &Source) -> Place {
    let exact = |text: &str| if text.len() <= MAX_KEY { text.to_owned() } else { shown(text, MAX_KEY) };
    let Source { object, index } = source;
    let part = |of: fn(&SourceObject) -> Option<&str>| object.as_ref().and_then(of).map(exact);
    Place {
        bucket: part(|object| Some(&object.bucket)),
        key: part(|object| Some(&object.key)),
        version: part(|object| object.version_id.as_deref()),
        index: *index,
    }
}

/// UTC, in milliseconds.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    // Only years before 0 have no such form; the clock has none.
    time.truncate_to_millisecond().format(&Rfc3339).unwrap_or_default()
}
