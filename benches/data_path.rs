//! What each step of the data path costs, beside gunzip alone: `cargo bench --bench data_path`.
//!
//! After criterion's figures it prints a table of ratios from rounds that take turns, so that a noisy machine slows all of
//! them alike. `cargo test --bench data_path` runs everything once on little data.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may stop and prints its figures")]
#![allow(
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "it measures real time, and figures are printed"
)]

#[path = "common/generator.rs"]
mod generator;

use std::hint::black_box;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::{Value, json};

use generator::{Generator, Object};
use trailhound::cloudtrail::{Decoder, Input, Limits, Output, Step};
use trailhound::rules::{DEFAULT_RULES, Matcher, RuleSet};

/// The share of records that the default rules tell of.
const SHARE: f64 = 0.0065;

const LIMITS: Limits = Limits {
    max_compressed_bytes: 1 << 30,
    max_decompressed_bytes: 8 << 30,
    max_ratio: 200,
    max_record_bytes: 16 << 20,
};

/// `cargo bench` says so; otherwise it is a test of the benchmark itself.
fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Objects of mixed sizes, as real ones are.
fn objects() -> Vec<Object> {
    let mut generator = Generator::new(7);
    let sizes: &[u32] = if measures() { &[7_700, 3_000, 5_000, 900, 2_400, 1_000] } else { &[40, 3] };
    sizes.iter().map(|records| generator.object(*records, SHARE)).collect()
}

fn total(objects: &[Object]) -> u64 {
    objects.iter().map(|object| object.decompressed as u64).sum()
}

fn rules(text: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::parse(text).expect("the rules are right"))
}

/// The limit: every byte must be inflated once. In pieces of 64 KiB, as the decoder does.
fn gunzip(objects: &[Object]) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    for object in objects {
        let mut reader = flate2::bufread::GzDecoder::new(object.gzip.as_slice());
        loop {
            let read = reader.read(&mut buffer).expect("our own gzip is good");
            if read == 0 {
                break;
            }
            length += black_box(buffer.get(..read)).map_or(0, <[u8]>::len);
        }
    }
    length
}

/// A body of chunks such as the network brings them.
fn decode(body: &Bytes, matcher: &mut Matcher) -> (u64, usize) {
    let mut decoder = Decoder::new(LIMITS);
    let (mut rest, mut input, mut found) = (body.clone(), Input::default(), 0);
    loop {
        let mut output = Output::default();
        let step = decoder.step(&mut input, matcher, &mut output).expect("our own objects can be read");
        found += output.detections.len();
        match step {
            Step::End => return (decoder.progress().records, found),
            Step::Yield => {}
            Step::NeedInput => {
                let chunk = rest.split_to(rest.len().min(128 * 1024));
                input = Input { bytes: chunk, last: rest.is_empty() };
            }
        }
    }
}

