"""The engine against an independent evaluator: fractions instead of decimals, loops instead of tables, nothing shared but the facts."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Facts, evaluate
from policies.portfolio import Fill, Holding, Margin, Portfolio, Position, Price
from tests.policies.rig import NOW_S, opening, policy_of

RATE = Fraction(1, 16)
BUY = "calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"
QUANTUM = Fraction(1, 10**18)
ASSETS = ("ETH", "BTC", "SOL")

amounts = st.decimals(min_value=Decimal("0.001"), max_value=5_000, places=3)
sizes = st.dictionaries(st.sampled_from(ASSETS), st.decimals(min_value=-50, max_value=50, places=3), max_size=3)


def book(held: dict[str, Decimal], marks: dict[str, Decimal], collateral: Decimal, idle: Decimal) -> Portfolio:
    positions = tuple(
        Position("perp", asset, size, size * marks[asset], marks[asset]) for asset, size in sorted(held.items()) if size
    )
    gross = sum((abs(p.size) * p.mark_price for p in positions), Decimal(0))
    margin = Margin("perp", collateral, collateral, gross / 16, collateral, Decimal("0.0625"), Decimal("0.1"))
    return Portfolio((Holding("account", "USDC", idle),), (), positions, (margin,))


def naive(metric: str, asset: str, portfolio: Portfolio) -> Fraction | None:
    """The metric from its printed definition. None: no value."""
    legs = [(p.asset, Fraction(p.size), Fraction(p.mark_price)) for p in portfolio.positions]
    value = Fraction(portfolio.margins[0].account_value)
    equity = value + sum((Fraction(h.amount) for h in portfolio.holdings), Fraction(0))
    gross = sum((abs(s) * p for _, s, p in legs), Fraction(0))
    if metric == "gross_notional":
        return gross
    if metric == "position_size":
        return sum((abs(s) for a, s, _ in legs if a == asset), Fraction(0))
    if metric == "equity":
        return equity
    if metric == "leverage":
        return Fraction(0) if not gross else gross / equity if equity > 0 else None
    if metric == "concentration":
        return sum((abs(s) * p for a, s, p in legs if a == asset), Fraction(0)) / gross if gross else Fraction(0)
    assert metric == "liquidation_distance"
    slack = value - RATE * gross
    nearest = Fraction(1)
    for moved in [{a} for a, _, _ in legs] + [{a for a, _, _ in legs}]:
        if slack < 0 and legs:
            return Fraction(0)
        slope = sum(((s - RATE * abs(s)) * p for a, s, p in legs if a in moved), Fraction(0))
        move = -slack / slope if slope else None
        if move is not None and move > -1:
            nearest = min(nearest, abs(move))
    return nearest


LIMITS = {
    "gross_notional": ("max", "", st.decimals(min_value=0, max_value=300_000, places=2)),
    "position_size": ("max", "asset: ETH", st.decimals(min_value=0, max_value=50, places=3)),
    "equity": ("min", "", st.decimals(min_value=0, max_value=10_000, places=2)),
    "leverage": ("max", "", st.decimals(min_value=0, max_value=40, places=2)),
    "concentration": ("max", "asset: ETH", st.decimals(min_value=0, max_value=100, places=2)),
    "liquidation_distance": ("min", "", st.decimals(min_value=0, max_value=99, places=2)),
}
PERCENT = ("concentration", "liquidation_distance")
RANK = {"allow": 0, "require_signers": 1, "deny": 2}


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[str, Decimal, str]], Portfolio, Portfolio]:
    marks = {asset: draw(amounts) for asset in ASSETS}
    collateral, idle = draw(amounts) * 10, draw(amounts)
    before = book(draw(sizes), marks, collateral, idle)
    after = book(draw(sizes), marks, collateral, idle)
    limits = draw(
        st.lists(
            st.sampled_from(sorted(LIMITS)).flatmap(
                lambda m: st.tuples(st.just(m), LIMITS[m][2], st.sampled_from(["deny", "require_signers", "warn"]))
            ),
            max_size=6,
        )
    )
    return limits, before, after


@settings(max_examples=400, deadline=None)
@given(cases())
def test_an_independent_evaluator_comes_to_the_same_outcome(
    case: tuple[list[tuple[str, Decimal, str]], Portfolio, Portfolio],
) -> None:
    limits, before, after = case
    lines = []
    for number, (metric, bound, action) in enumerate(limits):
        key, scope, _ = LIMITS[metric]
        unit = "%" if metric in PERCENT else ""
        more = (f", scope: '{scope}'" if scope else "") + (", approval: desk" if action == "require_signers" else "")
        lines.append(f"  - {{id: l{number}, metric: {metric}, {key}: {bound:f}{unit}, action: {action}{more}}}\n")
    policy = policy_of(
        BUY
        + "approvals: [{id: desk, signers: [trader], quorum: 1}]\n"
        + ("limits:\n" + "".join(lines) if lines else "")
    )
    decision = evaluate(policy, facts(policy_facts=opening(policy), before=before, after=after), NOW_S)

    expected = "allow"
    for metric, bound, action in limits:
        key, scope, _ = LIMITS[metric]
        limit = Fraction(bound) / (100 if metric in PERCENT else 1)
        was, now = (naive(metric, scope.removeprefix("asset: "), p) for p in (before, after))

        def inside(value: Fraction, key: str = key, limit: Fraction = limit) -> bool:
            return value <= limit if key == "max" else value >= limit

        if now is not None and abs(now - limit) <= QUANTUM and now != limit:
            return  # closer than the last digit that is kept: the engine rounds towards more risk there
        if now is None:
            verdict = "deny"
        elif inside(now) or (was is not None and not inside(was) and (now <= was if key == "max" else now >= was)):
            verdict = "allow"
        else:
            verdict = {"warn": "allow"}.get(action, action)
        expected = max(expected, verdict, key=RANK.__getitem__)
    assert decision.objections == ()
    assert decision.outcome == expected, decision.explain()


def facts(policy_facts: Facts, before: Portfolio, after: Portfolio) -> Facts:
    """Facts with these portfolios, prices at the marks, and the fills that lead from one to the other."""
    marks = {p.asset: p.mark_price for p in (*before.positions, *after.positions)}
    change = {asset: Decimal(0) for asset in marks}
    for sign, portfolio in ((1, after), (-1, before)):
        for p in portfolio.positions:
            change[p.asset] += sign * p.size
    return (
        replace(
            policy_facts,
            before=before,
            after=after,
            prices=tuple(Price(asset, mark, NOW_S, "feed") for asset, mark in sorted(marks.items())),
            fills=tuple(
                Fill("perp", a, size, abs(size) * marks[a], Decimal(0)) for a, size in sorted(change.items()) if size
            ),
            orders=tuple(
                replace(o, asset=next(iter(marks), "ETH"), worst_price=Decimal(1)) for o in policy_facts.orders if marks
            ),
        )
        if marks
        else replace(policy_facts, before=before, after=after, prices=policy_facts.prices, fills=())
    )
