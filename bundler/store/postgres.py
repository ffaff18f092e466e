"""The Store in PostgreSQL, for several processes on one database.

Every write is a transaction that begins with the lock of `state` (see `postgres_session`): what it decides, it decides on the rows as they
are, after the process's view learnt them. Durable as far as the server is: synchronous commits are asked for in every session.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence

import psycopg

from bundler.reputation import Counts
from bundler.store.encoding import (
    ATTEMPT_COLUMNS,
    OPERATION_COLUMNS,
    Beside,
    attempt_of,
    attempt_values,
    body_of,
    inclusion_of,
    record_of,
)
from bundler.store.port import (
    STEWARD,
    Admission,
    Attempt,
    Changes,
    Held,
    Inclusion,
    LiveAttempts,
    News,
    OperationRecord,
    OpStatus,
    Overtaken,
    TxStatus,
)
from bundler.store.postgres_leases import fence, release, renew
from bundler.store.postgres_schema import migrate, tables_of, weaknesses
from bundler.store.postgres_session import Batch, Session
from contracts.errors import SetupError
from contracts.types import Address, Hash32, checksum, to_hex

log = logging.getLogger("bundler.store")

_LIVE = "status IN ('received', 'bundled')"


class PostgresStore:
    """One process's view of, and pen for, the database. `open` makes it.

    Raises SetupError when the server does not answer, refuses, or holds tables of another version or another chain.
    """

    def __init__(self, session: Session, lease_s: float) -> None:
        self._session = session
        self._lease_s = lease_s
        self._held: Held = {}
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        """This process, among those that lease."""

    @classmethod
    async def open(cls, url: str, lease_s: float = 10.0) -> PostgresStore:
        """Connect, and make the tables if there are none. Raises SetupError."""
        session = Session(url)
        await session.open()
        try:
            connection = await session.connect()
            try:
                await migrate(connection, session.where)
                for name in await weaknesses(connection):
                    log.warning(
                        "%s is off at %s: a power loss there may lose what was acknowledged", name, session.where
                    )
            finally:
                await connection.close()
        except psycopg.Error as error:
            await session.close()
            raise session.failure(error) from error
        except SetupError:
            await session.close()
            raise
        return cls(session, lease_s)

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def follow(self, learn: Callable[[News], None], wake: Callable[[], None]) -> None:
        self._session.start(learn, wake)

    async def bind(self, chain_id: int) -> None:
        async def job(batch: Batch) -> None:
            ((known,),) = await batch.run("SELECT chain_id FROM state")
            if known is None:
                await batch.run("UPDATE state SET chain_id = %s", (chain_id,))
            elif int(known) != chain_id:
                raise SetupError(
                    f"the database {self._session.where} is of chain {known}, the node serves chain {chain_id}: "
                    "give each chain its own `store`, or check `rpc_url`"
                )

        await self._session.write(job)

    async def refresh(self) -> None:
        await self._session.refresh()

    # -- leases ---------------------------------------------------------------------------------------------------------------------------

    async def renew(self, keys: Sequence[Address], most: int) -> Held:
        return await self._session.write(lambda batch: renew(batch, self.holder, self._lease_s, keys, most))

    async def take_up(self, held: Held) -> LiveAttempts:
        self._held = dict(held)

        async def job(batch: Batch) -> LiveAttempts:
            rows = await batch.run(
                f"SELECT {ATTEMPT_COLUMNS} FROM bundles WHERE status IN ('in_flight', 'included') ORDER BY nonce, sent_block"  # noqa: S608 (ours)
            )
            live = [(attempt_of(row), TxStatus(row[9]), inclusion_of(row)) for row in rows]
            others = [one for one in live if one[0].executor not in held]
            settled = [h for attempt, _, inclusion in others if inclusion is not None for h in attempt.op_hashes]
            records = await batch.run(
                f"SELECT {OPERATION_COLUMNS}, claimed_by FROM operations WHERE hash = ANY(%s) AND status = 'included'",  # noqa: S608
                (settled,),
            )
            self._session.tell(News([record_of(row) for row in records], others))
            own = [(attempt, inclusion) for attempt, _, inclusion in live if attempt.executor in held]
            return (
                [attempt for attempt, inclusion in own if inclusion is None],
                [(attempt, inclusion) for attempt, inclusion in own if inclusion is not None],
            )

        return await self._session.write(job)

    async def claim(self, executor: Address, decide: Callable[[], Sequence[Hash32]]) -> None:
        async def job(batch: Batch) -> None:
            await fence(batch, self.holder, self._held, executor)
            hashes = list(decide())
            await _check_free(batch, executor, hashes)
            await batch.run(
                "UPDATE operations SET claimed_by = NULL, change = %s WHERE claimed_by = %s AND status = 'received' AND hash <> ALL(%s)",
                (batch.change, executor, hashes),
            )
            await batch.run(
                "UPDATE operations SET claimed_by = %s, change = %s WHERE hash = ANY(%s)",
                (executor, batch.change, hashes),
            )

        await self._session.write(job)

    # -- operations and bundles -----------------------------------------------------------------------------------------------------------

    async def admit(self, decide: Callable[[], Admission]) -> None:
        async def job(batch: Batch) -> None:
            admission = decide()
            entry = admission.entry
            if admission.replaces is not None:
                await _drop(batch, [(admission.replaces, f"replaced by {to_hex(entry.hash)}")])
            await batch.run(
                f"INSERT INTO operations ({OPERATION_COLUMNS}, sender, nonce, change) "  # noqa: S608 (ours)
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, NULL, NULL, NULL, NULL, %s, %s, %s, %s) ON CONFLICT (hash) DO UPDATE SET "
                "received_s = excluded.received_s, received_block = excluded.received_block, valid_after_s = excluded.valid_after_s, "
                "valid_until_s = excluded.valid_until_s, status = excluded.status, reason = NULL, tx_hash = NULL, "
                "block_number = NULL, block_hash = NULL, beside = excluded.beside, claimed_by = NULL, change = excluded.change",
                (
                    entry.hash,
                    entry.entry_point.address,
                    body_of(entry),
                    entry.received_s,
                    entry.received_block,
                    entry.valid_after_s,
                    entry.valid_until_s,
                    OpStatus.RECEIVED,
                    Beside.of(entry),
                    entry.op.sender,
                    entry.op.nonce,
                    batch.change,
                ),
            )
            await _add_counts(batch, admission.counts)

        await self._session.write(job)

    async def drop_operations(
        self, reasons: Sequence[tuple[Hash32, str]], counts: Changes = (), by: Address | None = None
    ) -> list[Hash32]:
        async def job(batch: Batch) -> list[Hash32]:
            if by is not None:
                await fence(batch, self.holder, self._held, by)
            dropped = await _drop(batch, reasons, by)
            await _add_counts(batch, counts)
            return dropped

        return await self._session.write(job)

    async def add_attempt(self, attempt: Attempt) -> None:
        async def job(batch: Batch) -> None:
            executor, hashes = attempt.executor, list(attempt.op_hashes)
            await fence(batch, self.holder, self._held, executor)
            await _check_free(batch, executor, hashes)
            await _insert(batch, attempt, self.holder, self._held[executor])
            await batch.run(
                "UPDATE operations SET status = 'bundled', tx_hash = %s, claimed_by = %s, change = %s WHERE hash = ANY(%s)",
                (attempt.tx_hash, executor, batch.change, hashes),
            )
            await batch.run(
                "UPDATE operations SET claimed_by = NULL, change = %s WHERE claimed_by = %s AND status = 'received'",
                (batch.change, executor),
            )

        await self._session.write(job)

    async def include(
        self,
        attempt: Attempt,
        inclusion: Inclusion,
        included: Sequence[Hash32],
        released: Sequence[Hash32],
        counts: Changes = (),
    ) -> None:
        async def job(batch: Batch) -> None:
            await fence(batch, self.holder, self._held, attempt.executor)
            if not attempt.ours:
                await _check_waiting(batch, attempt.tx_hash, included)
            await _insert(batch, attempt)
            await batch.run(
                "UPDATE bundles SET status = 'lost', change = %s "
                "WHERE status = 'in_flight' AND executor = %s AND nonce = %s AND tx_hash <> %s",
                (batch.change, attempt.executor, attempt.nonce, attempt.tx_hash),
            )
            place = (inclusion.block_number, inclusion.block_hash)
            await batch.run(
                "UPDATE bundles SET status = %s, block_number = %s, block_hash = %s, change = %s WHERE tx_hash = %s",
                (TxStatus.INCLUDED if included else TxStatus.FINAL, *place, batch.change, attempt.tx_hash),
            )
            await batch.run(
                "UPDATE operations SET status = 'included', reason = NULL, tx_hash = %s, block_number = %s, block_hash = %s, "
                "claimed_by = NULL, change = %s WHERE hash = ANY(%s)",
                (inclusion.tx_hash, *place, batch.change, list(included)),
            )
            await _release(batch, attempt.executor, released)
            await _add_counts(batch, counts)

        await self._session.write(job)

    async def overtake(
        self, attempt: Attempt, inclusion: Inclusion, reasons: Sequence[tuple[Hash32, str]], counts: Changes = ()
    ) -> None:
        async def job(batch: Batch) -> None:
            await fence(batch, self.holder, self._held, attempt.executor)
            await _check_waiting(batch, attempt.tx_hash, [op_hash for op_hash, _ in reasons])
            await _insert(batch, attempt)
            place = (inclusion.block_number, inclusion.block_hash)
            await batch.run(
                "UPDATE bundles SET status = 'included', block_number = %s, block_hash = %s, change = %s WHERE tx_hash = %s",
                (*place, batch.change, attempt.tx_hash),
            )
            for op_hash, reason in reasons:
                await batch.run(
                    "UPDATE operations SET status = 'dropped', reason = %s, tx_hash = %s, block_number = %s, block_hash = %s, "
                    "claimed_by = NULL, change = %s WHERE hash = %s",
                    (reason, inclusion.tx_hash, *place, batch.change, op_hash),
                )
            await _add_counts(batch, counts)

        await self._session.write(job)

    async def lose(self, executor: Address, tx_hashes: Sequence[Hash32], released: Sequence[Hash32]) -> None:
        async def job(batch: Batch) -> None:
            await fence(batch, self.holder, self._held, executor)
            await _end_bundles(batch, TxStatus.LOST, tx_hashes)
            await _release(batch, executor, released)

        await self._session.write(job)

    async def reopen(self, attempt: Attempt, counts: Changes = ()) -> None:
        async def job(batch: Batch) -> None:
            await fence(batch, self.holder, self._held, attempt.executor)
            await batch.run(
                "UPDATE bundles SET status = %s, block_number = NULL, block_hash = NULL, change = %s WHERE tx_hash = %s",
                (TxStatus.IN_FLIGHT if attempt.ours else TxStatus.LOST, batch.change, attempt.tx_hash),
            )
            await batch.run(
                "UPDATE operations SET status = %s, reason = NULL, block_number = NULL, block_hash = NULL, claimed_by = %s, "
                "change = %s WHERE hash = ANY(%s)",
                (
                    OpStatus.BUNDLED if attempt.ours else OpStatus.RECEIVED,
                    attempt.executor if attempt.ours else None,
                    batch.change,
                    list(attempt.op_hashes),
                ),
            )
            await _add_counts(batch, counts)

        await self._session.write(job)

    async def finalise(self, tx_hashes: Sequence[Hash32]) -> None:
        await self._session.write(lambda batch: _end_bundles(batch, TxStatus.FINAL, tx_hashes))

    async def clear(self) -> None:
        async def job(batch: Batch) -> None:
            await batch.run(f"DELETE FROM operations WHERE {_LIVE}")  # noqa: S608 (ours)
            await batch.run("DELETE FROM bundles WHERE status IN ('in_flight', 'included')")
            await batch.run("UPDATE state SET cleared = cleared + 1")

        await self._session.write(job)

    # -- reputation -----------------------------------------------------------------------------------------------------------------------

    async def save_reputation(self, changed: Changes, decayed_s: float | None) -> None:
        async def job(batch: Batch) -> None:
            if decayed_s is not None:
                await fence(batch, self.holder, self._held, STEWARD)
                await batch.run("UPDATE state SET decayed_s = %s", (decayed_s,))
            await _add_counts(batch, changed)

        await self._session.write(job)

    async def reputation(self) -> tuple[dict[Address, Counts], float | None]:
        rows = await self._session.read("SELECT address, seen, included FROM reputation WHERE seen > 0 OR included > 0")
        ((decayed_s,),) = await self._session.read("SELECT decayed_s FROM state")
        return {address: Counts(seen, included) for address, seen, included in rows}, decayed_s

    # -- reading --------------------------------------------------------------------------------------------------------------------------

    async def operation(self, op_hash: Hash32) -> OperationRecord | None:
        rows = await self._session.read(
            f"SELECT {OPERATION_COLUMNS}, claimed_by FROM operations WHERE hash = %s",  # noqa: S608 (ours)
            (op_hash,),
        )
        return record_of(rows[0]) if rows else None

    async def live_operations(self) -> list[OperationRecord]:
        async def job(batch: Batch) -> list[OperationRecord]:
            rows = await batch.run(
                f"SELECT {OPERATION_COLUMNS}, claimed_by FROM operations WHERE {_LIVE} ORDER BY received_s"  # noqa: S608
            )
            return [record_of(row) for row in rows]

        return await self._session.write(job)

    async def close(self) -> None:
        try:
            await self._session.write(lambda batch: release(batch, self.holder))
        except SetupError as error:
            log.warning("the leases of this process end by themselves: %s", error.message)
        await self._session.close()


async def _check_free(batch: Batch, executor: Address, hashes: Sequence[Hash32]) -> None:
    """All of these can go into a bundle of the executor. Raises Overtaken."""
    rows = await batch.run(
        f"SELECT hash FROM operations WHERE hash = ANY(%s) AND {_LIVE} AND coalesce(claimed_by, %s) = %s",  # noqa: S608 (ours)
        (list(hashes), executor, executor),
    )
    missing = set(hashes) - {op_hash for (op_hash,) in rows}
    if missing:
        raise Overtaken(
            f"{len(missing)} of {len(set(hashes))} operations for {checksum(executor)} were taken, replaced or dropped by another process"
        )


async def _check_waiting(batch: Batch, tx_hash: Hash32, hashes: Sequence[Hash32]) -> None:
    """These wait, or this stranger's transaction is known to hold or overtake them. Raises Overtaken."""
    rows = await batch.run(
        "SELECT hash FROM operations WHERE hash = ANY(%s) AND (status = 'received' OR (block_number IS NOT NULL AND tx_hash = %s))",
        (list(hashes), tx_hash),
    )
    if len(rows) < len(set(hashes)):
        raise Overtaken(f"operations in {to_hex(tx_hash)} are in a bundle of another process by now")


