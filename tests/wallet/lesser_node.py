"""A node with fewer methods: the real anvil behind a server that does not know some of them, or fails for a while."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from contracts.rpc import RpcClient


@dataclass(slots=True)
class LesserNode:
    """`lacks`: methods that it does not have; `fails`: how many of its next answers to a method are an error; `ignores_overrides`: it takes
    no notice of parameters that say so. `asked` counts."""

    url: str
    lacks: frozenset[str] = frozenset()
    fails: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    ignores_overrides: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    session: Any = None

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        found = [await self._one(one) for one in body] if isinstance(body, list) else await self._one(body)
        return web.json_response(found)

    async def _one(self, body: dict[str, Any]) -> Any:
        method = body["method"]
        self.asked[method] += 1
        if method in self.lacks:
            return _error(body, -32601, f"the method {method} does not exist/is not available")
        left, code, text = self.fails.get(method, (0, 0, ""))
        if left:
            self.fails[method] = (left - 1, code, text)
            return _error(body, code, text)
        if self.ignores_overrides and method == "eth_call":
            body = {**body, "params": body["params"][:2]}
        async with self.session.post(self.url, json=body) as answer:
            return await answer.json()


def _error(body: dict[str, Any], code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": body["id"], "error": {"code": code, "message": text}}


@asynccontextmanager
async def lesser_node(url: str, *lacks: str, **more: Any) -> AsyncIterator[tuple[LesserNode, RpcClient]]:
    """The node at `url` without the methods `lacks`, and a connection to it."""
    node = LesserNode(url, frozenset(lacks), **more)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/", node.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession() as node.session, RpcClient(f"http://{host}:{port}") as rpc:
            yield node, rpc
    finally:
        await runner.cleanup()
