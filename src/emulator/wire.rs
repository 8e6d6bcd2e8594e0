//! What is common to the four protocols: which operation a request calls, and how errors look.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, Iso8601, TimePrecision};
use winterbaume_core::{MockRequest, MockResponse};

use super::ACCOUNT;

/// The operation that a request calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) service: &'static str,
    pub(super) operation: String,
}

/// Finds service and operation: by the credential scope of the signature, by `X-Amz-Target`, by a form's `Action`; what
/// remains is S3.
pub(super) fn recognise(request: &MockRequest) -> Called {
    let target = header(&request.headers, "x-amz-target").and_then(|target| target.rsplit_once('.'));
    let action = form_action(request);
    let service = scope(&request.headers)
        .or_else(|| target.map(|(prefix, _)| targeted(prefix)))
        .or_else(|| action.as_deref().map(|action| if action == "GetCallerIdentity" { "sts" } else { "sns" }))
        .unwrap_or("s3");
    let operation = match service {
        "s3" => s3_operation(request),
        "sqs" | "dynamodb" | "cloudtrail" | "kms" => {
            target.map(|(_, operation)| operation.to_owned()).unwrap_or_default()
        }
        _ => action.unwrap_or_default(),
    };
    Called { service, operation }
}

/// The service of an `X-Amz-Target`.
fn targeted(prefix: &str) -> &'static str {
    match prefix.rsplit('.').next().unwrap_or_default() {
        "AmazonSQS" => "sqs",
        "CloudTrail_20131101" => "cloudtrail",
        "TrentService" => "kms",
        _ => "dynamodb",
    }
}

fn scope(headers: &HeaderMap) -> Option<&'static str> {
    let authorization = header(headers, AUTHORIZATION.as_str())?;
    let credential = authorization.split_once("Credential=")?.1.split(',').next()?;
    let known = ["s3", "sqs", "sns", "dynamodb", "cloudtrail", "kms", "sts"];
    known.into_iter().find(|service| credential.split('/').nth(3) == Some(service))
}

fn form_action(request: &MockRequest) -> Option<String> {
    let form = header(&request.headers, CONTENT_TYPE.as_str())?.starts_with("application/x-www-form-urlencoded");
    if !form {
        return None;
    }
    parse_form(&request.body).remove("Action")
}

fn s3_operation(request: &MockRequest) -> String {
    let (path, query) = path_and_query(&request.uri);
    let query = parse_form(query.as_bytes());
    let has = |name: &str| query.contains_key(name);
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let name = match (request.method.as_str(), bucket.is_empty(), key.is_empty()) {
        ("GET", true, _) => "ListBuckets",
        ("PUT", false, true) if has("notification") => "PutBucketNotificationConfiguration",
        ("PUT", false, true) if has("versioning") => "PutBucketVersioning",
        ("PUT", false, true) if query.is_empty() => "CreateBucket",
        ("HEAD", false, true) => "HeadBucket",
        ("GET", false, true) if has("list-type") => "ListObjectsV2",
        ("GET", false, true) if has("versions") => "ListObjectVersions",
        ("POST", false, true) if has("delete") => "DeleteObjects",
        ("PUT", false, false) if has("partNumber") => "UploadPart",
        ("PUT", false, false) if request.headers.contains_key("x-amz-copy-source") => "CopyObject",
        ("PUT", false, false) if !has("tagging") && !has("acl") => "PutObject",
        ("GET", false, false) if !has("tagging") && !has("acl") => "GetObject",
        ("HEAD", false, false) => "HeadObject",
        ("DELETE", false, false) if !has("uploadId") => "DeleteObject",
        ("POST", false, false) if has("uploads") => "CreateMultipartUpload",
        ("POST", false, false) if has("uploadId") => "CompleteMultipartUpload",
        (method, ..) => return format!("{method} {}", query.into_keys().min().unwrap_or_default()),
    };
    name.to_owned()
}

/// Path and query of a URI in origin or absolute form.
pub(super) fn path_and_query(uri: &str) -> (&str, &str) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest.find('/').map_or("/", |at| rest.split_at(at).1));
    rest.split_once('?').unwrap_or((rest, ""))
}

/// The URI by which `winterbaume` knows service and region.
pub(super) fn service_uri(service: &str, region: &str, uri: &str) -> String {
    let (path, query) = path_and_query(uri);
    let mark = if query.is_empty() { "" } else { "?" };
    format!("https://{service}.{region}.amazonaws.com{path}{mark}{query}")
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `a=b&c=d`, form-decoded; bad UTF-8 reads as U+FFFD.
pub(super) fn parse_form(form: &[u8]) -> HashMap<String, String> {
    let form = String::from_utf8_lossy(form);
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    form.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// Encodes a key for the path of a URI.
pub(super) fn encode_path(key: &str) -> String {
    const SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    utf8_percent_encode(key, SET).to_string()
}

/// `2026-03-01T12:34:56.789Z`, as AWS writes times in messages.
pub(super) fn timestamp(at: OffsetDateTime) -> String {
    const FORMAT: EncodedConfig = Config::DEFAULT
        .set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(3) })
        .set_year_is_six_digits(false)
        .encode();
    at.to_offset(time::UtcOffset::UTC).format(&Iso8601::<FORMAT>).unwrap_or_default()
}

