// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Module, MODULE_TYPE_EXECUTOR} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IAutoRebalance} from "../../interfaces/IAutoRebalance.sol";
import {IPolicyHook} from "../../interfaces/IPolicyHook.sol";
import {IRouteAdapter} from "../../interfaces/IRouteAdapter.sol";
import {OracleConfig} from "../../interfaces/IStopLoss.sol";
import {GuardClock} from "../../libraries/GuardClock.sol";
import {SpendingWindow} from "../../libraries/SpendingWindow.sol";

/// @title What an AutoRebalance knows of each account
/// @dev Storage with the account innermost, no dynamic values, 84 slots at most.
abstract contract BasketConfig is IAutoRebalance, IERC7579Module, ReentrancyGuardTransient {
    using GuardClock for GuardClock.Clock;

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error InvalidBasket(uint256 id);
    /// Never again: unknown, cancelled or expired. Arm it anew.
    error Final(address account, uint256 id);

    /// @param window @param spent a rolling SpendingWindow over turnover.
    struct Entry {
        address authority;
        address cash;
        uint16 cashBandBps;
        bool onDrift;
        IPolicyHook.Span calendar;
        int16 offsetMinutes;
        uint16 slippageBps;
        uint8 count;
        bool armed;
        uint128 minTrade;
        uint128 maxTurnover;
        uint32 turnoverSeconds;
        uint32 cooldown;
        uint32 publicDelay;
        uint16 refundBps;
        uint96 refundCap;
        uint48 expiry;
        uint32 generation;
        uint48 arming;
        GuardClock.Clock clock;
        uint256 window;
        uint256 spent;
        OracleConfig cashOracle;
        Asset[8] assets;
    }

    struct Installation {
        uint32 generation;
        bool installed;
    }

    uint256 internal constant BPS = 10_000;
    uint256 internal constant WAD = 1e18;
    uint256 public constant MAX_ASSETS = 8;
    uint16 public constant MAX_SLIPPAGE_BPS = 1000;
    uint256 internal constant POOLS = 3;

    mapping(address account => Installation) private _installations;
    mapping(uint256 id => mapping(address account => Entry)) internal _entries;

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Installation storage installation = _installations[msg.sender];
        if (installation.installed) revert AlreadyInstalled(msg.sender);
        (installation.installed, installation.generation) = (true, installation.generation + 1);
        if (data.length == 0) return;
        (uint256[] memory ids, Basket[] memory baskets) = abi.decode(data, (uint256[], Basket[]));
        for (uint256 i = 0; i < ids.length; ++i) {
            _arm(ids[i], baskets[i]);
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

    /// @inheritdoc IAutoRebalance
    function arm(uint256 id, Basket calldata basket) external nonReentrant {
        if (!_installations[msg.sender].installed) revert NotInstalled(msg.sender);
        _arm(id, basket);
        Entry storage entry = _entries[id][msg.sender];
        // Reverts for pools that the venue does not have.
        for (uint256 i = 0; i < entry.count; ++i) {
            for (uint256 p = 0; p < POOLS && entry.assets[i].pools[p].adapter != address(0); ++p) {
                IRouteAdapter(entry.assets[i].pools[p].adapter).venuePrice(_market(entry, i, p, true));
            }
        }
    }

    /// @inheritdoc IAutoRebalance
    function cancel(uint256 id) external nonReentrant {
        Entry storage entry = _entries[id][msg.sender];
        if (!_armed(entry, msg.sender)) revert Final(msg.sender, id);
        entry.armed = false;
        emit BasketCancelled(msg.sender, id);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IAutoRebalance
    function basketOf(address account, uint256 id)
        external
        view
        returns (Basket memory basket, bool armed, uint256 arming, uint48 dueSince, uint48 lastExecution)
    {
        Entry storage entry = _entries[id][account];
        armed = _armed(entry, account);
        if (!armed) return (basket, false, entry.arming, 0, 0);
        basket = Basket({
            authority: entry.authority,
            cash: entry.cash,
            cashBandBps: entry.cashBandBps,
            cashOracle: entry.cashOracle,
            onDrift: entry.onDrift,
            calendar: entry.calendar,
            offsetMinutes: entry.offsetMinutes,
            minTrade: entry.minTrade,
            maxTurnover: entry.maxTurnover,
            turnoverSeconds: entry.turnoverSeconds,
            slippageBps: entry.slippageBps,
            cooldown: entry.cooldown,
            publicDelay: entry.publicDelay,
            refundBps: entry.refundBps,
            refundCap: entry.refundCap,
            expiry: entry.expiry,
            assets: new Asset[](entry.count)
        });
        for (uint256 i = 0; i < entry.count; ++i) {
            basket.assets[i] = entry.assets[i];
        }
        return (basket, true, entry.arming, entry.clock.since(_lapse(entry)), entry.clock.lastExecution);
    }

    // ------------------------------------------------------------------ inside

    function _arm(uint256 id, Basket memory basket) private {
        (bool counts, uint256 window) = SpendingWindow.pack(
            IPolicyHook.Window({
                asset: address(0),
                span: IPolicyHook.Span.ROLLING,
                duration: basket.turnoverSeconds,
                offsetMinutes: 0,
                limit: basket.maxTurnover
            })
        );
        if (!counts || !_sound(basket)) revert InvalidBasket(id);
        Entry storage entry = _entries[id][msg.sender];
        if (SpendingWindow.alike(entry.window, window)) {
            entry.spent = SpendingWindow.carry(entry.window, window, entry.spent);
        } else {
            entry.spent = 0;
        }
        entry.window = window;
        entry.authority = basket.authority;
        entry.cash = basket.cash;
        entry.cashBandBps = basket.cashBandBps;
        entry.cashOracle = basket.cashOracle;
        entry.onDrift = basket.onDrift;
        entry.calendar = basket.calendar;
        entry.offsetMinutes = basket.offsetMinutes;
        entry.minTrade = basket.minTrade;
        entry.maxTurnover = basket.maxTurnover;
        entry.turnoverSeconds = basket.turnoverSeconds;
        entry.slippageBps = basket.slippageBps;
        entry.cooldown = basket.cooldown;
        entry.publicDelay = basket.publicDelay;
        entry.refundBps = basket.refundBps;
        entry.refundCap = basket.refundCap;
        entry.expiry = basket.expiry;
        entry.count = uint8(basket.assets.length);
        for (uint256 i = 0; i < basket.assets.length; ++i) {
            entry.assets[i] = basket.assets[i];
        }
        entry.armed = true;
        entry.generation = _installations[msg.sender].generation;
        ++entry.arming;
        entry.clock.clear();
        emit BasketArmed(msg.sender, id, entry.arming, basket);
    }

    /// @dev Asks nobody, so that a basket can be armed in the operation that creates the account (ERC-7562). A band is no narrower than the slippage bound, so that a trade's own cost does not push a weight out of it again.
    function _sound(Basket memory basket) private view returns (bool) {
        uint256 count = basket.assets.length;
        bool settings = count != 0 && count <= MAX_ASSETS && basket.minTrade != 0
            && basket.minTrade <= basket.maxTurnover && basket.slippageBps != 0
            && basket.slippageBps <= MAX_SLIPPAGE_BPS && basket.refundBps <= BPS
            && basket.cashBandBps >= basket.slippageBps && basket.cash.code.length != 0
            && (basket.authority == address(0) || basket.authority.code.length != 0)
            && (basket.cashOracle.feed == address(0) || _isOracle(basket.cashOracle));
        bool trigger = basket.calendar == IPolicyHook.Span.NONE
            ? basket.onDrift && basket.offsetMinutes == 0
            : basket.calendar != IPolicyHook.Span.ROLLING;
        if (!settings || !trigger) return false;
        uint256 targets = 0;
        for (uint256 i = 0; i < count; ++i) {
            Asset memory asset = basket.assets[i];
            targets += asset.targetBps;
            bool sound = asset.token != basket.cash && asset.token.code.length != 0
                && asset.bandBps >= basket.slippageBps && _isOracle(asset.oracle)
                && asset.pools[0].adapter != address(0);
            for (uint256 p = 0; p < POOLS; ++p) {
                address adapter = asset.pools[p].adapter;
                if (adapter != address(0) && adapter.code.length == 0) sound = false;
            }
            for (uint256 j = 0; j < i; ++j) {
                if (basket.assets[j].token == asset.token) sound = false;
            }
            if (!sound) return false;
        }
        return targets <= BPS;
    }

    function _isOracle(OracleConfig memory oracle) private view returns (bool) {
        return oracle.feed.code.length != 0 && oracle.heartbeat != 0 && oracle.minPrice != 0
            && oracle.minPrice <= oracle.maxPrice && oracle.deviationPatience == 0
            && (oracle.sequencerFeed == address(0) || oracle.sequencerFeed.code.length != 0);
    }

    function _armed(Entry storage entry, address account) internal view returns (bool) {
        Installation memory installation = _installations[account];
        return installation.installed && entry.armed && entry.generation == installation.generation;
    }

    function _token(Entry storage entry, uint256 i) internal view returns (address) {
        return i == entry.count ? entry.cash : entry.assets[i].token;
    }

    function _targetBps(Entry storage entry, uint256 i) internal view returns (uint256) {
        uint256 count = entry.count;
        if (i != count) return entry.assets[i].targetBps;
        uint256 rest = BPS;
        for (uint256 j = 0; j < count; ++j) {
            rest -= entry.assets[j].targetBps;
        }
        return rest;
    }

    function _target(Entry storage entry, uint256 i, uint256 equity) internal view returns (uint256) {
        return equity * _targetBps(entry, i) / BPS;
    }

    function _market(Entry storage entry, uint256 i, uint256 pool, bool sale) internal view returns (bytes memory) {
        Asset storage asset = entry.assets[i];
        (address base, address quote) = sale ? (asset.token, entry.cash) : (entry.cash, asset.token);
        return abi.encode(base, quote, asset.pools[pool].fee);
    }

    function _whole(address token) internal view returns (uint256) {
        return 10 ** IERC20Metadata(token).decimals();
    }

    function _toWad(address token, uint256 amount) internal view returns (uint256) {
        return amount * WAD / _whole(token);
    }

    /// @dev How long an unconfirmed record counts, in seconds. Source: StopLoss.
    function _lapse(Entry storage entry) internal view returns (uint256) {
        return uint256(entry.publicDelay) + entry.assets[0].oracle.heartbeat;
    }
}
