//! Metric filters on JSON: `{ ($.eventName = "ConsoleLogin") && ($.errorMessage = "Failed*") }`.
//!
//! The syntax is that of the CloudWatch Logs user guide, "Filter pattern syntax": `&&` binds tighter than `||`; `*` is a
//! wildcard at the ends of a text. `!=` asks for a field that is there and differs: an absent field does not meet it,
//! as the "test pattern" of the console shows (and as `anything-but` means it here).

use serde_json::{Number, Value, json};

use super::expression::{Expression, Leaf};
use super::negation::whole;
use super::{Draft, MAX_VALUE_BYTES, Outcome, Scope, is_container, possible};
use crate::rules::fields::{self, Shape};

const MAX_DEPTH: usize = 64;
const MAX_FILTER_BYTES: usize = 64 << 10;
const MAX_FILTERS: usize = 10_000;

/// The filters of a file: `describe-metric-filters` as JSON, one filter, or one on each line, with or without a name.
pub(super) fn rules(file: &Scope<'_>, text: &str) -> Vec<Outcome> {
    if let Ok(Value::Object(members)) = serde_json::from_str::<Value>(text) {
        return match members.get("metricFilters") {
            Some(Value::Array(filters)) if !filters.is_empty() => {
                filters.iter().enumerate().map(|(i, filter)| described(file, i, filter)).collect()
            }
            _ => vec![Err(vec![file.error("", "expected {\"metricFilters\": [...]}, or the text of a filter")])],
        };
    }
    if text.trim().starts_with('{') && (text.matches('{').count() == 1 || !text.trim().contains('\n')) {
        return vec![rule(file.of(file.stem()), "", text)];
    }
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let lines: Vec<_> = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
    if lines.len() > MAX_FILTERS {
        return vec![Err(vec![file.error("", format!("more than {MAX_FILTERS} filters; split the file"))])];
    }
    lines.into_iter().map(|(number, line)| named_line(file, number, line)).collect()
}

fn described(file: &Scope<'_>, index: usize, filter: &Value) -> Outcome {
    let text = |key: &str| filter.get(key).and_then(Value::as_str);
    let name = text("filterName").unwrap_or(file.stem());
    let place = format!("metricFilters[{index}].filterPattern");
    match text("filterPattern") {
        Some(pattern) => rule(file.of(name), &place, pattern),
        None => Err(vec![file.of(name).error(place, "the filter has no pattern")]),
    }
}

fn named_line(file: &Scope<'_>, number: usize, line: &str) -> Outcome {
    let place = format!("line {number}");
    let named = line.split_once('{').map(|(before, _)| before.trim_end());
    match named.and_then(|before| before.strip_suffix(':')).map(str::trim) {
        Some(name) if !name.is_empty() => {
            let pattern = line.get(line.find('{').unwrap_or_default()..).unwrap_or_default();
            rule(file.of(name), &place, pattern)
        }
        _ => rule(file.of(file.stem()), &place, line),
    }
}

fn rule(scope: Scope<'_>, place: &str, text: &str) -> Outcome {
    convert(&scope, text).map_err(|message| vec![scope.error(place, message)])
}

fn convert(scope: &Scope<'_>, text: &str) -> Result<Draft, String> {
    if text.len() > MAX_FILTER_BYTES {
        return Err(format!("the filter is longer than {MAX_FILTER_BYTES} bytes"));
    }
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(
        "only filters on JSON, written { $.field = ... }, can be imported: a filter on words or columns sees no fields",
    )?;
    let mut draft = Draft { id: scope.rule.unwrap_or_default().to_owned(), ..Draft::default() };
    let mut parser = Parser { rest: inner, depth: 0, notes: Vec::new() };
    let expression = parser.any_of()?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(parser.unexpected("\"&&\", \"||\" or the end"));
    }
    for note in parser.notes {
        draft.note(note);
    }
    let (asked, mut unless) = exceptions_of(expression)?;
    let (mut pattern, opposites) = whole(asked).map_err(|problem| problem.message())?;
    unless.extend(opposites);
    if pattern.is_empty() {
        return Err("the filter only says what a number must not be; add what must be there".to_owned());
    }
    for (path, names) in [("eventSource", &mut draft.event_source), ("eventName", &mut draft.event_name)] {
        let plain = |value: &Value| {
            value.as_str().filter(|text| !text.contains(['*', '?']) && !text.is_empty()).map(str::to_owned)
        };
        let values = pattern.field(path).and_then(|field| field.values.iter().map(plain).collect::<Option<Vec<_>>>());
        if let Some(values) = values {
            pattern.take_field(path);
            *names = values;
        }
    }
    draft.pattern = pattern.to_pattern();
    for Leaf { path, values } in unless {
        draft
            .unless
            .push(json!({ "pattern": { &path: values }, "reason": format!("the filter asks for another {path}") }));
    }
    Ok(draft)
}

