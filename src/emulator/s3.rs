//! S3: `winterbaume` keeps the objects; notifications and the reading of chunked uploads are here.
//!
//! Event format: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use winterbaume_core::{MockRequest, MockResponse, MockService};
use winterbaume_s3::S3Service;

use super::{ACCOUNT, Aws, wire};
use crate::env::lock;

const OWNER: &str = "A3NL1KOZZKExample";

pub(super) struct Buckets {
    region: String,
    service: S3Service,
    /// By bucket.
    notifications: Mutex<HashMap<String, Vec<Notification>>>,
    sequence: AtomicU64,
}

/// One `QueueConfiguration` or `TopicConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Notification {
    id: String,
    /// The ARN of a queue or a topic.
    target: String,
    /// Such as `s3:ObjectCreated:*`.
    events: Vec<String>,
    prefix: String,
    suffix: String,
}

impl Notification {
    /// Reads the configuration's XML.
    fn parse(xml: &str) -> Vec<Self> {
        ["Queue", "Topic"]
            .into_iter()
            .flat_map(|kind| {
                wire::elements(xml, &format!("{kind}Configuration")).into_iter().map(move |xml| (kind, xml))
            })
            .filter_map(|(kind, xml)| {
                let rules = wire::elements(xml, "FilterRule");
                let filter = |name: &str| {
                    rules
                        .iter()
                        .find(|rule| wire::text(rule, "Name").is_some_and(|found| found.eq_ignore_ascii_case(name)))
                        .and_then(|rule| wire::text(rule, "Value"))
                        .unwrap_or_default()
                };
                Some(Self {
                    id: wire::text(xml, "Id").unwrap_or_else(wire::uuid),
                    target: wire::text(xml, kind)?,
                    events: wire::elements(xml, "Event").into_iter().map(|event| event.trim().to_owned()).collect(),
                    prefix: filter("prefix"),
                    suffix: filter("suffix"),
                })
            })
            .collect()
    }

    fn wants(&self, event: &str, key: &str) -> bool {
        let event = format!("s3:{event}");
        let matches = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => event.starts_with(prefix),
            None => *wanted == event,
        };
        self.events.iter().any(matches) && key.starts_with(&self.prefix) && key.ends_with(&self.suffix)
    }
}

