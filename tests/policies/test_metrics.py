"""Every metric on a portfolio that fits on paper.

Perp account: 10,000 USDC collateral. Long 20 ETH, opened at 180, mark 200 (profit 400). Short 0.5 BTC, opened at 8,000, mark 8,200 (loss
100, and 10 of funding owed). In hand: 500 USDC, 2 ETH at 201. Owed: 1 ETH at 201. So:
account value 10,290; gross 4,000 + 4,100 = 8,100; equity 10,290 + 500 + 402 - 201 = 10,991.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from contracts.errors import BadInput
from policies import METRICS, explain_metric, policy
from policies.metrics import Observation, stress_of
from policies.portfolio import Debt, Facts, Fill, Holding, Margin, Order, Portfolio, Position, Price
from tests.policies.rig import NOW_S, opening, policy_of

BOOK = Portfolio(
    holdings=(Holding("account", "USDC", Decimal(500)), Holding("account", "ETH", Decimal(2))),
    debts=(Debt("aave", "ETH", Decimal(1)),),
    positions=(
        Position("perp", "ETH", Decimal(20), Decimal(3_600), Decimal(200)),
        Position("perp", "BTC", Decimal("-0.5"), Decimal(-4_000), Decimal(8_200), Decimal(10)),
    ),
    margins=(
        Margin(
            "perp",
            Decimal(10_000),
            Decimal(10_290),
            Decimal("506.25"),
            Decimal(9_480),
            Decimal("0.0625"),
            Decimal("0.1"),
        ),
    ),
)
PRICES = (Price("ETH", Decimal(201), NOW_S, "feed"), Price("BTC", Decimal(8_190), NOW_S, "feed"))


def facts(**changes: object) -> Facts:
    return replace(opening(policy_of("")), prices=PRICES, fills=(), orders=(), **changes)  # type: ignore[arg-type]


def take(metric: str, scope: str = "portfolio", book: Portfolio = BOOK, given: Facts | None = None) -> Observation:
    return METRICS[metric].compute(given or facts(), book, policy.Scope.parse(scope))


@pytest.mark.parametrize(
    ("metric", "scope", "expected"),
    [
        ("gross_notional", "portfolio", "8100"),
        ("gross_notional", "asset: ETH", "4000"),
        ("gross_notional", "venue: perp", "8100"),
        ("gross_notional", "venue: elsewhere", "0"),
        ("net_notional", "portfolio", "100"),
        ("net_notional", "asset: BTC", "4100"),
        ("position_size", "asset: BTC", "0.5"),
        ("equity", "portfolio", "10991"),
        ("equity", "venue: perp", "10290"),
        ("free_collateral", "portfolio", "9480"),
        ("concentration", "asset: ETH", "0.493827160493827161"),  # 4,000 / 8,100, rounded up
        ("leverage", "portfolio", "0.736966609043763079"),  # 8,100 / 10,991, rounded up
        ("margin_ratio", "portfolio", "1"),  # 10,290 / 8,100 is more than everything
        ("margin_use", "portfolio", "0.049198250728862974"),  # 506.25 / 10,290, rounded up
    ],
)
def test_a_metric_is_what_its_definition_says(metric: str, scope: str, expected: str) -> None:
    assert take(metric, scope).value == Decimal(expected)


def test_liquidation_distance_is_the_nearest_of_each_price_alone_and_all_together() -> None:
    """Slack 10,290 - 506.25 = 9,783.75. ETH alone: a long loses 4,000 x 93.75 % at most, no move does it. BTC alone: up by
    9,783.75 / (4,100 x 106.25 %) = 224.6 %. Together: slope 3,750 - 4,356.25 = -606.25, far up. Each is beyond 100 %."""
    assert take("liquidation_distance").value == 1
    lean = replace(BOOK, margins=(replace(BOOK.margins[0], collateral=Decimal(3_000), account_value=Decimal(3_290)),))
    found = take("liquidation_distance", book=lean)
    # slack 2,783.75: ETH down 2,783.75 / 3,750; BTC up 2,783.75 / 4,356.25
    assert dict(found.contributions)["perp:ETH"] == Decimal("0.742333333333333333")
    assert dict(found.contributions)["perp:BTC"] == Decimal("0.639024390243902439")
    assert found.value == Decimal("0.639024390243902439")
    assert take("liquidation_distance", "asset: ETH", lean).value == Decimal("0.742333333333333333")


def test_margin_ratio_shows_the_share_once_it_is_below_everything() -> None:
    lean = replace(BOOK, margins=(replace(BOOK.margins[0], account_value=Decimal(810)),))
    assert take("margin_ratio", book=lean).value == Decimal("0.1")


def test_stress_moves_profit_and_requirement_together() -> None:
    """ETH -50 %: value 10,290 - 2,000 = 8,290; requirement 6.25 % of 2,000 + 4,100 = 381.25."""

    def left(book: Portfolio, asset: str, move: str) -> Decimal | None:
        return stress_of(((asset, Decimal(move)),)).compute(facts(), book, policy.Scope()).value

    assert left(BOOK, "ETH", "-0.5") == Decimal("7908.75")
    assert left(BOOK, "BTC", "1") == Decimal(10_290) - 4_100 - Decimal("0.0625") * (4_000 + 8_200)
    assert left(Portfolio(), "ETH", "-0.5") == 0


def test_slippage_counts_the_fee_and_takes_the_worst_of_fills_and_bounds() -> None:
    bought = Fill("perp", "ETH", Decimal(10), Decimal(2_020), Decimal(2))  # 202.2 paid against 201
    sold = Fill("perp", "ETH", Decimal(-10), Decimal(2_000), Decimal(2))  # 199.8 received against 201
    assert take("order_slippage", given=facts()).value == 0
    found = take("order_slippage", given=replace(facts(), fills=(bought, sold)))
    assert [part for _, part in found.contributions] == [
        Decimal("0.005970149253731344"),
        Decimal("0.005970149253731344"),
    ]
    assert found.value == Decimal("0.005970149253731344")  # 1.2 / 201, rounded up
    bound = Order("perp", "ETH", True, Decimal("203.01"))
    assert take("order_slippage", given=replace(facts(), fills=(bought,), orders=(bound,))).value == Decimal("0.01")
    assert take("order_notional", given=replace(facts(), fills=(bought, sold))).value == 4_020


def test_a_fill_better_than_the_index_is_no_slippage() -> None:
    bought = Fill("perp", "ETH", Decimal(10), Decimal(1_990), Decimal(2))
    assert take("order_slippage", given=replace(facts(), fills=(bought,))).value == 0


def test_an_order_that_accepts_any_price_has_no_slippage_to_speak_of() -> None:
    found = take("order_slippage", given=replace(facts(), orders=(Order("perp", "ETH", True, None),)))
    assert found.value is None
    assert "no price bound" in found.why


def test_leverage_has_no_value_without_equity_and_is_zero_without_positions() -> None:
    broke = replace(BOOK, holdings=(), debts=(), margins=(replace(BOOK.margins[0], account_value=Decimal(0)),))
    assert take("leverage", book=broke).value is None
    assert take("leverage", book=Portfolio()).value == 0


def test_equity_without_a_price_has_no_value() -> None:
    found = take("equity", given=replace(facts(), prices=()))
    assert found.value is None
    assert "no price of ETH" in found.why


def test_every_metric_explains_itself() -> None:
    for name in METRICS:
        metric = explain_metric(name)
        assert metric.definition
        assert metric.inputs
        assert metric.unit in (
            "USDC",
            "x",
            "%",
            "units",
            "count",
            "ETH",
            "units/USDC",
            "units/point",
            "USDC/point",
            "USDC/point^2",
            "USDC/day",
        )
    with pytest.raises(BadInput, match="did you mean leverage"):
        explain_metric("levrage")
