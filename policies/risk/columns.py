"""Typed limits over columns: one pass over a whole history instead of one decision a moment.

The numeric core of a back-test. It follows `policies.rules` limit for limit: a value passes only if it is shown to be inside the bound
in force, a limit that was breached stays latched until its value is inside the bound tightened by the hysteresis, and a value that is
not finite is never a pass and moves no latch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from contracts.errors import BadInput

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
_TIMES_A_BLOCK = 4096


class Mark(IntEnum):
    """What one limit says at one time, in order of severity."""

    PASS = 0
    WARN = 1
    BREACHED = 2
    NOT_EVALUABLE = 3


@dataclass(frozen=True, slots=True)
class ColumnLimit:
    """One limit on one column. `bound` in the metric's unit; `hysteresis` >= 0 a fraction of |bound|; `warn_at` the share of the bound in
    use (value / max, or min / value) from which it warns, None for never."""

    id: str
    bound: float
    is_max: bool = True
    hysteresis: float = 0.0
    warn_at: float | None = 0.8


@dataclass(frozen=True, slots=True)
class Breaches:
    """What every limit said at every time; arrays have shape (times, limits).

    `marks` are `Mark` values (int8). `breached`: beyond the bound in force then, which is the tightened one while latched. `latched`: the
    latch as the moment was judged, that is, from earlier moments only.
    """

    limits: tuple[ColumnLimit, ...]
    marks: npt.NDArray[np.int8]
    breached: Booleans
    latched: Booleans

    def entries(self, limit: int) -> npt.NDArray[np.intp]:
        """The times (rows) at which a breach of one limit begins."""
        column = self.breached[:, limit]
        return np.flatnonzero(column & ~np.concatenate(([False], column[:-1])))

    def counts(self) -> dict[str, dict[str, int]]:
        """How often each limit said what: limit id -> mark name -> number of times."""
        return {
            limit.id: {mark.name: int((self.marks[:, i] == mark).sum()) for mark in Mark}
            for i, limit in enumerate(self.limits)
        }


def judge_columns(values: Floats, limits: Sequence[ColumnLimit], latched: Sequence[bool] | None = None) -> Breaches:
    """Judge every limit at every time.

    `values`: shape (times, limits), column i is what limit i observes, oldest first; `latched` is the state that an earlier stretch left
    (`Breaches.breached[-1]` of limits with hysteresis), so that a long history can be fed in pieces. Memory beside the result is bounded
    by a block of times. Figures are doubles: a value within one unit in the last place of its bound may fall on the other side than
    in exact arithmetic; judge such a moment with `policies.evaluate`. Raises BadInput.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(limits):
        raise BadInput(f"values have shape {values.shape}, {len(limits)} limits need (times, {len(limits)})")
    if any(not np.isfinite(limit.bound) or not 0 <= limit.hysteresis < np.inf for limit in limits):
        raise BadInput("a bound is not finite, or a hysteresis is negative: every limit needs a finite bound")
    # A minimum is a maximum of the mirrored value, so one comparison serves both.
    side = np.array([1.0 if limit.is_max else -1.0 for limit in limits])
    bound = np.array([limit.bound for limit in limits])
    hysteresis = np.array([limit.hysteresis for limit in limits])
    tight = side * bound - np.abs(bound) * hysteresis
    loose = side * bound
    # Value / bound >= share, for a minimum bound / value >= share; a share above everything never warns.
    share = np.array([np.inf if limit.warn_at is None else limit.warn_at for limit in limits])
    state = np.zeros(len(limits), dtype=np.bool_) if latched is None else np.array(latched, dtype=np.bool_)
    if state.shape != bound.shape:
        raise BadInput(f"{state.size} latches are given for {bound.size} limits")
    state &= hysteresis > 0

    times = values.shape[0]
    breached = np.empty(values.shape, dtype=np.bool_)
    before = np.empty(values.shape, dtype=np.bool_)
    marks = np.empty(values.shape, dtype=np.int8)
    for start in range(0, times, _TIMES_A_BLOCK):
        rows = slice(start, min(start + _TIMES_A_BLOCK, times))
        seen = values[rows]
        known = np.isfinite(seen)
        inside = known & (side * seen <= loose)
        beyond = known & ~inside
        well_inside = known & (side * seen <= tight)
        after = _latch(state, beyond, well_inside)
        before[rows] = np.concatenate((state[None], after[:-1])) & (hysteresis > 0)
        state = after[-1]
        breached[rows] = known & after
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            used = np.where(side > 0, seen / bound, bound / seen)
        warns = (bound > 0) & (seen >= 0) & (used >= share) & inside
        block = np.where(warns, Mark.WARN, Mark.PASS).astype(np.int8)
        block[breached[rows]] = Mark.BREACHED
        block[~known] = Mark.NOT_EVALUABLE
        marks[rows] = block
    return Breaches(tuple(limits), marks, breached, before)


def _latch(state: Booleans, sets: Booleans, clears: Booleans) -> Booleans:
    """A latch over time, column by column: on at `sets`, off at `clears`, else as it was; `state` before the first row."""
    rows = np.arange(1, sets.shape[0] + 1)[:, None]
    last = np.maximum.accumulate(np.where(sets | clears, rows, 0), axis=0)
    history = np.concatenate((state[None], sets))
    found: Booleans = np.take_along_axis(history, last, axis=0)
    return found
