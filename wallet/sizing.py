"""The largest size of an operation that passes, on the chain's own execution: the operation is run again in other sizes on the same block.

What was simulated is kept as differences from the facts of the size asked for, so that `wallet.replay` can ask the same questions of the
record and must come to the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from contracts.userop import UserOperation
from policies import Decision, Facts, Policy, Sizes
from policies.sizing import can_be_resized, can_be_smaller, find_sizes, operation_of, resized, sized
from wallet.recorded import facts_from_json, facts_to_json

AT_ONCE = 8
"""Simulations that are under way at the same time."""

ReadAt = Callable[[UserOperation], Awaitable[Facts]]
"""Facts of an operation on the block of the facts that were judged."""


async def largest_sizes(
    policy: Policy, facts: Facts, decision: Decision, op: UserOperation, read_at: ReadAt
) -> tuple[Decision, list[dict[str, Any]]]:
    """`decision` with its `sizes`, and the record of what was simulated; as it was, and nothing, where no smaller size could help.

    Raises NodeError when the node is away.
    """
    size = sized(facts.calls, facts.book)
    if size is None or not can_be_resized(op.call_data, size) or not can_be_smaller(policy, facts, decision):
        return decision, []
    gate = asyncio.Semaphore(AT_ONCE)
    base = facts_to_json(facts)
    record: list[dict[str, Any]] = []

    async def at(ticks: int) -> Facts:
        async with gate:
            probe = await read_at(op.replace(call_data=resized(op.call_data, size, ticks)))
            return operation_of(facts, probe)

    search = find_sizes(policy, facts, decision, size)
    try:
        asked = next(search)
        while True:
            found = dict(zip(asked, await asyncio.gather(*map(at, asked)), strict=True))
            record += [{"ticks": str(n), "facts": difference(base, facts_to_json(one))} for n, one in found.items()]
            asked = search.send(found)
    except StopIteration as done:
        return replace(decision, sizes=done.value), record


def recorded_sizes(policy: Policy, facts: Facts, decision: Decision, record: list[dict[str, Any]]) -> Sizes | None:
    """The same search, answered from the record. None when it asks for what was not simulated then, or what is recorded for a size is an
    operation of another size.
    """
    size = sized(facts.calls, facts.book)
    if size is None:
        return None
    base = facts_to_json(facts)
    known = {int(entry["ticks"]): entry["facts"] for entry in record}

    def at(ticks: int) -> Facts:
        found = facts_from_json(applied(base, known[ticks]), older=True)
        own = sized(found.calls, found.book)
        if own is None or own.units != ticks * size.tick_units:
            raise KeyError(ticks)
        return found

    search = find_sizes(policy, facts, decision, size)
    try:
        asked = next(search)
        while True:
            asked = search.send({n: at(n) for n in asked})
    except StopIteration as done:
        found: Sizes = done.value
        return found
    except KeyError:
        return None


# -- differences of JSON documents ----------------------------------------------------------------------------------------------------

_SAME: dict[str, Any] = {}
"""No difference. A value that replaces another stands as {"=": value}, so nothing else can look like one."""


def difference(old: Any, new: Any) -> Any:
    """What turns `old` into `new`: objects by key, lists of one length by place, anything else whole."""
    if old == new:
        return _SAME
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
        return {"{": {key: difference(old[key], new[key]) for key in old if old[key] != new[key]}}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return {"[": {str(i): difference(a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b}}
    return {"=": new}


def applied(old: Any, change: Any) -> Any:
    """The inverse of `difference`: `applied(old, difference(old, new)) == new`. Raises KeyError for what is no difference of `old`."""
    if not change:
        return old
    if "=" in change:
        return change["="]
    if "{" in change:
        return {key: applied(old[key], change["{"].get(key)) for key in old}
    return [applied(item, change["["].get(str(i))) for i, item in enumerate(old)]
