// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {OracleConfig} from "../interfaces/IStopLoss.sol";

/// @dev The part of a Chainlink aggregator that we read.
interface IPriceFeed {
    function decimals() external view returns (uint8);
    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound);
}

/// @title One price feed and everything it is held against
/// @notice Every guard reads prices through here. A problem is told by the selector of its error, so that a caller can decide whether it
/// denies (risk-increasing) or goes on with another source (structurally reducing).
library OracleGuard {
    /// The feed reverted, is incomplete, answers zero or less, or comes from the future.
    error FeedInvalid();
    /// Older than its heartbeat.
    error FeedStale();
    /// Outside [minPrice, maxPrice].
    error FeedOutOfBounds();
    /// The L2 sequencer is down, or its feed cannot be read.
    error SequencerDown();
    /// The L2 sequencer came back less than `gracePeriod` ago.
    error SequencerGrace();

    uint256 internal constant BPS = 10_000;

    /// @notice The feed's price (1e18) when it passes every check, else the selector of the error that says which it failed.
    function read(OracleConfig memory config) internal view returns (uint256 price, bytes4 problem) {
        problem = _sequencerProblem(config);
        if (problem != 0) return (0, problem);
        try IPriceFeed(config.feed).latestRoundData() returns (
            uint80 roundId, int256 answer, uint256, uint256 updatedAt, uint80 answeredInRound
        ) {
            bool complete = answer > 0 && updatedAt != 0 && updatedAt <= block.timestamp && answeredInRound >= roundId;
            if (!complete) return (0, FeedInvalid.selector);
            if (block.timestamp - updatedAt > config.heartbeat) return (0, FeedStale.selector);
            if (uint256(answer) > type(uint128).max) return (0, FeedOutOfBounds.selector);
            price = toWad(uint256(answer), IPriceFeed(config.feed).decimals());
        } catch {
            return (0, FeedInvalid.selector);
        }
        if (price < config.minPrice || price > config.maxPrice) return (0, FeedOutOfBounds.selector);
    }

    /// @notice Distance of two prices in basis points of the first, rounded up.
    function deviationBps(uint256 price, uint256 other) internal pure returns (uint256) {
        uint256 distance = price > other ? price - other : other - price;
        return (distance * BPS + price - 1) / price;
    }

    function _sequencerProblem(OracleConfig memory config) private view returns (bytes4) {
        if (config.sequencerFeed == address(0)) return 0;
        try IPriceFeed(config.sequencerFeed).latestRoundData() returns (
            uint80, int256 answer, uint256 startedAt, uint256, uint80
        ) {
            if (answer != 0 || startedAt == 0 || startedAt > block.timestamp) return SequencerDown.selector;
            return block.timestamp - startedAt < config.gracePeriod ? SequencerGrace.selector : bytes4(0);
        } catch {
            return SequencerDown.selector;
        }
    }

    /// @notice An answer of a feed with `decimals` as 1e18; rounded down.
    function toWad(uint256 answer, uint8 decimals) internal pure returns (uint256) {
        return decimals <= 18 ? answer * 10 ** (18 - decimals) : answer / 10 ** (decimals - 18);
    }
}
