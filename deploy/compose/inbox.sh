#!/bin/bash
# Reads the alerts that the topic delivered to the inbox queue, and deletes what it printed: one line for each alert, or
# with --json the alert as it came.
set -euo pipefail
format=${1:-}
queue=$AWS_ENDPOINT_URL/000000000000/$INBOX
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

found=
while true; do
    awslocal sqs receive-message --queue-url "$queue" --max-number-of-messages 10 --wait-time-seconds 2 \
        --output json >"$scratch/received"
    # Nothing is printed where there is none.
    grep -q '"Body"' "$scratch/received" || break
    found=yes
    python3 - "$scratch/received" "$scratch/read" "$format" <<'PYTHON'
import json
import sys

received, read, format = sys.argv[1:]
with open(received) as file:
    messages = json.load(file)["Messages"]
for message in messages:
    alert = json.loads(message["Body"])
    if format == "--json":
        print(json.dumps(alert))
        continue
    rules = ", ".join(rule["id"] for rule in alert["rules"])
    where = f"{alert['account_id']} {alert['region']}"
    # Text of a record may hold anything: nothing of it reaches the terminal that is not printable.
    line = f"{alert['event_time']} {alert['severity']:<8} {alert['event_name']} by {alert['actor']} in {where}: {rules}"
    print("".join(c if c.isprintable() else "?" for c in line))
entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
with open(read, "w") as file:
    json.dump(entries, file)
PYTHON
    awslocal sqs delete-message-batch --queue-url "$queue" --entries "file://$scratch/read" >/dev/null
done
if [[ ! $found ]]; then echo "no alert has arrived since the last look" >&2; fi
