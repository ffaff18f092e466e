"""Who is who in an operation's validation: its entities, their stakes, and the frames each answers for.   Source: ERC-7562, "Definitions"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bundler.erc7562.trace import Frame, ValidationTrace
from contracts.abi import Function
from contracts.entrypoint.base import PACKED_TYPE
from contracts.types import Address, Wei
from contracts.userop import UserOperation

Role = Literal["account", "factory", "paymaster"]

VALIDATE_USER_OP = Function.parse(f"validateUserOp({PACKED_TYPE},bytes32,uint256)(uint256)")
VALIDATE_PAYMASTER_USER_OP = Function.parse(f"validatePaymasterUserOp({PACKED_TYPE},bytes32,uint256)(bytes,uint256)")


@dataclass(frozen=True, slots=True)
class Stake:
    """What an address has locked at the entry point. `unstake_delay_s` in seconds."""

    deposit_wei: Wei
    stake_wei: Wei
    unstake_delay_s: int

    def suffices(self, min_stake_wei: Wei, min_unstake_delay_s: int) -> bool:
        """[SREP-010]."""
        return self.stake_wei > 0 and self.stake_wei >= min_stake_wei and self.unstake_delay_s >= min_unstake_delay_s


@dataclass(frozen=True, slots=True)
class Entities:
    """The entities of one operation and which of them are staked. An EIP-7702 marker is no factory."""

    sender: Address
    factory: Address | None
    paymaster: Address | None
    staked: frozenset[Address]

    def address(self, role: Role) -> Address:
        """The address in that role; the role must be there."""
        found = {"account": self.sender, "factory": self.factory, "paymaster": self.paymaster}[role]
        assert found is not None
        return found

    def is_staked(self, role: Role) -> bool:
        return self.address(role) in self.staked

    def all(self) -> list[tuple[Role, Address]]:
        """Each role that is filled."""
        roles: list[tuple[Role, Address | None]] = [
            ("factory", self.factory),
            ("account", self.sender),
            ("paymaster", self.paymaster),
        ]
        return [(role, address) for role, address in roles if address is not None]


def entity_addresses(op: UserOperation) -> list[Address]:
    """Sender, factory and paymaster, as far as they are there."""
    return [address for address in (op.sender, op.real_factory, op.paymaster) if address is not None]


def entities_of(op: UserOperation, stakes: Mapping[Address, Stake], min_stake_wei: Wei, min_delay_s: int) -> Entities:
    """The entities of `op` with the stakes that count."""
    staked = frozenset(a for a in entity_addresses(op) if stakes[a].suffices(min_stake_wei, min_delay_s))
    return Entities(op.sender, op.real_factory, op.paymaster, staked)


_STAGES: tuple[Role, ...] = ("factory", "account", "paymaster")


@dataclass(frozen=True, slots=True)
class Phase:
    """One validation frame and the entity that answers for it."""

    role: Role
    frame: Frame


def phases_of(trace: ValidationTrace, ops: Sequence[UserOperation], sender_creator: Address) -> list[list[Phase]]:
    """For each operation of a traced bundle, its validation frames in the order of the entry point's calls.

    The entry point works through operations one after the other: deployment, account, paymaster. A frame that fails ends the bundle.
    """
    found: list[list[Phase]] = [[] for _ in ops]
    current, last = 0, -1
    for frame in trace.root.calls:
        selector = frame.data[:4]
        if frame.code == sender_creator:
            stage = 0
        elif selector == VALIDATE_USER_OP.selector:
            stage = 1
        elif selector == VALIDATE_PAYMASTER_USER_OP.selector:
            stage = 2
        else:
            continue
        if stage <= last:
            current += 1
        last = stage
        if current >= len(ops):
            break
        role: Role = _STAGES[stage]
        if stage == 0 and ops[current].real_factory is None:
            role = "account"  # initEip7702Sender runs the account's own code
        found[current].append(Phase(role, frame))
    return found
