"""Lyra's option market works: trades, collateral, Greeks, settlement, and its price follows the devnet's feed."""

from __future__ import annotations

import pytest

from contracts.devnet import Bar, Devnet
from contracts.devnet.chain import FOREVER
from contracts.devnet.lyra_settings import BOARDS, RATE_STALE_S, WEEK_S, strike_tick_wad, strikes_wad
from contracts.devnet.tokens import USDC
from contracts.errors import RpcError
from contracts.types import keccak
from contracts.units import WAD
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import OptionAccount, Strike, approve, net_greeks, positions, quote_wad, send, strikes, trade
from tests.devnet.rig import Person, person

SPOT = "getSpotPriceForMarket(address)(uint256)"
SETTLE_BOARD, SETTLE = "settleExpiredBoard(uint256)", "settleOptions(uint256[])"
MIN_COLLATERAL = "getMinCollateral(uint8,uint256,uint256,uint256,uint256)(uint256)"
SWAP = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))(uint256)"


async def spot_wad(trader: Person) -> int:
    where = trader.net.addresses
    found: int = await trader.ask(where.lyra_synthetix_adapter, SPOT, where.lyra_option_market)
    return found


async def min_collateral_wad(trader: Person, strike: Strike, amount_wad: int) -> int:
    """What the venue asks of a short put at the present price."""
    kind, spot = OptionType.SHORT_PUT_QUOTE, await spot_wad(trader)
    order = (kind, strike.price_wad, strike.expiry_s, spot, amount_wad)
    found: int = await trader.ask(trader.net.addresses.lyra_greek_cache, MIN_COLLATERAL, *order)
    return found


async def warp_to(net: Devnet, time_s: int, price_e8: int) -> None:
    """Let the chain's clock run to `time_s` and the market come to `price_e8` there."""
    await net.market.advance(Bar(time_s - 16, price_e8, price_e8, price_e8, price_e8))
    await net.market.release()


async def test_boards_expire_one_two_and_four_weeks_after_the_first_bar(crash_bars: list[Bar], trader: Person) -> None:
    boards = await strikes(trader)
    start_s, price_wad = crash_bars[0].timestamp_s, crash_bars[0].open * 10**10
    assert [board[0].expiry_s - start_s for board in boards] == [WEEK_S, 2 * WEEK_S, 4 * WEEK_S]
    listed = [tuple(strike.price_wad for strike in board) for board in boards]
    assert listed == [strikes_wad(board, price_wad) for board in BOARDS]
    assert all(low < price_wad < high for low, *_, high in listed)


async def test_boards_of_a_devnet_on_the_walls_clock_lie_ahead_of_it(devnet: Devnet) -> None:
    now_s = int((await devnet.rpc.block())["timestamp"], 16)
    boards = await strikes(person(devnet, devnet.accounts.trader))
    weeks = [board[0].expiry_s - now_s for board in boards]
    assert weeks == pytest.approx([WEEK_S, 2 * WEEK_S, 4 * WEEK_S], abs=3_600)


