//! The input: a byte for the form, a byte for the number of cuts, a byte for the length of each, and the object.

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cloudtrail::testing::{Read, gzip, read_every_record, zstd};
use crate::cloudtrail::{DecodeError, Documents, Limits, json};

const LIMITS: Limits = Limits {
    max_compressed_bytes: 1 << 20,
    max_decompressed_bytes: 4 << 20,
    max_ratio: 200,
    max_record_bytes: 1 << 18,
};

const RECORDS: &str = "Records";

pub fn check(data: &[u8]) {
    let Some(([form, cuts], rest)) = data.split_first_chunk() else { return };
    let Some((cuts, text)) = rest.split_at_checked(usize::from(cuts % 16)) else { return };
    let cuts: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut).max(1)).collect();

    // As it stands: plain, or whatever its first bytes say.
    let whole = read_every_record(text, &[], LIMITS);
    check_chunks(text, &cuts, &whole);
    check_documents(text, &cuts);
    check_records(text, &whole);
    check_small_limit(text, &whole);

    // Packed, it is what it was; two layers are opened and no third, so what is packed already is left alone.
    let plain = !text.starts_with(&[0x1f, 0x8b])
        && !text
            .get(1..4)
            .is_some_and(|magic| [[0xb5, 0x2f, 0xfd], [0x2a, 0x4d, 0x18]].contains(&[magic[0], magic[1], magic[2]]));
    if plain && text.len() > 4 {
        let (head, tail) = text.split_at(text.len() / 3);
        let object = match form % 6 {
            0 => gzip(text),
            1 => [gzip(head), gzip(tail)].concat(),
            2 => zstd(text),
            3 => [zstd(head), zstd(tail)].concat(),
            4 => gzip(&zstd(text)),
            _ => zstd(&gzip(text)),
        };
        let packed = read_every_record(&object, &[], LIMITS);
        assert_eq!(packed, whole, "in form {}", form % 6);
        check_chunks(&object, &cuts, &packed);
        check_truncated(&object, usize::from(*form), &whole, &cuts);
    }
}

/// The chunks in which an object arrives change nothing. Of a damaged stream they may change how much is read before
/// the damage, and nothing else.
fn check_chunks(object: &[u8], cuts: &[usize], whole: &Read) {
    for cuts in [cuts, &[1]] {
        let pieces = read_every_record(object, cuts, LIMITS);
        if let Err(DecodeError::Damaged { .. } | DecodeError::EndsEarly { .. }) = whole.ending {
            assert!(pieces.ending.is_err(), "{:?} in chunks, {:?} at once", pieces.ending, whole.ending);
            let both = pieces.records.len().min(whole.records.len());
            assert_eq!(pieces.records.get(..both), whole.records.get(..both));
        } else {
            assert_eq!(&pieces, whole, "in chunks of {cuts:?}");
        }
    }
}

/// What the tools read of it does not hang on the pieces in which it comes.
fn check_documents(text: &[u8], cuts: &[usize]) {
    let read = |cuts: &[usize]| {
        let (mut documents, mut found, mut rest) = (Documents::default(), Vec::new(), text);
        let mut feed = |piece: &[u8]| documents.feed(piece, &mut |at, record| found.push((at, record.to_vec())));
        for cut in cuts.iter().cycle().take(if cuts.is_empty() { 0 } else { text.len() }) {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            feed(piece);
            rest = after;
        }
        feed(rest);
        (found, documents.finish())
    };
    assert_eq!(read(cuts), read(&[]));
}

/// Cut off, an object has the records that it had before the cut, and is an error unless they are all there.
fn check_truncated(object: &[u8], form: usize, whole: &Read, cuts: &[usize]) {
    let cut = object.get(..object.len() * (form % 32) / 32).unwrap_or_default();
    let read = read_every_record(cut, cuts, LIMITS);
    assert!(read.records.len() <= whole.records.len());
    assert_eq!(read.records, whole.records[..read.records.len()], "a truncated object has other records");
    assert!(read.ending.is_err() || read.records == whole.records, "truncated, and complete");
}

