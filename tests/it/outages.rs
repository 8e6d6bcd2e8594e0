//! An hour without one service, and what is configured wrongly: messages wait, and nothing is lost or spent by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trailhound::health::Dependency;
use trailhound::ports::{ErrorClass, Fault};

use crate::fakes::{Trouble, lock};
use crate::faults::{HOUR, Scene, alerts, drained};
use crate::sim::process::CONCURRENCY;
use crate::sim::{log_key, through_eventbridge};

const SNS: &[&str] = &["sns:PublishBatch", "sns:GetTopicAttributes"];
const DYNAMODB: &[&str] =
    &["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:UpdateItem#mark", "dynamodb:DescribeTable"];
const S3: &[&str] = &["s3:GetObject", "s3:HeadBucket"];
const SQS: &[&str] =
    &["sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessageBatch", "sqs:GetQueueAttributes"];

const BACKLOG: u32 = 120;
/// Messages that may wait for their delete, besides those in the slots.
const DELETES: usize = 20;

fn down() -> Trouble {
    Trouble::Fail(ErrorClass::Transient, Fault::Unavailable)
}

/// When each call was made, by operation.
type Calls = Arc<Mutex<BTreeMap<&'static str, Vec<Instant>>>>;

/// Counts calls, and lets this decide about those of these operations.
fn trouble(
    scene: &Scene,
    operations: &'static [&'static str],
    mut decide: impl FnMut(&'static str) -> Option<Trouble> + Send + 'static,
) -> Calls {
    let calls = Calls::default();
    let counting = Arc::clone(&calls);
    scene.world.trouble(move |operation| {
        lock(&counting).entry(operation).or_default().push(Instant::now());
        if operations.contains(&operation) { decide(operation) } else { None }
    });
    calls
}

/// The most calls of one of these operations in any one second from then on.
fn busiest_second(calls: &Calls, operations: &[&str], from: Instant) -> (usize, &'static str) {
    let mut most = (0, "");
    for (operation, times) in lock(calls).iter().filter(|(it, _)| operations.contains(it)) {
        let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
        for at in times.iter().filter(|at| **at >= from) {
            *seconds.entry((*at - from).as_secs()).or_default() += 1;
        }
        most = most.max((seconds.values().max().copied().unwrap_or(0), *operation));
    }
    most
}

/// A scene with a backlog and many slots, ready.
async fn busy_scene() -> Scene {
    let scene = Scene::start_with(|config| config.pipeline.concurrency = 40);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene
}

fn backlog(scene: &Scene) {
    for number in 0..BACKLOG {
        scene.deliver(number, &[number * 3 + 1]);
    }
}

/// Everything of one service is in trouble for an hour: held messages stay held, no more are received, the service is
/// asked less and less often, and work resumes within a minute.
async fn an_hour_without(operations: &'static [&'static str], dependency: &str, how: Trouble) {
    let scene = busy_scene().await;
    trouble(&scene, operations, move |_| Some(how.clone()));
    backlog(&scene);
    // As the outage begins, more is received until the first call fails.
    sleep(Duration::from_secs(120)).await;
    let held: Vec<_> = ids_of(&scene, |receives| receives == 1);
    assert!(!held.is_empty() && held.len() <= 40, "intake pauses with {} messages held", held.len());
    for minute in 2..60 {
        assert_eq!(lapsed(&scene), 0, "minute {minute}: held messages stay held");
        sleep(Duration::from_secs(60)).await;
    }
    assert!(scene.not_ready(dependency), "the probe says what is wrong");
    assert!(scene.process.health.live().ok, "a pause on purpose is no reason to be killed");
    let counts = scene.receive_counts();
    assert_eq!(counts.len(), BACKLOG as usize, "nothing is deleted and nothing is dead");
    assert!(counts.iter().all(|it| *it <= 1), "waiting costs no receive: {counts:?}");
    let more = ids_of(&scene, |receives| receives == 1).len() - held.len();
    // An object that cannot be read may be its own fault: one is tried now and then.
    assert!(more == 0 || dependency == "objects", "{more} more were received in the outage");

    scene.heals();
    scene.until("all alerts", 60, |world| alerts(world) == BACKLOG as usize).await;
    scene.until("an empty queue", 60, drained).await;
    let most = lock(&scene.world.queue).most_in_flight;
    assert!(most <= 40 + DELETES, "{most} messages were in flight at once");
    assert!(lock(&scene.world.queue).dead.is_empty());
    assert_eq!(lock(&scene.world.table).len(), BACKLOG as usize);
    assert_eq!(lock(&scene.world.queue).most_receives, 1);
    assert!(scene.process.health.ready().ok);
    assert!(scene.process.stop().await);
}

