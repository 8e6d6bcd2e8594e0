//! Whether a resource's policy lets a request in: as much of IAM's evaluation as the policies of queues and keys need.
//! What it does not know is told as such, never guessed.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html> and
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>.

use serde_json::{Map, Value};

/// Not more of a policy's own words is told.
const MAX_TOLD: usize = 3;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal<'a> {
    /// Such as `s3.amazonaws.com`.
    Service(&'a str),
    /// An account that no policy names.
    Stranger,
}

/// A request as the service that owns the resource sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub principal: Principal<'a>,
    /// `sqs:SendMessage`.
    pub action: &'a str,
    pub resource: &'a str,
    /// Condition keys and their values; `None`: the request does not have the key. A key that is not here is not known.
    pub context: &'a [(&'a str, Option<&'a str>)],
}

/// What a policy says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// No statement allows it; why those did not that come near.
    NotAllowed(Vec<String>),
    /// This statement denies it.
    Denied(String),
    /// It depends on what is not known here.
    Unclear(String),
}

/// Whether a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Yes,
    No(String),
    Maybe(String),
}

/// Judges a policy document, as JSON.
///
/// # Errors
///
/// It is no policy: why.
pub fn evaluate(policy: &str, request: &Request<'_>) -> Result<Verdict, String> {
    let document: Value = serde_json::from_str(policy).map_err(|error| format!("the policy is not JSON: {error}"))?;
    let statements = list(document.get("Statement").ok_or("the policy has no Statement")?);
    let (mut allowed, mut near) = (false, Vec::new());
    let (mut may_allow, mut may_deny) = (None, None);
    for (index, statement) in statements.iter().enumerate() {
        let Value::Object(statement) = statement else { return Err("a Statement is no object".to_owned()) };
        let name = match statement.get("Sid").and_then(Value::as_str) {
            Some(sid) if !sid.is_empty() => format!("statement \"{sid}\""),
            _ => format!("statement {}", index + 1),
        };
        let denies = statement.get("Effect").and_then(Value::as_str) == Some("Deny");
        match applies(statement, request) {
            Held::Yes if denies => return Ok(Verdict::Denied(name)),
            Held::Yes => allowed = true,
            Held::No(_) if denies => {}
            Held::No(why) if why.is_empty() => {}
            Held::No(why) => near.push(format!("{name} {why}")),
            Held::Maybe(why) if denies => {
                may_deny.get_or_insert(format!("{name} denies it if {why}"));
            }
            Held::Maybe(why) => {
                may_allow.get_or_insert(format!("{name} allows it only if {why}"));
            }
        }
    }
    near.truncate(MAX_TOLD);
    // A denial that may apply outweighs everything, where anything could allow it; an allowance that may apply means
    // nothing beside one that does.
    Ok(match (allowed, may_allow, may_deny) {
        (true, _, None) => Verdict::Allowed,
        (true, _, Some(why)) | (false, Some(_), Some(why)) | (false, Some(why), None) => Verdict::Unclear(why),
        (false, None, _) => Verdict::NotAllowed(near),
    })
}

/// Whether a statement speaks of the request. A `No` without words is one that was meant for somebody else.
fn applies(statement: &Map<String, Value>, request: &Request<'_>) -> Held {
    let principal = match (statement.get("Principal"), statement.get("NotPrincipal")) {
        (Some(named), _) => names(named, request.principal),
        (None, Some(named)) => !names(named, request.principal),
        (None, None) => false,
    };
    if !principal {
        return Held::No(String::new());
    }
    let action = |pattern: &str| glob(&pattern.to_ascii_lowercase(), &request.action.to_ascii_lowercase());
    let acts = match (statement.get("Action"), statement.get("NotAction")) {
        (Some(patterns), _) => any(patterns, action),
        (None, Some(patterns)) => !any(patterns, action),
        (None, None) => false,
    };
    if !acts {
        return Held::No(format!("does not name the action {}", request.action));
    }
    let resource = |pattern: &str| glob(pattern, request.resource);
    let concerns = match (statement.get("Resource"), statement.get("NotResource")) {
        (Some(patterns), _) => any(patterns, resource),
        (None, Some(patterns)) => !any(patterns, resource),
        (None, None) => false,
    };
    if !concerns {
        return Held::No(format!("does not name the resource {}", request.resource));
    }
    match statement.get("Condition") {
        None | Some(Value::Null) => Held::Yes,
        Some(Value::Object(conditions)) => all(conditions, request.context),
        Some(_) => Held::Maybe("its Condition holds, which cannot be read here".to_owned()),
    }
}

