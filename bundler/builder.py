"""Choose operations for a bundle, and prove the whole bundle on the latest block before it is signed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from bundler import simulation
from bundler.chain import Head
from bundler.cheap import CheapPass
from bundler.erc7562.entities import Role
from bundler.erc7562.rules import RuleBroken
from bundler.events import Events
from bundler.fees import NO_CHARGE, DataCharge, Pricing
from bundler.fees.shaping import shape
from bundler.gas import bundle_gas, bundle_gas_limit, execution_limits, inflated_gas_limit, validation_gas_limit
from bundler.inflator import Inflator, Packed
from bundler.lanes import UnderWay
from bundler.mempool import Entry, Mempool
from bundler.reputation import THROTTLED_ENTITY_BUNDLE_COUNT, Reputation, Standing
from bundler.reverts import reason
from bundler.settings import Settings
from bundler.validity import is_due
from contracts.entrypoint import EntryPoint, FailedOp, decode_failed_op
from contracts.errors import OperationRejected, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, parse_bytes, to_hex

log = logging.getLogger("bundler.builder")


@dataclass(frozen=True, slots=True)
class Draft:
    """A bundle that `handleOps` accepts on the latest block, with what had to leave it for good."""

    entry_point: EntryPoint
    entries: tuple[Entry, ...]
    gas_limit: int = 0
    dropped: tuple[tuple[Hash32, str], ...] = ()
    """Operations that fail validation also alone, with the reason."""
    blamed: tuple[Blame, ...] = ()
    """What reputation has to learn."""
    data: DataCharge = NO_CHARGE
    """What the bundle's data cost; the gas of it is in `gas_limit`."""
    packed: Packed | None = None
    """The transaction to send in place of `handleOps`, where that costs less."""


@dataclass(frozen=True, slots=True)
class Blame:
    """An operation failed its second validation, alone, or (`in_company`) only together with others. `role` is who failed."""

    entry: Entry
    role: Role
    in_company: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a dry run said. Costs in wei, gas in gas."""

    failed: FailedOp | None = None
    error: str | None = None
    gas_used: int = 0
    revenue_wei: Wei = 0

    @property
    def ok(self) -> bool:
        return self.failed is None and self.error is None


def tip_of(entry: Entry, head: Head) -> Wei:
    """Priority fee per gas that the operation pays at this base fee; negative when it cannot be included."""
    return min(entry.op.max_priority_fee_per_gas, entry.op.max_fee_per_gas - head.base_fee_wei)


def role_of(reason: str) -> Role:
    """Who failed, by the entry point's code: AA1x factory, AA3x paymaster, else the account."""
    if reason.startswith("AA1"):
        return "factory"
    return "paymaster" if reason.startswith("AA3") else "account"


_LOOKED_AT = 64
"""Operations looked at for each that a bundle may hold: what comes after pays so much less that it is left to the next."""


def _by_tip(pool: Mempool, entry_point: EntryPoint, head: Head) -> Iterator[Entry]:
    """Waiting operations that can pay the base fee, by what they tip at it, the most first; of equal ones the oldest.

    The pool has them by the tip they offer at most, which is never less than what they tip.
    """
    ready: list[tuple[Wei, float, Hash32, Entry]] = []
    with closing(pool.best_first(entry_point.address)) as offered:
        for entry in offered:
            while ready and -ready[0][0] > entry.op.max_priority_fee_per_gas:
                yield heappop(ready)[3]
            tip_wei = tip_of(entry, head)
            if tip_wei >= 0:
                heappush(ready, (-tip_wei, entry.received_s, entry.hash, entry))
        while ready:
            yield heappop(ready)[3]


