"""The market driver: pools follow the index by trades, keepers come before the liquidator, runs repeat to the hash."""

from __future__ import annotations

import pytest

from contracts.devnet import Bar, Devnet, Leg, Liquidation, Moment, Phase
from contracts.errors import BadInput
from contracts.units import WAD
from tests.devnet.rig import Person, person, start_at

T0 = 1_583_992_800
E8 = 10**8


def flat(minute: int, price: float) -> Bar:
    e8 = round(price * E8)
    return Bar(T0 + 60 * minute, e8, e8, e8, e8)


async def test_pools_and_mark_follow_the_index_through_the_worst_hour(crash_bars: list[Bar]) -> None:
    bars = crash_bars[240:300]  # 10:00 to 11:00 UTC: 163 to 132
    async with start_at(bars) as net:
        async for report in net.market.replay(bars):
            assert report.index_e8 == report.bar.close
            price = report.index_e8 / E8
            assert report.perp_wad / WAD == pytest.approx(price, rel=0.001)
            assert report.spot_wad / WAD == pytest.approx(price, rel=0.0005)
            assert report.mark_wad / WAD == pytest.approx(price, rel=0.005)


async def test_a_leveraged_long_is_liquidated_on_the_way_down(crash_bars: list[Bar]) -> None:
    bars = crash_bars[240:300]
    async with start_at(bars) as net:
        trader = person(net, net.accounts.trader)
        await trader.deposit(10_000)
        await trader.sender.transact(*trader.order(60_000))
        net.market.watch_perp(trader.eoa.address)
        found = [hit async for report in net.market.replay(bars) for hit in report.liquidations]
        assert found
        assert {hit.trader for hit in found} == {trader.eoa.address}
        assert sum(hit.size for hit in found) == pytest.approx(60_000 / (bars[0].open / E8) * WAD, rel=0.01)
        assert await trader.size_wad() == 0
        assert all(hit.penalty_wad == pytest.approx(hit.notional * 0.025, rel=1e-6) for hit in found)


async def test_a_short_survives_the_same_hour(crash_bars: list[Bar]) -> None:
    bars = crash_bars[240:270]
    async with start_at(bars) as net:
        trader = person(net, net.accounts.trader)
        await trader.deposit(10_000)
        await trader.sender.transact(*trader.order(60_000, short=True))
        net.market.watch_perp(trader.eoa.address)
        assert [hit async for report in net.market.replay(bars) for hit in report.liquidations] == []
        assert await trader.account_value_wad() > 10_000 * WAD


async def test_thirty_bars_give_the_same_chain_twice(crash_bars: list[Bar]) -> None:
    heads = []
    for _ in range(2):
        async with start_at(crash_bars) as net:
            for bar in crash_bars[:30]:
                await net.market.step(bar)
            heads.append(await net.rpc.block())
    assert heads[0]["hash"] == heads[1]["hash"]
    assert heads[0]["stateRoot"] == heads[1]["stateRoot"]


async def test_what_is_sent_when_settled_comes_before_the_liquidator(net: Devnet, trader: Person) -> None:
    await trader.deposit(10_000)
    await trader.sender.transact(*trader.order(60_000))
    net.market.watch_perp(trader.eoa.address)
    sent: list[tuple[int, bytes]] = []

    async def keeper(moment: Moment) -> None:
        if moment.phase is Phase.SETTLED and moment.index_e8 < 160 * E8 and not sent:
            sent.append((moment.block, await trader.sender.send(*trader.close(), gas=3_000_000)))

    liquidations: list[Liquidation] = []
    for minute, price in enumerate((175, 168, 159, 140)):
        report = await net.market.advance(flat(minute, price), keeper)
        liquidations += report.liquidations
    ((block, tx_hash),) = sent
    receipt = await trader.sender.wait(tx_hash)
    assert int(receipt["blockNumber"], 16) == block + 1
    mined = [int((await net.rpc.block(number))["timestamp"], 16) for number in (block, block + 1)]
    assert mined == [T0 + 120 + 16, T0 + 120 + 17]
    assert liquidations == []
    assert await trader.size_wad() == 0


