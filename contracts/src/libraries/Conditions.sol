// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IPolicyHook} from "../interfaces/IPolicyHook.sol";

/// @title What a condition says of one argument
/// @notice The comparisons of `IPolicyHook.Condition`. What an allowance has left, whoever keeps it says.
library Conditions {
    /// Word index that means the native value of the call.
    uint16 internal constant VALUE_WORD = 0xffff;

    /// @notice Whether `condition` has the values that its kind needs.
    function isSound(IPolicyHook.Condition memory condition) internal pure returns (bool) {
        (IPolicyHook.Kind kind, uint256 count) = (condition.kind, condition.values.length);
        if (kind == IPolicyHook.Kind.IN_SET) return count != 0;
        if (kind == IPolicyHook.Kind.EQUAL || kind == IPolicyHook.Kind.ALLOWANCE) return count == 1;
        return count == (kind == IPolicyHook.Kind.SELF ? 0 : 2);
    }

    /// @notice The argument word `index` of a call; not `present` when the call is too short.
    function argument(uint16 index, uint256 value, bytes calldata data)
        internal
        pure
        returns (bool present, uint256 word)
    {
        if (index == VALUE_WORD) return (true, value);
        uint256 at = 4 + 32 * uint256(index);
        if (data.length < at + 32) return (false, 0);
        return (true, uint256(bytes32(data[at:at + 32])));
    }

    /// @notice Whether `word` satisfies a sound `condition` of any kind but `ALLOWANCE`.
    function compares(IPolicyHook.Condition memory condition, address account, uint256 word)
        internal
        pure
        returns (bool)
    {
        (IPolicyHook.Kind kind, bytes32[] memory values) = (condition.kind, condition.values);
        if (kind == IPolicyHook.Kind.SELF) return word == uint160(account);
        uint256 first = uint256(values[0]);
        if (kind == IPolicyHook.Kind.EQUAL) return word == first;
        if (kind == IPolicyHook.Kind.RANGE) return first <= word && word <= uint256(values[1]);
        if (kind == IPolicyHook.Kind.SIGNED_RANGE) {
            return int256(first) <= int256(word) && int256(word) <= int256(uint256(values[1]));
        }
        if (kind == IPolicyHook.Kind.MASK) return word & first == uint256(values[1]);
        for (uint256 i = 0; i < values.length; ++i) {
            if (word == uint256(values[i])) return true;
        }
        return false;
    }
}
