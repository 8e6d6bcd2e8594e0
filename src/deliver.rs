//! Record, publish, mark: the only way to a [`Delivered`].
//!
//! For each batch of detected events:
//!
//! 1. *Record*: store each event and claim its unsettled rules. An event may turn out to be settled (an earlier alert
//!    covers it, or it is only recorded) or held by somebody else: another process, or another message of this one
//!    ([`InWork`]).
//! 2. *Publish* what was claimed, in as few calls as possible, and *mark* each alert that was accepted.
//! 3. Only then, holding no claim, wait for what others hold: until they settled it, or their token stood still for
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

use crate::alert::{DetectedEvent, EventKey, Outbound, PUBLISH_LIMIT, StoredItem, render, stored_item};
use crate::claim::{Claim, ClaimToken, Mark, Recorded};
use crate::context::Context;
use crate::env::lock;
use crate::health::{Dependency, Refusal};
use crate::journal::Alerted;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::object::Exhausted;
use crate::ports::{ErrorClass, PortError, Receipt, ReceivedMessage};
use crate::retry::{Backoff, GaveUp, Interruption, Until, call_for_message, persist, sleep, tell_refusals};
use crate::rules::RuleSet;

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
        let pending = move |event| {
            let item = stored_item(&event, retention);
            Pending { event, item, seen: None, told: BTreeSet::new() }
        };
        let work = move || events.into_iter().map(pending).collect();
        let work = context.env.compute.run_for(length, work).await;
        let settled = Batch { context, lease, rules, refused: &mut self.refused }.settle(work).await;
        self.interrupted |= settled.is_err();
        settled
    }
}

/// An event that is not settled yet.
struct Pending {
    event: DetectedEvent,
    item: StoredItem,
    /// Somebody else's claim, and since when its token stands still before our eyes.
    seen: Option<(Claim, Instant)>,
    /// The rules that this delivery alerted of it. An alert that was taken over may leave some of its rules untold.
    told: BTreeSet<String>,
}

/// An event whose claim is ours.
struct Claimed {
    pending: Pending,
    claim: Claim,
    /// From before the first call that may have taken or renewed it.
    since: Instant,
    _here: Here,
}

/// The events that messages of this process are recording, publishing or marking. Others of its messages wait for them
/// here, without asking the store: cheaper, and one process never races itself.
#[derive(Clone, Debug, Default)]
pub struct InWork(Arc<Mutex<BTreeSet<EventKey>>>);

/// An event is this message's, as far as this process goes.
#[derive(Debug)]
struct Here {
    in_work: InWork,
    key: EventKey,
}

impl InWork {
    /// `None` while another message of this process has the event.
    fn enter(&self, key: &EventKey) -> Option<Here> {
        lock(&self.0).insert(key.clone()).then(|| Here { in_work: self.clone(), key: key.clone() })
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        lock(&self.in_work.0).remove(&self.key);
    }
}

/// What a step did with an event.
enum Next {
    Settled,
    Claimed(Box<Claimed>),
    Held(Box<Pending>),
}

struct Batch<'a> {
    context: &'a Context,
    lease: &'a Lease,
    rules: &'a Arc<RuleSet>,
    refused: &'a mut Option<String>,
}

