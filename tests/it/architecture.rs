//! Keeps the direction: pure steps import no edge, SDK types stay under `src/aws`, only delivery makes `Delivered`.

use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources are where they should be");
    files.into_iter().map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text)).collect()
}

/// The code of a file, without comments and without its tests.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn step_of(path: &Path) -> String {
    path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn violations(applies: impl Fn(&str) -> bool, forbidden: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources() {
        if !applies(&step_of(&path)) {
            continue;
        }
        let code = code(&text);
        for word in forbidden {
            if code.contains(word) {
                found.push(format!("{} uses {word}", path.display()));
            }
        }
    }
    found
}

#[test]
fn pure_steps_know_no_client_clock_metrics_or_task() {
    let pure = ["notification", "cloudtrail", "rules", "alert", "claim", "tracker", "doctor"];
    let forbidden = [
        "crate::ports",
        "crate::aws",
        "crate::env",
        "crate::metrics",
        "crate::context",
        "crate::health",
        "crate::config",
        "tokio",
        "aws_",
        "tracing",
        "SystemTime",
        "now_utc",
        "std::fs",
        "std::net",
        "std::thread",
    ];
    assert_eq!(violations(|step| pure.contains(&step), &forbidden), Vec::<String>::new());
}

#[test]
fn sdk_types_stay_under_the_aws_folder() {
    let forbidden = ["aws_sdk_", "aws_config::", "aws_smithy_"];
    assert_eq!(violations(|step| step != "aws", &forbidden), Vec::<String>::new());
}

#[test]
fn the_data_path_reaches_outside_only_through_its_ports() {
    let data_path = ["poller", "lease", "worker", "object", "deliver", "settle", "retry", "context", "ports"];
    let forbidden = ["crate::aws", "crate::emulator", "crate::admin", "crate::cli", "crate::app", "crate::demo"];
    assert_eq!(violations(|step| data_path.contains(&step), &forbidden), Vec::<String>::new());
}

#[test]
fn tasks_are_started_only_through_the_environment() {
    // The command line with what only it runs, the admin server and the emulator are processes of their own kind.
    let free = ["env", "cli", "main", "admin", "emulator", "demo", "scan"];
    let forbidden = ["tokio::spawn", "spawn_blocking", "thread::spawn"];
    assert_eq!(violations(|step| !free.contains(&step), &forbidden), Vec::<String>::new());
    // The SDK tells the end of credentials in wall time.
    let clock = ["SystemTime::now", "now_utc"];
    assert_eq!(violations(|step| !free.contains(&step) && step != "aws", &clock), Vec::<String>::new());
}

#[test]
fn only_delivery_makes_the_proof_that_deletes() {
    let makers: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| code(text).contains("Delivered {"))
        .map(|(path, _)| path.display().to_string())
        .filter(|path| path != "deliver.rs")
        .collect();
    assert_eq!(makers, Vec::<String>::new());
}
