"""Requirements, their use, liquidation prices and distances, lending accounts included.

Perp: 10 ETH long at 2,000 (20,000), account value 5,000; maintenance 6.25 % = 1,250, initial 10 % = 2,000.
Liquidatable at P with 5,000 + 10 (P - 2,000) = 0.625 P: P = 15,000 / 9.375 = 1,600, 20 % below.
Aave: 10 ETH x 2,000 x 80 % = 16,000 against 12,000: liquidatable at 12,000 / 8 = 1,500, 25 % below.
"""

from __future__ import annotations

from dataclasses import replace

from policies.metrics import Observation, stress_of
from policies.policy import Scope
from policies.portfolio import Collateral, Debt, Loan, Margin, Option, Portfolio, Position
from tests.policies.metrics.books import D, facts, take
from tests.policies.rig import NOW_S

LONG = Position("perp", "ETH", D(10), D(20_000), D(2_000))
ACCOUNT = Margin("perp", D(5_000), D(5_000), D(1_250), D(3_000), D("0.0625"), D("0.1"))
PERP = Portfolio(positions=(LONG,), margins=(ACCOUNT,))
LENDING = Portfolio(
    debts=(Debt("aave", "USDC", D(12_000)),),
    collateral=(Collateral("aave", "ETH", D(10), D(2_000), D("0.8"), D("0.75")),),
    loans=(Loan("aave", D(20_000), D(12_000), D("0.8"), D(4) / D(3), D(3_000)),),
)


def test_requirements_and_their_use() -> None:
    assert take("maintenance_margin", PERP).value == 1_250
    assert take("initial_margin", PERP).value == 2_000
    assert take("margin_use", PERP).value == D("0.25")
    assert take("initial_margin_use", PERP).value == D("0.4")
    assert take("margin_use", PERP, "venue: elsewhere").value == 0


def test_an_account_without_value_has_no_margin_use() -> None:
    broke = replace(PERP, margins=(replace(ACCOUNT, account_value=D(0)),))
    for metric in ("margin_use", "initial_margin_use"):
        found = take(metric, broke)
        assert found.value is None
        assert "not positive" in found.why


def test_the_liquidation_price_of_a_long_is_below_and_nothing_is_above() -> None:
    assert take("liquidation_price", PERP, "asset: ETH").value == 1_600
    assert take("liquidation_price_above", PERP, "asset: ETH").value == 2_000_000
    assert take("liquidation_distance", PERP).value == D("0.2")


def test_the_liquidation_price_of_a_short_is_above_and_nothing_is_below() -> None:
    """5,000 - 10 (P - 2,000) = 0.625 P: P = 25,000 / 10.625."""
    short = replace(PERP, positions=(replace(LONG, size=D(-10), entry_notional=D(-20_000)),))
    assert take("liquidation_price", short, "asset: ETH").value == 0
    found = take("liquidation_price_above", short, "asset: ETH").value
    assert found is not None
    assert 0 <= D(25_000) / D("10.625") - found < D("1e-14")


def test_a_lending_account_has_a_liquidation_price_and_a_distance() -> None:
    assert take("liquidation_price", LENDING, "asset: ETH").value == 1_500
    assert take("liquidation_distance", LENDING).value == D("0.25")
    assert take("liquidation_distance", LENDING, "venue: perp").value == 1


def test_the_nearest_account_decides() -> None:
    both = replace(LENDING, positions=PERP.positions, margins=PERP.margins)
    found = take("liquidation_distance", both)
    assert found.value == D("0.2")
    assert dict(found.contributions) == {"perp:ETH": D("0.2"), "aave:ETH": D("0.25")}
    assert take("liquidation_price", both, "asset: ETH").value == 1_600


def test_a_debt_in_another_asset_is_liquidated_when_that_one_rises() -> None:
    """0.3 BTC owed (12,000): alone liquidatable at 16,000 / 0.3 = 53,333, a rise by a third."""
    book = replace(LENDING, debts=(Debt("aave", "BTC", D("0.3")),))
    assert take("liquidation_distance", book, "asset: BTC").value == D("0.333333333333333333")
    assert take("liquidation_distance", book, "asset: ETH").value == D("0.25")


