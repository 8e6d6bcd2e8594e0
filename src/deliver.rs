//! Record, publish, mark: the only way to a [`Delivered`].
//!
//! For each batch of detected events:
//!
//! 1. *Record*: store each event, count it in the trackers of its rules with groups, and claim its other unsettled rules.
//!    An event may turn out to be settled (an earlier alert covers it, it is only recorded, or its count reaches no step)
//!    or held by somebody else: another process, or another message of this one ([`InWork`]).
//! 2. *Cross*: of the trackers that may have reached a step, claim the step.
//! 3. *Publish* what was claimed, in as few calls as possible, and *mark* each alert that was accepted.
//! 4. *Settle* the counted rules of each event whose trackers have no step left to tell.
//! 5. Only then, holding no claim, wait for what others hold: until they settled it, or their token stood still for
//!    the length of their claim, which is then taken over with exactly its alert.
//!
//! So nobody waits for a claim while holding another, and two objects that hold the same events in opposite order
//! never wait for each other. A crash at any point leaves an item with unsettled rules, which the message's redelivery
//! finishes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::alert::{
    DetectedEvent, EventKey, Outbound, PUBLISH_LIMIT, StoredItem, Withheld, render, render_withheld, stored_item,
};
use crate::claim::{Claim, ClaimToken, Mark, Recorded};
use crate::context::{CALL_DEADLINE, Context};
use crate::env::lock;
use crate::health::{Dependency, Refusal};
use crate::journal::Alerted;
use crate::lease::Lease;
use crate::limit::Limit;
use crate::metrics::Metrics;
use crate::object::Exhausted;
use crate::ports::{ErrorClass, PortError, Receipt, ReceivedMessage};
use crate::retry::{Backoff, GaveUp, Interruption, Until, call_for_message, persist, sleep, tell_refusals};
use crate::rules::{RuleSet, Severity};
use crate::tracker::{CrossAttempt, Crossed, Crossing, TrackerId};

/// How long a claim's token must stand still before others may take it over.
pub const CLAIM_LENGTH: Duration = Duration::from_secs(30);
/// A claim older than this is renewed before it is used, so that a call under its deadline ends well within it.
const FRESH: Duration = Duration::from_secs(10);
/// Store calls of one batch in flight at once.
const STORE_CALLS: usize = 8;
/// SNS takes at most this many alerts in one call.
const PUBLISH_BATCH: usize = 10;

const PUBLISH: &str = "sns:PublishBatch";
const RECORD: (Dependency, &str) = (Dependency::Store, "dynamodb:PutItem");
const TRANSACT: (Dependency, &str) = (Dependency::Store, "dynamodb:TransactWriteItems");
const UPDATE: (Dependency, &str) = (Dependency::Store, "dynamodb:UpdateItem");

/// Proof that everything a message names was stored, and all of it that alerts was alerted or is covered by an earlier
/// alert. Only this module can make one, and deleting the message uses it up.
#[derive(Debug)]
pub struct Delivered {
    message_id: String,
    receipt: Receipt,
}

impl Delivered {
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

/// The delivery of one message: open until every part of it was read to its end and all of its events are settled.
#[derive(Debug)]
pub struct Delivery {
    message_id: String,
    receipt: Receipt,
    open_parts: usize,
    refused: Option<String>,
    interrupted: bool,
}

/// Why a message is not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The store or the publisher refuses an event for good.
    Refused(String),
    /// Not everything was read or settled.
    Unfinished,
}

impl Delivery {
    /// Begins the delivery of a message that has `parts` to read: objects and records. "Nothing to read" and "nothing
    /// matched" go the same way as everything else.
    #[must_use]
    pub fn begin(message: &ReceivedMessage, parts: usize) -> Self {
        Self {
            message_id: message.message_id.clone(),
            receipt: message.receipt.clone(),
            open_parts: parts,
            refused: None,
            interrupted: false,
        }
    }

    /// A part was read to its end, and everything found in it went through [`Self::deliver`].
    pub fn part_ended(&mut self, _proof: Exhausted) {
        self.open_parts = self.open_parts.saturating_sub(1);
    }

    /// The proof, if everything was read and settled.
    ///
    /// # Errors
    ///
    /// What is missing: an event was refused, or something was not read or settled.
    pub fn finish(self) -> Result<Delivered, Undelivered> {
        if let Some(reason) = self.refused {
            return Err(Undelivered::Refused(reason));
        }
        if self.open_parts > 0 || self.interrupted {
            return Err(Undelivered::Unfinished);
        }
        Ok(Delivered { message_id: self.message_id, receipt: self.receipt })
    }

