//! Decompression by magic bytes: gzip (RFC 1952), zstd (RFC 8878), or neither.
//!
//! Several gzip members or zstd frames in a row are one text; zeros between and after them are padding. Anything else
//! behind a complete member is an error, although gzip(1) only warns of it: it may have been a member, with records.
//! A compressed text that was compressed once more, as some uploaders do, is opened twice, and never a third time.

use std::io;

use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{DecodeV2, GzipDecoder, ZstdDecoder};

use super::DecodeError;

/// The largest zstd window, as a power of two: 8 MiB, what RFC 8878 asks of every decoder and what `zstd -19` needs.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How much of a gzip stream the inflater is given at once. When it fails, it takes with it what it made of its last
/// input: this much compressed text is lost before the damage, no more.
const GZIP_PIECE: usize = 512;

/// Between two layers.
const MIDDLE_BYTES: usize = 16 * 1024;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The first byte of a skippable frame's magic is one of sixteen.
const ZSTD_SKIPPABLE: std::ops::RangeInclusive<u8> = 0x50..=0x5f;
const ZSTD_SKIPPABLE_REST: [u8; 3] = [0x2a, 0x4d, 0x18];

/// How to go on after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Run again: there is input or output left.
    More,
    /// All input is used up and all output is out.
    NeedInput,
    /// Both are so, and the stream is complete.
    End,
}

/// Opens the layers of an object.
#[derive(Debug)]
pub(super) struct Codec {
    outer: Layer,
    /// Looks at what comes out of the outer layer, until that is known to be plain text.
    inner: Option<Inner>,
    middle_bytes: u64,
}

#[derive(Debug)]
struct Inner {
    layer: Layer,
    middle: Box<[u8]>,
    start: usize,
    end: usize,
    /// What the outer layer said last.
    outer: Result<Flow, DecodeError>,
}

impl Codec {
    pub(super) fn new() -> Self {
        let inner = Inner {
            layer: Layer::new(),
            middle: vec![0; MIDDLE_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            outer: Ok(Flow::NeedInput),
        };
        Self { outer: Layer::new(), inner: Some(inner), middle_bytes: 0 }
    }

    /// How many bytes came out of the outer layer while there were, or could be, two.
    pub(super) fn middle_bytes(&self) -> u64 {
        self.middle_bytes
    }

    /// Decompresses into `text` and removes what it used from the front of `input`. Says how many bytes it wrote, which
    /// are good even when an error follows, and how to go on. The work is bounded by the lengths of both.
    pub(super) fn run(&mut self, input: &mut &[u8], last: bool, text: &mut [u8]) -> (usize, Result<Flow, DecodeError>) {
        let mut text = WriteBuffer::new_initialized(text);
        let flow = self.run_layers(input, last, &mut text);
        (text.written_len(), flow)
    }

    fn run_layers(&mut self, input: &mut &[u8], last: bool, text: &mut WriteBuffer<'_>) -> Result<Flow, DecodeError> {
        let Some(inner) = &mut self.inner else {
            return self.outer.run(input, last, text);
        };
        if inner.start == inner.end && matches!(inner.outer, Ok(Flow::More | Flow::NeedInput)) {
            let mut middle = WriteBuffer::new_initialized(&mut inner.middle);
            inner.outer = self.outer.run(input, last, &mut middle);
            (inner.start, inner.end) = (0, middle.written_len());
            self.middle_bytes += inner.end as u64;
        }
        let mut middle = inner.middle.get(inner.start..inner.end).unwrap_or_default();
        let flow = inner.layer.run(&mut middle, inner.outer == Ok(Flow::End), text)?;
        inner.start = inner.end - middle.len();
        if flow != Flow::NeedInput {
            return Ok(flow);
        }
        let flow = inner.outer.clone();
        if inner.layer.is_plain() {
            self.inner = None;
        }
        flow
    }
}

/// One layer: undecided, plain, or compressed.
#[derive(Debug)]
struct Layer {
    kind: Kind,
    /// The first bytes, until they are decoded.
    head: Head,
}

#[derive(Debug)]
enum Kind {
    Unknown,
    Plain,
    /// Inside a member or frame.
    Member(Engine),
    /// Behind a member's end.
    Between(Engine),
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: [u8; 4],
    start: usize,
    end: usize,
}

impl Head {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl Layer {
    fn new() -> Self {
        Self { kind: Kind::Unknown, head: Head::default() }
    }

    /// Whether input is the same as output from here on.
    fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain) && self.head.unread().is_empty()
    }

    fn run(&mut self, input: &mut &[u8], last: bool, text: &mut WriteBuffer<'_>) -> Result<Flow, DecodeError> {
        while matches!(self.kind, Kind::Unknown) {
            match (recognise(self.head.unread()), input.split_first()) {
                (Recognised::As(kind), _) => self.kind = kind,
                (Recognised::StartOf(_), Some((&byte, rest))) => {
                    if let Some(free) = self.head.bytes.get_mut(self.head.end) {
                        *free = byte;
                        self.head.end += 1;
                    }
                    *input = rest;
                }
                (Recognised::StartOf(_), None) if !last => return Ok(Flow::NeedInput),
                (Recognised::StartOf(Some(codec)), None) => return Err(DecodeError::EndsEarly { codec }),
                (Recognised::StartOf(None), None) => return Ok(Flow::End),
            }
        }
        let head = self.head;
        let mut unread = head.unread();
        if !unread.is_empty() {
            let flow = self.kind.run(&mut unread, false, text)?;
            self.head.start = self.head.end - unread.len();
            if flow != Flow::NeedInput {
                return Ok(flow);
            }
        }
        self.kind.run(input, last, text)
    }
}

