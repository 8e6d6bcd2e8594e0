//! One suite for each port, run on every fake and on every real adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;
use trailhound::alert::{
    AttributeValue, EventKey, Facts, Outbound, Outcome, Source, SourceObject, StoredEvent, StoredItem, alert_id,
};
use trailhound::claim::{Claim, ClaimToken, ClaimedAlert, Mark, Recorded};
use trailhound::deliver::{Delivered, Delivery};
use trailhound::ports::{
    AlertPublisher, AlertStore, ErrorClass, Fault, MessageQueue, ObjectRequest, ObjectStore, Receipt, ReceivedMessage,
};
use trailhound::rules::{Correlation, FirstSeen, Group, Limits, Severity, Threshold};
use trailhound::tracker::{CrossAttempt, Crossed, Crossing, MAX_SLOTS, Span, TrackerId, membership, sighting};

const LENGTH: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);

/// The proof for a message that names nothing: made by the delivery step, like every other.
fn nothing_to_deliver(message: &ReceivedMessage) -> Delivered {
    Delivery::begin(message, 0).finish().unwrap()
}

async fn receive_one(queue: &dyn MessageQueue, visibility: Duration) -> ReceivedMessage {
    for _ in 0..30 {
        if let Some(message) = queue.receive(10, SHORT, visibility).await.unwrap().pop() {
            return message;
        }
    }
    panic!("no message arrives");
}

