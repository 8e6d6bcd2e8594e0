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

impl<'a> Text<'a> {
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
