"""Mempool rules that need no opcode trace: limits per sender, replacement, one role per address, promised deposits, reputation.

Each refusal names its rule. The opcode, code and storage rules are in `bundler.erc7562`.   Source: ERC-7562.
"""

from __future__ import annotations

from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation, check_standing
from bundler.settings import Settings
from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields, OpcodeRule, PaymasterDepositTooLow, StakeTooLow, Throttled
from contracts.types import Address, Wei, checksum, to_hex
from contracts.userop import Candidate, UserOperation, required_prefund


def check_roles(pool: Mempool, op: UserOperation) -> None:
    """[STO-040] A sender may not serve as factory or paymaster of another pending operation, nor the other way round.

    Raises OpcodeRule.
    """
    if pool.is_entity(op.sender):
        raise OpcodeRule(
            f"The sender address {checksum(op.sender)} is used as a different entity in another UserOperation "
            "currently in mempool; wait until that is included",
            rule="STO-040",
        )
    for role, address in (("factory", op.real_factory), ("paymaster", op.paymaster)):
        if address is not None and pool.is_sender(address):
            raise OpcodeRule(
                f"A {role} at {checksum(address)} is used as a sender entity in another UserOperation "
                "currently in mempool; wait until that is included",
                rule="STO-040",
            )


def check_delegate(pool: Mempool, candidate: Candidate, replaced: Entry | None) -> None:
    """[AUTH-040] All pending authorisations of a sender name the same delegate. Raises OpcodeRule."""
    pending = pool.delegate_of(candidate.op.sender)
    if candidate.authorization is None or pending is None or pending == candidate.authorization.delegate:
        return
    if replaced is not None and len(pool.of_sender(candidate.op.sender)) == 1:
        return
    raise OpcodeRule(
        f"a pending operation of the sender delegates to {checksum(pending)}; this one to "
        f"{checksum(candidate.authorization.delegate)}: wait until that is included",
        rule="AUTH-040",
    )


def check_reputation(
    pool: Mempool, reputation: Reputation, op: UserOperation, staked: frozenset[Address] | None, replaced: Entry | None
) -> None:
    """[GREP-010], [GREP-020], [UREP-020] for each entity of `op`; `staked` None while stakes are not known. Raises Throttled, StakeTooLow."""
    freed = replaced.counted if replaced is not None else frozenset()
    for role, address in (("account", op.sender), ("factory", op.real_factory), ("paymaster", op.paymaster)):
        if address is None:
            continue
        pending = pool.count_of(address) - (address in freed)
        check_standing(reputation, role, address, pending)
        most = reputation.counts(address).allowed_unstaked
        if role == "paymaster" and staked is not None and address not in staked and pending >= most:
            raise StakeTooLow(
                f"paymaster {checksum(address)} is unstaked and has {pending} pending operations, its reputation allows {most}; "
                "stake it, or wait for some to be included",
                rule="UREP-020",
            )


def replaced_by(pool: Mempool, op: UserOperation, entry_point: EntryPoint) -> Entry | None:
    """The pending operation that `op` replaces, None if its nonce is free.

    Raises InvalidFields unless both fees are at least 10 % higher, or when a bundle carries the other one already: also one in a
    block that is not final, for a reorganisation brings it back.
    """
    settled = pool.settled_at(entry_point.address, op.sender, op.nonce)
    if settled is not None:
        raise InvalidFields(f"AA25 invalid account nonce: operation {to_hex(settled)} has used it")
    old = pool.at(entry_point.address, op.sender, op.nonce)
    if old is None:
        return None
    if pool.is_in_flight(old.hash):
        raise InvalidFields(
            f"operation {to_hex(old.hash)} with this nonce is in a submitted bundle and cannot be replaced any more"
        )
    for name, new_fee, old_fee in (
        ("maxFeePerGas", op.max_fee_per_gas, old.op.max_fee_per_gas),
        ("maxPriorityFeePerGas", op.max_priority_fee_per_gas, old.op.max_priority_fee_per_gas),
    ):
        least = -(-old_fee * 110 // 100)
        if new_fee < least:
            raise InvalidFields(
                f"replacement of {to_hex(old.hash)} needs {name} of at least {least} (10 % more), got {new_fee}"
            )
    return old


def sender_is_full(pool: Mempool, op: UserOperation, settings: Settings) -> bool:
    """Whether only a stake lets this sender have one operation more."""
    return len(pool.of_sender(op.sender)) >= settings.max_ops_per_sender


def check_sender_stake(op: UserOperation, staked: bool, settings: Settings) -> None:
    """[UREP-010] An unstaked sender has at most `max_ops_per_sender` pending operations. Raises StakeTooLow."""
    if not staked:
        raise StakeTooLow(
            f"sender {checksum(op.sender)} is unstaked and has {settings.max_ops_per_sender} pending operations already, "
            "the most allowed; wait for one to be included",
            rule="UREP-010",
        )


def check_capacity(pool: Mempool, settings: Settings, op: UserOperation) -> None:
    """Bound the pool's memory: into a full one only who pays more than whoever pays least, who leaves for it. Raises Throttled."""
    if len(pool) < settings.max_pool_ops and pool.size_bytes < settings.max_pool_bytes:
        return
    lowest = pool.lowest()
    full = f"the mempool is full ({len(pool)} operations, {pool.size_bytes} bytes)"
    if lowest is None:
        raise Throttled(f"{full}, and all of them are under way; try again later", rule="LIM-POOL")
    tip_wei, max_fee_wei = (-(-fee * 110 // 100) for fee in lowest.bid)
    if op.max_priority_fee_per_gas < tip_wei or op.max_fee_per_gas < max_fee_wei:
        raise Throttled(
            f"{full}: offer at least maxPriorityFeePerGas {tip_wei} and maxFeePerGas {max_fee_wei}, 10 % more than the lowest in it, "
            "or try again later",
            rule="LIM-POOL",
        )


def check_deposit(
    pool: Mempool, op: UserOperation, entry_point: EntryPoint, deposit_wei: Wei, replaced: Entry | None
) -> None:
    """[EREP-010] A paymaster's deposit covers all pending operations that it promised to pay.

    Raises PaymasterDepositTooLow.
    """
    assert op.paymaster is not None
    promised = pool.promised(entry_point, op.paymaster)
    if replaced is not None and replaced.op.paymaster == op.paymaster:
        promised -= required_prefund(replaced.op)
    needed = promised + required_prefund(op)
    if needed > deposit_wei:
        raise PaymasterDepositTooLow(
            f"AA31 paymaster {checksum(op.paymaster)} has a deposit that is too low: {deposit_wei} wei, "
            f"and with this operation the pending ones could cost {needed} wei",
            rule="EREP-010",
        )
