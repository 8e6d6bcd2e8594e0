//! A pattern, compiled for matching: every way in which it can be met, as a list of fields that must all be met.
//!
//! This is how EventBridge's own engine, aws/event-ruler, defines a pattern's meaning: `$or` and "absent or one of" are
//! multiplied out; the fields of one way are taken in the order of their paths; and each value found below an array
//! binds what follows to the element it was found in. The search here goes down the record once and gives the same
//! answer in time linear in the record: an element is chosen once for all the fields below its array.

use std::collections::BTreeSet;

use super::value::{Leaf, Test};
use super::walk::{MAX_ARRAYS, any_below, further, hosts};
use crate::cloudtrail::json;

/// EventBridge allows as many combinations.
pub(in crate::rules) const MAX_WAYS: usize = 1_000;

#[derive(Clone, Debug)]
pub(in crate::rules) struct Compiled {
    fields: Vec<Field>,
    ways: Vec<Vec<Want>>,
}

/// A field and the conditions of which one must hold for its value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Names joined by dots.
    pub(super) path: String,
    /// Exact texts, sorted.
    pub(super) texts: Vec<String>,
    pub(super) tests: Vec<Test>,
}

/// What one way asks of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) field: usize,
    pub(super) absent: bool,
}

/// A want on its way down the record.
#[derive(Clone, Copy)]
struct Sought<'p> {
    field: &'p Field,
    absent: bool,
    /// The place of the want in its way: what comes before it may bind it.
    order: usize,
    /// `None` where the path has come to its end.
    rest: Option<&'p str>,
}

impl Compiled {
    /// Wants are sorted by their path here.
    pub(super) fn new(fields: Vec<Field>, mut ways: Vec<Vec<Want>>) -> Self {
        let path = |want: &Want| fields.get(want.field).map(|field| field.path.as_str());
        for way in &mut ways {
            way.sort_by(|a, b| path(a).cmp(&path(b)));
        }
        Self { fields, ways }
    }

    /// Whether the record matches.
    pub(in crate::rules) fn matches(&self, record: &[u8]) -> bool {
        self.holds_for(record, record)
    }

    /// Whether `document`, found in `record`, matches.
    pub(super) fn holds_for(&self, document: &[u8], record: &[u8]) -> bool {
        self.ways.iter().any(|way| self.way_holds(way, document, record))
    }

    fn way_holds(&self, way: &[Want], document: &[u8], record: &[u8]) -> bool {
        let sought = way.iter().enumerate().filter_map(|(order, want)| {
            let field = self.fields.get(want.field)?;
            Some(Sought { field, absent: want.absent, order, rest: Some(field.path.as_str()) })
        });
        Search { record }.holds(document, &sought.collect::<Vec<_>>(), 0)
    }

    /// The texts one of which the value at `path` must equal in whichever way the pattern is met; `None` where other
    /// values will do.
    pub(in crate::rules) fn only_texts(&self, path: &str) -> Option<BTreeSet<&str>> {
        let mut texts = BTreeSet::new();
        for way in &self.ways {
            let field = way
                .iter()
                .filter(|want| !want.absent)
                .filter_map(|want| self.fields.get(want.field))
                .find(|field| field.path == path && field.tests.is_empty())?;
            texts.extend(field.texts.iter().map(String::as_str));
        }
        Some(texts)
    }

    /// What the pattern asks of some of the record's own members at the least, and which of `names` these are, a bit for
    /// each: where this does not match, the pattern does not. `None` if it can be met without them.
    pub(in crate::rules) fn relaxed_to(&self, names: &[&str]) -> Option<(Self, u16)> {
        let place = |field: &Field| {
            let local = field.tests.iter().all(Test::reads_only_its_value);
            names.iter().position(|name| local && *name == field.path)
        };
        let mut members = 0;
        let mut fields = Vec::new();
        // Where a field stands now.
        let mut moved: Vec<Option<usize>> = vec![None; self.fields.len()];
        let mut kept = |want: &Want| {
            let field = self.fields.get(want.field)?;
            members |= 1 << place(field)?;
            let at = moved.get_mut(want.field)?.get_or_insert_with(|| {
                fields.push(field.clone());
                fields.len() - 1
            });
            Some(Want { field: *at, absent: want.absent })
        };
        let ways: Vec<Vec<Want>> = self.ways.iter().map(|way| way.iter().filter_map(&mut kept).collect()).collect();
        ways.iter().all(|way| !way.is_empty()).then_some((Self { fields, ways }, members))
    }

    /// How much the pattern holds: what all of its ways ask for.
    pub(in crate::rules) fn size(&self) -> usize {
        self.ways.iter().map(Vec::len).sum()
    }

