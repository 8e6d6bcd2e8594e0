//! The custom notification of [Amazon Q Developer in chat applications][schema], which shows it in Slack and Teams.
//! Limits in characters: title 250, description 8,000, each next step 350, each keyword 75.
//!
//! [schema]: https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html

use std::collections::BTreeMap;

use serde::Serialize;

use super::commands::commands;
use super::document::rfc3339;
use super::exception::exception;
use super::group;
use super::sentence::sentence;
use super::text::{inert, shown, visible_json};
use super::told::{Told, ToldRule, console_link};

const MAX_TITLE: usize = 250;
const MAX_DESCRIPTION: usize = 8_000;
const MAX_STEP: usize = 350;
const MAX_KEYWORD: usize = 75;

/// What custom actions of a chat channel can be attached to.
const EVENT_TYPE: &str = "trailhound-alert";

/// Rules that are told with their texts.
const MAX_RULES: usize = 5;
/// Of a description, and of what to check first.
const MAX_TEXT: usize = 400;
const MAX_KEYWORDS: usize = 10;
const MAX_VALUE: usize = 256;

#[derive(Serialize)]
pub(super) struct Notification {
    version: &'static str,
    source: &'static str,
    id: String,
    content: Content,
    metadata: Metadata,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    text_type: &'static str,
    title: String,
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next_steps: Vec<String>,
    keywords: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    thread_id: String,
    summary: String,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related_resources: Vec<String>,
    additional_context: BTreeMap<&'static str, String>,
}

/// What a notification says, before it is held to its limits.
pub(super) struct Parts {
    pub(super) alert_id: String,
    pub(super) thread: String,
    /// Markdown; what is beyond the title's limit ends it.
    pub(super) title: String,
    /// Paragraphs of Markdown, the most important first: those beyond the limit are left out whole, so that no code is cut.
    pub(super) paragraphs: Vec<String>,
    /// As the paragraphs; a step that is too long is left out.
    pub(super) steps: Vec<String>,
    pub(super) keywords: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) context: BTreeMap<&'static str, String>,
}

pub(super) fn notification(told: &Told<'_>) -> String {
    let event = told.event;
    let facts = &event.facts;
    let mut paragraphs = vec![sentence(told, code)];
    let fields = [
        ("Who", [facts.actor.as_deref(), facts.user_identity_type.as_deref()]),
        ("From", [facts.source_ip.as_deref(), facts.user_agent.as_deref()]),
        ("Outcome", [Some(facts.outcome.as_str()), facts.error_message.as_deref().or(facts.error_code.as_deref())]),
        ("When", [facts.event_time.map(|_| event.key.timestamp.as_str()), None]),
    ];
    let mut lines: Vec<String> = Vec::new();
    for (name, values) in fields {
        let values: Vec<String> = values.into_iter().flatten().map(|value| code(value, MAX_VALUE)).collect();
        if !values.is_empty() {
            lines.push(format!("{name}: {}", values.join(", ")));
        }
    }
    for (name, value) in told.crossing.map(group::lines).unwrap_or_default() {
        lines.push(format!("{name}: {}", code(&value, 2 * MAX_VALUE)));
    }
    paragraphs.push(lines.join("\n"));
    for rule in told.rules.iter().take(MAX_RULES) {
        let description = plain(rule.description().unwrap_or("not in the rules in force"), MAX_TEXT);
        let runbook = rule.runbook().map(|runbook| format!("\nRunbook: {}", plain(runbook, MAX_TEXT)));
        let id = code(rule.id, MAX_KEYWORD);
        paragraphs.push(format!("{} {id}: {description}{}", rule.severity, runbook.unwrap_or_default()));
    }
    if let Some(more) = told.rules.len().checked_sub(MAX_RULES).filter(|more| *more > 0) {
        paragraphs.push(format!("and {more} more rules"));
    }
    if let Some(link) = console_link(told) {
        paragraphs.push(link);
    }
    if let Some(exception) = exception(event, &told.record).and_then(|text| verbatim(&text)) {
        let ids: Vec<_> = told.rules.iter().take(MAX_RULES).map(|rule| code(rule.id, MAX_KEYWORD)).collect();
        paragraphs.push(format!("If this is expected, add to \"unless\" of {}:\n{exception}", ids.join(", ")));
    }

    let check = told.rules.iter().find_map(ToldRule::check);
    let check = check.map(|check| format!("Check first: {}", plain(check, MAX_STEP - 50)));
    let commands = commands(event, &told.record).into_iter().filter_map(|command| verbatim(&command));
    let ids = told.rules.iter().map(|rule| rule.id);
    let techniques = told.rules.iter().flat_map(ToldRule::attack).map(String::as_str);
    let mut keywords = vec![told.severity.as_str().to_owned()];
    for keyword in ids.chain(techniques).filter(|text| !text.is_empty()) {
        let keyword = plain(keyword, MAX_KEYWORD);
        if keywords.len() < MAX_KEYWORDS && !keywords.contains(&keyword) {
            keywords.push(keyword);
        }
    }
    let resource = told.record.first_of(&["resources"], &["ARN"]);
    let context = [
        ("event_id", Some(event.key.event_id.as_str())),
        ("event_name", facts.event_name.as_deref()),
        ("event_source", facts.event_source.as_deref()),
        ("account_id", facts.account_id.as_deref()),
        ("region", facts.region.as_deref()),
        ("actor", facts.actor.as_deref()),
        ("source_ip", facts.source_ip.as_deref()),
        ("outcome", Some(facts.outcome.as_str())),
        ("severity", Some(told.severity.as_str())),
    ];
    let context = context.into_iter().filter_map(|(name, value)| Some((name, plain(value?, MAX_VALUE))));
    let mut context: BTreeMap<&'static str, String> = context.collect();
    context.insert("detected_at", rfc3339(event.detected_at));
    let name = code(&told.name(), 64);
    let by = facts.actor.as_deref().map(|actor| format!(" by {}", code(actor, 64))).unwrap_or_default();
    let account = facts.account_id.as_deref().map(|account| format!(" in {}", code(account, 16))).unwrap_or_default();
    let events = told.crossing.and_then(group::events).map(|events| format!("{events}: ")).unwrap_or_default();
    Parts {
        alert_id: told.alert.alert_id.clone(),
        thread: told.thread(),
        title: format!("[{}] {events}{name}{by}{account}", told.severity),
        paragraphs,
        steps: check.into_iter().chain(commands).collect(),
        keywords,
        resources: resource.into_iter().map(|arn| plain(&arn, MAX_VALUE)).collect(),
        context,
    }
    .text()
}