/// Takes out what becomes an exception: that a number or boolean is different.
fn exceptions_of(expression: Expression) -> Result<(Vec<Expression>, Vec<Leaf>), String> {
    let parts = match expression {
        Expression::All(parts) => parts,
        one => vec![one],
    };
    let (mut asked, mut unless) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Expression::All(_) => {
                let (more, exceptions) = exceptions_of(part)?;
                asked.extend(more);
                unless.extend(exceptions);
            }
            Expression::Not(inner) => match *inner {
                Expression::Leaf(leaf) => {
                    let (typed, texts): (Vec<_>, Vec<_>) =
                        leaf.values.into_iter().partition(|value| value.is_number() || value.is_boolean());
                    let differs = texts.into_iter().map(|text| json!({ "anything-but": text })).collect();
                    asked.push(Expression::leaf(leaf.path.clone(), differs));
                    unless.push(Leaf { path: leaf.path, values: typed });
                }
                other => asked.push(other),
            },
            part if part.is_positive() => asked.push(part),
            part => {
                let mut paths = Vec::new();
                part.each_leaf(&mut |leaf| paths.push(leaf.path.clone()));
                return Err(format!(
                    "that a number or boolean differs cannot be said within \"||\" ({}); write it in quotes if it is a text",
                    paths.join(", ")
                ));
            }
        }
    }
    Ok((asked, unless))
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
    notes: Vec<String>,
}

