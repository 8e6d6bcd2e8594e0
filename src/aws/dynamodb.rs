//! Detected events in a `DynamoDB` table: one item for one event, and the claim on its alert beside it. Trackers stand in
//! the same table (`trackers.rs`).

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::{BoxError, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeySchemaElement, KeyType, Put, ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
    TableDescription, TableStatus, TransactWriteItem, Update,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Meter;
use super::errors::{self, Operation};
use super::trackers::Memory;
use crate::alert::{EventKey, Source, StoredEvent, StoredItem};
use crate::claim::{Attempt, Change, Claim, ClaimToken, Decision, ItemState, Mark, Recorded, decide};
use crate::ports::{AlertStore, ErrorClass, Fault, PortError};
use crate::tracker::{Count, CrossAttempt, Crossed, TrackerId};

const PUT: Operation = Operation {
    name: "dynamodb:PutItem",
    action: "dynamodb:PutItem",
    kms: "kms:Decrypt",
    refused: ErrorClass::Config,
    invalid: ErrorClass::Permanent,
};
pub(super) const UPDATE: Operation = Operation { name: "dynamodb:UpdateItem", action: "dynamodb:UpdateItem", ..PUT };
pub(super) const GET: Operation = Operation { name: "dynamodb:GetItem", action: "dynamodb:GetItem", ..PUT };
const DESCRIBE: Operation =
    Operation { name: "dynamodb:DescribeTable", action: "dynamodb:DescribeTable", invalid: ErrorClass::Config, ..PUT };
const PROBE: Operation = Operation { invalid: ErrorClass::Config, ..GET };

/// How often one call decides anew because somebody else wrote in between.
pub(super) const MAX_ROUNDS: usize = 8;

/// How long a mark outlives an item that expired before it was marked.
const ORPHAN_LIFE: time::Duration = time::Duration::DAY;

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) struct DynamoDb {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) meter: Meter,
    pub(super) memory: Memory,
}

/// DynamoDB answers `{}` where it has nothing to say. An empty answer is that of something in between, and would count as
/// stored.
#[derive(Debug)]
pub(super) struct NeverEmpty;

impl Intercept for NeverEmpty {
    fn name(&self) -> &'static str {
        "NeverEmpty"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        if answer.status().is_success() && answer.body().content_length() == Some(0) {
            return Err("the answer is empty, which none of DynamoDB is".into());
        }
        Ok(())
    }
}

/// What an item that is already there says.
#[derive(Debug, Default)]
pub(super) struct Seen {
    state: ItemState,
    /// `Claim` as it stands, which the next write must find unchanged.
    claim: Option<String>,
}

/// How a conditional write ended.
pub(super) enum Written {
    Done,
    /// The condition failed, on this item where the answer shows it.
    Conflict(Option<Seen>),
    /// Only trackers were not as they were believed to be.
    Miscounted,
}

/// The texts of a conditional update, and what they stand for.
#[derive(Default)]
pub(super) struct Expression {
    pub(super) update: String,
    pub(super) condition: String,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// Only if `#claim` still is what was seen: this text, or nothing.
    pub(super) fn if_claim_is(&mut self, seen: Option<&str>) {
        match seen {
            Some(text) => {
                self.condition.push_str(" AND #claim = :seen");
                self.value(":seen", AttributeValue::S(text.to_owned()));
            }
            None => self.condition.push_str(" AND attribute_not_exists(#claim)"),
        }
    }

    /// One more of what is set.
    pub(super) fn set(&mut self, name: &str, attribute: &str, value: &str, is: AttributeValue) {
        for part in [", ", name, " = ", value] {
            self.update.push_str(part);
        }
        self.name(name, attribute);
        self.value(value, is);
    }

    pub(super) fn name(&mut self, placeholder: &str, name: &str) {
        self.names.insert(placeholder.to_owned(), name.to_owned());
    }

    pub(super) fn value(&mut self, placeholder: &str, value: AttributeValue) {
        self.values.insert(placeholder.to_owned(), value);
    }
}

impl DynamoDb {
    pub(super) fn new(sdk: &SdkConfig, table: &str, meter: Meter) -> Self {
        let settings = aws_sdk_dynamodb::config::Builder::from(sdk).interceptor(NeverEmpty);
        Self { client: Client::from_conf(settings.build()), table: table.to_owned(), meter, memory: Memory::default() }
    }

