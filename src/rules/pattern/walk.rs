//! From a path to values: names joined by dots. Where a record's own name holds a dot, each way of reading the path is
//! followed.

use crate::cloudtrail::json;

/// Values nested in more arrays than this are not looked at; the same depth at which a stored record becomes text.
pub(super) const MAX_ARRAYS: usize = 100;

/// What is left of a path behind a member's name; `None` if the path does not begin with it.
pub(super) fn after_name<'p>(path: &'p str, key: &[u8]) -> Option<&'p str> {
    let rest = if memchr::memchr(b'\\', key).is_none() {
        // Keys are UTF-8 wherever they equal a part of a path.
        path.as_bytes().starts_with(key).then(|| path.get(key.len()..))??
    } else if key.len() <= path.len().saturating_mul(6) {
        path.strip_prefix(&*json::decode(key))?
    } else {
        return None;
    };
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

/// The members of an object that a path can go through, each with the rest of the path. Of equal names the last counts.
pub(super) fn hosts<'a, 'p>(object: &'a [u8], path: &'p str) -> Vec<(&'p str, &'a [u8])> {
    let mut hosts: Vec<(&str, &[u8])> = Vec::new();
    for member in json::members(object) {
        let Some(rest) = after_name(path, member.key) else {
            continue;
        };
        // Equally much is left of the path only behind equal names.
        match hosts.iter_mut().find(|(other, _)| other.len() == rest.len()) {
            Some(host) => host.1 = member.value,
            None => hosts.push((rest, member.value)),
        }
    }
    hosts
}

/// Whether `holds` for any leaf at a path below `value`: what is no object and no array, or an element of an array.
pub(in crate::rules) fn any_leaf(value: &[u8], path: &str, holds: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    any_below(value, Some(path), 0, holds)
}

/// As [`any_leaf`]; `None` where the path has come to its end.
pub(super) fn any_below(value: &[u8], path: Option<&str>, arrays: usize, holds: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    if json::is_object(value) {
        return path.is_some_and(|path| {
            hosts(value, path).into_iter().any(|(rest, value)| any_below(value, further(rest), arrays, holds))
        });
    }
    if json::is_array(value) {
        return arrays < MAX_ARRAYS && json::elements(value).any(|one| any_below(one, path, arrays + 1, holds));
    }
    path.is_none() && holds(value)
}

/// The values at a path, whatever they are.
pub(in crate::rules) fn values<'a>(record: &'a [u8], path: &str) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    collect(record, Some(path), 0, &mut found);
    found
}

fn collect<'a>(value: &'a [u8], path: Option<&str>, arrays: usize, found: &mut Vec<&'a [u8]>) {
    let Some(path) = path else {
        found.push(value);
        return;
    };
    if json::is_object(value) {
        for (rest, value) in hosts(value, path) {
            collect(value, further(rest), arrays, found);
        }
    } else if json::is_array(value) && arrays < MAX_ARRAYS {
        json::elements(value).for_each(|one| collect(one, Some(path), arrays + 1, found));
    }
}

/// A path with nothing left has come to its end.
pub(super) fn further(rest: &str) -> Option<&str> {
    (!rest.is_empty()).then_some(rest)
}
