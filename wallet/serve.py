"""`seawall policy serve`: the policy engine as JSON over HTTP, and its decisions as a stream. docs/policy-service.md has every end point.

Every request but /health and /ready carries the token. A body and an answer have limits of size and time. An attestation is on the disk
before it is answered; a client whose connection broke asks again and gets the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from contracts.errors import BadInput, InvalidFields, NodeError, PolicyRefused, SeawallError, SetupError
from contracts.types import Address, checksum, parse_address, to_hex
from contracts.userop import UserOperation
from policies.attestation import SignedApproval
from wallet.audit import ATTESTATION, DECISION, AuditLog, Entry
from wallet.proposals import parse_approval
from wallet.serve_engine import PolicyService

_log = logging.getLogger("seawall.policy")
_encode = msgspec.json.encode
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_APPROVALS = 255
MIN_TOKEN = 24
"""Characters of the shortest token."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may ask of the service."""

    body_bytes: int = 256 * 1024
    request_s: float = 15.0
    judging: int = 16
    """Operations that are judged at the same time; the next ones are told to come back."""
    streams: int = 32
    page: int = 200
    keep_alive_s: float = 15.0
    poll_s: float = 0.5
    """How often a stream looks for entries that another process has made."""


class Service:
    """The end points."""

    def __init__(self, policy: PolicyService, token: str, limits: Limits = Limits()) -> None:
        """Raises BadInput for a token that is too short to be one."""
        if len(token) < MIN_TOKEN:
            raise BadInput(f"the service's token needs at least {MIN_TOKEN} characters")
        self.policy = policy
        self.limits = limits
        self._token = hashlib.sha256(token.encode()).digest()
        self._judging = 0
        self._streams = 0
        self.closing = asyncio.Event()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self.limits.body_bytes, middlewares=[self._guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/v1/policy", self._policy)
        app.router.add_post("/v1/judgements", self._judge)
        app.router.add_post("/v1/approvals", self._approve)
        app.router.add_post("/v1/attestations", self._attest)
        app.router.add_get("/v1/attestations/{id}", self._attestation)
        app.router.add_get("/v1/decisions", self._decisions)
        app.router.add_get("/v1/decisions/{id}", self._decision)
        app.router.add_get("/v1/events", self._events)
        return app

    # -- around every request -------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in ("/health", "/ready") and not self._may(request):
            return _error(401, "a bearer token is needed: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        try:
            if request.path == "/v1/events":
                return await handler(request)
            async with asyncio.timeout(self.limits.request_s):
                return await handler(request)
        except TimeoutError:
            return _error(
                504, f"no answer within {self.limits.request_s:g} s; ask again, the same operation is judged once"
            )
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"a body has at most {self.limits.body_bytes} bytes")
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        except PolicyRefused as error:
            return _json({"error": {"message": error.message, "decision": error.data}}, 403)
        except NodeError as error:
            return _error(502, str(error))
        except BadInput as error:
            return _error(400, error.message)
        except SetupError as error:
            _log.error("%s", error.message)
            return _error(500, error.message)
        except SeawallError as error:
            return _error(500, error.message)
        except Exception:
            _log.exception("a defect of ours")
            return _error(500, "internal error; the service's log has the trace")

    def _may(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        return hmac.compare_digest(digest, self._token) and kind.lower() == "bearer"

    @contextlib.asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        if self._judging >= self.limits.judging:
            raise web.HTTPServiceUnavailable(reason="too many operations are being judged; come back in a second")
        self._judging += 1
        try:
            yield
        finally:
            self._judging -= 1

    # -- questions ------------------------------------------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _ready(self, _: web.Request) -> web.Response:
        found = await self.policy.health()
        return _json(found, 200 if found["ready"] else 503)

    async def _policy(self, _: web.Request) -> web.Response:
        policy = self.policy.policy
        return _json(
            {
                "id": to_hex(policy.policy_id),
                "name": policy.name,
                "version": policy.version,
                "schema": policy.schema_version,
                "chainId": self.policy.chain_id,
                "riskValidator": checksum(self.policy.risk_validator),
                "entryPoint": checksum(self.policy.entry_point.address),
                "engine": None if self.policy.key is None else checksum(self.policy.key.address),
                "document": json.loads(json.dumps(policy.document)),
            }
        )

    async def _judge(self, request: web.Request) -> web.Response:
        op, body = await self._operation(request, partial=True, known=("sponsored", "sizes"))
        async with self._room():
            found = await self.policy.judge(op, sponsored=_flag(body, "sponsored"), sizes=_flag(body, "sizes", True))
        decision = found.decision
        return _json(
            {
                "id": to_hex(decision.id),
                "allowed": decision.allowed,
                "block": found.facts.block_number,
                "callGas": found.simulated_gas,
                "decision": decision.to_json(),
            }
        )

    async def _approve(self, request: web.Request) -> web.Response:
        op, body = await self._operation(request, partial=False, known=("approvals",))
        async with self._room():
            judgement, approval = await self.policy.approve(op, _approvals(body))
        return _json({"id": to_hex(judgement.decision.id), "approval": approval})

    async def _attest(self, request: web.Request) -> web.Response:
        op, body = await self._operation(request, partial=False, known=("approvals",))
        approvals = _approvals(body)
        async with self._room():
            # A client that has gone away must not leave half of this undone: what was recorded is what the next request finds.
            return _json(await asyncio.shield(self.policy.attest(op, approvals)))

    async def _operation(
        self, request: web.Request, *, partial: bool, known: tuple[str, ...] = ()
    ) -> tuple[UserOperation, dict[str, Any]]:
        """The operation of a body {"userOp": {...}}. Raises InvalidFields."""
        try:
            body = msgspec.json.decode(await request.read())
        except (msgspec.DecodeError, RecursionError):
            raise InvalidFields("the body is not JSON") from None
        if not isinstance(body, dict) or "userOp" not in body:
            raise InvalidFields('the body must be an object with a "userOp"')
        if unknown := sorted(body.keys() - {"userOp", *known}):
            raise InvalidFields(f"unknown field {unknown[0]!r}; facts are read from the chain, not taken from clients")
        fields = body["userOp"]
        if isinstance(fields, dict):
            fields = {"signature": "0x", **fields}
        return UserOperation.from_rpc(fields, partial=partial), body

    # -- the record -----------------------------------------------------------------------------------------------------------------

    async def _decision(self, request: web.Request) -> web.Response:
        entry = self._found(request, DECISION)
        if "text/html" in request.headers.get("Accept", ""):
            from policies.explain_html import explain_html

            page = explain_html(entry.body["decision"], entry.body["id"])
            return web.Response(text=page, content_type="text/html", headers=_HEADERS)
        return _json(_shown(entry))

    async def _attestation(self, request: web.Request) -> web.Response:
        return _json(_shown(self._found(request, ATTESTATION)))

    def _found(self, request: web.Request, kind: str) -> Entry:
        found = self.policy.find(request.match_info["id"])
        if found is None or found[1].kind != kind:
            raise web.HTTPNotFound(reason=f"no {kind} is recorded under that id")
        return found[1]

    async def _decisions(self, request: web.Request) -> web.Response:
        account = parse_address(_needed(request, "account"), "account")
        after = _number(request, "after", 0)
        limit = min(_number(request, "limit", 50), self.limits.page)
        entries = [entry for log in self.policy.logs(account) for entry in log.entries(after, limit)]
        return _json({"entries": [_shown(entry) for entry in entries], "next": entries[-1].seq if entries else after})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Every entry as it is made: server-sent events for `Accept: text/event-stream`, else a JSON document a line."""
        if self._streams >= self.limits.streams:
            return _error(503, f"there are {self._streams} streams already; close one")
        only = None if "account" not in request.query else parse_address(request.query["account"], "account")
        cursor = _cursor(request.headers.get("Last-Event-ID") or request.query.get("after"))
        sse = "text/event-stream" in request.headers.get("Accept", "")
        if cursor is None:
            cursor = {_account(log): log.tip()[0] for log in self.policy.logs(only)}
        response = web.StreamResponse(
            headers={**_HEADERS, "Content-Type": "text/event-stream" if sse else "application/x-ndjson"}
        )
        self._streams += 1
        try:
            await response.prepare(request)
            await response.write(b": listening\n\n" if sse else b"\n")
            await self._stream(response, only, cursor, sse=sse)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._streams -= 1
        return response

    async def _stream(
        self, response: web.StreamResponse, only: Address | None, cursor: dict[Address, int], *, sse: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        spoken = loop.time()
        while not self.closing.is_set():
            changed = self.policy.changed
            for log in self.policy.logs(only):
                account = _account(log)
                for entry in log.entries(cursor.get(account, 0), self.limits.page):
                    cursor[account] = entry.seq
                    data = _encode(_shown(entry))
                    if sse:
                        data = b"id: %s\nevent: %s\ndata: %s\n" % (_mark(cursor), entry.kind.encode(), data)
                    await response.write(data + b"\n")
                    spoken = loop.time()
            if loop.time() - spoken > self.limits.keep_alive_s:
                await response.write(b":\n\n" if sse else b"\n")
                spoken = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), self.limits.poll_s)


_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json", headers=_HEADERS)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    response = _json({"error": {"message": message}}, status)
    response.headers.update(headers or {})
    return response


def _shown(entry: Entry) -> dict[str, Any]:
    return {"seq": entry.seq, "kind": entry.kind, "hash": to_hex(entry.hash), **entry.body}


def _account(log: AuditLog) -> Address:
    return bytes.fromhex(log.path.stem.partition("-0x")[2])


def _mark(cursor: dict[Address, int]) -> bytes:
    """Where a stream stands: 0xaccount:seq,... A client gives it back to go on from there."""
    return ",".join(f"{to_hex(account)}:{seq}" for account, seq in sorted(cursor.items())).encode()


def _cursor(text: str | None) -> dict[Address, int] | None:
    if text is None:
        return None
    found = {}
    for part in filter(None, text.split(",")):
        account, _, seq = part.strip().partition(":")
        if not seq.isdecimal():
            raise BadInput("after must be the id of an event: 0xaccount:number, separated by commas")
        found[parse_address(account, "after")] = int(seq)
    return found


def _needed(request: web.Request, name: str) -> str:
    if name not in request.query:
        raise BadInput(f"the query needs {name}")
    return request.query[name]


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 18:
        raise BadInput(f"{name} must be a number, got {text[:20]!r}")
    return int(text)


def _approvals(body: dict[str, Any]) -> list[SignedApproval]:
    """The lines of `seawall proposal sign`, for an operation that needs a quorum."""
    given = body.get("approvals", [])
    if not isinstance(given, list) or len(given) > MAX_APPROVALS:
        raise InvalidFields(f"approvals must be a list of at most {MAX_APPROVALS} lines of `seawall proposal sign`")
    return [parse_approval(text) for text in given]


def _flag(body: dict[str, Any], name: str, default: bool = False) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise InvalidFields(f"{name} must be true or false")
    return value


async def listen(service: Service, host: str, port: int) -> tuple[web.AppRunner, str]:
    """Listen; port 0 takes a free one. Returns the runner to clean up and the URL. Raises SetupError if the port is taken."""
    runner = web.AppRunner(service.application(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None
    bound = runner.addresses[0]
    return runner, f"http://{bound[0]}:{bound[1]}"
