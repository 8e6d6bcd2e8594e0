//! Who may publish an alert for an event.
//!
//! An item remembers which rules matched (`Rules`), which of them are settled (`SettledRules`) and the last claim
//! (`Claim`). A claim whose rules are all settled is spent and means nothing any more, so that marking is purely
//! additive and never has to remove one. A rule that is only recorded (mode `shadow`) is settled as it is stored, and
//! never claimed. The rules below decide; a store makes the decision atomic:
//!
//! 1. No item: store it, with a claim on all its rules that alert; if none does, without a claim.
//! 2. The claim bears the caller's token: it is the caller's, an answer was lost.
//! 3. A live claim of somebody else: wait, or take over exactly its alert once its token stood still for its length.
//!    That alert may tell a rule which is only recorded by now.
//! 4. Nothing unsettled that alerts: nothing to publish.
//! 5. Otherwise: claim what is unsettled and alerts.
//!
//! Whatever is written settles the caller's rules that are only recorded, in the same step.
//!
//! A rule with a group is not alerted with the event: it is counted in a tracker ([`crate::tracker`]), in the same step
//! as it is recorded, and `Groups` says in which. It is settled then if that was quiet; else the steps of its tracker are
//! told before it is settled. Where an item says that a rule was counted, that is what holds, whatever another copy of
//! the record or another rule set would say: an event counts once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::alert::{StoredItem, alert_id};
use crate::rules::Severity;
use crate::tracker::{Count, CountKind, TrackerId, TrackerState};

/// A random name of one attempt at a claim, replaced at each renewal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimToken(pub String);

/// The exact alert that a claim's holder will publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedAlert {
    /// See [`alert_id`].
    pub alert_id: String,
    pub rules: BTreeSet<String>,
    pub severity: Severity,
}

/// The right to publish one alert, until its token stood still for `length` before another's eyes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub token: ClaimToken,
    #[serde(rename = "length_ms", with = "millis")]
    pub length: Duration,
    #[serde(flatten)]
    pub alert: ClaimedAlert,
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// What a stored item says of its alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemState {
    pub rules: BTreeSet<String>,
    pub settled: BTreeSet<String>,
    pub claim: Option<Claim>,
    /// The rules that were counted, and where.
    pub groups: BTreeMap<String, TrackerId>,
}

/// The answer of [`crate::ports::AlertStore::record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The claim is the caller's: publish exactly this alert, then mark it.
    Claimed(Claim),
    /// Every rule is settled: an earlier alert covers the event, or it is only recorded.
    Settled,
    /// Nothing is left to alert but steps of these rules' trackers, perhaps: look at them, then settle the rules.
    Counted(BTreeMap<String, TrackerId>),
    /// Somebody else is at it.
    Held(Claim),
}

/// An alert that SNS accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub alert: ClaimedAlert,
    pub alerted_at: OffsetDateTime,
    pub sns_message_id: String,
}

/// What to do about an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer with this; nothing to write.
    Answer(Recorded),
    /// Write this, if the item is still as it was seen: not there, or with the same `SettledRules`, `Claim` and `Groups`;
    /// and if each tracker in which it is counted still is one for which that count is right.
    Write(Change),
}

/// What to write to an item and the trackers of its rules, all at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Added to `Rules`.
    pub rules: BTreeSet<String>,
    /// Added to `SettledRules`: rules that are only recorded, and those that are counted without reaching a step.
    pub settled: BTreeSet<String>,
    /// The new `Claim`; `None` leaves what is there.
    pub claim: Option<Claim>,
    /// Where the event is counted; added to `Groups`.
    pub counts: Vec<Count>,
    /// Rules that are counted, before or now, and not settled.
    pub open: BTreeMap<String, TrackerId>,
    /// Rules whose trackers are full: the event is not counted there, and settled.
    pub excess: BTreeSet<String>,
}

impl Change {
    /// The answer once this is written.
    #[must_use]
    pub fn answer(self) -> Recorded {
        match self.claim {
            Some(claim) => Recorded::Claimed(claim),
            None if self.open.is_empty() => Recorded::Settled,
            None => Recorded::Counted(self.open),
        }
    }
}

