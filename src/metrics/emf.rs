//! A few of the metrics in CloudWatch's embedded metric format, for those without Prometheus.
//!
//! Source: AWS, "Specification: Embedded metric format". A line is one JSON object; `_aws` says which of its members are
//! metrics and which are dimensions. Nothing here reads a clock or writes: `cli/emf.rs` does.
//!
//! Counters travel as what was added since the last line that was written, so that CloudWatch's `Sum` is right over
//! any number of tasks and restarts. CloudWatch bills each metric: the list is short, and its one dimension is the same
//! for all tasks of a service.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::Metrics;
use crate::config::EmfConfig;

/// The name of the only dimension.
const DIMENSION: &str = "Service";

/// One metric of CloudWatch, and what it is made from.
#[derive(Clone, Copy, Debug)]
struct Told {
    name: &'static str,
    /// A unit of CloudWatch.
    unit: &'static str,
    how: How,
    /// The name of the metric in the registry.
    from: &'static str,
    series: Series,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// What a counter grew by.
    Delta,
    /// What a gauge shows.
    Value,
    /// The mean of what a histogram observed; nothing is told where it observed nothing.
    Mean,
}

/// Which series of a metric are added up.
#[derive(Clone, Copy, Debug)]
enum Series {
    All,
    With(&'static str, &'static str),
    Without(&'static str, &'static str),
}

const TOLD: [Told; 21] = {
    use How::{Delta, Mean, Value};
    use Series::{All, With, Without};
    const fn told(name: &'static str, unit: &'static str, how: How, from: &'static str, series: Series) -> Told {
        Told { name, unit, how, from, series }
    }
    [
        told("MessagesReceived", "Count", Delta, "trailhound_messages_received_total", All),
        told("MessagesDeleted", "Count", Delta, "trailhound_messages_deleted_total", All),
        told("MessagesLeft", "Count", Delta, "trailhound_messages_left_total", All),
        told("MessagesInFlight", "Count", Value, "trailhound_messages_in_flight", All),
        told("MessagesVisible", "Count", Value, "trailhound_queue_messages", With("state", "visible")),
        told("PollErrors", "Count", Delta, "trailhound_poll_errors_total", All),
        told("IntakePaused", "None", Value, "trailhound_intake_paused", All),
        told("ObjectsRead", "Count", Delta, "trailhound_objects_total", With("outcome", "ok")),
        told("ObjectsNotRead", "Count", Delta, "trailhound_objects_total", Without("outcome", "ok")),
        told("RecordsEvaluated", "Count", Delta, "trailhound_records_total", With("outcome", "evaluated")),
        told("Matches", "Count", Delta, "trailhound_matches_total", All),
        told("MatchesSuppressed", "Count", Delta, "trailhound_suppressed_total", All),
        told("AlertsPublished", "Count", Delta, "trailhound_alerts_published_total", All),
        told("AlertFailures", "Count", Delta, "trailhound_alert_failures_total", All),
        told("DuplicatesSuppressed", "Count", Delta, "trailhound_duplicates_suppressed_total", All),
        told("EventLag", "Seconds", Mean, "trailhound_event_lag_seconds", All),
        told("Ready", "None", Value, "trailhound_ready", All),
        told("RulesLoaded", "Count", Value, "trailhound_rules_loaded", All),
        told("LastReloadSuccess", "None", Value, "trailhound_rules_last_reload_success", All),
        told("ExpiredExceptions", "Count", Value, "trailhound_rules_expired_exceptions", All),
        told("ResidentMemory", "Bytes", Value, "process_resident_memory_bytes", All),
    ]
};

/// What the lines so far have told.
#[derive(Clone, Debug)]
pub struct Emf {
    namespace: String,
    service: String,
    totals: Totals,
}

