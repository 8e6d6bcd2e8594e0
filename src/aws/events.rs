//! Stored events, read back for people: the index `ByDay`, items by key, and scans. The other direction of
//! `dynamodb.rs`.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use time::macros::format_description;

use super::dynamodb::{DAY_PARTS, Expression, GET, Item, NeverEmpty, claim_in, day_part, group_of, key_of};
use super::errors::{self, Operation};
use crate::alert::{EventKey, Source, SourceObject, StoredEvent};
use crate::events::{Detail, EventReader, Filter, Order, Page, PageRequest, Range, Stored};
use crate::ports::PortError;
use crate::rules::Severity;
use crate::tracker::RESERVED_PREFIX;

const QUERY: Operation = Operation { name: "dynamodb:Query", action: "dynamodb:Query", ..GET };
const SCAN: Operation = Operation { name: "dynamodb:Scan", action: "dynamodb:Scan", ..GET };

const INDEX: &str = "ByDay";

/// Entries of the index in one page. They bound what is held of a day: a page of each partition.
const PAGE: i32 = 500;

/// Everything but the record, and `Day`.
const ATTRIBUTES: [&str; 23] = [
    "EventId",
    "Timestamp",
    "Severity",
    "Rules",
    "SettledRules",
    "Groups",
    "AlertIds",
    "AlertedAt",
    "SnsMessageId",
    "Claim",
    "EventName",
    "EventSource",
    "AwsRegion",
    "AccountId",
    "Actor",
    "UserIdentityType",
    "SourceIpAddress",
    "UserAgent",
    "ErrorCode",
    "Source",
    "RuleSetHash",
    "DetectedAt",
    "ExpiresAt",
];

pub(super) struct EventTable {
    client: Client,
    table: String,
}

impl EventTable {
    pub(super) fn new(sdk: &SdkConfig, table: &str) -> Self {
        let settings = aws_sdk_dynamodb::config::Builder::from(sdk).interceptor(NeverEmpty);
        Self { client: Client::from_conf(settings.build()), table: table.to_owned() }
    }

    fn resource(&self) -> String {
        format!("table {}", self.table)
    }

    fn index(&self) -> String {
        format!("table {}, index {INDEX}", self.table)
    }
}

#[async_trait]
impl EventReader for EventTable {
    fn parts(&self) -> u8 {
        DAY_PARTS
    }

    async fn page(&self, request: &PageRequest<'_>) -> Result<Page, PortError> {
        let date = request.day.format(format_description!("[year]-[month]-[day]")).unwrap_or_default();
        let day = day_part(&date, request.part);
        let (first, last) = request.range.bounds();
        let mut expression = filter_of(request.filter);
        expression.name("#day", "Day");
        expression.name("#at", "Timestamp");
        expression.value(":day", text(&day));
        expression.value(":first", AttributeValue::S(first));
        expression.value(":last", AttributeValue::S(last));
        let start = request.after.map(|key| {
            let mut start = key_of(key);
            start.insert("Day".to_owned(), text(&day));
            start
        });
        let sent = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("#day = :day AND #at BETWEEN :first AND :last")
            .set_filter_expression(Some(expression.condition).filter(|condition| !condition.is_empty()))
            .set_expression_attribute_names(Some(expression.names))
            .set_expression_attribute_values(Some(expression.values))
            .scan_index_forward(request.order == Order::OldestFirst)
            .set_exclusive_start_key(start)
            .limit(PAGE)
            .send();
        let answer = boxed(sent).await.map_err(|error| errors::classify(error, &QUERY, &self.index()))?;
        Ok(page_of(answer.items(), answer.last_evaluated_key()))
    }

    async fn scan(&self, range: &Range, detail: Detail, after: Option<&EventKey>) -> Result<Page, PortError> {
        let (projection, mut names) = projection_of(detail);
        let mut condition = "NOT begins_with(#id, :tracker)".to_owned();
        let mut values = HashMap::from([(":tracker".to_owned(), text(RESERVED_PREFIX))]);
        names.insert("#id".to_owned(), "EventId".to_owned());
        if *range != Range::ALL {
            let (first, last) = range.bounds();
            condition.push_str(" AND #at BETWEEN :first AND :last");
            names.insert("#at".to_owned(), "Timestamp".to_owned());
            values.insert(":first".to_owned(), AttributeValue::S(first));
            values.insert(":last".to_owned(), AttributeValue::S(last));
        }
        let sent = self
            .client
            .scan()
            .table_name(&self.table)
            .filter_expression(condition)
            .set_projection_expression(projection)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .set_exclusive_start_key(after.map(key_of))
            .send();
        let answer = boxed(sent).await.map_err(|error| errors::classify(error, &SCAN, &self.resource()))?;
        Ok(page_of(answer.items(), answer.last_evaluated_key()))
    }

