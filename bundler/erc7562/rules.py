"""The rules of validation, judged on a trace. Every refusal names its rule and the entity that broke it.

Pure: no node, no pool. What concerns other pending operations (STO-040, STO-041, reputation) is judged where they are known.
Source: ERC-7562, "Validation Rules".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bundler.erc7562 import opcodes
from bundler.erc7562.entities import VALIDATE_PAYMASTER_USER_OP, Entities, Phase, Role
from bundler.erc7562.trace import READ, WRITE, Frame, Use
from contracts.abi import Function
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.errors import OpcodeRule
from contracts.types import Address, checksum

MAX_CONTEXT_BYTES = 2048
"""[LIM-020]."""
MAX_ASSOCIATED_OFFSET = 128
INCREMENT_NONCE = Function.parse("incrementNonce(uint192)")
_CALLS = (opcodes.CALL, opcodes.CALLCODE, opcodes.DELEGATECALL, opcodes.STATICCALL)


class RuleBroken(OpcodeRule):
    """A rule of ERC-7562 is broken; `role` and `address` say by whom."""

    def __init__(self, rule: str, role: Role, address: Address, message: str) -> None:
        super().__init__(message, rule=rule, data={"entity": role, "address": checksum(address)})
        self.role = role
        self.address = address


Edition = Literal["current", "v0.7"]
"""Entry point v0.7's mempool has rules of its own where the text changed since: an unstaked paymaster may return a context ([EREP-050]
was not there), a staked factory opens associated storage to the account alone ([STO-022]), and a precompile that runs out of gas breaks
no rule ([OP-020]). Source: eth-infinitism/bundler-spec-tests, releases/v0.7."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the rules need to know beside the trace."""

    entry_point: Address
    entities: Entities
    preimages: Sequence[tuple[Address, int]]
    codes: Mapping[Address, bytes]
    """Code of the frames that ended exceptionally, to tell an unassigned opcode ([OP-013])."""
    edition: Edition = "current"


def check_validation(phases: Sequence[Phase], context: Context) -> None:
    """Raise RuleBroken for the first rule that a validation frame breaks."""
    for phase in phases:
        for broken in violations(phase, context):
            raise broken


def violations(phase: Phase, context: Context) -> Iterator[RuleBroken]:
    """Every rule that one validation frame breaks, gravest first within a frame."""
    judge = _Judge(phase.role, context)
    yield from judge.creations(phase.frame)
    for frame in _entity_frames(phase.frame, context.entry_point):
        yield from judge.delegation(frame)
        yield from judge.gas(frame)
        yield from judge.opcodes(frame)
        yield from judge.uses(frame)
        yield from judge.storage(frame)
    if phase.role == "paymaster":
        yield from judge.context_bytes(phase.frame)


def _entity_frames(frame: Frame, entry_point: Address) -> Iterator[Frame]:
    """The frames that run the entity's choice of code: the entry point's own, reached by an allowed call, are trusted."""
    if frame.code == entry_point:
        return
    yield frame
    for call in frame.calls:
        yield from _entity_frames(call, entry_point)


def is_associated(slot: int, owner: Address, preimages: Sequence[tuple[Address, int]]) -> bool:
    """Whether `slot` is the address itself or keccak(address || x) + n, 0 <= n <= 128.   Source: "Associated storage"."""
    if slot == int.from_bytes(owner):
        return True
    return any(
        address == owner and 0 <= (slot - hashed) % 2**256 <= MAX_ASSOCIATED_OFFSET for address, hashed in preimages
    )


