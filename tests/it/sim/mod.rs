//! Simulation: lists of operations over the fakes on a paused clock, and the promises checked after each list.
//!
//! A world holds a queue, objects, a table and a topic; processes are started, crashed and stopped in it. Whatever
//! happened, once the world is healthy again and the queue is drained, every matching event has exactly one item, each
//! of its rules was alerted or, where it is on trial, only recorded, no message was deleted before, and an alert repeats
//! only where a process died or an answer was lost, and then with the same id. The same list and seed give the same
//! trace.

pub mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::time::{Instant, sleep};
use trailhound::ports::{ErrorClass, Fault};
use trailhound::rules::Mode;

use self::process::{CONCURRENCY, Process};
use crate::fakes::{Trouble, World, lock};

pub const BUCKET: &str = "trail-logs";

/// What happens to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A log object with these events (`first..first + count`) arrives, and its notification.
    Deliver {
        first: u32,
        count: u32,
    },
    /// The notification of the object that was delivered last arrives once more.
    Again,
    /// The second trail delivers the same events in another object, in the opposite order.
    SecondTrail {
        first: u32,
        count: u32,
    },
    /// One event arrives through EventBridge, in the message itself.
    EventBridge {
        event: u32,
    },
    /// A message that nobody can read.
    Poison,
    /// The process dies where it stands, and another is started.
    Crash,
    /// The process is told to stop, ends, and another is started.
    Stop,
    /// A second process joins.
    Join,
    /// The next `count` calls of an operation fail for a passing reason.
    Fail {
        operation: usize,
        count: u32,
    },
    /// The next call of an operation does its work and its answer is lost.
    LoseAnswer {
        operation: usize,
    },
    /// The next call of an operation hangs until it is given up; `done` says whether it did its work.
    Hang {
        operation: usize,
        done: bool,
    },
    /// Whoever makes the next but `after` call of an operation dies in it; `done` says whether it did its work.
    DieIn {
        operation: usize,
        after: u32,
        done: bool,
    },
    /// Every call of a service fails for so long, or hangs.
    Outage {
        service: usize,
        seconds: u64,
        hangs: bool,
    },
    /// The next body breaks off after so many bytes.
    Break {
        after: u64,
    },
    /// The rules are reloaded, without the rule `any-key` or with it in this mode: by every process, or only by the
    /// oldest.
    Reload {
        any_key: Option<Mode>,
        all: bool,
    },
    Wait {
        milliseconds: u64,
    },
}

/// What one process may hold: its slots, and what waits for a batched delete; two processes may run at once.
const IN_FLIGHT: usize = CONCURRENCY + 10;

/// How many random lists every `cargo test` tries.
const SEEDS: u64 = 150;

/// The operations that can fail or lose their answer.
const OPERATIONS: [&str; 8] = [
    "s3:GetObject",
    "sns:PublishBatch",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem#mark",
    "sqs:DeleteMessageBatch",
    "sqs:ChangeMessageVisibility",
    "dynamodb:UpdateItem",
    "sqs:ReceiveMessage",
];

/// What fails or hangs together.
const SERVICES: [&str; 4] = ["s3:", "sns:", "dynamodb:", "sqs:"];
const STORE: usize = 2;
const QUEUE: usize = 3;

#[test]
fn ten_operations_keep_the_promises() {
    let list = [
        Op::Deliver { first: 0, count: 12 },
        Op::Fail { operation: 1, count: 2 },
        Op::SecondTrail { first: 0, count: 12 },
        Op::Wait { milliseconds: 60 },
        Op::Crash,
        Op::EventBridge { event: 3 },
        Op::LoseAnswer { operation: 1 },
        Op::Again,
        Op::Poison,
        Op::Stop,
    ];
    check(1, &list);
}

#[test]
fn random_lists_keep_the_promises() {
    let mut broken = Vec::new();
    for seed in seeds() {
        let outcome = simulate(seed, &random_list(seed));
        broken.extend(outcome.broken.first().map(|first| format!("seed {seed}: {first}")));
    }
    let first = broken.first().and_then(|line| line.strip_prefix("seed ")?.split_once(':')?.0.parse().ok());
    if let Some(seed) = first {
        check(seed, &random_list(seed));
        panic!("broken alone, whole when repeated:\n{}", broken.join("\n"));
    }
}

