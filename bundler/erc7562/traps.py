"""Code that stops by itself where ERC-7562 forbids: what makes a cheap simulation prove as much as a step-by-step trace.

`trapped(code)` has the length, the gas costs and the jump targets of `code`, but every opcode that a validation may not (or not without a
closer look) execute is INVALID. A run of trapped code in which no call ended exceptionally executed none of them, so it is, opcode for
opcode, the run of the code itself; whoever reaches one leaves a call with an error in the node's call tree, caught or not.
Opcodes that read code are trapped too: nothing may behave otherwise because its code was changed. An account may read its own, as one
does that is born with its configuration behind its code, if that has no traps.   Source: ERC-7562, "Opcode Rules".
"""

from __future__ import annotations

from dataclasses import dataclass

from bundler.erc7562 import opcodes
from contracts.eip7702 import delegate_of
from contracts.entrypoint.base import BEFORE_EXECUTION
from contracts.types import Address, to_hex

_CALLS = frozenset({opcodes.CALL, opcodes.CALLCODE, opcodes.DELEGATECALL, opcodes.STATICCALL})
_ADDRESS, _CODECOPY, _JUMPDEST, _TLOAD, _TSTORE = 0x30, 0x39, 0x5B, 0x5C, 0x5D
_STOP, _PUSH1, _PUSH32, _RETURN = 0x00, 0x60, 0x7F, 0xF3
_ENDS = frozenset({_STOP, _RETURN, opcodes.REVERT, opcodes.INVALID, opcodes.JUMP, 0xFF})
_SMALL = 2_048
"""Bytes of the largest code whose jumps are followed: proxies are far below."""

TRAPPED = (
    frozenset(opcodes.BLOCKED)
    | {opcodes.BALANCE, opcodes.SELFBALANCE}  # for staked entities only
    | {opcodes.CREATE, opcodes.CREATE2}  # created code would run untrapped
    | {opcodes.EXTCODESIZE, opcodes.EXTCODEHASH}  # their use leaves no call
    | {opcodes.EXTCODECOPY, _CODECOPY}  # would see the traps
    | {_TLOAD, _TSTORE}  # their slots appear in no state
    | (frozenset(range(256)) - opcodes.ASSIGNED)
)
"""What never runs in a cheap validation. GAS is treated by what follows it ([OP-012])."""


def trapped(code: bytes) -> bytes:
    """`code` with every opcode of TRAPPED, and every GAS without a *CALL behind it, replaced by INVALID. Push data stay as they are.

    Instructions are found by one sweep from the start: execution cannot leave its grid, for it jumps to JUMPDESTs of the same sweep only.
    These stay:
    - what execution cannot reach: behind the end of a block up to the next JUMPDEST, and in small code that jumps to constants only
      whatever its jumps do not lead to (data behind a proxy, constants behind a contract);
    - EXTCODECOPY and EXTCODESIZE right behind ADDRESS: of the account that it runs for (`Code.reads_context` for the former);
    - CODECOPY of a constant range that has no traps.
    """
    changed = bytearray(code)
    reachable = _reachable(code)
    copies: list[tuple[int, range]] = []
    pushed: list[int] = []
    """What the instructions right before this one pushed."""
    at, end, before, alive = 0, len(code), -1, True
    while at < end:
        op = code[at]
        alive = (alive or op == _JUMPDEST) if reachable is None else at in reachable
        if _PUSH1 - 1 <= op <= _PUSH32:
            size = op - _PUSH1 + 1
            pushed = [*pushed[-2:], int.from_bytes(code[at + 1 : at + 1 + size].ljust(size, b"\0"))]
            before, at = op, at + 1 + size
            continue
        forbidden = op in TRAPPED or (op == opcodes.GAS and (at + 1 == end or code[at + 1] not in _CALLS))
        if before == _ADDRESS and op in (opcodes.EXTCODECOPY, opcodes.EXTCODESIZE):
            forbidden = False
        if forbidden and alive:
            if op == _CODECOPY and len(pushed) == 3:  # size, offset, place in memory
                copies.append((at, range(pushed[1], min(pushed[1] + pushed[0], end))))
            else:
                changed[at] = opcodes.INVALID
        if op in _ENDS:
            alive = False
        pushed = []
        before, at = op, at + 1
    at_risk = {place for place, _ in copies}
    for place, copied in copies:
        if any(changed[i] != code[i] or i in at_risk for i in copied):
            changed[place] = opcodes.INVALID
    return bytes(changed)


def _reachable(code: bytes) -> frozenset[int] | None:
    """The places of the instructions that execution may reach; None if a jump goes where only a run can tell, or the code is large."""
    if len(code) > _SMALL:
        return None
    grid, at = set(), 0
    while at < len(code):
        grid.add(at)
        at += code[at] - _PUSH1 + 2 if _PUSH1 <= code[at] <= _PUSH32 else 1
    found: set[int] = set()
    starts = [0]
    while starts:
        at, pushed = starts.pop(), None
        while at < len(code) and at not in found:
            found.add(at)
            op = code[at]
            if op in (opcodes.JUMP, opcodes.JUMPI):
                if pushed is None:
                    return None
                if pushed in grid and code[pushed] == _JUMPDEST:
                    starts.append(pushed)
            if op in _ENDS:
                break
            if _PUSH1 - 1 <= op <= _PUSH32:
                size = op - _PUSH1 + 1
                pushed = int.from_bytes(code[at + 1 : at + 1 + size].ljust(size, b"\0"))
                at += 1 + size
            else:
                pushed, at = None, at + 1
    return frozenset(found)


def validation_only(entry_point_code: bytes) -> bytes | None:
    """The entry point's code, ended by STOP where validation is over: it pushes the topic of BeforeExecution there.

    None if the topic is not found, as in an entry point that we do not know.
    """
    changed = bytearray(entry_point_code)
    wanted = bytes([_PUSH32]) + BEFORE_EXECUTION.topic
    at = entry_point_code.find(wanted)
    if at < 0:
        return None
    while at >= 0:
        changed[at] = _STOP
        at = entry_point_code.find(wanted, at + 1)
    return bytes(changed)


@dataclass(frozen=True, slots=True)
class Code:
    """What is known of one code, whoever has it. `size` in bytes."""

    size: int
    trapped: str
    """As 0x data, for a state override; a delegation is left as it is."""
    delegate: Address | None
    """Of an EIP-7702 delegation."""
    changed: bool
    """Whether it has traps: who reads it then reads what is not there."""
    reads_context: bool
    """Whether it may read the code of the account it runs for."""

    @classmethod
    def of(cls, code: bytes) -> Code:
        delegate = delegate_of(code)
        kept = code if delegate is not None else trapped(code)
        return cls(len(code), to_hex(kept), delegate, kept != code, bytes([_ADDRESS, opcodes.EXTCODECOPY]) in kept)
