"""Stops of a policy file on the real Uniswap, Aave and Lyra of the devnet: planned, armed by a judged operation, and fired by the keeper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.types import Address, checksum
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import approve, positions, quote_wad, send, strikes, trade
from tests.devnet.rig import person
from tests.wallet.guard_rig import executed, give_weth, keeper_of, perform, plan, settle
from tests.wallet.trading_floor import Floor, Trader, floor_in, index_wad

POLICY = """\
schema: 1
name: stopped
version: "1"
facts: {max_price_age: 1d, max_price_deviation: 5%%}
limits:
  - {id: leverage, metric: leverage, max: 3}
calls:
  - {target: weth, functions: [approve], args: {spender: aave.pool}}
  - {target: aave.pool, functions: [supply, borrow], args: {onBehalfOf: account}}
  - {target: seawall.stop_loss, functions: [arm, cancel]}
guards:
  stop_loss:
    - {id: 5, %s, widen: 0s, cooldown: 0s, oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 5%%}}
  freeze: {guardians: [guardian], quorum: 1, solo_freeze: 30m, cooldown: 1h, thaw_delay: 10m}
  session: {key: keeper, prefund_budget: 0.5}
"""
STOP_ID = 5
ETHER, USDC = 10**18, 10**6
SUPPLY = Function.parse("supply(address,uint256,address,uint16)")
BORROW = Function.parse("borrow(address,uint256,uint256,uint16,address)")
ACCOUNT_DATA = Function.parse("getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)")
MOVE_OPTION = "transferFrom(address,address,uint256)"


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def trader_with(floor: Floor, folder: Path, stop: str) -> Trader:
    """An account that is born with the module and holds no position yet, so that nothing is armed."""
    trader = await floor.trader(folder, policy=POLICY % stop, sponsored=False)
    await perform(trader, [Call(floor.net.addresses.weth, b.APPROVE.encode(floor.net.addresses.aave_pool, 10 * ETHER))])
    assert await plan(trader) == ()
    return trader


async def arm(trader: Trader) -> None:
    """The plan is to arm the stop; when it is done nothing is left to do."""
    (change,) = await plan(trader)
    assert (change.kind, change.key) == ("add", f"stop {STOP_ID}")
    await perform(trader, list(change.calls))
    assert await plan(trader) == ()


async def balance(trader: Trader, token: Address) -> int:
    found: int = b.BALANCE_OF.decode(await trader.net.rpc.eth_call(token, b.BALANCE_OF.encode(trader.address)))[0]
    return found


async def move(floor: Floor, percent: int) -> None:
    """The whole market, and long enough for every mean to follow."""
    await floor.net.market.move_to(await index_wad(floor.net) * percent // 100)
    await floor.net.market.release()
    await settle(floor, 90)


async def fire(floor: Floor, trader: Trader, folder: Path, start: int, percent: int) -> dict[str, str]:
    """What the keeper reports once the market has moved. It acts through its session, so that the account itself is the caller."""
    keeper = keeper_of(floor, folder, "stop_loss", start)
    await keeper.start()
    try:
        await move(floor, percent)
        part = await executed(keeper, "the stop")
        (note,) = [fact for fact in keeper.facts() if fact["event"] == "fired"]
        assert note["caller"] == checksum(trader.address)
        return part
    finally:
        await keeper.stop()


async def allowances(trader: Trader) -> set[int]:
    a, found = trader.net.addresses, set()
    for token in (a.usdc, a.weth):
        for spender in (a.aave_pool, a.uniswap_router):
            answer = await trader.net.rpc.eth_call(token, b.ALLOWANCE.encode(trader.address, spender))
            found.add(b.ALLOWANCE.decode(answer)[0])
    return found


async def test_half_of_a_token_is_sold_when_its_take_profit_is_reached(floor: Floor, tmp_path: Path) -> None:
    a, start = floor.net.addresses, await floor.net.rpc.block_number()
    price = Decimal(await index_wad(floor.net)) / ETHER
    stop = (
        f"venue: uniswap, token: weth, quote: usdc, pool_fee: 0.05%, price: {price * Decimal('1.06'):.2f}, take_profit: true, "
        "size: 50%, slippage: 2%, max_slippage: 4%"
    )
    trader = await trader_with(floor, tmp_path, stop)
    await give_weth(floor, trader, 4 * ETHER)
    await arm(trader)
    before = await balance(trader, a.usdc)
    part = await fire(floor, trader, tmp_path, start, 108)
    assert (int(part["size_before"]), int(part["size_after"])) == (4 * ETHER, 2 * ETHER)
    assert await balance(trader, a.weth) == 2 * ETHER
    proceeds = Decimal(await balance(trader, a.usdc) - before) / USDC
    assert proceeds == pytest.approx(2 * price * Decimal("1.08"), rel=Decimal("0.04"))


async def test_a_trailing_stop_fires_on_the_way_back_and_cancels_its_take_profit(floor: Floor, tmp_path: Path) -> None:
    """8 % up and 7 % down again: 6 % below the best is above where it was armed, which the trigger of then was not."""
    a, start = floor.net.addresses, await floor.net.rpc.block_number()
    price = Decimal(await index_wad(floor.net)) / ETHER
    where = "venue: uniswap, token: weth, quote: usdc, pool_fee: 0.05%, group: 3, slippage: 2%, max_slippage: 4%"
    stop = (
        f"{where}, trail: 6%, start: {price:.2f}, amount: 1.5, widen: 0s, cooldown: 0s, "
        "oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 5%}}\n"
        f"    - {{id: 6, {where}, price: {price * Decimal('1.3'):.2f}, take_profit: true"
    )
    trader = await trader_with(floor, tmp_path, stop)
    await give_weth(floor, trader, 4 * ETHER)
    changes = await plan(trader)
    assert [(change.kind, change.key) for change in changes] == [("add", "stop 5"), ("add", "stop 6")]
    await perform(trader, [call for change in changes for call in change.calls])
    assert await plan(trader) == ()
    keeper = keeper_of(floor, tmp_path, "stop_loss", start)
    await keeper.start()
    try:
        await move(floor, 108)
        await move(floor, 93)
        part = await executed(keeper, "the stop")
    finally:
        await keeper.stop()
    assert (int(part["size_before"]), int(part["size_after"])) == (4 * ETHER, 5 * ETHER // 2)
    assert int(part["price"]) > price * ETHER
    module, statuses = a.stop_loss, []
    for stop_id in (5, 6):
        answer = await floor.net.rpc.eth_call(module, b.STOP_OF.encode(trader.address, stop_id))
        statuses.append(b.STOP_OF.decode(answer)[1])
    assert statuses == [2, 3]  # IStopLoss.Status: FIRED, CANCELLED


async def test_collateral_is_unwound_in_rounds_and_the_debt_is_gone(floor: Floor, tmp_path: Path) -> None:
    a, start = floor.net.addresses, await floor.net.rpc.block_number()
    price = Decimal(await index_wad(floor.net)) / ETHER
    stop = (
        f"venue: aave, token: weth, quote: usdc, pool_fee: 0.05%, price: {price * Decimal('0.95'):.2f}, slippage: 3%, "
        "max_slippage: 5%"
    )
    trader = await trader_with(floor, tmp_path, stop)
    await give_weth(floor, trader, 10 * ETHER)
    debt = int(10 * price * Decimal("0.83") / Decimal("1.5") * USDC)
    await perform(
        trader,
        [
            Call(a.weth, b.APPROVE.encode(a.aave_pool, 10 * ETHER)),
            Call(a.aave_pool, SUPPLY.encode(a.weth, 10 * ETHER, trader.address, 0)),
            Call(a.aave_pool, BORROW.encode(a.usdc, debt, 2, 0, trader.address)),
        ],
    )
    await arm(trader)
    before = await balance(trader, a.usdc)
    part = await fire(floor, trader, tmp_path, start, 94)
    assert int(part["size_after"]) == 0
    answer = await floor.net.rpc.eth_call(a.aave_pool, ACCOUNT_DATA.encode(trader.address))
    assert ACCOUNT_DATA.decode(answer)[:2] == (0, 0)
    left = Decimal(await balance(trader, a.usdc) - before) / USDC
    assert left == pytest.approx(10 * price * Decimal("0.94") - Decimal(debt) / USDC, rel=Decimal("0.1"))
    assert await balance(trader, a.weth) < 100  # units of rounding
    assert await allowances(trader) == {0}


async def test_an_option_is_closed_when_its_underlying_falls(floor: Floor, tmp_path: Path) -> None:
    net, start = floor.net, await floor.net.rpc.block_number()
    seller = person(net, net.accounts.trader2)
    index = await index_wad(net)
    _, board, _ = await strikes(seller)
    strike = min(board, key=lambda one: abs(one.price_wad - index))
    await approve(seller)
    position, _, _ = await send(seller, trade("openPosition", strike, OptionType.LONG_CALL, 20 * ETHER))
    price = Decimal(index) / ETHER
    stop = f"venue: lyra, position: {position}, price: {price * Decimal('0.96'):.2f}, slippage: 15%, max_slippage: 30%"
    trader = await trader_with(floor, tmp_path, stop)  # another's position is none of the account's
    await seller.do(net.addresses.lyra_option_token, MOVE_OPTION, seller.eoa.address, trader.address, position)
    await arm(trader)
    before = await quote_wad(seller, trader.address)
    part = await fire(floor, trader, tmp_path, start, 95)
    assert (int(part["size_before"]), int(part["size_after"])) == (20 * ETHER, 0)
    assert await positions(seller, trader.address) == []
    assert await quote_wad(seller, trader.address) > before


async def test_a_stop_changed_or_cancelled_on_chain_is_drift(floor: Floor, tmp_path: Path) -> None:
    stop = "venue: uniswap, token: weth, quote: usdc, pool_fee: 0.05%, price: 1, slippage: 2%, max_slippage: 4%"
    trader = await trader_with(floor, tmp_path, stop)
    await give_weth(floor, trader, ETHER)
    await arm(trader)
    module = floor.net.addresses.stop_loss
    await perform(trader, [Call(module, b.CANCEL_STOP.encode(STOP_ID))])
    (change,) = await plan(trader)
    assert (change.kind, change.key) == ("add", f"stop {STOP_ID}")
    stop_id, terms = b.ARM_STOP.decode_input(change.calls[0].data)
    await perform(trader, [Call(module, b.ARM_STOP.encode(stop_id, (*terms[:4], 9_000, *terms[5:])))])
    (change,) = await plan(trader)
    assert (change.kind, change.fields) == ("change", (("share", "9000", "10000"),))
