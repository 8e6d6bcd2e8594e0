//! Every metric, named in one place. The doc comment of a field is its help text; `docs/metrics.md` lists them.
//!
//! Labels are bounded: their values are named in the code, here or where the reason arises, except `rule_id`, which the
//! rule file names.

#[macro_use]
mod macros;
/// Some of them for CloudWatch, as lines in its embedded metric format.
pub mod emf;

use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder};

use crate::notification::Ignored;
use crate::rules::Severity;

/// Seconds, for what happens inside the process and in single calls: 1 ms to 60 s.
const SHORT: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Seconds, for lags and ages: 1 s to one day.
const LONG: [f64; 15] =
    [1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 10_800.0, 43_200.0, 86_400.0];

/// Why messages are left: known before the first one, so that an alert on the growth of the series sees that one too. A
/// test compares them with the code.
const LEFT: [&str; 22] = [
    "not_json",
    "unknown_shape",
    "too_deep",
    "bad_notification",
    "inline_records_off",
    "bucket_not_allowed",
    "missing",
    "denied",
    "kms_denied",
    "refused",
    "unavailable",
    "too_many_compressed_bytes",
    "too_many_decompressed_bytes",
    "ratio_too_high",
    "damaged",
    "ends_early",
    "bad_json",
    "json_ends_early",
    "empty",
    "no_records",
    "bad_records",
    "bug",
];