fn names(principal: &Value, who: Principal<'_>) -> bool {
    match principal {
        Value::String(anyone) => anyone == "*",
        Value::Object(kinds) => kinds.iter().any(|(kind, named)| {
            any(named, |named| match (kind.as_str(), who) {
                ("AWS" | "*", _) => named == "*",
                ("Service", Principal::Service(service)) => named == service,
                _ => false,
            })
        }),
        _ => false,
    }
}

/// All operators and all of their keys must hold.
fn all(conditions: &Map<String, Value>, context: &[(&str, Option<&str>)]) -> Held {
    let mut held = Held::Yes;
    for (operator, keys) in conditions {
        let Value::Object(keys) = keys else {
            return Held::Maybe(format!("its {operator} holds, which cannot be read here"));
        };
        for (key, wanted) in keys {
            match condition(operator, key, wanted, context) {
                Held::Yes => {}
                Held::Maybe(why) => held = Held::Maybe(why),
                no @ Held::No(_) => return no,
            }
        }
    }
    held
}

/// How an operator compares one wanted value with the one that is there.
#[derive(Clone, Copy)]
enum Compare {
    Exact,
    IgnoringCase,
    Like,
    Arn,
}

fn condition(operator: &str, key: &str, wanted: &Value, context: &[(&str, Option<&str>)]) -> Held {
    let told: Vec<String> = texts(wanted);
    let told = told.join(" or ");
    let Some((_, there)) = context.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)) else {
        return Held::Maybe(format!("{key} is as its {operator} asks ({told}), which is not known here"));
    };
    let (operator, if_exists) = match operator.strip_suffix("IfExists") {
        Some(operator) => (operator, true),
        None => (operator, false),
    };
    if operator == "Null" {
        let absent = there.is_none().to_string();
        return if any(wanted, |wanted| wanted == absent) {
            Held::Yes
        } else {
            Held::No(format!("asks whether {key} is there"))
        };
    }
    let (compare, negated) = match operator {
        "StringEquals" | "Bool" => (Compare::Exact, false),
        "StringNotEquals" => (Compare::Exact, true),
        "StringEqualsIgnoreCase" => (Compare::IgnoringCase, false),
        "StringNotEqualsIgnoreCase" => (Compare::IgnoringCase, true),
        "StringLike" => (Compare::Like, false),
        "StringNotLike" => (Compare::Like, true),
        "ArnEquals" | "ArnLike" => (Compare::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Compare::Arn, true),
        _ => return Held::Maybe(format!("its {operator} of {key} ({told}) holds, which is not judged here")),
    };
    let Some(there) = there else {
        // A key that is not there meets what is negated, and nothing else.
        return if negated || if_exists {
            Held::Yes
        } else {
            Held::No(format!("asks for {key} {told}, and the request has no {key}"))
        };
    };
    if texts(wanted).iter().any(|wanted| wanted.contains("${")) {
        return Held::Maybe(format!("{key} is {told}, whose variables are not known here"));
    }
    let found = any(wanted, |wanted| match compare {
        Compare::Exact => wanted == *there,
        Compare::IgnoringCase => wanted.eq_ignore_ascii_case(there),
        Compare::Like => glob(wanted, there),
        Compare::Arn => arn_like(wanted, there),
    });
    if found == negated {
        let asks = if negated { "excludes" } else { "asks for" };
        return Held::No(format!("{asks} {key} {told}, and it is {there}"));
    }
    Held::Yes
}

/// Each of the six parts of an ARN by itself: a star does not reach over a colon, but in the last.
fn arn_like(pattern: &str, arn: &str) -> bool {
    let (mut wanted, mut there) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    loop {
        match (wanted.next(), there.next()) {
            (None, None) => return true,
            (Some(wanted), Some(there)) if glob(wanted, there) => {}
            _ => return false,
        }
    }
}

/// `*` is any run of characters, `?` any one. The whole text must match.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut wanted, mut there) = (pattern.chars(), text.chars());
    // Where to go on when what followed the last star did not fit after all.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let here = there.clone();
        match (wanted.next(), there.next()) {
            (Some('*'), _) => {
                there = here;
                retry = Some((wanted.clone(), there.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(one), Some(other)) if one == '?' || one == other => continue,
            _ => {}
        }
        let Some((after_star, mut from)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        wanted = after_star.clone();
        there = from.clone();
        retry = Some((after_star, from));
    }
}

/// A value, or each of a list.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

/// Texts, numbers and truth values as policies compare them.
fn texts(value: &Value) -> Vec<String> {
    list(value)
        .into_iter()
        .filter_map(|value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        })
        .collect()
}

