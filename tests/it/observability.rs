//! Alerts, dashboard and runbook speak of metrics, labels and values that exist, and of each other.
//!
//! Whether their `PromQL` is valid and answers is `tests/observability/run`'s affair.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use saphyr_parser::{Event, Parser};
use serde_json::Value;
use trailhound::metrics::Metrics;

/// Labels that a scrape adds.
const SCRAPED: [&str; 2] = ["job", "instance"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every series name that a scrape can bring, with its labels.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    for metric in Metrics::describe() {
        let labels: BTreeSet<String> = metric.labels.iter().map(|&it| it.to_owned()).collect();
        if metric.kind == "histogram" {
            let bucket = labels.iter().cloned().chain(["le".to_owned()]).collect();
            known.insert(format!("{}_bucket", metric.name), bucket);
            known.insert(format!("{}_sum", metric.name), labels.clone());
            known.insert(format!("{}_count", metric.name), labels);
        } else {
            known.insert(metric.name.to_owned(), labels);
        }
    }
    let documented = read("docs/metrics.md");
    for word in words(&documented).filter(|word| word.starts_with("process_")) {
        known.insert(word.to_owned(), BTreeSet::new());
    }
    known
}

/// The values of labels that start at zero: there are no others.
fn values() -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut values: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for line in Metrics::new().unwrap().encode().lines().filter(|line| !line.starts_with('#')) {
        for selector in selectors(line).unwrap() {
            for (label, _, value) in selector.matchers {
                values.entry((selector.name.clone(), label)).or_default().insert(value);
            }
        }
    }
    values
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// A metric in an expression, with its matchers: label, operator, value.
#[derive(Debug, PartialEq)]
struct Selector {
    name: String,
    matchers: Vec<(String, String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Other(char),
}

fn tokens(expr: &str) -> Vec<Token> {
    let mut chars = expr.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        if c == '"' {
            let mut text = String::new();
            while let Some(c) = chars.next().filter(|c| *c != '"') {
                text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
            tokens.push(Token::Text(text));
        } else if c.is_ascii_alphanumeric() || c == '_' {
            let mut word = String::from(c);
            while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "_:".contains(*c)) {
                word.push(c);
            }
            tokens.push(Token::Word(word));
        } else if !c.is_whitespace() {
            tokens.push(Token::Other(c));
        }
    }
    tokens
}

/// Metrics of ours, or of the process, in an expression.
fn selectors(expr: &str) -> Result<Vec<Selector>, String> {
    let tokens = tokens(expr);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(name) = token else { continue };
        if !name.starts_with("trailhound_") && !name.starts_with("process_") {
            continue;
        }
        let mut matchers = Vec::new();
        if tokens.get(at + 1) == Some(&Token::Other('{')) {
            let inside: Vec<&Token> = tokens[at + 2..].iter().take_while(|it| **it != Token::Other('}')).collect();
            for matcher in inside.split(|it| **it == Token::Other(',')).filter(|it| !it.is_empty()) {
                let [Token::Word(label), operator @ .., Token::Text(value)] = matcher else {
                    return Err(format!("a matcher of {name} in {expr}: {matcher:?}"));
                };
                let operator = operator.iter().fold(String::new(), |mut text, token| {
                    if let Token::Other(c) = token {
                        text.push(*c);
                    }
                    text
                });
                matchers.push((label.clone(), operator, value.clone()));
            }
        }
        found.push(Selector { name: name.clone(), matchers });
    }
    Ok(found)
}

/// Labels in `by (...)`, `on (...)` and their like.
fn grouped(expr: &str) -> Vec<String> {
    const WORDS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let tokens = tokens(expr);
    let mut labels = Vec::new();
    for pair in tokens.windows(2).enumerate() {
        let (at, [Token::Word(word), Token::Other('(')]) = pair else { continue };
        if WORDS.contains(&word.as_str()) {
            let inside = tokens[at + 2..].iter().take_while(|it| **it != Token::Other(')'));
            labels.extend(inside.filter_map(|it| match it {
                Token::Word(label) => Some(label.clone()),
                _ => None,
            }));
        }
    }
    labels
}

