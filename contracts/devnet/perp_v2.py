"""Perpetual Protocol v2 with a liquid vETH market.

Settings are those of its main deployment except: exchange fee 0.1 % on the 1 % Uniswap tier, the tick limit at its cap of 1000
in 15 seconds, a tenth of fees to an insurance fund of 1 M USDC.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.abi import Event, Function
from contracts.devnet.chain import FOREVER, Builder, bytecode, package
from contracts.devnet.tokens import USDC
from contracts.devnet.uniswap_v3 import create_pool, sqrt_price_x96, ticks_around
from contracts.types import Address
from contracts.units import WAD

CURIE = "@perp/curie-contract@2.8.4"
ORACLE = "@perp/perp-oracle-contract@0.6.7"
POOL_FEE_PIPS = 10_000
EXCHANGE_FEE_PIPS = 1_000
"""0.1 %: what a taker pays, and so the arbitrageur's band."""
MAX_TICKS_CROSSED = 1_000
FEED_TIMEOUT_S = 2_400
FEED_TWAP_S = 900
MARK_HISTORY_S = 1_800
"""Feed and pool need this much history before the mark price exists."""
_DEPTH_QUOTE_WAD = 50_000_000 * WAD
_COLLATERAL = 200_000_000 * USDC
_INSURANCE = 1_000_000 * USDC
_MAX_TRIES = 64

OPEN_POSITION = Function.parse(
    "openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))(uint256,uint256)"
)
LIQUIDATE = Function.parse("liquidate(address,address)")
GET_ACCOUNT_VALUE = Function.parse("getAccountValue(address)(int256)")
GET_MARGIN_REQUIREMENT = Function.parse("getMarginRequirementForLiquidation(address)(int256)")
GET_TAKER_POSITION_SIZE = Function.parse("getTakerPositionSize(address,address)(int256)")
GET_MARK_PRICE = Function.parse("getMarkPrice(address)(uint256)")
UPDATE_FEED = Function.parse("update()")
POSITION_LIQUIDATED = Event.parse("PositionLiquidated(address indexed,address indexed,uint256,uint256,uint256,address)")
"""trader, base token, notional (1e18), size (1e18), penalty (1e18), liquidator."""
BAD_DEBT_SETTLED = Event.parse("BadDebtSettled(address indexed,uint256)")


@dataclass(frozen=True, slots=True)
class PerpV2:
    clearing_house: Address
    vault: Address
    exchange: Address
    account_balance: Address
    market_registry: Address
    order_book: Address
    insurance_fund: Address
    delegate_approval: Address
    config: Address
    base_token: Address
    quote_token: Address
    pool: Address
    price_feed: Address


