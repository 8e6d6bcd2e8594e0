//! One record against the rules.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use time::Date;

use super::condition::{AnyOf, Body, Exception, Field, Found, Key, Rule};
use super::dismissal::Dismissal;
use super::{RuleInfo, RuleSet};
use crate::cloudtrail::{Outline, event_time, json};

/// How many keys a matcher remembers, how many rules for all of them, and how many bytes of a key.
const MAX_KEYS: usize = 4_096;
const MAX_REMEMBERED_RULES: usize = 1 << 19;
const MAX_KEY_BYTES: usize = 320;

/// A decoder's own view of a rule set: a bounded memo, of 7 MiB at the very most, beside the shared rules.
#[derive(Debug)]
pub struct Matcher {
    rules: Arc<RuleSet>,
    memo: Memo,
    dismissal: Dismissal,
    dismissed: u64,
    /// Positions of a rule and of one of its exceptions, with how many records that one withheld.
    suppressed: BTreeMap<(usize, usize), u64>,
    wanted: Option<Wanted>,
}

/// Which matches a person asks for: asked of each rule that a record met, with the record's bytes.
#[derive(Clone)]
pub struct Wanted(pub Arc<Asked>);

type Asked = dyn Fn(&RuleInfo, &[u8]) -> bool + Send + Sync;

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wanted(..)")
    }
}

/// Records that met a rule and one of its exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    pub rule: Arc<RuleInfo>,
    /// The exception's position under `unless`, from 0.
    pub exception: usize,
    pub count: u64,
}

impl Matcher {
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            rules,
            memo: Memo::default(),
            dismissal: Dismissal::default(),
            dismissed: 0,
            suppressed: BTreeMap::new(),
            wanted: None,
        }
    }

    /// One that passes over what is not wanted, as if no rule had met it.
    #[must_use]
    pub fn only(rules: Arc<RuleSet>, wanted: Option<Wanted>) -> Self {
        Self { wanted, ..Self::new(rules) }
    }

    /// Whether it is for this rule set.
    pub(super) fn is_for(&self, rules: &Arc<RuleSet>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
    }

    pub(super) fn forget_records(&mut self) {
        self.suppressed.clear();
        self.dismissed = 0;
    }

    /// The rules that match a record's raw bytes, in the order of the file. Never fails: what cannot be read of a
    /// record reads as absent.
    pub fn matches(&mut self, raw: &[u8]) -> Vec<Arc<RuleInfo>> {
        let record = Record::read(raw);
        let Self { rules, memo, suppressed, wanted, .. } = self;
        let candidates = memo.candidates(rules, &record.key()).iter();
        let candidates = candidates.filter_map(|position| Some((*position, rules.rule(*position)?)));
        judge(&record, candidates, suppressed, wanted.as_ref().map(|wanted| (wanted, raw)))
    }

    /// The same as [`Self::matches`], and faster for a record of which the outline is known.
    pub fn matches_outlined(&mut self, raw: &[u8], outline: Option<Outline<'_>>) -> Vec<Arc<RuleInfo>> {
        let Self { rules, dismissal, suppressed, wanted, .. } = self;
        match outline.and_then(|outline| dismissal.left(rules, raw, outline)) {
            Some([]) => {
                self.dismissed += 1;
                Vec::new()
            }
            Some(left) => {
                let record = Record::read(raw);
                let key = record.key();
                let left = left.iter().filter_map(|position| Some((*position, rules.rule(*position)?)));
                let left = left.filter(|(_, rule)| rule.body.allows(&key));
                judge(&record, left, suppressed, wanted.as_ref().map(|wanted| (wanted, raw)))
            }
            None => self.matches(raw),
        }
    }

    /// How many records were dismissed without being read.
    #[must_use]
    pub fn dismissed(&self) -> u64 {
        self.dismissed
    }

    /// What exceptions withheld since the last call.
    pub fn take_suppressed(&mut self) -> Vec<Suppressed> {
        let suppressed = std::mem::take(&mut self.suppressed).into_iter();
        let told = suppressed.filter_map(|((position, exception), count)| {
            Some(Suppressed { rule: Arc::clone(&self.rules.rule(position)?.info), exception, count })
        });
        told.collect()
    }
}

