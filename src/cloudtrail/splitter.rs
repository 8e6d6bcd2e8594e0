//! Finds the records of `{"Records": [{...}, ...]}` in a text that arrives in pieces.
//!
//! The document's own structure is read strictly, but for zeros behind it, which are padding. The elements of `Records`, and whatever stands beside it, are only
//! delimited, by strings and depth: what is inside them is not judged, and costs neither stack nor memory by its depth.

use memchr::memchr2;

use super::outline::{BLOCK, Outline, Position, Sketch, Skimmed, skim};
use super::{DecodeError, RecordProblem, json};

const RECORDS: &str = "Records";

/// More bytes than any spelling of [`RECORDS`] takes (six each, if all are escaped).
const KEY_BYTES: usize = 6 * RECORDS.len() + 1;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// An element of `Records`.
#[derive(Clone, Debug)]
pub(super) enum Found<'a> {
    Record { index: u64, raw: &'a [u8], outline: Option<Outline<'a>> },
    Problem(RecordProblem),
}

#[derive(Debug)]
pub(super) struct Splitter {
    max_record_bytes: usize,
    state: State,
    /// The last key of the document's own, as far as it matters.
    key: Vec<u8>,
    has_records: bool,
    /// The beginning of a record that spans texts.
    held: Held,
    /// What is known of the record in work.
    sketch: Sketch,
    /// Elements of `Records` so far.
    count: u64,
    /// Bytes of all texts before this one.
    offset: u64,
}

#[derive(Debug)]
enum State {
    /// Before the document, with as many bytes of a byte order mark.
    Start(usize),
    KeyOrEnd,
    Key,
    InKey(Quoted),
    Colon,
    Value,
    AfterMember,
    ElementOrEnd,
    Element,
    AfterElement,
    /// Inside a value that is delimited and not looked into.
    Inside(Place, Lexer),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Beside `Records`.
    Member,
    /// In `Records`, and not an object.
    Other,
    Record,
}

#[derive(Debug)]
enum Held {
    /// Emptied when a record begins.
    Bytes(Vec<u8>),
    /// The record is too large already. Its bytes are gone; their buffer stays for the next.
    TooLarge(Vec<u8>),
}

/// What [`Splitter::advance`] stopped at.
enum Stop {
    /// A record that lies in the text from here to the position.
    Whole(usize),
    /// A record that is in `held`.
    Held,
    Problem(RecordProblem),
}

impl Splitter {
    pub(super) fn new(max_record_bytes: usize) -> Self {
        Self {
            max_record_bytes,
            state: State::Start(0),
            key: Vec::with_capacity(KEY_BYTES),
            has_records: false,
            held: Held::Bytes(Vec::new()),
            sketch: Sketch::default(),
            count: 0,
            offset: 0,
        }
    }

    /// The next element that ends in `text` behind `pos`, which moves there; `None` once the text is used up, and then
    /// another follows it.
    pub(super) fn next<'a>(&'a mut self, text: &'a [u8], pos: &mut usize) -> Result<Option<Found<'a>>, DecodeError> {
        let stop = self.advance(text, pos)?;
        let index = self.count.saturating_sub(1);
        let Self { sketch, held, .. } = self;
        Ok(match (stop, held) {
            (Some(Stop::Whole(start)), _) => {
                let raw = text.get(start..*pos).unwrap_or_default();
                Some(Found::Record { index, raw, outline: sketch.outline(raw) })
            }
            (Some(Stop::Held), Held::Bytes(raw) | Held::TooLarge(raw)) => {
                Some(Found::Record { index, raw, outline: sketch.outline(raw) })
            }
            (Some(Stop::Problem(problem)), _) => Some(Found::Problem(problem)),
            (None, _) => {
                self.offset += text.len() as u64;
                None
            }
        })
    }

