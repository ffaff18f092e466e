"""The accounts this wallet knows how to bring to life: one small JSON file each, holding configuration and no secret."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.bindings import AccountConfig, ModuleInit
from contracts.errors import BadInput
from contracts.types import Address, checksum, parse_address, parse_bytes, parse_hash, to_hex
from wallet.account import Birth


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """An account, how it is born, and which validator its owner's operations go through (None: the built-in owner path)."""

    address: Address
    chain_id: int
    entry_point: str
    validator: Address | None
    birth: Birth

    def to_json(self) -> dict[str, Any]:
        config = self.birth.config
        return {
            "address": checksum(self.address),
            "chainId": self.chain_id,
            "entryPoint": self.entry_point,
            "validator": None if self.validator is None else checksum(self.validator),
            "factory": checksum(self.birth.factory),
            "userSalt": to_hex(self.birth.user_salt),
            "config": {
                "owner": to_hex(config.owner),
                "authority": checksum(config.authority),
                "adminDelaySeconds": config.admin_delay_s,
                "prefundCapsWei": [str(cap) for cap in config.prefund_caps_wei],
                "modules": [
                    {"typeId": m.module_type_id, "module": checksum(m.module), "initData": to_hex(m.init_data)}
                    for m in config.modules
                ],
            },
        }

    @classmethod
    def from_json(cls, body: Any) -> KnownAccount:
        config = body["config"]
        caps = tuple(int(cap) for cap in config["prefundCapsWei"])
        if len(caps) != 3:
            raise ValueError("prefundCapsWei must have three entries")
        modules = tuple(
            ModuleInit(int(m["typeId"]), parse_address(m["module"]), parse_bytes(m["initData"]))
            for m in config["modules"]
        )
        return cls(
            address=parse_address(body["address"]),
            chain_id=int(body["chainId"]),
            entry_point=str(body["entryPoint"]),
            validator=None if body["validator"] is None else parse_address(body["validator"]),
            birth=Birth(
                parse_address(body["factory"]),
                AccountConfig(
                    parse_bytes(config["owner"]),
                    parse_address(config["authority"]),
                    int(config["adminDelaySeconds"]),
                    caps,
                    modules,
                ),
                parse_hash(body["userSalt"]),
            ),
        )


class Registry:
    """The folder of known accounts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, address: Address, chain_id: int) -> Path:
        return self.folder / f"{chain_id}-{to_hex(address)}.json"

    def save(self, account: KnownAccount) -> Path:
        """Write it whole or not at all; saving the same account again changes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(account.address, account.chain_id)
        partial = path.with_suffix(f".{os.getpid()}")
        with partial.open("w") as stream:
            stream.write(json.dumps(account.to_json(), indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        return path

    def find(self, address: Address, chain_id: int) -> KnownAccount | None:
        """The account, or None if this wallet did not create it. Raises BadInput for a damaged file."""
        path = self._path(address, chain_id)
        if not path.exists():
            return None
        try:
            known = KnownAccount.from_json(json.loads(path.read_text()))
            if (known.address, known.chain_id) != (address, chain_id):
                raise ValueError("it describes another account")
            return known
        except (ValueError, KeyError, TypeError, BadInput) as error:
            raise BadInput(
                f"{path} is damaged ({error}); restore it from a backup, or remove it if the account is deployed already"
            ) from error

    def all(self) -> list[KnownAccount]:
        """Every known account, by address. Raises BadInput for a damaged file."""
        found = []
        for path in sorted(self.folder.glob("*-0x*.json")):
            chain_id, _, address = path.stem.partition("-")
            try:
                account = self.find(parse_address(address), int(chain_id))
            except ValueError:
                raise BadInput(f"{path} is no account's file; move it out of the folder") from None
            if account is not None:
                found.append(account)
        return found
