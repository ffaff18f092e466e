"""What is in blocks that may still be lost: our bundles, and strangers' that carry operations of ours or have used their nonces.

Until a block is final its operations keep their nonces from others; when it leaves the chain they start over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bundler.chain import Head
from bundler.events import Event, Events, Kind
from bundler.lookup import left_the_chain
from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation
from bundler.settings import Settings
from bundler.store import Attempt, Inclusion, OperationRecord, Store
from contracts.errors import SetupError
from contracts.faults import checkpoint
from contracts.rpc import RpcClient
from contracts.types import Hash32, parse_hash, to_hex

log = logging.getLogger("bundler.inclusions")


class Inclusions:
    """Records what is in a block, and takes it back. Not safe for concurrent use: the service's loop owns it."""

    def __init__(self, rpc: RpcClient, store: Store, pool: Mempool, settings: Settings, reputation: Reputation) -> None:
        self._rpc = rpc
        self._store = store
        self._pool = pool
        self._settings = settings
        self._reputation = reputation
        self.events = Events()
        self.open: list[tuple[Attempt, Inclusion]] = []
        """Those whose blocks are not final."""

    async def adopt(self, included: list[tuple[Attempt, Inclusion]]) -> None:
        """Take up what the store says."""
        self.open = included
        for attempt, _ in included:
            for entry in await self.entries_of(attempt.op_hashes):
                self._pool.settle(entry)

    def holds(self, tx_hash: Hash32) -> bool:
        """Whether the transaction is one of those watched."""
        return any(attempt.tx_hash == tx_hash for attempt, _ in self.open)

    async def entries_of(self, op_hashes: Iterable[Hash32]) -> list[Entry]:
        """From the pool, or from disk when they have left it."""
        found: list[Entry] = []
        for op_hash in op_hashes:
            if (entry := self._pool.get(op_hash)) is not None:
                found.append(entry)
            elif (record := await self._store.operation(op_hash)) is not None:
                found.append(record.entry)
        return found

    async def record(
        self, attempt: Attempt, inclusion: Inclusion, included: Sequence[Hash32], released: Sequence[Hash32]
    ) -> None:
        """A transaction is in a block, with `included`; `released` wait again. Raises SetupError.

        Both the inclusion and what it does to reputations are recorded, or neither.
        """
        entries = await self.entries_of(included)
        for entry in entries:
            self._reputation.included(entry.counted)
        counts = self._reputation.changed()
        checkpoint("bundler.inclusion.record.before")
        try:
            await self._store.include(attempt, inclusion, included, released, counts)
        except SetupError:
            self._reputation.not_saved(counts)
            for entry in entries:
                self._reputation.included(entry.counted, -1)
            raise
        checkpoint("bundler.inclusion.record.after")
        self._leave(attempt, inclusion, entries)
        self._pool.land(released)

    async def record_use(self, inclusion: Inclusion, entry: Entry, used_by: Hash32) -> None:
        """Another bundler included the operation `used_by`: this one, or another with its nonce. Raises SetupError."""
        if used_by == entry.hash:
            await self.record_foreign(inclusion, [entry])
        else:
            await self.record_overtaken(inclusion, [(entry, used_by)])

    async def record_foreign(self, inclusion: Inclusion, entries: Sequence[Entry]) -> None:
        """Another bundler included these. Raises SetupError."""
        hashes = tuple(entry.hash for entry in entries)
        await self.record(self._foreign(inclusion, entries), inclusion, hashes, ())
        for op_hash in hashes:
            log.info("operation %s was included by another bundler in %s", to_hex(op_hash), to_hex(inclusion.tx_hash))
        block = inclusion.block_number
        self.events.tell(Event(Kind.FOREIGN, hashes, tx_hash=inclusion.tx_hash, block_number=block))

    async def record_overtaken(self, inclusion: Inclusion, overtaken: Sequence[tuple[Entry, Hash32]]) -> None:
        """Another bundler included operations with the nonces of these: they are dropped, unless that block is lost. Raises SetupError.

        [EREP-015] A paymaster does not answer for it.
        """
        entries = [entry for entry, _ in overtaken]
        reasons = [
            (
                entry.hash,
                f"AA25 its nonce was used by operation {to_hex(other)} in another bundler's {to_hex(inclusion.tx_hash)}",
            )
            for entry, other in overtaken
        ]
        attempt = self._foreign(inclusion, entries)
        self._see(entries, -1)
        counts = self._reputation.changed()
        checkpoint("bundler.drop.record.before")
        try:
            await self._store.overtake(attempt, inclusion, reasons, counts)
        except SetupError:
            self._reputation.not_saved(counts)
            self._see(entries, 1)
            raise
        checkpoint("bundler.drop.record.after")
        self._leave(attempt, inclusion, entries)
        for op_hash, why in reasons:
            self.events.tell(Event(Kind.DROPPED, (op_hash,), reason="AA25", detail=why))
            log.info("operation %s is dropped: %s", to_hex(op_hash), why)

    def _see(self, entries: Iterable[Entry], times: int) -> None:
        self._reputation.saw((e.op.paymaster for e in entries if e.op.paymaster is not None), times)

    def _foreign(self, inclusion: Inclusion, entries: Sequence[Entry]) -> Attempt:
        """A stranger's transaction with these, and with those that it is known to concern already."""
        known = next((attempt.op_hashes for attempt, _ in self.open if attempt.tx_hash == inclusion.tx_hash), ())
        hashes = dict.fromkeys((*known, *(entry.hash for entry in entries)))
        return Attempt.foreign(inclusion.tx_hash, entries[0].entry_point.address, tuple(hashes))

    def _leave(self, attempt: Attempt, inclusion: Inclusion, entries: Sequence[Entry]) -> None:
        """These are out of the pool, as long as the block stands."""
        for entry in entries:
            self._pool.settle(entry)
            self._pool.remove(entry.hash)
        if entries:
            self.open = [found for found in self.open if found[0].tx_hash != attempt.tx_hash]
            self.open.append((attempt, inclusion))

    async def look(self, head: Head) -> list[Attempt]:
        """Ask again for every inclusion that is not final; returns those that left the chain, each to be taken back. Raises NodeError."""
        if not self.open:
            return []
        receipts = await self._rpc.batch(
            [("eth_getTransactionReceipt", (to_hex(attempt.tx_hash),)) for attempt, _ in self.open]
        )
        doubtful = [inclusion for (_, inclusion), receipt in zip(self.open, receipts, strict=True) if receipt is None]
        gone = await left_the_chain(self._rpc, doubtful, head)
        remaining: list[tuple[Attempt, Inclusion]] = []
        final: list[Attempt] = []
        lost: list[Attempt] = []
        for (attempt, inclusion), receipt in zip(self.open, receipts, strict=True):
            if receipt is None:
                if inclusion in gone:
                    lost.append(attempt)
                remaining.append((attempt, inclusion))
                continue
            place = Inclusion(
                attempt.tx_hash, int(receipt["blockNumber"], 16), parse_hash(receipt["blockHash"], "block hash")
            )
            if place != inclusion:
                await self._move(attempt, place)
            if head.number - place.block_number >= self._settings.finality_depth:
                final.append(attempt)
            else:
                remaining.append((attempt, place))
        if final:
            checkpoint("bundler.finality.record.before")
            await self._store.finalise([attempt.tx_hash for attempt in final])
            checkpoint("bundler.finality.record.after")
            for entry in await self.entries_of(op_hash for attempt in final for op_hash in attempt.op_hashes):
                self._pool.forget(entry)
        self.open = remaining
        return lost

    async def _records_of(self, attempt: Attempt) -> list[OperationRecord]:
        found = [await self._store.operation(op_hash) for op_hash in attempt.op_hashes]
        return [record for record in found if record is not None]

    async def _move(self, attempt: Attempt, place: Inclusion) -> None:
        """It is in another block now."""
        records = await self._records_of(attempt)
        overtaken = [(record.entry.hash, record.reason or "") for record in records if record.overtaken]
        included = [record.entry.hash for record in records if not record.overtaken]
        checkpoint("bundler.inclusion.record.before")
        if included:
            await self._store.include(attempt, place, included, ())
        if overtaken:
            await self._store.overtake(attempt, place, overtaken)
        checkpoint("bundler.inclusion.record.after")

    async def take_back(self, attempt: Attempt, head: Head) -> Attempt:
        """A reorganisation took it out of the chain: its operations are in the pool again. Raises SetupError."""
        records = await self._records_of(attempt)
        returning = [record for record in records if self._pool.at(*record.entry.slot) is None]
        self._count(returning, -1)
        counts = self._reputation.changed()
        checkpoint("bundler.reorg.record.before")
        try:
            await self._store.reopen(attempt, counts)
        except SetupError:
            self._reputation.not_saved(counts)
            self._count(returning, 1)
            raise
        checkpoint("bundler.reorg.record.after")
        self.open = [found for found in self.open if found[0].tx_hash != attempt.tx_hash]
        self.events.tell(Event(Kind.REORGANISED, attempt.op_hashes, tx_hash=attempt.tx_hash))
        log.warning(
            "a reorganisation took transaction %s out of the chain; its %d operations are pending again",
            to_hex(attempt.tx_hash),
            len(attempt.op_hashes),
        )
        for record in records:
            self._pool.forget(record.entry)
        for record in returning:
            if self._pool.at(*record.entry.slot) is None:
                self._pool.add(record.entry)
        return replace(attempt, sent_block=head.number)

    def _count(self, records: Iterable[OperationRecord], times: int) -> None:
        """What a block does to reputations, for operations in it and for those it overtook; -1 takes that back."""
        for record in records:
            if record.overtaken:
                self._see([record.entry], -times)
            else:
                self._reputation.included(record.entry.counted, times)
