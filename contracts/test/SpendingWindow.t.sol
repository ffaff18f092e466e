// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {SpendingWindow} from "../src/libraries/SpendingWindow.sol";
import {Assertions} from "./Vm.sol";

/// The window arithmetic against the plainest thing that says the same: a list of all spendings.
contract SpendingWindowTest is Assertions {
    struct Entry {
        uint256 time;
        uint256 amount;
    }

    Entry[] private entries;

    function _config(IPolicyHook.Span span, uint32 duration, int16 shift, uint256 limit)
        private
        pure
        returns (uint256 config)
    {
        bool sound;
        (sound, config) = SpendingWindow.pack(IPolicyHook.Window(address(0xA55E7), span, duration, shift, limit));
        isTrue(sound, "window is sound");
    }

    function _sound(IPolicyHook.Span span, uint32 duration, int16 shift, uint256 limit)
        private
        pure
        returns (bool sound)
    {
        (sound,) = SpendingWindow.pack(IPolicyHook.Window(address(0), span, duration, shift, limit));
    }

    /// Plain: whatever falls into the seven youngest buckets, in whole units.
    function _plainRolling(uint32 duration, uint256 unit, uint256 time) private view returns (uint256 sum) {
        uint256 bucket = (uint256(duration) + 5) / 6;
        for (uint256 i = 0; i < entries.length; ++i) {
            if (entries[i].time / bucket + 7 > time / bucket) sum += (entries[i].amount + unit - 1) / unit * unit;
        }
    }

    function testFuzz_rolling_window_agrees_with_a_list_of_all_spendings(
        uint32 duration,
        uint32 mantissa,
        uint8 exponent,
        uint256 seed
    ) public {
        duration = uint32(bound(duration, 1, 400 days));
        uint256 limit = bound(mantissa, 1, 999_999_999) * 10 ** bound(exponent, 0, 20);
        uint256 config = _config(IPolicyHook.Span.ROLLING, duration, 0, limit);
        uint256 unit = SpendingWindow.unit(config);
        eq(SpendingWindow.limit(config), limit, "limit is exact");
        isTrue(unit <= limit / 429_496_729 + 1, "unit is below a 429,496,729th of the limit");
        uint256 time = 1_700_000_000;
        uint256 state = SpendingWindow.number(config, time);
        for (uint256 i = 0; i < 40; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            time += seed % 3 == 0 ? 0 : (seed >> 8) % (uint256(duration) / (seed % 2 == 0 ? 2 : 20) + 2);
            uint256 amount = (seed >> 64) % (limit / (1 + seed % 5) + 2);
            uint256 counted = _plainRolling(duration, unit, time);
            eq(SpendingWindow.spent(config, state, time), counted, "spent");
            bool fits = counted + (amount + unit - 1) / unit * unit <= limit;
            (bool within, uint256 charged) = SpendingWindow.charge(config, state, amount, time);
            isTrue(within == fits, "charge succeeds exactly when it fits");
            if (!within) continue;
            state = charged;
            entries.push(Entry(time, amount));
            _neverMoreThan(limit, duration);
        }
    }

    /// No `duration` seconds that end at a spending contain more than the limit.
    function _neverMoreThan(uint256 limit, uint256 duration) private view {
        uint256 end = entries[entries.length - 1].time;
        uint256 sum;
        for (uint256 i = 0; i < entries.length; ++i) {
            if (entries[i].time + duration >= end) sum += entries[i].amount;
        }
        isTrue(sum <= limit, "limit holds in every span of the duration");
    }

    function test_what_was_spent_counts_for_the_duration_and_at_most_a_sixth_more() public pure {
        uint256 config = _config(IPolicyHook.Span.ROLLING, 6 hours, 0, 100);
        uint256 start = 1_699_920_000; // the first second of a bucket
        (, uint256 state) = SpendingWindow.charge(config, SpendingWindow.number(config, start), 100, start);
        eq(SpendingWindow.spent(config, state, start + 6 hours), 100, "counts after exactly the duration");
        eq(SpendingWindow.spent(config, state, start + 7 hours - 1), 100, "counts until the seventh bucket ends");
        eq(SpendingWindow.spent(config, state, start + 7 hours), 0, "counts no longer");
        (bool within,) = SpendingWindow.charge(config, state, 1, start + 7 hours - 1);
        isTrue(!within, "full");
        (within,) = SpendingWindow.charge(config, state, 100, start + 7 hours);
        isTrue(within, "empty");
    }

    function test_amounts_are_rounded_up_to_the_unit() public pure {
        uint256 config = _config(IPolicyHook.Span.ROLLING, 1 days, 0, 1000 ether);
        eq(SpendingWindow.unit(config), 1e12, "unit");
        (, uint256 state) = SpendingWindow.charge(config, 0, 1, 1_700_000_000);
        eq(SpendingWindow.spent(config, state, 1_700_000_000), 1e12, "one unit");
        bool within;
        (within, state) = SpendingWindow.charge(config, state, 1000 ether - 1e12, 1_700_000_000);
        isTrue(within, "exactly the rest");
        (within,) = SpendingWindow.charge(config, state, 1, 1_700_000_000);
        isTrue(!within, "not a wei more");
    }

    function test_a_limit_that_cannot_be_kept_exactly_is_refused() public pure {
        isTrue(_sound(IPolicyHook.Span.DAY, 0, 0, type(uint32).max), "fits");
        isTrue(!_sound(IPolicyHook.Span.DAY, 0, 0, uint256(type(uint32).max) + 2), "does not");
        isTrue(_sound(IPolicyHook.Span.ROLLING, 1, 0, 123_456_789 ether), "nine digits");
        isTrue(!_sound(IPolicyHook.Span.ROLLING, 1, 0, 1 ether + 1), "nineteen digits");
        isTrue(!_sound(IPolicyHook.Span.ROLLING, 0, 0, 1), "no duration");
        isTrue(!_sound(IPolicyHook.Span.ROLLING, 1, 1, 1), "an offset without a calendar");
        isTrue(!_sound(IPolicyHook.Span.DAY, 1, 0, 1), "a calendar with a duration");
        isTrue(!_sound(IPolicyHook.Span.NONE, 1, 0, 1), "no span");
        isTrue(!_sound(IPolicyHook.Span.DAY, 0, 0, 10 ** 76), "no token has so much");
    }

    function testFuzz_pack_and_unpack_are_inverse(address asset, uint8 span, uint32 duration, int16 shift, uint32 limit)
        public
        pure
    {
        IPolicyHook.Window memory window = IPolicyHook.Window(asset, IPolicyHook.Span(span % 4 + 1), 0, shift, limit);
        if (window.span == IPolicyHook.Span.ROLLING) (window.duration, window.offsetMinutes) = (duration | 1, 0);
        (bool sound, uint256 config) = SpendingWindow.pack(window);
        isTrue(sound, "sound");
        eq(abi.encode(SpendingWindow.unpack(config)), abi.encode(window), "window");
    }

    // ---- calendars

    function test_a_day_begins_at_midnight_of_its_own_time_zone() public pure {
        uint256 noon = 1_699_963_200;
        uint256 config = _config(IPolicyHook.Span.DAY, 0, 0, 10);
        uint256 tokyo = _config(IPolicyHook.Span.DAY, 0, 9 * 60, 10);
        uint256 newYork = _config(IPolicyHook.Span.DAY, 0, -5 * 60, 10);
        eq(SpendingWindow.number(config, noon + 12 hours - 1), SpendingWindow.number(config, noon), "same day");
        eq(SpendingWindow.number(config, noon + 12 hours), SpendingWindow.number(config, noon) + 1, "next day");
        eq(SpendingWindow.number(tokyo, noon + 3 hours - 1), SpendingWindow.number(tokyo, noon), "same day");
        eq(SpendingWindow.number(tokyo, noon + 3 hours), SpendingWindow.number(tokyo, noon) + 1, "midnight in Tokyo");
        eq(SpendingWindow.number(newYork, noon + 17 hours - 1), SpendingWindow.number(newYork, noon), "same day");
        eq(SpendingWindow.number(newYork, noon + 17 hours), SpendingWindow.number(newYork, noon) + 1, "in New York");
    }

    function test_a_week_begins_on_monday_and_a_month_on_its_first() public pure {
        uint256 week = _config(IPolicyHook.Span.WEEK, 0, 0, 10);
        uint256 monday = 1_699_833_600; // 2023-11-13 00:00 UTC, a Monday
        eq(SpendingWindow.number(week, monday), SpendingWindow.number(week, monday - 1) + 1, "week");
        eq(SpendingWindow.number(week, monday), SpendingWindow.number(week, monday + 7 days - 1), "seven days");
        uint256 month = _config(IPolicyHook.Span.MONTH, 0, 0, 10);
        uint256 march = 1_709_251_200; // 2024-03-01 00:00 UTC, after a leap day
        eq(SpendingWindow.number(month, march), SpendingWindow.number(month, march - 1) + 1, "month");
        eq(SpendingWindow.number(month, march - 1), SpendingWindow.number(month, march - 29 days), "29 days");
        uint256 newYear = 1_704_067_200; // 2024-01-01
        eq(SpendingWindow.number(month, newYear), SpendingWindow.number(month, newYear - 1) + 1, "year");
    }

    function testFuzz_calendar_window_agrees_with_a_list_of_all_spendings(uint8 kind, int16 shift, uint256 seed)
        public
    {
        IPolicyHook.Span span = IPolicyHook.Span(2 + kind % 3);
        shift = int16(int256(bound(uint16(shift), 0, 1440)) - 720);
        uint256 config = _config(span, 0, shift, 1e18);
        uint256 time = 1_700_000_000;
        uint256 state = 0;
        for (uint256 i = 0; i < 40; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            time += (seed >> 8) % (span == IPolicyHook.Span.MONTH ? 12 days : 2 days);
            uint256 amount = (seed >> 64) % 7e17;
            uint256 counted;
            for (uint256 j = 0; j < entries.length; ++j) {
                bool same = SpendingWindow.number(config, entries[j].time) == SpendingWindow.number(config, time);
                if (same) counted += entries[j].amount;
            }
            eq(SpendingWindow.spent(config, state, time), counted, "spent");
            (bool within, uint256 charged) = SpendingWindow.charge(config, state, amount, time);
            isTrue(within == (counted + amount <= 1e18), "charge succeeds exactly when it fits");
            if (!within) continue;
            state = charged;
            entries.push(Entry(time, amount));
        }
    }

    function testFuzz_a_changed_limit_never_forgets_what_was_spent(uint32 first, uint32 second, uint256 amount)
        public
        pure
    {
        uint256 before = bound(first, 1, 999_999_999) * 1e9;
        uint256 then = bound(second, 1, 999_999_999) * 1e12;
        uint256 from = _config(IPolicyHook.Span.ROLLING, 1 days, 0, before);
        uint256 to = _config(IPolicyHook.Span.ROLLING, 1 days, 0, then);
        isTrue(SpendingWindow.alike(from, to), "alike");
        (bool within, uint256 state) = SpendingWindow.charge(from, 0, bound(amount, 0, before), 1_700_000_000);
        isTrue(within, "within");
        uint256 spent = SpendingWindow.spent(from, state, 1_700_000_000);
        uint256 carried = SpendingWindow.spent(to, SpendingWindow.carry(from, to, state), 1_700_000_000);
        // What no longer fits into a count saturates, and then the new window is full.
        isTrue(carried >= spent || carried >= then, "never less, unless full");
        isTrue(carried < spent + SpendingWindow.unit(to), "rounded up by less than a unit");
    }
}
