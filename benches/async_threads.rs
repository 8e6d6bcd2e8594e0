//! What the work costs that a message brings, in the sizes at which it leaves the async threads and beyond:
//! `cargo bench --bench async_threads`. `cargo test --bench async_threads` runs everything once.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may stop and prints its figures")]
#![allow(clippy::disallowed_types, reason = "it measures real time")]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use time::macros::datetime;

use trailhound::alert::{AlertFormat, Source, alert_id, detected_event, render, stored_item};
use trailhound::claim::ClaimedAlert;
use trailhound::cloudtrail::{Decoder, Input, Limits, Output, STEP_BYTES};
use trailhound::env::Compute;
use trailhound::notification;
use trailhound::rules::{DEFAULT_RULES, Detection, Matcher, RuleSet, ids};

const LIMITS: Limits = Limits {
    max_compressed_bytes: 64 << 20,
    max_decompressed_bytes: 256 << 20,
    max_ratio: 2_000,
    max_record_bytes: 4 << 20,
};

/// A record of about so many bytes that the default rules tell of.
fn record(bytes: usize, id: usize) -> String {
    let items: Vec<Value> = (0..bytes.saturating_sub(1_300) / 90)
        .map(|i| json!({ "resourceId": format!("eni-0{i:016x}"), "note": "primary \"worker\" interface", "on": true }))
        .collect();
    json!({
        "eventVersion": "1.11",
        "userIdentity": { "type": "AssumedRole", "principalId": "AROAEXAMPLE0000000001:i-0123456789abcdef0",
            "arn": "arn:aws:sts::111122223333:assumed-role/deployment-pipeline/i-0123456789abcdef0", "accountId": "111122223333",
            "accessKeyId": "ASIAEXAMPLE000000001", "sessionContext": { "sessionIssuer": { "type": "Role",
                "principalId": "AROAEXAMPLE0000000001", "arn": "arn:aws:iam::111122223333:role/deployment-pipeline",
                "accountId": "111122223333", "userName": "deployment-pipeline" },
                "attributes": { "creationDate": "2026-05-01T08:00:00Z", "mfaAuthenticated": "false" } } },
        "eventTime": "2026-05-01T10:00:00Z", "eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging",
        "awsRegion": "eu-central-1", "sourceIPAddress": "198.51.100.7",
        "userAgent": "aws-sdk-go-v2/1.27.1 os/linux lang/go#1.22.3 md/GOOS#linux md/GOARCH#amd64 api/cloudtrail#1.40.1",
        "requestParameters": { "name": "arn:aws:cloudtrail:eu-central-1:111122223333:trail/example", "items": items },
        "responseElements": null, "requestID": "0f9b3c1e-6d0a-4a53-9a1b-5b7f6d3c2e10",
        "eventID": format!("3f1c9d52-8a64-4a4e-b3d9-{id:012x}"), "readOnly": false, "eventType": "AwsApiCall",
        "managementEvent": true, "recipientAccountId": "111122223333", "eventCategory": "Management",
    })
    .to_string()
}

fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("a vector takes all");
    encoder.finish().expect("a vector takes all").into()
}

/// An S3 notification of at least so many bytes.
fn s3_notification(bytes: usize) -> String {
    let one = |i: usize| {
        json!({ "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventTime": "2026-05-01T10:00:00.000Z",
            "eventName": "ObjectCreated:Put", "s3": { "s3SchemaVersion": "1.0", "configurationId": "trailhound",
            "bucket": { "name": "example-logs", "arn": "arn:aws:s3:::example-logs" },
            "object": { "key": format!("AWSLogs/111122223333/CloudTrail/eu-central-1/2026/05/01/111122223333_CloudTrail_eu-central-1_20260501T1000Z_{i:016}.json.gz"),
                "size": 5120, "eTag": "0123456789abcdef0123456789abcdef", "sequencer": "0066112233445566" } } })
    };
    let length = one(0).to_string().len();
    json!({ "Records": (0..bytes.div_ceil(length).max(1)).map(one).collect::<Vec<_>>() }).to_string()
}

fn enveloped(message: &str) -> String {
    json!({ "Type": "Notification", "MessageId": "3f1c9d52-8a64-4a4e-b3d9-2f5a6b7c8d90",
        "TopicArn": "arn:aws:sns:eu-central-1:111122223333:logs", "Message": message, "Timestamp": "2026-05-01T10:00:00.000Z" })
    .to_string()
}

