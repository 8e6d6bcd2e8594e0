//! Patterns, detonations and rule tests of others, which are not part of this project: `TRAILHOUND_TEST_DATA` names
//! their folder.
#![allow(clippy::print_stdout, reason = "the table of detonations is what is asked for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use trailhound::rules::{DEFAULT_RULES, Matcher, Mode, RuleSet};

/// How many detonations must raise an alert at least.
const MIN_DETECTED: usize = 33;
/// It knows Stratus by the name that Stratus gives itself, which no attacker would.
const NOT_COUNTED: &str = "attack-tool-user-agent";

fn read(path: &str) -> String {
    let folder = PathBuf::from(std::env::var_os("TRAILHOUND_TEST_DATA").expect("TRAILHOUND_TEST_DATA"));
    let path = folder.join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn default_rules() -> Matcher {
    Matcher::new(Arc::new(RuleSet::parse(DEFAULT_RULES).unwrap()))
}

/// A rule with nothing but a pattern.
fn load(pattern: &RawValue) -> Result<Matcher, String> {
    let file = format!(r#"[{{"id": "r", "severity": "LOW", "pattern": {pattern}}}]"#);
    RuleSet::parse(&file).map(|rules| Matcher::new(Arc::new(rules))).map_err(|errors| errors.to_string())
}

fn patterns(file: &str) -> Vec<Box<RawValue>> {
    serde_json::from_str(&read(&format!("eventbridge_patterns/{file}"))).unwrap()
}

/// What EventBridge's engine answered, by name.
fn expected(file: &str) -> BTreeMap<String, bool> {
    #[derive(Deserialize)]
    struct Answer {
        name: String,
        #[serde(rename = "match")]
        matches: bool,
    }
    let text = read(&format!("eventbridge_patterns/{file}"));
    let answers = text.lines().map(|line| serde_json::from_str::<Answer>(line).unwrap());
    answers.map(|answer| (answer.name, answer.matches)).collect()
}

#[test]
#[ignore = "needs TRAILHOUND_TEST_DATA"]
fn the_published_cases_of_eventbridge() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        rule: Box<RawValue>,
        event: Box<RawValue>,
    }
    let cases: Vec<Case> = serde_json::from_str(&read("eventbridge_patterns/correctness-cases.json")).unwrap();
    let answers: BTreeMap<_, _> = cases
        .into_iter()
        .map(|case| {
            let mut matcher = load(&case.rule).unwrap_or_else(|errors| panic!("{}: {errors}", case.name));
            (case.name, !matcher.matches(case.event.get().as_bytes()).is_empty())
        })
        .collect();
    assert_eq!(answers.len(), 51);
    assert_eq!(answers, expected("correctness-expected.jsonl"));
}

#[test]
#[ignore = "needs TRAILHOUND_TEST_DATA"]
fn the_rule_and_event_files_of_eventbridge() {
    let events = ["arrayEvent1", "arrayEvent2", "arrayEvent3", "arrayEvent4", "bigEvent"];
    let mut answers = BTreeMap::new();
    for rule in ["arrayRule1", "arrayRule2", "arrayRule3", "arrayRule4", "bigEventRule"] {
        let pattern = RawValue::from_string(read(&format!("eventbridge_patterns/{rule}.json"))).unwrap();
        let mut matcher = load(&pattern).unwrap_or_else(|errors| panic!("{rule}: {errors}"));
        for event in events {
            let text = read(&format!("eventbridge_patterns/{event}.json"));
            answers.insert(format!("{rule}.json x {event}.json"), !matcher.matches(text.as_bytes()).is_empty());
        }
    }
    assert_eq!(answers, expected("files-expected.jsonl"));
}

#[test]
#[ignore = "needs TRAILHOUND_TEST_DATA"]
fn alternatives_as_eventbridge_reads_them() {
    for pattern in patterns("orRelationshipRules.json") {
        load(&pattern).unwrap_or_else(|errors| panic!("{pattern}: {errors}"));
    }
    // There, `$or` is a field's own name in these. No record has such a field; here the author is asked.
    for pattern in
        patterns("wrongOrRelationshipRules.json").into_iter().chain(patterns("normalRulesWithOrWording.json"))
    {
        let errors = load(&pattern).expect_err(pattern.get());
        assert!(errors.contains("$or"), "{pattern}: {errors}");
    }
}

