//! The status page: one document without outside resources, written anew for each request. Its small script fetches it
//! again every few seconds and puts the new figures in; without the script the browser loads it again.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::alert::shown;
use crate::health::Report;
use crate::journal::{Lately, SAMPLES, Sample};
use crate::rules::Severity;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// More rules than anybody reads on a page; `/rules` has them all.
const MAX_ROWS: usize = 100;
/// A longer text is cut.
const MAX_TEXT: usize = 200;

/// Nothing but what the page itself brings, and itself again.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// What the page shows.
pub struct View {
    pub now: OffsetDateTime,
    pub version: &'static str,
    pub ready: Report,
    pub live: Report,
    pub lately: Lately,
    /// As it is now.
    pub sample: Sample,
    pub rules: Option<RulesView>,
}

pub struct RulesView {
    pub location: String,
    pub hash: String,
    pub loaded_at: OffsetDateTime,
    /// Why the last reload was refused, if it was.
    pub error: Option<String>,
    pub warnings: usize,
    pub rows: Vec<RuleRow>,
}

pub struct RuleRow {
    pub id: String,
    pub severity: Severity,
    /// As in the rule file: `alert`, `shadow` or `off`.
    pub mode: &'static str,
    pub matches: u64,
}

pub fn render(view: &View) -> Markup {
    let ok = view.ready.ok && view.live.ok;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (if ok { "trailhound: ready" } else { "trailhound: NOT READY" }) }
                // Without it browsers ask for an icon.
                link rel="icon" href="data:,";
                noscript { meta http-equiv="refresh" content="10"; }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#now" { "Skip to the figures" }
                header {
                    h1 { "trailhound" }
                    p { "version " (view.version) }
                    button #pause type="button" aria-pressed="false" hidden { "Pause updates" }
                    p #stale role="status" hidden { "The daemon does not answer; what is below is old." }
                }
                main #live data-at=(timestamp(view.now)) { (body(view, ok)) }
                footer {
                    p {
                        "As seen by this process since its start. Elsewhere: "
                        a href="/metrics" { "/metrics" } ", " a href="/rules" { "/rules" } ", "
                        a href="/readyz" { "/readyz" } ", " a href="/livez" { "/livez" } ", " a href="/version" { "/version" }
                        "."
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn body(view: &View, ok: bool) -> Markup {
    html! {
        section #state class=(if ok { "good" } else { "bad" }) aria-label="State" {
            p.verdict { (if ok { "Ready" } else { "Not ready" }) }
            p { "As of " (clock(view.now)) }
            ul {
                @for check in view.live.checks.iter().chain(&view.ready.checks) {
                    li class=(if check.ok { "good" } else { "bad" }) {
                        strong { (check.name) } ": "
                        (if check.ok { "works" } else { "fails" })
                        @if !check.detail.is_empty() { " – " (text(&check.detail)) }
                    }
                }
            }
        }
        section #now aria-labelledby="now-title" {
            h2 #now-title { "The last hour" }
            div.charts { (charts(&view.lately.samples, view.sample)) }
        }
        section #alerts aria-labelledby="alerts-title" {
            h2 #alerts-title { "Last alerts" }
            @if view.lately.alerts.is_empty() { p { "None yet." } } @else {
                div.scroll tabindex="0" role="region" aria-labelledby="alerts-title" {
                    table {
                        thead { tr { th scope="col" { "When" } th scope="col" { "Severity" } th scope="col" { "Rule" }
                            th scope="col" { "Event" } th scope="col" { "Account" } } }
                        tbody {
                            @for alert in &view.lately.alerts {
                                tr title={ "alert " (text(&alert.alert_id)) } {
                                    td { (moment(alert.at)) }
                                    td { (severity(alert.severity)) }
                                    td.free { (text(&alert.rules.join(", "))) }
                                    td.free { (text(alert.event_name.as_deref().unwrap_or("-"))) }
                                    td { (text(alert.account.as_deref().unwrap_or("-"))) }
                                }
                            }
                        }
                    }
                }
            }
        }
        section #failures aria-labelledby="failures-title" {
            h2 #failures-title { "Last failures" }
            @if view.lately.failures.is_empty() { p { "None yet." } } @else {
                div.scroll tabindex="0" role="region" aria-labelledby="failures-title" {
                    table {
                        thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Why" } } }
                        tbody {
                            @for failed in &view.lately.failures {
                                tr {
                                    td { (moment(failed.at)) }
                                    td { (failed.reason) @if failed.count > 1 { " × " (failed.count) } }
                                    td.free { (shown(&failed.detail, 500)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        section #rules aria-labelledby="rules-title" {
            h2 #rules-title { "Rules" }
            @match &view.rules {
                None => p { "Not loaded yet." },
                Some(rules) => (rules_section(rules, &view.lately)),
            }
        }
    }
}

fn rules_section(rules: &RulesView, lately: &Lately) -> Markup {
    let mut rows: Vec<&RuleRow> = rules.rows.iter().collect();
    rows.sort_by(|a, b| b.matches.cmp(&a.matches).then_with(|| a.id.cmp(&b.id)));
    html! {
        p {
            (rules.rows.len()) " rules of " code { (text(&rules.location)) } ", loaded " (moment(rules.loaded_at))
            ", hash " code { (shown(&rules.hash, 13)) }
            @if rules.warnings > 0 { ", " (rules.warnings) " warnings" }
        }
        @match &rules.error {
            Some(error) => p.bad role="alert" { "The last reload was refused, and these rules stay: " (shown(error, 1_000)) },
            None => p.good { "The last load succeeded." },
        }
        div.scroll tabindex="0" role="region" aria-labelledby="rules-title" {
            table {
                thead { tr { th scope="col" { "Rule" } th scope="col" { "Severity" } th scope="col" { "Mode" }
                    th.number scope="col" { "Matches" } th scope="col" { "Last match" } } }
                tbody {
                    @for row in rows.iter().take(MAX_ROWS) {
                        tr {
                            td.free { (text(&row.id)) }
                            td { (severity(row.severity)) }
                            td { (row.mode) }
                            td.number { (grouped(row.matches)) }
                            td { @match lately.last_matches.get(&row.id) { Some(at) => (moment(*at)), None => "-" } }
                        }
                    }
                }
            }
        }
        @if rows.len() > MAX_ROWS { p { (rows.len() - MAX_ROWS) " more in " a href="/rules" { "/rules" } "." } }
    }
}

/// The interval that is not over yet counts once it says something.
const SHORTEST: f64 = 2.0;

/// Rates and lags of the intervals between samples, and gauges as they are.
fn charts(samples: &[Sample], now: Sample) -> Markup {
    let mut samples = samples.to_vec();
    samples.push(now);
    let intervals = || samples.iter().zip(samples.iter().skip(1));
    let rate = |of: fn(&Sample) -> u64, unit: f64| -> Vec<f64> {
        intervals()
            .filter_map(|(before, after)| {
                let seconds = after.at.saturating_sub(before.at).as_secs_f64();
                (seconds >= SHORTEST).then(|| count(of(after).saturating_sub(of(before))) * unit / seconds)
            })
            .collect()
    };
    let gauge = |of: fn(&Sample) -> i64| -> Vec<f64> { samples.iter().map(|one| level(of(one))).collect() };
    let lag = |(before, after): (&Sample, &Sample)| match after.lag.1.saturating_sub(before.lag.1) {
        0 => 0.0,
        events => (after.lag.0 - before.lag.0).max(0.0) / count(events),
    };
    let lags: Vec<f64> = intervals().map(lag).collect();
    html! {
        (chart("Records", "a second", &rate(|one| one.records, 1.0), Some(now.records)))
        (chart("Alerts", "a minute", &rate(|one| one.alerts, 60.0), Some(now.alerts)))
        (chart("Lag, event to detection", "seconds", &lags, None))
        (chart("Messages in flight", "messages", &gauge(|one| one.in_flight), None))
        (chart("Queue depth", "messages", &gauge(|one| one.waiting), None))
        (chart("Errors", "a minute", &rate(|one| one.errors, 60.0), Some(now.errors)))
    }
}

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 48.0;

fn chart(name: &str, unit: &str, values: &[f64], total: Option<u64>) -> Markup {
    let last = values.last().copied().unwrap_or(0.0);
    let most = values.iter().copied().fold(0.0, f64::max);
    // Times are told in the unit that suits the longest.
    let (unit, divisor) = match unit {
        "seconds" if most >= 7_200.0 => ("hours", 3_600.0),
        "seconds" if most >= 120.0 => ("minutes", 60.0),
        unit => (unit, 1.0),
    };
    let (now, top) = (figure(last / divisor), figure(most / divisor));
    let told = format!("{name}: now {now} {unit}, at most {top} in the last hour");
    html! {
        figure {
            figcaption { (name) }
            p.value { (now) " " small { (unit) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(told) preserveAspectRatio="none" {
                line x1="0" y1=(HEIGHT - 1.0) x2=(WIDTH) y2=(HEIGHT - 1.0) {}
                polyline points=(points(values, most)) {}
            }
            p.most {
                "at most " (top)
                @if let Some(total) = total { ", " (grouped(total)) " in all" }
            }
        }
    }
}

/// The newest value is at the right edge.
fn points(values: &[f64], most: f64) -> String {
    let step = WIDTH / count(SAMPLES as u64);
    let mut points = String::new();
    for (age, value) in values.iter().rev().enumerate().take(SAMPLES + 1) {
        let x = WIDTH - step * count(age as u64);
        let y = if most > 0.0 { HEIGHT - 2.0 - (HEIGHT - 6.0) * value / most } else { HEIGHT - 2.0 };
        let _ = write!(points, "{}{x:.1},{y:.1}", if age == 0 { "" } else { " " });
        if values.len() == 1 {
            let _ = write!(points, " {:.1},{y:.1}", x - step);
        }
    }
    points
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53, and drawn")]
fn count(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53, and drawn")]
fn level(level: i64) -> f64 {
    level as f64
}

fn figure(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `1 234 567`, with narrow spaces that do not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn text(text: &str) -> String {
    shown(text, MAX_TEXT)
}

fn severity(severity: Severity) -> Markup {
    let name = severity.as_str();
    html! { span class={ "severity " (name.to_ascii_lowercase()) } { (name) } }
}

fn timestamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

fn clock(at: OffsetDateTime) -> Markup {
    let shown = at.format(format_description!("[hour]:[minute]:[second] UTC")).unwrap_or_default();
    html! { time datetime=(timestamp(at)) { (shown) } }
}

fn moment(at: OffsetDateTime) -> Markup {
    let shown = at.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")).unwrap_or_default();
    html! { time datetime=(timestamp(at)) { (shown) } }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::health::Check;
    use crate::journal::{Alerted, Failed};

    const AT: OffsetDateTime = datetime!(2026-05-01 12:00 UTC);

    fn view() -> View {
        let check = Check { name: "queue", ok: true, detail: String::new() };
        let report = Report { ok: true, checks: vec![check] };
        let (live, lately) = (Report { ok: true, checks: Vec::new() }, Lately::default());
        View { now: AT, version: "1", ready: report, live, lately, sample: Sample::default(), rules: None }
    }

    #[test]
    fn nothing_of_a_record_or_a_rule_can_be_markup() {
        let mut view = view();
        let evil = "</script><script>alert(1)</script>\u{202e}\"'&";
        view.lately.alerts.push(Alerted {
            at: AT,
            severity: Severity::High,
            rules: vec![evil.to_owned()],
            event_name: Some(evil.to_owned()),
            account: Some(evil.to_owned()),
            alert_id: evil.to_owned(),
        });
        view.lately.failures.push(Failed { at: AT, reason: "damaged", detail: evil.to_owned(), count: 3 });
        view.ready.checks.push(Check { name: "store", ok: false, detail: evil.to_owned() });
        view.rules = Some(RulesView {
            location: evil.to_owned(),
            hash: evil.to_owned(),
            loaded_at: AT,
            error: Some(evil.to_owned()),
            warnings: 1,
            rows: vec![RuleRow { id: evil.to_owned(), severity: Severity::Low, mode: "alert", matches: 1 }],
        });
        let page = render(&view).into_string();
        assert_eq!(page.matches("<script>").count(), 1, "{page}");
        assert_eq!(page.matches("alert(1)").count(), page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count());
        assert!(!page.contains('\u{202e}'));
    }

    #[test]
    fn the_policy_allows_what_the_page_brings_and_nothing_else() {
        let page = render(&view()).into_string();
        for (tag, text) in [("style", STYLE), ("script", SCRIPT)] {
            assert_eq!(page.matches(&format!("<{tag}>{text}</{tag}>")).count(), 1);
            assert!(!text.contains("</"), "{tag} would end early");
            let hash = STANDARD.encode(Sha256::digest(text));
            assert!(POLICY.contains(&format!("{tag}-src 'sha256-{hash}';")));
        }
        for outside in ["http:", "https:", " style=", " onclick", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} in the page");
        }
    }

    fn after(seconds: u64) -> Sample {
        Sample { at: Duration::from_secs(seconds), ..Sample::default() }
    }

    #[test]
    fn rates_are_of_intervals_and_gauges_of_this_moment() {
        let sample = |seconds, records, waiting| Sample { records, waiting, ..after(seconds) };
        let samples = [sample(0, 0, 9), sample(30, 300, 4), sample(60, 900, 0)];
        let page = charts(&samples, sample(61, 905, 2)).into_string();
        // 600 in the last half minute; one second later nothing can be said of the next one.
        assert!(page.contains("Records: now 20 a second, at most 20 in the last hour"), "{page}");
        assert!(page.contains("905 in all"), "{page}");
        assert!(page.contains("Queue depth: now 2 messages, at most 9 in the last hour"), "{page}");
        let page = charts(&samples, sample(70, 900, 0)).into_string();
        assert!(page.contains("Records: now 0 a second, at most 20 in the last hour"), "{page}");
        let none = charts(&[], Sample::default()).into_string();
        assert!(none.contains("Records: now 0 a second, at most 0 in the last hour"), "{none}");
    }

    #[test]
    fn lag_is_that_of_the_events_of_an_interval() {
        let sample = |seconds, sum, count| Sample { lag: (sum, count), ..after(seconds) };
        let page = charts(&[sample(0, 0.0, 0), sample(30, 100.0, 2)], sample(60, 160.0, 6)).into_string();
        assert!(page.contains("Lag, event to detection: now 15 seconds, at most 50 in the last hour"), "{page}");
        let page = charts(&[sample(0, 0.0, 0)], sample(60, 14_400.0, 4)).into_string();
        assert!(page.contains("Lag, event to detection: now 60 minutes, at most 60 in the last hour"), "{page}");
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((grouped(999), grouped(0)), ("999".to_owned(), "0".to_owned()));
        assert_eq!(
            (figure(0.0), figure(12.34), figure(1234.5)),
            ("0".to_owned(), "12.3".to_owned(), "1234".to_owned())
        );
    }

    #[test]
    fn rules_with_many_matches_come_first_and_not_all_are_shown() {
        let mut view = view();
        let row = |number: usize| RuleRow {
            id: format!("rule-{number:03}"),
            severity: Severity::Low,
            mode: "alert",
            matches: number as u64,
        };
        let (location, hash) = ("rules.json".to_owned(), "0123456789abcdef".to_owned());
        let rows = (0..150).map(row).collect();
        view.rules = Some(RulesView { location, hash, loaded_at: AT, error: None, warnings: 0, rows });
        let page = render(&view).into_string();
        assert!(page.find("rule-149").unwrap() < page.find("rule-148").unwrap());
        assert!(page.contains("50 more in") && !page.contains("rule-049"), "{page}");
        assert!(page.contains("hash <code>0123456789ab…</code>"), "{page}");
    }
}
