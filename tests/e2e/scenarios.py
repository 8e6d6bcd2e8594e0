"""What is tried, each in a world of its own. The docstring of a scenario is what it claims."""

import gzip
import json
import os
import random
import re
import shutil
import signal
import time
from datetime import timedelta

import shapes
from checks import check, check_delivered, equal, same_keys
from evaluate import (
    EPOCH,
    canonical,
    event_timestamp,
    inline_record,
    is_known,
    is_plain,
    load_rules,
    matching_rules,
    reads_objects,
    usable_id,
)
from records import START, Account, log_file, log_text
from waiting import wait_until
from world import DEFAULT_RULES, RULES, clients

SCENARIOS = []


def scenario(**options):
    """Registers a scenario; `options` go to its world."""

    def register(function):
        SCENARIOS.append((function.__name__.replace("_", "-"), function, options))
        return function

    return register


@scenario()
def delivery(world, seed):
    """S3 put, notification, SQS: one item and one alert for each detected event, every message deleted."""
    account = Account(seed)
    early = account.story(detected=6, noise=20)
    world.put_log(account, early)
    daemon = world.daemon().wait_ready()
    records = list(early)
    for prefix in ("", "org/o-exampleorgid/", "team logs+audit%20/", "prüfung/"):
        part = account.story(detected=5, noise=30)
        world.put_log(account, part, prefix=prefix)
        records += part
    # Everything that may carry a log: several gzip members, no compression, nothing inside, no match inside.
    part = account.story(detected=8, noise=30)
    half = len(log_text(part)) // 2
    world.put(account.key(), gzip.compress(log_text(part)[:half]) + gzip.compress(log_text(part)[half:]))
    records += part
    part = account.story(detected=3, noise=3)
    world.put(account.key(extension=".json"), log_text(part))
    records += part
    world.put_log(account, [])
    world.put_log(account, [account.noise() for _ in range(50)])
    # A file of many megabytes.
    part = account.story(detected=40, noise=8000)
    world.put_log(account, part)
    records += part

    world.wait_until_empty()
    check_delivered(world, records)
    equal(daemon.metric("messages_deleted_total"), daemon.metric("messages_received_total"), "messages deleted")
    equal(daemon.metric("messages_ignored_total", reason="s3_test_event"), 1, "test events")
    equal(daemon.metric("records_total", outcome="evaluated"), len(records) + 50, "records evaluated")
    equal(daemon.metric("alerts_published_total"), len(world.alerts()), "alerts published")
    equal(daemon.metric("duplicates_suppressed_total"), 0, "duplicates")
    equal(world.dead_count(), 0, "dead letters")
    sources = {a["document"]["source"]["key"] for a in world.alerts()}
    check(any(key.startswith("team logs+audit%20/AWSLogs") for key in sources), f"decoded keys: {sorted(sources)[:3]}")
    if world.kind == "ministack":
        # moto's notifications carry no version.
        check(all(a["document"]["source"]["version"] for a in world.alerts()), "the version of each object")
    equal(daemon.stop(), 0, "exit status")


@scenario()
def duplicates(world, seed):
    """The same records by a second trail, by EventBridge and by a message sent again make no second alert."""
    account = Account(seed)
    records = account.story(detected=12, noise=20)
    daemon = world.daemon().wait_ready()
    key = world.put_log(account, records)
    world.wait_until_empty()
    check_delivered(world, records)

    account.random.shuffle(records)
    world.put_log(account, records[:20], prefix="second-trail/")
    world.put_log(account, records[10:], prefix="second-trail/")
    for record in records:
        world.send(shapes.via_cloudtrail(record))
    for _ in range(3):
        world.send(shapes.s3(shapes.s3_record(world.bucket, key)))
        world.send(shapes.eventbridge_object(world.bucket, key))
    world.wait_until_empty()
    check_delivered(world, records)
    equal(daemon.metric("store_writes_total"), 12, "items written")
    check(daemon.metric("duplicates_suppressed_total") >= 12 * 8, "duplicates are counted")
    equal(world.dead_count(), 0, "dead letters")


@scenario(visibility=10)
def kill(world, seed):
    """kill -9 at random moments of a backlog: nothing is lost, and an alert that repeats bears the same id."""
    moments = random.Random(seed)
    account = Account(seed)
    records = []
    for _ in range(40):
        part = account.story(detected=10, noise=40)
        world.put_log(account, part)
        records += part
    done = 0
    for _ in range(5):
        daemon = world.daemon(TRAILHOUND_PIPELINE__CONCURRENCY="6")
        # Not before it did something new, so that the backlog shrinks; then at any point of whatever it does.
        goal = done + moments.randint(5, 50)
        wait_until(lambda goal=goal: world.item_count() >= goal, f"{goal} items", seconds=90, every=0.02)
        time.sleep(moments.random() / 5)
        daemon.kill()
        done = world.item_count()
    check(done < 400, "the kills must fall into the backlog")
    world.daemon().wait_ready()
    world.wait_until_empty(seconds=240)
    check_delivered(world, records, repeats=True)
    equal(world.dead_count(), 0, "dead letters")
    repeated = len(world.alerts()) - 400
    # At most what was published and not yet marked: six messages of ten events at each kill.
    check(repeated <= 5 * 6 * 10, f"{repeated} alerts repeated")
    return f"{done} of 400 events stored under fire, {repeated} alerts repeated"


