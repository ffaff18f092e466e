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
import {IGuard} from "../interfaces/IGuard.sol";
import {IHealthGuard} from "../interfaces/IHealthGuard.sol";
import {ILendingAdapter} from "../interfaces/ILendingAdapter.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";
import {GuardClock} from "../libraries/GuardClock.sol";
import {OracleGuard} from "../libraries/OracleGuard.sol";

/// @title Health-factor guard that the chain itself decides
/// @notice When the venue says that the account's health is at or below the floor, it is brought towards the target: by repaying from the
/// account's own balance, by supplying more collateral from it, and by withdrawing collateral, selling it and repaying, in that order and
/// each within its cap. Nobody supplies a price, an amount or call data. Repaying and supplying need no price but the venue's own; a sale
/// fills at the conservative of feed and pool less the slippage bound in force, as a stop does. Afterwards the health must be better, not
/// beyond the target's tolerance, and the debt no larger.
/// @dev Executor module, for any ERC-7579 account; storage with the account innermost.
contract HealthGuard is IHealthGuard, IERC7579Module, ReentrancyGuardTransient {
    using GuardClock for GuardClock.Clock;

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error InvalidHealth(uint256 id);
    /// Never again: unknown, cancelled or expired. Arm it anew.
    error Final(address account, uint256 id);
    /// Above the floor, or without debt.
    error NotDue(address account, uint256 id);
    error CoolingDown(uint48 until);
    /// Retry later: the venue cannot tell the health or the market.
    error VenueUnreadable(address adapter);
    /// Retry later: no way that is open has anything to use (no balance, no collateral that could be withdrawn).
    error NothingToUse(address account, uint256 id);
    /// Retry later: feed and pool disagree, and nothing but a sale could help.
    error Deviation(uint256 price, uint256 venuePrice);
    /// Retry later: the guarded price is not there, and nothing but a sale could help. The selector is one of `OracleGuard`.
    error OracleProblem(bytes4 problem);
    error NotPublicYet(uint48 publicAt);
    error NotImproved(uint256 factorBefore, uint256 factorAfter);
    error Overshot(uint256 factorAfter, uint256 target);
    error DebtIncreased(uint256 debtBefore, uint256 debtAfter);

    /// @param arming grows with every arming and every execution.
    struct Entry {
        Health health;
        GuardClock.Clock clock;
        bool armed;
        uint32 generation;
        uint48 arming;
    }

    struct Installation {
        uint32 generation;
        bool installed;
    }

    /// What is known now. `sale`: selling is possible, at `price` and `venuePrice`; else `problem` says why not.
    struct Reading {
        Due due;
        bytes4 reason;
        ILendingAdapter.Health health;
        ILendingAdapter.Market market;
        bool known;
        bool condition;
        bool sale;
        bytes4 problem;
        uint256 price;
        uint256 venuePrice;
    }

    struct Used {
        uint256 repaid;
        uint256 suppliedMore;
        uint256 unwound;
    }

    uint256 private constant BPS = 10_000;
    uint256 private constant WAD = 1e18;
    uint16 public constant MAX_SLIPPAGE_BPS = 5000;
    /// While collateral is withdrawn to be sold the health never falls below this.
    uint256 public constant WITHDRAWAL_FLOOR = 1.005e18;
    /// Least health from which a sale is worth its gas.
    uint256 public constant SALE_FLOOR = 1.006e18;
    /// Sales of one execution: each frees collateral for the next. Nearer the withdrawal floor an execution ends below the target and goes on
    /// after its cool-down.
    uint256 private constant MAX_ROUNDS = 10;
    /// Less than this share of the debt is dust: it would improve nothing that can be measured.
    uint256 private constant DUST_SHARE = 10_000;
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
        (uint256[] memory ids, Health[] memory healths) = abi.decode(data, (uint256[], Health[]));
        for (uint256 i = 0; i < ids.length; ++i) {
            _arm(ids[i], healths[i]);
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

    /// @inheritdoc IHealthGuard
    function arm(uint256 id, Health calldata health) external nonReentrant {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _arm(id, health);
        // Reverts for assets that the venue does not list.
        ILendingAdapter(health.lending).market(msg.sender, health.collateral, health.debt);
    }

    /// @inheritdoc IHealthGuard
    function cancel(uint256 id) external nonReentrant {
        Entry storage entry = _entries[id][msg.sender];
        if (!_armed(entry, msg.sender)) revert Final(msg.sender, id);
        entry.armed = false;
        emit HealthCancelled(msg.sender, id);
    }

    // ------------------------------------------------------------------ acting

    /// @inheritdoc IGuard
    function touch(address account, uint256 id) external nonReentrant {
        Entry storage entry = _entries[id][account];
        Reading memory reading = _read(entry, account);
        if (reading.due == Due.FINAL) revert Final(account, id);
        if (!reading.known) return;
        if (reading.condition) _confirm(entry, account, id);
        else if (entry.clock.clear()) emit HealthTouched(account, id, 0);
    }

    /// @inheritdoc IGuard
    function execute(address account, uint256 id) external nonReentrant {
        uint256 gasBefore = gasleft();
        Entry storage entry = _entries[id][account];
        Reading memory reading = _read(entry, account);
        if (reading.due != Due.DUE) _revert(entry, account, id, reading);
        if (msg.sender != account) {
            uint48 began = entry.clock.since(_lapse(entry));
            uint48 publicAt = began == 0 ? 0 : began + entry.health.publicDelay;
            if (began == 0 || block.timestamp < publicAt) revert NotPublicYet(publicAt);
        }
        _confirm(entry, account, id);
        entry.clock.lastExecution = uint48(block.timestamp);

        Used memory used = _restore(entry, account, reading);
        ILendingAdapter.Health memory afterwards = ILendingAdapter(entry.health.lending).health(account);
        if (afterwards.factor <= reading.health.factor) revert NotImproved(reading.health.factor, afterwards.factor);
        uint256 highest = uint256(entry.health.target) * (BPS + entry.health.toleranceBps) / BPS;
        if (afterwards.factor > highest) revert Overshot(afterwards.factor, entry.health.target);
        if (afterwards.debt > reading.health.debt) revert DebtIncreased(reading.health.debt, afterwards.debt);
        emit HealthRestored(
            account, id, reading.health.factor, afterwards.factor, used.repaid, used.suppliedMore, used.unwound
        );
        emit GuardFired(account, id, entry.arming, msg.sender);
        ++entry.arming;
        if (afterwards.factor > entry.health.floor) entry.clock.clear();
        if (msg.sender != account) _refund(entry, account, gasBefore);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IGuard
    function due(address account, uint256 id) external view returns (Due status, bytes4 reason) {
        Reading memory reading = _read(_entries[id][account], account);
        return (reading.due, reading.reason);
    }

    /// @inheritdoc IHealthGuard
    function healthOf(address account, uint256 id)
        external
        view
        returns (Health memory health, bool armed, uint256 arming, uint48 dueSince, uint48 lastExecution)
    {
        Entry storage entry = _entries[id][account];
        armed = _armed(entry, account);
        if (!armed) return (health, false, entry.arming, 0, 0);
        return (entry.health, true, entry.arming, entry.clock.since(_lapse(entry)), entry.clock.lastExecution);
    }

    // ------------------------------------------------------------------ judging

    /// @dev Everything that decides whether the guard may act now, in the order in which a caller wants to know it.
    function _read(Entry storage entry, address account) private view returns (Reading memory reading) {
        uint48 expiry = entry.health.expiry;
        if (!_armed(entry, account) || (expiry != 0 && block.timestamp > expiry)) {
            (reading.due, reading.reason) = (Due.FINAL, Final.selector);
            return reading;
        }
        ILendingAdapter lending = ILendingAdapter(entry.health.lending);
        try lending.health(account) returns (ILendingAdapter.Health memory health) {
            reading.health = health;
        } catch {
            return _blocked(reading, VenueUnreadable.selector);
        }
        reading.known = true;
        reading.condition = reading.health.debt != 0 && reading.health.factor <= entry.health.floor;
        if (!reading.condition) {
            (reading.due, reading.reason) = (Due.NOT_DUE, NotDue.selector);
            return reading;
        }
        try lending.market(account, entry.health.collateral, entry.health.debt) returns (
            ILendingAdapter.Market memory market
        ) {
            reading.market = market;
        } catch {
            return _blocked(reading, VenueUnreadable.selector);
        }
        uint48 last = entry.clock.lastExecution;
        if (last != 0 && block.timestamp < last + entry.health.cooldown) {
            return _blocked(reading, CoolingDown.selector);
        }

        _readSale(entry, reading);
        bool repays = _counts(account, entry.health.debt, entry.health.maxRepay, reading.market.debtPrice, reading);
        bool toppedUp =
            _counts(account, entry.health.collateral, entry.health.maxTopUp, reading.market.collateralPrice, reading);
        if (repays || toppedUp || reading.sale) reading.due = Due.DUE;
        else _blocked(reading, reading.problem == 0 ? NothingToUse.selector : reading.problem);
    }

    /// @dev Whether collateral could be withdrawn and sold, and at which prices.
    function _readSale(Entry storage entry, Reading memory reading) private view {
        uint256 most = Math.min(entry.health.maxUnwind, reading.market.supplied);
        if (_isDust(entry.health.collateral, most, reading.market.collateralPrice, reading)) return;
        if (reading.health.factor < SALE_FLOOR) return; // the venue would let next to nothing out
        (reading.price, reading.problem) = OracleGuard.read(entry.health.oracle);
        if (reading.problem != 0) return;
        try IVenueAdapter(entry.health.swap).venuePrice(_swapMarket(entry)) returns (uint256 venuePrice) {
            reading.venuePrice = venuePrice;
        } catch {}
        if (reading.venuePrice == 0) {
            reading.problem = VenueUnreadable.selector;
            return;
        }
        if (OracleGuard.deviationBps(reading.price, reading.venuePrice) > entry.health.oracle.maxDeviationBps) {
            uint48 began = entry.clock.since(_lapse(entry));
            if (began == 0 || block.timestamp < began + entry.health.oracle.deviationPatience) {
                reading.problem = Deviation.selector;
                return;
            }
        }
        reading.sale = true;
    }

    function _counts(address account, address asset, uint256 cap, uint256 price, Reading memory reading)
        private
        view
        returns (bool)
    {
        return cap != 0 && !_isDust(asset, Math.min(cap, IERC20(asset).balanceOf(account)), price, reading);
    }

    function _isDust(address asset, uint256 amount, uint256 price, Reading memory reading) private view returns (bool) {
        if (amount == 0) return true;
        return Math.mulDiv(amount, price, 10 ** IERC20Metadata(asset).decimals()) < reading.health.debt / DUST_SHARE + 1;
    }

    function _blocked(Reading memory reading, bytes4 reason) private pure returns (Reading memory) {
        (reading.due, reading.reason) = (Due.BLOCKED, reason);
        return reading;
    }

    /// @dev The typed error for a guard that is not due.
    function _revert(Entry storage entry, address account, uint256 id, Reading memory reading) private view {
        bytes4 reason = reading.reason;
        if (reason == Final.selector) revert Final(account, id);
        if (reason == NotDue.selector) revert NotDue(account, id);
        if (reason == CoolingDown.selector) revert CoolingDown(entry.clock.lastExecution + entry.health.cooldown);
        if (reason == NothingToUse.selector) revert NothingToUse(account, id);
        if (reason == Deviation.selector) revert Deviation(reading.price, reading.venuePrice);
        if (reason == VenueUnreadable.selector) revert VenueUnreadable(entry.health.lending);
        revert OracleProblem(reason);
    }

    function _confirm(Entry storage entry, address account, uint256 id) private {
        if (entry.clock.confirm(_lapse(entry))) emit HealthTouched(account, id, uint48(block.timestamp));
    }

    /// @dev How long an unconfirmed record counts, in seconds. Source: StopLoss.
    function _lapse(Entry storage entry) private view returns (uint256) {
        uint256 longest = entry.health.publicDelay;
        if (entry.health.widenSeconds > longest) longest = entry.health.widenSeconds;
        if (entry.health.oracle.deviationPatience > longest) longest = entry.health.oracle.deviationPatience;
        return longest + entry.health.oracle.heartbeat;
    }

    // ------------------------------------------------------------------ restoring

    function _restore(Entry storage entry, address account, Reading memory reading) private returns (Used memory used) {
        used.repaid = _repay(entry, account, entry.health.maxRepay);
        used.suppliedMore = _topUp(entry, account);
        if (!reading.sale) return used;
        uint256 slippage = GuardClock.widened(
            entry.clock.since(_lapse(entry)),
            entry.health.slippageBps,
            entry.health.maxSlippageBps,
            entry.health.widenSeconds
        );
        uint256 limit = _limitPrice(reading.price, reading.venuePrice, slippage, entry.health.maxSlippageBps);
        for (uint256 i = 0; i < MAX_ROUNDS; ++i) {
            uint256 sold = _unwind(entry, account, entry.health.maxUnwind - used.unwound, limit);
            if (sold == 0) break;
            used.unwound += sold;
        }
    }

    /// @dev Repay what brings the health to the target, from the account's balance and at most `cap`: debt - collateral * threshold / target.
    function _repay(Entry storage entry, address account, uint256 cap) private returns (uint256 amount) {
        uint256 balance = IERC20(entry.health.debt).balanceOf(account);
        if (cap == 0 || balance == 0) return 0;
        ILendingAdapter lending = ILendingAdapter(entry.health.lending);
        ILendingAdapter.Health memory h = lending.health(account);
        ILendingAdapter.Market memory m = lending.market(account, entry.health.collateral, entry.health.debt);
        uint256 bearable = _bearable(h, entry.health.target);
        if (h.debt <= bearable) return 0;
        amount = _units(h.debt - bearable, m.debtPrice, entry.health.debt);
        amount = Math.min(Math.min(amount, balance), Math.min(cap, m.owed));
        if (amount != 0) _run(account, lending.repayCalls(account, entry.health.debt, amount));
    }

    /// @dev Supply what brings the health to the target: (target * debt - collateral * threshold) / the collateral's own threshold.
    function _topUp(Entry storage entry, address account) private returns (uint256 amount) {
        uint256 balance = IERC20(entry.health.collateral).balanceOf(account);
        if (entry.health.maxTopUp == 0 || balance == 0) return 0;
        ILendingAdapter lending = ILendingAdapter(entry.health.lending);
        ILendingAdapter.Health memory h = lending.health(account);
        ILendingAdapter.Market memory m = lending.market(account, entry.health.collateral, entry.health.debt);
        uint256 missing = _missing(h, entry.health.target);
        if (missing == 0 || m.thresholdBps == 0) return 0;
        amount = _units(missing * BPS / m.thresholdBps, m.collateralPrice, entry.health.collateral);
        amount = Math.min(Math.min(amount, balance), entry.health.maxTopUp);
        if (amount != 0) _run(account, lending.supplyCalls(account, entry.health.collateral, amount));
    }

    /// @dev One round: withdraw x, sell it, repay with what came. With t the collateral's threshold and a fill at the venue's price,
    /// x = (target * debt - collateral * threshold) / (target - t), and no more than what leaves the health above the floor of withdrawals on
    /// the way. What a better fill brings beyond the target stays with the account. Returns the collateral units sold.
    function _unwind(Entry storage entry, address account, uint256 cap, uint256 limit)
        private
        returns (uint256 amount)
    {
        ILendingAdapter lending = ILendingAdapter(entry.health.lending);
        ILendingAdapter.Health memory h = lending.health(account);
        ILendingAdapter.Market memory m = lending.market(account, entry.health.collateral, entry.health.debt);
        uint256 missing = _missing(h, entry.health.target);
        uint256 own = m.thresholdBps * WAD / BPS;
        if (missing == 0 || own == 0) return 0;
        uint256 value = Math.mulDiv(missing, WAD, entry.health.target - own); // a threshold is below 1, a target above
        uint256 weighted = Math.mulDiv(h.collateral, h.thresholdBps, BPS);
        uint256 kept = Math.mulDiv(h.debt, WITHDRAWAL_FLOOR, WAD);
        if (weighted <= kept) return 0;
        value = Math.min(value, Math.mulDiv(weighted - kept, BPS, m.thresholdBps));
        amount = Math.min(Math.min(_units(value, m.collateralPrice, entry.health.collateral), m.supplied), cap);
        // A round that small costs more than it mends, and a unit of rounding would decide whether it fills.
        if (
            Math.mulDiv(amount, m.collateralPrice, 10 ** IERC20Metadata(entry.health.collateral).decimals())
                < h.debt / DUST_SHARE + 1
        ) return 0;
        uint256 size = _toWad(amount, IERC20Metadata(entry.health.collateral).decimals());
        uint256 before = IERC20(entry.health.debt).balanceOf(account);
        _run(account, lending.withdrawCalls(account, entry.health.collateral, amount));
        _run(account, IVenueAdapter(entry.health.swap).reduceCalls(account, _swapMarket(entry), size, limit));
        _repay(entry, account, IERC20(entry.health.debt).balanceOf(account) - before);
    }

    /// @dev The debt (value) that the account's collateral bears at `target`; rounded up, so that less is repaid.
    function _bearable(ILendingAdapter.Health memory h, uint256 target) private pure returns (uint256) {
        return Math.mulDiv(h.collateral * h.thresholdBps, WAD, target * BPS, Math.Rounding.Ceil);
    }

    /// @dev target * debt - collateral * threshold (value), 0 when the target is reached; rounded down.
    function _missing(ILendingAdapter.Health memory h, uint256 target) private pure returns (uint256) {
        uint256 wanted = Math.mulDiv(h.debt, target, WAD);
        uint256 weighted = Math.mulDiv(h.collateral, h.thresholdBps, BPS, Math.Rounding.Ceil);
        return wanted > weighted ? wanted - weighted : 0;
    }

    /// @dev Token units of `value`, rounded down.
    function _units(uint256 value, uint256 price, address asset) private view returns (uint256) {
        return Math.mulDiv(value, 10 ** IERC20Metadata(asset).decimals(), price);
    }

    function _toWad(uint256 amount, uint8 decimals) private pure returns (uint256) {
        return decimals <= 18 ? amount * 10 ** (18 - decimals) : amount / 10 ** (decimals - 18);
    }

    /// @dev The worst mean fill of a sale: the lower of feed and pool less the bound in force, never further than `cap` from the feed.
    function _limitPrice(uint256 price, uint256 venuePrice, uint256 slippage, uint256 cap)
        private
        pure
        returns (uint256)
    {
        uint256 bound = Math.mulDiv(Math.min(price, venuePrice), BPS - slippage, BPS, Math.Rounding.Ceil);
        return Math.max(bound, Math.mulDiv(price, BPS - cap, BPS, Math.Rounding.Ceil));
    }

    function _run(address account, Execution[] memory calls) private {
        IERC7579Execution(account).executeFromExecutor(MODE_BATCH, abi.encode(calls));
    }

    /// @dev Pay an outside caller for his gas, within both caps. A refund that cannot be paid never undoes the rescue.
    function _refund(Entry storage entry, address account, uint256 gasBefore) private {
        uint256 refund = (gasBefore - gasleft() + UNSEEN_GAS) * tx.gasprice * entry.health.refundBps / BPS;
        if (refund > entry.health.refundCap) refund = entry.health.refundCap;
        if (refund == 0 || refund > account.balance) return;
        IERC7579Execution(account).executeFromExecutor(MODE_SINGLE_TRY, abi.encodePacked(msg.sender, refund));
    }

    // ------------------------------------------------------------------ inside

    function _arm(uint256 id, Health memory health) private {
        bool assets = health.lending.code.length != 0 && health.collateral.code.length != 0
            && health.debt.code.length != 0 && health.collateral != health.debt;
        bool levels = health.floor > WAD && health.target > health.floor && health.toleranceBps <= BPS
            && (health.maxRepay | health.maxTopUp | health.maxUnwind) != 0;
        bool sale = health.maxUnwind == 0
            || (health.swap.code.length != 0
                && health.oracle.feed.code.length != 0
                && health.oracle.heartbeat != 0
                && health.oracle.minPrice != 0
                && health.oracle.minPrice <= health.oracle.maxPrice
                && (health.oracle.sequencerFeed == address(0) || health.oracle.sequencerFeed.code.length != 0));
        bool bounds = health.slippageBps <= health.maxSlippageBps && health.maxSlippageBps <= MAX_SLIPPAGE_BPS
            && health.refundBps <= BPS;
        if (!(assets && levels && sale && bounds)) revert InvalidHealth(id);
        Entry storage entry = _entries[id][msg.sender];
        entry.health = health;
        entry.armed = true;
        entry.generation = _installations[msg.sender].generation;
        ++entry.arming;
        entry.clock.clear();
        emit HealthArmed(msg.sender, id, entry.arming, health);
    }

    function _armed(Entry storage entry, address account) private view returns (bool) {
        Installation memory installation = _installations[account];
        return installation.installed && entry.armed && entry.generation == installation.generation;
    }

    function _swapMarket(Entry storage entry) private view returns (bytes memory) {
        return abi.encode(entry.health.collateral, entry.health.debt, entry.health.fee);
    }
}
