"""Where an account becomes liquidatable, for any margin model: the critical price of one asset, or the critical common move of several.

The excess (least equity - maintenance of any part) is looked at along the factor f by which the prices move, 0 < f. It may cross zero
several times (options), jump (tiers), or not at all. From f = 1 outwards, a grid with every kink of the model in it is walked until the
excess is negative; the crossing is then bracketed between a factor that is safe and one that is liquidatable, and refined.

A model that is linear between its kinks misses nothing. For options a dip below zero between points of the grid is looked for at every
local minimum whose neighbours' slopes, drawn on, reach zero (where the excess is convex it cannot fall further than that); the cells are
0.5 % wide at the present price and grow by 5 % a step, and every strike is a point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from policies.margin import EXACT
from policies.risk.margin.account import Account, Model

TOLERANCE = Decimal("1e-9")
"""Relative to the present price."""
FAR_FACTOR = Decimal(1_000)
"""Prices are looked at up to this many times, and down to this fraction of, the present ones."""
_ONE = Decimal(1)
_FIRST_STEP = 0.005
_GROWTH = 1.05
_GOLDEN = Decimal("0.6180339887498949")
_SAME = Decimal("1e-4")
"""Relative distance below which a kink counts as the point of the grid beside it."""
_ULP = Decimal(1).scaleb(-18)


@dataclass(frozen=True, slots=True)
class CriticalMoves:
    """The nearest relative moves that liquidate: `down` <= 0 and `up` >= 0, None where none does; both 0 when it is liquidatable now."""

    down: Decimal | None
    up: Decimal | None

    @property
    def distance(self) -> Decimal | None:
        """The nearer of the two as a positive share of the price."""
        return min((abs(move) for move in (self.down, self.up) if move is not None), default=None)


def critical_moves(
    model: Model, account: Account, assets: Collection[str] | None = None, tolerance: Decimal = TOLERANCE
) -> CriticalMoves:
    """The critical common moves of the prices of `assets` (None: of all that the account depends on), the others standing still.

    Rounded towards zero: at the move itself the account still stands, and at most `tolerance` further it does not.
    Raises `InvalidFields` as the model does.
    """
    moved = frozenset(account.assets() if assets is None else assets)
    seen: dict[Decimal, Decimal] = {}

    def excess(factor: Decimal) -> Decimal:
        if factor not in seen:
            seen[factor] = model.requirement(account.moved(factor, moved)).excess
        return seen[factor]

    if excess(_ONE) < 0:
        return CriticalMoves(Decimal(0), Decimal(0))
    kinks = model.kinks(account, moved)
    return CriticalMoves(
        _outwards(model, excess, (_ONE / FAR_FACTOR, _ONE), kinks, tolerance),
        _outwards(model, excess, (_ONE, FAR_FACTOR), kinks, tolerance),
    )


def liquidation_prices(
    model: Model, account: Account, asset: str, tolerance: Decimal = TOLERANCE
) -> tuple[Decimal | None, Decimal | None]:
    """(below, above): the nearest prices of `asset` at which the account becomes liquidatable; both its present price if it is already.

    None where no price between 1/1,000 and 1,000 times the present one does it, or the asset has no price. Rounded towards the present.
    """
    price = account.price(asset)
    if price is None:
        return None, None
    moves = critical_moves(model, account, {asset}, tolerance)
    with localcontext(EXACT):
        return (
            None if moves.down is None else price * (1 + moves.down),
            None if moves.up is None else price * (1 + moves.up),
        )


def _outwards(
    model: Model,
    excess: Callable[[Decimal], Decimal],
    span: tuple[Decimal, Decimal],
    kinks: Iterable[Decimal],
    tolerance: Decimal,
) -> Decimal | None:
    """The first crossing from factor 1 towards the other end of `span`."""
    upwards = span[0] == _ONE
    points = _grid(span, kinks, dense=not model.is_piecewise_linear)
    if not upwards:
        points.reverse()
    for index, point in enumerate(points[1:], 1):
        before = points[index - 1]
        if not model.is_piecewise_linear and index >= 2:
            dip = _dip(excess, points[index - 2], before, point)
            if dip is not None:
                return _refined(excess, points[index - 2], dip, tolerance)
        if excess(point) < 0:
            return _refined(excess, before, point, tolerance)
    return None


def _grid(span: tuple[Decimal, Decimal], kinks: Iterable[Decimal], *, dense: bool) -> list[Decimal]:
    """Factors from the lower to the higher end, the kinks among them.

    Where the kinks are all there is (not `dense`), a hair on either side of each too, as a tier may jump there. Else kinks that lie closer
    than `_SAME` to another point are left out: there is nothing between the two that could be told from rounding.
    """
    low, high = span
    points = {low, high}
    if not dense:
        for kink in kinks:
            with localcontext() as context:
                context.prec = 50
                points |= {kink * (1 - _ULP), kink, kink * (1 + _ULP)}
        return sorted(point for point in points if low <= point <= high)
    log, step, upwards = 0.0, _FIRST_STEP, low == _ONE
    while True:
        log += step
        step *= _GROWTH
        factor = Decimal(repr(round(math.exp(log if upwards else -log), 12)))
        if not low < factor < high:
            break
        points.add(factor)
    for kink in sorted(set(kinks)):
        if low < kink < high and all(abs(point - kink) > _SAME * kink for point in points):
            points.add(kink)
    return sorted(points)


def _dip(excess: Callable[[Decimal], Decimal], left: Decimal, middle: Decimal, right: Decimal) -> Decimal | None:
    """A factor between `left` and `right` where the excess is negative, if its local minimum there goes below zero."""
    at_left, at_middle, at_right = excess(left), excess(middle), excess(right)
    if at_middle > min(at_left, at_right) or at_middle == max(at_left, at_right):
        return None
    a, b = left, right
    with localcontext() as context:
        context.prec = 28
        beyond = at_middle - (at_left - at_middle) * (right - middle) / (middle - left)
        before = at_middle - (at_right - at_middle) * (middle - left) / (right - middle)
        if min(beyond, before) >= 0:
            return None
        c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        while abs(b - a) > TOLERANCE:
            at_c, at_d = excess(c), excess(d)
            if min(at_c, at_d) < 0:
                return c if at_c < at_d else d
            if at_c < at_d:
                b, c, d = d, d - _GOLDEN * (d - a), c
            else:
                a, c, d = c, d, c + _GOLDEN * (b - c)
    return None


def _refined(
    excess: Callable[[Decimal], Decimal], safe: Decimal, liquidatable: Decimal, tolerance: Decimal
) -> Decimal | None:
    """The crossing between the two, as a move rounded towards zero: exact where the excess is linear between them, else by bisection."""
    with localcontext() as context:
        context.prec = 50
        at_safe, at_liquidatable = excess(safe), excess(liquidatable)
        if at_safe > 0 and at_liquidatable < 0:
            guess = safe + (liquidatable - safe) * at_safe / (at_safe - at_liquidatable)
            width = tolerance / 4 if liquidatable > safe else -tolerance / 4
            for candidate in (guess - width, guess + width):
                if min(safe, liquidatable) < candidate < max(safe, liquidatable):
                    if excess(candidate) < 0:
                        liquidatable = candidate
                    else:
                        safe = candidate
        while abs(liquidatable - safe) > tolerance / 2:
            middle = (safe + liquidatable) / 2
            if excess(middle) < 0:
                liquidatable = middle
            else:
                safe = middle
        move = safe - 1
        return move.quantize(_ULP, rounding=ROUND_CEILING if move < 0 else ROUND_FLOOR)
