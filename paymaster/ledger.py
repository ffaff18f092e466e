"""What the sponsor has promised and what it has spent. A promise is on disk before its signature leaves the process.

A reservation is *held* until its nonce is used (settled at the actual cost) or it can no longer be used (released). Settlements
carry the block they came from, so that a reorganisation undoes exactly those that it removed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from contracts.errors import SetupError, SponsorRefused
from contracts.faults import checkpoint
from contracts.types import Address, Hash32, Wei, to_hex
from paymaster.sponsor import Claim, Usage

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (chain_id INTEGER NOT NULL) STRICT;
CREATE TABLE reservations (
  intent_hash BLOB PRIMARY KEY, entry_point BLOB NOT NULL, sender BLOB NOT NULL, nonce BLOB NOT NULL, amount_wei TEXT NOT NULL,
  day INTEGER NOT NULL, valid_until_s INTEGER NOT NULL, engine BLOB NOT NULL, policy_id BLOB NOT NULL, held INTEGER NOT NULL
) STRICT;
CREATE INDEX reservations_by_nonce ON reservations (sender, nonce, entry_point);
CREATE INDEX reservations_held ON reservations (valid_until_s) WHERE held = 1;
CREATE TABLE settlements (
  user_op_hash BLOB PRIMARY KEY, entry_point BLOB NOT NULL, sender BLOB NOT NULL, nonce BLOB NOT NULL, cost_wei TEXT NOT NULL,
  day INTEGER NOT NULL, success INTEGER NOT NULL, block_number INTEGER NOT NULL, block_hash BLOB NOT NULL, tx_hash BLOB NOT NULL
) STRICT;
CREATE INDEX settlements_by_nonce ON settlements (sender, nonce, entry_point);
CREATE INDEX settlements_by_block ON settlements (block_number);
CREATE TABLE spent (sender BLOB NOT NULL, day INTEGER NOT NULL, wei TEXT NOT NULL, PRIMARY KEY (sender, day)) STRICT;
CREATE TABLE blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
"""
_EVERYONE = (b"", -1)
"""The row of `spent` that holds the sum of all others."""
_BLOCKS_KEPT = 4096

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A promise on disk."""

    intent_hash: Hash32
    amount_wei: Wei
    valid_until_s: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an entry point charged our paymaster for one operation, and the block that says so."""

    user_op_hash: Hash32
    entry_point: Address
    sender: Address
    nonce: int
    cost_wei: Wei
    success: bool
    block_number: int
    block_hash: Hash32
    tx_hash: Hash32
    day: int
    """UTC day of the block; the day of the promise wins where there is one."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block up to which the logs have been read."""

    number: int
    hash: Hash32


@dataclass(frozen=True, slots=True)
class Totals:
    """The ledger in four figures."""

    spent_wei: Wei
    held_wei: Wei
    held: int
    settled: int


class Ledger(Protocol):
    """The port. Every method is one transaction: after it returns, the change survives SIGKILL and power loss."""

    async def reserve(self, claim: Claim, admit: Callable[[Claim, Usage], None]) -> Reservation:
        """Promise `claim`, once per intent: asking again gives the same promise (a higher amount or a later expiry is added to it).

        `admit` judges the amount against the usage, under the lock; what it raises leaves nothing behind. Raises SponsorRefused
        when the nonce is paid for already, or the intent was promised for another entry point.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement], upto: Block) -> None:
        """Book actual costs and that the logs were read up to a block. Settling the same again changes nothing."""
        ...

    async def undo(self, above: int) -> list[Settlement]:
        """Forget blocks above a number: their promises are held again. Returns what was undone."""
        ...

    async def release(self, expired_before_s: int) -> int:
        """Give up promises that no block can include any more. Returns how many."""
        ...

    async def blocks(self) -> list[Block]:
        """Blocks that were read, newest first."""
        ...

    async def totals(self) -> Totals:
        """What is promised and spent."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close."""
        ...


