//! One record against the rules.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::condition::{AnyOf, Field};
use super::{RuleInfo, RuleSet};
use crate::cloudtrail::json;

/// How many pairs of source and name a matcher remembers, how many rules for all of them, and how many bytes of a pair.
const MAX_PAIRS: usize = 4_096;
const MAX_REMEMBERED_RULES: usize = 1 << 19;
const MAX_PAIR_BYTES: usize = 256;

/// A decoder's own view of a rule set: a bounded memo, of 6 MiB at the very most, beside the shared rules.
#[derive(Debug)]
pub struct Matcher {
    rules: Arc<RuleSet>,
    memo: Memo,
}

impl Matcher {
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self { rules, memo: Memo::default() }
    }

    /// The rules that match a record's raw bytes, in the order of the file. Never fails: what cannot be read of a
    /// record reads as absent.
    pub fn matches(&mut self, raw: &[u8]) -> Vec<Arc<RuleInfo>> {
        let record = Record::read(raw);
        let candidates = self.memo.candidates(&self.rules, record.event_source.get(), record.event_name.get());
        candidates
            .iter()
            .filter_map(|index| self.rules.rule(*index))
            .filter(|rule| rule.further_conditions().all(|(field, any_of)| record.meets(field, any_of)))
            .map(|rule| Arc::clone(&rule.info))
            .collect()
    }
}

/// From an event's source and name to the rules that only ask for more than these.
#[derive(Debug, Default)]
struct Memo {
    pairs: HashMap<Vec<u8>, usize>,
    lists: Vec<Vec<usize>>,
    remembered_rules: usize,
    key: Vec<u8>,
    unremembered: Vec<usize>,
}

impl Memo {
    fn candidates(&mut self, rules: &RuleSet, source: Option<&str>, name: Option<&str>) -> &[usize] {
        if source.map_or(0, str::len) + name.map_or(0, str::len) > MAX_PAIR_BYTES {
            // Whoever writes such names must not fill the memo with them.
            self.unremembered = rules.candidates(source, name);
            return &self.unremembered;
        }
        write_key(&mut self.key, source, name);
        let slot = match self.pairs.get(&self.key) {
            Some(slot) => *slot,
            None => self.remember(rules.candidates(source, name)),
        };
        self.lists.get(slot).map_or(&[], Vec::as_slice)
    }

    fn remember(&mut self, candidates: Vec<usize>) -> usize {
        if self.lists.len() >= MAX_PAIRS || self.remembered_rules >= MAX_REMEMBERED_RULES {
            self.pairs.clear();
            self.lists.clear();
            self.remembered_rules = 0;
        }
        let slot = self.lists.len();
        self.remembered_rules = self.remembered_rules.saturating_add(candidates.len());
        self.lists.push(candidates);
        self.pairs.insert(self.key.clone(), slot);
        slot
    }
}

/// A key that no other pair has: absent differs from empty, and the length says where the source ends.
fn write_key(key: &mut Vec<u8>, source: Option<&str>, name: Option<&str>) {
    key.clear();
    key.push(u8::from(source.is_some()) | u8::from(name.is_some()) << 1);
    let (source, name) = (source.unwrap_or_default(), name.unwrap_or_default());
    key.extend_from_slice(&source.len().to_le_bytes());
    key.extend_from_slice(source.as_bytes());
    key.extend_from_slice(name.as_bytes());
}

/// What rules may ask of a record, found in one pass, decoded when first asked for.
#[derive(Default)]
struct Record<'a> {
    event_source: Text<'a>,
    event_name: Text<'a>,
    error_code: Text<'a>,
    error_message: Text<'a>,
    user_identity: &'a [u8],
    user_identity_type: OnceCell<Option<Cow<'a, str>>>,
    resources: &'a [u8],
    resource_types: OnceCell<Vec<Cow<'a, str>>>,
}

#[derive(Default)]
struct Text<'a> {
    raw: &'a [u8],
    decoded: OnceCell<Option<Cow<'a, str>>>,
}

impl Text<'_> {
    /// `None` for null, and for anything but a string.
    fn get(&self) -> Option<&str> {
        self.decoded.get_or_init(|| json::string(self.raw)).as_deref()
    }
}

