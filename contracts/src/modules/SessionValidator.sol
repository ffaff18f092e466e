// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {
    IERC7579Module,
    IERC7579ModuleConfig,
    IERC7579Validator,
    MODULE_TYPE_EXECUTOR,
    MODULE_TYPE_FALLBACK,
    MODULE_TYPE_HOOK,
    MODULE_TYPE_VALIDATOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {ISessionValidator} from "../interfaces/ISessionValidator.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {UserOpLib} from "../libraries/UserOpLib.sol";

/// @title Keys that may do one thing
/// @notice A session key signs operations that call one function of one target with no value, inside a time window, and that cost the
/// account at most a budget of required prefund in total. Signatures of the account (ERC-1271) it cannot give.
/// @dev Writes, during validation, only what the session has spent: storage associated with the account (ERC-7562 [STO-021]).
/// The account is the innermost key of every mapping.
contract SessionValidator is ISessionValidator, IERC7579Validator {
    using UserOpLib for PackedUserOperation;

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error SessionUnknown(bytes32 sessionId);
    error SessionAlreadyEnabled(bytes32 sessionId);
    error InvalidSession();
    /// The account, an entry point, this module, or a module of the account other than a guard's `execute` or `touch`.
    error ForbiddenTarget(address target, bytes4 selector);

    uint8 private constant SIGNATURE_TYPE = 0x02;
    uint256 private constant SIGNATURE_LENGTH = 1 + 32 + 65;

    /// What a session's view needs and its validation does not: `Terms`, and the signature's recovery of the key, give the session id, which
    /// commits to all of it.
    struct Detail {
        address key;
        address target;
        bytes4 selector;
    }

    /// The one slot that a validation reads and writes.
    struct Terms {
        uint48 validAfter;
        uint48 validUntil;
        uint80 prefundBudget;
        uint80 prefundSpent;
    }

    /// @param generation grows with every installation, and is part of the place of a session's terms.
    struct Installation {
        uint64 generation;
        bool installed;
    }

    mapping(address account => Installation) private _installations;
    mapping(bytes32 idAndGeneration => mapping(address account => Terms)) private _terms;
    mapping(bytes32 sessionId => mapping(address account => Detail)) private _details;

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Installation storage installation = _installations[msg.sender];
        if (installation.installed) revert AlreadyInstalled(msg.sender);
        (installation.installed, installation.generation) = (true, installation.generation + 1);
        if (data.length == 0) return;
        Session[] memory sessions = abi.decode(data, (Session[]));
        for (uint256 i = 0; i < sessions.length; ++i) {
            _enable(sessions[i], installation.generation);
        }
    }

    /// @inheritdoc IERC7579Module
    /// @dev Every session dies with the installation.
    function onUninstall(bytes calldata) external {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _installations[msg.sender].installed = false;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_VALIDATOR;
    }

    // ------------------------------------------------------------------ sessions

    /// @inheritdoc ISessionValidator
    function sessionIdOf(Session memory session) public pure returns (bytes32) {
        return keccak256(abi.encode(session));
    }

    /// @inheritdoc ISessionValidator
    function enableSession(Session calldata session) external returns (bytes32 sessionId) {
        Installation memory installation = _installations[msg.sender];
        if (!installation.installed) revert NotInstalled(msg.sender);
        return _enable(session, installation.generation);
    }

    /// @inheritdoc ISessionValidator
    function revokeSession(bytes32 sessionId) external {
        Terms storage terms = _termsOf(sessionId, msg.sender);
        if (terms.validUntil == 0) revert SessionUnknown(sessionId);
        terms.validUntil = 0;
        (terms.validAfter, terms.prefundBudget, terms.prefundSpent) = (0, 0, 0);
        delete _details[sessionId][msg.sender];
        emit SessionRevoked(msg.sender, sessionId);
    }

    /// @inheritdoc ISessionValidator
    function sessionOf(address account, bytes32 sessionId)
        external
        view
        returns (Session memory session, uint128 prefundSpent)
    {
        Terms memory terms = _termsOf(sessionId, account);
        if (terms.validUntil == 0) return (session, 0);
        Detail memory detail = _details[sessionId][account];
        session = Session({
            key: detail.key,
            validAfter: terms.validAfter,
            validUntil: terms.validUntil,
            target: detail.target,
            selector: detail.selector,
            prefundBudget: terms.prefundBudget
        });
        prefundSpent = terms.prefundSpent;
    }

    // ------------------------------------------------------------------ validation

    /// @inheritdoc IERC7579Validator
    /// @dev Fails, never reverts, so that gas can be estimated with a signature that has only the right shape; for the same reason the
    /// budget is charged before the signature is known to be right (the entry point undoes it together with the operation).
    /// The session id is the hash of all terms. So the operation's own target and selector, the key that its signature recovers to, and the
    /// stored times and budget are the session's if and only if they hash to the id: one slot is enough.
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash) external returns (uint256) {
        bytes calldata signature = userOp.signature;
        bool shaped = userOp.sender == msg.sender && userOp.laneOf() == UserOpLib.LANE_KEEPER
            && signature.length == SIGNATURE_LENGTH && uint8(signature[0]) == SIGNATURE_TYPE;
        if (!shaped) return ERC4337Utils.SIG_VALIDATION_FAILED;
        bytes32 id;
        bytes calldata ecdsa;
        assembly ("memory-safe") {
            id := calldataload(add(signature.offset, 1))
            ecdsa.offset := add(signature.offset, 33)
            ecdsa.length := 65
        }

        (bool single, address target, bytes4 selector) = _sessionCall(userOp.callData);
        Terms storage place = _termsOf(id, msg.sender);
        Terms memory terms = place;
        if (!single || terms.validUntil == 0) return ERC4337Utils.SIG_VALIDATION_FAILED;
        if (userOp.paymasterAndData.length == 0 || ERC4337Utils.paymaster(userOp) == address(0)) {
            uint256 spent = terms.prefundSpent + userOp.requiredPrefund();
            if (spent > terms.prefundBudget) return ERC4337Utils.SIG_VALIDATION_FAILED;
            place.prefundSpent = uint80(spent);
        }
        address key = OwnerLib.recover(userOpHash, ecdsa);
        bytes32 actual =
            keccak256(abi.encode(key, terms.validAfter, terms.validUntil, target, selector, terms.prefundBudget));
        bool signed = key != address(0) && actual == id;
        return (signed ? 0 : ERC4337Utils.SIG_VALIDATION_FAILED) | uint256(terms.validUntil) << 160
            | uint256(terms.validAfter) << 208;
    }

    /// @inheritdoc IERC7579Validator
    /// @notice A session never signs messages.
    function isValidSignatureWithSender(address, bytes32, bytes calldata) external pure returns (bytes4) {
        return bytes4(0xffffffff);
    }

    // ------------------------------------------------------------------ inside

    /// @dev Target and selector when `callData` is, canonically encoded, a single default-mode `execute` of a call without value.
    function _sessionCall(bytes calldata callData) private pure returns (bool ok, address target, bytes4 selector) {
        bytes32 mode;
        bytes calldata call;
        (ok, mode, call) = UserOpLib.decodeExecute(callData);
        if (!ok || mode != bytes32(0) || call.length < 56) return (false, target, selector);
        uint256 value;
        assembly ("memory-safe") {
            target := shr(96, calldataload(call.offset))
            value := calldataload(add(call.offset, 20))
            selector := and(calldataload(add(call.offset, 52)), shl(224, 0xffffffff))
        }
        ok = value == 0;
    }

    /// @dev Where the terms of a session of the present installation are; of none when there is no installation.
    function _termsOf(bytes32 sessionId, address account) private view returns (Terms storage) {
        Installation memory installation = _installations[account];
        return _termsAt(sessionId, installation.installed ? installation.generation : 0, account);
    }

    function _termsAt(bytes32 sessionId, uint256 generation, address account) private view returns (Terms storage) {
        bytes32 key;
        assembly ("memory-safe") {
            mstore(0x00, sessionId)
            mstore(0x20, generation)
            key := keccak256(0x00, 0x40)
        }
        return _terms[key][account];
    }

    function _enable(Session memory session, uint64 generation) private returns (bytes32 sessionId) {
        bool sound = session.key != address(0) && session.validUntil > session.validAfter
            && (session.validUntil | session.validAfter) & ERC4337Utils.BLOCK_RANGE_FLAG == 0
            && session.prefundBudget <= type(uint80).max;
        if (!sound) revert InvalidSession();
        _checkTarget(session.target, session.selector);
        sessionId = sessionIdOf(session);
        Terms storage terms = _termsAt(sessionId, generation, msg.sender);
        if (terms.validUntil != 0) revert SessionAlreadyEnabled(sessionId);
        (terms.validAfter, terms.validUntil) = (session.validAfter, session.validUntil);
        (terms.prefundBudget, terms.prefundSpent) = (uint80(session.prefundBudget), 0);
        _details[sessionId][msg.sender] = Detail(session.key, session.target, session.selector);
        emit SessionEnabled(msg.sender, sessionId, session);
    }

    function _checkTarget(address target, bytes4 selector) private view {
        address account = msg.sender;
        bool forbidden = target == address(0) || target == account || target == address(this)
            || target == address(ERC4337Utils.ENTRYPOINT_V07) || target == address(ERC4337Utils.ENTRYPOINT_V08)
            || target == address(ERC4337Utils.ENTRYPOINT_V09) || target == _entryPointOf(account);
        if (!forbidden && selector != IGuard.execute.selector && selector != IGuard.touch.selector) {
            forbidden = _isModule(account, target);
        }
        if (forbidden) revert ForbiddenTarget(target, selector);
    }

    /// @dev Zero when the account does not say.
    function _entryPointOf(address account) private view returns (address) {
        (bool success, bytes memory answer) = account.staticcall(abi.encodeWithSignature("entryPoint()"));
        return success && answer.length == 32 ? address(uint160(uint256(bytes32(answer)))) : address(0);
    }

    function _isModule(address account, address target) private view returns (bool) {
        IERC7579ModuleConfig config = IERC7579ModuleConfig(account);
        return config.isModuleInstalled(MODULE_TYPE_VALIDATOR, target, "")
            || config.isModuleInstalled(MODULE_TYPE_EXECUTOR, target, "")
            || config.isModuleInstalled(MODULE_TYPE_FALLBACK, target, "")
            || config.isModuleInstalled(MODULE_TYPE_HOOK, target, "");
    }
}
