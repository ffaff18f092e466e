"""Several bundlers on one PostgreSQL database and one chain: whoever is asked, whoever builds, and who takes over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import pytest

from bundler.keys import KeyFile
from bundler.settings import Settings
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.errors import RpcError
from contracts.types import to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import (
    GWEI,
    Chain,
    Client,
    Process,
    SimpleAccount,
    process,
    serving,
    settings_for,
    until,
    with_limits,
)
from tests.postgres import Cluster


@pytest.fixture
async def chain(own_chain: Chain) -> Chain:
    """Its executors' keys are this test's alone."""
    return own_chain


async def key_file(chain: Chain, folder: Path, name: str) -> KeyFile:
    """The key of a rich executor of this name."""
    path = folder / f"{name}.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(devnet_key(name).hex())
        await chain.rpc.call("anvil_setBalance", to_hex(Eoa(devnet_key(name)).address), hex(10**21))
    return KeyFile(path)


async def settings_of(chain: Chain, folder: Path, store: str, name: str | None, **changes: Any) -> Settings:
    """Of a builder with the executor of this name, or of a process that only answers."""
    key = None if name is None else await key_file(chain, folder, name)
    values: dict[str, Any] = {"store": store, "executor_key": key, "build_bundles": key is not None}
    return settings_for(chain, folder, **(values | changes))


async def executors_of(client: Client) -> dict[str, bool]:
    """Which keys the process has, and which of them it leases."""
    return {one["address"]: one["leased"] for one in (await client.service())["executors"]}


def signed(account: SimpleAccount, nonce: int, max_fee: int = 20 * GWEI, tip: int = 2 * GWEI) -> UserOperation:
    """The next operation of an account that is deployed, or will be."""
    call = bytes.fromhex("b61d27f6") + (b"\x11" * 20).rjust(32, b"\0") + bytes(32) + (96).to_bytes(32) + bytes(32)
    op = UserOperation(account.address, nonce, call, max_fee_per_gas=max_fee, max_priority_fee_per_gas=tip)
    return account.sign(with_limits(op))


async def test_what_one_process_accepts_another_bundles_and_both_tell_of_it(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.database()
    async with (
        serving(await settings_of(chain, tmp_path, store, "builder")) as builder,
        serving(await settings_of(chain, tmp_path, store, None)) as front,
    ):
        op_hash = await front.send(await (await chain.account()).operation())
        receipt = await front.included(op_hash)
        assert receipt["success"] is True
        assert (await builder.status(op_hash)) == (await front.status(op_hash))
        await front.settled()
        await builder.settled()
        assert (await front.service())["executors"] == []


async def test_of_two_operations_of_one_nonce_sent_to_two_processes_at_once_one_is_acknowledged(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.database()
    async with (
        serving(await settings_of(chain, tmp_path, store, None)) as one,
        serving(await settings_of(chain, tmp_path, store, None)) as other,
    ):
        for _ in range(5):
            account = await chain.account(deployed=True)
            rivals = [signed(account, 0), signed(account, 0, tip=2 * GWEI + 1)]
            answers = await asyncio.gather(one.send(rivals[0]), other.send(rivals[1]), return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, RpcError)]
            assert len(refused) == 1, answers
            assert "10 % more" in refused[0].message
            pending = await one.rpc.call("seawall_getPendingUserOperations", to_hex(account.address))
            assert [answer for answer in answers if isinstance(answer, bytes)] == [
                bytes.fromhex(op["userOpHash"][2:]) for op in pending
            ]


async def test_a_replacement_at_another_process_takes_the_place_everywhere(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.database()
    async with (
        serving(await settings_of(chain, tmp_path, store, None)) as one,
        serving(await settings_of(chain, tmp_path, store, None)) as other,
    ):
        account = await chain.account(deployed=True)
        first = await one.send(signed(account, 0))
        second = await other.send(signed(account, 0, 23 * GWEI, 3 * GWEI))
        dropped = await one.becomes(first, "dropped")
        assert dropped["reason"] == f"replaced by {to_hex(second)}"
        later = await one.send(signed(account, 1))  # behind the other's operation
        async with serving(await settings_of(chain, tmp_path, store, "builder")) as builder:
            await builder.included(second)
            await builder.included(later)
    assert await chain.receipts_of(V08, first) == []


async def test_limits_of_a_sender_hold_over_all_processes(chain: Chain, cluster: Cluster, tmp_path: Path) -> None:
    store = cluster.database()
    async with contextlib.AsyncExitStack() as stack:
        settings = await settings_of(chain, tmp_path, store, None, max_ops_per_sender=3)
        fronts = [await stack.enter_async_context(serving(settings)) for _ in range(2)]
        account = await chain.account(deployed=True)
        sends = [fronts[n % 2].send(signed(account, n << 64)) for n in range(6)]
        answers = await asyncio.gather(*sends, return_exceptions=True)
        assert sum(isinstance(answer, bytes) for answer in answers) == 3, answers
        rules = {answer.data["rule"] for answer in answers if isinstance(answer, RpcError)}
        assert rules == {"UREP-010"}


async def test_two_builders_share_the_load_and_never_an_operation(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.database()
    many = {"max_ops_per_bundle": 2, "lane_min_ops": 1}
    async with (
        serving(await settings_of(chain, tmp_path, store, "left", **many)) as left,
        serving(await settings_of(chain, tmp_path, store, "right", **many)) as right,
    ):
        await chain.automine(False)
        accounts = [await chain.account() for _ in range(12)]
        hashes = [await left.send(await one.operation()) for one in accounts]

        async def both_are_busy() -> bool:
            return (await left.service())["bundlesInFlight"] == (await right.service())["bundlesInFlight"] == 2

        await until(both_are_busy, "both have sent a bundle")
        await chain.automine(True)
        await chain.mine()
        for op_hash in hashes:
            await right.included(op_hash)
            assert len(await chain.receipts_of(V08, op_hash)) == 1
        senders = {(await right.receipt(h) or {})["receipt"]["from"] for h in hashes}
        assert len(senders) == 2


async def test_a_key_is_leased_by_one_and_taken_over_with_its_bundle_when_the_holder_is_killed(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    settings = await settings_of(chain, tmp_path, cluster.database(), "builder", lease_s=1.0)
    async with process(settings) as first, process(settings) as second:
        assert list((await executors_of(first.client)).values()) == [True]
        assert list((await executors_of(second.client)).values()) == [False]
        await chain.automine(False)
        op_hash = await second.client.send(await (await chain.account()).operation())
        bundled = await first.client.becomes(op_hash, "bundled")
        await chain.rpc.call("anvil_dropAllTransactions")
        first.process.send_signal(signal.SIGKILL)
        await first.died()

        async def is_there_again() -> Any:
            return await chain.rpc.call("eth_getTransactionByHash", bundled["transactionHash"])

        await until(is_there_again, "the second process sends the same transaction")
        assert list((await executors_of(second.client)).values()) == [True]
        await chain.automine(True)
        await chain.mine()
        receipt = await second.client.included(op_hash)
        assert receipt["receipt"]["transactionHash"] == bundled["transactionHash"]
        assert len(await chain.receipts_of(V08, op_hash)) == 1
        await second.client.settled()


async def test_a_process_that_was_frozen_acts_no_more_on_a_key_that_another_took(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    settings = await settings_of(chain, tmp_path, cluster.database(), "builder", lease_s=1.0)
    async with process(settings) as first, process(settings) as second:
        first.process.send_signal(signal.SIGSTOP)
        await until(lambda: _leases(second), "the second has the key")
        hashes = [await second.client.send(await (await chain.account()).operation()) for _ in range(3)]
        for op_hash in hashes:
            await second.client.included(op_hash)
        first.process.send_signal(signal.SIGCONT)
        await until(lambda: _leases(first, False), "the first knows that it has lost the key")
        more = await first.client.send(await (await chain.account()).operation())
        await first.client.included(more)
        for op_hash in [*hashes, more]:
            assert len(await chain.receipts_of(V08, op_hash)) == 1
        assert await _leases(second)


async def _leases(running: Process, wanted: bool = True) -> bool:
    return list((await executors_of(running.client)).values()) == [wanted]


async def test_a_process_leases_no_more_keys_than_it_is_told(chain: Chain, cluster: Cluster, tmp_path: Path) -> None:
    store = cluster.database()
    left, right = await key_file(chain, tmp_path, "left"), await key_file(chain, tmp_path, "right")
    changes: dict[str, Any] = {"executor_key": left, "lane_key_files": (right.path,), "max_leased_keys": 1}
    settings = await settings_of(chain, tmp_path, store, "left", **changes)
    async with serving(settings) as one, serving(settings) as other:
        first, second = (await executors_of(one)), (await executors_of(other))
        assert sorted(first.values()) == sorted(second.values()) == [False, True]
        assert first != second


async def test_transactions_of_a_key_that_nobody_has_any_more_are_settled_by_the_others(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.database()
    async with process(await settings_of(chain, tmp_path, store, "gone", lease_s=1.0)) as gone:
        await chain.automine(False)
        op_hash = await gone.client.send(await (await chain.account()).operation())
        await gone.client.sent(op_hash, chain)
        gone.process.kill()
    async with serving(await settings_of(chain, tmp_path, store, "heir", lease_s=1.0)) as heir:
        await chain.automine(True)
        await chain.mine()
        await heir.included(op_hash)
        await heir.settled()


async def test_what_is_pending_and_what_was_cleared_is_known_to_all(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.database()
    admin: dict[str, Any] = {"debug": True}
    async with (
        serving(await settings_of(chain, tmp_path, store, "builder", **admin)) as builder,
        serving(await settings_of(chain, tmp_path, store, None)) as front,
    ):
        await builder.rpc.call("debug_bundler_setBundlingMode", "manual")
        account = await chain.account()
        op_hash = await front.send(await account.operation())
        pending = await builder.rpc.call("seawall_getPendingUserOperations", to_hex(account.address))
        assert [one["userOpHash"] for one in pending] == [to_hex(op_hash)]
        await builder.rpc.call("debug_bundler_clearState")
        assert await front.status(op_hash) is None

        async def forgotten() -> bool:
            return not await front.rpc.call("seawall_getPendingUserOperations", to_hex(account.address))

        await until(forgotten, "the front has forgotten it, too")


async def test_what_follows_an_operation_that_a_frozen_process_has_to_bring_back_is_kept(
    chain: Chain, cluster: Cluster, tmp_path: Path
) -> None:
    store, options = cluster.database(), {"lease_s": 60.0, "debug": True}
    async with (
        process(await settings_of(chain, tmp_path, store, "left", **options)) as frozen,
        serving(await settings_of(chain, tmp_path, store, "right", **options)) as other,
    ):
        await other.rpc.call("debug_bundler_setBundlingMode", "manual")
        account = await chain.account(deployed=True)
        snapshot = await chain.rpc.call("evm_snapshot")
        first = await frozen.client.send(signed(account, 0))
        await frozen.client.becomes(first, "included")
        frozen.process.send_signal(signal.SIGSTOP)
        second = await other.send(signed(account, 1))
        await chain.rpc.call("evm_revert", snapshot)  # the block with the first one is gone
        await other.rpc.call("debug_bundler_setBundlingMode", "auto")
        for _ in range(8):
            await chain.mine()
            await until(lambda: _has_seen_the_head(other, chain), "the other builder has looked at the block")
        assert (await other.status(second) or {})["status"] == "received"
        frozen.process.send_signal(signal.SIGCONT)
        for op_hash in (first, second):
            await until(lambda op_hash=op_hash: chain.receipts_of(V08, op_hash), "it is on chain")


async def _has_seen_the_head(client: Client, chain: Chain) -> bool:
    return int((await client.service())["lastBlock"] or "0x0", 16) == await chain.rpc.block_number()
