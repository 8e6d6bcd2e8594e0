//! `trailhound demo`, as a newcomer runs it.

use std::io;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Standard output and whether it went well.
async fn demo(arguments: &[&str]) -> io::Result<(String, bool)> {
    let output = Command::new(env!("CARGO_BIN_EXE_trailhound"))
        .arg("demo")
        .args(arguments)
        .env_remove("LOG_LEVEL")
        .stdin(Stdio::null())
        .output()
        .await?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success()))
}

#[tokio::test]
async fn the_story_ends_as_it_should_with_each_event_alerted_once() {
    let (told, well) = demo(&["--exit"]).await.unwrap();
    assert!(well, "{told}");
    assert!(told.contains("As it should be: "), "{told}");
    // That rule alerts by itself; which event opens a group of others depends on which file is read first.
    assert_eq!(told.matches("cloudtrail-stopped: ").count(), 1, "{told}");
    assert!(told.contains("CRITICAL  StopLogging"), "{told}");
    assert!(told.contains("ends_early: s3://"), "{told}");
    assert!(!told.contains('\u{1b}'), "colours are for terminals");
}

#[tokio::test]
async fn own_log_files_are_read_and_alerted() {
    let folder = tempfile::tempdir().unwrap();
    let record = r#"{"eventVersion":"1.11","eventID":"6f2d0c9e-6ac5-4a05-9d1c-2f6b53a1a5a1",
        "eventTime":"2026-03-01T10:00:00Z","eventSource":"cloudtrail.amazonaws.com","eventName":"DeleteTrail",
        "awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.9","userAgent":"aws-cli/2.31",
        "userIdentity":{"type":"IAMUser","userName":"mallory","accountId":"111122223333"},
        "recipientAccountId":"111122223333","requestParameters":null,"responseElements":null}"#;
    std::fs::write(folder.path().join("sample.json"), format!("{{\"Records\":[{record},{record}]}}")).unwrap();
    let (told, well) = demo(&["--exit", "--logs", folder.path().to_str().unwrap()]).await.unwrap();
    assert!(well, "{told}");
    assert_eq!(told.matches("DeleteTrail").count(), 1, "{told}");
    assert!(told.contains("mallory from 203.0.113.9"), "{told}");
}

#[tokio::test]
async fn a_folder_without_logs_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!demo(&["--exit", "--logs", folder.path().to_str().unwrap()]).await.unwrap().1);
}

#[tokio::test]
async fn it_goes_on_until_it_is_interrupted() {
    let mut running = Command::new(env!("CARGO_BIN_EXE_trailhound"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut page = None;
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, address)) = line.split_once("http://").filter(|(_, rest)| rest.contains("/livez")) {
            page = address.split('/').next().map(str::to_owned);
        }
        if line.starts_with("Going on until Ctrl-C") {
            break;
        }
    }
    tokio::net::TcpStream::connect(page.unwrap()).await.unwrap();
    let interrupt = Command::new("kill").args(["-INT", &running.id().unwrap().to_string()]).status().await.unwrap();
    assert!(interrupt.success());
    assert!(running.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_wrong_rule_file_ends_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.json");
    std::fs::write(&rules, r#"{"events": []}"#).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_trailhound"))
        .args(["demo", "--exit", "--rules"])
        .arg(&rules)
        .stderr(Stdio::null())
        .status()
        .await
        .unwrap();
    assert_eq!(status.code(), Some(78));
}

#[tokio::test]
async fn a_link_that_leads_back_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("loop")).unwrap();
    std::fs::write(folder.path().join("sample.json"), r#"{"Records":[]}"#).unwrap();
    let (told, well) = demo(&["--exit", "--logs", folder.path().to_str().unwrap()]).await.unwrap();
    assert!(well, "{told}");
    assert!(told.lines().any(|line| line.split_whitespace().eq(["files", "uploaded", "1"])), "{told}");
}
