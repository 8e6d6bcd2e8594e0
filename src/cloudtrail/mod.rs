//! From the bytes of a log object to its records: a machine without input or output of its own.

mod codec;
mod documents;
pub mod json;
mod outline;
mod splitter;
#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod testing;

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use self::codec::{Codec, Flow};
pub use self::documents::{Documents, DocumentsEnd, Plain};
pub use self::outline::Outline;
use self::splitter::{Found, Splitter};
use crate::rules::{Detection, Matcher, RuleInfo};

/// When an event happened, in UTC: the record's `eventTime` (RFC 3339); `None` where it says no such thing.
#[must_use]
pub fn event_time(record: &[u8]) -> Option<OffsetDateTime> {
    let text = json::get(record, "eventTime").and_then(json::string)?;
    OffsetDateTime::parse(&text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)
}

/// What one object may cost. Exceeding a limit is an error of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes as they come from S3.
    pub max_compressed_bytes: u64,
    /// Bytes after decompression.
    pub max_decompressed_bytes: u64,
    /// Decompressed by compressed bytes, judged once more than 1 MiB was decompressed.
    pub max_ratio: u64,
    /// Bytes of one record. A larger one is skipped without being held and reported; the others are read.
    pub max_record_bytes: usize,
}

/// Why an object cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("more than {limit} compressed bytes (source.max_compressed_bytes)")]
    TooManyCompressedBytes { limit: u64 },
    #[error("more than {limit} decompressed bytes (source.max_decompressed_bytes)")]
    TooManyDecompressedBytes { limit: u64 },
    #[error("decompresses by more than {limit} to 1 (source.max_ratio)")]
    RatioTooHigh { limit: u64 },
    #[error("the {codec} stream is damaged: {detail}")]
    Damaged { codec: &'static str, detail: String },
    /// The codec's stream has no end: the object was cut off, or the body was.
    #[error("the {codec} stream ends early")]
    EndsEarly { codec: &'static str },
    #[error("not a CloudTrail log: {detail} at byte {offset} of the decompressed text")]
    BadJson { detail: String, offset: u64 },
    /// The text ends inside the JSON document.
    #[error("the JSON document ends early, after {offset} bytes")]
    JsonEndsEarly { offset: u64 },
    #[error("the object is empty")]
    Empty,
    #[error("the document has no \"Records\" array")]
    NoRecords,
}

impl DecodeError {
    /// The value of the metrics label `reason`, also used in logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooManyCompressedBytes { .. } => "too_many_compressed_bytes",
            Self::TooManyDecompressedBytes { .. } => "too_many_decompressed_bytes",
            Self::RatioTooHigh { .. } => "ratio_too_high",
            Self::Damaged { .. } => "damaged",
            Self::EndsEarly { .. } => "ends_early",
            Self::BadJson { .. } => "bad_json",
            Self::JsonEndsEarly { .. } => "json_ends_early",
            Self::Empty => "empty",
            Self::NoRecords => "no_records",
        }
    }
}

/// One record that could not be read, among others that could.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    #[error("record {index} is larger than {limit} bytes (source.max_record_bytes)")]
    TooLarge { index: u64, limit: usize },
    #[error("record {index} is not a JSON object")]
    NotAnObject { index: u64 },
}

/// What a step of the decoder ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input is used up: bring more, or an empty input with `last` set.
    NeedInput,
    /// The budget of one step is spent (1 MiB decoded, or 32 detections or 1 MiB of them): take the output, call again.
    Yield,
    /// The document is complete and well formed.
    End,
}

/// The input of a decoder: a chunk of the body, and whether it is the last.
#[derive(Clone, Debug, Default)]
pub struct Input {
    pub bytes: Bytes,
    /// No byte follows `bytes`.
    pub last: bool,
}

/// What a decoder has found.
#[derive(Debug, Default)]
pub struct Output {
    pub detections: Vec<Detection>,
    /// At most [`MAX_PROBLEMS`] for an object; `problem_count` counts on.
    pub problems: Vec<RecordProblem>,
    pub problem_count: u64,
}

pub const MAX_PROBLEMS: usize = 16;

/// Figures of an object, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub compressed_bytes: u64,
    pub decompressed_bytes: u64,
    /// Records delimited, the unreadable ones included.
    pub records: u64,
}

/// Decompresses and splits one object.
///
/// The codecs of `compression-codecs`, which async-compression's readers are made of, are driven directly: those
/// readers wait for input inside of a read, whereas a step runs on a thread of the bounded compute pool, does a bounded
/// piece of work on bytes that are there, and keeps no thread while a download stalls.
///
/// Memory, whatever the object's size: 80 KiB of buffers, one record that spans two of them (up to
/// [`Limits::max_record_bytes`]) and the codec's state, for each of up to two layers (under 64 KiB for gzip; for zstd
/// the window that the frame asks for, at most 8 MiB, and some 0.5 MiB). A larger zstd window is
/// [`DecodeError::Damaged`]. The detections of one step are copies of what it decoded: about 1 MiB and one record at
/// most.
///
/// A gzip stream that ends early loses nothing of what came before. One that is damaged in the middle loses what up to
/// 512 compressed bytes before the damage hold.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    codec: Codec,
    splitter: Splitter,
    /// Decompressed text, of which `scanned..filled` is still to be split.
    text: Box<[u8]>,
    scanned: usize,
    filled: usize,
    /// How the text ends, once it is known.
    ending: Option<Result<(), DecodeError>>,
    progress: Progress,
    problems: usize,
}

