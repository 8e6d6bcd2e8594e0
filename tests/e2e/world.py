"""Fresh AWS resources for one scenario, the daemon beside them, and what can be seen of both from outside."""

import json
import os
import pty
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from boto3.dynamodb.types import TypeDeserializer
from botocore.config import Config
from emulators import ACCOUNT, REGION, base_environment, free_port
from records import log_file
from waiting import wait_until

HERE = Path(__file__).parent
RULES = HERE / "rules.json"
DEFAULT_RULES = HERE.parents[1] / "monitored_events.json"


def clients(endpoint):
    session = boto3.session.Session("AKIAIOSFODNN7EXAMPLE", "example-secret-key", region_name=REGION)
    config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}, proxies={})
    return {
        name: session.client(name, endpoint_url=endpoint, config=config)
        for name in ("s3", "sqs", "sns", "dynamodb", "cloudtrail", "kms")
    }


class World:
    """A bucket that notifies a queue with a dead-letter queue, a topic with an inbox subscribed to it, and a table."""

    def __init__(
        self, name, emulator, binary, workdir, visibility=30, max_receives=10, notify=True, fifo=False, topic=True
    ):
        self.name = name
        self.kind = emulator.kind
        self.endpoint = emulator.endpoint
        self.binary = binary
        self.workdir = Path(workdir) / name
        self.workdir.mkdir(parents=True)
        self.daemons = []
        self.seen_alerts = {}
        aws = clients(emulator.endpoint)
        self.s3, self.sqs, self.sns, self.dynamodb = (aws[n] for n in ("s3", "sqs", "sns", "dynamodb"))

        self.dead_letters = self.make_queue(f"{name}-dead-letters", {})
        redrive = {"deadLetterTargetArn": self.queue_arn(self.dead_letters), "maxReceiveCount": max_receives}
        self.queue = self.make_queue(
            f"{name}-queue", {"VisibilityTimeout": str(visibility), "RedrivePolicy": json.dumps(redrive)}
        )
        self.bucket = self.make_bucket(f"{name}-logs", notify)
        suffix = ".fifo" if fifo else ""
        self.inbox = self.make_queue(f"{name}-inbox{suffix}", {"FifoQueue": "true"} if fifo else {})
        self.topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}-alerts{suffix}"
        if topic:
            self.make_topic()
        self.table = self.make_table(f"{name}-events")

    def make_queue(self, name, attributes):
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        allow = {
            "Effect": "Allow",
            "Principal": {"Service": ["s3.amazonaws.com", "sns.amazonaws.com"]},
            "Action": "sqs:SendMessage",
            "Resource": self.queue_arn(url),
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return url

    def queue_arn(self, url):
        return self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def make_bucket(self, name, notify):
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        if notify:
            # This makes S3 send its test event.
            to_queue = {"QueueArn": self.queue_arn(self.queue), "Events": ["s3:ObjectCreated:*"]}
            self.s3.put_bucket_notification_configuration(
                Bucket=name, NotificationConfiguration={"QueueConfigurations": [to_queue]}
            )
        return name

    def make_topic(self):
        name = self.topic.rsplit(":", 1)[1]
        attributes = {"FifoTopic": "true"} if name.endswith(".fifo") else {}
        arn = self.sns.create_topic(Name=name, Attributes=attributes)["TopicArn"]
        assert arn == self.topic, arn
        self.sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=self.queue_arn(self.inbox))

    def make_table(self, name):
        keys = [{"AttributeName": "EventId", "KeyType": "HASH"}, {"AttributeName": "Timestamp", "KeyType": "RANGE"}]
        by_day = {
            "IndexName": "ByDay",
            "KeySchema": [
                {"AttributeName": "Day", "KeyType": "HASH"},
                {"AttributeName": "Timestamp", "KeyType": "RANGE"},
            ],
            "Projection": {
                "ProjectionType": "INCLUDE",
                "NonKeyAttributes": ["Severity", "Rules", "EventName", "Actor"],
            },
        }
        names = ("EventId", "Timestamp", "Day")
        self.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names],
            KeySchema=keys,
            GlobalSecondaryIndexes=[by_day],
        )
        ttl = {"Enabled": True, "AttributeName": "ExpiresAt"}
        self.dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=ttl)
        return name

    def put(self, key, body):
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=body).get("VersionId")

    def put_log(self, account, records, **where):
        """Uploads records as a log file; S3 notifies the queue where the bucket does."""
        key = account.key(**where)
        self.put(key, log_file(records))
        return key

    def send(self, body):
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def counts(self, url):
        """Visible and in-flight messages."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return int(got[names[0]]), int(got[names[1]])

    def wait_until_empty(self, seconds=90):
        wait_until(lambda: self.counts(self.queue) == (0, 0), f"{self.name}: an empty queue", seconds)

    def items(self):
        """Every stored item, as Python values."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        read = TypeDeserializer().deserialize
        return [{name: read(value) for name, value in item.items()} for page in pages for item in page["Items"]]

    def item_count(self):
        """How many items there are."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.table, Select="COUNT", ConsistentRead=True)
        return sum(page["Count"] for page in pages)

    def drain(self, url):
        """Takes every visible message off a queue."""
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0, AttributeNames=["All"]
            )
            if not (messages := answer.get("Messages", [])):
                return
            yield from messages
            entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            self.sqs.delete_message_batch(QueueUrl=url, Entries=entries)

    def alerts(self):
        """Every delivery from the topic so far, oldest first: the envelope, with its document under `document`."""
        for message in self.drain(self.inbox):
            envelope = json.loads(message["Body"])
            envelope["attributes"] = message["Attributes"]
            envelope["document"] = json.loads(envelope["Message"])
            self.seen_alerts[message["MessageId"]] = envelope
        return list(self.seen_alerts.values())

    def dead(self):
        """The bodies of the messages in the dead-letter queue, which stay there."""
        bodies = []
        while True:
            answer = self.sqs.receive_message(QueueUrl=self.dead_letters, MaxNumberOfMessages=10, VisibilityTimeout=600)
            if not (messages := answer.get("Messages", [])):
                return bodies
            bodies += [message["Body"] for message in messages]

    def dead_count(self):
        return sum(self.counts(self.dead_letters))

    def daemon(self, **settings):
        """Starts the daemon on these resources; `settings` are further environment variables."""
        daemon = Daemon(self, settings)
        self.daemons.append(daemon)
        return daemon

    def tool_environment(self):
        """What the commands beside the daemon need."""
        return base_environment() | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "SQS_QUEUE_URL": self.queue,
            "SNS_TOPIC_ARN": self.topic,
            "DYNAMODB_TABLE": self.table,
            "SECURITY_EVENTS_PATH": str(RULES),
        }

    def tool(self, *arguments, seconds=60):
        """Runs a command beside the daemon."""
        return subprocess.run(
            [self.binary, *arguments],
            env=self.tool_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def typed(self, text, *arguments, seconds=60):
        """Runs a command at whose terminal this text is typed; its exit status and what the terminal shows."""
        ours, its = pty.openpty()
        command = [self.binary, *arguments]
        with subprocess.Popen(command, env=self.tool_environment(), stdin=its, stdout=its, stderr=its) as process:
            os.close(its)
            os.write(ours, text.encode())
            shown = b""
            try:
                while part := os.read(ours, 4096):
                    shown += part
            except OSError:
                pass  # Nobody has the terminal open any more.
            os.close(ours)
            return process.wait(timeout=seconds), shown.decode(errors="replace")

    def close(self):
        for daemon in self.daemons:
            daemon.kill()


class Daemon:
    """A running `trailhound run`."""

    def __init__(self, world, settings):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = world.workdir / f"daemon-{len(world.daemons)}.log"
        self.environment = (
            base_environment()
            | {
                "AWS_ENDPOINT_URL": world.endpoint,
                "SQS_QUEUE_URL": world.queue,
                "SNS_TOPIC_ARN": world.topic,
                "DYNAMODB_TABLE": world.table,
                "SECURITY_EVENTS_PATH": str(RULES),
                "LOG_LEVEL": "INFO",
                "TRAILHOUND_HTTP__LISTEN": f"127.0.0.1:{self.port}",
                "TRAILHOUND_QUEUE__WAIT": "1s",
                "TRAILHOUND_SHUTDOWN__DEADLINE": "20s",
            }
            | settings
        )
        self.binary = world.binary
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "run"],
                env=self.environment,
                cwd=world.workdir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *arguments):
        """Runs another command of the binary with the daemon's settings."""
        return subprocess.run(
            [self.binary, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def get(self, path):
        """Status and body of an HTTP endpoint."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def probe(self, path):
        """Status of a probe; 0 while nobody listens."""
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}"
        try:
            return self.get(path)[0]
        except OSError:
            return 0

    def wait_ready(self, seconds=60):
        wait_until(lambda: self.probe("/readyz") == 200, "the daemon to be ready", seconds)
        return self

    def metric(self, name, **labels):
        """The sum of a metric's samples that bear these labels; 0 if there are none."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] != f"trailhound_{name}":
                continue
            if all(f'{label}="{wanted}"' in head for label, wanted in labels.items()):
                total += float(value)
        return total

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self, seconds=30):
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds):
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon still runs after {seconds} s") from None

    def kill(self):
        """SIGKILL, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
