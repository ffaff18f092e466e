// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {AccountConfig} from "./IRiskAccount.sol";

/// @title Deterministic deployment of risk accounts
/// @notice salt = keccak256(abi.encode(VERSION, keccak256(config.owner), keccak256(abi.encode(config)), userSalt)); no chain id, so
/// the same configuration has the same address on every chain that has the same factory.
interface IRiskAccountFactory {
    event AccountCreated(address indexed account, bytes32 indexed salt);

    /// @notice The account for this configuration, deployed if it was not yet. Idempotent.
    function createAccount(AccountConfig calldata config, bytes32 userSalt) external returns (address account);

    /// @notice The address `createAccount` gives.
    function getAccountAddress(AccountConfig calldata config, bytes32 userSalt) external view returns (address);

    /// @notice The `RiskAccount` implementation behind every account of this factory.
    function implementation() external view returns (address);
}
