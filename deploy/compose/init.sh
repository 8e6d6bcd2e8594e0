#!/bin/bash
# Makes what trailhound needs, in an emulator of AWS: bucket, queues, topic and table, as README.md says. What is there
# already stays, so it may run at any time, also twice at once. LocalStack runs it at each start, since it forgets
# everything when it stops; the service init runs it too, for emulators without such a hook, and so that trailhound starts
# when everything is there.

# Some emulators start it with sh.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0"; fi

set -euo pipefail

if ! command -v awslocal >/dev/null; then
    echo "no awslocal in this image: left to the service init"
    exit 0
fi

arn() { echo "arn:aws:$1:$AWS_DEFAULT_REGION:000000000000:$2"; }
url() { echo "${AWS_ENDPOINT_URL:-http://localhost:4566}/000000000000/$1"; }

# Waits for what was begun in the background, and fails if any of it did.
all() {
    local job
    for job in $(jobs -p); do wait "$job"; done
}

# Who may send to a queue: one service, on behalf of one resource.
sender() { # QUEUE SERVICE SOURCE-ARN
    printf '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "%s"},
        "Action": "sqs:SendMessage", "Resource": "%s", "Condition": {"ArnEquals": {"aws:SourceArn": "%s"}}}]}' \
        "$2" "$(arn sqs "$1")" "$3"
}

# The attributes of a queue as JSON, from name and value in turns.
attributes() { python3 -c 'import json, sys; a = sys.argv[1:]; print(json.dumps(dict(zip(a[::2], a[1::2]))))' "$@"; }

queue() { # NAME [ATTRIBUTE VALUE]...
    awslocal sqs create-queue --queue-name "$1" >/dev/null
    if (($# > 1)); then
        awslocal sqs set-queue-attributes --queue-url "$(url "$1")" --attributes "$(attributes "${@:2}")"
    fi
}

table() {
    awslocal dynamodb describe-table --table-name "$TABLE" >/dev/null
}

make_table() {
    if ! table 2>/dev/null; then
        # Another run may have been faster.
        awslocal dynamodb create-table --table-name "$TABLE" --billing-mode PAY_PER_REQUEST \
            --attribute-definitions AttributeName=EventId,AttributeType=S AttributeName=Timestamp,AttributeType=S \
            AttributeName=Day,AttributeType=S \
            --key-schema AttributeName=EventId,KeyType=HASH AttributeName=Timestamp,KeyType=RANGE \
            --global-secondary-indexes "$(tr -d '\n ' <<'JSON'
                [{"IndexName": "ByDay",
                  "KeySchema": [{"AttributeName": "Day", "KeyType": "HASH"},
                                {"AttributeName": "Timestamp", "KeyType": "RANGE"}],
                  "Projection": {"ProjectionType": "INCLUDE",
                                 "NonKeyAttributes": ["Severity", "Rules", "EventName", "EventSource",
                                                      "AccountId", "AwsRegion", "Actor"]}}]
JSON
            )" >/dev/null || table
        awslocal dynamodb wait table-exists --table-name "$TABLE"
    fi
    expires || awslocal dynamodb update-time-to-live --table-name "$TABLE" \
        --time-to-live-specification Enabled=true,AttributeName=ExpiresAt >/dev/null || expires
}

# Whether items expire: to say so twice is an error.
expires() {
    local status
    status=$(awslocal dynamodb describe-time-to-live --table-name "$TABLE" \
        --query TimeToLiveDescription.TimeToLiveStatus --output text)
    [[ $status == ENABL* ]]
}

bucket() {
    awslocal s3api head-bucket --bucket "$BUCKET" >/dev/null 2>&1 ||
        awslocal s3api create-bucket --bucket "$BUCKET" >/dev/null
    awslocal s3api put-bucket-versioning --bucket "$BUCKET" --versioning-configuration Status=Enabled
}

topic() {
    awslocal sns create-topic --name "$TOPIC" >/dev/null
}

# Waits while the emulator says that it is running this script itself: LocalStack in one way, MiniStack in another. One that
# says neither is not waited for.
emulator_is_done() {
    python3 - "$AWS_ENDPOINT_URL" <<'PYTHON'
import json, sys, time, urllib.error, urllib.request

def busy(path):
    try:
        with urllib.request.urlopen(sys.argv[1] + path, timeout=2) as answer:
            return json.load(answer).get("completed") is False
    except urllib.error.HTTPError as error:
        return error.code == 503
    except (OSError, ValueError, AttributeError):
        return False

until = time.monotonic() + 20
while time.monotonic() < until and (busy("/_localstack/init/ready") or busy("/_ministack/ready")):
    time.sleep(0.2)
PYTHON
}

# The last steps below were done, and so all of them.
made() {
    [[ $(awslocal sns list-subscriptions-by-topic --topic-arn "$(arn sns "$TOPIC")" 2>/dev/null) == *":$INBOX\""* &&
        $(awslocal s3api get-bucket-notification-configuration --bucket "$BUCKET" 2>/dev/null) == *":$QUEUE\""* ]]
}

# Not the emulator itself, which has no need to ask.
if [[ ${AWS_ENDPOINT_URL:-} ]]; then
    emulator_is_done
    if made; then
        echo "everything is there"
        exit 0
    fi
fi

# Two days, and fourteen for what failed: it keeps the time at which it was first sent.
queue "$DEAD_LETTERS" MessageRetentionPeriod 1209600 &
queue "$INBOX" Policy "$(sender "$INBOX" sns.amazonaws.com "$(arn sns "$TOPIC")")" &
bucket &
topic &
make_table &
all
queue "$QUEUE" MessageRetentionPeriod 172800 \
    RedrivePolicy "{\"deadLetterTargetArn\": \"$(arn sqs "$DEAD_LETTERS")\", \"maxReceiveCount\": \"10\"}" \
    Policy "$(sender "$QUEUE" s3.amazonaws.com "arn:aws:s3:::$BUCKET")"
awslocal sns subscribe --topic-arn "$(arn sns "$TOPIC")" --protocol sqs --notification-endpoint "$(arn sqs "$INBOX")" \
    --attributes RawMessageDelivery=true >/dev/null &
awslocal s3api put-bucket-notification-configuration --bucket "$BUCKET" --notification-configuration \
    "{\"QueueConfigurations\": [{\"QueueArn\": \"$(arn sqs "$QUEUE")\", \"Events\": [\"s3:ObjectCreated:*\"]}]}" &
all
echo "made bucket $BUCKET, queues $QUEUE, $DEAD_LETTERS and $INBOX, topic $TOPIC and table $TABLE"
