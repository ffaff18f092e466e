"""Which case of Deribit's tables may be the worst of one underlying: `deribit`'s revaluations over arrays, with a bound on their error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from policies.risk.margin.screen import ERROR, may_be_least, undiscounted


class Case(Protocol):
    """One revaluation: a move of the forwards, of volatility, and the share that counts of an extended one."""

    @property
    def move(self) -> float: ...
    @property
    def vol(self) -> int: ...
    @property
    def share(self) -> float | None: ...


class Held(Protocol):
    """An option position; `vols` same, up and down."""

    @property
    def size(self) -> float: ...
    @property
    def forward(self) -> float: ...
    @property
    def strike(self) -> float: ...
    @property
    def years(self) -> float: ...
    @property
    def vols(self) -> tuple[float, float, float]: ...
    @property
    def is_call(self) -> bool: ...


def may_be_worst(
    linear: float, marks: float, options: Sequence[Held], cases: Sequence[Case], dampener: float
) -> Sequence[int]:
    """Places of the cases among which the worst is. `linear`: quote value that moves with the price; `marks` of the options, quote."""
    size, forward, strike, years = (
        np.array([getattr(option, name) for option in options]) for name in ("size", "forward", "strike", "years")
    )
    is_call = np.array([option.is_call for option in options])
    deviation = np.array([option.vols for option in options]).T * np.sqrt(years)
    move = np.array([case.move for case in cases])
    share = np.array([1.0 if case.share is None else case.share for case in cases])
    is_extended = np.array([case.share is not None for case in cases])
    moved = forward * (1 + move[:, None])
    values = undiscounted(moved, strike, deviation[[case.vol for case in cases]], is_call)
    scaled = (linear * move + (size * values).sum(axis=1) - marks) * share
    pnl = np.where(is_extended & (scaled < 0), np.minimum(scaled + dampener, 0.0), scaled)
    gross = (np.abs(size) * (np.abs(moved) + strike)).sum(axis=1) + np.abs(linear * move) + abs(marks) + abs(dampener)
    errors = ERROR * gross
    if dampener < 0:  # what is taken off jumps where a loss begins
        errors = np.where(is_extended & (np.abs(scaled) <= errors), errors - dampener, errors)
    return may_be_least(pnl, errors)
