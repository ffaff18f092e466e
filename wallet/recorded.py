"""Facts as files: what a Decision rested on, kept so that anyone can judge it again and get the same bytes."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cache
from typing import Any

from contracts.errors import BadInput, InvalidFields
from contracts.types import parse_bytes
from policies import Facts
from policies.canonical import plain


def facts_to_json(facts: Facts) -> dict[str, Any]:
    """The canonical form of `facts`: integers and decimals as text, bytes as hex."""
    found: dict[str, Any] = plain(facts)
    return found


def facts_from_json(body: object, *, older: bool = False) -> Facts:
    """The inverse. Raises BadInput naming the place that is missing, unknown or malformed.

    `older`: what has a default may be missing, because a Seawall that did not know it yet wrote the facts.
    """
    facts: Facts = _revive(Facts, body, "facts", older)
    return facts


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _revive(kind: Any, value: Any, where: str, older: bool) -> Any:
    """`value`, as `plain` wrote it, as a `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return _revive(inner, value, where, older)
    if origin is typing.Literal:
        if value not in arguments:
            raise BadInput(f"{where} is malformed: {value!r:.60}")
        return value
    if is_dataclass(kind):
        return _object(typing.cast(type, kind), value, where, older)
    if origin is tuple:
        items = _list(value, where)
        if arguments[-1] is Ellipsis:
            return tuple(_revive(arguments[0], item, f"{where}[{i}]", older) for i, item in enumerate(items))
        if len(items) != len(arguments):
            raise BadInput(f"{where} must have {len(arguments)} items")
        pairs = zip(arguments, items, strict=True)
        return tuple(_revive(inner, item, f"{where}[{i}]", older) for i, (inner, item) in enumerate(pairs))
    if origin is frozenset:
        return frozenset(_revive(arguments[0], item, where, older) for item in _list(value, where))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise BadInput(f"{where} must be an object")
        return {key: _revive(arguments[1], item, f"{where}.{key}", older) for key, item in value.items()}
    return _scalar(kind, value, where)


def _object(kind: type, value: Any, where: str, older: bool) -> Any:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be an object")
    names = {field.name for field in fields(kind)}
    optional = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
    if wrong := sorted((value.keys() - names) | (names - value.keys() - (optional if older else set()))):
        raise BadInput(f"{where}.{wrong[0]} is {'unknown' if wrong[0] in value else 'missing'}")
    hints = _hints(kind)
    return kind(**{name: _revive(hints[name], value[name], f"{where}.{name}", older) for name in names & value.keys()})


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{where} must be a list")
    return value


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise BadInput(f"{where} must be true or false")
    if not isinstance(value, str):
        raise BadInput(f"{where} must be a text (numbers too, so that nothing is rounded)")
    try:
        if kind is str:
            return value
        if kind is bytes:
            return parse_bytes(value, where)
        if kind is int:
            return int(value)
        if kind is Decimal:
            return Decimal(value)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return kind[value]
    except (InvalidFields, ValueError, KeyError, InvalidOperation):
        pass
    raise BadInput(f"{where} is malformed: {value!r:.60}")
