use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use time::macros::datetime;
use trailhound::alert::{EventKey, Facts, Source, SourceObject, StoredEvent, StoredItem};
use trailhound::claim::{Claim, ClaimToken, ClaimedAlert, Mark, Recorded};
use trailhound::ports::{ErrorClass, Fault};
use trailhound::rules::Severity;

use super::{Answer, Server, answer, assert_failed, json_error, not_aws};

const LENGTH: Duration = Duration::from_mins(1);

fn key() -> EventKey {
    EventKey {
        event_id: "9ee1a8a4-6c3f-4f34-a1b2-0d9cbe5f2b11".to_owned(),
        timestamp: "2024-05-01T12:00:00Z".to_owned(),
    }
}

fn rules(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn token(text: &str) -> ClaimToken {
    ClaimToken(text.to_owned())
}

fn claim(text: &str, ids: &[&str]) -> Claim {
    let alert = ClaimedAlert { alert_id: "a-1".to_owned(), rules: rules(ids), severity: Severity::High };
    Claim { token: token(text), length: LENGTH, alert }
}

fn text(claim: &Claim) -> String {
    serde_json::to_string(claim).unwrap()
}

fn item(ids: &[&str]) -> StoredItem {
    StoredItem {
        key: key(),
        facts: Facts {
            event_name: Some("CreateAccessKey".to_owned()),
            event_source: Some("iam.amazonaws.com".to_owned()),
            region: Some("us-east-1".to_owned()),
            account_id: Some("111122223333".to_owned()),
            actor: Some("Admin/alice".to_owned()),
            user_identity_type: Some("AssumedRole".to_owned()),
            source_ip: Some("203.0.113.7".to_owned()),
            user_agent: Some(String::new()),
            ..Facts::default()
        },
        rules: ids.iter().map(|id| ((*id).to_owned(), Severity::High)).collect(),
        recorded_only: BTreeSet::new(),
        groups: BTreeMap::new(),
        event: StoredEvent::Json("{\"eventName\":\"CreateAccessKey\"}".to_owned()),
        source: Source {
            object: Some(SourceObject { bucket: "logs".to_owned(), key: "a/b.json.gz".to_owned(), version_id: None }),
            index: 3,
        },
        rule_set_hash: "0123456789abcdef".to_owned(),
        detected_at: datetime!(2024-05-01 12:05:00 UTC),
        expires_at: datetime!(2025-05-01 12:05:00 UTC),
    }
}

/// The same, where some of these rules are only recorded.
fn recording(ids: &[&str], recorded_only: &[&str]) -> StoredItem {
    StoredItem { recorded_only: rules(recorded_only), ..item(ids) }
}

/// What the table holds of an event.
fn held(ids: &[&str], settled: &[&str], claim: Option<&str>) -> Value {
    let mut item = json!({
        "EventId": { "S": key().event_id },
        "Timestamp": { "S": key().timestamp },
        "Rules": { "SS": ids },
    });
    if !settled.is_empty() {
        item["SettledRules"] = json!({ "SS": settled });
    }
    if let Some(claim) = claim {
        item["Claim"] = json!({ "S": claim });
    }
    item
}

fn conflict(item: Option<Value>) -> Answer {
    let mut body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    });
    if let Some(item) = item {
        body["Item"] = item;
    }
    answer(400, body.to_string())
}

fn ok() -> Answer {
    answer(200, "{}")
}

fn found(item: &Value) -> Answer {
    answer(200, json!({ "Item": item }).to_string())
}

/// What the requests did, in order.
fn operations(server: &Server) -> Vec<String> {
    let target =
        |request: &super::Request| request.header("x-amz-target").unwrap().rsplit_once('.').unwrap().1.to_owned();
    server.requests().iter().map(target).collect()
}

