use trailhound::alert::{AttributeValue, Outbound};
use trailhound::ports::{ErrorClass, Fault};

use super::{Server, TOPIC, answer, assert_failed, not_aws, sns_error};

fn alert(id: &str) -> Outbound {
    Outbound {
        alert_id: id.to_owned(),
        subject: "[HIGH] CreateAccessKey by Admin/alice".to_owned(),
        message: r#"{"default":"{\"schema\":\"trailhound.alert/1\"}","email":"who & what"}"#.to_owned(),
        attributes: vec![
            ("severity", AttributeValue::String("HIGH".to_owned())),
            ("rule_ids", AttributeValue::StringArray(vec!["iam-key".to_owned(), "a\"b".to_owned()])),
            ("region", AttributeValue::String(String::new())),
        ],
        group_id: "111122223333".to_owned(),
    }
}

fn batch_answer(successful: &str, failed: &str) -> super::Answer {
    answer(
        200,
        format!(
            "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
             <Failed>{failed}</Failed><Successful>{successful}</Successful></PublishBatchResult>\
             <ResponseMetadata><RequestId>8b3ecd0d-5012-5f99-8663-4b3ecd0dfaef</RequestId></ResponseMetadata>\
             </PublishBatchResponse>"
        ),
    )
}

fn accepted(id: usize, message: &str) -> String {
    format!("<member><Id>{id}</Id><MessageId>{message}</MessageId></member>")
}

fn refused(id: usize, code: &str, sender: bool) -> String {
    format!(
        "<member><Id>{id}</Id><Code>{code}</Code><Message>{code} it is</Message><SenderFault>{sender}</SenderFault></member>"
    )
}

#[tokio::test]
async fn an_alert_goes_to_a_standard_topic() {
    let server = Server::answering([batch_answer(&accepted(0, "m-0"), "")]).await;
    let results = server.ports().publisher.publish(&[alert("a0")]).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap(), "m-0");
    let form = server.request().form();
    let entry = |name: &str| form.get(&format!("PublishBatchRequestEntries.member.1.{name}")).map(String::as_str);
    assert_eq!(form["Action"], "PublishBatch");
    assert_eq!(form["TopicArn"], TOPIC);
    assert_eq!(entry("Id"), Some("0"));
    assert_eq!(entry("Subject"), Some("[HIGH] CreateAccessKey by Admin/alice"));
    assert_eq!(entry("MessageStructure"), Some("json"));
    assert_eq!(entry("Message"), Some(alert("").message.as_str()));
    assert_eq!(entry("MessageGroupId"), None);
    assert_eq!(entry("MessageDeduplicationId"), None);
    let attributes: Vec<_> =
        form.iter().filter(|(name, _)| name.contains("MessageAttributes")).map(|(_, v)| v).collect();
    assert_eq!(attributes.len(), 6, "an empty attribute is left out: {attributes:?}");
    for value in ["severity", "String", "HIGH", "rule_ids", "String.Array", r#"["iam-key","a\"b"]"#] {
        assert!(attributes.iter().any(|found| *found == value), "no {value} in {attributes:?}");
    }
}

#[tokio::test]
async fn a_fifo_topic_gets_a_group_and_the_alert_id() {
    let server = Server::answering([batch_answer(&accepted(0, "m-0"), "")]).await;
    let ports = server.ports_to("arn:aws:sns:eu-central-1:111122223333:alerts.fifo", &[]);
    ports.publisher.publish(&[alert("a0")]).await.unwrap();
    let form = server.request().form();
    assert_eq!(form["PublishBatchRequestEntries.member.1.MessageGroupId"], "111122223333");
    assert_eq!(form["PublishBatchRequestEntries.member.1.MessageDeduplicationId"], "a0");
}

#[tokio::test]
async fn each_entry_of_a_batch_has_its_own_result() {
    let failed = [
        refused(0, "InvalidParameter", true),
        refused(2, "InternalError", false),
        refused(3, "Throttled", true),
        refused(4, "AuthorizationError", true),
        refused(5, "KMSAccessDenied", true),
        refused(6, "NeverHeardOf", true),
        refused(7, "NeverHeardOf", false),
    ]
    .concat();
    let server = Server::answering([batch_answer(&accepted(1, "m-1"), &failed)]).await;
    let alerts: Vec<_> = (0..9).map(|i| alert(&format!("a{i}"))).collect();
    let mut results = server.ports().publisher.publish(&alerts).await.unwrap().into_iter();
    let mut next = || results.next().unwrap();
    assert_failed(next(), ErrorClass::Permanent, &Fault::Invalid, &["InvalidParameter it is"]);
    assert_eq!(next().unwrap(), "m-1");
    assert_failed(next(), ErrorClass::Transient, &Fault::Unavailable, &[]);
    assert_failed(next(), ErrorClass::Transient, &Fault::Unavailable, &[]);
    assert_failed(next(), ErrorClass::Config, &Fault::Denied { action: "sns:Publish" }, &["grant sns:Publish"]);
    let kms = Fault::KmsDenied { action: "kms:GenerateDataKey" };
    assert_failed(next(), ErrorClass::Config, &kms, &["grant kms:GenerateDataKey"]);
    assert_failed(next(), ErrorClass::Permanent, &Fault::Invalid, &["NeverHeardOf"]);
    assert_failed(next(), ErrorClass::Transient, &Fault::Unavailable, &[]);
    assert_failed(next(), ErrorClass::Transient, &Fault::Unavailable, &["does not speak of this alert"]);
    assert_eq!(server.counted("sns", "PublishBatch", "ok"), 1);
}

