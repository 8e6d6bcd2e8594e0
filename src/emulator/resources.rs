//! What a daemon needs, made in one call, and what a test asks of it afterwards.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{ACCOUNT, Emulator, wire};

/// What to make, and how.
#[derive(Clone, Debug)]
pub struct Names {
    pub bucket: String,
    /// Whether the bucket keeps versions.
    pub versioned: bool,
    pub queue: String,
    pub dead_letter_queue: String,
    pub visibility: Duration,
    pub max_receive_count: u32,
    /// A name that ends in `.fifo` makes a FIFO topic and a FIFO inbox.
    pub topic: String,
    /// A queue subscribed to the topic.
    pub inbox: String,
    pub table: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            bucket: "example-cloudtrail-logs".to_owned(),
            versioned: false,
            queue: "trailhound".to_owned(),
            dead_letter_queue: "trailhound-dead-letters".to_owned(),
            visibility: Duration::from_secs(30),
            max_receive_count: 10,
            topic: "security-alerts".to_owned(),
            inbox: "security-alerts-inbox".to_owned(),
            table: "security-events".to_owned(),
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub bucket: String,
    pub queue_url: String,
    pub dlq_url: String,
    pub topic_arn: String,
    pub inbox_url: String,
    pub table: String,
}

/// The messages of a queue, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub visible: u64,
    pub in_flight: u64,
    pub delayed: u64,
}

impl QueueCounts {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
}

impl Emulator {
    /// Makes the bucket, the queue with its dead-letter queue, the topic with an inbox, and the table; the bucket
    /// notifies the queue of every object, which begins with an `s3:TestEvent` on it.
    pub async fn set_up(&self, names: &Names) -> io::Result<Resources> {
        let dlq_url = self.create_queue(&names.dead_letter_queue, json!({})).await?;
        let redrive = json!({
            "deadLetterTargetArn": self.queue_arn(&names.dead_letter_queue),
            "maxReceiveCount": names.max_receive_count,
        });
        let attributes = json!({
            "VisibilityTimeout": names.visibility.as_secs().to_string(),
            "RedrivePolicy": redrive.to_string(),
        });
        let queue_url = self.create_queue(&names.queue, attributes).await?;
        let fifo = if wire::is_fifo(&names.inbox) { json!({ "FifoQueue": "true" }) } else { json!({}) };
        let inbox_url = self.create_queue(&names.inbox, fifo).await?;
        let topic_arn = self.create_topic(&names.topic).await?;
        self.subscribe(&topic_arn, &names.inbox, false).await?;
        self.create_table(&names.table).await?;
        self.create_bucket(&names.bucket, names.versioned).await?;
        self.notify(&names.bucket, &names.queue, "", "").await?;
        Ok(Resources {
            bucket: names.bucket.clone(),
            queue_url,
            dlq_url,
            topic_arn,
            inbox_url,
            table: names.table.clone(),
        })
    }

