"""Choose operations for a bundle, and prove the whole bundle on the latest block before it is signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundler import simulation
from bundler.chain import Head
from bundler.gas import bundle_gas_limit
from bundler.mempool import Entry, Mempool
from bundler.reverts import reason
from bundler.settings import Settings
from contracts.entrypoint import EntryPoint, FailedOp, decode_failed_op
from contracts.errors import OperationRejected, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, parse_bytes, to_hex


@dataclass(frozen=True, slots=True)
class Draft:
    """A bundle that `handleOps` accepts on the latest block, with what had to leave it for good."""

    entry_point: EntryPoint
    entries: tuple[Entry, ...]
    gas_limit: int = 0
    dropped: tuple[tuple[Hash32, str], ...] = ()
    """Operations that fail validation also alone, with the reason."""


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


def is_due(entry: Entry, head: Head) -> bool:
    """Whether the validity window is open. The entry point wants validAfter < timestamp <= validUntil."""
    return entry.valid_after_s < head.timestamp_s <= entry.valid_until_s


def select(pool: Mempool, entry_point: EntryPoint, head: Head, settings: Settings) -> list[Entry]:
    """Return waiting operations of one entry point, best payers first, each after what it depends on.

    Bounded by `max_ops_per_bundle` and `max_bundle_gas`. Skips what is not due, pays too little now, or waits for an
    operation that is under way or skipped itself.
    """
    eligible = [
        entry
        for entry in pool.waiting()
        if entry.entry_point is entry_point
        and is_due(entry, head)
        and tip_of(entry, head) >= settings.min_priority_fee_wei
    ]
    eligible.sort(key=lambda entry: (-tip_of(entry, head), entry.received_s))
    allowed = {entry.hash for entry in eligible}
    chosen: dict[Hash32, Entry] = {}
    for entry in eligible:
        if entry.hash in chosen:
            continue
        needed = [other for other in pool.before(entry.op, entry_point) if other.hash not in chosen]
        if any(other.hash not in allowed for other in needed):
            continue
        needed.sort(key=lambda other: (other.op.factory is None, other.op.nonce))
        trial = [*chosen.values(), *needed, entry]
        if len(trial) > settings.max_ops_per_bundle:
            continue
        if bundle_gas_limit(entry_point, [other.op for other in trial]) > settings.max_bundle_gas:
            continue
        chosen.update({other.hash: other for other in (*needed, entry)})
    return list(chosen.values())


class Builder:
    """Turns a selection into a proven Draft."""

    def __init__(
        self, rpc: RpcClient, pool: Mempool, settings: Settings, executor: Address, beneficiary: Address
    ) -> None:
        self._rpc = rpc
        self._pool = pool
        self._settings = settings
        self._executor = executor
        self._beneficiary = beneficiary

    async def prove(self, entry_point: EntryPoint, entries: Sequence[Entry], head: Head) -> Draft:
        """Dry-run the bundle, take out culprits until it passes (or nothing is left), and enforce profit if asked.

        An operation that fails only in this company stays in the pool for a later bundle; one that fails alone, too, is in
        `dropped`, and so is what depended on it. Raises NodeError.
        """
        kept = list(entries)
        dropped: dict[Hash32, str] = {}
        while kept:
            gas_limit = bundle_gas_limit(entry_point, [entry.op for entry in kept])
            tip = max(min(tip_of(entry, head) for entry in kept), 0)
            outcome = await self._dry_run(entry_point, kept, gas_limit, head.base_fee_wei + tip)
            if outcome.ok:
                cost_wei = outcome.gas_used * (head.base_fee_wei + tip)
                if not self._settings.require_profit or outcome.revenue_wei >= cost_wei:
                    return Draft(entry_point, tuple(kept), gas_limit, tuple(dropped.items()))
                kept = self._without(kept, min(kept, key=lambda entry: tip_of(entry, head)))
            elif outcome.failed is not None and outcome.failed.op_index < len(kept):
                culprit = kept[outcome.failed.op_index]
                kept = self._without(kept, culprit)
                why = await self._fails_alone(culprit)
                if why is not None:
                    dropped[culprit.hash] = why
                    for other in self._pool.after(culprit):
                        dropped.setdefault(other.hash, f"it needs 0x{culprit.hash.hex()}, which was dropped: {why}")
            elif len(kept) == 1:
                dropped[kept[0].hash] = f"handleOps fails outside validation: {outcome.error}"
                kept = []
            else:
                kept = kept[: len(kept) // 2]
        return Draft(entry_point, (), 0, tuple(dropped.items()))

    def _without(self, entries: list[Entry], culprit: Entry) -> list[Entry]:
        gone = {culprit.hash, *(other.hash for other in self._pool.after(culprit))}
        return [entry for entry in entries if entry.hash not in gone]

    async def _fails_alone(self, entry: Entry) -> str | None:
        """Why the operation fails validation by itself on the latest block, None if it passes."""
        prefix = [other.op for other in self._pool.before(entry.op, entry.entry_point)]
        try:
            await simulation.validate(self._rpc, entry.entry_point, entry.op, executor=self._executor, prefix=prefix)
        except simulation.PredecessorFailed:
            return None
        except OperationRejected as error:
            return error.message
        return None

    async def _dry_run(
        self, entry_point: EntryPoint, entries: Sequence[Entry], gas_limit: int, gas_price_wei: Wei
    ) -> _Outcome:
        call = simulation.handle_ops_call(
            entry_point, [entry.op for entry in entries], self._executor, self._beneficiary, gas_limit
        )
        if self._settings.require_profit:
            _, frame = await simulation.trace(self._rpc, call, gas_price_wei=gas_price_wei)
            data, error = simulation.output(frame), frame.get("error")
            if not error:
                payment = (frame.get("calls") or [{}])[-1]
                paid = payment.get("to") == to_hex(self._beneficiary)
                return _Outcome(
                    gas_used=int(frame["gasUsed"], 16), revenue_wei=int(payment.get("value", "0x0"), 16) if paid else 0
                )
        else:
            try:
                await self._rpc.call("eth_call", call, "latest")
                return _Outcome()
            except RpcError as refused:
                error = refused.message
                data = parse_bytes(refused.data, "data") if isinstance(refused.data, str) else b""
        failed = decode_failed_op(data)
        if failed is not None and not failed.reason.startswith("AA95"):
            return _Outcome(failed=failed)
        return _Outcome(error=f"{error} ({reason(data)})")
