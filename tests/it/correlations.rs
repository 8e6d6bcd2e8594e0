//! Thresholds, sequences and keys that are new, through the whole daemon: on the fakes, and on the emulator.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fakes::{World, lock};
use crate::faults::{Scene, alerts, drained};
use crate::sim::{event_id, record, through_eventbridge};

/// The rule file with this rule, `often`.
fn rules_of(rule: &Value) -> String {
    let mut rule = rule.clone();
    for (key, value) in [("id", "often"), ("severity", "HIGH"), ("description", "Happens often")] {
        rule[key] = value.into();
    }
    json!({ "events": [rule] }).to_string()
}

fn scene_with(rule: &Value) -> Scene {
    let scene = Scene::start();
    std::fs::write(scene.rules.path(), rules_of(rule)).unwrap();
    scene.process.reload();
    scene
}

/// `StopLogging`, which every third event is; event 3 n + 1 happens at its number of minutes after the hour.
fn threshold(count: u32, window: &str) -> Value {
    let by = ["userIdentity.arn"];
    json!({ "eventName": "StopLogging", "threshold": { "count": count, "window": window, "by": by } })
}

/// The field `correlation` of each alert.
fn told(world: &World) -> Vec<Value> {
    lock(&world.topic).iter().map(|it| it.document["correlation"].clone()).collect()
}

fn all_settled(world: &World) -> bool {
    lock(&world.table).values().all(|row| row.state.settled == BTreeSet::from(["often".to_owned()]))
}

