"""What a devnet is made of, in the order in which it works: entry points, tokens, feeds, venues, history, liquidity, ours."""

from __future__ import annotations

from contracts import deploy
from contracts.devnet import feeds
from contracts.devnet.aave_v3 import deploy_aave
from contracts.devnet.accounts import FUNDS_WEI, Accounts
from contracts.devnet.addresses import Addresses
from contracts.devnet.chain import CHAIN_ID, Builder
from contracts.devnet.entry_points import deploy_entry_points
from contracts.devnet.lyra import Lyra, deploy_lyra
from contracts.devnet.lyra import boards as lyra_boards
from contracts.devnet.op_stack import GAS_PRICE_ORACLE, L1_BLOCK, MULTICALL3, install_op_stack
from contracts.devnet.perp_v2 import MARK_HISTORY_S, UPDATE_FEED, PerpV2, deploy_perp, fund_perp
from contracts.devnet.tokens import USDC, deploy_usdc, deploy_weth
from contracts.devnet.uniswap_v3 import UniswapV3, deploy_uniswap
from contracts.eoa import TransactionSender
from contracts.rpc import RpcClient
from contracts.types import Address, to_hex
from contracts.units import WAD

GENESIS_LEAD_S = 4 * 3600
"""Genesis lies this long before the first bar."""
READY_LEAD_S = 1800
"""The last block of the build lies this long before the first bar: time for wall-clock blocks in between."""
_BLOCK_HASH_HISTORY = "0x0000F90827F1C53a10cb7A02335B175320002935"
"""Source: EIP-2935."""
STAKE_WEI = 10**18
UNSTAKE_DELAY_S = 86_400
PAYMASTER_DEPOSIT_WEI = 100 * 10**18
_TRADING_USDC = 1_000_000 * USDC
_ARBITRAGE_USDC = 100_000_000 * USDC


async def build_devnet(
    rpc: RpcClient, accounts: Accounts, first_bar_s: int, price_wad: int, *, boards: bool = True
) -> Addresses:
    """Deploy and configure everything on a fresh anvil whose automatic mining is off. Raises SetupError.

    Without `boards` Lyra's market lists nothing yet: their expiries depend on the clock that the chain will run on.
    Genesis is at `first_bar_s` - GENESIS_LEAD_S, the last block before or at `first_bar_s` - READY_LEAD_S.
    """
    # anvil hashes all storage in every block, and this contract would gain a slot in each. Nothing here reads old block hashes.
    await rpc.call("anvil_setCode", _BLOCK_HASH_HISTORY, "0x")
    for eoa in accounts.by_name().values():
        await rpc.call("anvil_setBalance", to_hex(eoa.address), hex(FUNDS_WEI))
    build = Builder(rpc, accounts, first_bar_s - GENESIS_LEAD_S)
    await build.mine()
    entry_points = await deploy_entry_points(build)
    await install_op_stack(build)
    weth, usdc = await deploy_weth(build), await deploy_usdc(build)
    answer = price_wad * feeds.UNIT // WAD
    feed = await feeds.deploy_feed(build, feeds.DECIMALS, "ETH / USD", answer)
    feed_usdc = await feeds.deploy_feed(build, feeds.DECIMALS, "USDC / USD", feeds.UNIT)
    sequencer = await feeds.deploy_feed(build, 0, "L2 sequencer uptime", feeds.SEQUENCER_UP)
    uniswap = await deploy_uniswap(build, weth, usdc, price_wad)
    perp = await deploy_perp(build, uniswap.factory, weth, usdc, feed, price_wad)
    aave = await deploy_aave(build, weth, usdc, feed, feed_usdc, sequencer, price_wad)
    lyra = await deploy_lyra(build, uniswap, usdc, feed)
    await _fund_people(build, weth, usdc, uniswap, aave.pool, price_wad)
    await _make_history(build, (feed, answer), (feed_usdc, feeds.UNIT), perp, first_bar_s - READY_LEAD_S)
    await fund_perp(build, perp, usdc, price_wad)
    if boards:
        for call in lyra_boards(price_wad, first_bar_s):
            await build.transact(lyra.option_market, call)
    ours, adapters = await _deploy_ours(build, entry_points["v0.8"], perp, uniswap, lyra, aave.pool)
    return Addresses(
        entry_point_v07=entry_points["v0.7"],
        entry_point_v08=entry_points["v0.8"],
        entry_point_v09=entry_points["v0.9"],
        multicall3=MULTICALL3,
        weth=weth,
        usdc=usdc,
        feed_eth_usd=feed,
        feed_usdc_usd=feed_usdc,
        sequencer_feed=sequencer,
        uniswap_factory=uniswap.factory,
        uniswap_pool=uniswap.pool,
        uniswap_router=uniswap.router,
        uniswap_quoter=uniswap.quoter,
        uniswap_position_manager=uniswap.position_manager,
        aave_pool=aave.pool,
        aave_addresses_provider=aave.addresses_provider,
        aave_oracle=aave.oracle,
        aave_data_provider=aave.data_provider,
        aave_sentinel=aave.sentinel,
        aave_atoken_weth=aave.atoken_weth,
        perp_clearing_house=perp.clearing_house,
        perp_vault=perp.vault,
        perp_exchange=perp.exchange,
        perp_account_balance=perp.account_balance,
        perp_market_registry=perp.market_registry,
        perp_order_book=perp.order_book,
        perp_insurance_fund=perp.insurance_fund,
        perp_delegate_approval=perp.delegate_approval,
        perp_config=perp.config,
        perp_base_token=perp.base_token,
        perp_quote_token=perp.quote_token,
        perp_pool=perp.pool,
        perp_price_feed=perp.price_feed,
        **{f"lyra_{name}": address for name, address in lyra.by_name().items()},
        gas_price_oracle=GAS_PRICE_ORACLE,
        l1_block=L1_BLOCK,
        risk_account_implementation=ours.risk_account_implementation,
        risk_account_factory=ours.risk_account_factory,
        risk_validator=ours.risk_validator,
        session_validator=ours.session_validator,
        stop_loss=ours.stop_loss,
        health_guard=ours.health_guard,
        auto_rebalance=ours.auto_rebalance,
        delta_hedge=ours.delta_hedge,
        recovery=ours.recovery,
        multisig_owner=ours.multisig_owner,
        policy_hook=ours.policy_hook,
        equity_breaker=ours.equity_breaker,
        emergency_freeze=ours.emergency_freeze,
        verifying_paymaster=ours.verifying_paymaster,
        **adapters,
    )


