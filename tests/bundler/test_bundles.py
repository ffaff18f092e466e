"""Building and submission: culprits, expiry, fees, resubmission, other bundlers, reorganisations, restarts, a dead node."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from contracts.devnet import anvil
from contracts.entrypoint import V07, V08
from contracts.errors import NodeUnreachable, RpcError
from contracts.rpc import RpcClient
from contracts.types import Hash32, checksum, parse_bytes, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import (
    GWEI,
    PAYMASTER_OK,
    REVERTS,
    Chain,
    Client,
    answers,
    process,
    serving,
    settings_for,
    until,
    validation_word,
    with_limits,
)


async def occupy(chain: Chain, client: Client) -> Hash32:
    """Put a bundle under way that is not mined, so that what follows waits in the pool."""
    await chain.automine(False)
    op_hash = await client.send(await (await chain.account()).operation())
    await client.sent(op_hash, chain)
    return op_hash


async def release(chain: Chain) -> None:
    await chain.automine(True)
    await chain.mine()


async def test_culprit_is_dropped_with_its_reason_and_the_others_are_included(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        turncoat = await own_chain.put(answers(0), deposit_on=V08)
        await occupy(own_chain, client)
        good = [await client.send(await (await own_chain.account()).operation()) for _ in range(2)]
        bad = await client.send(with_limits(UserOperation(turncoat, 0, b""), max_priority_fee_per_gas=9 * GWEI))
        successor = await client.send(with_limits(UserOperation(turncoat, 1, b"")))
        await own_chain.rpc.call("anvil_setCode", to_hex(turncoat), to_hex(REVERTS))
        await release(own_chain)
        for op_hash in good:
            assert (await client.included(op_hash))["success"] is True
        assert "AA23" in (await client.becomes(bad, "dropped"))["reason"]
        assert "was dropped" in (await client.becomes(successor, "dropped"))["reason"]
        await client.settled()


async def test_an_operation_behind_the_one_that_deploys_its_account_outlives_the_deployment(
    own_chain: Chain, tmp_path: Path
) -> None:
    """[COD-010] is about code that changed; here there was none when the operation came."""
    account = await own_chain.account()
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await own_chain.automine(False)
        draft = await account.draft()
        first = await client.send(account.sign(with_limits(draft)))
        await client.sent(first, own_chain)
        later = draft.replace(nonce=1, factory=None, factory_data=b"")
        await own_chain.rpc.call("anvil_dropAllTransactions")
        second = await client.send(account.sign(with_limits(later)))
        await own_chain.automine(True)
        await own_chain.mine()
        await client.settled()
        for op_hash in (first, second):
            assert (await client.status(op_hash) or {})["status"] == "included"


async def test_operations_that_fail_only_together_are_included_one_after_the_other(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with serving(settings_for(own_chain, tmp_path, safe=False)) as client:  # the rules would not let them in
        # Valid while the shared slot is empty, or in a later block than the one that filled it.
        shared = await own_chain.put(
            asm("""
            CALLDATASIZE @set JUMPI
            0 SLOAD NUMBER EQ 0 MSTORE 32 0 RETURN
            set: NUMBER 0 SSTORE STOP
            """)
        )
        account_code = asm(f"""
            0 CALLDATALOAD 224 SHR 0x19822f7c EQ @validate JUMPI
            0 0 1 0 0 {int.from_bytes(shared)} GAS CALL POP STOP
            validate: 32 0 0 0 0 {int.from_bytes(shared)} GAS CALL POP 32 0 RETURN
        """)
        accounts = [await own_chain.put(account_code, deposit_on=V08) for _ in range(2)]
        await occupy(own_chain, client)
        hashes = [await client.send(with_limits(UserOperation(a, 0, b"\x01"))) for a in accounts]
        await release(own_chain)
        receipts = [await client.included(op_hash) for op_hash in hashes]
    assert all(receipt["success"] for receipt in receipts)


async def test_expired_operation_is_dropped(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        until_s = await own_chain.now_s() + 500
        account = await own_chain.put(answers(validation_word(valid_until_s=until_s)), deposit_on=V08)
        await occupy(own_chain, client)
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"")))
        await own_chain.rpc.call("evm_setNextBlockTimestamp", until_s + 1)
        await release(own_chain)
        status = await client.becomes(op_hash, "dropped")
        assert str(until_s) in status["reason"]


async def test_bundle_that_is_not_mined_is_sent_again_with_higher_fees(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, blocks_before_resubmit=2)) as client:
        op_hash = await occupy(own_chain, client)
        first = (await client.status(op_hash) or {})["transactionHash"]
        await own_chain.rpc.call("anvil_dropAllTransactions")
        await empty_blocks(own_chain, 2)

        async def replaced() -> Any:
            return (await client.status(op_hash) or {})["transactionHash"] != first

        await until(replaced, "a new transaction")
        second = (await client.status(op_hash) or {})["transactionHash"]
        pooled = await until(lambda: own_chain.rpc.call("eth_getTransactionByHash", second), "it is sent")
        assert pooled["maxFeePerGas"] > "0x0"
        await release(own_chain)
        receipt = await client.included(op_hash)
        assert receipt["receipt"]["transactionHash"] == second
        assert len(await own_chain.receipts_of(V08, op_hash)) == 1


async def empty_blocks(chain: Chain, count: int) -> None:
    """Mine blocks that leave every transaction out."""
    for _ in range(count):
        await chain.rpc.call("anvil_dropAllTransactions")
        await chain.rpc.call("evm_mine")


async def test_stuck_bundle_without_valid_operations_is_cancelled(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, blocks_before_resubmit=2)) as client:
        account = await own_chain.put(answers(0), deposit_on=V08)
        await own_chain.automine(False)
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"")))
        await client.becomes(op_hash, "bundled")
        await own_chain.rpc.call("anvil_setCode", to_hex(account), to_hex(REVERTS))
        await empty_blocks(own_chain, 3)
        await release(own_chain)
        await client.becomes(op_hash, "dropped")
        await client.settled()
        assert await own_chain.receipts_of(V08, op_hash) == []
        following = await client.send(await (await own_chain.account()).operation())
        assert (await client.included(following))["success"] is True


async def test_an_operation_that_would_lose_money_waits_until_it_does_not(own_chain: Chain, tmp_path: Path) -> None:
    # Paying an address that does not exist yet costs 25,000 gas more than the operation pays for.
    beneficiary = own_chain.fresh_address()
    settings = settings_for(own_chain, tmp_path, beneficiary=beneficiary)
    async with serving(settings) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())
        await own_chain.mine(2)
        head = await own_chain.rpc.block_number()

        async def seen() -> bool:
            return int((await client.service())["lastBlock"], 16) >= head

        await until(seen, "the bundler saw the block")
        assert (await client.status(op_hash) or {})["status"] == "received"
        await own_chain.rpc.call("anvil_setBalance", to_hex(beneficiary), "0x1")
        await own_chain.mine()
        receipt = await client.included(op_hash)
        transaction = receipt["receipt"]
        cost_wei = int(transaction["gasUsed"], 16) * int(transaction["effectiveGasPrice"], 16)
        assert int(receipt["actualGasCost"], 16) >= cost_wei


@pytest.mark.parametrize("way", ["reorg", "revert"])
async def test_operation_of_a_lost_block_is_included_again(own_chain: Chain, tmp_path: Path, way: str) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        op = await (await own_chain.account()).operation()
        await own_chain.mine(3)
        snapshot = await own_chain.rpc.call("evm_snapshot")
        op_hash = await client.send(op)
        await client.included(op_hash)
        await own_chain.mine()
        if way == "reorg":
            await own_chain.rpc.call("anvil_reorg", 2, [])
        else:
            await own_chain.rpc.call("evm_revert", snapshot)
        (event,) = await until(lambda: own_chain.receipts_of(V08, op_hash), "the operation is in a block again")
        again = await client.included(op_hash)
        assert again["success"] is True
        assert again["receipt"]["blockHash"] == event["blockHash"]


async def test_restart_resumes_waiting_and_submitted_operations(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path)
    async with process(settings) as running:
        submitted = await occupy(own_chain, running.client)
        waiting = await running.client.send(await (await own_chain.account(V07)).operation(), V07)
        running.process.kill()
        await running.died()
    await own_chain.rpc.call("anvil_dropAllTransactions")  # the node forgot, too
    async with process(settings) as running:
        assert (await running.client.status(waiting) or {})["status"] == "received"
        await release(own_chain)
        for op_hash, entry_point in ((submitted, V08), (waiting, V07)):
            assert (await running.client.included(op_hash))["success"] is True
            assert len(await own_chain.receipts_of(entry_point, op_hash)) == 1


async def test_restart_finds_what_was_mined_meanwhile(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path)
    async with process(settings) as running:
        submitted = await occupy(own_chain, running.client)
        running.process.kill()
        await running.died()
    await release(own_chain)
    async with process(settings) as running:
        assert (await running.client.included(submitted))["success"] is True
        await running.client.settled()
    assert len(await own_chain.receipts_of(V08, submitted)) == 1


async def test_sigterm_drains_and_exits_with_zero(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path, drain_timeout_s=15.0)
    async with process(settings) as running:
        op_hash = await occupy(own_chain, running.client)
        waiting = await running.client.send(await (await own_chain.account()).operation())
        running.process.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return bool((await running.client.service())["draining"])

        await until(draining, "it drains")
        late = await (await own_chain.account()).operation()
        with pytest.raises(RpcError, match="shutting down"):
            await running.client.send(late)
        await own_chain.mine()
        assert await running.died() == 0
    assert len(await own_chain.receipts_of(V08, op_hash)) == 1
    async with process(settings) as running:
        assert (await running.client.status(op_hash) or {})["status"] == "included"
        await release(own_chain)
        await running.client.included(waiting)


async def test_dead_node_is_survived(chain_state: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    state, factories = chain_state
    dump = tmp_path / "dump.json"
    async with Chain.start(state, factories) as chain:
        port = chain.anvil.port
        settings = settings_for(chain, tmp_path)
        async with serving(settings) as client:
            await occupy(chain, client)
            op = await (await chain.account()).operation()
            op_hash = await client.send(op)
            raw = parse_bytes(await chain.rpc.call("anvil_dumpState"))
            await asyncio.to_thread(write_inflated, dump, raw)
            os.kill(chain.anvil.pid, signal.SIGKILL)

            async def not_ready() -> bool:
                return not (await client.service())["ready"]

            await until(not_ready, "it notices")
            with pytest.raises(RpcError, match="did not answer") as caught:
                await client.send(await_free_operation(op))
            assert str(port) not in str(caught.value)
            with pytest.raises((RpcError, NodeUnreachable)):
                await chain.rpc.chain_id()
            binary = await asyncio.to_thread(anvil.find_binary)
            arguments = ["--accounts", "0", "--chain-id", "1337", "--hardfork", "prague", "--load-state", str(dump)]
            async with await anvil.Anvil.start(binary.path, arguments, port=port) as node, RpcClient(node.url) as rpc:
                receipt = await client.included(op_hash)
                assert receipt["success"] is True
                await client.settled()
                assert await rpc.block_number() > 0


def await_free_operation(op: UserOperation) -> UserOperation:
    """Another sender's operation; it will not get as far as its signature."""
    return op.replace(sender=b"\x09" * 20)


