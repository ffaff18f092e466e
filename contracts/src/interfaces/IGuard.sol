// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title A module that acts on an account when a condition on chain says so
/// @notice The chain decides whether a trigger is due; the caller only says "look now". A session key may call a guard's
/// `execute` and nothing else of it.
interface IGuard {
    /// Whether a trigger could be executed now, and if not, why and whether trying again can help.
    enum Due {
        NOT_DUE, // armed; the condition does not hold
        DUE, // execute would proceed
        BLOCKED, // the condition holds but a guard (stale feed, sequencer, deviation, cool-down) says wait: retry
        FINAL // never again: unknown, fired, cancelled or expired
    }

    /// @notice Emitted once per trigger and arming when the last part of it has been executed.
    event GuardFired(address indexed account, uint256 indexed id, uint256 arming, address caller);

    /// @notice Execute trigger `id` of `account` if it is due. The account itself may call at once, anyone else after the
    /// trigger's public delay. Reverts with a typed error that says whether to retry (`Due`).
    function execute(address account, uint256 id) external;

    /// @notice Record that the trigger is due (or no longer is). Starts the public delay and the widening of the slippage bound.
    /// Anyone may call; changes nothing else.
    function touch(address account, uint256 id) external;

    /// @notice What `execute` would do now; `reason` is the selector of the error it would revert with, else 0.
    function due(address account, uint256 id) external view returns (Due status, bytes4 reason);
}
