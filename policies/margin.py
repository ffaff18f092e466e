"""Margin at venues whose positions are linear in price: when an account becomes liquidatable.

Perpetual Protocol v2: account value V = collateral + sum of s_i (P_i - E_i) - funding; liquidatable when V < r x sum of |s_i| P_i, with
r = 6.25 % (10 % to open).   Source: Perpetual Protocol v2, ClearingHouseConfig and AccountBalance.getMarginRequirementForLiquidation.

Both sides are linear in a common relative move m of a set of prices, so the critical move is closed form for any number of markets:

    V - R + m x g = 0,   g = sum over moved i of (s_i - r |s_i|) P_i,   m = -(V - R) / g
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext

EXACT = Context(prec=220)
"""Sums and products of amounts are exact in this context: no amount in use has more than 70 digits."""
PERP_V2_MAINTENANCE_RATIO = Decimal("0.0625")
PERP_V2_INITIAL_RATIO = Decimal("0.1")
_QUANTUM = Decimal(1).scaleb(-18)


def ratio(numerator: Decimal, denominator: Decimal, *, up: bool) -> Decimal:
    """numerator / denominator with 18 decimals, rounded up (towards +infinity) or down."""
    with localcontext(EXACT) as context:
        context.rounding = ROUND_CEILING if up else ROUND_FLOOR
        return (numerator / denominator).quantize(_QUANTUM)


@dataclass(frozen=True, slots=True)
class Leg:
    """A linear position: `size` signed base units at `price` > 0, quote per base."""

    market: str
    size: Decimal
    price: Decimal


def critical_move(
    account_value: Decimal, maintenance_ratio: Decimal, legs: Sequence[Leg], moved: Collection[str] | None = None
) -> Decimal | None:
    """The relative move of the `moved` markets' prices (None: of all), others standing still, at which the account becomes liquidatable.

    Negative: prices fall. Rounded towards zero, so that the distance is never overstated. 0 when it is liquidatable already; None when
    no move above -100 % does it. Exact for one market and for several.
    """
    with localcontext(EXACT):
        slack = account_value - maintenance_ratio * sum((abs(leg.size) * leg.price for leg in legs), Decimal(0))
        slope = sum(
            (
                (leg.size - maintenance_ratio * abs(leg.size)) * leg.price
                for leg in legs
                if moved is None or leg.market in moved
            ),
            Decimal(0),
        )
        if slack < 0 and any(leg.size for leg in legs):
            return Decimal(0)
        if slope == 0:
            return None
        move = ratio(-slack, slope, up=-slack * slope < 0)
        return None if move <= -1 else move


def liquidation_price(
    account_value: Decimal, maintenance_ratio: Decimal, legs: Sequence[Leg], market: str
) -> Decimal | None:
    """The price of `market` at which the account becomes liquidatable, every other price standing still.

    One market:  P = p - side x (V - r |s| p) / (|s| (1 - side x r)). None when no positive price does it. Rounded towards the current price.
    """
    move = critical_move(account_value, maintenance_ratio, legs, {market})
    price = next((leg.price for leg in legs if leg.market == market), None)
    if move is None or price is None:
        return None
    with localcontext(EXACT):
        return price * (1 + move)