def select(
    pool: Mempool,
    entry_point: EntryPoint,
    head: Head,
    settings: Settings,
    reputation: Reputation,
    passed_over: Container[Hash32] = (),
    under_way: UnderWay | None = None,
) -> list[Entry]:
    """Return waiting operations of one entry point, best payers first, each after what it depends on.

    Bounded by `max_ops_per_bundle` and `max_bundle_gas`. Skips `passed_over` and what is not due, pays too little now, or waits for an
    operation that is under way or skipped itself; more than four operations of a throttled entity ([GREP-020]); and what touches
    the storage of another operation's sender ([STO-041]). What meets with an operation `under_way` in another bundle waits for it.
    """

    def may_go(entry: Entry) -> bool:
        return (
            not pool.is_in_flight(entry.hash)
            and not pool.is_kept(entry.hash)
            and entry.hash not in passed_over
            and is_due(entry, head)
            and tip_of(entry, head) >= settings.min_priority_fee_wei
            and (under_way is None or not under_way.meets(entry))
        )

    chosen: dict[Hash32, Entry] = {}
    throttled: Counter[Address] = Counter()
    looked_at, total = 0, [0, 0, 0, 0]
    for entry in _by_tip(pool, entry_point, head):
        looked_at += 1
        if len(chosen) >= settings.max_ops_per_bundle or looked_at > _LOOKED_AT * settings.max_ops_per_bundle:
            break
        if entry.hash in chosen or not may_go(entry):
            continue
        needed = [other for other in pool.before(entry.op, entry_point) if other.hash not in chosen]
        if not all(map(may_go, needed)):
            continue
        needed.sort(key=lambda other: (other.op.factory is None, other.op.nonce))
        added = [*needed, entry]
        slow = [a for e in added for a in e.counted if reputation.standing(a) is Standing.THROTTLED]
        if any(throttled[address] >= THROTTLED_ENTITY_BUNDLE_COUNT for address in slow) or _conflict(
            chosen.values(), added
        ):
            continue
        weight = [sum(pair) for pair in zip(total, _weight(pool, added), strict=True)]
        if weight[2] > settings.max_ops_per_bundle or bundle_gas(*weight) > settings.max_bundle_gas:
            continue
        total = weight
        throttled.update(slow)
        chosen.update({other.hash: other for other in added})
    return list(chosen.values())


def _weight(pool: Mempool, entries: Sequence[Entry]) -> tuple[int, int, int, int]:
    """What these add to the arguments of `bundle_gas`."""
    return (
        sum(execution_limits(entry.op) for entry in entries),
        sum(map(pool.tokens, entries)),
        len(entries),
        sum(entry.authorization is not None for entry in entries),
    )


def _conflict(chosen: Iterable[Entry], added: Sequence[Entry]) -> bool:
    """[STO-041] Whether validation of one touches storage of a contract that is the sender of another."""
    senders, contracts = {e.op.sender for e in added}, {c for e in added for c in e.contracts}
    return any(
        e.op.sender in contracts or not senders.isdisjoint(e.contracts) for e in chosen if e.op.sender not in senders
    )


def gas_limit_of(entry_point: EntryPoint, entries: Sequence[Entry]) -> int:
    """The gas limit of a bundle of these."""
    authorizations = sum(entry.authorization is not None for entry in entries)
    return bundle_gas_limit(entry_point, [entry.op for entry in entries], authorizations)


_PLENTY_WEI = 10**24
"""More than any transaction can cost."""


def _cost(gas: int, head: Head, tip_wei: Wei, charge: DataCharge) -> Wei:
    """Wei that a bundle of `gas` costs with its data. Where the sequencer takes the data's fee as a tip, it is in the tip."""
    if charge.tip_wei:
        return gas * (head.base_fee_wei + max(tip_wei, charge.tip_wei))
    return gas * (head.base_fee_wei + tip_wei) + charge.fee_wei


