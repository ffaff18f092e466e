"""The columns against the engine: the same verdict at every moment, on random books and on bounds that are hit exactly."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from policies import Policy
from policies.backtest import Book, Result, State, backtest, read_book
from policies.backtest.book import HeldAmount, HeldCollateral, HeldLiquidity, HeldOption, HeldPosition, MarginTerms
from policies.backtest.columns import UNSURE, Approx, Block, Column, Linear, states
from policies.backtest.judge import Judge
from policies.backtest.market import Market
from policies.backtest.measures import compile_limit
from policies.backtest.valuation import Held
from policies.limits import Action, Limit, Parameters, Scope
from tests.policies.backtest.rig import START_S, crash, market, policy_of

METRICS = {
    "gross_notional": (True, ("portfolio", "asset: ETH", "venue: perp", "venue: other")),
    "net_notional": (True, ("portfolio", "asset: BTC", "venue: other")),
    "leverage": (True, ("portfolio", "asset: ETH", "venue: perp")),
    "position_size": (True, ("asset: ETH",)),
    "concentration": (True, ("asset: ETH", "venue: perp")),
    "liquidation_distance": (False, ("portfolio", "asset: ETH", "venue: perp")),
    "free_collateral": (False, ("portfolio", "venue: perp")),
    "margin_ratio": (False, ("portfolio", "venue: other")),
    "margin_use": (True, ("portfolio", "venue: perp")),
    "equity": (False, ("portfolio", "venue: account", "venue: perp")),
    "initial_margin_use": (True, ("portfolio", "venue: perp")),
    "maintenance_margin": (True, ("portfolio",)),
    "initial_margin": (True, ("venue: other",)),
    "health_factor": (False, ("portfolio",)),
    "loan_to_value": (True, ("portfolio", "venue: aave")),
    "debt": (True, ("portfolio", "asset: BTC")),
    "unrealised_pnl": (False, ("portfolio", "asset: ETH")),
    "pnl": (False, ("portfolio",)),
    "loss": (True, ("portfolio",)),
    "drawdown": (True, ("portfolio",)),
    "turnover": (True, ("portfolio",)),
}
WINDOWED = ("pnl", "loss", "turnover")
prices = st.floats(min_value=0.01, max_value=9_000, allow_nan=False).map(lambda x: float(f"{x:.6g}"))
amounts = st.decimals(min_value=0, max_value=20_000, places=3)
sizes = st.decimals(min_value=-40, max_value=40, places=4)


@st.composite
def books(draw: st.DrawFn) -> Book:
    venues = draw(st.sets(st.sampled_from(["perp", "other"])))
    positions = [
        HeldPosition(venue, asset, size, draw(st.decimals(min_value=1, max_value=9_000, places=2)))
        for venue in sorted(venues)
        for asset in ("BTC", "ETH")
        if (size := draw(sizes))
    ]
    margins = tuple(MarginTerms(venue, draw(amounts)) for venue in sorted(venues))
    holdings = tuple(HeldAmount("account", a, draw(amounts)) for a in draw(st.sets(st.sampled_from(["USDC", "ETH"]))))
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more["debts"] = tuple(
            HeldAmount("aave", a, draw(amounts)) for a in draw(st.sets(st.sampled_from(["USDC", "BTC"])))
        )
        shares = Decimal("0.825"), Decimal("0.8")
        more["collateral"] = tuple(
            HeldCollateral("aave", a, draw(amounts), *shares) for a in draw(st.sets(st.sampled_from(["USDC", "ETH"])))
        )
    if draw(st.booleans()):
        low = draw(st.decimals(min_value=1, max_value=4_000, places=2))
        more["liquidity"] = (HeldLiquidity("uniswap", 1, "ETH", "USDC", low, low * 2, draw(amounts)),)
    if draw(st.booleans()):
        expiry = START_S + draw(st.sampled_from([0, 200, 86_400, 30_000_000]))
        strike = draw(st.decimals(min_value=1, max_value=9_000, places=1))
        more["options"] = tuple(
            HeldOption("lyra", "ETH", is_call, strike, expiry, draw(sizes), Decimal("0.8"), premium)
            for is_call, premium in ((True, None), (False, Decimal(5)))
        )
    return Book(holdings=holdings, margins=margins, positions=tuple(positions), **more)


@st.composite
def markets(draw: st.DrawFn) -> Market:
    rows = draw(st.integers(min_value=1, max_value=12))
    return market(**{asset: draw(st.lists(prices, min_size=rows, max_size=rows)) for asset in ("BTC", "ETH")})


def observed(policy: Policy, book: Book, given: Market, row: int) -> dict[str, Decimal | None]:
    """What the engine sees at one close."""
    judge = Judge.of(policy)
    held = Held.of(book, given.prices(0, given.open), int(given.times_s[0]))
    now = given.prices(row, given.close)
    rows = judge.standing(judge.facts(held.at(now, given.end_s(row)), now, given.end_s(row)))
    return {seen.id: seen.after for seen in rows}


def every_limit(bounds: dict[tuple[str, str], Decimal], warn_at: Decimal, hysteresis: Decimal) -> tuple[Limit, ...]:
    shocks = (("BTC", Decimal("-0.3")), ("ETH", Decimal("-0.235")))
    stress = Limit("stress", "stress_margin", Scope(), False, Decimal(0), warn_at=warn_at, shocks=shocks)
    return (
        *(
            Limit(
                f"l{number}",
                metric,
                Scope.parse(scope),
                METRICS[metric][0],
                bound,
                Action.DENY,
                warn_at,
                hysteresis,
                parameters=Parameters(window_s=120 if metric in WINDOWED else None),
            )
            for number, ((metric, scope), bound) in enumerate(bounds.items())
        ),
        stress,
    )


def unlike(one: Result, other: Result) -> list[Any]:
    return [
        (a, b)
        for a, b in zip(one.limits, other.limits, strict=True)
        if replace(a, columnar=False) != replace(b, columnar=False)
    ]


KEYS = [(metric, scope) for metric, (_, scopes) in METRICS.items() for scope in scopes]
EMPTY = policy_of("limits: []\n")


@settings(max_examples=150, deadline=None)
@given(books(), markets(), st.data())
def test_columns_and_engine_agree_at_every_close(book: Book, given: Market, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=8, unique=True))
    first = every_limit({key: Decimal(1) for key in keys}, Decimal("0.8"), Decimal(0))
    row = data.draw(st.integers(min_value=0, max_value=given.rows - 1))
    seen = observed(replace(EMPTY, limits=first), book, given, row)
    bounds = {}
    for limit, key in zip(first, keys, strict=False):
        value = seen[limit.id]
        exact = value if value is not None else Decimal(1)
        near = [
            exact,
            exact + Decimal("1e-18"),
            exact - Decimal("1e-18"),
            exact * Decimal("1.00000000001"),
            exact * Decimal("1.3"),
        ]
        bounds[key] = data.draw(st.sampled_from(near))
    warn_at = data.draw(st.sampled_from([Decimal("0.8"), Decimal(1), Decimal(0), Decimal("0.25")]))
    hysteresis = data.draw(st.sampled_from([Decimal(0), Decimal("0.05"), Decimal("0.5")]))
    policy = replace(EMPTY, limits=every_limit(bounds, warn_at, hysteresis))
    fast, slow = backtest(policy, book, given), backtest(policy, book, given, by_columns=False)
    note(f"{bounds} {warn_at} {hysteresis}")
    assert unlike(fast, slow) == []
    assert fast.events == slow.events
    np.testing.assert_allclose(fast.track.equity, slow.track.equity, rtol=1e-9, atol=1e-6)


def test_a_bound_that_is_met_to_the_last_digit_passes_and_one_digit_less_is_a_breach() -> None:
    book = read_book(
        "margins: [{venue: perp, collateral: 10000}]\npositions: [{venue: perp, asset: ETH, size: 3, entry_price: 100}]"
    )
    given = market(ETH=[0.1, 0.2, 0.3])  # 3 x 0.1 is no float
    for bound, beyond in (("0.9", 0), ("0.899999999999999999", 1), ("0.3", 2)):
        limit = Limit("gross", "gross_notional", Scope(), True, Decimal(bound))
        assert backtest(replace(EMPTY, limits=(limit,)), book, given).limit("gross").breached == beyond


def test_only_moments_next_to_a_bound_are_asked_of_the_engine() -> None:
    book = read_book("margins: [{venue: perp, collateral: 10000}]\npositions: [{venue: perp, asset: ETH, size: 100}]")
    policy = replace(EMPTY, limits=(Limit("gross", "gross_notional", Scope(), True, Decimal("17000.5")),))
    result = backtest(policy, book, crash())
    assert result.limit("gross").breached > 0
    assert result.judged_by_engine < 100
    assert result.limit("gross").columnar


def test_what_the_columns_do_not_know_is_left_to_the_engine() -> None:
    held = Held.of(
        read_book(
            "options: [{venue: lyra, asset: ETH, kind: call, strike: 1, expiry: 2030-01-01, size: 1, implied_vol: 50%}]"
        ),
        {"ETH": Decimal(2)},
        0,
    ).portfolio
    assert compile_limit(Limit("x", "rho_of_the_moon", Scope(), True, Decimal(1)), held) is None


def column(values: list[float], error: float) -> Column:
    return Column(Approx(np.array(values), np.full(len(values), error)))


@pytest.mark.parametrize("is_max", [True, False])
def test_a_value_whose_error_reaches_the_bound_is_never_decided(is_max: bool) -> None:
    limit = Limit("x", "equity", Scope(), is_max, Decimal(100), warn_at=Decimal(1))
    found = states(limit, column([100 - 2e-6, 100 - 5e-7, 100, 100 + 5e-7, 100 + 2e-6], 1e-6))
    assert found[1:4].tolist() == [UNSURE] * 3
    assert State.BREACH in (found[0], found[4])


def test_an_unknown_error_is_never_decided() -> None:
    limit = Limit("x", "equity", Scope(), True, Decimal(100))
    assert states(limit, column([1.0], float("inf"))).tolist() == [UNSURE]


def test_the_stated_error_holds_against_exact_sums_of_many_terms() -> None:
    rng = np.random.default_rng(7)
    assets = tuple(f"A{i}" for i in range(400))
    prices = 10.0 ** rng.uniform(-6, 6, (5, 400))
    weights = [Decimal(repr(float(w))) for w in rng.normal(0, 1e4, 400)]
    form = Linear.of([Decimal("-12345.678901234567890123")], zip(assets, weights, strict=True))
    found = form.over(Block(assets, prices, np.arange(5)))
    for row in range(5):
        exact = form.constant + sum(
            (w * Decimal(repr(float(p))) for w, p in zip(weights, prices[row], strict=True)), Decimal(0)
        )
        assert abs(Decimal(repr(float(found.value[row]))) - exact) <= Decimal(float(found.error[row])) / 10


HOURS = """\
limits:
  - {id: day, metric: gross_notional, max: 10100, hysteresis: 2%, during: {hours: "22:15-22:17"}}
  - {id: night, metric: leverage, max: 1.01, during: {days: [mon], hours: "00:00-06:00"}}
  - {id: growth, metric: gross_notional, max_change: 0}
  - {id: fall, metric: equity, min_change: -5}
  - {id: steps, metric: leverage, max: 1.01, action: warn, escalate: [{beyond: 1.5, action: deny}]}
  - {id: rate, metric: order_rate, window: 1h, max: 1}
"""


def test_hours_changes_steps_and_rates_are_the_same_in_columns() -> None:
    book = read_book(
        "margins: [{venue: perp, collateral: 10000}]\npositions: [{venue: perp, asset: ETH, size: -100, entry_price: 100}]\n"
    )
    given = market(ETH=[100.0, 101.5, 102.0, 103.0, 99.0, 104.0])  # closes from 22:15 on, a Tuesday
    policy = policy_of(HOURS)
    fast, slow = backtest(policy, book, given), backtest(policy, book, given, by_columns=False)
    assert unlike(fast, slow) == []
    assert [fast.limit(name).breached for name in ("day", "night", "growth", "fall", "rate")] == [1, 0, 0, 0, 0]
    assert fast.limit("steps").breached == 4
    assert [fast.limit(name).columnar for name in ("day", "growth", "rate")] == [True, True, False]
