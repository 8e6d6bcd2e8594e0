//! The exception to paste where what an alert tells is expected.

use serde_json::{Map, Value, json};
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

use super::text::visible_json;
use super::told::{Record, text_at};
use super::{DetectedEvent, Outcome};

/// Rule files take no longer value, in bytes.
const MAX_VALUE: usize = 1024;

/// How long the exception holds.
const DAYS: i64 = 90;

/// What names the caller, the most lasting first: of a session its role.
const ACTORS: [&[&str]; 5] =
    [&["sessionContext", "sessionIssuer", "arn"], &["arn"], &["userName"], &["principalId"], &["invokedBy"]];

/// An element of a rule's `unless`, as JSON on one line: this call by this caller; where it did not succeed, only where
/// it fails again. Nothing where the record does not name both.
pub(super) fn exception(event: &DetectedEvent, record: &Record<'_>) -> Option<String> {
    let fits = |text: &String| text.len() <= MAX_VALUE;
    let identity = record.get("userIdentity");
    // Of a sign-in that failed since there is no such user, CloudTrail hides the name: it is everybody's.
    let is_hidden = |text: &String| text == "HIDDEN_DUE_TO_SECURITY_REASONS";
    let (path, actor) = ACTORS.into_iter().find_map(|path| Some((path, text_at(identity, path).filter(fits)?)))?;
    if is_hidden(&actor) {
        return None;
    }
    let name = record.text(&["eventName"]).filter(fits)?;
    let mut pattern = Map::new();
    for (key, text) in [("eventSource", record.text(&["eventSource"])), ("eventName", Some(name.clone()))] {
        if let Some(text) = text.filter(fits) {
            pattern.insert(key.to_owned(), json!([text]));
        }
    }
    if event.facts.outcome != Outcome::Success {
        let failure = ["errorCode", "errorMessage"].into_iter().find(|key| record.text(&[key]).is_some());
        if let Some(key) = failure {
            pattern.insert(key.to_owned(), json!([{ "exists": true }]));
        }
    }
    let caller = path.iter().rev().fold(json!([actor]), |inner, key| json!({ *key: inner }));
    pattern.insert("userIdentity".to_owned(), caller);
    let after = |time: OffsetDateTime| time.checked_add(Duration::days(DAYS));
    // Of what happened long ago, as a replay tells it, it would have ended already.
    let of_event = event.facts.event_time.and_then(after).filter(|day| *day > event.detected_at);
    let day = of_event.or_else(|| after(event.detected_at))?;
    let until = day.date().format(format_description!("[year]-[month]-[day]")).ok()?;
    let exception =
        json!({ "pattern": Value::Object(pattern), "reason": "Expected: say why, and who agreed", "until": until });
    // Another spelling of the same text, of which no mail program makes a link.
    Some(visible_json(exception.to_string().replace("://", r":\/\/")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use time::macros::{date, datetime};

    use super::*;
    use crate::alert::{Source, detected_event};
    use crate::rules::{Detection, Loaded, Matcher, RuleInfo, RuleSet, Severity, Surroundings};

    fn event(record: &Value) -> DetectedEvent {
        let rules = vec![Arc::new(RuleInfo::new("r", Severity::High, ""))];
        let detection = Detection { index: 0, raw: Bytes::from(record.to_string()), rules };
        detected_event(&detection, Source::default(), datetime!(2024-05-02 12:07 UTC), "0123456789abcdef")
    }

    #[allow(clippy::needless_pass_by_value, reason = "json! reads better where it is used")]
    fn record(identity: Value) -> Value {
        json!({
            "eventID": "c2f8a1de-5b0e-4c0f-9b1a-0d6c3e5f7a91", "eventTime": "2024-05-01T12:00:00Z",
            "eventName": "CreateAccessKey", "eventSource": "iam.amazonaws.com", "awsRegion": "us-east-1",
            "userIdentity": identity, "requestParameters": { "userName": "bob" },
        })
    }

    fn session(role: &str, name: &str) -> Value {
        json!({
            "type": "AssumedRole", "arn": format!("arn:aws:sts::111122223333:assumed-role/{role}/{name}"),
            "sessionContext": { "sessionIssuer": { "arn": format!("arn:aws:iam::111122223333:role/{role}") } },
        })
    }

    fn exception_for(event: &DetectedEvent) -> Option<String> {
        exception(event, &Record::new(event))
    }

    /// The rules with this exception.
    fn excepted(exception: &str) -> Arc<RuleSet> {
        let exception: Value = serde_json::from_str(exception).unwrap();
        let rule = json!({ "id": "r", "severity": "HIGH", "eventSource": "iam.amazonaws.com", "unless": [exception] });
        let surroundings = Surroundings { today: Some(date!(2024 - 05 - 01)), ..Surroundings::default() };
        let Loaded { rules, warnings } = RuleSet::load(&json!([rule]).to_string(), &surroundings);
        // Of a star the linter says that it stands for itself, as is meant here.
        assert!(warnings.iter().all(|warning| warning.message.contains("a star in an exact text")), "{warnings:?}");
        Arc::new(rules.unwrap())
    }

    fn matches(rules: &Arc<RuleSet>, record: &Value) -> bool {
        !Matcher::new(Arc::clone(rules)).matches(record.to_string().as_bytes()).is_empty()
    }

    #[test]
    fn of_what_happened_long_ago_it_holds_from_now_on() {
        let mut old = record(session("Admin", "alice"));
        old["eventTime"] = "2022-05-01T12:00:00Z".into();
        assert!(exception_for(&event(&old)).unwrap().contains(r#""until":"2024-07-31""#));
    }

    #[test]
    fn it_holds_for_this_call_of_this_caller_for_ninety_days() {
        let alice = record(session("Admin", "alice"));
        let text = exception_for(&event(&alice)).unwrap();
        insta::assert_snapshot!(text, @r#"{"pattern":{"eventSource":["iam.amazonaws.com"],"eventName":["CreateAccessKey"],"userIdentity":{"sessionContext":{"sessionIssuer":{"arn":["arn:aws:iam::111122223333:role/Admin"]}}}},"reason":"Expected: say why, and who agreed","until":"2024-07-30"}"#);
        let rules = excepted(&text);
        assert!(!matches(&rules, &alice));
        // The role's next session is expected too.
        assert!(!matches(&rules, &record(session("Admin", "alice-2"))));
        assert!(matches(&rules, &record(session("Other", "alice"))));
        let mut other = alice.clone();
        other["eventName"] = json!("DeleteAccessKey");
        assert!(matches(&rules, &other));
        other = alice.clone();
        other["eventTime"] = json!("2024-07-30T23:59:59Z");
        assert!(!matches(&rules, &other));
        other["eventTime"] = json!("2024-07-31T00:00:00Z");
        assert!(matches(&rules, &other));
    }

    #[test]
    fn what_was_refused_is_expected_only_where_it_is_refused_again() {
        let mut denied = record(json!({ "type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/mallory" }));
        denied["errorCode"] = json!("AccessDenied");
        let rules = excepted(&exception_for(&event(&denied)).unwrap());
        assert!(!matches(&rules, &denied));
        denied.as_object_mut().unwrap().remove("errorCode");
        assert!(matches(&rules, &denied));
    }

    #[test]
    fn hostile_texts_are_met_exactly_and_shown_visibly() {
        for name in ["a*?\"\\ \u{202e}'$(x)\n", "https://evil.example/{}", "[{\"exists\":false}]"] {
            let mut hostile = record(json!({ "arn": name, "userName": "x" }));
            hostile["eventName"] = json!(name);
            let text = exception_for(&event(&hostile)).unwrap();
            assert!(!text.contains(crate::alert::is_hidden) && !text.contains("://"), "{text}");
            let rules = excepted(&text);
            assert!(!matches(&rules, &hostile));
            hostile["userIdentity"]["arn"] = json!(format!("{name}x"));
            assert!(matches(&rules, &hostile));
        }
    }

    #[test]
    fn there_is_none_without_a_caller_or_a_name() {
        assert_eq!(exception_for(&event(&record(json!({ "type": "IAMUser" })))), None);
        let nobody = json!({ "type": "IAMUser", "userName": "HIDDEN_DUE_TO_SECURITY_REASONS" });
        assert_eq!(exception_for(&event(&record(nobody))), None);
        let mut unnamed = record(session("Admin", "alice"));
        unnamed["eventName"] = Value::Null;
        assert_eq!(exception_for(&event(&unnamed)), None);
        assert_eq!(exception_for(&event(&record(json!({ "arn": "x".repeat(1_025) })))), None);
    }
}
