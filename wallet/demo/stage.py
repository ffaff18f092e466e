"""The demo's stage: a devnet at the first bar, and bundler, paymaster and keeper as separate processes beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.devnet import Devnet
from contracts.devnet.accounts import devnet_key
from contracts.types import checksum
from wallet.demo.processes import Service

_BUDGET_WEI = 10**18


def _toml(fields: Mapping[str, Any]) -> str:
    """Flat values and one level of tables; strings, integers, floats, booleans and lists of strings have JSON's syntax in TOML."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in fields.items() if not isinstance(value, Mapping)]
    tables = [
        f"\n[{key}]\n" + "\n".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
        for key, value in fields.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join(plain + tables) + "\n"


class Stage:
    """The services of one run. Their databases, keys (public devnet keys), settings and logs lie in `folder`."""

    def __init__(self, net: Devnet, folder: Path) -> None:
        self.net = net
        self.folder = folder
        where = net.addresses
        self.bundler = self._service(
            "bundler",
            "bundler",
            {
                "rpc_url": net.rpc_url,
                "port": 0,
                "database": str(folder / "bundler.db"),
                "key_file": self._key("bundler"),
                "entry_points": [checksum(where.entry_point_v08)],
                "poll_interval_s": 0.01,
                "idle_poll_interval_s": 0.05,
            },
        )
        self.paymaster = self._service(
            "paymaster",
            "paymaster",
            {
                "rpc_url": net.rpc_url,
                "port": 0,
                "ledger": str(folder / "paymaster.db"),
                "engines": [checksum(net.accounts.engine.address)],
                "risk_validator": checksum(where.risk_validator),
                "poll_s": 0.2,
                "paymasters": {"v0.8": checksum(where.verifying_paymaster)},
                "budget": {
                    "per_operation_wei": _BUDGET_WEI // 10,
                    "per_account_day_wei": _BUDGET_WEI,
                    "total_wei": _BUDGET_WEI,
                },
                "signer": {"key_file": self._key("paymaster_signer")},
            },
        )
        self.keeper: Service | None = None

    def add_keeper(self, *, from_block: int) -> Service:
        """The keeper, once the bundler's address is known. It finds its triggers and sessions in the chain's events."""
        where = self.net.addresses
        names = ("multicall3", "stop_loss", "session_validator")
        self.keeper = self._service(
            "keeper",
            "wallet.keeper",
            {
                "rpc_url": self.net.rpc_url,
                "bundler_url": self.bundler.url,
                "entry_point": "v0.8",
                "addresses": {name: checksum(getattr(where, name)) for name in names},
                "keeper": {
                    "session_key_file": self._key("keeper"),
                    "db": str(self.folder / "keeper.db"),
                    "from_block": from_block,
                    "poll_ms": 10,
                },
            },
        )
        return self.keeper

    @property
    def services(self) -> Sequence[Service]:
        return [s for s in (self.bundler, self.paymaster, self.keeper) if s is not None]

    async def stop(self) -> None:
        """End every service that still runs."""
        for service in self.services:
            await service.stop()

    def _key(self, name: str) -> str:
        """A 0600 file with the devnet key of `name`."""
        path = self.folder / f"{name}.key"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(devnet_key(name).hex() + "\n")
        return str(path)

    def _service(self, name: str, module: str, settings: Mapping[str, Any]) -> Service:
        path = self.folder / f"{name}.toml"
        path.write_text(_toml(settings))
        return Service(name, module, ["--config", str(path)], self.folder / f"{name}.log")