/// What the caller of `record` brings.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub item: &'a StoredItem,
    pub token: &'a ClaimToken,
    pub length: Duration,
    pub expired: Option<&'a ClaimToken>,
    /// The trackers of the item's rules, as far as they are there.
    pub trackers: &'a BTreeMap<TrackerId, TrackerState>,
}

impl Attempt<'_> {
    /// A claim on an alert that tells `rules`, as grave as the gravest of them.
    fn claim_on(&self, rules: BTreeSet<String>) -> Claim {
        // Of a rule that only an earlier rule set knew, nothing is known here.
        let of = |rule| self.item.rules.get(rule).copied().unwrap_or(self.item.severity());
        let severity = rules.iter().map(of).max().unwrap_or(self.item.severity());
        let alert = ClaimedAlert { alert_id: alert_id(&self.item.key.event_id, &rules), rules, severity };
        Claim { token: self.token.clone(), length: self.length, alert }
    }

    /// Counts these rules of the item that have groups.
    fn count(&self, counted: impl Fn(&str) -> bool) -> Vec<Count> {
        let wanted = self.item.groups.iter().filter(|(rule, _)| counted(rule));
        wanted.map(|(_, member)| Count::decide_among(self.trackers, member)).collect()
    }

    fn change(&self, recorded: BTreeSet<String>, claim: Option<Claim>, counts: Vec<Count>) -> Change {
        let (mut settled, mut open) = (recorded, BTreeMap::new());
        let (excess, counts): (Vec<_>, Vec<_>) = counts.into_iter().partition(|count| count.kind == CountKind::Excess);
        let excess: BTreeSet<String> = excess.into_iter().map(|count| count.membership.rule).collect();
        settled.extend(excess.iter().cloned());
        for Count { membership, kind, .. } in &counts {
            if *kind == CountKind::Quiet {
                settled.insert(membership.rule.clone());
            } else {
                open.insert(membership.rule.clone(), membership.tracker.clone());
            }
        }
        Change { rules: self.item.rules.keys().cloned().collect(), settled, claim, counts, open, excess }
    }
}

