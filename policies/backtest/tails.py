"""VaR and ES as columns, for books whose worth is linear in prices: one product of exposures and past returns a period, not one an hour.

Returns change only where a period ends, so between two such moments all rows share one matrix of scenarios R (scenarios, assets):

    profits (rows, scenarios) = exposures (rows, assets) R'          exposure = size x price

Order statistics and means of the tail move by no more than the profits do, so the error of each figure is that of a profit, and what the
engine's rounding adds: profits floored to a unit, ES rounded up to one. Options and liquidity positions are left to the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np

from policies.backtest.columns import Approx, Block, Column, Compiled
from policies.backtest.market import Floats, Integers
from policies.backtest.past import MarketPast, WholeCloses
from policies.limits import Limit, Parameters, Scope
from policies.metrics import tail
from policies.portfolio import UNIT_OF_ACCOUNT, Portfolio
from policies.risk.tail_filter import VolatilityFilter
from policies.risk.tail_parametric import covariance_of, normal_multiples

_RELATIVE = 1e-9
"""Error of a profit or a deviation relative to the gross value, generously: returns are rounded to 1e-12."""
_UNIT = 0.01
_CELLS = 4_000_000
"""Profits that are held at once."""
_NAMES = frozenset(metric.name for metric in tail.METRICS)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one limit asks of one set of scenarios: `weights` (assets,) of the positions of its scope, `rows` of them."""

    limit: Limit
    weights: Floats
    rows: int


