//! Scenarios of the real binary against the emulator: signals, reload, probes, kill -9.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use trailhound::emulator::{Fault, Names};

use crate::daemon::{Account, Daemon, swap_link, until};
use crate::sim::{event_id, log_key, rule_file, through_eventbridge};

fn quick() -> Names {
    Names { visibility: Duration::from_secs(2), max_receive_count: 3, ..Names::default() }
}

pub fn matching(events: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    events.into_iter().filter(|it| it % 3 != 0).map(event_id).collect()
}

async fn stored(account: &Account) -> BTreeSet<String> {
    account.items().await.iter().map(|it| it["EventId"]["S"].as_str().unwrap().to_owned()).collect()
}

/// Every event has exactly one item with all its rules settled, and was alerted; alerts that repeat bear the same id.
pub async fn nothing_was_lost(account: &Account, expected: &BTreeSet<String>) {
    assert_eq!(&stored(account).await, expected);
    let items = account.items().await;
    assert_eq!(items.len(), expected.len(), "one item for each event");
    for item in items {
        let sets = |name: &str| {
            let mut values: Vec<_> =
                item[name]["SS"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
            values.sort();
            values
        };
        assert_eq!(sets("Rules"), sets("SettledRules"), "{item}");
    }
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in account.documents() {
        let text = |name: &str| document[name].as_str().unwrap().to_owned();
        ids.entry(text("event_id")).or_default().insert(text("alert_id"));
    }
    assert_eq!(&ids.keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert!(ids.values().all(|it| it.len() == 1), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_trails_redelivery_and_eventbridge_end_in_one_item_and_one_alert() {
    let account = Account::new(Names::default()).await;
    let mut daemon = Daemon::ready(&account, &[]).await;
    let events: Vec<u32> = (0..30).collect();
    account.log("trail-a", 1, &events).await;
    account.log("trail-b", 2, &events[..20]).await;
    account.log("trail-b", 3, &events[20..]).await;
    for event in &events {
        account.emulator.send_message(&account.made.queue_url, &through_eventbridge(*event)).await.unwrap();
    }
    account.drained().await;
    nothing_was_lost(&account, &matching(0..30)).await;
    assert_eq!(account.documents().len(), 20, "one alert for each event");
    assert_eq!(daemon.metric("trailhound_messages_ignored_total{reason=\"s3_test_event\"}"), Some(1.0));
    assert_eq!(daemon.metric("trailhound_messages_received_total"), Some(34.0));
    assert_eq!(daemon.metric("trailhound_duplicates_suppressed_total"), Some(40.0));
    until("the deletes are counted", async || daemon.metric("trailhound_messages_deleted_total") == Some(34.0)).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_reaches_the_dead_letter_queue_and_what_could_be_read_is_delivered() {
    let account = Account::new(quick()).await;
    let daemon = Daemon::ready(&account, &[]).await;
    let mut damaged = crate::sim::log_object(&(0..200).collect::<Vec<_>>());
    let middle = damaged.len() / 2;
    damaged[middle..middle + 8].fill(0xff);
    let bucket = &account.made.bucket;
    account.emulator.put_object(bucket, &log_key("trail-a", 1), damaged).await.unwrap();
    account.emulator.send_message(&account.made.queue_url, "{\"what\":\"is this\"}").await.unwrap();
    // One message that names an object that is there and one that is not.
    let (there, missing) = (log_key("trail-a", 2), log_key("trail-a", 3));
    let body = serde_json::json!({ "s3Bucket": bucket, "s3ObjectKey": [missing, there] }).to_string();
    account.emulator.send_message(&account.made.queue_url, &body).await.unwrap();
    account.log("trail-a", 2, &[1000, 1001]).await;
    account.drained().await;
    until("three messages are dead", async || account.dead() == 3).await;
    let stored = stored(&account).await;
    assert!(stored.contains(&event_id(1000)) && stored.contains(&event_id(1001)));
    assert!(stored.contains(&event_id(1)), "what stood before the damage was delivered");
    let left = |reason: &str| daemon.metric(&format!("trailhound_messages_left_total{{reason=\"{reason}\"}}"));
    assert_eq!(left("unknown_shape"), Some(3.0));
    assert_eq!(left("missing"), Some(3.0));
    assert!([left("damaged"), left("ends_early")].iter().any(|it| *it >= Some(3.0)), "{}", daemon.log());
    assert!(daemon.log().contains("message left for redrive"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_swaps_the_rules_whole_or_keeps_them() {
    let account = Account::new(Names::default()).await;
    // The file is a link that a deployment swaps.
    let (first, second) = (account.folder.path().join("first.json"), account.folder.path().join("second.json"));
    std::fs::write(&first, rule_file(false)).unwrap();
    std::fs::write(&second, rule_file(true)).unwrap();
    std::fs::remove_file(account.rules()).unwrap();
    swap_link(&account.rules(), &first);
    let mut daemon = Daemon::ready(&account, &[]).await;
    let before = daemon.json("/rules");
    assert_eq!(before["rules"].as_array().unwrap().len(), 2);

    std::fs::write(&first, "{\"events\": [{\"id\": \"x\"}]}").unwrap();
    daemon.signal("HUP");
    until("the bad file is refused", async || {
        daemon.metric("trailhound_rules_reloads_total{outcome=\"failed\"}") == Some(1.0)
    })
    .await;
    assert_eq!(daemon.json("/rules")["hash"], before["hash"], "the rules in force stay");
    assert_eq!(daemon.metric("trailhound_rules_last_reload_success"), Some(0.0));

    swap_link(&account.rules(), &second);
    daemon.signal("HUP");
    until("the swapped link is followed", async || daemon.json("/rules")["rules"].as_array().unwrap().len() == 3).await;
    assert_eq!(daemon.metric("trailhound_rules_last_reload_success"), Some(1.0));
    assert_ne!(daemon.json("/rules")["hash"], before["hash"]);

    account.log("trail-a", 1, &[2]).await;
    account.drained().await;
    let rules = account.documents()[0]["rules"].as_array().unwrap().len();
    assert_eq!(rules, 2, "evaluated under the new rules");
    daemon.signal("INT");
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_and_gives_back_the_rest() {
    let account = Account::new(Names { visibility: Duration::from_secs(600), ..Names::default() }).await;
    let mut daemon = Daemon::ready(&account, &[("TRAILHOUND_SHUTDOWN__DEADLINE", "5s")]).await;
    for number in 0..60 {
        account.log("trail-a", number, &[number * 3 + 1]).await;
    }
    until("some are done", async || account.documents().len() > 5).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    let counts = account.emulator.queue_counts(&account.made.queue_url).unwrap();
    assert_eq!(counts.in_flight, 0, "what is left is visible at once");
    let _second = Daemon::ready(&account, &[]).await;
    account.drained().await;
    nothing_was_lost(&account, &matching((0..60).map(|it| it * 3 + 1))).await;
    assert_eq!(account.documents().len(), 60);
    assert_eq!(account.dead(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_an_outage_gives_back_within_the_deadline_and_a_second_one_ends_at_once() {
    let account = Account::new(Names { visibility: Duration::from_secs(600), ..Names::default() }).await;
    account.emulator.set_fault(Box::new(|call| {
        (call.operation == "PublishBatch").then(|| Fault::before(503, "ServiceUnavailable"))
    }));
    let mut daemon = Daemon::ready(&account, &[("TRAILHOUND_SHUTDOWN__DEADLINE", "5s")]).await;
    account.log("trail-a", 1, &[1]).await;
    until("it is held", async || daemon.metric("trailhound_intake_paused") == Some(1.0)).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    let counts = account.emulator.queue_counts(&account.made.queue_url).unwrap();
    assert_eq!((counts.visible, counts.in_flight), (1, 0), "visible at once, not in ten minutes");

    let long = [("TRAILHOUND_SHUTDOWN__DEADLINE", "100s"), ("TRAILHOUND_SHUTDOWN__STOP_TIMEOUT", "120s")];
    let mut daemon = Daemon::ready(&account, &long).await;
    until("it is held again", async || daemon.metric("trailhound_intake_paused") == Some(1.0)).await;
    daemon.signal("TERM");
    until("it drains", async || daemon.status("/readyz") == Some(503)).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(143), "not a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle_loses_nothing() {
    let account = Account::new(Names { visibility: Duration::from_secs(2), ..Names::default() }).await;
    let events: Vec<u32> = (0..120).collect();
    for (number, chunk) in (0..).zip(events.chunks(6)) {
        account.log("trail-a", number, chunk).await;
    }
    for deaths in 1..=3 {
        let daemon = Daemon::ready(&account, &[]).await;
        until("it works", async || account.documents().len() >= deaths * 12).await;
        daemon.kill();
    }
    let daemon = Daemon::ready(&account, &[]).await;
    account.drained().await;
    nothing_was_lost(&account, &matching(0..120)).await;
    assert_eq!(account.dead(), 0);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_a_queue() {
    let account = Account::new(Names::default()).await;
    let _first = Daemon::ready(&account, &[]).await;
    let _second = Daemon::ready(&account, &[]).await;
    let events: Vec<u32> = (0..60).collect();
    let reversed: Vec<u32> = events.iter().rev().copied().collect();
    for number in 0..6 {
        account.log("trail-a", number, &events).await;
        account.log("trail-b", 10 + number, &reversed).await;
    }
    account.drained().await;
    nothing_was_lost(&account, &matching(0..60)).await;
    assert_eq!(account.documents().len(), 40, "one alert for each event");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_repeat_an_alert_at_most_under_its_own_id() {
    let account = Account::new(Names::default()).await;
    let calls = AtomicUsize::new(0);
    account.emulator.set_fault(Box::new(move |call| {
        let interesting =
            ["PublishBatch", "PutItem", "UpdateItem", "DeleteMessageBatch"].contains(&call.operation.as_str());
        let every_third = calls.fetch_add(usize::from(interesting), Ordering::Relaxed).is_multiple_of(3);
        (interesting && every_third).then_some(Fault::LoseAnswer)
    }));
    let _daemon = Daemon::ready(&account, &[]).await;
    let events: Vec<u32> = (0..30).collect();
    for number in 0..3 {
        account.log("trail-a", number, &events).await;
    }
    account.drained().await;
    nothing_was_lost(&account, &matching(0..30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_is_resumed() {
    let account = Account::new(Names::default()).await;
    let cuts = AtomicUsize::new(0);
    account.emulator.set_fault(Box::new(move |call| {
        let get = call.operation == "GetObject";
        (get && cuts.fetch_add(1, Ordering::Relaxed) < 4).then_some(Fault::CutBody { after: 20_000 })
    }));
    let daemon = Daemon::ready(&account, &[]).await;
    let records: Vec<_> = (0..200).map(crate::sim::record).collect();
    let plain = serde_json::json!({ "Records": records }).to_string();
    account.emulator.put_object(&account.made.bucket, &log_key("trail-a", 1), plain).await.unwrap();
    account.drained().await;
    nothing_was_lost(&account, &matching(0..200)).await;
    assert_eq!(daemon.metric("trailhound_object_resumes_total"), Some(4.0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_the_truth() {
    let account = Account::new(Names::default()).await;
    let missing = account.made.topic_arn.replace("security-alerts", "not-made-yet");
    let daemon = Daemon::start(&account, &[("SNS_TOPIC_ARN", &missing)]);
    until("alive", async || daemon.status("/livez") == Some(200)).await;
    until("the topic is missed", async || {
        daemon.get("/readyz").is_some_and(|(status, body)| status == 503 && body.contains("not-made-yet"))
    })
    .await;
    account.log("trail-a", 1, &[1]).await;
    assert!(!healthcheck(&daemon), "never ready: a deployment that cannot work is rolled back");
    assert_eq!(daemon.metric("trailhound_messages_received_total"), Some(0.0));
    account.emulator.create_topic("not-made-yet").await.unwrap();
    until("ready", async || daemon.status("/readyz") == Some(200)).await;
    assert!(healthcheck(&daemon));
    account.drained().await;
    assert_eq!(account.documents().len(), 1);
    assert_eq!(daemon.status("/version"), Some(200));
    assert_eq!(daemon.status("/metrics"), Some(200));
    assert_eq!(account.dead(), 0);
}

fn healthcheck(daemon: &Daemon) -> bool {
    std::process::Command::new(env!("CARGO_BIN_EXE_trailhound"))
        .arg("healthcheck")
        .env_clear()
        .env("TRAILHOUND_HTTP__LISTEN", format!("127.0.0.1:{}", daemon.port))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_in_s3_are_read_at_the_start_and_reloaded_when_they_change() {
    let account = Account::new(Names::default()).await;
    let bucket = "example-rules";
    account.emulator.create_bucket(bucket, true).await.unwrap();
    let put = async |text: &str| account.emulator.put_object(bucket, "trailhound.json", text.to_owned()).await.unwrap();
    let path = format!("s3://{bucket}/trailhound.json");
    put(&rule_file(false)).await;
    let settings = [
        ("SECURITY_EVENTS_PATH", ""),
        ("TRAILHOUND_RULES__PATH", path.as_str()),
        ("TRAILHOUND_RULES__POLL_INTERVAL", "1s"),
        // The rules are read though their bucket holds no logs.
        ("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", account.made.bucket.as_str()),
    ];
    let mut daemon = Daemon::ready(&account, &settings).await;
    let before = daemon.json("/rules");
    assert_eq!((before["path"].as_str(), before["rules"].as_array().unwrap().len()), (Some(path.as_str()), 2));
    assert!(before["etag"].is_string());

    put("{\"events\": [{\"id\": \"x\"}]}").await;
    let failed = "trailhound_rules_reloads_total{outcome=\"failed\"}";
    until("the bad object is refused", async || daemon.metric(failed) == Some(1.0)).await;
    let refused = daemon.json("/rules");
    assert_eq!((&refused["hash"], &refused["etag"]), (&before["hash"], &before["etag"]), "the rules in force stay");
    assert!(refused["error"].as_str().unwrap().starts_with(&format!("the rule file {path} is wrong:")), "{refused}");

    put(&rule_file(true)).await;
    until("the new object is in force", async || daemon.json("/rules")["rules"].as_array().unwrap().len() == 3).await;
    assert_eq!(daemon.metric(failed), Some(1.0), "the bad object was refused once");
    assert_eq!(daemon.metric("trailhound_rules_last_reload_success"), Some(1.0));
    account.log("trail-a", 1, &[2]).await;
    account.drained().await;
    assert_eq!(account.documents()[0]["rules"].as_array().unwrap().len(), 2, "evaluated under the new rules");
    daemon.signal("HUP");
    until("SIGHUP reads it again", async || {
        daemon.metric("trailhound_rules_reloads_total{outcome=\"ok\"}") == Some(2.0)
    })
    .await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_in_s3_that_cannot_be_reached_are_waited_for_and_missing_ones_are_an_error() {
    let account = Account::new(Names::default()).await;
    let (bucket, key) = ("example-rules", "trailhound.json");
    account.emulator.create_bucket(bucket, true).await.unwrap();
    let path = format!("s3://{bucket}/{key}");
    let settings = [("SECURITY_EVENTS_PATH", ""), ("TRAILHOUND_RULES__PATH", path.as_str())];
    let mut daemon = Daemon::start(&account, &settings);
    assert_eq!(daemon.ended().await.code(), Some(78), "{}", daemon.log());
    assert!(
        daemon.log().contains(&format!("cannot read the rule file {path}: s3:GetObject failed")),
        "{}",
        daemon.log()
    );

    account.emulator.put_object(bucket, key, rule_file(false)).await.unwrap();
    account.log("trail-a", 1, &[1]).await;
    account
        .emulator
        .set_fault(Box::new(|request| (request.service == "s3").then(|| Fault::before(503, "ServiceUnavailable"))));
    let mut daemon = Daemon::start(&account, &settings);
    until("it answers", async || daemon.status("/livez") == Some(200)).await;
    until("it says what it waits for", async || {
        let ready = daemon.json("/readyz");
        let rules = &ready["checks"][0];
        rules["name"] == "rules" && rules["ok"] == false && rules["detail"].as_str().unwrap().contains(&path)
    })
    .await;
    assert_eq!(daemon.status("/rules"), Some(503));
    assert_eq!(account.emulator.count("sqs", "ReceiveMessage"), 0);
    account.emulator.clear_fault();
    account.drained().await;
    assert_eq!(account.documents().len(), 1);

    // It may also be stopped while it waits.
    account
        .emulator
        .set_fault(Box::new(|request| (request.service == "s3").then(|| Fault::before(503, "ServiceUnavailable"))));
    let settings = [settings[0], settings[1], ("TRAILHOUND_EMF__ENABLED", "true")];
    let mut waiting = Daemon::start(&account, &settings);
    until("it answers", async || waiting.status("/livez") == Some(200)).await;
    let (_, metrics) = waiting.get("/metrics").unwrap();
    assert!(!metrics.contains("trailhound_dependency_up{"), "nothing is said of what was not asked yet: {metrics}");
    waiting.signal("TERM");
    assert_eq!(waiting.ended().await.code(), Some(0), "{}", waiting.log());
    assert_eq!(waiting.output().lines().count(), 1, "the last line of metrics");
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_in_s3_can_be_checked_from_the_command_line() {
    let account = Account::new(Names::default()).await;
    account.emulator.put_object(&account.made.bucket, "rules.json", rule_file(false)).await.unwrap();
    let path = format!("s3://{}/rules.json", account.made.bucket);
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = crate::cli::configured(arguments);
        command.env("AWS_ENDPOINT_URL", account.emulator.endpoint()).env("AWS_REGION", "us-east-1");
        command.envs(variables.iter().copied());
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        (crate::cli::code(&output), crate::cli::stdout(&output), crate::cli::stderr(&output))
    };
    let found = format!("{path}: 2 rules, 0 errors, 0 warnings\n");
    assert_eq!(run(&["rules", "check", &path], &[]), (0, found.clone(), String::new()));
    assert_eq!(run(&["rules", "check"], &[("TRAILHOUND_RULES__PATH", &path)]).1, found);
    let (code, _, said) = run(&["rules", "check", &format!("{path}x")], &[]);
    assert!(code == 78 && said.contains("s3:GetObject failed"), "{code}: {said}");
    let (code, _, said) = run(&["rules", "test", &path], &[]);
    assert!(code == 1 && said.contains("say with --tests where the tests of s3://"), "{code}: {said}");
    let (code, _, said) = run(&["rules", "check", "https://example.com/rules.json"], &[]);
    assert!(code == 1 && said.contains("https:// is not read; write"), "{code}: {said}");
    let (code, _, said) = run(&["rules", "check", &path], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    assert!(code == 1 && said.contains("s3:GetObject failed"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_holds_metrics_for_cloudwatch_or_nothing() {
    let account = Account::new(Names::default()).await;
    let settings = [("TRAILHOUND_EMF__ENABLED", "true"), ("TRAILHOUND_EMF__SERVICE", "blue")];
    let mut daemon = Daemon::ready(&account, &settings).await;
    account.log("trail-a", 1, &[0, 1, 2, 3]).await;
    account.drained().await;
    let matched = f64::from(u32::try_from(matching(0..4).len()).unwrap());
    // The first interval takes a minute: this is the line of the stop.
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    let lines: Vec<serde_json::Value> =
        daemon.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let directive = serde_json::json!({ "Namespace": "trailhound", "Dimensions": [["Service"]] });
    let mut told = 0.0;
    for line in &lines {
        let directives = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert_eq!(directives.len(), 1);
        for (member, value) in directive.as_object().unwrap() {
            assert_eq!(&directives[0][member], value);
        }
        assert!(line["_aws"]["Timestamp"].as_i64().unwrap() > 1_700_000_000_000, "milliseconds");
        assert_eq!(line["Service"], "blue");
        told += line["AlertsPublished"].as_f64().unwrap();
    }
    assert!((told - matched).abs() < 0.5, "{told} of {matched} alerts are told in {lines:#?}");

    let mut daemon = Daemon::ready(&account, &[]).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert_eq!(daemon.output(), "", "nobody asked for metrics");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_metrics_that_is_gone_harms_nothing() {
    let account = Account::new(Names::default()).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut daemon = Daemon::start_with(&account, &[("TRAILHOUND_EMF__ENABLED", "true")], Some(writer.into()));
    daemon.becomes_ready().await;
    account.log("trail-a", 1, &[1]).await;
    account.drained().await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    assert!(daemon.log().contains("metrics cannot be written to standard output"), "{}", daemon.log());
}

/// The log of a daemon at its most talkative, to which strangers send what looks like lines of it.
async fn talkative(format: &str) -> String {
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const TOKEN: &str = "FwoGZXIvYXdzEXAMPLEsessionTOKEN";
    let account = Account::new(Names { max_receive_count: 1, ..quick() }).await;
    let settings = [
        ("AWS_SESSION_TOKEN", TOKEN),
        ("LOG_LEVEL", "trace,aws_config=debug"),
        ("TRAILHOUND_LOG__FORMAT", format),
        ("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", account.made.bucket.as_str()),
    ];
    let mut daemon = Daemon::ready(&account, &settings).await;
    let forged =
        "\r\n{\"level\":\"INFO\",\"message\":\"forged\"}\u{85}forged\u{2028}forged\u{1b}[2J\u{202e}\u{0}forged";
    let escaped = serde_json::to_string(forged).unwrap();
    let key = format!("{forged}{}", log_key("trail-a", 1));
    let notice = |bucket: &str, key: &str| serde_json::json!({ "s3Bucket": bucket, "s3ObjectKey": [key] }).to_string();
    let mut record = crate::sim::record(1);
    record["userAgent"] = "body-of-a-record".into();
    record["eventName"] = format!("StopLogging{forged}").into();
    record["eventID"] = format!("id{forged}").into();
    let mut through = serde_json::from_str::<serde_json::Value>(&through_eventbridge(1)).unwrap();
    through["detail"] = record;
    for body in [
        forged.replace('\0', ""),
        format!("{{\"body-of-a-message\": {escaped}}}"),
        format!("{{\"Records\": [{{\"eventSource\": \"aws:s3\", \"eventName\": {escaped}, \"s3\": {escaped}}}]}}"),
        notice(&account.made.bucket, &key),
        notice(&format!("other{forged}"), &log_key("trail-a", 1)),
        serde_json::json!({ "Type": "Notification", "Message": forged, "TopicArn": forged }).to_string(),
        through.to_string(),
    ] {
        account.emulator.send_message(&account.made.queue_url, &body).await.unwrap();
    }
    let mut damaged = crate::sim::log_object(&[1, 2, 4, 5]);
    damaged.truncate(200);
    account.emulator.put_object(&account.made.bucket, &log_key("trail-a", 2), damaged).await.unwrap();
    account.drained().await;
    let denied = AtomicUsize::new(0);
    account.emulator.set_fault(Box::new(move |call| {
        let meant = ["PutItem", "DeleteMessageBatch", "PublishBatch"].contains(&call.operation.as_str());
        (meant && denied.fetch_add(1, Ordering::Relaxed) < 3).then(|| Fault::before(400, "AccessDeniedException"))
    }));
    account.log("trail-a", 3, &[4, 5]).await;
    account.drained().await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("forged"), "something of it is told: {log}");
    let untold = [
        SECRET,
        TOKEN,
        "Signature=",
        "Credential=",
        "X-Amz-",
        "body-of-a-record",
        "arn:aws:iam::111122223333:user/alice",
    ];
    for secret in untold {
        assert!(!log.contains(secret), "{secret} is logged: {log}");
    }
    let receipt = log.split(|it: char| !it.is_ascii_hexdigit() && it != '-').find(|it| it.len() > 100);
    assert_eq!(receipt, None, "a receipt handle is logged: {log}");
    let hidden = ['\r', '\u{85}', '\u{2028}', '\u{1b}', '\u{202e}', '\u{0}'];
    assert!(!log.contains(hidden), "{log:?}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_forges_a_line_of_the_log_and_no_secret_is_in_it() {
    let (json, text) = tokio::join!(talkative("json"), talkative("text"));
    for line in json.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"] != "forged" && line["target"].is_string(), "{line}");
    }
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        let level = rest.trim_start().split(' ').next().unwrap();
        assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line}");
    }
}
