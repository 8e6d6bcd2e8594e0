//! A few of each kind, all at once, through the real binary and the emulator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trailhound::emulator::Names;

use super::{AFTER, BEFORE, Case, Input, Outcome, RECEIVES, messages, objects, records};
use crate::daemon::{Account, Daemon, until};
use crate::sim::{BUCKET, event_id, log_key, log_object, notification};

const CASES: [&str; 18] = [
    "text, HTML, XML, YAML, `NaN`, single quotes",
    "a lone surrogate in a key",
    "bad parts beside a good one",
    "keys with `..`, control characters, escapes and any alphabet",
    "nothing but brackets, 100,000 deep",
    "nesting 100,000 deep beside what is needed",
    "SNS envelopes nested five or a hundred times",
    "no byte, or a compressed text of none",
    "gzip with a wrong checksum or length",
    "zstd that asks for a window of more than 8 MiB",
    "a bomb: 10 GiB of spaces in gzip members or in zstd, once or twice",
    "200,000 records of two bytes",
    "200,000 elements of `Records` that are no objects",
    "a record of 64 MiB",
    "bytes that are no UTF-8",
    "numbers beyond `f64`, or of hundreds of digits",
    "an event id of 3 KB, or one that is empty, no text, or reserved",
    "nesting 200 or 100,000 deep",
];

/// What all of it may add to the memory of an idle process. The bound is for ten messages at once.
const MEMORY: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_few_of_each_kind_cost_the_real_binary_nothing_else() {
    let all = [messages::cases(), objects::cases(), records::cases()];
    let cases: Vec<&Case> = all.iter().flatten().filter(|case| CASES.contains(&case.name)).collect();
    assert_eq!(cases.len(), CASES.len());

    let queue = Names { visibility: Duration::from_secs(20), max_receive_count: RECEIVES, ..Names::default() };
    let account = Account::new(queue).await;
    std::fs::write(account.rules(), super::rules_file()).unwrap();
    let daemon = Daemon::ready(&account, &[]).await;
    let idle = daemon.peak_memory();

    // A bucket that tells nobody what is put into it.
    account.emulator.create_bucket(BUCKET, false).await.unwrap();
    let put = async |key: &str, bytes: Vec<u8>| account.emulator.put_object(BUCKET, key, bytes).await.unwrap();
    let send = async |body: &str| account.emulator.send_message(&account.made.queue_url, body).await.unwrap();
    let good = async |number: u32, event: u32| {
        put(&log_key("good", number), log_object(&[event])).await;
        send(&notification(&log_key("good", number))).await;
    };
    good(1, BEFORE).await;
    let mut number = 0;
    for case in &cases {
        for (key, bytes) in &case.objects {
            put(key, bytes.clone()).await;
        }
        for input in &case.inputs {
            match input {
                Input::Message(body) => send(body).await,
                Input::Object(bytes) => {
                    number += 1;
                    put(&log_key("bad", number), bytes.to_vec()).await;
                    send(&notification(&log_key("bad", number))).await;
                }
            }
        }
    }
    good(2, AFTER).await;

    account.drained().await;
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        if let Outcome::Left(reason) = case.outcome {
            *left.entry(reason).or_default() += case.inputs.len();
        }
    }
    let dead = left.values().sum::<usize>() as u64;
    until("what cannot be read is dead", async || account.dead() == dead).await;
    let (_, metrics) = daemon.get("/metrics").unwrap();
    let counted = metrics.lines().filter_map(super::reason_counted);
    let counted: BTreeSet<_> =
        counted.filter(|(metric, ..)| metric.contains("left")).map(|(_, reason, _)| reason).collect();
    assert_eq!(counted, left.keys().copied().collect());

    let named = cases.iter().flat_map(|case| &case.delivered).chain(&[BEFORE, AFTER]);
    let named: BTreeSet<String> = named.map(|event| event_id(*event)).collect();
    let nameless: usize = cases.iter().map(|case| case.nameless).sum();
    let items = account.items().await;
    let stored = items.iter().map(|item| item["EventId"]["S"].as_str().unwrap().to_owned());
    let (hashes, stored): (BTreeSet<_>, BTreeSet<_>) = stored.partition(|id| super::is_hash(id));
    assert_eq!((stored, hashes.len()), (named, nameless));
    let told: BTreeSet<_> =
        account.documents().iter().map(|document| document["alert_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told.len(), items.len());

    assert_eq!(daemon.status("/readyz"), Some(200));
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    if let (Some(idle), Some(peak)) = (idle, daemon.peak_memory()) {
        assert!(peak < idle + MEMORY, "{} MiB more than the {} MiB of rest", (peak - idle) >> 20, idle >> 20);
    }
}
