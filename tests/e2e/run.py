#!/usr/bin/env python3
"""End-to-end scenarios: the real binary against other people's AWS, seen only from outside.

    python3 tests/e2e/run.py --emulator moto|ministack --binary target/debug/trailhound [--data DIR] [--only NAME,...]

needs the packages of `requirements.txt`. Each scenario has resources of its own and prints `ok` or `FAILED`; the exit
status is 1 if any failed. All waiting is for a condition, with a deadline. `--data` is a folder of CloudTrail records
and message bodies (`cloudtrail/**/*.json`, `notifications/**/*.json`); without it that one scenario is skipped.

What the emulators lack, and what is done about it:

- moto checks a condition and writes without a lock (`moto_serial.py` adds one); its S3 notifications carry no
  `versionId` and encode `/`, which real ones do not; table names are checked against DynamoDB's reserved words.
- MiniStack rejects table names under three characters, as DynamoDB does.
- Both serve long polls, redrive, `ReturnValuesOnConditionCheckFailure`, transactions with their reasons, secondary indexes, FIFO topics with
  deduplication, and SNS to SQS. Neither sends S3's events to EventBridge, nor signs SNS messages verifiably; the
  scenarios send such messages themselves.
"""

import argparse
import inspect
import sys
import tempfile
import time
import traceback
from pathlib import Path

import formats  # noqa: F401: it registers its scenarios
from emulators import Emulator
from scenarios import SCENARIOS
from world import World


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--emulator", required=True, choices=["moto", "ministack"])
    parser.add_argument("--binary", required=True, type=Path)
    parser.add_argument("--data", type=Path, help="a folder of test data from elsewhere")
    parser.add_argument("--only", default="", help="names of scenarios, comma separated")
    parser.add_argument("--seed", type=int, default=1, help="other records and other moments to kill")
    arguments = parser.parse_args()
    if not arguments.binary.is_file():
        parser.error(f"{arguments.binary} is not there: run `cargo build` first")
    if arguments.data and not (arguments.data / "cloudtrail").is_dir():
        parser.error(f"{arguments.data} has no folder `cloudtrail`")
    only = {name for name in arguments.only.split(",") if name}
    if unknown := only - {name for name, _, _ in SCENARIOS}:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")

    counts = {"ok": 0, "FAILED": 0, "skipped": 0}
    with tempfile.TemporaryDirectory(prefix="trailhound-e2e-") as workdir:
        emulator = Emulator(arguments.emulator, workdir)
        try:
            for name, function, options in SCENARIOS:
                if not only or name in only:
                    counts[run(name, function, options, emulator, arguments, workdir)] += 1
        finally:
            emulator.stop()
    print(
        f"{arguments.emulator}: "
        + ", ".join(
            f"{count} {what}"
            for what, count in (("passed", counts["ok"]), ("failed", counts["FAILED"]), ("skipped", counts["skipped"]))
        )
    )
    return 1 if counts["FAILED"] or not counts["ok"] else 0


def run(name, function, options, emulator, arguments, workdir):
    """Runs one scenario and prints its line."""
    extra = {}
    if "data" in inspect.signature(function).parameters:
        if arguments.data is None:
            print(f"skipped  {name}: it needs --data", flush=True)
            return "skipped"
        extra["data"] = arguments.data
    started, world = time.monotonic(), None
    try:
        world = World(name, emulator, arguments.binary.resolve(), workdir, **options)
        note = function(world, arguments.seed, **extra)
    except Exception as error:
        print(f"FAILED   {name} ({time.monotonic() - started:.1f} s): {error}", flush=True)
        if not isinstance(error, AssertionError):
            traceback.print_exc()
        for daemon in world.daemons if world else []:
            tail = daemon.log.read_text(errors="replace").splitlines()[-25:]
            print(
                f"    the end of {daemon.log.name}:\n" + "\n".join(f"    | {line[:400]}" for line in tail), flush=True
            )
        return "FAILED"
    finally:
        if world:
            world.close()
    print(f"ok       {name} ({time.monotonic() - started:.1f} s){': ' + note if note else ''}", flush=True)
    return "ok"


if __name__ == "__main__":
    sys.exit(main())
