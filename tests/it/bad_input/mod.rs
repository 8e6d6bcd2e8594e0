//! Bad input costs only itself: a corpus of everything that a queue or a bucket may hold, each case through the whole
//! daemon, over the fakes on a paused clock, beside messages that are good. `docs/bad-input.md` has a row for each.

#[cfg(feature = "emulator")]
mod binary;
mod make;
mod messages;
mod objects;
mod records;

use std::collections::BTreeSet;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::sleep;
use trailhound::cloudtrail::Limits;
use trailhound::config::Config;

use crate::fakes::{World, lock};
use crate::sim::process::{Process, config};
use crate::sim::{BUCKET, event_id, log_key, log_object, notification};

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is deleted, since everything in it was delivered.
    Deleted,
    /// It is deleted, and counted with this reason as not for us.
    Acknowledged(&'static str),
    /// It is left for redrive with this reason.
    Left(&'static str),
    /// It is left for some reason, or it is deleted and nothing is missing: [`Case::check`] decides.
    LeftOrWhole,
}

enum Input {
    /// The body of a message.
    Message(String),
    /// A log object. A good message names it.
    Object(Bytes),
}

struct Case {
    name: &'static str,
    outcome: Outcome,
    /// What of it is delivered, in words.
    told: &'static str,
    /// Each a message of its own, and all alike.
    inputs: Vec<Input>,
    /// Further objects, by their keys.
    objects: Vec<(String, Vec<u8>)>,
    /// The events that are delivered, of those with ids of ours.
    delivered: BTreeSet<u32>,
    /// How many events are delivered whose key is a hash.
    nameless: usize,
    change: fn(&mut Config),
    /// What else holds in the end.
    check: fn(&Ended),
}

/// The world, once all is over.
struct Ended {
    world: Arc<World>,
    process: Process,
    log: String,
}

fn case(name: &'static str, outcome: Outcome, told: &'static str) -> Case {
    Case {
        name,
        outcome,
        told,
        inputs: Vec::new(),
        objects: Vec::new(),
        delivered: BTreeSet::new(),
        nameless: 0,
        change: |_| (),
        check: |_| (),
    }
}

impl Case {
    fn message(mut self, body: impl Into<String>) -> Self {
        self.inputs.push(Input::Message(body.into()));
        self
    }

    fn messages<T: Into<String>>(self, bodies: impl IntoIterator<Item = T>) -> Self {
        bodies.into_iter().fold(self, Self::message)
    }

    fn object(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.inputs.push(Input::Object(Bytes::from(bytes.into())));
        self
    }

    fn objects<T: Into<Vec<u8>>>(self, objects: impl IntoIterator<Item = T>) -> Self {
        objects.into_iter().fold(self, Self::object)
    }

    /// An object that the messages may name.
    fn beside(mut self, key: impl Into<String>, bytes: Vec<u8>) -> Self {
        self.objects.push((key.into(), bytes));
        self
    }

    fn delivers(mut self, events: impl IntoIterator<Item = u32>) -> Self {
        self.delivered.extend(events);
        self
    }

    fn nameless(mut self, count: usize) -> Self {
        self.nameless = count;
        self
    }

    fn with(mut self, change: fn(&mut Config)) -> Self {
        self.change = change;
        self
    }

    fn check(mut self, check: fn(&Ended)) -> Self {
        self.check = check;
        self
    }

    /// The row of `docs/bad-input.md`.
    fn row(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Deleted => "deleted".to_owned(),
            Outcome::Acknowledged(reason) => format!("acknowledged: `{reason}`"),
            Outcome::Left(reason) => format!("left: `{reason}`"),
            Outcome::LeftOrWhole => "left, or deleted where nothing is missing".to_owned(),
        };
        format!("| {} | {outcome} | {} |", self.name, self.told)
    }
}

/// Events of the good messages.
const BEFORE: u32 = 90_001;
const AFTER: u32 = 90_004;
const GOOD: [u32; 2] = [BEFORE, AFTER];
/// How often a message is received before it is dead.
const RECEIVES: u32 = 2;
/// Beside those of [`rules_file`] with a pattern. The rule `odd` is for records that are so.
const RULES: [(&str, &str); 3] = [("trail-stopped", "StopLogging"), ("access-key", "CreateAccessKey"), ("odd", "Odd*")];

