// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {Execution, IERC7579ModuleConfig} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IEquityBreaker} from "../src/interfaces/IEquityBreaker.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {HostileVenue} from "./HostileVenue.sol";
import {EquityBreakerBase} from "./EquityBreakerBase.sol";

/// What every hooked account gets of the breaker; once on ours and once on OpenZeppelin's.
abstract contract EquityBreakerBehaviour is EquityBreakerBase {
    function _announcedCall(bytes memory data) internal {
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (data)));
        _later(CHANGE_DELAY);
        _execute(subject, address(breaker), 0, data);
    }

    function _thaw(RiskState to) internal {
        (, uint64 epoch) = authority.stateOf(subject);
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256("Thaw(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)"),
                subject,
                to,
                epoch,
                authority.nonceOf(subject),
                uint48(_now() + 1 hours)
            )
        );
        (address[] memory signers, bytes[] memory signatures) = _guardians(2, structHash);
        authority.requestThaw(subject, to, uint48(_now() + 1 hours), signers, signatures);
        _later(1 hours);
        authority.thaw(subject);
    }

    // ---- loss per operation

    function test_the_equity_is_what_the_account_holds_at_the_oracles_prices() public {
        eq(_equity(), START, "two assets");
        eq(_mark(), START, "mark");
        venue.setWorth(subject, -1000e18);
        eq(_equity(), START - 1000e18, "a source may owe");
        venue.setWorth(subject, -int256(START) * 2);
        eq(_equity(), 0, "never below nothing");
    }

    function test_a_loss_above_the_bound_reverts_and_one_at_the_bound_passes() public {
        bytes memory losing = _tradeData(10_010, 1000);
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.LossPerOperation.selector, 1001e18, 1000e18));
        _execute(subject, address(venue), 0, losing);
        _trade(10_000, 1000);
        eq(_equity(), START - 1000e18, "one percent");
    }

    function test_nested_executions_are_measured_once_at_the_outermost() public {
        bytes memory inner = abi.encodePacked(address(venue), uint256(0), _tradeData(6000, 1000));
        venue.setCallback(address(executor), abi.encodeCall(executor.act, (subject, SINGLE, inner)), 0);
        bytes memory outer = _tradeData(6000, 1000);
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.LossPerOperation.selector, 1200e18, 1000e18));
        _execute(subject, address(venue), 0, outer);
        _trade(4000, 1000);
        eq(_equity(), START - 1000e18, "400 and 600");
    }

    function test_an_executor_is_bound_like_the_owner() public {
        bytes memory losing = _tradeData(10_010, 1000);
        vm.expectPartialRevert(IEquityBreaker.LossPerOperation.selector);
        _by(executor, address(venue), losing);
    }

    function test_what_is_sent_to_anybody_but_an_exit_is_lost() public {
        vm.expectPartialRevert(IEquityBreaker.LossPerOperation.selector);
        _execute(subject, address(dollar), 0, abi.encodeCall(ERC20.transfer, (address(0xBEEF), 1001e6)));
    }

    // ---- withdrawals and deposits

    function test_a_withdrawal_is_no_loss_and_the_references_shrink_with_it() public {
        _trade(10_000, 500);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(dollar), 0, _withdrawal(19_900));
        calls[1] = Execution(address(dollar), 0, abi.encodeCall(ERC20.transfer, (address(0xBEEF), 1e6)));
        _batch(BATCH, calls);
        _near(_mark(), START * 4 / 5, "a fifth of 99,500 left");
        _near(breaker.standingOf(subject).dayReference, START * 4 / 5, "the day's too");
        _isState(RiskState.ACTIVE, "no drawdown");
    }

    function test_a_withdrawal_alone_needs_no_price_and_is_settled_by_the_next_look() public {
        vm.warp(_now() + 2 * HEARTBEAT);
        _withdraw(30_000);
        eq(_mark(), START, "not yet");
        _later(1);
        breaker.poke(subject);
        _near(_mark(), START * 7 / 10, "three tenths less");
        _isState(RiskState.ACTIVE, "no drawdown");
        _withdraw(7000);
        _trade(100, 0);
        _near(_mark(), START * 63 / 100, "an execution settles too");
    }

    function test_an_exit_that_does_not_happen_hides_no_loss() public {
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(dollar), 0, _withdrawal(1_000_000));
        calls[1] = Execution(address(venue), 0, _tradeData(20_000, 1000));
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.LossPerOperation.selector, 2000e18, 1000e18));
        _batch(BATCH_TRY, calls);
        eq(_mark(), START, "mark");
    }

    function test_a_deposit_is_no_gain_and_the_references_grow_with_it() public {
        _trade(10_000, 1000);
        dollar.mint(address(this), 99_000e6);
        dollar.approve(address(breaker), 99_000e6);
        breaker.deposit(subject, address(dollar), 99_000e6);
        _near(_mark(), 2 * START, "doubled");
        eq(_equity(), 198_000e18, "equity");
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.NotAnAsset.selector, address(0xBEEF)));
        breaker.deposit(subject, address(0xBEEF), 1);
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.NotAnAsset.selector, address(dollar)));
        breaker.deposit{value: 1}(subject, address(dollar), 1);
    }

    // ---- day and drawdown

    function test_a_day_loss_commits_and_latches() public {
        for (uint256 i = 0; i < 5; ++i) {
            _trade(9000, 1000);
            _isState(RiskState.ACTIVE, "within the day");
        }
        uint256 held = asset.balanceOf(subject);
        _execute(subject, address(venue), 0, abi.encodeCall(HostileVenue.trade, (ERC20(asset), 2e18, dollar, 3100e6)));
        _isState(RiskState.REDUCE_ONLY, "latched");
        eq(asset.balanceOf(subject), held - 2e18, "the execution stands");
        bytes memory trade = _tradeData(1, 0);
        vm.expectPartialRevert(bytes4(keccak256(bytes(_refusal()))));
        _execute(subject, address(venue), 0, trade);
        _withdraw(100);
        vm.warp(_now() + 30 days);
        vm.expectRevert(abi.encodeWithSignature("NothingPending()"));
        authority.expire(subject);
    }

    /// The error of a call that is no exit while the account is not ACTIVE.
    function _refusal() internal pure virtual returns (string memory);

    function test_a_new_day_begins_with_its_first_look_after_yesterdays_was_judged() public {
        _later(1 days);
        _price(1900);
        _trade(1, 0);
        _near(breaker.standingOf(subject).dayReference, 97_500e18, "today's");
        _later(1 days);
        _price(1690);
        breaker.poke(subject);
        eq(uint256(breaker.standingOf(subject).breachedSince), _now(), "5.4 % below yesterday's");
        _later(60);
        breaker.poke(subject);
        _isState(RiskState.REDUCE_ONLY, "latched by the day");
    }

    function test_a_stranger_latches_a_drawdown_that_lasts() public {
        _price(1590);
        vm.prank(address(0xBEEF));
        breaker.poke(subject);
        _isState(RiskState.ACTIVE, "seen once");
        _later(59);
        breaker.poke(subject);
        _isState(RiskState.ACTIVE, "patience");
        _later(1);
        vm.prank(address(0xBEEF));
        breaker.poke(subject);
        _isState(RiskState.FROZEN, "latched");
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.NotActive.selector, RiskState.FROZEN));
        breaker.poke(subject);
    }

    function test_a_breach_that_does_not_last_is_forgotten() public {
        _price(1590);
        breaker.poke(subject);
        _later(60);
        _price(2000);
        breaker.poke(subject);
        _later(60);
        _price(1590);
        breaker.poke(subject);
        _isState(RiskState.ACTIVE, "anew");
        _later(2 hours);
        breaker.poke(subject);
        _isState(RiskState.ACTIVE, "a record that nobody confirmed in time begins anew");
    }

    function test_the_mark_rises_to_what_two_blocks_saw_and_both_sources() public {
        _price(3000);
        breaker.poke(subject);
        breaker.poke(subject);
        eq(_mark(), START, "one block");
        _later(12);
        _price(2800);
        breaker.poke(subject);
        eq(_mark(), 120_000e18, "the lower of both");
        _later(12);
        _price(4000);
        venue.setPrice(3000e18);
        breaker.poke(subject);
        _later(12);
        breaker.poke(subject);
        eq(_mark(), 120_000e18, "the sources are apart");
    }

    function test_after_a_thaw_the_drawdown_rests_until_a_new_mark_can_be_set() public {
        _price(1590);
        _trade(1, 0);
        _isState(RiskState.FROZEN, "latched");
        _thaw(RiskState.ACTIVE);
        breaker.poke(subject);
        _isState(RiskState.ACTIVE, "rests");
        uint256 until = breaker.standingOf(subject).restUntil;
        eq(until, _now() + CHANGE_DELAY + breaker.REST(), "rest");
        bytes memory reset = abi.encodeCall(breaker.resetMark, ());
        vm.expectPartialRevert(IEquityBreaker.NotAnnounced.selector);
        _execute(subject, address(breaker), 0, reset);
        uint256 before = vm.snapshotState();
        _announcedCall(reset);
        _near(_mark(), 89_750e18, "anew");
        vm.revertToState(before);
        _later(CHANGE_DELAY + breaker.REST());
        _trade(1, 0);
        _isState(RiskState.FROZEN, "latched again");
    }

    function test_while_it_rests_a_day_loss_still_latches() public {
        _price(1590);
        _trade(1, 0);
        _thaw(RiskState.ACTIVE);
        _trade(1, 0);
        _price(1300);
        _trade(1, 0);
        _isState(RiskState.REDUCE_ONLY, "by the day");
    }

    function test_a_mark_set_in_the_middle_of_an_execution_begins_with_what_it_leaves() public {
        bytes memory reset = abi.encodeCall(breaker.resetMark, ());
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (reset)));
        _later(CHANGE_DELAY);
        Execution[] memory calls = new Execution[](3);
        calls[0] = Execution(address(venue), 0, _tradeData(50_000, 9000));
        calls[1] = Execution(address(breaker), 0, reset);
        calls[2] = Execution(
            address(venue), 0, abi.encodeCall(HostileVenue.trade, (ERC20(asset), 0, ERC20(dollar), 45_000e6))
        );
        _batch(BATCH, calls);
        eq(_mark(), START, "nothing was lost in the end");
    }

    // ---- exits and guards

    function test_a_guard_acts_whatever_it_costs_and_in_every_state() public {
        _by(guard, address(venue), _tradeData(20_000, 1000));
        _isState(RiskState.ACTIVE, "not judged");
        vm.warp(_now() + 2 * HEARTBEAT);
        _by(guard, address(venue), _tradeData(100, 0));
        _price(1500);
        _trade(1, 0);
        _isState(RiskState.FROZEN, "what it lost counts from then on");
        _by(guard, address(venue), _tradeData(100, 0));
    }

    function test_what_must_be_measured_cannot_hide_in_a_guards_execution() public {
        bytes memory inner = abi.encodePacked(address(venue), uint256(0), _tradeData(100, 0));
        venue.setCallback(address(executor), abi.encodeCall(executor.act, (subject, SINGLE, inner)), 0);
        bytes memory outer = _tradeData(100, 0);
        vm.expectRevert(IEquityBreaker.NotMeasured.selector);
        _by(guard, address(venue), outer);
    }

    function test_a_guards_freeze_lasts_only_tightens_and_takes_no_way_back_away() public {
        vm.expectRevert(abi.encodeWithSignature("NotGuardian(address)", address(executor)));
        vm.prank(address(executor));
        authority.freeze(subject, RiskState.FROZEN);
        vm.prank(address(guard));
        authority.freeze(subject, RiskState.REDUCE_ONLY);
        vm.prank(address(guard));
        vm.expectPartialRevert(bytes4(keccak256("WrongDirection(uint8,uint8)")));
        authority.freeze(subject, RiskState.REDUCE_ONLY);
        _execute(subject, address(authority), 0, abi.encodeCall(authority.startEscape, ()));
        (,, uint48 escapeAt,) = authority.pendingOf(subject);
        vm.prank(address(guard));
        authority.freeze(subject, RiskState.FROZEN);
        (,, uint48 still, uint48 soloUntil) = authority.pendingOf(subject);
        eq(still, escapeAt, "the escape goes on");
        eq(soloUntil, 0, "and no time ends it but that");
        vm.warp(escapeAt);
        authority.finishEscape(subject);
        _isState(RiskState.REDUCE_ONLY, "one step looser");
    }

    // ---- configuration

    function test_only_the_hook_reports() public {
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.NotHook.selector, address(this)));
        breaker.enter(subject, true);
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.NotHook.selector, address(this)));
        breaker.leave(subject, true, true);
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.NotHook.selector, address(this)));
        breaker.exiting(subject, cold, 1, "");
    }

    function test_changes_wait_for_their_delay_and_can_be_cancelled() public {
        IEquityBreaker.Config memory config = _breakerConfig();
        config.settings.lossPerOperationBps = 10_000;
        bytes memory data = abi.encodeCall(breaker.configure, (config));
        vm.expectPartialRevert(IEquityBreaker.NotAnnounced.selector);
        _execute(subject, address(breaker), 0, data);
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (data)));
        vm.expectPartialRevert(IEquityBreaker.AlreadyAnnounced.selector);
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (data)));
        vm.expectPartialRevert(IEquityBreaker.TooEarly.selector);
        _execute(subject, address(breaker), 0, data);
        vm.expectPartialRevert(IEquityBreaker.NotInstalled.selector);
        breaker.cancel(subject, keccak256(data));
        uint256 announced = vm.snapshotState();
        vm.prank(address(authority));
        breaker.cancel(subject, keccak256(data));
        _later(CHANGE_DELAY);
        vm.expectPartialRevert(IEquityBreaker.NotAnnounced.selector);
        _execute(subject, address(breaker), 0, data);
        vm.revertToState(announced);
        _later(CHANGE_DELAY);
        _execute(subject, address(breaker), 0, data);
        (, IEquityBreaker.Config memory kept) = breaker.configOf(subject);
        eq(abi.encode(kept), abi.encode(config), "configured");
        _trade(20_000, 1000);
    }

    function test_a_change_of_what_counts_is_no_loss_and_hides_none() public {
        IEquityBreaker.Config memory config = _breakerConfig();
        IEquityBreaker.Asset[] memory one = new IEquityBreaker.Asset[](1);
        one[0] = config.assets[0];
        config.assets = one;
        bytes memory data = abi.encodeCall(breaker.configure, (config));
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (data)));
        _later(CHANGE_DELAY);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(venue), 0, _tradeData(20_000, 1000));
        calls[1] = Execution(address(breaker), 0, data);
        vm.expectPartialRevert(IEquityBreaker.LossPerOperation.selector);
        _batch(BATCH, calls);
        (calls[0], calls[1]) = (calls[1], calls[0]);
        vm.expectPartialRevert(IEquityBreaker.LossPerOperation.selector);
        _batch(BATCH, calls);
        _execute(subject, address(breaker), 0, data);
        eq(_mark(), 50_000e18, "the dollars alone");
    }

    function test_the_first_breaker_needs_no_announcement_and_none_is_dropped_without() public {
        eq(hook.breakerOf(subject), address(breaker), "set in setUp");
        bytes memory drop = abi.encodeCall(hook.setBreaker, (address(0)));
        vm.expectPartialRevert(IPolicyHook.NotAnnounced.selector);
        _execute(subject, address(hook), 0, drop);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.announce, (drop)));
        _later(CHANGE_DELAY);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(hook), 0, drop);
        calls[1] = Execution(address(venue), 0, _tradeData(20_000, 1000));
        vm.expectRevert(IPolicyHook.NotAlone.selector);
        _batch(BATCH, calls);
        _execute(subject, address(hook), 0, drop);
        eq(hook.breakerOf(subject), address(0), "dropped");
        _trade(20_000, 1000);
    }

    function test_a_configuration_that_cannot_hold_is_refused() public {
        for (uint256 i = 0; i < 9; ++i) {
            IEquityBreaker.Config memory config = _breakerConfig();
            if (i == 0) config.settings.hook = address(0xD00D);
            if (i == 1) config.settings.authority = address(0);
            if (i == 2) config.settings.drawdownBps = 10_001;
            if (i == 3) config.settings.onDayLoss = RiskState.ACTIVE;
            if (i == 4) config.assets[1].token = address(dollar);
            if (i == 5) config.assets[0].oracle.feed = address(0xD00D);
            if (i == 6) config.assets[0].always = true;
            if (i == 7) config.sources[0] = address(0xD00D);
            if (i == 8) config.assets = new IEquityBreaker.Asset[](17);
            bytes memory data = abi.encode(config);
            vm.prank(address(0xACC));
            vm.expectRevert(IEquityBreaker.InvalidConfig.selector);
            breaker.onInstall(data);
        }
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.AlreadyInstalled.selector, subject));
        vm.prank(subject);
        breaker.onInstall("");
    }

    function test_an_authority_that_does_not_obey_stops_the_execution() public {
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setGuard, (address(breaker), false)));
        _price(1590);
        bytes memory trade = _tradeData(1, 0);
        vm.expectRevert(abi.encodeWithSignature("NotGuardian(address)", address(breaker)));
        _execute(subject, address(venue), 0, trade);
    }

    function test_without_its_breaker_module_the_hook_goes_on() public {
        _uninstallBreaker();
        _trade(20_000, 1000);
        vm.expectPartialRevert(IEquityBreaker.NotInstalled.selector);
        breaker.poke(subject);
    }

    function _uninstallBreaker() internal virtual;

    // ---- fuzz

    function testFuzz_no_execution_loses_more_than_its_bound(uint256 dollars, uint256 bps, uint256 price, bool byModule)
        public
    {
        _price(int256(bound(price, 1700, 10_000)));
        uint256 before = _equity();
        bytes memory data = _tradeData(bound(dollars, 1, 50_000), bound(bps, 0, 10_000));
        vm.prank(byModule ? address(executor) : address(ENTRY_POINT));
        (bool success,) = subject.call(
            abi.encodeWithSignature(
                byModule ? "executeFromExecutor(bytes32,bytes)" : "execute(bytes32,bytes)",
                SINGLE,
                abi.encodePacked(address(venue), uint256(0), data)
            )
        );
        uint256 lost = before > _equity() ? before - _equity() : 0;
        isTrue(lost <= before / 100, "lost more");
        if (!success) eq(lost, 0, "reverted");
    }

    function testFuzz_flows_leave_the_drawdown_as_it_was(uint256 loss, uint256 out, uint256 back) public {
        _trade(bound(loss, 1, 10_000), 1000);
        uint256 ratio = _equity() * 1e18 / _mark();
        _withdraw(bound(out, 1, 39_000));
        _later(1);
        breaker.poke(subject);
        _near(_equity() * 1e18 / _mark(), ratio, "after a withdrawal");
        back = bound(back, 1, 1_000_000) * 1e6;
        dollar.mint(address(this), back);
        dollar.approve(address(breaker), back);
        breaker.deposit(subject, address(dollar), back);
        _near(_equity() * 1e18 / _mark(), ratio, "after a deposit");
    }
}

contract EquityBreakerTest is EquityBreakerBehaviour {
    function _subject() internal view override returns (address) {
        return address(account);
    }

    function _refusal() internal pure override returns (string memory) {
        return "NotPermitted(uint8,address,uint256,bytes)";
    }

    function _uninstallBreaker() internal override {
        bytes memory data = abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (2, address(breaker), ""));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (data)));
        _later(DELAY);
        account.executeAdmin(data);
    }
}

contract EquityBreakerOnForeignAccountTest is EquityBreakerBehaviour {
    function _subject() internal override returns (address) {
        _install(address(foreign), 2, address(authority), abi.encode(_freezeData()));
        return address(foreign);
    }

    function _refusal() internal pure override returns (string memory) {
        return "NotPermitted(address,bytes4)";
    }

    function _uninstallBreaker() internal override {
        _op(subject, abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (2, address(breaker), "")));
    }
}
