"""Whom an operation touches by its own execution: every contract that ran for it, and everyone who could gain from it.

What the calls of an operation say is what their author wants to be seen; what ran is what the node saw. Reading (STATICCALL, and all inside
it) touches nobody: it can change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contracts.abi import Event
from contracts.types import Address, Hash32
from policies.limits import Limit
from policies.metrics.operation import OF_TRACE, TRACE
from policies.portfolio import Missing
from policies.venues import Log
from policies.venues.allowances import APPROVAL

TRANSFER = Event.parse("Transfer(address indexed,address indexed,uint256)")
"""ERC-20, and ERC-721 with a third indexed argument."""
TRANSFER_SINGLE = Event.parse("TransferSingle(address indexed,address indexed,address indexed,uint256,uint256)")
TRANSFER_BATCH = Event.parse("TransferBatch(address indexed,address indexed,address indexed,uint256[],uint256[])")
APPROVAL_FOR_ALL = Event.parse("ApprovalForAll(address indexed,address indexed,bool)")
PERMIT2_APPROVAL = Event.parse("Approval(address indexed,address indexed,address indexed,uint160,uint48)")
"""owner, token, spender, amount, expiration.   Source: Permit2, IAllowanceTransfer."""
DELEGATED = Event.parse("BorrowAllowanceDelegated(address indexed,address indexed,address indexed,uint256)")
"""fromUser, toUser, asset, amount.   Source: Aave v3, ICreditDelegationToken."""
_NOBODY = bytes(20)
_CREATES = ("CREATE", "CREATE2")
_RUNS = ("CALL", "CALLCODE", "DELEGATECALL", *_CREATES)
_PAYS = ("CALL", "SELFDESTRUCT", *_CREATES)


@dataclass(frozen=True, slots=True)
class Frame:
    """One call inside an execution. `kind`: CALL, DELEGATECALL, STATICCALL, CREATE, ...; `lasting`: neither it nor what called it
    reverted; `static`: it, or what called it, can only read; `forwarded`: it passes its caller's own call data on, as a proxy does."""

    kind: str
    sender: Address
    target: Address
    value_wei: int
    data: bytes
    lasting: bool
    static: bool = False
    forwarded: bool = False


def wants_trace(limits: Iterable[Limit]) -> bool:
    """Whether a limit asks whom an operation touches."""
    return any(limit.metric in OF_TRACE or any(name in limit.when for name in OF_TRACE) for limit in limits)


def touched_by(
    account: Address, frames: Sequence[Frame], logs: Iterable[Log]
) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    """Contracts that were called, delegated to or created, and counterparties, each once and in order of address.

    A counterparty receives native coin, tokens or NFTs from the account, or is let take them; the account's own implementation and the
    account are neither.
    """
    contracts = {
        frame.target
        for frame in frames
        if frame.kind in _RUNS
        and not frame.static
        and not (frame.kind == "DELEGATECALL" and frame.sender == account and frame.forwarded)
    }
    parties = {
        frame.target
        for frame in frames
        if frame.kind in _PAYS and frame.lasting and frame.value_wei and frame.sender == account
    }
    for _, topics, data in logs:
        parties |= _gains(account, topics, data)
    return tuple(sorted(contracts - {account, _NOBODY})), tuple(sorted(parties - {account, _NOBODY}))


def _gains(account: Address, topics: Sequence[Hash32], data: bytes) -> set[Address]:
    """Who gains by one event of a token."""
    if len(topics) < 3:
        return set()
    kind, parties = topics[0], [topic[12:] for topic in topics[1:]]
    if kind in (TRANSFER.topic, APPROVAL.topic):  # tokens and NFTs alike; an allowance of nothing lets nobody take
        revoked = kind == APPROVAL.topic and len(topics) == 3 and not any(data)
        return {parties[1]} if parties[0] == account and not revoked else set()
    if kind == APPROVAL_FOR_ALL.topic:
        return {parties[1]} if parties[0] == account and any(data) else set()
    if kind == DELEGATED.topic:
        return {parties[1]} if parties[0] == account and any(data) else set()
    if len(parties) < 3:
        return set()
    if kind in (TRANSFER_SINGLE.topic, TRANSFER_BATCH.topic):
        return {parties[2]} if parties[1] == account else set()
    if kind == PERMIT2_APPROVAL.topic:
        return {parties[2]} if parties[0] == account and any(data[:32]) else set()
    return set()


def untraced(why: str) -> Missing:
    """The node could not say what ran."""
    return Missing(TRACE, why)
