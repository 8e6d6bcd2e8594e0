//! Skims a record in blocks of 64 bytes: where it ends, and where its own members have their colons.
//!
//! The method is that of simdjson (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019, sections 3.1.1 and
//! 3.1.2): a bit for each byte says where quotes, backslashes and brackets are, escaped quotes are taken out, and a prefix
//! sum over what is left says what lies inside of strings.

use wide::u8x16;

/// The bytes of a block.
pub(super) const BLOCK: usize = 64;

/// More members than any real record has; one with more has no outline.
const MAX_COLONS: usize = 64;

/// What a splitter learns of a record while it looks for its end.
#[derive(Clone, Copy, Debug)]
pub struct Outline<'a> {
    /// The position in the record of each colon behind a key of its own: outside of strings, at depth one.
    pub colons: &'a [u32],
    /// Whether there is any backslash in it.
    pub backslash: bool,
}

/// An outline in the making.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    colons: Vec<u32>,
    backslash: bool,
    incomplete: bool,
    /// It would not be complete a second time.
    hopeless: bool,
}

/// Longer records are not skimmed a second time: they are rare, and take longer to read.
const MAX_AGAIN: usize = 256 * 1024;

impl Sketch {
    pub(super) fn clear(&mut self) {
        self.colons.clear();
        (self.backslash, self.incomplete, self.hopeless) = (false, false, false);
    }

    /// A part of the record was read in another way.
    pub(super) fn give_up(&mut self) {
        self.incomplete = true;
    }

    /// The outline of a record, which is skimmed once more if not all of it was: it lay at the end of a text. `None` where
    /// that cannot be done.
    pub(super) fn outline(&mut self, record: &[u8]) -> Option<Outline<'_>> {
        if self.incomplete && !self.hopeless && record.len() <= MAX_AGAIN {
            self.skim_whole(record);
        }
        (!self.incomplete).then_some(Outline { colons: &self.colons, backslash: self.backslash })
    }

    #[inline(never)]
    fn skim_whole(&mut self, record: &[u8]) {
        self.clear();
        let mut position = Position::default();
        let (blocks, rest) = record.as_chunks::<BLOCK>();
        let mut padded = [b' '; BLOCK];
        padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let blocks = blocks.iter().chain(std::iter::once(&padded).filter(|_| !rest.is_empty()));
        for (offset, block) in (0..).step_by(BLOCK).zip(blocks) {
            match skim(block, offset, &mut position, self) {
                Skimmed::Through => {}
                Skimmed::End(place) if offset + place + 1 == record.len() => return,
                Skimmed::End(_) | Skimmed::Odd => break,
            }
        }
        self.incomplete = true;
    }

    fn add(&mut self, offset: usize, mut colons: u64) {
        while colons != 0 {
            let at = offset + colons.trailing_zeros() as usize;
            match u32::try_from(at) {
                Ok(at) if self.colons.len() < MAX_COLONS => self.colons.push(at),
                _ => {
                    (self.incomplete, self.hopeless) = (true, true);
                    return;
                }
            }
            colons &= colons - 1;
        }
    }
}

/// Where a block begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Brackets that are open.
    pub(super) depth: u64,
    pub(super) in_string: bool,
    /// In a string, behind a backslash that escapes what comes next.
    pub(super) escaped: bool,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skimmed {
    /// The value goes on.
    Through,
    /// The bracket at this place closes the value.
    End(usize),
    /// There is a backslash outside of a string: the position is as before, and the block must be read byte by byte.
    Odd,
}

/// Reads a block that lies `offset` bytes behind the record's beginning.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "a fifth of the data path's time: called out of line it takes half as long again"
)]
pub(super) fn skim(bytes: &[u8; BLOCK], offset: usize, position: &mut Position, sketch: &mut Sketch) -> Skimmed {
    let Bits { quotes, backslashes, opening, closing, colons } = Bits::of(bytes);
    let (escaped, escapes_next) = escaped(backslashes, position.escaped);
    let before = if position.in_string { u64::MAX } else { 0 };
    let inside = prefix_xor(quotes & !escaped) ^ before;
    if backslashes & !inside != 0 {
        return Skimmed::Odd;
    }
    sketch.backslash |= backslashes != 0;
    position.in_string = inside >> (BLOCK - 1) == 1;
    position.escaped = escapes_next;

    let colons = colons & !inside;
    let (opening, closing) = (opening & !inside, closing & !inside);
    let mut brackets = opening | closing;
    if brackets == 0 {
        if position.depth == 1 {
            sketch.add(offset, colons);
        }
        return Skimmed::Through;
    }
    let closed = u64::from(closing.count_ones());
    if position.depth >= closed + 2 {
        // It neither ends here nor comes up to its own members.
        position.depth = position.depth + u64::from(opening.count_ones()) - closed;
        return Skimmed::Through;
    }
    let mut seen = 0;
    while brackets != 0 {
        let bit = brackets & brackets.wrapping_neg();
        if position.depth == 1 {
            sketch.add(offset, colons & (bit - 1) & !seen);
        }
        if opening & bit != 0 {
            position.depth += 1;
        } else {
            position.depth = position.depth.saturating_sub(1);
            if position.depth == 0 {
                return Skimmed::End(bit.trailing_zeros() as usize);
            }
        }
        seen = bit | (bit - 1);
        brackets &= brackets - 1;
    }
    if position.depth == 1 {
        sketch.add(offset, colons & !seen);
    }
    Skimmed::Through
}

/// A bit for each byte of a block, the first byte's the lowest.
struct Bits {
    quotes: u64,
    backslashes: u64,
    opening: u64,
    closing: u64,
    colons: u64,
}

impl Bits {
    #[inline]
    fn of(bytes: &[u8; BLOCK]) -> Self {
        let (mut quotes, mut backslashes, mut opening, mut closing, mut colons) = (0, 0, 0, 0, 0);
        let (parts, _) = bytes.as_chunks::<16>();
        for (place, part) in parts.iter().enumerate() {
            let part = u8x16::new(*part);
            // Brackets differ from braces in this bit alone.
            let folded = part | u8x16::splat(0x20);
            let bits = |found: u8x16| u64::from(found.to_bitmask()) << (16 * place);
            quotes |= bits(part.simd_eq(u8x16::splat(b'"')));
            backslashes |= bits(part.simd_eq(u8x16::splat(b'\\')));
            opening |= bits(folded.simd_eq(u8x16::splat(b'{')));
            closing |= bits(folded.simd_eq(u8x16::splat(b'}')));
            colons |= bits(part.simd_eq(u8x16::splat(b':')));
        }
        Self { quotes, backslashes, opening, closing, colons }
    }
}

/// Which bytes stand behind a backslash that escapes them, and whether the last one escapes what comes next.
#[inline]
fn escaped(backslashes: u64, first_is_escaped: bool) -> (u64, bool) {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let first = u64::from(first_is_escaped);
    if backslashes == 0 {
        return (first, false);
    }
    let backslashes = backslashes & !first;
    let follows = backslashes << 1 | first;
    // Carried through a run of backslashes, a bit comes out where the run ends, on another parity if the run is odd.
    let odd_starts = backslashes & !EVEN & !follows;
    let (carried, overflows) = odd_starts.overflowing_add(backslashes);
    ((EVEN ^ carried << 1) & follows, overflows)
}

/// Each bit becomes the parity of the bits up to it.
#[inline]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
