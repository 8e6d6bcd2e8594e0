use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use time::macros::datetime;
use trailhound::alert::{EventKey, Facts, Source, StoredEvent, StoredItem};
use trailhound::claim::{ClaimToken, ClaimedAlert, Mark, Recorded};
use trailhound::ports::{AlertStore, ErrorClass, Fault};
use trailhound::rules::{Correlation, FirstSeen, Group, Limits, Severity, Threshold};
use trailhound::tracker::{CrossAttempt, Crossed, TrackerId, membership, sighting};

use super::{Answer, Server, answer, assert_failed};

const LENGTH: Duration = Duration::from_mins(1);

fn token(text: &str) -> ClaimToken {
    ClaimToken(text.to_owned())
}

/// An event of this minute that the rule `g` counts.
fn event(id: &str, minute: u8) -> StoredItem {
    let group = Group { by: vec!["userIdentity.arn".to_owned()], window: "1h".to_owned() };
    let at = datetime!(2024-05-01 12:00 UTC) + time::Duration::minutes(minute.into());
    let record = br#"{"userIdentity":{"arn":"alice"}}"#;
    let member = membership("g", &group, record, at, Some("StopLogging"), Some("203.0.113.7"));
    StoredItem {
        key: EventKey { event_id: id.to_owned(), timestamp: format!("2024-05-01T12:{minute:02}:00Z") },
        facts: Facts::default(),
        rules: [("g".to_owned(), Severity::High)].into(),
        recorded_only: BTreeSet::new(),
        groups: [("g".to_owned(), member)].into(),
        event: StoredEvent::Omitted,
        source: Source::default(),
        rule_set_hash: String::new(),
        detected_at: datetime!(2024-05-01 12:05:00 UTC),
        expires_at: datetime!(2025-05-01 12:05:00 UTC),
    }
}

fn tracker() -> TrackerId {
    event("e", 0).groups["g"].tracker.clone()
}

fn open() -> Recorded {
    Recorded::Counted([("g".to_owned(), tracker())].into())
}

/// What the table holds of the tracker.
fn held(count: u64, quiet: u64) -> Value {
    json!({
        "EventId": { "S": tracker().key().event_id }, "Timestamp": { "S": "2024-05-01T12:00:00Z" },
        "Count": { "N": count.to_string() }, "Quiet": { "N": quiet.to_string() },
        "First": { "S": "2024-05-01T12:10:00Z" }, "Last": { "S": "2024-05-01T12:40:00Z" },
        "RuleId": { "S": "g" }, "Window": { "N": "3600" },
        "Key": { "S": r#"[{"path":"userIdentity.arn","value":"alice"}]"# },
        "Name StopLogging": { "N": count.to_string() }, "From 203.0.113.7": { "N": count.to_string() },
        "ExpiresAt": { "N": "1746101100" },
    })
}

fn ok() -> Answer {
    answer(200, "{}")
}

fn updated(item: &Value) -> Answer {
    answer(200, json!({ "Attributes": item }).to_string())
}

fn found(item: &Value) -> Answer {
    answer(200, json!({ "Item": item }).to_string())
}

fn cancelled(reasons: &Value) -> Answer {
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
        "CancellationReasons": reasons,
    });
    answer(400, body.to_string())
}

fn operations(server: &Server) -> Vec<String> {
    let target =
        |request: &super::Request| request.header("x-amz-target").unwrap().rsplit_once('.').unwrap().1.to_owned();
    server.requests().iter().map(target).collect()
}

async fn cross(store: &dyn AlertStore, name: &str) -> Crossed {
    let (id, token) = (tracker(), token(name));
    let attempt = CrossAttempt {
        tracker: &id,
        rule: "g",
        severity: Severity::High,
        token: &token,
        length: LENGTH,
        expired: None,
    };
    store.cross(attempt).await.unwrap()
}

fn mark(step: u64) -> Mark {
    Mark {
        alert: ClaimedAlert {
            alert_id: tracker().alert_id(step),
            rules: ["g".to_owned()].into(),
            severity: Severity::High,
        },
        alerted_at: datetime!(2024-05-01 12:05:01 UTC),
        sns_message_id: "m-1".to_owned(),
    }
}

