"""The worst price that each order of an operation permits by the bound in its own call data. Pure.

A simulation shows one price; between it and the block anybody may move the market as far as the bound allows. Perpetual Protocol v2 orders
and closings, swaps through Uniswap v3's routers, and Lyra's trades are read.
A closing without a bound, or whose bound cannot be told, is no order here: nobody is held in a position for want of a bound, its fill is
judged.

Lyra bounds the total cost of a trade over all its iterations, fees included: a buyer pays `maxTotalCost` at most, a seller gets
`minTotalCost` at least; the mean price is that by the amount. Which option a strike is stands in the trade's own event.
Source: OptionMarket._checkCostInBounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from contracts.types import Address, to_hex
from contracts.units import from_units
from policies.calls import DecodedCall, DecodedCalls
from policies.margin import EXACT, ratio
from policies.portfolio import UNIT_OF_ACCOUNT, Order, Position
from policies.venues import lyra
from policies.venues.tokens import Token

HOUSE = "perp.clearing_house"
ROUTERS = ("uniswap.router", "uniswap.router_02")
OPTION_MARKET = "lyra.option_market"
_EVERYTHING = 2**255
"""An amount from here on stands for whatever there is; the routers also take zero for it."""
_ADDRESS, _FEE = 20, 3
"""Bytes of a path: token, fee, token, fee, token."""


@dataclass(frozen=True, slots=True)
class Markets:
    """What an order's addresses and numbers mean: perps' base tokens and the tokens of swaps, to assets; Lyra's strikes by their ids."""

    perps: Mapping[Address, str]
    tokens: Sequence[Token]
    strikes: Mapping[int, lyra.Strike] = field(default_factory=dict)


def places_order(call: DecodedCall) -> bool:
    """Whether a call trades, otherwise than to close, at a price that its own data should bound."""
    if call.target_name == HOUSE:
        return call.function.startswith("openPosition(")
    if call.target_name == OPTION_MARKET:
        return call.function.startswith("openPosition(") and dict(call.arguments).get("amount") != "0"
    return call.target_name in ROUTERS and call.function.startswith("exact")


def orders_of(
    calls: DecodedCalls, markets: Markets, prices: Mapping[str, Decimal], held: Sequence[Position]
) -> tuple[Order, ...]:
    """An order for each call that places one, in their order, without a price where its bound is zero or cannot be told; and one for each
    closing that has a bound.

    `prices` in unit of account, for swaps of two other assets; `held` are the positions before the operation.
    """
    return tuple(_orders(calls, markets, prices, held))


def _orders(
    calls: DecodedCalls, markets: Markets, prices: Mapping[str, Decimal], held: Sequence[Position]
) -> Iterator[Order]:
    size = {position.asset: position.size for position in held if position.venue == "perp"}
    traded: set[str] = set()
    for call in calls.calls:
        given = dict(call.arguments)
        if call.target_name == HOUSE and "baseToken" in given:
            asset = markets.perps.get(_address(given["baseToken"]), given["baseToken"])
            if call.function.startswith("openPosition("):
                yield _opening(asset, given)
            elif call.function.startswith("closePosition("):
                # what is left to close after another trade of this operation is not known here
                yield from _closing(asset, Decimal(0) if asset in traded else size.get(asset, Decimal(0)), given)
            traded.add(asset)
        elif call.target_name == OPTION_MARKET and "strikeId" in given:
            yield from _option(given, markets.strikes, opens=places_order(call))
        elif places_order(call):
            yield _swap(call, given, markets.tokens, prices)


def _opening(asset: str, given: Mapping[str, str]) -> Order:
    is_buy = given["isBaseToQuote"] == "false"
    amount, bound = Decimal(given["amount"]), Decimal(given["oppositeAmountBound"])
    if not amount or not bound:
        return Order("perp", asset, is_buy, None)
    exact_input = given["isExactInput"] == "true"
    quote, base = (amount, bound) if exact_input == is_buy else (bound, amount)
    return Order("perp", asset, is_buy, ratio(quote, base, up=is_buy))


def _closing(asset: str, size: Decimal, given: Mapping[str, str]) -> Iterator[Order]:
    is_buy, bound = size < 0, from_units(int(given["oppositeAmountBound"]), 18)
    if size and bound:
        yield Order("perp", asset, is_buy, ratio(bound, abs(size), up=is_buy))


def _option(given: Mapping[str, str], strikes: Mapping[int, lyra.Strike], *, opens: bool) -> Iterator[Order]:
    """A trade at Lyra; one that only moves collateral is none."""
    amount = int(given["amount"])
    if not amount:
        return
    kinds, number = {int(kind): kind for kind in lyra.OptionType}, int(given["strikeId"])
    kind, strike = kinds.get(int(given["optionType"])), strikes.get(number)
    if kind is None or strike is None:
        if opens:
            yield Order(lyra.VENUE, f"strike {number}", True, None)  # nobody traded it, or nobody can
        return
    is_buy = kind.is_long == opens
    cost = int(given["maxTotalCost"] if is_buy else given["minTotalCost"])
    worst = ratio(Decimal(cost), Decimal(amount), up=is_buy) if 0 < cost < _EVERYTHING else None
    if opens or worst is not None:
        yield Order(lyra.VENUE, strike.asset, is_buy, worst, strike.label(kind))


def _swap(call: DecodedCall, given: Mapping[str, str], tokens: Sequence[Token], prices: Mapping[str, Decimal]) -> Order:
    exact_input = call.function.startswith("exactInput")
    known = {token.address: token for token in tokens}
    ends = _ends(given, exact_input=exact_input)
    sold, bought = (known.get(one) or Token(to_hex(one), one, 0) for one in ends)
    names = ("amountIn", "amountOutMinimum") if exact_input else ("amountInMaximum", "amountOut")
    gives, takes = (int(given[name]) for name in names)
    venue = call.target_name.partition(".")[0]
    is_sale = bought.asset == UNIT_OF_ACCOUNT or (bought.asset in prices and sold.asset not in prices)
    asset = sold.asset if is_sale and sold.asset != UNIT_OF_ACCOUNT else bought.asset
    is_buy = asset == bought.asset
    other = sold if is_buy else bought
    worth = Decimal(1) if other.asset == UNIT_OF_ACCOUNT else prices.get(other.asset)
    if not 0 < gives < _EVERYTHING or not 0 < takes < _EVERYTHING or worth is None:
        return Order(venue, asset, is_buy, None)
    amounts = from_units(gives, sold.decimals), from_units(takes, bought.decimals)
    paid, size = amounts if is_buy else (amounts[1], amounts[0])
    with localcontext(EXACT):
        return Order(venue, asset, is_buy, ratio(paid * worth, size, up=is_buy))


def _ends(given: Mapping[str, str], *, exact_input: bool) -> tuple[Address, Address]:
    """The token that is given and the one that is taken. A path begins with the first for an exact input, with the last otherwise."""
    if "path" not in given:
        return _address(given["tokenIn"]), _address(given["tokenOut"])
    path = bytes.fromhex(given["path"][2:])
    first, last = path[:_ADDRESS], path[-_ADDRESS:]
    return (first, last) if exact_input else (last, first)


def _address(text: str) -> Address:
    return bytes.fromhex(text[2:])
