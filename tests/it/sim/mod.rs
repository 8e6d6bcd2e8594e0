//! Simulation: lists of operations over the fakes on a paused clock, and the promises checked as each list is played.
//!
//! A world holds a queue, objects, a table and a topic; processes are started, killed and stopped in it, and every call
//! that they make can fail, hang, or lose its answer. The ledger judges each thing as it happens and, once the world is
//! healthy again and drained, what is left: every matching event has exactly one item, each of its rules was alerted or,
//! where it is on trial, only recorded, or, where it has a group, counted once, each step that a count reached was alerted, no message was deleted before, an alert repeats only where it could not be known
//! that it was accepted, and then with the same id, and only what cannot be read is on the dead-letter queue. The same
//! list and seed give the same trace.
//!
//! These mutations of the daemon must not pass, and `tests/mutations/run` shows that none does, and what caught each:
//!
//! - `age_from_the_answer`: a claim is as old as the answer that brought it.
//! - `alert_id_at_random`: the id of an alert is another one with each attempt.
//! - `alert_what_is_on_trial`: a rule in shadow is claimed and alerted like any other.
//! - `claims_stay_fresh_for_long`: a claim is used until a second before others may take it over.
//! - `count_each_time`: an event is counted in its group each time it is recorded.
//! - `delete_although_unread`: a message is deleted although one of its parts could not be read.
//! - `delete_first`: a message is deleted before it is worked on.
//! - `end_early_is_an_end`: a compressed body that ends early counts as read to its end.
//! - `forget_failed_deletes`: a message whose delete failed is left to its redelivery.
//! - `forget_the_mark`: an accepted alert is not marked.
//! - `forget_the_mark_of_a_step`: a step of a group that was told is not marked.
//! - `give_up_at_the_first_failure`: a call that fails for a passing reason is not repeated.
//! - `ignore_the_claim_on_an_episode`: somebody else's claim on an episode is not respected.
//! - `ignore_what_is_settled`: a rule that was alerted is claimed again for another copy of its event.
//! - `keep_at_the_stop`: a stopping process does not give back what it holds.
//! - `look_at_one_bucket_only`: an episode that lies in two buckets is not seen.
//! - `mark_a_step_before_publishing`: a step of a group is marked before SNS accepted its alert.
//! - `mark_before_publishing`: an alert is marked before SNS accepted it.
//! - `never_let_go_of_an_event`: an event stays in work in a process for ever.
//! - `never_loud`: an event whose count reaches a step is settled as if it reached none.
//! - `no_heartbeat`: a held message is never extended.
//! - `no_renewal`: a claim that is no longer fresh is published with all the same.
//! - `publish_before_the_claim`: an alert is published before its event is stored and claimed.
//! - `receive_before_everything_answered`: messages are received before store, publisher and objects were asked.
//! - `receive_more_than_slots`: ten messages are asked for, however few can be started.
//! - `receive_while_paused`: messages are received although a dependency fails.
//! - `refuse_call`: an alert of which SNS refuses the call counts as delivered.
//! - `refuse_entry`: an alert that SNS refuses in a call of several counts as delivered.
//! - `refuse_mark`: an alert whose mark is refused counts as delivered.
//! - `refuse_record`: an event that the table refuses counts as delivered.
//! - `release_without_delay`: a message that cannot be read is given back at once.
//! - `resume_from_the_start`: a body that broke off is resumed at its first byte.
//! - `settle_a_sighting_at_once`: an event of a threshold is settled as it is counted.
//! - `settle_before_the_step`: a counted event is settled before its group's step is told.
//! - `stop_at_the_first_bad_part`: a part of a message that cannot be read keeps back the parts after it.
//! - `take_over_at_once`: a claim of somebody else is taken over as soon as it is seen twice.
//! - `take_over_early`: a claim is taken over after three quarters of its length.
//! - `take_over_what_is_renewed`: a claim stands still from when it was first seen, although its token changed.
//! - `tell_an_episode_that_was_told`: what was told of a key is told again.
//! - `trust_a_claim`: an event that somebody else has claimed counts as settled.
//! - `trust_the_claim_of_a_step`: a step of a group that somebody else has claimed counts as told.

pub mod fixtures;
mod ledger;
mod op;
mod play;
pub mod process;
mod shrink;

use std::sync::atomic::{AtomicU64, Ordering};

pub use self::fixtures::{
    BUCKET, event_id, log_key, log_object, log_object_of, notification, notification_of, record, rule_file,
    rules_on_trial, through_eventbridge,
};
use self::op::{Call, Death, Failure, Op, Other, Rule, Service, paste, random_list};
use self::play::simulate;
use self::shrink::shrink;

/// How many random lists every `cargo test` tries.
const SEEDS: u64 = 300;

#[test]
fn random_lists_keep_the_promises() {
    if let Some(seed) = first_failing(seeds()) {
        let list = shrink(&random_list(seed), |list| !simulate(seed, list).broken.is_empty());
        check(seed, &list);
    }
}

