//! Which rules a record can match at all, by its event name and source, error code and kind of identity.

use std::collections::HashMap;

use super::Mode;
use super::condition::{Field, Found, Key, Rule};

/// Each rule that is not off stands in one table: that of the first indexed field for which it names exact texts, or
/// in the rest.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order of [`Field::INDEXED`]: from a text to positions of rules.
    tables: [HashMap<String, Vec<usize>>; 4],
    rest: Vec<usize>,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.info.mode != Mode::Off) {
            let named = Field::INDEXED.into_iter().zip(&mut index.tables);
            let mut named = named.filter_map(|(field, table)| Some((rule.body.only_texts(field)?, table)));
            match named.next() {
                Some((texts, table)) => {
                    for text in texts {
                        table.entry(text.clone()).or_default().push(position);
                    }
                }
                None => index.rest.push(position),
            }
        }
        index
    }

    /// The positions of rules that a record with this key can match, in the order of the file.
    pub(super) fn candidates(&self, rules: &[Rule], key: &Key<'_>) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        let mut add = |position: &usize| {
            if rules.get(*position).is_some_and(|rule| rule.body.allows(key)) {
                found.push(*position);
            }
        };
        for (table, field) in self.tables.iter().zip(&key.0) {
            match field {
                Found::Text(text) => table.get(*text).into_iter().flatten().for_each(&mut add),
                Found::Absent => {}
                Found::Odd => table.values().flatten().for_each(&mut add),
            }
        }
        self.rest.iter().for_each(&mut add);
        found.sort_unstable();
        found.dedup();
        found
    }
}
