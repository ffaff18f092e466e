"""Windows over the account's record.

Now is NOW. Equity on record: 10,000 three days ago, 12,000 two days ago (1,000 of it paid in: NAV 1.1), 11,000 a day ago (NAV
1.1 x 11/12), 11,500 an hour ago (500 paid in). Cash in hand is the whole book.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.abi import Function
from contracts.bindings import Call
from contracts.types import keccak
from policies.portfolio import Activity, EquityPoint, Facts, Fill, History, Holding, Option, Portfolio, Position
from tests.policies.metrics.books import D, facts, take
from tests.policies.metrics.test_operation import calling, cash
from tests.policies.rig import BOOK, NOW_S

DAY, HOUR = 86_400, 3_600
TRANSFER = Function.parse("transfer(address,uint256)")
RECORD = History(
    since_s=NOW_S - 30 * DAY,
    equity=(
        EquityPoint(NOW_S - 3 * DAY, D(10_000), D(10_000)),
        EquityPoint(NOW_S - 2 * DAY, D(12_000), D(11_000)),
        EquityPoint(NOW_S - DAY, D(11_000), D(11_000)),
        EquityPoint(NOW_S - HOUR, D(11_500), D(11_500)),
    ),
    activity=(
        Activity(NOW_S - 2 * DAY, keccak(b"1"), D(5_000), D(70), 10**16, 0),
        Activity(NOW_S - 2 * HOUR, keccak(b"2"), D(3_000), D(-40), 2 * 10**16, 2 * 10**16),
        Activity(NOW_S - HOUR, keccak(b"3"), D(1_000), D(15), 3 * 10**16, 0),
    ),
)


def given(**changes: object) -> Facts:
    return facts(history=RECORD, before=cash("11500"), after=cash("11500"), **changes)


def test_turnover_adds_this_operations_fills_to_the_window() -> None:
    fills = (Fill("perp", "ETH", D(1), D(2_000), D(0)),)
    assert take("turnover", Portfolio(), given=given(fills=fills)).value == 3_000 + 1_000 + 2_000
    assert take("turnover", Portfolio(), given=given(fills=fills), is_after=False).value == 4_000
    assert take("turnover", Portfolio(), given=given(fills=fills), window_s=HOUR + 1).value == 3_000
    assert take("turnover", Portfolio(), given=given(), window_s=3 * DAY).value == 9_000


def test_the_window_is_open_at_its_far_end() -> None:
    assert take("turnover", Portfolio(), given=given(), window_s=HOUR).value == 0
    assert take("turnover", Portfolio(), given=given(), window_s=HOUR + 1).value == 1_000


def test_order_rate_counts_this_operation_and_not_an_earlier_attestation_of_the_same() -> None:
    assert take("order_rate", Portfolio(), given=given()).value == 3
    assert take("order_rate", Portfolio(), given=given(), is_after=False).value == 2
    again = given(intent_hash=keccak(b"3"))
    assert take("order_rate", Portfolio(), given=again).value == 2


def test_gas_is_counted_for_whoever_pays_it() -> None:
    own = given(max_prefund_wei=10**17)
    assert take("gas_spent", Portfolio(), given=own).value == D("0.13")
    assert take("sponsorship_spent", Portfolio(), given=own).value == D("0.02")
    sponsored = given(max_prefund_wei=10**17, sponsored=True)
    assert take("gas_spent", Portfolio(), given=sponsored).value == D("0.03")
    assert take("sponsorship_spent", Portfolio(), given=sponsored).value == D("0.12")


@pytest.mark.parametrize(
    "metric", ["turnover", "order_rate", "gas_spent", "sponsorship_spent", "realised_pnl", "pnl", "loss"]
)
def test_a_record_that_is_absent_or_too_short_gives_no_value(metric: str) -> None:
    assert "history is missing" in take(metric, cash("1"), given=facts()).why
    short = replace(RECORD, since_s=NOW_S - DAY + 1)
    found = take(metric, cash("11500"), given=replace(given(), history=short))
    assert found.value is None
    assert "known only since" in found.why
    assert take(metric, cash("11500"), given=replace(given(), history=short), window_s=DAY - 1).value is not None


def test_profit_of_a_window_is_the_change_of_equity_without_payments_in() -> None:
    """Since a day ago: 11,500 - 11,000 - 500 paid in = 0; over two days 11,500 - 12,000 - 500."""
    assert take("pnl", cash("11500"), given=given()).value == 0
    assert take("pnl", cash("11500"), given=given(), window_s=2 * DAY).value == -1_000
    assert take("loss", cash("11500"), given=given(), window_s=2 * DAY).value == 1_000
    assert take("loss", cash("11700"), given=replace(given(), after=cash("11700"))).value == 0
    # before the first record there was nothing: 11,500 - 10,000 - 1,500
    assert take("pnl", cash("11500"), given=given(), window_s=20 * DAY).value == 0


def test_a_payment_out_by_this_operation_is_no_loss() -> None:
    pays = calling(
        Call(BOOK["usdc"], TRANSFER.encode(BOOK["treasury"], 1_000 * 10**6)),
        history=RECORD, before=cash("11500"), after=cash("10500"),
    )  # fmt: skip
    assert take("loss", pays.after, given=pays).value == 0
    assert (
        take("drawdown", pays.after, given=pays).value
        == take("drawdown", pays.before, given=pays, is_after=False).value
    )
    assert take("realised_pnl", pays.after, given=pays).value == -25


def test_realised_profit_is_recorded_profit_and_what_this_operation_turns_into_cash() -> None:
    """The operation closes 1 ETH opened at 1,900 (mark 2,000) for 1,990: equity falls by 10, unrealised by 100, so 90 is realised."""
    before = Portfolio(
        holdings=(Holding("account", "USDC", D(500)),), options=(),
        positions=(Position("spot-margin", "ETH", D(1), D(1_900), D(2_000)),),
    )  # fmt: skip
    before = replace(before, holdings=(Holding("account", "USDC", D(500)), Holding("spot-margin", "USDC", D(100))))
    after = Portfolio(holdings=(Holding("account", "USDC", D(500)), Holding("spot-margin", "USDC", D(90))))
    now = facts(history=RECORD, before=before, after=after)
    assert take("realised_pnl", after, given=now).value == -40 + 15 + 90
    assert take("realised_pnl", before, given=now, is_after=False).value == -25


def test_unrealised_profit_of_positions_and_options() -> None:
    book = Portfolio(
        positions=(Position("perp", "ETH", D(-2), D(-3_900), D(2_000), D(5)),),  # -100 and 5 of funding
        options=(Option("x", "ETH", True, D(2_000), NOW_S + DAY, D(-1), D(-90), D(60), D(1)),),  # +30
    )
    assert take("unrealised_pnl", book).value == -75
    assert take("unrealised_pnl", book, "venue: x").value == 30


def test_drawdown_follows_one_unit_and_not_the_money_paid_in() -> None:
    """NAV 1 -> 1.1 -> 1.1 x 11/12 = 1.00833 -> the same (500 was paid in) -> 9,200/11,500 of it. High-water mark 1.1, two days ago."""
    found = take("drawdown", cash("9200"), given=given())
    assert found.value is not None
    assert 0 <= found.value - (1 - D(11) / 12 * D(9_200) / 11_500) < D("1e-17")
    assert found.contributions[0] == (f"high-water mark at {NOW_S - 2 * DAY}", D("1.1"))
    fresh = take("drawdown", cash("9200"), given=given(), window_s=12 * HOUR)
    assert fresh.value == D("0.2")
    assert take("drawdown", cash("20000"), given=given()).value == 0


def test_drawdown_from_nothing_has_no_value() -> None:
    assert "history is missing" in take("drawdown", cash("1"), given=facts()).why
    empty = replace(RECORD, equity=())
    assert "no equity was recorded" in take("drawdown", cash("1"), given=replace(given(), history=empty)).why
    ruined = replace(RECORD, equity=(*RECORD.equity, EquityPoint(NOW_S, D(0), D(11_500))))
    assert "there is no unit to follow" in take("drawdown", cash("1"), given=replace(given(), history=ruined)).why
