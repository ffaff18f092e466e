"""The signing path from calls to the chain: what the policy allows arrives, what it denies leaves no trace anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.bindings import Call
from contracts.errors import BadInput, NodeUnreachable, PolicyRefused, RpcError
from contracts.rpc import RpcClient
from contracts.types import keccak
from contracts.userop import required_prefund
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import POLICY, Floor, Trader, floor_in, index_wad, now_s, on_lane
from wallet.audit import AuditLog
from wallet.services import BundlerClient


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def opened(floor: Floor, folder: Path) -> Trader:
    """A trader whose first operation has made the account and opened a long of 3x."""
    trader = await floor.trader(folder)
    sent = await trader.signer.submit(await trader.opening())
    receipt = await trader.signer.bundler.wait(sent.user_op_hash)
    assert receipt.success, receipt.reason.hex()
    return trader


async def test_the_first_operation_makes_the_account_opens_and_arms_and_the_sponsor_pays(
    floor: Floor, tmp_path: Path
) -> None:
    trader = await floor.trader(tmp_path)
    assert not await trader.signer.account.deployed()
    sent = await trader.signer.submit(await trader.opening())
    receipt = await trader.signer.bundler.wait(sent.user_op_hash)
    assert receipt.success
    assert receipt.sponsored
    assert sent.decision is not None
    assert sent.decision.allowed
    stop = await floor.net.rpc.eth_call(floor.net.addresses.stop_loss, b.STOP_OF.encode(trader.address, 1))
    fields, status, *_ = b.STOP_OF.decode(stop)
    assert status == 1
    assert fields[3] == await index_wad(floor.net) * 88 // 100
    assert trader.signer.reader is not None
    portfolio, _, missing = await trader.signer.reader.look(trader.signer.account)
    assert not missing
    assert 29_000 < portfolio.positions[0].notional < 31_000


async def test_the_facts_say_who_will_sign(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    judgement = await trader.signer.judge(await trader.opening())
    assert trader.signer.owner is not None
    assert judgement.facts.signer == trader.signer.owner.address
    unknown = replace(trader.signer, owner=None)
    assert (await unknown.judge(await trader.opening())).facts.signer is None


async def test_an_account_can_pay_for_itself(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, sponsored=False)
    sent = await trader.signer.submit(await trader.opening("2"))
    receipt = await trader.signer.bundler.wait(sent.user_op_hash)
    assert receipt.success
    assert not receipt.sponsored


async def test_a_refused_order_is_signed_by_nobody_and_never_reaches_the_bundler(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    before = await floor.received()
    with pytest.raises(PolicyRefused, match="leverage") as refused:
        await trader.signer.submit(await trader.opening("4"))
    assert await floor.received() == before
    assert refused.value.exit_code == 5
    assert refused.value.data["outcome"] == "deny"
    assert trader.signer.engine is not None
    assert [entry.kind for entry in trader.signer.engine.log.entries()] == ["decision"]


async def test_a_call_that_no_rule_allows_is_refused(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    theft = Call(floor.net.addresses.usdc, b.TRANSFER.encode(keccak(b"thief")[:20], 1))
    with pytest.raises(PolicyRefused, match=r"nothing allows the call usdc\.transfer"):
        await trader.signer.submit([theft])


async def test_a_reverting_operation_is_refused_with_its_reason(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    with pytest.raises(PolicyRefused, match="reverts when simulated"):
        await trader.signer.submit(await trader.opening(collateral=20_000))


async def test_the_sponsorship_budget_binds_once_the_gas_is_known(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, policy=POLICY.replace("per_operation: 0.05", "per_operation: 0.0000001"))
    before = await floor.received()
    with pytest.raises(PolicyRefused, match="sponsoring it may cost"):
        await trader.signer.submit(await trader.opening())
    assert await floor.received() == before


async def test_the_daily_budget_counts_what_was_attested_before(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    sent = await trader.signer.submit(await trader.opening("2"))
    await trader.signer.bundler.wait(sent.user_op_hash)
    engine, cost = trader.signer.engine, required_prefund(sent.op)
    assert engine is not None
    now = await now_s(floor.net)
    assert engine.sponsored_today(trader.address, now) == cost
    assert engine.sponsored_today(trader.address, now + 86_400) == 0
    budget = replace(engine.policy.sponsorship, per_day_wei=cost + 1)
    tight = replace(trader.signer, engine=replace(engine, policy=replace(engine.policy, sponsorship=budget)))
    with pytest.raises(PolicyRefused, match="today's cost"):
        await tight.submit(await trader.closing())


async def test_of_two_operations_judged_apart_on_two_lanes_one_is_denied(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    await trader.deploy()
    first, second = trader.signer, on_lane(trader.signer, 1)
    half = await trader.opening("2", collateral=5_000)
    judged = [await first.judge(half), await second.judge(half)]
    assert [judgement.decision.outcome for judgement in judged] == ["allow", "allow"], "each alone is inside"
    assert judged[0].op.nonce != judged[1].op.nonce
    outcomes = await asyncio.gather(first.complete(judged[0]), second.complete(judged[1]), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["PolicyRefused", "Sent"]


async def test_an_outstanding_attestation_denies_the_next_judgement_on_another_lane(
    floor: Floor, tmp_path: Path
) -> None:
    trader = await floor.trader(tmp_path)
    calls = await trader.opening("2")
    judgement = await trader.signer.judge(calls)
    engine = trader.signer.engine
    assert engine is not None
    engine.attest(
        judgement.decision,
        judgement.op,
        entry_point=trader.signer.account.entry_point.address,
        signable_hash=keccak(b"final"),
        epoch=1,
        now_s=judgement.now_s,
    )
    second = await on_lane(trader.signer, 1).judge(calls)
    assert not second.decision.allowed
    assert "together they were never judged" in second.decision.summary
    assert (await trader.signer.judge(calls)).decision.allowed, "the same nonce: only one of both can be included"


async def test_an_attestation_dies_with_a_new_policy(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    await trader.deploy()
    engine = trader.signer.engine
    assert engine is not None
    judged = await trader.signer.judge(await trader.opening("2"))
    change = Call(floor.net.addresses.risk_validator, b.SET_POLICY.encode(keccak(b"another policy")))
    other_log = AuditLog(tmp_path / "other.db")
    other_lane = replace(on_lane(trader.signer, 1), engine=replace(engine, log=other_log))
    sent = await other_lane.submit([change])
    assert (await trader.signer.bundler.wait(sent.user_op_hash)).success
    with pytest.raises(RpcError, match="AA2"):
        await trader.signer.complete(judged)
    with pytest.raises(PolicyRefused, match="another policy is in force"):
        await trader.signer.submit(await trader.opening("2"))


async def test_a_closing_is_judged_as_an_exit_and_arrives(floor: Floor, tmp_path: Path) -> None:
    trader = await opened(floor, tmp_path)
    sent = await trader.signer.submit(await trader.closing())
    assert sent.decision is not None
    assert sent.decision.exit_only
    assert (await trader.signer.bundler.wait(sent.user_op_hash)).success
    assert trader.signer.reader is not None
    portfolio, _, _ = await trader.signer.reader.look(trader.signer.account)
    assert portfolio.positions == ()


async def test_an_operation_has_gas_for_what_the_venue_settles_by_time_until_its_block(
    floor: Floor, tmp_path: Path
) -> None:
    trader = await opened(floor, tmp_path)
    calls = await trader.closing()
    await floor.net.rpc.call("evm_increaseTime", 60)  # the next block's, not the latest's on which gas is estimated
    sent = await trader.signer.submit(calls)
    assert (await trader.signer.bundler.wait(sent.user_op_hash)).success


async def test_a_bundler_that_is_down_is_said_so_after_the_judgement(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, sponsored=False)
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        signer = replace(trader.signer, bundler=BundlerClient(nobody, trader.signer.bundler.entry_point))
        with pytest.raises(NodeUnreachable):
            await signer.submit(await trader.opening())
        assert (await signer.judge(await trader.opening())).decision.allowed


async def test_a_node_that_is_down_is_said_so_before_anything_is_judged(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    calls = await trader.opening()
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        signer = replace(trader.signer, account=replace(trader.signer.account, rpc=nobody))
        with pytest.raises(NodeUnreachable):
            await signer.submit(calls)
    assert trader.signer.engine is not None
    assert trader.signer.engine.log.entries() == []


async def test_without_keys_it_judges_and_signs_nothing(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    engine = trader.signer.engine
    assert engine is not None
    keyless = replace(trader.signer, owner=None, engine=replace(engine, key=None))
    assert (await keyless.judge(await trader.opening())).decision.allowed
    with pytest.raises(BadInput, match="no key"):
        await keyless.submit(await trader.opening())


async def test_a_node_that_lags_behind_the_clock_is_found(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path)
    at_s = int((await floor.net.rpc.block())["timestamp"], 16) + 3_600
    late = replace(trader.signer, clock=lambda: at_s)
    with pytest.raises(PolicyRefused, match="the newest block is 3600 s old"):
        await late.submit(await trader.opening())
