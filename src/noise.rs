//! What each rule did: how much of what it matched became an alert, and what kept the rest from it.

use serde::Serialize;

use crate::metrics::Metrics;
use crate::rules::{Mode, RuleSet, Severity};

/// What one rule did since the process began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Noise {
    pub rule: String,
    pub severity: Severity,
    pub mode: Mode,
    /// Records that matched, copies included.
    pub hits: u64,
    /// Events that were stored for it for the first time.
    pub events: u64,
    /// Groups that were opened.
    pub groups: u64,
    /// Alerts that SNS accepted and that tell it.
    pub alerts: u64,
    /// Matches that an exception withheld: which, and how many. Those that withheld nothing are left out.
    pub suppressed: Vec<Suppressed>,
}

/// Matches that one exception withheld.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suppressed {
    /// Its position under `unless`, from 0.
    pub exception: usize,
    pub reason: String,
    pub count: u64,
}

/// Every rule in force, in the order of the file.
#[must_use]
pub fn noise(rules: &RuleSet, metrics: &Metrics) -> Vec<Noise> {
    let row = |rule: &std::sync::Arc<crate::rules::RuleInfo>| Noise {
        rule: rule.id.clone(),
        severity: rule.severity,
        mode: rule.mode,
        hits: metrics.matches.with_label_values(&[&*rule.id, rule.severity.as_str()]).get(),
        events: metrics.rule_events.with_label_values(&[&rule.id]).get(),
        groups: match rule.group {
            Some(_) => metrics.groups_opened.with_label_values(&[&rule.id]).get(),
            None => 0,
        },
        alerts: metrics.rule_alerts.with_label_values(&[&rule.id]).get(),
        suppressed: rules
            .reasons(&rule.id)
            .enumerate()
            .map(|(exception, reason)| {
                let labels = [rule.id.as_str(), &exception.to_string()];
                let count = metrics.suppressed.with_label_values(&labels).get();
                Suppressed { exception, reason: reason.to_owned(), count }
            })
            .filter(|one| one.count > 0)
            .collect(),
    };
    rules.rules().iter().map(row).collect()
}

impl Noise {
    /// Whether the rule did anything.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.hits > 0 || self.alerts > 0 || !self.suppressed.is_empty()
    }
}

/// For people: a line for each rule that did anything, the loudest first, and the sums.
#[must_use]
pub fn table(rows: &[Noise]) -> Vec<String> {
    let mut heard: Vec<&Noise> = rows.iter().filter(|row| row.is_heard()).collect();
    heard.sort_by(|a, b| b.alerts.cmp(&a.alerts).then(b.hits.cmp(&a.hits)).then_with(|| a.rule.cmp(&b.rule)));
    let width = heard.iter().map(|row| row.rule.len()).max().unwrap_or(0).max("rule".len());
    let line = |rule: &str, severity: &str, numbers: [String; 5]| {
        let [hits, events, groups, alerts, suppressed] = numbers;
        format!("{rule:<width$}  {severity:<8}  {hits:>7}  {events:>7}  {groups:>7}  {alerts:>7}  {suppressed}")
    };
    let titles = ["hits", "events", "groups", "alerts", "suppressed"].map(str::to_owned);
    let mut lines = vec![line("rule", "severity", titles).trim_end().to_owned()];
    for row in &heard {
        let suppressed: Vec<_> = row.suppressed.iter().map(|one| format!("{} ({})", one.count, one.reason)).collect();
        let numbers = [row.hits, row.events, row.groups, row.alerts].map(|number| number.to_string());
        let [hits, events, groups, alerts] = numbers;
        let severity = if row.mode == Mode::Shadow { "shadow" } else { row.severity.as_str() };
        lines.push(
            line(&row.rule, severity, [hits, events, groups, alerts, suppressed.join(", ")]).trim_end().to_owned(),
        );
    }
    let sum = |of: fn(&Noise) -> u64| heard.iter().map(|row| of(row)).sum::<u64>().to_string();
    let all: u64 = heard.iter().flat_map(|row| &row.suppressed).map(|one| one.count).sum();
    let sums =
        [sum(|row| row.hits), sum(|row| row.events), sum(|row| row.groups), sum(|row| row.alerts), all.to_string()];
    lines.push(line("all", "", sums).trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"[
        { "id": "stopped", "severity": "HIGH", "eventName": "StopLogging",
          "unless": [{ "reason": "never", "eventName": "X" }, { "reason": "the drill", "errorCode": "E" }] },
        { "id": "often", "severity": "LOW", "eventName": "ListBuckets", "group": { "by": ["a"], "window": "1h" } },
        { "id": "quiet", "severity": "LOW", "eventName": "A" },
        { "id": "trial", "severity": "LOW", "mode": "shadow", "eventName": "B" }
    ]"#;

    #[test]
    fn it_says_what_became_of_what_each_rule_matched() {
        let (rules, metrics) = (RuleSet::parse(RULES).unwrap(), Metrics::new().unwrap());
        metrics.matches.with_label_values(&["stopped", "HIGH"]).inc_by(3);
        metrics.rule_events.with_label_values(&["stopped"]).inc_by(2);
        metrics.rule_alerts.with_label_values(&["stopped"]).inc_by(2);
        metrics.suppressed.with_label_values(&["stopped", "1"]).inc_by(7);
        metrics.matches.with_label_values(&["often", "LOW"]).inc_by(1_000);
        metrics.rule_events.with_label_values(&["often"]).inc_by(725);
        metrics.groups_opened.with_label_values(&["often"]).inc();
        metrics.rule_alerts.with_label_values(&["often"]).inc_by(3);
        metrics.matches.with_label_values(&["trial", "LOW"]).inc_by(4);
        let rows = noise(&rules, &metrics);
        assert_eq!(
            rows.iter().map(|row| (row.hits, row.alerts)).collect::<Vec<_>>(),
            [(3, 2), (1_000, 3), (0, 0), (4, 0)]
        );
        insta::assert_snapshot!(table(&rows).join("\n"), @r"
        rule     severity     hits   events   groups   alerts  suppressed
        often    LOW          1000      725        1        3
        stopped  HIGH            3        2        0        2  7 (the drill)
        trial    shadow          4        0        0        0
        all                   1007      727        1        5  7
        ");
    }
}