    async fn get(&self, key: &EventKey, detail: Detail) -> Result<Option<Stored>, PortError> {
        let (projection, names) = projection_of(detail);
        let sent = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key_of(key)))
            .consistent_read(true)
            .set_projection_expression(projection)
            .set_expression_attribute_names(Some(names).filter(|names| !names.is_empty()))
            .send();
        let answer = boxed(sent).await.map_err(|error| errors::classify(error, &GET, &self.resource()))?;
        Ok(answer.item.as_ref().and_then(stored))
    }

    async fn of_id(&self, event_id: &str) -> Result<Vec<Stored>, PortError> {
        let (mut all, mut start) = (Vec::new(), None);
        loop {
            let sent = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#id = :id")
                .expression_attribute_names("#id", "EventId")
                .expression_attribute_values(":id", text(event_id))
                .set_exclusive_start_key(start)
                .send();
            let answer = boxed(sent).await.map_err(|error| errors::classify(error, &QUERY, &self.resource()))?;
            all.extend(answer.items().iter().filter_map(stored));
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(all);
            }
        }
    }
}

/// The SDK's futures take 16 KB each.
fn boxed<'a, T>(call: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(call)
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

/// What DynamoDB can leave out by itself. The index of a table may lack an attribute: then the item is looked at.
fn filter_of(filter: &Filter) -> Expression {
    let mut expression = Expression::default();
    let mut one_of = |name: &str, attribute: &str, wanted: &[String], test: &dyn Fn(&str) -> String| {
        if wanted.is_empty() {
            return;
        }
        if !expression.condition.is_empty() {
            expression.condition.push_str(" AND ");
        }
        let mut alternatives = vec![format!("attribute_not_exists(#{name})")];
        for (number, value) in wanted.iter().enumerate() {
            let placeholder = format!(":{name}{number}");
            alternatives.push(test(&placeholder));
            expression.values.insert(placeholder, text(value));
        }
        for part in ["(", &alternatives.join(" OR "), ")"] {
            expression.condition.push_str(part);
        }
        expression.names.insert(format!("#{name}"), attribute.to_owned());
    };
    if filter.severity.is_some() {
        let severities: Vec<_> = filter.severities().iter().map(|severity| severity.as_str().to_owned()).collect();
        one_of("severity", "Severity", &severities, &|value| format!("#severity = {value}"));
    }
    one_of("rules", "Rules", &filter.rules, &|value| format!("contains(#rules, {value})"));
    one_of("account", "AccountId", &filter.accounts, &|value| format!("#account = {value}"));
    one_of("region", "AwsRegion", &filter.regions, &|value| format!("#region = {value}"));
    // Up to the first wildcard, an exact text is its own beginning too.
    let beginnings = |patterns: &[String]| -> Vec<String> {
        let beginning = |pattern: &String| pattern.split(['*', '?']).next().unwrap_or_default().to_owned();
        let all: Vec<_> = patterns.iter().map(beginning).collect();
        if all.iter().any(String::is_empty) { Vec::new() } else { all }
    };
    one_of("actor", "Actor", &beginnings(&filter.actors), &|value| format!("begins_with(#actor, {value})"));
    one_of("name", "EventName", &beginnings(&filter.names), &|value| format!("begins_with(#name, {value})"));
    expression
}

/// The attributes to ask for, as placeholders, since some are reserved words.
fn projection_of(detail: Detail) -> (Option<String>, HashMap<String, String>) {
    match detail {
        Detail::Whole => (None, HashMap::new()),
        Detail::Attributes => {
            let placeholders: Vec<_> = ATTRIBUTES.iter().map(|name| format!("#{name}")).collect();
            let names = placeholders.iter().cloned().zip(ATTRIBUTES.iter().map(|name| (*name).to_owned())).collect();
            (Some(placeholders.join(", ")), names)
        }
    }
}

fn page_of(items: &[Item], last: Option<&Item>) -> Page {
    Page { items: items.iter().filter_map(stored).collect(), next: last.and_then(key_in) }
}

fn key_in(item: &Item) -> Option<EventKey> {
    let text = |name: &str| item.get(name)?.as_s().ok().cloned();
    Some(EventKey { event_id: text("EventId")?, timestamp: text("Timestamp")? })
}

