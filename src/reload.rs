//! Swaps the rule set whole, or keeps the old one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::{Date, OffsetDateTime, UtcOffset};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::rules::{Diagnostic, Loaded, NamedLists, RuleErrors, RuleSet, Surroundings};

/// Not more than this of a rule file is read, whatever it is; rules are refused at less.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// How many warnings, or ended exceptions, one load logs.
const MAX_TOLD: usize = 20;

/// The rules in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RuleSource {
    current: Arc<watch::Sender<Arc<RuleSet>>>,
    status: Arc<watch::Sender<ReloadStatus>>,
    metrics: Arc<Metrics>,
    /// What the configuration says of the built-in lists.
    lists: Arc<NamedLists>,
    /// The day for which expired exceptions were last told.
    told: Arc<watch::Sender<Option<Date>>>,
}

/// How the last load of the rules went.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    pub path: PathBuf,
    pub hash: String,
    pub loaded_at: OffsetDateTime,
    /// Why the last reload was refused, if it was: the rules in force are the ones before it.
    pub error: Option<String>,
    /// What is probably not meant in the rules in force.
    pub warnings: Vec<Diagnostic>,
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
    pub fn load(
        path: PathBuf,
        lists: NamedLists,
        now: OffsetDateTime,
        metrics: Arc<Metrics>,
    ) -> Result<Self, LoadError> {
        let (rules, warnings) = read(&path, &lists, now)?;
        Ok(Self::start(path, lists, rules, warnings, now, metrics))
    }

    /// A source that starts with `rules` and reloads from `path`.
    pub fn new(path: PathBuf, rules: RuleSet, now: OffsetDateTime, metrics: Arc<Metrics>) -> Self {
        Self::start(path, NamedLists::new(), rules, Vec::new(), now, metrics)
    }

    fn start(
        path: PathBuf,
        lists: NamedLists,
        rules: RuleSet,
        warnings: Vec<Diagnostic>,
        now: OffsetDateTime,
        metrics: Arc<Metrics>,
    ) -> Self {
        let rules = Arc::new(rules);
        let status = ReloadStatus { path, hash: rules.hash().to_owned(), loaded_at: now, error: None, warnings };
        let source = Self {
            current: Arc::new(watch::channel(Arc::clone(&rules)).0),
            status: Arc::new(watch::channel(status).0),
            metrics,
            lists: Arc::new(lists),
            told: Arc::new(watch::channel(None).0),
        };
        source.measure(&rules, now);
        source.tell(now);
        source
    }

    /// Reads the file again, through whatever link now stands at its path: call it away from the async threads.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], or that it is no regular file; the rules in force stay.
    pub fn reload(&self, now: OffsetDateTime) -> Result<(), LoadError> {
        let path = self.status.borrow().path.clone();
        match regular(&path).and_then(|()| read(&path, &self.lists, now)) {
            Ok((rules, warnings)) => {
                self.put_in_force(rules, warnings, now);
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

    fn put_in_force(&self, rules: RuleSet, warnings: Vec<Diagnostic>, now: OffsetDateTime) {
        let rules = Arc::new(rules);
        let before = self.current.send_replace(Arc::clone(&rules));
        self.status.send_modify(|status| {
            rules.hash().clone_into(&mut status.hash);
            status.loaded_at = now;
            status.error = None;
            status.warnings = warnings;
        });
        self.measure(&rules, now);
        self.tell(now);
        self.metrics.rules_reloads.with_label_values(&["ok"]).inc();
        tracing::info!(
            rules.count = rules.rules().len(),
            rules.hash = rules.hash(),
            rules.hash_before = before.hash(),
            "rules reloaded"
        );
    }

    /// Logs what is probably not meant in the rules in force, and the exceptions that ended.
    fn tell(&self, now: OffsetDateTime) {
        for (count, warning) in self.status.borrow().warnings.iter().enumerate() {
            if count == MAX_TOLD {
                tracing::warn!("more warnings about the rules: /rules and `trailhound rules check` tell all");
                break;
            }
            tracing::warn!(warning = %warning, "a rule is probably not what is meant");
        }
        self.told.send_replace(None);
        self.tell_expired(now);
    }

    /// Counts the exceptions that ended, and logs them once a day. To be called now and then.
    pub fn tell_expired(&self, now: OffsetDateTime) {
        let today = now.to_offset(UtcOffset::UTC).date();
        let rules = self.current();
        self.metrics.rules_expired_exceptions.set(i64::try_from(rules.expired(today).count()).unwrap_or(i64::MAX));
        if self.told.send_replace(Some(today)) == Some(today) {
            return;
        }
        for (rule, reason, day) in rules.expired(today).take(MAX_TOLD) {
            tracing::warn!(
                rule.id = rule.id,
                exception.reason = reason,
                exception.until = %day,
                "an exception has ended: the rule matches again what it withheld"
            );
        }
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
        let warnings = self.status.borrow().warnings.len();
        self.metrics.rules_warnings.set(i64::try_from(warnings).unwrap_or(i64::MAX));
        self.metrics.rules_last_reload_success.set(1);
        self.metrics.rules_last_reload_timestamp.set(now.unix_timestamp() as f64);
        for rule in rules.rules() {
            // A rule that never matched shows as zero, not as nothing.
            let _zero = self.metrics.matches.with_label_values(&[&rule.id, rule.severity.as_str()]);
        }
        for (rule, exception) in rules.exceptions() {
            let _zero = self.metrics.suppressed.with_label_values(&[rule.id.as_str(), &exception.to_string()]);
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

/// Reads a rule file whole, whatever it is, up to its limit. Away from the async threads.
///
/// # Errors
///
/// It cannot be read, is too large, or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let size = File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(size).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn read(path: &Path, lists: &NamedLists, now: OffsetDateTime) -> Result<(RuleSet, Vec<Diagnostic>), LoadError> {
    let today = Some(now.to_offset(UtcOffset::UTC).date());
    let Loaded { rules, warnings } = RuleSet::load(&read_text(path)?, &Surroundings { lists: lists.clone(), today });
    let rules = rules.map_err(|errors| LoadError::Rules { path: path.to_owned(), errors })?;
    Ok((rules, warnings))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_exception_is_counted_as_ended_from_the_day_after_its_last() {
        let rules = RuleSet::parse(
            r#"[{"id": "r", "severity": "LOW", "eventName": "A", "unless": [
                {"userIdentityType": "Root", "reason": "a drill", "until": "2026-11-24"},
                {"userIdentityType": "Role", "reason": "for ever"}]}]"#,
        )
        .unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let source = RuleSource::new(PathBuf::from("r"), rules, datetime!(2026-11-24 10:00 UTC), Arc::clone(&metrics));
        assert_eq!(metrics.rules_expired_exceptions.get(), 0);
        for (now, ended) in [
            (datetime!(2026-11-24 23:59:59 UTC), 0),
            // The day of a clock elsewhere does not count.
            (datetime!(2026-11-25 01:00 +2), 0),
            (datetime!(2026-11-25 00:00 UTC), 1),
        ] {
            source.tell_expired(now);
            assert_eq!(metrics.rules_expired_exceptions.get(), ended, "{now}");
        }
    }
}
