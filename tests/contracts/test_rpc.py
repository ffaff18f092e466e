"""The client against servers that misbehave, on real sockets: every failure is a typed error, none hangs, no secret is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts.devnet import Devnet
from contracts.errors import NodeUnreachable, RpcError
from contracts.rpc import RpcClient, without_secrets

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def request(reader: asyncio.StreamReader) -> Any:
    """The JSON of one HTTP request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return json.loads(await reader.readexactly(length))


@asynccontextmanager
async def serving(handler: Handler, *, timeout_s: float = 5.0, path: str = "") -> AsyncIterator[RpcClient]:
    """A client of a server whose connections `handler` answers."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with RpcClient(f"http://127.0.0.1:{port}{path}", timeout_s=timeout_s) as rpc:
            yield rpc
    finally:
        server.close()


def answering(body: bytes | Callable[[Any], bytes], head: bytes = b"HTTP/1.1 200 OK\r\n") -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await request(reader)
        answer = body if isinstance(body, bytes) else body(asked)
        writer.write(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(answer) + answer)
        await writer.drain()

    return handler


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>bad gateway</html>",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"0x1"',
        b"{}",
        b'{"jsonrpc":"2.0","id":1}',
        b'{"error":null}',
        b"[" * 100_000,
    ],
)
async def test_what_is_no_answer_is_node_unreachable(answer: bytes) -> None:
    async with serving(answering(answer)) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.call("eth_chainId")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ('{"code":-32000,"message":"nonce too low"}', -32000),
        ('{"message":"no code"}', -32603),
        ('{"code":"abc","message":null}', -32603),
        ('{"code":3,"message":"execution reverted","data":"0x08c379a0"}', 3),
        ('"rate limited"', -32603),
        ("{}", -32603),
        ("[1]", -32603),
    ],
)
async def test_an_error_answer_is_an_rpc_error_whatever_its_shape(error: str, code: int) -> None:
    async with serving(answering(b'{"jsonrpc":"2.0","id":1,"error":%s}' % error.encode())) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.call("eth_call")
    assert caught.value.rpc_code == code
    assert caught.value.method == "eth_call"


async def test_revert_data_is_kept() -> None:
    body = b'{"id":1,"error":{"code":3,"message":"execution reverted","data":"0xdeadbeef"}}'
    async with serving(answering(body)) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.eth_call(bytes(20), b"")
    assert caught.value.data == "0xdeadbeef"


async def test_a_null_result_with_a_null_error_is_a_null_result() -> None:
    async with serving(answering(b'{"id":1,"result":null,"error":null}')) as rpc:
        assert await rpc.call("eth_getTransactionReceipt", "0x") is None


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"429 Too Many Requests", b"503 Unavailable"])
async def test_an_http_error_without_json_names_its_status(status: bytes) -> None:
    async with serving(answering(b"go away", b"HTTP/1.1 " + status + b"\r\n")) as rpc:
        with pytest.raises(NodeUnreachable, match=status.decode()[:3]):
            await rpc.call("eth_chainId")


async def test_a_connection_closed_before_the_answer_is_node_unreachable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.close()

    async with serving(hang_up) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.call("eth_chainId")


async def test_an_answer_cut_off_in_the_middle_is_node_unreachable() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id":1,"res')
        await writer.drain()

    async with serving(cut) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.call("eth_chainId")


async def test_what_is_no_http_is_node_unreachable() -> None:
    async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"220 mail ready\r\n")
        await writer.drain()

    async with serving(smtp) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.call("eth_chainId")


async def test_a_server_that_never_answers_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        await reader.read()

    async with serving(silent, timeout_s=0.2) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.call("eth_chainId")


async def test_a_port_where_nobody_listens_is_node_unreachable() -> None:
    async with serving(answering(b"")) as rpc:
        url = rpc.url
    async with RpcClient(url) as rpc:
        with pytest.raises(NodeUnreachable, match="Is it running"):
            await rpc.call("eth_chainId")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8545", "http://", "http://[::1", "ftp://127.0.0.1/", "http://a:b:c/"])
async def test_an_address_that_is_none_is_node_unreachable(url: str) -> None:
    async with RpcClient(url) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.call("eth_chainId")


@pytest.mark.parametrize("answer", [b"nonsense", b'{"id":1,"result":[]}'])
async def test_the_api_key_in_the_address_is_in_no_message(answer: bytes) -> None:
    async with serving(answering(answer), path="/v2/SECRET?key=SECRET") as rpc:
        with pytest.raises(NodeUnreachable) as caught:
            await rpc.chain_id()
        rpc.url = rpc.url.replace("127.0.0.1", "127.0.0.1:SECRET@127.0.0.1:x")
        with pytest.raises(NodeUnreachable) as invalid:
            await rpc.chain_id()
    assert "SECRET" not in f"{caught.value} {invalid.value}"


def test_an_address_is_shown_as_scheme_host_and_port() -> None:
    assert without_secrets("https://user:pass@eth.example:8545/v2/key?a=b#c") == "https://eth.example:8545"
    assert without_secrets("https://eth.example/v2/key") == "https://eth.example"
    assert without_secrets("http://a:b:c/") == "the given address"


async def test_answers_of_a_batch_are_sorted_back() -> None:
    def backwards(asked: list[Any]) -> bytes:
        return json.dumps([{"id": call["id"], "result": call["method"]} for call in reversed(asked)]).encode()

    async with serving(answering(backwards)) as rpc:
        assert await rpc.batch([("a", []), ("b", []), ("c", [])]) == ["a", "b", "c"]


async def test_an_empty_batch_asks_nothing() -> None:
    async with RpcClient("http://127.0.0.1:9") as rpc:
        assert await rpc.batch([]) == []


@pytest.mark.parametrize(
    "answers",
    [
        '[{"id":ONE,"result":1}]',
        '[{"id":[1],"result":1},{"id":{"a":1},"result":2}]',
        '[1,null,"x"]',
        '{"id":ONE,"result":1}',
        '[{"id":"ONE","result":1},{"id":"TWO","result":1}]',
        "[]",
    ],
)
async def test_a_batch_with_answers_missing_is_node_unreachable(answers: str) -> None:
    def incomplete(asked: list[Any]) -> bytes:
        return answers.replace("ONE", str(asked[0]["id"])).replace("TWO", str(asked[1]["id"])).encode()

    async with serving(answering(incomplete)) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.batch([("a", []), ("b", [])])


async def test_a_batch_refused_as_a_whole_is_its_error() -> None:
    async with serving(answering(b'{"id":null,"error":{"code":-32005,"message":"batch too large"}}')) as rpc:
        with pytest.raises(RpcError, match="batch too large"):
            await rpc.batch([("a", []), ("b", [])])


async def test_one_error_in_a_batch_is_raised_with_its_method() -> None:
    def second_fails(asked: list[Any]) -> bytes:
        return json.dumps(
            [{"id": asked[0]["id"], "result": 1}, {"id": asked[1]["id"], "error": {"code": -1, "message": "no"}}]
        ).encode()

    async with serving(answering(second_fails)) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.batch([("a", []), ("b", [])])
    assert caught.value.method == "b"


@pytest.mark.parametrize("result", ["null", "1", '"latest"', '"0x"', "{}", '"0xzz"'])
async def test_nonsense_where_a_quantity_belongs_blames_the_node(result: str) -> None:
    async with serving(answering(b'{"id":1,"result":%s}' % result.encode())) as rpc:
        for asked in (rpc.chain_id(), rpc.block_number(), rpc.get_balance(bytes(20)), rpc.get_nonce(bytes(20))):
            with pytest.raises(NodeUnreachable):
                await asked


@pytest.mark.parametrize("result", ["null", "1", '"0x0"', "{}", '"hello"'])
async def test_nonsense_where_data_belongs_blames_the_node(result: str) -> None:
    async with serving(answering(b'{"id":1,"result":%s}' % result.encode())) as rpc:
        for asked in (rpc.get_code(bytes(20)), rpc.eth_call(bytes(20), b"")):
            with pytest.raises(NodeUnreachable):
                await asked


async def test_a_client_goes_on_after_its_node_restarted() -> None:
    lives = 0

    async def dies_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lives
        lives += 1
        if lives > 1:
            await answering(b'{"id":1,"result":"0x1"}')(reader, writer)

    async with serving(dies_once) as rpc:
        with pytest.raises(NodeUnreachable):
            await rpc.chain_id()
        assert await rpc.chain_id() == 1
        await rpc.close()
        assert await rpc.chain_id() == 1


async def test_many_calls_share_one_client(devnet: Devnet) -> None:
    async with RpcClient(devnet.rpc_url) as rpc:
        assert set(await asyncio.gather(*(rpc.chain_id() for _ in range(100)))) == {devnet.chain_id}


async def test_logs_past_the_head_are_empty_not_an_error(devnet: Devnet) -> None:
    head = await devnet.rpc.block_number()
    assert await devnet.rpc.logs(None, [], head + 10, head + 20) == []


async def test_a_log_query_the_node_refuses_stays_an_error(devnet: Devnet) -> None:
    with pytest.raises(RpcError):
        await devnet.rpc.logs(None, [b"\1"], 0)


async def test_a_block_that_is_not_there_is_an_rpc_error(devnet: Devnet) -> None:
    with pytest.raises(RpcError, match="not found"):
        await devnet.rpc.block(10**9)


async def test_a_receipt_that_never_comes_ends_in_node_unreachable(devnet: Devnet) -> None:
    with pytest.raises(NodeUnreachable, match="in no block"):
        await devnet.rpc.wait_receipt(b"\1" * 32, timeout_s=0.05)
