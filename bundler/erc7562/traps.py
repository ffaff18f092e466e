"""Code that stops by itself where ERC-7562 forbids: what makes a cheap simulation prove as much as a step-by-step trace.

`trapped(code)` has the length, the gas costs and the jump targets of `code`, but every opcode that a validation may not (or not without a
closer look) execute is INVALID. A run of trapped code in which no call ended exceptionally executed none of them, so it is, opcode for
opcode, the run of the code itself; whoever reaches one leaves a call with an error in the node's call tree, caught or not.
Opcodes that read code are trapped too: nothing may behave otherwise because its code was changed.   Source: ERC-7562, "Opcode Rules".
"""

from __future__ import annotations

from dataclasses import dataclass

from bundler.erc7562 import opcodes
from contracts.eip7702 import delegate_of
from contracts.entrypoint.base import BEFORE_EXECUTION
from contracts.types import Address, to_hex

_CALLS = frozenset({opcodes.CALL, opcodes.CALLCODE, opcodes.DELEGATECALL, opcodes.STATICCALL})
_CODECOPY, _TLOAD, _TSTORE, _STOP, _PUSH1, _PUSH32 = 0x39, 0x5C, 0x5D, 0x00, 0x60, 0x7F

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
    """
    changed = bytearray(code)
    at, end = 0, len(code)
    while at < end:
        op = code[at]
        if _PUSH1 <= op <= _PUSH32:
            at += op - _PUSH1 + 2
            continue
        if op in TRAPPED or (op == opcodes.GAS and (at + 1 == end or code[at + 1] not in _CALLS)):
            changed[at] = opcodes.INVALID
        at += 1
    return bytes(changed)


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

    @classmethod
    def of(cls, code: bytes) -> Code:
        delegate = delegate_of(code)
        return cls(len(code), to_hex(code if delegate is not None else trapped(code)), delegate)
