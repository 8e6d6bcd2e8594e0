//! Rules of others, read and written as ours: EventBridge rules, CloudWatch Logs metric filters, Sigma rules.
//!
//! A rule that cannot be said exactly is refused with its name, the place and what to do. What changes nothing, or is
//! decided for the reader, is told as a note beside the rule. `docs/import.md` says how each thing maps.

mod cloudwatch;
mod eventbridge;
mod expression;
mod meeting;
mod negation;
mod print;
mod sigma;
mod sigma_condition;
mod sigma_value;
mod yaml;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::Severity;
use super::fields::{self, Shape};
use crate::alert::shown;
pub use print::print;

const MAX_FILE_BYTES: usize = 4 << 20;
/// The limits of `file.rs`.
const MAX_ID_BYTES: usize = 64;
const MAX_TITLE_BYTES: usize = 128;
const MAX_DESCRIPTION_BYTES: usize = 2_048;
const MAX_VALUE_BYTES: usize = 1_024;

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Amazon EventBridge rules and event patterns.
    EventBridge,
    /// CloudWatch Logs metric filters on JSON.
    CloudWatch,
    /// Sigma detection rules.
    Sigma,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::EventBridge, Self::CloudWatch, Self::Sigma];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventBridge => "eventbridge",
            Self::CloudWatch => "cloudwatch",
            Self::Sigma => "sigma",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|format| format.as_str() == text);
        named.ok_or_else(|| format!("unknown format; give one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// A rule in our format, and what its reader should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// An element of `events`; its keys in the order in which they are to be printed.
    pub rule: Value,
    pub notes: Vec<String>,
}

/// Why a rule was not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    pub file: String,
    /// What the file calls the rule.
    pub rule: Option<String>,
    /// Where in the file or in the rule; empty for the whole.
    pub place: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " (rule {rule:?})")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads the rules of one file; `file_name` names a rule that has no name, and stands in errors.
///
/// # Errors
///
/// Everything that cannot be imported, at once. Then nothing is.
pub fn import(format: Format, file_name: &str, text: &str) -> Result<Vec<Imported>, Vec<ImportError>> {
    let file = Scope { file: file_name, rule: None };
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_FILE_BYTES} are read", text.len());
        return Err(vec![file.error("", message)]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(vec![file.error("", "the file is empty")]);
    }
    let results = match format {
        Format::EventBridge => eventbridge::rules(&file, text),
        Format::CloudWatch => cloudwatch::rules(&file, text),
        Format::Sigma => sigma::rules(&file, text),
    };
    let mut taken = HashSet::new();
    let mut imported = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(draft) => imported.push(draft.finish(&mut taken)),
            Err(mut of_one) => errors.append(&mut of_one),
        }
    }
    if imported.is_empty() && errors.is_empty() {
        errors.push(file.error("", "the file holds no rule"));
    }
    if errors.is_empty() { Ok(imported) } else { Err(errors) }
}

/// A rule, or all that is wrong with it.
type Outcome = Result<Draft, Vec<ImportError>>;

/// What an error is told with.
#[derive(Clone, Copy)]
struct Scope<'a> {
    file: &'a str,
    rule: Option<&'a str>,
}

impl<'a> Scope<'a> {
    fn of(self, rule: &'a str) -> Self {
        Self { rule: Some(rule), ..self }
    }

    fn error(&self, place: impl Into<String>, message: impl Into<String>) -> ImportError {
        ImportError {
            file: self.file.to_owned(),
            rule: self.rule.map(|rule| bounded(rule, MAX_ID_BYTES)),
            place: shown(&place.into(), usize::MAX),
            // It quotes the file, and an error is one line.
            message: shown(&message.into(), usize::MAX),
        }
    }

    /// The file's name without folders and its last extension: the name of a rule that has none.
    fn stem(&self) -> &'a str {
        let name = self.file.rsplit(['/', '\\']).next().unwrap_or(self.file);
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }
}

/// A rule on its way to our format.
#[derive(Default)]
struct Draft {
    id: String,
    title: Option<String>,
    description: Option<String>,
    severity: Option<Severity>,
    off: bool,
    author: Option<String>,
    references: Vec<String>,
    event_source: Vec<String>,
    event_name: Vec<String>,
    pattern: Map<String, Value>,
    unless: Vec<Value>,
    attack: Vec<String>,
    tags: Vec<String>,
    notes: Vec<String>,
}

impl Draft {
    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    fn finish(mut self, taken: &mut HashSet<String>) -> Imported {
        let id = sanitised(&self.id);
        if id != self.id {
            self.note(format!("the id is made from the name {:?}", bounded(&self.id, MAX_VALUE_BYTES)));
        }
        let id = unique(&id, taken);
        if self.severity.is_none() {
            self.note("the format has no severity: MEDIUM is a guess");
        }
        if let Some(long) = self.title.take() {
            let line = one_line(&long);
            let title = bounded(&line, MAX_TITLE_BYTES);
            if title != line {
                self.note("the title is cut to 128 bytes");
            }
            self.title = Some(title);
        }
        if let Some(long) = self.description.take() {
            let line = one_line(&long);
            let description = bounded(&line, MAX_DESCRIPTION_BYTES);
            if description != line {
                self.note("the description is cut to 2048 bytes");
            }
            self.description = Some(description);
        }
        let severity = self.severity.unwrap_or(Severity::Medium);
        let mut rule = Map::new();
        let mut put = |key: &str, value: Value| {
            let empty = match &value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(values) => values.is_empty(),
                Value::Object(members) => members.is_empty(),
                _ => false,
            };
            if !empty {
                rule.insert(key.to_owned(), value);
            }
        };
        put("id", json!(id));
        put("title", json!(self.title));
        put("description", json!(self.description));
        put("severity", json!(severity.as_str()));
        put("mode", if self.off { json!("off") } else { Value::Null });
        put("author", json!(self.author));
        put("references", json!(self.references));
        put("eventSource", one_or_many(self.event_source));
        put("eventName", one_or_many(self.event_name));
        put("pattern", Value::Object(self.pattern));
        put("unless", Value::Array(self.unless));
        put("attack", json!(self.attack));
        put("tags", json!(self.tags));
        Imported { rule: Value::Object(rule), notes: self.notes }
    }
}

