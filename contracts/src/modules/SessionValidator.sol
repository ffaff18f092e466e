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
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {ERC165Checker} from "@openzeppelin/contracts/utils/introspection/ERC165Checker.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {RiskState} from "../interfaces/IRiskState.sol";
import {ISessionValidator} from "../interfaces/ISessionValidator.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {UserOpLib} from "../libraries/UserOpLib.sol";
import {SessionBounds} from "./session/SessionBounds.sol";

/// @title Keys that may do one thing
/// @notice A session key signs operations that call one function of one target, inside a time window, within what its bounds say of arguments,
/// amounts and rates, so many times, and that cost the account at most a budget of required prefund in total. Signatures of the account
/// (ERC-1271) it cannot give.
/// @dev Validation reads one slot of a session and writes only what the session counts itself: storage associated with the account (ERC-7562
/// [STO-021]), the account innermost in every mapping.
contract SessionValidator is SessionBounds, IERC7579Validator, EIP712 {
    using UserOpLib for PackedUserOperation;

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    /// Sessions of an earlier installation are still there: `clearAbandoned` them first.
    error SessionsLeft(address account, uint256 count);
    error SessionUnknown(bytes32 sessionId);
    error SessionAlreadyEnabled(bytes32 sessionId);
    error InvalidSession();
    /// The account, an entry point, this module, or a module of the account other than a guard's `execute` or `touch`.
    error ForbiddenTarget(address target, bytes4 selector);

    uint8 private constant TYPE_PLAIN = 0x02;
    uint8 private constant TYPE_BOUNDED = 0x06;
    uint8 private constant TYPE_ENABLING = 0x07;
    uint256 private constant KEY_SIGNATURE = 65;
    uint256 private constant PLAIN_LENGTH = 1 + 32 + KEY_SIGNATURE;
    uint256 private constant BOUNDED_HEAD = 1 + 32 + 12;
    uint256 private constant ENABLING_HEAD = 1 + 256 + 12 + 2;

    bytes32 private constant ENABLE_TYPEHASH = keccak256(
        "EnableSession(address account,uint256 installation,address key,uint48 validAfter,uint48 validUntil,address target,"
        "bytes4 selector,uint128 prefundBudget,uint32 uses,bytes32 bounds)"
    );

    // The one slot of a session, from the low end: validAfter 47 | COUNTED 1 | validUntil 48 | prefundBudget 80 | spent, or uses, 80.
    /// The number of uses stands where else stands what was spent.
    uint256 private constant COUNTED = 1 << 47;
    /// Not enabled, and no approval enables it.
    uint256 private constant REVOKED = 1;
    uint256 private constant TIME_MASK = (1 << 47) - 1;

    /// What a session's view needs and its validation does not: the slot above, and the signature's recovery of the key, give the session id,
    /// which commits to all of it.
    struct Detail {
        address key;
        address target;
        bytes4 selector;
        bytes32 bounds;
    }

    /// @param generation grows with every installation. @param live sessions enabled and not revoked.
    struct Installation {
        uint64 generation;
        uint64 live;
        bool installed;
    }

    mapping(address account => Installation) private _installations;
    mapping(bytes32 sessionId => mapping(address account => uint256)) private _terms;
    mapping(bytes32 sessionId => mapping(address account => Detail)) private _details;

    constructor() EIP712("Seawall SessionValidator", "1") {}

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    /// @dev Refused while sessions of an earlier installation are left, so that none of them outlives it and validation need not ask.
    function onInstall(bytes calldata data) external {
        Installation storage installation = _installations[msg.sender];
        if (installation.installed) revert AlreadyInstalled(msg.sender);
        if (installation.live != 0) revert SessionsLeft(msg.sender, installation.live);
        (installation.installed, installation.generation) = (true, installation.generation + 1);
        if (data.length == 0) return;
        (Session[] memory sessions, bytes[] memory bounds) = abi.decode(data, (Session[], bytes[]));
        if (bounds.length != sessions.length) revert InvalidSession();
        for (uint256 i = 0; i < sessions.length; ++i) {
            _enable(sessions[i], bounds[i]);
        }
    }

    /// @inheritdoc IERC7579Module
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
    function enableSession(Session calldata session, bytes calldata bounds) external returns (bytes32 sessionId) {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        return _enable(session, bounds);
    }

    /// @inheritdoc ISessionValidator
    function revokeSession(bytes32 sessionId) external {
        if (_terms[sessionId][msg.sender] == REVOKED) revert SessionUnknown(sessionId);
        _revoke(msg.sender, sessionId);
    }

    /// @inheritdoc ISessionValidator
    function clearAbandoned(address account, bytes32[] calldata sessionIds) external {
        if (_installations[account].installed) revert AlreadyInstalled(account);
        for (uint256 i = 0; i < sessionIds.length; ++i) {
            if (_isLive(_terms[sessionIds[i]][account])) _revoke(account, sessionIds[i]);
        }
    }

    /// @inheritdoc ISessionValidator
    function approvalHash(address account, Session memory session) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(abi.encode(ENABLE_TYPEHASH, account, uint256(_installations[account].generation), session))
        );
    }

    /// @inheritdoc ISessionValidator
    function liveSessions(address account) external view returns (uint256) {
        return _installations[account].live;
    }

    /// @inheritdoc ISessionValidator
    function sessionOf(address account, bytes32 sessionId)
        external
        view
        returns (Session memory session, uint128 prefundSpent)
    {
        uint256 terms = _terms[sessionId][account];
        if (!_isLive(terms) || !_installations[account].installed) return (session, 0);
        Detail memory detail = _details[sessionId][account];
        bool counted = terms & COUNTED != 0;
        session = Session({
            key: detail.key,
            validAfter: uint48(terms & TIME_MASK),
            validUntil: uint48(terms >> 48),
            target: detail.target,
            selector: detail.selector,
            prefundBudget: uint80(terms >> 96),
            uses: counted ? uint32(terms >> 176) : 0,
            bounds: detail.bounds
        });
        prefundSpent = counted ? 0 : uint128(terms >> 176);
    }

    // ------------------------------------------------------------------ validation

    /// What an operation says of itself. `id` is the session's, `bounds` with what they need are empty for a session without.
    struct Claim {
        bytes32 id;
        uint256 from;
        uint256 until;
        address target;
        bytes4 selector;
    }

    /// @inheritdoc IERC7579Validator
    /// @dev Fails, never reverts, on what only the signature says wrong, so that gas can be estimated with one that has the right shape; for the
    /// same reason budget and bounds are charged before the signature is known to be right (the entry point undoes it together with the
    /// operation). The session id is the hash of all terms. So the operation's own target and selector, the key that its signature recovers
    /// to, the bounds it brings, and the stored times and budget are the session's if and only if they hash to the id: one slot is enough.
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash) external returns (uint256) {
        bytes calldata signature = userOp.signature;
        bool shaped =
            userOp.sender == msg.sender && userOp.laneOf() == UserOpLib.LANE_KEEPER && signature.length >= PLAIN_LENGTH;
        if (!shaped) return ERC4337Utils.SIG_VALIDATION_FAILED;
        uint256 kind = uint8(signature[0]);
        bytes calldata bounds = signature[0:0];
        Claim memory claim;
        if (kind == TYPE_PLAIN) {
            if (signature.length != PLAIN_LENGTH) return ERC4337Utils.SIG_VALIDATION_FAILED;
            claim.id = bytes32(signature[1:33]);
        } else {
            (shaped, bounds) = _open(claim, kind, signature);
            if (!shaped) return ERC4337Utils.SIG_VALIDATION_FAILED;
        }
        return _judge(userOp, userOpHash, claim, bounds);
    }

    /// @inheritdoc IERC7579Validator
    /// @notice A session never signs messages.
    function isValidSignatureWithSender(address, bytes32, bytes calldata) external pure returns (bytes4) {
        return bytes4(0xffffffff);
    }

    // ------------------------------------------------------------------ inside

    /// @dev The longer kinds of signature. Enables the session when that is what the signature brings the owner's approval for.
    function _open(Claim memory claim, uint256 kind, bytes calldata signature)
        private
        returns (bool shaped, bytes calldata bounds)
    {
        bounds = signature[0:0];
        uint256 end = signature.length - KEY_SIGNATURE;
        uint256 times = kind == TYPE_BOUNDED ? 33 : 257;
        if (kind == TYPE_BOUNDED) {
            if (end <= BOUNDED_HEAD) return (false, bounds);
            claim.id = bytes32(signature[1:33]);
            bounds = signature[BOUNDED_HEAD:end];
        } else {
            if (kind != TYPE_ENABLING || end < ENABLING_HEAD) return (false, bounds);
            uint256 at = ENABLING_HEAD + uint16(bytes2(signature[ENABLING_HEAD - 2:ENABLING_HEAD]));
            if (end < at) return (false, bounds);
            bounds = signature[ENABLING_HEAD:at];
            Session memory session = abi.decode(signature[1:257], (Session));
            claim.id = sessionIdOf(session);
            if (_terms[claim.id][msg.sender] != 0 || !_installations[msg.sender].installed) return (false, bounds);
            if (!_approves(approvalHash(msg.sender, session), signature[at:end])) return (false, bounds);
            _enable(session, bounds);
        }
        claim.from = uint48(bytes6(signature[times:times + 6]));
        claim.until = uint48(bytes6(signature[times + 6:times + 12]));
        shaped = claim.from < claim.until && claim.until <= TIME_MASK;
    }

    function _judge(PackedUserOperation calldata userOp, bytes32 userOpHash, Claim memory claim, bytes calldata bounds)
        private
        returns (uint256)
    {
        uint256 terms = _terms[claim.id][msg.sender];
        if (!_isLive(terms)) return ERC4337Utils.SIG_VALIDATION_FAILED;
        bool fits = _sessionCall(claim, userOp.callData, bounds);
        if (!fits || !_affords(userOp, claim.id, terms)) return ERC4337Utils.SIG_VALIDATION_FAILED;

        address key;
        {
            bytes calldata signature = userOp.signature;
            key = OwnerLib.recover(userOpHash, signature[signature.length - KEY_SIGNATURE:]);
        }
        uint256 validAfter = terms & TIME_MASK;
        uint256 validUntil = uint48(terms >> 48);
        bytes32 actual = keccak256(
            abi.encode(
                key,
                validAfter,
                validUntil,
                claim.target,
                claim.selector,
                uint80(terms >> 96),
                terms & COUNTED == 0 ? 0 : terms >> 176,
                bounds.length == 0 ? bytes32(0) : keccak256(bounds)
            )
        );
        bool signed = key != address(0) && actual == claim.id;
        if (bounds.length != 0) {
            if (claim.from > validAfter) validAfter = claim.from;
            if (claim.until < validUntil) validUntil = claim.until;
        }
        return (signed ? 0 : ERC4337Utils.SIG_VALIDATION_FAILED) | validUntil << 160 | validAfter << 208;
    }

    /// @dev Whether `callData` is, canonically encoded, a single default-mode `execute` of a call within the bounds, which are charged; its target
    /// and selector go to the claim.
    function _sessionCall(Claim memory claim, bytes calldata callData, bytes calldata bounds) private returns (bool) {
        (bool ok, bytes32 mode, bytes calldata call) = UserOpLib.decodeExecute(callData);
        if (!ok || mode != bytes32(0) || call.length < 56) return false;
        address target;
        bytes4 selector;
        uint256 value;
        assembly ("memory-safe") {
            target := shr(96, calldataload(call.offset))
            value := calldataload(add(call.offset, 20))
            selector := and(calldataload(add(call.offset, 52)), shl(224, 0xffffffff))
        }
        (claim.target, claim.selector) = (target, selector);
        if (bounds.length == 0) return value == 0;
        return _charge(claim.id, bounds, claim.from, claim.until, value, call[52:]);
    }

    /// @dev Whether the session's uses and budget allow the operation. Adds up what it may cost unless its uses bound that.
    function _affords(PackedUserOperation calldata userOp, bytes32 id, uint256 terms) private returns (bool) {
        uint256 budget = uint80(terms >> 96);
        uint256 tally = terms >> 176;
        bool counted = terms & COUNTED != 0;
        if (counted) {
            bool inLane = uint24(userOp.nonce >> 64) == uint24(bytes3(id));
            if (!inLane || uint64(userOp.nonce) >= tally) return false;
        }
        if (userOp.paymasterAndData.length != 0 && ERC4337Utils.paymaster(userOp) != address(0)) return true;
        uint256 prefund = userOp.requiredPrefund();
        if (counted) return prefund * tally <= budget;
        if (tally + prefund > budget) return false;
        _terms[id][msg.sender] = terms + (prefund << 176);
        return true;
    }

    function _isLive(uint256 terms) private pure returns (bool) {
        return uint48(terms >> 48) != 0;
    }

    function _revoke(address account, bytes32 sessionId) private {
        if (_isLive(_terms[sessionId][account])) --_installations[account].live;
        _terms[sessionId][account] = REVOKED;
        delete _details[sessionId][account];
        emit SessionRevoked(account, sessionId);
    }

    function _enable(Session memory session, bytes memory bounds) private returns (bytes32 sessionId) {
        bool sound = session.key != address(0) && session.validUntil > session.validAfter
            && session.validUntil <= TIME_MASK && session.prefundBudget <= type(uint80).max
            && session.bounds == (bounds.length == 0 ? bytes32(0) : keccak256(bounds))
            && (bounds.length == 0 || _isSound(bounds));
        if (!sound) revert InvalidSession();
        _checkTarget(session.target, session.selector);
        sessionId = sessionIdOf(session);
        if (_isLive(_terms[sessionId][msg.sender])) revert SessionAlreadyEnabled(sessionId);
        ++_installations[msg.sender].live;
        _terms[sessionId][msg.sender] = uint256(session.validAfter) | uint256(session.validUntil) << 48
            | uint256(session.prefundBudget) << 96 | (session.uses == 0 ? 0 : COUNTED | uint256(session.uses) << 176);
        _details[sessionId][msg.sender] = Detail(session.key, session.target, session.selector, session.bounds);
        emit SessionEnabled(msg.sender, sessionId, session, bounds);
    }

    /// @dev Whether the calling account takes `approval` for its owner's. A `RiskAccount` answers for the owner alone, while ACTIVE, as long as the
    /// owner alone may act: where an engine must attest, an attested operation enables sessions.
    function _approves(bytes32 hash, bytes calldata approval) private view returns (bool) {
        if (!ERC165Checker.supportsInterface(msg.sender, type(IRiskAccount).interfaceId)) {
            return SignatureChecker.isValidERC1271SignatureNowCalldata(msg.sender, hash, approval);
        }
        IRiskAccount account = IRiskAccount(msg.sender);
        (RiskState state,) = account.riskState();
        return state == RiskState.ACTIVE && account.nativeOwnerPath() && account.isOwnerSignature(hash, approval);
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
