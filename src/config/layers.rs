//! Defaults, file and environment, laid over each other, with the origin of every value.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{ConfigError, DEFAULTS};

const PREFIX: &str = "TRAILHOUND_";

/// The build's own variable: it names the commit for `--version` and is no configuration.
const BUILD_VARIABLE: &str = "TRAILHOUND_REVISION";

/// Environment variables with names of their own.
const PLAIN_NAMES: [(&str, &str); 5] = [
    ("SQS_QUEUE_URL", "queue.url"),
    ("SNS_TOPIC_ARN", "alerting.topic_arn"),
    ("DYNAMODB_TABLE", "store.table"),
    ("SECURITY_EVENTS_PATH", "rules.path"),
    ("LOG_LEVEL", "log.level"),
];

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Default,
    /// A line from 1; 0 where it is not known.
    File { path: PathBuf, line: usize },
    /// The name of an environment variable.
    Env(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// The origin of every key that is not at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    #[must_use]
    pub fn get(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or_default()
    }
}

/// The environment variable of a key: `queue.wait` is `TRAILHOUND_QUEUE__WAIT`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The plain variable of a key, if it has one.
#[must_use]
pub fn plain_variable(key: &str) -> Option<&'static str> {
    PLAIN_NAMES.iter().find(|(_, known)| *known == key).map(|(name, _)| *name)
}

/// All layers, merged, and what was wrong with them.
pub(super) struct Layers {
    merged: Figment,
    pub origins: Origins,
    pub errors: Vec<ConfigError>,
    /// Whether the file was read: if not, nothing can be said to be missing.
    pub complete: bool,
}

impl Layers {
    pub fn read(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Self {
        let mut layers = Self {
            merged: Figment::from(Toml::string(DEFAULTS)),
            origins: Origins::default(),
            errors: Vec::new(),
            complete: true,
        };
        let known = keys();
        if let Some(path) = file {
            layers.add_file(path, &known);
        }
        layers.add_environment(env, &known);
        layers
    }

    /// The value of a known key; `None` if it is not set.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.merged.find_value(key).ok().filter(|value| value.as_str() != Some(""))
    }

    fn add_file(&mut self, path: &Path, known: &[String]) {
        let origin = |line| Origin::File { path: path.to_owned(), line };
        let read = std::fs::read_to_string(path)
            .map_err(|error| (0, format!("cannot be read: {error}; --config names it")))
            .and_then(|text| leaves(&text));
        let leaves = match read {
            Ok(leaves) => leaves,
            Err((line, message)) => {
                self.complete = false;
                self.errors.push(ConfigError { key: None, origin: origin(line), message });
                return;
            }
        };
        for Leaf { key, line, value } in leaves {
            if known.contains(&key) {
                if value.as_str() != Some("") {
                    self.set(&key, &value, origin(line));
                }
                continue;
            }
            let is_section = known.iter().any(|known| known.split('.').next() == Some(key.as_str()));
            let message = if !is_section {
                format!("is not a known key{}", suggestion(&key, known.iter().map(String::as_str)))
            } else if value.is_table() {
                // A section whose keys are all commented out.
                continue;
            } else {
                format!("is a section: write [{key}] and its keys below it")
            };
            self.errors.push(ConfigError { key: Some(key), origin: origin(line), message });
        }
    }

    fn add_environment(&mut self, env: impl Iterator<Item = (String, String)>, known: &[String]) {
        let env: BTreeMap<String, String> = env.filter(|(_, value)| !value.trim().is_empty()).collect();
        for (name, key) in PLAIN_NAMES {
            if let Some(value) = env.get(name) {
                self.set(key, value, Origin::Env(name.to_owned()));
            }
        }
        let variables: BTreeMap<String, &String> = known.iter().map(|key| (variable(key), key)).collect();
        let ours = env.iter().filter(|(name, value)| {
            name.starts_with(PREFIX) && *name != BUILD_VARIABLE && !is_injected_by_kubernetes(name, value)
        });
        for (name, value) in ours {
            if let Some(key) = variables.get(name) {
                self.set(key, value, Origin::Env(name.clone()));
            } else {
                let message =
                    format!("is not a known setting{}", suggestion(name, variables.keys().map(String::as_str)));
                self.errors.push(ConfigError { key: None, origin: Origin::Env(name.clone()), message });
            }
        }
    }

