//! Scenarios over real HTTP, one connection for each request, and what `winterbaume` alone would get wrong.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends one request over a connection of its own.
async fn http(
    emulator: &Emulator,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<(u16, HeaderMap, Bytes), hyper::Error> {
    let stream = tokio::net::TcpStream::connect(emulator.address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", emulator.address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response: Response<_> = client.send_request(request.body(Full::new(body.into())).unwrap()).await?;
    let (parts, body) = response.into_parts();
    Ok((parts.status.as_u16(), parts.headers, body.collect().await?.to_bytes()))
}

async fn call(emulator: &Emulator, service: &str, operation: &str, body: Value) -> (u16, Value) {
    let scope = format!(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260301/us-west-2/{service}/aws4_request, \
         SignedHeaders=host, Signature=00"
    );
    let target = format!("Service.{operation}");
    let headers = [("authorization", scope.as_str()), ("x-amz-target", target.as_str())];
    let (status, _, body) = http(emulator, "POST", "/", &headers, body.to_string()).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn started() -> (Emulator, Resources) {
    started_with(Names::default()).await
}

async fn started_with(names: Names) -> (Emulator, Resources) {
    let emulator = Emulator::start(Options::default()).unwrap();
    let made = emulator.set_up(&names).await.unwrap();
    // The s3:TestEvent is not what these tests are about.
    assert_eq!(emulator.receive_all(&made.queue_url).unwrap().len(), 1);
    (emulator, made)
}

fn key(id: &str) -> Value {
    json!({ "EventId": { "S": id }, "Timestamp": { "S": "2026-03-01T10:00:00Z" } })
}

async fn receive(emulator: &Emulator, queue_url: &str, more: Value) -> Vec<Value> {
    let mut input = json!({ "QueueUrl": queue_url, "MaxNumberOfMessages": 10, "AttributeNames": ["All"] });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, output) = call(emulator, "sqs", "ReceiveMessage", input).await;
    assert_eq!(status, 200, "{output}");
    output["Messages"].as_array().cloned().unwrap_or_default()
}

fn code(output: &Value) -> &str {
    output["__type"].as_str().unwrap().rsplit('#').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_puts_on_the_condition_that_there_is_no_item_one_wins() {
    let (emulator, made) = started().await;
    let emulator = Arc::new(emulator);
    for round in 0..20 {
        let puts: Vec<_> = (0..8)
            .map(|_| {
                let (emulator, table) = (Arc::clone(&emulator), made.table.clone());
                tokio::spawn(async move {
                    let put = json!({
                        "TableName": table,
                        "Item": key(&format!("event-{round}")),
                        "ConditionExpression": "attribute_not_exists(EventId)",
                    });
                    call(&emulator, "dynamodb", "PutItem", put).await.0
                })
            })
            .collect();
        let mut won = 0;
        for put in puts {
            won += usize::from(put.await.unwrap() == 200);
        }
        assert_eq!(won, 1);
    }
    assert_eq!(emulator.items(&made.table).await.unwrap().len(), 20);
    assert_eq!(emulator.count("dynamodb", "PutItem"), 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_condition_returns_the_item_when_asked_to() {
    let (emulator, made) = started().await;
    let mut item = key("a");
    item["Rules"] = json!({ "SS": ["root-usage"] });
    let mut put = json!({
        "TableName": made.table, "Item": item, "ConditionExpression": "attribute_not_exists(EventId)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    assert_eq!(call(&emulator, "dynamodb", "PutItem", put.clone()).await.0, 200);
    let (status, refused) = call(&emulator, "dynamodb", "PutItem", put.clone()).await;
    assert_eq!((status, code(&refused)), (400, "ConditionalCheckFailedException"));
    assert_eq!(refused["Item"], item);
    put.as_object_mut().unwrap().remove("ReturnValuesOnConditionCheckFailure");
    let (_, refused) = call(&emulator, "dynamodb", "PutItem", put).await;
    assert_eq!(refused.get("Item"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conditions_of_claims_hold() {
    let (emulator, made) = started().await;
    let claim = |condition: &str, values: Value| {
        let mut values = values;
        values[":new"] = json!({ "S": "second" });
        values[":more"] = json!({ "SS": ["b"] });
        json!({
            "TableName": made.table, "Key": key("a"), "ConditionExpression": condition,
            "UpdateExpression": "SET Claim = :new ADD #rules :more",
            "ExpressionAttributeNames": { "#rules": "Rules" }, "ExpressionAttributeValues": values,
        })
    };
    let mut item = key("a");
    item["Rules"] = json!({ "SS": ["a"] });
    item["Claim"] = json!({ "S": "first" });
    call(&emulator, "dynamodb", "PutItem", json!({ "TableName": made.table, "Item": item })).await;

    let unsettled = "Claim = :seen AND attribute_not_exists(SettledRules)";
    let (status, _) =
        call(&emulator, "dynamodb", "UpdateItem", claim(unsettled, json!({ ":seen": { "S": "x" } }))).await;
    assert_eq!(status, 400);
    let (status, refused) =
        call(&emulator, "dynamodb", "UpdateItem", claim(unsettled, json!({ ":seen": { "S": "first" } }))).await;
    assert_eq!(status, 200, "{refused}");

    let mark = json!({
        "TableName": made.table, "Key": key("a"),
        "UpdateExpression": "ADD SettledRules :rules, AlertIds :id SET AlertedAt = :at",
        "ExpressionAttributeValues": {
            ":rules": { "SS": ["a"] }, ":id": { "SS": ["1"] }, ":at": { "S": "2026-03-01T10:00:01Z" },
        },
    });
    for _ in 0..2 {
        let (status, refused) = call(&emulator, "dynamodb", "UpdateItem", mark.clone()).await;
        assert_eq!(status, 200, "{refused}");
    }
    let sized = "size(SettledRules) = :n";
    let (status, _) = call(&emulator, "dynamodb", "UpdateItem", claim(sized, json!({ ":n": { "N": "2" } }))).await;
    assert_eq!(status, 400);
    let (status, refused) =
        call(&emulator, "dynamodb", "UpdateItem", claim(sized, json!({ ":n": { "N": "1" } }))).await;
    assert_eq!(status, 200, "{refused}");

    let get = json!({ "TableName": made.table, "Key": key("a"), "ConsistentRead": true });
    let (_, got) = call(&emulator, "dynamodb", "GetItem", get).await;
    assert_eq!(got["Item"]["Claim"], json!({ "S": "second" }));
    assert_eq!(got["Item"]["SettledRules"], json!({ "SS": ["a"] }));
    let mut rules: Vec<_> = got["Item"]["Rules"]["SS"].as_array().unwrap().clone();
    rules.sort_by_key(Value::to_string);
    assert_eq!(rules, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_refuses_what_aws_refuses() {
    let (emulator, made) = started().await;
    let put = |item: Value| json!({ "TableName": made.table, "Item": item });
    let with = |name: &str, value: Value| {
        let mut item = key("a");
        item[name] = value;
        put(item)
    };
    let mut unused = put(key("a"));
    unused["ExpressionAttributeValues"] = json!({ ":x": { "S": "x" } });
    let reserved = json!({
        "TableName": made.table, "Key": key("a"), "UpdateExpression": "ADD Rules :r",
        "ExpressionAttributeValues": { ":r": { "SS": ["a"] } },
    });
    for (operation, input) in [
        ("PutItem", with("Rules", json!({ "SS": [] }))),
        ("PutItem", with("EventId", json!({ "S": "" }))),
        ("PutItem", with("Event", json!({ "S": "x".repeat(ITEM_TOO_LARGE) }))),
        ("PutItem", put(json!({ "EventId": { "S": "a" } }))),
        ("PutItem", unused),
        ("UpdateItem", reserved),
    ] {
        let (status, refused) = call(&emulator, "dynamodb", operation, input).await;
        assert_eq!((status, code(&refused)), (400, "ValidationException"), "{refused}");
    }
    let (_, missing) = call(&emulator, "dynamodb", "DescribeTable", json!({ "TableName": "other" })).await;
    assert_eq!(code(&missing), "ResourceNotFoundException");
    assert!(emulator.items(&made.table).await.unwrap().is_empty());
}

const ITEM_TOO_LARGE: usize = 401 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn the_index_by_day_is_queried_in_order() {
    let (emulator, made) = started().await;
    for (id, at) in [("a", "2026-03-01T12:00:00Z"), ("b", "2026-03-01T11:00:00Z"), ("c", "2026-03-02T11:00:00Z")] {
        let day = at.split('T').next().unwrap();
        let item = json!({ "EventId": { "S": id }, "Timestamp": { "S": at }, "Day": { "S": format!("{day}#0") } });
        call(&emulator, "dynamodb", "PutItem", json!({ "TableName": made.table, "Item": item })).await;
    }
    let query = json!({
        "TableName": made.table, "IndexName": "ByDay", "KeyConditionExpression": "#day = :day",
        "ExpressionAttributeNames": { "#day": "Day" },
        "ExpressionAttributeValues": { ":day": { "S": "2026-03-01#0" } },
    });
    let (_, found) = call(&emulator, "dynamodb", "Query", query).await;
    let ids: Vec<_> = found["Items"].as_array().unwrap().iter().map(|item| item["EventId"]["S"].clone()).collect();
    assert_eq!(ids, ["b", "a"]);
    let (_, table) = call(&emulator, "dynamodb", "DescribeTable", json!({ "TableName": made.table })).await;
    assert_eq!(table["Table"]["TableStatus"], "ACTIVE");
    assert_eq!(table["Table"]["KeySchema"][1], json!({ "AttributeName": "Timestamp", "KeyType": "RANGE" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_shows_what_it_projects_and_pages_end_by_count_or_size() {
    let (emulator, made) = started().await;
    for number in 0..5 {
        let item = json!({
            "EventId": { "S": format!("e-{number}") }, "Timestamp": { "S": format!("2026-03-01T12:00:0{number}Z") },
            "Day": { "S": "2026-03-01#0" }, "Actor": { "S": "alice" }, "Rules": { "SS": ["r"] },
            "Event": { "S": "x".repeat(300 * 1024) },
        });
        call(&emulator, "dynamodb", "PutItem", json!({ "TableName": made.table, "Item": item })).await;
    }
    let by_day = json!({
        "TableName": made.table, "IndexName": "ByDay", "KeyConditionExpression": "#day = :day", "Limit": 2,
        "ExpressionAttributeNames": { "#day": "Day" },
        "ExpressionAttributeValues": { ":day": { "S": "2026-03-01#0" } },
    });
    let scan = json!({ "TableName": made.table });
    let mut ruled = by_day.clone();
    ruled["FilterExpression"] = json!("contains(#rules, :rule)");
    ruled["ExpressionAttributeNames"]["#rules"] = json!("Rules");
    ruled["ExpressionAttributeValues"][":rule"] = json!({ "S": "r" });
    let mut unseen = by_day.clone();
    unseen["FilterExpression"] = json!("attribute_exists(Event)");
    // 1 MB is exceeded by the fourth item of 300 KB. A page that a limit ended has a next one; a filter changes nothing.
    for (operation, mut request, pages) in [
        ("Query", by_day.clone(), &[2, 2, 1][..]),
        ("Query", ruled, &[2, 2, 1]),
        ("Query", unseen, &[0, 0, 0]),
        ("Scan", scan, &[4, 1]),
    ] {
        let mut found = Vec::new();
        loop {
            let (status, page) = call(&emulator, "dynamodb", operation, request.clone()).await;
            assert_eq!(status, 200, "{page}");
            found.push(page["Items"].as_array().unwrap().clone());
            match page.get("LastEvaluatedKey") {
                Some(last) => request["ExclusiveStartKey"] = last.clone(),
                None => break,
            }
        }
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), pages, "{operation}");
        let all: Vec<_> = found.concat();
        let names = |item: &Value| item.as_object().unwrap().len();
        assert!(
            all.iter().all(|item| names(item) == if operation == "Scan" { 6 } else { 5 }),
            "the record is not in it"
        );
    }
    let mut consistent = by_day.clone();
    consistent["ConsistentRead"] = json!(true);
    let mut elsewhere = by_day;
    elsewhere["ExclusiveStartKey"] = json!({ "EventId": { "S": "e-1" }, "Timestamp": { "S": "2026-03-01T12:00:01Z" } });
    for request in [consistent, elsewhere] {
        assert_eq!(call(&emulator, "dynamodb", "Query", request).await.0, 400);
    }
    assert_eq!(emulator.items(&made.table).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_given_back_too_often_moves_to_the_dead_letter_queue() {
    let (emulator, made) = started_with(Names { max_receive_count: 2, ..Names::default() }).await;
    emulator.send_message(&made.queue_url, "poison").await.unwrap();
    for count in ["1", "2"] {
        let received = receive(&emulator, &made.queue_url, json!({})).await;
        assert_eq!(received[0]["Attributes"]["ApproximateReceiveCount"], count);
        assert!(received[0]["Attributes"]["SentTimestamp"].as_str().unwrap().parse::<u64>().is_ok());
        assert!(receive(&emulator, &made.queue_url, json!({})).await.is_empty());
        let back = json!({
            "QueueUrl": made.queue_url, "ReceiptHandle": received[0]["ReceiptHandle"], "VisibilityTimeout": 0,
        });
        assert_eq!(call(&emulator, "sqs", "ChangeMessageVisibility", back.clone()).await.0, 200);
        // It is no longer in flight.
        let (status, refused) = call(&emulator, "sqs", "ChangeMessageVisibility", back).await;
        assert_eq!((status, code(&refused)), (400, "MessageNotInflight"));
    }
    assert_eq!(emulator.queue_counts(&made.queue_url).unwrap().visible, 1);
    assert!(receive(&emulator, &made.queue_url, json!({})).await.is_empty());
    assert_eq!(emulator.queue_counts(&made.queue_url).unwrap().total(), 0);
    assert_eq!(emulator.receive_all(&made.dlq_url).unwrap(), ["poison"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_waits_for_a_message_and_hinders_nobody() {
    let (emulator, made) = started().await;
    let emulator = Arc::new(emulator);
    let polling = tokio::spawn({
        let (emulator, url) = (Arc::clone(&emulator), made.queue_url.clone());
        async move { receive(&emulator, &url, json!({ "WaitTimeSeconds": 20 })).await }
    });
    while emulator.count("sqs", "ReceiveMessage") == 0 {
        tokio::task::yield_now().await;
    }
    emulator.send_message(&made.inbox_url, "elsewhere").await.unwrap();
    emulator.send_message(&made.queue_url, "here").await.unwrap();
    assert_eq!(polling.await.unwrap()[0]["Body"], "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_deletes_tells_of_each_entry() {
    let (emulator, made) = started().await;
    emulator.send_message(&made.queue_url, "one").await.unwrap();
    let first = receive(&emulator, &made.queue_url, json!({})).await;
    let delete = json!({ "QueueUrl": made.queue_url, "Entries": [
        { "Id": "0", "ReceiptHandle": first[0]["ReceiptHandle"] },
        { "Id": "1", "ReceiptHandle": "not a handle" },
    ]});
    for _ in 0..2 {
        let (status, output) = call(&emulator, "sqs", "DeleteMessageBatch", delete.clone()).await;
        assert_eq!(status, 200);
        assert_eq!(output["Successful"], json!([{ "Id": "0" }]));
        assert_eq!(output["Failed"][0]["Code"], "ReceiptHandleIsInvalid");
    }
    assert_eq!(emulator.queue_counts(&made.queue_url).unwrap().total(), 0);
    let (_, missing) = call(&emulator, "sqs", "DeleteMessageBatch", json!({
        "QueueUrl": "http://127.0.0.1/1/other", "Entries": [{ "Id": "0", "ReceiptHandle": first[0]["ReceiptHandle"] }],
    }))
    .await;
    assert_eq!(code(&missing), "QueueDoesNotExist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_of_an_earlier_receive_deletes_nothing() {
    let (emulator, made) = started().await;
    emulator.send_message(&made.queue_url, "one").await.unwrap();
    let handle = |received: Vec<Value>| received[0]["ReceiptHandle"].clone();
    let first = handle(receive(&emulator, &made.queue_url, json!({ "VisibilityTimeout": 0 })).await);
    let second = handle(receive(&emulator, &made.queue_url, json!({})).await);
    for (handle, left) in [(first, 1), (second, 0)] {
        let delete = json!({ "QueueUrl": made.queue_url, "ReceiptHandle": handle });
        assert_eq!(call(&emulator, "sqs", "DeleteMessage", delete).await.0, 200);
        assert_eq!(emulator.queue_counts(&made.queue_url).unwrap().total(), left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_object_is_notified_with_its_key_form_encoded() {
    let (emulator, made) = started_with(Names { versioned: true, ..Names::default() }).await;
    emulator.notify(&made.bucket, "trailhound", "logs/", ".gz").await.unwrap();
    assert!(emulator.receive_all(&made.queue_url).unwrap()[0].contains("s3:TestEvent"));
    emulator.put_object(&made.bucket, "other/a.gz", "x").await.unwrap();
    emulator.put_object(&made.bucket, "logs/a b+c=d/ü.gz", "hello").await.unwrap();
    let bodies = emulator.receive_all(&made.queue_url).unwrap();
    assert_eq!(bodies.len(), 1);
    let event: Value = serde_json::from_str(&bodies[0]).unwrap();
    let record = &event["Records"][0];
    assert_eq!(record["eventVersion"], "2.1");
    assert_eq!(record["eventName"], "ObjectCreated:Put");
    assert_eq!(record["awsRegion"], "eu-central-1");
    assert_eq!(record["s3"]["bucket"]["arn"], "arn:aws:s3:::example-cloudtrail-logs");
    let object = &record["s3"]["object"];
    assert_eq!(object["key"], "logs/a+b%2Bc%3Dd/%C3%BC.gz");
    assert_eq!(object["size"], 5);
    assert_eq!(object["eTag"], "5d41402abc4b2a76b9719d911017c592");
    // The version of the event is still there after the key is written again.
    emulator.put_object(&made.bucket, "logs/a b+c=d/ü.gz", "other").await.unwrap();
    let path =
        format!("/{}/logs/a%20b%2Bc%3Dd/%C3%BC.gz?versionId={}", made.bucket, object["versionId"].as_str().unwrap());
    assert_eq!(http(&emulator, "GET", &path, &[], "").await.unwrap().2, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_to_a_queue_that_is_not_there_is_refused() {
    let (emulator, made) = started().await;
    let refused = emulator.notify(&made.bucket, "nowhere", "", "").await.unwrap_err().to_string();
    assert!(refused.contains("InvalidArgument"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_read_if_the_object_is_still_the_same() {
    let (emulator, made) = started().await;
    emulator.put_object(&made.bucket, "a", "0123456789").await.unwrap();
    let path = format!("/{}/a", made.bucket);
    let (_, head, _) = http(&emulator, "HEAD", &path, &[], "").await.unwrap();
    assert_eq!(head["content-length"], "10");
    let etag = head["etag"].to_str().unwrap().to_owned();
    let resume = [("range", "bytes=4-"), ("if-match", etag.as_str())];
    let (status, headers, body) = http(&emulator, "GET", &path, &resume, "").await.unwrap();
    assert_eq!((status, body.as_ref()), (206, b"456789".as_slice()));
    assert_eq!(headers["content-range"], "bytes 4-9/10");
    emulator.put_object(&made.bucket, "a", "other").await.unwrap();
    assert_eq!(http(&emulator, "GET", &path, &resume, "").await.unwrap().0, 412);
    assert_eq!(http(&emulator, "GET", &path, &[("range", "bytes=5-")], "").await.unwrap().0, 416);
    let (status, _, body) = http(&emulator, "GET", &format!("/{}/none", made.bucket), &[], "").await.unwrap();
    assert_eq!(status, 404);
    assert!(String::from_utf8_lossy(&body).contains("<Code>NoSuchKey</Code>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_upload_is_stored_without_its_frame() {
    let (emulator, made) = started().await;
    let body = "5;chunk-signature=00\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
    let headers = [("content-encoding", "aws-chunked"), ("x-amz-decoded-content-length", "11")];
    let path = format!("/{}/a", made.bucket);
    assert_eq!(http(&emulator, "PUT", &path, &headers, body).await.unwrap().0, 200);
    assert_eq!(http(&emulator, "GET", &path, &[], "").await.unwrap().2, "hello world");
}

async fn publish(emulator: &Emulator, topic: &str, entries: &[&[(&str, &str)]]) -> String {
    let mut parameters = vec![("TopicArn".to_owned(), topic.to_owned())];
    for (index, entry) in entries.iter().enumerate() {
        let prefix = format!("PublishBatchRequestEntries.member.{}", index + 1);
        parameters.push((format!("{prefix}.Id"), index.to_string()));
        parameters.extend(entry.iter().map(|(name, value)| (format!("{prefix}.{name}"), (*value).to_owned())));
    }
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    emulator.query("PublishBatch", &parameters).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_message_reaches_subscribed_queues_enveloped_or_raw() {
    let (emulator, made) = started().await;
    let raw = emulator.create_queue("raw", json!({})).await.unwrap();
    emulator.subscribe(&made.topic_arn, "raw", true).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    emulator.on_publish({
        let seen = Arc::clone(&seen);
        move |published| lock(&seen).push(published.subject.clone())
    });
    let entry: &[_] = &[
        ("Subject", "[HIGH] Root usage"),
        ("Message", r#"{"default":"{\"schema\":1}","email":"Ein Schlüssel & mehr"}"#),
        ("MessageStructure", "json"),
        ("MessageAttributes.entry.1.Name", "severity"),
        ("MessageAttributes.entry.1.Value.DataType", "String"),
        ("MessageAttributes.entry.1.Value.StringValue", "HIGH"),
    ];
    let long = "x".repeat(101);
    let answer = publish(&emulator, &made.topic_arn, &[entry, &[("Subject", &long), ("Message", "m")]]).await;
    assert!(answer.contains("<Failed><member><Id>1</Id><Code>InvalidParameter</Code>"), "{answer}");

    let published = emulator.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].texts["email"], "Ein Schlüssel & mehr");
    assert!(answer.contains(&published[0].message_id));
    assert_eq!(*lock(&seen), [Some("[HIGH] Root usage".to_owned())]);
    assert_eq!(emulator.receive_all(&raw).unwrap(), [r#"{"schema":1}"#]);
    let inbox = emulator.receive_all(&made.inbox_url).unwrap();
    let envelope: Value = serde_json::from_str(&inbox[0]).unwrap();
    assert_eq!(envelope["Type"], "Notification");
    assert_eq!(envelope["TopicArn"], made.topic_arn.as_str());
    assert_eq!(envelope["Message"], r#"{"schema":1}"#);
    assert_eq!(envelope["MessageAttributes"], json!({ "severity": { "Type": "String", "Value": "HIGH" } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_topic_takes_a_message_once() {
    let names = Names { topic: "alerts.fifo".into(), inbox: "inbox.fifo".into(), ..Names::default() };
    let (emulator, made) = started_with(names).await;
    let entry: &[_] = &[("Message", "m"), ("MessageGroupId", "g"), ("MessageDeduplicationId", "d")];
    let first = publish(&emulator, &made.topic_arn, &[entry]).await;
    let again = publish(&emulator, &made.topic_arn, &[entry]).await;
    assert_eq!(wire::text(&first, "MessageId"), wire::text(&again, "MessageId"));
    assert_eq!(emulator.receive_all(&made.inbox_url).unwrap().len(), 1);
    assert!(publish(&emulator, &made.topic_arn, &[&[("Message", "m")]]).await.contains("MessageGroupId"));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_happen_as_asked_before_or_after_the_call_takes_effect() {
    let (emulator, made) = started().await;
    let send = json!({ "QueueUrl": made.queue_url, "MessageBody": "m" });
    let arrived = || emulator.queue_counts(&made.queue_url).unwrap().total();
    let fault = |fault: Fault| {
        emulator.set_fault(Box::new(move |call| (call.operation == "SendMessage").then(|| fault.clone())));
    };
    fault(Fault::before(503, "ServiceUnavailable"));
    let (status, refused) = call(&emulator, "sqs", "SendMessage", send.clone()).await;
    assert_eq!((status, code(&refused), arrived()), (503, "ServiceUnavailable", 0));
    fault(Fault::LoseAnswer);
    let headers = [("x-amz-target", "AmazonSQS.SendMessage")];
    http(&emulator, "POST", "/", &headers, send.to_string()).await.unwrap_err();
    assert_eq!(arrived(), 1);
    emulator.clear_fault();
    assert_eq!(call(&emulator, "sqs", "SendMessage", send).await.0, 200);
    assert_eq!(arrived(), 2);

    emulator.put_object(&made.bucket, "a", "0123456789").await.unwrap();
    emulator.set_fault(Box::new(|call| (call.operation == "GetObject").then_some(Fault::CutBody { after: 4 })));
    let mut stream = tokio::net::TcpStream::connect(emulator.address).await.unwrap();
    let get = format!("GET /{}/a HTTP/1.1\r\nhost: s3\r\n\r\n", made.bucket);
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("content-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n0123"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sts_tells_who_calls() {
    let emulator = Emulator::start(Options::default()).unwrap();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = "Action=GetCallerIdentity&Version=2011-06-15";
    let (status, _, answer) = http(&emulator, "POST", "/", &form, body).await.unwrap();
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&answer).contains(ACCOUNT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_emulator_frees_its_port() {
    let emulator = Emulator::start(Options::default()).unwrap();
    let port = emulator.address.port();
    drop(emulator);
    Emulator::start(Options { port, ..Options::default() }).unwrap();
}
