//! Many events of many keys, delivered twice and in disorder, to two real daemons of which one is killed: counts are exact, and each
//! step and each threshold is told once.
//!
//! A small one runs with the other tests. For a hundred thousand events of a thousand keys (half an hour in the dev
//! profile; `CARGO_PROFILE_DEV_OPT_LEVEL=1` makes it ten minutes):
//!
//! ```sh
//! NOISE_KEYS=1000 cargo test --test it noise::a_hundred -- --ignored
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use trailhound::emulator::Names;

use crate::daemon::{Account, Daemon};
use crate::sim::{event_id, log_key, log_object_of, record};

/// Events of each key, within one hour.
const EVENTS: u32 = 100;
const PER_OBJECT: usize = 100;

fn user(key: u32) -> String {
    format!("arn:aws:iam::111122223333:user/user-{key:04}")
}

/// One of the events of a key.
fn event(key: u32, number: u32) -> Value {
    // StopLogging is what both rules match.
    let mut event = record(1);
    event["eventID"] = event_id(key * EVENTS + number).into();
    event["eventTime"] = format!("2026-05-01T12:{:02}:{:02}Z", number % 60, number / 60).into();
    event["userIdentity"]["arn"] = user(key).into();
    event["userIdentity"]["userName"] = format!("user-{key:04}").into();
    event
}

async fn two_daemons(keys: u32, patience: Duration) {
    let names = Names { visibility: Duration::from_secs(20), max_receive_count: 1000, ..Names::default() };
    let account = Account::new(names).await;
    let by = ["userIdentity.arn"];
    let rules = json!({ "events": [
        { "id": "grouped", "severity": "LOW", "eventName": "StopLogging", "group": { "by": by, "window": "1h" } },
        { "id": "many", "severity": "HIGH", "eventName": "StopLogging",
          "threshold": { "count": 50, "window": "1h", "by": by } },
    ] });
    std::fs::write(account.rules(), rules.to_string()).unwrap();
    let mut events: Vec<(u32, u32)> = (0..keys).flat_map(|key| (0..EVENTS).map(move |number| (key, number))).collect();
    let mut random = fastrand::Rng::with_seed(11);
    for trail in ["trail-a", "trail-b"] {
        random.shuffle(&mut events);
        for (number, part) in (0..).zip(events.chunks(PER_OBJECT)) {
            let records: Vec<Value> = part.iter().map(|(key, number)| event(*key, *number)).collect();
            let body = log_object_of(&records);
            account.emulator.put_object(&account.made.bucket, &log_key(trail, number), body).await.unwrap();
        }
    }
    let first = Daemon::ready(&account, &[]).await;
    let second = Daemon::ready(&account, &[]).await;
    let deadline = tokio::time::Instant::now() + patience;
    let half = account.left() / 2;
    while account.left() > half {
        assert!(tokio::time::Instant::now() < deadline, "half of it was not read within {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.kill();
    while account.left() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "not within {patience:?}:\n{}", second.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(account.dead(), 0);

    let text = |item: &Value, name: &str, kind: &str| item[name][kind].as_str().unwrap_or_default().to_owned();
    let (mut stored, mut groups, mut buckets) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for item in account.items().await {
        let id = text(&item, "EventId", "S");
        let count = || text(&item, "Count", "N").parse::<u32>().unwrap();
        if id.starts_with("trailhound#group#") {
            groups.insert(text(&item, "Key", "S"), count());
        } else if id.starts_with("trailhound#correlation#") {
            if text(&item, "Timestamp", "S") != "head" {
                assert_eq!(item["Entries"]["SS"].as_array().unwrap().len(), count() as usize);
                buckets.insert(text(&item, "Key", "S"), count());
            }
        } else if !id.starts_with("trailhound#") {
            let settled: BTreeSet<_> =
                item["SettledRules"]["SS"].as_array().unwrap().iter().map(Value::as_str).collect();
            assert_eq!(settled, BTreeSet::from([Some("grouped"), Some("many")]), "{id}");
            stored.insert(id);
        }
    }
    assert_eq!(stored.len(), (keys * EVENTS) as usize, "each event is stored once");
    for counted in [&groups, &buckets] {
        assert_eq!(counted.len(), keys as usize);
        assert!(counted.values().all(|count| *count == EVENTS), "{counted:?}");
    }
    // Each step of each group, and each threshold, is told under one id.
    let mut told: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    for document in account.documents() {
        let id = document["alert_id"].as_str().unwrap().to_owned();
        let what = if document["group"].is_object() {
            (format!("group {}", document["group"]["by"]), document["group"]["step"].as_u64().unwrap())
        } else {
            (format!("threshold {}", document["correlation"]["by"]), 0)
        };
        told.entry(what).or_default().insert(id);
    }
    assert_eq!(told.len(), 4 * keys as usize, "the 1st, the 10th and the 100th of each, and its threshold");
    assert!(told.values().all(|ids| ids.len() == 1), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_of_which_one_dies_count_and_tell_exactly() {
    two_daemons(8, Duration::from_mins(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour: the head of this file says how"]
async fn a_hundred_events_of_each_of_many_keys() {
    let keys = std::env::var("NOISE_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(1_000);
    two_daemons(keys, Duration::from_hours(2)).await;
}