    fn set(&mut self, key: &str, value: &(impl serde::Serialize + ?Sized), origin: Origin) {
        let below = std::mem::take(&mut self.merged);
        self.merged = below.merge(Serialized::default(key, value));
        self.origins.0.insert(key.to_owned(), origin);
    }
}

/// Every known key, in alphabetical order: the leaves of the embedded defaults.
pub(super) fn keys() -> Vec<String> {
    let mut keys: Vec<String> = leaves(DEFAULTS).unwrap_or_default().into_iter().map(|leaf| leaf.key).collect();
    keys.sort();
    keys
}

/// In a cluster with a service called `trailhound` (or `trailhound-x`), every container gets variables such as
/// `TRAILHOUND_SERVICE_HOST` and `TRAILHOUND_PORT_8080_TCP_ADDR`. They are not meant for us.
fn is_injected_by_kubernetes(name: &str, value: &str) -> bool {
    let port = |protocol| name.contains("_PORT_") && name.contains(protocol);
    !name.contains("__")
        && (name.contains("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || port("_TCP")
            || port("_UDP")
            || port("_SCTP")
            || (name.ends_with("_PORT") && value.contains("://")))
}

/// A key of a TOML document that is not a table (or an empty one), with its full path.
struct Leaf {
    key: String,
    line: usize,
    value: toml::Value,
}

/// All leaves of a TOML document, or the line and text of its syntax error.
fn leaves(text: &str) -> Result<Vec<Leaf>, (usize, String)> {
    let failed = |error: toml::de::Error| {
        let line = error.span().map_or(0, |span| line_at(text, span.start));
        (line, format!("is not TOML: {}", error.message()))
    };
    let offsets = RefCell::new(BTreeMap::new());
    let table: toml::Table = toml::from_str(text).map_err(failed)?;
    // Without an offset a key is only told without its line.
    let _ = Offsets { prefix: String::new(), found: &offsets }.deserialize(toml::Deserializer::new(text));
    let mut leaves = Vec::new();
    flatten("", toml::Value::Table(table), &mut |key, value| {
        let line = offsets.borrow().get(&key).map_or(0, |offset| line_at(text, *offset));
        leaves.push(Leaf { key, line, value });
    });
    leaves.sort_by_key(|leaf| leaf.line);
    Ok(leaves)
}

fn flatten(prefix: &str, value: toml::Value, leaf: &mut impl FnMut(String, toml::Value)) {
    match value {
        toml::Value::Table(table) if prefix.is_empty() || !table.is_empty() => {
            for (key, value) in table {
                flatten(&joined(prefix, &key), value, leaf);
            }
        }
        value => leaf(prefix.to_owned(), value),
    }
}

fn joined(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Walks a TOML document for the places of its keys, which [`toml::Table`] does not keep.
struct Offsets<'a> {
    prefix: String,
    found: &'a RefCell<BTreeMap<String, usize>>,
}

impl<'de> DeserializeSeed<'de> for Offsets<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Offsets<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<toml::Spanned<String>>()? {
            let offset = key.span().start;
            let prefix = joined(&self.prefix, key.get_ref());
            self.found.borrow_mut().entry(prefix.clone()).or_insert(offset);
            map.next_value_seed(Offsets { prefix, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
}

/// `; did you mean X?`, if one of the names is near.
fn suggestion<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let nearest = names.map(|name| (distance(wrong, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= wrong.chars().count().div_ceil(3) => format!("; did you mean {name}?"),
        _ => "; `trailhound config` and docs/configuration.md list them all".to_owned(),
    }
}

/// How many characters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for ((above_left, above), to) in row.iter().zip(row.iter().skip(1)).zip(&b) {
            left = (above_left + usize::from(from != *to)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}
