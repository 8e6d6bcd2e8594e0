//! The examples of `docs/rules.md` are true.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::condition::Field;
use super::pattern::{CONDITIONS, NEGATABLE};
use super::{BUILT_IN_LISTS, Matcher, RuleSet, Surroundings, suite};

const PAGE: &str = include_str!("../../docs/rules.md");
const MIN_EXAMPLES: usize = 40;

type Members = BTreeMap<String, Box<RawValue>>;

/// The fenced blocks that begin with "json example": a rule's conditions beside `match` and `noMatch`, a record or a
/// list of records, and perhaps `lists`.
fn examples() -> Vec<Members> {
    let blocks = PAGE.split("\n```json example\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}:\n{block}"))).collect()
}

fn matcher(conditions: &Members, lists: Option<Box<RawValue>>) -> Matcher {
    let mut own: BTreeMap<String, Vec<Value>> =
        lists.map(|lists| serde_json::from_str(lists.get()).unwrap()).unwrap_or_default();
    let built_in = BUILT_IN_LISTS.iter().filter_map(|name| own.remove_entry(*name)).collect();
    let asked: Vec<_> = conditions.iter().map(|(key, value)| format!("{key:?}: {value}")).collect();
    let rule = format!("{{\"id\": \"r\", \"severity\": \"LOW\", {}}}", asked.join(", "));
    let file = format!("{{\"lists\": {}, \"events\": [{rule}]}}", serde_json::to_string(&own).unwrap());
    let loaded = RuleSet::load(&file, &Surroundings { lists: built_in, ..Surroundings::default() });
    Matcher::new(Arc::new(loaded.rules.unwrap_or_else(|errors| panic!("{errors}:\n{file}"))))
}

#[test]
fn each_example_of_the_documentation_is_true() {
    let examples = examples();
    assert!(examples.len() >= MIN_EXAMPLES, "{} examples", examples.len());
    for mut example in examples {
        let records = [("match", true), ("noMatch", false)].map(|(key, expected)| {
            let raw = example.remove(key).unwrap_or_else(|| panic!("no {key} in {example:?}"));
            let all: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).unwrap_or_else(|_| vec![raw]);
            assert!(!all.is_empty(), "{key} of {example:?}");
            (all, expected)
        });
        let lists = example.remove("lists");
        let mut matcher = matcher(&example, lists);
        for (record, expected) in records.iter().flat_map(|(all, expected)| all.iter().map(|one| (one, *expected))) {
            let found = !matcher.matches(record.get().as_bytes()).is_empty();
            assert_eq!(found, expected, "{example:?} on {record}");
        }
    }
}

#[test]
fn each_condition_has_an_example() {
    let all: String = examples().iter().flat_map(|one| one.values()).map(|value| value.get()).collect();
    for condition in CONDITIONS {
        assert!(all.contains(&format!("{{ \"{condition}\": ")), "{condition}");
    }
    for condition in NEGATABLE {
        assert!(all.contains(&format!("{{ \"anything-but\": {{ \"{condition}\": ")), "anything-but {condition}");
    }
    let keys: Vec<_> = examples().into_iter().flat_map(Members::into_keys).collect();
    for key in ["pattern", "unless", "mode", "lists"] {
        assert!(keys.iter().any(|one| one == key), "{key}");
    }
    for key in Field::ALL.map(Field::key).iter().chain(&BUILT_IN_LISTS) {
        assert!(PAGE.contains(&format!("`{key}`")), "{key}");
    }
}

#[test]
fn the_file_that_is_shown_is_right_and_passes_its_tests() {
    let mut shown = PAGE.split("\n```json\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let (rules, tests) = (shown.next().unwrap(), shown.next().unwrap());
    let loaded = RuleSet::load(rules, &Surroundings::default());
    assert!(loaded.rules.is_ok() && loaded.warnings.is_empty(), "{loaded:?}");
    let report = suite::run(tests, rules, &Surroundings::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(report.passed() && report.outcomes.len() == 2 && report.untested.is_empty(), "{report:?}");
}
