"""What the keeper promised and what happened, in SQLite: every operation and transaction is recorded before it is sent.

WAL mode with full synchronisation: what was recorded survives `kill -9` and a power cut. One process per database (a lock file).
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import BadInput, SetupError
from contracts.faults import checkpoint
from contracts.types import Hash32, checksum, to_hex
from contracts.userop import UserOperation
from wallet.keeper.watch import Trigger

INTENDED, SENT, REJECTED, INCLUDED, REVERTED, SUPERSEDED = (
    "intended",
    "sent",
    "rejected",
    "included",
    "reverted",
    "superseded",
)
"""What became of an operation or transaction. The first three may still be included; the last three are final for its nonce."""
OPEN = (INTENDED, SENT, REJECTED)

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE operations (
    seq INTEGER PRIMARY KEY, op_hash BLOB NOT NULL UNIQUE, account BLOB NOT NULL, trigger_id TEXT NOT NULL, arming TEXT NOT NULL,
    op TEXT NOT NULL, state TEXT NOT NULL, recorded_block INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX operations_by_trigger ON operations (account, trigger_id, seq);
CREATE TABLE transactions (
    seq INTEGER PRIMARY KEY, tx_hash BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, account BLOB NOT NULL, trigger_id TEXT NOT NULL,
    arming TEXT NOT NULL, nonce INTEGER NOT NULL, max_fee_wei TEXT NOT NULL, priority_fee_wei TEXT NOT NULL, raw BLOB NOT NULL,
    state TEXT NOT NULL, recorded_block INTEGER NOT NULL
) STRICT;
CREATE INDEX transactions_by_trigger ON transactions (account, trigger_id, kind, seq);
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, account BLOB NOT NULL, trigger_id TEXT NOT NULL, arming TEXT NOT NULL, event TEXT NOT NULL,
    reference TEXT NOT NULL, block INTEGER NOT NULL, detail TEXT NOT NULL, UNIQUE (account, trigger_id, arming, event, reference)
) STRICT;
"""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed operation for a trigger. `reason` says why a bundler rejected it or why it reverted."""

    op_hash: Hash32
    trigger: Trigger
    arming: int
    op: UserOperation
    state: str
    recorded_block: int
    reason: str = ""

    @property
    def sequence(self) -> int:
        """The operation's place in the trigger's nonce lane."""
        return self.op.nonce & (2**64 - 1)


@dataclass(frozen=True, slots=True)
class PlainTransaction:
    """One signed transaction of the keeper's own account: `kind` is one of `wallet.keeper.transactions`; fees in wei per gas."""

    tx_hash: Hash32
    kind: str
    trigger: Trigger
    arming: int
    nonce: int
    max_fee_wei: int
    priority_fee_wei: int
    raw: bytes
    state: str
    recorded_block: int


