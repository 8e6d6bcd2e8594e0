//! The known key that a wrong one was probably meant to be.

/// A longer key is no slip of the pen, and comparing it would take long.
const MAX_KEY_BYTES: usize = 64;

/// The known key that takes the fewest edits, if these are few.
pub(super) fn nearest(key: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    if key.len() > MAX_KEY_BYTES {
        return None;
    }
    let wanted = key.to_ascii_lowercase();
    let ranked = known.into_iter().map(|candidate| (distance(&wanted, &candidate.to_ascii_lowercase()), candidate));
    let (edits, candidate) = ranked.min_by_key(|(edits, _)| *edits)?;
    (edits <= candidate.len().div_ceil(3)).then_some(candidate)
}

/// Levenshtein's, a row at a time.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut next = vec![before];
        for (r, above) in right.chars().zip(row.iter().skip(1)) {
            before = (diagonal + usize::from(l != r)).min(before + 1).min(above + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;
    use crate::rules::condition::Field;
    use crate::rules::file::INFO_KEYS;

    #[test]
    fn near_keys_are_suggested_and_far_ones_not() {
        let keys = || INFO_KEYS.into_iter().chain(Field::ALL.map(Field::key));
        for (key, expected) in [
            ("eventname", Some("eventName")),
            ("event_name", Some("eventName")),
            ("eventNames", Some("eventName")),
            ("errorcode", Some("errorCode")),
            ("useridentitytype", Some("userIdentityType")),
            ("desc", None),
            ("sourceIPAddress", None),
            ("_comment", None),
        ] {
            assert_eq!(nearest(key, keys()), expected, "{key}");
        }
    }
}
