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
import {ERC1967Utils} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Utils.sol";
import {AbstractSigner} from "@openzeppelin/contracts/utils/cryptography/signers/AbstractSigner.sol";
import {Errors} from "@openzeppelin/contracts/utils/Errors.sol";
import {LowLevelCall} from "@openzeppelin/contracts/utils/LowLevelCall.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {LibCall} from "solady/utils/LibCall.sol";
import {IAttestedValidator} from "../interfaces/IAttestedValidator.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {AccountConfig, IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {UserOpLib} from "../libraries/UserOpLib.sol";
import {AccountDeparture} from "./AccountDeparture.sol";
import {AccountProxy} from "./AccountProxy.sol";
import {AccountStorage} from "./AccountStorage.sol";
import {AnnouncedAdmin} from "./AnnouncedAdmin.sol";
import {TokenReceiver} from "./TokenReceiver.sol";

/// @title The account whose promises hold when nobody is watching
/// @notice ERC-7579 account with a risk state of its own. What each caller may do:
///
/// | caller | ACTIVE | REDUCE_ONLY, FROZEN |
/// |---|---|---|
/// | entry point or self, `execute` | anything | what `riskAuthority().permits` |
/// | entry point or self, `installModule`, `scheduleAdmin` | yes | no |
/// | executor module | anything but the account, its modules and the entry point | the same, if `riskAuthority().isGuard` |
/// | anyone, a fallback handler's selector | yes | no |
/// | entry point or self, a DELEGATECALL to a pinned library | yes | no |
/// | anyone, `executeAdmin` of what was announced and waited for | yes | REDUCE_ONLY only |
/// | executor module and guard, `announceRecovery`, then `executeAdmin` of it | yes | yes |
/// | `riskAuthority()` | `setRiskState`, `cancelAdmin` | the same |
///
/// The hook module is consulted while ACTIVE. In the other states the authority decides alone, so that a hook can neither veto the way
/// out nor brick the account. An operation may also call a function of the account directly; each of them checks the state itself.
/// `validateUserOp` called that way can at most top up the account's own deposit by one prefund cap.
/// @dev Entry points v0.7, v0.8 and v0.9. On v0.7 the operation hash is wrapped in EIP-712 before it is signed. Validation writes no
/// storage of the account. Storage: ERC-7201 only.
contract RiskAccount is AnnouncedAdmin, ERC7739Upgradeable, TokenReceiver {
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
    /// DELEGATECALL is for the entry point or the account itself, while ACTIVE, to code that was pinned by its hash.
    error NotPinned(address library_);
    /// The authority must be installed as an executor.
    error AuthorityNotInstalled(address authority);
    /// Another delegate of this EIP-7702 account left modules behind: `leave` removes them.
    error ForeignModules();
    /// ERC-7821 operation data are not understood.
    error OperationData();
    /// A forced uninstallation needs enough gas to give the module its fair share.
    error InsufficientGas();
    /// `leave` is for EIP-7702 accounts; what has code of its own stays what it is.
    error NotDelegated();

    bytes32 private constant USER_OPERATION_HASH_TYPEHASH = keccak256("UserOperationHash(bytes32 userOpHash)");

    bytes32 private constant MERKLE_ROOT_TYPEHASH = keccak256("MerkleRoot(bytes32 root)");
    bytes32 private constant MERKLE_DOMAIN_SEPARATOR = keccak256(
        abi.encode(
            keccak256("EIP712Domain(string name,string version)"), keccak256("Seawall RiskAccount"), keccak256("1")
        )
    );
    bytes1 private constant ROOT_SIGNATURE = 0x05;
    uint256 private constant MAX_PROOF = 32;
    /// ERC-7821: a batch, with operation data that must be empty or absent.
    uint256 private constant MODE_ERC7821 = 0x01000000000078210001 << 176;
    uint256 private constant MODE_DELEGATECALL = 0xff << 248;

    /// Gas that `onUninstall` gets in a forced uninstallation.
    uint256 public constant FORCED_UNINSTALL_GAS = 200_000;
    uint256 private constant MARKER_GAS = 30_000;
    /// The field `attested` of the state word.
    uint256 private constant ATTESTED_MASK = 0xff << 168;

    IEntryPoint private immutable ENTRY_POINT;
    bool private immutable WRAPS_HASH;
    address private immutable SELF;
    /// The code of `forceUninstallModule` and `leave`.
    address private immutable DEPARTURE;

    /// @param entryPoint_ the only entry point whose operations the account accepts. @param riskValidator and `sessionValidator`: a
    /// `RiskValidator` and a `SessionValidator` whose operations cost less than those of other validators; zero for none. Neither is
    /// installed by being named.
    constructor(IEntryPoint entryPoint_, address riskValidator, address sessionValidator)
        AccountStorage(riskValidator, sessionValidator)
    {
        ENTRY_POINT = entryPoint_;
        WRAPS_HASH = entryPoint_ == ERC4337Utils.ENTRYPOINT_V07;
        SELF = address(this);
        DEPARTURE = address(new AccountDeparture(riskValidator, sessionValidator));
    }

    // ------------------------------------------------------------------ birth

    /// @inheritdoc IRiskAccount
    function initialize(AccountConfig calldata config) external {
        RiskAccountStorage storage $ = _storage();
        if (uint8(AccountProxy.birthWord(0) >> 248) & AccountProxy.UNFINISHED != 0) {
            // The factory, in the transaction of the birth. Whoever is born with modules has an installation behind him afterwards.
            if (address(this) == SELF || $.installs != 0) revert InvalidInitialization();
        } else {
            _join(config);
        }
        $.authority = config.authority;
        for (uint256 i = 0; i < config.modules.length; ++i) {
            _installModule(config.modules[i].moduleTypeId, config.modules[i].module, config.modules[i].initData);
        }
        if (config.authority != address(0)) {
            _requireInstalledAuthority(config.authority);
            emit AuthorityChanged(config.authority);
        }
    }

    /// @dev An EIP-7702 account takes its configuration, by its own call or operation: only its own key can make one before.
    function _join(AccountConfig calldata config) private {
        if (_word().flags & JOINED != 0 || !AccountProxy.isDelegated()) revert InvalidInitialization();
        _checkEntryPointOrSelf();
        AccountERC7579Storage storage modules = _modules();
        // What another delegate left in OpenZeppelin's sets would become ours.
        if (modules._validators.length() + modules._executors.length() != 0 || _word().hook != address(0)) {
            revert ForeignModules();
        }
        _word().flags |= STORED | JOINED;
        _setOwner(config.owner);
        _setPrefundCaps(config.prefundCaps);
        _storage().limits |= uint256(config.adminDelay) << 32;
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

    /// @notice Single and batch calls that revert or go on (try), single DELEGATECALLs that do (to pinned libraries), with unused bytes, mode
    /// selector and payload zero, and ERC-7821's batch without operation data. Nothing else.
    function supportsExecutionMode(bytes32 mode) public pure override returns (bool) {
        uint256 kind = uint256(mode) & ~(uint256(1) << 240); // whatever a failing call does
        return kind & ~(uint256(1) << 248) == 0 || kind == MODE_DELEGATECALL || uint256(mode) == MODE_ERC7821;
    }

    /// @notice The implementation in force (ERC-897; the ERC-1967 slot is empty until the first upgrade).
    function implementation() external view returns (address) {
        return SELF;
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
        uint256 word = _rawWord();
        uint256 signer = _signer(word);
        return abi.encodePacked(_kindOf(signer), _ownerOf(signer), _ownerKey(word));
    }

    /// @inheritdoc IRiskAccount
    function isOwnerSignature(bytes32 hash, bytes calldata signature) external view returns (bool) {
        uint256 word = _rawWord();
        return _isOwnerSignature(word, _signer(word), hash, signature);
    }

    /// @inheritdoc IRiskAccount
    function nativeOwnerPath() external view returns (bool) {
        return _word().attested == 0;
    }

    /// @inheritdoc IRiskAccount
    function prefundCaps() external view returns (uint128[3] memory) {
        uint256 word = _rawWord();
        (uint256 signer, uint256 limits) = (_signer(word), _limits(word));
        return [uint128(uint88(signer)), uint128(limits >> 168), uint128(uint88(limits >> 80))];
    }

    /// @notice ERC-165: the account's own interfaces, ERC-1271 and the token receivers.
    function supportsInterface(bytes4 interfaceId) public view override returns (bool) {
        return interfaceId == type(IRiskAccount).interfaceId || interfaceId == type(IRiskState).interfaceId
            || interfaceId == type(IAccount).interfaceId || interfaceId == type(IERC1271).interfaceId
            || super.supportsInterface(interfaceId);
    }

    // ------------------------------------------------------------------ validation

    /// @dev The nonce key names the path: no validator and lane 0 is the owner's own signature, open only while no validator that needs
    /// an attestation is installed; an installed validator decides its own operations; everything else fails. Gas is value, so what
    /// the account pays itself is capped by state. The entry point asks for no more than the operation's required prefund; a direct
    /// call that does gets nothing.
    function validateUserOp(PackedUserOperation calldata userOp, bytes32 userOpHash, uint256 missingAccountFunds)
        public
        override
        onlyEntryPoint
        returns (uint256 validationData)
    {
        uint256 word = _rawWord();
        uint256 signer = _signer(word);
        uint256 prefund = userOp.requiredPrefund();
        bool affordable = prefund <= _prefundCap(word, signer);
        validationData = affordable || _paymasterOf(userOp) != address(0)
            ? _validate(userOp, userOpHash, word, signer)
            : ERC4337Utils.SIG_VALIDATION_FAILED;
        if (missingAccountFunds != 0 && affordable && missingAccountFunds <= prefund) _payPrefund(missingAccountFunds);
    }

    function _validate(PackedUserOperation calldata userOp, bytes32 userOpHash, uint256 word, uint256 signer)
        private
        returns (uint256)
    {
        bytes32 signable = _signableUserOpHash(userOp, userOpHash);
        uint256 path = userOp.nonce >> 88; // validator (160) | lane kind (8)
        if (path >> 8 == 0) {
            bool signed = false;
            if (word & ATTESTED_MASK == 0) {
                if (path == UserOpLib.LANE_OWNER) signed = _isOwnerSignature(word, signer, signable, userOp.signature);
                if (path == UserOpLib.LANE_ROOT) signed = _isRootSignature(word, signer, signable, userOp.signature);
            }
            return signed ? ERC4337Utils.SIG_VALIDATION_SUCCESS : ERC4337Utils.SIG_VALIDATION_FAILED;
        }
        address validator = address(uint160(path >> 8));
        uint8 flag = _flagOf(validator);
        if (uint256(flag) << 240 & word != 0) {
            if (flag == ATTESTED) return _askAttested(signable, signer);
        } else if (!_isValidator(word, validator)) {
            return ERC4337Utils.SIG_VALIDATION_FAILED;
        }
        return _askValidator(validator, signable);
    }

    /// @dev `IAttestedValidator.validateAttested(userOp, signable, ENTRY_POINT, owner)`, so that it need not ask back. The operation lies in
    /// this call's data behind three words; its offset counts from the first of them, which are four now.
    function _askAttested(bytes32 signable, uint256 signer) private view returns (uint256 validationData) {
        (address validator, address entryPoint_) = (RISK_VALIDATOR, address(ENTRY_POINT));
        address owner = _kindOf(signer) == OwnerLib.KIND_ECDSA ? _ownerOf(signer) : address(0);
        bytes4 selector = IAttestedValidator.validateAttested.selector;
        bool success;
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, selector)
            mstore(add(at, 0x04), add(calldataload(0x04), 0x20))
            mstore(add(at, 0x24), signable)
            mstore(add(at, 0x44), entryPoint_)
            mstore(add(at, 0x64), owner)
            calldatacopy(add(at, 0x84), 0x64, sub(calldatasize(), 0x64))
            success := staticcall(gas(), validator, at, add(calldatasize(), 0x20), 0x00, 0x20)
            validationData := mload(0x00)
        }
        return _answered(success, validationData);
    }

    /// @dev `IERC7579Validator.validateUserOp(userOp, signable)` with the operation as it lies in this call's data: both functions take the
    /// operation and its hash first, so only selector and hash are replaced. The third argument stays where no decoder looks.
    function _askValidator(address validator, bytes32 signable) private returns (uint256 validationData) {
        bytes4 selector = IERC7579Validator.validateUserOp.selector;
        bool success;
        assembly ("memory-safe") {
            let at := mload(0x40)
            calldatacopy(at, 0, calldatasize())
            mstore(at, or(selector, and(mload(at), shr(32, not(0)))))
            mstore(add(at, 0x24), signable)
            success := call(gas(), validator, 0, at, calldatasize(), 0x00, 0x20)
            validationData := mload(0x00)
        }
        return _answered(success, validationData);
    }

    /// @dev Right behind a call to a validator.
    function _answered(bool success, uint256 validationData) private pure returns (uint256) {
        if (!success) LowLevelCall.bubbleRevert();
        return LowLevelCall.returnDataSize() < 32 ? ERC4337Utils.SIG_VALIDATION_FAILED : validationData;
    }

    /// @dev Whether the owner signed a Merkle root above this operation: one signature for operations of any chains, nonces and accounts. The
    /// domain has no chain and no account; the leaf has both, and the entry point. Signature: 0x05 || length of the proof (1) || proof
    /// (32 each) || the owner's signature over the root.
    function _isRootSignature(uint256 word, uint256 signer, bytes32 signable, bytes calldata signature)
        private
        view
        returns (bool)
    {
        if (signature.length < 2 || signature[0] != ROOT_SIGNATURE) return false;
        uint256 end = 2 + 32 * uint256(uint8(signature[1]));
        if (end > 2 + 32 * MAX_PROOF || signature.length < end) return false;
        bytes32 node = keccak256(abi.encode(block.chainid, ENTRY_POINT, address(this), signable));
        for (uint256 at = 2; at < end; at += 32) {
            node = Hashes.commutativeKeccak256(node, bytes32(signature[at:at + 32]));
        }
        bytes32 structHash = keccak256(abi.encode(MERKLE_ROOT_TYPEHASH, node));
        return _isOwnerSignature(
            word, signer, MessageHashUtils.toTypedDataHash(MERKLE_DOMAIN_SEPARATOR, structHash), signature[end:]
        );
    }

    /// @dev An EIP-7702 account that has not joined has no modules, whatever another delegate left in their storage.
    function _isValidator(uint256 word, address validator) private view returns (bool) {
        return _modules()._validators.contains(validator) && _modulesCount(word);
    }

    function _modulesCount(uint256 word) private view returns (bool) {
        return word & JOINED_BIT != 0 || !AccountProxy.isDelegated();
    }

    /// @notice Whether `module` is installed. None is on an EIP-7702 account that has not joined.
    function isModuleInstalled(uint256 moduleTypeId, address module, bytes calldata context)
        public
        view
        override
        returns (bool)
    {
        return super.isModuleInstalled(moduleTypeId, module, context) && _modulesCount(_rawWord());
    }

    /// @notice The installed hook, or zero.
    function hook() public view override returns (address hook_) {
        uint256 word = _rawWord();
        hook_ = address(uint160(word));
        if (hook_ != address(0) && !_modulesCount(word)) return address(0);
    }

    function _fallbackHandler(bytes4 selector) internal view override returns (address) {
        return _modulesCount(_rawWord()) ? super._fallbackHandler(selector) : address(0);
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
        uint256 word = _rawWord();
        if (validator == address(0)) {
            return word & ATTESTED_MASK == 0 && _isOwnerSignature(word, _signer(word), hash, inner);
        }
        if (!_isValidator(word, validator)) return false;
        try IERC7579Validator(validator).isValidSignatureWithSender(msg.sender, hash, inner) returns (bytes4 magic) {
            return magic == IERC1271.isValidSignature.selector;
        } catch {
            return false;
        }
    }

    // ------------------------------------------------------------------ execution

    /// @notice Execute calls (ERC-7579). Entry point or self.
    /// @dev One plain call of an ACTIVE account without a hook, which most operations are, is made here, as ERC7579Utils would make it
    /// (a fuzz test compares), without copying what it returns.
    function execute(bytes32 mode, bytes calldata executionCalldata) public payable override onlyEntryPointOrSelf {
        if (mode != bytes32(0) || uint168(_rawWord()) != 0) {
            _execute(Mode.wrap(mode), executionCalldata);
            return;
        }
        (address target, uint256 value, bytes calldata data) = ERC7579Utils.decodeSingle(executionCalldata);
        bool success;
        assembly ("memory-safe") {
            let at := mload(0x40)
            calldatacopy(at, data.offset, data.length)
            if iszero(target) { target := address() }
            success := call(gas(), target, value, at, data.length, 0x00, 0x00)
        }
        if (!success) {
            if (LowLevelCall.returnDataSize() == 0) revert Errors.FailedCall();
            LowLevelCall.bubbleRevert();
        }
    }

    /// @dev Every other execution passes here: `execute` by the entry point or the account, `executeFromExecutor` by an executor.
    function _execute(Mode mode, bytes calldata executionCalldata) internal override returns (bytes[] memory) {
        if (!supportsExecutionMode(Mode.unwrap(mode))) revert UnsupportedExecutionMode(Mode.unwrap(mode));
        if (uint256(Mode.unwrap(mode)) == MODE_ERC7821) _requireNoOperationData(executionCalldata);
        StateWord memory word = _word();
        bool owned = msg.sender == address(ENTRY_POINT) || msg.sender == address(this);
        bool active = word.state == RiskState.ACTIVE;
        if (bytes1(Mode.unwrap(mode)) == 0xff) _requirePinned(executionCalldata, owned && active);
        else if (!owned || !active) _checkCalls(mode, executionCalldata, word, owned);
        if (active) return super._execute(mode, executionCalldata);
        return AccountERC7579Upgradeable._execute(mode, executionCalldata);
    }

    /// @dev What runs is what was read: the hash of the code now, in the transaction that runs it.
    function _requirePinned(bytes calldata executionCalldata, bool allowed) private view {
        address library_ = address(bytes20(executionCalldata));
        bytes32 codeHash = _storage().pinned[library_];
        if (!allowed || codeHash == 0 || library_.codehash != codeHash) revert NotPinned(library_);
    }

    /// @dev abi.encode(calls), or abi.encode(calls, opData) with empty opData: the caller is what authorises here.
    function _requireNoOperationData(bytes calldata executionData) private pure {
        if (uint256(bytes32(executionData[0:32])) == 0x20) return;
        uint256 at = uint256(bytes32(executionData[32:64]));
        if (at > executionData.length || uint256(bytes32(executionData[at:at + 32])) != 0) revert OperationData();
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
    function forceUninstallModule(uint256 moduleTypeId, address module, bytes calldata) external onlyAnnounced {
        _beforeUninstall(moduleTypeId, module);
        _delegate(DEPARTURE);
    }

    /// @inheritdoc IRiskAccount
    function leave(bytes4[] calldata) external {
        if (!AccountProxy.isDelegated()) revert NotDelegated();
        if (_rawWord() & JOINED_BIT == 0) {
            _checkEntryPointOrSelf();
        } else if (tx.origin != address(this) || msg.sender != address(this)) {
            // Not the root key's own transaction, which nothing can bind: then only what everybody saw coming.
            _requireAnnounced();
        }
        _delegate(DEPARTURE);
    }

    /// @dev The code that removes things has no room here.
    function _delegate(address code) private {
        if (!LowLevelCall.delegatecallNoReturn(code, msg.data)) LowLevelCall.bubbleRevert();
    }

    /// @dev Closes the native owner path in the same call that installs a validator which must not be bypassed.
    function _installModule(uint256 moduleTypeId, address module, bytes memory initData) internal override {
        if (module == address(0) || module == address(this) || module == address(ENTRY_POINT)) {
            revert InvalidModule(module);
        }
        RiskAccountStorage storage $ = _storage();
        ++$.installs;
        if (moduleTypeId == MODULE_TYPE_VALIDATOR) {
            if (_modulesCount(_rawWord())) _word().flags |= _flagOf(module);
            if (_requiresAttestation(module) && !$.attested[module]) {
                $.attested[module] = true;
                ++_word().attested;
            }
        } else if (moduleTypeId == MODULE_TYPE_FALLBACK) {
            ++$.handlers[module];
            ++$.fallbacks;
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

    /// @inheritdoc IRiskAccount
    function pinLibrary(address, bytes32) external onlyAnnounced {
        _delegate(DEPARTURE);
    }

    /// @inheritdoc IRiskAccount
    function pinnedCodeHash(address library_) external view returns (bytes32) {
        return _storage().pinned[library_];
    }

    /// @inheritdoc IRiskAccount
    function announceRecovery(bytes calldata, uint48) external returns (uint48) {
        _delegate(DEPARTURE);
        assembly ("memory-safe") {
            returndatacopy(0x00, 0x00, 0x20)
            return(0x00, 0x20)
        }
    }

    /// @dev From now on the proxy looks into the ERC-1967 slot, which UUPSUpgradeable writes next. Other code names other validators.
    function _authorizeUpgrade(address) internal override onlyAnnounced {
        StateWord storage word = _word();
        (word.upgraded, word.flags) = (1, word.flags & (STORED | JOINED));
    }

    /// @dev Through a proxy whose implementation this is: named in its code while it was never upgraded, in the ERC-1967 slot else.
    function _checkProxy() internal view override {
        address current = ERC1967Utils.getImplementation();
        bool sound = address(this) != SELF && !AccountProxy.isDelegated()
            && (current == SELF || (current == address(0) && _word().upgraded == 0));
        if (!sound) revert UUPSUnauthorizedCallContext();
    }

    // ------------------------------------------------------------------ inside

    function _setOwner(bytes memory owner) private {
        RiskAccountStorage storage $ = _store();
        (uint8 kind, address signer, bytes memory key) = OwnerLib.decode(owner);
        $.signer = uint256(kind) << 248 | uint256(uint160(signer)) << 88 | uint88($.signer);
        $.ownerKey = key;
        emit OwnerChanged(owner);
    }

    function _setPrefundCaps(uint128[3] calldata caps) private {
        RiskAccountStorage storage $ = _store();
        $.signer = $.signer >> 88 << 88 | AccountProxy.saturate(caps[0]);
        $.limits = uint256(AccountProxy.saturate(caps[1])) << 168 | uint256(AccountProxy.saturate(caps[2])) << 80
            | uint80($.limits);
        emit PrefundCapsChanged(caps);
    }

    function _requireInstalledAuthority(address authority) private view {
        if (!_modules()._executors.contains(authority)) revert AuthorityNotInstalled(authority);
    }

    function _prefundCap(uint256 word, uint256 signer) private view returns (uint256) {
        uint8 state = uint8(word >> 160);
        if (state == uint8(RiskState.ACTIVE)) return uint88(signer);
        uint256 limits = _limits(word);
        return state == uint8(RiskState.REDUCE_ONLY) ? limits >> 168 : uint88(limits >> 80);
    }

    function _isOwnerSignature(uint256 word, uint256 signer, bytes32 hash, bytes calldata signature)
        private
        view
        returns (bool)
    {
        uint8 kind = _kindOf(signer);
        if (kind == OwnerLib.KIND_ECDSA) return OwnerLib.isValidEcdsa(_ownerOf(signer), hash, signature);
        bytes memory key = kind == OwnerLib.KIND_ERC7913 ? _ownerKey(word) : bytes("");
        return OwnerLib.isValid(kind, _ownerOf(signer), key, hash, signature);
    }

    function _kindOf(uint256 signer) private pure returns (uint8) {
        return uint8(signer >> 248) & ~AccountProxy.UNFINISHED;
    }

    function _ownerOf(uint256 signer) private pure returns (address) {
        return address(uint160(signer >> 88));
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