    /// Whether the document may end here.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.state {
            State::End => Ok(()),
            State::Start(_) if self.offset == 0 => Err(DecodeError::Empty),
            _ => Err(DecodeError::JsonEndsEarly { offset: self.offset }),
        }
    }

    fn advance(&mut self, text: &[u8], pos: &mut usize) -> Result<Option<Stop>, DecodeError> {
        loop {
            match &mut self.state {
                State::Inside(place, lexer) => {
                    let (place, start) = (*place, *pos);
                    let ended = lexer.run(text, pos, self.held.len(), &mut self.sketch);
                    let part = text.get(start..*pos).unwrap_or_default();
                    let Some(end) = ended else {
                        if place == Place::Record {
                            self.held.push(part, self.max_record_bytes);
                        }
                        return Ok(None);
                    };
                    if end == LexerEnd::WrongBracket {
                        let what = if place == Place::Record { "a record" } else { "a value" };
                        return Err(self.bad(format!("{what} ends with the wrong bracket"), pos.saturating_sub(1)));
                    }
                    if place == Place::Member {
                        self.state = State::AfterMember;
                        continue;
                    }
                    self.state = State::AfterElement;
                    let index = self.count;
                    self.count += 1;
                    return Ok(Some(match place {
                        Place::Record => self.end_record(index, start, part),
                        _ => Stop::Problem(RecordProblem::NotAnObject { index }),
                    }));
                }
                State::InKey(quoted) => {
                    let start = *pos;
                    let ended = quoted.run(text, pos);
                    let inside = *pos - usize::from(ended);
                    let free = KEY_BYTES.saturating_sub(self.key.len());
                    self.key.extend(text.get(start..inside).unwrap_or_default().iter().take(free));
                    if !ended {
                        return Ok(None);
                    }
                    self.state = State::Colon;
                }
                _ => {
                    let padding = matches!(self.state, State::End);
                    let space = text.get(*pos..).unwrap_or_default().iter();
                    let space = space.take_while(|byte| match byte {
                        b' ' | b'\t' | b'\n' | b'\r' => true,
                        0 => padding,
                        _ => false,
                    });
                    *pos += space.count();
                    let Some(&byte) = text.get(*pos) else { return Ok(None) };
                    self.state = self.structure(byte, *pos)?;
                    // A lexer begins with its value's first byte.
                    *pos += usize::from(!matches!(self.state, State::Inside(..)));
                }
            }
        }
    }

    /// The state that a byte of the document's own structure leads to.
    fn structure(&mut self, byte: u8, pos: usize) -> Result<State, DecodeError> {
        let expected = match (&self.state, byte) {
            (&State::Start(mark), _)
                if BYTE_ORDER_MARK.get(mark) == Some(&byte) && self.offset + pos as u64 == mark as u64 =>
            {
                return Ok(State::Start(mark + 1));
            }
            (State::Start(0 | 3), b'{') => return Ok(State::KeyOrEnd),
            (State::Start(_), _) => {
                return Err(self.bad(format!("{} instead of an object with \"{RECORDS}\"", name(byte)), pos));
            }
            (State::KeyOrEnd | State::Key, b'"') => {
                self.key.clear();
                return Ok(State::InKey(Quoted::default()));
            }
            (State::AfterMember, b',') => return Ok(State::Key),
            (State::KeyOrEnd | State::AfterMember, b'}') if self.has_records => return Ok(State::End),
            (State::KeyOrEnd | State::AfterMember, b'}') => return Err(DecodeError::NoRecords),
            (State::Colon, b':') => return Ok(State::Value),
            (State::Value, _) if json::key_is(&self.key, RECORDS) => {
                if byte == b'[' {
                    self.has_records = true;
                    return Ok(State::ElementOrEnd);
                }
                return Err(self.bad(format!("\"{RECORDS}\" is {}, not an array", name(byte)), pos));
            }
            (State::ElementOrEnd | State::Element, b'{') => {
                self.held.clear();
                self.sketch.clear();
                return Ok(State::Inside(Place::Record, Lexer::container(byte)));
            }
            (State::AfterElement, b',') => return Ok(State::Element),
            (State::ElementOrEnd | State::AfterElement, b']') => return Ok(State::AfterMember),
            (State::Value | State::ElementOrEnd | State::Element, _) => {
                let place = if matches!(self.state, State::Value) { Place::Member } else { Place::Other };
                if let Some(lexer) = Lexer::of(byte) {
                    return Ok(State::Inside(place, lexer));
                }
                "a value"
            }
            (State::KeyOrEnd | State::Key, _) => "a key in quotes",
            (State::Colon, _) => "a colon",
            (State::AfterMember, _) => "a comma or the end of the object",
            (State::AfterElement, _) => "a comma or the end of the array behind a record",
            (State::End, _) => "the end of the document",
            // Both are taken care of before.
            (State::InKey(_) | State::Inside(..), _) => "more text",
        };
        Err(self.bad(format!("{} instead of {expected}", name(byte)), pos))
    }

    fn end_record(&mut self, index: u64, start: usize, part: &[u8]) -> Stop {
        let limit = self.max_record_bytes;
        match &self.held {
            Held::Bytes(bytes) if bytes.is_empty() && part.len() <= limit => return Stop::Whole(start),
            Held::Bytes(_) => self.held.push(part, limit),
            Held::TooLarge(_) => {}
        }
        match self.held {
            Held::Bytes(_) => Stop::Held,
            Held::TooLarge(_) => Stop::Problem(RecordProblem::TooLarge { index, limit }),
        }
    }

    fn bad(&self, detail: String, pos: usize) -> DecodeError {
        DecodeError::BadJson { detail, offset: self.offset + pos as u64 }
    }
}

