"""Greeks against the textbook: S = K = F = 100, v = 20 %, one year, r = 0, so d1 = 0.1, d2 = -0.1.

N(0.1) = 0.539827837277029, n(0.1) = 0.396952547477012. Per unit of a call: delta 0.539827837..., gamma n/20 = 0.019847627...,
vega 100 n = 39.6952547..., theta -10 n a year, rho 100 N(-0.1) = 46.0172162722971, vanna 0.5 n = 0.198476..., volga -0.05 x vega.
"""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest

from policies.limits import Bucket
from policies.portfolio import Collateral, Debt, Facts, Holding, Liquidity, Option, Portfolio, Position, Price
from tests.policies.metrics.books import D, facts, take
from tests.policies.rig import NOW_S

YEAR = 31_536_000
CALL = Option("deribit", "ETH", True, D(100), NOW_S + YEAR, D(-10), D(-80), D("7.97"), D("0.2"))
PUT = replace(CALL, is_call=False, size=D(4))
N, PDF = 0.5398278372770290, 0.3969525474770118


def at_100(**changes: object) -> Facts:
    return facts(prices=(Price("ETH", D(100), NOW_S, "feed"), Price("BTC", D(1_000), NOW_S, "feed")), **changes)


def value(metric: str, book: Portfolio, scope: str = "portfolio", **asked: object) -> float:
    found = take(metric, book, scope, at_100(), **asked)
    assert found.value is not None, found.why
    return float(found.value)


@pytest.mark.parametrize(
    ("metric", "scope", "expected"),
    [
        ("delta", "asset: ETH", 10 * N),
        ("dollar_delta", "portfolio", 1_000 * N),
        ("gamma", "asset: ETH", 10 * PDF / 20),
        ("short_gamma", "asset: ETH", 10 * PDF / 20),
        ("dollar_gamma", "portfolio", 10 * PDF / 20 * 100),
        ("vega", "portfolio", 10 * PDF),
        ("short_vega", "portfolio", 10 * PDF),
        ("theta", "portfolio", -100 * PDF / 365),
        ("rho", "portfolio", 10 * (1 - N)),
        ("vanna", "asset: ETH", 10 * 0.5 * PDF / 100),
        ("volga", "portfolio", 10 * 0.05 * 100 * PDF / 10_000),
    ],
)
def test_ten_short_calls_have_the_textbooks_greeks(metric: str, scope: str, expected: float) -> None:
    short = Portfolio(options=(CALL,))
    assert value(metric, short, scope) == pytest.approx(expected, rel=1e-11)
    assert take(metric, short, scope, at_100()).models == (("generalised_black_scholes", "1", "python"),)


def test_a_put_is_the_call_less_the_forward() -> None:
    both = Portfolio(options=(replace(CALL, size=D(1)), replace(PUT, size=D(-1))))
    assert value("delta", both, "asset: ETH") == pytest.approx(1, rel=1e-11)
    for metric, scope in (("gamma", "asset: ETH"), ("vega", "portfolio"), ("theta", "portfolio")):
        assert value(metric, both, scope) == pytest.approx(0, abs=1e-10)
    assert value("rho", both) == pytest.approx(1, rel=1e-11)  # strike x time / 100


def test_a_rounded_greek_is_never_understated() -> None:
    exact = 10 * N
    found = take("delta", Portfolio(options=(CALL,)), "asset: ETH", at_100()).value
    assert found is not None
    assert Decimal(exact) <= found <= Decimal(exact) * (1 + D("3e-12"))