/// A claim is taken over with exactly its alert; what else the event matches is alerted by whoever took it over.
#[test]
fn rules_beyond_a_claim_that_was_taken_over_are_alerted_too() {
    let list = [
        Op::DieIn { operation: 1, after: 0, done: false },
        Op::EventBridge { event: 2 },
        Op::Wait { milliseconds: 5_000 },
        Op::Reload { any_key: Some(Mode::Alert), all: true },
    ];
    check(1, &list);
}

/// The dead process claimed an alert that tells a rule which is in shadow by now, beside one that always was.
#[test]
fn a_claim_is_taken_over_although_its_rule_went_into_shadow() {
    let list = [
        Op::Reload { any_key: Some(Mode::Alert), all: true },
        Op::DieIn { operation: 1, after: 0, done: false },
        Op::EventBridge { event: 2 },
        Op::Wait { milliseconds: 5_000 },
        Op::Reload { any_key: Some(Mode::Shadow), all: true },
        Op::EventBridge { event: 3 },
    ];
    check(1, &list);
}

/// Two processes with the same events, one of which has the rule in shadow.
#[test]
fn processes_that_differ_about_shadow_agree_on_each_event() {
    let list = [
        Op::Reload { any_key: Some(Mode::Shadow), all: true },
        Op::Join,
        Op::Reload { any_key: Some(Mode::Alert), all: false },
        Op::Deliver { first: 0, count: 30 },
        Op::SecondTrail { first: 0, count: 30 },
        Op::Wait { milliseconds: 40_000 },
        Op::Again,
    ];
    for seed in 0..20 {
        check(seed, &list);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [7, 21, 93] {
        let list = random_list(seed);
        assert_eq!(simulate(seed, &list).trace, simulate(seed, &list).trace, "seed {seed}: {list:?}");
    }
}

/// `SIM_SEEDS=1000..20000` for a long run.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SIM_SEEDS").unwrap_or_default();
    let bounds = given.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or(0..SEEDS)
}

fn random_list(seed: u64) -> Vec<Op> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut list = vec![Op::Deliver { first: 0, count: 1 + random.u32(..40) }];
    // In every other world nothing happens that excuses a repeated alert or a receive more.
    let calm = random.bool();
    for _ in 0..9 {
        let first = random.u32(..20);
        let count = 1 + random.u32(..40);
        let operation = random.usize(..OPERATIONS.len());
        let op = match random.u32(..20) {
            0 | 1 => Op::Deliver { first, count },
            2 => Op::Again,
            3 | 4 => Op::SecondTrail { first, count },
            5 => Op::EventBridge { event: first },
            6 => Op::Poison,
            7 => Op::Crash,
            8 => Op::Stop,
            9 => Op::Join,
            10 => Op::Fail { operation, count: 1 + random.u32(..6) },
            11 => Op::LoseAnswer { operation },
            12 => Op::Break { after: random.u64(..3000) },
            13 => Op::Hang { operation, done: random.bool() },
            14 | 15 => Op::DieIn { operation, after: random.u32(..4), done: random.bool() },
            16 => Op::Outage {
                service: random.usize(..SERVICES.len()),
                seconds: 1 + random.u64(..300),
                hangs: random.bool(),
            },
            17 | 18 => {
                let modes = [None, Some(Mode::Alert), Some(Mode::Shadow)];
                Op::Reload { any_key: modes[random.usize(..modes.len())], all: random.bool() }
            }
            _ if random.bool() => Op::Wait { milliseconds: random.u64(..2_000) },
            _ => Op::Wait { milliseconds: random.u64(..60_000) },
        };
        let excuse = match op {
            Op::Crash | Op::Stop | Op::LoseAnswer { .. } | Op::Hang { done: true, .. } | Op::DieIn { .. } => true,
            Op::Fail { operation, .. } | Op::Hang { operation, .. } => OPERATIONS[operation].starts_with("sqs:"),
            Op::Outage { service, .. } => service == STORE || service == QUEUE,
            _ => false,
        };
        list.push(if calm && excuse { Op::Wait { milliseconds: 20_000 } } else { op });
    }
    list
}

fn check(seed: u64, list: &[Op]) {
    let outcome = simulate(seed, list);
    assert!(
        outcome.broken.is_empty(),
        "seed {seed} breaks promises:\n{}\noperations: {list:#?}\ntrace:\n{}",
        outcome.broken.join("\n"),
        outcome.trace.join("\n")
    );
}

