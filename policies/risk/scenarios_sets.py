"""What may happen: scenarios as full grids, as lists, and as replays of history. A set is asked for a block at a time, never unrolled.

One scenario moves every underlying at once, lets time pass and shifts rates:

    spot' = spot x (1 + spot move)          sigma' = max(sigma x (1 + relative) + absolute, 0)     T' = max(T - time, 0)
    forward' = spot' x exp((b + rate shift) T') x (1 + basis)      discount' = exp(-(r + rate shift) T')
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

import numpy as np

from contracts.errors import BadInput
from policies.portfolio import Returns
from policies.risk._kernel import Floats
from policies.risk.scenarios_book import Number, exact
from policies.series import series_of

_ZERO = np.zeros(1)


@dataclass(frozen=True, slots=True)
class Shock:
    """What happens to one underlying: relative move of its spot (>= -1), relative and absolute change of its volatilities (absolute: 0.1
    = ten points), and relative change of forwards and derivatives' marks over and above the spot's (`basis` > -1)."""

    spot: Decimal = Decimal(0)
    vol_relative: Decimal = Decimal(0)
    vol_absolute: Decimal = Decimal(0)
    basis: Decimal = Decimal(0)


NO_SHOCK = Shock()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named scenario: `shocks` by asset, `otherwise` for every other asset, `time_s` >= 0 seconds that pass, `rate` added to every
    annual rate (at constant dividend yield: discounting and carry move together)."""

    name: str
    shocks: Mapping[str, Shock] = field(default_factory=dict)
    otherwise: Shock = NO_SHOCK
    time_s: int = 0
    rate: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        for shock in (*self.shocks.values(), self.otherwise):
            if not all(x.is_finite() for x in (shock.spot, shock.vol_relative, shock.vol_absolute, shock.basis)):
                raise BadInput(f"scenario {self.name} has a shock that is not finite: {shock}")
            if shock.spot < -1 or shock.basis <= -1:
                raise BadInput(f"scenario {self.name} moves a price by less than -100 %: {shock}")
        if self.time_s < 0 or not self.rate.is_finite() or abs(self.rate) > 10:
            raise BadInput(
                f"scenario {self.name} has time {self.time_s} s and rate shift {self.rate}: time must be >= 0, rates below 10"
            )

    def of(self, asset: str) -> Shock:
        return self.shocks.get(asset, self.otherwise)


@dataclass(frozen=True, slots=True)
class Moves:
    """One block of scenarios for one asset, as doubles: arrays of shape (scenarios,), or (1,) where all are alike."""

    spot: Floats
    vol_relative: Floats
    vol_absolute: Floats
    basis: Floats


