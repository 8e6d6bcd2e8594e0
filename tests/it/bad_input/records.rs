//! Records that are odd, in log objects and, where JSON lets them, in messages: one event either way.

use serde_json::Value;
use serde_json::value::RawValue;
use trailhound::alert::StoredEvent;

use super::make::{document_of, eventbridge, gzip_stored, nested, noise, record_with};
use super::{Case, Ended, Outcome, case};
use crate::fakes::{Row, lock};
use crate::sim::{event_id, record};

const IT: &str = "the record";
const OTHERS: &str = "the other records";

#[expect(clippy::too_many_lines, reason = "a list")]
pub(super) fn cases() -> Vec<Case> {
    use Outcome::{Deleted, Left};
    vec![
        case("elements of `Records` that are no objects", Left("bad_records"), OTHERS)
            .objects(
                ["null", "7", "true", "\"}\"", "[{}]", "[]"]
                    .map(|element| document_of(&[&record(1).to_string(), element, &record(4).to_string()])),
            )
            .delivers([1, 4]),
        case("a record larger than `source.max_record_bytes`", Left("bad_records"), OTHERS)
            .object(document_of(&[
                record(1).to_string(),
                record_with(2, &[("userAgent", &quoted(&"x".repeat(2 << 20)))]),
                record(4).to_string(),
            ]))
            .delivers([1, 4]),
        odd(
            "an empty record, or one of nulls",
            ["{}", " { } ", r#"{"eventName":null,"userIdentity":null}"#],
            "nothing",
            0,
        ),
        odd(
            "a record whose name is of another type",
            ["7", "true", "[\"OddName\"]", "{\"a\":\"OddName\"}"].map(|name| record_with(3, &[("eventName", name)])),
            "nothing",
            0,
        ),
        odd("a record with nothing but the name", [r#"{"eventName":"OddName"}"#], IT, 1).check(|ended| {
            let row = only(ended);
            assert_eq!(row.item.key.timestamp, "1970-01-01T00:00:00Z");
            assert_eq!(row.item.facts.account_id, None);
        }),
        odd(
            "a record whose other members are all of another type",
            ["7", "[]", "{}", "\"x\"", "[[{}]]", "false"].map(|value| {
                let names = [
                    "eventVersion",
                    "userIdentity",
                    "eventTime",
                    "eventSource",
                    "awsRegion",
                    "sourceIPAddress",
                    "userAgent",
                    "requestParameters",
                    "responseElements",
                    "eventID",
                    "recipientAccountId",
                    "resources",
                    "errorCode",
                    "errorMessage",
                    "insightDetails",
                    "tlsDetails",
                ];
                let mut members: Vec<_> = names.iter().map(|name| (*name, value)).collect();
                members.push(("eventName", "\"OddName\""));
                // One of them is the id of its own event.
                if value == "\"x\"" {
                    members.retain(|(name, _)| *name != "eventID");
                    return record_with(1, &members);
                }
                record_with(3, &members)
            }),
            IT,
            5,
        )
        .delivers([1]),
        named(
            "bytes that are no UTF-8",
            "the record, with U+FFFD in their place",
            vec![with_bytes(1, b"caf\xe9 \xff\xfe \xed\xa0\x80 \xc0\xaf"), with_bytes(4, b"\xf8\x88\x80\x80\x80")],
        )
        .check(|ended| assert!(record_of(ended, 1)["userAgent"].as_str().unwrap().contains("caf\u{fffd} "))),
        named(
            "NUL bytes and other control characters, bare and escaped",
            IT,
            vec![
                with_bytes(1, b"a\0b\x01\x1b[31m\n\r\t\x7f"),
                record_with(4, &[("userAgent", r#""a\u0000b\u001b[31m\r\nX-Header: x\u0085\u2028""#)]).into_bytes(),
                record(2).to_string().replace(':', "\0:\x0b").replace("\0:\x0b//", "://").into_bytes(),
            ],
        ),
        named(
            "lone surrogates and escapes that are none",
            "the record, with U+FFFD in their place",
            vec![
                record_with(1, &[("userAgent", r#""\ud800 \udc00 \ud800\ud800 \uDBFF\u0041""#)]).into_bytes(),
                record_with(4, &[("userAgent", r#""\q \u12 \x41""#), (r"\ud800", "1")]).into_bytes(),
            ],
        )
        .check(|ended| assert_eq!(record_of(ended, 1)["userAgent"], "\u{fffd} \u{fffd} \u{fffd}\u{fffd} \u{fffd}A")),
        named(
            "marks of direction, characters without width, and those that XML does not take",
            IT,
            vec![
                record_with(1, &[("userAgent", "\"\u{202e}\u{200b}\u{feff}\u{fffe}\u{ffff}\u{e0041}\"")]).into_bytes(),
                record_with(4, &[("\u{ffff}", "\"\\ufffe\"")]).into_bytes(),
            ],
        )
        .check(|ended| {
            assert_eq!(record_of(ended, 1)["userAgent"], "\u{202e}\u{200b}\u{feff}\u{fffe}\u{ffff}\u{e0041}");
        }),
        named(
            "duplicate members: the last one counts, however it is spelled",
            IT,
            vec![
                duplicated(1, r#""eventName":"DescribeInstances""#),
                duplicated(4, r#""eventName":null,"\u0065ventName":[7]"#),
            ],
        )
        .delivers([1, 4]),
        odd(
            "a duplicate `eventName`, of which only the first is of interest",
            [format!("{},\"eventName\":\"DescribeInstances\"}}", record(1).to_string().strip_suffix('}').unwrap())],
            "nothing",
            0,
        ),
        named(
            "numbers beyond `f64`, or of hundreds of digits",
            "the record, where the numbers beyond `f64` are strings",
            vec![
                with_number(1, "1e400"),
                with_number(2, "-1e99999"),
                with_number(4, &"9".repeat(400)),
                with_number(7, "1e-400"),
                with_number(8, &format!("0.{}", "3".repeat(5000))),
            ],
        ),
        odd(
            "an event id of 3 KB, or one that is empty, no text, or reserved",
            [quoted(&"i".repeat(3000)), quoted(""), "7".into(), "null".into(), quoted("trailhound#claim")]
                .map(|id| record_with(1, &[("eventID", &id)])),
            "the record, under a hash of it",
            5,
        ),
        named(
            "a time that is none, or that no clock shows",
            "the record, stored at the epoch",
            vec![
                record_with(1, &[("eventTime", "\"yesterday\"")]).into_bytes(),
                record_with(2, &[("eventTime", "1777636800")]).into_bytes(),
                record_with(4, &[("eventTime", "\"9999-12-31T23:59:59-23:59\"")]).into_bytes(),
                record_with(7, &[("eventTime", "\"2026-13-45T99:99:99Z\"")]).into_bytes(),
                record_with(8, &[("eventTime", "\"-0001-01-01T00:00:00Z\"")]).into_bytes(),
            ],
        )
        .check(|ended| {
            let table = lock(&ended.world.table);
            assert_eq!(table.keys().filter(|key| key.timestamp == "1970-01-01T00:00:00Z").count(), 5);
        }),
        named(
            "nesting 200 or 100,000 deep",
            "the record; the alert leaves its text out",
            vec![
                record_with(1, &[("requestParameters", &nested(100_000))]).into_bytes(),
                record_with(2, &[("requestParameters", &nested(200))]).into_bytes(),
                record_with(4, &[("userIdentity", &nested(100_000)), ("resources", &nested(100_000))]).into_bytes(),
            ],
        )
        .check(|ended| {
            for event in [1, 2, 4] {
                let topic = lock(&ended.world.topic);
                let told = topic.iter().find(|it| it.document["event_id"] == event_id(event)).unwrap();
                assert_eq!((&told.document["event"], &told.document["truncated"]), (&Value::Null, &Value::Bool(true)));
            }
        }),
        named(
            "what is no JSON between a record's members",
            "the record; its text is a string in the item, and left out of the alert",
            vec![
                record(1).to_string().replacen('{', "{,,\"a\" 1, :2, x \"y\":tru,", 1).into_bytes(),
                record(2).to_string().replacen('{', "{\"a\":[1},\"b\":{2],", 1).into_bytes(),
                [b"{\0\xff,", record(4).to_string().strip_prefix('{').unwrap().as_bytes()].concat(),
            ],
        )
        .check(|ended| {
            for event in [1, 2, 4] {
                let stored = row_of(ended, event).item.event;
                assert!(matches!(stored, StoredEvent::Json(text) if text.starts_with("\"{")), "{event}");
                assert_eq!(record_of(ended, event), Value::Null);
            }
        }),
        named(
            "a text of nearly 2 MiB, or noise of 360 or 900 KB",
            "the record; alert and item leave out what SNS and DynamoDB cannot hold",
            vec![
                record_with(1, &[("userAgent", &quoted(&"x".repeat(2_000_000)))]).into_bytes(),
                record_with(4, &[("requestParameters", &format!("{{\"a\":{}}}", quoted(&noise(900_000))))])
                    .into_bytes(),
                record_with(2, &[("requestParameters", &format!("{{\"a\":{}}}", quoted(&noise(360_000))))])
                    .into_bytes(),
            ],
        )
        .check(|ended| {
            let stored = |event| row_of(ended, event).item.event;
            assert!(matches!(stored(1), StoredEvent::Gzip(_)), "it compresses");
            assert!(matches!(stored(2), StoredEvent::Gzip(_)));
            assert!(matches!(stored(4), StoredEvent::Omitted), "DynamoDB takes no more");
        }),
        named(
            "a hundred thousand members, names that are empty, long, or full of dots",
            IT,
            vec![
                record_with(1, &[("requestParameters", &many_members())]).into_bytes(),
                record_with(2, &[("", "1"), ("userIdentity.type", "7"), ("a.b.c", "{\"..\":1}"), ("*", "[]")])
                    .into_bytes(),
                record_with(4, &[(&"k".repeat(1 << 20), "1")]).into_bytes(),
            ],
        ),
        named(
            "fifty thousand resources",
            IT,
            vec![
                record_with(1, &[("resources", &format!("[{}null]", r#"{"type":"AWS::S3::Object"},"#.repeat(50_000)))])
                    .into_bytes(),
            ],
        ),
        odd(
            "addresses that are none, and one that is, for a rule that compares addresses",
            [
                "AWS Internal",
                "cloudtrail.amazonaws.com",
                "198.51.100.7, 203.0.113.7",
                "198.51.100.256",
                "198.51.100",
                "198.51.100.7/32",
                " 198.51.100.7",
                "::ffff:198.51.100",
                "",
            ]
            .map(|address| record_with(3, &[("sourceIPAddress", &quoted(address))]))
            .into_iter()
            .chain([record_with(9, &[("sourceIPAddress", "\"198.51.100.7\"")])]),
            "the record with an address",
            0,
        )
        .delivers([9]),
        odd(
            "arrays of ten thousand elements, each half of what a rule asks of one; in another record one is whole",
            [(3, ""), (9, r#",{"type":"AWS::S3::Bucket","accountId":"444455556666"}"#)].map(|(event, whole)| {
                let whole_inside = whole.replace('{', "{\"id\":[{").replace('}', "}]}");
                let resources = format!("[{}{whole}]", halves(1));
                let items = format!("{{\"items\":[{}{whole_inside}]}}", halves(100));
                record_with(event, &[("resources", &resources), ("requestParameters", &items)])
            }),
            "the record with a whole one",
            0,
        )
        .delivers([9]),
        case("the same record a thousand times in one object", Deleted, "the record, once")
            .object(document_of(&vec![record(1).to_string(); 1000]))
            .delivers([1]),
        case("two records with one id and different contents", Deleted, "the first")
            .object(document_of(&[record(1).to_string(), record_with(1, &[("userAgent", "\"other\"")])]))
            .delivers([1]),
    ]
}

/// These records, each in an object of its own, and those that a message can hold in a message, too. `nameless` of
/// them are delivered.
fn odd<T: AsRef<[u8]>>(
    name: &'static str,
    records: impl IntoIterator<Item = T>,
    told: &'static str,
    nameless: usize,
) -> Case {
    let all = records.into_iter().fold(case(name, Outcome::Deleted, told), |all, record| {
        let record = record.as_ref();
        let object = [b"{\"Records\":[", record, b"]}"].concat();
        let all = if record.len() < 1 << 16 { all.object(gzip_stored(&object)) } else { all };
        let text = std::str::from_utf8(record).ok().filter(|text| text.len() < 1 << 20);
        match text.filter(|text| serde_json::from_str::<&RawValue>(text).is_ok()) {
            Some(detail) => all.object(object).message(eventbridge(detail)),
            None => all.object(object),
        }
    });
    all.nameless(nameless)
}

/// [`odd`] records that keep their ids.
fn named(name: &'static str, told: &'static str, records: Vec<Vec<u8>>) -> Case {
    let events = [1, 2, 4, 7, 8].into_iter().filter(|event| {
        let id = event_id(*event);
        records.iter().any(|record| String::from_utf8_lossy(record).contains(&format!("\"{id}\"")))
    });
    let events: Vec<u32> = events.collect();
    assert_eq!(events.len(), records.len(), "{name}");
    odd(name, records, told, 0).delivers(events)
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn with_bytes(event: u32, user_agent: &[u8]) -> Vec<u8> {
    let record = record_with(event, &[("userAgent", "\"@\"")]);
    let (before, behind) = record.split_once('@').unwrap();
    [before.as_bytes(), user_agent, behind.as_bytes()].concat()
}

fn with_number(event: u32, number: &str) -> Vec<u8> {
    record_with(event, &[("requestParameters", &format!("{{\"maxResults\":{number},\"all\":[{number}]}}"))])
        .into_bytes()
}

fn duplicated(event: u32, members: &str) -> Vec<u8> {
    record(event).to_string().replacen('{', &format!("{{{members},"), 1).into_bytes()
}

fn many_members() -> String {
    let members: Vec<_> = (0..100_000).map(|number| format!("\"k{number}\":{number}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Ten thousand objects with one of two members, in arrays of so many: the elements of an array.
fn halves(together: usize) -> String {
    let pair = r#"{"type":"AWS::S3::Bucket"},{"accountId":"444455556666"}"#;
    let inner = vec![pair; together.div_ceil(2)].join(",");
    let element = if together == 1 { pair.to_owned() } else { format!("{{\"id\":[{inner}]}}") };
    vec![element; 10_000 / together.max(2)].join(",")
}

fn row_of(ended: &Ended, event: u32) -> Row {
    let table = lock(&ended.world.table);
    table.iter().find(|(key, _)| key.event_id == event_id(event)).unwrap().1.clone()
}

/// The one event whose key is a hash.
fn only(ended: &Ended) -> Row {
    let table = lock(&ended.world.table);
    table.iter().find(|(key, _)| super::is_hash(&key.event_id)).unwrap().1.clone()
}

/// The record as the alert tells it.
fn record_of(ended: &Ended, event: u32) -> Value {
    let topic = lock(&ended.world.topic);
    topic.iter().find(|it| it.document["event_id"] == event_id(event)).unwrap().document["event"].clone()
}