const TEXT_BYTES: usize = 64 * 1024;

/// How much compressed input is decoded at a time, so that a step ends soon whatever becomes of it.
const INPUT_BYTES: usize = 64 * 1024;

/// The budget of a step.
pub const STEP_BYTES: u64 = 1024 * 1024;
const STEP_DETECTIONS: usize = 32;
/// Bytes of detections after which a step ends: what a message holds while it delivers is bounded by this and a record.
const STEP_HELD: usize = 1024 * 1024;

/// Which rules match a record.
type Matches<'a> = &'a mut dyn FnMut(&[u8], Option<Outline<'_>>) -> Vec<Arc<RuleInfo>>;

/// Up to here any ratio is fine: a few repeated records compress well.
pub(crate) const RATIO_FREE_BYTES: u64 = 1024 * 1024;

impl Decoder {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            codec: Codec::new(),
            splitter: Splitter::new(limits.max_record_bytes),
            text: vec![0; TEXT_BYTES].into_boxed_slice(),
            scanned: 0,
            filled: 0,
            ending: None,
            progress: Progress::default(),
            problems: 0,
        }
    }

    /// Uses up input until a step's budget is spent. Consumed bytes are removed from the front of `input.bytes`.
    /// After an error or [`Step::End`] the decoder must not be stepped again; the detections found before an error are
    /// in `out`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], when the object cannot be read further.
    pub fn step(&mut self, input: &mut Input, matcher: &mut Matcher, out: &mut Output) -> Result<Step, DecodeError> {
        self.step_within(STEP_BYTES, input, matcher, out)
    }

    /// [`Self::step`] with another budget of bytes than [`STEP_BYTES`]. A step goes beyond it by two buffers at most.
    ///
    /// # Errors
    ///
    /// As [`Self::step`].
    pub fn step_within(
        &mut self,
        budget: u64,
        input: &mut Input,
        matcher: &mut Matcher,
        out: &mut Output,
    ) -> Result<Step, DecodeError> {
        self.step_with(budget, input, &mut |raw, outline| matcher.matches_outlined(raw, outline), out)
    }

    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    fn step_with(
        &mut self,
        budget: u64,
        input: &mut Input,
        matches: Matches<'_>,
        out: &mut Output,
    ) -> Result<Step, DecodeError> {
        let work_before = self.work();
        loop {
            match self.split(matches, out) {
                Ok(Step::NeedInput) => {}
                Ok(step) => return Ok(step),
                Err(error) => {
                    (self.scanned, self.filled) = (0, 0);
                    self.ending = Some(Err(error));
                }
            }
            if let Some(ending) = &self.ending {
                return ending.clone().and_then(|()| self.splitter.finish()).map(|()| Step::End);
            }
            if self.work() - work_before >= budget {
                return Ok(Step::Yield);
            }
            if self.decompress(input) == Flow::NeedInput && self.filled == 0 {
                return Ok(Step::NeedInput);
            }
        }
    }

    /// Evaluates the records that end in the text. [`Step::NeedInput`] when it is used up.
    fn split(&mut self, matches: Matches<'_>, out: &mut Output) -> Result<Step, DecodeError> {
        let text = self.text.get(..self.filled).unwrap_or_default();
        while let Some(found) = self.splitter.next(text, &mut self.scanned)? {
            self.progress.records += 1;
            match found {
                Found::Record { index, raw, outline } => {
                    let rules = matches(raw, outline);
                    if !rules.is_empty() {
                        out.detections.push(Detection { index, raw: Bytes::copy_from_slice(raw), rules });
                        let held: usize = out.detections.iter().map(|one| one.raw.len()).sum();
                        if out.detections.len() >= STEP_DETECTIONS || held >= STEP_HELD {
                            return Ok(Step::Yield);
                        }
                    }
                }
                Found::Problem(problem) => {
                    out.problem_count += 1;
                    if self.problems < MAX_PROBLEMS {
                        self.problems += 1;
                        out.problems.push(problem);
                    }
                }
            }
        }
        (self.scanned, self.filled) = (0, 0);
        Ok(Step::NeedInput)
    }

    /// Fills the text, which is used up. What goes wrong becomes the ending, told once the text before it is split.
    fn decompress(&mut self, input: &mut Input) -> Flow {
        match self.try_decompress(input) {
            Ok(Flow::End) => self.ending = Some(Ok(())),
            Ok(flow) => return flow,
            Err(error) => self.ending = Some(Err(error)),
        }
        Flow::End
    }

    fn try_decompress(&mut self, input: &mut Input) -> Result<Flow, DecodeError> {
        let Limits { max_compressed_bytes, max_decompressed_bytes, max_ratio, .. } = self.limits;
        let length = input.bytes.len().min(INPUT_BYTES);
        let length = at_most(length, max_compressed_bytes - self.progress.compressed_bytes);
        if length == 0 && !input.bytes.is_empty() {
            return Err(DecodeError::TooManyCompressedBytes { limit: max_compressed_bytes });
        }
        let mut unread = input.bytes.get(..length).unwrap_or_default();
        let last = input.last && length == input.bytes.len();
        let (written, flow) = self.codec.run(&mut unread, last, &mut self.text);
        let used = length - unread.len();
        input.bytes.advance(used);
        self.progress.compressed_bytes += used as u64;

        self.filled = at_most(written, max_decompressed_bytes - self.progress.decompressed_bytes);
        self.progress.decompressed_bytes += self.filled as u64;
        // A bomb may lie in the layer between.
        let decompressed = self.progress.decompressed_bytes.max(self.codec.middle_bytes());
        if self.filled < written || decompressed > max_decompressed_bytes {
            return Err(DecodeError::TooManyDecompressedBytes { limit: max_decompressed_bytes });
        }
        if decompressed > RATIO_FREE_BYTES.max(self.progress.compressed_bytes.saturating_mul(max_ratio)) {
            return Err(DecodeError::RatioTooHigh { limit: max_ratio });
        }
        match flow? {
            Flow::NeedInput if !input.bytes.is_empty() => Ok(Flow::More),
            flow => Ok(flow),
        }
    }

    /// Bytes worked on so far, for the budget of a step.
    fn work(&self) -> u64 {
        self.progress.compressed_bytes.max(self.progress.decompressed_bytes).max(self.codec.middle_bytes())
    }
}

