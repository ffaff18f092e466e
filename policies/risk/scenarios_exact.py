"""Profit and loss in decimal arithmetic, and the rounding that makes a Decision the same bytes on every backend.

A model output is compared as the next multiple of a unit on the bad side (`quantise_adversely`). Rounding alone does not make backends
agree: however coarse the unit, a value may lie so near to one of its multiples that the last bits decide the side. So every double x
comes with a bound e on its error, and (as Ziv's test does for correctly rounded functions)

    floor((x - e) / unit) == floor((x + e) / unit)   ->   that is the floor of the true value, whichever backend gave x
    otherwise                                        ->   the value is worked out again in decimal arithmetic, and that is rounded

Decimal arithmetic is specified to the last digit (General Decimal Arithmetic; Python's two implementations agree), so the result is a
function of the facts alone. Two limits, stated plainly. It holds as far as the error bounds do: they are derived, with room to spare,
and tested, but not machine-checked. And the second step resolves 1e-24 of the gross value, not everything: a true value nearer to a
multiple than that may be rounded to it; it is still the same on every machine.   Source: Ziv, Fast evaluation of elementary
mathematical functions with correctly rounded last bit, ACM TOMS 17 (1991).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Literal

import numpy as np
import numpy.typing as npt

from contracts.errors import BadInput
from policies.portfolio import UNIT_OF_ACCOUNT
from policies.risk._kernel import YEAR_S, Floats
from policies.risk.scenarios_book import PRECISE, Book, EuropeanOption, Inverse, Linear, Range
from policies.risk.scenarios_sets import NO_SHOCK, Scenario

Integers = npt.NDArray[np.int64]
_INVERSE_SQRT_TWO_PI = Decimal(
    "0.398942280401432677939946059934381868475858631164934657665925829670657925899301838501252333907307"
)
_PRICING = Context(prec=36, rounding=ROUND_HALF_EVEN)
"""The context of option values: 10 digits more than `_NEGLIGIBLE` keeps."""
_NEGLIGIBLE = Decimal(1).scaleb(-28)
_FAR = 12
"""N(-12) < 2e-33."""
_MOST_UNITS = 2**52
Position = Linear | Inverse | EuropeanOption | Range


def quantise_adversely(value: Decimal, unit: Decimal, *, worse: Literal["lower", "higher"]) -> Decimal:
    """The next multiple of `unit` > 0 on the bad side: floor for profits and values (`worse="lower"`), ceiling for losses and
    requirements. Exact; a multiple stays as it is. Raises BadInput when the value is not finite."""
    if not value.is_finite() or not unit.is_finite() or unit <= 0:
        raise BadInput(f"{value} cannot be rounded to multiples of {unit}: both must be finite, the unit above zero")
    with localcontext(PRECISE) as context:
        context.prec = max(
            context.prec, len(value.as_tuple().digits) + abs(value.adjusted()) + abs(unit.adjusted()) + 8
        )
        context.rounding = ROUND_FLOOR if worse == "lower" else ROUND_CEILING
        return (value / unit).to_integral_value() * unit


def floor_units(
    values: Floats, errors: Floats, unit: Decimal, exactly: Callable[[int], Decimal], *, least: int | None = None
) -> Integers:
    """floor(value / unit) of the true value behind each double, an integer each: see the head of this file.

    `errors` >= |double - true value|, same shape; `exactly(i)` gives value i in decimal arithmetic and is called only where the
    double does not decide. With `least`, only that many least ones are wanted: any other may be one too low, never as low as they are.
    Raises BadInput when a value is not finite, or the unit is finer than the doubles can carry.
    """
    if not unit.is_finite() or unit <= 0:
        raise BadInput(f"the unit is {unit}: it must be finite and above zero")
    if not (np.isfinite(values).all() and np.isfinite(errors).all()):
        raise BadInput("a scenario's profit is not finite")
    per_unit = 1.0 / float(unit)
    spread = (errors + np.abs(values) * 2.0**-50) * per_unit
    if spread.size and spread.max() > 0.25:
        raise BadInput(
            f"unit {unit} is too fine: the figures behind it are known to {float(errors.max()):.1e} only; choose a unit above "
            f"{8 * float(errors.max()):.1e}"
        )
    scaled = values * per_unit
    if scaled.size and np.abs(scaled).max() > _MOST_UNITS:
        raise BadInput(
            f"a value of {float(np.abs(values).max()):.3e} has too many multiples of {unit}: choose a coarser unit"
        )
    low = np.floor(scaled - spread)
    high = np.floor(scaled + spread)
    open_ones = low != high
    if least is not None and 0 < least < high.size:
        open_ones &= low <= np.partition(high, least - 1)[least - 1]
    found = low.astype(np.int64)
    for i in np.flatnonzero(open_ones):
        with localcontext(PRECISE) as context:
            value = exactly(int(i))
            context.rounding = ROUND_FLOOR
            found[i] = int((value / unit).to_integral_value())
    return found


def nearest_units(values: Floats, errors: Floats, unit: Decimal, exactly: Callable[[int], Decimal]) -> Integers:
    """The nearest integer to value / unit, halves upwards, of the true value: `floor_units` of what lies half a unit higher.

    For figures that inform and decide nothing: the many that are nearly zero are decided by their doubles. Raises BadInput.
    """
    half = unit / 2
    return floor_units(values + float(half), errors + float(half) * 2.0**-50, unit, lambda i: exactly(i) + half)


# -- models, in decimal arithmetic ---------------------------------------------------------------------------------------------------


def normal_cdf(x: Decimal) -> Decimal:
    """N(x) to 1e-26, by the series N(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...), all of whose terms have one sign.

    Source: Marsaglia, Evaluating the normal distribution, J. Stat. Software 11 (2004).
    """
    if x > _FAR:
        return Decimal(1)
    if x < -_FAR:
        return Decimal(0)
    with localcontext(_PRICING):
        square, term, total, n = x * x, x, x, 1
        while abs(term) > _NEGLIGIBLE:
            n += 2
            term = term * square / n
            total += term
        return Decimal("0.5") + total * (-square / 2).exp() * _INVERSE_SQRT_TWO_PI


def option_value(option: EuropeanOption, spot: Decimal, scenario: Scenario) -> Decimal:
    """Value of one unit at shocked `spot`; settled at its intrinsic value there when it expires within the scenario."""
    shock = scenario.of(option.asset)
    with localcontext(_PRICING):
        left_s = option.life_s - scenario.time_s
        strike, zero = option.strike, Decimal(0)
        if left_s <= 0:
            return max(spot - strike if option.is_call else strike - spot, zero)
        time = Decimal(left_s) / YEAR_S
        carry, rate = option.carry + scenario.rate, option.rate + scenario.rate
        discount = (-rate * time).exp() if rate else Decimal(1)
        forward = spot * (1 + shock.basis) * ((carry * time).exp() if carry else 1)
        vol = max(option.vol * (1 + shock.vol_relative) + shock.vol_absolute, zero)
        intrinsic = max(forward - strike if option.is_call else strike - forward, zero)
        if not vol or not forward:
            return discount * intrinsic
        return discount * _black(forward, strike, vol * time.sqrt(), option.is_call)


def _black(forward: Decimal, strike: Decimal, total_vol: Decimal, is_call: bool) -> Decimal:
    d1 = (forward / strike).ln() / total_vol + total_vol / 2
    d2 = d1 - total_vol
    if is_call:
        return forward * normal_cdf(d1) - strike * normal_cdf(d2)
    return strike * normal_cdf(-d2) - forward * normal_cdf(-d1)


def _linear_value(linear: Linear, scenario: Scenario) -> Decimal:
    shock = scenario.of(linear.asset) if linear.asset != UNIT_OF_ACCOUNT else NO_SHOCK
    return linear.size * linear.price * (1 + shock.spot) * (1 + shock.basis if linear.on_forward else 1)


def _inverse_value(inverse: Inverse, spot: Decimal, shocked: Decimal, basis: Decimal) -> Decimal:
    """contracts x (spot' / entry - spot' / price'): spot and price move by one factor, so the second quotient only feels the basis."""
    return inverse.contracts * (shocked / inverse.entry_price - spot / (inverse.price * (1 + basis)))


def _range_value(pool: Range, price0: Decimal, price1: Decimal) -> Decimal:
    low, high = pool.lower_price.sqrt(), pool.upper_price.sqrt()
    root = min(max((price0 / price1).sqrt(), low), high) if price1 else high
    amount0 = pool.liquidity * (1 / root - 1 / high) + pool.owed0
    amount1 = pool.liquidity * (root - low) + pool.owed1
    return amount0 * price0 + amount1 * price1


UNCHANGED = Scenario("unchanged")


class ExactBook:
    """A book's profit and loss in decimal arithmetic, position by position. Keeps the values of today."""

    __slots__ = ("_book", "_now", "_positions")

    def __init__(self, book: Book) -> None:
        self._book = book
        self._positions: tuple[Position, ...] = (*book.linears, *book.inverses, *book.options, *book.ranges)
        self._now: dict[int, Decimal] = {}

    def pnl(self, scenario: Scenario, number: int) -> Decimal:
        """Profit of one position, numbered as in `Book.labels`."""
        position = self._positions[number]
        if _stands_still(position, scenario):
            return Decimal(0)
        with localcontext(PRECISE):
            if number not in self._now:
                self._now[number] = self._value(position, UNCHANGED)
            return self._value(position, scenario) - self._now[number]

    def total(self, scenario: Scenario) -> Decimal:
        """Profit of the whole book; cash earns nothing."""
        if not scenario.time_s and not scenario.rate and all(scenario.of(a) == NO_SHOCK for a in self._book.spots):
            return Decimal(0)
        with localcontext(PRECISE):
            return sum((self.pnl(scenario, i) for i in range(len(self._positions))), Decimal(0))

    def _value(self, position: Position, scenario: Scenario) -> Decimal:
        if isinstance(position, Linear):
            return _linear_value(position, scenario)
        if isinstance(position, Range):
            return _range_value(
                position, self._shocked(position.asset0, scenario), self._shocked(position.asset1, scenario)
            )
        spot = self._shocked(position.asset, scenario)
        if isinstance(position, Inverse):
            return _inverse_value(position, self._book.spot(position.asset), spot, scenario.of(position.asset).basis)
        return position.size * option_value(position, spot, scenario)

    def _shocked(self, asset: str, scenario: Scenario) -> Decimal:
        return Decimal(1) if asset == UNIT_OF_ACCOUNT else self._book.spot(asset) * (1 + scenario.of(asset).spot)


def _stands_still(position: Position, scenario: Scenario) -> bool:
    """Whether nothing that the position depends on changes: its profit is zero without any arithmetic."""
    if isinstance(position, EuropeanOption) and (scenario.time_s or scenario.rate):
        return False
    assets = (position.asset0, position.asset1) if isinstance(position, Range) else (position.asset,)
    return all(asset == UNIT_OF_ACCOUNT or scenario.of(asset) == NO_SHOCK for asset in assets)
