#!/usr/bin/env python3
"""Writes src/rules/names/event_names.txt: the event names that CloudTrail can record, by event source.

usage: python3 -m venv target/event-names-venv
       target/event-names-venv/bin/pip install botocore==1.44.8
       target/event-names-venv/bin/python tools/event_names.py

Python 3.10 or later. The names are the operations of botocore's service models (Apache-2.0); which event source a
service records under is not in the models where it is not the service's signing name, and stands below. What CloudTrail
names differently from the API stands in src/rules/names/cloudtrail.txt, by hand.
"""

import sys
from pathlib import Path

import botocore
import botocore.session
from botocore.loaders import Loader

BOTOCORE = "1.44.8"
TARGET = Path(__file__).resolve().parent.parent / "src/rules/names/event_names.txt"

# The event sources of the services that do not record under their signing name (their endpoint prefix, where the model
# has none); several, where both are met. From the EventBridge Events Reference ("events delivered via CloudTrail"), the
# records in the services' own guides, and public tools that read records (flosell/trailscraper, duo-labs/cloudtracker).
SOURCES = {
    "application-autoscaling": ["application-autoscaling", "autoscaling"],
    "application-insights": ["application-insights", "applicationinsights"],
    "appstream": ["appstream", "appstream2"],
    "chime-sdk-media-pipelines": ["chime", "chime-sdk-media-pipelines"],
    "chime-sdk-voice": ["chime", "chime-sdk-voice"],
    "iotsecuretunneling": ["iotsecuredtunneling"],
    "marketplace-agreement": ["agreement-marketplace"],
    "marketplace-deployment": ["deployment-marketplace"],
    "marketplace-discovery": ["discovery-marketplace"],
    "meteringmarketplace": ["metering-marketplace"],
    "mgh": ["mgh", "migrationhub"],
    "mq": ["amazonmq", "mq"],
    "pricing": ["api.pricing", "pricing"],
    "rds-data": ["rdsdata", "rdsdataapi"],
    "servicecatalog-appregistry": ["servicecatalog-appregistry"],
    "sso": ["sso"],
    "sso-oidc": ["sso", "sso-oauth"],
}

# APIs of a data plane whose signing name, `execute-api`, is no event source.
UNRECORDED = {"apigatewaymanagementapi", "connectparticipant"}

HEADER = """\
# The event names that CloudTrail can record, one event source a line. Generated: do not edit, see cloudtrail.txt.
# Source: the service models of botocore {version} (https://github.com/boto/botocore, Apache License 2.0). Of each, only
# the names of the operations were taken, and filed under the event source that the service records under.
# To regenerate: see tools/event_names.py.
"""


def event_names(loader: Loader) -> dict[str, set[str]]:
    """The names of the operations of every service, by event source."""
    names: dict[str, set[str]] = {}
    services = loader.list_available_services("service-2")
    if gone := (SOURCES.keys() | UNRECORDED) - set(services):
        sys.exit(f"botocore has no model of {', '.join(sorted(gone))} any more")
    for service in services:
        if service in UNRECORDED:
            continue
        model = loader.load_service_model(service, "service-2")
        metadata = model["metadata"]
        default = metadata.get("signingName", metadata["endpointPrefix"])
        for source in SOURCES.get(service, [default]):
            known = names.setdefault(f"{source.lower()}.amazonaws.com", set())
            for name, operation in model["operations"].items():
                # CloudFront's carry the version of the API ("CreateDistribution2020_05_31"), and CloudTrail has
                # recorded both spellings.
                known.update({name, operation["name"]})
    return names


def main() -> None:
    if botocore.__version__ != BOTOCORE:
        sys.exit(f"{__doc__}\nbotocore is {botocore.__version__} here, not {BOTOCORE}")
    names = event_names(botocore.session.get_session().get_component("data_loader"))
    lines = [" ".join([source, *sorted(known)]) for source, known in sorted(names.items())]
    TARGET.write_text(HEADER.format(version=BOTOCORE) + "\n".join(lines) + "\n", encoding="ascii")
    print(f"{sum(map(len, names.values()))} names of {len(names)} event sources: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
