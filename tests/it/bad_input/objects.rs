//! Log objects that are damaged, hostile, or something else.

use std::collections::BTreeSet;

use super::make::{
    EVENTS, document, document_of, gzip, gzip_stored, gzip_with_header, nested, small_record, zstd, zstd_skippable,
    zstd_spaces, zstd_with_checksum, zstd_with_dictionary, zstd_with_window,
};
use super::{Case, Ended, Outcome, case, limits};
use crate::fakes::lock;
use crate::sim::{event_id, record};

const NOTHING: &str = "nothing";
const ALL: &str = "everything";
const BEFORE: &str = "the records before";

const GIB: u64 = 1 << 30;

#[expect(clippy::too_many_lines, reason = "a list")]
pub(super) fn cases() -> Vec<Case> {
    use Outcome::{Deleted, Left, LeftOrWhole};
    let text = document();
    let bytes = text.as_bytes();
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let zipped = gzip(bytes);
    let small = document_of(&EVENTS.map(small_record)).into_bytes();
    let small_zipped = gzip(&small);
    let sees_all = |it: Case| it.delivers(EVENTS);
    let both = |text: &str| [text.as_bytes().to_vec(), gzip(text.as_bytes())];
    vec![
        case("no byte, or a compressed text of none", Left("empty"), NOTHING).objects([
            Vec::new(),
            gzip(b""),
            zstd(b""),
            [gzip(b""), gzip(b"")].concat(),
            zstd_skippable(b"nothing"),
            gzip(&gzip(b"")),
            zstd_with_window(23),
        ]),
        case("white space only", Left("json_ends_early"), NOTHING)
            .objects([" ", "\n", "\r\n\t "].iter().flat_map(|it| both(it))),
        sees_all(case("gzip cut off at any byte", Left("ends_early"), BEFORE))
            .objects((1..small_zipped.len()).map(|length| &small_zipped[..length])),
        sees_all(case("zstd cut off at any byte of its second frame", Left("ends_early"), BEFORE)).objects({
            let first = zstd(&small);
            let both = [&first[..], &zstd(b"  ")].concat();
            (first.len() + 1..both.len()).map(move |length| both[..length].to_vec()).collect::<Vec<_>>()
        }),
        sees_all(case("JSON cut off at any byte", Left("json_ends_early"), BEFORE))
            .objects((1..small.len()).map(|length| &small[..length])),
        sees_all(case("whole gzip or zstd of JSON that is cut off", Left("json_ends_early"), BEFORE)).objects([
            gzip(&bytes[..bytes.len() - 1]),
            zstd(&bytes[..bytes.len() - 2]),
            gzip(&bytes[..12]),
        ]),
        sees_all(case("gzip with a wrong checksum or length", Left("damaged"), BEFORE)).objects([8, 4].map(|behind| {
            let mut wrong = zipped.clone();
            let at = wrong.len() - behind;
            wrong[at] ^= 1;
            wrong
        })),
        case(
            "gzip with a byte changed, wherever it is",
            LeftOrWhole,
            "what was read before the damage showed, and may be garbled by it",
        )
        .objects((0..changed(0, 0).len()).flat_map(|at| [changed(at, 0xff), changed(at, 0x04)]))
        .check(|ended| {
            let (queue, table) = (lock(&ended.world.queue), lock(&ended.world.table));
            let stored: BTreeSet<_> = table.keys().map(|key| key.event_id.as_str()).collect();
            let mut whole = 0;
            for at in 0..changed(0, 0).len() {
                // The first message is a good one, and each place has two.
                let ids = [2 * at + 2, 2 * at + 3].map(|number| format!("message-{number}"));
                if ids.iter().any(|id| queue.deleted.contains(id)) {
                    whole += 1;
                    assert!(events_of(at).iter().all(|event| stored.contains(&*event_id(*event))), "byte {at}");
                }
            }
            assert!((4..20).contains(&whole), "{whole} bytes do not matter: those of the header");
        }),
        sees_all(case("zstd with a wrong checksum", Left("damaged"), "the records before the frame's last block"))
            .object([zstd(bytes), zstd_with_checksum(document_of(&[record(7).to_string()]).as_bytes(), 7)].concat()),
        sees_all(case(
            "a gzip member of no known method, or with a block of no type, behind a good one",
            Left("damaged"),
            BEFORE,
        ))
        .objects([
            [&zipped[..], &[0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 3], &[0; 9]].concat(),
            [&zipped[..], &gzip(b"")[..10], &[0xff; 40]].concat(),
        ]),
        sees_all(case("anything but zeros behind gzip or zstd", Left("damaged"), BEFORE)).objects([
            [&zipped[..], b"<html>"].concat(),
            [&zipped[..], &[0; 512], b"x"].concat(),
            [&zstd(bytes)[..], b"trailing text"].concat(),
            [&zipped[..], &zstd(bytes)].concat(),
            [&zstd(bytes)[..], &zipped].concat(),
        ]),
        sees_all(case("zeros behind gzip, zstd or the document", Deleted, ALL)).objects([
            [&zipped[..], &[0; 10_000]].concat(),
            [&zstd(bytes)[..], &[0; 3]].concat(),
            [bytes, &[0; 100_000]].concat(),
        ]),
        sees_all(case("several gzip members or zstd frames, cut inside of a record", Deleted, ALL)).objects([
            [gzip(head), gzip(tail)].concat(),
            [gzip(head), vec![0; 3], gzip(tail)].concat(),
            [zstd(head), zstd_skippable(b"any"), zstd(tail)].concat(),
            bytes.chunks(7).flat_map(gzip).collect(),
        ]),
        sees_all(case("thousands of empty gzip members or zstd frames", Deleted, ALL)).objects([
            [gzip(b"").repeat(20_000), zipped.clone()].concat(),
            [zstd(b"").repeat(20_000), zstd(bytes)].concat(),
            [zstd_skippable(b"").repeat(50_000), zstd(bytes)].concat(),
        ]),
        sees_all(case("a gzip header with a name and a comment of a megabyte each", Deleted, ALL)).object({
            let name = [&vec![b'n'; 1 << 20][..], b"\0", &vec![b'c'; 1 << 20], b"\0"].concat();
            gzip_with_header(0b1_1000, &name, bytes)
        }),
        sees_all(case("a gzip header with an extra field", Deleted, ALL)).object(gzip_with_header(
            0b0_0100,
            &[&[0xff, 0xff][..], &vec![7; 0xffff]].concat(),
            bytes,
        )),
        case("zstd that asks for a window of more than 8 MiB", Left("damaged"), NOTHING)
            .objects([24, 27, 31, 41].map(zstd_with_window)),
        case("zstd that needs a dictionary", Left("damaged"), NOTHING).object(zstd_with_dictionary()),
        case("bzip2, xz, zip, zlib, lz4, a tar archive", Left("bad_json"), NOTHING).objects([
            &b"BZh91AY&SY"[..],
            b"\xfd7zXZ\0\0\x04",
            b"PK\x03\x04\x14\0",
            b"\x78\x9c\xab\x56",
            b"\x04\x22\x4d\x18\x64",
            b"logs/\0\0\0\0\x000644\0",
        ]),
        sees_all(case("gzip or zstd that was compressed once more", Deleted, ALL)).objects([
            gzip(&zipped),
            zstd(&zipped),
            gzip(&zstd(bytes)),
        ]),
        case("gzip that was compressed twice more", Left("bad_json"), NOTHING).object(gzip(&gzip(&zipped))),
        case("a bomb: 10 GiB of spaces in gzip members or in zstd, once or twice", Left("ratio_too_high"), BEFORE)
            .objects(bombs())
            .delivers([1])
            .check(|ended| {
                let read = ended.process.metrics.decompressed_bytes.get();
                assert!(read < 4 * 2 * (2 << 20), "{read} bytes of four bombs, each received twice");
            }),
        sees_all(case("more than `source.max_decompressed_bytes`", Left("too_many_decompressed_bytes"), BEFORE))
            .object(gzip(&[bytes, &vec![b' '; 5 << 20]].concat()))
            .object([bytes, &vec![b' '; 5 << 20]].concat())
            .with(|config| (limits(config).max_decompressed_bytes, limits(config).max_ratio) = (4 << 20, 1_000_000))
            .check(|ended| {
                assert!(ended.process.metrics.decompressed_bytes.get() <= 2 * 2 * (4 << 20) + (1 << 16));
            }),
        case("more than `source.max_compressed_bytes`", Left("too_many_compressed_bytes"), BEFORE)
            .object(document_of(&(0..9).map(|event| record(event).to_string()).collect::<Vec<_>>()))
            .delivers([1, 2])
            .with(|config| limits(config).max_compressed_bytes = 3000),
        sees_all(case("a byte order mark of UTF-8", Deleted, ALL))
            .objects([format!("\u{feff}{text}").into_bytes(), gzip(format!("\u{feff}{text}").as_bytes())]),
        case("UTF-16 and UTF-32, with a byte order mark or without", Left("bad_json"), NOTHING).objects(wide(&text)),
        case("HTML, XML, CSV, YAML, plain text", Left("bad_json"), NOTHING).objects(
            [
                "<!DOCTYPE html><html><head><title>503 Service Unavailable</title></head></html>",
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code></Error>",
                "eventTime,eventName\n2026-05-01T12:00:00Z,StopLogging\n",
                "Records:\n- eventName: StopLogging\n",
                "not found",
                "\0\0\0\0",
                "\u{1b}[2J",
            ]
            .iter()
            .flat_map(|text| both(text)),
        ),
        case("JSON that is no object", Left("bad_json"), NOTHING).objects([
            format!("[{}]", record(1)),
            "null".into(),
            "17".into(),
            "\"Records\"".into(),
            "true".into(),
        ]),
        case("one record, records line by line, a digest, other keys", Left("no_records"), NOTHING).objects([
            record(1).to_string(),
            format!("{}\n{}\n", record(1), record(2)),
            r#"{"digestStartTime":"2026-05-01T11:00:00Z","logFiles":[]}"#.into(),
            format!(r#"{{"records":[{}]}}"#, record(1)),
            format!(r#"{{"configurationItems":[],"detail":{text}}}"#),
            "{}".into(),
        ]),
        case("`Records` of another type", Left("bad_json"), NOTHING)
            .objects(["null", "{}", "\"x\"", "7", "true"].iter().flat_map(|it| both(&format!("{{\"Records\":{it}}}")))),
        case("an empty `Records`", Deleted, NOTHING).objects(both("{\"Records\":[]}")),
        sees_all(case("`Records` behind other members, twice, or spelled with escapes", Deleted, ALL)).objects([
            text.replacen('{', r#"{"odd":{"Records":[7]},"other":"{\"Records\":[",""#, 1).replacen(
                "\"\"Records",
                "\"Records",
                1,
            ),
            format!(r#"{{"Records":[{}],"x":1,"Records":[{},{}]}}"#, record(1), record(2), record(4)),
            text.replace("Records", r"R\u0065cord\u0073"),
        ]),
        sees_all(case("nesting 100,000 deep beside `Records`", Deleted, ALL)).object(text.replacen(
            '{',
            &format!("{{\"odd\":{},", nested(100_000)),
            1,
        )),
        sees_all(case("text, or another document, behind the document", Left("bad_json"), BEFORE)).objects([
            format!("{text}x"),
            format!("{text}\n{text}"),
            format!("{text}]"),
        ]),
        sees_all(case("a comma too many or too few, `NaN`, a comment between records", Left("bad_json"), BEFORE))
            .objects(
                [",]}", "{}]}", ",NaN]}", ",/* none */]}", ",undefined]}", "}}"]
                    .map(|end| format!("{}{end}", text.strip_suffix("]}").unwrap())),
            ),
        sees_all(case("a bracket too many or too few, or of the wrong kind, in a record", Left("bad_json"), BEFORE))
            .objects(
                [",{\"a\":1]]}", ",{\"a\":[1}]}", ",{\"a\":{\"b\":1}]}", ",{\"a\":[1]]}}]}", ",{}}]}"]
                    .map(|end| format!("{}{end}", text.strip_suffix("]}").unwrap())),
            ),
        sees_all(case("a quote that never closes in a record", Left("json_ends_early"), BEFORE)).objects(
            [",{\"a\":\"}]}", ",{\"a\":\"\\\"}]}"].map(|end| format!("{}{end}", text.strip_suffix("]}").unwrap())),
        ),
        case("200,000 records of two bytes", Deleted, "what matches of them")
            .objects(tiny(200_000, "{}"))
            .delivers([1, 4])
            .check(|ended| counted(ended, 2 * 200_002)),
        case("200,000 elements of `Records` that are no objects", Left("bad_records"), "what matches of the others")
            .objects(tiny(200_000, "0"))
            .delivers([1, 4]),
        case("a record of 64 MiB", Left("bad_records"), "the other records")
            .object(large_record(64 << 20))
            .delivers([1, 4]),
    ]
}

/// A log of its own for each place, with this byte changed.
fn changed(at: usize, mask: u8) -> Vec<u8> {
    let mut zipped = gzip(document_of(&events_of(at).map(small_record)).as_bytes());
    // Others may be some bytes shorter.
    let place = at.min(zipped.len() - 1);
    zipped[place] ^= mask;
    zipped
}

fn events_of(at: usize) -> [u32; 2] {
    let first = 600 + 6 * u32::try_from(at).unwrap();
    [first + 1, first + 2]
}

/// Of the size that the table's rows stand for.
pub(super) fn huge() -> Vec<Case> {
    vec![
        case("ten million records of two bytes", Outcome::Deleted, "what matches of them")
            .objects(tiny(10_000_000, "{}"))
            .delivers([1, 4])
            .check(|ended| counted(ended, 2 * 10_000_002)),
    ]
}

/// Plain, and in gzip that does not make it small: as a bomb it would be refused sooner.
fn tiny(count: usize, element: &str) -> [Vec<u8>; 2] {
    let text = format!("{{\"Records\":[{},{}{}]}}", record(1), format!("{element},").repeat(count), record(4));
    [gzip_stored(text.as_bytes()), text.into_bytes()]
}

fn counted(ended: &Ended, expected: u64) {
    // And those of the good messages.
    assert_eq!(ended.process.metrics.records.with_label_values(&["evaluated"]).get(), expected + 2);
}

fn large_record(bytes: usize) -> Vec<u8> {
    format!(
        "{{\"Records\":[{},{{\"a\":\"{}\"}},{}]}}",
        record(1),
        format!("{}\\\"}}]", "x".repeat(60)).repeat(bytes / 64),
        record(4)
    )
    .into_bytes()
}

fn bombs() -> [Vec<u8>; 4] {
    let opening = format!("{{\"Records\":[{},", record(1));
    let spaces = gzip(&vec![b' '; 1 << 20]).repeat(10 * 1024);
    let in_gzip = [gzip(opening.as_bytes()), spaces].concat();
    let in_zstd = [zstd(opening.as_bytes()), zstd_spaces(10 * GIB)].concat();
    [gzip(&in_gzip), gzip(&in_zstd), in_gzip, in_zstd]
}

fn wide(text: &str) -> Vec<Vec<u8>> {
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let wider: Vec<u8> = text.chars().flat_map(|character| u32::from(character).to_le_bytes()).collect();
    vec![
        [&[0xff, 0xfe][..], &little].concat(),
        [&[0xfe, 0xff][..], &big].concat(),
        [&[0xff, 0xfe, 0, 0][..], &wider].concat(),
        gzip(&little),
        little,
        big,
    ]
}
