//! The commands to paste next. Whatever of the record stands in one is a single word of a POSIX shell, which the AWS CLI
//! takes as it stands; where that cannot be, there is no such command.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::event::own_id;
use super::text::{is_hidden, quoted};
use super::told::{Record, region, text_at};
use super::{DetectedEvent, SourceObject};

/// How many are told.
const COMMANDS: usize = 3;

/// A longer text is no name of anything in AWS: an S3 key has 1,024 bytes.
const MAX_WORD: usize = 1024;

/// Before and after the event, where one looks for what else happened.
const AROUND: Duration = Duration::hours(1);

/// At most [`COMMANDS`]: the event itself, what its actor did around it, and the state of what it is about.
pub(super) fn commands(event: &DetectedEvent, record: &Record<'_>) -> Vec<String> {
    let subject = subject(event, record).or_else(|| identity(record));
    let all = [show(event), around(event, record), subject, object(event), same_call(event, record)];
    all.into_iter().flatten().take(COMMANDS).collect()
}

fn show(event: &DetectedEvent) -> Option<String> {
    Some(format!("trailhound events show {}", word(&event.key.event_id)?))
}

/// What else the actor did: by the access key, else by the name, else at least the event as CloudTrail has it.
fn around(event: &DetectedEvent, record: &Record<'_>) -> Option<String> {
    if record.is_insight() {
        // It has no caller, and is not in the history of management events: the calls that it is about are.
        return lookup(event, "EventName", &record.text(&["insightDetails", "eventName"])?);
    }
    let identity = |path: &[&str]| text_at(record.get("userIdentity"), path);
    let is_key = |key: &String| (16..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some(key) = identity(&["accessKeyId"]).filter(is_key) {
        return lookup(event, "AccessKeyId", &key);
    }
    let user = match identity(&["type"]).as_deref() {
        Some("Root") => Some("root".to_owned()),
        // CloudTrail looks for the name of the session.
        Some("AssumedRole") => {
            identity(&["arn"]).and_then(|arn| arn.rsplit_once('/').map(|(_, session)| session.to_owned()))
        }
        _ => identity(&["userName"]),
    };
    let by_user = user.and_then(|user| lookup(event, "Username", &user));
    by_user.or_else(|| lookup(event, "EventId", &own_id(event.record.as_bytes())?))
}

/// Who else made the same call.
fn same_call(event: &DetectedEvent, record: &Record<'_>) -> Option<String> {
    lookup(event, "EventName", &record.text(&["eventName"])?)
}

/// Reads the event history of the last ninety days, of management events, in the record's region.
fn lookup(event: &DetectedEvent, attribute: &str, value: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@+/:-".contains(&byte);
    word(value)?;
    let wanted = if value.bytes().all(is_plain) {
        format!("AttributeKey={attribute},AttributeValue={value}")
    } else {
        // The CLI's shorthand has a syntax of its own; JSON says any text.
        let [key, text] = [attribute, value].map(serde_json::Value::from);
        word(&format!(r#"[{{"AttributeKey":{key},"AttributeValue":{text}}}]"#))?
    };
    let times = event.facts.event_time.and_then(|time| {
        let at = |time: Option<OffsetDateTime>| time?.replace_nanosecond(0).ok()?.format(&Rfc3339).ok();
        let (from, to) = (at(time.checked_sub(AROUND))?, at(time.checked_add(AROUND))?);
        Some(format!(" --start-time {from} --end-time {to}"))
    });
    let (here, times) = (in_region(event), times.unwrap_or_default());
    Some(format!(
        "aws cloudtrail lookup-events{here}{times} --lookup-attributes {wanted} --query 'Events[].[EventTime,EventSource,EventName]' --output text"
    ))
}

fn in_region(event: &DetectedEvent) -> String {
    region(event).map(|region| format!(" --region {region}")).unwrap_or_default()
}

/// The present state of what the call is about.
fn subject(event: &DetectedEvent, record: &Record<'_>) -> Option<String> {
    let source = record.text(&["eventSource"])?;
    let name = record.text(&["eventName"]).unwrap_or_default();
    let of = |parameter: &str| record.text(&["requestParameters", parameter]);
    let given = |operation: &str, option: &str, value: Option<String>| {
        Some(format!("aws {operation} {option} {}", word(&value?)?))
    };
    let here = in_region(event);
    let in_region = |operation: &str, option: &str, value: Option<String>| {
        Some(format!("aws {operation}{here} {option} {}", word(&value?)?))
    };
    match source.strip_suffix(".amazonaws.com")? {
        "iam" => {
            let user = match name.as_str() {
                name if name.contains("Policy") || name.contains("Boundary") => "iam list-attached-user-policies",
                name if name.contains("MFADevice") => "iam list-mfa-devices",
                _ => "iam list-access-keys",
            };
            let is_policy = name.contains("Policy") && name != "UpdateAssumeRolePolicy";
            let role = if is_policy { "iam list-attached-role-policies" } else { "iam get-role" };
            let group = if is_policy { "iam list-attached-group-policies" } else { "iam get-group" };
            given(user, "--user-name", of("userName"))
                .or_else(|| given(role, "--role-name", of("roleName")))
                .or_else(|| given(group, "--group-name", of("groupName")))
                .or_else(|| given("iam get-policy", "--policy-arn", of("policyArn")))
        }
        "cloudtrail" => in_region("cloudtrail get-trail-status", "--name", of("name").or_else(|| of("trailName"))),
        "kms" => in_region("kms describe-key", "--key-id", of("keyId")),
        "s3" => {
            let operation = match name.as_str() {
                name if name.contains("Acl") => "s3api get-bucket-acl",
                name if name.contains("PublicAccessBlock") => "s3api get-public-access-block",
                name if name.contains("Versioning") => "s3api get-bucket-versioning",
                name if name.contains("Lifecycle") => "s3api get-bucket-lifecycle-configuration",
                name if name.contains("Replication") => "s3api get-bucket-replication",
                name if name.contains("Encryption") => "s3api get-bucket-encryption",
                name if name.contains("Notification") => "s3api get-bucket-notification-configuration",
                _ => "s3api get-bucket-policy",
            };
            given(operation, "--bucket", of("bucketName"))
        }
        "ec2" => {
            let instance = record
                .first_of(&["requestParameters", "instancesSet", "items"], &["instanceId"])
                .or_else(|| record.first_of(&["responseElements", "instancesSet", "items"], &["instanceId"]));
            in_region("ec2 describe-security-groups", "--group-ids", of("groupId"))
                .or_else(|| in_region("ec2 describe-instances", "--instance-ids", of("instanceId").or(instance)))
                .or_else(|| {
                    let operation = "ec2 describe-snapshot-attribute --attribute createVolumePermission";
                    in_region(operation, "--snapshot-id", of("snapshotId"))
                })
                .or_else(|| {
                    let operation = "ec2 describe-image-attribute --attribute launchPermission";
                    in_region(operation, "--image-id", of("imageId"))
                })
                .or_else(|| in_region("ec2 describe-route-tables", "--route-table-ids", of("routeTableId")))
                .or_else(|| in_region("ec2 describe-network-acls", "--network-acl-ids", of("networkAclId")))
                .or_else(|| in_region("ec2 describe-volumes", "--volume-ids", of("volumeId")))
                .or_else(|| in_region("ec2 describe-vpcs", "--vpc-ids", of("vpcId")))
        }
        "secretsmanager" => in_region("secretsmanager describe-secret", "--secret-id", of("secretId")),
        "lambda" => in_region("lambda get-function-configuration", "--function-name", of("functionName")),
        "rds" => in_region("rds describe-db-snapshots", "--db-snapshot-identifier", of("dBSnapshotIdentifier"))
            .or_else(|| in_region("rds describe-db-instances", "--db-instance-identifier", of("dBInstanceIdentifier")))
            .or_else(|| in_region("rds describe-db-clusters", "--db-cluster-identifier", of("dBClusterIdentifier"))),
        "dynamodb" => in_region("dynamodb describe-table", "--table-name", of("tableName")),
        "sns" => in_region("sns get-topic-attributes", "--topic-arn", of("topicArn")),
        "ssm" => {
            let command = record.text(&["responseElements", "command", "commandId"]);
            in_region("ssm list-command-invocations --details", "--command-id", command)
        }
        "guardduty" => in_region("guardduty get-detector", "--detector-id", of("detectorId")),
        "ecr" => in_region("ecr get-repository-policy", "--repository-name", of("repositoryName")),
        "eks" => in_region("eks describe-cluster", "--name", of("name")),
        "config" => Some(format!("aws configservice describe-configuration-recorder-status{here}")),
        "organizations" => Some("aws organizations list-accounts --output text".to_owned()),
        _ => None,
    }
}

/// What the caller is, where it is an identity of the account.
fn identity(record: &Record<'_>) -> Option<String> {
    let of = |path: &[&str]| text_at(record.get("userIdentity"), path);
    if let (Some(own), Some(account)) = (of(&["accountId"]), record.text(&["recipientAccountId"]))
        && own != account
    {
        return None;
    }
    match of(&["type"])?.as_str() {
        "Root" => Some("aws iam get-account-summary".to_owned()),
        "IAMUser" => Some(format!("aws iam list-access-keys --user-name {}", word(&of(&["userName"])?)?)),
        "AssumedRole" => {
            let role = of(&["sessionContext", "sessionIssuer", "userName"])?;
            Some(format!("aws iam get-role --role-name {}", word(&role)?))
        }
        _ => None,
    }
}

/// The record as it stands in the log file.
fn object(event: &DetectedEvent) -> Option<String> {
    let SourceObject { bucket, key, version_id: _ } = event.source.object.as_ref()?;
    // As CloudTrail names them; what is not compressed is not for gunzip.
    key.strip_suffix(".gz")?;
    word(bucket)?;
    word(key)?;
    let address = quoted(&format!("s3://{bucket}/{key}"));
    Some(format!("aws s3 cp {address} - | gunzip | jq '.Records[{}]'", event.source.index))
}

/// A text as one word, or nothing: where a reader would not see all of it, the shell or the CLI would take it for an
/// option, or the CLI for the address of a file to read (`file://`).
fn word(text: &str) -> Option<String> {
    let is_safe = (1..=MAX_WORD).contains(&text.len())
        && !text.starts_with('-')
        && !text.contains("://")
        && !text.contains(is_hidden);
    is_safe.then(|| quoted(text))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::alert::{Source, detected_event};
    use crate::rules::{Detection, RuleInfo, Severity};

    fn event_of(record: &Value, object: Option<(&str, &str)>) -> DetectedEvent {
        let rules = vec![Arc::new(RuleInfo::new("r", Severity::High, ""))];
        let detection = Detection { index: 12, raw: Bytes::from(record.to_string()), rules };
        let object = object.map(|(bucket, key)| SourceObject {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id: None,
        });
        let source = Source { object, index: 12 };
        detected_event(&detection, source, datetime!(2024-05-01 12:07 UTC), "0123456789abcdef")
    }

    #[allow(clippy::needless_pass_by_value, reason = "json! reads better where it is used")]
    fn record(identity: Value, source: &str, name: &str, parameters: Value) -> Value {
        json!({
            "eventID": "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91", "eventTime": "2024-05-01T12:00:00Z", "eventName": name,
            "eventSource": format!("{source}.amazonaws.com"), "awsRegion": "eu-west-1", "recipientAccountId": "111122223333",
            "userIdentity": identity, "requestParameters": parameters,
        })
    }

    fn told(event: &DetectedEvent) -> Vec<String> {
        commands(event, &Record::new(event))
    }

    /// What a shell makes of a command: its words. Nothing in it may expand, run or redirect.
    fn words(command: &str) -> Vec<String> {
        let script = format!("set -f; printf '%s\\0' {command}");
        let output = Command::new("sh").arg("-c").arg(script).env_clear().output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn they_show_the_event_its_surroundings_and_what_it_is_about() {
        let identity = json!({
            "type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/Admin/alice", "accountId": "111122223333",
            "accessKeyId": "ASIAIOSFODNN7EXAMPLE", "sessionContext": { "sessionIssuer": { "userName": "Admin" } },
        });
        let of = |source: &str, name: &str, parameters: Value| {
            told(&event_of(&record(identity.clone(), source, name, parameters), None)).join("\n")
        };
        insta::assert_snapshot!(of("iam", "CreateAccessKey", json!({ "userName": "bob" })), @r"
        trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=ASIAIOSFODNN7EXAMPLE --query 'Events[].[EventTime,EventSource,EventName]' --output text
        aws iam list-access-keys --user-name bob
        ");
        insta::assert_snapshot!(of("cloudtrail", "StopLogging", json!({ "name": "management-events" })), @r"
        trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=ASIAIOSFODNN7EXAMPLE --query 'Events[].[EventTime,EventSource,EventName]' --output text
        aws cloudtrail get-trail-status --region eu-west-1 --name management-events
        ");
        insta::assert_snapshot!(of("sts", "GetFederationToken", json!({ "name": "x" })), @r"
        trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=ASIAIOSFODNN7EXAMPLE --query 'Events[].[EventTime,EventSource,EventName]' --output text
        aws iam get-role --role-name Admin
        ");
        let about = |source: &str, name: &str, parameters: Value| {
            let all = of(source, name, parameters);
            all.lines().nth(2).unwrap_or_default().to_owned()
        };
        let all = [
            about("iam", "AttachUserPolicy", json!({ "userName": "bob", "policyArn": "arn:aws:iam::aws:policy/A" })),
            about("iam", "UpdateAssumeRolePolicy", json!({ "roleName": "deploy" })),
            about("iam", "PutRolePolicy", json!({ "roleName": "deploy" })),
            about("iam", "CreatePolicyVersion", json!({ "policyArn": "arn:aws:iam::111122223333:policy/a" })),
            about("kms", "ScheduleKeyDeletion", json!({ "keyId": "1234abcd-12ab-34cd-56ef-1234567890ab" })),
            about("s3", "PutBucketAcl", json!({ "bucketName": "logs" })),
            about("s3", "DeleteBucketPolicy", json!({ "bucketName": "logs" })),
            about("ec2", "AuthorizeSecurityGroupIngress", json!({ "groupId": "sg-1" })),
            about("ec2", "TerminateInstances", json!({ "instancesSet": { "items": [{ "instanceId": "i-1" }] } })),
            about("ec2", "ModifySnapshotAttribute", json!({ "snapshotId": "snap-1" })),
            about("secretsmanager", "GetSecretValue", json!({ "secretId": "prod/db" })),
            about("config", "StopConfigurationRecorder", json!({ "configurationRecorderName": "default" })),
            about("rds", "DeleteDBInstance", json!({ "dBInstanceIdentifier": "orders" })),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        aws iam list-attached-user-policies --user-name bob
        aws iam get-role --role-name deploy
        aws iam list-attached-role-policies --role-name deploy
        aws iam get-policy --policy-arn arn:aws:iam::111122223333:policy/a
        aws kms describe-key --region eu-west-1 --key-id 1234abcd-12ab-34cd-56ef-1234567890ab
        aws s3api get-bucket-acl --bucket logs
        aws s3api get-bucket-policy --bucket logs
        aws ec2 describe-security-groups --region eu-west-1 --group-ids sg-1
        aws ec2 describe-instances --region eu-west-1 --instance-ids i-1
        aws ec2 describe-snapshot-attribute --attribute createVolumePermission --region eu-west-1 --snapshot-id snap-1
        aws secretsmanager describe-secret --region eu-west-1 --secret-id prod/db
        aws configservice describe-configuration-recorder-status --region eu-west-1
        aws rds describe-db-instances --region eu-west-1 --db-instance-identifier orders
        ");
    }

    #[test]
    fn the_kind_of_identity_decides_where_nothing_else_does() {
        let of = |identity: Value| told(&event_of(&record(identity, "signin", "ConsoleLogin", Value::Null), None));
        let root = json!({ "type": "Root", "arn": "arn:aws:iam::111122223333:root", "accountId": "111122223333" });
        insta::assert_snapshot!(of(root).join("\n"), @r"
        trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=Username,AttributeValue=root --query 'Events[].[EventTime,EventSource,EventName]' --output text
        aws iam get-account-summary
        ");
        let user = json!({ "type": "IAMUser", "userName": "o'neil, jr", "accountId": "111122223333" });
        insta::assert_snapshot!(of(user).join("\n"), @r#"
        trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes '[{"AttributeKey":"Username","AttributeValue":"o'\''neil, jr"}]' --query 'Events[].[EventTime,EventSource,EventName]' --output text
        aws iam list-access-keys --user-name 'o'\''neil, jr'
        "#);
        // Somebody of another account cannot be looked up in this one.
        let foreign = json!({ "type": "AWSAccount", "principalId": "AIDAEXAMPLE", "accountId": "444455556666" });
        insta::assert_snapshot!(of(foreign).join("\n"), @r"
        trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=EventId,AttributeValue=c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91 --query 'Events[].[EventTime,EventSource,EventName]' --output text
        aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=EventName,AttributeValue=ConsoleLogin --query 'Events[].[EventTime,EventSource,EventName]' --output text
        ");
    }

    #[test]
    fn a_log_file_is_read_where_nothing_is_known_of_the_caller() {
        let key = "AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/x=1.json.gz";
        let event = event_of(&record(json!({}), "sts", "AssumeRole", Value::Null), Some(("trail-logs", key)));
        let last = told(&event).pop().unwrap();
        assert_eq!(last, format!("aws s3 cp 's3://trail-logs/{key}' - | gunzip | jq '.Records[12]'"));
    }

    #[test]
    fn hostile_names_stay_single_words_or_are_left_out() {
        let hostile = ["'; rm -rf ~ #", "$(touch /tmp/x)", "`id`", "a b\"c\\", "!!", "*", "~root", "a'b''c", "&|;<>()"];
        for name in hostile {
            let identity = json!({ "type": "IAMUser", "userName": name, "accountId": "111122223333" });
            let mut record = record(identity, "iam", "CreateAccessKey", json!({ "userName": name }));
            record["eventID"] = json!(name);
            let all = told(&event_of(&record, None));
            assert_eq!(all.len(), 3, "{all:?}");
            assert_eq!(words(&all[0]), ["trailhound", "events", "show", name]);
            let lookup = words(&all[1]);
            let wanted = lookup.iter().find(|word| word.starts_with("[{")).unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(wanted).unwrap(),
                json!([{ "AttributeKey": "Username", "AttributeValue": name }])
            );
            assert_eq!(words(&all[2]), ["aws", "iam", "list-access-keys", "--user-name", name]);
        }
        for name in
            ["a\nrm -rf ~", "\u{202e}x", "\u{1b}[2J", "-rf", "--profile=x", "file:///etc/passwd", "https://evil/", ""]
        {
            let identity = json!({ "type": "IAMUser", "userName": name, "accountId": "111122223333" });
            let mut record = record(identity, "iam", name, json!({ "userName": name }));
            record["eventID"] = json!(name);
            record["awsRegion"] = json!("eu-west-1 --profile x");
            let object = Some(("logs", "a\n.json.gz"));
            // Without an id of its own an event has its hash.
            let all = told(&event_of(&record, object));
            let hashed = usize::from(name.is_empty());
            assert_eq!(all.len(), hashed, "{name:?}: {all:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_is_one_word_or_none(text in any::<String>(), hard in "[ '\"$`\\\\;&|<>(){}!*?~#=a\\[\\]-]{0,12}") {
            for text in [text, hard] {
                if let Some(word) = word(&text) {
                    prop_assert_eq!(words(&word), [text]);
                    prop_assert!(!word.contains(is_hidden));
                }
            }
        }
    }
}
