//! What a world owes: written down as it happens, and judged at once.
//!
//! Nothing here asks the daemon what it thinks it did. A promise may be broken only where a trouble that was injected
//! excuses it, and each excuse is for one receive or one accepted alert, never for a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use trailhound::alert::{Outbound, StoredItem};
use trailhound::claim::ItemState;
use trailhound::deliver::CLAIM_LENGTH;
use trailhound::health::{Health, Intake};
use trailhound::metrics::Metrics;
use trailhound::ports::ErrorClass;
use trailhound::rules::{Mode, Severity};
use trailhound::tracker::{Span, TrackerId, TrackerKind, TrackerState, episodes};

use super::fixtures::{IN_GROUPS, IN_THRESHOLD, Rules, TOGETHER, bucket_of, event_id, event_of, severity_of};
use super::process::{CONCURRENCY, Process};
use crate::fakes::{Seen, Trouble, World, lock};

/// The visibility timeout of the queue.
pub const VISIBILITY: Duration = Duration::from_secs(30);

/// Messages of one process that may wait for their delete, besides those in its slots, while deletes work.
const DELETES: usize = 20;
/// Extensions that fail or hang in a row before a lease may run out: three that hang use it up.
const EXTENSIONS: usize = 3;
/// Opens of one object that fail before it may be its own fault, while others can be read.
const OPENS: usize = 10;
/// How old a claim may be when a call begins that publishes under it: a call's time and as much again are left.
const FRESH: Duration = Duration::from_secs(10);
/// How long messages may wait for their deletes after those failed: the longest back-off, and the calls after it.
const DELETES_RECOVER: Duration = Duration::from_secs(60);
/// How long a bucket counts as denied of which nothing more comes.
const DENIAL: Duration = Duration::from_secs(12 * 3600);
/// After so many receives, what cannot be read is put off for as long as an extension is, which looks the same.
const LONGEST_PAUSE: usize = 6;
/// SQS's limit, less what the daemon keeps for giving back.
const HELD: Duration = Duration::from_secs(12 * 3600 - 120);

/// What a message brings.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    /// Of all parts that can be read.
    pub events: Vec<u32>,
    pub keys: Vec<String>,
    /// Whether every part can be read.
    pub readable: bool,
}

/// One process, as the ledger knows it.
struct Known {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Rules in force, with their hash, from when on.
    rules: Vec<(Instant, String, Rules)>,
    /// The checks that it saw answered.
    reached: BTreeSet<&'static str>,
    /// By service, whether its last call failed.
    failing: BTreeMap<&'static str, bool>,
    state: State,
    /// Alerts of which a mark was in trouble.
    mark_troubled: BTreeSet<String>,
    /// When one of its deletes was last in trouble.
    delete_troubled: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Stopping,
    Gone,
}

/// One receive of one message.
#[derive(Debug)]
struct Receive {
    message: String,
    process: u64,
    at: Instant,
    ended: bool,
    /// Why its end is nobody's fault, if it is not.
    excuse: Option<&'static str>,
    extensions_failed: usize,
    deleting: bool,
}

struct Acceptance {
    alert_id: String,
    event: String,
    rules: BTreeSet<String>,
    process: u64,
    excused: bool,
    marked: bool,
    /// For a step of a group: the bucket's start and the step.
    step: Option<(String, u64)>,
    /// Of an episode: from when to when it was known to last.
    span: Option<Span>,
}

#[derive(Default)]
pub struct Ledger {
    messages: BTreeMap<String, Parcel>,
    processes: BTreeMap<u64, Known>,
    receives: BTreeMap<String, Receive>,
    accepted: Vec<Acceptance>,
    /// When reading each object was in trouble that costs a receive.
    object_troubles: BTreeMap<String, Vec<Instant>>,
    /// When opening each object failed for a reason that can pass.
    opens_failed: BTreeMap<String, Vec<Instant>>,
    /// When an event was refused for good, by its number.
    refused: BTreeMap<u32, Vec<Instant>>,
    /// When the claims of this token began, and whose they are.
    tokens: BTreeMap<String, (Instant, u64)>,
    /// When each process first saw a token of somebody else.
    sights: BTreeMap<(u64, String), Instant>,
    /// Events that were brought by a message which was deleted, or read by an attempt that left its message.
    delivered: BTreeSet<u32>,
    pub broken: Vec<String>,
}

impl Ledger {
    pub fn sent(&mut self, message: String, parcel: Parcel) {
        self.messages.insert(message, parcel);
    }

