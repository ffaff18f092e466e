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
    /// @param triggerPrice 1e18; due when price <= trigger (`below`) or price >= trigger (not `below`), gaps included. Of a trailing stop: the
    /// price that its mark starts from.
    /// @param sizeBps share of the position to close when it fires, 1..10000; 0: `size` says how much.
    /// @param maxSizePerExecution base units (1e18) one execution may close; the rest follows after `cooldown`.
    /// @param slippageBps bound on the fill against the guarded price, widening linearly to `maxSlippageBps` over `widenSeconds`
    /// from the moment the trigger was first recorded as due.
    /// @param publicDelay seconds after that moment when anyone may execute.
    /// @param refundCap wei paid to an outside caller at most, and never more than `refundBps`/10000 of the gas it spent.
    /// @param expiry unix seconds after which the trigger is FINAL; 0 = never.
    /// @param size base units (1e18) to close when it fires, or the whole position if that is less; 0: `sizeBps` says how much.
    /// @param dust base units (1e18), less than a piece: a rest of the position of at most this is closed with the order, a rest of the order of at most
    /// this ends it.
    /// @param trail @param trailBps a trailing stop is due at this distance from its mark, in quote (1e18) or basis points of the mark; one of the two,
    /// or neither. The mark is the best price that rounds of the feed have shown since the arming (`prove`).
    /// @param group orders of one group cancel each other: the first of which a part is executed leaves the others CANCELLED. 0: none.
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
        uint128 size;
        uint128 dust;
        uint128 trail;
        uint16 trailBps;
        uint32 group;
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
    /// The other orders of the group are cancelled.
    event GroupDecided(address indexed account, uint32 indexed group, uint256 indexed id);
    event StopTrailed(address indexed account, uint256 indexed id, uint256 arming, uint80 roundId, uint256 mark);
    event StopTouched(address indexed account, uint256 indexed id, uint48 dueSince);
    event StopExecuted(
        address indexed account, uint256 indexed id, uint256 arming, uint256 price, int256 sizeBefore, int256 sizeAfter
    );

    /// @notice Arm (or replace) trigger `id` of the calling account. onInstall data: abi.encode(uint256[] ids, Stop[] stops).
    function arm(uint256 id, Stop calldata stop) external;
    function cancel(uint256 id) external;

    /// @notice Move the mark of a trailing stop to the best of these rounds of its feed, if that is better. Anyone may call; each must have begun
    /// after the arming and pass the stop's oracle, in any order. The newest round counts without any other, and must be proven once after the feed's
    /// aggregator was replaced (and after arming at installation).
    function prove(address account, uint256 id, uint80[] calldata roundIds) external;

    /// @param mark best price proven (1e18). @param trigger the price at which the stop is due now. @param since unix seconds of the arming.
    /// @param firstRound rounds from this one on count, of its phase; 0: only the newest. All 0 of a stop that does not trail.
    function markOf(address account, uint256 id)
        external
        view
        returns (uint256 mark, uint256 trigger, uint48 since, uint80 firstRound);

    function stopOf(address account, uint256 id)
        external
        view
        returns (Stop memory stop, Status status, uint256 arming, uint48 dueSince, uint48 lastExecution);

    /// @notice Close part of the position now, at the guarded price and its first slippage bound, with call data made by the adapter:
    /// the reducing call that a REDUCE_ONLY or FROZEN account can declare as an exit. Called by the account. `id` names the stop whose
    /// adapter, market and bounds are used (any status but NONE).
    function reduce(uint256 id, uint256 size) external;
}