struct Outcome {
    broken: Vec<String>,
    trace: Vec<String>,
}

fn simulate(seed: u64, list: &[Op]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(Simulation::new(seed).run(list))
}

/// The troubles to come, by operation.
#[derive(Default)]
struct Troubles {
    to_come: BTreeMap<&'static str, Vec<Option<Trouble>>>,
    /// Which services are out, until when, and whether they hang.
    outages: Vec<(&'static str, Instant, bool)>,
}

impl Troubles {
    fn next(&mut self, operation: &'static str) -> Option<Trouble> {
        let out = self.outages.iter().find(|(it, until, _)| operation.starts_with(it) && Instant::now() < *until);
        if let Some((_, _, hangs)) = out {
            // Receiving is never given up by its caller: an adapter ends it.
            let hangs = *hangs && operation != "sqs:ReceiveMessage";
            return Some(if hangs { Trouble::Hang } else { failure() });
        }
        let waiting = self.to_come.get_mut(operation)?;
        if waiting.is_empty() { None } else { waiting.remove(0) }
    }
}

fn failure() -> Trouble {
    Trouble::Fail(ErrorClass::Transient, Fault::Unavailable)
}

struct Simulation {
    world: Arc<World>,
    processes: Vec<Process>,
    rules: tempfile::NamedTempFile,
    random: fastrand::Rng,
    troubles: Arc<Mutex<Troubles>>,
    violations: Arc<Mutex<Vec<String>>>,
    /// Which events each message brings.
    messages: Arc<Mutex<BTreeMap<String, Vec<u32>>>>,
    last: Option<(String, Vec<u32>)>,
    poison: usize,
    objects: u32,
    /// The modes in which `any-key` was in force.
    any_key: Vec<Mode>,
    /// Deaths, lost answers and outages of the store: each may repeat alerts.
    excuses: usize,
    /// Deaths, stops and troubles of the queue: each may cost a receive.
    costs: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let world = World::new(seed, Duration::from_secs(30), 10);
        let mut rules = tempfile::NamedTempFile::new().unwrap();
        rules.write_all(rules_on_trial(None).as_bytes()).unwrap();
        let troubles = Arc::new(Mutex::new(Troubles::default()));
        let coming = Arc::clone(&troubles);
        world.trouble(move |operation| lock(&coming).next(operation));
        let violations = Arc::new(Mutex::new(Vec::new()));
        let messages: Arc<Mutex<BTreeMap<String, Vec<u32>>>> = Arc::default();
        let (broken, known) = (Arc::clone(&violations), Arc::clone(&messages));
        *lock(&world.on_delete) = Box::new(move |world, message| {
            let Some(events) = lock(&known).get(message).cloned() else {
                lock(&broken).push(format!("{message} was deleted although nobody can read it"));
                return;
            };
            let table = lock(&world.table);
            for event in events {
                // The rules that are always in force; one that a reload added may be unsettled, for another message.
                for rule in alerting_rule(event).into_iter().chain(rule_on_trial(event)) {
                    let settled = table
                        .iter()
                        .any(|(key, row)| key.event_id == event_id(event) && row.state.settled.contains(rule));
                    if !settled {
                        let id = event_id(event);
                        lock(&broken).push(format!("{message} was deleted before {rule} was settled for {id}"));
                    }
                }
            }
        });
        Self {
            world,
            processes: Vec::new(),
            rules,
            random: fastrand::Rng::with_seed(seed),
            troubles,
            violations,
            messages,
            last: None,
            poison: 0,
            objects: 0,
            any_key: Vec::new(),
            excuses: 0,
            costs: 0,
        }
    }

    async fn run(mut self, list: &[Op]) -> Outcome {
        self.start();
        for op in list {
            self.world.note(format!("{op:?}"));
            self.apply(*op).await;
            self.replace_the_dead();
            sleep(Duration::from_millis(self.random.u64(..200))).await;
        }
        self.drain().await;
        let mut broken = std::mem::take(&mut *lock(&self.violations));
        self.check(&mut broken);
        Outcome { broken, trace: lock(&self.world.trace).clone() }
    }

