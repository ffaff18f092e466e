"""The keeper as a process, with a real bundler, on the real venues."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contracts import bindings as b
from contracts.devnet import Devnet, devnet_key
from contracts.entrypoint import V08
from contracts.eoa import TransactionSender
from contracts.errors import RpcError
from contracts.rpc import RpcClient
from contracts.types import checksum, to_hex
from contracts.userop import UserOperation
from tests.wallet.keeper_rig import STOP_ID, Process, Rig, Terms, free_port, rig_on, until
from wallet.keeper.triggers import Modules
from wallet.keeper.watch import Trigger

LATEST_ROUND_SLOT = 2
"""Of ReplayFeed: behind the owner and the description."""
NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


@pytest.fixture
async def rig(chain: Devnet, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_on(chain, tmp_path) as rig:
        yield rig


async def started(process: Process) -> Process:
    await process.start()
    return process


def recorded(rig: Rig, name: str = "keeper") -> list[UserOperation]:
    """Every operation in a keeper's database, oldest first."""
    with sqlite3.connect(f"file:{rig.directory / name}.db?mode=ro", uri=True) as db:
        return [
            UserOperation.from_rpc(json.loads(op)) for (op,) in db.execute("SELECT op FROM operations ORDER BY seq")
        ]


async def mine_until_fired(rig: Rig, keeper: Process) -> dict[str, Any]:
    """Blocks at the wall clock's time until the stop has fired: delays on chain pass."""

    async def ask() -> dict[str, Any] | None:
        await rig.mine()
        await rig.wait_head(keeper)
        fired = (await rig.status(keeper))["fired"]
        return fired[0] if fired else None

    return await until(ask, "the stop to fire", keeper)


async def test_a_due_stop_fires_once_through_the_bundler(rig: Rig) -> None:
    account = await rig.create_account()
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    assert (await rig.wait_head(keeper))["pending"] == []
    await rig.price(2_800)
    fired = await rig.wait_fired(keeper)
    assert fired["account"] == fired["caller"] == checksum(account)
    assert fired["due_block"] < fired["block"]
    assert await rig.fired() == 1
    assert await rig.executed() == 1
    (op,) = recorded(rig)
    assert op.paymaster is None


async def test_a_processed_head_means_that_everything_due_at_it_is_with_a_bundler(rig: Rig) -> None:
    await rig.create_account()
    bundler = await started(rig.bundler(executor="penniless"))
    keeper = await started(rig.keeper(bundler.url))
    await rig.price(2_800)
    (pending,) = (await rig.wait_head(keeper))["pending"]
    assert pending["state"] == "sent"
    async with RpcClient(bundler.url) as rpc:
        assert await rpc.call("eth_getUserOperationByHash", pending["user_op_hash"]) is not None


async def test_nothing_is_sent_while_nothing_is_due(rig: Rig) -> None:
    await rig.create_account()
    keeper = await started(rig.keeper(NOBODY))
    await rig.price(2_901)
    status = await rig.wait_head(keeper)
    assert status["pending"] == status["fired"] == []
    assert status["watching"] == [{"account": checksum(rig.account), "id": str(STOP_ID)}]
    assert recorded(rig) == []


async def test_a_stop_armed_while_the_keeper_runs_is_watched(rig: Rig) -> None:
    rig.start_block = await rig.rpc.block_number()
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    assert (await rig.wait_head(keeper))["watching"] == []
    await rig.create_account()
    await rig.price(2_800)
    await rig.wait_fired(keeper)


async def test_a_session_for_another_key_is_not_ours_to_watch(rig: Rig) -> None:
    await rig.create_account(key=rig.net.accounts.keeper2)
    keeper = await started(rig.keeper(NOBODY))
    await rig.price(2_800)
    assert (await rig.wait_head(keeper))["watching"] == []


async def test_a_watch_file_limits_what_is_watched(rig: Rig) -> None:
    one = await rig.create_account(salt=b"one")
    start = rig.start_block
    await rig.create_account(salt=b"two")
    rig.start_block = start
    (rig.directory / "watch.toml").write_text(f'[[triggers]]\naccount = "{checksum(one)}"\nids = [{STOP_ID}]\n')
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url, settings='watch = "watch.toml"\n'))
    await rig.price(2_800)
    assert (await rig.wait_fired(keeper))["account"] == checksum(one)
    assert (await rig.wait_head(keeper))["pending"] == []
    assert await rig.fired() == 0  # the second account's


