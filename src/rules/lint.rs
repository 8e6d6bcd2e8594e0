//! What is probably not meant: conditions that are always or never true, names that CloudTrail does not write, fields
//! that no record has.

use std::collections::{BTreeSet, HashMap};

use time::Date;

use super::condition::{AnyOf, Field};
use super::fields::{self, Shape};
use super::file::{Draft, DraftBody, File};
use super::names::{EventNames, Near, Recorded};
use super::pattern::{FieldPattern, Kind, Test};
use super::reader::{Complaint, Place, Reader, bounded};
use super::wildcard;
use super::{BUILT_IN_LISTS, Correlation, Mode, Surroundings, Threshold};

/// Codes that all say "you may not", as different services write them.
const DENIALS: [&str; 6] = [
    "AccessDenied",
    "AccessDeniedException",
    "Client.UnauthorizedOperation",
    "UnauthorizedOperation",
    "UnauthorizedException",
    "VpceAccessDenied",
];
/// For how many wrong names a right one is looked for: that compares with every name there is.
const MAX_GUESSES: usize = 100;
/// How many names one warning lists.
const MAX_NAMED: usize = 4;

/// Examines a file that could be read, and tells `reader`.
pub(super) fn lint(file: &File, surroundings: &Surroundings, reader: &mut Reader<'_>) {
    let names = EventNames::new();
    let mut bodies = HashMap::new();
    let mut guesses = 0;
    for draft in &file.drafts {
        let mut lint = Lint { names: &names, reader, guesses: &mut guesses };
        lint.body(&draft.body);
        lint.event_names(&draft.body);
        lint.breadth(draft);
        lint.exceptions(draft, surroundings.today);
        lint.paths_elsewhere(draft);
        lint.empty_lists(draft, surroundings);
        let key = identity(&draft.body);
        if draft.exceptions.is_empty()
            && draft.info.mode != Mode::Off
            // One may tell each event, and the other many of them.
            && draft.info.correlation.is_none()
            && let Some(other) = bodies.insert(key, draft.info.id.as_str())
        {
            let advice = "remove one of them, or say what tells them apart";
            let message = format!("the rule {other:?} has the same conditions: both always match together");
            reader.warning(&draft.place, Complaint::new(message, advice));
        }
    }
}

/// The conditions of a body, however they are ordered.
fn identity(body: &DraftBody) -> Vec<String> {
    let plain = body.plain.iter().flat_map(|condition| {
        let values = condition.values.iter();
        values.map(|(value, _)| format!("{}={value}", condition.field.key())).collect::<BTreeSet<_>>()
    });
    let mut parts: Vec<_> = plain.chain(body.pattern.iter().map(|pattern| pattern.text.clone())).collect();
    parts.sort_unstable();
    parts
}

struct Lint<'l, 'a> {
    names: &'l EventNames,
    reader: &'l mut Reader<'a>,
    guesses: &'l mut usize,
}

impl Lint<'_, '_> {
    /// What is wrong with conditions one by one.
    fn body(&mut self, body: &DraftBody) {
        for condition in &body.plain {
            let exact = || condition.values.iter().filter(|(value, _)| !wildcard::is_wildcard(value));
            match condition.field {
                Field::EventSource => exact().for_each(|(value, place)| self.source(value, place)),
                Field::UserIdentityType => exact().for_each(|(value, place)| self.identity_type(value, place)),
                Field::ErrorCode => {
                    let any_of = condition.any_of();
                    self.denials(exact().map(|(value, place)| (value.as_str(), place)), &|code| any_of.holds(code));
                }
                _ => {}
            }
        }
        let Some(pattern) = &body.pattern else { return };
        for field in pattern.written.all_fields() {
            self.path(&field.path, &field.place);
            self.values(field);
            let texts = || texts_of(field);
            match field.path.as_str() {
                "eventSource" => texts().into_iter().for_each(|(value, place)| self.source(value, place)),
                "userIdentity.type" => texts().into_iter().for_each(|(value, place)| self.identity_type(value, place)),
                "errorCode" => {
                    let holds = |code: &str| {
                        let leaf = super::pattern::Leaf::Text(code.into());
                        field
                            .conditions
                            .iter()
                            .any(|one| matches!(&one.kind, Kind::Value(test) if test.holds(&leaf, b"{}")))
                    };
                    self.denials(texts().into_iter(), &holds);
                }
                _ => {}
            }
        }
        self.contradictions(body);
    }

