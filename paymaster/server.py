"""The sponsor's JSON-RPC over HTTP: ERC-7677's two methods, `seawall_status`, and GET /health and /ready.

A malformed request is answered with a JSON-RPC error; only a defect of ours answers -32603, and its trace goes to the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec
from aiohttp import web

from contracts.entrypoint import by_address
from contracts.errors import BadInput, InvalidFields, SeawallError, SponsorRefused
from contracts.faults import checkpoint
from contracts.rpc import RpcClient
from contracts.token_paymaster import Guarantor, TokenPayment, guarantee_digest
from contracts.types import Address, Hash32, checksum, parse_address, parse_quantity, to_hex
from contracts.userop import UserOperation
from paymaster.approval import Approval
from paymaster.chain import Follower, quoted, snapshot
from paymaster.ledger import Ledger
from paymaster.sponsor import (
    STUB_DATA,
    Terms,
    check_account,
    check_budget,
    check_nonce,
    judge,
    paymaster_data,
    sponsorship_digest,
)
from paymaster.tokens import (
    Asked,
    Quoted,
    TokenOffer,
    check_credit,
    check_guarantee,
    check_payer,
    check_token,
    price_of,
    stub_payment,
)

_log = logging.getLogger("seawall.paymaster")
_encode = msgspec.json.encode


class Signer(Protocol):
    """Holds the sponsoring key. `contracts.eoa.Eoa` is one."""

    @property
    def address(self) -> Address: ...

    def sign_hash(self, digest: Hash32) -> bytes:
        """r || s || v over a digest; the same digest gives the same signature (RFC 6979)."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one HTTP request may ask for."""

    body_bytes: int = 512 * 1024
    batch: int = 20
    request_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What the stub answers: who sponsors, and the gas limits (gas) of the paymaster's own steps."""

    name: str = "Seawall"
    icon: str | None = None
    verification_gas: int = 60_000
    post_op_gas: int = 0


_NO_TOKENS = TokenOffer()


