//! `trailhound doctor` against an installation in the emulator: in order, with each fault, and with a daemon or none.

use std::process::{Command, Output};

use serde_json::{Value, json};
use trailhound::emulator::{ACCOUNT, Fault, Names};

use crate::cli::{code, stdout, trailhound};
use crate::daemon::{Account, Daemon, until};

const BUCKET: &str = "example-cloudtrail-logs";
const TRAIL: &str = "organization-trail";
const QUEUE: &str = "trailhound";

/// An installation as Terraform would make it.
async fn installation() -> Account {
    let account = Account::new(Names { versioned: true, ..Names::default() }).await;
    let emulator = &account.emulator;
    let queue =
        json!({ "MessageRetentionPeriod": "604800", "VisibilityTimeout": "120", "Policy": policy(&account, BUCKET) });
    set(&account, &account.made.queue_url, queue).await;
    set(&account, &account.made.dlq_url, json!({ "MessageRetentionPeriod": "1209600" })).await;
    let backups = json!({ "PointInTimeRecoveryEnabled": true });
    let backups = json!({ "TableName": account.made.table, "PointInTimeRecoverySpecification": backups });
    emulator.json("dynamodb", "UpdateContinuousBackups", backups).await.unwrap();
    let trail = json!({
        "Name": TRAIL, "S3BucketName": BUCKET, "IsMultiRegionTrail": true, "EnableLogFileValidation": true,
    });
    emulator.json("cloudtrail", "CreateTrail", trail).await.unwrap();
    emulator.json("cloudtrail", "StartLogging", json!({ "Name": TRAIL })).await.unwrap();
    let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/monitored_events.json");
    std::fs::copy(pack, account.rules()).unwrap();
    // The test message of the notification, and then a log file.
    emulator.take_all(&account.made.queue_url).unwrap();
    let key = "AWSLogs/123456789012/CloudTrail/us-east-1/2026/05/01/123456789012_CloudTrail_us-east-1_20260501T1200Z_a.json.gz";
    emulator.put_object(BUCKET, key, crate::sim::log_object(&[])).await.unwrap();
    account.emulator.take_all(&account.made.queue_url).unwrap();
    account
}

fn policy(account: &Account, bucket: &str) -> String {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Sid": "Bucket",
        "Effect": "Allow",
        "Principal": { "Service": "s3.amazonaws.com" },
        "Action": "sqs:SendMessage",
        "Resource": account.emulator.queue_arn(QUEUE),
        "Condition": {
            "ArnEquals": { "aws:SourceArn": format!("arn:aws:s3:::{bucket}") },
            "StringEquals": { "aws:SourceAccount": ACCOUNT },
        },
    }]})
    .to_string()
}

async fn set(account: &Account, url: &str, attributes: Value) {
    let set = json!({ "QueueUrl": url, "Attributes": attributes });
    account.emulator.json("sqs", "SetQueueAttributes", set).await.unwrap();
}

/// The command, with the daemon's configuration.
fn command(account: &Account, arguments: &[&str]) -> Command {
    let mut all = vec!["doctor"];
    all.extend(arguments);
    let mut command = trailhound(&all);
    account
        .configure(&mut command)
        .env("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", BUCKET)
        .env("TRAILHOUND_HTTP__LISTEN", "127.0.0.1:0");
    command
}

/// Runs it away from the runtime's threads; the findings, by `--format jsonl`.
async fn examine(account: &Account, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut all = vec!["--format", "jsonl"];
    all.extend(arguments);
    let output = output(command(account, &all)).await;
    let findings = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (code(&output), findings)
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn with_status<'a>(findings: &'a [Value], status: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["status"] == status).collect()
}

/// That the only complaint is of `check`, and holds these words.
#[track_caller]
fn assert_only(findings: &[Value], check: &str, status: &str, words: &[&str]) {
    let complaints: Vec<&Value> =
        findings.iter().filter(|it| it["status"] == "problem" || it["status"] == "warning").collect();
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    assert_told(complaints[0], check, status, words);
}

#[track_caller]
fn assert_told(finding: &Value, check: &str, status: &str, words: &[&str]) {
    assert_eq!((&finding["check"], &finding["status"]), (&json!(check), &json!(status)), "{finding:#}");
    let text = format!("{} {}", finding["found"].as_str().unwrap(), finding["mend"].as_str().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "no {word:?} in {finding:#}");
    }
}

