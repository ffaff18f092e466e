// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title Sponsorship by signature
/// @notice paymasterData = validUntil (6) || validAfter (6) || signature (65); or validUntil || validAfter alone, with the signature as the
/// paymaster's signature of entry point v0.9, which the operation's hash does not cover. The signer signs, under the EIP-712 domain
/// ("Seawall VerifyingPaymaster", "1", chainId, this): Sponsorship(address sender,uint256 nonce,bytes32 initCodeHash,
/// bytes32 callDataHash,bytes32 accountGasLimits,uint256 preVerificationGas,bytes32 gasFees,uint256 paymasterGasLimits,
/// uint48 validUntil,uint48 validAfter), where paymasterGasLimits = paymasterVerificationGasLimit << 128 | paymasterPostOpGasLimit.
/// A wrong signature is answered with SIG_VALIDATION_FAILED, never with a revert, so that gas can be estimated with a stub.
interface IVerifyingPaymaster {
    event SignerSet(address indexed signer, bool enabled);

    function isSigner(address signer) external view returns (bool);
    function setSigner(address signer, bool enabled) external;
}
