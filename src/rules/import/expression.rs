//! A condition made of "all of", "any of" and fields, written as one pattern.
//!
//! A pattern's object says "all of"; its lists and `$or` say "any of". Two conditions on one field are worked out into
//! one list, and two `$or` side by side are multiplied out, up to the engine's own limit.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::is_plain_field;
use super::meeting::meet;

/// As many ways as the engine allows for a pattern to be met.
const MAX_WAYS: usize = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Leaf(Leaf),
}

/// A field, and value conditions of which one must hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf {
    /// Names joined by dots.
    pub(super) path: String,
    pub(super) values: Vec<Value>,
}

impl Expression {
    pub(super) fn leaf(path: impl Into<String>, values: Vec<Value>) -> Self {
        Self::Leaf(Leaf { path: path.into(), values })
    }

    /// Whether nothing in it is negated.
    pub(super) fn is_positive(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::is_positive),
            Self::Not(_) => false,
            Self::Leaf(_) => true,
        }
    }

    /// The fields of which two things are asked together.
    pub(super) fn asked_twice(&self) -> BTreeSet<&str> {
        let parts = match self {
            Self::All(parts) | Self::Any(parts) => parts,
            Self::Not(part) => return part.asked_twice(),
            Self::Leaf(_) => return BTreeSet::new(),
        };
        let mut twice: BTreeSet<&str> = parts.iter().flat_map(Self::asked_twice).collect();
        if matches!(self, Self::All(_)) {
            let mut seen = BTreeSet::new();
            for part in parts {
                let mut paths = BTreeSet::new();
                part.each_leaf(&mut |leaf| _ = paths.insert(leaf.path.as_str()));
                twice.extend(paths.intersection(&seen));
                seen.extend(paths);
            }
        }
        twice
    }

    /// Calls `visit` with every field.
    pub(super) fn each_leaf<'a>(&'a self, visit: &mut impl FnMut(&'a Leaf)) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.each_leaf(visit);
                }
            }
            Self::Not(part) => part.each_leaf(visit),
            Self::Leaf(leaf) => visit(leaf),
        }
    }
}

/// Why an expression is no pattern.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// More combinations than a pattern may have.
    TooMany,
    /// Conditions on this field that cannot be said together.
    Together(String),
    /// This field would have to meet conditions that nothing meets.
    Never(String),
}

impl Problem {
    /// What to tell the reader.
    pub(super) fn message(&self) -> String {
        match self {
            Self::TooMany => "the condition has too many combinations; split the rule".to_owned(),
            Self::Together(path) => {
                format!(
                    "two conditions on {path} that one pattern cannot say together; join them into one, or split the rule"
                )
            }
            Self::Never(path) if is_plain_field(path) => {
                format!("the conditions on {path} exclude each other: nothing would ever match")
            }
            Self::Never(path) => {
                format!(
                    "the conditions on {path} exclude each other: only a list could meet both, which cannot be said"
                )
            }
        }
    }
}

/// The object of a pattern: fields that must all hold, and branches of which one must. No path of a field stands in a
/// branch again: of a path that is asked for twice, the engine takes only the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conjunction {
    pub(super) fields: Vec<Leaf>,
    /// Empty, or at least two.
    pub(super) branches: Vec<Conjunction>,
}

impl Conjunction {
    /// The expression must be positive.
    ///
    /// # Errors
    ///
    /// If it cannot be said.
    pub(super) fn of(expression: &Expression) -> Result<Self, Problem> {
        match expression {
            Expression::Leaf(leaf) => Ok(Self { fields: vec![leaf.clone()], branches: Vec::new() }),
            Expression::All(parts) => {
                let mut whole = Self::default();
                // Fields first: they are not multiplied into branches then.
                let (plain, others): (Vec<_>, Vec<_>) =
                    parts.iter().partition(|part| matches!(part, Expression::Leaf(_)));
                for part in plain.into_iter().chain(others) {
                    whole = whole.and(Self::of(part)?)?.checked()?;
                }
                Ok(whole)
            }
            Expression::Any(parts) => {
                let mut branches = Vec::new();
                let mut never = None;
                for part in parts {
                    match Self::of(part) {
                        Ok(branch) if branch.fields.is_empty() => branches.extend(branch.branches),
                        Ok(branch) => branches.push(branch),
                        Err(Problem::Never(path)) => never = Some(Problem::Never(path)),
                        Err(problem) => return Err(problem),
                    }
                }
                match never {
                    Some(problem) if branches.is_empty() => Err(problem),
                    _ => Self::any(branches).checked(),
                }
            }
            Expression::Not(_) => Ok(Self::default()),
        }
    }

