"""JSON-RPC 2.0 over HTTP with caps on everything a stranger controls: bytes, batch, depth, time.

Bad input is an error object, never a 500 and never a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from bundler.api import Api, Methods
from bundler.fees import FeeDataError
from bundler.limits import ApiKey, Clients, UnknownKey, is_deeper_than
from bundler.metrics import Metrics
from bundler.service import Bundler
from bundler.settings import Settings
from bundler.simulation import NotTraced
from bundler.subscriptions import Connection, Subscriptions
from contracts.errors import NodeError, RpcError, SeawallError

log = logging.getLogger("bundler.server")

LIMIT_EXCEEDED = -32005
"""Source: EIP-1474."""
UNAUTHORISED = -32001
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
_JSON = {"Content-Type": "application/json"}


def _error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


class _OverLimit(Exception):
    """The client asked for more than its rate."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s

    def answer(self) -> dict[str, Any]:
        return _error(None, LIMIT_EXCEEDED, f"too many requests: wait {self.wait_s:.1f} s")


class _NoKey(Exception):
    """The client has no key that is known here."""

    def answer(self) -> dict[str, Any]:
        how = "send X-Api-Key: KEY, Authorization: Bearer KEY, or ?apikey=KEY"
        return _error(None, UNAUTHORISED, f"the API key is missing or unknown: {how}")


@dataclass(frozen=True, slots=True)
class _Client:
    """Who asks."""

    address: str
    key: str | None


def _key_of(request: web.Request) -> str | None:
    """The key that a request carries: a header, or for websockets of browsers and for wallets that know a URL only, the query."""
    bearer = request.headers.get("Authorization", "")
    named = request.headers.get("X-Api-Key") or request.query.get("apikey")
    return named or (bearer[7:].strip() if bearer.startswith("Bearer ") else None)


def _subscribing(connection: Connection) -> Methods:
    async def subscribe(params: Sequence[Any]) -> str:
        return connection.subscribe(params)

    async def unsubscribe(params: Sequence[Any]) -> bool:
        return connection.unsubscribe(params)

    return {"eth_subscribe": (subscribe, 1, 2), "eth_unsubscribe": (unsubscribe, 1, 1)}


def _clients(settings: Settings, keys: Sequence[ApiKey]) -> Clients:
    return Clients(settings.rate_limit_per_s, settings.rate_limit_burst, keys, need_key=settings.require_api_key)