/// The commit that was built, where the build was told it.
pub const REVISION: &str = match option_env!("TRAILHOUND_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What a metric is, for the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

metrics! {
    /// All metrics of one process, with the registry that owns them.
    pub struct Metrics {
        // Messages.
        /// Messages received from the queue.
        pub messages_received: IntCounter => "messages_received_total",
        /// Messages deleted after everything in them was delivered.
        pub messages_deleted: IntCounter => "messages_deleted_total",
        /// Messages given back to the queue, by reason.
        pub messages_released: IntCounterVec["reason" = ["stop", "expired", "bucket_denied"]] => "messages_released_total",
        /// Messages left for redrive because a part of them can never be read, by the first reason.
        pub messages_left: IntCounterVec["reason" = LEFT] => "messages_left_total",
        /// Parts of messages acknowledged without being read, by reason.
        pub messages_ignored: IntCounterVec["reason" = Ignored::ALL.map(Ignored::reason)] => "messages_ignored_total",
        /// Delivered messages that eight attempts could not delete, or that were no longer held; they are held and tried again as long as they can be, and a redelivery is harmless.
        pub message_delete_failures: IntCounter => "message_delete_failures_total",
        /// Messages in work.
        pub messages_in_flight: IntGauge => "messages_in_flight",
        /// Age of messages when received, since they were first sent.
        pub message_age: Histogram[LONG] => "message_age_seconds",
        /// Visibility extensions by the heartbeat, by outcome.
        pub lease_extensions: IntCounterVec["outcome" = ["ok", "failed"]] => "lease_extensions_total",
        /// Messages whose receipt handle was no longer valid while they were in work.
        pub leases_lost: IntCounter => "leases_lost_total",
        /// Receives that failed.
        pub poll_errors: IntCounter => "poll_errors_total",
        /// Unix time of the last move of the poll loop: a receive that ended, or a pause on purpose.
        pub poll_last_timestamp: Gauge => "poll_last_timestamp_seconds",
        /// 1 while intake is paused because a dependency is failing.
        pub intake_paused: IntGauge => "intake_paused",
        /// 1 for each dependency that answered its last call, 0 for one that did not, by dependency; nothing before the first call.
        pub dependency_up: IntGaugeVec["dependency"] => "dependency_up",
        /// Messages in the queue, by state (`visible`, `in_flight`, `delayed`), as SQS approximates them.
        pub queue_messages: IntGaugeVec["state" = ["visible", "in_flight", "delayed"]] => "queue_messages",

        // Objects and records.
        /// Log objects read, by outcome: `ok`, or why they could not be read to their end.
        pub objects: IntCounterVec["outcome"] => "objects_total",
        /// Bytes read from S3.
        pub compressed_bytes: IntCounter => "object_compressed_bytes_total",
        /// Bytes after decompression.
        pub decompressed_bytes: IntCounter => "object_decompressed_bytes_total",
        /// Records, by outcome.
        pub records: IntCounterVec["outcome" = ["evaluated", "unreadable"]] => "records_total",
        /// Time from opening an object to its last alert.
        pub object_duration: Histogram[SHORT] => "object_duration_seconds",
        /// Bodies that broke off: resumed with a range read, or read again where there is no entity tag.
        pub object_resumes: IntCounter => "object_resumes_total",

        // Detections and alerts.
        /// Matches, by rule id and severity.
        pub matches: IntCounterVec["rule_id", "severity"] => "matches_total",
        /// Records that an exception withheld, by rule id and the exception's position under `unless`, from 0.
        pub suppressed: IntCounterVec["rule_id", "exception"] => "suppressed_total",
        /// Events counted in groups, by rule id.
        pub grouped_events: IntCounterVec["rule_id"] => "grouped_events_total",
        /// Alerts that opened a group, by rule id.
        pub groups_opened: IntCounterVec["rule_id"] => "groups_opened_total",
        /// Events counted by thresholds, sequences and `first_seen`, by rule id.
        pub correlated_events: IntCounterVec["rule_id"] => "correlated_events_total",
        /// Events that are beyond `max_keys` or `max_events` of their rule, and not counted by it, by rule id.
        pub correlation_excess: IntCounterVec["rule_id"] => "correlation_excess_total",
        /// Events that were stored for a rule for the first time, by rule id.
        pub rule_events: IntCounterVec["rule_id"] => "rule_events_total",
        /// Alerts that SNS accepted, by the rules that they tell.
        pub rule_alerts: IntCounterVec["rule_id"] => "rule_alerts_total",
        /// Alerts that SNS accepted, by severity.
        pub alerts_published: IntCounterVec["severity" = Severity::ALL.map(Severity::as_str)] => "alerts_published_total",
        /// Alerts that `alerting.max_per_minute` held back and one alert announced, by severity.
        pub alerts_withheld: IntCounterVec["severity" = Severity::ALL.map(Severity::as_str)] => "alerts_withheld_total",
        /// Attempts to publish an alert that failed, by error class.
        pub alert_failures: IntCounterVec["class" = ["transient", "permanent", "config"]] => "alert_failures_total",
        /// Detections that an earlier alert already covers.
        pub duplicates_suppressed: IntCounter => "duplicates_suppressed_total",
        /// Claims of another holder that were taken over.
        pub claims_taken_over: IntCounter => "claims_taken_over_total",
        /// Events stored for the first time.
        pub store_writes: IntCounter => "store_writes_total",
        /// Detections whose event was already stored.
        pub store_conflicts: IntCounter => "store_conflicts_total",
        /// Time from the record's `eventTime` to its detection.
        pub event_lag: Histogram[LONG] => "event_lag_seconds",
        /// Time from the creation of the log object to the detection.
        pub object_lag: Histogram[LONG] => "object_lag_seconds",

        // The process.
        /// Calls to AWS, by service, operation and outcome (`ok`, `transient`, `permanent`, `config`).
        pub aws_requests: IntCounterVec["service", "operation", "outcome"] => "aws_requests_total",
        /// Time of a call to AWS, by service and operation; for S3 until the body is open.
        pub aws_request_duration: HistogramVec[SHORT; "service", "operation"] => "aws_request_duration_seconds",
        /// Rules in force.
        pub rules_loaded: IntGauge => "rules_loaded",
        /// Reloads of the rules, by outcome.
        pub rules_reloads: IntCounterVec["outcome" = ["ok", "failed"]] => "rules_reloads_total",
        /// 1 if the last load of the rules succeeded.
        pub rules_last_reload_success: IntGauge => "rules_last_reload_success",
        /// Unix time of the last successful load of the rules.
        pub rules_last_reload_timestamp: Gauge => "rules_last_reload_success_timestamp_seconds",
        /// Warnings about the rules in force; `/rules` tells them.
        pub rules_warnings: IntGauge => "rules_warnings",
        /// Exceptions of the rules in force whose last day is over.
        pub rules_expired_exceptions: IntGauge => "rules_expired_exceptions",
        /// 1 while the process is ready.
        pub ready: IntGauge => "ready",
        /// Always 1; the labels say what runs.
        pub build_info: IntGaugeVec["version", "revision"] => "build_info",
    }
}

impl Metrics {
    /// Every metric at zero, beside those of the process (CPU, memory, file descriptors, start time; Linux only).
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self::declared()?;
        metrics.build_info.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION])?.set(1);
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Messages left for redrive, whatever the reason.
    #[must_use]
    pub fn left(&self) -> u64 {
        LEFT.iter().map(|reason| self.messages_left.with_label_values(&[reason]).get()).sum()
    }

    /// All metrics in prometheus' text format ([`prometheus::TEXT_FORMAT`]).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be encoded; the scrape gets what was encoded before");
        }
        text
    }
}

