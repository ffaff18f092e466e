"""A book and a block of scenarios as columns of doubles: what the kernels take, and how large what they add up is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from policies.portfolio import UNIT_OF_ACCOUNT
from policies.risk._kernel import YEAR_S, Accumulate, Floats, OptionColumns, ShockColumns
from policies.risk.scenarios_book import Book, EuropeanOption, Inverse, Linear, Range
from policies.risk.scenarios_exact import UNCHANGED
from policies.risk.scenarios_sets import Listed, Moves, ScenarioSet

UNCHANGED_SET = Listed((UNCHANGED,))
_STILL = np.zeros(1)


class Shocked:
    """One block of scenarios as the kernels take it, worked out once per asset. `spot`: the price of an asset now."""

    __slots__ = ("_moves", "_prices", "_shocks", "clock", "count", "set", "spot", "start")

    def __init__(self, spot: Callable[[str], object], scenarios: ScenarioSet, start: int, stop: int) -> None:
        self.spot, self.set, self.start, self.count = spot, scenarios, start, stop - start
        self.clock = scenarios.clock(start, stop)
        self._moves: dict[str, Moves] = {}
        self._prices: dict[str, Floats] = {}
        self._shocks: dict[str, ShockColumns] = {}

    def moves(self, asset: str) -> Moves:
        if asset not in self._moves:
            if asset == UNIT_OF_ACCOUNT:
                self._moves[asset] = Moves(_STILL, _STILL, _STILL, _STILL)
            else:
                self._moves[asset] = self.set.moves(asset, self.start, self.start + self.count)
        return self._moves[asset]

    def price(self, asset: str) -> Floats:
        """The shocked spot, shape (scenarios,)."""
        if asset not in self._prices:
            shocked = float(self.spot(asset)) * (1.0 + self.moves(asset).spot)  # type: ignore[arg-type]  # a Decimal
            self._prices[asset] = shocked if shocked.size == self.count else np.full(self.count, shocked[0])
        return self._prices[asset]

    def of(self, asset: str) -> ShockColumns:
        if asset not in self._shocks:
            moves, spot = self.moves(asset), self.price(asset)
            with np.errstate(divide="ignore"):  # ln 0 = -inf is the right moneyness of a worthless underlying
                log_spot = np.log(spot)
            self._shocks[asset] = ShockColumns(
                spot=spot,
                log_spot=log_spot,
                vol_scale=1.0 + moves.vol_relative,
                vol_shift=moves.vol_absolute,
                elapsed_s=self.clock[0],
                rate_shift=self.clock[1],
                forward_scale=1.0 + moves.basis,
                log_forward_scale=np.log1p(moves.basis),
            )
        return self._shocks[asset]


def by_asset(options: Sequence[EuropeanOption]) -> dict[str, list[int]]:
    """Which of the options are on which underlying."""
    rows: dict[str, list[int]] = {}
    for i, option in enumerate(options):
        rows.setdefault(option.asset, []).append(i)
    return rows


def option_columns(held: Sequence[EuropeanOption]) -> OptionColumns:
    """Options of one underlying as columns."""
    strike = np.array([float(o.strike) for o in held])
    return OptionColumns(
        strike=strike,
        log_strike=np.log(strike),
        life_s=np.array([float(o.life_s) for o in held]),
        vol=np.array([float(o.vol) for o in held]),
        rate=np.array([float(o.rate) if o.rate else 0.0 for o in held]),
        carry=np.array([float(o.carry) if o.carry else 0.0 for o in held]),
        size=np.array([float(o.size) for o in held]),
        sign=np.array([1.0 if o.is_call else -1.0 for o in held]),
    )


def reach(held: OptionColumns, shocks: ShockColumns) -> tuple[Floats, Floats]:
    """(forward + strike) x discount of one unit of each option, from above, as factors of the shocked spot and constants.

    Growth is taken at its largest. The factor 1 + (growth + |ln K| + v) / 16 is for the rounding of the exponentials, of ln F - ln K
    and of the volatility, whose effect on a value is at most 2^-53 x (forward + strike).
    """
    years = held.life_s / YEAR_S
    shift = np.abs(shocks.rate_shift).max()
    growth = (np.abs(held.carry) + np.abs(held.rate) + 2 * shift) * years
    vol = (held.vol * np.abs(shocks.vol_scale).max() + np.abs(shocks.vol_shift).max()) * np.sqrt(years)
    unit = np.exp(growth) * (1.0 + (growth + np.abs(held.log_strike) + vol) / 16)
    return unit * shocks.forward_scale.max(), unit * held.strike


def option_values(columns: Columns, shocked: Shocked, accumulate: Accumulate) -> Floats:
    """The value of all options of a book in each scenario."""
    totals = np.zeros(shocked.count)
    for asset, (_, held) in columns.options.items():
        accumulate(held, shocked.of(asset), totals)
    return totals


def columns_of(book: Book) -> Columns:
    """The columns of a book, made once."""
    found = book.workings.get("columns")
    if not isinstance(found, Columns):
        found = book.workings["columns"] = Columns(book)
    return found


class Columns:
    """A book as doubles: options by underlying (with their rows in the book), everything else in `closed`."""

    __slots__ = ("book", "closed", "count", "now", "options")

    def __init__(self, book: Book) -> None:
        self.book, self.count = book, len(book.options)
        self.now = Shocked(book.spot, UNCHANGED_SET, 0, 1)
        self.closed = ClosedForms(book, self.now)
        self.options: dict[str, tuple[list[int], OptionColumns]] = {
            asset: (rows, option_columns([book.options[i] for i in rows]))
            for asset, rows in by_asset(book.options).items()
        }

    def gross_rows(self, asset: str, shocked: Shocked) -> Floats:
        """|size| x (forward + strike) x discount of each option, from above, shape (options, scenarios)."""
        held, shocks = self.options[asset][1], shocked.of(asset)
        moving, fixed = reach(held, shocks)
        size = np.abs(held.size)
        return (size * moving)[:, None] * shocks.spot + (size * fixed)[:, None]

    def gross(self, shocked: Shocked) -> Floats:
        """The sum of `gross_rows`, shape (scenarios,)."""
        total = np.zeros(shocked.count)
        for asset, (_, held) in self.options.items():
            shocks = shocked.of(asset)
            moving, fixed = reach(held, shocks)
            size = np.abs(held.size)
            total += (size * moving).sum() * shocks.spot + (size * fixed).sum()
        return total


class ClosedForms:
    """What needs no model: the profit of linears, inverses and liquidity, beside a bound of what was added up for it."""

    __slots__ = ("_linears", "_others", "book", "count", "now")

    def __init__(self, book: Book, now: Shocked) -> None:
        self.book, self.now = book, now
        self._others: tuple[Inverse | Range, ...] = (*book.inverses, *book.ranges)
        self.count = len(book.linears) + len(self._others)
        groups: dict[tuple[str, bool], tuple[list[int], list[float]]] = {}
        for i, linear in enumerate(book.linears):
            rows, values = groups.setdefault((linear.asset, linear.on_forward), ([], []))
            rows.append(i)
            values.append(_worth(linear))
        self._linears = {key: (rows, np.array(values)) for key, (rows, values) in groups.items()}

    def totals(self, shocked: Shocked) -> tuple[Floats, Floats]:
        """Profit and gross value of all of them, shapes (scenarios,)."""
        pnl, gross = np.zeros(shocked.count), np.zeros(shocked.count)
        for (asset, on_forward), (_, values) in self._linears.items():
            factor = _factor(shocked.moves(asset), on_forward=on_forward)
            pnl += values.sum() * factor
            gross += np.abs(values).sum() * (1.0 + np.abs(factor))
        for other in self._others:
            gained, terms = self._other(other, shocked)
            pnl += gained
            gross += terms
        return pnl, gross

    def rows(self, shocked: Shocked) -> tuple[Floats, Floats]:
        """Profit and gross value of each, shapes (positions, scenarios), in the order of the book."""
        pnl, gross = np.zeros((self.count, shocked.count)), np.zeros((self.count, shocked.count))
        for (asset, on_forward), (rows, values) in self._linears.items():
            factor = _factor(shocked.moves(asset), on_forward=on_forward)
            pnl[rows] = values[:, None] * factor
            gross[rows] = np.abs(values)[:, None] * (1.0 + np.abs(factor))
        for row, other in enumerate(self._others, len(self.book.linears)):
            pnl[row], gross[row] = self._other(other, shocked)
        return pnl, gross

    def _other(self, held: Inverse | Range, shocked: Shocked) -> tuple[Floats, Floats]:
        if isinstance(held, Inverse):
            return self._inverse(held, shocked)
        after, terms = _range(held, shocked)
        before, terms_before = _range(held, self.now)
        return after - before, terms + terms_before

    def _inverse(self, inverse: Inverse, shocked: Shocked) -> tuple[Floats, Floats]:
        moves, spot = shocked.moves(inverse.asset), float(self.book.spot(inverse.asset))
        contracts, entry, price = float(inverse.contracts), float(inverse.entry_price), float(inverse.price)
        settled = spot / price * (moves.basis / (1.0 + moves.basis))
        pnl = contracts * (spot * moves.spot / entry + settled)
        gross = abs(contracts) * (spot * (2.0 + np.abs(moves.spot)) / entry + spot / price + np.abs(settled))
        return pnl, gross


def _worth(linear: Linear) -> float:
    return float(linear.size) * float(linear.price)


def _factor(moves: Moves, *, on_forward: bool) -> Floats:
    """What one unit of value gains, shape (scenarios,) or (1,)."""
    return moves.spot + moves.basis * (1.0 + moves.spot) if on_forward else moves.spot


def _range(pool: Range, shocked: Shocked) -> tuple[Floats, Floats]:
    """Value of one liquidity position, and the sum of its terms' sizes."""
    price0, price1 = shocked.price(pool.asset0), shocked.price(pool.asset1)
    low, high = float(pool.lower_price) ** 0.5, float(pool.upper_price) ** 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(price1 > 0, np.clip(np.sqrt(price0 / price1), low, high), high)
    depth, owed0, owed1 = float(pool.liquidity), float(pool.owed0), float(pool.owed1)
    value = (depth * (1.0 / root - 1.0 / high) + owed0) * price0 + (depth * (root - low) + owed1) * price1
    size = (abs(depth) * (1.0 / root + 1.0 / high) + abs(owed0)) * price0
    return value, size + (abs(depth) * (root + low) + abs(owed1)) * price1
