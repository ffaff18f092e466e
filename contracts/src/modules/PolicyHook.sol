// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {
    IERC7579Execution,
    IERC7579Hook,
    IERC7579Module,
    IERC7579ModuleConfig,
    MODULE_TYPE_HOOK
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IEquityBreaker} from "../interfaces/IEquityBreaker.sol";
import {IPolicyHook} from "../interfaces/IPolicyHook.sol";
import {RiskState} from "../interfaces/IRiskState.sol";
import {ExecutionDecoder} from "../libraries/ExecutionDecoder.sol";
import {HookSpending} from "./hook/HookSpending.sol";

/// @title What an account may call and spend, enforced when nobody is watching
/// @notice ERC-7579 hook of any account that consults its hook before and after every execution (`RiskAccount`, OpenZeppelin's
/// `AccountERC7579Hooked`). It sees what the account executes, by whichever validator, executor or fallback handler: not what the entry point
/// charges for gas, not signatures (ERC-1271) and what they permit elsewhere, not allowances given before it was installed.
///
/// Declared exits and guards of the account's `EmergencyFreeze` pass whatever the rules and windows say. On an account without a risk state of
/// its own, the hook enforces the state that its authority keeps.
contract PolicyHook is HookSpending, IERC7579Hook {
    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        _install(abi.decode(data, (InstallData)));
    }

    /// @inheritdoc IERC7579Module
    function onUninstall(bytes calldata) external {
        _uninstall();
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_HOOK;
    }

    /// @inheritdoc IERC7579Hook
    function preCheck(address msgSender, uint256, bytes calldata msgData) external returns (bytes memory) {
        Account memory a = _accounts[msg.sender];
        if (a.flags & INSTALLED == 0) return "";
        Frame memory f = _frame(a);
        if (f.state & DEPTH == 0) {
            f.state = 0;
            _snapshot(f);
        } else {
            for (uint256 i = 0; i < f.flows.length; ++i) {
                f.flows[i] = _tload(msg.sender, FLOW_FIELD + i);
            }
        }
        ++f.state;
        bytes4 selector = bytes4(msgData);
        if (ExecutionDecoder.isExecution(selector)) {
            f.byExecutor = selector == IERC7579Execution.executeFromExecutor.selector;
            _checkExecution(f, a, msgSender, msgData);
        } else if (_isOwnRemoval(msgData)) {
            // An account that delays removals itself is not asked to wait twice; any other waits as long as for a change.
            if (a.flags & NATIVE == 0 && a.changeDelay != 0) _consumeAnnouncement(msg.sender, keccak256(msgData));
        } else {
            // Whoever calls a fallback handler's selector, or installs a module: a function of the account itself.
            _checkCall(f, a, address(0), 0, msgData);
        }
        if (a.flags & BREAKER != 0 && f.state & (DEPTH | NOT_EXIT) == 1 | NOT_EXIT) {
            IEquityBreaker(_breakers[msg.sender]).enter(msg.sender, f.state & NOT_REDUCING != 0);
        }
        _tstore(msg.sender, STATE_FIELD, f.state);
        for (uint256 i = 0; i < f.flows.length; ++i) {
            _tstore(msg.sender, FLOW_FIELD + i, f.flows[i]);
        }
        return "";
    }

    /// @inheritdoc IERC7579Hook
    function postCheck(bytes calldata) external {
        uint256 state = _tload(msg.sender, STATE_FIELD);
        if (state & DEPTH == 0) return;
        --state;
        _tstore(msg.sender, STATE_FIELD, state);
        if (state & DEPTH != 0) return;
        Account memory a = _accounts[msg.sender];
        if (a.flags & INSTALLED == 0) return _tstore(msg.sender, STATE_FIELD, 0);
        if (a.flags & BREAKER != 0 && state & (NOT_EXIT | EXITED) != 0) {
            IEquityBreaker(_breakers[msg.sender]).leave(msg.sender, state & NOT_EXIT != 0, state & NOT_REDUCING != 0);
        }
        if (state & NOT_EXIT == 0) return _tstore(msg.sender, STATE_FIELD, 0);
        Frame memory f = _frame(a);
        for (uint256 i = 0; i < f.flows.length; ++i) {
            f.flows[i] = _tload(msg.sender, FLOW_FIELD + i);
        }
        _charge(f, a);
        _tstore(msg.sender, STATE_FIELD, 0);
    }

    /// @inheritdoc IPolicyHook
    function executing(address account) external view returns (bool) {
        return _tload(account, STATE_FIELD) & DEPTH != 0;
    }

    // ------------------------------------------------------------------ inside

    function _frame(Account memory a) private view returns (Frame memory f) {
        f.account = msg.sender;
        f.state = _tload(msg.sender, STATE_FIELD);
        f.assets = new uint256[](a.windows);
        f.flows = new uint256[](a.windows);
        for (uint256 i = 0; i < a.windows; ++i) {
            f.assets[i] = _windowConfigs[i][msg.sender];
        }
    }

    function _checkExecution(Frame memory f, Account memory a, address msgSender, bytes calldata msgData) private {
        (bool batch, bytes calldata execution) = ExecutionDecoder.open(msgData);
        f.tried = msgData[5] != 0;
        bool byGuard = f.byExecutor && _isGuard(a, msgSender);
        uint256 count = 1;
        uint256 base;
        if (batch) (count, base) = ExecutionDecoder.count(execution);
        for (uint256 i = 0; i < count; ++i) {
            (address target, uint256 value, bytes calldata data) =
                batch ? ExecutionDecoder.item(execution, base, i) : ExecutionDecoder.single(execution);
            if (target == msg.sender) target = address(0);
            if (f.byExecutor && (target == address(0) || target == address(this))) revert ForbiddenTarget(target);
            if (target == address(this)) _checkOwnCall(value, data);
            else if (byGuard) f.state |= MEASURED;
            else _checkCall(f, a, target, value, data);
        }
    }

    /// @dev The account may call this module, whose changes keep their own delay, but never in the role of a hooked account.
    function _checkOwnCall(uint256 value, bytes calldata data) private view {
        bytes4 selector = bytes4(data);
        bool callback = selector == this.preCheck.selector || selector == this.postCheck.selector
            || selector == this.onInstall.selector || selector == this.onUninstall.selector;
        if (callback) revert ForbiddenTarget(address(this));
        if (value != 0) revert ValueNotAllowed(address(this), value);
    }

    /// @dev `target` zero is the account itself.
    function _checkCall(Frame memory f, Account memory a, address target, uint256 value, bytes calldata data) private {
        bytes4 selector = bytes4(data);
        if (data.length != 0 && data.length < 4) revert Undecodable();
        f.state |= MEASURED;
        if (target == address(0) && _isOwnRemoval(data)) return; // judged when the account comes back here with it
        bool enforced = a.flags & ENFORCED != 0;
        if (a.flags & NATIVE == 0 && a.authority != address(0)) {
            (RiskState state,) = IEmergencyFreeze(a.authority).stateOf(f.account);
            if (state != RiskState.ACTIVE) {
                if (!_isExit(a, state, target, value, data)) revert NotPermitted(target, selector);
                return _record(f, a, target, value, data, true);
            }
        }
        uint256 word;
        if (enforced) {
            word = _ruleWord(a, f.account, target, selector);
            if (word == 0) word = _ruleWord(a, f.account, target, ANY_SELECTOR);
        }
        bool exitFirst = !enforced || word >> 160 & EXIT_FIRST != 0;
        bool exit = exitFirst && _isExit(a, RiskState.REDUCE_ONLY, target, value, data);
        if (!exit && enforced) {
            bytes4 objection = _objection(a, f.account, f.byExecutor, word, value, data);
            if (objection != 0) {
                exit = !exitFirst && _isExit(a, RiskState.REDUCE_ONLY, target, value, data);
                if (!exit) _refuse(objection, target, selector, value);
            }
        }
        if (!exit) f.state |= word >> 160 & REDUCING != 0 ? NOT_EXIT : NOT_EXIT | NOT_REDUCING;
        _record(f, a, target, value, data, exit);
    }

    function _refuse(bytes4 objection, address target, bytes4 selector, uint256 value) private pure {
        if (objection == ValueNotAllowed.selector) revert ValueNotAllowed(target, value);
        if (objection == ConditionsFailed.selector) revert ConditionsFailed(target, selector);
        revert CallNotAllowed(target, selector);
    }

    /// @dev A hook must not veto its own removal.
    function _isOwnRemoval(bytes calldata data) private view returns (bool) {
        if (bytes4(data) != IERC7579ModuleConfig.uninstallModule.selector || data.length < 68) return false;
        return
            uint256(bytes32(data[4:36])) == MODULE_TYPE_HOOK && uint256(bytes32(data[36:68])) == uint160(address(this));
    }

    function _isExit(Account memory a, RiskState state, address target, uint256 value, bytes calldata data)
        private
        view
        returns (bool)
    {
        if (a.authority == address(0)) return false;
        try IEmergencyFreeze(a.authority).permits(msg.sender, state, target, value, data) returns (bool permitted) {
            return permitted;
        } catch {
            return false;
        }
    }

    function _isGuard(Account memory a, address executor) private view returns (bool) {
        if (a.authority == address(0)) return false;
        try IEmergencyFreeze(a.authority).isGuard(msg.sender, executor) returns (bool guard) {
            return guard;
        } catch {
            return false;
        }
    }
}
