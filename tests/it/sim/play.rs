//! Plays a list of operations in a world, drains it, and has the ledger judge.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::macros::datetime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use trailhound::ports::{ErrorClass, Fault};

use super::fixtures::{
    BUCKET, Rules, event_id, log_key, log_object, notification, notification_of, through_eventbridge, through_sns,
};
use super::ledger::{Ledger, Parcel, VISIBILITY};
use super::op::{Call, Death, Failure, Op, Other, Service};
use super::process::{Process, config};
use crate::fakes::{Trouble, World, lock};

/// As many processes run at once.
const PROCESSES: usize = 3;
/// What a world that is healthy again needs for everything that can be read: time-outs, back-off and leases of half a
/// minute each, one after another.
const RECOVERY: Duration = Duration::from_secs(240);
/// What cannot be read has been received often enough by then; what was denied has come back.
const END: Duration = Duration::from_secs(100 * 3600);

pub struct Outcome {
    pub broken: Vec<String>,
    pub trace: Vec<String>,
}

/// Plays a list. A function of its arguments alone.
pub fn simulate(seed: u64, list: &[Op]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async { Simulation::new(seed).run(list).await })
}

/// The troubles to come.
#[derive(Default)]
struct Troubles {
    to_come: BTreeMap<&'static str, Vec<Option<Trouble>>>,
    outages: Vec<Outage>,
    calls: u64,
}

struct Outage {
    service: Service,
    until: Instant,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Fails(Failure),
    Hangs,
    Throttles,
}

impl Troubles {
    fn next(&mut self, operation: &'static str) -> Option<Trouble> {
        self.calls += 1;
        let now = Instant::now();
        let out = self.outages.iter().find(|it| operation.starts_with(it.service.prefix()) && now < it.until);
        match out.map(|it| it.kind) {
            Some(Kind::Fails(how)) => return Some(failure(how)),
            Some(Kind::Hangs) => return Some(Trouble::Hang),
            Some(Kind::Throttles) if !self.calls.is_multiple_of(4) => return Some(failure(Failure::Down)),
            Some(Kind::Throttles) | None => {}
        }
        let waiting = self.to_come.get_mut(operation)?;
        if waiting.is_empty() { None } else { waiting.remove(0) }
    }
}

fn failure(how: Failure) -> Trouble {
    match how {
        Failure::Down => Trouble::Fail(ErrorClass::Transient, Fault::Unavailable),
        Failure::Config => Trouble::Fail(ErrorClass::Config, Fault::Credentials),
        Failure::Key => Trouble::Fail(ErrorClass::Config, Fault::KmsDenied { action: "kms:Decrypt" }),
        Failure::Refused => Trouble::Fail(ErrorClass::Permanent, Fault::Invalid),
    }
}