    /// Settles these events: returns when each is alerted, covered or recorded, or refused for good, which the delivery
    /// remembers. The same event may be among them several times.
    ///
    /// # Errors
    ///
    /// Why work on the message ends before that; the delivery then never gives its proof.
    pub async fn deliver(
        &mut self,
        context: &Context,
        lease: &Lease,
        rules: &Arc<RuleSet>,
        events: Vec<DetectedEvent>,
    ) -> Result<(), Interruption> {
        let events = merge(events, &context.metrics);
        let retention = time::Duration::days(i64::from(context.config.store.retention_days));
        let length = events.iter().map(|event| event.record.len()).sum();
        let policy = context.policy;
        let pending = move |event: DetectedEvent| {
            let mut item = stored_item(&event, retention);
            if !policy.allows(event.facts.event_time) {
                item.only_record();
            }
            Pending { event: Arc::new(event), item, seen: None, told: BTreeSet::new(), open: BTreeMap::new() }
        };
        let work = move || events.into_iter().map(pending).collect();
        let work = context.env.compute.run_for(length, work).await;
        let batch = Batch {
            context,
            lease,
            rules,
            refused: &mut self.refused,
            steps_seen: BTreeMap::new(),
            refused_steps: BTreeSet::new(),
        };
        let settled = batch.settle(work).await;
        self.interrupted |= settled.is_err();
        settled
    }
}

/// An event that is not settled yet.
struct Pending {
    event: Arc<DetectedEvent>,
    item: StoredItem,
    /// Somebody else's claim, and since when its token stands still before our eyes.
    seen: Option<Standing>,
    /// The rules that this delivery alerted of it. An alert that was taken over may leave some of its rules untold.
    told: BTreeSet<String>,
    /// Rules that are counted and not settled. Where there are any, all else is.
    open: BTreeMap<String, TrackerId>,
}

type Standing = (Claim, Instant);

/// Whose alert a claim is on.
enum Subject {
    Event(Box<Pending>),
    /// A step of a tracker, told with one of its events.
    Step(Box<Crossing>, Arc<DetectedEvent>),
}

impl Subject {
    fn key(&self) -> EventKey {
        match self {
            Self::Event(pending) => pending.item.key.clone(),
            Self::Step(crossing, _) => crossing.tracker.steps().key(),
        }
    }

    fn event(&self) -> &DetectedEvent {
        match self {
            Self::Event(pending) => &pending.event,
            Self::Step(_, event) => event,
        }
    }

    fn crossing(&self) -> Option<&Crossing> {
        match self {
            Self::Event(_) => None,
            Self::Step(crossing, _) => Some(crossing),
        }
    }
}

/// A claim that is ours.
struct Claimed {
    subject: Subject,
    claim: Claim,
    /// From before the first call that may have taken or renewed it.
    since: Instant,
    _here: Here,
}

/// What publishing left.
#[derive(Default)]
struct Outcome {
    /// Events that are not settled by it.
    left: Vec<Pending>,
    /// Trackers of which no step is due any more.
    clear: BTreeSet<TrackerId>,
    /// A step was told, which may settle what waits for it.
    told: bool,
}

impl Outcome {
    fn lose(&mut self, subject: Subject) {
        match subject {
            Subject::Event(pending) => self.left.push(*pending),
            // The events that wait for it are looked after by themselves.
            Subject::Step(..) => {}
        }
    }

    fn add(&mut self, other: Self) {
        self.left.extend(other.left);
        self.clear.extend(other.clear);
        self.told |= other.told;
    }
}

/// The events and trackers that messages of this process are recording, publishing or marking. Others of its messages
/// wait for them here, without asking the store: cheaper, and one process never races itself.
#[derive(Clone, Debug, Default)]
pub struct InWork {
    keys: Arc<Mutex<BTreeSet<EventKey>>>,
    lanes: Arc<Lanes>,
}

/// Events that are counted in one tracker are recorded one after another: a table refuses one of two transactions that
/// meet at an item.
#[derive(Debug)]
struct Lanes([tokio::sync::Mutex<()>; LANES]);

const LANES: usize = 64;

impl Default for Lanes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Lanes {
    /// Waits for these lanes, in one order for all.
    async fn enter(&self, lanes: BTreeSet<usize>) -> Vec<tokio::sync::MutexGuard<'_, ()>> {
        let mut entered = Vec::with_capacity(lanes.len());
        for lane in lanes.into_iter().filter_map(|at| self.0.get(at)) {
            entered.push(lane.lock().await);
        }
        entered
    }
}

/// An event or tracker is this message's, as far as this process goes.
#[derive(Debug)]
struct Here {
    in_work: InWork,
    key: EventKey,
}

