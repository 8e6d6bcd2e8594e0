"""What must hold of items and alerts, whatever the scenario."""

import json
import re
from datetime import UTC, datetime

from evaluate import detections, highest, load_rules
from waiting import wait_until
from world import RULES

RETENTION_DAYS = 90


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def same_keys(got, wanted, what):
    """Two sets are equal; says which elements are not."""
    lost, extra = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
    check(not lost and not extra, f"{what}: {len(lost)} missing {lost[:3]}, {len(extra)} unexpected {extra[:3]}")


def parse_time(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def check_delivered(world, records, rules=None, repeats=False):
    """Every detected event of `records` has one item, settled, and one alert; with `repeats`, alerts may come again
    under the same id. Nothing else was stored or told."""
    rules = rules or load_rules(RULES)
    by_id = {record["eventID"]: record for record in records}
    wanted = detections(by_id.values(), rules)

    items = {item["EventId"]: item for item in world.items()}
    equal(world.item_count(), len(items), "items with distinct event ids")
    same_keys(items, wanted, "stored events")
    for event_id, rule_ids in wanted.items():
        check_item(items[event_id], by_id[event_id], rule_ids, rules)

    # Deliveries from SNS may arrive a moment after the answer to the publish.
    wait_until(lambda: {a["document"]["event_id"] for a in world.alerts()} >= set(wanted), "an alert for each event")
    alerts = world.alerts()
    same_keys({a["document"]["event_id"] for a in alerts}, wanted, "alerted events")
    for event_id, rule_ids in wanted.items():
        told = [a for a in alerts if a["document"]["event_id"] == event_id]
        ids = {a["document"]["alert_id"] for a in told}
        equal(ids, items[event_id]["AlertIds"], f"alert ids of {event_id}")
        equal(len(ids), 1, f"distinct alerts of {event_id}")
        if not repeats:
            equal(len(told), 1, f"deliveries for {event_id}")
        check(items[event_id]["SnsMessageId"] in {a["MessageId"] for a in told}, f"SnsMessageId of {event_id}")
        for alert in told:
            check_alert(alert, by_id[event_id], rule_ids, rules)


def check_item(item, record, rule_ids, rules):
    """The attributes of design section 5."""
    event_id = record["eventID"]
    equal(item["Rules"], rule_ids, f"Rules of {event_id}")
    equal(item.get("SettledRules"), rule_ids, f"SettledRules of {event_id}")
    equal(item["Severity"], highest(rule_ids, rules), f"Severity of {event_id}")
    told = {
        "Timestamp": record["eventTime"],
        "EventName": record["eventName"],
        "EventSource": record["eventSource"],
        "AwsRegion": record["awsRegion"],
        "AccountId": record["recipientAccountId"],
        "UserIdentityType": record["userIdentity"].get("type"),
        "SourceIpAddress": record["sourceIPAddress"],
        "UserAgent": record["userAgent"],
        "ErrorCode": record.get("errorCode"),
    }
    for name, value in told.items():
        equal(item.get(name), value, f"{name} of {event_id}")
    equal(json.loads(item["Event"]), record, f"Event of {event_id}")
    check(item["Actor"], f"Actor of {event_id}")
    check(item["Day"].startswith(record["eventTime"][:10]), f"Day of {event_id}: {item['Day']}")
    check(re.fullmatch("[0-9a-f]{16}", item["RuleSetHash"]), f"RuleSetHash of {event_id}")
    empty = [name for name, value in item.items() if value in ("", None) or value == set()]
    equal(empty, [], f"empty attributes of {event_id}")
    detected, alerted = parse_time(item["DetectedAt"]), parse_time(item["AlertedAt"])
    check(detected <= alerted, f"{event_id} was alerted before it was detected")
    age = (datetime.now(UTC) - detected).total_seconds()
    check(-1 <= age <= 900, f"DetectedAt of {event_id} is {item['DetectedAt']}")
    kept = int(item["ExpiresAt"]) - detected.timestamp()
    check(abs(kept - RETENTION_DAYS * 86400) <= 1, f"ExpiresAt of {event_id} is {kept} s after DetectedAt")


def check_alert(alert, record, rule_ids, rules):
    """The JSON document, the subject and the attributes of an alert."""
    event_id, document = record["eventID"], alert["document"]
    told = {
        "schema": "trailhound.alert/1",
        "event_id": event_id,
        "event_time": record["eventTime"],
        "severity": highest(rule_ids, rules),
        "event_name": record["eventName"],
        "event_source": record["eventSource"],
        "account_id": record["recipientAccountId"],
        "region": record["awsRegion"],
        "source_ip": record["sourceIPAddress"],
        "user_agent": record["userAgent"],
        "error_code": record.get("errorCode"),
        "event": record,
        "truncated": False,
    }
    for name, value in told.items():
        check(name in document, f"{name} is missing in the alert of {event_id}")
        equal(document[name], value, f"{name} in the alert of {event_id}")
    check(re.fullmatch("[0-9a-f]{32}", document["alert_id"]), f"alert_id {document['alert_id']}")
    check(document["actor"] and document["detected_at"], f"actor and detected_at in the alert of {event_id}")
    denied = re.search("AccessDenied|Unauthorized", record.get("errorCode") or "")
    equal(document["outcome"], "denied" if denied else "success", f"outcome in the alert of {event_id}")
    known = {rule["id"]: rule for rule in rules}
    wanted = {(i, known[i]["severity"], known[i]["description"]) for i in rule_ids}
    equal({(r["id"], r["severity"], r["description"]) for r in document["rules"]}, wanted, f"rules told of {event_id}")
    check({"bucket", "key", "version", "index"} <= set(document["source"]), f"source in the alert of {event_id}")
    subject = alert["Subject"]
    check(re.fullmatch("[ -~]{1,100}", subject), f"subject {subject!r}")
    attributes = alert["MessageAttributes"]
    equal(attributes["severity"]["Value"], told["severity"], f"attribute severity of {event_id}")
    equal(set(json.loads(attributes["rule_ids"]["Value"])), rule_ids, f"attribute rule_ids of {event_id}")
    for name in ("event_name", "event_source", "account_id", "region"):
        equal(attributes[name]["Value"], told[name], f"attribute {name} of {event_id}")
