//! Stored events, read back for people: by the index `ByDay` in the order of time, by id, or by a scan where one is
//! asked for. What a table is, its adapter knows (`src/aws/events.rs`).

mod document;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::alert::{DetectedEvent, EventKey, Facts, Outcome, Source, StoredEvent, alert_id, detected_event, shown};
use crate::claim::{Claim, ClaimedAlert};
use crate::cloudtrail::json;
use crate::rules::{Detection, RuleSet, Severity, wildcard_matches};
use crate::tracker::RESERVED_PREFIX;

pub use document::{Document, laid_out};
pub use read::{Detail, EventReader, Events, HELD, Order, Page, PageRequest, Question, ReadError};

/// The `Timestamp` of an event whose record has none.
pub const EPOCH: &str = "1970-01-01T00:00:00Z";

/// More than this is not unpacked of a compressed record; the daemon takes none that large.
const MAX_RECORD: u64 = 256 << 20;

/// An event as its item holds it; of one that was read by the index, only what that has.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub key: EventKey,
    pub severity: Option<Severity>,
    pub rules: BTreeSet<String>,
    pub settled: BTreeSet<String>,
    /// The ids of what counts it, by rule.
    pub groups: BTreeMap<String, String>,
    pub alert_ids: BTreeSet<String>,
    /// RFC 3339, as stored.
    pub alerted_at: Option<String>,
    pub sns_message_id: Option<String>,
    pub claim: Option<Claim>,
    pub event_name: Option<String>,
    pub event_source: Option<String>,
    pub account_id: Option<String>,
    pub region: Option<String>,
    pub actor: Option<String>,
    pub user_identity_type: Option<String>,
    pub source_ip: Option<String>,
    pub user_agent: Option<String>,
    pub error_code: Option<String>,
    /// `Omitted` where the record is not stored, and where it was not asked for.
    pub event: StoredEvent,
    pub source: Option<Source>,
    pub rule_set_hash: Option<String>,
    /// RFC 3339, as stored.
    pub detected_at: Option<String>,
    pub expires_at: Option<OffsetDateTime>,
}

/// What became of the alert for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Rules are left that nobody has alerted: an alert is on its way, or its process died and the message comes again.
    Open,
    /// Told by an alert of its own, or in the announcement of those that a limit withheld.
    Alerted,
    /// Counted by its rule's group or correlation, which alerts for many.
    Grouped,
    /// Settled without an alert: by rules in mode `shadow`.
    Recorded,
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Alerted => "alerted",
            Self::Grouped => "grouped",
            Self::Recorded => "recorded",
        }
    }
}

/// The record of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// JSON on one line.
    Json(String),
    /// It was too large for an item.
    LeftOut,
    /// What is stored cannot be read.
    Damaged,
}

impl Stored {
    #[must_use]
    pub fn new(key: EventKey) -> Self {
        Self {
            key,
            severity: None,
            rules: BTreeSet::new(),
            settled: BTreeSet::new(),
            groups: BTreeMap::new(),
            alert_ids: BTreeSet::new(),
            alerted_at: None,
            sns_message_id: None,
            claim: None,
            event_name: None,
            event_source: None,
            account_id: None,
            region: None,
            actor: None,
            user_identity_type: None,
            source_ip: None,
            user_agent: None,
            error_code: None,
            event: StoredEvent::Omitted,
            source: None,
            rule_set_hash: None,
            detected_at: None,
            expires_at: None,
        }
    }

    /// Whether the item is an event at all: trackers stand in the same table.
    #[must_use]
    pub fn is_event(&self) -> bool {
        !self.key.event_id.starts_with(RESERVED_PREFIX)
    }

    /// When it happened; `None` where the record has no time.
    #[must_use]
    pub fn event_time(&self) -> Option<&str> {
        (self.key.timestamp != EPOCH).then_some(self.key.timestamp.as_str())
    }