    pub fn started(&mut self, process: &Process, rules: Rules) {
        let known = Known {
            health: Arc::clone(&process.health),
            metrics: Arc::clone(&process.metrics),
            rules: vec![(Instant::now(), process.rules_hash(), rules)],
            reached: BTreeSet::new(),
            failing: BTreeMap::new(),
            state: State::Running,
            mark_troubled: BTreeSet::new(),
            delete_troubled: None,
        };
        self.processes.insert(process.number, known);
    }

    pub fn reloaded(&mut self, process: &Process, rules: Rules) {
        let known = self.processes.get_mut(&process.number).unwrap();
        known.rules.push((Instant::now(), process.rules_hash(), rules));
    }

    pub fn stopping(&mut self, process: u64) {
        self.processes.get_mut(&process).unwrap().state = State::Stopping;
    }

    /// A process was told to stop and ended: nothing may be left in its hands that it could have given back.
    pub fn stopped(&mut self, process: u64) {
        let mut broken = Vec::new();
        for (receipt, receive) in self.receives.iter().filter(|(_, it)| it.process == process && !it.ended) {
            // Put off for as long as an extension is, perhaps.
            let put_off = !self.is_readable(&receive.message) || self.object_in_trouble(&receive.message, receive.at);
            let troubled = receive.excuse.is_some() || receive.extensions_failed > 0;
            if !put_off && !troubled {
                broken.push(format!("{receipt} was not given back when its process stopped"));
            }
        }
        self.broken.extend(broken);
        self.gone(process, "its process stopped");
    }

    /// The leases of these receipts run out, as SQS pleases.
    pub fn leases_ended(&mut self, receipts: &[String]) {
        for receipt in receipts {
            self.receives.get_mut(receipt).unwrap().excuse = Some("its lease was taken");
        }
    }

    fn gone(&mut self, process: u64, why: &'static str) {
        self.processes.get_mut(&process).unwrap().state = State::Gone;
        for receive in self.receives.values_mut().filter(|it| it.process == process && !it.ended) {
            receive.excuse.get_or_insert(why);
        }
        for accepted in self.accepted.iter_mut().filter(|it| it.process == process && !it.marked) {
            accepted.excused = true;
        }
    }

    fn is_readable(&self, message: &str) -> bool {
        self.messages.get(message).is_some_and(|it| it.readable)
    }

    /// Whether an object of this message was in trouble since then, or failed so often that it counts as its own fault,
    /// or one of its events was refused.
    fn object_in_trouble(&self, message: &str, since: Instant) -> bool {
        let keys = self.messages.get(message).map(|it| it.keys.as_slice()).unwrap_or_default();
        let count = |troubles: &BTreeMap<String, Vec<Instant>>, key: &String| {
            troubles.get(key).map_or(0, |all| all.iter().filter(|at| **at >= since).count())
        };
        let refused = |event: &u32| self.refused.get(event).is_some_and(|all| all.iter().any(|at| *at >= since));
        keys.iter().any(|key| count(&self.object_troubles, key) > 0 || count(&self.opens_failed, key) >= OPENS)
            || self.messages.get(message).is_some_and(|it| it.events.iter().any(refused))
    }

    fn receives_until(&self, message: &str, at: Instant) -> usize {
        self.receives.values().filter(|it| it.message == message && it.at <= at).count()
    }

    fn breaks(&mut self, what: String) {
        self.broken.push(what);
    }

    /// Everything that a world shows.
    pub fn saw(&mut self, world: &World, process: u64, seen: &Seen<'_>) {
        match seen {
            Seen::Began { operation: "sqs:ReceiveMessage", max } => self.receiving(process, *max),
            Seen::Began { .. } => {}
            Seen::Troubled { operation, subjects, trouble } => {
                self.troubled(world, process, operation, subjects, trouble);
            }
            Seen::Ended { operation, ok } => {
                let known = self.processes.get_mut(&process).unwrap();
                let service = operation.split(':').next().unwrap();
                known.failing.insert(service, !ok);
                if *ok {
                    known.reached.insert(operation);
                }
            }
            Seen::Received { message, receipt } => self.received(process, message, receipt),
            Seen::Lapsed { receipt } => self.lapsed(receipt),
            Seen::VisibilityChanged { receipt, delay } => self.visibility_changed(process, receipt, *delay),
            Seen::Deleting { message, receipt } => self.deleting(world, process, message, receipt),
            Seen::Recording { item } => self.recording(process, item),
            Seen::Accepting { alert, document } => self.accepting(world, process, alert, document),
            Seen::Marked { alert_id } => {
                let mut known = false;
                for accepted in self.accepted.iter_mut().filter(|it| it.alert_id == *alert_id) {
                    known = true;
                    accepted.marked |= accepted.process == process;
                }
                if !known {
                    self.breaks(format!("{alert_id} was marked before SNS accepted it"));
                }
            }
            Seen::Claimed { token, before } => {
                if let Some(before) = before {
                    self.taken_over(process, before);
                }
                self.tokens.insert((*token).to_owned(), (Instant::now(), process));
            }
            Seen::Held { token } => {
                self.sights.entry((process, (*token).to_owned())).or_insert_with(Instant::now);
            }
            Seen::Publishing { alerts } => self.publishing(world, process, alerts),
            Seen::AnswerLost { subjects } => self.answer_lost(process, subjects),
            Seen::Died => self.gone(process, "its process died"),
        }
    }

