"""Facts from the real chain, and what becomes of an order when one of them is bad."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call, RiskState
from contracts.devnet import Devnet
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.types import keccak, to_hex
from contracts.userop import intent_hash
from tests.policies.venues.test_exports import HYPERLIQUID
from tests.wallet.trading_floor import Trader, index_wad
from wallet.exports import export_files
from wallet.facts import FactsReader, adapters_of
from wallet.market import Bar, RecordedMarket, sources_of


async def open_directly(trader: Trader) -> None:
    """Give the account its position by the call the entry point would make; no bundler is needed for that."""
    await trader.deploy()
    account, rpc = trader.signer.account, trader.net.rpc
    entry_point = to_hex(account.entry_point.address)
    await rpc.call("anvil_impersonateAccount", entry_point)
    await rpc.call("anvil_setBalance", entry_point, hex(10**20))
    data = b.encode_execute(await trader.opening())
    call = {"from": entry_point, "to": to_hex(account.address), "data": to_hex(data), "gas": hex(5_000_000)}
    receipt = await rpc.wait_receipt(bytes.fromhex((await rpc.call("eth_sendTransaction", call))[2:]))
    assert receipt["status"] == "0x1"
    await rpc.call("anvil_stopImpersonatingAccount", entry_point)


async def test_the_first_order_has_portfolios_fills_and_bounds(trader: Trader) -> None:
    judgement = await trader.signer.judge(await trader.opening())
    facts = judgement.facts
    assert facts.succeeded
    assert facts.missing == ()
    assert facts.state is RiskState.ACTIVE
    assert (facts.policy_on_chain, facts.policy_epoch) == (trader.policy.policy_id, 1)
    assert facts.intent_hash == intent_hash(judgement.op)
    assert facts.before.positions == ()
    (position,), (fill,), (order,) = facts.after.positions, facts.fills, facts.orders
    assert position.size == fill.size > 0
    index = Decimal(await index_wad(trader.net)).scaleb(-18)
    assert order.is_buy
    assert order.worst_price is not None
    assert index < order.worst_price <= index * Decimal("1.01")


async def test_the_venues_own_account_value_is_the_sum_of_its_parts(trader: Trader) -> None:
    await open_directly(trader)
    assert trader.signer.reader is not None
    portfolio, _, missing = await trader.signer.reader.look(trader.signer.account)
    assert missing == ()
    (margin,), (position,) = portfolio.margins, portfolio.positions
    parts = margin.collateral + position.notional - position.entry_notional - position.pending_funding
    assert abs(parts - margin.account_value) < Decimal("0.01")


async def test_a_stale_price_denies_an_opening_and_lets_a_closing_pass(chain: Devnet, trader: Trader) -> None:
    await open_directly(trader)
    more, closing = await trader.opening("0.04", collateral=0), await trader.closing()
    assert (await trader.signer.judge(more)).decision.allowed
    await chain.rpc.call("evm_increaseTime", 3_600)
    await chain.rpc.call("evm_mine")
    refused = (await trader.signer.judge(more)).decision
    assert refused.outcome == "deny"
    assert any("s old, the policy takes 600 s" in text for text in refused.objections)
    passed = (await trader.signer.judge(closing)).decision
    assert passed.allowed
    assert passed.exit_only
    assert any("s old" in text for text in passed.warnings)


async def test_a_policy_that_is_not_the_one_in_force_allows_nothing(trader: Trader) -> None:
    await trader.deploy()
    reader, engine = trader.signer.reader, trader.signer.engine
    assert reader is not None
    assert engine is not None
    other = replace(trader.signer, engine=replace(engine, policy=replace(engine.policy, policy_id=keccak(b"other"))))
    decision = (await other.judge(await trader.opening())).decision
    assert any("another policy is in force" in text for text in decision.objections)


async def test_a_frozen_account_is_seen_as_frozen(chain: Devnet, trader: Trader) -> None:
    await open_directly(trader)
    guardian = TransactionSender(chain.rpc, chain.accounts.guardian, chain.chain_id)
    await guardian.transact(chain.addresses.emergency_freeze, b.FREEZE.encode(trader.address, int(RiskState.FROZEN)))
    judgement = await trader.signer.judge(await trader.opening("0.04", collateral=0))
    assert judgement.facts.state is RiskState.FROZEN
    assert any("FROZEN" in text for text in judgement.decision.objections)


async def test_a_venue_that_does_not_answer_is_a_missing_fact(chain: Devnet, trader: Trader) -> None:
    assert trader.signer.reader is not None
    book = {**trader.signer.reader.book, "perp.account_balance": chain.addresses.usdc}
    reader = FactsReader(adapters_of(book), book, trader.policy.policy_id)
    decision = (await replace(trader.signer, reader=reader).judge(await trader.opening())).decision
    assert decision.outcome == "deny"
    assert any("perp is missing" in text for text in decision.objections)


async def test_money_of_the_account_is_in_the_portfolio(chain: Devnet, trader: Trader) -> None:
    deployer = TransactionSender(chain.rpc, chain.accounts.deployer, chain.chain_id)
    await deployer.transact(trader.address, value=10**18)
    await deployer.transact(trader.signer.account.entry_point.address, DEPOSIT_TO.encode(trader.address), value=1)
    assert trader.signer.reader is not None
    portfolio, prices, _ = await trader.signer.reader.look(trader.signer.account)
    amounts = {asset: sum(h.amount for h in portfolio.holdings if h.asset == asset) for asset in ("USDC", "ETH")}
    assert amounts == {"USDC": 10_000, "ETH": 1}
    assert [price.asset for price in prices] == ["ETH", "USDC", "SUSD"]


def calls_on_aave(trader: Trader) -> list[Call]:
    """Supply 1,000 USDC and borrow 0.1 ETH against it."""
    a, me = trader.net.addresses, trader.address
    supply = Function.parse("supply(address,uint256,address,uint16)")
    borrow = Function.parse("borrow(address,uint256,uint256,uint16,address)")
    return [
        Call(a.usdc, b.APPROVE.encode(a.aave_pool, 1_500 * 10**6)),
        Call(a.aave_pool, supply.encode(a.usdc, 1_000 * 10**6, me, 0)),
        Call(a.aave_pool, borrow.encode(a.weth, 10**17, 2, 0, me)),
    ]


async def test_a_loan_and_an_allowance_are_in_the_portfolio_that_the_operation_leaves(trader: Trader) -> None:
    facts = (await trader.signer.judge(calls_on_aave(trader))).facts
    assert facts.succeeded, facts.revert_data
    assert facts.missing == ()
    assert (facts.before.loans, [a for a in facts.before.allowances if a.amount]) == ((), [])
    (held,), (owed,), (loan,) = facts.after.collateral, facts.after.debts, facts.after.loans
    assert (held.asset, owed.asset, owed.amount) == ("USDC", "ETH", Decimal("0.1"))
    assert held.amount == pytest.approx(Decimal(1_000), abs=Decimal("0.000002"))
    assert loan.health_factor is not None
    (left,) = (a for a in facts.after.allowances if a.amount)
    assert (left.asset, left.spender, left.amount, left.unlimited) == (
        "USDC", trader.net.addresses.aave_pool, 500, False,
    )  # fmt: skip


async def test_an_allowance_to_a_stranger_is_seen_from_the_call(trader: Trader) -> None:
    stranger = keccak(b"stranger")[:20]
    call = Call(trader.net.addresses.weth, b.APPROVE.encode(stranger, 2**256 - 1))
    (given,) = (a for a in (await trader.signer.judge([call])).facts.after.allowances if a.amount)
    assert (given.asset, given.spender, given.unlimited) == ("ETH", stranger, True)


async def test_an_allowance_that_only_an_event_shows_is_seen_too(trader: Trader) -> None:
    a, stranger = trader.net.addresses, keccak(b"stranger")[:20]
    approve = b.APPROVE.encode(stranger, 7)
    deep = Call(a.usdc, approve)
    for _ in range(10):  # deeper than decoding goes
        deep = Call(trader.address, b.encode_execute([deep]))
    facts = (await trader.signer.judge([deep])).facts
    assert facts.succeeded
    assert [call.title for call in facts.calls.calls] == ["account.execute"]
    (given,) = (a for a in facts.after.allowances if a.amount)
    assert (given.asset, given.spender, given.amount) == ("USDC", stranger, Decimal("0.000007"))


async def test_a_lost_peg_denies_an_opening(chain: Devnet, trader: Trader) -> None:
    now = int((await chain.rpc.block())["timestamp"], 16)
    feeder = TransactionSender(chain.rpc, chain.accounts.feeder, chain.chain_id)
    await feeder.transact(chain.addresses.feed_usdc_usd, Function.parse("push(int256,uint256)").encode(90_000_000, now))
    judgement = await trader.signer.judge(await trader.opening())
    assert any("has lost its peg" in text for text in judgement.decision.objections)
    states = {feed.address: feed.decimals for feed in judgement.facts.feeds}
    assert states == {chain.addresses.feed_eth_usd: 8, chain.addresses.feed_usdc_usd: 8}


async def test_an_exported_book_is_part_of_the_portfolio_while_it_is_fresh(
    chain: Devnet, trader: Trader, tmp_path: Path
) -> None:
    assert trader.signer.reader is not None
    now = int((await chain.rpc.block())["timestamp"], 16)
    file = tmp_path / "hyperliquid.json"
    body = {**HYPERLIQUID, "time": now * 1_000}
    file.write_text(json.dumps(body))
    reader = replace(trader.signer.reader, exports=export_files([("hyperliquid", file)]))
    signer = replace(trader.signer, reader=reader)
    facts = (await signer.judge(await trader.opening())).facts
    assert facts.missing == ()
    for book in (facts.before, facts.after):
        assert {"hyperliquid", "hyperliquid_sol"} <= {margin.venue for margin in book.margins}
    assert {p.asset for p in facts.prices if p.source == "hyperliquid mark"} == {"BTC", "ETH", "SOL"}
    file.write_text(json.dumps({**body, "time": (now - 1_000) * 1_000}))
    refused = await signer.judge(await trader.opening())
    assert any("exported book of hyperliquid is missing: it is" in text for text in refused.decision.objections)
    file.unlink()
    refused = await signer.judge(await trader.opening())
    assert any("cannot read" in text for text in refused.decision.objections)


def test_an_export_of_a_venue_without_a_reader_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="known are deribit"):
        export_files([("nowhere", tmp_path)])


async def test_an_engine_that_runs_on_judges_by_the_prices_that_its_file_has_now(
    trader: Trader, tmp_path: Path
) -> None:
    assert trader.signer.reader is not None
    now = int((await trader.net.rpc.block())["timestamp"], 16)
    file = tmp_path / "desk.csv"
    file.write_text(f"time,asset,price\n{now - 5},ETH,3001\n")
    market = sources_of(["desk.csv"], tmp_path)
    signer = replace(trader.signer, reader=replace(trader.signer.reader, market=market))
    agreed = await signer.judge(await trader.opening())
    assert agreed.decision.objections == ()
    file.write_text(f"time,asset,price\n{now - 5},ETH,2500\n")
    refused = await signer.judge(await trader.opening())
    assert any("sources of ETH contradict each other" in text for text in refused.decision.objections)
    file.write_text(f"time,asset,price\n{now - 5},ETH,30")
    refused = await signer.judge(await trader.opening())
    (why,) = (text for text in refused.decision.objections if "desk.csv" in text)
    assert why.startswith(f"what desk.csv says is missing: {file} ends in the middle of a line and may be half-written")


async def test_a_second_source_that_contradicts_the_feed_denies(trader: Trader) -> None:
    assert trader.signer.reader is not None
    now = int((await trader.net.rpc.block())["timestamp"], 16)
    for value, contradicts in (("3001", False), ("2500", True)):
        recorded = RecordedMarket("desk", (Bar("ETH", now - 5, Decimal(value)),))
        signer = replace(trader.signer, reader=replace(trader.signer.reader, market=(recorded,)))
        judgement = await signer.judge(await trader.opening())
        assert [p.source for p in judgement.facts.prices if p.asset == "ETH"][1:] == ["desk"]
        said = any("sources of ETH contradict each other" in text for text in judgement.decision.objections)
        assert said is contradicts