struct Simulation {
    world: Arc<World>,
    ledger: Arc<Mutex<Ledger>>,
    /// The oldest first.
    processes: Vec<Process>,
    /// Processes that were told to stop.
    leaving: Vec<JoinHandle<()>>,
    rules: Rules,
    file: tempfile::NamedTempFile,
    random: fastrand::Rng,
    troubles: Arc<Mutex<Troubles>>,
    sent: Vec<(String, Parcel)>,
    objects: u32,
    /// Until when the bucket denies everything.
    denied: Option<Instant>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // With few receives a death too many shows on the dead-letter queue.
        let receives = [3, 5, 10][random.usize(..3)];
        let world = World::new(seed, VISIBILITY, receives);
        world.receives_end.store(true, Ordering::Relaxed);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(Rules::FIRST.text().as_bytes()).unwrap();
        let troubles = Arc::new(Mutex::new(Troubles::default()));
        let coming = Arc::clone(&troubles);
        world.trouble(move |operation| lock(&coming).next(operation));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let writing = Arc::clone(&ledger);
        *lock(&world.witness) = Box::new(move |world, process, seen| lock(&writing).saw(world, process, &seen));
        Self {
            world,
            ledger,
            processes: Vec::new(),
            leaving: Vec::new(),
            rules: Rules::FIRST,
            file,
            random,
            troubles,
            sent: Vec::new(),
            objects: 0,
            denied: None,
        }
    }

    async fn run(mut self, list: &[Op]) -> Outcome {
        self.start();
        for op in list {
            self.world.note(format!("{op:?}"));
            self.apply(*op).await;
            self.tend();
            sleep(Duration::from_millis(self.random.u64(..200))).await;
        }
        self.drain().await;
        let mut ledger = lock(&self.ledger);
        ledger.close(&self.world);
        Outcome { broken: std::mem::take(&mut ledger.broken), trace: lock(&self.world.trace).clone() }
    }

    /// A process whose clock is wrong by up to ten minutes.
    fn start(&mut self) {
        let seed = self.random.u64(..);
        let wrong = Duration::from_secs(self.random.u64(..1200));
        let now = datetime!(2026-05-01 12:00 UTC) + wrong + self.world.age();
        let mut config = config();
        config.queue.pollers = 1 + usize::from(seed.is_multiple_of(3));
        let process = Process::start_at(&self.world, self.file.path(), seed, config, now);
        lock(&self.ledger).started(&process, self.rules);
        self.processes.push(process);
    }

    /// What the world does by itself: the dead are replaced, and denials end.
    fn tend(&mut self) {
        self.processes.retain(Process::lives);
        if self.processes.is_empty() {
            self.start();
        }
        if self.denied.is_some_and(|until| Instant::now() >= until) {
            self.denied = None;
            lock(&self.world.denied).clear();
        }
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Deliver { first, count } => self.deliver("trail-a", (first..first + count).collect()),
            Op::SecondTrail { first, count } => self.deliver("trail-b", (first..first + count).rev().collect()),
            Op::Bundle { first, count, other } => self.bundle((first..first + count).collect(), other),
            Op::EventBridge { event } => self.through_eventbridge(event),
            Op::Burst { first, count } => (first..first + count).for_each(|event| self.through_eventbridge(event)),
            Op::Again { back } => {
                if let Some((body, parcel)) = self.sent.iter().rev().nth(back).cloned() {
                    self.send(body, parcel);
                }
            }
            Op::Poison => self.send("{\"neither\": \"fish nor fowl\"}".to_owned(), Parcel::default()),
            Op::Crash => {
                let process = self.processes.remove(0);
                self.world.kill(process.number);
            }
            Op::DieIn { call, after, how } => {
                let how = match how {
                    Death::Before => Trouble::DieBefore,
                    Death::After => Trouble::DieAfter,
                    Death::Soon(turns) => Trouble::DieSoon(turns),
                };
                let mut troubles = lock(&self.troubles);
                let waiting = troubles.to_come.entry(call.operation()).or_default();
                waiting.extend((0..after).map(|_| None));
                waiting.push(Some(how));
            }
            Op::Stop => self.stop(),
            Op::Join => {
                if self.processes.len() < PROCESSES {
                    self.start();
                }
            }
            Op::Fail { call, count, how } => (0..count).for_each(|_| self.trouble(call, failure(how))),
            Op::FailEntries { call, which } => self.trouble(call, Trouble::FailEntries(which)),
            Op::LoseAnswer { call } => self.trouble(call, Trouble::LoseAnswer),
            Op::Hang { call, count, done } => {
                let trouble = if done { Trouble::HangAfter } else { Trouble::Hang };
                (0..count).for_each(|_| self.trouble(call, trouble.clone()));
            }
            Op::Slow { call, milliseconds } => self.trouble(call, Trouble::Slow(Duration::from_millis(milliseconds))),
            Op::Outage { service, seconds, how } => self.out(service, seconds, Kind::Fails(how)),
            Op::Standstill { service, seconds } => self.out(service, seconds, Kind::Hangs),
            Op::Throttling { service, seconds } => self.out(service, seconds, Kind::Throttles),
            Op::Deny { seconds } => {
                self.denied = Some(Instant::now() + Duration::from_secs(seconds));
                lock(&self.world.denied).insert(BUCKET.to_owned());
            }
            Op::Break { after } => self.trouble(Call::Open, Trouble::Break(after)),
            Op::Stall { after } => self.trouble(Call::Open, Trouble::Stall(after)),
            Op::Cut { after } => self.trouble(Call::Open, Trouble::Cut(after)),
            Op::Replace { after } => self.trouble(Call::Open, Trouble::Replace(after)),
            Op::EndLeases { every } => {
                let receipts = self.world.end_leases(every);
                lock(&self.ledger).leases_ended(&receipts);
            }
            Op::Reload { any_key, any_stop, all } => {
                self.rules = Rules { any_key, any_stop };
                std::fs::write(self.file.path(), self.rules.text()).unwrap();
                let count = if all { self.processes.len() } else { 1 };
                for process in self.processes.iter().take(count) {
                    process.reload();
                    lock(&self.ledger).reloaded(process, self.rules);
                }
            }
            Op::ReloadNonsense => {
                std::fs::write(self.file.path(), "{\"events\": [{\"id\": ").unwrap();
                if !self.processes.iter().all(Process::refuses_to_reload) {
                    self.breaks("a file that holds no rules changed the rules in force");
                }
                std::fs::write(self.file.path(), self.rules.text()).unwrap();
            }
            Op::Refuse { call, event } => {
                lock(&self.world.refused).insert((call.operation(), event_id(event)));
            }
            Op::Wait { milliseconds } => sleep(Duration::from_millis(milliseconds)).await,
        }
    }

    fn trouble(&self, call: Call, trouble: Trouble) {
        lock(&self.troubles).to_come.entry(call.operation()).or_default().push(Some(trouble));
    }

    fn out(&self, service: Service, seconds: u64, kind: Kind) {
        let until = Instant::now() + Duration::from_secs(seconds);
        lock(&self.troubles).outages.push(Outage { service, until, kind });
    }

    fn breaks(&self, what: &str) {
        lock(&self.ledger).broken.push(what.to_owned());
    }

    /// Tells the oldest process to stop, and watches it do so while the world goes on.
    fn stop(&mut self) {
        let process = self.processes.remove(0);
        let (ledger, number) = (Arc::clone(&self.ledger), process.number);
        process.tell_to_stop();
        lock(&ledger).stopping(number);
        self.leaving.push(tokio::spawn(async move {
            let (ended, dead) = process.end_or_die().await;
            let mut ledger = lock(&ledger);
            if dead {
                return;
            }
            if !ended {
                ledger.broken.push(format!("process {number} was told to stop and did not end within its deadline"));
            }
            ledger.stopped(number);
        }));
    }

    fn deliver(&mut self, trail: &str, events: Vec<u32>) {
        let key = self.put(trail, log_object(&events));
        let body = notification(&key);
        // The bucket of the second trail tells a topic.
        let body = if trail == "trail-b" { through_sns(&body) } else { body };
        self.send(body, Parcel { events, keys: vec![key], readable: true });
    }

    fn bundle(&mut self, events: Vec<u32>, other: Other) {
        let whole = log_object(&events);
        let good = self.put("trail-a", whole.clone());
        let other_key = match other {
            Other::Copy => self.put("trail-b", log_object(&events.iter().rev().copied().collect::<Vec<_>>())),
            Other::Missing => log_key("trail-c", self.objects),
            Other::Damaged => self.put("trail-c", whole[..whole.len() / 2].to_vec()),
        };
        // What cannot be read comes first: it must not keep back what can.
        let body = notification_of(&[&other_key, &good]);
        let readable = matches!(other, Other::Copy);
        self.send(body, Parcel { events, keys: vec![other_key, good], readable });
    }

    fn put(&mut self, trail: &str, bytes: Vec<u8>) -> String {
        self.objects += 1;
        let key = log_key(trail, self.objects);
        self.world.put_object(BUCKET, &key, bytes);
        key
    }

    fn through_eventbridge(&mut self, event: u32) {
        self.send(through_eventbridge(event), Parcel { events: vec![event], keys: Vec::new(), readable: true });
    }

    fn send(&mut self, body: String, parcel: Parcel) {
        // Known before anybody can receive it.
        let id = self.world.send(body.clone());
        lock(&self.ledger).sent(id, parcel.clone());
        self.sent.push((body, parcel));
    }

    /// Heals the world and waits until nothing is left to do.
    async fn drain(&mut self) {
        self.world.note("the world heals");
        *lock(&self.troubles) = Troubles::default();
        lock(&self.world.denied).clear();
        let healed = Instant::now();
        while !lock(&self.world.queue).messages.is_empty() && healed.elapsed() < END {
            // A death that waited for its call to end.
            self.tend();
            sleep(Duration::from_secs(if healed.elapsed() < RECOVERY { 1 } else { 60 })).await;
            if healed.elapsed() >= RECOVERY && !lock(&self.ledger).all_read(&self.world) {
                self.breaks("what can be read is not settled four minutes after the world healed");
                break;
            }
        }
        for leaving in std::mem::take(&mut self.leaving) {
            leaving.await.unwrap();
        }
        // Checks find out by themselves that everything works again.
        for _ in 0..2 {
            // One died in the call that it was waiting in, perhaps.
            self.tend();
            sleep(Duration::from_secs(60)).await;
        }
        let denied = lock(&self.ledger).denied();
        for process in &self.processes {
            if process.metrics.messages_in_flight.get() != 0 {
                self.breaks("a process with nothing to do counts messages in flight");
            }
            if !denied && !process.health.ready().ok {
                self.breaks("a process is not ready in a healthy world");
            }
        }
        while !self.processes.is_empty() {
            self.stop();
        }
        for leaving in std::mem::take(&mut self.leaving) {
            leaving.await.unwrap();
        }
    }
}
