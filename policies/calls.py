"""From an operation's call data to the calls it makes: ERC-7579 executions, batches, and the venues' own multicalls.

Decoding is strict: bytes that do not re-encode to themselves are not understood, because the chain might read them differently.
What is not understood is shown as unknown and is the policy's matter; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts import abi
from contracts.abi import Function
from contracts.bindings import EXECUTE
from contracts.errors import InvalidFields
from contracts.types import Address, Wei
from policies.functions import BY_SELECTOR, Effect, KnownFunction

MAX_CALLS = 256
_BATCH = "(address,uint256,bytes)[]"
_MULTICALLS = (
    Function.parse("multicall(bytes[])"),
    Function.parse("multicall(uint256,bytes[])"),
    Function.parse("multicall(bytes32,bytes[])"),
)


@dataclass(frozen=True, slots=True)
class DecodedCall:
    """One call the account makes. `path` is its place in nested batches; `arguments` are (name, value as text) pairs.

    `target_name` is empty for an address that no name is bound to, `function` for call data that is not understood.
    """

    path: tuple[int, ...]
    target: Address
    target_name: str
    value_wei: Wei
    data: bytes
    function: str
    arguments: tuple[tuple[str, str], ...]
    effect: Effect

    @property
    def selector(self) -> bytes:
        """First four bytes of the call data; shorter or empty for a plain transfer."""
        return self.data[:4]

    @property
    def title(self) -> str:
        """`perp.vault.deposit` or the raw address and selector."""
        where = self.target_name or "0x" + self.target.hex()
        if not self.data:
            return f"{where}: transfer"
        return f"{where}.{self.function.partition('(')[0] or '0x' + self.selector.hex()}"


@dataclass(frozen=True, slots=True)
class DecodedCalls:
    """All calls of one operation in order. `problem` says why the call data as a whole is not acceptable; empty when it is."""

    calls: tuple[DecodedCall, ...] = ()
    problem: str = ""


def text(value: Any) -> str:
    """An argument in the form that policies compare: addresses and bytes as lower-case hex, integers plain, bools true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, tuple):
        return "(" + ",".join(text(item) for item in value) + ")"
    return str(value)


def decode_calls(account: Address, call_data: bytes, book: Mapping[str, Address]) -> DecodedCalls:
    """The calls of a UserOperation to `account`. Never raises: what cannot be read is a `problem` or an unknown call."""
    if not call_data:
        return DecodedCalls()
    names = {address: name for name, address in sorted(book.items(), reverse=True)} | {account: "account"}
    try:
        mode, payload = EXECUTE.decode_input(call_data)
        if EXECUTE.encode(mode, payload) != call_data:
            return DecodedCalls(problem="the call data is not in canonical ABI form")
        if mode[1:] != bytes(31):
            return DecodedCalls(problem=f"execution mode 0x{mode.hex()} is not plain execution that fails as a whole")
        if mode[0] == 0x00:
            if len(payload) < 52:
                return DecodedCalls(problem="a single execution needs a target and a value")
            executions = [(payload[:20], int.from_bytes(payload[20:52]), payload[52:])]
        elif mode[0] == 0x01:
            (batch,) = abi.decode([_BATCH], payload)
            if abi.encode([_BATCH], [batch]) != payload:
                return DecodedCalls(problem="the batch is not in canonical ABI form")
            executions = list(batch)
        else:
            return DecodedCalls(problem=f"call type 0x{mode[0]:02x} is neither single nor batch (delegatecall is off)")
    except InvalidFields as error:
        return DecodedCalls(problem=f"the call data is no ERC-7579 execute: {error.message}")
    calls: list[DecodedCall] = []
    for i, (target, value, data) in enumerate(executions):
        _expand((i,), target, value, data, names, calls)
        if len(calls) > MAX_CALLS:
            return DecodedCalls(problem=f"more than {MAX_CALLS} calls in one operation")
    return DecodedCalls(tuple(calls))


def _expand(
    path: tuple[int, ...],
    target: Address,
    value: Wei,
    data: bytes,
    names: Mapping[Address, str],
    out: list[DecodedCall],
) -> None:
    """Append the call, or the calls inside a venue's own multicall (which run with the account as their sender)."""
    name = names.get(target, "")
    inner = _multicall(data) if value == 0 and name and len(path) < 4 else None
    if inner is None:
        out.append(describe(path, target, value, data, name))
        return
    for i, item in enumerate(inner):
        _expand((*path, i), target, 0, item, names, out)
        if len(out) > MAX_CALLS:
            return


def multicall_of(data: bytes) -> tuple[Function, tuple[Any, ...]]:
    """A venue's own multicall and its arguments, the last of which are the calls. Raises InvalidFields when `data` is none."""
    for function in _MULTICALLS:
        if data[:4] == function.selector:
            return function, function.decode_input(data)
    raise InvalidFields("the call data is no multicall")


def _multicall(data: bytes) -> tuple[bytes, ...] | None:
    for function in _MULTICALLS:
        if data[:4] == function.selector:
            try:
                values = function.decode_input(data)
                if function.encode(*values) != data or not values[-1]:
                    return None
            except InvalidFields:
                return None
            found: tuple[bytes, ...] = values[-1]
            return found
    return None


def describe(path: tuple[int, ...], target: Address, value: Wei, data: bytes, name: str) -> DecodedCall:
    """One call with the arguments of its function, if that is known and the bytes are canonical."""
    if not data:
        return DecodedCall(path, target, name, value, data, "", (), Effect.PAYS if value else Effect.NEUTRAL)
    known = BY_SELECTOR.get(data[:4])
    values = _arguments(known, data) if known else None
    if known is None or values is None:
        return DecodedCall(path, target, name, value, data, "", (), Effect.UNKNOWN)
    arguments = tuple(zip(known.arguments, map(text, values), strict=True))
    effect = known.effect
    if effect is Effect.GRANTS and arguments[-1][1] == "0":
        effect = Effect.REDUCES
    if effect is Effect.REDUCES and dict(arguments).get("setCollateralTo", "0") != "0":
        effect = Effect.OPENS  # Lyra: what is left of the position may keep less collateral than it had
    return DecodedCall(path, target, name, value, data, known.function.signature, arguments, effect)


def _arguments(known: KnownFunction, data: bytes) -> tuple[Any, ...] | None:
    try:
        values = known.function.decode_input(data)
        if known.function.encode(*values) != data:
            return None
    except InvalidFields:
        return None
    spread: tuple[Any, ...] = values[0] if known.spread else values
    return spread


def argument(call: DecodedCall, name: str) -> str | None:
    """The argument called `name`, or None."""
    return dict(call.arguments).get(name)
