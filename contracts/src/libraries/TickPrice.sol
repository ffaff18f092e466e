// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";

/// @title Price of a Uniswap v3 tick
library TickPrice {
    /// Ticks beyond this do not exist.
    int256 internal constant MAX_TICK = 887_272;
    // ln(1.0001) and ln(10), 1e36 = one.
    int256 private constant LN_BASE = 99_995_000_333_308_335_333_166_680_951_131;
    int256 private constant LN_10 = 2_302_585_092_994_045_684_017_991_454_684_364_207;

    error TickOutOfRange(int256 tick);

    /// @notice 1.0001^tick * 10^decimalShift, 1e18 = one, rounded down; relative error below 1e-12 while the result is above 1e12.
    /// @param decimalShift decimals of token0 less those of token1, when the price wanted is token1 per token0 in whole units.
    function wad(int256 tick, int256 decimalShift) internal pure returns (uint256) {
        if (tick > MAX_TICK || tick < -MAX_TICK) revert TickOutOfRange(tick);
        // price = exp(tick * ln(1.0001) + shift * ln(10))
        return uint256(FixedPointMathLib.expWad((tick * LN_BASE + decimalShift * LN_10) / 1e18));
    }

    /// @notice The mean tick over `period` seconds between two cumulatives, rounded toward negative infinity.
    function mean(int56 earlier, int56 later, uint32 period) internal pure returns (int256 tick) {
        int256 delta = int256(later) - int256(earlier);
        tick = delta / int256(uint256(period));
        if (delta < 0 && delta % int256(uint256(period)) != 0) --tick;
    }
}
