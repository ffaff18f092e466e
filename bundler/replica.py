"""One process's view of a database that others write to: what they did comes in as news, and the pool is as the rows say.

News may come twice, and may tell what this process did itself: learning is idempotent. Transactions of executors that are held here are
not taken from news; that there is one that is not known (its commit was in doubt) is noted, and the holder looks again.
"""

from __future__ import annotations

from bundler.events import Event, Events, Kind
from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation
from bundler.store import Attempt, Inclusion, News, OperationRecord, OpStatus, TxStatus
from bundler.submit import Submitter
from contracts.types import Hash32


class Replica:
    """Keeps pool, reputations and others' bundles as the database has them."""

    def __init__(self, pool: Mempool, submitter: Submitter, reputation: Reputation, events: Events) -> None:
        self._pool, self._submitter, self._reputation, self._events = pool, submitter, reputation, events
        self._settled: dict[Hash32, Entry] = {}
        self.arrived = 0
        """Operations that came, or wait again, through others."""
        self.in_doubt = False
        """Whether the store has transactions of executors held here that are not known."""

    def learn(self, news: News) -> None:
        """Take over what is new."""
        if news.cleared:
            for entry in self._pool:
                self._pool.remove(entry.hash)
            self._submitter.elsewhere.clear()
            self.in_doubt = True
        for record in news.operations:
            if record.status in (OpStatus.RECEIVED, OpStatus.BUNDLED):
                self._wait(record)
            else:
                self._end(record)
        for attempt, status, inclusion in news.attempts:
            self._see(attempt, status, inclusion)
        self._reputation.learn(news.counts)

    def _wait(self, record: OperationRecord) -> None:
        entry, pool = record.entry, self._pool
        self._settled.pop(entry.hash, None)
        pool.forget(entry)
        if entry.hash not in pool:
            if (other := pool.at(*entry.slot)) is not None:  # it left in the same write
                pool.remove(other.hash)
            pool.add(entry)
            self.arrived += 1
        if record.status is OpStatus.BUNDLED:
            pool.launch([entry.hash])
        elif pool.is_in_flight(entry.hash):
            pool.land([entry.hash])
            self.arrived += 1
        taken = record.claimed_by is not None and record.claimed_by not in self._submitter.held
        if pool.is_kept(entry.hash) and not taken:
            self.arrived += 1
        pool.keep_off(entry.hash, taken and record.status is OpStatus.RECEIVED)

    def _end(self, record: OperationRecord) -> None:
        entry = record.entry
        known = self._pool.remove(entry.hash) is not None
        if record.status is OpStatus.INCLUDED or record.overtaken:
            self._pool.settle(entry)
            self._settled[entry.hash] = entry
        if known:
            kind = Kind.INCLUDED if record.status is OpStatus.INCLUDED else Kind.DROPPED
            place = record.inclusion
            self._events.tell(
                Event(
                    kind,
                    (entry.hash,),
                    entry.op.sender,
                    tx_hash=place.tx_hash if place else None,
                    block_number=place.block_number if place else None,
                    detail=record.reason or "",
                    elsewhere=True,
                )
            )

    def _see(self, attempt: Attempt, status: TxStatus, inclusion: Inclusion | None) -> None:
        live = status in (TxStatus.IN_FLIGHT, TxStatus.INCLUDED)
        if status is TxStatus.FINAL:
            for op_hash in attempt.op_hashes:
                if (entry := self._settled.pop(op_hash, None)) is not None:
                    self._pool.forget(entry)
        if attempt.executor in self._submitter.held:
            self.in_doubt |= live and not self._submitter.is_ours(attempt.tx_hash)
        elif live:
            self._submitter.elsewhere[attempt.tx_hash] = attempt, inclusion
        else:
            self._submitter.elsewhere.pop(attempt.tx_hash, None)
