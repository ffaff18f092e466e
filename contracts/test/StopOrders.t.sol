// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IGuard} from "../src/interfaces/IGuard.sol";
import {IStopLoss} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {TrailingMark} from "../src/libraries/TrailingMark.sol";
import {StopConfig} from "../src/modules/stop/StopConfig.sol";
import {StopLoss} from "../src/modules/StopLoss.sol";
import {StopRig} from "./StopRig.sol";
import {Venue} from "./Venue.sol";

/// A proxy whose aggregator is replaced: rounds of two phases.
contract PhasedFeed {
    struct Round {
        int256 answer;
        uint256 updatedAt;
        uint80 answeredIn;
    }

    uint8 public constant decimals = 8;
    uint80 public newest;
    mapping(uint80 id => Round) public rounds;

    function set(uint80 id, int256 answer, uint256 updatedAt, uint80 answeredIn) public {
        rounds[id] = Round(answer, updatedAt, answeredIn);
    }

    function push(uint80 id, int256 answer) external {
        set(id, answer, block.timestamp, id);
        newest = id;
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return getRoundData(newest);
    }

    function getRoundData(uint80 id) public view returns (uint80, int256, uint256, uint256, uint80) {
        Round memory r = rounds[id];
        require(r.updatedAt != 0, "No data present");
        return (id, r.answer, r.updatedAt, r.updatedAt, r.answeredIn);
    }
}

