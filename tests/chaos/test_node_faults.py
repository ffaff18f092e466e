"""A node that answers late, never, half, wrongly or of yesterday: no promise is broken, and no request hangs."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bundler import service
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V08
from contracts.errors import RpcError, SetupError
from contracts.types import Address, parse_bytes, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import GWEI, Chain, Client, SimpleAccount, serving, settings_for, until, with_limits
from tests.chaos.fault_proxy import FaultProxy, Faults

pytestmark = pytest.mark.chaos


@pytest.fixture
async def chain(saved_chain: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    async with Chain.start(*saved_chain) as started:
        yield started


@pytest.fixture
async def proxy(chain: Chain) -> AsyncIterator[FaultProxy]:
    async with FaultProxy.start(chain.anvil.url) as started:
        yield started


@pytest.fixture
async def client(chain: Chain, proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[Client]:
    """A bundler that knows the node only through the proxy."""
    settings = settings_for(chain, tmp_path, rpc_url=proxy.url, request_timeout_s=3.0)
    async with serving(settings) as serving_client:
        yield serving_client


def dearer(account: SimpleAccount, op: UserOperation) -> UserOperation:
    """Its replacement."""
    return account.sign(op.replace(max_fee_per_gas=30 * GWEI, max_priority_fee_per_gas=3 * GWEI))


async def pay_again_and_again(client: Client, op: UserOperation) -> bytes:
    """As a wallet does: send until there is an answer."""

    async def sent() -> bytes | None:
        try:
            return await client.send(op)
        except RpcError as error:
            if error.rpc_code != -32603:
                raise
            return None

    found: bytes = await until(sent, "the operation is acknowledged", 60)
    return found


async def included(client: Client, op_hash: bytes) -> None:
    """However long the way there takes."""

    async def found() -> bool:
        status = await client.status(op_hash)
        return status is not None and status["status"] == "included"

    await until(found, f"0x{op_hash.hex()} is included", 60)


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("delay_s", Faults(delay_s=0.3)),
        ("drop", Faults(drop=0.2)),
        ("drop_answer", Faults(drop_answer=0.2)),
        ("truncate", Faults(truncate=0.2)),
        ("fail_5xx", Faults(fail_5xx=0.2)),
        ("refuse", Faults(refuse=0.2)),
    ],
)
async def test_a_bad_connection_to_the_node_breaks_no_promise(
    chain: Chain, proxy: FaultProxy, client: Client, name: str, faults: Faults
) -> None:
    ops = [await (await chain.account()).operation() for _ in range(3)]
    proxy.faults = faults
    hashes = [await pay_again_and_again(client, op) for op in ops]
    for op_hash in hashes:
        await included(client, op_hash)
        assert len(await chain.receipts_of(V08, op_hash)) == 1
    assert proxy.done[name] > 0


async def test_a_silent_node_is_an_error_in_time(chain: Chain, proxy: FaultProxy, client: Client) -> None:
    op = await (await chain.account()).operation()
    proxy.faults = Faults(held=frozenset({"debug_traceCall"}))
    async with asyncio.timeout(8):
        with pytest.raises(RpcError) as caught:
            await client.send(op)
    assert caught.value.rpc_code == -32603
    proxy.heal()
    assert (await client.included(await client.send(op)))["success"] is True


async def test_an_operation_that_is_replaced_while_its_bundle_is_proven_is_not_sent(
    chain: Chain, proxy: FaultProxy, client: Client
) -> None:
    account = await chain.account(deployed=True)
    op = await account.operation()
    proxy.faults = Faults(held=frozenset({"eth_getTransactionCount"}))  # the last thing asked before a bundle is signed
    first = await client.send(op)
    await until(lambda: asyncio.sleep(0, proxy.done["held"]), "a bundle with it is proven")
    second = await client.send(dearer(account, op))
    proxy.heal()
    await client.becomes(second, "included")
    assert len(await chain.receipts_of(V08, second)) == 1
    assert await chain.receipts_of(V08, first) == []
    dropped = await client.status(first)
    assert dropped is not None
    assert dropped["status"] == "dropped"
    assert "replaced by" in dropped["reason"]


async def test_an_included_operation_stays_included_while_a_back_end_lags(
    chain: Chain, proxy: FaultProxy, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The complaint of many: inconsistent back ends make a bundler forget, or take a replacement of, what is on chain."""
    monkeypatch.setattr(service, "_BEHIND_S", 60.0)  # however slow this machine is
    account = await chain.account(deployed=True)
    op = await account.operation()
    await chain.mine(3)
    included = await client.send(op)
    await client.becomes(included, "included")
    proxy.faults = Faults(stale_blocks=2)
    asked = proxy.done["stale_blocks"]
    await until(lambda: asyncio.sleep(0, proxy.done["stale_blocks"] > asked + 20), "the bundler looked again and again")
    with pytest.raises(RpcError, match="AA25"):
        await client.send(dearer(account, op))
    status = await client.status(included)
    assert status is not None
    assert status["status"] == "included"


