"""WETH9 (canonical bytecode) and a USDC with 6 decimals that anyone may mint (Aave's test token)."""

from __future__ import annotations

from contracts.devnet.chain import Builder, bytecode, package
from contracts.types import Address

AAVE = "@aave/core-v3@1.19.3"
USDC = 10**6
"""One USDC."""
ETHER = 10**18


async def deploy_weth(build: Builder) -> Address:
    return await build.deploy(bytecode(package("canonical-weth@1.4.0"), "build/contracts/WETH9.json"))


async def deploy_usdc(build: Builder) -> Address:
    member = "artifacts/contracts/mocks/tokens/MintableERC20.sol/MintableERC20.json"
    code = bytecode(package(AAVE), member)
    return await build.deploy(code, ["string", "string", "uint8"], ["USD Coin (devnet)", "USDC", 6])
