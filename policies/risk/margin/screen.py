"""Which of a margin model's scenarios may be the worst: all of them at once over arrays, so that the model works out only those exactly.

A model's figures are sums of doubles in one fixed order, the same bytes everywhere; arrays sum in another. So nothing of this leaves as a
figure: what may be the worst within the error of both ways is worked out the fixed way, and the least of that is the worst of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]
ERROR = 1e-13
"""Relative to |amount| x (forward + strike): over 400 roundings of a double, for both ways together."""


def undiscounted(forward: Floats, strike: Floats, deviation: Floats, is_call: npt.NDArray[np.bool_]) -> Floats:
    """Black-76 without discount, elementwise; arrays that broadcast to one shape, `deviation` = vol x sqrt(years) >= 0.

    Figures differ from the scalar model's by less than `ERROR` x (forward + strike). What is no option gives NaN or infinity, no error.
    """
    with np.errstate(all="ignore"):
        d1 = np.log(forward / strike) / deviation + deviation / 2
        side = np.where(forward <= strike, 1.0, -1.0)
        outside = side * (forward * ndtr(side * d1) - strike * ndtr(side * (d1 - deviation)))
        intrinsic = np.maximum(np.where(is_call, forward - strike, strike - forward), 0.0)
        return np.asarray(np.where(deviation == 0, intrinsic, np.maximum(outside, 0.0) + intrinsic), dtype=np.float64)


def may_be_least(values: Floats, errors: Floats) -> Sequence[int]:
    """Places of all that may be the least, `values` being known to `errors`, shapes (n,); every place where one is not finite."""
    if not (np.isfinite(values).all() and np.isfinite(errors).all()):
        return range(len(values))
    found: list[int] = np.flatnonzero(values - errors <= np.min(values + errors)).tolist()
    return found
