//! Rules that alert for several events taken together, or for the first of its kind.

use serde::{Deserialize, Serialize};

use super::seconds_of;

/// What a rule asks of the events of a key, beside its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correlation {
    Threshold(Threshold),
    Sequence(Sequence),
    FirstSeen(FirstSeen),
}

/// So many events within a window that slides over their time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    pub count: u32,
    pub window: String,
    pub by: Vec<String>,
    /// Not events are counted but the values at this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<String>,
    #[serde(flatten)]
    pub limits: Limits,
}

/// Events of one step after another, within a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// How many events each step takes; which events these are, the compiled rule says.
    pub steps: Vec<u32>,
    /// Digits of a hash of what the steps ask for: events that met other steps are not counted with these.
    #[serde(default)]
    pub asks: String,
    pub window: String,
    pub by: Vec<String>,
    #[serde(flatten)]
    pub limits: Limits,
}

/// A key that was not seen for as long as `within`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstSeen {
    pub by: Vec<String>,
    pub within: String,
    #[serde(flatten)]
    pub limits: Limits,
}

/// What is remembered at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Keys of a rule, in one window's length.
    pub max_keys: u32,
    /// Events of a key, in one window's length.
    pub max_events: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_keys: 100_000, max_events: 1_000 }
    }
}

impl Correlation {
    /// The paths whose values are the key.
    #[must_use]
    pub fn by(&self) -> &[String] {
        match self {
            Self::Threshold(Threshold { by, .. })
            | Self::Sequence(Sequence { by, .. })
            | Self::FirstSeen(FirstSeen { by, .. }) => by,
        }
    }

    /// As the rule file writes it: a number and `s`, `m`, `h` or `d`.
    #[must_use]
    pub fn window(&self) -> &str {
        match self {
            Self::Threshold(Threshold { window, .. })
            | Self::Sequence(Sequence { window, .. })
            | Self::FirstSeen(FirstSeen { within: window, .. }) => window,
        }
    }

    /// The length of the window, in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        seconds_of(self.window())
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        match self {
            Self::Threshold(Threshold { limits, .. })
            | Self::Sequence(Sequence { limits, .. })
            | Self::FirstSeen(FirstSeen { limits, .. }) => *limits,
        }
    }

    /// Its key in the rule file.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Threshold(_) => "threshold",
            Self::Sequence(_) => "sequence",
            Self::FirstSeen(_) => "first_seen",
        }
    }
}
