"""Whatever arrives, the answer is a JSON-RPC error and the service goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V08
from contracts.types import checksum
from tests.paymaster.rig import Chain, Sponsor, operation, sponsoring

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
async def sponsor(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sponsor]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    async with sponsoring(chain, folder, limits={"body_bytes": 65_536, "batch": 5, "request_s": 2.0}) as running:
        yield running


async def post(sponsor: Sponsor, body: bytes, headers: dict[str, str] = JSON) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(sponsor.url, data=body, headers=headers) as response,
    ):
        raw = await response.read()
        return response.status, json.loads(raw) if raw else None


def call(method: object = "seawall_status", params: object = (), **more: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params} | more).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"nan",
        b'{"id": 1e999}',
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'"' + b"\\ud800" * 10,
        b"\x00",
    ],
    ids=range(9),
)
async def test_what_is_not_json_is_a_parse_error(sponsor: Sponsor, body: bytes) -> None:
    status, answer = await post(sponsor, body)
    assert (status, answer["error"]["code"]) == (200, -32700)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b"1",
        b"null",
        b'"pm_getPaymasterData"',
        call(method=1),
        call(jsonrpc="1.0"),
        call(id=[1]),
        call(id={"a": 1}),
        call(id=True, jsonrpc=2),
        b"[" + b",".join([call()] * 6) + b"]",
    ],
)
async def test_what_is_no_call_is_an_invalid_request(sponsor: Sponsor, body: bytes) -> None:
    status, answer = await post(sponsor, body)
    assert (status, answer["error"]["code"]) == (200, -32600)


async def test_an_unknown_method_is_named(sponsor: Sponsor) -> None:
    _, answer = await post(sponsor, call("pm_sponsorUserOperation"))
    assert (answer["error"]["code"], answer["id"]) == (-32601, 1)
    assert "pm_sponsorUserOperation" in answer["error"]["message"]


@pytest.mark.parametrize("method", ["pm_getPaymasterStubData", "pm_getPaymasterData"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        [],
        [1, 2, 3],
        [{}, checksum(V08.address), hex(CHAIN_ID), {}],
        [[], checksum(V08.address), hex(CHAIN_ID), {}],
        [None, None, None, None],
        [{"paymaster": 7}, checksum(V08.address), hex(CHAIN_ID)],
        [{"paymaster": {"a": []}}, checksum(V08.address), hex(CHAIN_ID)],
        [operation(bytes(20)).to_rpc() | {"nonce": "0x" + "f" * 65}, checksum(V08.address), hex(CHAIN_ID), {}],
        [operation(bytes(20)).to_rpc() | {"initCode": "0x"}, checksum(V08.address), hex(CHAIN_ID), {}],
        [operation(bytes(20)).to_rpc() | {"callGasLimit": hex(2**128)}, checksum(V08.address), hex(CHAIN_ID), {}],
        [operation(bytes(20)).to_rpc(), checksum(V08.address), "0x" + "f" * 70, {}],
        [operation(bytes(20)).to_rpc(), checksum(V08.address), CHAIN_ID, {}],
        [operation(bytes(20)).to_rpc(), "latest", hex(CHAIN_ID), {}],
    ],
    ids=range(14),
)
async def test_bad_parameters_are_named_not_crashed_on(sponsor: Sponsor, method: str, params: object) -> None:
    status, answer = await post(sponsor, call(method, params))
    assert (status, answer["error"]["code"]) == (200, -32602)


@pytest.mark.parametrize(
    "change",
    [
        {"engine": 1},
        {"engine": None},
        {"intentHash": "0x00"},
        {"policyEpoch": -1},
        {"policyEpoch": 2**64},
        {"policyEpoch": 1.5},
        {"policyEpoch": True},
        {"decision": 256},
        {"decision": "ALLOW"},
        {"validUntil": 2**48},
        {"validUntil": None},
        {"signature": "0xzz"},
        {"signature": [1]},
    ],
    ids=str,
)
async def test_a_malformed_approval_is_named(sponsor: Sponsor, chain: Chain, change: dict[str, object]) -> None:
    op = operation(await chain.account())
    context = {"approval": chain.approve(op).to_rpc() | change}
    _, answer = await post(
        sponsor, call("pm_getPaymasterData", [op.to_rpc(), checksum(V08.address), hex(CHAIN_ID), context])
    )
    assert answer["error"]["code"] == -32602
    assert f"approval.{next(iter(change))}" in answer["error"]["message"]


@pytest.mark.parametrize("length", [0, 64, 66, 1000])
async def test_a_signature_of_another_length_is_a_bad_signature(sponsor: Sponsor, chain: Chain, length: int) -> None:
    op = operation(await chain.account())
    context = {"approval": chain.approve(op).to_rpc() | {"signature": "0x" + "01" * length}}
    _, answer = await post(
        sponsor, call("pm_getPaymasterData", [op.to_rpc(), checksum(V08.address), hex(CHAIN_ID), context])
    )
    assert answer["error"]["data"]["rule"] == "bad-approval-signature"


async def test_a_batch_answers_each_call_and_no_notification(sponsor: Sponsor) -> None:
    silent = json.dumps({"jsonrpc": "2.0", "method": "seawall_status"}).encode()
    status, answer = await post(
        sponsor, b"[" + b",".join([call(id="a"), silent, call("nothing", id=None), b"1"]) + b"]"
    )
    assert status == 200
    assert [item["id"] for item in answer] == ["a", None, None]
    assert (await post(sponsor, silent))[0] == 204


async def test_a_body_above_the_limit_is_refused(sponsor: Sponsor) -> None:
    status, answer = await post(sponsor, b" " * 65_537)
    assert (status, answer["error"]["code"]) == (413, -32600)


async def test_a_page_in_a_browser_cannot_post_without_preflight(sponsor: Sponsor) -> None:
    status, _ = await post(sponsor, call(), {"Content-Type": "text/plain"})
    assert status == 415


@pytest.mark.parametrize(("verb", "path", "status"), [("GET", "/", 405), ("POST", "/nothing", 404), ("PUT", "/", 405)])
async def test_other_paths_and_verbs_are_not_served(sponsor: Sponsor, verb: str, path: str, status: int) -> None:
    async with aiohttp.ClientSession() as http, http.request(verb, sponsor.url + path) as response:
        assert response.status == status


async def test_a_request_that_never_ends_is_given_up(sponsor: Sponsor) -> None:
    port = int(sponsor.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    method=st.sampled_from(["pm_getPaymasterStubData", "pm_getPaymasterData", "seawall_status"]),
    field=st.sampled_from(
        [*operation(bytes(20)).to_rpc(), "factory", "factoryData", "paymaster", "paymasterData", "eip7702Auth"]
    ),
    value=JSON_VALUES,
    context=JSON_VALUES,
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_json_value_in_any_field_is_an_internal_error(
    sponsor: Sponsor, method: str, field: str, value: object, context: object
) -> None:
    op = operation(bytes(20)).to_rpc() | {field: value}
    status, answer = await post(sponsor, call(method, [op, checksum(V08.address), hex(CHAIN_ID), context]))
    assert status == 200
    assert answer.get("error", {}).get("code") in (None, -32602, -32500)