async def test_a_large_position_is_closed_in_parts_and_fires_once(rig: Rig) -> None:
    await rig.create_account(Terms(max_size=4))
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    await rig.price(2_800)
    await mine_until_fired(rig, keeper)
    assert await rig.executed() == 3
    assert await rig.fired() == 1
    assert len({op.nonce for op in recorded(rig)}) == 3


async def test_two_keepers_are_harmless(rig: Rig) -> None:
    await rig.create_account()
    bundler = await started(rig.bundler())
    keepers = [await started(rig.keeper(bundler.url, name)) for name in ("one", "two")]
    await rig.price(2_800)
    for keeper in keepers:
        await rig.wait_fired(keeper)
    assert await rig.executed() == 1


async def test_a_second_bundler_is_used_when_the_first_is_down(rig: Rig) -> None:
    await rig.create_account()
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(NOBODY, settings=f'backup_bundler_urls = ["{bundler.url}"]\n'))
    await rig.price(2_800)
    assert (await rig.wait_fired(keeper))["caller"] == checksum(rig.account)


async def test_a_head_waits_for_a_bundler_that_is_down(rig: Rig) -> None:
    await rig.create_account()
    bundler = rig.bundler(port=(port := free_port()))
    keeper = await started(rig.keeper(f"http://127.0.0.1:{port}", settings="direct_fallback = false\n"))
    before = (await rig.wait_head(keeper))["head"]
    await rig.price(2_800)

    async def waiting() -> str:
        return str((await rig.status(keeper))["waiting"])

    assert "no bundler takes the operation" in await until(waiting, "the keeper to say that it waits")
    assert (await rig.status(keeper))["head"] == before
    await bundler.start()
    await rig.wait_fired(keeper)
    assert (await rig.wait_head(keeper))["waiting"] == ""


async def test_without_any_bundler_the_stop_is_touched_and_then_executed_as_anyone_may(rig: Rig) -> None:
    await rig.create_account(Terms(public_delay_s=2))
    keeper = await started(rig.keeper(NOBODY))
    await rig.price(2_800)

    async def ask() -> dict[str, Any] | None:
        await rig.mine()
        fired = (await rig.status(keeper))["fired"]
        return fired[0] if fired else None

    fired = await until(ask, "the direct execution")
    assert fired["caller"] == checksum(rig.net.accounts.keeper.address)
    assert "user_op_hash" not in fired
    assert await rig.executed() == 1
    assert recorded(rig) == []


async def test_a_keeper_without_money_leaves_the_last_resort_to_others(rig: Rig) -> None:
    await rig.create_account()
    secret = rig._secret("poor.key", devnet_key("penniless"))
    keeper = await started(rig.keeper(NOBODY, settings=f'transaction_key_file = "{secret}"\n'))
    await rig.price(2_800)

    async def waiting() -> str:
        return str((await rig.status(keeper))["waiting"])

    await until(waiting, "the keeper to say that it waits")
    public = TransactionSender(rig.rpc, rig.net.accounts.trader2, rig.net.chain_id)
    stop_loss = rig.net.addresses.stop_loss
    await public.transact(stop_loss, b.GUARD_TOUCH.encode(rig.account, STOP_ID))
    await public.transact(stop_loss, b.GUARD_EXECUTE.encode(rig.account, STOP_ID))
    fired = await rig.wait_fired(keeper)
    assert fired["caller"] == checksum(rig.net.accounts.trader2.address)


async def test_a_blocked_stop_is_touched_once_and_fires_when_its_patience_ends(rig: Rig) -> None:
    await rig.create_account(Terms(max_deviation_bps=100, deviation_patience_s=2))
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    await rig.price(2_800)
    await rig.wait_head(keeper)
    await mine_until_fired(rig, keeper)
    events = [fact["event"] for fact in keeper.facts()]
    assert events.count("blocked") == 1
    assert await rig.executed() == 1
    with sqlite3.connect(rig.directory / "keeper.db") as db:
        assert db.execute("SELECT count(*) FROM transactions WHERE kind = 'touch'").fetchone() == (1,)


async def test_a_stop_that_slips_too_far_is_touched_and_fires_once_its_bound_has_widened(rig: Rig) -> None:
    await rig.create_account(Terms(trigger_price=3_500, slippage_bps=0, widen_s=3))
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    await rig.price(3_100)  # the pool still trades near 3,000
    await mine_until_fired(rig, keeper)
    blocked = [fact for fact in keeper.facts() if fact["event"] == "blocked"]
    assert len(blocked) == 1
    assert await rig.executed() == 1


