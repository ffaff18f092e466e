"""What an operation trades and realises, against figures worked out by hand."""

from __future__ import annotations

from decimal import Decimal

from policies import load
from policies.activity import equity_point, realised_by, traded_by
from policies.portfolio import Fill, Missing
from tests.policies.rig import NOW_S, closing, example, fill, opening, portfolio

FUND = load(example("conservative_fund"))


def test_an_opening_trades_and_realises_its_fee_only() -> None:
    facts = opening(FUND, fills=(fill("150", fee="30"),))
    assert traded_by(facts) == 30_000
    assert realised_by(facts) == -30


def test_closing_a_long_realises_proceeds_less_entry_less_fee() -> None:
    """150 ETH bought at 200, sold at 210 with a fee of 31.5: 1500 - 31.5."""
    facts = closing(FUND, fills=(fill("-150", "210", "31.5"),))
    assert realised_by(facts) == Decimal("1468.5")
    assert traded_by(facts) == 31_500


def test_closing_a_short_realises_entry_less_what_it_costs() -> None:
    facts = closing(FUND, before=portfolio("-100"), fills=(fill("100", "190"),))
    assert realised_by(facts) == 1_000


def test_half_a_closing_realises_half() -> None:
    facts = closing(FUND, fills=(fill("-75", "220"),))
    assert realised_by(facts) == 1_500


def test_turning_a_position_round_realises_the_closed_part_only() -> None:
    """150 ETH long at 200; 200 are sold at 230: 150 x 30, the other 50 open a short at 230. Bought back at 220: 50 x 10."""
    turned = (fill("-200", "230"),)
    assert realised_by(closing(FUND, fills=turned)) == 4_500
    assert realised_by(closing(FUND, fills=(*turned, fill("50", "220")))) == 5_000


def test_markets_are_kept_apart() -> None:
    other = Fill("perp", "BTC", Decimal(-1), Decimal(60_000), Decimal(0))
    assert realised_by(closing(FUND, fills=(other,))) == 0


def test_equity_is_taken_before_the_operation_and_not_from_facts_that_lack_something() -> None:
    point = equity_point(opening(FUND), Decimal(7))
    assert point is not None
    assert (point.time_s, point.equity, point.paid_in) == (NOW_S, Decimal(10_500), Decimal(7))
    assert equity_point(opening(FUND, missing=(Missing("perp", "paused"),)), Decimal(0)) is None
