// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IEntryPoint} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Create2} from "@openzeppelin/contracts/utils/Create2.sol";
import {AccountConfig} from "../interfaces/IRiskAccount.sol";
import {IRiskAccountFactory} from "../interfaces/IRiskAccountFactory.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";
import {AccountProxy} from "./AccountProxy.sol";
import {RiskAccount} from "./RiskAccount.sol";

/// @title Deterministic deployment of risk accounts
/// @notice Deploys upgradeable proxies (see `AccountProxy`). Deployed through the CREATE2 deployer with the same arguments it has the same address
/// on every chain, and so have its accounts. An account's creation writes storage of its modules that belongs to the account, which
/// ERC-7562 [STO-022] allows in an operation only when the factory is staked; its owner manages that stake and nothing else.
contract RiskAccountFactory is IRiskAccountFactory, Ownable {
    /// The first word of every salt.
    bytes32 public constant VERSION = "seawall.account.1";

    /// @inheritdoc IRiskAccountFactory
    address public immutable implementation;
    /// The entry point of the implementation, where the stake lies.
    IEntryPoint public immutable entryPoint;

    /// @param implementation_ a `RiskAccount`.
    /// @param owner_ who manages the stake.
    constructor(address payable implementation_, address owner_) Ownable(owner_) {
        implementation = implementation_;
        entryPoint = RiskAccount(implementation_).entryPoint();
    }

    /// @inheritdoc IRiskAccountFactory
    function createAccount(AccountConfig calldata config, bytes32 userSalt) external returns (address account) {
        bytes32 salt = _salt(config, userSalt);
        bytes memory code = _creationCode(config);
        account = Create2.computeAddress(salt, keccak256(code));
        if (account.code.length != 0) return account;
        OwnerLib.decode(config.owner);
        Create2.deploy(0, salt, code);
        if (_isUnfinished(config)) RiskAccount(payable(account)).initialize(config);
        emit AccountCreated(account, salt);
    }

    /// @inheritdoc IRiskAccountFactory
    function getAccountAddress(AccountConfig calldata config, bytes32 userSalt) external view returns (address) {
        return Create2.computeAddress(_salt(config, userSalt), keccak256(_creationCode(config)));
    }

    /// @notice Lock the sent value as stake for at least `unstakeDelaySec`.
    function addStake(uint32 unstakeDelaySec) external payable onlyOwner {
        entryPoint.addStake{value: msg.value}(unstakeDelaySec);
    }

    /// @notice Begin to withdraw the stake.
    function unlockStake() external onlyOwner {
        entryPoint.unlockStake();
    }

    /// @notice Withdraw the unlocked stake.
    function withdrawStake(address payable to) external onlyOwner {
        entryPoint.withdrawStake(to);
    }

    /// @dev Modules and an authority do not fit into the code: the account is told about them right after its birth.
    function _isUnfinished(AccountConfig calldata config) private pure returns (bool) {
        return config.modules.length != 0 || config.authority != address(0);
    }

    function _creationCode(AccountConfig calldata config) private view returns (bytes memory) {
        bytes calldata owner = config.owner;
        if (owner.length < 21) revert OwnerLib.InvalidOwner(owner);
        uint8 kind = uint8(owner[0]) | (_isUnfinished(config) ? AccountProxy.UNFINISHED : 0);
        return AccountProxy.creationCode(
            implementation,
            abi.encodePacked(
                kind,
                bytes20(owner[1:21]),
                AccountProxy.saturate(config.prefundCaps[0]),
                AccountProxy.saturate(config.prefundCaps[1]),
                AccountProxy.saturate(config.prefundCaps[2]),
                config.adminDelay,
                owner[21:]
            )
        );
    }

    function _salt(AccountConfig calldata config, bytes32 userSalt) private pure returns (bytes32) {
        return keccak256(abi.encode(VERSION, keccak256(config.owner), keccak256(abi.encode(config)), userSalt));
    }
}