    fn source(&mut self, source: &str, place: &Place) {
        if self.names.has_source(source) {
            return;
        }
        let message = format!("no event source {:?} is known", bounded(source));
        *self.guesses += 1;
        let near = (*self.guesses <= MAX_GUESSES).then(|| self.names.near_source(source)).flatten();
        let advice = match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => "CloudTrail writes names such as \"iam.amazonaws.com\"".to_owned(),
        };
        self.reader.warning(place, Complaint::new(message, advice));
    }

    fn identity_type(&mut self, kind: &str, place: &Place) {
        if fields::IDENTITY_TYPES.contains(&kind) {
            return;
        }
        let message = format!("no identity type {:?} is known", bounded(kind));
        let advice = match super::suggest::nearest(kind, fields::IDENTITY_TYPES) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are {}", fields::IDENTITY_TYPES.join(", ")),
        };
        self.reader.warning(place, Complaint::new(message, advice));
    }

    /// An equality with one of the codes for a denial misses what other services write.
    fn denials<'t>(&mut self, exact: impl Iterator<Item = (&'t str, &'t Place)>, holds: &dyn Fn(&str) -> bool) {
        let missed: Vec<_> = DENIALS.into_iter().filter(|code| !holds(code)).collect();
        for (code, place) in exact {
            if DENIALS.contains(&code) && !missed.is_empty() {
                let message =
                    format!("services write a denial in several ways: {code:?} alone misses {}", missed.join(", "));
                let advice = "write \"errorCode\": [\"*AccessDenied*\", \"*Unauthorized*\"]";
                self.reader.warning(place, Complaint::new(message, advice));
                return;
            }
        }
    }

    /// Names of events: known, of this source, written as CloudTrail writes them.
    fn event_names(&mut self, body: &DraftBody) {
        let plain = |field: Field| body.plain.iter().filter(move |condition| condition.field == field);
        let patterns = || body.pattern.iter().flat_map(|pattern| pattern.written.all_fields());
        let sources: Vec<String> = plain(Field::EventSource)
            .flat_map(|condition| condition.values.iter().map(|(value, _)| value.clone()))
            .chain(
                patterns()
                    .filter(|field| field.path == "eventSource")
                    .flat_map(|field| texts_of(field).into_iter().map(|(text, _)| text.to_owned()).collect::<Vec<_>>()),
            )
            .collect();
        let pinned = !sources.is_empty()
            || patterns().any(|field| field.path == "eventSource")
            || plain(Field::ResourceType).next().is_some();
        let open = sources.iter().any(|source| wildcard::is_wildcard(source)) || (pinned && sources.is_empty());
        let sources: Option<Vec<&str>> = (!open && pinned).then(|| sources.iter().map(String::as_str).collect());
        let wanted: Vec<(String, Place)> = plain(Field::EventName)
            .flat_map(|condition| condition.values.clone())
            .chain(patterns().filter(|field| field.path == "eventName").flat_map(|field| {
                let texts = texts_of(field).into_iter().filter(|(text, _)| !wildcard::is_wildcard(text));
                texts.map(|(text, place)| (text.to_owned(), place.clone())).collect::<Vec<_>>()
            }))
            .collect();
        let mut shared: Option<(Vec<String>, Place)> = None;
        for (name, place) in &wanted {
            if wildcard::is_wildcard(name) {
                self.name_pattern(name, sources.as_deref(), place);
            } else if self.name(name, sources.as_deref(), place) && !pinned {
                let of = self.names.sources_of(name);
                if of.len() > 1 {
                    let several = of.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
                    shared.get_or_insert_with(|| (Vec::new(), place.clone())).0.push(format!("{name} ({several})"));
                }
            }
        }
        if let Some((names, place)) = shared {
            let message = format!("several services have an event of this name: {}", names.join("; "));
            self.reader.warning(&place, Complaint::new(message, "add \"eventSource\""));
        }
    }

    fn name_pattern(&mut self, pattern: &str, sources: Option<&[&str]>, place: &Place) {
        let fits = match sources {
            Some(sources) => sources.iter().any(|source| self.names.matches(Some(source), pattern)),
            None => self.names.matches(None, pattern),
        };
        if !fits && sources.is_none_or(|sources| sources.iter().all(|source| self.names.has_source(source))) {
            let of = sources.map_or_else(String::new, |sources| format!(" of {}", sources.join(", ")));
            let message = format!("no event{of} that is known fits {:?}", bounded(pattern));
            self.reader
                .warning(place, Complaint::new(message, "case counts; look the names up in the service's own pages"));
        }
    }

    /// Tells if a name is not right; whether it is.
    fn name(&mut self, name: &str, sources: Option<&[&str]>, place: &Place) -> bool {
        let known = match sources {
            Some(sources) => {
                sources.iter().any(|source| self.names.has(source, name) || !self.names.has_source(source))
            }
            None => !self.names.sources_of(name).is_empty(),
        };
        if known {
            return true;
        }
        let shown = bounded(name);
        let source = sources.and_then(|sources| sources.first().copied());
        let recorded = self.names.recorded_as(source, name);
        *self.guesses += 1;
        let near = (*self.guesses <= MAX_GUESSES).then(|| self.names.near(sources, name)).flatten();
        let complaint = if let Some(Near::Case(right)) = near {
            Complaint::new(format!("no event {shown:?} is known: case counts"), format!("write {right:?}"))
        } else if let Some(recorded) = recorded {
            match recorded {
                Recorded::As { source, name: right } => Complaint::new(
                    format!("{shown:?} is the name of a permission or an API, not of an event"),
                    format!("CloudTrail records it as {right:?} of {source}"),
                ),
                Recorded::Never => Complaint::new(
                    format!("{shown:?} is a permission; CloudTrail records no event of this name"),
                    "find the call that uses it",
                ),
            }
        } else if let Some(Near::Spelling(right)) = near {
            Complaint::new(format!("no event {shown:?} is known"), format!("did you mean {right:?}?"))
        } else {
            let others = self.names.sources_of(name);
            if others.is_empty() {
                Complaint::new(
                    format!("no event {shown:?} is known"),
                    "check the name; if CloudTrail does write it, nothing is wrong",
                )
            } else {
                let others = others.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
                Complaint::new(
                    format!("{shown:?} is no event of {}", sources.unwrap_or_default().join(", ")),
                    format!("it is one of {others}"),
                )
            }
        };
        self.reader.warning(place, complaint);
        false
    }

    fn path(&mut self, path: &str, place: &Place) {
        match fields::look_up(path) {
            Ok(_) => {}
            Err(wrong) if wrong.envelope => {
                let advice =
                    "write the fields that stand under \"detail\", or run `trailhound rules import --from eventbridge`";
                let message = format!("{:?} belongs to EventBridge's envelope: no record has it", wrong.name);
                self.reader.error(place, Complaint::new(message, advice));
            }
            Err(wrong) => {
                let message = format!("no record is known to have the field {:?}", bounded(path));
                let advice = match wrong.near {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "check the path; if records do have it, nothing is wrong".to_owned(),
                };
                self.reader.warning(place, Complaint::new(message, advice));
            }
        }
    }

    /// Conditions that no value of the field can meet, or every value does.
    fn values(&mut self, field: &FieldPattern) {
        let shape = fields::look_up(&field.path).ok();
        let tests = || {
            field.conditions.iter().filter_map(|one| match &one.kind {
                Kind::Value(test) => Some((test, &one.place)),
                Kind::Absent => None,
            })
        };
        let can_hold = |test: &Test| match shape {
            Some(Shape::Object) => matches!(test, Test::Null),
            Some(Shape::Boolean) => {
                matches!(test, Test::Bool(_) | Test::Null | Test::Exists | Test::AnythingBut(_))
            }
            Some(Shape::Text) => !matches!(test, Test::Number(_) | Test::Bool(_) | Test::Numeric(_)),
            Some(Shape::Any) | None => true,
        };
        let others = field.conditions.iter().any(|one| match &one.kind {
            Kind::Absent => true,
            Kind::Value(test) => can_hold(test),
        });
        for (test, place) in tests() {
            if !can_hold(test) {
                let (message, advice) = match shape {
                    Some(Shape::Object) => {
                        ("the field holds an object: a condition on it is never true", "name a field within it")
                    }
                    Some(Shape::Boolean) => {
                        ("the field is true or false, without quotes: never true", "write true or false")
                    }
                    _ => (
                        "the field holds a string, which equals no number and no boolean: never true",
                        "write it in quotes",
                    ),
                };
                let complaint = Complaint::new(message, advice);
                // One of several alternatives is of no use; alone it makes the rule useless.
                if others { self.reader.warning(place, complaint) } else { self.reader.error(place, complaint) }
            } else if let (Some(Shape::Text), Test::Text(text)) = (shape, test)
                && text.contains('*')
            {
                let message = "a star in an exact text stands for itself: no record has it here";
                self.reader.warning(place, Complaint::new(message, format!("write {{\"wildcard\": {text:?}}}")));
            } else if test.is_open() {
                let advice = "write [{\"exists\": true}], or name a value";
                self.reader.warning(place, Complaint::new("every string meets this condition", advice));
            }
        }
        let absent = field.conditions.iter().any(|one| matches!(one.kind, Kind::Absent));
        let negative: Vec<_> = tests().filter(|(test, _)| matches!(test, Test::AnythingBut(_))).collect();
        let exists = tests().find(|(test, _)| matches!(test, Test::Exists));
        if let Some((_, place)) = exists {
            if absent {
                let advice = "remove the field, or one of the two";
                self.reader.error(place, Complaint::new("the field is there or it is not: always true", advice));
            } else if field.conditions.len() > 1 {
                let advice = "the conditions of a list are alternatives: remove this one, or the others";
                self.reader.warning(place, Complaint::new("holds whatever the other conditions say", advice));
            }
        } else if let Some((_, place)) = negative.first()
            && nothing_is_excluded(&negative, &|excluded| tests().any(|(other, _)| excluded.same_text(other)))
        {
            let message = "whatever one alternative excludes, another lets in: true for every value";
            let advice = "the conditions of a list are alternatives; write {\"anything-but\": [\"a\", \"b\"]}";
            self.reader.error(place, Complaint::new(message, advice));
        }
    }

    /// A plain condition and the pattern that ask the same field for different texts.
    fn contradictions(&mut self, body: &DraftBody) {
        let Some(pattern) = &body.pattern else { return };
        for condition in &body.plain {
            let any_of = condition.any_of();
            let texts = pattern.compiled.only_texts(condition.field.path());
            let apart = texts.is_some_and(|texts| !texts.iter().any(|text| any_of.holds(text)));
            // Beside `$or`, what must hold in any case.
            let asked = pattern.written.fields.iter().find(|field| field.path == condition.field.path());
            if apart || asked.is_some_and(|field| !can_meet(&any_of, field)) {
                let key = condition.field.key();
                let message = format!(
                    "the pattern asks {:?} for other values than {key:?} does: never true together",
                    condition.field.path()
                );
                self.reader.error(&condition.place, Complaint::new(message, "ask in one place"));
            }
            // The alternatives of a sequence are its steps, and all of them must be met.
            let steps = pattern.written.ors.last().filter(|_| !body.steps.is_empty());
            let fields = steps.iter().flat_map(|steps| &steps.branches).flat_map(|step| &step.fields);
            for field in fields.filter(|field| field.path == condition.field.path() && !can_meet(&any_of, field)) {
                let message = format!(
                    "the step asks {:?} for other values than the rule does: no event is ever this step",
                    condition.field.path()
                );
                self.reader.error(&field.place, Complaint::new(message, "name in the rule what any step asks for"));
            }
        }
    }

    /// Rules that nearly every record meets.
    fn breadth(&mut self, draft: &Draft) {
        let narrow =
            draft.body.plain.iter().any(|condition| {
                condition.values.iter().all(|(value, _)| value.chars().any(|c| !matches!(c, '*' | '?')))
            });
        let Some(pattern) = &draft.body.pattern else {
            if !narrow {
                let message = "wildcards alone: nearly every record matches";
                self.reader.warning(&draft.place, Complaint::new(message, "name values"));
            }
            return;
        };
        let broad = pattern.compiled.broad_ways(&fields::is_usual, &fields::is_rare);
        let distinct: BTreeSet<_> = broad.iter().collect();
        let place = pattern.written.ors.first().map_or(&pattern.place, |or| &or.place);
        let advice =
            "the alternatives of $or are joined by \"or\"; put exclusions beside $or, so that they hold as well";
        if distinct.len() > 1 {
            // "a is not x, or b is not y" excludes only what is both.
            let paths: Vec<_> = distinct.iter().map(|paths| paths.join(" and ")).collect();
            let message = format!(
                "always true: alternatives ask only what nearly every record meets, one of {}, another of {}",
                paths.first().map_or("", String::as_str),
                paths.get(1).map_or("", String::as_str)
            );
            let complaint = Complaint::new(message, advice);
            if narrow { self.reader.warning(place, complaint) } else { self.reader.error(place, complaint) }
        } else if let (false, Some(paths)) = (narrow, broad.first()) {
            let paths = paths.join(", ");
            if pattern.written.ors.is_empty() {
                let message = format!("the rule only says what a record is not ({paths}): nearly every record matches");
                let advice = "add what it is about, such as \"eventName\"";
                self.reader.warning(&pattern.place, Complaint::new(message, advice));
            } else {
                let message =
                    format!("one alternative only says what a record is not ({paths}): nearly every record meets it");
                self.reader.warning(place, Complaint::new(message, advice));
            }
        }
    }

    fn exceptions(&mut self, draft: &Draft, today: Option<Date>) {
        for exception in &draft.exceptions {
            self.body(&exception.body);
            if let (Some((day, place)), Some(today)) = (&exception.until, today)
                && *day < today
            {
                let message = format!("the exception ended on {day}: the rule matches again what it withheld");
                self.reader.warning(place, Complaint::new(message, "remove it, or give it a new last day"));
            }
            let Some(pattern) = &exception.body.pattern else { continue };
            let only_broad = exception.body.plain.is_empty()
                && !pattern.compiled.broad_ways(&fields::is_usual, &fields::is_rare).is_empty();
            if only_broad {
                let message = "the exception holds for nearly every record: the rule is silenced";
                self.reader.warning(&exception.place, Complaint::new(message, "say whom or what it excepts"));
            }
        }
    }

    /// Paths outside of conditions: groups, and fields compared with.
    fn paths_elsewhere(&mut self, draft: &Draft) {
        let group = Place { path: format!("{}.group.by", draft.place.path), ..draft.place.clone() };
        for path in draft.info.group.iter().flat_map(|group| &group.by) {
            self.path(path, &group);
        }
        if let Some(correlation) = &draft.info.correlation {
            let place = match correlation {
                Correlation::Sequence(_) => format!("{}.by", draft.place.path),
                other => format!("{}.{}.by", draft.place.path, other.kind()),
            };
            let place = Place { path: place, ..draft.place.clone() };
            correlation.by().iter().for_each(|path| self.path(path, &place));
            if let Correlation::Threshold(Threshold { distinct: Some(path), .. }) = correlation {
                let place = Place { path: format!("{}.threshold.distinct", draft.place.path), ..draft.place.clone() };
                self.path(path, &place);
            }
        }
        let bodies = std::iter::once(&draft.body).chain(draft.exceptions.iter().map(|one| &one.body));
        for body in bodies {
            for field in body.pattern.iter().flat_map(|pattern| pattern.written.all_fields()) {
                for condition in &field.conditions {
                    if let Kind::Value(test) = &condition.kind {
                        test.field_paths().into_iter().for_each(|path| self.path(path, &condition.place));
                    }
                }
            }
        }
    }

    /// Lists that the configuration fills, and does not.
    fn empty_lists(&mut self, draft: &Draft, surroundings: &Surroundings) {
        for field in draft.body.pattern.iter().flat_map(|pattern| pattern.written.all_fields()) {
            for condition in &field.conditions {
                for name in BUILT_IN_LISTS {
                    let is_empty = surroundings.lists.get(name).is_some_and(Vec::is_empty);
                    if is_empty && condition.text.contains(&format!("{name:?}")) {
                        let message = format!("the list {name:?} is empty: the configuration names nothing for it");
                        self.reader.warning(&condition.place, Complaint::new(message, super::list_source(name)));
                    }
                }
            }
        }
    }
}

