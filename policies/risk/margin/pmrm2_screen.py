"""Which of PMRM's scenarios may be the worst of an account: `derive_pmrm2`'s revaluations over arrays, with a bound on their error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from policies.risk.margin.pmrm2_parameters import Scenario, VolShock
from policies.risk.margin.screen import ERROR, Floats, may_be_least, undiscounted


class Holding(Protocol):
    """Options of one instrument."""

    @property
    def strike(self) -> float: ...
    @property
    def amount(self) -> float: ...
    @property
    def is_call(self) -> bool: ...


class Expiry(Protocol):
    """Options of one expiry, at least one, and what is the same in every scenario."""

    @property
    def options(self) -> Sequence[Holding]: ...
    @property
    def forward(self) -> float: ...
    @property
    def fixed(self) -> float: ...
    @property
    def discount(self) -> float: ...
    @property
    def years(self) -> float: ...
    @property
    def long_factors(self) -> tuple[float, float]: ...
    @property
    def short_factor(self) -> float: ...
    def vols_at(self, shock: VolShock) -> list[float]:
        """Volatilities under a shock, an option each."""
        ...


def may_be_worst(
    linear: float, expiries: Sequence[Expiry], marks: Sequence[float], scenarios: Sequence[Scenario]
) -> Sequence[int]:
    """Places of the scenarios among which the worst is. `linear` and `marks` (of each expiry) in quote."""
    counts = [len(expiry.options) for expiry in expiries]
    starts = np.cumsum([0, *counts[:-1]])
    options = [option for expiry in expiries for option in expiry.options]
    amount, strike = np.array([o.amount for o in options]), np.array([o.strike for o in options])
    is_call = np.array([o.is_call for o in options])
    shocks = sorted({s.vol_shock for s in scenarios}, key=lambda shock: shock.value)
    vols = np.array([[*chain.from_iterable(expiry.vols_at(shock) for expiry in expiries)] for shock in shocks])

    def of_options(figures: Sequence[float]) -> Floats:
        return np.repeat(np.array(figures), counts)

    moving, fixed = of_options([e.forward - e.fixed for e in expiries]), of_options([e.fixed for e in expiries])
    deviation = vols * of_options([math.sqrt(e.years) for e in expiries])
    is_skew = np.array([s.vol_shock.is_skew for s in scenarios])
    spot = np.array([1.0 if s.vol_shock.is_skew else s.spot_shock for s in scenarios])
    dampening = np.array([s.dampening for s in scenarios])

    forward = moving * spot[:, None] + fixed
    of_scenario = deviation[[shocks.index(s.vol_shock) for s in scenarios]]
    held = amount * of_options([e.discount for e in expiries])
    shocked = np.add.reduceat(held * undiscounted(forward, strike, of_scenario, is_call), starts, axis=1)
    gross = np.add.reduceat(np.abs(held) * (np.abs(forward) + strike), starts, axis=1)

    long = np.array([base * rest for base, rest in (e.long_factors for e in expiries)])
    short, mark = np.array([e.short_factor for e in expiries]), np.array(marks)
    change = (np.where(shocked >= 0, shocked * long, shocked * short) - mark) * dampening[:, None]
    moved = linear * (np.array([s.spot_shock for s in scenarios]) - 1) * dampening
    total = moved + np.where(is_skew[:, None], -np.abs(change), change).sum(axis=1)
    wrong = (gross * np.maximum(np.maximum(long, short), 1.0) + np.abs(mark)).sum(axis=1) * np.abs(dampening)
    return may_be_least(total, ERROR * (wrong + np.abs(moved)))