/// Those of some rules that match, in their order. Exceptions that withhold it are counted.
fn judge<'r>(
    record: &Record<'_>,
    rules: impl Iterator<Item = (usize, &'r Rule)>,
    suppressed: &mut BTreeMap<(usize, usize), u64>,
    wanted: Option<(&Wanted, &[u8])>,
) -> Vec<Arc<RuleInfo>> {
    let mut matched = Vec::new();
    for (position, rule) in rules.filter(|(_, rule)| record.meets(&rule.body)) {
        if wanted.is_some_and(|(Wanted(wanted), raw)| !wanted(&rule.info, raw)) {
            continue;
        }
        match record.exception(rule) {
            Some(exception) => *suppressed.entry((position, exception)).or_default() += 1,
            None => matched.push(record.matched(rule)),
        }
    }
    matched
}

/// From what the index knows of a record to the rules that only ask for more than this.
#[derive(Debug, Default)]
struct Memo {
    slots: HashMap<Vec<u8>, usize>,
    lists: Vec<Vec<usize>>,
    remembered_rules: usize,
    key: Vec<u8>,
    unremembered: Vec<usize>,
}

impl Memo {
    fn candidates(&mut self, rules: &RuleSet, key: &Key<'_>) -> &[usize] {
        write_key(&mut self.key, key);
        if self.key.len() > MAX_KEY_BYTES {
            // Whoever writes such names must not fill the memo with them.
            self.unremembered = rules.index.candidates(&rules.rules, key);
            return &self.unremembered;
        }
        let slot = match self.slots.get(&self.key) {
            Some(slot) => *slot,
            None => self.remember(rules.index.candidates(&rules.rules, key)),
        };
        self.lists.get(slot).map_or(&[], Vec::as_slice)
    }

    fn remember(&mut self, candidates: Vec<usize>) -> usize {
        if self.lists.len() >= MAX_KEYS || self.remembered_rules >= MAX_REMEMBERED_RULES {
            self.slots.clear();
            self.lists.clear();
            self.remembered_rules = 0;
        }
        let slot = self.lists.len();
        self.remembered_rules = self.remembered_rules.saturating_add(candidates.len());
        self.lists.push(candidates);
        self.slots.insert(self.key.clone(), slot);
        slot
    }
}

