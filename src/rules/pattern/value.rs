//! Conditions on one value of a record, compiled.

use core::net::IpAddr;
use std::borrow::Cow;
use std::sync::Arc;

use regex::Regex;

use super::compiled::Compiled;
use crate::cloudtrail::json;

/// What an array of conditions may hold, besides `{"exists": false}`, which is no condition on a value.
#[derive(Clone, Debug)]
pub(in crate::rules) enum Test {
    Text(String),
    /// A text that is an address equals every spelling of it.
    Address(IpAddr),
    Number(Number),
    Bool(bool),
    Null,
    /// `{"exists": true}`
    Exists,
    Prefix(String),
    Suffix(String),
    PrefixIgnoreCase(Folded),
    SuffixIgnoreCase(Folded),
    EqualsIgnoreCase(Folded),
    Wildcard(Wildcard),
    Numeric(Range),
    Cidr(AddressRange),
    Regex(Regex),
    /// Equal to a value of another field of the record: its path, names joined by dots.
    Field(String),
    List(Arc<[Test]>),
    /// The text holds JSON that matches.
    Json(Arc<Compiled>),
    /// Holds unless one of these does.
    AnythingBut(Vec<Test>),
}

/// A leaf of a record: what conditions look at.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rules) enum Leaf<'a> {
    Text(Cow<'a, str>),
    Number(&'a str),
    Bool(bool),
    Null,
    /// Something is there that is no JSON.
    Odd,
}

impl<'a> Leaf<'a> {
    /// Reads what is neither an object nor an array.
    pub(in crate::rules) fn read(raw: &'a [u8]) -> Self {
        let raw = raw.trim_ascii();
        match raw.first() {
            Some(b'"') => json::string(raw).map_or(Self::Odd, Self::Text),
            Some(b't') if raw == b"true" => Self::Bool(true),
            Some(b'f') if raw == b"false" => Self::Bool(false),
            Some(b'n') if raw == b"null" => Self::Null,
            Some(b'-' | b'0'..=b'9') => match std::str::from_utf8(raw) {
                Ok(text) if Number::parse(text).is_some() => Self::Number(text),
                _ => Self::Odd,
            },
            _ => Self::Odd,
        }
    }
}

impl Test {
    /// Whether the condition holds for a value of `record`, the whole record's bytes.
    pub(in crate::rules) fn holds(&self, leaf: &Leaf<'_>, record: &[u8]) -> bool {
        match (self, leaf) {
            (Self::Exists, _) | (Self::Null, Leaf::Null) => true,
            (Self::AnythingBut(tests), _) => !tests.iter().any(|test| test.holds(leaf, record)),
            (Self::List(tests), _) => tests.iter().any(|test| test.holds(leaf, record)),
            (Self::Field(path), _) => super::walk::any_leaf(record, path, &mut |other| same(leaf, &Leaf::read(other))),
            (Self::Text(wanted), Leaf::Text(text)) => text == wanted,
            (Self::Address(wanted), Leaf::Text(text)) => address(text).is_some_and(|found| found == *wanted),
            (Self::Bool(wanted), Leaf::Bool(found)) => wanted == found,
            (Self::Number(wanted), Leaf::Number(text)) => Number::parse(text).is_some_and(|found| found.is(wanted)),
            (Self::Numeric(range), Leaf::Number(text)) => Number::parse(text).is_some_and(|found| range.holds(&found)),
            (Self::Prefix(part), Leaf::Text(text)) => text.starts_with(part.as_str()),
            (Self::Suffix(part), Leaf::Text(text)) => text.ends_with(part.as_str()),
            (Self::PrefixIgnoreCase(part), Leaf::Text(text)) => part.after_prefix(text).is_some(),
            (Self::SuffixIgnoreCase(part), Leaf::Text(text)) => part.before_suffix(text).is_some(),
            (Self::EqualsIgnoreCase(part), Leaf::Text(text)) => part.after_prefix(text) == Some(""),
            (Self::Wildcard(wildcard), Leaf::Text(text)) => wildcard.matches(text),
            (Self::Cidr(range), Leaf::Text(text)) => address(text).is_some_and(|found| range.holds(found)),
            (Self::Regex(regex), Leaf::Text(text)) => regex.is_match(text),
            (Self::Json(pattern), Leaf::Text(text)) => {
                document(text).is_some_and(|text| pattern.holds_for(text.as_bytes(), record))
            }
            _ => false,
        }
    }
}

impl Test {
    /// Whether every text meets it.
    pub(in crate::rules) fn is_open(&self) -> bool {
        match self {
            Self::Prefix(part) | Self::Suffix(part) => part.is_empty(),
            Self::PrefixIgnoreCase(part) | Self::SuffixIgnoreCase(part) => part.is_empty(),
            Self::Wildcard(wildcard) => wildcard.is_open(),
            _ => false,
        }
    }

    /// Whether it asks for the same text, or address, as `other`.
    pub(in crate::rules) fn same_text(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Text(text), Self::Address(wanted)) => address(text) == Some(*wanted),
            _ => false,
        }
    }

    /// Whether nothing but the value that it is held against decides.
    pub(in crate::rules) fn reads_only_its_value(&self) -> bool {
        match self {
            Self::Field(_) | Self::Json(_) => false,
            Self::List(tests) => tests.iter().all(Self::reads_only_its_value),
            Self::AnythingBut(tests) => tests.iter().all(Self::reads_only_its_value),
            _ => true,
        }
    }

    /// The other fields of the record that it looks at.
    pub(in crate::rules) fn field_paths(&self) -> Vec<&str> {
        match self {
            Self::Field(path) => vec![path],
            Self::AnythingBut(tests) => tests.iter().flat_map(Self::field_paths).collect(),
            _ => Vec::new(),
        }
    }
}