async def test_an_exhausted_session_is_named_and_the_public_delay_still_protects(rig: Rig) -> None:
    await rig.create_account(Terms(prefund_budget_wei=1))
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    await rig.price(2_800)
    fired = await mine_until_fired(rig, keeper)
    assert fired["caller"] == checksum(rig.net.accounts.keeper.address)
    (rejected,) = [fact for fact in keeper.facts() if fact["event"] == "rejected"]
    assert "prefund budget" in rejected["reason"]


async def test_an_operation_that_is_not_included_is_replaced_at_its_nonce_with_higher_fees(rig: Rig) -> None:
    await rig.create_account()
    bundler = await started(rig.bundler(executor="penniless"))
    keeper = await started(rig.keeper(bundler.url, settings="replace_after_blocks = 2\n"))
    await rig.price(2_800)
    await rig.wait_head(keeper)

    async def replaced() -> list[UserOperation] | None:
        await rig.mine()
        await rig.wait_head(keeper)
        found = recorded(rig)
        return found if len(found) > 1 else None

    first, second = (await until(replaced, "a replacement"))[:2]
    assert second.nonce == first.nonce
    assert second.call_data == first.call_data
    assert second.max_fee_per_gas * 100 >= first.max_fee_per_gas * 112
    assert second.max_priority_fee_per_gas * 100 >= first.max_priority_fee_per_gas * 112
    assert len((await rig.status(keeper))["pending"]) == 1


async def test_a_stop_that_a_reorganisation_undid_fires_again(rig: Rig) -> None:
    await rig.create_account()
    keeper = await started(rig.keeper(NOBODY))
    await rig.wait_head(keeper)
    before = await rig.rpc.call("evm_snapshot")
    for _ in range(2):
        await rig.price(2_800)

        async def fired() -> bool:
            await rig.mine()
            return await rig.fired() == 1

        await until(fired, "the stop to fire on this branch")
        await rig.rpc.call("evm_revert", before)
        before = await rig.rpc.call("evm_snapshot")


async def mark_of(rig: Rig) -> int:
    """What the chain holds for the best price, in dollars."""
    answer = await rig.rpc.eth_call(rig.net.addresses.stop_loss, b.MARK_OF.encode(rig.account, STOP_ID))
    return int(b.MARK_OF.decode(answer)[0]) // 10**18


TRAILING = Terms(trigger_price=3_000, extras=(0, 0, 0, 500, 0))
"""5 % behind the best price, which starts at 3,000 dollars."""


async def trailing_account(rig: Rig) -> None:
    """Armed some seconds ago: a round of the arming's own second does not count."""
    await rig.create_account(TRAILING)
    await rig.rpc.call("evm_increaseTime", 10)
    await rig.mine()


async def test_a_trailing_stop_is_moved_by_proof_and_fires_on_the_way_back(rig: Rig) -> None:
    """From 3,300 it is due at 3,135; as it was armed it would be at 2,850."""
    await trailing_account(rig)
    bundler = await started(rig.bundler())
    keeper = await started(rig.keeper(bundler.url))
    await rig.price(3_300)
    await until(lambda: marked(rig, 3_300), "the mark to move", keeper)
    await rig.price(3_140)
    assert (await rig.wait_head(keeper))["pending"] == []
    await rig.price(3_130)
    fired = await rig.wait_fired(keeper)
    assert fired["caller"] == checksum(rig.account)


async def marked(rig: Rig, dollars: int) -> bool | None:
    return await mark_of(rig) == dollars or None


async def test_rounds_of_a_time_without_a_keeper_are_proven_when_one_runs_again(rig: Rig) -> None:
    await trailing_account(rig)
    bundler = await started(rig.bundler())
    first = await started(rig.keeper(bundler.url, "first"))
    await rig.price(3_010)
    await until(lambda: marked(rig, 3_010), "the mark to move", first)
    await first.stop(kill=True)
    for dollars in (3_200, 3_300, 3_250, 3_120):
        await rig.price(dollars)
    keeper = await started(rig.keeper(bundler.url))
    await rig.wait_fired(keeper)
    *_, proof = [fact for fact in keeper.facts() if fact["event"] == "proving"]  # both keepers write to one log
    assert int(proof["price"]) == 3_300 * 10**18


