//! What is done on the async threads, and what waits for a thread of the pool: here there is none until a test frees one.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use time::macros::datetime;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use trailhound::env::Compute;

use crate::fakes::World;
use crate::faults::{Scene, alerts, drained};
use crate::sim::process::{Process, config};
use crate::sim::{BUCKET, log_key, log_object, notification, notification_of, record, rule_file, through_eventbridge};

fn scene() -> (Scene, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let world = World::new(5, Duration::from_secs(30), 10);
    let mut rules = tempfile::NamedTempFile::new().unwrap();
    rules.write_all(rule_file(false).as_bytes()).unwrap();
    let compute = Compute::Pool(Arc::clone(&permits));
    let now = datetime!(2026-05-01 12:10 UTC);
    let process = Process::start_computing(&world, rules.path(), 5, config(), now, compute);
    (Scene { world, process, rules }, permits)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A matching record with a field of so many bytes.
fn long_record(bytes: usize) -> Value {
    let mut record = record(1);
    record["requestParameters"] = json!({ "note": "x".repeat(bytes) });
    record
}

/// The message waits as long as there is no thread, and is worked on as soon as there is one.
async fn waits_for_a_thread(scene: &Scene, permits: &Semaphore, expected: usize) {
    sleep(Duration::from_secs(120)).await;
    assert!(!drained(&scene.world), "it was worked on where it must not be");
    assert_eq!(alerts(&scene.world), 0);
    permits.add_permits(1);
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(alerts(&scene.world), expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_small_needs_no_thread_of_the_pool() {
    let (scene, _none) = scene();
    scene.deliver(1, &[1, 3, 5]);
    scene.world.send(through_eventbridge(7));
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(alerts(&scene.world), 3);
}

/// Nobody can say from the length of a compressed body what comes out.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_swells_moves_to_the_pool() {
    let (scene, permits) = scene();
    let text = format!("{{\"Records\":[{}{}]}}", " ".repeat(900 << 10), record(1));
    let (key, object) = (log_key("trail-a", 1), gzip(&text));
    assert!(object.len() < 8 << 10);
    scene.world.put_object(BUCKET, &key, object);
    scene.world.send(notification(&key));
    waits_for_a_thread(&scene, &permits, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_message_is_read_on_the_pool() {
    let (scene, permits) = scene();
    let keys: Vec<_> = (1..=40).map(|number| log_key("trail-a", number)).collect();
    for key in &keys {
        scene.world.put_object(BUCKET, key, log_object(&[1]));
    }
    let body = notification_of(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(body.len() > 16 << 10);
    scene.world.send(body);
    waits_for_a_thread(&scene, &permits, 1).await;
}

/// It swells by less than a message may be short: what waits is its way to the alert.
#[tokio::test(start_paused = true)]
async fn a_long_match_is_rendered_on_the_pool() {
    let (scene, permits) = scene();
    let key = log_key("trail-a", 1);
    let object = gzip(&json!({ "Records": [long_record(60 << 10)] }).to_string());
    assert!(object.len() < 8 << 10);
    scene.world.put_object(BUCKET, &key, object);
    scene.world.send(notification(&key));
    waits_for_a_thread(&scene, &permits, 1).await;
}