/// What `serde_json` takes is read as it reads it.
fn check_records(text: &[u8], whole: &Read) {
    if let Some(records) = records_by_serde_json(text) {
        let count = records.len();
        let objects: Vec<_> = (0..).zip(records).filter(|(_, raw)| raw.starts_with(b"{")).collect();
        assert_eq!(whole.ending, Ok(()));
        assert_eq!(whole.records, objects);
        assert_eq!(whole.problem_count, (count - objects.len()) as u64);
    }
    for (_, raw) in &whole.records {
        let (valid, canonical) = (json::to_valid(raw), json::canonical(raw));
        let read: Value = serde_json::from_str(&valid).expect("to_valid makes JSON");
        assert_eq!(json::to_valid(valid.as_bytes()), valid, "to_valid is done once");
        assert_eq!(json::canonical(canonical.as_bytes()), canonical, "canonical is done once");
        assert_eq!(json::canonical(valid.as_bytes()), canonical, "a valid spelling is another record");
        if let Ok(value) = serde_json::from_slice::<Value>(raw)
            && !read.is_string()
        {
            assert_eq!(read, value);
        }
        for member in json::members(raw) {
            assert!(!member.value.is_empty());
            assert!(json::get(raw, &json::decode(member.key)).is_some(), "a member that is not found");
        }
    }
}

/// A record that is too large costs itself alone.
fn check_small_limit(text: &[u8], whole: &Read) {
    let limit = 24;
    let read = read_every_record(text, &[7], Limits { max_record_bytes: limit, ..LIMITS });
    if whole.ending.is_ok() {
        let small: Vec<_> = whole.records.iter().filter(|(_, raw)| raw.len() <= limit).cloned().collect();
        assert_eq!((&read.records, &read.ending), (&small, &whole.ending));
        assert_eq!(read.problem_count - whole.problem_count, (whole.records.len() - small.len()) as u64);
    }
}

/// The elements of every `Records` of a document, as `serde_json` delimits them; `None` if it takes no such document.
fn records_by_serde_json(text: &[u8]) -> Option<Vec<Bytes>> {
    struct Document(Vec<Bytes>);

    impl<'de> Visitor<'de> for Document {
        type Value = Self;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a document with Records")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
            let mut any = false;
            while let Some(name) = members.next_key::<String>()? {
                if name == RECORDS {
                    let records = members.next_value::<Vec<&RawValue>>()?;
                    self.0.extend(records.iter().map(|raw| Bytes::copy_from_slice(raw.get().as_bytes())));
                    any = true;
                } else {
                    members.next_value::<IgnoredAny>()?;
                }
            }
            if any { Ok(self) } else { Err(A::Error::missing_field(RECORDS)) }
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(text);
    let document = reader.deserialize_map(Document(Vec::new())).ok()?;
    reader.end().ok()?;
    Some(document.0)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let events: Vec<String> = super::patterns().into_iter().step_by(25).map(|(_, event)| event).collect();
    let mut texts = vec![
        r#"{"a":["\\",{"Records":[{}]}],"R\u0065cords" : [ {"x":"\u005d\"}"} ,null,{}], "Records":[{"y":[{}]}],"z":"Records"}"#.to_owned(),
        r#"{"Records":[{"eventID":"1","n":1.50e3,"eventID":"2","odd":"\ud800"}]}"#.to_owned(),
        r#"{"Records":[]}"#.to_owned(),
        r#"{"Records":[[1],"}",-0.0,1e400,true]} "#.to_owned(),
        String::new(),
    ];
    texts.extend(events.chunks(3).map(|events| format!("{{\"Records\":[{}]}}", events.join(","))));
    let mut seeds = Vec::new();
    for (form, text) in (0_u8..).zip(&texts) {
        let head = [form, 3, 1, 40, 7];
        seeds.push([&head, text.as_bytes()].concat());
        if form % 4 == 0 {
            seeds.push([&head[..], &gzip(text.as_bytes())].concat());
            seeds.push([&head[..], &zstd(&gzip(text.as_bytes()))].concat());
        }
    }
    seeds
}
