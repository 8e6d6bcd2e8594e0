"""Reads Terraform files against the schema of the AWS provider, where `terraform validate` has no provider to ask.

    schema.py --wheel cdktf_cdktf_provider_aws-*.whl deploy/terraform

The schema is that of the Python package cdktf-cdktf-provider-aws, which is generated from the provider's own: the wheel holds a
jsii assembly with every resource, data source, argument and block. Checked are

- every resource and data source, every argument and nested block at any depth, `dynamic` ones too: known, not missing where
  required, an argument where an argument belongs and a block where a block does;
- every reference (var, local, data, resource, each, count, path): declared, and its first attribute known;
- every variable, local and data source: used; every output and variable: described.

What is wrong is printed as `file:line: what`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import tree_sitter_hcl
from tree_sitter import Language, Node, Parser

META = {"count", "for_each", "provider", "depends_on"}
META_BLOCKS = {"lifecycle", "provisioner", "connection"}
LIFECYCLE = {"create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by"}
LIFECYCLE_BLOCKS = {"precondition", "postcondition"}
VARIABLE = {"type", "default", "description", "sensitive", "nullable", "ephemeral"}
OUTPUT = {"value", "description", "sensitive", "depends_on", "ephemeral"}
TOP = {"terraform", "provider", "variable", "locals", "resource", "data", "output", "moved", "removed", "import", "check"}
# Arguments whose bare words are not references.
UNREAD = {"type", "ignore_changes", "replace_triggered_by", "iterator", "providers"}
# Of Terraform 1.5: https://developer.hashicorp.com/terraform/language/functions
FUNCTIONS = set(
    """abs abspath alltrue anytrue base64decode base64encode base64gzip base64sha256 base64sha512 basename bcrypt can ceil
    chomp chunklist cidrhost cidrnetmask cidrsubnet cidrsubnets coalesce coalescelist compact concat contains csvdecode
    dirname distinct element endswith file filebase64 filebase64sha256 filebase64sha512 fileexists filemd5 fileset
    filesha1 filesha256 filesha512 flatten floor format formatdate formatlist indent index join jsondecode jsonencode
    keys length log lookup lower matchkeys max md5 merge min nonsensitive one parseint pathexpand plantimestamp pow range
    regex regexall replace reverse rsadecrypt sensitive setintersection setproduct setsubtract setunion sha1 sha256
    sha512 signum slice sort split startswith strcontains strrev substr sum templatefile textdecodebase64
    textencodebase64 timeadd timecmp timestamp title tobool tolist tomap tonumber toset tostring transpose trim
    trimprefix trimspace trimsuffix try type upper urlencode uuid uuidv5 values yamldecode yamlencode zipmap""".split()
)


@dataclass
class Shape:
    """What may stand in a resource or in a block."""

    arguments: dict[str, bool] = field(default_factory=dict)  # name -> required
    blocks: dict[str, tuple[bool, Shape]] = field(default_factory=dict)
    # What may be asked of a resource; empty for a block.
    attributes: set[str] = field(default_factory=set)


class Schema:
    """The provider's schema, from the wheel of cdktf-cdktf-provider-aws."""

    NAMED = re.compile(r"docs/(resources|data-sources)/\S+ (aws_\w+)}")
    ANCHOR = re.compile(r"#(\w+) ")
    VERSION = re.compile(r"hashicorp/aws/([\d.]+)/")

    def __init__(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
                member = inner.extractfile("package/.jsii.gz") if self.has(inner, "package/.jsii.gz") else None
                if member is not None:
                    text = gzip.decompress(member.read())
                else:
                    plain = inner.extractfile("package/.jsii")
                    assert plain is not None
                    text = plain.read()
        self.types = json.loads(text)["types"]
        self.known: dict[tuple[str, str], str] = {}
        self.version = ""
        for fqn, entry in self.types.items():
            summary = entry.get("docs", {}).get("summary", "")
            found = self.NAMED.search(summary) if summary.startswith("Represents a") else None
            if found:
                kind = "data" if found[1] == "data-sources" else "resource"
                self.known[kind, found[2]] = fqn
                version = self.VERSION.search(summary)
                self.version = version[1] if version else self.version
        if len(self.known) < 1000:
            raise SystemExit(f"{wheel}: found {len(self.known)} resources: the form of the assembly has changed")

    @staticmethod
    def has(archive: tarfile.TarFile, name: str) -> bool:
        return name in archive.getnames()

    @cache
    def shape(self, kind: str, name: str) -> Shape | None:
        fqn = self.known.get((kind, name))
        if fqn is None:
            return None
        shape = self.struct(fqn + "Config")
        for entry in self.types[fqn].get("properties", []):
            if not entry.get("static"):
                shape.attributes.add(squeezed(entry["name"]))
        shape.attributes |= {squeezed(name) for name in (*shape.arguments, *shape.blocks)} | {"id"}
        return shape

    def struct(self, fqn: str) -> Shape:
        shape = Shape()
        for entry in self.types[fqn].get("properties", []):
            docs = entry.get("docs", {})
            summary = docs.get("summary", "")
            anchor = self.ANCHOR.search(docs.get("remarks", "") + " " + summary)
            # Only where the documentation says nothing is the name made from that of the property.
            name = anchor[1] if anchor else re.sub(r"(?<!^)([A-Z])", r"_\1", entry["name"]).lower()
            required = not entry.get("optional", False)
            inner = next(iter(re.findall(r'"fqn": "(@cdktf/provider-aws\.[^"]+)"', json.dumps(entry["type"]))), None)
            if summary.endswith(" block.") and inner:
                shape.blocks[name] = (required, self.struct(inner))
            else:
                shape.arguments[name] = required
        return shape


def squeezed(name: str) -> str:
    """Names of attributes are compared without underscores and case: classes write them in another way."""
    return name.replace("_", "").lower()


def text(node: Node) -> str:
    return (node.text or b"").decode()


def children(node: Node, *types: str) -> list[Node]:
    return [child for child in node.named_children if child.type in types]


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.named_children:
        yield from walk(child)


@dataclass
class Block:
    kind: str
    labels: list[str]
    body: Node | None
    node: Node

    @classmethod
    def of(cls, node: Node) -> Block:
        names = [text(child).strip('"') for child in node.named_children if child.type in ("identifier", "string_lit")]
        return cls(names[0], names[1:], next(iter(children(node, "body")), None), node)

    def blocks(self) -> list[Block]:
        return [Block.of(child) for child in children(self.body, "block")] if self.body else []

    def attributes(self) -> dict[str, Node]:
        """Names to expressions."""
        found = children(self.body, "attribute") if self.body else []
        return {text(node.named_children[0]): node.named_children[1] for node in found}


class Check:
    def __init__(self, schema: Schema, folder: Path) -> None:
        self.schema = schema
        self.folder = folder
        self.wrong: list[tuple[str, int, str]] = []
        self.file = ""
        self.declared: dict[tuple[str, str], tuple[str, int]] = {}
        self.used: set[tuple[str, str]] = set()
        self.counts: dict[str, int] = {"resource": 0, "data": 0, "argument": 0}

    def run(self) -> None:
        parser = Parser(Language(tree_sitter_hcl.language()))
        parsed = []
        for path in sorted(self.folder.glob("*.tf")):
            tree = parser.parse(path.read_bytes())
            parsed.append((path.name, tree))
            self.file = path.name
            for node in walk(tree.root_node):
                if node.type == "ERROR" or node.is_missing:
                    self.error(node, "this is not HCL")
        if not parsed:
            raise SystemExit(f"{self.folder}: there is no .tf file")
        tops = [(name, Block.of(node)) for name, tree in parsed for body in children(tree.root_node, "body")
                for node in children(body, "block")]
        for self.file, block in tops:
            self.declare(block)
        for self.file, block in tops:
            self.top(block)
        for key, (self.file, line) in self.declared.items():
            if key[0] in ("var", "local", "data") and key not in self.used:
                self.wrong.append((self.file, line, f"{'.'.join(key)} is declared and not used"))

    def error(self, node: Node, message: str) -> None:
        self.wrong.append((self.file, node.start_point[0] + 1, message))

    def declare(self, block: Block) -> None:
        def add(kind: str, name: str, node: Node) -> None:
            if (kind, name) in self.declared:
                self.error(node, f"{kind}.{name} is declared twice")
            self.declared[kind, name] = (self.file, node.start_point[0] + 1)

        match block.kind, block.labels:
            case "variable", [name]:
                add("var", name, block.node)
            case "locals", []:
                for name, node in block.attributes().items():
                    add("local", name, node)
            case "resource", [kind, name]:
                add("resource", f"{kind}.{name}", block.node)
            case "data", [kind, name]:
                add("data", f"{kind}.{name}", block.node)
            case "output", [name]:
                add("output", name, block.node)

    def top(self, block: Block) -> None:
        if block.kind not in TOP:
            self.error(block.node, f"a block {block.kind} does not stand at the top")
        iterates: set[str] = set()
        if block.kind in ("resource", "data") and len(block.labels) == 2:
            iterates = {name for name in ("count", "for_each") if name in block.attributes()}
            shape = self.schema.shape(block.kind, block.labels[0])
            if shape is None:
                self.error(block.node, f"the provider has no {block.kind} {block.labels[0]}")
            else:
                self.counts[block.kind] += 1
                self.body(block, shape, " ".join(block.labels), top=True)
        elif block.kind in ("variable", "output"):
            allowed = VARIABLE if block.kind == "variable" else OUTPUT
            for name, node in block.attributes().items():
                if name not in allowed:
                    self.error(node, f"a {block.kind} has no {name}")
            if "description" not in block.attributes():
                self.error(block.node, f"{block.kind} {' '.join(block.labels)} has no description")
            if block.kind == "variable" and "type" not in block.attributes():
                self.error(block.node, f"variable {' '.join(block.labels)} has no type")
        self.references(block.node, iterates)

    def body(self, block: Block, shape: Shape, where: str, top: bool = False) -> None:
        given: set[str] = set()
        for name, node in block.attributes().items():
            self.counts["argument"] += 1
            given.add(name)
            if name in shape.arguments or (top and name in META):
                continue
            if name in shape.blocks:
                self.error(node, f"{where}: {name} is a block, written without =")
            else:
                self.error(node, f"{where}: there is no argument {name}{self.near(name, shape)}")
        for inner in block.blocks():
            name, content = inner.kind, inner
            if name == "dynamic":
                if len(inner.labels) != 1 or "for_each" not in inner.attributes():
                    self.error(inner.node, f"{where}: a dynamic block needs a name and for_each")
                    continue
                contents = [part for part in inner.blocks() if part.kind == "content"]
                if len(contents) != 1:
                    self.error(inner.node, f"{where}: a dynamic block needs one content")
                    continue
                name, content = inner.labels[0], contents[0]
            given.add(name)
            if top and name in META_BLOCKS:
                self.meta(inner, where)
            elif name in shape.blocks:
                self.body(content, shape.blocks[name][1], f"{where}: {name}")
            elif name in shape.arguments:
                self.error(inner.node, f"{where}: {name} is an argument, written with =")
            else:
                self.error(inner.node, f"{where}: there is no block {name}{self.near(name, shape)}")
        required = {name for name, needed in shape.arguments.items() if needed}
        required |= {name for name, (needed, _) in shape.blocks.items() if needed}
        for name in sorted(required - given):
            self.error(block.node, f"{where}: {name} is missing")

    def meta(self, block: Block, where: str) -> None:
        if block.kind != "lifecycle":
            return
        names = [*block.attributes(), *(inner.kind for inner in block.blocks())]
        for name in names:
            if name not in LIFECYCLE | LIFECYCLE_BLOCKS:
                self.error(block.node, f"{where}: lifecycle has no {name}")

    @staticmethod
    def near(name: str, shape: Shape) -> str:
        import difflib

        found = difflib.get_close_matches(name, [*shape.arguments, *shape.blocks], 1)
        return f"; did you mean {found[0]}?" if found else ""

    def references(self, root: Node, iterates: set[str]) -> None:
        for node in walk(root):
            if node.type == "function_call":
                name = text(node.named_children[0])
                if name not in FUNCTIONS and self.argument(node) != "type":
                    self.error(node, f"Terraform 1.5 has no function {name}")
            if node.type != "variable_expr" or self.is_key(node) or self.argument(node) in UNREAD:
                continue
            path = [text(node)]
            sibling = node.next_named_sibling
            while sibling is not None and sibling.type in ("get_attr", "index", "splat"):
                if sibling.type == "get_attr":
                    path.append(text(sibling).lstrip("."))
                elif sibling.type == "splat":
                    path += ["*", *re.findall(r"\.(\w+)", text(sibling).replace("[*]", "").replace(".*", "", 1))]
                else:
                    path.append("[]")
                sibling = sibling.next_named_sibling
            self.reference(node, path, iterates)

    @staticmethod
    def argument(node: Node) -> str:
        """The argument in whose expression a node stands."""
        above = node
        while above.parent is not None and above.type != "attribute":
            above = above.parent
        return text(above.named_children[0]) if above.type == "attribute" else ""

    @staticmethod
    def is_key(node: Node) -> bool:
        """Whether it is a bare key of an object."""
        above = node.parent
        if above is None or above.type != "expression" or above.parent is None or above.parent.type != "object_elem":
            return False
        return above.parent.named_children[0] == above and len(above.named_children) == 1

    def bound(self, node: Node) -> set[str]:
        """Names that a `for` or a `dynamic` around a node binds."""
        names: set[str] = set()
        above = node.parent
        while above is not None:
            if above.type in ("for_tuple_expr", "for_object_expr"):
                for intro in children(above, "for_intro"):
                    names |= {text(child) for child in children(intro, "identifier")}
            if above.type == "block":
                block = Block.of(above)
                if block.kind == "dynamic" and block.labels:
                    iterator = block.attributes().get("iterator")
                    names.add(text(iterator) if iterator is not None else block.labels[0])
            above = above.parent
        return names

    def reference(self, node: Node, path: list[str], iterates: set[str]) -> None:
        head, *rest = path
        match head:
            case "var" | "local":
                if not rest:
                    self.error(node, f"{head} of what?")
                    return
                key = (head, rest[0])
                self.used.add(key)
                if key not in self.declared:
                    self.error(node, f"{head}.{rest[0]} is not declared")
            case "data":
                self.asked("data", node, rest)
            case "each":
                if "for_each" not in iterates:
                    self.error(node, "each stands where there is no for_each")
            case "count":
                if "count" not in iterates:
                    self.error(node, "count stands where there is no count")
            case "path" | "self" | "terraform" | "module":
                pass
            case _ if head.startswith("aws_"):
                self.asked("resource", node, path)
            case _:
                if head not in self.bound(node):
                    self.error(node, f"{head} is nothing that can be referred to")

    def asked(self, kind: str, node: Node, path: list[str]) -> None:
        if len(path) < 2:
            self.error(node, f"{'.'.join(path)} names no {kind}")
            return
        key = (kind, f"{path[0]}.{path[1]}")
        self.used.add(key)
        if key not in self.declared:
            self.error(node, f"{kind} {key[1]} is not declared")
            return
        shape = self.schema.shape(kind, path[0])
        attribute = next((part for part in path[2:] if part not in ("*", "[]")), None)
        if shape and attribute and squeezed(attribute) not in shape.attributes:
            self.error(node, f"{kind} {path[0]} has no attribute {attribute}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="the package cdktf-cdktf-provider-aws, as a wheel")
    parser.add_argument("--wrong", type=Path, help="a folder of folders, each with a mistake that must be found")
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    schema = Schema(arguments.wheel)
    status = 0
    for folder in arguments.folders:
        check = Check(schema, folder)
        check.run()
        for file, line, message in sorted(check.wrong):
            print(f"{folder / file}:{line}: {message}")
            status = 1
        counts = check.counts
        print(
            f"{folder}: {counts['resource']} resources, {counts['data']} data sources, {counts['argument']} arguments "
            f"against AWS provider {schema.version}: {len(check.wrong)} mistakes"
        )
    for folder in sorted(arguments.wrong.iterdir()) if arguments.wrong else []:
        # The comment on the first line says what must be found.
        file = folder / "main.tf"
        wanted = file.read_text().splitlines()[0].removeprefix("# ")
        check = Check(schema, folder)
        check.run()
        found = [f"{line}: {message}" for _, line, message in sorted(check.wrong)]
        if found != [wanted]:
            print(f"{file}: should be refused with\n    {wanted}\nbut was with\n    " + "\n    ".join(found or ["nothing"]))
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
