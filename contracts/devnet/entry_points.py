"""EntryPoint v0.7, v0.8 and v0.9 at their canonical addresses.

v0.7 and v0.8 come from the init code and salts that are used on every chain. Of v0.9 only a release candidate (0.9.0-rc.1) is published
as a package: its code differs from what real networks have at that address, and is put there without CREATE2.
"""

from __future__ import annotations

from contracts.deploy import CREATE2_DEPLOYER, create2_address
from contracts.devnet.chain import GAS_LIMIT, Builder, bytecode, package
from contracts.entrypoint import V07, V08, V09
from contracts.entrypoint.base import sender_creator
from contracts.errors import SetupError
from contracts.types import Address, checksum, parse_bytes, to_hex

# Source: ERC-4337 releases; salt of the CREATE2 deployment by version.
_RELEASES = (
    (V07, "0.7.0", "90d8084deab30c2a37c45e8d47f49f2f7965183cb6990a98943ef94940681de3"),
    (V08, "0.8.0", "0a59dbff790c23c976a548690c27297883cc66b4c67024f9117b0238995e35e9"),
)
_CANDIDATE = "@account-abstraction/contracts@0.9.0-rc.1"


async def deploy_entry_points(build: Builder) -> dict[str, Address]:
    """Deploy them, v0.7 and v0.8 through the CREATE2 deployer. Returns addresses by version. Raises SetupError if one is not canonical."""
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
    await _put(build, V09.address, bytecode(package(_CANDIDATE), "artifacts/EntryPoint.json"))
    return addresses | {V09.version: V09.address}


async def _put(build: Builder, address: Address, init_code: bytes) -> None:
    """Run `init_code` at `address` itself, so that what its constructor computes and creates is as if it had been deployed there.

    Raises SetupError if it does not create its SenderCreator where the entry point's would be.
    """
    rpc, place = build.rpc, to_hex(address)
    await rpc.call("anvil_setCode", place, to_hex(init_code))
    await rpc.call(
        "anvil_setNonce", place, "0x1"
    )  # EIP-161: a contract begins with 1, and CREATE's address depends on it
    code = parse_bytes(await rpc.call("eth_call", {"to": place, "gas": hex(GAS_LIMIT)}, "latest"), "code")
    await build.transact(address, b"")
    await rpc.call("anvil_setCode", place, to_hex(code))
    if not await rpc.get_code(sender_creator(address)):
        raise SetupError(f"the code put at {checksum(address)} did not create its SenderCreator")