async def test_a_bundle_whose_receipt_comes_late_is_waited_for(chain: Chain, proxy: FaultProxy, client: Client) -> None:
    """The nonce of the executor is used and there is no receipt: somebody else's transaction, or an index that lags."""
    account = await chain.account(deployed=True)
    op = await account.operation()
    proxy.faults = Faults(blind_blocks=2)
    op_hash = await client.send(op)
    await until(lambda: asyncio.sleep(0, proxy.done["hidden"] > 20), "the receipt was asked for again and again")
    with pytest.raises(RpcError, match="submitted bundle"):
        await client.send(dearer(account, op))
    await chain.mine(3)
    await client.becomes(op_hash, "included")
    await client.settled()


async def test_a_nonce_that_another_program_used_is_still_noticed(
    chain: Chain, proxy: FaultProxy, client: Client
) -> None:
    """Waiting for late receipts must not mean waiting for ever."""
    await chain.automine(False)
    op_hash = await client.send(await (await chain.account()).operation())
    await client.becomes(op_hash, "bundled")
    await chain.rpc.call("anvil_dropAllTransactions")
    proxy.faults = Faults(drop=1.0)  # it must not send its own again first
    await chain.rpc.call("anvil_setNonce", "0x" + chain.accounts.bundler.address.hex(), "0x1")
    await chain.automine(True)
    await chain.mine()
    proxy.heal()
    assert (await client.included(op_hash))["success"] is True


async def test_a_node_of_another_chain_is_not_believed(chain: Chain, proxy: FaultProxy, client: Client) -> None:
    op = await (await chain.account()).operation()
    await chain.automine(False)
    op_hash = await client.send(op)
    await client.becomes(op_hash, "bundled")
    proxy.faults = Faults(chain_id=CHAIN_ID + 1)

    async def noticed() -> bool:
        status = await client.service()
        return status["problem"] == "WrongChain" and not status["ready"]

    await until(noticed, "the bundler says that it serves nothing")
    proxy.heal()
    await chain.automine(True)
    await chain.mine()
    assert (await client.included(op_hash))["success"] is True

    async def well() -> bool:
        return (await client.service())["problem"] is None

    await until(well, "the bundler serves again")


async def test_a_restarted_node_that_forgot_its_mempool_gets_the_bundle_again(
    saved_chain: tuple[Path, dict[str, Address]], chain: Chain, proxy: FaultProxy, client: Client, tmp_path: Path
) -> None:
    await chain.automine(False)
    op_hash = await client.send(await (await chain.account()).operation())
    await client.sent(op_hash, chain)
    dump: Any = await chain.rpc.call("anvil_dumpState")
    state = tmp_path / "node.json"
    state.write_bytes(gzip.decompress(parse_bytes(dump)))
    proxy.upstream = "http://127.0.0.1:9"  # nobody there
    await until(lambda: asyncio.sleep(0, proxy.done["unreachable"] > 3), "the bundler met nobody")
    assert (await client.service())["ready"] is False
    async with Chain.start(state, saved_chain[1]) as restarted:
        proxy.upstream = restarted.anvil.url
        await client.becomes(op_hash, "included")
        assert len(await restarted.receipts_of(V08, op_hash)) == 1
        await client.settled()


