use std::time::Duration;

use serde_json::json;
use time::macros::datetime;
use trailhound::ports::{ErrorClass, Fault, QueueAttributes, Receipt};

use super::{QUEUE, Server, answer, assert_failed, json_error, not_aws};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_queue_describes_itself() {
    let server = Server::answering([answer(
        200,
        json!({ "Attributes": {
            "VisibilityTimeout": "120",
            "ApproximateNumberOfMessages": "7",
            "ApproximateNumberOfMessagesNotVisible": "3",
            "ApproximateNumberOfMessagesDelayed": "1",
            "RedrivePolicy": "{\"deadLetterTargetArn\":\"arn:aws:sqs:eu-west-1:111122223333:trail-dlq\",\"maxReceiveCount\":10}",
        } })
        .to_string(),
    )])
    .await;
    let attributes = server.ports().queue.attributes().await.unwrap();
    assert_eq!(
        attributes,
        QueueAttributes {
            visibility_timeout: 120 * SECOND,
            visible: 7,
            in_flight: 3,
            delayed: 1,
            max_receive_count: Some(10),
        }
    );
    let request = server.request();
    assert_eq!(request.header("x-amz-target"), Some("AmazonSQS.GetQueueAttributes"));
    assert_eq!(request.json()["QueueUrl"], QUEUE);
    assert_eq!(server.counted("sqs", "GetQueueAttributes", "ok"), 1);
}

#[tokio::test]
async fn the_redrive_count_may_be_a_string_or_absent() {
    let policy = |policy: &str| {
        answer(200, json!({ "Attributes": { "VisibilityTimeout": "30", "RedrivePolicy": policy } }).to_string())
    };
    let none = answer(200, json!({ "Attributes": { "VisibilityTimeout": "30" } }).to_string());
    let server = Server::answering([policy("{\"maxReceiveCount\":\"5\"}"), policy("{}"), policy("]"), none]).await;
    let queue = server.ports().queue;
    for expected in [Some(5), None, None, None] {
        assert_eq!(queue.attributes().await.unwrap().max_receive_count, expected);
    }
}

#[tokio::test]
async fn messages_are_received_with_their_age_and_count() {
    let server = Server::answering([answer(
        200,
        json!({ "Messages": [{
            "MessageId": "5fea7756-0ea4-451a-a703-a558b933e274",
            "ReceiptHandle": "AQEBhandle",
            "MD5OfBody": "c7bc0bb9e2a7d3a1a9c9ffb1cc4b6b36",
            "Body": "{\"Records\":[]}",
            "Attributes": { "SentTimestamp": "1714564800250", "ApproximateReceiveCount": "2" },
        }, {
            "MessageId": "a1b2c3d4-0ea4-451a-a703-a558b933e274",
            "ReceiptHandle": "AQEBother",
            "Body": "plain",
        }] })
        .to_string(),
    )])
    .await;
    let messages = server.ports().queue.receive(10, 20 * SECOND, Duration::from_millis(90_500)).await.unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].body, "{\"Records\":[]}");
    assert_eq!(messages[0].receipt, Receipt("AQEBhandle".to_owned()));
    assert_eq!(messages[0].receive_count, 2);
    assert_eq!(messages[0].sent_at, Some(datetime!(2024-05-01 12:00:00.25 UTC)));
    assert_eq!((messages[1].receive_count, messages[1].sent_at), (1, None));
    let request = server.request();
    assert_eq!(request.header("x-amz-target"), Some("AmazonSQS.ReceiveMessage"));
    assert_eq!(
        request.json(),
        json!({
            "QueueUrl": QUEUE,
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": 20,
            "VisibilityTimeout": 91,
            "MessageSystemAttributeNames": ["SentTimestamp", "ApproximateReceiveCount"],
        })
    );
}

#[tokio::test]
async fn an_empty_queue_is_no_error() {
    let server = Server::answering([answer(200, "{}")]).await;
    assert!(server.ports().queue.receive(1, Duration::ZERO, 30 * SECOND).await.unwrap().is_empty());
    assert_eq!(server.counted("sqs", "ReceiveMessage", "ok"), 1);
}

#[tokio::test]
async fn giving_back_is_a_visibility_of_zero() {
    let server = Server::answering([answer(200, "")]).await;
    server.ports().queue.change_visibility(&Receipt("AQEBhandle".to_owned()), Duration::ZERO).await.unwrap();
    assert_eq!(
        server.request().json(),
        json!({ "QueueUrl": QUEUE, "ReceiptHandle": "AQEBhandle", "VisibilityTimeout": 0 })
    );
}

