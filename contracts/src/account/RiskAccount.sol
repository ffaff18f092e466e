// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {
    AccountERC7579Upgradeable
} from "@openzeppelin/contracts-upgradeable/account/extensions/draft-AccountERC7579Upgradeable.sol";
import {
    ERC7739Upgradeable
} from "@openzeppelin/contracts-upgradeable/utils/cryptography/signers/draft-ERC7739Upgradeable.sol";
import {Account} from "@openzeppelin/contracts/account/Account.sol";
import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {CallType, ERC7579Utils, Mode} from "@openzeppelin/contracts/account/utils/draft-ERC7579Utils.sol";
import {IAccount, IEntryPoint, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {
    Execution,
    IERC7579Module,
    IERC7579Validator,
    MODULE_TYPE_EXECUTOR,
    MODULE_TYPE_FALLBACK,
    MODULE_TYPE_HOOK,
    MODULE_TYPE_VALIDATOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC1155Holder} from "@openzeppelin/contracts/token/ERC1155/utils/ERC1155Holder.sol";
import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";
import {ERC721Holder} from "@openzeppelin/contracts/token/ERC721/utils/ERC721Holder.sol";
import {AbstractSigner} from "@openzeppelin/contracts/utils/cryptography/signers/AbstractSigner.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {LibCall} from "solady/utils/LibCall.sol";
import {IAttestedValidator} from "../interfaces/IAttestedValidator.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {AccountConfig, IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {UserOpLib} from "../libraries/UserOpLib.sol";
import {AnnouncedAdmin} from "./AnnouncedAdmin.sol";

/// @title The account whose promises hold when nobody is watching
/// @notice ERC-7579 account with a risk state of its own. What each caller may do:
///
/// | caller | ACTIVE | REDUCE_ONLY, FROZEN |
/// |---|---|---|
/// | entry point or self, `execute` | anything | what `riskAuthority().permits` |
/// | entry point or self, `installModule`, `scheduleAdmin` | yes | no |
/// | executor module | anything but the account, its modules and the entry point | the same, if `riskAuthority().isGuard` |
/// | anyone, a fallback handler's selector | yes | no |
/// | anyone, `executeAdmin` of what was announced and waited for | yes | REDUCE_ONLY only |
/// | `riskAuthority()` | `setRiskState`, `cancelAdmin` | the same |
///
/// The hook module is consulted while ACTIVE. In the other states the authority decides alone, so that a hook can neither veto the way
/// out nor brick the account. An operation may also call a function of the account directly; each of them checks the state itself.
/// `validateUserOp` called that way can at most top up the account's own deposit by one prefund cap.
/// @dev Entry points v0.7, v0.8 and v0.9. On v0.7 the operation hash is wrapped in EIP-712 before it is signed. Validation writes no
/// storage of the account. Storage: ERC-7201 only.
contract RiskAccount is AnnouncedAdmin, ERC7739Upgradeable, ERC721Holder, ERC1155Holder {
    using EnumerableSet for EnumerableSet.AddressSet;
    using UserOpLib for PackedUserOperation;

    /// Only `riskAuthority()`.
    error NotAuthority(address caller);
    /// The call is no declared exit and goes to no guard.
    error NotPermitted(RiskState state, address target, uint256 value, bytes data);
    /// An executor may not act in this state unless it is a declared guard.
    error NotAGuard(address executor);
    /// Executors never reach the account itself, its modules or the entry point.
    error ForbiddenTarget(address target);
    error UnsupportedExecutionMode(bytes32 mode);
    error InvalidModule(address module);
    /// The authority must be installed as an executor.
    error AuthorityNotInstalled(address authority);
    /// A forced uninstallation needs enough gas to give the module its fair share.
    error InsufficientGas();

    bytes32 private constant USER_OPERATION_HASH_TYPEHASH = keccak256("UserOperationHash(bytes32 userOpHash)");

    /// Gas that `onUninstall` gets in a forced uninstallation.
    uint256 public constant FORCED_UNINSTALL_GAS = 200_000;
    uint256 private constant MARKER_GAS = 30_000;

    IEntryPoint private immutable ENTRY_POINT;
    bool private immutable WRAPS_HASH;

    /// @param entryPoint_ the only entry point whose operations the account accepts.
    constructor(IEntryPoint entryPoint_) {
        ENTRY_POINT = entryPoint_;
        WRAPS_HASH = entryPoint_ == ERC4337Utils.ENTRYPOINT_V07;
        _disableInitializers();
    }

    // ------------------------------------------------------------------ birth

    /// @inheritdoc IRiskAccount
    function initialize(AccountConfig calldata config) external initializer {
        RiskAccountStorage storage $ = _storage();
        _setOwner(config.owner);
        _setPrefundCaps(config.prefundCaps);
        $.adminDelay = config.adminDelay;
        $.authority = config.authority;
        for (uint256 i = 0; i < config.modules.length; ++i) {
            _installModule(config.modules[i].moduleTypeId, config.modules[i].module, config.modules[i].initData);
        }
        if (config.authority != address(0)) {
            _requireInstalledAuthority(config.authority);
            emit AuthorityChanged(config.authority);
        }
    }

    // ------------------------------------------------------------------ what it is

    /// @inheritdoc Account
    function entryPoint() public view override returns (IEntryPoint) {
        return ENTRY_POINT;
    }

    /// @notice vendor.account.version, as ERC-7579 wants it.
    function accountId() public pure override returns (string memory) {
        return "seawall.risk-account.1.0.0";
    }

    /// @notice Single and batch calls that revert or go on (try), and nothing else: unused bytes, mode selector and payload are zero.
    function supportsExecutionMode(bytes32 mode) public pure override returns (bool) {
        return uint256(mode) & ~(uint256(0x0101) << 240) == 0;
    }

    /// @inheritdoc IRiskState
    function riskState() external view returns (RiskState state, uint64 epoch) {
        StateWord storage word = _word();
        return (word.state, word.epoch);
    }

    /// @inheritdoc IRiskState
    function riskAuthority() external view returns (address) {
        return _storage().authority;
    }

    /// @inheritdoc IRiskAccount
    function ownerSigner() external view returns (bytes memory) {
        RiskAccountStorage storage $ = _storage();
        return abi.encodePacked($.ownerKind, $.owner, $.ownerKey);
    }

    /// @inheritdoc IRiskAccount
    function isOwnerSignature(bytes32 hash, bytes calldata signature) external view returns (bool) {
        return _isOwnerSignature(hash, signature);
    }

    /// @inheritdoc IRiskAccount
    function nativeOwnerPath() external view returns (bool) {
        return _word().attested == 0;
    }

    /// @inheritdoc IRiskAccount
    function prefundCaps() external view returns (uint128[3] memory) {
        RiskAccountStorage storage $ = _storage();
        return [uint128($.activeCap), $.reduceOnlyCap, $.frozenCap];
    }

    /// @notice ERC-165: the account's own interfaces, ERC-1271 and the token receivers.
    function supportsInterface(bytes4 interfaceId) public view override returns (bool) {
        return interfaceId == type(IRiskAccount).interfaceId || interfaceId == type(IRiskState).interfaceId
            || interfaceId == type(IAccount).interfaceId || interfaceId == type(IERC1271).interfaceId
            || interfaceId == type(IERC721Receiver).interfaceId || super.supportsInterface(interfaceId);
    }

    // ------------------------------------------------------------------ validation

    /// @dev The nonce key names the path: no validator and lane 0 is the owner's own signature, open only while no validator that needs
    /// an attestation is installed; an installed validator decides its own operations; everything else fails. Gas is value, so what
    /// the account pays itself is capped by state.
    function _validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash, bytes calldata signature)
        internal
        override
        returns (uint256)
    {
        StateWord memory word = _word();
        if (_paymasterOf(userOp) == address(0) && userOp.requiredPrefund() > _prefundCap(word.state)) {
            return ERC4337Utils.SIG_VALIDATION_FAILED;
        }
        bytes32 signable = _signableUserOpHash(userOp, userOpHash);
        address validator = userOp.validatorOf();
        if (validator == address(0)) {
            bool open = word.attested == 0 && userOp.laneOf() == UserOpLib.LANE_OWNER;
            return open && _isOwnerSignature(signable, signature)
                ? ERC4337Utils.SIG_VALIDATION_SUCCESS
                : ERC4337Utils.SIG_VALIDATION_FAILED;
        }
        if (!_modules()._validators.contains(validator)) return ERC4337Utils.SIG_VALIDATION_FAILED;
        return IERC7579Validator(validator).validateUserOp(userOp, signable);
    }

    /// @dev The entry point asks for no more than the operation's required prefund; a direct call that does gets nothing.
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash, uint256 missingAccountFunds)
        public
        override
        onlyEntryPoint
        returns (uint256 validationData)
    {
        validationData = _validateUserOp(userOp, userOpHash, userOp.signature);
        if (missingAccountFunds != 0) {
            uint256 required = userOp.requiredPrefund();
            if (missingAccountFunds <= required && required <= _prefundCap(_word().state)) {
                _payPrefund(missingAccountFunds);
            }
        }
    }

    /// @dev The hash that owners sign and validators get: v0.7's is wrapped in EIP-712, later ones already are EIP-712.
    function _signableUserOpHash(PackedUserOperation calldata, bytes32 userOpHash)
        internal
        view
        override
        returns (bytes32)
    {
        if (!WRAPS_HASH) return userOpHash;
        return _hashTypedDataV4(keccak256(abi.encode(USER_OPERATION_HASH_TYPEHASH, userOpHash)));
    }

    /// @notice ERC-1271 under ERC-7739, answered only while ACTIVE. The (inner) signature is validator (20 bytes) || its signature; a zero
    /// validator is the owner himself, while the native path is open.
    function isValidSignature(bytes32 hash, bytes calldata signature)
        public
        view
        override(AccountERC7579Upgradeable, ERC7739Upgradeable)
        returns (bytes4)
    {
        if (_word().state != RiskState.ACTIVE) return bytes4(0xffffffff);
        return ERC7739Upgradeable.isValidSignature(hash, signature);
    }

    /// @dev Used by ERC-7739 only.
    function _rawSignatureValidation(bytes32 hash, bytes calldata signature)
        internal
        view
        override(AbstractSigner, AccountERC7579Upgradeable)
        returns (bool)
    {
        if (signature.length < 20) return false;
        (address validator, bytes calldata inner) = _extractSignatureValidator(signature);
        if (validator == address(0)) return _word().attested == 0 && _isOwnerSignature(hash, inner);
        if (!_modules()._validators.contains(validator)) return false;
        try IERC7579Validator(validator).isValidSignatureWithSender(msg.sender, hash, inner) returns (bytes4 magic) {
            return magic == IERC1271.isValidSignature.selector;
        } catch {
            return false;
        }
    }

    // ------------------------------------------------------------------ execution

    /// @dev Every execution passes here: `execute` by the entry point or the account, `executeFromExecutor` by an executor.
    function _execute(Mode mode, bytes calldata executionCalldata) internal override returns (bytes[] memory) {
        if (!supportsExecutionMode(Mode.unwrap(mode))) revert UnsupportedExecutionMode(Mode.unwrap(mode));
        StateWord memory word = _word();
        bool owned = msg.sender == address(ENTRY_POINT) || msg.sender == address(this);
        bool active = word.state == RiskState.ACTIVE;
        if (!owned || !active) _checkCalls(mode, executionCalldata, word, owned);
        if (active) return super._execute(mode, executionCalldata);
        return AccountERC7579Upgradeable._execute(mode, executionCalldata);
    }

    /// @dev Fallback handlers act in the account's name, so they rest unless it is ACTIVE.
    function _fallback() internal override onlyActive returns (bytes memory) {
        return super._fallback();
    }

    function _checkCalls(Mode mode, bytes calldata executionCalldata, StateWord memory word, bool owned) private view {
        address authority = _storage().authority;
        if (!owned && word.state != RiskState.ACTIVE) {
            if (!IEmergencyFreeze(authority).isGuard(address(this), msg.sender)) revert NotAGuard(msg.sender);
        }
        (CallType callType,,,) = ERC7579Utils.decodeMode(mode);
        if (callType == ERC7579Utils.CALLTYPE_SINGLE) {
            (address target, uint256 value, bytes calldata data) = ERC7579Utils.decodeSingle(executionCalldata);
            _checkCall(authority, word, owned, target, value, data);
        } else {
            Execution[] calldata calls = ERC7579Utils.decodeBatch(executionCalldata);
            for (uint256 i = 0; i < calls.length; ++i) {
                _checkCall(authority, word, owned, calls[i].target, calls[i].value, calls[i].callData);
            }
        }
    }

    /// @dev A zero target means the account itself (ERC7579Utils).
    function _checkCall(
        address authority,
        StateWord memory word,
        bool owned,
        address target,
        uint256 value,
        bytes calldata data
    ) private view {
        if (target == address(0) || target == address(this)) revert ForbiddenTarget(target);
        if (owned) {
            bool permitted = IEmergencyFreeze(authority).permits(address(this), word.state, target, value, data);
            if (!permitted) revert NotPermitted(word.state, target, value, data);
        } else if (target == address(ENTRY_POINT) || _isModule(target, word.hook)) {
            revert ForbiddenTarget(target);
        }
    }

    function _isModule(address target, address hook_) private view returns (bool) {
        AccountERC7579Storage storage modules = _modules();
        return target == hook_ || modules._validators.contains(target) || modules._executors.contains(target)
            || _storage().handlers[target] != 0;
    }

    // ------------------------------------------------------------------ modules

    /// @notice Install a module. Entry point or self, ACTIVE only.
    function installModule(uint256 moduleTypeId, address module, bytes calldata initData)
        public
        override
        onlyEntryPointOrSelf
        onlyActive
    {
        _installModule(moduleTypeId, module, initData);
    }

    /// @notice Uninstall a module. Announced calls only.
    function uninstallModule(uint256 moduleTypeId, address module, bytes calldata deInitData)
        public
        override
        onlyAnnounced
    {
        _beforeUninstall(moduleTypeId, module);
        _uninstallModule(moduleTypeId, module, deInitData);
    }

    /// @inheritdoc IRiskAccount
    function forceUninstallModule(uint256 moduleTypeId, address module, bytes calldata deInitData)
        external
        onlyAnnounced
    {
        _beforeUninstall(moduleTypeId, module);
        bytes calldata moduleData = deInitData;
        bool removed;
        if (moduleTypeId == MODULE_TYPE_VALIDATOR) {
            removed = _modules()._validators.remove(module);
        } else if (moduleTypeId == MODULE_TYPE_EXECUTOR) {
            removed = _modules()._executors.remove(module);
        } else if (moduleTypeId == MODULE_TYPE_HOOK) {
            removed = module != address(0) && _word().hook == module;
            if (removed) _word().hook = address(0);
        } else if (moduleTypeId == MODULE_TYPE_FALLBACK && deInitData.length > 3) {
            removed = module != address(0) && _fallbackHandler(bytes4(deInitData)) == module;
            if (removed) delete _modules()._fallbacks[bytes4(deInitData)];
            moduleData = deInitData[4:];
        }
        if (!removed) revert ERC7579Utils.ERC7579UninstalledModule(moduleTypeId, module);
        _afterUninstall(moduleTypeId, module);
        if (gasleft() < FORCED_UNINSTALL_GAS + FORCED_UNINSTALL_GAS / 10) revert InsufficientGas();
        LibCall.tryCall(module, 0, FORCED_UNINSTALL_GAS, 0, abi.encodeCall(IERC7579Module.onUninstall, (moduleData)));
        emit ModuleUninstalled(moduleTypeId, module);
    }

    /// @dev Closes the native owner path in the same call that installs a validator which must not be bypassed.
    function _installModule(uint256 moduleTypeId, address module, bytes memory initData) internal override {
        if (module == address(0) || module == address(this) || module == address(ENTRY_POINT)) {
            revert InvalidModule(module);
        }
        RiskAccountStorage storage $ = _storage();
        ++$.installs;
        if (moduleTypeId == MODULE_TYPE_VALIDATOR && _requiresAttestation(module) && !$.attested[module]) {
            $.attested[module] = true;
            ++_word().attested;
        } else if (moduleTypeId == MODULE_TYPE_FALLBACK) {
            ++$.handlers[module];
        }
        super._installModule(moduleTypeId, module, initData);
    }

    function _uninstallModule(uint256 moduleTypeId, address module, bytes memory deInitData) internal override {
        super._uninstallModule(moduleTypeId, module, deInitData);
        _afterUninstall(moduleTypeId, module);
    }

    /// @dev The authority may leave only while ACTIVE: without it nothing could ever leave another state.
    function _beforeUninstall(uint256 moduleTypeId, address module) private view {
        if (moduleTypeId == MODULE_TYPE_EXECUTOR && module == _storage().authority) _requireActive();
    }

    function _afterUninstall(uint256 moduleTypeId, address module) private {
        RiskAccountStorage storage $ = _storage();
        if (moduleTypeId == MODULE_TYPE_VALIDATOR && $.attested[module]) {
            delete $.attested[module];
            --_word().attested;
        } else if (moduleTypeId == MODULE_TYPE_FALLBACK) {
            --$.handlers[module];
        } else if (moduleTypeId == MODULE_TYPE_EXECUTOR && module == $.authority) {
            delete $.authority;
            emit AuthorityChanged(address(0));
        }
    }

    /// @dev Tolerant: most validators do not know the question.
    function _requiresAttestation(address module) private view returns (bool) {
        (bool success,, bytes memory answer) =
            LibCall.tryStaticCall(module, MARKER_GAS, 32, abi.encodeCall(IAttestedValidator.requiresAttestation, ()));
        return success && answer.length == 32 && uint256(bytes32(answer)) == 1;
    }

    // ------------------------------------------------------------------ state

    /// @inheritdoc IRiskState
    function setRiskState(RiskState state) external {
        if (msg.sender != _storage().authority) revert NotAuthority(msg.sender);
        StateWord storage word = _word();
        RiskState from = word.state;
        if (from == state) return;
        uint64 epoch = word.epoch + 1;
        (word.state, word.epoch) = (state, epoch);
        emit RiskStateChanged(from, state, epoch);
    }

    // ------------------------------------------------------------------ announced administration

    /// @inheritdoc IRiskAccount
    function setOwner(bytes calldata owner) external onlyAnnounced {
        _setOwner(owner);
    }

    /// @inheritdoc IRiskAccount
    function setRiskAuthority(address authority) external onlyAnnounced onlyActive {
        if (authority != address(0)) _requireInstalledAuthority(authority);
        _storage().authority = authority;
        emit AuthorityChanged(authority);
    }

    /// @inheritdoc IRiskAccount
    function setPrefundCaps(uint128[3] calldata caps) external onlyAnnounced {
        _setPrefundCaps(caps);
    }

    function _authorizeUpgrade(address) internal override onlyAnnounced {}

    // ------------------------------------------------------------------ inside

    function _setOwner(bytes memory owner) private {
        RiskAccountStorage storage $ = _storage();
        ($.ownerKind, $.owner, $.ownerKey) = OwnerLib.decode(owner);
        emit OwnerChanged(owner);
    }

    function _setPrefundCaps(uint128[3] calldata caps) private {
        RiskAccountStorage storage $ = _storage();
        $.activeCap = caps[0] > type(uint88).max ? type(uint88).max : uint88(caps[0]);
        $.reduceOnlyCap = caps[1];
        $.frozenCap = caps[2];
        emit PrefundCapsChanged(caps);
    }

    function _requireInstalledAuthority(address authority) private view {
        if (!_modules()._executors.contains(authority)) revert AuthorityNotInstalled(authority);
    }

    function _prefundCap(RiskState state) private view returns (uint256) {
        RiskAccountStorage storage $ = _storage();
        if (state == RiskState.ACTIVE) return $.activeCap;
        return state == RiskState.REDUCE_ONLY ? $.reduceOnlyCap : $.frozenCap;
    }

    function _isOwnerSignature(bytes32 hash, bytes calldata signature) private view returns (bool) {
        RiskAccountStorage storage $ = _storage();
        (uint8 kind, address signer) = ($.ownerKind, $.owner);
        if (kind == OwnerLib.KIND_ECDSA) return OwnerLib.isValidEcdsa(signer, hash, signature);
        return OwnerLib.isValid(kind, signer, $.ownerKey, hash, signature);
    }

    function _paymasterOf(PackedUserOperation calldata userOp) private pure returns (address) {
        return ERC4337Utils.paymaster(userOp);
    }

    function _EIP712Name() internal pure override returns (string memory) {
        return "Seawall RiskAccount";
    }

    function _EIP712Version() internal pure override returns (string memory) {
        return "1";
    }
}
