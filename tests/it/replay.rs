//! `trailhound replay`: the past through the whole pipeline, without telling anything twice.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use trailhound::emulator::Names;

use crate::cli::{code, stderr, stdout, trailhound};
use crate::daemon::{Account, Daemon, until};
use crate::sim::{event_id, log_key, log_object};

/// Far more days than lie between the fixtures and any day on which they are used.
const LONG: &str = "36500";

/// An account whose bucket tells nobody what is put in it.
struct Past {
    account: Account,
}

impl Past {
    /// With these files of ten events each, one after another.
    async fn new(files: u32) -> Self {
        let past = Self { account: Account::new(Names::default()).await };
        for number in 0..files {
            past.put(number).await;
        }
        past.account.emulator.take_all(&past.account.made.queue_url).unwrap();
        past
    }

    async fn put(&self, number: u32) {
        let object = log_object(&(number * 10..number * 10 + 10).collect::<Vec<_>>());
        let (bucket, key) = (&self.account.made.bucket, log_key("org", number));
        self.account.emulator.put_object(bucket, &key, object).await.unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let made = &self.account.made;
        let mut command = trailhound(&["replay"]);
        command.arg(format!("s3://{}/org", made.bucket)).args(arguments);
        self.account.configure(&mut command).env("TRAILHOUND_STORE__RETENTION_DAYS", LONG);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    async fn events(&self) -> BTreeSet<String> {
        let items = self.account.items().await;
        let events = items.iter().filter(|item| item["Rules"].is_object());
        events.map(|item| item["EventId"]["S"].as_str().unwrap().to_owned()).collect()
    }

    /// Items with rules that are not settled.
    async fn unsettled(&self) -> usize {
        let all = |set: &Value| -> BTreeSet<String> {
            set["SS"].as_array().into_iter().flatten().map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        let items = self.account.items().await;
        let events = items.iter().filter(|item| item["Rules"].is_object());
        events.filter(|item| all(&item["Rules"]) != all(&item["SettledRules"])).count()
    }

    fn alerts(&self) -> Vec<String> {
        self.account.documents().iter().map(|it| it["alert_id"].as_str().unwrap().to_owned()).collect()
    }

    fn resume(&self) -> PathBuf {
        self.account.folder.path().join("resume.jsonl")
    }

    fn resume_arguments(&self) -> Vec<String> {
        vec!["--resume".to_owned(), self.resume().to_str().unwrap().to_owned()]
    }
}

fn distinct(alerts: &[String]) -> BTreeSet<&String> {
    alerts.iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_more_it_only_counts() {
    let past = Past::new(12).await;
    let output = past.run(&["--from", "2026-05-01", "--to", "2026-05-01", "--region", "us-east-1"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("12 objects") && text.contains("111122223333") && text.contains("Nothing was done"),
        "{text}"
    );
    assert!(text.contains("12 GET") && text.contains("USD"), "{text}");
    let output = past.run(&["--format", "jsonl"]);
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["objects"], &lines[0]["region"], &lines[0]["first_day"]),
        (&12.into(), &"us-east-1".into(), &"2026-05-01".into())
    );
    assert_eq!((&lines[1]["objects"], &lines[1]["too_old"]), (&12.into(), &0.into()));
    let output = past.run(&["--from", "2026-05-02"]);
    assert!(stdout(&output).starts_with("0 objects"), "{}", stdout(&output));
    assert_eq!((past.events().await.len(), past.account.left(), past.alerts().len()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_it_stores_and_alerts_once() {
    let past = Past::new(6).await;
    let output = past.run(&["--in-place"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("6 objects done, 0 failed"), "{}", stderr(&output));
    let (events, alerts) = (past.events().await, past.alerts());
    assert!(events.contains(&event_id(1)) && events.contains(&event_id(58)), "{events:?}");
    assert!(alerts.len() > 20 && distinct(&alerts).len() == alerts.len(), "{alerts:?}");
    assert_eq!(past.unsettled().await, 0);
    // Settled events are not alerted again, and the queue of the fleet was left alone.
    let output = past.run(&["--in-place", "--format", "jsonl"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().filter(|line| line.contains(r#""outcome":"done""#)).count(), 6);
    assert_eq!((past.events().await, past.alerts()), (events, alerts));
    assert_eq!(past.account.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_stored_is_settled() {
    let past = Past::new(3).await;
    let output = past.run(&["--in-place", "--no-alert"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let events = past.events().await;
    assert!(events.len() > 15, "{events:?}");
    assert_eq!((past.alerts().len(), past.unsettled().await), (0, 0));
    // The daemon has nothing to add.
    let output = past.run(&["--to-queue"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let _daemon = Daemon::ready(&past.account, &[]).await;
    past.account.drained().await;
    assert_eq!((past.events().await, past.alerts().len()), (events, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_expired_is_not_alerted_unless_asked() {
    let past = Past::new(2).await;
    let short =
        |arguments: &[&str]| past.command(arguments).env("TRAILHOUND_STORE__RETENTION_DAYS", "1").output().unwrap();
    let output = short(&[]);
    assert!(stdout(&output).contains("2 of them are older than 1 days"), "{}", stdout(&output));
    let line: Value = stdout(&short(&["--format", "jsonl"])).lines().last().map(serde_json::from_str).unwrap().unwrap();
    // A queue costs what is sent to it.
    assert_eq!((&line["objects"], &line["too_old"], &line["sqs_usd"]), (&2.into(), &2.into(), &0.0.into()));
    let output = short(&["--to-queue"]);
    assert_eq!((code(&output), past.account.left()), (0, 0));
    assert!(stderr(&output).contains("2 left out as older than the retention"), "{}", stderr(&output));
    assert_eq!(code(&short(&["--in-place"])), 0);
    let events = past.events().await;
    assert!(!events.is_empty());
    assert_eq!((past.alerts().len(), past.unsettled().await), (0, 0));
    past.put(2).await;
    past.account.emulator.take_all(&past.account.made.queue_url).unwrap();
    assert_eq!(code(&short(&["--in-place", "--alert-old"])), 0);
    assert!(past.events().await.len() > events.len() && !past.alerts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_queue_the_fleet_does_it() {
    let past = Past::new(25).await;
    let resume = past.resume_arguments();
    let arguments: Vec<&str> =
        ["--to-queue", "--rate", "1000"].into_iter().chain(resume.iter().map(String::as_str)).collect();
    let output = past.run(&arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("25 notifications sent, 0 failed"), "{}", stderr(&output));
    assert_eq!(past.account.left(), 25);
    let output = past.run(&arguments);
    assert!(stderr(&output).contains("0 notifications sent"), "{}", stderr(&output));
    assert_eq!(past.account.left(), 25);
    let _daemon = Daemon::ready(&past.account, &[]).await;
    past.account.drained().await;
    let alerts = past.alerts();
    assert!(alerts.len() > 100 && distinct(&alerts).len() == alerts.len());
    assert_eq!(past.unsettled().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_costs_only_itself() {
    let past = Past::new(3).await;
    let (bucket, key) = (&past.account.made.bucket, log_key("org", 7));
    past.account.emulator.put_object(bucket, &key, "no log".to_owned()).await.unwrap();
    let resume = past.resume_arguments();
    let arguments: Vec<&str> = ["--in-place"].into_iter().chain(resume.iter().map(String::as_str)).collect();
    let output = past.run(&arguments);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).contains(&format!("failed: s3://{bucket}/{key}")), "{}", stdout(&output));
    assert!(stderr(&output).contains("3 objects done, 1 failed"), "{}", stderr(&output));
    assert!(stderr(&output).contains("not a CloudTrail log"), "{}", stderr(&output));
    // Mended, the next run does it, and nothing else.
    past.put(7).await;
    let output = past.run(&arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("1 objects done, 0 failed"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_it_goes_on_where_it_was() {
    let past = Past::new(60).await;
    let resume = past.resume_arguments();
    let arguments: Vec<&str> = ["--in-place"].into_iter().chain(resume.iter().map(String::as_str)).collect();
    let done = || std::fs::read_to_string(past.resume()).map_or(0, |text| text.lines().count());
    let mut child = past
        .command(&arguments)
        .env("TRAILHOUND_PIPELINE__CONCURRENCY", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("some are done", async || done() >= 3).await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    until("it has ended", async || child.try_wait().unwrap().is_some()).await;
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = done();
    assert!((3..60).contains(&before), "{before}");
    let output = past.run(&arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(done(), 60);
    assert!(stderr(&output).contains(&format!("{} objects done, 0 failed", 60 - before)), "{}", stderr(&output));
    let alerts = past.alerts();
    assert_eq!(distinct(&alerts).len(), alerts.len());
    assert_eq!(past.unsettled().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_rate_is_kept_and_interrupted_at_once() {
    let past = Past::new(30).await;
    let began = tokio::time::Instant::now();
    let mut child = past.command(&["--to-queue", "--rate", "1"]).stderr(Stdio::null()).spawn().unwrap();
    until("one is sent", async || past.account.left() > 0).await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let interrupted = tokio::time::Instant::now();
    until("it has ended", async || child.try_wait().unwrap().is_some()).await;
    assert!(interrupted.elapsed().as_secs() < 5, "{:?}", interrupted.elapsed());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(past.account.left() as u64 <= began.elapsed().as_secs() + 1, "{}", past.account.left());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_file_that_cannot_be_written_ends_it_at_once() {
    let past = Past::new(60).await;
    let resume = past.resume_arguments();
    let arguments: Vec<&str> = ["--in-place"].into_iter().chain(resume.iter().map(String::as_str)).collect();
    let whole = past.command(&arguments);
    // Files may have one block, as on a disk that is full.
    let mut small = Command::new("bash");
    small.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]).arg(whole.get_program()).args(whole.get_args());
    small.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = small.env("TRAILHOUND_PIPELINE__CONCURRENCY", "2").output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot write the resume file: "), "{}", stderr(&output));
    assert!(!stderr(&output).contains("60 objects done"), "{}", stderr(&output));
    // What it could write is read again, as often as it takes.
    for left in [true, false] {
        let output = past.run(&arguments);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(!stderr(&output).contains("0 objects done"), left, "{}", stderr(&output));
    }
    let alerts = past.alerts();
    assert_eq!(distinct(&alerts).len(), alerts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_told() {
    let past = Past::new(0).await;
    for arguments in [
        vec!["--in-place", "--to-queue"],
        vec!["--no-alert"],
        vec!["--to-queue", "--no-alert"],
        vec!["--in-place", "--no-alert", "--alert-old"],
        vec!["--in-place", "--rate", "5"],
        vec!["--to-queue", "--rate", "0"],
        vec!["--from", "2026-05-02", "--to", "2026-05-01"],
    ] {
        assert_eq!(code(&past.run(&arguments)), 64, "{arguments:?}");
    }
    let output = trailhound(&["replay", "logs/"]).output().unwrap();
    assert_eq!(code(&output), 64);
    let output = past.run(&["--region", "eu-west-1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no AWSLogs/ folder is below s3://"), "{}", stderr(&output));
    let output = past.command(&["--in-place"]).env_remove("DYNAMODB_TABLE").output().unwrap();
    assert_eq!(code(&output), 78);
    let fifo = format!("{}.fifo", past.account.made.queue_url);
    let output = past.command(&["--to-queue"]).env("SQS_QUEUE_URL", fifo).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("is a FIFO queue, which takes no notifications"), "{}", stderr(&output));
    let notes = past.account.folder.path().join("notes.txt");
    std::fs::write(&notes, "dear diary\n").unwrap();
    let output = past.run(&["--in-place", "--resume", notes.to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("is it a resume file?"), "{}", stderr(&output));
}