    fn any(branches: Vec<Self>) -> Self {
        let mut merged: Vec<Self> = Vec::new();
        for branch in branches {
            if !merged.iter_mut().any(|other| other.absorb(&branch)) {
                merged.push(branch);
            }
        }
        if merged.len() > 1 { Self { fields: Vec::new(), branches: merged } } else { merged.pop().unwrap_or_default() }
    }

    /// Takes in another branch that asks the same but for the values of one field.
    fn absorb(&mut self, other: &Self) -> bool {
        if self.branches != other.branches || self.fields.len() != other.fields.len() {
            return false;
        }
        let mut different = None;
        for (i, (mine, theirs)) in self.fields.iter().zip(&other.fields).enumerate() {
            if mine.path != theirs.path || (mine.values != theirs.values && different.replace(i).is_some()) {
                return false;
            }
        }
        if let Some(i) = different
            && let (Some(mine), Some(theirs)) = (self.fields.get_mut(i), other.fields.get(i))
        {
            for value in &theirs.values {
                if !mine.values.contains(value) {
                    mine.values.push(value.clone());
                }
            }
        }
        true
    }

    pub(super) fn and(mut self, other: Self) -> Result<Self, Problem> {
        for field in other.fields {
            self = self.and_field(field)?;
        }
        if other.branches.is_empty() {
            return Ok(self);
        }
        if self.branches.is_empty() {
            // What stands here and in a branch is said in the branches.
            let asked: Vec<Leaf> = self
                .fields
                .iter()
                .filter(|field| other.branches.iter().any(|branch| branch.asks(&field.path)))
                .cloned()
                .collect();
            self.fields.retain(|field| !asked.contains(field));
            let branches = each(other.branches, |branch| {
                asked.iter().try_fold(branch, |branch, field| branch.and_field(field.clone()))
            })?;
            return self.with_branches(branches);
        }
        let second = Self { fields: Vec::new(), branches: other.branches };
        let mut whole =
            Self { fields: Vec::new(), branches: each(self.branches, |branch| branch.and(second.clone()))? };
        if whole.branches.len() == 1 {
            whole = whole.branches.pop().unwrap_or_default();
        }
        self.branches = Vec::new();
        self.fields.into_iter().try_fold(whole, Self::and_field)
    }

    fn and_field(mut self, field: Leaf) -> Result<Self, Problem> {
        if let Some(mine) = self.fields.iter_mut().find(|mine| mine.path == field.path) {
            mine.values = match meet(&mine.values, &field.values) {
                Some(values) if values.is_empty() => return Err(Problem::Never(field.path)),
                Some(values) => values,
                None => return Err(Problem::Together(field.path)),
            };
            return Ok(self);
        }
        if self.branches.iter().any(|branch| branch.asks(&field.path)) {
            let branches = each(std::mem::take(&mut self.branches), |branch| branch.and_field(field.clone()))?;
            return self.with_branches(branches);
        }
        self.fields.push(field);
        Ok(self)
    }

    /// With branches of which some may have turned out to be impossible.
    fn with_branches(mut self, mut branches: Vec<Self>) -> Result<Self, Problem> {
        if branches.len() == 1 {
            return self.and(branches.pop().unwrap_or_default());
        }
        self.branches = branches;
        Ok(self)
    }

    fn asks(&self, path: &str) -> bool {
        self.field(path).is_some() || self.branches.iter().any(|branch| branch.asks(path))
    }

    /// In how many ways it can be met, as the engine counts: "absent, or one of" is two.
    fn ways(&self) -> usize {
        let is_absent = |value: &Value| value.get("exists") == Some(&Value::Bool(false));
        let fields = self.fields.iter().fold(1_usize, |ways, field| {
            let either = field.values.len() > 1 && field.values.iter().any(is_absent);
            ways.saturating_mul(if either { 2 } else { 1 })
        });
        let branches = self.branches.iter().fold(0_usize, |ways, branch| ways.saturating_add(branch.ways()));
        fields.saturating_mul(branches.max(1))
    }