impl Batch<'_> {
    async fn settle(mut self, mut pending: Vec<Pending>) -> Result<(), Interruption> {
        // Others hold a claim for a publish and a mark: it is worth looking soon, and then less and less often.
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            let claimed;
            (claimed, pending) = self.record(pending).await?;
            let lost = self.publish(claimed).await?;
            pending.extend(lost);
            if pending.is_empty() {
                return Ok(());
            }
            sleep(backoff.pause(&self.context.env.random), Until::Held(self.lease)).await?;
        }
    }

    /// Records every event. Gives what is ours to publish, and what somebody else holds.
    async fn record(&mut self, pending: Vec<Pending>) -> Result<(Vec<Claimed>, Vec<Pending>), Interruption> {
        let (context, lease) = (self.context, self.lease);
        let outcomes: Vec<_> = futures_util::stream::iter(pending)
            .map(|pending| async move {
                let key = pending.item.key.clone();
                (key, record_one(context, lease, pending).await)
            })
            .buffered(STORE_CALLS)
            .collect()
            .await;
        let (mut claimed, mut held) = (Vec::new(), Vec::new());
        let mut interruption = None;
        for (key, outcome) in outcomes {
            match outcome {
                Ok(Next::Settled) => {}
                Ok(Next::Claimed(one)) => claimed.push(*one),
                Ok(Next::Held(one)) => held.push(*one),
                Err(GaveUp::Refused(error)) => self.refuse(&key, &error),
                Err(GaveUp::Interrupted(why)) => interruption = Some(why),
            }
        }
        match interruption {
            // Claims taken meanwhile are left to whoever takes them over.
            Some(why) => Err(why),
            None => Ok((claimed, held)),
        }
    }

    /// Publishes and marks every claimed alert. Gives the events whose claims were lost meanwhile, and those of which an
    /// alert that was taken over did not tell every rule.
    async fn publish(&mut self, claimed: Vec<Claimed>) -> Result<Vec<Pending>, Interruption> {
        let mut lost = Vec::new();
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
            lost.extend(self.publish_batch(batch).await?);
        }
        Ok(lost)
    }

    async fn render(&self, claimed: Claimed) -> (Claimed, Outbound) {
        let rules = Arc::clone(self.rules);
        let length = claimed.pending.event.record.len();
        let work = move || {
            let alert = render(&claimed.pending.event, &claimed.claim.alert, &rules);
            (claimed, alert)
        };
        self.context.env.compute.run_for(length, work).await
    }

    /// Publishes until every alert of the batch is accepted and marked, refused, or no longer ours. Gives what is left.
    async fn publish_batch(&mut self, batch: Vec<(Claimed, Outbound)>) -> Result<Vec<Pending>, Interruption> {
        let mut lost = Vec::new();
        let mut open = batch;
        let mut backoff = Backoff::default();
        let mut retrying = None;
        loop {
            let (kept, taken) = self.keep_claims(open).await?;
            lost.extend(taken);
            if kept.is_empty() {
                return Ok(lost);
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
                            lost.extend(Box::pin(self.publish_batch(vec![one])).await?);
                        }
                        return Ok(lost);
                    }
                    if error.class == ErrorClass::Permanent {
                        if claims.first().is_none_or(|claimed| self.is_refused(&claimed.pending.item.key, &error)) {
                            return Ok(lost);
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
                        let key = &claimed.pending.item.key;
                        if accepted_any {
                            // Others are accepted: it is this event's own fault.
                            self.count_failures(error.class, 1);
                            self.refuse(key, &error);
                        } else if !self.is_refused(key, &error) {
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
            lost.extend(self.mark(accepted).await?);
            if again.is_empty() {
                return Ok(lost);
            }
            open = again;
            retrying.get_or_insert_with(|| self.context.health.retrying(Dependency::Publisher));
            sleep(backoff.pause(&self.context.env.random), Until::Held(self.lease)).await?;
        }
    }

    /// Renews the claims that are no longer fresh. Gives the ones that are ours, and the events of those that are not.
    async fn keep_claims(
        &mut self,
        open: Vec<(Claimed, Outbound)>,
    ) -> Result<(Vec<(Claimed, Outbound)>, Vec<Pending>), Interruption> {
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
                    Ok(false) => lost.push(claimed.pending),
                    Err(GaveUp::Refused(error)) => self.refuse(&claimed.pending.item.key, &error),
                    Err(GaveUp::Interrupted(why)) => return Err(why),
                }
            }
        }
        Ok((kept, lost))
    }

    /// Marks accepted alerts. Once begun this is finished even if the message is lost meanwhile. Gives the events that
    /// have rules of which nothing was told yet.
    async fn mark(&mut self, accepted: Vec<(Claimed, String)>) -> Result<Vec<Pending>, Interruption> {
        let context = self.context;
        let outcomes: Vec<_> = futures_util::stream::iter(accepted)
            .map(|(claimed, id)| async move {
                let key = claimed.pending.item.key.clone();
                (key, mark_one(context, claimed, id).await)
            })
            .buffered(STORE_CALLS)
            .collect()
            .await;
        let (mut untold, mut interruption) = (Vec::new(), None);
        for (key, outcome) in outcomes {
            match outcome {
                // What is only recorded was settled with the claim.
                Ok(pending) if pending.item.alerting().is_subset(&pending.told) => {}
                Ok(pending) => untold.push(pending),
                Err(GaveUp::Refused(error)) => self.refuse(&key, &error),
                Err(GaveUp::Interrupted(why)) => interruption = Some(why),
            }
        }
        interruption.map_or(Ok(untold), Err)
    }

    /// Whether SNS refuses this event for its own sake; else the process is at fault, and the alert is tried again.
    fn is_refused(&mut self, key: &EventKey, error: &PortError) -> bool {
        match self.context.health.refused(Dependency::Publisher, PUBLISH, &key.event_id, error) {
            Refusal::Event => {
                self.count_failures(ErrorClass::Permanent, 1);
                self.refuse(key, error);
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
    let expired = pending
        .seen
        .as_ref()
        .filter(|(claim, since)| since.elapsed() >= claim.length)
        .map(|(claim, _)| claim.token.clone());
    let token = ClaimToken(context.env.random.token());
    let event = &pending.item.key.event_id;
    let (recorded, since) = persist(context, RECORD, event, Until::Held(lease), || {
        context.ports.store.record(&pending.item, &token, CLAIM_LENGTH, expired.as_ref())
    })
    .await?;
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
            Next::Claimed(Box::new(Claimed { pending, claim, since, _here: here }))
        }
        Recorded::Held(claim) => {
            let still = pending.seen.take().filter(|(seen, _)| seen.token == claim.token);
            // Seen only now: it stands still from this moment on, not from when the call began.
            pending.seen = Some(still.unwrap_or_else(|| (claim, Instant::now())));
            Next::Held(Box::new(pending))
        }
    })
}

