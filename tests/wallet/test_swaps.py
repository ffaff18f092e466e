"""Swaps on the devnet's own pools: what they cost against the oracle is known, and limits on it bind."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.devnet.chain import FOREVER
from contracts.types import Address
from policies.decision import LimitRow
from policies.metrics import METRICS
from policies.policy import Scope
from policies.portfolio import Facts
from tests.devnet.rig import person
from tests.wallet.trading_floor import Trader

IN_SINGLE = Function.parse("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")
OUT_SINGLE = Function.parse("exactOutputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")
IN_PATH = Function.parse("exactInput((bytes,address,uint256,uint256,uint256))")
OUT_PATH = Function.parse("exactOutput((bytes,address,uint256,uint256,uint256))")
D = Decimal


def path(*parts: Address | int) -> bytes:
    return b"".join(part.to_bytes(3) if isinstance(part, int) else part for part in parts)


async def swapping(trader: Trader, token: Address, most: int, *calls: bytes) -> Facts:
    router = trader.net.addresses.uniswap_router
    made = [Call(token, b.APPROVE.encode(router, most)), *(Call(router, data) for data in calls)]
    facts = (await trader.signer.judge(made)).facts
    assert facts.succeeded, facts.revert_data
    assert facts.missing == ()
    return facts


def change(facts: Facts, asset: str) -> Decimal:
    def held(portfolio: object) -> Decimal:
        return sum((h.amount for h in portfolio.holdings if h.asset == asset), D(0))  # type: ignore[attr-defined]

    return held(facts.after) - held(facts.before)


async def test_an_exact_input_is_a_fill_that_the_balances_bear_out(trader: Trader) -> None:
    a = trader.net.addresses
    facts = await swapping(
        trader,
        a.usdc,
        3_000 * 10**6,
        IN_SINGLE.encode((a.usdc, a.weth, 500, trader.address, FOREVER, 3_000 * 10**6, 75 * 10**16, 0)),
    )
    (fill,), (order,) = facts.fills, facts.orders
    assert (order.asset, order.is_buy, order.worst_price) == ("ETH", True, 4_000), "0.75 ETH must come back"
    assert (fill.venue, fill.asset, fill.size) == ("uniswap", "ETH", change(facts, "ETH"))
    assert fill.quote + fill.fee == -change(facts, "USDC") == 3_000
    assert fill.fee == D("1.5")
    index = next(price.value for price in facts.prices if price.asset == "ETH")
    deviation = METRICS["price_deviation"].compute(facts, facts.after, Scope("operation")).value
    slippage = METRICS["order_slippage"].compute(replace(facts, orders=()), facts.after, Scope("operation")).value
    assert deviation == pytest.approx(abs(fill.quote / fill.size - index) / index, rel=D("1e-9"))
    assert slippage == pytest.approx((3_000 / fill.size - index) / index, rel=D("1e-9"))
    bound = METRICS["order_slippage"].compute(facts, facts.after, Scope("operation")).value
    assert bound == pytest.approx(4_000 / index - 1, rel=D("1e-9")), (
        "worse than the fill: somebody may take it before the block"
    )
    assert METRICS["order_notional"].compute(facts, facts.after, Scope("operation")).value == fill.quote


async def test_an_exact_output_and_a_sale(trader: Trader) -> None:
    a, me = trader.net.addresses, trader.address
    facts = await swapping(
        trader, a.usdc, 5_000 * 10**6, OUT_SINGLE.encode((a.usdc, a.weth, 500, me, FOREVER, 10**18, 5_000 * 10**6, 0))
    )
    (fill,) = facts.fills
    assert fill.size == 1
    assert fill.quote + fill.fee == -change(facts, "USDC")
    giver = person(trader.net, trader.net.accounts.trader)
    await giver.do(a.weth, "deposit()", value=2 * 10**18)
    await giver.do(a.weth, "transfer(address,uint256)", me, 2 * 10**18)
    sold = await swapping(
        trader, a.weth, 2 * 10**18, IN_SINGLE.encode((a.weth, a.usdc, 500, me, FOREVER, 2 * 10**18, 1, 0))
    )
    (fill,) = sold.fills
    assert (fill.asset, fill.size) == ("ETH", -2)
    assert fill.quote - fill.fee == change(sold, "USDC")


@pytest.mark.parametrize("exact_output", [False, True])
async def test_several_hops_through_the_router_are_one_fill(trader: Trader, exact_output: bool) -> None:
    """sUSD to USDC to ETH: two pools, both fees."""
    a, me = trader.net.addresses, trader.address
    giver = person(trader.net, trader.net.accounts.trader)
    await giver.do(a.lyra_quote, "transfer(address,uint256)", me, 2_000 * 10**18)
    _, _, _, _, fee, *_ = 0, 0, 0, 0, await giver.ask(a.lyra_quote_pool, "fee()(uint24)")
    fee = fee[0] if isinstance(fee, (tuple, list)) else fee
    if exact_output:
        data = OUT_PATH.encode((path(a.weth, 500, a.usdc, fee, a.lyra_quote), me, FOREVER, 10**17, 2_000 * 10**18))
    else:
        data = IN_PATH.encode((path(a.lyra_quote, fee, a.usdc, 500, a.weth), me, FOREVER, 1_000 * 10**18, 1))
    facts = await swapping(trader, a.lyra_quote, 2_000 * 10**18, data)
    (fill,) = facts.fills
    assert (fill.asset, fill.size) == ("ETH", change(facts, "ETH"))
    susd = next(price.value for price in facts.prices if price.asset == "SUSD")
    assert fill.quote + fill.fee == pytest.approx(-change(facts, "SUSD") * susd, rel=D("1e-12"))
    assert fill.fee / (fill.quote + fill.fee) == pytest.approx(
        1 - (1 - D(500) / 10**6) * (1 - D(fee) / 10**6), rel=D("1e-9")
    )


async def test_a_swap_at_a_bad_price_breaches_a_slippage_limit_and_names_its_fill(trader: Trader) -> None:
    a, me = trader.net.addresses, trader.address
    whale = person(trader.net, trader.net.accounts.trader)
    amount = 2_000_000 * 10**6
    await whale.do(a.usdc, "mint(address,uint256)", whale.eoa.address, amount)
    await whale.do(a.usdc, "approve(address,uint256)", a.uniswap_router, amount)
    swap = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))(uint256)"
    await whale.do(a.uniswap_router, swap, (a.usdc, a.weth, 500, whale.eoa.address, FOREVER, amount, 0, 0))
    least = 10**16

    async def slippage(bound: int) -> LimitRow:
        calls = [
            Call(a.usdc, b.APPROVE.encode(a.uniswap_router, 3_000 * 10**6)),
            Call(a.uniswap_router, IN_SINGLE.encode((a.usdc, a.weth, 500, me, FOREVER, 3_000 * 10**6, bound, 0))),
        ]
        decision = (await trader.signer.judge(calls)).decision
        return next(row for row in decision.limits if row.id == "slippage")

    row = await slippage(least)
    assert row.verdict == "deny"
    assert [name for name, _ in row.contributions] == ["fill uniswap:ETH", "bound uniswap:ETH"]
    unbounded = await slippage(0)
    assert (unbounded.verdict, unbounded.reason) == (
        "deny",
        "not evaluable: the order at uniswap has no price bound",
    )


async def test_what_perps_trade_on_their_own_pools_is_no_swap_of_the_account(trader: Trader) -> None:
    facts = (await trader.signer.judge(await trader.opening())).facts
    assert [fill.venue for fill in facts.fills] == ["perp"]


async def test_an_operation_that_pays_for_nothing_is_still_not_understood(trader: Trader) -> None:
    """A fill of tokens explains no loss: what was paid must have come back as something."""
    a, me = trader.net.addresses, trader.address
    facts = await swapping(
        trader, a.usdc, 3_000 * 10**6, IN_SINGLE.encode((a.usdc, a.weth, 500, me, FOREVER, 3_000 * 10**6, 1, 0))
    )
    robbed = replace(facts, after=replace(facts.after, holdings=tuple(
        replace(h, amount=D(0)) if h.asset == "ETH" else h for h in facts.after.holdings
    )))  # fmt: skip
    engine = trader.signer.engine
    assert engine is not None
    decision = engine.decide(robbed, facts.block_time_s)
    assert any("equity changes by" in text for text in decision.objections)
