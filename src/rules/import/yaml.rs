//! YAML as JSON values, within limits: no aliases (a small file could grow without end), no key twice, no deep nesting.
//!
//! Plain scalars are read as Python's YAML 1.1 reader does, which Sigma's own tools use: `yes`, `no`, `on` and `off` are
//! booleans. Numbers in other bases stay text. A tag `!Name` becomes `{"Fn::Name": ...}`, as `CloudFormation` reads it.

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value, json};

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 200_000;
const MAX_DOCUMENTS: usize = 10_000;

/// Why a text is not read as YAML, and on which line.
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// A collection that is not complete yet.
enum Open {
    List(Vec<Value>),
    /// With the key that waits for its value.
    Map(Map<String, Value>, Option<String>),
}

struct Frame {
    open: Open,
    tag: Option<String>,
}

/// The documents of a text; empty ones are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut documents = Vec::new();
    let mut stack: Vec<Frame> = Vec::new();
    let mut nodes = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            message: format!("not valid YAML: {}", error.info()),
        })?;
        let refuse = |message: &str| YamlError { line: span.start.line(), message: message.to_owned() };
        nodes += 1;
        if nodes > MAX_NODES {
            return Err(refuse("the YAML has too many values; split the file"));
        }
        let complete = match event {
            Event::Alias(_) => return Err(refuse("an alias (*name) is not read; write the value out")),
            Event::Scalar(text, style, _, tag) => {
                let value = scalar(&text, style, tag.as_deref()).map_err(|message| refuse(&message))?;
                Some(tagged(tag.as_deref().and_then(function), value))
            }
            Event::SequenceStart(_, tag) => {
                let tag = tag.as_deref().and_then(function);
                stack.push(Frame { open: Open::List(Vec::new()), tag });
                None
            }
            Event::MappingStart(_, tag) => {
                let tag = tag.as_deref().and_then(function);
                stack.push(Frame { open: Open::Map(Map::new(), None), tag });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => stack.pop().map(|frame| {
                tagged(
                    frame.tag,
                    match frame.open {
                        Open::List(values) => Value::Array(values),
                        Open::Map(members, _) => Value::Object(members),
                    },
                )
            }),
            _ => None,
        };
        if stack.len() > MAX_DEPTH {
            return Err(refuse("the YAML nests too deeply"));
        }
        let Some(value) = complete else { continue };
        match stack.last_mut().map(|frame| &mut frame.open) {
            None if value.is_null() => {}
            None if documents.len() >= MAX_DOCUMENTS => return Err(refuse("too many documents; split the file")),
            None => documents.push(value),
            Some(Open::List(values)) => values.push(value),
            Some(Open::Map(members, key)) => {
                if let Some(key) = key.take() {
                    members.insert(key, value);
                } else {
                    let name = key_of(value).ok_or_else(|| refuse("a key is no text"))?;
                    if members.contains_key(&name) {
                        return Err(refuse(&format!("the key {name:?} stands here a second time")));
                    }
                    *key = Some(name);
                }
            }
        }
    }
    Ok(documents)
}

fn key_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        // The key `on`, for one.
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

/// The name of `CloudFormation`'s short form: `!Sub` is `Fn::Sub`, and `!Ref` is `Ref`.
fn function(tag: &Tag) -> Option<String> {
    if tag.is_yaml_core_schema() || tag.suffix.is_empty() {
        return None;
    }
    Some(if matches!(tag.suffix.as_str(), "Ref" | "Condition") {
        tag.suffix.clone()
    } else {
        format!("Fn::{}", tag.suffix)
    })
}

fn tagged(tag: Option<String>, value: Value) -> Value {
    match tag {
        Some(name) => json!({ name: value }),
        None => value,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    match core {
        Some("str") => return Ok(Value::from(text)),
        Some(other) => return Err(format!("the tag !!{other} is not read; leave it out")),
        None => {}
    }
    if style != ScalarStyle::Plain || tag.is_some() {
        return Ok(Value::from(text));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        text => number(text).map_or_else(|| Value::from(text), Value::Number),
    })
}

/// A decimal number; one with leading zeros, such as an account id, is text.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let is_whole = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
    if !is_whole || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    match fraction {
        None => {
            let text = text.strip_prefix('+').unwrap_or(text);
            text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()
        }
        Some(fraction) if !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit()) => {
            Number::from_f64(text.parse().ok()?)
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match documents(text) {
            Ok(documents) => documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("line {}: {}", error.line, error.message),
        }
    }

    #[test]
    fn scalars_are_read_as_sigmas_own_tools_read_them() {
        let text = "a: 5\nb: '5'\nc: no\nd: \"no\"\ne: ~\nf:\ng: 012345678901\nh: 1.5\ni: 1.2.3\nj: -7\nk: 0x1F\nl: 2024-05-01\nm: >-\n  one\n  two\non: x";
        insta::assert_snapshot!(read(text), @r#"{"a":5,"b":"5","c":false,"d":"no","e":null,"f":null,"g":"012345678901","h":1.5,"i":"1.2.3","j":-7,"k":"0x1F","l":"2024-05-01","m":"one two","true":"x"}"#);
    }

    #[test]
    fn documents_tags_and_what_is_not_read() {
        let all: Vec<_> = [
            "a: 1\n---\n---\nb: 2\n",
            "a: !Sub '${X}'\nb: !Ref Y\nc: !GetAtt [A, B]\nd: !!str 5",
            "a: &x 1\nb: *x",
            "a: 1\na: 2",
            "a: 1\nb: [1, 2\nc: 3",
            "? [a]\n: b",
            "a: !!binary aGk=",
        ]
        .into_iter()
        .map(read)
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        {"a":1}
        {"b":2}

        {"a":{"Fn::Sub":"${X}"},"b":{"Ref":"Y"},"c":{"Fn::GetAtt":["A","B"]},"d":"5"}

        line 2: an alias (*name) is not read; write the value out

        line 2: the key "a" stands here a second time

        line 3: not valid YAML: illegal placement of ':' indicator

        line 1: a key is no text

        line 1: the tag !!binary is not read; leave it out
        "#);
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(read(&"[".repeat(100_000)).starts_with("line 1: "));
        let deep = (0..70).map(|i| format!("{:i$}a:", "")).collect::<Vec<_>>().join("\n");
        assert!(read(&deep).ends_with("the YAML nests too deeply"));
        assert!(read(&format!("[{}]", "1,".repeat(MAX_NODES))).ends_with("too many values; split the file"));
    }
}
