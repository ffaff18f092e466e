// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IStopLoss, OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {Base} from "./Base.sol";
import {Venue} from "./Venue.sol";

/// One stop on one venue, feed and sequencer.
abstract contract StopRig is Base {
    address internal subject;
    Venue internal venue;
    ReplayFeed internal feed;
    ReplayFeed internal sequencer;
    address internal outsider = address(0x0075);

    function _begin(address on) internal {
        subject = on;
        venue = new Venue();
        feed = new ReplayFeed(address(this), 8, "ETH / USD");
        sequencer = new ReplayFeed(address(this), 0, "sequencer");
        sequencer.push(0, _now() - 1 days);
        _price(200);
        venue.set(subject, 10e18, 1000e18);
        _install(subject, 2, address(stopLoss), "");
        _arm(_stop());
    }

    function _stop() internal view returns (IStopLoss.Stop memory) {
        return IStopLoss.Stop({
            adapter: address(venue),
            market: "ETH",
            below: true,
            triggerPrice: 180e18,
            sizeBps: 10_000,
            maxSizePerExecution: 100e18,
            slippageBps: 100,
            maxSlippageBps: 1000,
            widenSeconds: 600,
            cooldown: 60,
            publicDelay: 300,
            refundBps: 10_000,
            refundCap: 0.01 ether,
            expiry: 0,
            size: 0,
            dust: 0,
            trail: 0,
            trailBps: 0,
            group: 0,
            oracle: OracleConfig({
                feed: address(feed),
                heartbeat: 3600,
                sequencerFeed: address(sequencer),
                gracePeriod: 900,
                minPrice: 10e18,
                maxPrice: 10_000e18,
                maxDeviationBps: 300,
                deviationPatience: 120
            })
        });
    }

    /// Feed, venue mean and fill all at `price` dollars.
    function _price(uint256 price) internal {
        feed.push(int256(price * 1e8), _now());
        venue.setPrices(price * 1e18, price * 1e18);
    }

    function _arm(IStopLoss.Stop memory stop) internal {
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.arm, (1, stop)));
    }

    function _fire() internal {
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.execute, (subject, 1)));
    }

    function _wait(uint256 duration) internal {
        vm.warp(_now() + duration);
        (, int256 answer,,,) = feed.latestRoundData();
        feed.push(answer, _now());
    }

    function _due() internal view returns (IGuard.Due status, bytes4 reason) {
        return stopLoss.due(subject, 1);
    }

    function _is(IGuard.Due wanted, bytes4 why) internal view {
        (IGuard.Due status, bytes4 reason) = _due();
        eq(uint256(status), uint256(wanted), "due");
        eq(bytes32(reason), bytes32(why), "reason");
    }

    function _status() internal view returns (IStopLoss.Status status) {
        (, status,,,) = stopLoss.stopOf(subject, 1);
    }

    function _dueSince() internal view returns (uint48 dueSince) {
        (,,, dueSince,) = stopLoss.stopOf(subject, 1);
    }
}