#[tokio::test]
async fn nothing_to_publish_sends_nothing() {
    let server = Server::answering([]).await;
    assert!(server.ports().publisher.publish(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn each_refusal_of_a_batch_has_its_class() {
    let cases = [
        (sns_error(400, "Throttled", "Rate exceeded"), ErrorClass::Transient, Fault::Unavailable, ""),
        (sns_error(500, "InternalError", "Oops"), ErrorClass::Transient, Fault::Unavailable, ""),
        (
            sns_error(
                403,
                "AuthorizationError",
                "User: arn:aws:sts::111122223333:assumed-role/trailhound/task is not authorized to perform: SNS:Publish on \
                 resource: arn:aws:sns:eu-central-1:111122223333:alerts because no identity-based policy allows the action",
            ),
            ErrorClass::Config,
            Fault::Denied { action: "sns:Publish" },
            "grant sns:Publish on arn:aws:sns:eu-central-1:111122223333:alerts",
        ),
        (
            sns_error(
                400,
                "KMSAccessDenied",
                "User is not authorized to perform: kms:GenerateDataKey on the resource associated with this ciphertext",
            ),
            ErrorClass::Config,
            Fault::KmsDenied { action: "kms:GenerateDataKey" },
            "grant kms:GenerateDataKey",
        ),
        (sns_error(400, "KMSThrottling", "Slow down"), ErrorClass::Transient, Fault::Unavailable, ""),
        (sns_error(404, "NotFound", "Topic does not exist"), ErrorClass::Config, Fault::Missing, TOPIC),
        (
            sns_error(400, "InvalidParameter", "Invalid parameter: TopicArn Reason: no value for required parameter"),
            ErrorClass::Config,
            Fault::Missing,
            TOPIC,
        ),
        (
            sns_error(400, "InvalidParameter", "Invalid parameter: Message too long"),
            ErrorClass::Permanent,
            Fault::Invalid,
            "too long",
        ),
        (
            sns_error(400, "BatchRequestTooLong", "The length of all the messages in the batch exceeds the limit"),
            ErrorClass::Permanent,
            Fault::Invalid,
            "",
        ),
        (
            sns_error(403, "ExpiredToken", "The security token included in the request is expired"),
            ErrorClass::Config,
            Fault::Credentials,
            "renew them",
        ),
        (sns_error(403, "RequestExpired", "Request has expired"), ErrorClass::Config, Fault::Credentials, "clock"),
    ];
    let server = Server::answering(cases.iter().map(|(answer, ..)| answer.clone())).await;
    let publisher = server.ports().publisher;
    for (_, class, fault, words) in cases {
        assert_failed(publisher.publish(&[alert("a")]).await, class, &fault, &[words, "sns:PublishBatch failed"]);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_of_sns_never_counts_as_accepted() {
    let answers = not_aws();
    let server = Server::answering(answers.clone()).await;
    let publisher = server.ports().publisher;
    for answer in answers {
        match publisher.publish(&[alert("a")]).await {
            Ok(mut results) => {
                assert_failed(results.remove(0), ErrorClass::Transient, &Fault::Unavailable, &[]);
            }
            Err(error) => {
                assert_eq!((error.class, &error.fault), (ErrorClass::Transient, &Fault::Unavailable), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_check_needs_no_permission_of_its_own() {
    let found = "<GetTopicAttributesResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><GetTopicAttributesResult>\
                 <Attributes/></GetTopicAttributesResult></GetTopicAttributesResponse>";
    let server = Server::answering([
        answer(200, found),
        sns_error(403, "AuthorizationError", "not authorized to perform: SNS:GetTopicAttributes"),
        sns_error(404, "NotFound", "Topic does not exist"),
        sns_error(403, "InvalidClientTokenId", "The security token included in the request is invalid"),
    ])
    .await;
    let publisher = server.ports().publisher;
    publisher.check().await.unwrap();
    publisher.check().await.unwrap();
    assert_failed(publisher.check().await, ErrorClass::Config, &Fault::Missing, &[TOPIC]);
    assert_failed(publisher.check().await, ErrorClass::Config, &Fault::Credentials, &[]);
}