    pub(super) fn resource(&self) -> String {
        format!("table {}", self.table)
    }

    async fn put_new(&self, item: &StoredItem, change: &Change) -> Result<Written, PortError> {
        let item = attributes(item, change)?;
        self.meter
            .call(PUT.name, async {
                let sent = self
                    .client
                    .put_item()
                    .table_name(&self.table)
                    .set_item(Some(item))
                    .condition_expression("attribute_not_exists(#id)")
                    .expression_attribute_names("#id", "EventId")
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                    .send()
                    .await;
                match sent {
                    Ok(_) => Ok(Written::Done),
                    Err(SdkError::ServiceError(context)) if context.err().is_conditional_check_failed_exception() => {
                        match context.into_err() {
                            PutItemError::ConditionalCheckFailedException(failed) => Ok(conflict(failed.item)),
                            _ => Ok(Written::Conflict(None)),
                        }
                    }
                    Err(error) => Err(errors::classify(error, &PUT, &self.resource())),
                }
            })
            .await
    }

    /// Writes to an item that is still as it was seen.
    async fn write_change(&self, key: &EventKey, change: &Change, seen: &Seen) -> Result<Written, PortError> {
        let Expression { update, condition, names, values } = change_of(change, seen)?;
        self.meter
            .call(UPDATE.name, async {
                let sent = self
                    .client
                    .update_item()
                    .table_name(&self.table)
                    .set_key(Some(key_of(key)))
                    .update_expression(update)
                    .condition_expression(condition)
                    .set_expression_attribute_names(Some(names))
                    .set_expression_attribute_values(Some(values))
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                    .send()
                    .await;
                self.written(sent.map(drop))
            })
            .await
    }

    /// The part of a transaction that stores an event, or writes to one that is still as it was seen.
    pub(super) fn event_part(
        &self,
        item: &StoredItem,
        change: &Change,
        there: Option<&Seen>,
    ) -> Result<TransactWriteItem, PortError> {
        let all_old = ReturnValuesOnConditionCheckFailure::AllOld;
        let part = TransactWriteItem::builder();
        let part = if let Some(seen) = there {
            let Expression { update, condition, names, values } = change_of(change, seen)?;
            let update = Update::builder()
                .table_name(&self.table)
                .set_key(Some(key_of(&item.key)))
                .update_expression(update)
                .condition_expression(condition)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values))
                .return_values_on_condition_check_failure(all_old)
                .build();
            part.update(update.map_err(|error| unwritable(&error))?)
        } else {
            let put = Put::builder()
                .table_name(&self.table)
                .set_item(Some(attributes(item, change)?))
                .condition_expression("attribute_not_exists(#id)")
                .expression_attribute_names("#id", "EventId")
                .return_values_on_condition_check_failure(all_old)
                .build();
            part.put(put.map_err(|error| unwritable(&error))?)
        };
        Ok(part.build())
    }

    fn written(&self, sent: Result<(), SdkError<UpdateItemError>>) -> Result<Written, PortError> {
        match sent {
            Ok(()) => Ok(Written::Done),
            Err(SdkError::ServiceError(context)) if context.err().is_conditional_check_failed_exception() => {
                match context.into_err() {
                    UpdateItemError::ConditionalCheckFailedException(failed) => Ok(conflict(failed.item)),
                    _ => Ok(Written::Conflict(None)),
                }
            }
            Err(error) => Err(errors::classify(error, &UPDATE, &self.resource())),
        }
    }

    /// What is beyond a limit is never silent.
    fn tell_excess(&self, change: &Change) {
        for rule in &change.excess {
            let excess = self.meter.metrics.correlation_excess.with_label_values(&[rule]);
            if excess.get() == 0 {
                tracing::warn!(
                    rule.id = %rule,
                    "an event is not counted by its rule: max_keys or max_events is reached (told once; \
                     trailhound_correlation_excess_total counts)"
                );
            }
            excess.inc();
        }
    }

    /// A consistent read; `None` where there is no item.
    async fn read(&self, key: &EventKey) -> Result<Option<Seen>, PortError> {
        self.meter
            .call(GET.name, async {
                let sent = self
                    .client
                    .get_item()
                    .table_name(&self.table)
                    .set_key(Some(key_of(key)))
                    .consistent_read(true)
                    .projection_expression("#id, #rules, #settled, #claim, #groups")
                    .expression_attribute_names("#id", "EventId")
                    .expression_attribute_names("#rules", "Rules")
                    .expression_attribute_names("#settled", "SettledRules")
                    .expression_attribute_names("#claim", "Claim")
                    .expression_attribute_names("#groups", "Groups")
                    .send()
                    .await;
                let answer = sent.map_err(|error| errors::classify(error, &GET, &self.resource()))?;
                Ok(answer.item.filter(|item| !item.is_empty()).map(|item| seen(&item)))
            })
            .await
    }

    /// Asks for an item that is not there: what the daemon itself may do tells whether the table is usable.
    async fn probe(&self) -> Result<(), PortError> {
        let key = EventKey { event_id: "trailhound#probe".to_owned(), timestamp: "1970-01-01T00:00:00Z".to_owned() };
        self.meter
            .call(GET.name, async {
                let sent = self.client.get_item().table_name(&self.table).set_key(Some(key_of(&key))).send().await;
                sent.map(drop).map_err(|error| errors::classify(error, &PROBE, &self.resource()))
            })
            .await
    }
}

