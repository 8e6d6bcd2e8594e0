//! The AWS adapters on the wire: what they send, and what each answer means.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod dynamodb;
mod s3;
mod sns;
mod sqs;
mod trackers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trailhound::aws::{Settings, connect_to};
use trailhound::metrics::Metrics;
use trailhound::ports::{ErrorClass, Fault, PortError, Ports};

pub const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/trail";
pub const TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:alerts";

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The fields of a form.
    pub fn form(&self) -> BTreeMap<String, String> {
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
        };
        let fields = self.body.split('&').map(|field| field.split_once('=').unwrap_or((field, "")));
        fields.map(|(name, value)| (decode(name), decode(value))).collect()
    }

    /// The region that the request was signed for.
    pub fn region(&self) -> &str {
        self.header("authorization").unwrap().split('/').nth(2).unwrap()
    }
}

/// What the server says next.
#[derive(Clone, Debug)]
pub enum Answer {
    Http {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
        /// How many bytes of body are announced, where not as many as there are.
        announced: Option<usize>,
    },
    /// These bytes, then the connection ends.
    Raw(Vec<u8>),
}

pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer::Http { status, headers: Vec::new(), body: body.into(), announced: None }
}

impl Answer {
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Http { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    pub fn announcing(mut self, length: usize) -> Self {
        if let Self::Http { announced, .. } = &mut self {
            *announced = Some(length);
        }
        self
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Raw(bytes) => bytes,
            Self::Http { status, headers, body, announced } => {
                let length = announced.unwrap_or(body.len());
                let mut lines = vec![
                    format!("HTTP/1.1 {status} Said"),
                    format!("content-length: {length}"),
                    "connection: close".to_owned(),
                ];
                lines.extend(headers.into_iter().map(|(name, value)| format!("{name}: {value}")));
                let text = lines.join("\r\n") + "\r\n\r\n";
                [text.into_bytes(), body].concat()
            }
        }
    }
}

/// A server on loopback that gives one answer after another, whatever it is asked, and keeps the requests.
pub struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
    metrics: Arc<Metrics>,
}

impl Server {
    pub async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answers) = (Arc::clone(&requests), answers.into_iter().collect::<Vec<_>>());
        let answering = async move {
            // What comes after the last answer finds the port closed.
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let request = read(&mut connection).await;
                kept.lock().unwrap().push(request);
                connection.write_all(&answer.bytes()).await.unwrap();
                connection.shutdown().await.unwrap();
            }
        };
        // Polled once here, so that a server without answers is gone before it is asked.
        let mut answering = Box::pin(answering);
        if futures_util::poll!(answering.as_mut()).is_pending() {
            tokio::spawn(answering);
        }
        Self { endpoint, requests, metrics: Arc::new(Metrics::new().unwrap()) }
    }

    pub fn ports(&self) -> Ports {
        self.ports_to(TOPIC, &["logs"])
    }

    pub fn ports_to(&self, topic: &str, buckets: &[&str]) -> Ports {
        let settings = Settings {
            queue_url: QUEUE.to_owned(),
            topic_arn: topic.to_owned(),
            table: "events".to_owned(),
            allowed_buckets: buckets.iter().map(ToString::to_string).collect(),
        };
        connect_to(&self.endpoint, "us-west-2", &settings, Arc::clone(&self.metrics))
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request.
    pub fn request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests[0].clone()
    }

    pub fn counted(&self, service: &str, operation: &str, outcome: &str) -> u64 {
        self.metrics.aws_requests.with_label_values(&[service, operation, outcome]).get()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

async fn read(connection: &mut TcpStream) -> Request {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        assert_ne!(connection.read_buf(&mut bytes).await.unwrap(), 0, "the request ended in its head");
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let (line, rest) = text.split_once("\r\n").unwrap();
    let headers: BTreeMap<String, String> = rest
        .lines()
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = bytes[head + 4..].to_vec();
    while body.len() < length {
        assert_ne!(connection.read_buf(&mut body).await.unwrap(), 0, "the request ended in its body");
    }
    let mut words = line.split(' ');
    Request {
        method: words.next().unwrap().to_owned(),
        path: words.next().unwrap().to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
    }
}

/// An error in the JSON protocols of SQS and `DynamoDB`.
pub fn json_error(status: u16, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "__type": format!("com.amazonaws.service#{code}"), "message": message });
    answer(status, body.to_string()).with("content-type", "application/x-amz-json-1.0")
}

/// An error of S3.
pub fn s3_error(status: u16, code: &str, message: &str) -> Answer {
    s3_error_with(status, code, message, "")
}

pub fn s3_error_with(status: u16, code: &str, message: &str, more: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}\
         <RequestId>4442587FB7D0A2F9</RequestId><HostId>vWkq3Y0Qmh7example</HostId></Error>"
    );
    answer(status, body).with("content-type", "application/xml")
}

/// An error of SNS.
pub fn sns_error(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>9dd01905-5012-5f99-8663-4b3ecd0dfaef</RequestId></ErrorResponse>"
    );
    answer(status, body).with("content-type", "text/xml")
}

/// Answers that are nobody's API: all of them may pass.
pub fn not_aws() -> Vec<Answer> {
    vec![
        answer(200, "<html><body>Welcome to the hotel's network</body></html>").with("content-type", "text/html"),
        answer(403, "<html><body>Blocked by policy</body></html>").with("content-type", "text/html"),
        answer(404, "no such page"),
        answer(502, "<html><body>Bad Gateway</body></html>").with("content-type", "text/html"),
        answer(500, ""),
        Answer::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        Answer::Raw(Vec::new()),
    ]
}

#[track_caller]
pub fn assert_failed<T>(result: Result<T, PortError>, class: ErrorClass, fault: &Fault, words: &[&str]) {
    let error = result.err().expect("the call fails");
    assert_eq!((error.class, &error.fault), (class, fault), "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
    assert!(!text.contains('\n') && text.len() < 1500, "{text:?}");
}

/// A server that is not there.
#[tokio::test]
async fn a_refused_connection_may_pass() {
    let server = Server::answering([]).await;
    let ports = server.ports();
    assert_failed(
        ports.queue.attributes().await,
        ErrorClass::Transient,
        &Fault::Unavailable,
        &["sqs:GetQueueAttributes"],
    );
    assert_failed(ports.objects.check().await, ErrorClass::Transient, &Fault::Unavailable, &["refused"]);
    assert_failed(ports.publisher.check().await, ErrorClass::Transient, &Fault::Unavailable, &["refused"]);
    assert_failed(ports.store.check().await, ErrorClass::Transient, &Fault::Unavailable, &["refused"]);
    assert_eq!(server.counted("sqs", "GetQueueAttributes", "transient"), 1);
    assert_eq!(server.counted("sns", "GetTopicAttributes", "transient"), 1);
}

#[tokio::test]
async fn each_service_is_called_in_its_own_region() {
    let server = Server::answering(vec![answer(500, ""); 4]).await;
    let ports = server.ports();
    drop(ports.queue.attributes().await);
    drop(ports.publisher.check().await);
    drop(ports.objects.check().await);
    drop(ports.store.check().await);
    let regions: Vec<_> = server.requests().iter().map(|request| request.region().to_owned()).collect();
    assert_eq!(regions, ["eu-west-1", "eu-central-1", "us-west-2", "us-west-2"]);
}