impl<'a> Record<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut record = Self::default();
        for member in json::members(raw) {
            // Each field overwrites its predecessor: the last of duplicate keys wins.
            match member.key {
                b"eventSource" => record.event_source.raw = member.value,
                b"eventName" => record.event_name.raw = member.value,
                b"errorCode" => record.error_code.raw = member.value,
                b"errorMessage" => record.error_message.raw = member.value,
                b"userIdentity" => record.user_identity = member.value,
                b"resources" => record.resources = member.value,
                key if key.contains(&b'\\') => record.set_escaped(key, member.value),
                _ => {}
            }
        }
        record
    }

    fn set_escaped(&mut self, key: &[u8], value: &'a [u8]) {
        let fields = [
            ("eventSource", &mut self.event_source.raw),
            ("eventName", &mut self.event_name.raw),
            ("errorCode", &mut self.error_code.raw),
            ("errorMessage", &mut self.error_message.raw),
            ("userIdentity", &mut self.user_identity),
            ("resources", &mut self.resources),
        ];
        for (name, field) in fields {
            if json::key_is(key, name) {
                *field = value;
            }
        }
    }

    fn meets(&self, field: Field, any_of: &AnyOf) -> bool {
        let text = match field {
            Field::EventSource => self.event_source.get(),
            Field::EventName => self.event_name.get(),
            Field::ErrorCode => self.error_code.get(),
            Field::ErrorMessage => self.error_message.get(),
            Field::UserIdentityType => self.user_identity_type(),
            Field::ResourceType => return self.resource_types().iter().any(|text| any_of.holds(text)),
        };
        text.is_some_and(|text| any_of.holds(text))
    }

    fn user_identity_type(&self) -> Option<&str> {
        self.user_identity_type.get_or_init(|| json::get(self.user_identity, "type").and_then(json::string)).as_deref()
    }

    fn resource_types(&self) -> &[Cow<'a, str>] {
        self.resource_types.get_or_init(|| {
            json::elements(self.resources)
                .filter_map(|resource| json::get(resource, "type").and_then(json::string))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn matcher(rules: &Value) -> Matcher {
        Matcher::new(Arc::new(RuleSet::parse(&rules.to_string()).unwrap()))
    }

    fn found(matcher: &mut Matcher, record: &str) -> Vec<String> {
        matcher.matches(record.as_bytes()).iter().map(|rule| rule.id.clone()).collect()
    }

    /// Whether a rule on `key` with the value `any` matches the record.
    fn asks(key: &str, any: &str, record: &str) -> bool {
        let rule = json!([{ "id": "r", "severity": "LOW", key: any }]);
        !found(&mut matcher(&rule), record).is_empty()
    }

    #[test]
    fn a_matcher_can_be_sent_to_another_thread() {
        fn sendable<T: Send>() {}
        sendable::<Matcher>();
    }

    #[test]
    fn absent_null_and_other_types_never_match() {
        for key in ["eventName", "eventSource", "errorCode", "errorMessage"] {
            assert!(asks(key, "*", &format!(r#"{{"{key}":""}}"#)));
            for value in ["null", "7", "true", "[\"A\"]", "{}"] {
                assert!(!asks(key, "*", &format!(r#"{{"{key}":{value}}}"#)), "{key}: {value}");
            }
            assert!(!asks(key, "*", "{}"));
        }
        assert!(asks("userIdentityType", "*", r#"{"userIdentity":{"type":"Root"}}"#));
        for identity in ["null", "{}", "\"Root\"", r#"{"type":null}"#, r#"[{"type":"Root"}]"#] {
            assert!(!asks("userIdentityType", "*", &format!(r#"{{"userIdentity":{identity}}}"#)), "{identity}");
        }
        for resources in ["null", "[]", "[null,7]", r#"[{"type":null}]"#, r#"{"type":"AWS::S3::Bucket"}"#] {
            assert!(!asks("resourceType", "*", &format!(r#"{{"resources":{resources}}}"#)), "{resources}");
        }
    }

    #[test]
    fn any_resource_will_do() {
        let record = r#"{"resources":[null,{"ARN":"x"},{"type":"AWS::S3::Object"},{"type":"AWS::S3::Bucket"}]}"#;
        assert!(asks("resourceType", "AWS::S3::Bucket", record));
        assert!(asks("resourceType", "AWS::S3::*", record));
        assert!(!asks("resourceType", "AWS::KMS::Key", record));
    }

    #[test]
    fn the_last_of_duplicate_keys_wins() {
        assert!(asks("eventName", "A", r#"{"eventName":"B","eventName":"A"}"#));
        assert!(!asks("eventName", "A", r#"{"eventName":"A","eventName":"B"}"#));
        assert!(!asks("eventName", "A", r#"{"eventName":"A","eventName":null}"#));
        assert!(asks("eventName", "A", r#"{"eventName":"B","\u0065ventName":"A"}"#));
        assert!(!asks("eventName", "B", r#"{"eventName":"B","\u0065ventName":"A"}"#));
        assert!(asks(
            "userIdentityType",
            "Root",
            r#"{"userIdentity":{"type":"A"},"userIdentity":{"type":"A","type":"Root"}}"#
        ));
    }

    #[test]
    fn only_the_records_own_members_count() {
        assert!(!asks("eventName", "A", r#"{"requestParameters":{"eventName":"A"},"x":"\"eventName\":\"A\""}"#));
        assert!(!asks("eventName", "A", r#"[{"eventName":"A"}]"#));
        assert!(!asks("eventName", "*", ""));
    }

    #[test]
    fn escapes_and_odd_bytes_hide_nothing() {
        for key in ["eventName", "eventSource", "errorCode", "errorMessage"] {
            let escaped = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
            assert!(asks(key, "A?c", &format!(r#"{{"{escaped}":"\u0041\ud800c"}}"#)), "{key}");
        }
        assert!(asks("userIdentityType", "Root", r#"{"user\u0049dentity":{"\u0074ype":"Roo\u0074"}}"#));
        assert!(asks("resourceType", "T", r#"{"resource\u0073":[{"\u0074ype":"\u0054"}]}"#));
        let rule = json!([{ "id": "r", "severity": "LOW", "eventName": "A*" }]);
        assert_eq!(matcher(&rule).matches(b"{\"x\":\"\xff\",\"eventName\":\"A\xff\",\"y\":}").len(), 1);
    }

    #[test]
    fn the_memo_stays_bounded_whatever_names_arrive() {
        let mut matcher = matcher(&json!([{ "id": "r", "severity": "LOW", "eventName": "Name1*" }]));
        for i in 0..3 * MAX_PAIRS {
            let expected = i.to_string().starts_with('1');
            assert_eq!(!found(&mut matcher, &format!(r#"{{"eventName":"Name{i}"}}"#)).is_empty(), expected);
            assert!(matcher.memo.pairs.len() <= MAX_PAIRS && matcher.memo.lists.len() <= MAX_PAIRS);
        }
        let held = matcher.memo.pairs.len();
        let long = format!(r#"{{"eventName":"Name1{}"}}"#, "x".repeat(MAX_PAIR_BYTES));
        assert_eq!(found(&mut matcher, &long), ["r"]);
        assert_eq!(matcher.memo.pairs.len(), held);
    }

    #[test]
    fn the_memo_forgets_before_its_lists_grow_large() {
        let rules: Vec<_> = (0..2_000)
            .map(|i| json!({ "id": format!("r{i}"), "severity": "LOW", "userIdentityType": "Root" }))
            .collect();
        let mut matcher = matcher(&json!(rules));
        for i in 0..1_000 {
            found(&mut matcher, &format!(r#"{{"eventName":"{i}"}}"#));
            let held: usize = matcher.memo.lists.iter().map(Vec::len).sum();
            assert!(held < MAX_REMEMBERED_RULES + 2_000);
        }
    }

    #[test]
    fn pairs_that_read_alike_together_are_kept_apart() {
        let mut matcher = matcher(&json!([{ "id": "r", "severity": "LOW", "eventSource": "ab", "eventName": "c" }]));
        assert!(found(&mut matcher, r#"{"eventSource":"a","eventName":"bc"}"#).is_empty());
        assert_eq!(found(&mut matcher, r#"{"eventSource":"ab","eventName":"c"}"#), ["r"]);
        assert!(found(&mut matcher, r#"{"eventSource":"abc","eventName":""}"#).is_empty());
        assert!(found(&mut matcher, r#"{"eventName":"abc"}"#).is_empty());
    }

    /// What design and documentation say of a rule, on a parsed record.
    fn naive(rule: &Value, record: &Value) -> bool {
        let conditions =
            rule.as_object().unwrap().iter().filter(|(key, _)| !["id", "severity"].contains(&key.as_str()));
        conditions.into_iter().all(|(key, wanted)| {
            let texts: Vec<&str> = match key.as_str() {
                "userIdentityType" => {
                    record.pointer("/userIdentity/type").and_then(Value::as_str).into_iter().collect()
                }
                "resourceType" => match record.get("resources") {
                    Some(Value::Array(all)) => all.iter().filter_map(|one| one.get("type")?.as_str()).collect(),
                    _ => Vec::new(),
                },
                key => record.get(key).and_then(Value::as_str).into_iter().collect(),
            };
            let wanted: Vec<&str> = match wanted {
                Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect(),
                one => vec![one.as_str().unwrap()],
            };
            texts.iter().any(|text| wanted.iter().any(|one| super::super::wildcard::matches(one, text)))
        })
    }

    fn texts() -> impl Strategy<Value = String> {
        "[ab]{1,2}"
    }

    fn odd_values() -> impl Strategy<Value = Value> {
        prop_oneof![
            12 => texts().prop_map(Value::from),
            1 => Just(Value::Null),
            1 => any::<i32>().prop_map(Value::from),
            1 => texts().prop_map(|text| json!([text])),
            1 => texts().prop_map(|text| json!({ "type": text })),
            1 => "\\PC{0,3}".prop_map(Value::from),
        ]
    }

    fn conditions() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[ab*?]{1,3}".prop_map(Value::from),
            prop::collection::vec("[ab*?]{1,3}", 1..4).prop_map(Value::from)
        ]
    }

    fn rule_files() -> impl Strategy<Value = Vec<Value>> {
        let keys = Field::ALL.map(Field::key).to_vec();
        let rule = prop::sample::subsequence(keys, 1..4).prop_flat_map(|keys| {
            prop::collection::vec(conditions(), keys.len()).prop_map(move |all| (keys.clone(), all))
        });
        prop::collection::vec(rule, 1..8).prop_map(|rules| {
            let with_id = |(index, (keys, all)): (usize, (Vec<&str>, Vec<Value>))| {
                let mut rule: Map<_, _> = keys.into_iter().map(str::to_owned).zip(all).collect();
                rule.insert("id".to_owned(), json!(format!("r{index}")));
                rule.insert("severity".to_owned(), json!("LOW"));
                Value::Object(rule)
            };
            rules.into_iter().enumerate().map(with_id).collect()
        })
    }

    fn records() -> impl Strategy<Value = Value> {
        let member = prop_oneof![
            3 => (Just("eventName"), odd_values()),
            3 => (Just("eventSource"), odd_values()),
            2 => (Just("errorCode"), odd_values()),
            2 => (Just("errorMessage"), odd_values()),
            2 => (Just("userIdentity"), prop_oneof![odd_values(), odd_values().prop_map(|text| json!({ "type": text }))]),
            2 => (Just("resources"), prop_oneof![
                odd_values(),
                prop::collection::vec(prop_oneof![odd_values(), odd_values().prop_map(|text| json!({ "type": text }))], 0..4)
                    .prop_map(Value::from),
            ]),
            1 => (Just("requestParameters"), odd_values()),
        ];
        prop::collection::vec(member, 0..9)
            .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            .prop_map(Value::Object)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn agrees_with_a_naive_matcher(rules in rule_files(), records in prop::collection::vec(records(), 1..12)) {
            let mut matcher = matcher(&json!(rules));
            // Twice, so that the second time answers from the memo.
            for record in records.iter().chain(&records) {
                let expected: Vec<_> = rules.iter().filter(|rule| naive(rule, record)).map(|rule| rule["id"].as_str().unwrap()).collect();
                prop_assert_eq!(found(&mut matcher, &record.to_string()), expected, "{}", record);
            }
        }

        #[test]
        fn no_bytes_make_it_fail(rules in rule_files(), raw in prop::collection::vec(any::<u8>(), 0..200)) {
            matcher(&json!(rules)).matches(&raw);
        }
    }
}