abstract contract TrailingStopBehaviour is StopRig {
    function _beginOn(address on) internal {
        _begin(on);
        _arm(_trailing());
        _wait(1);
    }

    /// From 200, due 10 % below the best price since.
    function _trailing() internal view returns (IStopLoss.Stop memory stop) {
        stop = _stop();
        (stop.triggerPrice, stop.trailBps) = (200e18, 1000);
    }

    /// A round at `price`, and its id.
    function _round(uint256 price) internal returns (uint80) {
        vm.warp(_now() + 1);
        _price(price);
        return feed.latestRound();
    }

    function _prove(uint80 round) internal {
        vm.prank(outsider);
        stopLoss.prove(subject, 1, _list(round));
    }

    function _list(uint80 round) internal pure returns (uint80[] memory rounds) {
        rounds = new uint80[](1);
        rounds[0] = round;
    }

    function _refused(uint80 round) internal {
        vm.expectRevert(abi.encodeWithSelector(TrailingMark.RoundRefused.selector, round));
        _prove(round);
    }

    function _problem(uint80 round, bytes4 problem) internal {
        vm.expectRevert(abi.encodeWithSelector(TrailingMark.RoundProblem.selector, round, problem));
        _prove(round);
    }

    function _mark() internal view returns (uint256 mark, uint256 trigger) {
        (mark, trigger,,) = stopLoss.markOf(subject, 1);
    }

    function _marked(uint256 mark, uint256 trigger) internal view {
        (uint256 mark_, uint256 trigger_) = _mark();
        eq(mark_, mark, "mark");
        eq(trigger_, trigger, "trigger");
    }

    function test_it_trails_what_rounds_have_proven_and_fires_at_its_distance() public {
        _marked(200e18, 180e18);
        uint80 high = _round(260);
        _round(235);
        _is(IGuard.Due.NOT_DUE, StopLoss.NotDue.selector);
        vm.expectEmit();
        emit IStopLoss.StopTrailed(subject, 1, 2, high, 260e18);
        _prove(high);
        _marked(260e18, 234e18);
        _is(IGuard.Due.NOT_DUE, StopLoss.NotDue.selector);
        _round(234);
        _is(IGuard.Due.DUE, 0);
        _fire();
        eq(uint256(_status()), uint256(IStopLoss.Status.FIRED), "fired");
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 1));
        _prove(high);
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 1));
        _fire();
    }

    function test_an_absolute_distance_is_kept_in_quote() public {
        IStopLoss.Stop memory stop = _trailing();
        (stop.trail, stop.trailBps) = (15e18, 0);
        _arm(stop);
        _marked(200e18, 185e18);
        _prove(_round(300));
        _marked(300e18, 285e18);
    }

    function test_a_short_trails_the_lowest_price() public {
        venue.set(subject, -10e18, 1000e18);
        IStopLoss.Stop memory stop = _trailing();
        stop.below = false;
        _arm(stop);
        _marked(200e18, 220e18);
        _prove(_round(150));
        _marked(150e18, 165e18);
        _prove(_round(160));
        _marked(150e18, 165e18);
        _round(165);
        _is(IGuard.Due.DUE, 0);
    }

    function test_the_order_of_proofs_does_not_matter() public {
        uint80 best = _round(280);
        uint80 lower = _round(270);
        uint80 last = _round(255);
        _prove(last);
        _prove(lower);
        _prove(best);
        _prove(lower);
        _marked(280e18, 252e18);
    }

    function testFuzz_the_mark_is_the_best_of_what_was_proven_and_never_falls(uint256[8] calldata prices, uint8 shown)
        public
    {
        uint256 best = 200;
        for (uint256 i = 0; i < prices.length; ++i) {
            uint256 price = bound(prices[i], 11, 9999);
            uint80 round = _round(price);
            if (shown >> i & 1 == 0) continue; // a keeper may withhold it
            (uint256 before,) = _mark();
            _prove(round);
            if (price > best) best = price;
            (uint256 mark, uint256 trigger) = _mark();
            isTrue(mark >= before, "fell");
            eq(mark, best * 1e18, "best");
            eq(trigger, best * 1e18 - best * 1e18 / 10, "distance");
        }
    }

    function test_a_round_of_before_the_arming_never_counts() public {
        uint80 old = _round(290);
        vm.warp(_now() + 1);
        _arm(_trailing());
        _refused(old);
        _refused(1);
        _marked(200e18, 180e18);
    }

    function test_arming_anew_forgets_what_was_proven() public {
        _prove(_round(290));
        vm.warp(_now() + 1);
        _arm(_trailing());
        _marked(200e18, 180e18);
    }

    function test_a_phase_counts_from_where_it_was_seen() public {
        PhasedFeed phased = new PhasedFeed();
        uint80 one = uint80(1) << 64;
        uint80 two = uint80(2) << 64;
        phased.push(one + 7, 200e8);
        IStopLoss.Stop memory stop = _trailing();
        stop.oracle.feed = address(phased);
        _arm(stop);
        vm.warp(_now() + 10);
        phased.push(one + 8, 210e8);
        phased.set(two + 1, 9000e8, _now(), two + 1); // the next aggregator tries itself out
        phased.set(one + 3, 900e8, _now(), one + 3); // and an old id is written again
        _refused(two + 1);
        _refused(one + 3);
        _prove(one + 8);
        _marked(210e18, 189e18);
        vm.warp(_now() + 10);
        phased.push(two + 5, 220e8);
        phased.set(one + 9, 900e8, _now(), one + 9); // the retired one goes on
        _prove(two + 5);
        _marked(220e18, 198e18);
        _refused(one + 9);
        _refused(one + 8);
        _refused(two + 1);
        vm.warp(_now() + 10);
        phased.push(two + 6, 230e8);
        _prove(two + 6);
        _marked(230e18, 207e18);
    }

    function test_a_round_that_says_nothing_sound_is_refused() public {
        PhasedFeed phased = new PhasedFeed();
        phased.push(10, 200e8);
        IStopLoss.Stop memory stop = _trailing();
        stop.oracle.feed = address(phased);
        _arm(stop);
        vm.warp(_now() + 10);
        phased.push(20, 200e8);
        phased.set(11, 0, _now(), 11);
        phased.set(12, -1, _now(), 12);
        phased.set(13, 250e8, _now() + 1, 13);
        phased.set(14, 250e8, _now(), 13);
        for (uint80 round = 11; round < 16; ++round) {
            _problem(round, OracleGuard.FeedInvalid.selector); // 15 does not exist
        }
        phased.set(16, 5e8, _now(), 16);
        phased.set(17, 20_000e8, _now(), 17);
        phased.set(18, type(int256).max, _now(), 18);
        for (uint80 round = 16; round < 19; ++round) {
            _problem(round, OracleGuard.FeedOutOfBounds.selector);
        }
        _marked(200e18, 180e18);
    }

    function test_nothing_is_proven_while_the_feed_is_stale_or_the_sequencer_away_or_just_back() public {
        uint80 round = _round(250);
        vm.warp(_now() + 3601);
        _problem(round, OracleGuard.FeedStale.selector);
        uint80 fresh = _round(251);
        sequencer.push(1, _now());
        _problem(fresh, OracleGuard.SequencerDown.selector);
        vm.warp(_now() + 10);
        sequencer.push(0, _now());
        _problem(fresh, OracleGuard.SequencerGrace.selector);
        uint80 during = _round(290);
        vm.warp(_now() + 900);
        uint80 after_ = _round(252);
        _problem(during, OracleGuard.SequencerGrace.selector); // nobody could trade on it
        _prove(after_);
        _prove(fresh); // of before the outage
        _marked(252e18, 226.8e18);
    }

    function test_only_a_trailing_stop_takes_proofs() public {
        _arm(_stop());
        vm.expectRevert(abi.encodeWithSelector(StopConfig.NotTrailing.selector, subject, 1));
        _prove(1);
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 9));
        stopLoss.prove(subject, 9, _list(1));
        (uint256 mark, uint256 trigger, uint48 since, uint80 first) = stopLoss.markOf(subject, 1);
        eq(mark + trigger + since + first, 0, "no mark");
    }

    function test_a_trail_that_makes_no_sense_is_refused() public {
        for (uint256 i = 0; i < 4; ++i) {
            IStopLoss.Stop memory stop = _trailing();
            if (i == 0) stop.trail = 1;
            if (i == 1) stop.trailBps = 10_000;
            if (i == 2) (stop.trail, stop.trailBps) = (200e18, 0);
            if (i == 3) stop.size = 1;
            vm.expectRevert(abi.encodeWithSelector(StopConfig.InvalidStop.selector, 1));
            _arm(stop);
        }
    }
}

