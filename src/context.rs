//! What every step that reaches outside is given.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::config::Config;
use crate::deliver::InWork;
use crate::env::Env;
use crate::health::{Dependency, Health};
use crate::journal::Journal;
use crate::limit::Limit;
use crate::metrics::Metrics;
use crate::ports::{PortError, Ports};
use crate::reload::RuleSource;
use crate::rules::Matchers;

/// How long one call may take. The adapters' own time-outs are shorter; this one holds for any port.
pub const CALL_DEADLINE: Duration = Duration::from_secs(12);

/// How long a body may stand still between two chunks.
pub const CHUNK_DEADLINE: Duration = Duration::from_secs(30);

/// The daemon, as its steps see it. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub ports: Ports,
    pub env: Env,
    pub config: Arc<Config>,
    pub rules: RuleSource,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub journal: Arc<Journal>,
    pub in_work: InWork,
    pub matchers: Matchers,
    pub limit: Arc<Limit>,
    pub policy: AlertPolicy,
}

/// Which events may alert at all. The others are only stored, as settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlertPolicy {
    #[default]
    All,
    /// Those that happened then or later; one without a time may.
    Since(OffsetDateTime),
    None,
}

impl AlertPolicy {
    /// Whether an event that happened then may alert.
    #[must_use]
    pub fn allows(self, at: Option<OffsetDateTime>) -> bool {
        match self {
            Self::All => true,
            Self::Since(since) => at.is_none_or(|at| at >= since),
            Self::None => false,
        }
    }
}

impl Context {
    /// [`Health::failed`], and the journal hears of it when the log does.
    pub fn failed(&self, dependency: Dependency, error: &PortError) -> bool {
        let tell = self.health.failed(dependency, error);
        if tell {
            self.journal.failed(self.env.clock.now(), dependency.name(), &error.to_string());
        }
        tell
    }
}