fn decode_all(bodies: &[Bytes], rules: &Arc<RuleSet>) -> (u64, usize) {
    let mut matcher = Matcher::new(Arc::clone(rules));
    let all = bodies.iter().map(|body| decode(body, &mut matcher));
    all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// Rules that name events which no record holds.
fn absent_rules(count: usize) -> String {
    let rules: Value = (0..count).map(|i| {
        json!({ "id": format!("absent-{i}"), "severity": "LOW", "eventSource": format!("service{}.amazonaws.com", i % 97),
            "eventName": format!("UnusedCall{i}") })
    }).collect();
    rules.to_string()
}

fn arn_ends_with(i: usize) -> Value {
    json!({ "userIdentity": { "arn": [{ "suffix": format!("/{i}") }] } })
}

/// Rules as a large team has them: names, wildcards, error codes, kinds of identity and patterns.
fn mixed_rules(count: usize) -> String {
    let rules: Value = (0..count).map(|i| {
        let mut rule = match i % 10 {
            0 => json!({ "eventName": format!("Delete{i}*"), "eventSource": "ec2.amazonaws.com" }),
            1 => json!({ "eventName": format!("*Policy{i}") }),
            2 => json!({ "errorCode": format!("Client.Denied{i}") }),
            3 => json!({ "userIdentityType": "FederatedUser", "eventName": format!("Get{i}*") }),
            4 => json!({ "pattern": { "eventName": [format!("Call{i}")], "requestParameters": { "name": [{ "prefix": "x" }] } } }),
            5 => json!({ "pattern": { "eventSource": [format!("service{i}.amazonaws.com")], "sourceIPAddress": [{ "cidr": "192.0.2.0/24" }] } }),
            // A few of them look at all that one service does.
            6 if i % 100 == 6 => json!({ "eventSource": "iam.amazonaws.com", "pattern": arn_ends_with(i) }),
            6 => json!({ "eventSource": "iam.amazonaws.com", "eventName": [format!("Put{i}"), "GetUser"], "pattern": arn_ends_with(i) }),
            _ => json!({ "eventSource": format!("service{}.amazonaws.com", i % 97), "eventName": format!("Call{i}") }),
        };
        if let Some(rule) = rule.as_object_mut() {
            rule.insert("id".to_owned(), format!("mixed-{i}").into());
            rule.insert("severity".to_owned(), "LOW".into());
        }
        rule
    }).collect();
    rules.to_string()
}

fn counts() -> &'static [usize] {
    if measures() { &[10, 100, 1_000, 10_000] } else { &[10] }
}

/// The records of an object, one by one.
fn records() -> Vec<String> {
    let mut generator = Generator::new(7);
    let count = if measures() { 4_000 } else { 20 };
    let record = |i: u32| {
        let mut text = String::new();
        generator.record(&mut text, i.is_multiple_of(154));
        text
    };
    (0..count).map(record).collect()
}

fn bench(criterion: &mut Criterion) {
    let objects = objects();
    let bodies: Vec<Bytes> = objects.iter().map(|object| Bytes::copy_from_slice(&object.gzip)).collect();
    let mut generator = Generator::new(7);
    let plain = [Bytes::from(generator.document(objects.iter().map(|object| object.records).sum(), SHARE))];
    let (none, pack) = (Arc::new(RuleSet::default()), rules(DEFAULT_RULES));
    let records = records();
    let record_bytes = records.iter().map(String::len).sum::<usize>() as u64;

    let mut group = criterion.benchmark_group("bytes");
    group.sample_size(10).throughput(Throughput::Bytes(total(&objects)));
    group.bench_function("gunzip alone", |bench| bench.iter(|| gunzip(&objects)));
    group.bench_function("gunzip and split", |bench| bench.iter(|| decode_all(&bodies, &none)));
    group.bench_function("decode with the default rules", |bench| bench.iter(|| decode_all(&bodies, &pack)));
    group.throughput(Throughput::Bytes(plain.iter().map(|text| text.len() as u64).sum()));
    group.bench_function("split alone", |bench| bench.iter(|| decode_all(&plain, &none)));
    group.throughput(Throughput::Bytes(record_bytes));
    let mut matcher = Matcher::new(Arc::clone(&pack));
    group.bench_function("match alone", |bench| {
        bench.iter(|| records.iter().map(|record| matcher.matches(record.as_bytes()).len()).sum::<usize>());
    });
    group.finish();

    let mut group = criterion.benchmark_group("rules");
    group.sample_size(10).throughput(Throughput::Elements(records.len() as u64));
    for (name, make) in [("absent", absent_rules as fn(usize) -> String), ("mixed", mixed_rules)] {
        for count in counts() {
            let mut matcher = Matcher::new(rules(&make(*count)));
            group.bench_with_input(BenchmarkId::new(name, count), &records, |bench, records| {
                bench.iter(|| records.iter().map(|record| matcher.matches(record.as_bytes()).len()).sum::<usize>());
            });
        }
    }
    group.finish();
}

type Run<'a> = Box<dyn FnMut() + 'a>;

