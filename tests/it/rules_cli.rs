//! `trailhound rules ...`, and the same check at the start and on SIGHUP.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{Daemon, code, configured, get, rules_in, stderr, stdout, trailhound};

fn rule(changes: &Value) -> Value {
    let mut rule = json!({
        "id": "trail-stopped", "description": "A trail was stopped", "severity": "CRITICAL",
        "eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging",
    });
    for (key, value) in changes.as_object().unwrap() {
        rule[key] = value.clone();
    }
    rule
}

fn file(directory: &Path, rules: &[Value]) -> String {
    rules_in(directory, &format!("{:#}", json!({ "events": rules })))
}

/// Asks nearly every record: an exclusion beside an alternative.
fn always_true() -> Value {
    json!({ "id": "always", "severity": "LOW", "pattern": { "$or": [
        { "errorCode": [{ "prefix": "AccessDenied" }] }, { "eventName": [{ "anything-but": "HeadBucket" }] },
    ] } })
}

fn record(name: &str) -> String {
    json!({
        "eventVersion": "1.11",
        "userIdentity": { "type": "IAMUser", "principalId": "AIDACKCEVSQ6C2EXAMPLE", "arn": "arn:aws:iam::111122223333:user/ada",
            "accountId": "111122223333", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "userName": "ada" },
        "eventTime": "2026-05-04T10:00:00Z", "eventSource": "cloudtrail.amazonaws.com", "eventName": name,
        "awsRegion": "eu-west-1", "sourceIPAddress": "198.51.100.7", "userAgent": "aws-cli/2.27.0",
        "requestParameters": { "name": "management-events" }, "responseElements": null,
        "requestID": "0f9b3c1e-6d0a-4a53-9a1b-5b7f6d3c2e10", "eventID": "3f1c9d52-8a64-4a4e-b3d9-2f5a6b7c8d90",
        "readOnly": false, "eventType": "AwsApiCall", "managementEvent": true,
        "recipientAccountId": "111122223333", "eventCategory": "Management",
    })
    .to_string()
}

