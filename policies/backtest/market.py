"""Bars of several markets on one clock: the input of a back-test, checked once so that everything after may trust it.

A price *is* the decimal that its float64 prints as (`repr`, the shortest that reads back): exact arithmetic and numpy columns then start
from the same number. Text with up to 15 significant digits survives unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from contracts.errors import BadInput

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
_COLUMNS = ("times_s", "open", "high", "low", "close")
Where = Callable[[int], str]
"""Names the place of one row in its source, for messages."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Bars of one market. `times_s` (unix s) is when each bar opens; prices are unit of account per unit, all of shape (rows,)."""

    times_s: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Bars of all markets. `times_s` has shape (rows,), the prices (rows, assets), in the order of `assets`; `step_s` is the length of a
    bar. `gaps` counts places where bars are missing: nothing was judged there. `earlier` has the bars before the first, for what looks
    back."""

    assets: tuple[str, ...]
    times_s: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    step_s: int
    gaps: int
    earlier: Mapping[str, Series] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.times_s)

    def column(self, asset: str) -> int:
        """Raises BadInput for an asset whose bars were not given."""
        try:
            return self.assets.index(asset)
        except ValueError:
            raise BadInput(
                f"the book holds {asset}, and there are no bars of it: give them as --data {asset}=FILE "
                f"(there are {', '.join(self.assets)})"
            ) from None

    def prices(self, row: int, table: Floats) -> dict[str, Decimal]:
        """Exact prices of one row of `open`, `high`, `low` or `close`, by asset."""
        return {asset: exact(value) for asset, value in zip(self.assets, table[row], strict=True)}

    def end_s(self, row: int) -> int:
        """When the bar closes (unix s): the moment at which its close is known."""
        return int(self.times_s[row]) + self.step_s


def exact(value: float) -> Decimal:
    """The decimal that a float64 price stands for."""
    return Decimal(repr(float(value)))


def iso(time_s: int) -> str:
    """A moment as people read it, UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").replace(":00Z", "Z")


def series(
    times_s: Sequence[int] | Integers,
    open_: Sequence[float] | Floats | None,
    high: Sequence[float] | Floats,
    low: Sequence[float] | Floats,
    close: Sequence[float] | Floats,
    where: Where,
) -> Series:
    """Checked bars. Without `open_` a bar opens where the one before closed (the first at its own close, held inside low and high).

    Raises BadInput with the row for times that do not rise, prices that are not finite and positive, and bars whose open or close lies
    outside low and high.
    """
    times = np.asarray(times_s, dtype=np.int64)
    highs, lows, closes = (np.asarray(values, dtype=np.float64) for values in (high, low, close))
    if not len(times):
        raise BadInput(f"{where(0)}: there are no bars")
    follow: Floats = np.clip(np.concatenate([closes[:1], closes[:-1]]), lows, highs)
    opens = follow if open_ is None else np.asarray(open_, dtype=np.float64)
    for name, values in (("open", opens), ("high", highs), ("low", lows), ("close", closes)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            row = int(bad[0])
            raise BadInput(f"{where(row)}: {name} must be finite and positive, got {values[row]}")
    steps = np.flatnonzero(np.diff(times) <= 0)
    if len(steps):
        row = int(steps[0]) + 1
        raise BadInput(
            f"{where(row)}: bars must be in order, but {iso(int(times[row]))} follows {iso(int(times[row - 1]))}"
        )
    outside = (lows > np.minimum(opens, closes)) | (highs < np.maximum(opens, closes))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        shown = ", ".join(
            f"{name} {values[row]:g}"
            for name, values in (("open", opens), ("high", highs), ("low", lows), ("close", closes))
        )
        raise BadInput(f"{where(row)}: open and close must lie between low and high, got {shown}")
    return Series(times, opens, highs, lows, closes)


def align(
    markets: Mapping[str, Series], *, from_s: int | None = None, to_s: int | None = None, gaps: bool = False
) -> Market:
    """One clock for all markets, cut to `from_s` (inclusive) .. `to_s` (exclusive).

    The length of a bar is the smallest distance of two. Raises BadInput when markets have different bars, when none is left, or when
    bars are missing and `gaps` does not say that this is known.
    """
    if not markets:
        raise BadInput("a back-test needs bars: give --data FILE")
    cut, earlier = {}, {}
    for asset, given in markets.items():
        inside = np.ones(len(given.times_s), dtype=bool)
        if from_s is not None:
            inside &= given.times_s >= from_s
        if to_s is not None:
            inside &= given.times_s < to_s
        if not inside.any():
            raise BadInput(
                f"the bars of {asset} run from {iso(int(given.times_s[0]))} to {iso(int(given.times_s[-1]))}: none is in that window"
            )
        cut[asset] = Series(*(getattr(given, name)[inside] for name in _COLUMNS))
        before = given.times_s < cut[asset].times_s[0]
        if before.any():
            earlier[asset] = Series(*(getattr(given, name)[before] for name in _COLUMNS))
    assets = tuple(sorted(cut))
    times = cut[assets[0]].times_s
    for asset in assets[1:]:
        other = cut[asset].times_s
        if len(other) != len(times) or (other != times).any():
            apart = sorted(set(other.tolist()) ^ set(times.tolist()))
            raise BadInput(
                f"{assets[0]} and {asset} have different bars: {len(apart)} of them, the first at {iso(apart[0])}, are in one file only; "
                "cut both to what they share with --from and --to"
            )
    distances = np.diff(times)
    step = int(distances.min()) if len(distances) else 60
    holes = np.flatnonzero(distances != step)
    if len(holes) and not gaps:
        first = int(holes[0])
        raise BadInput(
            f"bars are missing in {len(holes)} place(s), the first between {iso(int(times[first]))} and {iso(int(times[first + 1]))}: "
            "cut out one stretch with --from and --to, or say --gaps to go on over them (nothing is judged inside a gap)"
        )
    table = {name: np.stack([getattr(cut[asset], name) for asset in assets], axis=1)
             for name in ("open", "high", "low", "close")}  # fmt: skip
    return Market(assets, times, **table, step_s=step, gaps=len(holes), earlier=earlier)
