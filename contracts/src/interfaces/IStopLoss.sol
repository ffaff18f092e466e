// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IGuard} from "./IGuard.sol";

/// One price feed and everything it is held against. Prices are quote per base, 1e18 = one.
/// @param feed Chainlink-style aggregator; `heartbeat` the age (s) above which its answer is stale.
/// @param sequencerFeed L2 sequencer up-time feed (0 = up), zero address on L1; `gracePeriod` (s) after it came back.
/// @param minPrice @param maxPrice bounds (1e18) outside which an answer is refused.
/// @param maxDeviationBps largest distance between feed and venue price before the trigger is BLOCKED; it stops blocking
/// `deviationPatience` seconds after the trigger was first touched as due.
struct OracleConfig {
    address feed;
    uint32 heartbeat;
    address sequencerFeed;
    uint32 gracePeriod;
    uint128 minPrice;
    uint128 maxPrice;
    uint16 maxDeviationBps;
    uint32 deviationPatience;
}

/// @title Stop-loss and take-profit
interface IStopLoss is IGuard {
    /// @param adapter @param market the position (see IVenueAdapter).
    /// @param triggerPrice 1e18; due when price <= trigger (`below`) or price >= trigger (not `below`), gaps included.
    /// @param sizeBps share of the position to close when it fires, 1..10000.
    /// @param maxSizePerExecution base units (1e18) one execution may close; the rest follows after `cooldown`.
    /// @param slippageBps bound on the fill against the guarded price, widening linearly to `maxSlippageBps` over `widenSeconds`
    /// from the moment the trigger was first recorded as due.
    /// @param publicDelay seconds after that moment when anyone may execute.
    /// @param refundCap wei paid to an outside caller at most, and never more than `refundBps`/10000 of the gas it spent.
    /// @param expiry unix seconds after which the trigger is FINAL; 0 = never.
    struct Stop {
        address adapter;
        bytes market;
        bool below;
        uint128 triggerPrice;
        uint16 sizeBps;
        uint128 maxSizePerExecution;
        uint16 slippageBps;
        uint16 maxSlippageBps;
        uint32 widenSeconds;
        uint32 cooldown;
        uint32 publicDelay;
        uint16 refundBps;
        uint96 refundCap;
        uint48 expiry;
        OracleConfig oracle;
    }

    enum Status {
        NONE,
        ARMED,
        FIRED,
        CANCELLED
    }

    event StopArmed(address indexed account, uint256 indexed id, uint256 arming, Stop stop);
    event PositionReduced(
        address indexed account, uint256 indexed id, uint256 price, int256 sizeBefore, int256 sizeAfter
    );
    event StopCancelled(address indexed account, uint256 indexed id);
    event StopTouched(address indexed account, uint256 indexed id, uint48 dueSince);
    event StopExecuted(
        address indexed account, uint256 indexed id, uint256 arming, uint256 price, int256 sizeBefore, int256 sizeAfter
    );

    /// @notice Arm (or replace) trigger `id` of the calling account. onInstall data: abi.encode(uint256[] ids, Stop[] stops).
    function arm(uint256 id, Stop calldata stop) external;
    function cancel(uint256 id) external;

    function stopOf(address account, uint256 id)
        external
        view
        returns (Stop memory stop, Status status, uint256 arming, uint48 dueSince, uint48 lastExecution);

    /// @notice Close part of the position now, at the guarded price and its first slippage bound, with call data made by the adapter:
    /// the reducing call that a REDUCE_ONLY or FROZEN account can declare as an exit. Called by the account. `id` names the stop whose
    /// adapter, market and bounds are used (any status but NONE).
    function reduce(uint256 id, uint256 size) external;
}