#[async_trait]
impl AlertStore for DynamoDb {
    async fn record(
        &self,
        item: &StoredItem,
        token: &ClaimToken,
        length: Duration,
        expired: Option<&ClaimToken>,
    ) -> Result<Recorded, PortError> {
        let metrics = &self.meter.metrics;
        // Of trackers that are not known, none is believed to be there: the first event of a bucket is then right at once.
        let mut trackers = self.memory.of(item.groups.values().map(|member| &member.tracker));
        let mut there = None::<Seen>;
        for _ in 0..MAX_ROUNDS {
            let attempt = Attempt { item, token, length, expired, trackers: &trackers };
            let change = match decide(there.as_ref().map(|seen| &seen.state), attempt) {
                Decision::Write(change) => change,
                Decision::Answer(answer) => {
                    // A held event is asked for again, and one's own claim is an answer that was lost.
                    if answer == Recorded::Settled {
                        metrics.store_conflicts.inc();
                    }
                    return Ok(answer);
                }
            };
            let written = match &there {
                _ if !change.counts.is_empty() => self.transact(item, &change, there.as_ref(), &mut trackers).await?,
                // Not there yet, or expired between the conflict and the read.
                None => self.put_new(item, &change).await?,
                Some(seen) => self.write_change(&item.key, &change, seen).await?,
            };
            match written {
                Written::Miscounted => {}
                Written::Conflict(Some(now)) => there = Some(now),
                Written::Conflict(None) => there = self.read(&item.key).await?,
                Written::Done => {
                    self.tell_excess(&change);
                    let known = there.as_ref().map(|seen| &seen.state.rules);
                    for rule in change.rules.iter().filter(|rule| known.is_none_or(|known| !known.contains(*rule))) {
                        metrics.rule_events.with_label_values(&[rule]).inc();
                    }
                    for Count { membership, .. } in &change.counts {
                        let counted = match membership.sighting {
                            None => &metrics.grouped_events,
                            Some(_) => &metrics.correlated_events,
                        };
                        counted.with_label_values(&[&membership.rule]).inc();
                    }
                    match there {
                        None => metrics.store_writes.inc(),
                        Some(seen) => {
                            metrics.store_conflicts.inc();
                            let before = seen.state.claim.map(|claim| claim.alert);
                            if before.is_some() && before.as_ref() == change.claim.as_ref().map(|claim| &claim.alert) {
                                metrics.claims_taken_over.inc();
                            }
                        }
                    }
                    return Ok(change.answer());
                }
            }
        }
        let detail = format!("{MAX_ROUNDS} others wrote to the item of event {} in between", item.key.event_id);
        Err(errors::contended(&UPDATE, &detail))
    }

    async fn cross(&self, attempt: CrossAttempt<'_>) -> Result<Crossed, PortError> {
        self.cross_tracker(attempt).await
    }

    async fn mark_step(&self, tracker: &TrackerId, step: u64, mark: &Mark) -> Result<bool, PortError> {
        self.mark_tracker(tracker, step, mark).await
    }

