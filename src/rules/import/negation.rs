//! "Not" for the value conditions of one field: what a list of conditions leaves over, as lists that must all hold.
//!
//! Exact for a field that holds one plain value or is absent. Where a field holds a list, `anything-but` holds as soon
//! as one element differs; for these, only an exception of the rule negates exactly.

use serde_json::{Value, json};

use super::expression::{Conjunction, Expression, Leaf, Problem};
use super::meeting::{all_but, meet};
use super::possible;

/// Why something cannot be negated: the field that stands in the way.
#[derive(Debug, PartialEq)]
pub(super) struct NotNegatable(pub(super) String);

/// The expression without any "not", by De Morgan's laws.
pub(super) fn pushed_down(expression: &Expression, negated: bool) -> Result<Expression, NotNegatable> {
    let all = |parts: &[Expression]| parts.iter().map(|part| pushed_down(part, negated)).collect::<Result<Vec<_>, _>>();
    Ok(match (expression, negated) {
        (Expression::Not(part), _) => pushed_down(part, !negated)?,
        (Expression::All(parts), false) | (Expression::Any(parts), true) => Expression::All(all(parts)?),
        (Expression::Any(parts), false) | (Expression::All(parts), true) => Expression::Any(all(parts)?),
        (Expression::Leaf(leaf), false) => Expression::Leaf(leaf.clone()),
        (Expression::Leaf(leaf), true) => {
            let lists = complement(&leaf.values).ok_or_else(|| NotNegatable(leaf.path.clone()))?;
            let mut lists: Vec<_> = lists
                .into_iter()
                .map(|values| Expression::leaf(leaf.path.clone(), possible(&leaf.path, values)))
                .collect();
            if lists.len() == 1 { lists.remove(0) } else { Expression::All(lists) }
        }
    })
}

/// What must all hold, as one pattern, and what must not: of two conditions on one field that cannot be joined, one
/// becomes the exception that its opposite is.
pub(super) fn whole(parts: Vec<Expression>) -> Result<(Conjunction, Vec<Leaf>), Problem> {
    let mut kept: Vec<Expression> = Vec::new();
    let mut unless = Vec::new();
    let mut waiting: Vec<Expression> = parts.into_iter().rev().collect();
    while let Some(part) = waiting.pop() {
        let leaf = match part {
            Expression::All(parts) => {
                waiting.extend(parts.into_iter().rev());
                continue;
            }
            Expression::Leaf(leaf) => leaf,
            other => {
                kept.push(other);
                continue;
            }
        };
        let earlier = kept.iter_mut().find_map(|kept| match kept {
            Expression::Leaf(kept) if kept.path == leaf.path && meet(&kept.values, &leaf.values).is_none() => {
                Some(kept)
            }
            _ => None,
        });
        let Some(earlier) = earlier else {
            kept.push(Expression::Leaf(leaf));
            continue;
        };
        if let Some(values) = opposite(&leaf.values, &earlier.values) {
            unless.push(Leaf { values: possible(&leaf.path, values), path: leaf.path });
        } else if let Some(values) = opposite(&earlier.values, &leaf.values) {
            unless.push(Leaf { values: possible(&leaf.path, values), path: leaf.path.clone() });
            *earlier = leaf;
        } else {
            return Err(Problem::Together(leaf.path));
        }
    }
    Ok((Conjunction::of(&Expression::All(kept))?, unless))
}

/// What does not meet `values` of what meets `others`, as a single list.
fn opposite(values: &[Value], others: &[Value]) -> Option<Vec<Value>> {
    let mut lists = complement(values)?;
    let mut values = if lists.len() == 1 { lists.pop()? } else { return None };
    let absent = json!({ "exists": false });
    if !others.contains(&absent) {
        values.retain(|value| *value != absent);
    }
    (!values.is_empty()).then_some(values)
}

/// Any text.
pub(super) fn any_text() -> Value {
    json!({ "wildcard": "*" })
}

/// Any number.
pub(super) fn any_number() -> [Value; 2] {
    [json!({ "numeric": [">=", 0] }), json!({ "numeric": ["<", 0] })]
}

/// What the conditions of a field accept, by the kind of value.
#[allow(clippy::struct_excessive_bools, reason = "a set of kinds of values")]
#[derive(Default)]
struct Accepted {
    absent: bool,
    null: bool,
    yes: bool,
    no: bool,
    every_text: bool,
    every_number: bool,
    numbers: Vec<Value>,
    exact: Vec<Value>,
    ignoring_case: Vec<Value>,
    expressions: Vec<String>,
    /// `{"field": ...}`
    references: Vec<Value>,
}

