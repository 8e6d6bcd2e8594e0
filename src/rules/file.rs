//! From the text of `monitored_events.json` to rules, or to everything that is wrong with it.

use std::collections::HashMap;

use super::condition::{AnyOf, Field, Rule};
use super::document::{Document, Member, Node, Position, Value};
use super::{RuleError, RuleErrors, RuleInfo, Severity};

const MAX_FILE_BYTES: usize = 16 << 20;
const MAX_RULES: usize = 10_000;
/// An id is a metrics label, an element of a string set, and part of a message attribute.
const MAX_ID_BYTES: usize = 64;
const MAX_VALUE_BYTES: usize = 1_024;
const MAX_DESCRIPTION_BYTES: usize = 2_048;
const MAX_ERRORS: usize = 1_000;

const FILE_KEYS: [&str; 3] = ["events", "monitoredEvents", "$schema"];
const INFO_KEYS: [&str; 6] = ["id", "description", "severity", "attack", "tags", "runbook"];
/// Keys of the rule language that this version does not read. Ignoring one would change what a rule means.
const LATER_KEYS: [&str; 5] = ["pattern", "unless", "group", "mode", "threshold"];
const LATER_FILE_KEYS: [&str; 2] = ["lists", "tests"];

pub(super) fn parse(text: &str) -> Result<Vec<Rule>, RuleErrors> {
    let refuse = |line, message: String| RuleErrors {
        errors: vec![RuleError { rule: None, path: "$".to_owned(), line, message }],
    };
    if text.len() > MAX_FILE_BYTES {
        let size = text.len();
        return Err(refuse(1, format!("the file has {size} bytes; at most {MAX_FILE_BYTES} are read")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(refuse(1, "the file is empty; write {\"events\": [...]}".to_owned()));
    }
    let (document, root) = Document::parse(text).map_err(|error| {
        refuse(error.line().max(1), format!("not valid JSON at column {}: {}", error.column(), reason(&error)))
    })?;
    let mut reader = Reader { document, ids: HashMap::new(), found: Vec::new() };
    let rules = reader.file(root);
    reader.finish(rules)
}

/// Collects rules and errors side by side, so that one wrong rule does not hide the next.
struct Reader<'a> {
    document: Document<'a>,
    /// Each id, and the line of the rule that has it.
    ids: HashMap<String, usize>,
    found: Vec<(Position, RuleError)>,
}

/// Where the reader stands: what an error is told with.
#[derive(Clone)]
struct Place {
    rule: Option<String>,
    path: String,
    at: Position,
}

impl<'a> Reader<'a> {
    fn finish(mut self, rules: Vec<Rule>) -> Result<Vec<Rule>, RuleErrors> {
        if self.found.is_empty() {
            return Ok(rules);
        }
        self.found.sort_by_key(|(at, _)| *at);
        let more = self.found.len().saturating_sub(MAX_ERRORS);
        let mut errors: Vec<_> = self.found.into_iter().map(|(_, error)| error).take(MAX_ERRORS).collect();
        if more > 0
            && let Some(last) = errors.last_mut()
        {
            last.message.push_str(&format!(" (and {more} more errors after this one)"));
        }
        Err(RuleErrors { errors })
    }

    fn error(&mut self, place: &Place, message: impl Into<String>) {
        let error = RuleError {
            rule: place.rule.clone(),
            path: place.path.clone(),
            line: self.document.line(place.at),
            message: message.into(),
        };
        self.found.push((place.at, error));
    }

    fn file(&mut self, root: Node<'a>) -> Vec<Rule> {
        let place = Place { rule: None, path: "$".to_owned(), at: self.document.position(root) };
        match self.read(&place, root) {
            Some(Value::Array(elements)) => self.events(&place, "", elements),
            Some(Value::Object(members)) => self.sections(&place, members),
            Some(_) => {
                let kind = root.kind();
                self.error(&place, format!("expected {{\"events\": [...]}} or a list of rules, found {kind}"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn sections(&mut self, root: &Place, members: Vec<Member<'a>>) -> Vec<Rule> {
        let mut rules = None;
        let mut seen = HashMap::new();
        for member in &members {
            let place = Place { rule: None, path: join("", &member.key), at: self.document.position_of(member) };
            if self.is_repeated(&mut seen, &place, &member.key) {
                continue;
            }
            match &*member.key {
                "$schema" => _ = self.text(&place, member.value, MAX_VALUE_BYTES),
                key @ ("events" | "monitoredEvents") => {
                    if rules.is_some() {
                        self.error(&place, "give either \"events\" or \"monitoredEvents\", not both");
                        continue;
                    }
                    rules = Some(match self.read(&place, member.value) {
                        Some(Value::Array(elements)) if key == "events" => self.events(&place, key, elements),
                        Some(Value::Array(elements)) => self.legacy(&place, elements),
                        Some(_) => {
                            let kind = member.value.kind();
                            self.error(&place, format!("expected a list, found {kind}"));
                            Vec::new()
                        }
                        None => Vec::new(),
                    });
                }
                key if LATER_FILE_KEYS.contains(&key) => {
                    self.error(&place, "this version does not support this key; remove it");
                }
                key if is_rule_key(key) => {
                    self.error(&place, "a rule's key at the top of the file; put the rule into {\"events\": [...]}");
                }
                key => self.error(&place, unknown(key, FILE_KEYS)),
            }
        }
        if rules.is_none() {
            self.error(root, "the file has neither \"events\" nor \"monitoredEvents\"");
        }
        rules.unwrap_or_default()
    }

    fn events(&mut self, list: &Place, name: &str, elements: Vec<Node<'a>>) -> Vec<Rule> {
        if !self.has_sane_length(list, &elements) {
            return Vec::new();
        }
        let rules = elements.into_iter().enumerate();
        rules.filter_map(|(index, element)| self.rule(format!("{name}[{index}]"), element)).collect()
    }

    fn has_sane_length(&mut self, list: &Place, elements: &[Node<'a>]) -> bool {
        match elements.len() {
            0 => {
                self.error(list, "no rules: nothing would ever be detected");
                false
            }
            count if count > MAX_RULES => {
                self.error(list, format!("{count} rules; at most {MAX_RULES} are read"));
                false
            }
            _ => true,
        }
    }

    fn rule(&mut self, path: String, node: Node<'a>) -> Option<Rule> {
        let at = self.document.position(node);
        let mut place = Place { rule: None, path, at };
        let members = match self.read(&place, node)? {
            Value::Object(members) => members,
            Value::String(_) => {
                let hint = "a rule is an object; plain event names go into {\"monitoredEvents\": [...]}";
                self.error(&place, hint);
                return None;
            }
            _ => {
                let kind = node.kind();
                self.error(&place, format!("a rule is an object, found {kind}"));
                return None;
            }
        };
        place.rule = id_of(&members);
        let errors_before = self.found.len();
        let mut seen = HashMap::new();
        let (mut id, mut severity, mut description) = (None, None, None);
        let mut conditions = Vec::new();
        for member in &members {
            let here = Place {
                rule: place.rule.clone(),
                path: join(&place.path, &member.key),
                at: self.document.position_of(member),
            };
            if self.is_repeated(&mut seen, &here, &member.key) {
                continue;
            }
            match &*member.key {
                "id" => id = self.id(&here, member.value),
                "severity" => severity = self.severity(&here, member.value),
                "description" => description = self.text(&here, member.value, MAX_DESCRIPTION_BYTES),
                "runbook" => _ = self.text(&here, member.value, MAX_DESCRIPTION_BYTES),
                "attack" | "tags" => _ = self.texts(&here, member.value),
                key if LATER_KEYS.contains(&key) => {
                    self.error(&here, "this version does not support this key; remove it, or the rule");
                }
                key => match Field::ALL.into_iter().find(|field| field.key() == key) {
                    Some(field) => {
                        conditions.extend(self.any_of(&here, member.value).map(|any_of| (field, any_of)));
                    }
                    None => {
                        self.error(&here, unknown(key, INFO_KEYS.into_iter().chain(Field::ALL.map(Field::key))));
                    }
                },
            }
        }
        if !seen.contains_key("id") {
            self.error(&place, "the rule has no \"id\"");
        }
        if !seen.contains_key("severity") {
            self.error(&place, format!("the rule has no \"severity\"; give one of {}", severities()));
        }
        let is_condition = |key: &str| LATER_KEYS.contains(&key) || Field::ALL.iter().any(|field| field.key() == key);
        if !seen.keys().any(|key| is_condition(key)) {
            let fields = Field::ALL.map(Field::key).join(", ");
            self.error(&place, format!("the rule has no condition and would match every record; give one of {fields}"));
        }
        if self.found.len() > errors_before {
            return None;
        }
        let id = id?;
        let description = description.unwrap_or_else(|| format!("A record matched the rule {id}"));
        Some(Rule::new(RuleInfo { id, severity: severity?, description }, conditions))
    }

    /// `{"monitoredEvents": ["EventName", ...]}`: each name is a rule.
    fn legacy(&mut self, list: &Place, elements: Vec<Node<'a>>) -> Vec<Rule> {
        if !self.has_sane_length(list, &elements) {
            return Vec::new();
        }
        let mut rules = Vec::new();
        let mut names = HashMap::new();
        for (index, element) in elements.into_iter().enumerate() {
            let at = self.document.position(element);
            let place = Place { rule: None, path: format!("{}[{index}]", list.path), at };
            if element.kind() == "an object" {
                self.error(&place, "expected an event name; rules go into {\"events\": [...]}");
                continue;
            }
            let Some(name) = self.text(&place, element, MAX_VALUE_BYTES) else {
                continue;
            };
            // The same name again asks for nothing new.
            if names.insert(name.clone(), index).is_some() {
                continue;
            }
            let id = legacy_id(&name);
            let place = Place { rule: Some(bounded(&id)), ..place };
            if !self.is_new_id(&place, &id) {
                continue;
            }
            let description = format!("The event {name} occurred");
            let conditions = vec![(Field::EventName, AnyOf::new(vec![name]))];
            rules.push(Rule::new(RuleInfo { id, severity: Severity::Medium, description }, conditions));
        }
        rules
    }

    fn id(&mut self, place: &Place, node: Node<'a>) -> Option<String> {
        let id = self.text(place, node, MAX_VALUE_BYTES)?;
        self.is_new_id(place, &id).then_some(id)
    }

    fn is_new_id(&mut self, place: &Place, id: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.len() > MAX_ID_BYTES || !id.bytes().all(allowed) {
            let shown = bounded(id);
            let message = format!("the id {shown:?} must be 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 . _ -");
            self.error(place, message);
            return false;
        }
        let line = self.document.line(place.at);
        if let Some(first) = self.ids.get(id) {
            let message = format!("the id \"{id}\" on line {line} is already taken by the rule on line {first}");
            self.error(place, message);
            return false;
        }
        self.ids.insert(id.to_owned(), line);
        true
    }

    fn severity(&mut self, place: &Place, node: Node<'a>) -> Option<Severity> {
        let text = self.text(place, node, MAX_VALUE_BYTES)?;
        let named = Severity::ALL.into_iter().find(|severity| severity.as_str() == text);
        if named.is_none() {
            let alike = Severity::ALL.into_iter().find(|severity| severity.as_str().eq_ignore_ascii_case(&text));
            let shown = bounded(&text);
            self.error(
                place,
                match alike {
                    Some(severity) => format!("severities are written in capitals: \"{severity}\", not {shown:?}"),
                    None => format!("{shown:?} is no severity; give one of {}", severities()),
                },
            );
        }
        named
    }

    /// A string, or a list of strings: any of them.
    fn any_of(&mut self, place: &Place, node: Node<'a>) -> Option<AnyOf> {
        let values = match self.read(place, node)? {
            Value::String(_) => vec![self.text(place, node, MAX_VALUE_BYTES)?],
            Value::Array(_) => self.texts(place, node)?,
            _ => {
                let kind = node.kind();
                self.error(place, format!("expected a string or a list of strings, found {kind}"));
                return None;
            }
        };
        Some(AnyOf::new(values))
    }

    fn texts(&mut self, place: &Place, node: Node<'a>) -> Option<Vec<String>> {
        let elements = match self.read(place, node)? {
            Value::Array(elements) => elements,
            _ => {
                let kind = node.kind();
                self.error(place, format!("expected a list of strings, found {kind}"));
                return None;
            }
        };
        if elements.is_empty() {
            self.error(place, "the list is empty; leave the key out, or name a value");
            return None;
        }
        let mut texts = Vec::with_capacity(elements.len());
        let mut complete = true;
        for (index, element) in elements.into_iter().enumerate() {
            let here = Place {
                rule: place.rule.clone(),
                path: format!("{}[{index}]", place.path),
                at: self.document.position(element),
            };
            match self.text(&here, element, MAX_VALUE_BYTES) {
                Some(text) => texts.push(text),
                None => complete = false,
            }
        }
        complete.then_some(texts)
    }

    /// A string of 1 to `max` bytes.
    fn text(&mut self, place: &Place, node: Node<'a>, max: usize) -> Option<String> {
        let Value::String(text) = self.read(place, node)? else {
            let kind = node.kind();
            self.error(place, format!("expected a string, found {kind}"));
            return None;
        };
        if text.is_empty() {
            self.error(place, "the string is empty; leave the key out, or name a value");
            return None;
        }
        if text.len() > max {
            let size = text.len();
            self.error(place, format!("the string has {size} bytes; at most {max} are allowed"));
            return None;
        }
        Some(text.into_owned())
    }

    fn read(&mut self, place: &Place, node: Node<'a>) -> Option<Value<'a>> {
        match node.read() {
            Ok(value) => Some(value),
            Err(error) => {
                let reason = reason(&error);
                self.error(place, format!("cannot be read: {reason}"));
                None
            }
        }
    }

    fn is_repeated<'k>(&mut self, seen: &mut HashMap<&'k str, usize>, place: &Place, key: &'k str) -> bool {
        let line = self.document.line(place.at);
        if let Some(first) = seen.get(key) {
            let message = format!("the key stands here a second time; the first is on line {first}");
            self.error(place, message);
            return true;
        }
        seen.insert(key, line);
        false
    }
}

/// What the id of a rule says, right or wrong, to name the rule in errors.
fn id_of(members: &[Member<'_>]) -> Option<String> {
    let id = members.iter().find(|member| member.key == "id")?;
    match id.value.read() {
        Ok(Value::String(text)) if !text.is_empty() => Some(bounded(&text)),
        _ => None,
    }
}

/// The name itself where it can be an id. It depends on nothing but the name, since stored items hold it.
fn legacy_id(name: &str) -> String {
    let mut id = String::new();
    for c in name.chars() {
        match c {
            '*' => id.push_str(".any"),
            '?' => id.push_str(".one"),
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => id.push(c),
            _ => id.push('-'),
        }
    }
    id
}

fn is_rule_key(key: &str) -> bool {
    INFO_KEYS.contains(&key) || LATER_KEYS.contains(&key) || Field::ALL.iter().any(|field| field.key() == key)
}

fn severities() -> String {
    Severity::ALL.map(Severity::as_str).join(", ")
}

/// `serde_json`'s reason without its position, which is told in the error's own way.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

fn unknown(key: &str, known: impl IntoIterator<Item = &'static str>) -> String {
    match nearest(key, known) {
        Some(near) => format!("unknown key; did you mean \"{near}\"?"),
        None => "unknown key; remove it".to_owned(),
    }
}

/// The known key that takes the fewest edits, if these are few.
fn nearest(key: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    if key.len() > MAX_ID_BYTES {
        return None;
    }
    let wanted = key.to_ascii_lowercase();
    let ranked = known.into_iter().map(|candidate| (distance(&wanted, &candidate.to_ascii_lowercase()), candidate));
    let (edits, candidate) = ranked.min_by_key(|(edits, _)| *edits)?;
    (edits <= candidate.len().div_ceil(3)).then_some(candidate)
}

/// Levenshtein's, a row at a time.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut next = vec![before];
        for (r, above) in right.chars().zip(row.iter().skip(1)) {
            before = (diagonal + usize::from(l != r)).min(before + 1).min(above + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// The path of a member; a key that is no plain word is quoted, escaped and cut.
fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '-');
    if key.is_empty() || key.len() > MAX_ID_BYTES || !key.chars().all(plain) {
        return format!("{path}[{:?}]", bounded(key));
    }
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn bounded(text: &str) -> String {
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(MAX_ID_BYTES).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}
