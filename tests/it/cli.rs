//! The built binary: arguments, exit codes, start and stop. What it does with messages is shown elsewhere.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;

const RULE: &str = r#"{
    "id": "trail-stopped", "description": "A trail was stopped", "severity": "CRITICAL",
    "eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging"
}"#;

/// The program in an environment that holds nothing of the machine's own.
pub fn trailhound(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailhound"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// With everything that `run` requires, and an AWS that refuses every connection.
pub fn configured(arguments: &[&str]) -> Command {
    let mut command = trailhound(arguments);
    command
        .env("SQS_QUEUE_URL", "http://127.0.0.1:1/111122223333/trailhound")
        .env("SNS_TOPIC_ARN", "arn:aws:sns:eu-west-1:111122223333:trailhound-alerts")
        .env("DYNAMODB_TABLE", "trailhound-events")
        .env("TRAILHOUND_HTTP__LISTEN", "127.0.0.1:0")
        .env("TRAILHOUND_LOG__FORMAT", "json")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    command
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A daemon in a process of its own; killed with the test.
pub struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// The next line of the log with this message.
    pub fn wait_for(&mut self, message: &str) -> Value {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "ended without saying {message:?}:\n{seen}");
            seen.push_str(&line);
            if let Ok(event) = serde_json::from_str::<Value>(&line)
                && event["message"].as_str().is_some_and(|text| text.starts_with(message))
            {
                return event;
            }
        }
    }

    pub fn address(&mut self) -> String {
        self.wait_for("answering /livez")["http.address"].as_str().unwrap().to_owned()
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The exit code, and the rest of the log.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn get(address: &str, path: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).unwrap())
}

pub fn rules_in(directory: &Path, rules: &str) -> String {
    let path = directory.join("rules.json");
    fs::write(&path, rules).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_version_and_the_help_are_no_failures() {
    let version = trailhound(&["--version"]).output().unwrap();
    assert_eq!(code(&version), 0);
    assert!(stdout(&version).starts_with(&format!("trailhound {} (", env!("CARGO_PKG_VERSION"))));
    let help = trailhound(&["--help"]).output().unwrap();
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("healthcheck"));
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [&["no-such-command"][..], &["--no-such-flag"], &["config", "--format", "xml"], &["run", "extra"]]
    {
        let output = trailhound(arguments).output().unwrap();
        assert_eq!((code(&output), stdout(&output).as_str()), (64, ""), "{arguments:?}");
        assert!(stderr(&output).starts_with("error: "), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_wrong_configuration_is_78_and_told_whole() {
    for arguments in [&["config"][..], &["run"], &[]] {
        let output = trailhound(arguments).env("TRAILHOUND_QUEUE__POLLERS", "many").output().unwrap();
        assert_eq!((code(&output), stdout(&output).as_str()), (78, ""), "{arguments:?}");
        let told: Vec<String> =
            stderr(&output).lines().map(|line| line.split([':', ' ']).next().unwrap().to_owned()).collect();
        assert_eq!(told, ["queue.url", "queue.pollers", "alerting.topic_arn", "store.table"], "{arguments:?}");
    }
}

#[test]
fn the_configuration_in_force_can_be_used_as_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let first = configured(&["config"]).output().unwrap();
    assert_eq!((code(&first), stderr(&first).as_str()), (0, ""));
    let path = directory.path().join("trailhound.toml");
    fs::write(&path, &first.stdout).unwrap();
    let second = trailhound(&["config", "--config", path.to_str().unwrap()]).output().unwrap();
    let values = |output: &Output| -> Vec<String> {
        stdout(output).lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&first), values(&second));
    assert!(stdout(&second).contains(&format!("# {}:1\n", path.display())));
}

#[test]
fn output_that_nobody_reads_is_no_panic() {
    let mut child = configured(&["config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn rules_that_cannot_be_loaded_are_78() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.json");
    let output = configured(&["run"]).env("SECURITY_EVENTS_PATH", &absent).output().unwrap();
    assert_eq!(code(&output), 78);
    let told = stderr(&output);
    assert!(told.contains(&format!("cannot read the rule file {}: ", absent.display())), "{told}");

    let wrong = r#"{"events": [{"id": "a", "severity": "LOUD", "eventName": 3}]}"#;
    let output = configured(&["run"]).env("SECURITY_EVENTS_PATH", rules_in(directory.path(), wrong)).output().unwrap();
    assert_eq!(code(&output), 78);
    let told = stderr(&output);
    assert!(told.contains("severity") && told.contains("eventName"), "not everything is told: {told}");
}

#[test]
fn a_port_that_is_taken_is_told_with_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = configured(&["run"])
        .env("SECURITY_EVENTS_PATH", rules_in(directory.path(), &format!("[{RULE}]")))
        .env("TRAILHOUND_HTTP__LISTEN", &address)
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    let told = format!("cannot listen on {address} (http.listen, environment variable TRAILHOUND_HTTP__LISTEN): ");
    assert!(stderr(&output).contains(&told), "{}", stderr(&output));
}

#[test]
fn a_daemon_without_aws_answers_probes_reloads_and_stops_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let rules = rules_in(directory.path(), &format!("[{RULE}]"));
    let mut command = configured(&[]);
    command.env("SECURITY_EVENTS_PATH", &rules);
    let mut daemon = Daemon::start(command);
    let address = daemon.address();

    assert_eq!(get(&address, "/livez").0, "HTTP/1.1 200 OK");
    let (status, ready) = get(&address, "/readyz");
    assert_eq!((status.as_str(), &ready["ok"]), ("HTTP/1.1 503 Service Unavailable", &false.into()));
    let url = format!("http://{address}");
    let health = trailhound(&["healthcheck", "--url", &url]).output().unwrap();
    assert_eq!(code(&health), 1);
    assert!(stderr(&health).contains("never ready"), "{}", stderr(&health));

    fs::write(&rules, "[{").unwrap();
    daemon.signal("HUP");
    daemon.wait_for("reload refused");
    let page = get(&address, "/rules").1;
    assert!(page["error"].is_string() && page["rules"].as_array().unwrap().len() == 1, "{page}");
    fs::write(&rules, format!("[{RULE}, {}]", RULE.replace("trail-stopped", "another"))).unwrap();
    daemon.signal("HUP");
    daemon.wait_for("rules reloaded");
    let page = get(&address, "/rules").1;
    assert!(page["error"].is_null() && page["rules"].as_array().unwrap().len() == 2, "{page}");

    daemon.signal("TERM");
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_rule_file_that_never_ends_does_not_end_reloading() {
    let directory = tempfile::tempdir().unwrap();
    let rules = rules_in(directory.path(), &format!("[{RULE}]"));
    let mut command = configured(&[]);
    command.env("SECURITY_EVENTS_PATH", &rules);
    let mut daemon = Daemon::start(command);
    daemon.address();
    fs::remove_file(&rules).unwrap();
    assert!(Command::new("mkfifo").arg(&rules).status().unwrap().success());
    daemon.signal("HUP");
    daemon.wait_for("reload refused");
    fs::remove_file(&rules).unwrap();
    fs::write(&rules, format!("[{RULE}]")).unwrap();
    daemon.signal("HUP");
    daemon.wait_for("rules reloaded");
    daemon.signal("TERM");
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn signals_during_a_start_that_hangs_stop_it_or_wait() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("rules.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for signal in ["TERM", "INT"] {
        let mut command = configured(&["run"]);
        command.env("SECURITY_EVENTS_PATH", &pipe);
        let mut daemon = Daemon::start(command);
        daemon.wait_for("starting");
        daemon.signal("HUP");
        daemon.signal(signal);
        let (code, log) = daemon.end();
        assert_eq!(code, Some(0), "{log}");
    }
}

#[test]
fn the_health_of_nobody_is_bad() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // Only the address matters: what else is not configured is the daemon's affair.
    let health = trailhound(&["healthcheck"]).env("TRAILHOUND_HTTP__LISTEN", &free).output().unwrap();
    assert_eq!(code(&health), 1);
    assert!(
        stderr(&health).starts_with(&format!("unhealthy: http://{free}/livez: cannot connect")),
        "{}",
        stderr(&health)
    );
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = configured(&["config"]);
    assert_eq!(command.stdout(full).stderr(std::process::Stdio::null()).status().unwrap().code(), Some(1));
}