#[tokio::test]
async fn a_new_event_is_put_with_a_claim_on_all_its_rules() {
    let server = Server::answering([ok()]).await;
    let recorded = server.ports().store.record(&item(&["r1", "r2"]), &token("t1"), LENGTH, None).await.unwrap();
    let Recorded::Claimed(claim) = recorded else { panic!("{recorded:?}") };
    assert_eq!((&claim.token, claim.length, &claim.alert.rules), (&token("t1"), LENGTH, &rules(&["r1", "r2"])));
    let request = server.request();
    assert_eq!(request.header("x-amz-target"), Some("DynamoDB_20120810.PutItem"));
    let mut sent = request.json();
    let day = sent["Item"].as_object_mut().unwrap().remove("Day").unwrap();
    let suffix: u8 = day["S"].as_str().unwrap().strip_prefix("2024-05-01#").unwrap().parse().unwrap();
    assert!(suffix < 8);
    assert_eq!(
        sent,
        json!({
            "TableName": "events",
            "ConditionExpression": "attribute_not_exists(#id)",
            "ExpressionAttributeNames": { "#id": "EventId" },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            "Item": {
                "EventId": { "S": "9ee1a8a4-6c3f-4f34-a1b2-0d9cbe5f2b11" },
                "Timestamp": { "S": "2024-05-01T12:00:00Z" },
                "Rules": { "SS": ["r1", "r2"] },
                "Severity": { "S": "HIGH" },
                "Claim": { "S": text(&claim) },
                "EventName": { "S": "CreateAccessKey" },
                "EventSource": { "S": "iam.amazonaws.com" },
                "AwsRegion": { "S": "us-east-1" },
                "AccountId": { "S": "111122223333" },
                "Actor": { "S": "Admin/alice" },
                "UserIdentityType": { "S": "AssumedRole" },
                "SourceIpAddress": { "S": "203.0.113.7" },
                "Event": { "S": "{\"eventName\":\"CreateAccessKey\"}" },
                "Source": { "M": { "Bucket": { "S": "logs" }, "Key": { "S": "a/b.json.gz" }, "Index": { "N": "3" } } },
                "RuleSetHash": { "S": "0123456789abcdef" },
                "DetectedAt": { "S": "2024-05-01T12:05:00Z" },
                "ExpiresAt": { "N": "1746101100" },
            },
        })
    );
    assert_eq!(server.metrics().store_writes.get(), 1);
    assert_eq!(server.metrics().store_conflicts.get(), 0);
}

#[tokio::test]
async fn a_new_event_that_is_only_recorded_is_put_settled_and_without_a_claim() {
    let server = Server::answering([ok()]).await;
    let event = recording(&["s1", "s2"], &["s1", "s2"]);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Settled);
    let sent = server.request().json();
    assert_eq!(sent["ConditionExpression"], "attribute_not_exists(#id)");
    let item = &sent["Item"];
    assert_eq!(item["Rules"], json!({ "SS": ["s1", "s2"] }));
    assert_eq!(item["SettledRules"], json!({ "SS": ["s1", "s2"] }));
    assert_eq!(item.get("Claim"), None);
    assert_eq!(server.metrics().store_writes.get(), 1);
    assert_eq!(server.metrics().store_conflicts.get(), 0);
}

#[tokio::test]
async fn a_new_event_of_both_kinds_is_put_with_a_claim_on_what_alerts() {
    let server = Server::answering([ok()]).await;
    let mut event = recording(&["r1", "s1"], &["s1"]);
    event.rules.insert("s1".to_owned(), Severity::Critical);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    let Recorded::Claimed(claim) = recorded else { panic!("{recorded:?}") };
    assert_eq!((&claim.alert.rules, claim.alert.severity), (&rules(&["r1"]), Severity::High));
    let item = server.request().json()["Item"].clone();
    assert_eq!(item["Rules"], json!({ "SS": ["r1", "s1"] }));
    assert_eq!(item["SettledRules"], json!({ "SS": ["s1"] }));
    assert_eq!(item["Claim"], json!({ "S": text(&claim) }));
    assert_eq!(item["Severity"], json!({ "S": "CRITICAL" }), "of all rules that matched");
}

