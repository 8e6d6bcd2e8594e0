//! The schema says what the reader says: a checker of the few keywords it uses, and files that both judge alike.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

use super::condition::Field;
use super::file::correlations::{FIRST_SEEN_KEYS, STEP_KEYS, THRESHOLD_KEYS};
use super::file::{EXCEPTION_KEYS, FILE_KEYS, INFO_KEYS, RULE_KEYS};
use super::pattern::{CONDITIONS, LISTABLE, NEGATABLE};
use super::{BUILT_IN_LISTS, DEFAULT_RULES, Mode, RuleSet, SCHEMA, Severity};

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

/// JSON Schema, draft 7, as far as the schema uses it; another keyword fails the test.
#[allow(clippy::match_same_arms, reason = "keywords that say nothing differ from those that do not apply")]
fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema == &Value::Bool(true) };
    if let Some(target) = schema.get("$ref") {
        let name = target.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
        return is_valid(root, &root["definitions"][name], value);
    }
    let all = |schemas: &Value| schemas.as_array().unwrap().clone();
    let count = |schemas: &Value| all(schemas).iter().filter(|one| is_valid(root, one, value)).count();
    let size = |bound: &Value| usize::try_from(bound.as_u64().unwrap()).unwrap();
    let is_a = |name: &str| {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() && name == "integer" => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        name == kind
    };
    schema.iter().all(|(keyword, with)| match (keyword.as_str(), value) {
        ("$schema" | "title" | "description" | "definitions" | "examples" | "default" | "format", _) => true,
        ("type", _) => match with {
            Value::String(name) => is_a(name),
            names => texts(names).into_iter().any(is_a),
        },
        ("enum", _) => all(with).contains(value),
        ("anyOf", _) => count(with) > 0,
        ("oneOf", _) => count(with) == 1,
        ("allOf", _) => count(with) == all(with).len(),
        ("not", _) => !is_valid(root, with, value),
        ("minLength", Value::String(text)) => text.chars().count() >= size(with),
        ("maxLength", Value::String(text)) => text.chars().count() <= size(with),
        ("pattern", Value::String(text)) => Regex::new(with.as_str().unwrap()).unwrap().is_match(text),
        ("minimum", Value::Number(number)) => number.as_u64().is_some_and(|number| number >= with.as_u64().unwrap()),
        ("maximum", Value::Number(number)) => number.as_u64().is_some_and(|number| number <= with.as_u64().unwrap()),
        ("dependencies", Value::Object(members)) => with.as_object().unwrap().iter().all(|(key, needs)| {
            !members.contains_key(key) || texts(needs).into_iter().all(|key| members.contains_key(key))
        }),
        ("minItems", Value::Array(items)) => items.len() >= size(with),
        ("maxItems", Value::Array(items)) => items.len() <= size(with),
        ("items", Value::Array(items)) => match with {
            Value::Array(each) => items.iter().zip(each).all(|(item, schema)| is_valid(root, schema, item)),
            each => items.iter().all(|item| is_valid(root, each, item)),
        },
        ("additionalItems", Value::Array(items)) => items.len() <= schema["items"].as_array().unwrap().len(),
        ("minProperties", Value::Object(members)) => members.len() >= size(with),
        ("maxProperties", Value::Object(members)) => members.len() <= size(with),
        ("required", Value::Object(members)) => texts(with).into_iter().all(|key| members.contains_key(key)),
        ("propertyNames", Value::Object(members)) => {
            members.keys().all(|key| is_valid(root, with, &Value::from(key.as_str())))
        }
        ("properties", Value::Object(members)) => {
            members.iter().all(|(key, member)| with.get(key).is_none_or(|schema| is_valid(root, schema, member)))
        }
        ("additionalProperties", Value::Object(members)) => {
            let known = schema.get("properties").map(keys).unwrap_or_default();
            members.iter().all(|(key, member)| known.contains(key.as_str()) || is_valid(root, with, member))
        }
        (
            "minimum"
            | "maximum"
            | "dependencies"
            | "minLength"
            | "maxLength"
            | "pattern"
            | "minItems"
            | "maxItems"
            | "items"
            | "additionalItems"
            | "minProperties"
            | "maxProperties"
            | "required"
            | "propertyNames"
            | "properties"
            | "additionalProperties",
            _,
        ) => true,
        (other, _) => panic!("the checker does not know {other}"),
    })
}