/// How many messages were received and are visible again.
fn lapsed(scene: &Scene) -> usize {
    let now = Instant::now();
    lock(&scene.world.queue).messages.iter().filter(|it| it.receive_count == 1 && it.visible_at <= now).count()
}

fn ids_of(scene: &Scene, received: impl Fn(u32) -> bool) -> Vec<String> {
    let queue = lock(&scene.world.queue);
    queue.messages.iter().filter(|it| received(it.receive_count)).map(|it| it.id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_sns() {
    for how in [down(), Trouble::Hang] {
        an_hour_without(SNS, "publisher", how).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_sns_although_its_check_works() {
    an_hour_without(&["sns:PublishBatch"], "publisher", down()).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_dynamodb() {
    for how in [down(), Trouble::Hang] {
        an_hour_without(DYNAMODB, "store", how).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_s3() {
    for how in [down(), Trouble::Hang] {
        an_hour_without(S3, "objects", how).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_s3_although_its_check_works() {
    an_hour_without(&["s3:GetObject"], "objects", down()).await;
}

/// In an outage the held messages do not ask all at once.
#[tokio::test(start_paused = true)]
async fn in_an_outage_calls_are_few_and_spread() {
    for operations in [SNS, DYNAMODB, S3] {
        let scene = busy_scene().await;
        let calls = trouble(&scene, operations, |_| Some(down()));
        backlog(&scene);
        sleep(Duration::from_secs(1800)).await;
        let settled = Instant::now();
        sleep(Duration::from_secs(1800)).await;
        let (most, operation) = busiest_second(&calls, operations, settled);
        assert!(most <= 15, "{most} calls of {operation} in one second");
        let later = |times: &Vec<Instant>| times.iter().filter(|at| **at >= settled).count();
        for (operation, count) in lock(&calls).iter().map(|(operation, times)| (operation, later(times))) {
            // Forty held messages, each every 22 seconds on average; every heartbeat beats each ten.
            assert!(count <= 40 * 1800 / 10 * 11 / 10, "{count} calls of {operation} in half an hour");
        }
    }
}

/// A service that takes two calls a second and throttles the others, for an hour.
#[tokio::test(start_paused = true)]
async fn an_hour_of_throttling_spends_nothing() {
    for operations in [SNS, DYNAMODB, S3, SQS] {
        let scene = busy_scene().await;
        let mut second = (Instant::now(), 0);
        let calls = trouble(&scene, operations, move |_| {
            if second.0.elapsed() >= Duration::from_secs(1) {
                second = (Instant::now(), 0);
            }
            second.1 += 1;
            (second.1 > 2).then(down)
        });
        for hour in 0..6 {
            for number in 0..20 {
                scene.deliver(hour * 20 + number, &[(hour * 20 + number) * 3 + 1]);
            }
            sleep(Duration::from_secs(HOUR / 6)).await;
        }
        scene.heals();
        drop(calls);
        scene.until("all alerts", 60, |world| alerts(world) >= BACKLOG as usize).await;
        scene.until("an empty queue", 60, drained).await;
        assert_eq!(alerts(&scene.world), BACKLOG as usize, "{operations:?}: none twice");
        let queue = lock(&scene.world.queue);
        assert!(queue.dead.is_empty());
        if operations != SQS {
            assert_eq!(queue.most_receives, 1, "{operations:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_sqs_loses_nothing() {
    for how in [down(), Trouble::Hang] {
        let scene = Scene::start();
        scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
        // Two are in work when it begins.
        scene.fails(&["sns:PublishBatch"], ErrorClass::Transient, Fault::Unavailable);
        for number in 0..2 {
            scene.deliver(number, &[number * 3 + 1]);
        }
        scene
            .until("two are held", 30, |world| {
                lock(&world.queue).messages.iter().filter(|it| it.receive_count == 1).count() == 2
            })
            .await;
        // A receive is never given up by its caller: an adapter ends it.
        let receive = down();
        trouble(&scene, SQS, move |it| Some(if it == "sqs:ReceiveMessage" { receive.clone() } else { how.clone() }));
        for number in 2..7 {
            scene.deliver(number, &[number * 3 + 1]);
        }
        sleep(Duration::from_secs(HOUR)).await;
        assert!(scene.not_ready("queue"));
        assert_eq!(alerts(&scene.world), 2, "what was held is delivered all the same");
        scene.heals();
        scene.until("all alerts", 60, |world| alerts(world) == 7).await;
        scene.until("an empty queue", 60, drained).await;
        let queue = lock(&scene.world.queue);
        assert_eq!((queue.dead.len(), queue.most_receives), (0, 2), "a lease that could not be kept cost one receive");
        assert_eq!(alerts(&scene.world), 7, "and no alert more");
    }
}

/// Deletes fail, and everything else works: what is delivered is kept until it can be deleted, for it would be received
/// again and again, and end on the dead-letter queue.
async fn an_hour_without_deletes(how: Trouble) {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    trouble(&scene, &["sqs:DeleteMessageBatch"], move |_| Some(how.clone()));
    for number in 0..10 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    scene.until("red", 120, |_| scene.not_ready("queue")).await;
    for _ in 0..60 {
        sleep(Duration::from_secs(60)).await;
        assert!(scene.receive_counts().iter().all(|it| *it <= 1), "{:?}", scene.receive_counts());
        assert!(scene.not_ready("queue"), "it stays red, although messages can be received");
    }
    assert_eq!(alerts(&scene.world), 10);
    scene.heals();
    scene.until("an empty queue", 60, drained).await;
    assert!(lock(&scene.world.queue).dead.is_empty());
    assert_eq!(alerts(&scene.world), 10);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_deletes_costs_no_receive() {
    for how in [down(), Trouble::Hang] {
        an_hour_without_deletes(how).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_delete_turns_readiness_red_and_costs_no_receive() {
    an_hour_without_deletes(Trouble::Fail(ErrorClass::Config, Fault::Denied { action: "sqs:DeleteMessage" })).await;
}

/// Stops waiting for deletes that cannot be made: what was delivered is given back, and finished by whoever gets it.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_deletes_that_fail() {
    for how in [down(), Trouble::Hang] {
        let scene = Scene::start();
        scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
        trouble(&scene, &["sqs:DeleteMessageBatch"], move |_| Some(how.clone()));
        for number in 0..5 {
            scene.deliver(number, &[number * 3 + 1]);
        }
        scene.until("all alerts", 60, |world| alerts(world) == 5).await;
        let Scene { world, process, .. } = scene;
        assert!(process.stop().await, "it ends within its deadline");
        let now = Instant::now();
        let queue = lock(&world.queue);
        assert!(queue.messages.iter().all(|it| it.visible_at <= now), "visible at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_extension_turns_readiness_red() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let denied = Trouble::Fail(ErrorClass::Config, Fault::Denied { action: "sqs:ChangeMessageVisibility" });
    trouble(&scene, &["sqs:ChangeMessageVisibility", "sns:PublishBatch"], move |operation| {
        Some(if operation == "sns:PublishBatch" { down() } else { denied.clone() })
    });
    scene.world.send(through_eventbridge(1));
    scene.until("red", 30, |_| scene.not_ready("queue")).await;
}

/// Nobody can hold a message then.
#[tokio::test(start_paused = true)]
async fn a_denied_extension_costs_a_receive_for_each_timeout() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let denied = Trouble::Fail(ErrorClass::Config, Fault::Denied { action: "sqs:ChangeMessageVisibility" });
    // Work that takes longer than a lease: the store is slow.
    let mut slow = 0;
    trouble(&scene, &["sqs:ChangeMessageVisibility", "dynamodb:PutItem"], move |operation| {
        if operation == "dynamodb:PutItem" {
            slow += 1;
            return (slow <= 4).then_some(Trouble::Hang);
        }
        Some(denied.clone())
    });
    scene.world.send(through_eventbridge(1));
    scene.until("an empty queue", 300, drained).await;
    let queue = lock(&scene.world.queue);
    assert!(queue.most_receives > 1 && queue.dead.is_empty(), "{}", queue.most_receives);
    assert_eq!(alerts(&scene.world), 1, "and no alert");
}

/// One call is denied, or what it needs is not there, or credentials have expired.
async fn a_wrong_configuration(operation: &'static [&'static str], dependency: &str, fault: Fault) {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(operation, ErrorClass::Config, fault.clone());
    for number in 0..20 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    scene.until("red", 30, |_| scene.not_ready(dependency)).await;
    let report = scene.process.health.ready();
    let check = report.checks.iter().find(|it| it.name == dependency).unwrap();
    assert!(check.detail.contains(operation[0].split('#').next().unwrap()), "it names the call: {}", check.detail);
    sleep(Duration::from_secs(HOUR)).await;
    assert!(scene.not_ready(dependency), "{operation:?} {fault:?}: it stays red");
    let counts = scene.receive_counts();
    assert!(counts.len() == 20 && counts.iter().all(|it| *it <= 1), "{operation:?} {fault:?}: {counts:?}");
    assert!(counts.iter().filter(|it| **it == 1).count() <= CONCURRENCY);
    scene.heals();
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(alerts(&scene.world), 20);
    assert!(lock(&scene.world.queue).dead.is_empty());
    assert!(scene.process.health.ready().ok);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_configuration_turns_readiness_red_and_keeps_messages_off_the_dead_letter_queue() {
    let denied = |action| Fault::Denied { action };
    a_wrong_configuration(&["sns:PublishBatch"], "publisher", denied("sns:Publish")).await;
    a_wrong_configuration(&["sns:PublishBatch"], "publisher", Fault::Missing).await;
    a_wrong_configuration(&["dynamodb:PutItem"], "store", denied("dynamodb:PutItem")).await;
    a_wrong_configuration(&["dynamodb:UpdateItem#mark"], "store", denied("dynamodb:UpdateItem")).await;
    a_wrong_configuration(&["dynamodb:PutItem", "dynamodb:DescribeTable"], "store", Fault::Missing).await;
    a_wrong_configuration(&["s3:GetObject", "s3:HeadBucket"], "objects", Fault::Credentials).await;
}

/// Credentials that expire are the process's fault, and new ones are tried by the calls that go on.
#[tokio::test(start_paused = true)]
async fn expired_credentials_wait_for_new_ones() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.world.trouble(|_| Some(Trouble::Fail(ErrorClass::Config, Fault::Credentials)));
    for number in 0..5 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    sleep(Duration::from_secs(HOUR)).await;
    for dependency in Dependency::ALL {
        let known_to_fail = scene.not_ready(dependency.name());
        // Of what nothing was asked, nothing is known.
        assert!(known_to_fail || dependency != Dependency::Queue, "{}", dependency.name());
    }
    scene.heals();
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(alerts(&scene.world), 5);
    assert!(lock(&scene.world.queue).dead.is_empty());
}

/// One missing and one denied object among good ones cost only their own messages.
#[tokio::test(start_paused = true)]
async fn one_denied_and_one_missing_object_cost_only_their_own_messages() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.world.send(crate::sim::notification(&log_key("trail-a", 404)));
    scene.deny("denied-logs");
    scene.deliver_to("denied-logs", 403, &[400]);
    for number in 0..30 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    scene.until("the good ones are read", 60, |world| alerts(world) == 30).await;
    assert!(scene.process.health.ready().ok, "it is not the process's fault");
    scene.until("an empty queue", 1200, drained).await;
    let queue = lock(&scene.world.queue);
    assert_eq!((queue.dead.len(), queue.most_receives), (2, 1));
}
