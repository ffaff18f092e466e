"""The compiled backend of `black_arrays`: one loop without branches that LLVM turns into vector instructions.

Exponential and normal distribution are those of the scenario kernel, written out so that nothing calls into a scalar libm but the logarithm
of moneyness, which has a loop of its own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from policies.risk._kernel import FAR
from policies.risk._kernel_numba import LOOP_OPTIONS, _compiled, _exp, _over, _under

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_INVERSE_ROOT_TWO_PI = 1.0 / math.sqrt(2.0 * math.pi)


@_compiled(error_model="numpy")
def _logarithms(spot: Floats, strike: Floats, out: Floats) -> None:
    for i in range(spot.shape[0]):
        out[i] = math.log(spot[i] / strike[i])


@_compiled(**LOOP_OPTIONS)
def _fill(
    spot: Floats,
    strike: Floats,
    moneyness: Floats,
    years: Floats,
    vol: Floats,
    rate: Floats,
    carry: Floats,
    is_call: Bools,
    out: Floats,
) -> None:
    for i in range(spot.shape[0]):
        s, k, t, v, r, b = spot[i], strike[i], years[i], vol[i], rate[i], carry[i]
        side = 1.0 if is_call[i] else -1.0
        root = math.sqrt(max(t, 0.0))
        deviation = v * root
        lives = deviation > 0.0
        safe = deviation if lives else 1.0
        discount, grown = _exp(-r * t), _exp((b - r) * t)
        paid, got = k * discount, s * grown
        m = moneyness[i] + b * t
        inverse = 1.0 / safe
        d1 = m * inverse + 0.5 * safe
        d2 = d1 - safe
        y, z = min(abs(d1), FAR), min(abs(d2), FAR)
        bell_y, bell_z = _exp(-0.5 * y * y), _exp(-0.5 * z * z)
        below_y, below_z = bell_y * _over(y) / _under(y), bell_z * _over(z) / _under(z)
        lower1 = below_y if d1 < 0.0 else 1.0 - below_y
        lower2 = below_z if d2 < 0.0 else 1.0 - below_z
        upper1 = 1.0 - below_y if d1 < 0.0 else below_y
        upper2 = 1.0 - below_z if d2 < 0.0 else below_z
        level = 0.5 if m == 0.0 else (1.0 if side * m > 0.0 else 0.0)
        call = side > 0.0
        in1 = (lower1 if call else upper1) if lives else level
        in2 = (lower2 if call else upper2) if lives else level
        bell = bell_y * _INVERSE_ROOT_TWO_PI if lives else 0.0
        outside = got * lower1 - paid * lower2 if m <= 0.0 else paid * upper2 - got * upper1
        dividend = r - b
        vega = got * bell * root
        by_vol = 1.0 / v if v > 0.0 else 1.0
        by_root = 1.0 / root if root > 0.0 else 1.0
        out[0, i] = max(side * (got - paid), 0.0) + (max(outside, 0.0) if lives else 0.0)
        out[1, i] = side * grown * in1
        out[2, i] = grown * bell / s * inverse
        out[3, i] = vega
        out[4, i] = side * (dividend * got * in1 - r * paid * in2) - got * bell * v * (0.5 * by_root)
        out[5, i] = side * t * paid * in2
        out[6, i] = -grown * bell * d2 * by_vol
        out[7, i] = vega * d1 * d2 * by_vol


def fill(
    spot: Floats, strike: Floats, years: Floats, vol: Floats, rate: Floats, carry: Floats, is_call: Bools, out: Floats
) -> None:
    """Price and Greeks of n options, (n,) each, into `out` (8, n). One thread."""
    moneyness = np.empty(spot.shape)
    with np.errstate(all="ignore"):
        _logarithms(spot, strike, moneyness)
        _fill(spot, strike, moneyness, years, vol, rate, carry, is_call, out)
        sound = (spot > 0) & (strike > 0) & (years >= 0) & (vol >= 0)
        sound &= np.isfinite(spot + strike + years + vol + rate + carry)
    out[:, ~sound] = np.nan
