// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {
    ERC7913WebAuthnVerifier
} from "@openzeppelin/contracts/utils/cryptography/verifiers/ERC7913WebAuthnVerifier.sol";

/// @title A passkey as owner
/// @notice ERC-7913 verifier: key = x (32) || y (32) of the authenticator's P-256 key, signature = abi.encode(r, s, challengeIndex, typeIndex,
/// authenticatorData, clientDataJSON) of an assertion whose challenge is the 32-byte hash (OpenZeppelin's WebAuthn.sol).
/// The user must have been present and verified.
contract WebAuthnOwner is ERC7913WebAuthnVerifier {}
