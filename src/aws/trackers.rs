//! Trackers in the table of the events: counted in the transaction that stores the event, and their steps claimed and
//! marked by conditional updates.

use std::collections::BTreeMap;
use std::sync::Mutex;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::correlations::{correlated_in, sighting_of};
use super::dynamodb::{
    DynamoDb, Expression, GET, Item, MAX_ROUNDS, Seen, UPDATE, Written, claim_in, claim_text, conflict, key_of,
    rfc3339, unwritable,
};
use super::errors::{self, Operation};
use crate::alert::StoredItem;
use crate::claim::{Change, Claim, Mark};
use crate::env::lock;
use crate::ports::PortError;
use crate::tracker::{
    Count, CountKind, CrossAttempt, CrossDecision, Crossed, Crossing, Membership, TrackerId, TrackerKind, TrackerState,
    decide_crossing, quiet_after,
};

const TRANSACT: Operation =
    Operation { name: "dynamodb:TransactWriteItems", action: "dynamodb:PutItem and dynamodb:UpdateItem", ..UPDATE };

/// Trackers that are remembered at once.
const REMEMBERED: usize = 4096;

pub(super) const NAME: &str = "Name ";
pub(super) const ADDRESS: &str = "From ";

/// What trackers were last seen to hold. It saves requests and decides nothing: each write asserts what it relies on.
#[derive(Default)]
pub(super) struct Memory(Mutex<BTreeMap<TrackerId, TrackerState>>);

impl Memory {
    pub(super) fn of<'a>(&self, ids: impl Iterator<Item = &'a TrackerId>) -> BTreeMap<TrackerId, TrackerState> {
        let known = lock(&self.0);
        ids.filter_map(|id| Some((id.clone(), known.get(id)?.clone()))).collect()
    }

    fn put(&self, id: &TrackerId, state: Option<&TrackerState>) {
        let mut known = lock(&self.0);
        let Some(state) = state else {
            known.remove(id);
            return;
        };
        if known.len() >= REMEMBERED && !known.contains_key(id) {
            known.clear();
        }
        let mut state = state.clone();
        if let Some(correlated) = &mut state.correlated {
            // They are many, and decide nothing without those of other tasks.
            correlated.entries.clear();
            if correlated.told.is_empty() {
                // A bucket does not say it, and what was told stays told.
                let before = known.get(id).and_then(|state| state.correlated.as_ref());
                correlated.told = before.map(|before| before.told.clone()).unwrap_or_default();
            }
        }
        known.insert(id.clone(), state);
    }

    /// Of a correlation as a whole: remembers what was told.
    pub(super) fn told(&self, id: &TrackerId, whole: &TrackerState) {
        if let (Some(known), Some(whole)) = (lock(&self.0).get_mut(id), &whole.correlated)
            && let Some(known) = &mut known.correlated
            && !whole.told.is_empty()
        {
            known.told.clone_from(&whole.told);
        }
    }

    /// A correlation as its buckets show it, with what is known as told.
    pub(super) fn with_told(&self, id: &TrackerId, mut state: TrackerState) -> TrackerState {
        if let (Some(known), Some(correlated)) = (lock(&self.0).get(id), &mut state.correlated) {
            correlated.told = known.correlated.as_ref().map(|known| known.told.clone()).unwrap_or_default();
        }
        state
    }

    /// The length of a bucket that is known.
    pub(super) fn window(&self, id: &TrackerId) -> Option<u64> {
        lock(&self.0).get(id).map(|state| state.window)
    }
}

/// A tracker as it stands, with the text of its claim.
pub(super) struct Tracker {
    pub(super) state: TrackerState,
    pub(super) claim: Option<String>,
    /// Of `first_seen`: when its rule began.
    pub(super) since: Option<i64>,
}