    fn start(&mut self) {
        let seed = self.random.u64(..);
        self.processes.push(Process::start(&self.world, self.rules.path(), seed));
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Deliver { first, count } => {
                let events: Vec<u32> = (first..first + count).collect();
                self.deliver("trail-a", events);
            }
            Op::SecondTrail { first, count } => {
                let events: Vec<u32> = (first..first + count).rev().collect();
                self.deliver("trail-b", events);
            }
            Op::Again => {
                if let Some((body, events)) = self.last.clone() {
                    self.send(body, events);
                }
            }
            Op::EventBridge { event } => self.send(through_eventbridge(event), vec![event]),
            Op::Poison => {
                self.world.send("{\"neither\": \"fish nor fowl\"}");
                self.poison += 1;
            }
            Op::Crash => {
                self.excuses += 1;
                self.costs += 1;
                self.processes.remove(0);
                self.replace_the_dead();
            }
            Op::Stop => {
                self.costs += 1;
                self.stop().await;
                self.replace_the_dead();
            }
            Op::Join => {
                if self.processes.len() < 2 {
                    self.start();
                }
            }
            Op::Fail { operation, count } => {
                for _ in 0..count {
                    self.trouble(operation, failure());
                }
            }
            Op::LoseAnswer { operation } => {
                self.excuses += 1;
                self.trouble(operation, Trouble::LoseAnswer);
            }
            Op::Hang { operation, done } => {
                // Receiving is never given up by its caller: an adapter ends it.
                let (receiving, lost) = (OPERATIONS[operation] == "sqs:ReceiveMessage", usize::from(done));
                self.excuses += lost;
                self.trouble(
                    operation,
                    match (receiving, done) {
                        (true, true) => Trouble::LoseAnswer,
                        (true, false) => failure(),
                        (false, true) => Trouble::HangAfter,
                        (false, false) => Trouble::Hang,
                    },
                );
            }
            Op::DieIn { operation, after, done } => {
                self.excuses += 1;
                self.costs += 1;
                let mut troubles = lock(&self.troubles);
                let waiting = troubles.to_come.entry(OPERATIONS[operation]).or_default();
                waiting.extend((0..after).map(|_| None));
                waiting.push(Some(if done { Trouble::DieAfter } else { Trouble::DieBefore }));
            }
            Op::Outage { service, seconds, hangs } => {
                self.excuses += usize::from(service == STORE);
                self.costs += usize::from(service == QUEUE);
                let until = Instant::now() + Duration::from_secs(seconds);
                lock(&self.troubles).outages.push((SERVICES[service], until, hangs));
            }
            Op::Break { after } => self.trouble(0, Trouble::Break(after)),
            Op::Reload { any_key, all } => {
                self.any_key.extend(any_key);
                std::fs::write(self.rules.path(), rules_on_trial(any_key)).unwrap();
                let count = if all { self.processes.len() } else { 1 };
                for process in self.processes.iter().take(count) {
                    process.reload();
                }
            }
            Op::Wait { milliseconds } => sleep(Duration::from_millis(milliseconds)).await,
        }
    }

    fn trouble(&mut self, operation: usize, trouble: Trouble) {
        self.costs += usize::from(OPERATIONS[operation].starts_with(SERVICES[QUEUE]));
        lock(&self.troubles).to_come.entry(OPERATIONS[operation]).or_default().push(Some(trouble));
    }

    fn replace_the_dead(&mut self) {
        self.processes.retain(Process::lives);
        if self.processes.is_empty() {
            self.start();
        }
    }

    /// Stops the oldest process. Where it was alone and the queue answers, nothing is left in its hands.
    async fn stop(&mut self) {
        let stopping = self.processes.remove(0);
        let healthy = self.processes.is_empty() && self.costs == 1;
        if !stopping.stop().await {
            lock(&self.violations).push("a stopping process did not end within its deadline".to_owned());
        }
        let now = Instant::now();
        for message in lock(&self.world.queue).messages.iter().filter(|it| healthy && it.visible_at > now) {
            // What cannot be read waits for its next receive.
            if lock(&self.messages).contains_key(&message.id) {
                lock(&self.violations).push(format!("{} was not given back at the stop", message.id));
            }
        }
    }

    fn deliver(&mut self, trail: &str, events: Vec<u32>) {
        self.objects += 1;
        let key = log_key(trail, self.objects);
        self.world.put_object(BUCKET, &key, log_object(&events));
        let body = notification(&key);
        self.last = Some((body.clone(), events.clone()));
        self.send(body, events);
    }

    fn send(&self, body: String, events: Vec<u32>) {
        let id = self.world.send(body);
        lock(&self.messages).insert(id, events);
    }

    /// Heals the world and waits until nothing is left to do.
    async fn drain(&mut self) {
        *lock(&self.troubles) = Troubles::default();
        for _ in 0..7200 {
            if lock(&self.world.queue).messages.is_empty() {
                break;
            }
            // A death that waited for its call to end.
            self.replace_the_dead();
            sleep(Duration::from_secs(1)).await;
        }
        for process in std::mem::take(&mut self.processes) {
            if !process.stop().await {
                lock(&self.violations).push("an idle process did not stop within its deadline".to_owned());
            }
        }
    }

    fn check(&self, broken: &mut Vec<String>) {
        let queue = lock(&self.world.queue);
        for left in &queue.messages {
            broken.push(format!("{} is still on the queue", left.id));
        }
        if queue.dead.len() != self.poison {
            broken.push(format!("{} messages are dead, {} cannot be read", queue.dead.len(), self.poison));
        }
        let table = lock(&self.world.table);
        let topic = lock(&self.world.topic);
        let events: BTreeSet<u32> = lock(&self.messages).values().flatten().copied().collect();
        for event in events {
            let id = event_id(event);
            let rows: Vec<_> = table.iter().filter(|(key, _)| key.event_id == id).map(|(_, row)| row).collect();
            let always: Vec<_> = alerting_rule(event).into_iter().chain(rule_on_trial(event)).collect();
            if rows.len() != usize::from(!always.is_empty()) {
                broken.push(format!("{id} has {} items", rows.len()));
                continue;
            }
            let Some(row) = rows.first() else { continue };
            for rule in always.iter().filter(|rule| !row.state.rules.contains(**rule)) {
                broken.push(format!("{id}: {rule} was not recorded"));
            }
            if alerting_rule(event).is_none() && row.state.claim.is_some() {
                broken.push(format!("{id} has nothing to alert, and a claim: {:?}", row.state));
            }
            if !row.state.rules.is_subset(&row.state.settled) {
                broken.push(format!("{id} has unsettled rules: {:?}", row.state));
            }
            let mut told: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for alert in topic.iter().filter(|it| it.document["event_id"] == id.as_str()) {
                for rule in alert.document["rules"].as_array().unwrap() {
                    told.entry(rule["id"].as_str().unwrap()).or_default().insert(&alert.alert.alert_id);
                }
            }
            for rule in &row.state.rules {
                let (may_alert, may_not) = match rule.as_str() {
                    "any-key" => (self.any_key.contains(&Mode::Alert), self.any_key.contains(&Mode::Shadow)),
                    rule => (Some(rule) != rule_on_trial(event), Some(rule) == rule_on_trial(event)),
                };
                match told.get(rule.as_str()).map_or(0, BTreeSet::len) {
                    0 if may_not => {}
                    0 => broken.push(format!("{id}: {rule} was never alerted")),
                    _ if !may_alert => broken.push(format!("{id}: {rule} was alerted, although it is in shadow")),
                    1 => {}
                    ids => broken.push(format!("{id}: {rule} was alerted under {ids} ids")),
                }
            }
        }
        for alert in topic.iter() {
            let rules = alert.document["rules"].as_array().unwrap();
            let told: Vec<_> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
            // CRITICAL are `any-key` and a rule on trial.
            let severity = match told.as_slice() {
                rules if rules.contains(&"any-key") => "CRITICAL",
                ["trail-stopped"] => "HIGH",
                ["access-key"] => "MEDIUM",
                _ => "of other rules",
            };
            if alert.document["severity"] != severity {
                broken.push(format!("an alert that tells {told:?} has the severity {}", alert.document["severity"]));
            }
        }
        let distinct: BTreeSet<_> = topic.iter().map(|it| &it.alert.alert_id).collect();
        if topic.len() > distinct.len() && self.excuses == 0 {
            broken.push(format!("{} alerts repeat without a death or a lost answer", topic.len() - distinct.len()));
        }
        if queue.most_receives > 1 && self.costs == 0 {
            broken.push(format!("a message was received {} times, although its process lived", queue.most_receives));
        }
        if queue.most_in_flight > IN_FLIGHT * 2 {
            broken.push(format!("{} messages were in flight at once", queue.most_in_flight));
        }
    }
}