/// What stands on the right of an operator.
enum Operand {
    Quoted(String),
    Bare(String),
    Regex(String),
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.skip_space();
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// A word in capitals or not, that ends where it ends.
    fn takes_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let Some((start, after)) = self.rest.split_at_checked(word.len()) else {
            return false;
        };
        let ends = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let found = ends && start.eq_ignore_ascii_case(word);
        if found {
            self.rest = after;
        }
        found
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.rest.chars().next() {
            None => format!("the filter ends where {wanted} is expected"),
            Some(_) => format!("expected {wanted} at {:?}", super::bounded(self.rest.trim_end(), 40)),
        }
    }

    fn any_of(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.all_of()?];
        while self.takes("||") {
            parts.push(self.all_of()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn all_of(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.term()?];
        while self.takes("&&") {
            parts.push(self.term()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn term(&mut self) -> Result<Expression, String> {
        if !self.takes("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the filter nests too deeply".to_owned());
        }
        let inner = self.any_of()?;
        self.depth -= 1;
        if self.takes(")") { Ok(inner) } else { Err(self.unexpected("\")\"")) }
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        let path = self.selector()?;
        let leaf = |values| Expression::leaf(path.clone(), values);
        if self.takes_word("IS") {
            let value = [("NULL", Value::Null), ("TRUE", json!(true)), ("FALSE", json!(false))];
            let found = value.into_iter().find(|(word, _)| self.takes_word(word));
            return found.map(|(_, value)| leaf(vec![value])).ok_or_else(|| self.unexpected("NULL, TRUE or FALSE"));
        }
        let absent = self.takes_word("NOT");
        if self.takes_word("EXISTS") {
            return exists(&path, !absent, &mut self.notes).map(leaf);
        }
        if absent {
            return Err(self.unexpected("EXISTS"));
        }
        let operators = ["!=", "<=", ">=", "=", "<", ">"];
        let Some(operator) = operators.into_iter().find(|operator| self.takes(operator)) else {
            return Err(self.unexpected("an operator (= != < > <= >=), IS or EXISTS"));
        };
        let operand = self.operand()?;
        match operator {
            "=" => Ok(leaf(possible(&path, equal(operand, &mut self.notes)?))),
            "!=" => Ok(different(&path, operand, &mut self.notes)?),
            _ => match operand {
                Operand::Bare(text) if number(&text).is_some() => {
                    Ok(leaf(vec![json!({ "numeric": [operator, number(&text)] })]))
                }
                _ => Err(format!("{operator} compares with a number; {path} is given none")),
            },
        }
    }

    /// `$.a.b`, `$['a'].b`, `$.a[*]`
    fn selector(&mut self) -> Result<String, String> {
        if !self.takes("$") {
            return Err(self.unexpected("a field such as $.eventName"));
        }
        let mut names: Vec<String> = Vec::new();
        loop {
            if let Some(after) = self.rest.strip_prefix('.') {
                // `$.['a']` is `$['a']`.
                if after.starts_with('[') {
                    self.rest = after;
                    continue;
                }
                let end = after
                    .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '@')))
                    .unwrap_or(after.len());
                let (name, rest) = after.split_at_checked(end).unwrap_or((after, ""));
                self.rest = rest;
                if name.is_empty() {
                    return Err(self.unexpected("a field's name"));
                }
                names.push(name.to_owned());
            } else if let Some(after) = self.rest.strip_prefix('[') {
                let (inside, rest) = after.split_once(']').ok_or("a [ of a field is not closed")?;
                self.rest = rest;
                let inside = inside.trim();
                let quoted = ['\'', '"'].into_iter().find_map(|quote| inside.strip_prefix(quote)?.strip_suffix(quote));
                match quoted {
                    Some(name) if !name.is_empty() => names.push(name.to_owned()),
                    _ if inside == "*" && !names.is_empty() => {}
                    _ if !inside.is_empty() && inside.bytes().all(|byte| byte.is_ascii_digit()) => {
                        let path = names.join(".");
                        return Err(format!(
                            "the place [{inside}] of a list cannot be asked for; write $.{path}[*]: any element"
                        ));
                    }
                    _ => return Err(format!("[{inside}] names no field")),
                }
            } else {
                break;
            }
        }
        if names.is_empty() { Err(self.unexpected("a field's name")) } else { Ok(names.join(".")) }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.skip_space();
        let mut characters = self.rest.char_indices();
        let operand = match characters.next() {
            Some((_, quote @ ('"' | '%'))) => {
                let mut text = String::new();
                let mut escaped = false;
                let mut end = None;
                for (at, character) in characters {
                    if !escaped && character == quote {
                        end = Some(at + quote.len_utf8());
                        break;
                    }
                    if !escaped && character == '\\' {
                        escaped = true;
                        continue;
                    }
                    // In a regular expression the escapes are its own.
                    if escaped
                        && !(quote == '"' && matches!(character, '"' | '\\'))
                        && !(quote == '%' && character == '%')
                    {
                        text.push('\\');
                    }
                    escaped = false;
                    text.push(character);
                }
                let end = end.ok_or_else(|| format!("a {quote} is not closed"))?;
                self.rest = self.rest.get(end..).unwrap_or_default();
                if quote == '"' { Operand::Quoted(text) } else { Operand::Regex(text) }
            }
            Some((_, '\'')) => {
                return Err("texts stand in double quotes; single ones are part of the text to CloudWatch".to_owned());
            }
            _ => {
                let ends =
                    |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '&' | '|' | '=' | '!' | '<' | '>' | '"');
                let end = self.rest.find(ends).unwrap_or(self.rest.len());
                let (text, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
                if text.is_empty() {
                    return Err(self.unexpected("a value"));
                }
                self.rest = rest;
                Operand::Bare(text.to_owned())
            }
        };
        let length = match &operand {
            Operand::Quoted(text) | Operand::Bare(text) | Operand::Regex(text) => text.len(),
        };
        if length > MAX_VALUE_BYTES {
            return Err(format!("a value is longer than {MAX_VALUE_BYTES} bytes; shorten it"));
        }
        Ok(operand)
    }
}

