"""What should come out, computed without trailhound: the simple rule fields, and which message means what."""

import json
import re
from datetime import UTC, datetime

EPOCH = "1970-01-01T00:00:00Z"
SEVERITIES = ["LOW", "MEDIUM", "HIGH", "CRITICAL"]


def load_rules(path):
    """The rules of a file in any of its three forms: a list of dictionaries."""
    document = json.loads(path.read_text())
    if isinstance(document, dict) and "monitoredEvents" in document:
        return [{"id": name, "severity": "MEDIUM", "eventName": name} for name in document["monitoredEvents"]]
    return document["events"] if isinstance(document, dict) else document


def like(pattern, text):
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def field_values(record, field):
    """The strings that a rule field is compared with; nothing for what is absent, null or no string."""
    if field == "userIdentityType":
        identity = record.get("userIdentity")
        values = [identity.get("type")] if isinstance(identity, dict) else []
    elif field == "resourceType":
        resources = record.get("resources")
        values = [r.get("type") for r in resources if isinstance(r, dict)] if isinstance(resources, list) else []
    else:
        values = [record.get(field)]
    return [value for value in values if isinstance(value, str)]


CONDITIONS = ("eventName", "eventSource", "userIdentityType", "errorCode", "errorMessage", "resourceType")


def is_plain(rule):
    """Whether nothing but the simple fields decides about a rule."""
    return not rule.keys() & {"pattern", "unless", "mode"}


def matching_rules(record, rules):
    """The ids of the rules that match a record."""
    found = set()
    for rule in rules:
        conditions = [(field, rule[field]) for field in CONDITIONS if field in rule]
        wanted = ((field, [want] if isinstance(want, str) else want) for field, want in conditions)
        if all(any(like(w, value) for w in want for value in field_values(record, field)) for field, want in wanted):
            found.add(rule["id"])
    return found


def detections(records, rules):
    """Event id to rule ids, for the records that match any."""
    matches = ((record["eventID"], matching_rules(record, rules)) for record in records)
    return {event: found for event, found in matches if found}


def highest(rule_ids, rules):
    return max((rule["severity"] for rule in rules if rule["id"] in rule_ids), key=SEVERITIES.index)


def canonical(record):
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def usable_id(record):
    """Whether a record's own id names its item; otherwise a hash of the record does."""
    own = record.get("eventID")
    return isinstance(own, str) and 0 < len(own.encode()) <= 1024 and not own.startswith("trailhound#")


def event_timestamp(record):
    """The sort key of a record's item: its time, or the epoch where it tells none."""
    try:
        moment = datetime.fromisoformat(record["eventTime"].replace("Z", "+00:00"))
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (KeyError, AttributeError, ValueError):
        return EPOCH


LOG_NAME = re.compile(r"(^|/)[^/_]+_CloudTrail(-Insight)?_[^/_]+_\d{8}T\d{4}Z_[^/]+$")


def reads_objects(body):
    """Whether a message body names log objects to read."""
    return any(LOG_NAME.search(key) for key in named_keys(body))


def named_keys(body):
    document = parsed(body)
    if not isinstance(document, dict):
        return []
    if document.get("Type") == "Notification" and isinstance(document.get("Message"), str):
        return named_keys(document["Message"])
    if "s3ObjectKey" in document:
        return document["s3ObjectKey"]
    if document.get("source") == "aws.s3":
        return [document["detail"]["object"]["key"]] if document.get("detail-type") == "Object Created" else []
    return [
        record["s3"]["object"]["key"]
        for record in document.get("Records", [])
        if "s3" in record and record["eventName"].removeprefix("s3:").startswith("ObjectCreated:")
    ]


RECORD_FIELDS = ("eventVersion", "eventSource", "eventName", "eventTime")


def inline_record(body):
    """The record that travels in a message, if one does: EventBridge says so, or its `detail` is plainly a record."""
    document = parsed(body)
    detail = document.get("detail") if isinstance(document, dict) else None
    if not isinstance(detail, dict):
        return None
    said = str(document.get("detail-type", "")).endswith("via CloudTrail")
    return detail if said or all(detail.get(name) for name in RECORD_FIELDS) else None


def is_known(body):
    """Whether design and documents name this shape: what is not known belongs in the dead-letter queue."""
    document = parsed(body)
    if isinstance(document, str):
        return document.strip().strip('"') == "CloudTrail validation message."
    if not isinstance(document, dict):
        return False
    if document.get("Type") == "Notification":
        return isinstance(document.get("Message"), str) and is_known(document["Message"])
    if document.get("Type") in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        return True
    if document.get("Event") == "s3:TestEvent" or "s3ObjectKey" in document or document.get("source") == "aws.s3":
        return True
    if inline_record(body) is not None:
        return True
    records = document.get("Records")
    return isinstance(records, list) and all(isinstance(r, dict) and "s3" in r for r in records)


def parsed(body):
    """The JSON value of a body; a body that is no JSON stands for itself."""
    try:
        return json.loads(body)
    except ValueError:
        return body
