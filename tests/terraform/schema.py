"""Reads every block, argument and reference of a folder of Terraform files against the AWS provider's schema.

`terraform validate` does this where the provider can be downloaded; here it may not be there.

    python tests/terraform/schema.py deploy/terraform
    python tests/terraform/schema.py --mistakes tests/terraform/mistakes   # each must be refused, for its own reason
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from hcl import Argument, Block, File, Place, Reference, read, references, scoped, text, walk
from provider import Item, Schema

META = {
    "resource": {"count", "for_each", "provider", "depends_on"},
    "data": {"count", "for_each", "provider", "depends_on"},
}
META_BLOCKS = {"lifecycle", "provisioner", "connection"}
LIFECYCLE = {"create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by"}
CONDITION = {"condition", "error_message"}
VARIABLE = {"description", "type", "default", "nullable", "sensitive", "ephemeral"}
OUTPUT = {"description", "value", "sensitive", "ephemeral", "depends_on"}
KINDS = {"terraform", "provider", "variable", "locals", "data", "resource", "output"}
BUILT_IN = {"path", "terraform"}
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

# The package knows no deprecations: these are what provider 6 warns of, among the resources that a change here may touch.
DEPRECATED = {
    "aws_s3_bucket": {
        "acceleration_status", "acl", "cors_rule", "grant", "lifecycle_rule", "logging", "object_lock_configuration",
        "policy", "replication_configuration", "request_payer", "server_side_encryption_configuration", "versioning",
        "website",
    },
    "aws_cloudwatch_event_rule": {"is_enabled"},
    "aws_iam_role": {"inline_policy", "managed_policy_arns"},
    "aws_s3_bucket_lifecycle_configuration.rule": {"prefix"},
    "aws_s3_bucket_object": set(),
    "aws_ecs_service": {"iam_role"},
    "aws_security_group": {"ingress", "egress"},
    "aws_iam_policy_document": {"source_json", "override_json"},
}  # fmt: skip
DEPRECATED_TYPES = {"aws_s3_bucket_object": "aws_s3_object", "aws_security_group_rule": "aws_vpc_security_group_*_rule"}
DEPRECATED_ATTRIBUTES = {"aws_region": {"name"}}


class Check:
    def __init__(self, schema: Schema, files: list[File]) -> None:
        self.schema = schema
        self.files = files
        self.problems: list[str] = []
        self.addresses: dict[str, Block] = {}
        self.locals: dict[str, Argument] = {}
        self.variables: dict[str, Block] = {}
        self.outputs: dict[str, Block] = {}
        self.used: Counter[str] = Counter()

    def run(self) -> list[str]:
        for file in self.files:
            for place in file.errors:
                self.tell(place, "cannot be parsed")
            for it in file.arguments:
                self.tell(it.place, f"argument {it.name} outside of any block")
            for it in file.blocks:
                self.declare(it)
        for file in self.files:
            for it in file.blocks:
                self.block(it)
        self.unused()
        return self.problems

    def tell(self, place: Place, problem: str) -> None:
        self.problems.append(f"{place}: {problem}")

    # What is there.

    def declare(self, block: Block) -> None:
        if block.kind not in KINDS:
            self.tell(block.place, f"unknown kind of block {block.kind}")
        elif block.kind in ("resource", "data"):
            if len(block.labels) != 2:
                self.tell(block.place, f"a {block.kind} has a type and a name")
                return
            self.enter(self.addresses, address(block), block)
        elif block.kind in ("variable", "output"):
            if len(block.labels) != 1:
                self.tell(block.place, f"a {block.kind} has one name")
                return
            self.enter(self.variables if block.kind == "variable" else self.outputs, block.labels[0], block)
        elif block.kind == "locals":
            for it in block.arguments:
                self.enter(self.locals, it.name, it)

    def enter(self, names: dict, name: str, it: Block | Argument) -> None:
        if name in names:
            self.tell(it.place, f"{name} is declared twice, first at {names[name].place}")
        else:
            names[name] = it

    # What is in it.

    def block(self, block: Block) -> None:
        if block.kind in ("resource", "data") and len(block.labels) == 2:
            self.resource(block)
        elif block.kind == "variable":
            self.plain(block, VARIABLE, {"validation": CONDITION}, {"description", "type"})
        elif block.kind == "output":
            self.plain(block, OUTPUT, {"precondition": CONDITION}, {"description", "value"})
        if block.kind not in ("terraform",):
            self.references(block)

    def plain(self, block: Block, allowed: set[str], inner: dict[str, set[str]], required: set[str]) -> None:
        for it in block.arguments:
            if it.name not in allowed:
                self.tell(it.place, f"unknown argument {it.name} in {block.kind}")
        for name in required - {it.name for it in block.arguments}:
            self.tell(block.place, f"{block.kind} {' '.join(block.labels)} has no {name}")
        for it in block.blocks:
            if it.kind not in inner:
                self.tell(it.place, f"unknown block {it.kind} in {block.kind}")
            else:
                self.plain(it, inner[it.kind], {}, inner[it.kind])

    def resource(self, block: Block) -> None:
        kind, name = block.kind, block.labels[0]
        if not self.schema.knows(kind, name):
            self.tell(block.place, f"unknown {'data source' if kind == 'data' else kind} {name}")
            return
        if name in DEPRECATED_TYPES:
            self.tell(block.place, f"{name} is deprecated: take {DEPRECATED_TYPES[name]}")
        if block.argument("count") and block.argument("for_each"):
            self.tell(block.place, "count and for_each exclude each other")
        own = [it for it in block.blocks if it.kind in META_BLOCKS]
        for it in own:
            if it.kind == "lifecycle":
                self.plain(it, LIFECYCLE, {"precondition": CONDITION, "postcondition": CONDITION}, set())
                self.ignored(it, self.schema.top(kind, name))
            else:
                self.tell(it.place, f"{it.kind} is not used in this project")
        self.body(
            [it for it in block.arguments if it.name not in META[kind]],
            [it for it in block.blocks if it.kind not in META_BLOCKS],
            self.schema.top(kind, name),
            name,
            block.place,
        )

    def ignored(self, lifecycle: Block, items: dict[str, Item]) -> None:
        given = lifecycle.argument("ignore_changes")
        if given is None:
            return
        for it in references(given.place.path, given.value):
            if it.root not in items:
                self.tell(it.place, f"ignore_changes names {it.root}, which is no argument")

    def body(
        self, arguments: list[Argument], blocks: list[Block], items: dict[str, Item], where: str, place: Place
    ) -> None:
        deprecated = DEPRECATED.get(where, set())
        given: Counter[str] = Counter()
        for it in arguments:
            given[it.name] += 1
            item = items.get(it.name)
            if item is None:
                self.tell(it.place, f"unknown argument {it.name} in {where}")
            elif item.block:
                self.tell(it.place, f"{it.name} in {where} is a block, not an argument")
            if it.name in deprecated:
                self.tell(it.place, f"{it.name} in {where} is deprecated")
            if given[it.name] > 1:
                self.tell(it.place, f"{it.name} is given twice in {where}")
        for it in blocks:
            dynamic = it.kind == "dynamic"
            name = it.labels[0] if dynamic and it.labels else it.kind
            inner = it
            if dynamic:
                contents = [x for x in it.blocks if x.kind == "content"]
                if len(contents) != 1 or it.argument("for_each") is None:
                    self.tell(it.place, f"dynamic {name} in {where} needs for_each and one content")
                    continue
                for x in it.arguments:
                    if x.name not in ("for_each", "iterator", "labels"):
                        self.tell(x.place, f"unknown argument {x.name} in dynamic {name}")
                inner = contents[0]
            item = items.get(name)
            if item is None:
                self.tell(it.place, f"unknown block {name} in {where}")
                continue
            if not item.block:
                self.tell(it.place, f"{name} in {where} is an argument, not a block")
                continue
            if name in deprecated:
                self.tell(it.place, f"{name} in {where} is deprecated")
            given[name] += 1
            if given[name] > 1 and not item.repeated:
                self.tell(it.place, f"block {name} stands twice in {where}, which takes one")
            if item.interface:
                self.body(inner.arguments, inner.blocks, self.schema.nested(item.interface), f"{where}.{name}", inner.place)
        for name, item in items.items():
            if item.required and not given[name]:
                self.tell(place, f"{where} needs {name}")

    # What it names.

    def references(self, block: Block) -> None:
        skip = [it.value for it in block.arguments if block.kind == "variable" and it.name == "type"]
        skip += [
            it.value
            for lifecycle in block.blocks
            if lifecycle.kind == "lifecycle"
            for it in lifecycle.arguments
            if it.name == "ignore_changes"
        ]
        own = address(block) if block.kind in ("resource", "data") else None
        for it in walk(block.node):
            if it.type == "function_call" and not any(x.start_byte <= it.start_byte < x.end_byte for x in skip):
                name = text(it.named_children[0])
                if name not in FUNCTIONS:
                    self.tell(Place(block.place.path, it.start_point.row + 1), f"Terraform 1.5 has no function {name}")
        for it in references(block.place.path, block.node):
            if any(x.start_byte <= it.node.start_byte < x.end_byte for x in skip):
                continue
            self.reference(it, block, own)

    def reference(self, it: Reference, block: Block, own: str | None) -> None:
        first = it.steps[0] if it.steps else ""
        if it.root == "var":
            self.used[f"var.{first}"] += 1
            if first not in self.variables:
                self.tell(it.place, f"var.{first} is not declared")
            if block.kind == "variable" and block.labels != [first]:
                self.tell(it.place, f"validation of {block.labels[0]} reads var.{first}: Terraform before 1.9 refuses that")
        elif it.root == "local":
            self.used[f"local.{first}"] += 1
            if first not in self.locals:
                self.tell(it.place, f"local.{first} is not declared")
        elif it.root == "data" or it.root.startswith("aws_"):
            steps = [it.root, *it.steps]
            parts, rest = (steps[:3], steps[3:]) if it.root == "data" else (steps[:2], steps[2:])
            name = ".".join(parts)
            self.used[name] += 1
            found = self.addresses.get(name)
            if found is None:
                self.tell(it.place, f"{name} is not declared")
            elif name == own:
                self.tell(it.place, f"{name} refers to itself")
            else:
                self.attribute(it, found, name, rest)
        elif it.root in ("count", "each", "self"):
            if own is None or (it.root != "self" and block.argument("for_each" if it.root == "each" else "count") is None):
                self.tell(it.place, f"{it.root}.{first} outside of its resource")
        elif it.root not in BUILT_IN | scoped(it.node):
            self.tell(it.place, f"unknown name {it.root}")

    def attribute(self, it: Reference, found: Block, name: str, rest: list[str]) -> None:
        many = found.argument("count") or found.argument("for_each")
        if rest and rest[0] in ("[]", "[*]"):
            if not many:
                self.tell(it.place, f"{name} is one, and takes no index")
            rest = rest[1:]
        elif rest and many:
            self.tell(it.place, f"{name} has count or for_each: take [0], [*] or one()")
        if rest and rest[0] not in ("[]", "[*]") and self.schema.knows(found.kind, found.labels[0]):
            if rest[0] not in self.schema.attributes(found.kind, found.labels[0]):
                self.tell(it.place, f"{name} has no attribute {rest[0]}")
            elif rest[0] in DEPRECATED_ATTRIBUTES.get(found.labels[0], set()):
                self.tell(it.place, f"{name}.{rest[0]} is deprecated")

    def unused(self) -> None:
        for name, block in self.variables.items():
            own = sum(1 for it in references(block.place.path, block.node) if it.root == "var" and it.steps[:1] == [name])
            if self.used[f"var.{name}"] <= own:
                self.tell(block.place, f"var.{name} is never used")
        for name, argument in self.locals.items():
            if not self.used[f"local.{name}"]:
                self.tell(argument.place, f"local.{name} is never used")
        for name, block in self.addresses.items():
            if block.kind == "data" and not self.used[name]:
                self.tell(block.place, f"{name} is never used")


def address(block: Block) -> str:
    return ".".join((["data"] if block.kind == "data" else []) + block.labels)


def example(check: Check, path: Path) -> None:
    """terraform.tfvars.example, also its lines that are commented out, names variables that exist."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r"(?:#\s?)?([a-z_]+)\s+=", line)
        if found and found[1] not in check.variables:
            check.tell(Place(path, number), f"there is no variable {found[1]}")


def check_folder(schema: Schema, folder: Path) -> list[str]:
    files = [read(it) for it in sorted(folder.glob("*.tf"))]
    if not files:
        return [f"{folder}: holds no .tf file"]
    check = Check(schema, files)
    check.run()
    example(check, folder / "terraform.tfvars.example")
    if not any(it.labels[0].startswith("aws_") for it in check.addresses.values()):
        check.problems.append(f"{folder}: holds no resource of AWS")
    return check.problems


def check_mistakes(schema: Schema, folder: Path) -> list[str]:
    """Each file says in its first line what is wrong with it, and is refused for that alone; `correct.tf` is not."""
    problems, count = [], 0
    for path in sorted(folder.glob("*.tf")):
        expected = re.match(r"# expect: (.+)", path.read_text())
        found = Check(schema, [read(path)]).run()
        count += 1
        if expected is None:
            problems.append(f"{path}: the first line is not `# expect: ...`")
        elif expected[1] == "nothing":
            problems += found
        elif len(found) != 1 or expected[1] not in found[0]:
            problems.append(f"{path}: expected {expected[1]!r} alone, found {found}")
    if count < 20:
        problems.append(f"{folder}: {count} files; some are gone")
    return problems


def main(arguments: list[str]) -> int:
    if not arguments or arguments == ["--mistakes"]:
        print(__doc__)
        return 64
    schema = Schema()
    if arguments[0] == "--mistakes":
        problems = check_mistakes(schema, Path(arguments[1]))
    else:
        problems = [it for folder in arguments for it in check_folder(schema, Path(folder))]
    for it in problems:
        print(it)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
