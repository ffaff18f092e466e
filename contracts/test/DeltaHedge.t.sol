// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {IDeltaHedge} from "../src/interfaces/IDeltaHedge.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {DeltaHedge} from "../src/modules/DeltaHedge.sol";
import {Base} from "./Base.sol";
import {HedgeVenue} from "./HedgeVenue.sol";
import {Token} from "./Lending.sol";
import {Vm} from "./Vm.sol";

/// Ten options whose delta is the price over a thousand dollars, hedged to zero within one unit either way. At 1,000 their delta is 10.
abstract contract HedgeRig is Base {
    address internal subject;
    DeltaHedge internal guard;
    HedgeVenue internal venue;
    Token internal weth;
    ReplayFeed internal feed;
    ReplayFeed internal sequencer;
    address internal outsider = address(0x0075);

    function _begin(address on) internal {
        subject = on;
        guard = new DeltaHedge();
        venue = new HedgeVenue();
        weth = new Token("WETH", 8); // decimals that are not those of a delta
        feed = new ReplayFeed(address(this), 8, "ETH / USD");
        sequencer = new ReplayFeed(address(this), 0, "sequencer");
        sequencer.push(0, _now() - 1 days);
        _price(1000);
        venue.setOptions(subject, 10e18);
        venue.setSize(subject, -10e18);
        _install(subject, 2, address(guard), "");
        _arm(_hedge());
    }

    function _hedge() internal view returns (IDeltaHedge.Hedge memory) {
        return IDeltaHedge.Hedge({
            authority: address(authority),
            options: address(venue),
            perp: address(venue),
            market: address(venue),
            spot: address(weth),
            target: 0,
            band: 1e18,
            minTrade: 0.5e18,
            maxTrade: 8e18,
            maxPosition: 30e18,
            maxTurnover: 20e18,
            turnoverSeconds: 1 days,
            slippageBps: 100,
            cooldown: 60,
            publicDelay: 300,
            refundBps: 10_000,
            refundCap: 0.01 ether,
            expiry: 0,
            oracle: OracleConfig({
                feed: address(feed),
                heartbeat: 3600,
                sequencerFeed: address(sequencer),
                gracePeriod: 900,
                minPrice: 10e18,
                maxPrice: 100_000e18,
                maxDeviationBps: 300,
                deviationPatience: 0
            })
        });
    }

    function _price(uint256 dollars) internal {
        feed.push(int256(dollars * 1e8), _now());
        venue.setPrices(dollars * 1e18, dollars * 1e18);
    }

    function _arm(IDeltaHedge.Hedge memory hedge) internal {
        _as(subject, address(guard), abi.encodeCall(guard.arm, (1, hedge)));
    }

    function _fire() internal {
        _as(subject, address(guard), abi.encodeCall(guard.execute, (subject, 1)));
    }

    function _wait(uint256 duration) internal {
        vm.warp(_now() + duration);
        (, int256 answer,,,) = feed.latestRoundData();
        feed.push(answer, _now());
    }

    function _is(IGuard.Due wanted, bytes4 why) internal view {
        (IGuard.Due status, bytes4 reason) = guard.due(subject, 1);
        eq(uint256(status), uint256(wanted), "due");
        eq(bytes32(reason), bytes32(why), "reason");
    }

    function _net() internal view returns (int256) {
        (int256 options, int256 perp, int256 spot,) = guard.deltaOf(subject, 1);
        return options + perp + spot;
    }

    function _freeze(RiskState state) internal {
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, state);
    }
}

