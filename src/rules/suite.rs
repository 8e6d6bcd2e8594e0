//! A file of rule tests, such as `monitored_events.tests.json`: records that a rule must match, and records that it must
//! not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::condition::Rule;
use super::document::{Member, Node};
use super::matcher::Record;
use super::pattern::value_conditions;
use super::reader::{Complaint, MAX_VALUE_BYTES, Place, Reader, bounded, unknown};
use super::suggest::nearest;
use super::{BUILT_IN_LISTS, Diagnostic, Level, RuleErrors, RuleSet, Surroundings};

const FILE_KEYS: [&str; 4] = ["rules", "bases", "lists", "$schema"];
const TEST_KEYS: [&str; 3] = ["record", "base", "change"];
/// What all records of a file come to at most: a long base can be named often.
const MAX_RECORDS_BYTES: usize = 256 << 20;

/// What a test says of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expect {
    Match,
    NoMatch,
}

impl Expect {
    pub const ALL: [Self; 2] = [Self::Match, Self::NoMatch];

    /// Its key in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::NoMatch => "noMatch",
        }
    }
}

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub rule: String,
    /// What the file calls the test.
    pub name: String,
    pub expected: Expect,
    /// Whether the rule matched, and no exception did.
    pub matched: bool,
    /// The reason of the exception because of which the record is no match.
    pub suppressed_by: Option<String>,
    /// Where the test stands, from 1.
    pub line: usize,
    /// The record that was tried, as JSON.
    pub record: String,
}

impl Outcome {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.matched == (self.expected == Expect::Match)
    }
}

/// What became of all tests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the file.
    pub outcomes: Vec<Outcome>,
    /// The rules without any test, in the order of the rule file.
    pub untested: Vec<String>,
    /// Of the file of tests.
    pub warnings: Vec<Diagnostic>,
    /// What the rules were read with: the lists of the file of tests included.
    pub surroundings: Surroundings,
}

impl Report {
    /// Whether every test came out as it should.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.outcomes.iter().all(Outcome::passed)
    }
}

/// Why no test was run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// The rule file is refused.
    #[error("{0}")]
    Rules(RuleErrors),
    /// The file of tests is.
    #[error("{0}")]
    Tests(RuleErrors),
}

/// Runs the tests against the rules. A rule that is off is tried as if it were not.
///
/// # Errors
///
/// Everything for which one of the files is refused; no test is run then.
pub fn run(tests: &str, rules: &str, surroundings: &Surroundings) -> Result<Report, SuiteError> {
    let refuse = |error| SuiteError::Tests(RuleErrors { errors: vec![error] });
    let (mut reader, root) = Reader::open(tests, "{\"rules\": {...}}").map_err(refuse)?;
    let sections = Sections::read(&mut reader, root);
    let surroundings = with_lists(surroundings, sections.lists);
    let rules = RuleSet::load(rules, &surroundings).rules.map_err(SuiteError::Rules)?;

    let mut suite = Suite { reader, bases: sections.bases, rules: &rules, tests: Vec::new(), bytes: 0 };
    if let Some((place, node)) = &sections.rules {
        suite.rules(place, *node);
    }
    suite.unused_bases();
    let (errors, warnings): (Vec<_>, Vec<_>) =
        suite.reader.finish().into_iter().partition(|one| one.level == Level::Error);
    if !errors.is_empty() {
        return Err(SuiteError::Tests(RuleErrors { errors }));
    }
    let outcomes: Vec<Outcome> = suite.tests.into_iter().map(Test::run).collect();
    let tested: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.rule.as_str()).collect();
    let untested = rules.rules().iter().filter(|rule| !tested.contains(rule.id.as_str()));
    let untested = untested.map(|rule| rule.id.clone()).collect();
    Ok(Report { outcomes, untested, warnings, surroundings })
}

/// What the tests add to the lists that the configuration fills.
fn with_lists(surroundings: &Surroundings, more: BTreeMap<String, Vec<Value>>) -> Surroundings {
    let mut surroundings = surroundings.clone();
    for (name, values) in more {
        surroundings.lists.entry(name).or_default().extend(values);
    }
    surroundings
}

