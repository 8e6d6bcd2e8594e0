//! What each rule costs, estimated from its conditions alone: how many records it makes the daemon look at, and how
//! long it takes to judge those that its indexed conditions leave.
//!
//! No record is read for it, so that the shares below are assumptions: those of a usual organization's management
//! events, rounded. They order rules rightly where rules differ by much, which is what the estimate is for.

use std::sync::Arc;

use super::condition::{Body, Field, Rule};
use super::{Mode, RuleInfo, RuleSet, wildcard};

/// Finding the fields of a record that rules may ask for: the unit of work.
const READ: f64 = 1.0;
/// A condition on a field that is not indexed.
const FURTHER_CONDITION: f64 = 0.1;
/// One field in one way to meet a pattern.
const PATTERN_FIELD: f64 = 0.5;

/// The share of records that hold one certain text.
const ONE_NAME: f64 = 0.002;
const ONE_SOURCE: f64 = 0.02;
const ONE_ERROR_CODE: f64 = 0.002;
/// The share of records with any error code.
const ERRORS: f64 = 0.03;
/// The share of the texts of a field that a wildcard fits.
const WILDCARD: f64 = 0.05;

/// What a rule makes the daemon do.
#[derive(Clone, Debug)]
pub struct Cost {
    pub rule: Arc<RuleInfo>,
    pub looks_at: LooksAt,
    /// Its part of the work of all rules, from 0 to 1.
    pub share: f64,
}

/// Which records a rule must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LooksAt {
    /// None: the rule is off.
    Nothing,
    /// Those that have one of these texts, sorted, at the path.
    Texts { path: &'static str, texts: Vec<String> },
    /// All: there is no text by which a record could be left out unread.
    Everything,
}

impl RuleSet {
    /// The cost of each rule, in the order of the file.
    #[must_use]
    pub fn costs(&self) -> Vec<Cost> {
        let work: Vec<f64> = self.rules.iter().map(work).collect();
        let all = work.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let cost = |(rule, work): (&Rule, f64)| Cost {
            rule: Arc::clone(&rule.info),
            looks_at: looks_at(rule),
            share: work / all,
        };
        self.rules.iter().zip(work).map(cost).collect()
    }
}

fn looks_at(rule: &Rule) -> LooksAt {
    match rule.body.found_by() {
        _ if rule.info.mode == Mode::Off => LooksAt::Nothing,
        Some((field, texts)) => LooksAt::Texts { path: field.path(), texts: texts.to_vec() },
        None => LooksAt::Everything,
    }
}

/// Exceptions are not counted: only a record that meets the rule comes to them.
fn work(rule: &Rule) -> f64 {
    if rule.info.mode == Mode::Off {
        return 0.0;
    }
    let body = &rule.body;
    let looked_at = body.found_by().map_or(1.0, |(field, texts)| share_of_texts(field, texts));
    let further = number(body.further_conditions().count()) * FURTHER_CONDITION;
    let pattern = body.pattern().map_or(0.0, |pattern| number(pattern.size()) * PATTERN_FIELD);
    looked_at * READ + judged(body) * (further + pattern)
}

/// The share of records that meet the indexed conditions.
fn judged(body: &Body) -> f64 {
    let share = |field| share_of_field(body, field);
    // A name says what the source is, nearly.
    let call = share(Field::EventName).min(share(Field::EventSource));
    call * share(Field::ErrorCode) * share(Field::UserIdentityType)
}

fn share_of_field(body: &Body, field: Field) -> f64 {
    let exact = body.only_texts(field).map_or(1.0, |texts| share_of_texts(field, texts));
    let any =
        body.condition(field).map_or(1.0, |any_of| any_of.values().map(|value| share_of_value(field, value)).sum());
    exact.min(any)
}

fn share_of_texts(field: Field, texts: &[String]) -> f64 {
    texts.iter().map(|text| share_of_text(field, text)).sum::<f64>().min(1.0)
}

/// Of a value that may be a wildcard.
fn share_of_value(field: Field, value: &str) -> f64 {
    let there = if field == Field::ErrorCode { ERRORS } else { 1.0 };
    match value {
        value if !wildcard::is_wildcard(value) => share_of_text(field, value),
        value if value.bytes().all(|byte| byte == b'*') => there,
        _ => there * WILDCARD,
    }
}