fn exists(path: &str, wanted: bool, notes: &mut Vec<String>) -> Result<Vec<Value>, String> {
    if is_container(path) {
        return Err(format!("whether the object {path} exists cannot be asked; ask for a field inside of it"));
    }
    if !super::is_plain_field(path) {
        push(notes, format!("EXISTS: an object or an empty list at {path} reads as absent"));
    }
    Ok(vec![json!({ "exists": wanted })])
}

fn equal(operand: Operand, notes: &mut Vec<String>) -> Result<Vec<Value>, String> {
    Ok(match operand {
        Operand::Regex(text) => vec![json!({ "regex": regular_expression(&text)? })],
        Operand::Bare(text) if text == "*" => vec![json!({ "exists": true })],
        Operand::Quoted(text) => vec![text_condition(&text, notes)],
        Operand::Bare(text) => {
            // Without quotes it may be either: CloudTrail writes account ids as texts.
            let mut values = vec![text_condition(&text, notes)];
            values.extend(typed(&text));
            values
        }
    })
}

fn different(path: &str, operand: Operand, notes: &mut Vec<String>) -> Result<Expression, String> {
    let but = |condition: Value| Expression::leaf(path, vec![json!({ "anything-but": condition })]);
    Ok(match operand {
        Operand::Regex(text) => but(json!({ "regex": regular_expression(&text)? })),
        Operand::Quoted(text) => but(text_condition(&text, notes)),
        Operand::Bare(text) => {
            let differs = but(text_condition(&text, notes));
            match (typed(&text), fields::look_up(path)) {
                (None, _) | (_, Ok(Shape::Text)) => differs,
                (Some(Value::Bool(is)), Ok(Shape::Boolean)) => Expression::leaf(path, vec![json!(!is)]),
                // It may be the value or its text: neither must be there.
                (Some(value), _) => {
                    Expression::Not(Box::new(Expression::leaf(path, vec![text_condition(&text, notes), value])))
                }
            }
        }
    })
}

/// The number or boolean that a bare word may be.
fn typed(text: &str) -> Option<Value> {
    match text {
        "true" => Some(json!(true)),
        "false" => Some(json!(false)),
        text => number(text).map(Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    let whole = plain.parse::<i64>().map(Number::from);
    whole.ok().or_else(|| plain.parse::<f64>().ok().and_then(Number::from_f64))
}

/// `*` at the ends of a text is any run of characters; elsewhere it is itself.
fn text_condition(text: &str, notes: &mut Vec<String>) -> Value {
    let (open_start, inner) = text.strip_prefix('*').map_or((false, text), |rest| (true, rest.trim_start_matches('*')));
    let (open_end, inner) = inner.strip_suffix('*').map_or((false, inner), |rest| (true, rest.trim_end_matches('*')));
    if inner.contains('*') {
        push(
            notes,
            format!(
                "{text:?}: CloudWatch reads a * within a text as that character; if any text is meant, write a wildcard"
            ),
        );
    }
    match (open_start, open_end) {
        (false, false) => json!(inner),
        _ if inner.is_empty() => json!({ "wildcard": "*" }),
        (false, true) => json!({ "prefix": inner }),
        (true, false) => json!({ "suffix": inner }),
        (true, true) => json!({ "wildcard": format!("*{}*", inner.replace('\\', r"\\").replace('*', r"\*")) }),
    }
}

fn regular_expression(text: &str) -> Result<String, String> {
    match regex::RegexBuilder::new(text).size_limit(1 << 20).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("the regular expression %{text}% cannot be used; check its syntax")),
    }
}

