// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @dev What we call of a Chainlink-style feed.
interface IPriceFeed {
    function decimals() external view returns (uint8);
    function latestRoundData() external view returns (uint80, int256 answer, uint256, uint256 updatedAt, uint80);
}

/// @title A price feed, asked as Synthetix's ExchangeRates is
/// @notice For devnets, never for value. Lyra Avalon asks Synthetix for its spot price; Synthetix takes it from a Chainlink feed and calls
/// it invalid once the feed is older than its stale period. This does the same with the one feed that every venue of a devnet reads.
contract ReplayRates {
    error InvalidFeed(address feed, uint8 decimals);

    IPriceFeed public immutable feed;
    /// Name of the only synth that has a rate.
    bytes32 public immutable currencyKey;
    /// Seconds after which a rate is invalid.
    uint256 public immutable stalePeriod;
    uint256 private immutable _scale;

    constructor(address feed_, bytes32 currencyKey_, uint256 stalePeriod_) {
        feed = IPriceFeed(feed_);
        uint8 decimals = feed.decimals();
        if (decimals > 18) revert InvalidFeed(feed_, decimals);
        _scale = 10 ** (18 - decimals);
        currencyKey = currencyKey_;
        stalePeriod = stalePeriod_;
    }

    /// @notice US dollars per unit of the synth, 1e18 = one; 0 and invalid for any other synth.
    function rateAndInvalid(bytes32 key) external view returns (uint256 rate, bool invalid) {
        if (key != currencyKey) return (0, true);
        (, int256 answer,, uint256 updatedAt,) = feed.latestRoundData();
        if (answer <= 0) return (0, true);
        return (uint256(answer) * _scale, updatedAt + stalePeriod < block.timestamp);
    }
}
