// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title Keys that may do one thing
/// @notice Nonce lane 2 KEEPER. Signature of an operation: 0x02 || sessionId (32) || secp256k1 signature (65) over the signable
/// operation hash; trailing bytes rejected. The operation must be a single default-mode `execute` of `target`.`selector` with no value.
interface ISessionValidator {
    /// @param key the session's secp256k1 address.
    /// @param prefundBudget wei of required prefund that all operations of the session may cost the account together; operations a
    /// paymaster pays do not count. At most 2^80 - 1 (1.2 million ether). What a thief of the key can burn by bundling for himself is at most this.
    struct Session {
        address key;
        uint48 validAfter;
        uint48 validUntil;
        address target;
        bytes4 selector;
        uint128 prefundBudget;
    }

    event SessionEnabled(address indexed account, bytes32 indexed sessionId, Session session);
    event SessionRevoked(address indexed account, bytes32 indexed sessionId);

    /// @notice keccak256(abi.encode(session)).
    function sessionIdOf(Session calldata session) external pure returns (bytes32);

    /// @notice Enable a session for the calling account. Reverts for a target that is the account, the entry point or, unless the
    /// selector is `IGuard.execute` or `IGuard.touch`, one of the account's modules. onInstall data: empty or abi.encode(Session[]).
    function enableSession(Session calldata session) external returns (bytes32 sessionId);

    /// @notice Revoke at once. Called by the account.
    function revokeSession(bytes32 sessionId) external;

    function sessionOf(address account, bytes32 sessionId)
        external
        view
        returns (Session memory session, uint128 prefundSpent);
}
