//! Records in whatever text people keep them: for tools, not for the daemon, which reads log objects alone.
//!
//! A text is any number of JSON documents in a row, such as one on each line, or arrays of them. A document is a log file
//! (`{"Records": [...]}`), a bare record, an EventBridge event with a record as its `detail`, or what the AWS CLI prints for
//! `cloudtrail lookup-events`: `{"Events": [{"CloudTrailEvent": "..."}]}`, whole or one of its events. A document that is
//! none of these, or no JSON, costs only itself.

use std::borrow::Cow;
use std::io::{self, Read};

use super::codec::{Codec, Flow};
use super::{DecodeError, Limits, json};

/// A document that is larger is skipped: it is held in memory as a whole.
const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// How much compressed and how much plain text is held.
const BUFFER_BYTES: usize = 64 * 1024;

/// Decompresses what it reads by its magic bytes, as [`super::Decoder`] does; plain text goes through as it is.
pub struct Plain<R> {
    source: R,
    codec: Codec,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    last: bool,
    ended: bool,
    text: Box<[u8]>,
    text_start: usize,
    text_end: usize,
    compressed: u64,
    decompressed: u64,
    limits: Limits,
}

impl<R: Read> Plain<R> {
    pub fn new(source: R, limits: Limits) -> Self {
        let buffer = || vec![0; BUFFER_BYTES].into_boxed_slice();
        Self {
            source,
            codec: Codec::new(),
            input: buffer(),
            start: 0,
            end: 0,
            last: false,
            ended: false,
            text: buffer(),
            text_start: 0,
            text_end: 0,
            compressed: 0,
            decompressed: 0,
            limits,
        }
    }

    /// Bytes that came out so far.
    pub fn decompressed(&self) -> u64 {
        self.decompressed
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.text_start == self.text_end && !self.ended {
            if self.start == self.end && !self.last {
                self.end = self.source.read(&mut self.input)?;
                self.start = 0;
                self.last = self.end == 0;
                self.compressed = self.compressed.saturating_add(self.end as u64);
            }
            let mut unread = self.input.get(self.start..self.end).unwrap_or_default();
            let (written, flow) = self.codec.run(&mut unread, self.last, &mut self.text);
            self.start = self.end.saturating_sub(unread.len());
            (self.text_start, self.text_end) = (0, written);
            self.decompressed = self.decompressed.saturating_add(written as u64);
            let most = self.compressed.saturating_mul(self.limits.max_ratio).max(super::RATIO_FREE_BYTES);
            if self.decompressed.max(self.codec.middle_bytes()) > most {
                return Err(io::Error::other(DecodeError::RatioTooHigh { limit: self.limits.max_ratio }));
            }
            match flow {
                Ok(Flow::End) => self.ended = true,
                Ok(Flow::More | Flow::NeedInput) => {}
                // What came before the damage is given first.
                Err(error) if written == 0 => return Err(io::Error::other(error)),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let there = self.text.get(self.text_start..self.text_end).unwrap_or_default();
        let length = there.len().min(into.len());
        if let (Some(into), Some(there)) = (into.get_mut(..length), there.get(..length)) {
            into.copy_from_slice(there);
        }
        self.text_start += length;
        Ok(length)
    }
}

/// What became of the documents of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentsEnd {
    /// Records found.
    pub records: u64,
    /// Documents, or parts of them, that are no records.
    pub unreadable: u64,
    /// The first of these: where it begins, and what is wrong.
    pub first_problem: Option<String>,
}

/// Finds one document after another. Feed it the text, then finish.
#[derive(Debug, Default)]
pub struct Documents {
    state: State,
    /// The document so far; empty and not filled while one that is too large is skipped.
    value: Vec<u8>,
    /// In an array of documents.
    in_array: bool,
    /// How much text came before, and where the document begins in it.
    offset: u64,
    begins: u64,
    /// Of the next record, or of what should be one.
    position: u64,
    end: DocumentsEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a document.
    #[default]
    Between,
    /// Inside of one, this deep.
    Inside { depth: u32, text: Text, too_large: bool },
    /// Behind garbage, up to the end of the line or of the element.
    Garbage,
}

/// Where in a document's strings and lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// Behind a value.
    None,
    /// Where a value or a key is missing: behind a brace, a bracket, a comma or a colon.
    Open,
    /// Behind a value, at the beginning of a line.
    LineStart,
    String,
    Escape,
}

