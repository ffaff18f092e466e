"""Implied volatility: the inverse of Black's formula, right to the last digits of a double, in the wings too.

    beta(x, s) = e^(x/2) N(x/s + s/2) - e^(-x/2) N(x/s - s/2),   x = ln(F / K) <= 0,   s = v sqrt T,   price = D sqrt(F K) beta

beta grows from 0 to e^(x/2) with s. Doubles bring s near (bisection on the logarithm of beta, or of what it lacks to its maximum, so that
neither end loses digits); two Newton steps in 60-digit decimal arithmetic finish. About a millisecond each: for marks and tests, not for
the inner loop of a decision. `implied_vols` does arrays in doubles.
Source: Jaeckel, "Let's be rational", Wilmott 2015 (the normalised function and its limits).
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

from contracts.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MODEL = ("implied_volatility", "1", "decimal")
_DIGITS = 70
_ROOT_HALF = math.sqrt(0.5)
_LARGEST = 200.0
"""No s beyond it can be told from infinity: N(-100) < 1e-2000."""
_NEWTON_STEPS = 2
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")


def normalised_vol(beta: float, x: float) -> float:
    """s with beta(x, s) = `beta`; relative error below 1e-14 (the spacing of doubles near the result).

    `x` = ln(F / K) <= 0, 0 <= beta < e^(x/2); 0 gives 0. Raises BadInput outside these bounds.
    """
    if not (math.isfinite(beta) and math.isfinite(x)):
        raise BadInput(f"a normalised price and its moneyness must be finite, got {beta} and {x}")
    if x > 0:
        raise BadInput(f"the normalised function is that of the option out of the money: x = ln(F/K) <= 0, got {x}")
    if beta < 0:
        raise BadInput(f"the normalised price {beta} is negative: the option is quoted below its intrinsic value")
    with localcontext() as context:
        context.prec = _DIGITS
        return _invert(Decimal(beta), Decimal(x))


def implied_vol(
    price: float, forward: float, strike: float, years: float, *, is_call: bool, discount: float = 1.0
) -> float:
    """Volatility (annualised, 0.8 = 80 %) at which Black's formula gives `price`, in the unit of `forward` and `strike`.

    Every argument is taken as the exact number that its double is. Raises BadInput when the price is below the discounted intrinsic value,
    or at or above the largest value an option can have (D F for a call, D K for a put), naming the bound.
    """
    named = (
        ("price", price),
        ("forward", forward),
        ("strike", strike),
        ("time to expiry", years),
        ("discount", discount),
    )
    for name, given in named:
        if not math.isfinite(given) or given < 0 or (given == 0 and name != "price"):
            raise BadInput(f"the {name} must be a positive number, got {given}")
    with localcontext() as context:
        context.prec = _DIGITS
        f, k, value = Decimal(forward), Decimal(strike), Decimal(price) / Decimal(discount)
        intrinsic = max(f - k if is_call else k - f, Decimal(0))
        most = f if is_call else k
        if value < intrinsic:
            raise BadInput(f"the price {price} is below the discounted intrinsic value {float(intrinsic) * discount}")
        if value >= most:
            raise BadInput(f"the price {price} is not below the largest possible, {float(most) * discount}")
        beta = (value - intrinsic) / (f * k).sqrt()
        return _invert(beta, -abs((f / k).ln())) / math.sqrt(years)


def _invert(beta: Decimal, x: Decimal) -> float:
    if beta == 0:
        return 0.0
    most = (x / 2).exp()
    if beta >= most:
        raise BadInput(f"the normalised price {float(beta)} is not below its largest, e^(x/2) = {float(most)}")
    s = Decimal(_near(beta, most, x))
    for _ in range(_NEWTON_STEPS):
        s -= _step(beta, most, x, s)
    return float(s)


def _step(beta: Decimal, most: Decimal, x: Decimal, s: Decimal) -> Decimal:
    """Newton on ln beta below the half of the maximum, on ln(maximum - beta) above: both are nearly straight there."""
    h, t = x / s, s / 2
    slope = (-(h * h + t * t) / 2).exp() / (2 * _PI).sqrt()
    if 2 * beta < most:
        value = most * _lower(h + t) - _lower(h - t) / most
        return (value.ln() - beta.ln()) * value / slope
    lacking = most * _lower(-h - t) + _lower(h - t) / most
    return ((most - beta).ln() - lacking.ln()) * lacking / slope


def _lower(z: Decimal) -> Decimal:
    """N(z), relative precision about 1e-60 for z <= 0 and absolute for z > 0.

    Near zero the series N = 1/2 + n(z) (z + z^3/3 + z^5/15 + ...), further out the continued fraction of Mills' ratio.
    Source: Abramowitz and Stegun 26.2.11 and 26.2.14.
    """
    if z > 0:
        return 1 - _lower(-z)
    with localcontext() as context:
        context.prec = 2 * _DIGITS
        density = (-z * z / 2).exp() / (2 * _PI).sqrt()
        if z > -8:
            term = total = z
            n = 1
            while abs(term) > Decimal(1).scaleb(-2 * _DIGITS):
                n += 2
                term *= z * z / n
                total += term
            return Decimal("0.5") + density * total
        y = -z
        fraction = y
        for n in range(_fraction_terms(float(y)), 0, -1):
            fraction = y + n / fraction
        return density / fraction


def _fraction_terms(y: float) -> int:
    """Terms of the continued fraction for 1e-70: its error falls like exp(-2 y sqrt(2 n))."""
    return int((_DIGITS * math.log(10) / (2 * y)) ** 2 / 2) + 8


def _near(beta: Decimal, most: Decimal, x: Decimal) -> float:
    """s to about 1e-7 relative, by bisection on its logarithm."""
    moneyness, upper = float(x), 2 * beta >= most
    wanted = float((most - beta if upper else beta).ln())
    low, high = math.log(1e-12), math.log(_LARGEST)
    for _ in range(56):
        middle = (low + high) / 2
        s = math.exp(middle)
        h, t = moneyness / s, s / 2
        found = _log_lacking(moneyness, h, t) if upper else _log_beta(moneyness, h, t)
        if (found > wanted) is upper:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _log_beta(x: float, h: float, t: float) -> float:
    """ln beta in doubles."""
    if h + t > -3:
        value = math.exp(x / 2) * _cdf(h + t) - math.exp(-x / 2) * _cdf(h - t)
        if value > 1e-6:
            return math.log(value)
    # n(h + t) e^(x/2) = n(h - t) e^(-x/2), so beta is that times the difference of two Mills ratios
    difference = _mills(-h - t) - _mills(t - h)
    if difference <= 1e-9 * _mills(-h):
        difference = 2 * t * _mills_slope(-h)
    return math.log(max(difference, 1e-300)) - (h * h + t * t) / 2 - 0.5 * math.log(2 * math.pi)


def _log_lacking(x: float, h: float, t: float) -> float:
    """ln(e^(x/2) - beta) in doubles."""
    if h + t < 5:
        return math.log(math.exp(x / 2) * _cdf(-h - t) + math.exp(-x / 2) * _cdf(h - t))
    return math.log(_mills(h + t) + _mills(t - h)) - (h * h + t * t) / 2 - 0.5 * math.log(2 * math.pi)


def _cdf(z: float) -> float:
    return 0.5 * math.erfc(-z * _ROOT_HALF)


def _mills(y: float) -> float:
    """N(-y) / n(y)."""
    if y < 25:
        return _cdf(-y) * math.sqrt(2 * math.pi) * math.exp(min(y * y / 2, 700.0))
    return 1 / (y + 1 / (y + 2 / (y + 3 / (y + 4 / y))))


def _mills_slope(y: float) -> float:
    """-d/dy of Mills' ratio: 1 - y N(-y)/n(y); about 1 / y^2 far out."""
    return 1 - y * _mills(y) if y < 20 else 1 / (y * y) - 3 / y**4 + 15 / y**6


