"""Operations that wait, in memory; `store` has the same on disk. No I/O here.

What happens to one operation costs the same however many there are (a heap's logarithm aside). The heaps keep what was pushed until it comes to
the top, is then found gone or pushed anew, and is dropped; they are made anew when most of them is such.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from bundler.gas import op_tokens
from contracts.eip7702 import Authorization
from contracts.entrypoint import EntryPoint
from contracts.types import Address, Hash32, Wei
from contracts.userop import Candidate, UserOperation, required_prefund

FOREVER = 2**48 - 1
OVERHEAD_BYTES = 1_500
"""What an operation costs in memory beside its own data: measured by benchmarks/bundler/pool.py, rounded up."""
_SLACK = 64
_REMEMBERED = 4_096
_Key = TypeVar("_Key", bound=Hashable)


def _subtract(counter: Counter[_Key], key: _Key, amount: int) -> None:
    """Take `amount` off and forget the key at zero."""
    counter[key] -= amount
    if not counter[key]:
        del counter[key]


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted operation. Times in seconds of Unix time, the chain's for the validity window; on entry point v0.9 account and paymaster
    may ask for a range of blocks as well."""

    hash: Hash32
    op: UserOperation
    entry_point: EntryPoint
    received_s: float
    received_block: int
    valid_after_s: int = 0
    valid_until_s: int = FOREVER
    valid_after_block: int = 0
    valid_until_block: int = FOREVER
    authorization: Authorization | None = None
    """EIP-7702, beside the operation."""
    staked: frozenset[Address] = frozenset()
    """Its entities that were staked when it was validated."""
    code_hashes: tuple[tuple[Address, Hash32], ...] = ()
    """[COD-010]: what its validation used, as it was."""
    contracts: frozenset[Address] = frozenset()
    """[STO-041]: whose storage its validation touches, the sender aside."""
    validated_at: Hash32 = b""
    """Block on which it was validated last; empty after a restart."""

    @property
    def candidate(self) -> Candidate:
        """For simulation."""
        return Candidate(self.op, self.authorization)

    @property
    def creates(self) -> bool:
        """Whether the sender's other operations need it first: it deploys the sender or makes it delegate."""
        return self.op.factory is not None or self.authorization is not None

    @property
    def counted(self) -> frozenset[Address]:
        """Entities with a reputation: the staked ones, and a paymaster in any case."""
        return self.staked | ({self.op.paymaster} if self.op.paymaster is not None else set())

    @property
    def size_bytes(self) -> int:
        """What it takes of the pool's memory."""
        op = self.op
        variable = (op.call_data, op.signature, op.factory_data, op.paymaster_data, op.paymaster_signature)
        own = sum(map(len, variable))
        return OVERHEAD_BYTES + own + 32 * len(self.code_hashes) + 64 * len(self.contracts)

    @property
    def bid(self) -> tuple[Wei, Wei]:
        """What it pays a gas at most, the tip first: by this operations keep their place in a full pool."""
        return self.op.max_priority_fee_per_gas, self.op.max_fee_per_gas

    @property
    def slot(self) -> tuple[Address, Address, int]:
        """What only one operation may occupy: entry point, sender, nonce."""
        return self.entry_point.address, self.op.sender, self.op.nonce


