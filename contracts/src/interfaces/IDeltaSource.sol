// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title What a venue's option positions gain from a rise of the underlying
interface IDeltaSource {
    /// @notice Sum over the account's open positions of size times delta (base units, 1e18; positive gains from a rise) with the underlying at
    /// `price` (quote per base, 1e18), by the venue's own formula and volatilities. Reverts when it cannot be told.
    function delta(address account, uint256 price) external view returns (int256);
}
