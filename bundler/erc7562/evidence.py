"""A validation trace without step-by-step tracing: read from the calls and the touched state of a run of trapped code.

Everything that such a run leaves open is assumed at its worst, so that the rules pass on it only if they pass on the full trace: each
slot that the run touched at an address counts as read and written by every frame that works on that address.   Source: ERC-7562.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bundler.erc7562 import opcodes
from bundler.erc7562.trace import Frame, Use, ValidationTrace
from bundler.erc7562.traps import Code
from contracts.errors import NodeError
from contracts.types import Address, keccak

_OPS = {
    "CALL": opcodes.CALL,
    "STATICCALL": opcodes.STATICCALL,
    "DELEGATECALL": opcodes.DELEGATECALL,
    "CALLCODE": opcodes.CALLCODE,
}
_READ_AND_WRITTEN = 0b0011


class Unproven(Exception):
    """The cheap run does not show that the rules hold; the full trace decides."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call below the entry point's own. `parent` is an index into the list of calls, -1 the entry point."""

    parent: int
    kind: str
    caller: Address
    to: Address
    value_wei: int
    data: bytes
    """The first 36 bytes of `data_size`."""
    data_size: int
    error: str
    output: bytes
    """Of the entry point's own calls only."""


@dataclass(frozen=True, slots=True)
class CallTree:
    """The calls of one run in the order they began, and how the entry point ended."""

    calls: tuple[Call, ...]
    error: str
    output: bytes

    def called(self) -> set[Address]:
        """Everybody who was called."""
        return {call.to for call in self.calls}


@cache
def calls_tracer() -> str:
    """The JavaScript whose answer `parse_calls` reads."""
    return files("bundler.erc7562").joinpath("calls.js").read_text()


def parse_calls(result: object) -> CallTree:
    """Read the answer of `calls_tracer`. Raises NodeError if it is none."""
    try:
        if not isinstance(result, dict):
            raise TypeError(f"{result!r:.80}")
        calls = tuple(
            Call(
                parent, kind, bytes.fromhex(caller[2:]), bytes.fromhex(to[2:]), int(value, 16), bytes.fromhex(data[2:]), int(size),
                error, bytes.fromhex(output[2:]),
            )
            for parent, kind, caller, to, value, data, size, error, output in result["calls"]
        )  # fmt: skip
        if any(not -1 <= call.parent < i for i, call in enumerate(calls)):
            raise ValueError("a call begins before its caller")
        return CallTree(calls, result["error"], bytes.fromhex(result["output"][2:]))
    except (KeyError, TypeError, ValueError) as error:
        raise NodeError(f"the node's calls cannot be read: {type(error).__name__} {error}") from error


def slots_touched(prestate: object) -> dict[Address, frozenset[int]]:
    """The storage slots in an answer of prestateTracer, by address. Raises NodeError if it is none."""
    try:
        if not isinstance(prestate, Mapping):
            raise TypeError(f"{prestate!r:.80}")
        return {
            bytes.fromhex(address[2:]): frozenset(int(slot, 16) for slot in account.get("storage") or ())
            for address, account in prestate.items()
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise NodeError(f"the node's prestate cannot be read: {type(error).__name__} {error}") from error


def untrapped(tree: CallTree, codes: Mapping[Address, Code], entry_point: Address) -> set[Address]:
    """Whose code ran without being known, delegates behind delegations included; precompiles and the entry point are trusted."""
    wanted = {a for a in tree.called() if a != entry_point and int.from_bytes(a) not in opcodes.PRECOMPILES}
    wanted |= {code.delegate for a in wanted if (code := codes.get(a)) is not None and code.delegate is not None}
    return wanted - codes.keys()


def evidence(
    tree: CallTree,
    slots: Mapping[Address, frozenset[int]],
    codes: Mapping[Address, Code],
    entry_point: Address,
    namespaces: Iterable[tuple[Address, bytes]],
) -> ValidationTrace:
    """The trace of a run of trapped code, as the rules judge it.

    `codes` are those that were trapped, by address; `namespaces` the (A, x) for which keccak(A || x) is known to begin associated
    storage. Raises Unproven: an error below the root, a creation, code that was not trapped.
    """
    if missing := untrapped(tree, codes, entry_point):
        raise Unproven(f"0x{min(missing).hex()} was not trapped")
    touched = {address: dict.fromkeys(found, _READ_AND_WRITTEN) for address, found in slots.items()}
    root = _frame("CALL", b"", entry_point, entry_point, tree, {}, delegated=False)
    frames: list[Frame] = []
    uses: list[list[Use]] = [[] for _ in tree.calls]
    for call in tree.calls:
        if call.kind not in _OPS:
            raise Unproven(f"a {call.kind}")
        if call.error:
            raise Unproven(f"a call ended with {call.error!r:.80}")
        parent = root if call.parent < 0 else frames[call.parent]
        code = codes.get(call.to)
        delegated = code is not None and code.delegate is not None
        running = code
        if code is not None and code.delegate is not None:
            running = codes.get(code.delegate)
            if running is None or running.delegate is not None:
                raise Unproven(f"delegate 0x{code.delegate.hex()} runs no code that could be trapped")
        context = parent.context if call.kind in ("DELEGATECALL", "CALLCODE") else call.to
        if running is not None and running.reads_context:
            read = codes.get(context)
            if read is None or read.changed:
                raise Unproven(f"0x{context.hex()} may read its code, which has traps")
        mine = touched.get(context, {}) if context != entry_point else {}
        frame = _frame(call.kind, call.caller, call.to, context, call, mine, delegated=delegated)
        frames.append(frame)
        parent.calls.append(frame)
        if call.parent >= 0 and parent.code != entry_point:
            uses[call.parent].append(_use(call, code))
    for frame, used in zip(frames, uses, strict=True):
        frame.uses = tuple(used)
    preimages = tuple((owner, int.from_bytes(keccak(owner.rjust(32, b"\0") + word))) for owner, word in namespaces)
    return ValidationTrace(root, preimages)


def _frame(
    kind: str,
    caller: Address,
    code: Address,
    context: Address,
    call: Call | CallTree,
    slots: Mapping[int, int],
    *,
    delegated: bool,
) -> Frame:
    return Frame(
        kind=kind,
        caller=caller,
        code=code,
        context=context,
        data=call.data if isinstance(call, Call) else b"",
        error=call.error,
        output=call.output,
        gas_used=0,
        used_opcodes=frozenset(),  # none of those that matter, or its frame would have ended with an error
        slots=slots,
        uses=(),
        last_opcode=-1,
        last_pc=-1,
        delegated=delegated,
    )


def _use(call: Call, code: Code | None) -> Use:
    op = _OPS[call.kind]
    return Use(
        op=op,
        address=call.to,
        code_size=0 if code is None else code.size,
        delegated=code is not None and code.delegate is not None,
        value_wei=call.value_wei if op in (opcodes.CALL, opcodes.CALLCODE) else 0,
        data=call.data,
        data_size=call.data_size,
    )