impl Documents {
    /// Takes the next piece of text. `each` gets every record with its position, from 0: what is no record has one too.
    pub fn feed(&mut self, text: &[u8], each: &mut dyn FnMut(u64, &[u8])) {
        let mut kept = 0;
        for (at, byte) in text.iter().enumerate() {
            match self.state {
                State::Between => {
                    if self.begin(*byte, at) {
                        kept = at;
                    }
                }
                State::Garbage => {
                    if *byte == b'\n' || self.in_array && matches!(byte, b',' | b']') {
                        self.state = State::Between;
                        self.in_array &= *byte != b']';
                    }
                }
                State::Inside { depth, text: place, too_large } => {
                    let (depth, place, ended) = match inside(depth, place, *byte) {
                        Within::On(depth, place) => (depth, place, Ended::No),
                        Within::Complete => (0, Text::None, Ended::Whole),
                        Within::CutOff => (0, Text::None, Ended::Cut),
                    };
                    if ended == Ended::No {
                        self.state = State::Inside { depth, text: place, too_large };
                        continue;
                    }
                    let end = if ended == Ended::Whole { at + 1 } else { at };
                    self.keep(text.get(kept..end).unwrap_or_default());
                    self.close(ended == Ended::Whole, each);
                    if ended == Ended::Cut && self.begin(*byte, at) {
                        kept = at;
                    }
                }
            }
        }
        if matches!(self.state, State::Inside { .. }) {
            self.keep(text.get(kept..).unwrap_or_default());
        }
        self.offset = self.offset.saturating_add(text.len() as u64);
    }

    /// The text ends here.
    pub fn finish(mut self) -> DocumentsEnd {
        if matches!(self.state, State::Inside { .. }) {
            self.problem("the document ends early");
        } else if self.in_array {
            self.begins = self.offset;
            self.problem("the array ends early");
        } else if self.offset == 0 {
            self.problem("it is empty");
        }
        self.end
    }

    /// Looks at a byte between documents. Says whether one begins with it.
    fn begin(&mut self, byte: u8, at: usize) -> bool {
        self.state = State::Between;
        self.begins = self.offset.saturating_add(at as u64);
        match byte {
            b'{' => {
                self.state = State::Inside { depth: 1, text: Text::Open, too_large: false };
                return true;
            }
            b'[' if !self.in_array => self.in_array = true,
            b']' if self.in_array => self.in_array = false,
            b' ' | b'\t' | b'\r' | b'\n' | b',' | 0xef | 0xbb | 0xbf => {}
            _ => {
                self.problem("no JSON object begins here");
                self.state = State::Garbage;
            }
        }
        false
    }

    fn keep(&mut self, part: &[u8]) {
        let State::Inside { too_large, .. } = &mut self.state else { return };
        if self.value.len().saturating_add(part.len()) > MAX_DOCUMENT_BYTES {
            *too_large = true;
            self.value = Vec::new();
        }
        if !*too_large {
            self.value.extend_from_slice(part);
        }
    }

    fn close(&mut self, whole: bool, each: &mut dyn FnMut(u64, &[u8])) {
        let value = std::mem::take(&mut self.value);
        match self.state {
            State::Inside { too_large: true, .. } => self.problem("the document is too large"),
            _ if !whole => self.problem("the document is cut off"),
            _ => unfold(&value, &mut |found| match found {
                Ok(record) => {
                    each(self.position, &record);
                    self.position += 1;
                    self.end.records += 1;
                }
                Err(problem) => {
                    self.position += 1;
                    self.end.unreadable += 1;
                    self.end
                        .first_problem
                        .get_or_insert_with(|| format!("{problem}, in the document at byte {}", self.begins));
                }
            }),
        }
        self.value = value;
        self.value.clear();
        self.state = State::Between;
    }

