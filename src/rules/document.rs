//! JSON text whose values know where they stand, so that every error names its line. Syntax is `serde_json`'s; positions
//! are where its borrowed slices lie in the text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A text of which the lines are counted.
pub(super) struct Document<'a> {
    text: &'a str,
    line_ends: Vec<usize>,
}

/// One value, unread: the slice of the text that holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a>(&'a str);

/// One value, read a level deep.
pub(super) enum Value<'a> {
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// In the order of the text, duplicates included.
    Object(Vec<Member<'a>>),
    /// Null, a number, or a boolean.
    Other,
}

pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) value: Node<'a>,
}

/// A byte offset in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize);

impl<'a> Document<'a> {
    /// Checks the syntax of the whole text. The error is `serde_json`'s, with its line and column.
    pub(super) fn parse(text: &'a str) -> Result<(Self, Node<'a>), serde_json::Error> {
        let root: &RawValue = serde_json::from_str(text)?;
        let line_ends = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        Ok((Self { text, line_ends }, Node(root.get())))
    }

    /// From 1.
    pub(super) fn line(&self, position: Position) -> usize {
        self.line_ends.partition_point(|end| *end < position.0) + 1
    }

    pub(super) fn position(&self, node: Node<'_>) -> Position {
        Position(self.offset(node.0))
    }

    /// Where a member begins: at its key, or at its value where the key is written with escapes and so not a slice.
    pub(super) fn position_of(&self, member: &Member<'_>) -> Position {
        match member.key {
            Cow::Borrowed(key) => Position(self.offset(key)),
            Cow::Owned(_) => self.position(member.value),
        }
    }

    fn offset(&self, slice: &str) -> usize {
        slice.as_ptr().addr().saturating_sub(self.text.as_ptr().addr()).min(self.text.len())
    }
}

impl<'a> Node<'a> {
    /// Fails only where a string or a key holds half a surrogate pair, which syntax alone does not forbid.
    pub(super) fn read(self) -> Result<Value<'a>, serde_json::Error> {
        Ok(match self.0.as_bytes().first() {
            Some(b'"') => Value::String(serde_json::from_str::<Text<'a>>(self.0)?.0),
            Some(b'[') => {
                let elements: Vec<&'a RawValue> = serde_json::from_str(self.0)?;
                Value::Array(elements.into_iter().map(|element| Node(element.get())).collect())
            }
            Some(b'{') => Value::Object(serde_json::from_str::<Members<'a>>(self.0)?.0),
            _ => Value::Other,
        })
    }

    /// Its bytes, as they stand in the text.
    pub(super) fn text(self) -> &'a str {
        self.0
    }

    /// What it is, for an error text.
    pub(super) fn kind(self) -> &'static str {
        match self.0.as_bytes().first() {
            Some(b'"') => "a string",
            Some(b'[') => "a list",
            Some(b'{') => "an object",
            Some(b'n') => "null",
            Some(b't' | b'f') => "a boolean",
            _ => "a number",
        }
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push(Member { key, value: Node(value.get()) });
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Collect)
    }
}
