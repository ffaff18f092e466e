"""From what a trader wants to the calls that do it, on Perpetual Protocol v2.

Every order carries a price bound: the worst fill that the trader accepts, from the index price and a slippage in basis points.
Amounts: USDC with its 6 decimals; base and quote of the perp market with 18 (1e18 = one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.errors import BadInput
from contracts.types import Address
from contracts.units import BPS, WAD, mul_div

# Source: Perpetual Protocol v2, IClearingHouse and IVault.
OPEN_POSITION = Function.parse(
    "openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))(uint256,uint256)"
)
CLOSE_POSITION = Function.parse("closePosition((address,uint160,uint256,uint256,bytes32))(uint256,uint256)")
VAULT_DEPOSIT = Function.parse("deposit(address,uint256)")
VAULT_WITHDRAW = Function.parse("withdraw(address,uint256)")

Side = Literal["long", "short"]


@dataclass(frozen=True, slots=True)
class PerpMarket:
    """Where one perp market lives."""

    clearing_house: Address
    vault: Address
    base_token: Address
    usdc: Address


def deposit(market: PerpMarket, amount_usdc: int) -> list[Call]:
    """Approve exactly `amount_usdc` (1e6 = one) and deposit it as margin; no allowance is left behind. Raises BadInput."""
    if amount_usdc <= 0:
        raise BadInput(f"a deposit must be positive, got {amount_usdc / 10**6:f} USDC")
    return [
        Call(market.usdc, b.APPROVE.encode(market.vault, amount_usdc)),
        Call(market.vault, VAULT_DEPOSIT.encode(market.usdc, amount_usdc)),
    ]


def withdraw(market: PerpMarket, amount_usdc: int, to: Address, account: Address) -> list[Call]:
    """Take margin out of the venue and, if `to` is not the account itself, send it on. Raises BadInput."""
    if amount_usdc <= 0:
        raise BadInput(f"a withdrawal must be positive, got {amount_usdc / 10**6:f} USDC")
    calls = [Call(market.vault, VAULT_WITHDRAW.encode(market.usdc, amount_usdc))]
    if to != account:
        calls.append(Call(market.usdc, b.TRANSFER.encode(to, amount_usdc)))
    return calls


def open_perp(
    market: PerpMarket, *, side: Side, notional_wad: int, index_wad: int, slippage_bps: int, deadline_s: int
) -> list[Call]:
    """Open or increase by `notional_wad` of quote (1e18 = one), at a mean fill at most `slippage_bps` worse than the index.

    A long gives exactly that much quote and takes at least notional / (index x (1 + slippage)) base, rounded up (in the trader's
    favour); a short takes exactly that much quote and gives at most notional / (index x (1 - slippage)) base, rounded down.
    Raises BadInput for a notional or index that is not positive, or a slippage outside 0..10000 bps (exclusive).
    """
    if notional_wad <= 0 or index_wad <= 0:
        raise BadInput(f"notional and index price must be positive, got {notional_wad} and {index_wad}")
    if not 0 < slippage_bps < BPS:
        raise BadInput(f"slippage must be above 0 and below 10000 basis points, got {slippage_bps}")
    if side == "long":
        worst = mul_div(index_wad, BPS + slippage_bps, BPS)
        bound = mul_div(notional_wad, WAD, worst, round_up=True)
    else:
        worst = mul_div(index_wad, BPS - slippage_bps, BPS, round_up=True)
        bound = mul_div(notional_wad, WAD, worst)
    if bound == 0:  # the venue takes zero for "no bound"
        raise BadInput(f"an order of {notional_wad} (1e18 = one USDC) is too small to carry a price bound")
    is_short = side == "short"
    order = (market.base_token, is_short, not is_short, notional_wad, bound, deadline_s, 0, bytes(32))
    return [Call(market.clearing_house, OPEN_POSITION.encode(order))]


def close_perp(market: PerpMarket, *, size_wad: int, index_wad: int, slippage_bps: int, deadline_s: int) -> list[Call]:
    """Close the whole position of signed base `size_wad` (1e18 = one), mean fill at most `slippage_bps` worse than the index.

    A long takes at least size x index x (1 - slippage) quote, a short gives at most size x index x (1 + slippage).
    Raises BadInput when there is no position, or for a slippage outside 0..10000 bps (exclusive).
    """
    if size_wad == 0:
        raise BadInput("there is no position to close in this market")
    if not 0 < slippage_bps < BPS:
        raise BadInput(f"slippage must be above 0 and below 10000 basis points, got {slippage_bps}")
    value = mul_div(abs(size_wad), index_wad, WAD)
    worst_bps = BPS - slippage_bps if size_wad > 0 else BPS + slippage_bps
    bound = mul_div(value, worst_bps, BPS, round_up=size_wad > 0)
    if bound == 0:  # the venue takes zero for "no bound"
        raise BadInput(f"a position of {size_wad} (1e18 = one) is too small to close with a price bound")
    order = (market.base_token, 0, bound, deadline_s, bytes(32))
    return [Call(market.clearing_house, CLOSE_POSITION.encode(order))]
