#!/bin/bash
# Uploads CloudTrail log files, as CloudTrail would: the samples, or the files and folders that are named.
set -euo pipefail
here=$(dirname "$0")
upload=$(mktemp -d)
trap 'rm -r "$upload"' EXIT
count=0

# Puts a file where the bucket will have it. A name as CloudTrail gives it tells account and region.
take() { # FILE
    local name account=000000000000 region=us-east-1 day folder
    name=$(basename "$1")
    name=${name%.gz}
    if [[ $name =~ ^([0-9]{12})_CloudTrail_([a-z0-9-]+)_[0-9]{8}T[0-9]{4}Z_[A-Za-z0-9]{16}\.json$ ]]; then
        account=${BASH_REMATCH[1]} region=${BASH_REMATCH[2]}
    else
        name=${account}_CloudTrail_${region}_$(date -u +%Y%m%dT%H%MZ)_$(sha256sum "$1" | cut -c 1-16).json
    fi
    day=$(date -u +%Y/%m/%d)
    folder=$upload/AWSLogs/$account/CloudTrail/$region/$day
    mkdir -p "$folder"
    if gzip --test "$1" 2>/dev/null; then cp "$1" "$folder/$name.gz"; else gzip --stdout "$1" >"$folder/$name.gz"; fi
    count=$((count + 1))
}

# The samples happened in the first hour of a day: of this one, or of yesterday if that hour is not over.
samples() {
    local file dated day
    day=$(date -u --date '1 hour ago' +%Y-%m-%d)
    dated=$(mktemp -d)
    for file in "$here"/samples/*.json; do
        sed "s/2026-03-02T/${day}T/g" "$file" >"$dated/$(basename "${file//20260302/${day//-/}}")"
    done
    for file in "$dated"/*.json; do take "$file"; done
    rm -r "$dated"
    # An organization's trail delivers the same records again: no second alert comes of that.
    mkdir "$upload/organization"
    cp -r "$upload/AWSLogs" "$upload/organization/"
    count=$((count * 2))
}

if (($# == 0)); then
    samples
else
    for path in "$@"; do
        [[ -r $path ]] || { echo "$path is not there, or not readable" >&2; exit 1; }
        while IFS= read -r -d '' file; do
            take "$file"
        done < <(find "$path" -type f \( -name '*.json' -o -name '*.json.gz' \) -print0)
    done
fi
if ((count == 0)); then
    echo "no .json or .json.gz file in $*" >&2
    exit 1
fi
awslocal s3 cp --recursive --only-show-errors "$upload" "s3://$BUCKET/"
echo "uploaded $count log files to s3://$BUCKET"
