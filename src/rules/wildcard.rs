//! `*` matches any run of characters, also none; `?` matches exactly one (a Unicode scalar value). There is no escape:
//! the names and codes of events hold neither. The case of letters counts.

/// Whether `pattern` uses a wildcard at all.
pub(super) fn is_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// Whether the whole of `text` matches `pattern`.
///
/// Each part between two stars is taken at its first occurrence, which is never worse than a later one, so nothing is
/// tried twice: the time is linear in `text`, times the length of a part only where that part holds a `?`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let head = parts.next().unwrap_or_default();
    let Some(mut rest) = after_prefix(text, head) else {
        return false;
    };
    let Some(tail) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match after_first(rest, part) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    has_suffix(rest, tail)
}

fn same(wanted: char, found: char) -> bool {
    wanted == '?' || wanted == found
}

/// What follows `part` at the very beginning of `text`.
fn after_prefix<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let mut rest = text.chars();
    part.chars().all(|wanted| rest.next().is_some_and(|found| same(wanted, found))).then_some(rest.as_str())
}

/// What follows the first occurrence of `part` in `text`.
fn after_first<'a>(mut text: &'a str, part: &str) -> Option<&'a str> {
    if !part.contains('?') {
        return text.split_once(part).map(|(_, after)| after);
    }
    loop {
        if let Some(after) = after_prefix(text, part) {
            return Some(after);
        }
        let mut rest = text.chars();
        rest.next()?;
        text = rest.as_str();
    }
}

fn has_suffix(text: &str, part: &str) -> bool {
    let mut before = text.chars().rev();
    part.chars().rev().all(|wanted| before.next().is_some_and(|found| same(wanted, found)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    /// The definition, as it stands above: exponential, and plainly right.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            Some((&wanted, rest)) => text
                .split_first()
                .is_some_and(|(&found, after)| (wanted == '?' || wanted == found) && naive(rest, after)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn agrees_with_the_definition(pattern in "[abé*?]{0,8}", text in "[abé]{0,10}") {
            let expected = naive(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &text), expected, "{} on {}", pattern, text);
        }

        #[test]
        fn a_pattern_made_from_a_text_matches_it(text in "\\PC{0,20}", cut in 0_usize..20, masked in 0_usize..20) {
            let text = text.replace(['*', '?'], "x");
            let starred: String = text.chars().take(cut).chain(['*']).collect();
            prop_assert!(matches(&starred, &text));
            let one_unknown: String = text.chars().enumerate().map(|(i, c)| if i == masked { '?' } else { c }).collect();
            prop_assert!(matches(&one_unknown, &text));
        }
    }

    #[test]
    fn reads_as_people_expect() {
        for (pattern, text, expected) in [
            ("*UnauthorizedOperation", "Client.UnauthorizedOperation", true),
            ("*UnauthorizedOperation", "UnauthorizedOperation", true),
            ("*UnauthorizedOperation", "UnauthorizedOperations", false),
            ("AccessDenied*", "AccessDeniedException", true),
            ("AccessDenied*", "accessdenied", false),
            ("UpdateFunctionCode????????*", "UpdateFunctionCode20150331v2", true),
            ("Get?", "Get", false),
            ("?", "é", true),
            ("*", "", true),
            ("?*", "", false),
            ("a*a", "a", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn many_stars_on_a_long_text_are_quick() {
        let pattern = "*a".repeat(400) + "b";
        assert!(!matches(&pattern, &"a".repeat(1 << 20)));
    }
}
