"""Several executors: disjoint bundles at once, nobody held up by a stuck one, poor keys rest, restarts keep nonces apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bundler.keys import KeyFile
from bundler.lanes import UnderWay
from bundler.mempool import Entry, Mempool
from bundler.settings import Settings
from contracts.devnet.accounts import FUNDS_WEI, devnet_key
from contracts.entrypoint import V07, V08
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.types import Address, Hash32, keccak, to_hex
from contracts.userop import UserOperation, required_prefund
from tests.bundler.rig import PAYMASTER_OK, Chain, Client, process, serving, settings_for, until, with_limits

SENDERS: tuple[Address, ...] = tuple(bytes([i]) * 20 for i in range(1, 9))
PAYMASTER: Address = b"\xee" * 20
VAULT: Address = b"\xdd" * 20


def entry(sender: Address, nonce: int = 0, paymaster: Address | None = None, **known: Any) -> Entry:
    """An operation as the pool has it."""
    op = with_limits(UserOperation(sender, nonce, b"", paymaster=paymaster))
    return Entry(V08.user_op_hash(op, 1337), op, V08, 0.0, 0, **known)


def test_operations_of_one_sender_are_never_under_way_in_two_bundles() -> None:
    under_way = UnderWay([entry(SENDERS[0], nonce=1 << 64)])
    assert under_way.meets(entry(SENDERS[0], nonce=2 << 64))
    assert not under_way.meets(entry(SENDERS[1]))


def test_sto_041_holds_between_bundles_in_both_directions() -> None:
    reader = entry(SENDERS[0], contracts=frozenset({SENDERS[1]}))
    assert UnderWay([reader]).meets(entry(SENDERS[1]))
    assert UnderWay([entry(SENDERS[1])]).meets(reader)


def test_a_staked_entity_that_both_validations_touch_keeps_them_apart() -> None:
    keeps: dict[str, Any] = {"staked": frozenset({PAYMASTER}), "contracts": frozenset({PAYMASTER})}
    under_way = UnderWay([entry(SENDERS[0], paymaster=PAYMASTER, **keeps)])
    assert under_way.meets(entry(SENDERS[1], paymaster=PAYMASTER, **keeps))
    stateless = entry(SENDERS[1], paymaster=PAYMASTER, staked=frozenset({PAYMASTER}))
    assert not under_way.meets(stateless)


def test_an_unstaked_entity_or_a_shared_token_keeps_nobody_apart() -> None:
    under_way = UnderWay([entry(SENDERS[0], contracts=frozenset({VAULT}))])
    assert not under_way.meets(entry(SENDERS[1], contracts=frozenset({VAULT})))


def test_a_deposit_is_promised_once_over_all_bundles() -> None:
    first, *others = [entry(sender, paymaster=PAYMASTER) for sender in SENDERS[:4]]
    under_way, pool = UnderWay([first]), Mempool()
    successor = entry(others[2].op.sender, 1)
    for one in (*others, successor):
        pool.add(one)
    assert under_way.paymasters(V08, others) == [PAYMASTER]
    assert under_way.paymasters(V07, others) == []
    deposit_wei = 3 * required_prefund(first.op)
    kept = under_way.affordable(V08, [*others, successor], {PAYMASTER: deposit_wei}, pool)
    assert kept == others[:2]
    assert under_way.affordable(V08, others, {PAYMASTER: deposit_wei - 1}, pool) == others[:1]


def lanes(chain: Chain, folder: Path, count: int, **changes: Any) -> Settings:
    """Settings with `count` executors."""
    files = []
    for i in range(1, count):
        path = folder / f"lane{i}.key"
        path.touch(mode=0o600)
        path.write_text(devnet_key(f"lane {i}").hex())
        files.append(path)
    return settings_for(chain, folder, lane_key_files=tuple(files), **({"lane_min_ops": 1} | changes))


async def fund(chain: Chain, settings: Settings, wei: int = FUNDS_WEI) -> list[Address]:
    """Give every lane beyond the first its money; returns all executors."""
    addresses = [key.address for key in settings.executors()]
    for address in addresses[1:]:
        await chain.rpc.call("anvil_setBalance", to_hex(address), hex(wei))
    return addresses


async def transaction(chain: Chain, client: Client, op_hash: Hash32) -> dict[str, Any]:
    """The transaction that carries the operation, once the node has it."""
    await client.sent(op_hash, chain)
    status = await client.status(op_hash)
    assert status is not None
    found: dict[str, Any] = await chain.rpc.call("eth_getTransactionByHash", status["transactionHash"])
    return found


async def once_each(chain: Chain, client: Client, op_hashes: Sequence[Hash32]) -> None:
    """All are included, exactly once."""
    for op_hash in op_hashes:
        assert (await client.included(op_hash))["success"] is True
    await client.settled()
    for op_hash in op_hashes:
        assert len(await chain.receipts_of(V08, op_hash)) == 1


async def test_operations_that_come_while_a_bundle_is_under_way_go_by_another_executor(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = lanes(own_chain, tmp_path, 3)
    executors = await fund(own_chain, settings)
    async with serving(settings) as client:
        await own_chain.automine(False)
        sent = [await client.send(await (await own_chain.account()).operation()) for _ in range(3)]
        carriers = [(await transaction(own_chain, client, op_hash))["from"] for op_hash in sent]
        assert sorted(carriers) == sorted(to_hex(address) for address in executors)
        waits = await client.send(await (await own_chain.account()).operation())
        assert (await client.status(waits) or {})["status"] == "received"
        await own_chain.mine()
        await own_chain.automine(True)
        await own_chain.mine()
        await once_each(own_chain, client, [*sent, waits])


async def test_a_second_operation_of_a_sender_waits_for_the_bundle_of_the_first(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = lanes(own_chain, tmp_path, 2)
    await fund(own_chain, settings)
    async with serving(settings) as client:
        account = await own_chain.account(deployed=True)
        await own_chain.automine(False)
        first = await client.send(await account.operation(key=1))
        await client.sent(first, own_chain)
        second = await client.send(await account.operation(key=2))
        stranger = await client.send(await (await own_chain.account()).operation())
        await client.sent(stranger, own_chain)
        assert (await client.status(second) or {})["status"] == "received"
        await own_chain.automine(True)
        await own_chain.mine()
        await once_each(own_chain, client, [first, second, stranger])


async def test_few_operations_open_no_further_lane_until_a_bundle_misses_a_block(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = lanes(own_chain, tmp_path, 2, lane_min_ops=3, blocks_before_resubmit=50)
    executors = await fund(own_chain, settings)
    async with serving(settings) as client:
        await own_chain.automine(False)
        stuck = await client.send(await (await own_chain.account()).operation())
        await client.sent(stuck, own_chain)
        few = [await client.send(await (await own_chain.account()).operation()) for _ in range(2)]
        assert [(await client.status(op_hash) or {})["status"] for op_hash in few] == ["received"] * 2
        await own_chain.rpc.call("anvil_dropAllTransactions")
        await own_chain.rpc.call("evm_mine")  # the first bundle misses this block: nobody waits for it
        for op_hash in few:
            assert (await transaction(own_chain, client, op_hash))["from"] == to_hex(executors[1])
        await own_chain.automine(True)
        await own_chain.mine()
        await once_each(own_chain, client, [stuck, *few])


async def test_what_overdraws_a_deposit_together_with_a_bundle_under_way_waits(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = lanes(own_chain, tmp_path, 2, lane_min_ops=2, blocks_before_resubmit=50)
    executors = await fund(own_chain, settings)
    async with serving(settings) as client:
        accounts = [await own_chain.account(deployed=True) for _ in range(2)]
        paymaster = await own_chain.put(PAYMASTER_OK, deposit_on=V08)
        first, second = [a.sign(with_limits((await a.draft()).replace(paymaster=paymaster))) for a in accounts]
        await own_chain.automine(False)
        sent = await client.send(first)
        await client.sent(sent, own_chain)
        poor = await client.send(second)
        deposit = keccak(paymaster.rjust(32, b"\0") + bytes(32))  # StakeManager.deposits[paymaster].deposit
        left_wei = required_prefund(first) * 3 // 2  # enough for each of them, not for both
        await own_chain.rpc.call(
            "anvil_setStorageAt", to_hex(V08.address), to_hex(deposit), to_hex(left_wei.to_bytes(32))
        )
        stranger = await client.send(await (await own_chain.account()).operation())
        await own_chain.rpc.call("anvil_dropAllTransactions")
        await own_chain.rpc.call("evm_mine")  # the first bundle misses it, so the other lane takes what it can
        assert (await transaction(own_chain, client, stranger))["from"] == to_hex(executors[1])
        assert (await client.status(poor) or {})["status"] == "received"
        await own_chain.automine(True)
        await own_chain.mine()
        await once_each(own_chain, client, [sent, stranger, poor])


async def test_a_poor_executor_rests_and_works_again_with_money(own_chain: Chain, tmp_path: Path) -> None:
    settings = lanes(own_chain, tmp_path, 2, lane_min_balance_wei=10**18)
    executors = [key.address for key in settings.executors()]
    await own_chain.rpc.call("anvil_setBalance", to_hex(executors[0]), hex(10**17))
    await fund(own_chain, settings)
    async with serving(settings) as client:
        first = await client.send(await (await own_chain.account()).operation())
        assert (await client.included(first))["receipt"]["from"] == to_hex(executors[1])
        await own_chain.rpc.call("anvil_setBalance", to_hex(executors[0]), hex(FUNDS_WEI))
        await own_chain.mine()

        async def rich() -> bool:
            return int((await client.service())["executors"][0]["balance"], 16) == FUNDS_WEI

        await until(rich, "the new balance is seen")
        second = await client.send(await (await own_chain.account()).operation())
        assert (await client.included(second))["receipt"]["from"] == to_hex(executors[0])


async def test_a_killed_bundler_takes_every_lane_up_where_it_was(own_chain: Chain, tmp_path: Path) -> None:
    settings = lanes(own_chain, tmp_path, 2)
    executors = await fund(own_chain, settings)
    async with process(settings) as running:
        await own_chain.automine(False)
        sent = [await running.client.send(await (await own_chain.account()).operation()) for _ in range(2)]
        before = [await transaction(own_chain, running.client, op_hash) for op_hash in sent]
        running.process.kill()
        await running.died()
    await own_chain.rpc.call("anvil_dropAllTransactions")  # the node forgot, too
    async with process(settings) as running:
        after = [await transaction(own_chain, running.client, op_hash) for op_hash in sent]
        assert [tx["hash"] for tx in after] == [tx["hash"] for tx in before]
        assert {tx["from"] for tx in after} == {to_hex(address) for address in executors}
        await own_chain.automine(True)
        await own_chain.mine()
        await once_each(own_chain, running.client, sent)


async def test_what_a_key_sent_that_has_left_the_settings_is_sent_again_and_settled(
    own_chain: Chain, tmp_path: Path
) -> None:
    settings = lanes(own_chain, tmp_path, 2)
    await fund(own_chain, settings)
    async with process(settings) as running:
        await own_chain.automine(False)
        sent = [await running.client.send(await (await own_chain.account()).operation()) for _ in range(2)]
        before = [await transaction(own_chain, running.client, op_hash) for op_hash in sent]
        running.process.kill()
        await running.died()
    await own_chain.rpc.call("anvil_dropAllTransactions")
    async with serving(replace(settings, lane_key_files=(), blocks_before_resubmit=1)) as client:
        await own_chain.rpc.call("anvil_dropAllTransactions")
        await own_chain.rpc.call("anvil_mine", hex(2))  # nobody can raise the fees of the key that is gone
        gone = next(tx for tx in before if tx["from"] != to_hex(own_chain.accounts.bundler.address))
        await until(
            partial(own_chain.rpc.call, "eth_getTransactionByHash", gone["hash"]), "the same bytes are sent again"
        )
        await own_chain.automine(True)
        await own_chain.mine()
        await once_each(own_chain, client, sent)


async def test_every_lane_of_a_lost_block_starts_over(own_chain: Chain, tmp_path: Path) -> None:
    settings = lanes(own_chain, tmp_path, 2)
    await fund(own_chain, settings)
    async with serving(settings) as client:
        await own_chain.mine(3)
        await own_chain.automine(False)
        sent = [await client.send(await (await own_chain.account()).operation()) for _ in range(2)]
        for op_hash in sent:
            await client.sent(op_hash, own_chain)
        await own_chain.automine(True)
        await own_chain.mine()
        lost = [(await client.included(op_hash))["receipt"]["blockHash"] for op_hash in sent]
        await own_chain.rpc.call("anvil_reorg", 2, [])
        for op_hash, block in zip(sent, lost, strict=True):
            (event,) = await until(partial(own_chain.receipts_of, V08, op_hash), "it is in a block again")
            assert event["blockHash"] != block
        await once_each(own_chain, client, sent)


def test_one_key_cannot_be_two_lanes(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_text(devnet_key("lane 1").hex())
    settings = Settings(
        rpc_url="http://node", executor_key=KeyFile(path), database=tmp_path / "db", lane_key_files=(path,)
    )
    with pytest.raises(BadInput, match="a key of its own"):
        settings.executors()
    assert replace(settings, lane_key_files=()).executors()[0].address == Eoa(devnet_key("lane 1")).address


@pytest.mark.parametrize("given", [["a.key", "b.key"], "a.key, b.key"])
def test_lanes_are_named_by_a_list_or_by_commas(given: object) -> None:
    values = {"rpc_url": "http://node", "database": "db", "key_file": "k", "lane_key_files": given}
    assert Settings.from_mapping(values).lane_key_files == (Path("a.key"), Path("b.key"))