#[tokio::test]
async fn a_rule_that_is_only_recorded_is_added_to_a_settled_item_by_one_conditional_write() {
    let spent = text(&claim("t0", &["r1"]));
    let server = Server::answering([conflict(Some(held(&["r1"], &["r1"], Some(&spent)))), ok()]).await;
    let event = recording(&["r1", "s1"], &["s1"]);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, Some(&token("t0"))).await.unwrap();
    assert_eq!(recorded, Recorded::Settled);
    assert_eq!(operations(&server), ["PutItem", "UpdateItem"]);
    assert_eq!(
        server.requests()[1].json(),
        json!({
            "TableName": "events",
            "Key": { "EventId": { "S": key().event_id }, "Timestamp": { "S": key().timestamp } },
            "UpdateExpression": "ADD #rules :rules, #settled :recorded",
            "ConditionExpression": "attribute_exists(#id) AND #claim = :seen AND size(#settled) = :size",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            "ExpressionAttributeNames": {
                "#id": "EventId", "#claim": "Claim", "#rules": "Rules", "#settled": "SettledRules",
            },
            "ExpressionAttributeValues": {
                ":rules": { "SS": ["r1", "s1"] },
                ":recorded": { "SS": ["s1"] },
                ":seen": { "S": spent },
                ":size": { "N": "1" },
            },
        })
    );
    assert_eq!(server.metrics().store_conflicts.get(), 1);
    assert_eq!(server.metrics().claims_taken_over.get(), 0, "a spent claim is nobody's");
}

#[tokio::test]
async fn a_rule_that_is_only_recorded_is_added_together_with_a_claim() {
    let server = Server::answering([conflict(Some(held(&["r1"], &["r1"], None))), ok()]).await;
    let event = recording(&["r2", "s1"], &["s1"]);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    let Recorded::Claimed(claim) = recorded else { panic!("{recorded:?}") };
    assert_eq!(claim.alert.rules, rules(&["r2"]));
    let sent = server.requests()[1].json();
    assert_eq!(sent["UpdateExpression"], "SET #claim = :claim ADD #rules :rules, #settled :recorded");
    assert_eq!(
        sent["ExpressionAttributeValues"],
        json!({
            ":claim": { "S": text(&claim) },
            ":rules": { "SS": ["r2", "s1"] },
            ":recorded": { "SS": ["s1"] },
            ":size": { "N": "1" },
        })
    );
}

#[tokio::test]
async fn a_crashed_alert_whose_rule_is_only_recorded_by_now_is_settled_without_a_claim() {
    let server = Server::answering([conflict(Some(held(&["s1"], &[], None))), ok()]).await;
    let event = recording(&["s1"], &["s1"]);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Settled);
    let sent = server.requests()[1].json();
    assert_eq!(sent["UpdateExpression"], "ADD #rules :rules, #settled :recorded");
    assert_eq!(
        sent["ConditionExpression"],
        "attribute_exists(#id) AND attribute_not_exists(#claim) AND attribute_not_exists(#settled)",
        "somebody may claim it in between"
    );
}

#[tokio::test]
async fn a_claim_is_taken_over_as_it_is_although_its_rule_is_only_recorded_by_now() {
    let theirs = claim("t0", &["s1"]);
    let server = Server::answering([conflict(Some(held(&["s1"], &[], Some(&text(&theirs))))), ok()]).await;
    let event = recording(&["s1", "s2"], &["s1", "s2"]);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, Some(&token("t0"))).await.unwrap();
    let mine = Claim { token: token("t1"), ..theirs };
    assert_eq!(recorded, Recorded::Claimed(mine.clone()));
    let values = server.requests()[1].json()["ExpressionAttributeValues"].clone();
    assert_eq!(values[":claim"], json!({ "S": text(&mine) }));
    assert_eq!(values[":recorded"], json!({ "SS": ["s2"] }), "s1 is settled by the alert");
    assert_eq!(server.metrics().claims_taken_over.get(), 1);
}

