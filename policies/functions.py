"""Functions that the engine can read: signature, names of the arguments, and what a call of it does to a portfolio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from contracts.abi import Function
from contracts.bindings import (
    BASKET,
    BREAKER_CONFIG,
    HEALTH,
    HEDGE,
    HOOK_RULE,
    HOOK_SETTINGS,
    HOOK_WINDOW,
    RECOVERY_SETTINGS,
    STOP,
)


class Effect(StrEnum):
    """What a call does, by its function and the arguments that say for whom. REDUCES only what reduces whatever the state is: no size,
    debt, notional or allowance is larger after it. Whether it passes when facts are missing is decided by exits and guards, not by this."""

    OPENS = "opens"
    REDUCES = "reduces"
    MOVES = "moves"
    """Shifts the account's own funds between itself and a venue."""
    PAYS = "pays"
    """Sends value to somebody."""
    GRANTS = "grants"
    """Lets somebody else move value."""
    ADMIN = "admin"
    """Changes the account, its modules or their configuration."""
    NEUTRAL = "neutral"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KnownFunction:
    """A function with names for its arguments. A single struct argument is spread: its members are the arguments."""

    function: Function
    arguments: tuple[str, ...]
    effect: Effect

    @property
    def types(self) -> tuple[str, ...]:
        """ABI type of each named argument."""
        inputs = self.function.inputs
        if self.spread:
            return Function.parse(f"_{inputs[0]}").inputs
        return inputs

    @property
    def spread(self) -> bool:
        """Whether the arguments are the members of one struct."""
        inputs = self.function.inputs
        return len(inputs) == 1 and inputs[0].startswith("(") and inputs[0].endswith(")") and len(self.arguments) != 1


def _f(signature: str, arguments: str, effect: Effect) -> KnownFunction:
    return KnownFunction(Function.parse(signature), tuple(arguments.split()), effect)


_SESSION = "(address,uint48,uint48,address,bytes4,uint128,uint32,bytes32)"
_EXIT = "(address,bytes4,bool,bool,uint8,bytes32[])"
_TRADE = "(uint256,uint256,uint256,uint8,uint256,uint256,uint256,uint256)"
_OPTION_TRADE = "strikeId positionId iterations optionType amount setCollateralTo minTotalCost maxTotalCost"
_ORDER = "baseToken isBaseToQuote isExactInput amount oppositeAmountBound deadline sqrtPriceLimitX96 referralCode"

