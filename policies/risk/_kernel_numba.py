"""The compiled backend of `_kernel.accumulate` (extra `fast`): the same formula in one loop that LLVM turns into vector instructions.

What keeps it vectorised: no branch, no call into a scalar libm (the exponential is written out below), no reduction across lanes (each
scenario has its own accumulator), and only the fused multiply-add of `fastmath`, never reassociation. Compiled at the first use for the
CPU at hand (about a second) and kept in Numba's cache directory where one is writable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from policies.risk._kernel import FAR, ROWS, TINY_VOL, YEAR_S, Floats, OptionColumns, P, Q, ShockColumns

VERSION = numba.__version__
_Function = TypeVar("_Function", bound=Callable[..., Any])

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_ROUNDER = 6755399441055744.0
"""3 x 2^51: adding it leaves the nearest integer in the low bits of a double."""
_E = tuple(1.0 / math.factorial(n) for n in range(14))
_PER_YEAR = 1.0 / YEAR_S
LOOP_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def _compiled(**options: Any) -> Callable[[_Function], _Function]:
    """numba.njit, cached on disk where a directory can be written to."""

    def compiled(function: _Function) -> _Function:
        try:
            made: _Function = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no locator: neither the package's directory nor the user's cache is writable
            made = numba.njit(**options)(function)
        return made

    return compiled


@intrinsic
def _double_of(_typing: Any, _bits: Any) -> Any:
    """The double with the given 64 bits."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@intrinsic
