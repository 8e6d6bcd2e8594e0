//! Reads a rule file, or a file of rule tests, and collects everything that is wrong with it side by side, so that one
//! wrong rule does not hide the next.

use std::collections::HashMap;

use super::document::{Document, Member, Node, Position, Value};
use super::suggest::nearest;
use super::{Diagnostic, Level};

pub(super) const MAX_FILE_BYTES: usize = 16 << 20;
pub(super) const MAX_VALUE_BYTES: usize = 1_024;
pub(super) const MAX_DIAGNOSTICS: usize = 1_000;
/// What is shown of a key or an id at most.
const MAX_SHOWN_CHARS: usize = 64;

pub(super) struct Reader<'a> {
    document: Document<'a>,
    found: Vec<(Position, Diagnostic)>,
    errors: usize,
}

/// Where the reader stands: what a diagnostic is told with.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) rule: Option<String>,
    pub(super) path: String,
    pub(super) at: Position,
}

impl Place {
    pub(super) fn item(&self, index: usize, at: Position) -> Self {
        Self { rule: self.rule.clone(), path: format!("{}[{index}]", self.path), at }
    }
}

/// What is said of a place: what is wrong, and what to do where that is not plain.
pub(super) struct Complaint {
    message: String,
    advice: Option<String>,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { message: message.into(), advice: Some(advice.into()) }
    }
}

impl From<&str> for Complaint {
    fn from(message: &str) -> Self {
        Self { message: message.to_owned(), advice: None }
    }
}

impl From<String> for Complaint {
    fn from(message: String) -> Self {
        Self { message, advice: None }
    }
}

impl<'a> Reader<'a> {
    /// Opens a file whose form is told by `form`, such as `{"events": [...]}`.
    ///
    /// # Errors
    ///
    /// It is too large, empty, or no JSON.
    pub(super) fn open(text: &'a str, form: &str) -> Result<(Self, Node<'a>), Diagnostic> {
        let refuse = |line, message: String, advice: Option<String>| Diagnostic {
            level: Level::Error,
            rule: None,
            path: "$".to_owned(),
            line,
            message,
            advice,
        };
        if text.len() > MAX_FILE_BYTES {
            let size = text.len();
            let message = format!("the file has {size} bytes; at most {MAX_FILE_BYTES} are read");
            return Err(refuse(1, message, None));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_ascii().is_empty() {
            return Err(refuse(1, "the file is empty".to_owned(), Some(format!("write {form}"))));
        }
        let (document, root) = Document::parse(text).map_err(|error| {
            let message = format!("not valid JSON at column {}: {}", error.column(), reason(&error));
            refuse(error.line().max(1), message, None)
        })?;
        Ok((Self { document, found: Vec::new(), errors: 0 }, root))
    }

    /// Everything that was found, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(at, _)| *at);
        let more = self.found.len().saturating_sub(MAX_DIAGNOSTICS);
        if more > 0 {
            // Warnings give way to errors.
            self.found.sort_by_key(|(_, one)| one.level);
        }
        let mut diagnostics: Vec<_> = self.found.into_iter().map(|(_, one)| one).take(MAX_DIAGNOSTICS).collect();
        if more > 0
            && let Some(last) = diagnostics.last_mut()
        {
            last.message = format!("{} (and {more} more after this one)", last.message);
        }
        diagnostics
    }

