"""Which operations may be in two bundles at once: those that cannot change each other's validation. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bundler.mempool import Entry, Mempool
from contracts.entrypoint import EntryPoint
from contracts.types import Address, Wei
from contracts.userop import required_prefund


class UnderWay:
    """The operations of bundles that were sent and may still be mined, in any order."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._senders: set[Address] = set()
        self._contracts: set[Address] = set()
        self._touched: defaultdict[Address, set[Address]] = defaultdict(set)
        self._promised: Counter[tuple[EntryPoint, Address]] = Counter()
        for entry in entries:
            self._senders.add(entry.op.sender)
            self._contracts |= entry.contracts
            for entity in entry.staked:
                self._touched[entity] |= entry.contracts
            if entry.op.paymaster is not None:
                self._promised[entry.entry_point, entry.op.paymaster] += required_prefund(entry.op)

    def meets(self, entry: Entry) -> bool:
        """Whether one of these could make `entry` invalid, or the other way round: then it waits.

        They have a sender in common, validation of one touches the storage of the other's sender ([STO-041]), or a staked entity of
        both, which may keep state of its own ([STO-031], [STO-032]), touches a contract that both validations touch. What an unstaked
        entity touches is associated with the sender, and so nobody else's.
        """
        return (
            entry.op.sender in self._senders
            or entry.op.sender in self._contracts
            or not self._senders.isdisjoint(entry.contracts)
            or any(not self._touched[e].isdisjoint(entry.contracts) for e in entry.staked if e in self._touched)
        )

    def paymasters(self, entry_point: EntryPoint, entries: Iterable[Entry]) -> list[Address]:
        """Those of `entries` that pay for something under way, too; sorted."""
        named = {entry.op.paymaster for entry in entries if entry.op.paymaster is not None}
        return sorted(address for address in named if (entry_point, address) in self._promised)

    def affordable(
        self, entry_point: EntryPoint, entries: Sequence[Entry], deposits_wei: Mapping[Address, Wei], pool: Mempool
    ) -> list[Entry]:
        """`entries` without those, and what depends on them, that would overdraw a deposit in `deposits_wei`.

        Every operation counts with the most that it can cost, so a deposit that is enough here is enough in any order of the bundles.
        """
        left = {a: wei - self._promised[entry_point, a] for a, wei in deposits_wei.items()}
        kept: list[Entry] = []
        gone: set[bytes] = set()
        for entry in entries:
            paymaster, most_wei = entry.op.paymaster, required_prefund(entry.op)
            if entry.hash in gone:
                continue
            if paymaster in left and left[paymaster] < most_wei:
                gone.update(other.hash for other in pool.after(entry))
                continue
            if paymaster in left:
                left[paymaster] -= most_wei
            kept.append(entry)
        return kept