async def test_a_replaced_aggregator_is_shown_to_the_chain_after_what_the_old_one_said(rig: Rig) -> None:
    """Once the new one is seen, rounds of the old one prove nothing: its 3,200 goes first, though nothing is due by it."""
    await trailing_account(rig)
    bundler = await started(rig.bundler())
    first = await started(rig.keeper(bundler.url, "first"))
    await rig.price(3_010)
    await until(lambda: marked(rig, 3_010), "the mark to move", first)
    await first.stop(kill=True)
    await rig.price(3_200)
    feed, phase_two = rig.net.addresses.feed_eth_usd, 2 << 64
    await rig.rpc.call("anvil_setStorageAt", to_hex(feed), hex(LATEST_ROUND_SLOT), to_hex(phase_two.to_bytes(32)))
    await rig.price(3_150)
    keeper = await started(rig.keeper(bundler.url))

    async def seen() -> int | None:
        """The first round known of the phase in which the chain saw the feed last."""
        answer = await rig.rpc.eth_call(rig.net.addresses.stop_loss, b.MARK_OF.encode(rig.account, STOP_ID))
        first_round: int = b.MARK_OF.decode(answer)[3]
        return first_round if first_round > phase_two else None

    assert await until(seen, "the new aggregator to be seen", keeper) == phase_two + 1
    assert await mark_of(rig) == 3_200
    await rig.price(3_030)
    await rig.wait_fired(keeper)


async def test_a_step_that_changes_nothing_is_not_paid_for(rig: Rig) -> None:
    await trailing_account(rig)
    keeper = await started(rig.keeper(NOBODY))
    await rig.price(3_100)
    await until(lambda: marked(rig, 3_100), "the mark to move", keeper)
    await rig.price(3_110)
    await rig.price(3_090)
    await rig.wait_head(keeper)
    assert await mark_of(rig) == 3_100
    assert sum(fact["event"] == "proving" for fact in keeper.facts()) == 1


async def test_sigterm_ends_it_in_good_order(rig: Rig) -> None:
    await rig.create_account()
    keeper = await started(rig.keeper(NOBODY))
    await rig.wait_head(keeper)
    assert await keeper.stop() == 0


async def test_it_waits_for_a_node_that_is_not_there_yet(rig: Rig) -> None:
    keeper = rig.keeper(NOBODY)
    keeper.arguments += ["--rpc-url", NOBODY]
    await keeper.start(listening=False)

    async def waiting() -> bool:
        return any(fact["event"] == "waiting" for fact in keeper.facts())

    await until(waiting, "a word about the node")
    assert await keeper.stop() == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--chain-id", "1"], 2, "the profile is for chain 1"),
        (["--session-key-file", "/dev/null"], 2, "must hold one private key"),
        (["--watch", "/nowhere.toml"], 3, "cannot be read"),
        (["--host", "192.0.2.1"], 3, "cannot listen"),
        (["--db", "/dev/null/x"], 3, "cannot be opened"),
    ],
)
async def test_what_cannot_work_is_said_before_it_listens(rig: Rig, flags: list[str], code: int, words: str) -> None:
    keeper = rig.keeper(NOBODY)
    keeper.arguments += flags
    await keeper.start(listening=False)
    assert await keeper.ended() == code
    assert words in keeper.log.read_text()


async def test_a_database_has_one_keeper_and_one_key(rig: Rig) -> None:
    first = await started(rig.keeper(NOBODY))
    second = rig.keeper(NOBODY)
    await second.start(listening=False)
    assert await second.ended() == 3
    assert "another keeper uses" in second.log.read_text()
    await first.stop()
    other_key = rig._secret("other.key", devnet_key("keeper2"))
    third = rig.keeper(NOBODY)
    third.arguments += ["--session-key-file", str(other_key)]
    await third.start(listening=False)
    assert await third.ended() == 2
    assert "belongs to" in third.log.read_text()


async def test_its_status_service_answers_json_rpc_and_supervisors(rig: Rig) -> None:
    keeper = await started(rig.keeper(NOBODY))
    await rig.wait_head(keeper)
    async with RpcClient(keeper.url) as rpc, aiohttp.ClientSession() as http:
        with pytest.raises(RpcError) as caught:
            await rpc.call("eth_chainId")
        assert caught.value.rpc_code == -32601
        async with http.get(f"{keeper.url}/health") as health, http.get(f"{keeper.url}/ready") as ready:
            assert (health.status, ready.status) == (200, 200)
            assert (await ready.json())["ready"] is True
        async with http.post(keeper.url, data=b"{") as broken:
            assert (await broken.json())["error"]["code"] == -32700


def test_triggers_of_one_account_have_nonce_lanes_of_their_own() -> None:
    modules = Modules(b"\x01" * 20, b"\x02" * 20, b"\x03" * 20, V08)
    one, two = (modules.lane(Trigger(b"\x04" * 20, i)) for i in (1, 2))
    assert one.to_bytes(24) == b"\x03" * 20 + b"\x02\x00\x00\x01"
    assert two == one + 1
