//! What arrives in a simulation, and the rules that it meets.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use trailhound::rules::{Mode, Severity};

use super::op::Rule;

pub const BUCKET: &str = "trail-logs";

/// The rule with a group.
pub const IN_GROUPS: &str = "in-groups";

/// The rule with a threshold.
pub const IN_THRESHOLD: &str = "often-enough";

/// The rules that do not alert for each event.
pub const TOGETHER: [&str; 2] = [IN_GROUPS, IN_THRESHOLD];

/// The modes of the rules that change. The others are always in force, and their modes never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub any_key: Rule,
    pub any_stop: Rule,
}

impl Rules {
    pub const FIRST: Self = Self { any_key: Rule::Absent, any_stop: Rule::Absent };

    pub fn text(self) -> String {
        let mut rules = on_trial();
        rules.push(json!({"id": IN_GROUPS, "description": "Happens often", "severity": "LOW",
                          "eventName": ["StopLogging", "DescribeInstances"],
                          "group": {"by": ["sourceIPAddress", "requestParameters"], "window": "30m"}}));
        rules.push(json!({"id": IN_THRESHOLD, "description": "Happens often enough", "severity": "MEDIUM",
                          "eventName": ["DescribeRegions", "DescribeSnapshots"],
                          "threshold": {"count": 3, "window": "15m", "by": ["sourceIPAddress"]}}));
        for (id, severity, pattern, rule) in
            [("any-key", "CRITICAL", "*AccessKey*", self.any_key), ("any-stop", "LOW", "Stop*", self.any_stop)]
        {
            if let Some(mode) = rule.mode() {
                rules.push(json!({"id": id, "description": "Changes", "severity": severity, "mode": mode,
                                  "eventName": pattern}));
            }
        }
        rule_file_of(rules, None)
    }

    /// The rules that an event matches.
    pub fn matching(self, event: u32) -> BTreeMap<&'static str, Mode> {
        let always: &[_] = match event % 6 {
            1 | 4 => &[("trail-stopped", Mode::Alert), (IN_GROUPS, Mode::Alert)],
            2 | 5 => &[("access-key", Mode::Alert), ("key-on-trial", Mode::Shadow)],
            3 => &[("snapshots-on-trial", Mode::Shadow), (IN_THRESHOLD, Mode::Alert)],
            _ if event % 12 == 6 => &[(IN_GROUPS, Mode::Alert)],
            _ => &[(IN_THRESHOLD, Mode::Alert)],
        };
        let changing = match event % 6 {
            1 | 4 => self.any_stop.mode().map(|mode| ("any-stop", mode)),
            2 | 5 => self.any_key.mode().map(|mode| ("any-key", mode)),
            _ => None,
        };
        always.iter().copied().chain(changing).collect()
    }
}

impl Rule {
    fn mode(self) -> Option<Mode> {
        match self {
            Self::Absent => None,
            Self::Alert => Some(Mode::Alert),
            Self::Shadow => Some(Mode::Shadow),
        }
    }
}

pub fn severity_of(rule: &str) -> Severity {
    match rule {
        "any-key" | "key-on-trial" => Severity::Critical,
        "trail-stopped" => Severity::High,
        "access-key" | IN_THRESHOLD => Severity::Medium,
        _ => Severity::Low,
    }
}

/// The start of the bucket in which [`IN_GROUPS`] counts an event.
pub fn bucket_of(event: u32) -> String {
    format!("2026-05-01T12:{:02}:00Z", event % 60 / 30 * 30)
}

/// The number of an event, by its id.
pub fn event_of(event_id: &str) -> u32 {
    event_id.rsplit('-').next().unwrap().parse().unwrap()
}

pub fn through_eventbridge(event: u32) -> String {
    json!({
        "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam", "account": "111122223333",
        "time": "2026-05-01T12:00:00Z", "region": "us-east-1", "resources": [], "detail": record(event),
    })
    .to_string()
}

pub fn log_key(trail: &str, number: u32) -> String {
    format!(
        "{trail}/AWSLogs/111122223333/CloudTrail/us-east-1/2026/05/01/\
         111122223333_CloudTrail_us-east-1_20260501T1200Z_{number:016}.json.gz"
    )
}

/// A log object with these events.
pub fn log_object(events: &[u32]) -> Vec<u8> {
    let records: Vec<_> = events.iter().map(|it| record(*it)).collect();
    log_object_of(&records)
}