def implied_vols(
    prices: Floats, forwards: Floats, strikes: Floats, years: Floats, is_call: npt.NDArray[np.bool_]
) -> Floats:
    """Undiscounted prices to volatilities, elementwise on arrays of one shape (n,); NaN where a price is outside its bounds.

    Doubles throughout: relative error below 1e-8 where the time value is at least 1e-10 of the forward; use `implied_vol` for the rest.
    """
    import numpy as np
    from scipy.special import log_ndtr, ndtr

    x = -np.abs(np.log(forwards / strikes))
    intrinsic = np.maximum(np.where(is_call, forwards - strikes, strikes - forwards), 0.0)
    beta = (prices - intrinsic) / np.sqrt(forwards * strikes)
    most = np.exp(x / 2)
    inside = (beta > 0) & (beta < most)
    low, high = np.full(x.shape, math.log(1e-9)), np.full(x.shape, math.log(_LARGEST))
    with np.errstate(all="ignore"):
        wanted = np.log(beta)
        for _ in range(64):
            middle = (low + high) / 2
            s = np.exp(middle)
            h, t = x / s, s / 2
            first = x / 2 + log_ndtr(h + t)
            found = first + np.log1p(-np.exp(np.minimum(log_ndtr(h - t) - x / 2 - first, 0.0)))
            too_high = found > wanted
            low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
        s = np.exp((low + high) / 2)
        for _ in range(2):
            h, t = x / s, s / 2
            value = most * ndtr(h + t) - ndtr(h - t) / most
            slope = np.exp(-(h * h + t * t) / 2) / math.sqrt(2 * math.pi)
            step = (value - beta) / slope
            s = np.where(np.abs(step) < 0.1 * s, s - step, s)
    vols: Floats = np.where(inside, s / np.sqrt(years), np.where(beta == 0, 0.0, np.nan))
    return vols
