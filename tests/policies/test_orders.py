"""The worst price that an order's own bound permits, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.types import Address, to_hex
from policies.calls import decode_calls
from policies.orders import Markets, orders_of, places_order
from policies.portfolio import Order, Position
from policies.venues.tokens import Token
from tests.policies.rig import ACCOUNT, BOOK, address

D = Decimal
OPEN = Function.parse("openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))")
CLOSE = Function.parse("closePosition((address,uint160,uint256,uint256,bytes32))")
IN_SINGLE = Function.parse("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")
OUT_SINGLE = Function.parse("exactOutputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")
IN_PATH = Function.parse("exactInput((bytes,address,uint256,uint256,uint256))")
OUT_PATH = Function.parse("exactOutput((bytes,address,uint256,uint256,uint256))")
MULTICALL = Function.parse("multicall(bytes[])")
HOUSE, ROUTER = BOOK["perp.clearing_house"], address("router")
ETH_BASE, BTC_BASE = address("veth"), address("vbtc")
USDC, WETH, WBTC = (
    Token("USDC", address("usdc"), 6),
    Token("ETH", address("weth"), 18),
    Token("BTC", address("wbtc"), 8),
)
MARKETS = Markets({ETH_BASE: "ETH", BTC_BASE: "BTC"}, (USDC, WETH, WBTC))
PRICES = {"ETH": D(2_000), "BTC": D(40_000)}
WAD = 10**18
NAMED = {**BOOK, "uniswap.router": ROUTER}


def read(*calls: Call, held: Sequence[Position] = ()) -> tuple[Order, ...]:
    decoded = decode_calls(ACCOUNT, b.encode_execute(list(calls)), NAMED)
    found = orders_of(decoded, MARKETS, PRICES, held)
    assert sum(map(places_order, decoded.calls)) <= len(found)
    return found


def opening(base: Address, amount: int, bound: int, *, sells: bool = False, exact_input: bool = True) -> Call:
    return Call(HOUSE, OPEN.encode((base, sells, exact_input, amount, bound, 10**10, 0, bytes(32))))


def closing(bound: int) -> Call:
    return Call(HOUSE, CLOSE.encode((ETH_BASE, 0, bound, 10**10, bytes(32))))


def perp(size: int) -> Position:
    return Position("perp", "ETH", D(size), D(size * 2_000), D(2_000))


def path(*parts: Address | int) -> bytes:
    return b"".join(part.to_bytes(3) if isinstance(part, int) else part for part in parts)


def swap(function: Function, *arguments: object) -> Call:
    return Call(ROUTER, function.encode(arguments))


def test_a_perps_order_is_on_the_asset_of_its_own_market() -> None:
    (eth,) = read(opening(ETH_BASE, 20_200 * WAD, 10 * WAD))
    assert eth == Order("perp", "ETH", True, D(2_020))
    (btc,) = read(opening(BTC_BASE, 2 * WAD, 79_000 * WAD, sells=True))
    assert btc == Order("perp", "BTC", False, D(39_500))
    (strange,) = read(opening(address("vdoge"), WAD, WAD))
    assert strange.asset == to_hex(address("vdoge")), "a market nobody named has no price, which denies"


def test_an_order_without_a_bound_has_no_worst_price() -> None:
    assert read(opening(ETH_BASE, WAD, 0)) == (Order("perp", "ETH", True, None),)
    assert read(swap(IN_SINGLE, USDC.address, WETH.address, 500, ACCOUNT, 9, 10**9, 0, 0))[0].worst_price is None


def test_a_closing_is_bounded_over_the_whole_position() -> None:
    assert read(closing(19_800 * WAD), held=[perp(10)]) == (Order("perp", "ETH", False, D(1_980)),)
    assert read(closing(20_200 * WAD), held=[perp(-10)]) == (Order("perp", "ETH", True, D(2_020)),)


def test_a_closing_without_a_bound_that_can_be_told_is_judged_by_its_fill_alone() -> None:
    assert read(closing(0), held=[perp(10)]) == ()
    both = read(opening(ETH_BASE, 20_000 * WAD, 10 * WAD), closing(19_800 * WAD), held=[perp(10)])
    assert [order.worst_price for order in both] == [2_000], "what is left to close after another trade is not guessed"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (swap(IN_SINGLE, USDC.address, WETH.address, 500, ACCOUNT, 9, 2_020 * 10**6, WAD, 0), ("ETH", True, 2_020)),
        (swap(IN_SINGLE, WETH.address, USDC.address, 500, ACCOUNT, 9, WAD, 1_980 * 10**6, 0), ("ETH", False, 1_980)),
        (swap(OUT_SINGLE, USDC.address, WETH.address, 500, ACCOUNT, 9, WAD, 2_040 * 10**6, 0), ("ETH", True, 2_040)),
        (swap(OUT_SINGLE, WETH.address, USDC.address, 500, ACCOUNT, 9, 1_960 * 10**6, WAD, 0), ("ETH", False, 1_960)),
        # 21 ETH of 2,000 for one BTC at least: 42,000
        (
            swap(IN_PATH, path(WETH.address, 500, USDC.address, 500, WBTC.address), ACCOUNT, 9, 21 * WAD, 10**8),
            ("BTC", True, 42_000),
        ),
        # paths of exact outputs begin with what is taken
        (
            swap(OUT_PATH, path(WBTC.address, 500, USDC.address), ACCOUNT, 9, 10**8, 41_000 * 10**6),
            ("BTC", True, 41_000),
        ),
    ],
)
def test_a_swaps_worst_price_counts_what_is_given_for_what_must_come_back(
    call: Call, expected: tuple[str, bool, int]
) -> None:
    (order,) = read(call)
    assert (order.venue, order.asset, order.is_buy, order.worst_price) == ("uniswap", *expected)


def test_swaps_inside_a_routers_multicall_are_orders_too() -> None:
    inner = IN_SINGLE.encode((USDC.address, WETH.address, 500, ACCOUNT, 9, 2_020 * 10**6, WAD, 0))
    assert [o.worst_price for o in read(Call(ROUTER, MULTICALL.encode([inner, inner])))] == [2_020, 2_020]


def test_whatever_there_is_and_tokens_that_nobody_named_have_no_price() -> None:
    (everything,) = read(swap(IN_SINGLE, USDC.address, WETH.address, 500, ACCOUNT, 9, 2**255, WAD, 0))
    assert everything.worst_price is None
    (strange,) = read(swap(IN_SINGLE, address("doge"), address("cat"), 500, ACCOUNT, 9, 5, 5, 0))
    assert (strange.asset, strange.worst_price) == (to_hex(address("cat")), None)