async def test_an_operation_of_a_lost_block_cannot_be_replaced_before_the_reorganisation_is_noticed(
    chain: Chain, proxy: FaultProxy, client: Client
) -> None:
    """Its bundle comes back with it: a replacement acknowledged in between would be lost."""
    account = await chain.account(deployed=True)
    op = with_limits(await account.draft())
    op = account.sign(op)
    await chain.mine(3)
    op_hash = await client.send(op)
    await client.becomes(op_hash, "included")
    proxy.faults = Faults(held=frozenset({"eth_getBlockByNumber", "eth_chainId"}))
    await until(lambda: asyncio.sleep(0, proxy.done["held"]), "the bundler's loop looks at nothing")
    await chain.rpc.call("anvil_reorg", 1, [])
    assert await chain.receipts_of(V08, op_hash) == []
    replacement = asyncio.ensure_future(client.send(dearer(account, op)))
    with pytest.raises(RpcError, match="AA25"):
        await replacement
    proxy.heal()
    await until(lambda: chain.receipts_of(V08, op_hash), "it is in a block again")
    assert len(await chain.receipts_of(V08, op_hash)) == 1


async def test_a_database_of_one_chain_is_not_used_on_another(chain: Chain, proxy: FaultProxy, tmp_path: Path) -> None:
    """Everything in it would look lost or invalid there, and be dropped."""
    settings = settings_for(chain, tmp_path, rpc_url=proxy.url)
    await chain.automine(False)
    async with serving(settings) as first:
        op_hash = await first.send(await (await chain.account()).operation())
    proxy.faults = Faults(chain_id=CHAIN_ID + 1)
    with pytest.raises(SetupError, match=f"is of chain {CHAIN_ID}, the node serves chain {CHAIN_ID + 1}"):
        async with serving(settings):
            pass
    proxy.heal()
    await chain.automine(True)
    async with serving(settings) as again:
        await included(again, op_hash)


@pytest.mark.parametrize("safe", [True, False])
async def test_a_back_end_that_has_not_seen_a_deposit_yet_drops_no_operation(
    chain: Chain, proxy: FaultProxy, tmp_path: Path, safe: bool
) -> None:
    account = await chain.account(funds_wei=0)
    await chain.deposit(V08, account.address)
    settings = settings_for(chain, tmp_path, rpc_url=proxy.url, debug=True, safe=safe)
    async with serving(settings) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        paid = await client.send(await account.operation())
        await chain.mine()
        proxy.faults = Faults(late_blocks=2)
        await client.rpc.call("debug_bundler_setBundlingMode", "auto")
        for _ in range(3):
            looked = proxy.done["late_blocks"]
            await until(lambda: asyncio.sleep(0, proxy.done["late_blocks"] > looked), "it is judged")  # noqa: B023
            await chain.mine()
            proxy.faults = Faults(late_blocks=proxy.faults.late_blocks + 1)
        status = await client.status(paid)
        assert status is not None
        assert status["status"] == "received", "AA21 on a block without the deposit is no reason to drop it"
        proxy.heal()
        await chain.mine()
        await client.becomes(paid, "included")
        assert len(await chain.receipts_of(V08, paid)) == 1


async def test_an_operation_that_its_own_block_refuses_is_dropped_all_the_same(
    chain: Chain, proxy: FaultProxy, tmp_path: Path
) -> None:
    account = await chain.account(deployed=True)
    settings = settings_for(chain, tmp_path, rpc_url=proxy.url, debug=True)
    async with serving(settings) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        unpaid = await client.send(await account.operation())
        await chain.rpc.call("anvil_setBalance", to_hex(account.address), "0x0")
        await chain.mine()
        await client.rpc.call("debug_bundler_setBundlingMode", "auto")
        dropped = await client.becomes(unpaid, "dropped")
        assert "AA21" in dropped["reason"]