/// Whether one of the exact texts, or some text where there are others, meets the conditions of a field.
fn can_meet(any_of: &AnyOf, field: &FieldPattern) -> bool {
    let mut tests = field.conditions.iter().filter_map(|one| match &one.kind {
        Kind::Value(test) => Some(test),
        Kind::Absent => None,
    });
    let Some(exact) = any_of.only_exact() else {
        return tests.next().is_some();
    };
    tests.any(|test| {
        !test.field_paths().is_empty()
            || exact.iter().any(|text| test.holds(&super::pattern::Leaf::Text(text.as_str().into()), b"{}"))
    })
}

/// Whether no value is excluded by every one of these `anything-but`, or what they all exclude is let in by another
/// alternative. Only exact texts are compared; of others nothing is known.
fn nothing_is_excluded(negative: &[(&Test, &Place)], is_let_in: &dyn Fn(&Test) -> bool) -> bool {
    let mut excluded = negative.iter().filter_map(|(test, _)| match test {
        Test::AnythingBut(excluded) => Some(excluded),
        _ => None,
    });
    let Some(first) = excluded.next() else { return false };
    let others: Vec<_> = excluded.collect();
    let exact = |tests: &[Test]| tests.iter().all(|test| matches!(test, Test::Text(_)));
    if !exact(first) || !others.iter().all(|tests| exact(tests)) {
        return false;
    }
    let by_all = first.iter().filter(|one| others.iter().all(|tests| tests.iter().any(|other| one.same_text(other))));
    by_all.into_iter().all(is_let_in)
}

