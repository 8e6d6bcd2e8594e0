"""CloudTrail records of our own, with the fields that real ones have, and the log files that carry them."""

import gzip
import json
import random
import uuid
from datetime import UTC, datetime, timedelta

ACCOUNT = "111122223333"
REGION = "eu-central-1"
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def to_time(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Account:
    """A seeded source of records: the same seed tells the same story."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = START

    def uuid(self):
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def record(self, source, name, identity=None, **fields):
        """One record; `fields` replace or add members."""
        self.now += timedelta(seconds=self.random.randint(1, 20))
        record = {
            "eventVersion": "1.11",
            "userIdentity": identity or self.role("deploy", "ci-runner"),
            "eventTime": to_time(self.now),
            "eventSource": f"{source}.amazonaws.com",
            "eventName": name,
            "awsRegion": REGION,
            "sourceIPAddress": f"203.0.113.{self.random.randint(1, 254)}",
            "userAgent": "aws-cli/2.15.30 Python/3.11.8 Linux/6.1 exe/x86_64 prompt/off command/example",
            "requestParameters": None,
            "responseElements": None,
            "requestID": self.uuid(),
            "eventID": self.uuid(),
            "readOnly": name.startswith(("Describe", "List", "Get")),
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": ACCOUNT,
            "eventCategory": "Management",
            "tlsDetails": {
                "tlsVersion": "TLSv1.3",
                "cipherSuite": "TLS_AES_128_GCM_SHA256",
                "clientProvidedHostHeader": f"{source}.{REGION}.amazonaws.com",
            },
        }
        record.update(fields)
        return record

    def user(self, name):
        return {
            "type": "IAMUser",
            "principalId": "AIDACKCEVSQ6C2EXAMPLE",
            "arn": f"arn:aws:iam::{ACCOUNT}:user/{name}",
            "accountId": ACCOUNT,
            "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
            "userName": name,
        }

    def role(self, name, session):
        return {
            "type": "AssumedRole",
            "principalId": f"AROACKCEVSQ6C2EXAMPLE:{session}",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}",
            "accountId": ACCOUNT,
            "accessKeyId": "ASIAIOSFODNN7EXAMPLE",
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "principalId": "AROACKCEVSQ6C2EXAMPLE",
                    "arn": f"arn:aws:iam::{ACCOUNT}:role/{name}",
                    "accountId": ACCOUNT,
                    "userName": name,
                },
                "attributes": {"creationDate": to_time(START), "mfaAuthenticated": "false"},
            },
        }

    def root(self):
        return {
            "type": "Root",
            "principalId": ACCOUNT,
            "arn": f"arn:aws:iam::{ACCOUNT}:root",
            "accountId": ACCOUNT,
            "accessKeyId": "",
        }

    def detected(self):
        """A record that at least one rule of `rules.json` names."""
        tell = self.random.choice(
            [
                lambda: self.record("cloudtrail", "StopLogging", requestParameters={"name": "main"}),
                lambda: self.record(
                    "cloudtrail", "DeleteTrail", self.user("mallory"), errorCode="AccessDenied", errorMessage="denied"
                ),
                lambda: self.record(
                    "iam",
                    "CreateAccessKey",
                    self.user("mallory"),
                    requestParameters={"userName": "backup"},
                    responseElements={
                        "accessKey": {
                            "accessKeyId": "AKIAI44QH8DHBEXAMPLE",
                            "status": "Active",
                            "userName": "backup",
                            "createDate": "Mar 2, 2026 9:12:00 AM",
                        }
                    },
                ),
                lambda: self.record("iam", "CreateAccessKey", self.root()),
                lambda: self.record(
                    "ec2",
                    "AuthorizeSecurityGroupIngress",
                    requestParameters={
                        "groupId": "sg-0123456789abcdef0",
                        "ipPermissions": {
                            "items": [
                                {
                                    "ipProtocol": "tcp",
                                    "fromPort": 22,
                                    "toPort": 22,
                                    "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]},
                                }
                            ]
                        },
                    },
                    responseElements={"_return": True},
                ),
                lambda: self.record("ec2", "RunInstances", errorCode="Client.UnauthorizedOperation"),
                lambda: self.record(
                    "s3",
                    "PutBucketPolicy",
                    resources=[{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::example", "accountId": ACCOUNT}],
                ),
            ]
        )
        return tell()

    def noise(self):
        """A record that no rule of `rules.json` names; some miss one by a hair."""
        tell = self.random.choice(
            [
                lambda: self.record("ec2", "DescribeSecurityGroups"),
                lambda: self.record("ec2", "DescribeInstances"),
                lambda: self.record(
                    "s3", "GetObject", errorCode="NoSuchKey", eventCategory="Data", managementEvent=False
                ),
                lambda: self.record("iam", "ListAccessKeys", self.user("alice")),
                lambda: self.record("sts", "AssumeRole", {"type": "AWSService", "invokedBy": "ecs.amazonaws.com"}),
                # The name of a monitored event, in another service.
                lambda: self.record("kinesisanalytics", "StopLogging"),
                # The right name and service, another resource type.
                lambda: self.record("s3", "PutBucketPolicy", resources=[{"type": "AWS::S3::AccessPoint", "ARN": "x"}]),
                lambda: self.record("kms", "Decrypt", errorCode="ThrottlingException"),
            ]
        )
        return tell()

    def story(self, detected, noise):
        """So many detected and other records, shuffled."""
        records = [self.detected() for _ in range(detected)] + [self.noise() for _ in range(noise)]
        self.random.shuffle(records)
        return records

    def key(self, prefix="", account=ACCOUNT, kind="CloudTrail", extension=".json.gz"):
        """The key under which CloudTrail would deliver a log file now."""
        unique = "".join(self.random.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=16))
        return (
            f"{prefix}AWSLogs/{account}/{kind}/{REGION}/{self.now:%Y/%m/%d}/"
            f"{account}_{kind}_{REGION}_{self.now:%Y%m%dT%H%MZ}_{unique}{extension}"
        )


def log_text(records):
    return json.dumps({"Records": records}, separators=(",", ":")).encode()


def log_file(records):
    """A log file as CloudTrail writes it."""
    return gzip.compress(log_text(records), mtime=0)
