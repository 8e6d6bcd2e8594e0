//! `trailhound scan`: the same as the daemon finds, from files of any shape.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use trailhound::emulator::Names;

use crate::cli::{code, stderr, stdout, trailhound};
use crate::daemon::{Account, Daemon, until};
use crate::sim::{event_id, log_key, log_object, log_object_of, record, rule_file};

/// A folder with logs and the rules.
struct Logs {
    folder: tempfile::TempDir,
}

impl Logs {
    fn new() -> Self {
        let logs = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(logs.rules(), rule_file(true)).unwrap();
        logs
    }

    fn rules(&self) -> PathBuf {
        self.folder.path().join("rules.json")
    }

    /// Below the folder `logs`.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join("logs").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = trailhound(&["scan", "--rules"]);
        command.arg(self.rules()).args(arguments);
        command
    }

    fn scan(&self, path: impl AsRef<Path>, arguments: &[&str]) -> Output {
        self.command(arguments).arg(path.as_ref()).output().unwrap()
    }

    fn lines(&self, path: impl AsRef<Path>, arguments: &[&str]) -> Vec<Value> {
        let output = self.scan(path, &[&["--format", "jsonl"], arguments].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        lines(&output)
    }

    fn all(&self) -> PathBuf {
        self.folder.path().join("logs")
    }
}

fn lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["eventID"].as_str().unwrap()).collect()
}

/// The ids of the alerts that would be sent.
fn alerts(lines: &[Value]) -> BTreeSet<String> {
    let alerts = lines.iter().flat_map(|line| line["alerts"].as_array().unwrap());
    alerts.map(|alert| alert["alert_id"].as_str().unwrap().to_owned()).collect()
}

/// The rules of each event.
fn rules(lines: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let rules = line["rules"].as_array().unwrap().iter().map(|rule| rule.as_str().unwrap().to_owned());
        all.entry(line["eventID"].as_str().unwrap().to_owned()).or_default().extend(rules);
    }
    all
}