/// The parts of a file: the tests can only be read once the rules are known, and these take the lists.
#[derive(Default)]
struct Sections<'a> {
    lists: BTreeMap<String, Vec<Value>>,
    bases: BTreeMap<String, Base>,
    rules: Option<(Place, Node<'a>)>,
}

/// A record that tests start from.
struct Base {
    place: Place,
    record: Value,
    used: bool,
}

impl<'a> Sections<'a> {
    fn read(reader: &mut Reader<'a>, root: Node<'a>) -> Self {
        let mut sections = Self::default();
        let place = reader.root(root);
        let Some(members) = reader.object(&place, root, "{\"rules\": {...}}") else {
            return sections;
        };
        for (here, member) in members {
            match &*member.key {
                "$schema" => _ = reader.text(&here, member.value, MAX_VALUE_BYTES),
                "lists" => sections.lists = lists(reader, &here, member.value),
                "bases" => sections.bases = bases(reader, &here, member.value),
                "rules" => sections.rules = Some((here, member.value)),
                key => reader.error(&here, unknown(key, FILE_KEYS)),
            }
        }
        if sections.rules.is_none() {
            let advice = "write {\"rules\": {\"rule-id\": {\"match\": {...}, \"noMatch\": {...}}}}";
            reader.error(&place, Complaint::new("the file has no \"rules\": nothing is tested", advice));
        }
        sections
    }
}

fn lists<'a>(reader: &mut Reader<'a>, place: &Place, node: Node<'a>) -> BTreeMap<String, Vec<Value>> {
    let mut lists = BTreeMap::new();
    for (here, member) in reader.object(place, node, "an object of lists").unwrap_or_default() {
        if !BUILT_IN_LISTS.contains(&&*member.key) {
            let advice = match nearest(&member.key, BUILT_IN_LISTS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("tests can add to {}", BUILT_IN_LISTS.join(", ")),
            };
            reader.error(&here, Complaint::new("not one of the lists that the configuration fills", advice));
        } else if value_conditions(reader, &here, member.value).is_some()
            && let Some(Value::Array(values)) = value(reader, &here, member.value)
        {
            lists.insert(member.key.into_owned(), values);
        }
    }
    lists
}

fn bases<'a>(reader: &mut Reader<'a>, place: &Place, node: Node<'a>) -> BTreeMap<String, Base> {
    let mut bases = BTreeMap::new();
    for (here, member) in reader.object(place, node, "an object of records").unwrap_or_default() {
        if let Some(record) = record(reader, &here, member.value) {
            bases.insert(member.key.into_owned(), Base { place: here, record, used: false });
        }
    }
    bases
}

struct Suite<'a, 'r> {
    reader: Reader<'a>,
    bases: BTreeMap<String, Base>,
    rules: &'r RuleSet,
    tests: Vec<Test<'r>>,
    /// What the records of the tests come to.
    bytes: usize,
}

/// A test that can be run.
struct Test<'r> {
    rule: &'r Rule,
    name: String,
    expected: Expect,
    line: usize,
    record: String,
}

impl<'a> Suite<'a, '_> {
    fn rules(&mut self, place: &Place, node: Node<'a>) {
        for (here, member) in self.reader.object(place, node, "an object of rules").unwrap_or_default() {
            let here = Place { rule: Some(bounded(&member.key)), ..here };
            let Some(rule) = self.rules.by_id.get(&*member.key).and_then(|index| self.rules.rule(*index)) else {
                let near = nearest(&member.key, self.rules.by_id.keys().map(String::as_str));
                let advice = match near {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "remove its tests, or write the rule".to_owned(),
                };
                self.reader.error(&here, Complaint::new("the rule file has no rule of this id", advice));
                continue;
            };
            self.rule(rule, &here, member.value);
        }
    }
}

impl<'a, 'r> Suite<'a, 'r> {
    fn rule(&mut self, rule: &'r Rule, place: &Place, node: Node<'a>) {
        let expected = "an object with \"match\" and \"noMatch\"";
        for (here, member) in self.reader.object(place, node, expected).unwrap_or_default() {
            match Expect::ALL.into_iter().find(|expect| expect.as_str() == member.key) {
                Some(expected) => self.tests(rule, expected, &here, member.value),
                None => self.reader.error(&here, unknown(&member.key, Expect::ALL.map(Expect::as_str))),
            }
        }
    }