/// For each metric and each of its series, how far it was counted: the sum, and how many observations made it.
type Totals = BTreeMap<(&'static str, String), (f64, f64)>;

/// A line that waits to be written.
#[derive(Debug)]
pub struct Line {
    text: String,
    totals: Totals,
}

impl Line {
    /// One JSON object and the end of the line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Emf {
    #[must_use]
    pub fn new(config: &EmfConfig) -> Self {
        Self { namespace: config.namespace.clone(), service: config.service.clone(), totals: Totals::new() }
    }

    /// What there is to tell since the last line that was [written](Self::written).
    #[must_use]
    pub fn line(&self, metrics: &Metrics, now: OffsetDateTime) -> Line {
        let families = metrics.registry.gather();
        let mut totals = Totals::new();
        let mut definitions = Vec::new();
        let mut values = Map::new();
        for told in TOLD {
            let Some(family) = families.iter().find(|family| family.name() == told.from) else {
                // A vector without series yet, or no such metric on this system: a counter of nothing is 0.
                if told.how == How::Delta {
                    definitions.push(json!({ "Name": told.name, "Unit": told.unit }));
                    values.insert(told.name.to_owned(), json!(0.0));
                }
                continue;
            };
            let value = self.value(told, family, &mut totals);
            // CloudWatch takes no NaN and no infinity, and neither does JSON.
            if let Some(value) = value.filter(|value| value.is_finite()) {
                definitions.push(json!({ "Name": told.name, "Unit": told.unit }));
                values.insert(told.name.to_owned(), json!(value));
            }
        }
        let millis = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let mut line = Map::new();
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": millis,
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": [[DIMENSION]],
                    "Metrics": definitions,
                }],
            }),
        );
        line.insert(DIMENSION.to_owned(), json!(self.service));
        line.append(&mut values);
        Line { text: format!("{}\n", Value::Object(line)), totals }
    }

    /// The line is out: the next one begins where it ended.
    pub fn written(&mut self, line: Line) {
        self.totals = line.totals;
    }

    fn value(&self, told: Told, family: &MetricFamily, totals: &mut Totals) -> Option<f64> {
        let series = family.get_metric().iter().filter(|series| told.series.has(series));
        if told.how == How::Value {
            return Some(series.map(|series| series.get_gauge().get_value()).sum());
        }
        let (mut sum, mut count) = (0.0, 0.0);
        for series in series {
            let now = counted(told.how, series);
            let key = (told.name, labels(series));
            let before = self.totals.get(&key).copied().unwrap_or_default();
            // A series that started anew, because its rule went and came back, counts from zero.
            let before = if now.0 < before.0 || now.1 < before.1 { (0.0, 0.0) } else { before };
            sum += now.0 - before.0;
            count += now.1 - before.1;
            totals.insert(key, now);
        }
        match told.how {
            How::Mean => (count > 0.0).then(|| sum / count),
            How::Delta | How::Value => Some(sum),
        }
    }
}

