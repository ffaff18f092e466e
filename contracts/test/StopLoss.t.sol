// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {IStopLoss, OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {StopLoss} from "../src/modules/StopLoss.sol";
import {GuardModule} from "../src/modules/guard/GuardModule.sol";
import {StopConfig} from "../src/modules/stop/StopConfig.sol";
import {StopRig} from "./StopRig.sol";
import {Venue} from "./Venue.sol";
import {Vm} from "./Vm.sol";

/// One suite, run on our account and on OpenZeppelin's.
abstract contract StopLossBehaviour is StopRig {
    // ---- firing

    function test_fires_once_at_or_below_the_trigger() public {
        _is(IGuard.Due.NOT_DUE, StopLoss.NotDue.selector);
        vm.expectRevert(abi.encodeWithSelector(StopLoss.NotDue.selector, subject, 1));
        _fire();
        _price(180);
        _is(IGuard.Due.DUE, 0);
        _fire();
        eq(venue.sizes(subject), 0, "closed");
        isTrue(_status() == IStopLoss.Status.FIRED, "fired");
        _is(IGuard.Due.FINAL, StopConfig.Final.selector);
        venue.set(subject, 10e18, 0);
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 1));
        _fire();
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 1));
        stopLoss.touch(subject, 1);
    }

    function testFuzz_a_gap_through_the_trigger_fires_too(uint256 price) public {
        price = bound(price, 11, 180);
        _price(price);
        _fire();
        eq(venue.sizes(subject), 0, "closed");
    }

    function test_take_profit_fires_above() public {
        IStopLoss.Stop memory stop = _stop();
        (stop.below, stop.triggerPrice) = (false, 250e18);
        _arm(stop);
        _price(249);
        _is(IGuard.Due.NOT_DUE, StopLoss.NotDue.selector);
        _price(400);
        _fire();
        eq(venue.sizes(subject), 0, "closed");
    }

    function test_a_short_is_bought_back() public {
        IStopLoss.Stop memory stop = _stop();
        (stop.below, stop.triggerPrice) = (false, 250e18);
        _arm(stop);
        venue.set(subject, -10e18, 1);
        _price(260);
        _fire();
        eq(venue.sizes(subject), 0, "closed");
        eq(venue.lastLimit(), 260e18 * 101 / 100, "limit");
    }

    function test_events_name_the_arming_and_fire_once() public {
        _price(150);
        vm.recordLogs();
        _fire();
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 fired = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == IGuard.GuardFired.selector) ++fired;
        }
        eq(fired, 1, "fired");
        _arm(_stop());
        (,, uint256 arming,,) = stopLoss.stopOf(subject, 1);
        eq(arming, 2, "arming");
        _is(IGuard.Due.NOT_DUE, StopLoss.NoPosition.selector);
    }

    // ---- parts

    function test_parts_respect_share_size_cap_and_cooldown_and_fire_once_in_total() public {
        IStopLoss.Stop memory stop = _stop();
        (stop.sizeBps, stop.maxSizePerExecution) = (5000, 2e18);
        _arm(stop);
        _price(170);
        for (uint256 i = 1; i <= 3; ++i) {
            _fire();
            uint256 left = i < 3 ? 10e18 - 2e18 * i : 5e18;
            eq(venue.sizes(subject), int256(left), "left");
            if (i == 3) break;
            _is(IGuard.Due.BLOCKED, StopLoss.CoolingDown.selector);
            vm.expectRevert(abi.encodeWithSelector(StopLoss.CoolingDown.selector, _now() + 60));
            _fire();
            _wait(60);
        }
        isTrue(_status() == IStopLoss.Status.FIRED, "fired");
    }

    function test_the_rest_waits_while_the_price_is_back() public {
        IStopLoss.Stop memory stop = _stop();
        stop.maxSizePerExecution = 2e18;
        _arm(stop);
        _price(170);
        _fire();
        _wait(60);
        _price(190);
        _is(IGuard.Due.NOT_DUE, StopLoss.NotDue.selector);
        _price(179);
        _fire();
        eq(venue.sizes(subject), 6e18, "second part");
    }

    function test_a_position_that_grew_or_turned_between_parts_is_a_new_target() public {
        IStopLoss.Stop memory stop = _stop();
        stop.maxSizePerExecution = 8e18;
        _arm(stop);
        _price(170);
        _fire();
        venue.set(subject, 20e18, 1000e18);
        for (uint256 i = 0; i < 3; ++i) {
            _wait(60);
            _fire();
        }
        eq(venue.sizes(subject), 0, "all of it");
        isTrue(_status() == IStopLoss.Status.FIRED, "fired");
    }

    function test_a_partial_fill_is_continued() public {
        venue.setTrick(Venue.Trick.HALF, IGuard(address(0)));
        _price(170);
        _fire();
        eq(venue.sizes(subject), 5e18, "half");
        isTrue(_status() == IStopLoss.Status.ARMED, "armed");
        venue.setTrick(Venue.Trick.NONE, IGuard(address(0)));
        _wait(60);
        _fire();
        eq(venue.sizes(subject), 0, "rest");
    }

    // ---- who may call

    function test_others_wait_for_the_public_delay_after_the_stop_was_recorded_as_due() public {
        _price(170);
        vm.expectRevert(abi.encodeWithSelector(GuardModule.NotPublicYet.selector, 0));
        stopLoss.execute(subject, 1);
        stopLoss.touch(subject, 1);
        uint256 publicAt = _now() + 300;
        _wait(299);
        vm.expectRevert(abi.encodeWithSelector(GuardModule.NotPublicYet.selector, publicAt));
        stopLoss.execute(subject, 1);
        _wait(1);
        vm.prank(outsider);
        stopLoss.execute(subject, 1);
        eq(venue.sizes(subject), 0, "closed");
    }

    function test_touch_follows_the_condition_and_learns_nothing_from_a_bad_feed() public {
        stopLoss.touch(subject, 1);
        eq(_dueSince(), 0, "not due");
        _price(170);
        stopLoss.touch(subject, 1);
        uint48 since = uint48(_now());
        _wait(10);
        stopLoss.touch(subject, 1);
        eq(_dueSince(), since, "first time");
        sequencer.push(1, _now());
        stopLoss.touch(subject, 1);
        eq(_dueSince(), since, "kept");
        sequencer.push(0, _now());
        _wait(900);
        _price(190);
        stopLoss.touch(subject, 1);
        eq(_dueSince(), 0, "recovered");
    }

    function test_an_old_dip_opens_nothing_later() public {
        _price(170);
        stopLoss.touch(subject, 1);
        _price(190); // nobody records the recovery
        _wait(1 days);
        _price(175);
        eq(_dueSince(), 0, "lapsed");
        vm.expectRevert(abi.encodeWithSelector(GuardModule.NotPublicYet.selector, 0));
        stopLoss.execute(subject, 1);
        stopLoss.touch(subject, 1);
        eq(_dueSince(), _now(), "anew");
    }

    function testFuzz_refund_is_bounded_by_gas_spent_and_cap(uint64 gasPrice, uint16 bps, uint96 cap) public {
        IStopLoss.Stop memory stop = _stop();
        (stop.refundBps, stop.refundCap) = (uint16(bound(bps, 0, 10_000)), uint96(bound(cap, 0, 1 ether)));
        _arm(stop);
        _price(170);
        stopLoss.touch(subject, 1);
        _wait(300);
        gasPrice = uint64(bound(gasPrice, 0, 1000 gwei));
        vm.txGasPrice(gasPrice);
        uint256 before = subject.balance;
        vm.prank(outsider);
        stopLoss.execute(subject, 1);
        uint256 refund = outsider.balance;
        eq(before - subject.balance, refund, "paid by the account");
        isTrue(refund <= stop.refundCap, "cap");
        isTrue(refund <= uint256(gasPrice) * 2_000_000 * stop.refundBps / 10_000, "share");
        if (gasPrice > 1 gwei && stop.refundBps > 100 && stop.refundCap > 0) isTrue(refund > 0, "something");
    }

    function test_a_refund_that_cannot_be_paid_does_not_undo_the_stop() public {
        _price(170);
        stopLoss.touch(subject, 1);
        _wait(300);
        vm.txGasPrice(1000 gwei);
        stopLoss.execute(subject, 1); // this contract takes no value
        eq(venue.sizes(subject), 0, "closed");
        eq(address(this).balance, 0xffffffffffffffffffffffff, "nothing paid");
        vm.deal(subject, 0);
        venue.set(subject, 1e18, 0);
        _arm(_stop());
        stopLoss.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        stopLoss.execute(subject, 1);
        eq(venue.sizes(subject), 0, "closed by a poor account");
    }

    // ---- oracle

    function test_every_oracle_problem_blocks_and_says_which() public {
        _price(170);
        uint256 start = _now();
        vm.warp(start + 3601);
        _blockedBy(OracleGuard.FeedStale.selector);
        _wait(0);
        _is(IGuard.Due.DUE, 0);
        sequencer.push(1, _now());
        _blockedBy(OracleGuard.SequencerDown.selector);
        sequencer.push(0, _now());
        _blockedBy(OracleGuard.SequencerGrace.selector);
        _wait(899);
        _blockedBy(OracleGuard.SequencerGrace.selector);
        _wait(1);
        _is(IGuard.Due.DUE, 0);
        feed.push(9e8, _now());
        _blockedBy(OracleGuard.FeedOutOfBounds.selector);
        feed.push(10_001e8, _now());
        _blockedBy(OracleGuard.FeedOutOfBounds.selector);
        feed.push(0, _now());
        _blockedBy(OracleGuard.FeedInvalid.selector);
        feed.push(-1, _now());
        _blockedBy(OracleGuard.FeedInvalid.selector);
        feed.push(170e8, _now() + 1);
        _blockedBy(OracleGuard.FeedInvalid.selector);
    }

    function _blockedBy(bytes4 problem) internal {
        _is(IGuard.Due.BLOCKED, problem);
        vm.expectRevert(abi.encodeWithSelector(StopLoss.OracleProblem.selector, problem));
        _fire();
    }

    function test_bad_oracle_data_never_cancels_a_stop() public {
        feed.push(-1, _now());
        stopLoss.touch(subject, 1);
        isTrue(_status() == IStopLoss.Status.ARMED, "armed");
        _price(170);
        _fire();
    }

    function test_deviation_blocks_until_patience_is_over() public {
        feed.push(170e8, _now());
        venue.setPrices(170e18, 176e18); // the mean lags: 3.5 %
        _is(IGuard.Due.BLOCKED, StopLoss.Deviation.selector);
        vm.expectRevert(abi.encodeWithSelector(StopLoss.Deviation.selector, 170e18, 176e18));
        _fire();
        stopLoss.touch(subject, 1);
        _wait(119);
        _is(IGuard.Due.BLOCKED, StopLoss.Deviation.selector);
        _wait(1);
        _is(IGuard.Due.DUE, 0);
        _fire();
        eq(venue.sizes(subject), 0, "closed");
    }

    function test_a_venue_that_cannot_be_read_blocks() public {
        _price(170);
        venue.setUnreadable(true);
        _is(IGuard.Due.BLOCKED, StopLoss.VenueUnreadable.selector);
        vm.expectRevert(abi.encodeWithSelector(StopLoss.VenueUnreadable.selector, address(venue)));
        _fire();
        venue.setUnreadable(false);
        venue.setPrices(170e18, 0);
        _is(IGuard.Due.BLOCKED, StopLoss.VenueUnreadable.selector);
    }

    // ---- price bound

    /// sale: max(min(feed, mean) * (1 - slippage(t)), feed * (1 - max)).
    function testFuzz_limit_is_the_conservative_source_less_the_schedule_and_never_beyond_the_cap(
        uint256 feedPrice,
        uint256 mean,
        uint256 elapsed
    ) public {
        IStopLoss.Stop memory stop = _stop();
        stop.oracle.maxDeviationBps = type(uint16).max;
        _arm(stop);
        feedPrice = bound(feedPrice, 100, 180);
        mean = bound(mean, 50, 400) * 1e18;
        elapsed = bound(elapsed, 0, 1000);
        feed.push(int256(feedPrice * 1e8), _now());
        venue.setPrices(1_000_000e18, mean);
        stopLoss.touch(subject, 1);
        _wait(elapsed);
        _fire();
        uint256 bps = elapsed >= 600 ? 1000 : 100 + 900 * elapsed / 600;
        uint256 guarded = feedPrice * 1e18;
        uint256 base = mean < guarded ? mean : guarded;
        uint256 wanted = (base * (10_000 - bps) + 9999) / 10_000;
        uint256 floor = (guarded * 9000 + 9999) / 10_000;
        eq(venue.lastLimit(), wanted > floor ? wanted : floor, "limit");
    }

    function test_a_fill_worse_than_the_bound_is_refused_and_passes_when_the_bound_has_widened() public {
        feed.push(170e8, _now());
        venue.setPrices(160e18, 170e18); // 5.9 % worse
        vm.expectPartialRevert(Venue.TooLittle.selector);
        _fire();
        stopLoss.touch(subject, 1);
        _wait(400); // 7 %
        _fire();
        eq(venue.sizes(subject), 0, "closed");
    }

    // ---- what the venue may not do

    function test_anything_but_a_reduction_by_what_was_asked_is_undone() public {
        IStopLoss.Stop memory stop = _stop();
        stop.sizeBps = 5000;
        _arm(stop);
        _price(170);
        Venue.Trick[4] memory tricks = [Venue.Trick.FLIP, Venue.Trick.OVERSHOOT, Venue.Trick.GROW, Venue.Trick.NOTHING];
        for (uint256 i = 0; i < 4; ++i) {
            venue.setTrick(tricks[i], IGuard(address(0)));
            vm.expectPartialRevert(StopLoss.NotReduced.selector);
            _fire();
        }
        venue.setTrick(Venue.Trick.MORE_DEBT, IGuard(address(0)));
        vm.expectRevert(abi.encodeWithSelector(StopLoss.DebtIncreased.selector, 1000e18, 1000e18 + 1));
        _fire();
        eq(venue.sizes(subject), 10e18, "untouched");
    }

    function test_a_venue_that_calls_back_is_refused() public {
        _price(170);
        venue.setTrick(Venue.Trick.REENTER, stopLoss);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        _fire();
    }

    // ---- arming

    function test_cancelled_and_expired_stops_are_final_until_armed_again() public {
        IStopLoss.Stop memory stop = _stop();
        stop.expiry = uint48(_now() + 10);
        _arm(stop);
        _price(170);
        vm.warp(_now() + 11);
        _is(IGuard.Due.FINAL, StopConfig.Final.selector);
        _arm(_stop());
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.cancel, (1)));
        isTrue(_status() == IStopLoss.Status.CANCELLED, "cancelled");
        _is(IGuard.Due.FINAL, StopConfig.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, subject, 1));
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.cancel, (1)));
        _arm(_stop());
        _fire();
    }

    function test_stops_that_make_no_sense_are_refused() public {
        for (uint256 i = 0; i < 13; ++i) {
            IStopLoss.Stop memory stop = _stop();
            if (i == 0) stop.adapter = address(0x1234);
            if (i == 1) stop.oracle.feed = address(0x1234);
            if (i == 2) stop.market = new bytes(129);
            if (i == 3) stop.triggerPrice = 0;
            if (i == 4) stop.sizeBps = 0;
            if (i == 5) stop.sizeBps = 10_001;
            if (i == 6) stop.maxSizePerExecution = 0;
            if (i == 7) stop.slippageBps = stop.maxSlippageBps + 1;
            if (i == 8) stop.maxSlippageBps = 5001;
            if (i == 9) stop.refundBps = 10_001;
            if (i == 10) stop.oracle.heartbeat = 0;
            if (i == 11) stop.oracle.minPrice = stop.oracle.maxPrice + 1;
            if (i == 12) stop.oracle.sequencerFeed = address(0x1234);
            vm.expectRevert(abi.encodeWithSelector(StopConfig.InvalidStop.selector, 1));
            _arm(stop);
        }
        IStopLoss.Stop memory unknown = _stop();
        unknown.market = "BTC";
        vm.expectRevert(Venue.Unreadable.selector);
        _arm(unknown);
        vm.expectRevert(abi.encodeWithSelector(GuardModule.NotInstalled.selector, address(this)));
        stopLoss.arm(1, _stop());
    }

    function test_stop_reads_back_as_it_was_armed() public view {
        (IStopLoss.Stop memory stop,,,,) = stopLoss.stopOf(subject, 1);
        eq(keccak256(abi.encode(stop)), keccak256(abi.encode(_stop())), "stop");
        isTrue(stopLoss.isModuleType(2) && !stopLoss.isModuleType(1), "module type");
    }

    // ---- reduce

    function _reduce(uint256 size) internal {
        _as(subject, address(stopLoss), abi.encodeCall(stopLoss.reduce, (1, size)));
    }

    function test_the_account_reduces_at_any_price_with_the_first_bound() public {
        _reduce(3e18);
        eq(venue.sizes(subject), 7e18, "reduced");
        eq(venue.lastLimit(), 198e18, "limit");
        vm.expectRevert(abi.encodeWithSelector(StopLoss.NoPosition.selector, subject, 1));
        _reduce(0);
        _reduce(100e18);
        eq(venue.sizes(subject), 0, "no overshoot");
        isTrue(_status() == IStopLoss.Status.ARMED, "still armed");
    }

    function test_reduce_goes_on_with_the_venue_price_when_the_feed_is_dead() public {
        vm.warp(_now() + 1 days);
        venue.setPrices(150e18, 150e18);
        _reduce(10e18);
        eq(venue.lastLimit(), 148.5e18, "limit");
        vm.expectRevert(abi.encodeWithSelector(StopConfig.Final.selector, address(this), 1));
        stopLoss.reduce(1, 1);
    }
}

