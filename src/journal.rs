//! What happened lately, for people: the last alerts and failures, each rule's last match, and an hour of figures. Every
//! list is bounded. It is of this process alone and gone with it: the table and the metrics are what lasts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::env::lock;
use crate::metrics::Metrics;
use crate::rules::Severity;

/// How many alerts and how many failures are kept.
const KEPT: usize = 20;
/// Of how many rules the last match is kept: more than anybody reads.
const MAX_RULES: usize = 10_000;
/// How often figures are read, and how many readings make an hour.
pub const SAMPLE: Duration = Duration::from_secs(30);
pub const SAMPLES: usize = 120;
/// Longer details are cut.
const MAX_DETAIL: usize = 500;

/// An alert that SNS accepted.
#[derive(Clone, Debug)]
pub struct Alerted {
    pub at: OffsetDateTime,
    pub severity: Severity,
    pub rules: Vec<String>,
    pub event_name: Option<String>,
    pub account: Option<String>,
    pub alert_id: String,
}

/// Something that failed, as the log says it.
#[derive(Clone, Debug)]
pub struct Failed {
    /// When it failed last.
    pub at: OffsetDateTime,
    /// A reason of a metric's label, or the name of a dependency.
    pub reason: &'static str,
    pub detail: String,
    /// How often in a row.
    pub count: u64,
}

/// Figures of one moment: counters since the start, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When, since the journal was begun.
    pub at: Duration,
    pub records: u64,
    pub alerts: u64,
    pub errors: u64,
    /// Sum, in seconds, and count of the time from an event to its detection.
    pub lag: (f64, u64),
    pub in_flight: i64,
    /// Messages that wait in the queue, as SQS approximates them.
    pub waiting: i64,
}

#[derive(Debug, Default)]
struct State {
    alerts: VecDeque<Alerted>,
    failures: VecDeque<Failed>,
    last_matches: BTreeMap<String, OffsetDateTime>,
    samples: VecDeque<Sample>,
}

/// Shared by the data path, which writes, and the admin server, which shows.
#[derive(Debug)]
pub struct Journal {
    began: Instant,
    state: Mutex<State>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }
}

/// What a page shows of it: the latest first, samples the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Lately {
    pub alerts: Vec<Alerted>,
    pub failures: Vec<Failed>,
    pub last_matches: BTreeMap<String, OffsetDateTime>,
    pub samples: Vec<Sample>,
}

impl Journal {
    pub fn alerted(&self, alert: Alerted) {
        push(&mut lock(&self.state).alerts, alert);
    }

    /// The same failure again only counts.
    pub fn failed(&self, at: OffsetDateTime, reason: &'static str, detail: &str) {
        let detail: String = detail.chars().take(MAX_DETAIL).collect();
        let mut state = lock(&self.state);
        match state.failures.front_mut() {
            Some(last) if last.reason == reason && last.detail == detail => {
                last.at = at;
                last.count += 1;
            }
            _ => push(&mut state.failures, Failed { at, reason, detail, count: 1 }),
        }
    }

