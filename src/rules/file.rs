//! From the text of `monitored_events.json` to rules as they are written, or to everything that is wrong with it.

pub(super) mod correlations;

use std::collections::HashMap;
use std::sync::Arc;

use time::Date;
use time::macros::format_description;

use self::correlations::{Beside, SEQUENCE_KEYS};
use super::condition::{AnyOf, Body, Exception, Field, Rule};
use super::dismissal::asks;
use super::document::{Member, Node, Value};
use super::pattern::{Compiled, Lists, Pattern, value_conditions};
use super::reader::{Complaint, MAX_VALUE_BYTES, Place, Reader, bounded, unknown};
use super::{BUILT_IN_LISTS, Diagnostic, Group, Mode, RuleInfo, Severity, Surroundings};
use crate::cloudtrail::json;

const MAX_RULES: usize = 10_000;
/// An id is a metrics label, an element of a string set, and part of a message attribute.
const MAX_ID_BYTES: usize = 64;
const MAX_TITLE_BYTES: usize = 128;
const MAX_DESCRIPTION_BYTES: usize = 2_048;
const MAX_EXCEPTIONS: usize = 100;
const MAX_LIST_VALUES: usize = 10_000;
/// What all ways of all patterns ask for, in sum: 16 MiB.
const MAX_WANTS: usize = 1 << 20;

pub(super) const FILE_KEYS: [&str; 4] = ["events", "monitoredEvents", "lists", "$schema"];
/// What a rule may say of itself.
pub(super) const INFO_KEYS: [&str; 11] = [
    "id",
    "title",
    "description",
    "check",
    "severity",
    "author",
    "references",
    "attack",
    "attackVersion",
    "tags",
    "runbook",
];
pub(super) const RULE_KEYS: [&str; 11] = [
    "pattern",
    "unless",
    "group",
    "mode",
    "threshold",
    "sequence",
    "first_seen",
    "by",
    "window",
    "max_keys",
    "max_events",
];
/// What makes events count together; a rule has one of them at most.
const TOGETHER_KEYS: [&str; 4] = ["group", "threshold", "sequence", "first_seen"];
pub(super) const EXCEPTION_KEYS: [&str; 3] = ["pattern", "reason", "until"];
/// A rule file as it was read.
#[derive(Default)]
pub(super) struct File {
    /// In the order of the file.
    pub(super) drafts: Vec<Draft>,
    /// What the lists hold, for the hash.
    pub(super) lists: Vec<(String, String)>,
}

/// A rule with the places of its parts.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) info: RuleInfo,
    pub(super) place: Place,
    pub(super) body: DraftBody,
    pub(super) exceptions: Vec<DraftException>,
}

/// What must hold.
#[derive(Clone)]
pub(super) struct DraftBody {
    pub(super) plain: Vec<PlainCondition>,
    pub(super) pattern: Option<DraftPattern>,
    /// Of a sequence: what each step asks for. The pattern asks for any of them.
    pub(super) steps: Vec<Compiled>,
}

#[derive(Clone)]
pub(super) struct PlainCondition {
    pub(super) field: Field,
    pub(super) place: Place,
    /// Each with its own place; never empty.
    pub(super) values: Vec<(String, Place)>,
}

#[derive(Clone)]
pub(super) struct DraftPattern {
    pub(super) place: Place,
    pub(super) written: Pattern,
    pub(super) compiled: Compiled,
    /// Its canonical JSON.
    pub(super) text: String,
}

#[derive(Clone)]
pub(super) struct DraftException {
    pub(super) place: Place,
    pub(super) body: DraftBody,
    pub(super) reason: String,
    /// The last day, UTC.
    pub(super) until: Option<(Date, Place)>,
}

/// Reads a file and calls `examine` for what it says, before everything found so far is told.
pub(super) fn read(
    text: &str,
    surroundings: &Surroundings,
    examine: impl FnOnce(&File, &mut Reader<'_>),
) -> (File, Vec<Diagnostic>) {
    let (reader, root) = match Reader::open(text, "{\"events\": [...]}") {
        Ok(opened) => opened,
        Err(refused) => return (File::default(), vec![refused]),
    };
    let mut rules = Rules { reader, ids: HashMap::new(), lists: Lists::new(), told: Vec::new(), wants: 0 };
    rules.built_in_lists(surroundings);
    let drafts = rules.file(root);
    let file = File { drafts, lists: rules.told };
    examine(&file, &mut rules.reader);
    (file, rules.reader.finish())
}

struct Rules<'a> {
    reader: Reader<'a>,
    /// Each id, and the line of the rule that has it.
    ids: HashMap<String, usize>,
    lists: Lists,
    told: Vec<(String, String)>,
    wants: usize,
}

