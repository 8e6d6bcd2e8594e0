"""The message bodies of everything that can stand on the queue, with the fields that the real ones have."""

import json
import urllib.parse

from records import ACCOUNT, REGION

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:cloudtrail-objects"


def s3_record(bucket, key, event="ObjectCreated:Put", version=None, size=2048):
    entry = {"key": urllib.parse.quote_plus(key, safe="/"), "size": size, "eTag": "d41d8cd98f00b204e9800998ecf8427e"}
    if version:
        entry["versionId"] = version
    entry["sequencer"] = "0065E2F3A4B5C6D7E8"
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": "2026-03-02T09:15:04.123Z",
        "eventName": event,
        "userIdentity": {"principalId": "AWS:AROACKCEVSQ6C2EXAMPLE:regionalDeliverySession"},
        "requestParameters": {"sourceIPAddress": "192.0.2.10"},
        "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLE/abcdefghijklmnop"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "cloudtrail-logs",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "A3NL1KOZZKEXAMPLE"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": entry,
        },
    }


def s3(*records):
    return json.dumps({"Records": list(records)})


def in_sns(message, kind="Notification"):
    return json.dumps(
        {
            "Type": kind,
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": TOPIC,
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2026-03-02T09:15:05.000Z",
            "SignatureVersion": "1",
            "Signature": "EXAMPLE==",
            "SigningCertURL": f"https://sns.{REGION}.amazonaws.com/SimpleNotificationService-example.pem",
            "UnsubscribeURL": f"https://sns.{REGION}.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={TOPIC}:example",
        }
    )


def subscription(url):
    body = json.loads(in_sns("You have chosen to subscribe to the topic.", kind="SubscriptionConfirmation"))
    return json.dumps(body | {"Token": "2336412f37example", "SubscribeURL": url})


def s3_test_event(bucket):
    return json.dumps(
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": "2026-03-02T09:00:00.000Z",
            "Bucket": bucket,
            "RequestId": "EXAMPLE123456789",
            "HostId": "EXAMPLE/abcdefghijklmnop",
        }
    )


def cloudtrail_sns(bucket, keys):
    """What CloudTrail itself publishes, as it stands in the SNS envelope's `Message`."""
    return json.dumps({"s3Bucket": bucket, "s3ObjectKey": keys})


VALIDATION = "CloudTrail validation message."


def eventbridge(source, detail_type, detail):
    return json.dumps(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT,
            "time": "2026-03-02T09:15:04Z",
            "region": REGION,
            "resources": [],
            "detail": detail,
        }
    )


def eventbridge_object(bucket, key, detail_type="Object Created"):
    return eventbridge(
        "aws.s3",
        detail_type,
        {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {"key": key, "size": 2048, "etag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0065E2F3A4"},
            "request-id": "EXAMPLE123456789",
            "requester": "cloudtrail.amazonaws.com",
            "source-ip-address": "192.0.2.10",
            "reason": "PutObject",
        },
    )


def via_cloudtrail(record, detail_type="AWS API Call via CloudTrail"):
    source = f"aws.{record['eventSource'].split('.')[0]}" if "eventSource" in record else "aws.cloudtrail"
    return eventbridge(source, detail_type, record)
