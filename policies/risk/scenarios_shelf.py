"""Options priced once for several books: what one unit of each gains in every scenario of one set.

An operation changes few positions, and a book may hold one option at several places: the figures of one unit serve them all, and the profit
of a book is a product with its sizes. Kept while a decision is made, for sets and books small enough (`MOST`); beyond, a book is
revalued in blocks (`policies.risk.scenarios.revalue`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from contracts.errors import BadInput
from policies.risk._kernel import Floats, Kernel
from policies.risk.scenarios_book import Book, EuropeanOption
from policies.risk.scenarios_columns import UNCHANGED_SET, ClosedForms, Shocked, by_asset, option_columns, reach
from policies.risk.scenarios_sets import ScenarioSet

MOST = 1 << 20
"""Options x scenarios that are kept: 8 MB of doubles."""
_Instrument = tuple[str, bool, Decimal, int, Decimal, Decimal, Decimal]


class Shelf:
    """What one unit of each option gains in each scenario of `scenarios`, and how large what was subtracted is.

    All books that it is asked about are of one moment: an asset has the same index price in all of them.
    """

    def __init__(self, scenarios: ScenarioSet, backend: tuple[str, str, Kernel]) -> None:
        self.scenarios = scenarios
        self.backend, self.version, self._kernel = backend
        self._spots: dict[str, Decimal] = {}
        self.shocked = Shocked(self._spot, scenarios, 0, len(scenarios))
        self._now = Shocked(self._spot, UNCHANGED_SET, 0, 1)
        self._rows: dict[_Instrument, int] = {}
        self._known: dict[int, tuple[EuropeanOption, int]] = {}
        """Rows of options that were asked about, by identity; an option kept here stays alive, and its identity with it."""
        self._gains = np.empty((0, len(scenarios)))
        self._moving: Floats = np.empty(0)
        self._fixed: Floats = np.empty(0)
        self._asset: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._assets: list[str] = []
        self._books: dict[int, tuple[Book, npt.NDArray[np.intp], Floats, ClosedForms]] = {}

    def takes(self, book: Book) -> bool:
        """Whether the book is small enough for these scenarios."""
        return (len(self._rows) + len(book.options)) * len(self.scenarios) <= MOST

    def closed(self, book: Book) -> ClosedForms:
        """Everything of the book that is no option."""
        return self._of(book)[3]

    def totals(self, book: Book) -> tuple[Floats, Floats]:
        """What all options of the book gain in each scenario, and the gross value of what was added up, shapes (scenarios,)."""
        _, rows, sizes, _ = self._of(book)
        used = np.unique(rows)
        held = np.bincount(rows, sizes, len(self._rows))[used]
        gross = np.bincount(rows, np.abs(sizes), len(self._rows))[used]
        gains = self._gains if used.size == len(self._rows) else self._gains[used]
        moving, fixed = gross * self._moving[used], gross * self._fixed[used]
        size = np.full(len(self.scenarios), fixed.sum())
        of_asset = np.bincount(self._asset[used], moving, len(self._assets))
        for asset, weight in zip(self._assets, of_asset, strict=True):
            if weight:
                size += weight * self._reached(asset)
        return np.einsum("i,ij->j", held, gains), size

    def rows(self, book: Book, numbers: Sequence[int]) -> tuple[Floats, Floats]:
        """The same option by option, in some of the scenarios, shapes (options, numbers)."""
        _, rows, sizes, _ = self._of(book)
        chosen = np.asarray(numbers, dtype=np.intp)
        reached = np.array([self._reached(asset)[chosen] for asset in self._assets]).reshape(-1, chosen.size)
        weight = np.abs(sizes)[:, None]
        gross = weight * (self._moving[rows, None] * reached[self._asset[rows]] + self._fixed[rows, None])
        return sizes[:, None] * self._gains[rows[:, None], chosen], gross

    # -- what is on it ----------------------------------------------------------------------------------------------------------------

    def _spot(self, asset: str) -> Decimal:
        return self._spots[asset]

    def _reached(self, asset: str) -> Floats:
        """The price that gross values are proportional to: as shocked and as of now together."""
        return self.shocked.price(asset) + self._now.price(asset)

    def _of(self, book: Book) -> tuple[Book, npt.NDArray[np.intp], Floats, ClosedForms]:
        found = self._books.get(id(book))
        if found is None:
            for asset, spot in book.spots.items():
                if self._spots.setdefault(asset, spot) != spot:
                    raise BadInput(f"two books of one moment have {asset} at {spot} and {self._spots[asset]}")
            self._spots.setdefault("USDC", Decimal(1))
            rows = self._numbered(book.options)
            sizes = np.array([float(option.size) for option in book.options])
            found = self._books[id(book)] = (book, rows, sizes, ClosedForms(book, self._now))
        return found

    def _numbered(self, options: Sequence[EuropeanOption]) -> npt.NDArray[np.intp]:
        """The row of each option; those that are met for the first time are priced."""
        fresh: list[EuropeanOption] = []
        for option in options:
            if id(option) not in self._known:
                key = (
                    option.asset,
                    option.is_call,
                    option.strike,
                    option.life_s,
                    option.vol,
                    option.rate,
                    option.carry,
                )
                row = self._rows.get(key)
                if row is None:
                    row = self._rows[key] = len(self._rows)
                    fresh.append(option)
                self._known[id(option)] = option, row
        if fresh:
            self._price(fresh)
        return np.array([self._known[id(option)][1] for option in options], dtype=np.intp)

    def _price(self, fresh: Sequence[EuropeanOption]) -> None:
        count = len(fresh)
        gains, moving, fixed = np.empty((count, len(self.scenarios))), np.empty(count), np.empty(count)
        assets = np.empty(count, dtype=np.intp)
        for asset, numbers in by_asset(fresh).items():
            held = option_columns([fresh[i] for i in numbers])
            one = replace(held, size=np.ones(len(numbers)))
            shocks, still = self.shocked.of(asset), self._now.of(asset)
            after, before = np.empty((len(numbers), len(self.scenarios))), np.empty((len(numbers), 1))
            self._kernel.fill(one, shocks, after)
            self._kernel.fill(one, still, before)
            gains[numbers] = after - before
            # each factor of the price from above, for now and as shocked: the larger serves both
            (up, strikes), (up_now, strikes_now) = reach(held, shocks), reach(held, still)
            moving[numbers], fixed[numbers] = np.maximum(up, up_now), strikes + strikes_now
            if asset not in self._assets:
                self._assets.append(asset)
            assets[numbers] = self._assets.index(asset)
        self._gains = np.concatenate((self._gains, gains)) if self._gains.size else gains
        self._moving = np.concatenate((self._moving, moving))
        self._fixed = np.concatenate((self._fixed, fixed))
        self._asset = np.concatenate((self._asset, assets))