#[tokio::test]
async fn the_first_event_of_a_bucket_is_stored_and_counted_by_one_transaction() {
    let server = Server::answering([ok()]).await;
    let recorded = server.ports().store.record(&event("e-1", 30), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, open());
    let request = server.request();
    assert_eq!(request.header("x-amz-target"), Some("DynamoDB_20120810.TransactWriteItems"));
    let sent = request.json();
    let parts = sent["TransactItems"].as_array().unwrap();
    assert_eq!(parts.len(), 2);
    let put = &parts[0]["Put"];
    assert_eq!(put["ConditionExpression"], "attribute_not_exists(#id)");
    assert_eq!(put["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
    assert_eq!(put["Item"]["Groups"], json!({ "SS": [format!("{} g", tracker())] }));
    assert_eq!(put["Item"]["Rules"], json!({ "SS": ["g"] }));
    assert_eq!((put["Item"].get("SettledRules"), put["Item"].get("Claim")), (None, None));
    assert_eq!(
        parts[1]["Update"],
        json!({
            "TableName": "events",
            "Key": { "EventId": { "S": tracker().key().event_id }, "Timestamp": { "S": "2024-05-01T12:00:00Z" } },
            "ConditionExpression": "attribute_not_exists(#count)",
            "UpdateExpression": "SET #expires = :expires, #quiet = :zero, #rule = :rule, #key = :key, \
                                 #window = :window, #first = :at, #last = :at \
                                 ADD #count :one, #name :one, #address :one",
            "ExpressionAttributeNames": {
                "#expires": "ExpiresAt", "#quiet": "Quiet", "#rule": "RuleId", "#key": "Key", "#window": "Window",
                "#first": "First", "#last": "Last", "#count": "Count", "#name": "Name StopLogging",
                "#address": "From 203.0.113.7",
            },
            "ExpressionAttributeValues": {
                ":expires": { "N": "1746101100" }, ":zero": { "N": "0" }, ":rule": { "S": "g" },
                ":key": { "S": r#"[{"path":"userIdentity.arn","value":"alice"}]"# }, ":window": { "N": "3600" },
                ":at": { "S": "2024-05-01T12:30:00Z" }, ":one": { "N": "1" },
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        })
    );
    let metrics = server.metrics();
    assert_eq!((metrics.store_writes.get(), metrics.grouped_events.with_label_values(&["g"]).get()), (1, 1));
}

/// What `docs/rules.md` says of the requests: six for the event that opens a group, one for each that follows quietly.
#[tokio::test]
async fn a_group_costs_as_many_requests_as_the_documentation_says() {
    let claimed = |count, quiet| {
        let mut item = held(count, quiet);
        let id = tracker().alert_id(1);
        let claim = json!({ "token": "t1", "length_ms": 60000, "alert_id": id, "rules": ["g"], "severity": "HIGH" });
        item["Claim"] = json!({ "S": claim.to_string() });
        item
    };
    let answers = [ok(), updated(&claimed(1, 0)), ok(), updated(&claimed(1, 9)), ok(), ok(), ok()];
    let server = Server::answering(answers).await;
    let store = server.ports().store;
    let first = event("e-1", 30);
    assert_eq!(store.record(&first, &token("t1"), LENGTH, None).await.unwrap(), open());
    let Crossed::Claimed(crossing) = cross(&*store, "t1").await else { panic!("it is due") };
    assert_eq!((crossing.step, crossing.state.count, crossing.previous), (1, 1, None));
    assert!(store.mark_step(&tracker(), 1, &mark(1)).await.unwrap());
    store.settle(&first.key, &BTreeSet::from(["g".to_owned()])).await.unwrap();
    let opening = ["TransactWriteItems", "UpdateItem", "GetItem", "UpdateItem", "UpdateItem"];
    assert_eq!(operations(&server), opening);
    // Within the times that are known, and later.
    for (id, minute) in [("e-2", 30), ("e-3", 50)] {
        let quiet = store.record(&event(id, minute), &token("t2"), LENGTH, None).await.unwrap();
        assert_eq!(quiet, Recorded::Settled);
    }
    let requests = server.requests();
    assert_eq!(operations(&server)[opening.len()..], ["TransactWriteItems", "TransactWriteItems"]);
    let part = |at: usize| requests[at].json()["TransactItems"][1]["Update"].clone();
    assert_eq!(requests[5].json()["TransactItems"][0]["Put"]["Item"]["SettledRules"], json!({ "SS": ["g"] }));
    assert_eq!(part(5)["ConditionExpression"], "#count < #quiet");
    assert_eq!(part(6)["ConditionExpression"], "#count < #quiet AND #last < :at");

    let page = include_str!("../../../docs/rules.md");
    for row in [
        format!("| opens a group | {} |", opening.len()),
        "| is counted quietly | 1 |".to_owned(),
        "| matches no rule with a group | 2 |".to_owned(),
    ] {
        assert!(page.contains(&row), "docs/rules.md lacks the row {row}");
    }
}

#[tokio::test]
async fn a_step_is_claimed_and_marked_by_conditional_updates() {
    let server = Server::answering([found(&held(12, 9)), updated(&held(12, 9)), updated(&held(12, 99))]).await;
    let store = server.ports().store;
    let Crossed::Claimed(crossing) = cross(&*store, "t1").await else { panic!("it is due") };
    assert_eq!((crossing.step, crossing.state.count, crossing.previous), (10, 12, None));
    assert!(store.mark_step(&tracker(), 10, &mark(10)).await.unwrap());
    let requests = server.requests();
    assert_eq!(requests[0].json()["ConsistentRead"], true);
    let (claim, mark) = (requests[1].json(), requests[2].json());
    assert_eq!(claim["UpdateExpression"], "SET #claim = :claim");
    assert_eq!(claim["ConditionExpression"], "#quiet = :quiet AND attribute_not_exists(#claim)");
    assert_eq!(claim["ExpressionAttributeValues"][":quiet"], json!({ "N": "9" }));
    assert_eq!((&claim["ReturnValues"], &mark["ReturnValues"]), (&json!("ALL_NEW"), &json!("ALL_NEW")));
    assert_eq!(mark["UpdateExpression"], "SET #quiet = :quiet, #at = :at, #message = :message ADD #alerts :alert");
    assert_eq!(mark["ConditionExpression"], "#quiet < :quiet");
    assert_eq!(mark["ExpressionAttributeValues"][":quiet"], json!({ "N": "99" }));
}

/// What was believed of the tracker is wrong: what it holds is in the answer, or is read.
#[tokio::test]
async fn a_tracker_that_is_there_is_counted_in_as_it_is() {
    let failed = |item: Option<Value>| {
        let mut reason = json!({ "Code": "ConditionalCheckFailed", "Message": "The conditional request failed" });
        if let Some(item) = item {
            reason["Item"] = item;
        }
        cancelled(&json!([{ "Code": "None" }, reason]))
    };
    let none = json!([]);
    for (answers, wanted) in [
        (vec![failed(Some(held(4, 9))), ok()], vec!["TransactWriteItems", "TransactWriteItems"]),
        (vec![failed(None), found(&held(4, 9)), ok()], vec!["TransactWriteItems", "GetItem", "TransactWriteItems"]),
        // Without reasons everything is read.
        (
            vec![cancelled(&none), found(&held(4, 9)), ok(), ok()],
            vec!["TransactWriteItems", "GetItem", "GetItem", "TransactWriteItems"],
        ),
    ] {
        let server = Server::answering(answers).await;
        let recorded = server.ports().store.record(&event("e-1", 30), &token("t1"), LENGTH, None).await.unwrap();
        assert_eq!(
            (recorded, operations(&server)),
            (Recorded::Settled, wanted.iter().map(ToString::to_string).collect())
        );
        let requests = server.requests();
        let last = requests.last().unwrap().json()["TransactItems"][1]["Update"].clone();
        assert_eq!(last["ConditionExpression"], "#count < #quiet");
        assert_eq!(last["UpdateExpression"], "SET #expires = :expires ADD #count :one, #name :one, #address :one");
    }
}

#[tokio::test]
async fn an_event_that_is_there_is_counted_only_where_it_was_not() {
    let there = |groups: Value| {
        let mut item = json!({
            "EventId": { "S": "e-1" }, "Timestamp": { "S": "2024-05-01T12:30:00Z" }, "Rules": { "SS": ["g"] },
        });
        if !groups.is_null() {
            item["Groups"] = json!({ "SS": [groups] });
        }
        cancelled(&json!([{ "Code": "ConditionalCheckFailed", "Item": item }, { "Code": "None" }]))
    };
    let server = Server::answering([there(json!(format!("{} g", tracker())))]).await;
    let recorded = server.ports().store.record(&event("e-1", 30), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!((recorded, server.requests().len()), (open(), 1), "a lost answer, or another copy");

    // Of a rule that had no group then.
    let server = Server::answering([there(Value::Null), ok()]).await;
    let recorded = server.ports().store.record(&event("e-1", 30), &token("t1"), LENGTH, None).await.unwrap();
    assert_eq!(recorded, open());
    let update = server.requests()[1].json()["TransactItems"][0]["Update"].clone();
    assert_eq!(update["UpdateExpression"], "ADD #rules :rules, #groups :groups");
    assert_eq!(
        update["ConditionExpression"],
        "attribute_exists(#id) AND attribute_not_exists(#claim) AND attribute_not_exists(#settled) \
         AND attribute_not_exists(#groups)"
    );
}

#[tokio::test]
async fn each_reason_of_a_cancellation_has_its_class() {
    let cases = [
        ("TransactionConflict", ErrorClass::Transient, Fault::Contended),
        ("ThrottlingError", ErrorClass::Transient, Fault::Unavailable),
        ("ProvisionedThroughputExceeded", ErrorClass::Transient, Fault::Unavailable),
        ("ValidationError", ErrorClass::Permanent, Fault::Invalid),
    ];
    let reasons = |code: &str| cancelled(&json!([{ "Code": "None" }, { "Code": code, "Message": "so it is" }]));
    let server = Server::answering(cases.iter().map(|(code, ..)| reasons(code))).await;
    let store = server.ports().store;
    for (_, class, fault) in cases {
        let recorded = store.record(&event("e-1", 30), &token("t1"), LENGTH, None).await;
        assert_failed(recorded, class, &fault, &["so it is", "dynamodb:TransactWriteItems failed"]);
    }
    let denied = "User is not authorized to perform: dynamodb:UpdateItem";
    let server = Server::answering([super::json_error(400, "AccessDeniedException", denied)]).await;
    let recorded = server.ports().store.record(&event("e-1", 30), &token("t1"), LENGTH, None).await.unwrap_err();
    assert_eq!(recorded.class, ErrorClass::Config);
    assert!(recorded.detail.contains("grant dynamodb:PutItem and dynamodb:UpdateItem"), "{recorded}");
}

#[tokio::test]
async fn what_is_settled_is_added_and_an_expired_item_stays_away() {
    let server = Server::answering([ok(), super::json_error(400, "ConditionalCheckFailedException", "failed")]).await;
    let store = server.ports().store;
    for _ in 0..2 {
        store.settle(&event("e-1", 30).key, &BTreeSet::from(["g".to_owned()])).await.unwrap();
    }
    let sent = server.requests()[0].json();
    assert_eq!(sent["UpdateExpression"], "ADD #settled :rules");
    assert_eq!(sent["ConditionExpression"], "attribute_exists(#id)");
    assert_eq!(sent["ExpressionAttributeValues"], json!({ ":rules": { "SS": ["g"] } }));
}

/// A key goes on for years, and an item holds 400 KB.
#[tokio::test]
async fn what_a_key_remembers_does_not_grow_for_ever() {
    let by = vec!["sourceIPAddress".to_owned()];
    let window = "10m".to_owned();
    let two = Correlation::Threshold(Threshold { count: 2, window, by, distinct: None, limits: Limits::default() });
    let facts = (datetime!(2024-05-01 12:30 UTC), Some("ConsoleLogin"), Some("203.0.113.7"));
    let id = sighting("g", &two, &[], br#"{"sourceIPAddress":"203.0.113.7"}"#, "e-1", facts).tracker;
    let item = |id: &TrackerId, more: Value| {
        let mut item = json!({
            "EventId": { "S": id.key().event_id }, "Timestamp": { "S": id.key().timestamp }, "RuleId": { "S": "g" },
            "Window": { "N": "600" }, "Correlation": { "S": serde_json::to_string(&two).unwrap() },
            "Keys": { "S": "keys:0123456789abcdef0123456789abcdef@2024-05-01T12:30:00Z" },
        });
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    let bucket = item(&id, json!({ "Count": { "N": "2" }, "Entries": { "SS": ["1714566600 0 a", "1714566601 0 b"] } }));
    let told: Vec<_> = (0..205).map(|at| json!({ "S": format!("{0}/{0}", 100 * at) })).collect();
    let head = item(&id.steps(), json!({ "Quiet": { "N": "205" }, "Told": { "L": told } }));
    let claimed =
        item(&id.steps(), json!({ "Quiet": { "N": "205" }, "Pending": { "L": [{ "S": "1714566600/1714566601" }] } }));
    let found_all = answer(200, json!({ "Items": [bucket] }).to_string());
    let answers = [found(&bucket), found_all, found(&head), updated(&claimed), updated(&claimed)];
    let server = Server::answering(answers).await;
    let (store, token) = (server.ports().store, token("t1"));
    let (rule, severity, length) = ("g", Severity::High, LENGTH);
    let attempt = CrossAttempt { tracker: &id, rule, severity, token: &token, length, expired: None };
    let Crossed::Claimed(crossing) = store.cross(attempt).await.unwrap() else { panic!("it is due") };
    store.mark_step(&id, crossing.step, &mark(206)).await.unwrap();
    let requests = server.requests();
    let (claim, mark) = (requests[3].json(), requests[4].json());
    let left = claim["ExpressionAttributeValues"][":told"]["L"].as_array().unwrap();
    assert_eq!((left.len(), &left[0]), (199, &json!({ "S": "600/600" })), "with the one that is told then, 200");
    assert_eq!(claim["ConditionExpression"], "#quiet = :quiet AND attribute_not_exists(#claim)");
    assert_eq!(
        mark["UpdateExpression"],
        "SET #told = list_append(if_not_exists(#told, :none), #pending), #quiet = :quiet, #at = :at, #message = :message, \
         #alerts = :alert"
    );
}

#[tokio::test]
async fn a_tracker_of_a_group_outlives_its_bucket() {
    let group = Group { by: vec!["userIdentity.arn".to_owned()], window: "365d".to_owned() };
    let (at, record) = (datetime!(2024-05-01 12:30 UTC), br#"{"userIdentity":{"arn":"alice"}}"#);
    let event = StoredItem {
        groups: [("g".to_owned(), membership("g", &group, record, at, None, None))].into(),
        ..event("e-1", 30)
    };
    let event = StoredItem { expires_at: event.detected_at + time::Duration::DAY, ..event };
    let server = Server::answering([ok()]).await;
    server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    let values = server.request().json()["TransactItems"][1]["Update"]["ExpressionAttributeValues"].clone();
    let expires = event.detected_at.unix_timestamp() + 365 * 86_400;
    assert_eq!(values[":expires"], json!({ "N": expires.to_string() }));
}

#[tokio::test]
async fn a_tracker_of_a_correlation_outlives_three_windows() {
    let by = vec!["sourceIPAddress".to_owned()];
    let new = Correlation::FirstSeen(FirstSeen { by, within: "90d".to_owned(), limits: Limits::default() });
    let facts = (datetime!(2024-05-01 12:30 UTC), Some("ConsoleLogin"), Some("203.0.113.7"));
    let record = br#"{"sourceIPAddress":"203.0.113.7"}"#;
    let event = StoredItem {
        groups: [("g".to_owned(), sighting("g", &new, &[], record, "e-1", facts))].into(),
        ..event("e-1", 30)
    };
    let event = StoredItem { expires_at: event.detected_at + time::Duration::DAY, ..event };
    let server = Server::answering([ok()]).await;
    server.ports().store.record(&event, &token("t1"), LENGTH, None).await.unwrap();
    let parts = server.request().json()["TransactItems"].clone();
    let expires = |part: &Value| {
        let number = part["Update"]["ExpressionAttributeValues"][":expires"]["N"].as_str().unwrap();
        number.parse::<i64>().unwrap() - event.detected_at.unix_timestamp()
    };
    assert_eq!((expires(&parts[1]), expires(&parts[2])), (270 * 86_400, 270 * 86_400));
    let key = |part: &Value| part["Update"]["Key"]["EventId"]["S"].as_str().unwrap().to_owned();
    assert!(key(&parts[1]).starts_with("trailhound#correlation#") && key(&parts[2]).starts_with("trailhound#keys#"));
    assert_eq!(parts[1]["Update"]["ExpressionAttributeValues"][":entries"], json!({ "SS": ["1714521600 0 "] }));
}