async fn renew(context: &Context, lease: &Lease, claimed: &mut Claimed) -> Result<bool, GaveUp> {
    let fresh = ClaimToken(context.env.random.token());
    let event = &claimed.pending.item.key.event_id;
    let (ours, since) = persist(context, UPDATE, event, Until::Held(lease), || {
        context.ports.store.renew(&claimed.pending.item.key, &claimed.claim, &fresh)
    })
    .await?;
    claimed.claim.token = fresh;
    claimed.since = since;
    Ok(ours)
}

async fn mark_one(context: &Context, claimed: Claimed, sns_message_id: String) -> Result<Pending, GaveUp> {
    let severity = claimed.claim.alert.severity;
    context.metrics.alerts_published.with_label_values(&[severity.as_str()]).inc();
    let event = &claimed.pending.event;
    tracing::info!(
        alert.id = %claimed.claim.alert.alert_id,
        event.id = %event.key.event_id.escape_default(),
        event.name = event.facts.event_name.as_deref().unwrap_or(""),
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
    let Claimed { mut pending, claim, since: _, _here } = claimed;
    let mark = Mark { alert: claim.alert, alerted_at: context.env.clock.now(), sns_message_id };
    let key = &pending.item.key;
    let stop = Until::Stopping(&context.env.stop);
    persist(context, UPDATE, &key.event_id, stop, || context.ports.store.mark(key, &mark)).await?;
    pending.told.extend(mark.alert.rules);
    Ok(pending)
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
        } else {
            places.insert(event.key.clone(), merged.len());
            merged.push(event);
        }
    }
    merged
}
