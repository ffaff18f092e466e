"""What an operation leaves as it is: one object before and after, so that whatever is worked out of it is worked out once.

Both portfolios are read apart, so what did not change is there twice, equal. `with_shared_entries` takes the entry of before in place of an
equal one after; from then on identity tells what changed. Nothing else is lost or gained: the facts have the same canonical form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from policies.canonical import fields_reader
from policies.portfolio import Facts, Portfolio

_KINDS = tuple(field.name for field in fields(Portfolio))


def with_shared_entries(facts: Facts) -> Facts:
    """The same facts, in which an entry of `after` that equals its counterpart of `before` is that very object."""
    before, after = facts.before, facts.after
    if before is after:
        return facts
    found = {name: _shared(getattr(before, name), getattr(after, name)) for name in _KINDS}
    if all(found[name] is getattr(after, name) for name in _KINDS):
        return facts
    return replace(facts, after=replace(after, **found))


def _shared(before: tuple[Any, ...], after: tuple[Any, ...]) -> tuple[Any, ...]:
    """`after` with entries of `before`: place by place where both have as many, else from both ends up to what came or went."""
    if before is after or not before or not after:
        return after
    if len(before) == len(after):
        return tuple([was if _is_same(was, now) else now for was, now in zip(before, after, strict=True)])
    found, most = list(after), min(len(before), len(after))
    head = 0
    while head < most and _is_same(before[head], after[head]):
        found[head] = before[head]
        head += 1
    for back in range(1, most - head + 1):
        if not _is_same(before[-back], after[-back]):
            break
        found[-back] = before[-back]
    return tuple(found)


def _is_same(was: Any, now: Any) -> bool:
    """Whether both have one canonical form; a figure that compares with nothing is never the same."""
    if was is now:
        return True
    try:
        if was != now:
            return False
    except ArithmeticError:  # a signaling NaN
        return False
    whole = _whole_numbers(type(now))  # True == 1, and is another text
    return whole is None or [*map(type, whole(was))] == [*map(type, whole(now))]


_WHOLE: dict[type, Callable[[Any], tuple[Any, ...]] | None] = {}


def _whole_numbers(kind: type) -> Callable[[Any], tuple[Any, ...]] | None:
    """Reads the fields of a dataclass that are integers or truth values."""
    if kind not in _WHOLE:
        names = [field.name for field in fields(kind) if str(field.type) in ("bool", "int")]
        _WHOLE[kind] = fields_reader(names) if names else None
    return _WHOLE[kind]
