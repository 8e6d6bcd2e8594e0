//! Who may publish an alert for an event.
//!
//! An item remembers which rules matched (`Rules`), which of them are settled (`SettledRules`) and the last claim
//! (`Claim`). A claim whose rules are all settled is spent and means nothing any more, so that marking is purely
//! additive and never has to remove one. The rules below decide; a store makes the decision atomic:
//!
//! 1. No item: store it, with a claim on all its rules.
//! 2. The claim bears the caller's token: it is the caller's, an answer was lost.
//! 3. Nothing unsettled: nothing to do.
//! 4. A live claim of somebody else: wait, or take over exactly its alert once its token stood still for its length.
//! 5. Otherwise: claim what is unsettled.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::alert::alert_id;
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
    /// Every rule is settled: an earlier alert covers the event.
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

/// What to do about an item that is already there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer with this; nothing to write.
    Answer(Recorded),
    /// Write this claim, if `SettledRules` and `Claim` are still as they were seen; add `rules` to `Rules`.
    Write { claim: Claim, rules: BTreeSet<String> },
}

/// What the caller of `record` brings.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub event_id: &'a str,
    pub rules: &'a BTreeSet<String>,
    pub severity: Severity,
    pub token: &'a ClaimToken,
    pub length: Duration,
    pub expired: Option<&'a ClaimToken>,
}

impl Attempt<'_> {
    /// The claim on `rules` that this attempt would write.
    #[must_use]
    pub fn claim_on(&self, rules: BTreeSet<String>) -> Claim {
        Claim {
            token: self.token.clone(),
            length: self.length,
            alert: ClaimedAlert { alert_id: alert_id(self.event_id, &rules), rules, severity: self.severity },
        }
    }
}

/// Decides about an item that is already there; see the head of this module.
#[must_use]
pub fn decide(item: &ItemState, attempt: Attempt<'_>) -> Decision {
    let live = item.claim.as_ref().filter(|claim| !claim.alert.rules.is_subset(&item.settled));
    if let Some(claim) = live {
        if claim.token == *attempt.token {
            return Decision::Answer(Recorded::Claimed(claim.clone()));
        }
        if attempt.expired == Some(&claim.token) {
            let taken_over = Claim { token: attempt.token.clone(), length: attempt.length, alert: claim.alert.clone() };
            return Decision::Write { claim: taken_over, rules: attempt.rules.clone() };
        }
    }
    let all: BTreeSet<String> = item.rules.union(attempt.rules).cloned().collect();
    let unsettled: BTreeSet<String> = all.difference(&item.settled).cloned().collect();
    if unsettled.is_empty() {
        return Decision::Answer(Recorded::Settled);
    }
    match live {
        Some(claim) => Decision::Answer(Recorded::Held(claim.clone())),
        None => Decision::Write { claim: attempt.claim_on(unsettled), rules: attempt.rules.clone() },
    }
}
