"""The account's own record in a back-test: equity at every close, and the orders that were filled. Nothing is paid in or out.

The engine is given the points of it that its answer can depend on: the first, the last, the highest, and for every window of the policy
where it begins and its highest; any other point would change no metric. All are exact; which is the highest is found in float64, ties
within 1e-12 going to the first.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

from contracts.types import keccak
from policies.backtest.columns import Approx, Record
from policies.backtest.judge import Judge, equity_of
from policies.backtest.market import Floats, Integers, Market
from policies.backtest.valuation import Held
from policies.limits import Limit
from policies.margin import EXACT
from policies.metrics.history import DAY_S
from policies.metrics.history import METRICS as OF_HISTORY
from policies.portfolio import Activity, EquityPoint, Fill, History, Portfolio


class EquityRecord:
    """Point 0 is the first bar's open, point k + 1 the close of row k."""

    def __init__(self, judge: Judge, market: Market) -> None:
        self._judge, self._market = judge, market
        rows = market.rows
        self.times_s: Integers = np.concatenate([market.times_s[:1], market.times_s + market.step_s])
        self._value: Floats = np.full(rows + 1, np.nan)
        self._error: Floats = np.full(rows + 1, np.inf)
        self._starts: list[tuple[int, Held]] = []
        self._activity: list[Activity] = []
        self._points: dict[int, EquityPoint | None] = {}
        mine = [limit for limit in judge.policy.every_limit if self.concerns(limit)]
        self._windows = sorted({limit.parameters.window_s or DAY_S for limit in mine})
        self._wanted = bool(mine)

    @staticmethod
    def concerns(limit: Limit) -> bool:
        """Whether a limit's value can depend on the record."""
        return bool(limit.when) or any(metric.name == limit.metric for metric in OF_HISTORY)

    @property
    def closes(self) -> Floats:
        """Equity at every close; NaN where it has no value."""
        return self._value[1:]

    def begin(self, held: Held) -> None:
        """What is held at the first open."""
        prices, now_s = self._market.prices(0, self._market.open), int(self._market.times_s[0])
        self._note(0, equity_of(self._judge, held.at(prices, now_s), prices, now_s))

    def hold(self, row: int, held: Held) -> None:
        """From the close of `row` on, this is what is held."""
        self._starts.append((row, held))

    def extend(self, low: int, high: int, column: Approx | None) -> None:
        """Equity at the closes of rows `low` .. `high` (exclusive): a column, or what the engine says of each."""
        if column is not None:
            self._value[low + 1 : high + 1], self._error[low + 1 : high + 1] = column.value, column.error
            return
        for row in range(low, high):
            self._point(row + 1)

    def columns(self, high: int) -> Record:
        """The record up to the close of row `high` - 1."""
        return Record(self.times_s[: high + 1], self._value[: high + 1], self._error[: high + 1])

    def traded(self, time_s: int, fill: Fill, before: Portfolio, after: Portfolio) -> None:
        """An order that was filled; what it realised is the change of its venue's collateral."""
        with localcontext(EXACT):
            realised = sum(
                (m.collateral - n.collateral for m, n in zip(after.margins, before.margins, strict=True)), Decimal(0)
            )
        identity = keccak(f"order {len(self._activity)}".encode())
        self._activity.append(Activity(time_s, identity, fill.quote, realised, 0, 0))

    def history(self, row: int, now_s: int) -> History | None:
        """What is on record before the close of `row`, or at its open; `now_s` which of the two. None when no limit asks for it."""
        if not self._wanted:
            return None
        last = row
        chosen = {0, last, self._highest(0, last)}
        for window_s in self._windows:
            begin = max(int(np.searchsorted(self.times_s[: last + 1], now_s - window_s, side="right")) - 1, 0)
            chosen |= {begin, self._highest(begin, last)}
        points = [point for index in sorted(chosen) if (point := self._point(index)) is not None]
        return History(0, tuple(points), tuple(self._activity))

    def _highest(self, first: int, last: int) -> int:
        values = self._value[first : last + 1]
        if not np.isfinite(values).any():
            return first
        top = float(np.nanmax(values))
        return first + int(np.flatnonzero(values >= top - 1e-12 * abs(top))[0])

    def _point(self, index: int) -> EquityPoint | None:
        """One point, exactly."""
        if index not in self._points:
            row = index - 1
            held = next(held for start, held in reversed(self._starts) if start <= row)
            prices, now_s = self._market.prices(row, self._market.close), self._market.end_s(row)
            self._note(index, equity_of(self._judge, held.at(prices, now_s), prices, now_s))
        return self._points[index]

    def _note(self, index: int, equity: Decimal | None) -> None:
        if equity is None:
            self._points[index] = None
            return
        self._points[index] = EquityPoint(int(self.times_s[index]), equity, Decimal(0))
        if not np.isfinite(self._error[index]):
            self._value[index], self._error[index] = float(equity), abs(float(equity)) * 1e-15
