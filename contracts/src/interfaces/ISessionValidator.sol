// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IPolicyHook} from "./IPolicyHook.sol";

/// @title Keys that may do one thing
/// @notice Nonce lane 2 KEEPER. The operation must be a single default-mode `execute` of `target`.`selector`. Its signature, whose last 65
/// bytes are the session key's over the signable operation hash, is one of
///
/// | | |
/// |---|---|
/// | a session without bounds | 0x02 || sessionId (32) || key's signature |
/// | one with bounds | 0x06 || sessionId (32) || from (6) || until (6) || bounds || key's signature |
/// | one that this operation enables | 0x07 || abi.encode(session) (256) || from (6) || until (6) || length of bounds (2) || bounds || approval || key's signature |
///
/// `from` and `until` (unix seconds) are when the operation is meant to be included. Validation may not look at the clock (ERC-7562 [OP-011]): both
/// must lie in one bucket of every window that the operation is charged to, and the entry point holds the operation to them.
/// Without native value, unless a condition of the alternative that holds is about it. Trailing bytes are rejected.
interface ISessionValidator {
    /// @param key the session's secp256k1 address.
    /// @param prefundBudget wei of required prefund that all operations of the session may cost the account together; operations a
    /// paymaster pays do not count. At most 2^80 - 1 (1.2 million ether). What a thief of the key can burn by bundling for himself is at most this.
    /// @param uses zero: any number of operations, in any lane of the keeper's kind, and what each costs is added up in storage. Otherwise so many
    /// over the life of the session's id, counted by the entry point: the lane is the first three bytes of the session id, its nonces end
    /// at `uses`, and each operation may cost `prefundBudget / uses`, so that validation writes nothing.
    /// @param bounds keccak256(abi.encode(Bounds)); zero for none.
    struct Session {
        address key;
        uint48 validAfter;
        uint48 validUntil;
        address target;
        bytes4 selector;
        uint128 prefundBudget;
        uint32 uses;
        bytes32 bounds;
    }

    /// What else a call must satisfy, in the language of `IPolicyHook`.
    /// @param rates every operation takes one of each (`asset` zero).
    /// @param allowances what conditions of kind ALLOWANCE take their argument from: `values[0]` is the index, at most once in an
    /// alternative (`asset` zero).
    /// @param anyOf no alternatives: any arguments. Otherwise all conditions of one of them must hold; the first that does is charged.
    struct Bounds {
        IPolicyHook.Window[] rates;
        IPolicyHook.Window[] allowances;
        IPolicyHook.Condition[][] anyOf;
    }

    /// @param bounds abi.encode(Bounds), or empty.
    event SessionEnabled(address indexed account, bytes32 indexed sessionId, Session session, bytes bounds);
    event SessionRevoked(address indexed account, bytes32 indexed sessionId);

    /// @notice keccak256(abi.encode(session)).
    function sessionIdOf(Session calldata session) external pure returns (bytes32);

    /// @notice Enable a session for the calling account. Reverts for a target that is the account, the entry point or, unless the
    /// selector is `IGuard.execute` or `IGuard.touch`, one of the account's modules. onInstall data: empty or abi.encode(Session[], bytes[]).
    /// A session that was revoked may be enabled again; its budget begins anew, its uses, rates and allowances go on.
    /// @param bounds abi.encode(Bounds) whose hash `session.bounds` is; empty when that is zero.
    function enableSession(Session calldata session, bytes calldata bounds) external returns (bytes32 sessionId);

    /// @notice Revoke at once, also a session that was approved and not used yet: no approval enables it from now on. Called by the account.
    function revokeSession(bytes32 sessionId) external;

    /// @notice After an account removed the module: anyone clears what it left, so that it can be installed again.
    function clearAbandoned(address account, bytes32[] calldata sessionIds) external;

    /// @notice What the owner of the account signs (EIP-712) to let an operation enable `session`: for a `RiskAccount` whose native owner path is open
    /// the owner's signature, for another account whatever its ERC-1271 answers to. It holds for this installation of the module.
    function approvalHash(address account, Session calldata session) external view returns (bytes32);

    /// @notice How many sessions of the account are enabled, those that ended included.
    function liveSessions(address account) external view returns (uint256);

    function sessionOf(address account, bytes32 sessionId)
        external
        view
        returns (Session memory session, uint128 prefundSpent);
}
