"""The Store in one SQLite file, for one process.

An operation whose hash was returned, and a transaction that may have been sent, are on disk first (WAL, synchronous=FULL;
concurrent writes share one commit).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
    TxStatus,
)
from contracts.errors import SetupError
from contracts.types import Address, Hash32

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE operations (
    hash BLOB PRIMARY KEY, entry_point BLOB NOT NULL, sender BLOB NOT NULL, body BLOB NOT NULL,
    received_s REAL NOT NULL, received_block INTEGER NOT NULL, valid_after_s INTEGER NOT NULL, valid_until_s INTEGER NOT NULL,
    status TEXT NOT NULL, reason TEXT, tx_hash BLOB, block_number INTEGER, block_hash BLOB
) WITHOUT ROWID;
CREATE INDEX operations_live ON operations (status) WHERE status IN ('received', 'bundled');
CREATE TABLE bundles (
    tx_hash BLOB PRIMARY KEY, executor BLOB NOT NULL, nonce INTEGER NOT NULL, entry_point BLOB NOT NULL, raw BLOB NOT NULL,
    op_hashes BLOB NOT NULL, max_fee_wei TEXT NOT NULL, priority_fee_wei TEXT NOT NULL, sent_block INTEGER NOT NULL,
    status TEXT NOT NULL, block_number INTEGER, block_hash BLOB
) WITHOUT ROWID;
CREATE INDEX bundles_live ON bundles (status) WHERE status IN ('in_flight', 'included');
CREATE INDEX bundles_nonce ON bundles (executor, nonce);
"""
_SCHEMA_2 = """
ALTER TABLE operations ADD COLUMN beside BLOB;
CREATE TABLE reputation (address BLOB PRIMARY KEY, seen INTEGER NOT NULL, included INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE decayed (id INTEGER PRIMARY KEY CHECK (id = 1), at_s REAL NOT NULL);
"""
"""What travels beside an operation (msgpack of `encoding.Beside`), and the reputation of entities."""


_Statements = list[tuple[str, Sequence[Any]]]