abstract contract StopGroupBehaviour is StopRig {
    uint32 private constant GROUP = 7;

    function _beginOn(address on) internal {
        _begin(on);
        _armBoth();
    }

    /// 1: a stop at 180; 2: a take-profit at 250; one cancels the other.
    function _armBoth() private {
        _armAs(1, 180e18, true);
        _armAs(2, 250e18, false);
    }

    function _armAs(uint256 id, uint128 trigger, bool below) private {
        IStopLoss.Stop memory stop = _stop();
        (stop.triggerPrice, stop.below, stop.group) = (trigger, below, GROUP);
        stop.maxSizePerExecution = 4e18;
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.arm, (id, stop)));
    }

    function _statusOf(uint256 id) private view returns (uint256) {
        (, IStopLoss.Status status,,,) = stopLoss.stopOf(subject, id);
        return uint256(status);
    }

    function _execute(uint256 id) private {
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.execute, (subject, id)));
    }

    function _final(uint256 id) private {
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, id));
        _execute(id);
    }

    function test_one_cancels_the_other_with_its_first_part() public {
        _price(250);
        vm.expectEmit();
        emit IStopLoss.GroupDecided(subject, GROUP, 2);
        _execute(2);
        eq(venue.sizes(subject), 6e18, "a part");
        eq(_statusOf(1), uint256(IStopLoss.Status.CANCELLED), "cancelled");
        eq(_statusOf(2), uint256(IStopLoss.Status.ARMED), "goes on");
        _wait(60);
        _price(170);
        _final(1);
        _price(260);
        _execute(2);
        _wait(60);
        _execute(2);
        eq(venue.sizes(subject), 0, "whole");
        eq(_statusOf(2), uint256(IStopLoss.Status.FIRED), "fired");
        _final(1);
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 1));
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.cancel, (1)));
    }

    function test_an_execution_that_is_undone_cancels_nothing() public {
        _price(250);
        venue.setTrick(Venue.Trick.NOTHING, IGuard(address(0)));
        vm.expectRevert();
        _execute(2);
        eq(_statusOf(1), uint256(IStopLoss.Status.ARMED), "armed");
        eq(_statusOf(2), uint256(IStopLoss.Status.ARMED), "armed");
    }

    /// Both due in one block: whoever comes first is the only one.
    function test_when_both_are_due_in_one_block_one_executes() public {
        _armAs(2, 170e18, false);
        _price(175);
        (IGuard.Due first,) = stopLoss.due(subject, 1);
        (IGuard.Due second,) = stopLoss.due(subject, 2);
        isTrue(first == IGuard.Due.DUE && second == IGuard.Due.DUE, "both are due");
        _execute(1);
        (second,) = stopLoss.due(subject, 2);
        isTrue(second == IGuard.Due.FINAL, "the other is over");
        _final(2);
        eq(venue.sizes(subject), 6e18, "one part");
    }

    function test_cancelling_one_leaves_the_other() public {
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.cancel, (2)));
        eq(_statusOf(1), uint256(IStopLoss.Status.ARMED), "armed");
        _price(180);
        _execute(1);
        eq(venue.sizes(subject), 6e18, "sold");
    }

    function test_armed_anew_both_are_alive_and_decide_again() public {
        _price(250);
        _execute(2);
        _price(200);
        _armBoth();
        eq(_statusOf(1), uint256(IStopLoss.Status.ARMED), "armed");
        _wait(60);
        _price(180);
        _execute(1);
        eq(_statusOf(2), uint256(IStopLoss.Status.CANCELLED), "cancelled");
        _price(255);
        _final(2);
    }

    function test_a_half_filled_order_that_goes_on_cancels_what_was_armed_meanwhile() public {
        _price(250);
        _execute(2);
        _armAs(1, 180e18, true);
        _wait(60);
        _price(250);
        _execute(2);
        eq(_statusOf(1), uint256(IStopLoss.Status.CANCELLED), "cancelled");
    }

    function test_other_groups_and_orders_without_one_are_left_alone() public {
        IStopLoss.Stop memory stop = _stop();
        (stop.below, stop.triggerPrice) = (false, 250e18);
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.arm, (3, stop)));
        stop.group = GROUP + 1;
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.arm, (4, stop)));
        _price(250);
        _execute(2);
        eq(_statusOf(3), uint256(IStopLoss.Status.ARMED), "none");
        eq(_statusOf(4), uint256(IStopLoss.Status.ARMED), "another");
    }

    function testFuzz_a_group_is_decided_once_whatever_the_prices(uint16[12] calldata prices) public {
        uint256 winner = 0;
        for (uint256 i = 0; i < prices.length; ++i) {
            _wait(60);
            _price(bound(prices[i], 100, 300));
            for (uint256 id = 1; id < 3; ++id) {
                int256 before = venue.sizes(subject);
                vm.prank(subject);
                (bool done,) = address(stopLoss).call(abi.encodeCall(stopLoss.execute, (subject, id)));
                if (!done) continue;
                isTrue(venue.sizes(subject) < before, "executed");
                if (winner == 0) winner = id;
                eq(id, winner, "the first one alone");
            }
        }
    }
}