class _Judge:
    """The rules for the frames of one entity."""

    def __init__(self, role: Role, context: Context) -> None:
        self.role = role
        self.context = context
        self.entities = context.entities
        self.address = context.entities.address(role)
        self.staked = context.entities.is_staked(role)
        self.factory_staked = self.entities.factory is not None and self.entities.factory in self.entities.staked

    def broken(self, rule: str, message: str) -> RuleBroken:
        return RuleBroken(rule, self.role, self.address, message)

    def banned(self, rule: str, op: int, where: Frame) -> RuleBroken:
        """Wording that clients and the public suite look for."""
        return self.broken(
            rule,
            f"{self.role} uses banned opcode: {opcodes.name(op)} (in code of {checksum(where.code)}, called by the "
            f"{self.role} {checksum(self.address)} during validation)",
        )

    def delegation(self, frame: Frame) -> Iterator[RuleBroken]:
        """[AUTH-020]: an entity other than the sender is no delegated account."""
        if frame.delegated and frame.code == self.address != self.entities.sender:
            yield self.broken(
                "AUTH-020",
                f"{self.role} {checksum(self.address)} is an account with an EIP-7702 delegation; only a sender may be",
            )

    # -- opcodes ------------------------------------------------------------------------------------------------------------

    def gas(self, frame: Frame) -> Iterator[RuleBroken]:
        """[OP-020]: a frame that ran out of gas tells its gas limit."""
        precompile = int.from_bytes(frame.code) in opcodes.PRECOMPILES
        if frame.out_of_gas and not (precompile and self.context.edition == "v0.7"):
            yield self.broken("OP-020", f"{self.role} internally reverts on out of gas, at {checksum(frame.code)}")

    def opcodes(self, frame: Frame) -> Iterator[RuleBroken]:
        """[OP-011], [OP-012], [OP-013], [OP-080]."""
        for op in sorted(frame.used_opcodes):
            if op in opcodes.BLOCKED:
                yield self.banned("OP-011", op, frame)
            elif op == opcodes.GAS:
                yield self.banned("OP-012", op, frame)
            elif op not in opcodes.ASSIGNED:
                yield self.banned("OP-013", op, frame)
            elif op in (opcodes.BALANCE, opcodes.SELFBALANCE) and not self.staked:
                yield self.banned("OP-080", op, frame)
        if frame.halted and frame.code in self.context.codes:
            # Some nodes do not report the step of an opcode that does not exist.
            op_after = opcodes.next_opcode(self.context.codes[frame.code], frame.last_pc)
            jumped = frame.last_opcode in (opcodes.JUMP, opcodes.JUMPI)
            if op_after is not None and op_after not in opcodes.ASSIGNED and not jumped:
                yield self.banned("OP-013", op_after, frame)

    def creations(self, root: Frame) -> Iterator[RuleBroken]:
        """[OP-031], [OP-032], [EREP-060], [EREP-061]."""
        deployed = 0
        for parent in _entity_frames(root, self.context.entry_point):
            attempted = {opcodes.CREATE, opcodes.CREATE2} & parent.used_opcodes
            created = [call for call in parent.calls if call.creates]
            for call in created:
                op = opcodes.CREATE2 if call.kind == "CREATE2" else opcodes.CREATE
                attempted.discard(op)
                if self.role == "factory" and op == opcodes.CREATE2 and call.context == self.entities.sender:
                    deployed += 1
                    if deployed == 1:
                        continue
                if not self._may_create(op, parent):
                    yield self.banned("OP-031" if op == opcodes.CREATE2 else "OP-011", op, parent)
            for op in sorted(attempted):  # tried, but the node began no frame: too little value or depth
                if not self._may_create(op, parent):
                    yield self.banned("OP-031" if op == opcodes.CREATE2 else "OP-011", op, parent)

    def _may_create(self, op: int, parent: Frame) -> bool:
        """Beyond the one CREATE2 of the sender."""
        if self.entities.factory is None or self.role == "paymaster":
            return False
        if parent.context == self.entities.sender:
            return op == opcodes.CREATE or self.factory_staked
        if self.role != "factory" or not self.factory_staked:
            return False
        return parent.context == self.entities.factory or op == opcodes.CREATE

    # -- addresses ----------------------------------------------------------------------------------------------------------

    def uses(self, frame: Frame) -> Iterator[RuleBroken]:
        """[OP-041], [OP-042], [OP-051] to [OP-055], [OP-061], [OP-062], [AUTH-030]."""
        for use in frame.uses:
            if use.address == self.context.entry_point:
                if not self._entry_point_use(frame, use):
                    yield self.broken(
                        "OP-054",
                        f"{self.role} uses the entry point with {opcodes.name(use.op)} during validation; only depositTo(sender), "
                        "incrementNonce and a plain transfer from the sender, and EXTCODESIZE ISZERO, are allowed",
                    )
                continue
            if use.value_wei and use.op in (opcodes.CALL, opcodes.CALLCODE):
                yield self.broken(
                    "OP-061",
                    f"{self.role} sends {use.value_wei} wei to {checksum(use.address)} during validation; only the entry "
                    "point may be sent value",
                )
            if use.address == self.entities.sender or int.from_bytes(use.address) in opcodes.PRECOMPILES:
                continue
            if use.code_size == 0:
                yield self.broken(
                    "OP-041",
                    f"{self.role} accesses {checksum(use.address)}, which has no code, with {opcodes.name(use.op)}",
                )
            elif use.delegated:
                yield self.broken(
                    "AUTH-030",
                    f"{self.role} accesses {checksum(use.address)}, which has an EIP-7702 delegation and is not the sender",
                )

    def _entry_point_use(self, frame: Frame, use: Use) -> bool:
        if use.op == opcodes.EXTCODESIZE:
            return use.is_zero
        if use.op != opcodes.CALL:
            return False
        sender = self.entities.sender
        if use.data_size == 0:
            return self.role == "account" or frame.context == sender
        if use.data[:4] == DEPOSIT_TO.selector:
            return self.role != "paymaster" and use.data[4:36] == sender.rjust(32, b"\0")
        # The nonce is that of whoever calls: only the sender's own may change.
        return use.data[:4] == INCREMENT_NONCE.selector and frame.context == sender

    # -- storage ------------------------------------------------------------------------------------------------------------

    def storage(self, frame: Frame) -> Iterator[RuleBroken]:
        """[STO-010] to [STO-033], [OP-070]."""
        where = frame.context
        if where == self.entities.sender:
            return
        entities = {address for _, address in self.entities.all()}
        for slot, bits in frame.slots.items():
            rule = self._storage_rule(where, slot, bits, where in entities)
            if rule is not None:
                verb = "writes" if bits & WRITE else "reads"
                kind = "transient storage" if bits & 0b1100 and not bits & 0b0011 else "storage"
                yield self.broken(
                    rule,
                    f"{self.role} {verb} {kind} slot 0x{slot:x} of {checksum(where)}, which is not associated with the sender"
                    + (f"; the {self.role} {checksum(self.address)} is unstaked" if not self.staked else ""),
                )

    def _storage_rule(self, where: Address, slot: int, bits: int, is_entity: bool) -> str | None:
        """The rule that forbids the access; None when it is allowed."""
        own = where == self.address
        if own:
            return None if self.staked else "STO-031"
        if is_entity:
            return "STO-033"
        exists = self.entities.factory is None
        if is_associated(slot, self.entities.sender, self.context.preimages) and (exists or self._opened()):
            return None
        by_entity = is_associated(slot, self.address, self.context.preimages)
        if self.staked:
            return None if by_entity or (bits & READ and not bits & WRITE) else "STO-033"
        if is_associated(slot, self.entities.sender, self.context.preimages):
            return "STO-022"
        return "STO-032" if by_entity else "STO-021"

    def _opened(self) -> bool:
        """[STO-022] Whether the staked factory opens storage associated with the sender, who is being deployed, to this entity."""
        return self.factory_staked and (self.context.edition != "v0.7" or self.role != "paymaster")

    # -- paymaster ----------------------------------------------------------------------------------------------------------

    def context_bytes(self, frame: Frame) -> Iterator[RuleBroken]:
        """[EREP-050], [LIM-020]."""
        size = context_size(frame)
        if size and not self.staked and self.context.edition != "v0.7":
            yield self.broken(
                "EREP-050", f"unstaked paymaster {checksum(self.address)} must not return a context ({size} bytes)"
            )
        if size > MAX_CONTEXT_BYTES:
            yield self.broken("LIM-020", f"the paymaster's context has {size} bytes, more than {MAX_CONTEXT_BYTES}")


def context_size(frame: Frame) -> int:
    """Length of the context in a paymaster's answer; 0 when the answer is none."""
    if frame.error or len(frame.output) < 96 or frame.data[:4] != VALIDATE_PAYMASTER_USER_OP.selector:
        return 0
    at = int.from_bytes(frame.output[:32])
    return int.from_bytes(frame.output[at : at + 32]) if at + 32 <= len(frame.output) else 0


def storage_contracts(phases: Sequence[Phase], sender: Address) -> frozenset[Address]:
    """[STO-041]: the contracts, other than the sender itself, whose storage validation touches."""
    return frozenset(
        frame.context for phase in phases for frame in phase.frame.walk() if frame.slots and frame.context != sender
    )