#[tokio::test]
async fn whoever_finds_the_item_changed_before_it_is_recorded_decides_anew() {
    let winner = claim("t9", &["s1"]);
    let won = held(&["s1"], &[], Some(&text(&winner)));
    let server = Server::answering([conflict(Some(held(&["s1"], &[], None))), conflict(None), found(&won)]).await;
    let event = recording(&["s1"], &["s1"]);
    let recorded = server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Held(winner));
    assert_eq!(server.requests()[2].json()["ConsistentRead"], true);
}

#[tokio::test]
async fn a_large_record_is_stored_compressed_or_not_at_all() {
    let server = Server::answering([ok(), ok()]).await;
    let store = server.ports().store;
    for event in [StoredEvent::Gzip(vec![0x1f, 0x8b, 0xff]), StoredEvent::Omitted] {
        let source = Source { object: None, index: 0 };
        store.record(&StoredItem { event, source, ..item(&["r1"]) }, &token("t1"), LENGTH, None).await.unwrap();
    }
    let items: Vec<_> = server.requests().iter().map(|request| request.json()["Item"].clone()).collect();
    assert_eq!(items[0]["Event"], json!({ "B": "H4v/" }));
    assert_eq!(items[1].get("Event"), None);
    assert_eq!(items[1]["Source"], json!({ "M": { "Index": { "N": "0" } } }));
}

#[tokio::test]
async fn a_copy_of_a_settled_event_changes_nothing() {
    let spent = text(&claim("t0", &["r1"]));
    let server = Server::answering([conflict(Some(held(&["r1"], &["r1"], Some(&spent))))]).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Settled);
    assert_eq!(operations(&server), ["PutItem"]);
    assert_eq!(server.metrics().store_conflicts.get(), 1);
    assert_eq!(server.metrics().store_writes.get(), 0);
    assert_eq!(server.counted("dynamodb", "PutItem", "ok"), 1, "a failed condition is an answer");
}

#[tokio::test]
async fn a_conflict_without_the_item_is_read_consistently() {
    let live = claim("t0", &["r1"]);
    let server = Server::answering([conflict(None), found(&held(&["r1"], &[], Some(&text(&live))))]).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Held(live));
    assert_eq!(operations(&server), ["PutItem", "GetItem"]);
    assert_eq!(server.requests()[1].json()["ConsistentRead"], true);
}

#[tokio::test]
async fn a_lost_answer_to_the_put_is_still_a_claim() {
    let mine = claim("t1", &["r1"]);
    let server = Server::answering([conflict(Some(held(&["r1"], &[], Some(&text(&mine)))))]).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Claimed(mine));
    assert_eq!(server.metrics().store_conflicts.get(), 0);
}

#[tokio::test]
async fn an_expired_claim_is_taken_over_with_exactly_its_alert() {
    let theirs = claim("t0", &["r1"]);
    let server = Server::answering([conflict(Some(held(&["r1"], &["r9"], Some(&text(&theirs))))), ok()]).await;
    let recorded =
        server.ports().store.record(&item(&["r1", "r2"]), &token("t1"), LENGTH, Some(&token("t0"))).await.unwrap();
    let mine = Claim { token: token("t1"), ..theirs.clone() };
    assert_eq!(recorded, Recorded::Claimed(mine.clone()));
    let sent = server.requests()[1].json();
    assert_eq!(sent["UpdateExpression"], "SET #claim = :claim ADD #rules :rules");
    assert_eq!(sent["ConditionExpression"], "attribute_exists(#id) AND #claim = :seen AND size(#settled) = :size");
    assert_eq!(
        sent["ExpressionAttributeValues"],
        json!({
            ":claim": { "S": text(&mine) },
            ":seen": { "S": text(&theirs) },
            ":rules": { "SS": ["r1", "r2"] },
            ":size": { "N": "1" },
        })
    );
    assert_eq!(server.metrics().claims_taken_over.get(), 1);
}

