//! Swaps the rule set whole, or keeps the old one.

mod location;
mod object;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use time::{Date, OffsetDateTime, UtcOffset};
use tokio::sync::Notify;
use tokio::sync::watch::{Sender, channel};

use crate::metrics::Metrics;
use crate::ports::PortError;
use crate::rules::{Diagnostic, Loaded, NamedLists, RuleErrors, RuleSet, Surroundings};

pub use location::{RuleObject, RulePath};
pub use object::{Fetched, Loading, fetch, watch};

/// Not more than this of a rule file is read, whatever it is; rules are refused at less.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// How many warnings, or ended exceptions, one load logs.
const MAX_TOLD: usize = 20;

/// The rules in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RuleSource {
    location: Arc<RulePath>,
    current: Arc<Sender<Arc<RuleSet>>>,
    status: Arc<Sender<ReloadStatus>>,
    metrics: Arc<Metrics>,
    /// What the configuration says of the built-in lists.
    lists: Arc<NamedLists>,
    /// The day for which expired exceptions were last told.
    told: Arc<Sender<Option<Date>>>,
    /// A reload of rules that are not a file is asked for.
    wanted: Arc<Notify>,
}

/// How the last load of the rules went.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    pub hash: String,
    /// The entity tag of the object that the rules in force were read from; `None` for a file.
    pub etag: Option<String>,
    pub loaded_at: OffsetDateTime,
    /// Why the last reload was refused, if it was: the rules in force are the ones before it.
    pub error: Option<String>,
    /// What is probably not meant in the rules in force.
    pub warnings: Vec<Diagnostic>,
}

/// Why rules were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the rule file {path}: {source} (rules.path)")]
    Read { path: RulePath, source: io::Error },
    #[error("cannot read the rule file {object}: {source} (rules.path)")]
    Object { object: RuleObject, source: Box<PortError> },
    #[error("the rule file {path} is larger than {} MiB (rules.path)", MAX_FILE >> 20)]
    TooLarge { path: RulePath },
    #[error("the rule file {path} is wrong:\n{errors}")]
    Rules { path: RulePath, errors: RuleErrors },
    #[error("the rules could not be checked; this is a bug, please report it")]
    Bug,
}

impl RuleSource {
    /// Loads the rules for the first time. Reads a file: call it away from the async threads.
    ///
    /// # Errors
    ///
    /// Why the file cannot be read, or everything that is wrong in it.
    pub fn load(file: &Path, lists: NamedLists, now: OffsetDateTime, metrics: Arc<Metrics>) -> Result<Self, LoadError> {
        let path = RulePath::File(file.to_owned());
        let (rules, warnings) = parse(&path, &read_text(file)?, &lists, now)?;
        Ok(Self::start(path, lists, rules, warnings, now, metrics))
    }

    /// A source that starts with `rules` and reloads from `path`.
    pub fn new(path: RulePath, rules: RuleSet, now: OffsetDateTime, metrics: Arc<Metrics>) -> Self {
        Self::start(path, NamedLists::new(), rules, Vec::new(), now, metrics)
    }

    fn start(
        path: RulePath,
        lists: NamedLists,
        rules: RuleSet,
        warnings: Vec<Diagnostic>,
        now: OffsetDateTime,
        metrics: Arc<Metrics>,
    ) -> Self {
        let rules = Arc::new(rules);
        let status = ReloadStatus { hash: rules.hash().to_owned(), etag: None, loaded_at: now, error: None, warnings };
        let source = Self {
            location: Arc::new(path),
            current: Arc::new(channel(Arc::clone(&rules)).0),
            status: Arc::new(channel(status).0),
            metrics,
            lists: Arc::new(lists),
            told: Arc::new(channel(None).0),
            wanted: Arc::new(Notify::new()),
        };
        source.measure(&rules, now);
        source.tell(now);
        source
    }

    /// Where the rules are read from.
    pub fn location(&self) -> &RulePath {
        &self.location
    }