impl DynamoDb {
    /// Writes to an event and counts it, all or nothing. Where trackers were not as they were believed to be, they are
    /// afterwards.
    pub(super) async fn transact(
        &self,
        item: &StoredItem,
        change: &Change,
        there: Option<&Seen>,
        trackers: &mut BTreeMap<TrackerId, TrackerState>,
    ) -> Result<Written, PortError> {
        let mut parts = vec![self.event_part(item, change, there)?];
        // What each further part counts in.
        let mut counted = Vec::new();
        for count in &change.counts {
            let member = &count.membership;
            let expires = expiry(item, member);
            counted.push(&member.tracker);
            match &member.sighting {
                None => parts.push(self.part(&member.tracker, count_of(count, expires)?)?),
                Some(sighting) => {
                    parts.push(self.part(&member.tracker, sighting_of(count, sighting, expires)?)?);
                    if count.kind == CountKind::Opening {
                        counted.push(&sighting.keys);
                        parts.push(self.key_part(sighting, expires)?);
                    }
                }
            }
        }
        let cancelled = self
            .meter
            .call(TRANSACT.name, async {
                match self.client.transact_write_items().set_transact_items(Some(parts)).send().await {
                    Ok(_) => Ok(None),
                    Err(SdkError::ServiceError(context)) if context.err().is_transaction_canceled_exception() => {
                        match context.into_err() {
                            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                                Reasons::read(cancelled.cancellation_reasons.unwrap_or_default(), &self.resource())
                                    .map(Some)
                            }
                            _ => Ok(Some(Reasons::default())),
                        }
                    }
                    Err(error) => Err(errors::classify(error, &TRANSACT, &self.resource())),
                }
            })
            .await?;
        let Some(reasons) = cancelled else {
            for count in &change.counts {
                let id = &count.membership.tracker;
                self.memory.put(id, Some(&count.applied(trackers.get(id).cloned())));
            }
            return Ok(Written::Done);
        };
        for (at, id) in counted.into_iter().enumerate() {
            let state = match reasons.of(at.saturating_add(1)) {
                Reason::Fine => continue,
                Reason::Failed(Some(item)) => tracker_in(item).map(|tracker| tracker.state),
                Reason::Failed(None) => self.read_tracker(id).await?.map(|tracker| tracker.state),
            };
            self.memory.put(id, state.as_ref());
            match state {
                Some(state) => _ = trackers.insert(id.clone(), state),
                None => _ = trackers.remove(id),
            }
        }
        Ok(match reasons.of(0) {
            Reason::Fine => Written::Miscounted,
            Reason::Failed(item) => conflict(item.cloned()),
        })
    }

    /// A consistent read; `None` where there is no tracker.
    pub(super) async fn read_tracker(&self, id: &TrackerId) -> Result<Option<Tracker>, PortError> {
        let key = key_of(&id.key());
        let item = self
            .meter
            .call(GET.name, async {
                let request = self.client.get_item().table_name(&self.table).set_key(Some(key)).consistent_read(true);
                let answer = request.send().await.map_err(|error| errors::classify(error, &GET, &self.resource()))?;
                Ok(answer.item)
            })
            .await?;
        let tracker = item.as_ref().and_then(tracker_in);
        self.memory.put(id, tracker.as_ref().map(|tracker| &tracker.state));
        Ok(tracker)
    }

    /// See [`crate::ports::AlertStore::cross`].
    pub(super) async fn cross_tracker(&self, attempt: CrossAttempt<'_>) -> Result<Crossed, PortError> {
        let id = attempt.tracker;
        if id.kind() == TrackerKind::Correlation {
            return self.cross_correlation(attempt).await;
        }
        // A step that was due is due, or told; who writes to a tracker without a claim finds out. What needs no write needs
        // to be read.
        let remembered = self.memory.of(std::iter::once(id)).remove(id);
        let remembered = remembered.filter(|state| state.is_due() && state.claim.is_none());
        let mut there = match remembered {
            Some(state) => Some(Tracker { state, claim: None, since: None }),
            None => self.read_tracker(id).await?,
        };
        for _ in 0..MAX_ROUNDS {
            let claim = match decide_crossing(there.as_ref().map(|tracker| &tracker.state), attempt) {
                // The last two are of correlations only.
                CrossDecision::Clear | CrossDecision::Remember(_) | CrossDecision::Begin(_) => {
                    return Ok(Crossed::Clear);
                }
                CrossDecision::Held(claim) => return Ok(Crossed::Held(claim)),
                CrossDecision::Claimed(claim) => return self.claimed(id, claim, there).await,
                CrossDecision::Write(claim, _) => claim,
            };
            let Some(seen) = &there else { return Ok(Crossed::Clear) };
            let mut claiming = Expression {
                update: "SET #claim = :claim".to_owned(),
                condition: "#quiet = :quiet".to_owned(),
                ..Expression::default()
            };
            claiming.name("#claim", "Claim");
            claiming.name("#quiet", "Quiet");
            claiming.value(":claim", claim_text(&claim)?);
            claiming.value(":quiet", number(seen.state.quiet));
            claiming.if_claim_is(seen.claim.as_deref());
            let is_taken_over = seen.state.claim.as_ref().is_some_and(|before| before.alert == claim.alert);
            match self.update_tracker(id, claiming).await? {
                Updated::Done(now) => {
                    if is_taken_over {
                        self.meter.metrics.claims_taken_over.inc();
                    }
                    return self.claimed(id, claim, now).await;
                }
                Updated::Conflict(now) => there = now,
            }
        }
        Err(errors::contended(&UPDATE, &format!("{MAX_ROUNDS} others wrote to the item of group {id} in between")))
    }

    async fn claimed(&self, id: &TrackerId, claim: Claim, there: Option<Tracker>) -> Result<Crossed, PortError> {
        let Some(Tracker { state, .. }) = there else { return Ok(Crossed::Clear) };
        let step = state.step();
        let previous = match id.previous(state.window) {
            Some(before) if step == 1 => self.read_tracker(&before).await?.map(|tracker| tracker.state.count),
            _ => None,
        };
        Ok(Crossed::Claimed(Box::new(Crossing { tracker: id.clone(), step, claim, state, previous })))
    }

    /// See [`crate::ports::AlertStore::mark_step`].
    pub(super) async fn mark_tracker(&self, id: &TrackerId, step: u64, mark: &Mark) -> Result<bool, PortError> {
        if id.kind() == TrackerKind::Correlation {
            return self.mark_correlation(id, step, mark).await;
        }
        let mut marking = Expression {
            update: "SET #quiet = :quiet, #at = :at, #message = :message ADD #alerts :alert".to_owned(),
            condition: "#quiet < :quiet".to_owned(),
            ..Expression::default()
        };
        let names = [("#quiet", "Quiet"), ("#at", "AlertedAt"), ("#message", "SnsMessageId"), ("#alerts", "AlertIds")];
        for (placeholder, name) in names {
            marking.name(placeholder, name);
        }
        marking.value(":quiet", number(quiet_after(step)));
        marking.value(":at", AttributeValue::S(rfc3339(mark.alerted_at)?));
        marking.value(":message", AttributeValue::S(mark.sns_message_id.clone()));
        marking.value(":alert", AttributeValue::Ss(vec![mark.alert.alert_id.clone()]));
        let (Updated::Done(now) | Updated::Conflict(now)) = self.update_tracker(id, marking).await?;
        // One that expired in between has nothing more to tell.
        Ok(now.is_none_or(|tracker| !tracker.state.is_due()))
    }

    pub(super) async fn update_tracker(&self, id: &TrackerId, expression: Expression) -> Result<Updated, PortError> {
        let Expression { update, condition, names, values } = expression;
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_of(&id.key())))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let sent = self
            .meter
            .call(UPDATE.name, async {
                match request.send().await {
                    Ok(answer) => Ok((true, answer.attributes)),
                    Err(SdkError::ServiceError(context)) if context.err().is_conditional_check_failed_exception() => {
                        match context.into_err() {
                            UpdateItemError::ConditionalCheckFailedException(failed) => Ok((false, failed.item)),
                            _ => Ok((false, None)),
                        }
                    }
                    Err(error) => Err(errors::classify(error, &UPDATE, &self.resource())),
                }
            })
            .await?;
        let (done, item) = sent;
        let now = match item.as_ref().and_then(tracker_in) {
            Some(tracker) => {
                self.memory.put(id, Some(&tracker.state));
                Some(tracker)
            }
            None => self.read_tracker(id).await?,
        };
        Ok(if done { Updated::Done(now) } else { Updated::Conflict(now) })
    }
}

