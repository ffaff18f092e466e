"""The JSON-RPC methods: parameters in, results out.   Source: ERC-7769."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bundler.checks import entry_point_of
from bundler.estimate import Estimator, parse_overrides
from bundler.service import Bundler
from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields
from contracts.types import checksum, parse_address, parse_hash, to_hex
from contracts.userop import UserOperation

Method = Callable[[Sequence[Any]], Awaitable[Any]]


def _version() -> str:
    try:
        return version("seawall")
    except PackageNotFoundError:
        return "0"


def _operation(fields: Any, *, partial: bool = False) -> UserOperation:
    if isinstance(fields, dict) and fields.get("eip7702Auth") is not None:
        raise InvalidFields(
            "eip7702Auth is not supported here: send the authorisation in a transaction of its own first"
        )
    return UserOperation.from_rpc(fields, partial=partial)


class Api:
    """Method table of one bundler."""

    def __init__(self, bundler: Bundler) -> None:
        self._bundler = bundler
        self._received = {"operations": 0, "estimates": 0}
        self._estimator = Estimator(bundler.rpc, bundler.executor, bundler.chain_id, bundler.settings)
        self.methods: dict[str, tuple[Method, int, int]] = {
            "eth_sendUserOperation": (self._send, 2, 2),
            "eth_estimateUserOperationGas": (self._estimate, 2, 3),
            "eth_getUserOperationByHash": (self._by_hash, 1, 1),
            "eth_getUserOperationReceipt": (self._receipt, 1, 1),
            "eth_supportedEntryPoints": (self._entry_points, 0, 0),
            "eth_chainId": (self._chain_id, 0, 0),
            "web3_clientVersion": (self._client_version, 0, 0),
            "seawall_status": (self._status, 0, 0),
            "seawall_getUserOperationStatus": (self._op_status, 1, 1),
        }
        """Handler, fewest and most parameters."""

    def _entry_point(self, value: Any) -> EntryPoint:
        return entry_point_of(parse_address(value, "entryPoint"), self._bundler.settings)

    async def _send(self, params: Sequence[Any]) -> str:
        self._received["operations"] += 1
        entry_point = self._entry_point(params[1])
        return to_hex(await self._bundler.intake.accept(_operation(params[0]), entry_point))

    async def _estimate(self, params: Sequence[Any]) -> dict[str, str]:
        self._received["estimates"] += 1
        entry_point = self._entry_point(params[1])
        overrides = parse_overrides(params[2] if len(params) > 2 else None)
        return await self._estimator.estimate(_operation(params[0], partial=True), entry_point, overrides)

    async def _by_hash(self, params: Sequence[Any]) -> dict[str, Any] | None:
        return await self._bundler.lookup.operation(parse_hash(params[0], "userOpHash"), self._bundler.chain_id)

    async def _receipt(self, params: Sequence[Any]) -> dict[str, Any] | None:
        return await self._bundler.lookup.receipt(parse_hash(params[0], "userOpHash"))

    async def _entry_points(self, params: Sequence[Any]) -> list[str]:  # noqa: ARG002 (one signature for all)
        return [checksum(entry_point.address) for entry_point in self._bundler.settings.entry_points]

    async def _chain_id(self, params: Sequence[Any]) -> str:  # noqa: ARG002
        return hex(self._bundler.chain_id)

    async def _client_version(self, params: Sequence[Any]) -> str:  # noqa: ARG002
        return f"seawall/{_version()}"

    async def _status(self, params: Sequence[Any]) -> dict[str, object]:  # noqa: ARG002
        """The service's status, and what this process was asked since it started, accepted or not."""
        return self._bundler.status() | {"received": dict(self._received)}

    async def _op_status(self, params: Sequence[Any]) -> dict[str, Any] | None:
        return self._bundler.lookup.status(parse_hash(params[0], "userOpHash"))