def write_inflated(path: Path, raw: bytes) -> None:
    import gzip

    path.write_bytes(gzip.decompress(raw))


async def test_both_entry_points_are_bundled_in_turn(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await occupy(own_chain, client)
        hashes = []
        for entry_point in (V08, V07, V08, V07):
            op = await (await own_chain.account(entry_point)).operation()
            hashes.append((await client.send(op, entry_point), entry_point))
        await release(own_chain)
        for op_hash, entry_point in hashes:
            assert (await client.included(op_hash))["entryPoint"] == checksum(entry_point.address)


async def test_bundles_respect_count_and_gas_limits(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, max_ops_per_bundle=3, max_bundle_gas=3_000_000)) as client:
        await occupy(own_chain, client)
        small = [await client.send(await (await own_chain.account()).operation()) for _ in range(4)]
        account = await own_chain.account()
        big = account.sign((await account.operation()).replace(call_gas_limit=2_000_000))
        big_hash = await client.send(big)
        await release(own_chain)
        bundles: dict[str, int] = {}
        for op_hash in (*small, big_hash):
            receipt = (await client.included(op_hash))["receipt"]
            bundles[receipt["transactionHash"]] = bundles.get(receipt["transactionHash"], 0) + 1
            transaction = await own_chain.rpc.call("eth_getTransactionByHash", receipt["transactionHash"])
            assert int(transaction["gas"], 16) <= 3_000_000
        assert max(bundles.values()) <= 3


async def test_beneficiary_gets_the_fees(own_chain: Chain, tmp_path: Path) -> None:
    beneficiary = b"\x0b" * 20
    await own_chain.rpc.call("anvil_setBalance", to_hex(beneficiary), "0x1")  # to be made costs more than it earns
    async with serving(settings_for(own_chain, tmp_path, beneficiary=beneficiary)) as client:
        paymaster = await own_chain.put(PAYMASTER_OK, deposit_on=V08)
        account = await own_chain.account()
        op = account.sign(with_limits((await account.draft()).replace(paymaster=paymaster)))
        receipt = await client.included(await client.send(op))
        assert await own_chain.rpc.get_balance(beneficiary) == int(receipt["actualGasCost"], 16) + 1


async def test_a_bundle_that_loses_money_is_sent_when_the_operator_says_so(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path, require_profit=False, beneficiary=own_chain.fresh_address())
    async with serving(settings) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())
        receipt = await client.included(op_hash)
        transaction = receipt["receipt"]
        cost_wei = int(transaction["gasUsed"], 16) * int(transaction["effectiveGasPrice"], 16)
        assert int(receipt["actualGasCost"], 16) < cost_wei
