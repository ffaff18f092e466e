// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IStopLoss, OracleConfig} from "../../interfaces/IStopLoss.sol";
import {IVenueAdapter} from "../../interfaces/IVenueAdapter.sol";
import {TrailingMark} from "../../libraries/TrailingMark.sol";
import {GuardModule} from "../guard/GuardModule.sol";

/// @title What a StopLoss knows of each account
/// @dev Storage with the account innermost and no dynamic values.
abstract contract StopConfig is IStopLoss, GuardModule {
    using TrailingMark for TrailingMark.Mark;

    error InvalidStop(uint256 id);
    /// Never again: unknown, fired, cancelled or expired. Arm it anew.
    error Final(address account, uint256 id);
    error NotTrailing(address account, uint256 id);

    /// @dev Laid out by what is read together: a stop of the whole position that neither trails nor has a group reads nothing behind `sizeAfter`.
    /// @param trails whether it is a trailing stop.
    /// @param market the first `marketLength` bytes are the adapter's market.
    /// @param dueSince when the stop was first recorded as due; counts only while `confirmedAt` is recent.
    /// @param remaining what is left to close of the size that was taken as the target at the first part.
    /// @param sizeAfter the position after the last part; a larger one since then is a new target.
    /// @param turn the group's turn at the arming; the stop is cancelled when another member moved it on.
    struct Entry {
        address adapter;
        bool below;
        bool trails;
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
        uint16 trailBps;
        address sequencerFeed;
        uint32 gracePeriod;
        uint32 group;
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
        uint128 size;
        uint128 dust;
        uint128 trail;
        uint64 turn;
        TrailingMark.Mark mark;
    }

    /// Largest slippage bound that can be configured.
    uint16 public constant MAX_SLIPPAGE_BPS = 5000;
    uint256 private constant MAX_MARKET = 128;

    mapping(uint256 id => mapping(address account => Entry)) internal _stops;
    /// Moves on with every part that a member executes.
    mapping(uint256 group => mapping(address account => uint64)) internal _turns;

    // ------------------------------------------------------------------ arming

    /// @inheritdoc IStopLoss
    function arm(uint256 id, Stop calldata stop) external nonReentrant {
        _requireInstalled();
        _arm(id, stop, true);
        IVenueAdapter(stop.adapter).position(msg.sender, stop.market); // reverts for a market that is not the venue's
    }

    /// @inheritdoc IStopLoss
    function cancel(uint256 id) external nonReentrant {
        Entry storage entry = _stops[id][msg.sender];
        if (_statusOf(entry, msg.sender) != Status.ARMED) revert Final(msg.sender, id);
        entry.status = Status.CANCELLED;
        emit StopCancelled(msg.sender, id);
    }

    /// @inheritdoc IStopLoss
    function prove(address account, uint256 id, uint80[] calldata roundIds) external nonReentrant {
        Entry storage entry = _stops[id][account];
        if (_isOver(entry, account)) revert Final(account, id);
        if (!entry.trails) revert NotTrailing(account, id);
        OracleConfig memory oracle = _oracle(entry);
        for (uint256 i = 0; i < roundIds.length; ++i) {
            if (!entry.mark.prove(oracle, entry.below, roundIds[i])) continue;
            emit StopTrailed(account, id, entry.arming, roundIds[i], entry.mark.price);
        }
    }

    // ------------------------------------------------------------------ views

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
            size: entry.size,
            dust: entry.dust,
            trail: entry.trail,
            trailBps: entry.trailBps,
            group: entry.group,
            oracle: _oracle(entry)
        });
        return (stop, status, entry.arming, _dueSince(entry), entry.lastExecution);
    }

    /// @inheritdoc IStopLoss
    function markOf(address account, uint256 id)
        external
        view
        returns (uint256 mark, uint256 trigger, uint48 since, uint80 firstRound)
    {
        Entry storage entry = _stops[id][account];
        if (_statusOf(entry, account) == Status.NONE || !entry.trails) return (0, 0, 0, 0);
        return (entry.mark.price, _trigger(entry), entry.mark.since, entry.mark.first);
    }

    // ------------------------------------------------------------------ inside

    /// @inheritdoc GuardModule
    /// @dev `data` is abi.encode(uint256[] ids, Stop[] stops).
    function _armAll(bytes calldata data) internal override {
        (uint256[] memory ids, Stop[] memory stops) = abi.decode(data, (uint256[], Stop[]));
        for (uint256 i = 0; i < ids.length; ++i) {
            _arm(ids[i], stops[i], false);
        }
    }

    function _arm(uint256 id, Stop memory stop, bool mayAsk) private {
        bool sound = stop.adapter.code.length != 0 && stop.market.length <= MAX_MARKET && stop.triggerPrice != 0
            && stop.sizeBps <= BPS && (stop.sizeBps == 0) != (stop.size == 0) && stop.maxSizePerExecution != 0
            && stop.slippageBps <= stop.maxSlippageBps && stop.maxSlippageBps <= MAX_SLIPPAGE_BPS
            && stop.refundBps <= BPS && stop.dust < stop.maxSizePerExecution
            && (stop.size == 0 || stop.dust < stop.size) && (stop.trail == 0 || stop.trailBps == 0)
            && stop.trailBps < BPS && (!stop.below || stop.trail < stop.triggerPrice) && _isOracle(stop.oracle);
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
        entry.trailBps = stop.trailBps;
        entry.size = stop.size;
        entry.dust = stop.dust;
        entry.trail = stop.trail;
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
        entry.generation = _generation(msg.sender);
        ++entry.arming;
        entry.group = stop.group;
        entry.turn = _turns[stop.group][msg.sender];
        (entry.dueSince, entry.confirmedAt, entry.lastExecution) = (0, 0, 0);
        (entry.remaining, entry.sizeAfter) = (0, 0);
        entry.trails = stop.trail != 0 || stop.trailBps != 0;
        if (entry.trails) entry.mark.begin(stop.triggerPrice, mayAsk ? stop.oracle.feed : address(0));
        emit StopArmed(msg.sender, id, entry.arming, stop);
    }

    function _trigger(Entry storage entry) internal view returns (uint256) {
        if (!entry.trails) return entry.triggerPrice;
        uint16 trailBps = entry.trailBps;
        return entry.mark.trigger(trailBps == 0 ? entry.trail : 0, trailBps, entry.below);
    }

    function _statusOf(Entry storage entry, address account) internal view returns (Status status) {
        if (!_isLive(account, entry.generation)) return Status.NONE;
        status = entry.status;
        if (status == Status.ARMED && entry.group != 0 && entry.turn != _turns[entry.group][account]) {
            return Status.CANCELLED;
        }
    }

    function _isOver(Entry storage entry, address account) internal view returns (bool) {
        uint48 expiry = entry.expiry;
        return (expiry != 0 && block.timestamp > expiry) || _statusOf(entry, account) != Status.ARMED;
    }

    /// @dev 0 when the stop is not recorded as due, or nobody confirmed the record for too long: an old dip neither opens the stop to the
    /// public nor has its slippage bound already widened.
    function _dueSince(Entry storage entry) internal view returns (uint48) {
        uint256 longest = entry.publicDelay;
        if (entry.widenSeconds > longest) longest = entry.widenSeconds;
        if (entry.deviationPatience > longest) longest = entry.deviationPatience;
        return block.timestamp > uint256(entry.confirmedAt) + longest + entry.heartbeat ? 0 : entry.dueSince;
    }

    function _oracle(Entry storage entry) internal view returns (OracleConfig memory) {
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

    /// @dev Reads no more slots than the market has words.
    function _market(Entry storage entry) internal view returns (bytes memory market) {
        market = new bytes(entry.marketLength);
        for (uint256 i = 0; 32 * i < market.length; ++i) {
            bytes32 word = entry.market[i];
            assembly ("memory-safe") {
                mstore(add(add(market, 0x20), mul(i, 0x20)), word) // memory is given out in whole words
            }
        }
    }
}