/// One suite, run on our account and on OpenZeppelin's.
abstract contract DeltaHedgeBehaviour is HedgeRig {
    // ---- when and how much

    function test_inside_the_band_nothing_happens_and_outside_the_delta_is_brought_to_the_target() public {
        _price(1100); // 11 - 10: at the edge
        _is(IGuard.Due.NOT_DUE, DeltaHedge.NotDue.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.NotDue.selector, subject, 1));
        _fire();
        _price(1200);
        _is(IGuard.Due.DUE, 0);
        _fire();
        eq(venue.sizes(subject), -12e18, "sold two");
        eq(_net(), 0, "hedged");
        _is(IGuard.Due.NOT_DUE, DeltaHedge.NotDue.selector);
        _price(900);
        _wait(60);
        _fire();
        eq(venue.sizes(subject), -9e18, "bought three");
    }

    function test_spot_counts_in_whole_units_and_the_target_need_not_be_zero() public {
        weth.mint(subject, 3e8);
        (int256 options, int256 perp, int256 spot, uint256 price) = guard.deltaOf(subject, 1);
        eq(options, 10e18, "options");
        eq(perp, -10e18, "perp");
        eq(spot, 3e18, "spot");
        eq(price, 1000e18, "price");
        IDeltaHedge.Hedge memory hedge = _hedge();
        hedge.target = -2e18;
        _arm(hedge);
        _fire();
        eq(venue.sizes(subject), -15e18, "to the target");
        hedge.spot = address(0);
        hedge.options = address(0);
        _arm(hedge);
        _wait(60);
        eq(_net(), -15e18, "perp alone");
        _fire();
        eq(venue.sizes(subject), -7e18, "towards the target, at most eight at once");
    }

    function test_one_execution_trades_at_most_its_cap_and_goes_on_after_the_cool_down() public {
        _price(2000); // ten missing
        _fire();
        eq(venue.sizes(subject), -18e18, "eight");
        _is(IGuard.Due.BLOCKED, DeltaHedge.CoolingDown.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.CoolingDown.selector, _now() + 60));
        _fire();
        _wait(60);
        _fire();
        eq(venue.sizes(subject), -20e18, "the rest");
    }

    function test_the_turnover_window_caps_and_frees_whatever_is_armed_anew() public {
        _price(2000);
        _fire();
        _wait(60);
        _fire(); // ten
        _price(1000);
        _wait(60);
        _fire(); // eighteen
        _wait(60);
        _fire(); // twenty
        eq(venue.sizes(subject), -10e18, "bought back");
        _price(1500);
        _wait(60);
        _is(IGuard.Due.BLOCKED, DeltaHedge.TurnoverUsed.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.TurnoverUsed.selector, 0));
        _fire();
        _arm(_hedge());
        _is(IGuard.Due.BLOCKED, DeltaHedge.TurnoverUsed.selector);
        _wait(1 days + 4 hours + 7);
        _is(IGuard.Due.DUE, 0);
    }

    function test_the_position_never_becomes_larger_than_its_cap_and_may_always_become_smaller() public {
        IDeltaHedge.Hedge memory hedge = _hedge();
        hedge.maxPosition = 11e18;
        _arm(hedge);
        _price(2000);
        _fire();
        eq(venue.sizes(subject), -11e18, "to the cap");
        _wait(60);
        _is(IGuard.Due.BLOCKED, DeltaHedge.PositionCapped.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.PositionCapped.selector, -11e18));
        _fire();
        venue.setSize(subject, -25e18); // beyond the cap by the owner's own hand
        _is(IGuard.Due.DUE, 0);
        _fire();
        eq(venue.sizes(subject), -20e18, "back");
        venue.setSize(subject, 25e18);
        venue.setOptions(subject, -30e18);
        _wait(60);
        _is(IGuard.Due.BLOCKED, DeltaHedge.PositionCapped.selector);
    }

    function test_a_partial_fill_counts_as_far_as_it_goes() public {
        _price(1400);
        venue.setTrick(HedgeVenue.Trick.HALF, guard);
        _fire();
        eq(venue.sizes(subject), -12e18, "half");
        venue.setTrick(HedgeVenue.Trick.NONE, guard);
        _wait(60);
        _fire();
        eq(_net(), 0, "the rest");
    }

    function test_each_execution_is_an_arming_of_its_own() public {
        _price(1200);
        (,, uint256 arming,,) = guard.hedgeOf(subject, 1);
        vm.recordLogs();
        _fire();
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 fired = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == IGuard.GuardFired.selector) ++fired;
        }
        eq(fired, 1, "fired");
        (,, uint256 next,,) = guard.hedgeOf(subject, 1);
        eq(next, arming + 1, "arming");
    }

    // ---- prices

    function test_the_fill_is_bounded_by_the_oracle_either_way() public {
        feed.push(1200e8, _now());
        venue.setPrices(1187.9e18, 1200e18);
        vm.expectPartialRevert(HedgeVenue.TooLittle.selector);
        _fire();
        eq(venue.lastLimit(), 0, "undone");
        venue.setPrices(1188e18, 1200e18);
        _fire();
        eq(venue.lastLimit(), 1188e18, "sale");
        feed.push(900e8, _now());
        venue.setPrices(909.1e18, 900e18);
        _wait(60);
        vm.expectPartialRevert(HedgeVenue.TooLittle.selector);
        _fire();
        venue.setPrices(909e18, 900e18);
        _fire();
        eq(venue.lastLimit(), 909e18, "purchase");
    }

    function test_every_doubt_blocks_and_says_which() public {
        _price(1200);
        uint256 start = _now();
        vm.warp(start + 3601);
        _blocked(OracleGuard.FeedStale.selector);
        _wait(0);
        sequencer.push(1, _now());
        _blocked(OracleGuard.SequencerDown.selector);
        sequencer.push(0, _now());
        _blocked(OracleGuard.SequencerGrace.selector);
        _wait(900);
        feed.push(0, _now());
        _blocked(OracleGuard.FeedInvalid.selector);
        feed.push(9e8, _now());
        _blocked(OracleGuard.FeedOutOfBounds.selector);
        _price(1200);
        venue.setPrices(1200e18, 1163e18);
        _is(IGuard.Due.BLOCKED, DeltaHedge.Deviation.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.Deviation.selector, 1200e18, 1163e18));
        _fire();
        venue.setPrices(1200e18, 0);
        _is(IGuard.Due.BLOCKED, DeltaHedge.VenueUnreadable.selector);
        _price(1200);
        venue.setUnreadable(true, false);
        _is(IGuard.Due.BLOCKED, DeltaHedge.VenueUnreadable.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.VenueUnreadable.selector, subject, 1));
        _fire();
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.VenueUnreadable.selector, subject, 1));
        guard.deltaOf(subject, 1);
        venue.setUnreadable(false, true);
        _is(IGuard.Due.BLOCKED, DeltaHedge.VenueUnreadable.selector);
        guard.touch(subject, 1); // nothing is learnt
        venue.setUnreadable(false, false);
        _is(IGuard.Due.DUE, 0);
    }

    function _blocked(bytes4 problem) internal {
        _is(IGuard.Due.BLOCKED, problem);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.OracleProblem.selector, problem));
        _fire();
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.OracleProblem.selector, problem));
        guard.deltaOf(subject, 1);
    }

    // ---- states

    function test_frozen_it_does_nothing() public {
        _price(1200);
        _freeze(RiskState.FROZEN);
        _is(IGuard.Due.BLOCKED, DeltaHedge.Halted.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.Halted.selector, subject));
        _fire();
    }

    function test_reduce_only_it_rests_and_as_a_declared_guard_it_makes_the_position_smaller_and_nothing_else() public {
        _price(800); // two too short
        _freeze(RiskState.REDUCE_ONLY);
        _is(IGuard.Due.BLOCKED, DeltaHedge.Halted.selector);
        _wait(1 days);
        authority.expire(subject);
        _as(subject, address(authority), abi.encodeCall(authority.setGuard, (address(guard), true)));
        _wait(2 days);
        _freeze(RiskState.REDUCE_ONLY);
        guard.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        guard.execute(subject, 1);
        eq(venue.sizes(subject), -8e18, "smaller");
        _wait(60);
        _price(1500);
        _is(IGuard.Due.BLOCKED, DeltaHedge.Halted.selector); // would become larger
        venue.setOptions(subject, -2e18); // five too short with nothing to buy back beyond eight
        _is(IGuard.Due.DUE, 0);
        venue.setSize(subject, 0);
        _is(IGuard.Due.BLOCKED, DeltaHedge.Halted.selector);
        venue.setSize(subject, -2e18); // never to the other side
        _fire();
        eq(venue.sizes(subject), 0, "closed");
    }

    // ---- who

    function test_anyone_may_execute_after_the_public_delay_and_is_paid_within_the_caps() public {
        _price(1200);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
        guard.touch(subject, 1);
        _wait(299);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.NotPublicYet.selector, _now() + 1));
        vm.prank(outsider);
        guard.execute(subject, 1);
        _wait(1);
        vm.txGasPrice(100 gwei);
        vm.prank(outsider);
        guard.execute(subject, 1);
        isTrue(outsider.balance > 0 && outsider.balance <= 0.01 ether, "refund");
        eq(_net(), 0, "hedged");
    }

    function test_a_drift_that_passed_starts_the_public_delay_anew() public {
        _price(1200);
        guard.touch(subject, 1);
        _wait(200);
        _price(1000);
        guard.touch(subject, 1);
        _price(1200);
        _wait(150);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
    }

    function test_a_refund_that_cannot_be_paid_undoes_nothing() public {
        _price(1200);
        guard.touch(subject, 1);
        _wait(300);
        vm.deal(subject, 0);
        vm.txGasPrice(1000 gwei);
        vm.prank(outsider);
        guard.execute(subject, 1);
        eq(_net(), 0, "hedged");
        eq(outsider.balance, 0, "nothing paid");
    }

    function test_only_the_account_arms_and_cancels() public {
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.NotInstalled.selector, outsider));
        vm.prank(outsider);
        guard.arm(1, _hedge());
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.Final.selector, outsider, 1));
        vm.prank(outsider);
        guard.cancel(1);
        _as(subject, address(guard), abi.encodeCall(guard.cancel, (1)));
        _price(1200);
        _is(IGuard.Due.FINAL, DeltaHedge.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.Final.selector, subject, 1));
        _fire();
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.Final.selector, subject, 1));
        guard.touch(subject, 1);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.Final.selector, subject, 1));
        guard.deltaOf(subject, 1);
        (, bool armed,,,) = guard.hedgeOf(subject, 1);
        isTrue(!armed, "cancelled");
    }

    function test_it_ends_with_its_expiry_and_with_its_installation() public {
        IDeltaHedge.Hedge memory hedge = _hedge();
        hedge.expiry = uint48(_now() + 10);
        _arm(hedge);
        _price(1200);
        _wait(10);
        _is(IGuard.Due.DUE, 0);
        _wait(1);
        _is(IGuard.Due.FINAL, DeltaHedge.Final.selector);
        _arm(_hedge());
        _is(IGuard.Due.DUE, 0);
        _as(subject, address(guard), abi.encodeCall(guard.onUninstall, ("")));
        _is(IGuard.Due.FINAL, DeltaHedge.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.NotInstalled.selector, subject));
        _as(subject, address(guard), abi.encodeCall(guard.onUninstall, ("")));
        _as(subject, address(guard), abi.encodeCall(guard.onInstall, ("")));
        _is(IGuard.Due.FINAL, DeltaHedge.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(DeltaHedge.AlreadyInstalled.selector, subject));
        _as(subject, address(guard), abi.encodeCall(guard.onInstall, ("")));
        isTrue(guard.isModuleType(2) && !guard.isModuleType(1), "an executor");
    }

    function test_armed_at_installation_it_touches_only_the_account_s_own_slots() public {
        _as(subject, address(guard), abi.encodeCall(guard.onUninstall, ("")));
        (uint256[] memory ids, IDeltaHedge.Hedge[] memory hedges) = (new uint256[](1), new IDeltaHedge.Hedge[](1));
        (ids[0], hedges[0]) = (7, _hedge());
        vm.startMappingRecording();
        vm.record();
        _as(subject, address(guard), abi.encodeCall(guard.onInstall, (abi.encode(ids, hedges))));
        _onlyAssociatedReads(address(guard), subject);
        vm.stopMappingRecording();
        (IDeltaHedge.Hedge memory hedge, bool armed,,,) = guard.hedgeOf(subject, 7);
        isTrue(armed, "armed");
        eq(keccak256(abi.encode(hedge)), keccak256(abi.encode(_hedge())), "as it was armed");
    }

    // ---- hostile venue

    function test_a_venue_that_trades_nothing_the_wrong_way_or_too_much_is_undone() public {
        _price(1200);
        for (uint256 i = uint256(HedgeVenue.Trick.NOTHING); i <= uint256(HedgeVenue.Trick.TOO_MUCH); ++i) {
            venue.setTrick(HedgeVenue.Trick(i), guard);
            vm.expectPartialRevert(DeltaHedge.Misfilled.selector);
            _fire();
        }
        eq(venue.sizes(subject), -10e18, "untouched");
    }

    function test_a_trade_that_leaves_the_account_no_better_hedged_is_undone() public {
        _price(1200);
        venue.setTrick(HedgeVenue.Trick.MORE_OPTIONS, guard);
        vm.expectPartialRevert(DeltaHedge.NotImproved.selector);
        _fire();
    }

    function test_a_venue_that_calls_back_finds_the_door_shut() public {
        _price(1200);
        venue.setTrick(HedgeVenue.Trick.REENTER, guard);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        _fire();
    }

    function test_senseless_settings_are_refused() public {
        for (uint256 i = 0; i < 24; ++i) {
            IDeltaHedge.Hedge memory hedge = _hedge();
            if (i == 0) hedge.perp = address(1);
            if (i == 1) hedge.market = address(0);
            if (i == 2) hedge.options = address(1);
            if (i == 3) hedge.spot = address(1);
            if (i == 4) hedge.authority = address(1);
            if (i == 5) hedge.minTrade = 0;
            if (i == 6) hedge.minTrade = hedge.band + 1;
            if (i == 7) hedge.maxTrade = hedge.minTrade - 1;
            if (i == 8) hedge.maxTurnover = hedge.minTrade - 1;
            if (i == 9) hedge.maxPosition = hedge.minTrade - 1;
            if (i == 10) hedge.maxPosition = type(uint128).max;
            if (i == 11) hedge.slippageBps = 0;
            if (i == 12) hedge.slippageBps = 1001;
            if (i == 13) hedge.refundBps = 10_001;
            if (i == 14) hedge.oracle.feed = address(1);
            if (i == 15) hedge.oracle.heartbeat = 0;
            if (i == 16) hedge.oracle.minPrice = 0;
            if (i == 17) hedge.oracle.minPrice = hedge.oracle.maxPrice + 1;
            if (i == 18) hedge.oracle.deviationPatience = 1;
            if (i == 19) hedge.oracle.sequencerFeed = address(1);
            if (i == 20) hedge.turnoverSeconds = 0;
            if (i == 21) hedge.maxTurnover = 20_000_000_000_000_000_001;
            if (i == 22) hedge.oracle.feed = address(0);
            if (i == 23) hedge.perp = address(0);
            vm.expectRevert(abi.encodeWithSelector(DeltaHedge.InvalidHedge.selector, 1));
            _arm(hedge);
        }
        IDeltaHedge.Hedge memory elsewhere = _hedge();
        elsewhere.market = address(2);
        vm.expectRevert(HedgeVenue.Unreadable.selector);
        _arm(elsewhere);
    }

    // ---- whatever the numbers

    function testFuzz_a_call_brings_the_delta_nearer_within_every_cap_and_loses_no_more_than_its_bound(
        uint256 price,
        int256 options,
        int256 perp,
        uint256 spot,
        int256 target,
        uint256 worse
    ) public {
        price = bound(price, 20, 50_000);
        options = int256(bound(uint256(options), 0, 400e18)) - 200e18;
        perp = int256(bound(uint256(perp), 0, 120e18)) - 60e18;
        target = int256(bound(uint256(target), 0, 20e18)) - 10e18;
        worse = bound(worse, 0, 100);
        weth.mint(subject, bound(spot, 0, 50e8));
        venue.setOptions(subject, options);
        venue.setSize(subject, perp);
        IDeltaHedge.Hedge memory hedge = _hedge();
        hedge.target = int128(target);
        _arm(hedge);
        _price(price);
        int256 before = _net() - target;
        venue.setPrices(price * 1e18 * (before > 0 ? 10_000 - worse : 10_000 + worse) / 10_000, price * 1e18);
        (IGuard.Due status, bytes4 reason) = guard.due(subject, 1);
        isTrue((status == IGuard.Due.NOT_DUE) == (_abs(before) <= 1e18), "due outside the band");
        if (status == IGuard.Due.BLOCKED) {
            eq(bytes32(reason), bytes32(DeltaHedge.PositionCapped.selector), "nothing else stands in the way");
            isTrue(_abs(perp) + 0.5e18 > 30e18, "at its cap");
        }
        if (status != IGuard.Due.DUE) return;
        _fire();
        int256 traded = venue.sizes(subject) - perp;
        int256 left = _net() - target;
        isTrue(_abs(left) < _abs(before), "nearer");
        isTrue(left == 0 || (left > 0) == (before > 0), "never to the other side");
        isTrue(_abs(traded) <= 8e18, "cap of one execution");
        uint256 size = _abs(venue.sizes(subject));
        isTrue(size <= 30e18 || size < _abs(perp), "largest position");
        int256 loss = -(venue.cash(subject) + traded * int256(price));
        isTrue(loss <= int256(_abs(traded) * price / 100 + 2), "loss within the slippage bound");
    }

    function _abs(int256 value) internal pure returns (uint256) {
        return value < 0 ? uint256(-value) : uint256(value);
    }
}

contract DeltaHedgeOnRiskAccountTest is DeltaHedgeBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(account));
    }

    function test_gas_of_a_hedge() public {
        _price(1200);
        guard.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        guard.execute(subject, 1);
        vm.snapshotGasLastCall("modules", "DeltaHedge.execute by anyone, venue costs next to nothing");
    }
}

contract DeltaHedgeOnForeignAccountTest is DeltaHedgeBehaviour {
    function setUp() public override {
        super.setUp();
        _install(address(foreign), 4, address(authority), abi.encode(_freezeData()));
        _begin(address(foreign));
    }

    function test_an_authority_that_does_not_answer_counts_as_frozen_and_none_is_no_state() public {
        IDeltaHedge.Hedge memory hedge = _hedge();
        hedge.authority = address(venue);
        _arm(hedge);
        _price(1200);
        _is(IGuard.Due.BLOCKED, DeltaHedge.Halted.selector);
        hedge.authority = address(0);
        _arm(hedge);
        _fire();
        eq(_net(), 0, "hedged");
    }
}
