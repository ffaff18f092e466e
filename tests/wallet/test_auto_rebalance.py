"""The basket of a policy file on the real Uniswap of the devnet: armed at birth, compared, and rebalanced by the keeper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.devnet.uniswap_v3 import MINT_POSITION, sqrt_price_x96, ticks_around
from contracts.eoa import TransactionSender
from contracts.errors import RpcError
from contracts.types import checksum, parse_bytes, parse_hash
from policies.configuration import Wanted, differences
from policies.document import load
from tests.wallet.guard_rig import WETH_DEPOSIT, executed, give_weth, keeper_of, perform, settle
from tests.wallet.trading_floor import Floor, Trader, book_on, floor_in, index_wad, now_s
from wallet.configuration import read_present

POLICY = """\
schema: 1
name: balanced
version: "1"
facts: {max_price_age: 1d, max_price_deviation: 5%}
limits:
  - {id: leverage, metric: leverage, max: 1.1}
calls:
  - {target: usdc, functions: [approve], args: {spender: uniswap.router}}
guards:
  rebalance:
    - id: 5
      venue: uniswap
      cash: usdc
      cash_band: 5%
      cash_oracle: {feed: feed.usdc, heartbeat: 1d}
      assets:
        - token: weth
          weight: 50%
          band: 5%
          pool_fees: [0.3%, 0.05%]
          oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 2%}
      min_trade: 100
      max_turnover: 50000
      refund_cap: 0.01
  freeze: {guardians: [guardian], quorum: 1, solo_freeze: 30m, cooldown: 1h, thaw_delay: 10m}
  session: {key: keeper, prefund_budget: 0.5}
