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

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

YEAR_S = 31_536_000
"""Seconds of a year: 365 days, as crypto options venues count."""
ERROR_ULPS = 128.0
ROWS = 64
"""Options that are added up before their sum is added to the total: bounds the growth of rounding errors."""
TILE = 6144
"""Values that the numpy backend works on at once: its largest array (two values each, 98 kB) stays in the second-level cache and below
the size from which malloc asks the kernel for fresh pages each time, which is three times slower."""
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


def values(options: OptionColumns, shocks: ShockColumns, rows: slice) -> Floats:
    """size x value of the options `rows` in each scenario, shape (rows, scenarios). numpy; arrays of length one are worked out once."""

    def column(array: Floats) -> Floats:
        return array[rows, None]

    time = np.maximum(column(options.life_s) - shocks.elapsed_s, 0.0) * (1.0 / YEAR_S)
    vol = np.maximum(column(options.vol) * shocks.vol_scale + shocks.vol_shift, 0.0)
    total_vol = np.maximum(vol * np.sqrt(time), TINY_VOL)
    alive = time > 0.0
    growth = (column(options.carry) + shocks.rate_shift) * time
    forward = shocks.spot * np.where(alive, np.exp(growth) * shocks.forward_scale, 1.0)
    moneyness = np.where(alive, growth + shocks.log_forward_scale, 0.0) - column(options.log_strike)

    h = np.abs(shocks.log_spot + moneyness)
    h *= 1.0 / total_vol
    half = 0.5 * total_vol
    a = half - h
    arguments = np.empty((2, *h.shape))
    np.minimum(np.abs(a), FAR, out=arguments[0])
    np.minimum(half + h, FAR, out=arguments[1])
    over = arguments * P[6]
    over += P[5]
    for coefficient in P[4::-1]:
        over *= arguments
        over += coefficient
    under = arguments * Q[7]
    under += Q[6]
    for coefficient in Q[5::-1]:
        under *= arguments
        under += coefficient
    over /= under
    density = arguments[0] * arguments[0]
    density *= -0.5
    np.exp(density, out=density)
    over *= density
    positive = a > 0.0
    core = np.where(positive, (1.0 - over[0]) - over[1], over[0] - over[1])
    strike = column(options.strike)
    core *= np.minimum(forward, strike)
    forward -= strike
    forward *= column(options.sign)
    core += np.maximum(forward, 0.0)
    found: Floats = core
    found *= column(options.size) * np.exp(-(column(options.rate) + shocks.rate_shift) * time)
    return found


def accumulate(options: OptionColumns, shocks: ShockColumns, totals: Floats) -> None:
    """The numpy backend of `Accumulate`; works on at most ROWS options and about TILE values at once."""
    rows = max(1, min(ROWS, TILE // totals.size))
    for start in range(0, options.strike.size, rows):
        totals += values(options, shocks, slice(start, start + rows)).sum(axis=0)
