//! The conditions of a rule, compiled.

use std::sync::Arc;

use time::Date;

use super::dismissal::Asks;
use super::pattern::Compiled;
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

    /// What rules are found by.
    pub(super) const INDEXED: [Self; 4] = [Self::EventName, Self::EventSource, Self::ErrorCode, Self::UserIdentityType];

    /// Its place in [`Self::INDEXED`].
    pub(super) fn index(self) -> Option<usize> {
        Self::INDEXED.iter().position(|field| *field == self)
    }

    /// Where it stands in a record.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::UserIdentityType => "userIdentity.type",
            Self::ResourceType => "resources.type",
            other => other.key(),
        }
    }

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

    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().chain(&self.wildcards).map(String::as_str)
    }
}

/// A rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) info: Arc<RuleInfo>,
    pub(super) body: Body,
    pub(super) exceptions: Vec<Exception>,
    /// See [`super::dismissal::asks`].
    pub(super) asks: Option<Asks>,
    /// Of a sequence: what each of its steps asks for, beside the body.
    pub(super) steps: Vec<Compiled>,
}

/// A known exception: a record that meets it is no match of the rule.
#[derive(Debug)]
pub(super) struct Exception {
    pub(super) body: Body,
    pub(super) reason: String,
    /// The last day on which it holds, in UTC, judged by the record's own time.
    pub(super) until: Option<Date>,
}

/// What must hold, all of it.
#[derive(Debug)]
pub(super) struct Body {
    /// Sorted by field; each field at most once.
    plain: Vec<(Field, AnyOf)>,
    pattern: Option<Compiled>,
    /// For each of [`Field::INDEXED`], the only texts that the pattern can be met with, sorted; `None` for any.
    pattern_texts: [Option<Vec<String>>; 4],
}

impl Body {
    pub(super) fn new(mut plain: Vec<(Field, AnyOf)>, pattern: Option<Compiled>) -> Self {
        plain.sort_by_key(|(field, _)| *field);
        let texts = |field: Field| {
            let texts = pattern.as_ref()?.only_texts(field.path())?;
            Some(texts.into_iter().map(str::to_owned).collect())
        };
        let pattern_texts = Field::INDEXED.map(texts);
        Self { plain, pattern, pattern_texts }
    }

    pub(super) fn condition(&self, wanted: Field) -> Option<&AnyOf> {
        self.plain.iter().find_map(|(field, any_of)| (*field == wanted).then_some(any_of))
    }

    /// The conditions on fields that no index covers.
    pub(super) fn further_conditions(&self) -> impl Iterator<Item = (Field, &AnyOf)> {
        let further = self.plain.iter().filter(|(field, _)| !Field::INDEXED.contains(field));
        further.map(|(field, any_of)| (*field, any_of))
    }

    pub(super) fn pattern(&self) -> Option<&Compiled> {
        self.pattern.as_ref()
    }

    /// The exact texts one of which an indexed field must have; `None` where others will do.
    pub(super) fn only_texts(&self, field: Field) -> Option<&[String]> {
        let plain = self.condition(field).and_then(AnyOf::only_exact);
        plain.or_else(|| self.pattern_texts.get(field.index()?)?.as_deref())
    }

    /// What the rule is found by: the first indexed field for which it names exact texts, and these. `None` where every
    /// record must be looked at.
    pub(super) fn found_by(&self) -> Option<(Field, &[String])> {
        Field::INDEXED.into_iter().find_map(|field| Some((field, self.only_texts(field)?)))
    }

    /// Whether a record with these indexed fields can match. Plain conditions on them are decided by it.
    pub(super) fn allows(&self, key: &Key<'_>) -> bool {
        Field::INDEXED.into_iter().zip(&key.0).zip(&self.pattern_texts).all(|((field, found), texts)| {
            let plain = self.condition(field).is_none_or(|any_of| match found {
                Found::Text(text) | Found::Ambiguous(text) => any_of.holds(text),
                Found::Absent | Found::Odd => false,
            });
            let pattern = texts.as_ref().is_none_or(|texts| match found {
                Found::Text(text) => texts.binary_search_by(|one| one.as_str().cmp(text)).is_ok(),
                Found::Absent => false,
                Found::Ambiguous(_) | Found::Odd => true,
            });
            plain && pattern
        })
    }
}

/// The indexed fields of a record, in the order of [`Field::INDEXED`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a>(pub(super) [Found<'a>; 4]);

/// What a record has in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Nothing, or null.
    Absent,
    Text(&'a str),
    /// A text; but a pattern's path finds more than this.
    Ambiguous(&'a str),
    /// Something else, such as a list: only a pattern can tell.
    Odd,
}
