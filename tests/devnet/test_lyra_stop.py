"""Stops on option positions fire against the real market and close what they were armed for."""

from __future__ import annotations

import pytest

from contracts import bindings as b
from contracts.bindings import Call, ModuleInit
from contracts.devnet import Bar, Devnet
from contracts.errors import RpcError
from contracts.types import keccak
from contracts.units import WAD
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import OptionAccount, Strike, positions, quote_wad, strikes, trade
from tests.devnet.rig import Person, person

STOP_ID = 1
POSITION = "position(address,bytes)((int256,uint256,uint256))"
VENUE_PRICE = "venuePrice(bytes)(uint256)"


def error(signature: str) -> str:
    """What a node says of a revert with this error."""
    return keccak(signature.encode())[:4].hex()


def stop(
    net: Devnet, position: int, trigger: int, *, below: bool, size_bps: int = 10_000, slippage_bps: int = 1_500
) -> tuple[object, ...]:
    """A stop on one position, public at once, of any size, on the ETH feed."""
    where = net.addresses
    oracle = (where.feed_eth_usd, 86_400, bytes(20), 0, 1, 10**6 * WAD, 300, 0)
    market = position.to_bytes(32)
    terms = (trigger * WAD, size_bps, 10**9 * WAD, slippage_bps, 3_000, *6 * (0,), *5 * (0,), oracle)
    return (where.lyra_adapter, market, below, *terms)


async def holder(trader: Person, strike: Strike, kind: OptionType, amount: int, collateral: int = 0) -> OptionAccount:
    """An account with StopLoss that opens position 1 as its first operation."""
    module = ModuleInit(b.MODULE_EXECUTOR, trader.net.addresses.stop_loss, b"")
    account = await OptionAccount.fund(trader, 100_000 * WAD, (module,))
    opening = trade("openPosition", strike, kind, amount * WAD, collateral_wad=collateral * WAD)
    await account.perform(account.allowing(), account.trading(opening))
    return account


async def arm(account: OptionAccount, terms: tuple[object, ...]) -> None:
    await account.perform(Call(account.someone.net.addresses.stop_loss, b.ARM_STOP.encode(STOP_ID, terms)))


async def fire(account: OptionAccount) -> None:
    """Anybody touches, and then executes."""
    net = account.someone.net
    keeper = person(net, net.accounts.trader2)
    for function in (b.GUARD_TOUCH, b.GUARD_EXECUTE):
        await keeper.sender.transact(net.addresses.stop_loss, function.encode(account.address, STOP_ID))


async def seen(account: OptionAccount, position: int = 1) -> tuple[int, int, int]:
    """Size, notional and debt as the adapter answers."""
    adapter = account.someone.net.addresses.lyra_adapter
    found: tuple[int, int, int] = await account.someone.ask(adapter, POSITION, account.address, position.to_bytes(32))
    return found


@pytest.mark.parametrize(
    ("kind", "collateral", "sign"),
    [
        (OptionType.LONG_CALL, 0, 1),
        (OptionType.LONG_PUT, 0, -1),
        (OptionType.SHORT_CALL_QUOTE, 2_500, -1),
        (OptionType.SHORT_PUT_QUOTE, 1_820, 1),
    ],
)
async def test_a_position_is_signed_by_what_it_gains_from(
    trader: Person, kind: OptionType, collateral: int, sign: int
) -> None:
    _, (_, _, strike, *_), _ = await strikes(trader)
    account = await holder(trader, strike, kind, 10, collateral)
    size, notional, debt = await seen(account)
    assert size == sign * 10 * WAD
    assert notional / WAD == pytest.approx(10 * 12, rel=0.2)
    assert (debt > 0) is (collateral > 0)
    assert await trader.ask(trader.net.addresses.lyra_adapter, VENUE_PRICE, (1).to_bytes(32)) == pytest.approx(
        181.79 * WAD, rel=1e-4
    )