fn share_of_text(field: Field, text: &str) -> f64 {
    match field {
        Field::EventName => ONE_NAME,
        Field::ErrorCode => ONE_ERROR_CODE,
        Field::UserIdentityType => match text {
            "AssumedRole" => 0.75,
            "AWSService" => 0.15,
            "IAMUser" => 0.05,
            _ => 0.01,
        },
        _ => ONE_SOURCE,
    }
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::DEFAULT_RULES;

    /// Rules whose ids are their positions.
    fn costs(conditions: &[Value]) -> Vec<Cost> {
        let rule = |(id, conditions): (usize, &Value)| {
            let mut rule = json!({ "id": id.to_string(), "severity": "LOW" });
            rule.as_object_mut().unwrap().extend(conditions.as_object().unwrap().clone());
            rule
        };
        let rules: Vec<_> = conditions.iter().enumerate().map(rule).collect();
        RuleSet::parse(&json!(rules).to_string()).unwrap().costs()
    }

    fn texts(path: &'static str, texts: &[&str]) -> LooksAt {
        LooksAt::Texts { path, texts: texts.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn a_rule_looks_at_the_records_that_hold_its_exact_texts() {
        for (conditions, expected) in [
            (json!({ "eventName": ["B", "A"], "errorCode": "X" }), texts("eventName", &["A", "B"])),
            (json!({ "eventName": "A*", "errorCode": "X" }), texts("errorCode", &["X"])),
            (json!({ "eventName": ["A", "B*"], "eventSource": "s" }), texts("eventSource", &["s"])),
            (json!({ "userIdentityType": "Root" }), texts("userIdentity.type", &["Root"])),
            (json!({ "pattern": { "eventName": ["A"], "readOnly": [false] } }), texts("eventName", &["A"])),
            (
                json!({ "pattern": { "$or": [{ "eventName": ["A"] }, { "eventName": ["B"], "readOnly": [false] }] } }),
                texts("eventName", &["A", "B"]),
            ),
            (json!({ "eventName": "A", "mode": "off" }), LooksAt::Nothing),
            (json!({ "eventName": "A", "mode": "shadow" }), texts("eventName", &["A"])),
        ] {
            assert_eq!(costs(std::slice::from_ref(&conditions))[0].looks_at, expected, "{conditions}");
        }
    }

    #[test]
    fn without_an_exact_text_a_rule_looks_at_everything() {
        for conditions in [
            json!({ "eventName": "Delete*" }),
            json!({ "errorMessage": "x" }),
            json!({ "resourceType": "AWS::S3::Bucket" }),
            json!({ "pattern": { "eventName": [{ "prefix": "Delete" }] } }),
            json!({ "pattern": { "eventName": ["A", { "prefix": "B" }] } }),
            json!({ "pattern": { "eventName": [{ "anything-but": "A" }] } }),
            json!({ "pattern": { "$or": [{ "eventName": ["A"] }, { "readOnly": [false] }] } }),
        ] {
            assert_eq!(costs(std::slice::from_ref(&conditions))[0].looks_at, LooksAt::Everything, "{conditions}");
        }
    }

    #[test]
    fn the_shares_make_up_the_whole() {
        let rules = RuleSet::parse(DEFAULT_RULES).unwrap();
        let costs = rules.costs();
        assert_eq!(costs.len(), rules.rules().len());
        assert!((costs.iter().map(|cost| cost.share).sum::<f64>() - 1.0).abs() < 1e-9);
        // Nothing divided by nothing is no share.
        let off = costs_of_off();
        assert!(off.iter().all(|cost| cost.share < f64::EPSILON), "{off:?}");
        assert!(RuleSet::default().costs().is_empty());
    }

    fn costs_of_off() -> Vec<Cost> {
        costs(&[json!({ "eventName": "A", "mode": "off" })])
    }

    /// Each rule costs more than the one before it.
    #[test]
    fn the_broader_and_the_deeper_a_rule_looks_the_more_it_costs() {
        let pattern = json!({ "sourceIPAddress": [{ "cidr": "192.0.2.0/24" }] });
        let costs = costs(&[
            json!({ "eventName": "A", "mode": "off" }),
            json!({ "eventName": "A" }),
            json!({ "eventName": "A", "pattern": pattern }),
            json!({ "eventName": ["A", "B"], "pattern": pattern }),
            json!({ "eventSource": "s", "pattern": pattern }),
            json!({ "userIdentityType": "AssumedRole" }),
            json!({ "eventName": "Delete*" }),
            json!({ "eventName": "Delete*", "pattern": pattern }),
            json!({ "eventName": "*", "pattern": pattern }),
            json!({ "pattern": { "$or": [{ "userAgent": ["a"], "readOnly": [false] }, { "sourceIPAddress": ["b"] }] } }),
        ]);
        let shares: Vec<_> = costs.iter().map(|cost| cost.share).collect();
        assert!(shares.is_sorted_by(|a, b| a < b), "{shares:?}");
    }
}
