//! `alerting.max_per_minute`, through the whole daemon on the fakes.

use std::time::Duration;

use serde_json::{Value, json};
use trailhound::ports::{ErrorClass, Fault};
use trailhound::rules::Severity;

use crate::fakes::{World, lock};
use crate::faults::{Scene, alerts, drained};

const RULES: &str = r#"{ "events": [
    { "id": "stopped", "severity": "LOW", "eventName": "StopLogging" },
    { "id": "key", "severity": "CRITICAL", "eventName": "CreateAccessKey" }
] }"#;

fn scene(max_per_minute: u32) -> Scene {
    let scene = Scene::start_with(|config| config.alerting.max_per_minute = max_per_minute);
    std::fs::write(scene.rules.path(), RULES).unwrap();
    scene.process.reload();
    scene
}

/// The alerts of single events by severity, and the announcements.
fn sent(world: &World) -> (Vec<String>, Vec<Value>) {
    let topic = lock(&world.topic);
    let (announced, single): (Vec<_>, Vec<_>) =
        topic.iter().map(|it| it.document.clone()).partition(|it| it["schema"] == "trailhound.withheld/1");
    (single.iter().map(|it| it["severity"].as_str().unwrap().to_owned()).collect(), announced)
}

fn unsettled(world: &World) -> usize {
    lock(&world.table).values().filter(|row| row.state.settled != row.state.rules).count()
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_limit_is_announced_together_before_its_message_goes() {
    let scene = scene(10);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    // Twenty of LOW, and four of CRITICAL after them.
    let low: Vec<u32> = (0..20).map(|at| at * 3 + 1).collect();
    let events: Vec<u32> = low.iter().copied().chain([2, 5, 8, 11]).collect();
    scene.deliver(1, &events);
    scene.until("what may go is sent", 30, |world| alerts(world) >= 5).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (single, announced) = sent(&scene.world);
    assert_eq!((single.iter().filter(|it| *it == "CRITICAL").count(), announced.len()), (4, 0));
    assert!(single.len() <= 9, "{single:?}");
    assert!(lock(&scene.world.queue).messages.len() == 1 && unsettled(&scene.world) > 0, "it is not told yet");
    scene.until("an empty queue", 120, drained).await;
    let (single, announced) = sent(&scene.world);
    assert_eq!(announced.len(), 1);
    assert_eq!(announced[0]["count"].as_u64().unwrap() + single.len() as u64, 24);
    assert_eq!((&announced[0]["severity"], &announced[0]["rules"][0]["id"]), (&json!("LOW"), &json!("stopped")));
    assert_eq!((unsettled(&scene.world), lock(&scene.world.table).len()), (0, 24));
    let withheld = scene.process.metrics.alerts_withheld.with_label_values(&[Severity::Low.as_str()]).get();
    assert_eq!(withheld, announced[0]["count"].as_u64().unwrap());
    // Told is told.
    scene.deliver(2, &events);
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(sent(&scene.world).1.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_share_one_announcement() {
    let scene = scene(2);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    for number in 0..5 {
        scene.deliver(number, &[number * 6 + 1, number * 6 + 4]);
    }
    scene.until("an empty queue", 200, drained).await;
    let (single, announced) = sent(&scene.world);
    let told: u64 = announced.iter().map(|it| it["count"].as_u64().unwrap()).sum();
    assert_eq!((single.len() as u64 + told, unsettled(&scene.world)), (10, 0));
    assert!(announced.len() <= 2, "{announced:#?}");
}

/// SNS fails when the minute ends, and then the process dies: what it held comes back with the messages.
#[tokio::test(start_paused = true)]
async fn a_death_before_the_announcement_loses_nothing() {
    let mut scene = scene(1);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.deliver(1, &[1, 4, 7, 10]);
    scene.until("the first is sent", 30, |world| alerts(world) == 1).await;
    scene.fails(&["sns:PublishBatch"], ErrorClass::Transient, Fault::Unavailable);
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!((alerts(&scene.world), unsettled(&scene.world)), (1, 3));
    scene.dies_in("sns:PublishBatch");
    scene.until("a death", 120, |_| !scene.process.lives()).await;
    scene.revive_with(RULES);
    scene.until("an empty queue", 900, drained).await;
    // The new process has no limit: each is alerted by itself.
    assert_eq!((alerts(&scene.world), unsettled(&scene.world)), (4, 0));
}