    /// Intake: never before everything was reachable once, never in an outage, never more than can be started.
    fn receiving(&mut self, process: u64, max: usize) {
        let known = &self.processes[&process];
        let busy = usize::try_from(known.metrics.messages_in_flight.get()).unwrap();
        let intake = known.health.intake();
        let mut broken = Vec::new();
        if busy + max > CONCURRENCY {
            broken.push(format!("asks for {max} messages while {busy} are in work"));
        }
        for check in ["sqs:GetQueueAttributes", "dynamodb:DescribeTable", "sns:GetTopicAttributes", "s3:HeadBucket"] {
            if !known.reached.contains(check) {
                broken.push(format!("receives before {check} was answered once"));
            }
        }
        for service in ["dynamodb", "sns"].into_iter().filter(|it| known.failing.get(it) == Some(&true)) {
            broken.push(format!("receives although its last call of {service} failed"));
        }
        if known.failing.get("s3") == Some(&true) && max > 1 {
            broken.push("receives more than one message although its last call of s3 failed".to_owned());
        }
        if intake == Intake::Closed {
            broken.push("receives although its intake is closed".to_owned());
        }
        if intake == Intake::Trial && max > 1 {
            broken.push("receives more than one message on trial".to_owned());
        }
        if known.state != State::Running {
            broken.push("receives although it was told to stop".to_owned());
        }
        self.broken.extend(broken.into_iter().map(|what| format!("process {process} {what}")));
    }

    /// A claim is only taken over after its token stood still for its length, since it began and before the eyes of
    /// whoever takes it over.
    fn taken_over(&mut self, process: u64, token: &str) {
        let (began, holder) = self.tokens[token];
        let seen = self.sights.get(&(process, token.to_owned())).map(Instant::elapsed);
        if began.elapsed() < CLAIM_LENGTH || seen.is_none_or(|seen| seen < CLAIM_LENGTH) {
            self.breaks(format!(
                "process {process} takes a claim of process {holder} over that is {:?} old and was seen {seen:?} ago",
                began.elapsed()
            ));
        }
    }

    /// Nothing is published but under a claim of one's own that is fresh.
    fn publishing(&mut self, world: &World, process: u64, alerts: &[Outbound]) {
        let (table, trackers) = (lock(&world.table), lock(&world.trackers));
        let claims = table.values().filter_map(|row| row.state.claim.as_ref());
        let claims = claims.chain(trackers.values().filter_map(|state| state.claim.as_ref()));
        let claims: Vec<_> =
            claims.filter(|it| alerts.iter().any(|alert| alert.alert_id == it.alert.alert_id)).collect();
        let mut broken = Vec::new();
        for claim in claims {
            match self.tokens.get(&claim.token.0) {
                Some((began, holder)) if *holder == process && began.elapsed() <= FRESH => {}
                other => {
                    let age = other.map(|(began, holder)| (began.elapsed(), holder));
                    broken.push(format!(
                        "process {process} publishes {} under a claim of this age and process: {age:?}",
                        claim.alert.alert_id
                    ));
                }
            }
        }
        drop((table, trackers));
        self.broken.extend(broken);
    }

    fn troubled(&mut self, world: &World, process: u64, operation: &str, subjects: &[String], trouble: &Trouble) {
        let now = Instant::now();
        let dynamodb_or_sns = operation.starts_with("dynamodb:") || operation.starts_with("sns:");
        if dynamodb_or_sns && matches!(trouble, Trouble::Fail(ErrorClass::Permanent, _)) {
            for event in subjects.iter().flat_map(|subject| events_behind(world, subject)) {
                self.refused.entry(event).or_default().push(now);
            }
        }
        match operation {
            "sqs:ChangeMessageVisibility" => {
                for receipt in subjects {
                    self.receives.get_mut(receipt).unwrap().extensions_failed += 1;
                }
            }
            "sqs:DeleteMessageBatch" => {
                self.processes.get_mut(&process).unwrap().delete_troubled = Some(now);
            }
            "dynamodb:UpdateItem#mark" => {
                self.processes.get_mut(&process).unwrap().mark_troubled.extend(subjects.iter().cloned());
                // Others may have taken the claim over meanwhile.
                for accepted in self.accepted.iter_mut().filter(|it| it.process == process && !it.marked) {
                    accepted.excused = true;
                }
            }
            "s3:GetObject" => {
                let costs = matches!(trouble, Trouble::Cut(_) | Trouble::Fail(ErrorClass::Permanent, _));
                let troubles = if costs { &mut self.object_troubles } else { &mut self.opens_failed };
                for key in subjects {
                    troubles.entry(key.clone()).or_default().push(now);
                }
            }
            _ => {}
        }
    }