/// Groups and a threshold, besides the rules of single events.
fn counting_rules() -> String {
    json!({ "events": [
        { "id": "stopped", "severity": "HIGH", "eventName": "StopLogging", "description": "A trail was stopped" },
        { "id": "keys", "severity": "MEDIUM", "eventName": "CreateAccessKey", "description": "Keys were made",
          "group": { "by": ["userIdentity.arn"], "window": "1h" } },
        { "id": "looks", "severity": "LOW", "eventName": "Describe*", "description": "Somebody looked around",
          "threshold": { "count": 5, "window": "10m", "by": ["userIdentity.arn"] } },
        { "id": "trial", "severity": "LOW", "mode": "shadow", "eventName": "DescribeRegions", "description": "On trial" },
    ] })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_and_alerts_what_the_daemon_does() {
    let account = Account::new(Names::default()).await;
    std::fs::write(account.rules(), counting_rules()).unwrap();
    let logs = Logs::new();
    std::fs::write(logs.rules(), counting_rules()).unwrap();
    let _daemon = Daemon::ready(&account, &[("TRAILHOUND_PIPELINE__CONCURRENCY", "1")]).await;
    // A second trail has some of the same events.
    for (trail, files) in [("trail-a", 0..6_u32), ("trail-b", 3..5)] {
        for number in files {
            let object = log_object(&(number * 20..number * 20 + 20).collect::<Vec<_>>());
            account.emulator.put_object(&account.made.bucket, &log_key(trail, number), object.clone()).await.unwrap();
            logs.write(&log_key(trail, number), object);
            account.drained().await;
        }
    }
    let found = logs.lines(logs.all(), &[]);
    let stored: BTreeMap<String, BTreeSet<String>> = account
        .items()
        .await
        .into_iter()
        .filter(|item| item["Rules"].is_object())
        .map(|item| {
            let rules = item["Rules"]["SS"].as_array().unwrap().iter().map(|rule| rule.as_str().unwrap().to_owned());
            (item["EventId"]["S"].as_str().unwrap().to_owned(), rules.collect())
        })
        .collect();
    assert_eq!(rules(&found), stored);
    let told: BTreeSet<String> =
        account.documents().iter().map(|it| it["alert_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(alerts(&found), told);
    assert!(told.len() > 40, "{}", told.len());

    // The same objects where they are.
    let bucket = format!("s3://{}", account.made.bucket);
    let output = logs
        .command(&["--format", "jsonl", &bucket])
        .env("AWS_ENDPOINT_URL", account.emulator.endpoint())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let there = lines(&output);
    assert_eq!(ids(&there), ids(&found));
    assert_eq!(alerts(&there), told);
    assert_eq!(there[0]["file"], format!("{bucket}/{}", log_key("trail-a", 0)));
    // A place with nothing in it is no proof of anything.
    let output = logs
        .command(&[&format!("{bucket}/trail-q/")])
        .env("AWS_ENDPOINT_URL", account.emulator.endpoint())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no log file of CloudTrail is there"), "{}", stderr(&output));
}

#[test]
fn records_are_found_in_whatever_they_are_kept() {
    let logs = Logs::new();
    let (stop, key) = (record(1).to_string(), record(2).to_string());
    let looked_up = json!({ "Events": [{
        "EventId": event_id(1), "EventName": "StopLogging", "ReadOnly": "false", "EventTime": "2026-05-01T12:01:00+00:00",
        "EventSource": "cloudtrail.amazonaws.com", "Username": "alice", "Resources": [], "CloudTrailEvent": stop,
    }, { "EventId": event_id(2), "CloudTrailEvent": key }] });
    let bridged = json!({ "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602", "source": "aws.cloudtrail",
        "detail-type": "AWS API Call via CloudTrail", "account": "111122223333", "region": "us-east-1", "resources": [],
        "time": "2026-05-01T12:01:00Z", "detail": record(1) });
    let log = log_object(&[1, 2]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in [("deep/a.json.gz", log.clone()), ("readme.txt", b"no log".to_vec())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let shapes: Vec<(&str, Vec<u8>)> = vec![
        ("log.json.gz", log.clone()),
        ("log.json", json!({ "Records": [record(1), record(2)] }).to_string().into_bytes()),
        ("late.json", json!({ "x": 1, "Records": [record(1), record(2)] }).to_string().into_bytes()),
        ("two.json", format!("{{\"Records\":[{stop}]}}\n{{\"Records\":[{key}]}}").into_bytes()),
        ("lines.jsonl", format!("{stop}\n{key}\n").into_bytes()),
        ("pretty.json", format!("{:#}\n{:#}", record(1), record(2)).into_bytes()),
        ("array.json", format!("[{stop},{key}]").into_bytes()),
        ("events.jsonl", format!("{bridged}\n{key}").into_bytes()),
        ("lookup.json", format!("{looked_up:#}").into_bytes()),
        ("all.tar", tar),
        ("all.tgz", gzip.finish().unwrap()),
        ("all.zip", zip.finish().unwrap().into_inner()),
    ];
    for (name, bytes) in &shapes {
        let path = logs.write(name, bytes);
        let found = logs.lines(&path, &[]);
        assert_eq!(ids(&found), [event_id(1), event_id(2)], "{name}");
        assert_eq!([&found[0]["index"], &found[1]["index"]], [0, 1], "{name}");
        assert!(found[0]["file"].as_str().unwrap().starts_with(path.to_str().unwrap()), "{name}");
    }
    // All of them as a folder: copies of the same two events.
    let all = logs.lines(logs.all(), &[]);
    assert_eq!(all.len(), 2 * shapes.len());
    assert_eq!(all.iter().filter(|line| line["copy"] == false).count(), 2);
    assert_eq!(alerts(&all).len(), alerts(&all[..2]).len());
    // And what can be piped, through standard input.
    for (name, bytes) in shapes.iter().filter(|(name, _)| !name.starts_with("all.")) {
        let mut child = logs
            .command(&["--format", "jsonl", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), ids(&lines(&output))), (0, vec![&*event_id(1), &event_id(2)]), "{name}");
    }
}

#[test]
fn filters_leave_what_they_name() {
    let logs = Logs::new();
    let mut other = record(31);
    other["recipientAccountId"] = "444455556666".into();
    other["awsRegion"] = "eu-west-1".into();
    let mut timeless = record(1);
    timeless["eventID"] = event_id(99).into();
    timeless.as_object_mut().unwrap().remove("eventTime");
    let path = logs.write("log.json.gz", log_object_of(&[record(1), record(2), other, timeless]));
    let [stop, key, later, timeless] = [event_id(1), event_id(2), event_id(31), event_id(99)];
    for (arguments, wanted) in [
        (vec![], vec![&*stop, &key, &later, &timeless]),
        (vec!["--account", "444455556666"], vec![&*later]),
        (vec!["--account", "444455556666", "--account", "111122223333"], vec![&*stop, &key, &later, &timeless]),
        (vec!["--region", "us-east-1"], vec![&*stop, &key, &timeless]),
        (vec!["--from", "2026-05-01T12:02"], vec![&*key, &later]),
        (vec!["--to", "2026-05-01T12:02"], vec![&*stop]),
        (vec!["--from", "2026-05-01T12:01:00Z", "--to", "2026-05-01T12:02:01Z"], vec![&*stop, &key]),
        (vec!["--severity", "high"], vec![&*stop, &key, &later, &timeless]),
        (vec!["--severity", "CRITICAL"], vec![&*key]),
        (vec!["--rule", "trail-stopped"], vec![&*stop, &later, &timeless]),
        (vec!["--rule", "trail-stopped", "--region", "eu-west-1"], vec![&*later]),
    ] {
        assert_eq!(ids(&logs.lines(&path, &arguments)), wanted, "{arguments:?}");
    }
    let only = logs.lines(&path, &["--rule", "trail-stopped"]);
    assert_eq!(only[0]["rules"], json!(["trail-stopped"]), "other rules that match are not told");
    let output = logs.scan(&path, &["--rule", "no-such-rule"]);
    assert_eq!(code(&output), 64);
    assert!(stderr(&output).contains("--rule no-such-rule: the rule file has no such rule"));
    let output = logs.scan(&path, &["--from", "2026-05-02", "--to", "2026-05-02"]);
    assert_eq!(code(&output), 64);
    assert!(stderr(&output).contains("--from is not before --to"), "{}", stderr(&output));
    for arguments in [["--from", "yesterday"], ["--severity", "BAD"], ["--format", "xml"]] {
        assert_eq!(code(&logs.scan(&path, &arguments)), 64, "{arguments:?}");
    }
}

#[test]
fn the_summary_says_what_each_rule_did() {
    let logs = Logs::new();
    let rules = json!({ "events": [
        { "id": "keys", "severity": "MEDIUM", "eventName": "CreateAccessKey",
          "group": { "by": ["userIdentity.arn"], "window": "1h" } },
        { "id": "stopped", "severity": "HIGH", "eventName": "StopLogging",
          "unless": [{ "reason": "the drill", "eventName": "StopLogging", "pattern": { "awsRegion": ["eu-west-1"] } }] },
    ] });
    std::fs::write(logs.rules(), rules.to_string()).unwrap();
    let mut drill = record(7);
    drill["awsRegion"] = "eu-west-1".into();
    logs.write("a.json.gz", log_object_of(&[record(1), record(2), record(5), record(8), drill]));
    logs.write("b.json.gz", log_object(&[1, 2]));
    let output = logs.scan(logs.all(), &["--summary"]);
    assert_eq!(code(&output), 0);
    insta::assert_snapshot!(stdout(&output), @r"
    rule     severity     hits   events   groups   alerts  suppressed
    keys     MEDIUM          4        3        1        1
    stopped  HIGH            2        1        0        1  1 (the drill)
    all                      6        4        1        2  1
    ");
    assert_eq!(stderr(&output), "2 files, 7 records, 2 rules: 6 matches of 4 events, 2 alerts\n");
    let rows = logs.lines(logs.all(), &["--summary"]);
    assert_eq!((&rows[0]["rule"], &rows[0]["hits"], &rows[0]["alerts"]), (&json!("keys"), &json!(4), &json!(1)));
    assert_eq!(rows[1]["suppressed"], json!([{ "exception": 0, "reason": "the drill", "count": 1 }]));
    // An exception is counted only where the filters look.
    let rows = logs.lines(logs.all(), &["--summary", "--region", "us-east-1"]);
    assert_eq!(rows[1]["suppressed"], json!([]));
}

#[test]
fn a_pipeline_is_told_by_the_exit_code() {
    let logs = Logs::new();
    let path = logs.write("log.json.gz", log_object(&[1]));
    let fail_on = |severity: &str| logs.scan(&path, &["--fail-on", severity]);
    assert_eq!(code(&fail_on("CRITICAL")), 0);
    let output = fail_on("high");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).ends_with("there is an alert of HIGH (--fail-on HIGH)\n"), "{}", stderr(&output));
    let nothing = logs.write("nothing.json.gz", log_object(&[0]));
    assert_eq!(code(&logs.scan(nothing, &["--fail-on", "LOW", "--severity", "HIGH"])), 0);
}

#[test]
fn what_cannot_be_read_is_told_and_stops_nothing() {
    let logs = Logs::new();
    let whole = log_object(&[1, 2]);
    logs.write("a-cut.json.gz", &whole[..whole.len() / 2]);
    logs.write("b-empty.json", "");
    logs.write("c-garbage.json", "not a log\n");
    logs.write("d-lines.jsonl", format!("{}\n{{\"cut\n{}\n", record(7), record(8)));
    logs.write("e-whole.json.gz", &whole);
    let output = logs.scan(logs.all(), &["--format", "jsonl"]);
    assert_eq!(code(&output), 1);
    let found = lines(&output);
    for id in [1, 2, 7, 8] {
        assert!(ids(&found).contains(&&*event_id(id)), "{id}");
    }
    let told = stderr(&output);
    for (name, problem) in [
        ("a-cut.json.gz", "the gzip stream ends early"),
        ("b-empty.json", "the object is empty"),
        ("c-garbage.json", "no JSON object begins here, at byte 0 of the text"),
        ("d-lines.jsonl", "the document is cut off"),
    ] {
        assert!(told.lines().any(|line| line.contains(name) && line.contains(problem)), "{name}: {told}");
    }
    assert!(told.ends_with("4 files could not be read whole, with 2 records that are none\n"), "{told}");

    let output = logs.scan("/nowhere/log.json", &[]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("/nowhere/log.json: No such file"), "{}", stderr(&output));
    let output = logs.scan("s3://", &[]);
    assert_eq!(code(&output), 64);
    std::fs::write(logs.rules(), "{").unwrap();
    assert_eq!(code(&logs.scan(logs.all(), &[])), 78);
}

#[test]
fn what_a_folder_holds_and_cannot_be_read_is_told() {
    let logs = Logs::new();
    logs.write("good.json.gz", log_object(&[1]));
    std::os::unix::fs::symlink("/nowhere/log.json", logs.all().join("dangling.json")).unwrap();
    let deep = "d/".repeat(40) + "log.json.gz";
    logs.write(&deep, log_object(&[2]));
    let output = logs.scan(logs.all(), &["--format", "jsonl"]);
    assert_eq!((code(&output), ids(&lines(&output))), (1, vec![&*event_id(1)]));
    let told = stderr(&output);
    assert!(told.contains("dangling.json: No such file"), "{told}");
    assert!(told.contains("lies more than 32 deep"), "{told}");
    assert!(told.ends_with("2 files could not be read whole\n"), "{told}");
}

#[test]
fn a_pipe_is_read_where_a_file_is_named() {
    let logs = Logs::new();
    let path = logs.folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let writing = std::thread::spawn({
        let path = path.clone();
        move || std::fs::write(path, log_object(&[1, 2])).unwrap()
    });
    assert_eq!(ids(&logs.lines(&path, &[])), [event_id(1), event_id(2)]);
    writing.join().unwrap();
}

#[test]
fn a_record_is_told_once_where_logs_follow_one_another() {
    let logs = Logs::new();
    let text = format!("{{\"Records\":[7,{}]}}{{\"Records\":[{}]}}", record(1), record(2));
    let path = logs.write("two.json", text);
    let output = logs.scan(&path, &["--format", "jsonl"]);
    assert_eq!((code(&output), ids(&lines(&output))), (1, vec![&*event_id(1), &event_id(2)]));
}

#[test]
fn a_file_in_a_zip_that_grows_too_much_is_told_and_not_held() {
    let logs = Logs::new();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in [("bomb.json", vec![b' '; 8 << 20]), ("log.json.gz", log_object(&[1]))] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let path = logs.write("all.zip", zip.finish().unwrap().into_inner());
    let output = logs.scan(&path, &["--format", "jsonl"]);
    assert_eq!((code(&output), ids(&lines(&output))), (1, vec![&*event_id(1)]));
    let told = stderr(&output);
    assert!(told.contains("all.zip!bomb.json: decompresses by more than 200 to 1"), "{told}");
}

#[test]
fn a_sparse_file_in_an_archive_is_read() {
    let logs = Logs::new();
    let log = logs.write("log.json", json!({ "Records": [record(1)] }).to_string() + &" ".repeat(4096));
    let hole = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    hole.set_len(1 << 20).unwrap();
    let tar = logs.folder.path().join("all.tar");
    let done = Command::new("tar").arg("-Scf").arg(&tar).arg("-C").arg(logs.all()).arg("log.json").status().unwrap();
    assert!(done.success());
    assert_eq!(ids(&logs.lines(&tar, &[])), [event_id(1)]);
}

#[test]
fn people_see_one_line_for_each_match_without_what_is_hidden() {
    let logs = Logs::new();
    let mut hostile = record(1);
    hostile["userIdentity"] = json!({ "type": "IAMUser", "userName": "x\u{1b}[31m\u{202e}" });
    hostile["errorCode"] = "AccessDenied".into();
    logs.write("log.json", json!({ "Records": [hostile, record(1)] }).to_string());
    let output = logs.scan(logs.all(), &["--rule", "trail-stopped"]);
    let shown = stdout(&output).replace(logs.folder.path().to_str().unwrap(), "");
    insta::assert_snapshot!(shown, @r"
    2026-05-01T12:01:00Z  HIGH      StopLogging (denied) by x\u{1b}[31m\u{202e} from 203.0.113.7 in 111122223333 us-east-1  trail-stopped  /logs/log.json#0
    2026-05-01T12:01:00Z  HIGH      StopLogging by arn:aws:iam::111122223333:user/alice from 203.0.113.7 in 111122223333 us-east-1  trail-stopped [copy]  /logs/log.json#1
    ");
}

#[tokio::test]
async fn it_ends_when_it_is_interrupted_or_nobody_reads() {
    let logs = Logs::new();
    let mut child = logs
        .command(&["--format", "jsonl", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: it would wait for more for ever.
    let mut input = child.stdin.take().unwrap();
    let lines = format!("{}\n", record(1)).repeat(2_000);
    // On a thread: the scan reads no further while nobody reads what it prints.
    let writing = std::thread::spawn(move || {
        // It may end before it has read everything.
        let _written = input.write_all(lines.as_bytes());
        input
    });
    let mut first = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut first).unwrap();
    assert!(first.contains(&event_id(1)));
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    until("the scan has ended", async || child.try_wait().unwrap().is_some()).await;
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    drop(writing.join().unwrap());

    let path = logs.write("many.jsonl", format!("{}\n", record(1)).repeat(20_000));
    let mut child =
        logs.command(&[path.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut first).unwrap();
    drop(output);
    until("the scan has ended", async || child.try_wait().unwrap().is_some()).await;
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
