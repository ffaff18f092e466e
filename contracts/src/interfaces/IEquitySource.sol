// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title What an account is worth at one venue
interface IEquitySource {
    /// @notice What `account` would keep of the venue after paying what it owes there (1e18 = one unit of the oracles' quote currency), at prices
    /// that one trade or one loan cannot set. Negative when it owes more than it has. Reverts when it cannot be told, in the middle of a
    /// call of the venue too.
    function equity(address account) external view returns (int256);
}
