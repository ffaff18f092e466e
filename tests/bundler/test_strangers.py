"""Operations that somebody else's bundle includes, or whose nonce it uses; and what becomes of them when that block is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from contracts.entrypoint import V08
from contracts.types import Address, Hash32, checksum, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import (
    PAYMASTER_OK,
    Chain,
    Client,
    SimpleAccount,
    hand_in_first,
    handle_ops,
    process,
    serving,
    settings_for,
    until,
    with_limits,
)
from tests.bundler.test_bundles import occupy, release


async def test_operation_included_by_another_bundler_is_noticed(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await occupy(own_chain, client)
        taken = await (await own_chain.account()).operation()
        account = await own_chain.account()
        mine = await account.operation()
        theirs = account.sign(mine.replace(call_gas_limit=99_999))
        taken_hash, mine_hash = await client.send(taken), await client.send(mine)
        await own_chain.rpc.call("anvil_dropAllTransactions")
        await own_chain.automine(True)
        receipt = await handle_ops(own_chain, V08, [taken, theirs])
        found = await client.included(taken_hash)
        assert found["receipt"]["transactionHash"] == receipt["transactionHash"]
        status = await client.becomes(mine_hash, "dropped")
        assert to_hex(V08.user_op_hash(theirs, 1337)) in status["reason"]
        await client.settled()


async def test_operation_another_bundler_lost_to_a_reorganisation_is_sent_by_us(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await own_chain.mine(3)
        first_hash = await occupy(own_chain, client)
        op = await (await own_chain.account()).operation()
        op_hash = await client.send(op)
        await own_chain.rpc.call("anvil_dropAllTransactions")
        snapshot = await own_chain.rpc.call("evm_snapshot")
        await own_chain.automine(True)
        await handle_ops(own_chain, V08, [op])
        await client.included(op_hash)
        await own_chain.rpc.call("evm_revert", snapshot)
        await until(lambda: own_chain.receipts_of(V08, op_hash), "the operation is in a block again")
        again = await client.included(op_hash)
        assert again["receipt"]["from"] == to_hex(own_chain.accounts.bundler.address)
        await client.included(first_hash)


async def overtake(
    chain: Chain, client: Client, paymaster: Address | None = None
) -> tuple[SimpleAccount, UserOperation, Hash32, Any]:
    """An account's operation waits with us; another one with its nonce is in a stranger's bundle. With a snapshot from before that."""
    account = await chain.account(deployed=True)
    mine = account.sign(with_limits((await account.draft()).replace(paymaster=paymaster)))
    theirs = account.sign(with_limits(mine, call_gas_limit=99_999).replace(paymaster=None))
    await occupy(chain, client)
    op_hash = await client.send(mine)
    await chain.rpc.call("anvil_dropAllTransactions")
    snapshot = await chain.rpc.call("evm_snapshot")
    await chain.automine(True)
    await handle_ops(chain, V08, [theirs])
    return account, mine, op_hash, snapshot


async def included_by_us(chain: Chain, client: Client, op_hash: Hash32) -> None:
    await until(lambda: chain.receipts_of(V08, op_hash), "the operation is in a block")
    assert (await client.included(op_hash))["receipt"]["from"] == to_hex(chain.accounts.bundler.address)


async def test_operation_whose_nonce_a_strangers_bundle_used_comes_back_when_that_block_is_lost(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await own_chain.mine(3)
        _, _, op_hash, snapshot = await overtake(own_chain, client)
        await client.becomes(op_hash, "dropped")
        await own_chain.rpc.call("evm_revert", snapshot)
        await included_by_us(own_chain, client, op_hash)


async def test_overtaken_operation_comes_back_though_the_process_was_killed_meanwhile(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = settings_for(own_chain, tmp_path)
    async with process(settings) as running:
        await own_chain.mine(3)
        _, _, op_hash, snapshot = await overtake(own_chain, running.client)
        await running.client.becomes(op_hash, "dropped")
        running.process.kill()
        await running.died()
    await own_chain.rpc.call("evm_revert", snapshot)
    async with process(settings) as running:
        await included_by_us(own_chain, running.client, op_hash)


async def test_overtaken_operation_is_given_up_for_good_once_the_other_is_final(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with serving(settings_for(own_chain, tmp_path, finality_depth=2)) as client:
        await own_chain.mine(3)
        _, _, op_hash, snapshot = await overtake(own_chain, client)
        await client.becomes(op_hash, "dropped")
        await own_chain.mine(3)
        later = await client.send(await (await own_chain.account()).operation())
        await client.included(later)  # a block that the bundler saw
        await own_chain.rpc.call("evm_revert", snapshot)
        await own_chain.mine(9)
        after = await client.send(await (await own_chain.account()).operation())
        await client.included(after)
        assert (await client.status(op_hash) or {})["status"] == "dropped"


async def test_what_follows_an_overtaken_operation_waits_for_nothing(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account, mine, op_hash, _ = await overtake(own_chain, client)
        await client.becomes(op_hash, "dropped")
        follower = account.sign(mine.replace(nonce=mine.nonce + 1))
        assert (await client.included(await client.send(follower)))["success"] is True


async def test_overtaken_operation_does_not_count_against_its_paymaster(own_chain: Chain, tmp_path: Path) -> None:
    """[EREP-015] It passed; its account signed another one. When it comes back it counts again."""
    paymaster = await own_chain.put(PAYMASTER_OK, deposit_on=V08)
    await own_chain.stake(V08, paymaster)

    async def counts(client: Client) -> tuple[int, int]:
        found = await client.rpc.call("debug_bundler_dumpReputation", to_hex(V08.address))
        return next(
            (
                (int(one["opsSeen"], 16), int(one["opsIncluded"], 16))
                for one in found
                if one["address"] == checksum(paymaster)
            ),
            (0, 0),
        )

    async with serving(settings_for(own_chain, tmp_path, debug=True)) as client:
        await own_chain.mine(3)
        _, _, op_hash, snapshot = await overtake(own_chain, client, paymaster=paymaster)
        await client.becomes(op_hash, "dropped")
        assert await counts(client) == (0, 0)
        await own_chain.rpc.call("evm_revert", snapshot)
        await included_by_us(own_chain, client, op_hash)
        assert await counts(client) == (1, 1)


async def test_operations_whose_bundles_are_front_run_again_and_again_are_not_given_up(
    own_chain: Chain, tmp_path: Path
) -> None:
    """Three bundles that revert for no reason to be seen are enough to give an operation up; a nonce that a stranger used is one."""
    async with serving(settings_for(own_chain, tmp_path, debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        await own_chain.automine(False)
        innocent = await client.send(await (await own_chain.account()).operation())
        for _ in range(3):
            account = await own_chain.account()
            mine = await account.operation()
            company = await client.send(mine)
            await hand_in_first(own_chain, account.sign(mine.replace(call_gas_limit=99_999)))
            sending = asyncio.ensure_future(client.rpc.call("debug_bundler_sendBundleNow"))
            await client.sent(innocent, own_chain)
            bundle = (await client.becomes(company, "bundled"))["transactionHash"]
            await own_chain.mine()
            await sending
            assert (await own_chain.rpc.call("eth_getTransactionReceipt", bundle))["status"] == "0x0"
            await client.becomes(company, "dropped")
        await client.rpc.call("debug_bundler_setBundlingMode", "auto")
        await release(own_chain)
        assert (await client.included(innocent))["success"] is True