def _bits_of(_typing: Any, _number: Any) -> Any:
    """The 64 bits of a double."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@_compiled(inline="always")
def _exp(x: float) -> float:
    """e^x for |x| <= 700, to one unit in the last place or so: x = k ln 2 + r, Taylor series of degree 13 in |r| <= ln 2 / 2."""
    shifted = x * _LOG2_E + _ROUNDER
    k = shifted - _ROUNDER
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    s = _E[13]
    s = s * r + _E[12]
    s = s * r + _E[11]
    s = s * r + _E[10]
    s = s * r + _E[9]
    s = s * r + _E[8]
    s = s * r + _E[7]
    s = s * r + _E[6]
    s = s * r + _E[5]
    s = s * r + _E[4]
    s = s * r + _E[3]
    s = s * r + _E[2]
    s = s * r + 1.0
    s = s * r + 1.0
    scale: float = _double_of((_bits_of(shifted) + 1023) << 52)  # type: ignore[call-arg]  # the typing context is numba's
    return s * scale


@_compiled(inline="always")
def _over(y: float) -> float:
    return (((((P[6] * y + P[5]) * y + P[4]) * y + P[3]) * y + P[2]) * y + P[1]) * y + P[0]


@_compiled(inline="always")
def _under(y: float) -> float:
    return ((((((Q[7] * y + Q[6]) * y + Q[5]) * y + Q[4]) * y + Q[3]) * y + Q[2]) * y + Q[1]) * y + Q[0]


@_compiled(**LOOP_OPTIONS)
def _add_up(
    strike: Floats,
    log_strike: Floats,
    life_s: Floats,
    vol: Floats,
    rate: Floats,
    carry: Floats,
    size: Floats,
    sign: Floats,
    spot: Floats,
    log_spot: Floats,
    vol_scale: Floats,
    vol_shift: Floats,
    elapsed_s: Floats,
    rate_shift: Floats,
    forward_scale: Floats,
    log_forward_scale: Floats,
    part: Floats,
    totals: Floats,
) -> None:
    scenarios = spot.shape[0]
    options = strike.shape[0]
    for start in range(0, options, ROWS):
        part[:] = 0.0
        for i in range(start, min(start + ROWS, options)):
            k, log_k, life, sigma, r, b, w, side = (
                strike[i],
                log_strike[i],
                life_s[i],
                vol[i],
                rate[i],
                carry[i],
                size[i],
                sign[i],
            )
            for j in range(scenarios):
                time = max(life - elapsed_s[j], 0.0) * _PER_YEAR
                total_vol = max(max(sigma * vol_scale[j] + vol_shift[j], 0.0) * math.sqrt(time), TINY_VOL)
                alive = time > 0.0
                growth = (b + rate_shift[j]) * time
                forward = spot[j] * (_exp(growth) * forward_scale[j] if alive else 1.0)
                h = abs(log_spot[j] + ((growth + log_forward_scale[j] if alive else 0.0) - log_k)) * (1.0 / total_vol)
                half = 0.5 * total_vol
                a = half - h
                y = min(abs(a), FAR)
                z = min(half + h, FAR)
                under_y = _under(y)
                under_z = _under(z)
                over_y = _over(y) * under_z
                over_z = _over(z) * under_y
                ratio = _exp(-0.5 * y * y) / (under_y * under_z)
                positive = a > 0.0
                core = (1.0 if positive else 0.0) - ratio * (over_z + over_y if positive else over_z - over_y)
                value = min(forward, k) * core + max(side * (forward - k), 0.0)
                part[j] += w * _exp(-(r + rate_shift[j]) * time) * value
        for j in range(scenarios):
            totals[j] += part[j]


def accumulate(options: OptionColumns, shocks: ShockColumns, totals: Floats) -> None:
    """The compiled backend of `Accumulate`. One thread."""
    shape = shocks.spot.shape

    def full(array: Floats) -> Floats:
        return array if array.shape == shape else np.full(shape, array[0])

    _add_up(
        options.strike,
        options.log_strike,
        options.life_s,
        options.vol,
        options.rate,
        options.carry,
        options.size,
        options.sign,
        shocks.spot,
        shocks.log_spot,
        full(shocks.vol_scale),
        full(shocks.vol_shift),
        full(shocks.elapsed_s),
        full(shocks.rate_shift),
        full(shocks.forward_scale),
        full(shocks.log_forward_scale),
        np.empty(shape),
        totals,
    )


@_compiled(**LOOP_OPTIONS)
def _fill_alike(
    strike: Floats,
    log_strike: Floats,
    life_s: Floats,
    vol: Floats,
    rate: Floats,
    carry: Floats,
    size: Floats,
    sign: Floats,
    spot: Floats,
    log_spot: Floats,
    alike: Floats,
    values: Floats,
) -> None:
    """Where only the spot differs between scenarios: what is left of an option is worked out once. `alike`: the other shocks, in order."""
    vol_scale, vol_shift, elapsed_s, rate_shift, forward_scale, log_forward_scale = (
        alike[0], alike[1], alike[2], alike[3], alike[4], alike[5],
    )  # fmt: skip
    for i in range(strike.shape[0]):
        k, side = strike[i], sign[i]
        time = max(life_s[i] - elapsed_s, 0.0) * _PER_YEAR
        total_vol = max(max(vol[i] * vol_scale + vol_shift, 0.0) * math.sqrt(time), TINY_VOL)
        alive = time > 0.0
        growth = (carry[i] + rate_shift) * time
        reach = _exp(growth) * forward_scale if alive else 1.0
        moneyness = (growth + log_forward_scale if alive else 0.0) - log_strike[i]
        inverse, half = 1.0 / total_vol, 0.5 * total_vol
        weight = size[i] * _exp(-(rate[i] + rate_shift) * time)
        for j in range(spot.shape[0]):
            forward = spot[j] * reach
            h = abs(log_spot[j] + moneyness) * inverse
            a = half - h
            y = min(abs(a), FAR)
            z = min(half + h, FAR)
            under_y = _under(y)
            under_z = _under(z)
            over_y = _over(y) * under_z
            over_z = _over(z) * under_y
            ratio = _exp(-0.5 * y * y) / (under_y * under_z)
            positive = a > 0.0
            core = (1.0 if positive else 0.0) - ratio * (over_z + over_y if positive else over_z - over_y)
            values[i, j] = weight * (min(forward, k) * core + max(side * (forward - k), 0.0))


@_compiled(**LOOP_OPTIONS)
def _fill(
    strike: Floats,
    log_strike: Floats,
    life_s: Floats,
    vol: Floats,
    rate: Floats,
    carry: Floats,
    size: Floats,
    sign: Floats,
    spot: Floats,
    log_spot: Floats,
    vol_scale: Floats,
    vol_shift: Floats,
    elapsed_s: Floats,
    rate_shift: Floats,
    forward_scale: Floats,
    log_forward_scale: Floats,
    values: Floats,
) -> None:
    for i in range(strike.shape[0]):
        k, log_k, life, sigma, r, b, w, side = (
            strike[i],
            log_strike[i],
            life_s[i],
            vol[i],
            rate[i],
            carry[i],
            size[i],
            sign[i],
        )
        for j in range(spot.shape[0]):
            time = max(life - elapsed_s[j], 0.0) * _PER_YEAR
            total_vol = max(max(sigma * vol_scale[j] + vol_shift[j], 0.0) * math.sqrt(time), TINY_VOL)
            alive = time > 0.0
            growth = (b + rate_shift[j]) * time
            forward = spot[j] * (_exp(growth) * forward_scale[j] if alive else 1.0)
            h = abs(log_spot[j] + ((growth + log_forward_scale[j] if alive else 0.0) - log_k)) * (1.0 / total_vol)
            half = 0.5 * total_vol
            a = half - h
            y = min(abs(a), FAR)
            z = min(half + h, FAR)
            under_y = _under(y)
            under_z = _under(z)
            over_y = _over(y) * under_z
            over_z = _over(z) * under_y
            ratio = _exp(-0.5 * y * y) / (under_y * under_z)
            positive = a > 0.0
            core = (1.0 if positive else 0.0) - ratio * (over_z + over_y if positive else over_z - over_y)
            value = min(forward, k) * core + max(side * (forward - k), 0.0)
            values[i, j] = w * _exp(-(r + rate_shift[j]) * time) * value


def fill(options: OptionColumns, shocks: ShockColumns, values: Floats) -> None:
    """The compiled backend of `Fill`. One thread."""
    o, shape = options, shocks.spot.shape
    held = (o.strike, o.log_strike, o.life_s, o.vol, o.rate, o.carry, o.size, o.sign)
    others = (
        shocks.vol_scale,
        shocks.vol_shift,
        shocks.elapsed_s,
        shocks.rate_shift,
        shocks.forward_scale,
        shocks.log_forward_scale,
    )
    if all(array.size == 1 for array in others):
        _fill_alike(*held, shocks.spot, shocks.log_spot, np.concatenate(others), values)
        return
    full = [array if array.shape == shape else np.full(shape, array[0]) for array in others]
    _fill(*held, shocks.spot, shocks.log_spot, full[0], full[1], full[2], full[3], full[4], full[5], values)