/// An item as it stands: what is missing, or of another type than ours, is absent. `None` without its keys.
fn stored(item: &Item) -> Option<Stored> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    let texts = |name: &str| -> BTreeSet<String> {
        item.get(name).and_then(|value| value.as_ss().ok()).into_iter().flatten().cloned().collect()
    };
    let severity = text("Severity");
    let groups = texts("Groups").iter().filter_map(|text| group_of(text)).collect::<Vec<_>>();
    Some(Stored {
        severity: Severity::ALL.into_iter().find(|one| Some(one.as_str()) == severity.as_deref()),
        rules: texts("Rules"),
        settled: texts("SettledRules"),
        groups: groups.into_iter().map(|(rule, tracker)| (rule, tracker.to_string())).collect(),
        alert_ids: texts("AlertIds"),
        alerted_at: text("AlertedAt"),
        sns_message_id: text("SnsMessageId"),
        claim: claim_in(item).0,
        event_name: text("EventName"),
        event_source: text("EventSource"),
        account_id: text("AccountId"),
        region: text("AwsRegion"),
        actor: text("Actor"),
        user_identity_type: text("UserIdentityType"),
        source_ip: text("SourceIpAddress"),
        user_agent: text("UserAgent"),
        error_code: text("ErrorCode"),
        event: match item.get("Event") {
            Some(AttributeValue::S(json)) => StoredEvent::Json(json.clone()),
            Some(AttributeValue::B(bytes)) => StoredEvent::Gzip(bytes.as_ref().to_vec()),
            _ => StoredEvent::Omitted,
        },
        source: item.get("Source").and_then(|value| value.as_m().ok()).map(source_in),
        rule_set_hash: text("RuleSetHash"),
        detected_at: text("DetectedAt"),
        expires_at: item
            .get("ExpiresAt")
            .and_then(|value| value.as_n().ok())
            .and_then(|digits| OffsetDateTime::from_unix_timestamp(digits.parse().ok()?).ok()),
        ..Stored::new(key_in(item)?)
    })
}