/// A log object with these records.
pub fn log_object_of(records: &[serde_json::Value]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(json!({ "Records": records }).to_string().as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// The S3 event that tells of an object.
pub fn notification(key: &str) -> String {
    notification_of(&[key])
}

/// The S3 event that tells of several objects.
pub fn notification_of(keys: &[&str]) -> String {
    let records: Vec<_> = keys.iter().map(|key| s3_event(key)).collect();
    json!({ "Records": records }).to_string()
}

/// A topic's envelope around a message.
pub fn through_sns(message: &str) -> String {
    json!({
        "Type": "Notification", "MessageId": "95df01b4-ee98-5cb9-9903-4c221d41eb5e",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:trail-b", "Subject": "Amazon S3 Notification",
        "Message": message, "Timestamp": "2026-05-01T12:05:01.000Z",
    })
    .to_string()
}

fn s3_event(key: &str) -> serde_json::Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": "2026-05-01T12:05:00.000Z", "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROAEXAMPLETRAIL0001:regionalDeliverySession"},
        "requestParameters": {"sourceIPAddress": "192.0.2.44"},
        "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLE123/abcdefghijklambda"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "logs",
               "bucket": {"name": BUCKET, "ownerIdentity": {"principalId": "A1EXAMPLE"},
                          "arn": format!("arn:aws:s3:::{BUCKET}")},
               "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                          "sequencer": "0055AED6DCD90281E5"}},
    })
}

pub fn event_id(event: u32) -> String {
    format!("00000000-0000-4000-8000-{event:012}")
}

pub fn record(event: u32) -> serde_json::Value {
    let (source, name) = match event % 6 {
        0 if event % 12 == 6 => ("ec2.amazonaws.com", "DescribeInstances"),
        0 => ("ec2.amazonaws.com", "DescribeRegions"),
        3 => ("ec2.amazonaws.com", "DescribeSnapshots"),
        1 | 4 => ("cloudtrail.amazonaws.com", "StopLogging"),
        _ => ("iam.amazonaws.com", "CreateAccessKey"),
    };
    json!({
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "principalId": "AIDAEXAMPLEUSERID0001",
            "arn": "arn:aws:iam::111122223333:user/alice", "accountId": "111122223333", "userName": "alice"},
        "eventTime": format!("2026-05-01T12:{:02}:00Z", event % 60),
        "eventSource": source, "eventName": name, "awsRegion": "us-east-1", "sourceIPAddress": "203.0.113.7",
        "userAgent": "aws-cli/2.17.9", "requestParameters": null, "responseElements": null,
        "requestID": format!("10000000-0000-4000-8000-{event:012}"), "eventID": event_id(event), "readOnly": false,
        "eventType": "AwsApiCall", "managementEvent": true, "recipientAccountId": "111122223333",
        "eventCategory": "Management",
    })
}

pub fn rule_file(more: bool) -> String {
    rule_file_of(Vec::new(), more.then_some(Mode::Alert))
}

/// The same, with rules in shadow, and `any-key` in this mode.
pub fn rules_on_trial(any_key: Option<Mode>) -> String {
    rule_file_of(on_trial(), any_key)
}

fn on_trial() -> Vec<serde_json::Value> {
    vec![
        json!({"id": "key-on-trial", "description": "A key was created", "severity": "CRITICAL", "mode": "shadow",
               "eventName": "CreateAccessKey"}),
        json!({"id": "snapshots-on-trial", "description": "Snapshots were listed", "severity": "LOW", "mode": "shadow",
               "eventName": "DescribeSnapshots"}),
    ]
}

fn rule_file_of(more: Vec<serde_json::Value>, any_key: Option<Mode>) -> String {
    let mut rules = vec![
        json!({"id": "trail-stopped", "description": "A trail was stopped", "severity": "HIGH",
               "eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging"}),
        json!({"id": "access-key", "description": "An access key was created", "severity": "MEDIUM",
               "eventSource": "iam.amazonaws.com", "eventName": "CreateAccessKey"}),
    ];
    rules.extend(more);
    if let Some(mode) = any_key {
        rules.push(json!({"id": "any-key", "description": "Anything with keys", "severity": "CRITICAL", "mode": mode,
                          "eventName": "*AccessKey*"}));
    }
    json!({ "events": rules }).to_string()
}