fn rules_file() -> String {
    let mut events = RULES.map(|(id, name)| json!({ "id": id, "severity": "HIGH", "eventName": name })).to_vec();
    let pattern = |id: &str, pattern: &serde_json::Value| json!({ "id": id, "severity": "HIGH", "pattern": pattern });
    events.push(pattern("address", &json!({ "sourceIPAddress": [{ "cidr": "198.51.100.0/24" }] })));
    let pair = json!({ "type": ["AWS::S3::Bucket"], "accountId": ["444455556666"] });
    events.push(pattern("pair", &json!({ "resources": pair, "requestParameters": { "items": { "id": pair } } })));
    json!({ "events": events }).to_string()
}

fn play(case: &Case) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let written = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&written);
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || Lines(Arc::clone(&lines))).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    runtime.block_on(run(case, &written))
}

/// What does not hold of a case.
#[expect(clippy::too_many_lines, reason = "one list of all that must hold")]
async fn run(case: &Case, written: &Mutex<Vec<u8>>) -> Vec<String> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: &dyn Fn() -> String| {
        if !holds {
            broken.push(what());
        }
    };
    let mut config = config();
    (case.change)(&mut config);
    let world = World::new(5, Duration::from_secs(30), RECEIVES);
    let mut rules = tempfile::NamedTempFile::new().unwrap();
    rules.write_all(rules_file().as_bytes()).unwrap();

    // The messages, with a good one before and behind them.
    let good = |number: u32, event: u32| {
        let key = log_key("good", number);
        world.put_object(BUCKET, &key, log_object(&[event]));
        world.send(notification(&key))
    };
    let mut good_ids = BTreeSet::from([good(1, BEFORE)]);
    for (key, bytes) in &case.objects {
        world.put_object(BUCKET, key, bytes.clone());
    }
    let mut ids = BTreeSet::new();
    for (number, input) in (0..).zip(&case.inputs) {
        ids.insert(match input {
            Input::Message(body) => world.send(body.clone()),
            Input::Object(bytes) => {
                let key = log_key("bad", number);
                world.put_object(BUCKET, &key, bytes.clone());
                world.send(notification(&key))
            }
        });
    }
    good_ids.insert(good(2, AFTER));

    let process = Process::start_with(&world, rules.path(), 5, config);
    let prompt = until(60, || good_ids.iter().all(|id| lock(&world.queue).deleted.contains(id))).await;
    must(prompt, &|| "a good message beside it is not deleted within a minute".to_owned());
    let any = case.outcome == Outcome::LeftOrWhole;
    let settled = until(3600, || lock(&world.queue).messages.is_empty()).await;
    must(settled, &|| "it is not settled within an hour".to_owned());

    {
        let queue = lock(&world.queue);
        let deleted: BTreeSet<_> = queue.deleted.iter().cloned().collect();
        let dead: BTreeSet<_> = queue.dead.iter().map(|it| it.id.clone()).collect();
        let (expected, what) =
            if matches!(case.outcome, Outcome::Left(_)) { (&dead, "dead") } else { (&deleted, "deleted") };
        let others = ids.difference(expected).count();
        must(any || others == 0, &|| format!("{others} of {} messages are not {what}", ids.len()));
    }

    let metrics = process.metrics.encode();
    let inputs = u64::try_from(ids.len()).unwrap();
    let mut expected = Vec::new();
    match case.outcome {
        Outcome::Deleted | Outcome::LeftOrWhole => {}
        Outcome::Acknowledged(reason) => expected.push(("trailhound_messages_ignored_total", reason, inputs)),
        Outcome::Left(reason) => {
            expected.push(("trailhound_messages_left_total", reason, inputs * u64::from(RECEIVES)));
        }
    }
    let counted: Vec<_> = metrics.lines().filter_map(reason_counted).collect();
    must(any || counted == expected, &|| format!("counted are {counted:?} instead of {expected:?}"));

    let (named, nameless): (Vec<_>, Vec<_>) =
        lock(&world.table).keys().map(|key| key.event_id.clone()).partition(|id| !is_hash(id));
    let named: BTreeSet<_> = named.into_iter().collect();
    let expected: BTreeSet<_> = case.delivered.iter().chain(&GOOD).map(|event| event_id(*event)).collect();
    must(any || named == expected, &|| format!("delivered are {named:?} instead of {expected:?}"));
    let nameless = nameless.len();
    must(any || nameless == case.nameless, &|| {
        format!("{nameless} events have a hash as their key, not {}", case.nameless)
    });
    let unsettled = lock(&world.table).values().filter(|row| row.state.rules != row.state.settled).count();
    must(unsettled == 0, &|| format!("{unsettled} events are stored and not alerted"));

    {
        let topic = lock(&world.topic);
        let told: BTreeSet<_> = topic.iter().map(|it| it.alert.alert_id.clone()).collect();
        let stored = lock(&world.table).len();
        // Garbled copies of an event may differ in its time only.
        let once = topic.len() == stored && (any || told.len() == stored);
        must(once, &|| format!("{} alerts for {stored} events", topic.len()));
        for one in topic.iter() {
            let alert = &one.alert;
            must(alert.size() <= 256 * 1024, &|| format!("an alert of {} bytes", alert.size()));
            let subject = alert.subject.len() <= 100 && alert.subject.bytes().all(|it| matches!(it, b' '..=b'~'));
            must(subject, &|| format!("the subject {:?}", alert.subject));
            must(alert.message.chars().all(is_sendable), &|| "SNS takes no message with such characters".to_owned());
        }
    }

    let ready = process.health.ready();
    must(ready.ok && process.health.live().ok, &|| format!("not ready: {ready:?}"));
    must(process.metrics.messages_in_flight.get() == 0, &|| "a message is still in work".to_owned());
    let log = String::from_utf8(lock(written).clone()).unwrap();
    must(!log.contains("panicked") && !log.contains("this is a bug"), &|| "something panicked".to_owned());
    // Of each receive the log tells the parts that cannot be read, up to sixteen, and what becomes of the message.
    let lines = log.lines().count();
    must(lines <= 20 + 20 * case.inputs.len() * RECEIVES as usize, &|| format!("{lines} lines in the log"));
    must(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), &|| {
        "a line of the log is no JSON".to_owned()
    });
    if broken.is_empty() {
        (case.check)(&Ended { world, process, log });
    } else {
        let first: Vec<_> = log.lines().skip(2).take(3).collect();
        broken.push(format!("log:\n{}", first.join("\n")));
    }
    broken
}

