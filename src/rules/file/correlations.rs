//! `threshold`, `sequence` and `first_seen`, as a rule file writes them.

use sha2::{Digest, Sha256};

use super::super::correlation::{Correlation, FirstSeen, Limits, Sequence, Threshold};
use super::super::pattern::{Condition, FieldPattern, Kind, Or, Pattern, Test, wildcard};
use super::super::reader::{Complaint, Place, unknown};
use super::super::wildcard::is_wildcard;
use super::{DraftBody, DraftPattern, Field, Member, Node, Rules};
use crate::alert::hex;
use crate::cloudtrail::json;

pub(in crate::rules) const THRESHOLD_KEYS: [&str; 6] = ["count", "window", "by", "distinct", "max_keys", "max_events"];
pub(in crate::rules) const FIRST_SEEN_KEYS: [&str; 3] = ["by", "within", "max_keys"];
/// What stands beside `sequence`.
pub(in crate::rules) const SEQUENCE_KEYS: [&str; 4] = ["by", "window", "max_keys", "max_events"];
/// Of a step, beside conditions.
pub(in crate::rules) const STEP_KEYS: [&str; 2] = ["pattern", "count"];

/// An event can be in each step of a sequence; a mask tells in which.
const MAX_STEPS: usize = 8;
/// As many as [`MAX_EVENTS`].
const MAX_COUNT: u32 = 5_000;
/// What a bucket's item holds of an event takes under fifty bytes, and the item 400 KB at most.
const MAX_EVENTS: u32 = 5_000;
/// The value at each stands in the item of every bucket.
const MAX_PATHS: usize = 16;
const MAX_KEYS: u32 = 10_000_000;
/// A longer window is more than a replay of all that CloudTrail keeps.
const MAX_WINDOW: u64 = 400 * 86_400;

/// The steps of a sequence: what each must meet, and how many events it takes.
pub(super) struct Steps {
    place: Place,
    patterns: Vec<Pattern>,
    counts: Vec<u32>,
    text: String,
}

/// What may stand beside `sequence`.
#[derive(Default)]
pub(super) struct Beside {
    by: Option<Vec<String>>,
    window: Option<String>,
    limits: Limits,
    /// Where the first of these stands.
    first: Option<Place>,
}

impl<'a> Rules<'a> {
    pub(super) fn threshold(&mut self, place: &Place, node: Node<'a>) -> Option<Correlation> {
        let expected = "an object with \"count\", \"window\" and \"by\"";
        let members = self.reader.object(place, node, expected)?;
        let (mut count, mut window, mut by, mut distinct) = (None, None, None, None);
        let mut limits = Limits::default();
        let errors_before = self.reader.errors();
        for (here, member) in &members {
            match &*member.key {
                "count" => count = self.number(here, member.value, 2, MAX_COUNT),
                "window" => window = self.bounded_window(here, member.value),
                "by" => by = self.key_paths(here, member.value),
                "distinct" => distinct = self.reader.text(here, member.value, super::MAX_VALUE_BYTES),
                "max_keys" | "max_events" => self.limit(&mut limits, here, member),
                key => self.reader.error(here, unknown(key, THRESHOLD_KEYS)),
            }
        }
        self.ask_for(place, &members, "threshold", &["count", "window", "by"]);
        if let Some(count) = count
            && count > limits.max_events
        {
            let message = format!("{count} events are asked for, and at most {} are remembered", limits.max_events);
            self.reader.error(place, Complaint::new(message, "raise \"max_events\""));
        }
        if let (Some(by), Some(path)) = (&by, &distinct)
            && by.contains(path)
        {
            let message = "all events of a key have one value at this path: never reached";
            self.reader.error(place, Complaint::new(message, "take the path out of \"by\", or count another"));
        }
        if self.reader.errors() > errors_before {
            return None;
        }
        Some(Correlation::Threshold(Threshold { count: count?, window: window?, by: by?, distinct, limits }))
    }

