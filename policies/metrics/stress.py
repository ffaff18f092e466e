"""What a scenario leaves: margin at the venues, and the loss of the whole book."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext

from policies.margin import EXACT
from policies.metrics.base import Contribution, Metric, Observation
from policies.portfolio import Portfolio

Shocks = Mapping[str, Decimal]
"""Relative price moves by asset."""


def stress_margin(portfolio: Portfolio, shocks: Shocks) -> Observation:
    """Smallest account value less maintenance requirement over venues, after every price has moved by its shock."""
    rows: list[Contribution] = []
    with localcontext(EXACT):
        for margin in portfolio.margins:
            value, requirement = margin.account_value, Decimal(0)
            for position in (p for p in portfolio.positions if p.venue == margin.venue):
                move = shocks.get(position.asset, Decimal(0))
                value += position.notional * move
                requirement += margin.maintenance_ratio * abs(position.notional) * (1 + move)
            rows.append((margin.venue, value - requirement))
    return Observation(min((left for _, left in rows), default=Decimal(0)), tuple(rows))


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
        lambda view, _scope, _parameters: stress_margin(view.portfolio, shocks),
        may_be_negative=True,
    )
