"""What users of other bundlers complain of, one test each, in their words. The list is the one of docs/bundler.md."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bundler.settings import Settings
from contracts.entrypoint import V08
from contracts.errors import RpcError
from contracts.types import checksum, parse_bytes, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import (
    GWEI,
    ROOT,
    Chain,
    Client,
    SimpleAccount,
    process,
    serving,
    settings_for,
    until,
    with_limits,
)
from tests.bundler.test_bundles import empty_blocks, occupy, release
from tests.chaos.fault_proxy import FaultProxy, Faults

SIGNS = asm(
    """
    PUSH0 CALLDATALOAD 0xe0 SHR
    0x1626ba7e EQ @signed JUMPI
    PUSH0 PUSH0 MSTORE 0x20 PUSH0 RETURN
    signed:
    0x1626ba7e00000000000000000000000000000000000000000000000000000000 PUSH0 MSTORE 0x20 PUSH0 RETURN
    """
)
"""An account that validates everything and accepts every ERC-1271 signature."""


@asynccontextmanager
async def behind_proxy(
    chain: Chain, folder: Path, **changes: Any
) -> AsyncIterator[tuple[Client, FaultProxy, Settings]]:
    """A bundler whose node is reached through a proxy that can misbehave."""
    async with FaultProxy.start(chain.anvil.url) as proxy:
        settings = settings_for(chain, folder, rpc_url=proxy.url, **changes)
        async with serving(settings) as client:
            yield client, proxy, settings


def dearer(account: SimpleAccount, op: UserOperation) -> UserOperation:
    """The same nonce at twice the price."""
    return account.sign(
        op.replace(
            max_fee_per_gas=2 * op.max_fee_per_gas,
            max_priority_fee_per_gas=2 * op.max_priority_fee_per_gas,
            signature=b"",
        )
    )


async def test_a_late_replacement_of_a_bundle_makes_no_second_bundle_at_the_next_nonce(
    own_chain: Chain, tmp_path: Path
) -> None:
    """The replacement goes out, and then the *first* transaction is mined: nothing of it may come again at nonce + 1."""
    executor = own_chain.accounts.bundler.address
    async with serving(settings_for(own_chain, tmp_path, blocks_before_resubmit=2)) as client:
        before = await own_chain.rpc.get_nonce(executor)
        op_hash = await occupy(own_chain, client)
        first = (await client.status(op_hash) or {})["transactionHash"]
        raw = await own_chain.rpc.call("eth_getRawTransactionByHash", first)
        await empty_blocks(own_chain, 2)

        async def replacement() -> Any:
            found = (await client.status(op_hash) or {})["transactionHash"]
            return found if found != first else None

        second = await until(replacement, "the bundle is sent again")
        await until(lambda: own_chain.rpc.call("eth_getTransactionByHash", second), "the node has it")
        await own_chain.rpc.call("anvil_dropAllTransactions")
        await own_chain.rpc.call("eth_sendRawTransaction", raw)
        await release(own_chain)
        found = await client.included(op_hash)
        assert found["receipt"]["transactionHash"] == first
        await client.settled()
        await own_chain.mine(3)
        assert len(await own_chain.receipts_of(V08, op_hash)) == 1
        assert await own_chain.rpc.get_nonce(executor, "pending") == before + 1


async def test_bundles_are_as_large_as_the_flags_allow(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, max_ops_per_bundle=12)) as client:
        await occupy(own_chain, client)
        hashes = [await client.send(await (await own_chain.account()).operation()) for _ in range(12)]
        await release(own_chain)
        bundles = {(await client.included(op_hash))["receipt"]["transactionHash"] for op_hash in hashes}
        assert len(bundles) == 1


async def test_an_executor_that_runs_out_of_money_ends_no_process_and_goes_on_when_it_is_filled(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = settings_for(own_chain, tmp_path, min_executor_balance_wei=10**16)
    executor = to_hex(own_chain.accounts.bundler.address)
    await own_chain.rpc.call("anvil_setBalance", executor, "0x1")
    async with process(settings) as running:
        op_hash = await running.client.send(await (await own_chain.account()).operation())

        async def poor() -> bool:
            return any("holds 1 wei" in problem for problem in (await running.client.service())["problems"])

        await until(poor, "readiness names the balance")
        await own_chain.mine(2)
        assert running.process.returncode is None
        await own_chain.rpc.call("anvil_setBalance", executor, hex(10**20))
        await own_chain.mine()
        assert (await running.client.included(op_hash))["success"] is True


async def test_an_underpriced_bundle_is_raised_until_it_is_mined_and_never_above_the_bound(
    own_chain: Chain, tmp_path: Path
) -> None:
    bound_wei = 30 * GWEI
    settings = settings_for(own_chain, tmp_path, blocks_before_resubmit=1, max_bundle_fee_wei=bound_wei)
    async with serving(settings) as client:
        op_hash = await occupy(own_chain, client)
        first = await own_chain.rpc.call(
            "eth_getTransactionByHash", (await client.status(op_hash) or {})["transactionHash"]
        )
        paid = [int(first["maxFeePerGas"], 16)]
        for _ in range(2):
            last = (await client.status(op_hash) or {})["transactionHash"]
            await empty_blocks(own_chain, 1)

            async def raised(last: str = last) -> Any:
                tx_hash = (await client.status(op_hash) or {})["transactionHash"]
                return tx_hash != last and await own_chain.rpc.call("eth_getTransactionByHash", tx_hash)

            paid.append(int((await until(raised, "it is sent again for more"))["maxFeePerGas"], 16))
        assert all(after * 100 >= before * 110 for before, after in itertools.pairwise(paid))
        assert max(paid) <= bound_wei
        await release(own_chain)
        assert (await client.included(op_hash))["success"] is True


async def test_of_an_operation_and_its_late_replacement_exactly_one_is_included(
    own_chain: Chain, tmp_path: Path
) -> None:
    """Replacing what is in a bundle already is refused, and the answer says so: no hash is given out that cannot happen."""
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await occupy(own_chain, client)
        account = await own_chain.account()
        op = await account.operation()
        first = await client.send(op)
        second = await client.send(dearer(account, op))
        await release(own_chain)
        await client.included(second)
        replaced = await client.becomes(first, "dropped")
        assert to_hex(second) in replaced["reason"]
        with pytest.raises(RpcError):
            await client.send(op.replace(max_fee_per_gas=4 * op.max_fee_per_gas))
        await client.settled()
        assert [len(await own_chain.receipts_of(V08, one)) for one in (first, second)] == [0, 1]


async def test_back_ends_that_disagree_lose_no_operation(own_chain: Chain, tmp_path: Path) -> None:
    accounts = [await own_chain.account() for _ in range(3)]
    await own_chain.mine(5)  # every back end knows that they have money
    async with behind_proxy(own_chain, tmp_path) as (client, proxy, _):
        hashes = []
        for stale in (0, 2, 0, 3, 0):
            proxy.faults = Faults(stale_blocks=stale, blind_blocks=1)
            asked = proxy.done["stale_blocks"]
            if stale:
                await until(
                    lambda asked=asked: _true(proxy.done["stale_blocks"] > asked + 5), "an old back end is asked"
                )
            else:
                hashes.append(await client.send(await accounts[len(hashes)].operation()))
        proxy.heal()
        await own_chain.mine(15)  # what a back end denied is believed only after some blocks
        for op_hash in hashes:
            assert (await client.included(op_hash))["success"] is True
            assert len(await own_chain.receipts_of(V08, op_hash)) == 1


async def _true(value: bool) -> bool:
    return value


async def test_estimates_are_the_same_each_time_and_enough(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account(deployed=True)
    draft = await account.draft()
    found = [await bundler.estimate(draft) for _ in range(4)]
    assert all(one == found[0] for one in found)
    estimated = account.sign(await bundler.estimated(draft))
    assert (await bundler.included(await bundler.send(estimated)))["success"] is True


async def test_a_receipt_is_found_beyond_the_range_of_logs_a_node_searches(own_chain: Chain, tmp_path: Path) -> None:
    """Ours are on disk; how far back the node looks for logs does not matter."""
    async with serving(settings_for(own_chain, tmp_path, event_search_blocks=3)) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())
        await client.included(op_hash)
        await own_chain.mine(30)
        head = await own_chain.rpc.block_number()

        async def seen() -> bool:
            return int((await client.service())["lastBlock"], 16) >= head

        await until(seen, "the bundler saw the last block")
        assert (await client.receipt(op_hash) or {})["success"] is True


async def test_a_drop_tells_its_reason(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account = await own_chain.put(SIGNS, deposit_on=V08)
        await occupy(own_chain, client)
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"")))
        await own_chain.rpc.call("anvil_setCode", to_hex(account), "0x5f5ffd")
        await release(own_chain)
        status = await client.becomes(op_hash, "dropped")
        assert "AA23" in status["reason"]


async def test_a_senders_pending_operations_can_be_asked_for_and_dropped_by_their_owner(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account = await own_chain.put(SIGNS, deposit_on=V08)
        await occupy(own_chain, client)
        hashes = [await client.send(with_limits(UserOperation(account, nonce, b""))) for nonce in (0, 1)]
        pending = await client.rpc.call("seawall_getPendingUserOperations", checksum(account))
        assert [parse_bytes(one["userOpHash"], "hash") for one in pending] == hashes
        deadline = hex(int(time.time()) + 600)
        await client.rpc.call("seawall_dropUserOperation", to_hex(hashes[1]), deadline, "0x01")
        pending = await client.rpc.call("seawall_getPendingUserOperations", checksum(account))
        assert [one["userOpHash"] for one in pending] == [to_hex(hashes[0])]
        await release(own_chain)
        await client.included(hashes[0])
        assert (await client.status(hashes[1]) or {})["status"] == "dropped"


async def test_safe_mode_works_on_a_plain_node_and_says_what_is_missing_on_one_that_cannot_trace(
    own_chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = FaultProxy._ask

    async def without_traces(self: FaultProxy, document: Any) -> Any:
        """As a node answers that does not serve `debug_*`; most public ones do not."""
        if isinstance(document, list):
            return [await without_traces(self, one) for one in document]
        if document["method"].startswith("debug_"):
            error = {"code": -32601, "message": f"the method {document['method']} does not exist/is not available"}
            return {"jsonrpc": "2.0", "id": document["id"], "error": error}
        return await ask(self, document)

    async with behind_proxy(own_chain, tmp_path) as (client, _, _settings):
        await client.included(await client.send(await (await own_chain.account()).operation()))
        other = await (await own_chain.account()).operation()
        monkeypatch.setattr(FaultProxy, "_ask", without_traces)
        with pytest.raises(RpcError, match="safe = false"):
            await client.send(other)


def test_every_complaint_of_the_documentation_names_its_test() -> None:
    text = (ROOT / "docs/bundler.md").read_text().partition("### What users of other bundlers complain of")[2]
    named = [line.split("`")[1] for line in text.partition("\n### ")[0].splitlines() if "| `test_" in line]
    tests = [name for name in globals() if name.startswith("test_") and "every_complaint" not in name]
    assert sorted(named) == sorted(tests)