/// What is wrong with an expression's names, labels and values.
fn problems(expr: &str, sources: &str) -> Vec<String> {
    let (known, values) = (known(), values());
    let selectors = match selectors(expr) {
        Ok(selectors) => selectors,
        Err(problem) => return vec![problem],
    };
    let mut problems = Vec::new();
    let mut labels: BTreeSet<&str> = SCRAPED.into();
    for Selector { name, matchers } in &selectors {
        let Some(own) = known.get(name) else {
            problems.push(format!("no metric {name}"));
            continue;
        };
        labels.extend(own.iter().map(String::as_str));
        for (label, operator, value) in matchers {
            if SCRAPED.contains(&label.as_str()) {
                continue;
            }
            let key = (name.clone(), label.clone());
            if !own.contains(label) {
                problems.push(format!("{name} has no label {label}"));
            } else if !["=", "!="].contains(&operator.as_str()) {
                problems.push(format!("{name}: only = and != are checked, not {operator}"));
            } else if let Some(bounded) = values.get(&key).filter(|_| label != "le") {
                if !bounded.contains(value) {
                    problems.push(format!("{name} never has {label}=\"{value}\", only {bounded:?}"));
                }
            } else if label != "le" && label != "rule_id" && !sources.contains(&format!("\"{value}\"")) {
                problems.push(format!("{name}: the code has no word \"{value}\" for {label}"));
            }
        }
    }
    if tokens(expr).contains(&Token::Word("ALERTS".to_owned())) {
        // An alert has the labels of its expression, which is checked for itself.
        labels.extend(known.values().flatten().map(String::as_str));
        labels.insert("alertname");
    }
    for label in grouped(expr) {
        if !labels.contains(label.as_str()) {
            problems.push(format!("no metric in it has the label {label}"));
        }
    }
    problems
}

fn sources() -> String {
    fn collect(folder: PathBuf, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(path, text);
            } else if path.extension().is_some_and(|it| it == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    text
}

/// The scalars of a YAML file in order, and the brackets of its lists.
fn yaml(path: &str) -> Vec<String> {
    let text = read(path);
    let events = Parser::new_from_str(&text).map(|event| event.expect(path).0);
    events
        .filter_map(|event| match event {
            Event::Scalar(text, ..) => Some(text.into_owned()),
            Event::SequenceStart(..) => Some("[".to_owned()),
            Event::SequenceEnd => Some("]".to_owned()),
            _ => None,
        })
        .collect()
}

fn after<'a>(scalars: &'a [String], keys: &'a [&str]) -> impl Iterator<Item = &'a str> {
    scalars.windows(2).filter(|pair| keys.contains(&pair[0].as_str())).map(|pair| pair[1].as_str())
}

/// An alert's fields by their keys.
fn alerts() -> Vec<BTreeMap<String, String>> {
    let scalars = yaml("deploy/prometheus/alerts.yml");
    let starts: Vec<usize> = (0..scalars.len()).filter(|at| scalars[*at] == "alert").collect();
    let ends = starts.iter().skip(1).copied().chain([scalars.len()]);
    let keys = ["alert", "expr", "for", "severity", "summary", "description", "runbook"];
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let fields = scalars[*start..end].windows(2).filter(|pair| keys.contains(&pair[0].as_str()));
            fields.map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        })
        .collect()
}

/// All strings of a JSON document that speak of metrics.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("trailhound_") || text.contains("process_") => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap()
}

