// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title When a guard's condition began, and what time makes of it
/// @notice A condition is recorded by whoever looks at it while it holds. A record that nobody confirmed for `lapse` seconds starts anew, so
/// that an old dip neither opens the guard to the public nor has its slippage bound already widened.
library GuardClock {
    /// Unix seconds; 0: never.
    struct Clock {
        uint48 dueSince;
        uint48 confirmedAt;
        uint48 lastExecution;
    }

    /// @dev 0 when the condition is not recorded, or the record lapsed.
    function since(Clock storage clock, uint256 lapse) internal view returns (uint48) {
        return block.timestamp > uint256(clock.confirmedAt) + lapse ? 0 : clock.dueSince;
    }

    /// @dev Record that the condition holds now. Returns whether that is news.
    function confirm(Clock storage clock, uint256 lapse) internal returns (bool began) {
        began = since(clock, lapse) == 0;
        if (began) clock.dueSince = uint48(block.timestamp);
        clock.confirmedAt = uint48(block.timestamp);
    }

    /// @dev Record that it holds no more. Returns whether that is news.
    function clear(Clock storage clock) internal returns (bool ended) {
        ended = clock.dueSince != 0;
        (clock.dueSince, clock.confirmedAt) = (0, 0);
    }

    /// @dev first + (last - first) * t / span, at most last; t = seconds since `began`. Source: StopLoss.
    function widened(uint48 began, uint256 first, uint256 last, uint256 span) internal view returns (uint256) {
        uint256 elapsed = began == 0 ? 0 : block.timestamp - began;
        if (elapsed >= span) return span == 0 ? first : last;
        return first + (last - first) * elapsed / span;
    }
}
