//! Log objects in S3, in whatever region their bucket is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_config::{Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Config, ResponseChecksumValidation};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};

use super::errors::{self, Operation};
use super::{Meter, is_region};
use crate::ports::{ErrorClass, Fault, ObjectBody, ObjectChunks, ObjectRequest, ObjectStore, PortError};

const GET: Operation = Operation {
    name: "s3:GetObject",
    action: "s3:GetObject",
    kms: "kms:Decrypt",
    refused: ErrorClass::Permanent,
    invalid: ErrorClass::Permanent,
};
const GET_VERSION: Operation = Operation { action: "s3:GetObjectVersion", ..GET };
const HEAD: Operation = Operation {
    name: "s3:HeadBucket",
    action: "s3:ListBucket",
    kms: "kms:Decrypt",
    refused: ErrorClass::Config,
    invalid: ErrorClass::Config,
};
const LIST: Operation = Operation { name: "s3:ListBuckets", action: "s3:ListAllMyBuckets", ..HEAD };

/// How often one call is sent on to another region.
const MAX_REDIRECTS: usize = 2;

/// How many regions have a client, and of how many buckets the region is remembered.
const MAX_REGIONS: usize = 64;
const MAX_BUCKETS: usize = 1024;

/// S3's limit for a key and for a version id. The SDK panics where a name does not fit into an address.
const MAX_NAME_BYTES: usize = 1024;

pub(super) struct S3 {
    config: Config,
    home: String,
    /// The endpoint is one's own: it serves all regions, and hints at regions mean nothing.
    own_endpoint: bool,
    probe: Option<String>,
    regions: Mutex<Regions>,
    meter: Meter,
}

#[derive(Default)]
struct Regions {
    clients: HashMap<String, Client>,
    /// Where a bucket was found, if not at home.
    buckets: HashMap<String, String>,
}

/// How S3 took a request.
enum Answer {
    Open(Box<GetObjectOutput>),
    /// The range begins where the object ends.
    AtEnd,
    /// Ask in this region.
    Elsewhere(String),
}

impl S3 {
    pub(super) fn new(sdk: &SdkConfig, own_endpoint: bool, allowed_buckets: &[String], meter: Meter) -> Self {
        let config = aws_sdk_s3::config::Builder::from(sdk)
            .force_path_style(own_endpoint)
            // A range has no checksum of its own, and log objects bring that of gzip.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            home: config.region().map(ToString::to_string).unwrap_or_default(),
            config,
            own_endpoint,
            probe: allowed_buckets.iter().find(|name| !name.contains(['*', '?'])).cloned(),
            regions: Mutex::default(),
            meter,
        }
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, region: &str) -> Client {
        let mut regions = self.regions();
        if let Some(client) = regions.clients.get(region) {
            return client.clone();
        }
        let client = if region == self.home {
            Client::from_conf(self.config.clone())
        } else {
            Client::from_conf(self.config.to_builder().region(Region::new(region.to_owned())).build())
        };
        if regions.clients.len() >= MAX_REGIONS {
            regions.clients.clear();
        }
        regions.clients.insert(region.to_owned(), client.clone());
        client
    }

    fn found_in(&self, bucket: &str) -> Option<String> {
        self.regions().buckets.get(bucket).cloned()
    }

    fn remember(&self, bucket: &str, region: &str) {
        let mut regions = self.regions();
        if region == self.home {
            regions.buckets.remove(bucket);
            return;
        }
        if regions.buckets.len() >= MAX_BUCKETS {
            regions.buckets.clear();
        }
        regions.buckets.insert(bucket.to_owned(), region.to_owned());
    }

    /// The region that the notification named. Whoever writes to the queue chose it, so it is only a first guess.
    fn hint(&self, request: &ObjectRequest) -> Option<String> {
        request.region.clone().filter(|region| !self.own_endpoint && *region != self.home && is_region(region))
    }

    async fn get(&self, region: &str, guessed: bool, request: &ObjectRequest) -> Result<Answer, PortError> {
        let sent = self
            .client(region)
            .get_object()
            .bucket(&request.bucket)
            .key(&request.key)
            .set_version_id(request.version_id.clone().filter(|version| !version.is_empty()))
            .set_if_match(request.if_match.clone())
            .set_range((request.start > 0).then(|| format!("bytes={}-", request.start)))
            .send()
            .await;
        let error = match sent {
            Ok(output) => return Ok(Answer::Open(Box::new(output))),
            Err(error) => error,
        };
        if guessed && matches!(error, SdkError::DispatchFailure(_) | SdkError::TimeoutError(_)) {
            return Ok(Answer::Elsewhere(self.home.clone()));
        }
        if let Some(other) = elsewhere(&error).filter(|other| other != region) {
            return Ok(Answer::Elsewhere(other));
        }
        if status(&error) == Some(416) {
            if object_length(&error) == Some(request.start) {
                return Ok(Answer::AtEnd);
            }
            return Err(changed(&format!("the object ends before byte {}, which was read already", request.start)));
        }
        Err(refused(error, request, region))
    }
}

