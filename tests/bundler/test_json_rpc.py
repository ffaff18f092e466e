"""The HTTP and JSON-RPC surface: every method, every malformed request, never a 500 and never a hang."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.entrypoint import V07, V08, V09
from contracts.errors import RpcError
from contracts.types import checksum, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import Chain, Client, serving, settings_for, with_limits

METHODS = (
    "eth_sendUserOperation", "eth_estimateUserOperationGas", "eth_getUserOperationByHash", "eth_getUserOperationReceipt",
    "eth_supportedEntryPoints", "eth_chainId", "web3_clientVersion", "seawall_status", "seawall_getUserOperationStatus",
)  # fmt: skip


async def post(client: Client, body: bytes, timeout_s: float = 10.0) -> tuple[int, Any]:
    """HTTP status and decoded answer (None if empty)."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
        session.post(client.rpc.url, data=io.BytesIO(body)) as response,
    ):
        text = await response.read()
        return response.status, json.loads(text) if text else None


def post_now(url: str, body: bytes) -> tuple[int, Any]:
    """The same without a loop; anything but an HTTP answer within 10 s raises."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 (our own address)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            text = response.read()
            return response.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


async def test_chain_entry_points_and_version_are_told(bundler: Client) -> None:
    assert await bundler.rpc.call("eth_chainId") == "0x539"
    assert await bundler.rpc.call("eth_supportedEntryPoints") == [checksum(one.address) for one in (V08, V07, V09)]
    assert (await bundler.rpc.call("web3_clientVersion")).startswith("seawall/")


async def test_status_reports_counts_and_the_last_block(bundler: Client) -> None:
    await bundler.settled()
    status = await bundler.service()
    assert status["pending"] == status["inFlight"] == status["validating"] == status["bundlesInFlight"] == 0
    assert int(status["lastBlock"], 16) > 0
    assert status["ready"] is True
    assert status["draining"] is False


async def test_health_and_readiness_are_get_requests(bundler: Client) -> None:
    async with aiohttp.ClientSession(bundler.rpc.url) as session:
        async with session.get("/health") as response:
            assert response.status == 200
        async with session.get("/ready") as response:
            assert response.status == 200
            assert (await response.json())["ready"] is True


async def test_no_cors_header_unless_configured(own_chain: Chain, bundler: Client, tmp_path: Path) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'
    async with aiohttp.ClientSession() as session:
        async with session.post(bundler.rpc.url, data=body) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
        async with session.options(bundler.rpc.url) as response:
            assert response.status == 405
        async with serving(settings_for(own_chain, tmp_path, cors_origin="https://wallet.example")) as client:
            async with session.post(client.rpc.url, data=body) as response:
                assert response.headers["Access-Control-Allow-Origin"] == "https://wallet.example"
            async with session.options(client.rpc.url) as response:
                assert response.status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        (b'"x"', -32600),
        (b"null", -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"eth_chainId"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"eth_nothing"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[1]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"eth_sendUserOperation","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"eth_getUserOperationReceipt","params":["0x12"]}', -32602),
    ],
)
async def test_malformed_requests_get_an_error_object(bundler: Client, body: bytes, code: int) -> None:
    status, answer = await post(bundler, body)
    assert status == 200
    assert answer["error"]["code"] == code
    assert answer["jsonrpc"] == "2.0"


async def test_huge_body_and_huge_batch_are_refused(bundler: Client) -> None:
    status, answer = await post(bundler, b'{"x":"' + b"a" * 2_000_000 + b'"}')
    assert (status, answer["error"]["code"]) == (200, -32600)
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    status, answer = await post(bundler, json.dumps([call] * 51).encode())
    assert (status, answer["error"]["code"]) == (200, -32600)


async def test_batch_is_answered_in_order_and_notifications_are_not(bundler: Client) -> None:
    calls = [{"jsonrpc": "2.0", "id": i, "method": "eth_chainId"} for i in range(5)]
    calls[2].pop("id")
    _, answers = await post(bundler, json.dumps([*calls, 7]).encode())
    assert [answer.get("id") for answer in answers] == [0, 1, 3, 4, None]
    status, answer = await post(bundler, json.dumps(calls[2]).encode())
    assert (status, answer) == (204, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonce": None}, "missing UserOperation field 'nonce'"),
        ({"nonce": "0x"}, "nonce must be a 0x hex quantity"),
        ({"nonce": 7}, "nonce must be a 0x hex quantity"),
        ({"callData": "0x1"}, "callData must be 0x"),
        ({"sender": "0x1234"}, "sender must have 20 bytes"),
        ({"callGasLimit": "0x" + "f" * 40}, "callGasLimit must be below"),
        ({"initCode": "0x"}, "v0.6 field"),
        ({"surprise": "0x"}, "unknown UserOperation field 'surprise'"),
        ({"paymasterData": "0x12"}, "without paymaster"),
        ({"factoryData": "0x12", "factory": None}, "factoryData is given without factory"),
        ({"eip7702Auth": {}}, "missing eip7702Auth field 'chainId'"),
        ({"eip7702Auth": 7}, "eip7702Auth must be a JSON object"),
    ],
)
async def test_malformed_operation_is_32602_naming_the_field(
    bundler: Client, change: dict[str, Any], words: str
) -> None:
    fields = with_limits(UserOperation(b"\x01" * 20, 0, b"", signature=b"\x01")).to_rpc() | change
    for method in ("eth_sendUserOperation", "eth_estimateUserOperationGas"):
        with pytest.raises(RpcError, match=words) as caught:
            await bundler.rpc.call(method, fields, to_hex(V08.address))
        assert caught.value.rpc_code == -32602


@pytest.mark.parametrize("address", ["0x", 7, None, to_hex(b"\x05" * 20)])
async def test_unknown_entry_point_is_32602(bundler: Client, address: object) -> None:
    fields = with_limits(UserOperation(b"\x01" * 20, 0, b"")).to_rpc()
    with pytest.raises(RpcError) as caught:
        await bundler.rpc.call("eth_sendUserOperation", fields, address)
    assert caught.value.rpc_code == -32602


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HEX = st.binary(max_size=40).map(to_hex) | st.integers(0, 2**260).map(hex)
_FIELDS = tuple(with_limits(UserOperation(b"\x01" * 20, 0, b"", factory=b"\x02" * 20, paymaster=b"\x03" * 20)).to_rpc())
OPERATION = st.dictionaries(st.sampled_from(_FIELDS), HEX | JSON, max_size=len(_FIELDS)) | JSON
PLAUSIBLE = st.fixed_dictionaries(
    {name: st.binary(min_size=20, max_size=20).map(to_hex) for name in ("sender", "factory", "paymaster")}
    | {name: st.binary(max_size=100).map(to_hex) for name in ("callData", "signature", "factoryData", "paymasterData")}
    | {
        name: st.integers(0, 2**130).map(hex) | st.integers(0, 2**24).map(hex)
        for name in _FIELDS
        if name.endswith("Limit") or "Gas" in name or name == "nonce"
    }
)
PARAMS = st.lists(OPERATION | PLAUSIBLE | st.sampled_from([to_hex(V08.address), to_hex(V07.address)]) | HEX, max_size=4)
SEND = st.tuples(OPERATION | PLAUSIBLE, st.sampled_from([to_hex(V08.address), to_hex(V07.address)])).map(list)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(METHODS), params=PARAMS | SEND | JSON)
def test_no_request_gives_a_500_a_hang_or_an_internal_error(bundler_process: str, method: str, params: Any) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    status, answer = post_now(bundler_process, body)
    assert status == 200
    assert ("result" in answer) != ("error" in answer)
    if "error" in answer:
        assert "internal error" not in answer["error"]["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_gives_a_500_or_a_hang(bundler_process: str, body: bytes) -> None:
    status, _ = post_now(bundler_process, body)
    assert status in (200, 204)


async def test_slow_requests_do_not_block_others(bundler: Client) -> None:
    async with asyncio.timeout(5):
        async with aiohttp.ClientSession() as session:

            async def trickle() -> Any:
                yield b'{"jsonrpc":'
                await bundler.rpc.call("eth_chainId")  # answered while this request is half sent
                yield b'"2.0","id":1,"method":"eth_chainId"}'

            async with session.post(bundler.rpc.url, data=trickle()) as response:
                assert (await response.json())["result"] == "0x539"


async def test_request_that_never_ends_is_given_up(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, request_timeout_s=0.3)) as client:
        host, _, port = client.rpc.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"200 OK" in head
        writer.close()
        await writer.wait_closed()


async def test_silent_node_is_an_error_in_time_and_not_the_end(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, request_timeout_s=0.5)) as client:
        op = await (await own_chain.account()).operation()
        os.kill(own_chain.anvil.pid, signal.SIGSTOP)
        try:
            with pytest.raises(RpcError, match=r"did not answer|no answer within") as caught:
                await asyncio.wait_for(client.send(op), 5)
            assert caught.value.rpc_code == -32603
        finally:
            os.kill(own_chain.anvil.pid, signal.SIGCONT)
        assert (await client.included(await client.send(op)))["success"] is True
