//! The input is a message body.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::notification::{Notification, NotificationError, ObjectRef, classify, parse};

pub fn check(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    let found = parse(body);
    check_found(&found);
    assert_eq!(parse(&format!("\u{feff}  {body}\r\n")), found, "white space and a byte order mark change something");

    // An envelope changes nothing, but for the depth and for where a problem is said to be.
    let in_envelope = parse(&json!({ "Type": "Notification", "Message": body }).to_string());
    let too_deep = |problem: &NotificationError| matches!(problem, NotificationError::TooDeep(_));
    if !in_envelope.problems.iter().any(too_deep) && found.problems.len() < 16 {
        assert_eq!(in_envelope.objects, found.objects);
        assert_eq!(in_envelope.records, found.records);
        assert_eq!(in_envelope.ignored, found.ignored);
        assert_eq!(in_envelope.problems.len(), found.problems.len());
    }

    // A batch of one is what is in it; a batch of two names each object once, and has every record twice.
    let body = body.trim_start_matches('\u{feff}').trim();
    if body.starts_with('{') && serde_json::from_str::<&serde_json::value::RawValue>(body).is_ok() {
        // Where the parts are too deep for an array around them, there is a problem.
        assert_eq!(parse(&format!("[{body}]")), found, "a batch of one");
        let twice = parse(&format!("[{body},{body}]"));
        assert_eq!(twice.objects, found.objects);
        assert_eq!(twice.records.len(), 2 * found.records.len());
        assert_eq!(twice.ignored.len(), 2 * found.ignored.len());
        assert_eq!(twice.problems.is_empty(), found.problems.is_empty());
    }
}

fn check_found(found: &Notification) {
    let Notification { objects, records, ignored, problems } = found;
    // A message of which nothing is said would be deleted, and nobody would know.
    assert!(objects.len() + records.len() + ignored.len() + problems.len() > 0, "the body means nothing");

    let mut seen = HashSet::new();
    for object in objects {
        let ObjectRef { bucket, key, fallback_key, version_id, kind, .. } = object;
        assert!(seen.insert((bucket, key, version_id)), "an object twice: {object:?}");
        for name in [Some(bucket), Some(key), version_id.as_ref()].into_iter().flatten() {
            assert!((1..=1024).contains(&name.len()), "a name of {} bytes", name.len());
        }
        let by_fallback = fallback_key.as_ref().map(|key| classify(key));
        assert!(classify(key) == Ok(*kind) || by_fallback == Some(Ok(*kind)), "not such a log: {object:?}");
    }
    for record in records {
        assert!(record.raw.starts_with(b"{") && record.raw.ends_with(b"}"), "{record:?}");
        std::str::from_utf8(&record.raw).expect("a record in a text is text");
    }
    assert!(problems.len() <= 17);
    for problem in problems {
        let told = problem.to_string();
        super::assert_one_line(&told);
        assert!(told.len() < 8_192, "{} bytes of problem", told.len());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::messages();
    for body in super::messages() {
        // As SNS and Pipes would send them.
        let text = String::from_utf8(body).expect("a text");
        seeds.push(json!({ "Type": "Notification", "Message": text }).to_string().into_bytes());
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            seeds.push(json!([value]).to_string().into_bytes());
        }
    }
    seeds
}
