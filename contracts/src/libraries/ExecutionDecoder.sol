// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";

/// @title The calls inside an ERC-7579 execution, read so that nobody can read them otherwise
/// @notice Offsets may not leave the bytes they belong to, and addresses have no dirty bits: an encoding that would mean other calls to the
/// account than to its hook is refused.
library ExecutionDecoder {
    error Undecodable();

    /// @notice Whether `msgData` calls `execute` or `executeFromExecutor`.
    function isExecution(bytes4 selector) internal pure returns (bool) {
        return
            selector == IERC7579Execution.execute.selector || selector == IERC7579Execution.executeFromExecutor.selector;
    }

    /// @notice Mode and execution of a call to either function. Single and batch, default and try; nothing else.
    function open(bytes calldata msgData) internal pure returns (bool batch, bytes calldata execution) {
        if (msgData.length < 100 || uint256(bytes32(msgData[36:68])) != 0x40) revert Undecodable();
        uint256 mode = uint256(bytes32(msgData[4:36]));
        if (mode & ~(uint256(0x0101) << 240) != 0) revert Undecodable();
        uint256 length = uint256(bytes32(msgData[68:100]));
        if (length > msgData.length - 100) revert Undecodable();
        return (mode >> 248 == 1, msgData[100:100 + length]);
    }

    /// @notice The call of a single execution.
    function single(bytes calldata execution)
        internal
        pure
        returns (address target, uint256 value, bytes calldata data)
    {
        if (execution.length < 52) revert Undecodable();
        return (address(bytes20(execution[0:20])), uint256(bytes32(execution[20:52])), execution[52:]);
    }

    /// @notice How many calls a batch has, and where their offsets begin.
    function count(bytes calldata execution) internal pure returns (uint256 calls, uint256 base) {
        uint256 at = _offset(execution, 0, 0);
        calls = _word(execution, at);
        base = at + 32;
        if (calls > (execution.length - base) / 32) revert Undecodable();
    }

    /// @notice The `index`-th call of a batch.
    function item(bytes calldata execution, uint256 base, uint256 index)
        internal
        pure
        returns (address target, uint256 value, bytes calldata data)
    {
        uint256 at = _offset(execution, base + 32 * index, base);
        uint256 to = _word(execution, at);
        if (to >> 160 != 0) revert Undecodable();
        value = _word(execution, at + 32);
        uint256 begin = _offset(execution, at + 64, at);
        uint256 length = _word(execution, begin);
        if (length > execution.length - begin - 32) revert Undecodable();
        return (address(uint160(to)), value, execution[begin + 32:begin + 32 + length]);
    }

    /// @dev The position that the pointer at `position`, relative to `base`, points to.
    function _offset(bytes calldata execution, uint256 position, uint256 base) private pure returns (uint256) {
        uint256 offset = _word(execution, position);
        if (offset > execution.length) revert Undecodable();
        return base + offset;
    }

    function _word(bytes calldata execution, uint256 position) private pure returns (uint256) {
        if (position + 32 > execution.length) revert Undecodable();
        return uint256(bytes32(execution[position:position + 32]));
    }
}
