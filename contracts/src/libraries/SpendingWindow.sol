// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {DateTimeLib} from "solady/utils/DateTimeLib.sol";
import {IPolicyHook} from "../interfaces/IPolicyHook.sol";

/// @title Spending within a span of time, in two words
/// @notice `config` is what was set, `state` what was spent.
///
/// ROLLING: seven buckets of ceil(duration / 6) seconds, each counting units of 10^exponent, every amount rounded up to a whole unit. All
/// seven count, and any `duration` seconds lie within seven buckets, so no more than `limit` is ever spent in any `duration` seconds. An
/// amount stops counting after at most 7/6 of the duration (plus 7 s).
///
/// DAY, WEEK, MONTH: one exact sum in the calendar period, which begins anew with the next. Across a boundary twice the limit can leave in a
/// short time; that is what a calendar window means.
/// @dev config: asset 160 | span 8 | exponent 8 | mantissa 32 | duration 32 | offset 16, from the low end. state, rolling: bucket number 32
/// | seven counts of 32, the youngest first; calendar: period number 32 | sum 224.
library SpendingWindow {
    /// The state of a window in which nothing was spent: a period long gone, so that no clock is read where an account is being born
    /// (ERC-7562 OP-011), and not zero, so that the first charge writes no new slot.
    uint256 internal constant FRESH = 1;
    uint256 private constant BUCKETS = 7;
    uint256 private constant COUNT_MASK = type(uint32).max;
    uint256 private constant RING_MASK = type(uint224).max;

    /// @notice The word for `window`, and false when it cannot be kept exactly or makes no sense.
    function pack(IPolicyHook.Window memory window) internal pure returns (bool sound, uint256 config) {
        bool rolling = window.span == IPolicyHook.Span.ROLLING;
        sound = window.span != IPolicyHook.Span.NONE && (rolling ? window.duration != 0 : window.duration == 0)
            && (!rolling || window.offsetMinutes == 0);
        uint256 mantissa = window.limit;
        uint256 exponent = 0;
        for (; mantissa > COUNT_MASK && mantissa % 10 == 0; mantissa /= 10) {
            ++exponent;
        }
        sound = sound && mantissa <= COUNT_MASK && window.limit <= type(uint224).max;
        config = uint256(uint160(window.asset)) | uint256(uint8(window.span)) << 160 | exponent << 168 | mantissa << 176
            | uint256(window.duration) << 208 | uint256(uint16(window.offsetMinutes)) << 240;
    }

    /// @notice The inverse of `pack`.
    function unpack(uint256 config) internal pure returns (IPolicyHook.Window memory) {
        return IPolicyHook.Window({
            asset: asset(config),
            span: _span(config),
            duration: uint32(config >> 208),
            offsetMinutes: int16(uint16(config >> 240)),
            limit: limit(config)
        });
    }

    function asset(uint256 config) internal pure returns (address) {
        return address(uint160(config));
    }

    function limit(uint256 config) internal pure returns (uint256) {
        return (config >> 176 & COUNT_MASK) * unit(config);
    }

    /// @notice The granularity (token units) in which a rolling window counts.
    function unit(uint256 config) internal pure returns (uint256) {
        return 10 ** (config >> 168 & 0xff);
    }

    /// @notice What counts as spent at `time`. The clock never goes back.
    function spent(uint256 config, uint256 state, uint256 time) internal pure returns (uint256 amount) {
        state = advance(config, state, time);
        if (_span(config) != IPolicyHook.Span.ROLLING) return state >> 32;
        return _sum(state) * unit(config);
    }

    /// @notice The state after spending `amount` at `time`; not `within` (and no new state) when that is more than the limit leaves.
    function charge(uint256 config, uint256 state, uint256 amount, uint256 time)
        internal
        pure
        returns (bool within, uint256)
    {
        unchecked {
            state = advance(config, state, time);
            uint256 mantissa = config >> 176 & COUNT_MASK;
            if (_span(config) != IPolicyHook.Span.ROLLING) {
                uint256 sum = state >> 32;
                uint256 most = limit(config);
                if (amount > most || sum > most - amount) return (false, state);
                return (true, state + (amount << 32));
            }
            uint256 size = unit(config);
            uint256 units = amount / size;
            if (units * size != amount) ++units;
            if (units > mantissa || _sum(state) + units > mantissa) return (false, state);
            return (true, state + (units << 32));
        }
    }

    /// @notice The state with everything that no longer counts at `time` taken out.
    function advance(uint256 config, uint256 state, uint256 time) internal pure returns (uint256) {
        unchecked {
            uint256 current = number(config, time);
            uint256 last = state & COUNT_MASK;
            if (current <= last) return state;
            if (_span(config) != IPolicyHook.Span.ROLLING || current - last >= BUCKETS) return current;
            uint256 ring = ((state >> 32) << (32 * (current - last))) & RING_MASK;
            return ring << 32 | current;
        }
    }

    /// @notice The number of the bucket or calendar period that `time` (unix seconds) is in.
    function number(uint256 config, uint256 time) internal pure returns (uint256) {
        IPolicyHook.Span span = _span(config);
        if (span == IPolicyHook.Span.ROLLING) return time / ((uint256(uint32(config >> 208)) + 5) / 6);
        int256 local = int256(time) + int256(int16(uint16(config >> 240))) * 60;
        uint256 day = local < 0 ? 0 : uint256(local) / 1 days;
        if (span == IPolicyHook.Span.DAY) return day;
        // 1970-01-01 was a Thursday.
        if (span == IPolicyHook.Span.WEEK) return (day + 3) / 7;
        (uint256 year, uint256 month,) = DateTimeLib.epochDayToDate(day);
        return year * 12 + month;
    }

    /// @notice What `state` of `from` means under `to`, where only limits and so units may differ. Rounded up.
    function carry(uint256 from, uint256 to, uint256 state) internal pure returns (uint256 carried) {
        if (_span(from) != IPolicyHook.Span.ROLLING) return state;
        (uint256 before, uint256 then) = (unit(from), unit(to));
        if (before == then) return state;
        carried = state & COUNT_MASK;
        for (uint256 i = 1; i <= BUCKETS; ++i) {
            uint256 amount = (state >> (32 * i) & COUNT_MASK) * before;
            uint256 count = amount / then + (amount % then == 0 ? 0 : 1);
            carried |= (count > COUNT_MASK ? COUNT_MASK : count) << (32 * i);
        }
    }

    /// @notice Whether two windows count the same thing, whatever their limits.
    function alike(uint256 a, uint256 b) internal pure returns (bool) {
        uint256 differing = a ^ b;
        return uint168(differing) == 0 && differing >> 208 == 0;
    }

    function _sum(uint256 state) private pure returns (uint256 sum) {
        unchecked {
            for (state >>= 32; state != 0; state >>= 32) {
                sum += state & COUNT_MASK;
            }
        }
    }

    function _span(uint256 config) private pure returns (IPolicyHook.Span) {
        return IPolicyHook.Span(uint8(config >> 160));
    }
}