impl Parts {
    /// The notification as JSON text, without hidden characters.
    pub(super) fn text(self) -> String {
        let length = |text: &str| text.chars().count();
        let mut description = String::new();
        let mut left = MAX_DESCRIPTION;
        for paragraph in self.paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty()) {
            let Some(rest) = left.checked_sub(length(&paragraph).saturating_add(2)) else { continue };
            left = rest;
            if !description.is_empty() {
                description.push_str("\n\n");
            }
            description.push_str(&paragraph);
        }
        let title = shown(&self.title, MAX_TITLE);
        let notification = Notification {
            version: "1.0",
            source: "custom",
            id: self.alert_id,
            content: Content {
                text_type: "client-markdown",
                title: title.clone(),
                description,
                next_steps: self.steps.into_iter().filter(|step| length(step) <= MAX_STEP).collect(),
                keywords: self.keywords.into_iter().filter(|keyword| length(keyword) <= MAX_KEYWORD).collect(),
            },
            metadata: Metadata {
                thread_id: self.thread,
                summary: title,
                event_type: EVENT_TYPE,
                related_resources: self.resources,
                additional_context: self.context,
            },
        };
        // Strings always serialise.
        visible_json(serde_json::to_string(&notification).unwrap_or_default())
    }
}

/// A text of others as inline code: neither Slack nor Teams makes a link, a mention or a style of what is in it.
pub(super) fn code(text: &str, limit: usize) -> String {
    let text = inert(text, limit).replace('`', "'");
    let text = escaped(text.trim());
    if text.is_empty() { "-".to_owned() } else { format!("`{text}`") }
}

/// A text outside of code, at most so many characters: what Slack reads as a link, a mention or an escape is escaped.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let mut room = limit;
    loop {
        let clean = escaped(&shown(text, room).replace('`', "'"));
        // An escape takes more characters than what it stands for.
        match clean.chars().count().checked_sub(limit) {
            None | Some(0) => return clean,
            Some(more) => room = room.saturating_sub(more.div_ceil(4).max(1)),
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What is to be pasted, as inline code; nothing where it could not be pasted as it stands.
fn verbatim(text: &str) -> Option<String> {
    (!text.contains(['`', '<', '>', '&'])).then(|| format!("`{text}`"))
}
