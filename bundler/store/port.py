"""The Store port: what is durable, and what several processes on one database decide together.

Authority is the database; the pool, the bundles under way and the reputations in a process's memory are its view of it. A write is
decided when the view is current and nobody else can write: the deciding function runs then, without a pause, and may refuse. With one
process (SQLite) that is always so; with several (PostgreSQL) the store first has the view learn what others wrote (`News`).

Who may do what, when there are several processes: each executor, and the office of steward, is leased by exactly one. The holder of an
executor's lease claims operations for it, records its transactions and what becomes of them. The steward does what needs doing once: it
notices strangers' bundles, lets operations expire, keeps the pool's bounds, decays reputations, and watches transactions whose key
nobody alive has. A write of somebody who holds the lease no more is refused (`Overtaken`): the fence is in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bundler.mempool import Entry
from bundler.reputation import Change, Counts
from contracts.errors import SetupError
from contracts.types import Address, Hash32, Wei

STEWARD: Address = b""
"""The lease of the steward, among those of executors: strangers' transactions, which have no executor, are its own."""


class Overtaken(SetupError):
    """Another process wrote first, or holds the lease now: nothing was written, look again."""


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
    claimed_by: Address | None = None
    """The executor whose holder builds a bundle with it, or whose bundle holds it."""

    @property
    def overtaken(self) -> bool:
        """Whether it is dropped because a stranger's bundle, in `inclusion`, has used its nonce."""
        return self.status is OpStatus.DROPPED and self.inclusion is not None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of an executor: a bundle, a resubmission of it, or a cancellation (no operations).

    Also a stranger's transaction that carries operations of ours, or has used their nonces: executor and raw are empty then.
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
        return cls(tx_hash, STEWARD, -1, entry_point, b"", op_hashes, 0, 0, 0)


Changes = Sequence[Change]
"""New counts of entities, and how they differ from what was stored before."""
LiveAttempts = tuple[list[Attempt], list[tuple[Attempt, Inclusion]]]
"""In-flight attempts by nonce and age, and those in blocks that are not final yet."""
Held = Mapping[Address, int]
"""Leases by name, with the token of each: it grows whenever a lease changes hands."""


@dataclass(frozen=True, slots=True)
class Admission:
    """An operation that comes in, what it replaces, the reputations that change by it."""

    entry: Entry
    replaces: Hash32 | None = None
    counts: Changes = ()


@dataclass(frozen=True, slots=True)
class News:
    """What other processes wrote since the last time: rows as they are now, not steps. Learning one twice changes nothing."""

    operations: Sequence[OperationRecord] = ()
    attempts: Sequence[tuple[Attempt, TxStatus, Inclusion | None]] = ()
    counts: Mapping[Address, Counts] = field(default_factory=dict)
    cleared: bool = False
    """Everything known before is void (`Store.clear`)."""


class Store(Protocol):
    """Durable state. A method has returned only when a crash cannot undo what it did; each is one transaction.

    Raises SetupError when the database does not take or answer it, Overtaken when another process decided otherwise.
    """

    @property
    def lease_s(self) -> float | None:
        """How long a lease holds without being renewed; None where there is only one process."""

    def follow(self, learn: Callable[[News], None], wake: Callable[[], None]) -> None:
        """Whom to tell what other processes wrote (at `refresh`, and before a write is decided), and that they wrote."""

    async def bind(self, chain_id: int) -> None:
        """Say which chain this database is of, once for all. Raises SetupError if it is another's.

        On another chain every transaction would look lost and every operation invalid, and would be dropped.
        """

    async def refresh(self) -> None:
        """Have the view learn what others wrote before this call."""

    async def renew(self, keys: Sequence[Address], most: int) -> Held:
        """Keep the leases that are held, and take what is free of `keys` (at most so many; 0: all) and of the steward's office.

        What a lease's last holder had claimed waits again for everybody.
        """

    async def take_up(self, held: Held) -> LiveAttempts:
        """From here on write as the holder of these leases. Returns their live attempts, which nobody else can change now.

        Those of other processes are told as news.
        """

    async def admit(self, decide: Callable[[], Admission]) -> None:
        """A new waiting operation; the one it replaces is dropped. Raises what `decide` raises, and writes nothing then."""

    async def drop_operations(
        self, reasons: Sequence[tuple[Hash32, str]], counts: Changes = (), by: Address | None = None
    ) -> list[Hash32]:
        """These will not be tried again. Returns those that still could be dropped.

        `by` is the lease on which that was found (None: somebody asked for it): not what another executor's holder has claimed.
        """

    async def claim(self, executor: Address, decide: Callable[[], Sequence[Hash32]]) -> None:
        """Exactly these waiting operations are kept from other builders, until `add_attempt` or the next claim of the executor."""

    async def add_attempt(self, attempt: Attempt) -> None:
        """A signed transaction, before it is sent: its operations are BUNDLED, what was only claimed waits again."""

    async def include(
        self,
        attempt: Attempt,
        inclusion: Inclusion,
        included: Sequence[Hash32],
        released: Sequence[Hash32],
        counts: Changes = (),
    ) -> None:
        """A transaction is in a block, ours or a stranger's. Other attempts of its nonce are LOST, `released` wait again.

        Without `included` (a reverted bundle, a cancellation) it is history at once. A stranger's may be known: it carries
        `attempt.op_hashes` then.
        """

    async def overtake(
        self, attempt: Attempt, inclusion: Inclusion, reasons: Sequence[tuple[Hash32, str]], counts: Changes = ()
    ) -> None:
        """A stranger's transaction is in a block and has used the nonces of these: DROPPED, until a reorganisation (`reopen`).

        Otherwise like `include`.
        """

    async def lose(self, executor: Address, tx_hashes: Sequence[Hash32], released: Sequence[Hash32]) -> None:
        """These attempts can never be mined; `released` wait again."""

    async def reopen(self, attempt: Attempt, counts: Changes = ()) -> None:
        """A reorganisation took the transaction out of the chain: ours is IN_FLIGHT again, a stranger's operations wait."""

    async def finalise(self, tx_hashes: Sequence[Hash32]) -> None:
        """These are deep enough."""

    async def operation(self, op_hash: Hash32) -> OperationRecord | None:
        """What is known of an operation."""

    async def live_operations(self) -> list[OperationRecord]:
        """RECEIVED and BUNDLED, in order of arrival."""

    async def clear(self) -> None:
        """Forget every operation and bundle that is not history. For tests (`debug_bundler_clearState`)."""

    async def save_reputation(self, changed: Changes, decayed_s: float | None) -> None:
        """New counts of some entities, and when all were last decayed (Unix s; None: that is not this process's to say)."""

    async def reputation(self) -> tuple[dict[Address, Counts], float | None]:
        """All counts, and when they were last decayed; None if never saved."""

    async def close(self) -> None:
        """Finish what is queued and give everything back."""
