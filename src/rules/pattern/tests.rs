use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;

/// A pattern, an event, and the answer of EventBridge's own engine. The order of a pattern's keys counts.
#[derive(Deserialize)]
struct Case<'a> {
    name: &'a str,
    #[serde(borrow)]
    pattern: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(rename = "match")]
    matches: bool,
}

fn compile(pattern: &str) -> Result<Compiled, String> {
    compile_with(pattern, &Lists::new())
}

fn compile_with(pattern: &str, lists: &Lists) -> Result<Compiled, String> {
    let (mut reader, root) = Reader::open(pattern, "{}").map_err(|error| error.to_string())?;
    let place = reader.root(root);
    let compiled =
        Pattern::read(&mut reader, &place, root, lists).and_then(|written| written.compile(&mut reader, &place));
    let told: Vec<_> = reader.finish().iter().map(ToString::to_string).collect();
    compiled.ok_or_else(|| told.join("\n"))
}

#[test]
fn agrees_with_eventbridge_on_generated_patterns_and_events() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("../../../tests/fixtures/patterns/generated.jsonl").lines() {
        let case: Case<'_> = serde_json::from_str(line).unwrap();
        count += 1;
        match compile(case.pattern.get()) {
            Ok(compiled) if compiled.matches(case.event.get().as_bytes()) == case.matches => {}
            Ok(_) => wrong.push(format!("{}: {} on {}", case.name, case.pattern, case.event)),
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    assert_eq!(count, 1_500);
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn lists(text: &str) -> Lists {
    let lists: HashMap<String, Vec<serde_json::Value>> = serde_json::from_str(text).unwrap();
    let read = |(name, values): (String, Vec<serde_json::Value>)| {
        let text = serde_json::Value::from(values).to_string();
        let (mut reader, root) = Reader::open(&text, "[]").unwrap();
        let place = reader.root(root);
        (name, value_conditions(&mut reader, &place, root).unwrap().into())
    };
    lists.into_iter().map(read).collect()
}

/// Compares the matcher with the definition on `count` generated cases; both answers must be frequent.
fn compare(count: u32, cases: &impl Strategy<Value = (naive::Pattern, naive::Json)>) {
    let lists = lists(naive::LISTS);
    let answers = [Cell::new(0_u32), Cell::new(0_u32)];
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) };
    let run = TestRunner::new(config).run(cases, |(pattern, record)| {
        let text = naive::written(&pattern);
        match compile_with(&text, &lists) {
            Ok(compiled) => {
                let expected = naive::matches(&pattern, &record);
                let answer = &answers[usize::from(expected)];
                answer.set(answer.get() + 1);
                let record = record.written();
                prop_assert_eq!(compiled.matches(record.as_bytes()), expected, "{} on {}", text, record);
            }
            Err(told) => prop_assert!(told.contains("ways"), "{}\n{}", text, told),
        }
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    let least = answers.iter().map(Cell::get).min().unwrap();
    assert!(least > count / 8, "one answer came {least} times only");
}

#[test]
fn a_pattern_means_what_its_definition_says() {
    compare(2_000, &(naive::patterns(naive::NAMES), naive::records()));
}

#[test]
fn a_condition_means_what_its_definition_says() {
    compare(5_000, &naive::single_conditions());
}

#[test]
fn fields_are_bound_to_elements_as_the_definition_says() {
    compare(4_000, &naive::bound_fields());
}

fn matches(pattern: &str, record: &str) -> bool {
    compile(pattern).unwrap().matches(record.as_bytes())
}

#[test]
fn what_is_written_last_for_a_path_counts_as_in_eventbridge() {
    let pattern = r#"{"a": ["x"], "$or": [{"a": ["y"]}, {"b": ["z"]}]}"#;
    assert!(matches(pattern, r#"{"a":"y"}"#));
    assert!(!matches(pattern, r#"{"a":"x"}"#));
    assert!(matches(pattern, r#"{"a":"x","b":"z"}"#));
    let pattern = r#"{"$or": [{"a": ["y"]}, {"b": ["z"]}], "a": ["x"]}"#;
    assert!(matches(pattern, r#"{"a":"x"}"#));
    assert!(!matches(pattern, r#"{"a":"y"}"#));
}

#[test]
fn a_name_with_dots_is_found_and_every_way_of_reading_a_path_is_followed() {
    for record in [
        r#"{"a":{"b":{"c":1}}}"#,
        r#"{"a.b":{"c":1}}"#,
        r#"{"a":{"b.c":1}}"#,
        r#"{"a.b.c":1}"#,
        r#"{"a":{"b":{"c":2}},"a.b":{"c":1}}"#,
        r#"{"a":{"b":{"c":1}},"a.b":{"c":2}}"#,
        r#"{"\u0061.b":[{"c":[2,1]}]}"#,
    ] {
        assert!(matches(r#"{"a":{"b":{"c":[1]}}}"#, record), "{record}");
        assert!(matches(r#"{"a.b.c":[1]}"#, record), "{record}");
        assert!(!matches(r#"{"a.b.c":[3]}"#, record), "{record}");
        assert!(!matches(r#"{"a.b.c":[{"exists":false}]}"#, record), "{record}");
    }
    // The last of equal names wins, whichever way.
    assert!(!matches(r#"{"a.b":[1]}"#, r#"{"a.b":1,"a.b":2}"#));
    assert!(matches(r#"{"aws:s3:arn":["x"],"a*":["y"]}"#, r#"{"aws:s3:arn":"x","a*":"y"}"#));
}

#[test]
fn addresses_are_compared_as_addresses_and_blocks_as_eventbridge_cuts_them() {
    let holds = |condition: &str, address: &str| {
        matches(&format!(r#"{{"a":[{condition}]}}"#), &format!(r#"{{"a":"{address}"}}"#))
    };
    assert!(holds(r#""2001:db8::1""#, "2001:0DB8:0:0:0:0:0:1"));
    assert!(holds(r#"{"cidr":"10.0.0.0/8"}"#, "10.255.0.1"));
    assert!(!holds(r#"{"cidr":"10.0.0.0/8"}"#, "11.0.0.0"));
    assert!(holds(r#"{"cidr":"2001:db8::/32"}"#, "2001:db8:ffff::9"));
    assert!(!holds(r#"{"cidr":"0.0.0.0/0"}"#, "2001:db8::1"));
    // A single address is refused there.
    assert!(holds(r#"{"cidr":"192.0.2.7/32"}"#, "192.0.2.7"));
    assert!(!holds(r#"{"cidr":"192.0.2.7/32"}"#, "192.0.2.8"));
    assert!(holds(r#"{"cidr":"2001:db8::1/128"}"#, "2001:db8::1"));
    // Host bits are not cleared.
    assert!(!holds(r#"{"cidr":"10.0.0.5/24"}"#, "10.0.0.4"));
    assert!(holds(r#"{"cidr":"10.0.0.5/24"}"#, "10.0.0.255"));
    for no_address in ["AWS Internal", "10.0.0.5, 10.0.0.6", "cloudtrail.amazonaws.com", "10.0.0", ""] {
        assert!(!holds(r#"{"cidr":"0.0.0.0/0"}"#, no_address), "{no_address}");
    }
}

#[test]
fn numbers_are_compared_by_value() {
    let holds =
        |condition: &str, number: &str| matches(&format!(r#"{{"a":[{condition}]}}"#), &format!(r#"{{"a":{number}}}"#));
    assert!(holds("10", "10.0") && holds("1e1", "10") && holds("-0.5", "-5e-1"));
    assert!(!holds("10", "\"10\"") && !holds("\"10\"", "10"));
    assert!(!holds("9007199254740993", "9007199254740992"));
    assert!(holds(r#"{"numeric":[">",0,"<=",5]}"#, "5.0") && !holds(r#"{"numeric":[">",0,"<=",5]}"#, "0"));
    assert!(holds(r#"{"numeric":["=",3]}"#, "3") && !holds(r#"{"numeric":["<",3]}"#, "\"2\""));
}

#[test]
fn zero_has_no_sign() {
    for condition in ["0", r#"{"numeric":[">=",0]}"#, r#"{"numeric":["<=",-0.0]}"#, r#"{"numeric":["=",0.0]}"#] {
        for number in ["0", "-0", "-0.0", "0e3"] {
            let (pattern, record) = (format!(r#"{{"a":[{condition}]}}"#), format!(r#"{{"a":{number}}}"#));
            assert!(matches(&pattern, &record), "{pattern} on {record}");
        }
    }
}

#[test]
fn a_value_that_is_found_twice_may_bind_what_must_be_absent() {
    let pattern = r#"{"a":["x"],"a.b":[{"exists":false}]}"#;
    // The first "x" belongs to no element, and a.b is there; the second belongs to one without it.
    assert!(matches(pattern, r#"{"a":["x",["x"],{"b":1}]}"#));
    assert!(!matches(pattern, r#"{"a":["x",{"b":1}]}"#));
    assert!(!matches(pattern, r#"{"a":["y",["x",{"b":1}]]}"#));
}

#[test]
fn the_other_four_conditions() {
    let own_key = r#"{"requestParameters":{"userName":[{"field":"userIdentity.userName"}]}}"#;
    let others_key = r#"{"requestParameters":{"userName":[{"anything-but":{"field":"userIdentity.userName"}}]}}"#;
    for (record, own, others) in [
        (r#"{"userIdentity":{"userName":"ada"},"requestParameters":{"userName":"ada"}}"#, true, false),
        (r#"{"userIdentity":{"userName":"ada"},"requestParameters":{"userName":"bob"}}"#, false, true),
        (r#"{"userIdentity":{},"requestParameters":{"userName":"bob"}}"#, false, true),
        (r#"{"userIdentity":{"userName":"ada"},"requestParameters":null}"#, false, false),
        (r#"{"userIdentity":{"userName":null},"requestParameters":{"userName":null}}"#, false, true),
    ] {
        assert_eq!((matches(own_key, record), matches(others_key, record)), (own, others), "{record}");
    }
    let public = r#"{"doc":[{"json":{"Statement":{"Effect":["Allow"],"Principal":{"AWS":["*"]}}}}]}"#;
    let not_public =
        r#"{"doc":[{"anything-but":{"json":{"Statement":{"Effect":["Allow"],"Principal":{"AWS":["*"]}}}}}]}"#;
    let policy = |statement: &str| format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#);
    for (document, expected) in [
        (policy(r#"[{"Effect":"Allow","Principal":{"AWS":["1","*"]}}]"#), true),
        (policy(r#"{"Effect":"Allow","Principal":{"AWS":"*"}}"#), true),
        // Not in one statement.
        (policy(r#"[{"Effect":"Deny","Principal":{"AWS":"*"}},{"Effect":"Allow","Principal":{"AWS":"1"}}]"#), false),
        ("no JSON".to_owned(), false),
        (String::new(), false),
    ] {
        let encoded = percent_encoding::utf8_percent_encode(&document, percent_encoding::NON_ALPHANUMERIC).to_string();
        for text in [document, encoded] {
            let record = serde_json::json!({ "doc": text }).to_string();
            assert_eq!((matches(public, &record), matches(not_public, &record)), (expected, !expected), "{record}");
        }
    }
    assert!(matches(r#"{"a":[{"regex":"(?i)^kali"}]}"#, r#"{"a":"Kali Linux"}"#));
    assert!(!matches(r#"{"a":[{"anything-but":{"regex":"kali"}}]}"#, r#"{"a":"x kali"}"#));
    assert!(!matches(r#"{"a":[{"regex":"."}]}"#, r#"{"a":7}"#));
}

#[test]
fn depth_and_size_of_a_record_cost_little() {
    let deep = format!(r#"{{"a":{}1{},"b":"x"}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(matches(r#"{"b":["x"]}"#, &deep));
    assert!(!matches(r#"{"a":[1],"b":["x"]}"#, &deep));
    let nested = format!(r#"{{"a":{}1{}}}"#, "[".repeat(90), "]".repeat(90));
    assert!(matches(r#"{"a":[1]}"#, &nested));
    // Two fields that hold in every element, and a third in none: choosing elements for each would never end.
    let element = r#"{"x":1,"y":2}"#;
    let wide = format!(r#"{{"a":[{0}],"b":[{0}],"c":[{0}]}}"#, vec![element; 5_000].join(","));
    let pattern = r#"{"a":{"x":[1],"y":[2]},"b":{"x":[1],"y":[2]},"c":{"x":[1],"y":[3]}}"#;
    assert!(!matches(pattern, &wide));
}

#[test]
fn what_is_wrong_is_told_with_advice() {
    let all: Vec<_> = [
        r#"{"a": "x"}"#,
        r#"{"a": []}"#,
        r#"{"a": {}}"#,
        r#"{"a": [{}]}"#,
        r#"{"a": [{"prefix": "x", "suffix": "y"}]}"#,
        r#"{"a": [{"perfix": "x"}]}"#,
        r#"{"a": [["x"]]}"#,
        r#"{"a": [{"wildcard": "a**b"}]}"#,
        r#"{"a": [{"wildcard": "a\\b"}]}"#,
        r#"{"a": [{"numeric": [">"]}]}"#,
        r#"{"a": [{"numeric": [">", 5, "<", 3]}]}"#,
        r#"{"a": [{"numeric": ["!=", 5]}]}"#,
        r#"{"a": [{"numeric": [">", "5"]}]}"#,
        r#"{"a": [{"cidr": "10.0.0.0"}]}"#,
        r#"{"a": [{"cidr": "10.0.0.0/33"}]}"#,
        r#"{"a": [{"exists": "true"}]}"#,
        r#"{"a": [{"anything-but": []}]}"#,
        r#"{"a": [{"anything-but": ["x", 1]}]}"#,
        r#"{"a": [{"anything-but": null}]}"#,
        r#"{"a": [{"anything-but": {"prefix": ""}}]}"#,
        r#"{"a": [{"anything-but": {"cidr": "10.0.0.0/8"}}]}"#,
        r#"{"a": [{"regex": "("}]}"#,
        r#"{"a": [{"regex": "\\w{1000}{1000}"}]}"#,
        r#"{"a": [{"list": "nobody"}]}"#,
        r#"{"a": [{"json": {}}]}"#,
        r#"{"$or": [{"a": ["x"]}]}"#,
        r#"{"$or": [{"a": ["x"]}, {"numeric": [">", 1]}]}"#,
        r#"{"$or": {"a": ["x"]}}"#,
        r#"{"": ["x"]}"#,
    ]
    .into_iter()
    .map(|pattern| format!("{pattern}\n{}", compile(pattern).expect_err(pattern)))
    .collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    {"a": "x"}
    line 1: a: expected a list of conditions or an object of fields, found a string; write ["x"]
    {"a": []}
    line 1: a: the list is empty: nothing would ever match; name a value, or ask for [{"exists": true}]
    {"a": {}}
    line 1: a: the object is empty: it would ask for nothing; name a field, or leave the pattern out
    {"a": [{}]}
    line 1: a[0]: the condition is empty; give one of prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, cidr, exists, field, list, json, regex, exactly
    {"a": [{"prefix": "x", "suffix": "y"}]}
    line 1: a[0]: a condition has exactly one key; put each into an object of its own: the conditions of a list are alternatives
    {"a": [{"perfix": "x"}]}
    line 1: a[0].perfix: unknown condition; did you mean "prefix"?
    {"a": [["x"]]}
    line 1: a[0]: a list within the list of conditions; write the values side by side
    {"a": [{"wildcard": "a**b"}]}
    line 1: a[0].wildcard: two stars in a row mean what one means; EventBridge refuses them
    {"a": [{"wildcard": "a\\b"}]}
    line 1: a[0].wildcard: a backslash stands only before * or another backslash
    {"a": [{"numeric": [">"]}]}
    line 1: a[0].numeric: numeric takes one or two pairs of operator and number; such as [">", 0, "<=", 5]
    {"a": [{"numeric": [">", 5, "<", 3]}]}
    line 1: a[0].numeric: no number is in this range: the condition is never true
    {"a": [{"numeric": ["!=", 5]}]}
    line 1: a[0].numeric[0]: "!=" is no operator; give one of = < <= > >=
    {"a": [{"numeric": [">", "5"]}]}
    line 1: a[0].numeric[1]: expected a number that is not out of range, found a string
    {"a": [{"cidr": "10.0.0.0"}]}
    line 1: a[0].cidr: "10.0.0.0" is no CIDR block; write an address, a slash and the bits of the network: "10.0.0.0/8"
    {"a": [{"cidr": "10.0.0.0/33"}]}
    line 1: a[0].cidr: "10.0.0.0/33" is no CIDR block; write an address, a slash and the bits of the network: "10.0.0.0/8"
    {"a": [{"exists": "true"}]}
    line 1: a[0].exists: exists takes true or false
    {"a": [{"anything-but": []}]}
    line 1: a[0].anything-but: the list is empty; name a value, or ask for {"exists": true}
    {"a": [{"anything-but": ["x", 1]}]}
    line 1: a[0].anything-but: values of different kinds under anything-but; EventBridge takes either strings or numbers
    {"a": [{"anything-but": null}]}
    line 1: a[0].anything-but: anything-but takes strings, numbers or a condition, not null
    {"a": [{"anything-but": {"prefix": ""}}]}
    line 1: a[0].anything-but.prefix: the string is empty; leave the key out, or name a value
    {"a": [{"anything-but": {"cidr": "10.0.0.0/8"}}]}
    line 1: a[0].anything-but.cidr: unknown condition; here only prefix, suffix, equals-ignore-case, wildcard, field, list, json, regex are possible
    {"a": [{"regex": "("}]}
    line 1: a[0].regex: no regular expression: unclosed group
    {"a": [{"regex": "\\w{1000}{1000}"}]}
    line 1: a[0].regex: no regular expression: Compiled regex exceeds size limit of 1048576 bytes.
    {"a": [{"list": "nobody"}]}
    line 1: a[0].list: there is no list "nobody"; define it under "lists" at the top of the file; known are 
    {"a": [{"json": {}}]}
    line 1: a[0].json: the object is empty: it would ask for nothing; name a field, or leave the pattern out
    {"$or": [{"a": ["x"]}]}
    line 1: $or: $or needs at least two alternatives; write the fields of a single alternative without $or
    {"$or": [{"a": ["x"]}, {"numeric": [">", 1]}]}
    line 1: $or[1]: "numeric" is a condition on a value, not a field; an alternative is an object of fields: {"name": [...]}
    {"$or": {"a": ["x"]}}
    line 1: $or: expected a list of patterns, found an object
    {"": ["x"]}
    line 1: [""]: a field has no name
    "#);
    let alternatives = |field: usize| format!(r#"{{"$or":[{{"a{field}":[1]}},{{"b{field}":[1]}}]}}"#);
    let product: Vec<_> = (0..10).map(|field| format!(r#""x{field}":{}"#, alternatives(field))).collect();
    assert!(compile(&format!("{{{}}}", product.join(","))).unwrap_err().contains("more than 1000 ways"));
    assert!(compile(&format!("{{{}}}", product[..9].join(","))).is_ok());
    assert!(compile(&format!("{}[1]{}", r#"{"a":"#.repeat(33), "}".repeat(33))).unwrap_err().contains("32 levels"));
}
