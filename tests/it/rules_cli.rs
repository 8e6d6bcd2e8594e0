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

/// Asks nearly every record: two exclusions, joined by "or".
fn always_true() -> Value {
    json!({ "id": "always", "severity": "LOW", "pattern": { "$or": [
        { "errorCode": [{ "prefix": "AccessDenied" }] }, { "eventName": [{ "anything-but": "HeadBucket" }] },
        { "sourceIPAddress": [{ "anything-but": "delivery.logs.amazonaws.com" }] },
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
        // The rule of `trailhound doctor --round-trip` tells of no attack.
        let of_attacks = if rule["id"] == "trailhound-doctor-test" { &[][..] } else { &["attack", "attack_version"] };
        for key in ["id", "title", "severity", "description", "check", "tags"].iter().chain(of_attacks) {
            assert!(!rule[key].is_null(), "{rule} lacks {key}");
        }
    }
    let schema = trailhound(&["rules", "schema"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["$schema"].is_string());
}

#[test]
fn the_cost_of_rules_tells_which_must_look_at_every_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut broad = rule(&json!({ "id": "broad", "eventName": "Delete*" }));
    broad.as_object_mut().unwrap().remove("eventSource");
    let exact = rule(&json!({ "id": "exact", "eventName": ["StopLogging", "DeleteTrail"] }));
    let off = rule(&json!({ "id": "off", "mode": "off" }));
    let rules = file(directory.path(), &[exact, broad, off]);
    let output = trailhound(&["rules", "check", "--cost", &rules]).output().unwrap();
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    let told = stdout(&output);
    let lines: Vec<_> = told.lines().collect();
    let head = lines.iter().position(|line| line.starts_with("SHARE")).unwrap();
    for (line, expected) in lines[head + 1..].iter().zip([
        &["broad", "every record"][..],
        &["exact", "eventName \"DeleteTrail\" and 1 more"],
        &["0.0 %", "off", "nothing: its mode is off"],
        &["1 of 3 rules must look at every record"],
        &["3 rules, 0 errors"],
    ]) {
        assert!(expected.iter().all(|part| line.contains(part)), "{expected:?}: {line}\n{told}");
    }
    let output = trailhound(&["rules", "check", "--cost", "--format", "json", &rules]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let costs = document["cost"].as_array().unwrap();
    let every: Vec<_> =
        costs.iter().map(|cost| (cost["rule"].as_str().unwrap(), cost["every_record"] == true)).collect();
    assert_eq!(every, [("exact", false), ("broad", true), ("off", false)]);
    assert_eq!((&costs[0]["field"], &costs[0]["texts"]), (&json!("eventName"), &json!(["DeleteTrail", "StopLogging"])));
    assert!((costs.iter().map(|cost| cost["share"].as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
    // Only who asks for it is told, and of rules that are refused there is nothing to tell.
    let plain = trailhound(&["rules", "check", "--format", "json", &rules]).output().unwrap();
    assert!(serde_json::from_slice::<Value>(&plain.stdout).unwrap().get("cost").is_none());
    let wrong = file(directory.path(), &[rule(&json!({ "severity": "high" }))]);
    let output = trailhound(&["rules", "check", "--cost", &wrong]).output().unwrap();
    assert_eq!(code(&output), 78);
    assert!(!stdout(&output).contains("SHARE"));
}

#[test]
fn what_is_wrong_is_78_and_what_is_doubtful_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let doubtful = file(directory.path(), &[rule(&json!({ "eventName": "stopLogging" }))]);
    let output = trailhound(&["rules", "check", &doubtful]).output().unwrap();
    let told = stdout(&output);
    assert_eq!(code(&output), 0, "{told}");
    let line =
        fs::read_to_string(&doubtful).unwrap().lines().position(|line| line.contains("stopLogging")).unwrap() + 1;
    let expected = format!("warning: line {line}: events[0].eventName (rule \"trail-stopped\"): ");
    assert!(told.contains(&expected) && told.contains("\"StopLogging\""), "{told}");

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

#[test]
fn rules_of_others_are_printed_in_our_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sigma = path(
        "console.yml",
        "title: Console login without MFA\nid: 6a0f2c1e-3d55-4c3f-9a44-0f6f1a2b3c4d\nauthor: The team\nlevel: high\n\
         logsource: {product: aws, service: cloudtrail}\ntags: [attack.initial-access, attack.t1078.004]\n\
         detection:\n  selection:\n    eventSource: signin.amazonaws.com\n    eventName: ConsoleLogin\n    \
         additionalEventData.MFAUsed: 'No'\n  filter:\n    userIdentity.type: AssumedRole\n  condition: selection and not filter\n",
    );
    let pattern = json!({ "source": ["aws.cloudtrail"], "detail-type": ["AWS API Call via CloudTrail"],
        "detail": { "eventSource": ["cloudtrail.amazonaws.com"], "eventName": ["StopLogging", { "prefix": "Delete" }] } });
    let eventbridge = path(
        "rule.json",
        &json!({ "Name": "trail-changes", "State": "ENABLED", "EventPattern": pattern.to_string() }).to_string(),
    );
    let cloudwatch = path("root.txt", "{ ($.userIdentity.type = \"Root\") && ($.userIdentity.invokedBy NOT EXISTS) }");
    let mut rules = Vec::new();
    for (from, path) in [("sigma", &sigma), ("eventbridge", &eventbridge), ("cloudwatch", &cloudwatch)] {
        let output = trailhound(&["rules", "import", "--from", from, path]).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        rules.extend(printed["events"].as_array().unwrap().clone());
    }
    assert_eq!(rules[0]["id"], "6a0f2c1e-3d55-4c3f-9a44-0f6f1a2b3c4d");
    assert_eq!((&rules[0]["author"], &rules[0]["severity"]), (&json!("The team"), &json!("HIGH")));
    assert_eq!(rules[0]["attack"], json!(["T1078.004"]));
    assert_eq!(rules[1]["id"], "trail-changes");
    let together = file(directory.path(), &rules);
    let output = trailhound(&["rules", "check", &together]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stdout(&output));
}

#[test]
fn an_import_that_is_refused_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in");
    let import = |from: &str, text: &str| {
        fs::write(&path, text).unwrap();
        let output = trailhound(&["rules", "import", "--from", from, path.to_str().unwrap()]).output().unwrap();
        (code(&output), stdout(&output), stderr(&output))
    };
    // CIS 4.1 as printed in v1.4: everything is joined by "or".
    let printed = "{($.errorCode = \"*UnauthorizedOperation\") || ($.errorCode = \"AccessDenied*\") || \
                   ($.sourceIPAddress!=\"delivery.logs.amazonaws.com\") || ($.eventName!=\"HeadBucket\") }";
    let (status, rules, told) = import("cloudwatch", printed);
    assert!(status == 78 && rules.contains("anything-but") && told.contains("always true"), "{told}");
    let counting = "title: Many\nid: 0d5d9f7c-52b3-4a1f-8b0e-c7c9b8d5a6e1\nlevel: low\nlogsource: {product: aws, service: cloudtrail}\n\
                    detection:\n  selection:\n    eventName: GetSecretValue\n  condition: selection | count() by userIdentity.arn > 10\n";
    for (from, text, reason) in [
        ("sigma", counting, "count"),
        ("sigma", "title: [", "YAML"),
        (
            "eventbridge",
            "{\"source\": [\"aws.ec2\"], \"detail-type\": [\"EC2 Instance State-change Notification\"]}",
            "CloudTrail",
        ),
        ("cloudwatch", "[ip, user]", "JSON"),
    ] {
        let (status, rules, told) = import(from, text);
        assert_eq!((status, rules.as_str()), (78, ""), "{told}");
        assert!(told.contains(reason), "{told}");
    }
}
