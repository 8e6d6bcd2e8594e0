//! Trackers of correlations: a bucket's item holds its events, and the key's head what was told and is claimed.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};

use super::dynamodb::{DynamoDb, Expression, GET, Item, MAX_ROUNDS, UPDATE, claim_text, key_of, rfc3339, unwritable};
use super::errors::{self, Operation};
use super::trackers::{ADDRESS, NAME, Updated, number, tracker_in};
use crate::claim::{Claim, Mark};
use crate::ports::PortError;
use crate::tracker::{
    Correlated, Count, CountKind, CrossAttempt, CrossDecision, Crossed, Crossing, Entry, Membership, Sighting, Span,
    TrackerId, TrackerState, decide_crossing, elsewhere, room_for_one, whole,
};

const QUERY: Operation = Operation { name: "dynamodb:Query", action: "dynamodb:Query", ..GET };

/// Trackers of one key, as far as they were read.
type Known = BTreeMap<TrackerId, TrackerState>;

impl DynamoDb {
    /// See [`crate::ports::AlertStore::cross`].
    pub(super) async fn cross_correlation(&self, attempt: CrossAttempt<'_>) -> Result<Crossed, PortError> {
        let id = attempt.tracker;
        let Some(mut known) = self.read_buckets(id).await? else { return Ok(Crossed::Clear) };
        for round in 0..MAX_ROUNDS {
            if round > 0 {
                // Others wrote: to the head, and perhaps events before that.
                match self.read_buckets(id).await? {
                    Some(buckets) => known.extend(buckets),
                    None => return Ok(Crossed::Clear),
                }
            }
            let Some(crossed) = self.cross_round(attempt, &mut known).await? else { continue };
            return Ok(crossed);
        }
        Err(errors::contended(
            &UPDATE,
            &format!("{MAX_ROUNDS} others wrote to the items of correlation {id} in between"),
        ))
    }

    /// One look at a key; `None` where others wrote at the same time.
    async fn cross_round(&self, attempt: CrossAttempt<'_>, known: &mut Known) -> Result<Option<Crossed>, PortError> {
        let (id, head) = (attempt.tracker, attempt.tracker.steps());
        let mut head_claim = None;
        let mut has_head = false;
        loop {
            let Some(state) = whole(id, |id| known.get(id).cloned()) else { return Ok(Some(Crossed::Clear)) };
            if !has_head {
                if decide_crossing(Some(&self.memory.with_told(id, state)), attempt) == CrossDecision::Clear {
                    // There is no episode, or what this task knows as told covers it: nothing is ever untold.
                    return Ok(Some(Crossed::Clear));
                }
                has_head = true;
                if let Some(tracker) = self.read_tracker(&head).await? {
                    head_claim = tracker.claim;
                    known.insert(head.clone(), tracker.state);
                } else {
                    known.remove(&head);
                }
                continue;
            }
            let decision = decide_crossing(Some(&state), attempt);
            let there = known.get(&head);
            // Items that are no longer a correlation's tell nothing.
            let Some(correlated) = &state.correlated else { return Ok(Some(Crossed::Clear)) };
            match decision {
                CrossDecision::Clear => {
                    self.memory.told(id, &state);
                    return Ok(Some(Crossed::Clear));
                }
                CrossDecision::Held(claim) => return Ok(Some(Crossed::Held(claim))),
                CrossDecision::Claimed(claim) => return self.crossing(id, &claim, known).await,
                CrossDecision::Write(claim, span) => {
                    let is_taken_over = state.claim.as_ref().is_some_and(|before| before.alert == claim.alert);
                    let mut writing = head_of(&state, correlated, there, head_claim.as_deref(), state.quiet)?;
                    writing.set("#claim", "Claim", ":claim", claim_text(&claim)?);
                    writing.set("#pending", "Pending", ":pending", texts(span.as_slice()));
                    // Marking it adds one.
                    let room = room_for_one(&correlated.told);
                    if room.len() < correlated.told.len() {
                        writing.set("#told", "Told", ":told", texts(&room));
                    }
                    let Updated::Done(Some(now)) = self.update_tracker(&head, writing).await? else { return Ok(None) };
                    if is_taken_over {
                        self.meter.metrics.claims_taken_over.inc();
                    }
                    known.insert(head, now.state);
                    return self.crossing(id, &claim, known).await;
                }
                CrossDecision::Remember(told) => {
                    let mut writing = head_of(&state, correlated, there, head_claim.as_deref(), state.step())?;
                    writing.set("#told", "Told", ":told", texts(&told));
                    let Updated::Done(Some(now)) = self.update_tracker(&head, writing).await? else { return Ok(None) };
                    head_claim = now.claim;
                    known.insert(head.clone(), now.state);
                }
                CrossDecision::Begin(from) => {
                    let at = correlated.since_at();
                    let since = self.begin(&at, from).await?;
                    let correlated = Some(Correlated { since: Some(since), ..correlated.clone() });
                    known.insert(at, TrackerState { correlated, ..TrackerState::default() });
                }
            }
        }
    }