class Store:
    """The keeper's database."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises SetupError if it cannot be opened or another keeper has it."""
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(f"the keeper's database {path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SetupError(f"another keeper uses {path}: give each its own --db") from None
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise SetupError(f"{path} has schema {version}, this seawall reads {_VERSION}: give another --db")
        except sqlite3.Error as error:
            os.close(self._lock)
            raise SetupError(f"the keeper's database {path} cannot be used: {error}") from None

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def bind(self, chain_id: int, genesis: Hash32, keeper: bytes) -> None:
        """Tie a new database to one chain and key. Raises BadInput if it belongs to another."""
        identity = f"chain {chain_id}, genesis {to_hex(genesis)}, key {checksum(keeper)}"
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (identity,))
        (found,) = self._db.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        if found != identity:
            raise BadInput(f"{self.path} belongs to {found}; this is {identity}: give another --db")

    # -- heads --------------------------------------------------------------------------------------------------------

    @property
    def head(self) -> int | None:
        """The last head on which everything due was dealt with."""
        row = self._db.execute("SELECT value FROM meta WHERE name = 'head'").fetchone()
        return int(row[0]) if row else None

    def set_head(self, number: int) -> None:
        checkpoint("keeper.head.before")
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('head', ?)", (str(number),))
        checkpoint("keeper.head.after")

    # -- operations -----------------------------------------------------------------------------------------------------

    def record(self, attempt: Attempt) -> None:
        """Promise an operation, before it is sent. It supersedes what is open for its trigger (same lane, so same nonce).

        After a reorganisation the very same operation can be needed again: it then becomes the newest once more.
        """
        checkpoint("keeper.record.before")
        with self._writing():
            self._db.execute(
                "UPDATE operations SET state = ? WHERE account = ? AND trigger_id = ? AND state IN (?, ?, ?)",
                (SUPERSEDED, attempt.trigger.account, str(attempt.trigger.id), *OPEN),
            )
            self._db.execute(
                "INSERT OR REPLACE INTO operations (op_hash, account, trigger_id, arming, op, state, recorded_block, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    attempt.op_hash,
                    attempt.trigger.account,
                    str(attempt.trigger.id),
                    str(attempt.arming),
                    json.dumps(attempt.op.to_rpc()),
                    attempt.state,
                    attempt.recorded_block,
                    attempt.reason,
                ),
            )
        checkpoint("keeper.record.after")

    def mark(self, op_hash: Hash32, state: str, reason: str = "") -> None:
        """Note what a bundler answered to an operation."""
        checkpoint("keeper.sent.before")
        self._db.execute("UPDATE operations SET state = ?, reason = ? WHERE op_hash = ?", (state, reason, op_hash))
        checkpoint("keeper.sent.after")

    def latest(self, trigger: Trigger) -> Attempt | None:
        """The newest operation of a trigger, whatever became of it."""
        row = self._db.execute(
            _SELECT_ATTEMPT + " WHERE account = ? AND trigger_id = ? ORDER BY seq DESC LIMIT 1",
            (trigger.account, str(trigger.id)),
        ).fetchone()
        return _attempt(row) if row else None

    def at_nonce(self, trigger: Trigger, nonce: int) -> list[Attempt]:
        """Every operation of a trigger with this nonce: the one that counts and those it replaced."""
        rows = self._db.execute(
            _SELECT_ATTEMPT + " WHERE account = ? AND trigger_id = ? ORDER BY seq",
            (trigger.account, str(trigger.id)),
        )
        return [attempt for attempt in map(_attempt, rows) if attempt.op.nonce == nonce]

    def open_attempts(self) -> list[Attempt]:
        """Operations that may still be included."""
        rows = self._db.execute(_SELECT_ATTEMPT + " WHERE state IN (?, ?, ?) ORDER BY seq", OPEN)
        return [_attempt(row) for row in rows]

    def reverts(self, trigger: Trigger, arming: int) -> list[int]:
        """The blocks at which operations of this arming were recorded that then reverted on chain."""
        rows = self._db.execute(
            "SELECT recorded_block FROM operations WHERE account = ? AND trigger_id = ? AND arming = ? AND state = ? ORDER BY seq",
            (trigger.account, str(trigger.id), str(arming), REVERTED),
        )
        return [block for (block,) in rows]

    def settle(self, outcomes: Mapping[Hash32, tuple[str, str]], rows: list[AuditRow]) -> list[AuditRow]:
        """Write what the chain did with a nonce, (state, reason) by operation hash, and its audit rows, at once.

        Returns the rows that were not there before.
        """
        checkpoint("keeper.settle.before")
        with self._writing():
            for op_hash, (state, reason) in outcomes.items():
                self._db.execute(
                    "UPDATE operations SET state = ?, reason = ? WHERE op_hash = ?", (state, reason, op_hash)
                )
            new = [row for row in rows if self.audit(row)]
        checkpoint("keeper.settle.after")
        return new

    # -- plain transactions -----------------------------------------------------------------------------------------------

    def record_transaction(self, tx: PlainTransaction) -> None:
        """Promise a transaction, before it is sent. It supersedes open ones with its nonce."""
        checkpoint("keeper.transaction.record.before")
        with self._writing():
            self._db.execute(
                "UPDATE transactions SET state = ? WHERE nonce = ? AND state IN (?, ?, ?)",
                (SUPERSEDED, tx.nonce, *OPEN),
            )
            self._db.execute(
                "INSERT OR REPLACE INTO transactions (tx_hash, kind, account, trigger_id, arming, nonce, max_fee_wei, priority_fee_wei, raw,"
                " state, recorded_block) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    tx.tx_hash,
                    tx.kind,
                    tx.trigger.account,
                    str(tx.trigger.id),
                    str(tx.arming),
                    tx.nonce,
                    str(tx.max_fee_wei),
                    str(tx.priority_fee_wei),
                    tx.raw,
                    tx.state,
                    tx.recorded_block,
                ),
            )
        checkpoint("keeper.transaction.record.after")

    def mark_transaction(self, tx_hash: Hash32, state: str) -> None:
        self._db.execute("UPDATE transactions SET state = ? WHERE tx_hash = ?", (state, tx_hash))

    def latest_transaction(self, kind: str, trigger: Trigger, arming: int) -> PlainTransaction | None:
        """The newest transaction of this kind for an arming."""
        row = self._db.execute(
            _SELECT_TRANSACTION + " WHERE kind = ? AND account = ? AND trigger_id = ? AND arming = ?"
            " ORDER BY seq DESC LIMIT 1",
            (kind, trigger.account, str(trigger.id), str(arming)),
        ).fetchone()
        return _transaction(row) if row else None

    def open_transactions(self) -> list[PlainTransaction]:
        """Transactions that may still be included, by nonce."""
        rows = self._db.execute(_SELECT_TRANSACTION + " WHERE state IN (?, ?, ?) ORDER BY nonce, seq", OPEN)
        return [_transaction(row) for row in rows]

    # -- audit --------------------------------------------------------------------------------------------------------------

    def audit(self, row: AuditRow) -> bool:
        """Write an audit row once; False if it was there."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO audit (account, trigger_id, arming, event, reference, block, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                row.trigger.account,
                str(row.trigger.id),
                str(row.arming),
                row.event,
                row.reference,
                row.block,
                json.dumps(row.detail, sort_keys=True),
            ),
        )
        return cursor.rowcount == 1

    def audited(self, event: str, trigger: Trigger | None = None) -> list[AuditRow]:
        """Audit rows of one kind, oldest first, of one trigger or of all."""
        rows = self._db.execute(
            "SELECT account, trigger_id, arming, event, reference, block, detail FROM audit WHERE event = ? ORDER BY seq",
            (event,),
        )
        found = [AuditRow(Trigger(a, int(i)), int(n), e, r, b, json.loads(d)) for a, i, n, e, r, b, d in rows]
        return [row for row in found if trigger is None or row.trigger == trigger]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One fact about an arming: `due`, `blocked`, `rejected`, `reverted`, `executed`, `fired`, ... `reference` makes it unique."""

    trigger: Trigger
    arming: int
    event: str
    reference: str
    block: int
    detail: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "account": checksum(self.trigger.account),
            "id": str(self.trigger.id),
            "arming": self.arming,
            "event": self.event,
            "block": self.block,
            **self.detail,
        }


_SELECT_ATTEMPT = "SELECT op_hash, account, trigger_id, arming, op, state, recorded_block, reason FROM operations"
_SELECT_TRANSACTION = (
    "SELECT tx_hash, kind, account, trigger_id, arming, nonce, max_fee_wei, priority_fee_wei, raw, state, recorded_block"
    " FROM transactions"
)


def _attempt(row: tuple[Any, ...]) -> Attempt:
    op_hash, account, trigger_id, arming, op, state, block, reason = row
    return Attempt(
        op_hash,
        Trigger(account, int(trigger_id)),
        int(arming),
        UserOperation.from_rpc(json.loads(op)),
        state,
        block,
        reason,
    )


def _transaction(row: tuple[Any, ...]) -> PlainTransaction:
    tx_hash, kind, account, trigger_id, arming, nonce, max_fee, priority_fee, raw, state, block = row
    return PlainTransaction(
        tx_hash,
        kind,
        Trigger(account, int(trigger_id)),
        int(arming),
        nonce,
        int(max_fee),
        int(priority_fee),
        raw,
        state,
        block,
    )
