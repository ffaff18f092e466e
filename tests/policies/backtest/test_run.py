"""What a back-test finds, against figures worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from contracts.errors import BadInput
from policies import Policy
from policies.backtest import Market, Result, State, align, backtest, read_book
from tests.policies.backtest.rig import START_S, bars, crash, market, policy_of

BUY = """\
calls:
  - {target: perp.clearing_house, functions: [openPosition, closePosition]}
  - {target: uniswap.router, functions: [exactInputSingle]}
"""
LEVERAGE = "limits: [{id: leverage, metric: leverage, max: 3.1}]\n"
STOP = """\
guards:
  stop_loss:
    - id: 1
      venue: perp
      asset: ETH
      drop: 10%
      slippage: 1%
      max_slippage: 5%
      widen: 4m
      {more}
      oracle: {{feed: feed.eth, heartbeat: 10m}}
"""
LONG = """
margins: [{venue: perp, collateral: 10000}]
positions: [{venue: perp, asset: ETH, size: 100, entry_price: 100}]
"""


def with_stop(more: str = "cooldown: 30s") -> Policy:
    return policy_of(BUY + LEVERAGE + STOP.format(more=more))


def with_lows(closes: list[float], lows: list[float]) -> Market:
    return align({"ETH": bars(closes, lows)})


def leverage(bound: str, more: str = "") -> Policy:
    return policy_of(f"{BUY}limits: [{{id: leverage, metric: leverage, max: {bound}{more}}}]\n")


def times(result: Result, identity: str, state: State) -> list[tuple[int, int]]:
    """Stretches of a state as (first bar, bars)."""
    return [((e.from_s - START_S) // 60 - 1, e.bars) for e in result.limit(identity).episodes if e.state is state]


# -- limits -------------------------------------------------------------------------------------------------------------------------


def test_a_limit_that_the_market_breaks_is_reported_with_its_first_and_its_worst_moment() -> None:
    # equity 10,000 + 100 (P - 100); leverage 100 P / equity: at 100 1, at 50 1, with 20,000 of notional below
    book = read_book(LONG.replace("size: 100", "size: 200"))
    result = backtest(leverage("3"), book, market(ETH=[100.0, 80.0, 70.0, 60.0, 90.0]))
    assert times(result, "leverage", State.BREACH) == [(2, 2)]  # 14,000/4,000 = 3.5, 12,000/2,000 = 6
    episode = result.limit("leverage").first
    assert episode is not None
    assert (episode.value, episode.worst) == (Decimal("3.5"), Decimal(6))
    assert [(e.kind, e.what) for e in result.events] == [("breach", "leverage")]
    assert result.limit("leverage").warned == 1  # 16,000/6,000 = 2.67 is above 80 % of 3


def test_a_metric_that_has_no_value_is_reported_as_such_and_not_as_a_pass() -> None:
    book = read_book(LONG + "debts: [{venue: owed, asset: USDC, amount: 9000}]\n")
    result = backtest(leverage("30"), book, market(ETH=[100.0, 95.0, 89.0]))
    row = result.limit("leverage")
    assert (row.unknown, row.breached) == (1, 0)  # equity 1,000, 500, -100
    assert row.first is not None
    assert "equity is not positive" in row.first.reason


def test_hysteresis_holds_a_limit_breached_until_it_is_back_inside_the_tighter_bound() -> None:
    book = read_book(LONG)
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 10000, hysteresis: 5%, warn_at: 100%}]\n")
    result = backtest(policy, book, market(ETH=[99.0, 101.0, 97.0, 95.0, 97.0]))
    assert times(result, "gross", State.BREACH) == [(1, 2)]  # 9,700 is inside 10,000 and not inside 9,500


# -- stops and liquidation ------------------------------------------------------------------------------------------------------------


def test_a_low_between_closes_fires_the_stop_and_the_worst_fill_is_booked() -> None:
    result = backtest(with_stop(), read_book(LONG), with_lows([100.0, 99.0, 99.0], [100.0, 88.0, 99.0]))
    (event,) = result.of_kind("stop")
    assert event.figures["trigger"] == 90
    assert event.figures["best"] == 90
    assert event.figures["booked"] == Decimal("87.12")  # 88 less 1 %
    assert result.equity.end == 10_000 - Decimal("12.88") * 100


def test_a_bar_that_opens_beyond_the_trigger_fills_at_its_open_at_best() -> None:
    given = bars([100.0, 99.0, 84.0, 84.0])
    given.open[2] = 85.0  # a gap: the bar before closed at 99
    given.high[2] = 85.0
    (event,) = backtest(with_stop(), read_book(LONG), align({"ETH": given})).of_kind("stop")
    assert event.figures["best"] == 85


def test_the_stop_of_a_short_is_reached_by_the_high() -> None:
    book = read_book(LONG.replace("size: 100", "size: -100"))
    given = align({"ETH": bars([100.0, 100.0], highs=[100.0, 111.0])})
    (event,) = backtest(with_stop(), book, given).of_kind("stop")
    assert event.figures["trigger"] == 110
    assert event.figures["booked"] == Decimal("112.11")


def test_a_take_profit_is_reached_by_the_other_extreme_and_fills_at_its_trigger_less_the_bound() -> None:
    policy = policy_of(BUY + LEVERAGE + STOP.format(more="cooldown: 30s").replace("drop: 10%", "gain: 10%"))
    given = align({"ETH": bars([100.0, 105.0, 105.0], [100.0, 85.0, 105.0], [100.0, 112.0, 105.0])})
    (event,) = backtest(policy, read_book(LONG), given).of_kind("stop")
    assert [event.figures[name] for name in ("trigger", "best", "booked")] == [110, 110, Decimal("108.9")]


def test_a_stop_in_parts_waits_for_its_cooldown_and_widens_its_bound() -> None:
    policy = with_stop("max_size_per_execution: 40\n      cooldown: 2m")
    result = backtest(policy, read_book(LONG), market(ETH=[100.0, 85.0, 85.0, 85.0, 85.0, 85.0, 85.0]))
    events = result.of_kind("stop")
    assert [(e.at_s - START_S) // 60 for e in events] == [1, 3, 5]
    assert [e.figures["size"] for e in events] == [40, 40, 20]
    assert [e.figures["slippage"] for e in events] == [Decimal("0.01"), Decimal("0.03"), Decimal("0.05")]


def test_a_stop_of_half_the_position_leaves_the_other_half() -> None:
    result = backtest(with_stop("size: 50%"), read_book(LONG), market(ETH=[100.0, 85.0, 85.0]))
    assert [e.figures["size"] for e in result.of_kind("stop")] == [50]
    assert result.equity.end == 10_000 - 50 * (100 - Decimal("84.15")) - 50 * 15


def trailing(terms: str) -> Policy:
    return policy_of(BUY + LEVERAGE + STOP.format(more="cooldown: 30s").replace("drop: 10%", terms))


def test_a_trailing_stop_follows_the_closes_up_and_never_down() -> None:
    """From 130 down by 10 %: 117; the fall to 118 before leaves it there."""
    result = backtest(trailing("trail: 10%"), read_book(LONG), market(ETH=[100.0, 120.0, 130.0, 118.0, 119.0, 116.0]))
    (event,) = result.of_kind("stop")
    assert ((event.at_s - START_S) // 60, event.figures["trigger"]) == (5, 117)


def test_a_trailing_stop_that_starts_high_fires_before_the_market_has_been_there() -> None:
    result = backtest(
        trailing("trail_distance: 15\n      start: 113"), read_book(LONG), market(ETH=[100.0, 99.0, 97.0])
    )
    (event,) = result.of_kind("stop")
    assert ((event.at_s - START_S) // 60, event.figures["trigger"]) == (2, 98)


def test_the_trailing_stop_of_a_short_follows_the_closes_down() -> None:
    book = read_book(LONG.replace("size: 100", "size: -100"))
    result = backtest(trailing("trail_distance: 5"), book, market(ETH=[100.0, 90.0, 80.0, 84.0, 86.0]))
    (event,) = result.of_kind("stop")
    assert ((event.at_s - START_S) // 60, event.figures["trigger"]) == (4, 85)


def test_an_amount_is_closed_and_dust_goes_with_it() -> None:
    given = market(ETH=[100.0, 85.0, 85.0])
    for terms, closed in (
        ("amount: 30", 30),
        ("amount: 95\n      dust: 5", 100),
        ("amount: 94\n      dust: 5", 94),
        ("amount: 200", 100),
    ):
        (event,) = backtest(with_stop(terms), read_book(LONG), given).of_kind("stop")
        assert event.figures["size"] == closed


def test_the_first_stop_of_a_group_cancels_the_other() -> None:
    """Half is sold with a gain at 110; what would have stopped the rest at 90 is gone."""
    stop = STOP.format(more="size: 50%\n      group: 1")
    other = stop.partition("stop_loss:\n")[2].replace("id: 1", "id: 2").replace("drop", "gain")
    policy = policy_of(BUY + LEVERAGE + stop + other)
    result = backtest(policy, read_book(LONG), market(ETH=[100.0, 112.0, 85.0, 85.0]))
    assert [event.what for event in result.of_kind("stop")] == ["stop 2"]


def test_a_low_liquidates_an_account_that_has_no_stop() -> None:
    # 100 ETH on 2,000: value 2,000 + 100 (P - 100) against 6.25 % of 100 P: liquidated below 8,000/93.75 = 85.33
    book = read_book(LONG.replace("10000", "2000"))
    assert backtest(leverage("100"), book, with_lows([100.0, 99.0], [100.0, 85.4])).of_kind("liquidation") == ()
    (event,) = backtest(leverage("100"), book, with_lows([100.0, 99.0], [100.0, 85.3])).of_kind("liquidation")
    assert event.figures["left"] == 2_000 - Decimal("14.7") * 100 - Decimal("0.025") * 8_530


def test_at_the_very_price_of_the_requirement_nothing_is_liquidated() -> None:
    book = read_book(
        LONG.replace("10000", "1625").replace("size: 100", "size: 10").replace("entry_price: 100", "entry_price: 250")
    )
    # value 1,625 + 10 (P - 250) = 0.625 P at P = 875/9.375 = 93.33...; with 6.25 % of 10 x 96: 60 = 1,625 - 1,540 - 25
    exact = read_book(
        "margins: [{venue: perp, collateral: 1600}]\npositions: [{venue: perp, asset: ETH, size: 10, entry_price: 250}]"
    )
    assert backtest(leverage("1000"), exact, market(ETH=[250.0, 96.0])).of_kind("liquidation") == ()  # 60 against 60
    assert len(backtest(leverage("1000"), exact, market(ETH=[250.0, 95.999999])).of_kind("liquidation")) == 1
    assert backtest(leverage("1000"), book, market(ETH=[250.0, 96.0])).of_kind("liquidation") == ()


def test_a_bar_that_reaches_the_stop_and_the_liquidation_liquidates() -> None:
    book = read_book(LONG.replace("10000", "2000"))
    result = backtest(with_stop(), book, with_lows([100.0, 99.0], [100.0, 80.0]))
    (event,) = result.of_kind("liquidation")
    assert "the same bar reached the stop, and the worse is assumed" in event.text
    assert event.figures["bad_debt"] == 20 * 100 - 2_000 + Decimal("0.025") * 8_000
    assert result.of_kind("stop") == ()


def test_every_market_of_an_account_is_at_its_own_worst_in_the_same_bar() -> None:
    book = read_book(
        "margins: [{venue: perp, collateral: 2000}]\n"
        "positions:\n  - {venue: perp, asset: ETH, size: 100, entry_price: 100}\n"
        "  - {venue: perp, asset: BTC, size: -1, entry_price: 10000}\n"
    )
    eth = bars([100.0, 100.0], lows=[100.0, 95.0])
    btc = bars([10_000.0, 10_000.0], highs=[10_000.0, 10_300.0])
    # value 2,000 - 500 - 300 = 1,200 against 6.25 % of 19,800 = 1,237.5; either alone leaves enough
    assert len(backtest(leverage("100"), book, align({"ETH": eth, "BTC": btc})).of_kind("liquidation")) == 1
    quiet = bars([10_000.0, 10_000.0])
    assert backtest(leverage("100"), book, align({"ETH": eth, "BTC": quiet})).of_kind("liquidation") == ()


def test_a_loan_below_health_factor_one_at_the_low_is_reported_once_a_stretch() -> None:
    book = read_book(
        "collateral: [{venue: aave, asset: ETH, amount: 100, liquidation_threshold: 80%, loan_to_value: 75%}]\n"
        "debts: [{venue: aave, asset: USDC, amount: 7200}]\n"
    )
    given = with_lows([100.0, 100.0, 100.0, 100.0, 100.0], [100.0, 89.99, 90.0, 89.0, 88.0])
    events = backtest(leverage("100"), book, given).of_kind("loan")
    assert [(e.at_s - START_S) // 60 for e in events] == [1, 3]


# -- orders ---------------------------------------------------------------------------------------------------------------------------


def orders(*lines: str, trading: str = "") -> Any:
    return read_book(f"{LONG}{trading}orders:\n" + "".join(f"  - {{{line}}}\n" for line in lines))


AT = START_S + 60


def test_an_order_is_judged_at_the_open_after_its_time_and_fills_only_if_it_is_allowed() -> None:
    book = orders(
        f"at: {AT - 1}, venue: perp, asset: ETH, size: 150, bound: 1%",
        f"at: {AT}, venue: perp, asset: ETH, size: 50, bound: 1%",
    )
    result = backtest(leverage("2"), book, market(ETH=[100.0, 110.0, 110.0]))
    assert [(o.decision.outcome, o.at_s) for o in result.orders] == [("deny", AT), ("allow", AT)]
    assert result.refused[0].decision.limits[0].after == Decimal("2.5")
    assert result.equity.end == 10_000 + 150 * 10  # the 50 filled at the open, which is 100


def test_an_order_that_closes_realises_its_profit_and_pays_its_costs() -> None:
    book = orders(f"at: {AT + 60}, venue: perp, asset: ETH, size: -100", trading="trading: {slippage: 1%, fee: 0.1%}\n")
    result = backtest(leverage("2"), book, market(ETH=[100.0, 110.0, 90.0, 50.0]))
    assert result.orders[0].decision.calls[0].title == "perp.clearing_house.closePosition"
    assert result.equity.end == 10_000 + 100 * (Decimal("108.9") - 100) - Decimal("10.89")


def test_an_order_through_zero_realises_the_old_and_enters_the_new_at_its_fill() -> None:
    book = orders(f"at: {AT + 60}, venue: perp, asset: ETH, size: -150, bound: 1%")
    result = backtest(leverage("2"), book, market(ETH=[100.0, 110.0, 110.0, 100.0]))
    assert result.equity.end == 10_000 + 1_000 + 500


def test_an_order_that_the_venue_would_revert_is_refused() -> None:
    book = orders(f"at: {AT}, venue: perp, asset: ETH, size: 1000, bound: 1%")
    (order,) = backtest(leverage("20"), book, market(ETH=[100.0, 100.0])).refused
    assert order.reverts == "perp wants 11000.00 of initial margin and has 10000.00"
    assert order.decision.outcome == "deny"


def test_a_swap_changes_what_is_held_and_cannot_spend_what_is_not_there() -> None:
    book = read_book(
        "holdings: [{venue: account, asset: USDC, amount: 1000}]\norders:\n"
        f"  - {{at: {AT}, venue: uniswap, asset: ETH, size: 9, bound: 1%}}\n"
        f"  - {{at: {AT}, venue: uniswap, asset: ETH, size: 2, bound: 1%}}\n"
    )
    result = backtest(leverage("2"), book, market(ETH=[100.0, 100.0, 200.0]))
    assert [o.decision.outcome for o in result.orders] == ["allow", "deny"]
    assert result.orders[1].reverts == "the account is 100 USDC short"
    assert result.equity.end == 100 + 9 * 200


def test_a_call_that_the_policy_does_not_list_is_refused_whatever_the_limits_say() -> None:
    book = orders(f"at: {AT}, venue: perp, asset: ETH, size: 1, bound: 1%")
    (order,) = backtest(policy_of("limits: []\n"), book, market(ETH=[100.0, 100.0])).refused
    assert order.decision.objections == ("nothing allows the call perp.clearing_house.openPosition",)


def test_a_stop_is_armed_anew_when_an_order_adds_to_the_position() -> None:
    book = orders(f"at: {AT + 60}, venue: perp, asset: ETH, size: 100, bound: 1%")
    policy = with_stop()
    result = backtest(policy, book, market(ETH=[100.0, 120.0, 120.0, 100.0, 98.0]))
    (event,) = result.of_kind("stop")
    assert event.figures["trigger"] == 99  # 10 % below the mean entry of 110
    assert event.figures["size"] == 200


@pytest.mark.parametrize(
    ("at", "message"), [(START_S - 1, "comes before the first bar"), (START_S + 10_000, "is after the last bar")]
)
def test_an_order_outside_the_bars_is_an_error(at: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        backtest(leverage("2"), orders(f"at: {at}, venue: perp, asset: ETH, size: 1"), market(ETH=[100.0, 100.0]))


def test_an_order_at_a_venue_that_is_not_known_is_an_error_with_its_line() -> None:
    with pytest.raises(
        BadInput, match="line 5 of the book: orders at 'cex' cannot be back-tested; there are perp and uniswap"
    ):
        backtest(leverage("2"), orders(f"at: {AT}, venue: cex, asset: ETH, size: 1"), market(ETH=[100.0, 100.0]))


def test_an_asset_without_bars_is_an_error() -> None:
    with pytest.raises(BadInput, match="the book holds ETH, and there are no bars of it: give them as --data ETH=FILE"):
        backtest(leverage("2"), read_book(LONG), market(BTC=[100.0]))


# -- the whole --------------------------------------------------------------------------------------------------------------------------


def test_options_are_marked_by_black_and_settled_in_cash_at_expiry() -> None:
    book = read_book(
        "holdings: [{venue: account, asset: USDC, amount: 100}]\n"
        f"options: [{{venue: lyra, asset: ETH, kind: call, strike: 100, expiry: {START_S + 120}, size: -2, implied_vol: 50%}}]\n"
    )
    result = backtest(policy_of("limits: []\n"), book, market(ETH=[100.0, 130.0, 180.0, 300.0]))
    (event,) = result.of_kind("expiry")
    assert event.figures["paid"] == -60  # 130 at the open of the bar at which it expires
    assert result.equity.end == 40


def test_drawdown_names_the_mark_it_fell_from() -> None:
    result = backtest(leverage("9"), read_book(LONG), market(ETH=[100.0, 110.0, 99.0, 120.0, 110.0]))
    assert result.equity.max_drawdown == Decimal("0.1")
    assert (result.equity.drawdown_high, result.equity.drawdown_low) == (11_000, 9_900)


def test_the_same_input_gives_the_same_report() -> None:
    book = read_book(LONG)
    one, two = (backtest(with_stop(), book, crash()).to_json() for _ in range(2))
    assert one == two


def test_the_report_in_words_names_limits_guards_and_refusals() -> None:
    book = orders(f"at: {AT}, venue: perp, asset: ETH, size: 500, bound: 1%")
    policy = policy_of(BUY + STOP.format(more="") + LEVERAGE.replace("3.1", "1"))
    lines = backtest(policy, book, market(ETH=[100.0, 100.0, 85.0])).explain()
    text = "\n".join(lines)
    assert "stop 1 of ETH: trigger 90.00 reached, 100 closed between 90.00 and 84.15 (booked: the bound)" in text
    assert "buy 500 ETH at perp: deny" in text
    assert "deny            leverage [portfolio]: 1.000x -> 6.000x, max 1.000x, headroom -5.000x (breached)" in text