class Server:
    """HTTP front of one bundler."""

    def __init__(self, bundler: Bundler, settings: Settings, metrics: Metrics | None = None) -> None:
        self._bundler = bundler
        self._settings = settings
        self._metrics = metrics
        self._clients = _clients(settings, settings.api_keys())
        self._methods = Api(bundler).methods
        app = web.Application(client_max_size=settings.max_body_bytes)
        app.router.add_post("/", self._post)
        app.router.add_get("/ws", self._listen)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        if settings.cors_origin is not None:
            app.router.add_options("/", self._preflight)
        self._subscriptions = Subscriptions(bundler.events, bundler.pool.sender_of, settings.max_websockets)
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=settings.request_timeout_s
        )
        self.url = ""

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Answer what is under way, then close."""
        for socket in tuple(self._sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)
        await self._runner.cleanup()

    def limits_changed(self, keys: Sequence[ApiKey]) -> None:
        """Take up the settings' rate limit and the clients' keys; every client begins with a full burst."""
        self._clients = _clients(self._settings, keys)

    def _client(self, request: web.Request) -> _Client:
        forwarded = request.headers.get("X-Forwarded-For", "") if self._settings.trust_forwarded_for else ""
        return _Client(forwarded.rpartition(",")[2].strip() or request.remote or "", _key_of(request))

    def _cors(self) -> dict[str, str]:
        origin = self._settings.cors_origin
        return {} if origin is None else {"Access-Control-Allow-Origin": origin}

    async def _preflight(self, request: web.Request) -> web.Response:  # noqa: ARG002
        headers = "Content-Type, X-Api-Key, Authorization"
        allow = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": headers}
        return web.Response(headers=self._cors() | allow)

    async def _health(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """200 while the process serves."""
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """200 when operations are accepted and can be bundled; 503 while the node is away or the process drains."""
        status = self._bundler.status()
        return web.json_response(status, status=200 if status["ready"] else 503)

    async def _post(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            most = self._settings.max_body_bytes
            return self._respond(_error(None, INVALID_REQUEST, f"the request has more than {most} bytes"))
        except TimeoutError:
            limit_s = self._settings.request_timeout_s
            return self._respond(_error(None, INVALID_REQUEST, f"the request did not arrive within {limit_s:g} s"))
        try:
            answer = await self._answer_to(body, self._client(request), self._methods)
        except _OverLimit as over:
            response = self._respond(over.answer())
            response.set_status(429)
            response.headers["Retry-After"] = str(math.ceil(over.wait_s))
            return response
        except _NoKey as refused:
            response = self._respond(refused.answer())
            response.set_status(401)
            return response
        return web.Response(status=204, headers=self._cors()) if answer is None else self._respond(answer)

    async def _answer_to(self, body: bytes, client: _Client, methods: Methods) -> Any:
        """What to answer to a request or a batch of them; None: nothing. Raises _OverLimit, _NoKey."""
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return _error(None, PARSE_ERROR, f"the body is no JSON: {error}")
        if is_deeper_than(body, self._settings.max_json_depth):
            most = self._settings.max_json_depth
            return _error(None, INVALID_REQUEST, f"the request nests deeper than {most} levels")
        count = max(len(document), 1) if isinstance(document, list) else 1
        try:
            wait_s = self._clients.wait_s(client.address, client.key, count)
        except UnknownKey:
            raise _NoKey from None
        if wait_s > 0:
            if self._metrics is not None:
                self._metrics.limited.inc(count)
            raise _OverLimit(wait_s)
        if not isinstance(document, list):
            return await self._answer(document, methods)
        if not document or len(document) > self._settings.max_batch:
            most = self._settings.max_batch
            return _error(None, INVALID_REQUEST, f"a batch holds 1 to {most} requests, got {len(document)}")
        answers = await asyncio.gather(*(self._answer(item, methods) for item in document))
        return [answer for answer in answers if answer is not None] or None

    # -- websocket ----------------------------------------------------------------------------------------------------------------------

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        """The same methods, and subscriptions (bundler.subscriptions)."""
        client = self._client(request)
        try:
            self._clients.wait_s(client.address, client.key, 0)
        except UnknownKey:
            return web.json_response(_NoKey().answer(), status=401)
        connection = self._subscriptions.connect()
        if connection is None:
            return web.Response(status=503, text="as many connections as this bundler takes are listening\n")
        socket = web.WebSocketResponse(heartbeat=30.0, max_msg_size=self._settings.max_body_bytes)
        tasks: set[asyncio.Task[None]] = set()
        try:
            await socket.prepare(request)
            self._sockets.add(socket)
            tasks.add(asyncio.ensure_future(self._tell(socket, connection)))
            methods = self._methods | _subscribing(connection)
            async for message in socket:
                if message.type not in (web.WSMsgType.TEXT, web.WSMsgType.BINARY):
                    break
                body = message.data.encode() if isinstance(message.data, str) else message.data
                task = asyncio.ensure_future(self._reply(socket, body, client, methods))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                if len(tasks) > self._settings.max_batch:  # as many at once as a batch has
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tuple(tasks):
                task.cancel()
            self._sockets.discard(socket)
            self._subscriptions.disconnect(connection)
        return socket

    async def _reply(self, socket: web.WebSocketResponse, body: bytes, client: _Client, methods: Methods) -> None:
        try:
            answer = await self._answer_to(body, client, methods)
        except (_OverLimit, _NoKey) as refused:
            answer = refused.answer()
        if answer is not None:
            await self._send(socket, answer)

    async def _tell(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        """Send what waits."""
        while not connection.overrun.is_set():
            await self._send(socket, await connection.waiting.get())
        await socket.close(code=aiohttp.WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")

    async def _send(self, socket: web.WebSocketResponse, message: object) -> None:
        """One message; whoever does not take it in time is disconnected."""
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                await socket.send_str(msgspec.json.encode(message).decode())
        except (TimeoutError, ConnectionError):
            await socket.close(code=aiohttp.WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")

    # -- JSON-RPC -----------------------------------------------------------------------------------------------------------------------

    def _respond(self, answer: object) -> web.Response:
        return web.Response(body=msgspec.json.encode(answer), headers=_JSON | self._cors())

    async def _answer(self, request: Any, methods: Methods) -> dict[str, Any] | None:
        """One request's answer object; None for a notification (no `id`), which is carried out all the same."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, INVALID_REQUEST, "a request must be an object with a method name")
        request_id = request.get("id")
        if isinstance(request_id, bool | list | dict):
            return _error(None, INVALID_REQUEST, "the id of a request must be a number, a string or null")
        started_s = time.monotonic()
        answer = await self._dispatch(request_id, request["method"], request.get("params"), methods)
        if self._metrics is not None:
            method = request["method"] if request["method"] in methods else "unknown"
            outcome = str(answer["error"]["code"]) if "error" in answer else "ok"
            self._metrics.requests.labels(method, outcome).observe(time.monotonic() - started_s)
        return answer if "id" in request else None

    async def _dispatch(self, request_id: Any, name: str, params: Any, methods: Methods) -> dict[str, Any]:
        found = methods.get(name)
        if found is None:
            return _error(request_id, METHOD_NOT_FOUND, f"the method {name[:80]!r} does not exist here")
        method, fewest, most = found
        if params is None:
            params = []
        if not isinstance(params, list):
            return _error(request_id, INVALID_PARAMS, "params must be a list, by position")
        if not fewest <= len(params) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            return _error(request_id, INVALID_PARAMS, f"{name} takes {wanted} parameters, got {len(params)}")
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                return {"jsonrpc": "2.0", "id": request_id, "result": await method(params)}
        except TimeoutError:
            return _error(request_id, INTERNAL_ERROR, f"no answer within {self._settings.request_timeout_s:g} s")
        except (FeeDataError, NotTraced) as error:  # say nothing of the node's address, and what to set
            log.warning("%s: %s", name, error.message)
            return {"jsonrpc": "2.0", "id": request_id, "error": error.to_rpc()}
        except NodeError as error:
            # The node's address may hold an access key: its own words are for the log only.
            log.warning("%s: %s", name, error.message)
            detail = f": {error.message}" if isinstance(error, RpcError) else ""
            return _error(request_id, INTERNAL_ERROR, f"the bundler's Ethereum node did not answer{detail}; try again")
        except SeawallError as error:
            return {"jsonrpc": "2.0", "id": request_id, "error": error.to_rpc()}
        except Exception:
            log.exception("%s failed", name)
            return _error(request_id, INTERNAL_ERROR, "internal error; it is in the bundler's log")