async def deploy_perp(
    build: Builder, uniswap_factory: Address, weth: Address, usdc: Address, feed: Address, price_wad: int
) -> PerpV2:
    """Deploy and connect the protocol; the vETH pool starts at `price_wad` (1e18 = one USDC). No liquidity yet."""
    curie, oracle = package(CURIE), package(ORACLE)

    def code(name: str) -> bytes:
        return bytecode(curie, f"artifacts/contracts/{name}.sol/{name}.json")

    async def create(name: str, types: str, *values: object) -> Address:
        address = await build.deploy(code(name))
        await build.send(address, f"initialize({types})", *values)
        return address

    def oracle_code(name: str) -> bytes:
        return bytecode(oracle, f"artifacts/contracts/{name}.sol/{name}.json")

    price_feed = await build.deploy(
        oracle_code("ChainlinkPriceFeedV3"), ["address", "uint256", "uint80"], [feed, FEED_TIMEOUT_S, FEED_TWAP_S]
    )
    await build.send(price_feed, "update()")
    dispatcher = await build.deploy(oracle_code("PriceFeedDispatcher"), ["address"], [price_feed])

    quote = await create("QuoteToken", "string,string", "Virtual USD", "vUSD")
    for _ in range(_MAX_TRIES):  # the base must sort below the quote; each try is a coin toss
        base = await build.deploy(code("BaseToken"))
        if base < quote:
            break
    await build.send(base, "initialize(string,string,address)", "Virtual ETH", "vETH", dispatcher)

    config = await create("ClearingHouseConfig", "")
    registry = await create("MarketRegistry", "address,address", uniswap_factory, quote)
    order_book = await create("OrderBook", "address", registry)
    balance = await create("AccountBalance", "address,address", config, order_book)
    exchange = await create("Exchange", "address,address,address", registry, order_book, config)
    insurance = await create("InsuranceFund", "address", usdc)
    vault = await create("Vault", "address,address,address,address", insurance, config, balance, exchange)
    collateral = await create(
        "CollateralManager",
        "address,address,uint8,uint24,uint24,uint24,uint24,uint256,uint256",
        config, vault, 5, 750_000, 500_000, 2_000, 30_000, 10_000 * USDC, 500 * USDC,
    )  # fmt: skip
    house = await create(
        "ClearingHouse",
        "address,address,address,address,address,address,address",
        config, vault, quote, uniswap_factory, exchange, balance, insurance,
    )  # fmt: skip
    delegate = await create("DelegateApproval", "")

    await build.send(order_book, "setExchange(address)", exchange)
    await build.send(exchange, "setAccountBalance(address)", balance)
    await build.send(insurance, "setVault(address)", vault)
    await build.send(balance, "setVault(address)", vault)
    await build.send(vault, "setCollateralManager(address)", collateral)
    await build.send(vault, "setWETH9(address)", weth)
    for contract in (registry, order_book, balance, exchange, vault):
        await build.send(contract, "setClearingHouse(address)", house)
    await build.send(house, "setDelegateApproval(address)", delegate)
    await build.send(config, "setSettlementTokenBalanceCap(uint256)", 2**255)

    pool = await create_pool(build, uniswap_factory, base, quote, POOL_FEE_PIPS, sqrt_price_x96(price_wad, WAD))
    for token in (base, quote):
        await build.send(token, "mintMaximumTo(address)", house)
        await build.send(token, "addWhitelist(address)", house)
        await build.send(token, "addWhitelist(address)", pool)
    await build.send(registry, "addPool(address,uint24)", base, POOL_FEE_PIPS)
    await build.send(registry, "setFeeRatio(address,uint24)", base, EXCHANGE_FEE_PIPS)
    await build.send(registry, "setInsuranceFundFeeRatio(address,uint24)", base, 100_000)
    await build.send(registry, "setMaxOrdersPerMarket(uint8)", 255)
    await build.send(exchange, "setMaxTickCrossedWithinBlock(address,uint24)", base, MAX_TICKS_CROSSED)
    return PerpV2(
        house, vault, exchange, balance, registry, order_book, insurance, delegate, config, base, quote, pool, price_feed
    )  # fmt: skip


async def fund_perp(build: Builder, perp: PerpV2, usdc: Address, price_wad: int) -> None:
    """Collateral for maker, arbitrageur and liquidator, the insurance fund, and the maker's liquidity.

    Comes once the market has MARK_HISTORY_S of history: adding liquidity reads the mark price.
    """
    people = build.accounts
    for eoa in (people.maker, people.arbitrageur, people.liquidator):
        await build.send(usdc, "mint(address,uint256)", eoa.address, _COLLATERAL)
        await build.send(usdc, "approve(address,uint256)", perp.vault, _COLLATERAL, sender=eoa)
        await build.send(perp.vault, "deposit(address,uint256)", usdc, _COLLATERAL, sender=eoa)
    await build.send(usdc, "mint(address,uint256)", perp.insurance_fund, _INSURANCE)
    lower, upper = ticks_around(sqrt_price_x96(price_wad, WAD), POOL_FEE_PIPS)
    base_wad = _DEPTH_QUOTE_WAD * WAD // price_wad
    await build.send(
        perp.clearing_house,
        "addLiquidity((address,uint256,uint256,int24,int24,uint256,uint256,bool,uint256))",
        (perp.base_token, base_wad, _DEPTH_QUOTE_WAD, lower, upper, 0, 0, False, FOREVER),
        sender=people.maker,
    )
