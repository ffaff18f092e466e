"""Full revaluation of a book in many scenarios: what would be lost, where, and by what.

`revalue(book, scenarios)` prices every position anew in every scenario (no Greeks, no interpolation) and keeps one profit a scenario;
everything else is worked on in blocks, so memory does not grow with the number of positions times scenarios.

What happens to an option that expires inside a scenario (its life <= the scenario's time): it is settled at its intrinsic value at the
*shocked spot*, without basis, and the payment earns nothing afterwards. The path to the shocked spot is not modelled, so the price at the
moment of expiry is taken to be the shocked one already.

Backends: `numpy` (always there) and `numba` (extra `fast`), the same formula (`policies.risk._kernel`). Raw profits are doubles with a
stated error bound; what a Decision compares is `Revaluation.floored`, multiples of a unit rounded towards loss, which are the same on
every backend (`policies.risk.scenarios_exact` says how, and where that ends).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Literal

import numpy as np

from contracts.errors import BadInput
from policies.portfolio import UNIT_OF_ACCOUNT
from policies.risk import _kernel
from policies.risk._kernel import ERROR_ULPS, MOST_ROWS, ROWS, YEAR_S, Accumulate, Floats, OptionColumns, ShockColumns
from policies.risk.scenarios_book import PRECISE, Book
from policies.risk.scenarios_exact import UNCHANGED, ExactBook, Integers, floor_units, nearest_units
from policies.risk.scenarios_sets import Listed, Moves, Scenario, ScenarioSet

Backend = Literal["auto", "numpy", "numba"]
Contribution = tuple[str, Decimal]
Model = tuple[str, str, str]
"""Name, version of the formulas, backend: the arguments of `policies.decision.Model`."""
MODEL = "full_revaluation"
BLOCK = 1024
"""Scenarios worked on at once."""
_WORTH_IMPORTING = 2_000_000
"""Revaluations from which `auto` imports numba where nothing has yet: importing takes as long as numpy needs for twice as many."""
_ULP = 2.0**-53


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst scenario: its number and itself, the profit there (multiple of the unit, towards loss), and what each position adds, each
    rounded to the nearest unit on its own, with a last row `rounding` where needed, so that the rows add up to the profit exactly."""

    number: int
    scenario: Scenario
    pnl: Decimal
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Revaluation:
    """Profit of `book` in each of `scenarios`, in quote: `pnl` and `errors`, shape (scenarios,); |pnl - true profit| <= errors.

    `model` is what a Decision records.
    """

    book: Book
    scenarios: ScenarioSet
    pnl: Floats
    errors: Floats
    model: Model
    _exact: ExactBook = field(repr=False)
    _kept: dict[Decimal, Integers] = field(default_factory=dict, repr=False)

    def floored(self, unit: Decimal) -> Integers:
        """Profits as integer multiples of `unit`, rounded towards loss; the same on every backend. Raises BadInput: unit too fine."""
        if unit not in self._kept:
            self._kept[unit] = floor_units(
                self.pnl, self.errors, unit, lambda i: self._exact.total(self.scenarios.scenario(i))
            )
        return self._kept[unit]

    def worst(self, unit: Decimal) -> Worst:
        """The scenario with the least `floored` profit; of several, the first."""
        units = self.floored(unit)
        number = int(units.argmin())
        with localcontext(PRECISE):
            pnl = int(units[number]) * unit
        added = self.contributions(number, unit)
        with localcontext(PRECISE):
            rest = pnl - sum((amount for _, amount in added), Decimal(0))
        if rest:
            added = (*added, ("rounding", rest))
        return Worst(number, self.scenarios.scenario(number), pnl, added)

    def contributions(self, number: int, unit: Decimal) -> tuple[Contribution, ...]:
        """What each position adds in one scenario, in the order of the book, each rounded to the nearest unit; the same on every backend."""
        scenario = self.scenarios.scenario(number)
        pnl, errors = by_position(self.book, Listed((scenario,)))
        units = nearest_units(pnl[:, 0], errors[:, 0], unit, lambda i: self._exact.pnl(scenario, i))
        with localcontext(PRECISE):
            return tuple((label, int(n) * unit) for label, n in zip(self.book.labels, units, strict=True))


