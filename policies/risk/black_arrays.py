"""`policies.risk.black` over numpy arrays: the same formulas, elementwise, in numpy or (extra `fast`) compiled by numba.

All arrays have one shape (n,) or broadcast to it. Figures agree with the scalar model to 1e-12 of the spot (tests/policies/risk). Rows that
are no option (a price that is not positive, a negative time or volatility, anything that is not finite) give NaN throughout.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from contracts.errors import BadInput

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Backend = Literal["numpy", "numba"]
BLOCK = 4_096
"""Rows at a time: the temporaries of a block stay in a core's cache."""


class GreekColumns(NamedTuple):
    """As `black.Greeks`, a column each: price and the seven Greeks that limits are set on. Time by calendar years."""

    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats
    rho: Floats
    vanna: Floats
    volga: Floats


def available() -> Backend:
    """The fastest backend that is installed."""
    try:
        import numba  # noqa: F401 (only whether it is there)
    except ImportError:
        return "numpy"
    return "numba"


def greeks(
    spot: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    *,
    rate: npt.ArrayLike = 0.0,
    carry: npt.ArrayLike | None = None,
    backend: Backend | None = None,
) -> GreekColumns:
    """Price and Greeks of n options; arguments as for `black.greeks`. `backend` None: the fastest there is.

    Raises BadInput for shapes that do not broadcast to one dimension, or a backend that is not installed.
    """
    try:
        columns = np.broadcast_arrays(
            *(
                np.asarray(v, dtype=np.float64)
                for v in (spot, strike, years, vol, rate, rate if carry is None else carry)
            ),
            np.asarray(is_call, dtype=np.bool_),
        )
    except ValueError as error:
        raise BadInput(f"the columns of options do not fit together: {error}") from None
    if columns[0].ndim > 1:
        raise BadInput(f"options come in one dimension, got {columns[0].ndim}")
    chosen = backend or available()
    if chosen == "numba" and available() != "numba":
        raise BadInput("numba is not installed here: pip install 'seawall[fast]', or take backend='numpy'")
    s, k, t, v, r, b = (np.ascontiguousarray(column, dtype=np.float64).reshape(-1) for column in columns[:6])
    calls = np.ascontiguousarray(columns[6], dtype=np.bool_).reshape(-1)
    out = np.empty((len(GreekColumns._fields), s.size))
    if chosen == "numba":
        from policies.risk._greeks_numba import fill

        fill(s, k, t, v, r, b, calls, out)
    else:
        for start in range(0, s.size, BLOCK):
            rows = slice(start, start + BLOCK)
            _block(s[rows], k[rows], t[rows], v[rows], r[rows], b[rows], calls[rows], out[:, rows])
    return GreekColumns(*out)


def _block(
    spot: Floats, strike: Floats, years: Floats, vol: Floats, rate: Floats, carry: Floats, is_call: Bools, out: Floats
) -> None:
    """One block into `out` (8, n)."""
    with np.errstate(all="ignore"):
        side = np.where(is_call, 1.0, -1.0)
        root = np.sqrt(years)
        deviation = vol * root
        discount = np.exp(-rate * years)
        grown = np.exp((carry - rate) * years)
        lives = deviation > 0
        safe = np.where(lives, deviation, 1.0)
        moneyness = np.log(spot / strike) + carry * years
        d1 = moneyness / safe + safe / 2
        d2 = d1 - safe
        level = np.where(moneyness == 0, 0.5, (side * moneyness > 0).astype(np.float64))
        in1 = np.where(lives, ndtr(side * d1), level)
        in2 = np.where(lives, ndtr(side * d2), level)
        bell = np.where(lives, np.exp(-0.5 * d1 * d1) / math.sqrt(2 * math.pi), 0.0)
        dividend = rate - carry
        paid, got = strike * discount, spot * grown
        safe_vol, safe_root = np.where(vol > 0, vol, 1.0), np.where(root > 0, root, 1.0)
        vega = got * bell * root
        # The side out of the money loses no digits; the other follows by put-call parity.
        out_side = np.where(moneyness <= 0, 1.0, -1.0)
        outside = out_side * (got * ndtr(out_side * d1) - paid * ndtr(out_side * d2))
        out[0] = np.maximum(side * (got - paid), 0.0) + np.where(lives, np.maximum(outside, 0.0), 0.0)
        out[1] = side * grown * in1
        out[2] = grown * bell / (spot * safe)
        out[3] = vega
        out[4] = side * (dividend * got * in1 - rate * paid * in2) - got * bell * vol / (2 * safe_root)
        out[5] = side * years * paid * in2
        out[6] = -grown * bell * d2 / safe_vol
        out[7] = vega * d1 * d2 / safe_vol
        sound = (
            (spot > 0)
            & (strike > 0)
            & (years >= 0)
            & (vol >= 0)
            & np.isfinite(spot + strike + years + vol + rate + carry)
        )
        out[:, ~sound] = np.nan
