"""How often an entity's operations were seen and how often they were included, and what it may do for it.   Source: ERC-7562.

Pure: the clock is the caller's, the store keeps what `changed` says: in the transaction that records what was counted, so that
no crash parts the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from contracts.errors import Throttled
from contracts.types import Address, checksum

MIN_INCLUSION_RATE_DENOMINATOR = 10
THROTTLING_SLACK = 10
BAN_SLACK = 50
BAN_OPS_SEEN_PENALTY = 10_000
SAME_UNSTAKED_ENTITY_MEMPOOL_COUNT = 10
MAX_OPS_ALLOWED_UNSTAKED_ENTITY = 10_000
THROTTLED_ENTITY_MEMPOOL_COUNT = 4
THROTTLED_ENTITY_LIVE_BLOCKS = 10
THROTTLED_ENTITY_BUNDLE_COUNT = 4
DECAY_PERIOD_S = 3_600


class Standing(IntEnum):
    """What an entity may do. Values as `debug_bundler_dumpReputation` has them."""

    OK = 0
    THROTTLED = 1
    BANNED = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Operations referring to an entity: `seen` valid ones that came in, `included` of them on chain."""

    seen: int = 0
    included: int = 0

    @property
    def standing(self) -> Standing:
        """max_seen = seen // 10; BANNED when max_seen > included + 50, THROTTLED when max_seen > included + 10."""
        max_seen = self.seen // MIN_INCLUSION_RATE_DENOMINATOR
        if max_seen > self.included + BAN_SLACK:
            return Standing.BANNED
        return Standing.THROTTLED if max_seen > self.included + THROTTLING_SLACK else Standing.OK

    @property
    def allowed_unstaked(self) -> int:
        """[UREP-020]: 10 + inclusion rate x min(included, 10000), rounded down."""
        if not self.seen:
            return SAME_UNSTAKED_ENTITY_MEMPOOL_COUNT
        earned = min(self.included, self.seen) * min(self.included, MAX_OPS_ALLOWED_UNSTAKED_ENTITY) // self.seen
        return SAME_UNSTAKED_ENTITY_MEMPOOL_COUNT + earned


@dataclass(frozen=True, slots=True)
class Change:
    """An entity's counts as they are now (None: nothing is left), and how they differ from what the last `changed` gave.

    Several processes count the same entities: differences add up where figures would overwrite each other.
    """

    address: Address
    counts: Counts | None
    seen: int = 0
    included: int = 0


class Reputation:
    """The counts of every entity that has any. `allowed` are never throttled or banned, `denied` always are."""

    def __init__(self, now_s: float, allowed: Iterable[Address] = (), denied: Iterable[Address] = ()) -> None:
        self._counts: dict[Address, Counts] = {}
        self._decayed_s = now_s
        self._allowed = frozenset(allowed)
        self._denied = frozenset(denied)
        self._changed: dict[Address, tuple[int, int]] = {}
        """By entity whose counts are not stored yet: by how much seen and included differ from what is."""

    def take_lists(self, allowed: Iterable[Address], denied: Iterable[Address]) -> None:
        """Other lists of the operator from now on."""
        self._allowed, self._denied = frozenset(allowed), frozenset(denied)

    def load(self, counts: Mapping[Address, Counts], decayed_s: float) -> None:
        """Take up what was stored; `decayed_s` is when it was last decayed (Unix s)."""
        self._counts = dict(counts)
        self._decayed_s = decayed_s

    @property
    def decayed_s(self) -> float:
        return self._decayed_s

    def counts(self, address: Address) -> Counts:
        return self._counts.get(address, Counts())

    def all(self) -> dict[Address, Counts]:
        """Every entity with counts."""
        return dict(self._counts)

    def standing(self, address: Address) -> Standing:
        """OK, THROTTLED or BANNED; the operator's lists come first."""
        if address in self._denied:
            return Standing.BANNED
        return Standing.OK if address in self._allowed else self.counts(address).standing

    def set(self, address: Address, counts: Counts) -> None:
        old = self.counts(address)
        self._note(address, counts.seen - old.seen, counts.included - old.included)
        self._counts[address] = counts

    def _note(self, address: Address, seen: int, included: int) -> None:
        more_seen, more_included = self._changed.get(address, (0, 0))
        self._changed[address] = more_seen + seen, more_included + included

    def learn(self, stored: Mapping[Address, Counts]) -> None:
        """What the store has of these entities; what is not stored yet comes on top."""
        for address, counts in stored.items():
            seen, included = self._changed.get(address, (0, 0))
            now = Counts(max(counts.seen + seen, 0), max(counts.included + included, 0))
            if now == Counts():
                self._counts.pop(address, None)
            else:
                self._counts[address] = now

    def saw(self, addresses: Iterable[Address], times: int = 1) -> None:
        """A valid operation with these entities came in; -1 takes that back ([GREP-050], [EREP-015])."""
        for address in addresses:
            old = self.counts(address)
            self.set(address, Counts(max(old.seen + times, 0), old.included))

    def included(self, addresses: Iterable[Address], times: int = 1) -> None:
        """Such an operation is on chain; -1 when a reorganisation took it back."""
        for address in addresses:
            old = self.counts(address)
            self.set(address, Counts(old.seen, max(old.included + times, 0)))

    def ban(self, address: Address) -> None:
        """[GREP-040]: it failed in the bundle after passing alone."""
        self.set(address, Counts(BAN_OPS_SEEN_PENALTY, 0))

    def clear(self) -> None:
        for address, counts in self._counts.items():
            self._note(address, -counts.seen, -counts.included)
        self._counts.clear()

    def decay(self, now_s: float) -> None:
        """value * 23 // 24 for each full hour since the last time; a clock that went back changes nothing."""
        hours = int((now_s - self._decayed_s) // DECAY_PERIOD_S)
        if hours <= 0:
            return
        self._decayed_s += hours * DECAY_PERIOD_S
        for address, old in list(self._counts.items()):
            seen, included = old.seen, old.included
            for _ in range(min(hours, 2_000)):
                seen, included = seen * 23 // 24, included * 23 // 24
                if not seen and not included:
                    break
            self._note(address, seen - old.seen, included - old.included)
            if seen or included:
                self._counts[address] = Counts(seen, included)
            else:
                del self._counts[address]

    def changed(self) -> list[Change]:
        """What changed since the last call, by address."""
        found = [
            Change(address, self._counts.get(address), seen, included)
            for address, (seen, included) in sorted(self._changed.items())
        ]
        self._changed.clear()
        return found

    def not_saved(self, changes: Iterable[Change]) -> None:
        """The write of what `changed` gave failed: it is to be given again."""
        for change in changes:
            self._note(change.address, change.seen, change.included)


def check_standing(reputation: Reputation, role: str, address: Address, pending: int) -> None:
    """[GREP-010], [GREP-020] at intake; `pending` operations of the pool refer to the entity. Raises Throttled."""
    standing = reputation.standing(address)
    if standing is Standing.BANNED:
        raise Throttled(
            f"{role} {checksum(address)} is banned: too many of its operations were never included", rule="GREP-010"
        )
    if standing is Standing.THROTTLED and pending >= THROTTLED_ENTITY_MEMPOOL_COUNT:
        raise Throttled(
            f"{role} {checksum(address)} is throttled: it has {pending} pending operations, "
            f"at most {THROTTLED_ENTITY_MEMPOOL_COUNT} are allowed",
            rule="GREP-020",
        )
