//! What the daemon's table and topic would hold, kept in memory: each event once, its groups and correlations counted, each
//! alert told once. It decides as the daemon's store does, with the same functions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::alert::{DetectedEvent, EventKey, StoredItem, stored_item};
use crate::claim::{Attempt, ClaimToken, ClaimedAlert, Decision, ItemState, Recorded, decide};
use crate::metrics::Metrics;
use crate::noise::{Noise, noise};
use crate::rules::{RuleInfo, RuleSet, Severity, Suppressed, ids};
use crate::tracker::{
    Correlated, Count, CountKind, CrossAttempt, CrossDecision, TrackerId, TrackerKind, TrackerState, decide_crossing,
    quiet_after, room_for_one, whole,
};

/// Nobody else claims anything here.
const LENGTH: Duration = Duration::from_secs(30);

/// The events that were seen, and what became of them.
pub struct Ledger {
    rules: Arc<RuleSet>,
    metrics: Metrics,
    /// By a digest of the key: the rules of each event.
    seen: HashMap<[u8; 16], Box<[Arc<RuleInfo>]>>,
    trackers: BTreeMap<TrackerId, TrackerState>,
    alerts: u64,
}

/// What became of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// It was seen before: a copy.
    pub is_copy: bool,
    pub alerts: Vec<ToldAlert>,
}