abstract contract StopSizeBehaviour is StopRig {
    function _beginOn(address on) internal {
        _begin(on);
    }

    function _sized(uint128 size, uint128 most) private {
        IStopLoss.Stop memory stop = _stop();
        (stop.sizeBps, stop.size, stop.maxSizePerExecution) = (0, size, most);
        _arm(stop);
        _price(180);
    }

    function test_an_absolute_size_is_closed_in_parts_and_no_more() public {
        _sized(5e18, 3e18);
        _fire();
        eq(venue.sizes(subject), 7e18, "first");
        _wait(60);
        _fire();
        eq(venue.sizes(subject), 5e18, "rest");
        eq(uint256(_status()), uint256(IStopLoss.Status.FIRED), "fired");
    }

    /// 10 held, dust up to 1: closing 9.5 closes all, closing 8.5 leaves 1.5.
    function test_a_rest_of_the_position_that_is_dust_is_closed_with_it() public {
        IStopLoss.Stop memory stop = _stop();
        (stop.sizeBps, stop.dust) = (9500, 1e18);
        _arm(stop);
        _price(180);
        _fire();
        eq(venue.sizes(subject), 0, "whole");
        venue.set(subject, 10e18, 0);
        stop.sizeBps = 8500;
        _arm(stop);
        _wait(60);
        _fire();
        eq(venue.sizes(subject), 1.5e18, "more than dust is left");
    }

    function test_a_rest_of_the_order_that_is_dust_ends_it() public {
        IStopLoss.Stop memory stop = _stop();
        (stop.maxSizePerExecution, stop.dust) = (4.9e18, 0.5e18);
        _arm(stop);
        _price(180);
        _fire();
        eq(uint256(_status()), uint256(IStopLoss.Status.ARMED), "5.1 are left");
        _wait(60);
        _fire();
        eq(venue.sizes(subject), 0.2e18, "dust");
        eq(uint256(_status()), uint256(IStopLoss.Status.FIRED), "fired");
    }

    function test_dust_as_large_as_a_piece_or_the_order_is_refused() public {
        IStopLoss.Stop memory stop = _stop();
        stop.dust = stop.maxSizePerExecution;
        vm.expectRevert(abi.encodeWithSelector(StopConfig.InvalidStop.selector, 1));
        _arm(stop);
        (stop.sizeBps, stop.size, stop.dust) = (0, 5e18, 5e18);
        vm.expectRevert(abi.encodeWithSelector(StopConfig.InvalidStop.selector, 1));
        _arm(stop);
    }

    function testFuzz_an_absolute_size_is_capped_by_the_position(uint128 size, uint64 held) public {
        size = uint128(bound(size, 1, type(uint128).max));
        int256 position = int256(bound(held, 1, 1000e18));
        venue.set(subject, position, 0);
        _sized(size, type(uint128).max);
        _fire();
        int256 left = int256(uint256(size)) >= position ? int256(0) : position - int256(uint256(size));
        eq(venue.sizes(subject), left, "left");
    }
}