    pub(super) fn first_seen(&mut self, place: &Place, node: Node<'a>) -> Option<Correlation> {
        let members = self.reader.object(place, node, "an object with \"by\" and \"within\"")?;
        let (mut by, mut within) = (None, None);
        let mut limits = Limits::default();
        for (here, member) in &members {
            match &*member.key {
                "by" => by = self.key_paths(here, member.value),
                "within" => {
                    within = self.bounded_window(here, member.value);
                    if within.as_ref().is_some_and(|text| !text.ends_with('d')) {
                        let advice = "what was seen is remembered by days: write \"30d\"";
                        self.reader.error(here, Complaint::new("not a number of days", advice));
                    }
                }
                "max_keys" => self.limit(&mut limits, here, member),
                key => self.reader.error(here, unknown(key, FIRST_SEEN_KEYS)),
            }
        }
        self.ask_for(place, &members, "first_seen", &["by", "within"]);
        Some(Correlation::FirstSeen(FirstSeen { by: by?, within: within?, limits }))
    }

    pub(super) fn steps(&mut self, place: &Place, node: Node<'a>) -> Option<Steps> {
        let elements = self.reader.list(place, node, "a list of steps")?;
        if !(2..=MAX_STEPS).contains(&elements.len()) {
            let message = format!("a sequence has 2 to {MAX_STEPS} steps, this has {}", elements.len());
            self.reader.error(place, Complaint::new(message, "events of a single kind are counted by \"threshold\""));
            return None;
        }
        let mut steps = Steps {
            place: place.clone(),
            patterns: Vec::new(),
            counts: Vec::new(),
            text: json::canonical(node.text().as_bytes()),
        };
        let count = elements.len();
        for (index, element) in elements.into_iter().enumerate() {
            let here = place.item(index, self.reader.position(element));
            if let Some((pattern, count)) = self.step(&here, element) {
                steps.patterns.push(pattern);
                steps.counts.push(count);
            }
        }
        (steps.patterns.len() == count).then_some(steps)
    }

    fn step(&mut self, place: &Place, node: Node<'a>) -> Option<(Pattern, u32)> {
        let errors_before = self.reader.errors();
        let members = self.reader.object(place, node, "a step, an object of conditions")?;
        let mut pattern = Pattern { fields: Vec::new(), ors: Vec::new() };
        let mut count = 1;
        for (here, member) in &members {
            match &*member.key {
                "count" => count = self.number(here, member.value, 1, MAX_COUNT).unwrap_or(1),
                "pattern" => {
                    let lists = &self.lists;
                    if let Some(written) = Pattern::read(&mut self.reader, here, member.value, lists) {
                        pattern.fields.extend(written.fields);
                        pattern.ors.extend(written.ors);
                    }
                }
                key => {
                    if let Some(field) = Field::ALL.into_iter().find(|field| field.key() == key) {
                        pattern.fields.extend(self.plain_field(here, member, field));
                    } else {
                        let known = STEP_KEYS.into_iter().chain(Field::ALL.map(Field::key));
                        self.reader.error(here, unknown(key, known));
                    }
                }
            }
        }
        if members.iter().all(|(_, member)| member.key == "count") {
            let message = "the step has no condition and would be met by every record";
            self.reader.error(place, Complaint::new(message, super::conditions_there_are()));
        }
        (self.reader.errors() == errors_before).then_some((pattern, count))
    }

    /// A plain condition as a pattern would write it.
    fn plain_field(&mut self, place: &Place, member: &Member<'a>, field: Field) -> Option<FieldPattern> {
        let mut conditions = Vec::new();
        for (value, here) in self.any_of(place, member.value)? {
            let test = if !is_wildcard(&value) {
                Test::Text(value.clone())
            } else if value.contains(['?', '\\']) {
                let advice = "write the step as a \"pattern\"";
                self.reader.error(&here, Complaint::new("a step reads no wildcard but *", advice));
                return None;
            } else {
                match wildcard(&value) {
                    Ok(test) => test,
                    Err(reason) => {
                        self.reader.error(&here, reason);
                        return None;
                    }
                }
            };
            let written = serde_json::Value::from(value).to_string();
            conditions.push(Condition { place: here, text: written, kind: Kind::Value(test) });
        }
        Some(FieldPattern { path: field.path().to_owned(), place: place.clone(), conditions })
    }

