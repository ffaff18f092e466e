"""A user's machine in a folder: settings, keystore and data of its own, and the command line as a real process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import bindings as b
from contracts.devnet.accounts import devnet_key
from contracts.eoa import TransactionSender
from contracts.types import checksum, parse_address
from tests.wallet.trading_floor import POLICY, Floor
from wallet.audit import AuditLog
from wallet.cli.devnet import describe
from wallet.keystore import Keystore, Passphrase

ROOT = Path(__file__).resolve().parents[2]
PASSPHRASE = "a passphrase of some length"
KEYS = {
    "owner": "owner",
    "engine": "engine",
    "keeper": "keeper",
    "guardian": "guardian",
    "guardian-2": "guardian2",
    "guardian-3": "guardian3",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Machine:
    """One user. `folder` holds everything; nothing of the real user is read."""

    floor: Floor
    folder: Path

    @classmethod
    def set_up(cls, floor: Floor, folder: Path) -> Machine:
        store = Keystore(folder / "keys")
        for name, person in KEYS.items():
            store.add(name, devnet_key(person), Passphrase(PASSPHRASE), kdf_n=2)
        phrase = folder / "phrase"
        phrase.touch(mode=0o600)
        phrase.write_text(PASSPHRASE + "\n")
        (folder / "devnet.json").write_text(json.dumps(describe(floor.net)))
        (folder / "policy.yaml").write_text(POLICY)
        (folder / "seawall.toml").write_text(
            f'bundler_url = "{floor.stage.bundler.url}"\npaymaster_url = "{floor.stage.paymaster.url}"\n'
            'deployments = "devnet.json"\nkeystore = "keys"\npolicy = "policy.yaml"\nread_only = false\n'
            "[keys]\n" + "".join(f'{role} = "{role}"\n' for role in ("owner", "engine", "keeper", "guardian"))
        )
        return cls(floor, folder)

    async def run(self, *arguments: str, env: dict[str, str] | None = None, stdin: bytes | None = None) -> Answer:
        """`seawall ARGUMENTS` in the folder, the passphrase in its file."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SEAWALL_", "XDG_"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wallet.cli",
            *arguments,
            cwd=self.folder,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean
            | {
                "PYTHONPATH": str(ROOT),
                "XDG_DATA_HOME": str(self.folder / "data"),
                "XDG_CONFIG_HOME": str(self.folder / "config"),
                "SEAWALL_PASSPHRASE_FILE": str(self.folder / "phrase"),
            }
            | (env or {}),
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), err.decode())

    async def account(self, *flags: str, usdc: int = 10_000) -> dict[str, Any]:
        """`account create --json`, and USDC sent to the address."""
        answer = await self.run("account", "create", "--json", *flags)
        assert answer.code == 0, answer.err + answer.out
        found: dict[str, Any] = answer.data
        deployer = TransactionSender(self.floor.net.rpc, self.floor.net.accounts.deployer, self.floor.net.chain_id)
        mint = b.MINT.encode(parse_address(found["address"]), usdc * 10**6)
        await deployer.transact(self.floor.net.addresses.usdc, mint)
        return found

    def engine_log(self, account: str) -> list[str]:
        """Kinds of the engine's entries about an account, in order."""
        name = f"{self.floor.net.chain_id}-{checksum(parse_address(account))}.db"
        return [entry.kind for entry in AuditLog(self.folder / "data/seawall/engine" / name).entries()]
