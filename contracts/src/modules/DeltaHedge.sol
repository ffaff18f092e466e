// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {
    Execution,
    IERC7579Execution,
    IERC7579Module,
    MODULE_TYPE_EXECUTOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IDeltaHedge} from "../interfaces/IDeltaHedge.sol";
import {IDeltaSource} from "../interfaces/IDeltaSource.sol";
import {IGuard} from "../interfaces/IGuard.sol";
import {IHedgeAdapter} from "../interfaces/IHedgeAdapter.sol";
import {IPolicyHook} from "../interfaces/IPolicyHook.sol";
import {RiskState} from "../interfaces/IRiskState.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";
import {AccountState} from "../libraries/AccountState.sol";
import {GuardClock} from "../libraries/GuardClock.sol";
import {OracleGuard} from "../libraries/OracleGuard.sol";
import {SpendingWindow} from "../libraries/SpendingWindow.sol";

/// @title Delta hedge that the chain itself decides
/// @notice The net delta is that of the option positions by the venue's own formula at the guarded price, plus the perp position, plus a spot
/// balance. When it is further from its target than the band, the perp is traded towards the target: at most so much at once and in any
/// span of the turnover window, never beyond the largest position, at a price no worse than the slippage bound against the oracle. Nobody
/// supplies a price, a size or call data. A hedge trades both ways, so everything that is doubtful stops it: a feed that is stale, a venue
/// away from it, a state other than ACTIVE (in REDUCE_ONLY a declared guard makes the perp position smaller and nothing else).
/// @dev Executor module, for any ERC-7579 account; storage with the account innermost, no dynamic values.
contract DeltaHedge is IDeltaHedge, IERC7579Module, ReentrancyGuardTransient {
    using GuardClock for GuardClock.Clock;

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error InvalidHedge(uint256 id);
    /// Never again: unknown, cancelled or expired. Arm it anew.
    error Final(address account, uint256 id);
    /// Inside the band.
    error NotDue(address account, uint256 id);
    /// Retry when the account is ACTIVE again.
    error Halted(address account);
    error CoolingDown(uint48 until);
    /// Retry later: the turnover window leaves less than the least trade.
    error TurnoverUsed(uint256 left);
    /// The perp position is as large as it may become. More would need other bounds, or fewer options.
    error PositionCapped(int256 position);
    /// Retry later: feed and venue disagree.
    error Deviation(uint256 price, uint256 venuePrice);
    /// Retry later: the options or the perp cannot be read.
    error VenueUnreadable(address account, uint256 id);
    /// Retry later: the guarded price is not there. The selector is one of `OracleGuard`.
    error OracleProblem(bytes4 problem);
    error NotPublicYet(uint48 publicAt);
    /// The venue did something else than trade at most what was asked, in the direction that was asked.
    error Misfilled(int256 asked, int256 traded);
    error NotImproved(int256 deltaBefore, int256 deltaAfter);

    /// @param window @param spent a rolling SpendingWindow over base units traded.
    struct Entry {
        Hedge hedge;
        GuardClock.Clock clock;
        bool armed;
        uint32 generation;
        uint48 arming;
        uint256 window;
        uint256 spent;
    }

    struct Installation {
        uint32 generation;
        bool installed;
    }

    /// What is known now. `size`: what would be traded.
    struct Reading {
        Due due;
        bytes4 reason;
        bool known;
        bool condition;
        uint256 price;
        uint256 venuePrice;
        int256 options;
        int256 perp;
        int256 spot;
        int256 net;
        int256 size;
        uint256 left;
    }

    uint256 private constant BPS = 10_000;
    uint16 public constant MAX_SLIPPAGE_BPS = 1000;
    uint256 private constant UNSEEN_GAS = 45_000;
    bytes32 private constant MODE_BATCH = bytes32(bytes1(0x01));
    bytes32 private constant MODE_SINGLE_TRY = bytes32(bytes2(0x0001));

    mapping(address account => Installation) private _installations;
    mapping(uint256 id => mapping(address account => Entry)) private _entries;

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Installation storage installation = _installations[msg.sender];
        if (installation.installed) revert AlreadyInstalled(msg.sender);
        (installation.installed, installation.generation) = (true, installation.generation + 1);
        if (data.length == 0) return;
        (uint256[] memory ids, Hedge[] memory hedges) = abi.decode(data, (uint256[], Hedge[]));
        for (uint256 i = 0; i < ids.length; ++i) {
            _arm(ids[i], hedges[i]);
        }
    }

    /// @inheritdoc IERC7579Module
    /// @dev Everything armed dies with the installation.
    function onUninstall(bytes calldata) external {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _installations[msg.sender].installed = false;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_EXECUTOR;
    }

    // ------------------------------------------------------------------ arming

    /// @inheritdoc IDeltaHedge
    function arm(uint256 id, Hedge calldata hedge) external nonReentrant {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _arm(id, hedge);
        IHedgeAdapter(hedge.perp).position(msg.sender, abi.encode(hedge.market)); // reverts for a market that is not the venue's
    }

    /// @inheritdoc IDeltaHedge
    function cancel(uint256 id) external nonReentrant {
        Entry storage entry = _entries[id][msg.sender];
        if (!_armed(entry, msg.sender)) revert Final(msg.sender, id);
        entry.armed = false;
        emit HedgeCancelled(msg.sender, id);
    }

    // ------------------------------------------------------------------ acting

    /// @inheritdoc IGuard
    function touch(address account, uint256 id) external nonReentrant {
        Entry storage entry = _entries[id][account];
        Reading memory reading = _read(entry, account);
        if (reading.due == Due.FINAL) revert Final(account, id);
        if (!reading.known) return;
        if (reading.condition) {
            if (entry.clock.confirm(_lapse(entry))) emit HedgeTouched(account, id, uint48(block.timestamp));
        } else if (entry.clock.clear()) {
            emit HedgeTouched(account, id, 0);
        }
    }

    /// @inheritdoc IGuard
    function execute(address account, uint256 id) external nonReentrant {
        uint256 gasBefore = gasleft();
        Entry storage entry = _entries[id][account];
        Reading memory reading = _read(entry, account);
        if (reading.due != Due.DUE) _revert(entry, account, id, reading);
        if (msg.sender != account) {
            uint48 began = entry.clock.since(_lapse(entry));
            uint48 publicAt = began == 0 ? 0 : began + entry.hedge.publicDelay;
            if (began == 0 || block.timestamp < publicAt) revert NotPublicYet(publicAt);
        }
        entry.clock.lastExecution = uint48(block.timestamp);
        entry.clock.clear();
        bool within;
        (within, entry.spent) = SpendingWindow.charge(entry.window, entry.spent, _abs(reading.size), block.timestamp);
        if (!within) revert TurnoverUsed(reading.left);

        int256 traded = _trade(entry, account, reading);
        int256 net = _net(entry, account, reading);
        int256 target = entry.hedge.target;
        if (_abs(net - target) >= _abs(reading.net - target)) revert NotImproved(reading.net, net);
        emit Hedged(account, id, reading.net, net, traded, reading.price);
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

    /// @inheritdoc IDeltaHedge
    function hedgeOf(address account, uint256 id)
        external
        view
        returns (Hedge memory hedge, bool armed, uint256 arming, uint48 dueSince, uint48 lastExecution)
    {
        Entry storage entry = _entries[id][account];
        armed = _armed(entry, account);
        if (!armed) return (hedge, false, entry.arming, 0, 0);
        return (entry.hedge, true, entry.arming, entry.clock.since(_lapse(entry)), entry.clock.lastExecution);
    }

    /// @inheritdoc IDeltaHedge
    function deltaOf(address account, uint256 id)
        external
        view
        returns (int256 options, int256 perp, int256 spot, uint256 price)
    {
        Entry storage entry = _entries[id][account];
        if (!_armed(entry, account)) revert Final(account, id);
        Reading memory reading;
        bytes4 problem = _readDelta(entry, account, reading);
        if (problem == VenueUnreadable.selector) revert VenueUnreadable(account, id);
        if (problem != 0) revert OracleProblem(problem);
        return (reading.options, reading.perp, reading.spot, reading.price);
    }

    // ------------------------------------------------------------------ judging

    /// @dev Everything that decides whether the hedge may trade now, in the order in which a caller wants to know it.
    function _read(Entry storage entry, address account) private view returns (Reading memory reading) {
        if (!_armed(entry, account) || (entry.hedge.expiry != 0 && block.timestamp > entry.hedge.expiry)) {
            return _because(reading, Due.FINAL, Final.selector);
        }
        bytes4 problem = _readDelta(entry, account, reading);
        if (problem != 0) return _because(reading, Due.BLOCKED, problem);
        reading.known = true;
        int256 missing = int256(entry.hedge.target) - reading.net;
        if (_abs(missing) <= entry.hedge.band) return _because(reading, Due.NOT_DUE, NotDue.selector);
        reading.condition = true;
        uint48 last = entry.clock.lastExecution;
        if (last != 0 && block.timestamp < last + entry.hedge.cooldown) {
            return _because(reading, Due.BLOCKED, CoolingDown.selector);
        }
        try IHedgeAdapter(entry.hedge.perp).venuePrice(_market(entry)) returns (uint256 venuePrice) {
            reading.venuePrice = venuePrice;
        } catch {}
        if (reading.venuePrice == 0) return _because(reading, Due.BLOCKED, VenueUnreadable.selector);
        if (OracleGuard.deviationBps(reading.price, reading.venuePrice) > entry.hedge.oracle.maxDeviationBps) {
            return _because(reading, Due.BLOCKED, Deviation.selector);
        }
        problem = _size(entry, account, reading, missing);
        if (problem != 0) return _because(reading, Due.BLOCKED, problem);
        reading.due = Due.DUE;
    }

    function _because(Reading memory reading, Due status, bytes4 reason) private pure returns (Reading memory) {
        (reading.due, reading.reason) = (status, reason);
        return reading;
    }

    /// @dev The typed error for a hedge that is not due.
    function _revert(Entry storage entry, address account, uint256 id, Reading memory reading) private view {
        bytes4 reason = reading.reason;
        if (reason == Final.selector) revert Final(account, id);
        if (reason == NotDue.selector) revert NotDue(account, id);
        if (reason == Halted.selector) revert Halted(account);
        if (reason == CoolingDown.selector) revert CoolingDown(entry.clock.lastExecution + entry.hedge.cooldown);
        if (reason == TurnoverUsed.selector) revert TurnoverUsed(reading.left);
        if (reason == PositionCapped.selector) revert PositionCapped(reading.perp);
        if (reason == Deviation.selector) revert Deviation(reading.price, reading.venuePrice);
        if (reason == VenueUnreadable.selector) revert VenueUnreadable(account, id);
        revert OracleProblem(reason);
    }

    /// @dev net = options + perp + spot at the guarded price; else the selector of what is missing.
    function _readDelta(Entry storage entry, address account, Reading memory reading) private view returns (bytes4) {
        bytes4 problem;
        (reading.price, problem) = OracleGuard.read(entry.hedge.oracle);
        if (problem != 0) return problem;
        if (entry.hedge.options != address(0)) {
            try IDeltaSource(entry.hedge.options).delta(account, reading.price) returns (int256 delta) {
                reading.options = delta;
            } catch {
                return VenueUnreadable.selector;
            }
        }
        try IHedgeAdapter(entry.hedge.perp).position(account, _market(entry)) returns (
            IVenueAdapter.Position memory position
        ) {
            reading.perp = position.size;
        } catch {
            return VenueUnreadable.selector;
        }
        address spot = entry.hedge.spot;
        if (spot != address(0)) {
            uint256 balance = IERC20(spot).balanceOf(account);
            reading.spot = int256(Math.mulDiv(balance, 1e18, 10 ** IERC20Metadata(spot).decimals()));
        }
        reading.net = reading.options + reading.perp + reading.spot;
        return 0;
    }

    /// @dev What is traded of what is missing: within the caps of one execution, of the window, of the position and of the state.
    function _size(Entry storage entry, address account, Reading memory reading, int256 missing)
        private
        view
        returns (bytes4)
    {
        (RiskState state, address authority) = AccountState.read(account, entry.hedge.authority);
        if (state == RiskState.FROZEN) return Halted.selector;
        int256 perp = reading.perp;
        uint256 room;
        if (state == RiskState.REDUCE_ONLY) {
            bool reduces = perp != 0 && (perp > 0) == (missing < 0);
            if (!reduces || !AccountState.isGuard(account, authority)) return Halted.selector;
            room = _abs(perp);
        } else {
            // From the position to the cap on the side that is traded to; nothing when it is beyond it already.
            int256 cap = int256(uint256(entry.hedge.maxPosition));
            int256 way = missing > 0 ? cap - perp : perp + cap;
            if (way < int256(uint256(entry.hedge.minTrade))) return PositionCapped.selector;
            room = uint256(way);
        }
        uint256 spent = SpendingWindow.spent(entry.window, entry.spent, block.timestamp);
        uint256 most = entry.hedge.maxTurnover;
        reading.left = most > spent ? most - spent : 0;
        if (reading.left < entry.hedge.minTrade) return TurnoverUsed.selector;
        uint256 size = Math.min(Math.min(_abs(missing), entry.hedge.maxTrade), Math.min(room, reading.left));
        reading.size = missing > 0 ? int256(size) : -int256(size);
        return 0;
    }

    /// @dev How long an unconfirmed record counts, in seconds. Source: StopLoss.
    function _lapse(Entry storage entry) private view returns (uint256) {
        return uint256(entry.hedge.publicDelay) + entry.hedge.oracle.heartbeat;
    }

    // ------------------------------------------------------------------ trading

    /// @dev Have the account make the adapter's calls and measure what became of the position.
    function _trade(Entry storage entry, address account, Reading memory reading) private returns (int256 traded) {
        int256 size = reading.size;
        // limit = oracle price * (1 -+ slippage), rounded for the account
        uint256 limit = size < 0
            ? Math.mulDiv(reading.price, BPS - entry.hedge.slippageBps, BPS, Math.Rounding.Ceil)
            : Math.mulDiv(reading.price, BPS + entry.hedge.slippageBps, BPS);
        IHedgeAdapter perp = IHedgeAdapter(entry.hedge.perp);
        Execution[] memory calls = perp.tradeCalls(account, _market(entry), size, limit);
        IERC7579Execution(account).executeFromExecutor(MODE_BATCH, abi.encode(calls));
        int256 position = perp.position(account, _market(entry)).size;
        traded = position - reading.perp;
        if (traded == 0 || (traded > 0) != (size > 0) || _abs(traded) > _abs(size)) revert Misfilled(size, traded);
    }

    /// @dev The net delta after the trade, at the price that decided about it.
    function _net(Entry storage entry, address account, Reading memory before) private view returns (int256) {
        Reading memory reading;
        bytes4 problem = _readDelta(entry, account, reading);
        if (problem != 0 || reading.price != before.price) revert OracleProblem(problem);
        return reading.net;
    }

    /// @dev Pay an outside caller for his gas, within both caps. A refund that cannot be paid never undoes the hedge.
    function _refund(Entry storage entry, address account, uint256 gasBefore) private {
        uint256 refund = (gasBefore - gasleft() + UNSEEN_GAS) * tx.gasprice * entry.hedge.refundBps / BPS;
        if (refund > entry.hedge.refundCap) refund = entry.hedge.refundCap;
        if (refund == 0 || refund > account.balance) return;
        IERC7579Execution(account).executeFromExecutor(MODE_SINGLE_TRY, abi.encodePacked(msg.sender, refund));
    }

    // ------------------------------------------------------------------ inside

    function _arm(uint256 id, Hedge memory hedge) private {
        (bool counts, uint256 window) = SpendingWindow.pack(
            IPolicyHook.Window({
                asset: address(0),
                span: IPolicyHook.Span.ROLLING,
                duration: hedge.turnoverSeconds,
                offsetMinutes: 0,
                limit: hedge.maxTurnover
            })
        );
        if (!counts || !_sound(hedge)) revert InvalidHedge(id);
        Entry storage entry = _entries[id][msg.sender];
        entry.spent =
            SpendingWindow.alike(entry.window, window) ? SpendingWindow.carry(entry.window, window, entry.spent) : 0;
        entry.window = window;
        entry.hedge = hedge;
        entry.armed = true;
        entry.generation = _installations[msg.sender].generation;
        ++entry.arming;
        entry.clock.clear();
        emit HedgeArmed(msg.sender, id, entry.arming, hedge);
    }

    /// @dev Asks nobody, so that a hedge can be armed in the operation that creates the account (ERC-7562). The least trade is
    /// no larger than the band, so that what is outside of it is always worth a trade.
    function _sound(Hedge memory hedge) private view returns (bool) {
        bool parties = hedge.perp.code.length != 0 && hedge.market != address(0)
            && (hedge.options == address(0) || hedge.options.code.length != 0)
            && (hedge.spot == address(0) || hedge.spot.code.length != 0)
            && (hedge.authority == address(0) || hedge.authority.code.length != 0);
        bool sizes = hedge.minTrade != 0 && hedge.minTrade <= hedge.band && hedge.minTrade <= hedge.maxTrade
            && hedge.minTrade <= hedge.maxTurnover && hedge.minTrade <= hedge.maxPosition
            && hedge.maxPosition <= uint128(type(int128).max);
        bool bounds = hedge.slippageBps != 0 && hedge.slippageBps <= MAX_SLIPPAGE_BPS && hedge.refundBps <= BPS;
        bool oracle = hedge.oracle.feed.code.length != 0 && hedge.oracle.heartbeat != 0 && hedge.oracle.minPrice != 0
            && hedge.oracle.minPrice <= hedge.oracle.maxPrice && hedge.oracle.deviationPatience == 0
            && (hedge.oracle.sequencerFeed == address(0) || hedge.oracle.sequencerFeed.code.length != 0);
        return parties && sizes && bounds && oracle;
    }

    function _armed(Entry storage entry, address account) private view returns (bool) {
        Installation memory installation = _installations[account];
        return installation.installed && entry.armed && entry.generation == installation.generation;
    }

    function _market(Entry storage entry) private view returns (bytes memory) {
        return abi.encode(entry.hedge.market);
    }

    function _abs(int256 value) private pure returns (uint256) {
        return value < 0 ? uint256(-value) : uint256(value);
    }
}