const SIZES: [usize; 5] = [1_400, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// `cargo bench` says so; otherwise it is a test of the benchmark itself.
fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Prints the middle of many runs. What is set up and what is dropped is not counted.
fn measure<I, O>(name: &str, size: usize, mut set_up: impl FnMut() -> I, mut work: impl FnMut(&mut I) -> O) {
    let runs = if measures() { 101 } else { 1 };
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let mut input = set_up();
            let began = Instant::now();
            let output = black_box(work(black_box(&mut input)));
            let time = began.elapsed();
            drop(output);
            time
        })
        .collect();
    times.sort_unstable();
    let middle = times.get(runs / 2).copied().unwrap_or_default();
    println!("{name:<44} {size:>9} bytes {:>10.1} us", middle.as_secs_f64() * 1e6);
}

fn notifications() {
    for size in SIZES {
        let plain = s3_notification(size);
        let record = serde_json::from_str::<Value>(&record(size, 0)).expect("our own record is JSON");
        let event = json!({ "version": "0", "detail-type": "AWS API Call via CloudTrail", "source": "aws.cloudtrail",
            "region": "eu-central-1", "detail": record });
        let bodies = [("S3", plain.clone()), ("S3 through SNS", enveloped(&plain)), ("record", event.to_string())];
        for (name, body) in bodies {
            let parsed = notification::parse(&body);
            assert!(parsed.problems.is_empty() && parsed.objects.len() + parsed.records.len() > 0);
            measure(&format!("read a message: {name}"), body.len(), || (), |()| notification::parse(&body));
        }
    }
}

fn decoding(rules: &Arc<RuleSet>) {
    // What few bytes can hold: many records that none, or each, is told of; or nothing but blanks.
    let records = |count: usize, told: bool| {
        let name = if told { "StopLogging" } else { "GetTrailStatus" };
        let records: Vec<_> = (0..count).map(|id| record(1_400, id).replace("StopLogging", name)).collect();
        format!("{{\"Records\":[{}]}}", records.join(","))
    };
    let blanks = format!("{{\"Records\":[{}]}}", " ".repeat(8 << 20));
    for (name, text) in [
        ("50 records", records(50, false)),
        ("50 records, all told of", records(50, true)),
        ("600 records", records(600, false)),
        ("8 MiB of blanks", blanks),
    ] {
        let body = gzip(text.as_bytes());
        for (budget, step) in [(128 << 10, "first short step"), (STEP_BYTES, "first step")] {
            let fresh = || {
                let input = Input { bytes: body.clone(), last: true };
                (Decoder::new(LIMITS), Matcher::new(Arc::clone(rules)), input, Output::default())
            };
            measure(&format!("{step}: {name}"), body.len(), fresh, |(decoder, matcher, input, output)| {
                decoder.step_within(budget, input, matcher, output).expect("our own objects can be read")
            });
        }
    }
}

fn matches(rules: &Arc<RuleSet>) {
    let now = datetime!(2026-05-01 10:05 UTC);
    for size in SIZES {
        let raw = Bytes::from(record(size, 0));
        let found = Matcher::new(Arc::clone(rules)).matches(&raw);
        let severity = found.first().expect("the default rules tell of the record").severity;
        let detection = Detection { index: 0, raw: raw.clone(), rules: found };
        let event = detected_event(&detection, Source::default(), now, rules.hash());
        let told = ids(&event.rules);
        let alert = ClaimedAlert { alert_id: alert_id(&event.key.event_id, &told), rules: told, severity };
        let matcher = || Matcher::new(Arc::clone(rules));
        measure("judge a record", raw.len(), matcher, |matcher| matcher.matches(&raw));
        let facts = |(): &mut ()| detected_event(&detection, Source::default(), now, rules.hash());
        measure("read the facts of a match", raw.len(), || (), facts);
        measure("make the item", raw.len(), || (), |()| stored_item(&event, time::Duration::days(90)));
        measure("render the alert", raw.len(), || (), |()| render(&event, &alert, rules, None, AlertFormat::default()));
    }
}

/// What it costs to go to the pool and back.
fn pool() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads can be started");
    let compute = Compute::pool(1);
    runtime.block_on(compute.run(|| ()));
    measure("to the pool and back", 0, || (), |()| runtime.block_on(compute.run(|| ())));
}

fn main() {
    let rules = Arc::new(RuleSet::parse(DEFAULT_RULES).expect("the default rules are right"));
    notifications();
    decoding(&rules);
    matches(&rules);
    pool();
}
