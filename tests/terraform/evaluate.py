"""Evaluates deploy/terraform without a provider, and looks at what comes out.

Every resource becomes a local value: its arguments as they are, and made-up values for what AWS would add. Terraform then
evaluates every expression, condition and output for several sets of variables: cycles, wrong types, nulls in texts and
conditions that do not hold show as they would in a plan.

    python tests/terraform/evaluate.py [--binary target/debug/trailhound]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from hcl import Block, File, read, references, text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "terraform"
ACCOUNT = "111122223333"
RULES = str(ROOT / "monitored_events.json")

TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:trail"
TRAIL = f"arn:aws:cloudtrail:us-east-1:{ACCOUNT}:trail/main"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000"
EXISTING = {"create_trail": False, "existing_bucket_name": "central-logs", "existing_trail_arn": TRAIL}
EVERYTHING = {
    "is_organization_trail": True, "access_logs": True, "alert_email": "security@example.com", "log_kms": False,
    "slack": {"team_id": "T012ABCDE", "channel_id": "C012ABCDE"}, "realtime_events": "all", "queue_encryption": "kms",
    "teams": {"tenant_id": "a", "team_id": "b", "channel_id": "c"}, "rules_file": RULES, "pin_rules_version": True,
    "metrics": "emf", "use_spot": True, "operator_principal_arns": [f"arn:aws:iam::{ACCOUNT}:role/oncall"],
    "log_expiration_days": 0, "alarm_topic": TOPIC, "deletion_protection": False, "log_level": "DEBUG",
    "alert_format": "chatbot", "max_alerts_per_minute": 100,
}  # fmt: skip

# Sets of variables that work; image_tag is added to each.
GOOD: dict[str, dict] = {
    "defaults": {},
    "everything": EVERYTHING,
    "longest names": {"prefix": "a" * 17, "environment": "b" * 10, "access_logs": True, "aws_region": "ap-southeast-1",
                      "operator_principal_arns": [f"arn:aws:iam::{ACCOUNT}:user/a"]},
    "bucket events": {**EXISTING, "realtime_events": "writes", "existing_bucket_kms_key_arn": KEY},
    "trail topic": {**EXISTING, "existing_trail_arn": None, "existing_trail_topic_arn": TOPIC, "queue_encryption": "kms",
                    "operator_principal_arns": [f"arn:aws:iam::{ACCOUNT}:role/oncall"]},
    "own network, key and rules": {"vpc_id": "vpc-1", "subnet_ids": ["subnet-1"], "assign_public_ip": True, "kms_key_arn": KEY,
                                   "rules_uri": "s3://rules/team/events.json?versionId=abc", "rules_kms_key_arn": KEY},
    "image of others": {"image": "ghcr.io/example/trailhound@sha256:" + "0" * 64, "image_tag": None, "rules_file": RULES},
    "image of another account": {"image": "444455556666.dkr.ecr.eu-west-1.amazonaws.com/team/trailhound:1.0.0", "image_tag": None},
}  # fmt: skip

# Sets that are refused, and a part of what Terraform says.
BAD: list[tuple[dict, str]] = [
    ({"image_tag": None}, "Set image_tag"),
    ({"create_trail": False}, "needs existing_bucket_name"),
    ({"existing_bucket_name": "logs"}, "belong to create_trail = false"),
    ({"rules_file": RULES, "rules_uri": "s3://rules/a"}, "not both"),
    ({"rules_file": "missing.json"}, "rules_file is the path"),
    ({"rules_uri": "https://rules/a"}, "rules_uri is s3://bucket/key"),
    ({"vpc_id": "vpc-1"}, "vpc_id and subnet_ids together"),
    ({"subnet_ids": ["subnet-1"]}, "vpc_id and subnet_ids together"),
    ({"assign_public_ip": True}, "no internet gateway"),
    ({"min_tasks": 5}, "below min_tasks"),
    ({"min_tasks": 0}, "at least 1"),
    ({"prefix": "a" * 24}, "28 characters"),
    ({"prefix": "Security"}, "lower-case"),
    ({"aws_region": "Ireland"}, "code of a region"),
    ({"environment": "Test"}, "lower-case"),
    ({"retention_days": 0}, "whole number"),
    ({"log_level": "ERROR"}, "silence the alarm"),
    ({"alert_format": "slack"}, "alert_format is"),
    ({"max_alerts_per_minute": 1.5}, "whole number"),
    ({"alert_email": "nobody"}, "one email address"),
    ({"kms_key_arn": "alias/mine"}, "not of an alias"),
    ({"log_expiration_days": 100}, "more than 180"),
    ({"task_memory": 600}, "multiple of 512"),
    ({"task_cpu": 300}, "task_cpu is"),
    ({"task_cpu": 1024}, "one of 2048, 3072"),
    ({"task_memory": 1536}, "one of 512, 1024, 2048"),
    ({"vpc_cidr": "10.0.0.0/28"}, "/16 to /24"),
    ({"operator_principal_arns": ["*"]}, "ARNs of IAM roles"),
    ({"realtime_events": "some"}, "off, writes or all"),
    ({"metrics": "otel"}, "none or emf"),
    ({"use_spot": "sometimes"}, "bool"),
]

# Changes to the files that must not pass: file, text, its replacement, a part of what is said.
MUTATIONS = [
    ("queue.tf", """      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = [local.bucket_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
""", "", "Bucket lets ['s3.amazonaws.com'] in for anybody"),
    ("iam.tf", '"sqs:ReceiveMessage", "sqs:DeleteMessage"', '"sqs:*"', "Queue allows every action"),
    ("alarms.tf", "alerts are not accepted;", "alerts are not taken;", "never logs"),
    ("ecs.tf", "stopTimeout = 30", "stopTimeout = 60", "stop timeout"),
    ("ecs.tf", "tostring(local.realtime)", '"true"', "inline records"),
    ("ecs.tf", "= local.bucket\n", "= null\n", "not a text"),
    ("ecs.tf", "TRAILHOUND_SHUTDOWN__DEADLINE ", "TRAILHOUND_SHUTDOWN__DEADLIN ", "refuses the task's environment"),
    ("ecs.tf", '"25s"', '"35s"', "refuses the task's environment"),
    ("kms.tf", "local.new_trail_arn", "aws_cloudtrail.this[0].arn", "Cycle"),
    ("iam.tf", 'service_arn]', 'service_name.arn]', "Unsupported attribute"),
    ("alarms.tf", "-oldest-message", "-eldest-message", "docs/operations.md does not say"),
    ("iam.tf", '"s3:GetObject", "s3:GetObjectVersion"', '"s3:GetObject"', "README.md differ in ['s3:GetObjectVersion']"),
    ("table.tf", '"Rules", ', "", "projection of the table differ"),
    ("bucket.tf", '-access-', "-access-logs-of-the-bucket-", "longer than 63"),
]

# What AWS would add. Not named here: a text that says where it comes from.
MADE_UP = {
    "data.aws_caller_identity.account_id": f'"{ACCOUNT}"',
    "data.aws_partition.partition": '"aws"',
    "data.aws_partition.dns_suffix": '"amazonaws.com"',
    "data.aws_availability_zones.names": '["a", "b", "c"]',
    "data.aws_organizations_organization.id": '"o-example123"',
    "data.aws_organizations_organization.master_account_id": '"444455556666"',
    "aws_ecr_repository.repository_url": f'"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/trailhound"',
}


class Translation:
    def __init__(self, folder: Path) -> None:
        self.files = [read(it) for it in sorted(folder.glob("*.tf"))]
        self.asked: dict[str, set[str]] = {}
        for file in self.files:
            for block in file.blocks:
                for it in references(file.path, block.node):
                    name, rest = _resource(it.root, it.steps)
                    if name:
                        attribute = next((x for x in rest if x not in ("[]", "[*]")), None)
                        self.asked.setdefault(name, set()).update({attribute} if attribute else set())

    def write(self, folder: Path) -> None:
        parts, names = [], []
        for file in self.files:
            for block in file.blocks:
                if block.kind == "variable":
                    parts.append(text(block.node))
                elif block.kind == "locals":
                    parts.append(self.render(file, block.node))
                    names += [it.name for it in block.arguments]
                elif block.kind == "output":
                    parts.append(self.render(file, block.node))
                elif block.kind in ("resource", "data"):
                    name = _local(_address(block))
                    parts.append(f"locals {{\n{name} = {self.resource(file, block)}\n}}")
                    parts += self.conditions(file, block)
                    names.append(name)
        everything = "\n".join(f"{it} = local.{it}" for it in names)
        parts.append(f'output "everything" {{\nvalue = {{\n{everything}\n}}\n}}')
        (folder / "main.tf").write_text("\n\n".join(parts) + "\n")

    def render(self, file: File, node, names: tuple[tuple[str, str], ...] = ()) -> str:
        """The text of `node`, with references to resources, and `names`, replaced."""
        edits = []
        for it in references(file.path, node):
            name, _ = _resource(it.root, it.steps)
            if name:
                # `aws_x.y` or `data.aws_x.y`: as many steps as the address has.
                end, steps = it.node, name.count(".")
                for _ in range(steps):
                    end = end.next_named_sibling
                edits.append((it.node.start_byte, end.end_byte, f"local.{_local(name)}"))
            for old, new in names:
                root, step = old.split(".")
                if it.root == root and it.steps[:1] == [step]:
                    edits.append((it.node.start_byte, it.node.next_named_sibling.end_byte, new))
        out, at = b"", node.start_byte
        for start, end, new in sorted(edits):
            out += file.source[at:start] + new.encode()
            at = end
        return (out + file.source[at : node.end_byte]).decode()

    def resource(self, file: File, block: Block) -> str:
        count, each = block.argument("count"), block.argument("for_each")
        names = (("count.index", "count_index"),) if count else (("each.key", "each_key"), ("each.value", "each_value"))
        item = self.item(file, block, names)
        if count:
            return f"[for count_index in range({self.render(file, count.value)}) : {item}]"
        if each:
            return f"{{ for each_key, each_value in {self.render(file, each.value)} : each_key => {item} }}"
        return item

    def item(self, file: File, block: Block, names: tuple[tuple[str, str], ...]) -> str:
        body = self.body(file, block, names)
        kind = ("data." if block.kind == "data" else "") + block.labels[0]
        added = []
        for attribute in sorted(self.asked.get(_address(block), set())):
            if block.argument(attribute) is None and not any(it.kind == attribute for it in block.blocks):
                added.append(f"{attribute} = {self.made_up(file, block, kind, attribute, names, body)}")
        return f"merge({body}, {{ {', '.join(added)} }})"

    def made_up(self, file: File, block: Block, kind: str, attribute: str, names, body: str) -> str:
        name = block.argument("name") or block.argument("bucket")
        called = self.render(file, name.value, names) if name else f'"{block.labels[1]}"'
        if f"{kind}.{attribute}" in MADE_UP:
            return MADE_UP[f"{kind}.{attribute}"]
        if attribute == "json":
            return f"jsonencode({body})"
        if kind == "aws_sqs_queue" and attribute in ("url", "id"):
            return f'"https://sqs.${{var.aws_region}}.amazonaws.com/{ACCOUNT}/${{{called}}}"'
        if attribute == "arn":
            service = kind.split("_")[1]
            middle = "::" if service in ("s3", "iam") else f":${{var.aws_region}}:{ACCOUNT}"
            part = "" if service in ("s3", "sns", "sqs") else {"cloudtrail": "trail/", "dynamodb": "table/"}.get(service, f"{kind}/")
            return f'"arn:aws:{service}{middle}:${{{called}}}"' if not part else f'"arn:aws:{service}{middle}:{part}${{{called}}}"'
        if kind == "aws_s3_bucket" and attribute == "id":
            return called
        return f'"{kind}.{block.labels[1]}.{attribute}"'

    def body(self, file: File, block: Block, names: tuple[tuple[str, str], ...]) -> str:
        meta = {"count", "for_each", "depends_on", "provider"}
        lines = [f"{it.name} = {self.render(file, it.value, names)}" for it in block.arguments if it.name not in meta]
        nested: dict[str, list[str]] = {}
        for it in block.blocks:
            if it.kind == "lifecycle":
                continue
            if it.kind == "dynamic":
                label, content = it.labels[0], next(x for x in it.blocks if x.kind == "content")
                each = self.render(file, it.argument("for_each").value, names)
                items = f"[for key_, value_ in {each} : {{ key = key_, value = value_ }}]"
                nested.setdefault(label, []).append(f"[for {label} in {items} : {self.body(file, content, names)}]")
            else:
                nested.setdefault(it.kind, []).append(f"[{self.body(file, it, names)}]")
        lines += [f"{name} = concat({', '.join(lists)})" for name, lists in nested.items()]
        return "{\n" + "\n".join(lines) + "\n}"

    def conditions(self, file: File, block: Block) -> list[str]:
        found = []
        for lifecycle in (it for it in block.blocks if it.kind == "lifecycle"):
            for number, it in enumerate(lifecycle.blocks):
                name = f"{_local(_address(block))}_{number}"
                found.append(f'output "{name}" {{\nvalue = null\n{self.render(file, it.node)}\n}}')
        return found


def _address(block: Block) -> str:
    return ".".join((["data"] if block.kind == "data" else []) + block.labels)


def _resource(root: str, steps: list[str]) -> tuple[str | None, list[str]]:
    if root == "data" and len(steps) >= 2:
        return f"data.{steps[0]}.{steps[1]}", steps[2:]
    if root.startswith("aws_") and steps:
        return f"{root}.{steps[0]}", steps[1:]
    return None, []


def _local(address: str) -> str:
    return address.replace(".", "__")


class Evaluation:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "terraformrc").touch()
        self.env = {**os.environ, "TF_CLI_CONFIG_FILE": str(folder / "terraformrc"), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}

    def run(self, variables: dict) -> tuple[dict | None, str]:
        """The outputs, or what Terraform says against it."""
        (self.folder / "terraform.tfvars.json").write_text(json.dumps({"image_tag": "1.0.0", **variables}))
        state = self.folder / "terraform.tfstate"
        state.unlink(missing_ok=True)
        done = self.terraform("apply", "-auto-approve", "-input=false", "-no-color")
        if done.returncode:
            # Terraform breaks its lines and draws a frame.
            return None, " ".join(re.sub(r"[│╷╵]", " ", done.stderr).split())
        outputs = json.loads(state.read_text())["outputs"]
        return {name: it["value"] for name, it in outputs.items()}, ""

    def terraform(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["terraform", *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120)


def environment(outputs: dict) -> dict[str, str]:
    task = outputs["everything"]["aws_ecs_task_definition__this"]
    container = json.loads(task["container_definitions"])[0]
    return {it["name"]: it["value"] for it in container["environment"]}


def look(scenario: str, outputs: dict, variables: dict, binary: Path | None) -> list[str]:
    """What must hold of every plan."""
    problems = []
    everything = outputs["everything"]
    for name, value in everything.items():
        for it in value if isinstance(value, list) else [value]:
            if "aws_iam_policy_document__" in name:
                problems += [f"{name}: {x}" for x in look_at_policy(name, it)]
            elif isinstance(it, dict):
                problems += [f"{name}: {x}" for x in look_at_names(name, it)]
    for name, value in environment(outputs).items():
        if not isinstance(value, str):
            problems.append(f"the variable {name} is {value!r}, not a text")
    for it in everything["failing_messages"]:
        if not any(it in path.read_text() for path in (ROOT / "src").rglob("*.rs")):
            problems.append(f"the daemon never logs {it!r}: alarms.tf waits for it")
    task = json.loads(everything["aws_ecs_task_definition__this"]["container_definitions"])[0]
    if f"{task['stopTimeout']}s" != environment(outputs)["TRAILHOUND_SHUTDOWN__STOP_TIMEOUT"]:
        problems.append("the daemon is told another stop timeout than ECS")
    runbook = (ROOT / "docs" / "operations.md").read_text()
    for name, value in everything.items():
        if name.startswith("aws_cloudwatch_metric_alarm__"):
            short = value["alarm_name"].removeprefix(everything["name"])
            if f"`...{short}`" not in runbook:
                problems.append(f"docs/operations.md does not say what to do about the alarm ...{short}")
    problems += look_at_readme(everything)
    # Records in messages are taken only where EventBridge sends any.
    inline = environment(outputs)["TRAILHOUND_SOURCE__INLINE_RECORDS"]
    if inline != ("true" if variables.get("realtime_events", "off") != "off" else "false"):
        problems.append(f"inline records are {inline}")
    if binary and not problems:
        problems += look_at_configuration(binary, environment(outputs))
    return [f"{scenario}: {it}" for it in problems]


def look_at_policy(name: str, policy: dict) -> list[str]:
    problems = []
    for statement in policy.get("statement", []):
        services = [x for p in statement.get("principals", []) if p["type"] == "Service" for x in p["identifiers"]]
        conditions = {it["variable"] for it in statement.get("condition", [])}
        guards = {"aws:SourceArn", "aws:SourceAccount", "kms:EncryptionContext:aws:logs:arn"}
        sid = statement.get("sid", "?")
        if services and not conditions & guards:
            problems.append(f"{sid} lets {services} in for anybody: it needs aws:SourceArn or aws:SourceAccount")
        if any(it.endswith(":*") for it in statement.get("actions", [])) and statement.get("effect") != "Deny":
            if sid not in ("Account", "OwnAccount"):
                problems.append(f"{sid} allows every action of a service")
        everyone = [p for p in statement.get("principals", []) if "*" in p["identifiers"]]
        if everyone and statement.get("effect") != "Deny" and not conditions and sid != "ImageLayers":
            problems.append(f"{sid} allows everybody")
        for values in [statement.get("resources", [name]), *[it["values"] for it in statement.get("condition", [])]]:
            if not values or any(it is None or "missing" in it for it in values):
                problems.append(f"{sid} has an empty value: {values}")
    return problems


def look_at_readme(everything: dict) -> list[str]:
    """The task role may do what README.md says that trailhound needs, and the table is the one that README.md makes."""
    readme, problems = (ROOT / "README.md").read_text(), []
    statements = json.loads(re.search(r"\*\*Permissions\*\*.*?```json\n(.*?)```", readme, re.DOTALL)[1])["Statement"]
    told = {action for it in statements for action in ([it["Action"]] if isinstance(it["Action"], str) else it["Action"])}
    granted = {action for it in everything["data__aws_iam_policy_document__task"]["statement"] for action in it["actions"]}
    # The table's key asks for some more.
    extra = {"kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"}
    if granted - extra != told:
        problems.append(f"the task role and README.md differ in {sorted((granted - extra) ^ told)}")
    table = everything["aws_dynamodb_table__events"]
    index = table["global_secondary_index"][0]
    for name, value in (("keys", f"AttributeName={table['hash_key']},KeyType=HASH AttributeName={table['range_key']},KeyType=RANGE"),
                        ("index", f"IndexName={index['name']},KeySchema=[{{AttributeName={index['hash_key']},KeyType=HASH}},"
                                  f"{{AttributeName={index['range_key']},KeyType=RANGE}}]"),
                        ("projection", f"ProjectionType={index['projection_type']},NonKeyAttributes=[{','.join(index['non_key_attributes'])}]"),
                        ("TTL", f"AttributeName={table['ttl'][0]['attribute_name']}\n```")):
        if value not in readme:
            problems.append(f"the {name} of the table differ from README.md: {value}")
    return problems


LIMITS = {"aws_s3_bucket": ("bucket", 63), "aws_iam_role": ("name", 64), "aws_cloudwatch_event_rule": ("name", 64), "aws_sqs_queue": ("name", 80)}


def look_at_names(address: str, resource: dict) -> list[str]:
    argument, limit = LIMITS.get(address.split("__")[0], ("", 0))
    value = resource.get(argument)
    return [f"{value} is longer than {limit}"] if value and len(value) > limit else []


def look_at_configuration(binary: Path, environment: dict[str, str]) -> list[str]:
    """`trailhound config` takes every variable of the task definition, and has its value from it."""
    bare = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run([binary, "config"], env=bare, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        return [f"trailhound config refuses the task's environment: {done.stderr.strip()}"]
    # It names the origin of each value.
    return [f"trailhound config does not use {it}" for it, value in environment.items() if value and not it.startswith("AWS_") and it not in done.stdout]


def mutate(file: str, old: str, new: str, expected: str, binary: Path | None) -> list[str]:
    """A changed copy of the files is found fault with."""
    if "environment" in expected and binary is None:
        return []
    with tempfile.TemporaryDirectory() as changed, tempfile.TemporaryDirectory() as folder:
        for path in FOLDER.glob("*.tf"):
            source = path.read_text()
            if path.name == file and old not in source:
                return [f"{file} no longer holds {old!r}: mend MUTATIONS"]
            Path(changed, path.name).write_text(source.replace(old, new) if path.name == file else source)
        Translation(Path(changed)).write(Path(folder))
        variables = GOOD["longest names"]
        outputs, error = Evaluation(Path(folder)).run(variables)
        said = error if outputs is None else " ".join(look("", outputs, variables, binary))
    return [] if expected in said else [f"{file}: {old!r} -> {new!r} is not found: {said[:200]!r}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, help="a built trailhound, to check the task's environment with")
    options = parser.parse_args()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        Translation(FOLDER).write(Path(folder))
        evaluation = Evaluation(Path(folder))
        for scenario, variables in GOOD.items():
            outputs, error = evaluation.run(variables)
            if outputs is None:
                problems.append(f"{scenario}: {error}")
            else:
                problems += look(scenario, outputs, variables, options.binary and options.binary.resolve())
        # The example as it is.
        (Path(folder) / "terraform.tfvars").write_text((FOLDER / "terraform.tfvars.example").read_text())
        outputs, error = evaluation.run({})
        problems += [f"terraform.tfvars.example: {error}"] if outputs is None else []
        (Path(folder) / "terraform.tfvars").unlink()
        for variables, expected in BAD:
            outputs, error = evaluation.run(variables)
            if outputs is not None:
                problems.append(f"{variables} is taken, and should be refused: {expected}")
            elif expected not in error:
                problems.append(f"{variables} is refused, but without {expected!r}: {error}")
    problems += [it for mutation in MUTATIONS for it in mutate(*mutation, options.binary and options.binary.resolve())]
    for it in problems:
        print(it)
    print(f"{len(GOOD)} plans, {len(BAD)} refused ones, {len(MUTATIONS)} mutations, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
