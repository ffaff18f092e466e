"""The engine against an independent evaluator (tests/policies/naive.py): generated policy files and facts, every verdict compared."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.types import keccak
from policies import Facts, evaluate
from policies.portfolio import (
    Activity,
    Allowance,
    Collateral,
    Debt,
    EquityPoint,
    Fill,
    History,
    Holding,
    Liquidity,
    Loan,
    Margin,
    Option,
    Portfolio,
    Position,
    Price,
)
from tests.policies import naive
from tests.policies.rig import ACCOUNT, BOOK, NOW_S, opening, policy_of

D = Decimal
DAY = 86_400
ASSETS = ("ETH", "BTC")
CLOSE = Fraction(1, 10**9)
"""A value nearer to what it is compared with than this share is the rounding's to decide (towards more risk); such cases are passed over."""
HEAD = (
    "calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"
    "approvals: [{id: desk, signers: [trader], quorum: 1}, {id: board, signers: [trader, keeper], quorum: 2}]\n"
)
RANK = {"allow": 0, "pass": 0, "warn": 0, "require_signers": 1, "deny": 2}


def amounts(low: str, high: str, places: int = 3) -> st.SearchStrategy[Decimal]:
    return st.decimals(min_value=D(low), max_value=D(high), places=places)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Facts, int]:
    """Sound facts: every figure follows from the others, and what an operation costs is paid for in cash."""
    prices = {asset: draw(amounts("10", "5000", 2)) for asset in ASSETS}
    gap = draw(amounts("-0.02", "0.02"))
    marks = {asset: (price * (1 + gap)).quantize(D("0.01")) for asset, price in prices.items()}
    collateral = draw(amounts("1", "50000"))
    option = Option(
        "deribit", "ETH", draw(st.booleans()), draw(amounts("10", "5000", 0)), NOW_S + draw(st.integers(1, 90)) * DAY,
        D(0), D(0), min(marks["ETH"], draw(amounts("0.1", "10"))), draw(amounts("0.2", "2")),
    )  # fmt: skip
    lent, rate = draw(amounts("0.1", "50")), draw(amounts("0.3", "0.9", 2))
    pool = Liquidity("uniswap", 1, "ETH", "USDC", draw(amounts("5", "900", 0)), draw(amounts("901", "6000", 0)),
                     draw(amounts("0", "100")), draw(amounts("0", "1")), draw(amounts("0", "100")))  # fmt: skip
    allowed = draw(amounts("0", "1000"))
    entry = draw(amounts("0.9", "1.1"))
    cash = D(10_000_000)
    has_options, has_loan, has_pool = (draw(st.booleans()) for _ in range(3))

    def book(debt: Decimal, cash: Decimal, held: dict[str, Decimal], options: Decimal) -> Portfolio:
        positions = tuple(
            Position("perp", asset, size, size * marks[asset] * entry, marks[asset], D("0.5"))
            for asset, size in held.items()
            if size
        )
        profit = sum((p.notional - p.entry_notional - p.pending_funding for p in positions), D(0))
        whole = sum((abs(p.notional) for p in positions), D(0))
        # the profit of what is opened at `entry` is paid for, so that an operation changes no equity
        value = collateral
        margin = Margin("perp", value - profit, value, whole / 16, max(value - whole / 10, D(0)), D("0.0625"), D("0.1"))
        worth = lent * prices["ETH"]
        debts: tuple[Debt, ...] = ()
        loans: tuple[Loan, ...] = ()
        pledged: tuple[Collateral, ...] = ()
        if has_loan:
            factor = worth * rate / debt if debt else None
            debts = (Debt("aave", "USDC", debt),)
            loans = (Loan("aave", worth, debt, rate, factor, D(0)),)
            pledged = (Collateral("aave", "ETH", lent, prices["ETH"], rate, rate),)
        return Portfolio(
            (Holding("account", "USDC", cash), Holding("account", "ETH", D(1))), debts, positions, (margin,),
            (replace(option, size=options),) if options else (), (pool,) if has_pool else (), pledged, loans,
            (Allowance("USDC", BOOK["usdc"], BOOK["perp.vault"], allowed, False),),
        )  # fmt: skip

    sizes = st.fixed_dictionaries({asset: st.one_of(st.just(D(0)), amounts("-50", "50")) for asset in ASSETS})
    was, now = draw(sizes), draw(sizes)
    old, new = (draw(amounts("-20", "20", 1)) if has_options else D(0) for _ in range(2))
    borrowed, more = draw(amounts("1", "500")), draw(amounts("0", "500"))
    earlier = book(borrowed, cash, was, old)
    later = book(borrowed + more, cash - (new - old) * option.mark_price + (more if has_loan else 0), now, new)
    fills = tuple(
        Fill(venue, asset, after - before, abs(after - before) * quote, D(0))
        for venue, asset, before, after, quote in (
            *(("perp", asset, was[asset], now[asset], marks[asset]) for asset in ASSETS),
            ("deribit", "ETH", old, new, option.mark_price),
        )
        if after != before
    )
    paid = draw(amounts("0", "5000"))
    record = History(
        NOW_S - 90 * DAY,
        (
            EquityPoint(NOW_S - 3 * DAY, draw(amounts("9900000", "10100000")), D(0)),
            EquityPoint(NOW_S - DAY - 1, draw(amounts("9900000", "10100000")), paid),
            EquityPoint(NOW_S - 60, draw(amounts("9900000", "10100000")), paid),
        ),
        tuple(
            Activity(NOW_S - at, keccak(str(at).encode()), draw(amounts("0", "5000")), D(0), 0, 0)
            for at in sorted(draw(st.lists(st.integers(60, 2 * DAY), max_size=4, unique=True)), reverse=True)
        ),
    )
    facts = replace(
        opening(policy_of(HEAD)),
        before=earlier,
        after=later,
        prices=tuple(Price(asset, price, NOW_S, "feed") for asset, price in prices.items()),
        fills=fills,
        history=record,
        signer=draw(st.sampled_from([None, BOOK["trader"], BOOK["keeper"]])),
    )
    return facts, draw(st.integers(-50, 60))