async def test_a_position_of_somebody_else_is_none_and_an_unknown_one_is_refused(trader: Person) -> None:
    _, (_, _, strike, *_), _ = await strikes(trader)
    await holder(trader, strike, OptionType.LONG_CALL, 10)
    adapter = trader.net.addresses.lyra_adapter
    assert await trader.ask(adapter, POSITION, trader.eoa.address, (1).to_bytes(32)) == (0, 0, 0)
    for market in ((2).to_bytes(32), bytes(32), (1).to_bytes(31)):
        with pytest.raises(RpcError, match=error("UnknownMarket(bytes)")):
            await trader.ask(adapter, POSITION, trader.eoa.address, market)


async def test_a_long_call_is_sold_when_the_market_falls(net: Devnet, trader: Person) -> None:
    *_, (_, _, strike, *_) = await strikes(trader)
    account = await holder(trader, strike, OptionType.LONG_CALL, 50)
    await arm(account, stop(net, 1, 170, below=True))
    with pytest.raises(RpcError, match=error("NotDue(address,uint256)")):
        await fire(account)
    await net.market.move_to(168 * WAD)
    before = await quote_wad(trader, account.address)
    _, notional, _ = await seen(account)
    await fire(account)
    assert await positions(trader, account.address) == []
    assert 0.6 * notional < await quote_wad(trader, account.address) - before < notional


async def test_a_short_put_is_bought_back_when_the_market_falls(net: Devnet, trader: Person) -> None:
    *_, (_, low, *_) = await strikes(trader)
    account = await holder(trader, low, OptionType.SHORT_PUT_QUOTE, 50, 8_000)
    await arm(account, stop(net, 1, 165, below=True))
    await net.market.move_to(160 * WAD)
    before = await quote_wad(trader, account.address)
    _, notional, _ = await seen(account)
    await fire(account)
    assert await positions(trader, account.address) == []
    returned = await quote_wad(trader, account.address) - before
    assert 8_000 * WAD - 1.4 * notional < returned < 8_000 * WAD - notional
    where = net.addresses
    left = await trader.ask(
        where.lyra_quote, "allowance(address,address)(uint256)", account.address, where.lyra_option_market
    )
    assert left == 0


async def test_a_short_call_is_bought_back_when_the_market_rises_deep_into_the_money(
    net: Devnet, trader: Person
) -> None:
    *_, (_, _, strike, *_) = await strikes(trader)
    account = await holder(trader, strike, OptionType.SHORT_CALL_QUOTE, 20, 5_000)
    await arm(account, stop(net, 1, 250, below=False))
    await net.market.move_to(280 * WAD)  # its delta is above 0.85: only a forced close is open
    await fire(account)
    assert await positions(trader, account.address) == []


async def test_half_of_a_short_keeps_half_of_its_collateral(net: Devnet, trader: Person) -> None:
    *_, (_, _, strike, *_) = await strikes(trader)
    account = await holder(trader, strike, OptionType.SHORT_PUT_QUOTE, 50, 9_000)
    await arm(account, stop(net, 1, 175, below=True, size_bps=5_000))
    await net.market.move_to(172 * WAD)
    await fire(account)
    ((*_, amount, collateral, _),) = await positions(trader, account.address)
    assert (amount, collateral) == (25 * WAD, 4_500 * WAD)


async def test_a_fill_worse_than_the_bound_is_refused(net: Devnet, trader: Person) -> None:
    *_, (_, _, strike, *_) = await strikes(trader)
    account = await holder(trader, strike, OptionType.LONG_CALL, 50)
    await arm(account, stop(net, 1, 175, below=True, slippage_bps=1))
    await net.market.move_to(172 * WAD)
    with pytest.raises(RpcError, match=error("TotalCostOutsideOfSpecifiedBounds(address,uint256,uint256,uint256)")):
        await fire(account)
    assert len(await positions(trader, account.address)) == 1


async def test_an_expired_position_is_left_to_settlement(net: Devnet, trader: Person) -> None:
    (_, _, strike, *_), *_ = await strikes(trader)
    account = await holder(trader, strike, OptionType.LONG_CALL, 10)
    await arm(account, stop(net, 1, 190, below=True))
    price = 180 * 10**8
    await net.market.advance(Bar(strike.expiry_s + 60, price, price, price, price))
    await net.market.release()
    with pytest.raises(RpcError, match=error("Expired(uint256,uint256)")):
        await fire(account)
