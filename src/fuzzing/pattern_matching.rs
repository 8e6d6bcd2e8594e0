//! The input: a byte, then either the kind and the seed of a pattern and a record that `naive.rs` generates, or a pattern
//! and a record as texts with a NUL between them.

use std::sync::Arc;

use serde_json::Value;

use crate::cloudtrail::json;
use crate::rules::pattern::naive;
use crate::rules::{Explainer, Matcher, RuleSet, Surroundings, Verdict};

pub fn check(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind % 2 == 0 {
        check_meaning(rest);
    } else if let Some(nul) = rest.iter().position(|byte| *byte == 0) {
        let (pattern, record) = (&rest[..nul], &rest[nul + 1..]);
        if let Ok(pattern) = std::str::from_utf8(pattern) {
            check_texts(pattern, record);
        }
    }
}

/// The compiled pattern means what its definition says.
fn check_meaning(by: &[u8]) {
    let Some((pattern, record, expected)) = naive::chosen(by) else { return };
    match matches(&pattern, record.as_bytes()) {
        Ok(found) => assert_eq!(found, expected, "{pattern} on {record}"),
        Err(told) => assert!(told.contains("ways"), "{pattern}\n{told}"),
    }
}

/// Whatever the two are: the answer does not depend on the spelling of the record, nor on rules beside this one.
fn check_texts(pattern: &str, record: &[u8]) {
    let Ok(found) = matches(pattern, record) else { return };
    let Ok(value) = serde_json::from_slice::<Value>(record) else { return };
    // Deeper, a spelling is the text of the record; and two members of one name are only alike for the last of them.
    if !value.is_object() || json::to_valid(record).starts_with('"') {
        return;
    }
    for spelling in [json::to_valid(record), json::canonical(record)] {
        assert_eq!(matches(pattern, spelling.as_bytes()), Ok(found), "{pattern} on {spelling}");
    }
}

/// By a rule between two others, with a matcher that has seen the record before, and as it is explained.
fn matches(pattern: &str, record: &[u8]) -> Result<bool, String> {
    let rule = |id: &str, body: &str| format!(r#"{{"id": "{id}", "severity": "LOW", "description": "d", {body}}}"#);
    let rules = [
        rule("before", r#""eventName": "A*""#),
        rule("rule", &format!("\"pattern\": {pattern}")),
        rule("behind", r#""eventName": ["A", "B"]"#),
    ];
    let text = format!("{{\"lists\": {}, \"events\": [{}]}}", naive::LISTS, rules.join(",\n"));
    let compiled = RuleSet::parse(&text).map_err(|errors| errors.to_string())?;
    // A text that ends the rule and begins others would be rules of its own.
    if compiled.rules().len() != 3 {
        return Err("not a pattern".to_owned());
    }
    let mut matcher = Matcher::new(Arc::new(compiled));
    let first = matcher.matches(record);
    assert_eq!(matcher.matches(record), first, "asked twice");
    let found = first.iter().any(|rule| rule.id == "rule");
    let explainer = Explainer::new(&text, &Surroundings::default()).map_err(|errors| errors.to_string())?;
    for id in ["before", "rule", "behind"] {
        let told = explainer.explain(id, record).expect("there is such a rule");
        let is_found = first.iter().any(|rule| rule.id == id);
        if told.mode == crate::rules::Mode::Alert {
            assert_eq!(told.verdict == Verdict::Matches, is_found, "{id} is explained as something else");
        }
    }
    Ok(found)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = super::patterns().into_iter().step_by(10);
    let mut seeds: Vec<_> = texts.map(|(pattern, event)| format!("1{pattern}\0{event}").into_bytes()).collect();
    // A sequence without a pattern of its own, for what is chosen.
    let mut state = 1_u32;
    for kind in 0..64_u8 {
        let mut seed = vec![0, kind];
        seed.extend((0..32).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }));
        seeds.push(seed);
    }
    seeds
}