    /// Reads a key that may stand beside `sequence`.
    pub(super) fn beside(&mut self, beside: &mut Beside, place: &Place, member: &Member<'a>) {
        beside.first.get_or_insert_with(|| place.clone());
        match &*member.key {
            "by" => beside.by = self.key_paths(place, member.value),
            "window" => beside.window = self.bounded_window(place, member.value),
            _ => self.limit(&mut beside.limits, place, member),
        }
    }

    /// Puts a sequence together: the rule looks at what meets any step.
    pub(super) fn sequence(
        &mut self,
        steps: Option<Steps>,
        beside: Beside,
        has_sequence: bool,
        body: &mut DraftBody,
        place: &Place,
    ) -> Option<Correlation> {
        if !has_sequence {
            if let Some(first) = &beside.first {
                let advice = "\"group\", \"threshold\" and \"first_seen\" hold theirs themselves";
                self.reader.error(first, Complaint::new("this key belongs to \"sequence\"", advice));
            }
            return None;
        }
        for (key, is_there) in [("by", beside.by.is_some()), ("window", beside.window.is_some())] {
            if !is_there {
                self.reader.error(place, format!("the sequence has no {key:?}; it stands beside \"sequence\""));
            }
        }
        let Steps { place: here, patterns, counts, text } = steps?;
        let (by, window) = (beside.by?, beside.window?);
        if counts.iter().fold(0_u32, |all, count| all.saturating_add(*count)) > beside.limits.max_events {
            let message =
                format!("the steps take more than the {} events that are remembered", beside.limits.max_events);
            self.reader.error(&here, Complaint::new(message, "raise \"max_events\""));
        }
        for pattern in &patterns {
            body.steps.push(pattern.compile(&mut self.reader, &here)?);
        }
        let (mut written, before) = match body.pattern.take() {
            Some(pattern) => (pattern.written, pattern.text),
            None => (Pattern { fields: Vec::new(), ors: Vec::new() }, String::new()),
        };
        written.ors.push(Or { place: here.clone(), branches: patterns });
        let compiled = written.compile(&mut self.reader, &here)?;
        self.wants = self.wants.saturating_add(compiled.size());
        body.pattern = Some(DraftPattern { place: here, written, compiled, text: format!("{before}{text}") });
        let asks = hex(Sha256::digest(text).get(..8).unwrap_or_default());
        Some(Correlation::Sequence(Sequence { steps: counts, asks, window, by, limits: beside.limits }))
    }

    fn ask_for(&mut self, place: &Place, members: &[(Place, Member<'a>)], what: &str, keys: &[&str]) {
        for key in keys {
            if !members.iter().any(|(_, member)| member.key == *key) {
                self.reader.error(place, format!("{what} has no {key:?}"));
            }
        }
    }

    /// The paths whose values are a key.
    pub(super) fn key_paths(&mut self, place: &Place, node: Node<'a>) -> Option<Vec<String>> {
        let paths = self.reader.texts(place, node)?;
        if paths.len() > MAX_PATHS {
            self.reader.error(place, format!("{} paths; at most {MAX_PATHS} make a key", paths.len()));
            return None;
        }
        Some(paths)
    }

    fn limit(&mut self, limits: &mut Limits, place: &Place, member: &Member<'a>) {
        let (limit, most) = match &*member.key {
            "max_keys" => (&mut limits.max_keys, MAX_KEYS),
            _ => (&mut limits.max_events, MAX_EVENTS),
        };
        if let Some(number) = self.number(place, member.value, 1, most) {
            *limit = number;
        }
    }

    fn number(&mut self, place: &Place, node: Node<'a>, least: u32, most: u32) -> Option<u32> {
        let number = node.text().trim_ascii().parse::<u32>().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.reader.error(place, format!("expected a whole number from {least} to {most}"));
        }
        number
    }

    fn bounded_window(&mut self, place: &Place, node: Node<'a>) -> Option<String> {
        let window = self.window(place, node)?;
        if super::super::seconds_of(&window) > MAX_WINDOW {
            let days = MAX_WINDOW / 86_400;
            self.reader.error(place, format!("longer than {days} days"));
            return None;
        }
        Some(window)
    }
}
