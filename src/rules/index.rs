//! Which rules a record can match at all, by its event name and source, error code and kind of identity.

use std::collections::HashMap;

use super::Mode;
use super::condition::{Found, Key, Rule};

/// Each rule that is not off stands in one table, that of the field it is found by, or in the rest.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order of [`Field::INDEXED`]: from a text to positions of rules.
    tables: [HashMap<String, Vec<usize>>; 4],
    rest: Vec<usize>,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.info.mode != Mode::Off) {
            let found_by = rule.body.found_by();
            match found_by.and_then(|(field, texts)| Some((index.tables.get_mut(field.index()?)?, texts))) {
                Some((table, texts)) => {
                    for text in texts {
                        table.entry(text.clone()).or_default().push(position);
                    }
                }
                None => index.rest.push(position),
            }
        }
        index
    }

    /// The positions of rules that a record with this key can match, in the order of the file.
    pub(super) fn candidates(&self, rules: &[Rule], key: &Key<'_>) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        let mut add = |position: &usize| {
            if rules.get(*position).is_some_and(|rule| rule.body.allows(key)) {
                found.push(*position);
            }
        };
        for (table, field) in self.tables.iter().zip(&key.0) {
            match field {
                Found::Text(text) => table.get(*text).into_iter().flatten().for_each(&mut add),
                Found::Absent => {}
                Found::Ambiguous(_) | Found::Odd => table.values().flatten().for_each(&mut add),
            }
        }
        self.rest.iter().for_each(&mut add);
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::RuleSet;

    /// Rules that name other events, by every kind of condition, are not even looked at.
    #[test]
    fn a_record_is_looked_at_by_the_few_rules_that_could_match_it() {
        let other = |i: u32| {
            let condition = match i % 5 {
                0 => json!({ "eventName": format!("Other{i}") }),
                1 => json!({ "eventSource": format!("service{i}.amazonaws.com"), "eventName": "Create*" }),
                2 => json!({ "errorCode": format!("Code{i}"), "pattern": { "userAgent": [{ "prefix": "x" }] } }),
                3 => json!({ "pattern": { "eventName": [format!("Other{i}"), format!("Another{i}")] } }),
                _ => json!({ "pattern": { "userIdentity": { "type": ["SAMLUser"] }, "userAgent": [i.to_string()] } }),
            };
            let mut rule = json!({ "id": format!("r{i}"), "severity": "LOW" });
            rule.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
            rule
        };
        let mut rules: Vec<_> = (0..9_990).map(other).collect();
        rules.push(json!({ "id": "name", "severity": "LOW", "eventName": ["CreateUser", "DeleteUser"] }));
        rules.push(json!({ "id": "wildcard", "severity": "LOW", "eventName": "*User" }));
        rules.push(json!({ "id": "or", "severity": "LOW", "pattern": { "$or": [
            { "eventName": ["CreateUser"], "readOnly": [false] }, { "eventName": ["StopLogging"] }] } }));
        rules.push(json!({ "id": "off", "severity": "LOW", "mode": "off", "eventName": "CreateUser" }));
        let set = RuleSet::parse(&json!(rules).to_string()).unwrap();
        let key =
            |code| Key([Found::Text("CreateUser"), Found::Text("iam.amazonaws.com"), code, Found::Text("IAMUser")]);
        let ids = |key: &Key<'_>| -> Vec<String> {
            let found = set.index.candidates(&set.rules, key);
            found.into_iter().map(|position| set.rules[position].info.id.clone()).collect()
        };
        assert_eq!(ids(&key(Found::Absent)), ["name", "wildcard", "or"]);
        assert_eq!(ids(&key(Found::Text("Code7"))), ["r7", "name", "wildcard", "or"]);
        // What is no text can be met by a pattern only.
        assert_eq!(ids(&Key([Found::Odd, Found::Absent, Found::Absent, Found::Absent])).len(), 9_990 / 5 + 1);
    }
}
