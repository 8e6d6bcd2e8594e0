//! The alert as SNS takes it: subject, message and attributes, within its limits.

use serde::Serialize;

use super::document::document;
use super::email::email;
use super::text::{ascii, inert, shown};
use super::told::{Told, ToldRule};
use super::{
    AlertFormat, AttributeValue, DetectedEvent, Facts, Outbound, Outcome, PUBLISH_LIMIT, chatbot, group, ocsf,
};
use crate::claim::ClaimedAlert;
use crate::rules::{RuleSet, Severity};
use crate::tracker::Crossing;

/// What SNS may count beyond what we do.
const HEADROOM: usize = 2048;

const SUBJECT_LIMIT: usize = 100;

const SMS_LIMIT: usize = 160;

/// Rules named in the attribute `rule_ids`, and in the mail.
pub(super) const MAX_NAMED_RULES: usize = 50;

pub(super) const MAX_RULE_ID: usize = 128;

/// How much of an event is told.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    pub(super) record: bool,
    /// At most so many rules.
    pub(super) rules: usize,
    /// At most so many characters of a rule's title, description and runbook, each.
    pub(super) text: usize,
}

/// From the whole to what always fits; the record goes first.
const DETAILS: [Detail; 4] = [
    Detail { record: true, rules: usize::MAX, text: 2048 },
    Detail { record: false, rules: usize::MAX, text: 2048 },
    Detail { record: false, rules: 500, text: 64 },
    Detail { record: false, rules: 10, text: 64 },
];

/// See [`super::render`].
pub(super) fn render(
    event: &DetectedEvent,
    alert: &ClaimedAlert,
    rules: &RuleSet,
    crossing: Option<&Crossing>,
    format: AlertFormat,
) -> Outbound {
    let told = Told::new(event, alert, rules, crossing);
    let subject = subject(&told);
    let mut outbound = Outbound {
        alert_id: alert.alert_id.clone(),
        message: String::new(),
        attributes: attributes(&event.facts, told.severity, &told.rules),
        group_id: group_id(event.facts.account_id.as_deref()),
        subject,
    };
    let email = email(&told);
    let sms = sms(&outbound.subject, event, &told.rules);
    for detail in DETAILS {
        // A record that is too large by itself is not rendered in vain.
        if detail.record && event.record.len() > PUBLISH_LIMIT {
            continue;
        }
        let default = match format {
            AlertFormat::Json => document(&told, detail),
            AlertFormat::Chatbot => chatbot::notification(&told),
            AlertFormat::Ocsf => ocsf::finding(&told, detail),
        };
        outbound.message = message(&default, &email, &sms);
        if outbound.size() + HEADROOM <= PUBLISH_LIMIT {
            break;
        }
    }
    outbound
}

/// `[HIGH] CreateAccessKey by Admin/alice in 123456789012 us-east-1`, of a group `[HIGH] 100 events: CreateAccessKey by ...`
fn subject(told: &Told<'_>) -> String {
    let facts = &told.event.facts;
    let name = ascii(&told.name(), 36);
    let outcome = match facts.outcome {
        Outcome::Success => String::new(),
        other => format!(" ({})", other.as_str()),
    };
    let events = told.crossing.and_then(group::events).map(|events| format!("{events}: ")).unwrap_or_default();
    let start = format!("[{}] {events}{name}{outcome}", told.severity);
    let place: Vec<String> =
        [&facts.account_id, &facts.region].into_iter().flatten().map(|part| ascii(part, 16)).collect();
    let place = if place.is_empty() { String::new() } else { format!(" in {}", place.join(" ")) };
    let by = facts.actor.as_deref().map(|actor| {
        let room = SUBJECT_LIMIT.saturating_sub(start.len() + " by ".len() + place.len());
        format!(" by {}", ascii(short_actor(actor), room))
    });
    ascii(&format!("{start}{}{place}", by.unwrap_or_default()), SUBJECT_LIMIT)
}

/// An ARN without what the account and the service say: `user/alice`.
fn short_actor(actor: &str) -> &str {
    let resource = actor.strip_prefix("arn:").and_then(|arn| arn.splitn(5, ':').nth(4));
    resource.filter(|resource| !resource.is_empty()).unwrap_or(actor)
}

pub(super) fn message(default: &str, email: &str, sms: &str) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        default: &'a str,
        email: &'a str,
        sms: &'a str,
    }
    // Strings always serialise.
    serde_json::to_string(&Message { default, email, sms }).unwrap_or_default()
}