#[tokio::test]
async fn a_rule_added_later_is_claimed_on_an_old_item() {
    let server = Server::answering([conflict(Some(held(&["r1"], &[], None))), ok()]).await;
    let recorded = server.ports().store.record(&item(&["r2"]), &token("t1"), LENGTH, None).await.unwrap();
    let Recorded::Claimed(claim) = recorded else { panic!("{recorded:?}") };
    assert_eq!(claim.alert.rules, rules(&["r1", "r2"]));
    assert_eq!(
        server.requests()[1].json()["ConditionExpression"],
        "attribute_exists(#id) AND attribute_not_exists(#claim) AND attribute_not_exists(#settled)"
    );
    assert_eq!(server.metrics().claims_taken_over.get(), 0);
}

#[tokio::test]
async fn a_claim_that_cannot_be_read_is_replaced_as_it_stands() {
    let server = Server::answering([conflict(Some(held(&["r1"], &[], Some("{\"version\":2}")))), ok()]).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await.unwrap();
    assert!(matches!(recorded, Recorded::Claimed(_)), "{recorded:?}");
    assert_eq!(server.requests()[1].json()["ExpressionAttributeValues"][":seen"], json!({ "S": "{\"version\":2}" }));
}

#[tokio::test]
async fn whoever_loses_the_race_for_a_claim_decides_anew() {
    let winner = claim("t9", &["r1"]);
    let won = held(&["r1"], &[], Some(&text(&winner)));
    let server = Server::answering([conflict(Some(held(&["r1"], &[], None))), conflict(None), found(&won)]).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, Recorded::Held(winner));
    assert_eq!(operations(&server), ["PutItem", "UpdateItem", "GetItem"]);
    assert_eq!(server.metrics().store_conflicts.get(), 0, "counted when the wait is over");
}

#[tokio::test]
async fn an_item_that_expires_between_conflict_and_read_is_put_again() {
    let server = Server::answering([conflict(None), ok(), ok()]).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await.unwrap();
    assert!(matches!(recorded, Recorded::Claimed(_)));
    assert_eq!(operations(&server), ["PutItem", "GetItem", "PutItem"]);
}

#[tokio::test]
async fn an_item_that_everybody_writes_to_is_left_for_later() {
    let unclaimed = || conflict(Some(held(&["r1"], &[], None)));
    let server = Server::answering((0..8).map(|_| unclaimed())).await;
    let recorded = server.ports().store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await;
    assert_failed(recorded, ErrorClass::Transient, &Fault::Contended, &["9ee1a8a4"]);
    assert_eq!(server.requests().len(), 8);
}

#[tokio::test]
async fn a_claim_is_renewed_only_by_its_holder() {
    let mine = claim("t1", &["r1"]);
    let fresh = token("t2");
    let renewed = Claim { token: fresh.clone(), ..mine.clone() };
    let theirs = claim("t9", &["r1"]);
    let with = |claim: &Claim| held(&["r1"], &[], Some(&text(claim)));
    let server = Server::answering([
        ok(),
        // The answer to the first attempt was lost.
        conflict(Some(with(&renewed))),
        conflict(Some(with(&theirs))),
        conflict(None),
        found(&with(&renewed)),
        conflict(None),
        ok(),
    ])
    .await;
    let store = server.ports().store;
    for expected in [true, true, false, true, false] {
        assert_eq!(store.renew(&key(), &mine, &fresh).await.unwrap(), expected);
    }
    let sent = server.requests()[0].json();
    assert_eq!(sent["UpdateExpression"], "SET #claim = :fresh");
    assert_eq!(sent["ConditionExpression"], "#claim = :current");
    assert_eq!(
        sent["ExpressionAttributeValues"],
        json!({ ":fresh": { "S": text(&renewed) }, ":current": { "S": text(&mine) } })
    );
}

#[tokio::test]
async fn an_empty_answer_neither_renews_nor_marks() {
    let server = Server::answering(vec![answer(200, ""); 2]).await;
    let store = server.ports().store;
    let mine = claim("t1", &["r1"]);
    let renewed = store.renew(&key(), &mine, &token("t2")).await;
    assert_failed(renewed, ErrorClass::Transient, &Fault::Unavailable, &["is empty"]);
    let mark =
        Mark { alert: mine.alert, alerted_at: datetime!(2024-05-01 12:05:01.5 UTC), sns_message_id: "m-1".to_owned() };
    assert_failed(store.mark(&key(), &mark).await, ErrorClass::Transient, &Fault::Unavailable, &["is empty"]);
}