/// What a list of conditions leaves over, as lists that must all hold; `None` if it cannot be said.
pub(super) fn complement(values: &[Value]) -> Option<Vec<Vec<Value>>> {
    if let Some((accepts_absent, but)) = all_but(values) {
        let mut rest = match but {
            Value::Array(values) => values.clone(),
            Value::Object(members) => {
                let (key, operand) = members.iter().next()?;
                let operands = operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()]);
                operands.into_iter().map(|operand| json!({ key: operand })).collect()
            }
            value => vec![value.clone()],
        };
        rest.extend((!accepts_absent).then(|| json!({ "exists": false })));
        return Some(vec![rest]);
    }
    let accepted = accepted(values)?;
    let absent = || if accepted.absent { Vec::new() } else { vec![json!({ "exists": false })] };
    let mut lists = Vec::new();
    let kinds_are_open =
        !(accepted.null || accepted.yes || accepted.no || accepted.every_text || accepted.every_number);
    if !kinds_are_open {
        let mut rest = absent();
        rest.extend((!accepted.every_text).then(any_text));
        if !accepted.every_number {
            rest.extend(any_number());
        }
        rest.extend((!accepted.yes).then_some(Value::Bool(true)));
        rest.extend((!accepted.no).then_some(Value::Bool(false)));
        rest.extend((!accepted.null).then_some(Value::Null));
        if rest.is_empty() {
            return None;
        }
        lists.push(rest);
    }
    let mut but = |condition: Value| {
        let mut list = absent();
        list.push(json!({ "anything-but": condition }));
        lists.push(list);
    };
    if !accepted.every_text {
        let (exact, ignoring_case) = (&accepted.exact, &accepted.ignoring_case);
        if accepted.expressions.is_empty() {
            if !exact.is_empty() {
                but(one_or_all(exact));
            }
            if !ignoring_case.is_empty() {
                but(json!({ "equals-ignore-case": one_or_all(ignoring_case) }));
            }
        } else {
            let escaped = |value: &Value| value.as_str().map(regex::escape);
            let exact = exact.iter().filter_map(escaped).map(|text| format!("^{text}$"));
            let ignoring_case = ignoring_case.iter().filter_map(escaped).map(|text| format!("(?i:^{text}$)"));
            let all: Vec<_> = exact.chain(ignoring_case).chain(accepted.expressions.iter().cloned()).collect();
            but(json!({ "regex": all.join("|") }));
        }
    }
    if !accepted.every_number && !accepted.numbers.is_empty() {
        but(one_or_all(&accepted.numbers));
    }
    for reference in accepted.references {
        but(reference);
    }
    if lists.is_empty() {
        // Only "absent" was accepted.
        lists.push(vec![json!({ "exists": true })]);
    }
    Some(lists)
}

fn one_or_all(values: &[Value]) -> Value {
    if let [only] = values { only.clone() } else { json!(values) }
}

/// `None` for a condition of which the opposite cannot be said.
fn accepted(values: &[Value]) -> Option<Accepted> {
    let halves = any_number();
    let accepts_every_number = halves.iter().all(|half| values.contains(half));
    let mut accepted = Accepted { every_number: accepts_every_number, ..Accepted::default() };
    for value in values {
        match value {
            Value::Null => accepted.null = true,
            Value::Bool(true) => accepted.yes = true,
            Value::Bool(false) => accepted.no = true,
            Value::Number(_) => accepted.numbers.push(value.clone()),
            Value::String(_) => accepted.exact.push(value.clone()),
            Value::Object(members) => {
                let (key, operand) = members.iter().next()?;
                match (key.as_str(), operand) {
                    ("exists", Value::Bool(false)) => accepted.absent = true,
                    ("exists", Value::Bool(true)) => {
                        (accepted.null, accepted.yes, accepted.no) = (true, true, true);
                        (accepted.every_text, accepted.every_number) = (true, true);
                    }
                    ("wildcard", Value::String(text)) if text == "*" => accepted.every_text = true,
                    ("equals-ignore-case", Value::String(_)) => accepted.ignoring_case.push(operand.clone()),
                    ("regex", Value::String(text)) => accepted.expressions.push(format!("(?:{text})")),
                    ("prefix", operand) => {
                        let (text, flags) = affix(operand)?;
                        accepted.expressions.push(format!("({flags}^{text})"));
                    }
                    ("suffix", operand) => {
                        let (text, flags) = affix(operand)?;
                        accepted.expressions.push(format!("({flags}{text}$)"));
                    }
                    ("field", _) => accepted.references.push(value.clone()),
                    ("numeric", _) if accepts_every_number && halves.contains(value) => {}
                    _ => return None,
                }
            }
            Value::Array(_) => return None,
        }
    }
    Some(accepted)
}

