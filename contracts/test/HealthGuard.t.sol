// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {RiskAccount} from "../src/account/RiskAccount.sol";
import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IHealthGuard} from "../src/interfaces/IHealthGuard.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {HealthGuard} from "../src/modules/HealthGuard.sol";
import {Base} from "./Base.sol";
import {Lending, Token} from "./Lending.sol";

/// One suite, run on our account and on OpenZeppelin's. 10 ETH at 2,000 dollars with a threshold of 83 % bear 16,600; 11,000 are owed.
abstract contract HealthGuardBehaviour is Base {
    address internal subject;
    HealthGuard internal guard;
    Lending internal venue;
    Token internal weth;
    Token internal usdc;
    ReplayFeed internal feed;
    ReplayFeed internal sequencer;
    address internal outsider = address(0x0075);
    uint256 internal constant FLOOR = 1.2e18;
    uint256 internal constant TARGET = 1.5e18;

    function _begin(address on) internal {
        subject = on;
        guard = new HealthGuard();
        weth = new Token("WETH", 18);
        usdc = new Token("USDC", 6);
        venue = new Lending(weth, usdc);
        feed = new ReplayFeed(address(this), 8, "ETH / USD");
        sequencer = new ReplayFeed(address(this), 0, "sequencer");
        sequencer.push(0, _now() - 1 days);
        _price(2000);
        venue.open(subject, 10e18, 11_000e6);
        _install(subject, 2, address(guard), "");
        _arm(_health());
    }

    function _health() internal view returns (IHealthGuard.Health memory) {
        return IHealthGuard.Health({
            lending: address(venue),
            collateral: address(weth),
            debt: address(usdc),
            swap: address(venue),
            fee: 3000,
            floor: uint128(FLOOR),
            target: uint128(TARGET),
            toleranceBps: 100,
            maxRepay: 5000e6,
            maxTopUp: 5e18,
            maxUnwind: 8e18,
            slippageBps: 100,
            maxSlippageBps: 500,
            widenSeconds: 600,
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
                deviationPatience: 120
            })
        });
    }

    function _price(uint256 dollars) internal {
        feed.push(int256(dollars * 1e8), _now());
        venue.setPrices(dollars);
    }

    function _arm(IHealthGuard.Health memory health) internal {
        _as(subject, address(guard), abi.encodeCall(guard.arm, (1, health)));
    }

    function _fire() internal {
        _as(subject, address(guard), abi.encodeCall(guard.execute, (subject, 1)));
    }

    function _factor() internal view returns (uint256) {
        return venue.health(subject).factor;
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

    /// Dollars (1e8) of the account in all, at the venue's prices.
    function _equity() internal view returns (int256) {
        uint256 held = (venue.supplied(subject) + weth.balanceOf(subject)) * venue.price() / 1e18;
        return int256(held + usdc.balanceOf(subject) * 100) - int256(venue.owed(subject) * 100);
    }

    // ---- when

    function test_above_the_floor_nothing_happens_and_at_the_floor_it_does() public {
        _is(IGuard.Due.NOT_DUE, HealthGuard.NotDue.selector);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.NotDue.selector, subject, 1));
        _fire();
        // 10 ETH x 83 % x 1,590 / 11,000 = 1.1997
        _price(1590);
        _is(IGuard.Due.DUE, 0);
        _fire();
        isTrue(_factor() > FLOOR, "restored");
        isTrue(_factor() <= TARGET * 101 / 100, "and not beyond");
        _is(IGuard.Due.NOT_DUE, HealthGuard.NotDue.selector);
    }

    function test_an_account_without_debt_is_never_due() public {
        venue.open(subject, 10e18, 0);
        _price(1);
        _is(IGuard.Due.NOT_DUE, HealthGuard.NotDue.selector);
    }

    function test_a_balance_of_debt_is_repaid_first_and_no_more_than_brings_the_target() public {
        usdc.mint(subject, 4000e6);
        _price(1590);
        _fire();
        eq(venue.supplied(subject), 10e18, "nothing was sold");
        // 13,197 / 1.5 = 8,798 stay owed
        uint256 repaid = 11_000e6 - venue.owed(subject);
        isTrue(repaid >= 2201e6 && repaid <= 2203e6, "repaid");
        eq(usdc.balanceOf(subject), 4000e6 - repaid, "the rest stays");
        eq(usdc.allowance(subject, address(venue)), 0, "no allowance is left");
    }

    function test_collateral_is_topped_up_next() public {
        weth.mint(subject, 5e18);
        _price(1590);
        _fire();
        eq(venue.owed(subject), 11_000e6, "nothing was repaid");
        // 1.5 x 11,000 / 0.83 / 1,590 = 12.503 ETH
        uint256 added = venue.supplied(subject) - 10e18;
        isTrue(added > 2.5e18 && added < 2.51e18, "topped up");
        eq(weth.allowance(subject, address(venue)), 0, "no allowance is left");
    }

    function test_otherwise_collateral_is_unwound() public {
        _price(1590);
        int256 before = _equity();
        _fire();
        isTrue(venue.supplied(subject) < 10e18, "sold");
        isTrue(venue.owed(subject) < 11_000e6, "repaid");
        isTrue(_factor() >= TARGET * 98 / 100, "the target is reached but for the slippage that was not needed");
        isTrue(before - _equity() < 1e6, "a fill at the oracle's price costs nothing");
    }

    function test_each_way_has_its_cap_and_a_closed_way_is_not_taken() public {
        IHealthGuard.Health memory health = _health();
        (health.maxRepay, health.maxTopUp, health.maxUnwind) = (100e6, 0, 0.5e18);
        _arm(health);
        usdc.mint(subject, 4000e6);
        weth.mint(subject, 5e18);
        _price(1590);
        _fire();
        eq(weth.balanceOf(subject), 5e18, "closed");
        eq(venue.supplied(subject), 9.5e18, "unwound up to its cap");
        isTrue(_factor() < TARGET, "not the target yet");
        // The cap holds for the cool-down, then the next execution goes on.
        _is(IGuard.Due.NOT_DUE, HealthGuard.NotDue.selector);
    }

    function test_an_execution_that_did_not_suffice_goes_on_after_the_cool_down() public {
        IHealthGuard.Health memory health = _health();
        (health.maxRepay, health.maxTopUp, health.maxUnwind) = (100e6, 0, 0);
        _arm(health);
        usdc.mint(subject, 4000e6);
        _price(1500);
        _fire();
        _is(IGuard.Due.BLOCKED, HealthGuard.CoolingDown.selector);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.CoolingDown.selector, _now() + 60));
        _fire();
        _wait(60);
        _fire();
        eq(venue.owed(subject), 10_800e6, "twice");
    }

    function test_it_fires_in_a_gap_down_to_the_withdrawal_floor_and_below_it_only_repays() public {
        _price(1340); // 1.011
        _fire();
        uint256 first = _factor();
        isTrue(first > 1.03e18, "ten rounds of unwinding lift it");
        _wait(60);
        _fire();
        isTrue(_factor() > 1.15e18, "and the next ones go on");
        venue.open(subject, 10e18, 11_000e6);
        _wait(60);
        _price(1325); // 0.99975: the venue lets nothing out
        _is(IGuard.Due.BLOCKED, HealthGuard.NothingToUse.selector);
        usdc.mint(subject, 3000e6);
        _is(IGuard.Due.DUE, 0);
        _fire();
        isTrue(_factor() > 1.2e18, "repaid");
    }

    // ---- prices

    function test_a_stale_feed_blocks_a_sale_and_never_a_repayment() public {
        _price(1590);
        vm.warp(_now() + 3601);
        _is(IGuard.Due.BLOCKED, OracleGuard.FeedStale.selector);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.OracleProblem.selector, OracleGuard.FeedStale.selector));
        _fire();
        usdc.mint(subject, 1000e6);
        _is(IGuard.Due.DUE, 0);
        _fire();
        eq(venue.owed(subject), 10_000e6, "repaid");
        eq(venue.supplied(subject), 10e18, "nothing was sold");
    }

    function test_a_pool_that_disagrees_blocks_the_sale_until_patience_ends() public {
        _price(1590);
        venue.setPool(1500e18, 1500e18);
        _is(IGuard.Due.BLOCKED, HealthGuard.Deviation.selector);
        guard.touch(subject, 1);
        _wait(119);
        _is(IGuard.Due.BLOCKED, HealthGuard.Deviation.selector);
        _wait(1);
        _is(IGuard.Due.DUE, 0);
        // But no fill further from the feed than the cap.
        vm.expectRevert();
        _fire();
        venue.setPool(1515e18, 1520e18);
        _wait(480);
        _fire();
        isTrue(_factor() > FLOOR, "restored within the widened bound");
    }

    function test_the_slippage_bound_holds_and_widens() public {
        _price(1590);
        venue.setPool(1550e18, 1590e18); // 2.5 % worse than the feed
        vm.expectRevert();
        _fire();
        guard.touch(subject, 1);
        _wait(600); // 5 %
        int256 before = _equity();
        _fire();
        isTrue(_factor() > FLOOR, "restored");
        uint256 sold = 10e18 - venue.supplied(subject);
        isTrue(before - _equity() <= int256(sold * venue.price() / 1e18 * 500 / 10_000), "loss within the cap");
    }

    function test_a_sequencer_that_is_down_blocks_the_sale() public {
        _price(1590);
        sequencer.push(1, _now());
        _is(IGuard.Due.BLOCKED, OracleGuard.SequencerDown.selector);
    }

    function test_a_venue_that_cannot_be_read_blocks() public {
        _price(1590);
        venue.setTrick(Lending.Trick.UNREADABLE, guard);
        _is(IGuard.Due.BLOCKED, HealthGuard.VenueUnreadable.selector);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.VenueUnreadable.selector, address(venue)));
        _fire();
    }

    // ---- who

    function test_anyone_may_execute_after_the_public_delay_and_is_paid_within_the_caps() public {
        _price(1590);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
        guard.touch(subject, 1);
        _wait(299);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.NotPublicYet.selector, _now() + 1));
        vm.prank(outsider);
        guard.execute(subject, 1);
        _wait(1);
        vm.txGasPrice(100 gwei);
        vm.prank(outsider);
        guard.execute(subject, 1);
        isTrue(outsider.balance > 0 && outsider.balance <= 0.01 ether, "refund");
        isTrue(_factor() > FLOOR, "restored");
    }

    function test_a_dip_that_passed_starts_the_public_delay_anew() public {
        _price(1590);
        guard.touch(subject, 1);
        _wait(200);
        _price(2000);
        guard.touch(subject, 1);
        _price(1590);
        _wait(150);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
    }

    function test_only_the_account_arms_and_cancels() public {
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.NotInstalled.selector, outsider));
        vm.prank(outsider);
        guard.arm(1, _health());
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.Final.selector, outsider, 1));
        vm.prank(outsider);
        guard.cancel(1);
        _as(subject, address(guard), abi.encodeCall(guard.cancel, (1)));
        _price(1590);
        _is(IGuard.Due.FINAL, HealthGuard.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.Final.selector, subject, 1));
        _fire();
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.Final.selector, subject, 1));
        guard.touch(subject, 1);
    }

    function test_it_ends_with_its_expiry_and_with_its_installation() public {
        IHealthGuard.Health memory health = _health();
        health.expiry = uint48(_now() + 10);
        _arm(health);
        _price(1590);
        _is(IGuard.Due.DUE, 0);
        _wait(11);
        _is(IGuard.Due.FINAL, HealthGuard.Final.selector);
    }

    // ---- hostile venue

    function test_a_venue_that_keeps_the_repayment_or_lends_more_is_undone() public {
        usdc.mint(subject, 4000e6);
        _price(1590);
        venue.setTrick(Lending.Trick.KEEP_REPAYMENT, guard);
        IHealthGuard.Health memory health = _health();
        (health.maxTopUp, health.maxUnwind) = (0, 0);
        _arm(health);
        uint256 factor = _factor();
        vm.expectRevert(abi.encodeWithSelector(HealthGuard.NotImproved.selector, factor, factor));
        _fire();
        venue.setTrick(Lending.Trick.LEND_MORE, guard);
        vm.expectRevert();
        _fire();
        eq(usdc.balanceOf(subject), 4000e6, "untouched");
    }

    function test_a_venue_that_calls_back_finds_the_door_shut() public {
        usdc.mint(subject, 4000e6);
        _price(1590);
        venue.setTrick(Lending.Trick.REENTER, guard);
        vm.expectRevert();
        _fire();
    }

    function test_senseless_settings_are_refused() public {
        for (uint256 i = 0; i < 14; ++i) {
            IHealthGuard.Health memory health = _health();
            if (i == 0) health.lending = address(1);
            if (i == 1) health.floor = 1e18;
            if (i == 2) health.target = health.floor;
            if (i == 3) (health.maxRepay, health.maxTopUp, health.maxUnwind) = (0, 0, 0);
            if (i == 4) health.swap = address(1);
            if (i == 5) health.oracle.feed = address(1);
            if (i == 6) health.oracle.heartbeat = 0;
            if (i == 7) health.slippageBps = 501;
            if (i == 8) health.maxSlippageBps = 5001;
            if (i == 9) health.refundBps = 10_001;
            if (i == 10) health.debt = health.collateral;
            if (i == 11) health.oracle.minPrice = 0;
            if (i == 12) health.oracle.sequencerFeed = address(1);
            if (i == 13) health.toleranceBps = 10_001;
            vm.expectRevert(abi.encodeWithSelector(HealthGuard.InvalidHealth.selector, 1));
            _arm(health);
        }
        IHealthGuard.Health memory elsewhere = _health();
        elsewhere.debt = address(new Token("DAI", 18));
        vm.expectRevert();
        _arm(elsewhere);
    }

    // ---- whatever the numbers

    function testFuzz_an_execution_improves_the_health_never_overshoots_and_loses_no_more_than_its_caps(
        uint256 price,
        uint256 debt,
        uint256 idleDebt,
        uint256 idleCollateral,
        uint256 worse
    ) public {
        price = bound(price, 200, 5000);
        debt = bound(debt, 10e6, 80_000e6);
        worse = bound(worse, 0, 99); // at the bound itself rounding decides, for the account
        venue.open(subject, 10e18, debt);
        usdc.mint(subject, bound(idleDebt, 0, 6000e6));
        weth.mint(subject, bound(idleCollateral, 0, 6e18));
        _price(price);
        venue.setPool(price * 1e18 * (10_000 - worse) / 10_000, price * 1e18);
        (IGuard.Due status,) = guard.due(subject, 1);
        uint256 before = _factor();
        isTrue((status != IGuard.Due.NOT_DUE) == (before <= FLOOR), "due at the floor");
        if (status != IGuard.Due.DUE) return;
        int256 equity = _equity();
        uint256 supplied = venue.supplied(subject) + weth.balanceOf(subject);
        uint256 owed = venue.owed(subject);
        _fire();
        isTrue(_factor() > before, "better");
        isTrue(_factor() <= TARGET * 101 / 100, "no overshoot");
        isTrue(venue.owed(subject) <= owed, "no more debt");
        uint256 sold = supplied - venue.supplied(subject) - weth.balanceOf(subject);
        isTrue(sold <= 8e18, "cap");
        // The bound of the first minute, and a unit of rounding in each round.
        int256 most = int256(sold * venue.price() / 1e18 * 100 / 10_000) + 10 * 200;
        isTrue(equity - _equity() <= most, "loss within the slippage bound");
    }
}

contract HealthGuardOnRiskAccountTest is HealthGuardBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(account));
    }

    function test_as_a_declared_guard_it_acts_while_frozen_and_as_another_module_it_does_not() public {
        usdc.mint(subject, 4000e6);
        _price(1590);
        guard.touch(subject, 1);
        _wait(300);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.FROZEN);
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotAGuard.selector, address(guard)));
        vm.prank(outsider);
        guard.execute(subject, 1);
        vm.warp(_now() + 1 days);
        authority.expire(subject);
        _as(subject, address(authority), abi.encodeCall(authority.setGuard, (address(guard), true)));
        vm.warp(_now() + 2 days);
        _price(1590);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.FROZEN);
        guard.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        guard.execute(subject, 1);
        isTrue(_factor() > FLOOR, "restored while frozen");
    }

    function test_gas_of_a_rescue() public {
        usdc.mint(subject, 4000e6);
        _price(1590);
        guard.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        guard.execute(subject, 1);
        vm.snapshotGasLastCall("modules", "HealthGuard.execute by anyone, repayment from the balance");
    }
}

contract HealthGuardOnForeignAccountTest is HealthGuardBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(foreign));
    }
}
