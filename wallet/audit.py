"""What the engine decided and attested, in the order in which it did: an append-only table in SQLite, chained by hash.

Each entry holds the hash of the one before it, so an entry that is changed, removed, put in between or moved breaks the chain. Everything
that is looked up (what is outstanding, what was spent, what was latched) is an index over the entries themselves: a lookup costs the same
after a hundred thousand entries as after ten. An entry is on the disk before what it says leaves the engine.

Beside the entries stand, by their hashes, the facts that decisions rested on and the policies that judged them; `wallet.replay` judges
again from those. Heads signed by the engine's key stand in the database and in `NAME.head` beside it; `wallet.audit_verify` says what
that proves and what not.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts.errors import BadInput, SetupError
from contracts.faults import checkpoint
from contracts.types import Address, Hash32, checksum, keccak, to_hex
from policies import Facts, Policy
from policies.canonical import FACTS_TAG, canonical_bytes, decimal_text, facts_hash

GENESIS: Hash32 = bytes(32)
DECISION, ATTESTATION = "decision", "attestation"

_SCHEMA = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, hash BLOB NOT NULL,
    account TEXT AS (json_extract(body, '$.account')) VIRTUAL,
    key TEXT AS (coalesce(json_extract(body, '$.id'), json_extract(body, '$.userOpHash'))) VIRTUAL,
    policy TEXT AS (json_extract(body, '$.policyId')) VIRTUAL,
    at_s INTEGER AS (json_extract(body, '$.at')) VIRTUAL,
    until_s INTEGER AS (json_extract(body, '$.validUntil')) VIRTUAL
) STRICT;
CREATE INDEX entries_by_key ON entries (key, seq);
CREATE INDEX entries_by_account ON entries (account, kind, policy, seq);
CREATE INDEX attestations_by_end ON entries (account, until_s) WHERE kind = 'attestation';
CREATE INDEX attestations_by_time ON entries (account, at_s) WHERE kind = 'attestation';
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TABLE facts (hash BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE policies (id BLOB PRIMARY KEY, schema INTEGER NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE probes (hash BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE heads (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, engine BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
CREATE TABLE equity (
    account TEXT NOT NULL, grain INTEGER NOT NULL, bucket INTEGER NOT NULL, points TEXT NOT NULL, PRIMARY KEY (account, grain, bucket)
) STRICT, WITHOUT ROWID;
CREATE TABLE records (account TEXT PRIMARY KEY, since_s INTEGER NOT NULL, block INTEGER NOT NULL, paid_in TEXT NOT NULL) STRICT;
"""
_VERSION = 1
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its place (from 1), kind (`decision`, `attestation`), body, and the hash that the next one builds on."""

    seq: int
    kind: str
    body: dict[str, Any]
    hash: Hash32


@dataclass(frozen=True, slots=True)
class Head:
    """The chain's last entry as the engine's key signed it: a log that was cut short or rewritten does not lead there any more."""

    seq: int
    hash: Hash32
    engine: Address
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "hash": to_hex(self.hash),
            "engine": checksum(self.engine),
            "signature": to_hex(self.signature),
        }


@dataclass(frozen=True, slots=True)
class Record:
    """From when on (unix s) all that an account did is on record, the last block that was looked at, and what had been paid in until then."""

    since_s: int
    block: int
    paid_in: Decimal


def head_digest(seq: int, entry_hash: Hash32) -> Hash32:
    """What the engine signs for a head: keccak256(keccak256("Seawall audit head") || uint64 seq || hash)."""
    return keccak(keccak(b"Seawall audit head") + seq.to_bytes(8) + entry_hash)


def entry_hash(seq: int, previous: Hash32, kind: str, body: str) -> Hash32:
    """keccak256(keccak256("Seawall audit entry") || uint64 seq || previous || keccak256(kind) || keccak256(body))."""
    tag = keccak(b"Seawall audit entry")
    return keccak(tag + seq.to_bytes(8) + previous + keccak(kind.encode()) + keccak(body.encode()))


class AuditLog:
    """One engine's log about one account or several. Several processes and threads may use the same file."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened or made before the first use."""
        self.path = path
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None

    def __del__(self) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------------------------------

    def append(
        self,
        kind: str,
        body: dict[str, Any] | Callable[[Transaction], dict[str, Any]],
        *,
        also: Callable[[Transaction, Entry], None] | None = None,
    ) -> Entry:
        """Add an entry and force it to the disk.

        A callable `body` sees the log as it stands under the write lock: nobody appends between what it reads and what it returns. When
        it raises, nothing is written. `also` writes what belongs to the entry, in the same transaction. Raises SetupError.
        """
        with self.transaction() as now:
            entry = now.append(kind, body(now) if callable(body) else body)
            if also is not None:
                also(now, entry)
            checkpoint("engine.record.commit")
        checkpoint("engine.record.after")
        return entry

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """The write lock of the file: all or nothing. Raises SetupError when the disk or another process does not let it."""
        with self._lock, self._errors():
            db = self._open(create=True)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(db)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def sign_head(self, sign: Callable[[Hash32], bytes], engine: Address) -> Head:
        """Sign the last entry, keep it in the database and in `NAME.head` beside it. Raises BadInput for an empty log."""
        with self.transaction() as now:
            seq, last = now.tip()
            if not seq:
                raise BadInput(f"the audit log {self.path} is empty: there is nothing to sign")
            head = Head(seq, last, engine, sign(head_digest(seq, last)))
            now.db.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?)", (seq, last, engine, head.signature))
            partial = self.head_path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
            with partial.open("w") as stream:
                stream.write(json.dumps(head.to_json()) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(self.head_path)
        return head

    @property
    def head_path(self) -> Path:
        return self.path.with_name(self.path.name + ".head")

    # -- reading ------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """One consistent view. Of a log that does not exist yet: an empty one, and no file is made."""
        with self._lock, self._errors():
            db = self._open(create=False)
            nested = db.in_transaction
            if not nested:
                db.execute("BEGIN")
            try:
                yield Transaction(db)
            finally:
                if not nested:
                    db.execute("COMMIT")

    def entries(self, after: int = 0, limit: int = -1) -> list[Entry]:
        """Entries behind `after`, oldest first, at most `limit` (-1: all). They are not verified here."""
        with self.reading() as now:
            rows = now.db.execute(
                "SELECT seq, kind, body, hash FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            )
            return [_entry(row) for row in rows]

    def tail(self, count: int) -> list[Entry]:
        """The last `count` entries, oldest first."""
        with self.reading() as now:
            rows = now.db.execute("SELECT seq, kind, body, hash FROM entries ORDER BY seq DESC LIMIT ?", (count,))
            return [_entry(row) for row in rows][::-1]

    def find(self, key: str) -> Entry | None:
        """The latest entry of a decision's id or an attestation's operation hash (0x hex), or of a place in the log (a number)."""
        with self.reading() as now:
            where = "seq = ?" if key.isdecimal() else "key = ?"
            row = now.db.execute(
                f"SELECT seq, kind, body, hash FROM entries WHERE {where} ORDER BY seq DESC LIMIT 1",  # noqa: S608
                (int(key) if key.isdecimal() else key.lower(),),
            ).fetchone()
            return None if row is None else _entry(row)

    def tip(self) -> tuple[int, Hash32]:
        """(place, hash) of the last entry; (0, GENESIS) when there is none."""
        with self.reading() as now:
            return now.tip()

    def facts(self, digest: Hash32) -> bytes | None:
        """The canonical bytes of facts by their hash, as they were recorded; None when they are not here. Raises SetupError if damaged."""
        with self.reading() as now:
            row = now.db.execute("SELECT data FROM facts WHERE hash = ?", (digest,)).fetchone()
        if row is None:
            return None
        data = self._unpacked(row[0], f"facts {to_hex(digest)}")
        if keccak(FACTS_TAG + data) != digest:
            raise SetupError(f"the recorded facts {to_hex(digest)} in {self.path} were changed")
        return data

    def probes(self, digest: Hash32) -> Any:
        """What was simulated in other sizes for a decision (`wallet.sizing`), by the hash its entry names; None when it is not here.
        Raises SetupError if damaged."""
        with self.reading() as now:
            row = now.db.execute("SELECT data FROM probes WHERE hash = ?", (digest,)).fetchone()
        if row is None:
            return None
        data = self._unpacked(row[0], f"simulations {to_hex(digest)}")
        if keccak(data) != digest:
            raise SetupError(f"the recorded simulations {to_hex(digest)} in {self.path} were changed")
        return json.loads(data)

    def policy(self, policy_id: Hash32) -> tuple[int, dict[str, Any]] | None:
        """(schema version, canonical document) of a policy by its id, None when it never judged here."""
        with self.reading() as now:
            row = now.db.execute("SELECT schema, document FROM policies WHERE id = ?", (policy_id,)).fetchone()
        return None if row is None else (row[0], json.loads(row[1]))

    def close(self) -> None:
        """Give the file back. The next use opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    # -- inside -------------------------------------------------------------------------------------------------------------------

    def _open(self, *, create: bool) -> sqlite3.Connection:
        if self._opened is not None:
            return self._opened
        if not create and not self.path.exists():
            empty = sqlite3.connect(":memory:", isolation_level=None)
            empty.executescript(_SCHEMA)
            return empty
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two processes that make the same file at once would meet in SQLite's switch to WAL, which does not wait.
        with self.path.with_name(self.path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._opened = self._made()
        return self._opened

    def _made(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.execute("BEGIN IMMEDIATE")
                for statement in _statements(_SCHEMA):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
                db.execute("COMMIT")
            elif version > _VERSION:
                raise SetupError(f"the audit log {self.path} was written by a newer Seawall (form {version})")
            os.chmod(self.path, 0o600)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SetupError(
                f"the audit log {self.path} cannot be used: {error}. Keep the file, restore a backup beside it"
            ) from error

    def _unpacked(self, data: bytes, what: str) -> bytes:
        try:
            return zlib.decompress(data)
        except zlib.error:
            raise SetupError(f"the recorded {what} in {self.path} cannot be read") from None


class Transaction:
    """The log under one lock: what is appended and what is looked up here happens at one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def tip(self) -> tuple[int, Hash32]:
        """(place, hash) of the last entry."""
        row = self.db.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, GENESIS) if row is None else (row[0], row[1])

    def append(self, kind: str, body: dict[str, Any]) -> Entry:
        seq, previous = self.tip()
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        digest = entry_hash(seq + 1, previous, kind, text)
        self.db.execute(
            "INSERT INTO entries (seq, kind, body, hash) VALUES (?, ?, ?, ?)", (seq + 1, kind, text, digest)
        )
        return Entry(seq + 1, kind, body, digest)

    def latest(self, account: Address, kind: str, policy: str) -> Entry | None:
        """The last entry of a kind about `account` under one policy (its id as hex)."""
        row = self.db.execute(
            "SELECT seq, kind, body, hash FROM entries WHERE account = ? AND kind = ? AND policy = ? ORDER BY seq DESC LIMIT 1",
            (checksum(account), kind, policy),
        ).fetchone()
        return None if row is None else _entry(row)

    def decision(self, key: str) -> Entry | None:
        """The entry of a decision's id."""
        row = self.db.execute(
            "SELECT seq, kind, body, hash FROM entries WHERE key = ? AND kind = 'decision' ORDER BY seq DESC LIMIT 1",
            (key,),
        ).fetchone()
        return None if row is None else _entry(row)

    def attestation(self, user_op_hash: Hash32) -> Entry | None:
        """The last attestation of an operation."""
        row = self.db.execute(
            "SELECT seq, kind, body, hash FROM entries WHERE key = ? AND kind = 'attestation' ORDER BY seq DESC LIMIT 1",
            (to_hex(user_op_hash),),
        ).fetchone()
        return None if row is None else _entry(row)

    def attestations_ending_after(self, account: Address, now_s: int) -> list[Entry]:
        """Attestations about `account` that are still valid at `now_s`."""
        rows = self.db.execute(
            "SELECT seq, kind, body, hash FROM entries WHERE kind = 'attestation' AND account = ? AND until_s > ? ORDER BY seq",
            (checksum(account), now_s),
        )
        return [_entry(row) for row in rows]

    def attestations_since(self, account: Address, since_s: int) -> list[Entry]:
        """Attestations about `account` given at `since_s` or later, oldest first."""
        rows = self.db.execute(
            "SELECT seq, kind, body, hash FROM entries WHERE kind = 'attestation' AND account = ? AND at_s >= ? ORDER BY seq",
            (checksum(account), since_s),
        )
        return [_entry(row) for row in rows]

    def record_of(self, account: Address) -> Record | None:
        """Where the record of `account` stands; None when there is none."""
        row = self.db.execute(
            "SELECT since_s, block, paid_in FROM records WHERE account = ?", (checksum(account),)
        ).fetchone()
        return None if row is None else Record(row[0], row[1], Decimal(row[2]))

    def advance_record(self, account: Address, since_s: int, block: int, paid_in: Decimal) -> None:
        """Begin the record, or say how far it has come; from when on it is complete was said first and stays."""
        self.db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET block = excluded.block, "
            "paid_in = excluded.paid_in WHERE excluded.block >= block",
            (checksum(account), since_s, block, decimal_text(paid_in)),
        )

    def keep_facts(self, facts: Facts) -> None:
        """Record facts under their hash; once."""
        digest = facts_hash(facts)
        if self.db.execute("SELECT 1 FROM facts WHERE hash = ?", (digest,)).fetchone() is None:
            self.db.execute("INSERT INTO facts VALUES (?, ?)", (digest, zlib.compress(canonical_bytes(facts), 1)))

    def keep_probes(self, probes: Any) -> Hash32:
        """Record what was simulated in other sizes for a decision. Returns the hash that the decision's entry must name."""
        data = json.dumps(probes, sort_keys=True, separators=(",", ":")).encode()
        digest = keccak(data)
        self.db.execute("INSERT OR IGNORE INTO probes VALUES (?, ?)", (digest, zlib.compress(data, 6)))
        return digest

    def keep_policy(self, policy: Policy) -> None:
        """Record a policy under its id; once."""
        if self.db.execute("SELECT 1 FROM policies WHERE id = ?", (policy.policy_id,)).fetchone() is None:
            document = canonical_bytes(policy.document).decode()
            self.db.execute(
                "INSERT INTO policies VALUES (?, ?, ?)", (policy.policy_id, policy.schema_version, document)
            )


def _entry(row: Sequence[Any]) -> Entry:
    seq, kind, body, digest = row
    return Entry(seq, kind, json.loads(body), digest)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: executescript would commit the transaction they belong to."""
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