async def test_phases_come_in_order_with_their_times(net: Devnet) -> None:
    seen: list[tuple[Leg, Phase, int]] = []

    async def watch(moment: Moment) -> None:
        seen.append((moment.leg, moment.phase, moment.time_s - T0))

    await net.market.advance(Bar(T0, 181 * E8, 182 * E8, 178 * E8, 180 * E8), watch)
    assert seen == [
        (Leg.LOW, Phase.QUOTED, 0),
        (Leg.LOW, Phase.SETTLED, 16),
        (Leg.LOW, Phase.DONE, 16),
        (Leg.CLOSE, Phase.QUOTED, 30),
        (Leg.CLOSE, Phase.SETTLED, 46),
        (Leg.CLOSE, Phase.DONE, 46),
    ]


async def test_a_phase_that_is_not_asked_for_is_left_out(net: Devnet) -> None:
    seen: list[Phase] = []

    async def watch(moment: Moment) -> None:
        seen.append(moment.phase)

    await net.market.advance(flat(0, 181), watch, phases=(Phase.SETTLED,))
    assert seen == [Phase.SETTLED]


async def test_a_wick_within_the_fee_is_no_leg_of_its_own(net: Devnet) -> None:
    before = await net.rpc.block_number()
    report = await net.market.step(Bar(T0, 181 * E8, 181 * E8, 180_990_00000, 181 * E8))
    assert (report.first_block, report.last_block) == (before + 1, before + 2)


async def test_a_fall_that_the_perp_forbids_in_one_block_takes_two(net: Devnet) -> None:
    await net.market.step(flat(0, 181.45))
    report = await net.market.step(flat(1, 181.45 * 0.84))
    assert report.perp_wad / WAD == pytest.approx(181.45 * 0.84, rel=0.001)
    report = await net.market.step(flat(2, 181.45 * 0.60))
    assert report.perp_wad / WAD > 181.45 * 0.61
    report = await net.market.step(flat(3, 181.45 * 0.60))
    assert report.perp_wad / WAD == pytest.approx(181.45 * 0.60, rel=0.001)


async def test_the_market_moves_up_as_it_moves_down(net: Devnet) -> None:
    reports = await net.market.move_to(240 * WAD)
    assert len(reports) == 4
    assert reports[-1].perp_wad / WAD == pytest.approx(240, rel=0.001)
    assert reports[-1].spot_wad / WAD == pytest.approx(240, rel=0.0005)


async def test_the_arbitrageur_pays_for_what_it_moves(net: Devnet) -> None:
    where, arbitrageur = net.addresses, person(net, net.accounts.arbitrageur)
    me = arbitrageur.eoa.address
    before = [await arbitrageur.ask(token, "balanceOf(address)(uint256)", me) for token in (where.weth, where.usdc)]
    await net.market.move_to(170 * WAD)
    after = [await arbitrageur.ask(token, "balanceOf(address)(uint256)", me) for token in (where.weth, where.usdc)]
    assert after[0] < before[0]
    assert after[1] > before[1]
    assert await arbitrageur.size_wad() < 0


async def test_a_bar_in_the_past_is_refused(net: Devnet) -> None:
    with pytest.raises(BadInput, match="must lie after the latest block"):
        await net.market.step(flat(-60, 181.45))


async def test_the_driver_notices_that_the_chain_was_put_back(net: Devnet) -> None:
    snapshot = await net.rpc.call("evm_snapshot")
    first = [await net.market.step(flat(minute, 180 - minute)) for minute in range(3)]
    await net.rpc.call("evm_revert", snapshot)
    again = [await net.market.step(flat(minute, 180 - minute)) for minute in range(3)]
    assert [(r.mark_wad, r.spot_wad, r.last_block) for r in again] == [
        (r.mark_wad, r.spot_wad, r.last_block) for r in first
    ]


async def test_transactions_are_mined_at_once_again_after_release(net: Devnet, trader: Person) -> None:
    await net.market.step(flat(0, 181.45))
    await net.market.release()
    await trader.deposit(1_000)
    assert await trader.account_value_wad() == 1_000 * WAD
