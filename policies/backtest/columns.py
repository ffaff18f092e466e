"""Limits over whole columns of prices at once, with numpy: each value with a bound on its error, so that nothing is decided by rounding.

The engine's own arithmetic is exact and takes a fraction of a millisecond for one moment. Here every metric that is a rational function of
the prices is computed in float64 for a block of moments, together with a bound E on how far it may be from the exact value:

    |float value - exact value| <= E = 2e-11 x (sum of the magnitudes that went into it), carried through products and quotients

A sum of n <= 10^4 products in float64 is off by at most (n + 2) x 2^-53 < 1.2e-12 of those magnitudes, the conversion of each amount and
price by 2^-53 more, and the engine's own rounding is 1e-18 of a quotient: all inside E. A moment is decided here only if the whole
interval value +- E lies on one side of the bound; every other moment is UNSURE and the engine judges it again. So the columns and
the engine agree by construction, and the tests check that on random books and on bounds that are hit exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from policies.backtest.judge import State, standing
from policies.backtest.market import Floats, Integers
from policies.policy import Limit
from policies.portfolio import UNIT_OF_ACCOUNT
from policies.verdicts import bound_in_force

EPSILON = 2e-11
ROUNDING = 1e-17
"""Ten times the last digit that the engine keeps of a quotient."""
UNSURE = -1
States: TypeAlias = npt.NDArray[np.int8]
Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Approx:
    """A column of values, each within `error` of the exact one; an infinite error means that nothing is known."""

    value: Floats
    error: Floats

    def __add__(self, other: Approx) -> Approx:
        return Approx(self.value + other.value, self.error + other.error)

    def __neg__(self) -> Approx:
        return Approx(-self.value, self.error)

    def __sub__(self, other: Approx) -> Approx:
        return self + -other

    def scaled(self, by: float) -> Approx:
        """Times a constant that is itself a rounded decimal."""
        return Approx(self.value * by, (self.error + EPSILON * np.abs(self.value)) * abs(by))

    def magnitude(self) -> Approx:
        """Absolute values."""
        return Approx(np.abs(self.value), self.error)

    def over(self, below: Approx) -> Approx:
        """The quotient, as the engine rounds it. Unknown where the denominator may be zero."""
        room = np.abs(below.value) - below.error
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = self.value / below.value
            error = (self.error + np.abs(value) * below.error) / room + EPSILON * np.abs(value) + ROUNDING
        return Approx(np.where(room > 0, value, 0.0), np.where(room > 0, error, np.inf))

    def clipped(self, low: float, high: float) -> Approx:
        """Held inside two constants."""
        return Approx(np.clip(self.value, low, high), self.error)


def smallest(columns: Iterable[Approx]) -> Approx:
    """The least of several; its error is the largest of theirs."""
    return _extreme(columns, np.minimum)


def largest(columns: Iterable[Approx]) -> Approx:
    """The greatest of several; its error is the largest of theirs."""
    return _extreme(columns, np.maximum)


def _extreme(columns: Iterable[Approx], choose: Callable[[Floats, Floats], Floats]) -> Approx:
    value, *rest = columns
    for column in rest:
        value = Approx(choose(value.value, column.value), np.maximum(value.error, column.error))
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Equity on record: when (unix s) and how much, each within `error`."""

    times_s: Integers
    value: Floats
    error: Floats


@dataclass(frozen=True, slots=True)
class Linear:
    """constant + sum of weight x price, with the magnitudes of what was added up."""

    constant: Decimal = Decimal(0)
    weights: Mapping[str, Decimal] | None = None
    magnitude: Decimal = Decimal(0)
    weight_magnitudes: Mapping[str, Decimal] | None = None

    @classmethod
    def of(cls, constants: Iterable[Decimal], weighted: Iterable[tuple[str, Decimal]]) -> Linear:
        """From the summands."""
        constant = magnitude = Decimal(0)
        for item in constants:
            constant, magnitude = constant + item, magnitude + abs(item)
        weights: dict[str, Decimal] = {}
        sizes: dict[str, Decimal] = {}
        for asset, weight in weighted:
            if asset == UNIT_OF_ACCOUNT:
                constant, magnitude = constant + weight, magnitude + abs(weight)
            else:
                weights[asset] = weights.get(asset, Decimal(0)) + weight
                sizes[asset] = sizes.get(asset, Decimal(0)) + abs(weight)
        return cls(constant, weights, magnitude, sizes)

    def over(self, block: Block) -> Approx:
        """The column over a block of prices."""
        held = [i for i, asset in enumerate(block.assets) if asset in (self.weights or {})]
        names = [block.assets[i] for i in held]
        weights = np.array([float((self.weights or {})[a]) for a in names])
        sizes = np.array([float((self.weight_magnitudes or {})[a]) for a in names])
        prices = block.prices if len(held) == len(block.assets) else block.prices[:, held]
        value = float(self.constant) + prices @ weights
        return Approx(value, EPSILON * (float(self.magnitude) + prices @ sizes))


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Several moments: prices of shape (rows, assets), and when they were (unix s), of shape (rows,). `record` is the equity on record up to
    the last of them, `first` the place in it of what is on record just before the first."""

    assets: tuple[str, ...]
    prices: Floats
    times_s: Integers
    record: Record | None = None
    first: int = 0

    @property
    def rows(self) -> int:
        return len(self.prices)

    def price(self, asset: str) -> Approx:
        """One asset's column; the unit of account's is 1."""
        if asset == UNIT_OF_ACCOUNT:
            return Approx(np.ones(self.rows), np.zeros(self.rows))
        column = self.prices[:, self.assets.index(asset)]
        return Approx(column, np.zeros(self.rows))


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One metric over a block. `known` is False where the engine finds it not evaluable, for certain; `exact` is the value of all moments
    where it is one and the same, whatever the prices."""

    approx: Approx
    known: Flags | None = None
    exact: Decimal | None = None


Compiled = Callable[[Block], Column]


def states(limit: Limit, column: Column, *, latched: bool = False) -> States:
    """Where the limit stands against its bound in force at each moment: a State, or UNSURE where the error does not let it be said."""
    value, edge = column.approx.value, float(bound_in_force(limit, latched=latched))
    if column.exact is not None:
        return np.full(len(value), standing(limit, column.exact, latched=latched), dtype=np.int8)
    slack = column.approx.error + EPSILON * abs(edge)
    beyond, inside = (
        (value - slack > edge, value + slack < edge) if limit.is_max else (value + slack < edge, value - slack > edge)
    )
    found = np.full(len(value), UNSURE, dtype=np.int8)
    found[beyond] = State.BREACH
    warned, quiet = _warned(limit, edge, value, column.approx.error)
    found[inside & warned] = State.WARN
    found[inside & quiet] = State.PASS
    if column.known is not None:
        found[~column.known] = State.UNKNOWN
    return found


def _warned(limit: Limit, edge: float, value: Floats, error: Floats) -> tuple[Flags, Flags]:
    """(certainly at or above warn_at of the bound, certainly below): utilisation is value / max or min / value, where positive."""
    at = float(limit.warn_at)
    never = np.zeros(len(value), dtype=bool)
    if edge <= 0:
        return never, ~never
    if at <= 0:
        return (value - error > 0), (value + error < 0)
    level = at * edge if limit.is_max else edge / at
    slack = error + level * (1e-9 + ROUNDING / at)
    low, high = value + slack < level, value - slack > level
    negative = value + slack < 0
    return (high, low) if limit.is_max else (low & ~negative & (value - slack > 0), high | negative)
