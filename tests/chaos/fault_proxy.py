"""A JSON-RPC proxy on loopback that misbehaves as nodes and load balancers do, between a bundler and a real node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web


@dataclass(slots=True)
class Faults:
    """What goes wrong now. Shares are probabilities per HTTP request, 0..1; change them at any time."""

    delay_s: float = 0.0
    """Longest extra time before a request reaches the node; uniform from 0."""
    drop: float = 0.0
    """Connections closed before the request reaches the node."""
    drop_answer: float = 0.0
    """Connections closed after the node carried the request out."""
    truncate: float = 0.0
    """Answers cut in the middle, the length in the header being that of the rest."""
    fail_5xx: float = 0.0
    """HTTP 502 with a page of HTML; the node is not asked."""
    refuse: float = 0.0
    """HTTP 200 with JSON-RPC error -32005 (rate limit); the node is not asked."""
    stale_blocks: int = 0
    """The node answers as of so many blocks ago: head, state, receipts and logs."""
    blind_blocks: int = 0
    """A back end that has not indexed the last blocks yet: no receipts and no logs of them, all else is fresh."""
    late_blocks: int = 0
    """A back end that has not executed the last blocks yet: `latest` of calls and traces is so many blocks ago, all else is fresh."""
    held: frozenset[str] = frozenset()
    """Requests of these methods wait until the proxy heals."""
    chain_id: int | None = None
    """`eth_chainId` of the chain that a wrong back end serves."""


@dataclass(slots=True)
class FaultProxy:
    """Serves `url` and passes on to `upstream`."""

    upstream: str
    faults: Faults = field(default_factory=Faults)
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    url: str = ""
    done: Counter[str] = field(default_factory=Counter)
    """How often each fault was really put in: a test of a fault that never happened proves nothing."""
    _session: aiohttp.ClientSession | None = None
    _healed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, upstream: str, seed: int = 0) -> AsyncIterator[FaultProxy]:
        """On a free port of 127.0.0.1."""
        proxy = cls(upstream, chance=random.Random(seed))
        app = web.Application(client_max_size=2**27)
        app.router.add_post("/", proxy._post)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as proxy._session:
                yield proxy
        finally:
            await runner.cleanup()

    def heal(self) -> None:
        """All faults away."""
        self.faults = Faults()
        self._healed.set()
        self._healed = asyncio.Event()

    def _happens(self, name: str) -> bool:
        if self.chance.random() >= getattr(self.faults, name):
            return False
        self.done[name] += 1
        return True

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.faults.delay_s:
            self.done["delay_s"] += 1
            await asyncio.sleep(self.chance.uniform(0, self.faults.delay_s))
        if self._happens("drop"):
            return self._hang_up(request)
        if self._happens("fail_5xx"):
            return web.Response(status=502, text="<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")
        document = json.loads(body)
        if self.faults.held & {one["method"] for one in (document if isinstance(document, list) else [document])}:
            self.done["held"] += 1
            await self._healed.wait()
        if self._happens("refuse"):
            return web.json_response(_each(document, _refusal))
        try:
            answer = await self._forward(document)
        except (aiohttp.ClientError, TimeoutError):
            self.done["unreachable"] += 1
            return web.Response(status=503, text="no back end is up")
        if self._happens("drop_answer"):
            return self._hang_up(request)
        data = json.dumps(answer).encode()
        if self._happens("truncate"):
            data = data[: len(data) // 2]
        return web.Response(body=data, content_type="application/json")

    @staticmethod
    def _hang_up(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _ask(self, document: Any) -> Any:
        assert self._session is not None
        async with self._session.post(self.upstream, json=document) as response:
            return await response.json(content_type=None)

    async def _forward(self, document: Any) -> Any:
        stale, blind, chain_id = self.faults.stale_blocks, self.faults.blind_blocks, self.faults.chain_id
        late = self.faults.late_blocks
        if not (stale or blind or late or chain_id is not None):
            return await self._ask(document)
        head = await self._ask({"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []})
        newest = int(head["result"], 16)
        seen, indexed = max(newest - stale, 0), max(newest - max(stale, blind), 0)
        requests = document if isinstance(document, list) else [document]
        asked = [self._as_of(one, seen) if stale else one for one in requests]
        if late:
            asked = [self._executed(one, max(newest - late, 0)) for one in asked]
        answers = await self._ask(asked if isinstance(document, list) else asked[0])
        listed = answers if isinstance(answers, list) else [answers]
        methods = {one["id"]: one["method"] for one in requests}
        for answer in listed:
            self._falsify(answer, methods.get(answer.get("id"), ""), seen, indexed, chain_id)
        return answers

    def _executed(self, request: dict[str, Any], block: int) -> dict[str, Any]:
        """A call or trace, on the newest block that the late back end has executed."""
        if request["method"] not in ("eth_call", "debug_traceCall") or "latest" not in request["params"]:
            return request
        self.done["late_blocks"] += 1
        return request | {"params": [hex(block) if param == "latest" else param for param in request["params"]]}

    def _as_of(self, request: dict[str, Any], block: int) -> dict[str, Any]:
        """The request, with the newest block replaced by an older one."""
        params = [hex(block) if param in ("latest", "pending") else param for param in request.get("params") or []]
        if request["method"] == "eth_getLogs" and int(params[0].get("fromBlock", "0x0"), 16) > block:
            params = [params[0] | {"fromBlock": hex(block), "toBlock": hex(block)}]
        self.done["stale_blocks"] += 1
        return request | {"params": params}

    def _falsify(self, answer: dict[str, Any], method: str, seen: int, indexed: int, chain_id: int | None) -> None:
        result = answer.get("result")
        if method == "eth_chainId" and chain_id is not None:
            answer["result"] = hex(chain_id)
            self.done["chain_id"] += 1
        elif method == "eth_blockNumber":
            answer["result"] = hex(min(int(result, 16), seen))
        elif method == "eth_getBlockByNumber" and result and int(result["number"], 16) > seen:
            answer["result"] = None
        elif method in ("eth_getTransactionReceipt", "eth_getTransactionByHash") and result:
            if result.get("blockNumber") and int(result["blockNumber"], 16) > indexed:
                answer["result"] = None
                self.done["hidden"] += 1
        elif method == "eth_getLogs" and isinstance(result, list):
            answer["result"] = [log for log in result if int(log["blockNumber"], 16) <= indexed]
            self.done["hidden"] += len(result) - len(answer["result"])


def _refusal(request: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.get("id"), "error": {"code": -32005, "message": "limit exceeded"}}


def _each(document: Any, answer: Any) -> Any:
    return [answer(one) for one in document] if isinstance(document, list) else answer(document)
