//! Dismisses most records after a look at a few of their members, found where the splitter saw the colons.
//!
//! It never lies: what it dismisses, no rule matches and no exception withholds. Where a record is written in a way that leaves a
//! doubt (an escape that could spell a key, a key that does not follow a comma or the opening brace, a value that is no
//! plain text where a text is usual) it says nothing, and the whole way is gone.
//!
//! What it needs to know of a record is the *glance*: the members that the index knows rules by, and the few *steady*
//! members that some rules ask for instead of these. For each glance it remembers, within limits, whether any rule is
//! left that could match.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use memchr::memmem;

use super::RuleSet;
use super::condition::{Body, Found, Key, Rule};
use super::pattern::Compiled;
use crate::cloudtrail::Outline;

/// How many glances are remembered, and how long one may be.
const MAX_GLANCES: usize = 8_192;
const MAX_GLANCE_BYTES: usize = 512;

/// Members that have few values in many records: what a rule asks of them is decided once for each value.
const STEADY: [&str; 9] = [
    "userAgent",
    "sourceIPAddress",
    "awsRegion",
    "eventType",
    "eventCategory",
    "recipientAccountId",
    "readOnly",
    "managementEvent",
    "errorMessage",
];

/// These are in every glance.
const TEXTS: [&str; 3] = ["eventName", "eventSource", "errorCode"];

/// More kinds of identity than one record names, nested ones included.
const MAX_TYPES: usize = 4;

/// What is remembered of the records that one matcher saw.
#[derive(Debug, Default)]
pub(super) struct Dismissal {
    /// By what identifies a glance, without its steady members: which of the lists holds the rules that are left.
    verdicts: HashMap<Vec<u8>, usize, RandomState>,
    /// Positions of rules, in order.
    lists: Vec<Vec<usize>>,
    /// By a rule's position and the values of what it asks for: whether that is not what it asks for.
    decided: HashMap<Vec<u8>, bool, RandomState>,
    key: Vec<u8>,
    left: Vec<usize>,
    /// A record of some members only, for patterns that ask for nothing else.
    small: Vec<u8>,
}

/// A steady member that decides about some rule.
#[derive(Debug)]
pub(super) struct Watched {
    /// In [`STEADY`].
    place: usize,
    /// The name in its quotes.
    quoted: Vec<u8>,
}

impl Watched {
    /// Most keys differ in one of these two bytes already.
    fn ends(&self, before: &[u8]) -> bool {
        let Some(behind) = before.len().checked_sub(self.quoted.len()).and_then(|at| before.get(at..)) else {
            return false;
        };
        matches!((behind, &*self.quoted), ([b'"', .., last, _], [.., wanted, _]) if last == wanted)
            && behind == self.quoted
    }
}

/// The steady members that some rule asks for.
pub(super) fn watched(rules: &[Rule]) -> Vec<Watched> {
    let asked = rules.iter().filter_map(|rule| rule.asks.as_ref()?.steady.as_ref());
    let read = asked.fold(0, |all, (members, _)| all | members);
    let steady = STEADY.into_iter().enumerate().filter(|(place, _)| read & 1 << place != 0);
    steady.map(|(place, name)| Watched { place, quoted: format!("\"{name}\"").into_bytes() }).collect()
}

/// What a rule's pattern asks of some members at the least, where it cannot be met without them.
#[derive(Debug)]
pub(super) struct Asks {
    /// Of [`TEXTS`].
    texts: Option<Compiled>,
    /// Of steady members, with a bit for each place in [`STEADY`].
    steady: Option<(u16, Compiled)>,
}

pub(super) fn asks(body: &Body) -> Option<Asks> {
    let pattern = body.pattern()?;
    let texts = pattern.relaxed_to(&TEXTS).map(|(pattern, _)| pattern);
    let steady = pattern.relaxed_to(&STEADY).map(|(pattern, members)| (members, pattern));
    (texts.is_some() || steady.is_some()).then_some(Asks { texts, steady })
}

/// A text of a record.
#[derive(Clone, Copy, Default)]
enum Member<'a> {
    #[default]
    Absent,
    Null,
    Text(&'a str),
}

impl<'a> Member<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Text(text) => Some(text),
        }
    }
}

