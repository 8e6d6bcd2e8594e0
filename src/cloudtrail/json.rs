//! A lenient, lazy reader of one JSON value's raw bytes (RFC 8259).
//!
//! Every record that the splitter could delimit must be readable, whatever is odd about its inside: nothing here fails,
//! recurses or copies without need, and every call is linear in the bytes it is given. Strings end at the next
//! unescaped quote, containers where the brackets balance (of either kind), and all bytes up to the space count as
//! white space.

use std::borrow::Cow;
use std::fmt::Write as _;

use memchr::{memchr, memchr2};
use serde::de::IgnoredAny;

/// How deep [`to_valid`] and [`canonical`] let a value nest: below the limits of common strict readers (128).
const MAX_DEPTH: usize = 100;

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Between the quotes, still escaped: compare with [`key_is`], read with [`decode`].
    pub key: &'a [u8],
    /// The value's own bytes, without white space around them; never empty.
    pub value: &'a [u8],
}

/// The members of an object in their order, duplicates included; none if `raw` is no object.
///
/// What is not a member is passed over up to the next comma at the same depth.
#[must_use]
pub fn members(raw: &[u8]) -> Members<'_> {
    Members(Cursor::inside(raw, b'{'))
}

/// The values of an array in their order; none if `raw` is no array. Lenient as [`members`].
#[must_use]
pub fn elements(raw: &[u8]) -> Elements<'_> {
    Elements(Cursor::inside(raw, b'['))
}

/// The value of the last member called `name`.
#[must_use]
pub fn get<'a>(raw: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(raw).filter(|member| key_is(member.key, name)).last().map(|member| member.value)
}

/// [`get`], from object to object.
#[must_use]
pub fn get_path<'a>(raw: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    path.iter().try_fold(raw, |value, name| get(value, name))
}

/// Whether a [`Member::key`] reads as `name`. A key without escapes is compared byte by byte, unless the name could stand
/// for bad UTF-8.
#[must_use]
pub fn key_is(key: &[u8], name: &str) -> bool {
    if memchr(b'\\', key).is_none() {
        return key == name.as_bytes() || !name.is_ascii() && decode(key) == name;
    }
    // No character takes more than six escaped bytes for each of its own: no long key is decoded in vain.
    key.len() <= name.len().saturating_mul(6) && decode(key) == name
}

/// A JSON string decoded as by [`decode`]; `None` if the value is not a string.
#[must_use]
pub fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    string_body(trim(value)).map(decode)
}

/// A string decoded, or the text of a number, `true` or `false`; `None` for null, objects, arrays and garbage.
#[must_use]
pub fn scalar_text(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = trim(value);
    match value.first()? {
        b'"' => string(value),
        b't' | b'f' if value == b"true" || value == b"false" => Some(String::from_utf8_lossy(value)),
        b'-' | b'0'..=b'9'
            if value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) =>
        {
            Some(String::from_utf8_lossy(value))
        }
        _ => None,
    }
}

#[must_use]
pub fn is_null(value: &[u8]) -> bool {
    trim(value) == b"null"
}

#[must_use]
pub fn is_object(value: &[u8]) -> bool {
    trim(value).first() == Some(&b'{')
}

#[must_use]
pub fn is_array(value: &[u8]) -> bool {
    trim(value).first() == Some(&b'[')
}

/// The text of a string's inside, escapes resolved. Bad UTF-8, lone surrogates and bad escapes read as U+FFFD.
#[must_use]
pub fn decode(body: &[u8]) -> Cow<'_, str> {
    let Some(first) = memchr(b'\\', body) else {
        return String::from_utf8_lossy(body);
    };
    let mut text = String::with_capacity(body.len());
    let (mut plain, mut rest) = body.split_at(first);
    loop {
        text.push_str(&String::from_utf8_lossy(plain));
        let Some(after) = rest.strip_prefix(b"\\") else { break };
        let (character, length) = unescape(after);
        text.push(character);
        let tail = after.get(length..).unwrap_or_default();
        (plain, rest) = tail.split_at(memchr(b'\\', tail).unwrap_or(tail.len()));
    }
    Cow::Owned(text)
}

/// A record as valid JSON text for strict readers elsewhere: strings re-encoded from what [`decode`] reads, the last of
/// duplicate keys, no white space; numbers and the order of keys stay as they are. A number that no `f64` holds (1e400),
/// on which many readers give up, becomes a string. What is not JSON even so, or nests deeper than 100 levels, becomes a
/// JSON string that holds the text.
#[must_use]
pub fn to_valid(raw: &[u8]) -> String {
    rewrite(raw, Form::Valid).unwrap_or_else(|| quote(&String::from_utf8_lossy(raw)))
}

