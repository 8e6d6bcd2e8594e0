//! Scenarios of the daemon under faults, over the fakes on a paused clock.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use trailhound::alert::AttributeValue;
use trailhound::claim::ItemState;
use trailhound::config::Config;
use trailhound::ports::{ErrorClass, Fault};
use trailhound::rules::{Mode, Severity};

use crate::fakes::{Trouble, World, lock};
use crate::sim::process::{Process, config};
use crate::sim::{
    BUCKET, event_id, log_key, log_object, notification, record, rule_file, rules_on_trial, through_eventbridge,
};

pub const HOUR: u64 = 3600;

pub struct Scene {
    pub world: Arc<World>,
    pub process: Process,
    pub rules: tempfile::NamedTempFile,
}

impl Scene {
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        let world = World::new(5, Duration::from_secs(30), 10);
        let mut rules = tempfile::NamedTempFile::new().unwrap();
        rules.write_all(rule_file(false).as_bytes()).unwrap();
        let process = Process::start_with(&world, rules.path(), 5, config);
        Self { world, process, rules }
    }

    /// With rules in shadow, and `any-key` in this mode.
    pub fn on_trial(any_key: Option<Mode>) -> Self {
        let scene = Self::start();
        scene.reload(any_key);
        scene
    }

    pub fn reload(&self, any_key: Option<Mode>) {
        std::fs::write(self.rules.path(), rules_on_trial(any_key)).unwrap();
        self.process.reload();
    }

    /// The process is dead; another begins with these rules.
    pub fn revive(&mut self, any_key: Option<Mode>) {
        self.revive_with(&rules_on_trial(any_key));
    }

    /// The same, with the rules of this file.
    pub fn revive_with(&mut self, rules: &str) {
        assert!(!self.process.lives());
        std::fs::write(self.rules.path(), rules).unwrap();
        self.process = Process::start(&self.world, self.rules.path(), 6);
    }

    /// The next call of this operation kills the process before it does anything.
    pub fn dies_in(&self, operation: &'static str) {
        let mut alive = true;
        self.world
            .trouble(move |called| (called == operation && std::mem::take(&mut alive)).then_some(Trouble::DieBefore));
    }

    pub fn state(&self, event: u32) -> ItemState {
        let table = lock(&self.world.table);
        let (_, row) = table.iter().find(|(key, _)| key.event_id == event_id(event)).expect("the event is stored");
        row.state.clone()
    }

    /// The rules that each alert told.
    pub fn told(&self) -> Vec<String> {
        let ids = |rules: &serde_json::Value| -> Vec<String> {
            rules.as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap().to_owned()).collect()
        };
        lock(&self.world.topic).iter().map(|it| ids(&it.document["rules"]).join(" ")).collect()
    }

    /// Polls every second of simulated time.
    pub async fn until(&self, what: &str, limit: u64, condition: impl Fn(&World) -> bool) -> u64 {
        for second in 0..limit {
            if condition(&self.world) {
                return second;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("not within {limit} s: {what}\n{}", lock(&self.world.trace).join("\n"));
    }

    pub fn fails(&self, operations: &'static [&'static str], class: ErrorClass, fault: Fault) {
        self.world
            .trouble(move |operation| operations.contains(&operation).then(|| Trouble::Fail(class, fault.clone())));
    }

    pub fn heals(&self) {
        self.world.trouble(|_| None);
    }

    pub fn deliver(&self, number: u32, events: &[u32]) {
        let key = log_key("trail-a", number);
        self.world.put_object(BUCKET, &key, log_object(events));
        self.world.send(notification(&key));
    }

    pub fn deliver_to(&self, bucket: &str, number: u32, events: &[u32]) {
        let key = log_key("trail-a", number);
        self.world.put_object(bucket, &key, log_object(events));
        self.world.send(notification(&key).replace(BUCKET, bucket));
    }

    pub fn deny(&self, bucket: &str) {
        lock(&self.world.denied).insert(bucket.to_owned());
    }

    pub fn allow(&self) {
        lock(&self.world.denied).clear();
    }

    pub fn receive_counts(&self) -> Vec<u32> {
        lock(&self.world.queue).messages.iter().map(|it| it.receive_count).collect()
    }

    pub fn not_ready(&self, check: &str) -> bool {
        self.process.health.ready().checks.iter().any(|it| it.name == check && !it.ok)
    }
}