    /// When it happened, or the epoch; `None` where the sort key is no time, which none of ours is.
    #[must_use]
    pub fn time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(&self.key.timestamp, &Rfc3339).ok()
    }

    #[must_use]
    pub fn state(&self) -> State {
        if !self.rules.is_subset(&self.settled) {
            State::Open
        } else if !self.alert_ids.is_empty() {
            State::Alerted
        } else if !self.groups.is_empty() {
            State::Grouped
        } else {
            State::Recorded
        }
    }

    /// The record, if it was asked for.
    #[must_use]
    pub fn record(&self) -> Record {
        match &self.event {
            StoredEvent::Omitted => Record::LeftOut,
            StoredEvent::Json(text) => Record::Json(json::to_valid(text.as_bytes())),
            StoredEvent::Gzip(bytes) => {
                let mut text = Vec::new();
                match MultiGzDecoder::new(bytes.as_slice()).take(MAX_RECORD).read_to_end(&mut text) {
                    Ok(_) if (text.len() as u64) < MAX_RECORD => Record::Json(json::to_valid(&text)),
                    _ => Record::Damaged,
                }
            }
        }
    }

    /// The alert that was told last, or else the one that tells all its rules, as a mail's text.
    #[must_use]
    pub fn alert_text(&self, rules: &RuleSet) -> String {
        crate::alert::text(&self.detected(), &self.alert(), rules)
    }

    fn alert(&self) -> ClaimedAlert {
        let told = self.claim.as_ref().map(|claim| &claim.alert);
        let mut alert =
            told.filter(|alert| self.alert_ids.contains(&alert.alert_id)).cloned().unwrap_or_else(|| ClaimedAlert {
                alert_id: match (self.alert_ids.first(), self.alert_ids.len()) {
                    (Some(only), 1) => only.clone(),
                    _ => alert_id(&self.key.event_id, &self.rules),
                },
                rules: self.rules.clone(),
                severity: self.severity.unwrap_or(Severity::Low),
            });
        // One of ours is made of digits; the table may hold anything.
        alert.alert_id = shown(&alert.alert_id, 64);
        alert
    }

    /// The event as it was detected: from its record, or from its attributes where there is none.
    fn detected(&self) -> DetectedEvent {
        let source = self.source.clone().unwrap_or_default();
        let detected_at = self.detected_at.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let detected_at = detected_at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let hash = self.rule_set_hash.as_deref().unwrap_or_default();
        let known = match self.record() {
            Record::Json(text) => {
                let detection = Detection { index: source.index, raw: Bytes::from(text), rules: Vec::new() };
                Some(detected_event(&detection, source.clone(), detected_at, hash))
            }
            Record::LeftOut | Record::Damaged => None,
        };
        known.unwrap_or_else(|| DetectedEvent {
            key: self.key.clone(),
            facts: self.facts(),
            rules: Vec::new(),
            groups: BTreeMap::new(),
            record: String::new(),
            source,
            detected_at,
            rule_set_hash: hash.to_owned(),
        })
    }

    /// What the attributes say. An outcome is told only by an error's code here.
    fn facts(&self) -> Facts {
        Facts {
            event_name: self.event_name.clone(),
            event_source: self.event_source.clone(),
            region: self.region.clone(),
            account_id: self.account_id.clone(),
            actor: self.actor.clone(),
            user_identity_type: self.user_identity_type.clone(),
            source_ip: self.source_ip.clone(),
            user_agent: self.user_agent.clone(),
            error_code: self.error_code.clone(),
            error_message: None,
            event_time: self.event_time().and_then(|_| self.time()),
            outcome: Outcome::of_code(self.error_code.as_deref()),
        }
    }
}

/// From one moment up to, and without, another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    from: OffsetDateTime,
    to: OffsetDateTime,
}

impl Range {
    /// Every moment, and items whose sort key is none.
    pub const ALL: Self = Self { from: PrimitiveDateTime::MIN.assume_utc(), to: PrimitiveDateTime::MAX.assume_utc() };

    #[must_use]
    pub fn new(from: OffsetDateTime, to: OffsetDateTime) -> Self {
        let utc = |time: OffsetDateTime, beyond| time.checked_to_offset(UtcOffset::UTC).unwrap_or(beyond);
        Self { from: utc(from, Self::ALL.from), to: utc(to, Self::ALL.to) }
    }

    #[must_use]
    pub fn from(&self) -> OffsetDateTime {
        self.from
    }

