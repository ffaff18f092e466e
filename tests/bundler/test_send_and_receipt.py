"""From a signed operation to its receipt, on every entry point."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from contracts.entrypoint import V07, V08, V09, EntryPoint
from contracts.errors import RpcError
from contracts.types import checksum, keccak, parse_bytes, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import (
    PAYMASTER_OK,
    REVERTS,
    TARGET,
    Chain,
    Client,
    answers,
    handle_ops,
    serving,
    settings_for,
    with_limits,
)

EACH = pytest.mark.parametrize("entry_point", [V08, V07, V09], ids=["v0.8", "v0.7", "v0.9"])


@EACH
async def test_first_operation_deploys_the_account_and_is_included(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint
) -> None:
    account = await shared_chain.account(entry_point)
    op = await account.operation()
    op_hash = await bundler.send(op, entry_point)
    assert op_hash == entry_point.user_op_hash(op, 1337)
    receipt = await bundler.included(op_hash)
    assert receipt["success"] is True
    assert receipt["sender"] == checksum(account.address)
    assert receipt["entryPoint"] == checksum(entry_point.address)
    assert receipt["nonce"] == "0x0"
    assert receipt["paymaster"] == checksum(bytes(20))
    assert int(receipt["actualGasCost"], 16) >= int(receipt["actualGasUsed"], 16) > 100_000
    assert receipt["receipt"]["status"] == "0x1"
    assert await shared_chain.rpc.get_code(account.address)


async def test_operation_by_hash_is_answered_before_and_after_inclusion(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        op = await (await own_chain.account()).operation()
        op_hash = await client.send(op)
        pending = await client.rpc.call("eth_getUserOperationByHash", to_hex(op_hash))
        assert pending["userOperation"] == op.to_rpc()
        assert pending["blockNumber"] is None
        assert pending["transactionHash"] is None
        await client.sent(op_hash, own_chain)
        assert await client.receipt(op_hash) is None
        await own_chain.mine()
        receipt = await client.included(op_hash)
        found = await client.rpc.call("eth_getUserOperationByHash", to_hex(op_hash))
        assert found["transactionHash"] == receipt["receipt"]["transactionHash"]
        assert found["blockNumber"] == receipt["receipt"]["blockNumber"]
        assert found["entryPoint"] == checksum(V08.address)


async def test_unknown_hash_has_no_operation_receipt_or_status(bundler: Client) -> None:
    unknown = to_hex(keccak(b"never sent"))
    assert await bundler.rpc.call("eth_getUserOperationByHash", unknown) is None
    assert await bundler.rpc.call("eth_getUserOperationReceipt", unknown) is None
    assert await bundler.rpc.call("seawall_getUserOperationStatus", unknown) is None


async def test_operation_of_another_bundler_is_found_with_its_receipt(shared_chain: Chain, bundler: Client) -> None:
    op = await (await shared_chain.account()).operation()
    await handle_ops(shared_chain, V08, [op])
    op_hash = V08.user_op_hash(op, 1337)
    receipt = await bundler.included(op_hash)
    assert receipt["success"] is True
    found = await bundler.rpc.call("eth_getUserOperationByHash", to_hex(op_hash))
    assert found["userOperation"] == op.to_rpc()
    assert found["transactionHash"] == receipt["receipt"]["transactionHash"]


async def test_reverting_call_is_included_with_its_reason(shared_chain: Chain, bundler: Client) -> None:
    reverting = await shared_chain.put(bytes.fromhex("63deadbeef5f526004601cfd"))
    op = await (await shared_chain.account()).operation(to=reverting, value_wei=0)
    receipt = await bundler.included(await bundler.send(op))
    assert receipt["success"] is False
    assert parse_bytes(receipt["reason"]) == bytes.fromhex("deadbeef")


async def test_receipt_has_only_the_logs_of_its_own_operation(own_chain: Chain, tmp_path: Path) -> None:
    noisy = await own_chain.put(bytes.fromhex("5f35805f525f5fa1"))  # log1(empty, topic = first word of call data)
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path, bundle_interval_s=0.3)) as client:
        accounts = [await own_chain.account() for _ in range(3)]
        topics = [keccak(bytes([i])) for i in range(3)]
        hashes = [
            await client.send(await account.operation(to=noisy, value_wei=0, data=topic))
            for account, topic in zip(accounts, topics, strict=True)
        ]
        for op_hash in hashes:
            await client.sent(op_hash, own_chain)
            await own_chain.mine()
        receipts = [await client.included(op_hash) for op_hash in hashes]
    for receipt, topic in zip(receipts, topics, strict=True):
        assert [log["topics"] for log in receipt["logs"]] == [[to_hex(topic)]]


async def test_operations_of_several_senders_share_a_bundle(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        operations = [await (await own_chain.account()).operation() for _ in range(6)]
        await own_chain.automine(False)
        hashes = list(await asyncio.gather(*(client.send(op) for op in operations)))
        await own_chain.automine(True)
        await own_chain.mine()
        receipts = [await client.included(op_hash) for op_hash in hashes]
    transactions = {receipt["receipt"]["transactionHash"] for receipt in receipts}
    assert all(receipt["success"] for receipt in receipts)
    assert len(transactions) <= 2


async def test_operations_of_one_sender_are_included_in_nonce_order(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account = await own_chain.account()
        first = await account.operation()
        blocker = await (await own_chain.account()).operation()
        await client.becomes(await client.send(blocker), "bundled")
        later = [
            account.sign(first.replace(nonce=n, factory=None, factory_data=b"", max_priority_fee_per_gas=3 * 10**9 + n))
            for n in (1, 2)
        ]
        hashes = [await client.send(op) for op in (first, *later)]
        await own_chain.automine(True)
        await own_chain.mine()
        receipts = [await client.included(op_hash) for op_hash in hashes]
    assert len({receipt["receipt"]["transactionHash"] for receipt in receipts}) == 1
    assert [receipt["nonce"] for receipt in receipts] == ["0x0", "0x1", "0x2"]


async def test_paymaster_pays_and_is_named_in_the_receipt(shared_chain: Chain, bundler: Client) -> None:
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V08)
    account = await shared_chain.account(funds_wei=1)
    op = account.sign(with_limits((await account.draft()).replace(paymaster=paymaster, paymaster_data=b"\x01\x02")))
    receipt = await bundler.included(await bundler.send(op))
    assert receipt["success"] is True
    assert receipt["paymaster"] == checksum(paymaster)


async def test_duplicate_returns_the_same_hash_and_is_included_once(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        op = await (await own_chain.account()).operation()
        hashes = await asyncio.gather(*(client.send(op) for _ in range(5)))
        assert len(set(hashes)) == 1
        await own_chain.automine(True)
        await own_chain.mine()
        await client.included(hashes[0])
        assert len(await own_chain.receipts_of(V08, hashes[0])) == 1
        with pytest.raises(RpcError, match="AA25"):
            await client.send(op.replace(factory=None, factory_data=b""))


async def test_many_concurrent_senders_are_all_included(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        operations = [await (await own_chain.account()).operation() for _ in range(40)]
        started = time.perf_counter()
        hashes = await asyncio.gather(*(client.send(op) for op in operations))
        accepted_s = time.perf_counter() - started
        await client.settled()
        for op_hash in hashes:
            receipt = await client.receipt(op_hash)
            assert receipt is not None
            assert receipt["success"] is True
            assert len(await own_chain.receipts_of(V08, op_hash)) == 1
    print(f"accepted {len(operations) / accepted_s:.0f} operations/s")


async def test_settled_status_means_every_accepted_operation_has_its_receipt(
    shared_chain: Chain, bundler: Client
) -> None:
    op_hash = await bundler.send(await (await shared_chain.account()).operation(to=TARGET))
    await bundler.settled()
    assert await bundler.receipt(op_hash) is not None


async def test_account_that_answers_yes_to_everything_needs_no_signature(shared_chain: Chain, bundler: Client) -> None:
    yes = await shared_chain.put(answers(0), deposit_on=V08)
    receipt = await bundler.included(await bundler.send(with_limits(UserOperation(yes, 0, b""))))
    assert receipt["success"] is True
    no = await shared_chain.put(REVERTS, deposit_on=V08)
    with pytest.raises(RpcError, match="AA23"):
        await bundler.send(with_limits(UserOperation(no, 0, b"")))