/// [`to_valid`], the same for a record re-serialised by another library: keys sorted, and numbers spelled by value.
/// Numbers between `i64::MIN` and `u64::MAX` that are integral are written as integers, others as the nearest `f64` in
/// its shortest scientific form, and what an `f64` cannot hold (1e400) stays as it is.
#[must_use]
pub fn canonical(raw: &[u8]) -> String {
    rewrite(raw, Form::Canonical).unwrap_or_else(|| quote(&String::from_utf8_lossy(raw)))
}

/// Iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a>(Cursor<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = &mut self.0;
        loop {
            cursor.next_item()?;
            let member = cursor.key().and_then(|key| Some(Member { key, value: cursor.value()? }));
            cursor.resynchronise();
            if member.is_some() {
                return member;
            }
        }
    }
}

/// Iterator of [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a>(Cursor<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = &mut self.0;
        loop {
            cursor.next_item()?;
            let value = cursor.value();
            cursor.resynchronise();
            if value.is_some() {
                return value;
            }
        }
    }
}

/// A position in a value's bytes.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    raw: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// Behind the opening bracket, or at the end if `raw` does not start with it.
    fn inside(raw: &'a [u8], open: u8) -> Self {
        let mut cursor = Self { raw, pos: 0 };
        cursor.skip_space();
        cursor.pos = if cursor.peek() == Some(open) { cursor.pos + 1 } else { raw.len() };
        cursor
    }

    fn peek(&self) -> Option<u8> {
        self.raw.get(self.pos).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.pos += 1;
        }
    }

    /// Whether `byte` came next, behind white space; if so it is passed.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// To the next item of this container; `None` at its end, where the cursor then stays.
    fn next_item(&mut self) -> Option<()> {
        while self.take(b',') {}
        self.peek().filter(|byte| !matches!(byte, b'}' | b']')).map(|_| ())
    }

    /// A key and the colon behind it.
    fn key(&mut self) -> Option<&'a [u8]> {
        let key = self.quoted()?;
        self.take(b':').then_some(key)
    }

    /// The inside of the string that comes next and has an end.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return None;
        }
        let end = closing_quote(self.raw, self.pos + 1)?;
        let body = self.raw.get(self.pos + 1..end);
        self.pos = end + 1;
        body
    }

    /// The value that comes next, cut short if `raw` is.
    fn value(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        let start = self.pos;
        self.pos = match self.peek()? {
            b'"' => after_string(self.raw, start),
            b'{' | b'[' => after_container(self.raw, start),
            _ => after_token(self.raw, start),
        };
        self.raw.get(start..self.pos).filter(|value| !value.is_empty())
    }

    /// To the next comma or closing bracket at this depth.
    fn resynchronise(&mut self) {
        while let Some(byte) = self.peek() {
            self.pos = match byte {
                b',' | b'}' | b']' => return,
                b'"' => after_string(self.raw, self.pos),
                b'{' | b'[' => after_container(self.raw, self.pos),
                _ => self.pos + 1,
            };
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte <= b' '
}

/// Whether a number or literal cannot go on with this byte.
pub(super) fn ends_token(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']')
}

fn trim(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|&byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// The position of the quote that ends the string whose inside starts at `pos`.
fn closing_quote(raw: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        let found = pos + memchr2(b'"', b'\\', raw.get(pos..)?)?;
        if raw.get(found) == Some(&b'"') {
            return Some(found);
        }
        pos = found + 2;
    }
}

fn after_string(raw: &[u8], open: usize) -> usize {
    closing_quote(raw, open + 1).map_or(raw.len(), |end| end + 1)
}

