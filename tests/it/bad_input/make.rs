//! Makes what the cases are made of.

use std::io::Write;

use compression_codecs::core::util::PartialBuffer;
use compression_codecs::{Encode as _, ZstdEncoder};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::sim::{BUCKET, event_id, notification, record};

/// The events of most cases. Each matches a rule.
pub(super) const EVENTS: [u32; 3] = [1, 2, 4];

/// A log with the records of [`EVENTS`].
pub(super) fn document() -> String {
    document_of(&EVENTS.map(|event| record(event).to_string()))
}

pub(super) fn document_of<T: AsRef<str>>(records: &[T]) -> String {
    let records: Vec<&str> = records.iter().map(AsRef::as_ref).collect();
    format!("{{\"Records\":[{}]}}", records.join(","))
}

/// As few bytes as a record needs to be found again.
pub(super) fn small_record(event: u32) -> String {
    json!({ "eventID": event_id(event), "eventName": "StopLogging" }).to_string()
}

pub(super) fn gzip(text: &[u8]) -> Vec<u8> {
    gzip_at(text, Compression::default())
}

/// In stored blocks: as large as the text.
pub(super) fn gzip_stored(text: &[u8]) -> Vec<u8> {
    gzip_at(text, Compression::none())
}

fn gzip_at(text: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZstdEncoder::new(3);
    let mut input = PartialBuffer::new(text);
    let mut all = Vec::new();
    loop {
        let mut output = PartialBuffer::new([0; 4096]);
        let done = if input.unwritten().is_empty() {
            encoder.finish(&mut output).unwrap()
        } else {
            encoder.encode(&mut input, &mut output).unwrap();
            false
        };
        all.extend_from_slice(output.written());
        if done {
            return all;
        }
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A frame with one raw block and this checksum (RFC 8878, 3.1.1).
pub(super) fn zstd_with_checksum(text: &[u8], checksum: u32) -> Vec<u8> {
    // One segment, a checksum, and a size of two bytes that counts from 256.
    let size = u16::try_from(text.len() - 256).unwrap();
    let block = u32::try_from(text.len() << 3 | 1).unwrap();
    [&ZSTD_MAGIC[..], &[0x64], &size.to_le_bytes(), &block.to_le_bytes()[..3], text, &checksum.to_le_bytes()].concat()
}

/// A frame that needs a dictionary.
pub(super) fn zstd_with_dictionary() -> Vec<u8> {
    // One segment, a dictionary's id of one byte, a size of one byte; an empty last block.
    [&ZSTD_MAGIC[..], &[0x21, 7, 0, 1, 0, 0]].concat()
}

/// An empty frame that asks for a window of two to this power.
pub(super) fn zstd_with_window(log: u8) -> Vec<u8> {
    [&ZSTD_MAGIC[..], &[0x00, (log - 10) << 3, 1, 0, 0]].concat()
}

/// Frames of spaces, four bytes for each 128 KiB.
pub(super) fn zstd_spaces(bytes: u64) -> Vec<u8> {
    const BLOCK: u32 = 128 * 1024;
    let blocks = usize::try_from(bytes / u64::from(BLOCK)).unwrap();
    // A window of 128 KiB; a block that repeats one byte.
    let block = [&(BLOCK << 3 | 1 << 1).to_le_bytes()[..3], b" "].concat();
    [&ZSTD_MAGIC[..], &[0x00, 7 << 3], &block.repeat(blocks), &[1, 0, 0]].concat()
}

pub(super) fn zstd_skippable(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&[0x5a, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), text].concat()
}

/// A gzip member whose header has these flags, and this behind them (RFC 1952, 2.3).
pub(super) fn gzip_with_header(flags: u8, fields: &[u8], text: &[u8]) -> Vec<u8> {
    let plain = gzip(text);
    let (head, rest) = plain.split_at(10);
    let mut head = head.to_vec();
    head[3] = flags;
    [&head, fields, rest].concat()
}

/// The S3 event that tells of this key, form-encoded as S3 does it.
pub(super) fn encoded_notification(key: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC).to_string();
    notification(&encoded.replace("%20", "+"))
}

pub(super) fn envelope(message: &str) -> String {
    json!({
        "Type": "Notification", "MessageId": "dc1e94d9-56c5-5e96-808d-cc7f68faa162",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:trail-logs", "Message": message,
        "Timestamp": "2026-05-01T12:05:01.000Z",
    })
    .to_string()
}

/// CloudTrail's own message.
pub(super) fn cloudtrail_message<T: AsRef<str>>(keys: &[T]) -> String {
    let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    json!({ "s3Bucket": BUCKET, "s3ObjectKey": keys }).to_string()
}

pub(super) fn eventbridge(detail: &str) -> String {
    format!(
        r#"{{"version":"0","detail-type":"AWS API Call via CloudTrail","source":"aws.iam","region":"us-east-1","detail":{detail}}}"#
    )
}

/// The S3 event with another value at this place.
pub(super) fn notification_with(key: &str, pointer: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(&notification(key)).unwrap();
    *body.pointer_mut(&format!("/Records/0{pointer}")).unwrap() = value;
    body.to_string()
}

/// The record of an event, with other members: raw JSON, in place of the member or behind all.
pub(super) fn record_with(event: u32, members: &[(&str, &str)]) -> String {
    let mut fields: Vec<(String, String)> =
        record(event).as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
    for (name, value) in members {
        match fields.iter_mut().find(|(there, _)| there == name) {
            Some((_, there)) => (*value).clone_into(there),
            None => fields.push(((*name).to_owned(), (*value).to_owned())),
        }
    }
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

pub(super) fn nested(depth: usize) -> String {
    format!("{}1{}", "[{\"a\":".repeat(depth / 2), "}]".repeat(depth / 2))
}

/// Text that does not compress much.
pub(super) fn noise(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(11);
    (0..length).map(|_| random.alphanumeric()).collect()
}