    async fn settle(&self, key: &EventKey, rules: &BTreeSet<String>) -> Result<(), PortError> {
        if rules.is_empty() {
            return Ok(());
        }
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_of(key)))
            .update_expression("ADD #settled :rules")
            .condition_expression("attribute_exists(#id)")
            .expression_attribute_names("#id", "EventId")
            .expression_attribute_names("#settled", "SettledRules")
            .expression_attribute_values(":rules", set(rules));
        // An item that expired in between has nothing to be settled.
        self.meter.call(UPDATE.name, async { self.written(request.send().await.map(drop)) }).await.map(drop)
    }

    async fn renew(&self, key: &EventKey, claim: &Claim, fresh: &ClaimToken) -> Result<bool, PortError> {
        let renewed = Claim { token: fresh.clone(), ..claim.clone() };
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_of(key)))
            .update_expression("SET #claim = :fresh")
            .condition_expression("#claim = :current")
            .expression_attribute_names("#claim", "Claim")
            .expression_attribute_values(":fresh", claim_text(&renewed)?)
            .expression_attribute_values(":current", claim_text(claim)?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let written = self.meter.call(UPDATE.name, async { self.written(request.send().await.map(drop)) }).await?;
        let there = match written {
            Written::Done => return Ok(true),
            Written::Conflict(Some(seen)) => Some(seen),
            Written::Conflict(None) | Written::Miscounted => self.read(key).await?,
        };
        Ok(there.and_then(|seen| seen.state.claim).is_some_and(|claim| claim.token == *fresh))
    }

    /// On an item that expired in between, this leaves a stub of the key and the mark, which expires after a day.
    async fn mark(&self, key: &EventKey, mark: &Mark) -> Result<(), PortError> {
        let add =
            if mark.alert.rules.is_empty() { "ADD #alerts :alert" } else { "ADD #alerts :alert, #settled :rules" };
        let expires = mark.alerted_at.saturating_add(ORPHAN_LIFE).unix_timestamp();
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_of(key)))
            .update_expression(format!(
                "SET #at = :at, #message = :message, #expires = if_not_exists(#expires, :expires) {add}"
            ))
            .expression_attribute_names("#at", "AlertedAt")
            .expression_attribute_names("#message", "SnsMessageId")
            .expression_attribute_names("#expires", "ExpiresAt")
            .expression_attribute_names("#alerts", "AlertIds")
            .expression_attribute_values(":at", AttributeValue::S(rfc3339(mark.alerted_at)?))
            .expression_attribute_values(":message", AttributeValue::S(mark.sns_message_id.clone()))
            .expression_attribute_values(":expires", AttributeValue::N(expires.to_string()))
            .expression_attribute_values(":alert", AttributeValue::Ss(vec![mark.alert.alert_id.clone()]));
        if !mark.alert.rules.is_empty() {
            request = request
                .expression_attribute_names("#settled", "SettledRules")
                .expression_attribute_values(":rules", set(&mark.alert.rules));
        }
        self.meter
            .call(UPDATE.name, async {
                let sent = request.send().await;
                sent.map(drop).map_err(|error| errors::classify(error, &UPDATE, &self.resource()))
            })
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        let described = self
            .meter
            .call(DESCRIBE.name, async {
                let sent = self.client.describe_table().table_name(&self.table).send().await;
                sent.map_err(|error| errors::classify(error, &DESCRIBE, &self.resource()))
            })
            .await;
        match described {
            Ok(answer) => answer.table().map_or(Ok(()), |table| usable(table, &self.resource())),
            // The daemon can work without that permission.
            Err(error) if matches!(error.fault, Fault::Denied { .. }) => self.probe().await,
            Err(error) => Err(error),
        }
    }
}

pub(super) fn conflict(item: Option<Item>) -> Written {
    Written::Conflict(item.filter(|item| !item.is_empty()).map(|item| seen(&item)))
}