async def _fund_people(
    build: Builder, weth: Address, usdc: Address, uniswap: UniswapV3, aave_pool: Address, price_wad: int
) -> None:
    """USDC for whoever trades, stock and allowances for arbitrageur and liquidator."""
    people = build.accounts
    for eoa in (people.owner, people.owner2, people.owner3, people.trader, people.trader2):
        await build.send(usdc, "mint(address,uint256)", eoa.address, _TRADING_USDC)
    stock_weth = _ARBITRAGE_USDC * (WAD // USDC) * WAD // price_wad
    await build.send(usdc, "mint(address,uint256)", people.arbitrageur.address, _ARBITRAGE_USDC)
    await build.send(weth, "deposit()", value=stock_weth, sender=people.arbitrageur)
    for token in (weth, usdc):
        await build.send(token, "approve(address,uint256)", uniswap.router, 2**256 - 1, sender=people.arbitrageur)
    await build.send(usdc, "mint(address,uint256)", people.liquidator.address, _ARBITRAGE_USDC)
    await build.send(weth, "deposit()", value=stock_weth, sender=people.liquidator)
    for token in (weth, usdc):
        await build.send(token, "approve(address,uint256)", aave_pool, 2**256 - 1, sender=people.liquidator)


async def _make_history(
    build: Builder, eth: tuple[Address, int], usdc: tuple[Address, int], perp: PerpV2, until_s: int
) -> None:
    """Let time pass up to `until_s`, with feed rounds a minute apart in the last MARK_HISTORY_S and a bit."""
    await build.mine(until_s - MARK_HISTORY_S - 300 - build.now_s)
    while build.now_s < until_s - 60:
        await build.mine(60 - 2)
        await feeds.push(build, *eth)
        await build.transact(perp.price_feed, UPDATE_FEED.encode())
    await feeds.push(build, *usdc)


async def _deploy_ours(
    build: Builder, entry_point: Address, perp: PerpV2, uniswap: UniswapV3, lyra: Lyra, aave_pool: Address
) -> tuple[deploy.Deployment, dict[str, Address]]:
    """Deploy Seawall's own contracts the way any chain gets them: contracts/deploy.py, one block each, a second apart."""
    rpc = build.rpc
    await rpc.call("anvil_setBlockTimestampInterval", 1)
    await rpc.call("evm_setAutomine", True)
    sender = TransactionSender(rpc, build.accounts.deployer, CHAIN_ID)
    people = build.accounts
    ours = await deploy.deploy_seawall(
        sender, entry_point, people.paymaster_owner.address, people.paymaster_signer.address
    )
    staker = TransactionSender(rpc, people.paymaster_owner, CHAIN_ID)
    await deploy.stake_and_fund(
        staker, ours, stake_wei=STAKE_WEI, unstake_delay_s=UNSTAKE_DELAY_S, deposit_wei=PAYMASTER_DEPOSIT_WEI
    )
    lending = await deploy.deploy_aave_adapter(sender, aave_pool)
    perp_equity, aave_equity = await deploy.deploy_equity_sources(sender, perp.clearing_house, aave_pool)
    adapters = {
        "perp_equity": perp_equity,
        "aave_equity": aave_equity,
        "perp_adapter": await deploy.deploy_perp_adapter(sender, perp.clearing_house),
        "uniswap_adapter": await deploy.deploy_uniswap_adapter(sender, uniswap.factory, uniswap.router),
        "uniswap_route_adapter": await deploy.deploy_uniswap_route_adapter(
            sender, uniswap.factory, uniswap.router, uniswap.quoter
        ),
        "lyra_adapter": await deploy.deploy_lyra_adapter(sender, lyra.viewer, lyra.option_market, lyra.black_scholes),
        "perp_hedge_adapter": await deploy.deploy_perp_hedge_adapter(sender, perp.clearing_house),
        "lyra_delta": await deploy.deploy_lyra_delta(sender, lyra.viewer, lyra.option_market, lyra.black_scholes),
        "aave_adapter": lending,
        "aave_unwind_adapter": await deploy.deploy_aave_unwind_adapter(
            sender, lending, uniswap.factory, uniswap.router
        ),
    }
    await rpc.call("evm_setAutomine", False)
    await rpc.call("anvil_removeBlockTimestampInterval")
    return ours, adapters