impl Held {
    fn len(&self) -> usize {
        let (Self::Bytes(bytes) | Self::TooLarge(bytes)) = self;
        bytes.len()
    }

    fn clear(&mut self) {
        let (Self::Bytes(bytes) | Self::TooLarge(bytes)) = self;
        let mut bytes = std::mem::take(bytes);
        bytes.clear();
        *self = Self::Bytes(bytes);
    }

    fn push(&mut self, part: &[u8], limit: usize) {
        let Self::Bytes(bytes) = self else { return };
        let length = bytes.len() + part.len();
        if length > limit {
            *self = Self::TooLarge(std::mem::take(bytes));
            return;
        }
        if length > bytes.capacity() {
            // Doubled, as a vector grows by itself, but not beyond the limit.
            let capacity = length.max(bytes.capacity().saturating_mul(2)).min(limit);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(part);
    }
}

/// The inside of a string.
#[derive(Debug, Default)]
struct Quoted {
    /// The text before ended with a backslash.
    escaped: bool,
}

impl Quoted {
    /// Moves behind the closing quote, or to the end of the text and says no.
    fn run(&mut self, text: &[u8], pos: &mut usize) -> bool {
        if self.escaped && *pos < text.len() {
            self.escaped = false;
            *pos += 1;
        }
        while let Some(found) = memchr2(b'"', b'\\', text.get(*pos..).unwrap_or_default()) {
            let found = *pos + found;
            if text.get(found) == Some(&b'"') {
                *pos = found + 1;
                return true;
            }
            self.escaped = found + 1 == text.len();
            *pos = (found + 2).min(text.len());
        }
        *pos = text.len();
        false
    }
}

/// Finds the end of one value.
#[derive(Debug)]
enum Lexer {
    /// `None` before the opening quote.
    String(Option<Quoted>),
    /// A number, a literal, or what stands in their place.
    Token,
    Container(Container),
}

/// Up to the bracket that closes it; brackets of both kinds count alike on the way.
#[derive(Debug)]
struct Container {
    close: u8,
    depth: u64,
    string: Option<Quoted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LexerEnd {
    Complete,
    WrongBracket,
}

impl Lexer {
    fn of(first: u8) -> Option<Self> {
        match first {
            b'"' => Some(Self::String(None)),
            b'{' | b'[' => Some(Self::container(first)),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Some(Self::Token),
            _ => None,
        }
    }

    fn container(open: u8) -> Self {
        let close = if open == b'{' { b'}' } else { b']' };
        Self::Container(Container { close, depth: 0, string: None })
    }

    /// Moves behind the value's end, or to the end of the text and says `None`. `before` bytes of the value came in
    /// earlier texts.
    fn run(&mut self, text: &[u8], pos: &mut usize, before: usize, sketch: &mut Sketch) -> Option<LexerEnd> {
        match self {
            Self::String(quoted) => {
                let quoted = quoted.get_or_insert_with(|| {
                    *pos += 1;
                    Quoted::default()
                });
                quoted.run(text, pos).then_some(LexerEnd::Complete)
            }
            Self::Token => {
                let rest = text.get(*pos..).unwrap_or_default();
                let end = rest.iter().position(|&byte| json::ends_token(byte));
                *pos += end.unwrap_or(rest.len());
                end.map(|_| LexerEnd::Complete)
            }
            Self::Container(container) => container.run(text, pos, before, sketch),
        }
    }
}

impl Container {
    fn run(&mut self, text: &[u8], pos: &mut usize, before: usize, sketch: &mut Sketch) -> Option<LexerEnd> {
        let start = *pos;
        while let Some(block) = text.get(*pos..).and_then(<[u8]>::first_chunk::<BLOCK>) {
            let mut position = self.position();
            match skim(block, before + (*pos - start), &mut position, sketch) {
                Skimmed::Through => {
                    self.move_to(position);
                    *pos += BLOCK;
                }
                Skimmed::End(at) => {
                    *pos += at + 1;
                    return Some(self.end(block.get(at)));
                }
                Skimmed::Odd => {
                    sketch.give_up();
                    let ended = self.run_by_bytes(text.get(..*pos + BLOCK).unwrap_or(text), pos);
                    if ended.is_some() {
                        return ended;
                    }
                }
            }
        }
        if *pos < text.len() {
            sketch.give_up();
        }
        self.run_by_bytes(text, pos)
    }