    pub fn matched<'a>(&self, at: OffsetDateTime, rules: impl Iterator<Item = &'a str>) {
        let mut state = lock(&self.state);
        for rule in rules {
            if let Some(last) = state.last_matches.get_mut(rule) {
                *last = at;
            } else {
                if state.last_matches.len() >= MAX_RULES {
                    state.last_matches.pop_first();
                }
                state.last_matches.insert(rule.to_owned(), at);
            }
        }
    }

    /// To be called every [`SAMPLE`].
    pub fn sample(&self, metrics: &Metrics) {
        let sample = self.read(metrics);
        let mut state = lock(&self.state);
        // One more than there are differences.
        if state.samples.len() > SAMPLES {
            state.samples.pop_front();
        }
        state.samples.push_back(sample);
    }

    /// The figures of this moment.
    #[must_use]
    pub fn read(&self, metrics: &Metrics) -> Sample {
        let classes = ["transient", "permanent", "config"];
        let failed: u64 = classes.iter().map(|class| metrics.alert_failures.with_label_values(&[class]).get()).sum();
        let severities = Severity::ALL.map(Severity::as_str);
        Sample {
            at: self.began.elapsed(),
            records: metrics.records.with_label_values(&["evaluated"]).get(),
            alerts: severities.iter().map(|it| metrics.alerts_published.with_label_values(&[it]).get()).sum(),
            errors: failed + metrics.poll_errors.get() + metrics.left() + metrics.message_delete_failures.get(),
            lag: (metrics.event_lag.get_sample_sum(), metrics.event_lag.get_sample_count()),
            in_flight: metrics.messages_in_flight.get(),
            waiting: metrics.queue_messages.with_label_values(&["visible"]).get(),
        }
    }

    #[must_use]
    pub fn lately(&self) -> Lately {
        let state = lock(&self.state);
        Lately {
            alerts: state.alerts.iter().cloned().collect(),
            failures: state.failures.iter().cloned().collect(),
            last_matches: state.last_matches.clone(),
            samples: state.samples.iter().copied().collect(),
        }
    }
}

fn push<T>(list: &mut VecDeque<T>, one: T) {
    list.truncate(KEPT - 1);
    list.push_front(one);
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const AT: OffsetDateTime = datetime!(2026-05-01 12:00 UTC);

    #[test]
    fn the_latest_come_first_and_the_oldest_are_forgotten() {
        let journal = Journal::default();
        for number in 0..30 {
            journal.alerted(Alerted {
                at: AT,
                severity: Severity::High,
                rules: vec!["rule".to_owned()],
                event_name: None,
                account: None,
                alert_id: number.to_string(),
            });
        }
        let alerts = journal.lately().alerts;
        assert_eq!((alerts.len(), alerts[0].alert_id.as_str(), alerts[19].alert_id.as_str()), (20, "29", "10"));
    }

    #[test]
    fn a_failure_that_repeats_is_one_line() {
        let journal = Journal::default();
        journal.failed(AT, "damaged", "a");
        journal.failed(AT, "damaged", "b");
        journal.failed(AT + Duration::from_secs(1), "damaged", "b");
        let failures = journal.lately().failures;
        assert_eq!(failures.len(), 2);
        assert_eq!((failures[0].count, failures[0].at), (2, AT + Duration::from_secs(1)));
        journal.failed(AT, "damaged", &"é".repeat(2_000));
        assert_eq!(journal.lately().failures[0].detail.chars().count(), MAX_DETAIL);
    }

    #[test]
    fn an_hour_of_samples_is_kept() {
        let (journal, metrics) = (Journal::default(), Metrics::new().unwrap());
        for _ in 0..200 {
            metrics.records.with_label_values(&["evaluated"]).inc_by(5);
            metrics.messages_left.with_label_values(&["damaged"]).inc();
            journal.sample(&metrics);
        }
        let samples = journal.lately().samples;
        assert_eq!(samples.len(), SAMPLES + 1);
        assert_eq!((samples[SAMPLES].records, samples[SAMPLES].errors), (1_000, 200));
        assert_eq!(samples[0].records, 5 * 80);
    }

    #[test]
    fn the_last_match_of_so_many_rules_is_kept() {
        let journal = Journal::default();
        journal.matched(AT, ["a", "b"].into_iter());
        journal.matched(AT + Duration::from_secs(9), ["a"].into_iter());
        let matches = journal.lately().last_matches;
        assert_eq!((matches["a"], matches["b"]), (AT + Duration::from_secs(9), AT));
        let ids: Vec<_> = (0..MAX_RULES + 5).map(|id| format!("rule-{id}")).collect();
        journal.matched(AT, ids.iter().map(String::as_str));
        assert_eq!(journal.lately().last_matches.len(), MAX_RULES);
    }
}