fn after_container(raw: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    let mut pos = open;
    while let Some(byte) = raw.get(pos) {
        match byte {
            b'"' => {
                pos = after_string(raw, pos);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return pos + 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        pos += 1;
    }
    raw.len()
}

/// Behind a number, a literal, or garbage in their place.
fn after_token(raw: &[u8], start: usize) -> usize {
    let rest = raw.get(start..).unwrap_or_default();
    let length = rest.iter().position(|&byte| ends_token(byte));
    start + length.unwrap_or(rest.len())
}

/// The inside of a string value, up to its end or as far as it goes.
fn string_body(value: &[u8]) -> Option<&[u8]> {
    let body = value.strip_prefix(b"\"")?;
    body.get(..closing_quote(body, 0).unwrap_or(body.len()))
}

/// What stands behind a backslash, and how many bytes it takes.
fn unescape(after: &[u8]) -> (char, usize) {
    let simple = match after.first() {
        Some(b'u') => {
            let (character, digits) = unescape_unicode(after.get(1..).unwrap_or_default());
            return (character, 1 + digits);
        }
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        // A bad escape takes the character with it, unless that has more bytes of its own.
        Some(byte) if byte.is_ascii() => char::REPLACEMENT_CHARACTER,
        _ => return (char::REPLACEMENT_CHARACTER, 0),
    };
    (simple, 1)
}

/// The four digits behind `\u`, with the low surrogate behind a high one.
fn unescape_unicode(digits: &[u8]) -> (char, usize) {
    let Some(unit) = hex4(digits) else {
        return (char::REPLACEMENT_CHARACTER, 0);
    };
    if (0xD800..0xDC00).contains(&unit) {
        let low = digits.get(4..).and_then(|rest| rest.strip_prefix(b"\\u")).and_then(hex4);
        if let Some(low) = low.filter(|low| (0xDC00..0xE000).contains(low)) {
            let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
            return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
        }
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.get(..4)?.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

/// What [`rewrite`] is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Valid,
    Canonical,
}

/// A container that is being written.
struct Level {
    close: u8,
    /// Where it starts in the output.
    start: usize,
    /// The members of an object, empty for an array.
    members: Vec<Written>,
}

/// Where a member stands in the output.
struct Written {
    start: usize,
    key_end: usize,
    end: usize,
}

/// `None` if `raw` is not JSON, apart from what its strings and white space hold, or nests too deep.
fn rewrite(raw: &[u8], form: Form) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut levels: Vec<Level> = Vec::new();
    let mut cursor = Cursor { raw, pos: 0 };
    loop {
        cursor.skip_space();
        match cursor.peek()? {
            b'"' => write_string(&mut out, &decode(cursor.quoted()?)),
            open @ (b'{' | b'[') => {
                if levels.len() == MAX_DEPTH {
                    return None;
                }
                cursor.pos += 1;
                let close = open + 2; // so in ASCII, for both
                let mut level = Level { close, start: out.len(), members: Vec::new() };
                out.push(char::from(open));
                if cursor.take(close) {
                    out.push(char::from(close));
                } else {
                    level.begin_item(&mut cursor, &mut out)?;
                    levels.push(level);
                    continue;
                }
            }
            _ => write_scalar(&mut out, cursor.value()?, form)?,
        }
        // A value is complete, and with it perhaps the containers around it.
        loop {
            let Some(mut level) = levels.pop() else {
                cursor.skip_space();
                return cursor.peek().is_none().then_some(out);
            };
            if let Some(member) = level.members.last_mut() {
                member.end = out.len();
            }
            if cursor.take(b',') {
                out.push(',');
                level.begin_item(&mut cursor, &mut out)?;
                levels.push(level);
                break;
            }
            if !cursor.take(level.close) {
                return None;
            }
            out.push(char::from(level.close));
            if level.close == b'}' {
                arrange(&mut out, level, form);
            }
        }
    }
}

impl Level {
    /// Writes the key of an object's next member; nothing to do in an array.
    fn begin_item(&mut self, cursor: &mut Cursor<'_>, out: &mut String) -> Option<()> {
        if self.close == b'}' {
            let start = out.len();
            write_string(out, &decode(cursor.key()?));
            self.members.push(Written { start, key_end: out.len(), end: out.len() });
            out.push(':');
        }
        Some(())
    }
}

/// Drops all but the last of each key's members from the object that ends `out`, and sorts what is left if asked to.
fn arrange(out: &mut String, level: Level, form: Form) {
    let Level { start, mut members, .. } = level;
    let count = members.len();
    let key = |member: &Written| out.get(member.start..member.key_end).unwrap_or_default();
    members.sort_by(|a, b| key(a).cmp(key(b)).then_with(|| b.start.cmp(&a.start)));
    members.dedup_by(|later, first| key(later) == key(first));
    if form == Form::Valid {
        members.sort_by_key(|member| member.start);
    }
    if members.len() == count && members.is_sorted_by_key(|member| member.start) {
        return;
    }
    let mut object = String::with_capacity(out.len() - start);
    for member in &members {
        object.push(if object.is_empty() { '{' } else { ',' });
        object.push_str(out.get(member.start..member.end).unwrap_or_default());
    }
    object.push('}');
    out.truncate(start);
    out.push_str(&object);
}

fn write_scalar(out: &mut String, token: &[u8], form: Form) -> Option<()> {
    let token = std::str::from_utf8(token).ok()?;
    serde_json::from_str::<IgnoredAny>(token).ok()?;
    let number = token.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    match form {
        Form::Canonical if number => out.push_str(&canonical_number(token)),
        Form::Valid if number && is_beyond_f64(token) => write_string(out, token),
        _ => out.push_str(token),
    }
    Some(())
}

fn is_beyond_f64(number: &str) -> bool {
    // The largest has 309 digits.
    (number.len() >= 309 || number.contains(['e', 'E'])) && number.parse().is_ok_and(f64::is_infinite)
}

fn canonical_number(token: &str) -> Cow<'_, str> {
    if let Ok(integer) = token.parse::<i128>()
        && (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&integer)
    {
        return Cow::Owned(integer.to_string());
    }
    let mantissa = token.split(['e', 'E']).next().unwrap_or_default();
    let zero = !mantissa.contains(|digit: char| matches!(digit, '1'..='9'));
    match token.parse::<f64>() {
        Ok(_) if zero => Cow::Borrowed("0"),
        Ok(value) if !value.is_normal() && !value.is_subnormal() => Cow::Borrowed(token),
        Ok(value) if value.fract() == 0.0 && value.abs() < 18_446_744_073_709_551_616.0 => {
            Cow::Owned(format!("{value:.0}"))
        }
        Ok(value) => Cow::Owned(format!("{value:e}")),
        Err(_) => Cow::Borrowed(token),
    }
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                // Writing to a string cannot fail.
                '\0'..' ' => _ = write!(out, "\\u{:04x}", u32::from(character)),
                _ => out.push(character),
            }
        }
    } else {
        out.push_str(text);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::cloudtrail::testing::{any_value, respell};

    /// Reads a value through this module alone and compares it with what `serde_json` reads.
    fn assert_reads_as(raw: &[u8], value: &Value) {
        match value {
            Value::Object(expected) => {
                assert!(is_object(raw));
                assert_eq!(members(raw).count(), expected.len());
                for (key, value) in expected {
                    assert_reads_as(get(raw, key).unwrap(), value);
                }
            }
            Value::Array(expected) => {
                assert!(is_array(raw));
                assert_eq!(elements(raw).count(), expected.len());
                elements(raw).zip(expected).for_each(|(raw, value)| assert_reads_as(raw, value));
            }
            Value::String(expected) => {
                assert_eq!(string(raw).unwrap(), *expected);
                assert_eq!(scalar_text(raw).unwrap(), *expected);
            }
            Value::Null => assert!(is_null(raw) && scalar_text(raw).is_none()),
            Value::Bool(_) | Value::Number(_) => {
                assert_eq!(serde_json::from_str::<Value>(&scalar_text(raw).unwrap()).unwrap(), *value);
            }
        }
    }

    proptest! {
        #[test]
        fn valid_json_reads_as_serde_json_reads_it(value in any_value()) {
            assert_reads_as(value.to_string().as_bytes(), &value);
            assert_reads_as(format!("{value:#}").as_bytes(), &value);
            assert_reads_as(respell(&value).as_bytes(), &value);
        }

        #[test]
        fn valid_json_keeps_its_meaning(value in any_value()) {
            for raw in [value.to_string(), respell(&value)] {
                assert_eq!(serde_json::from_str::<Value>(&to_valid(raw.as_bytes())).unwrap(), value);
            }
        }

        #[test]
        fn canonical_text_does_not_depend_on_the_writer(value in any_value()) {
            let expected = canonical(value.to_string().as_bytes());
            assert_eq!(canonical(format!(" {value:#}").as_bytes()), expected);
            assert_eq!(canonical(respell(&value).as_bytes()), expected);
            assert_eq!(canonical(expected.as_bytes()), expected);
        }

        #[test]
        fn any_bytes_are_read_and_become_valid_json(raw in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"[{}\[\]",:\\ud8a01eE.+tnul-]{0,60}"#.prop_map(String::into_bytes),
        ]) {
            let bound = raw.len();
            assert!(members(&raw).count() <= bound && elements(&raw).count() <= bound);
            for Member { key, value } in members(&raw) {
                assert!(!value.is_empty());
                get(&raw, &decode(key)).unwrap();
            }
            for value in elements(&raw).chain([&raw[..]]) {
                let _ = string(value);
                let _ = scalar_text(value);
            }
            serde_json::from_str::<Value>(&to_valid(&raw)).unwrap();
            let text = canonical(&raw);
            serde_json::from_str::<&RawValue>(&text).unwrap();
            // Strict readers differ from the judgement above where strings hold lone surrogates.
            assert!(serde_json::from_str::<Value>(&text).is_ok_or_out_of_range(), "{text}");
        }
    }

    trait IsOkOrOutOfRange {
        fn is_ok_or_out_of_range(&self) -> bool;
    }

    impl IsOkOrOutOfRange for serde_json::Result<Value> {
        fn is_ok_or_out_of_range(&self) -> bool {
            self.as_ref().map_or_else(|error| error.to_string().starts_with("number out of range"), |_| true)
        }
    }

    #[test]
    fn the_last_of_duplicate_keys_wins_however_it_is_spelled() {
        let raw = br#"{"eventName":"A","eventNam\u0065":"B","other":1,"\u0065ventName":"StopLogging"}"#;
        assert_eq!(string(get(raw, "eventName").unwrap()).unwrap(), "StopLogging");
        assert_eq!(to_valid(raw), r#"{"other":1,"eventName":"StopLogging"}"#);
        assert_eq!(canonical(raw), r#"{"eventName":"StopLogging","other":1}"#);
    }

    #[test]
    fn keys_are_compared_decoded() {
        assert!(key_is(br"\u0065ventName", "eventName"));
        assert!(key_is(br"\uD83D\uDE00", "😀"));
        assert!(key_is(br"a\/b", "a/b"));
        assert!(!key_is(br"eventname", "eventName"));
        // Bad UTF-8 reads as U+FFFD in keys too.
        assert!(key_is(b"od\xedd", "od\u{fffd}d"));
        assert!(!key_is(b"od\xedd", "odd"));
        assert!(!key_is(br"\u0065ventName ", "eventName"));
        assert!(!key_is(br"\\u0065ventName", "eventName"));
        let raw = br#"{"userIdentity":{"sessionContext":{"sessionIssuer":{"userName":"Admin"}}}}"#;
        let path = ["userIdentity", "sessionContext", "sessionIssuer", "userName"];
        assert_eq!(get_path(raw, &path), Some(&br#""Admin""#[..]));
        assert_eq!(get_path(raw, &["userIdentity", "userName"]), None);
    }

    #[test]
    fn what_is_no_text_reads_as_the_replacement_character() {
        for (raw, text) in [
            (&br#""\ud800""#[..], "\u{fffd}"),
            (br#""\ud800\u0041""#, "\u{fffd}A"),
            (br#""\ud800\ud83d\ude00""#, "\u{fffd}😀"),
            (br#""\udc00x""#, "\u{fffd}x"),
            (br#""a\u12g4b""#, "a\u{fffd}12g4b"),
            (br#""a\qb""#, "a\u{fffd}b"),
            (b"\"a\xff\\n\xc3\"", "a\u{fffd}\n\u{fffd}"),
            (b"\"a\\\xc3\xa9\"", "a\u{fffd}é"),
            (b"\"nul\0tab\t\"", "nul\0tab\t"),
            (br#""\/\b\f\n\r\t\"\\""#, "/\u{8}\u{c}\n\r\t\"\\"),
        ] {
            assert_eq!(string(raw).unwrap(), text);
            let object = [br#"{"k":"#, raw, b"}"].concat();
            assert_eq!(serde_json::from_str::<Value>(&to_valid(&object)).unwrap(), json!({ "k": text }));
        }
        assert_eq!(string(b"12"), None);
        assert_eq!(string(b""), None);
    }

    #[test]
    fn odd_bytes_hide_no_other_member() {
        let name = |raw: &[u8]| get(raw, "eventName").and_then(string).map(Cow::into_owned);
        for raw in [
            &b"{\0\"eventName\"\0:\0\"StopLogging\"\0}"[..],
            br#"{,,"a":1,,"eventName":"StopLogging",}"#,
            br#"{x "y":1, "eventName":"StopLogging" z}"#,
            br#"{"a" 1, "b":, :2, "c":[1}, "eventName":"StopLogging"}"#,
            br#"{"a":tru"e,", "eventName":"StopLogging" {"eventName":"x"}, 7}"#,
            b"\n {\"\xff\":\xfe, \"eventName\":\"StopLogging\"",
            br#"{"eventName":"StopLogging","#,
            br#"{"eventName":"StopLogging","cut"#,
        ] {
            assert_eq!(name(raw).as_deref(), Some("StopLogging"), "{}", String::from_utf8_lossy(raw));
        }
        // Cut inside the value, the rest is still there to be matched.
        assert_eq!(name(br#"{"eventName":"StopLo"#).as_deref(), Some("StopLo"));
        // Members of other depths and text in strings are not members.
        assert_eq!(name(br#"{"a":{"eventName":"x"},"b":"\"eventName\":\"x\"","c":["eventName"]}"#), None);
        assert_eq!(name(br#"["eventName","x"]"#), None);
        assert_eq!(
            elements(b"[1 2, ,\"a,b\",{\"x\":[3]}]").collect::<Vec<_>>(),
            [&b"1"[..], b"\"a,b\"", b"{\"x\":[3]}"]
        );
        assert_eq!(elements(b"{}").count(), 0);
    }

    #[test]
    fn scalars_have_text_and_others_none() {
        assert_eq!(scalar_text(b" 1e400 ").unwrap(), "1e400");
        assert_eq!(scalar_text(b"true").unwrap(), "true");
        for none in [&b"null"[..], b"{}", b"[]", b"truth", b"1x", b"", b"\xff"] {
            assert_eq!(scalar_text(none), None);
        }
        assert!(is_null(b" null\n") && !is_null(b"\"null\""));
    }

    #[test]
    fn what_is_not_json_becomes_a_string() {
        for raw in ["{\"a\":1,}", "{\"a\" 1}", "{\"a\":01}", "{\"a\":[1}", "{\"a\":\"", "{} {}", "", "{\"a\":nul}"] {
            assert_eq!(serde_json::from_str::<String>(&to_valid(raw.as_bytes())).unwrap(), raw);
        }
        assert_eq!(to_valid(b"{\xff}"), "\"{\u{fffd}}\"");
    }

    #[test]
    fn depth_costs_neither_stack_nor_time() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(to_valid(nested(100).as_bytes()), nested(100));
        assert_eq!(to_valid(nested(101).as_bytes()), format!("\"{}\"", nested(101)));
        let deep = nested(100_000);
        let object = format!(r#"{{"a":{deep},"b":{{"c":{deep}}},"eventName":"x"}}"#);
        assert_eq!(get(object.as_bytes(), "eventName"), Some(&b"\"x\""[..]));
        assert_eq!(serde_json::from_str::<String>(&canonical(object.as_bytes())).unwrap(), object);
        // Unbalanced, in millions.
        for hostile in ["[", "{", "{\"a\":", "\"", "\\", ",", ":", "[,", "{\"", "\"\\u"] {
            let raw = format!("{{{}", hostile.repeat(1_000_000));
            assert_eq!(get(raw.as_bytes(), "eventName"), None);
            serde_json::from_str::<String>(&to_valid(raw.as_bytes())).unwrap();
        }
    }

    #[test]
    fn numbers_are_canonical_by_value() {
        let spelled = |number: &str| canonical(number.as_bytes());
        for (same, numbers) in [
            ("1", &["1", "1.0", "1.00", "10e-1", "0.1E+1"][..]),
            ("-3", &["-3", "-3.0", "-30e-1"]),
            ("0", &["0", "-0", "0.0", "-0.0e7", "0e999"]),
            ("1.5e0", &["1.5", "1.50", "15e-1"]),
            ("1e20", &["1e20", "100000000000000000000", "1.0E20"]),
            ("18446744073709551615", &["18446744073709551615"]),
            ("9007199254740993", &["9007199254740993"]),
            ("1e400", &["1e400"]),
            ("1e-400", &["1e-400"]),
        ] {
            for number in numbers {
                assert_eq!(spelled(number), same, "{number}");
            }
        }
    }

    #[test]
    fn numbers_that_many_readers_refuse_become_strings() {
        let digits = "9".repeat(309);
        let fraction = format!("0.{}", "9".repeat(5000));
        for number in ["1.00e4", "-0", "1e-400", "1.7e308", &"9".repeat(308), &fraction] {
            assert_eq!(to_valid(format!("[{number} ]").as_bytes()), format!("[{number}]"));
        }
        for number in ["1.00e400", "-1E+309", "1e99999999999999999999", &digits] {
            let valid = to_valid(format!("[{number}]").as_bytes());
            assert_eq!(serde_json::from_str::<Value>(&valid).unwrap(), json!([number]));
        }
    }
}
