//! One line of a Sigma selection, `field|modifier: value`, as value conditions.
//!
//! The meaning is that of the Sigma specification (versions 1 and 2, "Modifiers"): texts ignore case, `*` and `?` are
//! wildcards unless a backslash stands before them, a value is compared with the text of a number or boolean, and null
//! is "null or absent".

use core::net::IpAddr;

use regex::RegexBuilder;
use serde_json::{Number, Value, json};

use super::expression::Expression;
use super::negation::{any_number, any_text};
use super::{MAX_VALUE_BYTES, is_container, is_plain_field, possible};

const MAX_REGEX_BYTES: usize = 1 << 20;

/// How the value is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
    Regex,
    Cidr,
    Exists,
    FieldReference,
    Numeric(&'static str),
}

/// What stands behind the field's name.
struct Modifiers {
    comparison: Comparison,
    all: bool,
    negated: bool,
    cased: bool,
    /// Of a regular expression.
    flags: String,
}

/// Reads one line of a selection; notes go to `notes`.
///
/// # Errors
///
/// Why it cannot be said in our format, and what to do.
pub(super) fn line(key: &str, value: &Value, notes: &mut Vec<String>) -> Result<Expression, String> {
    let mut parts = key.split('|');
    let path = parts.next().unwrap_or_default();
    if path.is_empty() {
        return Err("a search without a field (keywords) is not supported; name the field".to_owned());
    }
    if path.split('.').any(str::is_empty) || path.contains(['[', ']', '{', '}', '*']) {
        return Err(format!("the field {path:?} is no plain path; write names joined by dots"));
    }
    let modifiers = modifiers(parts)?;
    let values = match value {
        Value::Array(values) if values.is_empty() => &[Value::Null][..],
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut lists = Vec::with_capacity(values.len());
    for value in values {
        if value.as_str().is_some_and(|text| text.len() > MAX_VALUE_BYTES) {
            return Err(format!("a value is longer than {MAX_VALUE_BYTES} bytes; shorten it"));
        }
        lists.push(conditions(path, &modifiers, value, notes)?);
    }
    let leaf = |values| Expression::leaf(path, possible(path, values));
    let expression = if modifiers.all && lists.len() > 1 {
        Expression::All(lists.into_iter().map(leaf).collect())
    } else {
        let mut values = Vec::new();
        for value in lists.into_iter().flatten() {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        leaf(values)
    };
    Ok(if modifiers.negated { Expression::Not(Box::new(expression)) } else { expression })
}

fn modifiers<'a>(names: impl Iterator<Item = &'a str>) -> Result<Modifiers, String> {
    let mut read =
        Modifiers { comparison: Comparison::Equals, all: false, negated: false, cased: false, flags: String::new() };
    for name in names {
        let comparison = match name {
            "contains" => Comparison::Contains,
            "startswith" => Comparison::StartsWith,
            "endswith" => Comparison::EndsWith,
            "re" => Comparison::Regex,
            "cidr" => Comparison::Cidr,
            "exists" => Comparison::Exists,
            "fieldref" => Comparison::FieldReference,
            "lt" => Comparison::Numeric("<"),
            "lte" => Comparison::Numeric("<="),
            "gt" => Comparison::Numeric(">"),
            "gte" => Comparison::Numeric(">="),
            _ => {
                match name {
                    "all" => read.all = true,
                    "neq" => read.negated = true,
                    "cased" => read.cased = true,
                    "i" | "ignorecase" => read.flags.push('i'),
                    "m" | "multiline" => read.flags.push('m'),
                    "s" | "dotall" => read.flags.push('s'),
                    other => return Err(format!("the modifier {other:?} is not supported; write the values out")),
                }
                continue;
            }
        };
        if read.comparison != Comparison::Equals {
            return Err(format!("the modifier {name:?} does not go together with the one before it"));
        }
        read.comparison = comparison;
    }
    let texts = [Comparison::Equals, Comparison::Contains, Comparison::StartsWith, Comparison::EndsWith];
    if !read.flags.is_empty() && read.comparison != Comparison::Regex {
        return Err("the modifiers i, m and s belong to \"re\"".to_owned());
    }
    if read.cased && !texts.contains(&read.comparison) {
        return Err("the modifier \"cased\" belongs to texts".to_owned());
    }
    Ok(read)
}

/// The conditions of which one must hold for the value to be met.
fn conditions(path: &str, modifiers: &Modifiers, value: &Value, notes: &mut Vec<String>) -> Result<Vec<Value>, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null => String::new(),
        Value::Array(_) | Value::Object(_) => return Err("a value is a text, a number, a boolean or null".to_owned()),
    };
    if value.is_null() {
        return match modifiers.comparison {
            Comparison::Equals => nothing(path, notes),
            _ => Err("null has no text; leave the modifier out".to_owned()),
        };
    }
    match modifiers.comparison {
        Comparison::Exists => return exists(path, value, notes),
        Comparison::Numeric(operator) if value.is_number() => return Ok(vec![json!({ "numeric": [operator, value] })]),
        Comparison::Numeric(operator) => return Err(format!("{operator} compares with a number; {text:?} is none")),
        _ => {}
    }
    if is_container(path) {
        notes.push(format!(
            "{path} is an object in CloudTrail's records, and never equals a text; name a field inside of it"
        ));
    }
    match modifiers.comparison {
        Comparison::Cidr => network(&text).map(|network| vec![json!({ "cidr": network })]),
        Comparison::FieldReference => {
            notes.push(format!("{path} is compared with the field {text}: case counts"));
            Ok(vec![json!({ "field": text })])
        }
        Comparison::Regex => regular_expression(&text, &modifiers.flags),
        comparison => {
            let mut pieces = pieces(&text);
            if matches!(comparison, Comparison::Contains | Comparison::EndsWith) {
                pieces.insert(0, Piece::Any);
            }
            if matches!(comparison, Comparison::Contains | Comparison::StartsWith) {
                pieces.push(Piece::Any);
            }
            pieces.dedup_by(|a, b| *a == Piece::Any && *b == Piece::Any);
            if may_be_a_number(&pieces) && !is_plain_field(path) {
                notes.push(format!("a part of a number is not compared: {path} is only met by a text"));
            }
            texts(&pieces, modifiers.cased)
        }
    }
}

