"""Whatever arrives: HTTP 200 or 204 in time, a well-formed JSON-RPC 2.0 response, no internal error, no traceback in the log."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bundler.api import Api
from contracts.entrypoint import V07, V08
from contracts.types import Address, to_hex
from tests.bundler.rig import Chain, Process, SimpleAccount, process, settings_for

PARSE_ERROR, INVALID_REQUEST = -32700, -32600
TIMEOUT_S = 12
"""A request may take the bundler's own limit, 10 s, and not more."""


@dataclass(slots=True)
class Target:
    """A bundler process with every method it has, the debug namespace included, and one good operation."""

    running: Process
    methods: tuple[str, ...]
    good: dict[str, Any]

    def post(self, body: bytes) -> tuple[int, bytes]:
        """HTTP status and body of the answer; raises if there is none in time."""
        parts = urlsplit(self.running.client.rpc.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _methods() -> tuple[str, ...]:
    """Every method name that the table has, read from the class that makes it."""
    names = {
        constant
        for function in (Api.__init__, _debug_table())
        for constant in function.__code__.co_consts
        for constant in (constant if isinstance(constant, tuple) else (constant,))
        if isinstance(constant, str) and "_" in constant and constant.split("_")[0] in _NAMESPACES
    }
    assert "eth_sendUserOperation" in names
    assert "debug_bundler_dumpMempool" in names
    return tuple(sorted(names))


_NAMESPACES = ("eth", "web3", "seawall", "pimlico", "debug")


def _debug_table() -> Any:
    from bundler.debug import debug_methods

    return debug_methods


@pytest.fixture(scope="module")
def target(chain_state: tuple[Path, dict[str, Address]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Kept by a thread, for Hypothesis' tests are no coroutines."""
    folder = tmp_path_factory.mktemp("fuzzed")
    started: Future[Target] = Future()
    stop = threading.Event()

    async def keep() -> None:
        async with (
            Chain.start(*chain_state) as chain,
            process(settings_for(chain, folder, debug=True)) as running,
        ):
            account: SimpleAccount = await chain.account(deployed=True)
            good = (await account.operation()).to_rpc()
            started.set_result(Target(running, _methods(), good))
            await asyncio.to_thread(stop.wait)
            await chain.automine(True)

    def thread() -> None:
        try:
            asyncio.run(keep())
        except BaseException as error:  # so that the fixture fails and does not wait
            if started.done():
                raise
            started.set_exception(error)

    worker = threading.Thread(target=thread)
    worker.start()
    found = started.result(60)
    yield found
    log = found.running.output()
    stop.set()
    worker.join()
    assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:2_000]


def check_response(answer: Any) -> None:
    """One response object, by the letter of JSON-RPC 2.0."""
    assert isinstance(answer, dict)
    assert answer["jsonrpc"] == "2.0"
    assert ("result" in answer) != ("error" in answer)
    assert set(answer) == {"jsonrpc", "id", "result" if "result" in answer else "error"}
    assert answer["id"] is None or isinstance(answer["id"], str | int | float)
    assert not isinstance(answer["id"], bool)
    if "error" in answer:
        error = answer["error"]
        assert set(error) <= {"code", "message", "data"}
        assert type(error["code"]) is int
        assert isinstance(error["message"], str)
        assert error["message"]
        assert "internal error" not in error["message"]


def check(target: Target, body: bytes) -> Any:
    """The decoded answer, after every form has been checked; None for notifications."""
    status, text = target.post(body)
    assert status in (200, 204), (status, text[:300])
    if status == 204:
        assert text == b""
        return None
    answer = json.loads(text)
    for one in answer if isinstance(answer, list) else [answer]:
        check_response(one)
    return answer


NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec=None), max_size=24)  # lone surrogates, too: JSON can write them
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
HEX = (
    st.binary(max_size=40).map(to_hex)
    | st.integers(0, 2**260).map(hex)
    | st.sampled_from(("0x", "0X0", "0x00", "-0x1"))
)
ENTRY_POINTS = st.sampled_from((to_hex(V08.address), to_hex(V07.address)))
IDS = st.none() | NUMBERS | TEXT | JSON
METHODS = st.deferred(lambda: st.sampled_from(_methods()))
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def encoded(document: Any) -> bytes:
    """As any client may write it: ASCII with escapes, so that what UTF-8 cannot carry arrives as well."""
    return json.dumps(document, ensure_ascii=True).encode()


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@example(method="eth_chainId", params=[], request_id=2**70)
@example(method="eth_chainId", params=[], request_id="\ud800")
@example(method="\ud800", params=[], request_id=1)
@example(method="eth_getUserOperationReceipt", params=["\ud800"], request_id=1)
@given(method=METHODS | TEXT, params=st.lists(JSON | HEX | ENTRY_POINTS, max_size=4) | JSON, request_id=IDS)
def test_any_call_gets_one_well_formed_response(target: Target, method: str, params: Any, request_id: Any) -> None:
    answer = check(target, encoded({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}))
    assert isinstance(answer, dict)


