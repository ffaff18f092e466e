// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC7579Utils} from "@openzeppelin/contracts/account/utils/draft-ERC7579Utils.sol";
import {
    Execution,
    IERC7579Execution,
    IERC7579Module,
    MODULE_TYPE_EXECUTOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {IStopLoss, OracleConfig} from "../interfaces/IStopLoss.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";
import {OracleGuard} from "../libraries/OracleGuard.sol";

/// @title Stop-loss and take-profit that the chain itself decides
/// @notice A stop closes a share of one position when a guarded price crosses its trigger (gaps included), in parts of bounded size with a
/// cool-down between them, each only while the condition still holds, and once in total for each arming. Nobody supplies a price, an amount or
/// call data. The venue must fill at least at the conservative of feed and venue price less the slippage bound in force; the bound
/// widens on a schedule, and no fill is accepted that is further from the feed's price than `maxSlippageBps`. Afterwards the position
/// must be smaller, on the same side, by no more than was asked, and owe no more.
/// @dev Executor module, for any ERC-7579 account. Storage is keyed with the account innermost and holds no dynamic values, so that stops can
/// be armed in the operation that creates the account.
contract StopLoss is IStopLoss, IERC7579Module, ReentrancyGuardTransient {
    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error InvalidStop(uint256 id);
    /// Never again: unknown, fired, cancelled or expired. Arm it anew.
    error Final(address account, uint256 id);
    /// The condition does not hold, or there is no position.
    error NotDue(address account, uint256 id);
    error NoPosition(address account, uint256 id);
    /// Retry then: one part was executed a moment ago.
    error CoolingDown(uint48 until);
    /// Retry later: feed and venue disagree. Passes `deviationPatience` after the stop was first recorded as due.
    error Deviation(uint256 price, uint256 venuePrice);
    /// Retry later: the venue cannot tell its price or the position.
    error VenueUnreadable(address adapter);
    /// The caller is not the account; anyone may call from then on (0: `touch` it first).
    error NotPublicYet(uint48 publicAt);
    /// Retry later: the guarded price is not there. The selector is one of `OracleGuard`.
    error OracleProblem(bytes4 problem);
    /// The trade did something else than reduce the position by what was asked.
    error NotReduced(int256 sizeBefore, int256 sizeAfter, uint256 size);
    error DebtIncreased(uint256 debtBefore, uint256 debtAfter);

    /// @param market the first `marketLength` bytes are the adapter's market.
    /// @param dueSince when the stop was first recorded as due; counts only while `confirmedAt` is recent.
    /// @param remaining what is left to close of the size that was taken as the target at the first part.
    /// @param sizeAfter the position after the last part; a larger one since then is a new target.
    struct Entry {
        address adapter;
        bool below;
        uint16 sizeBps;
        uint16 slippageBps;
        uint16 maxSlippageBps;
        uint32 widenSeconds;
        uint128 triggerPrice;
        uint128 maxSizePerExecution;
        uint96 refundCap;
        uint48 expiry;
        uint32 cooldown;
        uint32 publicDelay;
        uint16 refundBps;
        uint8 marketLength;
        address feed;
        uint32 heartbeat;
        uint16 maxDeviationBps;
        uint32 deviationPatience;
        address sequencerFeed;
        uint32 gracePeriod;
        uint128 minPrice;
        uint128 maxPrice;
        bytes32[4] market;
        Status status;
        uint32 generation;
        uint48 arming;
        uint48 dueSince;
        uint48 confirmedAt;
        uint48 lastExecution;
        uint128 remaining;
        int128 sizeAfter;
    }

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

    struct Installation {
        uint32 generation;
        bool installed;
    }

    uint256 private constant BPS = 10_000;
    /// Largest slippage bound that can be configured.
    uint16 public constant MAX_SLIPPAGE_BPS = 5000;
    uint256 private constant MAX_MARKET = 128;
    /// Gas of an outside caller that `gasleft` does not see: the transaction itself and the refund.
    uint256 private constant UNSEEN_GAS = 45_000;
    bytes32 private constant MODE_BATCH = bytes32(bytes1(0x01));
    bytes32 private constant MODE_SINGLE_TRY = bytes32(bytes2(0x0001));

    mapping(address account => Installation) private _installations;
    mapping(uint256 id => mapping(address account => Entry)) private _stops;

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    /// @notice `data` is empty or abi.encode(uint256[] ids, Stop[] stops).
    function onInstall(bytes calldata data) external {
        Installation storage installation = _installations[msg.sender];
        if (installation.installed) revert AlreadyInstalled(msg.sender);
        (installation.installed, installation.generation) = (true, installation.generation + 1);
        if (data.length == 0) return;
        (uint256[] memory ids, Stop[] memory stops) = abi.decode(data, (uint256[], Stop[]));
        for (uint256 i = 0; i < ids.length; ++i) {
            _arm(ids[i], stops[i]);
        }
    }

    /// @inheritdoc IERC7579Module
    /// @dev Every stop dies with the installation.
    function onUninstall(bytes calldata) external {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _installations[msg.sender].installed = false;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_EXECUTOR;
    }

    // ------------------------------------------------------------------ arming

    /// @inheritdoc IStopLoss
    function arm(uint256 id, Stop calldata stop) external nonReentrant {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _arm(id, stop);
        IVenueAdapter(stop.adapter).position(msg.sender, stop.market); // reverts for a market that is not the venue's
    }

    /// @inheritdoc IStopLoss
    function cancel(uint256 id) external nonReentrant {
        Entry storage entry = _stops[id][msg.sender];
        if (_statusOf(entry, msg.sender) != Status.ARMED) revert Final(msg.sender, id);
        entry.status = Status.CANCELLED;
        emit StopCancelled(msg.sender, id);
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
        if (msg.sender != account) {
            uint48 since = _dueSince(entry);
            uint48 publicAt = since == 0 ? 0 : since + entry.publicDelay;
            if (since == 0 || block.timestamp < publicAt) revert NotPublicYet(publicAt);
        }
        _confirm(entry, account, id);

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
        if (left == 0 || sizeAfter == 0) {
            entry.status = Status.FIRED;
            emit GuardFired(account, id, entry.arming, msg.sender);
        }
        if (msg.sender != account) _refund(entry, account, gasBefore);
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

    /// @inheritdoc IStopLoss
    function stopOf(address account, uint256 id)
        external
        view
        returns (Stop memory stop, Status status, uint256 arming, uint48 dueSince, uint48 lastExecution)
    {
        Entry storage entry = _stops[id][account];
        status = _statusOf(entry, account);
        if (status == Status.NONE) return (stop, status, entry.arming, 0, 0);
        stop = Stop({
            adapter: entry.adapter,
            market: _market(entry),
            below: entry.below,
            triggerPrice: entry.triggerPrice,
            sizeBps: entry.sizeBps,
            maxSizePerExecution: entry.maxSizePerExecution,
            slippageBps: entry.slippageBps,
            maxSlippageBps: entry.maxSlippageBps,
            widenSeconds: entry.widenSeconds,
            cooldown: entry.cooldown,
            publicDelay: entry.publicDelay,
            refundBps: entry.refundBps,
            refundCap: entry.refundCap,
            expiry: entry.expiry,
            oracle: _oracle(entry)
        });
        return (stop, status, entry.arming, _dueSince(entry), entry.lastExecution);
    }

    // ------------------------------------------------------------------ judging

    /// @dev Everything that decides whether the stop may act now, in the order in which a caller wants to know it.
    function _read(Entry storage entry, address account, uint256) private view returns (Reading memory reading) {
        bool over = entry.expiry != 0 && block.timestamp > entry.expiry;
        if (over || _statusOf(entry, account) != Status.ARMED) {
            (reading.due, reading.reason) = (Due.FINAL, Final.selector);
            return reading;
        }
        bytes4 problem;
        (reading.price, problem) = OracleGuard.read(_oracle(entry));
        if (problem != 0) return _blocked(reading, problem);
        reading.known = true;
        reading.condition = entry.below ? reading.price <= entry.triggerPrice : reading.price >= entry.triggerPrice;
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

    /// @dev Record that the condition holds now. A record that nobody confirmed for too long starts anew, so that an old dip neither
    /// opens the stop to the public nor has its slippage bound already widened.
    function _confirm(Entry storage entry, address account, uint256 id) private {
        if (_dueSince(entry) == 0) {
            entry.dueSince = uint48(block.timestamp);
            emit StopTouched(account, id, uint48(block.timestamp));
        }
        entry.confirmedAt = uint48(block.timestamp);
    }

    /// @dev 0 when the stop is not recorded as due, or the record lapsed.
    function _dueSince(Entry storage entry) private view returns (uint48) {
        uint256 longest = entry.publicDelay;
        if (entry.widenSeconds > longest) longest = entry.widenSeconds;
        if (entry.deviationPatience > longest) longest = entry.deviationPatience;
        return block.timestamp > uint256(entry.confirmedAt) + longest + entry.heartbeat ? 0 : entry.dueSince;
    }

    /// @dev What is still to be closed (base, 1e18): the rest of the first target, or a new one when the position turned or grew since.
    function _target(Entry storage entry, int256 size) private view returns (uint256) {
        uint256 whole = _abs(size);
        bool continued = entry.remaining != 0 && (size > 0) == (entry.sizeAfter > 0) && whole <= _abs(entry.sizeAfter);
        if (continued) return entry.remaining < whole ? entry.remaining : whole;
        uint256 target = whole * entry.sizeBps / BPS;
        return target == 0 ? whole : target; // dust is closed whole
    }

    /// @dev slippage(t) = first + (max - first) * t / widenSeconds, at most max; t = seconds since recorded as due.
    function _slippageBps(Entry storage entry) private view returns (uint256) {
        uint256 elapsed = block.timestamp - _dueSince(entry);
        uint256 span = entry.widenSeconds;
        if (elapsed >= span) return span == 0 ? entry.slippageBps : entry.maxSlippageBps;
        return entry.slippageBps + uint256(entry.maxSlippageBps - entry.slippageBps) * elapsed / span;
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

    /// @dev Pay an outside caller for his gas, within both caps. A refund that cannot be paid never undoes the stop.
    function _refund(Entry storage entry, address account, uint256 gasBefore) private {
        uint256 refund = (gasBefore - gasleft() + UNSEEN_GAS) * tx.gasprice * entry.refundBps / BPS;
        if (refund > entry.refundCap) refund = entry.refundCap;
        if (refund == 0 || refund > account.balance) return;
        IERC7579Execution(account).executeFromExecutor(MODE_SINGLE_TRY, abi.encodePacked(msg.sender, refund));
    }

    // ------------------------------------------------------------------ inside

    function _arm(uint256 id, Stop memory stop) private {
        bool sound = stop.adapter.code.length != 0 && stop.oracle.feed.code.length != 0
            && stop.market.length <= MAX_MARKET && stop.triggerPrice != 0 && stop.sizeBps != 0 && stop.sizeBps <= BPS
            && stop.maxSizePerExecution != 0 && stop.slippageBps <= stop.maxSlippageBps
            && stop.maxSlippageBps <= MAX_SLIPPAGE_BPS && stop.refundBps <= BPS && stop.oracle.heartbeat != 0
            && stop.oracle.minPrice != 0 && stop.oracle.minPrice <= stop.oracle.maxPrice
            && (stop.oracle.sequencerFeed == address(0) || stop.oracle.sequencerFeed.code.length != 0);
        if (!sound) revert InvalidStop(id);
        Entry storage entry = _stops[id][msg.sender];
        entry.adapter = stop.adapter;
        entry.below = stop.below;
        entry.sizeBps = stop.sizeBps;
        entry.slippageBps = stop.slippageBps;
        entry.maxSlippageBps = stop.maxSlippageBps;
        entry.widenSeconds = stop.widenSeconds;
        entry.triggerPrice = stop.triggerPrice;
        entry.maxSizePerExecution = stop.maxSizePerExecution;
        entry.refundCap = stop.refundCap;
        entry.expiry = stop.expiry;
        entry.cooldown = stop.cooldown;
        entry.publicDelay = stop.publicDelay;
        entry.refundBps = stop.refundBps;
        entry.marketLength = uint8(stop.market.length);
        entry.feed = stop.oracle.feed;
        entry.heartbeat = stop.oracle.heartbeat;
        entry.maxDeviationBps = stop.oracle.maxDeviationBps;
        entry.deviationPatience = stop.oracle.deviationPatience;
        entry.sequencerFeed = stop.oracle.sequencerFeed;
        entry.gracePeriod = stop.oracle.gracePeriod;
        entry.minPrice = stop.oracle.minPrice;
        entry.maxPrice = stop.oracle.maxPrice;
        bytes memory market = stop.market;
        for (uint256 i = 0; 32 * i < market.length; ++i) {
            bytes32 word;
            assembly ("memory-safe") {
                word := mload(add(add(market, 0x20), mul(i, 0x20))) // what lies behind the end is cut off by `marketLength`
            }
            entry.market[i] = word;
        }
        entry.status = Status.ARMED;
        entry.generation = _installations[msg.sender].generation;
        ++entry.arming;
        (entry.dueSince, entry.confirmedAt, entry.remaining, entry.sizeAfter) = (0, 0, 0, 0);
        emit StopArmed(msg.sender, id, entry.arming, stop);
    }

    function _statusOf(Entry storage entry, address account) private view returns (Status) {
        Installation memory installation = _installations[account];
        bool present = installation.installed && entry.generation == installation.generation;
        return present ? entry.status : Status.NONE;
    }

    function _market(Entry storage entry) private view returns (bytes memory market) {
        market = abi.encodePacked(entry.market);
        uint256 length = entry.marketLength;
        assembly ("memory-safe") {
            mstore(market, length)
        }
    }

    function _oracle(Entry storage entry) private view returns (OracleConfig memory) {
        return OracleConfig({
            feed: entry.feed,
            heartbeat: entry.heartbeat,
            sequencerFeed: entry.sequencerFeed,
            gracePeriod: entry.gracePeriod,
            minPrice: entry.minPrice,
            maxPrice: entry.maxPrice,
            maxDeviationBps: entry.maxDeviationBps,
            deviationPatience: entry.deviationPatience
        });
    }

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
