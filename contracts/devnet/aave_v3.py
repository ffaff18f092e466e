"""Aave v3 with WETH and USDC reserves that can be supplied, borrowed and liquidated, and its sequencer sentinel."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.devnet.chain import Builder, linked, package
from contracts.devnet.tokens import AAVE, ETHER, USDC
from contracts.types import ZERO_ADDRESS, Address
from contracts.units import WAD

RAY = 10**27
BASE_CURRENCY_UNIT = 10**8
"""Aave's oracle speaks US dollars with the feeds' 8 decimals."""
SEQUENCER_GRACE_S = 3600
_SEED_USDC = 50_000_000 * USDC
_LIBRARIES = (
    "SupplyLogic", "BorrowLogic", "LiquidationLogic", "EModeLogic", "BridgeLogic", "PoolLogic", "ConfiguratorLogic",
    "FlashLoanLogic",
)  # fmt: skip
_INIT_RESERVES = (
    "initReserves((address,address,address,uint8,address,address,address,address,"
    "string,string,string,string,string,string,bytes)[])"
)


@dataclass(frozen=True, slots=True)
class AaveV3:
    pool: Address
    addresses_provider: Address
    oracle: Address
    data_provider: Address
    sentinel: Address
    atoken_weth: Address


@dataclass(frozen=True, slots=True)
class _Reserve:
    """Risk settings of Aave's Ethereum market in 2023, in basis points."""

    token: Address
    symbol: str
    decimals: int
    ltv_bps: int
    threshold_bps: int
    bonus_bps: int
    feed: Address


def _linked(path: str, libraries: dict[str, Address]) -> bytes:
    """Creation code with its libraries' addresses put in."""
    return linked(package(AAVE), f"artifacts/contracts/{path}.sol/{path.rsplit('/', 1)[-1]}.json", libraries)


async def deploy_aave(
    build: Builder,
    weth: Address,
    usdc: Address,
    feed_eth: Address,
    feed_usdc: Address,
    sequencer: Address,
    price_wad: int,
) -> AaveV3:
    """Deploy the market, list both reserves, and let the maker supply 50 M USDC worth of each."""
    deployer = build.accounts.deployer.address
    libraries: dict[str, Address] = {}
    for name in _LIBRARIES:
        libraries[name] = await build.deploy(_linked(f"protocol/libraries/logic/{name}", libraries))

    async def create(path: str, types: list[str], values: list[object]) -> Address:
        return await build.deploy(_linked(path, libraries), types, values)

    provider = await create(
        "protocol/configuration/PoolAddressesProvider", ["string", "address"], ["Seawall devnet", deployer]
    )
    await build.send(provider, "setACLAdmin(address)", deployer)
    acl = await create("protocol/configuration/ACLManager", ["address"], [provider])
    await build.send(provider, "setACLManager(address)", acl)
    for role in ("addPoolAdmin", "addEmergencyAdmin", "addRiskAdmin", "addAssetListingAdmin"):
        await build.send(acl, f"{role}(address)", deployer)

    pool_code = await create("protocol/pool/Pool", ["address"], [provider])
    await build.send(pool_code, "initialize(address)", provider)
    configurator_code = await create("protocol/pool/PoolConfigurator", [], [])
    oracle = await create(
        "misc/AaveOracle",
        ["address", "address[]", "address[]", "address", "address", "uint256"],
        [provider, [weth, usdc], [feed_eth, feed_usdc], ZERO_ADDRESS, ZERO_ADDRESS, BASE_CURRENCY_UNIT],
    )
    data_provider = await create("misc/AaveProtocolDataProvider", ["address"], [provider])
    sentinel = await create(
        "protocol/configuration/PriceOracleSentinel",
        ["address", "address", "uint256"],
        [provider, sequencer, SEQUENCER_GRACE_S],
    )
    await build.send(provider, "setPoolImpl(address)", pool_code)
    await build.send(provider, "setPoolConfiguratorImpl(address)", configurator_code)
    await build.send(provider, "setPriceOracle(address)", oracle)
    await build.send(provider, "setPoolDataProvider(address)", data_provider)
    await build.send(provider, "setPriceOracleSentinel(address)", sentinel)
    pool: Address = await build.read(provider, "getPool()(address)")
    configurator: Address = await build.read(provider, "getPoolConfigurator()(address)")

    rates = [provider] + [RAY * bps // 10_000 for bps in (8000, 0, 400, 7500, 50, 7500, 100, 800, 2000)]
    strategy = await create(
        "protocol/pool/DefaultReserveInterestRateStrategy", ["address"] + ["uint256"] * 9, list(rates)
    )
    tokens = [
        await create(f"protocol/tokenization/{name}", ["address"], [pool])
        for name in ("AToken", "StableDebtToken", "VariableDebtToken")
    ]
    reserves = (
        _Reserve(weth, "WETH", 18, 8050, 8300, 10_500, feed_eth),
        _Reserve(usdc, "USDC", 6, 7700, 8000, 10_450, feed_usdc),
    )
    listing = [
        (
            *tokens, r.decimals, strategy, r.token, deployer, ZERO_ADDRESS,
            f"Aave {r.symbol}", f"a{r.symbol}", f"Aave variable debt {r.symbol}", f"variableDebt{r.symbol}",
            f"Aave stable debt {r.symbol}", f"stableDebt{r.symbol}", b"",
        )
        for r in reserves
    ]  # fmt: skip
    await build.send(configurator, _INIT_RESERVES, listing)
    for r in reserves:
        await build.send(
            configurator,
            "configureReserveAsCollateral(address,uint256,uint256,uint256)",
            r.token, r.ltv_bps, r.threshold_bps, r.bonus_bps,
        )  # fmt: skip
        await build.send(configurator, "setReserveBorrowing(address,bool)", r.token, True)
        await build.send(configurator, "setReserveFlashLoaning(address,bool)", r.token, True)
        await build.send(configurator, "setReserveFactor(address,uint256)", r.token, 1000)

    maker = build.accounts.maker
    seed_weth = _SEED_USDC * (WAD // USDC) * ETHER // price_wad
    await build.send(usdc, "mint(address,uint256)", maker.address, _SEED_USDC)
    await build.send(weth, "deposit()", value=seed_weth, sender=maker)
    for token, amount in ((weth, seed_weth), (usdc, _SEED_USDC)):
        await build.send(token, "approve(address,uint256)", pool, amount, sender=maker)
        await build.send(pool, "supply(address,uint256,address,uint16)", token, amount, maker.address, 0, sender=maker)
    atoken, _, _ = await build.read(data_provider, "getReserveTokensAddresses(address)(address,address,address)", weth)
    return AaveV3(pool, provider, oracle, data_provider, sentinel, atoken)