    #[must_use]
    pub fn to(&self) -> OffsetDateTime {
        self.to
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// How many days it touches.
    #[must_use]
    pub fn day_count(&self) -> u64 {
        let last = self.to.saturating_sub(time::Duration::NANOSECOND).date();
        let days = i64::from(last.to_julian_day()) - i64::from(self.from.date().to_julian_day());
        u64::try_from(days.saturating_add(1)).unwrap_or(0)
    }

    /// The days that it touches, in UTC and in order.
    fn days(&self) -> Vec<Date> {
        let last = self.to.saturating_sub(time::Duration::NANOSECOND).date();
        std::iter::successors(Some(self.from.date()), |day| day.next_day()).take_while(|day| *day <= last).collect()
    }

    /// Texts between which, themselves included, every `Timestamp` of the range sorts; and some others. Fractions make
    /// that so: `12:00:00.5Z` sorts before `12:00:00Z`.
    #[must_use]
    pub fn bounds(&self) -> (String, String) {
        let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
        // A date and a time of day always have this form.
        let text = |time: OffsetDateTime| time.format(&seconds).unwrap_or_default();
        (text(self.from), format!("{}Z", text(self.to)))
    }

    #[must_use]
    pub fn holds(&self, event: &Stored) -> bool {
        *self == Self::ALL || event.time().is_some_and(|time| self.from <= time && time < self.to)
    }
}

/// Which events are asked for; an empty list asks for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This or a higher one.
    pub severity: Option<Severity>,
    /// Ids, one of which matched.
    pub rules: Vec<String>,
    pub accounts: Vec<String>,
    pub regions: Vec<String>,
    /// Exact texts, or patterns with `*` and `?`.
    pub actors: Vec<String>,
    /// Exact texts, or patterns with `*` and `?`.
    pub names: Vec<String>,
}

impl Filter {
    /// The severities that are asked for.
    #[must_use]
    pub fn severities(&self) -> Vec<Severity> {
        let wanted = self.severity.unwrap_or(Severity::Low);
        Severity::ALL.into_iter().filter(|severity| *severity >= wanted).collect()
    }

    /// Whether a whole item is asked for.
    #[must_use]
    pub fn admits(&self, event: &Stored) -> bool {
        self.judge(event, false)
    }

    /// Whether an item may be asked for of which the index shows a part: what it does not show may be anything.
    #[must_use]
    pub fn may_admit(&self, part: &Stored) -> bool {
        self.judge(part, true)
    }

    fn judge(&self, event: &Stored, absent: bool) -> bool {
        let text = |wanted: &[String], found: &Option<String>| {
            wanted.is_empty()
                || found.as_ref().map_or(absent, |found| wanted.iter().any(|wanted| wildcard_matches(wanted, found)))
        };
        let exact = |wanted: &[String], found: &Option<String>| {
            wanted.is_empty() || found.as_ref().map_or(absent, |found| wanted.contains(found))
        };
        let rules = self.rules.is_empty()
            || (event.rules.is_empty() && absent)
            || self.rules.iter().any(|rule| event.rules.contains(rule));
        let severity = self.severity.is_none_or(|wanted| event.severity.map_or(absent, |found| found >= wanted));
        event.is_event()
            && rules
            && severity
            && exact(&self.accounts, &event.account_id)
            && exact(&self.regions, &event.region)
            && text(&self.actors, &event.actor)
            && text(&self.names, &event.event_name)
    }
}