/// Bytes that no other key has: absent and odd differ from empty, and lengths say where a text ends.
fn write_key(bytes: &mut Vec<u8>, key: &Key<'_>) {
    bytes.clear();
    for found in &key.0 {
        match found {
            Found::Absent => bytes.push(0),
            Found::Odd => bytes.push(1),
            Found::Text(text) | Found::Ambiguous(text) => {
                bytes.push(if matches!(found, Found::Text(_)) { 2 } else { 3 });
                bytes.extend_from_slice(&text.len().to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// What rules may ask of a record, found in one pass, decoded when first asked for.
#[derive(Default)]
pub(super) struct Record<'a> {
    raw: &'a [u8],
    event_source: Text<'a>,
    event_name: Text<'a>,
    error_code: Text<'a>,
    error_message: Text<'a>,
    user_identity: &'a [u8],
    user_identity_type: OnceCell<Option<&'a [u8]>>,
    user_identity_text: OnceCell<Option<Cow<'a, str>>>,
    /// A name such as `userIdentity.type` at the top, which a path finds, too.
    dotted_identity: bool,
    resources: &'a [u8],
    resource_types: OnceCell<Vec<Cow<'a, str>>>,
    date: OnceCell<Option<Date>>,
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

    fn found(&self) -> Found<'_> {
        found(self.raw, self.get())
    }
}

fn found<'t>(raw: &[u8], text: Option<&'t str>) -> Found<'t> {
    match text {
        Some(text) => Found::Text(text),
        None if raw.is_empty() || json::is_null(raw) => Found::Absent,
        None => Found::Odd,
    }
}

impl<'a> Record<'a> {
    pub(super) fn read(raw: &'a [u8]) -> Self {
        let mut record = Self { raw, ..Self::default() };
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
                b"userIdentity.type" => record.dotted_identity = true,
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
        self.dotted_identity |= json::key_is(key, "userIdentity.type");
    }

    /// What the index finds rules by; in the order of [`Field::INDEXED`].
    pub(super) fn key(&self) -> Key<'_> {
        let identity = found(self.user_identity_type().unwrap_or_default(), self.user_identity_text());
        let identity = match identity {
            Found::Text(text) if self.dotted_identity => Found::Ambiguous(text),
            _ if self.dotted_identity || json::is_array(self.user_identity) => Found::Odd,
            identity => identity,
        };
        Key([self.event_name.found(), self.event_source.found(), self.error_code.found(), identity])
    }

    /// The rule, with the steps of its sequence that the record meets.
    fn matched(&self, rule: &Rule) -> Arc<RuleInfo> {
        if rule.steps.is_empty() {
            return Arc::clone(&rule.info);
        }
        let met = (0_u8..).zip(&rule.steps).filter(|(_, step)| step.matches(self.raw));
        Arc::new(RuleInfo { steps: met.map(|(number, _)| number).collect(), ..RuleInfo::clone(&rule.info) })
    }

    /// Whether everything that the index does not decide holds.
    pub(super) fn meets(&self, body: &Body) -> bool {
        body.further_conditions().all(|(field, any_of)| self.holds(field, any_of))
            && body.pattern().is_none_or(|pattern| pattern.matches(self.raw))
    }

    /// The first exception that the record meets, if any.
    pub(super) fn exception(&self, rule: &Rule) -> Option<usize> {
        rule.exceptions.iter().position(|exception| self.is_excepted(exception))
    }

    pub(super) fn is_excepted(&self, exception: &Exception) -> bool {
        exception.until.is_none_or(|last| self.date().is_some_and(|date| date <= last))
            && exception.body.allows(&self.key())
            && self.meets(&exception.body)
    }

    /// The day of the event in UTC. A record that does not say its time is on no day.
    fn date(&self) -> Option<Date> {
        *self.date.get_or_init(|| Some(event_time(self.raw)?.date()))
    }

    pub(super) fn holds(&self, field: Field, any_of: &AnyOf) -> bool {
        match field {
            Field::ResourceType => self.resource_types().iter().any(|text| any_of.holds(text)),
            field => self.text(field).is_some_and(|text| any_of.holds(text)),
        }
    }

    /// The text that a plain condition looks at; the first of several.
    pub(super) fn text(&self, field: Field) -> Option<&str> {
        match field {
            Field::EventSource => self.event_source.get(),
            Field::EventName => self.event_name.get(),
            Field::ErrorCode => self.error_code.get(),
            Field::ErrorMessage => self.error_message.get(),
            Field::UserIdentityType => self.user_identity_text(),
            Field::ResourceType => self.resource_types().first().map(Cow::as_ref),
        }
    }

    fn user_identity_type(&self) -> Option<&'a [u8]> {
        *self.user_identity_type.get_or_init(|| json::get(self.user_identity, "type"))
    }

    fn user_identity_text(&self) -> Option<&str> {
        self.user_identity_text.get_or_init(|| self.user_identity_type().and_then(json::string)).as_deref()
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

    use super::super::Mode;
    use super::super::pattern::naive::{self, Json};
    use super::*;
    use crate::cloudtrail::{Decoder, Input, Limits, Output, Step};

    fn matcher(rules: &Value) -> Matcher {
        Matcher::new(Arc::new(RuleSet::parse(&rules.to_string()).unwrap()))
    }

    fn found(matcher: &mut Matcher, record: &str) -> Vec<String> {
        matcher.matches(record.as_bytes()).iter().map(|rule| rule.id.clone()).collect()
    }

    /// What is found in an object that holds this record, which may be dismissed on its way.
    /// What is remembered of a record without a type says nothing of one whose type is empty.
    #[test]
    fn an_empty_text_is_not_an_absent_one() {
        for (rule, records) in [
            (json!({ "userIdentityType": "*" }), [r"{}", r#"{"userIdentity":{"type":""}}"#]),
            (json!({ "eventName": "*" }), [r"{}", r#"{"eventName":""}"#]),
        ] {
            let mut rule = rule;
            (rule["id"], rule["severity"]) = ("r".into(), "LOW".into());
            let mut matcher = matcher(&json!([rule]));
            let found = records.map(|record| found_in_object(&mut matcher, record).len());
            assert_eq!(found, [0, 1], "{rule}");
        }
    }

    fn found_in_object(matcher: &mut Matcher, record: &str) -> Vec<String> {
        // What stands behind it lets the splitter read all of it in blocks.
        let text = format!(r#"{{"Records":[{record}],"behind":"{}"}}"#, " ".repeat(80));
        let limits = Limits {
            max_compressed_bytes: 1 << 20,
            max_decompressed_bytes: 1 << 20,
            max_ratio: 9,
            max_record_bytes: 1 << 20,
        };
        let mut decoder = Decoder::new(limits);
        let mut input = Input { bytes: text.into_bytes().into(), last: true };
        let mut out = Output::default();
        while decoder.step(&mut input, matcher, &mut out).unwrap() != Step::End {}
        out.detections.iter().flat_map(|one| &one.rules).map(|rule| rule.id.clone()).collect()
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
    fn a_name_with_a_dot_hides_no_identity() {
        let record = r#"{"userIdentity":{"type":"Root"},"userIdentity.type":"A"}"#;
        assert!(asks("userIdentityType", "Root", record));
        assert!(!asks("userIdentityType", "A", record));
        for text in ["Root", "A"] {
            let rule = json!([{ "id": "r", "severity": "LOW", "pattern": { "userIdentity.type": [text] } }]);
            assert_eq!(found(&mut matcher(&rule), record), ["r"]);
        }
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
        for i in 0..3 * MAX_KEYS {
            let expected = i.to_string().starts_with('1');
            assert_eq!(!found(&mut matcher, &format!(r#"{{"eventName":"Name{i}"}}"#)).is_empty(), expected);
            assert!(matcher.memo.slots.len() <= MAX_KEYS && matcher.memo.lists.len() <= MAX_KEYS);
        }
        let held = matcher.memo.slots.len();
        let long = format!(r#"{{"eventName":"Name1{}"}}"#, "x".repeat(MAX_KEY_BYTES));
        assert_eq!(found(&mut matcher, &long), ["r"]);
        assert_eq!(matcher.memo.slots.len(), held);
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
    fn keys_that_read_alike_together_are_kept_apart() {
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
            // What looks like a member and is none.
            1 => (Just("requestParameters"), odd_values().prop_map(|value| json!({ "eventName": value, "type": "a" }))),
            1 => (Just("userAgent"), texts().prop_map(|text| json!(format!("\",\"eventName\":\"{text}\",\"errorCode\":\"b")))),
            1 => (Just("x\",\"eventName"), odd_values()),
            1 => (Just("userIdentity"), odd_values().prop_map(|one| json!({ "type": one, "sessionContext": { "type": "b" } }))),
        ];
        prop::collection::vec(member, 0..9)
            .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            .prop_map(Value::Object)
    }

    /// What a rule or an exception asks for.
    #[derive(Clone, Debug)]
    struct Asked {
        plain: Vec<(Field, Vec<&'static str>)>,
        pattern: Option<naive::Pattern>,
    }

    #[derive(Clone, Debug)]
    struct Told {
        asked: Asked,
        mode: Mode,
        /// Each with its last day.
        unless: Vec<(Asked, Option<&'static str>)>,
    }

    impl Asked {
        fn written(&self) -> String {
            let plain = self.plain.iter().map(|(field, values)| format!("{:?}: {}", field.key(), json!(values)));
            let pattern = self.pattern.iter().map(|pattern| format!("\"pattern\": {}", naive::written(pattern)));
            plain.chain(pattern).collect::<Vec<_>>().join(", ")
        }

        fn holds(&self, record: &Json) -> bool {
            let plain = self.plain.iter().all(|(field, wanted)| {
                let types = |one: &Json| one.get("type").and_then(Json::text);
                let texts: Vec<_> = match field {
                    Field::UserIdentityType => record.get("userIdentity").and_then(types).into_iter().collect(),
                    Field::ResourceType => match record.get("resources") {
                        Some(Json::Array(all)) => all.iter().filter_map(types).collect(),
                        _ => Vec::new(),
                    },
                    field => record.get(field.key()).and_then(Json::text).into_iter().collect(),
                };
                texts.iter().any(|text| wanted.iter().any(|one| super::super::wildcard::matches(one, text)))
            });
            plain && self.pattern.as_ref().is_none_or(|pattern| naive::matches(pattern, record))
        }
    }

    impl Told {
        fn written(&self, id: usize) -> String {
            let unless = self.unless.iter().map(|(asked, until)| {
                let until = until.map(|day| format!(", \"until\": {day:?}")).unwrap_or_default();
                format!("{{\"reason\": \"r\"{until}, {}}}", asked.written())
            });
            let unless = match unless.collect::<Vec<_>>().join(", ") {
                all if all.is_empty() => String::new(),
                all => format!(", \"unless\": [{all}]"),
            };
            let (mode, asked) = (self.mode.as_str(), self.asked.written());
            format!("{{\"id\": \"r{id}\", \"severity\": \"LOW\", \"mode\": {mode:?}{unless}, {asked}}}")
        }

        /// The exception that withholds the record, if it is a match.
        #[allow(clippy::option_option, reason = "no match, and a match that no exception withholds")]
        fn answer(&self, record: &Json) -> Option<Option<usize>> {
            let day = record.get("eventTime").and_then(Json::text).filter(|text| text.starts_with("20"));
            let day = day.as_ref().and_then(|text| text.get(..10));
            let lasts = |until: Option<&str>| until.is_none_or(|until| day.is_some_and(|day| day <= until));
            let excepts = |(asked, until): &(Asked, Option<&str>)| lasts(*until) && asked.holds(record);
            (self.mode != Mode::Off && self.asked.holds(record)).then(|| self.unless.iter().position(excepts))
        }
    }

    const INDEXED: &[&str] =
        &["eventName", "eventSource", "errorCode", "userIdentity.type", "eventName", "userIdentity", "type"];

    fn asked() -> impl Strategy<Value = Asked> {
        let values = prop::collection::vec(prop::sample::select(&["a", "b", "a*", "*b", "?", "*", "ab"][..]), 1..3);
        let plain = prop::sample::subsequence(Field::ALL.to_vec(), 0..3)
            .prop_flat_map(move |fields| {
                let count = fields.len();
                (Just(fields), prop::collection::vec(values.clone(), count))
            })
            .prop_map(|(fields, values)| fields.into_iter().zip(values).collect::<Vec<_>>());
        let pattern = prop_oneof![3 => naive::named_texts(INDEXED), 1 => naive::patterns(INDEXED)];
        (plain, prop::option::weighted(0.7, pattern)).prop_map(|(mut plain, pattern)| {
            if plain.is_empty() && pattern.is_none() {
                plain.push((Field::EventName, vec!["*"]));
            }
            Asked { plain, pattern }
        })
    }

    fn rules() -> impl Strategy<Value = Vec<Told>> {
        let mode = prop_oneof![6 => Just(Mode::Alert), 1 => Just(Mode::Shadow), 1 => Just(Mode::Off)];
        let until = prop::option::of(prop::sample::select(&["2026-06-29", "2026-06-30", "2026-07-01"][..]));
        let rule = (asked(), mode, prop::collection::vec((asked(), until), 0..3));
        prop::collection::vec(rule.prop_map(|(asked, mode, unless)| Told { asked, mode, unless }), 1..6)
    }

    /// Records whose fields are mostly texts, and now and then anything.
    fn odd_records() -> impl Strategy<Value = Json> {
        let text = || naive::texts().prop_map(|text| Json::Leaf(naive::Leaf::Text(text)));
        let value = || prop_oneof![6 => text(), 1 => naive::values()].boxed();
        let typed = || value().prop_map(|value| Json::Object(vec![(naive::plain("type"), value)])).boxed();
        let many = |one: BoxedStrategy<Json>| prop::collection::vec(one, 0..3).prop_map(Json::Array);
        let times = &["2026-06-30T00:00:00Z", "2026-06-30T23:59:59Z", "2026-07-01T00:00:00Z", "then"][..];
        let time = prop::sample::select(times).prop_map(|time| Json::Leaf(naive::Leaf::Text(naive::plain(time))));
        let named = |name: &'static str, value: BoxedStrategy<Json>| (Just(naive::plain(name)), value);
        let member = prop_oneof![
            4 => named("eventName", value()),
            3 => named("eventSource", value()),
            3 => named("errorCode", value()),
            1 => named("errorMessage", value()),
            3 => named("userIdentity", prop_oneof![4 => typed(), 1 => many(typed()), 1 => value()].boxed()),
            1 => named("userIdentity.type", value()),
            2 => named("resources", prop_oneof![4 => many(typed()), 1 => value()].boxed()),
            4 => named("eventTime", time.boxed()),
        ];
        prop::collection::vec(member, 0..10).prop_map(Json::Object)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn agrees_with_a_naive_reading_of_whole_rules(
            rules in rules(),
            records in prop::collection::vec(odd_records(), 1..8),
        ) {
            let all: Vec<_> = rules.iter().enumerate().map(|(id, rule)| rule.written(id)).collect();
            let file = format!("{{\"lists\": {}, \"events\": [{}]}}", naive::LISTS, all.join(",\n"));
            let (mut matcher, mut splitting) = match RuleSet::parse(&file).map(Arc::new) {
                Ok(rules) => (Matcher::new(Arc::clone(&rules)), Matcher::new(rules)),
                Err(told) => {
                    prop_assert!(told.to_string().contains(" ways"), "{}\n{}", file, told);
                    return Ok(());
                }
            };
            // Twice, so that the second time answers from the memo.
            for record in records.iter().chain(&records) {
                let answers: Vec<_> = rules.iter().map(|rule| rule.answer(record)).enumerate().collect();
                let expected: Vec<_> = answers.iter().filter(|(_, one)| *one == Some(None)).map(|(id, _)| format!("r{id}")).collect();
                let withheld: Vec<_> = answers.iter().filter_map(|(id, one)| Some((format!("r{id}"), (*one)??, 1))).collect();
                let record = record.written();
                prop_assert_eq!(&found(&mut matcher, &record), &expected, "{} on {}", file, record);
                let suppressed: Vec<_> = matcher.take_suppressed().into_iter().map(|one| (one.rule.id.clone(), one.exception, one.count)).collect();
                prop_assert_eq!(&suppressed, &withheld, "{} on {}", file, record);
                prop_assert_eq!(found_in_object(&mut splitting, &record), expected, "in an object: {} on {}", file, record);
                let suppressed: Vec<_> = splitting.take_suppressed().into_iter().map(|one| (one.rule.id.clone(), one.exception, one.count)).collect();
                prop_assert_eq!(suppressed, withheld, "in an object: {} on {}", file, record);
            }
        }

        #[test]
        fn agrees_with_a_naive_matcher(rules in rule_files(), records in prop::collection::vec(records(), 1..12)) {
            let (mut one, mut splitting) = (matcher(&json!(rules)), matcher(&json!(rules)));
            // Twice, so that the second time answers from the memo.
            for record in records.iter().chain(&records) {
                let expected: Vec<_> = rules.iter().filter(|rule| naive(rule, record)).map(|rule| rule["id"].as_str().unwrap()).collect();
                for text in [record.to_string(), serde_json::to_string_pretty(record).unwrap()] {
                    prop_assert_eq!(&found(&mut one, &text), &expected, "{}", record);
                    prop_assert_eq!(&found_in_object(&mut splitting, &text), &expected, "in an object: {}", record);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_fail(rules in rule_files(), raw in prop::collection::vec(any::<u8>(), 0..200)) {
            matcher(&json!(rules)).matches(&raw);
        }
    }
}
