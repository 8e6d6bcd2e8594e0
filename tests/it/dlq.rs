//! `trailhound dlq`: the real binary on a dead-letter queue with everything that may be there.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use trailhound::emulator::{Fault, Names, QueueCounts};

use crate::cli::{code, stderr, stdout, trailhound};
use crate::daemon::{Account, Daemon, until};
use crate::sim::{BUCKET, log_key, log_object, notification, notification_of, through_eventbridge};

/// An account whose dead-letter queue holds messages.
struct Scene {
    account: Account,
}

/// The messages of [`Scene::mixed`], by id.
struct Mixed {
    bad_json: String,
    missing: String,
    damaged: String,
    repaired: String,
    good: String,
    record: String,
    test_event: String,
}

impl Scene {
    async fn new() -> Self {
        Self { account: Account::new(Names { bucket: BUCKET.to_owned(), ..Names::default() }).await }
    }

    /// Puts a message on the dead-letter queue; gives its id.
    async fn dead(&self, body: &str) -> String {
        let message = json!({ "QueueUrl": self.account.made.dlq_url, "MessageBody": body });
        self.sent(message).await
    }

    async fn sent(&self, message: Value) -> String {
        let answer = self.account.emulator.json("sqs", "SendMessage", message).await.unwrap();
        answer["MessageId"].as_str().unwrap().to_owned()
    }

    async fn object(&self, number: u32, body: Vec<u8>) -> String {
        let key = log_key("trail-a", number);
        self.account.emulator.put_object(BUCKET, &key, body).await.unwrap();
        key
    }

