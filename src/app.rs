//! `run(Ports, Env)`: the daemon.

use std::sync::Arc;

use crate::config::Config;
use crate::env::Env;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::reload::RuleSource;

/// What the daemon is made of, besides its ports and its world.
#[derive(Clone, Debug)]
pub struct Daemon {
    pub config: Arc<Config>,
    pub rules: RuleSource,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
}

/// Runs until `env.stop` says so: ends after everything held was settled or given back.
pub async fn run(_ports: Ports, _env: Env, _daemon: Daemon) {}
