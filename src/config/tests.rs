use std::collections::BTreeSet;

use insta::assert_snapshot;

use super::*;

const REQUIRED: [(&str, &str); 3] = [
    ("SQS_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound"),
    ("SNS_TOPIC_ARN", "arn:aws:sns:eu-west-1:111122223333:trailhound-alerts"),
    ("DYNAMODB_TABLE", "trailhound-events"),
];

#[test]
fn three_variables_are_enough() {
    let (config, origins) = load("", &[]).unwrap();
    assert_eq!(config.queue.url, REQUIRED[0].1);
    assert_eq!(config.queue.wait, Duration::from_secs(20));
    assert_eq!(config.queue.visibility, None);
    assert_eq!(config.source.limits.max_decompressed_bytes, 8 << 30);
    assert_eq!(config.source.limits.max_record_bytes, 2 << 20);
    assert!(config.source.inline_records);
    assert!(config.pipeline.decoders >= 1, "zero means the number of cores");
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(origins.get("queue.url"), Origin::Env("SQS_QUEUE_URL".into()));
    assert_eq!(origins.get("queue.wait"), Origin::Default);
}

#[test]
fn everything_missing_is_reported_at_once_with_both_ways_to_set_it() {
    let errors = Config::load(None, std::iter::empty()).unwrap_err();
    assert_snapshot!(errors, @r#"
    queue.url: is not set: write `url = "..."` below [queue] in the file of --config, or set the environment variable SQS_QUEUE_URL or TRAILHOUND_QUEUE__URL
    alerting.topic_arn: is not set: write `topic_arn = "..."` below [alerting] in the file of --config, or set the environment variable SNS_TOPIC_ARN or TRAILHOUND_ALERTING__TOPIC_ARN
    store.table: is not set: write `table = "..."` below [store] in the file of --config, or set the environment variable DYNAMODB_TABLE or TRAILHOUND_STORE__TABLE
    "#);
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let file = "[log]\nlevel = \"warn\"\n[store]\nretention_days = 7\n[queue]\npollers = 2\n";
    let (config, origins) =
        load(file, &[("LOG_LEVEL", "INFO"), ("TRAILHOUND_LOG__LEVEL", "debug"), ("TRAILHOUND_QUEUE__POLLERS", "3")])
            .unwrap();
    assert_eq!((config.log.level.as_str(), config.store.retention_days, config.queue.pollers), ("debug", 7, 3));
    assert_eq!(origins.get("log.level"), Origin::Env("TRAILHOUND_LOG__LEVEL".into()));
    assert!(origins.get("store.retention_days").to_string().ends_with("trailhound.toml:4"));
    let (config, origins) = load(file, &[("LOG_LEVEL", "INFO")]).unwrap();
    assert_eq!((config.log.level.as_str(), config.queue.pollers), ("INFO", 2));
    assert_eq!(origins.get("log.level"), Origin::Env("LOG_LEVEL".into()));
}

#[test]
fn an_empty_value_counts_as_not_set() {
    let (config, origins) = load(
        "[queue]\nvisibility = \"\"\nwait = \"\"\n",
        &[("TRAILHOUND_QUEUE__POLLERS", ""), ("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", " "), ("LOG_LEVEL", "")],
    )
    .unwrap();
    assert_eq!((config.queue.wait, config.queue.pollers), (Duration::from_secs(20), 1));
    assert_eq!(config.log.level, "info");
    assert_eq!(origins.get("log.level"), Origin::Default);
}

#[test]
fn every_wrong_value_of_a_file_is_reported_with_its_line() {
    let file = r#"
        [queue]
        url = "arn:aws:sqs:eu-west-1:111122223333:trailhound"
        pollers = 17
        wait = "21s"
        visibility = "5s"

        [source]
        allowed_buckets = ["s3://trail-logs"]
        inline_records = "yes"
        max_compressed_bytes = 0
        max_decompressed_bytes = "8 gigabytes"
        max_ratio = -1
        max_record_bytes = "2GiB"

        [pipeline]
        concurrency = 0
        decoders = 1.5

        [alerting]
        topic_arn = "arn:aws:sns:eu-west-1:111122223333:alerts:6b0e71bd-7e97-4d97-80ce-4a0994e55286"

        [store]
        table = "a b"
        retention_days = 0

        [http]
        listen = ":8080"

        [log]
        level = "verbose"
        format = "xml"

        [shutdown]
        deadline = 25
        stop_timeout = "30"
    "#;
    assert_snapshot!(wrong(file, &[]), @r#"
    queue.url (trailhound.toml:3): "arn:aws:sqs:eu-west-1:111122223333:trailhound" is an ARN; the URL of an SQS queue looks like https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound
    queue.pollers (trailhound.toml:4): must be a whole number from 1 to 16, not 17
    queue.wait (trailhound.toml:5): must be whole seconds from 0s to 20s, not 21s
    queue.visibility (trailhound.toml:6): must be whole seconds from 10s to 12h, not 5s
    source.allowed_buckets (trailhound.toml:9): "s3://trail-logs" is not the name of a bucket: 3 to 63 letters, digits, '-' and '.', without "s3://" or a path
    source.inline_records (trailhound.toml:10): must be true or false, not a string
    source.max_compressed_bytes (trailhound.toml:11): must be at least one byte, written as 65536, "64KiB", "64MiB" or "1GiB", not 0
    source.max_decompressed_bytes (trailhound.toml:12): must be at least one byte, written as 65536, "64KiB", "64MiB" or "1GiB", not "8 gigabytes"
    source.max_ratio (trailhound.toml:13): must be a whole number from 1 to 1000000, not -1
    source.max_record_bytes (trailhound.toml:14): must be at most 1GiB, not 2GiB
    pipeline.concurrency (trailhound.toml:17): must be a whole number from 1 to 1000, not 0
    pipeline.decoders (trailhound.toml:18): must be a whole number from 0 to 256, not 1.5
    alerting.topic_arn (trailhound.toml:21): "arn:aws:sns:eu-west-1:111122223333:alerts:6b0e71bd-7e97-4d97-80ce-4a0994e55286" is the ARN of a subscription, not of its topic; it looks like arn:aws:sns:eu-west-1:111122223333:trailhound-alerts
    store.table (trailhound.toml:24): "a b" is not the name of a DynamoDB table: 3 to 255 letters, digits, '_', '-' and '.'
    store.retention_days (trailhound.toml:25): must be a whole number from 1 to 36500, not 0
    http.listen (trailhound.toml:28): ":8080" is not an IP address and a port; write "0.0.0.0:8080", "127.0.0.1:8080" or "[::]:8080"
    log.level (trailhound.toml:31): "verbose" is not a level; take error, warn, info, debug, trace or off, or a filter such as "info,trailhound::deliver=debug"
    log.format (trailhound.toml:32): must be "auto", "json" or "text", not "xml"
    shutdown.deadline (trailhound.toml:35): must be a duration such as "500ms", "20s", "5m" or "12h", not 25
    shutdown.stop_timeout (trailhound.toml:36): must be a duration such as "500ms", "20s", "5m" or "12h", not "30"
    "#);
}

#[test]
fn every_wrong_variable_is_named_exactly() {
    let errors = wrong(
        "",
        &[
            ("SQS_QUEUE_URL", "https://user:secret@sqs.example.com/queue"),
            ("SNS_TOPIC_ARN", "alerts"),
            ("DYNAMODB_TABLE", "x"),
            ("TRAILHOUND_QUEUE__POLLERS", "two"),
            ("TRAILHOUND_QUEUE__WAIT", "1500ms"),
            ("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", ","),
            ("TRAILHOUND_SOURCE__INLINE_RECORDS", "on"),
            ("TRAILHOUND_SOURCE__MAX_RECORD_BYTES", "18446744073709551616"),
            ("TRAILHOUND_SHUTDOWN__DEADLINE", "999999999999999999999d"),
            ("LOG_LEVEL", "WARNINGS"),
        ],
    );
    assert_snapshot!(errors, @r#"
    queue.url (environment variable SQS_QUEUE_URL): holds an '@': AWS credentials come from the SDK's own chain, not from here; the URL of an SQS queue looks like https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound
    queue.pollers (environment variable TRAILHOUND_QUEUE__POLLERS): must be a whole number from 1 to 16, not "two"
    queue.wait (environment variable TRAILHOUND_QUEUE__WAIT): must be whole seconds from 0s to 20s, not 1500ms
    source.allowed_buckets (environment variable TRAILHOUND_SOURCE__ALLOWED_BUCKETS): must be names with commas between, not ","
    source.inline_records (environment variable TRAILHOUND_SOURCE__INLINE_RECORDS): must be true or false, not "on"
    source.max_record_bytes (environment variable TRAILHOUND_SOURCE__MAX_RECORD_BYTES): must be at least one byte, written as 65536, "64KiB", "64MiB" or "1GiB", not "18446744073709551616"
    alerting.topic_arn (environment variable SNS_TOPIC_ARN): "alerts" is not the ARN of an SNS topic; it looks like arn:aws:sns:eu-west-1:111122223333:trailhound-alerts
    store.table (environment variable DYNAMODB_TABLE): "x" is not the name of a DynamoDB table: 3 to 255 letters, digits, '_', '-' and '.'
    log.level (environment variable LOG_LEVEL): "WARNINGS" is not a level; take error, warn, info, debug, trace or off, or a filter such as "info,trailhound::deliver=debug"
    shutdown.deadline (environment variable TRAILHOUND_SHUTDOWN__DEADLINE): must be a duration such as "500ms", "20s", "5m" or "12h", not "999999999999999999999d"
    "#);
}

#[test]
fn what_cloudwatch_would_drop_is_refused() {
    let set = |key: &str, value: &str| load(&format!("[emf]\n{key} = {value:?}\n"), &[]);
    for right in ["trailhound", "Security/CloudTrail alerts", "a:b#c.d-e_f", &"n".repeat(255)] {
        assert_eq!(set("namespace", right).unwrap().0.emf.namespace, right);
    }
    for wrong in ["AWS/Logs", "AWS/", " ", ":a", "caf\u{e9}", "a\tb", &"n".repeat(256)] {
        assert!(set("namespace", wrong).is_err(), "{wrong:?}");
    }
    for right in ["trailhound", "eu-central-1 (blue)", &"s".repeat(1024)] {
        assert_eq!(set("service", right).unwrap().0.emf.service, right);
    }
    for wrong in [" ", ":a", "caf\u{e9}", "a\nb", &"s".repeat(1025)] {
        assert!(set("service", wrong).is_err(), "{wrong:?}");
    }
    for right in ["10s", "1m", "5m", "90s"] {
        assert!(set("interval", right).is_ok(), "{right}");
    }
    assert!(!load("", &[]).unwrap().0.emf.enabled, "nothing is printed unless it was asked for");
    let errors = wrong(
        "[emf]\nenabled = \"yes\"\nnamespace = \"AWS/Logs\"\nservice = \":a\"\ninterval = \"301s\"\n",
        &[&REQUIRED[..], &[("TRAILHOUND_EMF__INTERVAL", "1500ms"), ("TRAILHOUND_EMF__NAMESPACE", "a,b")]].concat(),
    );
    assert_snapshot!(errors, @r#"
    emf.enabled (trailhound.toml:2): must be true or false, not a string
    emf.namespace (environment variable TRAILHOUND_EMF__NAMESPACE): "a,b" is not a CloudWatch namespace: 1 to 255 letters, digits, '.', '-', '_', '/', '#', ':' and spaces, not all of them spaces, the first not ':'
    emf.service (trailhound.toml:4): ":a" is not the value of a CloudWatch dimension: 1 to 1024 printable ASCII characters, not all of them spaces, the first not ':'
    emf.interval (environment variable TRAILHOUND_EMF__INTERVAL): must be whole seconds from 10s to 5m, not 1500ms
    "#);
}

/// A file on a disk leaves no record, so that empty lists for it are no mistake to warn of.
#[test]
fn rules_in_s3_are_a_part_of_the_pipeline_that_rules_can_guard() {
    let lists = |path: &str| {
        let lists = load(&format!("[rules]\npath = {path:?}\n"), &[]).unwrap().0.rule_lists();
        ["trailhound.rule_buckets", "trailhound.rule_keys"].map(|name| lists.get(name).cloned())
    };
    assert_eq!(lists("monitored_events.json"), [None, None]);
    for path in ["s3://rules/of/trailhound.json", "s3://rules/of/trailhound.json?versionId=3HL4"] {
        assert_eq!(lists(path), [Some(vec![json!("rules")]), Some(vec![json!("of/trailhound.json")])]);
    }
}

#[test]
fn unknown_keys_are_errors_that_suggest_the_nearest_known_one() {
    let errors = wrong(
        "queue = 3\n[queu]\nurl = \"x\"\n[pipeline]\nconcurency = 3\nsomething_else = 1\n[empty]\n",
        &[&REQUIRED[..], &[("TRAILHOUND_QUEUE_URL", "x"), ("TRAILHOUND_STORE__TABEL", "x"), ("TRAILHOUND_XYZ", "x")]]
            .concat(),
    );
    assert_snapshot!(errors, @r"
    queue (trailhound.toml:1): is a section: write [queue] and its keys below it
    queu.url (trailhound.toml:3): is not a known key; did you mean queue.url?
    pipeline.concurency (trailhound.toml:5): is not a known key; did you mean pipeline.concurrency?
    pipeline.something_else (trailhound.toml:6): is not a known key; `trailhound config` and docs/configuration.md list them all
    empty (trailhound.toml:7): is not a known key; `trailhound config` and docs/configuration.md list them all
    environment variable TRAILHOUND_QUEUE_URL: is not a known setting; did you mean TRAILHOUND_QUEUE__URL?
    environment variable TRAILHOUND_STORE__TABEL: is not a known setting; did you mean TRAILHOUND_STORE__TABLE?
    environment variable TRAILHOUND_XYZ: is not a known setting; `trailhound config` and docs/configuration.md list them all
    ");
}

#[test]
fn variables_that_others_set_are_left_alone() {
    let injected = [
        ("TRAILHOUND_SERVICE_HOST", "10.0.0.1"),
        ("TRAILHOUND_SERVICE_PORT_HTTP", "8080"),
        ("TRAILHOUND_PORT", "tcp://10.0.0.1:8080"),
        ("TRAILHOUND_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("TRAILHOUND_METRICS_SERVICE_HOST", "10.0.0.2"),
        ("TRAILHOUND_REVISION", "0123abc"),
        ("AWS_REGION", "eu-west-1"),
        ("PATH", "/bin"),
    ];
    assert!(load("", &injected).is_ok());
}

#[test]
fn a_section_whose_keys_are_commented_out_is_no_error() {
    assert!(load("[queue]\n# wait = \"5s\"\n[log]\n", &[]).is_ok());
}

#[test]
fn a_stop_that_cannot_be_clean_is_refused() {
    let errors = wrong(
        "[shutdown]\ndeadline = \"10s\"\nstop_timeout = \"5s\"\n",
        &[&REQUIRED[..], &[("TRAILHOUND_QUEUE__WAIT", "20s")]].concat(),
    );
    assert_snapshot!(errors, @r"
    queue.wait (environment variable TRAILHOUND_QUEUE__WAIT): 20s is longer than shutdown.deadline (trailhound.toml:2), 10s: a receive in flight ends before it; lower the one or raise the other
    shutdown.deadline (trailhound.toml:2): 10s is longer than shutdown.stop_timeout (trailhound.toml:3), 5s: the container is killed after it; lower the one or raise the other
    ");
    let equal = [
        ("TRAILHOUND_SHUTDOWN__DEADLINE", "20s"),
        ("TRAILHOUND_SHUTDOWN__STOP_TIMEOUT", "20s"),
        ("TRAILHOUND_QUEUE__WAIT", "20s"),
    ];
    assert!(load("", &equal).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_hides_no_other_error_and_invents_none() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.toml");
    let env = [("TRAILHOUND_QUEUE__POLLERS".to_owned(), "0".to_owned())];
    let Err(ConfigErrors(errors)) = Config::load(Some(&absent), env.into_iter()) else {
        panic!("an absent file was accepted");
    };
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].to_string().contains("absent.toml: cannot be read: "), "{}", errors[0]);
    assert_eq!(errors[1].key.as_deref(), Some("queue.pollers"));
    assert!(wrong("[queue\n", &[]).starts_with("trailhound.toml:1: is not TOML: "));
}

#[test]
fn odd_toml_is_an_error_like_any_other() {
    for odd in ["[queue]\nwait = 1979-05-27T07:32:00Z\n", "queue.url.deep.deeper = 1\n", "[[queue]]\nurl = \"x\"\n"] {
        assert!(load(odd, &[]).is_err(), "{odd}");
    }
}

#[test]
fn dotted_and_quoted_keys_are_keys() {
    let (config, origins) = load("queue.pollers = 2\n\"queue\".'wait' = \"10s\"\n", &[]).unwrap();
    assert_eq!((config.queue.pollers, config.queue.wait), (2, Duration::from_secs(10)));
    assert!(origins.get("queue.wait").to_string().ends_with(":2"));
}

#[test]
fn lists_are_comma_separated_in_the_environment() {
    let (config, _) = load("", &[("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", "trail-logs, org.trail-logs,")]).unwrap();
    assert_eq!(config.source.allowed_buckets, ["trail-logs", "org.trail-logs"]);
}

#[test]
fn the_entries_are_all_keys_and_read_back_as_the_same_configuration() {
    let (config, _) = load("[queue]\nvisibility = \"90s\"\n[shutdown]\nstop_timeout = \"2d\"\n", &[]).unwrap();
    let entries = config.entries();
    let keys: BTreeSet<String> = entries.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(keys, layers::keys().into_iter().collect());
    let text: Vec<String> = entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    assert_eq!(load(&text.join("\n"), &[]).unwrap().0, config);
}

#[test]
fn the_documentation_lists_every_key_with_its_default_and_variables() {
    let document = include_str!("../../docs/configuration.md");
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let rows: Vec<String> = layers::keys()
        .iter()
        .map(|key| {
            let (section, name) = key.split_once('.').unwrap();
            let default = match &defaults[section][name] {
                toml::Value::String(text) if text.is_empty() => "none".to_owned(),
                value => format!("`{value}`"),
            };
            let plain = plain_variable(key).map(|name| format!(", `{name}`")).unwrap_or_default();
            format!("| `{key}` | {default} | `{}`{plain} |", variable(key))
        })
        .collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !document.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks rows that start with:\n{missing:#?}");
    let documented = document.lines().filter(|line| line.contains("| `TRAILHOUND_")).count();
    assert_eq!(documented, rows.len(), "docs/configuration.md lists a key that does not exist");
}

fn load(file: &str, env: &[(&str, &str)]) -> Result<(Config, Origins), ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trailhound.toml");
    std::fs::write(&path, file).unwrap();
    let env = REQUIRED.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&path), env)
}

/// The errors of a file and an environment, without the name of the file's directory.
fn wrong(file: &str, env: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trailhound.toml");
    std::fs::write(&path, file).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let errors = Config::load(Some(&path), env).unwrap_err().to_string();
    errors.replace(&format!("{}/", directory.path().display()), "")
}