    /// Reads the file again, through whatever link now stands at its path: call it away from the async threads.
    /// An object in S3 is read by [`watch`], which is only asked to do so here.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], or that it is no regular file; the rules in force stay.
    pub fn reload(&self, now: OffsetDateTime) -> Result<(), LoadError> {
        let RulePath::File(file) = &*self.location else {
            self.wanted.notify_one();
            return Ok(());
        };
        let read = regular(file).and_then(|()| read_text(file));
        self.judge(read.and_then(|text| parse(&self.location, &text, &self.lists, now)), None, now)
    }

    /// Waits until [`Self::reload`] asks for what it cannot read itself.
    async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// Puts rules in force that were read elsewhere, or keeps the old ones.
    fn reload_text(&self, text: &str, etag: String, now: OffsetDateTime) -> Result<(), LoadError> {
        self.judge(parse(&self.location, text, &self.lists, now), Some(etag), now)
    }

    fn judge(
        &self,
        read: Result<(RuleSet, Vec<Diagnostic>), LoadError>,
        etag: Option<String>,
        now: OffsetDateTime,
    ) -> Result<(), LoadError> {
        match read {
            Ok((rules, warnings)) => {
                self.bears(etag);
                self.put_in_force(rules, warnings, now);
                Ok(())
            }
            Err(error) => {
                self.refused(&error.to_string());
                Err(error)
            }
        }
    }

    fn bears(&self, etag: Option<String>) {
        self.status.send_modify(|status| status.etag = etag);
    }

    fn refused(&self, error: &str) {
        self.status.send_modify(|status| status.error = Some(error.to_owned()));
        self.metrics.rules_last_reload_success.set(0);
        self.metrics.rules_reloads.with_label_values(&["failed"]).inc();
        // Last: whoever reads this line finds the rest already so.
        tracing::error!(error, "reload refused, the rules in force stay");
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
            let _zero = self.metrics.rule_events.with_label_values(&[&rule.id]);
            let _zero = self.metrics.rule_alerts.with_label_values(&[&rule.id]);
            if rule.correlation.is_some() {
                let _zero = self.metrics.correlated_events.with_label_values(&[&rule.id]);
                let _zero = self.metrics.correlation_excess.with_label_values(&[&rule.id]);
            }
            if rule.group.is_some() {
                let _zero = self.metrics.grouped_events.with_label_values(&[&rule.id]);
                let _zero = self.metrics.groups_opened.with_label_values(&[&rule.id]);
            }
        }
        for (rule, exception) in rules.exceptions() {
            let _zero = self.metrics.suppressed.with_label_values(&[rule.id.as_str(), &exception.to_string()]);
        }
    }
}

/// Opening a pipe or a terminal may never end, and nothing could be reloaded after it.
fn regular(path: &Path) -> Result<(), LoadError> {
    let failed = |source| LoadError::Read { path: RulePath::File(path.to_owned()), source };
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
pub fn read_text(file: &Path) -> Result<String, LoadError> {
    let path = || RulePath::File(file.to_owned());
    let failed = |source| LoadError::Read { path: path(), source };
    let mut bytes = Vec::new();
    let size = File::open(file).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(size).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(LoadError::TooLarge { path: path() });
    }
    text_of(bytes, path)
}

fn text_of(bytes: Vec<u8>, path: impl FnOnce() -> RulePath) -> Result<String, LoadError> {
    String::from_utf8(bytes).map_err(|error| {
        let wrong = format!("it is no UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        LoadError::Read { path: path(), source: io::Error::new(io::ErrorKind::InvalidData, wrong) }
    })
}

fn parse(
    path: &RulePath,
    text: &str,
    lists: &NamedLists,
    now: OffsetDateTime,
) -> Result<(RuleSet, Vec<Diagnostic>), LoadError> {
    let today = Some(now.to_offset(UtcOffset::UTC).date());
    let Loaded { rules, warnings } = RuleSet::load(text, &Surroundings { lists: lists.clone(), today });
    let rules = rules.map_err(|errors| LoadError::Rules { path: path.clone(), errors })?;
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
        let source =
            RuleSource::new(RulePath::File("r".into()), rules, datetime!(2026-11-24 10:00 UTC), Arc::clone(&metrics));
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