@scenario(visibility=4, max_receives=2, notify=False)
def poison(world, seed):
    """What cannot be read reaches the dead-letter queue with a reason; what is beside it is delivered."""
    account = Account(seed)
    readable = []

    def good(count=4):
        part = account.story(detected=count, noise=5)
        readable.extend(part)
        return part

    def stored(body):
        key = account.key()
        world.put(key, body)
        return shapes.s3_record(world.bucket, key)

    def damaged_after(records):
        """A log whose compressed stream breaks after these records, which stand a megabyte before the damage."""
        text = log_text(records + [account.record("s3", "GetObject", filler=account.random.randbytes(400_000).hex())])
        body = bytearray(gzip.compress(text))
        body[-40_000] ^= 0xFF
        return bytes(body)

    missing = shapes.s3_record(world.bucket, account.key())
    poisons = {
        # Reasons as `messages_left_total` names them; a tuple where damage may show in several ways.
        "not json": ("not_json", "this is not JSON"),
        "unknown shape": ("unknown_shape", json.dumps({"hello": "world"})),
        "SNS with something else": ("unknown_shape", shapes.in_sns(json.dumps({"hello": "world"}))),
        "missing key": ("missing", shapes.s3(missing)),
        "corrupt gzip": (("damaged", "bad_json"), shapes.s3(stored(damaged_after(good())))),
        "truncated gzip": ("ends_early", shapes.s3(stored(log_file(good(30))[:-9]))),
        "bad JSON": ("bad_json", shapes.s3(stored(gzip.compress(log_text(good())[:-1] + b"garbage")))),
        "JSON cut off": ("json_ends_early", shapes.s3(stored(gzip.compress(log_text(good())[:-2])))),
        "no CloudTrail log": ("no_records", shapes.s3(stored(gzip.compress(b'{"hello": [1, 2]}')))),
        "an empty object": ("empty", shapes.s3(stored(b""))),
        "a record that is none": (
            "bad_records",
            shapes.s3(stored(gzip.compress(b'{"Records":["x",' + log_text(good())[len(b'{"Records":[') :]))),
        ),
        "one bad record of three": (
            "missing",
            shapes.s3(stored(log_file(good())), missing, stored(log_file(good()))),
        ),
        "a notification without a key": (
            "bad_notification",
            json.dumps(
                {
                    "Records": [
                        {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {}},
                        stored(log_file(good())),
                    ]
                }
            ),
        ),
    }
    for _, body in poisons.values():
        world.send(body)
    beside = good(10)
    world.send(shapes.s3(stored(log_file(beside))))

    daemon = world.daemon().wait_ready()
    wait_until(lambda: world.dead_count() == len(poisons), f"{len(poisons)} dead letters", seconds=120)
    world.wait_until_empty()
    same_keys(world.dead(), [body for _, body in poisons.values()], "dead letters")
    check_delivered(world, readable)
    for what, (reasons, _) in poisons.items():
        reasons = (reasons,) if isinstance(reasons, str) else reasons
        left = sum(daemon.metric("messages_left_total", reason=reason) for reason in reasons)
        check(left >= 2, f"{what}: left {left} times for {reasons}")
    # Each was received twice, as the queue allows.
    equal(daemon.metric("messages_left_total"), 2 * len(poisons), "messages left for redrive")
    check("message left for redrive" in daemon.log.read_text(), "the log tells why")
    equal(daemon.stop(), 0, "exit status")


