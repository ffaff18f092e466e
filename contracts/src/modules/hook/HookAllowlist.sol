// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {HookConfig} from "./HookConfig.sol";

/// @title Which calls are permitted
abstract contract HookAllowlist is HookConfig {
    /// @dev The selector of the error that speaks against the call, 0 when it is permitted; takes from the allowances that its conditions
    /// name. `target` zero is the account itself.
    function _objection(
        Account memory a,
        address account,
        bool byExecutor,
        uint256 word,
        uint256 value,
        bytes calldata data
    ) internal returns (bytes4) {
        if (word == 0) return CallNotAllowed.selector;
        uint256 flags = word >> 160;
        if (byExecutor && flags & NO_EXECUTOR != 0) return CallNotAllowed.selector;
        if (value != 0 && flags & PAYABLE == 0) return ValueNotAllowed.selector;
        address pointer = address(uint160(word));
        if (pointer == address(0)) return 0;
        Condition[][] memory anyOf = abi.decode(SSTORE2.read(pointer), (Condition[][]));
        for (uint256 i = 0; i < anyOf.length; ++i) {
            if (_allHold(a.generation, account, anyOf[i], value, data)) {
                _takeAllowances(a.generation, account, anyOf[i], value, data);
                return 0;
            }
        }
        return ConditionsFailed.selector;
    }

    function _allHold(
        uint32 generation,
        address account,
        Condition[] memory conditions,
        uint256 value,
        bytes calldata data
    ) private view returns (bool) {
        for (uint256 i = 0; i < conditions.length; ++i) {
            (bool present, uint256 word) = _argument(conditions[i].word, value, data);
            if (!present || !_holds(generation, account, conditions[i], word)) return false;
        }
        return true;
    }

    function _holds(uint32 generation, address account, Condition memory condition, uint256 word)
        private
        view
        returns (bool)
    {
        (Kind kind, bytes32[] memory values) = (condition.kind, condition.values);
        if (kind == Kind.SELF) return word == uint160(account);
        uint256 first = uint256(values[0]);
        if (kind == Kind.EQUAL) return word == first;
        if (kind == Kind.RANGE) return first <= word && word <= uint256(values[1]);
        if (kind == Kind.SIGNED_RANGE) {
            return int256(first) <= int256(word) && int256(word) <= int256(uint256(values[1]));
        }
        if (kind == Kind.MASK) return word & first == uint256(values[1]);
        if (kind == Kind.ALLOWANCE) {
            return word <= _accrued(_allowances[_allowanceKey(generation, values[0])][account]).balance;
        }
        for (uint256 i = 0; i < values.length; ++i) {
            if (word == uint256(values[i])) return true;
        }
        return false;
    }

    function _takeAllowances(
        uint32 generation,
        address account,
        Condition[] memory conditions,
        uint256 value,
        bytes calldata data
    ) private {
        for (uint256 i = 0; i < conditions.length; ++i) {
            if (conditions[i].kind != Kind.ALLOWANCE) continue;
            (, uint256 amount) = _argument(conditions[i].word, value, data);
            bytes32 id = conditions[i].values[0];
            AllowanceState storage kept = _allowances[_allowanceKey(generation, id)][account];
            AllowanceState memory state = _accrued(kept);
            // Two conditions of one alternative may take from one allowance.
            if (amount > state.balance) revert AllowanceExceeded(id, amount, state.balance);
            (kept.balance, kept.timestamp) = (state.balance - uint128(amount), state.timestamp);
        }
    }

    function _argument(uint16 index, uint256 value, bytes calldata data)
        private
        pure
        returns (bool present, uint256 word)
    {
        if (index == VALUE_WORD) return (true, value);
        uint256 at = 4 + 32 * uint256(index);
        if (data.length < at + 32) return (false, 0);
        return (true, uint256(bytes32(data[at:at + 32])));
    }
}
