//! The input: a byte that says what the text is, and the text: a rule file, a file of rule tests, or rules of others.

use std::collections::HashSet;

use serde_json::Value;

use crate::rules::import::{Format, import, print};
use crate::rules::{Diagnostic, Explainer, Loaded, RuleSet, Surroundings, suite};

/// The rules that a file of tests is run against.
const TESTED: &str = r#"{"events": [
    {"id": "a", "severity": "LOW", "description": "d", "eventName": "A*"},
    {"id": "b", "severity": "HIGH", "description": "d", "eventSource": "s.amazonaws.com", "eventName": ["A", "B"]}
]}"#;

const RECORD: &[u8] = br#"{"eventSource":"s3.amazonaws.com","eventName":"DeleteBucket","a":[{"b":"x"},1,null]}"#;

pub fn check(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match kind % 8 {
        4 => check_suite(text),
        5 => check_import(Format::EventBridge, text),
        6 => check_import(Format::CloudWatch, text),
        7 => check_import(Format::Sigma, text),
        _ => check_rules(text),
    }
}

fn check_rules(text: &str) {
    let Loaded { rules: loaded, warnings } = RuleSet::load(text, &Surroundings::default());
    check_diagnostics(text, &warnings);
    let parsed = RuleSet::parse(text);
    let explainer = Explainer::new(text, &Surroundings::default());
    let rules = match parsed {
        Ok(rules) => rules,
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "refused, and nobody knows why");
            check_diagnostics(text, &errors.errors);
            assert!(loaded.is_err(), "the lint lets through what cannot be compiled");
            assert!(explainer.is_err(), "what is refused is explained");
            return;
        }
    };
    match loaded {
        Ok(loaded) => assert_eq!(loaded.hash(), rules.hash()),
        Err(errors) => check_diagnostics(text, &errors.errors),
    }

    let explainer = explainer.unwrap_or_else(|errors| panic!("what loads is not explained: {errors}"));
    let ids: Vec<&str> = rules.rules().iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(explainer.ids().collect::<Vec<_>>(), ids);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an id twice");
    for rule in rules.rules() {
        assert_eq!(rules.find(&rule.id), Some(rule));
        serde_json::to_string(&**rule).expect("a rule is shown as JSON");
        for step in explainer.explain(&rule.id, RECORD).expect("there is such a rule").steps {
            super::assert_one_line(&step.text);
        }
    }

    // The hash names the meaning, not the spelling.
    if let Ok(value) = serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')) {
        let respelled = RuleSet::parse(&format!("{value:#}")).unwrap_or_else(|errors| panic!("respelled: {errors}"));
        assert_eq!(respelled.hash(), rules.hash(), "another spelling is another hash");
    }
}

/// A diagnostic is one line about a line that there is.
fn check_diagnostics(text: &str, all: &[Diagnostic]) {
    assert!(all.len() <= 1_001, "{} diagnostics", all.len());
    let lines = text.split('\n').count();
    for one in all {
        assert!((1..=lines).contains(&one.line), "line {} of {lines}: {one}", one.line);
        super::assert_one_line(&one.to_string());
    }
}

fn check_suite(text: &str) {
    match suite::run(text, TESTED, &Surroundings::default()) {
        Ok(report) => {
            check_diagnostics(text, &report.warnings);
            let tested: HashSet<_> = report.outcomes.iter().map(|outcome| outcome.rule.as_str()).collect();
            assert!(report.untested.iter().all(|rule| !tested.contains(rule.as_str())));
            assert_eq!(tested.len() + report.untested.len(), 2);
        }
        Err(suite::SuiteError::Tests(errors)) => check_diagnostics(text, &errors.errors),
        Err(suite::SuiteError::Rules(_)) => {} // The tests bring lists, which may be wrong.
    }
}

/// What is imported is a rule file that loads, and means what the printed one means.
fn check_import(format: Format, text: &str) {
    match import(format, "rules", text) {
        Ok(imported) => {
            let rules: Vec<Value> = imported.into_iter().map(|one| one.rule).collect();
            let printed = print(&rules);
            let reread: Value = serde_json::from_str(&printed).expect("printed as JSON");
            assert_eq!(reread["events"], Value::from(rules), "printed as something else");
            if let Err(errors) = RuleSet::parse(&printed) {
                panic!("what is imported does not load: {errors}\n{printed}");
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in &errors {
                super::assert_one_line(&error.to_string());
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let of_kind = |kind: u8, text: &str| [&[b'0' + kind], text.as_bytes()].concat();
    let mut seeds = Vec::new();
    // The default rules, one by one: a fuzzer makes little of large files.
    let pack: Value = serde_json::from_slice(&super::read("monitored_events.json")).expect("the default rules");
    for rule in pack["events"].as_array().expect("rules").iter().step_by(3) {
        let file = serde_json::json!({ "lists": pack["lists"], "events": [rule] });
        seeds.push(of_kind(0, &file.to_string()));
    }
    let tests: Value = serde_json::from_slice(&super::read("monitored_events.tests.json")).expect("their tests");
    for rule in tests["rules"].as_object().expect("tests").values().step_by(20) {
        seeds.push(of_kind(4, &serde_json::json!({ "rules": { "a": rule } }).to_string()));
    }
    for (index, (pattern, _)) in super::patterns().into_iter().step_by(30).enumerate() {
        let rule = format!(r#"{{"id": "r", "severity": "LOW", "description": "d", "pattern": {pattern}}}"#);
        seeds.push(of_kind(0, &format!("[{rule}]")));
        if index % 4 == 0 {
            seeds.push(of_kind(5, &pattern));
        }
    }
    for filter in [
        r#"{ ($.eventName = ConsoleLogin) && ($.additionalEventData.MFAUsed != "Yes") }"#,
        r#"{($.errorCode = "*UnauthorizedOperation") || ($.errorCode = "AccessDenied*")}"#,
        r#"{ $.userIdentity.type = "Root" && $.userIdentity.invokedBy NOT EXISTS && $.eventType != "AwsServiceEvent" }"#,
        r#"{"filterName": "f", "filterPattern": "{ $.a.b = 1.5 || $.c IS NULL }"}"#,
    ] {
        seeds.push(of_kind(6, filter));
    }
    for rule in [SIGMA, SIGMA_WITH_MODIFIERS] {
        seeds.push(of_kind(7, rule));
    }
    seeds
}

const SIGMA: &str = "title: A trail was stopped
id: 7f6a1d4c-5f5e-4a08-9d53-0d2a9c1b7e11
status: test
logsource:
    product: aws
    service: cloudtrail
detection:
    selection:
        eventSource: cloudtrail.amazonaws.com
        eventName:
            - StopLogging
            - DeleteTrail
    filter:
        userIdentity.arn|contains: deploy
    condition: selection and not filter
level: medium
";

const SIGMA_WITH_MODIFIERS: &str = r"title: Odd agents
logsource: {product: aws, service: cloudtrail}
detection:
    one:
        - userAgent|startswith: ['kali', 'parrot']
        - userAgent|re: '(?i)pentoo'
    two_a: {sourceIPAddress|cidr: 10.0.0.0/8, errorCode: null}
    two_b: {requestParameters.userName|endswith|all: ['a*', 'b?']}
    condition: one or 1 of two_*
level: high
---
title: Another
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: A}, condition: s}
";