/// Decides about an item, `None` where there is none yet; see the head of this module.
#[must_use]
pub fn decide(item: Option<&ItemState>, attempt: Attempt<'_>) -> Decision {
    let Attempt { item: brought, .. } = attempt;
    let Some(item) = item else {
        let mut alerting = brought.alerting();
        alerting.retain(|rule| !brought.groups.contains_key(rule));
        let claim = Some(alerting).filter(|rules| !rules.is_empty()).map(|rules| attempt.claim_on(rules));
        return Decision::Write(attempt.change(brought.recorded_only.clone(), claim, attempt.count(|_| true)));
    };
    let recorded: BTreeSet<String> = brought.recorded_only.difference(&item.settled).cloned().collect();
    // Each rule of a claim is in `Rules`, so that an item with a live one always has something unsettled.
    let live = item.claim.as_ref().filter(|claim| !claim.alert.rules.is_subset(&item.settled));
    if let Some(claim) = live {
        if claim.token == *attempt.token {
            return Decision::Answer(Recorded::Claimed(claim.clone()));
        }
        if attempt.expired != Some(&claim.token) {
            return Decision::Answer(Recorded::Held(claim.clone()));
        }
        let taken_over = Claim { token: attempt.token.clone(), length: attempt.length, alert: claim.alert.clone() };
        // What its alert tells is settled by that: settled before, the claim would be spent and its alert untold.
        let beyond = recorded.difference(&claim.alert.rules).cloned().collect();
        // What is to be counted is counted once that alert is told, which may settle it.
        return Decision::Write(attempt.change(beyond, Some(taken_over), Vec::new()));
    }
    let is_open = |rule: &str| !item.settled.contains(rule) && !brought.recorded_only.contains(rule);
    let counts = attempt.count(|rule| is_open(rule) && !item.groups.contains_key(rule));
    let is_counted = |rule: &str| item.groups.contains_key(rule) || brought.groups.contains_key(rule);
    let matched = item.rules.iter().chain(brought.rules.keys());
    let untold: BTreeSet<String> = matched.filter(|rule| is_open(rule) && !is_counted(rule)).cloned().collect();
    let claim = Some(untold).filter(|rules| !rules.is_empty()).map(|rules| attempt.claim_on(rules));
    let mut open: BTreeMap<_, _> = item.groups.clone();
    open.retain(|rule, _| is_open(rule));
    if claim.is_some() || !recorded.is_empty() || !counts.is_empty() {
        let mut change = attempt.change(recorded, claim, counts);
        change.open.extend(open);
        return Decision::Write(change);
    }
    Decision::Answer(if open.is_empty() { Recorded::Settled } else { Recorded::Counted(open) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::alert::{EventKey, Facts, Source, StoredEvent};
    use crate::rules::Group;
    use crate::tracker::{CrossAttempt, CrossDecision, Membership, decide_crossing, membership, quiet_after};

    const LENGTH: Duration = Duration::from_secs(30);

    fn set(rules: &[&str]) -> BTreeSet<String> {
        rules.iter().map(ToString::to_string).collect()
    }

    fn event(rules: &[(&str, Severity)], recorded_only: &[&str]) -> StoredItem {
        StoredItem {
            key: EventKey { event_id: "e-1".to_owned(), timestamp: "2024-05-01T12:00:00Z".to_owned() },
            facts: Facts::default(),
            rules: rules.iter().map(|(id, severity)| ((*id).to_owned(), *severity)).collect(),
            recorded_only: set(recorded_only),
            groups: BTreeMap::new(),
            event: StoredEvent::Omitted,
            source: Source::default(),
            rule_set_hash: String::new(),
            detected_at: datetime!(2024-05-01 12:05 UTC),
            expires_at: datetime!(2024-06-01 12:05 UTC),
        }
    }

    fn plain(rules: &[&str], recorded_only: &[&str]) -> StoredItem {
        let rules: Vec<_> = rules.iter().map(|id| (*id, Severity::High)).collect();
        event(&rules, recorded_only)
    }

    fn claim(token: &str, rules: &[&str]) -> Claim {
        let rules = set(rules);
        let alert = ClaimedAlert { alert_id: alert_id("e-1", &rules), rules, severity: Severity::High };
        Claim { token: ClaimToken(token.to_owned()), length: LENGTH, alert }
    }

    fn state(rules: &[&str], settled: &[&str], claim: Option<Claim>) -> ItemState {
        ItemState { rules: set(rules), settled: set(settled), claim, groups: BTreeMap::new() }
    }

    fn decided(state: Option<&ItemState>, item: &StoredItem, expired: Option<&str>) -> Decision {
        let (token, expired) = (ClaimToken("mine".to_owned()), expired.map(|text| ClaimToken(text.to_owned())));
        decide(
            state,
            Attempt { item, token: &token, length: LENGTH, expired: expired.as_ref(), trackers: &BTreeMap::new() },
        )
    }

    fn written(state: Option<&ItemState>, item: &StoredItem, expired: Option<&str>) -> Change {
        match decided(state, item, expired) {
            Decision::Write(change) => change,
            Decision::Answer(answer) => panic!("nothing to write: {answer:?}"),
        }
    }

    #[test]
    fn a_new_item_claims_the_rules_that_alert_and_settles_the_others() {
        let both = written(None, &plain(&["a", "s"], &["s"]), None);
        assert_eq!((&both.rules, &both.settled), (&set(&["a", "s"]), &set(&["s"])));
        assert_eq!(both.claim, Some(claim("mine", &["a"])));

        let only = written(None, &plain(&["s"], &["s"]), None);
        assert_eq!(only, Change { rules: set(&["s"]), settled: set(&["s"]), claim: None, ..Change::default() });
        assert_eq!(only.answer(), Recorded::Settled);
    }

    #[test]
    fn an_alert_is_as_grave_as_the_gravest_rule_it_tells() {
        let item = event(&[("a", Severity::Low), ("b", Severity::High), ("s", Severity::Critical)], &["s"]);
        let severity = |state: Option<&ItemState>| written(state, &item, None).claim.unwrap().alert.severity;
        assert_eq!(severity(None), Severity::High);
        assert_eq!(severity(Some(&state(&["b"], &["b"], None))), Severity::Low, "b was told before");
        assert_eq!(item.severity(), Severity::Critical);
        // Only an earlier rule set knew of x.
        let unknown = state(&["x"], &["b"], None);
        assert_eq!(severity(Some(&unknown)), Severity::Critical, "rather too grave than not grave enough");
    }

    #[test]
    fn recorded_rules_are_added_to_a_settled_item_without_a_claim() {
        let spent = Some(claim("theirs", &["a"]));
        let item = plain(&["a", "s"], &["s"]);
        let change = written(Some(&state(&["a"], &["a"], spent.clone())), &item, None);
        assert_eq!(change, Change { rules: set(&["a", "s"]), settled: set(&["s"]), claim: None, ..Change::default() });
        let after = state(&["a", "s"], &["a", "s"], spent);
        assert_eq!(decided(Some(&after), &item, None), Decision::Answer(Recorded::Settled), "nothing is written twice");
    }

    #[test]
    fn recorded_rules_are_added_together_with_a_claim() {
        let change = written(Some(&state(&["a"], &["a"], None)), &plain(&["b", "s"], &["s"]), None);
        assert_eq!((change.settled, change.claim), (set(&["s"]), Some(claim("mine", &["b"]))));
    }

    #[test]
    fn a_crashed_rule_that_is_only_recorded_by_now_is_settled_without_an_alert() {
        let change = written(Some(&state(&["a", "s"], &[], None)), &plain(&["s"], &["s"]), None);
        assert_eq!((change.settled, change.claim), (set(&["s"]), Some(claim("mine", &["a"]))));
        let change = written(Some(&state(&["s"], &[], None)), &plain(&["s"], &["s"]), None);
        assert_eq!((change.settled, change.claim), (set(&["s"]), None));
    }

    #[test]
    fn a_live_claim_is_respected_although_it_tells_a_rule_that_is_only_recorded_by_now() {
        let theirs = claim("theirs", &["s"]);
        let (held, item) = (state(&["s"], &[], Some(theirs.clone())), plain(&["s", "t"], &["s", "t"]));
        assert_eq!(decided(Some(&held), &item, None), Decision::Answer(Recorded::Held(theirs.clone())));
        let taken = written(Some(&held), &item, Some("theirs"));
        assert_eq!(taken.claim, Some(Claim { token: ClaimToken("mine".to_owned()), ..theirs }));
        assert_eq!((taken.rules, taken.settled), (set(&["s", "t"]), set(&["t"])), "s is settled by its alert");
    }

    #[test]
    fn a_rule_that_was_only_recorded_is_not_alerted_once_it_alerts() {
        let recorded = state(&["s"], &["s"], None);
        assert_eq!(decided(Some(&recorded), &plain(&["s"], &[]), None), Decision::Answer(Recorded::Settled));
    }

    /// A rule's way in one rule set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Way {
        Alert,
        Shadow,
        /// In one of two groups.
        Group(u8),
    }

    fn member(rule: &str, group: u8) -> Membership {
        let group = Group { by: vec!["a".to_owned()], window: format!("{group}h") };
        membership(rule, &group, b"{}", datetime!(2024-05-01 12:00 UTC), Some("StopLogging"), None)
    }

    fn with_groups(item: StoredItem, rules: &[&str]) -> StoredItem {
        StoredItem { groups: rules.iter().map(|rule| ((*rule).to_owned(), member(rule, 1))).collect(), ..item }
    }

    /// Up to four rules, and their ways.
    fn any_item() -> impl Strategy<Value = StoredItem> {
        let rule = prop::sample::select(vec!["a", "b", "c", "d"]);
        let way = prop::sample::select(vec![Way::Alert, Way::Shadow, Way::Group(1), Way::Group(1), Way::Group(2)]);
        prop::collection::btree_map(rule, way, 1..=4).prop_map(|ways: BTreeMap<_, _>| {
            let rules: Vec<_> = ways.keys().copied().collect();
            let shadow: Vec<_> = ways.iter().filter(|(_, way)| **way == Way::Shadow).map(|(id, _)| *id).collect();
            let grouped = ways.iter().filter_map(|(id, way)| match way {
                Way::Group(group) => Some(((*id).to_owned(), member(id, *group))),
                _ => None,
            });
            StoredItem { groups: grouped.collect(), ..plain(&rules, &shadow) }
        })
    }

    /// A table with one event, and whoever works on it.
    #[derive(Default)]
    struct Table {
        item: Option<ItemState>,
        trackers: BTreeMap<TrackerId, TrackerState>,
        /// The rules of each alert of the event.
        told: Vec<BTreeSet<String>>,
        steps: Vec<(TrackerId, u64)>,
    }

    impl Table {
        fn record(&mut self, event: &StoredItem, token: &ClaimToken, expired: Option<&ClaimToken>) -> Recorded {
            let attempt = Attempt { item: event, token, length: LENGTH, expired, trackers: &self.trackers };
            match decide(self.item.as_ref(), attempt) {
                Decision::Answer(answer) => answer,
                Decision::Write(change) => {
                    let item = self.item.get_or_insert_default();
                    item.rules.extend(change.rules.clone());
                    item.settled.extend(change.settled.clone());
                    item.claim = change.claim.clone().or(item.claim.take());
                    for count in &change.counts {
                        let member = &count.membership;
                        item.groups.insert(member.rule.clone(), member.tracker.clone());
                        let before = self.trackers.remove(&member.tracker);
                        self.trackers.insert(member.tracker.clone(), count.applied(before));
                    }
                    change.answer()
                }
            }
        }

        /// Tells what is due, or dies with a claim on it; gives whether it lives.
        fn cross(&mut self, tracker: &TrackerId, token: &ClaimToken, dies: bool) -> bool {
            let state = self.trackers.get_mut(tracker).unwrap();
            // Whoever held a claim before is dead.
            let expired = state.claim.as_ref().map(|claim| claim.token.clone());
            let (rule, severity, expired) = (&state.rule.clone(), Severity::High, expired.as_ref());
            let attempt = CrossAttempt { tracker, rule, severity, token, length: LENGTH, expired };
            match decide_crossing(Some(state), attempt) {
                CrossDecision::Clear => true,
                CrossDecision::Write(claim, _) => {
                    state.claim = Some(claim);
                    if !dies {
                        self.steps.push((tracker.clone(), state.step()));
                        state.quiet = quiet_after(state.step());
                    }
                    !dies
                }
                other => panic!("nobody else lives: {other:?}"),
            }
        }
    }

    proptest! {
        /// One process after another records the event under rules of its own; each may die with its claim, or publish.
        #[test]
        fn whatever_came_before_an_event_ends_settled(attempts in prop::collection::vec((any_item(), any::<bool>()), 1..8)) {
            let (mut table, mut alertable) = (Table::default(), BTreeSet::new());
            for (number, (event, dies)) in attempts.into_iter().enumerate() {
                alertable.extend(event.alerting());
                // Whoever held a claim before is dead.
                let claim = table.item.as_ref().and_then(|item| item.claim.as_ref());
                let expired = claim.map(|claim| claim.token.clone());
                for round in 0..6 {
                    let token = ClaimToken(format!("{number}.{round}"));
                    match table.record(&event, &token, expired.as_ref()) {
                        Recorded::Claimed(_) if dies => break,
                        Recorded::Claimed(claim) => {
                            table.item.as_mut().unwrap().settled.extend(claim.alert.rules.clone());
                            table.told.push(claim.alert.rules);
                        }
                        Recorded::Counted(open) => {
                            prop_assert!(!open.is_empty());
                            if !open.values().all(|tracker| table.cross(tracker, &token, dies)) {
                                break;
                            }
                            table.item.as_mut().unwrap().settled.extend(open.into_keys());
                        }
                        Recorded::Settled => {
                            let now = table.item.as_ref().unwrap();
                            prop_assert!(now.rules.is_subset(&now.settled), "{now:?}");
                            prop_assert!(event.rules.keys().all(|rule| now.rules.contains(rule)), "{now:?}");
                            break;
                        }
                        Recorded::Held(claim) => prop_assert!(false, "nobody else lives, and {claim:?} is in the way"),
                    }
                    prop_assert!(round < 5, "it never ends");
                }
            }
            let count: usize = table.told.iter().map(BTreeSet::len).sum();
            let told: BTreeSet<String> = table.told.into_iter().flatten().collect();
            prop_assert_eq!(told.len(), count, "a rule is told once");
            prop_assert!(told.is_subset(&alertable), "what was only ever recorded is never told");
            let groups = table.item.unwrap().groups;
            prop_assert!(groups.keys().all(|rule| !told.contains(rule)), "alerted by itself and with its group");
            let counted: BTreeMap<_, _> = table.trackers.iter().map(|(id, state)| (id.clone(), state.count)).collect();
            prop_assert_eq!(counted, groups.into_values().map(|tracker| (tracker, 1)).collect(), "an event counts once");
            let steps: BTreeSet<_> = table.steps.iter().collect();
            prop_assert_eq!(steps.len(), table.steps.len(), "a step is told once");
        }
    }

    #[test]
    fn a_rule_with_a_group_is_counted_as_its_event_is_stored() {
        let item = with_groups(plain(&["a", "g", "s"], &["s"]), &["g"]);
        let change = written(None, &item, None);
        assert_eq!((&change.settled, &change.claim), (&set(&["s"]), &Some(claim("mine", &["a"]))));
        assert_eq!((change.counts.len(), change.counts[0].kind), (1, CountKind::Opening));
        let open = BTreeMap::from([("g".to_owned(), member("g", 1).tracker)]);
        assert_eq!(change.open, open);

        // Counted, and not counted again.
        let counted = ItemState { groups: open.clone(), ..state(&["a", "g", "s"], &["a", "s"], None) };
        assert_eq!(decided(Some(&counted), &item, None), Decision::Answer(Recorded::Counted(open)));
        let covered = ItemState { settled: set(&["a", "g", "s"]), ..counted };
        assert_eq!(decided(Some(&covered), &item, None), Decision::Answer(Recorded::Settled));
    }

    #[test]
    fn a_rule_that_reaches_no_step_is_settled_as_it_is_counted() {
        let item = with_groups(plain(&["g"], &[]), &["g"]);
        let tracker = TrackerState { count: 8, quiet: 9, ..TrackerState::default() };
        for (count, quiet) in [(8, true), (9, false), (40, false)] {
            let tracker = TrackerState { count, ..tracker.clone() };
            let trackers = BTreeMap::from([(member("g", 1).tracker, tracker)]);
            let token = ClaimToken("mine".to_owned());
            let attempt = Attempt { item: &item, token: &token, length: LENGTH, expired: None, trackers: &trackers };
            let Decision::Write(change) = decide(None, attempt) else { panic!("it is not there yet") };
            assert_eq!(change.settled.contains("g"), quiet, "{count}");
            assert_eq!(change.answer() == Recorded::Settled, quiet, "{count}");
        }
    }

    #[test]
    fn an_event_stays_in_the_group_that_counted_it() {
        let counted = ItemState {
            groups: BTreeMap::from([("g".to_owned(), member("g", 2).tracker)]),
            ..state(&["g"], &[], None)
        };
        let open = Decision::Answer(Recorded::Counted(counted.groups.clone()));
        // Whatever another copy or rule set says: another window, no group, or not even the rule.
        assert_eq!(decided(Some(&counted), &with_groups(plain(&["g"], &[]), &["g"]), None), open);
        assert_eq!(decided(Some(&counted), &plain(&["g"], &[]), None), open);
        let change = written(Some(&counted), &plain(&["a"], &[]), None);
        assert_eq!((change.claim, change.open), (Some(claim("mine", &["a"])), counted.groups.clone()));
        // On trial by now: settled without an alert.
        let change = written(Some(&counted), &plain(&["g"], &["g"]), None);
        assert_eq!((change.settled, change.open.len()), (set(&["g"]), 0));
    }

    #[test]
    fn a_rule_that_was_claimed_before_it_had_a_group_is_not_counted() {
        let dead = state(&["g"], &[], Some(claim("dead", &["g"])));
        let item = with_groups(plain(&["g"], &[]), &["g"]);
        let taken = written(Some(&dead), &item, Some("dead"));
        assert_eq!((taken.counts.len(), taken.claim), (0, Some(claim("mine", &["g"]))));
        let told = state(&["g"], &["g"], Some(claim("mine", &["g"])));
        assert_eq!(decided(Some(&told), &item, None), Decision::Answer(Recorded::Settled));
    }
}
