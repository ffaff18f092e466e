"""Accounts on which several engines must agree: each judges for itself, on its own node, and the chain counts them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.eoa import Eoa
from contracts.errors import BadInput, NodeError, PolicyRefused
from policies.attestation import decode_attested_envelope, decode_quorum_envelope
from tests.wallet.test_proposals import ASKING, approved, people
from tests.wallet.test_serve import TOKEN, policy_service
from tests.wallet.trading_floor import POLICY, Floor, Trader, floor_in
from wallet.proposals import propose, send
from wallet.serve import Service, listen
from wallet.services import EngineClient

ENGINES = "attestation: {engines: [engine, keeper, guardian], threshold: 2}\nexits:\n"
TWO_OF_THREE = POLICY.replace("exits:\n", ENGINES)


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


@contextlib.asynccontextmanager
async def another_engine(trader: Trader, folder: Path, key: Eoa) -> AsyncIterator[EngineClient]:
    """A policy service with a record and a key of its own."""
    service = Service(policy_service(trader, folder, key=key), TOKEN)
    runner, url = await listen(service, "127.0.0.1", 0)
    try:
        yield EngineClient(url, TOKEN)
    finally:
        service.closing.set()
        await runner.cleanup()
        service.policy.close()


NOBODY = EngineClient("http://127.0.0.1:9", TOKEN)


async def test_two_of_three_engines_let_an_operation_through_though_the_third_is_away(
    floor: Floor, tmp_path: Path
) -> None:
    trader = await floor.trader(tmp_path, policy=TWO_OF_THREE)
    async with another_engine(trader, tmp_path / "other", floor.net.accounts.keeper) as other:
        signer = replace(trader.signer, engines=(NOBODY, other))
        sent = await signer.submit(await trader.opening("2"))
        receipt = await signer.bundler.wait(sent.user_op_hash)
        assert receipt.success, receipt.reason.hex()
        envelope = decode_attested_envelope(sent.op.signature)
        engines = {floor.net.accounts.engine.address, floor.net.accounts.keeper.address}
        assert {one.engine for one in envelope.attestations} == engines


async def test_one_engine_alone_is_not_enough_and_nothing_is_reserved_here(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, policy=TWO_OF_THREE)
    before = await floor.received()
    with pytest.raises(BadInput, match="name the services of 1 more under `engines`"):
        await trader.signer.submit(await trader.opening("2"))
    away = replace(trader.signer, engines=(NOBODY,))
    with pytest.raises(NodeError, match=r"1 of 2 engines agree: the engine at http://127.0.0.1:9 gives no answer"):
        await away.submit(await trader.opening("2"))
    assert trader.signer.engine is not None
    assert [entry.kind for entry in trader.signer.engine.log.entries()].count("attestation") == 0
    assert await floor.received() == before


async def test_an_engine_that_refuses_says_why_and_a_wrong_token_is_told(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, policy=TWO_OF_THREE)
    stricter = await floor.trader(tmp_path, policy=TWO_OF_THREE.replace("max: 3.1", "max: 1.5"), salt="strict")
    async with another_engine(stricter, tmp_path / "strict", floor.net.accounts.keeper) as strict:
        with pytest.raises(PolicyRefused, match="1 of 2 engines agree"):
            await replace(trader.signer, engines=(strict,)).submit(await trader.opening("2"))
        with pytest.raises(NodeError, match="bearer token"):
            await replace(trader.signer, engines=(replace(strict, token="wrong"),)).submit(await trader.opening("2"))


async def test_a_quorum_and_several_engines_together(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, policy=ASKING.replace("exits:\n", ENGINES))
    async with another_engine(trader, tmp_path / "other", floor.net.accounts.keeper) as other:
        both = replace(trader, signer=replace(trader.signer, engines=(other,)))
        sent = await both.signer.submit(await trader.opening("1"))
        assert (await both.signer.bundler.wait(sent.user_op_hash)).success
        proposal, _ = await propose(both.signer, await trader.opening("1.9", collateral=0), "more")
        sent = await send(both.signer, await approved(both, proposal, people(floor)[:2]))
        receipt = await both.signer.bundler.wait(sent.user_op_hash)
        assert receipt.success, receipt.reason.hex()
        assert len(decode_quorum_envelope(sent.op.signature).attested.attestations) == 2
