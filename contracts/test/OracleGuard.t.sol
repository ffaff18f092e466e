// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {Assertions} from "./Vm.sol";

/// A feed that can say anything.
contract AnyFeed {
    uint80 public round;
    int256 public answer;
    uint256 public updatedAt;
    uint80 public answeredIn;
    uint8 public decimals;

    function set(uint80 round_, int256 answer_, uint256 updatedAt_, uint80 answeredIn_, uint8 decimals_) external {
        (round, answer, updatedAt, answeredIn, decimals) = (round_, answer_, updatedAt_, answeredIn_, decimals_);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return (round, answer, updatedAt, updatedAt, answeredIn);
    }
}

contract OracleGuardTest is Assertions {
    AnyFeed private feed = new AnyFeed();

    function setUp() public {
        vm.warp(1_700_000_000);
    }

    function _read() private view returns (uint256 price, bytes4 problem) {
        return OracleGuard.read(
            OracleConfig({
                feed: address(feed),
                heartbeat: 60,
                sequencerFeed: address(0),
                gracePeriod: 0,
                minPrice: 1e18,
                maxPrice: 1000e18,
                maxDeviationBps: 0,
                deviationPatience: 0
            })
        );
    }

    function _is(bytes4 wanted) private view {
        (uint256 price, bytes4 problem) = _read();
        eq(bytes32(problem), bytes32(wanted), "problem");
        isTrue((price == 0) == (wanted != 0), "price only without a problem");
    }

    function testFuzz_any_decimals_give_the_same_price(uint8 decimals, uint256 dollars) public {
        decimals = uint8(bound(decimals, 0, 24));
        dollars = bound(dollars, 1, 1000);
        feed.set(1, int256(dollars * 10 ** decimals), _now(), 1, decimals);
        (uint256 price, bytes4 problem) = _read();
        eq(price, dollars * 1e18, "price");
        eq(bytes32(problem), 0, "problem");
    }

    function test_rounds_carried_over_incomplete_future_old_or_absurd_are_refused() public {
        feed.set(2, 5e8, _now(), 1, 8);
        _is(OracleGuard.FeedInvalid.selector);
        feed.set(1, 5e8, 0, 1, 8);
        _is(OracleGuard.FeedInvalid.selector);
        feed.set(1, 5e8, _now() + 1, 1, 8);
        _is(OracleGuard.FeedInvalid.selector);
        feed.set(1, type(int256).min, _now(), 1, 8);
        _is(OracleGuard.FeedInvalid.selector);
        feed.set(1, type(int256).max, _now(), 1, 8);
        _is(OracleGuard.FeedOutOfBounds.selector);
        feed.set(1, 5e8, _now() - 60, 1, 8);
        _is(0);
        feed.set(1, 5e8, _now() - 61, 1, 8);
        _is(OracleGuard.FeedStale.selector);
        feed.set(1, 1e8 - 1, _now(), 1, 8);
        _is(OracleGuard.FeedOutOfBounds.selector);
        feed.set(1, 1000e8, _now(), 1, 8);
        _is(0);
    }

    function testFuzz_deviation_is_rounded_up(uint128 a, uint128 b) public pure {
        uint256 price = uint256(a) + 1;
        uint256 other = b;
        uint256 bps = OracleGuard.deviationBps(price, other);
        uint256 distance = price > other ? price - other : other - price;
        isTrue(bps * price >= distance * 10_000, "never understated");
        isTrue(bps == 0 || (bps - 1) * price < distance * 10_000, "by less than one");
    }
}

contract ReplayFeedTest is Assertions {
    ReplayFeed private feed = new ReplayFeed(address(this), 8, "ETH / USD");

    function test_rounds_are_kept_and_started_at_is_the_last_change() public {
        feed.push(1, 100);
        feed.push(1, 200);
        feed.push(0, 300);
        (uint80 round, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredIn) = feed.latestRoundData();
        eq(round, 3, "round");
        eq(answer, 0, "answer");
        eq(startedAt, 300, "started");
        eq(updatedAt, 300, "updated");
        eq(answeredIn, 3, "answered in");
        (,, startedAt, updatedAt,) = feed.getRoundData(2);
        eq(startedAt, 100, "unchanged since");
        eq(updatedAt, 200, "updated");
        eq(feed.decimals(), 8, "decimals");
        eq(bytes(feed.description()), "ETH / USD", "description");
    }

    function test_only_owner_and_pushers_push_and_time_never_goes_back() public {
        vm.expectRevert(ReplayFeed.NoData.selector);
        feed.latestRoundData();
        vm.expectRevert(abi.encodeWithSelector(ReplayFeed.OutOfOrder.selector, 0, 0));
        feed.push(1, 0);
        feed.push(1, 100);
        vm.expectRevert(abi.encodeWithSelector(ReplayFeed.OutOfOrder.selector, 99, 100));
        feed.push(1, 99);
        vm.prank(address(5));
        vm.expectRevert(abi.encodeWithSelector(ReplayFeed.NotPusher.selector, address(5)));
        feed.push(1, 100);
        feed.setPusher(address(5), true);
        vm.prank(address(5));
        feed.push(2, 100);
    }
}
