#!/usr/bin/env python3
"""Writes deploy/grafana/dashboard.json, so that a panel is a line here and not eighty lines of JSON.

    tools/dashboard.py           write the file
    tools/dashboard.py --check   fail if the file is not what would be written

Only the standard library is needed.
"""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).parent.parent / "deploy" / "grafana" / "dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Every series of the dashboard is one of these.
OURS = 'job=~"$job", instance=~"$instance"'
GREEN, ORANGE, RED = "green", "orange", "red"


def series(name, labels=""):
    """A selector with the variables of the dashboard."""
    return f"trailhound_{name}{{{OURS}{', ' + labels if labels else ''}}}"


def process(name):
    """A metric of the process, which has no prefix of ours: only where our build information comes from."""
    return f"process_{name}{{{OURS}}} and on (job, instance) {series('build_info')}"


def rate(name, labels="", by=""):
    return f"sum{' by (' + by + ')' if by else ''} (rate({series(name, labels)}[$__rate_interval]))"


def increase(name, labels="", by="", over="$__range"):
    return f"sum{' by (' + by + ')' if by else ''} (increase({series(name, labels)}[{over}]))"


def quantile(q, name, by="le"):
    return f"histogram_quantile({q}, sum by ({by}) (rate({series(name + '_bucket')}[$__rate_interval])))"


def steps(*pairs):
    """Thresholds: a colour to begin with, then (value, colour)."""
    first, *rest = pairs
    return {"mode": "absolute", "steps": [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in rest]}