fn nothing(path: &str, notes: &mut Vec<String>) -> Result<Vec<Value>, String> {
    if is_container(path) {
        return Err(format!(
            "whether the object {path} is absent or null cannot be asked; ask for a field inside of it, or for errorCode"
        ));
    }
    if !is_plain_field(path) {
        notes.push(format!("null: an object or an empty list at {path} reads as absent"));
    }
    Ok(vec![json!({ "exists": false }), Value::Null])
}

fn exists(path: &str, value: &Value, notes: &mut Vec<String>) -> Result<Vec<Value>, String> {
    let Value::Bool(wanted) = value else {
        return Err("\"exists\" takes true or false".to_owned());
    };
    if is_container(path) {
        return Err(format!("whether the object {path} is there cannot be asked; ask for a field inside of it"));
    }
    if !is_plain_field(path) {
        notes.push(format!("exists: an object or an empty list at {path} reads as absent"));
    }
    Ok(vec![json!({ "exists": wanted })])
}

fn network(text: &str) -> Result<String, String> {
    let refused = || format!("{text:?} is no network such as 10.0.0.0/8");
    let (base, bits) = text.split_once('/').ok_or_else(refused)?;
    let address: IpAddr = base.parse().map_err(|_| refused())?;
    let bits: u32 = bits.parse().map_err(|_| refused())?;
    let is_network = match address {
        IpAddr::V4(address) => bits <= 32 && address.to_bits() & u32::MAX.checked_shr(bits).unwrap_or(0) == 0,
        IpAddr::V6(address) => bits <= 128 && address.to_bits() & u128::MAX.checked_shr(bits).unwrap_or(0) == 0,
    };
    if is_network { Ok(text.to_owned()) } else { Err(format!("{}; its host bits must be zero", refused())) }
}

/// A part of a text with wildcards.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// `*`
    Any,
    /// `?`
    One,
}

/// A backslash takes the meaning of a `*`, `?` or backslash behind it; elsewhere it is a character like others.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let wildcard = match character {
            '\\' => {
                literal.push(characters.next_if(|next| matches!(next, '*' | '?' | '\\')).unwrap_or('\\'));
                continue;
            }
            '*' => Piece::Any,
            '?' => Piece::One,
            other => {
                literal.push(other);
                continue;
            }
        };
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(wildcard);
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    pieces
}