/// Shared by the tests of this module.
#[cfg(test)]
fn stored(event_id: &str, timestamp: &str) -> Stored {
    let key = EventKey { event_id: event_id.to_owned(), timestamp: timestamp.to_owned() };
    Stored { rules: BTreeSet::from(["trail-stopped".to_owned()]), severity: Some(Severity::High), ..Stored::new(key) }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_range_touches_its_days() {
        let days = |from, to| {
            let range = Range::new(from, to);
            assert_eq!(range.day_count(), range.days().len() as u64);
            range.days().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(days(datetime!(2026-05-01 0:00 UTC), datetime!(2026-05-02 0:00 UTC)), ["2026-05-01"]);
        assert_eq!(
            days(datetime!(2026-04-30 23:59:59 UTC), datetime!(2026-05-02 0:00:00.1 UTC)),
            ["2026-04-30", "2026-05-01", "2026-05-02"]
        );
        // In UTC it is the day before.
        assert_eq!(days(datetime!(2026-05-01 1:00 +02:00), datetime!(2026-05-01 1:30 +02:00)), ["2026-04-30"]);
        assert_eq!(days(datetime!(2028-02-29 12:00 UTC), datetime!(2028-02-29 12:00:01 UTC)), ["2028-02-29"]);
        let all = Range::ALL;
        assert!(all.day_count() > 7_000_000 && !all.is_empty());
        assert!(Range::new(datetime!(2026-05-01 0:00 UTC), datetime!(2026-05-01 0:00 UTC)).is_empty());
        // What UTC cannot tell is the end of all times.
        assert_eq!(Range::new(datetime!(-9999-01-01 0:00 +02:00), datetime!(9999-12-31 23:59 -02:00)), Range::ALL);
    }

    #[test]
    fn bounds_enclose_fractions_of_a_second() {
        let (first, last) = Range::new(datetime!(2026-05-01 12:00:00.5 UTC), datetime!(2026-05-01 13:00 UTC)).bounds();
        assert_eq!((first.as_str(), last.as_str()), ("2026-05-01T12:00:00", "2026-05-01T13:00:00Z"));
        for inside in ["2026-05-01T12:00:00.5Z", "2026-05-01T12:00:01Z", "2026-05-01T12:59:59.999Z"] {
            assert!((first.as_str()..=last.as_str()).contains(&inside), "{inside}");
        }
    }

    #[test]
    fn the_state_of_an_alert_is_told_by_what_is_settled() {
        let of = |settled: &[&str], alerts: &[&str], grouped: bool| {
            let groups = grouped.then(|| ("trail-stopped".to_owned(), "0123@x".to_owned())).into_iter().collect();
            let event = stored("e", "2026-05-01T12:00:00Z");
            Stored { settled: set(settled), alert_ids: set(alerts), groups, ..event }.state()
        };
        assert_eq!(of(&[], &[], false), State::Open);
        assert_eq!(of(&["another"], &["a1"], true), State::Open);
        assert_eq!(of(&["trail-stopped"], &["a1"], true), State::Alerted);
        assert_eq!(of(&["trail-stopped"], &[], true), State::Grouped);
        assert_eq!(of(&["trail-stopped"], &[], false), State::Recorded);
    }

    #[test]
    fn a_tracker_is_never_admitted() {
        let tracker = stored("trailhound#group#0123", "2026-05-01T12:00:00Z");
        assert!(!Filter::default().admits(&tracker) && !Filter::default().may_admit(&tracker));
    }

    #[test]
    fn what_a_part_does_not_show_may_be_anything() {
        let part = Stored::new(stored("e", "2026-05-01T12:00:00Z").key);
        let filter = Filter {
            severity: Some(Severity::High),
            rules: vec!["r".to_owned()],
            accounts: vec!["1".to_owned()],
            regions: vec!["eu-west-1".to_owned()],
            actors: vec!["root".to_owned()],
            names: vec!["Stop*".to_owned()],
        };
        assert!(filter.may_admit(&part) && !filter.admits(&part));
        let other = Stored { actor: Some("alice".to_owned()), ..part };
        assert!(!filter.may_admit(&other));
    }

    #[test]
    fn the_alert_is_the_one_that_was_told() {
        let told = ClaimedAlert { alert_id: "a1".to_owned(), rules: set(&["r"]), severity: Severity::Low };
        let token = crate::claim::ClaimToken("token".to_owned());
        let claim = Claim { token, length: std::time::Duration::from_secs(30), alert: told.clone() };
        let event = Stored { claim: Some(claim), rules: set(&["r", "shadow"]), ..stored("e", EPOCH) };
        assert_eq!(Stored { alert_ids: set(&["a0", "a1"]), ..event.clone() }.alert(), told);
        // Claimed, and never accepted.
        let untold = event.alert();
        assert_eq!(untold.rules, set(&["r", "shadow"]));
        assert_eq!(untold.alert_id, alert_id("e", &untold.rules));
        assert_eq!(Stored { alert_ids: set(&["a7"]), ..event }.alert().alert_id, "a7");
    }

    #[test]
    fn without_its_record_an_alert_is_told_by_its_attributes() {
        let event = Stored {
            event_name: Some("StopLogging".to_owned()),
            actor: Some("Admin/alice".to_owned()),
            error_code: Some("AccessDenied".to_owned()),
            ..stored("e", "2026-05-01T12:00:00Z")
        };
        let text = event.alert_text(&RuleSet::default());
        assert!(text.starts_with("HIGH: Admin/alice called StopLogging, and was denied.\n"), "{text}");
        for line in ["Who:        Admin/alice", "When:       2026-05-01T12:00:00Z, detected ", "Event id:   e\n"] {
            assert!(text.contains(&format!("\n{line}")), "no {line:?} in:\n{text}");
        }
    }

    #[test]
    fn a_record_is_on_one_line() {
        let json = StoredEvent::Json("{\n \"a\": [1,\r\n 2]}".to_owned());
        let event = Stored { event: json, ..stored("e", EPOCH) };
        assert_eq!(event.record(), Record::Json(r#"{"a":[1,2]}"#.to_owned()));
    }
}