/// The middle of several rounds in which everything takes its turn.
fn medians(rounds: usize, steps: &mut [(&str, Run<'_>)]) -> Vec<(String, Duration)> {
    let mut times = vec![Vec::new(); steps.len()];
    for _ in 0..rounds {
        for ((_, step), times) in steps.iter_mut().zip(&mut times) {
            let began = Instant::now();
            step();
            times.push(began.elapsed());
        }
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    steps.iter().zip(&mut times).map(|((name, _), times)| ((*name).to_owned(), middle(times))).collect()
}

fn ratios() {
    let rounds = if measures() { 15 } else { 1 };
    let objects = objects();
    let bodies: Vec<Bytes> = objects.iter().map(|object| Bytes::copy_from_slice(&object.gzip)).collect();
    let (none, pack) = (Arc::new(RuleSet::default()), rules(DEFAULT_RULES));
    let records: u32 = objects.iter().map(|object| object.records).sum();
    let matching: u32 = objects.iter().map(|object| object.matching).sum();
    let (read, found) = decode_all(&bodies, &pack);
    assert_eq!(read, u64::from(records), "every record is read");
    assert_eq!(found, matching as usize, "the default rules tell of what is meant to be told of, and of nothing else");
    let compressed: usize = objects.iter().map(|object| object.gzip.len()).sum();
    println!(
        "\n{records} records of {} bytes, {:.1} to 1 compressed, {:.2} % match; {} rules; middle of {rounds} rounds that take turns",
        total(&objects) / u64::from(records),
        total(&objects) as f64 / compressed as f64,
        f64::from(matching) * 100.0 / f64::from(records),
        pack.rules().len(),
    );
    let mut steps: [(&str, Run<'_>); 3] = [
        ("gunzip alone", Box::new(|| _ = black_box(gunzip(&objects)))),
        ("gunzip and split", Box::new(|| _ = black_box(decode_all(&bodies, &none)))),
        ("decode with the default rules", Box::new(|| _ = black_box(decode_all(&bodies, &pack)))),
    ];
    let medians = medians(rounds, &mut steps);
    let limit = medians.first().map_or(Duration::ZERO, |(_, time)| *time);
    println!("{:<32} {:>10} {:>14} {:>8}", "", "MB/s", "records/s", "of gunzip");
    for (name, time) in &medians {
        println!(
            "{name:<32} {:>10.0} {:>14.0} {:>8.2}",
            total(&objects) as f64 / time.as_secs_f64() / 1e6,
            f64::from(records) / time.as_secs_f64(),
            limit.as_secs_f64() / time.as_secs_f64(),
        );
    }

    let texts = self::records();
    for (name, make) in
        [("that name absent events", absent_rules as fn(usize) -> String), ("of every kind", mixed_rules)]
    {
        let mut matchers: Vec<_> = counts().iter().map(|count| (*count, Matcher::new(rules(&make(*count))))).collect();
        let names: Vec<String> = counts().iter().map(|count| format!("{count} rules {name}")).collect();
        let mut steps: Vec<(&str, Run<'_>)> = Vec::new();
        for ((_, matcher), name) in matchers.iter_mut().zip(&names) {
            let texts = &texts;
            let run = move || {
                _ = black_box(texts.iter().map(|text| matcher.matches(text.as_bytes()).len()).sum::<usize>());
            };
            steps.push((name, Box::new(run)));
        }
        let medians = self::medians(rounds, &mut steps);
        let least = medians.first().map_or(Duration::ZERO, |(_, time)| *time);
        for (name, time) in medians {
            let nanos = time.as_secs_f64() * 1e9 / texts.len() as f64;
            println!(
                "{name:<40} {nanos:>8.0} ns a record {:>6.2} times the least",
                time.as_secs_f64() / least.as_secs_f64()
            );
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
    // Not when a filter asks for one benchmark of criterion's.
    if !std::env::args().skip(1).any(|argument| !argument.starts_with('-')) {
        ratios();
    }
}
