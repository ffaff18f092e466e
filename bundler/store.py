"""What survives a crash: the Store port, and SQLite behind it.

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
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bundler.mempool import Entry
from bundler.reputation import Counts
from contracts.eip7702 import Authorization
from contracts.entrypoint import by_address
from contracts.errors import SetupError
from contracts.types import Address, Hash32, Wei
from contracts.userop import UserOperation

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
"""What travels beside an operation (msgpack of `_Beside`), and the reputation of entities."""


class OpStatus(StrEnum):
    """RECEIVED waits in the pool, BUNDLED is in a recorded bundle, INCLUDED is in a block, DROPPED never will be by us."""

    RECEIVED = "received"
    BUNDLED = "bundled"
    INCLUDED = "included"
    DROPPED = "dropped"


class TxStatus(StrEnum):
    """IN_FLIGHT may be sent and mined; INCLUDED is in a block not yet final; FINAL and LOST are history."""

    IN_FLIGHT = "in_flight"
    INCLUDED = "included"
    FINAL = "final"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Where a transaction stands in the chain."""

    tx_hash: Hash32
    block_number: int
    block_hash: Hash32


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """An operation with what became of it."""

    entry: Entry
    status: OpStatus
    reason: str | None = None
    inclusion: Inclusion | None = None
    tx_hash: Hash32 | None = None
    """The transaction that includes it, or the last one that was meant to."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of an executor: a bundle, a resubmission of it, or a cancellation (no operations).

    Also a stranger's transaction that carries operations of ours: executor and raw are empty then.
    """

    tx_hash: Hash32
    executor: Address
    nonce: int
    entry_point: Address
    raw: bytes
    op_hashes: tuple[Hash32, ...]
    max_fee_wei: Wei
    priority_fee_wei: Wei
    sent_block: int

    @property
    def ours(self) -> bool:
        return bool(self.raw)

    @classmethod
    def foreign(cls, tx_hash: Hash32, entry_point: Address, op_hashes: tuple[Hash32, ...]) -> Attempt:
        """Somebody else's bundle."""
        return cls(tx_hash, b"", -1, entry_point, b"", op_hashes, 0, 0, 0)


Changes = Sequence[tuple[Address, Counts | None]]
"""New counts of entities; None forgets one."""


class Store(Protocol):
    """Durable state. A method has returned only when a crash cannot undo what it did; each is one transaction."""

    async def add_operation(self, entry: Entry, replaces: Hash32 | None, counts: Changes = ()) -> None:
        """A new waiting operation; the one it replaces is dropped. `counts`: reputations that changed by it."""

    async def drop_operations(self, reasons: Sequence[tuple[Hash32, str]], counts: Changes = ()) -> None:
        """These will not be tried again."""

    async def add_attempt(self, attempt: Attempt) -> None:
        """A signed transaction, before it is sent: its operations are BUNDLED."""

    async def include(
        self,
        attempt: Attempt,
        inclusion: Inclusion,
        included: Sequence[Hash32],
        released: Sequence[Hash32],
        counts: Changes = (),
    ) -> None:
        """A transaction is in a block, ours or a stranger's. Other attempts of its nonce are LOST, `released` wait again.

        Without `included` (a reverted bundle, a cancellation) it is history at once.
        """

    async def lose(self, tx_hashes: Sequence[Hash32], released: Sequence[Hash32]) -> None:
        """These attempts can never be mined; `released` wait again."""

    async def reopen(self, attempt: Attempt, counts: Changes = ()) -> None:
        """A reorganisation took the transaction out of the chain: ours is IN_FLIGHT again, a stranger's operations wait."""

    async def finalise(self, tx_hashes: Sequence[Hash32]) -> None:
        """These are deep enough."""

    def operation(self, op_hash: Hash32) -> OperationRecord | None:
        """What is known of an operation."""

    def live_operations(self) -> list[OperationRecord]:
        """RECEIVED and BUNDLED, in order of arrival."""

    def live_attempts(self) -> tuple[list[Attempt], list[tuple[Attempt, Inclusion]]]:
        """In-flight attempts by nonce and age, and those in blocks that are not final yet."""

    async def clear(self) -> None:
        """Forget every operation and bundle that is not history. For tests (`debug_bundler_clearState`)."""

    async def save_reputation(self, changed: Changes, decayed_s: float) -> None:
        """New counts of some entities (None: forget it), and when all were last decayed (Unix s)."""

    def reputation(self) -> tuple[dict[Address, Counts], float | None]:
        """All counts, and when they were last decayed; None if never saved."""

    async def close(self) -> None:
        """Finish what is queued and give the files back."""


