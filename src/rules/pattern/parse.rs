//! From the text of a pattern to conditions, or to what is wrong with it.

use std::sync::Arc;

use regex::RegexBuilder;

use super::value::{AddressRange, Folded, Number, Range, Test, Wildcard, address};
use super::{Condition, FieldPattern, Kind, Lists, Or, Pattern};
use crate::rules::document::{Node, Value};
use crate::rules::reader::{Complaint, MAX_VALUE_BYTES, Place, Reader, bounded};
use crate::rules::suggest::nearest;

/// How deep objects of a pattern nest, `{"json": ...}` within `{"json": ...}` included.
const MAX_DEPTH: usize = 32;
/// Names in one path.
const MAX_STEPS: usize = 48;
const MAX_PATH_BYTES: usize = 1_024;
/// What a compiled regular expression may take.
const MAX_REGEX_BYTES: usize = 1 << 20;

pub(in crate::rules) const CONDITIONS: [&str; 13] = [
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "cidr",
    "exists",
    "field",
    "list",
    "json",
    "regex",
    "exactly",
];
/// What `anything-but` takes.
pub(in crate::rules) const NEGATABLE: [&str; 8] =
    ["prefix", "suffix", "equals-ignore-case", "wildcard", "field", "list", "json", "regex"];
/// What a named list may hold.
pub(in crate::rules) const LISTABLE: [&str; 8] =
    ["prefix", "suffix", "equals-ignore-case", "wildcard", "numeric", "cidr", "regex", "exactly"];

impl Pattern {
    /// Reads a pattern. What is wrong is told to `reader`.
    pub(in crate::rules) fn read<'a>(
        reader: &mut Reader<'a>,
        place: &Place,
        node: Node<'a>,
        lists: &Lists,
    ) -> Option<Self> {
        let mut parser = Parser { reader, lists, depth: 0 };
        parser.pattern(place, node, "")
    }
}

/// The condition that a text with stars is.
pub(in crate::rules) fn wildcard(text: &str) -> Result<Test, &'static str> {
    Wildcard::parse(text).map(Test::Wildcard)
}

/// The values of a named list: exact ones, and the simpler conditions.
pub(in crate::rules) fn value_conditions<'a>(
    reader: &mut Reader<'a>,
    place: &Place,
    node: Node<'a>,
) -> Option<Vec<Test>> {
    let elements = reader.list(place, node, "a list of values")?;
    let lists = Lists::new();
    let mut parser = Parser { reader, lists: &lists, depth: 0 };
    let mut tests = Vec::with_capacity(elements.len());
    let mut complete = true;
    for (index, element) in elements.into_iter().enumerate() {
        let here = place.item(index, parser.reader.position(element));
        let test = parser.listed(&here, element);
        complete &= test.is_some();
        tests.extend(test);
    }
    complete.then_some(tests)
}

struct Parser<'r, 'a> {
    reader: &'r mut Reader<'a>,
    lists: &'r Lists,
    depth: usize,
}

