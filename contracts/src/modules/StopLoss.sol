// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution, IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {IStopLoss} from "../interfaces/IStopLoss.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";
import {GuardClock} from "../libraries/GuardClock.sol";
import {OracleGuard} from "../libraries/OracleGuard.sol";
import {StopConfig} from "./stop/StopConfig.sol";

/// @title Stop-loss, take-profit and trailing stop that the chain itself decides
/// @notice A stop closes a part of one position when a guarded price crosses its trigger (gaps included), in pieces of bounded size with a
/// cool-down between them, each only while the condition still holds, and once in total for each arming. Nobody supplies a price, an amount or
/// call data. The venue must fill at least at the conservative of feed and venue price less the slippage bound in force; the bound
/// widens on a schedule, and no fill is accepted that is further from the feed's price than `maxSlippageBps`. Afterwards the position
/// must be smaller, on the same side, by no more than was asked, and owe no more. The first execution of one order cancels the others of its group.
/// @dev Executor module, for any ERC-7579 account. Storage is keyed with the account innermost and holds no dynamic values, so that stops can
/// be armed in the operation that creates the account.
contract StopLoss is StopConfig {
    /// The condition does not hold, or there is no position.
    error NotDue(address account, uint256 id);
    error NoPosition(address account, uint256 id);
    /// Retry then: one part was executed a moment ago.
    error CoolingDown(uint48 until);
    /// Retry later: feed and venue disagree. Passes `deviationPatience` after the stop was first recorded as due.
    error Deviation(uint256 price, uint256 venuePrice);
    /// Retry later: the venue cannot tell its price or the position.
    error VenueUnreadable(address adapter);
    /// Retry later: the guarded price is not there. The selector is one of `OracleGuard`.
    error OracleProblem(bytes4 problem);
    /// The trade did something else than reduce the position by what was asked.
    error NotReduced(int256 sizeBefore, int256 sizeAfter, uint256 size);
    error DebtIncreased(uint256 debtBefore, uint256 debtAfter);

    /// What is known about a stop now.
    struct Reading {
        Due due;
        bytes4 reason;
        bool condition;
        bool known;
        uint256 price;
        uint256 venuePrice;
        IVenueAdapter.Position position;
    }

    // ------------------------------------------------------------------ acting

    /// @inheritdoc IGuard
    function touch(address account, uint256 id) external nonReentrant {
        Entry storage entry = _stops[id][account];
        Reading memory reading = _read(entry, account, id);
        if (reading.due == Due.FINAL) revert Final(account, id);
        if (!reading.known) return; // no valid price: nothing is learnt in either direction
        if (reading.condition) {
            _confirm(entry, account, id);
        } else if (entry.dueSince != 0) {
            (entry.dueSince, entry.confirmedAt) = (0, 0);
            emit StopTouched(account, id, 0);
        }
    }

    /// @inheritdoc IGuard
    function execute(address account, uint256 id) external nonReentrant {
        uint256 gasBefore = gasleft();
        Entry storage entry = _stops[id][account];
        Reading memory reading = _read(entry, account, id);
        if (reading.due != Due.DUE) _revert(entry, account, id, reading);
        if (msg.sender != account) _requirePublic(_dueSince(entry), entry.publicDelay);
        _confirm(entry, account, id);
        if (entry.group != 0) {
            entry.turn = ++_turns[entry.group][account];
            emit GroupDecided(account, entry.group, id);
        }

        int256 sizeBefore = reading.position.size;
        uint256 target = _target(entry, sizeBefore);
        uint256 size = target < entry.maxSizePerExecution ? target : entry.maxSizePerExecution;
        // Effects before the venue is called; `remaining` is corrected by what was really closed.
        entry.lastExecution = uint48(block.timestamp);
        uint256 limit = _limitPrice(entry, reading.price, reading.venuePrice, sizeBefore > 0, _slippageBps(entry));
        int256 sizeAfter = _reduce(entry, account, reading.position, size, limit);

        uint256 left = target - (_abs(sizeBefore) - _abs(sizeAfter));
        (entry.remaining, entry.sizeAfter) = (_toUint128(left), int128(sizeAfter));
        emit StopExecuted(account, id, entry.arming, reading.price, sizeBefore, sizeAfter);
        if (left == 0 || sizeAfter == 0 || left <= entry.dust) {
            entry.status = Status.FIRED;
            emit GuardFired(account, id, entry.arming, msg.sender);
        }
        _refund(account, gasBefore, entry.refundBps, entry.refundCap);
    }

    /// @inheritdoc IStopLoss
    /// @dev When the feed gives no valid price the venue's own mean price is used alone: a call that can only reduce is not denied for
    /// want of a fact.
    function reduce(uint256 id, uint256 size) external nonReentrant {
        Entry storage entry = _stops[id][msg.sender];
        if (_statusOf(entry, msg.sender) == Status.NONE) revert Final(msg.sender, id);
        bytes memory market = _market(entry);
        IVenueAdapter adapter = IVenueAdapter(entry.adapter);
        IVenueAdapter.Position memory position = adapter.position(msg.sender, market);
        uint256 whole = _abs(position.size);
        if (whole == 0 || size == 0) revert NoPosition(msg.sender, id);
        uint256 venuePrice = adapter.venuePrice(market);
        (uint256 price, bytes4 problem) = OracleGuard.read(_oracle(entry));
        if (problem != 0) price = venuePrice;
        uint256 limit = _limitPrice(entry, price, venuePrice, position.size > 0, entry.slippageBps);
        int256 sizeAfter = _reduce(entry, msg.sender, position, size < whole ? size : whole, limit);
        emit PositionReduced(msg.sender, id, price, position.size, sizeAfter);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IGuard
    function due(address account, uint256 id) external view returns (Due status, bytes4 reason) {
        Reading memory reading = _read(_stops[id][account], account, id);
        return (reading.due, reading.reason);
    }

    // ------------------------------------------------------------------ judging

    /// @dev Everything that decides whether the stop may act now, in the order in which a caller wants to know it.
    function _read(Entry storage entry, address account, uint256) private view returns (Reading memory reading) {
        if (_isOver(entry, account)) {
            (reading.due, reading.reason) = (Due.FINAL, Final.selector);
            return reading;
        }
        bytes4 problem;
        (reading.price, problem) = OracleGuard.read(_oracle(entry));
        if (problem != 0) return _blocked(reading, problem);
        reading.known = true;
        uint256 trigger = _trigger(entry);
        reading.condition = entry.below ? reading.price <= trigger : reading.price >= trigger;
        if (!reading.condition) {
            (reading.due, reading.reason) = (Due.NOT_DUE, NotDue.selector);
            return reading;
        }
        bytes memory market = _market(entry);
        try IVenueAdapter(entry.adapter).position(account, market) returns (IVenueAdapter.Position memory position) {
            reading.position = position;
        } catch {
            return _blocked(reading, VenueUnreadable.selector);
        }
        if (reading.position.size == 0) {
            (reading.due, reading.reason) = (Due.NOT_DUE, NoPosition.selector);
            return reading;
        }
        try IVenueAdapter(entry.adapter).venuePrice(market) returns (uint256 venuePrice) {
            reading.venuePrice = venuePrice;
        } catch {
            return _blocked(reading, VenueUnreadable.selector);
        }
        if (reading.venuePrice == 0) return _blocked(reading, VenueUnreadable.selector);
        uint48 last = entry.lastExecution;
        if (last != 0 && block.timestamp < last + entry.cooldown) return _blocked(reading, CoolingDown.selector);
        if (OracleGuard.deviationBps(reading.price, reading.venuePrice) > entry.maxDeviationBps) {
            uint48 since = _dueSince(entry);
            if (since == 0 || block.timestamp < since + entry.deviationPatience) {
                return _blocked(reading, Deviation.selector);
            }
        }
        reading.due = Due.DUE;
    }

    function _blocked(Reading memory reading, bytes4 reason) private pure returns (Reading memory) {
        (reading.due, reading.reason) = (Due.BLOCKED, reason);
        return reading;
    }

    /// @dev The typed error for a stop that is not due.
    function _revert(Entry storage entry, address account, uint256 id, Reading memory reading) private view {
        bytes4 reason = reading.reason;
        if (reason == Final.selector) revert Final(account, id);
        if (reason == NotDue.selector) revert NotDue(account, id);
        if (reason == NoPosition.selector) revert NoPosition(account, id);
        if (reason == CoolingDown.selector) revert CoolingDown(entry.lastExecution + entry.cooldown);
        if (reason == Deviation.selector) revert Deviation(reading.price, reading.venuePrice);
        if (reason == VenueUnreadable.selector) revert VenueUnreadable(entry.adapter);
        revert OracleProblem(reason);
    }

    function _confirm(Entry storage entry, address account, uint256 id) private {
        if (_dueSince(entry) == 0) {
            entry.dueSince = uint48(block.timestamp);
            emit StopTouched(account, id, uint48(block.timestamp));
        }
        entry.confirmedAt = uint48(block.timestamp);
    }

    /// @dev What is still to be closed (base, 1e18): the rest of the first target, or a new one when the position turned or grew since.
    function _target(Entry storage entry, int256 size) private view returns (uint256) {
        uint256 whole = _abs(size);
        bool continued = entry.remaining != 0 && (size > 0) == (entry.sizeAfter > 0) && whole <= _abs(entry.sizeAfter);
        if (continued) return entry.remaining < whole ? entry.remaining : whole;
        uint256 target = entry.sizeBps == 0 ? entry.size : whole * entry.sizeBps / BPS;
        if (target == 0 || target >= whole) return whole;
        return target + entry.dust >= whole ? whole : target;
    }

    function _slippageBps(Entry storage entry) private view returns (uint256) {
        return GuardClock.widened(_dueSince(entry), entry.slippageBps, entry.maxSlippageBps, entry.widenSeconds);
    }

    /// @dev The worst mean fill (quote per base, 1e18) that is accepted: the conservative source (the lower one for a sale, the higher for
    /// a purchase) less the bound in force, but never further than `maxSlippageBps` from the guarded price. Rounded for the account.
    function _limitPrice(Entry storage entry, uint256 price, uint256 venuePrice, bool sale, uint256 slippageBps)
        private
        view
        returns (uint256)
    {
        uint256 cap = entry.maxSlippageBps;
        if (sale) {
            uint256 conservative = price < venuePrice ? price : venuePrice;
            uint256 lowest = _ceilDiv(price * (BPS - cap), BPS);
            uint256 bound = _ceilDiv(conservative * (BPS - slippageBps), BPS);
            return bound > lowest ? bound : lowest;
        }
        uint256 conservativeBuy = price > venuePrice ? price : venuePrice;
        uint256 highest = price * (BPS + cap) / BPS;
        uint256 boundBuy = conservativeBuy * (BPS + slippageBps) / BPS;
        return boundBuy < highest ? boundBuy : highest;
    }

    // ------------------------------------------------------------------ trading

    /// @dev Have the account make the adapter's calls and measure what became of the position.
    function _reduce(
        Entry storage entry,
        address account,
        IVenueAdapter.Position memory before,
        uint256 size,
        uint256 limitPrice
    ) private returns (int256) {
        bytes memory market = _market(entry);
        IVenueAdapter adapter = IVenueAdapter(entry.adapter);
        Execution[] memory calls = adapter.reduceCalls(account, market, size, limitPrice);
        IERC7579Execution(account).executeFromExecutor(MODE_BATCH, abi.encode(calls));
        IVenueAdapter.Position memory afterwards = adapter.position(account, market);
        uint256 wasAbs = _abs(before.size);
        uint256 isAbs = _abs(afterwards.size);
        bool sameSide = afterwards.size == 0 || (afterwards.size > 0) == (before.size > 0);
        if (!sameSide || isAbs >= wasAbs || wasAbs - isAbs > size) {
            revert NotReduced(before.size, afterwards.size, size);
        }
        if (afterwards.debt > before.debt) revert DebtIncreased(before.debt, afterwards.debt);
        return afterwards.size;
    }

    // ------------------------------------------------------------------ inside

    function _abs(int256 value) private pure returns (uint256) {
        return value < 0 ? uint256(-value) : uint256(value);
    }

    function _ceilDiv(uint256 a, uint256 b) private pure returns (uint256) {
        return (a + b - 1) / b;
    }

    function _toUint128(uint256 value) private pure returns (uint128) {
        return value > type(uint128).max ? type(uint128).max : uint128(value);
    }
}
