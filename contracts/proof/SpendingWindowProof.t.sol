// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {SpendingWindow} from "../src/libraries/SpendingWindow.sol";
import {Symbolic} from "./Symbolic.sol";

/// The arithmetic of spending windows, for all counts in all buckets, every amount, and every distance in buckets between two moments.
///
/// By induction over charges: what is counted never exceeds the limit (`a_charge_counts_exactly...`), and what was charged goes on
/// counting for the whole duration (`what_was_charged_counts...` and `a_duration_spans...`), so within any duration no more than the limit
/// is charged.
/// Bounds: limits of 10,000 and 2^32 - 1 units of one (rounding up to larger units is fuzzed in SpendingWindow.t.sol); a duration of six
/// buckets of 512 s at one moment. Which bucket a moment is in is proved apart, for times below 2^40.
contract SpendingWindowProof is Symbolic {
    uint256 private constant BUCKET = 512;
    uint256 private constant TIME = 1_700_000_000;

    function _config(uint256 mantissa) private pure returns (uint256) {
        return uint256(1) << 160 | mantissa << 176 | 6 * BUCKET << 208;
    }

    /// One of 0 ... most, as a number that each path knows.
    function _oneOf(uint256 most, string memory name) private pure returns (uint256) {
        uint256 any = svm.createUint(4, name);
        for (uint256 i = 0; i < most; ++i) {
            if (any == i) return i;
        }
        return most;
    }

    /// Any counts within the limit, last written `ago` buckets before now.
    function _state(uint256 mantissa, uint256 ago) private pure returns (uint256 state) {
        uint256 sum = 0;
        for (uint256 i = 1; i <= 7; ++i) {
            uint256 count = svm.createUint(32, "count");
            sum += count;
            state |= count << (32 * i);
        }
        vm.assume(sum <= mantissa);
        state |= TIME / BUCKET - ago;
    }

    function _charges(uint256 mantissa) private pure {
        uint256 config = _config(mantissa);
        uint256 state = _state(mantissa, _oneOf(8, "ago"));
        uint256 amount = svm.createUint256("amount");
        uint256 before = SpendingWindow.spent(config, state, TIME);
        assert(before <= mantissa);
        (bool within, uint256 charged) = SpendingWindow.charge(config, state, amount, TIME);
        assert(within == (amount <= mantissa && before + amount <= mantissa));
        if (!within) return;
        // Each step is small enough for the solver, and is known to the next.
        uint256 advanced = SpendingWindow.advance(config, state, TIME);
        uint256 youngest = uint32(advanced >> 32);
        assert(youngest <= before);
        assert(youngest + amount <= mantissa);
        assert(charged == advanced + (amount << 32));
        assert(uint32(charged) == uint32(advanced) && charged >> 64 == advanced >> 64);
        assert(uint32(charged >> 32) == youngest + amount);
        assert(SpendingWindow.spent(config, charged, TIME) == before + amount);
    }

    function check_a_charge_counts_exactly_and_never_beyond_the_limit() external pure {
        _charges(10_000);
    }

    function check_a_charge_counts_exactly_and_never_beyond_the_largest_limit() external pure {
        _charges(type(uint32).max);
    }

    function check_what_was_charged_counts_for_the_next_six_buckets() external pure {
        uint256 config = _config(type(uint32).max);
        uint256 state = _state(type(uint32).max, _oneOf(8, "ago"));
        uint256 amount = svm.createUint(32, "amount");
        (bool within, uint256 charged) = SpendingWindow.charge(config, state, amount, TIME);
        uint256 later = _oneOf(6, "later");
        if (within) assert(SpendingWindow.spent(config, charged, TIME + later * BUCKET) >= amount);
    }

    function check_time_alone_never_adds_and_empties_after_seven_buckets() external pure {
        uint256 config = _config(type(uint32).max);
        uint256 state = _state(type(uint32).max, 0);
        uint256 later = _oneOf(8, "later");
        uint256 then = SpendingWindow.spent(config, state, TIME + later * BUCKET);
        assert(then <= SpendingWindow.spent(config, state, TIME));
        if (later >= 7) assert(then == 0);
    }

    function check_a_duration_spans_six_buckets_at_most() external pure {
        uint256 config = _config(1);
        uint256 time = svm.createUint(40, "time");
        uint256 later = svm.createUint(41, "later");
        vm.assume(time <= later && later <= time + 6 * BUCKET);
        uint256 first = SpendingWindow.number(config, time);
        assert(SpendingWindow.number(config, later) - first <= 6);
    }

    /// Calendar windows keep one exact sum. Days; weeks and months differ in `number` alone.
    function check_a_calendar_window_sums_exactly_and_begins_anew() external pure {
        uint256 config = uint256(2) << 160 | uint256(type(uint32).max) << 176;
        uint256 sum = svm.createUint(32, "sum");
        uint256 ago = _oneOf(1, "ago");
        uint256 state = sum << 32 | (TIME / 1 days - ago);
        uint256 amount = svm.createUint256("amount");
        uint256 before = SpendingWindow.spent(config, state, TIME);
        assert(before == (ago == 0 ? sum : 0));
        (bool within, uint256 charged) = SpendingWindow.charge(config, state, amount, TIME);
        assert(within == (amount <= type(uint32).max && before + amount <= type(uint32).max));
        if (!within) return;
        assert(SpendingWindow.spent(config, charged, TIME) == before + amount);
        assert(SpendingWindow.spent(config, charged, TIME + 1 days) == 0);
    }
}
