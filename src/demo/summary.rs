//! What came of it: the daemon's own metrics, and what stands in the emulator's table and queues.

use std::collections::BTreeMap;
use std::fmt;

use prometheus::IntCounterVec;
use prometheus::core::Collector as _;
use serde_json::Value;

use super::Expected;
use super::screen::Alert;
use crate::alert::{EventKey, shown};
use crate::metrics::Metrics;
use crate::noise::{noise, table};
use crate::rules::RuleSet;
use crate::tracker::{RESERVED_PREFIX, TrackerId, TrackerKind};

/// The longest reason and the longest list that are shown.
const LIMIT: usize = 400;
const MAX_REASONS: usize = 20;

pub(super) struct Summary<'a> {
    pub(super) seconds: f64,
    pub(super) uploads: usize,
    pub(super) alerts: &'a [Alert],
    /// The items of the table, as DynamoDB writes them.
    pub(super) items: Vec<Value>,
    /// Messages that are still on the queue.
    pub(super) left_over: u64,
    /// The bodies of the messages in the dead-letter queue.
    pub(super) dead_letters: Vec<String>,
    /// Why messages were left for redrive: details and their reason.
    pub(super) reasons: BTreeMap<String, String>,
    pub(super) metrics: &'a Metrics,
    pub(super) rules: &'a RuleSet,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics;
        writeln!(f, "Summary, after {:.1} seconds\n", self.seconds)?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<23}{text}");
        line("files uploaded", self.uploads.to_string())?;
        line("files read", told(&by_label(&metrics.objects, "outcome")))?;
        line("records", told(&by_label(&metrics.records, "outcome")))?;
        line("matches", told(&by_label(&metrics.matches, "rule_id")))?;
        line("duplicates suppressed", metrics.duplicates_suppressed.get().to_string())?;
        line("alerts", told(&by_label(&metrics.alerts_published, "severity")))?;
        let (groups, events) = self.groups_and_events();
        line("items in the table", format!("{} events, {} groups", events.len(), groups.len()))?;
        line("messages", {
            let (received, deleted) = (metrics.messages_received.get(), metrics.messages_deleted.get());
            format!("{received} received, {deleted} deleted")
        })?;
        line("ignored", told(&by_label(&metrics.messages_ignored, "reason")))?;
        line("dead letters", self.dead_letters.len().to_string())?;
        for (detail, reason) in self.reasons.iter().take(MAX_REASONS) {
            writeln!(f, "    {}: {}", shown(reason, LIMIT), shown(detail, LIMIT))?;
        }
        writeln!(f, "\nWhat each rule did\n")?;
        table(&noise(self.rules, metrics)).iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl Summary<'_> {
    /// The items of groups and correlations, and those of events.
    fn groups_and_events(&self) -> (Vec<&Value>, Vec<&Value>) {
        let is_reserved = |item: &&Value| {
            let id = item.pointer("/EventId/S").and_then(Value::as_str);
            id.is_some_and(|id| id.starts_with(RESERVED_PREFIX))
        };
        self.items.iter().partition(is_reserved)
    }

    /// Where the outcome is not what the story says.
    pub(super) fn problems(&self, expected: &Expected) -> Vec<String> {
        let mut problems = Vec::new();
        let mut alerted: BTreeMap<&str, usize> = BTreeMap::new();
        let mut told: BTreeMap<(String, u64), usize> = BTreeMap::new();
        let mut episodes: BTreeMap<&str, usize> = BTreeMap::new();
        for alert in self.alerts {
            match (&alert.group, &alert.correlation) {
                (Some((group, step, _)), _) => *told.entry((group.clone(), *step)).or_default() += 1,
                (None, Some((key, _))) => *episodes.entry(key).or_default() += 1,
                (None, None) => *alerted.entry(&alert.event_id).or_default() += 1,
            }
        }
        for (key, wanted) in &expected.episodes {
            let times = episodes.remove(key.to_string().as_str()).unwrap_or(0);
            // Events that come late may join what was told as two.
            if times < *wanted || (*wanted == 0 && times > 0) {
                problems.push(format!("key {key} was alerted {times} times, and its events make {wanted} episodes"));
            }
        }
        problems.extend(episodes.keys().map(|key| format!("key {} must not be alerted", shown(key, LIMIT))));
        for (group, count) in &expected.groups {
            let group = group.to_string();
            let steps = std::iter::successors(Some(1_u64), |step| step.checked_mul(10));
            for step in steps.take_while(|step| step <= count) {
                match told.remove(&(group.clone(), step)) {
                    Some(1) => {}
                    times => {
                        let times = times.unwrap_or(0);
                        problems.push(format!("step {step} of group {group} was alerted {times} times, not once"));
                    }
                }
            }
        }
        let unwanted = told
            .keys()
            .map(|(group, step)| format!("step {step} of group {} must not be alerted", shown(group, LIMIT)));
        problems.extend(unwanted);
        for (event, _) in expected.events.iter().filter(|(_, wanted)| wanted.alert) {
            match alerted.remove(event.as_str()) {
                Some(1) => {}
                Some(times) => problems.push(format!("event {event} was alerted {times} times, not once")),
                None => problems.push(format!("event {event} was never alerted")),
            }
        }
        problems.extend(alerted.keys().map(|event| format!("event {} must not be alerted", shown(event, LIMIT))));
        let settled = |item: &Value| {
            let id = item.pointer("/EventId/S").and_then(Value::as_str).unwrap_or_default();
            let rules = item.pointer("/SettledRules/SS").and_then(Value::as_array).map_or(0, Vec::len);
            expected.events.get(id).is_some_and(|wanted| wanted.rules == rules)
        };
        let (groups, events) = self.groups_and_events();
        let stored = events.iter().filter(|item| settled(item)).count();
        let counted = |item: &Value| {
            let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let key = EventKey { event_id: text("/EventId/S").to_owned(), timestamp: text("/Timestamp/S").to_owned() };
            let group = TrackerId::of_key(&key).filter(|id| id.kind() == TrackerKind::Group)?;
            Some((group, text("/Count/N").parse().unwrap_or(0)))
        };
        let counts: BTreeMap<TrackerId, u64> = groups.iter().filter_map(|item| counted(item)).collect();
        if counts != expected.groups {
            problems.push(format!("{} groups are stored, or count, not as they should", counts.len()));
        }
        if stored != expected.events.len() || stored != events.len() {
            let (items, expected) = (events.len(), expected.events.len());
            problems.push(format!("{items} items are stored, {stored} of them as they should be, not {expected}"));
        }
        if self.left_over != 0 {
            problems.push(format!("{} messages are still on the queue", self.left_over));
        }
        match self.dead_letters.len() {
            1 if self.reasons.len() == 1 => {}
            1 => problems.push(format!("{} reasons were logged for one dead letter", self.reasons.len())),
            count => problems.push(format!("{count} messages are in the dead-letter queue, not one")),
        }
        problems
    }
}

