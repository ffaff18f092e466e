"""The past of Chainlink-style feeds: which round held at given moments, found by bisection in batches of reads. Pure, as the adapters are.

A proxy's round id is phase x 2^64 + the aggregator's own round; within a phase rounds are numbered from 1 and their times never go back.
A moment before the first round of a phase belongs to the phase before it.
Source: Chainlink AggregatorProxy (`phaseId`, `phaseAggregators`), AggregatorV3Interface (`getRoundData`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from contracts.abi import Function
from contracts.errors import InvalidFields
from contracts.types import Address
from contracts.units import from_units
from policies.venues import Read
from policies.venues.feeds import DECIMALS, LATEST_ROUND_DATA

GET_ROUND_DATA = Function.parse("getRoundData(uint80)(uint80,int256,uint256,uint256,uint80)")
PHASE_AGGREGATORS = Function.parse("phaseAggregators(uint16)(address)")
LATEST_ROUND = Function.parse("latestRound()(uint256)")
_SAMPLE = 256
"""Rounds looked at first, evenly spread: all moments share them."""
_PHASES = 64
"""Phases that are gone back at most; a proxy changes its aggregator a few times in its life."""
_PHASE_BITS = 64

Asking = Generator[tuple[Read, ...], Sequence[bytes | None], "dict[int, Round]"]
"""Yields reads; send their answers, None where one reverted. Returns what was found."""


@dataclass(frozen=True, slots=True)
class Round:
    """One answer of a feed: in the unit of account, fixed at `updated_s` (unix s)."""

    id: int
    price: Decimal
    updated_s: int


def rounds_at(feed: Address, times_s: Iterable[int]) -> Asking:
    """The newest round at or before each of `times_s`; a moment before the feed's first round has none.

    A round that cannot be read (a hole, no answer) counts as later than every moment, so that an older one stands for it: how old it is
    shows in its own time. Raises InvalidFields when the feed itself does not answer.
    """
    answers = yield ((feed, LATEST_ROUND_DATA.encode()), (feed, DECIMALS.encode()))
    if answers[0] is None or answers[1] is None:
        raise InvalidFields("the feed does not answer")
    (decimals,) = DECIMALS.decode(answers[1])
    newest = _round(answers[0], decimals)
    round_id = LATEST_ROUND_DATA.decode(answers[0])[0]
    wanted = sorted(set(times_s))
    found: dict[int, Round] = {}
    if newest is not None:
        found = {time: newest for time in wanted if newest.updated_s <= time}
    wanted = [time for time in wanted if time not in found]
    phase, last = divmod(round_id, 2**_PHASE_BITS)
    for _ in range(_PHASES):
        if wanted and last:
            here = yield from _in_phase(feed, decimals, phase, last, wanted)
            found |= here
            wanted = [time for time in wanted if time not in here]
        if not wanted or phase <= 1:
            break
        phase -= 1
        last = yield from _last_of(feed, phase)
    return found


def _last_of(feed: Address, phase: int) -> Generator[tuple[Read, ...], Sequence[bytes | None], int]:
    """The last round of an earlier phase; 0 when that cannot be told."""
    (answer,) = yield ((feed, PHASE_AGGREGATORS.encode(phase)),)
    try:
        if not answer:
            return 0
        (aggregator,) = PHASE_AGGREGATORS.decode(answer)
        (answer,) = yield ((aggregator, LATEST_ROUND.encode()),)
        return int(LATEST_ROUND.decode(answer)[0]) if answer else 0
    except InvalidFields:
        return 0


def _in_phase(feed: Address, decimals: int, phase: int, last: int, wanted: Sequence[int]) -> Asking:
    """The newest round of one phase at or before each moment."""
    known: dict[int, Round | None] = {}

    def read(numbers: Iterable[int]) -> Generator[tuple[Read, ...], Sequence[bytes | None], None]:
        new = sorted({n for n in numbers if n not in known})
        if new:
            ids = [(phase << _PHASE_BITS) + n for n in new]
            answers = yield tuple((feed, GET_ROUND_DATA.encode(one)) for one in ids)
            known.update(zip(new, (_round(answer, decimals) for answer in answers), strict=True))

    def not_after(number: int, time_s: int) -> bool:
        one = known[number]
        return one is not None and one.updated_s <= time_s

    step = max(1, last // _SAMPLE)
    sample = sorted({*range(1, last + 1, step), last})
    yield from read(sample)
    spans = {}
    for time in wanted:
        low = max((n for n in sample if not_after(n, time)), default=0)
        high = min((n for n in sample if n > low), default=last + 1)
        spans[time] = (low, high)
    while True:
        middles = {time: (low + high) // 2 for time, (low, high) in spans.items() if high - low > 1}
        if not middles:
            break
        yield from read(middles.values())
        for time, middle in middles.items():
            low, high = spans[time]
            spans[time] = (middle, high) if not_after(middle, time) else (low, middle)
    return {time: one for time, (low, _) in spans.items() if low and (one := known[low]) is not None}


def _round(answer: bytes | None, decimals: int) -> Round | None:
    """A complete round with a price; None for anything else."""
    try:
        if answer is None:
            return None
        round_id, price, _, updated_s, _ = LATEST_ROUND_DATA.decode(answer)
    except InvalidFields:
        return None
    return Round(round_id, from_units(price, decimals), updated_s) if price > 0 and updated_s > 0 else None
