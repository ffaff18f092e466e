"""What the limits of a policy want of the past: which returns, how many, and how they are made of prices.

Only limits on VaR and ES look at past returns. All their horizons must be whole numbers of one period, so the period is their greatest
common divisor, a day at most; the longest window says how many periods. A limit without a window takes all there is, and needs a sample
in which its tail has at least one return: 100 of them at 99 %.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from contracts.errors import BadInput
from policies.limits import Limit, Parameters
from policies.metrics import tail
from policies.portfolio import Missing, Returns

MAX_RETURNS = 20_000
"""Returns of one asset that a decision records at most: all facts are kept with it, and hashed."""
PARAMETRIC_SAMPLE = 30
"""Returns below which a covariance says nothing."""
_DAY_S = 86_400
_PLACES = 12
_DIVISIONS = Context(prec=40, rounding=ROUND_HALF_EVEN)
_TAIL = frozenset(metric.name for metric in tail.METRICS)


@dataclass(frozen=True, slots=True)
class PastAsked:
    """Returns over `period_s` seconds; at least `least` of every asset held; of more, the last `most` are taken."""

    period_s: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Closes:
    """Prices of one asset, oldest first, one every whole period without a hole, the last at `end_s` (unix s, a whole period).

    `why` says what ends the stretch at its beginning: what the source lacks before it.
    """

    end_s: int
    prices: tuple[Decimal, ...]
    source: str
    why: str


def looks_back(limit: Limit) -> bool:
    """Whether a limit's value depends on past returns."""
    return limit.metric in _TAIL or any(name in limit.when for name in _TAIL)


def past_asked(limits: Iterable[Limit]) -> PastAsked | None:
    """What the limits need together; None when none of them looks at past returns."""
    asked = []
    for limit in limits:
        if limit.metric in _TAIL:
            asked.append(limit.parameters)
        if any(name in limit.when for name in _TAIL):
            asked.append(Parameters())  # a condition names metrics in its own words, with their default parameters
    if not asked:
        return None
    period_s = math.gcd(_DAY_S, *(one.horizon_s for one in asked))
    least = max(_least(one, period_s) for one in asked)
    whole = any(one.window_s is None for one in asked)
    return PastAsked(period_s, least, max(least, MAX_RETURNS) if whole else least)


def _least(asked: Parameters, period_s: int) -> int:
    """Returns without which one metric has no value, or none that means anything."""
    if asked.window_s is not None:
        return max(asked.window_s // period_s, 1)
    sample = PARAMETRIC_SAMPLE if asked.method == "parametric" else math.ceil(1 / (1 - asked.confidence))
    return sample + asked.horizon_s // period_s - 1


def simple_returns(asset: str, period_s: int, closes: Closes) -> Returns:
    """The returns between these prices: b / a - 1, 12 decimals, half to even."""
    quantum = Decimal(1).scaleb(-_PLACES)
    with localcontext(_DIVISIONS):
        values = tuple((b / a - 1).quantize(quantum) for a, b in itertools.pairwise(closes.prices))
    return Returns(asset, period_s, closes.end_s, closes.source, values)


def stretch(
    source: str, at: Sequence[tuple[int, Decimal]], period_s: int, until_s: int, count: int, asset: str
) -> Closes:
    """The unbroken stretch of at most `count` + 1 prices that ends at the newest whole period not after `until_s`.

    `at`: time (unix s, whole periods only) and price, oldest first. Raises BadInput when none is old enough.
    """
    last = bisect_right(at, until_s, key=lambda one: one[0])
    if not last:
        raise BadInput(f"{source} has no price of {asset} on a whole {period_s} s before {until_s}")
    end_s = at[last - 1][0]
    first = last - 1
    while first > 0 and last - first <= count and at[first][0] - at[first - 1][0] == period_s:
        first -= 1
    lacking = at[first][0] - period_s
    return Closes(
        end_s,
        tuple(price for _, price in at[first:last]),
        source,
        f"{source} has no price of {asset} at {moment(lacking)}",
    )


def moment(time_s: int) -> str:
    """A time as people and files write it."""
    return f"{time_s} ({datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S} UTC)"


def missing_past(asset: str, why: str) -> Missing:
    """The past of `asset` cannot be had."""
    return Missing(past_of(asset), why)


def past_of(asset: str) -> str:
    """What the missing fact is called."""
    return f"the past returns of {asset}"


def returns_of(asked: PastAsked, closes: dict[str, Closes]) -> tuple[tuple[Returns, ...], tuple[Missing, ...]]:
    """Series of one period and one end from the stretches of every asset, and what is too short to be one.

    The end is the earliest of the ends: the future of none is in another's scenario.
    """
    if asked.least > MAX_RETURNS:
        why = f"the limits ask for {asked.least} of {asked.period_s} s each, a decision records at most {MAX_RETURNS}: shorten a window"
        return (), tuple(missing_past(asset, why) for asset in closes)
    end_s = min((one.end_s for one in closes.values()), default=0)
    found, gaps = [], []
    for asset, one in sorted(closes.items()):
        kept = one.prices[: len(one.prices) - (one.end_s - end_s) // asked.period_s]
        kept = kept[-(asked.most + 1) :]
        have = max(len(kept) - 1, 0)
        if have < asked.least:
            gaps.append(
                missing_past(
                    asset,
                    f"{have} of {asked.period_s} s each until {moment(end_s)} are known and {asked.least} are asked for, "
                    f"{asked.least - have} are lacking: {one.why}",
                )
            )
        else:
            found.append(simple_returns(asset, asked.period_s, Closes(end_s, kept, one.source, one.why)))
    return tuple(found), tuple(gaps)
