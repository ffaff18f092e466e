// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Module, MODULE_TYPE_VALIDATOR} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IRiskAccount} from "../../interfaces/IRiskAccount.sol";
import {IRiskValidator} from "../../interfaces/IRiskValidator.sol";
import {OwnerLib} from "../../libraries/OwnerLib.sol";

/// @title What `RiskValidator` knows of each account: engines, threshold, policy in force, quorums, owner, escape
abstract contract ValidatorSettings is IRiskValidator, IERC7579Module, EIP712 {
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

    /// What every operation reads, in one slot.
    /// @param firstEngine the engine that was enabled first (zero: disabled since); any others are in `_engines`.
    /// @param policyEpoch never falls, not even over installations.
    /// @param ownKeys the account's owner is kept here (foreign account), else the account is asked.
    struct Head {
        address firstEngine;
        uint64 policyEpoch;
        uint8 threshold;
        bool installed;
        bool ownKeys;
    }

    /// An operation with the first engine's attestation reads `head` and `policyId` and nothing else of this module.
    /// @param generation of the installation; engines carry it, so that none survives an uninstallation.
    /// @param escapeNonce never falls, not even over installations.
    struct Config {
        Head head;
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

    bytes32 private constant ESCAPE_TYPEHASH = keccak256("Escape(address account,uint256 nonce,uint48 expiry)");

    mapping(address account => Config) internal _configs;
    mapping(address engine => mapping(address account => uint64 generation)) internal _engines;

    mapping(bytes32 quorumId => mapping(address account => QuorumState)) internal _quorums;
    mapping(bytes32 seat => mapping(address account => bool taken)) internal _seats;

    constructor() EIP712("Seawall RiskValidator", "1") {}

    modifier onlyInstalled() {
        if (!_configs[msg.sender].head.installed) revert NotInstalled(msg.sender);
        _;
    }

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Config storage config = _configs[msg.sender];
        if (config.head.installed) revert AlreadyInstalled(msg.sender);
        InstallData memory init = abi.decode(data, (InstallData));
        config.head.installed = true;
        ++config.generation;
        _setEscapeDelay(config, init.escapeDelay);
        config.escapeOpenAt = 0;
        (config.engines, config.head.firstEngine) = (0, address(0));
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
        _configs[msg.sender].head.installed = false;
        _configs[msg.sender].escapeOpenAt = 0;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_VALIDATOR;
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
        if (config.head.threshold > config.engines) revert InvalidThreshold(config.head.threshold, config.engines);
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
        if (!config.head.installed) revert NotInstalled(account);
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
        return (config.policyId, config.head.policyEpoch);
    }

    /// @inheritdoc IRiskValidator
    function engineEnabled(address account, address engine) external view returns (bool) {
        return _engineEnabled(_configs[account], account, engine);
    }

    /// @inheritdoc IRiskValidator
    function thresholdOf(address account) external view returns (uint8) {
        return _configs[account].head.threshold;
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

    // ------------------------------------------------------------------ inside

    function _isOwnerSignature(Config storage config, address account, bytes32 hash, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        if (!config.head.ownKeys) return _askAccount(account, hash, signature);
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

    /// @dev Whether enough of `signers`, who are distinct, have a seat in the quorum.
    function _satisfied(Config storage config, address account, bytes32 id, address[] memory signers)
        internal
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

    function _engineEnabled(Config storage config, address account, address engine) internal view returns (bool) {
        if (engine != address(0) && engine == config.head.firstEngine) return config.head.installed;
        uint64 generation = _engines[engine][account];
        return generation != 0 && generation == config.generation && config.head.installed;
    }

    function _setEngine(Config storage config, address engine, bool enabled) private {
        if (engine == address(0) || _engineEnabled(config, msg.sender, engine) == enabled) {
            revert InvalidEngine(engine);
        }
        if (enabled && config.engines == 0) {
            config.head.firstEngine = engine;
        } else if (engine == config.head.firstEngine) {
            config.head.firstEngine = address(0);
        } else {
            _engines[engine][msg.sender] = enabled ? config.generation : 0;
        }
        config.engines = enabled ? config.engines + 1 : config.engines - 1;
        emit EngineSet(msg.sender, engine, enabled);
    }

    function _setThreshold(Config storage config, uint8 threshold) private {
        if (threshold == 0 || threshold > config.engines) revert InvalidThreshold(threshold, config.engines);
        config.head.threshold = threshold;
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
        return config.head.installed && state.threshold != 0 && state.generation == config.generation;
    }

    function _seat(bytes32 id, uint64 version, address signer) private pure returns (bytes32) {
        return keccak256(abi.encode(id, version, signer));
    }

    function _setPolicy(Config storage config, bytes32 policyId) private {
        config.policyId = policyId;
        emit PolicySet(msg.sender, policyId, ++config.head.policyEpoch);
    }

    function _setOwner(Config storage config, bytes memory owner) private {
        config.head.ownKeys = owner.length != 0;
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
}
