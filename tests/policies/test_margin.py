"""When an account becomes liquidatable, against foreign vectors and against the definition."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.margin import Leg, critical_move, liquidation_price, ratio

# side, size, price, account value, max leverage, liquidation price. The venue's rule is the same as ours with the maintenance ratio
# 1 / (2 x max leverage).   Source: Hyperliquid docs, "Liquidations":
# liq_price = price - side * margin_available / position_size / (1 - l * side); each verified by bisection on its condition.
LINEAR = [
    (1, "10", "2500", "5000", 25, 2040.8163265306123),
    (-1, "10", "2500", "5000", 25, 2941.176470588235),
    (1, "0.5", "100000", "6000", 40, 89113.92405063291),
    (-1, "2", "100000", "30000", 40, 113580.24691358025),
]


@pytest.mark.parametrize(("side", "size", "price", "value", "leverage", "expected"), LINEAR)
def test_liquidation_prices_agree_with_published_ones(
    side: int, size: str, price: str, value: str, leverage: int, expected: float
) -> None:
    legs = [Leg("X", side * Decimal(size), Decimal(price))]
    found = liquidation_price(Decimal(value), Decimal(1) / (2 * leverage), legs, "X")
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_a_3x_long_on_perp_v2_is_liquidated_28_9_percent_below() -> None:
    """10,000 + 150 (P - 200) = 6.25 % x 150 P  =>  P = 20,000 / 140.625 = 142.2222."""
    legs = [Leg("ETH", Decimal(150), Decimal(200))]
    price = liquidation_price(Decimal(10_000), Decimal("0.0625"), legs, "ETH")
    assert price is not None
    assert price.quantize(Decimal("0.0001")) == Decimal("142.2222")


def test_one_times_long_is_never_liquidated_and_a_short_always_somewhere() -> None:
    assert critical_move(Decimal(200), Decimal("0.0625"), [Leg("ETH", Decimal(1), Decimal(200))]) is None
    move = critical_move(Decimal(200), Decimal("0.0625"), [Leg("ETH", Decimal(-1), Decimal(200))])
    assert move is not None
    assert move > Decimal("0.88")


def test_an_account_below_its_requirement_is_at_distance_zero() -> None:
    assert critical_move(Decimal(10), Decimal("0.0625"), [Leg("ETH", Decimal(1), Decimal(200))]) == 0


def test_a_hedge_has_no_critical_common_move_but_each_leg_has_one() -> None:
    legs = [Leg("A", Decimal(10), Decimal(100)), Leg("B", Decimal(-10), Decimal(100))]
    together = critical_move(Decimal(500), Decimal("0.0625"), legs)
    alone = critical_move(Decimal(500), Decimal("0.0625"), legs, {"A"})
    assert alone is not None
    assert together is None or abs(together) > abs(alone)


_amount = st.decimals(min_value=Decimal("0.01"), max_value=10_000, places=4)
_leg = st.tuples(st.sampled_from([-1, 1]), _amount, _amount)


@given(st.lists(_leg, min_size=1, max_size=4), st.decimals(min_value=0, max_value=10**7, places=2))
def test_at_the_critical_move_value_meets_requirement_and_before_it_there_is_slack(
    drawn: list[tuple[int, Decimal, Decimal]], value: Decimal
) -> None:
    legs = [Leg(str(i), side * size, price) for i, (side, size, price) in enumerate(drawn)]
    rate = Decimal("0.0625")

    def slack(move: Decimal) -> Decimal:
        profit = sum((leg.size * leg.price * move for leg in legs), Decimal(0))
        return value + profit - rate * sum((abs(leg.size) * leg.price * (1 + move) for leg in legs), Decimal(0))

    move = critical_move(value, rate, legs)
    gross = sum((abs(leg.size) * leg.price for leg in legs), Decimal(0))
    if move is None:
        assert slack(Decimal("-0.999999")) >= -gross * Decimal("0.00001")
    elif slack(Decimal(0)) < 0:
        assert move == 0
    else:
        assert abs(slack(move)) <= gross * Decimal("1e-17") + Decimal("1e-15")
        assert slack(move) >= -Decimal("1e-15")
        assert slack(move / 2) >= slack(move)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=6), _amount)
def test_a_ratio_is_rounded_the_way_it_is_told(numerator: Decimal, denominator: Decimal) -> None:
    up, down = ratio(numerator, denominator, up=True), ratio(numerator, denominator, up=False)
    assert down * denominator <= numerator <= up * denominator
    assert up - down <= Decimal("1e-18")
