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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import cache
from typing import Literal

import numpy as np

from contracts.errors import BadInput
from policies.risk import _kernel
from policies.risk._kernel import ERROR_ULPS, MOST_ROWS, ROWS, Floats, Kernel
from policies.risk.scenarios_book import PRECISE, Book, EuropeanOption
from policies.risk.scenarios_columns import Shocked, columns_of, option_values
from policies.risk.scenarios_exact import UNCHANGED, ExactBook, Integers, floor_units, nearest_units
from policies.risk.scenarios_sets import Listed, Scenario, ScenarioSet, Shock
from policies.risk.scenarios_shelf import Shelf

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
    _shelf: Shelf | None = field(default=None, repr=False)
    _kept: dict[tuple[Decimal, int | None], Integers] = field(default_factory=dict, repr=False)

    def floored(self, unit: Decimal, least: int | None = None) -> Integers:
        """Profits as integer multiples of `unit`, rounded towards loss; the same on every backend. With `least`, that many worst ones are,
        and no other is as bad. Raises BadInput: unit too fine."""
        if (unit, least) not in self._kept:
            self._kept[unit, least] = floor_units(
                self.pnl, self.errors, unit, lambda i: self._exact.total(self.scenarios.scenario(i)), least=least
            )
        return self._kept[unit, least]

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
        pnl, errors = self.by_position([number])
        units = nearest_units(pnl[:, 0], errors[:, 0], unit, lambda i: self._exact.pnl(scenario, i))
        with localcontext(PRECISE):
            return tuple((label, int(n) * unit) for label, n in zip(self.book.labels, units, strict=True))

    def by_position(self, numbers: Sequence[int]) -> tuple[Floats, Floats]:
        """Profit of every position in some of the scenarios and its error bound, shapes (positions, numbers)."""
        if self._shelf is None:
            return by_position(self.book, Listed([self.scenarios.scenario(number) for number in numbers]))
        pnl, gross = self._shelf.closed(self.book).rows(self._shelf.shocked)
        return _in_order(self.book, (pnl[:, numbers], gross[:, numbers]), self._shelf.rows(self.book, numbers))


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


def backend_of(backend: Backend, revaluations: int) -> tuple[str, str, Kernel]:
    """Name, version and kernel of a backend. `auto`: numba where it is installed and either imported already or worth importing.

    Raises BadInput when numba is asked for and absent.
    """
    chosen = backend
    if backend == "auto":
        ready = sys.modules.get("policies.risk._kernel_numba") is not None
        chosen = "numba" if ready or (revaluations >= _WORTH_IMPORTING and _has_numba()) else "numpy"
    if chosen == "numpy":
        return "numpy", np.__version__, _kernel  # type: ignore[return-value]  # a module is as good as an object
    try:
        compiled = importlib.import_module("policies.risk._kernel_numba")
    except ImportError as error:
        raise BadInput(f"the numba backend is not there ({error}): install seawall[fast], or use numpy") from error
    return "numba", compiled.VERSION, compiled


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def warm_up() -> str:
    """Import and compile what prices options, so that the first decision does not wait for it; the name of the backend from now on.

    Seconds where nothing has been compiled on this machine yet, tenths of one afterwards.
    """
    if not _has_numba():
        return "numpy"
    name, _, kernel = backend_of("numba", 0)
    option = EuropeanOption("warm-up", "A", True, Decimal(1), 86_400, Decimal(1), Decimal(1))
    book = Book({"A": Decimal(1)}, options=(option,))
    several = Listed([Scenario("up", {"A": Shock(Decimal(1), Decimal(1))}), UNCHANGED])
    for scenarios in (several, Listed([UNCHANGED])):
        revalue(book, scenarios, backend="numba")
        held, shocks = columns_of(book).options["A"][1], Shocked(book.spot, scenarios, 0, len(scenarios)).of("A")
        kernel.fill(held, shocks, np.empty((1, len(scenarios))))
    return name


def revalue(
    book: Book,
    scenarios: ScenarioSet,
    *,
    backend: Backend = "auto",
    block: int = BLOCK,
    shelf: Shelf | None = None,
) -> Revaluation:
    """Profit of the whole book in every scenario. One thread; memory is bounded by `block` scenarios beside one profit a scenario.

    `shelf`: options priced before in the same scenarios, which are not priced again (`policies.risk.scenarios_shelf`).
    Raises BadInput.
    """
    if block < 1:
        raise BadInput(f"a block of {block} scenarios: it must have at least one")
    if shelf is not None and shelf.takes(book):
        return _from_shelf(book, shelf)
    name, version, kernel = backend_of(backend, len(book.options) * len(scenarios))
    rows = ROWS if name == "numba" else MOST_ROWS
    columns = columns_of(book)
    now = columns.now
    base = option_values(columns, now, kernel.accumulate)[0]
    count = len(scenarios)
    pnl, errors = np.empty(count), np.empty(count)
    for start in range(0, count, block):
        stop = min(start + block, count)
        shocked = Shocked(book.spot, scenarios, start, stop)
        closed, gross = columns.closed.totals(shocked)
        pnl[start:stop] = closed + (option_values(columns, shocked, kernel.accumulate) - base)
        depth = rows + columns.count / ROWS + len(columns.options) + columns.closed.count
        errors[start:stop] = (gross + columns.gross(shocked) + columns.gross(now)) * _ULP * (ERROR_ULPS + depth)
    model = (MODEL, _kernel.MODEL_VERSION, f"{name} {version}")
    return Revaluation(book, scenarios, pnl, errors, model, ExactBook(book))


def _from_shelf(book: Book, shelf: Shelf) -> Revaluation:
    closed, gross = shelf.closed(book).totals(shelf.shocked)
    gained, reach = shelf.totals(book)
    depth = len(book.options) + len(book.linears) + len(book.inverses) + len(book.ranges)
    errors = (gross + reach) * _ULP * (ERROR_ULPS + depth)
    model = (MODEL, _kernel.MODEL_VERSION, f"{shelf.backend} {shelf.version}")
    return Revaluation(book, shelf.scenarios, closed + gained, errors, model, ExactBook(book), shelf)


def by_position(book: Book, scenarios: ScenarioSet) -> tuple[Floats, Floats]:
    """Profit of every position in every scenario and its error bound, shapes (positions, scenarios): for a few scenarios. numpy.

    Raises BadInput.
    """
    columns = columns_of(book)
    now = columns.now
    shocked = Shocked(book.spot, scenarios, 0, len(scenarios))
    options, gross = np.zeros((len(book.options), len(scenarios))), np.zeros((len(book.options), len(scenarios)))
    for asset, (rows, held) in columns.options.items():
        everything = slice(0, held.strike.size)
        after = _kernel.values(held, shocked.of(asset), everything)
        options[rows] = after - _kernel.values(held, now.of(asset), everything)
        gross[rows] = columns.gross_rows(asset, shocked) + columns.gross_rows(asset, now)
    return _in_order(book, columns.closed.rows(shocked), (options, gross))


def _in_order(book: Book, closed: tuple[Floats, Floats], options: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Profits and error bounds in the order of the book, from profits and gross values."""
    first = len(book.linears) + len(book.inverses)
    (pnl, gross), (option_pnl, option_gross) = closed, options
    errors = np.concatenate((gross[:first], option_gross, gross[first:])) * _ULP * ERROR_ULPS
    return np.concatenate((pnl[:first], option_pnl, pnl[first:])), errors
