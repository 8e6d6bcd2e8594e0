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

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::alert::{StoredItem, alert_id};
use crate::rules::Severity;

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
}

/// The answer of [`crate::ports::AlertStore::record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The claim is the caller's: publish exactly this alert, then mark it.
    Claimed(Claim),
    /// Every rule is settled: an earlier alert covers the event, or it is only recorded.
    Settled,
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
    /// Write this, if the item is still as it was seen: not there, or with the same `SettledRules` and `Claim`.
    Write(Change),
}

/// What to write to an item, all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Added to `Rules`.
    pub rules: BTreeSet<String>,
    /// Added to `SettledRules`: rules that are only recorded.
    pub settled: BTreeSet<String>,
    /// The new `Claim`; `None` leaves what is there.
    pub claim: Option<Claim>,
}

impl Change {
    /// The answer once this is written.
    #[must_use]
    pub fn answer(self) -> Recorded {
        self.claim.map_or(Recorded::Settled, Recorded::Claimed)
    }
}

/// What the caller of `record` brings.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub item: &'a StoredItem,
    pub token: &'a ClaimToken,
    pub length: Duration,
    pub expired: Option<&'a ClaimToken>,
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

    fn change(&self, settled: BTreeSet<String>, claim: Option<Claim>) -> Change {
        Change { rules: self.item.rules.keys().cloned().collect(), settled, claim }
    }
}

/// Decides about an item, `None` where there is none yet; see the head of this module.
#[must_use]
pub fn decide(item: Option<&ItemState>, attempt: Attempt<'_>) -> Decision {
    let Some(item) = item else {
        let claim =
            Some(attempt.item.alerting()).filter(|rules| !rules.is_empty()).map(|rules| attempt.claim_on(rules));
        return Decision::Write(attempt.change(attempt.item.recorded_only.clone(), claim));
    };
    let recorded: BTreeSet<String> = attempt.item.recorded_only.difference(&item.settled).cloned().collect();
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
        return Decision::Write(attempt.change(beyond, Some(taken_over)));
    }
    let matched = item.rules.iter().chain(attempt.item.rules.keys());
    let is_open = |rule: &&String| !item.settled.contains(*rule) && !attempt.item.recorded_only.contains(*rule);
    let unsettled: BTreeSet<String> = matched.filter(is_open).cloned().collect();
    if !unsettled.is_empty() {
        return Decision::Write(attempt.change(recorded, Some(attempt.claim_on(unsettled))));
    }
    if recorded.is_empty() {
        return Decision::Answer(Recorded::Settled);
    }
    Decision::Write(attempt.change(recorded, None))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::alert::{EventKey, Facts, Source, StoredEvent};

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
        ItemState { rules: set(rules), settled: set(settled), claim }
    }

    fn decided(state: Option<&ItemState>, item: &StoredItem, expired: Option<&str>) -> Decision {
        let (token, expired) = (ClaimToken("mine".to_owned()), expired.map(|text| ClaimToken(text.to_owned())));
        decide(state, Attempt { item, token: &token, length: LENGTH, expired: expired.as_ref() })
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
        assert_eq!(only, Change { rules: set(&["s"]), settled: set(&["s"]), claim: None });
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
        assert_eq!(change, Change { rules: set(&["a", "s"]), settled: set(&["s"]), claim: None });
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

    /// Up to four rules, and which of them are only recorded.
    fn any_item() -> impl Strategy<Value = StoredItem> {
        let rule = prop::sample::select(vec!["a", "b", "c", "d"]);
        prop::collection::btree_map(rule, any::<bool>(), 1..=4).prop_map(|modes: BTreeMap<_, _>| {
            let rules: Vec<_> = modes.keys().copied().collect();
            let shadow: Vec<_> = modes.iter().filter(|(_, shadow)| **shadow).map(|(id, _)| *id).collect();
            plain(&rules, &shadow)
        })
    }

    proptest! {
        /// One process after another records the event under rules of its own; each may die with its claim, or publish.
        #[test]
        fn whatever_came_before_an_event_ends_settled(attempts in prop::collection::vec((any_item(), any::<bool>()), 1..8)) {
            let mut item: Option<ItemState> = None;
            let (mut told, mut alertable) = (Vec::new(), BTreeSet::new());
            for (number, (event, dies)) in attempts.into_iter().enumerate() {
                alertable.extend(event.alerting());
                // Whoever held a claim before is dead.
                let expired = item.as_ref().and_then(|item| item.claim.as_ref()).map(|claim| claim.token.clone());
                for round in 0..4 {
                    let token = ClaimToken(format!("{number}.{round}"));
                    let attempt = Attempt { item: &event, token: &token, length: LENGTH, expired: expired.as_ref() };
                    let answer = match decide(item.as_ref(), attempt) {
                        Decision::Answer(answer) => answer,
                        Decision::Write(change) => {
                            let item = item.get_or_insert_default();
                            item.rules.extend(change.rules.clone());
                            item.settled.extend(change.settled.clone());
                            item.claim = change.claim.clone().or(item.claim.take());
                            change.answer()
                        }
                    };
                    let now = item.as_mut().unwrap();
                    match answer {
                        Recorded::Claimed(_) if dies => break,
                        Recorded::Claimed(claim) => {
                            now.settled.extend(claim.alert.rules.clone());
                            told.push(claim.alert.rules);
                        }
                        Recorded::Settled => {
                            prop_assert!(now.rules.is_subset(&now.settled), "{now:?}");
                            prop_assert!(event.rules.keys().all(|rule| now.rules.contains(rule)), "{now:?}");
                            break;
                        }
                        Recorded::Held(claim) => prop_assert!(false, "nobody else lives, and {claim:?} is in the way"),
                    }
                    prop_assert!(round < 3, "it never ends");
                }
            }
            let count: usize = told.iter().map(BTreeSet::len).sum();
            let told: BTreeSet<String> = told.into_iter().flatten().collect();
            prop_assert_eq!(told.len(), count, "a rule is told once");
            prop_assert!(told.is_subset(&alertable), "what was only ever recorded is never told");
        }
    }
}
