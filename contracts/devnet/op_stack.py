"""The OP stack's gas-oracle predeploys and Multicall3, at the addresses they have on every OP chain.

Predeploys are genesis state there, so their published runtime code is put in place the same way here.
"""

from __future__ import annotations

import re

from contracts.abi import Function
from contracts.devnet.chain import Builder, package
from contracts.errors import SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, parse_address, parse_bytes, to_hex

BEDROCK = "@eth-optimism/contracts-bedrock@0.17.3"
GAS_PRICE_ORACLE: Address = parse_address("0x420000000000000000000000000000000000000F")
L1_BLOCK: Address = parse_address("0x4200000000000000000000000000000000000015")
MULTICALL3: Address = parse_address("0xcA11bde05977b3631167028862bE2a173976CA11")
MULTICALL3_CODE_HASH = bytes.fromhex("d5c15df687b16f2ff992fc8d767b4216323184a2bbc6ee2f9c398c318e770891")
"""keccak of the runtime code that every chain has.   Source: mds1/multicall."""
_DEPOSITOR: Address = parse_address("0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001")

L1_BASE_FEE_WEI = 10 * 10**9
L1_BLOB_BASE_FEE_WEI = 10**9
BASE_FEE_SCALAR = 5_227
"""Millionths; with the blob scalar, OP Mainnet's values after Ecotone."""
BLOB_BASE_FEE_SCALAR = 1_014_213


def _runtime(name: str) -> bytes:
    code: str = package(BEDROCK).json(f"forge-artifacts/{name}.sol/{name}.json")["deployedBytecode"]["object"]
    return parse_bytes(code)


def multicall3_code() -> bytes:
    """Runtime code of Multicall3 as the OP stack's genesis has it. Raises SetupError if it is not the known one."""
    source = package(BEDROCK).path("src/libraries/Preinstalls.sol").read_text()
    found = re.search(r'MultiCall3Code\s*=\s*hex"([0-9a-f]+)"', source)
    code = bytes.fromhex(found.group(1)) if found else b""
    if keccak(code) != MULTICALL3_CODE_HASH:
        raise SetupError(f"{BEDROCK} holds no Multicall3 with the known code hash")
    return code


async def _call_as(rpc: RpcClient, build: Builder, sender: Address, to: Address, data: bytes) -> None:
    """A transaction of a system account that has no key."""
    await rpc.call("anvil_impersonateAccount", to_hex(sender))
    await rpc.call("anvil_setBalance", to_hex(sender), hex(10**18))
    request = {"from": to_hex(sender), "to": to_hex(to), "data": to_hex(data), "gas": hex(10**6)}
    tx_hash = parse_bytes(await rpc.call("eth_sendTransaction", request))
    await build.mine()
    receipt = await rpc.receipt(tx_hash)
    await rpc.call("anvil_stopImpersonatingAccount", to_hex(sender))
    if receipt is None or receipt["status"] != "0x1":
        raise SetupError(f"building the devnet failed: the OP stack's depositor could not call {to_hex(to)}")


async def install_op_stack(build: Builder) -> None:
    """Multicall3, L1Block with its Ecotone values, and GasPriceOracle with Ecotone and Fjord active."""
    rpc = build.rpc
    for address, code in (
        (MULTICALL3, multicall3_code()),
        (L1_BLOCK, _runtime("L1Block")),
        (GAS_PRICE_ORACLE, _runtime("GasPriceOracle")),
    ):
        await rpc.call("anvil_setCode", to_hex(address), to_hex(code))
    # Packed by hand as the derivation pipeline does.   Source: OP stack specs, "L1 Attributes - Ecotone".
    ecotone = (
        Function.parse("setL1BlockValuesEcotone()").selector
        + BASE_FEE_SCALAR.to_bytes(4)
        + BLOB_BASE_FEE_SCALAR.to_bytes(4)
        + (0).to_bytes(8)
        + build.now_s.to_bytes(8)
        + (19_000_000).to_bytes(8)
        + L1_BASE_FEE_WEI.to_bytes(32)
        + L1_BLOB_BASE_FEE_WEI.to_bytes(32)
        + keccak(b"seawall devnet l1 block")
        + bytes(12)
        + _DEPOSITOR
    )
    await _call_as(rpc, build, _DEPOSITOR, L1_BLOCK, ecotone)
    for function in ("setEcotone()", "setFjord()"):
        await _call_as(rpc, build, _DEPOSITOR, GAS_PRICE_ORACLE, Function.parse(function).selector)
