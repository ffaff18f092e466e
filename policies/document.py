"""From text to a policy: read, fill in variables, check the structure, inherit, check the meaning. Every problem at once.

`parents` maps what `extends:` may name to the text of that file; `overrides` are values for `variables:`. Pure: the caller reads files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies import semantics, source, structure
from policies.extends import merge
from policies.policy import Policy, build
from policies.problems import InvalidPolicy, Problem, did_you_mean

MAX_PARENTS = 8
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_RESOLVED = ("extends", "variables")
"""Sections that are gone once they have had their effect."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A document after inheritance and variables, in canonical text, with places for messages."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: structure.Places = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def lint(
    text: str, parents: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None
) -> list[Problem]:
    """Everything wrong with a policy file, by line; errors and warnings. Empty when it is fine."""
    return _check(text, parents or {}, overrides or {})[1]


def load(text: str, parents: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None) -> Policy:
    """The policy that a file means. Raises InvalidPolicy, which has every problem; warnings alone do not stop it."""
    checked, problems = _check(text, parents or {}, overrides or {})
    if any(problem.severity == "error" for problem in problems):
        raise InvalidPolicy(problems)
    return build(checked.tree)


def parent_of(text: str) -> str | None:
    """What a file's `extends:` names, so that the caller can read it too; None without one, or when the file is malformed."""
    root = source.read(text, [])
    node = root.get("extends") if root else None
    return node.text if isinstance(node, source.Scalar) else None


def _check(text: str, parents: Mapping[str, str], overrides: Mapping[str, str]) -> tuple[Checked, list[Problem]]:
    problems: list[Problem] = []
    checked = _resolve(text, "", parents, overrides, problems, ())
    for name in overrides:
        if checked.tree and name not in checked.variables:
            advice = did_you_mean(name, tuple(checked.variables))
            problems.append(Problem(1, 1, f"variables.{name}", f"no variable {name!r} to override", advice))
    if checked.tree:
        problems += semantics.check(checked.tree, checked.places, checked.written)
    return checked, sorted(set(problems), key=lambda p: (p.source, p.line, p.column, p.severity, p.path, p.message))


def _resolve(
    text: str,
    name: str,
    parents: Mapping[str, str],
    overrides: Mapping[str, str],
    problems: list[Problem],
    children: tuple[str, ...],
) -> Checked:
    """One file with everything it inherits; an empty tree when it cannot be read."""
    root = source.read(text, problems, name)
    if root is None:
        return Checked()
    parent = _parent(root, name, parents, overrides, problems, children)
    variables = (parent.variables if parent else {}) | _variables(root, overrides)
    _substitute(root, variables, problems)
    tree, places, written = structure.check(root, problems)
    for section in _RESOLVED:
        tree.pop(section, None)
    if parent is not None and parent.tree:
        tree = merge(parent.tree, tree, places, problems)
        places, written = parent.places | places, parent.written | written
    return Checked(tree, places, written, variables)


def _parent(
    root: source.Mapping,
    name: str,
    parents: Mapping[str, str],
    overrides: Mapping[str, str],
    problems: list[Problem],
    children: tuple[str, ...],
) -> Checked | None:
    node = root.get("extends")
    if not isinstance(node, source.Scalar):
        return None
    mark = node.mark

    def report(message: str, advice: str = "") -> None:
        problems.append(Problem(mark.line, mark.column, "extends", message, advice, source=mark.source))

    if node.text in (*children, name):
        report(f"{node.text} extends itself in the end")
    elif len(children) >= MAX_PARENTS:
        report(f"more than {MAX_PARENTS} files extend each other")
    elif node.text not in parents:
        report(f"there is no policy {node.text!r} to extend", did_you_mean(node.text, tuple(sorted(parents))))
    else:
        found = _resolve(parents[node.text], node.text, parents, overrides, problems, (*children, name))
        found.tree.pop("description", None)
        return found
    return None


def _variables(root: source.Mapping, overrides: Mapping[str, str]) -> dict[str, str]:
    """This file's variables with the caller's values in their place."""
    node = root.get("variables")
    if not isinstance(node, source.Mapping):
        return {}
    own = {key: item.text for key, (_, item) in node.entries.items() if isinstance(item, source.Scalar)}
    return own | {key: value for key, value in overrides.items() if key in own}


def _substitute(root: source.Mapping, variables: Mapping[str, str], problems: list[Problem]) -> None:
    """Put values in for ${name} everywhere but in `variables` itself, once: a value is never searched again."""
    pending: list[source.Node] = [item for key, (_, item) in root.entries.items() if key != "variables"]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in seen:  # an alias shares its node; it must not be filled in twice
            continue
        seen.add(id(node))
        if isinstance(node, source.Sequence):
            pending += node.items
        elif isinstance(node, source.Mapping):
            pending += [item for _, item in node.entries.values()]
        elif "${" in node.text:
            _fill(node, variables, problems)


def _fill(node: source.Scalar, variables: Mapping[str, str], problems: list[Problem]) -> None:
    """Every `${` that is left afterwards is reported, so that later steps may pass over such a value."""

    def report(message: str, advice: str) -> None:
        mark = node.mark
        problems.append(Problem(mark.line, mark.column, "", message, advice, source=mark.source))

    unknown = [name for name in dict.fromkeys(_VARIABLE.findall(node.text)) if name not in variables]
    for name in unknown:
        report(f"unknown variable {name!r}", did_you_mean(name, tuple(variables)) or "declare it under variables:")
    node.text = _VARIABLE.sub(lambda found: variables.get(found[1], found[0]), node.text)
    if "${" in node.text and not unknown:
        report(f"{node.text!r:.80} still names a variable", "a value cannot name another variable; close ${ with }")