    /// Makes a queue; gives its URL.
    pub async fn create_queue(&self, name: &str, attributes: Value) -> io::Result<String> {
        let output = self.json("sqs", "CreateQueue", json!({ "QueueName": name, "Attributes": attributes })).await?;
        output.get("QueueUrl").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| missing("QueueUrl"))
    }

    #[must_use]
    pub fn queue_arn(&self, name: &str) -> String {
        format!("arn:aws:sqs:{}:{ACCOUNT}:{name}", self.region())
    }

    /// Makes a topic; gives its ARN.
    pub async fn create_topic(&self, name: &str) -> io::Result<String> {
        let fifo = [("Name", name), ("Attributes.entry.1.key", "FifoTopic"), ("Attributes.entry.1.value", "true")];
        let parameters = if wire::is_fifo(name) { fifo.as_slice() } else { &[("Name", name)] };
        let xml = self.query("CreateTopic", parameters).await?;
        wire::text(&xml, "TopicArn").ok_or_else(|| missing("TopicArn"))
    }

    /// Subscribes a queue, by name, to a topic.
    pub async fn subscribe(&self, topic_arn: &str, queue: &str, raw: bool) -> io::Result<()> {
        let endpoint = self.queue_arn(queue);
        let parameters = [
            ("TopicArn", topic_arn),
            ("Protocol", "sqs"),
            ("Endpoint", endpoint.as_str()),
            ("Attributes.entry.1.key", "RawMessageDelivery"),
            ("Attributes.entry.1.value", if raw { "true" } else { "false" }),
        ];
        self.query("Subscribe", &parameters).await.map(drop)
    }

    /// Makes a table with the keys, the index and the TTL attribute that the daemon expects.
    pub async fn create_table(&self, name: &str) -> io::Result<()> {
        let key = |name: &str, kind: &str| json!({ "AttributeName": name, "KeyType": kind });
        let text = |name: &str| json!({ "AttributeName": name, "AttributeType": "S" });
        let projected = [
            "Rules",
            "SettledRules",
            "Severity",
            "AlertIds",
            "AlertedAt",
            "EventName",
            "EventSource",
            "AwsRegion",
            "AccountId",
            "Actor",
            "SourceIpAddress",
            "ErrorCode",
        ];
        let table = json!({
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [text("EventId"), text("Timestamp"), text("Day")],
            "KeySchema": [key("EventId", "HASH"), key("Timestamp", "RANGE")],
            "GlobalSecondaryIndexes": [{
                "IndexName": "ByDay",
                "KeySchema": [key("Day", "HASH"), key("Timestamp", "RANGE")],
                "Projection": { "ProjectionType": "INCLUDE", "NonKeyAttributes": projected },
            }],
        });
        self.json("dynamodb", "CreateTable", table).await?;
        let ttl = json!({
            "TableName": name,
            "TimeToLiveSpecification": { "Enabled": true, "AttributeName": "ExpiresAt" },
        });
        self.json("dynamodb", "UpdateTimeToLive", ttl).await.map(drop)
    }

    pub async fn create_bucket(&self, name: &str, versioned: bool) -> io::Result<()> {
        self.rest("PUT", &format!("/{name}"), Bytes::new()).await?;
        if versioned {
            let status = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
            self.rest("PUT", &format!("/{name}?versioning"), status).await?;
        }
        Ok(())
    }

    /// Makes a bucket notify a queue, by name, of every object whose key has this prefix and suffix.
    pub async fn notify(&self, bucket: &str, queue: &str, prefix: &str, suffix: &str) -> io::Result<()> {
        let rule = |name, value| {
            let value = wire::escape_xml(value);
            format!("<FilterRule><Name>{name}</Name><Value>{value}</Value></FilterRule>")
        };
        let xml = format!(
            "<NotificationConfiguration><QueueConfiguration><Id>trailhound</Id><Queue>{}</Queue>\
             <Event>s3:ObjectCreated:*</Event><Filter><S3Key>{}{}</S3Key></Filter></QueueConfiguration>\
             </NotificationConfiguration>",
            self.queue_arn(queue),
            rule("prefix", prefix),
            rule("suffix", suffix),
        );
        self.rest("PUT", &format!("/{bucket}?notification"), xml).await.map(drop)
    }

    pub async fn put_object(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> io::Result<()> {
        self.rest("PUT", &format!("/{bucket}/{}", wire::encode_path(key)), body).await.map(drop)
    }

    pub async fn send_message(&self, queue_url: &str, body: &str) -> io::Result<()> {
        let message = json!({ "QueueUrl": queue_url, "MessageBody": body });
        self.json("sqs", "SendMessage", message).await.map(drop)
    }

    /// How many messages a queue holds now.
    pub fn queue_counts(&self, queue_url: &str) -> io::Result<QueueCounts> {
        self.aws.sqs.counts(name_of(queue_url)).ok_or_else(|| missing(queue_url))
    }

    /// Takes every message off a queue, visible or not: its body and how often it was received.
    pub fn take_all(&self, queue_url: &str) -> io::Result<Vec<(String, u32)>> {
        self.aws.sqs.take_all(name_of(queue_url)).ok_or_else(|| missing(queue_url))
    }

    /// Takes every message off a queue, visible or not: the bodies.
    pub fn receive_all(&self, queue_url: &str) -> io::Result<Vec<String>> {
        Ok(self.take_all(queue_url)?.into_iter().map(|(body, _)| body).collect())
    }

    /// The bodies of every message on a queue, visible or not; they stay there.
    pub fn bodies(&self, queue_url: &str) -> io::Result<Vec<String>> {
        self.aws.sqs.bodies(name_of(queue_url)).ok_or_else(|| missing(queue_url))
    }

    /// Every item of a table, as DynamoDB writes it (`{"EventId": {"S": ".."}, ..}`), sorted by `EventId`.
    pub async fn items(&self, table: &str) -> io::Result<Vec<Value>> {
        let (mut items, mut start) = (Vec::new(), None);
        loop {
            let mut scan = json!({ "TableName": table, "ConsistentRead": true });
            if let Some(start) = start {
                wire::set(&mut scan, "ExclusiveStartKey", start);
            }
            let mut output = self.json("dynamodb", "Scan", scan).await?;
            if let Some(Value::Array(page)) = output.get_mut("Items").map(Value::take) {
                items.extend(page);
            }
            start = output.get_mut("LastEvaluatedKey").map(Value::take);
            if start.is_none() {
                break;
            }
        }
        items.sort_by_key(|item| item.pointer("/EventId/S").and_then(Value::as_str).map(str::to_owned));
        Ok(items)
    }
}

fn name_of(queue_url: &str) -> &str {
    queue_url.rsplit('/').next().unwrap_or_default()
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the emulator knows no {what}"))
}
