// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IGuard} from "./IGuard.sol";
import {OracleConfig} from "./IStopLoss.sol";

/// @title Keeps the net delta of options, perp and spot inside a band
interface IDeltaHedge is IGuard {
    /// Sizes and deltas are base units, 1e18 = one.
    /// @param authority EmergencyFreeze of an account that does not name its own (IRiskState); zero: an account without states.
    /// @param options IDeltaSource; zero: no options. @param spot token that counts with its whole balance; zero: none.
    /// @param perp IHedgeAdapter whose `market` (one word: abi.encode(address)) is traded.
    /// @param target where the net delta is brought to. @param band due while it is further from the target than this.
    /// @param minTrade least, @param maxTrade most that one execution trades.
    /// @param maxPosition largest perp position, either way, that an execution may leave behind.
    /// @param maxTurnover most that all executions trade in any `turnoverSeconds`; at most nine significant decimal digits.
    /// @param slippageBps worst fill against the oracle, the venue's fee included.
    /// @param oracle price of the underlying; `deviationPatience` is 0. Others as in IStopLoss.Stop.
    struct Hedge {
        address authority;
        address options;
        address perp;
        address market;
        address spot;
        int128 target;
        uint128 band;
        uint128 minTrade;
        uint128 maxTrade;
        uint128 maxPosition;
        uint128 maxTurnover;
        uint32 turnoverSeconds;
        uint16 slippageBps;
        uint32 cooldown;
        uint32 publicDelay;
        uint16 refundBps;
        uint96 refundCap;
        uint48 expiry;
        OracleConfig oracle;
    }

    event HedgeArmed(address indexed account, uint256 indexed id, uint256 arming, Hedge hedge);
    event HedgeCancelled(address indexed account, uint256 indexed id);
    event HedgeTouched(address indexed account, uint256 indexed id, uint48 dueSince);
    /// @param traded what the perp position grew by.
    event Hedged(
        address indexed account, uint256 indexed id, int256 deltaBefore, int256 deltaAfter, int256 traded, uint256 price
    );

    /// @notice Arm (or replace) hedge `id` of the calling account. It stays armed: each execution counts as an arming of its own. What was
    /// traded within the turnover window still counts. onInstall data: empty or abi.encode(uint256[] ids, Hedge[] hedges).
    function arm(uint256 id, Hedge calldata hedge) external;
    function cancel(uint256 id) external;

    /// @param arming grows with every `arm` and every execution.
    function hedgeOf(address account, uint256 id)
        external
        view
        returns (Hedge memory hedge, bool armed, uint256 arming, uint48 dueSince, uint48 lastExecution);

    /// @notice The parts of the net delta at the guarded price. Reverts as `execute` would while one cannot be told.
    function deltaOf(address account, uint256 id)
        external
        view
        returns (int256 options, int256 perp, int256 spot, uint256 price);
}
