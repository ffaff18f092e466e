"""The JSON-RPC methods: parameters in, results out.   Source: ERC-7769."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bundler.checks import entry_point_of
from bundler.debug import debug_methods
from bundler.estimate import Estimator, parse_overrides
from bundler.gas_price import gas_prices
from bundler.owner import check_owner
from bundler.service import Bundler
from contracts.eip7702 import Authorization
from contracts.entrypoint import EntryPoint
from contracts.errors import BadInput, InvalidFields
from contracts.types import Hash32, checksum, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex
from contracts.userop import Candidate, UserOperation

Method = Callable[[Sequence[Any]], Awaitable[Any]]
Methods = dict[str, tuple[Method, int, int]]
"""Handler, fewest and most parameters, by name."""


def _version() -> str:
    try:
        return version("seawall")
    except PackageNotFoundError:
        return "0"


def _op_hash(value: Any) -> Hash32:
    try:
        return parse_hash(value, "it")
    except InvalidFields as error:
        raise InvalidFields(f"Missing/invalid userOpHash: {error.message}") from None


def candidate_of(fields: Any, *, partial: bool = False) -> Candidate:
    """An operation in ERC-7769's form, with its `eip7702Auth`. Raises InvalidFields."""
    op = UserOperation.from_rpc(fields, partial=partial)
    given = fields.get("eip7702Auth")
    return Candidate(op, None if given is None else Authorization.from_rpc(given))


class Api:
    """Method table of one bundler."""

    def __init__(self, bundler: Bundler) -> None:
        self._bundler = bundler
        self._received = {"operations": 0, "estimates": 0}
        self._estimator = Estimator(bundler.rpc, bundler.executor, bundler.chain_id, bundler.settings, bundler.pricing)
        self.methods: Methods = {
            "eth_sendUserOperation": (self._send, 2, 2),
            "eth_estimateUserOperationGas": (self._estimate, 2, 3),
            "eth_getUserOperationByHash": (self._by_hash, 1, 1),
            "eth_getUserOperationReceipt": (self._receipt, 1, 1),
            "eth_supportedEntryPoints": (self._entry_points, 0, 0),
            "eth_chainId": (self._chain_id, 0, 0),
            "web3_clientVersion": (self._client_version, 0, 0),
            "seawall_status": (self._status, 0, 0),
            "seawall_getUserOperationStatus": (self._op_status, 1, 1),
            "seawall_getPendingUserOperations": (self._pending, 1, 2),
            "seawall_dropUserOperation": (self._drop, 3, 3),
            "seawall_getUserOperationGasPrice": (self._gas_price, 0, 0),
            "pimlico_getUserOperationGasPrice": (self._gas_price, 0, 0),
        }
        if bundler.settings.debug:
            self.methods |= debug_methods(bundler)

    def _entry_point(self, value: Any) -> EntryPoint:
        return entry_point_of(parse_address(value, "entryPoint"), self._bundler.settings)

    async def _send(self, params: Sequence[Any]) -> str:
        self._received["operations"] += 1
        entry_point = self._entry_point(params[1])
        return to_hex(await self._bundler.intake.accept(candidate_of(params[0]), entry_point))

    async def _estimate(self, params: Sequence[Any]) -> dict[str, str]:
        self._received["estimates"] += 1
        entry_point = self._entry_point(params[1])
        overrides = parse_overrides(params[2] if len(params) > 2 else None)
        return await self._estimator.estimate(candidate_of(params[0], partial=True), entry_point, overrides)

    async def _by_hash(self, params: Sequence[Any]) -> dict[str, Any] | None:
        return await self._bundler.lookup.operation(_op_hash(params[0]), self._bundler.chain_id)

    async def _receipt(self, params: Sequence[Any]) -> dict[str, Any] | None:
        return await self._bundler.lookup.receipt(_op_hash(params[0]))

    async def _entry_points(self, params: Sequence[Any]) -> list[str]:  # noqa: ARG002 (one signature for all)
        return [checksum(entry_point.address) for entry_point in self._bundler.settings.entry_points]

    async def _chain_id(self, params: Sequence[Any]) -> str:  # noqa: ARG002
        return hex(self._bundler.chain_id)

    async def _client_version(self, params: Sequence[Any]) -> str:  # noqa: ARG002
        return f"seawall/{_version()}"

    async def _status(self, params: Sequence[Any]) -> dict[str, object]:  # noqa: ARG002
        """The service's status, and what this process was asked since it started, accepted or not."""
        return self._bundler.status() | {"received": dict(self._received)}

    async def _pending(self, params: Sequence[Any]) -> list[dict[str, Any]]:
        """A sender's operations that are in no block, by nonce; of one entry point where it is named."""
        sender = parse_address(params[0], "sender")
        await self._bundler.store.refresh()
        entry_point = self._entry_point(params[1]) if len(params) > 1 and params[1] is not None else None
        return [
            {
                "userOpHash": to_hex(entry.hash),
                "entryPoint": checksum(entry.entry_point.address),
                "nonce": hex(entry.op.nonce),
                "status": "bundled" if self._bundler.pool.is_in_flight(entry.hash) else "received",
                "maxFeePerGas": hex(entry.op.max_fee_per_gas),
                "maxPriorityFeePerGas": hex(entry.op.max_priority_fee_per_gas),
                "receivedBlock": hex(entry.received_block),
            }
            for entry in self._bundler.pool.of_sender(sender)
            if entry_point is None or entry.entry_point is entry_point
        ]

    async def _drop(self, params: Sequence[Any]) -> str:
        """Give an operation up at its owner's word: hash, deadline (unix s), signature (bundler.owner)."""
        op_hash, bundler = _op_hash(params[0]), self._bundler
        deadline_s, signature = parse_quantity(params[1], "deadline"), parse_bytes(params[2], "signature")
        await bundler.store.refresh()
        entry = bundler.pool.get(op_hash)
        if entry is None:
            raise InvalidFields(f"{to_hex(op_hash)} is not in the pool")
        await check_owner(bundler.rpc, bundler.chain_id, entry, deadline_s, signature, time.time())
        try:
            await bundler.give_up(op_hash, "its owner asked for it")
        except BadInput as error:
            raise InvalidFields(error.message) from None
        return to_hex(op_hash)

    async def _gas_price(self, params: Sequence[Any]) -> dict[str, dict[str, str]]:  # noqa: ARG002
        return await gas_prices(self._bundler.rpc, self._bundler.settings, self._bundler.pricing)

    async def _op_status(self, params: Sequence[Any]) -> dict[str, Any] | None:
        return await self._bundler.lookup.status(_op_hash(params[0]))