class Mempool:
    """Accepted operations that are in no final block: waiting ones and those of bundles under way."""

    def __init__(self) -> None:
        self._entries: dict[Hash32, Entry] = {}
        self._slots: dict[tuple[Address, Address, int], Hash32] = {}
        self._senders: defaultdict[Address, set[Hash32]] = defaultdict(set)
        self._factories: Counter[Address] = Counter()
        self._counted: Counter[Address] = Counter()
        self._paymasters: Counter[Address] = Counter()
        self._promised: Counter[tuple[Address, Address]] = Counter()
        self._in_flight: set[Hash32] = set()
        self._settled: dict[tuple[Address, Address, int], Hash32] = {}
        self._best: defaultdict[Address, list[tuple[Wei, float, Hash32]]] = defaultdict(list)
        """By entry point, the highest tip first: (-tip, received_s, hash)."""
        self._least: list[tuple[Wei, Wei, float, Hash32]] = []
        """The lowest bid first, of equal ones the youngest."""
        self._ending: list[tuple[int, Hash32]] = []
        """By the time at which their validity ends, those that have one."""
        self._ending_block: list[tuple[int, Hash32]] = []
        """By the last block in which they are valid."""
        self._reserved: set[Hash32] = set()
        self._kept: set[Hash32] = set()
        """Those that another process builds a bundle with."""
        self._left: dict[Hash32, Address] = {}
        """Senders of operations that left lately, the oldest first."""
        self.size_bytes = 0
        self._tokens: dict[Hash32, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, op_hash: Hash32) -> bool:
        return op_hash in self._entries

    def get(self, op_hash: Hash32) -> Entry | None:
        return self._entries.get(op_hash)

    def at(self, entry_point: Address, sender: Address, nonce: int) -> Entry | None:
        """The operation that occupies this nonce."""
        op_hash = self._slots.get((entry_point, sender, nonce))
        return None if op_hash is None else self._entries[op_hash]

    def add(self, entry: Entry) -> None:
        """The nonce must be free: remove what is replaced first."""
        assert entry.slot not in self._slots
        self._entries[entry.hash] = entry
        self._slots[entry.slot] = entry.hash
        self._senders[entry.op.sender].add(entry.hash)
        self._counted.update(entry.counted)
        if entry.op.real_factory is not None:
            self._factories[entry.op.real_factory] += 1
        if entry.op.paymaster is not None:
            self._paymasters[entry.op.paymaster] += 1
            self._promised[entry.entry_point.address, entry.op.paymaster] += required_prefund(entry.op)
        self.size_bytes += entry.size_bytes
        self._push(entry)
        if entry.valid_until_s != FOREVER:
            heapq.heappush(self._ending, (entry.valid_until_s, entry.hash))
        if entry.valid_until_block != FOREVER:
            heapq.heappush(self._ending_block, (entry.valid_until_block, entry.hash))

    def _push(self, entry: Entry) -> None:
        """Have it found by `best_first` and `lowest` again."""
        best, least, live = self._best[entry.entry_point.address], self._least, len(self._entries)
        if max(len(best), len(least)) > 2 * live + _SLACK:
            self._best.clear()
            self._least.clear()
            for other in self._entries.values():
                self._best[other.entry_point.address].append((-other.bid[0], other.received_s, other.hash))
                self._least.append((*other.bid, -other.received_s, other.hash))
            for heap in self._best.values():
                heapq.heapify(heap)
            heapq.heapify(self._least)
            return
        heapq.heappush(best, (-entry.bid[0], entry.received_s, entry.hash))
        heapq.heappush(least, (*entry.bid, -entry.received_s, entry.hash))

    def best_first(self, entry_point: Address) -> Generator[Entry, None, None]:
        """Waiting operations of one entry point, the highest tip first, of equal ones the oldest. Close it when done; the pool must not
        change meanwhile."""
        heap, passed, seen = self._best[entry_point], list[tuple[Wei, float, Hash32]](), set[Hash32]()
        try:
            while heap:
                item = heapq.heappop(heap)
                entry = self._entries.get(item[2])
                if entry is None or item[2] in self._in_flight or item[2] in seen:
                    continue  # gone, pushed again when it lands, or pushed twice
                seen.add(item[2])
                passed.append(item)
                yield entry
        finally:
            for item in passed:
                heapq.heappush(heap, item)

    def tokens(self, entry: Entry) -> int:
        """Calldata tokens of one of its operations in a bundle, worked out once."""
        found = self._tokens.get(entry.hash)
        if found is None:
            found = self._tokens[entry.hash] = op_tokens(entry.op)
        return found

    def lowest(self) -> Entry | None:
        """The waiting operation with the lowest bid; of equal ones the youngest."""
        while self._least:
            op_hash = self._least[0][3]
            entry = self._entries.get(op_hash)
            if entry is not None and op_hash not in self._in_flight:
                return entry
            heapq.heappop(self._least)  # pushed again when it lands
        return None

    def excess(self, most: int, most_bytes: int) -> tuple[int, int]:
        """Operations and bytes beyond these bounds, without those that are not acknowledged yet."""
        coming = [self._entries[op_hash].size_bytes for op_hash in self._reserved]
        return len(self) - len(coming) - most, self.size_bytes - sum(coming) - most_bytes

    def ended(self, time_s: int, block: int) -> list[Entry]:
        """Operations that no block after `block` may hold, or whose validity ended before `time_s`; those under way included."""
        passed = [*self._passed(self._ending_block, block + 1), *self._passed(self._ending, time_s)]
        return list({entry.hash: entry for entry in passed}.values())

    def _passed(self, heap: list[tuple[int, Hash32]], bound: int) -> list[Entry]:
        """Those that end before `bound`, which stay in the heap; what is gone from the pool leaves it."""
        found, kept = [], []
        while heap and heap[0][0] < bound:
            item = heapq.heappop(heap)
            entry = self._entries.get(item[1])
            if entry is not None:
                found.append(entry)
                kept.append(item)
        for item in kept:
            heapq.heappush(heap, item)
        return found

    def reserve(self, entry: Entry) -> None:
        """Add an operation that is not on disk yet: it holds its nonce, but no bundle may take it until `land`."""
        self.add(entry)
        self._in_flight.add(entry.hash)
        self._reserved.add(entry.hash)

    def remove(self, op_hash: Hash32) -> Entry | None:
        """Take an operation out; None if it is not there."""
        entry = self._entries.pop(op_hash, None)
        if entry is None:
            return None
        self.size_bytes -= entry.size_bytes
        self._tokens.pop(op_hash, None)
        self._kept.discard(op_hash)
        self._left[op_hash] = entry.op.sender
        if len(self._left) > _REMEMBERED:
            del self._left[next(iter(self._left))]
        del self._slots[entry.slot]
        self._in_flight.discard(op_hash)
        self._reserved.discard(op_hash)
        self._senders[entry.op.sender].discard(op_hash)
        if not self._senders[entry.op.sender]:
            del self._senders[entry.op.sender]
        for address in entry.counted:
            _subtract(self._counted, address, 1)
        if entry.op.real_factory is not None:
            _subtract(self._factories, entry.op.real_factory, 1)
        if entry.op.paymaster is not None:
            _subtract(self._paymasters, entry.op.paymaster, 1)
            _subtract(self._promised, (entry.entry_point.address, entry.op.paymaster), required_prefund(entry.op))
        return entry

    def launch(self, hashes: Iterable[Hash32]) -> None:
        """These are in a bundle under way now."""
        self._in_flight.update(h for h in hashes if h in self._entries)

    def land(self, hashes: Iterable[Hash32]) -> None:
        """These wait again."""
        for op_hash in hashes:
            if op_hash in self._in_flight:
                self._in_flight.discard(op_hash)
                self._reserved.discard(op_hash)
                self._push(self._entries[op_hash])

    def keep_off(self, op_hash: Hash32, taken: bool) -> None:
        """Whether another process builds a bundle with this operation: then no bundle of ours takes it. It may still be replaced."""
        if taken and op_hash in self._entries:
            self._kept.add(op_hash)
        else:
            self._kept.discard(op_hash)

    def is_kept(self, op_hash: Hash32) -> bool:
        return op_hash in self._kept

    def taken(self) -> list[Entry]:
        """Operations of bundles that were sent, or that other processes build."""
        hashes = (self._in_flight - self._reserved) | self._kept
        return [self._entries[op_hash] for op_hash in hashes if op_hash in self._entries]

    @property
    def kept(self) -> frozenset[Hash32]:
        """Operations that other processes build bundles with."""
        return frozenset(self._kept)

    def sender_of(self, op_hash: Hash32) -> Address | None:
        """Of an operation that is in the pool, or left it lately."""
        entry = self._entries.get(op_hash)
        return self._left.get(op_hash) if entry is None else entry.op.sender

    def settle(self, entry: Entry) -> None:
        """It is in a block that is not final: it has left the pool, but its nonce is nobody else's yet.

        After a reorganisation the same bundle comes back, and with it this operation.
        """
        self._settled[entry.slot] = entry.hash

    def forget(self, entry: Entry) -> None:
        """Its block is final, or gone."""
        if self._settled.get(entry.slot) == entry.hash:
            del self._settled[entry.slot]

    def settled_at(self, entry_point: Address, sender: Address, nonce: int) -> Hash32 | None:
        """The operation that used this nonce in a block that is not final."""
        return self._settled.get((entry_point, sender, nonce))

    def settled_of(self, sender: Address) -> set[Hash32]:
        """The sender's operations in blocks that are not final."""
        return {op_hash for slot, op_hash in self._settled.items() if slot[1] == sender}

    def is_in_flight(self, op_hash: Hash32) -> bool:
        return op_hash in self._in_flight

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def has_waiting(self) -> bool:
        """Whether some operation is in no bundle."""
        return len(self._entries) > len(self._in_flight)

    def waiting(self) -> Iterator[Entry]:
        """In order of arrival, those in no bundle."""
        return (entry for op_hash, entry in self._entries.items() if op_hash not in self._in_flight)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def of_sender(self, sender: Address) -> list[Entry]:
        """The sender's operations by nonce."""
        return sorted((self._entries[h] for h in self._senders.get(sender, ())), key=lambda entry: entry.op.nonce)

    def before(self, op: UserOperation, entry_point: EntryPoint) -> list[Entry]:
        """What has to run before `op` can: earlier nonces of its key, and the operation that deploys its sender."""
        return [
            entry
            for entry in self.of_sender(op.sender)
            if entry.entry_point is entry_point
            and (
                (entry.op.nonce_key == op.nonce_key and entry.op.nonce < op.nonce)
                or (entry.creates and op.factory is None and entry.op.nonce != op.nonce)
            )
        ]

    def after(self, entry: Entry) -> list[Entry]:
        """What cannot run before `entry` has."""
        return [other for other in self.of_sender(entry.op.sender) if entry in self.before(other.op, other.entry_point)]

    def replace(self, entry: Entry) -> None:
        """Put what a later validation found in place of what is known; a no-op when the operation is gone."""
        old = self._entries.get(entry.hash)
        if old is not None:
            for address in old.counted:
                _subtract(self._counted, address, 1)
            self._counted.update(entry.counted)
            self.size_bytes += entry.size_bytes - old.size_bytes
            self._entries[entry.hash] = entry

    def count_of(self, address: Address) -> int:
        """Pending operations that count for this entity's reputation."""
        return self._counted[address]

    def referring_to(self, address: Address) -> list[Entry]:
        """Pending operations of which the address is an entity."""
        return [e for e in self if address in (e.op.sender, e.op.real_factory, e.op.paymaster)]

    def delegate_of(self, sender: Address) -> Address | None:
        """[AUTH-040]: to whom the sender's pending authorisations delegate; None without any."""
        found = (e.authorization.delegate for e in self.of_sender(sender) if e.authorization is not None)
        return next(found, None)

    def is_sender(self, address: Address) -> bool:
        return address in self._senders

    def is_entity(self, address: Address) -> bool:
        """Whether some operation uses the address as factory or paymaster."""
        return address in self._factories or address in self._paymasters

    def promised(self, entry_point: EntryPoint, paymaster: Address) -> Wei:
        """The most that the pool's operations can take from the paymaster's deposit."""
        return self._promised[entry_point.address, paymaster]
