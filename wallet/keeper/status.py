"""What people and barriers ask the keeper: JSON-RPC `seawall_status`, and /health and /ready for supervisors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from contracts.errors import SetupError

Status = Callable[[], dict[str, Any]]


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", status=status)


def application(status: Status) -> web.Application:
    """The three questions. `status` gives the answer of `seawall_status`."""

    async def rpc(request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read())
        except msgspec.DecodeError:
            return _json({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "the body is not JSON"}})
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            error = {"code": -32600, "message": "one JSON-RPC 2.0 request object is needed"}
            return _json({"jsonrpc": "2.0", "id": None, "error": error})
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.get("id")}
        if asked["method"] == "seawall_status":
            return _json(answer | {"result": status()})
        message = f"the keeper knows seawall_status only, not {asked['method'][:64]}"
        return _json(answer | {"error": {"code": -32601, "message": message}})

    async def health(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        now = status()
        return _json({"ready": now["ready"], "head": now["head"]}, 200 if now["ready"] else 503)

    app = web.Application(client_max_size=64 * 1024)
    app.router.add_post("/", rpc)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    return app


async def serve(status: Status, host: str, port: int) -> tuple[web.AppRunner, str]:
    """Listen; port 0 takes a free one. Returns the runner to clean up and the URL. Raises SetupError if the port is taken."""
    runner = web.AppRunner(application(status), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None
    bound = runner.addresses[0]
    return runner, f"http://{bound[0]}:{bound[1]}"
