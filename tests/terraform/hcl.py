"""Terraform's files as a syntax tree: blocks, arguments, references, each with its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

import tree_sitter
import tree_sitter_hcl

PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_hcl.language()))


@dataclass
class Place:
    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass
class Argument:
    name: str
    value: tree_sitter.Node
    place: Place


@dataclass
class Block:
    kind: str
    labels: list[str]
    arguments: list[Argument]
    blocks: list[Block]
    node: tree_sitter.Node
    place: Place

    def argument(self, name: str) -> Argument | None:
        return next((it for it in self.arguments if it.name == name), None)


@dataclass
class Reference:
    """`root.steps[0]...`: the names after the root, with `[]` for an index and `[*]` for a splat."""

    root: str
    steps: list[str]
    node: tree_sitter.Node
    last: tree_sitter.Node
    place: Place


@dataclass
class File:
    path: Path
    source: bytes
    blocks: list[Block] = field(default_factory=list)
    arguments: list[Argument] = field(default_factory=list)
    errors: list[Place] = field(default_factory=list)


def text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode()


def read(path: Path) -> File:
    source = path.read_bytes()
    root = PARSER.parse(source).root_node
    file = File(path, source)
    if root.has_error:
        file.errors = [Place(path, it.start_point.row + 1) for it in walk(root) if it.type == "ERROR" or it.is_missing]
    for body in root.named_children:
        if body.type == "body":
            file.arguments, file.blocks = _body(path, body)
    return file


def walk(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.named_children:
        yield from walk(child)


def _body(path: Path, body: tree_sitter.Node) -> tuple[list[Argument], list[Block]]:
    arguments, blocks = [], []
    for node in body.named_children:
        place = Place(path, node.start_point.row + 1)
        if node.type == "attribute":
            name, value = (it for it in node.named_children if it.type in ("identifier", "expression"))
            arguments.append(Argument(text(name), value, place))
        elif node.type == "block":
            blocks.append(_block(path, node, place))
    return arguments, blocks


def _block(path: Path, node: tree_sitter.Node, place: Place) -> Block:
    kind, *rest = node.named_children
    labels = [text(it).strip('"') for it in rest if it.type in ("identifier", "string_lit")]
    inner = next((it for it in rest if it.type == "body"), None)
    arguments, blocks = _body(path, inner) if inner else ([], [])
    return Block(text(kind), labels, arguments, blocks, node, place)


def references(path: Path, node: tree_sitter.Node) -> Iterator[Reference]:
    """Every name that is read inside of `node`, keys of objects left out."""
    for it in walk(node):
        if it.type != "variable_expr" or _is_key(it):
            continue
        steps, last, sibling = [], it, it.next_named_sibling
        while sibling is not None and sibling.type in ("get_attr", "index", "splat"):
            if sibling.type == "get_attr":
                steps.append(text(sibling).removeprefix("."))
            else:
                steps.append("[*]" if sibling.type == "splat" else "[]")
                # After a splat the attributes are children of it.
                if sibling.type == "splat":
                    steps += [text(x).removeprefix(".") for x in walk(sibling) if x.type == "get_attr"]
            last, sibling = sibling, sibling.next_named_sibling
        yield Reference(text(it), steps, it, last, Place(path, it.start_point.row + 1))


def _is_key(node: tree_sitter.Node) -> bool:
    expression = node.parent
    if expression is None or expression.parent is None or expression.named_child_count != 1:
        return False
    element = expression.parent
    return element.type == "object_elem" and element.child_by_field_name("key") == expression


def scoped(node: tree_sitter.Node) -> set[str]:
    """The names that `for` expressions and dynamic blocks around `node` bring in."""
    names: set[str] = set()
    inside, around = node, node.parent
    while around is not None:
        if around.type in ("for_tuple_expr", "for_object_expr"):
            for intro in around.named_children:
                if intro.type == "for_intro" and intro != inside:
                    names |= {text(it) for it in intro.named_children if it.type == "identifier"}
        if around.type == "block" and text(around.named_children[0]) == "dynamic":
            labels = [it for it in around.named_children[1:] if it.type in ("identifier", "string_lit")]
            names |= {text(it).strip('"') for it in labels}
        inside, around = around, around.parent
    return names