class Service:
    """The methods, by name. All state is in the ledger and on chain."""

    def __init__(
        self,
        rpc: RpcClient,
        ledger: Ledger,
        follower: Follower,
        signer: Signer,
        terms: Terms,
        paymasters: Mapping[Address, Address],
        chain_id: int,
        offer: Offer = Offer(),
        token_paymasters: Mapping[Address, Address] | None = None,
        tokens: TokenOffer = _NO_TOKENS,
    ) -> None:
        self._rpc = rpc
        self._ledger = ledger
        self._follower = follower
        self._signer = signer
        self._terms = terms
        self._paymasters = dict(paymasters)
        self._chain_id = chain_id
        self._offer = offer
        self._token_paymasters = dict(token_paymasters or {})
        self._tokens = tokens
        self.methods: dict[str, Callable[[list[Any]], Awaitable[Any]]] = {
            "pm_getPaymasterStubData": self._stub_data,
            "pm_getPaymasterData": self._data,
            "seawall_status": self._status,
        }

    def _read(
        self, params: list[Any], *, partial: bool
    ) -> tuple[UserOperation, Address, Address, object, Asked | None]:
        """The operation with our paymaster in it, entry point, paymaster and context of ERC-7677's parameters, and the token it names."""
        if not 3 <= len(params) <= 4:
            raise InvalidFields(f"expected [userOp, entryPoint, chainId, context], got {len(params)} parameters")
        fields, entry_point, chain_id, context = [*params, None][:4]
        if not isinstance(fields, Mapping):
            raise InvalidFields(f"userOp must be a JSON object, got {type(fields).__name__}")
        asked_chain = parse_quantity(chain_id, "chainId")
        if asked_chain != self._chain_id:
            raise InvalidFields(f"this sponsor pays on chain {self._chain_id}, not {asked_chain}")
        version = by_address(parse_address(entry_point, "entryPoint"))
        asked = Asked.from_context(context)
        paymasters = self._paymasters if asked is None else self._token_paymasters
        gas = self._offer if asked is None else self._tokens
        paymaster = paymasters.get(version.address)
        if paymaster is None:
            served = ", ".join(checksum(address) for address in paymasters) or "none"
            what = "paymaster" if asked is None else "paymaster that takes tokens"
            raise InvalidFields(f"no {what} on entry point {version.version}; sponsored: {served}")
        given = {key: value for key, value in fields.items() if value is not None}
        if (named := given.get("paymaster")) not in (None, "0x") and parse_address(named, "paymaster") != paymaster:
            raise InvalidFields(f"the operation names paymaster {named}, this sponsor's is {checksum(paymaster)}")
        op = UserOperation.from_rpc(
            {
                "signature": "0x",
                "paymasterVerificationGasLimit": hex(gas.verification_gas),
                "paymasterPostOpGasLimit": hex(gas.post_op_gas),
                **given,
                "paymaster": to_hex(paymaster),
            },
            partial=partial,
        )
        return op, version.address, paymaster, context, asked

    def _answer(self, op: UserOperation, paymaster: Address, data: bytes) -> dict[str, Any]:
        sponsor = {"name": self._offer.name} | ({"icon": self._offer.icon} if self._offer.icon else {})
        return {
            "sponsor": sponsor,
            "paymaster": checksum(paymaster),
            "paymasterData": to_hex(data),
            "paymasterVerificationGasLimit": hex(op.paymaster_verification_gas_limit),
            "paymasterPostOpGasLimit": hex(op.paymaster_post_op_gas_limit),
        }

    async def _stub_data(self, params: list[Any]) -> dict[str, Any]:
        """Values to estimate gas with. Needs no approval (the approval covers the estimate), promises nothing."""
        op, _, paymaster, _, asked = self._read(params, partial=True)
        gas = self._offer if asked is None else self._tokens
        op = op.replace(
            paymaster_verification_gas_limit=gas.verification_gas, paymaster_post_op_gas_limit=gas.post_op_gas
        )
        if asked is None:
            check_account(op.sender, self._terms)
            data = STUB_DATA
        else:
            check_token(asked.token, self._tokens)
            head, found = await asyncio.gather(self._rpc.block(), self._quoted(op, paymaster, asked))
            now_s = parse_quantity(head["timestamp"], "timestamp")
            price = price_of(asked.token, found, self._tokens, now_s)
            data = stub_payment(asked, price, self._signer.address).encode()
        return self._answer(op, paymaster, data) | {"isFinal": False}

    async def _quoted(self, op: UserOperation, paymaster: Address, asked: Asked) -> Quoted:
        return await quoted(self._rpc, paymaster, asked.token, op.sender, self._signer.address)

    async def _data(self, params: list[Any]) -> dict[str, Any]:
        """Sign for an approved operation, once its promise is on disk."""
        op, entry_point, paymaster, context, asked = self._read(params, partial=False)
        if asked is not None:
            return await self._token_data(op, entry_point, paymaster, context, asked)
        approval = Approval.from_context(context, op.sender)
        seen = await snapshot(self._rpc, entry_point, paymaster, op)
        claim = judge(op, entry_point, approval, self._terms, self._chain_id, seen.head.timestamp_s)
        check_nonce(op, seen.next_nonce)
        budget = self._terms.budget
        reservation = await self._ledger.reserve(
            claim, lambda wanted, usage: check_budget(wanted, usage, budget, seen.deposit_wei)
        )
        signature = self._signer.sign_hash(sponsorship_digest(op, paymaster, self._chain_id, reservation.valid_until_s))
        checkpoint("paymaster.answer.before")
        return self._answer(op, paymaster, paymaster_data(reservation.valid_until_s, signature))

    async def _token_data(
        self, op: UserOperation, entry_point: Address, paymaster: Address, context: object, asked: Asked
    ) -> dict[str, Any]:
        """The worst price for an operation that pays in a token; if it asks for a guarantee, signed once its promise is on disk."""
        check_token(asked.token, self._tokens)
        seen, found = await asyncio.gather(
            snapshot(self._rpc, entry_point, paymaster, op), self._quoted(op, paymaster, asked)
        )
        now_s = seen.head.timestamp_s
        price = price_of(asked.token, found, self._tokens, now_s)
        payment = TokenPayment(asked.token, price)
        claim = None
        if asked.guarantee:
            claim = check_guarantee(op, entry_point, context, self._terms, self._tokens, self._chain_id, now_s)
            payment = replace(payment, guarantor=Guarantor(self._signer.address, claim.valid_until_s))
        charge = check_payer(
            op, payment, found, paymaster=paymaster, next_nonce=seen.next_nonce, deposit_wei=seen.deposit_wei
        )
        if claim is not None:
            check_credit(found.credit, charge)
            budget = self._terms.budget
            promise = await self._ledger.reserve(
                claim, lambda wanted, usage: check_budget(wanted, usage, budget, seen.deposit_wei)
            )
            until_s = min(promise.valid_until_s, found.valid_until_s)
            payment = replace(payment, guarantor=Guarantor(self._signer.address, until_s))
            payment = payment.signed(self._signer.sign_hash(guarantee_digest(op, payment, paymaster, self._chain_id)))
            checkpoint("paymaster.answer.before")
        terms = {
            "token": checksum(asked.token),
            "maxTokenPerNative": str(price),
            "maxCharge": str(charge),
            "validUntil": found.valid_until_s if payment.guarantor is None else payment.guarantor.valid_until_s,
        }
        return self._answer(op, paymaster, payment.encode()) | {"tokenPayment": terms}

    async def _status(self, params: list[Any]) -> dict[str, Any]:
        """Look at the chain now, then say how things stand. Amounts are decimal strings of wei."""
        if params:
            raise InvalidFields("seawall_status takes no parameters")
        status = await self._follower.poll()
        totals = await self._ledger.totals()
        head = status.head
        deposits = dict(status.deposits_wei)
        return {
            "ready": status.ready,
            "reasons": list(status.reasons),
            "chainId": hex(self._chain_id),
            "signer": checksum(self._signer.address),
            "head": None if head is None else {"number": head.number, "timestamp": head.timestamp_s},
            "paymasters": [
                {
                    "entryPoint": checksum(entry_point),
                    "paymaster": checksum(paymaster),
                    "depositWei": str(deposits[entry_point]) if entry_point in deposits else None,
                }
                for entry_point, paymaster in self._paymasters.items()
            ],
            "tokenPaymasters": {
                checksum(entry_point): checksum(paymaster) for entry_point, paymaster in self._token_paymasters.items()
            },
            "budgetWei": str(self._terms.budget.total_wei),
            "spentWei": str(totals.spent_wei),
            "heldWei": str(totals.held_wei),
            "held": totals.held,
            "settled": totals.settled,
        }