impl InWork {
    /// `None` while another message of this process has the event or tracker.
    fn enter(&self, key: &EventKey) -> Option<Here> {
        lock(&self.keys).insert(key.clone()).then(|| Here { in_work: self.clone(), key: key.clone() })
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        lock(&self.in_work.keys).remove(&self.key);
    }
}

/// What a step did with an event.
enum Next {
    Settled,
    Claimed(Box<Claimed>),
    Held(Box<Pending>),
    /// Only steps of trackers are left.
    Counted(Box<Pending>),
}

/// What was recorded.
#[derive(Default)]
struct Round {
    claimed: Vec<Claimed>,
    held: Vec<Pending>,
    counted: Vec<Pending>,
}

struct Batch<'a> {
    context: &'a Context,
    lease: &'a Lease,
    rules: &'a Arc<RuleSet>,
    refused: &'a mut Option<String>,
    /// Somebody else's claims on steps, and since when their tokens stand still before our eyes.
    steps_seen: BTreeMap<TrackerId, Standing>,
    /// Trackers of which a step cannot be told.
    refused_steps: BTreeSet<TrackerId>,
}

impl Batch<'_> {
    async fn settle(mut self, mut pending: Vec<Pending>) -> Result<(), Interruption> {
        // Others hold a claim for a publish and a mark: it is worth looking soon, and then less and less often.
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            let Round { mut claimed, held, counted } = self.record(pending).await?;
            let (steps, mut clear) = self.cross(&counted).await?;
            claimed.extend(steps);
            let published = self.publish(claimed).await?;
            clear.extend(published.clear.iter().cloned());
            pending = self.cover(counted, &clear).await?;
            pending.extend(held);
            pending.extend(published.left);
            if pending.is_empty() {
                return Ok(());
            }
            if published.told {
                continue;
            }
            sleep(backoff.pause(&self.context.env.random), Until::Held(self.lease)).await?;
        }
    }

    /// Records every event that has more to settle than steps of trackers.
    async fn record(&mut self, pending: Vec<Pending>) -> Result<Round, Interruption> {
        let (context, lease) = (self.context, self.lease);
        let (counted, pending): (Vec<_>, Vec<_>) = pending.into_iter().partition(|it| !it.open.is_empty());
        let outcomes: Vec<_> = futures_util::stream::iter(pending)
            .map(|pending| async move {
                let key = pending.item.key.clone();
                (key, record_one(context, lease, pending).await)
            })
            .buffered(STORE_CALLS)
            .collect()
            .await;
        let mut round = Round { counted, ..Round::default() };
        let mut interruption = None;
        for (key, outcome) in outcomes {
            match outcome {
                Ok(Next::Settled) => {}
                Ok(Next::Claimed(one)) => round.claimed.push(*one),
                Ok(Next::Held(one)) => round.held.push(*one),
                Ok(Next::Counted(one)) => round.counted.push(*one),
                Err(GaveUp::Refused(error)) => self.refuse(&key, &error),
                Err(GaveUp::Interrupted(why)) => interruption = Some(why),
            }
        }
        // Claims taken meanwhile are left to whoever takes them over.
        interruption.map_or(Ok(round), Err)
    }

    /// Looks at each tracker that these events are counted in. Gives the steps that are ours to tell, and the trackers of
    /// which none is due.
    async fn cross(&mut self, counted: &[Pending]) -> Result<(Vec<Claimed>, BTreeSet<TrackerId>), Interruption> {
        let (context, lease) = (self.context, self.lease);
        let mut asked: BTreeMap<TrackerId, Question> = BTreeMap::new();
        for pending in counted {
            for (rule, tracker) in pending.open.iter().filter(|(_, tracker)| !self.refused_steps.contains(*tracker)) {
                asked.entry(tracker.clone()).or_insert_with(|| Question {
                    tracker: tracker.clone(),
                    rule: rule.clone(),
                    severity: pending.item.rules.get(rule).copied().unwrap_or(pending.item.severity()),
                    event: Arc::clone(&pending.event),
                    seen: self.steps_seen.remove(tracker),
                });
            }
        }
        let outcomes: Vec<_> = futures_util::stream::iter(asked.into_values())
            .map(|question| async move {
                let (tracker, key) = (question.tracker.clone(), question.event.key.clone());
                (tracker, key, cross_one(context, lease, question).await)
            })
            .buffered(STORE_CALLS)
            .collect()
            .await;
        let (mut steps, mut clear, mut interruption) = (Vec::new(), BTreeSet::new(), None);
        for (tracker, key, outcome) in outcomes {
            match outcome {
                Ok(Look::Clear) => _ = clear.insert(tracker),
                Ok(Look::Claimed(one)) => steps.push(*one),
                Ok(Look::Held(seen)) => self.steps_seen.extend(seen.map(|seen| (tracker, seen))),
                Err(GaveUp::Refused(error)) => {
                    self.refused_steps.insert(tracker);
                    self.refuse(&key, &error);
                }
                Err(GaveUp::Interrupted(why)) => interruption = Some(why),
            }
        }
        interruption.map_or(Ok((steps, clear)), Err)
    }

    /// Settles the rules of these events whose trackers have nothing left to tell. Gives the events that have more.
    async fn cover(
        &mut self,
        counted: Vec<Pending>,
        clear: &BTreeSet<TrackerId>,
    ) -> Result<Vec<Pending>, Interruption> {
        let (context, lease) = (self.context, self.lease);
        let mut work = Vec::new();
        for mut pending in counted {
            let refused = |tracker: &TrackerId| self.refused_steps.contains(tracker);
            let covered = pending.open.iter().filter(|(_, tracker)| clear.contains(*tracker));
            let covered: BTreeSet<String> = covered.map(|(rule, _)| rule.clone()).collect();
            pending.open.retain(|_, tracker| !clear.contains(tracker) && !refused(tracker));
            work.push((pending, covered));
        }
        let outcomes: Vec<_> = futures_util::stream::iter(work)
            .map(|(pending, covered)| async move {
                let key = pending.item.key.clone();
                if !covered.is_empty() {
                    let settled = persist(context, UPDATE, &key.event_id, Until::Held(lease), || {
                        context.ports.store.settle(&key, &covered)
                    });
                    if let Err(why) = settled.await {
                        return (key, Err(why));
                    }
                }
                (key, Ok(pending))
            })
            .buffered(STORE_CALLS)
            .collect()
            .await;
        let (mut left, mut interruption) = (Vec::new(), None);
        for (key, outcome) in outcomes {
            match outcome {
                Ok(pending) if pending.open.is_empty() => {}
                Ok(pending) => left.push(pending),
                Err(GaveUp::Refused(error)) => self.refuse(&key, &error),
                Err(GaveUp::Interrupted(why)) => interruption = Some(why),
            }
        }
        interruption.map_or(Ok(left), Err)
    }

    /// Publishes and marks every claimed alert. Leaves the events whose claims were lost meanwhile, and those of which
    /// not every rule is told yet.
    async fn publish(&mut self, mut claimed: Vec<Claimed>) -> Result<Outcome, Interruption> {
        let mut outcome = Outcome::default();
        let limit = Arc::clone(&self.context.limit);
        let mut withheld = Vec::new();
        if limit.max() > 0 {
            claimed.sort_by_key(|claimed| std::cmp::Reverse(claimed.claim.alert.severity));
            (claimed, withheld) = claimed.into_iter().partition(|claimed| limit.admits(claimed.claim.alert.severity));
        }
        let mut queue = claimed.into_iter().peekable();
        let mut next: Option<(Claimed, Outbound)> = None;
        while next.is_some() || queue.peek().is_some() {
            let mut batch = Vec::new();
            let mut size = 0;
            while batch.len() < PUBLISH_BATCH {
                let (claimed, alert) = if let Some(rendered) = next.take() {
                    rendered
                } else if let Some(claimed) = queue.next() {
                    self.render(claimed).await
                } else {
                    break;
                };
                if !batch.is_empty() && size + alert.size() > PUBLISH_LIMIT {
                    next = Some((claimed, alert));
                    break;
                }
                size += alert.size();
                batch.push((claimed, alert));
            }
            outcome.add(self.publish_batch(batch).await?);
        }
        if !withheld.is_empty() {
            outcome.add(self.withhold(&limit, withheld).await?);
        }
        Ok(outcome)
    }

    /// Holds alerts back until the minute ends, and marks them once the alert that announces them was accepted.
    async fn withhold(&mut self, limit: &Limit, withheld: Vec<Claimed>) -> Result<Outcome, Interruption> {
        let mut outcome = Outcome::default();
        let mut held: Vec<_> = withheld
            .into_iter()
            .map(|one| (limit.hold(summary(&one)), one))
            .map(|(ticket, one)| (one, ticket))
            .collect();
        let end = limit.end();
        loop {
            let (kept, lost) = self.keep_claims(held).await?;
            for subject in lost {
                outcome.lose(subject);
            }
            held = kept;
            let left = end.saturating_duration_since(Instant::now());
            if held.is_empty() {
                return Ok(outcome);
            }
            if left.is_zero() {
                break;
            }
            sleep(left.min(FRESH), Until::Held(self.lease)).await?;
        }
        let (mut backoff, mut retrying) = (Backoff::default(), None);
        loop {
            let lead = tokio::select! {
                biased;
                why = Until::Held(self.lease).interrupted() => return Err(why),
                lead = limit.lead() => lead,
            };
            let (kept, lost) = self.keep_claims(held).await?;
            for subject in lost {
                outcome.lose(subject);
            }
            held = kept;
            let Some((_, ticket)) = held.first() else { return Ok(outcome) };
            if let Some(id) = ticket.announced() {
                let accepted = held.into_iter().map(|(claimed, _)| (claimed, id.clone())).collect();
                outcome.add(self.mark(accepted, Told::Withheld).await?);
                return Ok(outcome);
            }
            // Whoever is first tells what all hold.
            let all = limit.held();
            let now = self.context.env.clock.now();
            let config = &self.context.config;
            let alert = render_withheld(all.values(), limit.max(), &config.store.table, now, config.alerting.format);
            let result = self.context.ports.publisher.publish(std::slice::from_ref(&alert));
            let result = call_for_message(&self.context.env.stop, PUBLISH, result).await;
            match result.and_then(|results| {
                results.into_iter().next().unwrap_or_else(|| Err(PortError::timed_out(PUBLISH, CALL_DEADLINE)))
            }) {
                Ok(id) => {
                    if self.context.health.accepted(Dependency::Publisher, PUBLISH) {
                        tracing::info!("alerts are accepted again");
                    }
                    tracing::warn!(
                        alert.id = %alert.alert_id,
                        count = all.len(),
                        max_per_minute = limit.max(),
                        "alerts were held back, and announced by one (alerting.max_per_minute)"
                    );
                    limit.announced(&all, &id);
                }
                Err(error) => {
                    self.count_failures(error.class, 1);
                    self.report(&error);
                    retrying.get_or_insert_with(|| self.context.health.retrying(Dependency::Publisher));
                    drop(lead);
                    sleep(backoff.pause(&self.context.env.random), Until::Held(self.lease)).await?;
                }
            }
        }
    }

    async fn render(&self, claimed: Claimed) -> (Claimed, Outbound) {
        let rules = Arc::clone(self.rules);
        let length = claimed.subject.event().record.len();
        let format = self.context.config.alerting.format;
        let work = move || {
            let (event, crossing) = (claimed.subject.event(), claimed.subject.crossing());
            let alert = render(event, &claimed.claim.alert, &rules, crossing, format);
            (claimed, alert)
        };
        self.context.env.compute.run_for(length, work).await
    }

    /// Publishes until every alert of the batch is accepted and marked, refused, or no longer ours.
    async fn publish_batch(&mut self, batch: Vec<(Claimed, Outbound)>) -> Result<Outcome, Interruption> {
        let mut outcome = Outcome::default();
        let mut open = batch;
        let mut backoff = Backoff::default();
        let mut retrying = None;
        loop {
            let (kept, taken) = self.keep_claims(open).await?;
            for subject in taken {
                outcome.lose(subject);
            }
            if kept.is_empty() {
                return Ok(outcome);
            }
            let (claims, alerts): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
            let results = self.context.ports.publisher.publish(&alerts);
            let results = call_for_message(&self.context.env.stop, PUBLISH, results).await;
            let results = match results {
                Ok(results) => results,
                Err(error) => {
                    // The call's own failure is every entry's; alone, a refusal names the one that caused it.
                    let refused_together = error.class == ErrorClass::Permanent && alerts.len() > 1;
                    if refused_together {
                        for one in claims.into_iter().zip(alerts) {
                            outcome.add(Box::pin(self.publish_batch(vec![one])).await?);
                        }
                        return Ok(outcome);
                    }
                    if error.class == ErrorClass::Permanent {
                        if claims.first().is_none_or(|claimed| self.is_refused(claimed, &error)) {
                            return Ok(outcome);
                        }
                    } else {
                        self.count_failures(error.class, alerts.len());
                        self.report(&error);
                    }
                    Vec::new()
                }
            };
            let accepted_any = results.iter().any(Result::is_ok);
            let mut results = results.into_iter();
            let mut accepted = Vec::new();
            let mut again = Vec::new();
            for (claimed, alert) in claims.into_iter().zip(alerts) {
                match results.next() {
                    Some(Ok(id)) => accepted.push((claimed, id)),
                    Some(Err(error)) if error.class == ErrorClass::Permanent => {
                        if accepted_any {
                            // Others are accepted: it is this alert's own fault.
                            self.count_failures(error.class, 1);
                            self.refuse_alert(&claimed, &error);
                        } else if !self.is_refused(&claimed, &error) {
                            again.push((claimed, alert));
                        }
                    }
                    Some(Err(error)) => {
                        self.count_failures(error.class, 1);
                        if !accepted_any {
                            self.report(&error);
                        }
                        again.push((claimed, alert));
                    }
                    None => again.push((claimed, alert)),
                }
            }
            if accepted_any && self.context.health.accepted(Dependency::Publisher, PUBLISH) {
                tracing::info!("alerts are accepted again");
            }
            outcome.add(self.mark(accepted, Told::Published).await?);
            if again.is_empty() {
                return Ok(outcome);
            }
            open = again;
            retrying.get_or_insert_with(|| self.context.health.retrying(Dependency::Publisher));
            sleep(backoff.pause(&self.context.env.random), Until::Held(self.lease)).await?;
        }
    }

    /// Renews the claims that are no longer fresh. Gives the ones that are ours, and what those were on that are not.
    async fn keep_claims<T>(
        &mut self,
        open: Vec<(Claimed, T)>,
    ) -> Result<(Vec<(Claimed, T)>, Vec<Subject>), Interruption> {
        let (context, lease) = (self.context, self.lease);
        let (mut kept, mut lost) = (open, Vec::new());
        // Renewing some may take so long that others become stale meanwhile.
        while kept.iter().any(|(claimed, _)| claimed.since.elapsed() >= FRESH) {
            // All at once: one after another, a slow store would never have them all fresh.
            let renewed: Vec<_> = futures_util::stream::iter(std::mem::take(&mut kept))
                .map(|(mut claimed, alert)| async move {
                    let fresh = claimed.since.elapsed() < FRESH / 2;
                    let ours = if fresh { Ok(true) } else { renew(context, lease, &mut claimed).await };
                    (claimed, alert, ours)
                })
                .buffered(PUBLISH_BATCH)
                .collect()
                .await;
            for (claimed, alert, ours) in renewed {
                match ours {
                    Ok(true) => kept.push((claimed, alert)),
                    Ok(false) => lost.push(claimed.subject),
                    Err(GaveUp::Refused(error)) => self.refuse_alert(&claimed, &error),
                    Err(GaveUp::Interrupted(why)) => return Err(why),
                }
            }
        }
        Ok((kept, lost))
    }

    /// Marks accepted alerts. Once begun this is finished even if the message is lost meanwhile. Leaves the events that
    /// have rules of which nothing was told yet.
    async fn mark(&mut self, accepted: Vec<(Claimed, String)>, how: Told) -> Result<Outcome, Interruption> {
        let context = self.context;
        let outcomes: Vec<_> = futures_util::stream::iter(accepted)
            .map(|(claimed, id)| async move {
                let key = claimed.subject.event().key.clone();
                (key, mark_one(context, claimed, id, how).await)
            })
            .buffered(STORE_CALLS)
            .collect()
            .await;
        let (mut outcome, mut interruption) = (Outcome::default(), None);
        for (key, marked) in outcomes {
            match marked {
                Ok(Marked::Event(pending)) => {
                    // What is only recorded was settled with the claim.
                    if !pending.item.alerting().is_subset(&pending.told) {
                        outcome.left.push(*pending);
                    }
                }
                Ok(Marked::Step { tracker, is_clear }) => {
                    outcome.told = true;
                    if is_clear {
                        outcome.clear.insert(tracker);
                    }
                }
                Err((tracker, GaveUp::Refused(error))) => {
                    self.refused_steps.extend(tracker);
                    self.refuse(&key, &error);
                }
                Err((_, GaveUp::Interrupted(why))) => interruption = Some(why),
            }
        }
        interruption.map_or(Ok(outcome), Err)
    }

    fn refuse_alert(&mut self, claimed: &Claimed, error: &PortError) {
        self.refused_steps.extend(claimed.subject.crossing().map(|crossing| crossing.tracker.clone()));
        self.refuse(&claimed.subject.event().key, error);
    }

    /// Whether SNS refuses this alert for its own sake; else the process is at fault, and the alert is tried again.
    fn is_refused(&mut self, claimed: &Claimed, error: &PortError) -> bool {
        let key = claimed.subject.key();
        match self.context.health.refused(Dependency::Publisher, PUBLISH, &key.event_id, error) {
            Refusal::Event => {
                self.count_failures(ErrorClass::Permanent, 1);
                self.refuse_alert(claimed, error);
                true
            }
            Refusal::Process { tell } => {
                self.count_failures(ErrorClass::Config, 1);
                tell_refusals(tell, Dependency::Publisher, error);
                false
            }
        }
    }

    fn refuse(&mut self, key: &EventKey, error: &PortError) {
        let event = key.event_id.escape_default();
        tracing::error!(event.id = %event, %error, "an event is refused for good; its message is left for redrive");
        self.context.journal.failed(self.context.env.clock.now(), "refused", &format!("event {event}: {error}"));
        self.refused.get_or_insert_with(|| format!("event {event}: {error}"));
    }

    fn report(&self, error: &PortError) {
        if self.context.failed(Dependency::Publisher, error) {
            tracing::warn!(
                class = ?error.class,
                %error,
                "alerts are not accepted; held messages wait and nothing more is received until they are"
            );
        }
    }

    fn count_failures(&self, class: ErrorClass, count: usize) {
        let class = match class {
            ErrorClass::Transient => "transient",
            ErrorClass::Permanent => "permanent",
            ErrorClass::Config => "config",
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.context.metrics.alert_failures.with_label_values(&[class]).inc_by(count);
    }
}

