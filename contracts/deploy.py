"""Deploy our contracts through the CREATE2 deployer, so that they have the same addresses on every chain with the same inputs.

A contract that is already there is left alone: deploying twice is harmless, and resumes what was broken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts import abi
from contracts.artifacts import artifact
from contracts.bindings import ADD_STAKE, PAYMASTER_DEPOSIT
from contracts.eoa import TransactionSender
from contracts.errors import OperationFailed, SetupError
from contracts.types import Address, Hash32, Wei, checksum, keccak

CREATE2_DEPLOYER: Address = bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c")
"""The deterministic deployment proxy; call data is salt (32) || init code."""
SALT: Hash32 = keccak(b"seawall.v1")


def create2_address(init_code: bytes, salt: Hash32 = SALT) -> Address:
    """Where the CREATE2 deployer puts `init_code`.   Source: EIP-1014."""
    return keccak(b"\xff" + CREATE2_DEPLOYER + salt + keccak(init_code))[12:]


def init_code(name: str, types: Sequence[str] = (), values: Sequence[object] = ()) -> bytes:
    """Creation code of our contract `name` with its constructor arguments."""
    return artifact(name).bytecode + abi.encode(types, values)


async def deploy(sender: TransactionSender, code: bytes, *, salt: Hash32 = SALT) -> Address:
    """Deploy `code` unless it is there. Returns its address.

    Raises SetupError when the chain has no CREATE2 deployer, OperationFailed when the constructor reverts.
    """
    address = create2_address(code, salt)
    if await sender.rpc.get_code(address):
        return address
    if not await sender.rpc.get_code(CREATE2_DEPLOYER):
        raise SetupError(f"this chain has no CREATE2 deployer at {checksum(CREATE2_DEPLOYER)}; deploy that first")
    await sender.transact(CREATE2_DEPLOYER, salt + code)
    if not await sender.rpc.get_code(address):
        raise OperationFailed(f"the deployment to {checksum(address)} left no code: its constructor reverted")
    return address


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where our contracts are on one chain, for one entry point."""

    risk_account_implementation: Address
    risk_account_factory: Address
    risk_validator: Address
    session_validator: Address
    stop_loss: Address
    health_guard: Address
    auto_rebalance: Address
    delta_hedge: Address
    policy_hook: Address
    equity_breaker: Address
    emergency_freeze: Address
    recovery: Address
    multisig_owner: Address
    verifying_paymaster: Address


async def deploy_seawall(
    sender: TransactionSender, entry_point: Address, owner: Address, sponsor_signer: Address
) -> Deployment:
    """Deploy account, factory, modules and paymaster for `entry_point`.

    `owner` manages the stakes and the paymaster's deposit and signers; `sponsor_signer` is the paymaster's first signer.

    Raises SetupError, OperationFailed, NodeError.
    """
    risk_validator = await deploy(sender, init_code("RiskValidator"))
    session_validator = await deploy(sender, init_code("SessionValidator"))
    account = init_code("RiskAccount", ["address"] * 3, [entry_point, risk_validator, session_validator])
    implementation = await deploy(sender, account)
    factory = init_code("RiskAccountFactory", ["address", "address"], [implementation, owner])
    paymaster = init_code("VerifyingPaymaster", ["address"] * 3, [entry_point, owner, sponsor_signer])
    return Deployment(
        risk_account_implementation=implementation,
        risk_account_factory=await deploy(sender, factory),
        risk_validator=risk_validator,
        session_validator=session_validator,
        stop_loss=await deploy(sender, init_code("StopLoss")),
        health_guard=await deploy(sender, init_code("HealthGuard")),
        auto_rebalance=await deploy(sender, init_code("AutoRebalance")),
        delta_hedge=await deploy(sender, init_code("DeltaHedge")),
        policy_hook=await deploy(sender, init_code("PolicyHook")),
        equity_breaker=await deploy(sender, init_code("EquityBreaker")),
        emergency_freeze=await deploy(sender, init_code("EmergencyFreeze")),
        recovery=await deploy(sender, init_code("Recovery")),
        multisig_owner=await deploy(sender, init_code("MultisigOwner")),
        verifying_paymaster=await deploy(sender, paymaster),
    )


async def deploy_perp_adapter(sender: TransactionSender, clearing_house: Address, *, twap_s: int = 15) -> Address:
    """Deploy the venue adapter of Perpetual Protocol v2; `twap_s` as in the venue's own mark price."""
    return await deploy(sender, init_code("PerpV2Adapter", ["address", "uint32"], [clearing_house, twap_s]))