/// A random UUID (version 4).
pub(super) fn uuid() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// An error answer in the service's own form.
pub(super) fn error(service: &str, status: u16, code: &str, message: &str) -> MockResponse {
    match service {
        "sqs" | "dynamodb" => {
            let namespace = if service == "sqs" { "com.amazonaws.sqs" } else { "com.amazonaws.dynamodb.v20120810" };
            let body = serde_json::json!({ "__type": format!("{namespace}#{code}"), "message": message });
            MockResponse::json(status, body.to_string())
        }
        "cloudtrail" | "kms" => {
            MockResponse::json(status, serde_json::json!({ "__type": code, "message": message }).to_string())
        }
        "s3" => MockResponse::xml(
            status,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message>\
                 <RequestId>{}</RequestId></Error>",
                escape_xml(message),
                uuid()
            ),
        ),
        _ => MockResponse::xml(
            status,
            format!(
                "<ErrorResponse><Error><Type>{}</Type><Code>{code}</Code><Message>{}</Message></Error>\
                 <RequestId>{}</RequestId></ErrorResponse>",
                if status < 500 { "Sender" } else { "Receiver" },
                escape_xml(message),
                uuid()
            ),
        ),
    }
}

pub(super) fn caller_identity() -> MockResponse {
    MockResponse::xml(
        200,
        format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>arn:aws:iam::{ACCOUNT}:user/emulator</Arn><UserId>AIDACKCEVSQ6C2EXAMPLE</UserId>\
             <Account>{ACCOUNT}</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>{}</RequestId>\
             </ResponseMetadata></GetCallerIdentityResponse>",
            uuid()
        ),
    )
}

pub(super) fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}

/// The contents of each element `name`, in order. Enough for the documents that S3 and SNS exchange: no namespace
/// prefixes, no element within one of its own name.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let open = format!("<{name}");
    let close = format!("</{name}>");
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once(&open) {
        rest = after;
        // `<Queue` also begins `<QueueConfiguration`.
        if !after.starts_with(['>', ' ']) {
            continue;
        }
        let Some((_, inner)) = after.split_once('>') else { break };
        let Some((content, after)) = inner.split_once(&close) else { break };
        found.push(content);
        rest = after;
    }
    found
}

/// The unescaped text of the first element `name`.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    let raw = elements(xml, name).into_iter().next()?.trim();
    Some(
        raw.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

/// Sets a field of a JSON object.
pub(super) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Whether a queue or topic, by name or ARN, is first-in-first-out.
pub(super) fn is_fifo(name: &str) -> bool {
    name.strip_suffix(".fifo").is_some()
}

pub(super) fn json_request(service: &'static str, operation: &str, body: &Value) -> io::Result<MockRequest> {
    let prefix = match service {
        "sqs" => "AmazonSQS",
        "cloudtrail" => "CloudTrail_20131101",
        "kms" => "TrentService",
        _ => "DynamoDB_20120810",
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-target", format!("{prefix}.{operation}").parse().map_err(io::Error::other)?);
    Ok(MockRequest { method: "POST".to_owned(), uri: "/".to_owned(), headers, body: body.to_string().into() })
}

pub(super) fn query_request(operation: &str, parameters: &[(&str, &str)]) -> io::Result<MockRequest> {
    let mut form = format!("Action={operation}&Version=2010-03-31");
    for (name, value) in parameters {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let _infallible = write!(form, "&{}={}", encode(name), encode(value));
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().map_err(io::Error::other)?);
    Ok(MockRequest { method: "POST".to_owned(), uri: "/".to_owned(), headers, body: form.into() })
}

pub(super) fn rest_request(method: &str, path: &str, body: Bytes) -> MockRequest {
    MockRequest { method: method.to_owned(), uri: path.to_owned(), headers: HeaderMap::new(), body }
}

pub(super) fn expect_json(operation: &str, answer: &MockResponse) -> io::Result<Value> {
    let text = expect_text(operation, answer)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(io::Error::other)
}

pub(super) fn expect_text(operation: &str, answer: &MockResponse) -> io::Result<String> {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status / 100 == 2 {
        return Ok(text);
    }
    Err(io::Error::other(format!("the emulator answered {operation} with {}: {text}", answer.status)))
}
