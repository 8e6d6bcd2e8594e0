//! Event patterns: EventBridge's language, with exactly its meaning, and four conditions more.
//!
//! Format: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html>; where that is silent,
//! EventBridge's own engine (github.com/aws/event-ruler) is the judge. `docs/rules.md` says it in our words.

mod compiled;
#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod naive;
mod parse;
#[cfg(test)]
mod tests;
mod value;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::reader::{Complaint, Place, Reader};
pub(super) use compiled::Compiled;
use compiled::{Field, MAX_WAYS, Want};
#[cfg(test)]
pub(super) use parse::{CONDITIONS, LISTABLE, NEGATABLE};
pub(super) use parse::{value_conditions, wildcard};
pub(super) use value::{Leaf, Test};
pub(super) use walk::{any_leaf, values};

/// Named lists of conditions.
pub(super) type Lists = HashMap<String, Arc<[Test]>>;

/// A pattern as it was written: each field with its place in the file. All fields and all `$or` must hold.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) fields: Vec<FieldPattern>,
    pub(super) ors: Vec<Or>,
}

#[derive(Clone, Debug)]
pub(super) struct FieldPattern {
    /// Names joined by dots, from the root of the record.
    pub(super) path: String,
    pub(super) place: Place,
    /// One of them must hold; never empty.
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
pub(super) struct Or {
    pub(super) place: Place,
    /// At least two.
    pub(super) branches: Vec<Pattern>,
}

#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) place: Place,
    /// As it stands in the file.
    pub(super) text: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `{"exists": false}`
    Absent,
    Value(Test),
}

impl Pattern {
    /// Multiplies out `$or`, and fields that may be absent or have a value.
    ///
    /// # Errors
    ///
    /// Told to `reader`: too many ways.
    pub(super) fn compile(&self, reader: &mut Reader<'_>, place: &Place) -> Option<Compiled> {
        let mut fields = Vec::new();
        let mut ways = self.ways(&mut fields, reader, place)?;
        let mut overridden = BTreeSet::new();
        for way in &mut ways {
            let mut last = BTreeMap::new();
            for want in way.drain(..) {
                let Some((field, at)) = fields.get(want.field) else { continue };
                // Of a path that stands twice, EventBridge takes what is written last.
                match last.get(field.path.as_str()) {
                    Some((other_at, other, _)) if *other_at > at.at => _ = overridden.insert((want.field, *other)),
                    _ => {
                        if let Some((_, other, _)) = last.insert(field.path.as_str(), (at.at, want.field, want))
                            && other != want.field
                        {
                            overridden.insert((other, want.field));
                        }
                    }
                }
            }
            way.extend(last.into_values().map(|(.., want)| want));
        }
        ways.dedup();
        for (ignored, taken) in overridden {
            if let (Some((field, at)), Some((_, other))) = (fields.get(ignored), fields.get(taken)) {
                let line = reader.line(other.at);
                let message =
                    format!("{:?} stands again on line {line}, where it must hold together with this", field.path);
                let advice = "EventBridge takes only the last; put both conditions into one list, or use two rules";
                reader.warning(at, Complaint::new(message, advice));
            }
        }
        Some(Compiled::new(fields.into_iter().map(|(field, _)| field).collect(), ways))
    }

    fn ways(&self, fields: &mut Vec<(Field, Place)>, reader: &mut Reader<'_>, place: &Place) -> Option<Vec<Vec<Want>>> {
        let mut ways = vec![Vec::new()];
        for pattern in &self.fields {
            let mut field = Field { path: pattern.path.clone(), texts: Vec::new(), tests: Vec::new() };
            let mut absent = false;
            for condition in &pattern.conditions {
                match &condition.kind {
                    Kind::Absent => absent = true,
                    Kind::Value(Test::Text(text)) => field.texts.push(text.clone()),
                    Kind::Value(test) => field.tests.push(test.clone()),
                }
            }
            field.texts.sort_unstable();
            field.texts.dedup();
            let index = fields.len();
            let present = !field.texts.is_empty() || !field.tests.is_empty();
            fields.push((field, pattern.place.clone()));
            let alternatives = [(present, false), (absent, true)].into_iter().filter(|(offered, _)| *offered);
            let alternatives: Vec<_> = alternatives.map(|(_, absent)| vec![Want { field: index, absent }]).collect();
            ways = multiplied(&ways, &alternatives, reader, place)?;
        }
        for or in &self.ors {
            let mut alternatives = Vec::new();
            for branch in &or.branches {
                alternatives.extend(branch.ways(fields, reader, place)?);
            }
            ways = multiplied(&ways, &alternatives, reader, &or.place)?;
        }
        Some(ways)
    }

    /// Every field, those in branches too.
    pub(super) fn all_fields(&self) -> Vec<&FieldPattern> {
        let below = self.ors.iter().flat_map(|or| &or.branches).flat_map(Self::all_fields);
        self.fields.iter().chain(below).collect()
    }
}

fn multiplied(
    ways: &[Vec<Want>],
    alternatives: &[Vec<Want>],
    reader: &mut Reader<'_>,
    place: &Place,
) -> Option<Vec<Vec<Want>>> {
    if ways.len().saturating_mul(alternatives.len()) > MAX_WAYS {
        let message = format!("multiplied out, the pattern can be met in more than {MAX_WAYS} ways");
        reader.error(place, Complaint::new(message, "split the rule, or take fewer $or"));
        return None;
    }
    let with = |way: &Vec<Want>| alternatives.iter().map(|more| [way.as_slice(), more].concat()).collect::<Vec<_>>();
    Some(ways.iter().flat_map(with).collect())
}
