// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Module, MODULE_TYPE_EXECUTOR} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IEquityBreaker} from "../interfaces/IEquityBreaker.sol";
import {IPolicyHook} from "../interfaces/IPolicyHook.sol";
import {RiskState} from "../interfaces/IRiskState.sol";
import {BreakerMeasure} from "./breaker/BreakerMeasure.sol";

/// @title The breaker that stops an account which loses too much
/// @notice See IEquityBreaker. Installed as an executor, which it never acts as: the account's `PolicyHook` calls it, its `EmergencyFreeze` obeys
/// it. Usable on every account those two are.
contract EquityBreaker is BreakerMeasure, IERC7579Module {
    using SafeERC20 for IERC20;

    /// Seconds beyond `changeDelay` in which, after a return to ACTIVE, the drawdown does not latch: a new mark can be announced and set.
    uint48 public constant REST = 3 days;
    /// A breach that `poke` saw is forgotten when nobody confirms it for so long beyond `patience`.
    uint48 public constant LAPSE = 1 hours;

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        if (_accounts[msg.sender].config != address(0)) revert AlreadyInstalled(msg.sender);
        ++_accounts[msg.sender].generation;
        _begin(_keep(abi.decode(data, (Config))));
    }

    /// @inheritdoc IERC7579Module
    function onUninstall(bytes calldata) external {
        if (_accounts[msg.sender].config == address(0)) revert NotInstalled(msg.sender);
        _accounts[msg.sender].config = address(0);
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_EXECUTOR;
    }

    // ------------------------------------------------------------------ the hook

    /// @inheritdoc IEquityBreaker
    function enter(address account, bool mayIncrease) external {
        if (_accounts[account].config == address(0)) return;
        Kept memory kept = _kept(account);
        _requireHook(kept);
        (uint256[] memory prices, bytes4 problem) = _prices(kept, false);
        uint256 equity;
        if (problem == 0) (equity, problem) = _equity(account, kept, prices);
        if (problem != 0) {
            if (mayIncrease) revert EquityUnknown(problem);
            return _tstore(account, PHASE_FIELD, UNKNOWN);
        }
        if (_accounts[account].owing) _settle(account, kept, prices, equity);
        _open(account, prices, equity);
    }

    /// @inheritdoc IEquityBreaker
    function exiting(address account, address target, uint256 value, bytes calldata data) external {
        if (_accounts[account].config == address(0)) return;
        Kept memory kept = _kept(account);
        _requireHook(kept);
        _noteExit(account, kept, target, value, data);
    }

    /// @inheritdoc IEquityBreaker
    function leave(address account, bool judged, bool mayIncrease) external {
        uint256 phase = _tload(account, PHASE_FIELD);
        if (_accounts[account].config == address(0)) return _tstore(account, PHASE_FIELD, 0);
        Kept memory kept = _kept(account);
        _requireHook(kept);
        _tstore(account, PHASE_FIELD, 0);
        if (judged && (phase == 0 || (phase == UNKNOWN && mayIncrease))) revert NotMeasured();
        uint256[] memory arrived = _arrived(account, kept);
        if (phase != ENTERED) return _owe(account, arrived);
        uint256[] memory prices = _openingPrices(account, kept);
        (uint256 equity, bytes4 problem) = _equity(account, kept, prices);
        if (problem != 0) {
            if (mayIncrease) revert EquityUnknown(problem);
            return _owe(account, arrived);
        }
        uint256 before = _tload(account, EQUITY_FIELD);
        uint256 withdrawn = Math.min(_value(kept, prices, arrived), before);
        if (judged) _requireSmallLoss(kept.settings, before, withdrawn, equity);
        if (withdrawn != 0) _withdraw(account, before, withdrawn);
        if (judged) _judge(account, kept.settings, equity);
    }

    // ------------------------------------------------------------------ anyone

    /// @inheritdoc IEquityBreaker
    function poke(address account) external {
        Kept memory kept = _kept(account);
        _requireBetweenExecutions(account, kept);
        (RiskState state,) = IEmergencyFreeze(kept.settings.authority).stateOf(account);
        if (state != RiskState.ACTIVE) revert NotActive(state);
        (uint256[] memory prices, uint256 equity) = _measured(account, kept);
        if (_accounts[account].owing) _settle(account, kept, prices, equity);
        if (_marks[account].day == 0) return _reset(account, equity);
        (, bytes4 doubt) = _prices(kept, true);
        _raise(account, equity, doubt == 0);
        Marks memory marks = _ofToday(account, kept.settings, equity);
        (bool breached, Cause cause, uint256 anchor) = _breach(account, kept.settings, marks, equity);
        Looks memory looks = _looks[account];
        if (!breached) {
            looks.breachedSince = 0;
        } else {
            bool lapsed = block.timestamp > uint256(looks.breachedSince) + kept.settings.patience + LAPSE;
            if (looks.breachedSince == 0 || lapsed) {
                looks.breachedSince = uint48(block.timestamp);
                emit BreachSeen(account, cause, equity, anchor);
            }
            if (block.timestamp >= looks.breachedSince + kept.settings.patience) {
                _latch(account, kept.settings, cause, equity, anchor);
                return;
            }
        }
        _looks[account] = looks;
    }

    /// @inheritdoc IEquityBreaker
    function deposit(address account, address asset, uint256 amount) external payable {
        Kept memory kept = _kept(account);
        _requireBetweenExecutions(account, kept);
        uint256 index = _indexOf(kept, asset);
        if (index == kept.assets.length || (msg.value != 0 && asset != address(0))) revert NotAnAsset(asset);
        (uint256[] memory prices, uint256 equity) = _measured(account, kept);
        if (_accounts[account].owing) _settle(account, kept, prices, equity);
        uint256 had = _balance(asset, account);
        if (asset == address(0)) {
            amount = msg.value;
            Address.sendValue(payable(account), amount);
        } else {
            IERC20(asset).safeTransferFrom(msg.sender, account, amount);
        }
        uint256 has = _balance(asset, account);
        if (has == UNREADABLE || has < had) revert EquityUnknown(BalanceUnreadable.selector);
        uint256 value = Math.mulDiv(Math.min(has - had, amount), prices[index], kept.units[index]);
        _grow(account, kept.settings, equity, value);
        emit Deposited(account, asset, Math.min(has - had, amount), value);
    }

    // ------------------------------------------------------------------ the account

    /// @inheritdoc IEquityBreaker
    function configure(Config calldata config) external {
        Kept memory old = _kept(msg.sender);
        _consumeAnnouncement(old.settings);
        uint256 phase = _tload(msg.sender, PHASE_FIELD);
        if (phase == ENTERED) {
            // What was lost so far is judged by the old configuration, what comes by the new one.
            (uint256 equity, bytes4 problem) = _equity(msg.sender, old, _openingPrices(msg.sender, old));
            if (problem != 0) revert EquityUnknown(problem);
            _requireSmallLoss(old.settings, _tload(msg.sender, EQUITY_FIELD), 0, equity);
        }
        Kept memory kept = _keep(config);
        _begin(kept);
        if (phase != 0) {
            (uint256[] memory prices, uint256 equity) = _measured(msg.sender, kept);
            _open(msg.sender, prices, equity);
        }
    }

    /// @inheritdoc IEquityBreaker
    function resetMark() external {
        Kept memory kept = _kept(msg.sender);
        _consumeAnnouncement(kept.settings);
        _takeOwed(msg.sender, kept.assets.length);
        _begin(kept);
    }

    // ------------------------------------------------------------------ inside

    function _requireHook(Kept memory kept) private view {
        if (msg.sender != kept.settings.hook) revert NotHook(msg.sender);
    }

    /// @dev A loan in the account's hands during its own execution is not its equity.
    function _requireBetweenExecutions(address account, Kept memory kept) private view {
        if (IPolicyHook(kept.settings.hook).executing(account)) revert Executing(account);
    }

    /// @dev A configuration that cannot be measured is refused. Inside an execution the references begin with what it leaves: what the account has
    /// in the middle of one says nothing.
    function _begin(Kept memory kept) private {
        (, uint256 equity) = _measured(msg.sender, kept);
        (, uint64 epoch) = IEmergencyFreeze(kept.settings.authority).stateOf(msg.sender);
        _epochs[msg.sender] = epoch;
        if (IPolicyHook(kept.settings.hook).executing(msg.sender)) delete _marks[msg.sender];
        else _reset(msg.sender, equity);
    }

    function _reset(address account, uint256 equity) private {
        uint112 mark = _fit(equity);
        _marks[account] = Marks({mark: mark, dayReference: mark, day: _today()});
        delete _looks[account];
        emit MarkReset(account, mark);
    }

    function _requireSmallLoss(Settings memory settings, uint256 before, uint256 withdrawn, uint256 equity)
        private
        pure
    {
        if (settings.lossPerOperationBps == 0 || equity + withdrawn >= before) return;
        uint256 loss = before - withdrawn - equity;
        uint256 most = before * settings.lossPerOperationBps / BPS;
        if (loss > most) revert LossPerOperation(loss, most);
    }

    /// @dev After an execution: what is seen here is the account's own doing and latches at once.
    function _judge(address account, Settings memory settings, uint256 equity) private {
        if (_marks[account].day == 0) return _reset(account, equity);
        Marks memory marks = _ofToday(account, settings, equity);
        (bool breached, Cause cause, uint256 anchor) = _breach(account, settings, marks, equity);
        if (breached) _latch(account, settings, cause, equity, anchor);
    }

    /// @dev The marks with a reference of today. The first look of a day is held against yesterday's reference before it becomes the new one
    /// (in `_breach`, by leaving it in place when it is breached).
    function _ofToday(address account, Settings memory settings, uint256 equity) private returns (Marks memory marks) {
        marks = _marks[account];
        uint32 today = _today();
        if (marks.day == today) return marks;
        bool stands = marks.day + 1 == today && _isBelow(equity, marks.dayReference, settings.lossPerDayBps);
        if (!stands) marks.dayReference = _fit(equity);
        marks.day = today;
        _marks[account] = marks;
    }

    /// @dev Whether `equity` is too low, and against what. A return of the account to ACTIVE begins the day anew and gives the drawdown a rest.
    function _breach(address account, Settings memory settings, Marks memory marks, uint256 equity)
        private
        returns (bool breached, Cause cause, uint256 anchor)
    {
        if (_isBelow(equity, marks.mark, settings.drawdownBps)) {
            (breached, cause, anchor) = (true, Cause.DRAWDOWN, marks.mark);
        }
        bool byDay = _isBelow(equity, marks.dayReference, settings.lossPerDayBps);
        if (byDay && (!breached || settings.onDayLoss > settings.onDrawdown)) {
            (breached, cause, anchor) = (true, Cause.DAY_LOSS, marks.dayReference);
        }
        if (!breached) return (false, cause, 0);
        (RiskState state, uint64 epoch) = IEmergencyFreeze(settings.authority).stateOf(account);
        if (state != RiskState.ACTIVE) return (false, cause, 0);
        if (epoch != _epochs[account]) {
            _epochs[account] = epoch;
            _marks[account].dayReference = _fit(equity);
            uint48 until = uint48(block.timestamp) + settings.changeDelay + REST;
            delete _looks[account];
            _looks[account].restUntil = until;
            emit Resting(account, until);
            return (false, cause, 0);
        }
        if (cause == Cause.DRAWDOWN && block.timestamp < _looks[account].restUntil) {
            return (byDay, Cause.DAY_LOSS, marks.dayReference);
        }
    }

    function _latch(address account, Settings memory settings, Cause cause, uint256 equity, uint256 anchor) private {
        RiskState state = cause == Cause.DAY_LOSS ? settings.onDayLoss : settings.onDrawdown;
        delete _looks[account];
        emit Latched(account, cause, state, equity, anchor);
        IEmergencyFreeze(settings.authority).freeze(account, state);
    }

    /// @dev The mark rises to what two looks in different blocks both confirmed.
    function _raise(address account, uint256 equity, bool confirmed) private {
        Looks storage looks = _looks[account];
        (uint112 seen, uint48 seenAt) = (looks.seen, looks.seenAt);
        if (!confirmed) {
            if (seenAt != 0) (looks.seen, looks.seenAt) = (0, 0);
            return;
        }
        uint112 fit = _fit(equity);
        if (seenAt != 0 && seenAt < block.timestamp) {
            uint112 both = seen < fit ? seen : fit;
            if (both > _marks[account].mark) {
                _marks[account].mark = both;
                emit MarkRaised(account, both);
            }
        }
        (looks.seen, looks.seenAt) = (fit, uint48(block.timestamp));
    }

    // ------------------------------------------------------------------ flows

    function _settle(address account, Kept memory kept, uint256[] memory prices, uint256 equity) private {
        uint256 value = _value(kept, prices, _takeOwed(account, kept.assets.length));
        if (value != 0) _withdraw(account, equity + value, value);
    }

    /// @dev reference * (equity - value) / equity, rounded up.
    function _withdraw(address account, uint256 equity, uint256 value) private {
        _scale(account, equity - value, equity);
        emit Withdrawn(account, value);
    }

    /// @dev reference * (equity + value) / equity, rounded up. An equity below what the drawdown permits, which a lying source could show, counts
    /// as that: a deposit raises no reference by more than its value / (1 - drawdown).
    function _grow(address account, Settings memory settings, uint256 equity, uint256 value) private {
        uint256 floor = uint256(_marks[account].mark) * (BPS - settings.drawdownBps) / BPS;
        equity = Math.max(Math.max(equity, floor), 1);
        _scale(account, equity + value, equity);
    }

    function _scale(address account, uint256 numerator, uint256 denominator) private {
        Marks memory marks = _marks[account];
        marks.mark = _fit(Math.mulDiv(marks.mark, numerator, denominator, Math.Rounding.Ceil));
        marks.dayReference = _fit(Math.mulDiv(marks.dayReference, numerator, denominator, Math.Rounding.Ceil));
        _marks[account] = marks;
        Looks storage looks = _looks[account];
        if (looks.seenAt != 0) (looks.seen, looks.seenAt) = (0, 0);
    }

    function _isBelow(uint256 equity, uint256 anchor, uint16 bps) private pure returns (bool) {
        return bps != 0 && equity < anchor - anchor * bps / BPS;
    }

    function _today() private view returns (uint32) {
        return uint32(block.timestamp / 1 days);
    }
}
