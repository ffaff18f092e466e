"""European options: the generalised Black-Scholes formula and Black-76, price and Greeks to third order.

    F = S e^(b T),  D = e^(-r T),  s = v sqrt T,  d1 = ln(F / K) / s + s / 2,  d2 = d1 - s,  w = +1 call, -1 put
    price = w D (F N(w d1) - K N(w d2))

b is the cost of carry: r for a stock, r - q with a dividend yield q, 0 for a future (Black-76). Plain doubles from `math`, no numpy, for the
path of a decision; `policies.risk.black_arrays` has the same over arrays. At zero time or zero volatility every figure is that of the
discounted intrinsic value on the forward (one half of each side's delta where forward and strike are equal). What doubles cannot hold
(a forward of 1e400, a volatility of 1e-170 squared) is BadInput, never an infinity, a NaN or another error.

Tolerance: 1e-12 of the spot (times the figure's own unit), held against 60-digit references in tests/policies/risk.
Source: Haug 2007, "The Complete Guide to Option Pricing Formulas", ch. 1 and 2; Black 1976.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from contracts.errors import BadInput

MODEL = ("generalised_black_scholes", "1", "python")
"""Name, version and backend, as a Decision records them."""
_ROOT_HALF = math.sqrt(0.5)
_ROOT_TWO_PI = math.sqrt(2 * math.pi)


class Greeks(NamedTuple):
    """A price and its derivatives, of one unit of the underlying.

    Time derivatives (theta, charm, veta, color) are by calendar time in years, so that theta is mostly negative; vega and its kin are per
    1.00 of volatility; rho is per 1.00 of rate at a fixed dividend yield q = r - b.
    """

    price: float
    delta: float
    """dP/dS"""
    gamma: float
    """d2P/dS2"""
    vega: float
    """dP/dv"""
    theta: float
    """dP/dt"""
    rho: float
    """dP/dr"""
    vanna: float
    """d2P/dS dv"""
    volga: float
    """d2P/dv2"""
    charm: float
    """d2P/dS dt"""
    speed: float
    """d3P/dS3"""
    zomma: float
    """d3P/dS2 dv"""
    color: float
    """d3P/dS2 dt"""
    ultima: float
    """d3P/dv3"""
    veta: float
    """d2P/dv dt"""
    dual_delta: float
    """dP/dK"""


def cdf(z: float) -> float:
    """The standard normal distribution function, accurate to a few ulp in the lower tail."""
    return 0.5 * math.erfc(-z * _ROOT_HALF)


def density(z: float) -> float:
    """The standard normal density."""
    return math.exp(-0.5 * z * z) / _ROOT_TWO_PI


def _check(spot: float, strike: float, years: float, rate: float, carry: float, vol: float) -> None:
    for name, value in (("spot", spot), ("strike", strike)):
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"the {name} of an option must be a positive number, got {value}")
    for name, value in (("time to expiry", years), ("volatility", vol)):
        if not (math.isfinite(value) and value >= 0):
            raise BadInput(f"the {name} of an option must be zero or more, got {value}")
    for name, value in (("rate", rate), ("carry", carry)):
        if not math.isfinite(value):
            raise BadInput(f"the {name} of an option must be finite, got {value}")


def price(
    spot: float,
    strike: float,
    years: float,
    vol: float,
    *,
    is_call: bool,
    rate: float = 0.0,
    carry: float | None = None,
) -> float:
    """Value of one option, in the unit of `spot`.

    `years` to expiry, `vol` and `rate` annualised and continuous (0.8 = 80 %), `carry` the cost of carry (None: `rate`). The option out of
    the money is computed and the other follows by put-call parity, so that neither loses digits. Raises BadInput.
    """
    b = rate if carry is None else carry
    _check(spot, strike, years, rate, b, vol)
    try:
        value = _price(spot, strike, years, vol, rate, b, is_call=is_call)
    except (ArithmeticError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise _too_extreme(spot, strike, years, vol, rate, b)
    return value


def _too_extreme(*figures: float) -> BadInput:
    names = ("spot", "strike", "years", "vol", "rate", "carry")
    given = ", ".join(f"{name} {figure:g}" for name, figure in zip(names, figures, strict=True))
    return BadInput(f"an option with {given} is too extreme to be priced in double precision")


def _price(spot: float, strike: float, years: float, vol: float, rate: float, b: float, *, is_call: bool) -> float:
    discount, forward = math.exp(-rate * years), spot * math.exp(b * years)
    return discount * undiscounted(forward, strike, vol * math.sqrt(years), is_call=is_call)


def undiscounted(forward: float, strike: float, deviation: float, *, is_call: bool) -> float:
    """F N(d1) - K N(d2) or its put, of sound figures that nobody checks: `price` is for all others. `deviation` = vol x sqrt(years)."""
    intrinsic = max(forward - strike if is_call else strike - forward, 0.0)
    if deviation == 0:
        return intrinsic
    d1 = math.log(forward / strike) / deviation + deviation / 2
    side = 1.0 if forward <= strike else -1.0
    one, two = 0.5 * math.erfc(-side * d1 * _ROOT_HALF), 0.5 * math.erfc(-side * (d1 - deviation) * _ROOT_HALF)
    return max(side * (forward * one - strike * two), 0.0) + intrinsic


def black76(forward: float, strike: float, years: float, vol: float, *, is_call: bool, discount: float = 1.0) -> float:
    """Value of an option on a forward, discounted by `discount` (0 < discount). Raises BadInput.   Source: Black 1976."""
    if not (math.isfinite(discount) and discount > 0):
        raise BadInput(f"a discount factor must be positive, got {discount}")
    return discount * price(forward, strike, years, vol, is_call=is_call, rate=0.0, carry=0.0)


def greeks(
    spot: float,
    strike: float,
    years: float,
    vol: float,
    *,
    is_call: bool,
    rate: float = 0.0,
    carry: float | None = None,
) -> Greeks:
    """Price and Greeks to third order; arguments as for `price`. Raises BadInput."""
    b = rate if carry is None else carry
    value = price(spot, strike, years, vol, is_call=is_call, rate=rate, carry=b)
    try:
        found = _greeks(value, spot, strike, years, vol, rate, b, is_call=is_call)
    except (ArithmeticError, ValueError):
        raise _too_extreme(spot, strike, years, vol, rate, b) from None
    if not all(map(math.isfinite, found)):
        raise _too_extreme(spot, strike, years, vol, rate, b)
    return found


def _greeks(
    value: float, spot: float, strike: float, years: float, vol: float, rate: float, b: float, *, is_call: bool
) -> Greeks:
    side, dividend = 1.0 if is_call else -1.0, rate - b
    discount, grown = math.exp(-rate * years), math.exp((b - rate) * years)
    deviation = vol * math.sqrt(years)
    if deviation == 0:
        moneyness = side * (spot * math.exp(b * years) - strike)
        inside = 0.5 if moneyness == 0 else float(moneyness > 0)
        return _intrinsic(value, side * inside, spot, strike, years, rate, dividend, discount, grown)
    d1 = (math.log(spot / strike) + b * years) / deviation + deviation / 2
    d2 = d1 - deviation
    bell, in1, in2 = density(d1), cdf(side * d1), cdf(side * d2)
    root = math.sqrt(years)
    gamma = grown * bell / (spot * deviation)
    vega = spot * grown * bell * root
    d1_by_years = (b + vol * vol / 2) / deviation - d1 / (2 * years)
    carried = side * (dividend * spot * grown * in1 - rate * strike * discount * in2)
    return Greeks(
        price=value,
        delta=side * grown * in1,
        gamma=gamma,
        vega=vega,
        theta=carried - spot * grown * bell * vol / (2 * root),
        rho=side * strike * years * discount * in2,
        vanna=-grown * bell * d2 / vol,
        volga=vega * d1 * d2 / vol,
        charm=side * dividend * grown * in1 - grown * bell * d1_by_years,
        speed=-gamma / spot * (d1 / deviation + 1),
        zomma=gamma * (d1 * d2 - 1) / vol,
        color=gamma * (dividend + d1 * d1_by_years + 1 / (2 * years)),
        ultima=-vega / (vol * vol) * (d1 * d2 * (1 - d1 * d2) + d1 * d1 + d2 * d2),
        veta=vega * (dividend - 1 / (2 * years) + d1 * d1_by_years),
        dual_delta=-side * discount * in2,
    )


def _intrinsic(
    value: float,
    share: float,
    spot: float,
    strike: float,
    years: float,
    rate: float,
    dividend: float,
    discount: float,
    grown: float,
) -> Greeks:
    """What is left without time or volatility; `share` is +1 a call in the money, -1 a put in the money, 0 outside."""
    return Greeks(
        price=value,
        delta=share * grown,
        gamma=0.0,
        vega=0.0,
        theta=share * (dividend * spot * grown - rate * strike * discount),
        rho=share * strike * years * discount,
        vanna=0.0,
        volga=0.0,
        charm=share * dividend * grown,
        speed=0.0,
        zomma=0.0,
        color=0.0,
        ultima=0.0,
        veta=0.0,
        dual_delta=-share * discount,
    )