@st.composite
def limits(draw: st.DrawFn, facts: Facts, number: int) -> dict[str, Any]:
    """One limit, its bound often near what it is compared with."""
    name = draw(st.sampled_from(sorted(naive.METRICS)))
    side, unit, metric, scope = naive.METRICS[name]
    limit: dict[str, Any] = {
        "id": f"l{number}",
        "metric": name,
        "action": draw(st.sampled_from(["deny", "require_signers", "warn"])),
    }
    change = scope != "operation" and draw(st.integers(0, 3)) == 0
    was, now = (metric(facts, facts.before, scope, False), metric(facts, facts.after, scope, True))
    about = Fraction(0) if now is None else now - (was or 0) if change else now
    about = about * 100 if unit == "%" else about
    near = D(about.numerator) / D(about.denominator)
    factor = draw(amounts("0.3", "1.8", 2))
    bound = draw(st.one_of(st.just(near), st.just(near * factor), amounts("0", "100000", 2)))
    bound = bound.quantize(D("0.01"))
    if change:
        limit["change"] = max(bound, D(0)) if side == "max" else min(bound, D(0))
    else:
        limit["bound"] = bound if name == "unrealised_pnl" or name == "equity" else abs(bound)
        if name == "liquidation_distance":
            limit["bound"] = min(limit["bound"], D(99))
        if draw(st.booleans()):
            limit["hysteresis"] = draw(st.integers(0, 50))
    if limit["action"] == "require_signers":
        limit["approval"] = "desk"
    if draw(st.booleans()):
        limit["warn_at"] = draw(st.integers(1, 100))
    if limit["action"] != "deny" and draw(st.booleans()):
        far = limit["change" if change else "bound"] + (1 if side == "max" else -1) * draw(amounts("0.01", "1000", 2))
        further = far + (1 if side == "max" else -1) * draw(amounts("0.01", "1000", 2))
        limit["escalate"] = draw(
            st.sampled_from([
                [{"beyond": far, "approval": "board"}, {"beyond": further}],
                [{"beyond": far}],
                [{"beyond": far, "approval": "desk"}, {"beyond": further, "approval": "board"}],
            ])
        )  # fmt: skip
    if draw(st.integers(0, 3)) == 0:
        days = draw(st.lists(st.sampled_from(naive.DAYS), min_size=1, max_size=7, unique=True))
        start, end = draw(st.lists(st.integers(0, 23), min_size=2, max_size=2, unique=True))
        limit["during"] = {"days": days, "hours": f"{start:02}:00-{end:02}:30"}
    return limit


