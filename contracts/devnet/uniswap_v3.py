"""Uniswap v3: factory, router, quoter, position manager, and the WETH/USDC spot pool with one maker's liquidity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from contracts.abi import Function
from contracts.devnet.chain import FOREVER, Builder, bytecode, package
from contracts.devnet.tokens import ETHER, USDC
from contracts.types import ZERO_ADDRESS, Address, Wei
from contracts.units import WAD

CORE = "@uniswap/v3-core@1.0.1"
PERIPHERY = "@uniswap/v3-periphery@1.4.4"
SPOT_FEE_PIPS = 500
"""Fee of the spot pool in millionths: 0.05 %."""
_TICK_SPACING = {500: 10, 3000: 60, 10000: 200}
_HALF_WIDTH_TICKS = 20_000
"""A maker's range reaches to e^2 = 7.4 times the first price on either side."""
_SPOT_DEPTH_USDC = 20_000_000 * USDC
_OBSERVATIONS = 200
"""Room for more than 30 minutes of blocks, four a minute. Not more: anvil hashes every slot in every block."""
Q96 = 2**96

MINT_POSITION = (
    "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
    "(uint256,uint128,uint256,uint256)"
)
SLOT0 = Function.parse("slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)")
EXACT_INPUT_SINGLE = Function.parse(
    "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))(uint256)"
)


def sqrt_price_x96(amount1: int, amount0: int) -> int:
    """sqrt(amount1 / amount0) in Q64.96, rounded down: the pool price at which these amounts are worth the same."""
    return math.isqrt((amount1 << 192) // amount0)


def price_from_sqrt(sqrt_x96: int) -> float:
    """token1 per token0 in raw units; a reading for people and bands, not for settlement."""
    return (sqrt_x96 / Q96) ** 2


def ticks_around(sqrt_x96: int, fee_pips: int, half_width: int = _HALF_WIDTH_TICKS) -> tuple[int, int]:
    """The maker's range around a price, on the pool's tick spacing."""
    spacing = _TICK_SPACING[fee_pips]
    tick = 2 * math.log(sqrt_x96 / Q96) / math.log(1.0001)
    middle = round(tick / spacing) * spacing
    return middle - half_width, middle + half_width


@dataclass(frozen=True, slots=True)
class UniswapV3:
    factory: Address
    router: Address
    quoter: Address
    position_manager: Address
    pool: Address


async def create_pool(
    build: Builder, factory: Address, a: Address, b: Address, fee_pips: int, sqrt_x96: int
) -> Address:
    """Create and initialise a pool (price as token1 per token0 of the *sorted* pair) with room for a 30-minute TWAP."""
    await build.send(factory, "createPool(address,address,uint24)", a, b, fee_pips)
    pool: Address = await build.read(factory, "getPool(address,address,uint24)(address)", a, b, fee_pips)
    await build.send(pool, "initialize(uint160)", sqrt_x96)
    await build.send(pool, "increaseObservationCardinalityNext(uint16)", _OBSERVATIONS)
    return pool


async def deploy_uniswap(build: Builder, weth: Address, usdc: Address, price_wad: int) -> UniswapV3:
    """Deploy everything; the pool starts at `price_wad` USDC per ETH (1e18 = one) with 20 M USDC worth on each side."""
    core, periphery = package(CORE), package(PERIPHERY)

    def peripheral(path: str) -> bytes:
        return bytecode(periphery, f"artifacts/contracts/{path}.sol/{path.rsplit('/', 1)[-1]}.json")

    factory = await build.deploy(bytecode(core, "artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json"))
    router = await build.deploy(peripheral("SwapRouter"), ["address", "address"], [factory, weth])
    quoter = await build.deploy(peripheral("lens/QuoterV2"), ["address", "address"], [factory, weth])
    manager = await build.deploy(
        peripheral("NonfungiblePositionManager"), ["address", "address", "address"], [factory, weth, ZERO_ADDRESS]
    )

    depth_weth: Wei = _SPOT_DEPTH_USDC * (WAD // USDC) * ETHER // price_wad
    amounts = {weth: depth_weth, usdc: _SPOT_DEPTH_USDC}
    token0, token1 = sorted((weth, usdc))
    sqrt_x96 = sqrt_price_x96(amounts[token1], amounts[token0])
    pool = await create_pool(build, factory, weth, usdc, SPOT_FEE_PIPS, sqrt_x96)

    maker = build.accounts.maker
    await build.send(usdc, "mint(address,uint256)", maker.address, _SPOT_DEPTH_USDC)
    await build.send(weth, "deposit()", value=depth_weth, sender=maker)
    for token in (weth, usdc):
        await build.send(token, "approve(address,uint256)", manager, amounts[token], sender=maker)
    lower, upper = ticks_around(sqrt_x96, SPOT_FEE_PIPS)
    position = (
        token0, token1, SPOT_FEE_PIPS, lower, upper, amounts[token0], amounts[token1], 0, 0, maker.address, FOREVER
    )  # fmt: skip
    await build.send(manager, MINT_POSITION, position, sender=maker)
    return UniswapV3(factory, router, quoter, manager, pool)