async fn until(seconds: u32, condition: impl Fn() -> bool) -> bool {
    for _ in 0..seconds {
        if condition() {
            return true;
        }
        sleep(Duration::from_secs(1)).await;
    }
    condition()
}

/// A reason that is counted at all: the metric, the reason, how often.
fn reason_counted(line: &str) -> Option<(&'static str, &str, u64)> {
    for metric in ["trailhound_messages_left_total", "trailhound_messages_ignored_total"] {
        if let Some(rest) = line.strip_prefix(metric).and_then(|rest| rest.strip_prefix("{reason=\"")) {
            let (reason, count) = rest.split_once("\"} ")?;
            let count = count.parse().ok()?;
            return (count > 0).then_some((metric, reason, count));
        }
    }
    None
}

fn is_hash(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What XML, and with it SQS and SNS, takes.
fn is_sendable(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
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

/// Plays each case, or those whose names contain `BAD_INPUT`.
fn play_all(cases: &[Case]) {
    let only = std::env::var("BAD_INPUT").unwrap_or_default();
    let mut broken = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        assert!(!case.inputs.is_empty(), "{}: nothing is put in", case.name);
        // What a check says of its case is printed already.
        let wrong = std::panic::catch_unwind(AssertUnwindSafe(|| play(case)));
        let wrong = wrong.unwrap_or_else(|_| vec!["its check fails, see above".to_owned()]);
        broken.extend(wrong.into_iter().map(|what| format!("{}: {what}", case.name)));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn bad_messages_cost_only_themselves() {
    play_all(&messages::cases());
}

#[test]
fn bad_objects_cost_only_themselves() {
    play_all(&objects::cases());
}

#[test]
fn bad_records_cost_only_themselves() {
    play_all(&records::cases());
}

#[test]
#[ignore = "half a minute and more: objects as large as the table says"]
fn objects_of_full_size_cost_only_themselves() {
    play_all(&objects::huge());
}

#[test]
fn the_page_has_a_row_for_each_case_and_a_case_for_each_row() {
    let page = include_str!("../../../docs/bad-input.md");
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| input |")).collect();
    let cases: Vec<String> =
        [messages::cases(), objects::cases(), records::cases()].iter().flatten().map(Case::row).collect();
    assert_eq!(rows, cases, "docs/bad-input.md should have these rows:\n{}", cases.join("\n"));
}

fn limits(config: &mut Config) -> &mut Limits {
    &mut config.source.limits
}
