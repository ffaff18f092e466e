// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {RiskState} from "../interfaces/IRiskState.sol";

/// @title What stays open when an account is not ACTIVE
/// @notice Declared exits and guards of every account, and the question whether a call is one of them.
/// @dev Read by validators during validation, so every mapping has the account innermost (ERC-7562). An exit is stored as the hash of what it
/// binds; a call is looked up once for each argument mask that its target and selector use. Values carry the generation of the
/// installation, so that nothing of an earlier one survives.
abstract contract ExitRegistry is IEmergencyFreeze {
    error InvalidExit();

    /// Which argument masks occur among the exits of a target and selector: bit i of `masks` for mask i.
    struct Masks {
        uint256 masks;
        uint64 generation;
    }

    struct ExitEntry {
        uint64 generation;
        uint8 level;
    }

    uint8 private constant IN_REDUCE_ONLY = 1;
    uint8 private constant IN_FROZEN = 2;
    uint256 private constant PLAIN_VALUE_MASK = 256;

    mapping(address guard => mapping(address account => uint64 generation)) private _guards;
    mapping(bytes32 call => mapping(address account => Masks)) private _masks;
    mapping(bytes32 exitId => mapping(address account => ExitEntry)) private _exits;

    /// @dev The account's present installation; 0 when there is none.
    function _generationOf(address account) internal view virtual returns (uint64);

    /// @inheritdoc IEmergencyFreeze
    function isGuard(address account, address guard) public view returns (bool) {
        return _isCurrent(account, _guards[guard][account]);
    }

    /// @inheritdoc IEmergencyFreeze
    function isExit(address account, Exit calldata exit) external view returns (bool) {
        uint256 mask = exit.plainValue ? PLAIN_VALUE_MASK : exit.argMask;
        ExitEntry memory entry = _exits[_exitId(exit.target, exit.selector, mask, exit.args)][account];
        return _isCurrent(account, entry.generation) && entry.level == (exit.inFrozen ? IN_FROZEN : IN_REDUCE_ONLY);
    }

    /// @inheritdoc IEmergencyFreeze
    function permits(address account, RiskState state, address target, uint256 value, bytes calldata data)
        external
        view
        returns (bool)
    {
        return _permits(account, state, target, value, data);
    }

    function _permits(address account, RiskState state, address target, uint256 value, bytes memory data)
        internal
        view
        returns (bool)
    {
        if (state == RiskState.ACTIVE) return true;
        if (target == address(0) || target == account || _generationOf(account) == 0) return false;
        if (data.length == 0) {
            return _isExit(account, state, _exitId(target, bytes4(0), PLAIN_VALUE_MASK, new bytes32[](0)));
        }
        if (value != 0 || data.length < 4) return false;
        bytes4 selector = bytes4(data);
        if (target == address(this)) return selector == this.startEscape.selector;
        bool guardCall = (selector == IGuard.execute.selector || selector == IGuard.touch.selector) && data.length == 68
            && _word(data, 0) == bytes32(uint256(uint160(account)));
        if (guardCall && isGuard(account, target)) return true;

        Masks storage entry = _masks[_callKey(target, selector)][account];
        if (!_isCurrent(account, entry.generation)) return false;
        uint256 masks = entry.masks;
        for (uint256 mask = 0; masks != 0; (masks >>= 1, ++mask)) {
            if (masks & 1 == 0) continue;
            (bool enough, bytes32[] memory args) = _masked(data, mask);
            if (enough && _isExit(account, state, _exitId(target, selector, mask, args))) return true;
        }
        return false;
    }

    /// @dev The argument words that `mask` selects; not enough when the call data is too short to have them.
    function _masked(bytes memory data, uint256 mask) private pure returns (bool enough, bytes32[] memory args) {
        args = new bytes32[](_bits(mask));
        uint256 next = 0;
        for (uint256 i = 0; i < 8; ++i) {
            if (mask >> i & 1 == 0) continue;
            if (data.length < 36 + 32 * i) return (false, args);
            args[next++] = _word(data, i);
        }
        return (true, args);
    }

    /// @dev The i-th argument word after the selector. The caller has checked the length.
    function _word(bytes memory data, uint256 i) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := mload(add(add(data, 0x24), mul(i, 0x20)))
        }
    }

    function _bits(uint256 mask) private pure returns (uint256 count) {
        for (; mask != 0; mask &= mask - 1) {
            ++count;
        }
    }

    function _isExit(address account, RiskState state, bytes32 exitId) private view returns (bool) {
        ExitEntry memory entry = _exits[exitId][account];
        if (!_isCurrent(account, entry.generation)) return false;
        return entry.level >= (state == RiskState.FROZEN ? IN_FROZEN : IN_REDUCE_ONLY);
    }

    function _setExit(address account, Exit memory exit, bool enabled) internal {
        uint64 generation = _generationOf(account);
        bool sound = exit.target != address(0) && exit.target != account && exit.target != address(this)
            && exit.args.length == _bits(exit.argMask)
            && (!exit.plainValue || (exit.selector == bytes4(0) && exit.argMask == 0));
        if (!sound) revert InvalidExit();
        uint256 mask = exit.plainValue ? PLAIN_VALUE_MASK : exit.argMask;
        bytes32 exitId = _exitId(exit.target, exit.selector, mask, exit.args);
        _exits[exitId][account] =
            ExitEntry({generation: enabled ? generation : 0, level: exit.inFrozen ? IN_FROZEN : IN_REDUCE_ONLY});
        if (enabled && !exit.plainValue) {
            // A mask stays marked when its exits are gone: that costs a read and permits nothing.
            Masks storage entry = _masks[_callKey(exit.target, exit.selector)][account];
            if (entry.generation != generation) (entry.generation, entry.masks) = (generation, 0);
            entry.masks |= uint256(1) << exit.argMask;
        }
        emit ExitSet(account, exitId, exit, enabled);
    }

    function _exitId(address target, bytes4 selector, uint256 mask, bytes32[] memory args)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(target, selector, mask, args));
    }

    function _callKey(address target, bytes4 selector) private pure returns (bytes32) {
        return keccak256(abi.encode(target, selector));
    }

    function _setGuard(address account, address guard, bool enabled) internal {
        _guards[guard][account] = enabled ? _generationOf(account) : 0;
        emit GuardSet(account, guard, enabled);
    }

    /// @dev Whether a value marked with `generation` belongs to the present installation.
    function _isCurrent(address account, uint64 generation) internal view returns (bool) {
        return generation != 0 && generation == _generationOf(account);
    }
}
