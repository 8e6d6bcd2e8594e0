//! `monitored_events.json`, compiled, and the matching of one record against it.

mod condition;
mod document;
mod file;
mod matcher;
mod wildcard;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use condition::{Field, Rule};
pub use matcher::Matcher;

/// The rule file that comes with trailhound.
pub const DEFAULT_RULES: &str = include_str!("../../monitored_events.json");

/// How grave a match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule as alerts and the admin pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    pub id: String,
    pub severity: Severity,
    pub description: String,
}

/// A record that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Position in the object, from 0; 0 for a record in a message.
    pub index: u64,
    /// The record's bytes as they stood in the object.
    pub raw: Bytes,
    /// The rules that matched, in the order of the file; never empty.
    pub rules: Vec<Arc<RuleInfo>>,
}

/// The compiled, immutable rules. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct RuleSet {
    infos: Vec<Arc<RuleInfo>>,
    rules: Vec<Rule>,
    by_id: HashMap<String, usize>,
    /// The rules that name their events exactly, in the order of the file.
    by_event_name: HashMap<String, Vec<usize>>,
    /// The rules with a wildcard, or without a condition, on the event's name.
    any_event_name: Vec<usize>,
    hash: String,
}

impl Default for RuleSet {
    /// No rules: nothing matches.
    fn default() -> Self {
        Self::compile(Vec::new())
    }
}

/// Everything that is wrong with a rule file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RuleErrors {
    pub errors: Vec<RuleError>,
}

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The rule's id, where it has one.
    pub rule: Option<String>,
    /// A JSON path such as `events[3].severity`.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.path)?;
        if let Some(rule) = &self.rule {
            write!(f, " (rule \"{rule}\")")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl RuleSet {
    /// Parses, checks and compiles a rule file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn parse(text: &str) -> Result<Self, RuleErrors> {
        file::parse(text).map(Self::compile)
    }

    fn compile(rules: Vec<Rule>) -> Self {
        let mut set = Self {
            infos: rules.iter().map(|rule| Arc::clone(&rule.info)).collect(),
            by_id: rules.iter().enumerate().map(|(index, rule)| (rule.info.id.clone(), index)).collect(),
            by_event_name: HashMap::new(),
            any_event_name: Vec::new(),
            hash: condition::hash(&rules),
            rules: Vec::new(),
        };
        for (index, rule) in rules.iter().enumerate() {
            match rule.condition(Field::EventName).and_then(|any_of| any_of.only_exact()) {
                Some(names) => {
                    for name in names {
                        set.by_event_name.entry(name.clone()).or_default().push(index);
                    }
                }
                None => set.any_event_name.push(index),
            }
        }
        set.rules = rules;
        set
    }

    /// Names this rule set in stored items: the first 16 hexadecimal digits of a SHA-256 of the compiled rules.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// In the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Arc<RuleInfo>] {
        &self.infos
    }

    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Arc<RuleInfo>> {
        self.infos.get(*self.by_id.get(id)?)
    }

    fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index)
    }

    /// The rules whose conditions on source and name hold, in the order of the file.
    fn candidates(&self, source: Option<&str>, name: Option<&str>) -> Vec<usize> {
        let by_name = name.and_then(|name| self.by_event_name.get(name)).map_or(&[][..], Vec::as_slice);
        let holds = |rule: &Rule| rule.allows(Field::EventSource, source) && rule.allows(Field::EventName, name);
        let named = by_name.iter().chain(&self.any_event_name).copied();
        let mut candidates: Vec<_> = named.filter(|index| self.rule(*index).is_some_and(holds)).collect();
        candidates.sort_unstable();
        candidates
    }
}

/// The highest severity of some rules.
#[must_use]
pub fn highest(rules: &[Arc<RuleInfo>]) -> Severity {
    rules.iter().map(|rule| rule.severity).max().unwrap_or(Severity::Low)
}

/// The ids of some rules.
#[must_use]
pub fn ids(rules: &[Arc<RuleInfo>]) -> BTreeSet<String> {
    rules.iter().map(|rule| rule.id.clone()).collect()
}
