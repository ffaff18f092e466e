"""The hedge of a policy file on the real Lyra and Perpetual Protocol of the devnet: armed at birth, compared, and kept by the keeper."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.eoa import TransactionSender
from contracts.errors import RpcError
from contracts.types import checksum
from policies.configuration import Wanted, differences
from policies.document import load
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import Strike, approve, send, strikes, trade
from tests.devnet.rig import Person, person
from tests.wallet.guard_rig import executed, give_weth, keeper_of, perform, settle
from tests.wallet.trading_floor import Floor, Trader, book_on, floor_in, index_wad
from wallet.configuration import read_present

POLICY = """\
schema: 1
name: hedged
version: "1"
facts: {max_price_age: 1d, max_price_deviation: 5%}
limits:
  - {id: leverage, metric: leverage, max: 9}
calls:
  - {target: usdc, functions: [approve], args: {spender: perp.vault}}
guards:
  delta_hedge:
    - id: 6
      venue: perp
      asset: ETH
      options: lyra
      spot: weth
      band: 1
      min_trade: 0.5
      max_trade: 40
      max_position: 60
      max_turnover: 200
      oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 2%}
  freeze: {guardians: [guardian], quorum: 1, solo_freeze: 30m, cooldown: 1h, thaw_delay: 10m}
  session: {key: keeper, prefund_budget: 0.5}
"""
ID = 6
ETHER, USDC = 10**18, 10**6
DEPOSIT_FOR = Function.parse("depositFor(address,address,uint256)")
OPTION_DELTA = Function.parse("delta(address,uint256)(int256)")
MOVE_OPTION = "transferFrom(address,address,uint256)"
STRIKE_AND_BOARD = f"getStrikeAndBoard(uint256)(({','.join(['uint256'] * 9)}),(uint256,uint256,uint256,bool,uint256[]))"
CACHE_PARAMETERS = f"getGreekCacheParams()(({'uint256,' * 9}int256))"


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def hedger(floor: Floor, folder: Path, salt: str = "") -> Trader:
    """An account that was born by an operation of its own, with 60,000 USDC of margin at the perp."""
    net, a = floor.net, floor.net.addresses
    trader = await floor.trader(folder, policy=POLICY, sponsored=False, salt=salt)
    deployer = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
    await deployer.transact(a.usdc, b.MINT.encode(net.accounts.deployer.address, 60_000 * USDC))
    await deployer.transact(a.usdc, b.APPROVE.encode(a.perp_vault, 60_000 * USDC))
    await deployer.transact(a.perp_vault, DEPOSIT_FOR.encode(trader.address, a.usdc, 60_000 * USDC))
    await perform(trader, [Call(a.usdc, b.APPROVE.encode(a.perp_vault, 0))])
    return trader


async def give_options(floor: Floor, to: Trader, strike: Strike, kind: OptionType, amount: int) -> None:
    """Somebody opens a position and hands it over."""
    seller = person(floor.net, floor.net.accounts.trader2)
    await approve(seller)
    collateral = {OptionType.SHORT_CALL_QUOTE: 8_000, OptionType.SHORT_PUT_QUOTE: 4_000}.get(kind, 0) * amount
    opening = trade("openPosition", strike, kind, amount * ETHER, collateral_wad=collateral * ETHER)
    position, _, _ = await send(seller, opening)
    await seller.do(floor.net.addresses.lyra_option_token, MOVE_OPTION, seller.eoa.address, to.address, position)


def nearest(board: list[Strike], index: int) -> Strike:
    """The strike of a board nearest to the price: the market trades none whose delta is far from a half."""
    return min(board, key=lambda strike: abs(strike.price_wad - index))


async def parts_of(trader: Trader) -> tuple[Decimal, Decimal, Decimal]:
    """Delta of the options, of the perp and of spot, in ETH."""
    net = trader.net
    answer = await net.rpc.eth_call(net.addresses.delta_hedge, b.DELTA_OF.encode(trader.address, ID))
    options, perp, spot, _ = b.DELTA_OF.decode(answer)
    return Decimal(options) / ETHER, Decimal(perp) / ETHER, Decimal(spot) / ETHER


async def due_of(trader: Trader) -> tuple[int, bytes]:
    net = trader.net
    answer = await net.rpc.eth_call(net.addresses.delta_hedge, b.GUARD_DUE.encode(trader.address, ID))
    status, reason = b.GUARD_DUE.decode(answer)
    return status, reason


async def test_the_keeper_hedges_options_and_spot_by_the_perp_and_again_when_the_price_moves(
    floor: Floor, tmp_path: Path
) -> None:
    net = floor.net
    start = await net.rpc.block_number()
    trader = await hedger(floor, tmp_path)
    present = await read_present(net.rpc, trader.address, book_on(net))
    assert list(present.hedges) == [ID]
    assert differences(Wanted(trader.policy, book_on(net), present, {})) == ()
    assert (await due_of(trader))[0] == b.Due.NOT_DUE
    _, (_, _, strike, *_), _ = await strikes(person(net, net.accounts.trader2))
    await give_options(floor, trader, strike, OptionType.LONG_CALL, 20)
    await give_weth(floor, trader, 3 * ETHER)
    options, perp, spot = await parts_of(trader)
    assert 7 < options < 14
    assert (perp, spot) == (0, 3)
    keeper = keeper_of(floor, tmp_path, "delta_hedge", start)
    await keeper.start()
    try:
        first = await executed(keeper, "the first hedge")
        options, perp, spot = await parts_of(trader)
        assert abs(options + perp + spot) < Decimal("0.01")
        assert Decimal(str(first["traded"])) / ETHER == pytest.approx(-(options + spot), abs=Decimal("0.01"))
        await net.market.move_to(await index_wad(net) * 112 // 100)
        await settle(floor, 30)
        second = await executed(keeper, "the second hedge", after=1)
        assert Decimal(str(second["delta_before"])) > ETHER  # the calls gained delta
        options, perp, spot = await parts_of(trader)
        assert abs(options + perp + spot) < 1
        notes = [fact for fact in keeper.facts() if fact["event"] == "fired"]
        assert {note["caller"] for note in notes} == {checksum(trader.address)}  # through its session
        assert (await due_of(trader))[0] == b.Due.NOT_DUE
        present = await read_present(net.rpc, trader.address, book_on(net))
        assert differences(Wanted(trader.policy, book_on(net), present, {})) == ()
    finally:
        await keeper.stop()


def call_delta(spot: float, strike: float, vol: float, years: float, rate: float) -> float:
    """N(d1). Source: Hull, Options, Futures, and Other Derivatives, ch. 19."""
    d1 = (math.log(spot / strike) + (rate + vol * vol / 2) * years) / (vol * math.sqrt(years))
    return math.erfc(-d1 / math.sqrt(2)) / 2


async def venue_terms(someone: Person, strike: Strike) -> tuple[float, float]:
    """Volatility of a strike and the venue's rate."""
    a = someone.net.addresses
    found = Function.parse(STRIKE_AND_BOARD)
    strike_at, board_at = found.decode(await someone.net.rpc.eth_call(a.lyra_option_market, found.encode(strike.id)))
    rates = Function.parse(CACHE_PARAMETERS)
    (params,) = rates.decode(await someone.net.rpc.eth_call(a.lyra_greek_cache, rates.encode()))
    return strike_at[2] * board_at[2] / 1e36, params[9] / 1e18


