//! `trailhound config`: what is in force, and where each value came from.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Failure, Format, environment, say};
use crate::config::{Config, Origins};

pub(super) fn print(file: Option<&Path>, format: Format) -> Result<(), Failure> {
    let (config, origins) = Config::load(file, environment())?;
    say(&match format {
        Format::Text => text(&config, &origins),
        Format::Json => json(&config, &origins),
    })
}

/// TOML, with the origins as comments.
fn text(config: &Config, origins: &Origins) -> String {
    let lines: Vec<String> =
        config.entries().iter().map(|(key, value)| format!("{key} = {value}  # {}", origins.get(key))).collect();
    lines.join("\n")
}

fn json(config: &Config, origins: &Origins) -> String {
    let entries = config
        .entries()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!({"value": value, "origin": origins.get(key).to_string()})));
    format!("{:#}", Value::Object(entries.collect::<Map<String, Value>>()))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn load() -> (Config, Origins) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trailhound.toml");
        std::fs::write(&path, "[queue]\nwait = \"10s\"\n\n[pipeline]\ndecoders = 2\n").unwrap();
        let env = [
            ("SQS_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound"),
            ("SNS_TOPIC_ARN", "arn:aws:sns:eu-west-1:111122223333:trailhound-alerts.fifo"),
            ("DYNAMODB_TABLE", "trailhound-events"),
            ("TRAILHOUND_SOURCE__ALLOWED_BUCKETS", "trail-logs,org-trail-logs"),
        ];
        Config::load(Some(&path), env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap()
    }

    fn without_directory(text: &str) -> String {
        let words = text.split(' ').map(|word| match word.split_once("trailhound.toml:") {
            Some((_, line)) => format!("trailhound.toml:{line}"),
            None => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_value_is_shown_with_its_origin() {
        let (config, origins) = load();
        assert_snapshot!(without_directory(&text(&config, &origins)), @r#"
        queue.url = "https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound"  # environment variable SQS_QUEUE_URL
        queue.pollers = 1  # default
        queue.wait = "10s"  # trailhound.toml:2
        queue.visibility = ""  # default
        source.allowed_buckets = ["trail-logs","org-trail-logs"]  # environment variable TRAILHOUND_SOURCE__ALLOWED_BUCKETS
        source.inline_records = true  # default
        source.max_compressed_bytes = "1GiB"  # default
        source.max_decompressed_bytes = "8GiB"  # default
        source.max_ratio = 200  # default
        source.max_record_bytes = "2MiB"  # default
        pipeline.concurrency = 10  # default
        pipeline.decoders = 2  # trailhound.toml:5
        rules.path = "monitored_events.json"  # default
        rules.poll_interval = "1m"  # default
        rules.own_trails = []  # default
        rules.own_services = []  # default
        alerting.topic_arn = "arn:aws:sns:eu-west-1:111122223333:trailhound-alerts.fifo"  # environment variable SNS_TOPIC_ARN
        alerting.max_per_minute = 0  # default
        alerting.format = "json"  # default
        store.table = "trailhound-events"  # environment variable DYNAMODB_TABLE
        store.retention_days = 90  # default
        http.listen = "0.0.0.0:8080"  # default
        log.level = "info"  # default
        log.format = "auto"  # default
        emf.enabled = false  # default
        emf.namespace = "trailhound"  # default
        emf.service = "trailhound"  # default
        emf.interval = "1m"  # default
        shutdown.deadline = "25s"  # default
        shutdown.stop_timeout = "30s"  # default
        "#);
    }

    #[test]
    fn programs_get_the_same_as_one_document() {
        let (config, origins) = load();
        let document: Value = serde_json::from_str(&json(&config, &origins)).unwrap();
        assert_eq!(
            document["store.table"],
            json!({"value": "trailhound-events", "origin": "environment variable DYNAMODB_TABLE"})
        );
        assert_eq!(document["queue.pollers"], json!({"value": 1, "origin": "default"}));
        assert_eq!(document.as_object().unwrap().len(), config.entries().len());
    }
}