def unit_for(book: Book, at_least: Decimal = Decimal("0.01")) -> Decimal:
    """A unit that the doubles can carry for this book: `at_least`, or a power of ten above 1e-9 of the gross value. Exact.

    Gross value = |size| x price of everything, an option counting as spot + strike.
    """
    with localcontext(PRECISE):
        gross = sum((abs(p.size) * p.price for p in book.linears), Decimal(0))
        gross += sum((abs(p.contracts) * (1 + book.spot(p.asset) / p.entry_price) for p in book.inverses), Decimal(0))
        gross += sum((abs(p.size) * (p.strike + book.spot(p.asset)) for p in book.options), Decimal(0))
        gross += sum(
            (abs(p.liquidity) * p.upper_price.sqrt() * book.spot(p.asset1) * 2 for p in book.ranges), Decimal(0)
        )
        return max(at_least, Decimal(1).scaleb(gross.adjusted() - 9) if gross else at_least)


def backend_of(backend: Backend, revaluations: int) -> tuple[str, str, Accumulate]:
    """Name, version and kernel of a backend. `auto`: numba where it is installed and either imported already or worth importing.

    Raises BadInput when numba is asked for and absent.
    """
    chosen = backend
    if backend == "auto":
        installed = importlib.util.find_spec("numba") is not None
        ready = "policies.risk._kernel_numba" in sys.modules
        chosen = "numba" if installed and (ready or revaluations >= _WORTH_IMPORTING) else "numpy"
    if chosen == "numpy":
        return "numpy", np.__version__, _kernel.accumulate
    try:
        compiled = importlib.import_module("policies.risk._kernel_numba")
    except ImportError as error:
        raise BadInput(f"the numba backend is not there ({error}): install seawall[fast], or use numpy") from error
    return "numba", compiled.VERSION, compiled.accumulate


def revalue(book: Book, scenarios: ScenarioSet, *, backend: Backend = "auto", block: int = BLOCK) -> Revaluation:
    """Profit of the whole book in every scenario. One thread; memory is bounded by `block` scenarios beside one profit a scenario.

    Raises BadInput.
    """
    if block < 1:
        raise BadInput(f"a block of {block} scenarios: it must have at least one")
    name, version, accumulate = backend_of(backend, len(book.options) * len(scenarios))
    rows = ROWS if name == "numba" else MOST_ROWS
    columns = _columns_of(book)
    now = columns.now
    base = _option_values(columns, now, accumulate)[0]
    count = len(scenarios)
    pnl, errors = np.empty(count), np.empty(count)
    for start in range(0, count, block):
        stop = min(start + block, count)
        shocked = _Shocked(book, scenarios, start, stop)
        linear, gross = columns.closed_forms(shocked)
        pnl[start:stop] = linear.sum(axis=0) + (_option_values(columns, shocked, accumulate) - base)
        depth = rows + columns.count / ROWS + len(columns.options) + math.log2(2 + len(linear))
        errors[start:stop] = (
            (gross.sum(axis=0) + columns.gross(shocked) + columns.gross(now)) * _ULP * (ERROR_ULPS + depth)
        )
    model = (MODEL, _kernel.MODEL_VERSION, f"{name} {version}")
    return Revaluation(book, scenarios, pnl, errors, model, ExactBook(book))