async def test_the_delta_on_chain_is_that_of_the_formula_for_every_kind_of_position(
    floor: Floor, tmp_path: Path
) -> None:
    net = floor.net
    trader = await hedger(floor, tmp_path, "kinds")
    someone = person(net, net.accounts.trader2)
    boards = await strikes(someone)
    expected = []
    index = await index_wad(net)
    for kind, board, amount in (
        (OptionType.LONG_CALL, 1, 3),
        (OptionType.LONG_PUT, 2, 5),
        (OptionType.SHORT_CALL_QUOTE, 2, 7),
        (OptionType.SHORT_PUT_QUOTE, 1, 2),
    ):
        strike = nearest(boards[board], index)
        await give_options(floor, trader, strike, kind, amount)
        expected.append((kind, strike, amount))
    block = await net.rpc.block()
    terms = [await venue_terms(someone, strike) for _, strike, _ in expected]
    for percent in (60, 85, 100, 120, 170):
        price_wad = index * percent // 100
        price = price_wad / 1e18
        data = OPTION_DELTA.encode(trader.address, price_wad)
        (found,) = OPTION_DELTA.decode(await net.rpc.eth_call(net.addresses.lyra_delta, data))
        wanted = 0.0
        for (kind, strike, amount), (vol, rate) in zip(expected, terms, strict=True):
            years = (strike.expiry_s - int(block["timestamp"], 16)) / (365 * 86_400)
            call = call_delta(price, strike.price_wad / 1e18, vol, years, rate)
            is_put = kind in (OptionType.LONG_PUT, OptionType.SHORT_PUT_QUOTE)
            is_long = kind in (OptionType.LONG_CALL, OptionType.LONG_PUT)
            wanted += (call - 1 if is_put else call) * amount * (1 if is_long else -1)
        # Seventeen options; eth_call looks a second or so after the block.
        assert found / 1e18 == pytest.approx(wanted, abs=17e-5)


async def test_a_frozen_account_and_a_perp_whose_mean_lags_are_left_alone(floor: Floor, tmp_path: Path) -> None:
    net = floor.net
    trader = await hedger(floor, tmp_path, "frozen")
    boards = await strikes(person(net, net.accounts.trader2))
    await give_options(floor, trader, nearest(boards[2], await index_wad(net)), OptionType.LONG_CALL, 10)
    await settle(floor, 30)
    assert (await due_of(trader))[0] == b.Due.DUE
    execute = b.GUARD_EXECUTE.encode(trader.address, ID)
    with pytest.raises(RpcError):  # the public waits for its delay
        await net.rpc.eth_call(net.addresses.delta_hedge, execute, sender=net.accounts.trader2.address)
    await net.rpc.eth_call(net.addresses.delta_hedge, execute, sender=trader.address)
    guardian = TransactionSender(net.rpc, net.accounts.guardian, net.chain_id)
    await guardian.transact(net.addresses.emergency_freeze, b.FREEZE.encode(trader.address, b.RiskState.REDUCE_ONLY))
    assert await due_of(trader) == (b.Due.BLOCKED, _selector("Halted(address)"))


async def test_what_the_file_changes_is_planned_by_name(floor: Floor, tmp_path: Path) -> None:
    net, book = floor.net, book_on(floor.net)
    trader = await hedger(floor, tmp_path, "planned")
    present = await read_present(net.rpc, trader.address, book)
    wider = load(POLICY.replace("band: 1", "band: 1.5"))
    found = {one.key: one for one in differences(Wanted(wider, book, present, {}))}
    assert found[f"hedge {ID}"].fields == (("band", "1", "1.5"),)
    (call,) = found[f"hedge {ID}"].calls
    assert call.target == net.addresses.delta_hedge


def _selector(error: str) -> bytes:
    return Function.parse(error).selector
