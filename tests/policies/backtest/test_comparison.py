"""What a change of file would have changed: flips of orders and of minutes, guards, equity."""

from __future__ import annotations

from decimal import Decimal

import pytest

from policies.backtest import backtest, read_book
from policies.backtest.comparison import compare
from tests.policies.backtest.rig import START_S, market, policy_of

BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"
BOOK = read_book(
    "margins: [{venue: perp, collateral: 10000}]\npositions: [{venue: perp, asset: ETH, size: 200, entry_price: 100}]\n"
    f"orders:\n  - {{at: {START_S + 60}, venue: perp, asset: ETH, size: 20, bound: 1%}}\n"
)
PRICES = market(ETH=[100.0, 90.0, 80.0, 90.0])
# equity 10,000 + 200 (P - 100): leverage 2, 18,000/8,000 = 2.25, 16,000/6,000 = 2.67; with the order's 20 more at 100: higher


def limit(bound: str, name: str = "leverage") -> str:
    return f"{BUY}limits: [{{id: {name}, metric: leverage, max: {bound}}}]\n"


def test_an_order_that_flips_is_named_with_what_stands_against_it() -> None:
    found = compare(backtest(policy_of(limit("2.5")), BOOK, PRICES), backtest(policy_of(limit("2.1")), BOOK, PRICES))
    (flip,) = found.flips
    assert (flip.before, flip.after, flip.against_after) == ("allow", "deny", ("leverage",))
    assert "buy 20 ETH at perp: allow -> deny (leverage)" in found.explain()[0]


def test_bars_that_flip_are_counted_from_the_first() -> None:
    found = compare(backtest(policy_of(limit("2.8")), BOOK, PRICES), backtest(policy_of(limit("2.3")), BOOK, PRICES))
    (row,) = found.limits
    assert (row.before, row.after) == (1, 3)  # 2.2 x the collateral: 19,800/7,800 = 2.54, 17,600/5,600 = 3.14, 2.54
    assert (row.flipped, found.flipped) == (2, 2)
    assert row.first_s == START_S + 120


def test_a_limit_that_only_one_of_the_two_has_is_said_to_be_new() -> None:
    found = compare(
        backtest(policy_of(limit("9")), BOOK, PRICES), backtest(policy_of(limit("2.3", "tight")), BOOK, PRICES)
    )
    assert [(r.id, r.before, r.after) for r in found.limits] == [("leverage", 0, None), ("tight", None, 3)]
    assert "tight: no such limit -> 3 bars beyond; 3 of 4 bars flip" in "\n".join(found.explain())


def test_the_same_policy_changes_nothing() -> None:
    one = backtest(policy_of(limit("2.5")), BOOK, PRICES)
    found = compare(one, one)
    assert found.explain() == ["over 4 bars nothing would have been different"]
    assert found.to_json()["flips"] == []


def test_a_guard_that_fires_elsewhere_and_what_that_is_worth() -> None:
    stop = (
        "guards: {stop_loss: [{id: 1, venue: perp, asset: ETH, drop: DROP, slippage: 0%, max_slippage: 1%, "
        "oracle: {feed: feed.eth, heartbeat: 10m}}]}\n"
    )
    one, two = (backtest(policy_of(limit("3") + stop.replace("DROP", drop)), BOOK, PRICES) for drop in ("15%", "5%"))
    found = compare(one, two)
    text = "\n".join(found.explain())
    assert "no longer: " in text
    assert "now: " in text
    assert found.equity_after > found.equity_before


def test_results_of_different_bars_cannot_be_compared() -> None:
    one = backtest(policy_of(limit("3")), BOOK, PRICES)
    two = backtest(policy_of(limit("3")), BOOK, market(ETH=[100.0, 90.0]))
    with pytest.raises(ValueError, match="not of the same bars"):
        compare(one, two)


def test_equity_is_compared_to_the_cent() -> None:
    one, two = (backtest(policy_of(limit(bound)), BOOK, PRICES) for bound in ("2.5", "2.1"))
    assert compare(one, two).equity_before - compare(one, two).equity_after == Decimal(-200)
