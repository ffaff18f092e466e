"""Notional, size, concentration, equity and leverage with options, liquidity and lending in the book.

ETH 2,000, BTC 40,000. Short 3 ETH calls and long 2 ETH puts at `deribit` (no margin account there), 1 BTC perp long at `perp`
(account value 10,000). Liquidity of L = 100 from 1,600 to 2,500 at ETH 2,000 (sqrt: 40, 44.72..., 50).
At `aave` 10 ETH secure 8,000 USDC and 0.1 BTC of debt.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from policies.portfolio import Collateral, Debt, Holding, Liquidity, Loan, Margin, Option, Portfolio, Position
from tests.policies.metrics.books import D, facts, take

CALL = Option("deribit", "ETH", True, D(2_200), 1_600_000_000, D(-3), D(-300), D(90), D("0.8"))
PUT = Option("deribit", "ETH", False, D(1_800), 1_600_000_000, D(2), D(120), D(70), D("0.9"))
POOL = Liquidity("uniswap", 7, "ETH", "USDC", D(1_600), D(2_500), D(100), D("0.5"), D(10))
PERP = Position("perp", "BTC", D(1), D(39_000), D(40_000))
ACCOUNT = Margin("perp", D(9_000), D(10_000), D(2_500), D(6_000), D("0.0625"), D("0.1"))
BOOK = Portfolio(
    holdings=(Holding("account", "ETH", D(5)),),
    debts=(Debt("aave", "USDC", D(8_000)), Debt("aave", "BTC", D("0.1"))),
    positions=(PERP,),
    margins=(ACCOUNT,),
    options=(CALL, PUT),
    liquidity=(POOL,),
    collateral=(Collateral("aave", "ETH", D(10), D(2_000), D("0.8"), D("0.75")),),
    loans=(Loan("aave", D(20_000), D(12_000), D("0.8"), D(4) / D(3), D(3_000)),),
)
# 100 x (1/sqrt 2,000 - 1/50) + 0.5 ETH and 100 x (sqrt 2,000 - 40) + 10 USDC
POOL_ETH = D("0.736067977499789696")
POOL_USDC = D("482.135954999579392818")


def test_a_short_call_and_a_long_put_are_both_short_their_whole_underlying() -> None:
    alone = Portfolio(options=(CALL, PUT))
    assert take("gross_notional", alone).value == 10_000  # (3 + 2) x 2,000
    assert take("net_notional", alone).value == 10_000
    assert take("position_size", alone, "asset: ETH").value == 5
    hedged = Portfolio(options=(CALL, replace(PUT, size=D(-3))))
    assert take("net_notional", hedged).value == 0


def test_a_liquidity_position_holds_what_its_range_says_at_the_index_price() -> None:
    found = take("equity", Portfolio(liquidity=(POOL,)))
    assert found.value == POOL_ETH * 2_000 + POOL_USDC
    assert take("gross_notional", Portfolio(liquidity=(POOL,))).value == POOL_ETH * 2_000


@pytest.mark.parametrize(
    ("lower", "upper", "eth", "usdc"),
    [
        (D(2_500), D(3_600), 100 * (D(1) / 50 - D(1) / 60), D(0)),  # below its range it is all ETH
        (D(1_600), D(1_936), D(0), D(400)),  # above its range all USDC: 100 x (44 - 40)
    ],
)
def test_outside_its_range_a_liquidity_position_is_one_asset(
    lower: Decimal, upper: Decimal, eth: Decimal, usdc: Decimal
) -> None:
    pool = replace(POOL, lower_price=lower, upper_price=upper, owed0=D(0), owed1=D(0))
    found = take("equity", Portfolio(liquidity=(pool,))).value
    assert found is not None
    assert 0 <= eth * 2_000 + usdc - found < D("1e-14")


def test_collateral_and_debts_of_a_lending_account_carry_notional_and_the_unit_of_account_does_not() -> None:
    lending = replace(BOOK, holdings=(), positions=(), margins=(), options=(), liquidity=())
    assert take("gross_notional", lending).value == 20_000 + 4_000
    assert take("net_notional", lending).value == 16_000
    assert take("gross_notional", lending, "asset: BTC").value == 4_000
    assert take("equity", lending).value == 8_000  # 20,000 - 8,000 - 4,000
    assert take("leverage", lending).value == 3


def test_gross_notional_adds_everything_up() -> None:
    found = take("gross_notional", BOOK)
    assert found.value == 40_000 + 10_000 + POOL_ETH * 2_000 + 24_000
    assert sum(part for _, part in found.contributions) == found.value


def test_concentration_is_the_share_of_an_asset_or_a_venue() -> None:
    whole = 40_000 + 10_000 + POOL_ETH * 2_000 + 24_000
    for scope, part in (("asset: BTC", D(44_000)), ("venue: perp", D(40_000)), ("venue: deribit", D(10_000))):
        found = take("concentration", BOOK, scope).value
        assert found is not None
        assert 0 <= found - part / whole < D("1e-17")


def test_options_count_in_equity_once() -> None:
    """-3 x 90 + 2 x 70 = -130, unless the venue's account value has them already."""
    alone = Portfolio(options=(CALL, PUT))
    assert take("equity", alone).value == -130
    account = replace(ACCOUNT, venue="deribit", account_value=D(500))
    assert take("equity", replace(alone, margins=(account,))).value == 500


def test_venue_share_is_what_would_be_lost_with_the_venue() -> None:
    book = Portfolio(holdings=(Holding("account", "USDC", D(30_000)),), margins=(ACCOUNT,))
    assert take("venue_share", book, "venue: perp").value == D("0.25")
    assert take("venue_share", book, "venue: elsewhere").value == 0


@pytest.mark.parametrize("metric", ["gross_notional", "net_notional", "leverage", "concentration", "equity"])
def test_without_a_price_there_is_no_value(metric: str) -> None:
    scope = "asset: ETH" if metric == "concentration" else "portfolio"
    found = take(metric, BOOK, scope, facts(prices=()))
    assert found.value is None
    assert "there is no price of" in found.why
