// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {OracleConfig} from "../interfaces/IStopLoss.sol";
import {IPriceFeed, OracleGuard} from "./OracleGuard.sol";

/// @dev The rest of a Chainlink aggregator that we read.
interface IRoundFeed {
    function getRoundData(uint80 roundId)
        external
        view
        returns (uint80 id, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound);
}

/// @title The best price a feed has shown since a trailing stop was armed, by proof of its rounds
/// @notice Anyone names rounds; what they say is read from the feed itself. A round counts when it began after the arming, passes the checks of the
/// stop's oracle, and was the feed's own at its time: of the phase (upper 16 bits of a round's id: the aggregator behind the proxy) in which the
/// feed was seen, not before it was first seen there. The order of proofs does not matter, so that nobody can make a better round unprovable by
/// proving a later one. Whoever withholds rounds leaves the mark where it is: it never falls back, and never moves on a price that was not shown.
library TrailingMark {
    /// Not after the arming, or of a phase in which the feed was not seen yet (its newest round opens one).
    error RoundRefused(uint80 roundId);
    /// The round, or the feed now, does not pass. The selector is one of `OracleGuard`.
    error RoundProblem(uint80 roundId, bytes4 problem);

    /// @param price best price proven, 1e18; the price it starts from at first. @param since unix seconds of the arming.
    /// @param first the first round known of the phase in which the feed was seen last; 0: not seen yet.
    struct Mark {
        uint128 price;
        uint48 since;
        uint80 first;
    }

    /// @dev Start anew. `feed` zero: nobody is asked, and the first proof must be of the newest round.
    function begin(Mark storage mark, uint128 price, address feed) internal {
        (mark.price, mark.since, mark.first) = (price, uint48(block.timestamp), 0);
        if (feed == address(0)) return;
        try IPriceFeed(feed).latestRoundData() returns (uint80 newest, int256, uint256, uint256, uint80) {
            mark.first = newest;
        } catch {}
    }

    /// @dev Take a round into account; `rising` marks go up. Returns whether the mark moved.
    function prove(Mark storage mark, OracleConfig memory oracle, bool rising, uint80 roundId)
        internal
        returns (bool moved)
    {
        (, bytes4 problem) = OracleGuard.read(oracle);
        if (problem != 0) revert RoundProblem(roundId, problem);
        _admit(mark, oracle.feed, roundId);
        uint256 updatedAt;
        uint256 price;
        (price, updatedAt, problem) = _read(oracle, roundId);
        if (problem != 0) revert RoundProblem(roundId, problem);
        if (updatedAt <= mark.since) revert RoundRefused(roundId);
        moved = rising ? price > mark.price : price < mark.price;
        if (moved) mark.price = uint128(price); // within the oracle's bounds, which are uint128
    }

    /// @dev mark -/+ distance, never later than exact. `trailBps` of the mark, or `trail` in its own unit.
    function trigger(Mark storage mark, uint128 trail, uint16 trailBps, bool rising) internal view returns (uint256) {
        uint256 price = mark.price;
        uint256 distance = trailBps == 0 ? trail : price * trailBps / OracleGuard.BPS;
        return rising ? price - distance : price + distance;
    }

    /// @dev The newest round opens its phase; any other must be of the phase that is open.
    function _admit(Mark storage mark, address feed, uint80 roundId) private {
        (uint80 newest,,,,) = IPriceFeed(feed).latestRoundData();
        uint80 first = mark.first;
        bool open = first != 0 && roundId >> 64 == first >> 64;
        if (!open && roundId == newest) mark.first = newest;
        else if (!open || roundId < first) revert RoundRefused(roundId);
    }

    function _read(OracleConfig memory oracle, uint80 roundId)
        private
        view
        returns (uint256 price, uint256 updatedAt, bytes4 problem)
    {
        int256 answer;
        uint80 answeredIn;
        try IRoundFeed(oracle.feed).getRoundData(roundId) returns (
            uint80 id, int256 answer_, uint256, uint256 updatedAt_, uint80 answeredIn_
        ) {
            if (id != roundId) return (0, 0, OracleGuard.FeedInvalid.selector);
            (answer, updatedAt, answeredIn) = (answer_, updatedAt_, answeredIn_);
        } catch {
            return (0, 0, OracleGuard.FeedInvalid.selector);
        }
        bool complete = answer > 0 && updatedAt != 0 && updatedAt <= block.timestamp && answeredIn >= roundId;
        if (!complete) return (0, 0, OracleGuard.FeedInvalid.selector);
        if (_inGrace(oracle, updatedAt)) return (0, 0, OracleGuard.SequencerGrace.selector);
        if (uint256(answer) > type(uint128).max) return (0, 0, OracleGuard.FeedOutOfBounds.selector);
        price = OracleGuard.toWad(uint256(answer), IPriceFeed(oracle.feed).decimals());
        if (price < oracle.minPrice || price > oracle.maxPrice) return (0, 0, OracleGuard.FeedOutOfBounds.selector);
    }

    /// @dev Whether the sequencer had just come back; the feed's newest status is the last time that it did.
    function _inGrace(OracleConfig memory oracle, uint256 updatedAt) private view returns (bool) {
        if (oracle.sequencerFeed == address(0)) return false;
        (,, uint256 startedAt,,) = IPriceFeed(oracle.sequencerFeed).latestRoundData();
        return updatedAt >= startedAt && updatedAt < startedAt + oracle.gracePeriod;
    }
}