#[async_trait]
impl ObjectStore for S3 {
    async fn open(&self, request: &ObjectRequest) -> Result<ObjectBody, PortError> {
        self.meter
            .call(GET.name, async {
                if !is_bucket(&request.bucket) {
                    let detail = format!("\"{}\" is not the name of a bucket", request.bucket);
                    return Err(errors::failure(&GET, ErrorClass::Permanent, Fault::Invalid, &detail));
                }
                let version = request.version_id.as_ref().map_or(0, String::len);
                if request.key.is_empty() || request.key.len() > MAX_NAME_BYTES || version > MAX_NAME_BYTES {
                    let (key, bucket) = (request.key.len(), &request.bucket);
                    let detail = format!(
                        "a key of {key} bytes with a version id of {version} names no object of bucket {bucket}"
                    );
                    return Err(errors::failure(&GET, ErrorClass::Permanent, Fault::Invalid, &detail));
                }
                let known = self.found_in(&request.bucket);
                let hint = if known.is_none() { self.hint(request) } else { None };
                let mut guessed = hint.is_some();
                let mut region = known.or(hint).unwrap_or_else(|| self.home.clone());
                for _ in 0..=MAX_REDIRECTS {
                    match self.get(&region, guessed, request).await? {
                        Answer::Open(output) => {
                            self.remember(&request.bucket, &region);
                            return body(*output, request);
                        }
                        Answer::AtEnd => {
                            let chunks = Chunks { body: ByteStream::default(), skip: 0, left: Some(0), broken: false };
                            return Ok(ObjectBody {
                                etag: request.if_match.clone(),
                                length: Some(0),
                                chunks: Box::new(chunks),
                            });
                        }
                        Answer::Elsewhere(other) => region = other,
                    }
                    guessed = false;
                }
                let detail = format!("bucket {} was sent from region to region, last to {region}", request.bucket);
                Err(errors::unavailable(&GET, &detail, None))
            })
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        let client = self.client(&self.home);
        if let Some(bucket) = &self.probe {
            self.meter
                .call(HEAD.name, async {
                    let sent = client.head_bucket().bucket(bucket).send().await;
                    sent.map(drop)
                        .or_else(|error| reached(errors::classify(error, &HEAD, &arn(bucket, "", &self.home))))
                })
                .await
        } else {
            self.meter
                .call(LIST.name, async {
                    let sent = client.list_buckets().max_buckets(1).send().await;
                    sent.map(drop).or_else(|error| reached(errors::classify(error, &LIST, "*")))
                })
                .await
        }
    }
}

/// Whether this can be a bucket's name, old rules included. The SDK would take ARNs, directory buckets and Outposts too,
/// but no log is delivered there, and whoever writes to the queue chooses the name.
pub(super) fn is_bucket(name: &str) -> bool {
    const ELSEWHERE: [&str; 3] = ["--x-s3", "--xa-s3", "--op-s3"];
    !ELSEWHERE.iter().any(|suffix| name.ends_with(suffix))
        && (3..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && name.bytes().any(|b| b.is_ascii_alphanumeric())
}

/// An answer is an answer, unless it refuses the credentials, or no request could be sent.
fn reached(error: PortError) -> Result<(), PortError> {
    let answered = error.source.is_none() && error.class != ErrorClass::Transient;
    if answered && error.fault != Fault::Credentials { Ok(()) } else { Err(error) }
}

fn status(error: &SdkError<GetObjectError>) -> Option<u16> {
    error.raw_response().map(|raw| raw.status().as_u16())
}

/// The region that a redirect names, in a header or in its body.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>: `PermanentRedirect`, `TemporaryRedirect`,
/// `AuthorizationHeaderMalformed`, `IllegalLocationConstraintException`.
fn elsewhere(error: &SdkError<GetObjectError>) -> Option<String> {
    let raw = error.raw_response()?;
    if !matches!(raw.status().as_u16(), 301 | 302 | 307 | 308 | 400) {
        return None;
    }
    let named = raw.headers().get("x-amz-bucket-region").or_else(|| element(raw.body().bytes()?, "Region"))?;
    is_region(named).then(|| named.to_owned())
}

/// How long the object is that ended before the range began.
fn object_length(error: &SdkError<GetObjectError>) -> Option<u64> {
    let raw = error.raw_response()?;
    let total = raw.headers().get("content-range").and_then(|range| range.rsplit_once('/')).map(|(_, total)| total);
    total.or_else(|| element(raw.body().bytes()?, "ActualObjectSize"))?.parse().ok()
}

/// The text of an element without children in one of S3's error bodies.
fn element<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text.trim())
}