/// The queue must be empty, with a redrive policy of `max_receive_count`, at least 2.
async fn queue_contract(queue: &dyn MessageQueue, max_receive_count: u32, send: impl AsyncFn(&'static str)) {
    let attributes = queue.attributes().await.unwrap();
    assert_eq!(attributes.max_receive_count, Some(max_receive_count));
    assert!(queue.receive(10, SHORT, LENGTH).await.unwrap().is_empty(), "an empty queue gives nothing");

    // A message is given once, and is invisible while its visibility lasts.
    send("first").await;
    let message = receive_one(queue, SHORT).await;
    assert_eq!((message.body.as_str(), message.receive_count), ("first", 1));
    queue.change_visibility(&message.receipt, LENGTH).await.unwrap();
    assert!(queue.receive(10, 2 * SHORT, LENGTH).await.unwrap().is_empty(), "an extended message stays invisible");

    // Zero gives it back at once, and the next receive counts.
    queue.change_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    let again = receive_one(queue, LENGTH).await;
    assert_eq!((again.message_id.as_str(), again.receive_count), (message.message_id.as_str(), 2));

    // Deleting is final, and repeating it is no error.
    let proofs = [nothing_to_deliver(&again)];
    for _ in 0..2 {
        let results = queue.delete(&proofs).await.unwrap();
        assert_eq!(results.len(), 1);
        assert!(results[0].is_ok(), "{results:?}");
    }
    assert!(queue.receive(10, SHORT, LENGTH).await.unwrap().is_empty());

    // A receipt that is no longer good is a lost lease, not a failure of the queue.
    let lost = queue.change_visibility(&Receipt("AQEB-never-was-one".to_owned()), LENGTH).await.unwrap_err();
    assert_eq!((lost.class, lost.fault), (ErrorClass::Permanent, Fault::LeaseLost));

    // A message that nobody deletes leaves for the dead-letter queue after its receives are used up.
    send("poison").await;
    for count in 1..=max_receive_count {
        let message = receive_one(queue, LENGTH).await;
        assert_eq!(message.receive_count, count);
        queue.change_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    }
    assert!(queue.receive(10, SHORT, LENGTH).await.unwrap().is_empty(), "it is in the dead-letter queue");

    // Never more than was asked for.
    for body in ["a", "b", "c", "d"] {
        send(body).await;
    }
    let mut bodies = BTreeSet::new();
    while bodies.len() < 4 {
        let messages = queue.receive(3, SHORT, LENGTH).await.unwrap();
        assert!(messages.len() <= 3);
        let proofs: Vec<_> = messages.iter().map(nothing_to_deliver).collect();
        bodies.extend(messages.into_iter().map(|it| it.body));
        if !proofs.is_empty() {
            assert!(queue.delete(&proofs).await.unwrap().iter().all(Result::is_ok));
        }
    }
}

/// `bucket` must hold `key` with the bytes 0, 1, ... 255, repeated to `length`.
async fn object_contract(objects: &dyn ObjectStore, bucket: &str, key: &str, length: usize, replace: impl AsyncFn()) {
    let expected: Vec<u8> = (0..length).map(|at| u8::try_from(at % 256).unwrap()).collect();
    let request = |start: usize, if_match: Option<String>| ObjectRequest {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version_id: None,
        region: None,
        start: start as u64,
        if_match,
    };
    objects.check().await.unwrap();
    let mut whole = objects.open(&request(0, None)).await.unwrap();
    assert_eq!(whole.length, Some(length as u64));
    let etag = whole.etag.clone();
    assert!(etag.is_some());
    assert_eq!(read(&mut whole).await, expected);

    let mut rest = objects.open(&request(1000, etag.clone())).await.unwrap();
    assert_eq!(rest.length, Some(length as u64 - 1000));
    assert_eq!(read(&mut rest).await, &expected[1000..]);

    // Resuming where the object ends gives an empty rest; a store that does not say how long the object is may have it
    // read again instead.
    match objects.open(&request(length, etag.clone())).await {
        Ok(mut nothing) => assert_eq!(read(&mut nothing).await, b""),
        Err(error) => assert_eq!(error.fault, Fault::Changed),
    }

    replace().await;
    let changed = objects.open(&request(1000, etag)).await.err().unwrap();
    assert_eq!((changed.class, changed.fault), (ErrorClass::Transient, Fault::Changed));

    let missing = ObjectRequest { key: "not/there".to_owned(), ..request(0, None) };
    let missing = objects.open(&missing).await.err().unwrap();
    assert_eq!((missing.class, missing.fault), (ErrorClass::Permanent, Fault::Missing));
}

async fn read(body: &mut trailhound::ports::ObjectBody) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunks.next().await.unwrap() {
        assert!(!chunk.is_empty());
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

fn alert(number: u32) -> Outbound {
    Outbound {
        alert_id: format!("{number:032x}"),
        subject: "[HIGH] StopLogging by alice in 111122223333 us-east-1".to_owned(),
        message: serde_json::json!({
            "default": format!("{{\"schema\":\"trailhound.alert/1\",\"alert_id\":\"{number:032x}\"}}"),
            "email": "StopLogging\nby alice", "sms": "StopLogging",
        })
        .to_string(),
        attributes: vec![
            ("severity", AttributeValue::String("HIGH".to_owned())),
            ("rule_ids", AttributeValue::StringArray(vec!["trail-stopped".to_owned(), "any".to_owned()])),
        ],
        group_id: "111122223333".to_owned(),
    }
}

/// `arrived` gives the `default` texts that subscribers got.
async fn publisher_contract(publisher: &dyn AlertPublisher, arrived: impl AsyncFn() -> Vec<String>) {
    publisher.check().await.unwrap();
    let alerts: Vec<_> = (0..10).map(alert).collect();
    let results = publisher.publish(&alerts).await.unwrap();
    assert_eq!(results.len(), 10);
    let ids: BTreeSet<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 10, "each has an id of its own");
    let texts = arrived().await;
    for number in 0..10 {
        assert!(texts.iter().any(|it| it.contains(&format!("{number:032x}"))), "{number} is missing from {texts:?}");
    }
}

fn item(event_id: &str, rules: &[&str]) -> StoredItem {
    StoredItem {
        key: EventKey { event_id: event_id.to_owned(), timestamp: "2026-05-01T12:00:00Z".to_owned() },
        facts: Facts {
            event_name: Some("StopLogging".to_owned()),
            event_source: Some("cloudtrail.amazonaws.com".to_owned()),
            region: Some("us-east-1".to_owned()),
            account_id: Some("111122223333".to_owned()),
            actor: Some("alice".to_owned()),
            user_identity_type: Some("IAMUser".to_owned()),
            source_ip: Some("203.0.113.7".to_owned()),
            user_agent: Some("aws-cli/2.17.9".to_owned()),
            error_code: None,
            error_message: None,
            event_time: Some(datetime!(2026-05-01 12:00:00 UTC)),
            outcome: Outcome::Success,
        },
        rules: rules.iter().map(|id| ((*id).to_owned(), Severity::High)).collect(),
        recorded_only: BTreeSet::new(),
        groups: BTreeMap::new(),
        event: StoredEvent::Json("{\"eventName\":\"StopLogging\"}".to_owned()),
        source: Source {
            object: Some(SourceObject {
                bucket: "trail-logs".to_owned(),
                key: "AWSLogs/111122223333/CloudTrail/us-east-1/2026/05/01/x.json.gz".to_owned(),
                version_id: None,
            }),
            index: 3,
        },
        rule_set_hash: "0123456789abcdef".to_owned(),
        detected_at: datetime!(2026-05-01 12:05:00 UTC),
        expires_at: datetime!(2026-07-30 12:05:00 UTC),
    }
}

fn set(rules: &[&str]) -> BTreeSet<String> {
    rules.iter().map(|it| (*it).to_owned()).collect()
}

fn token(name: &str) -> ClaimToken {
    ClaimToken(name.to_owned())
}

fn claimed(recorded: Recorded) -> Claim {
    match recorded {
        Recorded::Claimed(claim) => claim,
        other => panic!("expected a claim, got {other:?}"),
    }
}

fn mark_of(claim: &Claim) -> Mark {
    Mark {
        alert: claim.alert.clone(),
        alerted_at: datetime!(2026-05-01 12:05:01 UTC),
        sns_message_id: "0a1b2c3d-0000-4000-8000-000000000001".to_owned(),
    }
}

async fn store_contract(store: &Arc<dyn AlertStore>) {
    store.check().await.unwrap();
    let first = item("e0000000-0000-4000-8000-000000000001", &["r1", "r2"]);

    // The first to record an event holds the claim on all of its rules, however often it asks.
    let ours = claimed(store.record(&first, &token("a"), LENGTH, None).await.unwrap());
    assert_eq!((ours.alert.rules.clone(), ours.length), (set(&["r1", "r2"]), LENGTH));
    assert_eq!(claimed(store.record(&first, &token("a"), LENGTH, None).await.unwrap()), ours, "a lost answer");
    assert_eq!(store.record(&first, &token("b"), LENGTH, None).await.unwrap(), Recorded::Held(ours.clone()));

    // Renewing replaces the token; the old one is nobody's any more.
    assert!(store.renew(&first.key, &ours, &token("a2")).await.unwrap());
    assert!(store.renew(&first.key, &ours, &token("a2")).await.unwrap(), "a lost answer");
    let renewed = Claim { token: token("a2"), ..ours.clone() };
    assert_eq!(
        store.record(&first, &token("b"), LENGTH, Some(&token("a"))).await.unwrap(),
        Recorded::Held(renewed.clone()),
        "the token that stood still is not this one"
    );

    // Taken over: exactly the same alert, and the one before has lost it.
    let taken = claimed(store.record(&first, &token("b"), LENGTH, Some(&token("a2"))).await.unwrap());
    assert_eq!((&taken.alert, &taken.token), (&ours.alert, &token("b")));
    assert_eq!(claimed(store.record(&first, &token("b"), LENGTH, Some(&token("a2"))).await.unwrap()), taken);
    assert!(!store.renew(&first.key, &renewed, &token("a3")).await.unwrap());

    // Marked: settled for everybody; marking again changes nothing.
    for _ in 0..2 {
        store.mark(&first.key, &mark_of(&taken)).await.unwrap();
    }
    assert_eq!(store.record(&first, &token("c"), LENGTH, None).await.unwrap(), Recorded::Settled);
    assert_eq!(
        store.record(&first, &token("c"), LENGTH, Some(&token("b"))).await.unwrap(),
        Recorded::Settled,
        "a spent claim cannot be taken over"
    );

    // A rule that was added later is alerted by itself.
    let more = item("e0000000-0000-4000-8000-000000000001", &["r1", "r3"]);
    let added = claimed(store.record(&more, &token("d"), LENGTH, None).await.unwrap());
    assert_eq!(added.alert.rules, set(&["r3"]));
    assert_ne!(added.alert.alert_id, ours.alert.alert_id);
    store.mark(&more.key, &mark_of(&added)).await.unwrap();
    assert_eq!(store.record(&more, &token("e"), LENGTH, None).await.unwrap(), Recorded::Settled);

    // A late mark of the holder before does no harm.
    store.mark(&first.key, &mark_of(&ours)).await.unwrap();
    assert_eq!(store.record(&more, &token("f"), LENGTH, None).await.unwrap(), Recorded::Settled);

    race(store, "e0000000-0000-4000-8000-000000000002", None).await;
    // Many see the same claim stand still: one of them takes it over.
    let held = item("e0000000-0000-4000-8000-000000000003", &["r1"]);
    claimed(store.record(&held, &token("dead"), LENGTH, None).await.unwrap());
    race(store, "e0000000-0000-4000-8000-000000000003", Some(token("dead"))).await;
}

/// The same event under a rule set in which these rules are only recorded.
fn recorded_only(item: &StoredItem, rules: &[&str]) -> StoredItem {
    StoredItem { recorded_only: set(rules), ..item.clone() }
}

async fn recorded_only_contract(store: &Arc<dyn AlertStore>) {
    let record = async |item: &StoredItem, name: &str| store.record(item, &token(name), LENGTH, None).await.unwrap();

    // Only recorded: stored and settled at once, and not alerted when its rules alert later.
    let event = item("e0000000-0000-4000-8000-000000000011", &["s1", "s2"]);
    let shadow = recorded_only(&event, &["s1", "s2"]);
    assert_eq!(record(&shadow, "a").await, Recorded::Settled);
    assert_eq!(record(&shadow, "a").await, Recorded::Settled, "a lost answer");
    assert_eq!(record(&event, "b").await, Recorded::Settled, "settled when it was stored");
    assert!(!store.renew(&event.key, &claim_of(&event, &["s1"]), &token("c")).await.unwrap(), "there is no claim");

    // Of both kinds: the claim is on the rules that alert.
    let event = item("e0000000-0000-4000-8000-000000000012", &["r1", "s1"]);
    let ours = claimed(record(&recorded_only(&event, &["s1"]), "a").await);
    assert_eq!(ours.alert.rules, set(&["r1"]));
    store.mark(&event.key, &mark_of(&ours)).await.unwrap();
    assert_eq!(record(&event, "b").await, Recorded::Settled, "s1 was settled when it was stored");

    // Added to an item that has nothing unsettled, and then together with a claim.
    let more = item("e0000000-0000-4000-8000-000000000012", &["r1", "s1", "s2"]);
    assert_eq!(record(&recorded_only(&more, &["s1", "s2"]), "c").await, Recorded::Settled);
    assert_eq!(record(&more, "d").await, Recorded::Settled, "s2 was settled when it was added");
    let more = item("e0000000-0000-4000-8000-000000000012", &["r1", "r2", "s3"]);
    let added = claimed(record(&recorded_only(&more, &["s3"]), "e").await);
    assert_eq!(added.alert.rules, set(&["r2"]));
    store.mark(&more.key, &mark_of(&added)).await.unwrap();
    assert_eq!(record(&more, "f").await, Recorded::Settled, "s3 was settled with the claim");

    // A live claim keeps its alert, whatever its rules have become; it is waited for, and taken over as it is.
    let event = item("e0000000-0000-4000-8000-000000000013", &["r1", "s1"]);
    let theirs = claimed(record(&item("e0000000-0000-4000-8000-000000000013", &["r1"]), "a").await);
    let shadow = recorded_only(&event, &["r1", "s1"]);
    assert_eq!(record(&shadow, "b").await, Recorded::Held(theirs.clone()));
    let taken = claimed(store.record(&shadow, &token("b"), LENGTH, Some(&token("a"))).await.unwrap());
    assert_eq!((&taken.alert, &taken.token), (&theirs.alert, &token("b")));
    assert_eq!(record(&event, "c").await, Recorded::Held(taken.clone()), "its alert is not told yet");
    store.mark(&event.key, &mark_of(&taken)).await.unwrap();
    assert_eq!(record(&event, "d").await, Recorded::Settled, "s1 was settled with the claim");

    // Unsettled and unclaimed, after a crash, and only recorded by now: settled without an alert.
    let event = item("e0000000-0000-4000-8000-000000000014", &["r1", "r2"]);
    claimed(record(&item("e0000000-0000-4000-8000-000000000014", &["r1"]), "a").await);
    let taken = claimed(store.record(&event, &token("b"), LENGTH, Some(&token("a"))).await.unwrap());
    assert_eq!(taken.alert.rules, set(&["r1"]));
    store.mark(&event.key, &mark_of(&taken)).await.unwrap();
    assert_eq!(record(&recorded_only(&event, &["r2"]), "c").await, Recorded::Settled);
    assert_eq!(record(&event, "d").await, Recorded::Settled);

    // Many at once, on a new item and on one that is there.
    for rules in [&["s1"][..], &["s1", "s2"]] {
        let event = recorded_only(&item("e0000000-0000-4000-8000-000000000015", rules), rules);
        let outcomes = racing(store, &event, None).await;
        assert!(outcomes.iter().all(|it| *it == Recorded::Settled), "{outcomes:?}");
    }
}

/// An event at this minute that `rule` counts by its address.
fn counted(number: u32, minute: u8, rule: &str) -> StoredItem {
    let group = Group { by: vec!["sourceIPAddress".to_owned()], window: "1h".to_owned() };
    let at = datetime!(2026-05-01 12:00 UTC) + time::Duration::minutes(minute.into());
    let record = br#"{"sourceIPAddress":"203.0.113.7"}"#;
    let member = membership(rule, &group, record, at, Some("StopLogging"), Some("203.0.113.7"));
    let event = item(&format!("e0000000-0000-4000-8000-{number:012}"), &[rule]);
    StoredItem { groups: [(rule.to_owned(), member)].into(), ..event }
}

fn tracker_of(item: &StoredItem) -> TrackerId {
    item.groups.values().next().unwrap().tracker.clone()
}

async fn cross(store: &dyn AlertStore, tracker: &TrackerId, name: &str, expired: Option<&str>) -> Crossed {
    let (token, expired) = (token(name), expired.map(token));
    let (rule, severity, expired) = ("g", Severity::High, expired.as_ref());
    store.cross(CrossAttempt { tracker, rule, severity, token: &token, length: LENGTH, expired }).await.unwrap()
}

fn crossing(crossed: Crossed) -> Crossing {
    match crossed {
        Crossed::Claimed(crossing) => *crossing,
        other => panic!("expected a step, got {other:?}"),
    }
}

async fn tracker_contract(store: &Arc<dyn AlertStore>) {
    let record = async |item: &StoredItem, name: &str| store.record(item, &token(name), LENGTH, None).await.unwrap();
    let first = counted(100, 30, "g");
    let tracker = tracker_of(&first);
    let open = Recorded::Counted([("g".to_owned(), tracker.clone())].into());

    // Nothing was counted.
    assert_eq!(cross(&**store, &tracker, "a", None).await, Crossed::Clear);
    // The first event reaches the first step; recorded once more, it is not counted once more.
    for name in ["a", "a", "b"] {
        assert_eq!(record(&first, name).await, open);
    }
    let ours = crossing(cross(&**store, &tracker, "a", None).await);
    assert_eq!((ours.step, ours.state.count, ours.previous, &ours.tracker), (1, 1, None, &tracker));
    assert_eq!(ours.claim.alert.alert_id, tracker.alert_id(1));
    assert_eq!((ours.claim.alert.rules.clone(), ours.claim.alert.severity), (set(&["g"]), Severity::High));
    assert_eq!(crossing(cross(&**store, &tracker, "a", None).await).claim, ours.claim, "a lost answer");
    assert_eq!(cross(&**store, &tracker, "b", None).await, Crossed::Held(ours.claim.clone()));

    // While a step is due, what is counted is not settled.
    assert_eq!(record(&counted(101, 50, "g"), "b").await, open);
    // The claim is renewed and taken over like that of an event.
    assert!(store.renew(&tracker.key(), &ours.claim, &token("a2")).await.unwrap());
    assert!(store.renew(&tracker.key(), &ours.claim, &token("a2")).await.unwrap(), "a lost answer");
    let renewed = Claim { token: token("a2"), ..ours.claim.clone() };
    assert_eq!(cross(&**store, &tracker, "b", Some("a")).await, Crossed::Held(renewed.clone()));
    let taken = crossing(cross(&**store, &tracker, "b", Some("a2")).await);
    assert_eq!((&taken.claim.alert, &taken.claim.token), (&ours.claim.alert, &token("b")));
    assert_eq!((taken.state.count, taken.state.names["StopLogging"], taken.state.addresses["203.0.113.7"]), (2, 2, 2));
    assert!(!store.renew(&tracker.key(), &renewed, &token("a3")).await.unwrap());

    // Told: nothing is due, whoever marks it how often.
    for _ in 0..2 {
        assert!(store.mark_step(&tracker, 1, &mark_of(&taken.claim)).await.unwrap());
    }
    assert_eq!(cross(&**store, &tracker, "c", None).await, Crossed::Clear);
    assert_eq!(record(&first, "c").await, open, "its rule is settled by whoever recorded it");
    for _ in 0..2 {
        store.settle(&first.key, &set(&["g"])).await.unwrap();
    }
    assert_eq!(record(&first, "c").await, Recorded::Settled);

    // Up to the next step each event is settled as it is counted, and its copies are.
    for number in 102..109 {
        let minute = if number == 105 { 10 } else { 40 };
        assert_eq!(record(&counted(number, minute, "g"), "d").await, Recorded::Settled);
        assert_eq!(record(&counted(number, minute, "g"), "e").await, Recorded::Settled);
    }
    assert_eq!(cross(&**store, &tracker, "d", None).await, Crossed::Clear);
    assert_eq!(record(&counted(109, 45, "g"), "d").await, open);
    let tenth = crossing(cross(&**store, &tracker, "d", None).await);
    assert_eq!((tenth.step, tenth.state.count, tenth.state.names["StopLogging"]), (10, 10, 10));
    assert_eq!((&*tenth.state.first, &*tenth.state.last), ("2026-05-01T12:10:00Z", "2026-05-01T12:50:00Z"));
    assert_eq!(tenth.claim.alert.alert_id, tracker.alert_id(10));
    // A late mark of the step before does not hide this one.
    assert!(!store.mark_step(&tracker, 1, &mark_of(&ours.claim)).await.unwrap());
    assert!(store.mark_step(&tracker, 10, &mark_of(&tenth.claim)).await.unwrap());
    assert_eq!(cross(&**store, &tracker, "e", None).await, Crossed::Clear);

    // Another bucket of the key knows the one before.
    let next = counted(120, 60, "g");
    assert!(matches!(record(&next, "f").await, Recorded::Counted(_)));
    let opened = crossing(cross(&**store, &tracker_of(&next), "f", None).await);
    assert_eq!((opened.step, opened.state.count, opened.previous), (1, 1, Some(10)));

    // Beside a rule that alerts by itself: its alert first, then the group.
    let both = StoredItem { rules: counted(121, 1, "g").rules, ..counted(121, 1, "g") };
    let both = StoredItem { rules: both.rules.into_iter().chain([("r".to_owned(), Severity::High)]).collect(), ..both };
    let own = claimed(record(&both, "g").await);
    assert_eq!(own.alert.rules, set(&["r"]));
    store.mark(&both.key, &mark_of(&own)).await.unwrap();
    assert_eq!(record(&both, "h").await, Recorded::Settled, "it was quiet");
    let other =
        StoredItem { groups: [("h".to_owned(), counted(0, 0, "h").groups["h"].clone())].into(), ..both.clone() };
    let other =
        StoredItem { rules: other.rules.into_iter().chain([("h".to_owned(), Severity::Low)]).collect(), ..other };
    let added = record(&other, "i").await;
    assert_eq!(added, Recorded::Counted([("h".to_owned(), tracker_of(&other))].into()), "a rule that was added later");

    // Names are bounded.
    for number in 200..230 {
        let mut event = counted(number, 1, "n");
        let member = event.groups.get_mut("n").unwrap();
        (member.name, member.address) = (Some(format!("Name{number}")), None);
        store.record(&event, &token("a"), LENGTH, None).await.unwrap();
    }
    let named = crossing(cross(&**store, &tracker_of(&counted(200, 1, "n")), "a", None).await);
    assert_eq!((named.state.count, named.state.names.len(), named.state.addresses.len()), (30, MAX_SLOTS + 1, 0));
    assert_eq!(named.state.names.values().sum::<u64>(), 30);
}

/// Many at once: each event counts once, and one caller gets each step.
async fn racing_tracker_contract(store: &Arc<dyn AlertStore>) {
    let persist = async |store: &Arc<dyn AlertStore>, item: &StoredItem, name: &str| {
        for _ in 0..200 {
            match store.record(item, &token(name), LENGTH, None).await {
                Ok(recorded) => return recorded,
                Err(error) => assert_eq!((error.class, &error.fault), (ErrorClass::Transient, &Fault::Contended)),
            }
        }
        panic!("never recorded");
    };
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..40_u32 {
        let store = Arc::clone(store);
        // Each event twice.
        let event = counted(300 + number / 2, u8::try_from(number).unwrap(), "race");
        racing.spawn(async move { persist(&store, &event, &format!("racer-{number}")).await });
    }
    let outcomes = racing.join_all().await;
    assert!(outcomes.iter().all(|it| matches!(it, Recorded::Counted(_))), "{outcomes:?}");
    let tracker = tracker_of(&counted(300, 0, "race"));
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (store, tracker) = (Arc::clone(store), tracker.clone());
        racing.spawn(async move { cross(&*store, &tracker, &format!("racer-{number}"), None).await });
    }
    let outcomes = racing.join_all().await;
    let mut claimed = outcomes.into_iter().filter_map(|it| if let Crossed::Claimed(it) = it { Some(it) } else { None });
    let (winner, second) = (claimed.next().unwrap(), claimed.next());
    assert_eq!((winner.step, winner.state.count, second), (1, 20, None));
    assert!(!store.mark_step(&tracker, 1, &mark_of(&winner.claim)).await.unwrap(), "the tenth is due");
}