    fn position(&self) -> Position {
        Position {
            depth: self.depth,
            in_string: self.string.is_some(),
            escaped: self.string.as_ref().is_some_and(|quoted| quoted.escaped),
        }
    }

    fn move_to(&mut self, position: Position) {
        self.depth = position.depth;
        self.string = position.in_string.then_some(Quoted { escaped: position.escaped });
    }

    fn end(&self, closed: Option<&u8>) -> LexerEnd {
        if closed == Some(&self.close) { LexerEnd::Complete } else { LexerEnd::WrongBracket }
    }

    fn run_by_bytes(&mut self, text: &[u8], pos: &mut usize) -> Option<LexerEnd> {
        loop {
            if let Some(quoted) = &mut self.string {
                if !quoted.run(text, pos) {
                    return None;
                }
                self.string = None;
            }
            let rest = text.get(*pos..).unwrap_or_default();
            let mut closed = None;
            let stop = rest.iter().position(|byte| {
                match byte {
                    b'"' => return true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        closed = (self.depth == 0).then_some(byte);
                        return self.depth == 0;
                    }
                    _ => {}
                }
                false
            });
            let Some(stop) = stop else {
                *pos = text.len();
                return None;
            };
            *pos += stop + 1;
            if closed.is_some() {
                return Some(self.end(closed));
            }
            self.string = Some(Quoted::default());
        }
    }
}

/// What a value is, or a byte that begins none.
fn name(first: u8) -> String {
    match first {
        b'{' => "an object".into(),
        b'[' => "an array".into(),
        b'"' => "a string".into(),
        b'-' | b'0'..=b'9' => "a number".into(),
        b't' | b'f' => "a boolean".into(),
        b'n' => "null".into(),
        b'!'..=b'~' => format!("\"{}\"", char::from(first)),
        _ => format!("the byte 0x{first:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a text that arrives in pieces of `length`, and says how many bytes were held at most.
    fn split(text: &[u8], length: usize, limit: usize) -> (u64, usize) {
        let mut splitter = Splitter::new(limit);
        let mut held = 0;
        for piece in text.chunks(length) {
            let mut pos = 0;
            while splitter.next(piece, &mut pos).unwrap().is_some() {}
            let (Held::Bytes(bytes) | Held::TooLarge(bytes)) = &splitter.held;
            held = held.max(bytes.capacity());
        }
        splitter.finish().unwrap();
        (splitter.count, held)
    }

    #[test]
    fn memory_grows_neither_with_the_number_of_records_nor_with_what_is_beside_them() {
        let text = format!(r#"{{"Records":[{}{{}}]}}"#, "{},".repeat(1_000_000));
        assert_eq!(split(text.as_bytes(), 1 << 16, 1000), (1_000_001, 2));
        let text =
            format!(r#"{{{} "Records":[],"{}":1}}"#, r#""a":{"Records":[{}]},"#.repeat(100_000), "k".repeat(1 << 20));
        assert_eq!(split(text.as_bytes(), 1 << 16, 1000), (0, 0));
    }

    #[test]
    fn no_more_of_a_record_is_held_than_the_limit() {
        let text = format!(r#"{{"Records":[{{"a":"{}"}},{{"b":"{}"}}]}}"#, "x".repeat(900), "y".repeat(100_000));
        let (count, held) = split(text.as_bytes(), 100, 1000);
        assert_eq!(count, 2);
        assert!((900..=1000).contains(&held), "{held}");
    }
}
