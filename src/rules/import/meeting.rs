//! Two lists of value conditions on one field, both to be met by one value: as one list.
//!
//! A pattern says only one thing of a field in each way that it can be met, so what two conditions share must be worked
//! out: the values of one that meet the other, or, for parts of texts, the orders in which the parts can stand.

use regex::Regex;
use serde_json::{Value, json};

const MAX_PARTS: usize = 5;
const MAX_CONDITIONS: usize = 256;
/// The rule file's limit for a value.
const MAX_REGEX_BYTES: usize = 1_000;

/// What meets both lists: empty if nothing does, `None` if it cannot be said.
pub(super) fn meet(left: &[Value], right: &[Value]) -> Option<Vec<Value>> {
    if left == right {
        return Some(left.to_vec());
    }
    if let Some(met) = unlike_both(left, right) {
        return Some(met);
    }
    let mut met = Vec::new();
    for one in left {
        for other in right {
            for value in pair(one, other)? {
                if !met.contains(&value) {
                    met.push(value);
                }
            }
        }
    }
    (met.len() <= MAX_CONDITIONS).then_some(met)
}

/// What a list accepts besides "absent", if it is all but some values.
pub(super) fn all_but(values: &[Value]) -> Option<(bool, &Value)> {
    let is_absent = |value: &Value| value.get("exists") == Some(&Value::Bool(false));
    match values {
        [only] => only.get("anything-but").map(|but| (false, but)),
        [first, second] if is_absent(first) => second.get("anything-but").map(|but| (true, but)),
        _ => None,
    }
}

/// "Neither these nor those."
fn unlike_both(left: &[Value], right: &[Value]) -> Option<Vec<Value>> {
    let ((left_absent, left), (right_absent, right)) = (all_but(left)?, all_but(right)?);
    let mut both = if left_absent && right_absent { vec![json!({ "exists": false })] } else { Vec::new() };
    both.push(json!({ "anything-but": joined(left, right)? }));
    Some(both)
}

fn joined(left: &Value, right: &Value) -> Option<Value> {
    let listed = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let ((left_key, left), (right_key, right)) = (left.iter().next()?, right.iter().next()?);
            if left_key == "regex" && right_key == "regex" {
                let either = format!("{}|{}", left.as_str()?, right.as_str()?);
                // Flags at the start of one would reach into the other.
                return (!either.contains("(?i") && either.len() <= MAX_REGEX_BYTES)
                    .then(|| json!({ "regex": either }));
            }
            let takes_a_list = matches!(left_key.as_str(), "prefix" | "suffix" | "wildcard" | "equals-ignore-case");
            (left_key == right_key && takes_a_list).then_some(())?;
            let values = joined(&Value::Array(listed(left)), &Value::Array(listed(right)))?;
            Some(json!({ left_key: values }))
        }
        (Value::Object(_), _) | (_, Value::Object(_)) => None,
        (left, right) => {
            let mut values = listed(left);
            values.extend(listed(right).into_iter().filter(|value| !listed(left).contains(value)));
            let alike = values.iter().all(Value::is_string) || values.iter().all(Value::is_number);
            alike.then_some(Value::Array(values))
        }
    }
}

