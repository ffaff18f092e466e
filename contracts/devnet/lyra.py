"""Lyra Avalon with one liquid ETH option market, quoted in sUSD.

Contracts and the order of their wiring are those of the package's own test system. Its spot leg is the package's own stand-in for
Synthetix (exchanger, short loans, synths), except for the rate, which comes from the devnet's ETH/USD feed through ReplayRates, as
Synthetix takes its own from Chainlink. sUSD has 18 decimals and a Uniswap v3 pool against USDC. Settings: lyra_settings.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from contracts.abi import Function
from contracts.artifacts import artifact
from contracts.devnet import lyra_settings as settings
from contracts.devnet.chain import FOREVER, Builder, linked, package
from contracts.devnet.tokens import USDC
from contracts.devnet.uniswap_v3 import MINT_POSITION, SPOT_FEE_PIPS, UniswapV3, sqrt_price_x96, ticks_around
from contracts.types import Address, Hash32
from contracts.units import WAD

LYRA = "@lyrafinance/protocol@0.1.3-alpha"
QUOTE_KEY: Hash32 = b"sUSD".ljust(32, b"\0")
BASE_KEY: Hash32 = b"sETH".ljust(32, b"\0")
CREATE_BOARD = Function.parse("createOptionBoard(uint256,uint256,uint256[],uint256[],bool)")
_POOL_HALF_WIDTH_TICKS = 100
"""The maker's range in the stable pool: 1 % on either side of par."""


@dataclass(frozen=True, slots=True)
class Lyra:
    """`quote` is sUSD, `base` sETH; `quote_pool` is where USDC is swapped for sUSD."""

    option_market: Address
    option_token: Address
    greek_cache: Address
    option_pricer: Address
    liquidity_pool: Address
    liquidity_token: Address
    short_collateral: Address
    pool_hedger: Address
    synthetix_adapter: Address
    gwav_oracle: Address
    viewer: Address
    keeper: Address
    black_scholes: Address
    rates: Address
    quote: Address
    base: Address
    quote_pool: Address

    def by_name(self) -> dict[str, Address]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class _Synthetix:
    """The package's stand-in, and our rates."""

    adapter: Address
    resolver: Address
    proxy: Address
    short: Address
    quote: Address
    base: Address
    rates: Address


class _Package:
    """The package's contracts by name."""

    def __init__(self, build: Builder) -> None:
        self._build = build
        self.libraries: dict[str, Address] = {}

    async def create(self, path: str, types: tuple[str, ...] = (), *values: object) -> Address:
        name = path.rsplit("/", 1)[-1]
        code = linked(package(LYRA), f"dist/artifacts/contracts/{path}.sol/{name}.json", self.libraries)
        return await self._build.deploy(code, types, values)


async def _deploy_synthetix(build: Builder, lyra: _Package, feed: Address) -> _Synthetix:
    """Contracts under Synthetix's names, its adapter, and the two synths. Lyra's market is told to them later."""
    adapter = await lyra.create("SynthetixAdapter")
    await build.send(adapter, "initialize()")
    strings = ("string", "string")
    quote = await lyra.create("test-helpers/TestERC20Fail", strings, "Synthetic USD", "sUSD")
    base = await lyra.create("test-helpers/TestERC20Fail", strings, "Synthetic ETH", "sETH")
    exchanger = await lyra.create("test-helpers/TestExchanger")
    proxy = await lyra.create("test-helpers/TestSynthetixReturnZero")
    approvals = await lyra.create("test-helpers/TestDelegateApprovals")
    short = await lyra.create("test-helpers/TestCollateralShort")
    resolver = await lyra.create("test-helpers/TestAddressResolver")
    rates = await build.deploy(
        artifact("ReplayRates").bytecode, ["address", "bytes32", "uint256"], [feed, BASE_KEY, settings.RATE_STALE_S]
    )
    places = {
        b"ProxySynthetix": proxy,
        b"Exchanger": exchanger,
        b"ExchangeRates": rates,
        b"CollateralShort": short,
        b"DelegateApprovals": approvals,
    }
    keys = [name.ljust(32, b"\0") for name in places]
    await build.send(resolver, "setAddresses(bytes32[],address[])", keys, list(places.values()))
    await build.send(proxy, "init(address,address,address)", adapter, quote, resolver)
    await build.send(short, "init(address,address)", adapter, quote)
    await build.send(adapter, "setAddressResolver(address)", resolver)
    for token in (quote, base):
        for minter in (proxy, short):
            await build.send(token, "permitMint(address,bool)", minter, True)
    fee = "setFeeRateForExchange(bytes32,bytes32,uint256)"
    await build.send(exchanger, fee, BASE_KEY, QUOTE_KEY, settings.BASE_TO_QUOTE_FEE_WAD)
    await build.send(exchanger, fee, QUOTE_KEY, BASE_KEY, settings.QUOTE_TO_BASE_FEE_WAD)
    return _Synthetix(adapter, resolver, proxy, short, quote, base, rates)