fn source_in(fields: &Item) -> Source {
    let text = |name: &str| fields.get(name).and_then(|value| value.as_s().ok()).cloned();
    let object = text("Bucket").zip(text("Key"));
    let index = fields.get("Index").and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok());
    Source {
        object: object.map(|(bucket, key)| SourceObject { bucket, key, version_id: text("Version") }),
        index: index.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use aws_sdk_dynamodb::primitives::Blob;
    use time::macros::datetime;

    use super::*;
    use crate::alert::{Facts, StoredItem};
    use crate::aws::dynamodb::attributes;
    use crate::claim::{Change, Claim, ClaimToken, ClaimedAlert};

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn item(event: StoredEvent) -> (StoredItem, Change) {
        let text = |text: &str| Some(text.to_owned());
        let facts = Facts {
            event_name: text("StopLogging"),
            event_source: text("cloudtrail.amazonaws.com"),
            region: text("eu-west-1"),
            account_id: text("111122223333"),
            actor: text("Admin/alice"),
            user_identity_type: text("AssumedRole"),
            source_ip: text("203.0.113.7"),
            user_agent: text("aws-cli/2.17.9"),
            error_code: text("AccessDenied"),
            ..Facts::default()
        };
        let object = SourceObject { bucket: "logs".to_owned(), key: "a/b.json.gz".to_owned(), version_id: text("v1") };
        let alert = ClaimedAlert { alert_id: "a1".to_owned(), rules: set(&["r"]), severity: Severity::High };
        let claim = Claim { token: ClaimToken("token".to_owned()), length: Duration::from_secs(30), alert };
        let stored = StoredItem {
            key: EventKey { event_id: "e-1".to_owned(), timestamp: "2026-05-01T12:00:00Z".to_owned() },
            facts,
            rules: BTreeMap::from([("r".to_owned(), Severity::High), ("s".to_owned(), Severity::Low)]),
            recorded_only: set(&["s"]),
            groups: BTreeMap::new(),
            event,
            source: Source { object: Some(object), index: 12 },
            rule_set_hash: "0123456789abcdef".to_owned(),
            detected_at: datetime!(2026-05-01 12:05 UTC),
            expires_at: datetime!(2026-07-30 12:05 UTC),
        };
        (stored, Change { rules: set(&["r", "s"]), settled: set(&["s"]), claim: Some(claim), ..Change::default() })
    }

    fn read(event: StoredEvent) -> Stored {
        let (item, change) = item(event);
        stored(&attributes(&item, &change).unwrap()).unwrap()
    }

    #[test]
    fn every_attribute_that_is_written_is_read() {
        let (item, change) = item(StoredEvent::Json("{}".to_owned()));
        let mut written = attributes(&item, &change).unwrap();
        for (name, value) in [
            ("AlertedAt", text("2026-05-01T12:06:00Z")),
            ("SnsMessageId", text("message")),
            ("AlertIds", AttributeValue::Ss(vec!["a1".to_owned(), "a2".to_owned()])),
            (
                "Groups",
                AttributeValue::Ss(vec!["0123@2026-05-01T12:00:00Z the rule".to_owned(), "no group".to_owned()]),
            ),
        ] {
            written.insert(name.to_owned(), value);
        }
        // Whatever is added to an item is added here, or is not read.
        let known: BTreeSet<_> = ATTRIBUTES.into_iter().chain(["Day", "Event"]).collect();
        assert_eq!(written.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
        let facts = item.facts;
        let expected = Stored {
            severity: Some(Severity::High),
            rules: set(&["r", "s"]),
            settled: set(&["s"]),
            groups: BTreeMap::from([("the rule".to_owned(), "0123@2026-05-01T12:00:00Z".to_owned())]),
            alert_ids: set(&["a1", "a2"]),
            alerted_at: Some("2026-05-01T12:06:00Z".to_owned()),
            sns_message_id: Some("message".to_owned()),
            claim: change.claim,
            event_name: facts.event_name,
            event_source: facts.event_source,
            account_id: facts.account_id,
            region: facts.region,
            actor: facts.actor,
            user_identity_type: facts.user_identity_type,
            source_ip: facts.source_ip,
            user_agent: facts.user_agent,
            error_code: facts.error_code,
            event: item.event,
            source: Some(item.source),
            rule_set_hash: Some(item.rule_set_hash),
            detected_at: Some("2026-05-01T12:05:00Z".to_owned()),
            expires_at: Some(item.expires_at),
            ..Stored::new(item.key)
        };
        assert_eq!(stored(&written), Some(expected));
    }

    #[test]
    fn a_record_is_read_in_each_form() {
        let gzip = StoredEvent::Gzip(b"bytes".to_vec());
        for event in [StoredEvent::Json("{}".to_owned()), gzip, StoredEvent::Omitted] {
            assert_eq!(read(event.clone()).event, event);
        }
    }

    #[test]
    fn what_is_of_another_type_is_absent_and_without_keys_there_is_no_item() {
        let key = [("EventId", text("e-1")), ("Timestamp", text("2026-05-01T12:00:00Z"))];
        let of = |more: &[(&str, AttributeValue)]| -> Item {
            key.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let bare = stored(&of(&[])).unwrap();
        let odd = of(&[
            ("Severity", text("LOUD")),
            ("Rules", text("r")),
            ("Claim", text("{")),
            ("Actor", AttributeValue::N("1".to_owned())),
            ("Event", AttributeValue::Bool(true)),
            ("Source", AttributeValue::L(Vec::new())),
            ("ExpiresAt", text("soon")),
            ("AlertIds", AttributeValue::B(Blob::new("a"))),
        ]);
        assert_eq!(stored(&odd), Some(bare));
        let far = stored(&of(&[("ExpiresAt", AttributeValue::N("99999999999999999999".to_owned()))])).unwrap();
        assert_eq!(far.expires_at, None);
        let inline = of(&[("Source", AttributeValue::M(HashMap::from([("Bucket".to_owned(), text("b"))])))]);
        assert_eq!(stored(&inline).unwrap().source, Some(Source::default()));
        for missing in ["EventId", "Timestamp"] {
            let mut item = of(&[]);
            item.remove(missing);
            assert_eq!(stored(&item), None);
        }
    }

    #[test]
    fn dynamodb_leaves_out_what_is_surely_not_wanted() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(filter_of(&Filter::default()).condition, "");
        let expression = filter_of(&Filter {
            severity: Some(Severity::High),
            rules: texts(&["r", "s"]),
            accounts: texts(&["1"]),
            regions: texts(&["eu-west-1"]),
            actors: texts(&["Admin/*", "root"]),
            names: texts(&["*Key", "Stop"]),
        });
        insta::assert_snapshot!(expression.condition.replace(" AND ", "\n"), @"
        (attribute_not_exists(#severity) OR #severity = :severity0 OR #severity = :severity1)
        (attribute_not_exists(#rules) OR contains(#rules, :rules0) OR contains(#rules, :rules1))
        (attribute_not_exists(#account) OR #account = :account0)
        (attribute_not_exists(#region) OR #region = :region0)
        (attribute_not_exists(#actor) OR begins_with(#actor, :actor0) OR begins_with(#actor, :actor1))
        ");
        let mut values: Vec<_> =
            expression.values.iter().map(|(name, value)| format!("{name}={}", value.as_s().unwrap())).collect();
        values.sort();
        insta::assert_snapshot!(values.join(" "), @":account0=1 :actor0=Admin/ :actor1=root :region0=eu-west-1 :rules0=r :rules1=s :severity0=HIGH :severity1=CRITICAL");
        // A pattern that begins with a wildcard has no beginning to ask for.
        assert!(!expression.names.contains_key("#name"));
    }
}