async fn record_one(context: &Context, lease: &Lease, mut pending: Pending) -> Result<Next, GaveUp> {
    let Some(here) = context.in_work.enter(&pending.item.key) else {
        return Ok(Next::Held(Box::new(pending)));
    };
    // The token of a claim that stood still before our eyes for its whole length.
    let expired = expired(pending.seen.as_ref());
    let token = ClaimToken(context.env.random.token());
    let groups = &pending.item.groups;
    let call = if groups.is_empty() { RECORD } else { TRANSACT };
    let lanes: BTreeSet<usize> = groups.values().map(|member| member.tracker.lane(LANES)).collect();
    let lanes = tokio::select! {
        biased;
        why = Until::Held(lease).interrupted() => return Err(GaveUp::Interrupted(why)),
        lanes = context.in_work.lanes.enter(lanes) => lanes,
    };
    let event = &pending.item.key.event_id;
    let (recorded, since) = persist(context, call, event, Until::Held(lease), || {
        context.ports.store.record(&pending.item, &token, CLAIM_LENGTH, expired.as_ref())
    })
    .await?;
    drop(lanes);
    Ok(match recorded {
        Recorded::Settled => {
            // No alert covers an event that is only recorded.
            if pending.told.is_empty() && !pending.item.alerting().is_empty() {
                context.metrics.duplicates_suppressed.inc();
            }
            Next::Settled
        }
        Recorded::Claimed(claim) => {
            pending.seen = None;
            Next::Claimed(Box::new(Claimed { subject: Subject::Event(Box::new(pending)), claim, since, _here: here }))
        }
        Recorded::Held(claim) => {
            pending.seen = Some(still_standing(pending.seen.take(), claim));
            Next::Held(Box::new(pending))
        }
        Recorded::Counted(open) => {
            pending.open = open;
            Next::Counted(Box::new(pending))
        }
    })
}

