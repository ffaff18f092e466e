"""From a portfolio's facts to a margin model and back to the venue's own figures."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts.errors import InvalidFields
from policies.portfolio import Collateral, Debt, Loan, Margin, Option, Portfolio, Position
from policies.risk.margin import account_of, critical_moves, loan_account_of, venue_accounts

D = Decimal


def _margin(model: str = "ratio", value: str = "7000", **terms: str) -> Margin:
    given = tuple((name.replace("__", "."), D(figure)) for name, figure in terms.items())
    return Margin("v", D(10_000), D(value), D("1687.5"), D(0), D("0.0625"), D("0.1"), model, given)


LONG = Position("v", "ETH", D(150), D(30_000), D(180))


def test_equity_now_is_the_venues_own_figure_and_its_ratio_the_requirement() -> None:
    elsewhere = Position("w", "ETH", D(1), D(1), D(1))
    found = account_of(Portfolio(positions=(LONG, elsewhere)), _margin(), {"ETH": D(181)})
    needed = found.requirement()
    assert (needed.equity, needed.maintenance, needed.initial) == (7_000, D("1687.5"), 2_700)
    assert found.account.cash == 10_000
    assert found.assets() == ("ETH",)


def test_the_closed_form_and_the_solver_agree_on_a_book_of_several_markets() -> None:
    short = Position("v", "BTC", D("-0.2"), D(-8_000), D(41_000))
    found = account_of(Portfolio(positions=(LONG, short)), _margin())
    for assets in (["ETH"], ["BTC"], None):
        exact, solved = found.critical(assets), critical_moves(found.model, found.account, assets)
        for one, other in ((exact.down, solved.down), (exact.up, solved.up)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert one == pytest.approx(other, abs=D("2e-9"))


def test_margin_set_aside_for_an_isolated_position_is_not_cash() -> None:
    margin = _margin("hyperliquid", max_leverage="25", isolated__ETH="4000")
    found = account_of(Portfolio(positions=(LONG,)), margin)
    assert found.requirement().equity == 7_000
    assert [part.equity for part in found.requirement().parts] == [6_000, 1_000]


def test_options_need_the_time() -> None:
    option = Option("v", "ETH", True, D(2_000), 1_700_086_400, D(1), D(0), D(50), D("0.6"), D(1_990))
    book = Portfolio(options=(option,))
    with pytest.raises(InvalidFields, match="give now_s"):
        account_of(book, _margin("deribit_pm"), {"ETH": D(1_990)})
    found = account_of(book, _margin("deribit_pm"), {"ETH": D(1_990)}, 1_700_000_000)
    assert found.account.cash == 6_950


def test_a_loan_dies_where_its_health_factor_is_one() -> None:
    held = Collateral("aave", "ETH", D(10), D(2_000), D("0.8"), D("0.75"))
    loan = Loan("aave", D(20_000), D(12_000), D("0.8"), D("1.3333"), D(3_000))
    book = Portfolio(collateral=(held,), loans=(loan,), debts=(Debt("aave", "USDC", D("11999")),))
    found = loan_account_of(book, loan, {})
    assert float(found.critical().down or 0) == pytest.approx(-0.25, abs=1e-9)
    assert found.critical().up is None
    assert [account.venue for account in venue_accounts(book, {})] == ["aave"]
