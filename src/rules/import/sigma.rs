//! Sigma rules for CloudTrail: YAML, as the Sigma specification describes it (sigmahq.io, versions 1 and 2).
//!
//! What a rule asks for becomes its pattern, and what it asks not to be there becomes exceptions, which negate exactly.
//! Conditions on the event's source and name that name them become plain conditions: the index needs them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::expression::{Conjunction, Expression, Leaf, Problem};
use super::negation::{NotNegatable, doubtful, pushed_down, whole};
use super::sigma_condition::{self, Condition};
use super::{
    Draft, ImportError, MAX_DESCRIPTION_BYTES, Outcome, Scope, bounded, is_container, is_plain_field, sigma_value, yaml,
};
use crate::rules::Severity;

const MAX_REASON_BYTES: usize = 256;
/// Keys of a rule that say nothing about what it matches.
const LEFT_OUT: [&str; 9] = ["name", "related", "taxonomy", "status", "license", "date", "modified", "fields", "scope"];

pub(super) fn rules(file: &Scope<'_>, text: &str) -> Vec<Outcome> {
    let documents = match yaml::documents(text) {
        Ok(documents) => documents,
        Err(error) => return vec![Err(vec![file.error(format!("line {}", error.line), error.message)])],
    };
    if documents.is_empty() {
        return vec![Err(vec![file.error("", "the file has no rule")])];
    }
    documents.iter().map(|document| rule(file, document)).collect()
}

fn rule(file: &Scope<'_>, document: &Value) -> Outcome {
    let Value::Object(members) = document else {
        return Err(vec![file.error("", "a Sigma rule is a map with title, logsource and detection")]);
    };
    let name = members.get("title").or_else(|| members.get("id")).and_then(Value::as_str).unwrap_or(file.stem());
    let scope = file.of(name);
    for (key, what) in [
        ("correlation", "a correlation rule counts or orders several events, which a rule cannot do yet"),
        ("filter", "a Sigma filter changes other rules; add its condition to these as an exception (\"unless\")"),
        ("action", "a rule in several parts (action: global) is not read; write each rule out"),
    ] {
        if members.contains_key(key) {
            return Err(vec![scope.error(key, what)]);
        }
    }
    let mut reader = Reader { scope, draft: Draft::default(), errors: Vec::new() };
    reader.info(members);
    reader.log_source(members.get("logsource"));
    match members.get("detection") {
        Some(Value::Object(detection)) => reader.detection(detection),
        _ => reader.refuse("detection", "the rule has no detection"),
    }
    if reader.errors.is_empty() { Ok(reader.draft) } else { Err(reader.errors) }
}

struct Reader<'a> {
    scope: Scope<'a>,
    draft: Draft,
    errors: Vec<ImportError>,
}

