"""What a scenario takes away, with everything priced anew.

ETH 2,000. Long 3 ETH of perp, 1 ETH in hand, 100 USDC. ETH -25 %: 4 x 500 lost. A put of strike 1,000,000 is worth strike - spot.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies import evaluate
from policies.limits import Scenario
from policies.portfolio import Holding, Liquidity, Margin, Option, Portfolio, Position
from tests.policies.metrics.books import D, facts, take
from tests.policies.rig import NOW_S, opening, policy_of

PERP = Position("perp", "ETH", D(3), D(5_700), D(2_000))
BOOK = Portfolio(
    holdings=(Holding("account", "ETH", D(1)), Holding("account", "USDC", D(100))),
    positions=(PERP,),
    margins=(Margin("perp", D(1_000), D(1_300), D(375), D(0), D("0.0625"), D("0.1")),),
)
FALL = Scenario("fall", (("ETH", D("-0.25")),))


def test_linear_positions_and_holdings_lose_their_share() -> None:
    found = take("stress_loss", BOOK, scenario=FALL)
    assert found.value == 2_000
    assert dict(found.contributions) == {"account:ETH": 500, "account:USDC": 0, "perp:ETH": 1_500}


def test_a_gain_is_no_loss() -> None:
    assert (
        take("stress_loss", replace(BOOK, holdings=(), positions=(replace(PERP, size=D(-3)),)), scenario=FALL).value
        == 0
    )


def test_an_option_is_priced_anew_and_not_by_its_delta() -> None:
    """A deep call moves with the price one to one; a call far out of the money is worth nothing before and after."""
    deep = Option("x", "ETH", True, D("0.01"), NOW_S + 86_400, D(-2), D(-4_000), D(2_000), D("0.5"))
    far = replace(deep, strike=D(1_000_000), size=D(-5))
    assert (
        take("stress_loss", Portfolio(options=(deep, far)), scenario=Scenario("up", (("ETH", D("0.5")),))).value
        == 2_000
    )
    crash = take("stress_loss", Portfolio(options=(replace(deep, size=D(2)),)), scenario=FALL)
    assert crash.value == 1_000
    assert crash.models[0][0] == "full_revaluation"


def test_volatility_and_time_are_shocks_too() -> None:
    """A short straddle loses when volatility doubles, and a long one with the days."""
    call = Option("x", "ETH", True, D(2_000), NOW_S + 30 * 86_400, D(-1), D(-100), D(91), D("0.4"))
    put = replace(call, is_call=False)
    up = take("stress_loss", Portfolio(options=(call, put)), scenario=Scenario("vol", (), (("ETH", D(1)),)))
    # 2 x 2,000 x (2 N(d/2) - 1) with d = v sqrt T: 364.97 at 80 %, 182.84 at 40 %
    assert up.value == pytest.approx(D("182.44"), abs=D("0.35"))
    decay = take(
        "stress_loss", Portfolio(options=(replace(call, size=D(1)), replace(put, size=D(1)))),
        scenario=Scenario("time", (), (), 30 * 86_400),
    )  # fmt: skip
    assert decay.value == pytest.approx(D("182.84"), abs=D("0.35"))


def test_a_liquidity_position_loses_its_impermanent_loss() -> None:
    """L = 100, [1,600, 2,500]; at 1,600 it is all ETH: 100 (1/40 - 1/50) x 1,600 = 800; at 2,000 it was 954.4... in all."""
    pool = Liquidity("uniswap", 1, "ETH", "USDC", D(1_600), D(2_500), D(100), D(0), D(0))
    found = take("stress_loss", Portfolio(liquidity=(pool,)), scenario=Scenario("fall", (("ETH", D("-0.2")),))).value
    before = take("equity", Portfolio(liquidity=(pool,))).value
    assert found is not None
    assert before is not None
    assert 0 <= found - (before - 800) <= D("0.01")


def test_without_a_price_or_a_volatility_there_is_no_value() -> None:
    assert "there is no price of ETH" in take("stress_loss", BOOK, given=facts(prices=()), scenario=FALL).why
    blind = Portfolio(options=(Option("x", "ETH", True, D(1), NOW_S + 9, D(1), D(1), D(1), None),))
    assert "the volatility of x:ETH" in take("stress_loss", blind, scenario=FALL).why


def test_a_policy_bounds_the_loss_of_a_scenario_by_its_name() -> None:
    text = (
        "stress: [{id: fall, shock: {ETH: -25%}, vol: {ETH: 50%}, time: 1d}]\n"
        "limits: [{id: crash, metric: stress_loss, scenario: fall, max: 7499}]\n"
        "calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"
    )
    policy = policy_of(text)
    decision = evaluate(policy, opening(policy), NOW_S)  # 30,000 long: 7,500
    row = next(row for row in decision.limits if row.id == "crash")
    assert (row.before, row.after, row.verdict) == (0, 7_500, "deny")
    assert [model.name for model in decision.models] == ["full_revaluation"]