class _Beside(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an operation beside its fields."""

    authorization: tuple[bytes, bytes, bytes, int, bytes, bytes] | None = None
    """chain id, delegate, nonce, y parity, r, s; numbers big-endian."""
    staked: tuple[bytes, ...] = ()
    code_hashes: tuple[tuple[bytes, bytes], ...] = ()
    contracts: tuple[bytes, ...] = ()

    @staticmethod
    def of(entry: Entry) -> bytes:
        a = entry.authorization
        numbers = None
        if a is not None:
            numbers = (
                a.chain_id.to_bytes(32),
                a.delegate,
                a.nonce.to_bytes(8),
                a.y_parity,
                a.r.to_bytes(32),
                a.s.to_bytes(32),
            )
        beside = _Beside(numbers, tuple(sorted(entry.staked)), entry.code_hashes, tuple(sorted(entry.contracts)))
        return msgspec.msgpack.encode(beside)

    def beside(self, entry: Entry) -> Entry:
        authorization = None
        if self.authorization is not None:
            chain_id, delegate, nonce, y_parity, r, s = self.authorization
            authorization = Authorization(
                int.from_bytes(chain_id),
                delegate,
                int.from_bytes(nonce),
                y_parity,
                int.from_bytes(r),
                int.from_bytes(s),
            )
        return replace(
            entry,
            authorization=authorization,
            staked=frozenset(self.staked),
            code_hashes=self.code_hashes,
            contracts=frozenset(self.contracts),
        )


def _split(joined: bytes) -> tuple[Hash32, ...]:
    return tuple(joined[i : i + 32] for i in range(0, len(joined), 32))


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

    async def add_operation(self, entry: Entry, replaces: Hash32 | None, counts: Changes = ()) -> None:
        statements: _Statements = _counts(counts)
        if replaces is not None:
            statements.append(_drop(replaces, f"replaced by 0x{entry.hash.hex()}"))
        statements.append(
            (
                "INSERT OR REPLACE INTO operations VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL,NULL,?)",
                (
                    entry.hash,
                    entry.entry_point.address,
                    entry.op.sender,
                    msgspec.json.encode(entry.op.to_rpc()),
                    entry.received_s,
                    entry.received_block,
                    entry.valid_after_s,
                    entry.valid_until_s,
                    OpStatus.RECEIVED,
                    _Beside.of(entry),
                ),
            )
        )
        await self._write(statements)

    async def drop_operations(self, reasons: Sequence[tuple[Hash32, str]], counts: Changes = ()) -> None:
        await self._write([_drop(op_hash, reason) for op_hash, reason in reasons] + _counts(counts))

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

    async def lose(self, tx_hashes: Sequence[Hash32], released: Sequence[Hash32]) -> None:
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
                "UPDATE operations SET status=?, block_number=NULL, block_hash=NULL WHERE hash=?",
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

    async def save_reputation(self, changed: Changes, decayed_s: float) -> None:
        decayed: _Statements = [("INSERT OR REPLACE INTO decayed VALUES (1, ?)", (decayed_s,))]
        await self._write(decayed + _counts(changed))

    def reputation(self) -> tuple[dict[Address, Counts], float | None]:
        rows = self._reader.execute("SELECT address, seen, included FROM reputation").fetchall()
        decayed = self._reader.execute("SELECT at_s FROM decayed").fetchone()
        return {address: Counts(seen, included) for address, seen, included in rows}, decayed[0] if decayed else None

    def operation(self, op_hash: Hash32) -> OperationRecord | None:
        rows = self._read("WHERE hash=?", (op_hash,))
        return rows[0] if rows else None

    def live_operations(self) -> list[OperationRecord]:
        return self._read("WHERE status IN ('received', 'bundled') ORDER BY received_s", ())

    def _read(self, where: str, values: Sequence[Any]) -> list[OperationRecord]:
        rows = self._reader.execute(
            "SELECT hash, entry_point, body, received_s, received_block, valid_after_s, valid_until_s, status, reason, tx_hash, "  # noqa: S608 (`where` is ours)
            f"block_number, block_hash, beside FROM operations {where}",
            values,
        )
        return [_record(row) for row in rows]

    def live_attempts(self) -> tuple[list[Attempt], list[tuple[Attempt, Inclusion]]]:
        in_flight: list[Attempt] = []
        included: list[tuple[Attempt, Inclusion]] = []
        for row in self._reader.execute(
            "SELECT tx_hash, executor, nonce, entry_point, raw, op_hashes, max_fee_wei, priority_fee_wei, sent_block, status, "
            "block_number, block_hash FROM bundles WHERE status IN ('in_flight', 'included') ORDER BY nonce, sent_block"
        ):
            tx_hash, executor, nonce, entry_point, raw, op_hashes, max_fee, tip, sent_block = row[:9]
            attempt = Attempt(
                tx_hash, executor, nonce, entry_point, raw, _split(op_hashes), int(max_fee), int(tip), sent_block
            )
            if row[9] == TxStatus.IN_FLIGHT:
                in_flight.append(attempt)
            else:
                included.append((attempt, Inclusion(attempt.tx_hash, row[10], row[11])))
        return in_flight, included

    def bind(self, chain_id: int) -> None:
        """Say which chain this database is of, once for all. Raises SetupError if it is another's.

        On another chain every transaction would look lost and every operation invalid, and would be dropped.
        """
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
    return (
        "INSERT OR IGNORE INTO bundles VALUES (?,?,?,?,?,?,?,?,?,'in_flight',NULL,NULL)",
        (
            attempt.tx_hash,
            attempt.executor,
            attempt.nonce,
            attempt.entry_point,
            attempt.raw,
            b"".join(attempt.op_hashes),
            str(attempt.max_fee_wei),
            str(attempt.priority_fee_wei),
            attempt.sent_block,
        ),
    )


def _counts(changes: Changes) -> _Statements:
    return [
        ("DELETE FROM reputation WHERE address=?", (address,))
        if counts is None
        else ("INSERT OR REPLACE INTO reputation VALUES (?,?,?)", (address, counts.seen, counts.included))
        for address, counts in changes
    ]


def _drop(op_hash: Hash32, why: str) -> tuple[str, Sequence[Any]]:
    return (
        "UPDATE operations SET status=?, reason=? WHERE hash=? AND status IN ('received', 'bundled')",
        (OpStatus.DROPPED, why, op_hash),
    )


def _release(op_hash: Hash32) -> tuple[str, Sequence[Any]]:
    return ("UPDATE operations SET status=? WHERE hash=? AND status='bundled'", (OpStatus.RECEIVED, op_hash))


_NOTHING_BESIDE = msgspec.msgpack.encode(_Beside())
_PLAIN = frozenset(
    (
        "sender", "nonce", "callData", "callGasLimit", "verificationGasLimit", "preVerificationGas", "maxFeePerGas",
        "maxPriorityFeePerGas", "signature",
    )
)  # fmt: skip


def _stored(fields: dict[str, str]) -> UserOperation:
    """An operation as `to_rpc` wrote it: most have neither factory nor paymaster, and were checked when they came in."""
    if fields.keys() != _PLAIN:
        return UserOperation.from_rpc(fields)
    return UserOperation(
        sender=bytes.fromhex(fields["sender"][2:]),
        nonce=int(fields["nonce"], 16),
        call_data=bytes.fromhex(fields["callData"][2:]),
        call_gas_limit=int(fields["callGasLimit"], 16),
        verification_gas_limit=int(fields["verificationGasLimit"], 16),
        pre_verification_gas=int(fields["preVerificationGas"], 16),
        max_fee_per_gas=int(fields["maxFeePerGas"], 16),
        max_priority_fee_per_gas=int(fields["maxPriorityFeePerGas"], 16),
        signature=bytes.fromhex(fields["signature"][2:]),
    )


def _record(row: Sequence[Any]) -> OperationRecord:
    entry = Entry(row[0], _stored(msgspec.json.decode(row[2])), by_address(row[1]), row[3], row[4], row[5], row[6])
    if row[12] is not None and row[12] != _NOTHING_BESIDE:
        entry = msgspec.msgpack.decode(row[12], type=_Beside).beside(entry)
    inclusion = Inclusion(row[9], row[10], row[11]) if row[7] == OpStatus.INCLUDED else None
    return OperationRecord(entry, OpStatus(row[7]), row[8], inclusion, row[9])
