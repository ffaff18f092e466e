"""What only one of the processes on a database does: it sees to operations that are nobody's, for they are in no bundle."""

from __future__ import annotations

from collections import defaultdict

from bundler.chain import Head
from bundler.lookup import identity_of, inclusion_of
from bundler.mempool import Entry, Mempool
from bundler.reputation import THROTTLED_ENTITY_LIVE_BLOCKS, Reputation, Standing
from bundler.settings import Settings
from bundler.store import STEWARD, Inclusion
from bundler.submit import Submitter
from bundler.validity import expiry
from contracts.entrypoint import USER_OPERATION_EVENT
from contracts.rpc import RpcClient
from contracts.types import Hash32

RESCAN_BLOCKS = 5
"""Blocks whose logs are read again: a back end may know a block before it has indexed its logs. As long an operation whose nonce is
not right is kept."""


class Steward:
    """Notices strangers' bundles, ends what is too late, keeps the pool's bounds. Only while the office is leased (`store.port`)."""

    def __init__(
        self, rpc: RpcClient, pool: Mempool, submitter: Submitter, reputation: Reputation, settings: Settings
    ) -> None:
        self._rpc, self._pool, self._submitter = rpc, pool, submitter
        self._reputation, self._settings = reputation, settings
        self._scanned_to: int | None = None

    def take_office(self) -> None:
        """Begin with the oldest operation that waits: who was steward before may have seen nothing for a while."""
        self._scanned_to = min((entry.received_block - 1 for entry in self._pool), default=None)

    async def tend(self, head: Head, before: Head | None) -> None:
        """What a new block asks for; `before` is the head that was known. Raises NodeError, SetupError."""
        await self._notice_others(head, before)
        await self._expire(head)

    async def _expire(self, head: Head) -> None:
        """Give up what no later block can include."""
        late = [
            (entry.hash, expiry(entry, head))
            for entry in self._pool.ended(head.timestamp_s, head.number)
            if not self._pool.is_in_flight(entry.hash)
        ]
        throttled = {a for a in self._reputation.all() if self._reputation.standing(a) is Standing.THROTTLED}
        if throttled:
            late += [
                (entry.hash, f"GREP-020 an entity is throttled and it waited {THROTTLED_ENTITY_LIVE_BLOCKS} blocks")
                for entry in self._pool.waiting()
                if head.number - entry.received_block > THROTTLED_ENTITY_LIVE_BLOCKS
                and not throttled.isdisjoint(entry.counted)
            ]
        await self._submitter.drop(late, STEWARD)

    async def make_room(self) -> None:
        """Give up the lowest bids while the pool is over its bounds, each with what cannot run without it."""
        over_ops, over_bytes = self._pool.excess(self._settings.max_pool_ops, self._settings.max_pool_bytes)
        while over_ops > 0 or over_bytes > 0:
            lowest = self._pool.lowest()
            if lowest is None:
                return
            gone = [one for one in (lowest, *self._pool.after(lowest)) if not self._pool.is_in_flight(one.hash)]
            await self._submitter.drop(
                [(one.hash, "LIM-POOL the pool is full and others pay more") for one in gone], STEWARD
            )
            over_ops -= len(gone)
            over_bytes -= sum(one.size_bytes for one in gone)

    async def _notice_others(self, head: Head, before: Head | None) -> None:
        """Find operations of ours, or of the same nonce, that somebody else's bundle included."""
        oldest = head.number - self._settings.event_search_blocks
        previous = self._scanned_to if self._scanned_to is not None else head.number - 1
        previous = min(previous, head.number - RESCAN_BLOCKS)
        if before is not None and head.number <= before.number:  # a reorganisation: look at replaced blocks again
            previous = min(previous, head.number - self._settings.finality_depth)
        if not self._pool.has_waiting:
            self._scanned_to = head.number
            return
        for entry_point in self._settings.entry_points:
            found: defaultdict[Inclusion, list[Entry]] = defaultdict(list)
            overtaken: defaultdict[Inclusion, list[tuple[Entry, Hash32]]] = defaultdict(list)
            for event in await self._rpc.logs(
                entry_point.address, [USER_OPERATION_EVENT.topic], max(previous + 1, oldest, 0), head.number
            ):
                op_hash, sender, nonce = identity_of(event)
                entry = self._pool.at(entry_point.address, sender, nonce)
                inclusion = inclusion_of(event)
                if entry is None or self._pool.is_in_flight(entry.hash) or self._submitter.is_ours(inclusion.tx_hash):
                    continue
                if entry.hash == op_hash:
                    found[inclusion].append(entry)
                else:
                    overtaken[inclusion].append((entry, op_hash))
            for inclusion, entries in found.items():
                await self._submitter.inclusions.record_foreign(inclusion, entries)
            for inclusion, pairs in overtaken.items():
                await self._submitter.inclusions.record_overtaken(inclusion, pairs)
        self._scanned_to = head.number