fn refused(error: SdkError<GetObjectError>, request: &ObjectRequest, region: &str) -> PortError {
    let operation = if request.version_id.is_some() { &GET_VERSION } else { &GET };
    let lists = error.raw_response().and_then(|raw| raw.body().bytes()).is_some_and(speaks_of_listing);
    let mut error = errors::classify(error, operation, &arn(&request.bucket, &request.key, region));
    match error.fault {
        Fault::Denied { .. } if lists => {
            let bucket = arn(&request.bucket, "", region);
            error.fault = Fault::Denied { action: "s3:ListBucket" };
            error.detail = format!(
                "the key {} probably does not exist; grant s3:ListBucket on {bucket} to be told so",
                errors::one_line(&request.key)
            );
        }
        Fault::Denied { .. } => error.detail.push_str(", or the key does not exist and s3:ListBucket is not granted"),
        _ => {}
    }
    error
}

/// Without `s3:ListBucket`, a denial for a missing key names that action.
fn speaks_of_listing(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|body| body.contains("to perform: s3:ListBucket"))
}

fn arn(bucket: &str, key: &str, region: &str) -> String {
    let partition = match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let slash = if key.is_empty() { "" } else { "/" };
    errors::one_line(&format!("arn:{partition}:s3:::{bucket}{slash}{key}"))
}

fn changed(detail: &str) -> PortError {
    errors::failure(&GET, ErrorClass::Transient, Fault::Changed, detail)
}

/// The body from `request.start` on, whether or not the server can answer with a range.
fn body(output: GetObjectOutput, request: &ObjectRequest) -> Result<ObjectBody, PortError> {
    let announced = output.content_length().and_then(|length| u64::try_from(length).ok());
    let first = output.content_range().map_or(Some(0), first_byte);
    let Some(skip) = first.and_then(|first| request.start.checked_sub(first)) else {
        let range = errors::one_line(output.content_range().unwrap_or_default());
        let detail = format!("asked for the bytes from {}, got \"{range}\"", request.start);
        return Err(errors::unavailable(&GET, &detail, None));
    };
    let length = match announced.map(|length| length.checked_sub(skip)) {
        Some(None) => {
            return Err(changed(&format!("the object ends before byte {}, which was read already", request.start)));
        }
        Some(length) => length,
        None => None,
    };
    let chunks = Chunks { body: output.body, skip, left: length, broken: false };
    Ok(ObjectBody { etag: output.e_tag, length, chunks: Box::new(chunks) })
}

/// The first byte of a `Content-Range` such as `bytes 200-1000/67589`.
fn first_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

struct Chunks {
    body: ByteStream,
    /// How many bytes come before the first one wanted.
    skip: u64,
    /// How many bytes are still to come, where that is known.
    left: Option<u64>,
    broken: bool,
}

