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
from policies.portfolio import Portfolio
from policies.venues.lyra import OptionType
from tests.devnet.lyra_rig import NO_LIMIT, Strike, strikes, trade
from tests.devnet.rig import person
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import POLICY, Trader, trader_on

OPTIONS = POLICY.replace(
    "exits:\n",
    "  - {target: lyra.quote, functions: [approve], args: {spender: lyra.option_market}}\n"
    "  - {target: lyra.option_market, functions: [openPosition, closePosition]}\n"
    "exits:\n",
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


async def order(writer: Trader, kind: OptionType, amount: int, *, collateral: int = 0) -> tuple[list[Call], Strike]:
    """Approve and open `amount` options at the money, two weeks out."""
    where = writer.net.addresses
    _, (_, _, strike, *_), _ = await strikes(person(writer.net, writer.net.accounts.trader))
    allow = Function.parse("approve(address,uint256)").encode(where.lyra_option_market, NO_LIMIT)
    opening = trade("openPosition", strike, kind, amount * WAD, collateral_wad=collateral * WAD)
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
