"""The operator's own address: metrics for anyone who reaches it (loopback by default), commands with a token.

GET /metrics   Prometheus      GET /status   as `seawall_status`      POST /ACTION {"argument": ...}   with `Authorization: Bearer TOKEN`
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from bundler.metrics import CONTENT_TYPE, Metrics
from bundler.service import Bundler
from bundler.settings import Settings
from contracts.errors import BadInput, NodeUnreachable, SeawallError
from contracts.types import checksum, parse_address, parse_hash, to_hex

log = logging.getLogger("bundler.admin")

Reload = Callable[[], Awaitable[list[str]]]
"""Reads the settings again; returns the names of those that changed. Raises BadInput."""
ACTIONS: Mapping[str, str] = {
    "pause": "send no bundles; operations are still accepted",
    "resume": "undo pause and drain",
    "drain": "accept no operations; those in the pool are still sent",
    "flush": "build one bundle now and see it settled",
    "drop": "give one operation up: its hash",
    "ban": "ban an entity: its address",
    "unban": "forget an entity's reputation: its address",
    "reload": "read the settings file again; limits change at once",
}


class Admin:
    """Serves `Settings.admin_host`:`admin_port`."""

    def __init__(self, bundler: Bundler, metrics: Metrics, settings: Settings, reload: Reload) -> None:
        self._bundler, self._metrics, self._settings, self._reload = bundler, metrics, settings, reload
        self._token = settings.admin_token()
        app = web.Application(client_max_size=10_000)
        app.router.add_get("/metrics", self._render)
        app.router.add_get("/status", self._status)
        app.router.add_post("/{action}", self._act)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self.url = ""

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._settings.admin_host, self._settings.admin_port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _render(self, request: web.Request) -> web.Response:  # noqa: ARG002 (aiohttp's form)
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.json_response(self._bundler.status())

    async def _act(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        if self._token is None:
            return _refusal(403, "no token is set: name a file with one, admin_token_file, and start again")
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return _refusal(401, "the token is missing or wrong: send Authorization: Bearer TOKEN")
        if action not in ACTIONS:
            return _refusal(404, f"there is no {action[:80]!r}; there are {', '.join(ACTIONS)}")
        try:
            body = await request.read()
            argument = msgspec.json.decode(body).get("argument") if body else None
        except (msgspec.DecodeError, AttributeError):
            return _refusal(400, 'the body must be {"argument": ...}')
        try:
            result = await self.act(action, argument)
        except SeawallError as error:
            return _refusal(400, error.message)
        log.warning("%s %s by the operator: %s", action, argument or "", result)
        return web.json_response({"result": result})

    async def act(self, action: str, argument: Any = None) -> Any:
        """Carry one action out. Raises BadInput, NodeError, SetupError."""
        bundler = self._bundler
        if action in ("pause", "resume", "drain"):
            bundler.paused = action == "pause" or (action == "drain" and bundler.paused)
            bundler.intake.draining = action == "drain" or (action == "pause" and bundler.intake.draining)
            bundler.wake()
            return bundler.status()
        if action == "flush":
            return [to_hex(op_hash) for op_hash in await bundler.send_now()]
        if action == "reload":
            return await self._reload()
        if not isinstance(argument, str):
            raise BadInput(f"{action} needs an argument: {ACTIONS[action].rpartition(': ')[2]}")
        if action == "drop":
            return await bundler.give_up(parse_hash(argument, "the hash"))
        address = parse_address(argument, "the address")
        if action == "ban":
            gone = await bundler.ban(address)
            return {"banned": checksum(address), "dropped": [to_hex(one) for one in gone]}
        await bundler.unban(address)
        return {"unbanned": checksum(address)}


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


async def ask(url: str, action: str, argument: str | None, token: str | None) -> Any:
    """What a running bundler answers to an action, or to `status`. Raises BadInput, NodeUnreachable."""
    if action != "status" and action not in ACTIONS:
        raise BadInput(f"there is no {action!r}; there are status, {', '.join(ACTIONS)}")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as session:
            if action == "status":
                response = await session.get(f"{url}/status")
            else:
                response = await session.post(f"{url}/{action}", json={"argument": argument})
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise NodeUnreachable(f"no answer from {url}: {why}. Is admin_port set, and the address right?") from None
    if response.status >= 400:
        raise BadInput(str(answer.get("error", answer)))
    return answer if action == "status" else answer["result"]