/// An alert that would have been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldAlert {
    pub alert_id: String,
    pub rules: BTreeSet<String>,
    pub severity: Severity,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// Metrics that cannot be registered, which is a bug.
    pub fn new(rules: Arc<RuleSet>) -> Result<Self, prometheus::Error> {
        Ok(Self { rules, metrics: Metrics::new()?, seen: HashMap::new(), trackers: BTreeMap::new(), alerts: 0 })
    }

    /// Counts what exceptions withheld.
    pub fn suppressed(&self, suppressed: &[Suppressed]) {
        for withheld in suppressed {
            let labels = [withheld.rule.id.as_str(), &withheld.exception.to_string()];
            self.metrics.suppressed.with_label_values(&labels).inc_by(withheld.count);
        }
    }

    /// What each rule did so far, in the order of the file.
    #[must_use]
    pub fn noise(&self) -> Vec<Noise> {
        noise(&self.rules, &self.metrics)
    }

    /// Different events so far, and alerts.
    #[must_use]
    pub fn totals(&self) -> (usize, u64) {
        (self.seen.len(), self.alerts)
    }

    /// Takes in an event as the daemon would.
    pub fn take(&mut self, event: &DetectedEvent) -> Told {
        for rule in &event.rules {
            self.metrics.matches.with_label_values(&[&rule.id, rule.severity.as_str()]).inc();
        }
        // What is not told of an event is not needed here either.
        let item = stored_item(event, time::Duration::ZERO);
        let key = digest(&item.key);
        let known = self.seen.get(&key).map(|rules| ids(rules)).unwrap_or_default();
        let mut told = Told { is_copy: !known.is_empty(), alerts: Vec::new() };
        let before = known.clone();
        let mut state =
            told.is_copy.then(|| ItemState { rules: known.clone(), settled: known, ..ItemState::default() });
        while let Some(open) = self.record(&item, &mut state, &mut told) {
            for (rule, tracker) in &open {
                self.cross(&item, rule, tracker, &mut told);
            }
            state.get_or_insert_default().settled.extend(open.into_keys());
        }
        let new: Vec<_> = event.rules.iter().filter(|rule| !before.contains(&rule.id)).cloned().collect();
        for rule in &new {
            self.metrics.rule_events.with_label_values(&[&rule.id]).inc();
        }
        if !new.is_empty() {
            let all = self.seen.entry(key).or_default();
            *all = all.iter().cloned().chain(new).collect();
        }
        self.alerts += told.alerts.len() as u64;
        told
    }

    /// Stores and counts it. Gives the trackers of which a step may be due; `None` once all is settled.
    fn record(
        &mut self,
        item: &StoredItem,
        state: &mut Option<ItemState>,
        told: &mut Told,
    ) -> Option<BTreeMap<String, TrackerId>> {
        let token = ClaimToken(String::new());
        let attempt = Attempt { item, token: &token, length: LENGTH, expired: None, trackers: &self.trackers };
        let change = match decide(state.as_ref(), attempt) {
            Decision::Write(change) => change,
            Decision::Answer(Recorded::Counted(open)) => return Some(open),
            Decision::Answer(Recorded::Settled | Recorded::Claimed(_) | Recorded::Held(_)) => return None,
        };
        let there = state.get_or_insert_default();
        there.rules.extend(change.rules.iter().cloned());
        there.settled.extend(change.settled.iter().cloned());
        for count in &change.counts {
            let Count { membership, kind, .. } = count;
            there.groups.insert(membership.rule.clone(), membership.tracker.clone());
            let before = self.trackers.remove(&membership.tracker);
            self.trackers.insert(membership.tracker.clone(), count.applied(before));
            if let (CountKind::Opening, Some(sighting)) = (kind, &membership.sighting) {
                self.trackers.entry(sighting.keys.clone()).or_default().count += 1;
            }
        }
        if let Some(claim) = &change.claim {
            there.settled.extend(claim.alert.rules.iter().cloned());
            self.tell(&claim.alert, told);
        }
        Some(BTreeMap::new())
    }

    /// Tells every step of a tracker that is due.
    fn cross(&mut self, item: &StoredItem, rule: &str, id: &TrackerId, told: &mut Told) {
        let token = ClaimToken(String::new());
        let severity = item.rules.get(rule).copied().unwrap_or(item.severity());
        let attempt = CrossAttempt { tracker: id, rule, severity, token: &token, length: LENGTH, expired: None };
        loop {
            let state = match id.kind() {
                TrackerKind::Correlation => whole(id, |id| self.trackers.get(id).cloned()),
                _ => self.trackers.get(id).cloned(),
            };
            let Some(state) = state else { return };
            let opened = || {
                let mut head = TrackerState { quiet: 0, claim: None, ..state.clone() };
                // The buckets have them.
                head.correlated.iter_mut().for_each(|correlated| correlated.entries.clear());
                head
            };
            match decide_crossing(Some(&state), attempt) {
                CrossDecision::Clear | CrossDecision::Held(_) | CrossDecision::Claimed(_) => return,
                CrossDecision::Write(claim, span) => {
                    self.tell(&claim.alert, told);
                    let step = state.step();
                    if step == 1 && state.correlated.is_none() {
                        self.metrics.groups_opened.with_label_values(&[rule]).inc();
                    }
                    let steps = self.trackers.entry(id.steps()).or_insert_with(opened);
                    match &mut steps.correlated {
                        None => steps.quiet = steps.quiet.max(quiet_after(step)),
                        Some(correlated) => {
                            steps.quiet = step;
                            correlated.told = room_for_one(&correlated.told);
                            correlated.told.extend(span);
                        }
                    }
                }
                CrossDecision::Remember(spans) => {
                    let steps = self.trackers.entry(id.steps()).or_insert_with(opened);
                    steps.quiet = steps.quiet.saturating_add(1);
                    if let Some(correlated) = &mut steps.correlated {
                        correlated.told = spans;
                    }
                }
                CrossDecision::Begin(from) => {
                    let Some(correlated) = &state.correlated else { return };
                    let since = self.trackers.entry(correlated.since_at()).or_default();
                    since.correlated = Some(Correlated { since: Some(from), ..correlated.clone() });
                }
            }
        }
    }

    fn tell(&self, alert: &ClaimedAlert, told: &mut Told) {
        for rule in &alert.rules {
            self.metrics.rule_alerts.with_label_values(&[rule]).inc();
        }
        let ClaimedAlert { alert_id, rules, severity } = alert.clone();
        told.alerts.push(ToldAlert { alert_id, rules, severity });
    }
}

fn digest(key: &EventKey) -> [u8; 16] {
    let hash = Sha256::new().chain_update(&key.event_id).chain_update([0]).chain_update(&key.timestamp).finalize();
    let mut digest = [0; 16];
    digest.copy_from_slice(hash.get(..16).unwrap_or(&[0; 16]));
    digest
}