"""
ETHER, USDC = 10**18, 10**6
CREATE_POOL = Function.parse("createPool(address,address,uint24)")
GET_POOL = Function.parse("getPool(address,address,uint24)(address)")
INITIALIZE = Function.parse("initialize(uint160)")
MORE_OBSERVATIONS = Function.parse("increaseObservationCardinalityNext(uint16)")
MINT = Function.parse(MINT_POSITION)
DEARER_FEE = 3000
BALANCE_OF = Function.parse("balanceOf(address)(uint256)")


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def balanced(floor: Floor, folder: Path) -> Trader:
    """10,000 USDC and as much in WETH, in an account that was born by an operation of its own."""
    trader, a = await floor.trader(folder, policy=POLICY, sponsored=False), floor.net.addresses
    weth = 10_000 * ETHER * ETHER // await index_wad(floor.net)
    await give_weth(floor, trader, weth)
    await perform(trader, [Call(a.usdc, b.APPROVE.encode(a.uniswap_router, 0))])
    return trader


async def dearer_pool(floor: Floor, price_wad: int) -> None:
    """A second pool of WETH and USDC at `price_wad`, with a fee of 0.3 %."""
    net, a = floor.net, floor.net.addresses
    sender = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
    amounts = {a.weth: 1_000 * ETHER, a.usdc: 1_000 * price_wad * USDC // ETHER}
    token0, token1 = sorted(amounts)
    root = sqrt_price_x96(amounts[token1], amounts[token0])
    await sender.transact(a.uniswap_factory, CREATE_POOL.encode(a.weth, a.usdc, DEARER_FEE))
    (pool,) = GET_POOL.decode(await net.rpc.eth_call(a.uniswap_factory, GET_POOL.encode(a.weth, a.usdc, DEARER_FEE)))
    await sender.transact(pool, INITIALIZE.encode(root))
    await sender.transact(pool, MORE_OBSERVATIONS.encode(50))
    await sender.transact(a.weth, WETH_DEPOSIT.encode(), value=amounts[a.weth])
    await sender.transact(a.usdc, b.MINT.encode(net.accounts.deployer.address, amounts[a.usdc]))
    for token, amount in amounts.items():
        await sender.transact(token, b.APPROVE.encode(a.uniswap_position_manager, amount))
    lower, upper = ticks_around(root, DEARER_FEE, 19_980)
    position = (
        token0, token1, DEARER_FEE, lower, upper, amounts[token0], amounts[token1], 0, 0, net.accounts.deployer.address,
        await now_s(net) + 86_400,
    )  # fmt: skip
    await sender.transact(a.uniswap_position_manager, MINT.encode(position))


async def due_of(trader: Trader) -> tuple[int, bytes]:
    net = trader.net
    answer = await net.rpc.eth_call(net.addresses.auto_rebalance, b.GUARD_DUE.encode(trader.address, 5))
    status, reason = b.GUARD_DUE.decode(answer)
    return status, reason


async def values_of(trader: Trader) -> tuple[Decimal, Decimal]:
    """Of the WETH and of the cash, in dollars."""
    net = trader.net
    answer = await net.rpc.eth_call(net.addresses.auto_rebalance, b.BASKET_VALUES.encode(trader.address, 5))
    weth, cash = b.BASKET_VALUES.decode(answer)[0]
    return Decimal(weth) / ETHER, Decimal(cash) / ETHER


async def test_when_the_price_rises_the_keeper_sells_down_to_the_weight_in_the_pool_that_pays_best(
    floor: Floor, tmp_path: Path
) -> None:
    net, a = floor.net, floor.net.addresses
    start = await net.rpc.block_number()
    trader = await balanced(floor, tmp_path)
    present = await read_present(net.rpc, trader.address, book_on(net))
    assert list(present.baskets) == [5]
    assert differences(Wanted(trader.policy, book_on(net), present, {})) == ()
    assert (await due_of(trader))[0] == b.Due.NOT_DUE
    higher = await index_wad(net) * 130 // 100
    await dearer_pool(floor, higher)
    keeper = keeper_of(floor, tmp_path, "auto_rebalance", start)
    await keeper.start()
    try:
        await net.market.move_to(higher)
        await settle(floor, 70)
        part = await executed(keeper, "the rebalance")
        weth, cash = await values_of(trader)
        assert Decimal("0.495") < weth / (weth + cash) < Decimal("0.505")
        before, after = Decimal(str(part["equity_before"])), Decimal(str(part["equity_after"]))
        turnover = Decimal(str(part["turnover"]))
        assert Decimal(1_400) * ETHER < turnover < Decimal(1_600) * ETHER
        assert before - after <= turnover / 100
        assert part["limited"] == "false"
        (note,) = [fact for fact in keeper.facts() if fact["event"] == "fired"]
        assert note["caller"] == checksum(trader.address)  # through its session
        logs = await net.rpc.logs(a.auto_rebalance, [b.TRADED.topic, bytes(12) + trader.address], start, "latest")
        (log,) = [
            b.TRADED.decode([parse_hash(t) for t in log["topics"]], parse_bytes(log["data"], "log")) for log in logs
        ]
        assert log[2:6] == (a.weth, a.usdc, a.uniswap_route_adapter, 500)
        assert (await due_of(trader))[0] == b.Due.NOT_DUE
        left = await net.rpc.eth_call(a.weth, b.ALLOWANCE.encode(trader.address, a.uniswap_router))
        assert b.ALLOWANCE.decode(left) == (0,)
        present = await read_present(net.rpc, trader.address, book_on(net))
        assert differences(Wanted(trader.policy, book_on(net), present, {})) == ()
    finally:
        await keeper.stop()


async def test_nobody_rebalances_inside_the_bands_or_while_the_pool_s_mean_lags_the_feed(
    floor: Floor, tmp_path: Path
) -> None:
    net = floor.net
    trader = await balanced(floor, tmp_path)
    execute = b.GUARD_EXECUTE.encode(trader.address, 5)
    with pytest.raises(RpcError):
        await net.rpc.eth_call(net.addresses.auto_rebalance, execute, sender=trader.address)
    await net.market.move_to(await index_wad(net) * 72 // 100)
    status, reason = await due_of(trader)
    assert (status, reason) == (b.Due.BLOCKED, _selector("Deviation(address,uint256)"))
    await settle(floor, 70)
    assert (await due_of(trader))[0] == b.Due.DUE
    with pytest.raises(RpcError):  # the public waits for its delay
        await net.rpc.eth_call(net.addresses.auto_rebalance, execute, sender=net.accounts.trader2.address)
    await net.rpc.eth_call(net.addresses.auto_rebalance, execute, sender=trader.address)


async def test_a_frozen_account_is_not_rebalanced(floor: Floor, tmp_path: Path) -> None:
    net = floor.net
    trader = await balanced(floor, tmp_path)
    guardian = TransactionSender(net.rpc, net.accounts.guardian, net.chain_id)
    await guardian.transact(net.addresses.emergency_freeze, b.FREEZE.encode(trader.address, b.RiskState.REDUCE_ONLY))
    await net.market.move_to(await index_wad(net) * 130 // 100)
    await settle(floor, 70)
    assert await due_of(trader) == (b.Due.BLOCKED, _selector("Halted(address)"))


async def test_what_the_file_changes_is_planned_by_name_and_what_it_drops_is_cancelled(
    floor: Floor, tmp_path: Path
) -> None:
    net, book = floor.net, book_on(floor.net)
    trader = await balanced(floor, tmp_path)
    present = await read_present(net.rpc, trader.address, book)
    wider = load(POLICY.replace("band: 5%\n          pool", "band: 7.5%\n          pool"))
    (_, change) = sorted(differences(Wanted(wider, book, present, {})), key=lambda one: one.key == "basket 5")
    assert change.key == "basket 5"
    weth = f"weth {checksum(net.addresses.weth)}"
    assert change.fields == ((f"weight of {weth}", "5000 bps, band 500 bps", "5000 bps, band 750 bps"),)
    (call,) = change.calls
    assert call.target == net.addresses.auto_rebalance
    other = load(POLICY.replace("id: 5", "id: 6"))
    found = {one.key: one for one in differences(Wanted(other, book, present, {}))}
    assert found["basket 6"].kind == "add"
    assert found["basket 5"].kind == "remove"
    (cancel,) = found["basket 5"].calls
    assert cancel.data == b.CANCEL_STOP.encode(5)


def _selector(error: str) -> bytes:
    return Function.parse(error).selector
