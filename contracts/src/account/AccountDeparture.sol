// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ERC7579Utils} from "@openzeppelin/contracts/account/utils/draft-ERC7579Utils.sol";
import {
    IERC7579Module,
    MODULE_TYPE_EXECUTOR,
    MODULE_TYPE_FALLBACK,
    MODULE_TYPE_HOOK,
    MODULE_TYPE_VALIDATOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {LibCall} from "solady/utils/LibCall.sol";
import {IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";
import {AccountStorage} from "./AccountStorage.sol";

/// @title How modules are removed that would rather stay, how an EIP-7702 account leaves, how a recovery is announced, what is pinned
/// @notice Code of `RiskAccount` that did not fit there: each account's implementation creates one and calls it by DELEGATECALL after having
/// checked who asks. Called on its own it has nothing to remove.
contract AccountDeparture is AccountStorage {
    using EnumerableSet for EnumerableSet.AddressSet;

    /// A forced uninstallation needs enough gas to give the module its fair share.
    error InsufficientGas();
    /// Name the selectors of all fallback handlers.
    error HandlersLeft(uint256 count);
    /// Neither an installed executor nor a guard in the eyes of the authority.
    error MayNotRecover(address caller);
    /// The library has no code, or other code than was announced.
    error NotPinnable(address library_, bytes32 codeHash);

    /// Gas that `onUninstall` gets in a forced uninstallation.
    uint256 public constant FORCED_UNINSTALL_GAS = 200_000;

    constructor(address riskValidator, address sessionValidator) AccountStorage(riskValidator, sessionValidator) {}

    /// @notice See `IRiskAccount`.
    function forceUninstallModule(uint256 moduleTypeId, address module, bytes calldata deInitData) external {
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
            removed = module != address(0) && _modules()._fallbacks[bytes4(deInitData)] == module;
            if (removed) delete _modules()._fallbacks[bytes4(deInitData)];
            moduleData = deInitData[4:];
        }
        if (!removed) revert ERC7579Utils.ERC7579UninstalledModule(moduleTypeId, module);
        _evict(moduleTypeId, module, moduleData);
    }

    /// @notice See `IRiskAccount`.
    function leave(bytes4[] calldata selectors) external {
        AccountERC7579Storage storage modules = _modules();
        _evictAll(modules._validators, MODULE_TYPE_VALIDATOR);
        _evictAll(modules._executors, MODULE_TYPE_EXECUTOR);
        StateWord storage word = _word();
        address hook_ = word.hook;
        word.hook = address(0);
        if (hook_ != address(0)) _evict(MODULE_TYPE_HOOK, hook_, "");
        for (uint256 i = 0; i < selectors.length; ++i) {
            address handler = modules._fallbacks[selectors[i]];
            delete modules._fallbacks[selectors[i]];
            if (handler != address(0)) _evict(MODULE_TYPE_FALLBACK, handler, "");
        }
        RiskAccountStorage storage $ = _storage();
        if ($.fallbacks != 0) revert HandlersLeft($.fallbacks);
        (RiskState from, uint64 epoch) = (word.state, word.epoch + 1);
        (word.state, word.epoch, word.flags) = (RiskState.ACTIVE, epoch, 0);
        if (from != RiskState.ACTIVE) emit IRiskState.RiskStateChanged(from, RiskState.ACTIVE, epoch);
        ($.signer, $.limits) = (0, 0);
        delete $.ownerKey;
        delete $.authority;
        ++$.installs; // announcements made until now are void, also if the account joins again
        emit Left();
    }

    /// @notice See `IRiskAccount`.
    function announceRecovery(bytes calldata owner, uint48 delay) external returns (uint48) {
        if (!_mayRecover(msg.sender)) revert MayNotRecover(msg.sender);
        uint48 adminDelay = _adminDelay();
        return
            _announce(
                abi.encodeCall(IRiskAccount.setOwner, (owner)), delay > adminDelay ? delay : adminDelay, msg.sender
            );
    }

    /// @notice See `IRiskAccount`.
    function pinLibrary(address library_, bytes32 codeHash) external {
        if (codeHash != 0 && (library_.code.length == 0 || library_.codehash != codeHash)) {
            revert NotPinnable(library_, codeHash);
        }
        _storage().pinned[library_] = codeHash;
        emit LibraryPinned(library_, codeHash);
    }

    function _evictAll(EnumerableSet.AddressSet storage set, uint256 moduleTypeId) private {
        while (set.length() != 0) {
            address module = set.at(0);
            set.remove(module);
            _evict(moduleTypeId, module, "");
        }
    }

    /// @dev Tell a module that was removed, whatever it does then.
    function _evict(uint256 moduleTypeId, address module, bytes memory moduleData) private {
        _afterUninstall(moduleTypeId, module);
        if (gasleft() < FORCED_UNINSTALL_GAS + FORCED_UNINSTALL_GAS / 10) revert InsufficientGas();
        LibCall.tryCall(module, 0, FORCED_UNINSTALL_GAS, 0, abi.encodeCall(IERC7579Module.onUninstall, (moduleData)));
        emit ModuleUninstalled(moduleTypeId, module);
    }
}