    /// How many errors were found so far.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn error(&mut self, place: &Place, complaint: impl Into<Complaint>) {
        self.errors += 1;
        self.note(Level::Error, place, complaint.into());
    }

    pub(super) fn warning(&mut self, place: &Place, complaint: impl Into<Complaint>) {
        self.note(Level::Warning, place, complaint.into());
    }

    fn note(&mut self, level: Level, place: &Place, complaint: Complaint) {
        let diagnostic = Diagnostic {
            level,
            rule: place.rule.clone(),
            path: place.path.clone(),
            line: self.line(place.at),
            message: complaint.message,
            advice: complaint.advice,
        };
        self.found.push((place.at, diagnostic));
    }

    /// From 1.
    pub(super) fn line(&self, at: Position) -> usize {
        self.document.line(at)
    }

    pub(super) fn root(&self, node: Node<'_>) -> Place {
        Place { rule: None, path: "$".to_owned(), at: self.document.position(node) }
    }

    pub(super) fn position(&self, node: Node<'_>) -> Position {
        self.document.position(node)
    }

    pub(super) fn member(&self, parent: &Place, member: &Member<'_>) -> Place {
        Place {
            rule: parent.rule.clone(),
            path: join(if parent.path == "$" { "" } else { &parent.path }, &member.key),
            at: self.document.position_of(member),
        }
    }

    pub(super) fn read(&mut self, place: &Place, node: Node<'a>) -> Option<Value<'a>> {
        match node.read() {
            Ok(value) => Some(value),
            Err(error) => {
                let reason = reason(&error);
                self.error(place, format!("cannot be read: {reason}"));
                None
            }
        }
    }

    /// The members of an object whose keys stand in it once; what is another thing is an error that says `expected`.
    pub(super) fn object(&mut self, place: &Place, node: Node<'a>, expected: &str) -> Option<Vec<(Place, Member<'a>)>> {
        let Value::Object(members) = self.read(place, node)? else {
            let kind = node.kind();
            self.error(place, format!("expected {expected}, found {kind}"));
            return None;
        };
        let mut seen = HashMap::new();
        let mut once = Vec::with_capacity(members.len());
        for member in members {
            let here = self.member(place, &member);
            if !self.is_repeated(&mut seen, &here, &member.key) {
                once.push((here, member));
            }
        }
        Some(once)
    }

    pub(super) fn list(&mut self, place: &Place, node: Node<'a>, expected: &str) -> Option<Vec<Node<'a>>> {
        let Value::Array(elements) = self.read(place, node)? else {
            let kind = node.kind();
            self.error(place, format!("expected {expected}, found {kind}"));
            return None;
        };
        Some(elements)
    }

    /// A list of strings with at least one.
    pub(super) fn texts(&mut self, place: &Place, node: Node<'a>) -> Option<Vec<String>> {
        let elements = self.list(place, node, "a list of strings")?;
        if elements.is_empty() {
            self.error(place, Complaint::new("the list is empty", "leave the key out, or name a value"));
            return None;
        }
        let mut texts = Vec::with_capacity(elements.len());
        let mut complete = true;
        for (index, element) in elements.into_iter().enumerate() {
            let here = place.item(index, self.position(element));
            match self.text(&here, element, MAX_VALUE_BYTES) {
                Some(text) => texts.push(text),
                None => complete = false,
            }
        }
        complete.then_some(texts)
    }

    /// A string of 1 to `max` bytes.
    pub(super) fn text(&mut self, place: &Place, node: Node<'a>, max: usize) -> Option<String> {
        let text = self.any_text(place, node, max)?;
        if text.is_empty() {
            self.error(place, Complaint::new("the string is empty", "leave the key out, or name a value"));
            return None;
        }
        Some(text)
    }

    /// A string of at most `max` bytes.
    pub(super) fn any_text(&mut self, place: &Place, node: Node<'a>, max: usize) -> Option<String> {
        let Value::String(text) = self.read(place, node)? else {
            let kind = node.kind();
            self.error(place, format!("expected a string, found {kind}"));
            return None;
        };
        if text.len() > max {
            let size = text.len();
            self.error(place, format!("the string has {size} bytes; at most {max} are allowed"));
            return None;
        }
        Some(text.into_owned())
    }

    fn is_repeated(&mut self, seen: &mut HashMap<String, usize>, place: &Place, key: &str) -> bool {
        let line = self.line(place.at);
        if let Some(first) = seen.get(key) {
            let message = format!("the key stands here a second time; the first is on line {first}");
            self.error(place, message);
            return true;
        }
        seen.insert(key.to_owned(), line);
        false
    }
}

/// `serde_json`'s reason without its position, which is told in the diagnostic's own way.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&position).unwrap_or(&text) {
        "key must be a string" => {
            "expected a key in double quotes (JSON has no trailing commas and no comments)".into()
        }
        "expected value" => "expected a value (JSON has no comments and no single quotes)".into(),
        "unexpected end of hex escape" => "half of a surrogate pair (\\ud800 to \\udfff)".into(),
        reason => reason.to_owned(),
    }
}

pub(super) fn unknown(key: &str, known: impl IntoIterator<Item = &'static str>) -> Complaint {
    match nearest(key, known) {
        Some(near) => Complaint::new("unknown key", format!("did you mean \"{near}\"?")),
        None => Complaint::new("unknown key", "remove it"),
    }
}

/// The path of a member; a key that is no plain word is quoted, escaped and cut.
fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '-');
    if key.is_empty() || key.len() > MAX_SHOWN_CHARS || !key.chars().all(plain) {
        return format!("{path}[{:?}]", bounded(key));
    }
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

pub(super) fn bounded(text: &str) -> String {
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(MAX_SHOWN_CHARS).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}
