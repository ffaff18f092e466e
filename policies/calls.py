"""From an operation's call data to the calls it makes: ERC-7579 executions, batches, and the venues' own multicalls.

Decoding is strict: bytes that do not re-encode to themselves are not understood, because the chain might read them differently.
What is not understood is shown as unknown and is the policy's matter; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from contracts import abi
from contracts.abi import Function
from contracts.bindings import EXECUTE
from contracts.errors import InvalidFields
from contracts.types import Address, Wei
from policies.functions import BY_SELECTOR, Effect, KnownFunction
from policies.hedge_rules import HEDGE
from policies.rebalance_rules import REBALANCE

Execution: TypeAlias = tuple[Address, Wei, bytes]
"""Target, value, call data."""
MAX_CALLS = 256
MAX_DEPTH = 8
"""How many batches inside batches are opened; what is deeper is shown as the call that it is."""
MAX_CALL_DATA_BYTES = 131_072
"""No transaction pool carries more (geth: txMaxSize)."""
SELF_MULTICALLS = ("uniswap.router", "uniswap.router_02", "uniswap.position_manager")
"""Contracts whose `multicall` delegates to themselves, so that each inner call has the account as its sender."""
_NFTS = ("uniswap.position_manager", "lyra.option_token")
_PAID = ("to", "recipient", "onBehalfOf")
_ROUTER_MARKS = tuple("0x" + bytes(19).hex() + mark for mark in ("00", "01", "02"))
"""Recipients that Uniswap's routers read as themselves (0, or 2 in SwapRouter02) and as their caller (1)."""
EXECUTE_FROM_EXECUTOR = Function.parse("executeFromExecutor(bytes32,bytes)(bytes[])")
"""What an installed executor runs, with the account as the sender.   Source: ERC-7579."""
_MULTICALL3 = (
    "aggregate",
    "tryAggregate",
    "aggregate3",
    "aggregate3Value",
    "blockAndAggregate",
    "tryBlockAndAggregate",
)
"""Functions whose `calls` Multicall3 makes itself."""
_ERC7821 = bytes.fromhex("0000000078210001") + bytes(22)
_ERC7821_BATCHES = bytes.fromhex("0000000078210002") + bytes(22)
"""Mode bytes after call and execution type.   Source: ERC-7821."""
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
    """The calls of a UserOperation to `account`. Never raises: what cannot be read is a `problem` or an unknown call.

    ERC-7579 single and batch, by `execute` or `executeFromExecutor`; ERC-7821 batches without data of their own, and batches of batches.
    In try mode the calls are shown, but which of them will have happened is not certain: a `problem`. A zero target is the account
    itself, as ERC7579Utils and ERC-7821 have it. What Multicall3 would call is shown among that call's arguments (`calls[0]`, ...).
    """
    if not call_data:
        return DecodedCalls()
    if len(call_data) > MAX_CALL_DATA_BYTES:
        return DecodedCalls(problem=f"more than {MAX_CALL_DATA_BYTES} bytes of call data")
    names = {address: name for name, address in sorted(book.items(), reverse=True)} | {account: "account"}
    try:
        executions, problem = _executions(call_data)
    except InvalidFields as error:
        return DecodedCalls(problem=f"the call data is no ERC-7579 execute: {error.message}")
    calls: list[DecodedCall] = []
    for i, (target, value, data) in enumerate(executions):
        _expand((i,), target, value, data, _Frame(account, names, calls))
        if len(calls) > MAX_CALLS:
            return DecodedCalls(problem=f"more than {MAX_CALLS} calls in one operation")
    return DecodedCalls(tuple(calls), problem)


def _executions(call_data: bytes) -> tuple[list[Execution], str]:
    """What an `execute` runs, and why that is not acceptable as a whole (empty when it is). Raises InvalidFields."""
    function = EXECUTE_FROM_EXECUTOR if call_data[:4] == EXECUTE_FROM_EXECUTOR.selector else EXECUTE
    mode, payload = function.decode_input(call_data)
    if function.encode(mode, payload) != call_data:
        return [], "the call data is not in canonical ABI form"
    call_type, exec_type, rest = mode[0], mode[1], mode[2:]
    if rest == _ERC7821 and (call_type, exec_type) == (0x01, 0x00):
        return _batch_with_data(payload)
    if rest == _ERC7821_BATCHES and (call_type, exec_type) == (0x01, 0x00):
        return _batch_of_batches(payload)
    if call_type not in (0x00, 0x01):
        return [], f"call type 0x{call_type:02x} is neither single nor batch (delegatecall is off)"
    if exec_type not in (0x00, 0x01) or rest != bytes(30):
        return [], f"execution mode 0x{mode.hex()} is not plain execution that fails as a whole"
    problem = "" if exec_type == 0x00 else (
        f"execution mode 0x{mode.hex()} is not plain execution that fails as a whole: in try mode any of the calls may fail by itself"
    )  # fmt: skip
    if call_type == 0x01:
        batch, flaw = _batch(payload)
        return batch, flaw or problem
    if len(payload) < 52:
        return [], "a single execution needs a target and a value"
    return [(payload[:20], int.from_bytes(payload[20:52]), payload[52:])], problem