/// What a condition is about.
enum Kind<'a> {
    Absent,
    Present,
    Null,
    Bool,
    Number(f64),
    /// `{"numeric": ...}`
    Numeric(&'a Value),
    Text(Text),
    AnythingBut(&'a Value),
    Other,
}

/// A condition on texts.
enum Text {
    Any,
    Equal {
        text: String,
        cased: bool,
    },
    /// Begins, ends with, or holds a text.
    Parts(Parts),
    Expression(String),
}

#[derive(Clone, Default)]
struct Parts {
    start: Option<String>,
    end: Option<String>,
    within: Vec<String>,
    cased: bool,
}

fn kind(value: &Value) -> Kind<'_> {
    let members = match value {
        Value::Null => return Kind::Null,
        Value::Bool(_) => return Kind::Bool,
        Value::Number(number) => return number.as_f64().map_or(Kind::Other, Kind::Number),
        Value::String(text) => return Kind::Text(Text::Equal { text: text.clone(), cased: true }),
        Value::Array(_) => return Kind::Other,
        Value::Object(members) => members,
    };
    let Some((key, operand)) = members.iter().next() else {
        return Kind::Other;
    };
    let affix = || match operand {
        Value::String(text) => Some((text.clone(), true)),
        operand => Some((operand.get("equals-ignore-case")?.as_str()?.to_owned(), false)),
    };
    let text = match (key.as_str(), operand) {
        ("exists", Value::Bool(true)) => return Kind::Present,
        ("exists", _) => return Kind::Absent,
        ("numeric", _) => return Kind::Numeric(operand),
        ("anything-but", _) => return Kind::AnythingBut(operand),
        ("equals-ignore-case", Value::String(text)) => Some(Text::Equal { text: text.clone(), cased: false }),
        ("prefix", _) => {
            affix().map(|(text, cased)| Text::Parts(Parts { start: Some(text), cased, ..Parts::default() }))
        }
        ("suffix", _) => affix().map(|(text, cased)| Text::Parts(Parts { end: Some(text), cased, ..Parts::default() })),
        ("wildcard", Value::String(text)) if text == "*" => Some(Text::Any),
        ("wildcard", Value::String(text)) => Some(within_stars(text)),
        ("regex", Value::String(text)) => Some(literal(text).unwrap_or_else(|| Text::Expression(text.clone()))),
        _ => None,
    };
    text.map_or(Kind::Other, Kind::Text)
}

/// `*part*`
fn within_stars(text: &str) -> Text {
    let inner = text.strip_prefix('*').and_then(|rest| rest.strip_suffix('*'));
    match inner.filter(|inner| !inner.contains(['*', '\\'])) {
        Some(inner) => Text::Parts(Parts { within: vec![inner.to_owned()], cased: true, ..Parts::default() }),
        None => {
            Text::Expression(format!("(?s)^{}$", text.split('*').map(regex::escape).collect::<Vec<_>>().join(".*")))
        }
    }
}

/// An expression of ours that only asks for a text within: `(?is)` and characters.
fn literal(expression: &str) -> Option<Text> {
    let mut text = String::new();
    let mut characters = expression.strip_prefix("(?is)")?.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(char::is_ascii_punctuation)?),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            other => text.push(other),
        }
    }
    (!text.is_empty()).then(|| Text::Parts(Parts { within: vec![text], ..Parts::default() }))
}

#[allow(clippy::match_same_arms, reason = "the order of the arms decides")]
fn pair(left: &Value, right: &Value) -> Option<Vec<Value>> {
    if left == right {
        return Some(vec![left.clone()]);
    }
    let only_if = |holds: bool, value: &Value| Some(if holds { vec![value.clone()] } else { Vec::new() });
    match (kind(left), kind(right)) {
        (Kind::Absent, Kind::Absent) => Some(vec![left.clone()]),
        (Kind::Absent, _) | (_, Kind::Absent) => Some(Vec::new()),
        (Kind::Present, _) => Some(vec![right.clone()]),
        (_, Kind::Present) => Some(vec![left.clone()]),
        (Kind::AnythingBut(but), Kind::Text(Text::Equal { text, cased: true })) => unlike(but, &text, right),
        (Kind::Text(Text::Equal { text, cased: true }), Kind::AnythingBut(but)) => unlike(but, &text, left),
        (Kind::AnythingBut(_) | Kind::Other, _) | (_, Kind::AnythingBut(_) | Kind::Other) => None,
        (Kind::Number(number), Kind::Numeric(range)) => only_if(within(number, range)?, left),
        (Kind::Numeric(range), Kind::Number(number)) => only_if(within(number, range)?, right),
        (Kind::Number(left_number), Kind::Number(number)) => only_if(left_number.total_cmp(&number).is_eq(), left),
        (Kind::Numeric(one), Kind::Numeric(other)) => between(one, other),
        (Kind::Text(Text::Any), Kind::Text(_)) => Some(vec![right.clone()]),
        (Kind::Text(_), Kind::Text(Text::Any)) => Some(vec![left.clone()]),
        (Kind::Text(one), Kind::Text(other)) => text_pair(left, one, right, other),
        _ => Some(Vec::new()),
    }
}

fn unlike(but: &Value, text: &str, value: &Value) -> Option<Vec<Value>> {
    let is = match but {
        Value::String(other) => other == text,
        Value::Array(others) if others.iter().all(Value::is_string) => others.iter().any(|other| other == text),
        Value::Number(_) => false,
        _ => return None,
    };
    Some(if is { Vec::new() } else { vec![value.clone()] })
}

