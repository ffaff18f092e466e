"""YAML text as a tree in which everything keeps its line and column. Plain scalars stay text: no `no` that is false, no octal, no dates.

Built from the parser's events, so nesting and aliases are bounded before anything is expanded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from policies.problems import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_NODES = 20_000
"""Nodes after aliases are expanded (a few lines of nested aliases can mean billions)."""
_NO_ALIAS = "write the value out, or use variables:"


@dataclass(frozen=True, slots=True)
class Mark:
    """Place in the text, counted from 1. `source` names an inherited file, empty for the file itself."""

    line: int
    column: int
    source: str = ""


@dataclass(slots=True)
class Scalar:
    mark: Mark
    text: str
    quoted: bool
    weight: int = 1


@dataclass(slots=True)
class Sequence:
    mark: Mark
    items: list[Node] = field(default_factory=list)
    weight: int = 1


@dataclass(slots=True)
class Mapping:
    """Entries in the file's order; duplicate keys were reported and the first one kept."""

    mark: Mark
    entries: dict[str, tuple[Mark, Node]] = field(default_factory=dict)
    weight: int = 1

    def get(self, key: str) -> Node | None:
        found = self.entries.get(key)
        return None if found is None else found[1]


Node: TypeAlias = Scalar | Sequence | Mapping


class _Builder:
    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        self.stack: list[tuple[Sequence | Mapping, Scalar | None, str]] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None

    def mark(self, event: yaml.Event) -> Mark:
        at = event.start_mark
        return Mark(1, 1, self.source) if at is None else Mark(at.line + 1, at.column + 1, self.source)

    def report(self, mark: Mark, message: str, suggestion: str = "") -> None:
        self.problems.append(Problem(mark.line, mark.column, "", message, suggestion, source=self.source))

    def add(self, node: Node, anchor: str) -> None:
        """Attach a finished node to what encloses it."""
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        parent, key, name = self.stack[-1]
        parent.weight += node.weight
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif key is None:
            if isinstance(node, Scalar):
                self.stack[-1] = (parent, node, name)
            else:
                self.report(node.mark, "a key must be plain text")
                self.stack[-1] = (parent, Scalar(node.mark, "", True), name)
        else:
            self.stack[-1] = (parent, None, name)
            if key.text == "<<" and not key.quoted:
                self.report(key.mark, "merge keys are not supported", "use extends:, or write the keys out")
            elif key.text in parent.entries:
                first = parent.entries[key.text][0]
                self.report(key.mark, f"duplicate key {key.text!r}, first on line {first.line}", "keep one of the two")
            elif key.text:
                parent.entries[key.text] = (key.mark, node)

    def tag(self, event: yaml.Event, mark: Mark) -> None:
        if tag := getattr(event, "tag", None):
            self.report(mark, f"YAML tags such as {tag!r} are not supported", "remove the tag")

    def take(self, event: yaml.Event) -> bool:
        """Process one event; False when the document must not be read further."""
        mark = self.mark(event)
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor or "")
            if target is None:
                self.report(mark, f"alias *{event.anchor} names nothing that is complete here", _NO_ALIAS)
                target = Scalar(mark, "", True)
            self.add(target, "")
        elif isinstance(event, yaml.ScalarEvent):
            self.tag(event, mark)
            self.add(Scalar(mark, event.value, event.style is not None), event.anchor or "")
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self.tag(event, mark)
            if len(self.stack) >= MAX_DEPTH:
                self.report(mark, f"nested deeper than {MAX_DEPTH} levels")
                return False
            opened = Sequence(mark) if isinstance(event, yaml.SequenceStartEvent) else Mapping(mark)
            self.stack.append((opened, None, event.anchor or ""))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            closed, _, anchor = self.stack.pop()
            self.add(closed, anchor)
        if self.stack and self.stack[-1][0].weight > MAX_NODES:
            self.report(mark, f"more than {MAX_NODES} values once aliases are expanded", _NO_ALIAS)
            return False
        return True


def read(text: str, problems: list[Problem], source: str = "") -> Mapping | None:
    """The document's tree, or None when there is none to speak of; findings are appended to `problems`."""
    builder = _Builder(source, problems)
    start = Mark(1, 1, source)
    if len(text.encode(errors="replace")) > MAX_BYTES:
        builder.report(start, f"larger than {MAX_BYTES // 1024} KiB")
        return None
    documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    builder.report(builder.mark(event), "more than one YAML document", "keep one per file")
                    break
            if not builder.take(event):
                return None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = start if at is None else Mark(at.line + 1, at.column + 1, source)
        what = error.problem or error.context or "malformed"
        advice = "indent with spaces" if "\\t" in what else "look at the indentation, quotes and colons of this line"
        builder.report(mark, f"not valid YAML: {what}", advice)
        return None
    except yaml.YAMLError as error:  # characters that no YAML file may hold
        builder.report(start, f"not valid YAML: {error}".splitlines()[0])
        return None
    if not isinstance(builder.root, Mapping):
        mark = start if builder.root is None else builder.root.mark
        builder.report(mark, "a policy is a mapping of sections", "start with schema: 1")
        return None
    return builder.root
