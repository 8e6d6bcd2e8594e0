//! Every metric, named in one place. The doc comment of a field is its help text; `docs/metrics.md` lists them.

#[macro_use]
mod macros;

use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

metrics! {
    /// All metrics of one process, with the registry that owns them.
    pub struct Metrics {
        // Messages.
        /// Messages received from the queue.
        pub messages_received: IntCounter => "messages_received_total",
        /// Messages deleted after everything in them was delivered.
        pub messages_deleted: IntCounter => "messages_deleted_total",
        /// Messages given back to the queue, by reason.
        pub messages_released: IntCounterVec["reason" = ["stop", "single_fault", "expired"]] => "messages_released_total",
        /// Messages left for redrive because a part of them can never be read, by the first reason.
        pub messages_left: IntCounterVec["reason"] => "messages_left_total",
        /// Parts of messages acknowledged without being read, by reason.
        pub messages_ignored: IntCounterVec["reason"] => "messages_ignored_total",
        /// Deletes that failed after every retry; the message will be redelivered, which is harmless.
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
        /// 1 for each dependency that answered its last call, by dependency.
        pub dependency_up: IntGaugeVec["dependency" = ["queue", "objects", "publisher", "store"]] => "dependency_up",
        /// Messages in the queue, by state (visible, in_flight, delayed), as SQS approximates them.
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
        /// Bodies that broke off and were resumed with a range read.
        pub object_resumes: IntCounter => "object_resumes_total",

        // Detections and alerts.
        /// Matches, by rule id and severity.
        pub matches: IntCounterVec["rule_id", "severity"] => "matches_total",
        /// Alerts that SNS accepted, by severity.
        pub alerts_published: IntCounterVec["severity"] => "alerts_published_total",
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
        /// Time from the record's eventTime to its detection.
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
        /// 1 while the process is ready.
        pub ready: IntGauge => "ready",
        /// Always 1; the labels say what runs.
        pub build_info: IntGaugeVec["version", "revision", "rustc"] => "build_info",
    }
}
