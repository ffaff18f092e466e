// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution, IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IAutoRebalance} from "../interfaces/IAutoRebalance.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {IPolicyHook} from "../interfaces/IPolicyHook.sol";
import {RiskState} from "../interfaces/IRiskState.sol";
import {IRouteAdapter} from "../interfaces/IRouteAdapter.sol";
import {AccountState} from "../libraries/AccountState.sol";
import {GuardClock} from "../libraries/GuardClock.sol";
import {OracleGuard} from "../libraries/OracleGuard.sol";
import {SpendingWindow} from "../libraries/SpendingWindow.sol";
import {BasketConfig} from "./rebalance/BasketConfig.sol";

/// @title Rebalancing that the chain itself decides
/// @notice A basket of tokens is weighed at guarded prices. When a weight has left its band, or a calendar period has begun, what is over its
/// target is sold for the cash of the basket and what is under it is bought with it, as far as the own target of the cash allows: each trade in the configured
/// pool that quotes best, and nowhere if none fills within the slippage bound of the oracle. Nobody supplies a price, an amount or call data.
/// A rebalance can wait, so everything that is doubtful stops it: a feed that is stale, a pool away from its feed, a state other than ACTIVE
/// (in REDUCE_ONLY a declared guard sells for cash and buys nothing). Afterwards the basket must be nearer to its targets, and worth no less
/// than the slippage bound on what was traded allows.
/// @dev Executor module, for any ERC-7579 account.
contract AutoRebalance is BasketConfig {
    using GuardClock for GuardClock.Clock;

    /// Every weight is inside its band and no new period has begun.
    error NotDue(address account, uint256 id);
    /// Off target by less than the least trade.
    error BelowMinimum(address account, uint256 id);
    /// Retry when the account is ACTIVE again.
    error Halted(address account);
    error CoolingDown(uint48 until);
    /// Retry later: the turnover window leaves no trade of the least size.
    error TurnoverUsed(uint256 left);
    /// Retry later: every pool that could trade what is due is away from its feed, or does not answer.
    error Deviation(address account, uint256 id);
    error VenueUnreadable(address account, uint256 id);
    /// Retry later: no pool fills anything within the slippage bound.
    error NoRoute(address account, uint256 id);
    /// Retry later: a guarded price is not there. The selector is one of `OracleGuard`.
    error OracleProblem(bytes4 problem);
    error NotPublicYet(uint48 publicAt);
    /// The pool took more, or gave less, than agreed.
    error Misfilled(address adapter, uint256 amountIn, uint256 amountOut);
    error NotImproved(uint256 distanceBefore, uint256 distanceAfter);
    error ValueLost(uint256 equityBefore, uint256 equityAfter, uint256 allowed);

    /// What is known now. Index `count` is the cash. @param trades value to sell (positive) or buy (negative) of each asset.
    /// @param pools bit i: the asset's pool i agrees with the oracle.
    struct Reading {
        Due due;
        bytes4 reason;
        bool known;
        bool condition;
        bool limited;
        uint256 count;
        uint256 equity;
        uint256 left;
        uint256[] prices;
        uint256[] values;
        int256[] trades;
        uint256[] pools;
        uint256 turnover;
        uint256 allowedLoss;
    }

    uint256 private constant UNSEEN_GAS = 45_000;
    bytes32 private constant MODE_BATCH = bytes32(bytes1(0x01));
    bytes32 private constant MODE_SINGLE_TRY = bytes32(bytes2(0x0001));

    // ------------------------------------------------------------------ acting

    /// @inheritdoc IGuard
    function touch(address account, uint256 id) external nonReentrant {
        Entry storage entry = _entries[id][account];
        Reading memory reading = _read(entry, account);
        if (reading.due == Due.FINAL) revert Final(account, id);
        if (!reading.known) return;
        if (reading.condition) _confirm(entry, account, id);
        else if (entry.clock.clear()) emit BasketTouched(account, id, 0);
    }

    /// @inheritdoc IGuard
    function execute(address account, uint256 id) external nonReentrant {
        uint256 gasBefore = gasleft();
        Entry storage entry = _entries[id][account];
        Reading memory reading = _read(entry, account);
        if (reading.due != Due.DUE) _revert(entry, account, id, reading);
        if (msg.sender != account) {
            uint48 began = entry.clock.since(_lapse(entry));
            uint48 publicAt = began == 0 ? 0 : began + entry.publicDelay;
            if (began == 0 || block.timestamp < publicAt) revert NotPublicYet(publicAt);
        }
        entry.clock.lastExecution = uint48(block.timestamp);
        entry.clock.clear();

        uint256 distance = _distance(entry, reading.values, reading.equity);
        _trade(entry, account, id, reading);
        if (reading.turnover == 0) revert NoRoute(account, id);
        bool within;
        (within, entry.spent) = SpendingWindow.charge(entry.window, entry.spent, reading.turnover, block.timestamp);
        if (!within) revert TurnoverUsed(reading.left);

        (uint256[] memory values, uint256 equity) = _weigh(entry, account, reading.prices);
        if (equity + reading.allowedLoss < reading.equity) {
            revert ValueLost(reading.equity, equity, reading.allowedLoss);
        }
        uint256 distanceAfter = _distance(entry, values, equity);
        if (distanceAfter >= distance) revert NotImproved(distance, distanceAfter);
        emit Rebalanced(account, id, reading.equity, equity, reading.turnover, reading.limited);
        emit GuardFired(account, id, entry.arming, msg.sender);
        ++entry.arming;
        if (msg.sender != account) _refund(entry, account, gasBefore);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IGuard
    function due(address account, uint256 id) external view returns (Due status, bytes4 reason) {
        Reading memory reading = _read(_entries[id][account], account);
        return (reading.due, reading.reason);
    }

    /// @inheritdoc IAutoRebalance
    function valuesOf(address account, uint256 id)
        external
        view
        returns (uint256[] memory values, uint256 turnoverLeft)
    {
        Entry storage entry = _entries[id][account];
        if (!_armed(entry, account)) revert Final(account, id);
        (uint256[] memory prices, bytes4 problem) = _prices(entry);
        if (problem != 0) revert OracleProblem(problem);
        (values,) = _weigh(entry, account, prices);
        turnoverLeft = _turnoverLeft(entry);
    }

    // ------------------------------------------------------------------ judging

    /// @dev Everything that decides whether the basket may be rebalanced now, in the order in which a caller wants to know it.
    function _read(Entry storage entry, address account) private view returns (Reading memory reading) {
        if (!_armed(entry, account) || (entry.expiry != 0 && block.timestamp > entry.expiry)) {
            return _because(reading, Due.FINAL, Final.selector);
        }
        reading.count = entry.count;
        bytes4 problem;
        (reading.prices, problem) = _prices(entry);
        if (problem != 0) return _because(reading, Due.BLOCKED, problem);
        (reading.values, reading.equity) = _weigh(entry, account, reading.prices);
        reading.known = true;
        if (!_newPeriod(entry) && !(entry.onDrift && _drifted(entry, reading))) {
            return _because(reading, Due.NOT_DUE, NotDue.selector);
        }
        if (!_plan(entry, reading)) return _because(reading, Due.NOT_DUE, BelowMinimum.selector);
        reading.condition = true;
        if (!_permitted(entry, account, reading)) return _because(reading, Due.BLOCKED, Halted.selector);
        uint48 last = entry.clock.lastExecution;
        if (last != 0 && block.timestamp < last + entry.cooldown) {
            return _because(reading, Due.BLOCKED, CoolingDown.selector);
        }
        reading.left = _turnoverLeft(entry);
        if (!_cap(entry, reading)) return _because(reading, Due.BLOCKED, TurnoverUsed.selector);
        problem = _agree(entry, reading);
        if (problem != 0) return _because(reading, Due.BLOCKED, problem);
        reading.due = Due.DUE;
    }

    function _because(Reading memory reading, Due status, bytes4 reason) private pure returns (Reading memory) {
        (reading.due, reading.reason) = (status, reason);
        return reading;
    }

    /// @dev The typed error for a basket that is not due.
    function _revert(Entry storage entry, address account, uint256 id, Reading memory reading) private view {
        bytes4 reason = reading.reason;
        if (reason == Final.selector) revert Final(account, id);
        if (reason == NotDue.selector) revert NotDue(account, id);
        if (reason == BelowMinimum.selector) revert BelowMinimum(account, id);
        if (reason == Halted.selector) revert Halted(account);
        if (reason == CoolingDown.selector) revert CoolingDown(entry.clock.lastExecution + entry.cooldown);
        if (reason == TurnoverUsed.selector) revert TurnoverUsed(reading.left);
        if (reason == Deviation.selector) revert Deviation(account, id);
        if (reason == VenueUnreadable.selector) revert VenueUnreadable(account, id);
        revert OracleProblem(reason);
    }

    /// @dev Of every asset and of the cash last, and the first problem that one of them has.
    function _prices(Entry storage entry) private view returns (uint256[] memory prices, bytes4 problem) {
        uint256 count = entry.count;
        prices = new uint256[](count + 1);
        for (uint256 i = 0; i < count; ++i) {
            (prices[i], problem) = OracleGuard.read(entry.assets[i].oracle);
            if (problem != 0) return (prices, problem);
        }
        if (entry.cashOracle.feed == address(0)) prices[count] = WAD;
        else (prices[count], problem) = OracleGuard.read(entry.cashOracle);
    }

    /// @dev value = balance * price, rounded down.
    function _weigh(Entry storage entry, address account, uint256[] memory prices)
        private
        view
        returns (uint256[] memory values, uint256 equity)
    {
        uint256 count = entry.count;
        values = new uint256[](count + 1);
        for (uint256 i = 0; i <= count; ++i) {
            address token = _token(entry, i);
            values[i] = Math.mulDiv(IERC20(token).balanceOf(account), prices[i], _whole(token));
            equity += values[i];
        }
    }

    /// @dev Whether a calendar period has begun since the last execution; a basket that was never executed is due at once.
    function _newPeriod(Entry storage entry) private view returns (bool) {
        if (entry.calendar == IPolicyHook.Span.NONE) return false;
        uint256 word = uint256(uint8(entry.calendar)) << 160 | uint256(uint16(entry.offsetMinutes)) << 240;
        return SpendingWindow.number(word, block.timestamp) > SpendingWindow.number(word, entry.clock.lastExecution);
    }

    /// @dev Whether a weight is outside its band; at the edge it is inside.
    function _drifted(Entry storage entry, Reading memory reading) private view returns (bool) {
        for (uint256 i = 0; i <= reading.count; ++i) {
            uint256 target = reading.equity * _targetBps(entry, i);
            uint256 value = reading.values[i] * BPS;
            uint256 band = i == reading.count ? entry.cashBandBps : entry.assets[i].bandBps;
            if ((value > target ? value - target : target - value) > reading.equity * band) return true;
        }
        return false;
    }

    /// @dev What brings every asset to its target, less what is below the least trade. False: nothing.
    function _plan(Entry storage entry, Reading memory reading) private view returns (bool any) {
        reading.trades = new int256[](reading.count);
        for (uint256 i = 0; i < reading.count; ++i) {
            reading.trades[i] = int256(reading.values[i]) - int256(_target(entry, i, reading.equity));
        }
        return _leaveOutSmall(entry, reading);
    }

    /// @dev FROZEN: nothing. REDUCE_ONLY: sales for cash, of a declared guard. ACTIVE: everything.
    function _permitted(Entry storage entry, address account, Reading memory reading) private view returns (bool any) {
        (RiskState state, address authority) = AccountState.read(account, entry.authority);
        if (state == RiskState.ACTIVE) return true;
        if (state == RiskState.FROZEN || !AccountState.isGuard(account, authority)) return false;
        for (uint256 i = 0; i < reading.count; ++i) {
            if (reading.trades[i] > 0) any = true;
            if (reading.trades[i] < 0) (reading.trades[i], reading.limited) = (int256(0), true);
        }
    }

    /// @dev Cut all trades by the same share when they are more than the turnover window leaves, and purchases to the cash there will be.
    /// False: nothing of the least size remains.
    function _cap(Entry storage entry, Reading memory reading) private view returns (bool) {
        (uint256 sales, uint256 purchases) = _sums(reading);
        if (sales + purchases > reading.left) {
            reading.limited = true;
            _scale(reading, true, reading.left, sales + purchases);
            _scale(reading, false, reading.left, sales + purchases);
        }
        return _leaveOutSmall(entry, reading);
    }

    /// @dev Note which pools agree with the oracle, and leave out what none could trade. The selector of the error when nothing is left.
    function _agree(Entry storage entry, Reading memory reading) private view returns (bytes4 problem) {
        reading.pools = new uint256[](reading.count);
        for (uint256 i = 0; i < reading.count; ++i) {
            if (reading.trades[i] == 0) continue;
            bytes4 found;
            (reading.pools[i], found) = _agreeing(entry, reading, i);
            if (reading.pools[i] != 0) continue;
            (reading.trades[i], reading.limited) = (int256(0), true);
            if (problem == 0 || found == Deviation.selector) problem = found;
        }
        (uint256 sales,) = _sums(reading);
        bool any = _fit(entry, reading, reading.values[reading.count] + sales);
        if (any) return 0;
        return problem == 0 ? BelowMinimum.selector : problem;
    }

    function _agreeing(Entry storage entry, Reading memory reading, uint256 i)
        private
        view
        returns (uint256 pools, bytes4 problem)
    {
        uint256 price = Math.mulDiv(reading.prices[i], WAD, reading.prices[reading.count]);
        problem = VenueUnreadable.selector;
        if (price == 0) return (0, problem);
        for (uint256 p = 0; p < POOLS; ++p) {
            address adapter = entry.assets[i].pools[p].adapter;
            if (adapter == address(0)) break;
            try IRouteAdapter(adapter).venuePrice(_market(entry, i, p, true)) returns (uint256 venuePrice) {
                if (venuePrice == 0) continue;
                bool agrees =
                    OracleGuard.deviationBps(price, venuePrice) <= uint256(entry.assets[i].oracle.maxDeviationBps);
                if (agrees) pools |= 1 << p;
                else problem = Deviation.selector;
            } catch {}
        }
    }

    /// @dev Cut purchases when there is `cash` (value), so that it ends no lower than its target, or than it was before when that is less. False:
    /// no trade of the least size remains.
    function _fit(Entry storage entry, Reading memory reading, uint256 cash) private view returns (bool) {
        uint256 kept = Math.min(_target(entry, reading.count, reading.equity), reading.values[reading.count]);
        uint256 budget = cash > kept ? cash - kept : 0;
        (, uint256 purchases) = _sums(reading);
        if (purchases > budget) _scale(reading, false, budget, purchases);
        return _leaveOutSmall(entry, reading);
    }

    function _leaveOutSmall(Entry storage entry, Reading memory reading) private view returns (bool any) {
        uint256 least = entry.minTrade;
        for (uint256 i = 0; i < reading.count; ++i) {
            uint256 size = _abs(reading.trades[i]);
            if (size >= least) any = true;
            else if (size != 0) (reading.trades[i], reading.limited) = (int256(0), true);
        }
    }

    function _sums(Reading memory reading) private pure returns (uint256 sales, uint256 purchases) {
        for (uint256 i = 0; i < reading.count; ++i) {
            if (reading.trades[i] > 0) sales += uint256(reading.trades[i]);
            else purchases += uint256(-reading.trades[i]);
        }
    }

    /// @dev trade * numerator / denominator, toward zero, of the sales or of the purchases.
    function _scale(Reading memory reading, bool sales, uint256 numerator, uint256 denominator) private pure {
        for (uint256 i = 0; i < reading.count; ++i) {
            int256 size = reading.trades[i];
            if (size == 0 || (size > 0) != sales) continue;
            int256 cut = int256(Math.mulDiv(_abs(size), numerator, denominator));
            reading.trades[i] = sales ? cut : -cut;
        }
    }

    /// @dev How far the basket is from its targets (value): of each asset the distance, of the cash only what is missing, since cash is what
    /// everything else comes from and goes to.
    function _distance(Entry storage entry, uint256[] memory values, uint256 equity)
        private
        view
        returns (uint256 distance)
    {
        uint256 count = values.length - 1;
        for (uint256 i = 0; i <= count; ++i) {
            uint256 target = _target(entry, i, equity);
            if (values[i] < target) distance += target - values[i];
            else if (i != count) distance += values[i] - target;
        }
    }

    function _turnoverLeft(Entry storage entry) private view returns (uint256) {
        uint256 spent = SpendingWindow.spent(entry.window, entry.spent, block.timestamp);
        uint256 most = entry.maxTurnover;
        return most > spent ? most - spent : 0;
    }

    function _confirm(Entry storage entry, address account, uint256 id) private {
        if (entry.clock.confirm(_lapse(entry))) emit BasketTouched(account, id, uint48(block.timestamp));
    }

    // ------------------------------------------------------------------ trading

    /// @dev Sales first; then purchases with the cash that really came.
    function _trade(Entry storage entry, address account, uint256 id, Reading memory reading) private {
        for (uint256 i = 0; i < reading.count; ++i) {
            if (reading.trades[i] > 0) _swap(entry, account, id, reading, i);
        }
        uint256 count = reading.count;
        uint256 cash = Math.mulDiv(IERC20(entry.cash).balanceOf(account), reading.prices[count], _whole(entry.cash));
        _fit(entry, reading, cash);
        for (uint256 i = 0; i < count; ++i) {
            if (reading.trades[i] < 0) _swap(entry, account, id, reading, i);
        }
    }

    struct Swap {
        bool sale;
        address tokenIn;
        address tokenOut;
        uint256 priceIn;
        uint256 priceOut;
        uint256 amount;
        uint256 size;
        uint256 limit;
        address adapter;
        uint256 pool;
    }

    /// @dev One trade in the pool that quotes best, or none when no quote is within the bound.
    function _swap(Entry storage entry, address account, uint256 id, Reading memory reading, uint256 i) private {
        Swap memory s;
        s.sale = reading.trades[i] > 0;
        (uint256 from, uint256 to) = s.sale ? (i, reading.count) : (reading.count, i);
        (s.tokenIn, s.tokenOut) = (_token(entry, from), _token(entry, to));
        (s.priceIn, s.priceOut) = (reading.prices[from], reading.prices[to]);
        s.amount = Math.mulDiv(_abs(reading.trades[i]), _whole(s.tokenIn), s.priceIn);
        s.amount = Math.min(s.amount, IERC20(s.tokenIn).balanceOf(account));
        s.size = _toWad(s.tokenIn, s.amount);
        // limit = oracle price * (1 - slippage), rounded for the account
        s.limit = Math.mulDiv(
            Math.mulDiv(s.priceIn, WAD, s.priceOut, Math.Rounding.Ceil),
            BPS - entry.slippageBps,
            BPS,
            Math.Rounding.Ceil
        );
        _choose(entry, reading.pools[i], i, s);
        if (s.adapter == address(0)) {
            reading.limited = true;
            return;
        }
        _fill(entry, account, id, reading, i, s);
    }

    function _choose(Entry storage entry, uint256 pools, uint256 i, Swap memory s) private {
        if (s.size == 0) return;
        uint256 best = s.limit;
        for (uint256 p = 0; p < POOLS; ++p) {
            if (pools >> p & 1 == 0) continue;
            address adapter = entry.assets[i].pools[p].adapter;
            try IRouteAdapter(adapter).quote(_market(entry, i, p, s.sale), s.size) returns (uint256 price) {
                if (price < best || (price == best && s.adapter != address(0))) continue;
                (best, s.adapter, s.pool) = (price, adapter, p);
            } catch {}
        }
    }

    /// @dev Have the account make the adapter's calls, and measure what left and what came.
    function _fill(Entry storage entry, address account, uint256 id, Reading memory reading, uint256 i, Swap memory s)
        private
    {
        uint256 inBefore = IERC20(s.tokenIn).balanceOf(account);
        uint256 outBefore = IERC20(s.tokenOut).balanceOf(account);
        Execution[] memory calls =
            IRouteAdapter(s.adapter).reduceCalls(account, _market(entry, i, s.pool, s.sale), s.size, s.limit);
        IERC7579Execution(account).executeFromExecutor(MODE_BATCH, abi.encode(calls));
        uint256 inAfter = IERC20(s.tokenIn).balanceOf(account);
        uint256 outAfter = IERC20(s.tokenOut).balanceOf(account);
        uint256 paid = inBefore > inAfter ? inBefore - inAfter : 0;
        uint256 got = outAfter > outBefore ? outAfter - outBefore : 0;
        uint256 least = Math.mulDiv(_toWad(s.tokenIn, paid), s.limit, WAD, Math.Rounding.Ceil);
        if (paid == 0 || paid > s.amount || _toWad(s.tokenOut, got) < least) revert Misfilled(s.adapter, paid, got);
        emit Traded(account, id, s.tokenIn, s.tokenOut, s.adapter, entry.assets[i].pools[s.pool].fee, paid, got);
        uint256 value = Math.mulDiv(paid, s.priceIn, _whole(s.tokenIn));
        reading.turnover += value;
        // What rounding may cost: a unit of either token, and of the values.
        reading.allowedLoss += value * entry.slippageBps / BPS + s.priceIn / _whole(s.tokenIn) + s.priceOut
            / _whole(s.tokenOut) + 4;
    }

    /// @dev Pay an outside caller for his gas, within both caps. A refund that cannot be paid never undoes the rebalance.
    function _refund(Entry storage entry, address account, uint256 gasBefore) private {
        uint256 refund = (gasBefore - gasleft() + UNSEEN_GAS) * tx.gasprice * entry.refundBps / BPS;
        if (refund > entry.refundCap) refund = entry.refundCap;
        if (refund == 0 || refund > account.balance) return;
        IERC7579Execution(account).executeFromExecutor(MODE_SINGLE_TRY, abi.encodePacked(msg.sender, refund));
    }

    function _abs(int256 value) private pure returns (uint256) {
        return value < 0 ? uint256(-value) : uint256(value);
    }
}
