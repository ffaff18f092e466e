"""What an operation adds to the record, against figures worked out by hand, and how much of the record a policy needs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from policies import load
from policies.activity import equity_point, realised_by, record_needed_s, traded_by
from policies.limits import Limit, Override, Parameters, Scope
from policies.portfolio import Missing
from tests.policies.rig import NOW_S, closing, example, fill, opening, policy_of, portfolio

FUND = load(example("conservative_fund"))


def test_an_opening_trades_its_quote_and_realises_its_fee_only() -> None:
    facts = opening(FUND, fills=(fill("150", fee="30"),), after=portfolio("150", collateral="9970"))
    assert traded_by(facts) == 30_000
    assert realised_by(facts) == -30


def test_closing_a_long_realises_proceeds_less_entry_less_fee() -> None:
    """150 ETH bought at 200, sold at 210 with a fee of 31.5: 1500 - 31.5 in collateral afterwards."""
    facts = closing(FUND, fills=(fill("-150", "210", "31.5"),), after=portfolio("0", collateral="11468.5"))
    assert realised_by(facts) == Decimal("1468.5")
    assert traded_by(facts) == 31_500


def test_equity_is_taken_before_the_operation_and_not_from_facts_that_lack_something() -> None:
    point = equity_point(opening(FUND), Decimal(7))
    assert point is not None
    assert (point.time_s, point.equity, point.paid_in) == (NOW_S, Decimal(10_500), Decimal(7))
    assert equity_point(opening(FUND, missing=(Missing("perp", "paused"),)), Decimal(0)) is None


@pytest.mark.parametrize(
    ("metric", "window_s", "needed_s"),
    [("leverage", None, None), ("loss", None, 86_400), ("turnover", 3_600, 3_600), ("drawdown", 60, 60)],
)
def test_a_policy_needs_the_record_as_far_as_its_windows_reach(
    metric: str, window_s: int | None, needed_s: int | None
) -> None:
    limit = Limit("x", metric, Scope(), True, Decimal(1), parameters=Parameters(window_s=window_s))
    assert record_needed_s(replace(policy_of(""), limits=(limit,))) == needed_s


def test_a_drawdown_without_window_needs_all_of_it() -> None:
    limit = Limit("x", "drawdown", Scope(), True, Decimal(1))
    found = record_needed_s(replace(policy_of(""), limits=(limit,)))
    assert found is not None
    assert found > 10**12


def test_limits_of_overrides_and_conditions_count_too() -> None:
    base = policy_of("")
    looks = Limit("x", "turnover", Scope(), True, Decimal(1), parameters=Parameters(window_s=7_200))
    override = Override("night", (), (), (), (looks,), frozenset())
    assert record_needed_s(replace(base, overrides=(override,))) == 7_200
    conditional = Limit("y", "leverage", Scope(), True, Decimal(1), when="loss > 100.0")
    assert record_needed_s(replace(base, limits=(conditional,))) == 86_400
