"""Pricing of many European options in many scenarios: the one place where `black` is written again, for speed.

Generalised Black-Scholes with forward F, strike K, total volatility v = sigma sqrt(T) and x = ln(F / K).  With A = min(F, K),

    out-of-the-money value = A (N(a) - phi(a) R(b)),   h = |x| / v,  a = v/2 - h,  b = v/2 + h,  R(y) = N(-y) / phi(y)
    option value = discount x (out-of-the-money value + max(+-(F - K), 0))

because B phi(b) = A phi(a) for B = max(F, K): one exponential serves both normal distributions, and put-call parity serves both
kinds. N(a) is phi R(-a) or 1 - phi R(a), so the branch is a selection and every lane of a vector does the same work. Mills' ratio R is
a rational function of degree 6 / 7, fitted to least absolute error of phi R on [0, 8.5] (6e-17; beyond, both are below 1e-17).
sigma = 0 and T = 0 need no case of their own: v is held above 1e-150, where the formula gives the intrinsic value (to 1e-290).

Absolute error of one value: at most ERROR_ULPS x 2^-53 x (F + K) x discount, rounding of the inputs included (tested
against 60-digit arithmetic, where the largest seen is 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

YEAR_S = 31_536_000
"""Seconds of a year: 365 days, as crypto options venues count."""
ERROR_ULPS = 32.0
ROWS = 16
"""Options that are added up before their sum is added to the total: bounds the growth of rounding errors."""
TILE = 16384
"""Values that the numpy backend works on at once: enough to make the cost of a call of numpy small, few enough for the cache."""
MOST_ROWS = 64
"""The same for the numpy backend, whose calls cost more."""
MODEL_VERSION = "1"

# R(y) sqrt(2 pi)^-1 = P(y) / Q(y).  Weighted least-maximum fit in 60 digits (iteratively reweighted), all coefficients positive, so
# neither sum cancels; P/Q -> 1/(y sqrt(2 pi)) as y grows, like R.
P = (
    0.5,
    0.5019793740884677,
    0.2542116732717185,
    0.07687902758569246,
    0.014441192224511231,
    0.0015857478074657663,
    7.977182774531216e-05,
)
Q = (
    1.0,
    1.8018433089798098,
    1.44608630376401,
    0.6726078563165976,
    0.19672364229061481,
    0.0363955268310645,
    0.003975034568007724,
    0.00019995458261064505,
)
TINY_VOL = 1e-150
FAR = 37.0
"""phi(37) is 1e-298: beyond, the exponential would leave the normal doubles for nothing."""


@dataclass(frozen=True, slots=True)
class OptionColumns:
    """Options of one underlying, a row each; arrays of shape (options,), float64.

    `log_strike` ln K; `life_s` seconds to expiry >= 0; `vol` annualised >= 0; `rate` continuously compounded, discounting; `carry` b of
    F = S exp(b T); `size` signed; `sign` +1 call, -1 put.
    """

    strike: Floats
    log_strike: Floats
    life_s: Floats
    vol: Floats
    rate: Floats
    carry: Floats
    size: Floats
    sign: Floats


@dataclass(frozen=True, slots=True)
class ShockColumns:
    """What one block of scenarios does to one underlying; arrays of shape (scenarios,), or (1,) where all are alike.

    `spot` >= 0 as shocked, shape (scenarios,) always; sigma' = max(sigma x vol_scale + vol_shift, 0); `elapsed_s` seconds that pass;
    `rate_shift` adds to rate and carry (a constant dividend yield); `forward_scale` 1 + basis shock.
    """

    spot: Floats
    log_spot: Floats
    vol_scale: Floats
    vol_shift: Floats
    elapsed_s: Floats
    rate_shift: Floats
    forward_scale: Floats
    log_forward_scale: Floats


Accumulate = Callable[[OptionColumns, ShockColumns, Floats], None]
"""Adds the value of all options in each scenario to the last argument, shape (scenarios,)."""
Fill = Callable[[OptionColumns, ShockColumns, Floats], None]
"""Writes size x value of each option in each scenario into the last argument, shape (options, scenarios)."""


class Kernel(Protocol):
    """A backend: this module, or the compiled one."""

    accumulate: Accumulate
    fill: Fill


class _Workspace:
    """Arrays that `_values` works in, made once: fresh ones for each step would cost more than the arithmetic (malloc hands memory of
    this size back to the system each time)."""

    __slots__ = ("half", "one", "over", "pair", "two", "under")

    def __init__(self, rows: int, scenarios: int) -> None:
        self.one, self.two, self.half = (np.empty((rows, scenarios)) for _ in range(3))
        self.pair, self.over, self.under = (np.empty((2, rows, scenarios)) for _ in range(3))


def values(options: OptionColumns, shocks: ShockColumns, rows: slice) -> Floats:
    """size x value of the options `rows` in each scenario, shape (rows, scenarios). numpy; arrays of length one are worked out once."""
    count = len(range(*rows.indices(options.strike.size)))
    undiscounted, weights = _values(options, shocks, rows, _Workspace(count, shocks.spot.size))
    return undiscounted * weights


def _values(options: OptionColumns, shocks: ShockColumns, rows: slice, work: _Workspace) -> tuple[Floats, Floats]:
    """`values` as two factors: values before discounting, in `work`, and size x discount, of shape (rows, 1) where it can be."""

    def column(array: Floats) -> Floats:
        return array[rows, None]

    strike = column(options.strike)
    count = strike.shape[0]
    one, two = work.one[:count], work.two[:count]
    pair, over, under = work.pair[:, :count], work.over[:, :count], work.under[:, :count]
    # What follows has shape (rows, 1) wherever the scenarios of a block are alike in it.
    time = np.maximum(column(options.life_s) - shocks.elapsed_s, 0.0) * (1.0 / YEAR_S)
    alike = shocks.vol_scale.size == shocks.vol_shift.size == time.shape[1] == 1
    half = work.half[:count, :1] if alike else work.half[:count]
    np.multiply(column(options.vol), shocks.vol_scale, out=half)
    if shocks.vol_shift.any():
        half += shocks.vol_shift
    np.maximum(half, TINY_VOL, out=half)
    half *= 0.5 * np.maximum(np.sqrt(time), TINY_VOL)
    alive = time > 0.0
    growth = (column(options.carry) + shocks.rate_shift) * time
    reach = np.where(alive, np.exp(growth) * shocks.forward_scale, 1.0)
    moneyness = np.where(alive, growth + shocks.log_forward_scale, 0.0) - column(options.log_strike)

    np.add(0.5 * shocks.log_spot, 0.5 * moneyness, out=one)
    np.abs(one, out=one)
    one /= half
    np.add(half, one, out=pair[1])
    np.subtract(half, one, out=two)
    np.abs(two, out=pair[0])
    np.copysign(1.0, two, out=two)
    np.minimum(pair, FAR, out=pair)
    np.multiply(pair, P[6], out=over)
    over += P[5]
    for coefficient in P[4::-1]:
        over *= pair
        over += coefficient
    np.multiply(pair, Q[7], out=under)
    under += Q[6]
    for coefficient in Q[5::-1]:
        under *= pair
        under += coefficient
    over /= under
    density = pair[0]
    density *= density
    density *= -0.5
    np.exp(density, out=density)
    over *= density
    # N(a) - phi(a) R(b);  N(a) = 1/2 + side (1/2 - phi R(|a|)) for either sign of a, with the side in `two`: selecting is slower.
    core = over[0]
    np.subtract(0.5, core, out=core)
    core *= two
    core += 0.5
    core -= over[1]
    np.multiply(shocks.spot, reach, out=one)
    np.minimum(one, strike, out=two)
    core *= two
    one -= strike
    one *= column(options.sign)
    np.maximum(one, 0.0, out=one)
    one += core
    return one, column(options.size) * np.exp(-(column(options.rate) + shocks.rate_shift) * time)


def accumulate(options: OptionColumns, shocks: ShockColumns, totals: Floats) -> None:
    """The numpy backend of `Accumulate`; works on at most MOST_ROWS options and about TILE values at once."""
    rows = max(1, min(MOST_ROWS, options.strike.size, TILE // totals.size))
    work = _Workspace(rows, totals.size)
    for start in range(0, options.strike.size, rows):
        undiscounted, weights = _values(options, shocks, slice(start, start + rows), work)
        if weights.shape[1] == 1:
            totals += weights[:, 0] @ undiscounted
        else:
            undiscounted *= weights
            totals += undiscounted.sum(axis=0)


def fill(options: OptionColumns, shocks: ShockColumns, values: Floats) -> None:
    """The numpy backend of `Fill`; works on at most MOST_ROWS options and about TILE values at once."""
    count, scenarios = values.shape
    rows = max(1, min(MOST_ROWS, count, TILE // scenarios))
    work = _Workspace(rows, scenarios)
    for start in range(0, count, rows):
        block = slice(start, start + rows)
        undiscounted, weights = _values(options, shocks, block, work)
        np.multiply(undiscounted, weights, out=values[block])