    fn answer_lost(&mut self, process: u64, subjects: &[String]) {
        for receipt in subjects {
            if let Some(receive) = self.receives.get_mut(receipt) {
                receive.excuse = Some("the answer that brought it was lost");
            }
        }
        for accepted in self.accepted.iter_mut().filter(|it| it.process == process && subjects.contains(&it.alert_id)) {
            accepted.excused = true;
        }
    }

    fn received(&mut self, process: u64, message: &str, receipt: &str) {
        self.receives.insert(
            receipt.to_owned(),
            Receive {
                message: message.to_owned(),
                process,
                at: Instant::now(),
                ended: false,
                excuse: None,
                extensions_failed: 0,
                deleting: false,
            },
        );
        let known = &self.processes[&process];
        let held = self.receives.values().filter(|it| it.process == process && !it.ended && it.excuse.is_none());
        let (deleting, working): (Vec<_>, Vec<_>) = held.partition(|it| it.deleting);
        let troubled = known.delete_troubled.is_some_and(|at| at.elapsed() < DELETES_RECOVER);
        let limit = if troubled { 100 } else { CONCURRENCY + DELETES };
        if working.len() > limit {
            let (working, deleting) = (working.len(), deleting.len());
            self.breaks(format!("process {process} holds {working} messages, {deleting} more are being deleted"));
        }
    }

    fn lapsed(&mut self, receipt: &str) {
        let receive = &self.receives[receipt];
        if receive.ended {
            return;
        }
        let excused = receive.excuse.is_some()
            || receive.extensions_failed >= EXTENSIONS
            || self.object_in_trouble(&receive.message, receive.at)
            || receive.at.elapsed() >= HELD
            || (!self.is_readable(&receive.message)
                && self.receives_until(&receive.message, receive.at) >= LONGEST_PAUSE)
            || self.processes[&receive.process].state != State::Running;
        if !excused {
            self.breaks(format!("the lease of {receipt} ran out although its process lives and SQS answered"));
        }
        let receive = self.receives.get_mut(receipt).unwrap();
        receive.excuse.get_or_insert("its lease ran out");
        receive.ended = true;
    }

    fn visibility_changed(&mut self, process: u64, receipt: &str, delay: Duration) {
        let receive = &self.receives[receipt];
        if receive.process != process {
            let owner = receive.process;
            self.breaks(format!("process {process} changes {receipt}, which process {owner} holds"));
            return;
        }
        let (message, at) = (receive.message.clone(), receive.at);
        let held = at.elapsed();
        if delay == VISIBILITY || (!delay.is_zero() && held >= HELD.saturating_sub(VISIBILITY)) {
            // An extension.
            self.receives.get_mut(receipt).unwrap().extensions_failed = 0;
            return;
        }
        let stopping = self.processes[&process].state != State::Running;
        let in_trouble = self.object_in_trouble(&message, at);
        if !(stopping || in_trouble || held >= HELD || !self.is_readable(&message)) {
            self.breaks(format!("{receipt} was given back for {delay:?} although nothing is wrong with it"));
        }
        if delay.is_zero() && !stopping && held < HELD {
            self.breaks(format!("{receipt} was given back without a delay"));
        }
        if !stopping && !in_trouble && held < HELD {
            let receives = self.receives_until(&message, at);
            let pause = Duration::from_secs(1 << receives.saturating_sub(1).min(10)).min(VISIBILITY);
            if delay != pause {
                self.breaks(format!("{receipt} was given back for {delay:?} after {receives} receives"));
            }
        }
        if !stopping && !in_trouble {
            // It was read as far as it can be.
            let events = self.messages.get(&message).map(|it| it.events.clone()).unwrap_or_default();
            self.delivered.extend(events);
        }
        let receive = self.receives.get_mut(receipt).unwrap();
        receive.excuse.get_or_insert("it was given back for a reason");
        receive.ended = true;
    }