class Board:
    def __init__(self):
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def row(self, title):
        self.y += self.height
        self.add("row", title, None, 24, 1, collapsed=False, panels=[])
        self.x, self.y, self.height = 0, self.y + 1, 0

    def add(self, kind, title, description, width, height, **more):
        if self.x + width > 24:
            self.x, self.y, self.height = 0, self.y + self.height, 0
        place = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x, self.height = self.x + width, max(self.height, height)
        panel = {"id": len(self.panels) + 1, "type": kind, "title": title, "gridPos": place}
        if description:
            panel |= {"description": description, "datasource": SOURCE}
        self.panels.append(panel | more)

    def stat(self, title, description, expr, unit="short", thresholds=None, mappings=None, width=4, decimals=None):
        defaults = {"unit": unit, "thresholds": thresholds or steps(GREEN), "mappings": mappings or [], "color": {"mode": "thresholds"}}
        if decimals is not None:
            defaults["decimals"] = decimals
        self.add("stat", title, description, width, 4,
                 targets=targets([(expr, "")], instant=True),
                 fieldConfig={"defaults": defaults, "overrides": []},
                 options={"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "background",
                          "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto", "wideLayout": True})

    def graph(self, title, description, queries, unit="short", width=8, stack=False, thresholds=None, least=0):
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stack else 10, "showPoints": "never", "spanNulls": False,
                  "stacking": {"mode": "normal" if stack else "none", "group": "A"},
                  "thresholdsStyle": {"mode": "dashed" if thresholds else "off"}}
        self.add("timeseries", title, description, width, 8,
                 targets=targets(queries),
                 fieldConfig={"defaults": {"unit": unit, "min": least, "color": {"mode": "palette-classic"}, "custom": custom,
                                           "thresholds": thresholds or steps(GREEN)}, "overrides": []},
                 options={"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                          "tooltip": {"mode": "multi", "sort": "desc"}})

    def table(self, title, description, expr, unit, rename, width=12):
        self.add("table", title, description, width, 8,
                 targets=[target | {"format": "table"} for target in targets([(expr, "")], instant=True)],
                 fieldConfig={"defaults": {"unit": unit, "decimals": 0, "thresholds": steps(GREEN)}, "overrides": []},
                 options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": rename["Value"], "desc": True}]},
                 transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": rename}}])


def targets(queries, instant=False):
    found = []
    for letter, (expr, legend) in zip("ABCDEFGH", queries):
        one = {"refId": letter, "datasource": SOURCE, "expr": expr, "editorMode": "code", "instant": instant, "range": not instant}
        if legend:
            one["legendFormat"] = legend
        found.append(one)
    return found


def yes_no(yes, no):
    return [{"type": "value", "options": {"1": {"text": yes, "index": 0}, "0": {"text": no, "index": 1}}}]


def is_it_working(board):
    board.row("Is it working?")
    board.stat("Tasks", "Tasks that answer scrapes. None: nobody reads CloudTrail.",
               f"count({series('build_info')}) or vector(0)", thresholds=steps(RED, (1, GREEN)), width=3)
    board.stat("Ready", "The least ready task. Not ready: GET /readyz of that task names the check that fails.",
               f"min({series('ready')})", thresholds=steps(RED, (1, GREEN)), mappings=yes_no("ready", "not ready"), width=3)
    board.stat("Intake", "Paused while SNS, DynamoDB or S3 fails: nothing is lost, alerts are late.",
               f"max({series('intake_paused')})", thresholds=steps(GREEN, (1, RED)), mappings=yes_no("paused", "open"), width=3)
    board.stat("Last reload", "Refused: the rules before it are in force; GET /rules tells what is wrong.",
               f"min({series('rules_last_reload_success')})", thresholds=steps(RED, (1, GREEN)),
               mappings=yes_no("accepted", "refused"), width=3)
    board.stat("Left for redrive", "Messages of the time shown that can never be read. They reach the dead-letter queue.",
               increase("messages_left_total"), thresholds=steps(GREEN, (1, ORANGE)), width=3, decimals=0)
    board.stat("Failed publishes", "Attempts to publish an alert that failed. Those that can be repeated are.",
               increase("alert_failures_total"), thresholds=steps(GREEN, (1, ORANGE), (20, RED)), width=3, decimals=0)
    board.stat("Since the last poll", "The slowest poll loop. It moves at least every half minute.",
               f"max(time() - ({series('poll_last_timestamp_seconds')} > 0))", "s", steps(GREEN, (60, ORANGE), (180, RED)), width=3)
    board.stat("Restarts", "Processes that started in the time shown, in place.",
               f"sum(changes(process_start_time_seconds{{{OURS}}}[$__range]) and on (job, instance) {series('build_info')})",
               thresholds=steps(GREEN, (1, ORANGE), (5, RED)), width=3, decimals=0)
    board.graph("Dependencies", "1: the last call worked. The lowest of all tasks. queue: SQS, objects: S3, store: DynamoDB, publisher: SNS.",
                [(f"min by (dependency) ({series('dependency_up')})", "{{dependency}}")])
    board.graph("Messages left, by reason", "What can never be read, by its reason. docs/metrics.md explains each.",
                [(rate("messages_left_total", by="reason") + " > 0", "{{reason}}")], "cps", stack=True)
    board.graph("Objects that were not read", "By outcome; `interrupted` and `bucket_denied` are tried again.",
                [(rate("objects_total", 'outcome!="ok"', "outcome"), "{{outcome}}")], "cps", stack=True)


def is_it_keeping_up(board):
    board.row("Is it keeping up?")
    board.graph("Messages in the queue", "As SQS approximates them. visible: they wait; in flight: in work, here or elsewhere.",
                [(f"max by (state) ({series('queue_messages')})", "{{state}}"),
                 (f"sum({series('messages_in_flight')})", "in work here")])
    board.graph("Messages a second", "Received and deleted run together unless a backlog grows or shrinks, or messages come back.",
                [(rate("messages_received_total"), "received"), (rate("messages_deleted_total"), "deleted"),
                 (rate("messages_released_total"), "given back"), (rate("messages_left_total"), "left for redrive")], "cps")
    board.graph("Age of messages when received", "Since they were first sent. High after an outage; high without one: too few tasks.",
                [(quantile(0.5, "message_age_seconds"), "half"), (quantile(0.9, "message_age_seconds"), "nine of ten")], "s",
                thresholds=steps("transparent", (900, RED)))
    board.graph("From event to detection", "CloudTrail itself takes about five minutes; EventBridge seconds.",
                [(quantile(0.5, "event_lag_seconds"), "half"), (quantile(0.9, "event_lag_seconds"), "nine of ten")], "s",
                thresholds=steps("transparent", (1800, RED)))
    board.graph("From log object to detection", "trailhound's own part, with the queue.",
                [(quantile(0.5, "object_lag_seconds"), "half"), (quantile(0.9, "object_lag_seconds"), "nine of ten")], "s")
    board.graph("Time for an object", "From its opening to its last alert.",
                [(quantile(0.5, "object_duration_seconds"), "half"), (quantile(0.99, "object_duration_seconds"), "99 of 100")], "s")
    board.graph("Records a second", "unreadable: the message goes to the dead-letter queue, its other records are delivered.",
                [(rate("records_total", by="outcome"), "{{outcome}}")], "cps")
    board.graph("Heartbeats and their failures", "Extensions of visibility, receives and deletes that failed, leases that were lost.",
                [(rate("lease_extensions_total", by="outcome"), "extension {{outcome}}"), (rate("leases_lost_total"), "lease lost"),
                 (rate("poll_errors_total"), "receive failed"), (rate("message_delete_failures_total"), "delete failed")], "cps")
    board.graph("Calls to AWS that failed", "transient: repeated. config: denied or not there. permanent: this input can never work.",
                [(rate("aws_requests_total", 'outcome!="ok"', "service, operation, outcome"),
                  "{{service}} {{operation}} {{outcome}}")], "reqps")


def what_does_it_find(board):
    board.row("What does it find?")
    board.stat("Alerts", "Alerts that SNS accepted in the time shown.", increase("alerts_published_total"), width=4, decimals=0)
    board.stat("Critical alerts", "Those of severity CRITICAL.", increase("alerts_published_total", 'severity="CRITICAL"'),
               thresholds=steps(GREEN, (1, RED)), width=4, decimals=0)
    board.stat("Duplicates suppressed", "Detections that an earlier alert covers: second trails, redelivery, EventBridge beside S3.",
               increase("duplicates_suppressed_total"), width=4, decimals=0)
    board.stat("Rules", "Rules in force. Tasks that differ: the lowest.", f"min({series('rules_loaded')})", thresholds=steps(RED, (1, GREEN)))
    board.stat("Warnings about rules", "GET /rules tells them.", f"max({series('rules_warnings')})", thresholds=steps(GREEN, (1, ORANGE)))
    board.stat("Exceptions that are over", "Their rules match again what was withheld.", f"max({series('rules_expired_exceptions')})",
               thresholds=steps(GREEN, (1, ORANGE)))
    board.graph("Alerts, by severity", "Accepted by SNS, each minute.",
                [(f"60 * {rate('alerts_published_total', by='severity')}", "{{severity}}")], "cpm", width=12, stack=True)
    board.graph("Events", "Stored for the first time; already stored; withheld by an exception. Each minute.",
                [(f"60 * {rate('store_writes_total')}", "stored"), (f"60 * {rate('store_conflicts_total')}", "already stored"),
                 (f"60 * {rate('suppressed_total')}", "withheld"), (f"60 * {rate('claims_taken_over_total')}", "claims taken over")],
                "cpm", width=12)
    board.table("Rules that match most", "Matches in the time shown: candidates for an exception or a group.",
                f"topk(20, {increase('matches_total', by='rule_id, severity')} > 0)", "short",
                {"rule_id": "rule", "Value": "matches"})
    board.table("Exceptions that withhold most", "By rule and position under `unless`. One that withholds nothing can go.",
                f"topk(20, {increase('suppressed_total', by='rule_id, exception')} > 0)", "short",
                {"rule_id": "rule", "Value": "withheld"})


def what_does_it_cost(board):
    # us-east-1, November 2026, first tier, USD for a million. DynamoDB's writes are of one unit (1 KB); larger items cost
    # more. S3's bytes are free within a region.
    price = {"sqs": 0.40, "s3": 0.40, "sns": 0.50, "dynamodb": 0.625}
    board.row("What does it cost?")
    requests = " + ".join(f"({rate('aws_requests_total', f'service={chr(34)}{service}{chr(34)}')} or vector(0)) * {cost}"
                          for service, cost in price.items())
    board.stat("Requests, USD a month", "At the rate of the last quarter of an hour and the list prices of us-east-1 for a million "
               "(November 2026): SQS 0.40, S3 GET 0.40, SNS 0.50, DynamoDB write 0.625 for each KB, counted as one. Without "
               "deliveries of SNS, storage, Fargate, endpoints and logs.",
               f"({requests}) / 1e6 * 2592000".replace("$__rate_interval", "15m"), "currencyUSD", width=4, decimals=2)
    board.stat("CPU for a million records", "CPU seconds, over the time shown. All work of the process counts.",
               f"1e6 * sum(increase(process_cpu_seconds_total{{{OURS}}}[$__range]) and on (job, instance) {series('build_info')})"
               f" / ({increase('records_total')} > 0)", "s", width=4)
    board.stat("Calls to AWS for a record", "Fewer with larger files and fewer matches.",
               f"{increase('aws_requests_total')} / ({increase('records_total')} > 0)", width=4, decimals=3)
    board.stat("Read from S3", "Compressed bytes in the time shown.", increase("object_compressed_bytes_total"), "bytes", width=4)
    board.stat("Ratio", "Decompressed to compressed bytes. Real logs stay below 20.",
               f"{increase('object_decompressed_bytes_total')} / ({increase('object_compressed_bytes_total')} > 0)", width=4, decimals=1)
    board.stat("Most memory", "Of one task. Bounded by pipeline.concurrency x source.max_record_bytes, beside the rules.",
               f"max({process('resident_memory_bytes')})", "bytes", steps(GREEN, (400 * 1024 * 1024, ORANGE)), width=4)
    board.graph("Calls to AWS", "By service and operation.",
                [(rate("aws_requests_total", by="service, operation"), "{{service}} {{operation}}")], "reqps", stack=True)
    board.graph("Time of a call to AWS", "Nine of ten are faster; ReceiveMessage waits on purpose.",
                [(quantile(0.9, "aws_request_duration_seconds", "service, operation, le"), "{{service}} {{operation}}")], "s")
    board.graph("Bytes a second", "Read from S3, and after decompression.",
                [(rate("object_compressed_bytes_total"), "compressed"), (rate("object_decompressed_bytes_total"), "decompressed")], "Bps")
    board.graph("CPU", "Cores in use, for each task.",
                [(f"rate(process_cpu_seconds_total{{{OURS}}}[$__rate_interval]) and on (job, instance) {series('build_info')}",
                  "{{instance}}")], "short")
    board.graph("Memory", "Resident, for each task.", [(process("resident_memory_bytes"), "{{instance}}")], "bytes")
    board.graph("Open files and threads", "Files that only grow are a leak.",
                [(process("open_fds"), "{{instance}} files"), (process("threads"), "{{instance}} threads")])


def variable(name, label, query):
    return {"type": "query", "name": name, "label": label, "datasource": SOURCE, "definition": query, "includeAll": True,
            "query": {"query": query, "refId": name}, "multi": True, "allValue": ".+", "refresh": 2, "sort": 1, "hide": 0,
            "current": {"text": ["All"], "value": ["$__all"]}, "options": [], "regex": "", "skipUrlSync": False}


def annotation(name, colour, expr, title, text):
    return {"name": name, "enable": True, "hide": False, "iconColor": colour, "datasource": SOURCE, "expr": expr, "step": "30s",
            "titleFormat": title, "textFormat": text, "tagKeys": "", "useValueForTime": False}


def dashboard():
    board = Board()
    for row in (is_it_working, is_it_keeping_up, what_does_it_find, what_does_it_cost):
        row(board)
    return {
        "id": None,
        "uid": "trailhound",
        "title": "trailhound",
        "description": "CloudTrail to alerts: is it working, is it keeping up, what does it find, what does it cost.",
        "tags": ["trailhound", "security"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "liveNow": False,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "links": [],
        "annotations": {"list": [
            {"builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
             "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard"},
            annotation("Reloads of rules", "blue",
                       f"sum by (outcome) (increase({series('rules_reloads_total')}[1m])) > 0", "Rules reloaded", "{{outcome}}"),
            annotation("Starts", "purple", f"time() - ({process('start_time_seconds')}) < 60", "Started", "{{instance}}"),
        ]},
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1, "regex": "",
             "hide": 0, "includeAll": False, "multi": False, "current": {}, "options": [], "skipUrlSync": False},
            variable("job", "Job", "label_values(trailhound_build_info, job)"),
            variable("instance", "Task", 'label_values(trailhound_build_info{job=~"$job"}, instance)'),
        ]},
        "panels": board.panels,
    }


def main():
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text:
            sys.exit(f"{FILE.name} is not what tools/dashboard.py writes: change the script, then run it")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