async def deploy_perp_hedge_adapter(sender: TransactionSender, clearing_house: Address, *, twap_s: int = 15) -> Address:
    """Deploy the adapter of Perpetual Protocol v2 that trades either way; `twap_s` as in the venue's own mark price."""
    return await deploy(sender, init_code("PerpV2HedgeAdapter", ["address", "uint32"], [clearing_house, twap_s]))


async def deploy_equity_sources(
    sender: TransactionSender, clearing_house: Address, aave_pool: Address
) -> tuple[Address, Address]:
    """Deploy what tells an account's worth at Perpetual Protocol v2 and at Aave v3."""
    perp = await deploy(sender, init_code("PerpV2Equity", ["address"], [clearing_house]))
    return perp, await deploy(sender, init_code("AaveV3Equity", ["address"], [aave_pool]))


async def deploy_uniswap_adapter(
    sender: TransactionSender, factory: Address, router: Address, twap_s: int = 60
) -> Address:
    """Deploy the venue adapter of Uniswap v3 spot; its second price source is the pool's mean over `twap_s` seconds."""
    types = ["address", "address", "uint32"]
    return await deploy(sender, init_code("UniswapV3Adapter", types, [factory, router, twap_s]))


async def deploy_uniswap_route_adapter(
    sender: TransactionSender, factory: Address, router: Address, quoter: Address, twap_s: int = 60
) -> Address:
    """Deploy the adapter that compares Uniswap v3 pools by what `quoter` (QuoterV2) says of them."""
    types = ["address", "address", "address", "uint32"]
    return await deploy(sender, init_code("UniswapV3RouteAdapter", types, [factory, router, quoter, twap_s]))


async def deploy_aave_adapter(sender: TransactionSender, pool: Address) -> Address:
    """Deploy the lending adapter of one Aave v3 pool."""
    return await deploy(sender, init_code("AaveV3Adapter", ["address"], [pool]))


async def deploy_aave_unwind_adapter(
    sender: TransactionSender, lending: Address, factory: Address, router: Address, twap_s: int = 60
) -> Address:
    """Deploy what unwinds collateral at the venue of the lending adapter `lending` through Uniswap v3."""
    types = ["address", "address", "address", "uint32"]
    return await deploy(sender, init_code("AaveV3UnwindAdapter", types, [lending, factory, router, twap_s]))


async def deploy_lyra_adapter(
    sender: TransactionSender, viewer: Address, option_market: Address, black_scholes: Address
) -> Address:
    """Deploy the venue adapter of one Lyra Avalon option market, with the venue's own viewer and pricing library."""
    return await deploy(sender, init_code("LyraAdapter", ["address"] * 3, [viewer, option_market, black_scholes]))


async def deploy_lyra_delta(
    sender: TransactionSender, viewer: Address, option_market: Address, black_scholes: Address
) -> Address:
    """Deploy what sums the deltas of an account's options on one Lyra Avalon market."""
    return await deploy(sender, init_code("LyraDelta", ["address"] * 3, [viewer, option_market, black_scholes]))


async def stake_and_fund(
    sender: TransactionSender, deployment: Deployment, *, stake_wei: Wei, unstake_delay_s: int, deposit_wei: Wei
) -> None:
    """Stake factory and paymaster (ERC-7562 STO-022 and STO-033 need it) and fund the paymaster. `sender` must be their owner.

    Not repeatable in silence: each call adds stake and deposit. Raises OperationFailed, NodeError.
    """
    stake = ADD_STAKE.encode(unstake_delay_s)
    await sender.transact(deployment.risk_account_factory, stake, value=stake_wei)
    await sender.transact(deployment.verifying_paymaster, stake, value=stake_wei)
    await sender.transact(deployment.verifying_paymaster, PAYMASTER_DEPOSIT.encode(), value=deposit_wei)


_PATTERNS = (
    # ERC-7579 execute(mode, data) of one call; execute(target, value, data); ERC-20 transfer and approve
    "e9ae5c53" + "00" * 63 + "40" + "00" * 31,
    "b61d27f6" + "00" * 12,
    "a9059cbb" + "00" * 12,
    "095ea7b3" + "00" * 12,
)


def inflator_dictionary(addresses: Sequence[Address], patterns: Sequence[bytes] = ()) -> bytes:
    """What the operations of one chain often hold: heads of calls, and `addresses` as 32-byte words (tokens, venues, modules, paymasters).

    `patterns`: further bytes, as they stand in operations.
    """
    return b"".join([*map(bytes.fromhex, _PATTERNS), *patterns, *(bytes(12) + address for address in addresses)])


async def deploy_inflator(sender: TransactionSender, dictionary: bytes) -> Address:
    """Deploy the bundler's Inflator with its dictionary (`inflator_dictionary`), one for all entry points that listen to contracts."""
    return await deploy(sender, init_code("Inflator", ["bytes"], [dictionary]))
