// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {
    IERC7579Execution,
    IERC7579Module,
    MODULE_TYPE_EXECUTOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {OracleConfig} from "../../interfaces/IStopLoss.sol";

/// @title What every guard is beside its condition and its act
/// @notice An executor module, installed once for an account; what an account armed dies with its installation. An outside caller is paid for his
/// gas within two caps.
/// @dev Takes storage slot 0.
abstract contract GuardModule is IERC7579Module, ReentrancyGuardTransient {
    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    /// The caller is not the account; anyone may call from then on (0: `touch` it first).
    error NotPublicYet(uint48 publicAt);

    /// @param generation counts installations.
    struct Installation {
        uint32 generation;
        bool installed;
    }

    uint256 internal constant BPS = 10_000;
    /// Gas of an outside caller that `gasleft` does not see: the transaction itself and the refund.
    uint256 private constant UNSEEN_GAS = 45_000;
    bytes32 internal constant MODE_BATCH = bytes32(bytes1(0x01));
    bytes32 private constant MODE_SINGLE_TRY = bytes32(bytes2(0x0001));

    mapping(address account => Installation) private _installations;

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Installation storage installation = _installations[msg.sender];
        if (installation.installed) revert AlreadyInstalled(msg.sender);
        (installation.installed, installation.generation) = (true, installation.generation + 1);
        if (data.length != 0) _armAll(data);
    }

    /// @inheritdoc IERC7579Module
    /// @dev Everything armed dies with the installation.
    function onUninstall(bytes calldata) external {
        _requireInstalled();
        _installations[msg.sender].installed = false;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_EXECUTOR;
    }

    /// @dev Arm what `data` of an installation lists. Asks nobody, so that a guard can be armed in the operation that creates the account.
    function _armAll(bytes calldata data) internal virtual;

    function _requireInstalled() internal view {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
    }

    function _generation(address account) internal view returns (uint32) {
        return _installations[account].generation;
    }

    /// @dev Whether what was armed in `generation` still counts.
    function _isLive(address account, uint32 generation) internal view returns (bool) {
        Installation memory installation = _installations[account];
        return installation.installed && generation == installation.generation;
    }

    /// @dev Others than the account may act `delay` seconds after `began` (0: not recorded).
    function _requirePublic(uint48 began, uint32 delay) internal view {
        uint48 publicAt = began == 0 ? 0 : began + delay;
        if (began == 0 || block.timestamp < publicAt) revert NotPublicYet(publicAt);
    }

    /// @dev Pay an outside caller for his gas, within both caps. A refund that cannot be paid undoes nothing.
    function _refund(address account, uint256 gasBefore, uint256 bps, uint256 cap) internal {
        if (msg.sender == account) return;
        uint256 refund = (gasBefore - gasleft() + UNSEEN_GAS) * tx.gasprice * bps / BPS;
        if (refund > cap) refund = cap;
        if (refund == 0 || refund > account.balance) return;
        IERC7579Execution(account).executeFromExecutor(MODE_SINGLE_TRY, abi.encodePacked(msg.sender, refund));
    }

    function _isOracle(OracleConfig memory oracle) internal view returns (bool) {
        return oracle.feed.code.length != 0 && oracle.heartbeat != 0 && oracle.minPrice != 0
            && oracle.minPrice <= oracle.maxPrice
            && (oracle.sequencerFeed == address(0) || oracle.sequencerFeed.code.length != 0);
    }
}