/// The members of a record that decide.
#[derive(Default)]
struct Glance<'a> {
    /// Name, source and error code.
    texts: [Member<'a>; 3],
    /// What the identity's type can be at most: that of each object in it.
    types: [Option<&'a str>; MAX_TYPES],
    /// Raw values, in the order of [`STEADY`]; empty where it is not there, or not watched.
    steady: [&'a [u8]; STEADY.len()],
}

/// There is a doubt: take the whole way.
struct Doubt;

impl Dismissal {
    /// The positions of the rules that can match the record, or have exceptions that can withhold it, in order; often none.
    /// `None` where there is a doubt.
    pub(super) fn left(&mut self, rules: &RuleSet, raw: &[u8], outline: Outline<'_>) -> Option<&[usize]> {
        let Ok(glance) = Glance::of(raw, outline, &rules.watched) else { return None };
        glance.write(&mut self.key);
        if self.key.len() > MAX_GLANCE_BYTES {
            return None;
        }
        let list = if let Some(list) = self.verdicts.get(&self.key) {
            *list
        } else {
            let positions = glance.verdict(rules, &mut self.small);
            self.remember(positions)
        };
        let Self { lists, left, decided, key, small, .. } = self;
        left.clear();
        let asks = |position: &&usize| {
            let rule = rules.rule(**position);
            rule.is_some_and(|rule| !refused(**position, rule, &glance, decided, key, small))
        };
        left.extend(lists.get(list)?.iter().filter(asks));
        Some(left)
    }

    fn remember(&mut self, positions: Vec<usize>) -> usize {
        if self.verdicts.len() >= MAX_GLANCES {
            self.verdicts.clear();
            self.lists.clear();
        }
        let known = self.lists.iter().position(|list| *list == positions);
        let list = known.unwrap_or_else(|| {
            self.lists.push(positions);
            self.lists.len() - 1
        });
        self.verdicts.insert(self.key.clone(), list);
        list
    }
}

/// Whether the steady members are not what a rule asks for.
fn refused(
    position: usize,
    rule: &Rule,
    glance: &Glance<'_>,
    decided: &mut HashMap<Vec<u8>, bool, RandomState>,
    key: &mut Vec<u8>,
    small: &mut Vec<u8>,
) -> bool {
    let Some((members, pattern)) = rule.asks.as_ref().and_then(|asks| asks.steady.as_ref()) else { return false };
    let asked = || glance.steady.iter().enumerate().filter(|(place, _)| members & 1 << place != 0);
    key.clear();
    key.extend_from_slice(&position.to_be_bytes());
    asked().for_each(|(_, value)| put(key, value));
    if key.len() > MAX_GLANCE_BYTES {
        return false;
    }
    if let Some(refused) = decided.get(key.as_slice()) {
        return *refused;
    }
    write_record(small, asked().filter_map(|(place, value)| Some((*STEADY.get(place)?, *value))));
    let refused = !pattern.matches(small);
    if decided.len() >= MAX_GLANCES {
        decided.clear();
    }
    decided.insert(key.clone(), refused);
    refused
}

/// A record that has these members, as far as they are there.
fn write_record<'v>(record: &mut Vec<u8>, members: impl Iterator<Item = (&'static str, &'v [u8])>) {
    record.clear();
    for (name, value) in members.filter(|(_, value)| !value.is_empty()) {
        record.extend_from_slice(if record.is_empty() { b"{\"" } else { b",\"" });
        record.extend_from_slice(name.as_bytes());
        record.extend_from_slice(b"\":");
        record.extend_from_slice(value);
    }
    record.extend_from_slice(if record.is_empty() { b"{}" } else { b"}" });
}

fn found(text: Option<&str>) -> Found<'_> {
    text.map_or(Found::Absent, Found::Text)
}

enum Slot {
    Text(usize, usize),
    Identity(usize),
    Steady(usize, usize),
}