FUNCTIONS: tuple[KnownFunction, ...] = (
    # ERC-20 and WETH9
    _f("transfer(address,uint256)", "to amount", Effect.PAYS),
    _f("transferFrom(address,address,uint256)", "from to amount", Effect.PAYS),
    _f("approve(address,uint256)", "spender amount", Effect.GRANTS),
    _f("increaseAllowance(address,uint256)", "spender amount", Effect.GRANTS),
    _f("decreaseAllowance(address,uint256)", "spender amount", Effect.REDUCES),
    _f(
        "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
        "owner spender amount deadline v r s",
        Effect.GRANTS,
    ),
    _f(
        "permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)",
        "owner spender nonce expiry allowed v r s",
        Effect.GRANTS,
    ),
    _f("deposit()", "", Effect.MOVES),
    _f("withdraw(uint256)", "amount", Effect.MOVES),
    # Permit2
    _f("approve(address,address,uint160,uint48)", "token spender amount expiration", Effect.GRANTS),
    _f("transferFrom(address,address,uint160,address)", "from to amount token", Effect.PAYS),
    _f("lockdown((address,address)[])", "approvals", Effect.REDUCES),
    # Multicall3: what is inside is called by Multicall3, not by the account; nothing is known of what it does to the account
    _f("aggregate((address,bytes)[])", "calls", Effect.UNKNOWN),
    _f("tryAggregate(bool,(address,bytes)[])", "requireSuccess calls", Effect.UNKNOWN),
    _f("aggregate3((address,bool,bytes)[])", "calls", Effect.UNKNOWN),
    _f("blockAndAggregate((address,bytes)[])", "calls", Effect.UNKNOWN),
    _f("tryBlockAndAggregate(bool,(address,bytes)[])", "requireSuccess calls", Effect.UNKNOWN),
    _f("aggregate3Value((address,bool,uint256,bytes)[])", "calls", Effect.UNKNOWN),
    # Perpetual Protocol v2: IClearingHouse, IVault, IDelegateApproval
    _f("openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))", _ORDER, Effect.OPENS),
    _f(
        "closePosition((address,uint160,uint256,uint256,bytes32))",
        "baseToken sqrtPriceLimitX96 oppositeAmountBound deadline referralCode",
        Effect.REDUCES,
    ),
    _f(
        "addLiquidity((address,uint256,uint256,int24,int24,uint256,uint256,bool,uint256))",
        "baseToken base quote lowerTick upperTick minBase minQuote useTakerBalance deadline",
        Effect.OPENS,
    ),
    _f(
        "removeLiquidity((address,int24,int24,uint128,uint256,uint256,uint256))",
        "baseToken lowerTick upperTick liquidity minBase minQuote deadline",
        Effect.MOVES,  # what the range had traded becomes a taker position, which may be the larger one
    ),
    _f(
        "openPositionFor(address,(address,bool,bool,uint256,uint256,uint256,uint160,bytes32))",
        "trader order",
        Effect.OPENS,
    ),
    _f("liquidate(address,address)", "trader baseToken", Effect.OPENS),
    _f("liquidate(address,address,int256)", "trader baseToken size", Effect.OPENS),
    _f("cancelExcessOrders(address,address,bytes32[])", "maker baseToken orderIds", Effect.MOVES),
    _f("cancelAllExcessOrders(address,address)", "maker baseToken", Effect.MOVES),
    _f("quitMarket(address,address)", "trader baseToken", Effect.NEUTRAL),
    _f("settleAllFunding(address)", "trader", Effect.NEUTRAL),
    _f("deposit(address,uint256)", "token amount", Effect.MOVES),
    _f("depositFor(address,address,uint256)", "to token amount", Effect.PAYS),
    _f("withdraw(address,uint256)", "token amount", Effect.MOVES),
    _f("withdrawAll(address)", "token", Effect.MOVES),
    _f("depositEther()", "", Effect.MOVES),
    _f("depositEtherFor(address)", "to", Effect.PAYS),
    _f("withdrawEther(uint256)", "amount", Effect.MOVES),
    _f("withdrawAllEther()", "", Effect.MOVES),
    _f("revoke(address,uint8)", "delegate actions", Effect.REDUCES),
    _f("approve(address,uint8)", "delegate actions", Effect.GRANTS),
    # Uniswap v3 SwapRouter and SwapRouter02 (without deadline)
    _f(
        "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))",
        "tokenIn tokenOut fee recipient deadline amountIn amountOutMinimum sqrtPriceLimitX96",
        Effect.OPENS,
    ),
    _f(
        "exactOutputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))",
        "tokenIn tokenOut fee recipient deadline amountOut amountInMaximum sqrtPriceLimitX96",
        Effect.OPENS,
    ),
    _f(
        "exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))",
        "tokenIn tokenOut fee recipient amountIn amountOutMinimum sqrtPriceLimitX96",
        Effect.OPENS,
    ),
    _f(
        "exactOutputSingle((address,address,uint24,address,uint256,uint256,uint160))",
        "tokenIn tokenOut fee recipient amountOut amountInMaximum sqrtPriceLimitX96",
        Effect.OPENS,
    ),
    _f(
        "exactInput((bytes,address,uint256,uint256,uint256))",
        "path recipient deadline amountIn amountOutMinimum",
        Effect.OPENS,
    ),
    _f(
        "exactOutput((bytes,address,uint256,uint256,uint256))",
        "path recipient deadline amountOut amountInMaximum",
        Effect.OPENS,
    ),
    _f("exactInput((bytes,address,uint256,uint256))", "path recipient amountIn amountOutMinimum", Effect.OPENS),
    _f("exactOutput((bytes,address,uint256,uint256))", "path recipient amountOut amountInMaximum", Effect.OPENS),
    _f("unwrapWETH9(uint256,address)", "amountMinimum recipient", Effect.PAYS),
    _f("unwrapWETH9(uint256)", "amountMinimum", Effect.MOVES),
    _f("unwrapWETH9WithFee(uint256,address,uint256,address)", "amountMinimum recipient feeBips spender", Effect.PAYS),
    _f("sweepToken(address,uint256,address)", "token amountMinimum recipient", Effect.PAYS),
    _f("sweepToken(address,uint256)", "token amountMinimum", Effect.MOVES),
    _f(
        "sweepTokenWithFee(address,uint256,address,uint256,address)",
        "token amountMinimum recipient feeBips spender",
        Effect.PAYS,
    ),
    _f("refundETH()", "", Effect.MOVES),
    _f("wrapETH(uint256)", "amount", Effect.MOVES),
    _f("pull(address,uint256)", "token amount", Effect.MOVES),
    _f("selfPermit(address,uint256,uint256,uint8,bytes32,bytes32)", "token amount deadline v r s", Effect.GRANTS),
    # Uniswap v3 NonfungiblePositionManager, ERC-721
    _f(
        "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))",
        "token0 token1 fee tickLower tickUpper amount0Desired amount1Desired amount0Min amount1Min recipient deadline",
        Effect.OPENS,
    ),
    _f(
        "increaseLiquidity((uint256,uint256,uint256,uint256,uint256,uint256))",
        "tokenId amount0Desired amount1Desired amount0Min amount1Min deadline",
        Effect.OPENS,
    ),
    _f(
        "decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))",
        "tokenId liquidity amount0Min amount1Min deadline",
        Effect.MOVES,  # at the pool's price, which may leave more of one asset than the position had at the oracle's
    ),
    _f("collect((uint256,address,uint128,uint128))", "tokenId recipient amount0Max amount1Max", Effect.PAYS),
    _f("burn(uint256)", "tokenId", Effect.NEUTRAL),
    _f(
        "createAndInitializePoolIfNecessary(address,address,uint24,uint160)",
        "token0 token1 fee sqrtPriceX96",
        Effect.NEUTRAL,
    ),
    _f("permit(address,uint256,uint256,uint8,bytes32,bytes32)", "spender tokenId deadline v r s", Effect.GRANTS),
    _f("safeTransferFrom(address,address,uint256,bytes)", "from to tokenId data", Effect.PAYS),
    # Aave v3 IPool
    _f("deposit(address,uint256,address,uint16)", "asset amount onBehalfOf referralCode", Effect.MOVES),
    _f(
        "supplyWithPermit(address,uint256,address,uint16,uint256,uint8,bytes32,bytes32)",
        "asset amount onBehalfOf referralCode deadline v r s",
        Effect.MOVES,
    ),
    _f(
        "repayWithPermit(address,uint256,uint256,address,uint256,uint8,bytes32,bytes32)",
        "asset amount rateMode onBehalfOf deadline v r s",
        Effect.REDUCES,
    ),
    _f("repayWithATokens(address,uint256,uint256)", "asset amount rateMode", Effect.MOVES),
    _f("setUserUseReserveAsCollateral(address,bool)", "asset useAsCollateral", Effect.OPENS),
    _f("setUserEMode(uint8)", "category", Effect.OPENS),
    _f("swapBorrowRateMode(address,uint256)", "asset rateMode", Effect.MOVES),
    _f("rebalanceStableBorrowRate(address,address)", "asset user", Effect.NEUTRAL),
    _f(
        "liquidationCall(address,address,address,uint256,bool)",
        "collateralAsset debtAsset trader amount receiveAToken",
        Effect.OPENS,
    ),
    _f(
        "flashLoanSimple(address,address,uint256,bytes,uint16)",
        "recipient asset amount params referralCode",
        Effect.UNKNOWN,
    ),
    _f("approveDelegation(address,uint256)", "spender amount", Effect.GRANTS),
    _f("supply(address,uint256,address,uint16)", "asset amount onBehalfOf referralCode", Effect.MOVES),
    _f("withdraw(address,uint256,address)", "asset amount to", Effect.PAYS),
    _f("borrow(address,uint256,uint256,uint16,address)", "asset amount rateMode referralCode onBehalfOf", Effect.OPENS),
    _f("repay(address,uint256,uint256,address)", "asset amount rateMode onBehalfOf", Effect.REDUCES),
    # Lyra Avalon: OptionMarket, ShortCollateral, OptionToken, LiquidityPool, OptionGreekCache. A close that leaves collateral behind
    # may also take some out, so it reduces only with setCollateralTo = 0 (see policies.calls); addCollateral pays whoever owns the position.
    _f(f"openPosition({_TRADE})", _OPTION_TRADE, Effect.OPENS),
    _f(f"closePosition({_TRADE})", _OPTION_TRADE, Effect.REDUCES),
    _f(f"forceClosePosition({_TRADE})", _OPTION_TRADE, Effect.REDUCES),
    _f("addCollateral(uint256,uint256)", "positionId amountCollateral", Effect.PAYS),
    _f("liquidatePosition(uint256,address)", "positionId rewardBeneficiary", Effect.PAYS),
    _f("settleExpiredBoard(uint256)", "boardId", Effect.NEUTRAL),
    _f("settleOptions(uint256[])", "positionIds", Effect.REDUCES),
    _f("updateBoardCachedGreeks(uint256)", "boardId", Effect.NEUTRAL),
    _f("split(uint256,uint256,uint256,address)", "positionId newAmount newCollateral recipient", Effect.PAYS),
    _f("merge(uint256[])", "positionIds", Effect.NEUTRAL),
    _f("safeTransferFrom(address,address,uint256)", "from to tokenId", Effect.PAYS),
    _f("setApprovalForAll(address,bool)", "operator approved", Effect.GRANTS),
    _f("initiateDeposit(address,uint256)", "beneficiary amountQuote", Effect.PAYS),
    _f("initiateWithdraw(address,uint256)", "beneficiary amountLiquidityToken", Effect.PAYS),
    # guards: IGuard, IStopLoss
    _f("execute(address,uint256)", "account id", Effect.REDUCES),
    _f("touch(address,uint256)", "account id", Effect.NEUTRAL),
    _f("reduce(uint256,uint256)", "id size", Effect.REDUCES),
    _f("prove(address,uint256,uint80[])", "account id roundIds", Effect.NEUTRAL),
    _f(f"arm(uint256,{STOP})", "id stop", Effect.ADMIN),
    _f(f"arm(uint256,{HEALTH})", "id health", Effect.ADMIN),
    _f(f"arm(uint256,{BASKET})", "id basket", Effect.ADMIN),
    _f(f"arm(uint256,{HEDGE})", "id hedge", Effect.ADMIN),
    _f("cancel(uint256)", "id", Effect.ADMIN),
    # EmergencyFreeze
    _f("freeze(address,uint8)", "account state", Effect.REDUCES),
    _f(f"setRule({HOOK_RULE},bool)", "rule enabled", Effect.ADMIN),
    _f(f"setWindows({HOOK_WINDOW}[])", "windows", Effect.ADMIN),
    _f("setApproval((address,address,uint128))", "approval", Effect.ADMIN),
    _f("setAllowance((bytes32,uint128,uint128,uint64,uint128,uint64))", "allowance", Effect.ADMIN),
    _f(f"setSettings({HOOK_SETTINGS})", "settings", Effect.ADMIN),
    _f("announce(bytes)", "data", Effect.ADMIN),
    _f("setBreaker(address)", "breaker", Effect.ADMIN),
    _f(f"configure({BREAKER_CONFIG})", "config", Effect.ADMIN),
    _f("resetMark()", "", Effect.ADMIN),
    _f(f"setSettings({RECOVERY_SETTINGS})", "settings", Effect.ADMIN),
    _f("withdrawChange(bytes32)", "changeHash", Effect.ADMIN),
    _f("cancel()", "", Effect.ADMIN),
    _f("heartbeat()", "", Effect.ADMIN),
    _f("startEscape()", "", Effect.ADMIN),
    _f("finishEscape(address)", "account", Effect.ADMIN),
    _f("setGuardian(address,bool)", "guardian enabled", Effect.ADMIN),
    _f("setQuorum(uint8)", "quorum", Effect.ADMIN),
    _f("setGuard(address,bool)", "guard enabled", Effect.ADMIN),
    _f(f"setExit({_EXIT},bool)", "exit enabled", Effect.ADMIN),
    _f("setDelays((uint48,uint48,uint48,uint48))", "delays", Effect.ADMIN),
    # RiskValidator and SessionValidator
    _f("setQuorum((bytes32,uint8,address[]))", "quorum", Effect.ADMIN),
    _f("setEscapeDelay(uint48)", "delay", Effect.ADMIN),
    _f("setPolicy(bytes32)", "policyId", Effect.ADMIN),
    _f("setEngine(address,bool)", "engine enabled", Effect.ADMIN),
    _f("setThreshold(uint8)", "threshold", Effect.ADMIN),
    _f("cancelEscape()", "", Effect.ADMIN),
    _f(f"enableSession({_SESSION},bytes)", "session bounds", Effect.ADMIN),
    _f("revokeSession(bytes32)", "sessionId", Effect.ADMIN),
    # RiskAccount, ERC-7579
    _f("installModule(uint256,address,bytes)", "moduleTypeId module initData", Effect.ADMIN),
    _f("uninstallModule(uint256,address,bytes)", "moduleTypeId module deInitData", Effect.ADMIN),
    _f("forceUninstallModule(uint256,address,bytes)", "moduleTypeId module deInitData", Effect.ADMIN),
    _f("scheduleAdmin(bytes)", "data", Effect.ADMIN),
    _f("cancelAdmin(bytes32)", "actionHash", Effect.ADMIN),
    _f("executeAdmin(bytes)", "data", Effect.ADMIN),
    _f("setOwner(bytes)", "owner", Effect.ADMIN),
    _f("setRiskAuthority(address)", "authority", Effect.ADMIN),
    _f("pinLibrary(address,bytes32)", "library codeHash", Effect.ADMIN),
    _f("setPrefundCaps(uint128[3])", "caps", Effect.ADMIN),
    _f("setRiskState(uint8)", "state", Effect.ADMIN),
    _f("upgradeToAndCall(address,bytes)", "implementation data", Effect.ADMIN),
    _f("execute(bytes32,bytes)", "mode executionCalldata", Effect.ADMIN),
    _f("executeFromExecutor(bytes32,bytes)", "mode executionCalldata", Effect.ADMIN),
)