/// An event at this time that the rule `g` with a correlation counts by its address.
fn sighted(number: u32, at: OffsetDateTime, address: &str, correlation: &Correlation) -> StoredItem {
    let record = format!(r#"{{"sourceIPAddress":"{address}","eventName":"ConsoleLogin"}}"#);
    let id = format!("e0000000-0000-4000-8000-{number:012}");
    let facts = (at, Some("ConsoleLogin"), Some(address));
    let member = sighting("g", correlation, &[], record.as_bytes(), &id, facts);
    StoredItem { groups: [("g".to_owned(), member)].into(), ..item(&id, &["g"]) }
}

fn threshold(count: u32, limits: Limits) -> Correlation {
    let by = vec!["sourceIPAddress".to_owned()];
    Correlation::Threshold(Threshold { count, window: "10m".to_owned(), by, distinct: None, limits })
}

async fn correlation_contract(store: &Arc<dyn AlertStore>) {
    let minute = |minute: i64| datetime!(2026-05-01 12:00 UTC) + time::Duration::minutes(minute);
    let three = threshold(3, Limits::default());
    let at = |number: u32, minute_of: i64| sighted(number, minute(minute_of), "203.0.113.8", &three);
    let record = async |item: &StoredItem, name: &str| store.record(item, &token(name), LENGTH, None).await.unwrap();
    let open = |item: &StoredItem| Recorded::Counted([("g".to_owned(), tracker_of(item))].into());
    let look = async |item: &StoredItem, name: &str| cross(&**store, &tracker_of(item), name, None).await;

    // Below the threshold there is nothing to tell; an event counts once, however often it comes.
    assert_eq!(look(&at(400, 1), "a").await, Crossed::Clear, "nothing was counted");
    for (number, minute) in [(400, 1), (401, 8), (400, 1), (401, 8)] {
        let event = at(number, minute);
        assert_eq!(record(&event, "a").await, open(&event));
        assert_eq!(look(&event, "a").await, Crossed::Clear);
    }
    // The third is the one.
    let third = at(402, 9);
    assert_eq!(record(&third, "a").await, open(&third));
    let ours = crossing(look(&third, "a").await);
    let head = tracker_of(&third).steps();
    let correlated = ours.state.correlated.clone().unwrap();
    assert_eq!((ours.step, correlated.entries.len(), ours.state.names["ConsoleLogin"]), (1, 3, 3));
    let span = |from: i64, to: i64| Some(Span { from: minute(from).unix_timestamp(), to: minute(to).unix_timestamp() });
    assert_eq!(correlated.pending, span(1, 9));
    assert_eq!(ours.claim.alert.alert_id, head.alert_id(1));
    assert_eq!(crossing(look(&third, "a").await).claim, ours.claim, "a lost answer");
    assert_eq!(look(&at(400, 1), "b").await, Crossed::Held(ours.claim.clone()), "from any of its events");
    assert!(store.renew(&head.key(), &ours.claim, &token("a2")).await.unwrap());
    let taken = crossing(cross(&**store, &tracker_of(&third), "b", Some(&token("a2").0)).await);
    assert_eq!((&taken.claim.alert, &taken.claim.token), (&ours.claim.alert, &token("b")));
    assert_eq!(taken.state.correlated.unwrap().pending, span(1, 9));
    for _ in 0..2 {
        store.mark_step(&tracker_of(&third), 1, &mark_of(&taken.claim)).await.unwrap();
    }
    assert_eq!(look(&third, "c").await, Crossed::Clear);

    // Late ones, and those that go on, belong to it: across the border of a bucket, too.
    for (number, minute) in [(403, 5), (404, 12), (405, 17), (406, 21)] {
        let event = at(number, minute);
        let recorded = record(&event, "d").await;
        assert!(recorded == open(&event) || recorded == Recorded::Settled, "{recorded:?}");
        assert_eq!(look(&event, "d").await, Crossed::Clear, "minute {minute}");
    }
    // After a pause it is another one.
    for (number, minute) in [(407, 50), (408, 51), (409, 59)] {
        record(&at(number, minute), "e").await;
    }
    let second = crossing(look(&at(409, 59), "e").await);
    assert_eq!(second.state.correlated.as_ref().unwrap().pending, span(50, 59));
    assert!(second.step > 1 && second.claim.alert.alert_id == head.alert_id(second.step));
    store.mark_step(&second.tracker, second.step, &mark_of(&second.claim)).await.unwrap();
    // Another address has its own.
    let other = sighted(410, minute(52), "203.0.113.9", &three);
    assert_eq!(record(&other, "f").await, open(&other));
    assert_eq!(look(&other, "f").await, Crossed::Clear);

    // Limits: what is beyond them is stored, and not counted.
    let few = threshold(2, Limits { max_keys: 2, max_events: 2 });
    for (number, address, counts) in [
        (420, "198.51.100.1", true),
        (421, "198.51.100.1", true),
        (422, "198.51.100.1", false),
        (423, "198.51.100.2", true),
        (424, "198.51.100.3", false),
    ] {
        let event = sighted(number, minute(1), address, &few);
        let wanted = if counts { open(&event) } else { Recorded::Settled };
        assert_eq!(record(&event, "g").await, wanted, "event {number}");
    }

    first_seen_contract(store).await;
    taken_over_elsewhere_contract(store).await;
}

/// Whoever comes for one bucket of a key and takes over a claim on another tells what was claimed.
async fn taken_over_elsewhere_contract(store: &Arc<dyn AlertStore>) {
    let three = threshold(3, Limits::default());
    let come = async |number: u32, minute: i64| {
        let at = datetime!(2026-05-03 00:00 UTC) + time::Duration::minutes(minute);
        let event = sighted(number, at, "203.0.113.30", &three);
        store.record(&event, &token("a"), LENGTH, None).await.unwrap();
        event
    };
    for (number, minute) in [(700, 1), (701, 2), (702, 3), (703, 120), (704, 121), (705, 122), (706, 123)] {
        come(number, minute).await;
    }
    let (first, later) = (come(702, 3).await, come(706, 123).await);
    let theirs = crossing(cross(&**store, &tracker_of(&first), "dead", None).await);
    assert_eq!(cross(&**store, &tracker_of(&later), "b", None).await, Crossed::Held(theirs.claim.clone()));
    for _ in 0..2 {
        let taken = crossing(cross(&**store, &tracker_of(&later), "b", Some("dead")).await);
        assert_eq!((taken.step, &taken.claim.alert), (1, &theirs.claim.alert));
        let correlated = taken.state.correlated.unwrap();
        let span = correlated.pending.unwrap();
        let told = correlated.entries.iter().filter(|entry| span.holds(entry.at)).count();
        assert_eq!((told, taken.state.names["ConsoleLogin"]), (3, 3), "{correlated:?}");
        assert_eq!(taken.tracker, tracker_of(&later));
    }
    store.mark_step(&tracker_of(&later), 1, &mark_of(&theirs.claim)).await.unwrap();
    let own = crossing(cross(&**store, &tracker_of(&later), "b", None).await);
    assert_eq!((own.step, own.state.correlated.unwrap().entries.len()), (2, 4));
}

/// What is remembered of a key does not grow with its years, and what is older than all that is told once, too.
async fn endless_key_contract(store: &Arc<dyn AlertStore>) {
    let two = threshold(2, Limits::default());
    let start = datetime!(2026-06-01 00:00 UTC);
    let tell = async |number: u32, episode: i64| {
        for more in 0..2 {
            let at = start + time::Duration::hours(episode) + time::Duration::minutes(more);
            let event = sighted(number + u32::from(more > 0), at, "203.0.113.31", &two);
            store.record(&event, &token("a"), LENGTH, None).await.unwrap();
            match cross(&**store, &tracker_of(&event), "a", None).await {
                Crossed::Claimed(crossing) => {
                    store.mark_step(&crossing.tracker, crossing.step, &mark_of(&crossing.claim)).await.unwrap();
                    assert_eq!(cross(&**store, &tracker_of(&event), "a", None).await, Crossed::Clear);
                    return crossing.state.correlated.unwrap().told.len();
                }
                other => assert_eq!((other, more), (Crossed::Clear, 0), "episode {episode}"),
            }
        }
        panic!("episode {episode} is not told")
    };
    for episode in 1..=203_u32 {
        let before = tell(1000 + 2 * episode, i64::from(episode)).await;
        assert_eq!(before, usize::try_from(episode - 1).unwrap().min(199));
    }
    assert_eq!(tell(1500, -5).await, 199);

    let by = vec!["sourceIPAddress".to_owned()];
    let new = Correlation::FirstSeen(FirstSeen { by, within: "1d".to_owned(), limits: Limits::default() });
    // From the last to the first: each is of the time when the rule began.
    for day in (0..205_u32).rev() {
        let at = datetime!(2025-01-01 09:30 UTC) + time::Duration::days(i64::from(2 * day));
        let event = sighted(2000 + day, at, "203.0.113.32", &new);
        store.record(&event, &token("a"), LENGTH, None).await.unwrap();
        assert_eq!(cross(&**store, &tracker_of(&event), "a", None).await, Crossed::Clear);
    }
}

/// Keys are learned for the first thirty days, and then told when they are new.
async fn first_seen_contract(store: &Arc<dyn AlertStore>) {
    let by = vec!["sourceIPAddress".to_owned()];
    let new = Correlation::FirstSeen(FirstSeen { by, within: "30d".to_owned(), limits: Limits::default() });
    let day = |day: i64| datetime!(2026-01-01 09:30 UTC) + time::Duration::days(day);
    let mut number = 500;
    let mut come = async |address: &str, at: i64| {
        number += 1;
        let event = sighted(number, day(at), address, &new);
        store.record(&event, &token("a"), LENGTH, None).await.unwrap();
        match cross(&**store, &tracker_of(&event), "a", None).await {
            Crossed::Claimed(crossing) => {
                store.mark_step(&crossing.tracker, crossing.step, &mark_of(&crossing.claim)).await.unwrap();
                true
            }
            other => {
                assert_eq!(other, Crossed::Clear);
                false
            }
        }
    };
    for (address, at, is_told) in [
        ("192.0.2.1", 0, false),
        ("192.0.2.2", 29, false),
        ("192.0.2.1", 20, false),
        ("192.0.2.3", 31, true),
        ("192.0.2.3", 31, false),
        ("192.0.2.3", 55, false),
        ("192.0.2.1", 45, false),
        ("192.0.2.1", 74, false),
        ("192.0.2.2", 90, true),
        // It was seen on day 74, and is known until day 104.
        ("192.0.2.1", 103, false),
        ("192.0.2.1", 200, true),
        // Before that, and late.
        ("192.0.2.1", 190, false),
    ] {
        assert_eq!(come(address, at).await, is_told, "{address} on day {at}");
    }
}

/// Many at once: one caller gets to tell.
async fn racing_correlation_contract(store: &Arc<dyn AlertStore>) {
    let ten = threshold(10, Limits::default());
    let event = |number: u32| {
        let at = datetime!(2026-05-02 12:00 UTC) + time::Duration::seconds(i64::from(number) * 61);
        sighted(600 + number, at, "203.0.113.20", &ten)
    };
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..20_u32 {
        let store = Arc::clone(store);
        // Each event twice; half of them in the next bucket.
        let event = event(number / 2 + 4);
        racing.spawn(async move {
            for _ in 0..200 {
                match store.record(&event, &token(&format!("racer-{number}")), LENGTH, None).await {
                    Ok(_) => break,
                    Err(error) => assert_eq!((error.class, &error.fault), (ErrorClass::Transient, &Fault::Contended)),
                }
            }
            cross(&*store, &tracker_of(&event), &format!("racer-{number}"), None).await
        });
    }
    let outcomes = racing.join_all().await;
    let claimed = outcomes.iter().filter(|it| matches!(it, Crossed::Claimed(_))).count();
    assert_eq!(claimed, 1, "{outcomes:?}");
}

fn claim_of(item: &StoredItem, rules: &[&str]) -> Claim {
    let rules = set(rules);
    let alert_id = alert_id(&item.key.event_id, &rules);
    Claim { token: token("a"), length: LENGTH, alert: ClaimedAlert { alert_id, rules, severity: Severity::High } }
}

async fn race(store: &Arc<dyn AlertStore>, event_id: &str, expired: Option<ClaimToken>) {
    let outcomes = racing(store, &item(event_id, &["r1"]), expired).await;
    let winners = outcomes.iter().filter(|it| matches!(it, Recorded::Claimed(_))).count();
    assert_eq!(winners, 1, "{outcomes:?}");
}

async fn racing(store: &Arc<dyn AlertStore>, item: &StoredItem, expired: Option<ClaimToken>) -> Vec<Recorded> {
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (store, item, expired) = (Arc::clone(store), item.clone(), expired.clone());
        racing.spawn(async move {
            store.record(&item, &token(&format!("racer-{number}")), LENGTH, expired.as_ref()).await.unwrap()
        });
    }
    racing.join_all().await
}