impl<'a> Rules<'a> {
    /// What the configuration says of the lists that are always there.
    fn built_in_lists(&mut self, surroundings: &Surroundings) {
        for name in BUILT_IN_LISTS {
            let values = surroundings.lists.get(name).cloned().unwrap_or_default();
            self.add_list(name, values);
        }
    }

    fn add_list(&mut self, name: &str, values: Vec<serde_json::Value>) {
        let text = serde_json::Value::from(values).to_string();
        let tests = Reader::open(&text, "[...]").ok().and_then(|(mut reader, root)| {
            let place = reader.root(root);
            value_conditions(&mut reader, &place, root)
        });
        self.lists.insert(name.to_owned(), tests.unwrap_or_default().into());
        self.told.push((name.to_owned(), json::canonical(text.as_bytes())));
    }

    fn file(&mut self, root: Node<'a>) -> Vec<Draft> {
        let place = self.reader.root(root);
        match self.reader.read(&place, root) {
            Some(Value::Array(elements)) => self.events(&place, "", elements),
            Some(Value::Object(_)) => self.sections(&place, root),
            Some(_) => {
                let kind = root.kind();
                self.reader.error(&place, format!("expected {{\"events\": [...]}} or a list of rules, found {kind}"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn sections(&mut self, root: &Place, node: Node<'a>) -> Vec<Draft> {
        let Some(members) = self.reader.object(root, node, "an object") else {
            return Vec::new();
        };
        // Rules name lists, wherever these stand.
        if let Some((place, member)) = members.iter().find(|(_, member)| member.key == "lists") {
            self.named_lists(place, member.value);
        }
        let mut rules = None;
        for (place, member) in &members {
            match &*member.key {
                "lists" => {}
                "$schema" => _ = self.reader.text(place, member.value, MAX_VALUE_BYTES),
                "events" | "monitoredEvents" if rules.is_some() => {
                    self.reader.error(place, "give either \"events\" or \"monitoredEvents\", not both");
                }
                key @ ("events" | "monitoredEvents") => {
                    let elements = self.reader.list(place, member.value, "a list");
                    rules = Some(elements.map_or_else(Vec::new, |elements| match key {
                        "events" => self.events(place, key, elements),
                        _ => self.legacy(place, elements),
                    }));
                }
                "tests" => {
                    let advice = "put them into a file of their own, such as monitored_events.tests.json";
                    self.reader.error(place, Complaint::new("tests do not stand in the rule file", advice));
                }
                key if is_rule_key(key) => {
                    let advice = "put the rule into {\"events\": [...]}";
                    self.reader.error(place, Complaint::new("a rule's key at the top of the file", advice));
                }
                key => self.reader.error(place, unknown(key, FILE_KEYS)),
            }
        }
        if rules.is_none() {
            self.reader.error(root, "the file has neither \"events\" nor \"monitoredEvents\"");
        }
        rules.unwrap_or_default()
    }

    fn named_lists(&mut self, place: &Place, node: Node<'a>) {
        let Some(members) = self.reader.object(place, node, "an object of lists") else {
            return;
        };
        for (here, member) in members {
            if member.key.starts_with("trailhound.") {
                let advice = "choose a name that does not begin with \"trailhound.\"";
                self.reader.error(&here, Complaint::new("these lists are filled from the configuration", advice));
                continue;
            }
            let tests = value_conditions(&mut self.reader, &here, member.value);
            match tests.as_ref().map(Vec::len) {
                Some(0) => {
                    let advice = "name a value, or remove the list and what uses it";
                    self.reader.error(&here, Complaint::new("the list is empty: nothing is in it", advice));
                }
                Some(count) if count > MAX_LIST_VALUES => {
                    self.reader.error(&here, format!("{count} values; at most {MAX_LIST_VALUES} are read"));
                }
                _ => {}
            }
            // A list that is wrong is told once, and not again wherever it is named.
            self.lists.insert(member.key.to_string(), tests.unwrap_or_default().into());
            self.told.push((member.key.to_string(), json::canonical(member.value.text().as_bytes())));
        }
    }

    fn events(&mut self, list: &Place, name: &str, elements: Vec<Node<'a>>) -> Vec<Draft> {
        if !self.has_sane_length(list, &elements) {
            return Vec::new();
        }
        let rules = elements.into_iter().enumerate();
        rules.filter_map(|(index, element)| self.rule(format!("{name}[{index}]"), element)).collect()
    }

    fn has_sane_length(&mut self, list: &Place, elements: &[Node<'a>]) -> bool {
        match elements.len() {
            0 => {
                self.reader.error(list, "no rules: nothing would ever be detected");
                false
            }
            count if count > MAX_RULES => {
                self.reader.error(list, format!("{count} rules; at most {MAX_RULES} are read"));
                false
            }
            _ => true,
        }
    }

    fn rule(&mut self, path: String, node: Node<'a>) -> Option<Draft> {
        let mut place = Place { rule: None, path, at: self.reader.position(node) };
        match self.reader.read(&place, node)? {
            Value::Object(members) => place.rule = id_of(&members),
            Value::String(_) => {
                let advice = "plain event names go into {\"monitoredEvents\": [...]}";
                self.reader.error(&place, Complaint::new("a rule is an object", advice));
                return None;
            }
            _ => {
                let kind = node.kind();
                self.reader.error(&place, format!("a rule is an object, found {kind}"));
                return None;
            }
        }
        let errors_before = self.reader.errors();
        let members = self.reader.object(&place, node, "a rule")?;
        let mut info = RuleInfo::new("", Severity::Low, "");
        let (mut id, mut severity, mut exceptions) = (None, None, Vec::new());
        let mut body = DraftBody { plain: Vec::new(), pattern: None, steps: Vec::new() };
        let (mut steps, mut beside) = (None, Beside::default());
        for (here, member) in &members {
            let value = member.value;
            match &*member.key {
                "id" => id = self.id(here, value),
                "title" => info.title = self.reader.text(here, value, MAX_TITLE_BYTES),
                "severity" => severity = self.severity(here, value),
                "description" => {
                    info.description = self.reader.text(here, value, MAX_DESCRIPTION_BYTES).unwrap_or_default();
                }
                "check" => info.check = self.reader.text(here, value, MAX_DESCRIPTION_BYTES),
                "author" => info.author = self.reader.text(here, value, MAX_VALUE_BYTES),
                "attackVersion" => info.attack_version = self.reader.text(here, value, MAX_VALUE_BYTES),
                "runbook" => info.runbook = self.reader.text(here, value, MAX_DESCRIPTION_BYTES),
                "attack" => info.attack = self.attack(here, value),
                "tags" => info.tags = self.reader.texts(here, value).unwrap_or_default(),
                "references" => info.references = self.reader.texts(here, value).unwrap_or_default(),
                "mode" => info.mode = self.mode(here, value).unwrap_or_default(),
                "group" => info.group = self.group(here, value),
                "unless" => exceptions = self.exceptions(here, value),
                "threshold" => info.correlation = self.threshold(here, value),
                "first_seen" => info.correlation = self.first_seen(here, value),
                "sequence" => steps = self.steps(here, value),
                key if SEQUENCE_KEYS.contains(&key) => self.beside(&mut beside, here, member),
                key => {
                    if !self.body_key(&mut body, here, member) {
                        let known = INFO_KEYS.into_iter().chain(RULE_KEYS).chain(Field::ALL.map(Field::key));
                        self.reader.error(here, unknown(key, known));
                    }
                }
            }
        }
        let has = |key: &str| members.iter().any(|(_, member)| member.key == key);
        if !has("id") {
            self.reader.error(&place, "the rule has no \"id\"");
        }
        if !has("severity") {
            let advice = format!("give one of {}", severities());
            self.reader.error(&place, Complaint::new("the rule has no \"severity\"", advice));
        }
        if !members.iter().any(|(_, member)| is_condition_key(&member.key)) {
            let message = "the rule has no condition and would match every record";
            self.reader.error(&place, Complaint::new(message, conditions_there_are()));
        }
        let mut together = members.iter().filter(|(_, member)| TOGETHER_KEYS.contains(&&*member.key));
        if let (Some((_, first)), Some((here, _))) = (together.next(), together.next()) {
            let message = format!("the rule has a {:?} already", first.key);
            self.reader.error(here, Complaint::new(message, "keep one of them, or write two rules"));
        }
        let sequence = self.sequence(steps, beside, has("sequence"), &mut body, &place);
        info.correlation = info.correlation.or(sequence);
        if self.reader.errors() > errors_before {
            return None;
        }
        info.id = id?;
        info.severity = severity?;
        if info.description.is_empty() {
            info.description = format!("A record matched the rule {}", info.id);
        }
        Some(Draft { info, place, body, exceptions })
    }

    /// Reads a key that says what must hold; whether it is one.
    fn body_key(&mut self, body: &mut DraftBody, place: &Place, member: &Member<'a>) -> bool {
        if member.key == "pattern" {
            body.pattern = self.pattern(place, member.value);
            return true;
        }
        let Some(field) = Field::ALL.into_iter().find(|field| field.key() == member.key) else {
            return false;
        };
        if let Some(values) = self.any_of(place, member.value) {
            body.plain.push(PlainCondition { field, place: place.clone(), values });
        }
        true
    }

    fn pattern(&mut self, place: &Place, node: Node<'a>) -> Option<DraftPattern> {
        let written = Pattern::read(&mut self.reader, place, node, &self.lists)?;
        if self.wants > MAX_WANTS {
            let message = "the patterns before this one can be met in too many ways, multiplied out and taken together";
            self.reader.error(place, Complaint::new(message, "take fewer $or, and fewer fields that may be absent"));
            return None;
        }
        let compiled = written.compile(&mut self.reader, place)?;
        self.wants = self.wants.saturating_add(compiled.size());
        Some(DraftPattern { place: place.clone(), written, compiled, text: json::canonical(node.text().as_bytes()) })
    }

    fn exceptions(&mut self, place: &Place, node: Node<'a>) -> Vec<DraftException> {
        let Some(elements) = self.reader.list(place, node, "a list of exceptions") else {
            return Vec::new();
        };
        if elements.is_empty() {
            self.reader.error(place, Complaint::new("the list is empty", "leave the key out, or write an exception"));
        }
        if elements.len() > MAX_EXCEPTIONS {
            let count = elements.len();
            self.reader.error(place, format!("{count} exceptions; at most {MAX_EXCEPTIONS} are read"));
            return Vec::new();
        }
        let exceptions = elements.into_iter().enumerate();
        exceptions
            .filter_map(|(index, element)| {
                let here = place.item(index, self.reader.position(element));
                self.exception(here, element)
            })
            .collect()
    }

    fn exception(&mut self, place: Place, node: Node<'a>) -> Option<DraftException> {
        let errors_before = self.reader.errors();
        let members = self.reader.object(&place, node, "an exception, an object")?;
        let mut body = DraftBody { plain: Vec::new(), pattern: None, steps: Vec::new() };
        let (mut reason, mut until) = (None, None);
        for (here, member) in &members {
            match &*member.key {
                "reason" => reason = self.reader.text(here, member.value, MAX_VALUE_BYTES),
                "until" => until = self.date(here, member.value).map(|date| (date, here.clone())),
                key => {
                    if !self.body_key(&mut body, here, member) {
                        self.reader
                            .error(here, unknown(key, EXCEPTION_KEYS.into_iter().chain(Field::ALL.map(Field::key))));
                    }
                }
            }
        }
        if !members.iter().any(|(_, member)| member.key == "reason") {
            let advice = "say why, so that somebody can judge it later";
            self.reader.error(&place, Complaint::new("the exception has no \"reason\"", advice));
        }
        if !members.iter().any(|(_, member)| is_condition_key(&member.key)) {
            let message = "the exception has no condition and would silence the whole rule";
            let advice = format!("{}; to silence the rule, set \"mode\": \"off\"", conditions_there_are());
            self.reader.error(&place, Complaint::new(message, advice));
        }
        if self.reader.errors() > errors_before {
            return None;
        }
        Some(DraftException { place, body, reason: reason?, until })
    }

    fn date(&mut self, place: &Place, node: Node<'a>) -> Option<Date> {
        let text = self.reader.text(place, node, MAX_VALUE_BYTES)?;
        let date = Date::parse(&text, format_description!("[year]-[month]-[day]")).ok();
        if date.is_none() {
            let shown = bounded(&text);
            self.reader
                .error(place, Complaint::new(format!("{shown:?} is no day"), "write year-month-day: \"2027-06-30\""));
        }
        date
    }

    fn mode(&mut self, place: &Place, node: Node<'a>) -> Option<Mode> {
        let text = self.reader.text(place, node, MAX_VALUE_BYTES)?;
        let named = Mode::ALL.into_iter().find(|mode| mode.as_str() == text);
        if named.is_none() {
            let shown = bounded(&text);
            let advice = format!("give one of {}", Mode::ALL.map(Mode::as_str).join(", "));
            self.reader.error(place, Complaint::new(format!("{shown:?} is no mode"), advice));
        }
        named
    }

    fn group(&mut self, place: &Place, node: Node<'a>) -> Option<Group> {
        let members = self.reader.object(place, node, "an object with \"by\" and \"window\"")?;
        let (mut by, mut window) = (None, None);
        for (here, member) in &members {
            match &*member.key {
                "by" => by = self.key_paths(here, member.value),
                "window" => window = self.window(here, member.value),
                key => self.reader.error(here, unknown(key, ["by", "window"])),
            }
        }
        for key in ["by", "window"] {
            if !members.iter().any(|(_, member)| member.key == key) {
                self.reader.error(place, format!("the group has no {key:?}"));
            }
        }
        Some(Group { by: by?, window: window? })
    }

    /// A length of time such as `90s`, `15m`, `1h` or `7d`.
    fn window(&mut self, place: &Place, node: Node<'a>) -> Option<String> {
        let text = self.reader.text(place, node, MAX_VALUE_BYTES)?;
        let number = text.strip_suffix(['s', 'm', 'h', 'd']).filter(|number| number.len() <= 6);
        let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if number.and_then(|number| number.parse::<u32>().ok()).is_none_or(|number| number == 0) {
            let shown = bounded(&text);
            let advice = "write a number and s, m, h or d: \"15m\", \"1h\"";
            self.reader.error(place, Complaint::new(format!("{shown:?} is no length of time"), advice));
            return None;
        }
        Some(text)
    }

    fn attack(&mut self, place: &Place, node: Node<'a>) -> Vec<String> {
        let techniques = self.reader.texts(place, node).unwrap_or_default();
        for technique in &techniques {
            let (main, sub) = technique.split_once('.').unwrap_or((technique, "000"));
            let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
            if !main.strip_prefix('T').is_some_and(|number| digits(number, 4)) || !digits(sub, 3) {
                let message = format!("{:?} is no technique of ATT&CK", bounded(technique));
                self.reader.error(place, Complaint::new(message, "write \"T1098\" or \"T1098.001\""));
            }
        }
        techniques
    }

    /// `{"monitoredEvents": ["EventName", ...]}`: each name is a rule.
    fn legacy(&mut self, list: &Place, elements: Vec<Node<'a>>) -> Vec<Draft> {
        if !self.has_sane_length(list, &elements) {
            return Vec::new();
        }
        let mut rules = Vec::new();
        let mut names = HashMap::new();
        for (index, element) in elements.into_iter().enumerate() {
            let place = list.item(index, self.reader.position(element));
            if element.kind() == "an object" {
                let advice = "rules go into {\"events\": [...]}";
                self.reader.error(&place, Complaint::new("expected an event name", advice));
                continue;
            }
            let Some(name) = self.reader.text(&place, element, MAX_VALUE_BYTES) else {
                continue;
            };
            // The same name again asks for nothing new.
            if names.insert(name.clone(), index).is_some() {
                continue;
            }
            let id = legacy_id(&name);
            if id.len() > MAX_ID_BYTES {
                let advice = "write it as a rule in {\"events\": [...]}";
                self.reader.error(&place, Complaint::new("the name is too long to be an id", advice));
                continue;
            }
            let place = Place { rule: Some(id.clone()), ..place };
            if !self.is_new_id(&place, &id) {
                continue;
            }
            let description = format!("The event {name} occurred");
            let values = vec![(name, place.clone())];
            rules.push(Draft {
                info: RuleInfo::new(id, Severity::Medium, description),
                body: DraftBody {
                    plain: vec![PlainCondition { field: Field::EventName, place: place.clone(), values }],
                    pattern: None,
                    steps: Vec::new(),
                },
                place,
                exceptions: Vec::new(),
            });
        }
        rules
    }

    fn id(&mut self, place: &Place, node: Node<'a>) -> Option<String> {
        let id = self.reader.text(place, node, MAX_VALUE_BYTES)?;
        self.is_new_id(place, &id).then_some(id)
    }

    fn is_new_id(&mut self, place: &Place, id: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.len() > MAX_ID_BYTES || !id.bytes().all(allowed) {
            let shown = bounded(id);
            let message = format!("the id {shown:?} must be 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 . _ -");
            self.reader.error(place, message);
            return false;
        }
        let line = self.reader.line(place.at);
        if let Some(first) = self.ids.get(id) {
            let message = format!("the id \"{id}\" on line {line} is already taken by the rule on line {first}");
            self.reader.error(place, message);
            return false;
        }
        self.ids.insert(id.to_owned(), line);
        true
    }

    fn severity(&mut self, place: &Place, node: Node<'a>) -> Option<Severity> {
        let text = self.reader.text(place, node, MAX_VALUE_BYTES)?;
        let named = Severity::ALL.into_iter().find(|severity| severity.as_str() == text);
        if named.is_none() {
            let alike = Severity::ALL.into_iter().find(|severity| severity.as_str().eq_ignore_ascii_case(&text));
            let shown = bounded(&text);
            let complaint = match alike {
                Some(severity) => {
                    Complaint::from(format!("severities are written in capitals: \"{severity}\", not {shown:?}"))
                }
                None => Complaint::new(format!("{shown:?} is no severity"), format!("give one of {}", severities())),
            };
            self.reader.error(place, complaint);
        }
        named
    }

    /// A string, or a list of strings: any of them.
    fn any_of(&mut self, place: &Place, node: Node<'a>) -> Option<Vec<(String, Place)>> {
        match node.kind() {
            "a string" => Some(vec![(self.reader.text(place, node, MAX_VALUE_BYTES)?, place.clone())]),
            "a list" => {
                let texts = self.reader.texts(place, node)?;
                let elements = self.reader.list(place, node, "a list")?;
                let with_place = |(index, (text, element)): (usize, (String, Node<'a>))| {
                    (text, place.item(index, self.reader.position(element)))
                };
                Some(texts.into_iter().zip(elements).enumerate().map(with_place).collect())
            }
            kind => {
                let message = format!("expected a string or a list of strings, found {kind}");
                if kind == "an object" {
                    let advice = "conditions such as anything-but go into \"pattern\"";
                    self.reader.error(place, Complaint::new(message, advice));
                } else {
                    self.reader.error(place, message);
                }
                None
            }
        }
    }
}

impl Draft {
    /// The rule without its places.
    pub(super) fn rule(self) -> Rule {
        let exceptions = self.exceptions.into_iter().map(|one| Exception {
            until: one.until.map(|(date, _)| date),
            reason: one.reason,
            body: one.body.compiled().0,
        });
        let exceptions = exceptions.collect();
        let (body, steps) = self.body.compiled();
        let asks = asks(&body);
        Rule { info: Arc::new(self.info), body, exceptions, asks, steps }
    }
}

impl PlainCondition {
    /// What it asks for, without places.
    pub(super) fn any_of(&self) -> AnyOf {
        AnyOf::new(self.values.iter().map(|(value, _)| value.clone()).collect())
    }
}

impl DraftBody {
    /// The body, and the steps of its sequence.
    fn compiled(self) -> (Body, Vec<Compiled>) {
        let plain = self.plain.iter().map(|condition| (condition.field, condition.any_of()));
        (Body::new(plain.collect(), self.pattern.map(|pattern| pattern.compiled)), self.steps)
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
    INFO_KEYS.contains(&key) || RULE_KEYS.contains(&key) || is_condition_key(key)
}

fn is_condition_key(key: &str) -> bool {
    key == "pattern" || key == "sequence" || Field::ALL.iter().any(|field| field.key() == key)
}

fn conditions_there_are() -> String {
    format!("give one of {}, pattern", Field::ALL.map(Field::key).join(", "))
}

fn severities() -> String {
    Severity::ALL.map(Severity::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::RuleSet;
    use crate::rules::reader::{MAX_DIAGNOSTICS, MAX_FILE_BYTES};

    fn errors(text: &str) -> String {
        RuleSet::parse(text).expect_err("the file is wrong").to_string()
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_rule_path_and_line() {
        let text = r#"{
  "$schema": 7,
  "evnts": [],
  "lists": { "ours": [], "trailhound.mine": ["x"], "odd": [{ "exists": true }] },
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
      "pattern": {}, "unless": [], "group": {}, "mode": "quiet", "threshold": 3 },
    { "id": "excepted", "severity": "LOW", "eventName": "A", "attack": ["T12"], "group": { "by": ["x"], "window": "0h" }, "unless": [
      { "eventName": "B" }, { "reason": "r", "until": "soon" }, { "reason": "r", "pattern": { "a": ["b"] }, "untill": "2027-01-01" } ] },
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
        line 4: lists.ours: the list is empty: nothing is in it; name a value, or remove the list and what uses it
        line 4: lists["trailhound.mine"]: these lists are filled from the configuration; choose a name that does not begin with "trailhound."
        line 4: lists.odd[0].exists: unknown condition; here only prefix, suffix, equals-ignore-case, wildcard, numeric, cidr, regex, exactly are possible
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
        line 23: events[4].userIdentityType (rule "has spaces"): expected a string or a list of strings, found an object; conditions such as anything-but go into "pattern"
        line 25: events[5].id (rule "good"): the id "good" on line 25 is already taken by the rule on line 7
        line 25: events[5].severity (rule "good"): expected a string, found a list
        line 26: events[6] (rule "nothing-asked"): the rule has no condition and would match every record; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType, pattern
        line 26: events[6].tags (rule "nothing-asked"): expected a list of strings, found a string
        line 26: events[6].attack[1] (rule "nothing-asked"): expected a string, found a number
        line 28: events[7].pattern (rule "later"): the object is empty: it would ask for nothing; name a field, or leave the pattern out
        line 28: events[7].unless (rule "later"): the list is empty; leave the key out, or write an exception
        line 28: events[7].group (rule "later"): the group has no "by"
        line 28: events[7].group (rule "later"): the group has no "window"
        line 28: events[7].mode (rule "later"): "quiet" is no mode; give one of alert, shadow, off
        line 28: events[7].threshold (rule "later"): expected an object with "count", "window" and "by", found a number
        line 28: events[7].threshold (rule "later"): the rule has a "group" already; keep one of them, or write two rules
        line 29: events[8].attack (rule "excepted"): "T12" is no technique of ATT&CK; write "T1098" or "T1098.001"
        line 29: events[8].group.window (rule "excepted"): "0h" is no length of time; write a number and s, m, h or d: "15m", "1h"
        line 30: events[8].unless[0] (rule "excepted"): the exception has no "reason"; say why, so that somebody can judge it later
        line 30: events[8].unless[1] (rule "excepted"): the exception has no condition and would silence the whole rule; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType, pattern; to silence the rule, set "mode": "off"
        line 30: events[8].unless[1].until (rule "excepted"): "soon" is no day; write year-month-day: "2027-06-30"
        line 30: events[8].unless[2].untill (rule "excepted"): unknown key; did you mean "until"?
        line 32: events[9].eventName (rule "twice"): the key stands here a second time; the first is on line 31
        line 33: events[9]["quite other"] (rule "twice"): unknown key; remove it
        line 33: events[9]["x\u{1b}[0m\ny"] (rule "twice"): unknown key; remove it
        line 34: events[10].id: the string is empty; leave the key out, or name a value
        line 34: events[10].runbook: expected a string, found a number
        line 34: events[10].eventName: cannot be read: half of a surrogate pair (\ud800 to \udfff)
        line 35: events[11]: the rule has no "id"
        line 35: events[11]: the rule has no "severity"; give one of LOW, MEDIUM, HIGH, CRITICAL
        line 35: events[11]: the rule has no condition and would match every record; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType, pattern
        "#);
    }

    #[test]
    fn what_is_wrong_with_thresholds_sequences_and_first_seen() {
        let text = r#"[
          { "id": "t1", "severity": "LOW", "eventName": "A", "threshold": { "count": 1, "window": "0m", "by": [], "cuont": 3 } },
          { "id": "t2", "severity": "LOW", "eventName": "A", "threshold": { "count": 2000, "window": "500d", "by": ["a"] } },
          { "id": "t3", "severity": "LOW", "threshold": { "count": 2, "window": "1m", "by": ["a"] } },
          { "id": "f1", "severity": "LOW", "eventName": "A", "first_seen": { "within": "24h", "max_events": 3 } },
          { "id": "s1", "severity": "LOW", "sequence": [{ "eventName": "A" }], "by": ["a"], "window": "1m" },
          { "id": "s2", "severity": "LOW", "sequence": [{ "eventName": "A" }, { "eventNmae": "B", "count": 0 }, { "count": 2 }] },
          { "id": "s3", "severity": "LOW", "eventName": "A", "by": ["a"], "max_keys": "many" },
          { "id": "s4", "severity": "LOW", "sequence": [{ "eventName": "A?" }, { "eventName": "B" }], "by": ["a"], "window": "1m" },
          { "id": "s5", "severity": "LOW", "sequence": [{ "eventName": "A", "count": 600 }, { "pattern": { "b": ["c"] }, "count": 600 }],
            "by": ["a"], "window": "1m" }
        ]"#;
        insta::assert_snapshot!(errors(text), @r#"
        line 2: [0].threshold.count (rule "t1"): expected a whole number from 2 to 5000
        line 2: [0].threshold.window (rule "t1"): "0m" is no length of time; write a number and s, m, h or d: "15m", "1h"
        line 2: [0].threshold.by (rule "t1"): the list is empty; leave the key out, or name a value
        line 2: [0].threshold.cuont (rule "t1"): unknown key; did you mean "count"?
        line 3: [1].threshold (rule "t2"): 2000 events are asked for, and at most 1000 are remembered; raise "max_events"
        line 3: [1].threshold.window (rule "t2"): longer than 400 days
        line 4: [2] (rule "t3"): the rule has no condition and would match every record; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType, pattern
        line 5: [3].first_seen (rule "f1"): first_seen has no "by"
        line 5: [3].first_seen.within (rule "f1"): not a number of days; what was seen is remembered by days: write "30d"
        line 5: [3].first_seen.max_events (rule "f1"): unknown key; remove it
        line 6: [4].sequence (rule "s1"): a sequence has 2 to 8 steps, this has 1; events of a single kind are counted by "threshold"
        line 7: [5] (rule "s2"): the sequence has no "by"; it stands beside "sequence"
        line 7: [5] (rule "s2"): the sequence has no "window"; it stands beside "sequence"
        line 7: [5].sequence[1].eventNmae (rule "s2"): unknown key; did you mean "eventName"?
        line 7: [5].sequence[1].count (rule "s2"): expected a whole number from 1 to 5000
        line 7: [5].sequence[2] (rule "s2"): the step has no condition and would be met by every record; give one of eventSource, eventName, userIdentityType, errorCode, errorMessage, resourceType, pattern
        line 8: [6].by (rule "s3"): this key belongs to "sequence"; "group", "threshold" and "first_seen" hold theirs themselves
        line 8: [6].max_keys (rule "s3"): expected a whole number from 1 to 10000000
        line 9: [7].sequence[0].eventName (rule "s4"): a step reads no wildcard but *; write the step as a "pattern"
        line 10: [8].sequence (rule "s5"): the steps take more than the 1000 events that are remembered; raise "max_events"
        "#);
    }

    #[test]
    fn keys_that_are_too_long_or_have_one_value_are_refused() {
        let wrong = |with: serde_json::Value| {
            let mut rule = serde_json::json!({ "id": "r", "severity": "LOW", "eventName": "A" });
            rule.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
            RuleSet::parse(&serde_json::json!([rule]).to_string()).unwrap_err().to_string()
        };
        let by: Vec<_> = (0..17).map(|number| format!("p{number}")).collect();
        for with in [
            serde_json::json!({ "group": { "by": by, "window": "1h" } }),
            serde_json::json!({ "threshold": { "count": 2, "by": by, "window": "1h" } }),
            serde_json::json!({ "first_seen": { "by": by, "within": "1d" } }),
            serde_json::json!({ "sequence": [{ "eventName": "A" }, { "eventName": "A" }], "by": by, "window": "1h" }),
        ] {
            assert!(wrong(with).contains("17 paths; at most 16 make a key"));
        }
        let one = serde_json::json!({ "threshold": { "count": 2, "by": ["a", "b"], "window": "1h", "distinct": "b" } });
        assert!(wrong(one).contains("all events of a key have one value at this path: never reached"));
    }

    /// Events that met the steps as they were mean something else now.
    #[test]
    fn a_sequence_with_other_steps_is_another_one() {
        let correlation = |first: &str, second: &str| {
            let rule = serde_json::json!({ "id": "s", "severity": "LOW", "eventSource": "x", "window": "1h", "by": ["a"],
                "sequence": [{ "eventName": first }, { "eventName": second }] });
            RuleSet::parse(&serde_json::json!([rule]).to_string()).unwrap().find("s").unwrap().correlation.clone()
        };
        assert_eq!(correlation("A", "B"), correlation("A", "B"));
        assert_ne!(correlation("A", "B"), correlation("B", "A"));
    }

    #[test]
    fn correlations_are_read_with_their_limits() {
        let text = r#"[
          { "id": "t", "severity": "LOW", "eventName": "A",
            "threshold": { "count": 5, "window": "15m", "by": ["a"], "distinct": "b", "max_events": 7 } },
          { "id": "s", "severity": "LOW", "eventSource": "x", "sequence": [{ "eventName": ["A", "B*"], "count": 5 }, { "pattern": { "c": ["d"] } }],
            "by": ["a"], "window": "1h", "max_keys": 3 },
          { "id": "f", "severity": "LOW", "eventName": "A", "first_seen": { "by": ["a", "b"], "within": "30d" } }
        ]"#;
        let rules = RuleSet::parse(text).unwrap();
        let told = |id: &str| serde_json::to_value(&**rules.find(id).unwrap()).unwrap();
        assert_eq!(
            told("t")["threshold"],
            serde_json::json!({ "count": 5, "window": "15m", "by": ["a"], "distinct": "b", "max_keys": 100_000, "max_events": 7 })
        );
        let mut sequence = told("s")["sequence"].clone();
        assert_eq!(sequence.as_object_mut().unwrap().remove("asks").unwrap().as_str().unwrap().len(), 16);
        assert_eq!(
            sequence,
            serde_json::json!({ "steps": [5, 1], "window": "1h", "by": ["a"], "max_keys": 3, "max_events": 1000 })
        );
        assert_eq!(told("f")["first_seen"]["within"], "30d");
        let mut matcher = crate::rules::Matcher::new(std::sync::Arc::new(rules));
        let mut steps = |record: &str| -> Vec<(String, Vec<u8>)> {
            matcher.matches(record.as_bytes()).iter().map(|rule| (rule.id.clone(), rule.steps.clone())).collect()
        };
        let s = |steps: &[u8]| ("s".to_owned(), steps.to_vec());
        assert_eq!(steps(r#"{"eventSource":"x","eventName":"Bee"}"#), [s(&[0])]);
        assert_eq!(steps(r#"{"eventSource":"x","eventName":"C","c":"d"}"#), [s(&[1])]);
        assert_eq!(steps(r#"{"eventSource":"x","eventName":"Bee","c":"d"}"#), [s(&[0, 1])]);
        assert_eq!(steps(r#"{"eventSource":"y","eventName":"Bee","c":"d"}"#), []);
        assert_eq!(steps(r#"{"eventSource":"x","eventName":"C"}"#), []);
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
        // Each can be met in 512 ways of nine fields.
        let fields: Vec<_> = (0..9).map(|i| format!(r#""f{i}": [{{"exists": false}}, "x"]"#)).collect();
        let open = |i: usize| format!(r#"{{"id": "{i}", "severity": "LOW", "pattern": {{{}}}}}"#, fields.join(","));
        let many = |count: usize| format!("[{}]", (0..count).map(open).collect::<Vec<_>>().join(","));
        assert!(RuleSet::parse(&many(200)).is_ok());
        assert!(errors(&many(300)).contains("too many ways"));
        // Not every one of ten thousand errors helps.
        let wrong = format!("[{}0]", "0,\n".repeat(MAX_RULES - 1));
        let told = RuleSet::parse(&wrong).unwrap_err().errors;
        assert_eq!((told.len(), told.last().unwrap().line), (MAX_DIAGNOSTICS, MAX_DIAGNOSTICS));
        assert!(told.last().unwrap().message.ends_with("(and 9000 more after this one)"));
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