#[async_trait]
impl ObjectChunks for Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, PortError> {
        // What broke off never ends well, however often it is asked.
        while !self.broken {
            match self.body.next().await {
                Some(Ok(mut chunk)) => {
                    let skipped = chunk.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                    chunk.advance(skipped);
                    self.skip = self.skip.saturating_sub(skipped as u64);
                    self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
                    if !chunk.is_empty() {
                        return Ok(Some(chunk));
                    }
                }
                Some(Err(error)) => {
                    self.broken = true;
                    let text = errors::chain(&error);
                    let fault = if text.contains("throughput") { Fault::Unavailable } else { Fault::Truncated };
                    let detail = format!("the body broke off: {text}");
                    return Err(PortError {
                        source: Some(Box::new(error)),
                        ..errors::failure(&GET, ErrorClass::Transient, fault, &detail)
                    });
                }
                None if self.left.is_none_or(|left| left == 0) => return Ok(None),
                None => self.broken = true,
            }
        }
        let missing = self.left.map_or_else(String::new, |left| format!(", {left} bytes early"));
        let detail = format!("the body ended before its announced length{missing}");
        Err(errors::failure(&GET, ErrorClass::Transient, Fault::Truncated, &detail))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aws::local;
    use crate::aws::tests::{meter, ok, serve};

    const SECOND: Duration = Duration::from_secs(1);

    fn request(region: &str) -> ObjectRequest {
        ObjectRequest {
            bucket: "logs".to_owned(),
            key: "a.json.gz".to_owned(),
            version_id: None,
            region: Some(region.to_owned()),
            start: 0,
            if_match: None,
        }
    }

    async fn signed_for(requests: &mut tokio::sync::mpsc::UnboundedReceiver<String>) -> String {
        let request = requests.recv().await.unwrap();
        request.split_once("Credential=").unwrap().1.split('/').nth(2).unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_region_of_the_notification_is_asked_first() {
        let (endpoint, mut requests) = serve(vec![ok("one"), ok("two")]).await;
        let s3 = S3::new(&local(&endpoint, "us-west-2", SECOND), false, &[], meter());
        s3.open(&request("eu-south-1")).await.unwrap();
        assert_eq!(signed_for(&mut requests).await, "eu-south-1");
        // What S3 confirmed weighs more than what a message says.
        s3.open(&request("eu-west-1")).await.unwrap();
        assert_eq!(signed_for(&mut requests).await, "eu-south-1");
    }

    #[tokio::test]
    async fn a_region_that_does_not_answer_was_a_bad_guess() {
        let broken = b"SSH-2.0-OpenSSH_9.6\r\n".to_vec();
        let (endpoint, mut requests) = serve(vec![broken, ok("one")]).await;
        let s3 = S3::new(&local(&endpoint, "us-west-2", SECOND), false, &[], meter());
        s3.open(&request("xx-nowhere-1")).await.unwrap();
        assert_eq!(signed_for(&mut requests).await, "xx-nowhere-1");
        assert_eq!(signed_for(&mut requests).await, "us-west-2");
    }

    #[tokio::test]
    async fn a_region_is_no_matter_of_ones_own_endpoint_nor_of_what_is_no_region() {
        let (endpoint, mut requests) = serve(vec![ok("one"), ok("two")]).await;
        let own = S3::new(&local(&endpoint, "us-west-2", SECOND), true, &[], meter());
        own.open(&request("eu-south-1")).await.unwrap();
        assert_eq!(signed_for(&mut requests).await, "us-west-2");
        let aws = S3::new(&local(&endpoint, "us-west-2", SECOND), false, &[], meter());
        aws.open(&request("example.com/")).await.unwrap();
        assert_eq!(signed_for(&mut requests).await, "us-west-2");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let s3 = S3::new(&local("http://127.0.0.1:1", "us-west-2", SECOND), false, &[], meter());
        for i in 0..3000 {
            s3.remember(&format!("b{i}"), "eu-west-1");
            let _: Client = s3.client(&format!("eu-west-{}", i % 200));
        }
        let regions = s3.regions();
        assert!(regions.buckets.len() <= MAX_BUCKETS && regions.clients.len() <= MAX_REGIONS);
        assert_eq!(regions.buckets.get("b2999").map(String::as_str), Some("eu-west-1"));
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up() {
        let stalled = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n012".to_vec();
        let (endpoint, _requests) = serve(vec![stalled]).await;
        let s3 = S3::new(&local(&endpoint, "us-west-2", Duration::from_millis(100)), true, &[], meter());
        let mut body = s3.open(&request("us-west-2")).await.unwrap();
        assert_eq!(body.chunks.next().await.unwrap().unwrap(), "012");
        let error = body.chunks.next().await.unwrap_err();
        assert_eq!((error.class, &error.fault), (ErrorClass::Transient, &Fault::Unavailable), "{error}");
    }
}
