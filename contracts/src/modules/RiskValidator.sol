// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Execution, IERC7579Validator} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IAttestedValidator} from "../interfaces/IAttestedValidator.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {UserOpLib} from "../libraries/UserOpLib.sol";
import {ValidatorSettings} from "./validator/ValidatorSettings.sol";

/// @title Owner signature and policy-engine attestation
/// @notice An operation needs the owner's signature *and* attestations by enough engines that the policy in force allows it. Neither alone
/// moves anything: engines cannot act without the owner, and the owner without engines has the escape, which anyone sees coming.
/// `REQUIRE_SIGNERS` decisions also need the approvals of every quorum they name.
/// @dev Validation reads storage associated with the account only (account innermost, fixed-size values), reads no clock and writes
/// nothing. It answers SIG_VALIDATION_FAILED where it can and checks everything even after a failure, so that gas can be estimated with a
/// signature that has only the right shape.
contract RiskValidator is ValidatorSettings, IERC7579Validator, IAttestedValidator {
    using UserOpLib for PackedUserOperation;

    /// What all attestations of one operation must agree with, and the window they leave.
    /// @dev The first twelve words are what an attestation's struct hash is taken over, where they lie (`_isAttested`).
    /// @param approved signers are asked for: `intent` is what they must have
    /// signed, and `quorums` what the first attestation says of them.
    /// @param opens and `closes` (seconds): when all attestations and approvals hold.
    struct Claim {
        bytes32 typehash;
        address account;
        address entryPoint;
        bytes32 hash;
        bytes32 intentHash;
        bytes32 policyId;
        uint256 policyEpoch;
        bytes32 factsHash;
        uint256 decision;
        bytes32 quorumId;
        uint256 validAfter;
        uint256 validUntil;
        bool approved;
        bytes32 intent;
        bytes32 quorums;
        bool ok;
        uint256 opens;
        uint256 closes;
    }

    bytes32 private constant ATTESTATION_TYPEHASH = keccak256(
        "Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,"
        "bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)"
    );
    bytes32 private constant APPROVAL_TYPEHASH = keccak256(
        "SignerApproval(address account,address entryPoint,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,uint48 validUntil)"
    );
    bytes32 private constant MERKLE_ROOT_TYPEHASH = keccak256("MerkleRoot(bytes32 root)");
    bytes32 private constant MERKLE_DOMAIN_SEPARATOR = keccak256(
        abi.encode(
            keccak256("EIP712Domain(string name,string version)"), keccak256("Seawall RiskValidator"), keccak256("1")
        )
    );

    bytes4 private constant ENTRY_POINT_SELECTOR = bytes4(keccak256("entryPoint()"));
    uint8 private constant TYPE_ATTESTED = 0x01;
    uint8 private constant TYPE_ESCAPE = 0x03;
    uint8 private constant TYPE_QUORUM = 0x04;
    uint256 private constant ATTESTATION_LENGTH = 20 + 32 + 32 + 1 + 32 + 6 + 6 + 65;
    /// With its length before it.
    uint256 private constant ENTRY_LENGTH = 2 + ATTESTATION_LENGTH;
    uint256 private constant APPROVAL_LENGTH = 20 + 6 + 65;
    uint256 private constant MAX_PROOF = 32;
    uint256 private constant MAX_QUORUMS = 8;
    uint48 private constant FOREVER = type(uint48).max >> 1;

    /// @inheritdoc IAttestedValidator
    function requiresAttestation() external pure returns (bool) {
        return true;
    }

    // ------------------------------------------------------------------ validation

    /// @inheritdoc IERC7579Validator
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash) external view returns (uint256) {
        return _validate(userOp, userOpHash, address(0), address(0));
    }

    /// @inheritdoc IAttestedValidator
    function validateAttested(
        PackedUserOperation calldata userOp,
        bytes32 userOpHash,
        address entryPoint,
        address owner
    ) external view returns (uint256) {
        return _validate(userOp, userOpHash, entryPoint, owner);
    }

    /// @inheritdoc IERC7579Validator
    /// @notice A message needs the same envelope as an operation; its attestations name the message hash and no entry point. There is no
    /// escape for messages.
    function isValidSignatureWithSender(address, bytes32 hash, bytes calldata signature)
        external
        view
        returns (bytes4)
    {
        if (signature.length == 0) return bytes4(0xffffffff);
        uint8 kind = uint8(signature[0]);
        if (kind != TYPE_ATTESTED && kind != TYPE_QUORUM) return bytes4(0xffffffff);
        Claim memory claim = _attested(address(0), hash, hash, address(0), signature);
        bool inTime = block.timestamp >= claim.opens && block.timestamp <= claim.closes;
        return claim.ok && inTime ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }

    /// @param entryPoint of the account, zero: ask it. @param owner its secp256k1 owner, zero: ask it.
    function _validate(PackedUserOperation calldata userOp, bytes32 hash, address entryPoint, address owner)
        private
        view
        returns (uint256)
    {
        bytes calldata signature = userOp.signature;
        if (userOp.sender != msg.sender || signature.length == 0) return ERC4337Utils.SIG_VALIDATION_FAILED;
        (uint8 lane, uint8 kind) = (userOp.laneOf(), uint8(signature[0]));
        if (lane == UserOpLib.LANE_ATTESTED && (kind == TYPE_ATTESTED || kind == TYPE_QUORUM)) {
            if (entryPoint == address(0)) entryPoint = _entryPointOf(msg.sender);
            // Zero is what the attestations of messages name.
            if (entryPoint == address(0)) return ERC4337Utils.SIG_VALIDATION_FAILED;
            bytes32 intent = kind == TYPE_QUORUM ? userOp.intentHash() : bytes32(0);
            Claim memory claim = _attested(entryPoint, hash, intent, owner, signature);
            // As ERC4337Utils.packValidationData: both times have 48 bits.
            return claim.opens << 208 | claim.closes << 160 | (claim.ok ? 0 : ERC4337Utils.SIG_VALIDATION_FAILED);
        }
        if (lane == UserOpLib.LANE_ESCAPE && kind == TYPE_ESCAPE) {
            return _escape(userOp, hash, signature);
        }
        return ERC4337Utils.SIG_VALIDATION_FAILED;
    }

    /// @dev Check the envelope of the caller, whose version byte is one of the two. `intent` matters to approvals only.
    function _attested(address entryPoint, bytes32 hash, bytes32 intent, address owner, bytes calldata envelope)
        private
        view
        returns (Claim memory claim)
    {
        unchecked {
            // Positions only grow, whatever is read behind the end: one comparison at the end of the parts tells.
            (uint256 at, uint256 end) = _bounds(envelope);
            bool approved = _word(at) >> 248 == TYPE_QUORUM;
            bytes calldata ownerSignature = _slice(at + 3, _word(at + 1) >> 240);
            at += 3 + ownerSignature.length;
            uint256 count = _word(at) >> 248;
            uint256 entry = at + 1;
            at = entry + count * ENTRY_LENGTH;
            uint256 words = _word(at) >> 248;
            bytes calldata proof = _slice(at + 1, 32 * words);
            at += 1 + proof.length;
            Config storage config = _configs[msg.sender];
            Head memory head = config.head;
            if (words > MAX_PROOF || (approved ? at > end : at != end) || !head.installed) return claim;
            claim.typehash = ATTESTATION_TYPEHASH;
            (claim.entryPoint, claim.hash) = (entryPoint, hash);
            (claim.account, claim.policyId, claim.policyEpoch) = (msg.sender, config.policyId, head.policyEpoch);
            (claim.approved, claim.intent, claim.closes) = (approved, intent, FOREVER);
            bool ok = count >= head.threshold;
            address last = address(0);
            for (uint256 i = 0; i < count; ++i) {
                if (_word(entry) >> 240 != ATTESTATION_LENGTH) return claim;
                address engine = address(uint160(_word(entry + 2) >> 96));
                bool enabled = engine == head.firstEngine || _engineEnabled(config, msg.sender, engine);
                if (approved && i == 0) claim.quorums = bytes32(_word(entry + 87));
                if (!_isAttested(claim, engine, entry + 22) || !enabled || engine <= last) ok = false;
                (last, entry) = (engine, entry + ENTRY_LENGTH);
            }
            bytes32 signedHash = words == 0 ? hash : _rootDigest(claim, proof);
            bool signed = !head.ownKeys && owner != address(0)
                ? OwnerLib.isValidEcdsa(owner, signedHash, ownerSignature)
                : _isOwnerSignature(config, msg.sender, signedHash, ownerSignature);
            claim.ok = signed && ok;
            if (approved) _checkApprovals(config, claim, _slice(at, end - at));
        }
    }

    /// @dev Whether `engine` signed the attestation whose fields stand at `at`, behind its name; narrows the claim's window.
    function _isAttested(Claim memory claim, address engine, uint256 at) private view returns (bool) {
        bytes32 structHash;
        // Of keccak256(abi.encode(ATTESTATION_TYPEHASH, account, entryPoint, hash, intentHash, policyId, policyEpoch, factsHash, decision,
        // quorumId, validAfter, validUntil)) the claim holds what all attestations share; what this one says lies as intentHash (32), factsHash
        // (32), decision (1), quorumId (32), validAfter (6), validUntil (6), signature (65). A fuzz test compares.
        assembly ("memory-safe") {
            mstore(add(claim, 0x80), calldataload(at))
            mstore(add(claim, 0xe0), calldataload(add(at, 32)))
            mstore(add(claim, 0x100), byte(0, calldataload(add(at, 64))))
            mstore(add(claim, 0x120), calldataload(add(at, 65)))
            let times := calldataload(add(at, 97))
            mstore(add(claim, 0x140), shr(208, times))
            mstore(add(claim, 0x160), and(shr(160, times), 0xffffffffffff))
            structHash := keccak256(claim, 0x180)
        }
        (uint256 validAfter, uint256 validUntil) = (claim.validAfter, claim.validUntil);
        if (validAfter > claim.opens) claim.opens = validAfter;
        if (validUntil != 0 && validUntil < claim.closes) claim.closes = validUntil;
        // The top bit would make a time a block number on entry point v0.9.
        if ((validAfter | validUntil) & ERC4337Utils.BLOCK_RANGE_FLAG != 0) return false;
        bytes calldata signature = _slice(at + 109, 65);
        if (!OwnerLib.isValidEcdsa(engine, _hashTypedDataV4(structHash), signature)) return false;
        if (!claim.approved) return claim.decision == uint8(Decision.ALLOW);
        return claim.decision == uint8(Decision.REQUIRE_SIGNERS) && claim.quorumId == claim.quorums
            && claim.intentHash == claim.intent;
    }

    /// @dev Fail the claim unless every quorum it names is satisfied by approvals of its intent, and narrow its window by theirs.
    function _checkApprovals(Config storage config, Claim memory claim, bytes calldata rest) private view {
        uint256 quorums = rest.length == 0 ? 0 : uint8(rest[0]);
        if (quorums == 0 || quorums > MAX_QUORUMS || rest.length < 2 + 32 * quorums) {
            claim.ok = false;
            return;
        }
        bytes calldata ids = rest[1:1 + 32 * quorums];
        uint256 count = uint8(rest[1 + 32 * quorums]);
        rest = rest[2 + 32 * quorums:];
        if (rest.length != count * APPROVAL_LENGTH) {
            claim.ok = false;
            return;
        }
        if (claim.quorums != (quorums == 1 ? bytes32(ids) : keccak256(ids))) claim.ok = false;
        address[] memory signers = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            signers[i] = _checkApproval(claim, rest[i * APPROVAL_LENGTH:(i + 1) * APPROVAL_LENGTH]);
            if (signers[i] <= (i == 0 ? address(0) : signers[i - 1])) claim.ok = false;
        }
        bytes32 last = 0;
        for (uint256 i = 0; i < quorums; ++i) {
            bytes32 id = bytes32(ids[32 * i:32 * i + 32]);
            if (id <= last || !_satisfied(config, claim.account, id, signers)) claim.ok = false;
            last = id;
        }
    }

    /// @dev The signer of one approval; fails the claim when the signature is not its.
    function _checkApproval(Claim memory claim, bytes calldata approval) private view returns (address signer) {
        signer = address(bytes20(approval));
        uint48 validUntil = uint48(bytes6(approval[20:26]));
        bytes32 structHash = keccak256(
            abi.encode(
                APPROVAL_TYPEHASH,
                claim.account,
                claim.entryPoint,
                claim.intent,
                claim.policyId,
                claim.policyEpoch,
                validUntil
            )
        );
        bool signed = OwnerLib.isValidEcdsa(signer, _hashTypedDataV4(structHash), approval[26:]);
        if (!signed || validUntil & ERC4337Utils.BLOCK_RANGE_FLAG != 0) claim.ok = false;
        if (validUntil != 0 && validUntil < claim.closes) claim.closes = validUntil;
    }

    /// @dev What the owner signed when there is a Merkle proof.
    function _rootDigest(Claim memory claim, bytes calldata proof) private view returns (bytes32) {
        bytes32 node = keccak256(abi.encode(block.chainid, claim.entryPoint, address(this), claim.hash));
        for (uint256 i = 0; i < proof.length; i += 32) {
            node = Hashes.commutativeKeccak256(node, bytes32(proof[i:i + 32]));
        }
        return
            MessageHashUtils.toTypedDataHash(MERKLE_DOMAIN_SEPARATOR, keccak256(abi.encode(MERKLE_ROOT_TYPEHASH, node)));
    }

    /// @dev The owner alone: declared exits once the escape is announced, anything when its delay is over.
    function _escape(PackedUserOperation calldata userOp, bytes32 hash, bytes calldata envelope)
        private
        view
        returns (uint256)
    {
        Config storage config = _configs[msg.sender];
        (uint256 at, uint256 end) = _bounds(envelope);
        bytes calldata ownerSignature = _slice(at + 3, _word(at + 1) >> 240);
        uint48 openAt = config.escapeOpenAt;
        if (at + 3 + ownerSignature.length != end || openAt == 0 || !config.head.installed) {
            return ERC4337Utils.SIG_VALIDATION_FAILED;
        }
        bool signed = _isOwnerSignature(config, msg.sender, hash, ownerSignature);
        uint48 validAfter = _onlyExits(msg.sender, userOp.callData) ? 0 : openAt;
        return ERC4337Utils.packValidationData(signed, validAfter, 0);
    }

    /// @dev Whether every call of the operation is a declared exit of the account.
    function _onlyExits(address account, bytes calldata callData) private view returns (bool) {
        (bool canonical, bytes32 mode, bytes calldata executionCalldata) = UserOpLib.decodeExecute(callData);
        address authority = _authorityOf(account);
        if (!canonical || authority == address(0) || authority.code.length == 0) return false;
        uint8 callType = uint8(mode[0]);
        if (callType == 0) {
            if (executionCalldata.length < 52) return false;
            return IEmergencyFreeze(authority)
                .permits(
                    account,
                    RiskState.REDUCE_ONLY,
                    address(bytes20(executionCalldata[0:20])),
                    uint256(bytes32(executionCalldata[20:52])),
                    executionCalldata[52:]
                );
        }
        if (callType != 1) return false;
        Execution[] memory calls = abi.decode(executionCalldata, (Execution[]));
        for (uint256 i = 0; i < calls.length; ++i) {
            bool permitted = IEmergencyFreeze(authority)
                .permits(account, RiskState.REDUCE_ONLY, calls[i].target, calls[i].value, calls[i].callData);
            if (!permitted) return false;
        }
        return calls.length != 0;
    }

    // ------------------------------------------------------------------ inside

    /// @dev Where `data` begins and ends in the call data.
    function _bounds(bytes calldata data) private pure returns (uint256 begin, uint256 end) {
        assembly ("memory-safe") {
            begin := data.offset
            end := add(begin, data.length)
        }
    }

    /// @dev The 32 bytes of call data at `at`; zeros behind its end.
    function _word(uint256 at) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := calldataload(at)
        }
    }

    function _slice(uint256 at, uint256 length) private pure returns (bytes calldata slice) {
        assembly ("memory-safe") {
            slice.offset := at
            slice.length := length
        }
    }

    /// @dev Zero when the account does not say.
    function _entryPointOf(address account) private view returns (address) {
        return _addressFrom(account, ENTRY_POINT_SELECTOR);
    }

    /// @dev Zero when the account keeps no risk state of its own.
    function _authorityOf(address account) private view returns (address) {
        return _addressFrom(account, IRiskState.riskAuthority.selector);
    }

    function _addressFrom(address account, bytes4 question) private view returns (address answer) {
        assembly ("memory-safe") {
            mstore(0x00, question)
            let success := staticcall(gas(), account, 0x00, 0x04, 0x00, 0x20)
            answer := mul(and(success, eq(returndatasize(), 0x20)), shr(96, shl(96, mload(0x00))))
        }
    }
}
