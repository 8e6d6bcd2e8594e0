//! Listens to the daemon's log for why messages go to the dead-letter queue, so that the summary can repeat it in the
//! daemon's own words. The log itself goes to standard error.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::env::lock;
use crate::telemetry;

/// How many are kept.
const MAX: usize = 1_000;

/// Details and their reason, as `message left for redrive` tells them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons(Arc<Mutex<BTreeMap<String, String>>>);

impl Reasons {
    /// Starts logging, at `level` on standard error.
    pub(super) fn listen(level: &str) -> anyhow::Result<Self> {
        let reasons = Self::default();
        let filter = telemetry::filter(level).map_err(|error| anyhow::anyhow!("LOG_LEVEL: {error}"))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(super::screen::colours(&std::io::stderr()))
            .log_internal_errors(false)
            .with_filter(filter);
        let subscriber = tracing_subscriber::registry().with(lines).with(reasons.clone());
        // A test may have started logging before.
        let _first_stays = tracing::subscriber::set_global_default(subscriber);
        Ok(reasons)
    }

    pub(super) fn taken(&self) -> BTreeMap<String, String> {
        lock(&self.0).clone()
    }
}

impl<S: Subscriber> Layer<S> for Reasons {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("trailhound") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut reasons = lock(&self.0);
        if fields.message == "message left for redrive" && !fields.detail.is_empty() && reasons.len() < MAX {
            reasons.insert(fields.detail, fields.reason);
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    reason: String,
    detail: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let place = match field.name() {
            "message" => &mut self.message,
            "reason" => &mut self.reason,
            "detail" => &mut self.detail,
            _ => return,
        };
        value.clone_into(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_kept_as_the_daemon_gave_it() {
        let reasons = Reasons::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(reasons.clone()), || {
            tracing::warn!(target: "trailhound::worker", reason = "ends_early", detail = "a: it ends", "message left for redrive");
            tracing::warn!(target: "trailhound::worker", reason = "other", detail = "b", "something else");
        });
        assert_eq!(reasons.taken(), BTreeMap::from([("a: it ends".to_owned(), "ends_early".to_owned())]));
    }
}
