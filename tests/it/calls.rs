//! How many calls of AWS the daemon makes, and which of them an alert waits for. Counts, and times of a simulated clock:
//! nothing here depends on how fast the machine is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::fakes::{Seen, World, lock};
use crate::faults::{Scene, alerts, drained};
use crate::sim::through_eventbridge;

/// What a call of the fakes takes at most; a receive with messages takes it twice.
const CALL: Duration = Duration::from_millis(19);

/// The calls from now on, each with the time at which it takes effect.
fn calls(world: &World) -> Arc<Mutex<Vec<(&'static str, Instant)>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&seen);
    world.trouble(move |operation| {
        lock(&noting).push((operation, Instant::now()));
        None
    });
    seen
}

fn counted(calls: &[(&'static str, Instant)]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (operation, _) in calls {
        *counts.entry(*operation).or_default() += 1;
    }
    counts
}

/// Waits in small steps of the simulated clock.
async fn until(world: &World, condition: impl Fn(&World) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !condition(world) {
        assert!(Instant::now() < deadline, "{}", lock(&world.trace).join("\n"));
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_without_a_match_costs_a_get_and_a_fifth_of_a_request() {
    const OBJECTS: u32 = 1000;
    let scene = Scene::start_with(|config| config.pipeline.concurrency = 10);
    let seen = calls(&scene.world);
    for number in 0..OBJECTS {
        scene.deliver(number, &(0..=number % 50).map(|at| at * 3).collect::<Vec<_>>());
    }
    let began = Instant::now();
    until(&scene.world, drained).await;
    let took = began.elapsed();
    let counts = counted(&lock(&seen));
    let count = |operation| counts.get(operation).copied().unwrap_or(0);
    assert_eq!(count("s3:GetObject"), 1000, "{counts:?}");
    assert_eq!(count("sqs:DeleteMessageBatch"), 100, "{counts:?}");
    // With the checks before the first receive, the look at the queue's depth, and the receive that finds nothing.
    let all: usize = counts.values().sum();
    assert!(all <= 1250, "{all} calls: {counts:?}");
    assert_eq!(alerts(&scene.world), 0);
    let evaluated = scene.process.metrics.records.with_label_values(&["evaluated"]).get();
    assert_eq!(evaluated, (0..u64::from(OBJECTS)).map(|number| number % 50 + 1).sum::<u64>());
    // Ten at a time, each ten a receive and a get, and nothing else that anybody waits for.
    assert!(took <= CALL * 3 * (OBJECTS / 10) + Duration::from_millis(200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn every_match_is_alerted_once_and_costs_a_put_a_mark_and_its_share_of_a_publish() {
    const OBJECTS: u32 = 200;
    let scene = Scene::start_with(|config| config.pipeline.concurrency = 10);
    let seen = calls(&scene.world);
    // The same events twice, as two trails deliver them.
    for number in 0..OBJECTS {
        scene.deliver(number, &[number % 100 * 3, number % 100 * 3 + 1]);
    }
    until(&scene.world, drained).await;
    assert_eq!(alerts(&scene.world), 100);
    let counts = counted(&lock(&seen));
    let count = |operation| counts.get(operation).copied().unwrap_or(0);
    assert_eq!(count("s3:GetObject"), 200, "{counts:?}");
    // One for each copy: only the store knows whether an event is new.
    assert_eq!(count("dynamodb:PutItem"), 200, "{counts:?}");
    assert_eq!(count("sns:PublishBatch"), 100, "{counts:?}");
    assert_eq!(count("dynamodb:UpdateItem#mark"), 100, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_daemon_alerts_after_a_get_a_put_and_a_publish() {
    for inline in [false, true] {
        let scene = Scene::start();
        sleep(Duration::from_secs(60)).await;
        let seen = calls(&scene.world);
        let accepted = Arc::new(Mutex::new(None));
        let noting = Arc::clone(&accepted);
        *lock(&scene.world.witness) = Box::new(move |_, _, event| {
            if matches!(event, Seen::Accepting { .. }) {
                lock(&noting).get_or_insert_with(Instant::now);
            }
        });
        let sent = Instant::now();
        if inline {
            scene.world.send(through_eventbridge(1));
        } else {
            scene.deliver(1, &[0, 1]);
        }
        until(&scene.world, drained).await;
        let accepted = lock(&accepted).expect("an alert was accepted");
        let before: Vec<_> = lock(&seen)
            .iter()
            // The next receive begins at once, and nobody waits for it.
            .filter(|(operation, at)| *at <= accepted && *operation != "sqs:ReceiveMessage")
            .map(|(operation, _)| *operation)
            .collect();
        let path = ["s3:GetObject", "dynamodb:PutItem", "sns:PublishBatch"];
        assert_eq!(before, if inline { &path[1..] } else { &path[..] });
        // Nothing waits between them, either: the message comes back from the queue, and the calls follow.
        let waited = accepted - sent;
        assert!(waited <= CALL * u32::try_from(1 + before.len()).unwrap(), "{waited:?}");
    }
}
