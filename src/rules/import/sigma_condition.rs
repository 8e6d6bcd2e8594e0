//! The `condition` of a Sigma rule: `selection and not 1 of filter_*`.
//!
//! As the Sigma specification (appendix "Condition") and pySigma read it: `not` binds tighter than `and`, `and` tighter
//! than `or`; `1 of`, `any of` and `all of` take a name with `*`, or `them`: every name that does not begin with `_`.

const MAX_DEPTH: usize = 64;
const MAX_TOKENS: usize = 4_096;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Selection(String),
}

impl Condition {
    /// The names of its selections, for the reason of an exception.
    pub(super) fn names(&self) -> String {
        match self {
            Self::Selection(name) => name.clone(),
            Self::Not(part) => part.names(),
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::names).collect::<Vec<_>>().join(", "),
        }
    }
}

/// # Errors
///
/// What is wrong with it, and what to do.
pub(super) fn parse(text: &str, selections: &[&str]) -> Result<Condition, String> {
    if let Some((_, aggregation)) = text.split_once('|') {
        let what = aggregation.trim();
        return Err(format!("the aggregation \"| {what}\" counts over several records, which a rule cannot do yet"));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, selections, depth: 0 };
    let condition = parser.any_of()?;
    match parser.tokens.first() {
        None => Ok(condition),
        Some(token) => Err(format!("{token:?} is not expected here; put \"and\" or \"or\" before it")),
    }
}

fn tokens(text: &str) -> Result<Vec<&str>, String> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '*' | '?' | '.');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            other => return Err(format!("{other:?} has no meaning in a condition")),
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        tokens.push(token);
        if tokens.len() > MAX_TOKENS {
            return Err("the condition is too long".to_owned());
        }
        rest = after.trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    selections: &'a [&'a str],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.first().copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.eq_ignore_ascii_case(word));
        if found {
            self.next();
        }
        found
    }

    fn any_of(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.all_of()?];
        while self.takes("or") {
            parts.push(self.all_of()?);
        }
        Ok(joined(parts, Condition::Or))
    }

    fn all_of(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.term()?];
        while self.takes("and") {
            parts.push(self.term()?);
        }
        Ok(joined(parts, Condition::And))
    }

    fn term(&mut self) -> Result<Condition, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the condition nests too deeply".to_owned());
        }
        let term = self.shallow_term();
        self.depth -= 1;
        term
    }

    fn shallow_term(&mut self) -> Result<Condition, String> {
        let Some(token) = self.next() else {
            return Err("the condition ends where a selection is expected".to_owned());
        };
        let is_quantified = self.peek().is_some_and(|next| next.eq_ignore_ascii_case("of"));
        match token {
            "(" => {
                let inner = self.any_of()?;
                if self.takes(")") { Ok(inner) } else { Err("a parenthesis is not closed".to_owned()) }
            }
            ")" => Err("a parenthesis closes where a selection is expected".to_owned()),
            _ if is_quantified => {
                self.next();
                let Some(pattern) = self.next() else {
                    return Err(format!("\"{token} of\" lacks its names"));
                };
                self.quantified(token, pattern)
            }
            _ if token.eq_ignore_ascii_case("not") => Ok(Condition::Not(Box::new(self.term()?))),
            name if self.selections.contains(&name) => Ok(Condition::Selection(name.to_owned())),
            name => {
                let known = self.selections.join(", ");
                Err(format!("the selection {name:?} is not defined; there are: {known}"))
            }
        }
    }

    fn quantified(&self, quantifier: &str, pattern: &str) -> Result<Condition, String> {
        let fits = |name: &str| match pattern {
            "them" => !name.starts_with('_'),
            // Names that begin with `_` are left out of "1 of x*" unless the pattern names them so.
            _ => name_matches(pattern, name) && (pattern.starts_with('_') || !name.starts_with('_')),
        };
        let named = self.selections.iter().filter(|name| fits(name));
        let parts: Vec<_> = named.map(|name| Condition::Selection((*name).to_owned())).collect();
        if parts.is_empty() {
            return Err(format!("\"{quantifier} of {pattern}\" names no selection"));
        }
        match quantifier.to_ascii_lowercase().as_str() {
            "1" | "any" => Ok(joined(parts, Condition::Or)),
            "all" => Ok(joined(parts, Condition::And)),
            _ => Err(format!("\"{quantifier} of\" is not supported; write out which selections may go together")),
        }
    }
}

fn joined(mut parts: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    crate::rules::wildcard::matches(&pattern.replace('?', "\u{0}"), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["selection", "filter_a", "filter_b", "_hidden", "not_this"];

    fn read(text: &str) -> String {
        fn show(condition: &Condition) -> String {
            let list = |parts: &[Condition]| parts.iter().map(show).collect::<Vec<_>>().join(" ");
            match condition {
                Condition::And(parts) => format!("(and {})", list(parts)),
                Condition::Or(parts) => format!("(or {})", list(parts)),
                Condition::Not(part) => format!("(not {})", show(part)),
                Condition::Selection(name) => name.clone(),
            }
        }
        parse(text, &NAMES).map_or_else(|error| format!("error: {error}"), |condition| show(&condition))
    }

    #[test]
    fn conditions_are_read_with_their_precedence() {
        let all: Vec<_> = [
            "selection",
            "selection and not 1 of filter_*",
            "not selection and filter_a or filter_b",
            "selection and (filter_a or filter_b)",
            "not (selection and filter_a)",
            "not not_this",
            "all of filter_*",
            "any of them",
            "ALL OF them",
            "1 of _*",
            "1 of selection",
        ]
        .into_iter()
        .map(read)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @"
        selection
        (and selection (not (or filter_a filter_b)))
        (or (and (not selection) filter_a) filter_b)
        (and selection (or filter_a filter_b))
        (not (and selection filter_a))
        (not not_this)
        (and filter_a filter_b)
        (or selection filter_a filter_b not_this)
        (and selection filter_a filter_b not_this)
        _hidden
        selection
        ");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let all: Vec<_> = [
            "",
            "selection and",
            "selection filter_a",
            "(selection",
            "selection)",
            "selecton",
            "2 of filter_*",
            "1 of nothing*",
            "1 of",
            "selection | count() by userName > 5",
            "selection & filter_a",
        ]
        .into_iter()
        .map(read)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        error: the condition ends where a selection is expected
        error: the condition ends where a selection is expected
        error: "filter_a" is not expected here; put "and" or "or" before it
        error: a parenthesis is not closed
        error: ")" is not expected here; put "and" or "or" before it
        error: the selection "selecton" is not defined; there are: selection, filter_a, filter_b, _hidden, not_this
        error: "2 of" is not supported; write out which selections may go together
        error: "1 of nothing*" names no selection
        error: "1 of" lacks its names
        error: the aggregation "| count() by userName > 5" counts over several records, which a rule cannot do yet
        error: '&' has no meaning in a condition
        "#);
        assert!(read(&"(".repeat(10_000)).ends_with("too long"));
        assert!(read(&"not ".repeat(1_000)).ends_with("too deeply"));
    }
}