class SqliteStore:
    """The Store in one SQLite file, with one writer thread and group commit. One process at a time (file lock).

    Raises SetupError if the file is damaged, of a newer version, or open elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SetupError(f"{path} is in use by another bundler process; give this one its own `database`") from None
        try:
            self._writer = self._connect()
            self._migrate()
            self._reader = self._connect()
        except sqlite3.Error as error:
            os.close(self._lock)
            raise SetupError(
                f"the database {path} cannot be opened: {error}. Restore it from a backup, or move it away to start empty"
            ) from error
        except SetupError:
            os.close(self._lock)
            raise
        self._queue: queue.SimpleQueue[tuple[_Statements, Callable[[Exception | None], None]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._write_loop, name="bundler-store", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _migrate(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version in (0, 1):
            script = _SCHEMA + _SCHEMA_2 if version == 0 else _SCHEMA_2
            self._writer.executescript(f"BEGIN; {script} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise SetupError(
                f"the database {self._path} has schema version {version}, this bundler knows {SCHEMA_VERSION}: "
                "use the newer seawall that wrote it"
            )
        (verdict,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {verdict}")

    def _write_loop(self) -> None:
        """Take what is queued, commit it at once, tell everyone who waited. A failure fails only its own batch."""
        stop = False
        while not stop:
            items = [self._queue.get()]
            while not self._queue.empty() and len(items) < 256:
                items.append(self._queue.get())
            stop = None in items
            jobs = [item for item in items if item is not None]
            failure: Exception | None = None
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                for statements, _ in jobs:
                    for sql, values in statements:
                        self._writer.execute(sql, values)
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                failure = SetupError(f"the database {self._path} cannot be written: {error}")
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            for _, done in jobs:
                done(failure)

    async def _write(self, statements: _Statements) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle(failure: Exception | None) -> None:
            if not future.cancelled():
                future.set_exception(failure) if failure else future.set_result(None)

        def done(failure: Exception | None) -> None:
            loop.call_soon_threadsafe(settle, failure)

        self._queue.put((statements, done))
        await asyncio.shield(future)

    @property
    def lease_s(self) -> None:
        """There is no other process."""
        return

    def follow(self, learn: Callable[[News], None], wake: Callable[[], None]) -> None:
        pass

    async def refresh(self) -> None:
        pass

    async def renew(self, keys: Sequence[Address], most: int) -> Held:  # noqa: ARG002 (the port's form)
        executors = self._reader.execute(
            "SELECT DISTINCT executor FROM bundles WHERE status IN ('in_flight', 'included')"
        ).fetchall()
        return dict.fromkeys([STEWARD, *keys, *(executor for (executor,) in executors)], 1)

    async def take_up(self, held: Held) -> LiveAttempts:  # noqa: ARG002
        in_flight: list[Attempt] = []
        included: list[tuple[Attempt, Inclusion]] = []
        for row in self._reader.execute(
            f"SELECT {ATTEMPT_COLUMNS} FROM bundles WHERE status IN ('in_flight', 'included') ORDER BY nonce, sent_block"  # noqa: S608 (ours)
        ):
            inclusion = inclusion_of(row)
            if inclusion is None:
                in_flight.append(attempt_of(row))
            else:
                included.append((attempt_of(row), inclusion))
        return in_flight, included

    async def claim(self, executor: Address, decide: Callable[[], Sequence[Hash32]]) -> None:  # noqa: ARG002
        decide()

    async def admit(self, decide: Callable[[], Admission]) -> None:
        admission = decide()
        entry, replaces = admission.entry, admission.replaces
        statements: _Statements = _counts(admission.counts)
        if replaces is not None:
            statements.append(_drop(replaces, f"replaced by 0x{entry.hash.hex()}"))
        statements.append(
            (
                "INSERT OR REPLACE INTO operations VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL,NULL,?)",
                (
                    entry.hash,
                    entry.entry_point.address,
                    entry.op.sender,
                    body_of(entry),
                    entry.received_s,
                    entry.received_block,
                    entry.valid_after_s,
                    entry.valid_until_s,
                    OpStatus.RECEIVED,
                    Beside.of(entry),
                ),
            )
        )
        await self._write(statements)

    async def drop_operations(
        self,
        reasons: Sequence[tuple[Hash32, str]],
        counts: Changes = (),
        by: Address | None = None,  # noqa: ARG002 (the port's form)
    ) -> list[Hash32]:
        await self._write([_drop(op_hash, reason) for op_hash, reason in reasons] + _counts(counts))
        return [op_hash for op_hash, _ in reasons]

    async def add_attempt(self, attempt: Attempt) -> None:
        statements: _Statements = [_insert(attempt)]
        statements += [
            ("UPDATE operations SET status=?, tx_hash=? WHERE hash=?", (OpStatus.BUNDLED, attempt.tx_hash, op_hash))
            for op_hash in attempt.op_hashes
        ]
        await self._write(statements)

    async def include(
        self,
        attempt: Attempt,
        inclusion: Inclusion,
        included: Sequence[Hash32],
        released: Sequence[Hash32],
        counts: Changes = (),
    ) -> None:
        place = (inclusion.block_number, inclusion.block_hash)
        statements: _Statements = [
            _insert(attempt),
            (
                "UPDATE bundles SET status=? WHERE status=? AND executor=? AND nonce=? AND tx_hash<>?",
                (TxStatus.LOST, TxStatus.IN_FLIGHT, attempt.executor, attempt.nonce, attempt.tx_hash),
            ),
            (
                "UPDATE bundles SET status=?, block_number=?, block_hash=? WHERE tx_hash=?",
                (TxStatus.INCLUDED if included else TxStatus.FINAL, *place, attempt.tx_hash),
            ),
        ]
        statements += [
            (
                "UPDATE operations SET status=?, reason=NULL, tx_hash=?, block_number=?, block_hash=? WHERE hash=?",
                (OpStatus.INCLUDED, inclusion.tx_hash, *place, op_hash),
            )
            for op_hash in included
        ]
        statements += [_release(op_hash) for op_hash in released]
        await self._write(statements + _counts(counts))

    async def overtake(
        self, attempt: Attempt, inclusion: Inclusion, reasons: Sequence[tuple[Hash32, str]], counts: Changes = ()
    ) -> None:
        place = (inclusion.block_number, inclusion.block_hash)
        statements: _Statements = [
            _insert(attempt),
            (
                "UPDATE bundles SET status=?, block_number=?, block_hash=? WHERE tx_hash=?",
                (TxStatus.INCLUDED, *place, attempt.tx_hash),
            ),
        ]
        statements += [
            (
                "UPDATE operations SET status=?, reason=?, tx_hash=?, block_number=?, block_hash=? WHERE hash=?",
                (OpStatus.DROPPED, reason, inclusion.tx_hash, *place, op_hash),
            )
            for op_hash, reason in reasons
        ]
        await self._write(statements + _counts(counts))

    async def lose(self, executor: Address, tx_hashes: Sequence[Hash32], released: Sequence[Hash32]) -> None:  # noqa: ARG002
        statements: _Statements = [
            ("UPDATE bundles SET status=? WHERE tx_hash=?", (TxStatus.LOST, tx_hash)) for tx_hash in tx_hashes
        ]
        await self._write(statements + [_release(op_hash) for op_hash in released])

    async def reopen(self, attempt: Attempt, counts: Changes = ()) -> None:
        if attempt.ours:
            sql = "UPDATE bundles SET status='in_flight', block_number=NULL, block_hash=NULL WHERE tx_hash=?"
        else:
            sql = "DELETE FROM bundles WHERE tx_hash=?"
        statements: _Statements = [(sql, (attempt.tx_hash,))]
        statements += [
            (
                "UPDATE operations SET status=?, reason=NULL, block_number=NULL, block_hash=NULL WHERE hash=?",
                (OpStatus.BUNDLED if attempt.ours else OpStatus.RECEIVED, op_hash),
            )
            for op_hash in attempt.op_hashes
        ]
        await self._write(statements + _counts(counts))

    async def finalise(self, tx_hashes: Sequence[Hash32]) -> None:
        await self._write(
            [("UPDATE bundles SET status=? WHERE tx_hash=?", (TxStatus.FINAL, tx_hash)) for tx_hash in tx_hashes]
        )

    async def clear(self) -> None:
        await self._write(
            [
                ("DELETE FROM operations WHERE status IN ('received', 'bundled')", ()),
                ("DELETE FROM bundles WHERE status IN ('in_flight', 'included')", ()),
                ("DELETE FROM reputation", ()),
            ]
        )

    async def save_reputation(self, changed: Changes, decayed_s: float | None) -> None:
        decayed: _Statements = []
        if decayed_s is not None:
            decayed = [("INSERT OR REPLACE INTO decayed VALUES (1, ?)", (decayed_s,))]
        await self._write(decayed + _counts(changed))

    async def reputation(self) -> tuple[dict[Address, Counts], float | None]:
        rows = self._reader.execute("SELECT address, seen, included FROM reputation").fetchall()
        decayed = self._reader.execute("SELECT at_s FROM decayed").fetchone()
        return {address: Counts(seen, included) for address, seen, included in rows}, decayed[0] if decayed else None

    async def operation(self, op_hash: Hash32) -> OperationRecord | None:
        rows = self._read("WHERE hash=?", (op_hash,))
        return rows[0] if rows else None

    async def live_operations(self) -> list[OperationRecord]:
        return self._read("WHERE status IN ('received', 'bundled') ORDER BY received_s", ())

    def _read(self, where: str, values: Sequence[Any]) -> list[OperationRecord]:
        rows = self._reader.execute(f"SELECT {OPERATION_COLUMNS} FROM operations {where}", values)  # noqa: S608 (`where` is ours)
        return [record_of(row) for row in rows]

    async def bind(self, chain_id: int) -> None:
        try:
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS chain (id INTEGER PRIMARY KEY CHECK (id = 1), chain_id TEXT NOT NULL)"
            )
            self._writer.execute("INSERT OR IGNORE INTO chain VALUES (1, ?)", (str(chain_id),))
            (known,) = self._writer.execute("SELECT chain_id FROM chain").fetchone()
        except sqlite3.Error as error:
            raise SetupError(f"the database {self._path} cannot be written: {error}") from error
        if known != str(chain_id):
            raise SetupError(
                f"the database {self._path} is of chain {known}, the node serves chain {chain_id}: "
                "give each chain its own `database`, or check `rpc_url`"
            )

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._writer.close()
        self._reader.close()
        os.close(self._lock)


def _insert(attempt: Attempt) -> tuple[str, Sequence[Any]]:
    sql = (
        "INSERT INTO bundles VALUES (?,?,?,?,?,?,?,?,?,'in_flight',NULL,NULL) "
        "ON CONFLICT (tx_hash) DO UPDATE SET op_hashes=excluded.op_hashes"
    )
    return sql, attempt_values(attempt)


def _counts(changes: Changes) -> _Statements:
    return [
        ("DELETE FROM reputation WHERE address=?", (change.address,))
        if change.counts is None
        else (
            "INSERT OR REPLACE INTO reputation VALUES (?,?,?)",
            (change.address, change.counts.seen, change.counts.included),
        )
        for change in changes
    ]


def _drop(op_hash: Hash32, why: str) -> tuple[str, Sequence[Any]]:
    return (
        "UPDATE operations SET status=?, reason=? WHERE hash=? AND status IN ('received', 'bundled')",
        (OpStatus.DROPPED, why, op_hash),
    )


def _release(op_hash: Hash32) -> tuple[str, Sequence[Any]]:
    return ("UPDATE operations SET status=? WHERE hash=? AND status='bundled'", (OpStatus.RECEIVED, op_hash))
