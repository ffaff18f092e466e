"""Perps on the real venue: makers too have positions, and what the account is worth is the sum of its parts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts.devnet import Devnet
from contracts.devnet.chain import FOREVER
from contracts.types import parse_bytes, parse_hash, to_hex
from contracts.units import WAD
from policies.portfolio import Fill
from policies.venues.perp_v2 import PerpMarket, PerpV2
from tests.devnet.rig import Person, person
from tests.policies.venues.rig import look

ADD = "addLiquidity((address,uint256,uint256,int24,int24,uint256,uint256,bool,uint256))"
REMOVE = "removeLiquidity((address,int24,int24,uint128,uint256,uint256,uint256))"
ORDER = "getOpenOrder(address,address,int24,int24)((uint128,int24,int24,uint256,int256,int256,int256,uint256,uint256))"


def adapter(net: Devnet, *, named: bool = True) -> PerpV2:
    a = net.addresses
    markets = (PerpMarket("ETH", a.perp_base_token),) if named else ()
    return PerpV2(a.perp_clearing_house, a.perp_vault, a.perp_account_balance, a.perp_exchange, markets)


async def maker_on(net: Devnet) -> tuple[Person, int, int]:
    """Somebody with 100,000 USDC of margin and a range of 20,000 vUSD below the price. Returns the range too."""
    await net.market.heartbeat()
    someone, a = person(net, net.accounts.trader), net.addresses
    await someone.deposit(100_000)
    _, tick, *_ = await someone.ask(a.perp_pool, "slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)")
    upper = tick // 200 * 200
    lower = upper - 2_000
    call = (a.perp_base_token, 0, 20_000 * WAD, lower, upper, 0, 0, False, FOREVER)
    await someone.do(a.perp_clearing_house, ADD, call)
    return someone, lower, upper


async def sells(net: Devnet, vusd: int) -> None:
    """Another trader sells, so that the maker's range buys."""
    other = person(net, net.accounts.trader2)
    await other.deposit(500_000)
    await other.sender.transact(*other.order(vusd, short=True))


async def test_liquidity_that_was_traded_against_is_a_position(chain: Devnet) -> None:
    someone, _, _ = await maker_on(chain)
    untouched = await look(chain, adapter(chain), someone.eoa.address)
    assert untouched.positions == ()
    await sells(chain, 1_500_000)
    found = await look(chain, adapter(chain), someone.eoa.address)
    assert found.missing == ()
    (position,), (margin,) = found.positions, found.margins
    assert position.asset == "ETH"
    assert position.size > Decimal("0.001")
    total = await someone.ask(
        chain.addresses.perp_account_balance,
        "getTotalPositionSize(address,address)(int256)",
        someone.eoa.address,
        chain.addresses.perp_base_token,
    )
    assert position.size == Decimal(total).scaleb(-18)
    assert await someone.size_wad() == 0, "as a taker the account has nothing"
    parts = margin.collateral + position.notional - position.entry_notional - position.pending_funding
    assert abs(parts - margin.account_value) < Decimal("0.01")
    required = abs(position.notional) * margin.maintenance_ratio
    assert margin.maintenance_requirement == pytest.approx(required, rel=Decimal("1e-9"))


async def test_removing_liquidity_leaves_the_position_and_is_no_trade(chain: Devnet) -> None:
    someone, lower, upper = await maker_on(chain)
    await sells(chain, 1_500_000)
    a = chain.addresses
    (before,) = (await look(chain, adapter(chain), someone.eoa.address)).positions
    order = await someone.ask(a.perp_order_book, ORDER, someone.eoa.address, a.perp_base_token, lower, upper)
    receipt = await someone.do(
        a.perp_clearing_house, REMOVE, (a.perp_base_token, lower, upper, order[0], 0, 0, FOREVER)
    )
    (after,) = (await look(chain, adapter(chain), someone.eoa.address)).positions
    assert await someone.size_wad() != 0, "it is a taker's position now"
    assert after.size == pytest.approx(before.size, abs=Decimal("1e-15"))
    logs = [
        (parse_bytes(log["address"]), [parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
        for log in receipt["logs"]
    ]
    assert adapter(chain).fills(logs, someone.eoa.address) == ()


async def test_a_trade_is_a_fill_of_what_the_position_changed_by(chain: Devnet) -> None:
    await chain.market.heartbeat()
    someone = person(chain, chain.accounts.trader)
    await someone.deposit(10_000)
    receipt = await someone.sender.transact(*someone.order(30_000))
    logs = [
        (parse_bytes(log["address"]), [parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
        for log in receipt["logs"]
    ]
    (fill,) = adapter(chain).fills(logs, someone.eoa.address)
    (position,) = (await look(chain, adapter(chain), someone.eoa.address)).positions
    assert isinstance(fill, Fill)
    assert fill.size == position.size > 0
    assert fill.quote + fill.fee == pytest.approx(Decimal(30_000), rel=Decimal("0.002"))


async def test_a_market_that_nobody_named_goes_by_its_base_token(chain: Devnet) -> None:
    await chain.market.heartbeat()
    someone = person(chain, chain.accounts.trader)
    await someone.deposit(10_000)
    await someone.sender.transact(*someone.order(30_000))
    found = await look(chain, adapter(chain, named=False), someone.eoa.address)
    assert found.missing == ()
    (position,) = found.positions
    assert position.asset == to_hex(chain.addresses.perp_base_token)
