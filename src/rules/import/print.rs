//! Rules as text, in the style of `monitored_events.json`: a key of a rule on each line, the values of a list side by
//! side up to the width of the page.

use std::fmt::Write;

use serde_json::Value;

const WIDTH: usize = 120;
const STEP: usize = 2;

/// A rule file that holds the rules.
#[must_use]
pub fn print(rules: &[Value]) -> String {
    let mut text = String::from("{\n  \"events\": [");
    for (i, rule) in rules.iter().enumerate() {
        text.push_str(if i > 0 { ",\n    " } else { "\n    " });
        put(&mut text, rule, 4, true, 1);
    }
    text.push_str("\n  ]\n}");
    text
}

/// Writes a value that begins at the end of `text`; `indent` is that of its line, and `after` what follows it there.
fn put(text: &mut String, value: &Value, indent: usize, broken: bool, after: usize) {
    let line = flat(value);
    let column = text.len() - text.rfind('\n').map_or(0, |newline| newline + 1);
    if !broken && column + line.chars().count() + after <= WIDTH {
        text.push_str(&line);
        return;
    }
    let inner = indent + STEP;
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('{');
            for (i, (key, member)) in members.iter().enumerate() {
                let separator = if i > 0 { "," } else { "" };
                let _ = write!(text, "{separator}\n{:inner$}{}: ", "", quoted(key));
                put(text, member, inner, false, 1);
            }
            let _ = write!(text, "\n{:indent$}}}", "");
        }
        Value::Array(values) if values.iter().any(|value| value.is_object() || value.is_array()) => {
            text.push('[');
            for (i, value) in values.iter().enumerate() {
                let separator = if i > 0 { "," } else { "" };
                let _ = write!(text, "{separator}\n{:inner$}", "");
                put(text, value, inner, false, 1);
            }
            let _ = write!(text, "\n{:indent$}]", "");
        }
        Value::Array(values) if !values.is_empty() => fill(text, values, indent),
        _ => text.push_str(&line),
    }
}

/// As many values on each line as fit.
fn fill(text: &mut String, values: &[Value], indent: usize) {
    let inner = indent + STEP;
    text.push('[');
    let mut column = usize::MAX;
    for (i, value) in values.iter().enumerate() {
        let value = flat(value);
        let width = value.chars().count();
        if i > 0 {
            text.push(',');
        }
        if column.saturating_add(width + 3) > WIDTH {
            let _ = write!(text, "\n{:inner$}", "");
            column = inner;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(&value);
        column += width + 1;
    }
    let _ = write!(text, "\n{:indent$}]", "");
}

/// On one line. The depth is that of a rule, which is bounded.
fn flat(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", values.iter().map(flat).collect::<Vec<_>>().join(", ")),
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(key, value)| format!("{}: {}", quoted(key), flat(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        _ => value.to_string(),
    }
}

fn quoted(key: &str) -> String {
    Value::from(key).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_printed_as_the_house_writes_them() {
        let names: Vec<_> = (0..12).map(|i| format!("DeleteSomething{i}")).collect();
        let rules = [
            json!({ "id": "a", "severity": "LOW", "eventName": "B" }),
            json!({
                "id": "b", "description": "A \"quoted\" text", "eventName": names,
                "pattern": {
                    "userIdentity.type": ["Root"],
                    "$or": [
                        { "errorCode": [{ "prefix": "AccessDenied" }, { "wildcard": "*UnauthorizedOperation" }] },
                        { "errorMessage": [{ "regex": "(?is)this is a rather long expression that does not fit|nor does this one" }] }
                    ]
                }
            }),
        ];
        let text = print(&rules);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "events": rules }));
        insta::assert_snapshot!(text, @r#"
        {
          "events": [
            {
              "id": "a",
              "severity": "LOW",
              "eventName": "B"
            },
            {
              "id": "b",
              "description": "A \"quoted\" text",
              "eventName": [
                "DeleteSomething0", "DeleteSomething1", "DeleteSomething2", "DeleteSomething3", "DeleteSomething4",
                "DeleteSomething5", "DeleteSomething6", "DeleteSomething7", "DeleteSomething8", "DeleteSomething9",
                "DeleteSomething10", "DeleteSomething11"
              ],
              "pattern": {
                "userIdentity.type": ["Root"],
                "$or": [
                  { "errorCode": [{ "prefix": "AccessDenied" }, { "wildcard": "*UnauthorizedOperation" }] },
                  {
                    "errorMessage": [{ "regex": "(?is)this is a rather long expression that does not fit|nor does this one" }]
                  }
                ]
              }
            }
          ]
        }
        "#);
    }
}