    fn checked(self) -> Result<Self, Problem> {
        if self.ways() > MAX_WAYS { Err(Problem::TooMany) } else { Ok(self) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.branches.is_empty()
    }

    pub(super) fn field(&self, path: &str) -> Option<&Leaf> {
        self.fields.iter().find(|field| field.path == path)
    }

    pub(super) fn take_field(&mut self, path: &str) -> Option<Leaf> {
        let at = self.fields.iter().position(|field| field.path == path)?;
        Some(self.fields.remove(at))
    }

    pub(super) fn to_pattern(&self) -> Map<String, Value> {
        let fields = self.fields.iter().map(|field| (field.path.clone(), Value::Array(field.values.clone())));
        let mut pattern: Map<String, Value> = fields.collect();
        if !self.branches.is_empty() {
            let branches = self.branches.iter().map(|branch| Value::Object(branch.to_pattern()));
            pattern.insert("$or".to_owned(), Value::Array(branches.collect()));
        }
        pattern
    }
}

/// Changes each branch, and leaves out those that nothing meets.
fn each(
    branches: Vec<Conjunction>,
    change: impl Fn(Conjunction) -> Result<Conjunction, Problem>,
) -> Result<Vec<Conjunction>, Problem> {
    let mut changed = Vec::with_capacity(branches.len());
    let mut never = Problem::TooMany;
    for branch in branches {
        match change(branch) {
            Ok(branch) => changed.push(branch),
            Err(problem @ Problem::Never(_)) => never = problem,
            Err(problem) => return Err(problem),
        }
    }
    if changed.is_empty() { Err(never) } else { Ok(changed) }
}

#[allow(clippy::needless_pass_by_value, reason = "literals are easier to give by value")]
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use Expression::{All, Any};

    fn leaf(path: &str, values: Value) -> Expression {
        Expression::leaf(path, values.as_array().unwrap().clone())
    }

    fn pattern(expression: &Expression) -> String {
        Conjunction::of(expression)
            .map_or_else(|problem| problem.message(), |whole| Value::Object(whole.to_pattern()).to_string())
    }

    #[test]
    fn all_and_any_become_objects_lists_and_branches() {
        let (a, b, c) = (leaf("a", json!(["1"])), leaf("b", json!(["2"])), leaf("c", json!(["3"])));
        let a2 = leaf("a", json!(["9"]));
        let all: Vec<_> = [
            All(vec![a.clone(), b.clone()]),
            Any(vec![a.clone(), a2.clone()]),
            Any(vec![a.clone(), b.clone(), a2.clone()]),
            Any(vec![All(vec![a.clone(), b.clone()]), All(vec![a2.clone(), b.clone()])]),
            Any(vec![a.clone(), Any(vec![b.clone(), c.clone()])]),
            All(vec![Any(vec![a.clone(), b.clone()]), Any(vec![b.clone(), c.clone()])]),
            All(vec![a.clone(), a.clone()]),
            All(vec![a.clone(), a2.clone()]),
            All(vec![a.clone(), leaf("a", json!(["7", "8"]))]),
            All(vec![leaf("a", json!(["7", "8"])), a.clone()]),
            All(vec![Any(vec![a.clone(), b.clone()]), leaf("a", json!(["1", "9"]))]),
            All(vec![Any(vec![a.clone(), b.clone()]), a2.clone()]),
            All(vec![leaf("a", json!([{ "cidr": "10.0.0.0/8" }])), a.clone()]),
        ]
        .iter()
        .map(pattern)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        {"a":["1"],"b":["2"]}
        {"a":["1","9"]}
        {"$or":[{"a":["1","9"]},{"b":["2"]}]}
        {"a":["1","9"],"b":["2"]}
        {"$or":[{"a":["1"]},{"b":["2"]},{"c":["3"]}]}
        {"$or":[{"a":["1"],"$or":[{"b":["2"]},{"c":["3"]}]},{"$or":[{"b":["2"]},{"c":["3"],"b":["2"]}]}]}
        {"a":["1"]}
        the conditions on a exclude each other: only a list could meet both, which cannot be said
        the conditions on a exclude each other: only a list could meet both, which cannot be said
        the conditions on a exclude each other: only a list could meet both, which cannot be said
        {"$or":[{"a":["1"]},{"b":["2"],"a":["1","9"]}]}
        {"b":["2"],"a":["9"]}
        two conditions on a that one pattern cannot say together; join them into one, or split the rule
        "#);
    }

    #[test]
    fn what_multiplies_is_bounded() {
        let either = |i: usize| Any(vec![leaf(&format!("a{i}"), json!(["1"])), leaf(&format!("b{i}"), json!(["1"]))]);
        assert!(Conjunction::of(&All((0..9).map(either).collect())).is_ok());
        assert!(Conjunction::of(&All((0..60).map(either).collect())).is_err());
        let absent = |i: usize| leaf(&format!("a{i}"), json!([{ "exists": false }, "x"]));
        assert!(Conjunction::of(&All((0..60).map(absent).collect())).is_err());
    }
}