/// Whether the table is active and has the keys `EventId` (S, HASH) and `Timestamp` (S, RANGE).
fn usable(table: &TableDescription, resource: &str) -> Result<(), PortError> {
    let key = |kind: &KeyType| {
        table.key_schema().iter().find(|key| key.key_type() == kind).map(KeySchemaElement::attribute_name)
    };
    for (kind, wanted) in [(KeyType::Hash, "EventId"), (KeyType::Range, "Timestamp")] {
        let found = key(&kind);
        let is_text = table.attribute_definitions().iter().any(|attribute| {
            Some(attribute.attribute_name()) == found && *attribute.attribute_type() == ScalarAttributeType::S
        });
        if found != Some(wanted) || !is_text {
            let found = found
                .map_or("none".to_owned(), |name| format!("{name}{}", if is_text { "" } else { ", not of type S" }));
            let detail = format!(
                "{resource} has the wrong keys: its {} key is {found}; create it with EventId (S, HASH) and Timestamp (S, RANGE)",
                kind.as_str()
            );
            return Err(errors::failure(&DESCRIBE, ErrorClass::Config, Fault::Invalid, &detail));
        }
    }
    match table.table_status() {
        // While a table is updated, for instance given an index, it takes reads and writes.
        None | Some(TableStatus::Active | TableStatus::Updating) => Ok(()),
        Some(status) => Err(errors::unavailable(&DESCRIBE, &format!("{resource} is {}", status.as_str()), None)),
    }
}

pub(super) fn key_of(key: &EventKey) -> Item {
    HashMap::from([
        ("EventId".to_owned(), AttributeValue::S(key.event_id.clone())),
        ("Timestamp".to_owned(), AttributeValue::S(key.timestamp.clone())),
    ])
}

fn set(values: &BTreeSet<String>) -> AttributeValue {
    AttributeValue::Ss(values.iter().cloned().collect())
}

pub(super) fn claim_text(claim: &Claim) -> Result<AttributeValue, PortError> {
    let text = serde_json::to_string(claim).map_err(|error| unwritable(&error))?;
    Ok(AttributeValue::S(text))
}

pub(super) fn rfc3339(time: OffsetDateTime) -> Result<String, PortError> {
    time.format(&Rfc3339).map_err(|error| unwritable(&error))
}

pub(super) fn unwritable(error: &dyn std::error::Error) -> PortError {
    errors::failure(&PUT, ErrorClass::Permanent, Fault::Invalid, &error.to_string())
}

fn seen(item: &Item) -> Seen {
    let strings = |name: &str| -> BTreeSet<String> {
        item.get(name).and_then(|value| value.as_ss().ok()).into_iter().flatten().cloned().collect()
    };
    let groups = strings("Groups").iter().filter_map(|text| group_of(text)).collect();
    let (claim, text) = claim_in(item);
    Seen { state: ItemState { rules: strings("Rules"), settled: strings("SettledRules"), claim, groups }, claim: text }
}

/// The claim of an item, and its text.
pub(super) fn claim_in(item: &Item) -> (Option<Claim>, Option<String>) {
    let text = item.get("Claim").and_then(|value| value.as_s().ok()).cloned();
    // A claim that cannot be read, such as one of a later version, is nobody's: a second alert is better than none.
    let claim = text.as_deref().and_then(|text| {
        serde_json::from_str(text).inspect_err(|error| tracing::warn!(%error, "a stored claim cannot be read")).ok()
    });
    (claim, text)
}

/// `<tracker> <rule>`
fn group_text(rule: &str, tracker: &TrackerId) -> String {
    format!("{tracker} {rule}")
}

pub(super) fn group_of(text: &str) -> Option<(String, TrackerId)> {
    let (tracker, rule) = text.split_once(' ')?;
    Some((rule.to_owned(), TrackerId::read(tracker)?))
}

fn groups(change: &Change) -> AttributeValue {
    let members = change.counts.iter().map(|count| &count.membership);
    AttributeValue::Ss(members.map(|member| group_text(&member.rule, &member.tracker)).collect())
}

