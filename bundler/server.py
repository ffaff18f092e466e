"""JSON-RPC 2.0 over HTTP with caps on everything a stranger controls: bytes, batch, depth, time.

Bad input is an error object, never a 500 and never a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

import msgspec
from aiohttp import web

from bundler.api import Api
from bundler.fees import FeeDataError
from bundler.limits import RateLimit, is_deeper_than
from bundler.metrics import Metrics
from bundler.service import Bundler
from bundler.settings import Settings
from contracts.errors import NodeError, RpcError, SeawallError

log = logging.getLogger("bundler.server")

LIMIT_EXCEEDED = -32005
"""Source: EIP-1474."""
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
_JSON = {"Content-Type": "application/json"}


def _error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


class Server:
    """HTTP front of one bundler."""

    def __init__(self, bundler: Bundler, settings: Settings, metrics: Metrics | None = None) -> None:
        self._bundler = bundler
        self._settings = settings
        self._metrics = metrics
        self._limit = RateLimit(settings.rate_limit_per_s, settings.rate_limit_burst)
        self._methods = Api(bundler).methods
        app = web.Application(client_max_size=settings.max_body_bytes)
        app.router.add_post("/", self._post)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        if settings.cors_origin is not None:
            app.router.add_options("/", self._preflight)
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
        await self._runner.cleanup()

    def limits_changed(self) -> None:
        """Take up the settings' rate limit; every client begins with a full burst."""
        self._limit = RateLimit(self._settings.rate_limit_per_s, self._settings.rate_limit_burst)

    def _client(self, request: web.Request) -> str:
        forwarded = request.headers.get("X-Forwarded-For", "") if self._settings.trust_forwarded_for else ""
        return forwarded.rpartition(",")[2].strip() or request.remote or ""

    def _over_limit(self, request: web.Request, count: int) -> web.Response | None:
        wait_s = self._limit.wait_s(self._client(request), count)
        if wait_s <= 0:
            return None
        if self._metrics is not None:
            self._metrics.limited.inc(count)
        answer = _error(None, LIMIT_EXCEEDED, f"too many requests: wait {wait_s:.1f} s")
        response = self._respond(answer)
        response.set_status(429)
        response.headers["Retry-After"] = str(math.ceil(wait_s))
        return response

    def _cors(self) -> dict[str, str]:
        origin = self._settings.cors_origin
        return {} if origin is None else {"Access-Control-Allow-Origin": origin}

    async def _preflight(self, request: web.Request) -> web.Response:  # noqa: ARG002
        allow = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Content-Type"}
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
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return self._respond(_error(None, PARSE_ERROR, f"the body is no JSON: {error}"))
        if is_deeper_than(body, self._settings.max_json_depth):
            most = self._settings.max_json_depth
            return self._respond(_error(None, INVALID_REQUEST, f"the request nests deeper than {most} levels"))
        count = len(document) if isinstance(document, list) else 1
        if (refused := self._over_limit(request, max(count, 1))) is not None:
            return refused
        if not isinstance(document, list):
            answer = await self._answer(document)
            return web.Response(status=204, headers=self._cors()) if answer is None else self._respond(answer)
        if not document or len(document) > self._settings.max_batch:
            return self._respond(
                _error(
                    None,
                    INVALID_REQUEST,
                    f"a batch holds 1 to {self._settings.max_batch} requests, got {len(document)}",
                )
            )
        answers = await asyncio.gather(*(self._answer(item) for item in document))
        found = [answer for answer in answers if answer is not None]
        return self._respond(found) if found else web.Response(status=204, headers=self._cors())

    def _respond(self, answer: object) -> web.Response:
        return web.Response(body=msgspec.json.encode(answer), headers=_JSON | self._cors())

    async def _answer(self, request: Any) -> dict[str, Any] | None:
        """One request's answer object; None for a notification (no `id`), which is carried out all the same."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, INVALID_REQUEST, "a request must be an object with a method name")
        request_id = request.get("id")
        if isinstance(request_id, bool | list | dict):
            return _error(None, INVALID_REQUEST, "the id of a request must be a number, a string or null")
        started_s = time.monotonic()
        answer = await self._dispatch(request_id, request["method"], request.get("params"))
        if self._metrics is not None:
            method = request["method"] if request["method"] in self._methods else "unknown"
            outcome = str(answer["error"]["code"]) if "error" in answer else "ok"
            self._metrics.requests.labels(method, outcome).observe(time.monotonic() - started_s)
        return answer if "id" in request else None

    async def _dispatch(self, request_id: Any, name: str, params: Any) -> dict[str, Any]:
        found = self._methods.get(name)
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
        except FeeDataError as error:  # says nothing of the node's address, and what to set
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
