"""The devnet's people. Their keys are derived from their names and therefore public: never use them anywhere else."""

from __future__ import annotations

from dataclasses import dataclass, fields

from contracts.eoa import Eoa
from contracts.types import Hash32, keccak

FUNDS_WEI = 10**9 * 10**18
"""Native balance of everyone at genesis."""


def devnet_key(name: str) -> Hash32:
    """The public private key of devnet account `name`."""
    return keccak(b"seawall devnet account: " + name.encode())


@dataclass(frozen=True, slots=True)
class Accounts:
    """Externally owned accounts by their part. The last four belong to the market driver: do not send from them in a replay."""

    deployer: Eoa
    bundler: Eoa
    paymaster_owner: Eoa
    paymaster_signer: Eoa
    engine: Eoa
    keeper: Eoa
    keeper2: Eoa
    guardian: Eoa
    guardian2: Eoa
    guardian3: Eoa
    owner: Eoa
    owner2: Eoa
    owner3: Eoa
    trader: Eoa
    trader2: Eoa
    feeder: Eoa
    maker: Eoa
    arbitrageur: Eoa
    liquidator: Eoa

    @classmethod
    def derive(cls) -> Accounts:
        return cls(**{f.name: Eoa(devnet_key(f.name)) for f in fields(cls)})

    def by_name(self) -> dict[str, Eoa]:
        return {f.name: getattr(self, f.name) for f in fields(self)}