fn one_or_many(mut texts: Vec<String>) -> Value {
    if texts.len() > 1 { json!(texts) } else { texts.pop().map_or(Value::Null, Value::String) }
}

/// A name in the alphabet of ids; never empty.
fn sanitised(name: &str) -> String {
    let mut id = String::new();
    for c in name.chars() {
        if id.len() >= MAX_ID_BYTES {
            break;
        }
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            id.push(c);
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
    }
    let id = id.trim_end_matches('-');
    if id.is_empty() { "imported".to_owned() } else { id.to_owned() }
}

/// The id, numbered if the file has it already.
fn unique(id: &str, taken: &mut HashSet<String>) -> String {
    let mut candidate = id.to_owned();
    let mut number = 2_u64;
    while !taken.insert(candidate.clone()) {
        let suffix = format!("-{number}");
        let kept = bytes_of(id, MAX_ID_BYTES.saturating_sub(suffix.len()));
        candidate = format!("{kept}{suffix}");
        number += 1;
    }
    candidate
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text, cut to `max` bytes with an ellipsis within them.
fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", bytes_of(text, max.saturating_sub('…'.len_utf8())))
}

/// The longest beginning of at most `max` bytes.
fn bytes_of(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

/// Whether a path leads to an object or a list of objects, of which "is there" cannot be asked.
fn is_container(path: &str) -> bool {
    const OPEN: [&str; 8] = [
        "requestParameters",
        "responseElements",
        "additionalEventData",
        "serviceEventDetails",
        "insightDetails",
        "edgeDeviceDetails",
        "eventContext",
        "userIdentity.sessionContext.webIdFederationData.attributes",
    ];
    OPEN.contains(&path) || matches!(fields::look_up(path), Ok(Shape::Object))
}

/// Whether a path leads to something that is always one plain value.
fn is_plain_field(path: &str) -> bool {
    matches!(fields::look_up(path), Ok(Shape::Text | Shape::Boolean)) && !path.starts_with("resources.")
}

/// The conditions that the field can meet: `rules check` refuses a number for a field that always holds a text.
fn possible(path: &str, values: Vec<Value>) -> Vec<Value> {
    let is_possible = |value: &&Value| match fields::look_up(path) {
        Ok(Shape::Text) => !(value.is_number() || value.is_boolean() || value.get("numeric").is_some()),
        Ok(Shape::Boolean) => !(value.is_number() || value.is_string() || names_text(value)),
        _ => true,
    };
    let kept: Vec<_> = values.iter().filter(is_possible).cloned().collect();
    if kept.is_empty() { values } else { kept }
}

fn names_text(value: &Value) -> bool {
    ["prefix", "suffix", "equals-ignore-case", "wildcard", "regex", "numeric", "cidr"]
        .into_iter()
        .any(|key| value.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ids() {
        for (name, id) in [
            ("root-login", "root-login"),
            ("Root login (console)", "Root-login-console"),
            ("  ünïcode / name ", "n-code-name"),
            ("***", "imported"),
            ("", "imported"),
        ] {
            assert_eq!(sanitised(name), id);
        }
        assert_eq!(sanitised(&"x".repeat(100)).len(), 64);
        let mut taken = HashSet::new();
        let ids: Vec<_> = (0..3).map(|_| unique(&"y".repeat(64), &mut taken)).collect();
        assert!(ids.iter().all(|id| id.len() == 64));
        assert_eq!(taken.len(), 3);
    }

    /// Found by the fuzz target `rule_loading`: it was imported as a file without rules, which the daemon refuses.
    #[test]
    fn a_file_without_rules_is_an_error() {
        for (format, text) in [
            (Format::Sigma, "# only a comment"),
            (Format::Sigma, "---\n---\n"),
            (Format::CloudWatch, r#"{"metricFilters": []}"#),
            (Format::EventBridge, r#"{"Rules": []}"#),
            (Format::EventBridge, r#"{"Resources": {}}"#),
        ] {
            let errors = import(format, "rules", text).unwrap_err();
            assert!(errors[0].to_string().starts_with("rules: "), "{text:?}: {errors:?}");
        }
    }

    /// Found by the fuzz target `rule_loading`.
    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let errors = import(Format::CloudWatch, "filters", "{ $.a[b\u{5}\u{202e}] = c }").unwrap_err();
        let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told, [r#"filters (rule "filters"): [b\u{5}\u{202e}] names no field"#]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("ééé", 6), "ééé");
        assert_eq!(bounded("éééé", 7), "éé…");
        assert_eq!(bounded("abc", 0), "…");
    }

    #[test]
    fn formats_have_names() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        assert_eq!(
            "splunk".parse::<Format>().unwrap_err(),
            "unknown format; give one of eventbridge, cloudwatch, sigma"
        );
    }

    #[test]
    fn a_file_is_of_a_bounded_size_and_not_empty() {
        for format in Format::ALL {
            assert!(import(format, "f", " \n").unwrap_err()[0].to_string().ends_with("the file is empty"));
            let long = " ".repeat(MAX_FILE_BYTES + 1);
            assert!(import(format, "f", &long).unwrap_err()[0].to_string().contains("4194305 bytes"));
        }
    }
}