    /// Nothing is deleted before everything that it brings is stored, and alerted.
    fn deleting(&mut self, world: &World, process: u64, message: &str, receipt: &str) {
        let receive = self.receives.get_mut(receipt).unwrap();
        receive.deleting = true;
        receive.ended = true;
        let since = receive.at;
        let parcel = self.messages[message].clone();
        if !parcel.readable {
            self.breaks(format!("{message} was deleted although it cannot be read"));
            return;
        }
        let in_force = self.in_force(process, since);
        let mut broken = Vec::new();
        for event in &parcel.events {
            let id = event_id(*event);
            let state = state_of(world, &id);
            for (rule, mode) in in_all(&in_force, *event) {
                if !state.settled.contains(rule) {
                    broken.push(format!("{message} was deleted before {rule} was settled for {id}"));
                }
                if rule == IN_GROUPS {
                    if !self.steps(&bucket_of(*event)).contains(&1) {
                        broken.push(format!("{message} was deleted before the group of {id} was opened"));
                    }
                } else if rule != IN_THRESHOLD
                    && mode == Mode::Alert
                    && !self.ever(rule, *event, Mode::Shadow)
                    && !self.told(&id, rule)
                {
                    broken.push(format!("{message} was deleted before {rule} was alerted for {id}"));
                }
            }
        }
        self.broken.extend(broken);
        self.delivered.extend(&parcel.events);
    }

    /// The rules in force in a process at any time since then.
    fn in_force(&self, process: u64, since: Instant) -> Vec<Rules> {
        let rules = &self.processes[&process].rules;
        let first = rules.iter().rposition(|(from, ..)| *from <= since).unwrap_or(0);
        rules.iter().skip(first).map(|(_, _, rules)| *rules).collect()
    }

    /// Whether a rule was ever in force anywhere in this mode.
    fn ever(&self, rule: &str, event: u32, mode: Mode) -> bool {
        let mut all = self.processes.values().flat_map(|known| &known.rules);
        all.any(|(_, _, rules)| rules.matching(event).get(rule) == Some(&mode))
    }

    fn told(&self, event_id: &str, rule: &str) -> bool {
        self.accepted.iter().any(|it| it.event == event_id && it.rules.contains(rule))
    }

    /// The steps that were told of a bucket.
    fn steps(&self, bucket: &str) -> BTreeSet<u64> {
        let of = self.accepted.iter().filter_map(|it| it.step.as_ref());
        of.filter(|(from, _)| from == bucket).map(|(_, step)| *step).collect()
    }

    /// An event is evaluated under one rule set, exactly.
    fn recording(&mut self, process: u64, item: &StoredItem) {
        let event = event_of(&item.key.event_id);
        let rules = &self.processes[&process].rules;
        let Some((_, _, rules)) = rules.iter().find(|(_, hash, _)| *hash == item.rule_set_hash) else {
            self.breaks(format!("event {event} was evaluated under rules that were never in force"));
            return;
        };
        let wanted = rules.matching(event);
        let found: BTreeMap<&str, Mode> = item
            .rules
            .keys()
            .map(|rule| (rule.as_str(), if item.recorded_only.contains(rule) { Mode::Shadow } else { Mode::Alert }))
            .collect();
        if wanted != found {
            self.breaks(format!("event {event} matches {wanted:?}, and {found:?} is recorded"));
        }
    }