    fn tests(&mut self, rule: &'r Rule, expected: Expect, place: &Place, node: Node<'a>) {
        for (here, member) in self.reader.object(place, node, "an object of tests").unwrap_or_default() {
            let line = self.reader.line(here.at);
            let Some(record) = self.test(&here, member.value) else {
                continue;
            };
            self.bytes = self.bytes.saturating_add(record.len());
            if self.bytes > MAX_RECORDS_BYTES {
                let message = format!("the records come to more than {MAX_RECORDS_BYTES} bytes");
                self.reader.error(&here, Complaint::new(message, "split the file"));
                return;
            }
            self.tests.push(Test { rule, name: member.key.into_owned(), expected, line, record });
        }
    }

    /// The record of a test.
    fn test(&mut self, place: &Place, node: Node<'a>) -> Option<String> {
        let members = self.reader.object(place, node, "an object")?;
        let mut complete = true;
        for (here, member) in &members {
            if !TEST_KEYS.contains(&&*member.key) {
                self.reader.error(here, unknown(&member.key, TEST_KEYS));
                complete = false;
            }
        }
        let given = |key: &str| members.iter().find(|(_, member)| member.key == key);
        let record = match (given("record"), given("base"), given("change")) {
            (Some((here, member)), None, None) => {
                record(&mut self.reader, here, member.value).map(|_| member.value.text().to_owned())
            }
            (None, Some((here, member)), change) => self.changed(here, member, change),
            (Some(_), ..) => {
                let advice = "give either \"record\", or \"base\" and \"change\"";
                self.reader.error(place, Complaint::new("the test has two records", advice));
                None
            }
            (None, None, _) => {
                let advice = "give \"record\", or \"base\" and \"change\"";
                self.reader.error(place, Complaint::new("the test has no record", advice));
                None
            }
        };
        record.filter(|_| complete)
    }

    fn changed(&mut self, place: &Place, base: &Member<'a>, change: Option<&(Place, Member<'a>)>) -> Option<String> {
        let name = self.reader.text(place, base.value, MAX_VALUE_BYTES)?;
        let Some(base) = self.bases.get_mut(&name) else {
            let advice = match nearest(&name, self.bases.keys().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write it under \"bases\"".to_owned(),
            };
            self.reader.error(place, Complaint::new(format!("there is no base {:?}", bounded(&name)), advice));
            return None;
        };
        base.used = true;
        let mut changed = base.record.clone();
        if let Some((here, change)) = change {
            merge(&mut changed, record(&mut self.reader, here, change.value)?);
        }
        Some(changed.to_string())
    }

    fn unused_bases(&mut self) {
        // After an error, a test that uses it may not have been read.
        if self.reader.errors() > 0 {
            return;
        }
        for base in self.bases.values().filter(|base| !base.used) {
            self.reader.warning(&base.place, Complaint::new("no test uses this base", "remove it"));
        }
    }
}

impl Test<'_> {
    fn run(self) -> Outcome {
        let record = Record::read(self.record.as_bytes());
        let met = self.rule.body.allows(&record.key()) && record.meets(&self.rule.body);
        let exception = if met { record.exception(self.rule) } else { None };
        let suppressed_by = exception.and_then(|index| self.rule.exceptions.get(index)).map(|one| one.reason.clone());
        Outcome {
            rule: self.rule.info.id.clone(),
            matched: met && exception.is_none(),
            suppressed_by,
            name: self.name,
            expected: self.expected,
            line: self.line,
            record: self.record,
        }
    }
}

/// A record, or a change to one.
fn record<'a>(reader: &mut Reader<'a>, place: &Place, node: Node<'a>) -> Option<Value> {
    let kind = node.kind();
    let record = value(reader, place, node)?;
    if !record.is_object() {
        reader.error(place, format!("expected an object, found {kind}"));
        return None;
    }
    Some(record)
}

/// Fails for what nests deeper than 128 levels, which bounds every walk through it.
fn value<'a>(reader: &mut Reader<'a>, place: &Place, node: Node<'a>) -> Option<Value> {
    let value = serde_json::from_str(node.text());
    value.map_err(|error| reader.error(place, format!("cannot be read: {error}"))).ok()
}

