"""Health, debts, interest and allowances.

10 ETH at 2,000 with a threshold of 80 % secure 8,000 USDC at 5 % a year and 0.1 BTC (4,000) at 2 %: health 16,000 / 12,000.
"""

from __future__ import annotations

from dataclasses import replace

from policies.portfolio import Allowance, Collateral, Debt, Loan, Portfolio
from tests.policies.metrics.books import D, take
from tests.policies.rig import address

HEALTH = D("1.333333333333333333")
BOOK = Portfolio(
    debts=(Debt("aave", "USDC", D(8_000), D("0.05")), Debt("aave", "BTC", D("0.1"), D("0.02"))),
    collateral=(Collateral("aave", "ETH", D(10), D(2_000), D("0.8"), D("0.75")),),
    loans=(Loan("aave", D(20_000), D(12_000), D("0.8"), HEALTH, D(3_000)),),
    allowances=(
        Allowance("USDC", address("usdc"), address("router"), D(500), False),
        Allowance("ETH", address("weth"), address("router"), D(2), False),
        Allowance("ETH", address("weth"), address("old"), D(0), False),
    ),
)


def test_the_worst_health_factor_counts_and_no_debt_is_as_healthy_as_it_gets() -> None:
    assert take("health_factor", BOOK).value == HEALTH
    second = Loan("spark", D(100), D(90), D("0.8"), D("0.888888888888888888"), D(0))
    assert take("health_factor", replace(BOOK, loans=(*BOOK.loans, second))).value == D("0.888888888888888888")
    assert take("health_factor", BOOK, "venue: spark").value == 1_000
    free = replace(BOOK.loans[0], debt_value=D(0), health_factor=None)
    assert take("health_factor", replace(BOOK, loans=(free,))).value == 1_000


def test_a_debt_without_health_factor_has_no_value() -> None:
    found = take("health_factor", replace(BOOK, loans=(replace(BOOK.loans[0], health_factor=None),)))
    assert found.value is None
    assert "gives no health factor" in found.why


def test_debt_share_and_what_is_left_to_borrow() -> None:
    assert take("debt", BOOK).value == 12_000
    assert take("debt", BOOK, "asset: BTC").value == 4_000
    assert take("loan_to_value", BOOK).value == D("0.6")
    assert take("available_borrow", BOOK).value == 3_000
    bare = replace(BOOK, loans=(replace(BOOK.loans[0], collateral_value=D(0)),))
    assert take("loan_to_value", bare).value is None


def test_interest_accrues_over_the_horizon() -> None:
    """(8,000 x 5 % + 4,000 x 2 %) = 480 a year; over 73 days a fifth of it."""
    assert take("borrow_cost", BOOK, horizon_s=365 * 86_400).value == 480
    assert take("borrow_cost", BOOK, horizon_s=73 * 86_400).value == 96
    unknown = replace(BOOK, debts=(Debt("aave", "USDC", D(8_000)),))
    found = take("borrow_cost", unknown)
    assert found.value is None
    assert "the borrow rate of USDC at aave is not known" in found.why


def test_allowances_are_added_up_and_counted() -> None:
    assert take("allowance", BOOK).value == 4_500
    assert take("allowance", BOOK, "asset: USDC").value == 500
    assert take("allowances", BOOK).value == 2
    assert take("unlimited_allowances", BOOK).value == 0


def test_an_unlimited_allowance_counts_with_its_whole_number() -> None:
    most = D(2**256 - 1).scaleb(-6)
    book = Portfolio(allowances=(Allowance("USDC", address("usdc"), address("router"), most, True),))
    assert take("unlimited_allowances", book).value == 1
    assert take("allowance", book).value == most