BY_SELECTOR: Mapping[bytes, KnownFunction] = {f.function.selector: f for f in FUNCTIONS}
BY_SIGNATURE: Mapping[str, KnownFunction] = {f.function.signature: f for f in FUNCTIONS}

_TARGETS: Mapping[str, tuple[str, ...]] = {
    "usdc": ("transfer(address,uint256)", "transferFrom(address,address,uint256)", "approve(address,uint256)"),
    "weth": (
        "transfer(address,uint256)", "transferFrom(address,address,uint256)", "approve(address,uint256)", "deposit()",
        "withdraw(uint256)",
    ),
    "perp.vault": (
        "deposit(address,uint256)", "depositFor(address,address,uint256)", "withdraw(address,uint256)",
        "withdrawAll(address)",
    ),
    "perp.clearing_house": (
        "openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))",
        "closePosition((address,uint160,uint256,uint256,bytes32))",
    ),
    "lyra.option_market": (f"openPosition({_TRADE})", f"closePosition({_TRADE})", f"forceClosePosition({_TRADE})"),
    "lyra.quote": ("transfer(address,uint256)", "transferFrom(address,address,uint256)", "approve(address,uint256)"),
    "perp.delegate_approval": ("approve(address,uint8)",),
    "uniswap.position_manager": (
        "approve(address,uint256)", "permit(address,uint256,uint256,uint8,bytes32,bytes32)",
        "transferFrom(address,address,uint256)", "unwrapWETH9(uint256,address)", "sweepToken(address,uint256,address)",
    ),
    "uniswap.router": (
        "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))",
        "exactOutputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))",
        "exactInput((bytes,address,uint256,uint256,uint256))", "exactOutput((bytes,address,uint256,uint256,uint256))",
        "unwrapWETH9(uint256,address)", "sweepToken(address,uint256,address)",
    ),
    "aave.pool": ("withdraw(address,uint256,address)", "deposit(address,uint256,address,uint16)"),
    "seawall.stop_loss": ("execute(address,uint256)", f"arm(uint256,{STOP})", "cancel(uint256)"),
    "seawall.health_guard": ("execute(address,uint256)", f"arm(uint256,{HEALTH})", "cancel(uint256)"),
    "seawall.auto_rebalance": ("execute(address,uint256)", f"arm(uint256,{BASKET})", "cancel(uint256)"),
    "seawall.delta_hedge": ("execute(address,uint256)", f"arm(uint256,{HEDGE})", "cancel(uint256)"),
    "seawall.risk_validator": ("cancelEscape()",),
    "seawall.policy_hook": ("announce(bytes)", f"setSettings({HOOK_SETTINGS})"),
    "seawall.recovery": (f"setSettings({RECOVERY_SETTINGS})", "cancel()"),
}  # fmt: skip


def find(name: str, target: str = "") -> list[KnownFunction]:
    """Functions called `name` (or with that signature); `target`, the contract's name, decides between overloads."""
    if "(" in name:
        found = BY_SIGNATURE.get(name)
        return [found] if found else []
    overloads = [f for f in FUNCTIONS if f.function.name == name]
    fitting = [f for f in overloads if f.function.signature in _TARGETS.get(target, ())]
    return fitting or overloads


def known_names() -> tuple[str, ...]:
    """Names of all functions, each once."""
    return tuple(dict.fromkeys(f.function.name for f in FUNCTIONS))
