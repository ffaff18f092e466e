"""VaR and ES in back-tests: returns of the same bars, none of a bar that is not over; columns and engine agree."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from policies.backtest import Market, Result, State, align, backtest, read_book
from policies.backtest.past import MarketPast
from policies.portfolio import Holding, Portfolio
from tests.policies.backtest.rig import START_S, bars, market, policy_of

ETH = "holdings: [{venue: account, asset: ETH, amount: 10}]\n"
BOOK = """\
holdings: [{venue: account, asset: ETH, amount: 3.5}, {venue: account, asset: USDC, amount: 4000}]
margins: [{venue: perp, collateral: 20000}]
positions: [{venue: perp, asset: ETH, size: -2.25}, {venue: perp, asset: BTC, size: 0.75}]
debts: [{venue: aave, asset: BTC, amount: 0.1}]
collateral: [{venue: aave, asset: ETH, amount: 2, liquidation_threshold: 80%, loan_to_value: 75%}]
"""


def limits(*texts: str) -> str:
    return "limits:\n" + "".join(f"  - {{id: l{i}, {text}}}\n" for i, text in enumerate(texts))


def run(body: str, book: str, data: Market, **more: bool) -> Result:
    return backtest(policy_of(body), read_book(book, "book"), data, **more)


def walk(seed: int, rows: int, start: float) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(f"{x:.6g}") for x in start * np.exp(np.cumsum(rng.standard_t(3, rows) * 0.004))]


def seen(data: Market, row: int, *texts: str) -> tuple[Decimal, ...] | None:
    past = MarketPast(policy_of(limits(*texts)).limits, data)
    series, _ = past.at(row, Portfolio(holdings=(Holding("account", "ETH", Decimal(1)),)))
    return series[0].values if series else None


WINDOW = "metric: value_at_risk, max: 100, confidence: 60%, horizon: 1m, window: 3m"


def test_a_bar_sees_the_closes_before_it_and_not_its_own() -> None:
    data = market(ETH=[100, 110, 99, 99, 198, 198])
    assert [seen(data, row, WINDOW) for row in range(4)] == [None] * 4
    assert seen(data, 4, WINDOW) == (Decimal("0.1"), Decimal("-0.1"), Decimal(0))
    assert seen(data, 5, WINDOW) == (Decimal("-0.1"), Decimal(0), Decimal(1))


def test_what_comes_later_changes_nothing_that_was_judged_before() -> None:
    """The same bars up to row 60, then another future, wild from the bar itself on: closes before it are judged alike."""
    calm = walk(1, 90, 100)
    wild = calm[:60] + [price * 0.3 for price in calm[60:]]
    body = limits(
        WINDOW.replace("3m", "20m"), "metric: expected_shortfall, max: 5, confidence: 90%, horizon: 1m, window: 30m"
    )
    first, second = (run(body, ETH, market(ETH=prices)) for prices in (calm, wild))
    assert first.track is not None
    assert second.track is not None
    assert (first.track.states[:60] == second.track.states[:60]).all()
    np.testing.assert_array_equal(first.track.use[:60], second.track.use[:60])
    asked = WINDOW.replace("3m", "20m")
    assert seen(market(ETH=calm), 60, asked) == seen(market(ETH=wild), 60, asked)
    assert seen(market(ETH=calm), 61, asked) != seen(market(ETH=wild), 61, asked)


def test_before_there_are_enough_bars_a_limit_is_not_evaluable_and_says_what_lacks() -> None:
    result = run(limits(WINDOW), ETH, market(ETH=[100.0] * 10))
    (row,) = result.limits
    assert (row.unknown, row.breached) == (4, 0)
    assert "there are no past returns of ETH: " in row.episodes[0].reason
    assert "3 are asked for" in result.limits[0].episodes[0].reason or "no price of ETH" in row.episodes[0].reason


def test_bars_before_the_window_that_is_tested_count() -> None:
    series = bars([100, 110, 99, 99, 198, 198])
    whole, cut = align({"ETH": series}), align({"ETH": series}, from_s=START_S + 4 * 60)
    assert seen(cut, 0, WINDOW) == seen(whole, 4, WINDOW)
    assert run(limits(WINDOW), ETH, cut).limits[0].unknown == 0


def test_bars_that_do_not_end_on_whole_periods_have_no_returns() -> None:
    data = market(ETH=walk(2, 30, 100))
    shifted = replace(data, times_s=data.times_s + 7)
    result = run(limits(WINDOW), ETH, shifted)
    assert result.limits[0].unknown == 30
    assert "no price of ETH on a whole 60 s" in result.limits[0].episodes[0].reason


def test_an_order_is_refused_by_what_was_known_at_its_bars_open() -> None:
    """The last four minutes fell 10 % each; ten ETH of 65.61 lose 65.61 at most, twenty lose 131: 100 is the limit."""
    order = f"orders: [{{at: {START_S + 5 * 60}, venue: uniswap, asset: ETH, size: 10}}]\n"
    book = ETH + "trading: {slippage: 0%, fee: 0%}\n" + order
    book = book.replace("holdings: [", "holdings: [{venue: account, asset: USDC, amount: 100000}, ")
    calls = "calls:\n  - {target: uniswap.router, functions: [exactInputSingle]}\n"
    (report,) = run(limits(WINDOW) + calls, book, market(ETH=[100, 90, 81, 72.9, 65.61, 65.61, 65.61])).orders
    assert [one.id for one in report.decision.limits if one.verdict == "deny"] == ["l0"]
    (early,) = run(
        limits(WINDOW) + calls, book.replace(str(START_S + 300), str(START_S + 60)), market(ETH=[100.0] * 9)
    ).orders
    assert any("past returns of ETH" in text for text in early.decision.objections)


METHODS = [
    "metric: value_at_risk, confidence: 90%, horizon: 1m, window: 30m",
    "metric: expected_shortfall, confidence: 92.5%, horizon: 1m, window: 30m",
    "metric: expected_shortfall, confidence: 90%, horizon: 5m, window: 40m, method: filtered",
    "metric: value_at_risk, confidence: 95%, horizon: 1m, window: 25m, method: parametric",
    "metric: expected_shortfall, confidence: 95%, horizon: 3m, window: 25m, method: parametric",
    'metric: component_shortfall, scope: "asset: ETH", confidence: 90%, horizon: 1m, window: 30m',
    'metric: component_shortfall, scope: "venue: perp", confidence: 92.5%, horizon: 1m, window: 30m',
    "metric: value_at_risk, confidence: 90%, horizon: 1m",
    "metric: expected_shortfall, confidence: 95%, horizon: 1m, method: filtered",
]


@pytest.mark.parametrize("seed", range(4))
def test_columns_and_engine_find_the_same(seed: int) -> None:
    data = market(ETH=walk(seed, 75, 2_000), BTC=walk(seed + 50, 75, 30_000))
    loose = run(limits(*(f"{text}, max: 1" for text in METHODS)), BOOK, data, by_columns=False)
    rng = np.random.default_rng(seed)
    texts = []
    for text, row in zip(METHODS, loose.limits, strict=True):
        values = [e.worst for e in row.episodes if e.worst is not None] or [Decimal(100)]
        bound = max(float(max(values)) * float(rng.uniform(0.2, 1.1)), 1.0)
        texts.append(f"{text}, max: {bound:.2f}, hysteresis: 5%")
        if seed == 3:
            texts[-1] = text.replace("metric: ", "action: warn, metric: ", 1) + f", max_change: {bound:.2f}"
    fast, slow = run(limits(*texts), BOOK, data), run(limits(*texts), BOOK, data, by_columns=False)
    for one, other in zip(fast.limits, slow.limits, strict=True):
        assert replace(one, columnar=False) == replace(other, columnar=False)
        assert one.columnar
    assert fast.judged_by_engine < slow.judged_by_engine / 2


def test_a_bound_that_is_hit_exactly_is_left_to_the_engine() -> None:
    """Ten ETH of 100 lose a tenth: VaR is 100 exactly, which passes; a cent less is beyond."""
    prices = [100, 90, 100, 90, 100, 90, 100.0, 100.0]
    for bound, state in (("100", State.WARN), ("99.99", State.BREACH)):
        text = WINDOW.replace("max: 100", f"max: {bound}").replace("60%", "90%")
        result = run(limits(text), ETH, market(ETH=prices))
        assert result.track is not None
        assert State(int(result.track.states[-1, 0])) is state