def text_of(limit: dict[str, Any], *, keys: tuple[str, ...] = ()) -> str:
    """One limit as it stands in a file: JSON is YAML."""
    side, unit, _, scope = naive.METRICS[limit["metric"]]
    shown: dict[str, Any] = {k: v for k, v in limit.items() if k in ("id", "action", "approval", "during")}
    if not keys:
        shown |= {"metric": limit["metric"], "scope": scope}
    for key, name in (("bound", side), ("change", f"{side}_change")):
        if key in limit:
            shown[name] = f"{limit[key]:f}{unit}"
    for key in ("hysteresis", "warn_at"):
        if key in limit:
            shown[key] = f"{limit[key]}%"
    if "escalate" in limit:
        shown["escalate"] = [step | {"beyond": f"{step['beyond']:f}{unit}"} for step in limit["escalate"]]
    return json.dumps({k: v for k, v in shown.items() if not keys or k in keys}, default=str)


def exactly(value: Fraction, other: Fraction) -> bool:
    return value == other or abs(value - other) > CLOSE * max(abs(value), abs(other), Fraction(1))


def compare(data: st.DataObject) -> None:
    facts, minutes = data.draw(pairs())
    drawn = [data.draw(limits(facts, number)) for number in range(data.draw(st.integers(1, 6)))]
    entries = ", ".join(text_of(limit) for limit in drawn)
    rows = [(limit["id"], limit) for limit in drawn]
    more = ""
    if data.draw(st.booleans()):  # an override that tightens the first limit by an own bound, for one signer or chain
        own = drawn[0]
        side, _, _, _ = naive.METRICS[own["metric"]]
        key = "change" if "change" in own else "bound"
        step = data.draw(amounts("0", "100", 2))
        tighter = own | {key: own[key] - step if side == "max" else own[key] + step}
        if key == "bound" and side == "max":
            tighter[key] = max(tighter[key], D(0))
        if key == "change":
            tighter[key] = max(tighter[key], D(0)) if side == "max" else min(tighter[key], D(0))
        if own["metric"] == "liquidation_distance" and key == "bound":
            tighter[key] = min(tighter[key], D(99))
        selector, applies = data.draw(
            st.sampled_from([
                ("signers: [trader]", facts.signer in (None, BOOK["trader"])),
                ("chains: [1337]", True), ("chains: [1]", False),
                (f"accounts: ['0x{ACCOUNT.hex()}'], chains: [1337]", True),
            ])
        )  # fmt: skip
        bound_key = f"{side}_change" if key == "change" else side
        more = f"overrides: [{{id: o, {selector}, limits: [{text_of(tighter, keys=('id', bound_key))}]}}]\n"
        if applies:
            rows.append((f"{own['id']}@o", tighter))
    policy = policy_of(HEAD + f"limits: [{entries}]\n{more}")
    latched = frozenset(name for name, _ in rows if data.draw(st.booleans()))
    now_s = NOW_S + minutes  # hours are whole half hours away from the rig's eight o'clock
    facts = replace(facts, policy_on_chain=policy.policy_id, latched=latched)
    decision = evaluate(policy, facts, now_s)
    assert decision.objections == (), decision.explain()
    expected = {name: naive.judge(limit, facts, now_s, latched=name in latched) for name, limit in rows}
    if not all(value is None or exactly(value, to) for _, _, seen in expected.values() for value, to in seen):
        return
    found = {row.id: (row.verdict, row.approval) for row in decision.limits}
    assert found == {name: (verdict, quorum) for name, (verdict, quorum, _) in expected.items()}, decision.explain()
    worst = max((RANK[verdict] for verdict, _, _ in expected.values()), default=0)
    assert decision.outcome == ("allow", "require_signers", "deny")[worst]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_an_independent_evaluator_comes_to_the_same_verdicts(data: st.DataObject) -> None:
    compare(data)


@pytest.mark.slow
@pytest.mark.skipif("SEAWALL_FUZZ" not in os.environ, reason="the long form: `make fuzz`, or SEAWALL_FUZZ=1")
@settings(max_examples=3_000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_an_independent_evaluator_comes_to_the_same_verdicts_for_a_long_time(data: st.DataObject) -> None:
    compare(data)