fn within(number: f64, range: &Value) -> Option<bool> {
    let holds = |pair: &[Value]| {
        let [operator, bound] = pair else { return None };
        let order = number.total_cmp(&bound.as_f64()?);
        Some(match operator.as_str()? {
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            ">=" => order.is_ge(),
            "=" => order.is_eq(),
            _ => return None,
        })
    };
    range.as_array()?.chunks(2).map(holds).try_fold(true, |all, holds| Some(all && holds?))
}

/// Of two bounds the narrower one, or the range between them.
fn between(one: &Value, other: &Value) -> Option<Vec<Value>> {
    let bound = |range: &Value| match range.as_array()?.as_slice() {
        [operator, number] => Some((operator.as_str()?.to_owned(), number.clone(), number.as_f64()?)),
        _ => None,
    };
    let (one, other) = (bound(one)?, bound(other)?);
    let is_low = |bound: &(String, Value, f64)| bound.0.starts_with('>');
    if one.0 == "=" || other.0 == "=" {
        return None;
    }
    if is_low(&one) == is_low(&other) {
        // Of equal numbers the one that does not belong to the range.
        let order = one.2.total_cmp(&other.2);
        let first = if order.is_eq() { one.0.len() == 1 } else { order.is_gt() == is_low(&one) };
        let (operator, number, _) = if first { one } else { other };
        return Some(vec![json!({ "numeric": [operator, number] })]);
    }
    let (low, high) = if is_low(&one) { (one, other) } else { (other, one) };
    let order = low.2.total_cmp(&high.2);
    let holds_one = order.is_lt() || (order.is_eq() && low.0 == ">=" && high.0 == "<=");
    Some(if holds_one { vec![json!({ "numeric": [low.0, low.1, high.0, high.1] })] } else { Vec::new() })
}

fn text_pair(left: &Value, one: Text, right: &Value, other: Text) -> Option<Vec<Value>> {
    match (one, other) {
        (Text::Equal { text, cased }, other) => equal_and(left, &text, cased, right, &other),
        (one, Text::Equal { text, cased }) => equal_and(right, &text, cased, left, &one),
        (Text::Parts(one), Text::Parts(other)) => parts(one, other),
        _ => None,
    }
}

/// A whole text, if it meets the other condition.
fn equal_and(value: &Value, text: &str, cased: bool, other_value: &Value, other: &Text) -> Option<Vec<Value>> {
    let (expression, other_cased) = match other {
        Text::Any => return Some(vec![value.clone()]),
        Text::Equal { text, cased } => (format!("^{}$", regex::escape(text)), *cased),
        Text::Parts(parts) => (parts.expression(), parts.cased),
        Text::Expression(expression) => (expression.clone(), !expression.starts_with("(?i")),
    };
    if other_cased && !cased && text.chars().any(char::is_alphabetic) {
        // Only some spellings meet the other, unless that is one text, too.
        let Text::Equal { text: exact, .. } = other else { return None };
        let same = exact.to_lowercase() == text.to_lowercase();
        return Some(if same { vec![other_value.clone()] } else { Vec::new() });
    }
    let flags = if other_cased { "(?s)" } else { "(?is)" };
    let meets = Regex::new(&format!("{flags}{expression}")).ok()?.is_match(text);
    Some(if meets { vec![value.clone()] } else { Vec::new() })
}

impl Parts {
    /// Only for a single part.
    fn expression(&self) -> String {
        let start = self.start.iter().map(|text| format!("^{}", regex::escape(text)));
        let end = self.end.iter().map(|text| format!("{}$", regex::escape(text)));
        start.chain(self.within.iter().map(|text| regex::escape(text))).chain(end).collect()
    }
}

