"""How much is held: notional, size, concentration, equity, leverage.

Tokens in hand carry no notional (they can lose what they are worth and no more); derivatives, liquidity positions and what secures or is
owed at a lending account do. An option counts with its whole underlying, which no model can make smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal, localcontext

from policies.margin import EXACT, ratio
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, at_venue, inside, summed, total
from policies.policy import Parameters, Scope
from policies.portfolio import UNIT_OF_ACCOUNT, Liquidity, Option, Position

_ROOTS = Context(prec=60, rounding=ROUND_FLOOR)
_QUANTUM = Decimal(1).scaleb(-18)


@dataclass(frozen=True, slots=True)
class Exposure:
    """Something whose value follows the price of `asset`: `value` signed, in unit of account."""

    label: str
    venue: str
    asset: str
    value: Decimal


def pool_amounts(pool: Liquidity, price: Decimal) -> tuple[Decimal, Decimal]:
    """Amounts of asset0 and asset1 at `price` (asset1 per asset0), uncollected fees included; 18 decimals, rounded down.

    L (1/sqrt p - 1/sqrt upper) and L (sqrt p - sqrt lower), p held to the range.   Source: Uniswap v3 whitepaper, 6.29 and 6.30.
    """
    with localcontext(_ROOTS):
        held = min(max(price, pool.lower_price), pool.upper_price)
        root, low, high = held.sqrt(), pool.lower_price.sqrt(), pool.upper_price.sqrt()
        amount0 = pool.liquidity * (1 / root - 1 / high) if held < pool.upper_price else Decimal(0)
        amount1 = pool.liquidity * (root - low) if held > pool.lower_price else Decimal(0)
        return (amount0 + pool.owed0).quantize(_QUANTUM), (amount1 + pool.owed1).quantize(_QUANTUM)


def pool_holdings(view: View, pool: Liquidity) -> tuple[tuple[str, Decimal], tuple[str, Decimal]]:
    """What a liquidity position consists of at the index price (never the pool's own). Raises NotKnown."""

    def amounts() -> tuple[Decimal, Decimal]:
        with localcontext(_ROOTS):
            price = view.price(pool.asset0) / view.price(pool.asset1)
        return pool_amounts(pool, price)

    amount0, amount1 = view.once(("pool", pool.label), amounts)
    return (pool.asset0, amount0), (pool.asset1, amount1)


def exposures(view: View) -> tuple[Exposure, ...]:
    """Everything that carries notional. Raises NotKnown when a price is needed and absent."""
    found: tuple[Exposure, ...] = view.once("exposures", lambda: tuple(_exposures(view)))
    return found


def _exposures(view: View) -> Iterator[Exposure]:
    book = view.portfolio
    lenders = {loan.venue for loan in book.loans}
    with localcontext(EXACT):
        for position in book.positions:
            yield Exposure(view.label(position), position.venue, position.asset, position.notional)
        for option in book.options:
            if option.size:
                side = 1 if option.is_call else -1
                yield Exposure(
                    view.label(option), option.venue, option.asset, side * option.size * view.price(option.asset)
                )
        for pool in book.liquidity:
            for asset, amount in pool_holdings(view, pool):
                if asset != UNIT_OF_ACCOUNT:
                    yield Exposure(f"{pool.label}:{asset}", pool.venue, asset, amount * view.price(asset))
        for sign, held in ((1, book.collateral), (-1, book.debts)):
            for one in held:
                if one.amount and one.venue in lenders and one.asset != UNIT_OF_ACCOUNT:
                    kind = "collateral" if sign > 0 else "debt"
                    value = sign * one.amount * view.price(one.asset)
                    yield Exposure(f"{one.venue}:{one.asset} {kind}", one.venue, one.asset, value)


def _within(view: View, scope: Scope) -> list[Exposure]:
    if scope.kind in ("asset", "venue") and not (
        view.portfolio.options or view.portfolio.liquidity or view.portfolio.loans
    ):  # no price is needed: an unknown one must not stand in the way
        return [e for e in _exposures(view) if inside(scope, e.asset, e.venue)]
    return [e for e in exposures(view) if inside(scope, e.asset, e.venue)]


def gross_notional(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(e.label, abs(e.value)) for e in _within(view, scope)])


def net_notional(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(e.label, e.value) for e in _within(view, scope)], absolute=True)


def position_size(view: View, scope: Scope, _: Parameters) -> Observation:
    book = view.portfolio
    held: list[Position | Option] = [*book.positions, *book.options]
    return summed([(p.label, abs(p.size)) for p in held if inside(scope, p.asset, p.venue)])


def concentration(view: View, scope: Scope, parameters: Parameters) -> Observation:
    whole = gross_notional(view, Scope(), parameters).value
    part = gross_notional(view, scope, parameters)
    if not whole or part.value is None:
        return Observation(Decimal(0))
    return Observation(ratio(part.value, whole, up=True), part.contributions)


