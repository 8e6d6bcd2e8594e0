//! Other people's rules and records, which are not part of this project: `TRAILHOUND_TEST_DATA` names their folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use trailhound::rules::import::{Format, import, print};
use trailhound::rules::{Matcher, RuleSet, Surroundings};

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("TRAILHOUND_TEST_DATA").expect("TRAILHOUND_TEST_DATA"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The records of a file: `{"Records": [...]}`, a list, or a single one.
fn records(path: &Path) -> Vec<Value> {
    let mut document: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    match document.get_mut("Records").map(Value::take) {
        Some(Value::Array(records)) => records,
        _ => match document {
            Value::Array(records) => records,
            record => vec![record],
        },
    }
}

#[test]
#[ignore = "needs TRAILHOUND_TEST_DATA"]
fn imported_sigma_rules_match_what_sigma_matches() {
    let folder = folder();
    let mut rules = Vec::new();
    for path in files(&folder.join("sigma/rules")) {
        let imported = import(Format::Sigma, &name(&path), &fs::read_to_string(&path).unwrap());
        rules.extend(imported.unwrap_or_else(|errors| panic!("{errors:?}")).into_iter().map(|imported| imported.rule));
    }
    assert_eq!(rules.len(), 57);
    let loaded =
        RuleSet::load(&print(&rules), &Surroundings::default()).rules.unwrap_or_else(|errors| panic!("{errors}"));
    let mut matcher = Matcher::new(Arc::new(loaded));
    let mut found = BTreeSet::new();
    for source in files(&folder.join("cloudtrail")).into_iter().filter(|path| path.is_dir()) {
        for path in files(&source).into_iter().filter(|path| path.extension().is_some_and(|it| it == "json")) {
            for (index, record) in records(&path).iter().enumerate() {
                for rule in matcher.matches(record.to_string().as_bytes()) {
                    found.insert((rule.id.clone(), name(&source), name(&path), index));
                }
            }
        }
    }
    let wanted: BTreeSet<_> = fs::read_to_string(folder.join("sigma/matches.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            let index = usize::try_from(line["index"].as_u64().unwrap()).unwrap();
            (text("rule_id"), text("source"), text("file"), index)
        })
        .collect();
    assert!(wanted.len() > 200);
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}\nsurplus: {surplus:#?}");
}