/// All orders in which the parts can stand in one text, also overlapping.
fn parts(mut one: Parts, other: Parts) -> Option<Vec<Value>> {
    (one.cased == other.cased).then_some(())?;
    let fold = |text: &str| if other.cased { text.to_owned() } else { text.to_lowercase() };
    let begins = |long: &str, short: &str| fold(long).starts_with(&fold(short));
    let ends = |long: &str, short: &str| fold(long).ends_with(&fold(short));
    match longer(one.start.take(), other.start, begins) {
        Ok(start) => one.start = start,
        Err(()) => return Some(Vec::new()),
    }
    match longer(one.end.take(), other.end, ends) {
        Ok(end) => one.end = end,
        Err(()) => return Some(Vec::new()),
    }
    let mut within: Vec<String> = Vec::new();
    for part in one.within.into_iter().chain(other.within) {
        let known = one.start.iter().chain(&one.end).chain(&within);
        if known.map(|known| fold(known)).any(|known| known.contains(&fold(&part))) {
            continue;
        }
        within.retain(|known| !fold(&part).contains(&fold(known)));
        within.push(part);
    }
    if within.len() > MAX_PARTS {
        return None;
    }
    let mut conditions = Vec::new();
    for order in orders(&within) {
        let sequence: Vec<&str> = one.start.iter().chain(order).chain(&one.end).map(String::as_str).collect();
        for chain in chains(&sequence, &fold) {
            let mut expression = String::from(if one.cased { "(?s)" } else { "(?is)" });
            expression.push_str(if one.start.is_some() { "^" } else { "" });
            expression.push_str(&chain.iter().map(|part| regex::escape(part)).collect::<Vec<_>>().join(".*"));
            expression.push_str(if one.end.is_some() { "$" } else { "" });
            if expression.len() > MAX_REGEX_BYTES || conditions.len() >= MAX_CONDITIONS {
                return None;
            }
            conditions.push(json!({ "regex": expression }));
        }
    }
    Some(conditions)
}

/// Of two beginnings (or ends) the longer one, if it begins (or ends) with the other.
fn longer(one: Option<String>, other: Option<String>, has: impl Fn(&str, &str) -> bool) -> Result<Option<String>, ()> {
    match (one, other) {
        (Some(one), Some(other)) if has(&one, &other) => Ok(Some(one)),
        (Some(one), Some(other)) if has(&other, &one) => Ok(Some(other)),
        (Some(_), Some(_)) => Err(()),
        (one, other) => Ok(one.or(other)),
    }
}

fn orders(parts: &[String]) -> Vec<Vec<&String>> {
    if parts.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = vec![Vec::new()];
    for part in parts {
        all = all
            .into_iter()
            .flat_map(|order: Vec<&String>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, part);
                    longer
                })
            })
            .collect();
    }
    all
}

/// The texts that follow one another, with or without something between: what overlaps becomes one text.
fn chains(sequence: &[&str], fold: &impl Fn(&str) -> String) -> Vec<Vec<String>> {
    let mut chains: Vec<Vec<String>> = vec![Vec::new()];
    let mut before: Option<&str> = None;
    for part in sequence {
        let mut next = Vec::new();
        for chain in chains {
            if let (Some(before), Some(last)) = (before, chain.last()) {
                for (shared, _) in part.char_indices().skip(1).chain([(part.len(), ' ')]) {
                    let (Some(head), Some(tail)) = (part.get(..shared), part.get(shared..)) else { continue };
                    if fold(before).ends_with(&fold(head)) {
                        let mut overlapped = chain.clone();
                        overlapped.pop();
                        overlapped.push(format!("{last}{tail}"));
                        next.push(overlapped);
                    }
                }
            }
            let mut apart = chain;
            apart.push((*part).to_owned());
            next.push(apart);
        }
        chains = next;
        before = Some(part);
        if chains.len() > MAX_CONDITIONS {
            break;
        }
    }
    chains
}

#[allow(clippy::needless_pass_by_value, reason = "literals are easier to give by value")]
#[cfg(test)]
mod tests {
    use super::*;

    fn met(left: Value, right: Value) -> String {
        let met = meet(left.as_array().unwrap(), right.as_array().unwrap());
        met.map_or_else(|| "cannot be said".to_owned(), |met| Value::Array(met).to_string())
    }

