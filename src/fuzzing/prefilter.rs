//! The input: a byte for the rules, a byte for where the text stands, and the text: members behind those of a usual record,
//! records, or a whole document.

use std::sync::Arc;

use serde_json::Value;

use crate::cloudtrail::Limits;
use crate::cloudtrail::testing::{Found, detect, read_every_record};
use crate::rules::{DEFAULT_RULES, RuleSet};

const LIMITS: Limits = Limits {
    max_compressed_bytes: 1 << 20,
    max_decompressed_bytes: 4 << 20,
    max_ratio: 200,
    max_record_bytes: 1 << 18,
};

/// Members of a record that no rule here asks for, so that what follows decides.
const RECORD: &str = r#"{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::111122223333:assumed-role/worker/i-0a",
"sessionContext":{"sessionIssuer":{"type":"Role","userName":"worker"}}},"eventTime":"2026-05-01T00:00:00Z","eventSource":"ec2.amazonaws.com",
"eventName":"DescribeInstances","userAgent":"aws-cli/2","sourceIPAddress":"10.0.0.1","requestParameters":null"#;

/// A rule, and what it means said a second time, of a record as `serde_json` reads it.
type Said = (&'static str, fn(&Value) -> Option<bool>);

const SAID: [Said; 7] = [
    (r#""eventName": "StopLogging""#, |record| Some(record["eventName"] == "StopLogging")),
    (r#""eventName": ["Delete*", "*Policy"], "eventSource": "iam.amazonaws.com""#, |record| {
        let name = record["eventName"].as_str().unwrap_or_default();
        Some((name.starts_with("Delete") || name.ends_with("Policy")) && record["eventSource"] == "iam.amazonaws.com")
    }),
    (r#""errorCode": "*Denied*""#, |record| {
        Some(record["errorCode"].as_str().is_some_and(|code| code.contains("Denied")))
    }),
    (r#""userIdentityType": "Root""#, |record| Some(record["userIdentity"]["type"] == "Root")),
    (r#""pattern": {"userAgent": [{"prefix": "Pacu"}]}"#, |record| match &record["userAgent"] {
        Value::Array(_) => None, // Any of its elements counts: `pattern_matching` looks at that.
        agent => Some(agent.as_str().is_some_and(|agent| agent.starts_with("Pacu"))),
    }),
    (r#""pattern": {"userIdentity": {"type": ["IAMUser"]}, "eventName": ["ConsoleLogin"]}"#, |record| {
        let arrays = record["userIdentity"].is_array()
            || record["userIdentity"]["type"].is_array()
            || record["eventName"].is_array();
        (!arrays).then(|| record["userIdentity"]["type"] == "IAMUser" && record["eventName"] == "ConsoleLogin")
    }),
    (r#""eventName": "Run*", "pattern": {"errorCode": [{"exists": false}]}"#, |record| {
        let name = record["eventName"].as_str().unwrap_or_default();
        // An empty array or object is no leaf.
        let code = &record["errorCode"];
        let odd = code.is_array() || code.is_object();
        (!odd).then(|| name.starts_with("Run") && record.get("errorCode").is_none())
    }),
];

/// The default rules, all of the above, or one of them.
fn rules(of: u8) -> Arc<RuleSet> {
    let one = |(id, (body, _)): (usize, &Said)| format!(r#"{{"id": "r{id}", "severity": "LOW", {body}}}"#);
    let all: Vec<String> = SAID.iter().enumerate().map(one).collect();
    let text = match usize::from(of).checked_sub(2).and_then(|of| all.get(of % SAID.len())) {
        _ if of == 0 => DEFAULT_RULES.to_owned(),
        Some(one) => format!("[{one}]"),
        None => format!("[{}]", all.join(",\n")),
    };
    Arc::new(RuleSet::parse(&text).expect("the rules are right"))
}

pub fn check(data: &[u8]) {
    let Some(([of, form], text)) = data.split_first_chunk() else { return };
    let document = match form % 3 {
        0 => [br#"{"Records":["#, RECORD.as_bytes(), text, b"}]}"].concat(),
        1 => [br#"{"Records":["#, text, b"]}"].concat(),
        _ => text.to_vec(),
    };
    let rules = rules(*of);
    let (filtered, whole) = (detect(&document, &rules, true, LIMITS), detect(&document, &rules, false, LIMITS));
    assert_eq!(filtered, whole, "the prefilter changes what is found in {}", String::from_utf8_lossy(&document));
    if *of != 0 {
        check_meaning(&document, &rules, &filtered);
    }
}

/// What is found in records that `serde_json` takes is what the rules say.
fn check_meaning(document: &[u8], rules: &RuleSet, found: &[Found]) {
    for (index, raw) in read_every_record(document, &[], LIMITS).records {
        let Ok(record) = serde_json::from_slice::<Value>(&raw) else { continue };
        let found = found.iter().find(|one| one.index == index && one.raw == raw);
        for rule in rules.rules() {
            let said = rule.id.strip_prefix('r').and_then(|id| SAID.get(id.parse::<usize>().ok()?));
            let Some(expected) = said.and_then(|(_, holds)| holds(&record)) else { continue };
            let is_found = found.is_some_and(|one| one.rules.contains(&rule.id));
            assert_eq!(is_found, expected, "{} on {record}", rule.id);
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let members = [
        r#","eventName":"StopLogging""#,
        r#","\u0065ventName":"StopLogging""#,
        r#","eventName":"Stop\u004cogging""#,
        "\n,\t\"eventName\"\r\n:\n\"StopLogging\"\n",
        r#","x":"\",\"eventName\":\"StopLogging\",\"","y":"\\""#,
        r#","x":{"eventName":"StopLogging","type":"Root"},"eventName":null"#,
        r#","eventName":"DeleteRole","eventSource":"iam.amazonaws.com","errorCode":"AccessDenied""#,
        r#","userIdentity":{"type":"IAMUser","x":{"type":"Root"}},"eventName":"ConsoleLogin""#,
        r#","userIdentity":{"x":{"type":"Root"},"type":"Root","type":"AWSService"}"#,
        r#","userIdentity":[{"type":"Root"}],"userIdentity.type":"Root""#,
        r#","userAgent":"Pacu/1","userAgent":["aws-cli/2","Pacu"],"errorCode":"""#,
        r#","eventName":"RunInstances","errorCode":null"#,
    ];
    let mut seeds: Vec<_> = (0_u8..).zip(members).map(|(of, text)| [&[of % 9, 0], text.as_bytes()].concat()).collect();
    seeds.extend(members.map(|text| format!("\u{1}\u{1}{RECORD}{text}}},{RECORD}}}").into_bytes()));
    seeds.push([&[1, 2], br#"{"Records":[{"eventName":"StopLogging"}],"x":[{}]}"#.as_slice()].concat());
    seeds
}