impl Reader<'_> {
    fn refuse(&mut self, place: &str, message: impl Into<String>) {
        self.errors.push(self.scope.error(place, message));
    }

    fn info(&mut self, members: &Map<String, Value>) {
        let text = |key: &str| members.get(key).and_then(Value::as_str).map(str::to_owned);
        self.draft.title = text("title");
        self.draft.id = text("id").unwrap_or_else(|| self.scope.rule.unwrap_or_default().to_owned());
        if !members.contains_key("id") {
            self.draft.note("the rule has no id: it is made from the title");
        }
        self.draft.description = text("description");
        self.draft.author = text("author");
        self.draft.references = texts(members.get("references"));
        self.false_positives(&texts(members.get("falsepositives")));
        for tag in texts(members.get("tags")) {
            match technique(&tag) {
                Some(technique) => self.draft.attack.push(technique),
                None => self.draft.tags.push(tag),
            }
        }
        self.draft.severity = match members.get("level").and_then(Value::as_str) {
            Some("informational" | "low") => Some(Severity::Low),
            Some("medium") => Some(Severity::Medium),
            Some("high") => Some(Severity::High),
            Some("critical") => Some(Severity::Critical),
            None => {
                self.draft.note("the rule has no level: MEDIUM is a guess");
                Some(Severity::Medium)
            }
            Some(other) => {
                let message = format!("{other:?} is no level; give informational, low, medium, high or critical");
                self.refuse("level", message);
                None
            }
        };
        let known = ["title", "id", "description", "author", "references", "falsepositives", "tags", "level"];
        let used = |key: &str| known.contains(&key) || matches!(key, "logsource" | "detection");
        for key in members.keys().map(String::as_str).filter(|key| !used(key) && !LEFT_OUT.contains(key)) {
            self.draft.note(format!("{:?} is left out: it does not change what the rule matches", bounded(key, 64)));
        }
        if let Some(status @ ("deprecated" | "unsupported")) = members.get("status").and_then(Value::as_str) {
            self.draft.note(format!("its authors call the rule {status}"));
        }
        if let Some(license) = text("license") {
            self.draft.note(format!("the rule's licence is {}", bounded(&license, 64)));
        }
    }

    /// They help whoever reads the alert: at the end of the description, if they fit there.
    fn false_positives(&mut self, known: &[String]) {
        let known: Vec<_> = known.iter().filter(|text| !matches!(text.as_str(), "Unknown" | "None")).cloned().collect();
        if known.is_empty() {
            return;
        }
        let all = format!("False positives: {}", super::one_line(&known.join("; ")));
        let description = super::one_line(self.draft.description.as_deref().unwrap_or_default());
        let joined = format!("{description} {all}");
        if joined.len() <= MAX_DESCRIPTION_BYTES {
            self.draft.description = Some(joined.trim_start().to_owned());
        } else {
            self.draft.note(bounded(&all, MAX_DESCRIPTION_BYTES));
        }
    }

    fn log_source(&mut self, source: Option<&Value>) {
        let text = |key: &str| source.and_then(|source| source.get(key)).and_then(Value::as_str);
        if text("product") != Some("aws") || text("service") != Some("cloudtrail") {
            self.refuse("logsource", "only rules for product aws, service cloudtrail can be imported");
        }
        if text("category").is_some() {
            self.refuse("logsource.category", "a category is not known for CloudTrail; leave it out");
        }
    }

    fn detection(&mut self, detection: &Map<String, Value>) {
        if detection.contains_key("timeframe") {
            self.refuse("detection.timeframe", "a time frame counts over several records, which a rule cannot do yet");
        }
        let mut selections: Vec<(&str, Expression)> = Vec::new();
        for (name, body) in detection.iter().filter(|(name, _)| !matches!(name.as_str(), "condition" | "timeframe")) {
            let place = format!("detection.{name}");
            selections.extend(self.selection(&place, body).map(|expression| (name.as_str(), expression)));
        }
        let condition = match detection.get("condition") {
            Some(Value::String(text)) => vec![text.as_str()],
            Some(Value::Array(texts)) if !texts.is_empty() => texts.iter().filter_map(Value::as_str).collect(),
            _ => return self.refuse("detection.condition", "the condition is a text such as \"selection\""),
        };
        let names: Vec<_> = detection.keys().map(String::as_str).filter(|name| *name != "condition").collect();
        let mut conditions = Vec::new();
        for text in condition {
            match sigma_condition::parse(text, &names) {
                Ok(condition) => conditions.push(condition),
                Err(message) => self.refuse("detection.condition", message),
            }
        }
        if !self.errors.is_empty() {
            return;
        }
        let condition = if conditions.len() == 1 { conditions.remove(0) } else { Condition::Or(conditions) };
        let mut used = Vec::new();
        named(&condition, &mut used);
        for (name, _) in selections.iter().filter(|(name, _)| !used.contains(name)) {
            self.draft.note(format!("the selection {name:?} is not used by the condition, and left out"));
        }
        self.condition(&condition, &selections);
    }

    fn selection(&mut self, place: &str, body: &Value) -> Option<Expression> {
        const KEYWORDS: &str = "a search without a field (keywords) is not supported; name the field";
        match body {
            Value::Object(members) if members.is_empty() => {
                self.refuse(place, "the selection is empty");
                None
            }
            Value::Object(members) => {
                let mut parts = Vec::new();
                let mut notes = Vec::new();
                for (key, value) in members {
                    match sigma_value::line(key, value, &mut notes) {
                        Ok(part) => parts.push(part),
                        Err(message) => self.refuse(&format!("{place}.{key}"), message),
                    }
                }
                for note in notes {
                    self.draft.note(note);
                }
                Some(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
            }
            Value::Array(maps) if !maps.is_empty() && maps.iter().all(Value::is_object) => {
                let maps = maps.iter().enumerate();
                let parts: Vec<_> = maps.filter_map(|(i, map)| self.selection(&format!("{place}[{i}]"), map)).collect();
                Some(Expression::Any(parts))
            }
            _ => {
                self.refuse(place, KEYWORDS);
                None
            }
        }
    }

    fn condition(&mut self, condition: &Condition, selections: &[(&str, Expression)]) {
        let mut items = Vec::new();
        split(condition, selections, &mut items);
        let mut asked = Vec::new();
        let mut exceptions = Vec::new();
        for (names, item) in items {
            match item {
                Expression::Not(inner) if inner.is_positive() => exceptions.push((names, *inner)),
                item if item.is_positive() => asked.push(item),
                item => self.mixed(names, &item, &mut asked, &mut exceptions),
            }
        }
        if asked.is_empty() {
            self.make_positive(&mut asked, &mut exceptions);
        }
        let asked = Expression::All(asked);
        let patterns = std::iter::once(&asked).chain(exceptions.iter().map(|(_, exception)| exception));
        let twice: BTreeSet<_> =
            patterns.flat_map(Expression::asked_twice).filter(|path| !is_plain_field(path)).collect();
        for path in twice {
            self.draft
                .note(format!("if {path} is a list, one element must meet all conditions on it; Sigma takes any"));
        }
        let (mut asked, opposites) = match whole(vec![asked]) {
            Ok(whole) => whole,
            Err(problem) => return self.refuse("detection.condition", problem.message()),
        };
        self.note_lists(&asked, &mut Vec::new());
        self.draft.event_source = self.hoisted(&mut asked, "eventSource");
        self.draft.event_name = self.hoisted(&mut asked, "eventName");
        self.draft.pattern = asked.to_pattern();
        for leaf in opposites {
            let path = leaf.path.clone();
            let reason = bounded(&format!("the rule asks for more of {path}"), MAX_REASON_BYTES);
            if !is_plain_field(&path) {
                self.draft
                    .note(format!("if {path} is a list, every element must meet the second condition on it here"));
            }
            let pattern = Conjunction { fields: vec![leaf], branches: Vec::new() }.to_pattern();
            self.draft.unless.push(json!({ "pattern": pattern, "reason": reason }));
        }
        for (names, exception) in exceptions {
            match Conjunction::of(&exception) {
                Ok(pattern) => {
                    self.note_lists(&pattern, &mut Vec::new());
                    let reason = bounded(&format!("Sigma filter {names}"), MAX_REASON_BYTES);
                    self.draft.unless.push(json!({ "pattern": pattern.to_pattern(), "reason": reason }));
                }
                // What nothing meets needs no exception.
                Err(Problem::Never(path)) => {
                    self.draft
                        .note(format!("the filter {names} is left out: its conditions on {path} exclude each other"));
                }
                Err(problem) => self.refuse("detection.condition", problem.message()),
            }
        }
    }

    /// Something that is neither plainly asked for nor plainly an exception, such as "a or not b".
    fn mixed(
        &mut self,
        names: String,
        item: &Expression,
        asked: &mut Vec<Expression>,
        exceptions: &mut Vec<(String, Expression)>,
    ) {
        match (pushed_down(item, false), pushed_down(item, true)) {
            (Ok(positive), _) => {
                self.note_doubtful(item);
                asked.push(positive);
            }
            (_, Ok(opposite)) => {
                self.note_doubtful(&Expression::Not(Box::new(item.clone())));
                exceptions.push((names, opposite));
            }
            (Err(NotNegatable(path)), _) => {
                let message =
                    format!("\"not\" cannot be said for {path} here; write \"... and not {names}\", or two rules");
                self.refuse("detection.condition", message);
            }
        }
    }

    /// A rule needs something that it asks for: the first exception that can be turned round.
    fn make_positive(&mut self, asked: &mut Vec<Expression>, exceptions: &mut Vec<(String, Expression)>) {
        for at in 0..exceptions.len() {
            let Some(Ok(positive)) = exceptions.get(at).map(|(_, exception)| pushed_down(exception, true)) else {
                continue;
            };
            let (_, exception) = exceptions.remove(at);
            self.note_doubtful(&Expression::Not(Box::new(exception)));
            asked.push(positive);
            return;
        }
        self.refuse(
            "detection.condition",
            "the rule only says what must not be there; add what must, such as eventSource",
        );
    }

    fn note_doubtful(&mut self, expression: &Expression) {
        for path in doubtful(expression) {
            self.draft.note(format!("\"not\": if {path} is a list, one element that differs is enough here"));
        }
    }

    /// Two fields below a list: we ask for one element that has both, Sigma does not.
    fn note_lists<'a>(&mut self, pattern: &'a Conjunction, above: &mut Vec<&'a str>) {
        let before = above.len();
        for field in &pattern.fields {
            for other in above.iter().filter(|other| **other != field.path) {
                let parent = common_parent(other, &field.path);
                if parent == "resources" || (!parent.is_empty() && !is_container(parent)) {
                    self.draft.note(format!(
                        "if {parent} is a list, {other} and {} must hold in the same element; Sigma takes any two",
                        field.path
                    ));
                }
            }
            above.push(&field.path);
        }
        for branch in &pattern.branches {
            self.note_lists(branch, above);
        }
        above.truncate(before);
    }

    /// The names of a field that every match must have, as values of a plain condition.
    fn hoisted(&mut self, pattern: &mut Conjunction, path: &str) -> Vec<String> {
        let Some(names) = required(pattern, path) else {
            return Vec::new();
        };
        if pattern.field(path).is_some() {
            pattern.take_field(path);
        } else {
            // Only one of these names is left: the branches can say it shortly.
            for branch in &mut pattern.branches {
                simplify(branch, path);
            }
        }
        self.draft.note(format!("case counts for {path}, as CloudTrail writes it"));
        names
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// `attack.t1098.001` is a technique; tactics, groups and software are tags like others.
fn technique(tag: &str) -> Option<String> {
    let id = tag.to_ascii_uppercase().strip_prefix("ATTACK.")?.to_owned();
    let mut parts = id.strip_prefix('T')?.split('.');
    let digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_technique =
        digits(parts.next()?, 4) && parts.next().is_none_or(|sub| digits(sub, 3)) && parts.next().is_none();
    is_technique.then_some(id)
}

fn named<'a>(condition: &'a Condition, names: &mut Vec<&'a str>) {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| named(part, names)),
        Condition::Not(part) => named(part, names),
        Condition::Selection(name) => names.push(name),
    }
}

