"""What users of other bundlers miss: pending by sender, dropping at the owner's word, prices to offer, and being told when things happen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bundler.events import Event, Kind
from bundler.owner import drop_digest
from bundler.subscriptions import BACKLOG, MOST_EACH, Connection
from contracts.entrypoint import V08
from contracts.errors import InvalidFields, RpcError
from contracts.types import Address, checksum, keccak, to_hex
from tests.bundler.assembly import asm
from tests.bundler.rig import Chain, Client, SimpleAccount, serving, settings_for, with_limits

SIGNS = asm(
    """
    PUSH0 CALLDATALOAD 0xe0 SHR
    0x1626ba7e EQ @signed JUMPI
    PUSH0 PUSH0 MSTORE 0x20 PUSH0 RETURN       ; validateUserOp and everything else: 0
    signed:
    0x1626ba7e00000000000000000000000000000000000000000000000000000000 PUSH0 MSTORE 0x20 PUSH0 RETURN
    """
)
"""An account that anyone may use and that accepts every signature."""


@pytest.fixture(scope="module")
async def chain(chain_state: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    async with Chain.start(*chain_state) as found:
        yield found


@contextlib.asynccontextmanager
async def waiting_bundler(chain: Chain, folder: Path, **changes: Any) -> AsyncIterator[Client]:
    """A bundler that sends nothing by itself."""
    async with serving(settings_for(chain, folder, debug=True, **changes)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        yield client


async def ask_drop(client: Client, op_hash: bytes, deadline_s: int, signature: bytes) -> Any:
    return await client.rpc.call("seawall_dropUserOperation", to_hex(op_hash), hex(deadline_s), to_hex(signature))


async def test_the_pending_operations_of_a_sender_are_listed_by_nonce(chain: Chain, tmp_path: Path) -> None:
    async with waiting_bundler(chain, tmp_path) as client:
        account, other = await chain.account(), await chain.account()
        first = await client.send(await account.operation())
        await client.send(await other.operation())
        found = await client.rpc.call("seawall_getPendingUserOperations", checksum(account.address))
        assert [(one["userOpHash"], one["nonce"], one["status"]) for one in found] == [
            (to_hex(first), "0x0", "received")
        ]
        assert found[0]["entryPoint"] == checksum(V08.address)
        by_entry_point = await client.rpc.call(
            "seawall_getPendingUserOperations", checksum(account.address), checksum(V08.address)
        )
        assert by_entry_point == found
        assert await client.rpc.call("seawall_getPendingUserOperations", checksum(chain.fresh_address())) == []
        with pytest.raises(RpcError, match="sender"):
            await client.rpc.call("seawall_getPendingUserOperations", "me")


async def account_that_signs(chain: Chain) -> SimpleAccount:
    return replace(await chain.account(), address=await chain.put(SIGNS, deposit_on=V08))


async def test_an_owner_drops_his_operation_by_a_signature_of_the_account(chain: Chain, tmp_path: Path) -> None:
    async with waiting_bundler(chain, tmp_path) as client:
        account = await account_that_signs(chain)
        op_hash = await client.send(with_limits(await account.draft(), signature=b""))
        soon = int(time.time()) + 600
        for deadline_s, words in ((int(time.time()) - 5, "is over"), (int(time.time()) + 10_000, "at most 3600 s")):
            with pytest.raises(RpcError, match=words):
                await ask_drop(client, op_hash, deadline_s, b"any")
        assert await ask_drop(client, op_hash, soon, b"any") == to_hex(op_hash)
        status = await client.status(op_hash) or {}
        assert (status["status"], status["reason"]) == ("dropped", "its owner asked for it")
        with pytest.raises(RpcError, match="not in the pool"):
            await ask_drop(client, op_hash, soon, b"any")


async def test_nobody_else_drops_it(chain: Chain, tmp_path: Path) -> None:
    async with waiting_bundler(chain, tmp_path) as client:
        account = await chain.account(deployed=True)  # SimpleAccount verifies no ERC-1271 signatures at all
        op_hash = await client.send(await account.operation())
        soon = int(time.time()) + 600
        signed = account.owner.sign_hash(drop_digest(V08.address, 1337, op_hash, account.address, soon))
        for signature in (b"", signed, b"\xff" * 65):
            with pytest.raises(RpcError, match="does not accept the signature"):
                await ask_drop(client, op_hash, soon, signature)
        assert (await client.status(op_hash) or {})["status"] == "received"


async def test_what_was_sent_can_no_longer_be_dropped(chain: Chain, tmp_path: Path) -> None:
    async with waiting_bundler(chain, tmp_path) as client:
        account = await account_that_signs(chain)
        await chain.automine(False)
        try:
            op_hash = await client.send(with_limits(await account.draft(), signature=b""))
            sending = asyncio.ensure_future(client.rpc.call("debug_bundler_sendBundleNow"))
            await client.becomes(op_hash, "bundled")
            refused = asyncio.ensure_future(ask_drop(client, op_hash, int(time.time()) + 600, b"any"))
            with pytest.raises(RpcError, match="in a bundle that was sent"):
                await refused
            await chain.mine()
            await sending
        finally:
            await chain.automine(True)


async def test_prices_rise_with_the_level_and_never_lie_below_what_is_taken(chain: Chain, tmp_path: Path) -> None:
    async with waiting_bundler(chain, tmp_path, min_priority_fee_wei=7 * 10**9) as client:
        found = await client.rpc.call("seawall_getUserOperationGasPrice")
        assert list(found) == ["slow", "standard", "fast"]
        most = [int(level["maxFeePerGas"], 16) for level in found.values()]
        tips = [int(level["maxPriorityFeePerGas"], 16) for level in found.values()]
        assert most == sorted(most)
        assert min(tips) >= 7 * 10**9
        assert all(fee > tip for fee, tip in zip(most, tips, strict=True))
        assert await client.rpc.call("pimlico_getUserOperationGasPrice") == found
        account = await chain.account()
        draft = await account.draft()
        offered = with_limits(draft, max_fee_per_gas=most[1], max_priority_fee_per_gas=tips[1])
        await client.send(account.sign(offered))


# -- subscriptions --------------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(client: Client) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{client.rpc.url}/ws") as socket:
        yield socket


async def asked(socket: aiohttp.ClientWebSocketResponse, method: str, *params: Any) -> Any:
    await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    answer = await socket.receive_json(timeout=10)
    return answer.get("result", answer.get("error"))


async def told(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    message = await socket.receive_json(timeout=10)
    assert message["method"] == "eth_subscription"
    return dict(message["params"])


async def test_an_operation_is_followed_to_its_block(chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(chain, tmp_path)) as client, listening(client) as socket:
        account, other = await chain.account(), await chain.account()
        number = await asked(socket, "eth_subscribe", "userOperations", {"sender": checksum(account.address)})
        await client.included(await client.send(await other.operation()))
        op_hash = await client.send(await account.operation())
        await client.included(op_hash)
        seen = [await told(socket) for _ in range(3)]
        assert {one["subscription"] for one in seen} == {number}
        results = [one["result"] for one in seen]
        assert [one["status"] for one in results] == ["accepted", "sent", "included"]
        assert {one["userOpHash"] for one in results} == {to_hex(op_hash)}
        assert {one["sender"] for one in results} == {checksum(account.address)}
        assert results[2]["transactionHash"] == results[1]["transactionHash"] is not None
        assert int(results[2]["blockNumber"], 16) == await chain.rpc.block_number()
        assert await asked(socket, "eth_unsubscribe", number) is True
        assert await asked(socket, "eth_unsubscribe", number) is False
        assert await asked(socket, "eth_chainId") == hex(1337)


async def test_bundles_one_operation_and_drops_with_their_reason(chain: Chain, tmp_path: Path) -> None:
    async with waiting_bundler(chain, tmp_path) as client, listening(client) as socket:
        account = await account_that_signs(chain)
        op_hash = await client.send(with_limits(await account.draft(), signature=b""))
        one = await asked(socket, "eth_subscribe", "userOperation", to_hex(op_hash))
        await ask_drop(client, op_hash, int(time.time()) + 60, b"x")
        message = await told(socket)
        assert message["subscription"] == one
        assert (message["result"]["status"], message["result"]["reason"]) == ("dropped", "its owner asked for it")
        bundles = await asked(socket, "eth_subscribe", "bundles")
        other = await chain.account()
        second = await client.send(await other.operation())
        await client.rpc.call("debug_bundler_sendBundleNow")
        sent, included = await told(socket), await told(socket)
        assert sent["subscription"] == included["subscription"] == bundles
        assert [sent["result"]["status"], included["result"]["status"]] == ["sent", "included"]
        assert included["result"]["userOpHashes"] == [to_hex(second)]


async def test_what_cannot_be_subscribed_to_is_said_and_http_has_no_subscriptions(chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(chain, tmp_path, max_websockets=1)) as client, listening(client) as socket:
        for params in (["newHeads"], ["userOperation", "0x12"], ["userOperations", {"from": "0x"}], []):
            assert (await asked(socket, "eth_subscribe", *params))["code"] in (-32602,)
        await socket.send_str("{")
        assert (await socket.receive_json(timeout=10))["error"]["code"] == -32700
        with pytest.raises(RpcError, match="does not exist"):
            await client.rpc.call("eth_subscribe", "bundles")
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{client.rpc.url}/ws")
            assert refused.value.status == 503


async def test_a_stop_ends_the_connections(chain: Chain, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with serving(settings_for(chain, tmp_path)) as client:
            socket = await session.ws_connect(f"{client.rpc.url}/ws")
            await asked(socket, "eth_chainId")
        message = await socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.GOING_AWAY


def test_who_does_not_read_is_cut_off_and_costs_no_more_than_its_backlog() -> None:
    connection = Connection(lambda _: None)
    connection.subscribe(["userOperations"])
    for n in range(BACKLOG + 5):
        connection.note(Event(Kind.ACCEPTED, (keccak(str(n).encode()),)))
    assert connection.overrun.is_set()
    assert connection.waiting.qsize() == BACKLOG
    for _ in range(MOST_EACH - 1):
        connection.subscribe(["bundles"])
    with pytest.raises(InvalidFields, match="at most"):
        connection.subscribe(["bundles"])


def test_the_message_that_an_owner_signs_binds_everything() -> None:
    base = drop_digest(V08.address, 1, keccak(b"op"), b"\x01" * 20, 5)
    others = {
        drop_digest(b"\x02" * 20, 1, keccak(b"op"), b"\x01" * 20, 5),
        drop_digest(V08.address, 2, keccak(b"op"), b"\x01" * 20, 5),
        drop_digest(V08.address, 1, keccak(b"other"), b"\x01" * 20, 5),
        drop_digest(V08.address, 1, keccak(b"op"), b"\x02" * 20, 5),
        drop_digest(V08.address, 1, keccak(b"op"), b"\x01" * 20, 6),
    }
    assert len(others | {base}) == 6