enum Recognised {
    As(Kind),
    /// The bytes are the start of this codec's magic, or of several.
    StartOf(Option<&'static str>),
}

fn recognise(head: &[u8]) -> Recognised {
    match head {
        [] => Recognised::StartOf(None),
        head if head == GZIP_MAGIC => Recognised::As(Kind::Member(Engine::gzip())),
        head if GZIP_MAGIC.starts_with(head) => Recognised::StartOf(Some(Engine::GZIP)),
        head if head == ZSTD_MAGIC => Recognised::As(Kind::Member(Engine::zstd())),
        head if ZSTD_MAGIC.starts_with(head) => Recognised::StartOf(Some(Engine::ZSTD)),
        [first, rest @ ..] if ZSTD_SKIPPABLE.contains(first) && ZSTD_SKIPPABLE_REST.starts_with(rest) => {
            if rest == ZSTD_SKIPPABLE_REST {
                Recognised::As(Kind::Member(Engine::zstd()))
            } else {
                Recognised::StartOf(Some(Engine::ZSTD))
            }
        }
        _ => Recognised::As(Kind::Plain),
    }
}

impl Kind {
    fn run(&mut self, input: &mut &[u8], last: bool, text: &mut WriteBuffer<'_>) -> Result<Flow, DecodeError> {
        let at_end = if last { Flow::End } else { Flow::NeedInput };
        loop {
            *self = match std::mem::replace(self, Self::Plain) {
                Self::Unknown | Self::Plain => {
                    let mut bytes = PartialBuffer::new(*input);
                    text.copy_unwritten_from(&mut bytes);
                    *input = input.get(bytes.written_len()..).unwrap_or_default();
                    return Ok(if input.is_empty() { at_end } else { Flow::More });
                }
                Self::Between(mut engine) => {
                    let zeros = input.iter().position(|&byte| byte != 0).unwrap_or(input.len());
                    *input = input.get(zeros..).unwrap_or_default();
                    if input.is_empty() {
                        *self = Self::Between(engine);
                        return Ok(at_end);
                    }
                    engine.reinit()?;
                    Self::Member(engine)
                }
                Self::Member(mut engine) => match engine.run(input, text) {
                    Ok(Flow::End) => Self::Between(engine),
                    flow => {
                        let codec = engine.name();
                        *self = Self::Member(engine);
                        return match flow {
                            Ok(Flow::NeedInput) if last => Err(DecodeError::EndsEarly { codec }),
                            flow => flow,
                        };
                    }
                },
            };
        }
    }
}

/// A codec of `compression-codecs`, and whether its last run filled the output and so may have more of it.
#[derive(Debug)]
struct Engine {
    decoder: Decoder,
    pending: bool,
}

#[derive(Debug)]
enum Decoder {
    Gzip(Box<GzipDecoder>),
    Zstd(ZstdDecoder),
}

impl Engine {
    const GZIP: &'static str = "gzip";
    const ZSTD: &'static str = "zstd";

    fn gzip() -> Self {
        Self { decoder: Decoder::Gzip(Box::default()), pending: false }
    }

    fn zstd() -> Self {
        let decoder = ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW_LOG)]);
        Self { decoder: Decoder::Zstd(decoder), pending: false }
    }

    fn name(&self) -> &'static str {
        match self.decoder {
            Decoder::Gzip(_) => Self::GZIP,
            Decoder::Zstd(_) => Self::ZSTD,
        }
    }

    fn damaged(&self, error: &io::Error) -> DecodeError {
        DecodeError::Damaged { codec: self.name(), detail: error.to_string() }
    }

    fn reinit(&mut self) -> Result<(), DecodeError> {
        let done = match &mut self.decoder {
            Decoder::Gzip(gzip) => gzip.reinit(),
            Decoder::Zstd(zstd) => zstd.reinit(),
        };
        self.pending = false;
        done.map_err(|error| self.damaged(&error))
    }

    /// Runs within one member, whose end is [`Flow::End`].
    fn run(&mut self, input: &mut &[u8], text: &mut WriteBuffer<'_>) -> Result<Flow, DecodeError> {
        loop {
            if text.has_no_spare_space() {
                return Ok(Flow::More);
            }
            if input.is_empty() && !self.pending {
                return Ok(Flow::NeedInput);
            }
            let length = match self.decoder {
                Decoder::Gzip(_) => input.len().min(GZIP_PIECE),
                Decoder::Zstd(_) => input.len(),
            };
            let mut piece = PartialBuffer::new(input.get(..length).unwrap_or_default());
            let done = match &mut self.decoder {
                // Without input the inflater calls it an error that nothing was pending; its flush does not.
                Decoder::Gzip(gzip) if input.is_empty() => gzip.flush(text).map(|_| false),
                Decoder::Gzip(gzip) => gzip.decode(&mut piece, text),
                Decoder::Zstd(zstd) => zstd.decode(&mut piece, text),
            };
            *input = input.get(piece.written_len()..).unwrap_or_default();
            self.pending = text.has_no_spare_space();
            if done.map_err(|error| self.damaged(&error))? {
                return Ok(Flow::End);
            }
        }
    }
}