#[tokio::test]
async fn a_mark_only_adds() {
    let server = Server::answering([ok()]).await;
    let mark = Mark {
        alert: claim("t1", &["r1", "r2"]).alert,
        alerted_at: datetime!(2024-05-01 12:05:01.5 UTC),
        sns_message_id: "m-1".to_owned(),
    };
    server.ports().store.mark(&key(), &mark).await.unwrap();
    let sent = server.request().json();
    assert_eq!(sent["Key"], json!({ "EventId": { "S": key().event_id }, "Timestamp": { "S": key().timestamp } }));
    assert_eq!(sent.get("ConditionExpression"), None);
    assert_eq!(
        sent["UpdateExpression"],
        "SET #at = :at, #message = :message, #expires = if_not_exists(#expires, :expires) ADD #alerts :alert, #settled :rules"
    );
    assert_eq!(
        sent["ExpressionAttributeNames"],
        json!({
            "#at": "AlertedAt", "#message": "SnsMessageId", "#expires": "ExpiresAt", "#alerts": "AlertIds",
            "#settled": "SettledRules",
        })
    );
    assert_eq!(
        sent["ExpressionAttributeValues"],
        json!({
            ":at": { "S": "2024-05-01T12:05:01.5Z" },
            ":message": { "S": "m-1" },
            ":expires": { "N": "1714651501" },
            ":alert": { "SS": ["a-1"] },
            ":rules": { "SS": ["r1", "r2"] },
        })
    );
}

fn table(status: &str, hash: &str, range: Option<(&str, &str)>) -> Answer {
    let mut keys = vec![json!({ "AttributeName": hash, "KeyType": "HASH" })];
    let mut types = vec![json!({ "AttributeName": hash, "AttributeType": "S" })];
    if let Some((name, kind)) = range {
        keys.push(json!({ "AttributeName": name, "KeyType": "RANGE" }));
        types.push(json!({ "AttributeName": name, "AttributeType": kind }));
    }
    let table =
        json!({ "TableName": "events", "TableStatus": status, "KeySchema": keys, "AttributeDefinitions": types });
    answer(200, json!({ "Table": table }).to_string())
}

#[tokio::test]
async fn the_table_must_have_the_right_keys() {
    let server = Server::answering([
        table("ACTIVE", "EventId", Some(("Timestamp", "S"))),
        table("UPDATING", "EventId", Some(("Timestamp", "S"))),
        table("CREATING", "EventId", Some(("Timestamp", "S"))),
        table("ACTIVE", "Id", Some(("Timestamp", "S"))),
        table("ACTIVE", "EventId", None),
        table("ACTIVE", "EventId", Some(("Timestamp", "N"))),
    ])
    .await;
    let store = server.ports().store;
    store.check().await.unwrap();
    store.check().await.unwrap();
    assert_failed(store.check().await, ErrorClass::Transient, &Fault::Unavailable, &["events is CREATING"]);
    assert_failed(store.check().await, ErrorClass::Config, &Fault::Invalid, &["HASH key is Id;", "EventId (S, HASH)"]);
    assert_failed(store.check().await, ErrorClass::Config, &Fault::Invalid, &["RANGE key is none;"]);
    assert_failed(
        store.check().await,
        ErrorClass::Config,
        &Fault::Invalid,
        &["RANGE key is Timestamp, not of type S;"],
    );
}

