use trailhound::ports::{ErrorClass, Fault, ObjectBody, ObjectRequest, PortError};

use super::{Answer, Server, answer, assert_failed, not_aws, s3_error, s3_error_with};

const KEY: &str = "AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/a file+.json.gz";

fn request() -> ObjectRequest {
    ObjectRequest {
        bucket: "logs".to_owned(),
        key: KEY.to_owned(),
        version_id: None,
        region: None,
        start: 0,
        if_match: None,
    }
}

fn resumed(start: u64) -> ObjectRequest {
    ObjectRequest { start, if_match: Some("\"e1\"".to_owned()), ..request() }
}

async fn read(mut body: ObjectBody) -> (Vec<u8>, Result<(), PortError>) {
    let mut bytes = Vec::new();
    loop {
        match body.chunks.next().await {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty());
                bytes.extend_from_slice(&chunk);
            }
            Ok(None) => return (bytes, Ok(())),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

async fn read_whole(body: ObjectBody) -> String {
    let (bytes, end) = read(body).await;
    end.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_object_is_read_as_it_is_stored() {
    let stored = answer(200, "\x1f\x08not decoded").with("etag", "\"e1\"").with("content-encoding", "gzip");
    let server = Server::answering([stored]).await;
    let body = server.ports().objects.open(&request()).await.unwrap();
    assert_eq!((body.etag.as_deref(), body.length), (Some("\"e1\""), Some(13)));
    assert_eq!(read_whole(body).await, "\x1f\x08not decoded");
    let request = server.request();
    assert_eq!(request.method, "GET");
    assert_eq!(
        request.path.split('?').next(),
        Some("/logs/AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01/a%20file%2B.json.gz")
    );
    for absent in ["range", "if-match", "x-amz-checksum-mode"] {
        assert_eq!(request.header(absent), None);
    }
    assert!(!request.path.contains("versionId"));
    assert_eq!(server.counted("s3", "GetObject", "ok"), 1);
}

#[tokio::test]
async fn a_version_is_pinned() {
    let server = Server::answering([answer(200, "x")]).await;
    let request = ObjectRequest { version_id: Some("3/L4kqtJl+Example".to_owned()), ..request() };
    server.ports().objects.open(&request).await.unwrap();
    assert!(server.request().path.contains("versionId=3%2FL4kqtJl%2BExample"), "{}", server.request().path);
}

#[tokio::test]
async fn a_broken_body_is_resumed_where_it_stopped() {
    let partial = answer(206, "67").with("content-range", "bytes 5-6/7").with("etag", "\"e1\"");
    let server = Server::answering([partial]).await;
    let body = server.ports().objects.open(&resumed(5)).await.unwrap();
    assert_eq!(body.length, Some(2));
    assert_eq!(read_whole(body).await, "67");
    let request = server.request();
    assert_eq!(request.header("range"), Some("bytes=5-"));
    assert_eq!(request.header("if-match"), Some("\"e1\""));
}

#[tokio::test]
async fn a_server_without_ranges_is_read_from_the_start() {
    let server = Server::answering([answer(200, "0123456")]).await;
    let body = server.ports().objects.open(&resumed(5)).await.unwrap();
    assert_eq!(body.length, Some(2));
    assert_eq!(read_whole(body).await, "56");
}

#[tokio::test]
async fn a_range_other_than_asked_for_is_cut_or_refused() {
    let server = Server::answering([
        answer(206, "3456").with("content-range", "bytes 3-6/7"),
        answer(206, "6").with("content-range", "bytes 6-6/7"),
        answer(206, "x").with("content-range", "nonsense"),
        answer(200, "012"),
    ])
    .await;
    let objects = server.ports().objects;
    assert_eq!(read_whole(objects.open(&resumed(5)).await.unwrap()).await, "56");
    assert_failed(objects.open(&resumed(5)).await, ErrorClass::Transient, &Fault::Unavailable, &["bytes 6-6/7"]);
    assert_failed(objects.open(&resumed(5)).await, ErrorClass::Transient, &Fault::Unavailable, &["nonsense"]);
    assert_failed(objects.open(&resumed(5)).await, ErrorClass::Transient, &Fault::Changed, &["before byte 5"]);
}

#[tokio::test]
async fn a_range_at_the_very_end_is_an_empty_body() {
    let beyond = |size: &str| {
        let more = format!("<RangeRequested>bytes=7-</RangeRequested><ActualObjectSize>{size}</ActualObjectSize>");
        s3_error_with(416, "InvalidRange", "The requested range is not satisfiable", &more)
    };
    let by_header = answer(416, "").with("content-range", "bytes */7");
    let server = Server::answering([beyond("7"), by_header, beyond("6"), answer(416, "")]).await;
    let objects = server.ports().objects;
    for _ in 0..2 {
        let body = objects.open(&resumed(7)).await.unwrap();
        assert_eq!((body.length, body.etag.as_deref()), (Some(0), Some("\"e1\"")));
        assert_eq!(read_whole(body).await, "");
    }
    for _ in 0..2 {
        assert_failed(objects.open(&resumed(7)).await, ErrorClass::Transient, &Fault::Changed, &["before byte 7"]);
    }
}

#[tokio::test]
async fn an_object_that_was_replaced_is_told_apart() {
    let server =
        Server::answering([s3_error(412, "PreconditionFailed", "At least one of the pre-conditions did not hold")])
            .await;
    let opened = server.ports().objects.open(&resumed(5)).await;
    assert_failed(opened, ErrorClass::Transient, &Fault::Changed, &["replaced"]);
}

#[tokio::test]
async fn a_body_that_ends_early_never_ends_well() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n012\r\n".to_vec();
    let server = Server::answering([answer(200, "012").announcing(9), Answer::Raw(chunked)]).await;
    let objects = server.ports().objects;
    for _ in 0..2 {
        let mut body = objects.open(&request()).await.unwrap();
        assert_eq!(body.chunks.next().await.unwrap().unwrap(), "012");
        assert_failed(body.chunks.next().await, ErrorClass::Transient, &Fault::Truncated, &["s3:GetObject"]);
        assert_failed(body.chunks.next().await, ErrorClass::Transient, &Fault::Truncated, &[]);
    }
}

#[tokio::test]
async fn each_refusal_of_an_object_has_its_class() {
    let denied = Fault::Denied { action: "s3:GetObject" };
    let user = "User: arn:aws:sts::111122223333:assumed-role/trailhound/task is not authorized to perform:";
    let cases = [
        (s3_error(503, "SlowDown", "Please reduce your request rate."), ErrorClass::Transient, Fault::Unavailable, ""),
        (
            s3_error(500, "InternalError", "We encountered an internal error."),
            ErrorClass::Transient,
            Fault::Unavailable,
            "",
        ),
        (
            s3_error(400, "RequestTimeout", "Your socket connection timed out"),
            ErrorClass::Transient,
            Fault::Unavailable,
            "",
        ),
        (
            s3_error(403, "AccessDenied", "Access Denied"),
            ErrorClass::Permanent,
            denied.clone(),
            "grant s3:GetObject on arn:aws:s3:::logs/AWSLogs/",
        ),
        (
            answer(403, ""),
            ErrorClass::Permanent,
            denied.clone(),
            "or the key does not exist and s3:ListBucket is not granted",
        ),
        (
            s3_error(403, "AccessDenied", &format!("{user} s3:GetObject on resource: \"arn:aws:s3:::logs/KMS\"")),
            ErrorClass::Permanent,
            denied,
            "grant s3:GetObject",
        ),
        (
            s3_error(403, "AccessDenied", &format!("{user} s3:ListBucket on resource: \"arn:aws:s3:::logs\"")),
            ErrorClass::Permanent,
            Fault::Denied { action: "s3:ListBucket" },
            "probably does not exist; grant s3:ListBucket on arn:aws:s3:::logs ",
        ),
        (
            s3_error(403, "AccessDenied", &format!("{user} kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/1")),
            ErrorClass::Permanent,
            Fault::KmsDenied { action: "kms:Decrypt" },
            "grant kms:Decrypt on the key that encrypts arn:aws:s3:::logs/",
        ),
        (
            s3_error(400, "KMS.DisabledException", "arn:aws:kms:eu-west-1:111122223333:key/1 is disabled."),
            ErrorClass::Permanent,
            Fault::KmsDenied { action: "kms:Decrypt" },
            "enabled",
        ),
        (
            s3_error(404, "NoSuchKey", "The specified key does not exist."),
            ErrorClass::Permanent,
            Fault::Missing,
            "a file+.json.gz does not exist",
        ),
        (s3_error(404, "NoSuchBucket", "The bucket does not exist"), ErrorClass::Permanent, Fault::Missing, ""),
        (s3_error(404, "NoSuchVersion", "The version does not exist"), ErrorClass::Permanent, Fault::Missing, ""),
        (answer(404, ""), ErrorClass::Permanent, Fault::Missing, ""),
        (
            s3_error(405, "MethodNotAllowed", "The specified method is not allowed against this resource."),
            ErrorClass::Permanent,
            Fault::Missing,
            "was deleted",
        ),
        (
            s3_error(403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
            ErrorClass::Permanent,
            Fault::Invalid,
            "Glacier",
        ),
        (
            s3_error(400, "ExpiredToken", "The provided token has expired."),
            ErrorClass::Config,
            Fault::Credentials,
            "renew them",
        ),
        (
            s3_error(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
            ErrorClass::Config,
            Fault::Credentials,
            "",
        ),
        (
            s3_error(403, "RequestTimeTooSkewed", "The difference is too large"),
            ErrorClass::Config,
            Fault::Credentials,
            "clock",
        ),
        (s3_error(400, "SomethingNew", "never heard of"), ErrorClass::Permanent, Fault::Invalid, "SomethingNew"),
    ];
    let server = Server::answering(cases.iter().map(|(answer, ..)| answer.clone())).await;
    let objects = server.ports().objects;
    for (_, class, fault, words) in cases {
        assert_failed(objects.open(&request()).await, class, &fault, &[words, "s3:GetObject failed"]);
    }
}

#[tokio::test]
async fn a_denied_version_names_the_action_for_versions() {
    let server = Server::answering([s3_error(403, "AccessDenied", "Access Denied")]).await;
    let request = ObjectRequest { version_id: Some("v1".to_owned()), ..request() };
    let denied = Fault::Denied { action: "s3:GetObjectVersion" };
    let opened = server.ports().objects.open(&request).await;
    assert_failed(opened, ErrorClass::Permanent, &denied, &["grant s3:GetObjectVersion"]);
}

#[tokio::test]
async fn an_error_that_is_not_of_s3_may_pass() {
    let answers: Vec<_> = not_aws().into_iter().skip(1).collect();
    let server = Server::answering(answers.clone()).await;
    let objects = server.ports().objects;
    for _ in answers {
        assert_failed(objects.open(&request()).await, ErrorClass::Transient, &Fault::Unavailable, &[]);
    }
}

/// A message may name any bucket and key; none of them may stop the others.
#[tokio::test]
async fn a_name_that_no_request_can_hold_is_the_objects_own_fault() {
    let server = Server::answering([]).await;
    let objects = server.ports().objects;
    for (bucket, key) in [
        ("", "k"),
        ("logs", ""),
        ("arn:aws:s3", "k"),
        ("arn:aws:s3:us-west-2:111122223333:accesspoint/logs", "k"),
        ("logs/..", "k"),
        ("..", "k"),
        ("evil.example.com?", "k"),
    ] {
        let request = ObjectRequest { bucket: bucket.to_owned(), key: key.to_owned(), ..request() };
        assert_failed(objects.open(&request).await, ErrorClass::Permanent, &Fault::Invalid, &["s3:GetObject"]);
    }
}

#[tokio::test]
async fn a_bucket_in_another_region_is_followed_and_remembered() {
    let moved = s3_error(301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint")
        .with("x-amz-bucket-region", "ap-south-1");
    let server = Server::answering([moved, answer(200, "one"), answer(200, "two"), answer(200, "three")]).await;
    let objects = server.ports().objects;
    assert_eq!(read_whole(objects.open(&request()).await.unwrap()).await, "one");
    assert_eq!(read_whole(objects.open(&request()).await.unwrap()).await, "two");
    let other = ObjectRequest { bucket: "elsewhere".to_owned(), ..request() };
    assert_eq!(read_whole(objects.open(&other).await.unwrap()).await, "three");
    let regions: Vec<_> = server.requests().iter().map(|request| request.region().to_owned()).collect();
    assert_eq!(regions, ["us-west-2", "ap-south-1", "ap-south-1", "us-west-2"]);
    assert_eq!(server.counted("s3", "GetObject", "ok"), 3);
}

#[tokio::test]
async fn a_region_in_the_body_of_an_error_is_followed() {
    let wrong = |more: &str| s3_error_with(400, "AuthorizationHeaderMalformed", "the region is wrong", more);
    let server = Server::answering([wrong("<Region>eu-north-1</Region>"), answer(200, "one")]).await;
    assert_eq!(read_whole(server.ports().objects.open(&request()).await.unwrap()).await, "one");
    assert_eq!(server.requests()[1].region(), "eu-north-1");
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_not_followed() {
    let moved = |region: &str| s3_error(307, "TemporaryRedirect", "Please re-send").with("x-amz-bucket-region", region);
    let circle = [moved("eu-west-1"), moved("eu-west-2"), moved("eu-west-1")];
    let server = Server::answering(circle.into_iter().chain([
        moved("us-west-2"),
        moved("x.example.com/"),
        s3_error(301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint"),
    ]))
    .await;
    let objects = server.ports().objects;
    assert_failed(objects.open(&request()).await, ErrorClass::Transient, &Fault::Unavailable, &["region to region"]);
    for _ in 0..3 {
        assert_failed(objects.open(&request()).await, ErrorClass::Permanent, &Fault::Invalid, &["Redirect"]);
    }
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn any_answer_shows_that_s3_is_reachable() {
    let server = Server::answering([
        answer(200, ""),
        answer(403, ""),
        answer(404, ""),
        answer(301, "").with("x-amz-bucket-region", "eu-west-1"),
        answer(503, ""),
    ])
    .await;
    let objects = server.ports_to(super::TOPIC, &["*-logs", "logs"]).objects;
    for _ in 0..4 {
        objects.check().await.unwrap();
    }
    assert_failed(objects.check().await, ErrorClass::Transient, &Fault::Unavailable, &["s3:HeadBucket"]);
    assert!(server.requests().iter().all(|request| request.method == "HEAD" && request.path.starts_with("/logs")));
}

#[tokio::test]
async fn without_a_bucket_the_list_of_buckets_is_asked_for() {
    let listed = "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>";
    let server = Server::answering([
        answer(200, listed),
        s3_error(403, "AccessDenied", "Access Denied"),
        s3_error(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    ])
    .await;
    let objects = server.ports_to(super::TOPIC, &[]).objects;
    objects.check().await.unwrap();
    objects.check().await.unwrap();
    assert_failed(objects.check().await, ErrorClass::Config, &Fault::Credentials, &["s3:ListBuckets"]);
    assert!(server.requests()[0].path.contains("max-buckets=1"));
}

#[tokio::test]
async fn names_that_no_object_has_are_refused_and_never_sent() {
    // The SDK panics on what does not fit into an address.
    let server = Server::answering([]).await;
    let objects = server.ports().objects;
    for (key, version_id) in [
        (String::new(), None),
        ("k".repeat(1025), None),
        ("k".repeat(70_000), None),
        ("\u{65e5}".repeat(30_000), None),
        (KEY.to_owned(), Some("v".repeat(70_000))),
    ] {
        let request = ObjectRequest { key, version_id, ..request() };
        assert_failed(objects.open(&request).await, ErrorClass::Permanent, &Fault::Invalid, &["names no object"]);
    }
}

#[tokio::test]
async fn names_that_are_no_log_buckets_are_never_looked_up() {
    // For these the SDK opens a session, or goes to another host, and calls every failure a broken connection.
    let server = Server::answering([s3_error(404, "NoSuchBucket", "no")]).await;
    let objects = server.ports().objects;
    for bucket in ["logs--use1-az4--x-s3", "logs--use1-az4--xa-s3", "logs-e00000136899934034jeahy1t8gpz--op-s3"] {
        let request = ObjectRequest { bucket: bucket.to_owned(), ..request() };
        assert_failed(objects.open(&request).await, ErrorClass::Permanent, &Fault::Invalid, &[bucket]);
    }
    let request = ObjectRequest { bucket: "logs-x-s3".to_owned(), ..request() };
    assert_failed(objects.open(&request).await, ErrorClass::Permanent, &Fault::Missing, &["logs-x-s3"]);
}
