// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {OracleConfig} from "../interfaces/IStopLoss.sol";
import {IPriceFeed, OracleGuard} from "./OracleGuard.sol";

/// @title A guarded price for code that may not look at the clock
/// @notice The checks of `OracleGuard`, for the validation phase of ERC-4337, where TIMESTAMP is forbidden (ERC-7562 [OP-011]): what depends on
/// the time is answered as the time in which it holds, which the entry point enforces. A test holds the two libraries together.
library OracleWindow {
    /// @return price 1e18.
    /// @return validAfter when the sequencer's grace is over, and the answer is not from the future.
    /// @return validUntil when the answer becomes older than its heartbeat.
    /// @return problem selector of the error of `OracleGuard`; zero: none.
    function read(OracleConfig memory config)
        internal
        view
        returns (uint256 price, uint48 validAfter, uint48 validUntil, bytes4 problem)
    {
        (validAfter, problem) = _sequencer(config);
        if (problem != 0) return (0, 0, 0, problem);
        try IPriceFeed(config.feed).latestRoundData() returns (
            uint80 roundId, int256 answer, uint256, uint256 updatedAt, uint80 answeredInRound
        ) {
            bool complete = answer > 0 && updatedAt != 0 && updatedAt < type(uint40).max && answeredInRound >= roundId;
            if (!complete) return (0, 0, 0, OracleGuard.FeedInvalid.selector);
            if (uint256(answer) > type(uint128).max) return (0, 0, 0, OracleGuard.FeedOutOfBounds.selector);
            if (updatedAt > validAfter) validAfter = uint48(updatedAt);
            validUntil = uint48(updatedAt) + config.heartbeat;
            uint8 decimals = IPriceFeed(config.feed).decimals();
            price = decimals <= 18 ? uint256(answer) * 10 ** (18 - decimals) : uint256(answer) / 10 ** (decimals - 18);
        } catch {
            return (0, 0, 0, OracleGuard.FeedInvalid.selector);
        }
        if (price < config.minPrice || price > config.maxPrice) {
            return (0, 0, 0, OracleGuard.FeedOutOfBounds.selector);
        }
    }

    function _sequencer(OracleConfig memory config) private view returns (uint48 validAfter, bytes4 problem) {
        if (config.sequencerFeed == address(0)) return (0, 0);
        try IPriceFeed(config.sequencerFeed).latestRoundData() returns (
            uint80, int256 answer, uint256 startedAt, uint256, uint80
        ) {
            if (answer != 0 || startedAt == 0 || startedAt >= type(uint40).max) {
                return (0, OracleGuard.SequencerDown.selector);
            }
            return (uint48(startedAt) + config.gracePeriod, 0);
        } catch {
            return (0, OracleGuard.SequencerDown.selector);
        }
    }
}
