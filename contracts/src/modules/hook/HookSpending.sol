// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IEquityBreaker} from "../../interfaces/IEquityBreaker.sol";
import {SpendingWindow} from "../../libraries/SpendingWindow.sol";
import {HookAllowlist} from "./HookAllowlist.sol";

/// @title What leaves the account
/// @notice Measured once per outermost execution. Counted in every window of an asset is the larger of
/// (a) what its calls, nested executor calls included, visibly send: `transfer` and `transferFrom` of the account's tokens to others,
///     native value, amounts approved at Permit2; and
/// (b) by how much its balance fell, whichever way that went (routers that pull, burns, unwraps, fees);
/// plus (c) the increase of every allowance that the execution leaves standing, when it is given (its later use by the spender outside an
/// execution is not seen). What flows in during the execution offsets (b) and never (a) or (c). Declared exits and guards are not counted.
/// @dev What is seen between the outermost `preCheck` and its `postCheck` is kept in transient storage at account << 96 | field.
abstract contract HookSpending is HookAllowlist {
    /// What is measured of one execution. `assets` are the configs of the windows, whose low 160 bits are the asset.
    /// @param out by asset: what was visibly sent (low 128 bits), and what left along exits (high 128 bits); both saturate.
    struct Frame {
        address account;
        bool byExecutor;
        /// Try mode: what the execution names may not happen.
        bool tried;
        uint256 state;
        uint256[] assets;
        uint256[] flows;
    }

    struct Touched {
        address token;
        address spender;
        uint256 before;
    }

    bytes4 private constant INCREASE_ALLOWANCE = bytes4(keccak256("increaseAllowance(address,uint256)"));
    bytes4 private constant INCREASE_APPROVAL = bytes4(keccak256("increaseApproval(address,uint256)"));
    bytes4 private constant SET_APPROVAL_FOR_ALL = bytes4(keccak256("setApprovalForAll(address,bool)"));
    bytes4 private constant PERMIT2_APPROVE = bytes4(keccak256("approve(address,address,uint160,uint48)"));

    /// Gas that a question to an asset may cost.
    uint256 private constant READ_GAS = 200_000;
    uint256 internal constant UNREADABLE = type(uint256).max;

    // state: depth 8 | allowances touched 8 | the bits below.
    uint256 internal constant DEPTH = 0xff;
    uint256 private constant TOUCHED_UNIT = 1 << 8;
    /// Some call is neither a declared exit nor a guard's nor to this module.
    uint256 internal constant NOT_EXIT = 1 << 16;
    /// Some call may increase risk.
    uint256 internal constant NOT_REDUCING = 1 << 17;
    /// Some call goes elsewhere than to this module.
    uint256 internal constant MEASURED = 1 << 18;
    /// The breaker was told of an exit.
    uint256 internal constant EXITED = 1 << 19;

    uint256 internal constant STATE_FIELD = 0;
    uint256 internal constant BALANCE_FIELD = 0x100;
    uint256 internal constant FLOW_FIELD = 0x200;
    uint256 private constant TOUCHED_FIELD = 0x300;

    error TooManyApprovals();

    function _requireUnmeasured() internal view override {
        if (_tload(msg.sender, STATE_FIELD) & MEASURED != 0) revert NotAlone();
    }

    // ------------------------------------------------------------------ before

    /// @dev Remember the balances that the outermost execution begins with.
    function _snapshot(Frame memory f) internal {
        for (uint256 i = 0; i < f.assets.length; ++i) {
            uint256 balance = _sameAsBefore(f, i)
                ? _tload(f.account, BALANCE_FIELD + i - 1)
                : _balance(SpendingWindow.asset(f.assets[i]), f.account);
            _tstore(f.account, BALANCE_FIELD + i, balance);
        }
    }

    /// @dev Note what `target` is told to send or to let others take.
    function _record(Frame memory f, Account memory a, address target, uint256 value, bytes calldata data, bool exit)
        internal
    {
        if (exit && a.flags & BREAKER != 0) {
            f.state |= EXITED;
            IEquityBreaker(_breakers[f.account]).exiting(f.account, target, value, data);
        }
        if (value != 0 && target != address(0)) _flow(f, address(0), value, exit);
        if (data.length < 68) return;
        bytes4 selector = bytes4(data);
        (uint256 first, uint256 second) = (uint256(bytes32(data[4:36])), uint256(bytes32(data[36:68])));
        if (selector == IERC20.transfer.selector) {
            if (first != uint160(f.account)) _flow(f, target, second, exit);
        } else if (selector == IERC20.transferFrom.selector && data.length >= 100) {
            // Tokens differ in what they make of dirty high bits: those of `from` never hide a transfer, those of `to` never excuse one.
            if (uint160(first) == uint160(f.account) && second != uint160(f.account)) {
                _flow(f, target, uint256(bytes32(data[68:100])), exit);
            }
        } else if (exit) {
            return;
        } else if (selector == IERC20.approve.selector) {
            _checkApproval(f, a, target, address(uint160(first)), second, false);
        } else if (selector == INCREASE_ALLOWANCE || selector == INCREASE_APPROVAL) {
            _checkApproval(f, a, target, address(uint160(first)), second, true);
        } else if (selector == SET_APPROVAL_FOR_ALL) {
            if (second != 0 && _capOf(a.generation, f.account, target, address(uint160(first))) != UNLIMITED) {
                revert ApprovalNotAllowed(target, address(uint160(first)), second, 0);
            }
        } else if (selector == PERMIT2_APPROVE && data.length >= 132) {
            uint256 amount = uint256(bytes32(data[68:100]));
            (address token, address spender) = (address(uint160(first)), address(uint160(second)));
            uint128 cap = _capOf(a.generation, f.account, token, spender);
            if (cap == UNLIMITED) return;
            if (amount > cap) revert ApprovalNotAllowed(token, spender, amount, cap);
            _flow(f, token, amount, false);
        }
    }

    function _checkApproval(
        Frame memory f,
        Account memory a,
        address token,
        address spender,
        uint256 amount,
        bool isIncrease
    ) private {
        if (amount == 0) return;
        uint128 cap = _capOf(a.generation, f.account, token, spender);
        if (cap == UNLIMITED) return;
        uint256 before = _allowance(token, f.account, spender);
        if (before == UNREADABLE) before = 0;
        bool within = amount <= cap && (!isIncrease || before <= cap - amount);
        if (!within) revert ApprovalNotAllowed(token, spender, amount, cap);
        uint256 count = f.state >> 8 & 0xff;
        for (uint256 i = 0; i < count; ++i) {
            Touched memory known = _touched(f.account, i);
            if (known.token == token && known.spender == spender) return;
        }
        if (count == 0xff) revert TooManyApprovals();
        uint256 field = TOUCHED_FIELD + 3 * count;
        _tstore(f.account, field, uint160(token));
        _tstore(f.account, field + 1, uint160(spender));
        _tstore(f.account, field + 2, before);
        f.state += TOUCHED_UNIT;
    }

    // ------------------------------------------------------------------ after

    /// @dev Charge the first `windows` assets of `f` with what left. Reverts when a window has too little.
    function _charge(Frame memory f, Account memory a) internal {
        uint256[] memory standing = _standing(f, a);
        uint256 balance;
        for (uint256 i = 0; i < a.windows; ++i) {
            uint256 config = f.assets[i];
            address asset = SpendingWindow.asset(config);
            if (!_sameAsBefore(f, i)) balance = _balance(asset, f.account);
            uint256 before = _tload(f.account, BALANCE_FIELD + i);
            if (before == UNREADABLE || balance == UNREADABLE) revert BalanceUnreadable(asset);
            uint256 flow = f.flows[i];
            uint256 amount = before > balance ? before - balance : 0;
            amount = amount > flow >> 128 ? amount - (flow >> 128) : 0;
            if (uint128(flow) > amount) amount = uint128(flow);
            amount += standing[i];
            if (amount == 0) continue;
            uint256 state = _windowStates[i][f.account];
            (bool within, uint256 charged) = SpendingWindow.charge(config, state, amount, block.timestamp);
            if (!within) {
                uint256 spent = SpendingWindow.spent(config, state, block.timestamp);
                uint256 most = SpendingWindow.limit(config);
                revert SpendingExceeded(asset, i, amount, spent < most ? most - spent : 0);
            }
            _windowStates[i][f.account] = charged;
            emit Spent(f.account, asset, i, amount);
        }
    }

    /// @dev By window, the increase of the allowances that are left standing; saturated below 2^128 each.
    function _standing(Frame memory f, Account memory a) private view returns (uint256[] memory standing) {
        standing = new uint256[](a.windows);
        uint256 count = f.state >> 8 & 0xff;
        for (uint256 i = 0; i < count; ++i) {
            Touched memory known = _touched(f.account, i);
            uint256 left = _allowance(known.token, f.account, known.spender);
            if (left == UNREADABLE) revert BalanceUnreadable(known.token);
            if (left <= known.before) continue;
            uint128 cap = _capOf(a.generation, f.account, known.token, known.spender);
            if (cap == UNLIMITED) continue;
            if (left > cap) revert ApprovalNotAllowed(known.token, known.spender, left, cap);
            for (uint256 j = 0; j < standing.length; ++j) {
                if (SpendingWindow.asset(f.assets[j]) == known.token) standing[j] += left - known.before;
            }
        }
    }

    // ------------------------------------------------------------------ inside

    function _flow(Frame memory f, address asset, uint256 amount, bool exit) private pure {
        // An exit that may fail excuses nothing: what leaves by it is measured as spending.
        if (exit && f.tried) return;
        unchecked {
            if (amount > type(uint128).max) amount = type(uint128).max;
            for (uint256 i = 0; i < f.assets.length; ++i) {
                if (SpendingWindow.asset(f.assets[i]) != asset) continue;
                (uint256 sent, uint256 exited) = (uint128(f.flows[i]), f.flows[i] >> 128);
                if (exit) exited = exited + amount > type(uint128).max ? type(uint128).max : exited + amount;
                else sent = sent + amount > type(uint128).max ? type(uint128).max : sent + amount;
                f.flows[i] = sent | exited << 128;
            }
        }
    }

    /// @dev Windows of one asset usually stand side by side.
    function _sameAsBefore(Frame memory f, uint256 i) private pure returns (bool) {
        return i != 0 && uint160(f.assets[i]) == uint160(f.assets[i - 1]);
    }

    function _touched(address account, uint256 index) private view returns (Touched memory) {
        uint256 field = TOUCHED_FIELD + 3 * index;
        return Touched({
            token: address(uint160(_tload(account, field))),
            spender: address(uint160(_tload(account, field + 1))),
            before: _tload(account, field + 2)
        });
    }

    /// @dev `UNREADABLE` when the asset fails to answer, or answers a number that no balance reaches.
    function _balance(address asset, address account) internal view returns (uint256) {
        if (asset == address(0)) return account.balance;
        return _ask(asset, abi.encodeCall(IERC20.balanceOf, (account)));
    }

    function _allowance(address token, address account, address spender) private view returns (uint256) {
        return _ask(token, abi.encodeCall(IERC20.allowance, (account, spender)));
    }

    function _ask(address asset, bytes memory question) private view returns (uint256 answer) {
        bool answered;
        assembly ("memory-safe") {
            answered := staticcall(READ_GAS, asset, add(question, 0x20), mload(question), 0, 0x20)
            answered := and(answered, gt(returndatasize(), 0x1f))
            answer := mload(0)
        }
        if (!answered) return UNREADABLE;
    }

    function _tload(address account, uint256 field) internal view returns (uint256 word) {
        assembly ("memory-safe") {
            word := tload(or(shl(96, account), field))
        }
    }

    function _tstore(address account, uint256 field, uint256 word) internal {
        assembly ("memory-safe") {
            tstore(or(shl(96, account), field), word)
        }
    }
}