fn expired(seen: Option<&Standing>) -> Option<ClaimToken> {
    seen.filter(|(claim, since)| since.elapsed() >= claim.length).map(|(claim, _)| claim.token.clone())
}

fn still_standing(seen: Option<Standing>, claim: Claim) -> Standing {
    let still = seen.filter(|(seen, _)| seen.token == claim.token);
    // Seen only now: it stands still from this moment on, not from when the call began.
    still.unwrap_or_else(|| (claim, Instant::now()))
}

/// A tracker to look at: whose rule's events it counts, how grave that is, an event to tell a step with, and somebody
/// else's claim that was seen.
struct Question {
    tracker: TrackerId,
    rule: String,
    severity: Severity,
    event: Arc<DetectedEvent>,
    seen: Option<Standing>,
}

/// What a look at a tracker shows.
enum Look {
    Clear,
    Claimed(Box<Claimed>),
    /// By somebody else, and whose claim that is, if it is another process's.
    Held(Option<Standing>),
}

async fn cross_one(context: &Context, lease: &Lease, question: Question) -> Result<Look, GaveUp> {
    let Question { tracker, rule, severity, event, seen } = question;
    let Some(here) = context.in_work.enter(&tracker.steps().key()) else { return Ok(Look::Held(seen)) };
    let (expired, token) = (expired(seen.as_ref()), ClaimToken(context.env.random.token()));
    let (length, expired) = (CLAIM_LENGTH, expired.as_ref());
    let attempt = CrossAttempt { tracker: &tracker, rule: &rule, severity, token: &token, length, expired };
    let id = tracker.key().event_id;
    let (crossed, since) =
        persist(context, UPDATE, &id, Until::Held(lease), || context.ports.store.cross(attempt)).await?;
    Ok(match crossed {
        Crossed::Clear => Look::Clear,
        Crossed::Held(claim) => Look::Held(Some(still_standing(seen, claim))),
        Crossed::Claimed(crossing) => {
            let claim = crossing.claim.clone();
            let subject = Subject::Step(crossing, event);
            Look::Claimed(Box::new(Claimed { subject, claim, since, _here: here }))
        }
    })
}