    /// Each rule of an event is alerted once, under a claim; again only where it could not be known that it was.
    fn accepting(&mut self, world: &World, process: u64, alert: &Outbound, document: &serde_json::Value) {
        if document["group"].is_object() {
            return self.accepting_step(world, process, alert, document);
        }
        if document["correlation"].is_object() {
            return self.accepting_episode(world, process, alert, document);
        }
        let id = &alert.alert_id;
        let event_id = document["event_id"].as_str().unwrap().to_owned();
        let rules: BTreeSet<String> =
            document["rules"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
        let event = event_of(&event_id);
        let mut broken = Vec::new();
        let claim = state_of(world, &event_id).claim;
        if claim.is_none_or(|claim| claim.alert.alert_id != *id) {
            broken.push(format!("{id} is published without a claim on it"));
        }
        for rule in rules.iter().filter(|rule| !self.ever(rule, event, Mode::Alert)) {
            broken.push(format!("{id} tells {rule}, which never alerts for {event_id}"));
        }
        let known = self.processes.values().flat_map(|known| &known.rules);
        let all_known =
            known.clone().all(|(_, _, known)| rules.iter().all(|it| known.matching(event).contains_key(it.as_str())));
        let gravest = rules.iter().map(|it| severity_of(it)).max().unwrap_or(Severity::Low);
        let severity = Severity::ALL.into_iter().find(|it| document["severity"] == it.as_str());
        if severity < Some(gravest) || (all_known && severity != Some(gravest)) {
            broken.push(format!("{id} tells {rules:?} with the severity {severity:?}"));
        }
        for before in self.accepted.iter().filter(|it| it.event == event_id) {
            if before.alert_id == *id {
                let troubled = self.processes[&before.process].mark_troubled.contains(id);
                if !before.excused && !troubled {
                    broken.push(format!("{id} is published once more, and nobody died and no answer was lost"));
                }
            } else if !before.rules.is_disjoint(&rules) {
                broken.push(format!("{event_id} is alerted for the same rule as {} and as {id}", before.alert_id));
            }
        }
        self.broken.extend(broken);
        self.accepted.push(Acceptance {
            alert_id: id.clone(),
            event: event_id,
            rules,
            process,
            excused: false,
            marked: false,
            step: None,
            span: None,
        });
    }

    /// Each step of a bucket is told once, under a claim and in order; again only where it could not be known that it was.
    fn accepting_step(&mut self, world: &World, process: u64, alert: &Outbound, document: &serde_json::Value) {
        let (id, group) = (&alert.alert_id, &document["group"]);
        let number = |name: &str| group[name].as_u64().unwrap();
        let (step, count, from) = (number("step"), number("count"), group["from"].as_str().unwrap().to_owned());
        let tracker = TrackerId::read(group["id"].as_str().unwrap()).unwrap();
        let mut broken = Vec::new();
        let claim = lock(&world.trackers).get(&tracker).and_then(|state| state.claim.clone());
        if claim.is_none_or(|claim| claim.alert.alert_id != *id) {
            broken.push(format!("{id} is published without a claim on it"));
        }
        let rules: Vec<_> = document["rules"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
        let event = event_of(document["event_id"].as_str().unwrap());
        if rules != [IN_GROUPS] || document["severity"] != "LOW" || bucket_of(event) != from {
            broken.push(format!("{id} tells {rules:?} with event {event} for the bucket {from}"));
        }
        let names: u64 = group["names"].as_array().unwrap().iter().map(|it| it["count"].as_u64().unwrap()).sum();
        if count < step || names != count {
            broken.push(format!("{id} tells step {step} at {count} events, {names} of them by name"));
        }
        for before in self.accepted.iter().filter(|it| it.alert_id == *id) {
            let troubled = self.processes[&before.process].mark_troubled.contains(id);
            if !before.excused && !troubled {
                broken.push(format!("{id} is published once more, and nobody died and no answer was lost"));
            }
        }
        let told = self.steps(&from);
        let is_known = self.accepted.iter().any(|it| it.alert_id == *id);
        if is_known != told.contains(&step) || (step > 1 && !told.contains(&(step / 10))) {
            broken.push(format!("step {step} of {from} is told as {id} after {told:?}"));
        }
        self.broken.extend(broken);
        self.accepted.push(Acceptance {
            alert_id: id.clone(),
            event: tracker.to_string(),
            rules: [IN_GROUPS.to_owned()].into(),
            process,
            excused: false,
            marked: false,
            step: Some((from, step)),
            span: None,
        });
    }

    /// Each episode is told once, under a claim; again only where it could not be known that it was.
    fn accepting_episode(&mut self, world: &World, process: u64, alert: &Outbound, document: &serde_json::Value) {
        let (id, told) = (&alert.alert_id, &document["correlation"]);
        let head = TrackerId::read(told["id"].as_str().unwrap()).unwrap();
        let mut broken = Vec::new();
        let state = lock(&world.trackers).get(&head).cloned();
        let claim = state.and_then(|state| state.claim);
        if claim.is_none_or(|claim| claim.alert.alert_id != *id) {
            broken.push(format!("{id} is published without a claim on it"));
        }
        let rules: Vec<_> = document["rules"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
        let time = |name: &str| {
            let time = OffsetDateTime::parse(told[name].as_str().unwrap(), &Rfc3339).unwrap();
            time.unix_timestamp()
        };
        let span = Span { from: time("first"), to: time("last") };
        if rules != [IN_THRESHOLD] || document["severity"] != "MEDIUM" || told["count"].as_u64() < Some(3) {
            broken.push(format!("{id} tells {rules:?} with {told}"));
        }
        for before in &self.accepted {
            if before.alert_id == *id {
                let troubled = self.processes[&before.process].mark_troubled.contains(id);
                if !before.excused && !troubled {
                    broken.push(format!("{id} is published once more, and nobody died and no answer was lost"));
                }
            } else if before.span.is_some_and(|before| before.meets(span)) {
                broken.push(format!("{id} tells {span:?}, which {} told before", before.alert_id));
            }
        }
        self.broken.extend(broken);
        self.accepted.push(Acceptance {
            alert_id: id.clone(),
            event: head.to_string(),
            rules: [IN_THRESHOLD.to_owned()].into(),
            process,
            excused: false,
            marked: false,
            step: None,
            span: Some(span),
        });
    }

    /// Each event counts once in its bucket, and each episode that there is was told.
    fn close_episodes(&self, world: &World) -> Vec<String> {
        let (table, trackers) = (lock(&world.table), lock(&world.trackers));
        let mut broken = Vec::new();
        let mut counted = 0;
        let is_refused = |key: &str| self.refused.contains_key(&event_of(key));
        let open: Vec<_> = table.iter().filter(|(_, row)| row.state.rules.contains(IN_THRESHOLD)).collect();
        for (key, row) in &open {
            counted += u64::from(row.state.groups.contains_key(IN_THRESHOLD));
            if !row.state.groups.contains_key(IN_THRESHOLD) && !is_refused(&key.event_id) {
                broken.push(format!("event {} is not counted: {:?}", key.event_id, row.state));
            }
        }
        let buckets = || trackers.iter().filter(|(id, _)| id.kind() == TrackerKind::Correlation && **id != id.steps());
        let mut entries = BTreeSet::new();
        let mut correlation = None;
        for (id, state) in buckets() {
            let correlated = state.correlated.as_ref().unwrap();
            if state.count != correlated.entries.len() as u64 {
                broken.push(format!("{id} counts {} and holds {:?}", state.count, correlated.entries));
            }
            entries.extend(correlated.entries.iter().cloned());
            correlation = Some(correlated.correlation.clone());
        }
        if entries.len() as u64 != counted {
            broken.push(format!("{counted} events are counted, and {} are held", entries.len()));
        }
        if open.iter().any(|(key, _)| is_refused(&key.event_id)) {
            return broken;
        }
        let spans = || self.accepted.iter().filter_map(|it| it.span);
        let episodes = correlation.map(|correlation| episodes(&correlation, &entries)).unwrap_or_default();
        for episode in &episodes {
            if !spans().any(|told| told.meets(*episode)) {
                broken.push(format!("{episode:?} was not told"));
            }
        }
        for told in spans().filter(|told| !episodes.iter().any(|episode| episode.meets(*told))) {
            broken.push(format!("{told:?} was told, and there is no such episode"));
        }
        broken
    }

    /// Each event counts once, in its bucket, and the steps that the counts reached were told.
    fn close_groups(&self, world: &World) -> Vec<String> {
        let (table, trackers) = (lock(&world.table), lock(&world.trackers));
        let mut broken = Vec::new();
        let mut buckets: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (key, row) in table.iter() {
            let event = event_of(&key.event_id);
            let counted = row.state.groups.get(IN_GROUPS);
            if row.state.rules.contains(IN_GROUPS) != counted.is_some() {
                broken.push(format!("event {event} is counted in {counted:?}: {:?}", row.state));
            }
            if let Some(tracker) = counted {
                buckets.entry(tracker.from().to_owned()).or_default().push(event);
            }
        }
        for (tracker, state) in trackers.iter().filter(|(tracker, _)| tracker.kind() == TrackerKind::Group) {
            let events = buckets.remove(tracker.from()).unwrap_or_default();
            let (count, told) = (events.len() as u64, self.steps(tracker.from()));
            let wanted: BTreeSet<u64> = [1, 10, 100, 1000].into_iter().filter(|step| *step <= count).collect();
            if events.iter().any(|event| self.refused.contains_key(event)) {
                continue;
            }
            if state.count != count || state.names.values().sum::<u64>() != count || state.is_due() || told != wanted {
                broken.push(format!("{tracker} holds {count} events, tells {told:?} and says {state:?}"));
            }
            let minutes: Vec<_> = events.iter().map(|event| event % 60).collect();
            let ends = [minutes.iter().min(), minutes.iter().max()].map(|minute| minute.copied().unwrap_or_default());
            let ends = ends.map(|minute| format!("2026-05-01T12:{minute:02}:00Z"));
            if [&state.first, &state.last] != [&ends[0], &ends[1]] {
                broken.push(format!("{tracker} has events from {ends:?} and says {state:?}"));
            }
        }
        broken.extend(buckets.into_keys().map(|bucket| format!("the bucket {bucket} has no tracker")));
        broken
    }

    /// Whether nothing that can be read is left on the queue, but for what was denied or refused and may be put off.
    pub fn all_read(&self, world: &World) -> bool {
        let beginning = Instant::now().checked_sub(world.age()).unwrap();
        let queue = lock(&world.queue);
        queue.messages.iter().all(|it| !self.is_readable(&it.id) || self.object_in_trouble(&it.id, beginning))
    }

    /// Whether objects were denied so lately that a process may count their bucket as denied, though others read it.
    pub fn denied(&self) -> bool {
        self.object_troubles.values().flatten().any(|at| at.elapsed() < DENIAL)
    }

    /// The end of a list: the world is healthy and nothing is left to do.
    pub fn close(&mut self, world: &World) {
        let mut broken = Vec::new();
        let queue = lock(&world.queue);
        for left in &queue.messages {
            broken.push(format!("{} is still on the queue", left.id));
        }
        for dead in queue.dead.iter().filter(|it| self.is_readable(&it.id)) {
            let receives = self.receives.values().filter(|it| it.message == dead.id && it.excuse.is_some()).count();
            if receives < world.max_receive_count as usize {
                broken.push(format!("{} is dead, and only {receives} of its receives were spent by faults", dead.id));
            }
        }
        drop(queue);
        let table = lock(&world.table);
        for event in &self.delivered {
            let id = event_id(*event);
            let rows: Vec<_> = table.iter().filter(|(key, _)| key.event_id == id).map(|(_, row)| row).collect();
            let always = Rules::FIRST.matching(*event);
            if rows.len() != usize::from(!always.is_empty()) && !self.refused.contains_key(event) {
                broken.push(format!("{id} has {} items", rows.len()));
            }
            let Some(state) = rows.first().map(|row| &row.state) else { continue };
            if self.refused.contains_key(event) {
                continue;
            }
            for (rule, mode) in always {
                if !state.rules.contains(rule) {
                    broken.push(format!("{id}: {rule} was not recorded"));
                }
                if mode == Mode::Alert && !TOGETHER.contains(&rule) && !self.told(&id, rule) {
                    broken.push(format!("{id}: {rule} was never alerted"));
                }
            }
            for rule in state.settled.iter().filter(|rule| !TOGETHER.contains(&rule.as_str())) {
                if !self.told(&id, rule) && !self.ever(rule, *event, Mode::Shadow) {
                    broken.push(format!("{id}: {rule} is settled and was never alerted"));
                }
            }
            // What is no longer in force may be left, where its message died before it was alerted.
            let open = state.rules.difference(&state.settled);
            for rule in open.filter(|rule| self.in_force_everywhere(rule, *event)) {
                broken.push(format!("{id}: {rule} is not settled: {state:?}"));
            }
        }
        let known: BTreeSet<_> = self.messages.values().flat_map(|it| &it.events).map(|it| event_id(*it)).collect();
        for key in table.keys().filter(|key| !known.contains(&key.event_id)) {
            broken.push(format!("{key:?} is stored and never arrived"));
        }
        drop(table);
        broken.extend(self.close_groups(world));
        broken.extend(self.close_episodes(world));
        self.broken.extend(broken);
    }

    fn in_force_everywhere(&self, rule: &str, event: u32) -> bool {
        let mut all = self.processes.values().flat_map(|known| &known.rules);
        all.all(|(_, _, rules)| rules.matching(event).contains_key(rule))
    }
}

/// The events that a tracker, an event id or the alert id of a claim stands for.
fn events_behind(world: &World, subject: &str) -> Vec<u32> {
    let trackers = lock(&world.trackers);
    let of_step = |(tracker, state): &(&TrackerId, &TrackerState)| {
        tracker.to_string() == subject || state.claim.as_ref().is_some_and(|claim| claim.alert.alert_id == subject)
    };
    let tracker = trackers.iter().find(of_step).map(|(tracker, _)| tracker.clone());
    drop(trackers);
    let Some(tracker) = tracker else { return event_behind(world, subject).into_iter().collect() };
    let table = lock(&world.table);
    let counted = table.iter().filter(|(_, row)| row.state.groups.values().any(|it| it.steps() == tracker.steps()));
    counted.map(|(key, _)| event_of(&key.event_id)).collect()
}

fn event_behind(world: &World, subject: &str) -> Option<u32> {
    let table = lock(&world.table);
    let of_claim = |state: &ItemState| state.claim.as_ref().is_some_and(|claim| claim.alert.alert_id == subject);
    let by_alert = table.iter().find(|(_, row)| of_claim(&row.state)).map(|(key, _)| key.event_id.clone());
    let event_id = by_alert.unwrap_or_else(|| subject.to_owned());
    event_id.rsplit('-').next().and_then(|number| number.parse().ok())
}

fn state_of(world: &World, event_id: &str) -> ItemState {
    let table = lock(&world.table);
    let row = table.iter().find(|(key, _)| key.event_id == event_id);
    row.map(|(_, row)| row.state.clone()).unwrap_or_default()
}

/// The rules that an event matches in every one of these sets, with a mode only where they agree; else as in shadow.
fn in_all(sets: &[Rules], event: u32) -> BTreeMap<&'static str, Mode> {
    let mut all = sets.iter().map(|rules| rules.matching(event));
    let mut common = all.next().unwrap_or_default();
    for other in all {
        common.retain(|rule, _| other.contains_key(rule));
        for (rule, mode) in &mut common {
            if other[rule] != *mode {
                *mode = Mode::Shadow;
            }
        }
    }
    common
}
