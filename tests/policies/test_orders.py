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
from policies.venues.lyra import OptionType, Strike
from policies.venues.tokens import Token
from tests.devnet.lyra_rig import NO_LIMIT, trade
from tests.devnet.lyra_rig import Strike as Listed
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
MARKETS = Markets({ETH_BASE: "ETH", BTC_BASE: "BTC"}, (USDC, WETH, WBTC), {7: Strike("ETH", 1_800_000_000, D(2_100))})
OPTION_MARKET = address("options")
PRICES = {"ETH": D(2_000), "BTC": D(40_000)}
WAD = 10**18
NAMED = {**BOOK, "uniswap.router": ROUTER, "lyra.option_market": OPTION_MARKET}


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


# -- options ------------------------------------------------------------------------------------------------------------------------


def option(name: str, kind: OptionType | int, amount: int, *, strike: int = 7, **bounds: int) -> Call:
    listed = Listed(strike, 1, 2_100 * WAD, 1_800_000_000)
    return Call(OPTION_MARKET, trade(name, listed, kind, amount, **bounds))  # type: ignore[arg-type]


CALL, PUT = "lyra:ETH-1800000000-2100-C", "lyra:ETH-1800000000-2100-P"


@pytest.mark.parametrize(
    ("name", "kind", "bounds", "label", "is_buy", "worst"),
    [
        ("openPosition", OptionType.LONG_CALL, {"most_wad": 600 * WAD}, CALL, True, 60),
        ("openPosition", OptionType.LONG_PUT, {"most_wad": 600 * WAD}, PUT, True, 60),
        ("openPosition", OptionType.SHORT_CALL_BASE, {"least_wad": 450 * WAD}, CALL, False, 45),
        ("openPosition", OptionType.SHORT_CALL_QUOTE, {"least_wad": 450 * WAD, "most_wad": 600 * WAD}, CALL, False, 45),
        ("openPosition", OptionType.SHORT_PUT_QUOTE, {"least_wad": 450 * WAD}, PUT, False, 45),
        ("closePosition", OptionType.LONG_CALL, {"least_wad": 450 * WAD}, CALL, False, 45),
        ("closePosition", OptionType.SHORT_PUT_QUOTE, {"most_wad": 600 * WAD, "least_wad": 1}, PUT, True, 60),
        ("forceClosePosition", OptionType.SHORT_CALL_QUOTE, {"most_wad": 600 * WAD}, CALL, True, 60),
    ],
)
def test_an_options_worst_price_is_the_bound_of_its_total_cost_by_its_amount(
    name: str, kind: OptionType, bounds: dict[str, int], label: str, is_buy: bool, worst: int
) -> None:
    assert read(option(name, kind, 10 * WAD, **bounds)) == (Order("lyra", "ETH", is_buy, D(worst), label),)


def test_an_options_worst_price_is_rounded_against_the_account() -> None:
    (bought,) = read(option("openPosition", OptionType.LONG_CALL, 3, most_wad=10))
    (sold,) = read(option("openPosition", OptionType.SHORT_PUT_QUOTE, 3, least_wad=10))
    assert (str(bought.worst_price), str(sold.worst_price)) == ("3.333333333333333334", "3.333333333333333333")


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [
        (OptionType.LONG_CALL, {}),
        (OptionType.LONG_CALL, {"least_wad": WAD, "most_wad": 2**255}),
        (OptionType.SHORT_PUT_QUOTE, {}),
        (OptionType.SHORT_PUT_QUOTE, {"most_wad": 600 * WAD}),
    ],
)
def test_an_opened_option_whose_bound_does_not_bind_has_no_worst_price(
    kind: OptionType, bounds: dict[str, int]
) -> None:
    (order,) = read(option("openPosition", kind, 10 * WAD, **bounds))
    assert (order.asset, order.worst_price) == ("ETH", None)


def test_a_closed_option_whose_bound_does_not_bind_is_judged_by_its_fill_alone() -> None:
    assert read(option("closePosition", OptionType.LONG_CALL, WAD)) == ()
    assert read(option("closePosition", OptionType.SHORT_PUT_QUOTE, WAD, least_wad=1, most_wad=NO_LIMIT)) == ()


def test_moving_an_options_collateral_is_no_order() -> None:
    assert read(option("openPosition", OptionType.SHORT_PUT_QUOTE, 0, position=3, collateral_wad=WAD)) == ()


def test_an_option_that_nobody_traded_is_an_asset_without_a_price() -> None:
    (order,) = read(option("openPosition", OptionType.LONG_CALL, WAD, strike=8, most_wad=WAD))
    assert order == Order("lyra", "strike 8", True, None)
    assert read(option("closePosition", OptionType.LONG_CALL, WAD, strike=8, least_wad=WAD)) == ()
    (no_kind,) = read(option("openPosition", 5, WAD, most_wad=WAD))
    assert no_kind == Order("lyra", "strike 7", True, None)
