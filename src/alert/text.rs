//! Untrusted text, made fit to be shown to people.

/// `text` on one line, at most `limit` characters of it: what is invisible or moves the text around it is escaped as in
/// Rust (`\n`, `\u{202e}`), and `…` ends what was cut.
#[must_use]
pub(crate) fn shown(text: &str, limit: usize) -> String {
    let mut clean = String::new();
    let mut left = limit;
    // Where to cut if the text turns out longer: room for the ellipsis is kept.
    let mut cut = 0;
    for character in text.chars() {
        let escaped = is_hidden(character).then(|| character.escape_default());
        let width = escaped.as_ref().map_or(1, ExactSizeIterator::len);
        if width > left {
            clean.truncate(cut);
            clean.push('…');
            break;
        }
        left -= width;
        match escaped {
            Some(escape) => clean.extend(escape),
            None => clean.push(character),
        }
        if left > 0 {
            cut = clean.len();
        }
    }
    clean
}

/// [`shown`], so that a mail program makes no link of an address in it: `http[:]//`.
#[must_use]
pub(super) fn inert(text: &str, limit: usize) -> String {
    shown(text, limit).replace("://", "[:]//")
}

/// `text` as one word of a POSIX shell: in single quotes unless it is plain.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@+,-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// At most `limit` printable ASCII characters; anything else is `?`, and `..` ends what was cut.
#[must_use]
pub(super) fn ascii(text: &str, limit: usize) -> String {
    let printable = |character: char| if character == ' ' || character.is_ascii_graphic() { character } else { '?' };
    if text.chars().nth(limit).is_none() {
        return text.chars().map(printable).collect();
    }
    let kept = text.chars().take(limit.saturating_sub(2)).map(printable);
    kept.chain("..".chars().take(limit)).collect()
}

/// Escapes what is hidden in JSON text, where it can only stand inside strings: another spelling of the same document.
#[must_use]
pub(crate) fn visible_json(json: String) -> String {
    if !json.contains(is_hidden) {
        return json;
    }
    let mut visible = String::with_capacity(json.len() + json.len() / 8);
    for character in json.chars() {
        if is_hidden(character) {
            let mut units = [0; 2];
            visible.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            visible.push(character);
        }
    }
    visible
}

/// Control characters, line and paragraph separators, marks of direction, what has no width, variation selectors and
/// tags, and the two that XML (and with it SNS) does not take.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_hidden_is_escaped_and_what_is_long_is_cut() {
        assert_eq!(shown("Zoë \"O'Neil\" C:\\x 日本", 99), "Zoë \"O'Neil\" C:\\x 日本");
        assert_eq!(shown("a\r\nb\t\u{1b}[31m\u{9b}", 99), "a\\r\\nb\\t\\u{1b}[31m\\u{9b}");
        assert_eq!(
            shown("\u{202e}gpj\u{2066}\u{200b}\u{2028}\u{feff}", 99),
            "\\u{202e}gpj\\u{2066}\\u{200b}\\u{2028}\\u{feff}"
        );
        assert_eq!(shown("12345", 5), "12345");
        assert_eq!(shown("123456", 5), "1234…");
        assert_eq!(shown("123\n5", 5), "123…");
        assert_eq!(shown("abc", 0), "…");
    }

    #[test]
    fn links_are_inert() {
        assert_eq!(inert("see HTTPS://evil.example/x", 99), "see HTTPS[:]//evil.example/x");
    }

    #[test]
    fn ascii_is_printable_and_short() {
        assert_eq!(ascii("é\na", 9), "??a");
        assert_eq!(ascii("123456", 5), "123..");
        assert_eq!(ascii("123", 1), ".");
    }

    proptest! {
        #[test]
        fn shown_text_keeps_its_limit(text in any::<String>(), limit in 1_usize..40) {
            let clean = shown(&text, limit);
            prop_assert!(clean.chars().count() <= limit, "{clean:?}");
            prop_assert!(!clean.contains(is_hidden));
        }

        #[test]
        fn escaping_hidden_characters_keeps_a_documents_meaning(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let visible = visible_json(json);
            prop_assert!(!visible.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&visible).unwrap(), text);
        }
    }
}
