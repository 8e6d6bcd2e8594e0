//! Groups, through the whole daemon on the fakes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use trailhound::ports::{ErrorClass, Fault};
use trailhound::rules::Severity;
use trailhound::tracker::TrackerState;

use crate::fakes::{Trouble, World, lock};
use crate::faults::{Scene, alerts, drained};
use crate::sim::{event_id, record, through_eventbridge};

/// One rule on `StopLogging`, which every third event is, in groups of an hour.
fn rules(mode: &str) -> String {
    json!({ "events": [{
        "id": "often", "description": "Happens often", "severity": "HIGH", "mode": mode, "eventName": "StopLogging",
        "group": { "by": ["userIdentity.arn"], "window": "1h" },
    }] })
    .to_string()
}

fn scene_with(rules: &str) -> Scene {
    let scene = Scene::start();
    std::fs::write(scene.rules.path(), rules).unwrap();
    scene.process.reload();
    scene
}

/// The numbers of so many events that match, from the first.
fn matching(count: u32) -> Vec<u32> {
    (0..count).map(|at| at * 3 + 1).collect()
}

fn the_tracker(world: &World) -> TrackerState {
    let trackers = lock(&world.trackers);
    assert_eq!(trackers.len(), 1, "{trackers:?}");
    trackers.values().next().unwrap().clone()
}

/// Step and count of each alert.
fn steps(world: &World) -> Vec<(u64, u64)> {
    let number = |document: &Value, name: &str| document["group"][name].as_u64().unwrap();
    lock(&world.topic).iter().map(|it| (number(&it.document, "step"), number(&it.document, "count"))).collect()
}