def value_rows(view: View, scope: Scope) -> tuple[Contribution, ...]:
    """What adds up to equity. Raises NotKnown."""
    place = scope.name if scope.kind == "venue" else ""
    found: tuple[Contribution, ...] = view.once(("value rows", place), lambda: tuple(_value_rows(view, scope)))
    return found


def _value_rows(view: View, scope: Scope) -> list[Contribution]:
    book = view.portfolio
    rows: list[Contribution] = []
    accounts = {margin.venue for margin in book.margins}
    with localcontext(EXACT):
        for sign, amounts in ((1, book.holdings), (1, book.collateral), (-1, book.debts)):
            for held in amounts:
                if held.amount and at_venue(scope, held.venue):
                    value = sign * held.amount * view.price(held.asset)
                    rows.append((f"{held.venue}:{held.asset}", value))
        rows += [(m.venue, m.account_value) for m in book.margins if at_venue(scope, m.venue)]
        rows += [
            (view.label(o), o.notional) for o in book.options if o.venue not in accounts and at_venue(scope, o.venue)
        ]
        for pool in book.liquidity:
            if at_venue(scope, pool.venue):
                rows.append((pool.label, sum((a * view.price(s) for s, a in pool_holdings(view, pool)), Decimal(0))))
    return rows


def equity(view: View, scope: Scope, _: Parameters) -> Observation:
    found: Observation = view.once(
        ("equity", scope.name if scope.kind == "venue" else ""), lambda: _equity(view, scope)
    )
    return found


def _equity(view: View, scope: Scope) -> Observation:
    return summed(value_rows(view, scope))


def equity_of(view: View) -> Decimal:
    """Equity of the whole portfolio. Raises NotKnown."""
    value = equity(view, Scope(), Parameters()).value
    if value is None:
        raise NotKnown("equity has no value")
    return value


def leverage(view: View, scope: Scope, parameters: Parameters) -> Observation:
    own = equity_of(view)
    gross = gross_notional(view, scope, parameters)
    if not gross.value:
        return Observation(Decimal(0))
    if own <= 0:
        return Observation(None, gross.contributions, "equity is not positive")
    return Observation(ratio(gross.value, own, up=True), gross.contributions)


def venue_share(view: View, scope: Scope, _: Parameters) -> Observation:
    own = equity_of(view)
    rows = value_rows(view, scope)
    value = total(rows)
    if value <= 0:
        return Observation(Decimal(0), rows)
    if own <= 0:
        return Observation(None, rows, "equity is not positive")
    return Observation(ratio(value, own, up=True), rows)


_COUNTED = (
    "perps: size x mark price; options: size x index price of the underlying, a put with the opposite sign; liquidity positions: what "
    "they hold of each asset at the index price; at lending accounts collateral and debts (negative) x index price. The unit of account "
    "and tokens in hand are not counted"
)
_NOTIONAL_INPUTS = "positions, options, liquidity, lending accounts, venue marks, prices"
_EQUITY_INPUTS = "holdings, debts, collateral, options, liquidity, prices, venue accounts"

METRICS = (
    Metric(
        "gross_notional",
        "USDC",
        "higher",
        f"sum of |notional|. Notional of {_COUNTED}",
        _NOTIONAL_INPUTS,
        gross_notional,
    ),
    Metric(
        "net_notional",
        "USDC",
        "higher",
        f"|sum of notional|. Notional of {_COUNTED}",
        _NOTIONAL_INPUTS,
        net_notional,
    ),
    Metric(
        "leverage",
        "x",
        "higher",
        "gross notional (of the scope) / equity of the whole portfolio; not evaluable when equity <= 0 and anything is open",
        f"{_NOTIONAL_INPUTS}, account values, holdings",
        leverage,
    ),
    Metric(
        "position_size",
        "units",
        "higher",
        "sum over venues of |size| of the perps and options in one asset, in units of it",
        "positions, options",
        position_size,
        scopes=("asset",),
    ),
    Metric(
        "concentration",
        "%",
        "higher",
        "gross notional of the scope / gross notional of everything",
        _NOTIONAL_INPUTS,
        concentration,
        scopes=("asset", "venue"),
    ),
    Metric(
        "venue_share",
        "%",
        "higher",
        "equity held at the venue / equity of the whole portfolio (what is lost if the venue fails); 0 when nothing is held there",
        _EQUITY_INPUTS,
        venue_share,
        scopes=("venue",),
    ),
    Metric(
        "equity",
        "USDC",
        "lower",
        "holdings, collateral and liquidity positions at index prices + account values at venues + options at the mark (where no account "
        "value has them already) - debts at index prices",
        _EQUITY_INPUTS,
        equity,
        scopes=("portfolio", "venue"),
        may_be_negative=True,
    ),
)
