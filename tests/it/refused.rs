//! What SNS or DynamoDB refuses for good, and what a foreign bucket denies: whose fault it is, and what it costs.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trailhound::ports::{ErrorClass, Fault};

use crate::fakes::{Trouble, WHOLE_PUBLISH, World, lock};
use crate::faults::{HOUR, Scene, alerts, drained};
use crate::sim::process::CONCURRENCY;
use crate::sim::{BUCKET, event_id, log_key, log_object, notification_of, through_eventbridge};

/// One event among good ones is refused by this operation.
async fn one_refused_event(operation: &'static str) {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    lock(&scene.world.refused).insert((operation, event_id(1)));
    // Together with others in one object, and beside other objects.
    scene.deliver(1, &[1, 2, 4, 5]);
    for number in 2..8 {
        scene.deliver(number, &[number * 6 + 1]);
    }
    scene.until("an empty queue", 1200, drained).await;
    let queue = lock(&scene.world.queue);
    let dead: Vec<_> = queue.dead.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(dead, ["message-1"], "{operation}: its message is left, and no other");
    assert_eq!(queue.deleted.len(), 6);
    assert_eq!(scene.process.metrics.messages_left.with_label_values(&["refused"]).get(), 10);
    let told = |event: u32| {
        lock(&scene.world.topic).iter().filter(|it| it.document["event_id"] == event_id(event).as_str()).count()
    };
    for event in [2, 4, 5, 13, 19, 25, 31, 37, 43] {
        assert_eq!(told(event), 1, "{operation}: {event} is told once");
    }
    if operation == "dynamodb:UpdateItem#mark" {
        assert!(told(1) > 0, "it was accepted before its mark was refused");
    } else {
        assert_eq!(told(1), 0);
    }
    assert!(scene.process.health.ready().ok, "it is not the process's fault");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_for_good_costs_only_its_own_message() {
    for operation in ["sns:PublishBatch", WHOLE_PUBLISH, "dynamodb:PutItem", "dynamodb:UpdateItem#mark"] {
        one_refused_event(operation).await;
    }
}

/// Every event is refused: the process's own fault.
async fn everything_is_refused(operation: &'static str, dependency: &str) {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene
        .world
        .trouble(move |called| (called == operation).then_some(Trouble::Fail(ErrorClass::Permanent, Fault::Invalid)));
    for number in 0..20 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    scene.until("red", 60, |_| scene.not_ready(dependency)).await;
    let report = scene.process.health.ready();
    let check = report.checks.iter().find(|it| it.name == dependency).unwrap();
    assert!(check.detail.contains(operation.split('#').next().unwrap()), "it names the call: {}", check.detail);
    sleep(Duration::from_secs(6 * HOUR)).await;
    assert!(scene.not_ready(dependency), "{operation}: it stays red");
    assert!(scene.process.health.live().ok);
    let held = |world: &World| {
        let now = Instant::now();
        lock(&world.queue).messages.iter().filter(|it| it.visible_at > now).count()
    };
    assert_eq!(held(&scene.world), CONCURRENCY, "{operation}: what was received is held");
    assert_eq!((scene.receive_counts().len(), lock(&scene.world.queue).dead.len()), (20, 0), "{operation}");
    scene.heals();
    scene.until("an empty queue", 120, drained).await;
    assert!(lock(&scene.world.queue).dead.is_empty());
    assert!(scene.process.health.ready().ok);
    let told = alerts(&scene.world);
    // An alert whose mark is refused is told again by whoever receives its message next.
    assert!(told == 20 || operation == "dynamodb:UpdateItem#mark" && (20..80).contains(&told), "{operation}: {told}");
}

#[tokio::test(start_paused = true)]
async fn eight_events_that_are_refused_in_a_row_are_the_processes_own_fault_and_wait() {
    everything_is_refused("sns:PublishBatch", "publisher").await;
    everything_is_refused("dynamodb:PutItem", "store").await;
    everything_is_refused("dynamodb:UpdateItem#mark", "store").await;
}

/// Eight bad ones in a row: the next good one shows that they were bad.
#[tokio::test(start_paused = true)]
async fn one_accepted_event_shows_that_the_refused_ones_were_at_fault() {
    let scene = Scene::start_with(|config| config.pipeline.concurrency = 20);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    for event in 0..9 {
        lock(&scene.world.refused).insert(("dynamodb:PutItem", event_id(event * 3 + 1)));
        scene.world.send(through_eventbridge(event * 3 + 1));
    }
    scene.until("red", 60, |_| scene.not_ready("store")).await;
    let mut event = 9;
    while lock(&scene.world.queue).dead.len() < 9 {
        event += 1;
        assert!(event < 1000, "{:?}", scene.receive_counts());
        scene.world.send(through_eventbridge(event * 3 + 1));
        sleep(Duration::from_secs(5)).await;
    }
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(alerts(&scene.world), usize::try_from(event - 9).unwrap());
    assert_eq!(lock(&scene.world.queue).dead.len(), 9);
    assert!(scene.process.health.ready().ok);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_bucket_that_is_denied_costs_only_its_own_messages() {
    let scene = Scene::start();
    scene.deliver(0, &[1]);
    scene.until("one is read", 60, |world| alerts(world) == 1).await;
    scene.deny("foreign-logs");
    // Whoever can send to the queue names many keys in one message, and sends many.
    let keys: Vec<_> = (0..16).map(|number| log_key("trail-x", number)).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    for _ in 0..12 {
        scene.world.send(notification_of(&keys).replace(BUCKET, "foreign-logs"));
    }
    for number in 1..7 {
        scene.deliver(number, &[number * 3 + 1]);
        sleep(Duration::from_secs(5)).await;
        assert!(!scene.not_ready("object_access"), "others can be read");
    }
    scene.until("the good ones are read", 30, |world| alerts(world) == 7).await;
    scene.until("an empty queue", 1200, drained).await;
    assert!(!scene.not_ready("object_access"));
    let queue = lock(&scene.world.queue);
    assert_eq!((queue.dead.len(), queue.deleted.len()), (12, 7), "they are left for redrive");
    assert_eq!(scene.process.metrics.messages_released.with_label_values(&["bucket_denied"]).get(), 0);
}

/// However many keys a message names, it is one sign that a bucket is denied.
#[tokio::test(start_paused = true)]
async fn one_message_does_not_make_a_bucket_denied() {
    let scene = Scene::start_with(|config| config.source.allowed_buckets = vec![BUCKET.to_owned()]);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.deny(BUCKET);
    let keys: Vec<_> = (0..16).map(|number| log_key("trail-x", number)).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    scene.world.send(notification_of(&keys));
    scene.until("it is left", 60, |_| scene.receive_counts().iter().any(|it| *it > 1)).await;
    assert!(!scene.not_ready("object_access"));
}

/// The extension in flight must not follow the give-back: the message would stay invisible for as long as a lease.
#[tokio::test(start_paused = true)]
async fn a_give_back_waits_for_the_extension_in_flight() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let (mut puts, mut changes, mut receives) = (0, 0, 0);
    let down = Trouble::Fail(ErrorClass::Transient, Fault::Unavailable);
    scene.world.send(through_eventbridge(1));
    // So that it is given back for eight seconds.
    lock(&scene.world.queue).messages[0].receive_count = 3;
    scene.world.trouble(move |operation| match operation {
        "dynamodb:PutItem" => {
            puts += 1;
            Some(if puts == 1 { Trouble::Hang } else { Trouble::Fail(ErrorClass::Permanent, Fault::Invalid) })
        }
        "sqs:ChangeMessageVisibility" => {
            changes += 1;
            (changes == 1).then_some(Trouble::Slow(Duration::from_secs(4)))
        }
        "sqs:ReceiveMessage" => {
            receives += 1;
            (receives > 1).then(|| down.clone())
        }
        _ => None,
    });
    scene.until("it is received", 60, |_| scene.receive_counts() == [4]).await;
    sleep(Duration::from_secs(26)).await;
    let queue = lock(&scene.world.queue);
    assert!(queue.messages[0].visible_at <= Instant::now(), "{}", lock(&scene.world.trace).join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_give_back_that_fails_twice_is_made_all_the_same() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let mut changes = 0;
    scene.world.trouble(move |operation| {
        changes += u32::from(operation == "sqs:ChangeMessageVisibility");
        (operation == "sqs:ChangeMessageVisibility" && changes <= 2)
            .then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
    });
    scene.world.send(crate::sim::notification(&log_key("trail-a", 404)));
    scene.until("it is received", 60, |_| scene.receive_counts() == [1]).await;
    let visible = |world: &World| lock(&world.queue).messages[0].visible_at <= Instant::now();
    let seconds = scene.until("it is visible", 60, visible).await;
    assert!(seconds < 10, "{seconds} s: not when its timeout ran out");
}

/// Nine failures are not yet its own fault, though others can be read meanwhile.
#[tokio::test(start_paused = true)]
async fn an_object_is_not_given_up_before_its_tenth_failure() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let key = log_key("trail-a", 666);
    scene.deliver(666, &[1]);
    let breaks = |at: Option<u64>| {
        lock(&scene.world.objects).get_mut(&(BUCKET.to_owned(), key.clone())).unwrap().breaks = at;
    };
    breaks(Some(0));
    let mut number = 0;
    while scene.process.metrics.object_resumes.get() < 8 {
        number += 1;
        assert!(number < 600, "it is not read any more: {:?}", scene.receive_counts());
        scene.deliver(number, &[4]);
        sleep(Duration::from_millis(500)).await;
    }
    breaks(None);
    scene.until("an empty queue", 120, drained).await;
    let queue = lock(&scene.world.queue);
    assert_eq!((queue.dead.len(), queue.most_receives), (0, 1));
}

/// An object of which each attempt brings some bytes is read to its end, however often it breaks off.
#[tokio::test(start_paused = true)]
async fn progress_is_no_failure_of_an_object() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let bytes = log_object(&(0..60).collect::<Vec<_>>());
    let length = bytes.len() as u64;
    let key = log_key("trail-a", 666);
    scene.world.put_object(BUCKET, &key, bytes);
    let breaks = |at: u64| {
        lock(&scene.world.objects).get_mut(&(BUCKET.to_owned(), key.clone())).unwrap().breaks = Some(at);
    };
    breaks(1);
    scene.world.send(crate::sim::notification(&key));
    let (mut at, mut number) = (1, 0);
    // Each step waits for two failures without progress, so that others are read between them.
    for step in 1..=14 {
        let before = scene.process.metrics.object_resumes.get();
        while scene.process.metrics.object_resumes.get() < before + 3 {
            number += 1;
            assert!(number < 4000, "step {step}: it is not read any more: {:?}", scene.receive_counts());
            scene.deliver(number, &[64]);
            sleep(Duration::from_millis(20)).await;
        }
        at += length / 20;
        breaks(at);
    }
    breaks(length * 2);
    scene.until("an empty queue", 120, drained).await;
    let queue = lock(&scene.world.queue);
    assert_eq!((queue.dead.len(), queue.most_receives), (0, 1));
}