impl Series {
    fn has(self, series: &Metric) -> bool {
        let is = |name: &str, value: &str| {
            series.get_label().iter().any(|label| label.name() == name && label.value() == value)
        };
        match self {
            Self::All => true,
            Self::With(name, value) => is(name, value),
            Self::Without(name, value) => !is(name, value),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53 observations")]
fn counted(how: How, series: &Metric) -> (f64, f64) {
    match how {
        How::Mean => {
            let histogram = series.get_histogram();
            (histogram.get_sample_sum(), histogram.get_sample_count() as f64)
        }
        How::Delta | How::Value => (series.get_counter().get_value(), 0.0),
    }
}

/// Tells the series of one metric apart.
fn labels(series: &Metric) -> String {
    let values: Vec<&str> = series.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
    values.join("\0")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use insta::assert_snapshot;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00.123 UTC);

    fn emf() -> Emf {
        Emf::new(&EmfConfig {
            enabled: true,
            namespace: "Security/trailhound".to_owned(),
            service: "security-monitoring".to_owned(),
            interval: Duration::from_secs(60),
        })
    }

    fn read(line: &Line) -> Value {
        assert!(line.text().ends_with("}\n") && line.text().lines().count() == 1, "{}", line.text());
        serde_json::from_str(line.text()).unwrap()
    }

    /// Takes the line as written.
    fn next(emf: &mut Emf, metrics: &Metrics) -> Value {
        let line = emf.line(metrics, NOW);
        let value = read(&line);
        emf.written(line);
        value
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_line_is_one_object_that_says_what_it_holds() {
        let metrics = Metrics::new().unwrap();
        metrics.messages_received.inc_by(3);
        metrics.objects.with_label_values(&["ok"]).inc_by(2);
        metrics.objects.with_label_values(&["damaged"]).inc();
        metrics.objects.with_label_values(&["missing"]).inc();
        metrics.records.with_label_values(&["evaluated"]).inc_by(500);
        metrics.records.with_label_values(&["unreadable"]).inc();
        metrics.matches.with_label_values(&["root-login", "HIGH"]).inc();
        metrics.matches.with_label_values(&["trail-stopped", "CRITICAL"]).inc();
        metrics.alerts_published.with_label_values(&["HIGH"]).inc();
        metrics.queue_messages.with_label_values(&["visible"]).set(41);
        metrics.queue_messages.with_label_values(&["in_flight"]).set(7);
        metrics.event_lag.observe(100.0);
        metrics.event_lag.observe(200.5);
        metrics.ready.set(1);
        let line = emf().line(&metrics, NOW);
        let memory = read(&line)["ResidentMemory"].as_f64().unwrap();
        assert!(memory > 1_000_000.0, "{memory}");
        let shown = line.text().replace(&format!(":{}", json!(memory)), ":0").replace("{\"Name\"", "\n{\"Name\"");
        assert_snapshot!(shown, @r#"
        {"_aws":{"Timestamp":1772366400123,"CloudWatchMetrics":[{"Namespace":"Security/trailhound","Dimensions":[["Service"]],"Metrics":[
        {"Name":"MessagesReceived","Unit":"Count"},
        {"Name":"MessagesDeleted","Unit":"Count"},
        {"Name":"MessagesLeft","Unit":"Count"},
        {"Name":"MessagesInFlight","Unit":"Count"},
        {"Name":"MessagesVisible","Unit":"Count"},
        {"Name":"PollErrors","Unit":"Count"},
        {"Name":"IntakePaused","Unit":"None"},
        {"Name":"ObjectsRead","Unit":"Count"},
        {"Name":"ObjectsNotRead","Unit":"Count"},
        {"Name":"RecordsEvaluated","Unit":"Count"},
        {"Name":"Matches","Unit":"Count"},
        {"Name":"MatchesSuppressed","Unit":"Count"},
        {"Name":"AlertsPublished","Unit":"Count"},
        {"Name":"AlertFailures","Unit":"Count"},
        {"Name":"DuplicatesSuppressed","Unit":"Count"},
        {"Name":"EventLag","Unit":"Seconds"},
        {"Name":"Ready","Unit":"None"},
        {"Name":"RulesLoaded","Unit":"Count"},
        {"Name":"LastReloadSuccess","Unit":"None"},
        {"Name":"ExpiredExceptions","Unit":"Count"},
        {"Name":"ResidentMemory","Unit":"Bytes"}]}]},"Service":"security-monitoring","MessagesReceived":3.0,"MessagesDeleted":0.0,"MessagesLeft":0.0,"MessagesInFlight":0.0,"MessagesVisible":41.0,"PollErrors":0.0,"IntakePaused":0.0,"ObjectsRead":2.0,"ObjectsNotRead":2.0,"RecordsEvaluated":500.0,"Matches":2.0,"MatchesSuppressed":0.0,"AlertsPublished":1.0,"AlertFailures":0.0,"DuplicatesSuppressed":0.0,"EventLag":150.25,"Ready":1.0,"RulesLoaded":0.0,"LastReloadSuccess":0.0,"ExpiredExceptions":0.0,"ResidentMemory":0}
        "#);
    }

    #[test]
    fn the_lines_add_up_to_what_was_counted() {
        let (metrics, mut emf) = (Metrics::new().unwrap(), emf());
        let alerts = |severity| metrics.alerts_published.with_label_values(&[severity]);
        alerts("HIGH").inc_by(2);
        assert_eq!(next(&mut emf, &metrics)["AlertsPublished"], 2.0);
        assert_eq!(next(&mut emf, &metrics)["AlertsPublished"], 0.0);
        alerts("HIGH").inc();
        alerts("LOW").inc_by(4);
        assert_eq!(next(&mut emf, &metrics)["AlertsPublished"], 5.0);
    }

    #[test]
    fn what_could_not_be_written_is_told_by_the_next_line() {
        let (metrics, mut emf) = (Metrics::new().unwrap(), emf());
        metrics.messages_deleted.inc_by(2);
        metrics.event_lag.observe(10.0);
        let _lost = emf.line(&metrics, NOW);
        metrics.messages_deleted.inc();
        metrics.event_lag.observe(20.0);
        let line = next(&mut emf, &metrics);
        assert_eq!((&line["MessagesDeleted"], &line["EventLag"]), (&json!(3.0), &json!(15.0)));
        assert_eq!(next(&mut emf, &metrics)["MessagesDeleted"], 0.0);
    }

    #[test]
    fn a_lag_is_the_mean_of_the_interval_and_absent_without_an_event() {
        let (metrics, mut emf) = (Metrics::new().unwrap(), emf());
        let names = |line: &Value| line["_aws"]["CloudWatchMetrics"][0]["Metrics"].to_string();
        metrics.event_lag.observe(1_000.0);
        let line = next(&mut emf, &metrics);
        assert_eq!(line["EventLag"], 1_000.0);
        assert!(names(&line).contains("EventLag"));
        let line = next(&mut emf, &metrics);
        assert!(line.get("EventLag").is_none() && !names(&line).contains("EventLag"), "{line}");
        metrics.event_lag.observe(10.0);
        assert_eq!(next(&mut emf, &metrics)["EventLag"], 10.0, "what was told before has no part in it");
    }

    #[test]
    fn a_series_that_starts_anew_takes_nothing_away() {
        let (metrics, mut emf) = (Metrics::new().unwrap(), emf());
        let of = |rule: &str| metrics.matches.with_label_values(&[rule, "HIGH"]);
        of("one").inc_by(10);
        of("two").inc_by(10);
        assert_eq!(next(&mut emf, &metrics)["Matches"], 20.0);
        metrics.matches.remove_label_values(&["one", "HIGH"]).unwrap();
        of("two").inc();
        assert_eq!(next(&mut emf, &metrics)["Matches"], 1.0);
        of("one").inc_by(3);
        assert_eq!(next(&mut emf, &metrics)["Matches"], 3.0);
        metrics.matches.reset();
        of("one").inc_by(2);
        assert_eq!(next(&mut emf, &metrics)["Matches"], 2.0);
    }

    #[test]
    fn a_line_is_within_the_limits_of_the_format_and_of_the_log_driver() {
        let metrics = Metrics::new().unwrap();
        metrics.event_lag.observe(1.0);
        let mut emf = emf();
        (emf.namespace, emf.service) = ("n".repeat(255), "s".repeat(1024));
        let line = emf.line(&metrics, NOW);
        // Docker splits lines longer than this.
        assert!(line.text().len() < 16 * 1024, "{}", line.text().len());
        let value = read(&line);
        let directive = &value["_aws"]["CloudWatchMetrics"][0];
        let named: Vec<&str> =
            directive["Metrics"].as_array().unwrap().iter().map(|it| it["Name"].as_str().unwrap()).collect();
        assert!(!named.is_empty() && named.len() <= 100);
        for name in &named {
            assert!(value[name].is_number(), "{name}");
        }
        let others: Vec<&String> =
            value.as_object().unwrap().keys().filter(|key| !named.contains(&key.as_str())).collect();
        assert_eq!(others, ["_aws", "Service"]);
        for told in TOLD {
            assert!(["Count", "Seconds", "Bytes", "None"].contains(&told.unit), "{}", told.unit);
        }
    }

    #[test]
    fn every_metric_is_made_from_one_that_exists() {
        let known = Metrics::describe();
        let mut names = BTreeSet::new();
        for told in TOLD {
            assert!(names.insert(told.name), "{} twice", told.name);
            if told.from.starts_with("process_") {
                continue;
            }
            let metric = known.iter().find(|metric| metric.name == told.from).expect(told.from);
            let kind = match told.how {
                How::Delta => "counter",
                How::Value => "gauge",
                How::Mean => "histogram",
            };
            assert_eq!(metric.kind, kind, "{}", told.name);
            if let Series::With(label, _) | Series::Without(label, _) = told.series {
                assert!(metric.labels.contains(&label), "{}", told.name);
            }
        }
    }

    #[test]
    fn the_documentation_lists_exactly_these_metrics() {
        let document = include_str!("../../docs/metrics.md");
        let (_, section) = document.split_once("\n## CloudWatch\n").expect("a section on CloudWatch");
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let documented: Vec<String> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split(" | ").collect();
                cells[..4].join(" | ")
            })
            .collect();
        let declared: Vec<String> = TOLD
            .iter()
            .map(|told| {
                let how = match told.how {
                    How::Delta => "growth",
                    How::Value => "value",
                    How::Mean => "mean",
                };
                let series = match told.series {
                    Series::All => String::new(),
                    Series::With(label, value) => format!("{{{label}=\"{value}\"}}"),
                    Series::Without(label, value) => format!("{{{label}!=\"{value}\"}}"),
                };
                format!("| `{}` | {} | {how} | `{}{series}`", told.name, told.unit, told.from)
            })
            .collect();
        assert_eq!(documented, declared, "docs/metrics.md, section CloudWatch:\n{}", declared.join("\n"));
    }
}