fn any(value: &Value, test: impl Fn(&str) -> bool) -> bool {
    texts(value).iter().any(|text| test(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:trail";
    const BUCKET: &str = "arn:aws:s3:::example-logs";
    const CONTEXT: [(&str, Option<&str>); 5] = [
        ("aws:SourceArn", Some(BUCKET)),
        ("aws:SourceAccount", Some("111122223333")),
        ("aws:SecureTransport", Some("true")),
        ("aws:PrincipalOrgID", None),
        ("aws:PrincipalArn", None),
    ];

    fn judge(statements: &Value) -> Verdict {
        let request = Request {
            principal: Principal::Service("s3.amazonaws.com"),
            action: "sqs:SendMessage",
            resource: QUEUE,
            context: &CONTEXT,
        };
        evaluate(&json!({ "Version": "2012-10-17", "Statement": statements }).to_string(), &request).unwrap()
    }

    /// The usual statement, with these fields instead.
    fn allow(change: &Value) -> Value {
        let mut statement = json!({
            "Sid": "Bucket",
            "Effect": "Allow",
            "Principal": { "Service": "s3.amazonaws.com" },
            "Action": "sqs:SendMessage",
            "Resource": QUEUE,
        });
        for (name, value) in change.as_object().unwrap() {
            statement[name] = value.clone();
        }
        statement
    }

    fn deny(change: &Value) -> Value {
        let mut statement = allow(&json!({ "Sid": "No", "Effect": "Deny", "Principal": "*", "Action": "sqs:*" }));
        for (name, value) in change.as_object().unwrap() {
            statement[name] = value.clone();
        }
        statement
    }

    #[test]
    fn a_statement_allows_what_it_names() {
        for change in [
            json!({}),
            json!({ "Action": "SQS:sendmessage" }),
            json!({ "Action": ["sqs:ReceiveMessage", "sqs:Send*"] }),
            json!({ "Action": "*" }),
            json!({ "Principal": "*" }),
            json!({ "Principal": { "AWS": "*" } }),
            json!({ "Principal": { "Service": ["sns.amazonaws.com", "s3.amazonaws.com"] } }),
            json!({ "Resource": "*" }),
            json!({ "Resource": "arn:aws:sqs:*:111122223333:tr?il" }),
            json!({ "Condition": { "ArnEquals": { "aws:SourceArn": BUCKET } } }),
            json!({ "Condition": { "ArnLike": { "AWS:sourcearn": "arn:aws:s3:*:*:example-*" } } }),
            json!({ "Condition": { "StringEquals": { "aws:SourceAccount": ["999999999999", "111122223333"] } } }),
            json!({ "Condition": { "StringLike": { "aws:SourceArn": "arn:aws:s3:::*" },
                                   "Bool": { "aws:SecureTransport": true } } }),
            json!({ "Condition": { "StringEqualsIfExists": { "aws:PrincipalOrgID": "o-example" } } }),
            json!({ "Condition": { "Null": { "aws:PrincipalArn": "true" } } }),
        ] {
            assert_eq!(judge(&json!([allow(&change)])), Verdict::Allowed, "{change}");
        }
        // One statement need not be in a list.
        assert_eq!(judge(&allow(&json!({}))), Verdict::Allowed);
    }

    #[test]
    fn what_no_statement_names_is_not_allowed_and_the_nearest_says_why() {
        for (change, why) in [
            (json!({ "Action": "sqs:ReceiveMessage" }), "statement \"Bucket\" does not name the action"),
            (json!({ "Resource": "arn:aws:sqs:eu-west-1:111122223333:other" }), "does not name the resource"),
            (json!({ "Resource": "arn:aws:sqs:eu-west-1:111122223333:TRAIL" }), "does not name the resource"),
            (
                json!({ "Condition": { "ArnEquals": { "aws:SourceArn": "arn:aws:s3:::other-logs" } } }),
                "asks for aws:SourceArn arn:aws:s3:::other-logs, and it is arn:aws:s3:::example-logs",
            ),
            // A star does not reach over the colons of an ARN.
            (json!({ "Condition": { "ArnLike": { "aws:SourceArn": "arn:aws:s3:*:example-logs" } } }), "aws:SourceArn"),
            (json!({ "Condition": { "StringEquals": { "aws:SourceArn": "arn:aws:s3:::*" } } }), "aws:SourceArn"),
            (json!({ "Condition": { "StringEquals": { "aws:SourceAccount": "999999999999" } } }), "111122223333"),
            (json!({ "Condition": { "StringEquals": { "aws:PrincipalOrgID": "o-x" } } }), "has no aws:PrincipalOrgID"),
            (json!({ "Condition": { "Bool": { "aws:SecureTransport": "false" } } }), "aws:SecureTransport"),
        ] {
            let verdict = judge(&json!([allow(&change)]));
            let Verdict::NotAllowed(near) = &verdict else { panic!("{change}: {verdict:?}") };
            assert!(near.len() == 1 && near[0].contains(why), "{change}: {near:?}");
        }
        for change in [
            json!({ "Principal": { "Service": "sns.amazonaws.com" } }),
            json!({ "Principal": { "AWS": "arn:aws:iam::111122223333:root" } }),
            json!({ "NotPrincipal": { "Service": "s3.amazonaws.com" }, "Principal": null }),
        ] {
            let mut statement = allow(&change);
            if statement["Principal"].is_null() {
                statement.as_object_mut().unwrap().remove("Principal");
            }
            assert_eq!(judge(&json!([statement])), Verdict::NotAllowed(Vec::new()), "{change}");
        }
        assert_eq!(judge(&json!([])), Verdict::NotAllowed(Vec::new()));
    }

    #[test]
    fn a_denial_outweighs_whatever_allows() {
        let tls = json!({ "Condition": { "Bool": { "aws:SecureTransport": "false" } } });
        assert_eq!(judge(&json!([deny(&tls), allow(&json!({}))])), Verdict::Allowed);
        // A service has no organization, and a key that is not there meets what is negated.
        let outsiders = json!({ "Condition": { "StringNotEquals": { "aws:PrincipalOrgID": "o-example" } } });
        assert_eq!(
            judge(&json!([allow(&json!({})), deny(&outsiders)])),
            Verdict::Denied("statement \"No\"".to_owned())
        );
        let others = json!({ "Condition": { "ArnNotLike": { "aws:SourceArn": BUCKET } } });
        assert_eq!(judge(&json!([allow(&json!({})), deny(&others)])), Verdict::Allowed);
        let not_action = json!({ "Action": null, "NotAction": "sqs:ReceiveMessage" });
        let mut statement = deny(&not_action);
        statement.as_object_mut().unwrap().remove("Action");
        assert_eq!(judge(&json!([allow(&json!({})), statement])), Verdict::Denied("statement \"No\"".to_owned()));
        let mut everybody_else = deny(&json!({ "NotPrincipal": { "Service": "s3.amazonaws.com" } }));
        everybody_else.as_object_mut().unwrap().remove("Principal");
        assert_eq!(judge(&json!([allow(&json!({})), everybody_else])), Verdict::Allowed);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let by_address = json!({ "Condition": { "IpAddress": { "aws:SourceIp": "192.0.2.0/24" } } });
        let verdict = judge(&json!([allow(&by_address)]));
        assert!(matches!(&verdict, Verdict::Unclear(why) if why.contains("aws:SourceIp")), "{verdict:?}");
        let verdict = judge(&json!([allow(&json!({})), deny(&by_address)]));
        assert!(matches!(&verdict, Verdict::Unclear(why) if why.contains("denies it if")), "{verdict:?}");
        // Beside a statement that does, one that may allow it means nothing; and without one, a denial neither.
        assert_eq!(judge(&json!([allow(&by_address), allow(&json!({}))])), Verdict::Allowed);
        assert_eq!(judge(&json!([deny(&by_address)])), Verdict::NotAllowed(Vec::new()));
        // Of two that may apply, in either order, the denial is told: nothing is known to be forbidden.
        for both in [json!([allow(&by_address), deny(&by_address)]), json!([deny(&by_address), allow(&by_address)])] {
            let verdict = judge(&both);
            assert!(matches!(&verdict, Verdict::Unclear(why) if why.contains("denies it if")), "{verdict:?}");
        }
        let variable = json!({ "Condition": { "StringEquals": { "aws:SourceAccount": "${aws:ResourceAccount}" } } });
        assert!(matches!(judge(&json!([allow(&variable)])), Verdict::Unclear(_)));
        let numeric = json!({ "Condition": { "NumericLessThan": { "aws:SourceAccount": 5 } } });
        assert!(matches!(judge(&json!([allow(&numeric)])), Verdict::Unclear(_)));
    }

    #[test]
    fn what_is_no_policy_is_told() {
        let request =
            Request { principal: Principal::Stranger, action: "sqs:SendMessage", resource: QUEUE, context: &[] };
        for (policy, why) in [("{", "not JSON"), ("{}", "no Statement"), (r#"{"Statement": ["x"]}"#, "no object")] {
            let error = evaluate(policy, &request).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn wildcards_match_whole_texts() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("??", "é1", true),
            ("?", "", false),
            ("abc", "abcd", false),
            ("*abc", "ababc", true),
            ("a**", "a", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