@scenario(visibility=10, max_receives=2, notify=False)
def dead_letters(world, seed):
    """dlq peek, why and redrive bring back what was mended, without a second alert; purge only after the typed name."""
    account = Account(seed)
    daemon = world.daemon().wait_ready()
    good, late = account.story(detected=3, noise=5), account.story(detected=4, noise=5)
    cut, gone = account.key(), account.key()
    world.put(cut, log_file(late)[:40])
    no_json = "{'Records': []}"
    world.send(no_json)
    # Without a version: a message that names one is about the broken one for ever.
    for key in (cut, gone, world.put_log(account, good)):
        world.send(shapes.s3(shapes.s3_record(world.bucket, key)))
    wait_until(lambda: world.dead_count() == 3 and world.counts(world.queue) == (0, 0), "three dead letters", seconds=90)
    equal(daemon.stop(), 0, "exit status of the daemon")

    def lines(*arguments, status):
        done = world.tool("dlq", *arguments, "--format", "jsonl")
        equal(done.returncode, status, f"exit status of dlq {arguments}: {done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    peeked = lines("peek", status=0)
    equal(sorted(line["kind"] for line in peeked), ["objects", "objects", "unreadable"], "kinds")
    # A second look finds all of them: the first gave them back.
    again = lines("peek", "--body", status=0)
    equal({line["messageId"] for line in again}, {line["messageId"] for line in peeked}, "messages at a second look")
    counts = {line["messageId"]: line["receiveCount"] for line in peeked}
    check(all(line["receiveCount"] == counts[line["messageId"]] + 1 for line in again), "one receive for each look")
    check(no_json in [line["body"] for line in again], "the body")

    def verdicts(status):
        return sorted((line["problems"] or [{"reason": "none"}])[0]["reason"] for line in lines("why", status=status))

    equal(verdicts(1), ["ends_early", "missing", "not_json"], "reasons before it is mended")
    world.put(cut, log_file(late))
    equal(verdicts(1), ["missing", "none", "not_json"], "reasons after it is mended")
    equal(world.item_count(), 3, "items before the redrive: a rehearsal stores nothing")
    moved = lines("redrive", status=0)
    equal(sorted(line["outcome"] for line in moved), ["left", "left", "moved"], "outcomes of the redrive")
    equal((world.counts(world.queue), world.counts(world.dead_letters)), ((1, 0), (2, 0)), "messages on both queues")

    daemon = world.daemon().wait_ready()
    world.wait_until_empty()
    check_delivered(world, good + late)
    equal(world.dead_count(), 2, "dead letters that stay")
    equal(daemon.stop(), 0, "exit status of the daemon")

    name = world.dead_letters.rsplit("/", 1)[1]
    status, shown = world.typed(f"{name}-not\n", "dlq", "purge")
    check(status == 1 and "nothing was deleted" in shown and gone in shown, f"a wrong name: {status}: {shown}")
    equal(world.counts(world.dead_letters), (2, 0), "dead letters after a wrong name")
    status, shown = world.typed(f"{name}\n", "dlq", "purge")
    check(status == 0 and "2 messages deleted" in shown, f"the right name: {status}: {shown}")
    equal(world.dead_count(), 0, "dead letters after the purge")


@scenario(notify=False)
def history(world, seed):
    """scan of a bucket finds what replay then has stored and alerted, through the queue and in place, each event once."""
    account = Account(seed)
    logs = [account.story(detected=4, noise=20) for _ in range(12)]
    for records in logs:
        # Two trails: each record twice.
        world.put_log(account, records, prefix="org/")
        world.put_log(account, records, prefix="org/")
    world.put(account.key(prefix="org/", kind="CloudTrail-Digest"), b"{}")
    place = f"s3://{world.bucket}/org"

    def lines(*arguments, status=0):
        done = world.tool(*arguments, "--format", "jsonl")
        equal(done.returncode, status, f"exit status of {arguments}: {done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    found = lines("scan", "--rules", str(RULES), place)
    once = [line for line in found if not line["copy"]]
    equal(len(found), 2 * len(once), "each event is found twice")
    alerts = {alert["alert_id"] for line in found for alert in line["alerts"]}

    plan = lines("replay", place)
    equal((plan[-1]["objects"], plan[-1]["list_requests"] > 0), (24, True), "the plan of the replay")
    equal((world.item_count(), world.counts(world.queue)), (0, (0, 0)), "a dry run does nothing")
    # The events of the story are old: what is older than the retention is only alerted when asked.
    done = world.tool("replay", place, "--to-queue", "--rate", "500", "--alert-old")
    equal(done.returncode, 0, f"exit status of replay --to-queue: {done.stderr}")
    equal(sum(world.counts(world.queue)), 24, "notifications on the queue")
    daemon = world.daemon().wait_ready()
    world.wait_until_empty()
    check_delivered(world, [record for records in logs for record in records])
    equal({item["EventId"] for item in world.items()}, {line["eventID"] for line in found}, "events of scan and of the table")
    equal({alert["document"]["alert_id"] for alert in world.alerts()}, alerts, "alerts of scan and of the topic")
    equal(daemon.stop(), 0, "exit status")

    told = len(world.alerts())
    later = account.story(detected=4, noise=5)
    world.put_log(account, later, prefix="org/")
    resume = world.workdir / "resume.jsonl"
    for outcomes in (25, 0):
        done = lines("replay", place, "--in-place", "--no-alert", "--resume", str(resume))
        equal([line["outcome"] for line in done], ["done"] * outcomes, "objects that are done")
    items = {item["EventId"]: item for item in world.items()}
    equal(len(items), len(once) + 4, "events after the second replay")
    check(all(item["SettledRules"] == item["Rules"] for item in items.values()), "all are settled")
    equal(len(world.alerts()), told, "alerts after --no-alert")


@scenario(notify=False)
def scanned_data(world, seed, data):
    """scan of other people's records agrees event for event with what the daemon stores and alerts under the default rules,
    groups, thresholds and sequences among them."""
    account = Account(seed)
    daemon = world.daemon(
        SECURITY_EVENTS_PATH=str(DEFAULT_RULES),
        TRAILHOUND_PIPELINE__CONCURRENCY="1",
        TRAILHOUND_ALERTING__MAX_PER_MINUTE="0",
    ).wait_ready()
    logs = world.workdir / "logs"
    for number, path in enumerate(sorted((data / "cloudtrail").rglob("*.json"))):
        text = path.read_text()
        try:
            found = json.loads(text)
            found = found["Records"] if isinstance(found, dict) and "Records" in found else [found]
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        # The daemon takes log files only, scan what is there. Both in one order, which is the order of counting.
        key = account.key()
        world.put(key, gzip.compress(json.dumps({"Records": found}).encode()))
        world.send(shapes.s3(shapes.s3_record(world.bucket, key)))
        kept = logs / f"{number:06}-{path.name}"
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(text)
    world.wait_until_empty(seconds=300)

    done = world.tool("scan", "--rules", str(DEFAULT_RULES), str(logs), "--format", "jsonl", seconds=300)
    equal(done.returncode, 0, f"exit status of scan: {done.stderr}")
    rules, alerts = {}, set()
    for line in map(json.loads, done.stdout.splitlines()):
        rules.setdefault((line["eventID"], line["eventTime"] or EPOCH), set()).update(line["rules"])
        alerts |= {alert["alert_id"] for alert in line["alerts"]}
    items = {
        (item["EventId"], item["Timestamp"]): item["Rules"]
        for item in world.items()
        if not item["EventId"].startswith("trailhound#")
    }
    same_keys(items, rules, "events of scan and of the table")
    for key, stored in items.items():
        equal(stored, rules[key], f"Rules of {key}")
    wait_until(lambda: len(world.alerts()) >= daemon.metric("alerts_published_total"), "every alert in the inbox")
    told = {alert["document"]["alert_id"] for alert in world.alerts()}
    same_keys(told, alerts, "alerts of scan and of the topic")
    equal(daemon.stop(), 0, "exit status")
    return f"{len(items)} events, {len(told)} alerts"


@scenario(visibility=60)
def termination(world, seed):
    """SIGTERM under load: exit 0 in time, the rest visible at once, and a second process loses and repeats nothing."""
    account = Account(seed)
    records = []
    for _ in range(40):
        part = account.story(detected=15, noise=100)
        world.put_log(account, part)
        records += part
    daemon = world.daemon(TRAILHOUND_PIPELINE__CONCURRENCY="4", TRAILHOUND_SHUTDOWN__DEADLINE="10s").wait_ready()
    wait_until(lambda: daemon.metric("alerts_published_total") >= 20, "work in progress", every=0.02)
    daemon.signal(signal.SIGTERM)
    equal(daemon.wait(seconds=12), 0, "exit status")
    visible, in_flight = world.counts(world.queue)
    equal(in_flight, 0, "messages still hidden after a clean stop")
    check(visible > 0, "the stop must fall into the backlog")
    second = world.daemon().wait_ready()
    world.wait_until_empty()
    check_delivered(world, records)
    equal(world.dead_count(), 0, "dead letters")
    equal(second.stop(), 0, "exit status when idle")
    return f"{visible} messages given to the second process"


@scenario()
def early_termination(world, seed):
    """SIGTERM while nothing is reachable, and SIGINT while idle, end the process with 0 at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        lost = world.daemon(SQS_QUEUE_URL=world.queue + "-that-is-not-there")
        wait_until(lambda d=lost: d.probe("/livez") == 200, "the probes to answer")
        equal(lost.probe("/readyz"), 503, "readiness without a queue")
        lost.signal(number)
        equal(lost.wait(seconds=10), 0, f"exit status after {number.name}")
    idle = world.daemon().wait_ready()
    idle.signal(signal.SIGINT)
    equal(idle.wait(seconds=10), 0, "exit status after SIGINT")


@scenario()
def misconfiguration(world, seed):
    """Wrong settings and wrong rules end with 78 before anything is received, and each names its setting."""
    bad_rules = world.workdir / "bad.json"
    bad_rules.write_text('{"events": [{"id": "x", "severity": "HUGE", "eventName": "A"}]}')
    wrong = {
        "SQS_QUEUE_URL": "",
        "TRAILHOUND_QUEUE__WAIT": "45s",
        "TRAILHOUND_QUEUE__WAITT": "1s",
        "SECURITY_EVENTS_PATH": str(bad_rules),
    }
    for name, value in wrong.items():
        daemon = world.daemon(**{name: value})
        equal(daemon.wait(seconds=10), 78, f"exit status with {name}={value}")
    told = "".join(daemon.log.read_text() for daemon in world.daemons)
    for name in ("SQS_QUEUE_URL", "queue.wait", "TRAILHOUND_QUEUE__WAITT", "severity"):
        check(name in told, f"{name} is not named in:\n{told}")


@scenario()
def reload(world, seed):
    """SIGHUP swaps good rules in and keeps the old ones when the file is bad, also behind a swapped link."""
    account = Account(seed)
    first, second, link = (world.workdir / name for name in ("first.json", "second.json", "rules.json"))
    shutil.copy(RULES, first)
    wider = json.loads(RULES.read_text())
    wider["events"].append(
        {"id": "keys-listed", "description": "Keys were listed", "severity": "LOW", "eventName": "ListAccessKeys"}
    )
    second.write_text(json.dumps(wider))
    link.symlink_to(first)
    daemon = world.daemon(SECURITY_EVENTS_PATH=str(link)).wait_ready()

    def rules_hash():
        return json.loads(daemon.get("/rules")[1])["hash"]

    def reloaded(outcome, before):
        daemon.signal(signal.SIGHUP)
        wait_until(
            lambda: daemon.metric("rules_reloads_total", outcome=outcome) > before, f"a reload that is {outcome}", 15
        )

    old_hash = rules_hash()
    record = account.record("iam", "ListAccessKeys", account.user("alice"))
    world.put_log(account, [record])
    world.wait_until_empty()
    equal(world.items(), [], "events of a rule that is not there yet")

    # Kubernetes and Docker swap a link.
    def swap(target):
        fresh = world.workdir / "fresh-link"
        fresh.symlink_to(target)
        os.replace(fresh, link)

    bad = world.workdir / "bad.json"
    for number, text in enumerate(
        ('{"events": [', '{"events": [{"id": "x"}]}', '{"events": [{"id": "x", "nonsense": 1}]}')
    ):
        bad.write_text(text)
        swap(bad)
        reloaded("failed", number)
        equal(rules_hash(), old_hash, "hash after a refused reload")
        wait_until(lambda: daemon.metric("rules_last_reload_success") == 0, "the failure to be measured", 15)
        check(json.loads(daemon.get("/rules")[1])["error"], "/rules tells the error")
    link.unlink()
    reloaded("failed", 3)
    equal(daemon.probe("/readyz"), 200, "readiness with the old rules")
    part = [account.detected(), record]
    world.put_log(account, part)
    world.wait_until_empty()
    check_delivered(world, part)

    swap(second)
    reloaded("ok", 0)
    check(rules_hash() != old_hash, "the hash changes with the rules")
    equal(daemon.metric("rules_last_reload_success"), 1, "last reload success")
    equal(daemon.metric("rules_loaded"), len(wider["events"]), "rules in force")
    # The record of before is a match now: a rule added later alerts on a replay.
    world.put_log(account, part)
    world.wait_until_empty()
    check_delivered(world, part, rules=wider["events"])

    swap(first)
    reloaded("ok", 1)
    equal(rules_hash(), old_hash, "hash of the first file again")
    equal(daemon.stop(), 0, "exit status")


@scenario(notify=False, visibility=5, max_receives=2)
def message_shapes(world, seed):
    """Every shape of message has the outcome that the documents say."""
    account = Account(seed)
    expected = []
    ignored = {}

    def log(**where):
        part = account.story(detected=2, noise=3)
        expected.extend(part)
        return world.put_log(account, part, **where)

    def record():
        one = account.detected()
        expected.append(one)
        return one

    def ignore(reason, body):
        ignored[reason] = ignored.get(reason, 0) + 1
        world.send(body)

    bucket = world.bucket
    one, other = (shapes.s3_record(bucket, log()) for _ in range(2))
    world.send(shapes.s3(one))
    world.send(shapes.s3(one, other, shapes.s3_record(bucket, log(), event="ObjectCreated:CompleteMultipartUpload")))
    versioned = account.key()
    part = account.story(detected=2, noise=2)
    expected.extend(part)
    version = world.put(versioned, log_file(part))
    world.put(versioned, b"overwritten by somebody")
    world.send(shapes.s3(shapes.s3_record(bucket, versioned, version=version)))
    world.send(shapes.in_sns(shapes.s3(shapes.s3_record(bucket, log()))))
    world.send(shapes.in_sns(shapes.in_sns(shapes.s3(shapes.s3_record(bucket, log(prefix="a b+c/"))))))
    world.send(shapes.eventbridge_object(bucket, log(prefix="as it stands/")))
    encoded = shapes.s3_record(bucket, log(prefix="as it is encoded/"))["s3"]["object"]["key"]
    world.send(shapes.eventbridge_object(bucket, encoded))
    keys = [log(), log(prefix="with blank/")]
    world.send(shapes.in_sns(shapes.cloudtrail_sns(bucket, [*keys, keys[0]])))
    world.send(shapes.cloudtrail_sns(bucket, [log()]))
    for detail_type in (
        "AWS API Call via CloudTrail",
        "AWS Console Sign In via CloudTrail",
        "AWS Console Signin via CloudTrail",
        "AWS Console Action via CloudTrail",
        "AWS Service Event via CloudTrail",
        # A rule may have renamed it on its way; the record is plain to see.
        "Security Event",
    ):
        world.send(shapes.via_cloudtrail(record(), detail_type))
    world.send(shapes.in_sns(shapes.via_cloudtrail(record())))
    insight = {
        "eventVersion": "1.09",
        "eventTime": "2026-03-02T09:20:00Z",
        "awsRegion": "eu-central-1",
        "eventID": account.uuid(),
        "eventType": "AwsCloudTrailInsight",
        "recipientAccountId": "111122223333",
        "sharedEventID": account.uuid(),
        "insightDetails": {
            "state": "Start",
            "eventSource": "ec2.amazonaws.com",
            "eventName": "RunInstances",
            "insightType": "ApiCallRateInsight",
            "insightContext": {"statistics": {"baseline": {"average": 0.01}, "insight": {"average": 8.5}}},
        },
        "eventCategory": "Insight",
    }
    world.send(shapes.via_cloudtrail(insight, "AWS Insight via CloudTrail"))
    key = account.key(kind="CloudTrail-Insight")
    world.put(key, log_file([insight]))
    world.send(shapes.s3(shapes.s3_record(bucket, key)))

    ignore("s3_test_event", shapes.s3_test_event(bucket))
    ignore("s3_test_event", shapes.in_sns(shapes.s3_test_event(bucket)))
    ignore("cloudtrail_validation", shapes.VALIDATION)
    ignore("cloudtrail_validation", shapes.in_sns(shapes.VALIDATION))
    # An address that would tell if it were asked: nothing is ever confirmed.
    ignore("sns_subscription", shapes.subscription(f"{world.endpoint}/?Action=ConfirmSubscription"))
    ignore("other_s3_event", shapes.s3(shapes.s3_record(bucket, account.key(), event="ObjectRemoved:Delete")))
    ignore("other_s3_event", shapes.eventbridge_object(bucket, account.key(), detail_type="Object Deleted"))
    ignore("folder", shapes.s3(shapes.s3_record(bucket, "AWSLogs/111122223333/CloudTrail/", size=0)))
    ignore("digest", shapes.s3(shapes.s3_record(bucket, account.key(kind="CloudTrail-Digest"))))
    ignore("other_object", shapes.s3(shapes.s3_record(bucket, "AWSLogs/111122223333/Config/x_Config_y.json.gz")))

    daemon = world.daemon().wait_ready()
    world.wait_until_empty()
    equal(world.dead_count(), 0, "dead letters")
    check_delivered(world, expected)
    for reason, count in ignored.items():
        equal(daemon.metric("messages_ignored_total", reason=reason), count, f"ignored as {reason}")
    equal(daemon.metric("messages_ignored_total"), sum(ignored.values()), "ignored")
    equal(daemon.metric("messages_left_total"), 0, "left for redrive")


@scenario(notify=False, visibility=5, max_receives=2)
def gates(world, seed):
    """Buckets that are not allowed are not read, and inline records can be turned off."""
    account = Account(seed)
    foreign = world.make_bucket(f"{world.name}-foreign", notify=False)
    records = account.story(detected=2, noise=2)
    key = account.key()
    world.s3.put_object(Bucket=foreign, Key=key, Body=log_file(records))
    refused = [shapes.s3(shapes.s3_record(foreign, key)), shapes.via_cloudtrail(account.detected())]
    for body in refused:
        world.send(body)
    allowed = account.story(detected=2, noise=2)
    world.send(shapes.s3(shapes.s3_record(world.bucket, world.put_log(account, allowed))))
    daemon = world.daemon(
        TRAILHOUND_SOURCE__ALLOWED_BUCKETS=world.bucket, TRAILHOUND_SOURCE__INLINE_RECORDS="false"
    ).wait_ready()
    wait_until(lambda: world.dead_count() == 2, "both refused messages in the dead-letter queue", seconds=60)
    world.wait_until_empty()
    same_keys(world.dead(), refused, "dead letters")
    check_delivered(world, allowed)
    for reason in ("bucket_not_allowed", "inline_records_off"):
        equal(daemon.metric("messages_left_total", reason=reason), 2, f"left as {reason}")


@scenario()
def two_processes(world, seed):
    """Two daemons on one queue, and every record delivered twice: still one item and one alert for each event."""
    account = Account(seed)
    daemons = [world.daemon() for _ in range(2)]
    for daemon in daemons:
        daemon.wait_ready()
    records = []
    for _ in range(20):
        part = account.story(detected=10, noise=30)
        records += part
        world.put_log(account, part)
        # The second trail cuts its files differently and in the opposite order.
        part = part[::-1]
        world.put_log(account, part[:20], prefix="second-trail/")
        world.put_log(account, part[20:], prefix="second-trail/")
    world.wait_until_empty(seconds=180)
    check_delivered(world, records)
    shares = [daemon.metric("messages_deleted_total") for daemon in daemons]
    check(all(shares), f"both must have had work: {shares}")
    equal(sum(d.metric("alerts_published_total") for d in daemons), 200, "alerts published")
    equal(world.dead_count(), 0, "dead letters")
    for daemon in daemons:
        equal(daemon.stop(), 0, "exit status")


@scenario(topic=False, visibility=5, max_receives=3)
def probes(world, seed):
    """Not ready, and nothing received, until the topic is there; not ready when it is gone; nothing is lost for it."""
    account = Account(seed)
    records = account.story(detected=3, noise=5)
    world.put_log(account, records)
    daemon = world.daemon()
    wait_until(lambda: daemon.probe("/livez") == 200, "the probes to answer")
    wait_until(lambda: "alerts" in daemon.get("/readyz")[1], "the failing check to be named")
    equal(daemon.get("/readyz")[0], 503, "readiness without a topic")
    equal(daemon.metric("messages_received_total"), 0, "received before everything was reachable")
    check(daemon.run("healthcheck").returncode == 1, "healthcheck fails before the first readiness")

    def with_daemon_stopped(change):
        """No alert may fall between the making of the topic and that of the subscription, or nobody sees it."""
        daemon.signal(signal.SIGSTOP)
        change()
        daemon.signal(signal.SIGCONT)

    with_daemon_stopped(world.make_topic)
    daemon.wait_ready()
    equal(daemon.run("healthcheck").returncode, 0, "exit status of healthcheck")
    for path in ("/livez", "/readyz", "/metrics", "/version", "/rules", "/"):
        equal(daemon.get(path)[0], 200, f"status of {path}")
    equal(len(json.loads(daemon.get("/rules")[1])["rules"]), len(load_rules(RULES)), "rules told")
    world.wait_until_empty()
    check_delivered(world, records)

    world.sns.delete_topic(TopicArn=world.topic)
    later = account.story(detected=3, noise=5)
    world.put_log(account, later)
    wait_until(lambda: daemon.probe("/readyz") == 503, "readiness to fall without a topic")
    equal(daemon.probe("/livez"), 200, "liveness during an outage")
    equal(daemon.run("healthcheck").returncode, 0, "exit status of healthcheck, since it was ready once")
    # The heartbeat outlives the queue's visibility several times over, and more messages are not taken in.
    wait_until(lambda: daemon.metric("lease_extensions_total", outcome="ok") >= 8, "the heartbeat to go on", seconds=60)
    received = daemon.metric("messages_received_total")
    even_later = account.story(detected=3, noise=5)
    world.put_log(account, even_later)
    wait_until(lambda: daemon.metric("lease_extensions_total", outcome="ok") >= 11, "the heartbeat to go on")
    equal(daemon.metric("messages_received_total"), received, "received during the outage")
    equal(world.dead_count(), 0, "dead letters")
    with_daemon_stopped(world.make_topic)
    wait_until(lambda: daemon.probe("/readyz") == 200, "readiness with the topic again", seconds=90)
    world.wait_until_empty()
    check_delivered(world, records + later + even_later)
    equal(world.dead_count(), 0, "dead letters")
    equal(daemon.stop(), 0, "exit status")


@scenario(visibility=40)
def termination_in_an_outage(world, seed):
    """Told to stop while alerts are refused, it gives back what it cannot finish; told twice, it ends at once."""
    account = Account(seed)
    records = account.story(detected=5, noise=5)
    for code in (0, 128 + signal.SIGTERM):
        daemon = world.daemon(TRAILHOUND_SHUTDOWN__DEADLINE="20s" if code else "5s").wait_ready()
        world.sns.delete_topic(TopicArn=world.topic)
        world.put_log(account, records)
        wait_until(lambda d=daemon: d.metric("alert_failures_total") > 0, "an alert to be refused")
        daemon.signal(signal.SIGTERM)
        if code:
            wait_until(lambda d=daemon: "stopping" in d.get("/readyz")[1], "the stop to begin")
            equal(daemon.probe("/livez"), 200, "liveness while stopping")
            daemon.signal(signal.SIGTERM)
            equal(daemon.wait(seconds=2), code, "exit status after a second SIGTERM")
        else:
            equal(daemon.wait(seconds=7), 0, "exit status")
            equal(world.counts(world.queue), (1, 0), "visible and hidden messages after the stop")
        world.make_topic()
    # The first message is received here, the second when its visibility runs out.
    daemon = world.daemon().wait_ready()
    world.wait_until_empty(seconds=120)
    check_delivered(world, records)
    equal(world.dead_count(), 0, "dead letters")


@scenario(fifo=True)
def fifo_topic(world, seed):
    """A FIFO topic gets a group and the alert id as its deduplication id."""
    account = Account(seed)
    records = account.story(detected=12, noise=10)
    world.daemon().wait_ready()
    world.put_log(account, records)
    world.put_log(account, records, prefix="second-trail/")
    world.wait_until_empty()
    check_delivered(world, records)
    for alert in world.alerts():
        equal(alert["attributes"]["MessageDeduplicationId"], alert["document"]["alert_id"], "deduplication id")
        check(alert["attributes"]["MessageGroupId"], "message group")


@scenario(visibility=10)
def groups(world, seed):
    """Two daemons, one of them killed, every record twice and in disorder: each bucket of a group counts each event
    once, and its 1st, 10th and 100th are told once, or again under the same id."""
    account = Account(seed)
    rule = {"id": "often", "severity": "HIGH", "description": "Happens often", "eventName": "StopLogging"}
    path = world.workdir / "groups.json"
    path.write_text(json.dumps({"events": [rule | {"group": {"by": ["userIdentity.arn"], "window": "1h"}}]}))
    records = []
    for user, hour, count in [("alice", 9, 130), ("alice", 10, 12), ("bob", 9, 9)]:
        for number in range(count):
            time_ = f"2026-03-02T{hour:02}:{number % 60:02}:{number // 60:02}Z"
            records.append(account.record("cloudtrail", "StopLogging", account.user(user), eventTime=time_))
    twice_by_two_daemons(world, account, records, path, size=30, kill_at=20)

    items = world.items()
    counters = [item for item in items if item["EventId"].startswith("trailhound#group#")]
    events = {item["EventId"]: item for item in items if not item["EventId"].startswith("trailhound#")}
    same_keys(events, {record["eventID"] for record in records}, "stored events")
    for event_id, item in events.items():
        equal((item["Rules"], item.get("SettledRules")), ({"often"}, {"often"}), f"rules of {event_id}")
    told = {}
    wanted = {("alice", 9): 130, ("alice", 10): 12, ("bob", 9): 9}
    equal(len(counters), len(wanted), "groups")
    for item in counters:
        user = json.loads(item["Key"])[0]["value"].rsplit("/", 1)[1]
        count = wanted[user, int(item["Timestamp"][11:13])]
        equal((item["Count"], item["Name StopLogging"]), (count, count), f"the count of {item['Key']}")
        group = f"{item['EventId'].removeprefix('trailhound#group#')}@{item['Timestamp']}"
        equal(sum(item_groups(event) == {f"{group} often"} for event in events.values()), count, f"events of {group}")
        times = [e["Timestamp"] for e in events.values() if item_groups(e) == {f"{group} often"}]
        equal((item["First"], item["Last"]), (min(times), max(times)), f"the times of {group}")
        told |= {(group, step): item["AlertIds"] for step in (1, 10, 100) if step <= count}
    documents = [alert["document"] for alert in world.alerts()]
    ids = {}
    for document in documents:
        group = document["group"]
        ids.setdefault((group["id"], group["step"]), set()).add(document["alert_id"])
        check(group["step"] <= group["count"], f"step {group['step']} at {group['count']} events")
    same_keys(ids, told, "steps")
    for key, alert_ids in ids.items():
        check(len(alert_ids) == 1 and alert_ids <= told[key], f"the alert of {key} is {alert_ids}")
    equal(world.dead_count(), 0, "dead letters")
    return f"{len(events)} events in {len(counters)} groups, {len(ids)} steps, {len(documents) - len(ids)} repeated"


@scenario(visibility=10)
def correlations(world, seed):
    """Two daemons, one of them killed, every record twice and in disorder: a threshold is told once for each burst of each
    key, or again under the same id, and not for a key below it; every event is stored and settled."""
    account = Account(seed)
    rule = {"id": "often", "severity": "HIGH", "description": "Happens often", "eventName": "StopLogging"}
    path = world.workdir / "threshold.json"
    threshold = {"count": 5, "window": "30m", "by": ["userIdentity.arn"]}
    path.write_text(json.dumps({"events": [rule | {"threshold": threshold}]}))
    records = []
    for user, hour, count in [("alice", 9, 60), ("bob", 9, 6), ("bob", 11, 7), ("carol", 9, 4)]:
        for number in range(count):
            time_ = f"2026-03-02T{hour:02}:{number % 5:02}:{number % 60:02}Z"
            records.append(account.record("cloudtrail", "StopLogging", account.user(user), eventTime=time_))
    twice_by_two_daemons(world, account, records, path, size=15, kill_at=10)

    items = world.items()
    events = {item["EventId"]: item for item in items if not item["EventId"].startswith("trailhound#")}
    same_keys(events, {record["eventID"] for record in records}, "stored events")
    for event_id, item in events.items():
        equal((item["Rules"], item.get("SettledRules")), ({"often"}, {"often"}), f"rules of {event_id}")
    buckets = [i for i in items if i["EventId"].startswith("trailhound#correlation#") and i["Timestamp"] != "head"]
    entries = sorted(len(item["Entries"]) for item in buckets)
    equal(entries, [4, 6, 7, 60], "events of each key and half hour")
    equal(sorted(item["Count"] for item in buckets), entries, "what is counted")
    told = {}
    documents = [alert["document"] for alert in world.alerts()]
    for document in documents:
        correlation = document["correlation"]
        user = correlation["by"][0]["value"].rsplit("/", 1)[1]
        told.setdefault((user, correlation["first"][11:13]), set()).add(document["alert_id"])
        check(correlation["count"] >= 5, f"an alert at {correlation['count']} events")
    same_keys(told, {("alice", "09"), ("bob", "09"), ("bob", "11")}, "bursts")
    for burst, alert_ids in told.items():
        equal(len(alert_ids), 1, f"alerts of {burst}")
    equal(world.dead_count(), 0, "dead letters")
    return f"{len(events)} events, {len(told)} bursts, {len(documents) - len(told)} repeated"


def twice_by_two_daemons(world, account, records, rules, size, kill_at):
    """Delivers all records twice and in disorder, in files of `size`, to two daemons; one is killed once there are
    `kill_at` items."""
    for trail in ("", "second-trail/"):
        account.random.shuffle(records)
        for start in range(0, len(records), size):
            world.put_log(account, records[start : start + size], prefix=trail)
    daemons = [world.daemon(SECURITY_EVENTS_PATH=str(rules)) for _ in range(2)]
    wait_until(lambda: world.item_count() >= kill_at, "some items", seconds=90, every=0.02)
    daemons[0].kill()
    daemons[1].wait_ready()
    world.wait_until_empty(seconds=240)


def item_groups(item):
    """The groups that count an event, each with its rule."""
    return item.get("Groups", set())


@scenario()
def events(world, seed):
    """What the daemon stored is listed, shown and exported by index and key, as it is in the table."""
    account = Account(seed)
    records = account.story(detected=40, noise=60)
    # The second half happens on the next day.
    account.now = START + timedelta(hours=15)
    records += account.story(detected=30, noise=20)
    world.put_log(account, records)
    daemon = world.daemon().wait_ready()
    world.wait_until_empty()
    check_delivered(world, records)
    items = sorted(world.items(), key=lambda item: (item["Timestamp"], item["EventId"]))

    def run(*arguments, code=0):
        done = daemon.run("events", *arguments)
        equal(done.returncode, code, f"exit status of {arguments}: {done.stderr}")
        return done

    def lines(*arguments):
        return [json.loads(line) for line in run(*arguments).stdout.splitlines()]

    def same(found, expected, what):
        """The same events, in the order of time; within a second in any."""
        equal([line["timestamp"] for line in found], [item["Timestamp"] for item in expected], f"times of {what}")
        equal({line["event_id"] for line in found}, {item["EventId"] for item in expected}, what)

    whole = ("--from", "2026-03-01", "--to", "2026-03-05")
    found = lines("list", *whole, "--reverse", "--format", "jsonl")
    same(found, items, "the list")
    by_id = {item["EventId"]: item for item in items}
    names = {
        "severity": "Severity",
        "event_name": "EventName",
        "event_source": "EventSource",
        "account_id": "AccountId",
        "region": "AwsRegion",
        "actor": "Actor",
        "user_identity_type": "UserIdentityType",
        "source_ip": "SourceIpAddress",
        "user_agent": "UserAgent",
        "error_code": "ErrorCode",
        "alerted_at": "AlertedAt",
        "sns_message_id": "SnsMessageId",
        "detected_at": "DetectedAt",
        "rule_set": "RuleSetHash",
    }
    for line in found:
        item = by_id[line["event_id"]]
        for field, name in names.items():
            equal(line[field], item.get(name), f"{field} of {line['event_id']}")
        equal(set(line["rules"]), item["Rules"], f"rules of {line['event_id']}")
        equal(line["state"], "alerted", f"state of {line['event_id']}")
        equal(line["source"]["key"], item["Source"]["Key"], f"source of {line['event_id']}")
    same(lines("list", *whole, "--format", "jsonl"), items[::-1], "the list, newest first")

    def filtered(what, *arguments, keeps):
        expected = [item for item in items if keeps(item)]
        check(0 < len(expected) < len(items), f"{what} is a filter: {len(expected)} of {len(items)}")
        same(lines("list", *whole, "--reverse", "--format", "jsonl", *arguments), expected, what)

    actor, rule = items[0]["Actor"], sorted(items[0]["Rules"])[0]
    filtered("an actor", "--actor", actor, keeps=lambda item: item["Actor"] == actor)
    filtered("a rule", "--rule", rule, keeps=lambda item: rule in item["Rules"])
    severe = [s for s in ("CRITICAL", "HIGH", "MEDIUM") if any(item["Severity"] == s for item in items)][0]
    filtered("a severity", "--severity", severe, keeps=lambda item: item["Severity"] == severe)
    day = ("--from", "2026-03-02", "--to", "2026-03-03")
    same(
        lines("list", *day, "--reverse", "--format", "jsonl"),
        [item for item in items if item["Timestamp"] < "2026-03-03"],
        "a day",
    )
    same(lines("list", "--scan", "--reverse", "--format", "jsonl"), items, "a scan")
    equal(run("list", *whole).stdout.splitlines()[-1], f"{len(items)} events", "the table's last line")

    one = items[len(items) // 2]
    shown = lines("show", one["EventId"], "--format", "jsonl")
    equal([event["event"] for event in shown], [json.loads(one["Event"])], "the record of an event")
    alert = next(a for a in world.alerts() if a["document"]["event_id"] == one["EventId"])
    check(alert["Subject"].split("]")[0][1:] in shown[0]["alert_text"], "the alert's text has its severity")
    check(one["EventName"] in run("show", one["EventId"]).stdout, "an event is shown")
    check("no event" in run("show", "00000000-no-such-event", code=1).stderr, "an event that is not there")

    target = world.workdir / "export.jsonl"
    run("export", *whole, "--records", "--output", str(target))
    exported = [json.loads(line) for line in target.read_text().splitlines()]
    by_record = {record["eventID"]: record for record in exported}
    equal(by_record, {item["EventId"]: json.loads(item["Event"]) for item in items}, "the exported records")
    equal([p.name for p in world.workdir.glob(".*partial")], [], "partial files")
    return f"{len(items)} events"


@scenario()
def doctor(world, seed):
    """An installation in order is ok, each fault is found with its mending, and the round trip ends in an alert."""
    if world.kind != "moto":
        return "moto alone has trails and keys"
    aws = clients(world.endpoint)
    trails, keys = aws["cloudtrail"], aws["kms"]
    account = Account(seed)
    queue_arn = world.queue_arn(world.queue)
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{world.bucket}"}},
    }

    def set_queue(url=world.queue, **attributes):
        world.sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)

    def policy(statement):
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    set_queue(Policy=policy(allow), MessageRetentionPeriod="604800", SqsManagedSseEnabled="true")
    set_queue(world.dead_letters, MessageRetentionPeriod="1209600")
    recovery = {"PointInTimeRecoveryEnabled": True}
    world.dynamodb.update_continuous_backups(TableName=world.table, PointInTimeRecoverySpecification=recovery)
    trail = {"Name": "main", "S3BucketName": world.bucket}
    trails.create_trail(**trail, IsMultiRegionTrail=True, EnableLogFileValidation=True)
    trails.start_logging(Name="main")
    world.put_log(account, [account.noise()])
    settings = {
        "SECURITY_EVENTS_PATH": str(DEFAULT_RULES),
        "TRAILHOUND_SOURCE__ALLOWED_BUCKETS": world.bucket,
    }
    daemon = world.daemon(**settings).wait_ready()
    world.wait_until_empty()

    def examine(*arguments):
        done = daemon.run("doctor", "--format", "jsonl", *arguments)
        equal(done.stderr, "", "errors of the doctor")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        equal(done.returncode, int(any(one["status"] == "problem" for one in found)), "exit code of the doctor")
        return found

    def complaints(found):
        # moto's trails never deliver, and its answer about versions has another root element than that of AWS.
        others = ("trail-delivery", "bucket-versions")
        wrong = [one for one in found if one["status"] in ("warning", "problem")]
        return {one["check"]: one for one in wrong if one["check"] not in others}

    found = examine("--round-trip", "--timeout", "20s")
    equal(complaints(found), {}, "complaints about an installation in order")
    equal([one["check"] for one in found if one["status"] == "skipped"], [], "checks skipped")
    trip = next(one for one in found if one["check"] == "round-trip")
    check("alerted after" in trip["found"], trip["found"])
    [alert] = wait_until(world.alerts, "the alert of the test")
    equal([rule["id"] for rule in alert["document"]["rules"]], ["trailhound-doctor-test"], "rules of the test")
    check("TrailhoundDoctorTest" in alert["Subject"], alert["Subject"])

    made = keys.create_key()["KeyMetadata"]
    key, key_id = made["Arn"], made["KeyId"]
    # moto forgets the policy of a queue whose attributes are set without it.
    set_queue(KmsMasterKeyId=key, Policy=policy(allow))
    wrong = complaints(examine())
    found = wrong.pop("queue-key")["found"]
    check("does not let s3.amazonaws.com" in found, found)
    equal(wrong, {}, "complaints beside the key")
    use = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "kms:*", "Resource": "*"}
    keys.put_key_policy(KeyId=key, PolicyName="default", Policy=policy(use))
    equal(complaints(examine()), {}, "complaints about a key that lets S3 in")
    keys.disable_key(KeyId=key_id)
    check("enable-key" in complaints(examine())["queue-key"]["mend"], "a disabled key")
    keys.enable_key(KeyId=key_id)

    set_queue(Policy=policy(allow | {"Principal": {"Service": "sns.amazonaws.com"}}))
    removed = {"QueueConfigurations": [{"QueueArn": queue_arn, "Events": ["s3:ObjectRemoved:*"]}]}
    world.s3.put_bucket_notification_configuration(Bucket=world.bucket, NotificationConfiguration=removed)
    trails.stop_logging(Name="main")
    trails.update_trail(**trail, IsMultiRegionTrail=False, EnableLogFileValidation=False)
    ttl = {"Enabled": False, "AttributeName": "ExpiresAt"}
    world.dynamodb.update_time_to_live(TableName=world.table, TimeToLiveSpecification=ttl)
    for subscription in world.sns.list_subscriptions_by_topic(TopicArn=world.topic)["Subscriptions"]:
        world.sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    wrong = complaints(examine())
    wanted = {
        "queue-policy": "add to the queue's policy: {",
        "bucket-notification": "put-bucket-notification-configuration",
        "trail-logging": "start-logging",
        "trail-regions": "--is-multi-region-trail",
        "trail-validation": "--enable-log-file-validation",
        "table-ttl": "update-time-to-live",
        "topic-subscriptions": "aws sns subscribe",
    }
    same_keys(wrong, wanted, "complaints")
    for name, word in wanted.items():
        check(word in wrong[name]["mend"], f"{name}: {wrong[name]}")


@scenario(notify=False, visibility=4, max_receives=2)
def real_data(world, seed, data):
    """Other people's records and messages: nothing dies, each has the outcome of the documents and of a second
    evaluation of the default rules, those that this evaluation understands."""
    # Each event alerts: what groups do is a scenario of its own.
    plain = [rule for rule in load_rules(DEFAULT_RULES) if is_plain(rule) and "sequence" not in rule]
    together = ("group", "threshold", "first_seen")
    rules = [{key: value for key, value in rule.items() if key not in together} for rule in plain]
    check(len(rules) > 40, "enough of the default rules have no pattern")
    path = world.workdir / "plain.json"
    path.write_text(json.dumps({"events": rules}))
    account = Account(seed)
    daemon = world.daemon(SECURITY_EVENTS_PATH=str(path)).wait_ready()

    records = []
    for path in sorted((data / "cloudtrail").rglob("*.json")):
        text = path.read_text()
        try:
            found = json.loads(text)
            found = found["Records"] if isinstance(found, dict) and "Records" in found else [found]
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        records += found
        key = account.key()
        world.put(key, gzip.compress(json.dumps({"Records": found}).encode()))
        world.send(shapes.s3(shapes.s3_record(world.bucket, key)))

    dead, bodies = [], 0
    for path in sorted((data / "notifications").rglob("*.json")):
        text = path.read_text()
        if path.name.startswith("digest_") or "cloudwatch_logs" in path.parts:
            continue
        inner = [text]
        if path.stem.endswith("lambda_shape"):
            inner = [record["body"] for record in json.loads(text)["Records"]]
        for body in inner:
            bodies += 1
            world.send(body)
            if (inline := inline_record(body)) is not None:
                records.append(inline)
            # Their buckets do not exist here: an object that must be read cannot be.
            if not is_known(body) or reads_objects(body):
                dead.append(body)

    world.wait_until_empty(seconds=180)
    same_keys(world.dead(), dead, "dead letters")
    check(daemon.process.poll() is None, "the daemon lives")
    check("panicked" not in daemon.log.read_text(), "no task panicked")

    wanted, without_id = {}, set()
    for record in records:
        if matched := matching_rules(record, rules):
            if usable_id(record):
                wanted.setdefault((record["eventID"], event_timestamp(record)), set()).update(matched)
            else:
                without_id.add(canonical(record))
    items = {(item["EventId"], item["Timestamp"]): item for item in world.items()}
    hashed = {key for key in items if key not in wanted and re.fullmatch("[0-9a-f]{64}", key[0])}
    same_keys(set(items) - hashed, wanted, "stored events")
    equal(len(hashed), len(without_id), "stored events without an id of their own")
    for key, matched in wanted.items():
        equal(items[key]["Rules"], matched, f"Rules of {key}")
    for key, item in items.items():
        equal(item["SettledRules"], item["Rules"], f"SettledRules of {key}")
    wait_until(lambda: len(world.alerts()) >= daemon.metric("alerts_published_total"), "every alert in the inbox")
    # Different records under one id and time are one event here; rules that only the later one matches alert apart.
    told = [(a["event_id"], a["event_time"] or EPOCH, a["alert_id"]) for a in (x["document"] for x in world.alerts())]
    equal(len(told), len(set(told)), "alerts without repeats")
    same_keys(told, {(*key, alert_id) for key, item in items.items() for alert_id in item["AlertIds"]}, "alerts")
    equal(daemon.stop(), 0, "exit status")
    outcome = f"{len(items)} events, {len(told)} alerts, {len(dead)} dead letters"
    return f"{len(records)} records and {bodies} messages: {outcome}"