/// The exact texts of a field, each with its place.
fn texts_of(field: &FieldPattern) -> Vec<(&str, &Place)> {
    let texts = field.conditions.iter().filter_map(|one| match &one.kind {
        Kind::Value(Test::Text(text)) => Some((text.as_str(), &one.place)),
        _ => None,
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::macros::date;

    use crate::rules::{Level, NamedLists, RuleSet, Surroundings};

    /// What is said of one rule, whose id, severity and eventSource are given unless it says them.
    fn told(mut rule: Value) -> String {
        for (key, value) in [("id", "r"), ("severity", "LOW")] {
            rule[key] = json!(value);
        }
        told_of(&json!({ "lists": { "people": ["ada"] }, "events": [rule] }))
    }

    fn told_of(file: &Value) -> String {
        let surroundings = Surroundings { lists: NamedLists::new(), today: Some(date!(2026 - 11 - 24)) };
        let loaded = RuleSet::load(&file.to_string(), &surroundings);
        let errors = loaded.rules.err().map(|wrong| wrong.errors).unwrap_or_default();
        let line = |one: &crate::rules::Diagnostic| {
            let level = if one.level == Level::Error { "error" } else { "warning" };
            let advice = one.advice.as_deref().unwrap_or_default();
            format!(
                "{level} {}: {}; {advice}",
                one.path.trim_start_matches("events[0]").trim_start_matches('.'),
                one.message
            )
        };
        errors.iter().chain(&loaded.warnings).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn conditions_that_are_always_or_never_true_are_errors() {
        let all = [
            // CIS 4.1 as printed in v1.4: everything joined by "or".
            json!({ "pattern": { "$or": [
                { "errorCode": [{ "wildcard": "*UnauthorizedOperation" }] },
                { "errorCode": [{ "prefix": "AccessDenied" }] },
                { "sourceIPAddress": [{ "anything-but": "delivery.logs.amazonaws.com" }] },
                { "eventName": [{ "anything-but": "HeadBucket" }] },
            ] } }),
            json!({ "eventName": "CreateUser", "pattern": { "userAgent": [{ "anything-but": "a" }, { "anything-but": "b" }] } }),
            json!({ "eventName": "CreateUser", "pattern": { "userAgent": ["a", "b", { "anything-but": ["a", "b"] }] } }),
            json!({ "eventName": "CreateUser", "pattern": { "errorCode": [{ "exists": true }, { "exists": false }] } }),
            json!({ "eventName": "CreateUser", "eventSource": "iam.amazonaws.com", "pattern": { "eventName": ["DeleteUser"] } }),
            json!({ "eventName": "Create*", "eventSource": "iam.amazonaws.com", "pattern": { "eventName": ["DeleteUser"] } }),
            json!({ "eventName": "CreateUser", "eventSource": "iam.amazonaws.com", "pattern": { "eventName": [{ "prefix": "Delete" }] } }),
            json!({ "eventName": "CreateUser", "eventSource": "iam.amazonaws.com", "pattern": { "eventName": [{ "anything-but": "CreateUser" }] } }),
            json!({ "errorCode": "*", "eventSource": "iam.amazonaws.com", "pattern": { "errorCode": [{ "exists": false }] } }),
            json!({ "eventName": "CreateUser", "eventSource": "iam.amazonaws.com", "pattern": { "readOnly": ["false"] } }),
            json!({ "eventName": "ConsoleLogin", "eventSource": "signin.amazonaws.com",
                    "pattern": { "userIdentity": { "sessionContext": { "attributes": { "mfaAuthenticated": [false] } } } } }),
            json!({ "eventName": "CreateUser", "eventSource": "iam.amazonaws.com", "pattern": { "userIdentity": [{ "exists": true }] } }),
            json!({ "pattern": { "source": ["aws.iam"], "detail": { "eventName": ["CreateUser"] } } }),
        ];
        let all: Vec<_> = all.into_iter().map(told).collect();
        assert!(all.iter().all(|one| one.contains("error ")), "{all:#?}");
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        error pattern.$or: always true: alternatives ask only what nearly every record meets, one of eventName, another of sourceIPAddress; the alternatives of $or are joined by "or"; put exclusions beside $or, so that they hold as well

        error pattern.userAgent[0]: whatever one alternative excludes, another lets in: true for every value; the conditions of a list are alternatives; write {"anything-but": ["a", "b"]}
        warning eventName: several services have an event of this name: CreateUser (amazonmq.amazonaws.com, appstream.amazonaws.com, appstream2.amazonaws.com, chime.amazonaws.com); add "eventSource"

        error pattern.userAgent[2]: whatever one alternative excludes, another lets in: true for every value; the conditions of a list are alternatives; write {"anything-but": ["a", "b"]}
        warning eventName: several services have an event of this name: CreateUser (amazonmq.amazonaws.com, appstream.amazonaws.com, appstream2.amazonaws.com, chime.amazonaws.com); add "eventSource"

        error pattern.errorCode[0]: the field is there or it is not: always true; remove the field, or one of the two
        warning eventName: several services have an event of this name: CreateUser (amazonmq.amazonaws.com, appstream.amazonaws.com, appstream2.amazonaws.com, chime.amazonaws.com); add "eventSource"

        error eventName: the pattern asks "eventName" for other values than "eventName" does: never true together; ask in one place

        error eventName: the pattern asks "eventName" for other values than "eventName" does: never true together; ask in one place

        error eventName: the pattern asks "eventName" for other values than "eventName" does: never true together; ask in one place

        error eventName: the pattern asks "eventName" for other values than "eventName" does: never true together; ask in one place

        error errorCode: the pattern asks "errorCode" for other values than "errorCode" does: never true together; ask in one place

        error pattern.readOnly[0]: the field is true or false, without quotes: never true; write true or false

        error pattern.userIdentity.sessionContext.attributes.mfaAuthenticated[0]: the field holds a string, which equals no number and no boolean: never true; write it in quotes

        error pattern.userIdentity[0]: the field holds an object: a condition on it is never true; name a field within it

        error pattern.source: "source" belongs to EventBridge's envelope: no record has it; write the fields that stand under "detail", or run `trailhound rules import --from eventbridge`
        error pattern.detail.eventName: "detail" belongs to EventBridge's envelope: no record has it; write the fields that stand under "detail", or run `trailhound rules import --from eventbridge`
        "#);
    }

    #[test]
    fn a_step_that_the_rule_excludes_is_an_error() {
        let sequence = |rule: &str, first: &str| {
            told(
                json!({ "eventSource": "iam.amazonaws.com", "eventName": rule, "by": ["userIdentity.arn"], "window": "1h",
                "sequence": [{ "eventName": first }, { "errorCode": "AccessDenied" }] }),
            )
        };
        assert!(!sequence("CreateUser", "CreateUser").contains("error sequence"));
        assert!(!sequence("*User", "CreateUser").contains("error sequence"));
        let wrong = "error sequence[0].eventName: the step asks \"eventName\" for other values than the rule does: no event is ever this step";
        assert!(sequence("CreateUser", "DeleteUser").contains(wrong));
    }

    #[test]
    fn what_is_probably_not_meant_is_a_warning() {
        let all = [
            json!({ "eventSource": "s3.amazonaws.com", "eventName": "PutLifecycleConfiguration" }),
            json!({ "eventName": ["s3:PutLifecycleConfiguration", "iam:PassRole"] }),
            json!({ "eventSource": "lambda.amazonaws.com", "eventName": "UpdateFunctionCode" }),
            json!({ "eventName": ["CreatePolicy", "StopLogging"] }),
            json!({ "eventSource": "signin.amazonaws.com", "eventName": "consoleLogin" }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": ["CreateUsr", "StopLogging", "Frobnicate*"] }),
            json!({ "eventSource": ["IAM.amazonaws.com", "iam"], "eventName": "CreateUser" }),
            json!({ "userIdentityType": ["IamUser", "Root"] }),
            json!({ "errorCode": "AccessDenied" }),
            json!({ "pattern": { "errorCode": ["AccessDenied", { "prefix": "Client." }] } }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": "CreateUser",
                    "pattern": { "userIdentity": { "username": ["ada"] }, "sourceIpAddress": [{ "cidr": "10.0.0.5/8" }] },
                    "group": { "by": ["userIdentity.ARN"], "window": "1h" } }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": "CreateUser",
                    "pattern": { "requestParameters": { "userName": [{ "anything-but": { "field": "userIdentity.username" } }] } } }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": "CreateUser", "unless": [
                { "eventSource": "iam.amazonaws.com", "reason": "a test", "until": "2026-11-23" },
                { "userIdentityType": "Root", "reason": "not over", "until": "2026-11-24" },
                { "pattern": { "sourceIPAddress": [{ "anything-but": "192.0.2.1" }] }, "reason": "everything" } ] }),
            json!({ "eventName": "*" }),
            json!({ "pattern": { "sourceIPAddress": [{ "anything-but": "192.0.2.1" }] } }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": "CreateUser", "pattern": { "userAgent": [{ "wildcard": "*" }, "x"] } }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": "CreateUser", "pattern": { "errorCode": ["5", 5] } }),
            json!({ "eventSource": "iam.amazonaws.com", "pattern": { "eventName": ["Delete*"], "userIdentity": { "arn": ["arn:aws:iam::*:user/*"] } } }),
            json!({ "pattern": { "$or": [{ "awsRegion": [{ "anything-but": ["eu-west-1"] }] }, { "userAgent": [{ "prefix": "x" }] }] } }),
            json!({ "eventSource": "ec2.amazonaws.com", "pattern": { "$or": [
                { "sourceIPAddress": [{ "anything-but": "192.0.2.1" }] }, { "eventName": [{ "anything-but": "RunInstances" }] }] } }),
        ];
        let all: Vec<_> = all.into_iter().map(told).collect();
        assert!(all.iter().all(|one| one.contains("warning ") && !one.contains("error ")), "{all:#?}");
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        warning eventName: "PutLifecycleConfiguration" is the name of a permission or an API, not of an event; CloudTrail records it as "PutBucketLifecycle" of s3.amazonaws.com

        warning eventName[0]: "s3:PutLifecycleConfiguration" is the name of a permission or an API, not of an event; CloudTrail records it as "PutBucketLifecycle" of s3.amazonaws.com
        warning eventName[1]: "iam:PassRole" is a permission; CloudTrail records no event of this name; find the call that uses it

        warning eventName: "UpdateFunctionCode" is the name of a permission or an API, not of an event; CloudTrail records it as "UpdateFunctionCode20150331v2" of lambda.amazonaws.com

        warning eventName[0]: several services have an event of this name: CreatePolicy (bedrock-agentcore.amazonaws.com, iam.amazonaws.com, iot.amazonaws.com, network-security-manager.amazonaws.com); add "eventSource"

        warning eventName: no event "consoleLogin" is known: case counts; write "ConsoleLogin"

        warning eventName[0]: no event "CreateUsr" is known; did you mean "CreateUser"?
        warning eventName[1]: "StopLogging" is no event of iam.amazonaws.com; it is one of cloudtrail.amazonaws.com
        warning eventName[2]: no event of iam.amazonaws.com that is known fits "Frobnicate*"; case counts; look the names up in the service's own pages

        warning eventSource[0]: no event source "IAM.amazonaws.com" is known; did you mean "iam.amazonaws.com"?
        warning eventSource[1]: no event source "iam" is known; did you mean "iam.amazonaws.com"?

        warning userIdentityType[0]: no identity type "IamUser" is known; did you mean "IAMUser"?

        warning errorCode: services write a denial in several ways: "AccessDenied" alone misses AccessDeniedException, Client.UnauthorizedOperation, UnauthorizedOperation, UnauthorizedException, VpceAccessDenied; write "errorCode": ["*AccessDenied*", "*Unauthorized*"]

        warning pattern.errorCode[0]: services write a denial in several ways: "AccessDenied" alone misses AccessDeniedException, UnauthorizedOperation, UnauthorizedException, VpceAccessDenied; write "errorCode": ["*AccessDenied*", "*Unauthorized*"]

        warning group.by: no record is known to have the field "userIdentity.ARN"; did you mean "userIdentity.arn"?
        warning pattern.userIdentity.username: no record is known to have the field "userIdentity.username"; did you mean "userIdentity.userName"?
        warning pattern.sourceIpAddress: no record is known to have the field "sourceIpAddress"; did you mean "sourceIPAddress"?
        warning pattern.sourceIpAddress[0].cidr: the block begins inside of its network: lower addresses from 10.0.0.0 on do not match; write the network as 10.0.0.0/...

        warning pattern.requestParameters.userName[0]: no record is known to have the field "userIdentity.username"; did you mean "userIdentity.userName"?

        warning unless[0].until: the exception ended on 2026-11-23: the rule matches again what it withheld; remove it, or give it a new last day
        warning unless[2]: the exception holds for nearly every record: the rule is silenced; say whom or what it excepts

        warning : wildcards alone: nearly every record matches; name values

        warning pattern: the rule only says what a record is not (sourceIPAddress): nearly every record matches; add what it is about, such as "eventName"

        warning pattern.userAgent[0]: every string meets this condition; write [{"exists": true}], or name a value

        warning pattern.errorCode[1]: the field holds a string, which equals no number and no boolean: never true; write it in quotes

        warning pattern.eventName[0]: a star in an exact text stands for itself: no record has it here; write {"wildcard": "Delete*"}
        warning pattern.userIdentity.arn[0]: a star in an exact text stands for itself: no record has it here; write {"wildcard": "arn:aws:iam::*:user/*"}

        warning pattern.$or: one alternative only says what a record is not (awsRegion): nearly every record meets it; the alternatives of $or are joined by "or"; put exclusions beside $or, so that they hold as well

        warning pattern.$or: always true: alternatives ask only what nearly every record meets, one of eventName, another of sourceIPAddress; the alternatives of $or are joined by "or"; put exclusions beside $or, so that they hold as well
        "#);
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let exclusions = [
            json!([{ "anything-but": { "prefix": "us-" } }, { "anything-but": { "suffix": "-1" } }]),
            json!([{ "anything-but": ["a", "b"] }, { "anything-but": ["b", "c"] }]),
            json!([{ "anything-but": ["us-east-1", "us-west-2"] }, "us-east-1"]),
        ];
        for conditions in exclusions {
            let rule = json!({ "eventSource": "ec2.amazonaws.com", "eventName": "RunInstances", "pattern": { "awsRegion": conditions } });
            assert_eq!(told(rule.clone()), "", "{rule}");
        }
        for rule in [
            json!({ "errorCode": ["*AccessDenied*", "*Unauthorized*"] }),
            json!({ "eventSource": "lambda.amazonaws.com", "eventName": "UpdateFunctionCode*" }),
            json!({ "eventSource": "s3.amazonaws.com", "eventName": "PutBucketLifecycle" }),
            json!({ "eventSource": "iam.amazonaws.com", "eventName": "CreatePolicy", "pattern": {
                "errorCode": [{ "exists": false }, null],
                "requestParameters": { "userName": [{ "anything-but": { "list": "people" } }], "policyDocument": [
                    { "json": { "Statement": { "Effect": ["Allow"] } } }] },
                "$or": [{ "readOnly": [false] }, { "userIdentity": { "type": [{ "anything-but": "Root" }] } }] } }),
            json!({ "pattern": { "$or": [{ "eventName": ["StopLogging"] }, { "errorCode": [{ "prefix": "Access" }] }] } }),
        ] {
            assert_eq!(told(rule.clone()), "", "{rule}");
        }
    }

    #[test]
    fn rules_with_the_same_conditions_are_told() {
        let rule = |id: &str, names: Value| json!({ "id": id, "severity": "LOW", "eventName": names, "eventSource": "iam.amazonaws.com" });
        let file = json!([
            rule("a", json!(["CreateUser", "DeleteUser"])),
            rule("b", json!(["DeleteUser", "CreateUser"])),
            rule("c", json!("CreateUser"))
        ]);
        let told = told_of(&file);
        assert!(told.contains("[1]: the rule \"a\" has the same conditions") && told.lines().count() == 1, "{told}");
    }

    #[test]
    fn a_built_in_list_that_is_configured_as_empty_is_told() {
        let file = json!([{ "id": "r", "severity": "LOW", "eventSource": "sqs.amazonaws.com", "eventName": "DeleteQueue",
            "pattern": { "requestParameters": { "queueUrl": [{ "list": "trailhound.queues" }] } } }]);
        assert_eq!(told_of(&file), "");
        let lists = NamedLists::from([("trailhound.queues".to_owned(), Vec::new())]);
        let loaded = RuleSet::load(&file.to_string(), &Surroundings { lists, today: None });
        assert!(loaded.rules.is_ok());
        assert!(loaded.warnings[0].message.contains("\"trailhound.queues\" is empty"), "{:?}", loaded.warnings);
    }
}
