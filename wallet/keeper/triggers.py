"""What the triggers say at one head: one Multicall3 read for all of them, and a second one for the few that need attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.bindings import (
    GUARD_DUE,
    SESSION_OF,
    Due,
    Session,
    decode_multicall,
    encode_multicall,
)
from contracts.entrypoint import EntryPoint
from contracts.entrypoint.base import GET_NONCE
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei
from contracts.userop import LANE_KEEPER, nonce_key
from wallet.keeper.kinds import STOP_LOSS, GuardKind
from wallet.keeper.watch import Head, Trigger


@dataclass(frozen=True, slots=True)
class Reading:
    """What `due` answered at a head. `reason` is the selector of the error that `execute` would revert with, else zero."""

    trigger: Trigger
    status: Due
    reason: bytes


@dataclass(frozen=True, slots=True)
class Detail:
    """Everything needed to act on a trigger, read at one head. `fired`: this arming has been executed to its end.

    `sequence` is the next nonce of the trigger's own lane; `due_since_s` (unix seconds) is 0 until the chain recorded the trigger
    as due, and again when nobody confirmed that for `lapse_s` seconds; `session` is None when it is unknown to the chain.
    """

    arming: int
    fired: bool
    due_since_s: int
    public_delay_s: int
    lapse_s: int
    sequence: int
    session: Session | None
    session_spent_wei: Wei


@dataclass(frozen=True, slots=True)
class Modules:
    """Where the chain's side of the keeper is."""

    multicall3: Address
    guard: Address
    session_validator: Address
    entry_point: EntryPoint
    kind: GuardKind = STOP_LOSS

    def lane(self, trigger: Trigger) -> int:
        """The trigger's nonce key: a keeper lane of its own, so that one trigger never waits for another of the same account."""
        return nonce_key(self.session_validator, LANE_KEEPER, self.kind.lane_bit | trigger.id & 0x3FFFFF)


async def read_due(rpc: RpcClient, modules: Modules, triggers: Sequence[Trigger], head: Head) -> list[Reading]:
    """`due` of every trigger at `head`, in order, in one call. A `due` that reverts counts as BLOCKED: look again at the next head.

    Raises NodeError, also when `head` is no longer a block of the chain.
    """
    if not triggers:
        return []
    calls = [(modules.guard, GUARD_DUE.encode(t.account, t.id)) for t in triggers]
    answers = await multicall(rpc, modules, calls, head)
    readings = []
    for trigger, answer in zip(triggers, answers, strict=True):
        status, reason = GUARD_DUE.decode(answer) if answer is not None else (Due.BLOCKED, bytes(4))
        readings.append(Reading(trigger, Due(status), reason))
    return readings


async def read_details(
    rpc: RpcClient, modules: Modules, triggers: Sequence[Trigger], sessions: Mapping[Address, Hash32 | None], head: Head
) -> dict[Trigger, Detail]:
    """Arming, times, nonce and session of `triggers` at `head`. A trigger whose own reads revert is left out. Raises NodeError."""
    if not triggers:
        return {}
    calls: list[tuple[Address, bytes]] = []
    for t in triggers:
        calls += [
            (modules.guard, modules.kind.getter.encode(t.account, t.id)),
            (modules.entry_point.address, GET_NONCE.encode(t.account, modules.lane(t))),
            (modules.session_validator, SESSION_OF.encode(t.account, sessions.get(t.account) or bytes(32))),
        ]
    answers = await multicall(rpc, modules, calls, head)
    details = {}
    for i, t in enumerate(triggers):
        state, nonce, session = answers[3 * i : 3 * i + 3]
        if state is None or nonce is None:
            continue
        timing = modules.kind.timing(modules.kind.getter.decode(state))
        found, spent = _session(session)
        details[t] = Detail(
            timing.arming,
            timing.fired,
            timing.due_since_s,
            timing.public_delay_s,
            timing.lapse_s,
            GET_NONCE.decode(nonce)[0] & (2**64 - 1),
            found,
            spent,
        )
    return details


def _session(answer: bytes | None) -> tuple[Session | None, Wei]:
    if answer is None:
        return None, 0
    fields, spent = SESSION_OF.decode(answer)
    session = Session(*fields)
    return (session if any(session.key) else None), spent


async def multicall(
    rpc: RpcClient, modules: Modules, calls: Sequence[tuple[Address, bytes]], head: Head
) -> list[bytes | None]:
    """The answers of `calls` at `head`, in order; None where one reverted. Raises NodeError."""
    answer = await rpc.eth_call(modules.multicall3, encode_multicall(calls), block=hex(head.number))
    return decode_multicall(answer)