/// Whether two values are the same, as [`Test::Field`] compares them. Null and what cannot be read equal nothing.
fn same(left: &Leaf<'_>, right: &Leaf<'_>) -> bool {
    match (left, right) {
        (Leaf::Text(left), Leaf::Text(right)) => left == right,
        (Leaf::Bool(left), Leaf::Bool(right)) => left == right,
        (Leaf::Number(left), Leaf::Number(right)) => match (Number::parse(left), Number::parse(right)) {
            (Some(left), Some(right)) => left.is(&right),
            _ => false,
        },
        _ => false,
    }
}

/// The JSON document that a text holds, plain or URL-encoded; `None` if it holds none.
fn document(text: &str) -> Option<Cow<'_, str>> {
    let is_container = |text: &str| text.trim_ascii_start().starts_with(['{', '[']);
    if is_container(text) {
        return Some(Cow::Borrowed(text));
    }
    if !text.contains('%') {
        return None;
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    is_container(&decoded).then_some(decoded)
}

/// A JSON number: compared by value, whole numbers of up to 38 digits exactly.
#[derive(Clone, Copy, Debug)]
pub(in crate::rules) struct Number {
    whole: Option<i128>,
    float: f64,
}

impl Number {
    pub(in crate::rules) fn parse(text: &str) -> Option<Self> {
        let float: f64 = text.parse().ok()?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // As strict as JSON: what Rust reads besides ("inf", "+1", ".5") is no number of a record.
        let first = digits.bytes().next()?;
        if !first.is_ascii_digit() || !float.is_finite() {
            return None;
        }
        Some(Self { whole: if plain { text.parse().ok() } else { None }, float })
    }

    #[allow(clippy::float_cmp, reason = "equal by value is what is asked for")]
    fn is(&self, other: &Self) -> bool {
        match (self.whole, other.whole) {
            (Some(left), Some(right)) => left == right,
            _ => self.float == other.float,
        }
    }

    pub(in crate::rules) fn order(&self, other: &Self) -> std::cmp::Ordering {
        match (self.whole, other.whole) {
            (Some(left), Some(right)) => left.cmp(&right),
            // Neither is NaN, and 0 equals -0.
            _ => self.float.partial_cmp(&other.float).unwrap_or(std::cmp::Ordering::Equal),
        }
    }
}

/// `{"numeric": [">", 0, "<=", 5]}`: each bound with whether it belongs to the range.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::rules) struct Range {
    pub(in crate::rules) low: Option<(Number, bool)>,
    pub(in crate::rules) high: Option<(Number, bool)>,
}

impl Range {
    fn holds(&self, found: &Number) -> bool {
        let above = self.low.is_none_or(|(low, within)| match found.order(&low) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => within,
            std::cmp::Ordering::Less => false,
        });
        let below = self.high.is_none_or(|(high, within)| match found.order(&high) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => within,
            std::cmp::Ordering::Greater => false,
        });
        above && below
    }

    /// Whether some number is within.
    pub(in crate::rules) fn can_hold(&self) -> bool {
        let (Some((low, low_within)), Some((high, high_within))) = (self.low, self.high) else {
            return true;
        };
        match low.order(&high) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => low_within && high_within,
            std::cmp::Ordering::Greater => false,
        }
    }
}