@pytest.mark.parametrize(
    ("price_wad", "tick_wad"),
    [(3_000 * WAD, 20 * WAD), (181_450_000_000_000_000_000, WAD), (WAD, WAD // 100), (100_000 * WAD, 1_000 * WAD)],
)
def test_strikes_are_distinct_multiples_of_a_round_tick(price_wad: int, tick_wad: int) -> None:
    assert strike_tick_wad(price_wad) == tick_wad
    for board in BOARDS:
        listed = strikes_wad(board, price_wad)
        assert list(listed) == sorted(set(listed))
        assert all(strike % tick_wad == 0 for strike in listed)


async def test_the_price_it_trades_at_is_the_feeds_wherever_the_market_goes(net: Devnet, trader: Person) -> None:
    assert await spot_wad(trader) == pytest.approx(181.79 * WAD, rel=1e-4)
    await net.market.move_to(150 * WAD)
    assert await spot_wad(trader) == 150 * WAD


async def test_a_feed_that_is_a_day_old_stops_trading(net: Devnet, trader: Person) -> None:
    await net.rpc.call("evm_increaseTime", RATE_STALE_S + 3_600)
    await net.rpc.call("evm_mine")
    rate_is_invalid = keccak(b"RateIsInvalid(address,uint256,bool)")[:4].hex()
    with pytest.raises(RpcError, match=rate_is_invalid):
        await spot_wad(trader)


async def test_a_long_call_opens_and_closes(trader: Person) -> None:
    await approve(trader)
    (_, _, at_the_money, _, _), *_ = await strikes(trader)
    before = await quote_wad(trader)
    position, premium, fee = await send(trader, trade("openPosition", at_the_money, OptionType.LONG_CALL, 100 * WAD))
    assert before - await quote_wad(trader) == premium + fee
    assert premium / 100 / WAD == pytest.approx(9.6, rel=0.1)
    assert [p[:4] for p in await positions(trader)] == [(position, at_the_money.id, 0, 100 * WAD)]
    held = await quote_wad(trader)
    close = trade("closePosition", at_the_money, OptionType.LONG_CALL, 100 * WAD, position=position)
    _, premium, fee = await send(trader, close)
    assert await quote_wad(trader) - held == premium - fee
    assert await positions(trader) == []


async def test_a_long_put_gains_when_the_market_falls(net: Devnet, trader: Person) -> None:
    await approve(trader)
    _, _, (_, _, at_the_money, _, _) = await strikes(trader)
    position, paid, _ = await send(trader, trade("openPosition", at_the_money, OptionType.LONG_PUT, 50 * WAD))
    await net.market.move_to(160 * WAD)
    close = trade("closePosition", at_the_money, OptionType.LONG_PUT, 50 * WAD, position=position)
    _, received, _ = await send(trader, close)
    assert received > 1.5 * paid


async def test_a_short_put_is_secured_by_its_own_quote_and_its_premium(trader: Person) -> None:
    await approve(trader)
    _, (low, *_), *_ = await strikes(trader)
    amount, collateral = 10 * WAD, 1_200 * WAD
    before = await quote_wad(trader)
    order = trade("openPosition", low, OptionType.SHORT_PUT_QUOTE, amount, collateral_wad=collateral)
    position, premium, fee = await send(trader, order)
    assert before - await quote_wad(trader) == collateral - (premium - fee)
    assert [p[2:5] for p in await positions(trader)] == [(OptionType.SHORT_PUT_QUOTE, amount, collateral)]
    held = await quote_wad(trader)
    close = trade("closePosition", low, OptionType.SHORT_PUT_QUOTE, amount, position=position)
    _, premium, fee = await send(trader, close)
    assert await quote_wad(trader) - held == collateral - premium - fee


async def test_a_short_with_less_than_the_minimum_is_refused(trader: Person) -> None:
    await approve(trader)
    _, (low, *_), *_ = await strikes(trader)
    kind, amount = OptionType.SHORT_PUT_QUOTE, 10 * WAD
    least = await min_collateral_wad(trader, low, amount)
    with pytest.raises(RpcError):
        await send(trader, trade("openPosition", low, kind, amount, collateral_wad=least - WAD))
    await send(trader, trade("openPosition", low, kind, amount, collateral_wad=least + WAD))


async def test_collateral_can_be_added_to_a_short(trader: Person) -> None:
    await approve(trader)
    _, (low, *_), *_ = await strikes(trader)
    order = trade("openPosition", low, OptionType.SHORT_PUT_QUOTE, 10 * WAD, collateral_wad=1_200 * WAD)
    position, *_ = await send(trader, order)
    await trader.do(trader.net.addresses.lyra_option_market, "addCollateral(uint256,uint256)", position, 100 * WAD)
    ((*_, collateral, _),) = await positions(trader)
    assert collateral == 1_300 * WAD


async def test_a_short_below_its_minimum_is_liquidated(net: Devnet, trader: Person) -> None:
    await approve(trader)
    *_, (low, *_) = await strikes(trader)
    collateral = await min_collateral_wad(trader, low, 20 * WAD) * 105 // 100
    order = trade("openPosition", low, OptionType.SHORT_PUT_QUOTE, 20 * WAD, collateral_wad=collateral)
    position, *_ = await send(trader, order)
    liquidator = person(net, net.accounts.trader2)
    liquidate = ("liquidatePosition(uint256,address)", position, liquidator.eoa.address)
    with pytest.raises(RpcError):
        await liquidator.do(net.addresses.lyra_option_market, *liquidate)
    await net.market.move_to(120 * WAD)
    before = await quote_wad(liquidator)
    await liquidator.do(net.addresses.lyra_option_market, *liquidate)
    assert await positions(trader) == []
    assert await quote_wad(liquidator) > before


async def test_the_global_cache_adds_up_delta_and_vega_of_what_traders_hold(trader: Person) -> None:
    await approve(trader)
    (_, _, at_the_money, _, _), *_ = await strikes(trader)
    assert await net_greeks(trader) == (0, 0)
    position, *_ = await send(trader, trade("openPosition", at_the_money, OptionType.LONG_CALL, 40 * WAD))
    delta, vega = await net_greeks(trader)
    assert delta / WAD == pytest.approx(40 * 0.53, abs=2)
    assert vega > 0
    await send(trader, trade("closePosition", at_the_money, OptionType.LONG_CALL, 40 * WAD, position=position))
    assert await net_greeks(trader) == (0, 0)


@pytest.mark.parametrize(("price_e8", "in_the_money"), [(200 * 10**8, True), (150 * 10**8, False)])
async def test_an_expired_board_settles_at_the_spot_price(
    net: Devnet, trader: Person, price_e8: int, in_the_money: bool
) -> None:
    await approve(trader)
    where = net.addresses
    (_, _, strike, _, _), *_ = await strikes(trader)
    call, *_ = await send(trader, trade("openPosition", strike, OptionType.LONG_CALL, 10 * WAD))
    put = trade("openPosition", strike, OptionType.SHORT_PUT_QUOTE, 10 * WAD, collateral_wad=1_820 * WAD)
    short, *_ = await send(trader, put)
    with pytest.raises(RpcError):
        await trader.do(where.lyra_option_market, SETTLE_BOARD, strike.board_id)
    await warp_to(net, strike.expiry_s + 20, price_e8)
    await trader.do(where.lyra_option_market, SETTLE_BOARD, strike.board_id)
    assert [board[0].board_id for board in await strikes(trader)] == [2, 3]
    before = await quote_wad(trader)
    await trader.do(where.lyra_short_collateral, SETTLE, [call, short])
    price_wad = price_e8 * 10**10
    gain = 10 * max(0, price_wad - strike.price_wad)
    loss = 10 * max(0, strike.price_wad - price_wad)
    assert (gain > 0) is in_the_money
    assert await quote_wad(trader) - before == gain + 1_820 * WAD - loss
    assert await positions(trader) == []


async def test_usdc_becomes_susd_at_par_less_the_pools_fee(trader: Person) -> None:
    where = trader.net.addresses
    await trader.do(where.usdc, "approve(address,uint256)", where.uniswap_router, 100_000 * USDC)
    before = await quote_wad(trader)
    order = (where.usdc, where.lyra_quote, 500, trader.eoa.address, FOREVER, 100_000 * USDC, 0, 0)
    await trader.do(where.uniswap_router, SWAP, order)
    assert await quote_wad(trader) - before == pytest.approx(100_000 * 0.9995 * WAD, rel=1e-3)


async def test_a_risk_account_trades_options_through_the_entry_point(trader: Person) -> None:
    account = await OptionAccount.fund(trader, 50_000 * WAD)
    (_, _, strike, _, _), *_ = await strikes(trader)
    opening = trade("openPosition", strike, OptionType.LONG_CALL, 25 * WAD)
    await account.perform(account.allowing(), account.trading(opening))
    ((position, *_, amount, _, _),) = await positions(trader, account.address)
    assert amount == 25 * WAD
    closing = trade("closePosition", strike, OptionType.LONG_CALL, 25 * WAD, position=position)
    await account.perform(account.trading(closing))
    assert await positions(trader, account.address) == []
    assert 49_000 * WAD < await quote_wad(trader, account.address) < 50_000 * WAD