def test_what_is_liquidatable_already_is_at_distance_zero() -> None:
    under = replace(LENDING, loans=(replace(LENDING.loans[0], debt_value=D(16_001)),))
    assert take("liquidation_distance", under).value == 0


def test_a_debt_whose_assets_are_not_known_has_no_distance() -> None:
    found = take("liquidation_distance", replace(LENDING, debts=()))
    assert found.value is None
    assert "asset by asset" in found.why


def test_funding_owed_is_what_has_not_settled() -> None:
    owing = replace(LONG, pending_funding=D("12.5"))
    owed = Position("other", "ETH", D(-1), D(-2_000), D(2_000), D("-2.5"))
    book = Portfolio(positions=(owing, owed))
    assert take("funding_owed", book).value == 10
    assert take("funding_owed", book, "venue: perp").value == D("12.5")


def test_free_collateral_is_the_venues_own_answer() -> None:
    assert take("free_collateral", PERP).value == 3_000


def stressed(book: Portfolio, asset: str, move: str) -> Observation:
    return stress_of(((asset, D(move)),)).compute(facts(), book, Scope())


def test_a_margin_model_that_is_not_known_or_lacks_a_term_gives_no_value_rather_than_none_at_all() -> None:
    short = Option("lyra", "ETH", True, D(2_200), NOW_S + 86_400, D(-1), D(-50), D(40), D("0.8"))
    account = Margin("lyra", D(1_000), D(960), D(300), D(0), D(0), D(0), "lyra")
    book = Portfolio(options=(short,), margins=(account,))
    unknown = replace(book, margins=(replace(account, model="secret"),))
    for metric in ("initial_margin", "initial_margin_use", "liquidation_distance"):
        for given, why in ((book, "needs the term"), (unknown, "there is no margin model 'secret'")):
            found = take(metric, given)
            assert found.value is None
            assert why in found.why
    assert "needs the term" in stressed(book, "ETH", "-0.1").why
    bought = replace(book, options=(replace(short, size=D(1)),))
    assert take("liquidation_distance", bought).value == 1


TIERED = Portfolio(
    positions=(Position("binance", "ETH", D(10), D(20_000), D(2_000)),),
    margins=(
        Margin(
            "binance", D(5_000), D(5_000), D(100), D(3_000), D(0), D(0), "binance_linear",
            (("maintenance_rate.ETH.0", D("0.005")), ("maintenance_rate.ETH.50000", D("0.01")), ("leverage.ETH", D(20))),
        ),
    ),
)  # fmt: skip
"""0.5 % up to 50,000, 1 % above (less 250): 10 ETH at 2,000 need 100, at leverage 20 to open 1,000."""


def test_an_account_under_tiers_is_liquidated_where_its_own_rule_says() -> None:
    """Liquidatable at P with 5,000 + 10 (P - 2,000) = 0.005 x 10 P: P = 15,000 / 9.95 = 1,507.5377."""
    assert take("initial_margin", TIERED).value == 1_000
    found = take("liquidation_price", TIERED, "asset: ETH").value
    assert found is not None
    assert D(0) <= found - D(15_000) / D("9.95") < D("0.01")
    distance = take("liquidation_distance", TIERED).value
    assert distance is not None
    assert abs(distance - (1 - D(15_000) / D("9.95") / 2_000)) < D("1e-5")


def test_stress_under_tiers_takes_the_requirement_of_the_tier_after_the_move() -> None:
    """ETH -20 %: value 5,000 - 4,000 = 1,000, requirement 0.5 % of 16,000 = 80. ETH +200 %: 45,000 - (1 % of 60,000 - 250)."""
    assert stressed(TIERED, "ETH", "-0.2").value == 920
    assert stressed(TIERED, "ETH", "2").value == 45_000 - 350


def test_the_margin_model_is_named_with_its_version() -> None:
    for metric in ("initial_margin", "initial_margin_use", "liquidation_distance"):
        assert take(metric, TIERED).models == (("margin_binance_linear", "1", "python"),)
        assert take(metric, PERP).models == ()
    assert stressed(TIERED, "ETH", "-0.2").models == (("margin_binance_linear", "1", "python"),)