impl Buckets {
    pub(super) fn new(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            service: S3Service::new(),
            notifications: Mutex::new(HashMap::new()),
            sequence: AtomicU64::new(0),
        }
    }

    pub(super) async fn answer(&self, aws: &Aws, called: &wire::Called, mut request: MockRequest) -> MockResponse {
        let (path, _) = wire::path_and_query(&request.uri);
        let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let (bucket, key) = (bucket.to_owned(), percent_decode_str(key).decode_utf8_lossy().into_owned());
        request.body = unchunk(&request);
        match called.operation.as_str() {
            "PutBucketNotificationConfiguration" => return self.configure(aws, &bucket, request).await,
            // The service would put a region of its own into the bucket's location.
            "CreateBucket" => request.body = Bytes::new(),
            _ => {}
        }
        let answer = self.serve(request).await;
        let event = match called.operation.as_str() {
            "PutObject" => "ObjectCreated:Put",
            "CopyObject" => "ObjectCreated:Copy",
            "CompleteMultipartUpload" => "ObjectCreated:CompleteMultipartUpload",
            _ => return answer,
        };
        if answer.status == 200 {
            let version = wire::header(&answer.headers, "x-amz-version-id");
            self.notify(aws, event, &bucket, &key, version).await;
        }
        answer
    }

    async fn serve(&self, mut request: MockRequest) -> MockResponse {
        // A plus in a path is a plus; `winterbaume` would read a space.
        let (path, query) = wire::path_and_query(&request.uri);
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!("{}{mark}{query}", path.replace('+', "%2B"));
        request.uri = wire::service_uri("s3", &self.region, &uri);
        request.headers.remove(http::header::AUTHORIZATION);
        self.service.handle(request).await
    }

    async fn configure(&self, aws: &Aws, bucket: &str, request: MockRequest) -> MockResponse {
        let notifications = Notification::parse(&String::from_utf8_lossy(&request.body));
        let topics: HashSet<String> = aws.sns.topics().await;
        let unknown = notifications
            .iter()
            .any(|notification| !aws.sqs.exists(&notification.target) && !topics.contains(&notification.target));
        if unknown {
            let message = "Unable to validate the following destination configurations";
            return wire::error("s3", 400, "InvalidArgument", message);
        }
        let answer = self.serve(request).await;
        if answer.status != 200 {
            return answer;
        }
        let test = json!({
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": wire::timestamp(OffsetDateTime::now_utc()),
            "Bucket": bucket,
            "RequestId": request_id(),
            "HostId": host_id(),
        });
        for notification in &notifications {
            deliver(aws, &notification.target, &test).await;
        }
        lock(&self.notifications).insert(bucket.to_owned(), notifications);
        answer
    }

    async fn notify(&self, aws: &Aws, event: &str, bucket: &str, key: &str, version: Option<&str>) {
        let wanted: Vec<Notification> = lock(&self.notifications)
            .get(bucket)
            .map(|all| all.iter().filter(|notification| notification.wants(event, key)).cloned().collect())
            .unwrap_or_default();
        if wanted.is_empty() {
            return;
        }
        let version_query = version.map(|version| format!("?versionId={version}")).unwrap_or_default();
        let path = format!("/{bucket}/{}{version_query}", wire::encode_path(key));
        let head = self.serve(wire::rest_request("HEAD", &path, Bytes::new())).await;
        let size: u64 = wire::header(&head.headers, "content-length").and_then(|size| size.parse().ok()).unwrap_or(0);
        let etag = wire::header(&head.headers, "etag").unwrap_or_default().trim_matches('"').to_owned();
        let now = OffsetDateTime::now_utc();
        // Hexadecimal, growing, of varying length: to be compared only after padding.
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let mut object = json!({
            "key": form_encode(key),
            "size": size,
            "eTag": etag,
            "sequencer": format!("00{:X}{sequence:06X}", now.unix_timestamp_nanos() / 1000),
        });
        if let Some(version) = version {
            wire::set(&mut object, "versionId", version);
        }
        for notification in wanted {
            let body = json!({ "Records": [{
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": self.region,
                "eventTime": wire::timestamp(now),
                "eventName": event,
                "userIdentity": { "principalId": format!("AWS:AROAI3FHNEXAMPLE:{ACCOUNT}") },
                "requestParameters": { "sourceIPAddress": "192.0.2.44" },
                "responseElements": { "x-amz-request-id": request_id(), "x-amz-id-2": host_id() },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": notification.id,
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": { "principalId": OWNER },
                        "arn": format!("arn:aws:s3:::{bucket}"),
                    },
                    "object": object,
                },
            }]});
            deliver(aws, &notification.target, &body).await;
        }
    }
}

async fn deliver(aws: &Aws, target: &str, body: &Value) {
    if target.split(':').nth(2) == Some("sns") {
        aws.sns.publish_text(aws, target, "Amazon S3 Notification", &body.to_string()).await;
    } else {
        aws.send(target, &body.to_string(), HashMap::new());
    }
}

/// Encodes a key as S3 does in events: as a form does, with slashes left alone.
fn form_encode(key: &str) -> String {
    const SET: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/').remove(b' ');
    utf8_percent_encode(key, SET).to_string().replace(' ', "+")
}

fn request_id() -> String {
    format!("{:016X}", fastrand::u64(..))
}

fn host_id() -> String {
    use base64::Engine as _;
    let mut bytes = [0; 48];
    fastrand::fill(&mut bytes);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The content of an upload in `aws-chunked` form (`<hex size>[;chunk-signature=..]\r\n<bytes>\r\n`...); anything else
/// as it is.
fn unchunk(request: &MockRequest) -> Bytes {
    let chunked = request.headers.contains_key("x-amz-decoded-content-length")
        || wire::header(&request.headers, "content-encoding").is_some_and(|encoding| encoding.contains("aws-chunked"));
    if !chunked {
        return request.body.clone();
    }
    let mut rest = request.body.clone();
    let mut content = BytesMut::new();
    while let Some(end) = memchr::memmem::find(&rest, b"\r\n") {
        let head = rest.split_to(end);
        let size = head.split(|byte| *byte == b';').next().and_then(|hex| std::str::from_utf8(hex).ok());
        let Some(size) = size.and_then(|hex| usize::from_str_radix(hex, 16).ok()).filter(|size| *size > 0) else {
            break;
        };
        if rest.len() < size.saturating_add(2) {
            break;
        }
        let mut chunk = rest.split_off(2);
        rest = chunk.split_off(size);
        content.extend_from_slice(&chunk);
        let _line_end = rest.split_to(rest.len().min(2));
    }
    content.freeze()
}