def _batch(payload: bytes) -> tuple[list[Execution], str]:
    """Raises InvalidFields."""
    if _length_at(payload, 0) > MAX_CALLS:
        return [], f"more than {MAX_CALLS} calls in one operation"
    if abi.canonical_size([_BATCH], payload) != len(payload):
        return [], "the batch is not in canonical ABI form"
    (batch,) = abi.decode([_BATCH], payload)
    if abi.encode([_BATCH], [batch]) != payload:
        return [], "the batch is not in canonical ABI form"
    return list(batch), ""


def _batch_with_data(payload: bytes) -> tuple[list[Execution], str]:
    """A batch, or a batch and data that only the account understands (ERC-7821 opData), which must be empty. Raises InvalidFields."""
    if payload[:32] == (64).to_bytes(32):
        if _length_at(payload, 0) > MAX_CALLS:
            return [], f"more than {MAX_CALLS} calls in one operation"
        if abi.canonical_size([_BATCH, "bytes"], payload) != len(payload):
            return [], "the batch is not in canonical ABI form"
        batch, extra = abi.decode([_BATCH, "bytes"], payload)
        if abi.encode([_BATCH, "bytes"], [batch, extra]) != payload:
            return [], "the batch is not in canonical ABI form"
        return list(
            batch
        ), f"the batch brings {len(extra)} bytes of data that only the account understands" if extra else ""
    return _batch(payload)


def _batch_of_batches(payload: bytes) -> tuple[list[Execution], str]:
    """Raises InvalidFields."""
    if _length_at(payload, 0) > MAX_CALLS:
        return [], f"more than {MAX_CALLS} calls in one operation"
    if abi.canonical_size(["bytes[]"], payload) != len(payload):
        return [], "the batch is not in canonical ABI form"
    (batches,) = abi.decode(["bytes[]"], payload)
    if abi.encode(["bytes[]"], [batches]) != payload:
        return [], "the batch is not in canonical ABI form"
    found: list[Execution] = []
    problem = ""
    for item in batches:
        batch, flaw = _batch_with_data(item)
        found += batch
        problem = problem or flaw
        if len(found) > MAX_CALLS:
            return [], f"more than {MAX_CALLS} calls in one operation"
    return found, problem


def _length_at(data: bytes, head: int) -> int:
    """Length of the dynamic array that the head word at `head` points to; 0 where there is none. Heads may overlap, so that a few bytes
    can stand for a great many: the length is looked at before anything is decoded."""
    at = int.from_bytes(data[head : head + 32])
    return int.from_bytes(data[at : at + 32]) if at + 32 <= len(data) else 0


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stays the same while the calls of one operation are opened."""

    account: Address
    names: Mapping[Address, str]
    out: list[DecodedCall]


def _expand(path: tuple[int, ...], target: Address, value: Wei, data: bytes, frame: _Frame) -> None:
    """Append the call, or the calls inside it that run with the account as their sender: an `execute` on the account itself, and the
    multicall of a contract that delegates to itself. All of them share the value that came with the call; the first shows it."""
    if target == bytes(20):
        target = frame.account
    name = frame.names.get(target, "")
    inner = _inner(target, value, data, name, frame.account) if len(path) < MAX_DEPTH else None
    if inner is None:
        call = describe(path, target, value, data, name, frame.account)
        frame.out.append(replace(call, arguments=(*call.arguments, *_shown(call, frame))))
        return
    for i, (to, amount, item) in enumerate(inner):
        _expand((*path, i), to, amount, item, frame)
        if len(frame.out) > MAX_CALLS:
            return


def _shown(call: DecodedCall, frame: _Frame) -> tuple[tuple[str, str], ...]:
    """What Multicall3 would call, for people to read: it is the sender there and not the account, so none of it is a call of the account."""
    if call.function.partition("(")[0] not in _MULTICALL3:
        return ()
    values = _arguments(BY_SELECTOR[call.selector], call.data)
    assert values is not None
    found = []
    for i, (target, *_, data) in enumerate(values[-1][:MAX_CALLS]):
        value = values[-1][i][2] if call.function.startswith("aggregate3Value") else 0
        inner = describe((), target, value, data, frame.names.get(target, ""), frame.account)
        arguments = ", ".join(f"{name} {argument}" for name, argument in inner.arguments)
        sends = f" with {value} wei" if value else ""
        found.append((f"calls[{i}]", f"{inner.title}({arguments}){sends}" if inner.data else f"{inner.title}{sends}"))
    return tuple(found)


def multicall_of(data: bytes) -> tuple[Function, tuple[Any, ...]]:
    """A venue's own multicall and its arguments, the last of which are the calls. Raises InvalidFields when `data` is none."""
    for function in _MULTICALLS:
        if data[:4] == function.selector:
            return function, function.decode_input(data)
    raise InvalidFields("the call data is no multicall")


