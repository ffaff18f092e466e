"""The health guard of a policy file on the real Aave and Uniswap of the devnet: armed at birth, compared, and fired by the keeper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.errors import BadInput
from contracts.types import checksum
from policies.configuration import Wanted, differences
from policies.document import load
from policies.guards import health_config
from tests.wallet.guard_rig import executed, give_weth, keeper_of, perform
from tests.wallet.trading_floor import Floor, Trader, book_on, floor_in, index_wad
from wallet.configuration import read_present

GUARD = """\
    - id: 3
      venue: aave
      collateral: weth
      debt: usdc
      floor: 1.25
      target: 1.5
      max_repay: 500
      max_unwind: 6
      pool_fee: 0.05%
      oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 3%}
"""
POLICY = f"""\
schema: 1
name: borrower
version: "1"
facts: {{max_price_age: 1d, max_price_deviation: 5%}}
limits:
  - {{id: health, metric: health_factor, min: 1.3}}
calls:
  - {{target: weth, functions: [approve], args: {{spender: aave.pool}}}}
  - {{target: aave.pool, functions: [supply, borrow], args: {{onBehalfOf: account}}}}
guards:
  health:
{GUARD}  freeze: {{guardians: [guardian], quorum: 1, solo_freeze: 30m, cooldown: 1h, thaw_delay: 10m}}
  session: {{key: keeper, prefund_budget: 0.5}}
"""
SUPPLY = Function.parse("supply(address,uint256,address,uint16)")
BORROW = Function.parse("borrow(address,uint256,uint256,uint16,address)")
ACCOUNT_DATA = Function.parse("getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)")
ETHER = 10**18


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def borrower(floor: Floor, folder: Path, *, health: str = "1.35") -> Trader:
    """10 ETH of collateral, and as much USDC borrowed as leaves that health factor."""
    trader, a = await floor.trader(folder, policy=POLICY, sponsored=False), floor.net.addresses
    await give_weth(floor, trader, 10 * ETHER)
    price = Decimal(await index_wad(floor.net)) / ETHER
    debt = int(10 * price * Decimal("0.83") / Decimal(health) * 10**6)
    calls = [
        Call(a.weth, b.APPROVE.encode(a.aave_pool, 10 * ETHER)),
        Call(a.aave_pool, SUPPLY.encode(a.weth, 10 * ETHER, trader.address, 0)),
        Call(a.aave_pool, BORROW.encode(a.usdc, debt, 2, 0, trader.address)),
    ]
    await perform(trader, calls)
    return trader


async def health_of(trader: Trader) -> Decimal:
    net = trader.net
    answer = await net.rpc.eth_call(net.addresses.aave_pool, ACCOUNT_DATA.encode(trader.address))
    return Decimal(ACCOUNT_DATA.decode(answer)[5]) / ETHER


async def test_when_the_price_falls_the_keeper_has_the_account_repay_and_unwind_on_the_real_venues(
    floor: Floor, tmp_path: Path
) -> None:
    net = floor.net
    start = await net.rpc.block_number()
    trader = await borrower(floor, tmp_path)
    present = await read_present(net.rpc, trader.address, book_on(net))
    assert list(present.healths) == [3]
    assert differences(Wanted(trader.policy, book_on(net), present, {})) == ()
    keeper = keeper_of(floor, tmp_path, "health_guard", start)
    await keeper.start()
    try:
        before = await health_of(trader)
        assert Decimal("1.34") < before < Decimal("1.36")
        price = await index_wad(net)
        await net.market.move_to(price * 90 // 100)
        await net.market.release()
        part = await executed(keeper, "the rescue")
        after = await health_of(trader)
        assert Decimal("1.45") < after <= Decimal("1.515")
        assert int(str(part["repaid"])) == 500 * 10**6
        assert int(str(part["unwound"])) > 0
        assert int(str(part["supplied"])) == 0
        assert Decimal(str(part["factor_before"])) / ETHER < Decimal("1.25")
        (note,) = [fact for fact in keeper.facts() if fact["event"] == "fired"]
        # Through its session, so that the account itself was the caller.
        assert note["caller"] == checksum(trader.address)
        await asyncio.sleep(0)
        status = b.GUARD_DUE.decode(
            await net.rpc.eth_call(net.addresses.health_guard, b.GUARD_DUE.encode(trader.address, 3))
        )
        assert status[0] == b.Due.NOT_DUE
        present = await read_present(net.rpc, trader.address, book_on(net))
        assert differences(Wanted(trader.policy, book_on(net), present, {})) == ()
        for token in (net.addresses.usdc, net.addresses.weth):
            for spender in (net.addresses.aave_pool, net.addresses.uniswap_router):
                left = await net.rpc.eth_call(token, b.ALLOWANCE.encode(trader.address, spender))
                assert b.ALLOWANCE.decode(left) == (0,)
    finally:
        await keeper.stop()


async def test_nobody_can_fire_it_while_the_account_is_healthy(floor: Floor, tmp_path: Path) -> None:
    trader = await borrower(floor, tmp_path, health="1.4")
    from contracts.errors import RpcError

    outsider = floor.net.accounts.trader2.address
    data = b.GUARD_EXECUTE.encode(trader.address, 3)
    with pytest.raises(RpcError):
        await floor.net.rpc.eth_call(floor.net.addresses.health_guard, data, sender=outsider)


def test_a_file_becomes_the_struct_of_the_module_and_caps_are_rounded_down() -> None:
    book = {name: name.encode().rjust(20, b"\0")[-20:] for name in _NAMES}
    policy = load(POLICY.replace("max_repay: 500", "max_repay: 500.0000009"))
    (rule,) = policy.healths
    fields = health_config(rule, policy, book, 0)
    assert fields[:5] == (
        book["seawall.aave_adapter"], book["weth"], book["usdc"], book["seawall.uniswap_adapter"], 500,
    )  # fmt: skip
    assert fields[5:11] == (125 * 10**16, 15 * 10**17, 100, 500 * 10**6, 0, 6 * ETHER)
    assert fields[-2] == 0
    only_repaying = load(POLICY.replace("      max_unwind: 6\n", "").replace(_ORACLE, ""))
    fields = health_config(only_repaying.healths[0], only_repaying, book, 0)
    assert fields[3] == bytes(20)
    assert fields[-1] == (bytes(20), 0, bytes(20), 0, 0, 0, 0, 0)


_ORACLE = "      oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 3%}\n"
_NAMES = ("seawall.aave_adapter", "seawall.uniswap_adapter", "weth", "usdc", "feed.eth")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (("floor: 1.25", "floor: 1"), "must be above 1"),
        (("target: 1.5", "target: 1.25"), "must be above the floor"),
        (("      max_repay: 500\n      max_unwind: 6\n", ""), "it may do nothing"),
        ((_ORACLE, ""), "a sale needs a guarded price"),
        (("debt: usdc", "debt: weth"), "the same token"),
        (("collateral: weth", "collateral: treasury"), "decimals of 'treasury'"),
        (("max_repay: 500", "max_repay: -1"), "must not be negative"),
        (("pool_fee: 0.05%", "pool_fee: 0.05%\n      max_slippage: 60%"), "to 50%"),
        (("venue: aave", "venue: compound"), "aave"),
    ],
)
def test_a_guard_that_could_not_work_is_refused(wrong: tuple[str, str], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        load(POLICY.replace(*wrong))