    #[test]
    fn what_two_lists_share() {
        let contains = |text: &str| json!([{ "regex": format!("(?is){text}") }]);
        let all: Vec<_> = [
            (json!(["a", "b"]), json!(["b", "c"])),
            (json!(["a"]), json!([{ "anything-but": ["a", "x"] }])),
            (json!(["b"]), json!([{ "anything-but": ["a", "x"] }])),
            (json!([{ "anything-but": "a" }]), json!([{ "anything-but": ["b"] }])),
            (
                json!([{ "exists": false }, { "anything-but": "a" }]),
                json!([{ "exists": false }, { "anything-but": "b" }]),
            ),
            (json!([{ "anything-but": "a" }]), json!([{ "anything-but": 5 }])),
            (json!([{ "equals-ignore-case": "Ab" }]), json!([{ "prefix": { "equals-ignore-case": "a" } }])),
            (json!([{ "equals-ignore-case": "Ab" }, true]), json!(["AB", true, null])),
            (json!([{ "exists": false }, null]), json!([{ "exists": true }])),
            (json!([5, 6]), json!([{ "numeric": [">", 5] }])),
            (json!([{ "numeric": [">", 5] }]), json!([{ "numeric": ["<=", 9] }])),
            (json!([{ "numeric": [">", 5] }]), json!([{ "numeric": [">=", 5] }])),
            (json!([{ "numeric": ["<", 5] }]), json!([{ "numeric": ["<", 7] }])),
            (json!([{ "numeric": ["<", 5] }]), json!([{ "numeric": [">=", 5] }])),
            (json!([{ "wildcard": "*" }, 5]), json!([{ "cidr": "10.0.0.0/8" }])),
            (contains("ab"), contains("bc")),
            (contains("ab"), contains("xaby")),
            (contains("ab"), json!([{ "prefix": { "equals-ignore-case": "abc" } }])),
            (json!([{ "prefix": "ab" }]), json!([{ "suffix": "bc" }])),
            (json!([{ "prefix": "ab" }]), json!([{ "prefix": "abc" }])),
            (json!([{ "prefix": "ab" }]), json!([{ "prefix": "b" }])),
            (contains("a.*b"), contains("c")),
        ]
        .into_iter()
        .map(|(left, right)| met(left, right))
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        ["b"]
        []
        ["b"]
        [{"anything-but":["a","b"]}]
        [{"exists":false},{"anything-but":["a","b"]}]
        cannot be said
        [{"equals-ignore-case":"Ab"}]
        ["AB",true]
        [null]
        [6]
        [{"numeric":[">",5,"<=",9]}]
        [{"numeric":[">",5]}]
        [{"numeric":["<",5]}]
        []
        cannot be said
        [{"regex":"(?is)bc.*ab"},{"regex":"(?is)abc"},{"regex":"(?is)ab.*bc"}]
        [{"regex":"(?is)xaby"}]
        [{"regex":"(?is)^abc"}]
        [{"regex":"(?s)^abc$"},{"regex":"(?s)^ab.*bc$"}]
        [{"regex":"(?s)^abc"}]
        []
        cannot be said
        "#);
    }

    #[test]
    fn the_orders_of_parts_are_exact() {
        let texts: Vec<String> = (0..3_usize.pow(5))
            .flat_map(|mut n| {
                let text: String = (0..5)
                    .map(|_| {
                        let c = ['a', 'b', 'c'][n % 3];
                        n /= 3;
                        c
                    })
                    .collect();
                (0..=5).map(move |length| text.chars().take(length).collect::<String>())
            })
            .collect();
        let contains = |part: &str| vec![json!({ "regex": format!("(?is){part}") })];
        let prefix = |part: &str| vec![json!({ "prefix": { "equals-ignore-case": part } })];
        let suffix = |part: &str| vec![json!({ "suffix": { "equals-ignore-case": part } })];
        let compiled = |values: &[Value]| -> Vec<Regex> {
            let expressions = values.iter().map(|value| match kind(value) {
                Kind::Text(Text::Parts(parts)) => format!("(?is){}", parts.expression()),
                Kind::Text(Text::Expression(expression)) => expression,
                _ => panic!("{value}"),
            });
            expressions.map(|expression| Regex::new(&expression).unwrap()).collect()
        };
        let holds = |any: &[Regex], text: &str| any.iter().any(|regex| regex.is_match(text));
        let (short, long) = (["a", "ab", "bc", "aba"], ["ba", "abc", "bab", "cc"]);
        for one in short {
            for other in long {
                for (left, right) in [
                    (contains(one), contains(other)),
                    (prefix(one), contains(other)),
                    (contains(one), suffix(other)),
                    (prefix(one), suffix(other)),
                    (suffix(one), prefix(other)),
                ] {
                    let both = compiled(&meet(&left, &right).unwrap());
                    let (left, right) = (compiled(&left), compiled(&right));
                    for text in &texts {
                        let expected = holds(&left, text) && holds(&right, text);
                        assert_eq!(holds(&both, text), expected, "{left:?} and {right:?} on {text}");
                    }
                }
            }
        }
    }
}