/// What must hold, each with the names of its selections.
fn split(condition: &Condition, selections: &[(&str, Expression)], items: &mut Vec<(String, Expression)>) {
    match condition {
        Condition::And(parts) => parts.iter().for_each(|part| split(part, selections, items)),
        Condition::Not(inner) => match &**inner {
            Condition::Or(parts) => {
                for part in parts {
                    split(&Condition::Not(Box::new(part.clone())), selections, items);
                }
            }
            Condition::Not(inner) => split(inner, selections, items),
            _ => flatten(condition.names(), expression(condition, selections), items),
        },
        _ => flatten(condition.names(), expression(condition, selections), items),
    }
}

/// A selection may itself hold what must not be (`neq`).
fn flatten(names: String, item: Expression, items: &mut Vec<(String, Expression)>) {
    match item {
        Expression::All(parts) if !parts.iter().all(Expression::is_positive) => {
            for part in parts {
                flatten(names.clone(), part, items);
            }
        }
        Expression::Not(inner) => match *inner {
            Expression::Not(inner) => flatten(names, *inner, items),
            inner => items.push((names, Expression::Not(Box::new(inner)))),
        },
        item => items.push((names, item)),
    }
}

fn expression(condition: &Condition, selections: &[(&str, Expression)]) -> Expression {
    let all = |parts: &[Condition]| parts.iter().map(|part| expression(part, selections)).collect();
    match condition {
        Condition::And(parts) => Expression::All(all(parts)),
        Condition::Or(parts) => Expression::Any(all(parts)),
        Condition::Not(part) => Expression::Not(Box::new(expression(part, selections))),
        Condition::Selection(wanted) => {
            let found = selections.iter().find(|(name, _)| name == wanted);
            found.map_or(Expression::Any(Vec::new()), |(_, expression)| expression.clone())
        }
    }
}

