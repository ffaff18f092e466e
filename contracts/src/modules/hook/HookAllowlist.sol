// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {Conditions} from "../../libraries/Conditions.sol";
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
            (bool present, uint256 word) = Conditions.argument(conditions[i].word, value, data);
            if (!present || !_holds(generation, account, conditions[i], word)) return false;
        }
        return true;
    }

    function _holds(uint32 generation, address account, Condition memory condition, uint256 word)
        private
        view
        returns (bool)
    {
        if (condition.kind == Kind.ALLOWANCE) {
            return word <= _accrued(_allowances[_allowanceKey(generation, condition.values[0])][account]).balance;
        }
        return Conditions.compares(condition, account, word);
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
            (, uint256 amount) = Conditions.argument(conditions[i].word, value, data);
            bytes32 id = conditions[i].values[0];
            AllowanceState storage kept = _allowances[_allowanceKey(generation, id)][account];
            AllowanceState memory state = _accrued(kept);
            // Two conditions of one alternative may take from one allowance.
            if (amount > state.balance) revert AllowanceExceeded(id, amount, state.balance);
            (kept.balance, kept.timestamp) = (state.balance - uint128(amount), state.timestamp);
        }
    }
}
