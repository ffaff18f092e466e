"""The largest size of an operation that passes, found by asking; the caller simulates. Pure: it sees readings only, never a chain.

Sizes are whole ticks 1..top. Every limit is searched for at once over the same simulations, in rounds of several sizes each (they can run
side by side). A round asks, for each limit that fails at the size asked for:

1. a coarse grid from the smallest size to the largest;
2. where everything above the best size fails, but the slack (headroom) has a peak between two failing points: around that peak, halving.
   Verdicts need not be monotone (a hedge first lowers risk, then raises it); a hidden stretch of passing sizes lies under such a peak;
3. between the best passing size and the next failing one: the root of the slack by interpolation with close points on both sides, or four
   equal parts when there is no slack to go by or interpolation made slow progress. So a smooth limit takes a few rounds, and none takes
   more than log4(ticks) + one per interpolation.

What is found passed when it was asked, and one tick more did not. Not found: a stretch of passing sizes narrower than a grid cell whose slack
shows no peak at the grid's resolution (or narrower than a cell / 2^`PEAK_ROUNDS` under a peak).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction

from contracts.errors import BadInput
from policies.decision import Decision
from policies.margin import EXACT

GRID = 8
"""Cells of the coarse grid."""
PEAK_ROUNDS = 14
BUDGET = 240
"""Simulations that one search may take."""
WHOLE = ""
"""Key of the Decision as a whole; the others are ids of limits."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one key says at one size: whether it passes, and how far inside (>= 0) or outside (< 0) it is; None: no measure."""

    passes: bool
    slack: Decimal | None = None


Readings = Mapping[str, Reading]


@dataclass(frozen=True, slots=True)
class Found:
    """Largest passing tick by key (None: no tick that was asked passes), the stretches (lowest, highest tick) that the whole was seen to
    pass, how many sizes were asked, and whether every search came to its end."""

    largest: Mapping[str, int | None]
    passing: tuple[tuple[int, int], ...]
    asked: int
    exact: bool


