// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title The marker of a validator that must not be bypassed
/// @notice A `RiskAccount` asks once, when a validator is installed; `true` closes its built-in owner path until that validator is
/// uninstalled.
interface IAttestedValidator {
    function requiresAttestation() external view returns (bool);
}