/// What happened, when, and the gravest rule: as ASCII, since another alphabet leaves 70 characters to a message.
fn sms(subject: &str, event: &DetectedEvent, rules: &[ToldRule<'_>]) -> String {
    let time = event.facts.event_time.map(|_| event.key.timestamp.as_str());
    let rule = rules.first().map(|rule| rule.id);
    let parts: Vec<&str> = [Some(subject), time, rule].into_iter().flatten().collect();
    ascii(&inert(&parts.join(" "), SMS_LIMIT), SMS_LIMIT)
}

fn attributes(facts: &Facts, severity: Severity, rules: &[ToldRule<'_>]) -> Vec<(&'static str, AttributeValue)> {
    let ids = rules.iter().filter(|rule| !rule.id.is_empty()).take(MAX_NAMED_RULES);
    let ids: Vec<String> = ids.map(|rule| shown(rule.id, MAX_RULE_ID)).collect();
    let mut attributes = vec![("severity", AttributeValue::String(severity.as_str().to_owned()))];
    if !ids.is_empty() {
        attributes.push(("rule_ids", AttributeValue::StringArray(ids)));
    }
    let Facts { event_name, event_source, account_id, region, .. } = facts;
    let optional =
        [("event_name", event_name), ("event_source", event_source), ("account_id", account_id), ("region", region)];
    // SNS refuses an empty value.
    let present = optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let present = present.filter(|(_, value)| !value.is_empty());
    attributes.extend(present.map(|(name, value)| (name, AttributeValue::String(value))));
    attributes
}

/// SNS takes 128 letters, digits and punctuation marks.
fn group_id(account_id: Option<&str>) -> String {
    let fits = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    account_id.filter(fits).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::super::testing::valid;
    use super::*;
    use crate::alert::{Source, SourceObject, alert_id, detected_event};
    use crate::rules::{Detection, Mode, RuleInfo};

    fn rule(id: &str, severity: Severity, description: &str) -> Arc<RuleInfo> {
        Arc::new(RuleInfo::new(id, severity, description))
    }

    fn detected(record: impl Into<Bytes>, rules: Vec<Arc<RuleInfo>>) -> DetectedEvent {
        let source = Source {
            object: Some(SourceObject {
                bucket: "example-trail-logs".to_owned(),
                key: "AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz"
                    .to_owned(),
                version_id: Some("3HL4kqtJvjVBH40Nrjfkd.EXAMPLE".to_owned()),
            }),
            index: 12,
        };
        let detection = Detection { index: 12, raw: record.into(), rules };
        detected_event(&detection, source, datetime!(2024-05-01 12:07:31.482_913 UTC), "0123456789abcdef")
    }

    fn claimed(event: &DetectedEvent, rules: BTreeSet<String>) -> ClaimedAlert {
        ClaimedAlert { alert_id: alert_id(&event.key.event_id, &rules), rules, severity: Severity::Medium }
    }

    fn rendered(event: &DetectedEvent) -> Outbound {
        let item = crate::alert::stored_item(event, time::Duration::days(1));
        let alert = claimed(event, item.alerting());
        for format in [AlertFormat::Chatbot, AlertFormat::Ocsf] {
            valid(&render(event, &alert, &RuleSet::default(), None, format), format);
        }
        render(event, &alert, &RuleSet::default(), None, AlertFormat::Json)
    }

    fn alert_for(record: &str) -> Outbound {
        rendered(&detected(record.to_owned(), vec![rule("example-rule", Severity::High, "An example of a rule")]))
    }

    fn part(outbound: &Outbound, name: &str) -> String {
        let message: Value = serde_json::from_str(&outbound.message).unwrap();
        message[name].as_str().unwrap().to_owned()
    }

    fn document_of(outbound: &Outbound) -> Value {
        serde_json::from_str(&part(outbound, "default")).unwrap()
    }

    /// What a reader gets to see: subject, text, sms and attributes.
    fn seen(outbound: &Outbound) -> String {
        let mut text = format!("{}\n\n{}\n{}\n", outbound.subject, part(outbound, "email"), part(outbound, "sms"));
        for (name, value) in &outbound.attributes {
            writeln!(text, "{name} = {} ({})", value.string_value(), value.data_type()).unwrap();
        }
        writeln!(text, "group = {}", outbound.group_id).unwrap();
        text
    }

    /// The limits and rules of SNS that hold for every alert.
    fn check(outbound: &Outbound) {
        assert!(outbound.size() <= PUBLISH_LIMIT, "{} bytes", outbound.size());
        assert!(outbound.subject.len() <= SUBJECT_LIMIT && !outbound.subject.is_empty(), "{:?}", outbound.subject);
        assert!(outbound.subject.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{:?}", outbound.subject);
        assert!(part(outbound, "sms").len() <= SMS_LIMIT);
        let document = document_of(outbound);
        assert_eq!(document["schema"], "trailhound.alert/1");
        assert!(document["event"].is_object() || document["event"].is_null());
        assert!(part(outbound, "email").lines().count() <= 40 + 2 * MAX_NAMED_RULES);
        for (name, value) in &outbound.attributes {
            assert!(!value.string_value().is_empty(), "{name}");
        }
        for part in ["default", "email", "sms"].map(|name| part(outbound, name)) {
            assert!(!part.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'));
        }
        assert!((1..=128).contains(&outbound.group_id.len()));
    }

    fn outbound_rules(document: &Value) -> usize {
        document["rules"].as_array().unwrap().len()
    }

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/notifications/{name}", env!("CARGO_MANIFEST_DIR"));
        let event: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        event["detail"].to_string()
    }

    #[test]
    fn an_assumed_role() {
        let event = detected(
            fixture("eventbridge_api_call.json"),
            vec![
                rule("iam-change", Severity::Medium, "IAM was changed"),
                rule("iam-access-key", Severity::High, "An access key was created"),
            ],
        );
        let outbound = rendered(&event);
        check(&outbound);
        let email = part(&outbound, "email");
        assert!(
            include_str!("../../docs/alerts.md").contains(&email),
            "docs/alerts.md shows another mail than\n{email}"
        );
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] CreateAccessKey by Admin/alice in 111122223333 us-east-1

        HIGH: Admin/alice called CreateAccessKey on user bob in account 111122223333, us-east-1, and it succeeded.

        Who:        Admin/alice (AssumedRole, key ASIAIOSFODNN7EXAMPLE, with MFA)
        What:       CreateAccessKey on iam.amazonaws.com
        Where:      111122223333, us-east-1
        From:       203.0.113.7, aws-cli/2.15.30 Python/3.11.8
        Outcome:    success
        When:       2024-05-01T12:00:00Z, detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH iam-access-key: An access key was created
        - MEDIUM iam-change: IAM was changed

        Run next, with credentials of account 111122223333:
          trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
          aws cloudtrail lookup-events --region us-east-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=ASIAIOSFODNN7EXAMPLE --query 'Events[].[EventTime,EventSource,EventName]' --output text
          aws iam list-access-keys --user-name bob

        If this is expected, add to "unless" of iam-access-key, iam-change:
          {"pattern":{"eventSource":["iam.amazonaws.com"],"eventName":["CreateAccessKey"],"userIdentity":{"sessionContext":{"sessionIssuer":{"arn":["arn:aws:iam::111122223333:role/Admin"]}}}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        CloudTrail: https://us-east-1.console.aws.amazon.com/cloudtrailv2/home?region=us-east-1#/events/c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91
        Alert id:   bb80e66a5f4d6b3def15d10210c78fd0

        [HIGH] CreateAccessKey by Admin/alice in 111122223333 us-east-1 2024-05-01T12:00:00Z iam-access-key
        severity = HIGH (String)
        rule_ids = ["iam-access-key","iam-change"] (String.Array)
        event_name = CreateAccessKey (String)
        event_source = iam.amazonaws.com (String)
        account_id = 111122223333 (String)
        region = us-east-1 (String)
        group = 111122223333
        "#);
        insta::assert_snapshot!(part(&outbound, "default"), @r#"{"schema":"trailhound.alert/1","alert_id":"bb80e66a5f4d6b3def15d10210c78fd0","event_id":"c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91","event_time":"2024-05-01T12:00:00Z","detected_at":"2024-05-01T12:07:31.482Z","severity":"HIGH","summary":"Admin/alice called CreateAccessKey on user bob in account 111122223333, us-east-1, and it succeeded.","rules":[{"id":"iam-access-key","severity":"HIGH","title":null,"description":"An access key was created","check":null,"attack":[],"runbook":null},{"id":"iam-change","severity":"MEDIUM","title":null,"description":"IAM was changed","check":null,"attack":[],"runbook":null}],"event_name":"CreateAccessKey","event_source":"iam.amazonaws.com","account_id":"111122223333","region":"us-east-1","actor":"Admin/alice","user_identity_type":"AssumedRole","source_ip":"203.0.113.7","user_agent":"aws-cli/2.15.30 Python/3.11.8","outcome":"success","error_code":null,"error_message":null,"source":{"bucket":"example-trail-logs","key":"AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz","version":"3HL4kqtJvjVBH40Nrjfkd.EXAMPLE","index":12},"event":{"eventVersion":"1.09","userIdentity":{"type":"AssumedRole","principalId":"AROAEXAMPLEEXAMPLE002:alice","arn":"arn:aws:sts::111122223333:assumed-role/Admin/alice","accountId":"111122223333","accessKeyId":"ASIAIOSFODNN7EXAMPLE","sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROAEXAMPLEEXAMPLE002","arn":"arn:aws:iam::111122223333:role/Admin","accountId":"111122223333","userName":"Admin"},"attributes":{"creationDate":"2024-05-01T11:58:02Z","mfaAuthenticated":"true"}}},"eventTime":"2024-05-01T12:00:00Z","eventSource":"iam.amazonaws.com","eventName":"CreateAccessKey","awsRegion":"us-east-1","sourceIPAddress":"203.0.113.7","userAgent":"aws-cli/2.15.30 Python/3.11.8","requestParameters":{"userName":"bob"},"responseElements":{"accessKey":{"userName":"bob","accessKeyId":"AKIAIOSFODNN7EXAMPLE","status":"Active","createDate":"May 1, 2024, 12:00:00 PM"}},"requestID":"0a1b2c3d-1111-2222-3333-444455556666","eventID":"c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91","readOnly":false,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management","tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"iam.amazonaws.com"}},"truncated":false}"#);
    }

    #[test]
    fn an_iam_user_who_was_denied() {
        let outbound = alert_for(
            r#"{"eventVersion":"1.09","userIdentity":{"type":"IAMUser","principalId":"AIDAEXAMPLEEXAMPLE004","arn":"arn:aws:iam::111122223333:user/mallory","accountId":"111122223333","accessKeyId":"AKIAIOSFODNN7EXAMPLE","userName":"mallory"},"eventTime":"2024-05-01T12:00:03Z","eventSource":"ec2.amazonaws.com","eventName":"AuthorizeSecurityGroupIngress","awsRegion":"us-gov-west-1","sourceIPAddress":"203.0.113.9","userAgent":"Boto3/1.34.0 http://evil.example/","errorCode":"Client.UnauthorizedOperation","errorMessage":"You are not authorized to perform this operation.","requestParameters":null,"responseElements":null,"eventID":"b7e6d5c4-5b0e-4c0f-9b1a-0d6c3e5f7a96","eventType":"AwsApiCall","recipientAccountId":"111122223333"}"#,
        );
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] AuthorizeSecurityGroupIngress (denied) by user/mallory in 111122223333 us-gov-west-1

        HIGH: user/mallory called AuthorizeSecurityGroupIngress in account 111122223333, us-gov-west-1, and was denied.

        Who:        arn:aws:iam::111122223333:user/mallory (IAMUser, key AKIAIOSFODNN7EXAMPLE)
        What:       AuthorizeSecurityGroupIngress on ec2.amazonaws.com
        Where:      111122223333, us-gov-west-1
        From:       203.0.113.9, Boto3/1.34.0 http[:]//evil.example/
        Outcome:    denied: Client.UnauthorizedOperation: You are not authorized to perform this operation.
        When:       2024-05-01T12:00:03Z, detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH example-rule: An example of a rule

        Run next, with credentials of account 111122223333:
          trailhound events show b7e6d5c4-5b0e-4c0f-9b1a-0d6c3e5f7a96
          aws cloudtrail lookup-events --region us-gov-west-1 --start-time 2024-05-01T11:00:03Z --end-time 2024-05-01T13:00:03Z --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=AKIAIOSFODNN7EXAMPLE --query 'Events[].[EventTime,EventSource,EventName]' --output text
          aws iam list-access-keys --user-name mallory

        If this is expected, add to "unless" of example-rule:
          {"pattern":{"eventSource":["ec2.amazonaws.com"],"eventName":["AuthorizeSecurityGroupIngress"],"errorCode":[{"exists":true}],"userIdentity":{"arn":["arn:aws:iam::111122223333:user/mallory"]}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   b7e6d5c4-5b0e-4c0f-9b1a-0d6c3e5f7a96
        CloudTrail: https://us-gov-west-1.console.amazonaws-us-gov.com/cloudtrailv2/home?region=us-gov-west-1#/events/b7e6d5c4-5b0e-4c0f-9b1a-0d6c3e5f7a96
        Alert id:   c653edcf669a41f48970f6a7000dc36d

        [HIGH] AuthorizeSecurityGroupIngress (denied) by user/mallory in 111122223333 us-gov-west-1 2024-05-01T12:00:03Z example-rule
        severity = HIGH (String)
        rule_ids = ["example-rule"] (String.Array)
        event_name = AuthorizeSecurityGroupIngress (String)
        event_source = ec2.amazonaws.com (String)
        account_id = 111122223333 (String)
        region = us-gov-west-1 (String)
        group = 111122223333
        "#);
    }

    #[test]
    fn root() {
        let outbound = alert_for(
            r#"{"userIdentity":{"type":"Root","principalId":"111122223333","arn":"arn:aws:iam::111122223333:root","accountId":"111122223333"},"eventTime":"2024-05-01T12:00:00Z","eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","awsRegion":"cn-north-1","sourceIPAddress":"198.51.100.7","userAgent":"console.amazonaws.com","eventID":"d1","recipientAccountId":"111122223333"}"#,
        );
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] StopLogging by root in 111122223333 cn-north-1

        HIGH: The root user called StopLogging in account 111122223333, cn-north-1, and it succeeded.

        Who:        arn:aws:iam::111122223333:root (Root)
        What:       StopLogging on cloudtrail.amazonaws.com
        Where:      111122223333, cn-north-1
        From:       198.51.100.7, console.amazonaws.com
        Outcome:    success
        When:       2024-05-01T12:00:00Z, detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH example-rule: An example of a rule

        Run next, with credentials of account 111122223333:
          trailhound events show d1
          aws cloudtrail lookup-events --region cn-north-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=Username,AttributeValue=root --query 'Events[].[EventTime,EventSource,EventName]' --output text
          aws iam get-account-summary

        If this is expected, add to "unless" of example-rule:
          {"pattern":{"eventSource":["cloudtrail.amazonaws.com"],"eventName":["StopLogging"],"userIdentity":{"arn":["arn:aws:iam::111122223333:root"]}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   d1
        CloudTrail: https://cn-north-1.console.amazonaws.cn/cloudtrailv2/home?region=cn-north-1#/events/d1
        Alert id:   a006d37cb145ae91287fd3d6886159f4

        [HIGH] StopLogging by root in 111122223333 cn-north-1 2024-05-01T12:00:00Z example-rule
        severity = HIGH (String)
        rule_ids = ["example-rule"] (String.Array)
        event_name = StopLogging (String)
        event_source = cloudtrail.amazonaws.com (String)
        account_id = 111122223333 (String)
        region = cn-north-1 (String)
        group = 111122223333
        "#);
    }

    #[test]
    fn a_service() {
        let outbound = alert_for(&fixture("eventbridge_service_event.json"));
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] RotateKey by kms.amazonaws.com in 111122223333 eu-west-1

        HIGH: kms.amazonaws.com reported RotateKey on arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012 in account 111122223333, eu-west-1.

        Who:        kms.amazonaws.com
        What:       RotateKey on kms.amazonaws.com
        Where:      111122223333, eu-west-1
        From:       kms.amazonaws.com, kms.amazonaws.com
        Outcome:    success
        When:       2024-05-01T12:02:00Z, detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH example-rule: An example of a rule

        Run next, with credentials of account 111122223333:
          trailhound events show a1b2c3d4-5b0e-4c0f-9b1a-0d6c3e5f7a93
          aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:02:00Z --end-time 2024-05-01T13:02:00Z --lookup-attributes AttributeKey=EventId,AttributeValue=a1b2c3d4-5b0e-4c0f-9b1a-0d6c3e5f7a93 --query 'Events[].[EventTime,EventSource,EventName]' --output text
          aws s3 cp s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz - | gunzip | jq '.Records[12]'

        If this is expected, add to "unless" of example-rule:
          {"pattern":{"eventSource":["kms.amazonaws.com"],"eventName":["RotateKey"],"userIdentity":{"invokedBy":["kms.amazonaws.com"]}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   a1b2c3d4-5b0e-4c0f-9b1a-0d6c3e5f7a93
        CloudTrail: https://eu-west-1.console.aws.amazon.com/cloudtrailv2/home?region=eu-west-1#/events/a1b2c3d4-5b0e-4c0f-9b1a-0d6c3e5f7a93
        Alert id:   99d4325cf1ddba3b294bacc016d88199

        [HIGH] RotateKey by kms.amazonaws.com in 111122223333 eu-west-1 2024-05-01T12:02:00Z example-rule
        severity = HIGH (String)
        rule_ids = ["example-rule"] (String.Array)
        event_name = RotateKey (String)
        event_source = kms.amazonaws.com (String)
        account_id = 111122223333 (String)
        region = eu-west-1 (String)
        group = 111122223333
        "#);
    }

    #[test]
    fn a_failed_sign_in() {
        let outbound = alert_for(&fixture("eventbridge_console_sign_in.json"));
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] ConsoleLogin (failed) by carol in 111122223333 eu-west-1

        HIGH: carol tried to sign in to the console in account 111122223333, eu-west-1, and failed.

        Who:        carol (IAMUser)
        What:       ConsoleLogin on signin.amazonaws.com
        Where:      111122223333, eu-west-1
        From:       198.51.100.23, Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0
        Outcome:    failed: Failed authentication
        When:       2024-05-01T12:01:40Z, detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH example-rule: An example of a rule

        Run next, with credentials of account 111122223333:
          trailhound events show e7d6c5b4-5b0e-4c0f-9b1a-0d6c3e5f7a92
          aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:01:40Z --end-time 2024-05-01T13:01:40Z --lookup-attributes AttributeKey=Username,AttributeValue=carol --query 'Events[].[EventTime,EventSource,EventName]' --output text
          aws iam list-access-keys --user-name carol

        If this is expected, add to "unless" of example-rule:
          {"pattern":{"eventSource":["signin.amazonaws.com"],"eventName":["ConsoleLogin"],"errorMessage":[{"exists":true}],"userIdentity":{"userName":["carol"]}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   e7d6c5b4-5b0e-4c0f-9b1a-0d6c3e5f7a92
        CloudTrail: https://eu-west-1.console.aws.amazon.com/cloudtrailv2/home?region=eu-west-1#/events/e7d6c5b4-5b0e-4c0f-9b1a-0d6c3e5f7a92
        Alert id:   2ea94ebb0adaa279adc3c5b4c4394f1f

        [HIGH] ConsoleLogin (failed) by carol in 111122223333 eu-west-1 2024-05-01T12:01:40Z example-rule
        severity = HIGH (String)
        rule_ids = ["example-rule"] (String.Array)
        event_name = ConsoleLogin (String)
        event_source = signin.amazonaws.com (String)
        account_id = 111122223333 (String)
        region = eu-west-1 (String)
        group = 111122223333
        "#);
    }

    #[test]
    fn an_insight() {
        let outbound = alert_for(&fixture("eventbridge_insight.json"));
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] ListUsers insight in 111122223333 eu-west-1

        HIGH: CloudTrail saw an unusual rate of calls to ListUsers in account 111122223333, eu-west-1.

        What:       ListUsers on iam.amazonaws.com
        Where:      111122223333, eu-west-1
        Outcome:    success
        When:       2024-05-01T12:03:00Z, detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH example-rule: An example of a rule

        Run next, with credentials of account 111122223333:
          trailhound events show f0e1d2c3-5b0e-4c0f-9b1a-0d6c3e5f7a94
          aws cloudtrail lookup-events --region eu-west-1 --start-time 2024-05-01T11:03:00Z --end-time 2024-05-01T13:03:00Z --lookup-attributes AttributeKey=EventName,AttributeValue=ListUsers --query 'Events[].[EventTime,EventSource,EventName]' --output text
          aws s3 cp s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz - | gunzip | jq '.Records[12]'

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   f0e1d2c3-5b0e-4c0f-9b1a-0d6c3e5f7a94
        Alert id:   fb434744ce8d5b6da7952e071a761701

        [HIGH] ListUsers insight in 111122223333 eu-west-1 2024-05-01T12:03:00Z example-rule
        severity = HIGH (String)
        rule_ids = ["example-rule"] (String.Array)
        event_name = ListUsers (String)
        event_source = iam.amazonaws.com (String)
        account_id = 111122223333 (String)
        region = eu-west-1 (String)
        group = 111122223333
        "#);
    }

    #[test]
    fn a_record_that_says_nothing() {
        let event = DetectedEvent {
            source: Source::default(),
            ..detected("{}", vec![rule("example-rule", Severity::Low, "Anything")])
        };
        let outbound = rendered(&event);
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [LOW] unnamed event

        LOW: Somebody called something unnamed, and it succeeded.

        Outcome:    success
        When:       detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - LOW example-rule: Anything

        Run next:
          trailhound events show 44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a

        Record:     came in a message, not in an object
        Event id:   44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
        Alert id:   9a611981e245f0574223a3ae6d0d4eaf

        [LOW] unnamed event example-rule
        severity = LOW (String)
        rule_ids = ["example-rule"] (String.Array)
        group = unknown
        "#);
        insta::assert_snapshot!(part(&outbound, "default"), @r#"{"schema":"trailhound.alert/1","alert_id":"9a611981e245f0574223a3ae6d0d4eaf","event_id":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","event_time":null,"detected_at":"2024-05-01T12:07:31.482Z","severity":"LOW","summary":"Somebody called something unnamed, and it succeeded.","rules":[{"id":"example-rule","severity":"LOW","title":null,"description":"Anything","check":null,"attack":[],"runbook":null}],"event_name":null,"event_source":null,"account_id":null,"region":null,"actor":null,"user_identity_type":null,"source_ip":null,"user_agent":null,"outcome":"success","error_code":null,"error_message":null,"source":{"bucket":null,"key":null,"version":null,"index":0},"event":{},"truncated":false}"#);
    }

    #[test]
    fn a_hostile_record_cannot_forge_lines_links_or_directions() {
        let outbound = alert_for(
            &json!({
                "eventID": "1\nAlert id:   forged\u{202e}",
                "eventTime": "2024-05-01T12:00:00Z\nDetected: never",
                "eventName": "Delete\r\nSeverity: LOW\u{1b}[2J",
                "eventSource": "iam\u{2028}.amazonaws.com",
                "awsRegion": "evil.example/#us-east-1",
                "recipientAccountId": "1111\u{0}2222",
                "userIdentity": { "type": "\u{202e}tooR", "userName": "ünï 日本 \u{200b}<b>\"x\"</b>" },
                "sourceIPAddress": "203.0.113.7\nOutcome: success",
                "userAgent": "curl https://evil.example/?a=b\u{85}\u{feff}",
                "errorCode": "AccessDenied\u{7f}",
            })
            .to_string(),
        );
        check(&outbound);
        insta::assert_snapshot!(seen(&outbound), @r#"
        [HIGH] Delete\r\nSeverity: LOW\u{1b}[2J (denied) by ?n? ?? \u{20.. in 1111\u{0}2222 evil.example/#..

        HIGH: ünï 日本 \u{200b}<b>"x"</b> called Delete\r\nSeverity: LOW\u{1b}[2J in account 1111\u{0}2222, evil.example/#us-east-1, and was denied.

        Who:        ünï 日本 \u{200b}<b>"x"</b> (\u{202e}tooR)
        What:       Delete\r\nSeverity: LOW\u{1b}[2J on iam\u{2028}.amazonaws.com
        Where:      1111\u{0}2222, evil.example/#us-east-1
        From:       203.0.113.7\nOutcome: success, curl https[:]//evil.example/?a=b\u{85}\u{feff}
        Outcome:    denied: AccessDenied\u{7f}
        When:       detected 2024-05-01T12:07:31.482Z

        Why it matters:
        - HIGH example-rule: An example of a rule

        Run next, with credentials of account 1111\u{0}2222:
          aws s3 cp s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz - | gunzip | jq '.Records[12]'

        If this is expected, add to "unless" of example-rule:
          {"pattern":{"eventSource":["iam\u2028.amazonaws.com"],"eventName":["Delete\r\nSeverity: LOW\u001b[2J"],"errorCode":[{"exists":true}],"userIdentity":{"userName":["ünï 日本 \u200b<b>\"x\"</b>"]}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}

        Object:     s3://example-trail-logs/AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz, version 3HL4kqtJvjVBH40Nrjfkd.EXAMPLE
        Record:     12, counted from 0
        Event id:   1\nAlert id:   forged\u{202e}
        Alert id:   52815e376e133f947198c02e657bf84a

        [HIGH] Delete\r\nSeverity: LOW\u{1b}[2J (denied) by ?n? ?? \u{20.. in 1111\u{0}2222 evil.example/#.. example-rule
        severity = HIGH (String)
        rule_ids = ["example-rule"] (String.Array)
        event_name = Delete\r\nSeverity: LOW\u{1b}[2J (String)
        event_source = iam\u{2028}.amazonaws.com (String)
        account_id = 1111\u{0}2222 (String)
        region = evil.example/#us-east-1 (String)
        group = 1111\u{0}2222
        "#);
        let document = document_of(&outbound);
        assert_eq!(document["event"]["userAgent"], "curl https://evil.example/?a=b\u{85}\u{feff}");
        assert!(!part(&outbound, "default").contains(['\u{85}', '\u{feff}', '\u{7f}']));
    }

    #[test]
    fn the_record_goes_first_when_the_alert_is_too_large() {
        let with = |size: usize| {
            alert_for(&json!({ "eventID": "1", "eventName": "A", "requestParameters": "\"".repeat(size) }).to_string())
        };
        let fits = with(20_000);
        check(&fits);
        assert_eq!(document_of(&fits)["truncated"], false);
        // A quote costs four bytes, as JSON in JSON in JSON.
        for size in [66_000, 300_000] {
            let large = with(size);
            check(&large);
            assert_eq!(document_of(&large)["event"], Value::Null);
            assert_eq!(document_of(&large)["truncated"], true);
            assert_eq!(document_of(&large)["event_name"], "A");
        }
    }

    #[test]
    fn everything_at_its_longest_still_fits() {
        for character in ["x", "\"", "\\", "\n", "\u{1f600}", "\u{202e}", "\u{e0001}"] {
            let long = character.repeat(5_000);
            let identity = json!({ "type": long, "arn": long, "userName": long });
            let record = json!({
                "eventID": character.repeat(1024 / character.len()), "eventTime": "2024-05-01T12:00:00Z", "eventName": long,
                "eventSource": long, "awsRegion": long, "recipientAccountId": long, "userIdentity": identity,
                "sourceIPAddress": long, "userAgent": long, "errorCode": long, "errorMessage": long,
            });
            let (id, description) = (character.repeat(200), character.repeat(3000));
            let rule = |i| RuleInfo {
                title: Some(description.clone()),
                check: Some(description.clone()),
                attack: vec![id.clone(); 50],
                runbook: Some(description.clone()),
                ..RuleInfo::new(format!("{i:03}{id}"), Severity::Critical, description.clone())
            };
            let rules = (0..200).map(|i| Arc::new(rule(i))).collect();
            let mut event = detected(record.to_string(), rules);
            for key in [character.repeat(1024 / character.len()), long.clone()] {
                event.source.object =
                    Some(SourceObject { bucket: key.clone(), key: key.clone(), version_id: Some(key) });
                let outbound = rendered(&event);
                check(&outbound);
                assert_eq!(document_of(&outbound)["truncated"], true);
            }
        }
    }

    #[test]
    fn five_hundred_rules_are_told_in_full_where_they_fit() {
        let rules = (0..500).map(|i| rule(&format!("rule-{i}"), Severity::Low, "Short")).collect();
        let outbound = rendered(&detected(r#"{"eventID":"1"}"#, rules));
        check(&outbound);
        assert_eq!(outbound_rules(&document_of(&outbound)), 500);
        assert!(part(&outbound, "email").contains("- and 450 more\n"));
    }

    #[test]
    fn exactly_the_claimed_rules_are_told_the_gravest_first() {
        let event = detected(
            r#"{"eventID":"1"}"#,
            vec![
                rule("a-low", Severity::Low, "Low"),
                rule("b-high", Severity::High, "High"),
                rule("c", Severity::Critical, "C"),
            ],
        );
        let claim = claimed(&event, ["a-low", "b-high", "gone"].map(str::to_owned).into());
        let outbound = render(&event, &claim, &RuleSet::default(), None, AlertFormat::Json);
        check(&outbound);
        assert_eq!(
            document_of(&outbound)["rules"],
            json!([
                { "id": "b-high", "severity": "HIGH", "title": null, "description": "High", "check": null, "attack": [], "runbook": null },
                { "id": "gone", "severity": "MEDIUM", "title": null, "description": null, "check": null, "attack": [], "runbook": null },
                { "id": "a-low", "severity": "LOW", "title": null, "description": "Low", "check": null, "attack": [], "runbook": null },
            ])
        );
        assert_eq!(document_of(&outbound)["severity"], "HIGH");
        assert_eq!(outbound.alert_id, claim.alert_id);
    }

    #[test]
    fn a_rule_in_shadow_has_no_say_in_the_alert() {
        let on_trial = RuleInfo { mode: Mode::Shadow, ..RuleInfo::new("on-trial", Severity::Critical, "On trial") };
        let event = detected(r#"{"eventID":"1"}"#, vec![Arc::new(on_trial), rule("a-low", Severity::Low, "Low")]);
        let outbound = rendered(&event);
        check(&outbound);
        assert!(outbound.subject.starts_with("[LOW] "), "{}", outbound.subject);
        assert_eq!(document_of(&outbound)["severity"], "LOW");
        assert!(!outbound.message.contains("on-trial"), "{}", outbound.message);
        let values: Vec<_> = outbound.attributes.iter().map(|(_, value)| value.string_value()).collect();
        assert_eq!(values, ["LOW", r#"["a-low"]"#]);
    }

    #[test]
    fn a_rule_tells_its_title_techniques_and_runbook_bounded_and_visible() {
        let of = |title: &str, technique: &str, runbook: &str| RuleInfo {
            title: Some(title.to_owned()),
            attack: vec![technique.to_owned(), "T1078.004".to_owned()],
            check: Some(format!("who owns {title}.")),
            runbook: Some(runbook.to_owned()),
            ..RuleInfo::new("iam-access-key", Severity::High, "An access key was created")
        };
        let event = |rule| detected(r#"{"eventID":"1"}"#, vec![Arc::new(rule)]);
        let outbound = rendered(&event(of("Key created", "T1098.001", "https://wiki.example.com/iam-access-key")));
        check(&outbound);
        assert_eq!(
            document_of(&outbound)["rules"][0],
            json!({
                "id": "iam-access-key", "severity": "HIGH", "title": "Key created",
                "description": "An access key was created", "check": "who owns Key created.",
                "attack": ["T1098.001", "T1078.004"],
                "runbook": "https://wiki.example.com/iam-access-key",
            })
        );
        assert_eq!(document_of(&outbound)["truncated"], false);
        let email = part(&outbound, "email");
        assert!(
            email.contains(
                "- HIGH iam-access-key: An access key was created\n  \
                 Check first: who owns Key created.\n  \
                 Runbook: https://wiki.example.com/iam-access-key\n\n"
            ),
            "{email}"
        );

        let outbound = rendered(&event(of("a\u{202e}b", "T1\n", "x\ny")));
        check(&outbound);
        let rule = document_of(&outbound)["rules"][0].clone();
        assert_eq!(rule["check"], "who owns a\\u{202e}b.");
        assert_eq!((&rule["title"], &rule["attack"][0]), (&json!("a\\u{202e}b"), &json!("T1\\n")));
        assert_eq!(rule["runbook"], "x\\ny");
        assert!(part(&outbound, "email").contains("  Runbook: x\\ny\n"));

        let long = "x".repeat(3000);
        for rule in [of(&long, "T1", "r"), of("t", &long, "r"), of("t", "T1", &long)] {
            let outbound = rendered(&event(rule));
            check(&outbound);
            assert_eq!(document_of(&outbound)["truncated"], true);
            assert!(!outbound.message.contains(&long));
        }
        let many = RuleInfo { attack: vec!["T1".to_owned(); 21], ..of("t", "T1", "r") };
        let document = document_of(&rendered(&event(many)));
        assert_eq!(
            (document["rules"][0]["attack"].as_array().unwrap().len(), &document["truncated"]),
            (20, &json!(true))
        );
    }

    #[test]
    fn the_text_of_an_alert_is_its_mail() {
        let event = detected(fixture("eventbridge_api_call.json"), vec![rule("a", Severity::Low, "A")]);
        let alert = claimed(&event, ["a".to_owned()].into());
        assert_eq!(crate::alert::text(&event, &alert, &RuleSet::default()), part(&rendered(&event), "email"));
    }

    /// As a chat shows it, and as a SIEM reads it.
    #[test]
    #[allow(clippy::too_many_lines, reason = "the findings of SIEMs are long")]
    fn one_alert_in_the_other_formats() {
        let rule = RuleInfo {
            title: Some("Access key made for another user".to_owned()),
            check: Some("whether the user asked for it.".to_owned()),
            attack: vec!["T1098.001".to_owned()],
            attack_version: Some("16.1".to_owned()),
            tags: vec!["persistence".to_owned()],
            runbook: Some("https://wiki.example.com/keys".to_owned()),
            ..RuleInfo::new("iam-access-key", Severity::High, "One identity made an access key for another.")
        };
        let event = detected(fixture("eventbridge_api_call.json"), vec![Arc::new(rule)]);
        let alert = claimed(&event, ["iam-access-key".to_owned()].into());
        let of = |format| {
            let mut document = valid(&render(&event, &alert, &RuleSet::default(), None, format), format);
            if format == AlertFormat::Ocsf {
                // The record, which other tests look at, and what changes with each release.
                document["evidences"][0]["data"] = json!({ "eventID": document["evidences"][0]["data"]["eventID"] });
                document["metadata"]["product"]["version"] = json!("VERSION");
            }
            let text = format!("{document:#}");
            let page = include_str!("../../docs/alerts.md");
            assert!(page.contains(&text), "docs/alerts.md shows another example than\n{text}");
            text
        };
        insta::assert_snapshot!(of(AlertFormat::Chatbot), @r#"
        {
          "version": "1.0",
          "source": "custom",
          "id": "95706127581ac6373616518969e7bdb7",
          "content": {
            "textType": "client-markdown",
            "title": "[HIGH] `CreateAccessKey` by `Admin/alice` in `111122223333`",
            "description": "`Admin/alice` called `CreateAccessKey` on user `bob` in account `111122223333`, `us-east-1`, and it succeeded.\n\nWho: `Admin/alice`, `AssumedRole`\nFrom: `203.0.113.7`, `aws-cli/2.15.30 Python/3.11.8`\nOutcome: `success`\nWhen: `2024-05-01T12:00:00Z`\n\nHIGH `iam-access-key`: One identity made an access key for another.\nRunbook: https://wiki.example.com/keys\n\nhttps://us-east-1.console.aws.amazon.com/cloudtrailv2/home?region=us-east-1#/events/c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91\n\nIf this is expected, add to \"unless\" of `iam-access-key`:\n`{\"pattern\":{\"eventSource\":[\"iam.amazonaws.com\"],\"eventName\":[\"CreateAccessKey\"],\"userIdentity\":{\"sessionContext\":{\"sessionIssuer\":{\"arn\":[\"arn:aws:iam::111122223333:role/Admin\"]}}}},\"reason\":\"Expected: say why, and who agreed\",\"until\":\"2024-07-30\"}`",
            "nextSteps": [
              "Check first: whether the user asked for it.",
              "`trailhound events show c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91`",
              "`aws cloudtrail lookup-events --region us-east-1 --start-time 2024-05-01T11:00:00Z --end-time 2024-05-01T13:00:00Z --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=ASIAIOSFODNN7EXAMPLE --query 'Events[].[EventTime,EventSource,EventName]' --output text`",
              "`aws iam list-access-keys --user-name bob`"
            ],
            "keywords": [
              "HIGH",
              "iam-access-key",
              "T1098.001"
            ]
          },
          "metadata": {
            "threadId": "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91",
            "summary": "[HIGH] `CreateAccessKey` by `Admin/alice` in `111122223333`",
            "eventType": "trailhound-alert",
            "additionalContext": {
              "account_id": "111122223333",
              "actor": "Admin/alice",
              "detected_at": "2024-05-01T12:07:31.482Z",
              "event_id": "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91",
              "event_name": "CreateAccessKey",
              "event_source": "iam.amazonaws.com",
              "outcome": "success",
              "region": "us-east-1",
              "severity": "HIGH",
              "source_ip": "203.0.113.7"
            }
          }
        }
        "#);
        insta::assert_snapshot!(of(AlertFormat::Ocsf), @r#"
        {
          "activity_id": 1,
          "activity_name": "Create",
          "category_uid": 2,
          "category_name": "Findings",
          "class_uid": 2004,
          "class_name": "Detection Finding",
          "type_uid": 200401,
          "type_name": "Detection Finding: Create",
          "severity_id": 4,
          "severity": "High",
          "status_id": 1,
          "status": "New",
          "is_alert": true,
          "time": 1714564800000,
          "message": "Admin/alice called CreateAccessKey on user bob in account 111122223333, us-east-1, and it succeeded.",
          "metadata": {
            "version": "1.5.0",
            "uid": "95706127581ac6373616518969e7bdb7",
            "product": {
              "name": "trailhound",
              "vendor_name": "trailhound",
              "version": "VERSION"
            },
            "profiles": [
              "cloud"
            ],
            "log_provider": "AWS",
            "log_name": "CloudTrail",
            "logged_time": 1714565251482,
            "original_time": "2024-05-01T12:00:00Z"
          },
          "finding_info": {
            "created_time": 1714565251482,
            "uid": "95706127581ac6373616518969e7bdb7",
            "title": "Access key made for another user",
            "desc": "One identity made an access key for another.",
            "types": [
              "persistence"
            ],
            "analytic": {
              "uid": "iam-access-key",
              "name": "Access key made for another user",
              "type": "Rule",
              "type_id": 1
            },
            "attacks": [
              {
                "technique": {
                  "uid": "T1098"
                },
                "sub_technique": {
                  "uid": "T1098.001"
                },
                "version": "16.1"
              }
            ],
            "data_sources": [
              "AWS CloudTrail"
            ],
            "src_url": "https://us-east-1.console.aws.amazon.com/cloudtrailv2/home?region=us-east-1#/events/c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91"
          },
          "cloud": {
            "provider": "AWS",
            "account": {
              "uid": "111122223333",
              "type": "AWS Account",
              "type_id": 10
            },
            "region": "us-east-1"
          },
          "api": {
            "operation": "CreateAccessKey",
            "service": {
              "name": "iam.amazonaws.com"
            },
            "request": {
              "uid": "0a1b2c3d-1111-2222-3333-444455556666"
            }
          },
          "evidences": [
            {
              "api": {
                "operation": "CreateAccessKey",
                "service": {
                  "name": "iam.amazonaws.com"
                },
                "request": {
                  "uid": "0a1b2c3d-1111-2222-3333-444455556666"
                }
              },
              "actor": {
                "user": {
                  "name": "Admin/alice",
                  "uid": "arn:aws:sts::111122223333:assumed-role/Admin/alice",
                  "uid_alt": "AROAEXAMPLEEXAMPLE002:alice",
                  "type": "AssumedRole",
                  "type_id": 99,
                  "credential_uid": "ASIAIOSFODNN7EXAMPLE",
                  "account": {
                    "uid": "111122223333",
                    "type": "AWS Account",
                    "type_id": 10
                  }
                },
                "session": {
                  "issuer": "arn:aws:iam::111122223333:role/Admin",
                  "created_time": 1714564682000,
                  "is_mfa": true
                }
              },
              "src_endpoint": {
                "ip": "203.0.113.7"
              },
              "http_request": {
                "user_agent": "aws-cli/2.15.30 Python/3.11.8"
              },
              "data": {
                "eventID": "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91"
              }
            }
          ],
          "remediation": {
            "desc": "Check first: whether the user asked for it.",
            "references": [
              "https://wiki.example.com/keys"
            ]
          },
          "unmapped": {
            "alert_id": "95706127581ac6373616518969e7bdb7",
            "event_id": "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91",
            "outcome": "success",
            "source": {
              "bucket": "example-trail-logs",
              "key": "AWSLogs/111122223333/CloudTrail/us-east-1/2024/05/01/111122223333_CloudTrail_us-east-1_20240501T1205Z_Qz4L.json.gz",
              "version": "3HL4kqtJvjVBH40Nrjfkd.EXAMPLE",
              "index": 12
            },
            "rules": [
              "iam-access-key"
            ],
            "truncated": false
          }
        }
        "#);
    }

    #[test]
    fn a_chat_shows_hostile_texts_as_code_and_leaves_out_what_it_could_not_show() {
        let hostile = "x` <!channel> <@U1> *b* [a](https://evil.example/) & \u{202e}";
        let record = json!({
            "eventID": hostile, "eventName": hostile, "eventSource": hostile, "recipientAccountId": hostile,
            "userIdentity": { "type": "IAMUser", "userName": hostile }, "userAgent": hostile, "errorMessage": hostile,
            "requestParameters": { "userName": hostile },
        });
        let event = detected(record.to_string(), vec![rule("r", Severity::High, "R")]);
        let alert = claimed(&event, ["r".to_owned()].into());
        let outbound = render(&event, &alert, &RuleSet::default(), None, AlertFormat::Chatbot);
        let document = valid(&outbound, AlertFormat::Chatbot);
        let content = &document["content"];
        let texts = [&content["title"], &content["description"], &document["metadata"]["summary"]];
        for text in texts.map(|text| text.as_str().unwrap()) {
            assert!(!text.contains(['<', '>']) && !text.contains("https://evil"), "{text}");
            // What is between back quotes is of others, what is outside of them is ours.
            let ours: String = text.split('`').step_by(2).collect();
            assert!(!ours.contains("channel") && !ours.contains('*') && !ours.contains("]("), "{ours}");
        }
        let steps: Vec<_> = content["nextSteps"].as_array().unwrap().iter().collect();
        assert!(steps.iter().all(|step| step.as_str().unwrap().starts_with("`aws s3 cp ")), "{steps:?}");
        assert_eq!(document["metadata"]["threadId"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn both_paths_of_one_event_tell_one_alert() {
        let compact = fixture("eventbridge_api_call.json");
        let value: Value = serde_json::from_str(&compact).unwrap();
        let mut members: Vec<String> =
            value.as_object().unwrap().iter().map(|(k, v)| format!(" \"{k}\" : {v:#}")).collect();
        members.reverse();
        let spaced = format!("{{{}\n}}", members.join(","));
        let rules = || vec![rule("r", Severity::High, "R")];
        let (one, other) = (detected(compact, rules()), detected(spaced, rules()));
        assert_eq!(one.key, other.key);
        assert_eq!(one.facts, other.facts);
        assert_eq!(rendered(&one).alert_id, rendered(&other).alert_id);
    }

    #[test]
    fn alert_ids_differ_by_event_and_rules_and_are_short() {
        let ids = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect::<BTreeSet<_>>();
        let all = [
            alert_id("e", &ids(&["a"])),
            alert_id("e", &ids(&["b"])),
            alert_id("e", &ids(&["a", "b"])),
            alert_id("e", &ids(&["ab"])),
            alert_id("ea", &ids(&[])),
            alert_id("f", &ids(&["a"])),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        // Stored and compared across versions: this value never changes.
        assert_eq!(alert_id("e", &ids(&["a", "b"])), "e55407e027b254956e39547167c3e213");
    }

    proptest! {
        #[test]
        fn no_record_breaks_an_alert(raw in any::<Vec<u8>>()) {
            check(&rendered(&detected(raw, vec![rule("r", Severity::High, "R")])));
        }

        #[test]
        fn no_text_in_a_record_breaks_an_alert(text in any::<String>(), other in any::<String>()) {
            let identity = json!({ "type": text, "arn": other, "sessionContext": { "sessionIssuer": { "userName": text } } });
            let record = json!({
                "eventID": other, "eventName": text, "eventSource": other, "awsRegion": text, "recipientAccountId": other,
                "userIdentity": identity, "userAgent": text, "errorMessage": other, "requestParameters": { &text: other },
            });
            let outbound = rendered(&detected(record.to_string(), vec![rule(&text, Severity::High, &other)]));
            check(&outbound);
            prop_assert_eq!(&document_of(&outbound)["event"], &record);
        }
    }
}