def _setter(name: str, values: tuple[object, ...]) -> str:
    """Signature of a setter that takes one struct of words; addresses and flags are told by their values."""
    types = ("address" if isinstance(v, bytes) else "bool" if isinstance(v, bool) else "uint256" for v in values)
    return f"{name}(({','.join(types)}))"


async def deploy_lyra(build: Builder, uniswap: UniswapV3, usdc: Address, feed: Address) -> Lyra:
    """Deploy and wire the market, fund its liquidity pool and everyone who trades. It has no boards yet: see `open_boards`."""
    lyra = _Package(build)
    for library in ("GWAV", "BlackScholes"):
        lyra.libraries[library] = await lyra.create(f"libraries/{library}")
    snx = await _deploy_synthetix(build, lyra, feed)
    strings = ("string", "string")
    market = await lyra.create("OptionMarket")
    pricer = await lyra.create("OptionMarketPricer")
    cache = await lyra.create("OptionGreekCache")
    pool = await lyra.create("LiquidityPool")
    share = await lyra.create("LiquidityToken", strings, "sUSD/sETH Pool Tokens", "LyraELPT")
    token = await lyra.create("OptionToken", strings, "sUSD/sETH Option Tokens", "LyraEOT")
    short = await lyra.create("ShortCollateral")
    hedger = await lyra.create("ShortPoolHedger")
    oracle = await lyra.create("periphery/GWAVOracle")
    keeper = await lyra.create("periphery/KeeperHelper")
    viewer = await lyra.create("periphery/OptionMarketViewer")

    adapter, quote, base = snx.adapter, snx.quote, snx.base
    for contract in (snx.proxy, snx.short):
        await build.send(contract, "addBaseAsset(bytes32,address,address)", BASE_KEY, base, market)
    deployer = build.accounts.deployer.address
    key_of = "setGlobalsForContract(address,bytes32,bytes32,address,bytes32)"
    await build.send(adapter, key_of, market, QUOTE_KEY, BASE_KEY, deployer, bytes(32))
    for contract, parts in (
        (market, (adapter, pool, pricer, cache, short, token, quote, base)),
        (pricer, (market, cache)),
        (cache, (adapter, market, pricer)),
        (pool, (adapter, market, share, cache, hedger, short, quote, base)),
        (share, (pool,)),
        (hedger, (adapter, market, cache, pool, quote, base)),
        (short, (market, pool, token, adapter, quote, base)),
        (token, (market, cache, short, adapter)),
        (oracle, (market, cache, adapter)),
        (keeper, (market, short, cache)),
        (viewer, (adapter,)),
    ):
        await build.send(contract, f"init({','.join(['address'] * len(parts))})", *parts)
    listed = (pool, share, cache, market, pricer, token, short, hedger, quote, base)
    await build.send(viewer, f"addMarket(({','.join(['address'] * len(listed))}))", listed)
    for contract, name, values in (
        (market, "setOptionMarketParams", settings.option_market(deployer)),
        (pool, "setLiquidityPoolParameters", settings.LIQUIDITY_POOL),
        (hedger, "setPoolHedgerParams", settings.POOL_HEDGER),
        (cache, "setMinCollateralParameters", settings.MIN_COLLATERAL),
        (cache, "setForceCloseParameters", settings.FORCE_CLOSE),
        (pricer, "setPricingParams", settings.PRICING),
        (pricer, "setVarianceFeeParams", settings.VARIANCE_FEE),
        (token, "setPartialCollateralParams", settings.PARTIAL_COLLATERAL),
    ):
        await build.send(contract, _setter(name, values), values)
    signed = "(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,int256)"
    await build.send(cache, f"setGreekCacheParameters({signed})", settings.GREEK_CACHE)
    signed = "(int256,int256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,bool)"
    await build.send(pricer, f"setTradeLimitParams({signed})", settings.TRADE_LIMITS)
    await build.send(hedger, "setShortBuffer(uint256)", settings.SHORT_BUFFER_WAD)

    quote_pool = await _open_quote_pool(build, uniswap, usdc, quote)
    await _fund(build, quote, pool)
    await build.send(hedger, "openShortAccount()")
    return Lyra(
        market, token, cache, pricer, pool, share, short, hedger, adapter, oracle, viewer, keeper, lyra.libraries["BlackScholes"],
        snx.rates, quote, base,
        quote_pool,
    )  # fmt: skip