    /// One of each kind. What S3 told the queue of the daemon is taken off it.
    async fn mixed(&self) -> Mixed {
        let cut = |mut body: Vec<u8>| {
            body.truncate(body.len() - 4);
            body
        };
        let damaged = self.object(1, cut(log_object(&[4]))).await;
        let repaired = self.object(2, cut(log_object(&[1, 2, 6]))).await;
        let good = self.object(3, log_object(&[7, 8])).await;
        let mixed = Mixed {
            bad_json: self.dead("{'Records': [\u{1b}[31m").await,
            missing: self.dead(&notification(&log_key("trail-a", 99))).await,
            damaged: self.dead(&notification(&damaged)).await,
            repaired: self.dead(&notification(&repaired)).await,
            good: self.dead(&notification(&good)).await,
            record: self.dead(&through_eventbridge(10)).await,
            test_event: self.dead(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"trail-logs"}"#).await,
        };
        self.object(2, log_object(&[1, 2, 6])).await;
        self.account.emulator.take_all(&self.account.made.queue_url).unwrap();
        mixed
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = trailhound(&["dlq"]);
        command
            .args(arguments)
            .env("AWS_ENDPOINT_URL", self.account.emulator.endpoint())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
            .env("SECURITY_EVENTS_PATH", self.account.rules())
            .env("SQS_QUEUE_URL", &self.account.made.queue_url);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The lines of a command that must end with this code, by message id.
    fn lines(&self, arguments: &[&str], expected: i32) -> BTreeMap<String, Value> {
        let output = self.run(&[arguments, &["--format", "jsonl"]].concat());
        assert_eq!(code(&output), expected, "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        let lines = stdout(&output);
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (line["messageId"].as_str().unwrap().to_owned(), line)).collect()
    }

    fn counts(&self) -> QueueCounts {
        self.account.emulator.queue_counts(&self.account.made.dlq_url).unwrap()
    }

    fn visible(&self) -> u64 {
        let QueueCounts { visible, in_flight, delayed } = self.counts();
        assert_eq!((in_flight, delayed), (0, 0), "everything was given back");
        visible
    }

    /// How often each message was received; takes them off.
    fn receives(&self) -> Vec<u32> {
        let taken = self.account.emulator.take_all(&self.account.made.dlq_url).unwrap();
        taken.into_iter().map(|(_, receives)| receives).collect()
    }
}

#[tokio::test]
async fn peek_shows_each_message_and_leaves_it_where_it_is() {
    let scene = Scene::new().await;
    let mixed = scene.mixed().await;
    let lines = scene.lines(&["peek"], 0);
    let kinds = [
        (&mixed.bad_json, "unreadable", json!("not_json")),
        (&mixed.missing, "objects", Value::Null),
        (&mixed.good, "objects", Value::Null),
        (&mixed.record, "inline_records", Value::Null),
        (&mixed.test_event, "ignored", json!("s3_test_event")),
    ];
    for (id, kind, reason) in kinds {
        assert_eq!((&lines[id]["kind"], &lines[id]["reason"]), (&json!(kind), &reason), "{}", lines[id]);
        assert_eq!(lines[id]["receiveCount"], 1);
    }
    assert_eq!(lines[&mixed.good]["objects"], json!([{ "bucket": BUCKET, "key": log_key("trail-a", 3) }]));
    assert!(lines[&mixed.good]["sentAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!((lines.len(), scene.visible()), (7, 7));

    // The second look is one more receive of each, and no more.
    let second = scene.run(&["peek", "--body"]);
    let text = stdout(&second);
    assert_eq!(code(&second), 0, "{}", stderr(&second));
    assert!(text.starts_with("dead-letter queue trailhound-dead-letters: about 7 messages\n"), "{text}");
    assert!(text.contains(&format!("s3://{BUCKET}/{}", log_key("trail-a", 3))), "{text}");
    assert!(text.contains("{'Records': [\\u{1b}[31m") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(scene.visible(), 7);
    assert_eq!(scene.receives(), [2; 7]);
}

#[tokio::test]
async fn peek_looks_at_no_more_than_it_is_told_and_at_many_once() {
    let scene = Scene::new().await;
    for number in 0..25 {
        scene.dead(&notification(&log_key("trail-a", number))).await;
    }
    assert_eq!(scene.lines(&["peek", "--limit", "13"], 0).len(), 13);
    assert_eq!(scene.lines(&["peek", "--queue-url", &scene.account.made.dlq_url], 0).len(), 25);
    assert_eq!(scene.visible(), 25);
    let mut receives = scene.receives();
    receives.sort_unstable();
    assert_eq!((receives[0], receives[24]), (1, 2), "{receives:?}");
}

#[tokio::test]
async fn what_is_held_is_given_back_after_ctrl_c() {
    let scene = Scene::new().await;
    for number in 0..25 {
        scene.dead(&notification(&log_key("trail-a", number))).await;
    }
    scene.account.emulator.set_fault(Box::new(|call| {
        (call.operation == "ReceiveMessage").then_some(Fault::Delay(Duration::from_secs(2)))
    }));
    for (signal, expected) in [("INT", 130), ("TERM", 143)] {
        let command = &mut scene.command(&["peek", "--limit", "1000"]);
        let mut peek = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("some are held", async || scene.counts().in_flight > 0).await;
        let kill = format!("kill -{signal} {}", peek.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(peek.wait().unwrap().code(), Some(expected));
        assert_eq!(scene.visible(), 25);
    }
    assert!(scene.receives().into_iter().max().unwrap() <= 2, "each look is one receive at most");
}

#[tokio::test]
async fn what_is_held_is_given_back_after_an_error() {
    let scene = Scene::new().await;
    for number in 0..15 {
        scene.dead(&notification(&log_key("trail-a", number))).await;
    }
    let receives = std::sync::atomic::AtomicU32::new(0);
    scene.account.emulator.set_fault(Box::new(move |call| {
        let second =
            call.operation == "ReceiveMessage" && receives.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
        second.then(|| Fault::before(403, "AccessDenied"))
    }));
    let output = scene.run(&["peek"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("grant sqs:ReceiveMessage on http"), "{}", stderr(&output));
    assert_eq!(scene.visible(), 15);
}

#[tokio::test]
async fn why_says_what_is_wrong_and_what_would_happen_now() {
    let scene = Scene::new().await;
    let mixed = scene.mixed().await;
    let lines = scene.lines(&["why"], 1);
    let expected = [
        (&mixed.bad_json, "fails", Some("not_json")),
        (&mixed.missing, "fails", Some("missing")),
        (&mixed.damaged, "fails", Some("ends_early")),
        (&mixed.repaired, "succeeds", None),
        (&mixed.good, "succeeds", None),
        (&mixed.record, "succeeds", None),
        (&mixed.test_event, "succeeds", None),
    ];
    for (id, verdict, reason) in expected {
        let line = &lines[id];
        assert_eq!(
            (line["verdict"].as_str(), line["problems"][0]["reason"].as_str()),
            (Some(verdict), reason),
            "{line}"
        );
    }
    let repaired = &lines[&mixed.repaired];
    assert_eq!((&repaired["records"], &repaired["events"]), (&json!(3), &json!(2)));
    assert_eq!(repaired["rules"], json!({ "access-key": 1, "trail-stopped": 1 }));
    // What was found before the damage would be delivered all the same.
    // It is read twice, and its record counts once.
    let damaged = &lines[&mixed.damaged];
    assert_eq!((&damaged["records"], &damaged["events"]), (&json!(1), &json!(1)));
    let detail = lines[&mixed.damaged]["problems"][0]["detail"].as_str().unwrap();
    assert_eq!(detail, format!("s3://{BUCKET}/{}: the gzip stream ends early", log_key("trail-a", 1)));

    let text = scene.run(&["why", &mixed.missing]);
    assert_eq!(code(&text), 1);
    assert!(stdout(&text).contains("fails for good\n"), "{}", stdout(&text));
    assert!(stdout(&text).contains("    restore the object"), "{}", stdout(&text));
    assert!(stderr(&text).contains("storing and alerting were not tried"), "{}", stderr(&text));
    assert_eq!(scene.lines(&["why", &mixed.good], 0).len(), 1);
    let unknown = scene.run(&["why", "00000000-0000-4000-8000-000000000000"]);
    assert_eq!(code(&unknown), 1);
    assert!(stderr(&unknown).contains("was not found"), "{}", stderr(&unknown));

    // Nothing happened.
    assert_eq!((scene.visible(), scene.account.left()), (7, 0));
    assert!(scene.account.documents().is_empty() && scene.account.items().await.is_empty());
    let called = scene.account.emulator.requests();
    let changed = |(service, operation): &(&str, String)| {
        matches!(*service, "sns" | "dynamodb") || operation.starts_with("Delete") || operation.starts_with("Send")
    };
    assert_eq!(called.keys().filter(|call| changed(call)).count(), 0, "{called:?}");
}

#[tokio::test]
async fn what_a_limit_left_out_is_told() {
    let scene = Scene::new().await;
    let ids = [scene.dead("{}").await, scene.dead("{}").await, scene.dead("{}").await];
    for command in ["peek", "why"] {
        let limited = scene.run(&[command, "--limit", "2"]);
        assert!(stderr(&limited).contains("2 of about 3 messages were looked at"), "{}", stderr(&limited));
        for whole in [&[command, "--limit", "3"][..], &[command]] {
            let whole = scene.run(whole);
            assert!(!stderr(&whole).contains("looked at"), "{}", stderr(&whole));
        }
    }
    let named = scene.run(&["why", "--limit", "1", &ids[0], &ids[1]]);
    assert_eq!(code(&named), 1);
    assert!(stderr(&named).contains("was not looked for"), "{}", stderr(&named));
    assert!(!stderr(&named).contains("not on this queue"), "{}", stderr(&named));
}

/// The daemon's own words, for the same message.
#[tokio::test]
async fn why_speaks_as_the_daemon_does() {
    let scene = Scene::new().await;
    let key = scene.object(1, b"<html>".to_vec()).await;
    scene.account.emulator.take_all(&scene.account.made.queue_url).unwrap();
    let body = notification_of(&[&log_key("trail-a", 99), &key]);
    let id = scene.dead(&body).await;
    let lines = scene.lines(&["why"], 1);
    let problems = lines[&id]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2);

    scene.account.emulator.send_message(&scene.account.made.queue_url, &body).await.unwrap();
    let daemon = Daemon::ready(&scene.account, &[]).await;
    until("both are logged", async || daemon.log().matches("a part of the message cannot be read").count() >= 2).await;
    let log = daemon.log();
    let told: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "a part of the message cannot be read")
        .take(2)
        .collect();
    for (problem, told) in problems.iter().zip(&told) {
        assert_eq!((&problem["reason"], &problem["detail"]), (&told["reason"], &told["detail"]), "{told}");
    }
}

#[tokio::test]
async fn why_tells_an_outage_from_a_fault_of_the_message() {
    let scene = Scene::new().await;
    let key = scene.object(1, log_object(&[1])).await;
    let good = scene.dead(&notification(&key)).await;
    let bad = scene.dead("no JSON").await;
    let answer = |fault: Fault| {
        scene.account.emulator.set_fault(Box::new(move |call| (call.operation == "GetObject").then(|| fault.clone())));
    };
    for (fault, reason, words) in [
        (Fault::before(503, "SlowDown"), "unreachable", "S3 is unreachable"),
        (Fault::before(403, "ExpiredToken"), "unreachable", "S3 cannot be asked"),
        (Fault::before(403, "AccessDenied"), "denied", "grant s3:GetObject on arn:aws:s3:::trail-logs/"),
    ] {
        answer(fault);
        let lines = scene.lines(&["why", "--timeout", "1"], 1);
        assert_eq!(lines[&bad]["verdict"], "fails");
        let line = &lines[&good];
        assert_eq!((&line["verdict"], &line["problems"][0]["reason"]), (&json!("unknown"), &json!(reason)), "{line}");
        assert!(line["problems"][0]["detail"].as_str().unwrap().contains(words), "{line}");
    }
    assert_eq!(scene.visible(), 2);
}

#[tokio::test]
async fn why_reads_only_what_the_configuration_allows() {
    let scene = Scene::new().await;
    let key = scene.object(1, log_object(&[1])).await;
    let (object, record) = (scene.dead(&notification(&key)).await, scene.dead(&through_eventbridge(1)).await);
    let mut command = scene.command(&["why", "--format", "jsonl"]);
    command.env("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", "other-logs").env("TRAILHOUND_SOURCE__INLINE_RECORDS", "false");
    let output = command.output().unwrap();
    let text = stdout(&output);
    let reason = |id: &str| {
        let line = text.lines().find(|line| line.contains(id)).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["problems"][0]["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!((reason(&object).as_str(), reason(&record).as_str()), ("bucket_not_allowed", "inline_records_off"));
    assert_eq!(scene.account.emulator.count("s3", "GetObject"), 0);
}

#[tokio::test]
async fn redrive_moves_what_would_succeed_and_the_daemon_alerts_for_it() {
    let scene = Scene::new().await;
    let mixed = scene.mixed().await;
    let outcomes = |lines: &BTreeMap<String, Value>, outcome: &str| -> Vec<String> {
        lines.iter().filter(|(_, line)| line["outcome"] == outcome).map(|(id, _)| id.clone()).collect()
    };
    let sorted = |mut ids: Vec<&String>| -> Vec<String> {
        ids.sort_unstable();
        ids.into_iter().cloned().collect()
    };
    let movable = sorted(vec![&mixed.repaired, &mixed.good, &mixed.record, &mixed.test_event]);
    let staying = sorted(vec![&mixed.bad_json, &mixed.missing, &mixed.damaged]);

    let tried = scene.lines(&["redrive", "--dry-run"], 0);
    assert_eq!((outcomes(&tried, "would_move"), outcomes(&tried, "left")), (movable.clone(), staying.clone()));
    assert_eq!((scene.visible(), scene.account.left()), (7, 0));

    let moved = scene.lines(&["redrive", "--succeeding"], 0);
    assert_eq!((outcomes(&moved, "moved"), outcomes(&moved, "left")), (movable, staying));
    assert_eq!(moved[&mixed.damaged]["reason"], "ends_early");
    assert_eq!((scene.visible(), scene.account.left()), (3, 4));

    let _daemon = Daemon::ready(&scene.account, &[]).await;
    scene.account.drained().await;
    let mut events: Vec<u32> = scene.account.documents().iter().map(event_of).collect();
    events.sort_unstable();
    assert_eq!(events, [1, 2, 7, 8, 10]);
    assert_eq!(scene.visible(), 3);

    // A message that was asked for by name and stays is no success.
    assert_eq!(scene.lines(&["redrive", &mixed.damaged], 1).len(), 1);
}

fn event_of(document: &Value) -> u32 {
    let id = document.pointer("/event/id").or_else(|| document.pointer("/event_id")).unwrap_or(&document["eventId"]);
    id.as_str().unwrap_or_else(|| panic!("{document}")).rsplit('-').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn redrive_keeps_body_and_attributes() {
    let scene = Scene::new().await;
    scene.account.emulator.take_all(&scene.account.made.queue_url).unwrap();
    let body = "not even JSON \u{e9}\n";
    let attributes = json!({ "origin": { "DataType": "String", "StringValue": "trail-b" } });
    let dlq = &scene.account.made.dlq_url;
    scene.sent(json!({ "QueueUrl": dlq, "MessageBody": body, "MessageAttributes": attributes })).await;
    scene.dead("another").await;
    let output = scene.run(&["redrive", "--all", "--limit", "1", "--rate", "100"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).ends_with("1 message moved to trailhound\n"), "{}", stdout(&output));
    let received = json!({ "QueueUrl": scene.account.made.queue_url, "MessageAttributeNames": ["All"] });
    let received = scene.account.emulator.json("sqs", "ReceiveMessage", received).await.unwrap();
    assert_eq!(received["Messages"][0]["Body"], body);
    assert_eq!(received["Messages"][0]["MessageAttributes"], attributes);
    assert_eq!(scene.visible(), 1);
}

/// Whatever goes wrong, each body is on one of the queues at least.
#[tokio::test]
async fn redrive_loses_nothing_when_calls_fail() {
    let bodies: Vec<String> = (0..12).map(|number| notification(&log_key("trail-a", number))).collect();
    let faults = [
        ("SendMessage", Fault::before(403, "AccessDenied"), 1, "grant sqs:SendMessage on"),
        ("SendMessage", Fault::LoseAnswer, 1, "sqs:SendMessage failed"),
        ("DeleteMessageBatch", Fault::before(403, "AccessDenied"), 1, "grant sqs:DeleteMessage on"),
        ("DeleteMessageBatch", Fault::LoseAnswer, 1, "sqs:DeleteMessageBatch failed"),
        ("ChangeMessageVisibilityBatch", Fault::before(403, "AccessDenied"), 0, ""),
    ];
    for (operation, fault, expected, words) in faults {
        let scene = Scene::new().await;
        for body in &bodies {
            scene.dead(body).await;
        }
        let hook = fault.clone();
        scene.account.emulator.set_fault(Box::new(move |call| (call.operation == operation).then(|| hook.clone())));
        let output = scene.run(&["redrive", "--all"]);
        let told = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(code(&output), expected, "{operation} {fault:?}: {told}");
        assert!(told.contains(words), "{operation} {fault:?}: {told}");
        let emulator = &scene.account.emulator;
        let mut there = emulator.bodies(&scene.account.made.queue_url).unwrap();
        there.extend(emulator.bodies(&scene.account.made.dlq_url).unwrap());
        assert!(bodies.iter().all(|body| there.contains(body)), "{operation} {fault:?}");
    }
}

#[tokio::test]
async fn only_the_right_name_purges() {
    let scene = Scene::new().await;
    let mixed = scene.mixed().await;
    for (arguments, words) in [
        (&["purge"][..], "standard input is no terminal"),
        (&["purge", "--confirm", "trailhound"], "that is not the name of the queue"),
        (&["purge", "--confirm", ""], "that is not the name of the queue"),
    ] {
        let output = scene.run(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert_eq!(scene.visible(), 7);
    }
    let output = scene.run(&["purge", "--confirm", "trailhound-dead-letters"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let (list, end) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(list.contains(&mixed.good) && list.contains(&log_key("trail-a", 3)), "{text}");
    assert_eq!(end, "7 messages deleted from trailhound-dead-letters");
    assert_eq!(scene.counts().total(), 0);
}

#[tokio::test]
async fn a_purge_that_is_denied_deletes_nothing_and_says_so() {
    let scene = Scene::new().await;
    scene.dead("x").await;
    scene.account.emulator.set_fault(Box::new(|call| {
        (call.operation == "DeleteMessageBatch").then(|| Fault::before(403, "AccessDenied"))
    }));
    let output = scene.run(&["purge", "--confirm", "trailhound-dead-letters"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("grant sqs:DeleteMessage on"), "{}", stderr(&output));
    assert_eq!(scene.visible(), 1);
}

#[tokio::test]
async fn a_queue_that_cannot_be_found_is_told() {
    let scene = Scene::new().await;
    let told = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
        stderr(&output)
    };
    let alone = scene.account.emulator.create_queue("alone", json!({})).await.unwrap();
    let text = told(scene.command(&["peek"]).env("SQS_QUEUE_URL", &alone));
    assert!(text.contains("/alone has no redrive policy") && text.contains("--queue-url"), "{text}");
    let nowhere = json!({ "deadLetterTargetArn": scene.account.emulator.queue_arn("gone"), "maxReceiveCount": 3 });
    let attributes = json!({ "RedrivePolicy": nowhere.to_string() });
    let lost = scene.account.emulator.create_queue("lost", attributes).await.unwrap();
    let text = told(scene.command(&["peek"]).env("SQS_QUEUE_URL", &lost));
    assert!(text.contains("sqs:GetQueueUrl failed") && text.contains(":gone does not exist"), "{text}");
    let text = told(&mut scene.command(&["peek", "--queue-url", &format!("{alone}-not")]));
    assert!(text.contains("alone-not does not exist"), "{text}");
    let text = told(&mut scene.command(&["redrive", "--queue-url", &scene.account.made.queue_url]));
    assert!(text.contains("is queue.url"), "{text}");
    scene.account.emulator.set_fault(Box::new(|call| {
        (call.operation == "GetQueueAttributes").then(|| Fault::before(403, "AccessDenied"))
    }));
    let text = told(&mut scene.command(&["peek"]));
    assert!(text.contains("grant sqs:GetQueueAttributes on"), "{text}");
}

#[test]
fn an_empty_configuration_and_wrong_arguments_are_told() {
    let output = trailhound(&["dlq", "peek"]).output().unwrap();
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).starts_with("queue.url"), "{}", stderr(&output));
    // To move messages it must be known where to.
    let url = "http://127.0.0.1:1/111122223333/dead";
    assert_eq!(code(&trailhound(&["dlq", "redrive", "--queue-url", url]).output().unwrap()), 78);
    for arguments in
        [&["redrive", "--all", "--succeeding"][..], &["peek", "--limit", "0"], &["peek", "--queue-url", "dead"], &[]]
    {
        let output = trailhound(&[&["dlq"], arguments].concat()).output().unwrap();
        assert_eq!(code(&output), 64, "{arguments:?}");
    }
    for command in ["peek", "why", "redrive", "purge"] {
        let help = trailhound(&["dlq", command, "--help"]).output().unwrap();
        assert!(stdout(&help).contains(&format!("\n  trailhound dlq {command}")), "{command}");
    }
}
