"""Numbers of the devnet's Lyra market: the defaults of the package's own test system, except where it says why not.

Ratios and prices are 1e18 = one, times are seconds. Each tuple is the struct that a setter of the package takes, members in its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.types import ZERO_ADDRESS, Address
from contracts.units import WAD

HOUR_S, DAY_S, WEEK_S = 3_600, 86_400, 604_800
RATE_STALE_S = 25 * HOUR_S
"""Synthetix's own stale period on Optimism."""

BASE_TO_QUOTE_FEE_WAD = 75 * WAD // 10_000
QUOTE_TO_BASE_FEE_WAD = 50 * WAD // 10_000
SHORT_BUFFER_WAD = 2 * WAD


def _bps(value: int) -> int:
    return value * WAD // 10_000


def option_market(security_module: Address) -> tuple[int | Address, ...]:
    """maxBoardExpiry, securityModule, feePortionReserved, staticBaseSettlementFee."""
    return (336 * DAY_S, security_module, _bps(1_000), BASE_TO_QUOTE_FEE_WAD)


LIQUIDITY_POOL = (
    WAD, WEEK_S, WEEK_S, _bps(100), _bps(100), 3 * DAY_S, _bps(1_000), _bps(3_500), 12 * HOUR_S, 12 * HOUR_S, ZERO_ADDRESS,
    2 * WEEK_S, 6 * HOUR_S, _bps(100),
)  # fmt: skip
"""minDepositWithdraw, depositDelay, withdrawalDelay, withdrawalFee, liquidityCBThreshold, liquidityCBTimeout, ivVarianceCBThreshold,
skewVarianceCBThreshold, ivVarianceCBTimeout, skewVarianceCBTimeout, guardianMultisig, guardianDelay, boardSettlementCBTimeout, maxFeePaid."""

POOL_HEDGER = (DAY_S, 2**256 - 1)
"""interactionDelay, hedgeCap."""

GREEK_CACHE = (
    30, _bps(500), 3 * HOUR_S, DAY_S, 3 * DAY_S, DAY_S, 3 * DAY_S, _bps(5_000), 2 * WAD, _bps(500),
)  # fmt: skip
"""maxStrikesPerBoard, acceptableSpotPricePercentMove, staleUpdateDuration, varianceIvGWAVPeriod, varianceSkewGWAVPeriod,
optionValueIvGWAVPeriod, optionValueSkewGWAVPeriod, gwavSkewFloor, gwavSkewCap, rateAndCarry."""

MIN_COLLATERAL = (
    200 * WAD, _bps(2_000), _bps(25_000), 2 * WEEK_S, _bps(18_000), 8 * WEEK_S, _bps(12_000), _bps(8_000),
)  # fmt: skip
"""minStaticQuoteCollateral, minStaticBaseCollateral, shockVolA, shockVolPointA, shockVolB, shockVolPointB, callSpotPriceShock,
putSpotPriceShock. (The package's struct begins with the quote, its script's object does not: names decide, not places.)"""

FORCE_CLOSE = (
    12 * HOUR_S, DAY_S, _bps(12_000), _bps(14_000), _bps(8_000), _bps(5_000), _bps(13_000), _bps(16_000), _bps(100),
    _bps(200),
)  # fmt: skip
"""ivGWAVPeriod, skewGWAVPeriod, shortVolShock, shortPostCutoffVolShock, longVolShock, longPostCutoffVolShock, liquidateVolShock,
liquidatePostCutoffVolShock, shortSpotMin, liquidateSpotMin."""

PRICING = (
    _bps(100), 6 * WEEK_S, 16 * WEEK_S, _bps(100), 6 * WEEK_S, 12 * WEEK_S, 100 * WAD, 50 * WAD, _bps(7_500),
)  # fmt: skip
"""optionPriceFeeCoefficient, optionPriceFee1xPoint, optionPriceFee2xPoint, spotPriceFeeCoefficient, spotPriceFee1xPoint,
spotPriceFee2xPoint, vegaFeeCoefficient, standardSize, skewAdjustmentFactor. The standard size is ten times the package's: the pool is
forty times as large, and a fund's trade of 100 options is to move volatility by two points, not by twenty."""

TRADE_LIMITS = (
    _bps(1_500), _bps(2_500), 12 * HOUR_S, _bps(3_500), 2 * WAD, _bps(5_000), _bps(15_000), _bps(5_500), 3 * WAD,
    _bps(1_500), 5 * WAD, False,
)  # fmt: skip
"""minDelta, minForceCloseDelta, tradingCutoff, minBaseIV, maxBaseIV, minSkew, maxSkew, minVol, maxVol, absMinSkew, absMaxSkew,
capSkewsToAbs."""

VARIANCE_FEE = (_bps(2_500), _bps(2_500), 3 * WAD, WAD, WAD, _bps(100), 0, _bps(15_000), WAD)
"""defaultVarianceFeeCoefficient, forceCloseVarianceFeeCoefficient, skewAdjustmentCoefficient, referenceSkew,
minimumStaticSkewAdjustment, vegaCoefficient, minimumStaticVega, ivVarianceCoefficient, minimumStaticIvVariance."""

PARTIAL_COLLATERAL = (_bps(2_000), _bps(4_000), _bps(3_000), 15 * WAD)
"""penaltyRatio, liquidatorFeeRatio, smFeeRatio, minLiquidationFee."""

POOL_DEPOSIT_WAD = 20_000_000 * WAD
"""What the maker deposits for options to be written on: 40 times the package's seed."""
SWAP_DEPTH_USDC = 20_000_000
"""On each side of the pool in which USDC becomes sUSD."""
TRADING_QUOTE_WAD = 1_000_000 * WAD
"""sUSD of everyone who trades, like their USDC."""


@dataclass(frozen=True, slots=True)
class Board:
    """One expiry. `strikes_bps` of the price at the start; volatility of a strike = `iv_bps` x its skew."""

    weeks: int
    iv_bps: int
    strikes_bps: tuple[int, ...]
    skews_bps: tuple[int, ...]


BOARDS = (
    Board(1, 9_000, (9_000, 9_500, 10_000, 10_600, 11_200), (11_200, 10_500, 10_000, 9_800, 9_900)),
    Board(2, 8_500, (8_600, 9_300, 10_000, 10_800, 11_600), (11_200, 10_500, 10_000, 9_800, 9_900)),
    Board(4, 8_000, (8_200, 9_000, 10_000, 11_200, 12_500), (11_200, 10_500, 10_000, 9_800, 9_900)),
)
"""Strikes within 0.9 standard deviations of the price: the market trades deltas between 0.15 and 0.85 only."""


def strike_tick_wad(price_wad: int) -> int:
    """The largest of 1, 2, 5 x 10^n that is not above a hundredth of the price: what strikes are multiples of."""
    most = price_wad // 100
    digits = len(str(most)) - 1
    return max(step for step in (int("1" + "0" * digits) * factor for factor in (1, 2, 5)) if step <= most)


def strikes_wad(board: Board, price_wad: int) -> tuple[int, ...]:
    """The strikes of `board` around `price_wad`, on the tick."""
    tick = strike_tick_wad(price_wad)
    return tuple((price_wad * bps // 10_000 + tick // 2) // tick * tick for bps in board.strikes_bps)
