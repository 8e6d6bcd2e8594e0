//! Which dependency works, whether to take in more work, and whether the process is ready.

use serde::Serialize;

/// The answer of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub ok: bool,
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What is wrong and what to do; empty when all is well.
    pub detail: String,
}

/// Shared by the data path, which reports, and the admin server, which answers.
#[derive(Debug, Default)]
pub struct Health {}

impl Health {
    /// Whether the poll loop moved recently or is paused on purpose.
    pub fn live(&self) -> Report {
        Report { ok: true, checks: Vec::new() }
    }

    /// Whether rules are loaded, queue, table and topic reachable, and the process is not stopping.
    pub fn ready(&self) -> Report {
        Report { ok: true, checks: Vec::new() }
    }

    /// Whether [`Self::ready`] was true at any time.
    pub fn was_ready(&self) -> bool {
        false
    }
}