async def _open_quote_pool(build: Builder, uniswap: UniswapV3, usdc: Address, quote: Address) -> Address:
    """A Uniswap v3 pool at one USDC per sUSD, deep within 1 % of par."""
    maker = build.accounts.maker
    amounts = {usdc: settings.SWAP_DEPTH_USDC * USDC, quote: settings.SWAP_DEPTH_USDC * WAD}
    token0, token1 = sorted(amounts)
    sqrt_x96 = sqrt_price_x96(amounts[token1], amounts[token0])
    await build.send(uniswap.factory, "createPool(address,address,uint24)", usdc, quote, SPOT_FEE_PIPS)
    pool: Address = await build.read(
        uniswap.factory, "getPool(address,address,uint24)(address)", usdc, quote, SPOT_FEE_PIPS
    )
    await build.send(pool, "initialize(uint160)", sqrt_x96)
    for token, amount in amounts.items():
        minter = build.accounts.deployer if token == quote else maker
        await build.send(token, "mint(address,uint256)", maker.address, amount, sender=minter)
        await build.send(token, "approve(address,uint256)", uniswap.position_manager, amount, sender=maker)
    lower, upper = ticks_around(sqrt_x96, SPOT_FEE_PIPS, _POOL_HALF_WIDTH_TICKS)
    position = (
        token0, token1, SPOT_FEE_PIPS, lower, upper, amounts[token0], amounts[token1], 0, 0, maker.address, FOREVER
    )  # fmt: skip
    await build.send(uniswap.position_manager, MINT_POSITION, position, sender=maker)
    return pool


async def _fund(build: Builder, quote: Address, pool: Address) -> None:
    """The maker's deposit in the liquidity pool (at once, as there is no board yet), and sUSD for whoever trades."""
    people = build.accounts
    await build.send(quote, "mint(address,uint256)", people.maker.address, settings.POOL_DEPOSIT_WAD)
    await build.send(quote, "approve(address,uint256)", pool, settings.POOL_DEPOSIT_WAD, sender=people.maker)
    deposit = (people.maker.address, settings.POOL_DEPOSIT_WAD)
    await build.send(pool, "initiateDeposit(address,uint256)", *deposit, sender=people.maker)
    for eoa in (people.owner, people.owner2, people.owner3, people.trader, people.trader2):
        await build.send(quote, "mint(address,uint256)", eoa.address, settings.TRADING_QUOTE_WAD)


def boards(price_wad: int, start_s: int) -> list[bytes]:
    """Calls of the market's owner that open its boards around `price_wad`, expiring whole weeks after `start_s` (unix s)."""
    return [
        CREATE_BOARD.encode(
            start_s + board.weeks * settings.WEEK_S,
            board.iv_bps * WAD // 10_000,
            settings.strikes_wad(board, price_wad),
            [skew * WAD // 10_000 for skew in board.skews_bps],
            False,
        )
        for board in settings.BOARDS
    ]