async fn renew(context: &Context, lease: &Lease, claimed: &mut Claimed) -> Result<bool, GaveUp> {
    let fresh = ClaimToken(context.env.random.token());
    let key = claimed.subject.key();
    let (ours, since) = persist(context, UPDATE, &key.event_id, Until::Held(lease), || {
        context.ports.store.renew(&key, &claimed.claim, &fresh)
    })
    .await?;
    claimed.claim.token = fresh;
    claimed.since = since;
    Ok(ours)
}

/// How an alert came to whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Published,
    /// By the alert that tells what was held back.
    Withheld,
}

/// An alert that was held back, for the one that tells of it.
fn summary(claimed: &Claimed) -> Withheld {
    let (event, alert) = (claimed.subject.event(), &claimed.claim.alert);
    Withheld {
        alert_id: alert.alert_id.clone(),
        event_id: event.key.event_id.clone(),
        event_time: event.facts.event_time.map(|_| event.key.timestamp.clone()),
        event_name: event.facts.event_name.clone(),
        account_id: event.facts.account_id.clone(),
        severity: alert.severity,
        rules: alert.rules.clone(),
    }
}

/// Counts an alert that was published, and writes it down.
fn tell(context: &Context, claimed: &Claimed, sns_message_id: &str) {
    let severity = claimed.claim.alert.severity;
    context.metrics.alerts_published.with_label_values(&[severity.as_str()]).inc();
    for rule in &claimed.claim.alert.rules {
        context.metrics.rule_alerts.with_label_values(&[rule]).inc();
    }
    let event = claimed.subject.event();
    tracing::info!(
        alert.id = %claimed.claim.alert.alert_id,
        event.id = %event.key.event_id.escape_default(),
        event.name = event.facts.event_name.as_deref().unwrap_or(""),
        group.step = claimed.subject.crossing().map(|crossing| crossing.step),
        severity = severity.as_str(),
        sns.message_id = %sns_message_id,
        "alert published"
    );
    context.journal.alerted(Alerted {
        at: context.env.clock.now(),
        severity,
        rules: claimed.claim.alert.rules.iter().cloned().collect(),
        event_name: event.facts.event_name.clone(),
        account: event.facts.account_id.clone(),
        alert_id: claimed.claim.alert.alert_id.clone(),
    });
}