fn push(notes: &mut Vec<String>, note: String) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::RuleSet;
    use crate::rules::import::{Format, import, print};

    fn read(text: &str) -> String {
        match import(Format::CloudWatch, "filters.txt", text) {
            Ok(imported) => {
                let rules: Vec<_> = imported.iter().map(|imported| imported.rule.clone()).collect();
                let printed = print(&rules);
                RuleSet::parse(&printed).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
                let notes = imported.iter().flat_map(|imported| &imported.notes);
                notes.fold(printed, |shown, note| format!("{shown}\nnote: {note}"))
            }
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    /// What a filter becomes, without its id and severity.
    fn filter(text: &str) -> String {
        match import(Format::CloudWatch, "filters.txt", text) {
            Ok(mut imported) => {
                let one = imported.remove(0);
                let mut rule = one.rule;
                RuleSet::parse(&print(std::slice::from_ref(&rule))).unwrap_or_else(|errors| panic!("{errors}\n{rule}"));
                rule.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "severity");
                let notes = one.notes.into_iter().filter(|note| !note.contains("severity"));
                notes.fold(format!("{text}\n  {rule}"), |shown, note| format!("{shown}\n  note: {note}"))
            }
            Err(errors) => format!("{text}\n  error: {}", errors[0].message),
        }
    }

    #[test]
    fn filters_become_patterns() {
        let all: Vec<_> = [
            r#"{ $.eventName = "ConsoleLogin" && $.errorMessage = "Failed authentication" }"#,
            "{($.eventName=CreateTrail)||($.eventName=DeleteTrail)}",
            "{ ($.eventSource = kms.amazonaws.com) && (($.eventName = DisableKey) || ($.eventName = DeleteKey)) }",
            r#"{ $.errorCode = "*Unauthorized*" || $.errorCode = "Denied*" || $.errorCode = *Operation }"#,
            // As the CIS benchmark 1.4 prints its first filter: nearly every record meets it.
            r#"{ ($.errorCode = "*UnauthorizedOperation") || ($.errorCode = "AccessDenied*") || ($.sourceIPAddress != "delivery.example.com") || ($.eventName != "HeadBucket") }"#,
            r"{ $.a = 1 || $.b = 2 && $.c = 3 }",
            r#"{ $.userIdentity.type = "Root" && $.userIdentity.invokedBy NOT EXISTS && $.eventType != "AwsServiceEvent" }"#,
            "{ $.x IS NULL && $.y IS TRUE && $.z is false && $.userAgent EXISTS }",
            "{ $.requestParameters.size >= 5 && $.requestParameters.max < -1.5e3 }",
            "{ $.eventName != ActOne && $.eventName != ActTwo }",
            "{ $.eventName = Delete* && $.eventName != DeleteTags }",
            r#"{ $.recipientAccountId = 123456789012 && $.a != "5" && $.b != 5 }"#,
            "{ $.userIdentity.sessionContext.attributes.mfaAuthenticated != true && $.readOnly != true && $.a != true }",
            "{ $.errorCode = %Access(Denied|Refused)% && $.userAgent != %^aws-% }",
            r"{ $.a[*].b = x && $['c']['d-e'] = y && $.['f'] = z }",
            r#"{ $.a = "x\"y\\z" && $.b = "in*side" && $.c = "*a*b*" && $.d = * }"#,
        ]
        .into_iter()
        .map(filter)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        { $.eventName = "ConsoleLogin" && $.errorMessage = "Failed authentication" }
          {"eventName":"ConsoleLogin","pattern":{"errorMessage":["Failed authentication"]}}
        {($.eventName=CreateTrail)||($.eventName=DeleteTrail)}
          {"eventName":["CreateTrail","DeleteTrail"]}
        { ($.eventSource = kms.amazonaws.com) && (($.eventName = DisableKey) || ($.eventName = DeleteKey)) }
          {"eventSource":"kms.amazonaws.com","eventName":["DisableKey","DeleteKey"]}
        { $.errorCode = "*Unauthorized*" || $.errorCode = "Denied*" || $.errorCode = *Operation }
          {"pattern":{"errorCode":[{"wildcard":"*Unauthorized*"},{"prefix":"Denied"},{"suffix":"Operation"}]}}
        { ($.errorCode = "*UnauthorizedOperation") || ($.errorCode = "AccessDenied*") || ($.sourceIPAddress != "delivery.example.com") || ($.eventName != "HeadBucket") }
          {"pattern":{"$or":[{"errorCode":[{"suffix":"UnauthorizedOperation"},{"prefix":"AccessDenied"}]},{"sourceIPAddress":[{"anything-but":"delivery.example.com"}]},{"eventName":[{"anything-but":"HeadBucket"}]}]}}
        { $.a = 1 || $.b = 2 && $.c = 3 }
          {"pattern":{"$or":[{"a":["1",1]},{"b":["2",2],"c":["3",3]}]}}
        { $.userIdentity.type = "Root" && $.userIdentity.invokedBy NOT EXISTS && $.eventType != "AwsServiceEvent" }
          {"pattern":{"userIdentity.type":["Root"],"userIdentity.invokedBy":[{"exists":false}],"eventType":[{"anything-but":"AwsServiceEvent"}]}}
        { $.x IS NULL && $.y IS TRUE && $.z is false && $.userAgent EXISTS }
          {"pattern":{"x":[null],"y":[true],"z":[false],"userAgent":[{"exists":true}]}}
        { $.requestParameters.size >= 5 && $.requestParameters.max < -1.5e3 }
          {"pattern":{"requestParameters.size":[{"numeric":[">=",5]}],"requestParameters.max":[{"numeric":["<",-1500.0]}]}}
        { $.eventName != ActOne && $.eventName != ActTwo }
          {"pattern":{"eventName":[{"anything-but":["ActOne","ActTwo"]}]}}
        { $.eventName = Delete* && $.eventName != DeleteTags }
          {"pattern":{"eventName":[{"prefix":"Delete"}]},"unless":[{"pattern":{"eventName":["DeleteTags"]},"reason":"the filter asks for another eventName"}]}
        { $.recipientAccountId = 123456789012 && $.a != "5" && $.b != 5 }
          {"pattern":{"recipientAccountId":["123456789012"],"a":[{"anything-but":"5"}],"b":[{"anything-but":"5"}]},"unless":[{"pattern":{"b":[5]},"reason":"the filter asks for another b"}]}
        { $.userIdentity.sessionContext.attributes.mfaAuthenticated != true && $.readOnly != true && $.a != true }
          {"pattern":{"userIdentity.sessionContext.attributes.mfaAuthenticated":[{"anything-but":"true"}],"readOnly":[false],"a":[{"anything-but":"true"}]},"unless":[{"pattern":{"a":[true]},"reason":"the filter asks for another a"}]}
        { $.errorCode = %Access(Denied|Refused)% && $.userAgent != %^aws-% }
          {"pattern":{"errorCode":[{"regex":"Access(Denied|Refused)"}],"userAgent":[{"anything-but":{"regex":"^aws-"}}]}}
        { $.a[*].b = x && $['c']['d-e'] = y && $.['f'] = z }
          {"pattern":{"a.b":["x"],"c.d-e":["y"],"f":["z"]}}
        { $.a = "x\"y\\z" && $.b = "in*side" && $.c = "*a*b*" && $.d = * }
          {"pattern":{"a":["x\"y\\z"],"b":["in*side"],"c":[{"wildcard":"*a\\*b*"}],"d":[{"exists":true}]}}
          note: "in*side": CloudWatch reads a * within a text as that character; if any text is meant, write a wildcard
          note: "*a*b*": CloudWatch reads a * within a text as that character; if any text is meant, write a wildcard
        "#);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let all: Vec<_> = [
            "ERROR -timeout",
            "[ip, user, status = 4*]",
            "{ }",
            "{ $.a = }",
            "{ $.a }",
            "{ $.a = b $.c = d }",
            "{ ($.a = b }",
            "{ $.a = \"b }",
            "{ $.a = 'b' }",
            "{ $.a[0].b = c }",
            "{ $.a[b] = c }",
            "{ a = b }",
            "{ $.a < b }",
            "{ $.a NOT b }",
            "{ $.requestParameters NOT EXISTS }",
            "{ $.a = b || $.c != true }",
            "{ $.a = %(% }",
            "{ $.a = b || $.c != 5 }",
            "{ $.a = b && $.a = c }",
            "{ $.a > 5 && $.a < 9 }",
        ]
        .into_iter()
        .map(filter)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        ERROR -timeout
          error: only filters on JSON, written { $.field = ... }, can be imported: a filter on words or columns sees no fields
        [ip, user, status = 4*]
          error: only filters on JSON, written { $.field = ... }, can be imported: a filter on words or columns sees no fields
        { }
          error: expected {"metricFilters": [...]}, or the text of a filter
        { $.a = }
          error: the filter ends where a value is expected
        { $.a }
          error: the filter ends where an operator (= != < > <= >=), IS or EXISTS is expected
        { $.a = b $.c = d }
          error: expected "&&", "||" or the end at "$.c = d"
        { ($.a = b }
          error: the filter ends where ")" is expected
        { $.a = "b }
          error: a " is not closed
        { $.a = 'b' }
          error: texts stand in double quotes; single ones are part of the text to CloudWatch
        { $.a[0].b = c }
          error: the place [0] of a list cannot be asked for; write $.a[*]: any element
        { $.a[b] = c }
          error: [b] names no field
        { a = b }
          error: expected a field such as $.eventName at "a = b"
        { $.a < b }
          error: < compares with a number; a is given none
        { $.a NOT b }
          error: expected EXISTS at "b"
        { $.requestParameters NOT EXISTS }
          error: whether the object requestParameters exists cannot be asked; ask for a field inside of it
        { $.a = b || $.c != true }
          error: that a number or boolean differs cannot be said within "||" (a, c); write it in quotes if it is a text
        { $.a = %(% }
          error: the regular expression %(% cannot be used; check its syntax
        { $.a = b || $.c != 5 }
          error: that a number or boolean differs cannot be said within "||" (a, c); write it in quotes if it is a text
        { $.a = b && $.a = c }
          error: the conditions on a exclude each other: only a list could meet both, which cannot be said
        { $.a > 5 && $.a < 9 }
          {"pattern":{"a":[{"numeric":[">",5,"<",9]}]}}
        "#);
        assert!(filter(&format!("{{ {}$.a = b }}", "(".repeat(1_000))).ends_with("nests too deeply"));
        assert!(filter(&format!("{{ $.a = {} }}", "x".repeat(2_000))).contains("longer than 1024 bytes"));
    }

    #[test]
    fn files_are_lines_or_what_aws_describes() {
        let all: Vec<_> = [
            "# ours\nroot login: { $.userIdentity.type = \"Root\" }\n\n{ $.eventName = ActOne }\n{ $.eventName = ActTwo }",
            "{ $.eventName = ActOne\n  && $.errorCode = B }",
            r#"{"metricFilters": [{"filterName": "No MFA", "filterPattern": "{ $.a = \"b\" }", "metricTransformations": []}]}"#,
            "one: { $.eventName = ActOne }\ntwo: ERROR\nthree",
            r#"{"metricFilters": [{"filterName": "words", "filterPattern": "ERROR"}, {"filterName": "none"}]}"#,
            r#"{"other": 1}"#,
        ]
        .into_iter()
        .map(read)
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "pattern": { "userIdentity.type": ["Root"] }
            },
            {
              "id": "filters",
              "severity": "MEDIUM",
              "eventName": "ActOne"
            },
            {
              "id": "filters-2",
              "severity": "MEDIUM",
              "eventName": "ActTwo"
            }
          ]
        }
        note: the id is made from the name "root login"
        note: the format has no severity: MEDIUM is a guess
        note: the format has no severity: MEDIUM is a guess
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "filters",
              "severity": "MEDIUM",
              "eventName": "ActOne",
              "pattern": { "errorCode": ["B"] }
            }
          ]
        }
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "No-MFA",
              "severity": "MEDIUM",
              "pattern": { "a": ["b"] }
            }
          ]
        }
        note: the id is made from the name "No MFA"
        note: the format has no severity: MEDIUM is a guess

        filters.txt: line 2 (rule "filters"): only filters on JSON, written { $.field = ... }, can be imported: a filter on words or columns sees no fields
        filters.txt: line 3 (rule "filters"): only filters on JSON, written { $.field = ... }, can be imported: a filter on words or columns sees no fields

        filters.txt: metricFilters[0].filterPattern (rule "words"): only filters on JSON, written { $.field = ... }, can be imported: a filter on words or columns sees no fields
        filters.txt: metricFilters[1].filterPattern (rule "none"): the filter has no pattern

        filters.txt: expected {"metricFilters": [...]}, or the text of a filter
        "#);
    }
}