contract TrailingStopOnRiskAccountTest is TrailingStopBehaviour {
    function setUp() public override {
        super.setUp();
        _beginOn(address(account));
    }

    function test_armed_at_installation_it_takes_the_newest_round_first() public {
        _uninstall(2, address(stopLoss));
        (uint256[] memory ids, IStopLoss.Stop[] memory stops) = (new uint256[](1), new IStopLoss.Stop[](1));
        (ids[0], stops[0]) = (1, _trailing());
        _install(subject, 2, address(stopLoss), abi.encode(ids, stops));
        sequencer.push(0, _now());
        vm.warp(_now() + 1 hours);
        uint80 unseen = _round(290);
        uint80 newest = _round(250);
        _refused(unseen);
        _prove(newest);
        _marked(250e18, 225e18);
        _refused(unseen);
        _prove(_round(260));
        _marked(260e18, 234e18);
    }
}

contract TrailingStopOnForeignAccountTest is TrailingStopBehaviour {
    function setUp() public override {
        super.setUp();
        _beginOn(address(foreign));
    }
}

contract StopGroupOnRiskAccountTest is StopGroupBehaviour {
    function setUp() public override {
        super.setUp();
        _beginOn(address(account));
    }
}

contract StopGroupOnForeignAccountTest is StopGroupBehaviour {
    function setUp() public override {
        super.setUp();
        _beginOn(address(foreign));
    }
}

contract StopSizeOnRiskAccountTest is StopSizeBehaviour {
    function setUp() public override {
        super.setUp();
        _beginOn(address(account));
    }
}

contract StopSizeOnForeignAccountTest is StopSizeBehaviour {
    function setUp() public override {
        super.setUp();
        _beginOn(address(foreign));
    }
}