#[tokio::test(start_paused = true)]
async fn three_hundred_events_twice_and_in_disorder_give_three_alerts() {
    let scene = scene_with(&rules("alert"));
    let mut events = matching(300);
    fastrand::Rng::with_seed(3).shuffle(&mut events);
    for (number, part) in (0..).zip(events.chunks(70)) {
        scene.deliver(number, part);
    }
    events.reverse();
    for (number, part) in (100..).zip(events.chunks(110)) {
        scene.deliver(number, part);
    }
    scene.until("an empty queue", 600, drained).await;
    let tracker = the_tracker(&scene.world);
    assert_eq!((tracker.count, tracker.names["StopLogging"], tracker.addresses["203.0.113.7"]), (300, 300, 300));
    assert_eq!((tracker.first.as_str(), tracker.last.as_str()), ("2026-05-01T12:01:00Z", "2026-05-01T12:58:00Z"));
    let steps = steps(&scene.world);
    assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 10, 100]);
    assert!(steps.iter().all(|(step, count)| step <= count && *count <= 300), "{steps:?}");
    assert!(lock(&scene.world.table).values().all(|row| row.state.settled == BTreeSet::from(["often".to_owned()])));
    let metrics = &scene.process.metrics;
    assert_eq!(metrics.groups_opened.with_label_values(&["often"]).get(), 1);
    assert_eq!(metrics.alerts_published.with_label_values(&[Severity::High.as_str()]).get(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_next_bucket_says_how_many_the_last_one_held() {
    let scene = scene_with(&rules("alert"));
    for event in matching(4) {
        scene.world.send(through_eventbridge(event));
        scene.until("an empty queue", 60, drained).await;
    }
    let mut later = record(1);
    later["eventTime"] = json!("2026-05-01T13:00:00Z");
    later["eventID"] = json!(event_id(999));
    let body = through_eventbridge(1).replace(&record(1).to_string(), &later.to_string());
    scene.world.send(body);
    scene.until("an empty queue", 60, drained).await;
    let topic = lock(&scene.world.topic);
    let groups: Vec<_> = topic.iter().map(|it| it.document["group"].clone()).collect();
    assert_eq!(groups.len(), 2);
    assert_eq!((&groups[0]["previous_count"], &groups[1]["previous_count"]), (&Value::Null, &json!(4)));
    assert_eq!((&groups[1]["from"], &groups[1]["step"]), (&json!("2026-05-01T13:00:00Z"), &json!(1)));
}

/// SNS accepted the alert of a step, and the process died before that was marked.
#[tokio::test(start_paused = true)]
async fn a_death_between_publish_and_mark_repeats_the_step_under_its_id() {
    let mut scene = scene_with(&rules("alert"));
    scene.dies_in("dynamodb:UpdateItem#mark");
    scene.world.send(through_eventbridge(1));
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    assert_eq!(alerts(&scene.world), 1);
    scene.revive_with(&rules("alert"));
    scene.until("an empty queue", 300, drained).await;
    let ids: BTreeSet<_> = lock(&scene.world.topic).iter().map(|it| it.alert.alert_id.clone()).collect();
    assert_eq!((alerts(&scene.world), ids.len(), the_tracker(&scene.world).count), (2, 1, 1));
}

/// The dead process counted an event under an hour; the rule has days by the time the message comes back.
#[tokio::test(start_paused = true)]
async fn an_event_stays_in_the_group_that_counted_it_when_the_rule_changes() {
    let mut scene = scene_with(&rules("alert"));
    scene.dies_in("sns:PublishBatch");
    scene.world.send(through_eventbridge(1));
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    scene.revive_with(&rules("alert").replace("\"1h\"", "\"7d\""));
    scene.until("an empty queue", 300, drained).await;
    assert_eq!((steps(&scene.world), the_tracker(&scene.world).count), (vec![(1, 1)], 1));
    assert_eq!(lock(&scene.world.topic)[0].document["group"]["window"], "1h");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_shadow_is_not_counted_and_a_record_without_a_time_alerts_by_itself() {
    let scene = scene_with(&rules("shadow"));
    scene.world.send(through_eventbridge(1));
    scene.until("an empty queue", 60, drained).await;
    assert_eq!((lock(&scene.world.trackers).len(), alerts(&scene.world)), (0, 0));

    let scene = scene_with(&rules("alert"));
    let mut timeless = record(1);
    timeless["eventTime"] = json!("yesterday");
    for number in [1, 4] {
        timeless["eventID"] = json!(event_id(number));
        scene.world.send(through_eventbridge(1).replace(&record(1).to_string(), &timeless.to_string()));
    }
    scene.until("an empty queue", 60, drained).await;
    assert_eq!((lock(&scene.world.trackers).len(), alerts(&scene.world)), (0, 2));
    assert!(lock(&scene.world.topic).iter().all(|it| it.document.get("group").is_none()));
}

/// Many events wait for one step, and go on once it can be told.
#[tokio::test(start_paused = true)]
async fn an_outage_of_sns_holds_the_events_that_wait_for_a_step() {
    let scene = scene_with(&rules("alert"));
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(&["sns:PublishBatch"], ErrorClass::Transient, Fault::Unavailable);
    scene.deliver(1, &matching(25));
    scene.until("all are counted", 60, |world| lock(&world.table).len() == 25).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((scene.receive_counts(), alerts(&scene.world)), (vec![1], 0));
    scene.heals();
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(steps(&scene.world), [(1, 25), (10, 25)]);
}

/// What can never be told leaves its message to the dead-letter queue, and keeps nobody busy until then.
#[tokio::test(start_paused = true)]
async fn a_step_that_sns_refuses_leaves_its_messages_for_redrive() {
    let scene = scene_with(&rules("alert"));
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(&["sns:PublishBatch"], ErrorClass::Permanent, Fault::Invalid);
    scene.deliver(1, &matching(3));
    scene.until("the dead-letter queue", 40_000, |world| lock(&world.queue).dead.len() == 1).await;
    assert_eq!((alerts(&scene.world), the_tracker(&scene.world).count), (0, 3));
    // Told with the next event.
    scene.heals();
    scene.world.send(through_eventbridge(13));
    scene.until("an empty queue", 300, drained).await;
    assert_eq!(steps(&scene.world), [(1, 4)]);
}

/// Others may be in between for a while: that is no outage, and intake goes on.
#[tokio::test(start_paused = true)]
async fn contention_for_a_tracker_is_no_outage() {
    let scene = scene_with(&rules("alert"));
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let mut left = 5;
    scene.world.trouble(move |operation| {
        let contends = operation == "dynamodb:PutItem" && left > 0;
        left -= u32::from(contends);
        contends.then_some(Trouble::Fail(ErrorClass::Transient, Fault::Contended))
    });
    scene.world.send(through_eventbridge(1));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(scene.process.health.ready().ok);
    }
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(steps(&scene.world), [(1, 1)]);
    // What goes on is an outage.
    scene.fails(&["dynamodb:PutItem"], ErrorClass::Transient, Fault::Contended);
    scene.world.send(through_eventbridge(4));
    scene.until("not ready", 120, |_| !scene.process.health.ready().ok).await;
}
