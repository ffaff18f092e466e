"""What a limit can be set on: each metric with its definition, unit, inputs, and the direction in which risk grows.

Amounts are exact; a quotient is rounded in the direction of more risk (18 decimals), so that the same facts give the same bytes and no
limit passes by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Literal

from contracts.errors import BadInput
from policies.margin import EXACT, Leg, critical_move, ratio
from policies.policy import Scope
from policies.portfolio import UNIT_OF_ACCOUNT, Facts, Portfolio, Position
from policies.problems import did_you_mean

Contribution = tuple[str, Decimal]
Shocks = Mapping[str, Decimal]
"""Relative price moves by asset."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A metric's value, None when it cannot be computed and `why` says so; `contributions` add up to it where it is a sum."""

    value: Decimal | None
    contributions: tuple[Contribution, ...] = ()
    why: str = ""


Compute = Callable[[Facts, Portfolio, Scope], Observation]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `of_operation`: it measures the operation, not a portfolio, and has no value before."""

    name: str
    unit: str
    worse: Literal["higher", "lower"]
    definition: str
    inputs: str
    compute: Compute
    of_operation: bool = False


def _price(facts: Facts, asset: str) -> Decimal | None:
    if asset == UNIT_OF_ACCOUNT:
        return Decimal(1)
    return next((p.value for p in facts.prices if p.asset == asset), None)


def _takes(scope: Scope, asset: str, venue: str) -> bool:
    """Whether something of `asset` at `venue` is inside the scope."""
    if scope.kind == "asset":
        return scope.name == asset
    return scope.kind != "venue" or scope.name == venue


def _positions(portfolio: Portfolio, scope: Scope) -> list[Position]:
    return [p for p in portfolio.positions if _takes(scope, p.asset, p.venue)]


def _sum(rows: list[Contribution]) -> Decimal:
    with localcontext(EXACT):
        return sum((value for _, value in rows), Decimal(0))


def gross_notional(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    with localcontext(EXACT):
        rows = [(p.label, abs(p.notional)) for p in _positions(portfolio, scope)]
    return Observation(_sum(rows), tuple(rows))


def net_notional(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    with localcontext(EXACT):
        rows = [(p.label, p.notional) for p in _positions(portfolio, scope)]
    return Observation(abs(_sum(rows)), tuple(rows))


def equity(facts: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    rows: list[Contribution] = []
    with localcontext(EXACT):
        for sign, amounts in ((1, portfolio.holdings), (-1, portfolio.debts)):
            for held in amounts:
                if not held.amount or (scope.kind == "venue" and held.venue != scope.name):
                    continue
                price = _price(facts, held.asset)
                if price is None:
                    return Observation(None, why=f"there is no price of {held.asset}")
                rows.append((f"{held.venue}:{held.asset}", sign * held.amount * price))
        rows += [
            (m.venue, m.account_value) for m in portfolio.margins if scope.kind != "venue" or m.venue == scope.name
        ]
    return Observation(_sum(rows), tuple(rows))


def leverage(facts: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    gross = gross_notional(facts, portfolio, scope)
    own = equity(facts, portfolio, Scope())
    if own.value is None or gross.value is None:
        return Observation(None, why=own.why)
    if gross.value == 0:
        return Observation(Decimal(0))
    if own.value <= 0:
        return Observation(None, gross.contributions, "equity is not positive")
    return Observation(ratio(gross.value, own.value, up=True), gross.contributions)


def position_size(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    rows = [(p.label, abs(p.size)) for p in _positions(portfolio, scope)]
    return Observation(_sum(rows), tuple(rows))


def concentration(facts: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    whole = gross_notional(facts, portfolio, Scope()).value
    part = gross_notional(facts, portfolio, scope)
    if not whole or part.value is None:
        return Observation(Decimal(0))
    return Observation(ratio(part.value, whole, up=True), part.contributions)


def liquidation_distance(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    rows: list[Contribution] = []
    for margin in portfolio.margins:
        if scope.kind == "venue" and margin.venue != scope.name:
            continue
        legs = [Leg(p.asset, p.size, p.mark_price) for p in portfolio.positions if p.venue == margin.venue and p.size]
        assets = sorted({leg.market for leg in legs})
        moves: list[tuple[str, set[str] | None]] = [(asset, {asset}) for asset in assets]
        if scope.kind == "asset":
            moves = [(asset, moved) for asset, moved in moves if asset == scope.name]
        elif len(assets) > 1:
            moves.append(("all prices", None))
        for label, moved in moves:
            move = critical_move(margin.account_value, margin.maintenance_ratio, legs, moved)
            rows.append((f"{margin.venue}:{label}", Decimal(1) if move is None else min(abs(move), Decimal(1))))
    return Observation(min((distance for _, distance in rows), default=Decimal(1)), tuple(rows))


def free_collateral(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    rows = [(m.venue, m.free_collateral) for m in portfolio.margins if scope.kind != "venue" or m.venue == scope.name]
    return Observation(_sum(rows), tuple(rows))


def margin_ratio(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    rows: list[Contribution] = []
    for margin in portfolio.margins:
        if scope.kind == "venue" and margin.venue != scope.name:
            continue
        held = [(p.label, abs(p.notional)) for p in portfolio.positions if p.venue == margin.venue]
        notional = _sum(held)
        if notional:
            rows.append((margin.venue, min(Decimal(1), ratio(margin.account_value, notional, up=False))))
    return Observation(min((share for _, share in rows), default=Decimal(1)), tuple(rows))


def margin_use(_: Facts, portfolio: Portfolio, scope: Scope) -> Observation:
    worst = Decimal(0)
    rows: list[Contribution] = []
    for margin in portfolio.margins:
        if scope.kind == "venue" and margin.venue != scope.name:
            continue
        if margin.maintenance_requirement == 0:
            continue
        if margin.account_value <= 0:
            return Observation(None, why=f"the account value at {margin.venue} is not positive")
        used = ratio(margin.maintenance_requirement, margin.account_value, up=True)
        rows.append((margin.venue, used))
        worst = max(worst, used)
    return Observation(worst, tuple(rows))


def order_notional(facts: Facts, _: Portfolio, scope: Scope) -> Observation:
    rows = [(f"{f.venue}:{f.asset}", f.quote) for f in facts.fills if _takes(scope, f.asset, f.venue)]
    return Observation(_sum(rows), tuple(rows))


def order_slippage(facts: Facts, _: Portfolio, scope: Scope) -> Observation:
    """The worse of the simulated fill (fee included) and the bound that the order itself carries, against the index."""
    worst = Decimal(0)
    rows: list[Contribution] = []

    def see(label: str, asset: str, is_buy: bool, price: Decimal) -> str:
        nonlocal worst
        index = _price(facts, asset)
        if index is None:
            return f"there is no price of {asset}"
        with localcontext(EXACT):
            lost = price - index if is_buy else index - price
        share = ratio(lost, index, up=True)
        rows.append((label, share))
        worst = max(worst, share)
        return ""

    for fill in facts.fills:
        if not _takes(scope, fill.asset, fill.venue):
            continue
        with localcontext(EXACT):
            paid = fill.quote + fill.fee if fill.size > 0 else fill.quote - fill.fee
        price = ratio(paid, abs(fill.size), up=fill.size > 0)
        if why := see(f"fill {fill.venue}:{fill.asset}", fill.asset, fill.size > 0, price):
            return Observation(None, why=why)
    for order in facts.orders:
        if not _takes(scope, order.asset, order.venue):
            continue
        if order.worst_price is None:
            return Observation(None, why=f"the order at {order.venue} has no price bound")
        if why := see(f"bound {order.venue}:{order.asset}", order.asset, order.is_buy, order.worst_price):
            return Observation(None, why=why)
    return Observation(worst, tuple(rows))


def stress_margin(portfolio: Portfolio, shocks: Shocks) -> Observation:
    """Smallest account value less maintenance requirement over venues, after every price has moved by its shock."""
    smallest: Decimal | None = None
    rows: list[Contribution] = []
    with localcontext(EXACT):
        for margin in portfolio.margins:
            value, requirement = margin.account_value, Decimal(0)
            for position in (p for p in portfolio.positions if p.venue == margin.venue):
                move = shocks.get(position.asset, Decimal(0))
                value += position.notional * move
                requirement += margin.maintenance_ratio * abs(position.notional) * (1 + move)
            rows.append((margin.venue, value - requirement))
            smallest = value - requirement if smallest is None else min(smallest, value - requirement)
    return Observation(Decimal(0) if smallest is None else smallest, tuple(rows))


def explain_metric(name: str) -> Metric:
    """Definition, unit, direction and inputs of a metric. Raises BadInput with the nearest name."""
    if name not in METRICS:
        raise BadInput(f"there is no metric {name!r}; {did_you_mean(name, tuple(METRICS))}")
    return METRICS[name]


def stress_of(limit_shocks: tuple[tuple[str, Decimal], ...]) -> Metric:
    """The metric of one stress scenario."""
    shocks = dict(limit_shocks)
    moves = ", ".join(f"{asset} {move:+.0%}" for asset, move in limit_shocks)
    return Metric(
        "stress_margin",
        "USDC",
        "lower",
        f"smallest account value - maintenance requirement over venues after {moves}",
        "positions, venue marks, account values, maintenance ratios",
        lambda _facts, portfolio, _scope: stress_margin(portfolio, shocks),
    )


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "gross_notional",
            "USDC",
            "higher",
            "sum over positions of |size x mark price|",
            "positions, venue marks",
            gross_notional,
        ),
        Metric(
            "net_notional",
            "USDC",
            "higher",
            "|sum over positions of size x mark price|",
            "positions, venue marks",
            net_notional,
        ),
        Metric(
            "leverage",
            "x",
            "higher",
            "gross notional (of the scope) / equity of the whole portfolio; not evaluable when equity <= 0 and anything is open",
            "positions, venue marks, account values, holdings, prices",
            leverage,
        ),
        Metric(
            "position_size",
            "units",
            "higher",
            "sum over venues of |size| of the positions in one asset, in base units",
            "positions",
            position_size,
        ),
        Metric(
            "concentration",
            "%",
            "higher",
            "gross notional of the scope / gross notional of everything",
            "positions, venue marks",
            concentration,
        ),
        Metric(
            "liquidation_distance",
            "%",
            "lower",
            "smallest relative move, in either direction, of one asset's mark (or of all together) that makes a venue account "
            "liquidatable; 100 % when none does. Funding yet to accrue is not in it",
            "positions, venue marks, account values, the venue's maintenance ratio",
            liquidation_distance,
        ),
        Metric(
            "free_collateral",
            "USDC",
            "lower",
            "what the venues would let out now, as they answer",
            "venue accounts",
            free_collateral,
        ),
        Metric(
            "margin_ratio",
            "%",
            "lower",
            "account value / sum of |size x mark price|, the worst of the venues, at most 100 %; liquidation at the maintenance ratio",
            "positions, venue marks, venue accounts",
            margin_ratio,
        ),
        Metric(
            "margin_use",
            "%",
            "higher",
            "largest maintenance requirement / account value over venues; liquidation at 100 %",
            "venue accounts",
            margin_use,
        ),
        Metric(
            "equity",
            "USDC",
            "lower",
            "holdings x prices + account values at venues - debts x prices",
            "holdings, prices, venue accounts",
            equity,
        ),
        Metric(
            "order_notional",
            "USDC",
            "higher",
            "quote exchanged by the operation's simulated fills",
            "simulated fills",
            order_notional,
            True,
        ),
        Metric(
            "order_slippage",
            "%",
            "higher",
            "worse of the simulated mean fill, fee included, and the order's own bound, relative to the index price",
            "simulated fills, order bounds, prices",
            order_slippage,
            True,
        ),
    )
}
