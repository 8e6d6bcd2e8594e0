//! The adapters to SQS, S3, SNS and `DynamoDB`. No SDK type leaves this folder.
//!
//! The SDK signs, sends and times out; it does not retry. Every error is classified in `errors`, every call is counted
//! and timed by `Meter`.

mod correlations;
mod credentials;
pub mod dead_letters;
mod dynamodb;
mod errors;
mod events;
mod http;
mod installation;
mod listing;
mod s3;
mod sending;
mod sns;
mod sqs;
mod trackers;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider, StalledStreamProtectionConfig};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use self::credentials::{Fresh, Held};
pub use self::installation::Installation;
use crate::events::EventReader;
use crate::listing::ObjectLister;
use crate::metrics::Metrics;
use crate::ports::{ErrorClass, ObjectStore, PortError, Ports};
use crate::replay::MessageSender;

/// A TCP and TLS connection is made within this time, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A call is answered within this time, besides what a long poll waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that brings nothing for this long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a tool asks before it tells an error.
const TOOL_ATTEMPTS: u32 = 4;

/// Which queue, topic and table to use.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Such as `https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound`.
    pub queue_url: String,
    pub topic_arn: String,
    pub table: String,
    /// The buckets that may be read; only asked whether S3 answers. Empty: any.
    pub allowed_buckets: Vec<String>,
}

/// The ports on AWS, with credentials, region and endpoints from the SDK's own chain.
///
/// Never fails: what is missing there is the error of each call, of class [`ErrorClass::Config`]. SQS and SNS are called
/// in the regions of the queue URL and of the topic ARN; where no region is configured, these serve the others too.
pub async fn connect(settings: &Settings, metrics: Arc<Metrics>) -> Ports {
    let sdk = session(settings).await;
    ports(&sdk, own_s3(&sdk), settings, metrics)
}

/// Log buckets for a tool: what is in them, and the objects themselves.
pub async fn log_buckets(settings: &Settings, metrics: Arc<Metrics>) -> (Arc<dyn ObjectStore>, Arc<dyn ObjectLister>) {
    let sdk = tool_session(settings, None).await;
    let buckets = Arc::new(s3::S3::new(&sdk, own_s3(&sdk), &[], Meter::new(metrics)));
    (Arc::<s3::S3>::clone(&buckets), buckets)
}

/// Sends to the queue of these settings.
pub async fn message_sender(settings: &Settings, metrics: Arc<Metrics>) -> Arc<dyn MessageSender> {
    let sdk = tool_session(settings, queue_region(&settings.queue_url)).await;
    Arc::new(sending::Sender::new(&sdk, &settings.queue_url, Meter::new(metrics)))
}

/// Whether S3 is asked at an endpoint of one's own.
fn own_s3(sdk: &SdkConfig) -> bool {
    sdk.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some_and(|url| !url.is_empty())
}

/// Credentials, region and endpoints from the SDK's own chain, without retries.
async fn session(settings: &Settings) -> SdkConfig {
    let configured = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    let region = match queue_region(&settings.queue_url).or_else(|| arn_region(&settings.topic_arn)) {
        Some(region) => configured.or_else(Region::new(region.to_owned())),
        None => configured.or_default_provider(),
    };
    let client = http::client();
    let sdk = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .http_client(client.clone())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(CALL_TIMEOUT))
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_TIMEOUT).build())
        .load()
        .await;
    let credentials = SharedCredentialsProvider::new(Fresh::of_the_process(sdk.region().cloned(), client));
    sdk.into_builder().credentials_provider(credentials).build()
}

/// As [`session`], for a tool that a person waits for: the SDK repeats what fails for a moment, since nothing of ours
/// does. `region` is that of what it calls, where a URL or an ARN names it.
async fn tool_session(settings: &Settings, region: Option<&str>) -> SdkConfig {
    let sdk = session(settings).await.into_builder();
    let mut sdk = sdk.retry_config(RetryConfig::standard().with_max_attempts(TOOL_ATTEMPTS));
    if let Some(region) = region {
        sdk.set_region(Region::new(region.to_owned()));
    }
    sdk.timeout_config(
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(CALL_TIMEOUT).build(),
    )
    .build()
}

/// Reads stored events, for tools.
pub async fn event_reader(settings: &Settings) -> Arc<dyn EventReader> {
    Arc::new(events::EventTable::new(&tool_session(settings, None).await, &settings.table))
}

/// The ports on a server that speaks AWS's protocols, such as an emulator, with credentials that mean nothing.
/// Reads nothing from the environment. `endpoint` is a URL such as `http://127.0.0.1:4566`.
#[must_use]
pub fn connect_to(endpoint: &str, region: &str, settings: &Settings, metrics: Arc<Metrics>) -> Ports {
    ports(&local(endpoint, region, STALL_TIMEOUT), true, settings, metrics)
}

