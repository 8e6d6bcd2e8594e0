//! From the bytes of a log object to its records: a machine without input or output of its own.

mod codec;
pub mod json;
mod splitter;

use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use self::codec::{Codec, Flow};
use self::splitter::{Found, Splitter};
use crate::rules::{Detection, Matcher, RuleInfo};

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
    /// The budget of one step is spent (1 MiB decoded, or 32 detections): take the output, call again.
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
/// [`DecodeError::Damaged`].
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
const STEP_BYTES: u64 = 1024 * 1024;
const STEP_DETECTIONS: usize = 32;

/// Up to here any ratio is fine: a few repeated records compress well.
const RATIO_FREE_BYTES: u64 = 1024 * 1024;

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
        self.step_with(input, &mut |raw| matcher.matches(raw), out)
    }

    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    fn step_with(
        &mut self,
        input: &mut Input,
        matches: &mut dyn FnMut(&[u8]) -> Vec<Arc<RuleInfo>>,
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
            if self.work() - work_before >= STEP_BYTES {
                return Ok(Step::Yield);
            }
            if self.decompress(input) == Flow::NeedInput && self.filled == 0 {
                return Ok(Step::NeedInput);
            }
        }
    }

    /// Evaluates the records that end in the text. [`Step::NeedInput`] when it is used up.
    fn split(
        &mut self,
        matches: &mut dyn FnMut(&[u8]) -> Vec<Arc<RuleInfo>>,
        out: &mut Output,
    ) -> Result<Step, DecodeError> {
        let text = self.text.get(..self.filled).unwrap_or_default();
        while let Some(found) = self.splitter.next(text, &mut self.scanned)? {
            self.progress.records += 1;
            match found {
                Found::Record { index, raw } => {
                    let rules = matches(raw);
                    if !rules.is_empty() {
                        out.detections.push(Detection { index, raw: Bytes::copy_from_slice(raw), rules });
                        if out.detections.len() >= STEP_DETECTIONS {
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