def by_position(book: Book, scenarios: ScenarioSet) -> tuple[Floats, Floats]:
    """Profit of every position in every scenario and its error bound, shapes (positions, scenarios): for a few scenarios. numpy.

    Raises BadInput.
    """
    columns = _columns_of(book)
    now = columns.now
    shocked = _Shocked(book, scenarios, 0, len(scenarios))
    closed, closed_gross = columns.closed_forms(shocked)
    options, gross = np.zeros((len(book.options), len(scenarios))), np.zeros((len(book.options), len(scenarios)))
    for asset, (rows, held) in columns.options.items():
        everything = slice(0, held.strike.size)
        after = _kernel.values(held, shocked.of(asset), everything)
        options[rows] = after - _kernel.values(held, now.of(asset), everything)
        gross[rows] = columns.gross_rows(asset, shocked) + columns.gross_rows(asset, now)
    first = len(book.linears) + len(book.inverses)
    pnl = np.concatenate((closed[:first], options, closed[first:]))
    return pnl, np.concatenate((closed_gross[:first], gross, closed_gross[first:])) * _ULP * ERROR_ULPS


# -- from exact figures to columns of doubles ----------------------------------------------------------------------------------------


class _Shocked:
    """One block of scenarios as the kernels take it, worked out once per asset."""

    __slots__ = ("_moves", "_shocks", "book", "clock", "count", "set", "start")

    def __init__(self, book: Book, scenarios: ScenarioSet, start: int, stop: int) -> None:
        self.book, self.set, self.start, self.count = book, scenarios, start, stop - start
        self.clock = scenarios.clock(start, stop)
        self._moves: dict[str, Moves] = {}
        self._shocks: dict[str, ShockColumns] = {}

    def moves(self, asset: str) -> Moves:
        if asset not in self._moves:
            if asset == UNIT_OF_ACCOUNT:
                still = np.zeros(1)
                self._moves[asset] = Moves(still, still, still, still)
            else:
                self._moves[asset] = self.set.moves(asset, self.start, self.start + self.count)
        return self._moves[asset]

    def price(self, asset: str) -> Floats:
        """The shocked spot, shape (scenarios,)."""
        shocked = float(self.book.spot(asset)) * (1.0 + self.moves(asset).spot)
        return shocked if shocked.size == self.count else np.full(self.count, shocked[0])

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


def _option_values(columns: _Columns, shocked: _Shocked, accumulate: Accumulate) -> Floats:
    totals = np.zeros(shocked.count)
    for asset, (_, held) in columns.options.items():
        accumulate(held, shocked.of(asset), totals)
    return totals


def _columns_of(book: Book) -> _Columns:
    """The columns of a book, made once."""
    found = book.workings.get("columns")
    if not isinstance(found, _Columns):
        found = book.workings["columns"] = _Columns(book)
    return found