/// The long help of a command, and that of each command below it, by their words.
fn helps(words: &[String]) -> Vec<(Vec<String>, String)> {
    let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
    let output = trailhound(&arguments).output().unwrap();
    assert_eq!(code(&output), 0, "{words:?}");
    let text = stdout(&output);
    let commands = text.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let below: Vec<_> = names
        .filter_map(|line| line.split_whitespace().next())
        .flat_map(|name| helps(&[words, &[name.to_owned()]].concat()))
        .collect();
    [(words.to_vec(), text.clone())].into_iter().chain(below).collect()
}

#[test]
fn every_command_says_how_it_is_used() {
    let all = helps(&[]);
    assert!(all.len() > 15, "{}", all.len());
    for (words, text) in &all {
        let examples = text.split_once("\nExamples:\n  ").unwrap_or_else(|| panic!("{words:?} has no examples")).1;
        // Those of a command name it.
        let command = format!("trailhound {}", words.join(" "));
        assert!(examples.contains(command.trim_end()), "{words:?}: {examples}");
    }
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for (shell, word) in
        [("bash", "complete -F _trailhound"), ("zsh", "#compdef trailhound"), ("fish", "complete -c trailhound")]
    {
        let output = trailhound(&["completions", shell]).output().unwrap();
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains(word) && stdout(&output).contains("scan"), "{shell}");
    }
    assert_eq!(code(&trailhound(&["completions", "cmd"]).output().unwrap()), 64);
    let page = stdout(&trailhound(&["man"]).output().unwrap());
    assert!(page.starts_with(".ie") || page.contains(".TH trailhound 1"), "{}", page.lines().next().unwrap());
    for heading in ["TRAILHOUND SCAN", "TRAILHOUND RULES CHECK", "TRAILHOUND REPLAY"] {
        assert!(page.contains(&format!(".SH \"{heading}\"")), "{heading}");
    }
    assert!(page.contains("Only rules as grave as this"));
}