/// Writes to an item, if its `Claim` and `SettledRules` are as they were seen, and `Groups` where it is counted. `Rules`
/// never changes without one of them.
fn change_of(change: &Change, seen: &Seen) -> Result<Expression, PortError> {
    let mut expression = Expression {
        update: "ADD #rules :rules".to_owned(),
        condition: "attribute_exists(#id)".to_owned(),
        ..Expression::default()
    };
    let own = [("#id", "EventId"), ("#claim", "Claim"), ("#rules", "Rules"), ("#settled", "SettledRules")];
    for (placeholder, name) in own {
        expression.name(placeholder, name);
    }
    expression.value(":rules", set(&change.rules));
    if !change.settled.is_empty() {
        expression.update.push_str(", #settled :recorded");
        expression.value(":recorded", set(&change.settled));
    }
    if let Some(claim) = &change.claim {
        expression.update.insert_str(0, "SET #claim = :claim ");
        expression.value(":claim", claim_text(claim)?);
    }
    if let Some(text) = &seen.claim {
        expression.condition.push_str(" AND #claim = :seen");
        expression.value(":seen", AttributeValue::S(text.clone()));
    } else {
        expression.condition.push_str(" AND attribute_not_exists(#claim)");
    }
    // The sets only grow, so one of the same size is the same. Writing to a string cannot fail.
    let mut same_size = |name: &str, placeholder: &str, size: usize| {
        if size == 0 {
            _ = write!(expression.condition, " AND attribute_not_exists({name})");
        } else {
            _ = write!(expression.condition, " AND size({name}) = {placeholder}");
            expression.values.insert(placeholder.to_owned(), AttributeValue::N(size.to_string()));
        }
    };
    same_size("#settled", ":size", seen.state.settled.len());
    if !change.counts.is_empty() {
        same_size("#groups", ":groups_size", seen.state.groups.len());
        expression.update.push_str(", #groups :groups");
        expression.name("#groups", "Groups");
        expression.value(":groups", groups(change));
    }
    Ok(expression)
}

/// The attributes of a new item; absent where there is nothing to say.
pub(super) fn attributes(item: &StoredItem, change: &Change) -> Result<Item, PortError> {
    let facts = &item.facts;
    let mut all = key_of(&item.key);
    let mut put = |name: &str, value: AttributeValue| {
        all.insert(name.to_owned(), value);
    };
    put("Rules", set(&change.rules));
    if !change.settled.is_empty() {
        put("SettledRules", set(&change.settled));
    }
    if let Some(claim) = &change.claim {
        put("Claim", claim_text(claim)?);
    }
    if !change.counts.is_empty() {
        put("Groups", groups(change));
    }
    put("Source", source(&item.source));
    put("ExpiresAt", AttributeValue::N(item.expires_at.unix_timestamp().to_string()));
    match &item.event {
        StoredEvent::Json(text) => put("Event", AttributeValue::S(text.clone())),
        StoredEvent::Gzip(bytes) => put("Event", AttributeValue::B(Blob::new(bytes.as_slice()))),
        StoredEvent::Omitted => {}
    }
    let texts = [
        ("Severity", Some(item.severity().as_str())),
        ("RuleSetHash", Some(item.rule_set_hash.as_str())),
        ("DetectedAt", Some(&*rfc3339(item.detected_at)?)),
        ("Day", Some(&*day(&item.key))),
        ("EventName", facts.event_name.as_deref()),
        ("EventSource", facts.event_source.as_deref()),
        ("AwsRegion", facts.region.as_deref()),
        ("AccountId", facts.account_id.as_deref()),
        ("Actor", facts.actor.as_deref()),
        ("UserIdentityType", facts.user_identity_type.as_deref()),
        ("SourceIpAddress", facts.source_ip.as_deref()),
        ("UserAgent", facts.user_agent.as_deref()),
        ("ErrorCode", facts.error_code.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            put(name, AttributeValue::S(text.to_owned()));
        }
    }
    Ok(all)
}

fn source(source: &Source) -> AttributeValue {
    let mut fields = HashMap::from([("Index".to_owned(), AttributeValue::N(source.index.to_string()))]);
    if let Some(object) = &source.object {
        fields.insert("Bucket".to_owned(), AttributeValue::S(object.bucket.clone()));
        fields.insert("Key".to_owned(), AttributeValue::S(object.key.clone()));
        if let Some(version) = object.version_id.as_ref().filter(|version| !version.is_empty()) {
            fields.insert("Version".to_owned(), AttributeValue::S(version.clone()));
        }
    }
    AttributeValue::M(fields)
}

/// The partitions of a day in the index `ByDay`.
pub(super) const DAY_PARTS: u8 = 8;

/// The partition of the index `ByDay`: the date, and one of eight suffixes, so that one day is not one hot partition.
fn day(key: &EventKey) -> String {
    let date = key.timestamp.get(..10).unwrap_or(&key.timestamp);
    let part = Sha256::digest(key.event_id.as_bytes()).first().map_or(0, |byte| byte % DAY_PARTS);
    day_part(date, part)
}

/// `date` as `2026-05-01`.
pub(super) fn day_part(date: &str, part: u8) -> String {
    format!("{date}#{part}")
}