class SqliteLedger:
    """The ledger in one SQLite file: WAL, synchronous=FULL, one thread. Several processes may share the file."""

    def __init__(self, path: Path, chain_id: int) -> None:
        """Open or create. Raises SetupError for a file of another chain or schema, or one that cannot be opened."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="paymaster-ledger")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
            self._open(path, chain_id)
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"the sponsor ledger {path} cannot be opened: {error}") from error

    def _open(self, path: Path, chain_id: int) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO meta VALUES (?)", (chain_id,))
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise SetupError(
                    f"the sponsor ledger {path} has schema {version}, this program writes {SCHEMA_VERSION}"
                )
            (known_chain,) = self._db.execute("SELECT chain_id FROM meta").fetchone()
        if known_chain != chain_id:
            raise SetupError(
                f"the sponsor ledger {path} is of chain {known_chain}, not {chain_id}: give each chain its own file"
            )

    async def _run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: work(*args, **kwargs))
        except sqlite3.Error as error:
            raise SetupError(f"the sponsor ledger cannot be used: {error}; is its disk full or read-only?") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    async def reserve(self, claim: Claim, admit: Callable[[Claim, Usage], None]) -> Reservation:
        return await self._run(self._reserve, claim, admit)

    def _reserve(self, claim: Claim, admit: Callable[[Claim, Usage], None]) -> Reservation:
        with self._transaction():
            if self._db.execute(
                "SELECT 1 FROM settlements WHERE sender = ? AND nonce = ? AND entry_point = ?", _nonce_row(claim)
            ).fetchone():
                raise SponsorRefused(
                    "an operation with this nonce was included and paid for already", rule="already-paid"
                )
            row = self._db.execute(
                "SELECT entry_point, amount_wei, day, valid_until_s, held FROM reservations WHERE intent_hash = ?",
                (claim.intent_hash,),
            ).fetchone()
            if row is not None and row[0] != claim.entry_point:
                raise SponsorRefused(
                    f"this intent is sponsored on entry point {to_hex(row[0])}", rule="entry-point-changed"
                )
            amount, valid_until_s, day = claim.amount_wei, claim.valid_until_s, claim.day
            if row is not None and row[4]:
                amount, day = max(amount, int(row[1])), row[2]
                # The same answer to the same question, unless less than half of the time is left.
                if 2 * (row[3] - claim.now_s) >= valid_until_s - claim.now_s:
                    valid_until_s = row[3]
            if row is None or not row[4] or amount > int(row[1]):
                admit(claim, self._usage(claim, day))
            self._db.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (intent_hash) DO UPDATE SET "
                "amount_wei = excluded.amount_wei, day = excluded.day, valid_until_s = excluded.valid_until_s, "
                "engine = excluded.engine, policy_id = excluded.policy_id, held = 1",
                (
                    claim.intent_hash,
                    claim.entry_point,
                    claim.sender,
                    claim.nonce.to_bytes(32),
                    str(amount),
                    day,
                    valid_until_s,
                    claim.engine,
                    claim.policy_id,
                ),
            )
            checkpoint("paymaster.reserve.before")
        checkpoint("paymaster.reserve.after")
        return Reservation(claim.intent_hash, amount, valid_until_s)

    def _usage(self, claim: Claim, day: int) -> Usage:
        total, account_day, held = self._spent(*_EVERYONE), self._spent(claim.sender, day), 0
        for sender, entry_point, its_day, amount in self._db.execute(
            "SELECT sender, entry_point, day, amount_wei FROM reservations WHERE held = 1 AND intent_hash <> ?",
            (claim.intent_hash,),
        ):
            wei = int(amount)
            total += wei
            account_day += wei if (sender, its_day) == (claim.sender, day) else 0
            held += wei if entry_point == claim.entry_point else 0
        return Usage(total_wei=total, account_day_wei=account_day, held_wei=held)

    def _spent(self, sender: bytes, day: int) -> Wei:
        row = self._db.execute("SELECT wei FROM spent WHERE sender = ? AND day = ?", (sender, day)).fetchone()
        return int(row[0]) if row else 0

    def _book(self, sender: Address, day: int, wei: int) -> None:
        for key in ((sender, day), _EVERYONE):
            self._db.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", (*key, str(self._spent(*key) + wei)))

    async def settle(self, settlements: Sequence[Settlement], upto: Block) -> None:
        await self._run(self._settle, settlements, upto)

    def _settle(self, settlements: Sequence[Settlement], upto: Block) -> None:
        with self._transaction():
            for s in settlements:
                nonce_row = _nonce_row(s)
                (promised_day,) = self._db.execute(
                    "SELECT max(day) FROM reservations WHERE sender = ? AND nonce = ? AND entry_point = ?", nonce_row
                ).fetchone()
                day = s.day if promised_day is None else promised_day
                added = self._db.execute(
                    "INSERT OR IGNORE INTO settlements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        s.user_op_hash,
                        s.entry_point,
                        s.sender,
                        s.nonce.to_bytes(32),
                        str(s.cost_wei),
                        day,
                        s.success,
                        s.block_number,
                        s.block_hash,
                        s.tx_hash,
                    ),
                ).rowcount
                if added:
                    self._book(s.sender, day, s.cost_wei)
                    self._hold(nonce_row, held=False)
            self._db.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?)", (upto.number, upto.hash))
            self._db.execute(
                "DELETE FROM blocks WHERE number < ? AND number > (SELECT min(number) FROM blocks)",
                (upto.number - _BLOCKS_KEPT,),
            )
            if settlements:
                checkpoint("paymaster.settle.before")
        if settlements:
            checkpoint("paymaster.settle.after")

    def _hold(self, nonce_row: tuple[bytes, bytes, bytes], *, held: bool) -> None:
        """A nonce is used once: settling one intent frees every other promise for the same nonce, undoing holds them all again."""
        self._db.execute(
            "UPDATE reservations SET held = ? WHERE sender = ? AND nonce = ? AND entry_point = ?", (held, *nonce_row)
        )

    async def undo(self, above: int) -> list[Settlement]:
        return await self._run(self._undo, above)

    def _undo(self, above: int) -> list[Settlement]:
        with self._transaction():
            rows = self._db.execute("SELECT * FROM settlements WHERE block_number > ?", (above,)).fetchall()
            undone = [_settlement(row) for row in rows]
            for s in undone:
                self._book(s.sender, s.day, -s.cost_wei)
                self._hold(_nonce_row(s), held=True)
            self._db.execute("DELETE FROM settlements WHERE block_number > ?", (above,))
            self._db.execute("DELETE FROM blocks WHERE number > ?", (above,))
            checkpoint("paymaster.undo.before")
        checkpoint("paymaster.undo.after")
        return undone

    async def release(self, expired_before_s: int) -> int:
        return await self._run(self._release, expired_before_s)

    def _release(self, expired_before_s: int) -> int:
        with self._transaction():
            released = self._db.execute(
                "UPDATE reservations SET held = 0 WHERE held = 1 AND valid_until_s < ?", (expired_before_s,)
            ).rowcount
            if released:
                checkpoint("paymaster.release.before")
        if released:
            checkpoint("paymaster.release.after")
        return released

    async def blocks(self) -> list[Block]:
        rows = await self._run(self._all, "SELECT number, hash FROM blocks ORDER BY number DESC")
        return [Block(*row) for row in rows]

    async def totals(self) -> Totals:
        held = await self._run(self._all, "SELECT amount_wei FROM reservations WHERE held = 1")
        ((settled,),) = await self._run(self._all, "SELECT count(*) FROM settlements")
        spent = await self._run(self._spent, *_EVERYONE)
        return Totals(spent_wei=spent, held_wei=sum(int(wei) for (wei,) in held), held=len(held), settled=settled)

    def _all(self, query: str) -> list[Any]:
        return self._db.execute(query).fetchall()

    async def close(self) -> None:
        await self._run(self._db.close)
        self._worker.shutdown()


def _nonce_row(entry: Claim | Settlement) -> tuple[bytes, bytes, bytes]:
    return entry.sender, entry.nonce.to_bytes(32), entry.entry_point


def _settlement(row: Sequence[Any]) -> Settlement:
    user_op_hash, entry_point, sender, nonce, cost, day, success, number, block_hash, tx_hash = row
    return Settlement(
        user_op_hash=user_op_hash,
        entry_point=entry_point,
        sender=sender,
        nonce=int.from_bytes(nonce),
        cost_wei=int(cost),
        success=bool(success),
        block_number=number,
        block_hash=block_hash,
        tx_hash=tx_hash,
        day=day,
    )