fn local(endpoint: &str, region: &str, stall_timeout: Duration) -> SdkConfig {
    // The example key of AWS's documentation: no account has it.
    let credentials =
        Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .http_client(http::client())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(CALL_TIMEOUT))
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(stall_timeout).build())
        .build()
}

fn ports(sdk: &SdkConfig, own_s3: bool, settings: &Settings, metrics: Arc<Metrics>) -> Ports {
    let meter = Meter::new(metrics);
    let sdk = &sdk.to_builder().identity_cache(meter.credentials.clone()).build();
    let within = |region: Option<&str>| match region {
        Some(region) => sdk.to_builder().region(Region::new(region.to_owned())).build(),
        None => sdk.clone(),
    };
    let queue = within(queue_region(&settings.queue_url));
    let topic = within(arn_region(&settings.topic_arn));
    Ports {
        queue: Arc::new(sqs::Sqs::new(&queue, &settings.queue_url, meter.clone())),
        objects: Arc::new(s3::S3::new(sdk, own_s3, &settings.allowed_buckets, meter.clone())),
        publisher: Arc::new(sns::Sns::new(&topic, &settings.topic_arn, meter.clone())),
        store: Arc::new(dynamodb::DynamoDb::new(sdk, &settings.table, meter)),
    }
}

/// An operation is one attempt: a limit for this one or for its answer would only be more timers.
fn timeouts(call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(call).build()
}

/// The region in a queue URL: `sqs.<region>.amazonaws.com`, its variants, or the older `<region>.queue.amazonaws.com`.
fn queue_region(url: &str) -> Option<&str> {
    let host = url.split_once("://")?.1.split(['/', ':', '?']).next()?;
    let labels: Vec<&str> = host.split('.').collect();
    let region = labels.iter().zip(labels.iter().skip(1)).find_map(|(left, right)| match (*left, *right) {
        ("sqs" | "sqs-fips", region) | (region, "queue") => Some(region),
        _ => None,
    })?;
    is_region(region).then_some(region)
}

/// The region in an ARN.
fn arn_region(arn: &str) -> Option<&str> {
    arn.split(':').nth(3).filter(|region| arn.starts_with("arn:") && is_region(region))
}

/// Whether a text has the shape of a region's name, such as `us-gov-west-1`, and so is safe in a host name.
fn is_region(text: &str) -> bool {
    let mut labels = text.split('-').rev();
    text.len() <= 32
        && labels.next().is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        && text.contains('-')
        && labels.all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase()))
}

/// Counts and times calls, and notices which say that the credentials are no good.
#[derive(Clone)]
struct Meter {
    metrics: Arc<Metrics>,
    credentials: Held,
}

impl Meter {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, credentials: Held::new() }
    }

    /// Runs a call of `operation` (`service:Operation`). A call that the caller drops counts as transient: its answer
    /// is lost.
    fn call<'a, T: 'a>(
        &'a self,
        operation: &'static str,
        call: impl Future<Output = Result<T, PortError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, PortError>> {
        // Boxed, because the SDK's futures take 16 KB each.
        Box::pin(async move {
            let mut running =
                Running { metrics: &self.metrics, operation, started: Instant::now(), outcome: "transient" };
            let result = call.await;
            if let Err(error) = &result {
                self.credentials.failed(error);
            }
            running.outcome = match &result {
                Ok(_) => "ok",
                Err(error) => match error.class {
                    ErrorClass::Transient => "transient",
                    ErrorClass::Permanent => "permanent",
                    ErrorClass::Config => "config",
                },
            };
            result
        })
    }
}

