"""A long series of figures, which is the same from one operation to the next: what is worked out of it, worked out once.

A history of a thousand returns is most of what a Decision reads, and the next operation is judged on the same one. Results are remembered
by the figures themselves (equal series have equal results, whoever made them), for the few series that were used last.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from decimal import Decimal
from functools import cached_property
from typing import TypeVar

Figures = tuple[Decimal, ...]
_Result = TypeVar("_Result")
LONG = 64
"""Figures from which a series is worth remembering."""
_REMEMBERED = 32


class Series:
    """One tuple of Decimals with what was asked of it so far."""

    def __init__(self, values: Figures) -> None:
        self.values = values
        self.kept: dict[object, object] = {}
        """What others worked out of the same figures, by a key of theirs."""

    @cached_property
    def is_finite(self) -> bool:
        """Whether every figure is finite."""
        return all(map(Decimal.is_finite, self.values))

    @cached_property
    def least(self) -> Decimal:
        """The least figure. Raises ValueError for none; only for finite ones."""
        return min(self.values)

    @cached_property
    def doubles(self) -> array[float]:
        """Every figure as the nearest double."""
        return array("d", map(float, self.values))

    def once(self, key: object, compute: Callable[[Figures], _Result]) -> _Result:
        """`compute(values)`, remembered with the series under `key`."""
        if key not in self.kept:
            self.kept[key] = compute(self.values)
        return self.kept[key]  # type: ignore[return-value]  # one key stands for one function


_SERIES: dict[tuple[object, ...], Series] = {}


def series_of(values: Figures) -> Series:
    """The series with these figures, all of them Decimals: an earlier one where it was remembered.

    A series with a figure that is no number is never found again, except by the same tuple.
    """
    if len(values) < LONG:
        return Series(values)
    # a few figures tell most histories apart; hashing all of them would cost more than comparing
    place = (len(values), str(values[0]), str(values[len(values) // 2]), str(values[-1]))
    found = _SERIES.get(place)
    if found is None or not (found.values is values or _equal(found.values, values)):
        found = Series(values)
        if len(_SERIES) >= _REMEMBERED:
            _SERIES.clear()
        _SERIES[place] = found
    return found


def _equal(one: Figures, other: Figures) -> bool:
    try:
        return one == other
    except ArithmeticError:  # a signaling NaN compares with nothing
        return False
