// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ERC7579Utils} from "@openzeppelin/contracts/account/utils/draft-ERC7579Utils.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {LowLevelCall} from "@openzeppelin/contracts/utils/LowLevelCall.sol";
import {IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {RiskState} from "../interfaces/IRiskState.sol";
import {AccountStorage} from "./AccountStorage.sol";

/// @title Administrative calls that everyone sees coming
/// @notice Announced by the account, carried out by anyone after the delay, withdrawn by the account or its authority. An announcement
/// lapses with time and whenever a module is installed, so that nothing can be armed against a module that is not there yet.
abstract contract AnnouncedAdmin is AccountStorage, UUPSUpgradeable, IRiskAccount {
    /// Only through `scheduleAdmin` and `executeAdmin`.
    error OnlyAnnounced();
    /// `data` does not begin with the selector of an administrative function.
    error NotAdministrative(bytes4 selector);
    error NotAnnounced(bytes32 actionHash);
    error TooEarly(uint48 executableAt);
    /// Announced too long ago, or before a module was installed: announce it again.
    error Lapsed(bytes32 actionHash);
    /// A recovery is carried out by the module that announced it, while that may recover the account.
    error NotAnnouncer(address caller);

    /// True while `executeAdmin` is on its way to the one function it names.
    bool private transient announced;

    /// @dev Only as `executeAdmin` calls it, once.
    modifier onlyAnnounced() {
        _requireAnnounced();
        _;
    }

    function _requireAnnounced() internal {
        if (msg.sender != address(this) || !announced) revert OnlyAnnounced();
        announced = false;
    }

    /// @inheritdoc IRiskAccount
    function adminDelay() external view returns (uint48) {
        return _adminDelay();
    }

    /// @inheritdoc IRiskAccount
    function adminExecutableAt(bytes32 actionHash) external view returns (uint48) {
        return _announcedFor(actionHash);
    }

    /// @inheritdoc IRiskAccount
    function scheduleAdmin(bytes calldata data) external onlyEntryPointOrSelf onlyActive {
        bytes4 selector = bytes4(data);
        if (selector == this.uninstallModule.selector || selector == this.forceUninstallModule.selector) {
            (uint256 moduleTypeId, address module, bytes memory context) =
                abi.decode(data[4:], (uint256, address, bytes));
            // Nothing can be armed against a module that is not there yet.
            if (!this.isModuleInstalled(moduleTypeId, module, context)) {
                revert ERC7579Utils.ERC7579UninstalledModule(moduleTypeId, module);
            }
        } else if (
            selector != UUPSUpgradeable.upgradeToAndCall.selector && selector != this.setOwner.selector
                && selector != this.setRiskAuthority.selector && selector != this.setPrefundCaps.selector
                && selector != this.leave.selector && selector != this.pinLibrary.selector
        ) {
            revert NotAdministrative(selector);
        }
        _announce(data, _adminDelay(), address(0));
    }

    /// @inheritdoc IRiskAccount
    function cancelAdmin(bytes32 actionHash) external {
        RiskAccountStorage storage $ = _storage();
        if (msg.sender != $.authority && msg.sender != $.announcements[actionHash].by) _checkEntryPointOrSelf();
        if ($.announcements[actionHash].executableAt == 0) revert NotAnnounced(actionHash);
        delete $.announcements[actionHash];
        emit AdminCancelled(actionHash);
    }

    /// @inheritdoc IRiskAccount
    function executeAdmin(bytes calldata data) external {
        RiskAccountStorage storage $ = _storage();
        bytes32 actionHash = keccak256(data);
        Announcement memory announcement = $.announcements[actionHash];
        RiskState state = _word().state;
        if (announcement.by == address(0)) {
            if (state == RiskState.FROZEN) revert NotInState(state);
        } else if (msg.sender != announcement.by || !_mayRecover(msg.sender)) {
            revert NotAnnouncer(msg.sender);
        }
        if (announcement.executableAt == 0) revert NotAnnounced(actionHash);
        if (block.timestamp < announcement.executableAt) revert TooEarly(announcement.executableAt);
        if (block.timestamp > announcement.executableAt + ADMIN_WINDOW || announcement.installs != $.installs) {
            revert Lapsed(actionHash);
        }
        delete $.announcements[actionHash];
        announced = true;
        if (!LowLevelCall.callNoReturn(address(this), 0, data)) LowLevelCall.bubbleRevert();
        emit AdminExecuted(actionHash);
    }
}
