//! From the text of `monitored_events.json` to rules, or to everything that is wrong with it.

use std::collections::HashMap;

use super::condition::{AnyOf, Field, Rule};
use super::document::{Document, Member, Node, Position, Value};
use super::suggest::nearest;
use super::{RuleError, RuleErrors, RuleInfo, Severity};

const MAX_FILE_BYTES: usize = 16 << 20;
const MAX_RULES: usize = 10_000;
/// An id is a metrics label, an element of a string set, and part of a message attribute.
const MAX_ID_BYTES: usize = 64;
const MAX_VALUE_BYTES: usize = 1_024;
const MAX_DESCRIPTION_BYTES: usize = 2_048;
const MAX_ERRORS: usize = 1_000;

const FILE_KEYS: [&str; 3] = ["events", "monitoredEvents", "$schema"];
pub(super) const INFO_KEYS: [&str; 6] = ["id", "description", "severity", "attack", "tags", "runbook"];
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
            last.message = format!("{} (and {more} more errors after this one)", last.message);
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
            Some(Value::Object(members)) => self.sections(&place, &members),
            Some(_) => {
                let kind = root.kind();
                self.error(&place, format!("expected {{\"events\": [...]}} or a list of rules, found {kind}"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn sections(&mut self, root: &Place, members: &[Member<'a>]) -> Vec<Rule> {
        let mut rules = None;
        let mut seen = HashMap::new();
        for member in members {
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
        Some(Rule::new(RuleInfo::new(id, severity?, description), conditions))
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
            if id.len() > MAX_ID_BYTES {
                self.error(&place, "the name is too long to be an id; write it as a rule in {\"events\": [...]}");
                continue;
            }
            let place = Place { rule: Some(id.clone()), ..place };
            if !self.is_new_id(&place, &id) {
                continue;
            }
            let description = format!("The event {name} occurred");
            let conditions = vec![(Field::EventName, AnyOf::new(vec![name]))];
            rules.push(Rule::new(RuleInfo::new(id, Severity::Medium, description), conditions));
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
        let Value::Array(elements) = self.read(place, node)? else {
            let kind = node.kind();
            self.error(place, format!("expected a list of strings, found {kind}"));
            return None;
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
    match text.strip_suffix(&position).unwrap_or(&text) {
        "key must be a string" => {
            "expected a key in double quotes (JSON has no trailing commas and no comments)".into()
        }
        "expected value" => "expected a value (JSON has no comments and no single quotes)".into(),
        "unexpected end of hex escape" => "half of a surrogate pair (\\ud800 to \\udfff)".into(),
        reason => reason.to_owned(),
    }
}

fn unknown(key: &str, known: impl IntoIterator<Item = &'static str>) -> String {
    match nearest(key, known) {
        Some(near) => format!("unknown key; did you mean \"{near}\"?"),
        None => "unknown key; remove it".to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::RuleSet;

    fn errors(text: &str) -> String {
        RuleSet::parse(text).expect_err("the file is wrong").to_string()
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_rule_path_and_line() {
        let text = r#"{
  "$schema": 7,
  "evnts": [],
  "lists": {},
  "severity": "HIGH",
  "events": [
    { "id": "good", "severity": "LOW", "eventName": "A" },
    "ConsoleLogin",
    null,
    { "severity": "high", "eventName": [] },
    {
      "id": "has spaces",
      "severity": "SEVERE",
      "eventname": "A",
      "eventSource":
        "",
      "errorCode": [
        "A",
        7,
        ""
      ],
      "resourceType": null,
      "userIdentityType": { "anything-but": "Root" }
    },
    { "id": "good", "severity": ["LOW"], "eventName": "A" },
    { "id": "nothing-asked", "severity": "LOW", "description": "d", "tags": "one", "attack": ["T1098", 1] },
    { "id": "later", "severity": "LOW",
      "pattern": {}, "unless": [], "group": {}, "mode": "shadow", "threshold": 3 },
    { "id": "twice", "severity": "LOW", "eventName": "A",
      "eventNam\u0065": "B",
      "quite other": 1, "x\u001b[0m\ny": 2 },
    { "id": "", "severity": "LOW", "runbook": 3, "eventName": "\ud800" },
    {}
  ]
}"#;
        insta::assert_snapshot!(errors(text), @r#"
        line 2: $schema: expected a string, found a number
        line 3: evnts: unknown key; did you mean "events"?
        line 4: lists: this version does not support this key; remove it
        line 5: severity: a rule's key at the top of the file; put the rule into {"events": [...]}
        line 8: events[1]: a rule is an object; plain event names go into {"monitoredEvents": [...]}
        line 9: events[2]: a rule is an object, found null
        line 10: events[3]: the rule has no "id"
        line 10: events[3].severity: severities are written in capitals: "HIGH", not "high"
        line 10: events[3].eventName: the list is empty; leave the key out, or name a value
        line 12: events[4].id (rule "has spaces"): the id "has spaces" must be 1 to 64 of A-Z a-z 0-9 . _ -
        line 13: events[4].severity (rule "has spaces"): "SEVERE" is no severity; give one of LOW, MEDIUM, HIGH, CRITICAL
        line 14: events[4].eventname (rule "has spaces"): unknown key; did you mean "eventName"?
        line 15: events[4].eventSource (rule "has spaces"): the string is empty; leave the key out, or name a value
        line 19: events[4].errorCode[1] (rule "has spaces"): expected a string, found a number
        line 20: events[4].errorCode[2] (rule "has spaces"): the string is empty; leave the key out, or name a value
        line 22: events[4].resourceType (rule "has spaces"): expected a string or a list of strings, found null
        line 23: events[4].userIdentityType (rule "has spaces"): expected a string or a list of strings, found an object
        line 25: events[5].id (rule "good"): the id "good" on line 25 is already taken by the rule on line 7
        line 25: events[5].severity (rule "good"): expected a string, found a list
        line 26: events[6] (rule "nothing-asked"): the rule has no condition and would match every record; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType
        line 26: events[6].tags (rule "nothing-asked"): expected a list of strings, found a string
        line 26: events[6].attack[1] (rule "nothing-asked"): expected a string, found a number
        line 28: events[7].pattern (rule "later"): this version does not support this key; remove it, or the rule
        line 28: events[7].unless (rule "later"): this version does not support this key; remove it, or the rule
        line 28: events[7].group (rule "later"): this version does not support this key; remove it, or the rule
        line 28: events[7].mode (rule "later"): this version does not support this key; remove it, or the rule
        line 28: events[7].threshold (rule "later"): this version does not support this key; remove it, or the rule
        line 30: events[8].eventName (rule "twice"): the key stands here a second time; the first is on line 29
        line 31: events[8]["quite other"] (rule "twice"): unknown key; remove it
        line 31: events[8]["x\u{1b}[0m\ny"] (rule "twice"): unknown key; remove it
        line 32: events[9].id: the string is empty; leave the key out, or name a value
        line 32: events[9].runbook: expected a string, found a number
        line 32: events[9].eventName: cannot be read: half of a surrogate pair (\ud800 to \udfff)
        line 33: events[10]: the rule has no "id"
        line 33: events[10]: the rule has no "severity"; give one of LOW, MEDIUM, HIGH, CRITICAL
        line 33: events[10]: the rule has no condition and would match every record; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType
        "#);
    }

    #[test]
    fn the_top_of_the_file_is_one_of_three_forms() {
        let all: Vec<String> = [
            "",
            " \n",
            "\u{feff}",
            "7",
            "\"events\"",
            "null",
            "{}",
            "[]",
            "{\"events\": []}",
            "{\"events\": {}}",
            "{\"events\": null}",
            "{\"monitoredEvents\": \"A\"}",
            "{\"monitoredEvents\": []}",
            "{\"events\": [{\"id\": \"a\", \"severity\": \"LOW\", \"eventName\": \"A\"}], \"monitoredEvents\": [\"A\"]}",
            "{\"events\": [],\n\"events\": []}",
        ]
        .into_iter()
        .map(|text| format!("{text:?}\n{}", errors(text)))
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        ""
        line 1: $: the file is empty; write {"events": [...]}

        " \n"
        line 1: $: the file is empty; write {"events": [...]}

        "\u{feff}"
        line 1: $: the file is empty; write {"events": [...]}

        "7"
        line 1: $: expected {"events": [...]} or a list of rules, found a number

        "\"events\""
        line 1: $: expected {"events": [...]} or a list of rules, found a string

        "null"
        line 1: $: expected {"events": [...]} or a list of rules, found null

        "{}"
        line 1: $: the file has neither "events" nor "monitoredEvents"

        "[]"
        line 1: $: no rules: nothing would ever be detected

        "{\"events\": []}"
        line 1: events: no rules: nothing would ever be detected

        "{\"events\": {}}"
        line 1: events: expected a list, found an object

        "{\"events\": null}"
        line 1: events: expected a list, found null

        "{\"monitoredEvents\": \"A\"}"
        line 1: monitoredEvents: expected a list, found a string

        "{\"monitoredEvents\": []}"
        line 1: monitoredEvents: no rules: nothing would ever be detected

        "{\"events\": [{\"id\": \"a\", \"severity\": \"LOW\", \"eventName\": \"A\"}], \"monitoredEvents\": [\"A\"]}"
        line 1: monitoredEvents: give either "events" or "monitoredEvents", not both

        "{\"events\": [],\n\"events\": []}"
        line 1: events: no rules: nothing would ever be detected
        line 2: events: the key stands here a second time; the first is on line 1
        "#);
    }

    #[test]
    fn broken_json_is_told_with_line_and_column() {
        let all: Vec<String> = [
            "{\"events\": [\n  {\"id\": \"a\",}\n]}",
            "{\"events\": [\n  {\"id\" \"a\"}\n]}",
            "{\"events\": [\n  {\"id\": 'a'}\n]}",
            "[\n// a comment\n]",
            "{\"events\": [",
            "[] x",
            "{\"events\": [\"a\nb\"]}",
        ]
        .into_iter()
        .map(errors)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        line 2: $: not valid JSON at column 14: expected a key in double quotes (JSON has no trailing commas and no comments)
        line 2: $: not valid JSON at column 9: expected `:`
        line 2: $: not valid JSON at column 10: expected a value (JSON has no comments and no single quotes)
        line 2: $: not valid JSON at column 1: expected a value (JSON has no comments and no single quotes)
        line 1: $: not valid JSON at column 12: EOF while parsing a list
        line 1: $: not valid JSON at column 4: trailing characters
        line 1: $: not valid JSON at column 14: control character (\u0000-\u001F) found while parsing a string
        "#);
    }

    #[test]
    fn legacy_names_become_rules() {
        let text = r#"{"monitoredEvents": ["ConsoleLogin", "Delete*", "ConsoleLogin", "Get?", "Glue - Start"]}"#;
        let rules = RuleSet::parse(text).unwrap();
        let told: Vec<_> = rules.rules().iter().map(|r| format!("{} {} {}", r.id, r.severity, r.description)).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        ConsoleLogin MEDIUM The event ConsoleLogin occurred
        Delete.any MEDIUM The event Delete* occurred
        Get.one MEDIUM The event Get? occurred
        Glue---Start MEDIUM The event Glue - Start occurred
        "#);
        let mut matcher = crate::rules::Matcher::new(std::sync::Arc::new(rules));
        assert_eq!(matcher.matches(br#"{"eventName":"DeleteTrail"}"#)[0].id, "Delete.any");
        assert!(matcher.matches(br#"{"eventName":"Trail"}"#).is_empty());
    }

    #[test]
    fn legacy_entries_that_are_no_names_are_errors() {
        let text = format!(
            "{{\"monitoredEvents\": [\n\"A b\",\n\"A-b\",\n7,\n\"\",\n{{\"id\": \"x\"}},\n\"{}\"]}}",
            "x".repeat(65)
        );
        insta::assert_snapshot!(errors(&text), @r#"
        line 3: monitoredEvents[1] (rule "A-b"): the id "A-b" on line 3 is already taken by the rule on line 2
        line 4: monitoredEvents[2]: expected a string, found a number
        line 5: monitoredEvents[3]: the string is empty; leave the key out, or name a value
        line 6: monitoredEvents[4]: expected an event name; rules go into {"events": [...]}
        line 7: monitoredEvents[5]: the name is too long to be an id; write it as a rule in {"events": [...]}
        "#);
    }

    #[test]
    fn a_rule_may_leave_out_its_description_and_carry_metadata() {
        let text = r#"[{"id": "a.B_c-1", "severity": "LOW", "eventName": "A",
            "attack": ["T1098.001"], "tags": ["x"], "runbook": "https://example.com/runbook"}]"#;
        let rules = RuleSet::parse(text).unwrap();
        assert_eq!(rules.rules()[0].description, "A record matched the rule a.B_c-1");
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(errors(&" ".repeat(MAX_FILE_BYTES + 1)).contains("16777217 bytes; at most 16777216"));
        let many = format!("[{}0]", "0,".repeat(MAX_RULES));
        assert_eq!(errors(&many), "line 1: $: 10001 rules; at most 10000 are read");
        let rule = |id: &str, name: &str| format!(r#"[{{"id": "{id}", "severity": "LOW", "eventName": "{name}"}}]"#);
        assert!(RuleSet::parse(&rule(&"i".repeat(64), &"n".repeat(1_024))).is_ok());
        assert!(errors(&rule(&"i".repeat(65), "n")).contains("1 to 64"));
        assert!(errors(&rule("i", &"n".repeat(1_025))).contains("1025 bytes; at most 1024"));
        // Not every one of ten thousand errors helps.
        let wrong = format!("[{}0]", "0,\n".repeat(MAX_RULES - 1));
        let told = RuleSet::parse(&wrong).unwrap_err().errors;
        assert_eq!((told.len(), told.last().unwrap().line), (MAX_ERRORS, MAX_ERRORS));
        assert!(told.last().unwrap().message.ends_with("(and 9000 more errors after this one)"));
        // Depth costs nothing: what is not read is not descended into.
        assert!(errors(&format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))).contains("found a list"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in "[\\[\\]{}\",:a\\\\u0 \n]{0,60}") {
            let _ = RuleSet::parse(&text);
        }

        #[test]
        fn an_error_names_the_line_of_the_wrong_value(before in 0_usize..5, breaks in prop::collection::vec(0_usize..4, 8)) {
            let gap = |i: usize| "\n".repeat(breaks[i]);
            let good: String = (0..before)
                .map(|i| "{\"id\": \"ID\", \"severity\": \"LOW\", \"eventName\": \"A\"},\n".replace("ID", &i.to_string()))
                .collect();
            let start = format!(
                "{}[{}{good}{}{{{}\"id\":{}\"bad\", \"eventName\": \"A\",{}",
                gap(0), gap(1), gap(2), gap(3), gap(4), gap(5)
            );
            let line = start.matches('\n').count() + 1;
            let text = format!("{start}\"severity\":{}\"NO\"{}}}]", gap(6), gap(7));
            let told = RuleSet::parse(&text).unwrap_err().errors;
            prop_assert_eq!(told.len(), 1);
            prop_assert_eq!(told[0].line, line);
            prop_assert_eq!(&told[0].path, &format!("[{before}].severity"));
            prop_assert_eq!(told[0].rule.as_deref(), Some("bad"));
        }
    }
}