async def _insert(batch: Batch, attempt: Attempt, holder: str | None = None, token: int | None = None) -> None:
    """A transaction, and on whose lease it was signed."""
    await batch.run(
        f"INSERT INTO bundles ({ATTEMPT_COLUMNS}, holder, token, change) "  # noqa: S608 (ours)
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'in_flight', NULL, NULL, %s, %s, %s) "
        "ON CONFLICT (tx_hash) DO UPDATE SET op_hashes = excluded.op_hashes",
        (*attempt_values(attempt), holder, token, batch.change),
    )


async def _end_bundles(batch: Batch, status: TxStatus, tx_hashes: Iterable[Hash32]) -> None:
    await batch.run(
        "UPDATE bundles SET status = %s, change = %s WHERE tx_hash = ANY(%s)", (status, batch.change, list(tx_hashes))
    )


async def _drop(batch: Batch, reasons: Sequence[tuple[Hash32, str]], by: Address | None = None) -> list[Hash32]:
    rows = await batch.run(
        "UPDATE operations SET status = 'dropped', reason = why.reason, claimed_by = NULL, change = %s "
        "FROM unnest(%s::bytea[], %s::text[]) AS why (hash, reason) "
        "WHERE operations.hash = why.hash AND status = 'received' AND (%s::bytea IS NULL OR coalesce(claimed_by, %s) = %s) "
        "RETURNING operations.hash",
        (batch.change, [op_hash for op_hash, _ in reasons], [reason for _, reason in reasons], by, by, by),
    )
    return [op_hash for (op_hash,) in rows]