#[test]
#[ignore = "needs TRAILHOUND_TEST_DATA"]
fn detonations_are_detected() {
    #[derive(Deserialize)]
    struct Log {
        #[serde(rename = "Records")]
        records: Vec<Box<RawValue>>,
    }
    let truth: BTreeMap<String, Value> = serde_json::from_str(&read("ground_truth/stratus.json")).unwrap();
    let with_log = truth.iter().filter(|(_, one)| one["has_log"] == true).map(|(name, _)| name);
    let mut matcher = default_rules();
    let (mut table, mut missed) = (Vec::new(), Vec::new());
    for name in with_log {
        let log: Log = serde_json::from_str(&read(&format!("cloudtrail/stratus/{name}.json"))).unwrap();
        let rules: Vec<_> = log.records.iter().flat_map(|raw| matcher.matches(raw.get().as_bytes())).collect();
        let fired = |mode: Mode| {
            let ids =
                rules.iter().filter(|rule| rule.mode == mode && rule.id != NOT_COUNTED).map(|rule| rule.id.as_str());
            ids.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
        };
        if fired(Mode::Alert).is_empty() {
            missed.push(name.as_str());
        }
        table.push(format!("| {name} | {} | {} |", fired(Mode::Alert), fired(Mode::Shadow)));
    }
    println!("| detonation | alerts | shadow |\n| --- | --- | --- |\n{}", table.join("\n"));
    println!("missed: {}", if missed.is_empty() { "none".to_owned() } else { missed.join(", ") });
    assert_eq!(table.len(), 35);
    assert!(table.len() - missed.len() >= MIN_DETECTED, "missed: {missed:?}");
}

/// `tests/data/panther.json` says which of our rules stands for which of Panther's, and on which of their tests both
/// differ, with the reason.
#[test]
#[ignore = "needs TRAILHOUND_TEST_DATA"]
fn panthers_rule_tests_hold_for_ours_except_for_known_differences() {
    #[derive(Deserialize)]
    struct Counterpart {
        rule: String,
        #[serde(default)]
        differences: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    struct Case {
        rule_id: String,
        test_name: String,
        expected: bool,
        record: Box<RawValue>,
    }
    let ours: BTreeMap<String, Counterpart> = serde_json::from_str(include_str!("../data/panther.json")).unwrap();
    let mut open: BTreeSet<(String, String)> =
        ours.iter().flat_map(|(id, one)| one.differences.keys().map(move |test| (id.clone(), test.clone()))).collect();
    let mut matcher = default_rules();
    let (mut wrong, mut agreed, mut covered) = (Vec::new(), 0, BTreeSet::new());
    for line in read("rule_tests/panther.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let Some(counterpart) = ours.get(&case.rule_id) else { continue };
        covered.insert(case.rule_id.clone());
        let found = matcher.matches(case.record.get().as_bytes()).iter().any(|rule| rule.id == counterpart.rule);
        let listed = counterpart.differences.contains_key(&case.test_name);
        match (found == case.expected, listed) {
            (true, false) => agreed += 1,
            (false, true) => _ = open.remove(&(case.rule_id, case.test_name)),
            (true, true) => {}
            (false, false) => {
                wrong.push(format!("{} / {}: {} says {found}", case.rule_id, case.test_name, counterpart.rule));
            }
        }
    }
    let unknown: Vec<_> = ours.keys().filter(|id| !covered.contains(*id)).collect();
    println!("{agreed} tests agree");
    assert!(wrong.is_empty(), "not as Panther expects:\n{}", wrong.join("\n"));
    assert!(open.is_empty(), "these differences are none any more: {open:?}");
    assert!(unknown.is_empty(), "Panther has no tests of these: {unknown:?}");
}