    /// What is claimed, with the events of it as they are known now; `None` where the bucket has gone.
    async fn crossing(&self, id: &TrackerId, claim: &Claim, known: &mut Known) -> Result<Option<Crossed>, PortError> {
        let Some(mut state) = whole(id, |id| known.get(id).cloned()) else { return Ok(None) };
        let step = state.step();
        if let Some(there) = elsewhere(id, &state)
            && let Some(buckets) = self.read_buckets(&there).await?
        {
            known.extend(buckets);
            state = whole(&there, |id| known.get(id).cloned()).unwrap_or(state);
        }
        let tracker = id.clone();
        Ok(Some(Crossed::Claimed(Box::new(Crossing { tracker, step, claim: claim.clone(), state, previous: None }))))
    }

    /// See [`crate::ports::AlertStore::mark_step`]. Whether more is due is left to the next look.
    pub(super) async fn mark_correlation(&self, id: &TrackerId, step: u64, mark: &Mark) -> Result<bool, PortError> {
        let mut marking = Expression {
            update: "SET #told = list_append(if_not_exists(#told, :none), #pending), #quiet = :quiet".to_owned(),
            condition: "(attribute_not_exists(#quiet) OR #quiet < :quiet) AND attribute_exists(#pending)".to_owned(),
            ..Expression::default()
        };
        for (placeholder, name) in [("#told", "Told"), ("#pending", "Pending"), ("#quiet", "Quiet")] {
            marking.name(placeholder, name);
        }
        marking.value(":none", AttributeValue::L(Vec::new()));
        marking.value(":quiet", number(step));
        marking.set("#at", "AlertedAt", ":at", AttributeValue::S(rfc3339(mark.alerted_at)?));
        marking.set("#message", "SnsMessageId", ":message", AttributeValue::S(mark.sns_message_id.clone()));
        // The last one: a key has steps without end.
        let alert = AttributeValue::Ss(vec![mark.alert.alert_id.clone()]);
        marking.set("#alerts", "AlertIds", ":alert", alert);
        let (Updated::Done(now) | Updated::Conflict(now)) = self.update_tracker(&id.steps(), marking).await?;
        if let Some(now) = now {
            self.memory.told(id, &now.state);
        }
        Ok(false)
    }

    /// The bucket and its neighbours; `None` where the bucket is not there.
    async fn read_buckets(&self, id: &TrackerId) -> Result<Option<Known>, PortError> {
        let window = match self.memory.window(id) {
            Some(window) => window,
            None => match self.read_tracker(id).await? {
                Some(tracker) => tracker.state.window,
                None => return Ok(None),
            },
        };
        let [first, _, last] = id.neighbours(window);
        let answer = self
            .meter
            .call(QUERY.name, async {
                let request = self
                    .client
                    .query()
                    .table_name(&self.table)
                    .consistent_read(true)
                    .key_condition_expression("#id = :id AND #at BETWEEN :first AND :last")
                    .expression_attribute_names("#id", "EventId")
                    .expression_attribute_names("#at", "Timestamp")
                    .expression_attribute_values(":id", AttributeValue::S(id.partition()))
                    .expression_attribute_values(":first", AttributeValue::S(first.from().to_owned()))
                    .expression_attribute_values(":last", AttributeValue::S(last.from().to_owned()));
                request.send().await.map_err(|error| errors::classify(error, &QUERY, &self.resource()))
            })
            .await?;
        let mut known = Known::new();
        for item in answer.items() {
            let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
            let key = crate::alert::EventKey { event_id: text("EventId"), timestamp: text("Timestamp") };
            if let (Some(id), Some(tracker)) = (TrackerId::of_key(&key), tracker_in(item)) {
                known.insert(id, tracker.state);
            }
        }
        Ok(known.contains_key(id).then_some(known))
    }

    /// Says that a rule's first key was seen at `from`, or before; gives when it was.
    async fn begin(&self, at: &TrackerId, from: i64) -> Result<i64, PortError> {
        let mut beginning = Expression {
            update: "SET #since = :from".to_owned(),
            condition: "attribute_not_exists(#since) OR #since > :from".to_owned(),
            ..Expression::default()
        };
        beginning.name("#since", "Since");
        beginning.value(":from", AttributeValue::N(from.to_string()));
        let (Updated::Done(now) | Updated::Conflict(now)) = self.update_tracker(at, beginning).await?;
        Ok(now.and_then(|tracker| tracker.since).unwrap_or(from).min(from))
    }

    /// The part of a transaction that counts a key, if there are not too many.
    pub(super) fn key_part(&self, sighting: &Sighting, expires: i64) -> Result<TransactWriteItem, PortError> {
        let mut counting = Expression {
            update: "SET #expires = :expires ADD #count :one".to_owned(),
            condition: "attribute_not_exists(#count) OR #count < :most".to_owned(),
            ..Expression::default()
        };
        counting.name("#expires", "ExpiresAt");
        counting.name("#count", "Count");
        counting.value(":expires", AttributeValue::N(expires.to_string()));
        counting.value(":one", number(1));
        counting.value(":most", number(u64::from(sighting.correlation.limits().max_keys)));
        self.part(&sighting.keys, counting)
    }

