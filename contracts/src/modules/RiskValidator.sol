// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {
    Execution,
    IERC7579Module,
    IERC7579Validator,
    MODULE_TYPE_VALIDATOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IAttestedValidator} from "../interfaces/IAttestedValidator.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";
import {IRiskValidator} from "../interfaces/IRiskValidator.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {UserOpLib} from "../libraries/UserOpLib.sol";

/// @title Owner signature and policy-engine attestation
/// @notice An operation needs the owner's signature *and* attestations by enough engines that the policy in force allows it. Neither alone
/// moves anything: engines cannot act without the owner, and the owner without engines has the escape, which anyone sees coming.
/// `REQUIRE_SIGNERS` decisions also need the approvals of every quorum they name.
/// @dev Validation reads storage associated with the account only (account innermost, fixed-size values), reads no clock and writes
/// nothing. It answers SIG_VALIDATION_FAILED where it can and checks everything even after a failure, so that gas can be estimated with a
/// signature that has only the right shape.
contract RiskValidator is IRiskValidator, IERC7579Validator, IAttestedValidator, EIP712 {
    using UserOpLib for PackedUserOperation;

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    /// The account does not answer `isOwnerSignature`: name the owner in the install data.
    error OwnerRequired();
    error OwnerKeyTooLong(uint256 length);
    error InvalidEngine(address engine);
    error InvalidThreshold(uint8 threshold, uint8 engines);
    error InvalidQuorum(bytes32 quorumId);
    error InvalidDelay();
    error InvalidOwnerSignature();
    error Expired(uint48 expiry);
    error EscapeUnderWay(uint48 openAt);
    error NoEscape();

    /// @param firstEngine the engine that was enabled first (zero: disabled since); any others are in `_engines`. An operation with its
    /// attestation reads the first two slots and nothing else of this module.
    /// @param policyEpoch never falls, not even over installations. @param escapeNonce likewise.
    /// @param ownKeys the account's owner is kept here (foreign account), else the account is asked.
    /// @param generation of the installation; engines carry it, so that none survives an uninstallation.
    struct Config {
        address firstEngine;
        uint64 policyEpoch;
        uint8 threshold;
        bool installed;
        bool ownKeys;
        bytes32 policyId;
        uint64 generation;
        uint48 escapeDelay;
        uint48 escapeOpenAt;
        uint64 escapeNonce;
        uint8 engines;
        uint8 ownerKind;
        uint8 ownerKeyLength;
        address owner;
        bytes32[4] ownerKey;
    }

    /// @param generation of the installation that registered it. @param version names its seats and never falls, so that a seat of an earlier
    /// registration stays empty.
    struct QuorumState {
        uint64 generation;
        uint64 version;
        uint8 threshold;
        uint8 signers;
    }

    /// What all attestations of one operation must agree with, and the window they leave. `firstEngine`, `policyId` and `policyEpoch` are
    /// the configuration's, read once.
    /// @param decision and `quorumId` are what each attestation must say; the first one says which quorums are asked.
    struct Claim {
        address account;
        address entryPoint;
        bytes32 hash;
        bytes32 intentHash;
        bytes32 quorumId;
        bytes32 policyId;
        uint64 policyEpoch;
        address firstEngine;
        Decision decision;
        bool ok;
        uint48 validAfter;
        uint48 validUntil;
    }

    bytes32 private constant ATTESTATION_TYPEHASH = keccak256(
        "Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,"
        "bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)"
    );
    bytes32 private constant APPROVAL_TYPEHASH = keccak256(
        "SignerApproval(address account,address entryPoint,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,uint48 validUntil)"
    );
    bytes32 private constant MERKLE_ROOT_TYPEHASH = keccak256("MerkleRoot(bytes32 root)");
    bytes32 private constant ESCAPE_TYPEHASH = keccak256("Escape(address account,uint256 nonce,uint48 expiry)");
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
    uint256 private constant APPROVAL_LENGTH = 20 + 6 + 65;
    uint256 private constant MAX_PROOF = 32;
    uint256 private constant MAX_QUORUMS = 8;
    uint48 private constant FOREVER = type(uint48).max >> 1;

    mapping(address account => Config) private _configs;
    mapping(address engine => mapping(address account => uint64 generation)) private _engines;

    mapping(bytes32 quorumId => mapping(address account => QuorumState)) private _quorums;
    mapping(bytes32 seat => mapping(address account => bool taken)) private _seats;

    constructor() EIP712("Seawall RiskValidator", "1") {}

    modifier onlyInstalled() {
        if (!_configs[msg.sender].installed) revert NotInstalled(msg.sender);
        _;
    }

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Config storage config = _configs[msg.sender];
        if (config.installed) revert AlreadyInstalled(msg.sender);
        InstallData memory init = abi.decode(data, (InstallData));
        config.installed = true;
        ++config.generation;
        _setEscapeDelay(config, init.escapeDelay);
        config.escapeOpenAt = 0;
        (config.engines, config.firstEngine) = (0, address(0));
        for (uint256 i = 0; i < init.engines.length; ++i) {
            _setEngine(config, init.engines[i], true);
        }
        _setThreshold(config, init.threshold);
        for (uint256 i = 0; i < init.quorums.length; ++i) {
            _setQuorum(config, init.quorums[i]);
        }
        _setPolicy(config, init.policyId);
        _setOwner(config, init.owner);
    }

    /// @inheritdoc IERC7579Module
    function onUninstall(bytes calldata) external onlyInstalled {
        _configs[msg.sender].installed = false;
        _configs[msg.sender].escapeOpenAt = 0;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_VALIDATOR;
    }

    /// @inheritdoc IAttestedValidator
    function requiresAttestation() external pure returns (bool) {
        return true;
    }

    // ------------------------------------------------------------------ settings

    /// @inheritdoc IRiskValidator
    function setPolicy(bytes32 policyId) external onlyInstalled {
        _setPolicy(_configs[msg.sender], policyId);
    }

    /// @inheritdoc IRiskValidator
    function setEngine(address engine, bool enabled) external onlyInstalled {
        Config storage config = _configs[msg.sender];
        _setEngine(config, engine, enabled);
        if (config.threshold > config.engines) revert InvalidThreshold(config.threshold, config.engines);
    }

    /// @inheritdoc IRiskValidator
    function setThreshold(uint8 threshold) external onlyInstalled {
        _setThreshold(_configs[msg.sender], threshold);
    }

    /// @inheritdoc IRiskValidator
    function setEscapeDelay(uint48 delay) external onlyInstalled {
        _setEscapeDelay(_configs[msg.sender], delay);
    }

    /// @inheritdoc IRiskValidator
    function setQuorum(Quorum calldata quorum) external onlyInstalled {
        _setQuorum(_configs[msg.sender], quorum);
    }

    // ------------------------------------------------------------------ escape

    /// @inheritdoc IRiskValidator
    function startEscape(address account, uint48 expiry, bytes calldata ownerSignature) external {
        Config storage config = _configs[account];
        if (!config.installed) revert NotInstalled(account);
        if (block.timestamp > expiry) revert Expired(expiry);
        if (config.escapeOpenAt != 0) revert EscapeUnderWay(config.escapeOpenAt);
        bytes32 structHash = keccak256(abi.encode(ESCAPE_TYPEHASH, account, uint256(config.escapeNonce), expiry));
        if (!_isOwnerSignature(config, account, _hashTypedDataV4(structHash), ownerSignature)) {
            revert InvalidOwnerSignature();
        }
        ++config.escapeNonce;
        uint48 openAt = uint48(block.timestamp) + config.escapeDelay;
        config.escapeOpenAt = openAt;
        emit EscapeStarted(account, openAt);
    }

    /// @inheritdoc IRiskValidator
    function cancelEscape() external onlyInstalled {
        if (_configs[msg.sender].escapeOpenAt == 0) revert NoEscape();
        _configs[msg.sender].escapeOpenAt = 0;
        emit EscapeCancelled(msg.sender);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IRiskValidator
    function policyOf(address account) external view returns (bytes32 policyId, uint64 policyEpoch) {
        Config storage config = _configs[account];
        return (config.policyId, config.policyEpoch);
    }

    /// @inheritdoc IRiskValidator
    function engineEnabled(address account, address engine) external view returns (bool) {
        return _engineEnabled(_configs[account], account, engine);
    }

    /// @inheritdoc IRiskValidator
    function thresholdOf(address account) external view returns (uint8) {
        return _configs[account].threshold;
    }

    /// @inheritdoc IRiskValidator
    function escapeDelayOf(address account) external view returns (uint48) {
        return _configs[account].escapeDelay;
    }

    /// @inheritdoc IRiskValidator
    function quorumOf(address account, bytes32 quorumId) external view returns (uint8 threshold, uint8 signers) {
        QuorumState storage state = _quorums[quorumId][account];
        if (!_inForce(_configs[account], state)) return (0, 0);
        return (state.threshold, state.signers);
    }

    /// @inheritdoc IRiskValidator
    function isSigner(address account, bytes32 quorumId, address signer) external view returns (bool) {
        QuorumState storage state = _quorums[quorumId][account];
        return _inForce(_configs[account], state) && _seats[_seat(quorumId, state.version, signer)][account];
    }

    /// @inheritdoc IRiskValidator
    function escapeOpenAt(address account) external view returns (uint48) {
        return _configs[account].escapeOpenAt;
    }

    /// @inheritdoc IRiskValidator
    function escapeNonce(address account) external view returns (uint256) {
        return _configs[account].escapeNonce;
    }

    /// @notice The EIP-712 domain separator of attestations and escapes on this chain.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // ------------------------------------------------------------------ validation

    /// @inheritdoc IERC7579Validator
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash) external view returns (uint256) {
        bytes calldata signature = userOp.signature;
        if (userOp.sender != msg.sender || signature.length == 0) return ERC4337Utils.SIG_VALIDATION_FAILED;
        (uint8 lane, uint8 kind) = (userOp.laneOf(), uint8(signature[0]));
        if (lane == UserOpLib.LANE_ATTESTED && (kind == TYPE_ATTESTED || kind == TYPE_QUORUM)) {
            address entryPoint = _entryPointOf(msg.sender);
            // Zero is what the attestations of messages name.
            if (entryPoint == address(0)) return ERC4337Utils.SIG_VALIDATION_FAILED;
            bytes32 intentHash = kind == TYPE_QUORUM ? userOp.intentHash() : bytes32(0);
            Claim memory claim = _attested(msg.sender, entryPoint, userOpHash, intentHash, signature);
            return ERC4337Utils.packValidationData(claim.ok, claim.validAfter, claim.validUntil);
        }
        if (lane == UserOpLib.LANE_ESCAPE && kind == TYPE_ESCAPE) return _escape(userOp, userOpHash, signature[1:]);
        return ERC4337Utils.SIG_VALIDATION_FAILED;
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
        Claim memory claim = _attested(msg.sender, address(0), hash, hash, signature);
        bool inTime = block.timestamp >= claim.validAfter && block.timestamp <= claim.validUntil;
        return claim.ok && inTime ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }

    /// @dev Check the envelope, whose version byte is one of the two. `intentHash` matters to approvals only.
    function _attested(address account, address entryPoint, bytes32 hash, bytes32 intentHash, bytes calldata rest)
        private
        view
        returns (Claim memory claim)
    {
        bool approved = uint8(rest[0]) == TYPE_QUORUM;
        claim.account = account;
        claim.entryPoint = entryPoint;
        claim.hash = hash;
        claim.intentHash = intentHash;
        claim.decision = approved ? Decision.REQUIRE_SIGNERS : Decision.ALLOW;
        claim.ok = true;
        claim.validUntil = FOREVER;
        rest = rest[1:];
        Config storage config = _configs[account];
        bool shaped;
        bytes calldata ownerSignature;
        (shaped, ownerSignature, rest) = _prefixed(rest);
        if (!shaped || !config.installed) return _failed(claim);
        (claim.firstEngine, claim.policyEpoch, claim.policyId) =
        (config.firstEngine, config.policyEpoch, config.policyId);

        if (rest.length == 0) return _failed(claim);
        uint256 count = uint8(rest[0]);
        rest = rest[1:];
        if (count < config.threshold) claim.ok = false;
        address last = address(0);
        for (uint256 i = 0; i < count; ++i) {
            bytes calldata attestation;
            (shaped, attestation, rest) = _prefixed(rest);
            if (!shaped || attestation.length != ATTESTATION_LENGTH) return _failed(claim);
            address engine = address(bytes20(attestation));
            bool enabled = engine == claim.firstEngine || _engineEnabled(config, account, engine);
            if (engine <= last || !enabled) claim.ok = false;
            last = engine;
            if (approved) _checkQuorumNamed(claim, i == 0, attestation);
            _checkAttestation(claim, engine, attestation);
        }

        if (rest.length == 0) return _failed(claim);
        count = uint8(rest[0]);
        rest = rest[1:];
        if (count > MAX_PROOF || rest.length < count * 32) return _failed(claim);
        if (!approved && rest.length != count * 32) return _failed(claim);
        bytes32 signedHash = count == 0 ? hash : _rootDigest(claim, count, rest);
        if (!_isOwnerSignature(config, account, signedHash, ownerSignature)) claim.ok = false;
        if (approved) _checkApprovals(config, claim, rest[count * 32:]);
    }

    /// @dev Every attestation must speak of this intent and ask the same quorums.
    function _checkQuorumNamed(Claim memory claim, bool first, bytes calldata attestation) private pure {
        bytes32 quorumId = bytes32(attestation[85:117]);
        if (first) claim.quorumId = quorumId;
        if (quorumId != claim.quorumId || bytes32(attestation[20:52]) != claim.intentHash) claim.ok = false;
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
        if (claim.quorumId != (quorums == 1 ? bytes32(ids) : keccak256(ids))) claim.ok = false;
        address[] memory signers = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            signers[i] = _checkApproval(config, claim, rest[i * APPROVAL_LENGTH:(i + 1) * APPROVAL_LENGTH]);
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
    function _checkApproval(Config storage config, Claim memory claim, bytes calldata approval)
        private
        view
        returns (address signer)
    {
        signer = address(bytes20(approval));
        uint48 validUntil = uint48(bytes6(approval[20:26]));
        bytes32 structHash = keccak256(
            abi.encode(
                APPROVAL_TYPEHASH,
                claim.account,
                claim.entryPoint,
                claim.intentHash,
                config.policyId,
                config.policyEpoch,
                validUntil
            )
        );
        bool signed = OwnerLib.isValidEcdsa(signer, _hashTypedDataV4(structHash), approval[26:]);
        if (!signed || validUntil & ERC4337Utils.BLOCK_RANGE_FLAG != 0) claim.ok = false;
        if (validUntil != 0 && validUntil < claim.validUntil) claim.validUntil = validUntil;
    }

    /// @dev Whether enough of `signers`, who are distinct, have a seat in the quorum.
    function _satisfied(Config storage config, address account, bytes32 id, address[] memory signers)
        private
        view
        returns (bool)
    {
        QuorumState storage state = _quorums[id][account];
        (uint64 version, uint256 needed) = (state.version, state.threshold);
        if (!_inForce(config, state)) return false;
        for (uint256 i = 0; i < signers.length && needed != 0; ++i) {
            if (_seats[_seat(id, version, signers[i])][account]) --needed;
        }
        return needed == 0;
    }

    /// @dev Narrow the claim's window by one attestation (of `ATTESTATION_LENGTH` bytes) and fail it when it is not an engine's permission.
    function _checkAttestation(Claim memory claim, address engine, bytes calldata attestation) private view {
        bytes32 structHash;
        uint256 decision;
        uint48 validAfter;
        uint48 validUntil;
        bytes calldata signature;
        bytes32 typehash = ATTESTATION_TYPEHASH;
        // keccak256(abi.encode(ATTESTATION_TYPEHASH, account, entryPoint, hash, intentHash, policyId, policyEpoch, factsHash, decision, quorumId,
        // validAfter, validUntil)), with what the attestation says read where it lies: engine (20), intentHash (32), factsHash (32), decision
        // (1), quorumId (32), validAfter (6), validUntil (6), signature (65). A fuzz test compares.
        assembly ("memory-safe") {
            let at := mload(0x40)
            let from := attestation.offset
            decision := byte(0, calldataload(add(from, 84)))
            validAfter := shr(208, calldataload(add(from, 117)))
            validUntil := shr(208, calldataload(add(from, 123)))
            signature.offset := add(from, 129)
            signature.length := 65
            mstore(at, typehash)
            mcopy(add(at, 0x20), claim, 0x60) // account, entryPoint, hash
            mstore(add(at, 0x80), calldataload(add(from, 20)))
            mcopy(add(at, 0xa0), add(claim, 0xa0), 0x40) // policyId, policyEpoch
            mstore(add(at, 0xe0), calldataload(add(from, 52)))
            mstore(add(at, 0x100), decision)
            mstore(add(at, 0x120), calldataload(add(from, 85)))
            mstore(add(at, 0x140), validAfter)
            mstore(add(at, 0x160), validUntil)
            structHash := keccak256(at, 0x180)
        }
        bool signed = OwnerLib.isValidEcdsa(engine, _hashTypedDataV4(structHash), signature);
        // The top bit would make a time a block number on entry point v0.9.
        bool timed = (validAfter | validUntil) & ERC4337Utils.BLOCK_RANGE_FLAG == 0;
        if (!signed || !timed || decision != uint8(claim.decision)) claim.ok = false;
        if (validUntil == 0) validUntil = FOREVER;
        if (validAfter > claim.validAfter) claim.validAfter = validAfter;
        if (validUntil < claim.validUntil) claim.validUntil = validUntil;
    }

    /// @dev What the owner signed when a Merkle proof of `count` words is given.
    function _rootDigest(Claim memory claim, uint256 count, bytes calldata words) private view returns (bytes32) {
        bytes32[] memory proof = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            proof[i] = bytes32(words[i * 32:i * 32 + 32]);
        }
        bytes32 leaf = keccak256(abi.encode(block.chainid, claim.entryPoint, address(this), claim.hash));
        bytes32 root = MerkleProof.processProof(proof, leaf);
        return
            MessageHashUtils.toTypedDataHash(MERKLE_DOMAIN_SEPARATOR, keccak256(abi.encode(MERKLE_ROOT_TYPEHASH, root)));
    }

    /// @dev The owner alone: declared exits once the escape is announced, anything when its delay is over.
    function _escape(PackedUserOperation calldata userOp, bytes32 hash, bytes calldata rest)
        private
        view
        returns (uint256)
    {
        Config storage config = _configs[msg.sender];
        (bool shaped, bytes calldata ownerSignature, bytes calldata trailing) = _prefixed(rest);
        uint48 openAt = config.escapeOpenAt;
        if (!shaped || trailing.length != 0 || openAt == 0 || !config.installed) {
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

    /// @dev Split `uint16 length || bytes` off the front.
    function _prefixed(bytes calldata data) private pure returns (bool ok, bytes calldata head, bytes calldata tail) {
        (head, tail) = (data, data);
        assembly ("memory-safe") {
            let length := shr(240, calldataload(data.offset))
            ok := iszero(or(lt(data.length, 2), lt(data.length, add(length, 2))))
            if iszero(ok) { length := 0 }
            head.offset := add(data.offset, 2)
            head.length := length
            tail.offset := add(head.offset, length)
            tail.length := mul(ok, sub(data.length, add(length, 2)))
        }
    }

    function _failed(Claim memory claim) private pure returns (Claim memory) {
        claim.ok = false;
        return claim;
    }

    function _isOwnerSignature(Config storage config, address account, bytes32 hash, bytes calldata signature)
        private
        view
        returns (bool)
    {
        if (!config.ownKeys) return _askAccount(account, hash, signature);
        (uint8 kind, address owner) = (config.ownerKind, config.owner);
        if (kind == OwnerLib.KIND_ECDSA) return OwnerLib.isValidEcdsa(owner, hash, signature);
        bytes memory key = abi.encodePacked(config.ownerKey);
        uint256 length = config.ownerKeyLength;
        assembly ("memory-safe") {
            mstore(key, length) // 128 bytes were read; the key is the first `length` of them
        }
        return OwnerLib.isValid(kind, owner, key, hash, signature);
    }

    /// @dev `IRiskAccount(account).isOwnerSignature(hash, signature)`, false when it reverts.
    function _askAccount(address account, bytes32 hash, bytes calldata signature) private view returns (bool answer) {
        bytes4 selector = IRiskAccount.isOwnerSignature.selector;
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, selector)
            mstore(add(at, 0x04), hash)
            mstore(add(at, 0x24), 0x40)
            mstore(add(at, 0x44), signature.length)
            calldatacopy(add(at, 0x64), signature.offset, signature.length)
            let success := staticcall(gas(), account, at, add(0x64, signature.length), 0x00, 0x20)
            answer := and(success, and(eq(returndatasize(), 0x20), eq(mload(0x00), 1)))
        }
    }

    function _engineEnabled(Config storage config, address account, address engine) private view returns (bool) {
        if (engine != address(0) && engine == config.firstEngine) return config.installed;
        uint64 generation = _engines[engine][account];
        return generation != 0 && generation == config.generation && config.installed;
    }

    function _setEngine(Config storage config, address engine, bool enabled) private {
        if (engine == address(0) || _engineEnabled(config, msg.sender, engine) == enabled) {
            revert InvalidEngine(engine);
        }
        if (enabled && config.engines == 0) {
            config.firstEngine = engine;
        } else if (engine == config.firstEngine) {
            config.firstEngine = address(0);
        } else {
            _engines[engine][msg.sender] = enabled ? config.generation : 0;
        }
        config.engines = enabled ? config.engines + 1 : config.engines - 1;
        emit EngineSet(msg.sender, engine, enabled);
    }

    function _setThreshold(Config storage config, uint8 threshold) private {
        if (threshold == 0 || threshold > config.engines) revert InvalidThreshold(threshold, config.engines);
        config.threshold = threshold;
        emit ThresholdSet(msg.sender, threshold);
    }

    /// @dev Without a delay the owner alone could act at once, and the attestation would protect nothing.
    function _setEscapeDelay(Config storage config, uint48 delay) private {
        if (delay == 0) revert InvalidDelay();
        config.escapeDelay = delay;
        emit EscapeDelaySet(msg.sender, delay);
    }

    function _setQuorum(Config storage config, Quorum memory quorum) private {
        (bytes32 id, uint256 count) = (quorum.id, quorum.signers.length);
        bool removed = quorum.threshold == 0 && count == 0;
        bool sound = quorum.threshold != 0 && quorum.threshold <= count && count <= type(uint8).max;
        if (id == 0 || !(removed || sound)) revert InvalidQuorum(id);
        QuorumState storage state = _quorums[id][msg.sender];
        (state.generation, state.version) = (config.generation, state.version + 1);
        (state.threshold, state.signers) = (quorum.threshold, uint8(count));
        address last = address(0);
        for (uint256 i = 0; i < count; ++i) {
            address signer = quorum.signers[i];
            if (signer <= last) revert InvalidQuorum(id);
            _seats[_seat(id, state.version, signer)][msg.sender] = true;
            last = signer;
        }
        emit QuorumSet(msg.sender, id, quorum.threshold, quorum.signers);
    }

    function _inForce(Config storage config, QuorumState storage state) private view returns (bool) {
        return config.installed && state.threshold != 0 && state.generation == config.generation;
    }

    function _seat(bytes32 id, uint64 version, address signer) private pure returns (bytes32) {
        return keccak256(abi.encode(id, version, signer));
    }

    function _setPolicy(Config storage config, bytes32 policyId) private {
        config.policyId = policyId;
        emit PolicySet(msg.sender, policyId, ++config.policyEpoch);
    }

    function _setOwner(Config storage config, bytes memory owner) private {
        config.ownKeys = owner.length != 0;
        if (owner.length == 0) {
            (bool success, bytes memory answer) =
                msg.sender.staticcall(abi.encodeCall(IRiskAccount.isOwnerSignature, (bytes32(0), "")));
            if (!success || answer.length != 32) revert OwnerRequired();
            return;
        }
        (uint8 kind, address signer, bytes memory key) = OwnerLib.decode(owner);
        if (key.length > 128) revert OwnerKeyTooLong(key.length);
        (config.ownerKind, config.owner, config.ownerKeyLength) = (kind, signer, uint8(key.length));
        for (uint256 i = 0; i < 4; ++i) {
            bytes32 word = 0;
            if (key.length > 32 * i) {
                assembly ("memory-safe") {
                    word := mload(add(add(key, 0x20), mul(i, 0x20))) // what lies behind the key's end is cut off by its length
                }
            }
            config.ownerKey[i] = word;
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