fn common_parent<'a>(left: &'a str, right: &str) -> &'a str {
    let (left_parent, right_parent) = (parent(left), parent(right));
    let mut end = 0;
    let mut from = 0;
    for (mine, theirs) in left_parent.split('.').zip(right_parent.split('.')) {
        if mine != theirs {
            break;
        }
        end = from + mine.len();
        from = end + 1;
    }
    left.get(..end).unwrap_or_default()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// The names one of which the field must have in whichever way the pattern is met; `None` where others will do.
fn required(pattern: &Conjunction, path: &str) -> Option<Vec<String>> {
    if let Some(field) = pattern.field(path) {
        return plain_names(field);
    }
    if pattern.branches.is_empty() {
        return None;
    }
    let mut names = Vec::new();
    for branch in &pattern.branches {
        for name in required(branch, path)? {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Some(names)
}

/// The field's values, if all are names spelled as CloudTrail spells them.
fn plain_names(field: &Leaf) -> Option<Vec<String>> {
    let name = |value: &Value| {
        let text = value.get("equals-ignore-case")?.as_str()?;
        let is_name =
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        let has_lower = text.bytes().any(|byte| byte.is_ascii_lowercase());
        match field.path.as_str() {
            _ if !is_name => None,
            // Sources are host names: in small letters, whatever the rule says.
            "eventSource" => Some(text.to_ascii_lowercase()),
            _ => (has_lower && text.starts_with(|c: char| c.is_ascii_uppercase())).then(|| text.to_owned()),
        }
    };
    field.values.iter().map(name).collect()
}

fn simplify(pattern: &mut Conjunction, path: &str) {
    for field in pattern.fields.iter_mut().filter(|field| field.path == path) {
        if let Some(names) = plain_names(field) {
            field.values = names.into_iter().map(Value::String).collect();
        }
    }
    for branch in &mut pattern.branches {
        simplify(branch, path);
    }
}

#[allow(clippy::too_many_lines, reason = "lists of examples")]
#[cfg(test)]
mod tests {
    use crate::rules::RuleSet;
    use crate::rules::import::{Format, import, print};

    const HEAD: &str = "title: A rule\nid: 3f6a2b10-0000-4000-8000-000000000001\nlogsource: {product: aws, service: cloudtrail}\nlevel: high\n";

    /// The rules as they are printed, then notes; or what is wrong. What is printed can be loaded.
    fn read(text: &str) -> String {
        match import(Format::Sigma, "folder/a rule.yml", text) {
            Ok(imported) => {
                let rules: Vec<_> = imported.iter().map(|imported| imported.rule.clone()).collect();
                let printed = print(&rules);
                RuleSet::parse(&printed).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
                let notes = imported.iter().flat_map(|imported| &imported.notes);
                notes.fold(printed, |shown, note| format!("{shown}\nnote: {note}"))
            }
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    /// What the detection becomes.
    fn detect(detection: &str) -> String {
        let shown = read(&format!("{HEAD}detection:\n{detection}"));
        let body: Vec<_> = shown
            .lines()
            .filter(|line| !["\"id\"", "\"title\"", "\"severity\""].iter().any(|key| line.contains(key)))
            .collect();
        body.join("\n").replace("folder/a rule.yml: ", "")
    }

    #[test]
    fn a_rule_keeps_what_it_says_of_itself() {
        insta::assert_snapshot!(read(
            "title: Trail stopped by somebody\n\
             id: 3f6a2b10-0000-4000-8000-000000000001\n\
             status: experimental\n\
             description: |\n    Somebody stopped a trail.\n    Nobody sees more.\n\
             author: Jo Doe, Example Corp\n\
             references:\n    - https://example.com/a\n\
             tags:\n    - attack.defense-evasion\n    - attack.t1562.008\n    - attack.T1098\n    - cve.2024-1\n\
             date: 2024-05-01\n\
             license: Apache-2.0\n\
             custom: {x: y}\n\
             logsource:\n    product: aws\n    service: cloudtrail\n\
             detection:\n\
             \x20   selection:\n        eventSource: CloudTrail.amazonaws.com\n        eventName: [StopLogging, DeleteTrail]\n\
             \x20   filter_main_pipeline:\n        userIdentity.arn|endswith: ':role/pipeline'\n\
             \x20   filter_main_service:\n        eventType: AwsServiceEvent\n\
             \x20   unused:\n        a: b\n\
             \x20   condition: selection and not 1 of filter_main_*\n\
             falsepositives:\n    - Maintenance\n    - Tests\n\
             level: critical\n"
        ), @r#"
        {
          "events": [
            {
              "id": "3f6a2b10-0000-4000-8000-000000000001",
              "title": "Trail stopped by somebody",
              "description": "Somebody stopped a trail. Nobody sees more. False positives: Maintenance; Tests",
              "severity": "CRITICAL",
              "author": "Jo Doe, Example Corp",
              "references": ["https://example.com/a"],
              "eventSource": "cloudtrail.amazonaws.com",
              "eventName": ["StopLogging", "DeleteTrail"],
              "unless": [
                {
                  "pattern": { "userIdentity.arn": [{ "suffix": { "equals-ignore-case": ":role/pipeline" } }] },
                  "reason": "Sigma filter filter_main_pipeline"
                },
                {
                  "pattern": { "eventType": [{ "equals-ignore-case": "AwsServiceEvent" }] },
                  "reason": "Sigma filter filter_main_service"
                }
              ],
              "attack": ["T1562.008", "T1098"],
              "tags": ["attack.defense-evasion", "cve.2024-1"]
            }
          ]
        }
        note: "custom" is left out: it does not change what the rule matches
        note: the rule's licence is Apache-2.0
        note: the selection "unused" is not used by the condition, and left out
        note: case counts for eventSource, as CloudTrail writes it
        note: case counts for eventName, as CloudTrail writes it
        "#);
    }

    #[test]
    fn what_a_condition_becomes() {
        let all: Vec<_> = [
            "  a: {eventSource: sts.amazonaws.com, eventName: AssumeRole}\n  b: {eventSource: iam.amazonaws.com, eventName: [PassRole, GetRole]}\n  condition: 1 of them",
            "  a: {eventName: consolelogin, errorCode: null}\n  condition: a",
            "  a: {eventName|startswith: Delete}\n  b: {errorCode: x}\n  condition: a and not b",
            "  a: [{eventName: ActOne, x: 1}, {eventName: ActTwo, y: 'true'}]\n  condition: a",
            "  a: {eventName: ActOne, userIdentity.type|neq: Root}\n  condition: a",
            "  a: {eventName: ActOne}\n  b: {userAgent: x, requestParameters.p: y}\n  c: {errorCode: z}\n  condition: a and not (b and not c)",
            "  a: {eventName: ActOne}\n  b: {userAgent: x}\n  condition: a or not b",
            "  a: {userAgent: x, sourceIPAddress|cidr: 10.0.0.0/8}\n  condition: not a",
            "  a: {userAgent|contains|all: [ab, bc]}\n  condition: a",
            "  a: {requestParameters.p|re: 'a+', requestParameters.p|contains: b}\n  condition: a",
            "  a: {errorCode: x}\n  b: {errorCode: y, eventName: ActOne}\n  c: {errorCode: x, userAgent: z}\n  condition: a and (b or c)",
            "  a: {requestParameters.items.port: 22, requestParameters.items.cidr: 0.0.0.0/0}\n  condition: a",
            "  a: {eventName: ActOne}\n  condition: [a, a]",
        ]
        .into_iter()
        .map(detect)
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        {
          "events": [
            {
              "eventSource": ["sts.amazonaws.com", "iam.amazonaws.com"],
              "eventName": ["AssumeRole", "PassRole", "GetRole"],
              "pattern": {
                "$or": [
                  { "eventSource": ["sts.amazonaws.com"], "eventName": ["AssumeRole"] },
                  { "eventSource": ["iam.amazonaws.com"], "eventName": ["PassRole", "GetRole"] }
                ]
              }
            }
          ]
        }
        note: case counts for eventSource, as CloudTrail writes it
        note: case counts for eventName, as CloudTrail writes it

        {
          "events": [
            {
              "pattern": { "eventName": [{ "equals-ignore-case": "consolelogin" }], "errorCode": [{ "exists": false }, null] }
            }
          ]
        }

        {
          "events": [
            {
              "pattern": { "eventName": [{ "prefix": { "equals-ignore-case": "Delete" } }] },
              "unless": [{ "pattern": { "errorCode": [{ "equals-ignore-case": "x" }] }, "reason": "Sigma filter b" }]
            }
          ]
        }

        {
          "events": [
            {
              "eventName": ["ActOne", "ActTwo"],
              "pattern": {
                "$or": [
                  { "eventName": ["ActOne"], "x": [{ "equals-ignore-case": "1" }, 1] },
                  { "eventName": ["ActTwo"], "y": [{ "equals-ignore-case": "true" }, true] }
                ]
              }
            }
          ]
        }
        note: case counts for eventName, as CloudTrail writes it

        {
          "events": [
            {
              "eventName": "ActOne",
              "unless": [
                { "pattern": { "userIdentity.type": [{ "equals-ignore-case": "Root" }] }, "reason": "Sigma filter a" }
              ]
            }
          ]
        }
        note: case counts for eventName, as CloudTrail writes it

        {
          "events": [
            {
              "eventName": "ActOne",
              "pattern": {
                "$or": [
                  { "userAgent": [{ "exists": false }, { "anything-but": { "equals-ignore-case": "x" } }] },
                  { "requestParameters.p": [{ "exists": false }, { "anything-but": { "equals-ignore-case": "y" } }] },
                  { "errorCode": [{ "equals-ignore-case": "z" }] }
                ]
              }
            }
          ]
        }
        note: "not": if requestParameters.p is a list, one element that differs is enough here
        note: case counts for eventName, as CloudTrail writes it

        {
          "events": [
            {
              "pattern": {
                "$or": [
                  { "eventName": [{ "equals-ignore-case": "ActOne" }] },
                  { "userAgent": [{ "exists": false }, { "anything-but": { "equals-ignore-case": "x" } }] }
                ]
              }
            }
          ]
        }

        detection.condition (rule "A rule"): the rule only says what must not be there; add what must, such as eventSource

        {
          "events": [
            {
              "pattern": { "userAgent": [{ "regex": "(?is)bc.*ab" }, { "regex": "(?is)abc" }, { "regex": "(?is)ab.*bc" }] }
            }
          ]
        }

        {
          "events": [
            {
              "pattern": { "requestParameters.p": [{ "regex": "a+" }, false] },
              "unless": [
                {
                  "pattern": { "requestParameters.p": [{ "anything-but": { "regex": "(?:(?is)b)" } }] },
                  "reason": "the rule asks for more of requestParameters.p"
                }
              ]
            }
          ]
        }
        note: if requestParameters.p is a list, one element must meet all conditions on it; Sigma takes any
        note: if requestParameters.p is a list, every element must meet the second condition on it here

        {
          "events": [
            {
              "pattern": { "errorCode": [{ "equals-ignore-case": "x" }], "userAgent": [{ "equals-ignore-case": "z" }] }
            }
          ]
        }

        {
          "events": [
            {
              "pattern": {
                "requestParameters.items.port": [{ "equals-ignore-case": "22" }, 22],
                "requestParameters.items.cidr": [{ "equals-ignore-case": "0.0.0.0/0" }]
              }
            }
          ]
        }
        note: if requestParameters.items is a list, requestParameters.items.port and requestParameters.items.cidr must hold in the same element; Sigma takes any two

        {
          "events": [
            {
              "eventName": "ActOne"
            }
          ]
        }
        note: case counts for eventName, as CloudTrail writes it
        "#);
    }

    #[test]
    fn what_is_refused_is_named() {
        let all: Vec<_> = [
            "  a: [foo, bar]\n  condition: a",
            "  a: foo\n  condition: a",
            "  a: {'|contains': foo}\n  condition: a",
            "  a: {eventName|base64: foo, b|expand: '%x%'}\n  condition: a and c",
            "  a: {eventName: ActOne}\n  timeframe: 5m\n  condition: a | count() by userName > 3",
            "  a: {}\n  condition: a",
            "  a: {errorCode: x}\n  b: {errorCode: y}\n  condition: a and b",
            "  a: {sourceIPAddress|cidr: 10.0.0.0/8}\n  condition: not a",
            "  a: {x: y}",
        ]
        .into_iter()
        .map(detect)
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        detection.a (rule "A rule"): a search without a field (keywords) is not supported; name the field

        detection.a (rule "A rule"): a search without a field (keywords) is not supported; name the field

        detection.a.|contains (rule "A rule"): a search without a field (keywords) is not supported; name the field

        detection.a.eventName|base64 (rule "A rule"): the modifier "base64" is not supported; write the values out
        detection.a.b|expand (rule "A rule"): the modifier "expand" is not supported; write the values out
        detection.condition (rule "A rule"): the selection "c" is not defined; there are: a

        detection.timeframe (rule "A rule"): a time frame counts over several records, which a rule cannot do yet
        detection.condition (rule "A rule"): the aggregation "| count() by userName > 3" counts over several records, which a rule cannot do yet

        detection.a (rule "A rule"): the selection is empty

        detection.condition (rule "A rule"): the conditions on errorCode exclude each other: nothing would ever match

        detection.condition (rule "A rule"): the rule only says what must not be there; add what must, such as eventSource

        detection.condition (rule "A rule"): the condition is a text such as "selection"
        "#);
        let all: Vec<_> = [
            "- a\n- b",
            "title: T\ncorrelation: {type: event_count}",
            "title: T\nfilter: {rules: any}",
            "title: T\naction: global",
            "title: T\nlevel: grave\nlogsource: {product: windows, category: process_creation}\ndetection: {a: {b: c}, condition: a}",
            "title: [",
            "---\n---\n",
        ]
        .into_iter()
        .map(read)
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        folder/a rule.yml: a Sigma rule is a map with title, logsource and detection

        folder/a rule.yml: correlation (rule "T"): a correlation rule counts or orders several events, which a rule cannot do yet

        folder/a rule.yml: filter (rule "T"): a Sigma filter changes other rules; add its condition to these as an exception ("unless")

        folder/a rule.yml: action (rule "T"): a rule in several parts (action: global) is not read; write each rule out

        folder/a rule.yml: level (rule "T"): "grave" is no level; give informational, low, medium, high or critical
        folder/a rule.yml: logsource (rule "T"): only rules for product aws, service cloudtrail can be imported
        folder/a rule.yml: logsource.category (rule "T"): a category is not known for CloudTrail; leave it out

        folder/a rule.yml: line 2: not valid YAML: while parsing a node, did not find expected node content

        folder/a rule.yml: the file has no rule
        "#);
    }

    #[test]
    fn a_file_may_hold_several_rules() {
        let one = |name: &str| {
            format!(
                "title: {name}\nlogsource: {{product: aws, service: cloudtrail}}\ndetection: {{a: {{eventName: {name}}}, condition: a}}\n"
            )
        };
        insta::assert_snapshot!(read(&format!("{}---\n{}---\n{}", one("First"), one("Second"), one("First"))), @r#"
        {
          "events": [
            {
              "id": "First",
              "title": "First",
              "severity": "MEDIUM",
              "eventName": "First"
            },
            {
              "id": "Second",
              "title": "Second",
              "severity": "MEDIUM",
              "eventName": "Second"
            },
            {
              "id": "First-2",
              "title": "First",
              "severity": "MEDIUM",
              "eventName": "First"
            }
          ]
        }
        note: the rule has no id: it is made from the title
        note: the rule has no level: MEDIUM is a guess
        note: case counts for eventName, as CloudTrail writes it
        note: the rule has no id: it is made from the title
        note: the rule has no level: MEDIUM is a guess
        note: case counts for eventName, as CloudTrail writes it
        note: the rule has no id: it is made from the title
        note: the rule has no level: MEDIUM is a guess
        note: case counts for eventName, as CloudTrail writes it
        "#);
    }
}