pub fn through_eventbridge(event: u32) -> String {
    json!({
        "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam", "account": "111122223333",
        "time": "2026-05-01T12:00:00Z", "region": "us-east-1", "resources": [], "detail": record(event),
    })
    .to_string()
}

pub fn log_key(trail: &str, number: u32) -> String {
    format!(
        "{trail}/AWSLogs/111122223333/CloudTrail/us-east-1/2026/05/01/\
         111122223333_CloudTrail_us-east-1_20260501T1200Z_{number:016}.json.gz"
    )
}

/// A log object with these events.
pub fn log_object(events: &[u32]) -> Vec<u8> {
    let records: Vec<_> = events.iter().map(|it| record(*it)).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(json!({ "Records": records }).to_string().as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// The S3 event that tells of an object.
pub fn notification(key: &str) -> String {
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": "2026-05-01T12:05:00.000Z", "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROAEXAMPLETRAIL0001:regionalDeliverySession"},
        "requestParameters": {"sourceIPAddress": "192.0.2.44"},
        "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLE123/abcdefghijklambda"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "logs",
               "bucket": {"name": BUCKET, "ownerIdentity": {"principalId": "A1EXAMPLE"},
                          "arn": format!("arn:aws:s3:::{BUCKET}")},
               "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                          "sequencer": "0055AED6DCD90281E5"}},
    }]})
    .to_string()
}