/// The lowest seed of which a promise is broken. Worlds know nothing of each other: each thread plays some.
fn first_failing(seeds: std::ops::Range<u64>) -> Option<u64> {
    let next = AtomicU64::new(seeds.start);
    let lowest = AtomicU64::new(seeds.end);
    let play = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= lowest.load(Ordering::Relaxed) {
                break;
            }
            if !simulate(seed, &random_list(seed)).broken.is_empty() {
                lowest.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(play);
        }
    });
    let lowest = lowest.into_inner();
    (lowest < seeds.end).then_some(lowest)
}

/// `SIM_SEEDS=1000..20000` for a long run.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SIM_SEEDS").unwrap_or_default();
    let bounds = given.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or(0..SEEDS)
}

fn check(seed: u64, list: &[Op]) {
    let outcome = simulate(seed, list);
    assert!(
        outcome.broken.is_empty(),
        "seed {seed} breaks promises:\n{}\nto repeat it:\n{}trace:\n{}",
        outcome.broken.join("\n"),
        paste(seed, list),
        outcome.trace.join("\n")
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut lines = 0;
    for seed in 0..20 {
        let list = random_list(seed);
        let (once, twice) = (simulate(seed, &list), simulate(seed, &list));
        assert_eq!(once.trace, twice.trace, "seed {seed}: {list:?}");
        lines += once.trace.len();
    }
    assert!(lines > 1000, "something happens");
}

#[test]
fn ten_operations_keep_the_promises() {
    let list = [
        Op::Deliver { first: 0, count: 12 },
        Op::Fail { call: Call::Publish, count: 2, how: Failure::Down },
        Op::SecondTrail { first: 0, count: 12 },
        Op::Wait { milliseconds: 60 },
        Op::Crash,
        Op::EventBridge { event: 3 },
        Op::LoseAnswer { call: Call::Publish },
        Op::Again { back: 0 },
        Op::Poison,
        Op::Stop,
    ];
    check(1, &list);
}

/// A printed list is a test of this file.
#[test]
fn a_failing_list_can_be_pasted() {
    let list = [
        Op::DieIn { call: Call::Publish, after: 0, how: Death::Before },
        Op::EventBridge { event: 2 },
        Op::Wait { milliseconds: 5_000 },
        Op::Reload { any_key: Rule::Alert, any_stop: Rule::Absent, all: true },
    ];
    let name = "rules_beyond_a_claim_that_was_taken_over_are_alerted_too";
    let pasted = paste(1, &list).replace("seed_1", name).replace("5000", "5_000");
    assert!(include_str!("mod.rs").contains(&pasted), "{pasted}");
}

/// A claim is taken over with exactly its alert; what else the event matches is alerted by whoever took it over.
#[test]
fn rules_beyond_a_claim_that_was_taken_over_are_alerted_too() {
    let list = [
        Op::DieIn { call: Call::Publish, after: 0, how: Death::Before },
        Op::EventBridge { event: 2 },
        Op::Wait { milliseconds: 5_000 },
        Op::Reload { any_key: Rule::Alert, any_stop: Rule::Absent, all: true },
    ];
    check(1, &list);
}

/// The dead process claimed an alert that tells a rule which is in shadow by now, beside one that always was.
#[test]
fn a_claim_is_taken_over_although_its_rule_went_into_shadow() {
    let list = [
        Op::Reload { any_key: Rule::Alert, any_stop: Rule::Absent, all: true },
        Op::DieIn { call: Call::Publish, after: 0, how: Death::Before },
        Op::EventBridge { event: 2 },
        Op::Wait { milliseconds: 5_000 },
        Op::Reload { any_key: Rule::Shadow, any_stop: Rule::Absent, all: true },
        Op::EventBridge { event: 3 },
    ];
    check(1, &list);
}

/// Two processes with the same events, one of which has the rule in shadow.
#[test]
fn processes_that_differ_about_shadow_agree_on_each_event() {
    let list = [
        Op::Reload { any_key: Rule::Shadow, any_stop: Rule::Absent, all: true },
        Op::Join,
        Op::Reload { any_key: Rule::Alert, any_stop: Rule::Absent, all: false },
        Op::Deliver { first: 0, count: 30 },
        Op::SecondTrail { first: 0, count: 30 },
        Op::Wait { milliseconds: 40_000 },
        Op::Again { back: 0 },
    ];
    for seed in 0..20 {
        check(seed, &list);
    }
}

/// Of both processes one holds what the other waits for.
#[test]
fn the_same_events_in_opposite_order_never_block_each_other() {
    let list = [
        Op::Join,
        Op::Join,
        Op::Deliver { first: 0, count: 60 },
        Op::SecondTrail { first: 0, count: 60 },
        Op::Bundle { first: 0, count: 60, other: Other::Copy },
        Op::Hang { call: Call::Publish, count: 2, done: false },
    ];
    for seed in 0..20 {
        check(seed, &list);
    }
}

/// A process dies at each turn after each kind of call.
#[test]
fn a_death_at_any_await_point_loses_nothing() {
    for call in Call::OF_WORK {
        for how in [Death::Before, Death::After].into_iter().chain((0..8).map(Death::Soon)) {
            let list = [
                Op::Slow { call: Call::Publish, milliseconds: 11_000 },
                Op::DieIn { call, after: 1, how },
                Op::Deliver { first: 0, count: 12 },
                Op::SecondTrail { first: 6, count: 12 },
                Op::EventBridge { event: 7 },
                Op::Wait { milliseconds: 30_000 },
            ];
            check(1, &list);
        }
    }
}

/// Each answer of every kind is lost in turn.
#[test]
fn a_lost_answer_of_any_call_loses_nothing() {
    for call in Call::OF_WORK {
        for done in [None, Some(true), Some(false)] {
            let trouble = done.map_or(Op::LoseAnswer { call }, |done| Op::Hang { call, count: 2, done });
            let list = [
                trouble,
                Op::Deliver { first: 0, count: 12 },
                Op::SecondTrail { first: 6, count: 12 },
                Op::Wait { milliseconds: 15_000 },
                Op::Again { back: 1 },
                Op::Wait { milliseconds: 30_000 },
            ];
            check(1, &list);
        }
    }
}

/// What was delivered and cannot be deleted is held, and not received again.
#[test]
fn deletes_that_fail_for_long_cost_no_receive() {
    let list = [
        Op::Fail { call: Call::Delete, count: 30, how: Failure::Config },
        Op::Deliver { first: 0, count: 4 },
        Op::Wait { milliseconds: 200_000 },
    ];
    check(1, &list);
}

/// With 3, 5 or 10 receives, deaths may spend them all: then, and only then, a message that can be read is dead.
#[test]
fn deaths_that_spend_every_receive_leave_a_message_to_the_dead_letter_queue() {
    let deaths = [Op::DieIn { call: Call::Open, after: 0, how: Death::Before }; 10];
    let arrival = [Op::Deliver { first: 0, count: 4 }];
    let list = [&deaths[..], &arrival, &[Op::Wait { milliseconds: 40_000 }; 12]].concat();
    for seed in 0..6 {
        let outcome = simulate(seed, &list);
        assert_eq!(outcome.broken, Vec::<String>::new());
        assert!(outcome.trace.iter().any(|line| line.ends_with("message-1 is dead")), "seed {seed}");
    }
}

/// One event is refused for good by a call of each kind: its message, and only it, ends on the dead-letter queue.
#[test]
fn a_refused_event_costs_only_its_own_message() {
    for call in [Call::Publish, Call::Record, Call::Mark] {
        let list = [
            Op::Join,
            Op::Refuse { call, event: 1 },
            Op::Deliver { first: 0, count: 12 },
            Op::SecondTrail { first: 4, count: 12 },
            Op::EventBridge { event: 1 },
            Op::Wait { milliseconds: 60_000 },
        ];
        check(1, &list);
    }
}

/// Everything is refused for a while: what was refused singly costs a receive each, and nothing is lost.
#[test]
fn a_service_that_refuses_everything_loses_nothing() {
    for service in [Service::Sns, Service::DynamoDb] {
        let list = [
            Op::Deliver { first: 0, count: 4 },
            Op::Outage { service, seconds: 600, how: Failure::Refused },
            Op::Burst { first: 10, count: 30 },
            Op::Deliver { first: 50, count: 30 },
            Op::Wait { milliseconds: 700_000 },
        ];
        for seed in 0..5 {
            check(seed, &list);
        }
    }
}

/// In the outage others take claims over; whoever held them before must not use them when it ends.
#[test]
fn claims_that_are_taken_over_in_an_outage_are_not_used_by_both() {
    let list = [
        Op::Join,
        Op::Wait { milliseconds: 1_000 },
        Op::Outage { service: Service::Sns, seconds: 120, how: Failure::Down },
        // The first process sees the outage with this, and leaves the next to the second.
        Op::Deliver { first: 0, count: 6 },
        Op::SecondTrail { first: 0, count: 6 },
        Op::Wait { milliseconds: 130_000 },
    ];
    for seed in 0..10 {
        check(seed, &list);
    }
}

/// The head of this file lists the patches, each with its first line.
#[test]
fn the_head_lists_every_mutation() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutations/patches");
    let mut patches: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    patches.sort();
    let what = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().next().unwrap();
        let (first, rest) = line.split_at(1);
        format!("//! - `{}`: {}{rest}", path.file_stem().unwrap().display(), first.to_lowercase())
    };
    let listed: Vec<_> = include_str!("mod.rs").lines().filter(|line| line.starts_with("//! - `")).collect();
    assert_eq!(listed, patches.iter().map(what).collect::<Vec<_>>());
}