/// An accepted alert, marked.
enum Marked {
    Event(Box<Pending>),
    Step { tracker: TrackerId, is_clear: bool },
}

async fn mark_one(
    context: &Context,
    claimed: Claimed,
    sns_message_id: String,
    how: Told,
) -> Result<Marked, (Option<TrackerId>, GaveUp)> {
    match how {
        Told::Published => tell(context, &claimed, &sns_message_id),
        Told::Withheld => {
            let severity = claimed.claim.alert.severity.as_str();
            context.metrics.alerts_withheld.with_label_values(&[severity]).inc();
        }
    }
    let Claimed { subject, claim, since: _, _here } = claimed;
    let mark = Mark { alert: claim.alert, alerted_at: context.env.clock.now(), sns_message_id };
    let stop = Until::Stopping(&context.env.stop);
    let store = &context.ports.store;
    match subject {
        Subject::Event(mut pending) => {
            let key = &pending.item.key;
            let marked = persist(context, UPDATE, &key.event_id, stop, || store.mark(key, &mark));
            marked.await.map_err(|why| (None, why))?;
            pending.told.extend(mark.alert.rules);
            Ok(Marked::Event(pending))
        }
        Subject::Step(crossing, _) => {
            let Crossing { tracker, step, state, .. } = *crossing;
            if step == 1 && state.correlated.is_none() {
                context.metrics.groups_opened.with_label_values(&[&state.rule]).inc();
            }
            let id = tracker.key().event_id;
            match persist(context, UPDATE, &id, stop, || store.mark_step(&tracker, step, &mark)).await {
                Ok((is_clear, _)) => Ok(Marked::Step { tracker, is_clear }),
                Err(why) => Err((Some(tracker), why)),
            }
        }
    }
}

/// One event for each key, with the rules of all its copies.
fn merge(events: Vec<DetectedEvent>, metrics: &Metrics) -> Vec<DetectedEvent> {
    let mut merged: Vec<DetectedEvent> = Vec::with_capacity(events.len());
    let mut places: BTreeMap<EventKey, usize> = BTreeMap::new();
    for event in events {
        if let Some(first) = places.get(&event.key).and_then(|at| merged.get_mut(*at)) {
            metrics.duplicates_suppressed.inc();
            for rule in event.rules {
                if !first.rules.iter().any(|known| known.id == rule.id) {
                    first.rules.push(rule);
                }
            }
            for (rule, member) in event.groups {
                first.groups.entry(rule).or_insert(member);
            }
        } else {
            places.insert(event.key.clone(), merged.len());
            merged.push(event);
        }
    }
    merged
}