@dataclass(slots=True)
class _Search:
    """One key. What to ask next follows from the readings alone, and from how fast the last rounds closed in."""

    key: str
    top: int
    peaks_left: int = PEAK_ROUNDS
    width: int | None = None
    halving: bool = False
    seen: dict[int, Reading] = field(default_factory=dict)

    def bracket(self) -> tuple[int, int]:
        """(largest passing tick, the failing one next above); (0, smallest failing) when nothing passes."""
        passed = max((n for n, r in self.seen.items() if r.passes), default=0)
        return passed, min((n for n, r in self.seen.items() if n > passed), default=self.top + 1)

    def wanted(self) -> set[int]:
        """Ticks to ask in the next round; empty when the search is at its end."""
        passed, failed = self.bracket()
        if passed < self.top and self.peaks_left:
            self.peaks_left -= 1
            if found := self._under_peaks(passed):
                return found
            self.peaks_left = 0
        if failed - passed <= 1 or (passed == 0 and 1 in self.seen):
            return set()
        return self._between(passed, failed)

    def _under_peaks(self, passed: int) -> set[int]:
        """Middles of the cells beside the peaks of the slack above `passed`, where it may reach zero; an end can be a peak too."""
        points = [(n, r.slack) for n, r in sorted(self.seen.items()) if n >= passed and r.slack is not None]
        found: set[int] = set()
        for i, (n, slack) in enumerate(points):
            cells = [j for j in (i - 1, i) if 0 <= j < len(points) - 1]
            if self.seen[n].passes or any(points[j][1] > slack or points[j + 1][1] > slack for j in cells):
                continue
            found |= {(points[j][0] + points[j + 1][0]) // 2 for j in cells if _may_reach_zero(points, j)}
        return found - self.seen.keys()

    def _between(self, passed: int, failed: int) -> set[int]:
        span = failed - passed
        if span <= 5:
            return set(range(passed + 1, failed))
        self.halving = self.width is not None and span * 4 > self.width and not self.halving
        self.width = span
        quarters = {passed + span * i // 4 for i in (1, 2, 3)}
        low, high = self.seen.get(passed), self.seen.get(failed)
        if self.halving or low is None or high is None or low.slack is None or high.slack is None:
            return quarters
        if low.slack < 0 or high.slack >= 0:
            return quarters
        share = Fraction(low.slack) / (Fraction(low.slack) - Fraction(high.slack))
        root = passed + min(max(int(share * span), 1), span - 1)
        reach = max(span >> 10, 2)
        near = {root - reach, root - 1, root, root + 1, root + reach}
        return {n for n in near if passed < n < failed}


def _may_reach_zero(points: Sequence[tuple[int, Decimal]], j: int) -> bool:
    """Whether slack with straight or concave sides could reach zero between points j and j + 1: it stays below the lines through the two
    points on either side, so below the highest that each has in between. Without such a line: perhaps.
    """
    (low, at_low), (high, at_high) = points[j], points[j + 1]
    bounds = []
    if j > 0:
        before, at_before = points[j - 1]
        bounds.append(at_low + max((at_low - at_before) * (high - low) / (low - before), Decimal(0)))
    if j + 2 < len(points):
        behind, at_behind = points[j + 2]
        bounds.append(at_high + max((at_high - at_behind) * (high - low) / (behind - high), Decimal(0)))
    return min(bounds, default=Decimal(0)) >= 0


def search_ticks(
    top: int, keys: Sequence[str], known: Mapping[int, Readings], budget: int = BUDGET
) -> Generator[tuple[int, ...], Mapping[int, Readings], Found]:
    """Yields rounds of ticks (1..`top`, ascending); send the readings of each. Returns what was found.

    `keys` are looked for, the whole last; `known` are readings already there (of the size asked for). Raises BadInput for an empty range.
    """
    if top < 1:
        raise BadInput("there is no size to search: the smallest is one tick")
    order = [*(key for key in keys if key != WHOLE), WHOLE]
    searches = {key: _Search(key, top) for key in order}
    readings: dict[int, Readings] = {}

    def learn(found: Mapping[int, Readings]) -> None:
        for n, at in found.items():
            readings[n] = at
            for key, one in searches.items():
                if key in at:
                    one.seen[n] = at[key]

    learn({n: at for n, at in known.items() if 1 <= n <= top})
    asked, exact = 0, True
    grid = {1, *(top * i // GRID for i in range(1, GRID + 1))} - readings.keys() - {0}
    while grid:
        batch = tuple(sorted(grid))[: budget - asked]
        if len(batch) < len(grid):
            exact = False
        if not batch:
            break
        learn((yield batch))
        asked += len(batch)
        grid = set()
        for key in order:
            if key == WHOLE and grid:
                break  # the limits' own ends are most of what the whole needs
            grid |= searches[key].wanted()
        grid -= readings.keys()
    largest = {key: one.bracket()[0] or None for key, one in searches.items()}
    exact = exact and all(one.bracket()[1] - one.bracket()[0] == 1 for one in searches.values() if one.bracket()[0])
    return Found(largest, _stretches(searches[WHOLE].seen), asked, exact)


def _stretches(seen: Mapping[int, Reading]) -> tuple[tuple[int, int], ...]:
    """Runs of passing ticks among those asked, nothing failing in between."""
    found: list[tuple[int, int]] = []
    running = False
    for n, reading in sorted(seen.items()):
        if reading.passes:
            found = [*found[:-1], (found[-1][0], n)] if running else [*found, (n, n)]
        running = reading.passes
    return tuple(found)


def largest_passing(
    evaluate_at: Callable[[Decimal], Decision], lo: Decimal, hi: Decimal, step: Decimal
) -> Decimal | None:
    """The largest `lo` + n x `step` up to `hi` that `evaluate_at` allows, None when none does. It passed, and one step more did not (or is
    above `hi`). Raises BadInput for a step that is not positive or an empty interval.
    """
    if step <= 0 or hi < lo:
        raise BadInput(f"there is nothing to search from {lo} to {hi} in steps of {step}")
    with localcontext(EXACT):
        top = int(((hi - lo) / step).to_integral_value(ROUND_FLOOR)) + 1

    def at(n: int) -> Decimal:
        with localcontext(EXACT):
            return lo + step * (n - 1)

    search = search_ticks(top, (), {})
    asked = next(search)
    while True:
        try:
            asked = search.send({n: {WHOLE: Reading(evaluate_at(at(n)).allowed)} for n in asked})
        except StopIteration as done:
            found: Found = done.value
            best = found.largest[WHOLE]
            return None if best is None else at(best)