#[tokio::test(start_paused = true)]
async fn a_threshold_is_told_once_for_copies_in_disorder() {
    let scene = scene_with(&threshold(5, "30m"));
    // Minutes 1 to 58, each several times: one episode.
    let mut events: Vec<u32> = (0..200).map(|at| at * 3 + 1).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut events);
    // Those that are enough come first: what follows cannot be told as another episode.
    let first: Vec<u32> = events.iter().copied().take(120).collect();
    scene.deliver(1, &first);
    scene.until("an empty queue", 600, drained).await;
    for (number, part) in (10..).zip(events.chunks(70)) {
        scene.deliver(number, part);
    }
    scene.until("an empty queue", 600, drained).await;
    let told = told(&scene.world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["kind"], &told[0]["window"]), (&json!("threshold"), &json!("30m")));
    assert!(all_settled(&scene.world));
    assert_eq!(lock(&scene.world.table).len(), 200);
    assert_eq!(scene.process.metrics.groups_opened.with_label_values(&["often"]).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn below_the_threshold_everything_is_stored_and_nothing_is_told() {
    let scene = scene_with(&threshold(5, "10m"));
    // Minutes 1, 4, 7, 10: four within ten minutes. And 31, 34, 37, 40.
    scene.deliver(1, &[1, 4, 7, 10]);
    scene.deliver(2, &[31, 34, 37, 40, 1, 4, 7, 10]);
    scene.until("an empty queue", 600, drained).await;
    assert_eq!((alerts(&scene.world), lock(&scene.world.table).len()), (0, 8));
    assert!(all_settled(&scene.world));
}

#[tokio::test(start_paused = true)]
async fn a_sequence_is_told_when_its_last_step_follows_the_first() {
    // Events 2 and 5 are CreateAccessKey, 1 and 4 StopLogging.
    let rule = json!({
        "sequence": [{ "eventName": "StopLogging", "count": 2 }, { "eventName": "CreateAccessKey" }],
        "by": ["userIdentity.arn"], "window": "30m",
    });
    let scene = scene_with(&rule);
    // Minutes 2, 4, 7: the key was created before.
    scene.deliver(1, &[2, 4, 7]);
    scene.until("an empty queue", 600, drained).await;
    assert_eq!(alerts(&scene.world), 0);
    scene.deliver(2, &[8]);
    scene.until("an empty queue", 600, drained).await;
    let told = told(&scene.world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["kind"], "sequence");
    assert_eq!((&told[0]["first"], &told[0]["last"]), (&json!("2026-05-01T12:04:00Z"), &json!("2026-05-01T12:08:00Z")));
    assert!(all_settled(&scene.world));
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_learned_first_and_told_later() {
    let scene =
        scene_with(&json!({ "eventName": "StopLogging", "first_seen": { "by": ["sourceIPAddress"], "within": "2d" } }));
    let come = |event: u32, day: u32, address: &str| {
        let mut record = record(event);
        record["eventTime"] = format!("2026-05-{day:02}T12:00:00Z").into();
        record["sourceIPAddress"] = address.into();
        let mut message: Value = serde_json::from_str(&through_eventbridge(event)).unwrap();
        message["detail"] = record;
        scene.world.send(message.to_string());
    };
    for (event, day, address, alerts_then) in [
        (1, 1, "192.0.2.1", 0),
        (4, 2, "192.0.2.2", 0),
        (7, 2, "192.0.2.1", 0),
        (10, 3, "192.0.2.3", 1),
        (13, 3, "192.0.2.3", 1),
        (16, 4, "192.0.2.3", 1),
        (19, 9, "192.0.2.1", 2),
    ] {
        come(event, day, address);
        scene.until("an empty queue", 600, drained).await;
        assert_eq!(alerts(&scene.world), alerts_then, "{address} on day {day}");
    }
    assert!(all_settled(&scene.world));
}

#[tokio::test(start_paused = true)]
async fn a_death_between_publish_and_mark_repeats_an_episode_under_its_id() {
    let rules = rules_of(&threshold(3, "30m"));
    let mut scene = scene_with(&threshold(3, "30m"));
    scene.dies_in("dynamodb:UpdateItem#mark");
    scene.deliver(1, &[1, 4, 7]);
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    assert_eq!(alerts(&scene.world), 1);
    scene.revive_with(&rules);
    scene.until("an empty queue", 300, drained).await;
    let ids: BTreeSet<_> = lock(&scene.world.topic).iter().map(|it| it.alert.alert_id.clone()).collect();
    assert_eq!((alerts(&scene.world), ids.len()), (2, 1));
    assert!(all_settled(&scene.world));
}

/// The adapter on the emulator: what costs how many requests, and what it says of a full tracker.
#[cfg(feature = "emulator")]
mod on_the_emulator {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use time::OffsetDateTime;
    use trailhound::alert::{Source, StoredItem, detected_event, stored_item};
    use trailhound::aws::{Settings, connect_to};
    use trailhound::claim::{ClaimToken, Mark, Recorded};
    use trailhound::emulator::{Emulator, Names, Options};
    use trailhound::metrics::Metrics;
    use trailhound::ports::{AlertStore, Ports};
    use trailhound::rules::{Matcher, RuleSet, Severity};
    use trailhound::tracker::{CrossAttempt, Crossed};

    use super::{event_id, json, record, rules_of, threshold};

    struct Table {
        _emulator: Emulator,
        ports: Ports,
        metrics: Arc<Metrics>,
        rules: Arc<RuleSet>,
    }

    impl Table {
        async fn new(rule: &serde_json::Value) -> Self {
            let emulator = Emulator::start(Options::default()).unwrap();
            let made = emulator.set_up(&Names::default()).await.unwrap();
            let settings = Settings { table: made.table.clone(), ..Settings::default() };
            let metrics = Arc::new(Metrics::new().unwrap());
            let ports = connect_to(&emulator.endpoint(), emulator.region(), &settings, Arc::clone(&metrics));
            let rules = Arc::new(RuleSet::parse(&rules_of(rule)).unwrap());
            Self { _emulator: emulator, ports, metrics, rules }
        }

        fn event(&self, number: u32, minute: u32, address: &str) -> StoredItem {
            let mut record = record(1);
            record["eventID"] = event_id(number).into();
            record["eventTime"] = format!("2026-05-01T12:{minute:02}:00Z").into();
            record["sourceIPAddress"] = address.into();
            let raw = Bytes::from(record.to_string());
            let rules = Matcher::new(Arc::clone(&self.rules)).matches(&raw);
            let detection = trailhound::rules::Detection { index: 0, raw, rules };
            let at = OffsetDateTime::from_unix_timestamp(1_777_640_000).unwrap();
            stored_item(&detected_event(&detection, Source::default(), at, "0123456789abcdef"), time::Duration::days(1))
        }

        fn requests(&self) -> u64 {
            let of =
                |operation: &str| self.metrics.aws_requests.with_label_values(&["dynamodb", operation, "ok"]).get();
            ["GetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"].into_iter().map(of).sum()
        }

        /// Delivers an event as the daemon does; whether it was told, and with how many requests.
        async fn deliver(&self, item: &StoredItem) -> (bool, u64) {
            let store: &dyn AlertStore = &*self.ports.store;
            let (before, token, mut told) = (self.requests(), ClaimToken("t".to_owned()), false);
            let length = Duration::from_secs(30);
            if let Recorded::Counted(open) = store.record(item, &token, length, None).await.unwrap() {
                let tracker = open.values().next().unwrap();
                let (rule, severity) = ("often", Severity::High);
                let attempt = CrossAttempt { tracker, rule, severity, token: &token, length, expired: None };
                while let Crossed::Claimed(crossing) = store.cross(attempt).await.unwrap() {
                    told = true;
                    let mark = Mark {
                        alert: crossing.claim.alert.clone(),
                        alerted_at: item.detected_at,
                        sns_message_id: "m-1".to_owned(),
                    };
                    store.mark_step(&crossing.tracker, crossing.step, &mark).await.unwrap();
                }
                store.settle(&item.key, &open.keys().cloned().collect()).await.unwrap();
            }
            (told, self.requests() - before)
        }
    }

    #[tokio::test]
    async fn a_correlation_costs_as_many_requests_as_the_documentation_says() {
        let table = Table::new(&threshold(3, "30m")).await;
        let mut cost = Vec::new();
        for (number, minute) in [(1, 1), (2, 2), (3, 5), (4, 9), (5, 7)] {
            cost.push(table.deliver(&table.event(number, minute, "203.0.113.7")).await);
        }
        assert_eq!(cost, [(false, 3), (false, 3), (true, 7), (false, 5), (false, 3)]);
        // A window's length from both ends; of the bucket of the fifth, this task knows that only then.
        let table = Table::new(&threshold(2, "10m")).await;
        let mut cost = Vec::new();
        for (number, minute) in [(1, 1), (2, 9), (3, 16), (4, 24), (5, 12), (6, 14)] {
            cost.push(table.deliver(&table.event(number, minute, "203.0.113.7")).await.1);
        }
        assert_eq!(cost, [3, 7, 5, 5, 4, 1]);
        let new = json!({ "eventName": "StopLogging", "first_seen": { "by": ["sourceIPAddress"], "within": "30d" } });
        let table = Table::new(&new).await;
        let first = table.deliver(&table.event(1, 1, "203.0.113.7")).await;
        let again = table.deliver(&table.event(2, 2, "203.0.113.7")).await;
        assert_eq!([first, again], [(false, 6), (false, 1)]);

        let page = include_str!("../../docs/rules.md");
        for row in [
            "| is below the threshold, or completes nothing | 3 |",
            "| completes an episode | 7 |",
            "| makes an episode that was told longer | 5 |",
            "| lies within what was told, as this task knows, and a window's length from both ends of it | 1 |",
            "| lies within what was told otherwise | 3 or 4 |",
            "| is the first key that a rule with `first_seen` ever sees | 6 |",
        ] {
            assert!(page.contains(row), "docs/rules.md lacks the row {row}");
        }
    }

    #[tokio::test]
    async fn what_is_beyond_a_limit_is_stored_and_counted_as_such() {
        let mut rule = threshold(2, "30m");
        rule["threshold"]["by"] = json!(["sourceIPAddress"]);
        rule["threshold"]["max_events"] = json!(2);
        rule["threshold"]["max_keys"] = json!(2);
        let table = Table::new(&rule).await;
        let mut told = Vec::new();
        for (number, address) in
            [(1, "192.0.2.1"), (2, "192.0.2.1"), (3, "192.0.2.1"), (4, "192.0.2.2"), (5, "192.0.2.3")]
        {
            told.push(table.deliver(&table.event(number, 1, address)).await.0);
        }
        assert_eq!(told, [false, true, false, false, false]);
        assert_eq!(table.metrics.store_writes.get(), 5, "all are stored");
        assert_eq!(table.metrics.correlation_excess.with_label_values(&["often"]).get(), 2);
        assert_eq!(table.metrics.correlated_events.with_label_values(&["often"]).get(), 3);
    }
}