class ScenarioSet(Protocol):
    """Scenarios in a fixed order, numbered from 0."""

    def __len__(self) -> int: ...

    def scenario(self, number: int) -> Scenario:
        """One scenario in exact figures."""
        ...

    def moves(self, asset: str, start: int, stop: int) -> Moves:
        """What scenarios start..stop-1 do to `asset`."""
        ...

    def clock(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Seconds that pass and rate shifts of scenarios start..stop-1, shapes as in Moves."""
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of the axes, the spot axis innermost, then volatility, time, rate, basis: number of scenarios = product of
    lengths. `assets` are the underlyings that move together; None: all. Volatility is one axis of (relative, absolute) pairs.

    Raises BadInput for an empty axis or a shock out of bounds.
    """

    spot: Sequence[Number] = (0,)
    vol: Sequence[tuple[Number, Number]] = ((0, 0),)
    time_s: Sequence[int] = (0,)
    rate: Sequence[Number] = (0,)
    basis: Sequence[Number] = (0,)
    assets: frozenset[str] | None = None
    _exact: tuple[tuple[Decimal, ...], ...] = field(init=False, repr=False, compare=False)
    _axes: tuple[Floats, ...] = field(init=False, repr=False, compare=False)
    _strides: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        written = (
            tuple(exact(x) for x in self.spot),
            tuple(exact(x) for x, _ in self.vol),
            tuple(exact(x) for _, x in self.vol),
            tuple(exact(x) for x in self.time_s),
            tuple(exact(x) for x in self.rate),
            tuple(exact(x) for x in self.basis),
        )
        if not all(written):
            raise BadInput("an axis of the grid is empty: give each at least one value, 0 for no shock")
        spots, vols, _, times, rates, _ = (len(axis) for axis in written)
        strides = (1, spots, spots, spots * vols, spots * vols * times, spots * vols * times * rates)
        object.__setattr__(self, "_exact", written)
        object.__setattr__(self, "_axes", tuple(np.array([float(x) for x in axis]) for axis in written))
        object.__setattr__(self, "_strides", strides)
        for number in range(max(len(axis) for axis in written)):
            self._at(tuple(axis[min(number, len(axis) - 1)] for axis in written))

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in (self.spot, self.vol, self.time_s, self.rate, self.basis))

    def _index(self, axis: int, number: int) -> int:
        return number // self._strides[axis] % len(self._exact[axis])

    def _at(self, values: tuple[Decimal, ...]) -> Scenario:
        spot, relative, absolute, time_s, rate, basis = values
        parts = (("spot", spot), ("vol x", relative), ("vol +", absolute), ("rate +", rate), ("basis", basis))
        name = ", ".join(
            [f"{what} {value:+%}" for what, value in parts if value] + ([f"after {time_s} s"] if time_s else [])
        )
        shock = Shock(spot, relative, absolute, basis)
        if self.assets is None:
            return Scenario(name or "unchanged", {}, shock, int(time_s), rate)
        return Scenario(name or "unchanged", dict.fromkeys(sorted(self.assets), shock), NO_SHOCK, int(time_s), rate)

    def scenario(self, number: int) -> Scenario:
        return self._at(tuple(axis[self._index(i, number)] for i, axis in enumerate(self._exact)))

    def _column(self, axis: int, start: int, stop: int) -> Floats:
        """Values on one axis; a single one where the block does not leave it."""
        values, stride = self._axes[axis], self._strides[axis]
        if values.size == 1 or start // stride == (stop - 1) // stride:
            return values[[start // stride % values.size]]
        return values[np.arange(start, stop) // stride % values.size]

    def moves(self, asset: str, start: int, stop: int) -> Moves:
        if self.assets is not None and asset not in self.assets:
            return Moves(_ZERO, _ZERO, _ZERO, _ZERO)
        return Moves(*(self._column(axis, start, stop) for axis in (0, 1, 2, 5)))

    def clock(self, start: int, stop: int) -> tuple[Floats, Floats]:
        return self._column(3, start, stop), self._column(4, start, stop)


class Listed:
    """Scenarios one by one, in exact figures: named shocks, or random ones drawn elsewhere. At least one. Raises BadInput."""

    __slots__ = ("_clock", "_moves", "_scenarios")

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        if not scenarios:
            raise BadInput("there is no scenario")
        self._scenarios = tuple(scenarios)
        self._moves: dict[str | None, tuple[Floats, ...]] = {}
        named = {asset for scenario in self._scenarios for asset in scenario.shocks}
        for asset in (None, *sorted(named)):
            shocks = [s.otherwise if asset is None else s.of(asset) for s in self._scenarios]
            self._moves[asset] = tuple(
                np.array([float(x) for x in column])
                for column in zip(*((s.spot, s.vol_relative, s.vol_absolute, s.basis) for s in shocks), strict=True)
            )
        self._clock = (
            np.array([float(s.time_s) for s in self._scenarios]),
            np.array([float(s.rate) for s in self._scenarios]),
        )

    def __len__(self) -> int:
        return len(self._scenarios)

    def scenario(self, number: int) -> Scenario:
        return self._scenarios[number]

    def moves(self, asset: str, start: int, stop: int) -> Moves:
        columns = self._moves.get(asset) or self._moves[None]
        return Moves(*(_collapsed(column[start:stop]) for column in columns))

    def clock(self, start: int, stop: int) -> tuple[Floats, Floats]:
        elapsed_s, rate = self._clock
        return _collapsed(elapsed_s[start:stop]), _collapsed(rate[start:stop])


class Replay:
    """History repeated on today's book: scenario i applies the i-th return of every asset together. Volatilities, rates and time stand
    still unless `vol_relative` has series of relative changes of implied volatility, or `time_s` seconds pass in each scenario.

    `spot`: simple returns by asset, equally long, oldest first, each >= -1; assets without a series stand still. Arrays of doubles are
    taken too; their exact figure is the shortest decimal that reads back. `name`: what a scenario is called. Raises BadInput.
    """

    __slots__ = ("_columns", "_name", "_spot", "_time_s", "_vol")

    def __init__(
        self,
        spot: Mapping[str, Sequence[Number] | Floats],
        vol_relative: Mapping[str, Sequence[Number] | Floats] | None = None,
        time_s: int = 0,
        name: Callable[[int], str] = "return {}".format,
    ) -> None:
        self._spot, self._vol, self._time_s, self._name = dict(spot), dict(vol_relative or {}), time_s, name
        lengths = {len(values) for values in (*self._spot.values(), *self._vol.values())}
        if len(lengths) != 1 or 0 in lengths:
            raise BadInput(
                f"the series of a replay have lengths {sorted(lengths)}: they must be equally long and not empty"
            )
        if time_s < 0:
            raise BadInput(f"time {time_s} s: time must be >= 0")
        self._columns = {
            (kind, asset): _doubles(values)
            for kind, series in (("spot", self._spot), ("vol", self._vol))
            for asset, values in series.items()
        }
        for (kind, asset), column in self._columns.items():
            if not np.isfinite(column).all() or (kind == "spot" and column.min() < -1):
                raise BadInput(
                    f"the {kind} returns of {asset} must be finite, and no price can fall by more than 100 %"
                )

    @classmethod
    def of(cls, returns: Sequence[Returns], time_s: int = 0) -> Replay:
        """The replay of facts: the latest returns that every asset has, aligned at their end. All must have one period and one end."""
        if not returns:
            raise BadInput("there are no returns to replay")
        if len({(r.period_s, r.until_s) for r in returns}) != 1:
            shown = ", ".join(f"{r.asset}: every {r.period_s} s until {r.until_s}" for r in returns)
            raise BadInput(f"returns do not belong together ({shown}): they need one period and one end")
        if len({r.asset for r in returns}) != len(returns):
            raise BadInput("an asset has two series of returns")
        shortest = min(len(r.values) for r in returns)
        period_s = returns[0].period_s
        first = returns[0].until_s - shortest * period_s
        return cls(
            {r.asset: r.values[len(r.values) - shortest :] for r in returns},
            time_s=time_s,
            name=lambda i: f"{first + i * period_s} to {first + (i + 1) * period_s}",
        )

    def __len__(self) -> int:
        return next(iter(self._columns.values())).size

    def scenario(self, number: int) -> Scenario:
        assets = sorted({*self._spot, *self._vol})
        return Scenario(
            self._name(number),
            {
                asset: Shock(
                    spot=_figure(self._spot.get(asset), number), vol_relative=_figure(self._vol.get(asset), number)
                )
                for asset in assets
            },
            time_s=self._time_s,
        )

    def moves(self, asset: str, start: int, stop: int) -> Moves:
        spot, vol = self._columns.get(("spot", asset)), self._columns.get(("vol", asset))
        return Moves(
            _ZERO if spot is None else spot[start:stop], _ZERO if vol is None else vol[start:stop], _ZERO, _ZERO
        )

    def clock(self, start: int, stop: int) -> tuple[Floats, Floats]:  # noqa: ARG002
        return np.array([float(self._time_s)]), _ZERO


def _doubles(values: Sequence[Number] | Floats) -> Floats:
    if isinstance(values, tuple) and values and isinstance(values[0], Decimal) and len({*map(type, values)}) == 1:
        return np.array(series_of(values).doubles)  # a history is the same from one decision to the next
    return np.array([float(x) for x in values])


def _figure(series: Sequence[Number] | Floats | None, number: int) -> Decimal:
    if series is None:
        return Decimal(0)
    value = series[number]
    return exact(value if isinstance(value, Decimal) else float(value))


def _collapsed(column: Floats) -> Floats:
    """The column, or its one value where all are alike."""
    return column[:1] if (column == column[0]).all() else column