/// How a conditional update of a tracker ended, and the tracker now.
pub(super) enum Updated {
    Done(Option<Tracker>),
    Conflict(Option<Tracker>),
}

/// Why a transaction was cancelled, part by part.
#[derive(Default)]
struct Reasons(Vec<CancellationReason>);

enum Reason<'a> {
    Fine,
    /// Its condition failed, on this item where the answer shows it.
    Failed(Option<&'a Item>),
}

impl Reasons {
    /// Failed conditions are answers; anything else is an error.
    fn read(reasons: Vec<CancellationReason>, resource: &str) -> Result<Self, PortError> {
        let code = |reason: &CancellationReason| reason.code().unwrap_or("None").to_owned();
        let is_condition = |reason: &CancellationReason| code(reason) == "ConditionalCheckFailed";
        if reasons.iter().any(is_condition) {
            return Ok(Self(reasons));
        }
        let Some(reason) = reasons.iter().find(|reason| code(reason) != "None") else {
            // It does not say why: everything is read anew.
            return Ok(Self::default());
        };
        let (code, message) = (code(reason), reason.message());
        if code == "TransactionConflict" {
            return Err(errors::contended(&TRANSACT, message.unwrap_or("another transaction has one of the items")));
        }
        Err(errors::classify_entry(&TRANSACT, resource, &code, message, code.starts_with("Validation")))
    }

