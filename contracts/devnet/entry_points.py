"""EntryPoint v0.7 and v0.8 at their canonical addresses, from the init code and salts that are used on every chain."""

from __future__ import annotations

from contracts.deploy import CREATE2_DEPLOYER, create2_address
from contracts.devnet.chain import Builder, bytecode, package
from contracts.entrypoint import V07, V08
from contracts.errors import SetupError
from contracts.types import Address, checksum

# Source: ERC-4337 releases; salt of the CREATE2 deployment by version.
_RELEASES = (
    (V07, "0.7.0", "90d8084deab30c2a37c45e8d47f49f2f7965183cb6990a98943ef94940681de3"),
    (V08, "0.8.0", "0a59dbff790c23c976a548690c27297883cc66b4c67024f9117b0238995e35e9"),
)


async def deploy_entry_points(build: Builder) -> dict[str, Address]:
    """Deploy through the CREATE2 deployer. Returns addresses by version. Raises SetupError if one is not canonical."""
    addresses = {}
    for entry_point, version, salt_hex in _RELEASES:
        code = bytecode(package(f"@account-abstraction/contracts@{version}"), "artifacts/EntryPoint.json")
        salt = bytes.fromhex(salt_hex)
        address = create2_address(code, salt)
        if address != entry_point.address:
            raise SetupError(
                f"the published EntryPoint {version} would land on {checksum(address)}, "
                f"not on the canonical {checksum(entry_point.address)}"
            )
        await build.transact(CREATE2_DEPLOYER, salt + code)
        addresses[entry_point.version] = address
    return addresses