mod fakes {
    use super::*;
    use crate::fakes::{World, lock};

    #[tokio::test(start_paused = true)]
    async fn queue() {
        let world = World::new(1, LENGTH, 3);
        let ports = world.ports();
        queue_contract(&*ports.queue, 3, async |body| {
            world.send(body);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn objects() {
        let world = World::new(1, LENGTH, 3);
        let bytes: Vec<u8> = (0..5000).map(|at| u8::try_from(at % 256).unwrap()).collect();
        world.put_object("logs", "a/key", bytes);
        let ports = world.ports();
        object_contract(&*ports.objects, "logs", "a/key", 5000, async || {
            world.put_object("logs", "a/key", vec![1; 6000]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn publisher() {
        let world = World::new(1, LENGTH, 3);
        let ports = world.ports();
        publisher_contract(&*ports.publisher, async || {
            lock(&world.topic).iter().map(|it| it.document.to_string()).collect()
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn store() {
        let world = World::new(1, LENGTH, 3);
        store_contract(&world.ports().store).await;
    }

    #[tokio::test(start_paused = true)]
    async fn store_of_what_is_only_recorded() {
        let world = World::new(1, LENGTH, 3);
        recorded_only_contract(&world.ports().store).await;
    }

    #[tokio::test(start_paused = true)]
    async fn store_of_trackers() {
        let world = World::new(1, LENGTH, 3);
        tracker_contract(&world.ports().store).await;
        racing_tracker_contract(&world.ports().store).await;
        correlation_contract(&world.ports().store).await;
        // Over HTTP it takes a minute; `wire::trackers` has what it comes to there.
        endless_key_contract(&world.ports().store).await;
        racing_correlation_contract(&world.ports().store).await;
    }
}

#[cfg(feature = "emulator")]
mod adapters {
    use trailhound::aws::{Settings, connect_to};
    use trailhound::emulator::{Emulator, Names, Options, Resources};
    use trailhound::metrics::Metrics;
    use trailhound::ports::Ports;

    use super::*;

    async fn account(names: Names) -> (Emulator, Resources, Ports) {
        let emulator = Emulator::start(Options::default()).unwrap();
        let made = emulator.set_up(&names).await.unwrap();
        // The test event of the bucket's notification.
        emulator.receive_all(&made.queue_url).unwrap();
        let settings = Settings {
            queue_url: made.queue_url.clone(),
            topic_arn: made.topic_arn.clone(),
            table: made.table.clone(),
            allowed_buckets: vec![made.bucket.clone()],
        };
        let ports = connect_to(&emulator.endpoint(), emulator.region(), &settings, Arc::new(Metrics::new().unwrap()));
        (emulator, made, ports)
    }

    #[tokio::test]
    async fn queue() {
        let (emulator, made, ports) = account(Names { max_receive_count: 3, ..Names::default() }).await;
        queue_contract(&*ports.queue, 3, async |body| emulator.send_message(&made.queue_url, body).await.unwrap())
            .await;
        assert_eq!(emulator.receive_all(&made.dlq_url).unwrap(), ["poison"]);
    }

    #[tokio::test]
    async fn objects() {
        let (emulator, made, ports) = account(Names::default()).await;
        let bytes: Vec<u8> = (0..50_000).map(|at| u8::try_from(at % 256).unwrap()).collect();
        emulator.put_object(&made.bucket, "a/key with space+plus", bytes).await.unwrap();
        object_contract(&*ports.objects, &made.bucket, "a/key with space+plus", 50_000, async || {
            emulator.put_object(&made.bucket, "a/key with space+plus", vec![1; 60_000]).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn publisher() {
        let (emulator, made, ports) = account(Names::default()).await;
        publisher_contract(&*ports.publisher, async || emulator.receive_all(&made.inbox_url).unwrap()).await;
    }

    #[tokio::test]
    async fn fifo_publisher() {
        let names = Names { topic: "alerts.fifo".to_owned(), inbox: "inbox.fifo".to_owned(), ..Names::default() };
        let (emulator, made, ports) = account(names).await;
        publisher_contract(&*ports.publisher, async || emulator.receive_all(&made.inbox_url).unwrap()).await;
        let sent = emulator.published();
        assert!(sent.iter().all(|it| it.group_id.as_deref() == Some("111122223333")));
        assert!(sent.iter().all(|it| it.deduplication_id.as_ref().is_some_and(|id| it.message.contains(id.as_str()))));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn store() {
        let (_emulator, _made, ports) = account(Names::default()).await;
        store_contract(&ports.store).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn store_of_what_is_only_recorded() {
        let (_emulator, _made, ports) = account(Names::default()).await;
        recorded_only_contract(&ports.store).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn store_of_trackers() {
        let (_emulator, _made, ports) = account(Names::default()).await;
        tracker_contract(&ports.store).await;
        racing_tracker_contract(&ports.store).await;
        correlation_contract(&ports.store).await;
        racing_correlation_contract(&ports.store).await;
    }
}