fn only_wildcards(pieces: &[Piece]) -> bool {
    !pieces.is_empty() && !pieces.iter().any(|piece| matches!(piece, Piece::Text(_)))
}

fn ones(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| **piece == Piece::One).count()
}

/// Whether part of a number's text may match: what a condition on texts cannot see.
fn may_be_a_number(pieces: &[Piece]) -> bool {
    let is_partial = pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)));
    if only_wildcards(pieces) {
        return ones(pieces) > 1;
    }
    let mut texts = pieces.iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None });
    let of_number =
        |text: &String| text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
    is_partial && texts.all(of_number)
}

fn texts(pieces: &[Piece], cased: bool) -> Result<Vec<Value>, String> {
    let folded = |text: &str| if cased { json!(text) } else { json!({ "equals-ignore-case": text }) };
    let mut conditions = match pieces {
        [] => return Ok(vec![json!("")]),
        [Piece::Any] => {
            let mut any = vec![any_text()];
            any.extend(any_number());
            any
        }
        [Piece::Text(text)] => {
            let mut equal = vec![folded(text)];
            equal.extend(canonical_number(text).map(Value::Number));
            equal
        }
        [Piece::Text(text), Piece::Any] => vec![json!({ "prefix": folded(text) })],
        [Piece::Any, Piece::Text(text)] => vec![json!({ "suffix": folded(text) })],
        pieces if cased && !pieces.contains(&Piece::One) => vec![json!({ "wildcard": wildcard(pieces) })],
        pieces => vec![json!({ "regex": as_regex(pieces, cased) })],
    };
    if only_wildcards(pieces) && ones(pieces) == 1 {
        // Every number has a first character; those with no other are few.
        if pieces.contains(&Piece::Any) {
            conditions.extend(any_number());
        } else {
            conditions.extend((0..10).map(Value::from));
        }
    }
    let regex = compiled(&as_regex(pieces, cased))?;
    conditions.extend([true, false].into_iter().filter(|is| regex.is_match(&is.to_string())).map(Value::Bool));
    Ok(conditions)
}

/// The number that is written just so.
fn canonical_number(text: &str) -> Option<Number> {
    let number = match text.parse::<i64>() {
        Ok(whole) => Number::from(whole),
        Err(_) => Number::from_f64(text.parse().ok()?)?,
    };
    (number.to_string() == text).then_some(number)
}

/// As EventBridge writes it.
fn wildcard(pieces: &[Piece]) -> String {
    let written = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.replace('\\', r"\\").replace('*', r"\*"),
        Piece::Any | Piece::One => "*".to_owned(),
    });
    written.collect()
}

fn as_regex(pieces: &[Piece], cased: bool) -> String {
    let mut regex = String::from(if cased { "(?s)" } else { "(?is)" });
    let open_start = pieces.first() == Some(&Piece::Any);
    let open_end = pieces.last() == Some(&Piece::Any);
    if !open_start {
        regex.push('^');
    }
    let inner = pieces.get(usize::from(open_start)..pieces.len() - usize::from(open_end && pieces.len() > 1));
    for piece in inner.unwrap_or_default() {
        match piece {
            Piece::Text(text) => regex.push_str(&regex::escape(text)),
            Piece::Any => regex.push_str(".*"),
            Piece::One => regex.push('.'),
        }
    }
    if !open_end {
        regex.push('$');
    }
    regex
}

fn regular_expression(text: &str, flags: &str) -> Result<Vec<Value>, String> {
    let text = translated(text)?;
    let mut flags: Vec<char> = flags.chars().collect();
    flags.sort_unstable();
    flags.dedup();
    let flags: String = flags.into_iter().collect();
    let expression = if flags.is_empty() { text } else { format!("(?{flags}){text}") };
    let regex = compiled(&expression)?;
    let mut conditions = vec![json!({ "regex": expression })];
    conditions.extend([true, false].into_iter().filter(|is| regex.is_match(&is.to_string())).map(Value::Bool));
    Ok(conditions)
}