pub fn drained(world: &World) -> bool {
    lock(&world.queue).messages.is_empty()
}

pub fn alerts(world: &World) -> usize {
    lock(&world.topic).len()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_before_everything_was_reachable_once() {
    let scene = Scene::start();
    scene.fails(&["dynamodb:DescribeTable"], ErrorClass::Config, Fault::Missing);
    scene.world.send(through_eventbridge(1));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(scene.receive_counts(), [0]);
    assert!(!scene.process.health.was_ready());
    assert!(scene.process.health.live().ok);
    scene.heals();
    scene.until("an empty queue", 60, drained).await;
    assert!(scene.process.health.was_ready());
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_costs_only_its_own_message() {
    let scene = Scene::start();
    scene.world.send(notification(&log_key("trail-a", 404)));
    for number in 0..12 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    scene.until("an empty queue", 1200, drained).await;
    assert_eq!(alerts(&scene.world), 12);
    let queue = lock(&scene.world.queue);
    assert_eq!(queue.dead.len(), 1);
    assert_eq!(scene.process.metrics.messages_left.with_label_values(&["missing"]).get(), 10);
}

#[tokio::test(start_paused = true)]
async fn eight_denied_objects_are_the_processes_own_fault_and_wait() {
    let scene = Scene::start();
    scene.fails(&["s3:GetObject"], ErrorClass::Permanent, Fault::Denied { action: "s3:GetObject" });
    for number in 0..20 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    scene.until("red", 600, |_| scene.not_ready("object_access")).await;
    sleep(Duration::from_secs(6 * HOUR)).await;
    assert!(lock(&scene.world.queue).dead.is_empty(), "nothing goes to the dead-letter queue for it");
    scene.heals();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    // What was put off comes back by itself.
    scene.until("an empty queue", 8 * HOUR, drained).await;
    assert_eq!(alerts(&scene.world), 20);
    assert!(lock(&scene.world.queue).dead.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_denies_everything_does_not_stop_the_others() {
    let allowed = vec![BUCKET.to_owned(), "denied-logs".to_owned()];
    let scene = Scene::start_with(|config| config.source.allowed_buckets = allowed);
    for number in 0..40 {
        scene.deliver(number, &[number * 3 + 1]);
        scene.deliver_to("denied-logs", 100 + number, &[300 + number * 3 + 1]);
    }
    scene.deny("denied-logs");
    scene.until("the good ones are read", 600, |world| alerts(world) == 40).await;
    assert!(scene.not_ready("object_access"), "and the probe says what is denied");
    // Others go on being read, at once.
    scene.deliver(50, &[151]);
    scene.until("one more", 30, |world| alerts(world) == 41).await;
    sleep(Duration::from_secs(24 * HOUR)).await;
    assert!(lock(&scene.world.queue).dead.is_empty(), "nothing goes to the dead-letter queue for it");
    scene.allow();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.until("an empty queue", 8 * HOUR, drained).await;
    assert_eq!(alerts(&scene.world), 81);
}

#[tokio::test(start_paused = true)]
async fn twelve_hours_cost_one_receive() {
    // Longer than the minute that is kept for giving back.
    let visibility = Duration::from_secs(600);
    let scene = Scene::start_with(|config| config.queue.visibility = Some(visibility));
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(&["sns:PublishBatch", "sns:GetTopicAttributes"], ErrorClass::Transient, Fault::Unavailable);
    scene.world.send(through_eventbridge(1));
    sleep(Duration::from_secs(12 * HOUR - 90)).await;
    let held = |world: &World| lock(&world.queue).messages[0].visible_at > tokio::time::Instant::now();
    assert!(held(&scene.world), "it is held to the last minute");
    sleep(Duration::from_secs(60)).await;
    assert!(!held(&scene.world), "it was given back, and nothing is received in the outage");
    sleep(Duration::from_secs(HOUR)).await;
    assert_eq!(scene.receive_counts(), [1]);
    scene.heals();
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(alerts(&scene.world), 1);
    assert_eq!(scene.process.metrics.messages_released.with_label_values(&["expired"]).get(), 1);
}

/// Two messages are held when the process is told to stop, and these operations are in trouble.
async fn a_stop_gives_everything_back(operations: &'static [&'static str], trouble: Trouble, after: u64) {
    a_stop_within_gives_everything_back(25, operations, trouble, after).await;
}

async fn a_stop_within_gives_everything_back(
    deadline: u64,
    operations: &'static [&'static str],
    trouble: Trouble,
    after: u64,
) {
    let scene = Scene::start_with(|config| {
        config.shutdown.deadline = Duration::from_secs(deadline);
        config.queue.wait = config.queue.wait.min(config.shutdown.deadline);
    });
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.world.trouble(move |operation| operations.contains(&operation).then(|| trouble.clone()));
    scene.world.send(through_eventbridge(1));
    scene.deliver(1, &[2]);
    scene.until("both received", 60, |_| scene.receive_counts() == [1, 1]).await;
    sleep(Duration::from_secs(after)).await;
    let Scene { world, process, .. } = scene;
    assert!(process.stop().await, "it ends within its deadline");
    let queue = lock(&world.queue);
    let now = tokio::time::Instant::now();
    assert_eq!(queue.messages.iter().filter(|it| it.visible_at <= now).count(), 2, "{operations:?}: visible at once");
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_an_outage_gives_everything_back_at_once() {
    let outage = Trouble::Fail(ErrorClass::Transient, Fault::Unavailable);
    for trouble in [outage, Trouble::Hang, Trouble::HangAfter] {
        // Wherever in a call's deadline the stop comes.
        for after in [0, 3, 6, 9] {
            a_stop_gives_everything_back(&["sns:PublishBatch"], trouble.clone(), after).await;
            a_stop_gives_everything_back(&["dynamodb:PutItem"], trouble.clone(), after).await;
            a_stop_gives_everything_back(&["dynamodb:UpdateItem#mark"], trouble.clone(), after).await;
            a_stop_gives_everything_back(&["s3:GetObject", "sns:PublishBatch"], trouble.clone(), after).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_a_short_deadline_gives_everything_back_although_nothing_answers() {
    for deadline in 1..7 {
        a_stop_within_gives_everything_back(deadline, &["sns:PublishBatch"], Trouble::Hang, 2).await;
        a_stop_within_gives_everything_back(deadline, &["dynamodb:PutItem"], Trouble::Hang, 2).await;
        a_stop_within_gives_everything_back(deadline, &["s3:GetObject", "sns:PublishBatch"], Trouble::Hang, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_resumed_where_it_stopped() {
    let scene = Scene::start();
    let mut breaks = [1_u64, 700, 701, 0, 0, 64].into_iter();
    scene.world.trouble(
        move |operation| {
            if operation == "s3:GetObject" { breaks.next().map(Trouble::Break) } else { None }
        },
    );
    scene.deliver(1, &(0..60).collect::<Vec<_>>());
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(alerts(&scene.world), 40);
    assert_eq!(scene.process.metrics.object_resumes.get(), 6);
    assert_eq!(scene.process.metrics.duplicates_suppressed.get(), 0, "no record was read twice");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_never_comes_whole_costs_only_its_own_message() {
    let scene = Scene::start();
    scene.deliver(666, &[1]);
    for object in lock(&scene.world.objects).values_mut() {
        object.breaks = Some(100);
    }
    sleep(Duration::from_secs(2 * HOUR)).await;
    assert_eq!(scene.receive_counts(), [1], "alone, it may as well be S3's fault: it waits");
    for hour in 0..24 {
        scene.deliver(hour, &[4]);
        sleep(Duration::from_secs(HOUR)).await;
    }
    let queue = lock(&scene.world.queue);
    assert_eq!((queue.messages.len(), queue.dead.len()), (0, 1), "others come whole, so it is its own fault");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_work_without_an_error_flood() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.world.trouble(|operation| match operation {
        "sns:PublishBatch" => Some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable)),
        "sqs:ChangeMessageVisibility" => Some(Trouble::Fail(ErrorClass::Permanent, Fault::LeaseLost)),
        _ => None,
    });
    scene.world.send(through_eventbridge(1));
    scene.until("the lease is lost", 60, |_| scene.process.metrics.leases_lost.get() > 0).await;
    scene.heals();
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(alerts(&scene.world), 1);
    let table = lock(&scene.world.table);
    assert_eq!(table.values().next().unwrap().item.key.event_id, event_id(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_is_given_up_and_repeated() {
    let scene = Scene::start();
    let mut hangs = 0;
    scene.world.trouble(move |operation| {
        let publish = operation == "sns:PublishBatch";
        hangs += usize::from(publish);
        (publish && hangs <= 2).then_some(Trouble::Hang)
    });
    scene.world.send(through_eventbridge(1));
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(alerts(&scene.world), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_process_do_not_race_for_an_event() {
    let scene = Scene::start();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    scene.world.trouble(move |operation| {
        counted.fetch_add(u32::from(operation == "dynamodb:PutItem"), Ordering::Relaxed);
        None
    });
    for number in 0..3 {
        scene.deliver(number, &[1, 2, 4, 5, 7, 8]);
    }
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(alerts(&scene.world), 6);
    assert_eq!(asked.load(Ordering::Relaxed), 18, "each copy asks once, after the one before was settled");
}

#[tokio::test(start_paused = true)]
async fn deletes_share_their_calls() {
    let scene = Scene::start_with(|config| config.pipeline.concurrency = 40);
    let (receives, deletes) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (receiving, deleting) = (Arc::clone(&receives), Arc::clone(&deletes));
    for event in 0..40 {
        scene.world.send(through_eventbridge(event * 3));
    }
    scene.world.trouble(move |operation| {
        receiving.fetch_add(u32::from(operation == "sqs:ReceiveMessage"), Ordering::Relaxed);
        deleting.fetch_add(u32::from(operation == "sqs:DeleteMessageBatch"), Ordering::Relaxed);
        None
    });
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(deletes.load(Ordering::Relaxed), 4, "forty messages without a match, ten in a call");
    assert!(receives.load(Ordering::Relaxed) <= 6);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_keeps_failing_is_repeated_until_it_works() {
    let scene = Scene::start();
    let mut failures = 0;
    scene.world.trouble(move |operation| {
        failures += usize::from(operation == "sqs:DeleteMessageBatch");
        (operation == "sqs:DeleteMessageBatch" && failures <= 20)
            .then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
    });
    scene.world.send(through_eventbridge(1));
    scene.until("an empty queue", 300, drained).await;
    let metrics = &scene.process.metrics;
    assert_eq!((metrics.message_delete_failures.get(), metrics.messages_deleted.get()), (1, 1));
    assert_eq!((alerts(&scene.world), lock(&scene.world.queue).most_receives), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_queue_is_told_once_a_minute() {
    let (lines, _logging) = logged();
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(&["sqs:ReceiveMessage"], ErrorClass::Transient, Fault::Unavailable);
    sleep(Duration::from_secs(HOUR)).await;
    let told = count(&lines, "cannot receive messages");
    assert!((30..=61).contains(&told), "{told} lines in an hour");
    assert!(scene.process.metrics.poll_errors.get() > told as u64, "each failure is counted");
}

/// What is logged on this thread from now on, until the guard is dropped.
fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(Arc::clone(&written))).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

fn count(lines: &Mutex<Vec<u8>>, text: &str) -> usize {
    String::from_utf8_lossy(&lock(lines)).lines().filter(|line| line.contains(text)).count()
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_nothing_answers_ends_at_once() {
    let scene = Scene::start();
    scene.world.trouble(|_| Some(Trouble::Hang));
    sleep(Duration::from_secs(5)).await;
    let began = tokio::time::Instant::now();
    assert!(scene.process.stop().await);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn extensions_that_hang_do_not_cost_the_lease() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let mut extensions = 0;
    scene.world.trouble(move |operation| match operation {
        "sns:PublishBatch" => Some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable)),
        "sqs:ChangeMessageVisibility" => {
            extensions += 1;
            (extensions % 3 != 0).then_some(Trouble::Hang)
        }
        _ => None,
    });
    scene.world.send(through_eventbridge(1));
    sleep(Duration::from_secs(HOUR)).await;
    assert_eq!(scene.receive_counts(), [1]);
    assert_eq!(scene.process.metrics.leases_lost.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_as_old_as_its_first_attempt() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.world.send(through_eventbridge(1));
    let (mut puts, mut publishes) = (0, 0);
    let first = scene.process.number;
    *lock(&scene.world.troubles_of) = Box::new(move |process, operation| match operation {
        _ if process != first => None,
        // The claim is stored at once, and known to be after half a minute.
        "dynamodb:PutItem" => {
            puts += 1;
            match puts {
                1 => Some(Trouble::HangAfter),
                2 => Some(Trouble::Hang),
                3 => Some(Trouble::Slow(Duration::from_secs(5))),
                _ => None,
            }
        }
        // Then another takes it over, if it is not renewed, before the alert is accepted.
        "sns:PublishBatch" => {
            publishes += 1;
            (publishes == 1).then_some(Trouble::Slow(Duration::from_secs(11)))
        }
        // What comes next is the other's.
        "sqs:ReceiveMessage" if puts > 0 => Some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable)),
        _ => None,
    });
    scene.until("a claim", 60, |world| !lock(&world.table).is_empty()).await;
    // Both wait for a message: the one that waited longer may get the first of two.
    let _other = Process::start(&scene.world, scene.rules.path(), 8);
    sleep(Duration::from_millis(500)).await;
    scene.world.send(through_eventbridge(1));
    scene.world.send(through_eventbridge(1));
    scene.until("an empty queue", 300, drained).await;
    assert_eq!(alerts(&scene.world), 1, "{}", lock(&scene.world.trace).join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_can_renew_a_whole_batch_of_claims() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let mut failures = 0;
    scene.world.trouble(move |operation| match operation {
        "sns:PublishBatch" => {
            failures += 1;
            (failures < 12).then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
        }
        "dynamodb:UpdateItem" => Some(Trouble::Slow(Duration::from_secs(2))),
        _ => None,
    });
    scene.deliver(1, &(0..15).collect::<Vec<_>>());
    scene.until("an empty queue", 600, drained).await;
    assert_eq!(alerts(&scene.world), 10);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_a_minute_however_many_calls_fail() {
    for operation in ["s3:GetObject", "dynamodb:PutItem", "sns:PublishBatch"] {
        let (lines, _logging) = logged();
        let scene = Scene::start_with(|config| config.pipeline.concurrency = 40);
        scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
        for number in 0..40 {
            scene.deliver(number, &[number * 30 + 1, number * 30 + 4, number * 30 + 7]);
        }
        scene.world.trouble(move |called| {
            (called == operation).then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
        });
        sleep(Duration::from_secs(HOUR)).await;
        let told = count(&lines, "WARN");
        assert!((30..=61).contains(&told), "{operation}: {told} lines in an hour");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_fails_now_and_then_is_told_once_a_minute() {
    let (lines, _logging) = logged();
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let mut calls = 0;
    scene.world.trouble(move |called| {
        calls += u32::from(called == "dynamodb:PutItem");
        (called == "dynamodb:PutItem" && calls % 2 == 1)
            .then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
    });
    for number in 0..60 {
        scene.deliver(number, &[number * 3 + 1]);
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(alerts(&scene.world), 60);
    let (told, over) = (count(&lines, "WARN"), count(&lines, "works again"));
    assert!((2..=6).contains(&told) && (2..=6).contains(&over), "{told} and {over} lines in five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_never_ends_is_no_sign_of_life() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    sleep(Duration::from_secs(HOUR)).await;
    let moved = || scene.process.metrics.poll_last_timestamp.get();
    let before = moved();
    assert!(before > 0.0 && scene.process.health.live().ok, "a quiet queue");
    scene.world.trouble(|operation| (operation == "sqs:ReceiveMessage").then_some(Trouble::Hang));
    sleep(Duration::from_secs(60)).await;
    let hung = moved();
    assert!(hung > before);
    sleep(Duration::from_secs(120)).await;
    assert!(!scene.process.health.live().ok, "a receive takes as long as it waits, and a call's time");
    assert!((moved() - hung).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_objects_own_fault_although_others_were_still_being_read_when_it_began() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let mut opened = 0;
    scene.world.trouble(move |operation| {
        opened += u32::from(operation == "s3:GetObject");
        // The first object was opened before, and is read to its end after another failed.
        (operation == "s3:HeadBucket" || operation == "s3:GetObject" && opened > 1)
            .then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
    });
    for number in 0..3 {
        scene.deliver(number, &[number * 3 + 1]);
    }
    sleep(Duration::from_secs(HOUR)).await;
    assert_eq!((alerts(&scene.world), scene.receive_counts().len()), (1, 2));
    scene.heals();
    scene.until("an empty queue", 120, drained).await;
    assert_eq!(scene.process.metrics.messages_received.get(), 3, "waiting costs no receive");
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_a_receive_gives_back_what_it_brings() {
    let Scene { world, process, rules: _rules } = Scene::start();
    sleep(Duration::from_secs(5)).await;
    let outage = Trouble::Fail(ErrorClass::Transient, Fault::Unavailable);
    let slow = Trouble::Slow(Duration::from_secs(9));
    world.trouble(move |operation| match operation {
        "sns:PublishBatch" => Some(outage.clone()),
        "sqs:ChangeMessageVisibility" => Some(slow.clone()),
        _ => None,
    });
    for event in [1, 2, 4] {
        world.send(through_eventbridge(event));
    }
    assert!(process.stop().await);
    let queue = lock(&world.queue);
    assert_eq!(queue.messages.iter().map(|it| it.receive_count).collect::<Vec<_>>(), [1, 1, 1]);
    let now = tokio::time::Instant::now();
    assert_eq!(queue.messages.iter().filter(|it| it.visible_at <= now).count(), 3, "one does not wait for another");
}

#[tokio::test(start_paused = true)]
async fn free_slots_receive_nothing_in_an_outage() {
    for operation in ["s3:GetObject", "sns:PublishBatch", "dynamodb:PutItem"] {
        let scene = Scene::start();
        scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
        scene.world.trouble(move |it| {
            (it == operation || operation.starts_with("s3:") && it == "s3:HeadBucket")
                .then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
        });
        scene.deliver(1, &[1]);
        scene.until("it is received", 60, |_| scene.receive_counts() == [1]).await;
        // The receive that was in flight may still bring one.
        sleep(Duration::from_secs(30)).await;
        for number in 2..6 {
            scene.deliver(number, &[number * 3 + 1]);
        }
        sleep(Duration::from_secs(HOUR)).await;
        let received: u32 = scene.receive_counts().iter().sum();
        assert!(received <= 2, "{operation}: {:?}", scene.receive_counts());
        scene.heals();
        scene.until("an empty queue", 120, drained).await;
        assert_eq!(alerts(&scene.world), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_lost_meanwhile_is_not_published() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let began = tokio::time::Instant::now();
    scene.world.trouble(move |operation| {
        let until = match operation {
            "sns:PublishBatch" => 50,
            "dynamodb:UpdateItem" => 45,
            _ => 0,
        };
        (began.elapsed() < Duration::from_secs(until))
            .then_some(Trouble::Fail(ErrorClass::Transient, Fault::Unavailable))
    });
    // The other message takes the claim over while the first cannot renew it.
    scene.world.send(through_eventbridge(1));
    scene.world.send(through_eventbridge(1));
    scene.until("an empty queue", 300, drained).await;
    assert_eq!(alerts(&scene.world), 1, "{}", lock(&scene.world.trace).join("\n"));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_keeps_changing_is_not_read_without_pause() {
    let scene = Scene::start();
    scene.deliver(1, &[1]);
    for object in lock(&scene.world.objects).values_mut() {
        object.breaks = Some(100);
    }
    let opens = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&opens);
    scene.world.trouble(move |operation| {
        let opening = operation == "s3:GetObject";
        let every_other = opening && counting.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        every_other.then_some(Trouble::Fail(ErrorClass::Transient, Fault::Changed))
    });
    sleep(Duration::from_secs(HOUR)).await;
    assert!(opens.load(Ordering::Relaxed) < 600, "{opens:?} requests in an hour");
    assert_eq!(scene.receive_counts(), [1], "alone, it waits");
}

fn ids(rules: &[&str]) -> BTreeSet<String> {
    rules.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_only_rules_in_shadow_match_is_stored_and_counted_and_never_published() {
    let scene = Scene::on_trial(None);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(&["sns:PublishBatch"], ErrorClass::Config, Fault::Denied { action: "sns:Publish" });
    scene.world.send(through_eventbridge(3));
    scene.until("an empty queue", 60, drained).await;
    let rules = ids(&["snapshots-on-trial"]);
    let stored = ItemState { rules: rules.clone(), settled: rules, ..ItemState::default() };
    assert_eq!(scene.state(3), stored);
    // A copy changes nothing.
    scene.deliver(1, &[0, 3]);
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(scene.state(3), stored);
    assert_eq!((alerts(&scene.world), lock(&scene.world.table).len()), (0, 1));
    let (metrics, queue) = (&scene.process.metrics, lock(&scene.world.queue));
    assert_eq!((queue.deleted.len(), queue.dead.len()), (2, 0));
    assert_eq!(metrics.matches.with_label_values(&["snapshots-on-trial", "LOW"]).get(), 2);
    assert_eq!(metrics.duplicates_suppressed.get(), 0, "no alert covers it");
    assert_eq!(Severity::ALL.map(|it| metrics.alerts_published.with_label_values(&[it.as_str()]).get()), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn what_an_exception_withholds_is_counted_and_neither_stored_nor_alerted() {
    let scene = Scene::start();
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    let unless =
        |reason: &str, until: &str| json!({ "eventName": "CreateAccessKey", "reason": reason, "until": until });
    let rules = json!([{
        "id": "key", "description": "A key was created", "severity": "HIGH", "eventName": "CreateAccessKey",
        // The events of this simulation are of 2026.
        "unless": [unless("ended before they happened", "2020-01-01"), unless("holds", "2099-12-31")],
    }]);
    std::fs::write(scene.rules.path(), rules.to_string()).unwrap();
    scene.process.reload();
    let key = (0..8).find(|event| record(*event)["eventName"] == "CreateAccessKey").unwrap();
    scene.deliver(1, &[key]);
    scene.world.send(through_eventbridge(key));
    scene.until("an empty queue", 60, drained).await;
    assert_eq!((alerts(&scene.world), lock(&scene.world.table).len()), (0, 0));
    let suppressed = |exception: &str| scene.process.metrics.suppressed.with_label_values(&["key", exception]).get();
    assert_eq!((suppressed("0"), suppressed("1")), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_only_recorded_waits_for_the_store_like_everything_else() {
    let scene = Scene::on_trial(None);
    scene.until("ready", 60, |_| scene.process.health.ready().ok).await;
    scene.fails(&["dynamodb:PutItem"], ErrorClass::Transient, Fault::Unavailable);
    scene.world.send(through_eventbridge(3));
    sleep(Duration::from_secs(HOUR)).await;
    assert_eq!(scene.receive_counts(), [1], "not deleted before it is stored");
    scene.heals();
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(scene.state(3).settled, ids(&["snapshots-on-trial"]));
}

#[tokio::test(start_paused = true)]
async fn an_alert_tells_only_the_rules_that_alert_and_is_as_grave_as_these() {
    let scene = Scene::on_trial(None);
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    scene.world.trouble(move |operation| {
        counted.fetch_add(u32::from(operation == "dynamodb:PutItem"), Ordering::Relaxed);
        None
    });
    scene.world.send(through_eventbridge(2));
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the rule in shadow was settled with the claim");
    let both = ids(&["access-key", "key-on-trial"]);
    let state = scene.state(2);
    assert_eq!((&state.rules, &state.settled), (&both, &both));
    assert_eq!(scene.told(), ["access-key"]);
    let topic = lock(&scene.world.topic);
    let (alert, document) = (&topic[0].alert, &topic[0].document);
    assert_eq!(document["severity"], "MEDIUM", "the rule in shadow is CRITICAL");
    assert!(alert.subject.starts_with("[MEDIUM] "), "{}", alert.subject);
    assert!(!alert.message.contains("key-on-trial") && !alert.message.contains("CRITICAL"), "{}", alert.message);
    assert!(alert.attributes.contains(&("severity", AttributeValue::String("MEDIUM".to_owned()))));
    assert!(alert.attributes.contains(&("rule_ids", AttributeValue::StringArray(vec!["access-key".to_owned()]))));
    assert_eq!(state.claim.unwrap().alert.severity, Severity::Medium);
    let published = &scene.process.metrics.alerts_published;
    assert_eq!(Severity::ALL.map(|it| published.with_label_values(&[it.as_str()]).get()), [0, 1, 0, 0]);
    let table = lock(&scene.world.table);
    assert_eq!(table.values().next().unwrap().item.severity(), Severity::Critical, "of all rules that matched");
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_leaves_shadow_alerts_for_new_events_and_not_for_old_ones() {
    let scene = Scene::on_trial(Some(Mode::Shadow));
    scene.world.send(through_eventbridge(2));
    scene.until("an empty queue", 60, drained).await;
    scene.reload(Some(Mode::Alert));
    scene.deliver(1, &[2, 5]);
    scene.until("an empty queue", 60, drained).await;
    assert_eq!(scene.told(), ["access-key", "any-key access-key"]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_in_shadow_that_was_added_later_is_recorded_on_a_replay() {
    let scene = Scene::on_trial(None);
    scene.world.send(through_eventbridge(2));
    scene.until("an empty queue", 60, drained).await;
    scene.reload(Some(Mode::Shadow));
    scene.world.send(through_eventbridge(2));
    scene.until("an empty queue", 60, drained).await;
    let state = scene.state(2);
    assert_eq!(state.rules, ids(&["access-key", "any-key", "key-on-trial"]));
    assert_eq!(state.settled, state.rules);
    assert_eq!(scene.told(), ["access-key"]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_a_dead_process_claimed_is_told_although_its_rule_is_in_shadow_by_now() {
    let mut scene = Scene::on_trial(Some(Mode::Alert));
    scene.dies_in("sns:PublishBatch");
    scene.world.send(through_eventbridge(2));
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    scene.revive(Some(Mode::Shadow));
    scene.until("an empty queue", 300, drained).await;
    assert_eq!(scene.told(), ["any-key access-key"]);
    let state = scene.state(2);
    assert_eq!(state.settled, state.rules);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_a_crash_left_unclaimed_is_settled_without_an_alert_once_it_is_in_shadow() {
    let mut scene = Scene::on_trial(None);
    scene.dies_in("sns:PublishBatch");
    scene.world.send(through_eventbridge(2));
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    // The alert of the dead is taken over; whoever does so dies with a rule more that nobody claimed.
    scene.revive(Some(Mode::Alert));
    let mut marked = false;
    scene.world.trouble(move |called| {
        let dies = marked && called == "dynamodb:PutItem";
        marked |= called == "dynamodb:UpdateItem#mark";
        dies.then_some(Trouble::DieBefore)
    });
    scene.until("another", 300, |_| !scene.process.lives()).await;
    let state = scene.state(2);
    assert!(state.rules.contains("any-key") && !state.settled.contains("any-key"), "{state:?}");
    scene.heals();
    scene.revive(Some(Mode::Shadow));
    scene.until("an empty queue", 300, drained).await;
    assert_eq!(scene.told(), ["access-key"]);
    let state = scene.state(2);
    assert_eq!(state.settled, state.rules);
}