class _Columns:
    """A book as doubles: options by underlying (with their rows in the book), everything else as factors of closed forms."""

    __slots__ = ("book", "count", "now", "options")

    def __init__(self, book: Book) -> None:
        self.book, self.count = book, len(book.options)
        self.now = _Shocked(book, Listed((UNCHANGED,)), 0, 1)
        rows: dict[str, list[int]] = {}
        for i, option in enumerate(book.options):
            rows.setdefault(option.asset, []).append(i)
        self.options: dict[str, tuple[list[int], OptionColumns]] = {}
        for asset, numbers in rows.items():
            held = [book.options[i] for i in numbers]
            strike = np.array([float(o.strike) for o in held])
            self.options[asset] = (
                numbers,
                OptionColumns(
                    strike=strike,
                    log_strike=np.log(strike),
                    life_s=np.array([float(o.life_s) for o in held]),
                    vol=np.array([float(o.vol) for o in held]),
                    rate=np.array([float(o.rate) for o in held]),
                    carry=np.array([float(o.carry) for o in held]),
                    size=np.array([float(o.size) for o in held]),
                    sign=np.array([1.0 if o.is_call else -1.0 for o in held]),
                ),
            )

    def gross_rows(self, asset: str, shocked: _Shocked) -> Floats:
        """|size| x (forward + strike) x discount of each option, from above, shape (options, scenarios)."""
        reach, fixed = self._reach(asset, shocked)
        return reach[:, None] * shocked.of(asset).spot + fixed[:, None]

    def gross(self, shocked: _Shocked) -> Floats:
        """The sum of `gross_rows`, shape (scenarios,)."""
        total = np.zeros(shocked.count)
        for asset in self.options:
            reach, fixed = self._reach(asset, shocked)
            total += reach.sum() * shocked.of(asset).spot + fixed.sum()
        return total

    def _reach(self, asset: str, shocked: _Shocked) -> tuple[Floats, Floats]:
        """Factors of the shocked spot and constants in `gross_rows`.

        Growth is taken at its largest. The factor 1 + (growth + |ln K| + v) / 16 is for the rounding of the exponentials, of ln F - ln K
        and of the volatility, whose effect on a value is at most its size x 2^-53 x (forward + strike).
        """
        held, shocks = self.options[asset][1], shocked.of(asset)
        years = held.life_s / YEAR_S
        shift = np.abs(shocks.rate_shift).max()
        growth = (np.abs(held.carry) + np.abs(held.rate) + 2 * shift) * years
        vol = (held.vol * np.abs(shocks.vol_scale).max() + np.abs(shocks.vol_shift).max()) * np.sqrt(years)
        size = np.abs(held.size) * np.exp(growth) * (1.0 + (growth + np.abs(held.log_strike) + vol) / 16)
        return size * shocks.forward_scale.max(), size * held.strike

    def closed_forms(self, shocked: _Shocked) -> tuple[Floats, Floats]:
        """Profit and gross value of linears, inverses and ranges, shape (positions, scenarios)."""
        book = self.book
        rows = len(book.linears) + len(book.inverses) + len(book.ranges)
        pnl, gross = np.zeros((rows, shocked.count)), np.zeros((rows, shocked.count))
        row = 0
        for linear in book.linears:
            moves = shocked.moves(linear.asset)
            factor = moves.spot + (moves.basis * (1.0 + moves.spot) if linear.on_forward else 0.0)
            value = float(linear.size) * float(linear.price)
            pnl[row], gross[row] = value * factor, abs(value) * (1.0 + np.abs(factor))
            row += 1
        for inverse in book.inverses:
            moves, spot = shocked.moves(inverse.asset), float(book.spot(inverse.asset))
            contracts, entry, price = float(inverse.contracts), float(inverse.entry_price), float(inverse.price)
            settled = spot / price * (moves.basis / (1.0 + moves.basis))
            pnl[row] = contracts * (spot * moves.spot / entry + settled)
            gross[row] = abs(contracts) * (spot * (2.0 + np.abs(moves.spot)) / entry + spot / price + np.abs(settled))
            row += 1
        for number in range(len(book.ranges)):
            after, terms = self._range(number, shocked)
            before, terms_before = self._range(number, self.now)
            pnl[row], gross[row] = after - before, terms + terms_before
            row += 1
        return pnl, gross

    def _range(self, number: int, shocked: _Shocked) -> tuple[Floats, Floats]:
        """Value of one liquidity position, and the sum of its terms' sizes."""
        pool = self.book.ranges[number]
        price0, price1 = shocked.price(pool.asset0), shocked.price(pool.asset1)
        low, high = float(pool.lower_price) ** 0.5, float(pool.upper_price) ** 0.5
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.where(price1 > 0, np.clip(np.sqrt(price0 / price1), low, high), high)
        depth, owed0, owed1 = float(pool.liquidity), float(pool.owed0), float(pool.owed1)
        value = (depth * (1.0 / root - 1.0 / high) + owed0) * price0 + (depth * (root - low) + owed1) * price1
        size = (abs(depth) * (1.0 / root + 1.0 / high) + abs(owed0)) * price0
        return value, size + (abs(depth) * (root + low) + abs(owed1)) * price1