class Tails:
    """The tail metrics of one book, for all limits together, so that scenarios are applied once."""

    def __init__(self, limits: Sequence[Limit], held: Portfolio, past: MarketPast, step_s: int) -> None:
        self._past, self._step_s = past, step_s
        self._found: tuple[Block, dict[str, Column]] | None = None
        linear = not any(option.size for option in held.options) and not held.liquidity
        self._weighted = _weights(held)
        self.assets = sorted({asset for _, asset, _ in self._weighted} - {UNIT_OF_ACCOUNT})
        self._cash = sum(abs(float(size)) for _, asset, size in self._weighted if asset == UNIT_OF_ACCOUNT)
        self.limits = [limit for limit in limits if linear and past.asked is not None and self._has_columns(limit)]

    def _has_columns(self, limit: Limit) -> bool:
        asked = limit.parameters
        if limit.metric not in _NAMES or limit.when or asked.expiry is not None or asked.scenario is not None:
            return False
        period_s = self._past.asked.period_s if self._past.asked is not None else 1
        kept = None if asked.window_s is None else asked.window_s // period_s
        if asked.method == "parametric":
            return limit.metric != "component_shortfall" and (kept is None or kept >= 2)
        return kept is None or kept >= asked.horizon_s // period_s

    def compiled(self, limit: Limit) -> Compiled | None:
        """The limit's metric as a column; None when it has none."""
        if limit not in self.limits:
            return None
        return lambda block: self._over(block)[limit.id]

    def _over(self, block: Block) -> dict[str, Column]:
        if self._found is None or self._found[0] is not block:
            self._found = (block, self._made(block))
        return self._found[1]

    def _made(self, block: Block) -> dict[str, Column]:
        assert self._past.asked is not None
        count = block.rows
        values = {limit.id: (np.zeros(count), np.zeros(count), np.ones(count, dtype=bool)) for limit in self.limits}
        if self.assets:
            columns = [block.assets.index(asset) for asset in self.assets]
            periods = (block.times_s - self._step_s) // self._past.asked.period_s
            starts = np.concatenate([[0], np.flatnonzero(np.diff(periods)) + 1, [count]])
            for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                until_s = int(block.times_s[first]) - self._step_s
                self._group(block.prices[first:end, columns], until_s, slice(first, end), values)
        return {name: Column(Approx(value, error), known) for name, (value, error, known) in values.items()}

    def _group(
        self, prices: Floats, until_s: int, rows: slice, values: dict[str, tuple[Floats, Floats, Floats]]
    ) -> None:
        """Rows that share their past."""
        series = self._series(until_s)
        gross = prices @ np.array([self._size(asset, absolute=True) for asset in self.assets]) + self._cash
        unit = np.maximum(_UNIT, _RELATIVE * gross)
        for asked in dict.fromkeys(limit.parameters for limit in self.limits):
            mine = [limit for limit in self.limits if limit.parameters == asked]
            if series is None:
                for limit in mine:
                    values[limit.id][2][rows] = False
                continue
            if asked.method == "parametric":
                self._parametric(
                    asked, [limit for limit in mine if not limit.of_change], prices, series, gross, rows, values
                )
                continue
            scenarios = self._scenarios(asked, series)
            parts = [_Part(limit, *self._scope(limit)) for limit in mine if not limit.of_change]
            step = max(1, _CELLS // max(1, len(scenarios)))
            for low in range(0, len(prices), step):
                cut = slice(low, min(low + step, len(prices)))
                into = slice(rows.start + cut.start, rows.start + cut.stop)
                _tails(asked, parts, prices[cut], scenarios, self._sizes, gross[cut], unit[cut], into, values)

    # -- the book ---------------------------------------------------------------------------------------------------------------------

    @property
    def _sizes(self) -> Floats:
        return np.array([self._size(asset) for asset in self.assets])

    def _size(self, asset: str, *, absolute: bool = False) -> float:
        mine = [size for _, name, size in self._weighted if name == asset]
        return float(sum((abs(size) if absolute else size for size in mine), Decimal(0)))

    def _scope(self, limit: Limit) -> tuple[Floats, int]:
        """Sizes inside the limit's scope, by asset, and of how many positions."""
        mine = [one for one in self._weighted if _inside(limit.scope, one[1], one[0])]
        sizes = [float(sum((size for _, name, size in mine if name == asset), Decimal(0))) for asset in self.assets]
        return np.array(sizes), len(mine)

    # -- the past ---------------------------------------------------------------------------------------------------------------------

    def _series(self, until_s: int) -> list[Floats] | None:
        """Closes of every asset on whole periods up to the end that all share; None where one has too few: the engine says so too."""
        asked = self._past.asked
        assert asked is not None
        found: list[tuple[WholeCloses, int]] = []
        for asset in self.assets:
            whole = self._past.whole(asset)
            last = int(np.searchsorted(whole.times_s, until_s, side="right")) - 1
            if last < 0:
                return None
            found.append((whole, last))
        end_s = min(int(whole.times_s[last]) for whole, last in found)
        closes = []
        for whole, last in found:
            back = (int(whole.times_s[last]) - end_s) // asked.period_s
            # the newest `most` returns are looked at, and those after the common end are dropped from them
            have = min(int(whole.run[last]), asked.most) - back
            if have < asked.least:
                return None
            closes.append(whole.prices[last - back - have : last - back + 1])
        return closes

    def _scenarios(self, asked: Parameters, closes: Iterable[Floats]) -> Floats:
        """Returns over the horizon, filtered where asked, of shape (scenarios, assets)."""
        columns = [self._returns(asked, one) for one in closes]
        if asked.method == "filtered":
            columns = [_filtered(column) for column in columns]
        shortest = min(len(column) for column in columns)
        return np.stack([column[len(column) - shortest :] for column in columns], axis=1)

    def _returns(self, asked: Parameters, closes: Floats) -> Floats:
        assert self._past.asked is not None
        period_s = self._past.asked.period_s
        periods = asked.horizon_s // period_s if asked.method != "parametric" else 1
        kept = closes if asked.window_s is None else closes[len(closes) - asked.window_s // period_s - 1 :]
        found: Floats = kept[periods:] / kept[:-periods] - 1
        return found

    def _parametric(
        self,
        asked: Parameters,
        limits: Iterable[Limit],
        prices: Floats,
        closes: list[Floats],
        gross: Floats,
        rows: slice,
        values: dict[str, tuple[Floats, Floats, Floats]],
    ) -> None:
        assert self._past.asked is not None
        returns = [self._returns(asked, one) for one in closes]
        shortest = min(len(one) for one in returns)
        covariance = covariance_of(np.stack([one[len(one) - shortest :] for one in returns], axis=1))
        covariance = covariance * (asked.horizon_s / self._past.asked.period_s)
        exposures = prices * self._sizes
        deviation = np.sqrt(np.maximum(((exposures @ covariance) * exposures).sum(axis=1), 0.0))
        q, e = normal_multiples(asked.confidence)
        for limit in limits:
            by = q if limit.metric == "value_at_risk" else e
            value, error, _ = values[limit.id]
            value[rows] = by * deviation
            # a deviation near zero is the root of what rounding left: nothing is claimed there
            exact = deviation > 1e-5 * gross * math.sqrt(float(np.abs(covariance).max()) or 1.0)
            error[rows] = np.where(exact, _RELATIVE * 10 * by * gross + 1e-9, np.inf)


def _weights(held: Portfolio) -> list[tuple[str, str, Decimal]]:
    """Venue, asset and signed size of everything that is linear, as `policies.risk.scenarios_book.book_of` takes it."""
    found = [(h.venue, h.asset, h.amount) for h in held.holdings if h.amount]
    found += [(c.venue, c.asset, c.amount) for c in held.collateral if c.amount]
    found += [(d.venue, d.asset, -d.amount) for d in held.debts if d.amount]
    return found + [(p.venue, p.asset, p.size) for p in held.positions if p.size]


def _inside(scope: Scope, asset: str, venue: str) -> bool:
    if scope.kind == "asset":
        return scope.name == asset
    return scope.kind != "venue" or scope.name == venue


def _filtered(returns: Floats) -> Floats:
    """The same recursion as `policies.risk.tail_filter`, in doubles."""
    ewma = VolatilityFilter.ewma()
    alpha, beta = float(ewma.alpha), float(ewma.beta)
    squares = returns * returns
    variances = np.empty(len(returns) + 1)
    variances[0] = squares.mean()
    for i, square in enumerate(squares.tolist()):
        variances[i + 1] = alpha * square + beta * variances[i]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(variances[:-1] > 0, np.sqrt(variances[-1] / variances[:-1]), 1.0)
    found: Floats = np.maximum(returns * scale, -1.0)
    return found


def _tails(
    asked: Parameters,
    parts: Sequence[_Part],
    prices: Floats,
    scenarios: Floats,
    sizes: Floats,
    gross: Floats,
    unit: Floats,
    rows: slice,
    values: dict[str, tuple[Floats, Floats, Floats]],
) -> None:
    """VaR, ES and parts of ES of rows that share their scenarios."""
    count = len(scenarios)
    in_tail = count * (1 - Fraction(asked.confidence))
    whole, share = math.floor(in_tail), float(in_tail - math.floor(in_tail))
    losses = -((prices * sizes) @ scenarios.T)
    slip = _RELATIVE * gross * max(1.0, float(np.abs(scenarios).max())) + unit
    top = min(whole + 2, count)
    order: Integers = np.argpartition(losses, count - top, axis=1)[:, count - top :]
    worst = np.take_along_axis(losses, order, axis=1)
    by_loss = np.argsort(-worst, axis=1)
    order, worst = np.take_along_axis(order, by_loss, axis=1), np.take_along_axis(worst, by_loss, axis=1)
    weights = np.zeros(top)
    weights[:whole] = 1.0
    weights[whole] = share
    weights /= float(in_tail)
    for part in parts:
        value, error, _ = values[part.limit.id]
        if part.limit.metric == "value_at_risk":
            value[rows], error[rows] = np.maximum(worst[:, whole], 0.0), slip
        elif part.limit.metric == "expected_shortfall":
            value[rows], error[rows] = np.maximum(worst @ weights, 0.0), slip + unit
        else:
            chosen = scenarios[order]  # (rows, top, assets)
            own = -np.einsum("ra,rta->rt", prices * part.weights, chosen)
            sure = np.ones(len(worst), dtype=bool)
            if whole:
                sure &= worst[:, whole - 1] - worst[:, whole] > 2 * slip
            if share and top > whole + 1:
                sure &= worst[:, whole] - worst[:, whole + 1] > 2 * slip
            value[rows] = own @ weights
            error[rows] = np.where(sure, slip + (part.rows + 1) * unit, np.inf)
