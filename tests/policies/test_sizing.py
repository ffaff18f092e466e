"""The same operation in another size: amount and bound scaled together, everything else as it was."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import abi
from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call, RiskState
from contracts.errors import BadInput
from policies import Decision, Facts, evaluate, load
from policies.calls import DecodedCalls, argument, decode_calls
from policies.decision import Sizes
from policies.portfolio import Fill, Outstanding
from policies.sizing import Sized, can_be_resized, can_be_smaller, find_sizes, resized, sized
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import Strike, trade
from tests.policies.rig import (
    ACCOUNT,
    BOOK,
    DEPOSIT,
    NOW_S,
    OPEN,
    address,
    close_call,
    example,
    facts_of,
    open_call,
    policy_of,
    portfolio,
)
from wallet import trading

FUND = load(example("conservative_fund"))
MULTICALL = Function.parse("multicall(bytes[])")
SWAP = Function.parse("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")
DEPOSITED = Call(BOOK["perp.vault"], DEPOSIT.encode(BOOK["usdc"], 10_000 * 10**6))


def decoded(calls: list[Call]) -> tuple[bytes, DecodedCalls]:
    data = b.encode_execute(calls)
    return data, decode_calls(ACCOUNT, data, BOOK)


def size_of(calls: list[Call]) -> Sized | None:
    return sized(decoded(calls)[1], BOOK)


def test_an_order_in_quote_has_a_size_in_usdc_and_a_tick_of_a_millionth() -> None:
    size = size_of([DEPOSITED, open_call(30_000)])
    assert size is not None
    assert (size.what, size.unit) == ("perp.clearing_house.openPosition amount", "USDC")
    assert size.requested == 30_000
    assert size.tick == Decimal("0.000001")
    assert size.top == 30_000 * 10**6


def test_an_order_in_base_has_a_size_in_the_base_asset() -> None:
    order = (BOOK["perp.eth"], True, True, 5 * 10**17, 10**20, NOW_S, 0, bytes(32))
    size = size_of([Call(BOOK["perp.clearing_house"], OPEN.encode(order))])
    assert size is not None
    assert (size.unit, size.requested) == ("ETH", Decimal("0.5"))


@pytest.mark.parametrize(
    ("call", "unit", "requested"),
    [
        (Call(BOOK["usdc"], b.TRANSFER.encode(address("x"), 7_500_000)), "USDC", "7.5"),
        (Call(BOOK["usdc"], b.APPROVE.encode(address("x"), 1)), "USDC", "0.000001"),
        (Call(BOOK["weth"], b.TRANSFER.encode(address("x"), 10**18 + 1)), "ETH", "1.000000000000000001"),
        (Call(address("?"), b.TRANSFER.encode(address("x"), 77)), "token units", "77"),
        (DEPOSITED, "USDC", "10000"),
    ],
)
def test_payments_grants_and_moves_have_a_size_too(call: Call, unit: str, requested: str) -> None:
    size = size_of([call])
    assert size is not None
    assert (size.unit, size.requested) == (unit, Decimal(requested))


@pytest.mark.parametrize(
    "call",
    [
        close_call(),
        Call(address("?"), b"\x12\x34\x56\x78"),
        Call(BOOK["usdc"], b.APPROVE.encode(address("x"), 2**256 - 1)),
        Call(address("somebody"), b"", 10**18),
    ],
)
def test_what_has_no_size_is_not_given_one(call: Call) -> None:
    assert size_of([call]) is None


OPTIONS = {**BOOK, "lyra.option_market": address("options"), "uniswap.router": address("router")}


def scaled(call: Call, ticks: int, *names: str) -> tuple[Sized, list[int]]:
    """The size of one call, and some arguments of it in another size."""
    data = b.encode_execute([call])
    size = sized(decode_calls(ACCOUNT, data, OPTIONS), OPTIONS)
    assert size is not None
    (found,) = decode_calls(ACCOUNT, resized(data, size, ticks), OPTIONS).calls
    return size, [int(argument(found, name) or "") for name in names]


def option_order(*, position: int = 0, least: int = 0, most: int = 2**256 - 1, collateral: int = 0) -> Call:
    kind = OptionType.SHORT_PUT_QUOTE if collateral else OptionType.LONG_CALL
    listed = Strike(7, 1, 10**21, 1_800_000_000)
    wads = {"least_wad": least, "most_wad": most, "collateral_wad": collateral}
    return Call(
        OPTIONS["lyra.option_market"], trade("openPosition", listed, kind, 3 * 10**18, position=position, **wads)
    )


def test_an_option_order_has_a_size_in_options_and_its_bounds_and_collateral_go_with_it() -> None:
    names = ("amount", "setCollateralTo", "minTotalCost", "maxTotalCost")
    size, found = scaled(option_order(least=100, most=200, collateral=10**21), 10**6, *names)
    assert (size.what, size.unit, size.requested) == ("lyra.option_market.openPosition amount", "options", 3)
    assert found == [10**18, 10**21 // 3 + 1, 34, 66], "a third, rounded in the account's favour"


def test_a_bound_that_stands_for_anything_stays_so_in_every_size() -> None:
    _, (least, most) = scaled(option_order(), 1, "minTotalCost", "maxTotalCost")
    assert (least, most) == (0, 2**256 - 1)


def test_the_collateral_of_an_option_position_that_is_there_already_does_not_shrink() -> None:
    _, (amount, collateral) = scaled(option_order(position=4, collateral=10**21), 10**6, "amount", "setCollateralTo")
    assert (amount, collateral) == (10**18, 10**21)


@pytest.mark.parametrize(
    ("signature", "amounts", "names", "expected"),
    [
        ("exactInput((bytes,address,uint256,uint256,uint256))", (NOW_S, 3 * 10**6, 100), ("amountIn", "amountOutMinimum"), [10**6, 34]),
        ("exactInput((bytes,address,uint256,uint256))", (3 * 10**6, 100), ("amountIn", "amountOutMinimum"), [10**6, 34]),
        ("exactOutput((bytes,address,uint256,uint256,uint256))", (NOW_S, 3 * 10**6, 100), ("amountOut", "amountInMaximum"), [10**6, 33]),
        ("exactOutput((bytes,address,uint256,uint256))", (3 * 10**6, 100), ("amountOut", "amountInMaximum"), [10**6, 33]),
    ],
)  # fmt: skip
def test_a_swap_along_a_path_has_the_size_of_the_token_that_the_path_begins_with(
    signature: str, amounts: tuple[int, ...], names: tuple[str, ...], expected: list[int]
) -> None:
    path = BOOK["usdc"] + (500).to_bytes(3) + BOOK["weth"]
    call = Call(OPTIONS["uniswap.router"], Function.parse(signature).encode((path, ACCOUNT, *amounts)))
    size, found = scaled(call, 10**6, *names)
    assert (size.unit, size.requested, found) == ("USDC", 3, expected)


def test_an_order_comes_before_a_payment_and_a_payment_before_a_deposit() -> None:
    payment = Call(BOOK["usdc"], b.TRANSFER.encode(address("x"), 5))
    for calls, what in (
        ([payment, DEPOSITED, open_call()], "openPosition amount"),
        ([DEPOSITED, payment], "transfer amount"),
    ):
        size = size_of(calls)
        assert size is not None
        assert size.what.endswith(what)


@given(st.integers(1, 40_000 * 10**6), st.sampled_from(["long", "short"]))
def test_an_order_in_another_size_is_what_the_trader_would_have_typed(ticks: int, side: Any) -> None:
    """Amount exactly; the bound within the last of 18 decimals, and never weaker than the trader's own slippage."""
    market = trading.PerpMarket(BOOK["perp.clearing_house"], BOOK["perp.vault"], BOOK["perp.eth"], BOOK["usdc"])

    def order(notional_wad: int) -> list[Call]:
        return trading.open_perp(
            market, side=side, notional_wad=notional_wad, index_wad=1_987_654_321 * 10**9, slippage_bps=77, deadline_s=5
        )

    data, calls = decoded(order(30_000 * 10**18))
    size = sized(calls, BOOK)
    assert size is not None
    (found,) = decode_calls(ACCOUNT, resized(data, size, ticks), BOOK).calls
    (typed,) = decoded(order(ticks * 10**12))[1].calls
    assert argument(found, "amount") == argument(typed, "amount")
    scaled, own = (int(argument(call, "oppositeAmountBound") or "0") for call in (found, typed))
    assert abs(scaled - own) <= 1 + own // (30_000 * 10**18 // 10**4)
    rest = [name for name, _ in found.arguments if name not in ("amount", "oppositeAmountBound")]
    assert all(argument(found, name) == argument(typed, name) for name in rest)