    /// The ways that ask only for what is not, of fields that nearly every record has (`usual`), or for the absence of
    /// what few have (`rare`): the paths of each.
    pub(in crate::rules) fn broad_ways(
        &self,
        usual: &dyn Fn(&str) -> bool,
        rare: &dyn Fn(&str) -> bool,
    ) -> Vec<Vec<&str>> {
        let is_broad = |want: &Want| {
            let Some(field) = self.fields.get(want.field) else { return false };
            let path = field.path.as_str();
            // A list may hold most of what there is.
            let few = |tests: &[Test]| !tests.iter().any(|test| matches!(test, Test::List(_)));
            let vague = |test: &Test| match test {
                Test::AnythingBut(tests) => few(tests),
                Test::Exists => true,
                other => other.is_open(),
            };
            if want.absent { rare(path) } else { usual(path) && field.tests.iter().any(vague) }
        };
        let broad = self.ways.iter().filter(|way| way.iter().all(is_broad));
        let paths = |want: &Want| self.fields.get(want.field).map(|field| field.path.as_str());
        broad.map(|way| way.iter().filter_map(paths).collect()).collect()
    }
}

impl Field {
    fn holds(&self, raw: &[u8], record: &[u8]) -> bool {
        let leaf = Leaf::read(raw);
        if let Leaf::Text(text) = &leaf
            && self.texts.binary_search_by(|wanted| wanted.as_str().cmp(text)).is_ok()
        {
            return true;
        }
        self.tests.iter().any(|test| test.holds(&leaf, record))
    }
}

struct Search<'r> {
    record: &'r [u8],
}

impl Search<'_> {
    /// Whether everything that is sought below `value` is met together.
    fn holds(&self, value: &[u8], sought: &[Sought<'_>], arrays: usize) -> bool {
        if json::is_object(value) {
            return self.object(value, sought, arrays);
        }
        if json::is_array(value) {
            return self.array(value, sought, arrays);
        }
        sought.iter().all(|one| match one.rest {
            Some(_) => one.absent,
            None => !one.absent && one.field.holds(value, self.record),
        })
    }

    fn object(&self, object: &[u8], sought: &[Sought<'_>], arrays: usize) -> bool {
        let mut groups = Vec::new();
        self.place(object, sought, &mut groups, arrays)
    }

    /// Sends each of `sought` down a member that its path goes through. Only names with dots leave a choice.
    fn place<'v, 'p>(
        &self,
        object: &'v [u8],
        mut sought: &[Sought<'p>],
        groups: &mut Groups<'v, 'p>,
        arrays: usize,
    ) -> bool {
        while let Some((one, others)) = sought.split_first() {
            sought = others;
            // At the end of its path, an object is no value.
            let mut hosts = one.rest.map_or_else(Vec::new, |path| hosts(object, path));
            if !one.absent && hosts.len() != 1 {
                return hosts.into_iter().any(|(rest, value)| {
                    let mut groups = groups.clone();
                    put(&mut groups, value, Sought { rest: further(rest), ..*one });
                    self.place(object, others, &mut groups, arrays)
                });
            }
            for (rest, value) in hosts.drain(..) {
                put(groups, value, Sought { rest: further(rest), ..*one });
            }
        }
        groups.iter().all(|(value, group)| self.holds(value, group, arrays))
    }

    fn array(&self, array: &[u8], sought: &[Sought<'_>], arrays: usize) -> bool {
        // At most one path comes to its end here. What an element that is a plain value meets is bound to no element.
        let met = sought.iter().find(|one| {
            !one.absent && one.rest.is_none() && scalars(array).any(|raw| one.field.holds(raw, self.record))
        });
        let Some(met) = met else {
            return self.elements(array, sought, arrays);
        };
        let others: Vec<_> = sought.iter().filter(|one| one.order != met.order).copied().collect();
        // Bound to an element all the same, it leaves less that must be absent.
        let loosens = |one: &Sought<'_>| one.absent && one.order > met.order;
        self.elements(array, &others, arrays) || sought.iter().any(loosens) && self.elements(array, sought, arrays)
    }

    /// Whether what is sought is met within one of the elements that are no plain values.
    fn elements(&self, array: &[u8], sought: &[Sought<'_>], arrays: usize) -> bool {
        let containers = || json::elements(array).filter(|one| json::is_object(one) || json::is_array(one));
        let deep = arrays >= MAX_ARRAYS;
        let mut together: Vec<_> = sought.iter().filter(|one| !one.absent).copied().collect();
        let first_bound = together.iter().map(|one| one.order).min();
        for absent in sought.iter().filter(|one| one.absent) {
            if absent.rest.is_none() && scalars(array).next().is_some() {
                return false;
            }
            if first_bound.is_some_and(|bound| bound < absent.order) {
                together.push(*absent);
            } else if !deep && containers().any(|one| any_below(one, absent.rest, arrays + 1, &mut |_| true)) {
                return false;
            }
        }
        if first_bound.is_none() {
            return true;
        }
        together.sort_by_key(|one| one.order);
        !deep && containers().any(|one| self.holds(one, &together, arrays + 1))
    }
}

fn scalars(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    json::elements(array).filter(|one| !json::is_object(one) && !json::is_array(one))
}

/// Values, and what is sought below each.
type Groups<'v, 'p> = Vec<(&'v [u8], Vec<Sought<'p>>)>;

fn put<'v, 'p>(groups: &mut Groups<'v, 'p>, value: &'v [u8], sought: Sought<'p>) {
    match groups.iter_mut().find(|(other, _)| std::ptr::eq(*other, value)) {
        Some((_, group)) => group.push(sought),
        None => groups.push((value, vec![sought])),
    }
}