/// Where Rust's regular expressions read something else into the same characters, the other spelling or an error.
fn translated(text: &str) -> Result<String, String> {
    let mut written = String::with_capacity(text.len());
    let mut in_class = false;
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match (character, next) {
            ('\\', Some(angle @ ('<' | '>'))) => {
                written.push(angle);
                characters.next();
                before = Some('x');
                continue;
            }
            ('\\', Some(escaped)) => {
                written.extend(['\\', escaped]);
                characters.next();
                before = Some('x');
                continue;
            }
            ('[', _) if in_class => written.push('\\'),
            ('&' | '~' | '-', Some(next)) if in_class && next == character => written.push('\\'),
            ('[', _) => in_class = true,
            (']', _) if in_class && !matches!(before, Some('[')) => in_class = false,
            ('+', _) if !in_class && matches!(before, Some('*' | '+' | '?' | '}')) => {
                return Err(format!(
                    "the regular expression {text:?} has a possessive repetition; leave the second + out"
                ));
            }
            _ => {}
        }
        written.push(character);
        before = Some(character);
    }
    Ok(written)
}

fn compiled(expression: &str) -> Result<regex::Regex, String> {
    RegexBuilder::new(expression).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("the regular expression {expression:?} cannot be used ({reason}); look-around and back references do not exist here")
    })
}