def _inner(target: Address, value: Wei, data: bytes, name: str, account: Address) -> list[Execution] | None:
    """The calls inside, None when there are none or they cannot be read for certain."""
    if target == account:
        if data[:4] not in (EXECUTE.selector, EXECUTE_FROM_EXECUTOR.selector) or value:
            return None
        try:
            executions, problem = _executions(data)
        except InvalidFields:
            return None
        return None if problem or not executions else executions
    items = _multicall(data) if name in SELF_MULTICALLS else None
    if items is None:
        return None
    return [(target, value if i == 0 else 0, item) for i, item in enumerate(items)]


def _multicall(data: bytes) -> tuple[bytes, ...] | None:
    for function in _MULTICALLS:
        if data[:4] == function.selector:
            if _length_at(data[4:], 32 * (len(function.inputs) - 1)) > MAX_CALLS:
                return None
            try:
                if abi.canonical_size(function.inputs, data[4:]) != len(data) - 4:
                    return None
                values = function.decode_input(data)
                if function.encode(*values) != data or not values[-1]:
                    return None
            except InvalidFields:
                return None
            found: tuple[bytes, ...] = values[-1]
            return found
    return None


_BOTH_WAYS = (REBALANCE, HEDGE)
"""Modules that act when due and do not only reduce."""


def describe(
    path: tuple[int, ...], target: Address, value: Wei, data: bytes, name: str, account: Address
) -> DecodedCall:
    """One call of `account` with the arguments of its function, if that is known and the bytes are canonical."""
    if not data:
        return DecodedCall(path, target, name, value, data, "", (), Effect.PAYS if value else Effect.NEUTRAL)
    known = BY_SELECTOR.get(data[:4])
    values = _arguments(known, data) if known else None
    if known is None or values is None:
        return DecodedCall(path, target, name, value, data, "", (), Effect.UNKNOWN)
    arguments = tuple(zip(known.arguments, map(text, values), strict=True))
    effect = _effect(known, dict(arguments), name, account)
    return DecodedCall(path, target, name, value, data, known.function.signature, arguments, effect)


def _effect(known: KnownFunction, given: Mapping[str, str], target_name: str, account: Address) -> Effect:
    """The function's effect, once its arguments say for whom and how much."""
    me, effect = text(account), known.effect
    if effect is Effect.GRANTS:
        return _granted(known, given, target_name, me)
    if effect is Effect.PAYS and all(given.get(name, me) == me for name in _PAID) and any(n in given for n in _PAID):
        # What is sent home from elsewhere, and what a fee is taken from, is moved; positions made for oneself too.
        return Effect.PAYS if "feeBips" in given or "positionId" in given else Effect.MOVES
    if effect in (Effect.MOVES, Effect.REDUCES) and given.get("onBehalfOf", me) != me:
        return Effect.PAYS
    if effect is Effect.OPENS and given.get("recipient", me) not in (me, *_ROUTER_MARKS):
        return Effect.PAYS
    if effect is Effect.REDUCES and target_name in _BOTH_WAYS and known.function.name == "execute":
        return Effect.OPENS  # they buy as well as they sell
    if effect is Effect.REDUCES and given.get("setCollateralTo", "0") != "0":
        return Effect.OPENS  # Lyra: what is left of the position may keep less collateral than it had
    return effect


def _granted(known: KnownFunction, given: Mapping[str, str], target_name: str, me: str) -> Effect:
    """An allowance that becomes zero only reduces. An NFT is approved to somebody, and taken back by approving nobody."""
    if given.get("owner", me) != me:
        return Effect.NEUTRAL  # a permit that somebody else signed
    if target_name in _NFTS and known.function.name == "approve":
        return Effect.REDUCES if given["spender"] == text(bytes(20)) else Effect.GRANTS
    revokes = any(given.get(name) in ("0", "false") for name in ("amount", "actions", "approved", "allowed"))
    return Effect.REDUCES if revokes else Effect.GRANTS


def _arguments(known: KnownFunction, data: bytes) -> tuple[Any, ...] | None:
    try:
        if abi.canonical_size(known.function.inputs, data[4:]) != len(data) - 4:
            return None
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