    fn problem(&mut self, what: &str) {
        self.position += 1;
        self.end.unreadable += 1;
        let begins = self.begins;
        self.end.first_problem.get_or_insert_with(|| format!("{what}, at byte {begins} of the text"));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Whole,
    Cut,
}

/// What a byte of a document does.
enum Within {
    On(u32, Text),
    Complete,
    /// The document ended without its end: a line break in a string, or another document at the beginning of a line.
    CutOff,
}

fn inside(depth: u32, text: Text, byte: u8) -> Within {
    match (text, byte) {
        (Text::String, b'\\') => Within::On(depth, Text::Escape),
        (Text::String, b'"') => Within::On(depth, Text::None),
        (Text::String | Text::Escape, b'\n') | (Text::LineStart, b'{') => Within::CutOff,
        (Text::String | Text::Escape, _) | (_, b'"') => Within::On(depth, Text::String),
        (Text::Open, b' ' | b'\t' | b'\r' | b'\n') | (_, b',' | b':') => Within::On(depth, Text::Open),
        (_, b'\n') => Within::On(depth, Text::LineStart),
        (_, b'{' | b'[') => Within::On(depth.saturating_add(1), Text::Open),
        (_, b'}' | b']') if depth <= 1 => Within::Complete,
        (_, b'}' | b']') => Within::On(depth.saturating_sub(1), Text::None),
        _ => Within::On(depth, Text::None),
    }
}

/// A record, or why there is none.
type Unfolded<'a> = Result<Cow<'a, [u8]>, &'static str>;

/// The records of a document.
fn unfold(document: &[u8], each: &mut dyn FnMut(Unfolded<'_>)) {
    let (mut records, mut events, mut lookup, mut detail, mut is_record) = (None, None, None, None, false);
    for member in json::members(document) {
        let is = |name| json::key_is(member.key, name);
        if is("Records") && json::is_array(member.value) {
            records = Some(member.value);
        } else if is("Events") && json::is_array(member.value) {
            events = Some(member.value);
        } else if is("CloudTrailEvent") {
            lookup = Some(member.value);
        } else if is("detail") && json::is_object(member.value) {
            detail = Some(member.value);
        } else {
            is_record |=
                ["eventVersion", "eventName", "eventSource", "eventID", "userIdentity"].iter().any(|name| is(name));
        }
    }
    if let Some(records) = records {
        for record in json::elements(records) {
            each(if json::is_object(record) { Ok(Cow::Borrowed(record)) } else { Err("a record is no JSON object") });
        }
    } else if let Some(events) = events {
        for event in json::elements(events) {
            each(looked_up(json::get(event, "CloudTrailEvent")));
        }
    } else if lookup.is_some() {
        each(looked_up(lookup));
    } else if let Some(detail) = detail.filter(|_| !is_record) {
        each(if is_bare(detail) { Ok(Cow::Borrowed(detail)) } else { Err("its \"detail\" is no CloudTrail record") });
    } else if is_record {
        each(Ok(Cow::Borrowed(document)));
    } else {
        each(Err("it holds no CloudTrail record"));
    }
}

fn is_bare(record: &[u8]) -> bool {
    json::get(record, "eventName").or_else(|| json::get(record, "eventID")).is_some()
}

/// The record that `lookup-events` gives as a text.
fn looked_up(text: Option<&[u8]>) -> Unfolded<'static> {
    let text = text.and_then(json::string).ok_or("an event has no \"CloudTrailEvent\" text")?;
    if !json::is_object(text.as_bytes()) {
        return Err("a \"CloudTrailEvent\" is no JSON object");
    }
    Ok(Cow::Owned(text.into_owned().into_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{gzip, zstd};
    use super::*;

    const LIMITS: Limits = Limits {
        max_compressed_bytes: u64::MAX,
        max_decompressed_bytes: u64::MAX,
        max_ratio: 200,
        max_record_bytes: usize::MAX,
    };

    fn read(text: &[u8], piece: usize) -> (Vec<String>, DocumentsEnd) {
        let (mut documents, mut found) = (Documents::default(), Vec::new());
        for part in text.chunks(piece.max(1)) {
            documents.feed(part, &mut |index, raw| {
                assert!(index >= found.len() as u64);
                found.push(String::from_utf8_lossy(raw).into_owned());
            });
        }
        (found, documents.finish())
    }

    /// The same whatever the pieces are.
    fn records(text: &str) -> (Vec<String>, u64, Option<String>) {
        let whole = read(text.as_bytes(), usize::MAX);
        for piece in [1, 2, 7] {
            assert_eq!(read(text.as_bytes(), piece), whole, "in pieces of {piece}");
        }
        (whole.0, whole.1.unreadable, whole.1.first_problem)
    }

    #[test]
    fn each_shape_gives_its_records() {
        let (a, b) = (
            r#"{"eventID":"a","eventName":"A","requestParameters":{"x":["]}","{"]}}"#,
            r#"{"eventID":"b","eventName":"B"}"#,
        );
        let text = |record: &str| serde_json::to_string(record).unwrap();
        for shape in [
            format!(r#"{{"Records":[{a},{b}]}}"#),
            format!("{{\"Records\":[\n{a}\n,\n{b}\n]}}"),
            format!("{a}\n{b}\n"),
            format!("{a}\r\n\r\n{b}"),
            format!("[{a},\n {b}]"),
            format!("\u{feff}[{a}]\n[{b}]"),
            format!(r#"{{"Records":[{a}]}}{{"later":1,"Records":[{b}]}}"#),
            format!(
                r#"{{"version":"0","detail-type":"AWS API Call via CloudTrail","source":"aws.iam","detail":{a}}}{b}"#
            ),
            format!(
                r#"{{"Events":[{{"EventId":"a","CloudTrailEvent":{}}},{{"CloudTrailEvent":{}}}],"NextToken":"t"}}"#,
                text(a),
                text(b)
            ),
            format!(r#"{{"EventId":"a","CloudTrailEvent":{}}}{}"#, text(a), b),
        ] {
            let (found, unreadable, problem) = records(&shape);
            assert_eq!((found, unreadable, problem), (vec![a.to_owned(), b.to_owned()], 0, None), "{shape}");
        }
    }

    #[test]
    fn a_bad_document_costs_only_itself() {
        let good = r#"{"eventID":"a","eventName":"A"}"#;
        for (bad, problem) in [
            ("garbage {\"x\":1}", "no JSON object begins here, at byte 32"),
            (r#"{"eventName":"cut"#, "the document is cut off, at byte 32"),
            (r#"{"eventName":{"cut":1"#, "the document is cut off, at byte 32"),
            (r#"{"other":1}"#, "it holds no CloudTrail record, in the document at byte 32"),
            (r#"{"detail-type":"ECR Image Scan","detail":{"x":1}}"#, "its \"detail\" is no CloudTrail record"),
            (r#"{"Records":[7]}"#, "a record is no JSON object"),
            (r#"{"Events":[{"EventId":"a"}]}"#, "an event has no \"CloudTrailEvent\" text"),
            (r#"{"CloudTrailEvent":"7"}"#, "a \"CloudTrailEvent\" is no JSON object"),
        ] {
            let (found, unreadable, first) = records(&format!("{good}\n{bad}\n{good}\n"));
            assert_eq!((found.len(), unreadable), (2, 1), "{bad}");
            assert!(first.unwrap().starts_with(problem), "{bad}");
        }
    }

    #[test]
    fn an_end_that_is_missing_is_told() {
        for (text, problem) in [
            ("", "it is empty"),
            (r#"{"eventID":"a"#, "the document ends early"),
            (r#"[{"eventID":"a"}"#, "the array ends early"),
        ] {
            assert!(records(text).2.unwrap().starts_with(problem), "{text}");
        }
    }

    #[test]
    fn compressed_text_is_read_as_plain_text_is() {
        let text = "{\"eventID\":\"a\"}\n".repeat(20_000);
        for bytes in
            [text.clone().into_bytes(), gzip(text.as_bytes()), zstd(text.as_bytes()), gzip(&gzip(text.as_bytes()))]
        {
            let mut plain = String::new();
            Plain::new(&bytes[..], Limits { max_ratio: 100_000, ..LIMITS }).read_to_string(&mut plain).unwrap();
            assert_eq!(plain.len(), text.len());
        }
        let compressed = gzip(text.as_bytes());
        let cut = &compressed[..compressed.len() / 2];
        let mut plain = Vec::new();
        let error = Plain::new(cut, Limits { max_ratio: 100_000, ..LIMITS }).read_to_end(&mut plain).unwrap_err();
        assert!(!plain.is_empty());
        assert_eq!(error.to_string(), "the gzip stream ends early");
        let bomb = gzip(&vec![b' '; 64 << 20]);
        let error = Plain::new(&bomb[..], LIMITS).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("200 to 1"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_pieces_make_no_difference(text in "[\\[\\]{}\",:\\\\\na-c\\x00-\\x7f]{0,80}", piece in 1_usize..9) {
            let whole = read(text.as_bytes(), usize::MAX);
            prop_assert_eq!(read(text.as_bytes(), piece), whole);
        }
    }
}