#[allow(clippy::needless_pass_by_value, reason = "literals are easier to give by value")]
#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: Value) -> String {
        let mut notes = Vec::new();
        let shown = match line(key, &value, &mut notes) {
            Ok(Expression::Leaf(leaf)) => format!("{}: {}", leaf.path, Value::Array(leaf.values)),
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("error: {error}"),
        };
        notes.into_iter().fold(format!("{key} = {value}\n  {shown}"), |shown, note| format!("{shown}\n  note: {note}"))
    }

    fn all(lines: impl IntoIterator<Item = (&'static str, Value)>) -> String {
        lines.into_iter().map(|(key, value)| read(key, value)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn texts_numbers_booleans_and_null() {
        insta::assert_snapshot!(all([
            ("userAgent", json!("curl")),
            ("userAgent", json!(["curl", "wget", "curl"])),
            ("requestParameters.enable", json!("False")),
            ("requestParameters.enable", json!(false)),
            ("requestParameters.port", json!(22)),
            ("requestParameters.port", json!("22")),
            ("requestParameters.port", json!("022")),
            ("requestParameters.port", json!("2*")),
            ("errorCode", json!(null)),
            ("errorCode", json!([null, "Success"])),
            ("errorCode", json!([])),
            ("errorCode", json!("")),
            ("errorCode", json!("404")),
            ("errorMessage|contains", json!("*")),
            ("readOnly", json!("true")),
            ("readOnly", json!(null)),
            ("requestParameters.tags", json!(null)),
            ("responseElements", json!(null)),
        ]), @r#"
        userAgent = "curl"
          userAgent: [{"equals-ignore-case":"curl"}]
        userAgent = ["curl","wget","curl"]
          userAgent: [{"equals-ignore-case":"curl"},{"equals-ignore-case":"wget"}]
        requestParameters.enable = "False"
          requestParameters.enable: [{"equals-ignore-case":"False"},false]
        requestParameters.enable = false
          requestParameters.enable: [{"equals-ignore-case":"false"},false]
        requestParameters.port = 22
          requestParameters.port: [{"equals-ignore-case":"22"},22]
        requestParameters.port = "22"
          requestParameters.port: [{"equals-ignore-case":"22"},22]
        requestParameters.port = "022"
          requestParameters.port: [{"equals-ignore-case":"022"}]
        requestParameters.port = "2*"
          requestParameters.port: [{"prefix":{"equals-ignore-case":"2"}}]
          note: a part of a number is not compared: requestParameters.port is only met by a text
        errorCode = null
          errorCode: [{"exists":false},null]
        errorCode = [null,"Success"]
          errorCode: [{"exists":false},null,{"equals-ignore-case":"Success"}]
        errorCode = []
          errorCode: [{"exists":false},null]
        errorCode = ""
          errorCode: [""]
        errorCode = "404"
          errorCode: [{"equals-ignore-case":"404"}]
        errorMessage|contains = "*"
          errorMessage: [{"wildcard":"*"}]
        readOnly = "true"
          readOnly: [true]
        readOnly = null
          readOnly: [{"exists":false},null]
        requestParameters.tags = null
          requestParameters.tags: [{"exists":false},null]
          note: null: an object or an empty list at requestParameters.tags reads as absent
        responseElements = null
          error: whether the object responseElements is absent or null cannot be asked; ask for a field inside of it, or for errorCode
        "#);
    }

    #[test]
    fn wildcards_and_the_modifiers_of_texts() {
        insta::assert_snapshot!(all([
            ("a", json!("x*")),
            ("a", json!("*x")),
            ("a", json!("*x*")),
            ("a", json!("x?z*")),
            ("a", json!("*")),
            ("a", json!("***")),
            ("a", json!("t*")),
            ("a", json!("?*")),
            ("a", json!(r"a\*b\\c\d")),
            ("a|contains", json!("$x.y")),
            ("a|contains", json!("x*y")),
            ("a|contains", json!("")),
            ("a|startswith", json!("x")),
            ("a|endswith", json!("?x")),
            ("a|contains|all", json!(["x", "y"])),
            ("a|contains|all", json!(["x"])),
            ("a|cased", json!("x")),
            ("a|contains|cased", json!("x*\\**")),
            ("a|startswith|cased", json!("x")),
            ("a|neq", json!("x")),
            ("requestParameters|contains", json!("Suspended")),
        ]), @r#"
        a = "x*"
          a: [{"prefix":{"equals-ignore-case":"x"}}]
        a = "*x"
          a: [{"suffix":{"equals-ignore-case":"x"}}]
        a = "*x*"
          a: [{"regex":"(?is)x"}]
        a = "x?z*"
          a: [{"regex":"(?is)^x.z"}]
        a = "*"
          a: [{"wildcard":"*"},{"numeric":[">=",0]},{"numeric":["<",0]},true,false]
        a = "***"
          a: [{"wildcard":"*"},{"numeric":[">=",0]},{"numeric":["<",0]},true,false]
        a = "t*"
          a: [{"prefix":{"equals-ignore-case":"t"}},true]
        a = "?*"
          a: [{"regex":"(?is)^."},{"numeric":[">=",0]},{"numeric":["<",0]},true,false]
        a = "a\\*b\\\\c\\d"
          a: [{"equals-ignore-case":"a*b\\c\\d"}]
        a|contains = "$x.y"
          a: [{"regex":"(?is)\\$x\\.y"}]
        a|contains = "x*y"
          a: [{"regex":"(?is)x.*y"}]
        a|contains = ""
          a: [{"wildcard":"*"},{"numeric":[">=",0]},{"numeric":["<",0]},true,false]
        a|startswith = "x"
          a: [{"prefix":{"equals-ignore-case":"x"}}]
        a|endswith = "?x"
          a: [{"regex":"(?is).x$"}]
        a|contains|all = ["x","y"]
          All([Leaf(Leaf { path: "a", values: [Object {"regex": String("(?is)x")}] }), Leaf(Leaf { path: "a", values: [Object {"regex": String("(?is)y")}] })])
        a|contains|all = ["x"]
          a: [{"regex":"(?is)x"}]
        a|cased = "x"
          a: ["x"]
        a|contains|cased = "x*\\**"
          a: [{"wildcard":"*x*\\**"}]
        a|startswith|cased = "x"
          a: [{"prefix":"x"}]
        a|neq = "x"
          Not(Leaf(Leaf { path: "a", values: [Object {"equals-ignore-case": String("x")}] }))
        requestParameters|contains = "Suspended"
          requestParameters: [{"regex":"(?is)Suspended"}]
          note: requestParameters is an object in CloudTrail's records, and never equals a text; name a field inside of it
        "#);
    }

    #[test]
    fn the_other_modifiers() {
        insta::assert_snapshot!(all([
            ("a|re", json!("^x+$")),
            ("a|re|i", json!("x")),
            ("a|re|s|i", json!("x.y")),
            ("a|re", json!(r"\<b\>[[a&&b]")),
            ("a|re", json!("tr")),
            ("sourceIPAddress|cidr", json!(["10.0.0.0/8", "fd00::/8"])),
            ("a|exists", json!(true)),
            ("userIdentity.invokedBy|exists", json!(false)),
            ("userIdentity.arn|fieldref", json!("requestParameters.userName")),
            ("requestParameters.size|gte", json!(5)),
        ]), @r#"
        a|re = "^x+$"
          a: [{"regex":"^x+$"}]
        a|re|i = "x"
          a: [{"regex":"(?i)x"}]
        a|re|s|i = "x.y"
          a: [{"regex":"(?is)x.y"}]
        a|re = "\\<b\\>[[a&&b]"
          a: [{"regex":"<b>[\\[a\\&&b]"}]
        a|re = "tr"
          a: [{"regex":"tr"},true]
        sourceIPAddress|cidr = ["10.0.0.0/8","fd00::/8"]
          sourceIPAddress: [{"cidr":"10.0.0.0/8"},{"cidr":"fd00::/8"}]
        a|exists = true
          a: [{"exists":true}]
          note: exists: an object or an empty list at a reads as absent
        userIdentity.invokedBy|exists = false
          userIdentity.invokedBy: [{"exists":false}]
        userIdentity.arn|fieldref = "requestParameters.userName"
          userIdentity.arn: [{"field":"requestParameters.userName"}]
          note: userIdentity.arn is compared with the field requestParameters.userName: case counts
        requestParameters.size|gte = 5
          requestParameters.size: [{"numeric":[">=",5]}]
        "#);
    }

    #[test]
    fn what_is_refused_is_named() {
        insta::assert_snapshot!(all([
            ("|contains", json!("x")),
            ("a[0]", json!("x")),
            ("a..b", json!("x")),
            ("a|base64offset|contains", json!("x")),
            ("a|windash", json!("x")),
            ("a|fieldref|startswith", json!("b")),
            ("a|i", json!("x")),
            ("a|re|cased", json!("x")),
            ("a|re", json!("(?=x)")),
            ("a|re", json!(r"(x)\1")),
            ("a|re", json!("x++")),
            ("a|cidr", json!("10.0.0.0")),
            ("a|cidr", json!("10.0.0.1/8")),
            ("a|lt", json!("5")),
            ("a|exists", json!("yes")),
            ("requestParameters|exists", json!(true)),
            ("a|contains", json!(null)),
            ("a", json!({ "b": "c" })),
        ]), @r#"
        |contains = "x"
          error: a search without a field (keywords) is not supported; name the field
        a[0] = "x"
          error: the field "a[0]" is no plain path; write names joined by dots
        a..b = "x"
          error: the field "a..b" is no plain path; write names joined by dots
        a|base64offset|contains = "x"
          error: the modifier "base64offset" is not supported; write the values out
        a|windash = "x"
          error: the modifier "windash" is not supported; write the values out
        a|fieldref|startswith = "b"
          error: the modifier "startswith" does not go together with the one before it
        a|i = "x"
          error: the modifiers i, m and s belong to "re"
        a|re|cased = "x"
          error: the modifier "cased" belongs to texts
        a|re = "(?=x)"
          error: the regular expression "(?=x)" cannot be used (look-around, including look-ahead and look-behind, is not supported); look-around and back references do not exist here
        a|re = "(x)\\1"
          error: the regular expression "(x)\\1" cannot be used (backreferences are not supported); look-around and back references do not exist here
        a|re = "x++"
          error: the regular expression "x++" has a possessive repetition; leave the second + out
        a|cidr = "10.0.0.0"
          error: "10.0.0.0" is no network such as 10.0.0.0/8
        a|cidr = "10.0.0.1/8"
          error: "10.0.0.1/8" is no network such as 10.0.0.0/8; its host bits must be zero
        a|lt = "5"
          error: < compares with a number; "5" is none
        a|exists = "yes"
          error: "exists" takes true or false
        requestParameters|exists = true
          error: whether the object requestParameters is there cannot be asked; ask for a field inside of it
        a|contains = null
          error: null has no text; leave the modifier out
        a = {"b":"c"}
          error: a value is a text, a number, a boolean or null
        "#);
        assert!(read("a", json!("x".repeat(2_000))).contains("longer than 1024 bytes"));
    }
}
