//! The known word that a wrong one was probably meant to be.

/// A longer word is no slip of the pen, and comparing it would take long.
const MAX_BYTES: usize = 64;

/// The known key that takes the fewest edits, if these are few.
pub(super) fn nearest(key: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    nearest_within(usize::MAX, key, known)
}

/// The known word that takes the fewest edits, if these are at most `most`, and few for its length. Case does not count.
pub(super) fn nearest_within(
    most: usize,
    word: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    if word.len() > MAX_BYTES {
        return None;
    }
    let length = word.chars().count();
    let near = known.into_iter().filter_map(|candidate| {
        let most = most.min(candidate.len().div_ceil(3));
        if length.abs_diff(candidate.chars().count()) > most {
            return None;
        }
        Some((edits(word, candidate, most)?, candidate))
    });
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, a row at a time, unless it is more than `most`: no row's minimum is below the one before.
fn edits(left: &str, right: &str, most: usize) -> Option<usize> {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    let mut next = Vec::with_capacity(row.len());
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut least = before;
        next.clear();
        next.push(before);
        for (r, above) in right.chars().zip(row.iter().skip(1)) {
            before = (diagonal + usize::from(!l.eq_ignore_ascii_case(&r))).min(before + 1).min(above + 1);
            diagonal = *above;
            least = least.min(before);
            next.push(before);
        }
        if least > most {
            return None;
        }
        std::mem::swap(&mut row, &mut next);
    }
    row.last().copied().filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use super::{nearest, nearest_within};
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

    #[test]
    fn the_fewest_edits_win_and_a_limit_holds() {
        let known = || ["CreateUser", "CreateUsers", "CreateUserPool"];
        for (most, word, expected) in [
            (2, "CreateUserr", Some("CreateUser")),
            (2, "createusrs", Some("CreateUsers")),
            (2, "CreateUserPol", Some("CreateUserPool")),
            (2, "CreateUserPo", Some("CreateUser")),
            (1, "CreteUsr", None),
            (2, "CreteUsr", Some("CreateUser")),
            (2, "DeleteUser", None),
            (2, "", None),
        ] {
            assert_eq!(nearest_within(most, word, known()), expected, "{word}");
        }
    }
}
