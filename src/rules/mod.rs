//! `monitored_events.json`, compiled, and the matching of one record against it.

mod condition;
mod correlation;
mod cost;
mod dismissal;
mod document;
#[cfg(test)]
mod examples;
mod explain;
mod fields;
mod file;
mod hash;
pub mod import;
mod index;
mod lint;
mod matcher;
mod matchers;
pub mod names;
pub(crate) mod pattern;
mod reader;
#[cfg(test)]
mod schema;
mod suggest;
pub mod suite;
mod wildcard;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::Date;

use crate::cloudtrail::json;
use condition::Rule;
pub use correlation::{Correlation, FirstSeen, Limits, Sequence, Threshold};
pub use cost::{Cost, LooksAt};
use dismissal::Watched;
pub use explain::{Explainer, Explanation, Step, Verdict};
use index::Index;
pub use matcher::{Matcher, Suppressed, Wanted};
pub use matchers::Matchers;
pub(crate) use wildcard::matches as wildcard_matches;

/// The rule file that comes with trailhound.
pub const DEFAULT_RULES: &str = include_str!("../../monitored_events.json");

/// The default rule that the record of `trailhound doctor --round-trip` matches, and nothing else.
pub const TEST_RULE: &str = "trailhound-doctor-test";

/// Event source and event name of that record: no service of AWS writes them.
pub const TEST_EVENT: (&str, &str) = ("trailhound.test", "TrailhoundDoctorTest");

/// The JSON Schema of rule files, draft 7: the one that editors know best.
pub const SCHEMA: &str = include_str!("../../config/monitored_events.schema.json");

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

/// What a match of a rule leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Stored, counted and alerted.
    #[default]
    Alert,
    /// Stored and counted: for a rule on trial.
    Shadow,
    /// Not even looked at.
    Off,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Alert, Self::Shadow, Self::Off];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// Which matches belong together: those that agree in the values at `by`, within `window`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub by: Vec<String>,
    /// A number and `s`, `m`, `h` or `d`.
    pub window: String,
}

impl Group {
    /// The length of `window`. One that a file may not have is an hour.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        seconds_of(&self.window)
    }
}

/// The length of a window as rule files write it. One that a file may not have is an hour.
fn seconds_of(window: &str) -> u64 {
    let unit = match window.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'd') => 86_400,
        _ => 3_600,
    };
    let number = window.get(..window.len().saturating_sub(1)).and_then(|number| number.parse::<u32>().ok());
    number.map_or(3_600, |number| u64::from(number) * unit)
}

/// What a record says at a path, as conditions read it, in canonical JSON: one value as it stands, several as an array.
/// Null reads as absent.
#[must_use]
pub(crate) fn value_at(record: &[u8], path: &str) -> Option<String> {
    let mut found =
        pattern::values(record, path).into_iter().filter(|value| !json::is_null(value)).map(json::canonical);
    let first = found.next()?;
    let rest: Vec<_> = found.collect();
    if rest.is_empty() { Some(first) } else { Some(format!("[{first},{}]", rest.join(","))) }
}

/// A rule as alerts and the admin pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub severity: Severity,
    pub mode: Mode,
    pub description: String,
    /// What to check first, as it goes on after these words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// Techniques of ATT&CK.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attack: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack_version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Correlation>,
    /// Of a rule with a sequence: which of its steps a record met, from 0.
    #[serde(skip)]
    pub steps: Vec<u8>,
}

impl RuleInfo {
    /// A rule that alerts, and of which nothing more is told.
    #[must_use]
    pub fn new(id: impl Into<String>, severity: Severity, description: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            title: None,
            severity,
            mode: Mode::Alert,
            description: description.into(),
            check: None,
            author: None,
            references: Vec::new(),
            attack: Vec::new(),
            attack_version: None,
            tags: Vec::new(),
            runbook: None,
            group: None,
            correlation: None,
            steps: Vec::new(),
        }
    }
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
#[derive(Debug, Default)]
pub struct RuleSet {
    infos: Vec<Arc<RuleInfo>>,
    rules: Vec<Rule>,
    by_id: HashMap<String, usize>,
    index: Index,
    watched: Vec<Watched>,
    hash: String,
}

/// The lists that are always there, filled from the configuration; see `docs/rules.md`.
pub const BUILT_IN_LISTS: [&str; 8] = [
    "trailhound.queues",
    "trailhound.topics",
    "trailhound.tables",
    "trailhound.buckets",
    "trailhound.trails",
    "trailhound.services",
    "trailhound.rule_buckets",
    "trailhound.rule_keys",
];

