"""Past returns inside a back-test: of the same bars, and never of a bar that is not over when a moment is judged.

At a bar's open and at its close the engine is given what was known when the bar opened: closes of earlier bars. The bars before the window
that is tested (`Market.earlier`) count too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contracts.errors import BadInput
from policies.backtest.judge import SOURCE
from policies.backtest.market import Floats, Integers, Market, exact
from policies.past import PastAsked, looks_back, missing_past, past_asked, returns_of, stretch
from policies.policy import Limit
from policies.portfolio import UNIT_OF_ACCOUNT, Missing, Portfolio, Returns

_KEPT = 16
"""Answers that are kept: moments are asked about in order, and those of one period have one answer."""
Known = tuple[tuple[Returns, ...], tuple[Missing, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class WholeCloses:
    """Closes of one asset on whole periods: when (unix s), how much, and how many periods follow each other without a hole up to each."""

    times_s: Integers
    prices: Floats
    run: Integers


class MarketPast:
    """What the limits of a policy see of the past, bar by bar. `asked` is None where none of them looks."""

    def __init__(self, limits: Iterable[Limit], market: Market) -> None:
        self.asked: PastAsked | None = past_asked(limits)
        self._market = market
        self._whole: dict[str, WholeCloses] = {}
        self._known: dict[tuple[int, tuple[str, ...]], Known] = {}

    def concerns(self, limit: Limit) -> bool:
        """Whether a limit's value can depend on past returns."""
        return self.asked is not None and looks_back(limit)

    def until_s(self, row: int) -> int:
        """Everything up to here is known when the bar of `row` is judged: its own open."""
        return int(self._market.times_s[row])

    def at(self, row: int, *held: Portfolio) -> Known:
        """Returns of everything held, as the wallet would read them, and what is missing of them."""
        if self.asked is None:
            return (), ()
        until_s, period_s = self.until_s(row), self.asked.period_s
        assets = tuple(sorted({asset for portfolio in held for asset in portfolio.assets()} - {UNIT_OF_ACCOUNT}))
        key = (until_s // period_s, assets)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = self._made(self.asked, until_s, assets)
        return self._known[key]

    def _made(self, asked: PastAsked, until_s: int, assets: tuple[str, ...]) -> Known:
        found, gaps = {}, []
        for asset in assets:
            whole = self.whole(asset)
            end = int(np.searchsorted(whole.times_s, until_s, side="right"))
            first = max(0, end - asked.most - 1)
            at = [
                (int(time), exact(price))
                for time, price in zip(whole.times_s[first:end], whole.prices[first:end], strict=True)
            ]
            try:
                found[asset] = stretch(SOURCE, at, asked.period_s, until_s, asked.most, asset)
            except BadInput as error:
                gaps.append(missing_past(asset, error.message))
        series, short = returns_of(asked, found)
        return series, (*gaps, *short)

    def whole(self, asset: str) -> WholeCloses:
        """Raises BadInput for an asset without bars."""
        assert self.asked is not None
        if asset not in self._whole:
            market, period_s = self._market, self.asked.period_s
            times, prices = market.times_s, market.close[:, market.column(asset)]
            if asset in market.earlier:
                before = market.earlier[asset]
                times, prices = np.concatenate([before.times_s, times]), np.concatenate([before.close, prices])
            ends = times + market.step_s
            kept = ends % period_s == 0
            ends, prices = ends[kept], prices[kept]
            at = np.arange(len(ends))
            breaks = np.concatenate([[True], np.diff(ends) != period_s])[: len(ends)]
            run = at - np.maximum.accumulate(np.where(breaks, at, 0)) if len(ends) else at
            self._whole[asset] = WholeCloses(ends, prices, run)
        return self._whole[asset]
