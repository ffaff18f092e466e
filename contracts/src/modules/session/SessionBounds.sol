// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IPolicyHook} from "../../interfaces/IPolicyHook.sol";
import {ISessionValidator} from "../../interfaces/ISessionValidator.sol";
import {Conditions} from "../../libraries/Conditions.sol";
import {SpendingWindow} from "../../libraries/SpendingWindow.sol";

/// @title Conditions on arguments, amounts and rates of a session
/// @notice `PolicyHook`'s conditions, decided during validation. What counts against a window is a `SpendingWindow` at the time that the operation
/// claims; the entry point makes the claim true.
abstract contract SessionBounds is ISessionValidator {
    uint256 private constant MAX_WINDOWS = 8;
    uint256 private constant MAX_ALTERNATIVES = 16;
    uint256 private constant MAX_CONDITIONS = 16;
    /// Added to the index of an allowance, so that no rate is counted where an allowance is.
    uint256 private constant ALLOWANCES = 0x100;

    /// What the windows of a session counted.
    mapping(bytes32 idAndIndex => mapping(address account => uint256)) private _counts;

    /// When an operation is to be included, both ends in one bucket of each window it is charged to.
    struct Times {
        uint256 from;
        uint256 until;
    }

    /// @dev Whether `bounds` decode to what can be decided.
    function _isSound(bytes memory encoded) internal pure returns (bool sound) {
        Bounds memory bounds = abi.decode(encoded, (Bounds));
        uint256 count = bounds.allowances.length;
        sound = bounds.rates.length <= MAX_WINDOWS && count <= MAX_WINDOWS && bounds.anyOf.length <= MAX_ALTERNATIVES
            && _areWindows(bounds.rates) && _areWindows(bounds.allowances);
        for (uint256 i = 0; sound && i < bounds.anyOf.length; ++i) {
            IPolicyHook.Condition[] memory all = bounds.anyOf[i];
            sound = all.length <= MAX_CONDITIONS;
            uint256 taken = 0;
            for (uint256 j = 0; sound && j < all.length; ++j) {
                sound = Conditions.isSound(all[j]);
                if (!sound || all[j].kind != IPolicyHook.Kind.ALLOWANCE) continue;
                uint256 index = uint256(all[j].values[0]);
                sound = index < count && taken >> index & 1 == 0;
                if (sound) taken |= 1 << index;
            }
        }
    }

    /// @dev Whether a call is within the bounds of session `id`; takes from its rates and from the allowances of the first alternative that
    /// holds. What was taken before `false` is undone with the operation.
    function _charge(
        bytes32 id,
        bytes calldata encoded,
        uint256 from,
        uint256 until,
        uint256 value,
        bytes calldata data
    ) internal returns (bool) {
        Bounds memory bounds = abi.decode(encoded, (Bounds));
        Times memory times = Times(from, until);
        for (uint256 i = 0; i < bounds.rates.length; ++i) {
            if (!_take(id, i, bounds.rates[i], 1, times, true)) return false;
        }
        if (bounds.anyOf.length == 0) return value == 0;
        for (uint256 i = 0; i < bounds.anyOf.length; ++i) {
            if (!_passes(id, bounds, bounds.anyOf[i], times, value, data, false)) continue;
            return _passes(id, bounds, bounds.anyOf[i], times, value, data, true);
        }
        return false;
    }

    /// @dev Whether all conditions hold; with `commit` the allowances are charged, otherwise only asked.
    function _passes(
        bytes32 id,
        Bounds memory bounds,
        IPolicyHook.Condition[] memory all,
        Times memory times,
        uint256 value,
        bytes calldata data,
        bool commit
    ) private returns (bool) {
        bool valued = value == 0;
        for (uint256 i = 0; i < all.length; ++i) {
            (bool present, uint256 word) = Conditions.argument(all[i].word, value, data);
            if (!present) return false;
            if (all[i].word == Conditions.VALUE_WORD) valued = true;
            if (all[i].kind == IPolicyHook.Kind.ALLOWANCE) {
                uint256 index = uint256(all[i].values[0]);
                if (!_take(id, ALLOWANCES + index, bounds.allowances[index], word, times, commit)) return false;
            } else if (!commit && !Conditions.compares(all[i], msg.sender, word)) {
                return false;
            }
        }
        return valued;
    }

    function _take(
        bytes32 id,
        uint256 index,
        IPolicyHook.Window memory window,
        uint256 amount,
        Times memory times,
        bool commit
    ) private returns (bool within) {
        (, uint256 config) = SpendingWindow.pack(window);
        if (SpendingWindow.number(config, times.from) != SpendingWindow.number(config, times.until)) return false;
        bytes32 place = keccak256(abi.encode(id, index));
        uint256 state = _counts[place][msg.sender];
        (within, state) = SpendingWindow.charge(config, state, amount, times.from);
        if (within && commit) _counts[place][msg.sender] = state;
    }

    function _areWindows(IPolicyHook.Window[] memory windows) private pure returns (bool sound) {
        sound = true;
        for (uint256 i = 0; sound && i < windows.length; ++i) {
            (sound,) = SpendingWindow.pack(windows[i]);
            sound = sound && windows[i].asset == address(0);
        }
    }
}