struct Running<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    started: Instant,
    outcome: &'static str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (service, operation) = self.operation.split_once(':').unwrap_or(("", self.operation));
        self.metrics.aws_requests.with_label_values(&[service, operation, self.outcome]).inc();
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.aws_request_duration.with_label_values(&[service, operation]).observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::ports::{Fault, MessageQueue};

    pub(super) fn meter() -> Meter {
        Meter::new(Arc::new(Metrics::new().unwrap()))
    }

    /// A server on loopback that gives one answer to each connection, as bytes, and then holds the last one open.
    /// Gives its endpoint and what was asked.
    pub(super) async fn serve(answers: Vec<Vec<u8>>) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, requests) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut open = None;
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !is_whole(&request) {
                    assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0, "the request ended early");
                }
                asked.send(String::from_utf8(request).unwrap()).unwrap();
                connection.write_all(&answer).await.unwrap();
                open = Some(connection);
            }
            std::future::pending::<()>().await;
            drop(open);
        });
        (endpoint, requests)
    }

    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    }

    pub(super) fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn settings() -> Settings {
        Settings {
            queue_url: "http://127.0.0.1:1/000000000000/trail".to_owned(),
            topic_arn: "alerts".to_owned(),
            table: "events".to_owned(),
            allowed_buckets: Vec::new(),
        }
    }

    fn assert_config(result: Result<(), PortError>, fault: &Fault, word: &str) {
        let error = result.unwrap_err();
        assert_eq!((error.class, &error.fault), (ErrorClass::Config, fault), "{error}");
        assert!(error.to_string().contains(word), "no {word:?} in {error}");
    }

    async fn assert_all_config(sdk: &SdkConfig, fault: &Fault, word: &str) {
        let ports = ports(sdk, false, &settings(), Arc::new(Metrics::new().unwrap()));
        assert_config(ports.queue.attributes().await.map(drop), fault, word);
        assert_config(ports.objects.check().await, fault, word);
        assert_config(ports.publisher.check().await, fault, word);
        assert_config(ports.store.check().await, fault, word);
    }

    #[tokio::test]
    async fn without_credentials_each_call_says_so() {
        let missing =
            aws_config::profile::ProfileFileCredentialsProvider::builder().profile_name("no-such-profile").build();
        let sdk = local("http://127.0.0.1:1", "eu-west-1", STALL_TIMEOUT).to_builder();
        let sdk = sdk.credentials_provider(SharedCredentialsProvider::new(missing)).build();
        assert_all_config(&sdk, &Fault::Credentials, "give the process credentials").await;
    }

    #[tokio::test]
    async fn without_a_region_each_call_says_so() {
        for endpoint in [None, Some("http://127.0.0.1:1".to_owned())] {
            let mut sdk = local("http://127.0.0.1:1", "eu-west-1", STALL_TIMEOUT).to_builder().region(None::<Region>);
            sdk.set_endpoint_url(endpoint);
            assert_all_config(&sdk.build(), &Fault::Invalid, "set AWS_REGION").await;
        }
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_counts_as_transient() {
        let (endpoint, mut requests) = serve(vec![Vec::new()]).await;
        let meter = meter();
        let queue = sqs::Sqs::new(&local(&endpoint, "eu-west-1", STALL_TIMEOUT), "trail", meter.clone());
        tokio::select! {
            _ = queue.attributes() => panic!("nothing answers"),
            request = requests.recv() => assert!(request.is_some()),
        }
        let count =
            |outcome| meter.metrics.aws_requests.with_label_values(&["sqs", "GetQueueAttributes", outcome]).get();
        assert_eq!((count("transient"), count("ok")), (1, 0));
        let timed =
            meter.metrics.aws_request_duration.with_label_values(&["sqs", "GetQueueAttributes"]).get_sample_count();
        assert_eq!(timed, 1);
    }

    #[test]
    fn a_queue_url_names_its_region() {
        for (url, region) in [
            ("https://sqs.eu-west-1.amazonaws.com/111122223333/trail", Some("eu-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/trail", Some("cn-north-1")),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/111122223333/trail", Some("us-gov-west-1")),
            ("https://vpce-0a1b2c3d.sqs.us-east-2.vpce.amazonaws.com/111122223333/trail", Some("us-east-2")),
            ("https://ap-southeast-2.queue.amazonaws.com/111122223333/trail", Some("ap-southeast-2")),
            ("http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/trail", Some("us-east-1")),
            ("http://localhost:4566/000000000000/trail", None),
            ("https://sqs.amazonaws.com/111122223333/trail", None),
            ("not a url", None),
        ] {
            assert_eq!(queue_region(url), region, "{url}");
        }
    }

    #[test]
    fn a_topic_arn_names_its_region() {
        assert_eq!(arn_region("arn:aws:sns:eu-central-1:111122223333:alerts"), Some("eu-central-1"));
        assert_eq!(arn_region("arn:aws-us-gov:sns:us-gov-east-1:111122223333:alerts.fifo"), Some("us-gov-east-1"));
        assert_eq!(arn_region("alerts"), None);
        assert_eq!(arn_region("arn:aws:sns::111122223333:alerts"), None);
    }

    #[test]
    fn only_the_name_of_a_region_becomes_a_part_of_a_host_name() {
        for name in ["us-east-1", "us-gov-west-1", "ap-southeast-7", "us-iso-east-1", "eusc-de-east-1"] {
            assert!(is_region(name), "{name}");
        }
        for name in ["", "1", "-1", "us-east", "us-east-1.example.com", "us-east-1/", "US-EAST-1", "us--1", "a#-1"] {
            assert!(!is_region(name), "{name}");
        }
    }
}
