"""An option trade judged from the chain's own execution: positions, fills and equity after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from contracts.abi import Function
from contracts.bindings import Call
from contracts.devnet import Devnet
from contracts.rpc import RpcClient
from contracts.units import WAD
from policies.calls import decode_calls
from policies.decision import LimitRow
from policies.portfolio import Portfolio
from policies.sizing import Sized, resized, sized
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import NO_LIMIT, Strike, strikes, trade
from tests.devnet.rig import person
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import POLICY, Trader, trader_on
from wallet.sign import Judgement

OPTIONS = (
    POLICY.replace(
        "exits:\n",
        "  - {target: lyra.quote, functions: [approve], args: {spender: lyra.option_market}}\n"
        "  - {target: lyra.option_market, functions: [openPosition, closePosition]}\n"
        "exits:\n",
    )
    .replace(
        "calls:\n",
        "  - {id: delta, metric: delta, scope: 'asset: ETH', max: 40}\ncalls:\n",
    )
    .replace(
        "scope: operation, max: 1%",
        "scope: operation, max: 2%",  # the venue's own fee is 1.1 % of the index price here
    )
)
FUNDS = 500_000


@pytest.fixture
async def writer(chain: Devnet, tmp_path: Path) -> AsyncIterator[Trader]:
    """An account under a policy that lets it trade options, with sUSD and no position."""
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        found = await trader_on(chain, tmp_path, bundler=nobody, policy=OPTIONS, deposit_wei=10**18)
        giver = person(chain, chain.accounts.trader)
        await giver.do(chain.addresses.lyra_quote, "transfer(address,uint256)", found.address, FUNDS * WAD)
        yield found


async def order(
    writer: Trader, kind: OptionType, amount: int, *, collateral: int = 0, least_wad: int = 0, most_wad: int = NO_LIMIT
) -> tuple[list[Call], Strike]:
    """Approve and open `amount` options at the money, two weeks out."""
    where = writer.net.addresses
    _, (_, _, strike, *_), _ = await strikes(person(writer.net, writer.net.accounts.trader))
    allow = Function.parse("approve(address,uint256)").encode(where.lyra_option_market, NO_LIMIT)
    opening = trade(
        "openPosition",
        strike,
        kind,
        amount * WAD,
        collateral_wad=collateral * WAD,
        least_wad=least_wad,
        most_wad=most_wad,
    )
    return [Call(where.lyra_quote, allow), Call(where.lyra_option_market, opening)], strike


def susd(portfolio: Portfolio) -> Decimal:
    return next(holding.amount for holding in portfolio.holdings if holding.asset == "SUSD")


async def test_a_long_call_is_in_the_portfolio_after_and_its_fill_explains_it(writer: Trader) -> None:
    calls, strike = await order(writer, OptionType.LONG_CALL, 20)
    judgement = await writer.signer.judge(calls)
    facts = judgement.facts
    assert facts.succeeded
    assert facts.missing == ()
    assert judgement.decision.objections == ()
    (option,), (fill,) = facts.after.options, facts.fills
    assert (option.size, fill.size, option.strike) == (20, 20, strike.price_wad // WAD)
    assert fill.quote == pytest.approx(option.notional, rel=Decimal("1e-6"))
    spent = susd(facts.before) - susd(facts.after)
    assert spent == fill.quote + fill.fee
    (given,) = (a for a in facts.after.allowances if a.asset == "SUSD" and a.amount)
    assert (given.spender, given.unlimited) == (writer.net.addresses.lyra_option_market, True)


async def test_a_short_put_brings_its_collateral_and_its_requirement(writer: Trader) -> None:
    calls, strike = await order(writer, OptionType.SHORT_PUT_QUOTE, 20, collateral=40_000)
    judgement = await writer.signer.judge(calls)
    facts = judgement.facts
    assert judgement.decision.objections == ()
    (option,) = facts.after.options
    margin = next(m for m in facts.after.margins if m.venue == "lyra")
    assert (option.size, option.is_call, margin.collateral, margin.model) == (-20, False, 40_000, "lyra")
    assert 0 < margin.maintenance_requirement < margin.collateral
    assert margin.account_value == margin.collateral + option.notional
    assert strike.price_wad // WAD == option.strike


async def test_selling_without_enough_collateral_fails_and_is_denied(writer: Trader) -> None:
    calls, _ = await order(writer, OptionType.SHORT_PUT_QUOTE, 20, collateral=1_000)
    judgement = await writer.signer.judge(calls)
    assert not judgement.facts.succeeded
    assert judgement.decision.outcome == "deny"


async def test_a_position_that_cannot_be_read_is_missing_and_denies(writer: Trader) -> None:
    calls, _ = await order(writer, OptionType.LONG_CALL, 20)
    reader = writer.signer.reader
    assert reader is not None
    blind = tuple(replace(a, viewer=writer.net.addresses.usdc) if hasattr(a, "viewer") else a for a in reader.adapters)
    signer = replace(writer.signer, reader=replace(reader, adapters=blind))
    decision = (await signer.judge(calls)).decision
    assert decision.outcome == "deny"
    assert any("lyra is missing" in text for text in decision.objections)


def slippage(judgement: Judgement) -> LimitRow:
    return next(row for row in judgement.decision.limits if row.id == "slippage")


async def test_an_options_slippage_is_what_its_bound_allows_and_not_what_the_simulation_paid(writer: Trader) -> None:
    calls, _ = await order(writer, OptionType.LONG_CALL, 20)
    unbounded = await writer.signer.judge(calls)
    assert not unbounded.decision.allowed
    assert slippage(unbounded).verdict == "deny"
    assert "the order at lyra has no price bound" in slippage(unbounded).reason
    (fill,), (option,) = unbounded.facts.fills, unbounded.facts.after.options
    index = next(price.value for price in unbounded.facts.prices if price.asset == "ETH")
    paid, marked = fill.quote + fill.fee, option.notional

    async def judged(most: Decimal) -> Judgement:
        bounded, _ = await order(writer, OptionType.LONG_CALL, 20, most_wad=int(most * WAD))
        return await writer.signer.judge(bounded)

    tight = await judged(marked + 20 * index * 15 / 1_000)
    assert tight.decision.allowed, tight.decision.summary
    found = slippage(tight).after
    assert found == pytest.approx(Decimal("0.015"), abs=Decimal("1e-9"))
    (bound,) = tight.facts.orders
    assert (bound.option, bound.is_buy, bound.asset) == (option.label, True, "ETH")
    wide = await judged(marked + 20 * index * 30 / 1_000)
    assert wide.facts.fills[0].quote + wide.facts.fills[0].fee == pytest.approx(paid, rel=Decimal("1e-6"))
    assert slippage(wide).after == pytest.approx(Decimal("0.03"), abs=Decimal("1e-9"))
    assert not wide.decision.allowed


async def test_a_written_option_without_the_least_it_must_bring_is_denied(writer: Trader) -> None:
    unbounded, _ = await order(writer, OptionType.SHORT_PUT_QUOTE, 20, collateral=40_000, most_wad=0)
    refused = await writer.signer.judge(unbounded)
    assert not refused.facts.succeeded, "the bound is the venue's own: nothing may cost more than 0"
    calls, _ = await order(writer, OptionType.SHORT_PUT_QUOTE, 20, collateral=40_000)
    refused = await writer.signer.judge(calls)
    assert "the order at lyra has no price bound" in slippage(refused).reason
    (fill,) = refused.facts.fills
    least_wad = int((fill.quote - fill.fee) * WAD * 99 // 100)
    calls, _ = await order(writer, OptionType.SHORT_PUT_QUOTE, 20, collateral=40_000, least_wad=least_wad)
    passed = await writer.signer.judge(calls)
    assert passed.decision.allowed, passed.decision.summary


async def test_the_largest_size_of_a_refused_option_order_passes_and_one_tick_more_fails(writer: Trader) -> None:
    calls, _ = await order(writer, OptionType.LONG_CALL, 100, most_wad=FUNDS * WAD)
    refused = await writer.signer.judge(calls)
    sizes = refused.decision.sizes
    assert sizes is not None
    assert (sizes.unit, sizes.requested, sizes.size) == ("options", 100, None), (
        "no size makes 5,000 an option a fair bound"
    )
    (fill,) = refused.facts.fills
    most_wad = int((fill.quote + fill.fee) * WAD) * 101 // 100
    calls, _ = await order(writer, OptionType.LONG_CALL, 100, most_wad=most_wad)
    refused = await writer.signer.judge(calls)
    assert [row.id for row in refused.decision.limits if row.verdict == "deny"] == ["delta"]
    sizes = refused.decision.sizes
    assert sizes is not None
    assert sizes.size is not None
    assert sizes.exact
    size = sized(refused.facts.calls, refused.facts.book)
    assert size is not None
    for more, allowed in ((Decimal(0), True), (sizes.tick, False)):
        ticks = int((sizes.size + more) / sizes.tick)
        found = await writer.signer.judge(resized_calls(refused, size, ticks), sizes=False)
        assert found.decision.allowed is allowed, found.decision.summary


def resized_calls(judgement: Judgement, size: Sized, ticks: int) -> list[Call]:
    data = resized(judgement.op.call_data, size, ticks)
    decoded = decode_calls(judgement.facts.account, data, judgement.facts.book)
    return [Call(call.target, call.data, call.value_wei) for call in decoded.calls]
