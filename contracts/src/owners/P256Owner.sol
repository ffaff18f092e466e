// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC7913P256Verifier} from "@openzeppelin/contracts/utils/cryptography/verifiers/ERC7913P256Verifier.sol";

/// @title A P-256 key as owner
/// @notice ERC-7913 verifier: key = x (32) || y (32), signature = r (32) || s (32) over the 32-byte hash itself, s in the lower half. Asks
/// the precompile of RIP-7212 where there is one, else computes.
contract P256Owner is ERC7913P256Verifier {}
