//! The alert as a mail: for a reader at three in the morning.

use super::commands::commands;
use super::document::{MAX_KEY, rfc3339};
use super::exception::exception;
use super::render::{MAX_NAMED_RULES, MAX_RULE_ID};
use super::sentence::sentence;
use super::text::{inert, shown};
use super::told::{Told, console_link, text_at};
use super::{Facts, group};

/// Rules that are told with their texts; those beyond by their ids.
const MAX_TOLD_RULES: usize = 10;

/// Of a description, of what to check first, and of a runbook, each.
const MAX_TEXT: usize = 512;

/// Rules that are named where the exception goes.
const MAX_EXCEPTED_RULES: usize = 5;

pub(super) fn email(told: &Told<'_>) -> String {
    let event = told.event;
    let facts = &event.facts;
    let line = |text: &str| inert(text, 1024);
    let mut text = Lines::default();
    text.line(&format!("{}: {}", told.severity, sentence(told, inert)));
    text.line("");

    text.field("Who", joined(&[facts.actor.as_deref(), credentials(told).as_deref()], " "));
    let on = facts.event_source.as_ref().map(|source| format!("on {source}"));
    text.field("What", joined(&[facts.event_name.as_deref(), on.as_deref()], " "));
    text.field("Where", joined(&[facts.account_id.as_deref(), facts.region.as_deref()], ", "));
    text.field("From", joined(&[facts.source_ip.as_deref(), facts.user_agent.as_deref()], ", "));
    let outcome = [Some(facts.outcome.as_str()), facts.error_code.as_deref(), facts.error_message.as_deref()];
    text.field("Outcome", joined(&outcome, ": "));
    let detected = format!("detected {}", rfc3339(event.detected_at));
    let happened = facts.event_time.map(|_| event.key.timestamp.as_str());
    text.field("When", joined(&[happened, Some(&detected)], ", "));
    if let Some(crossing) = told.crossing {
        for (name, value) in group::lines(crossing) {
            text.field(name, Some(value));
        }
    }
    text.line("");

    rules(&mut text, told);

    let commands = commands(event, &told.record);
    if !commands.is_empty() {
        let account =
            facts.account_id.as_deref().map(|account| format!(", with credentials of account {}", line(account)));
        text.line(&format!("Run next{}:", account.unwrap_or_default()));
        for command in commands {
            text.line(&format!("  {command}"));
        }
        text.line("");
    }

    if let Some(exception) = exception(event, &told.record) {
        let ids = told.rules.iter().take(MAX_EXCEPTED_RULES).map(|rule| shown(rule.id, MAX_RULE_ID));
        let ids = ids.collect::<Vec<_>>().join(", ");
        text.line(&format!("If this is expected, add to \"unless\" of {ids}:"));
        text.line(&format!("  {exception}"));
        text.line("");
    }

    match &event.source.object {
        Some(object) => {
            let version = object.version_id.as_ref().map(|version| format!(", version {}", inert(version, MAX_KEY)));
            let (bucket, key) = (inert(&object.bucket, MAX_KEY), inert(&object.key, MAX_KEY));
            text.field("Object", Some(format!("s3://{bucket}/{key}{}", version.unwrap_or_default())));
            text.field("Record", Some(format!("{}, counted from 0", event.source.index)));
        }
        None => text.field("Record", Some("came in a message, not in an object".to_owned())),
    }
    text.field("Event id", Some(line(&event.key.event_id)));
    text.field("CloudTrail", console_link(told));
    text.field("Alert id", Some(told.alert.alert_id.clone()));
    text.0
}

/// `(AssumedRole, key ASIA..., with MFA)`, as far as the record says so.
fn credentials(told: &Told<'_>) -> Option<String> {
    let identity = told.record.get("userIdentity");
    let Facts { user_identity_type, .. } = &told.event.facts;
    let key = text_at(identity, &["accessKeyId"]).map(|key| format!("key {}", shown(&key, 128)));
    let mfa = match text_at(identity, &["sessionContext", "attributes", "mfaAuthenticated"]).as_deref() {
        Some("true") => Some("with MFA".to_owned()),
        Some("false") => Some("without MFA".to_owned()),
        _ => None,
    };
    let parts: Vec<_> = [user_identity_type.clone(), key, mfa].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("({})", parts.join(", ")))
}

/// Why it matters, and what to check first.
fn rules(text: &mut Lines, told: &Told<'_>) {
    text.line("Why it matters:");
    for (at, rule) in told.rules.iter().take(MAX_NAMED_RULES).enumerate() {
        let id = shown(rule.id, MAX_RULE_ID);
        if at >= MAX_TOLD_RULES {
            text.line(&format!("- {} {id}", rule.severity));
            continue;
        }
        let description = rule.description().unwrap_or("not in the rules in force");
        text.line(&format!("- {} {id}: {}", rule.severity, shown(description, MAX_TEXT)));
        if let Some(check) = rule.check() {
            text.line(&format!("  Check first: {}", shown(check, MAX_TEXT)));
        }
        if let Some(runbook) = rule.runbook() {
            text.line(&format!("  Runbook: {}", shown(runbook, MAX_TEXT)));
        }
    }
    if let Some(more) = told.rules.len().checked_sub(MAX_NAMED_RULES).filter(|more| *more > 0) {
        text.line(&format!("- and {more} more"));
    }
    text.line("");
}

/// What is there, on one line.
fn joined(parts: &[Option<&str>], between: &str) -> Option<String> {
    let present: Vec<&str> = parts.iter().flatten().copied().collect();
    if present.is_empty() { None } else { Some(inert(&present.join(between), 1024)) }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn field(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.line(&format!("{:<12}{value}", format!("{name}:")));
        }
    }
}