/// Addresses from `first`, as it was written, to the last one of its network: EventBridge does not clear host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rules) struct AddressRange {
    network: IpAddr,
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// `10.0.0.0/8`, or with an IPv6 address; `None` if it is no such thing.
    pub(in crate::rules) fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let first = address(base)?;
        if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let bits: u32 = bits.parse().ok()?;
        let (network, last) = match first {
            IpAddr::V4(v4) if bits <= 32 => {
                let host = u32::MAX.checked_shr(bits).unwrap_or(0);
                (IpAddr::from((v4.to_bits() & !host).to_be_bytes()), IpAddr::from((v4.to_bits() | host).to_be_bytes()))
            }
            IpAddr::V6(v6) if bits <= 128 => {
                let host = u128::MAX.checked_shr(bits).unwrap_or(0);
                (IpAddr::from((v6.to_bits() & !host).to_be_bytes()), IpAddr::from((v6.to_bits() | host).to_be_bytes()))
            }
            _ => return None,
        };
        Some(Self { network, first, last })
    }

    fn holds(&self, found: IpAddr) -> bool {
        // An IPv4 address is less than every IPv6 address, and so never between two of these.
        self.first <= found && found <= self.last
    }

    /// The first address of the network, where the range begins at a later one.
    pub(in crate::rules) fn network(&self) -> Option<IpAddr> {
        (self.network != self.first).then_some(self.network)
    }
}

/// An address as EventBridge reads one: IPv4 in four decimal parts, or IPv6.
pub(in crate::rules) fn address(text: &str) -> Option<IpAddr> {
    // The longest spelling of an IPv6 address.
    if text.len() > 45 { None } else { text.parse().ok() }
}

/// A text whose letters match in either case: for each character its lower and its upper spelling, as Unicode maps
/// them without regard to a language.
#[derive(Clone, Debug)]
pub(in crate::rules) struct Folded {
    text: String,
    /// Only where not all of it is ASCII.
    spellings: Vec<(String, String)>,
}

impl Folded {
    pub(in crate::rules) fn new(text: &str) -> Self {
        let spellings = |c: char| (c.to_lowercase().collect(), c.to_uppercase().collect());
        Self {
            text: text.to_owned(),
            spellings: if text.is_ascii() { Vec::new() } else { text.chars().map(spellings).collect() },
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn after_prefix<'t>(&self, text: &'t str) -> Option<&'t str> {
        if self.text.is_ascii() {
            let (start, rest) = text.split_at_checked(self.text.len())?;
            return start.eq_ignore_ascii_case(&self.text).then_some(rest);
        }
        self.spellings.iter().try_fold(text, |rest, (lower, upper)| {
            rest.strip_prefix(lower.as_str()).or_else(|| rest.strip_prefix(upper.as_str()))
        })
    }

    fn before_suffix<'t>(&self, text: &'t str) -> Option<&'t str> {
        if self.text.is_ascii() {
            let (rest, end) = text.split_at_checked(text.len().checked_sub(self.text.len())?)?;
            return end.eq_ignore_ascii_case(&self.text).then_some(rest);
        }
        self.spellings.iter().rev().try_fold(text, |rest, (lower, upper)| {
            rest.strip_suffix(lower.as_str()).or_else(|| rest.strip_suffix(upper.as_str()))
        })
    }
}

/// EventBridge's wildcard: `*` is any run of characters, also none; `\*` and `\\` are themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rules) struct Wildcard {
    /// What stands before, between and after the stars; without a star the whole.
    parts: Vec<String>,
}

impl Wildcard {
    /// # Errors
    ///
    /// Why it is no wildcard.
    pub(in crate::rules) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars();
        let mut after_star = false;
        while let Some(character) = characters.next() {
            let literal = match character {
                '*' if after_star => return Err("two stars in a row mean what one means; EventBridge refuses them"),
                '*' => None,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => Some(escaped),
                    _ => return Err("a backslash stands only before * or another backslash"),
                },
                other => Some(other),
            };
            after_star = literal.is_none();
            match (literal, parts.last_mut()) {
                (Some(literal), Some(part)) => part.push(literal),
                _ => parts.push(String::new()),
            }
        }
        Ok(Self { parts })
    }

    /// Whether every text matches.
    pub(in crate::rules) fn is_open(&self) -> bool {
        self.parts.len() > 1 && self.parts.iter().all(String::is_empty)
    }

    /// Each part is taken at its first occurrence, which is never worse than a later one: linear.
    pub(in crate::rules) fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.parts.split_first() else {
            return false;
        };
        let Some((tail, middle)) = rest.split_last() else {
            return text == head;
        };
        let Some(mut text) = text.strip_prefix(head.as_str()) else {
            return false;
        };
        for part in middle {
            match text.split_once(part.as_str()) {
                Some((_, after)) => text = after,
                None => return false,
            }
        }
        text.ends_with(tail.as_str())
    }
}
