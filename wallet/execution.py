"""One operation's own execution as a node traces it: every call inside it, its events, and what it changes (`debug_traceCall`).

It serves two ends: whom an operation touches, and simulation on nodes without eth_simulateV1 (`wallet.simulate`). The call tree is
callTracer's, the change of state prestateTracer's in diff mode, both on the pinned block.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields, NodeError, RpcError
from contracts.rpc import RpcClient, without_secrets
from contracts.types import parse_bytes, to_hex
from contracts.userop import UserOperation
from policies.trace import Frame
from wallet.effects import GAS, Log, log_of, next_block, pinned, still_there

METHOD_MISSING = (-32601, -32004)
"""Codes for a method that a node does not have (JSON-RPC) or does not support (EIP-1474)."""
_SENTINEL = b"\x5e" * 20
_SENTINEL_CODE = "0x4260005260206000f3"
"""TIMESTAMP, as the answer: tells whether a node takes state and block overrides, which some ignore without a word."""
_KEPT = 32
Overrides = dict[str, dict[str, Any]]
"""State overrides as nodes take them, by address."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What one operation did. `overrides` turn the state before it into the state after it; events in their order, none of calls that
    reverted."""

    success: bool
    return_data: bytes
    gas_used: int
    frames: tuple[Frame, ...]
    logs: tuple[Log, ...]
    overrides: Overrides


@dataclass(slots=True)
class Endpoint:
    """What is known of one node. Only what it answered for certain stands here, never what a failure may have hidden."""

    lacks_simulation: bool = False
    takes_overrides: bool = False
    executions: dict[Any, Execution] = field(default_factory=dict)


_ENDPOINTS: weakref.WeakKeyDictionary[RpcClient, Endpoint] = weakref.WeakKeyDictionary()


def endpoint_of(rpc: RpcClient) -> Endpoint:
    """What is known of the node behind a connection."""
    return _ENDPOINTS.setdefault(rpc, Endpoint())


async def execute(
    rpc: RpcClient, entry_point: EntryPoint, op: UserOperation, head: dict[str, Any], *, changes: bool = True
) -> Execution:
    """Trace `op` (account creation first, if it has one) on top of `head`, in a block one second younger.

    Without `changes` only what ran is asked for, and `overrides` may be empty. The answer for one operation on one block is kept: reads
    that follow in rounds do not trace anew. Raises NodeError when the node cannot trace, MovedHead when it replaced the block.
    """
    known = endpoint_of(rpc).executions
    key = (head["hash"], entry_point.address, op.sender, op.factory, op.factory_data, op.call_data, changes)
    if not changes and (whole := known.get((*key[:-1], True))) is not None:
        return whole
    if key not in known:
        try:
            found = await _traced(rpc, entry_point, op, head, changes)
        except RpcError as error:
            if error.rpc_code not in METHOD_MISSING:
                await still_there(rpc, head)
            raise NodeError(
                f"{without_secrets(rpc.url)} cannot trace an operation: {error}. It needs debug_traceCall with callTracer and "
                "prestateTracer (geth: --http.api eth,debug; anvil has it)"
            ) from error
        while len(known) >= _KEPT:
            known.pop(next(iter(known)))
        known[key] = found
    return known[key]


async def check_overrides(rpc: RpcClient, head: dict[str, Any]) -> None:
    """Raises NodeError for a node that does not take state and block overrides in eth_call and debug_traceCall: what it would answer is
    the state before the operation, and every limit would pass."""
    endpoint = endpoint_of(rpc)
    if endpoint.takes_overrides:
        return
    call = {"to": to_hex(_SENTINEL), "data": "0x", "gas": hex(GAS)}
    state, block = {to_hex(_SENTINEL): {"code": _SENTINEL_CODE}}, next_block(head, GAS)
    expected = (int(head["timestamp"], 16) + 1).to_bytes(32)
    traced = await _trace(rpc, call, head, {"tracer": "callTracer"}, state)
    called = await rpc.call("eth_call", call, pinned(head), state, block)
    for method, answer in (("debug_traceCall", traced.get("output")), ("eth_call", called)):
        if not isinstance(answer, str) or parse_bytes(answer, "output") != expected:
            raise NodeError(
                f"{without_secrets(rpc.url)} has no eth_simulateV1, and its {method} does not take state and block overrides: it cannot say "
                "what an operation would leave. Use geth 1.14.9 or later, or anvil 1.0 or later"
            )
    endpoint.takes_overrides = True


async def _traced(
    rpc: RpcClient, entry_point: EntryPoint, op: UserOperation, head: dict[str, Any], changes: bool
) -> Execution:
    sender = to_hex(entry_point.address)
    made: Execution | None = None
    if op.factory is not None:
        await check_overrides(rpc, head)
        create = {"from": sender, "to": to_hex(op.factory), "data": to_hex(op.factory_data), "gas": hex(GAS)}
        made = await _one(rpc, create, head, {}, True)
        if not made.success:
            return made  # the account could not be created: that is the operation's failure
    call = {"from": sender, "to": to_hex(op.sender), "data": to_hex(op.call_data), "gas": hex(GAS)}
    ran = await _one(rpc, call, head, {} if made is None else made.overrides, changes)
    if made is None:
        return ran
    return Execution(
        ran.success, ran.return_data, ran.gas_used, ran.frames, ran.logs, merged(made.overrides, ran.overrides)
    )


async def _one(
    rpc: RpcClient, call: dict[str, str], head: dict[str, Any], state: Overrides, changes: bool
) -> Execution:
    tree = await _trace(rpc, call, head, {"tracer": "callTracer", "tracerConfig": {"withLog": True}}, state)
    diff: dict[str, Any] = {"pre": {}, "post": {}}
    if changes:
        diff = await _trace(rpc, call, head, {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}}, state)
    try:
        frames, logs = opened(tree)
        return Execution(
            success="error" not in tree,
            return_data=parse_bytes(tree.get("output") or "0x", "output"),
            gas_used=int(tree["gasUsed"], 16),
            frames=frames,
            logs=logs,
            overrides=overrides_of(diff),
        )
    except (InvalidFields, KeyError, TypeError, ValueError, AttributeError) as error:
        raise NodeError(f"{without_secrets(rpc.url)} traced what cannot be read: {error!s:.200}") from None


async def _trace(
    rpc: RpcClient, call: Mapping[str, str], head: dict[str, Any], tracer: dict[str, Any], state: Overrides
) -> dict[str, Any]:
    options = {**tracer, "blockOverrides": next_block(head, GAS)} | ({"stateOverrides": state} if state else {})
    found = await rpc.call("debug_traceCall", call, pinned(head), options)
    if not isinstance(found, dict):
        raise NodeError(f"the answer to debug_traceCall is no trace: {found!r:.80}")
    return found


def opened(tree: dict[str, Any]) -> tuple[tuple[Frame, ...], tuple[Log, ...]]:
    """Every call of callTracer's tree in the order of execution, and the events of those that did not revert. Raises InvalidFields,
    KeyError."""
    frames: list[Frame] = []
    logs: list[dict[str, Any]] = []
    todo: list[tuple[dict[str, Any], Frame | None, bool]] = [(tree, None, False)]
    while todo:
        item, caller, is_log = todo.pop()
        if is_log:
            logs.append(item)
            continue
        frame = _frame(item, caller)
        frames.append(frame)
        own = list(item.get("logs") or ()) if frame.lasting else []
        inside: list[tuple[dict[str, Any], Frame | None, bool]] = []
        for number, call in enumerate(item.get("calls") or ()):
            while own and _position(own[0]) <= number:
                inside.append((own.pop(0), frame, True))
            inside.append((call, frame, False))
        inside += [(entry, frame, True) for entry in own]
        todo += reversed(inside)
    if all("index" in entry for entry in logs):
        logs.sort(key=lambda entry: _number(entry["index"]))
    return tuple(frames), tuple(log_of(entry) for entry in logs)


def _frame(item: dict[str, Any], caller: Frame | None) -> Frame:
    kind, data = str(item["type"]), _bytes(item.get("input"))
    return Frame(
        kind=kind,
        sender=_bytes(item["from"]),
        target=_bytes(item.get("to")) or bytes(20),
        value_wei=int(item.get("value") or "0x0", 16),
        data=data,
        lasting="error" not in item and (caller is None or caller.lasting),
        static=kind == "STATICCALL" or (caller is not None and caller.static),
        forwarded=caller is not None and bool(data) and caller.data == data,
    )


def _bytes(text: str | None) -> bytes:
    """Raises ValueError."""
    return bytes.fromhex(text[2:]) if text else b""


def _position(entry: dict[str, Any]) -> int:
    """How many calls the frame had made when it emitted the event."""
    return _number(entry.get("position", 0))


def _number(value: Any) -> int:
    return int(value, 16) if isinstance(value, str) else int(value)


def overrides_of(diff: Mapping[str, Any]) -> Overrides:
    """State overrides from prestateTracer's diff: what is in `post` is set, slots that are in `pre` alone became zero, accounts that are in
    `pre` alone are gone."""
    pre, post = diff["pre"], diff["post"]
    found: Overrides = {}
    for address in {**pre, **post}:
        if address not in post:
            found[address] = {"balance": "0x0", "nonce": "0x0", "code": "0x", "state": {}}
            continue
        after = post[address]
        entry: dict[str, Any] = {}
        if "balance" in after:
            entry["balance"] = after["balance"]
        if "nonce" in after:
            entry["nonce"] = hex(_number(after["nonce"]))
        if "code" in after:
            entry["code"] = after["code"]
        cleared = dict.fromkeys(pre.get(address, {}).get("storage") or {}, "0x" + "0" * 64)
        changed = cleared | (after.get("storage") or {})
        if changed:
            entry["stateDiff"] = changed
        if entry:
            found[address] = entry
    return found


def merged(first: Overrides, then: Overrides) -> Overrides:
    """The overrides of one change after another."""
    found = dict(first)
    for address, entry in then.items():
        if "state" in entry or address not in found:
            found[address] = entry
            continue
        known = found[address]
        both = {**known, **entry}
        storage = "state" if "state" in known else "stateDiff"
        slots = {**known.get(storage, {}), **entry.get("stateDiff", {})}
        both.pop("stateDiff", None)
        if slots or storage == "state":
            both[storage] = slots
        found[address] = both
    return found