fn at_most(length: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(length, |limit| length.min(limit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserializer as _;
    use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::testing::{any_value, gzip, respell, zstd};
    use super::*;
    use crate::rules::Severity;

    const LIMITS: Limits = Limits {
        max_compressed_bytes: 64 << 20,
        max_decompressed_bytes: 256 << 20,
        max_ratio: 200,
        max_record_bytes: 1 << 20,
    };

    /// Everything that a decoder made of an object.
    #[derive(Debug, PartialEq)]
    struct Read {
        /// The records in which `matches` found something, with their indices.
        records: Vec<(u64, Bytes)>,
        problems: Vec<RecordProblem>,
        problem_count: u64,
        ending: Result<(), DecodeError>,
        progress: Progress,
    }

    fn rules() -> Vec<Arc<RuleInfo>> {
        let rule = RuleInfo::new("any", Severity::Low, "");
        vec![Arc::new(rule)]
    }

    fn read_where(object: &[u8], cuts: &[usize], limits: Limits, matches: Matches<'_>) -> Read {
        let mut decoder = Decoder::new(limits);
        let mut out = Output::default();
        let mut records = Vec::new();
        let mut object = Bytes::copy_from_slice(object);
        let mut input = Input::default();
        let mut cuts = cuts.iter().cycle();
        let ending = loop {
            let before = decoder.work();
            let step = decoder.step_with(STEP_BYTES, &mut input, matches, &mut out);
            assert!(out.detections.len() <= STEP_DETECTIONS);
            assert!(decoder.work() - before <= STEP_BYTES + (TEXT_BYTES + INPUT_BYTES) as u64);
            records.extend(out.detections.drain(..).map(|found| (found.index, found.raw)));
            match step {
                Ok(Step::NeedInput) => {
                    assert!(input.bytes.is_empty() && !input.last);
                    let length = cuts.next().map_or(object.len(), |&cut| cut.min(object.len()));
                    input = Input { bytes: object.split_to(length), last: object.is_empty() };
                }
                Ok(Step::Yield) => {}
                Ok(Step::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // An ending is an ending.
        let again = decoder.step_with(STEP_BYTES, &mut input, matches, &mut out);
        assert_eq!(again, ending.clone().map(|()| Step::End));
        assert!(out.detections.is_empty());
        let (problems, problem_count) = (out.problems, out.problem_count);
        Read { records, problems, problem_count, ending, progress: decoder.progress() }
    }

    /// A body that is small and swells must not hold an async thread for a whole step.
    #[test]
    fn a_short_step_is_short_whatever_comes_out() {
        const BUDGET: u64 = 128 * 1024;
        let text = format!("{{\"Records\":[{}{}]}}", " ".repeat(8 << 20), record(1));
        for object in [gzip(text.as_bytes()), gzip(&gzip(text.as_bytes())), zstd(text.as_bytes())] {
            let mut decoder = Decoder::new(Limits { max_ratio: 1 << 20, ..LIMITS });
            let mut matcher = Matcher::new(Arc::default());
            let (mut input, mut out) = (Input { bytes: object.into(), last: true }, Output::default());
            let mut steps = 0;
            loop {
                let before = decoder.work();
                let step = decoder.step_within(BUDGET, &mut input, &mut matcher, &mut out).unwrap();
                assert!(decoder.work() - before <= BUDGET + (TEXT_BYTES + INPUT_BYTES) as u64);
                steps += 1;
                if step == Step::End {
                    break;
                }
            }
            assert!(steps > 8 * 1024 / 256 && decoder.progress().records == 1, "{steps} steps");
        }
    }

    /// Reads an object that arrives in chunks of these lengths (and again, until it is whole), with every record a match.
    fn read_in(object: &[u8], cuts: &[usize], limits: Limits) -> Read {
        read_where(object, cuts, limits, &mut |_, _| rules())
    }

    fn read(object: &[u8]) -> Read {
        read_in(object, &[], LIMITS)
    }

    fn error(object: &[u8]) -> DecodeError {
        read(object).ending.unwrap_err()
    }

    fn texts(read: &Read) -> Vec<&str> {
        read.records.iter().map(|(_, raw)| std::str::from_utf8(raw).unwrap()).collect()
    }

    fn record(id: usize) -> String {
        json!({ "eventVersion": "1.11", "eventName": "StopLogging", "eventID": format!("{id:08}"), "n": ["}", "\\\""] })
            .to_string()
    }

    fn document(count: usize) -> String {
        format!("{{\"Records\":[{}]}}", (0..count).map(record).collect::<Vec<_>>().join(","))
    }

    /// The forms in which an uploader may leave a text.
    fn packed(text: &[u8], cut: usize) -> Vec<(&'static str, Vec<u8>)> {
        let (head, tail) = text.split_at(cut.min(text.len()));
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
        vec![
            ("plain", text.to_vec()),
            ("plain, marked", [b"\xef\xbb\xbf", text].concat()),
            ("gzip", gzip(text)),
            ("gzip, members", [gzip(head), gzip(b""), gzip(tail)].concat()),
            ("gzip, padded", [gzip(head), vec![0; 5], gzip(tail), vec![0; 700]].concat()),
            ("zstd", zstd(text)),
            ("zstd, frames", [&skippable[..], &zstd(head), &skippable, &zstd(tail), &skippable].concat()),
            ("gzip of gzip", gzip(&gzip(text))),
            ("zstd of gzip", zstd(&[gzip(head), gzip(tail)].concat())),
            ("gzip of zstd, marked", gzip(&zstd(&[b"\xef\xbb\xbf", text].concat()))),
        ]
    }

    type Members = Vec<(String, Value)>;

    /// What stands before `Records`, in it, and behind it.
    fn any_document() -> impl Strategy<Value = (Members, Vec<Value>, Members)> {
        let element = prop_oneof![
            4 => any_value().prop_map(|value| json!({ "eventName": "x]}\"", "requestParameters": value })),
            1 => any_value(),
        ];
        let beside = || prop::collection::vec(("[a-z\\\\\"]{0,60}", any_value()), 0..3);
        (beside(), prop::collection::vec(element, 0..8), beside())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_records_are_those_that_serde_json_reads(
            (before, records, after) in any_document(),
            spelling in 0..3,
            cuts in prop::collection::vec(1..40_usize, 1..8),
            cut in 0..400_usize,
        ) {
            let spell = |value: &Value| match spelling {
                0 => value.to_string(),
                1 => format!("{value:#}"),
                _ => respell(value),
            };
            let members = before.into_iter().chain([("Records".into(), Value::from(records.clone()))]).chain(after);
            let members = members.map(|(key, value)| format!("{} :{}", spell(&Value::from(key)), spell(&value)));
            let text = format!(" {{{}\n}}\r\n\0", members.collect::<Vec<_>>().join(","));
            for (form, object) in packed(text.as_bytes(), cut) {
                for cuts in [&cuts[..], &[]] {
                    let read = read_in(&object, cuts, LIMITS);
                    prop_assert_eq!(&read.ending, &Ok(()), "{}", form);
                    prop_assert_eq!(read.progress.compressed_bytes, object.len() as u64);
                    prop_assert_eq!(read.progress.records, records.len() as u64);
                    let objects = (0_u64..).zip(&records).filter(|(_, record)| record.is_object());
                    let expected = objects.map(|(index, record)| (index, record.clone()));
                    let found = read.records.iter().map(|(index, raw)| (*index, serde_json::from_slice(raw).unwrap()));
                    prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", form);
                    prop_assert_eq!(read.problem_count, (records.len() - read.records.len()) as u64);
                }
            }
        }

        #[test]
        fn any_bytes_end(
            object in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                r#"\{"Records":\[(\{[{}\[\]",:\\]{0,4}\}|[{}\[\]",:\\n1]{0,2}|,){0,12}\]\}"#.prop_map(String::into_bytes),
            ],
            flip in any::<(prop::sample::Index, u8)>(),
            cuts in prop::collection::vec(1..40_usize, 1..8),
        ) {
            let whole = read(&object);
            let mut pieces = read_in(&object, &cuts, LIMITS);
            // A codec hands out what it has when it has it.
            pieces.progress = whole.progress;
            prop_assert_eq!(&whole, &pieces);
            for mut packed in [gzip(&object), zstd(&object)] {
                let at = flip.0.index(packed.len());
                packed[at] ^= flip.1;
                read_in(&packed, &cuts, LIMITS);
            }
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

    const RECORDS: &str = "Records";

    /// A small document as text, with `Records` wherever and as often as chance has it.
    fn any_text() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            3 => Just("\"Records\"".to_owned()),
            1 => Just(r#""R\u0065cord\u0073""#.to_owned()),
            2 => prop::sample::select(vec!["\"\"", "\"records\"", r#""Records ""#, r#""a\"Records""#, r#""\ud800""#])
                .prop_map(ToOwned::to_owned),
        ];
        let element = prop_oneof![
            3 => any_value().prop_map(|value| json!({ "x]}\"": value }).to_string()),
            1 => any_value().prop_map(|value| respell(&value)),
            1 => prop::sample::select(vec!["{}", "[{}]", "null", "-1.5e400", r#""\u007d\\""#, r#"{"\ud800":"}"}"#])
                .prop_map(ToOwned::to_owned),
        ];
        let space = || prop::sample::select(vec!["", " ", "\n", "\r\n\t "]);
        let elements = prop::collection::vec((element.clone(), space()), 0..4).prop_map(|elements| {
            let elements: Vec<_> =
                elements.into_iter().map(|(element, space)| format!("{space}{element}{space}")).collect();
            format!("[{}]", elements.join(","))
        });
        let value = prop_oneof![3 => elements, 1 => element];
        prop::collection::vec((name, value, space()), 0..4).prop_map(|members| {
            let members: Vec<_> = members
                .into_iter()
                .map(|(name, value, space)| format!("{space}{name}{space}:{space}{value}{space}"))
                .collect();
            format!("{{{}}}", members.join(","))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn a_text_cut_at_every_position_is_read_as_serde_json_reads_the_whole(
            text in any_text(),
            damage in prop::option::of((any::<prop::sample::Index>(), 0..2_usize, "[{}\\[\\]\",:\\\\ 1n]{0,2}")),
        ) {
            let mut text = text.into_bytes();
            if let Some((at, removed, put)) = damage {
                let at = at.index(text.len());
                text.splice(at..at + removed, put.into_bytes());
            }
            let whole = read(&text);
            if let Some(records) = records_by_serde_json(&text) {
                prop_assert_eq!(&whole.ending, &Ok(()));
                let objects = (0..).zip(records).filter(|(_, raw)| raw.starts_with(b"{"));
                prop_assert_eq!(&whole.records, &objects.collect::<Vec<_>>());
            }
            let zipped = gzip(&text);
            let from_zipped = read(&zipped);
            prop_assert_eq!((&from_zipped.records, &from_zipped.ending), (&whole.records, &whole.ending));
            for (object, whole) in [(&text, &whole), (&zipped, &from_zipped)] {
                for first in 1..object.len() {
                    let mut cut = read_in(object, &[first, object.len()], LIMITS);
                    cut.progress = whole.progress;
                    prop_assert_eq!(&cut, whole, "cut at {}", first);
                }
                let mut bytes = read_in(object, &[1], LIMITS);
                bytes.progress = whole.progress;
                prop_assert_eq!(&bytes, whole, "byte by byte");
            }
        }
    }

    #[test]
    fn a_document_may_be_cut_anywhere() {
        let text = r#"{"a":["\\",{"Records":[{}]}],"R\u0065cords" : [ {"x":"\u005d\"}"} ,null,{}], "Records":[{"y":[{}]}],"z":"Records"}"#;
        for (form, object) in packed(text.as_bytes(), 50) {
            let whole = read(&object);
            assert_eq!(whole.ending, Ok(()), "{form}");
            assert_eq!(texts(&whole), [r#"{"x":"\u005d\"}"}"#, "{}", r#"{"y":[{}]}"#]);
            assert_eq!(whole.records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2, 3]);
            assert_eq!(whole.problems, [RecordProblem::NotAnObject { index: 1 }]);
            for first in 0..object.len() {
                assert_eq!(read_in(&object, &[first, object.len()], LIMITS), whole, "{form} cut at {first}");
            }
            assert_eq!(read_in(&object, &[1], LIMITS), whole, "{form}");
        }
    }

    #[test]
    fn cut_off_anywhere_it_is_never_complete_and_gives_what_came_before() {
        let text = document(40);
        for (form, object) in packed(text.as_bytes(), 2000) {
            // What these end with may be missing.
            if form == "gzip, padded" || form == "zstd, frames" {
                continue;
            }
            let codec = form.split([' ', ',']).next().unwrap();
            let (complete, mut seen) = (read(&object).records, 0);
            for length in 0..object.len() {
                let read = read(&object[..length]);
                match read.ending.unwrap_err() {
                    DecodeError::Empty => assert_eq!(length, 0),
                    DecodeError::EndsEarly { codec: reported } => assert_eq!(reported, codec),
                    // Between its members a gzip stream is whole, but its text is not.
                    DecodeError::JsonEndsEarly { .. } => assert!(codec == "plain" || form == "gzip, members"),
                    error => panic!("{form} cut at {length}: {error}"),
                }
                assert!(read.records.len() >= seen, "{form} cut at {length}");
                seen = read.records.len();
                assert_eq!(read.records, complete[..seen]);
            }
            // A zstd block is decoded whole or not at all.
            assert!(seen == 40 || form.contains("zstd"), "{form}: without the last byte, {seen}");
        }
    }

    #[test]
    fn what_is_damaged_is_an_error_after_the_records_before_it() {
        let text: String = document(2000);
        let mut wrong_sum = gzip(text.as_bytes());
        let sum = wrong_sum.len() - 8;
        wrong_sum[sum] ^= 1;
        let read_sum = read(&wrong_sum);
        assert_eq!(read_sum.records.len(), 2000);
        assert!(matches!(read_sum.ending, Err(DecodeError::Damaged { codec: "gzip", .. })), "{:?}", read_sum.ending);

        // The second member is a deflate block of a type that does not exist.
        let bad_block = [gzip(text.as_bytes()), gzip(b"")[..10].to_vec(), vec![0xff; 40]].concat();
        let read_block = read(&bad_block);
        assert_eq!(read_block.records.len(), 2000);
        assert!(matches!(read_block.ending, Err(DecodeError::Damaged { codec: "gzip", .. })));

        let trailing = [gzip(text.as_bytes()), b"<html>".to_vec()].concat();
        let read_trailing = read(&trailing);
        assert_eq!(read_trailing.records.len(), 2000);
        assert!(matches!(read_trailing.ending, Err(DecodeError::Damaged { codec: "gzip", .. })));

        let trailing = [zstd(text.as_bytes()), b"<html>".to_vec()].concat();
        let read_trailing = read(&trailing);
        assert_eq!(read_trailing.records.len(), 2000);
        assert!(matches!(read_trailing.ending, Err(DecodeError::Damaged { codec: "zstd", .. })));

        // A zstd frame that asks for a window of 128 MiB.
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x01, 0x00, 0x00];
        assert!(matches!(error(&wide), DecodeError::Damaged { codec: "zstd", .. }));
        // The same with 8 MiB is only empty.
        let fair = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68, 0x01, 0x00, 0x00];
        assert_eq!(error(&fair), DecodeError::Empty);
    }

    #[test]
    fn damage_in_a_deflate_stream_costs_the_records_next_to_it_only() {
        // Stored blocks of 100 bytes keep the text as it is, so that the damage is seen where it is.
        let text = document(100);
        let mut object = gzip(b"")[..10].to_vec();
        for block in text.as_bytes().chunks(100) {
            let length = u16::try_from(block.len()).unwrap();
            object.push(0);
            object.extend(length.to_le_bytes());
            object.extend((!length).to_le_bytes());
            object.extend(block);
        }
        let at = 10 + 60 * 105;
        object[at + 1] ^= 0xff;
        let read = read(&object);
        assert!(matches!(read.ending, Err(DecodeError::Damaged { codec: "gzip", .. })), "{:?}", read.ending);
        let whole_before = (6000 - GZIP_LOSS) / (record(0).len() + 1);
        assert!(read.records.len() >= whole_before - 1, "{} of {whole_before}", read.records.len());
    }

    const GZIP_LOSS: usize = 512;

    #[test]
    fn each_wrong_document_is_named() {
        let bad = |detail: &str, offset| DecodeError::BadJson { detail: detail.into(), offset };
        for (text, expected) in [
            ("", DecodeError::Empty),
            (" \n", DecodeError::JsonEndsEarly { offset: 2 }),
            ("{}", DecodeError::NoRecords),
            (r#"{"eventName":"ConsoleLogin","records":[{}]}"#, DecodeError::NoRecords),
            ("[{}]", bad("an array instead of an object with \"Records\"", 0)),
            ("null", bad("null instead of an object with \"Records\"", 0)),
            ("<Error>", bad("\"<\" instead of an object with \"Records\"", 0)),
            ("\u{7f}", bad("the byte 0x7f instead of an object with \"Records\"", 0)),
            (r#"{"Records":null}"#, bad("\"Records\" is null, not an array", 11)),
            (r#"{"Records":{"a":1}}"#, bad("\"Records\" is an object, not an array", 11)),
            (r#"{"Records":[{}{}]}"#, bad("an object instead of a comma or the end of the array behind a record", 14)),
            (r#"{"Records":[{},]}"#, bad("\"]\" instead of a value", 15)),
            (r#"{"Records":[{},x]}"#, bad("\"x\" instead of a value", 15)),
            (r#"{"Records":[{"a":1]]}"#, bad("a record ends with the wrong bracket", 18)),
            (r#"{"a":[1},"Records":[]}"#, bad("a value ends with the wrong bracket", 7)),
            (r#"{"a" 1,"Records":[]}"#, bad("a number instead of a colon", 5)),
            ("{a:1}", bad("\"a\" instead of a key in quotes", 1)),
            (r#"{"Records":[]]"#, bad("\"]\" instead of a comma or the end of the object", 13)),
            (r#"{"Records":[]} {"Records":[]}"#, bad("an object instead of the end of the document", 15)),
            (r#"{"Records":[{"a":1}"#, DecodeError::JsonEndsEarly { offset: 19 }),
            (r#"{"Records":[{}]"#, DecodeError::JsonEndsEarly { offset: 15 }),
        ] {
            for (form, object) in packed(text.as_bytes(), 7) {
                if !form.contains("marked") {
                    assert_eq!(error(&object), expected, "{form} of {text}");
                    assert_eq!(read_in(&object, &[1], LIMITS).ending, Err(expected.clone()), "{form} of {text}");
                }
            }
        }
        let thrice = gzip(&gzip(&gzip(b"{}")));
        assert_eq!(error(&thrice), bad("the byte 0x1f instead of an object with \"Records\"", 0));
    }

    #[test]
    fn records_before_an_error_are_found() {
        let read = read(br#"{"Records":[{"n":1},{"n":2}, oops {"n":3}]}"#);
        assert_eq!(texts(&read), [r#"{"n":1}"#, r#"{"n":2}"#]);
        assert!(matches!(read.ending, Err(DecodeError::BadJson { offset: 29, .. })));
    }

    #[test]
    fn odd_records_hide_no_others() {
        let text = b"{\"Records\":[{\"a\":\xff\xfe,,},null,[{}],\"{\",-1.5e3,{\0},true,{\"b\" 1]},{[}}]}";
        let read = read(text);
        assert!(matches!(read.ending, Err(DecodeError::BadJson { .. })), "{:?}", read.ending);
        let texts: Vec<&[u8]> = read.records.iter().map(|(_, raw)| &raw[..]).collect();
        assert_eq!(texts, [&b"{\"a\":\xff\xfe,,}"[..], b"{\0}"]);
        assert_eq!(read.problem_count, 5);
    }

    #[test]
    fn a_step_stops_at_32_detections_and_goes_on_there() {
        let object = gzip(document(100).as_bytes());
        let mut decoder = Decoder::new(LIMITS);
        let mut input = Input { bytes: object.into(), last: true };
        let mut counts = Vec::new();
        let mut next = 0;
        loop {
            let mut out = Output::default();
            let step = decoder.step_with(STEP_BYTES, &mut input, &mut |_, _| rules(), &mut out).unwrap();
            for detection in &out.detections {
                assert_eq!(
                    (detection.index, &detection.raw[..]),
                    (next, record(usize::try_from(next).unwrap()).as_bytes())
                );
                next += 1;
            }
            counts.push(out.detections.len());
            if step == Step::End {
                break;
            }
            assert_eq!(step, Step::Yield);
        }
        assert_eq!(counts, [32, 32, 32, 4]);
    }

    #[test]
    fn a_step_stops_after_a_mebibyte_also_when_nothing_matches() {
        let text = document(40_000);
        for object in [gzip(text.as_bytes()), text.clone().into_bytes()] {
            let mut decoder = Decoder::new(LIMITS);
            let mut input = Input { bytes: object.into(), last: true };
            let (mut steps, mut out) = (0, Output::default());
            while decoder.step_with(STEP_BYTES, &mut input, &mut |_, _| Vec::new(), &mut out).unwrap() == Step::Yield {
                steps += 1;
            }
            assert_eq!(steps, text.len() / (1 << 20));
            assert_eq!(decoder.progress().records, 40_000);
            assert!(out.detections.is_empty());
        }
    }

    #[test]
    fn only_what_matches_is_detected() {
        let object = gzip(document(50).as_bytes());
        let mut matches = |raw: &[u8], _: Option<Outline<'_>>| {
            if json::get(raw, "eventID") == Some(b"\"00000007\"") { rules() } else { vec![] }
        };
        let read = read_where(&object, &[], LIMITS, &mut matches);
        assert_eq!(read.records, [(7, Bytes::from(record(7)))]);
        assert_eq!(read.progress.records, 50);
    }

    #[test]
    fn a_step_matches_with_the_rules_given() {
        let mut decoder = Decoder::new(LIMITS);
        let mut input = Input { bytes: document(3).into(), last: true };
        let mut matcher = Matcher::new(Arc::default());
        let mut out = Output::default();
        assert_eq!(decoder.step(&mut input, &mut matcher, &mut out), Ok(Step::End));
        assert!(out.detections.is_empty(), "no rules, no matches");
        assert_eq!(decoder.progress().records, 3);
    }

    #[test]
    fn a_decoder_can_change_threads() {
        fn send<T: Send>(_: &T) {}
        send(&Decoder::new(LIMITS));
    }

    #[test]
    fn compressed_bytes_are_limited_exactly() {
        let object = gzip(document(10).as_bytes());
        let length = object.len() as u64;
        let fits = Limits { max_compressed_bytes: length, ..LIMITS };
        assert_eq!(read_in(&object, &[7], fits).ending, Ok(()));
        let limits = Limits { max_compressed_bytes: length - 1, ..LIMITS };
        let read = read_in(&object, &[], limits);
        assert_eq!(read.ending, Err(DecodeError::TooManyCompressedBytes { limit: length - 1 }));
        assert_eq!(read.records.len(), 10, "what was within the limit is found");
    }

    #[test]
    fn decompressed_bytes_are_limited_exactly() {
        let text = document(10);
        let length = text.len() as u64;
        for (form, object) in packed(text.as_bytes(), 90) {
            if form.contains("marked") {
                continue;
            }
            let fits = Limits { max_decompressed_bytes: length, ..LIMITS };
            // The layer between counts too.
            if !form.contains("of") {
                assert_eq!(read_in(&object, &[], fits).ending, Ok(()), "{form}");
            }
            let limits = Limits { max_decompressed_bytes: length - 3, ..LIMITS };
            let read = read_in(&object, &[], limits);
            assert_eq!(read.ending, Err(DecodeError::TooManyDecompressedBytes { limit: length - 3 }), "{form}");
            assert_eq!(read.records.len(), 9, "{form}");
            assert_eq!(read.progress.decompressed_bytes, length - 3);
        }
    }

    #[test]
    fn bombs_are_refused_early() {
        // One GiB of zeros behind an opening: a member of a mebibyte, a thousand times.
        let mebibyte = gzip(&vec![b' '; 1 << 20]);
        let bomb: Vec<u8> = [gzip(br#"{"Records":[{"n":1},"#), mebibyte.repeat(1024)].concat();
        let bombs = [bomb.clone(), gzip(&bomb), gzip(&gzip(&vec![b' '; 8 << 20])), zstd(&vec![b' '; 64 << 20])];
        for bomb in bombs {
            let limits = Limits { max_decompressed_bytes: 1 << 30, ..LIMITS };
            let read = read_in(&bomb, &[], limits);
            assert_eq!(read.ending, Err(DecodeError::RatioTooHigh { limit: 200 }));
            assert!(read.progress.decompressed_bytes <= (1 << 20) + TEXT_BYTES as u64);
        }
        let limits = Limits { max_ratio: u64::MAX, max_decompressed_bytes: 5 << 20, ..LIMITS };
        let read = read_in(&bomb, &[], limits);
        assert_eq!(read.ending, Err(DecodeError::TooManyDecompressedBytes { limit: 5 << 20 }));
        assert_eq!(texts(&read), [r#"{"n":1}"#]);
    }

    #[test]
    fn a_small_object_may_compress_as_well_as_it_likes() {
        let text = format!(r#"{{"Records":[{{"a":"{}"}}]}}"#, "x".repeat(900_000));
        let read = read(&gzip(text.as_bytes()));
        assert!(text.len() as u64 > 200 * read.progress.compressed_bytes);
        assert_eq!(read.ending, Ok(()));
    }

    #[test]
    fn a_record_that_is_too_large_is_skipped_and_its_neighbours_are_read() {
        let large = format!(r#"{{"large":"{}"}}"#, "\\\"}".repeat(2 << 20));
        let text = format!(r#"{{"Records":[{{"n":0}},{large},{{"n":2}}]}}"#);
        for object in [text.clone().into_bytes(), gzip(text.as_bytes())] {
            let limits = Limits { max_ratio: u64::MAX, ..LIMITS };
            let read = read_in(&object, &[], limits);
            assert_eq!(read.ending, Ok(()));
            assert_eq!(read.records, [(0, Bytes::from(r#"{"n":0}"#)), (2, Bytes::from(r#"{"n":2}"#))]);
            assert_eq!(read.problems, [RecordProblem::TooLarge { index: 1, limit: 1 << 20 }]);
        }
        // To the byte, whole in a buffer or across many.
        for cuts in [&[][..], &[10]] {
            for (limit, fits) in [(record(0).len(), true), (record(0).len() - 1, false)] {
                let limits = Limits { max_record_bytes: limit, ..LIMITS };
                let read = read_in(document(3).as_bytes(), cuts, limits);
                assert_eq!(read.ending, Ok(()));
                assert_eq!((read.records.len(), read.problem_count), if fits { (3, 0) } else { (0, 3) });
            }
        }
    }

    #[test]
    fn problems_are_counted_beyond_those_that_are_told() {
        let text = format!(r#"{{"Records":[{}{{"n":1}}]}}"#, "null,".repeat(100_000));
        let read = read(&gzip(text.as_bytes()));
        assert_eq!(read.ending, Ok(()));
        assert_eq!((read.problems.len(), read.problem_count), (MAX_PROBLEMS, 100_000));
        assert_eq!(read.records, [(100_000, Bytes::from(r#"{"n":1}"#))]);
    }

    #[test]
    fn depth_costs_neither_stack_nor_time() {
        let deep = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
        let text = format!(r#"{{"a":{deep},"Records":[{{"deep":{deep}}},{deep},{{"n":2}}],"b":{deep}}}"#);
        let read = read(text.as_bytes());
        assert_eq!(read.ending, Ok(()));
        assert_eq!(read.records.len(), 2);
        assert_eq!(read.records[1].1, r#"{"n":2}"#);
    }
}
