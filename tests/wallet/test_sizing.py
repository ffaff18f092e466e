"""The largest passing size on the real venue: that size passes, one tick more fails, and the record leads to the same answer."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import bindings as b
from contracts.bindings import Call
from contracts.errors import BadInput
from contracts.types import keccak
from contracts.units import to_units
from policies import Sizes
from policies.activity import record_needed_s
from tests.wallet.trading_floor import COLLATERAL, Trader, index_wad, market_on, now_s
from wallet import trading
from wallet.audit_verify import verify
from wallet.replay import bundle_of, replay
from wallet.sizing import applied, difference


async def order(trader: Trader, notional: Decimal) -> list[Call]:
    """Margin and a long of exactly so much, as the command line would build it."""
    market = market_on(trader.net)
    return trading.deposit(market, COLLATERAL * 10**6) + trading.open_perp(
        market,
        side="long",
        notional_wad=to_units(notional, 18),
        index_wad=await index_wad(trader.net),
        slippage_bps=100,
        deadline_s=await now_s(trader.net) + 600,
    )


async def refused(trader: Trader, notional: str) -> tuple[Sizes, Any]:
    judgement = await trader.signer.judge(await order(trader, Decimal(notional)))
    assert not judgement.decision.allowed
    assert judgement.decision.sizes is not None
    return judgement.decision.sizes, judgement


async def test_the_largest_size_of_a_refused_order_passes_and_one_tick_more_fails(trader: Trader) -> None:
    await trader.deploy()
    sizes, judgement = await refused(trader, "40000")
    assert sizes.requested == 40_000
    assert sizes.size is not None
    assert 30_000 < sizes.size < 31_100
    assert sizes.tick == Decimal("0.000001")
    assert sizes.exact
    assert sizes.is_interval
    passes = await trader.signer.judge(await order(trader, sizes.size), sizes=False)
    assert passes.decision.allowed, passes.decision.summary
    fails = await trader.signer.judge(await order(trader, sizes.size + sizes.tick), sizes=False)
    assert [row.id for row in fails.decision.limits if row.verdict == "deny"] == ["leverage"]
    assert sizes.simulations <= 40
    by_limit = {row.id: row.size for row in sizes.by_limit}
    assert by_limit == {"leverage": sizes.size, "slippage": Decimal(40_000)}
    assert any("largest size that passes" in line for line in judgement.decision.explain())


async def test_where_the_venue_reverts_the_size_that_it_takes_is_found(trader: Trader) -> None:
    """Twenty times the margin: the venue itself refuses at ten, the policy at 3.1."""
    sizes, judgement = await refused(trader, "200000")
    assert not judgement.facts.succeeded
    assert sizes.size is not None
    assert 30_000 < sizes.size < 31_100
    passes = await trader.signer.judge(await order(trader, sizes.size), sizes=False)
    assert passes.decision.allowed, passes.decision.summary


async def test_what_no_size_would_help_is_not_simulated_again(trader: Trader) -> None:
    theft = Call(trader.net.addresses.usdc, b.TRANSFER.encode(keccak(b"thief")[:20], 10**6))
    judgement = await trader.signer.judge([theft])
    assert not judgement.decision.allowed
    assert judgement.decision.sizes is None


async def test_what_is_allowed_is_not_simulated_again(trader: Trader) -> None:
    judgement = await trader.signer.judge(await order(trader, Decimal(20_000)))
    assert judgement.decision.allowed
    assert judgement.decision.sizes is None


async def test_a_decision_with_its_sizes_is_replayed_from_the_record_alone(trader: Trader) -> None:
    sizes, judgement = await refused(trader, "40000")
    engine = trader.signer.engine
    assert engine is not None
    bundle = bundle_of(engine.log, "0x" + judgement.decision.id.hex())
    found = replay(bundle)
    assert found.identical, found.differences
    assert found.notes == ()
    assert found.decision == judgement.decision
    assert found.decision.sizes == sizes
    assert verify(engine.log).sound


async def test_a_record_that_lacks_a_simulation_or_has_another_is_seen(trader: Trader) -> None:
    _, judgement = await refused(trader, "40000")
    engine = trader.signer.engine
    assert engine is not None
    bundle = bundle_of(engine.log, "0x" + judgement.decision.id.hex())
    lacking = copy.deepcopy(bundle)
    lacking["probes"].pop(0)
    found = replay(lacking)
    assert not found.identical
    assert any("lacks a simulation" in note for note in found.notes)
    swapped = copy.deepcopy(bundle)
    first, last = swapped["probes"][0], swapped["probes"][-1]
    first["facts"], last["facts"] = last["facts"], first["facts"]
    assert not replay(swapped).identical


async def test_a_market_that_moves_meanwhile_does_not_mix_into_the_search(trader: Trader) -> None:
    """The search stays on the block of the facts that were judged, though the chain goes on under it."""
    calls = await order(trader, Decimal(40_000))

    async def mine() -> None:
        for _ in range(20):
            await trader.net.rpc.call("evm_mine")
            await asyncio.sleep(0)

    judgement, _ = await asyncio.gather(trader.signer.judge(calls), mine())
    assert judgement.decision.sizes is not None
    assert judgement.decision.sizes.exact
    engine = trader.signer.engine
    assert engine is not None
    assert replay(bundle_of(engine.log, "1")).identical


async def test_the_facts_of_the_chain_need_no_record_for_this_policy(trader: Trader) -> None:
    assert record_needed_s(trader.policy) is None
    judgement = await trader.signer.judge(await order(trader, Decimal(20_000)))
    assert judgement.facts.history is None


_json = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("=[{ab"), inner, max_size=3),
    max_leaves=8,
)


@given(_json, _json)
def test_a_difference_applied_gives_the_other_document(old: Any, new: Any) -> None:
    assert applied(old, difference(old, new)) == new


def test_a_difference_is_as_small_as_what_changed() -> None:
    old = {"a": ["1", {"b": "2"}], "c": "3"}
    assert difference(old, old) == {}
    assert difference(old, {"a": ["1", {"b": "9"}], "c": "3"}) == {"{": {"a": {"[": {"1": {"{": {"b": {"=": "9"}}}}}}}


def test_a_bundle_of_nothing_is_named(tmp_path: Any) -> None:
    from wallet.audit import AuditLog

    log = AuditLog(tmp_path / "log.db")
    with pytest.raises(BadInput, match="no decision is recorded as 7"):
        bundle_of(log, "7")
    assert replace(Sizes("", "", Decimal(1), Decimal(1), None, (), (), 0), size=Decimal(1)).is_interval