fn find<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_in_order_is_ok() {
    let account = installation().await;
    let (code, findings) = examine(&account, &[]).await;
    let skipped: Vec<&str> =
        with_status(&findings, "skipped").into_iter().map(|it| it["check"].as_str().unwrap()).collect();
    assert_eq!((code, skipped), (0, vec!["daemon", "round-trip"]), "{findings:#?}");
    assert!(
        with_status(&findings, "warning").is_empty() && with_status(&findings, "problem").is_empty(),
        "{findings:#?}"
    );
    let mut checks: Vec<&str> = findings.iter().map(|it| it["check"].as_str().unwrap()).collect();
    checks.dedup();
    assert_eq!(
        checks,
        [
            "configuration",
            "rules",
            "region",
            "credentials",
            "clock",
            "queue",
            "queue-visibility",
            "queue-poll",
            "queue-retention",
            "queue-key",
            "queue-redrive",
            "dead-letters",
            "dead-letters-retention",
            "bucket",
            "bucket-notification",
            "bucket-key",
            "bucket-versions",
            "bucket-read",
            "queue-policy",
            "topic",
            "topic-subscriptions",
            "table",
            "table-keys",
            "table-index",
            "table-ttl",
            "table-backup",
            "trail",
            "trail-logging",
            "trail-delivery",
            "trail-regions",
            "trail-global-events",
            "trail-validation",
            "trail-events",
            "daemon",
            "round-trip",
        ]
    );
    // It only looked.
    assert_eq!((account.left(), account.items().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_queue_is_found_with_its_mending() {
    let account = installation().await;
    let url = account.made.queue_url.clone();
    let redrive =
        account.emulator.json("sqs", "GetQueueAttributes", json!({ "QueueUrl": url, "AttributeNames": ["All"] }));
    let good = redrive.await.unwrap()["Attributes"]["RedrivePolicy"].as_str().unwrap().to_owned();

    set(&account, &url, json!({ "RedrivePolicy": "" })).await;
    let (code, findings) = examine(&account, &[]).await;
    assert_eq!(code, 1);
    assert_only(&findings, "queue-redrive", "problem", &["no redrive policy", "aws sqs set-queue-attributes"]);
    assert_told(find(&findings, "dead-letters"), "dead-letters", "skipped", &[]);
    set(&account, &url, json!({ "RedrivePolicy": good.replace("10", "1") })).await;
    let (code, findings) = examine(&account, &[]).await;
    // Warnings are no failure.
    assert_eq!(code, 0);
    assert_only(&findings, "queue-redrive", "warning", &["1 receive make", "maxReceiveCount"]);
    set(&account, &url, json!({ "RedrivePolicy": good })).await;

    account.emulator.send_message(&account.made.dlq_url, "what nobody could read").await.unwrap();
    let (_, findings) = examine(&account, &[]).await;
    assert_only(&findings, "dead-letters", "warning", &["1 message", "trailhound dlq why"]);
    account.emulator.take_all(&account.made.dlq_url).unwrap();

    set(&account, &url, json!({ "Policy": policy(&account, "another-bucket") })).await;
    let (code, findings) = examine(&account, &[]).await;
    assert_eq!(code, 1);
    let words = ["statement \"Bucket\" asks for aws:SourceArn", "another-bucket", "add to the queue's policy: {"];
    assert_only(&findings, "queue-policy", "problem", &words);
    set(&account, &url, json!({ "Policy": "" })).await;
    let (_, findings) = examine(&account, &[]).await;
    assert_only(&findings, "queue-policy", "problem", &["no policy", "set-queue-attributes"]);
    let open =
        policy(&account, BUCKET).replace("\"Principal\":{\"Service\":\"s3.amazonaws.com\"}", "\"Principal\":\"*\"");
    let (open, _) = open.split_once(",\"Condition\"").unwrap();
    set(&account, &url, json!({ "Policy": format!("{open}}}]}}") })).await;
    let (_, findings) = examine(&account, &[]).await;
    assert_only(&findings, "queue-open", "warning", &["anybody may send"]);
    set(&account, &url, json!({ "Policy": policy(&account, BUCKET) })).await;

    // A key that lets nobody of S3 in.
    let key = account.emulator.json("kms", "CreateKey", json!({})).await.unwrap();
    let key = key["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    set(&account, &url, json!({ "KmsMasterKeyId": key })).await;
    let (_, findings) = examine(&account, &[]).await;
    assert_only(&findings, "queue-key", "problem", &["does not let s3.amazonaws.com call kms:GenerateDataKey"]);
    account.emulator.json("kms", "DisableKey", json!({ "KeyId": key })).await.unwrap();
    let (_, findings) = examine(&account, &[]).await;
    let keys: Vec<&Value> = findings.iter().filter(|it| it["check"] == "queue-key").collect();
    assert_told(keys[0], "queue-key", "problem", &["Disabled", "aws kms enable-key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_bucket_is_found_with_its_mending() {
    let account = installation().await;
    let notify = async |xml: &str| {
        account.emulator.rest("PUT", &format!("/{BUCKET}?notification"), xml.to_owned()).await.unwrap();
    };
    notify("<NotificationConfiguration></NotificationConfiguration>").await;
    let (code, findings) = examine(&account, &[]).await;
    assert_eq!(code, 1);
    let words = ["nothing tells the queue", "aws s3api put-bucket-notification-configuration --bucket"];
    assert_only(&findings, "bucket-notification", "problem", &words);

    account.emulator.notify(BUCKET, QUEUE, "AWSLogs/999999999999/", "").await.unwrap();
    let (_, findings) = examine(&account, &[]).await;
    assert_only(&findings, "bucket-notification", "problem", &["log files such as AWSLogs/", "999999999999"]);

    // By way of a topic that the queue is not subscribed to.
    let topic = account.emulator.create_topic("objects").await.unwrap();
    let by_topic = format!(
        "<NotificationConfiguration><TopicConfiguration><Id>t</Id><Topic>{topic}</Topic>\
         <Event>s3:ObjectCreated:*</Event></TopicConfiguration></NotificationConfiguration>"
    );
    notify(&by_topic).await;
    let (_, findings) = examine(&account, &[]).await;
    assert_only(&findings, "bucket-notification", "problem", &["the queue is not subscribed to", &topic]);
    account.emulator.subscribe(&topic, QUEUE, true).await.unwrap();
    let (_, findings) = examine(&account, &[]).await;
    // Now the topic must be let in.
    assert_only(&findings, "queue-policy", "problem", &["sns.amazonaws.com", &topic]);

    let (_, findings) = examine(&account, &["--bucket", "no-such-bucket"]).await;
    let gone = findings.iter().find(|it| it["on"] == "no-such-bucket").unwrap();
    assert_told(gone, "bucket", "problem", &["does not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_topic_table_and_trail_is_found_with_its_mending() {
    let account = installation().await;
    let emulator = &account.emulator;
    let lonely = emulator.create_topic("nobody-hears").await.unwrap();
    let mut bare = command(&account, &["--format", "jsonl"]);
    bare.env("SNS_TOPIC_ARN", &lonely);
    let findings: Vec<Value> =
        stdout(&output(bare).await).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_only(
        &findings,
        "topic-subscriptions",
        "problem",
        &["nobody is subscribed", "aws sns subscribe --topic-arn"],
    );
    let email = [("TopicArn", account.made.topic_arn.as_str()), ("Protocol", "email"), ("Endpoint", "ada@example.com")];
    emulator.query("Subscribe", &email).await.unwrap();
    let (code, findings) = examine(&account, &[]).await;
    assert_eq!(code, 0);
    assert_only(&findings, "topic-subscriptions", "warning", &["1 subscription confirmed, 1", "email ada@example.com"]);

    let table = account.made.table.clone();
    let ttl =
        json!({ "TableName": table, "TimeToLiveSpecification": { "Enabled": false, "AttributeName": "ExpiresAt" } });
    emulator.json("dynamodb", "UpdateTimeToLive", ttl).await.unwrap();
    let stop = json!({ "Name": TRAIL });
    emulator.json("cloudtrail", "StopLogging", stop).await.unwrap();
    let single = json!({ "Name": TRAIL, "IsMultiRegionTrail": false, "EnableLogFileValidation": false });
    emulator.json("cloudtrail", "UpdateTrail", single).await.unwrap();
    let none =
        json!({ "TrailName": TRAIL, "EventSelectors": [{ "ReadWriteType": "All", "IncludeManagementEvents": false }] });
    emulator.json("cloudtrail", "PutEventSelectors", none).await.unwrap();
    let (code, findings) = examine(&account, &[]).await;
    assert_eq!(code, 1);
    for (check, status, word) in [
        ("table-ttl", "problem", "aws dynamodb update-time-to-live"),
        ("trail-logging", "problem", "aws cloudtrail start-logging"),
        ("trail-delivery", "skipped", "stopped"),
        ("trail-regions", "problem", "--is-multi-region-trail"),
        ("trail-validation", "warning", "--enable-log-file-validation"),
        ("trail-events", "problem", "put-event-selectors"),
    ] {
        assert_told(find(&findings, check), check, status, &[word]);
    }

    let keys = json!({
        "TableName": "other-keys",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
    });
    emulator.json("dynamodb", "CreateTable", keys).await.unwrap();
    for (name, check, word) in
        [("other-keys", "table-keys", "id (S, HASH)"), ("no-such-table", "table", "does not exist")]
    {
        let mut wrong = command(&account, &["--format", "jsonl"]);
        wrong.env("DYNAMODB_TABLE", name);
        let findings: Vec<Value> =
            stdout(&output(wrong).await).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_told(find(&findings, check), check, "problem", &[word]);
    }
    let (_, findings) = examine(&account, &["--trail", "another"]).await;
    assert_told(find(&findings, "trail"), "trail", "warning", &["is called another"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_may_not_ask_is_skipped_with_the_statement_that_would_let_it() {
    let account = installation().await;
    account.emulator.set_fault(Box::new(|call| {
        let denied = matches!(
            (call.service, call.operation.as_str()),
            ("cloudtrail", "DescribeTrails") | ("sns", "GetTopicAttributes") | ("dynamodb", "DescribeTimeToLive")
        );
        denied.then(|| Fault::before(403, "AccessDenied"))
    }));
    let (code, findings) = examine(&account, &[]).await;
    assert_eq!(code, 0, "{findings:#?}");
    for (check, action) in [
        ("trail", "cloudtrail:DescribeTrails"),
        ("topic", "sns:GetTopicAttributes"),
        ("table-ttl", "dynamodb:DescribeTimeToLive"),
    ] {
        let statement = format!("{{\"Effect\":\"Allow\",\"Action\":\"{action}\"");
        assert_told(find(&findings, check), check, "skipped", &[action, &statement]);
    }
    assert_told(find(&findings, "topic-subscriptions"), "topic-subscriptions", "skipped", &[]);
    assert_told(find(&findings, "queue"), "queue", "ok", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_no_good_end_the_questions() {
    let account = installation().await;
    account.emulator.set_fault(Box::new(|_| Some(Fault::before(403, "ExpiredToken"))));
    let (code, findings) = examine(&account, &["--round-trip"]).await;
    assert_eq!(code, 1);
    assert_only(&findings, "credentials", "problem", &["ExpiredToken", "aws sts get-caller-identity"]);
    assert_told(find(&findings, "round-trip"), "round-trip", "skipped", &["credentials"]);
    // An answer is an answer, and tells the time.
    assert_told(find(&findings, "clock"), "clock", "ok", &[]);
    assert_eq!(account.emulator.count("sqs", "GetQueueAttributes"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_told_and_the_rest_is_looked_at() {
    let account = installation().await;
    let mut missing = command(&account, &[]);
    missing.env_remove("SNS_TOPIC_ARN");
    let answer = output(missing).await;
    let told = stdout(&answer);
    assert_eq!(code(&answer), 1);
    for line in [
        "problem  configuration          alerting.topic_arn",
        "skipped  topic                  skipped, because",
        "ok       queue  ",
    ] {
        assert!(told.lines().any(|it| it.starts_with(line)), "no {line:?} in\n{told}");
    }
    assert!(told.trim_end().ends_with("1 problem, 3 skipped"), "{told}");
    let mut wrong = command(&account, &[]);
    wrong.env("TRAILHOUND_QUEUE__POLLERS", "many");
    let answer = output(wrong).await;
    assert_eq!(code(&answer), 1);
    assert!(stdout(&answer).contains("skipped, because the configuration cannot be read"), "{}", stdout(&answer));
    let usage = trailhound(&["doctor", "--timeout", "soon"]).output().unwrap();
    assert_eq!(code(&usage), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_ends_in_an_alert_that_is_marked_as_a_test() {
    let account = installation().await;
    let daemon = Daemon::ready(&account, &[]).await;
    let listen = format!("127.0.0.1:{}", daemon.port);
    for round in 1..=2 {
        // For as long as it takes: no clock counts that far.
        let timeout = "30000000000000w";
        let mut command = command(&account, &["--round-trip", "--timeout", timeout, "--format", "jsonl"]);
        command.env("TRAILHOUND_HTTP__LISTEN", &listen);
        let answer = output(command).await;
        let findings: Vec<Value> = stdout(&answer).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(code(&answer), 0, "{findings:#?}");
        assert_told(find(&findings, "round-trip"), "round-trip", "ok", &["stored after", "alerted after", "90 days"]);
        assert_told(find(&findings, "daemon"), "daemon", "ok", &["ready"]);
        // Each test alerts, and marks what it stored.
        until("the alert", async || account.documents().len() == round).await;
        assert_eq!(account.items().await.len(), round);
    }
    let alert = &account.documents()[0];
    assert_eq!(alert["event_name"], "TrailhoundDoctorTest");
    assert_eq!(alert["rules"].as_array().unwrap().len(), 1);
    assert_eq!(alert["rules"][0]["id"], "trailhound-doctor-test");
    assert!(alert["rules"][0]["description"].as_str().unwrap().contains("nothing happened"));
    let published = &account.emulator.published()[0];
    assert!(published.subject.as_deref().unwrap().starts_with("[LOW] TrailhoundDoctorTest"), "{published:?}");
    account.drained().await;
    assert_eq!(account.dead(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_says_where_it_stopped() {
    let account = installation().await;
    let arguments = ["--round-trip", "--timeout", "1s"];
    let (code, findings) = examine(&account, &arguments).await;
    assert_eq!(code, 1);
    assert_only(
        &findings,
        "round-trip",
        "problem",
        &["not taken from the queue", "1 message waiting", "start the daemon"],
    );
    account.emulator.take_all(&account.made.queue_url).unwrap();

    // Rules without the one for tests: nothing is sent.
    std::fs::write(account.rules(), crate::sim::rule_file(false)).unwrap();
    let (_, findings) = examine(&account, &arguments).await;
    assert_told(find(&findings, "round-trip"), "round-trip", "problem", &["nothing was sent", "\"trailhound.test\""]);
    assert_eq!(account.left(), 0);

    // A daemon with other rules than the doctor's deletes the test.
    let daemon = Daemon::ready(&account, &[("SECURITY_EVENTS_PATH", account.rules().to_str().unwrap())]).await;
    let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/monitored_events.json");
    let mut other = command(&account, &["--round-trip", "--timeout", "10s", "--format", "jsonl"]);
    other.env("SECURITY_EVENTS_PATH", pack);
    let findings: Vec<Value> =
        stdout(&output(other).await).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_told(
        find(&findings, "round-trip"),
        "round-trip",
        "problem",
        &["deleted, but not stored", "trailhound-doctor-test"],
    );
    drop(daemon);

    // A daemon that cannot publish stores it, and no more.
    std::fs::copy(pack, account.rules()).unwrap();
    let _daemon = Daemon::ready(&account, &[]).await;
    account.emulator.set_fault(Box::new(|call| {
        (call.service == "sns" && call.operation.starts_with("Publish"))
            .then(|| Fault::before(403, "AuthorizationError"))
    }));
    let (_, findings) = examine(&account, &["--round-trip", "--timeout", "10s"]).await;
    assert_told(
        find(&findings, "round-trip"),
        "round-trip",
        "problem",
        &["stored after", "but not alerted", "sns:Publish"],
    );
    account.emulator.clear_fault();

    let mut off = command(&account, &["--round-trip", "--format", "jsonl"]);
    off.env("TRAILHOUND_SOURCE__INLINE_RECORDS", "false");
    let findings: Vec<Value> =
        stdout(&output(off).await).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_told(find(&findings, "round-trip"), "round-trip", "skipped", &["source.inline_records is off"]);
}