#[test]
fn it_has_exactly_the_keys_that_the_reader_knows() {
    let schema = schema();
    let below = |name: &str| &schema["definitions"][name];
    let set = |all: &[&'static str]| all.iter().copied().collect::<BTreeSet<_>>();
    let plain = Field::ALL.map(Field::key);
    assert_eq!(keys(&schema["properties"]), set(&FILE_KEYS));
    assert_eq!(keys(&below("rule")["properties"]), set(&[&INFO_KEYS[..], &RULE_KEYS, &plain].concat()));
    assert_eq!(keys(&below("exception")["properties"]), set(&[&EXCEPTION_KEYS[..], &plain].concat()));
    assert_eq!(keys(&below("condition")["properties"]), set(&CONDITIONS));
    assert_eq!(texts(&below("alternatives")["items"]["allOf"][1]["propertyNames"]["not"]["enum"]), set(&CONDITIONS));
    assert_eq!(keys(&below("unwanted")["properties"]), set(&NEGATABLE));
    assert_eq!(keys(&below("listed")["properties"]), set(&LISTABLE));
    assert_eq!(texts(&below("rule")["properties"]["severity"]["enum"]), set(&Severity::ALL.map(Severity::as_str)));
    assert_eq!(texts(&below("rule")["properties"]["mode"]["enum"]), set(&Mode::ALL.map(Mode::as_str)));
    assert_eq!(texts(&below("condition")["properties"]["list"]["examples"]), set(&BUILT_IN_LISTS));
    assert_eq!(keys(&below("step")["properties"]), set(&[&STEP_KEYS[..], &plain].concat()));
    let of_rule = |key: &str| &below("rule")["properties"][key]["properties"];
    assert_eq!(keys(of_rule("threshold")), set(&THRESHOLD_KEYS));
    assert_eq!(keys(of_rule("first_seen")), set(&FIRST_SEEN_KEYS));
    for (name, more) in [("rule", &["pattern", "sequence"][..]), ("exception", &["pattern"]), ("step", &["pattern"])] {
        let asked: BTreeSet<_> =
            below(name)["anyOf"].as_array().unwrap().iter().flat_map(|one| texts(&one["required"])).collect();
        assert_eq!(asked, set(&[&plain[..], more].concat()));
    }
}

#[test]
fn everything_has_a_description() {
    let schema = schema();
    let mut objects = vec![&schema["properties"], &schema["definitions"]["rule"]["properties"]];
    for name in ["threshold", "first_seen"] {
        objects.push(&schema["definitions"]["rule"]["properties"][name]["properties"]);
    }
    for name in ["exception", "step", "condition", "unwanted", "listed"] {
        objects.push(&schema["definitions"][name]["properties"]);
    }
    for (key, of) in objects.into_iter().flat_map(|one| one.as_object().unwrap()) {
        assert!(of["description"].is_string(), "{key}");
    }
}

#[test]
fn the_default_rules_are_valid() {
    let schema = schema();
    assert!(is_valid(&schema, &schema, &serde_json::from_str(DEFAULT_RULES).unwrap()));
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of examples")]
fn it_judges_as_the_reader_does() {
    let schema = schema();
    let judge = |file: &Value, expected: bool| {
        assert_eq!(RuleSet::parse(&file.to_string()).is_ok(), expected, "the reader on {file}");
        assert_eq!(is_valid(&schema, &schema, file), expected, "the schema on {file}");
    };
    let rule = |more: Value| {
        let mut rule = json!({ "id": "r", "severity": "LOW", "eventName": "A" });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([rule])
    };
    for (file, expected) in [
        (json!({ "monitoredEvents": ["ConsoleLogin"] }), true),
        (json!({ "monitoredEvents": [] }), false),
        (json!({ "events": [] }), false),
        (json!([]), false),
        (json!({}), false),
        (json!(7), false),
        (json!({ "events": [{ "id": "r", "severity": "LOW" }] }), false),
        (json!({ "events": [{ "id": "r", "eventName": "A" }] }), false),
        (json!({ "events": [{ "severity": "LOW", "eventName": "A" }] }), false),
        (json!({ "$schema": "x", "events": rule(json!({})) }), true),
        (json!({ "events": rule(json!({})), "evnts": [] }), false),
        (json!({ "events": rule(json!({})), "monitoredEvents": ["A"] }), false),
        (json!({ "events": rule(json!({})), "lists": { "ours": ["x", 1, { "cidr": "10.0.0.0/8" }] } }), true),
        (json!({ "events": rule(json!({})), "lists": { "ours": [] } }), false),
        (json!({ "events": rule(json!({})), "lists": { "trailhound.x": ["x"] } }), false),
        (json!({ "events": rule(json!({})), "lists": { "ours": [{ "exists": true }] } }), false),
    ] {
        judge(&file, expected);
    }
    for (more, expected) in [
        (json!({ "id": "with spaces" }), false),
        (json!({ "severity": "low" }), false),
        (json!({ "eventName": ["A", "B*"], "errorCode": "?*" }), true),
        (json!({ "eventName": [] }), false),
        (json!({ "eventName": "" }), false),
        (json!({ "eventName": { "prefix": "A" } }), false),
        (json!({ "eventname": "A" }), false),
        (json!({ "threshold": 3 }), false),
        (
            json!({ "title": "t", "author": "a", "references": ["r"], "attack": ["T1098", "T1098.001"],
                 "attackVersion": "16.1", "tags": ["t"], "runbook": "r", "description": "d", "check": "c" }),
            true,
        ),
        (json!({ "check": "" }), false),
        (json!({ "check": ["c"] }), false),
        (json!({ "title": "x".repeat(129) }), false),
        (json!({ "attack": ["T12"] }), false),
        (json!({ "tags": "one" }), false),
        (json!({ "mode": "shadow", "group": { "by": ["userIdentity.arn"], "window": "90s" } }), true),
        (json!({ "mode": "quiet" }), false),
        (json!({ "group": { "by": ["x"], "window": "0h" } }), false),
        (json!({ "group": { "by": [], "window": "1h" } }), false),
        (json!({ "group": { "by": ["x"] } }), false),
        (json!({ "threshold": { "count": 10, "window": "15m", "by": ["a", "b"] } }), true),
        (
            json!({ "threshold": { "count": 2, "window": "1d", "by": ["a"], "distinct": "c", "max_keys": 9, "max_events": 2 } }),
            true,
        ),
        (json!({ "threshold": { "count": 1, "window": "15m", "by": ["a"] } }), false),
        (json!({ "threshold": { "count": 5_000, "window": "15m", "by": ["a"], "max_events": 5_000 } }), true),
        (json!({ "threshold": { "count": 10, "window": "15m", "by": ["a"], "max_events": 5_001 } }), false),
        (json!({ "threshold": { "count": 2.5, "window": "15m", "by": ["a"] } }), false),
        (json!({ "threshold": { "count": "9", "window": "15m", "by": ["a"] } }), false),
        (json!({ "threshold": { "count": 10, "by": ["a"] } }), false),
        (json!({ "threshold": { "count": 10, "window": "15m" } }), false),
        (json!({ "threshold": { "count": 10, "window": "15m", "by": [] } }), false),
        (json!({ "threshold": { "count": 10, "window": "15m", "by": ["a"], "distnct": "c" } }), false),
        (json!({ "first_seen": { "by": ["a"], "within": "30d" } }), true),
        (json!({ "first_seen": { "by": ["a"], "within": "30d", "max_keys": 5 } }), true),
        (json!({ "first_seen": { "by": ["a"], "within": "720h" } }), false),
        (json!({ "first_seen": { "by": ["a"] } }), false),
        (
            json!({ "sequence": [{ "eventName": "A*", "count": 5 }, { "pattern": { "a": ["b"] } }], "by": ["a"], "window": "1h" }),
            true,
        ),
        (json!({ "sequence": [{ "eventName": "A" }], "by": ["a"], "window": "1h" }), false),
        (json!({ "sequence": [{ "eventName": "A" }, {}], "by": ["a"], "window": "1h" }), false),
        (json!({ "sequence": [{ "eventName": "A" }, { "count": 2 }], "by": ["a"], "window": "1h" }), false),
        (
            json!({ "sequence": [{ "eventName": "A" }, { "eventName": "B", "count": 0 }], "by": ["a"], "window": "1h" }),
            false,
        ),
        (json!({ "sequence": [{ "eventName": "A" }, { "eventName": "B" }], "window": "1h" }), false),
        (json!({ "sequence": [{ "eventName": "A" }, { "eventName": "B" }], "by": ["a"] }), false),
        (json!({ "by": ["a"] }), false),
        (json!({ "max_keys": 5 }), false),
        (json!({ "group": { "by": ["a"], "window": "1h" }, "first_seen": { "by": ["a"], "within": "30d" } }), false),
        (
            json!({ "threshold": { "count": 10, "window": "15m", "by": ["a"] }, "first_seen": { "by": ["a"], "within": "1d" } }),
            false,
        ),
        (json!({ "unless": [{ "reason": "r", "until": "2027-06-30", "pattern": { "a": ["b"] } }] }), true),
        (json!({ "unless": [{ "reason": "r", "userIdentityType": "Root" }] }), true),
        (json!({ "unless": [] }), false),
        (json!({ "unless": [{ "reason": "r" }] }), false),
        (json!({ "unless": [{ "eventName": "A" }] }), false),
        (json!({ "unless": [{ "reason": "r", "eventName": "A", "until": "soon" }] }), false),
        (json!({ "unless": [{ "reason": "r", "eventName": "A", "severity": "LOW" }] }), false),
    ] {
        judge(&rule(more), expected);
    }
    for (pattern, expected) in [
        (json!({}), false),
        (json!({ "a": "x" }), false),
        (json!({ "a": [] }), false),
        (json!({ "a": {} }), false),
        (json!({ "a": [["x"]] }), false),
        (json!({ "": ["x"] }), false),
        (json!({ "a": { "b.c": ["x", 1, true, null] }, "eventName": ["x"] }), true),
        (json!({ "$or": [{ "a": ["x"] }, { "b": { "$or": [{ "c": [1] }, { "d": [2] }] } }] }), true),
        (json!({ "$or": [{ "a": ["x"] }] }), false),
        (json!({ "$or": [{ "a": ["x"] }, { "numeric": [">", 1] }] }), false),
    ] {
        judge(&rule(json!({ "pattern": pattern })), expected);
    }
    for (condition, expected) in [
        (json!({ "prefix": "x" }), true),
        (json!({ "prefix": { "equals-ignore-case": "x" } }), true),
        (json!({ "suffix": { "wildcard": "x" } }), false),
        (json!({ "perfix": "x" }), false),
        (json!({ "prefix": "x", "suffix": "y" }), false),
        (json!({}), false),
        (json!({ "equals-ignore-case": "x" }), true),
        (json!({ "wildcard": "a*b" }), true),
        (json!({ "wildcard": 1 }), false),
        (json!({ "numeric": [">", 0, "<=", 5] }), true),
        (json!({ "numeric": [">"] }), false),
        (json!({ "numeric": ["!=", 5] }), false),
        (json!({ "numeric": [">", "5"] }), false),
        (json!({ "cidr": "2001:db8::/32" }), true),
        (json!({ "cidr": "10.0.0.0" }), false),
        (json!({ "exists": false }), true),
        (json!({ "exists": "true" }), false),
        (json!({ "field": "userIdentity.userName" }), true),
        (json!({ "list": "trailhound.queues" }), true),
        (json!({ "list": ["x"] }), false),
        (json!({ "json": { "Statement": { "Effect": ["Allow"] } } }), true),
        (json!({ "json": {} }), false),
        (json!({ "regex": "^a" }), true),
        (json!({ "exactly": "10.0.0.1" }), true),
        (json!({ "anything-but": "x" }), true),
        (json!({ "anything-but": ["x", "y"] }), true),
        (json!({ "anything-but": [1, 2] }), true),
        (json!({ "anything-but": ["x", 1] }), false),
        (json!({ "anything-but": [] }), false),
        (json!({ "anything-but": null }), false),
        (json!({ "anything-but": { "prefix": ["a", "b"] } }), true),
        (json!({ "anything-but": { "prefix": "" } }), false),
        (json!({ "anything-but": { "cidr": "10.0.0.0/8" } }), false),
        (json!({ "anything-but": { "field": "a.b" } }), true),
        (json!({ "anything-but": { "list": "trailhound.trails" } }), true),
        (json!({ "anything-but": { "json": { "a": ["x"] } } }), true),
        (json!({ "anything-but": { "regex": "^a" } }), true),
        (json!({ "anything-but": { "regex": ["^a"] } }), false),
    ] {
        judge(&rule(json!({ "pattern": { "a": [condition] } })), expected);
    }
}
