"""What the operation itself does, by the figures on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from policies.calls import decode_calls
from policies.portfolio import SETTLEMENT, Facts, Fill, Holding, Margin, Option, Order, Portfolio, Position
from tests.policies.metrics.books import D, facts, take
from tests.policies.rig import ACCOUNT, BOOK, address, close_call, open_call

APPROVE = Function.parse("approve(address,uint256)")
TRANSFER = Function.parse("transfer(address,uint256)")


def calling(*calls: Call, **changes: object) -> Facts:
    return facts(calls=decode_calls(ACCOUNT, b.encode_execute(list(calls)), BOOK), **changes)


def cash(amount: str) -> Portfolio:
    return Portfolio(holdings=(Holding("account", "USDC", D(amount)),))


def test_contracts_are_counted_once_each_and_named() -> None:
    given = calling(open_call(), close_call(), Call(BOOK["usdc"], APPROVE.encode(BOOK["perp.vault"], 1)))
    found = take("contracts_touched", Portfolio(), "operation", given)
    assert found.value == 2
    assert [name for name, _ in found.contributions] == ["perp.clearing_house", "usdc"]


def test_counterparties_are_whoever_the_arguments_name_and_receivers_of_native_coin() -> None:
    given = calling(
        Call(BOOK["usdc"], APPROVE.encode(BOOK["perp.vault"], 1)),
        Call(BOOK["usdc"], TRANSFER.encode(BOOK["treasury"], 1)),
        Call(BOOK["usdc"], TRANSFER.encode(BOOK["treasury"], 2)),
        Call(BOOK["usdc"], TRANSFER.encode(ACCOUNT, 2)),
        Call(address("friend"), b"", value=1),
    )
    assert take("counterparties", Portfolio(), "operation", given).value == 3


def test_calls_that_cannot_be_read_are_counted() -> None:
    given = calling(open_call(), Call(address("x"), b"\x01\x02\x03\x04"), Call(address("y"), b"\x01"))
    assert take("unknown_calls", Portfolio(), "operation", given).value == 2


def test_the_most_an_operation_may_cost_in_gas() -> None:
    assert take("operation_gas", Portfolio(), "operation", facts(max_prefund_wei=5 * 10**16)).value == D("0.05")


def test_price_deviation_sees_a_price_that_is_too_good_and_a_mark_that_is_off() -> None:
    cheap = Fill("perp", "ETH", D(10), D(19_000), D(100))  # 1,900 a unit without its fee, 5 % below the index
    assert take("price_deviation", Portfolio(), "operation", facts(fills=(cheap,))).value == D("0.05")
    assert take("order_slippage", Portfolio(), "operation", facts(fills=(cheap,))).value == 0
    off = Portfolio(positions=(Position("perp", "ETH", D(1), D(2_000), D(2_040)),))
    assert take("price_deviation", Portfolio(), "operation", facts(after=off)).value == D("0.02")


def test_an_options_fill_is_held_against_its_mark_and_a_settlement_against_nothing() -> None:
    option = Option("lyra", "ETH", True, D(2_100), 10**10, D(10), D(0), D(50), D("0.8"))
    book = Portfolio(options=(option,))
    sold = Fill("lyra", "ETH", D(-10), D(480), D(20), option.label)  # 46 each after the fee, worth 50: 4 of 2,000 lost
    given = facts(fills=(sold,), before=book, after=Portfolio())
    assert take("order_slippage", Portfolio(), "operation", given).value == D("0.002")
    assert take("price_deviation", Portfolio(), "operation", given).value == D("0.001"), "without the fee"
    bought = replace(sold, size=D(10), quote=D(540))  # 56 each
    assert take("order_slippage", book, "operation", facts(fills=(bought,), after=book)).value == D("0.003")
    unknown = take("order_slippage", Portfolio(), "operation", facts(fills=(sold,)))
    assert (unknown.value, unknown.why) == (None, f"the mark of {option.label} is not known")
    settled = facts(fills=(replace(sold, option=SETTLEMENT),), before=book)
    assert take("order_slippage", Portfolio(), "operation", settled).value == 0


def test_an_options_bound_is_held_against_its_mark() -> None:
    option = Option("lyra", "ETH", True, D(2_100), 10**10, D(10), D(0), D(50), D("0.8"))
    held = Portfolio(options=(option,))

    def bounded(worst: str, *, is_buy: bool) -> Facts:
        return facts(orders=(Order("lyra", "ETH", is_buy, D(worst), option.label),), before=held)

    found = take("order_slippage", Portfolio(), "operation", bounded("60", is_buy=True))
    assert found.value == D("0.005"), "ten of an ETH's 2,000"
    assert [title for title, _ in found.contributions] == [f"bound {option.label}"]
    assert take("order_slippage", Portfolio(), "operation", bounded("44", is_buy=False)).value == D("0.003")
    assert take("order_slippage", Portfolio(), "operation", bounded("50", is_buy=False)).value == 0
    unknown = facts(orders=(Order("lyra", "ETH", True, D(60), "lyra:ETH-1-2-C"),))
    assert take("order_slippage", Portfolio(), "operation", unknown).why == "the mark of lyra:ETH-1-2-C is not known"


def test_what_an_operation_loses_is_the_fall_of_equity_that_it_did_not_pay_to_others() -> None:
    before, after = cash("10000"), cash("9970")
    assert take("operation_loss", after, "operation", facts(before=before, after=after)).value == 30
    assert take("operation_loss", before, "operation", facts(before=after, after=before)).value == 0
    paid = calling(Call(BOOK["usdc"], TRANSFER.encode(BOOK["treasury"], 20 * 10**6)), before=before, after=after)
    assert take("operation_loss", after, "operation", paid).value == 10


def test_native_coin_and_wrapped_ether_that_are_paid_are_no_loss_and_a_payment_to_oneself_is_no_payment() -> None:
    before, after = cash("10000"), cash("3000")
    given = calling(
        Call(address("friend"), b"", value=10**18),  # 2,000
        Call(BOOK["weth"], TRANSFER.encode(BOOK["treasury"], 2 * 10**18)),  # 4,000
        Call(BOOK["weth"], TRANSFER.encode(ACCOUNT, 10**18)),
        before=before,
        after=after,
    )
    assert take("operation_loss", after, "operation", given).value == 1_000


@pytest.mark.parametrize("metric", ["operation_loss", "price_deviation"])
def test_without_a_price_there_is_no_value(metric: str) -> None:
    perp = Portfolio(
        holdings=(Holding("account", "ETH", D(1)),),
        positions=(Position("perp", "ETH", D(1), D(2_000), D(2_000)),),
        margins=(Margin("perp", D(1), D(1), D(0), D(0), D("0.0625"), D("0.1")),),
    )
    found = take(metric, perp, "operation", replace(facts(before=perp, after=perp), prices=()))
    assert found.value is None
    assert "there is no price of ETH" in found.why