def test_delta_counts_everything_that_follows_the_price() -> None:
    """2 held + 3 collateral - 1 owed + 5 of perp + what the pool holds: 100 x (1/10 - 1/20) = 5 ETH at 100 in [25, 400]."""
    book = Portfolio(
        holdings=(Holding("account", "ETH", D(2)), Holding("account", "USDC", D(999))),
        debts=(Debt("aave", "ETH", D(1)),),
        positions=(Position("perp", "ETH", D(5), D(500), D(101)), Position("perp", "BTC", D(-1), D(-1_000), D(1_000))),
        liquidity=(Liquidity("uniswap", 1, "ETH", "USDC", D(25), D(400), D(100), D(0), D(0)),),
        collateral=(Collateral("aave", "ETH", D(3), D(100), D("0.8"), D("0.7")),),
    )
    assert take("delta", book, "asset: ETH", at_100()).value == 14
    assert take("delta", book, "asset: BTC", at_100()).value == 1
    assert take("dollar_delta", book, "portfolio", at_100()).value == 2_400
    assert take("dollar_delta", book, "venue: perp", at_100()).value == 1_500
    assert take("delta", book, "asset: ETH", at_100()).models == ()


def test_a_liquidity_position_is_short_gamma_inside_its_range_only() -> None:
    """L / (2 p^1.5) = 100 / 2,000."""
    pool = Liquidity("uniswap", 1, "ETH", "USDC", D(25), D(400), D(100), D(0), D(0))
    assert take("short_gamma", Portfolio(liquidity=(pool,)), "asset: ETH", at_100()).value == D("0.05")
    assert take("gamma", Portfolio(liquidity=(replace(pool, upper_price=D(99)),)), "asset: ETH", at_100()).value == 0


def test_a_pool_of_two_assets_has_the_gamma_of_each() -> None:
    """ETH in BTC at p = 0.1: by BTC's price L sqrt p / (2 x 1,000)."""
    pool = Liquidity("uniswap", 1, "ETH", "BTC", D("0.04"), D("0.16"), D(100), D(0), D(0))
    found = value("gamma", Portfolio(liquidity=(pool,)), "asset: BTC")
    assert found == pytest.approx(100 * math.sqrt(0.1) / 2_000, rel=1e-12)


def test_options_are_taken_by_their_time_to_expiry() -> None:
    near = replace(CALL, expiry_s=NOW_S + 7 * 86_400)
    book = Portfolio(options=(CALL, near), positions=(Position("perp", "ETH", D(5), D(500), D(100)),))
    both, far = value("vega", book), value("vega", book, expiry=Bucket(7 * 86_400 + 1, None))
    assert value("vega", book, expiry=Bucket(0, 7 * 86_400)) == 0
    assert far == pytest.approx(10 * PDF, rel=1e-11)
    assert value("vega", book, expiry=Bucket(7 * 86_400, 8 * 86_400)) == pytest.approx(both - far, rel=1e-9)
    assert value("delta", book, "asset: ETH", expiry=Bucket(365 * 86_400, None)) == pytest.approx(10 * N, rel=1e-11)


def test_the_venues_forward_carries_the_option() -> None:
    """F = 110: d1 = ln(1.1)/0.2 + 0.1."""
    d1 = math.log(1.1) / 0.2 + 0.1
    found = value("delta", Portfolio(options=(replace(CALL, forward=D(110)),)), "asset: ETH")
    assert found == pytest.approx(10 * 1.1 * 0.5 * math.erfc(-d1 / math.sqrt(2)), rel=1e-11)


def test_an_option_past_its_expiry_moves_like_what_it_settles_to() -> None:
    over = Portfolio(
        options=(replace(CALL, expiry_s=NOW_S - 1, strike=D(90)), replace(PUT, expiry_s=NOW_S, strike=D(90)))
    )
    assert take("delta", over, "asset: ETH", at_100()).value == D("10.00000000001")
    assert take("vega", over, "portfolio", at_100()).value == 0


def test_an_option_without_implied_volatility_has_no_greeks() -> None:
    found = take("vega", Portfolio(options=(replace(CALL, implied_vol=None),)), "portfolio", at_100())
    assert found.value is None
    assert "the implied volatility of deribit:ETH-" in found.why
