"""The AWS provider's schema, as the package cdktf-cdktf-provider-aws carries it: the interfaces of its jsii assembly.

The package is read, not imported: it need not be able to run. It was the last of its kind, for provider 6.25.0.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tarfile
from dataclasses import dataclass
from functools import cache

PACKAGE = "cdktf-cdktf-provider-aws"
PREFIX = "@cdktf/provider-aws."
# What CDK adds to each interface, and Terraform knows as something else.
NO_ARGUMENTS = {"connection", "provisioners"}


@dataclass(frozen=True)
class Item:
    """One argument or one nested block."""

    name: str
    required: bool
    block: bool
    repeated: bool
    interface: str | None


class Schema:
    def __init__(self) -> None:
        self._types = _assembly()
        self._index: dict[tuple[str, str], str] = {}
        for name, it in self._types.items():
            found = re.match(r"Represents a \{@link (\S+) (\w+)\}", it.get("docs", {}).get("summary", ""))
            if found:
                kind = "data" if "/data-sources/" in found[1] else "resource"
                self._index[kind, found[2]] = name

    def knows(self, kind: str, name: str) -> bool:
        return (kind, name) in self._index

    @cache
    def top(self, kind: str, name: str) -> dict[str, Item]:
        return self.nested(self._index[kind, name] + "Config")

    @cache
    def nested(self, interface: str) -> dict[str, Item]:
        items = (_item(it) for it in self._types.get(interface, {}).get("properties", []))
        return {it.name: it for it in items if it.name not in NO_ARGUMENTS}

    @cache
    def attributes(self, kind: str, name: str) -> set[str]:
        """What can be read from a resource: its arguments, and what AWS adds."""
        made = {_snake(it["name"]) for it in self._types[self._index[kind, name]].get("properties", [])}
        made = {it for it in made if not it.endswith("_input") and it != "tf_resource_type"}
        return made | set(self.top(kind, name)) | {"id"}


def _assembly() -> dict:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise SystemExit(f"{PACKAGE} is not installed: pip install --no-deps -r tests/terraform/provider.txt") from error
    archive = next(it for it in files if it.name.endswith(".jsii.tgz"))
    with tarfile.open(archive.locate()) as tar:
        assembly = tar.extractfile("package/.jsii")
        assert assembly is not None
        return json.load(assembly)["types"]


def _item(found: dict) -> Item:
    docs = " ".join(found["docs"].get(it, "") for it in ("summary", "remarks"))
    link = re.search(r"#(\w+) ", docs)
    kind = json.dumps(found["type"])
    interface = re.search(r'"(@cdktf/provider-aws\.[\w.]+)"', kind)
    return Item(
        name=link[1] if link else _snake(found["name"]),
        required=not found.get("optional", False),
        block=found["docs"].get("summary", "").endswith(" block."),
        repeated='"array"' in kind,
        interface=interface[1] if interface else None,
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda it: "_" + it[1].lower(), name)