    pub(super) fn part(&self, id: &TrackerId, expression: Expression) -> Result<TransactWriteItem, PortError> {
        let Expression { update, condition, names, values } = expression;
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key_of(&id.key())))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build();
        Ok(TransactWriteItem::builder().update(update.map_err(|error| unwritable(&error))?).build())
    }
}

/// A write to a head that still is as it was seen.
fn head_of(
    state: &TrackerState,
    correlated: &Correlated,
    there: Option<&TrackerState>,
    claim: Option<&str>,
    quiet: u64,
) -> Result<Expression, PortError> {
    let mut writing = Expression { update: "SET".to_owned(), ..Expression::default() };
    let correlation = serde_json::to_string(&correlated.correlation).map_err(|error| unwritable(&error))?;
    writing.name("#rule", "RuleId");
    writing.value(":rule", AttributeValue::S(state.rule.clone()));
    writing.update.push_str(" #rule = :rule");
    writing.set("#correlation", "Correlation", ":correlation", AttributeValue::S(correlation));
    writing.set("#keys", "Keys", ":keys", AttributeValue::S(correlated.keys.to_string()));
    writing.set("#window", "Window", ":window", number(state.window));
    writing.set("#expires", "ExpiresAt", ":expires", number(state.expires));
    writing.set("#quiet", "Quiet", ":next", number(quiet));
    if there.is_some() {
        writing.condition.push_str("#quiet = :quiet");
        writing.value(":quiet", number(state.quiet));
    } else {
        writing.condition.push_str("attribute_not_exists(#quiet)");
    }
    writing.name("#claim", "Claim");
    writing.if_claim_is(claim);
    Ok(writing)
}

fn texts(spans: &[Span]) -> AttributeValue {
    AttributeValue::L(spans.iter().map(|span| AttributeValue::S(span.text())).collect())
}

/// Adds an event to a bucket.
pub(super) fn sighting_of(count: &Count, sighting: &Sighting, expires: i64) -> Result<Expression, PortError> {
    let Membership { rule, key, window, .. } = &count.membership;
    let mut adding = Expression { update: "SET #rule = :rule".to_owned(), ..Expression::default() };
    adding.name("#rule", "RuleId");
    adding.value(":rule", AttributeValue::S(rule.clone()));
    let text =
        |text: Result<String, serde_json::Error>| text.map(AttributeValue::S).map_err(|error| unwritable(&error));
    adding.set("#key", "Key", ":key", text(serde_json::to_string(key))?);
    adding.set("#correlation", "Correlation", ":correlation", text(serde_json::to_string(&sighting.correlation))?);
    adding.set("#keys", "Keys", ":keys", AttributeValue::S(sighting.keys.to_string()));
    adding.set("#window", "Window", ":window", number(*window));
    adding.set("#expires", "ExpiresAt", ":expires", AttributeValue::N(expires.to_string()));
    let mut adds = vec!["#count :one", "#entries :entries"];
    adding.name("#count", "Count");
    adding.name("#entries", "Entries");
    adding.value(":one", number(1));
    adding.value(":entries", AttributeValue::Ss(vec![sighting.entry.text()]));
    for (slot, placeholder, prefix, add) in
        [(&count.name, "#name", NAME, "#name :one"), (&count.address, "#address", ADDRESS, "#address :one")]
    {
        if let Some(slot) = slot {
            adds.push(add);
            adding.name(placeholder, &format!("{prefix}{slot}"));
        }
    }
    adding.update = format!("{} ADD {}", adding.update, adds.join(", "));
    adding.condition = match count.kind {
        CountKind::Opening => "attribute_not_exists(#count)".to_owned(),
        _ if sighting.has_event_limit() => {
            adding.value(":most", number(u64::from(sighting.correlation.limits().max_events)));
            "attribute_exists(#count) AND #count < :most".to_owned()
        }
        _ => "attribute_exists(#count)".to_owned(),
    };
    Ok(adding)
}

/// What an item says of a correlation.
pub(super) fn correlated_in(item: &Item) -> Option<Correlated> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
    let entries = item.get("Entries").and_then(|value| value.as_ss().ok());
    let spans = |name: &str| -> Vec<Span> {
        let spans = item.get(name).and_then(|value| value.as_l().ok());
        spans.into_iter().flatten().filter_map(|span| Span::read(span.as_s().ok()?)).collect()
    };
    Some(Correlated {
        correlation: serde_json::from_str(text("Correlation")?).ok()?,
        entries: entries.into_iter().flatten().filter_map(|entry| Entry::read(entry)).collect(),
        told: spans("Told"),
        pending: spans("Pending").first().copied(),
        since: None,
        keys: TrackerId::read(text("Keys")?)?,
    })
}