/// The configuration key that fills a built-in list.
fn list_source(name: &str) -> &'static str {
    match name {
        "trailhound.queues" => "set queue.url",
        "trailhound.topics" => "set alerting.topic_arn",
        "trailhound.tables" => "set store.table",
        "trailhound.buckets" => "set source.allowed_buckets",
        "trailhound.trails" => "set rules.own_trails",
        "trailhound.rule_buckets" | "trailhound.rule_keys" => "set rules.path to an object in S3",
        _ => "set rules.own_services",
    }
}

/// Conditions in the built-in lists, as a rule file would write them.
pub type NamedLists = BTreeMap<String, Vec<serde_json::Value>>;

/// What a rule file is read with, besides its text.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// A list that is not here is empty, and nothing is said about it.
    pub lists: NamedLists,
    /// By which exceptions have expired; without it none has.
    pub today: Option<Date>,
}

/// How grave a finding about a rule file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The file is refused.
    Error,
    /// Probably not what is meant.
    Warning,
}

/// One thing that is wrong with a rule file, or a file of rule tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub level: Level,
    /// The rule's id, where it has one.
    pub rule: Option<String>,
    /// A JSON path such as `events[3].severity`.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do, where that is not plain.
    pub advice: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.path)?;
        if let Some(rule) = &self.rule {
            write!(f, " (rule {rule:?})")?;
        }
        write!(f, ": {}", self.message)?;
        self.advice.iter().try_for_each(|advice| write!(f, "; {advice}"))
    }
}

/// Everything for which a rule file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RuleErrors {
    pub errors: Vec<Diagnostic>,
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

/// A rule file, read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// # Errors
    ///
    /// Everything for which the file is refused.
    pub rules: Result<RuleSet, RuleErrors>,
    pub warnings: Vec<Diagnostic>,
}

impl RuleSet {
    /// Parses, checks and compiles a rule file. What the start, SIGHUP and `trailhound rules check` have in common.
    #[must_use]
    pub fn load(text: &str, surroundings: &Surroundings) -> Loaded {
        let (file, found) = file::read(text, surroundings, |file, reader| lint::lint(file, surroundings, reader));
        let (errors, warnings): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.level == Level::Error);
        Loaded { rules: Self::unless(errors, file), warnings }
    }

    fn unless(errors: Vec<Diagnostic>, file: file::File) -> Result<Self, RuleErrors> {
        if errors.is_empty() { Ok(Self::compile(file)) } else { Err(RuleErrors { errors }) }
    }

    /// [`Self::load`] without surroundings and without the lint: what can be compiled.
    ///
    /// # Errors
    ///
    /// Everything for which the file is refused, at once.
    pub fn parse(text: &str) -> Result<Self, RuleErrors> {
        let (file, found) = file::read(text, &Surroundings::default(), |_, _| {});
        Self::unless(found.into_iter().filter(|one| one.level == Level::Error).collect(), file)
    }

    fn compile(file: file::File) -> Self {
        let hash = hash::hash(&file);
        // Each draft goes as its rule comes: at the start, a rule file is most of what the process has held.
        let rules: Vec<Rule> = file.drafts.into_iter().map(file::Draft::rule).collect();
        Self {
            infos: rules.iter().map(|rule| Arc::clone(&rule.info)).collect(),
            by_id: rules.iter().enumerate().map(|(index, rule)| (rule.info.id.clone(), index)).collect(),
            index: Index::new(&rules),
            watched: dismissal::watched(&rules),
            hash,
            rules,
        }
    }

    /// Names this rule set in stored items: the first 16 hexadecimal digits of a SHA-256 of what the rules mean.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// In the order of the file, those that are off included.
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

    /// Every exception, by its rule and its position under `unless`, from 0.
    pub fn exceptions(&self) -> impl Iterator<Item = (&RuleInfo, usize)> {
        self.rules.iter().flat_map(|rule| (0..rule.exceptions.len()).map(|position| (&*rule.info, position)))
    }

    /// The reasons of a rule's exceptions, in their order.
    pub fn reasons(&self, id: &str) -> impl Iterator<Item = &str> {
        let rule = self.by_id.get(id).and_then(|index| self.rules.get(*index));
        rule.into_iter().flat_map(|rule| rule.exceptions.iter().map(|one| one.reason.as_str()))
    }

    /// The exceptions whose last day is over: rule, reason and that day.
    pub fn expired(&self, today: Date) -> impl Iterator<Item = (&RuleInfo, &str, Date)> {
        self.rules.iter().flat_map(move |rule| {
            let expired =
                rule.exceptions.iter().filter_map(move |one| Some((one, one.until.filter(|day| *day < today)?)));
            expired.map(|(one, day)| (&*rule.info, one.reason.as_str(), day))
        })
    }
}

