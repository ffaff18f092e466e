"""The venues work: spot swaps, lending, perps."""

from __future__ import annotations

import pytest

from contracts.devnet import Devnet
from contracts.devnet.chain import FOREVER
from contracts.devnet.tokens import ETHER, USDC
from contracts.errors import RpcError
from contracts.units import WAD
from tests.devnet.rig import Person

SWAP = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))(uint256)"
QUOTE = "quoteExactInputSingle((address,address,uint256,uint24,uint160))(uint256,uint160,uint32,uint256)"
ACCOUNT_DATA = "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)"


async def test_a_swap_pays_what_the_quoter_said(net: Devnet, trader: Person) -> None:
    where = net.addresses
    await trader.do(where.weth, "deposit()", value=10 * ETHER)
    await trader.do(where.weth, "approve(address,uint256)", where.uniswap_router, 10 * ETHER)
    quoted, *_ = await trader.ask(where.uniswap_quoter, QUOTE, (where.weth, where.usdc, 10 * ETHER, 500, 0))
    before = await trader.ask(where.usdc, "balanceOf(address)(uint256)", trader.eoa.address)
    await trader.do(
        where.uniswap_router,
        SWAP,
        (where.weth, where.usdc, 500, trader.eoa.address, FOREVER, 10 * ETHER, quoted, 0),
    )
    after = await trader.ask(where.usdc, "balanceOf(address)(uint256)", trader.eoa.address)
    assert after - before == quoted
    assert quoted == pytest.approx(1817.9 * USDC, rel=1e-3)


async def test_the_spot_pool_remembers_enough_for_a_mean_of_thirty_minutes(net: Devnet, trader: Person) -> None:
    ticks, _ = await trader.ask(net.addresses.uniswap_pool, "observe(uint32[])(int56[],uint160[])", [1800, 0])
    assert ticks[0] != ticks[1]


async def borrow(trader: Person, weth: int, usdc: int) -> None:
    """Supply `weth` wei and borrow `usdc` raw units at the variable rate."""
    where, me = trader.net.addresses, trader.eoa.address
    await trader.do(where.weth, "deposit()", value=weth)
    await trader.do(where.weth, "approve(address,uint256)", where.aave_pool, weth)
    await trader.do(where.aave_pool, "supply(address,uint256,address,uint16)", where.weth, weth, me, 0)
    await trader.do(where.aave_pool, "borrow(address,uint256,uint256,uint16,address)", where.usdc, usdc, 2, 0, me)


async def test_a_loan_is_liquidated_when_the_market_falls(net: Devnet, trader: Person) -> None:
    where, me = net.addresses, trader.eoa.address
    await borrow(trader, 100 * ETHER, 12_000 * USDC)
    *_, health = await trader.ask(where.aave_pool, ACCOUNT_DATA, me)
    assert health == pytest.approx(100 * 181.79 * 0.83 / 12_000 * WAD, rel=1e-3)
    net.market.watch_aave(me)
    quiet = await net.market.move_to(150 * WAD)
    assert [r.liquidations for r in quiet] == [()] * len(quiet)
    reports = await net.market.move_to(140 * WAD)
    (liquidation,) = reports[-1].liquidations
    assert liquidation.venue == "aave"
    assert liquidation.trader == me
    assert liquidation.notional == pytest.approx(6_000 * USDC, rel=1e-3)
    assert liquidation.size == pytest.approx(6_000 / 140 * 1.05 * ETHER, rel=1e-3)
    *_, health = await trader.ask(where.aave_pool, ACCOUNT_DATA, me)
    assert health > WAD


async def test_a_loan_of_ether_is_liquidated_when_the_market_rises(net: Devnet, trader: Person) -> None:
    where, me = net.addresses, trader.eoa.address
    await trader.do(where.usdc, "approve(address,uint256)", where.aave_pool, 20_000 * USDC)
    await trader.do(where.aave_pool, "supply(address,uint256,address,uint16)", where.usdc, 20_000 * USDC, me, 0)
    loan = (where.weth, 80 * ETHER, 2, 0, me)
    await trader.do(where.aave_pool, "borrow(address,uint256,uint256,uint16,address)", *loan)
    net.market.watch_aave(me)
    reports = await net.market.move_to(205 * WAD)
    (liquidation,) = reports[-1].liquidations
    assert liquidation.notional == pytest.approx(40 * ETHER, rel=1e-3)
    assert liquidation.size == pytest.approx(40 * 205 * 1.045 * USDC, rel=1e-3)


async def test_supply_repay_and_withdraw_come_out_even(net: Devnet, trader: Person) -> None:
    where, me = net.addresses, trader.eoa.address
    await borrow(trader, 10 * ETHER, 1_000 * USDC)
    await trader.do(where.usdc, "approve(address,uint256)", where.aave_pool, 2**256 - 1)
    await trader.do(where.aave_pool, "repay(address,uint256,uint256,address)", where.usdc, 2**256 - 1, 2, me)
    await trader.do(where.aave_pool, "withdraw(address,uint256,address)", where.weth, 2**256 - 1, me)
    assert await trader.ask(where.weth, "balanceOf(address)(uint256)", me) >= 10 * ETHER
    assert await trader.ask(where.aave_atoken_weth, "balanceOf(address)(uint256)", me) == 0


async def test_nothing_can_be_borrowed_while_the_sequencer_is_down(net: Devnet, trader: Person) -> None:
    await net.market.set_sequencer(up=False)
    with pytest.raises(RpcError, match="59"):
        await borrow(trader, 10 * ETHER, 100 * USDC)


async def test_a_perp_position_opens_halves_and_closes(trader: Person) -> None:
    await trader.deposit(10_000)
    await trader.sender.transact(*trader.order(30_000))
    opened = await trader.size_wad()
    assert opened == pytest.approx(30_000 / 181.45 * WAD, rel=5e-3)
    await trader.sender.transact(*trader.order(15_000, short=True))
    assert await trader.size_wad() == pytest.approx(opened // 2, rel=5e-3)
    await trader.sender.transact(*trader.close())
    assert await trader.size_wad() == 0
    assert await trader.account_value_wad() == pytest.approx(10_000 * WAD, rel=1e-2)


async def test_a_healthy_perp_account_cannot_be_liquidated(net: Devnet, trader: Person) -> None:
    await trader.deposit(10_000)
    await trader.sender.transact(*trader.order(30_000))
    where = net.addresses
    with pytest.raises(RpcError, match="CH_EAV"):
        await trader.do(
            where.perp_clearing_house, "liquidate(address,address)", trader.eoa.address, where.perp_base_token
        )


async def test_only_the_feeder_moves_the_feed(net: Devnet, trader: Person) -> None:
    with pytest.raises(RpcError):
        await trader.do(net.addresses.feed_eth_usd, "push(int256,uint256)", 1, 2**31)
