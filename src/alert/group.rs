//! What an alert says of the group whose step it tells.

use std::collections::BTreeMap;

use serde::Serialize;

use super::shown;
use super::text::inert;
use crate::tracker::{Crossing, KeyPart, quiet_after};

/// Values of the key that are told.
const MAX_KEY_PARTS: usize = 20;
/// Names, and addresses, that are told: the most frequent.
const MAX_FREQUENT: usize = 5;
/// What is told of a path, a value, a name or an address.
const MAX_CHARS: usize = 256;

/// The field `group` of the document.
#[derive(Serialize)]
pub(super) struct GroupDocument {
    id: String,
    by: Vec<KeyPart>,
    window: String,
    from: String,
    to: String,
    step: u64,
    count: u64,
    first: String,
    last: String,
    names: Vec<Frequent>,
    addresses: Vec<Frequent>,
    previous_count: Option<u64>,
}

#[derive(Serialize)]
struct Frequent {
    value: String,
    count: u64,
}

impl GroupDocument {
    pub(super) fn new(crossing: &Crossing) -> Self {
        let Crossing { tracker, step, state, previous, claim: _ } = crossing;
        Self {
            id: tracker.to_string(),
            by: key(crossing),
            window: window(state.window),
            from: tracker.from().to_owned(),
            to: tracker.to(state.window),
            step: *step,
            count: state.count,
            first: state.first.clone(),
            last: state.last.clone(),
            names: frequent(&state.names),
            addresses: frequent(&state.addresses),
            previous_count: *previous,
        }
    }
}

fn key(crossing: &Crossing) -> Vec<KeyPart> {
    let parts = crossing.state.key.iter().take(MAX_KEY_PARTS);
    let bounded = |text: &String| shown(text, MAX_CHARS);
    parts.map(|part| KeyPart { path: bounded(&part.path), value: part.value.as_ref().map(bounded) }).collect()
}

/// The most frequent first.
fn frequent(all: &BTreeMap<String, u64>) -> Vec<Frequent> {
    let mut all: Vec<_> =
        all.iter().map(|(value, count)| Frequent { value: shown(value, MAX_CHARS), count: *count }).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    all.truncate(MAX_FREQUENT);
    all
}

/// A length of time as rule files write it.
fn window(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(unit, letter)| format!("{}{letter}", seconds / unit))
}

/// For the subject: how many events, where the alert does not open the group.
pub(super) fn events(crossing: &Crossing) -> Option<String> {
    (crossing.step > 1).then(|| format!("{} events", crossing.state.count))
}

/// For the mail: the fields that tell of the group.
pub(super) fn lines(crossing: &Crossing) -> Vec<(&'static str, String)> {
    let Crossing { tracker, step, state, previous, claim: _ } = crossing;
    let window = window(state.window);
    let key: Vec<_> = key(crossing)
        .into_iter()
        .map(|part| match part.value {
            Some(value) => format!("{} = {}", inert(&part.path, MAX_CHARS), inert(&value, MAX_CHARS)),
            None => format!("no {}", inert(&part.path, MAX_CHARS)),
        })
        .collect();
    let of = format!("{}, {window} from {}", key.join(", "), tracker.from());
    let next = quiet_after(*step).saturating_add(1);
    let mut lines = Vec::new();
    if *step == 1 {
        lines.push(("Group", format!("opened for {of}")));
        lines.push(("More", format!("counted, and told at {next} events")));
        lines.push((
            "Before",
            match previous {
                Some(1) => format!("1 event in the {window} before"),
                Some(count) => format!("{count} events in the {window} before"),
                None => format!("none in the {window} before"),
            },
        ));
    } else {
        lines.push(("Group", of));
        lines.push(("Events", format!("{} from {} to {}", state.count, state.first, state.last)));
        lines.push(("More", format!("counted, and told at {next} events")));
        for (name, all) in [("Names", &state.names), ("Addresses", &state.addresses)] {
            let all: Vec<_> = frequent(all)
                .into_iter()
                .map(|one| format!("{} {}", inert(&one.value, MAX_CHARS), one.count))
                .collect();
            if !all.is_empty() {
                lines.push((name, all.join(", ")));
            }
        }
    }
    lines.push(("Group id", tracker.to_string()));
    lines
}
