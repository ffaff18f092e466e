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

    /// @param generation of the installation in which the session was enabled.
    struct Entry {
        address key;
        uint48 validAfter;
        uint48 validUntil;
        address target;
        bytes4 selector;
        uint64 generation;
        uint128 prefundBudget;
        uint128 prefundSpent;
    }

    struct Installation {
        uint64 generation;
        bool installed;
    }

    mapping(address account => Installation) private _installations;
    mapping(bytes32 sessionId => mapping(address account => Entry)) private _sessions;

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
        Entry storage entry = _sessions[sessionId][msg.sender];
        if (!_alive(entry, msg.sender)) revert SessionUnknown(sessionId);
        delete _sessions[sessionId][msg.sender];
        emit SessionRevoked(msg.sender, sessionId);
    }

    /// @inheritdoc ISessionValidator
    function sessionOf(address account, bytes32 sessionId)
        external
        view
        returns (Session memory session, uint128 prefundSpent)
    {
        Entry storage entry = _sessions[sessionId][account];
        if (!_alive(entry, account)) return (session, 0);
        session = Session({
            key: entry.key,
            validAfter: entry.validAfter,
            validUntil: entry.validUntil,
            target: entry.target,
            selector: entry.selector,
            prefundBudget: entry.prefundBudget
        });
        prefundSpent = entry.prefundSpent;
    }

    // ------------------------------------------------------------------ validation

    /// @inheritdoc IERC7579Validator
    /// @dev Fails, never reverts, so that gas can be estimated with a signature that has only the right shape; for the same reason the
    /// budget is charged before the signature is known to be right (the entry point undoes it together with the operation).
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash) external returns (uint256) {
        bytes calldata signature = userOp.signature;
        bool shaped = userOp.sender == msg.sender && userOp.laneOf() == UserOpLib.LANE_KEEPER
            && signature.length == SIGNATURE_LENGTH && uint8(signature[0]) == SIGNATURE_TYPE;
        if (!shaped) return ERC4337Utils.SIG_VALIDATION_FAILED;

        Entry storage entry = _sessions[bytes32(signature[1:33])][msg.sender];
        if (!_alive(entry, msg.sender)) return ERC4337Utils.SIG_VALIDATION_FAILED;
        if (!_isSessionCall(userOp.callData, entry.target, entry.selector)) return ERC4337Utils.SIG_VALIDATION_FAILED;
        if (ERC4337Utils.paymaster(userOp) == address(0)) {
            uint256 spent = entry.prefundSpent + userOp.requiredPrefund();
            if (spent > entry.prefundBudget) return ERC4337Utils.SIG_VALIDATION_FAILED;
            entry.prefundSpent = uint128(spent);
        }
        bool signed = OwnerLib.isValidEcdsa(entry.key, userOpHash, signature[33:]);
        return ERC4337Utils.packValidationData(signed, entry.validAfter, entry.validUntil);
    }

    /// @inheritdoc IERC7579Validator
    /// @notice A session never signs messages.
    function isValidSignatureWithSender(address, bytes32, bytes calldata) external pure returns (bytes4) {
        return bytes4(0xffffffff);
    }

    // ------------------------------------------------------------------ inside

    /// @dev Whether `callData` is, canonically encoded, a single default-mode `execute` of `target`.`selector` without value.
    function _isSessionCall(bytes calldata callData, address target, bytes4 selector) private pure returns (bool) {
        (bool ok, bytes32 mode, bytes calldata call) = UserOpLib.decodeExecute(callData);
        return ok && mode == bytes32(0) && call.length >= 56 && address(bytes20(call[0:20])) == target
            && uint256(bytes32(call[20:52])) == 0 && bytes4(call[52:56]) == selector;
    }

    function _alive(Entry storage entry, address account) private view returns (bool) {
        Installation memory installation = _installations[account];
        return installation.installed && entry.key != address(0) && entry.generation == installation.generation;
    }

    function _enable(Session memory session, uint64 generation) private returns (bytes32 sessionId) {
        bool sound = session.key != address(0) && session.validUntil > session.validAfter
            && (session.validUntil | session.validAfter) & ERC4337Utils.BLOCK_RANGE_FLAG == 0;
        if (!sound) revert InvalidSession();
        _checkTarget(session.target, session.selector);
        sessionId = sessionIdOf(session);
        Entry storage entry = _sessions[sessionId][msg.sender];
        if (_alive(entry, msg.sender)) revert SessionAlreadyEnabled(sessionId);
        _sessions[sessionId][msg.sender] = Entry({
            key: session.key,
            validAfter: session.validAfter,
            validUntil: session.validUntil,
            target: session.target,
            selector: session.selector,
            generation: generation,
            prefundBudget: session.prefundBudget,
            prefundSpent: 0
        });
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
