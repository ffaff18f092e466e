// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";

/// @title The marker of a validator that must not be bypassed
/// @notice A `RiskAccount` asks once, when a validator is installed; `true` closes its built-in owner path until that validator is
/// uninstalled.
interface IAttestedValidator {
    function requiresAttestation() external view returns (bool);

    /// @notice `IERC7579Validator.validateUserOp` for an account that says itself what it would be asked. Called by the account.
    /// @param entryPoint of the account. @param owner the secp256k1 key that owns it, zero: ask `isOwnerSignature`.
    function validateAttested(
        PackedUserOperation calldata userOp,
        bytes32 userOpHash,
        address entryPoint,
        address owner
    ) external view returns (uint256 validationData);
}
