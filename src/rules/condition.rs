//! The conditions of a rule, compiled.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{RuleInfo, wildcard};

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    EventSource,
    EventName,
    /// `userIdentity.type`
    UserIdentityType,
    ErrorCode,
    ErrorMessage,
    /// Any `resources[].type`
    ResourceType,
}

impl Field {
    pub(super) const ALL: [Self; 6] = [
        Self::EventSource,
        Self::EventName,
        Self::UserIdentityType,
        Self::ErrorCode,
        Self::ErrorMessage,
        Self::ResourceType,
    ];

    /// Its key in a rule.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::EventSource => "eventSource",
            Self::EventName => "eventName",
            Self::UserIdentityType => "userIdentityType",
            Self::ErrorCode => "errorCode",
            Self::ErrorMessage => "errorMessage",
            Self::ResourceType => "resourceType",
        }
    }
}

/// Holds for a text that equals, or matches, any of its values.
#[derive(Clone, Debug, Default)]
pub(super) struct AnyOf {
    /// Sorted, for a binary search.
    exact: Vec<String>,
    wildcards: Vec<String>,
}

impl AnyOf {
    pub(super) fn new(mut values: Vec<String>) -> Self {
        values.sort_unstable();
        values.dedup();
        let (wildcards, exact) = values.into_iter().partition(|value| wildcard::is_wildcard(value));
        Self { exact, wildcards }
    }

    pub(super) fn holds(&self, text: &str) -> bool {
        self.exact.binary_search_by(|value| value.as_str().cmp(text)).is_ok()
            || self.wildcards.iter().any(|pattern| wildcard::matches(pattern, text))
    }

    /// The values, if none of them is a wildcard.
    pub(super) fn only_exact(&self) -> Option<&[String]> {
        self.wildcards.is_empty().then_some(&self.exact)
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().chain(&self.wildcards).map(String::as_str)
    }
}

/// A rule: what it is called, and what must hold, all of it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) info: Arc<RuleInfo>,
    /// Sorted by field; each field at most once.
    conditions: Vec<(Field, AnyOf)>,
}

impl Rule {
    pub(super) fn new(info: RuleInfo, mut conditions: Vec<(Field, AnyOf)>) -> Self {
        conditions.sort_by_key(|(field, _)| *field);
        Self { info: Arc::new(info), conditions }
    }

    pub(super) fn condition(&self, wanted: Field) -> Option<&AnyOf> {
        self.conditions.iter().find_map(|(field, any_of)| (*field == wanted).then_some(any_of))
    }

    /// The conditions on what a record holds beside its source and name.
    pub(super) fn further_conditions(&self) -> impl Iterator<Item = (Field, &AnyOf)> {
        self.conditions
            .iter()
            .filter(|(field, _)| !matches!(field, Field::EventSource | Field::EventName))
            .map(|(field, any_of)| (*field, any_of))
    }

    /// Whether a condition on a single text, if there is one, holds. An absent text meets no condition.
    pub(super) fn allows(&self, field: Field, text: Option<&str>) -> bool {
        self.condition(field).is_none_or(|any_of| text.is_some_and(|text| any_of.holds(text)))
    }
}

/// The first 16 hexadecimal digits of a SHA-256 over what the rules mean: their order, ids, severities, descriptions and
/// conditions, however the file spells them.
pub(super) fn hash(rules: &[Rule]) -> String {
    fn put(hasher: &mut Sha256, text: &str) {
        hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(text);
    }

    let mut hasher = Sha256::new();
    put(&mut hasher, "trailhound.rules/1");
    for rule in rules {
        // Every kind of part begins with its own word, so that no two rule sets give the same bytes.
        put(&mut hasher, "rule");
        put(&mut hasher, &rule.info.id);
        put(&mut hasher, rule.info.severity.as_str());
        put(&mut hasher, &rule.info.description);
        for (field, any_of) in &rule.conditions {
            put(&mut hasher, "field");
            put(&mut hasher, field.key());
            for value in any_of.values() {
                put(&mut hasher, "value");
                put(&mut hasher, value);
            }
        }
    }
    let digest = hasher.finalize();
    let first = digest.first_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(first))
}