/// A plain text or null, if a comma or the record's end follows.
fn text_or_null(rest: &[u8]) -> Result<Member<'_>, Doubt> {
    let (text, behind) = match rest {
        [b'"', inside @ ..] => {
            let end = memchr::memchr2(b'"', b'\\', inside).ok_or(Doubt)?;
            let (text, behind) = inside.split_at_checked(end).ok_or(Doubt)?;
            let behind = behind.strip_prefix(b"\"").ok_or(Doubt)?;
            (Member::Text(std::str::from_utf8(text).map_err(|_| Doubt)?), behind)
        }
        [b'n', b'u', b'l', b'l', behind @ ..] => (Member::Null, behind),
        _ => return Err(Doubt),
    };
    ends_member(behind).then_some(text).ok_or(Doubt)
}

fn ends_member(behind: &[u8]) -> bool {
    matches!(behind.trim_ascii_start(), [b',' | b'}', ..])
}

/// A scalar value from behind its colon, as it stands.
fn member_end(behind: &[u8]) -> Option<&[u8]> {
    let value = behind.trim_ascii_start();
    let length = match value.first()? {
        b'"' => {
            let end = memchr::memchr2(b'"', b'\\', value.get(1..)?)? + 2;
            value.get(end - 1).filter(|byte| **byte == b'"')?;
            end
        }
        b'{' | b'[' => return None,
        _ => value.iter().position(|byte| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r' | b'"'))?,
    };
    let (value, behind) = value.split_at_checked(length)?;
    ends_member(behind).then_some(value)
}

/// The texts behind every `"type"` that could be a key in the identity, its own and those of objects in it.
fn identity_types(value: &[u8]) -> Result<[Option<&str>; MAX_TYPES], Doubt> {
    let mut types = [None; MAX_TYPES];
    match value.first() {
        Some(b'{') => {}
        Some(b'n') => return text_or_null(value).map(|_| types),
        _ => return Err(Doubt),
    }
    let mut found = 0;
    for at in memmem::find_iter(value, b"\"type\"") {
        let behind = value.get(at + 6..).unwrap_or_default().trim_ascii_start();
        let Some(behind) = behind.strip_prefix(b":") else { continue };
        let Some(text) = text_or_null(behind.trim_ascii_start())?.text() else { continue };
        if !types.contains(&Some(text)) {
            *types.get_mut(found).ok_or(Doubt)? = Some(text);
            found += 1;
        }
    }
    Ok(types)
}

impl<'a> Glance<'a> {
    fn of(raw: &'a [u8], outline: Outline<'_>, watched: &[Watched]) -> Result<Self, Doubt> {
        // A letter of a name can be spelled in one other way only.
        if outline.backslash && memmem::find(raw, b"\\u").is_some() {
            return Err(Doubt);
        }
        let mut glance = Self::default();
        let mut colons = outline.colons.iter().copied().map(|at| at as usize).peekable();
        while let Some(colon) = colons.next() {
            let before = raw.get(..colon).unwrap_or_default();
            let [.., last, b'"'] = before else { return Err(Doubt) };
            let slot = match last {
                b'e' if before.ends_with(b"\"eventName\"") => Slot::Text(0, 11),
                b'e' if before.ends_with(b"\"eventSource\"") => Slot::Text(1, 13),
                b'e' if before.ends_with(b"\"errorCode\"") => Slot::Text(2, 11),
                b'e' if before.ends_with(b"\"userIdentity.type\"") => return Err(Doubt),
                b'y' if before.ends_with(b"\"userIdentity\"") => Slot::Identity(14),
                _ => {
                    let Some(one) = watched.iter().find(|one| one.ends(before)) else { continue };
                    Slot::Steady(one.place, one.quoted.len())
                }
            };
            let (Slot::Text(_, length) | Slot::Identity(length) | Slot::Steady(_, length)) = slot;
            let ahead = before.get(..before.len() - length).unwrap_or_default().trim_ascii_end();
            if !matches!(ahead, [.., b',' | b'{']) {
                return Err(Doubt);
            }
            let rest = raw.get(colon + 1..).unwrap_or_default().trim_ascii_start();
            match slot {
                Slot::Text(place, _) => {
                    if let Some(text) = glance.texts.get_mut(place) {
                        *text = text_or_null(rest)?;
                    }
                }
                Slot::Identity(_) => {
                    // Up to the next member's colon at the most: its key is no object.
                    let next = colons.peek().map_or(raw.len(), |next| *next);
                    let value = raw.get(colon + 1..next).unwrap_or_default().trim_ascii_start();
                    glance.types = identity_types(value)?;
                }
                Slot::Steady(place, _) => {
                    let next = colons.peek().map_or(raw.len(), |next| *next);
                    if let Some(steady) = glance.steady.get_mut(place) {
                        *steady = raw.get(colon + 1..next).and_then(member_end).ok_or(Doubt)?;
                    }
                }
            }
        }
        Ok(glance)
    }

    /// The positions of the rules that a record with such an identity can match, as far as the index knows.
    fn verdict(&self, rules: &RuleSet, small: &mut Vec<u8>) -> Vec<usize> {
        let [name, source, code] = self.texts.map(|member| found(member.text()));
        let kinds = std::iter::once(None).chain(self.types.into_iter().flatten().map(Some));
        let mut positions: Vec<usize> = kinds
            .flat_map(|kind| rules.index.candidates(&rules.rules, &Key([name, source, code, found(kind)])))
            .collect();
        positions.sort_unstable();
        positions.dedup();
        self.write_small(small);
        let asks = |position: &usize| rules.rule(*position).and_then(|rule| rule.asks.as_ref());
        positions.retain(|position| {
            let texts = asks(position).and_then(|asks| asks.texts.as_ref());
            texts.is_none_or(|pattern| pattern.matches(small))
        });
        positions
    }

    /// Bytes that no other glance has, apart from its steady members: lengths say where a part ends, and absence is no text.
    fn write(&self, key: &mut Vec<u8>) {
        key.clear();
        for text in self.types {
            // An empty text is one.
            match text {
                Some(text) => put(key, text.as_bytes()),
                None => key.push(u8::MAX),
            }
        }
        self.write_texts(key);
    }

    /// A record of the texts alone. They hold neither quotes nor backslashes.
    fn write_small(&self, record: &mut Vec<u8>) {
        let value = |text: Member<'_>| match text {
            Member::Absent => Vec::new(),
            Member::Null => b"null".to_vec(),
            Member::Text(text) => [b"\"", text.as_bytes(), b"\""].concat(),
        };
        let values = self.texts.map(value);
        write_record(record, TEXTS.into_iter().zip(values.iter().map(Vec::as_slice)));
    }

    fn write_texts(&self, key: &mut Vec<u8>) {
        for text in self.texts {
            match text {
                Member::Absent => key.push(u8::MAX),
                Member::Null => key.push(u8::MAX - 1),
                Member::Text(text) => put(key, text.as_bytes()),
            }
        }
    }
}