class Server:
    """HTTP around a Service."""

    def __init__(self, service: Service, follower: Follower, limits: Limits = Limits()) -> None:
        self._service = service
        self._follower = follower
        self._limits = limits
        self.app = web.Application(client_max_size=limits.body_bytes)
        self.app.add_routes(
            [web.post("/", self._rpc), web.get("/health", self._health), web.get("/ready", self._ready)]
        )

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        status = self._follower.status
        return _json({"ready": status.ready, "reasons": status.reasons}, 200 if status.ready else 503)

    async def _rpc(self, request: web.Request) -> web.Response:
        # A page in a browser may post text/plain to loopback unasked; JSON needs a preflight, which nothing here answers.
        if request.content_type != "application/json":
            return _json(_failure(None, -32600, "send Content-Type: application/json"), 415)
        try:
            async with asyncio.timeout(self._limits.request_s):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            limit = self._limits.body_bytes
            return _json(_failure(None, -32600, f"the request is larger than {limit} bytes"), 413)
        except TimeoutError:
            return _json(_failure(None, -32600, "the request did not arrive in time"), 408)
        answer = await self._answer(body)
        if answer is None:
            return web.Response(status=204)
        response = _json(answer)
        checkpoint("paymaster.answer.after")
        return response

    async def _answer(self, body: bytes) -> object:
        try:
            message = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return _failure(None, -32700, "the request is not JSON")
        if not isinstance(message, list):
            return await self._one(message)
        if not 1 <= len(message) <= self._limits.batch:
            return _failure(None, -32600, f"a batch holds 1 to {self._limits.batch} calls, got {len(message)}")
        answers = [answer for item in message if (answer := await self._one(item)) is not None]
        return answers or None

    async def _one(self, message: object) -> dict[str, Any] | None:
        """One call. None for a notification, which is not carried out: nobody would get the signature."""
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            return _failure(None, -32600, 'a call is {"jsonrpc": "2.0", "id": ..., "method": ..., "params": [...]}')
        call_id = message.get("id")
        if "id" not in message:
            return None
        if not isinstance(call_id, str | int | float | None) or message.get("jsonrpc") != "2.0":
            return _failure(None, -32600, 'jsonrpc must be "2.0" and id a string or a number')
        method = self._service.methods.get(message["method"])
        if method is None:
            return _failure(call_id, -32601, f"unknown method {message['method']!r:.80}")
        params = message.get("params", [])
        if not isinstance(params, list):
            return _failure(call_id, -32602, "params must be an array")
        try:
            async with asyncio.timeout(self._limits.request_s):
                result = await method(params)
        except SeawallError as error:
            if not isinstance(error, BadInput | SponsorRefused):
                _log.warning("%s failed: %s", message["method"], error)
            return {"jsonrpc": "2.0", "id": call_id, "error": error.to_rpc()}
        except TimeoutError:
            return _failure(call_id, -32603, f"no answer within {self._limits.request_s:g} s; ask again")
        except Exception:
            _log.exception("defect in %s", message["method"])
            return _failure(call_id, -32603, "internal error; the sponsor's log has the details")
        return {"jsonrpc": "2.0", "id": call_id, "result": result}


def _failure(call_id: object, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json")