async def _release(batch: Batch, executor: Address, hashes: Sequence[Hash32]) -> None:
    await batch.run(
        "UPDATE operations SET status = 'received', claimed_by = NULL, change = %s "
        "WHERE hash = ANY(%s) AND status = 'bundled' AND claimed_by = %s",
        (batch.change, list(hashes), executor),
    )


async def _add_counts(batch: Batch, changes: Changes) -> None:
    for one in changes:
        ((address, seen, included),) = await batch.run(
            "INSERT INTO reputation VALUES (%(address)s, greatest(%(seen)s, 0), greatest(%(included)s, 0), %(change)s) "
            "ON CONFLICT (address) DO UPDATE SET seen = greatest(reputation.seen + %(seen)s, 0), "
            "included = greatest(reputation.included + %(included)s, 0), change = %(change)s RETURNING address, seen, included",
            {"address": one.address, "seen": one.seen, "included": one.included, "change": batch.change},
        )
        batch.counts[address] = Counts(seen, included)


async def examine(url: str) -> tuple[str, str]:
    """What there is, and what to do about it ("" if nothing), for the doctor. Makes nothing. Raises SetupError."""
    session = Session(url)
    await session.open()
    try:
        connection = await session.connect()
        try:
            weak = await weaknesses(connection)
            found = await tables_of(connection)
        finally:
            await connection.close()
    except psycopg.Error as error:
        raise session.unreachable(error) from error
    finally:
        await session.close()
    if weak:
        return (
            f"{session.where}: {' and '.join(weak)} off",
            "a power loss there may lose what was acknowledged: set them on",
        )
    return f"{session.where}, {found}", ""