/// Every way to take one value of each label, in order.
fn combinations(labels: &[Vec<&'static str>]) -> Vec<Vec<&'static str>> {
    labels.iter().fold(vec![Vec::new()], |rows, values| {
        rows.iter().flat_map(|row| values.iter().map(|value| row.iter().copied().chain([*value]).collect())).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_rate_is_known_before_the_first_event() {
        let text = Metrics::new().unwrap().encode();
        for line in [
            "trailhound_messages_received_total 0",
            "trailhound_messages_released_total{reason=\"stop\"} 0",
            "trailhound_messages_ignored_total{reason=\"s3_test_event\"} 0",
            "trailhound_alerts_published_total{severity=\"CRITICAL\"} 0",
            "trailhound_event_lag_seconds_bucket{le=\"86400\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in:\n{text}");
        }
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new().unwrap();
        metrics.matches.with_label_values(&["root-login", "HIGH"]).inc();
        metrics.aws_request_duration.with_label_values(&["sqs", "ReceiveMessage"]).observe(0.3);
        let text = metrics.encode();
        assert!(text.contains("trailhound_matches_total{rule_id=\"root-login\",severity=\"HIGH\"} 1\n"), "{text}");
        assert!(
            text.contains(
                "trailhound_aws_request_duration_seconds_bucket{operation=\"ReceiveMessage\",service=\"sqs\",le=\"0.5\"} 1\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_build_and_the_process_are_described() {
        let text = Metrics::new().unwrap().encode();
        let build =
            format!("trailhound_build_info{{revision=\"{REVISION}\",version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        }
    }

    #[test]
    fn two_processes_in_one_test_do_not_share_figures() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.messages_received.inc();
        assert_eq!((one.messages_received.get(), other.messages_received.get()), (1, 0));
    }

    #[test]
    fn every_combination_of_label_values_is_made() {
        assert_eq!(
            combinations(&[vec!["a", "b"], vec!["x", "y"]]),
            [["a", "x"], ["a", "y"], ["b", "x"], ["b", "y"]].map(Vec::from)
        );
    }

    #[test]
    fn the_documentation_lists_exactly_these_metrics() {
        let document = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<&str> = document.lines().filter(|line| line.starts_with("| `trailhound_")).collect();
        let declared: Vec<String> = Metrics::describe().iter().map(row).collect();
        let missing: Vec<&str> = declared.iter().map(String::as_str).filter(|row| !documented.contains(row)).collect();
        let unknown: Vec<&&str> =
            documented.iter().filter(|row| !declared.iter().any(|known| known == **row)).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks:\n{}", missing.join("\n"));
        assert!(unknown.is_empty(), "docs/metrics.md lists what does not exist: {unknown:#?}");
    }

    /// The words in quotes between `from` and the next `to`, wherever `from` stands in the code.
    fn words(code: &'static str, from: &str, to: &str) -> BTreeSet<&'static str> {
        let insides = code.split(from).skip(1).map(|rest| rest.split_once(to).map_or(rest, |(inside, _)| inside));
        let found: BTreeSet<_> = insides.flat_map(|inside| inside.split('"').skip(1).step_by(2)).collect();
        assert!(!found.is_empty(), "the code has no words after {from:?}");
        found
    }

    /// The first cells of the documentation's rows of this many cells, where `take` says so of the row.
    fn documented(cells: usize, take: impl Fn(&[&str]) -> bool) -> BTreeSet<&'static str> {
        let rows = include_str!("../../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter(|row| !row.starts_with("trailhound_"))
            .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
            .filter(|row| row.len() == cells + 1 && take(row))
            .map(|row| row[0].trim_end_matches('`'))
            .collect()
    }

    #[test]
    fn the_documentation_lists_exactly_these_reasons() {
        let (object, worker) = (include_str!("../object.rs"), include_str!("../worker.rs"));
        let unreadable = &words(object, "fn reason(&self)", "\n    }\n")
            | &words(include_str!("../cloudtrail/mod.rs"), "fn reason(&self)", "\n    }\n");
        assert_eq!(documented(4, |row| row[2] == "yes"), &unreadable | &BTreeSet::from(["ok"]));

        let not_left = BTreeSet::from(["bucket_denied", "interrupted"]);
        let left = [
            words(worker, "fn problem_reason(", "\n}\n"),
            words(worker, "unread.add(", ","),
            words(worker, "&message, visibility, ", ","),
            &unreadable - &not_left,
        ];
        let left = left.into_iter().flatten().collect();
        assert_eq!(documented(4, |row| row[1] == "yes"), left);
        assert_eq!(BTreeSet::from(LEFT), left, "the series that start at zero");

        let zeroes = Metrics::new().unwrap().encode();
        let released: BTreeSet<&str> = zeroes
            .lines()
            .filter_map(|line| line.strip_prefix("trailhound_messages_released_total{reason=\""))
            .filter_map(|line| line.strip_suffix("\"} 0"))
            .collect();
        assert_eq!(documented(2, |_| true), released);
    }

    /// A metric's row in the documentation.
    fn row(metric: &MetricInfo) -> String {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.help)
    }
}
