//! Swaps the rule set whole, or keeps the old one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::rules::{RuleErrors, RuleSet};

/// Not more than this of a rule file is read, whatever it is; rules are refused at less.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The rules in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RuleSource {
    current: Arc<watch::Sender<Arc<RuleSet>>>,
    status: Arc<watch::Sender<ReloadStatus>>,
    metrics: Arc<Metrics>,
}

/// How the last load of the rules went.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    pub path: PathBuf,
    pub hash: String,
    pub loaded_at: OffsetDateTime,
    /// Why the last reload was refused, if it was: the rules in force are the ones before it.
    pub error: Option<String>,
}

/// Why rules were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the rule file {}: {source} (rules.path)", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the rule file {} is larger than {} MiB (rules.path)", path.display(), MAX_FILE >> 20)]
    TooLarge { path: PathBuf },
    #[error("the rule file {} is wrong:\n{errors}", path.display())]
    Rules { path: PathBuf, errors: RuleErrors },
}

impl RuleSource {
    /// Loads the rules for the first time. Reads a file: call it away from the async threads.
    ///
    /// # Errors
    ///
    /// Why the file cannot be read, or everything that is wrong in it.
    pub fn load(path: PathBuf, now: OffsetDateTime, metrics: Arc<Metrics>) -> Result<Self, LoadError> {
        let rules = read(&path)?;
        Ok(Self::new(path, rules, now, metrics))
    }

    /// A source that starts with `rules` and reloads from `path`.
    pub fn new(path: PathBuf, rules: RuleSet, now: OffsetDateTime, metrics: Arc<Metrics>) -> Self {
        let rules = Arc::new(rules);
        let status = ReloadStatus { path, hash: rules.hash().to_owned(), loaded_at: now, error: None };
        let source = Self {
            current: Arc::new(watch::channel(Arc::clone(&rules)).0),
            status: Arc::new(watch::channel(status).0),
            metrics,
        };
        source.measure(&rules, now);
        source
    }

    /// Reads the file again, through whatever link now stands at its path: call it away from the async threads.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], or that it is no regular file; the rules in force stay.
    pub fn reload(&self, now: OffsetDateTime) -> Result<(), LoadError> {
        let path = self.status.borrow().path.clone();
        match regular(&path).and_then(|()| read(&path)) {
            Ok(rules) => {
                self.put_in_force(rules, now);
                Ok(())
            }
            Err(error) => {
                let text = error.to_string();
                self.status.send_modify(|status| status.error = Some(text.clone()));
                self.metrics.rules_last_reload_success.set(0);
                self.metrics.rules_reloads.with_label_values(&["failed"]).inc();
                // Last: whoever reads this line finds the rest already so.
                tracing::error!(error = text, "reload refused, the rules in force stay");
                Err(error)
            }
        }
    }

    fn put_in_force(&self, rules: RuleSet, now: OffsetDateTime) {
        let rules = Arc::new(rules);
        let before = self.current.send_replace(Arc::clone(&rules));
        self.status.send_modify(|status| {
            rules.hash().clone_into(&mut status.hash);
            status.loaded_at = now;
            status.error = None;
        });
        self.measure(&rules, now);
        self.metrics.rules_reloads.with_label_values(&["ok"]).inc();
        tracing::info!(
            rules.count = rules.rules().len(),
            rules.hash = rules.hash(),
            rules.hash_before = before.hash(),
            "rules reloaded"
        );
    }

    /// The rules in force. A caller keeps them for one message.
    pub fn current(&self) -> Arc<RuleSet> {
        Arc::clone(&self.current.borrow())
    }

    /// How the last load went.
    pub fn status(&self) -> ReloadStatus {
        self.status.borrow().clone()
    }

    #[allow(clippy::cast_precision_loss, reason = "a Unix time in seconds fits an f64")]
    fn measure(&self, rules: &RuleSet, now: OffsetDateTime) {
        self.metrics.rules_loaded.set(i64::try_from(rules.rules().len()).unwrap_or(i64::MAX));
        self.metrics.rules_last_reload_success.set(1);
        self.metrics.rules_last_reload_timestamp.set(now.unix_timestamp() as f64);
        for rule in rules.rules() {
            // A rule that never matched shows as zero, not as nothing.
            let _zero = self.metrics.matches.with_label_values(&[&rule.id, rule.severity.as_str()]);
        }
    }
}

/// Opening a pipe or a terminal may never end, and nothing could be reloaded after it.
fn regular(path: &Path) -> Result<(), LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.is_file() {
        return Ok(());
    }
    Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")))
}

fn read(path: &Path) -> Result<RuleSet, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let size = File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(size).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    RuleSet::parse(&text).map_err(|errors| LoadError::Rules { path: path.to_owned(), errors })
}