#[test]
fn every_metric_label_and_value_that_is_named_exists() {
    let mut expressions = Vec::new();
    for path in ["deploy/prometheus/alerts.yml", "deploy/prometheus/alerts.test.yml"] {
        let scalars = yaml(path);
        let found: Vec<String> = after(&scalars, &["expr", "series"]).map(str::to_owned).collect();
        assert!(found.len() > 20, "{path}: {found:#?}");
        expressions.extend(found.into_iter().map(|expr| (path, expr)));
    }
    let mut found = Vec::new();
    strings(&dashboard(), &mut found);
    assert!(found.len() > 50, "{found:#?}");
    expressions.extend(found.into_iter().map(|expr| ("deploy/grafana/dashboard.json", expr)));

    let sources = sources();
    let mut wrong = String::new();
    for (path, expr) in &expressions {
        for problem in problems(expr, &sources) {
            writeln!(wrong, "{path}: {problem}, in {expr}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let sources = sources();
    let wrong = |expr: &str| problems(expr, &sources);
    for right in [
        "sum by (job, le) (rate(trailhound_event_lag_seconds_bucket{le=\"300\"}[5m]))",
        "trailhound_queue_messages{state=\"visible\", job=~\"$job\"} > 0",
        "rate(trailhound_aws_requests_total{service=\"sqs\",outcome!=\"ok\"}[$__rate_interval])",
        "process_open_fds and on (job, instance) trailhound_build_info",
        "trailhound_event_lag_seconds_sum / trailhound_event_lag_seconds_count",
    ] {
        assert_eq!(wrong(right), Vec::<String>::new(), "{right}");
    }
    for bad in [
        "trailhound_messages_received",
        "trailhound_event_lag_seconds",
        "trailhound_ready_bucket",
        "process_open_files",
        "trailhound_queue_messages{status=\"visible\"}",
        "trailhound_queue_messages{state=\"seen\"}",
        "trailhound_aws_requests_total{outcome=\"throttled by AWS\"}",
        "trailhound_messages_left_total{reason=~\"bad.*\"}",
        "sum by (reason) (trailhound_ready)",
        "sum by (le) (trailhound_event_lag_seconds_sum)",
    ] {
        assert!(!wrong(bad).is_empty(), "{bad}");
    }
}

#[test]
fn documents_name_metrics_that_exist() {
    let mut known: BTreeSet<String> = known().into_keys().collect();
    known.extend(Metrics::describe().iter().map(|metric| metric.name.to_owned()));
    for path in
        ["README.md", "docs/operations.md", "docs/metrics.md", "docs/alerts.md", "docs/messages.md", "docs/rules.md"]
    {
        let text = read(path);
        // `trailhound_` and the like speak of names in general.
        let named = words(&text).filter(|word| word.starts_with("trailhound_") && !word.ends_with('_'));
        let unknown: Vec<&str> = named.filter(|word| !known.contains(*word)).collect();
        assert!(unknown.is_empty(), "{path} names what does not exist: {unknown:?}");
    }
}

/// `TrailhoundNotReady` is `trailhound-not-ready`, as a heading's anchor.
fn kebab(name: &str) -> String {
    name.char_indices().fold(String::new(), |mut text, (at, c)| {
        if c.is_ascii_uppercase() && at > 0 {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
        text
    })
}

#[test]
fn every_alert_says_what_is_wrong_what_to_do_and_where_to_read_on() {
    let operations = read("docs/operations.md");
    let (_, section) = operations.split_once("\n## What each alarm means\n").expect("a section on alarms");
    let section = section.split("\n## ").next().unwrap();
    let headings = section.lines().filter_map(|line| line.strip_prefix("### Trailhound "));
    let explained: BTreeSet<String> = headings.map(|it| format!("trailhound-{}", it.replace(' ', "-"))).collect();

    let alerts = alerts();
    let anchors: BTreeSet<String> = alerts.iter().map(|alert| kebab(&alert["alert"])).collect();
    assert_eq!(anchors.len(), alerts.len(), "an alert stands twice");
    assert_eq!(explained, anchors, "headings of docs/operations.md, and alerts");
    for alert in &alerts {
        let name = &alert["alert"];
        assert!(["critical", "warning", "info"].contains(&alert["severity"].as_str()), "{name}");
        assert!(!alert["summary"].is_empty() && alert["description"].len() > 40, "{name}");
        assert_eq!(alert["runbook"], format!("docs/operations.md#{}", kebab(name)));
        assert!(
            section.contains(&format!("`{name}`, {}", alert["severity"])),
            "docs/operations.md: severity of {name}"
        );

        let known = known();
        let named: Vec<String> = selectors(&alert["expr"]).unwrap().into_iter().map(|it| it.name).collect();
        let grouped = grouped(&alert["expr"]);
        let kept = |label: &str| {
            SCRAPED.contains(&label)
                || grouped.iter().any(|it| it == label)
                || named.iter().any(|it| known[it].contains(label))
        };
        for text in [&alert["summary"], &alert["description"]] {
            for label in text.split("$labels.").skip(1).map(|rest| words(rest).next().unwrap()) {
                assert!(kept(label), "{name} tells the label {label}, which it does not have");
            }
        }
    }
}

#[test]
fn every_alert_is_shown_firing_and_not_firing() {
    let scalars = yaml("deploy/prometheus/alerts.test.yml");
    let mut shown: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for (at, key) in scalars.iter().enumerate() {
        if key == "exp_samples" {
            let expr = scalars[..at].iter().rev().skip_while(|it| *it != "eval_time").nth(1).unwrap();
            let name = expr.split("alertname=\"").nth(1).and_then(|rest| rest.split('"').next()).expect(expr);
            let nothing = scalars[at + 1..at + 3] == ["[", "]"];
            shown.entry(name.to_owned()).or_default().insert(!nothing);
        }
    }
    let both = BTreeSet::from([false, true]);
    let wanted: BTreeMap<String, BTreeSet<bool>> =
        alerts().iter().map(|alert| (alert["alert"].clone(), both.clone())).collect();
    assert_eq!(shown, wanted, "whether alerts.test.yml shows each alert firing, and not");
}

#[test]
fn the_log_lines_that_alarms_wait_for_are_logged() {
    let alarms = read("deploy/terraform/alarms.tf");
    let list = alarms.split_once("failing_messages = [").and_then(|(_, rest)| rest.split_once(']'));
    let messages: Vec<&str> =
        list.map(|(list, _)| list.lines().filter_map(|it| it.split('"').nth(1)).collect()).unwrap();
    assert!(messages.len() >= 3, "{messages:?}");
    let sources = sources();
    for message in messages {
        assert!(sources.contains(message), "no source logs {message:?}");
    }
}

#[test]
fn the_dashboard_can_be_provisioned() {
    let dashboard = dashboard();
    assert_eq!((&dashboard["id"], &dashboard["uid"]), (&Value::Null, &Value::from("trailhound")));
    let titles: Vec<&str> =
        dashboard["panels"].as_array().unwrap().iter().map(|it| it["title"].as_str().unwrap()).collect();
    for row in ["Is it working?", "Is it keeping up?", "What does it find?", "What does it cost?"] {
        assert!(titles.contains(&row), "{titles:?}");
    }
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} lies on another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|it| it.len() > 10), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}