def test_the_size_asked_for_gives_the_same_bytes() -> None:
    for calls in ([open_call(30_000)], [DEPOSITED, open_call(30_000), close_call()]):
        data, known = decoded(calls)
        size = sized(known, BOOK)
        assert size is not None
        assert resized(data, size, size.top) == data


def test_calls_inside_a_venues_multicall_and_inside_a_nested_execute_are_scaled_in_place() -> None:
    book = BOOK | {"uniswap.router": address("router")}
    swap = (BOOK["usdc"], BOOK["weth"], 3000, ACCOUNT, NOW_S, 3_000_000_000, 10**18, 0)
    inner = SWAP.encode(swap)
    nested = Call(
        book["uniswap.router"], MULTICALL.encode([Function.parse("refundETH()").encode(), MULTICALL.encode([inner])])
    )
    data = b.encode_execute([DEPOSITED, Call(ACCOUNT, b.encode_execute([nested]))])
    known = decode_calls(ACCOUNT, data, book)
    size = sized(known, book)
    assert size is not None
    assert size.paths == ((1, 0, 1, 0),)
    assert can_be_resized(data, size)
    found = decode_calls(ACCOUNT, resized(data, size, size.top // 4), book)
    assert [call.title for call in found.calls] == [call.title for call in known.calls]
    assert argument(found.calls[2], "amountIn") == str(750_000_000)


def test_a_batch_of_batches_is_not_resized() -> None:
    batch = abi.encode(["(address,uint256,bytes)[]"], [[(open_call().target, 0, open_call().data)]])
    mode = bytes.fromhex("01000000000078210002") + bytes(22)
    data = b.EXECUTE.encode(mode, abi.encode(["bytes[]"], [[batch]]))
    size = sized(decode_calls(ACCOUNT, data, BOOK), BOOK)
    assert size is not None
    assert not can_be_resized(data, size)


def test_several_orders_are_scaled_in_proportion() -> None:
    data, known = decoded([open_call(30_000), open_call(10_000)])
    size = sized(known, BOOK)
    assert size is not None
    found = decode_calls(ACCOUNT, resized(data, size, 15_000 * 10**6), BOOK)
    assert [argument(call, "amount") for call in found.calls] == [str(15_000 * 10**18), str(5_000 * 10**18)]


def test_the_least_that_must_come_back_is_rounded_up_and_the_most_paid_down() -> None:
    swap = (BOOK["usdc"], BOOK["weth"], 3000, ACCOUNT, NOW_S, 3_000_000, 1_000, 0)
    data, known = decoded([Call(address("router"), SWAP.encode(swap))])
    size = sized(known, BOOK)
    assert size is not None
    (call,) = decode_calls(ACCOUNT, resized(data, size, 1), BOOK).calls
    assert (argument(call, "amountIn"), argument(call, "amountOutMinimum")) == ("1", "1")


def test_no_size_is_below_one_tick() -> None:
    data, known = decoded([open_call()])
    size = sized(known, BOOK)
    assert size is not None
    with pytest.raises(BadInput, match="at least one tick"):
        resized(data, size, 0)


# -- the search over a book that fills worse the more is taken ----------------------------------------------------------------------


def filled(notional: Decimal, depth: Decimal = Decimal(2_000_000)) -> tuple[Decimal, Decimal]:
    """(base, mean price) of buying for `notional` in a constant-product book at 200: price = 200 x (1 + notional / depth)."""
    price = (Decimal(200) * (1 + notional / depth)).quantize(Decimal(1).scaleb(-18))
    return (notional / price).quantize(Decimal(1).scaleb(-18)), price


def facts_at(policy: Any, notional: Decimal, held: str = "0") -> Facts:
    """What the chain would say of an order for `notional`."""
    base, _ = filled(notional)
    order = open_call(1)
    wad = int(notional.scaleb(18))
    values = (BOOK["perp.eth"], False, True, wad, max(wad * 10**18 // (205 * 10**18), 1), NOW_S + 600, 0, bytes(32))
    order = Call(order.target, OPEN.encode(values))
    size = Decimal(held) + base
    return facts_of(
        policy,
        [order],
        before=portfolio(held),
        after=portfolio(str(size)) if size else portfolio("0"),
        fills=(Fill("perp", "ETH", base, notional, Decimal(0)),),
        orders=(),
        prices=facts_of(policy, []).prices,
    )


def solve(policy: Any, requested: str, held: str = "0") -> tuple[Sizes, Decision]:
    def at(amount: Decimal) -> Facts:
        known = facts_at(policy, amount, held)
        # the orders' own bounds are beside the point here; what is counted is the fill
        return replace(known, calls=replace(known.calls, calls=known.calls.calls), orders=_orders(amount))

    facts = at(Decimal(requested))
    decision = evaluate(policy, facts, NOW_S)
    size = sized(facts.calls, facts.book)
    assert size is not None
    search = find_sizes(policy, facts, decision, size)
    try:
        asked = next(search)
        while True:
            asked = search.send({n: at(size.amount(n)) for n in asked})
    except StopIteration as done:
        return done.value, decision


def _orders(amount: Decimal) -> tuple[Any, ...]:
    from policies.portfolio import Order

    return (Order("perp", "ETH", True, filled(amount)[1]),)


CALLS = "calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"


def verdict(policy: Any, amount: Decimal, limit: str, held: str = "0") -> str:
    facts = replace(facts_at(policy, amount, held), orders=_orders(amount))
    decision = evaluate(policy, facts, NOW_S)
    return next(row.verdict for row in decision.limits if row.id == limit)


def test_each_refused_limit_has_its_largest_size_and_one_tick_more_fails() -> None:
    policy = policy_of(
        "limits:\n"
        "  - {id: gross, metric: gross_notional, max: 12345.678}\n"
        "  - {id: slip, metric: order_slippage, scope: operation, max: 0.4%}\n"
        "  - {id: eth, metric: position_size, scope: 'asset: ETH', max: 500}\n" + CALLS
    )
    sizes, decision = solve(policy, "30000")
    assert decision.outcome == "deny"
    assert sizes.requested == 30_000
    by_limit = {row.id: row.size for row in sizes.by_limit}
    assert by_limit["eth"] == 30_000, "it passes in the size asked for"
    for limit in ("gross", "slip"):
        largest = by_limit[limit]
        assert largest is not None
        assert verdict(policy, largest, limit) in ("pass", "warn")
        assert verdict(policy, largest + sizes.tick, limit) == "deny"
    assert by_limit["slip"] is not None
    assert 0 <= 8_000 - by_limit["slip"] <= sizes.tick, (
        "0.4 % of a depth of two millions, but for the last decimal of the fill"
    )
    assert sizes.size == by_limit["slip"]
    assert sizes.exact
    assert sizes.is_interval
    assert sizes.simulations <= 40


def test_what_reduces_a_breached_limit_passes_up_to_where_it_no_longer_does() -> None:
    """A short of 100 ETH breaks the limit on the net; buying may go on until the long is as large as the short was: headroom is
    negative all along, so only the verdicts can lead the search."""
    policy = policy_of("limits: [{id: net, metric: net_notional, max: 1000}]\n" + CALLS)
    sizes, decision = solve(policy, "45000", held="-100")
    assert decision.outcome == "deny"
    assert sizes.size is not None
    assert verdict(policy, sizes.size, "net", "-100") == "warn"
    assert verdict(policy, sizes.size + sizes.tick, "net", "-100") == "deny"
    assert 40_000 < sizes.size < 41_000


def test_no_size_passes_when_only_standing_still_would() -> None:
    """The equity limit is breached already: what does not change it is let pass, and every fill changes it a little."""
    policy = policy_of(
        "limits: [{id: equity, metric: equity, min: 99999}, {id: gross, metric: gross_notional, max: 0}]\n" + CALLS
    )
    sizes, _ = solve(policy, "30000")
    assert {row.id: row.size for row in sizes.by_limit}["gross"] is None
    assert sizes.size is None
    assert sizes.passing == ()


def test_what_no_size_would_help_is_not_searched() -> None:
    tight = "limits: [{id: gross, metric: gross_notional, max: 1}]\n"
    policy = policy_of(tight + CALLS)
    sound = facts_at(policy, Decimal(100))

    def may_help(facts: Facts, by: Any = policy) -> bool:
        return can_be_smaller(by, facts, evaluate(by, facts, NOW_S))

    assert may_help(sound)
    assert not may_help(replace(sound, policy_on_chain=bytes(32)))
    assert not may_help(replace(sound, state=RiskState.REDUCE_ONLY))
    assert not may_help(replace(sound, outstanding=(Outstanding(bytes(32), 99, NOW_S + 100),)))
    assert not may_help(facts_at(policy_of(tight), Decimal(100)), policy_of(tight)), "no rule allows the call"