#[test]
fn the_default_rules_are_right_and_pass_their_tests() {
    for command in ["check", "test"] {
        let output = trailhound(&["rules", command]).output().unwrap();
        assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    }
    let checked: Value =
        serde_json::from_slice(&trailhound(&["rules", "check", "--format", "json"]).output().unwrap().stdout).unwrap();
    assert_eq!((&checked["errors"], &checked["warnings"]), (&json!(0), &json!(0)), "{checked:#}");
    let listed = trailhound(&["rules", "list", "--format", "json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let rules = listed.as_array().unwrap();
    assert!(rules.len() >= 105);
    for rule in rules {
        for key in ["id", "title", "severity", "description", "attack", "attack_version", "tags"] {
            assert!(!rule[key].is_null(), "{rule} lacks {key}");
        }
        assert!(rule["description"].as_str().unwrap().contains("Check first"), "{rule}");
    }
    let schema = trailhound(&["rules", "schema"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["$schema"].is_string());
}

#[test]
fn what_is_wrong_is_78_and_what_is_doubtful_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let doubtful = file(directory.path(), &[rule(&json!({ "eventName": "stopLogging" }))]);
    let output = trailhound(&["rules", "check", &doubtful]).output().unwrap();
    let told = stdout(&output);
    assert_eq!(code(&output), 0, "{told}");
    assert!(
        told.contains("warning: line 5: events[0].eventName (rule \"trail-stopped\"): ")
            && told.contains("\"StopLogging\""),
        "{told}"
    );

    let wrong = file(directory.path(), &[rule(&json!({})), always_true(), rule(&json!({ "severty": "LOW" }))]);
    let output = trailhound(&["rules", "check", &wrong]).output().unwrap();
    let told = stdout(&output);
    assert_eq!(code(&output), 78, "{told}");
    for expected in ["always true", "is already taken", "did you mean \"severity\"?"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let output = trailhound(&["rules", "check", &wrong, "--format", "json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &told["errors"], &told["rules"]), (78, &json!(3), &Value::Null));
    for key in ["level", "rule", "path", "line", "message", "advice"] {
        assert!(told["diagnostics"][0].get(key).is_some(), "{told:#}");
    }
    let absent = trailhound(&["rules", "check", "no-such-file.json"]).output().unwrap();
    assert_eq!(code(&absent), 78);
    assert!(stderr(&absent).contains("no-such-file.json"));
}

#[test]
fn a_test_that_fails_is_told_with_what_decided_it() {
    let directory = tempfile::tempdir().unwrap();
    let rules = file(directory.path(), &[rule(&json!({})), rule(&json!({ "id": "untested" }))]);
    let tests = directory.path().join("rules.tests.json");
    let write = |names: &Value| {
        let record: Value = serde_json::from_str(&record("StopLogging")).unwrap();
        let tests_file = json!({ "bases": { "call": record }, "rules": { "trail-stopped": names } });
        fs::write(&tests, tests_file.to_string()).unwrap();
    };
    write(&json!({ "match": { "it stops": { "base": "call", "change": { "eventName": "StopLogging" } } },
                   "noMatch": { "it starts": { "base": "call", "change": { "eventName": "StartLogging" } } } }));
    let output = trailhound(&["rules", "test", &rules]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stdout(&output));
    assert!(stdout(&output).contains("without tests: untested") && stdout(&output).contains("2 passed, 0 failed"));

    write(&json!({ "match": { "it starts": { "base": "call", "change": { "eventName": "StartLogging" } } } }));
    let output = trailhound(&["rules", "test", &rules]).output().unwrap();
    let told = stdout(&output);
    assert_eq!(code(&output), 1, "{told}");
    assert!(
        told.contains("\"it starts\" must match and does not") && told.contains("eventName is \"StartLogging\""),
        "{told}"
    );

    write(&json!({ "match": { "odd": { "base": "nobody" } } }));
    let output = trailhound(&["rules", "test", &rules]).output().unwrap();
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("nobody"), "{}", stderr(&output));
}

#[test]
fn an_explanation_goes_condition_by_condition() {
    let directory = tempfile::tempdir().unwrap();
    let excepted =
        json!({ "unless": [{ "pattern": { "userIdentity": { "userName": ["ada"] } }, "reason": "it is Ada" }] });
    let rules = file(directory.path(), &[rule(&excepted)]);
    let path = directory.path().join("record.json");
    let explain = |text: &str, more: &[&str]| {
        fs::write(&path, text).unwrap();
        let arguments = [&["rules", "explain", "--rules", &rules, path.to_str().unwrap()][..], more].concat();
        let output = trailhound(&arguments).output().unwrap();
        (code(&output), stdout(&output) + &stderr(&output))
    };
    let (status, told) = explain(&record("StartLogging"), &["--rule", "trail-stopped"]);
    assert!(
        status == 0 && told.contains("does not match") && told.contains("NO   eventName is \"StartLogging\""),
        "{told}"
    );
    for text in [
        record("StopLogging"),
        format!("{{\"Records\":[{{}},{}]}}", record("StopLogging")),
        format!("{{\"detail-type\":\"AWS API Call via CloudTrail\",\"detail\":{}}}", record("StopLogging")),
    ] {
        let (status, told) = explain(&text, &["--index", "1"]);
        assert!(status == 0 && told.contains("excepted by unless[0]") && told.contains("it is Ada"), "{told}");
    }
    assert_eq!(explain(&record("StopLogging"), &["--rule", "nobody"]).0, 1);
    assert_eq!(explain("{\"Records\":[]}", &["--rule", "trail-stopped"]).0, 1);
    assert_eq!(explain("not JSON", &[]).0, 1);
}

#[test]
fn the_daemon_loads_rules_as_check_does() {
    let directory = tempfile::tempdir().unwrap();
    let refused = file(directory.path(), &[always_true()]);
    let output = configured(&["run"]).env("SECURITY_EVENTS_PATH", &refused).output().unwrap();
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("always true"), "{}", stderr(&output));

    let ended = json!({ "unless": [{ "userIdentityType": "Root", "reason": "a drill", "until": "2020-02-29" }] });
    let rules = file(directory.path(), &[rule(&ended)]);
    let mut command = configured(&[]);
    command.env("SECURITY_EVENTS_PATH", &rules);
    let mut daemon = Daemon::start(command);
    daemon.wait_for("a rule is probably not what is meant");
    let told = daemon.wait_for("an exception has ended");
    assert_eq!(
        (&told["exception.reason"], &told["exception.until"]),
        (&json!("a drill"), &json!("2020-02-29")),
        "{told}"
    );
    let address = daemon.address();
    let page = get(&address, "/rules").1;
    assert!(page["warnings"][0]["message"].as_str().unwrap().contains("2020-02-29"), "{page}");

    file(directory.path(), &[always_true()]);
    daemon.signal("HUP");
    daemon.wait_for("reload refused");
    let page = get(&address, "/rules").1;
    assert!(page["error"].as_str().unwrap().contains("always true"), "{page}");
    assert_eq!(page["rules"][0]["id"], "trail-stopped");
    daemon.signal("TERM");
    let (status, log) = daemon.end();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn rules_that_guard_the_pipeline_know_its_parts_from_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let guard = json!({ "id": "own-queue", "severity": "CRITICAL", "eventSource": "sqs.amazonaws.com", "eventName": "DeleteQueue",
        "pattern": { "requestParameters": { "queueUrl": [{ "list": "trailhound.queues" }] } } });
    let rules = file(directory.path(), &[guard]);
    let path = directory.path().join("record.json");
    let url = "http://127.0.0.1:1/111122223333/trailhound";
    for (queue, expected) in
        [(url, "own-queue matches"), ("http://127.0.0.1:1/111122223333/another", "no rule matches")]
    {
        let mut record: Value = serde_json::from_str(&record("DeleteQueue")).unwrap();
        record["eventSource"] = json!("sqs.amazonaws.com");
        record["requestParameters"] = json!({ "queueUrl": queue });
        fs::write(&path, record.to_string()).unwrap();
        let output = configured(&["rules", "explain", "--rules", &rules, path.to_str().unwrap()]).output().unwrap();
        assert!(stdout(&output).starts_with(expected), "{}{}", stdout(&output), stderr(&output));
    }
}
