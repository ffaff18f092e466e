"""Reorganisations, a node that is down or lies, a deposit that runs dry: the ledger stays true and readiness says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from contracts.devnet.chain import CHAIN_ID, Builder
from contracts.entrypoint import V07, V08
from contracts.errors import RpcError, SetupError
from contracts.types import checksum, to_hex
from contracts.userop import required_prefund
from tests.paymaster.rig import Chain, operation, sponsoring


async def test_a_settlement_in_a_lost_block_is_undone_and_booked_again(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = await sponsor.data(operation(await chain.account()))
        before = await sponsor.status()
        snapshot = await chain.rpc.call("evm_snapshot")
        await chain.include(op)
        assert (await sponsor.status())["held"] == 0
        await rewind(chain, snapshot)
        undone = await sponsor.status()
        await chain.build.mine(5)
        ((_, cost_wei),) = await chain.include(op)
        again = await sponsor.status()
    assert (undone["heldWei"], undone["spentWei"], undone["settled"]) == (before["heldWei"], "0", 0)
    assert (again["held"], again["spentWei"], again["settled"]) == (0, str(cost_wei), 1)


async def test_a_reorganisation_to_a_longer_chain_is_noticed(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        kept = await sponsor.data(operation(await chain.account()))
        lost = await sponsor.data(operation(await chain.account()))
        ((_, kept_wei),) = await chain.include(kept)
        await sponsor.status()
        snapshot = await chain.rpc.call("evm_snapshot")
        await chain.include(lost)
        await sponsor.status()
        await rewind(chain, snapshot)
        for _ in range(3):
            await chain.build.mine(2)
        status = await sponsor.status()
    assert (status["heldWei"], status["spentWei"]) == (str(required_prefund(lost)), str(kept_wei))


async def test_a_reorganisation_while_the_service_was_down_is_noticed(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = await sponsor.data(operation(await chain.account()))
        snapshot = await chain.rpc.call("evm_snapshot")
        await chain.include(op)
        await sponsor.status()
    await rewind(chain, snapshot)
    await chain.build.mine(3)
    async with sponsoring(chain, tmp_path) as sponsor:
        status = await sponsor.status()
    assert (status["held"], status["settled"]) == (1, 0)


async def test_a_ledger_older_than_the_whole_chain_starts_over(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        await chain.include(await sponsor.data(operation(await chain.account())))
        assert (await sponsor.status())["settled"] == 1
    async with Chain.start() as another, sponsoring(another, tmp_path) as sponsor:
        status = await sponsor.status()
    assert (status["ready"], status["settled"]) == (True, 0)


async def test_what_happened_while_the_service_was_down_is_settled_at_the_next_start(
    chain: Chain, tmp_path: Path
) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = await sponsor.data(operation(await chain.account()))
    ((_, cost_wei),) = await chain.include(op)
    for _ in range(5):
        await chain.build.mine()
    async with sponsoring(chain, tmp_path) as sponsor:
        status = await sponsor.status()
    assert (status["held"], status["spentWei"]) == (0, str(cost_wei))


async def test_an_operation_that_reverts_is_paid_and_settled_too(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        account = await chain.account()
        # Says yes to validateUserOp (whose call data is long) and reverts every short call.
        await chain.rpc.call("anvil_setCode", to_hex(account), "0x60643610600c575f5f5260205ff35b5f5ffd")
        ((_, cost_wei),) = await chain.include(await sponsor.data(operation(account)))
        status = await sponsor.status()
    assert (status["spentWei"], status["settled"]) == (str(cost_wei), 1)


async def test_without_a_node_the_service_is_up_but_not_ready(tmp_path: Path) -> None:
    async with Chain.start() as chain, sponsoring(chain, tmp_path) as sponsor, aiohttp.ClientSession() as http:
        op = operation(await chain.account())
        await chain.stop()
        status = await sponsor.status()
        async with http.get(sponsor.url + "/health") as health, http.get(sponsor.url + "/ready") as ready:
            codes = (health.status, ready.status)
        with pytest.raises(RpcError, match="cannot read the chain"):
            await sponsor.data(op)
        stub = await sponsor.stub(op)
    assert codes == (200, 503)
    assert (status["ready"], status["reasons"]) == (False, ["the node does not answer"])
    assert stub["isFinal"] is False


async def test_a_refusal_does_not_tell_where_the_node_is(tmp_path: Path) -> None:
    async with Chain.start() as chain, sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        await chain.stop()
        with pytest.raises(RpcError) as caught:
            await sponsor.data(op)
    assert chain.rpc.url.rsplit(":", 1)[1] not in str(caught.value)


async def test_a_deposit_below_the_minimum_makes_it_not_ready(tmp_path: Path) -> None:
    async with Chain.start() as chain, sponsoring(chain, tmp_path, min_deposit_wei=10**18) as sponsor:
        owner = chain.accounts.paymaster_owner
        paymaster = chain.paymasters[V07.address]
        assert (await sponsor.status())["ready"] is True
        await chain.build.send(paymaster, "withdraw(address,uint256)", owner.address, 10**20 - 10**18 + 1, sender=owner)
        low = await sponsor.status()
        await chain.build.send(paymaster, "deposit()", value=1)
        enough = await sponsor.status()
    assert low["ready"] is False
    assert checksum(paymaster) in low["reasons"][0]
    assert enough["ready"] is True


async def test_a_signer_that_the_contract_does_not_know_makes_it_not_ready(tmp_path: Path) -> None:
    async with Chain.start() as chain, sponsoring(chain, tmp_path) as sponsor:
        owner, signer = chain.accounts.paymaster_owner, chain.accounts.paymaster_signer
        await chain.build.send(
            chain.paymasters[V08.address], "setSigner(address,bool)", signer.address, False, sender=owner
        )
        status = await sponsor.status()
    assert status["ready"] is False
    assert "setSigner" in status["reasons"][0]


async def test_a_node_on_another_chain_makes_it_not_ready(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, chain_id=10) as sponsor:
        status = await sponsor.status()
    assert status["reasons"] == ["the node is not on chain 10"]


async def test_a_ledger_of_another_chain_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path):
        pass
    with pytest.raises(SetupError, match="is of chain 1337, not 10"):
        async with sponsoring(chain, tmp_path, chain_id=10):
            pass


@pytest.fixture
async def liar() -> AsyncIterator[tuple[str, dict[str, object]]]:
    """A node that answers what it is told to, by method; it stands in for broken third-party nodes only."""
    answers: dict[str, object] = {"eth_chainId": hex(CHAIN_ID)}

    async def answer(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        calls = asked if isinstance(asked, list) else [asked]
        said = [{"jsonrpc": "2.0", "id": call["id"], "result": answers.get(call["method"])} for call in calls]
        return web.json_response(said if isinstance(asked, list) else said[0])

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answers
    await runner.cleanup()


@pytest.mark.parametrize(
    "block",
    [
        None,
        "0x1",
        {},
        {"number": 5, "hash": "0x" + "00" * 32, "timestamp": "0x1"},
        {"number": "0x1", "hash": "0x1234", "timestamp": "0x1"},
        {"number": "0x1", "hash": "0x" + "00" * 32},
    ],
)
async def test_nonsense_from_the_node_is_an_error_not_a_crash(
    chain: Chain, tmp_path: Path, liar: tuple[str, dict[str, object]], block: object
) -> None:
    url, answers = liar
    answers["eth_getBlockByNumber"] = block
    async with sponsoring(chain, tmp_path, rpc_url=url, chain_id=CHAIN_ID) as sponsor:
        assert (await sponsor.status())["ready"] is False
        with pytest.raises(RpcError) as caught:
            await sponsor.data(operation(await chain.account()))
        assert "cannot read the chain" in caught.value.message


async def test_the_service_recovers_when_its_node_does(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, rpc_url="http://127.0.0.1:9") as sponsor:
        assert (await sponsor.status())["ready"] is False
    async with sponsoring(chain, tmp_path) as sponsor:
        await asyncio.gather(*(sponsor.status() for _ in range(5)))
        assert (await sponsor.status())["ready"] is True


async def rewind(chain: Chain, snapshot: str) -> None:
    """Make the chain forget everything since `snapshot`."""
    assert await chain.rpc.call("evm_revert", snapshot)
    chain.build = Builder(chain.rpc, chain.accounts, chain.build.now_s)