class Builder:
    """Turns a selection into a proven Draft."""

    def __init__(
        self,
        rpc: RpcClient,
        pool: Mempool,
        settings: Settings,
        executor: Address,
        beneficiary: Address,
        pricing: Pricing,
        cheap: CheapPass | None = None,
        inflator: Inflator | None = None,
    ) -> None:
        self._cheap = cheap
        self._inflator = inflator
        self.events = Events()
        self._rpc = rpc
        self._pool = pool
        self._settings = settings
        self._executor = executor
        self._beneficiary = beneficiary
        self._pricing = pricing

    async def prove(
        self, entry_point: EntryPoint, entries: Sequence[Entry], head: Head, executor: Address | None = None
    ) -> Draft:
        """Dry-run the bundle of `executor` (the first key if None), take out culprits until it passes (or nothing is left), and what
        does not pay for its data; enforce profit if asked.

        An operation that fails only in this company stays in the pool for a later bundle; one that fails alone, too, is in
        `dropped`, and so is what depended on it. Raises NodeError, FeeDataError.
        """
        dropped: dict[Hash32, str] = {}
        blamed: list[Blame] = []
        kept = await self._validate_again(list(entries), head, dropped, blamed)
        kept = await self.paying(entry_point, kept, head)
        while kept:
            gas_limit = gas_limit_of(entry_point, kept)
            tip = max(min(tip_of(entry, head) for entry in kept), 0)
            outcome = await self._dry_run(
                entry_point, kept, gas_limit, head.base_fee_wei + tip, executor or self._executor
            )
            if outcome.ok:
                paying = await self.paying(entry_point, kept, head)
                if len(paying) < len(kept):
                    kept = paying
                    continue
                bundle = [entry.candidate for entry in kept]
                (charge,) = await self._pricing.charges(entry_point, [bundle], head, signed=True)
                cost_wei = _cost(outcome.gas_used, head, tip, charge)
                plain = Draft(
                    entry_point, tuple(kept), gas_limit + charge.gas, tuple(dropped.items()), tuple(blamed), charge
                )
                draft, cost_wei = await self._cheapest(plain, cost_wei, head, tip, executor or self._executor)
                if self._settings.allow_data_loss:
                    cost_wei = _cost(outcome.gas_used, head, tip, NO_CHARGE)
                if not self._settings.require_profit or outcome.revenue_wei >= cost_wei:
                    return draft
                log.info("%d operations bring %d wei and cost %d: less go", len(kept), outcome.revenue_wei, cost_wei)
                kept = self._without(kept, min(kept, key=lambda entry: tip_of(entry, head)))
            elif outcome.failed is not None and outcome.failed.op_index < len(kept):
                culprit = kept[outcome.failed.op_index]
                kept = self._without(kept, culprit)
                failure = await self._fails_alone(culprit)
                if failure is None:
                    blamed.append(Blame(culprit, role_of(outcome.failed.reason), True))
                elif await self._stands(culprit, failure, head):
                    self._drop(culprit, failure, dropped, blamed)
            elif len(kept) == 1:
                dropped[kept[0].hash] = f"handleOps fails outside validation: {outcome.error}"
                kept = []
            else:
                kept = kept[: len(kept) // 2]
        return Draft(entry_point, (), 0, tuple(dropped.items()), tuple(blamed))

    async def _cheapest(
        self, plain: Draft, cost_wei: Wei, head: Head, tip_wei: Wei, executor: Address
    ) -> tuple[Draft, Wei]:
        """`plain`, or the same through the inflator where that costs less than `cost_wei`; with its cost. Raises NodeError, FeeDataError."""
        if self._inflator is None or not self._pricing.model.charges_data:
            return plain, cost_wei
        packed = self._inflator.pack(
            plain.entry_point, [e.op for e in plain.entries], executor, self._settings.beneficiary or executor
        )
        bundle = [entry.candidate for entry in plain.entries]
        (charge,) = await self._pricing.charges(plain.entry_point, [bundle], head, signed=True, packed=packed)
        if charge.fee_wei >= plain.data.fee_wei:
            return plain, cost_wei
        gas_limit = inflated_gas_limit(plain.gas_limit - plain.data.gas, packed)
        call = {
            "from": to_hex(executor), "to": to_hex(packed.to), "gas": hex(gas_limit), "data": to_hex(packed.data),
        }  # fmt: skip
        _, frame = await simulation.trace(
            self._rpc,
            call,
            gas_price_wei=head.base_fee_wei + tip_wei,
            state=simulation.overrides(bundle),
            top_only=True,
        )
        inflated_wei = _cost(int(frame.get("gasUsed", "0x0"), 16), head, tip_wei, charge)
        gas_limit += charge.gas
        if frame.get("error") or inflated_wei >= cost_wei or gas_limit > self._settings.max_bundle_gas:
            return plain, cost_wei
        return replace(plain, gas_limit=gas_limit, data=charge, packed=packed), inflated_wei

    async def paying(self, entry_point: EntryPoint, entries: list[Entry], head: Head) -> list[Entry]:
        """Those that pay for their data, unless losses are allowed; the others wait. Raises FeeDataError, NodeUnreachable."""
        if self._settings.allow_data_loss:
            return entries
        elsewhere = self._beneficiary != self._executor
        return await shape(self._pricing, entry_point, entries, head, self._pool.after, other_beneficiary=elsewhere)

    def _drop(
        self, culprit: Entry, failure: OperationRejected, dropped: dict[Hash32, str], blamed: list[Blame]
    ) -> None:
        why = failure.message
        dropped[culprit.hash] = why
        blamed.append(Blame(culprit, failure.role if isinstance(failure, RuleBroken) else role_of(why), False))
        for other in self._pool.after(culprit):
            dropped.setdefault(other.hash, f"it needs 0x{culprit.hash.hex()}, which was dropped: {why}")

    async def _validate_again(
        self, entries: list[Entry], head: Head, dropped: dict[Hash32, str], blamed: list[Blame]
    ) -> list[Entry]:
        """The second validation: those that pass again on this block, each by itself, with the code they had ([COD-010]).

        What was validated on this very block needs none. Outside safe mode the dry run of the bundle is enough.
        """
        if not self._settings.safe:
            return entries
        stale = [entry for entry in entries if entry.validated_at != head.hash]
        results = await asyncio.gather(*(self._second(entry) for entry in stale))
        kept = entries
        for entry, result in zip(stale, results, strict=True):
            if isinstance(result, OperationRejected):
                kept = self._without(kept, entry)
                if await self._stands(entry, result, head):
                    self._drop(entry, result, dropped, blamed)
            elif result is not None:
                self._pool.replace(result)
        return kept

    async def _second(self, entry: Entry) -> Entry | OperationRejected | None:
        """The entry with what was found now, why it fails, or None when that cannot be said (a predecessor fails)."""
        try:
            found = await self.events.timed(self._validate(entry), entry.hash, "second")
        except simulation.PredecessorFailed:
            return None
        except OperationRejected as error:
            return error
        hashes = dict(found.code_hashes)
        changed = [a for a, old in entry.code_hashes if a in hashes and hashes[a] != old]
        if changed:
            return RuleBroken(
                "COD-010",
                "account",
                entry.op.sender,
                f"the code of {checksum(changed[0])} changed since the operation was validated; send it again",
            )
        return replace(
            entry,
            staked=found.entities.staked if found.entities else entry.staked,
            code_hashes=found.code_hashes,
            contracts=found.contracts,
            validated_at=found.head.hash,
        )

    async def _validate(self, entry: Entry) -> simulation.Validation:
        prefix = [other.candidate for other in self._pool.before(entry.op, entry.entry_point)]
        return await simulation.validate(
            self._rpc,
            entry.entry_point,
            entry.candidate,
            executor=self._executor,
            prefix=prefix,
            floor=simulation.stake_floor(self._settings),
            cheap=self._cheap,
        )

    def _without(self, entries: list[Entry], culprit: Entry) -> list[Entry]:
        gone = {culprit.hash, *(other.hash for other in self._pool.after(culprit))}
        return [entry for entry in entries if entry.hash not in gone]

    async def _fails_alone(self, entry: Entry) -> OperationRejected | None:
        """Why the operation fails validation by itself on the latest block, None if it passes."""
        try:
            await self._validate(entry)
        except simulation.PredecessorFailed:
            return None
        except OperationRejected as error:
            return error
        return None

    async def _stands(self, entry: Entry, failure: OperationRejected, head: Head) -> bool:
        """Whether the entry point refuses the operation on `head` too, and `head` is no older than the block that accepted it.

        Behind one address there may be several nodes, and the one that judged may lag: a deposit that it has not seen is no reason to drop
        what was acknowledged. Where that cannot be told the operation stays, and is looked at again in the next cycle. A broken rule of
        ERC-7562 does not come from a late block. Raises NodeUnreachable.
        """
        if isinstance(failure, RuleBroken):
            return True
        if head.number < entry.received_block:
            return False
        candidates = [*(other.candidate for other in self._pool.before(entry.op, entry.entry_point)), entry.candidate]
        ops = [one.op for one in candidates]
        gas = validation_gas_limit(entry.entry_point, ops[:-1], ops[-1])
        call = simulation.handle_ops_call(entry.entry_point, ops, self._executor, self._executor, gas)
        state = simulation.overrides(candidates)
        try:
            await self._rpc.call("eth_call", call, hex(head.number), *([state] if state else []))
        except RpcError as refused:
            if isinstance(refused.data, str) and decode_failed_op(parse_bytes(refused.data, "data")) is not None:
                return True
            # no refusal by the entry point: the node may not have the block, or validation ran out of gas
            return await self._rpc.block(hex(head.number)) is not None
        return False

    async def _dry_run(
        self,
        entry_point: EntryPoint,
        entries: Sequence[Entry],
        gas_limit: int,
        gas_price_wei: Wei,
        executor: Address,
    ) -> _Outcome:
        beneficiary = self._settings.beneficiary or executor
        call = simulation.handle_ops_call(
            entry_point, [entry.op for entry in entries], executor, beneficiary, gas_limit
        )
        state = simulation.overrides([entry.candidate for entry in entries])
        if self._settings.require_profit or self._inflator is not None:  # both want to know what it costs
            # Whether the executor can pay is looked at apart.
            funded = {to_hex(executor): {"balance": hex(_PLENTY_WEI)}} | state
            _, frame = await simulation.trace(
                self._rpc, call, gas_price_wei=gas_price_wei, state=funded, outcome_only=self._settings.safe
            )
            data, error = simulation.output(frame), frame.get("error")
            if not error:
                payment = (frame.get("calls") or [{}])[-1]
                paid = payment.get("to") == to_hex(beneficiary)
                return _Outcome(
                    gas_used=int(frame["gasUsed"], 16), revenue_wei=int(payment.get("value", "0x0"), 16) if paid else 0
                )
        else:
            try:
                await self._rpc.call("eth_call", call, "latest", *([state] if state else []))
                return _Outcome()
            except RpcError as refused:
                error = refused.message
                data = parse_bytes(refused.data, "data") if isinstance(refused.data, str) else b""
        failed = decode_failed_op(data)
        if failed is not None and not failed.reason.startswith("AA95"):
            return _Outcome(failed=failed)
        return _Outcome(error=f"{error} ({reason(data)})")