contract StopLossOnRiskAccountTest is StopLossBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(account));
    }

    function test_works_in_reduce_only_and_frozen() public {
        IStopLoss.Stop memory stop = _stop();
        stop.maxSizePerExecution = 4e18;
        _arm(stop);
        _price(170);
        for (uint8 i = 1; i < 3; ++i) {
            vm.prank(address(authority));
            account.setRiskState(RiskState(i));
            // As the keeper does it: an operation of the account that calls the guard.
            _execute(subject, address(stopLoss), 0, abi.encodeCall(stopLoss.execute, (subject, 1)));
            _wait(60);
        }
        eq(venue.sizes(subject), 2e18, "two parts");
        stopLoss.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        stopLoss.execute(subject, 1);
        eq(venue.sizes(subject), 0, "public part");
        vm.expectRevert();
        _execute(subject, address(stopLoss), 0, abi.encodeCall(stopLoss.cancel, (1)));
    }

    function test_stops_die_with_the_installation() public {
        _uninstall(2, address(stopLoss));
        isTrue(_status() == IStopLoss.Status.NONE, "none");
        _install(subject, 2, address(stopLoss), "");
        isTrue(_status() == IStopLoss.Status.NONE, "still none");
        _is(IGuard.Due.FINAL, StopConfig.Final.selector);
    }

    function test_stops_can_be_armed_at_installation() public {
        _uninstall(2, address(stopLoss));
        (uint256[] memory ids, IStopLoss.Stop[] memory stops) = (new uint256[](1), new IStopLoss.Stop[](1));
        (ids[0], stops[0]) = (1, _stop());
        vm.startMappingRecording();
        vm.record();
        _install(subject, 2, address(stopLoss), abi.encode(ids, stops));
        _onlyAssociatedReads(address(stopLoss), subject); // so it may happen in the operation that creates the account
        _price(170);
        _fire();
    }

    function test_gas_of_a_stop() public {
        _price(170);
        stopLoss.touch(subject, 1);
        vm.prank(subject);
        stopLoss.execute(subject, 1);
        vm.snapshotGasLastCall("modules", "StopLoss.execute, venue costs next to nothing");
    }
}

contract StopLossOnForeignAccountTest is StopLossBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(foreign));
    }

    function test_works_under_a_frozen_hook() public {
        _install(subject, 4, address(authority), abi.encode(_freezeData()));
        address guardian = vm.addr(GUARDIAN_KEYS[0]);
        _as(guardian, address(authority), abi.encodeCall(authority.freeze, (subject, RiskState.FROZEN)));
        _price(170);
        _execute(subject, address(stopLoss), 0, abi.encodeCall(stopLoss.execute, (subject, 1)));
        eq(venue.sizes(subject), 0, "closed");
    }
}
