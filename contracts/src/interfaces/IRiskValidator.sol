// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title Owner signature and policy-engine attestation
/// @notice Validates operations in two nonce lanes (first byte of the 4-byte lane): 1 ATTESTED, 3 ESCAPE.
///
/// Signature of an operation (big-endian, trailing bytes rejected):
///   0x01                                   version 1, attested
///   uint16 length, owner signature          over the signable operation hash (or the Merkle root, when a proof follows)
///   uint8 n, n x (uint16 length, attestation)
///   uint8 m, m x bytes32                    Merkle proof; m = 0 when the operation itself is signed
/// attestation = engine (20) || intentHash (32) || factsHash (32) || decision (1) || quorumId (32) || validAfter (6) ||
///   validUntil (6) || signature (65, secp256k1). Engines in strictly ascending order; `threshold` of them are needed.
///
/// EIP-712 domain ("Seawall RiskValidator", "1", chainId, this module):
///   Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,
///   bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)
/// `userOpHash` here and in Merkle leaves is the hash the account hands to its validator: the entry point's own on v0.8 and v0.9, the
/// EIP-712 wrap of it on v0.7. A Merkle leaf is keccak256(abi.encode(chainid, entryPoint, this module, userOpHash)), pairs are sorted,
/// and the owner signs MerkleRoot(bytes32 root) under the domain ("Seawall RiskValidator", "1") without chain id and contract.
/// `policyId` and `policyEpoch` are those the account stores here, so an attestation dies with its policy.
///
/// A decision REQUIRE_SIGNERS is valid only with the approvals of the quorum it names, in an envelope of its own:
///   0x04 || what follows 0x01 above || uint8 q, q x bytes32 quorum id || uint8 k, k x (signer (20) || validUntil (6) || signature (65))
/// `quorumId` of every attestation is the id itself when q = 1, else keccak256 of the ids one after the other, ascending. Signers stand in
/// strictly ascending order and sign, under the module's domain,
///   SignerApproval(address account,address entryPoint,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,uint48 validUntil)
/// Each counts towards every named quorum in which it has a seat. `intentHash` is what the operation itself hashes to (UserOpLib.intentHash;
/// of a message its hash), so that approvals may be gathered before the paymaster has spoken, and bind everything else.
///
/// Escape: 0x03 || uint16 length || owner signature. Valid only for declared exits until the announced delay is over,
/// and only once the escape was announced. The exits are those of the account's `riskAuthority()`; an account without one has none.
///
/// ERC-1271 (through the account, ACTIVE only): the same 0x01 envelope, where the attestation's `userOpHash` is the ERC-7739
/// hash and `entryPoint` is zero.
interface IRiskValidator {
    enum Decision {
        DENY,
        ALLOW,
        REQUIRE_SIGNERS
    }

    struct Policy {
        bytes32 policyId;
        uint64 policyEpoch;
    }

    /// onInstall data: abi.encode(InstallData).
    /// @param owner empty: the account answers `isOwnerSignature` (RiskAccount); else the signer in `AccountConfig.owner`'s encoding
    /// (foreign accounts; at most 128 bytes of key).
    struct InstallData {
        bytes owner;
        address[] engines;
        uint8 threshold;
        uint48 escapeDelay;
        bytes32 policyId;
        Quorum[] quorums;
    }

    /// `threshold` of `signers` (strictly ascending, at most 255) satisfy the quorum.
    struct Quorum {
        bytes32 id;
        uint8 threshold;
        address[] signers;
    }

    event EngineSet(address indexed account, address indexed engine, bool enabled);
    event EscapeDelaySet(address indexed account, uint48 delay);
    event ThresholdSet(address indexed account, uint8 threshold);
    event QuorumSet(address indexed account, bytes32 indexed quorumId, uint8 threshold, address[] signers);
    event PolicySet(address indexed account, bytes32 indexed policyId, uint64 policyEpoch);
    event EscapeStarted(address indexed account, uint48 openAt);
    event EscapeCancelled(address indexed account);

    /// @notice The policy that attestations must name.
    function policyOf(address account) external view returns (bytes32 policyId, uint64 policyEpoch);

    function engineEnabled(address account, address engine) external view returns (bool);
    function thresholdOf(address account) external view returns (uint8);

    /// @notice Change the policy in force; the epoch grows by one and older attestations die. Called by the account.
    function setPolicy(bytes32 policyId) external;

    function setEngine(address engine, bool enabled) external;
    function setThreshold(uint8 threshold) external;

    /// @notice Seconds between announcing an escape and its opening, above 0; one that is under way keeps its time.
    function setEscapeDelay(uint48 delay) external;
    function escapeDelayOf(address account) external view returns (uint48);

    /// @notice Register a quorum, replace it whole, or (threshold 0, no signers) remove it. Called by the account.
    function setQuorum(Quorum calldata quorum) external;

    /// @notice How many of how many must approve; zeros when there is no such quorum.
    function quorumOf(address account, bytes32 quorumId) external view returns (uint8 threshold, uint8 signers);
    function isSigner(address account, bytes32 quorumId, address signer) external view returns (bool);

    /// @notice Announce the escape. The owner's signature over Escape(address account,uint256 nonce,uint48 expiry), relayed by anyone.
    function startEscape(address account, uint48 expiry, bytes calldata ownerSignature) external;

    /// @notice Withdraw it. Called by the account.
    function cancelEscape() external;

    /// @notice When owner-only operations become valid; 0 when no escape is under way.
    function escapeOpenAt(address account) external view returns (uint48);
    function escapeNonce(address account) external view returns (uint256);
}