#[tokio::test]
async fn a_lost_lease_is_told_apart_and_the_handle_is_not_repeated() {
    let errors = [
        json_error(400, "ReceiptHandleIsInvalid", "The input receipt handle \"AQEBhandle\" is not a valid receipt handle."),
        json_error(400, "MessageNotInflight", "Message AQEBhandle is not in flight."),
        json_error(
            400,
            "InvalidParameterValueException",
            "Value AQEBhandle for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available \
             for visibility timeout change.",
        )
        .with("x-amzn-query-error", "InvalidParameterValue;Sender"),
    ];
    let server = Server::answering(errors).await;
    let queue = server.ports().queue;
    for _ in 0..3 {
        let error = queue.change_visibility(&Receipt("AQEBhandle".to_owned()), SECOND).await.unwrap_err();
        assert_eq!((error.class, &error.fault), (ErrorClass::Permanent, &Fault::LeaseLost));
        assert!(!format!("{error} {error:?}").contains("AQEBhandle"), "{error:?}");
    }
}

#[tokio::test]
async fn twelve_hours_are_not_a_lost_lease() {
    let server = Server::answering([json_error(
        400,
        "InvalidParameterValue",
        "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond \
         the limit [43200 seconds].",
    )])
    .await;
    let changed = server.ports().queue.change_visibility(&Receipt("AQEBhandle".to_owned()), SECOND).await;
    assert_failed(changed, ErrorClass::Permanent, &Fault::Invalid, &["43200"]);
}

#[tokio::test]
async fn each_refusal_of_a_receive_has_its_class() {
    let denied = Fault::Denied { action: "sqs:ReceiveMessage" };
    let kms = Fault::KmsDenied { action: "kms:Decrypt" };
    let cases = [
        (json_error(400, "ThrottlingException", "Rate exceeded"), ErrorClass::Transient, Fault::Unavailable, ""),
        (
            json_error(403, "RequestThrottled", "Slow down"),
            ErrorClass::Transient,
            Fault::Unavailable,
            "RequestThrottled",
        ),
        (json_error(403, "OverLimit", "Too many in flight"), ErrorClass::Transient, Fault::Unavailable, ""),
        (json_error(400, "KmsThrottled", "KMS throttled"), ErrorClass::Transient, Fault::Unavailable, ""),
        (json_error(503, "ServiceUnavailable", "Busy"), ErrorClass::Transient, Fault::Unavailable, ""),
        (
            json_error(
                403,
                "AccessDeniedException",
                "User: arn:aws:sts::111122223333:assumed-role/trailhound/task is not authorized to perform: \
                 sqs:receivemessage on resource: arn:aws:sqs:eu-west-1:111122223333:my-kms-trail",
            ),
            ErrorClass::Config,
            denied,
            "grant sqs:ReceiveMessage on https://sqs.eu-west-1",
        ),
        (
            json_error(400, "KmsAccessDenied", "The ciphertext refers to a customer master key that does not exist"),
            ErrorClass::Config,
            kms.clone(),
            "grant kms:Decrypt",
        ),
        (
            json_error(
                403,
                "AccessDeniedException",
                "User: arn:aws:sts::111122223333:assumed-role/trailhound/task is not authorized to perform: kms:Decrypt on \
                 resource: arn:aws:kms:eu-west-1:111122223333:key/1234abcd",
            ),
            ErrorClass::Config,
            kms,
            "grant kms:Decrypt",
        ),
        (
            json_error(400, "QueueDoesNotExist", "The specified queue does not exist.")
                .with("x-amzn-query-error", "AWS.SimpleQueueService.NonExistentQueue;Sender"),
            ErrorClass::Config,
            Fault::Missing,
            "111122223333/trail",
        ),
        (
            json_error(400, "QueueDoesNotExist", "The specified queue does not exist."),
            ErrorClass::Config,
            Fault::Missing,
            "does not exist",
        ),
        (
            json_error(403, "ExpiredToken", "The security token included in the request is expired"),
            ErrorClass::Config,
            Fault::Credentials,
            "expired",
        ),
        (
            json_error(403, "InvalidClientTokenId", "The security token included in the request is invalid."),
            ErrorClass::Config,
            Fault::Credentials,
            "look at the credentials",
        ),
        (
            json_error(
                403,
                "SignatureDoesNotMatch",
                "Signature expired: 20240501T120000Z is now earlier than 20240501T121500Z",
            ),
            ErrorClass::Config,
            Fault::Credentials,
            "clock",
        ),
        (
            json_error(400, "SomethingNew", "never heard of"),
            ErrorClass::Config,
            Fault::Invalid,
            "SomethingNew: never heard of",
        ),
    ];
    let server = Server::answering(cases.iter().map(|(answer, ..)| answer.clone())).await;
    let queue = server.ports().queue;
    for (_, class, fault, words) in cases {
        assert_failed(queue.receive(10, SECOND, SECOND).await, class, &fault, &[words, "sqs:ReceiveMessage failed"]);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_of_sqs_may_pass() {
    let answers = not_aws();
    let server = Server::answering(answers.clone()).await;
    let queue = server.ports().queue;
    for answer in answers {
        let received = queue.receive(10, Duration::ZERO, SECOND).await.map(|_| panic!("{answer:?} is an answer"));
        assert_failed::<()>(received, ErrorClass::Transient, &Fault::Unavailable, &[]);
    }
}