fn put(key: &mut Vec<u8>, text: &[u8]) {
    // A longer one exceeds the limit of the whole.
    key.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    key.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cloudtrail::{Decoder, Input, Limits, Output, Step};
    use crate::rules::Matcher;

    /// Decodes an object with this record among others; gives how many rules match it, and whether it was dismissed.
    fn seen(rules: &Value, record: &str) -> (usize, bool) {
        let rules = Arc::new(RuleSet::parse(&rules.to_string()).unwrap());
        let text = format!(r#"{{"Records":[{record}],"behind":"{}"}}"#, " ".repeat(80));
        let limits = Limits {
            max_compressed_bytes: 1 << 20,
            max_decompressed_bytes: 1 << 20,
            max_ratio: 9,
            max_record_bytes: 1 << 20,
        };
        let (mut decoder, mut matcher) = (Decoder::new(limits), Matcher::new(Arc::clone(&rules)));
        let mut input = Input { bytes: text.into_bytes().into(), last: true };
        let mut out = Output::default();
        while decoder.step(&mut input, &mut matcher, &mut out).unwrap() != Step::End {}
        assert_eq!(
            out.detections.len(),
            usize::from(!Matcher::new(rules).matches(record.as_bytes()).is_empty()),
            "{record}"
        );
        (out.detections.iter().map(|one| one.rules.len()).sum(), matcher.dismissed() > 0)
    }

    fn record(members: &str) -> String {
        format!(
            "{{\"eventVersion\":\"1.11\",\"userIdentity\":{{\"type\":\"AssumedRole\",\"sessionContext\":{{\"sessionIssuer\":\
             {{\"type\":\"Role\",\"userName\":\"worker\"}}}}}},\"eventTime\":\"2026-05-01T00:00:00Z\",\
             \"eventSource\":\"ec2.amazonaws.com\",\"eventName\":\"DescribeInstances\",\"userAgent\":\"aws-cli/2\",\
             \"sourceIPAddress\":\"10.0.0.1\"{members}}}"
        )
    }

    #[test]
    fn a_record_that_no_rule_asks_for_is_dismissed() {
        let rules = json!([
            { "id": "name", "severity": "LOW", "eventName": "StopLogging" },
            { "id": "wildcard", "severity": "LOW", "eventName": "*Policy" },
            { "id": "denied", "severity": "LOW", "errorCode": "*Denied*" },
            { "id": "root", "severity": "LOW", "userIdentityType": "Root" },
            { "id": "tool", "severity": "LOW", "pattern": { "userAgent": [{ "regex": "(?i)pacu" }] } },
            { "id": "from", "severity": "LOW", "userIdentityType": "AssumedRole", "pattern": {
                "userIdentity": { "userName": [{ "exists": false }] }, "sourceIPAddress": [{ "anything-but": { "prefix": "10." } }] } },
        ]);
        assert_eq!(seen(&rules, &record("")), (0, true));
        assert_eq!(seen(&rules, &record(r#","errorCode":"AccessDenied""#)), (1, false));
        assert_eq!(seen(&rules, &record(r#","errorCode":null"#)), (0, true));
        // The last of duplicate keys counts.
        assert_eq!(seen(&rules, &record(r#","userAgent":"Pacu/1""#)), (1, false));
        assert_eq!(seen(&rules, &record(r#","sourceIPAddress":"192.0.2.1""#)), (1, false));
        assert_eq!(seen(&rules, &record(r#","eventName":"StopLogging""#)), (1, false));
    }

    #[test]
    fn how_a_record_is_written_hides_nothing() {
        let rules = json!([{ "id": "name", "severity": "LOW", "eventName": "StopLogging" }]);
        let found = [
            r#","\u0065ventName":"StopLogging""#,
            r#","eventName":"Stop\u004cogging""#,
            r#", "eventName" : "StopLogging" "#,
            "\n,\t\"eventName\"\r\n:\n\"StopLogging\"\n",
            r#","x":"\"","eventName":"StopLogging""#,
            r#","x":"\\","eventName":"StopLogging""#,
            r#","x":[{"eventName":"A"}],"eventName":"StopLogging","y":{"eventName":"B"}"#,
            r#",,"eventName":"StopLogging""#,
            r#","x":1 2,"eventName":"StopLogging""#,
            "\u{1},\u{1}\"eventName\"\u{1}:\u{1}\"StopLogging\"\u{1}",
        ];
        for members in found {
            assert_eq!(seen(&rules, &record(members)), (1, false), "{members}");
        }
        let not_found = [
            r#","x":"\",\"eventName\":\"StopLogging""#,
            r#","x":{"eventName":"StopLogging"}"#,
            r#","x\",\"eventName":"StopLogging""#,
            r#","x":"eventName","y":"StopLogging""#,
            r#","EventName":"StopLogging""#,
        ];
        for members in not_found {
            assert_eq!(seen(&rules, &record(members)).0, 0, "{members}");
        }
    }

    /// Many members come before or after, so that names stand on every place in a block.
    #[test]
    fn where_a_member_stands_in_a_block_does_not_matter() {
        let rules = json!([{ "id": "name", "severity": "LOW", "eventName": "StopLogging" }]);
        for length in 0..140 {
            let pad = "x".repeat(length);
            assert_eq!(seen(&rules, &record(&format!(r#","{pad}":"{pad}\"","eventName":"StopLogging""#))), (1, false));
            assert_eq!(seen(&rules, &record(&format!(r#","p":"{pad}\\","eventName":"StopLogging""#))), (1, false));
            assert_eq!(
                seen(&rules, &record(&format!(r#","p":"{pad}","q":"\",\"eventName\":\"StopLogging""#))),
                (0, true)
            );
        }
    }
}
