//! The memory of the real binary: its peak stays under a bound that the size of an object does not move.
//!
//! Objects are gzip members after one another, one block of records repeated: an object of any size costs the test one
//! block of compression. Each object has matches of its own among them. Linux only: elsewhere nothing tells the peak.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::Instant;
use trailhound::emulator::Names;

use crate::daemon::{Account, Daemon, other_binary};
use crate::sim::{event_id, log_key, record};

const MIB: u64 = 1024 * 1024;
/// Decompressed bytes of one repeated block, about.
const BLOCK: usize = 1024 * 1024;
/// Matches of one object, spread over it.
const MATCHES: u32 = 8;

/// A load of objects that are in work at once.
struct Load {
    objects: u32,
    /// Decompressed bytes of each.
    size: u64,
    /// What the daemon may have in use at most.
    bound: u64,
    patience: Duration,
}

/// Memory of the daemon, in bytes.
struct Used {
    /// The peak of its resident size, as the kernel kept it.
    peak: u64,
    /// The most seen without the executable's own pages: heap and stacks.
    most_anonymous: u64,
    /// All figures, for people.
    told: String,
}

fn member(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A record that no rule matches, of the size and variety of real ones: gzip makes a tenth of them.
fn ordinary(number: u32) -> String {
    // A multiplicative hash: digits that differ, and that are the same in every run.
    let noise =
        |salt: u32| number.wrapping_mul(2_654_435_761) ^ salt.wrapping_mul(number.wrapping_mul(0x9e37_79b1) | 1);
    let mut record = record(6 * (number % 100_000));
    record["eventID"] = format!("{:08x}-0000-4000-9000-{number:012}", noise(1)).into();
    record["requestID"] = format!("{:08x}-{:08x}", noise(2), noise(3)).into();
    record["readOnly"] = true.into();
    record["requestParameters"] = serde_json::json!({
        "instancesSet": { "items": [{ "instanceId": format!("i-0{:08x}{:08x}", noise(4), noise(5)) }] },
        "filterSet": { "items": [{ "name": "vpc-id", "valueSet": { "items": [{ "value": "vpc-0a1b2c3d4e5f60718" }] } }] },
        "maxResults": number % 1000,
    });
    let id = (6..20).map(|salt| format!("{:08x}", noise(salt))).collect::<Vec<_>>().concat();
    record["additionalEventData"] = serde_json::json!({ "x-amz-id-2": id });
    record["tlsDetails"] = serde_json::json!({ "tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256",
        "clientProvidedHostHeader": "ec2.us-east-1.amazonaws.com" });
    record.to_string()
}

/// A block that is repeated: its gzip member, its decompressed size, and how many records it holds.
fn block() -> (Vec<u8>, u64, u64) {
    let (mut text, mut records) = (String::new(), 0);
    while text.len() < BLOCK {
        text.push_str(&ordinary(records));
        text.push(',');
        records += 1;
    }
    (member(&text), text.len() as u64, u64::from(records))
}

/// Fills the queue, lets the daemon work, and gives back what memory it took.
async fn used(load: &Load, rules: Option<&Path>) -> Used {
    // So that whoever looks sees all of them in work, however fast they are read.
    let account = Account::answering_after(Some(Duration::from_millis(25)), Names::default()).await;
    if let Some(rules) = rules {
        std::fs::copy(rules, account.rules()).unwrap();
    }
    let (repeated, block_size, block_records) = block();
    let blocks = load.size.div_ceil(block_size);
    assert!(blocks >= u64::from(MATCHES));
    let ratio = block_size / repeated.len() as u64;
    assert!((7..=14).contains(&ratio), "about 10:1, as real files: {ratio}");

    let mut expected = BTreeSet::new();
    for object in 0..load.objects {
        let mut body = member("{\"Records\":[");
        for number in 0..blocks {
            body.extend_from_slice(&repeated);
            // The matches: after the first blocks, and the last one at the very end.
            let rank = if number + 1 == blocks { Some(MATCHES - 1) } else { u32::try_from(number).ok() };
            let Some(rank) = rank.filter(|it| *it < MATCHES - 1 || number + 1 == blocks) else { continue };
            let event = (object * MATCHES + rank) * 6 + 1;
            expected.insert(event_id(event));
            let after = if number + 1 == blocks { "]}" } else { "," };
            body.extend_from_slice(&member(&format!("{}{after}", record(event))));
        }
        account.emulator.put_object(&account.made.bucket, &log_key("trail-a", object), body).await.unwrap();
    }

    let concurrency = load.objects.to_string();
    let daemon = Daemon::ready(&account, &[("TRAILHOUND_PIPELINE__CONCURRENCY", concurrency.as_str())]).await;
    let figure = |name: &str| daemon.memory(name).expect("Linux tells it");
    let (ready, mut most_anonymous) = (figure("VmHWM"), figure("RssAnon"));
    let deadline = Instant::now() + load.patience;
    let in_flight =
        || daemon.metric("trailhound_messages_in_flight").is_some_and(|count| count >= f64::from(load.objects));
    let mut all_at_once = false;
    while account.left() > 0 {
        assert!(Instant::now() < deadline, "not within {:?}:\n{}", load.patience, daemon.log());
        all_at_once |= in_flight();
        most_anonymous = most_anonymous.max(figure("RssAnon"));
        // Often: a release build reads all of them within a tenth of a second.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (peak, file) = (figure("VmHWM"), figure("RssFile"));

    let records = u64::from(load.objects) * (blocks * block_records + u64::from(MATCHES));
    let evaluated = daemon.metric("trailhound_records_total{outcome=\"evaluated\"}").map(|count| format!("{count:.0}"));
    assert_eq!(evaluated, Some(records.to_string()), "every record was read");
    let stored: BTreeSet<String> =
        account.items().await.iter().map(|it| it["EventId"]["S"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored, expected, "every match is stored, and nothing else");
    assert_eq!(account.dead(), 0);
    assert!(all_at_once, "all were in work at once");
    let told = format!(
        "{} objects of {} MiB: ready with {} KiB, peak {} KiB; anonymous at most {} KiB, executable and libraries {} KiB",
        load.objects,
        load.size / MIB,
        ready / 1024,
        peak / 1024,
        most_anonymous / 1024,
        file / 1024
    );
    Used { peak, most_anonymous, told }
}

#[allow(clippy::print_stdout, reason = "a measurement says what it measured")]
fn tell(figures: &str) {
    println!("{figures}");
}

async fn holds(load: Load) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitored_events.json");
    let used = used(&load, Some(&pack)).await;
    // The pages of an executable that is not optimised are more than a bound is for: there, only the rest counts.
    let (what, counted) = if cfg!(debug_assertions) && other_binary().is_none() {
        ("anonymous memory", used.most_anonymous)
    } else {
        ("peak", used.peak)
    };
    assert!(counted <= load.bound, "{what} beyond {} KiB: {}", load.bound / 1024, used.told);
    tell(&used.told);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_objects_of_10_mb_at_once_fit_into_24_mib() {
    holds(Load { objects: 8, size: 10_000_000, bound: 24 * MIB, patience: Duration::from_secs(300) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_objects_of_24_mib_at_once_fit_into_64_mib() {
    holds(Load { objects: 16, size: 24 * MIB, bound: 64 * MIB, patience: Duration::from_secs(600) }).await;
}

/// Sixteen GiB to inflate and read: for a release build, which `TRAILHOUND_TEST_BINARY` names.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "sixteen GiB to read: CONTRIBUTING.md says how"]
async fn sixteen_objects_of_1_gib_at_once_fit_into_64_mib() {
    holds(Load { objects: 16, size: 1024 * MIB, bound: 64 * MIB, patience: Duration::from_secs(3600) }).await;
}