/// The ids of some rules.
#[must_use]
pub fn ids(rules: &[Arc<RuleInfo>]) -> BTreeSet<String> {
    rules.iter().map(|rule| rule.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_the_default_rules() {
        let page = include_str!("../../docs/pack.md");
        let rules = RuleSet::parse(DEFAULT_RULES).unwrap();
        for rule in rules.rules() {
            let title = rule.title.as_deref().unwrap_or_default();
            let row = format!("| `{}` | {} | {title} | {} |", rule.id, rule.severity, rule.attack.join(", "));
            assert!(page.lines().any(|line| line == row), "docs/pack.md lacks the row {row}");
        }
        assert_eq!(page.lines().filter(|line| line.starts_with("| `")).count(), rules.rules().len());
    }

    #[test]
    fn each_default_rule_says_what_it_is_and_what_to_do() {
        let Loaded { rules, warnings } = RuleSet::load(DEFAULT_RULES, &Surroundings::default());
        assert_eq!(warnings, []);
        let rules = rules.unwrap();
        for rule in rules.rules() {
            assert!(rule.title.is_some() && !rule.tags.is_empty(), "{}", rule.id);
            let check = rule.check.as_deref().unwrap_or_default();
            assert!(check.len() > 10 && check.ends_with('.'), "{} does not say what to check first", rule.id);
            // An alert tells both in full.
            assert!(rule.description.len() <= 400 && check.len() <= 400, "{} says too much", rule.id);
            if rule.id == TEST_RULE {
                // No attack, and each test alerts.
                continue;
            }
            assert!(rule.attack_version.is_some() && !rule.attack.is_empty(), "{}", rule.id);
            // Only what comes once may come ungrouped.
            let is_bounded = rule.group.is_some() || rule.correlation.is_some();
            assert!(is_bounded || rule.severity == Severity::Critical, "{} has no group", rule.id);
        }
        for number in 1..=15 {
            let tag = format!("cis-4.{number}");
            assert!(rules.rules().iter().any(|rule| rule.tags.contains(&tag)), "no rule has the tag {tag}");
        }
        assert!(rules.rules().len() >= 105);
    }

    const RULE: &str = r#"{"events": [{"id": "a", "severity": "HIGH", "description": "d",
        "eventName": ["B*", "A", "C"], "errorCode": "X"}]}"#;

    #[test]
    fn the_hash_names_the_meaning_and_not_the_spelling() {
        let hash = |text: &str| RuleSet::parse(text).unwrap().hash().to_owned();
        let original = hash(RULE);
        assert_eq!(original.len(), 16);
        assert!(original.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Other keys first, a bare array, a list for a string, other order, a repetition, escapes, metadata, a BOM.
        let respelled =
            "\u{feff}[\n{\"errorCode\":[\"\\u0058\"],\"tags\":[\"t\"],\"eventName\":[\"C\",\"A\",\"A\",\"B*\"],
            \"description\":\"d\",\"severity\":\"HIGH\",\"id\":\"a\"}]\r\n";
        assert_eq!(hash(respelled), original);
        for (from, to) in [
            ("\"X\"", "\"Y\""),
            ("\"A\", ", ""),
            ("\"B*\"", "\"B\""),
            ("errorCode", "errorMessage"),
            ("HIGH", "LOW"),
            ("\"a\"", "\"b\""),
            ("\"d\"", "\"e\""),
        ] {
            let changed = RULE.replace(from, to);
            assert_ne!(changed, RULE);
            assert_ne!(hash(&changed), original, "{from} -> {to}");
        }
    }

    #[test]
    fn a_rule_set_lists_and_finds_its_rules() {
        let rules = RuleSet::parse(DEFAULT_RULES).unwrap();
        for rule in rules.rules() {
            assert_eq!(rules.find(&rule.id), Some(rule));
        }
        assert_eq!(rules.find("no-such-rule"), None);
        assert!(Matcher::new(Arc::default()).matches(br#"{"eventName":"A"}"#).is_empty());
    }

    #[test]
    fn the_order_of_matches_is_the_files() {
        let rules = RuleSet::parse(
            r#"[{"id": "3", "severity": "LOW", "eventName": "A"}, {"id": "1", "severity": "LOW", "eventName": "A*"},
                {"id": "2", "severity": "CRITICAL", "eventName": ["Z", "A"]}, {"id": "0", "severity": "LOW", "eventSource": "s"}]"#,
        );
        let found = Matcher::new(Arc::new(rules.unwrap())).matches(br#"{"eventSource":"s","eventName":"A"}"#);
        assert_eq!(found.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["3", "1", "2", "0"]);
        assert_eq!(ids(&found).into_iter().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
}