pub fn event_id(event: u32) -> String {
    format!("00000000-0000-4000-8000-{event:012}")
}

/// The rule that alerts for an event whatever was reloaded: for two of three.
fn alerting_rule(event: u32) -> Option<&'static str> {
    [None, Some("trail-stopped"), Some("access-key")][event as usize % 3]
}

/// The rule in shadow that an event matches whatever was reloaded: beside one that alerts, or alone.
fn rule_on_trial(event: u32) -> Option<&'static str> {
    match event % 6 {
        2 | 5 => Some("key-on-trial"),
        3 => Some("snapshots-on-trial"),
        _ => None,
    }
}

pub fn record(event: u32) -> serde_json::Value {
    let (source, name) = match event % 6 {
        0 => ("ec2.amazonaws.com", "DescribeInstances"),
        3 => ("ec2.amazonaws.com", "DescribeSnapshots"),
        1 | 4 => ("cloudtrail.amazonaws.com", "StopLogging"),
        _ => ("iam.amazonaws.com", "CreateAccessKey"),
    };
    json!({
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "principalId": "AIDAEXAMPLEUSERID0001",
            "arn": "arn:aws:iam::111122223333:user/alice", "accountId": "111122223333", "userName": "alice"},
        "eventTime": format!("2026-05-01T12:{:02}:00Z", event % 60),
        "eventSource": source, "eventName": name, "awsRegion": "us-east-1", "sourceIPAddress": "203.0.113.7",
        "userAgent": "aws-cli/2.17.9", "requestParameters": null, "responseElements": null,
        "requestID": format!("10000000-0000-4000-8000-{event:012}"), "eventID": event_id(event), "readOnly": false,
        "eventType": "AwsApiCall", "managementEvent": true, "recipientAccountId": "111122223333",
        "eventCategory": "Management",
    })
}

pub fn rule_file(more: bool) -> String {
    rule_file_of(Vec::new(), more.then_some(Mode::Alert))
}

/// The same, with rules in shadow, and `any-key` in this mode.
pub fn rules_on_trial(any_key: Option<Mode>) -> String {
    let on_trial = vec![
        json!({"id": "key-on-trial", "description": "A key was created", "severity": "CRITICAL", "mode": "shadow",
               "eventName": "CreateAccessKey"}),
        json!({"id": "snapshots-on-trial", "description": "Snapshots were listed", "severity": "LOW", "mode": "shadow",
               "eventName": "DescribeSnapshots"}),
    ];
    rule_file_of(on_trial, any_key)
}

fn rule_file_of(more: Vec<serde_json::Value>, any_key: Option<Mode>) -> String {
    let mut rules = vec![
        json!({"id": "trail-stopped", "description": "A trail was stopped", "severity": "HIGH",
               "eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging"}),
        json!({"id": "access-key", "description": "An access key was created", "severity": "MEDIUM",
               "eventSource": "iam.amazonaws.com", "eventName": "CreateAccessKey"}),
    ];
    rules.extend(more);
    if let Some(mode) = any_key {
        rules.push(json!({"id": "any-key", "description": "Anything with keys", "severity": "CRITICAL", "mode": mode,
                          "eventName": "*AccessKey*"}));
    }
    json!({ "events": rules }).to_string()
}
