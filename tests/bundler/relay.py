"""A private relay on loopback, for anvil has none: it takes transactions, checks conditions against the chain's own state, and hands on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bundler.conditional import MAX_COST, METHOD, REJECTED, TOO_COSTLY
from contracts.errors import RpcError
from contracts.rpc import RpcClient

SENDS = frozenset({"eth_sendRawTransaction", METHOD})


@dataclass(slots=True)
class Relay:
    """Serves `url`. `behaviour`: passes on, keeps (says yes and does nothing), refuses, or `node`: everything goes to the chain, as asked."""

    chain: RpcClient
    behaviour: str = "passes"
    conditional: bool = True
    max_cost: int = MAX_COST
    url: str = ""
    asked: list[tuple[str, list[Any]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Codes of the errors it gave."""

    @property
    def sends(self) -> list[tuple[str, list[Any]]]:
        """The transactions that were handed in."""
        return [one for one in self.asked if one[0] in SENDS]

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, chain: RpcClient, behaviour: str = "passes", **options: Any) -> AsyncIterator[Relay]:
        """On a free port of 127.0.0.1."""
        relay = cls(chain, behaviour, **options)
        app = web.Application(client_max_size=2**27)
        app.router.add_post("/{key:.*}", relay._post)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            relay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield relay
        finally:
            await runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        document = await request.json()
        if isinstance(document, list):
            return web.json_response([await self._answer(one) for one in document])
        return web.json_response(await self._answer(document))

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request["params"]
        self.asked.append((method, params))
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            return answer | {"result": await self._do(method, params)}
        except RpcError as error:
            self.answers.append(error.rpc_code)
            return answer | {"error": {"code": error.rpc_code, "message": error.message, "data": error.data}}

    async def _do(self, method: str, params: list[Any]) -> Any:
        if self.behaviour == "refuses":
            raise RpcError(-32000, "this relay takes nothing today")
        if self.behaviour == "node" or method == "eth_chainId":
            return await self.chain.call(method, *params)
        if method not in SENDS or (method == METHOD and not self.conditional):
            raise RpcError(-32601, f"the method {method} does not exist")
        if method == METHOD:
            await self._check(params[1])
        if self.behaviour == "keeps":
            return "0x" + "00" * 32
        return await self.chain.call("eth_sendRawTransaction", params[0])

    async def _check(self, condition: dict[str, Any]) -> None:
        """As an OP-stack sequencer does, on the latest block."""
        accounts = condition.get("knownAccounts", {})
        bounds = {"blockNumberMax": "number", "timestampMax": "timestamp"}
        cost = sum(map(len, accounts.values())) + sum(name in condition for name in bounds)
        if cost > self.max_cost:
            raise RpcError(TOO_COSTLY, f"conditional cost, {cost}, exceeded max: {self.max_cost}")
        head = await self.chain.block()
        for bound, name in bounds.items():
            if bound in condition and int(head[name], 16) > int(condition[bound], 16):
                raise RpcError(REJECTED, f"failed header check: {bound}")
        for address, slots in accounts.items():
            for slot, value in slots.items():
                if await self.chain.call("eth_getStorageAt", address, slot, "latest") != value:
                    raise RpcError(REJECTED, f"failed state check: {address} {slot}")