fn affix(operand: &Value) -> Option<(String, &'static str)> {
    match operand {
        Value::String(text) => Some((regex::escape(text), "?:")),
        operand => Some((regex::escape(operand.get("equals-ignore-case")?.as_str()?), "?i:")),
    }
}

/// The fields of negated conditions that may hold a list, for which the negation asks for one element that differs.
pub(super) fn doubtful(expression: &Expression) -> Vec<String> {
    fn visit(expression: &Expression, negated: bool, found: &mut Vec<String>) {
        match expression {
            Expression::All(parts) | Expression::Any(parts) => {
                for part in parts {
                    visit(part, negated, found);
                }
            }
            Expression::Not(part) => visit(part, !negated, found),
            Expression::Leaf(Leaf { path, .. }) => {
                if negated && !super::is_plain_field(path) && !found.contains(path) {
                    found.push(path.clone());
                }
            }
        }
    }
    let mut found = Vec::new();
    visit(expression, false, &mut found);
    found
}

#[allow(clippy::needless_pass_by_value, reason = "literals are easier to give by value")]
#[cfg(test)]
mod tests {
    use super::*;

    fn not(values: Value) -> String {
        complement(values.as_array().unwrap()).map_or_else(|| "none".to_owned(), |lists| json!(lists).to_string())
    }

    #[test]
    fn what_conditions_leave_over() {
        let all: Vec<_> = [
            json!([{ "equals-ignore-case": "a" }, { "equals-ignore-case": "b" }]),
            json!(["A", 5]),
            json!([{ "equals-ignore-case": "true" }, true]),
            json!([{ "exists": false }, null]),
            json!([{ "exists": false }]),
            json!([{ "exists": true }]),
            json!([{ "prefix": { "equals-ignore-case": "a." } }, { "regex": "(?is)b.c" }, "d"]),
            json!([{ "wildcard": "*" }, { "numeric": [">=", 0] }, { "numeric": ["<", 0] }, true, false]),
            json!([{ "field": "a.b" }]),
            json!([{ "anything-but": ["a", "b"] }]),
            json!([{ "exists": false }, { "anything-but": { "prefix": "a" } }]),
            json!([{ "cidr": "10.0.0.0/8" }]),
            json!([{ "numeric": ["<", 5] }]),
        ]
        .into_iter()
        .map(not)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        [[{"exists":false},{"anything-but":{"equals-ignore-case":["a","b"]}}]]
        [[{"exists":false},{"anything-but":"A"}],[{"exists":false},{"anything-but":5}]]
        [[{"exists":false},{"wildcard":"*"},{"numeric":[">=",0]},{"numeric":["<",0]},false,null],[{"exists":false},{"anything-but":{"equals-ignore-case":"true"}}]]
        [[{"wildcard":"*"},{"numeric":[">=",0]},{"numeric":["<",0]},true,false]]
        [[{"exists":true}]]
        [[{"exists":false}]]
        [[{"exists":false},{"anything-but":{"regex":"^d$|(?i:^a\\.)|(?:(?is)b.c)"}}]]
        [[{"exists":false},null]]
        [[{"exists":false},{"anything-but":{"field":"a.b"}}]]
        [["a","b",{"exists":false}]]
        [[{"prefix":"a"}]]
        none
        none
        "#);
    }

    #[test]
    fn negation_is_pushed_to_the_fields() {
        let leaf = |path: &str| Expression::leaf(path, vec![json!("x")]);
        let not = |part| Expression::Not(Box::new(part));
        let expression = not(Expression::Any(vec![leaf("a"), not(leaf("requestParameters.b"))]));
        assert_eq!(doubtful(&expression), ["a"]);
        let pushed = pushed_down(&expression, false).unwrap();
        assert!(pushed.is_positive());
        insta::assert_snapshot!(format!("{pushed:?}"), @r#"All([Leaf(Leaf { path: "a", values: [Object {"exists": Bool(false)}, Object {"anything-but": String("x")}] }), Leaf(Leaf { path: "requestParameters.b", values: [String("x")] })])"#);
        let address = not(Expression::leaf("sourceIPAddress", vec![json!({ "cidr": "10.0.0.0/8" })]));
        assert_eq!(pushed_down(&address, false), Err(NotNegatable("sourceIPAddress".into())));
    }
}
