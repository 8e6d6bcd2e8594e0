//! `trailhound events`: what the daemon stored, read back by the real binary.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use trailhound::emulator::{Fault, Names};

use crate::cli::{code, configured, stderr, stdout};
use crate::daemon::{Account, Daemon, until};
use crate::sim::{event_id, log_object_of, record};

/// The day of [`record`].
const DAY: [&str; 4] = ["--from", "2026-05-01", "--to", "2026-05-02"];

const LIST: [&str; 2] = ["events", "list"];

/// The command, on the emulator's table.
fn command(account: &Account, arguments: &[&str]) -> Command {
    let mut command = configured(arguments);
    command
        .env("AWS_ENDPOINT_URL", account.emulator.endpoint())
        .env("AWS_REGION", "us-east-1")
        .env("DYNAMODB_TABLE", &account.made.table)
        .env("SECURITY_EVENTS_PATH", account.rules());
    command
}

fn run(account: &Account, arguments: &[&[&str]]) -> Output {
    command(account, &arguments.concat()).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert_eq!((code(output), stderr(output).as_str()), (0, ""), "{}", stdout(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(lines: &[Value], field: &str) -> Vec<String> {
    lines.iter().map(|line| line[field].as_str().unwrap().to_owned()).collect()
}

fn list(account: &Account, arguments: &[&str]) -> Vec<Value> {
    lines(&run(account, &[&LIST, &["--format", "jsonl"], arguments]))
}

fn ids(account: &Account, arguments: &[&str]) -> Vec<String> {
    texts(&list(account, arguments), "event_id")
}

/// An account whose daemon stored these records.
async fn with_records(rules: Option<Value>, records: &[Value]) -> Account {
    let account = Account::new(Names::default()).await;
    if let Some(rules) = rules {
        std::fs::write(account.rules(), rules.to_string()).unwrap();
    }
    let _daemon = Daemon::ready(&account, &[]).await;
    let key = crate::sim::log_key("trail", 1);
    account.emulator.put_object(&account.made.bucket, &key, log_object_of(records)).await.unwrap();
    until("everything is read", async || !account.items().await.is_empty() && account.left() == 0).await;
    account
}

fn records(events: &[u32]) -> Vec<Value> {
    events.iter().map(|event| record(*event)).collect()
}

/// An item as the daemon writes it, with these attributes instead of its own; null takes one away.
async fn put(account: &Account, attributes: Value) {
    let mut item = json!({
        "EventId": { "S": "e-1" }, "Timestamp": { "S": "2026-05-01T12:00:00Z" }, "Day": { "S": "2026-05-01#0" },
        "Rules": { "SS": ["trail-stopped"] }, "SettledRules": { "SS": ["trail-stopped"] }, "Severity": { "S": "HIGH" },
        "EventName": { "S": "StopLogging" }, "Actor": { "S": "Admin/alice" }, "AccountId": { "S": "111122223333" },
        "Source": { "M": { "Bucket": { "S": "logs" }, "Key": { "S": "a/b.json.gz" }, "Version": { "S": "v1" },
                           "Index": { "N": "12" } } },
        "Event": { "S": "{\"eventName\":\"StopLogging\"}" }, "DetectedAt": { "S": "2026-05-01T12:05:00Z" },
        "RuleSetHash": { "S": "0123456789abcdef" }, "ExpiresAt": { "N": "1785000000" },
    });
    for (name, value) in attributes.as_object().unwrap() {
        item[name] = value.clone();
    }
    item.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let put = json!({ "TableName": account.made.table, "Item": item });
    account.emulator.json("dynamodb", "PutItem", put).await.unwrap();
}

fn keys(hash: &str) -> Value {
    json!([{ "AttributeName": hash, "KeyType": "HASH" }, { "AttributeName": "Timestamp", "KeyType": "RANGE" }])
}

/// A table without an index, as it is made.
fn table(name: &str, attributes: &[&str]) -> Value {
    let attributes: Vec<_> =
        attributes.iter().map(|name| json!({ "AttributeName": name, "AttributeType": "S" })).collect();
    json!({ "TableName": name, "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": attributes, "KeySchema": keys("EventId") })
}

#[tokio::test]
async fn what_the_daemon_stored_is_listed_by_the_index() {
    // Event n happens at its minute: 1 and 4 are StopLogging (HIGH), 2 is CreateAccessKey (MEDIUM), 3 matches nothing.
    let account = with_records(None, &records(&[1, 2, 3, 4])).await;
    let before = account.emulator.requests();
    let found = list(&account, &DAY);
    assert_eq!(texts(&found, "event_id"), [4, 2, 1].map(event_id));
    let after = account.emulator.requests();
    let calls = |operation: &str| {
        let of = |counts: &std::collections::BTreeMap<(&'static str, String), u64>| {
            counts.get(&("dynamodb", operation.to_owned())).copied().unwrap_or(0)
        };
        of(&after) - of(&before)
    };
    assert_eq!((calls("Query"), calls("GetItem"), calls("Scan")), (8, 3, 0));

    let newest = &found[0];
    let documents = account.documents();
    let told = documents.iter().find(|told| told["event_id"] == event_id(4).as_str()).unwrap();
    for field in ["event_time", "severity", "event_name", "event_source", "account_id", "region", "actor", "source_ip"]
    {
        assert!(newest[field].is_string(), "{field}: {newest}");
        assert_eq!(newest[field], told[field], "{field}");
    }
    assert_eq!(newest["source"], told["source"]);
    assert_eq!(newest["alert_ids"], json!([told["alert_id"]]));
    assert_eq!((&newest["rules"], &newest["settled_rules"]), (&json!(["trail-stopped"]), &json!(["trail-stopped"])));
    assert_eq!((&newest["state"], newest["alerted_at"].is_string()), (&json!("alerted"), true));
    assert_eq!((&newest["user_identity_type"], &newest["user_agent"]), (&json!("IAMUser"), &json!("aws-cli/2.17.9")));
    assert!(newest.get("event").is_none() && newest["error_code"].is_null());

    assert_eq!(ids(&account, &[&DAY[..], &["--reverse"]].concat()), [1, 2, 4].map(event_id));
    assert_eq!(ids(&account, &[&DAY[..], &["--limit", "2"]].concat()), [4, 2].map(event_id));
    assert_eq!(ids(&account, &[&DAY[..], &["--severity", "high"]].concat()), [4, 1].map(event_id));
    assert_eq!(ids(&account, &[&DAY[..], &["--severity", "CRITICAL"]].concat()), [""; 0]);
    assert_eq!(ids(&account, &[&DAY[..], &["--rule", "access-key"]].concat()), [event_id(2)]);
    let both = ["--rule", "access-key", "--rule", "trail-stopped"];
    assert_eq!(ids(&account, &[&DAY[..], &both].concat()), [4, 2, 1].map(event_id));
    assert_eq!(ids(&account, &[&DAY[..], &["--name", "Create*"]].concat()), [event_id(2)]);
    assert_eq!(ids(&account, &["--from", "2026-05-01T12:01", "--to", "2026-05-01T12:04"]), [2, 1].map(event_id));
    // A day without events, and the last 24 hours, far from the fixtures.
    assert_eq!(ids(&account, &["--from", "2026-05-02", "--to", "2026-05-03"]), [""; 0]);
}

#[tokio::test]
async fn filters_look_at_the_item_for_what_the_index_lacks() {
    let account = Account::new(Names::default()).await;
    // An index that shows nothing but keys.
    let index =
        json!([{ "IndexName": "ByDay", "KeySchema": keys("Day"), "Projection": { "ProjectionType": "KEYS_ONLY" } }]);
    let mut bare = table("bare", &["EventId", "Timestamp", "Day"]);
    bare["GlobalSecondaryIndexes"] = index;
    account.emulator.json("dynamodb", "CreateTable", bare).await.unwrap();
    let bare = Account {
        made: trailhound::emulator::Resources { table: "bare".to_owned(), ..account.made.clone() },
        ..account
    };
    let account = &bare;
    put(account, json!({ "EventId": { "S": "a" } })).await;
    put(
        account,
        json!({ "EventId": { "S": "b" }, "Actor": { "S": "Admin/bob" }, "AwsRegion": { "S": "eu-west-1" },
                         "Severity": { "S": "LOW" }, "AccountId": { "S": "444455556666" }, "Rules": { "SS": ["r"] } }),
    )
    .await;
    put(account, json!({ "EventId": { "S": "c" }, "Actor": null, "AccountId": null })).await;
    for (filter, expected) in [
        (&["--actor", "Admin/alice"][..], &["a"][..]),
        (&["--actor", "Admin/*"], &["b", "a"]),
        (&["--actor", "Admin/?ob"], &["b"]),
        (&["--actor", "admin/alice"], &[]),
        (&["--actor", "Admin"], &[]),
        (&["--account", "111122223333"], &["a"]),
        (&["--account", "111122223333", "--account", "444455556666"], &["b", "a"]),
        (&["--region", "eu-west-1"], &["b"]),
        (&["--severity", "MEDIUM"], &["c", "a"]),
        (&["--rule", "r"], &["b"]),
        (&["--rule", "r", "--severity", "HIGH"], &[]),
        (&[], &["c", "b", "a"]),
    ] {
        assert_eq!(ids(account, &[&DAY[..], filter].concat()), expected, "{filter:?}");
        let mut scanned = ids(account, &[&["--scan"], filter].concat());
        scanned.sort_by(|a, b| b.cmp(a));
        assert_eq!(scanned, expected, "a scan, {filter:?}");
    }
}

/// A name may look like an option.
#[tokio::test]
async fn the_command_for_all_that_an_actor_did_works_as_it_is_printed() {
    let account = Account::new(Names::default()).await;
    for number in 0..103 {
        let at = format!("2026-05-01T{}:00Z", if number == 102 { "13:00" } else { "12:00" });
        let change =
            json!({ "EventId": { "S": format!("e-{number}") }, "Actor": { "S": "-r 'f'" }, "Timestamp": { "S": at } });
        put(&account, change).await;
    }
    let shown = stdout(&run(&account, &[&["events", "show", "e-0"]]));
    let (_, printed) = shown.split_once("All of them: trailhound ").unwrap_or_else(|| panic!("{shown}"));
    let words = Command::new("sh").arg("-c").arg(format!("printf '%s\n' {printed}")).output().unwrap();
    let words = stdout(&words);
    let found = lines(&run(&account, &[&words.lines().collect::<Vec<_>>(), &["--format", "jsonl"]]));
    assert_eq!(found.len(), 103);
}

#[tokio::test]
async fn an_actor_is_found_exactly_as_it_is_stored() {
    let account = Account::new(Names::default()).await;
    let actors = ["a'b \"c\" *?", "Zoë/日本", "line\\nbreak \\u{202e}", "-dash"];
    for (number, actor) in actors.iter().enumerate() {
        put(&account, json!({ "EventId": { "S": format!("e-{number}") }, "Actor": { "S": actor } })).await;
    }
    for (number, actor) in actors.iter().enumerate() {
        let wanted = format!("--actor={actor}");
        assert_eq!(ids(&account, &[&DAY[..], &[&wanted]].concat()), [format!("e-{number}")], "{actor}");
    }
}

#[tokio::test]
async fn days_are_merged_across_midnight_and_a_range_is_exact() {
    let account = Account::new(Names::default()).await;
    for (id, at, part) in [
        ("a", "2026-04-30T23:59:59Z", 1),
        ("b", "2026-04-30T23:59:59.5Z", 2),
        ("c", "2026-05-01T00:00:00Z", 3),
        ("d", "2026-05-01T00:00:00.25Z", 3),
        ("e", "2026-05-01T00:00:01Z", 1),
        ("f", "2026-05-03T10:00:00Z", 0),
    ] {
        let day = format!("{}#{part}", at.split('T').next().unwrap());
        put(&account, json!({ "EventId": { "S": id }, "Timestamp": { "S": at }, "Day": { "S": day } })).await;
    }
    let found = |from: &str, to: &str| {
        let mut found = ids(&account, &["--from", from, "--to", to, "--reverse"]);
        // Within a second, fractions sort before whole ones.
        found.sort();
        found.concat()
    };
    assert_eq!(found("2026-04-01", "2026-06-01"), "abcdef");
    assert_eq!(found("2026-05-01", "2026-05-02"), "cde");
    assert_eq!(found("2026-04-30T23:59:59", "2026-05-01T00:00:01"), "abcd");
    assert_eq!(found("2026-04-30T23:59:59.5Z", "2026-05-01T00:00:00.25Z"), "bc");
    assert_eq!(found("2026-05-01T02:00:00+02:00", "2026-05-01T02:00:01+02:00"), "cd");
    let newest = ids(&account, &["--from", "2026-04-01", "--to", "2026-06-01", "--limit", "3"]);
    assert_eq!(newest[..2], ["f", "e"]);
    let oldest = ids(&account, &["--from", "2026-04-01", "--to", "2026-06-01", "--reverse", "--limit", "2"]);
    assert_eq!(oldest.concat().chars().collect::<BTreeSet<_>>(), BTreeSet::from(['a', 'b']));
}

#[tokio::test]
async fn many_pages_of_a_day_are_read_to_their_end() {
    let account = Account::new(Names::default()).await;
    // Three pages of one partition and one of another; the index holds a long text of each.
    let count = 1_100;
    for number in 0..count {
        let at = format!("2026-05-01T12:{:02}:{:02}Z", number / 60, number % 60);
        let part = u32::from(number % 50 == 0);
        put(
            &account,
            json!({ "EventId": { "S": format!("e-{number:04}") }, "Timestamp": { "S": at },
                              "Day": { "S": format!("2026-05-01#{part}") }, "ErrorCode": { "S": "x".repeat(2_500) } }),
        )
        .await;
    }
    let before = account.emulator.count("dynamodb", "Query");
    let found = ids(&account, &DAY);
    assert_eq!(found, (0..count).rev().map(|number| format!("e-{number:04}")).collect::<Vec<_>>());
    // A page ends after 500 items, or after 1 MB.
    let queries = account.emulator.count("dynamodb", "Query") - before;
    assert!((10..20).contains(&queries), "{queries} queries");
    // A filter leaves pages without an item, which are not the end.
    assert_eq!(ids(&account, &[&DAY[..], &["--rule", "none"]].concat()), [""; 0]);
    let all = stdout(&run(&account, &[&LIST, &DAY]));
    assert_eq!(all.lines().last(), Some("1100 events"));
    assert_eq!(all.lines().count(), 1_100 + 3 + 1, "titles for every 500 rows");
}

#[tokio::test]
async fn events_as_people_read_them() {
    let account = Account::new(Names::default()).await;
    put(&account, json!({ "ErrorCode": { "S": "AccessDenied" }, "AlertIds": { "SS": ["a1"] }, "AwsRegion": { "S": "us-east-1" } })).await;
    put(
        &account,
        json!({ "EventId": { "S": "e-2" }, "Timestamp": { "S": "2026-05-01T13:00:00Z" }, "Severity": { "S": "LOW" },
                          "Rules": { "SS": ["b", "a"] }, "Actor": null, "SourceIpAddress": { "S": "203.0.113.7" } }),
    )
    .await;
    let output = run(&account, &[&LIST, &DAY]);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    insta::assert_snapshot!(stdout(&output), @"
    TIME                  SEVERITY  EVENT        ERROR         ACTOR        FROM         ACCOUNT       REGION     RULES          ALERT    EVENT ID
    2026-05-01T13:00:00Z  LOW       StopLogging  -             -            203.0.113.7  111122223333  -          a, b           open     e-2
    2026-05-01T12:00:00Z  HIGH      StopLogging  AccessDenied  Admin/alice  -            111122223333  us-east-1  trail-stopped  alerted  e-1
    2 events
    ");
    let limited = stdout(&run(&account, &[&LIST, &DAY, &["--limit", "1"]]));
    assert!(limited.ends_with("\n1 event; there are more: raise --limit, or name a shorter time\n"), "{limited}");
    let none = stdout(&run(&account, &[&LIST, &["--since", "1h"]]));
    assert_eq!(none, "0 events\n");
}

#[tokio::test]
async fn an_event_is_shown_with_its_alert_its_record_and_what_is_around_it() {
    let account = with_records(None, &records(&[1, 2, 4])).await;
    let output = run(&account, &[&["events", "show", &event_id(2)]]);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    let text = stdout(&output);
    let published = account.emulator.published();
    let mail = published.iter().find(|sent| sent.message.contains(&event_id(2))).unwrap();
    assert!(text.starts_with(&mail.texts["email"]), "the alert as it was sent:\n{text}");
    for line in [
        "Alert:      alerted 20".to_owned(),
        format!("SNS id:     {} (of the last alert)", mail.message_id),
        "Rule:       access-key: settled".to_owned(),
        "Claim:      spent: alert ".to_owned(),
        format!("Bucket:     {}", account.made.bucket),
        format!("Key:        {}", crate::sim::log_key("trail", 1)),
        "Index:      1, counted from 0".to_owned(),
        "  \"eventName\": \"CreateAccessKey\",".to_owned(),
        "    \"userName\": \"alice\"".to_owned(),
        "Around it:  2 other events of arn:aws:iam::111122223333:user/alice from 2026-05-01T11:02:00Z to 2026-05-01T13:02:00Z".to_owned(),
    ] {
        assert!(text.contains(&format!("\n{line}")), "no {line:?} in:\n{text}");
    }
    assert!(text.contains(&event_id(1)) && text.contains(&event_id(4)), "{text}");
    assert_eq!(account.emulator.count("dynamodb", "Scan"), 0);

    let shown = lines(&run(&account, &[&["events", "show", &event_id(2), "--format", "jsonl", "--around", "1m"]]));
    assert_eq!(shown.len(), 1);
    assert_eq!((&shown[0]["event"], &shown[0]["record"]), (&record(2), &json!("stored")));
    assert_eq!(shown[0]["alert_text"], mail.texts["email"]);
    assert_eq!(texts(shown[0]["around"]["events"].as_array().unwrap(), "event_id"), [event_id(1)]);
    assert_eq!(shown[0]["around"]["truncated"], false);
    let alone = run(&account, &[&["events", "show", &event_id(2), "--around", "0s"]]);
    assert!(!stdout(&alone).contains("Around it"));

    for id in ["no-such-event", "trailhound#group#0123", "a\u{1b}[2J"] {
        let none = run(&account, &[&["events", "show", id]]);
        assert_eq!((code(&none), stdout(&none).as_str()), (1, ""));
        assert!(stderr(&none).starts_with("no event ") && !stderr(&none).contains('\u{1b}'), "{}", stderr(&none));
    }
}

#[tokio::test]
async fn an_alert_is_told_without_rules_too() {
    let account = with_records(None, &records(&[1])).await;
    std::fs::remove_file(account.rules()).unwrap();
    let output = run(&account, &[&["events", "show", &event_id(1)]]);
    assert_eq!(code(&output), 0);
    assert!(
        stderr(&output).starts_with("the rules in force are not told, only their ids: cannot read"),
        "{}",
        stderr(&output)
    );
    assert!(stdout(&output).contains("- HIGH trail-stopped: not in the rules in force\n"), "{}", stdout(&output));
}

#[tokio::test]
async fn records_are_shown_however_they_are_stored() {
    let account = Account::new(Names::default()).await;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(br#"{"eventName":"StopLogging","n":12345678901234567890123}"#).unwrap();
        base64::engine::general_purpose::STANDARD.encode(encoder.finish().unwrap())
    };
    put(&account, json!({ "EventId": { "S": "gzip" }, "Event": { "B": gzip } })).await;
    put(&account, json!({ "EventId": { "S": "none" }, "Event": null })).await;
    put(&account, json!({ "EventId": { "S": "damaged" }, "Event": { "B": "AAAA" } })).await;
    put(&account, json!({ "EventId": { "S": "inline" }, "Event": null, "Source": { "M": { "Index": { "N": "0" } } } }))
        .await;
    // Only the marks are left of an event that expired before its alert was accepted.
    put(
        &account,
        json!({ "EventId": { "S": "stub" }, "Event": null, "Source": null, "Rules": null, "SettledRules": null,
        "Severity": null, "Actor": null, "DetectedAt": null, "RuleSetHash": null, "AlertIds": { "SS": ["a1"] } }),
    )
    .await;
    for (id, expected) in [
        ("gzip", "\n{\n  \"eventName\": \"StopLogging\",\n  \"n\": 12345678901234567890123\n}\n"),
        ("none", "Index:      12, counted from 0\n"),
        (
            "none",
            "The record is not in the item, which would be too large: read it in the object above, at that index\n",
        ),
        ("none", "Key:        a/b.json.gz\nVersion:    v1\n"),
        ("damaged", "The record in the item cannot be read: read it in the object above, at that index\n"),
        ("inline", "The record is not in the item, which would be too large\n"),
        ("stub", "Alert id:   a1\n"),
        ("stub", "Around it:  the record names no actor\n"),
    ] {
        let output = run(&account, &[&["events", "show", id]]);
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
        assert!(stdout(&output).contains(expected), "{id}: no {expected:?} in:\n{}", stdout(&output));
    }
    let shown = lines(&run(&account, &[&["events", "show", "none", "--format", "jsonl"]]));
    assert_eq!((&shown[0]["record"], &shown[0]["event"]), (&json!("left_out"), &Value::Null));
}

#[tokio::test]
async fn every_item_with_an_id_is_shown() {
    let account = Account::new(Names::default()).await;
    // More than DynamoDB gives in one answer.
    for hour in 10..14 {
        let record = json!({ "hour": hour, "filler": "x".repeat(340_000) }).to_string();
        put(&account, json!({ "Timestamp": { "S": format!("2026-05-01T{hour}:00:00Z") }, "Event": { "S": record } }))
            .await;
    }
    let shown = lines(&run(&account, &[&["events", "show", "e-1", "--format", "jsonl"]]));
    assert_eq!(
        shown.iter().map(|event| event["event"]["hour"].as_u64().unwrap()).collect::<Vec<_>>(),
        [10, 11, 12, 13]
    );
    let text = stdout(&run(&account, &[&["events", "show", "e-1", "--around", "0s"]]));
    assert!(text.starts_with("1 of 4 events with this id\n") && text.contains("\n4 of 4 events with this id\n"));
}

#[tokio::test]
async fn text_of_others_moves_no_terminal() {
    let account = Account::new(Names::default()).await;
    let evil = "\u{1b}]0;owned\u{7}\u{202e}\u{9b}2J\r\nHIGH forged line";
    let record = json!({ "eventName": evil, "userIdentity": { "userName": evil } }).to_string();
    put(&account, json!({
        "EventId": { "S": evil }, "EventName": { "S": evil }, "Actor": { "S": evil }, "SourceIpAddress": { "S": evil },
        "AwsRegion": { "S": evil }, "AccountId": { "S": evil }, "ErrorCode": { "S": evil }, "Rules": { "SS": [evil] },
        "AlertIds": { "SS": [evil] }, "SnsMessageId": { "S": evil }, "DetectedAt": { "S": evil }, "AlertedAt": { "S": evil },
        "UserAgent": { "S": evil }, "RuleSetHash": { "S": evil }, "Event": { "S": record },
        "Source": { "M": { "Bucket": { "S": evil }, "Key": { "S": evil }, "Version": { "S": evil }, "Index": { "N": "1" } } },
    })).await;
    put(&account, json!({ "EventId": { "S": "plain" }, "Actor": { "S": evil }, "Event": null })).await;
    let mut outputs = vec![run(&account, &[&LIST, &DAY]), run(&account, &[&LIST, &DAY, &["--format", "jsonl"]])];
    for id in [evil, "plain"] {
        outputs.push(run(&account, &[&["events", "show", id]]));
        outputs.push(run(&account, &[&["events", "show", id, "--format", "jsonl"]]));
    }
    outputs.push(run(&account, &[&["events", "export"], &DAY]));
    outputs.push(run(&account, &[&["events", "export", "--records"], &DAY]));
    for output in outputs {
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("forged line"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}', '\r']), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("HIGH forged")), "{text}");
    }
}

#[tokio::test]
async fn events_are_exported_whole() {
    let account = with_records(None, &records(&[1, 2, 4])).await;
    let exported = lines(&run(&account, &[&["events", "export"], &DAY]));
    assert_eq!(texts(&exported, "event_id"), [1, 2, 4].map(event_id));
    assert_eq!(exported.iter().map(|line| line["event"].clone()).collect::<Vec<_>>(), records(&[1, 2, 4]));
    let listed = list(&account, &[&DAY[..], &["--reverse"]].concat());
    for (mut exported, listed) in exported.into_iter().zip(listed) {
        let more = exported.as_object_mut().unwrap();
        assert!(more.shift_remove("event").is_some() && more.shift_remove("record").is_some());
        assert_eq!(exported, listed);
    }
    let high = lines(&run(&account, &[&["events", "export", "--records", "--severity", "HIGH"], &DAY]));
    assert_eq!(high, records(&[1, 4]));
    assert_eq!(account.emulator.count("dynamodb", "Scan"), 0);

    let file = account.folder.path().join("may.jsonl");
    let to_file = ["--output", file.to_str().unwrap()];
    let output = run(&account, &[&["events", "export", "--records", "--scan"], &to_file]);
    assert_eq!((code(&output), stdout(&output), stderr(&output)), (0, String::new(), String::new()));
    let text = std::fs::read_to_string(&file).unwrap();
    let mut scanned: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    scanned.sort_by_key(|record| record["eventTime"].to_string());
    assert_eq!(scanned, records(&[1, 2, 4]));
    assert!(account.emulator.count("dynamodb", "Scan") > 0);

    // What has no record is told, and the others are there.
    put(&account, json!({ "Event": null })).await;
    let output = run(&account, &[&["events", "export", "--records"], &DAY, &to_file]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("1 of 4 events have no record"), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("\n  e-1: s3://logs/a/b.json.gz, version v1, record 12 from 0"),
        "{}",
        stderr(&output)
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn an_export_that_breaks_off_leaves_no_file() {
    let account = Account::new(Names::default()).await;
    put(&account, json!({})).await;
    put(&account, json!({ "EventId": { "S": "broken" }, "Timestamp": { "S": "2026-05-01T13:00:00Z" } })).await;
    let file = account.folder.path().join("exports");
    std::fs::create_dir(&file).unwrap();
    let target = file.join("may.jsonl");
    let arguments = [&["events", "export", "--output", target.to_str().unwrap()], &DAY[..]].concat();
    account.emulator.set_fault(Box::new(|call| {
        let broken = call.operation == "GetItem" && String::from_utf8_lossy(&call.body).contains("broken");
        broken.then(|| Fault::before(400, "AccessDeniedException"))
    }));
    let output = command(&account, &arguments).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("grant dynamodb:GetItem on table security-events"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(&file).unwrap().count(), 0);

    // Ctrl-C, while it waits.
    account
        .emulator
        .set_fault(Box::new(|call| (call.operation == "GetItem").then(|| Fault::Delay(Duration::from_secs(600)))));
    let asked = account.emulator.count("dynamodb", "GetItem");
    let child = command(&account, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it waits", async || account.emulator.count("dynamodb", "GetItem") > asked).await;
    assert_eq!(std::fs::read_dir(&file).unwrap().count(), 1, "it has another name until it is complete");
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(&file).unwrap().count(), 0);
}

#[tokio::test]
async fn trackers_are_no_events() {
    let rules = json!({ "events": [{ "id": "often", "description": "Happens often", "severity": "HIGH",
        "eventName": "StopLogging", "group": { "by": ["userIdentity.arn"], "window": "1h" } }] });
    let account = with_records(Some(rules), &records(&[1, 4])).await;
    assert!(account.items().await.iter().any(|item| item["EventId"]["S"].as_str().unwrap().starts_with("trailhound#")));
    for arguments in [&DAY[..], &["--scan"]] {
        let found = list(&account, arguments);
        assert_eq!(texts(&found, "event_id"), [4, 1].map(event_id), "{arguments:?}");
        assert_eq!(texts(&found, "state"), ["grouped", "grouped"]);
        assert_eq!(found[0]["groups"][0]["rule"], "often");
    }
    let exported = lines(&run(&account, &[&["events", "export", "--scan"]]));
    assert_eq!(exported.len(), 2);
}

#[tokio::test]
async fn events_without_a_time_are_found_by_their_day_and_by_a_scan() {
    let mut timeless = record(1);
    timeless["eventTime"] = Value::Null;
    let account = with_records(None, &[timeless, record(4)]).await;
    let found = list(&account, &["--from", "1970-01-01", "--to", "1970-01-02"]);
    assert_eq!((texts(&found, "event_id"), &found[0]["event_time"]), (vec![event_id(1)], &Value::Null));
    assert_eq!(ids(&account, &["--scan"]), [4, 1].map(event_id));
    assert_eq!(ids(&account, &["--scan", "--reverse", "--limit", "1"]), [event_id(1)]);
    assert_eq!(ids(&account, &["--scan", "--limit", "1"]), [event_id(4)]);
    let shown = stdout(&run(&account, &[&["events", "show", &event_id(1)]]));
    assert!(shown.contains("Around it:  the record has no time\n"), "{shown}");
}

#[tokio::test]
async fn what_fails_is_told_with_what_to_do() {
    let account = Account::new(Names::default()).await;
    put(&account, json!({})).await;
    let told = |arguments: &[&str], expected: &str| {
        let output = run(&account, &[&["events"], arguments]);
        assert_eq!((code(&output), stdout(&output).as_str()), (1, ""), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "no {expected:?} in {}", stderr(&output));
    };
    let list_day = [&["list"], &DAY[..]].concat();
    for (operation, arguments, expected) in [
        ("Query", &list_day[..], "grant dynamodb:Query on table security-events, index ByDay"),
        ("GetItem", &list_day, "grant dynamodb:GetItem on table security-events"),
        ("Scan", &["list", "--scan"], "grant dynamodb:Scan on table security-events"),
        ("Query", &["show", "e-1"], "grant dynamodb:Query on table security-events"),
    ] {
        account.emulator.set_fault(Box::new(move |call| {
            (call.operation == operation).then(|| Fault::before(400, "AccessDeniedException"))
        }));
        told(arguments, expected);
    }
    // What was found is shown, although what is around it cannot be read.
    account.emulator.set_fault(Box::new(|call| {
        let by_day = call.operation == "Query" && String::from_utf8_lossy(&call.body).contains("ByDay");
        by_day.then(|| Fault::before(400, "AccessDeniedException"))
    }));
    let output = run(&account, &[&["events", "show", "e-1"]]);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).ends_with("Around it:  cannot be read\n"), "{}", stdout(&output));
    assert!(stderr(&output).contains("index ByDay"), "{}", stderr(&output));
    account.emulator.clear_fault();

    account.emulator.json("dynamodb", "CreateTable", table("no-index", &["EventId", "Timestamp"])).await.unwrap();
    for (table, expected) in [
        ("no-index", "lacks the index: make it as docs/tools.md says, or scan with --scan"),
        ("no-table", "table no-table, index ByDay does not exist: look at its name, account and region"),
    ] {
        let output = command(&account, &LIST).env("DYNAMODB_TABLE", table).output().unwrap();
        assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
        assert!(stderr(&output).contains(expected), "no {expected:?} in {}", stderr(&output));
    }
    let scanned =
        command(&account, &[&LIST[..], &["--scan"]].concat()).env("DYNAMODB_TABLE", "no-index").output().unwrap();
    assert_eq!((code(&scanned), stdout(&scanned).as_str()), (0, "0 events\n"));
}

#[tokio::test]
async fn throttling_passes() {
    let account = Account::new(Names::default()).await;
    put(&account, json!({})).await;
    let times = std::sync::atomic::AtomicU32::new(0);
    account.emulator.set_fault(Box::new(move |call| {
        let first = matches!(call.operation.as_str(), "Query" | "GetItem")
            && times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
        first.then(|| Fault::before(400, "ProvisionedThroughputExceededException"))
    }));
    assert_eq!(ids(&account, &DAY), ["e-1"]);
}

#[tokio::test]
async fn impossible_arguments_are_64_and_a_missing_table_is_78() {
    let account = Account::new(Names::default()).await;
    for (arguments, expected) in [
        (
            &["list", "--from", "2026-05-02", "--to", "2026-05-01"][..],
            "--from, 2026-05-02T00:00:00Z, is not before --to, 2026-05-01T00:00:00Z",
        ),
        (&["list", "--from", "1970-01-01"], "are more than the 3660 that are read by the index"),
        (&["list", "--since", "yesterday"], "write a time as 24h (ago)"),
        (&["list", "--since", "1h", "--from", "2h"], "cannot be used with"),
        (&["list", "--severity", "LOUD"], "LOW, MEDIUM, HIGH, CRITICAL"),
        (&["list", "--limit", "0"], "--limit"),
        (&["show"], "EVENT_ID"),
        (&["show", ""], "a value is required"),
        (&["show", "e", "--around", "2026-05-01"], "write a length of time as"),
        (&["export", "--format", "csv"], "jsonl"),
    ] {
        let output = run(&account, &[&["events"], arguments]);
        assert_eq!((code(&output), stdout(&output).as_str()), (64, ""), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let output = command(&account, &LIST).env_remove("DYNAMODB_TABLE").output().unwrap();
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).starts_with("store.table: is not set"), "{}", stderr(&output));
    // Nothing else of the configuration is asked for.
    let output = command(&account, &LIST).env_remove("SQS_QUEUE_URL").env_remove("SNS_TOPIC_ARN").output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[tokio::test]
async fn a_reader_that_is_gone_ends_a_list() {
    let account = Account::new(Names::default()).await;
    for number in 0..50 {
        put(&account, json!({ "EventId": { "S": format!("e-{number}") } })).await;
    }
    let arguments = [&LIST, &DAY[..], &["--format", "jsonl"]].concat();
    let mut child = command(&account, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}