/// A counter's values by one of its labels, without zeros.
fn by_label(counter: &IntCounterVec, label: &str) -> Vec<(String, u64)> {
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    for family in counter.collect() {
        for metric in family.get_metric() {
            let name = metric.get_label().iter().find(|pair| pair.name() == label).map(|pair| pair.value().to_owned());
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the value of an integer counter"
            )]
            let value = metric.get_counter().get_value() as u64;
            *values.entry(name.unwrap_or_default()).or_default() += value;
        }
    }
    values.into_iter().filter(|(_, value)| *value > 0).collect()
}

/// The sum, and what it is made of.
fn told(values: &[(String, u64)]) -> String {
    let sum: u64 = values.iter().map(|(_, value)| value).sum();
    let parts: Vec<String> = values.iter().map(|(name, value)| format!("{} {value}", shown(name, LIMIT))).collect();
    if parts.is_empty() { sum.to_string() } else { format!("{sum}  ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::demo::Wanted;

    fn expected() -> Expected {
        let events = ["a", "b"].map(|id| (id.to_owned(), Wanted { rules: 1, alert: true })).into();
        Expected { events, ..Expected::default() }
    }

    fn alert(event_id: &str) -> Alert {
        Alert { event_id: event_id.to_owned(), ..Alert::default() }
    }

    fn item(id: &str) -> Value {
        json!({ "EventId": { "S": id }, "SettledRules": { "SS": ["root-usage"] } })
    }

    fn rules() -> &'static RuleSet {
        static RULES: std::sync::OnceLock<RuleSet> = std::sync::OnceLock::new();
        RULES.get_or_init(RuleSet::default)
    }

    fn outcome<'a>(metrics: &'a Metrics, alerts: &'a [Alert]) -> Summary<'a> {
        Summary {
            seconds: 1.0,
            uploads: 2,
            alerts,
            items: vec![item("a"), item("b")],
            left_over: 0,
            dead_letters: vec!["{}".to_owned()],
            reasons: BTreeMap::from([("k: it ends early".to_owned(), "ends_early".to_owned())]),
            metrics,
            rules: rules(),
        }
    }

    #[test]
    fn the_right_outcome_has_no_problems() {
        let metrics = Metrics::new().unwrap();
        assert_eq!(outcome(&metrics, &[alert("b"), alert("a")]).problems(&expected()), Vec::<String>::new());
    }

    #[test]
    fn an_event_that_is_only_recorded_must_not_be_alerted() {
        let metrics = Metrics::new().unwrap();
        let events = [("a", true), ("b", false)].map(|(id, alert)| (id.to_owned(), Wanted { rules: 1, alert })).into();
        let expected = Expected { events, ..Expected::default() };
        assert_eq!(outcome(&metrics, &[alert("a")]).problems(&expected), Vec::<String>::new());
        let problems = outcome(&metrics, &[alert("a"), alert("b")]).problems(&expected);
        assert_eq!(problems, ["event b must not be alerted"]);
    }

    #[test]
    fn a_group_is_counted_and_each_of_its_steps_is_alerted_once() {
        let metrics = Metrics::new().unwrap();
        let group = |name: &str| TrackerId::read(&format!("{name}@2024-05-01T12:00:00Z")).unwrap();
        let step =
            |name: &str, step| Alert { group: Some((group(name).to_string(), step, String::new())), ..alert("a") };
        let (mut expected, told) = (expected(), [alert("a"), alert("b"), step("g", 1), step("g", 10)]);
        expected.groups.insert(group("g"), 12);
        let mut right = outcome(&metrics, &told);
        let key = group("g").key();
        right.items.push(
            json!({ "EventId": { "S": key.event_id }, "Timestamp": { "S": key.timestamp }, "Count": { "N": "12" } }),
        );
        assert_eq!(right.problems(&expected), Vec::<String>::new());
        let told = [alert("a"), alert("b"), step("g", 1), step("g", 1), step("h", 1)];
        insta::assert_snapshot!(outcome(&metrics, &told).problems(&expected).join("\n"), @r"
        step 1 of group g@2024-05-01T12:00:00Z was alerted 2 times, not once
        step 10 of group g@2024-05-01T12:00:00Z was alerted 0 times, not once
        step 1 of group h@2024-05-01T12:00:00Z must not be alerted
        0 groups are stored, or count, not as they should
        ");
    }

    #[test]
    fn each_way_to_be_wrong_is_told() {
        let metrics = Metrics::new().unwrap();
        let alerts = [alert("a"), alert("a"), alert("c")];
        let mut wrong = outcome(&metrics, &alerts);
        wrong.items = vec![item("a"), json!({ "EventId": { "S": "b" } })];
        wrong.left_over = 3;
        wrong.dead_letters.clear();
        insta::assert_snapshot!(wrong.problems(&expected()).join("\n"), @r"
        event a was alerted 2 times, not once
        event b was never alerted
        event c must not be alerted
        2 items are stored, 1 of them as they should be, not 2
        3 messages are still on the queue
        0 messages are in the dead-letter queue, not one
        ");
    }

    #[test]
    fn figures_come_from_the_metrics() {
        let metrics = Metrics::new().unwrap();
        metrics.matches.with_label_values(&["root-usage", "HIGH"]).inc_by(2);
        metrics.matches.with_label_values(&["kms", "LOW"]).inc();
        metrics.matches.with_label_values(&["never", "LOW"]);
        let text = outcome(&metrics, &[]).to_string();
        assert!(text.contains("matches                3  (kms 1, root-usage 2)\n"), "{text}");
        assert!(text.contains("dead letters           1\n    ends_early: k: it ends early\n"), "{text}");
    }
}
