// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";

/// @title What validators read from a user operation
library UserOpLib {
    using ERC4337Utils for PackedUserOperation;

    /// Nonce lanes: the first byte of the four that follow the validator in the nonce key.
    uint8 internal constant LANE_OWNER = 0;
    uint8 internal constant LANE_ATTESTED = 1;
    uint8 internal constant LANE_KEEPER = 2;
    uint8 internal constant LANE_ESCAPE = 3;
    uint8 internal constant LANE_ROOT = 4;

    bytes32 private constant INTENT_TYPEHASH = keccak256(
        "Intent(address account,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
        "uint256 preVerificationGas,bytes32 gasFees)"
    );

    /// @dev Everything the operation does and may cost the account, without paymaster data and signature.
    function intentHash(PackedUserOperation calldata op) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                INTENT_TYPEHASH,
                op.sender,
                op.nonce,
                keccak256(op.initCode),
                keccak256(op.callData),
                op.accountGasLimits,
                op.preVerificationGas,
                op.gasFees
            )
        );
    }

    /// @dev The validator that the nonce key names (its high 20 bytes).
    function validatorOf(PackedUserOperation calldata op) internal pure returns (address) {
        return address(uint160(op.nonce >> 96));
    }

    /// @dev The kind of nonce lane (first byte of the lane).
    function laneOf(PackedUserOperation calldata op) internal pure returns (uint8) {
        return uint8(op.nonce >> 88);
    }

    /// @dev The most (wei) the entry point can charge the account for `op`: all gas limits times maxFeePerGas. The entry point keeps
    /// every factor below 2^120; anything larger reverts here.
    function requiredPrefund(PackedUserOperation calldata op) internal pure returns (uint256) {
        uint256 limits = uint256(op.accountGasLimits);
        uint256 gas = (limits >> 128) + uint128(limits) + op.preVerificationGas;
        if (op.paymasterAndData.length != 0) {
            gas += op.paymasterVerificationGasLimit() + op.paymasterPostOpGasLimit();
        }
        return gas * uint128(uint256(op.gasFees));
    }

    /// @dev The argument `executionCalldata` of `execute(bytes32 mode, bytes executionCalldata)` when `callData` is the canonical
    /// encoding of that call (no gaps, zero padding, nothing trailing), else `ok` is false.
    function decodeExecute(bytes calldata callData)
        internal
        pure
        returns (bool ok, bytes32 mode, bytes calldata executionCalldata)
    {
        executionCalldata = callData[0:0];
        if (callData.length < 100 || bytes4(callData[0:4]) != IERC7579Execution.execute.selector) {
            return (false, 0, executionCalldata);
        }
        mode = bytes32(callData[4:36]);
        uint256 length = uint256(bytes32(callData[68:100]));
        if (uint256(bytes32(callData[36:68])) != 0x40 || length > type(uint32).max) {
            return (false, 0, executionCalldata);
        }
        if (callData.length != 100 + ((length + 31) & ~uint256(31))) return (false, 0, executionCalldata);
        uint256 tail = length & 31;
        bool padded = tail == 0 || uint256(bytes32(callData[callData.length - 32:])) << (8 * tail) == 0;
        if (!padded) return (false, 0, executionCalldata);
        return (true, mode, callData[100:100 + length]);
    }
}