@settings(max_examples=120, deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_any_change_of_a_good_operation_gets_one_well_formed_response(target: Target, data: st.DataObject) -> None:
    """One field or a few of an operation that would be accepted: deep in the code, where parsing is over."""
    fields = dict(target.good)
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3, unique=True)):
        fields[name] = data.draw(HEX | st.integers(0, 2**64).map(hex) | JSON)
    extra = data.draw(
        st.dictionaries(
            st.sampled_from(
                ("factory", "factoryData", "paymaster", "paymasterData", "eip7702Auth", "paymasterVerificationGasLimit")
            ),
            HEX | st.binary(min_size=20, max_size=20).map(to_hex) | JSON,
            max_size=3,
        )
    )
    method = data.draw(st.sampled_from(("eth_sendUserOperation", "eth_estimateUserOperationGas")))
    params = [fields | extra, data.draw(ENTRY_POINTS)]
    if method.startswith("eth_estimate"):
        params += data.draw(
            st.lists(st.dictionaries(HEX | TEXT, JSON | st.dictionaries(TEXT, HEX), max_size=3), max_size=1)
        )
    answer = check(target, encoded({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    assert answer["id"] == 1 or answer["error"]["code"] == PARSE_ERROR  # half a surrogate pair is no text


@settings(max_examples=80, deadline=None, suppress_health_check=QUIET)
@given(
    batch=st.lists(
        JSON
        | st.fixed_dictionaries(
            {"jsonrpc": st.just("2.0"), "method": METHODS},
            optional={"id": IDS, "params": st.lists(JSON | HEX, max_size=3)},
        ),
        max_size=8,
    )
)
def test_any_batch_gets_a_response_for_each_request_that_has_an_id(target: Target, batch: list[Any]) -> None:
    answer = check(target, encoded(batch))
    if not batch or isinstance(answer, dict):
        assert answer["error"]["code"] == (PARSE_ERROR if batch else INVALID_REQUEST)
        return
    calls = [
        one for one in batch if not (isinstance(one, dict) and isinstance(one.get("method"), str) and "id" not in one)
    ]
    assert len(answer or []) == len(calls)


@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
@example(body=b'{"jsonrpc":"2.0","id":1e999,"method":"eth_chainId"}')
@example(body=b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b',"method":"eth_chainId"}')
@example(body=b'{"jsonrpc":"2.0","id":1,"id":2,"method":"eth_chainId"}')
@example(body=b'{"jsonrpc":"2.0","id":NaN,"method":"eth_chainId"}')
@example(body=b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}')
@example(body=b'{"jsonrpc":"2.0","id":"\\udfff\\ud800","method":"eth_chainId"}')
@given(
    body=st.binary(max_size=200)
    | JSON.map(encoded)
    | st.builds(
        lambda at, junk: (
            (text := encoded({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}))[:at] + junk + text[at:]
        ),
        st.integers(0, 50),
        st.binary(max_size=4),
    )
)
def test_any_body_gets_a_well_formed_response(target: Target, body: bytes) -> None:
    check(target, body)


def test_after_all_that_it_still_accepts_an_operation(target: Target) -> None:
    answer = check(
        target,
        encoded(
            {"jsonrpc": "2.0", "id": 1, "method": "eth_sendUserOperation", "params": [target.good, to_hex(V08.address)]}
        ),
    )
    assert "result" in answer, answer
