"""The formats of alerts, each against its published schema, and the commands in them against the AWS CLI's models."""

import json
import re
import shlex
from datetime import timedelta
from pathlib import Path

import botocore.session
from botocore import xform_name
from checks import check, equal
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from records import ACCOUNT, Account
from scenarios import scenario
from world import DEFAULT_RULES

FIXTURES = Path(__file__).parents[1] / "fixtures"
HOSTILE = "'; rm -rf ~ #$(id)`id`\n<!channel> *x* https://evil.example/?a=b&c \u202e"


def kinds(account):
    """Records of many kinds, each of which some default rule detects."""
    root = {"type": "Root", "principalId": ACCOUNT, "arn": f"arn:aws:iam::{ACCOUNT}:root", "accountId": ACCOUNT}
    bucket = {"bucketName": "customer-data", "bucketPolicy": {"Version": "2012-10-17"}}
    failed = {"errorMessage": "Failed authentication", "responseElements": {"ConsoleLogin": "Failure"}}
    owned = [{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::customer-data", "accountId": ACCOUNT}]
    return [
        account.record("cloudtrail", "StopLogging", requestParameters={"name": "management-events"}),
        account.record("iam", "CreateAccessKey", account.user("alice"), requestParameters={"userName": "bob"}),
        account.record("iam", "CreateAccessKey", account.user("eve"), requestParameters={"userName": HOSTILE}),
        account.record("iam", "AttachUserPolicy", requestParameters={"userName": "bob", "policyArn": f"arn:aws:iam::{ACCOUNT}:policy/a"}),
        account.record("iam", "UpdateAssumeRolePolicy", requestParameters={"roleName": "deploy"}),
        account.record("signin", "ConsoleLogin", root, responseElements={"ConsoleLogin": "Success"}, eventType="AwsConsoleSignIn"),
        account.record("signin", "ConsoleLogin", account.user("carol"), eventType="AwsConsoleSignIn", **failed),
        account.record("kms", "ScheduleKeyDeletion", requestParameters={"keyId": account.uuid()}),
        account.record("s3", "PutBucketPolicy", requestParameters=bucket, resources=owned),
        account.record("ec2", "AuthorizeSecurityGroupIngress", requestParameters={"groupId": "sg-0123456789abcdef0"}, errorCode="Client.UnauthorizedOperation"),
        account.record("ec2", "DescribeInstances", account.user("mallory"), errorCode="AccessDenied", errorMessage=HOSTILE, userAgent=HOSTILE),
        account.record("config", "StopConfigurationRecorder", requestParameters={"configurationRecorderName": "default"}),
        account.record("organizations", "LeaveOrganization"),
        account.record("guardduty", "DeleteDetector", requestParameters={"detectorId": "12abc34d567e8fa901bc2d34e56789f0"}),
        account.record("rds", "DeleteDBInstance", requestParameters={"dBInstanceIdentifier": "orders", "skipFinalSnapshot": True}),
        # Too large to be told whole.
        account.record("cloudtrail", "DeleteTrail", requestParameters={"name": "a", "filler": '"' * 300_000}),
    ]  # fmt: skip


def alerts_of(world, account, **settings):
    """The documents that subscribers get, of single events and of a group's tenth."""
    rules = world.workdir / "rules.json"
    rules.write_text(DEFAULT_RULES.read_text())
    daemon = world.daemon(SECURITY_EVENTS_PATH=str(rules), **settings).wait_ready()
    records = kinds(account)
    records += [account.record("iam", "CreateUser", requestParameters={"userName": f"user-{n}"}) for n in range(12)]
    world.put_log(account, records)
    world.wait_until_empty()
    equal(world.dead_count(), 0, "dead letters")
    check(daemon.metric("alerts_published_total") >= 16, "an alert for each kind")
    documents = [alert["document"] for alert in world.alerts()]
    world.seen_alerts.clear()
    equal(daemon.stop(), 0, "exit status")
    return documents


def errors(schema, documents):
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for document in documents
        for error in validator.iter_errors(document)
    ]


def runs(command, session=botocore.session.get_session()):
    """Whether the AWS CLI has this operation and these options, and misses none."""
    words = shlex.split(command)
    if words[0] != "aws" or words[1:3] == ["s3", "cp"]:
        return words[0] in ("aws", "trailhound")
    service = {"configservice": "config", "s3api": "s3"}.get(words[1], words[1])
    model = session.get_service_model(service)
    operation = next(it for it in model.operation_names if xform_name(it, "-") == words[2])
    shape = model.operation_model(operation).input_shape
    members = {xform_name(it, "-"): it for it in (shape.members if shape else {})}
    options = [word[2:] for word in words[3:] if word.startswith("--")]
    known = {*members, "region", "query", "output"}
    given = {members[it] for it in options if it in members}
    return set(options) <= known and set(shape.required_members if shape else []) <= given


@scenario()
def formats(world, seed):
    """Alerts as OCSF findings and as custom notifications for chat are what the published schemas ask for."""
    published = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
    finding = published.get_class_schema(class_name=published.lookup_class_name_from_uid(2004), profiles=["cloud"])
    documents = alerts_of(world, Account(seed), TRAILHOUND_ALERTING__FORMAT="ocsf")
    equal(errors(finding, documents), [], "findings against OCSF's own schema")
    equal(errors(json.loads((FIXTURES / "schemas" / "ocsf.json").read_text()), documents), [], "findings, strictly")
    check({it["activity_name"] for it in documents} == {"Create", "Update"}, "a group's tenth event updates its finding")
    check(any(it["unmapped"]["truncated"] for it in documents), "a record that does not fit")
    # The check can fail.
    check(errors(finding, [{**documents[0], "severity_id": 7}]), "a wrong severity is noticed")
    check(errors(finding, [{**documents[0], "actor": {}}]), "an attribute that the class lacks is noticed")

    chatbot = json.loads((FIXTURES / "schemas" / "chatbot.json").read_text())
    # Another day: the groups of this one are open already.
    account = Account(seed + 1_000)
    account.now += timedelta(days=2)
    documents = alerts_of(world, account, TRAILHOUND_ALERTING__FORMAT="chatbot")
    equal(errors(chatbot, documents), [], "custom notifications")
    check(errors(chatbot, [{**documents[0], "version": "2.0"}]), "a wrong version is noticed")
    texts = [text for it in documents for text in (it["content"]["title"], it["content"]["description"])]
    check(not any(sign in text for text in texts for sign in ("<!", "https://evil", "\u202e")), "nothing of others is live")
    steps = [step for it in documents for step in it["content"]["nextSteps"]]
    commands = [step[1:-1] for step in steps if re.fullmatch(r"`.*`", step)]
    equal([it for it in commands if not runs(it)], [], "commands that the AWS CLI does not take")
    check(not runs("aws iam get-user --name x") and not runs("aws kms describe-key"), "a wrong command is noticed")
    threads = [it["metadata"]["threadId"] for it in documents]
    check(len(set(threads)) < len(threads), "a group's alerts share a thread")
    return f"{len(commands)} commands"