#[tokio::test]
async fn a_table_that_may_not_be_described_is_probed() {
    let denied = || json_error(400, "AccessDeniedException", "not authorized to perform: dynamodb:DescribeTable on it");
    let server = Server::answering([
        denied(),
        ok(),
        denied(),
        json_error(400, "ValidationException", "The provided key element does not match the schema"),
        denied(),
        json_error(400, "AccessDeniedException", "not authorized to perform: dynamodb:GetItem on it"),
        json_error(400, "ResourceNotFoundException", "Requested resource not found: Table: events not found"),
    ])
    .await;
    let store = server.ports().store;
    store.check().await.unwrap();
    assert_failed(store.check().await, ErrorClass::Config, &Fault::Invalid, &["EventId (S, HASH)"]);
    let get = Fault::Denied { action: "dynamodb:GetItem" };
    assert_failed(store.check().await, ErrorClass::Config, &get, &["grant dynamodb:GetItem on table events"]);
    assert_failed(store.check().await, ErrorClass::Config, &Fault::Missing, &["table events does not exist"]);
}

#[tokio::test]
async fn each_refusal_of_a_put_has_its_class() {
    let cases = [
        ("ProvisionedThroughputExceededException", "slow down", ErrorClass::Transient, Fault::Unavailable, ""),
        ("ThrottlingException", "Rate exceeded", ErrorClass::Transient, Fault::Unavailable, ""),
        ("RequestLimitExceeded", "Account limit", ErrorClass::Transient, Fault::Unavailable, ""),
        ("TransactionConflictException", "ongoing", ErrorClass::Transient, Fault::Contended, ""),
        ("InternalServerError", "Internal", ErrorClass::Transient, Fault::Unavailable, ""),
        (
            "AccessDeniedException",
            "User: arn:aws:sts::111122223333:assumed-role/trailhound/task is not authorized to perform: dynamodb:PutItem \
             on resource: arn:aws:dynamodb:us-west-2:111122223333:table/events",
            ErrorClass::Config,
            Fault::Denied { action: "dynamodb:PutItem" },
            "grant dynamodb:PutItem on table events",
        ),
        (
            "AccessDeniedException",
            "KMS key access denied error: User is not authorized to perform: kms:Decrypt on resource",
            ErrorClass::Config,
            Fault::KmsDenied { action: "kms:Decrypt" },
            "kms:Decrypt",
        ),
        (
            "ResourceNotFoundException",
            "Requested resource not found",
            ErrorClass::Config,
            Fault::Missing,
            "table events",
        ),
        ("ExpiredTokenException", "The security token has expired", ErrorClass::Config, Fault::Credentials, "expired"),
        ("UnrecognizedClientException", "invalid token", ErrorClass::Config, Fault::Credentials, ""),
        ("InvalidSignatureException", "Signature expired: 20240501", ErrorClass::Config, Fault::Credentials, "clock"),
        (
            "ValidationException",
            "Item size has exceeded the maximum allowed size",
            ErrorClass::Permanent,
            Fault::Invalid,
            "maximum allowed size",
        ),
        (
            "ValidationException",
            "One or more parameter values were invalid: Missing the key Id in the item",
            ErrorClass::Config,
            Fault::Invalid,
            "the table needs the keys",
        ),
        ("SomethingNew", "never heard of", ErrorClass::Config, Fault::Invalid, "SomethingNew"),
    ];
    let server = Server::answering(cases.iter().map(|(code, message, ..)| json_error(400, code, message))).await;
    let store = server.ports().store;
    for (_, _, class, fault, words) in cases {
        let recorded = store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await;
        assert_failed(recorded, class, &fault, &[words, "dynamodb:PutItem failed"]);
    }
    assert_eq!(server.metrics().store_writes.get(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_of_dynamodb_never_counts_as_stored() {
    // DynamoDB itself says `{}` where it has nothing to say.
    let answers = [not_aws(), vec![answer(200, "")]].concat();
    let server = Server::answering(answers.clone()).await;
    let store = server.ports().store;
    for answer in answers {
        match store.record(&item(&["r1"]), &token("t1"), LENGTH, None).await {
            Ok(recorded) => panic!("{answer:?} gives {recorded:?}"),
            Err(error) => {
                assert_eq!((error.class, &error.fault), (ErrorClass::Transient, &Fault::Unavailable), "{error}");
            }
        }
    }
}