    fn of(&self, part: usize) -> Reason<'_> {
        match self.0.get(part) {
            Some(reason) if reason.code() == Some("ConditionalCheckFailed") => {
                Reason::Failed(reason.item().filter(|item| !item.is_empty()))
            }
            Some(_) => Reason::Fine,
            None => Reason::Failed(None),
        }
    }
}

/// When a tracker may go: with its events, but not before its bucket ends, and of a correlation not while its neighbours
/// count.
fn expiry(item: &StoredItem, member: &Membership) -> i64 {
    let windows = if member.sighting.is_some() { 3 } else { 1 };
    let needed = i64::try_from(member.window.saturating_mul(windows)).unwrap_or(i64::MAX);
    item.expires_at.unix_timestamp().max(item.detected_at.unix_timestamp().saturating_add(needed))
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Counts an event in a tracker that still is as the count relies on.
fn count_of(count: &Count, expires: i64) -> Result<Expression, PortError> {
    let Count { membership, kind, name, address, is_first, is_last } = count;
    let Membership { rule, key, window, at, .. } = membership;
    let mut counting = Expression::default();
    let mut sets = vec!["#expires = :expires"];
    counting.name("#expires", "ExpiresAt");
    counting.value(":expires", AttributeValue::N(expires.to_string()));
    let mut conditions = Vec::new();
    match kind {
        CountKind::Opening => conditions.push("attribute_not_exists(#count)"),
        CountKind::Loud => conditions.push("attribute_exists(#count)"),
        CountKind::Excess => {}
        CountKind::Quiet => {
            conditions.push("#count < #quiet");
            counting.name("#quiet", "Quiet");
        }
    }
    if *kind == CountKind::Opening {
        sets.extend(["#quiet = :zero", "#rule = :rule", "#key = :key", "#window = :window"]);
        for (placeholder, name) in [("#quiet", "Quiet"), ("#rule", "RuleId"), ("#key", "Key"), ("#window", "Window")] {
            counting.name(placeholder, name);
        }
        let key = serde_json::to_string(key).map_err(|error| unwritable(&error))?;
        counting.value(":zero", number(0));
        counting.value(":rule", AttributeValue::S(rule.clone()));
        counting.value(":key", AttributeValue::S(key));
        counting.value(":window", number(*window));
    } else {
        if *is_first {
            conditions.push("#first > :at");
        }
        if *is_last {
            conditions.push("#last < :at");
        }
    }
    for (is_so, placeholder, name, set) in
        [(is_first, "#first", "First", "#first = :at"), (is_last, "#last", "Last", "#last = :at")]
    {
        if *is_so {
            sets.push(set);
            counting.name(placeholder, name);
            counting.value(":at", AttributeValue::S(at.clone()));
        }
    }
    let mut adds = vec!["#count :one"];
    counting.name("#count", "Count");
    counting.value(":one", number(1));
    for (slot, placeholder, prefix, add) in
        [(name, "#name", NAME, "#name :one"), (address, "#address", ADDRESS, "#address :one")]
    {
        if let Some(slot) = slot {
            adds.push(add);
            counting.name(placeholder, &format!("{prefix}{slot}"));
        }
    }
    counting.update = format!("SET {} ADD {}", sets.join(", "), adds.join(", "));
    counting.condition = conditions.join(" AND ");
    Ok(counting)
}

/// `None` for an item that is no tracker.
pub(super) fn tracker_in(item: &Item) -> Option<Tracker> {
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<u64>().ok();
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
    let slots = |prefix: &str| {
        let named = item.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
        named.filter_map(|(name, value)| Some((name.to_owned(), value.as_n().ok()?.parse().ok()?))).collect()
    };
    let since = item.get("Since").and_then(|value| value.as_n().ok()?.parse::<i64>().ok());
    number("Count").or_else(|| number("Quiet")).or(since.map(|_| 0))?;
    let (claim, claim_text) = claim_in(item);
    let state = TrackerState {
        rule: text("RuleId"),
        key: serde_json::from_str(&text("Key")).unwrap_or_default(),
        window: number("Window").unwrap_or_default(),
        count: number("Count").unwrap_or_default(),
        quiet: number("Quiet").unwrap_or_default(),
        first: text("First"),
        last: text("Last"),
        names: slots(NAME),
        addresses: slots(ADDRESS),
        claim,
        expires: number("ExpiresAt").unwrap_or_default(),
        correlated: correlated_in(item),
    };
    Some(Tracker { state, claim: claim_text, since })
}