/// Applies a JSON merge patch, RFC 7386; as deep as the patch.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else {
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            members.remove(&key);
        } else {
            merge(members.entry(key).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::DEFAULT_RULES;

    const DEFAULT_TESTS: &str = include_str!("../../monitored_events.tests.json");

    const RULES: &str = r#"{ "events": [
        { "id": "keys", "severity": "LOW", "eventName": "CreateAccessKey",
          "pattern": { "requestParameters": { "userName": [{ "anything-but": { "field": "userIdentity.userName" } }] } },
          "unless": [{ "pattern": { "userIdentity": { "userName": ["admin"] } }, "reason": "The help desk" }] },
        { "id": "queue", "severity": "LOW", "mode": "off",
          "pattern": { "requestParameters": { "queueUrl": [{ "list": "trailhound.queues" }] } } },
        { "id": "bare", "severity": "LOW", "eventName": "A" }
    ] }"#;

    fn ran(tests: &str) -> Report {
        run(tests, RULES, &Surroundings::default()).unwrap()
    }

    fn refused(tests: &str) -> String {
        run(tests, RULES, &Surroundings::default()).unwrap_err().to_string()
    }

    #[test]
    fn the_tests_of_the_default_rules_pass() {
        let report = run(DEFAULT_TESTS, DEFAULT_RULES, &Surroundings::default()).unwrap_or_else(|e| panic!("{e}"));
        let failed: Vec<_> = report.outcomes.iter().filter(|outcome| !outcome.passed()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(report.warnings, []);
        for rule in RuleSet::parse(DEFAULT_RULES).unwrap().rules() {
            for expected in Expect::ALL {
                let has = report.outcomes.iter().any(|one| one.rule == rule.id && one.expected == expected);
                assert!(has, "{} has no test under {:?}", rule.id, expected.as_str());
            }
        }
    }

    #[test]
    fn each_test_comes_out_with_its_place_and_its_record() {
        let report = ran(r#"{
            "bases": { "key": { "eventName": "CreateAccessKey",
                "userIdentity": { "type": "IAMUser", "userName": "alice" }, "requestParameters": { "userName": "bob" } } },
            "rules": { "keys": {
                "match": {
                    "for bob": { "base": "key" },
                    "their own": { "base": "key", "change": { "requestParameters": { "userName": "alice" } } }
                },
                "noMatch": {
                    "help desk": { "base": "key", "change": { "userIdentity": { "userName": "admin" } } },
                    "another call": { "record": { "eventName": "ListAccessKeys" } },
                    "for bob again": { "base": "key", "change": { "userIdentity": { "type": null } } }
                }
            } }
        }"#);
        let told: Vec<_> = report
            .outcomes
            .iter()
            .map(|one| (one.name.as_str(), one.line, one.passed(), one.matched, one.suppressed_by.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("for bob", 6, true, true, None),
                ("their own", 7, false, false, None),
                ("help desk", 10, true, false, Some("The help desk")),
                ("another call", 11, true, false, None),
                ("for bob again", 12, false, true, None),
            ]
        );
        assert!(!report.passed());
        let record: Value = serde_json::from_str(&report.outcomes[4].record).unwrap();
        assert_eq!(record["userIdentity"], json!({ "userName": "alice" }));
        assert_eq!(report.untested, ["queue", "bare"]);
    }

    #[test]
    fn lists_are_added_and_a_rule_that_is_off_is_tried() {
        let tests = r#"{ "lists": { "trailhound.queues": ["https://a"] }, "rules": { "queue": {
            "match": { "ours": { "record": { "requestParameters": { "queueUrl": "https://a" } } },
                       "configured": { "record": { "requestParameters": { "queueUrl": "https://b" } } } },
            "noMatch": { "another": { "record": { "requestParameters": { "queueUrl": "https://c" } } } } } } }"#;
        let configured = BTreeMap::from([("trailhound.queues".to_owned(), vec![json!("https://b")])]);
        let report = run(tests, RULES, &Surroundings { lists: configured, today: None }).unwrap();
        assert!(report.passed(), "{report:#?}");
        assert_eq!(ran(tests).outcomes.iter().filter(|one| !one.passed()).count(), 1);
    }

    #[test]
    fn everything_wrong_is_told_with_its_line() {
        insta::assert_snapshot!(refused(r#"{
            "list": {},
            "lists": { "trailhound.queue": ["a"], "mine": ["a"], "trailhound.topics": [{ "exists": true }] },
            "bases": { "call": { "eventName": "A" }, "unused": {}, "text": "A" },
            "rules": {
                "key": {},
                "no-such-rule-at-all": {},
                "bare": {
                    "matches": {},
                    "match": {
                        "no record": {},
                        "only a change": { "change": {} },
                        "both": { "record": {}, "base": "call" },
                        "unknown base": { "base": "cal", "change": {} },
                        "far base": { "base": "elsewhere" },
                        "no object": { "record": [] },
                        "no change": { "base": "call", "change": null },
                        "unknown key": { "record": {}, "expect": true },
                        "text": "A"
                    },
                    "noMatch": []
                }
            }
        }"#), @r##"
        line 2: list: unknown key; did you mean "lists"?
        line 3: lists["trailhound.queue"]: not one of the lists that the configuration fills; did you mean "trailhound.queues"?
        line 3: lists.mine: not one of the lists that the configuration fills; tests can add to trailhound.queues, trailhound.topics, trailhound.tables, trailhound.buckets, trailhound.trails, trailhound.services, trailhound.rule_buckets, trailhound.rule_keys
        line 3: lists["trailhound.topics"][0].exists: unknown condition; here only prefix, suffix, equals-ignore-case, wildcard, numeric, cidr, regex, exactly are possible
        line 4: bases.text: expected an object, found a string
        line 6: rules.key (rule "key"): the rule file has no rule of this id; did you mean "keys"?
        line 7: rules.no-such-rule-at-all (rule "no-such-rule-at-all"): the rule file has no rule of this id; remove its tests, or write the rule
        line 9: rules.bare.matches (rule "bare"): unknown key; did you mean "match"?
        line 11: rules.bare.match["no record"] (rule "bare"): the test has no record; give "record", or "base" and "change"
        line 12: rules.bare.match["only a change"] (rule "bare"): the test has no record; give "record", or "base" and "change"
        line 13: rules.bare.match.both (rule "bare"): the test has two records; give either "record", or "base" and "change"
        line 14: rules.bare.match["unknown base"].base (rule "bare"): there is no base "cal"; did you mean "call"?
        line 15: rules.bare.match["far base"].base (rule "bare"): there is no base "elsewhere"; write it under "bases"
        line 16: rules.bare.match["no object"].record (rule "bare"): expected an object, found a list
        line 17: rules.bare.match["no change"].change (rule "bare"): expected an object, found null
        line 18: rules.bare.match["unknown key"].expect (rule "bare"): unknown key; remove it
        line 19: rules.bare.match.text (rule "bare"): expected an object, found a string
        line 21: rules.bare.noMatch (rule "bare"): expected an object of tests, found a list
        "##);
        insta::assert_snapshot!(refused("{ \"bases\": {} }"), @r#"line 1: $: the file has no "rules": nothing is tested; write {"rules": {"rule-id": {"match": {...}, "noMatch": {...}}}}"#);
        insta::assert_snapshot!(refused("{"), @"line 1: $: not valid JSON at column 1: EOF while parsing an object");
        assert!(matches!(run("{\"rules\":{}}", "[]", &Surroundings::default()), Err(SuiteError::Rules(_))));
    }

    #[test]
    fn a_base_that_nothing_uses_is_a_warning() {
        let report = ran(r#"{ "bases": { "call": { "eventName": "A" } }, "rules": {} }"#);
        assert_eq!(report.warnings.len(), 1);
        assert_eq!(report.warnings[0].path, "bases.call");
        assert!(report.passed());
        assert_eq!(report.untested, ["keys", "queue", "bare"]);
    }

    /// The examples of RFC 7386, appendix A.
    #[test]
    fn changes_are_merged_as_the_rfc_says() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let mut merged: Value = serde_json::from_str(target).unwrap();
            merge(&mut merged, serde_json::from_str(patch).unwrap());
            assert_eq!(merged, serde_json::from_str::<Value>(result).unwrap(), "{target} {patch}");
        }
    }
}