impl<'a> Parser<'_, 'a> {
    fn pattern(&mut self, place: &Place, node: Node<'a>, prefix: &str) -> Option<Pattern> {
        if self.depth >= MAX_DEPTH {
            self.reader.error(place, format!("the pattern nests deeper than {MAX_DEPTH} levels"));
            return None;
        }
        self.depth += 1;
        let pattern = self.object(place, node, prefix);
        self.depth -= 1;
        pattern
    }

    fn object(&mut self, place: &Place, node: Node<'a>, prefix: &str) -> Option<Pattern> {
        let members = self.reader.object(place, node, "an object")?;
        if members.is_empty() {
            let advice = "name a field, or leave the pattern out";
            self.reader.error(place, Complaint::new("the object is empty: it would ask for nothing", advice));
            return None;
        }
        let errors_before = self.reader.errors();
        let mut pattern = Pattern { fields: Vec::new(), ors: Vec::new() };
        for (here, member) in members {
            if member.key == "$or" {
                pattern.ors.extend(self.or(&here, member.value, prefix));
                continue;
            }
            if member.key.is_empty() {
                self.reader.error(&here, "a field has no name");
                continue;
            }
            let path = if prefix.is_empty() { member.key.to_string() } else { format!("{prefix}.{}", member.key) };
            match member.value.kind() {
                "an object" => {
                    if let Some(below) = self.pattern(&here, member.value, &path) {
                        pattern.fields.extend(below.fields);
                        pattern.ors.extend(below.ors);
                    }
                }
                "a list" => pattern.fields.extend(self.field(&here, member.value, path)),
                kind => {
                    let advice = format!("write [{}]", bounded(member.value.text()));
                    let message = format!("expected a list of conditions or an object of fields, found {kind}");
                    self.reader.error(&here, Complaint::new(message, advice));
                }
            }
        }
        (self.reader.errors() == errors_before).then_some(pattern)
    }

    fn or(&mut self, place: &Place, node: Node<'a>, prefix: &str) -> Option<Or> {
        let elements = self.reader.list(place, node, "a list of patterns")?;
        if elements.len() < 2 {
            let advice = "write the fields of a single alternative without $or";
            self.reader.error(place, Complaint::new("$or needs at least two alternatives", advice));
            return None;
        }
        let mut branches = Vec::with_capacity(elements.len());
        let mut complete = true;
        for (index, element) in elements.into_iter().enumerate() {
            let here = place.item(index, self.reader.position(element));
            let branch = self.branch(&here, element, prefix);
            complete &= branch.is_some();
            branches.extend(branch);
        }
        complete.then(|| Or { place: place.clone(), branches })
    }

    /// An alternative of `$or` asks for fields; a condition without a field is a common mistake.
    fn branch(&mut self, place: &Place, node: Node<'a>, prefix: &str) -> Option<Pattern> {
        if let Ok(Value::Object(members)) = node.read()
            && let Some(member) = members.iter().find(|member| CONDITIONS.contains(&&*member.key))
        {
            let message = format!("{:?} is a condition on a value, not a field", member.key);
            self.reader
                .error(place, Complaint::new(message, "an alternative is an object of fields: {\"name\": [...]}"));
            return None;
        }
        self.pattern(place, node, prefix)
    }

    fn field(&mut self, place: &Place, node: Node<'a>, path: String) -> Option<FieldPattern> {
        if path.len() > MAX_PATH_BYTES || path.split('.').count() > MAX_STEPS {
            let message = format!("the path has more than {MAX_STEPS} names or {MAX_PATH_BYTES} bytes");
            self.reader.error(place, message);
            return None;
        }
        let elements = self.reader.list(place, node, "a list of conditions")?;
        if elements.is_empty() {
            let advice = "name a value, or ask for [{\"exists\": true}]";
            self.reader.error(place, Complaint::new("the list is empty: nothing would ever match", advice));
            return None;
        }
        let mut conditions = Vec::with_capacity(elements.len());
        let mut complete = true;
        for (index, element) in elements.into_iter().enumerate() {
            let here = place.item(index, self.reader.position(element));
            match self.condition(&here, element) {
                Some(kind) => conditions.push(Condition { place: here, text: element.text().to_owned(), kind }),
                None => complete = false,
            }
        }
        complete.then(|| FieldPattern { path, place: place.clone(), conditions })
    }

    fn condition(&mut self, place: &Place, node: Node<'a>) -> Option<Kind> {
        if node.kind() != "an object" {
            return self.exact(place, node).map(Kind::Value);
        }
        let (here, name, value) = self.only_member(place, node, &CONDITIONS)?;
        if name == "exists" {
            return match value.text() {
                "true" => Some(Kind::Value(Test::Exists)),
                "false" => Some(Kind::Absent),
                _ => {
                    self.reader.error(&here, "exists takes true or false");
                    None
                }
            };
        }
        self.named(&here, name, value).map(Kind::Value)
    }

    fn listed(&mut self, place: &Place, node: Node<'a>) -> Option<Test> {
        if node.kind() != "an object" {
            return self.exact(place, node);
        }
        let (here, name, value) = self.only_member(place, node, &LISTABLE)?;
        self.named(&here, name, value)
    }

    /// The single member of a condition, whose name must be one of `known`.
    fn only_member(
        &mut self,
        place: &Place,
        node: Node<'a>,
        known: &[&'static str],
    ) -> Option<(Place, &'static str, Node<'a>)> {
        let mut members = self.reader.object(place, node, "a condition")?;
        if members.len() > 1 {
            let advice = "put each into an object of its own: the conditions of a list are alternatives";
            self.reader.error(place, Complaint::new("a condition has exactly one key", advice));
            return None;
        }
        let Some((here, member)) = members.pop() else {
            let message = format!("the condition is empty; give one of {}", known.join(", "));
            self.reader.error(place, message);
            return None;
        };
        let found = known.iter().copied().find(|name| *name == member.key);
        if found.is_none() {
            let advice = match nearest(&member.key, known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if CONDITIONS.contains(&&*member.key) => format!("here only {} are possible", known.join(", ")),
                None => format!("known are {}", known.join(", ")),
            };
            self.reader.error(&here, Complaint::new("unknown condition", advice));
        }
        Some((here, found?, member.value))
    }

    fn exact(&mut self, place: &Place, node: Node<'a>) -> Option<Test> {
        match node.kind() {
            "a string" => {
                let text = self.reader.any_text(place, node, MAX_VALUE_BYTES)?;
                Some(address(&text).map_or(Test::Text(text), Test::Address))
            }
            "a number" => self.number(place, node).map(Test::Number),
            "a boolean" => Some(Test::Bool(node.text() == "true")),
            "null" => Some(Test::Null),
            _ => {
                self.reader.error(place, "a list within the list of conditions; write the values side by side");
                None
            }
        }
    }

    fn number(&mut self, place: &Place, node: Node<'a>) -> Option<Number> {
        let number = Number::parse(node.text());
        if number.is_none() {
            let kind = node.kind();
            self.reader.error(place, format!("expected a number that is not out of range, found {kind}"));
        }
        number
    }

    fn named(&mut self, place: &Place, name: &str, node: Node<'a>) -> Option<Test> {
        match name {
            "prefix" | "suffix" if node.kind() == "an object" => {
                let (here, _, value) = self.only_member(place, node, &["equals-ignore-case"])?;
                let folded = Folded::new(&self.reader.any_text(&here, value, MAX_VALUE_BYTES)?);
                Some(if name == "prefix" { Test::PrefixIgnoreCase(folded) } else { Test::SuffixIgnoreCase(folded) })
            }
            "prefix" => self.reader.any_text(place, node, MAX_VALUE_BYTES).map(Test::Prefix),
            "suffix" => self.reader.any_text(place, node, MAX_VALUE_BYTES).map(Test::Suffix),
            "exactly" => self.reader.any_text(place, node, MAX_VALUE_BYTES).map(Test::Text),
            "equals-ignore-case" => self
                .reader
                .any_text(place, node, MAX_VALUE_BYTES)
                .map(|text| Test::EqualsIgnoreCase(Folded::new(&text))),
            "wildcard" => {
                let text = self.reader.any_text(place, node, MAX_VALUE_BYTES)?;
                match Wildcard::parse(&text) {
                    Ok(wildcard) => Some(Test::Wildcard(wildcard)),
                    Err(why) => {
                        self.reader.error(place, why);
                        None
                    }
                }
            }
            "numeric" => self.numeric(place, node).map(Test::Numeric),
            "cidr" => {
                let text = self.reader.text(place, node, MAX_VALUE_BYTES)?;
                let range = AddressRange::parse(&text);
                if let Some(network) = range.and_then(|range| range.network()) {
                    let message = format!(
                        "the block begins inside of its network: lower addresses from {network} on do not match"
                    );
                    self.reader.warning(place, Complaint::new(message, format!("write the network as {network}/...")));
                }
                if range.is_none() {
                    let shown = bounded(&text);
                    let advice = "write an address, a slash and the bits of the network: \"10.0.0.0/8\"";
                    self.reader.error(place, Complaint::new(format!("{shown:?} is no CIDR block"), advice));
                }
                range.map(Test::Cidr)
            }
            "regex" => {
                let text = self.reader.text(place, node, MAX_VALUE_BYTES)?;
                match RegexBuilder::new(&text).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build() {
                    Ok(regex) => Some(Test::Regex(regex)),
                    Err(error) => {
                        // The last line says what; those before draw the expression.
                        let error = error.to_string();
                        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                        self.reader.error(place, format!("no regular expression: {reason}"));
                        None
                    }
                }
            }
            "field" => self.path(place, node).map(Test::Field),
            "list" => {
                let name = self.reader.text(place, node, MAX_VALUE_BYTES)?;
                let list = self.lists.get(&name).cloned();
                if list.is_none() {
                    let message = format!("there is no list {:?}", bounded(&name));
                    let mut known: Vec<_> = self.lists.keys().map(String::as_str).collect();
                    known.sort_unstable();
                    let advice =
                        format!("define it under \"lists\" at the top of the file; known are {}", known.join(", "));
                    self.reader.error(place, Complaint::new(message, advice));
                }
                list.map(Test::List)
            }
            "json" => {
                let pattern = self.pattern(place, node, "")?;
                pattern.compile(self.reader, place).map(|compiled| Test::Json(Arc::new(compiled)))
            }
            _ => self.anything_but(place, node),
        }
    }

    fn path(&mut self, place: &Place, node: Node<'a>) -> Option<String> {
        let path = self.reader.text(place, node, MAX_PATH_BYTES)?;
        if path.split('.').count() > MAX_STEPS {
            self.reader.error(place, format!("the path has more than {MAX_STEPS} names"));
            return None;
        }
        Some(path)
    }

    /// What does not match: a value, a list of values of one kind, or another condition.
    fn anything_but(&mut self, place: &Place, node: Node<'a>) -> Option<Test> {
        match node.kind() {
            "a string" | "a number" => self.unlike(place, node).map(|test| Test::AnythingBut(vec![test])),
            "a list" => {
                let mut kinds =
                    self.reader.list(place, node, "a list")?.into_iter().map(Node::kind).collect::<Vec<_>>();
                kinds.sort_unstable();
                kinds.dedup();
                if kinds.len() > 1 {
                    let advice = "EventBridge takes either strings or numbers";
                    self.reader.error(place, Complaint::new("values of different kinds under anything-but", advice));
                    return None;
                }
                self.each(place, node, Self::unlike).map(Test::AnythingBut)
            }
            "an object" => {
                let (here, name, value) = self.only_member(place, node, &NEGATABLE)?;
                // The four that EventBridge has take a list, too.
                if value.kind() == "a list" {
                    if matches!(name, "field" | "list" | "json" | "regex") {
                        self.reader.error(&here, format!("{name} takes no list here"));
                        return None;
                    }
                    return self
                        .each(&here, value, |parser, place, node| parser.part(place, name, node))
                        .map(Test::AnythingBut);
                }
                self.part(&here, name, value).map(|test| Test::AnythingBut(vec![test]))
            }
            kind => {
                self.reader.error(place, format!("anything-but takes strings, numbers or a condition, not {kind}"));
                None
            }
        }
    }

    /// An address is one text among others here.
    fn unlike(&mut self, place: &Place, node: Node<'a>) -> Option<Test> {
        match node.kind() {
            "a string" => self.reader.any_text(place, node, MAX_VALUE_BYTES).map(Test::Text),
            "a number" => self.number(place, node).map(Test::Number),
            kind => {
                self.reader.error(place, format!("anything-but takes strings or numbers, not {kind}"));
                None
            }
        }
    }

    fn part(&mut self, place: &Place, name: &str, node: Node<'a>) -> Option<Test> {
        if matches!(name, "prefix" | "suffix") {
            if node.kind() == "an object" {
                let advice = "EventBridge refuses it; use {\"anything-but\": {\"regex\": \"(?i)...\"}}";
                let message = format!("{name} with equals-ignore-case is not possible under anything-but");
                self.reader.error(place, Complaint::new(message, advice));
                return None;
            }
            // Every text has an empty part: nothing would be left.
            self.reader.text(place, node, MAX_VALUE_BYTES)?;
        }
        self.named(place, name, node)
    }

    fn each(
        &mut self,
        place: &Place,
        node: Node<'a>,
        mut read: impl FnMut(&mut Self, &Place, Node<'a>) -> Option<Test>,
    ) -> Option<Vec<Test>> {
        let elements = self.reader.list(place, node, "a list")?;
        if elements.is_empty() {
            self.reader
                .error(place, Complaint::new("the list is empty", "name a value, or ask for {\"exists\": true}"));
            return None;
        }
        let mut tests = Vec::with_capacity(elements.len());
        let mut complete = true;
        for (index, element) in elements.into_iter().enumerate() {
            let here = place.item(index, self.reader.position(element));
            let test = read(self, &here, element);
            complete &= test.is_some();
            tests.extend(test);
        }
        complete.then_some(tests)
    }

    fn numeric(&mut self, place: &Place, node: Node<'a>) -> Option<Range> {
        let elements =
            self.reader.list(place, node, "a list of operators and numbers, such as [\">\", 0, \"<=\", 5]")?;
        let (pairs, odd) = elements.as_chunks::<2>();
        if pairs.is_empty() || !odd.is_empty() || pairs.len() > 2 {
            let message = "numeric takes one or two pairs of operator and number";
            self.reader.error(place, Complaint::new(message, "such as [\">\", 0, \"<=\", 5]"));
            return None;
        }
        let mut range = Range::default();
        for (index, [operator, bound]) in pairs.iter().enumerate() {
            let here = place.item(2 * index, self.reader.position(*operator));
            let there = place.item(2 * index + 1, self.reader.position(*bound));
            let operator = self.reader.text(&here, *operator, MAX_VALUE_BYTES)?;
            let bound = self.number(&there, *bound)?;
            let repeated = match operator.as_str() {
                ">" | ">=" => range.low.replace((bound, operator == ">=")).is_some(),
                "<" | "<=" => range.high.replace((bound, operator == "<=")).is_some(),
                "=" => {
                    let before = range.low.replace((bound, true)).is_some();
                    range.high.replace((bound, true)).is_some() || before
                }
                other => {
                    let shown = bounded(other);
                    self.reader
                        .error(&here, Complaint::new(format!("{shown:?} is no operator"), "give one of = < <= > >="));
                    return None;
                }
            };
            if repeated {
                self.reader.error(&here, "a bound on the same side a second time");
                return None;
            }
        }
        if !range.can_hold() {
            self.reader.error(place, "no number is in this range: the condition is never true");
            return None;
        }
        Some(range)
    }
}
