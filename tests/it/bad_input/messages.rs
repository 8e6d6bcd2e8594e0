//! Messages that say something else, or nothing.

use serde_json::json;

use super::make::{
    EVENTS, cloudtrail_message, document, encoded_notification, envelope, eventbridge, gzip, nested, notification_with,
    record_with,
};
use super::{Case, Outcome, case, limits};
use crate::fakes::lock;
use crate::sim::{BUCKET, log_key, notification, record};

const NOTHING: &str = "nothing";
const ALL: &str = "everything";

#[expect(clippy::too_many_lines, reason = "a list")]
pub(super) fn cases() -> Vec<Case> {
    use Outcome::{Acknowledged, Deleted, Left};
    let (key, log) = (log_key("trail", 1), gzip(document().as_bytes()));
    let body = notification(&key);
    let named = |it: Case| it.beside(&key, log.clone());
    let sees_all = |it: Case| named(it).delivers(EVENTS);
    vec![
        case("an empty body", Left("not_json"), NOTHING).messages(["", " ", "\n"]),
        case("text, HTML, XML, YAML, `NaN`, single quotes", Left("not_json"), NOTHING).messages([
            "hello",
            "<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
            "Records:\n- s3: {}",
            "NaN",
            "{'Records': []}",
        ]),
        named(case("JSON cut off at any byte", Left("not_json"), NOTHING))
            .messages((0..body.len()).filter_map(|length| body.get(..length))),
        named(case("several JSON documents in one body", Left("not_json"), NOTHING)).messages([
            format!("{body}{body}"),
            format!("{body}\n{{}}"),
            format!("{body}]"),
        ]),
        named(case("NUL bytes and other control characters that JSON does not take", Left("not_json"), NOTHING))
            .messages([
                format!("{body}\0"),
                format!("\0{body}"),
                body.replace("ObjectCreated", "Object\0Created"),
                body.replace("ObjectCreated", "Object\nCreated"),
                body.chars().flat_map(|character| [character, '\0']).collect(),
            ]),
        case("a scalar", Left("unknown_shape"), NOTHING).messages(["null", "true", "17", "1e999", "\"text\"", "\"\""]),
        case("an empty object, an empty array, an array of anything else", Left("unknown_shape"), NOTHING).messages([
            "{}",
            "[]",
            "[[]]",
            "[null]",
            "[1,\"x\"]",
            "[{}]",
        ]),
        case("an object of another kind", Left("unknown_shape"), NOTHING).messages([
            json!({ "text": "deploy finished", "password": "hunter2" }).to_string(),
            json!({ "Event": "s3:OtherEvent", "Bucket": BUCKET }).to_string(),
            json!({ "Type": 7, "Message": "CloudTrail validation message." }).to_string(),
            json!({ "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "detail": {} })
                .to_string(),
            json!({ "detail-type": null, "source": "aws.s3", "detail": {} }).to_string(),
            json!({ "s3Bucket": BUCKET }).to_string(),
        ]),
        case("`Records` that is empty or no array", Left("unknown_shape"), NOTHING)
            .messages(["[]", "null", "{}", "\"x\"", "7", "true"].map(|records| format!("{{\"Records\":{records}}}"))),
        case("`Records` of anything but S3 events", Left("bad_notification"), NOTHING)
            .messages(["[null]", "[7]", "[[]]", "[{}]", "[\"x\"]"].map(|records| format!("{{\"Records\":{records}}}")))
            .message(json!({ "Records": [record(1)] }).to_string())
            .message(
                json!({ "Records": [{ "eventSource": "aws:kinesis", "kinesis": { "data": "e30=" } }] }).to_string(),
            ),
        named(case(
            "an S3 event without a bucket's name or a key, or with another type in its place",
            Left("bad_notification"),
            NOTHING,
        ))
        .messages(
            ["/s3", "/s3/bucket", "/s3/object", "/s3/bucket/name", "/s3/object/key", "/eventName"]
                .into_iter()
                .flat_map(|place| {
                    [json!(null), json!(7), json!([]), json!("")]
                        .map(|value| notification_with(&log_key("trail", 1), place, value))
                }),
        ),
        case("CloudTrail's message without a bucket or keys, or with other types", Left("bad_notification"), NOTHING)
            .messages(
                [json!([]), json!(null), json!(7), json!({}), json!([""]), json!([null]), json!([[]])]
                    .map(|keys| json!({ "s3Bucket": BUCKET, "s3ObjectKey": keys }).to_string()),
            )
            .messages(
                [json!(null), json!(""), json!({})]
                    .map(|bucket| json!({ "s3Bucket": bucket, "s3ObjectKey": ["k"] }).to_string()),
            ),
        named(case("a lone surrogate in a key", Left("bad_notification"), NOTHING))
            .message(body.replace(&key, &format!("\\ud800{key}")))
            .message(body.replace(&key, &format!("{key}\\udc00"))),
        case("a key, bucket or version longer than S3 has any", Left("bad_notification"), NOTHING)
            .message(notification(&log_key(&"k".repeat(1024), 1)))
            .message(notification_with(&key, "/s3/bucket/name", json!("b".repeat(70_000))))
            .message(cloudtrail_message(&[log_key(&"k/".repeat(600), 1)])),
        sees_all(case("bad parts beside a good one", Left("bad_notification"), "what the good one names")).messages({
            let mut mixed: serde_json::Value = serde_json::from_str(&body).unwrap();
            let records = mixed["Records"].as_array_mut().unwrap();
            records.insert(0, json!({}));
            records.push(json!(null));
            [mixed.to_string(), json!({ "s3Bucket": BUCKET, "s3ObjectKey": [7, key, null] }).to_string()]
        }),
        sees_all(case("an object that is not there, beside one that is", Left("missing"), "what is there"))
            .message(cloudtrail_message(&[log_key("trail", 404), key.clone()])),
        sees_all(case("ten thousand keys that are not there, and one that is", Left("missing"), "what is there"))
            .message({
                let keys = (0..10_000).map(|number| format!("{number}_CloudTrail_x_20260501T1205Z.gz"));
                let body = cloudtrail_message(&keys.chain([key.clone()]).collect::<Vec<_>>());
                assert!(body.len() < 1 << 20, "SQS takes no more");
                body
            }),
        sees_all(case("the same key a thousand times", Deleted, "everything, once"))
            .message(cloudtrail_message(&vec![key.clone(); 1000]))
            .check(|ended| {
                assert_eq!(ended.process.metrics.objects.with_label_values(&["ok"]).get(), 3);
            }),
        named(case("a bucket that is not in `source.allowed_buckets`", Left("bucket_not_allowed"), NOTHING))
            .messages(
                ["other", "trail-logs ", "TRAIL-LOGS", "trail-logs/..", "../trail-logs", "arn:aws:s3:::trail-logs"]
                    .map(|name| notification_with(&key, "/s3/bucket/name", json!(name))),
            )
            .with(|config| config.source.allowed_buckets = vec![BUCKET.to_owned()]),
        odd_keys(),
        case("a key with a NUL byte", Deleted, ALL)
            .message(encoded_notification(&log_key("nul\0", 1)))
            .message(cloudtrail_message(&[log_key("nul\0", 1)]))
            .beside(log_key("nul\0", 1), log.clone())
            .delivers(EVENTS),
        sees_all(case("duplicate members: the last one counts", Deleted, ALL)).messages([
            body.replacen('{', "{\"Records\":[{\"s3\":7}],", 1),
            body.replace("\"object\":{", "\"object\":{\"key\":\"elsewhere\","),
        ]),
        sees_all(case("sizes and times that are no number and no time, or beyond any type", Deleted, ALL)).messages(
            ["1e999", "-1", "99999999999999999999999", "\"x\"", "null", "[]"]
                .map(|size| body.replace("1024", size).replace("\"2026-05-01T12:05:00.000Z\"", size)),
        ),
        sees_all(case("a lone surrogate anywhere else", Deleted, ALL))
            .message(body.replace("AROAEXAMPLETRAIL0001", "\\ud800"))
            .message(body.replacen('{', r#"{"odd":"\udfff","#, 1)),
        case("a lone surrogate in a member's name", Left("unknown_shape"), NOTHING).message(body.replacen(
            '{',
            r#"{"\ud800":1,"#,
            1,
        )),
        sees_all(case("a byte order mark, white space around", Deleted, ALL)).messages([
            format!("\u{feff}{body}"),
            format!(" \r\n\t{body}\n\n"),
            envelope(&format!("\u{feff}{body}")),
        ]),
        case("nothing but brackets, 100,000 deep", Left("unknown_shape"), NOTHING).messages([
            nested(100_000),
            format!("{}{}", "{\"a\":".repeat(100_000), "1").clone() + &"}".repeat(100_000),
        ]),
        case("brackets that never close", Left("not_json"), NOTHING)
            .messages(["[", "{\"a\":", "{\"Records\":[", "\""].map(|open| open.repeat(50_000))),
        sees_all(case("nesting 100,000 deep beside what is needed", Deleted, ALL)).message(body.replacen(
            '{',
            &format!("{{\"odd\":{},", nested(100_000)),
            1,
        )),
        named(case("SNS envelopes nested five or a hundred times", Left("too_deep"), NOTHING)).messages([5, 100].map(
            |depth| {
                let body = deep_envelope(&key, depth);
                assert!(body.len() < 1 << 20, "SQS takes no more");
                body
            },
        )),
        sees_all(case("SNS envelopes nested four times", Deleted, ALL)).message(deep_envelope(&key, 4)),
        case("an SNS envelope without a message, or with one that is no text", Left("unknown_shape"), NOTHING)
            .message(json!({ "Type": "Notification" }).to_string())
            .messages(
                [json!(null), json!(7), json!({}), json!(["x"])]
                    .map(|message| json!({ "Type": "Notification", "Message": message }).to_string()),
            ),
        case("an SNS envelope around a text", Left("not_json"), NOTHING)
            .messages(["", "ALARM: \"Errors\" in EU (Ireland)", "{\"Records\":["].map(envelope)),
        case("an EventBridge event without a record", Left("bad_notification"), NOTHING)
            .messages(["null", "7", "[]", "\"{}\""].map(eventbridge)),
        case("an EventBridge event with an empty record", Deleted, NOTHING).message(eventbridge("{}")),
        case("a record in a message, with `source.inline_records` off", Left("inline_records_off"), NOTHING)
            .message(eventbridge(&record(1).to_string()))
            .with(|config| config.source.inline_records = false),
        case("a record in a message, larger than `source.max_record_bytes`", Left("bad_records"), NOTHING)
            .message(eventbridge(&record_with(1, &[("userAgent", &format!("\"{}\"", "x".repeat(8192)))])))
            .with(|config| limits(config).max_record_bytes = 4096),
        case("S3's test event", Acknowledged("s3_test_event"), NOTHING).messages({
            let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET }).to_string();
            [envelope(&test), test]
        }),
        case("CloudTrail's validation message", Acknowledged("cloudtrail_validation"), NOTHING).messages({
            let text = "CloudTrail validation message.";
            [text.to_owned(), format!("\"{text}\"\n"), envelope(text)]
        }),
        case("an SNS subscription to confirm: nobody confirms it", Acknowledged("sns_subscription"), NOTHING).message(
            json!({
                "Type": "SubscriptionConfirmation", "Token": "2336412f37",
                "TopicArn": "arn:aws:sns:us-east-1:111122223333:trail-logs",
                "SubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37",
            })
            .to_string(),
        ),
        named(case("an S3 event that creates nothing", Acknowledged("other_s3_event"), NOTHING)).messages(
            ["ObjectRemoved:Delete", "s3:ObjectRestore:Post", "LifecycleExpiration:Delete", "x"]
                .map(|name| notification_with(&key, "/eventName", json!(name))),
        ),
        case("a folder's key", Acknowledged("folder"), NOTHING)
            .messages(["AWSLogs/111122223333/CloudTrail/", "/", "a//"].map(encoded_notification)),
        case("a digest of CloudTrail's integrity chain", Acknowledged("digest"), NOTHING).message(
            encoded_notification(
                "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2026/05/01/\
             111122223333_CloudTrail-Digest_eu-west-1_trail_us-east-1_20260501T120000Z.json.gz",
            ),
        ),
        case("the key of anything but a log", Acknowledged("other_object"), NOTHING).messages(
            [
                "photos/summer.jpg",
                "AWSLogs/111122223333/Config/us-east-1/2026/5/1/ConfigHistory/x.json.gz",
                "..",
                "\0",
                "\u{202e}gnp.exe",
                "_CloudTrail_us-east-1_20260501T1205Z_x.json.gz",
            ]
            .map(encoded_notification),
        ),
    ]
}

/// A key is a name and no path: none of these leads anywhere else.
fn odd_keys() -> Case {
    let log = gzip(document().as_bytes());
    let odd = [
        "../../etc",
        "..",
        "./a//b/",
        "/",
        "%2e%2e/%00",
        "a b+c",
        "line\nbreak\r\n{\"level\":\"ERROR\"}",
        "tab\tescape\u{1b}[31m\u{7f}",
        "\u{202e}right-to-left\u{feff}",
        "ключ/鍵/🔑",
        "https://example.com/?x=y#",
        "\"quoted\"\\",
    ];
    let keys = odd.map(|prefix| log_key(prefix, 1));
    let odd = case("keys with `..`, control characters, escapes and any alphabet", Outcome::Deleted, ALL);
    let odd = keys.iter().fold(odd, |odd, key| odd.beside(key, log.clone()).message(encoded_notification(key)));
    odd.message(cloudtrail_message(&keys)).delivers(EVENTS).check(|ended| {
        assert_eq!(ended.process.metrics.objects.with_label_values(&["ok"]).get(), 2 * 12 + 2);
        assert!(lock(&ended.world.trace).iter().all(|line| !line.contains("elsewhere")));
        assert!(!ended.log.contains('\u{1b}'), "nothing colours the log");
    })
}

/// Envelopes around the S3 event of a key. Quotes are spelled so that they grow by five bytes a level, and do not double.
fn deep_envelope(key: &str, depth: usize) -> String {
    (0..depth).fold(notification(key), |message, _| {
        let escaped = message.replace('\\', "\\u005c").replace('"', "\\u0022");
        format!(r#"{{"Type":"Notification","Message":"{escaped}"}}"#)
    })
}
