// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IEquityBreaker} from "../src/interfaces/IEquityBreaker.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {HostileVenue, UnreadableCoin} from "./HostileVenue.sol";
import {EquityBreakerBase} from "./EquityBreakerBase.sol";

/// What venues, assets, feeds and strangers of bad faith can do to the measuring of equity.
contract EquityBreakerHostileTest is EquityBreakerBase {
    UnreadableCoin private strange;

    function _subject() internal view override returns (address) {
        return address(account);
    }

    /// A third asset, at one dollar.
    function _breakerConfig() internal view override returns (IEquityBreaker.Config memory config) {
        config = super._breakerConfig();
        IEquityBreaker.Asset[] memory assets = new IEquityBreaker.Asset[](3);
        (assets[0], assets[1]) = (config.assets[0], config.assets[1]);
        assets[2] = IEquityBreaker.Asset(address(strange), address(0), false, _oracle(dollarFeed, 0.98e18, 1.02e18), "");
        config.assets = assets;
    }

    function setUp() public override {
        strange = new UnreadableCoin();
        super.setUp();
        strange.mint(subject, 1000e18);
        _declareExit(address(strange));
    }

    // ---- loans, donations, callbacks

    function _pokeFromTheVenue(int256 lie) private {
        venue.setCallback(address(breaker), abi.encodeCall(breaker.poke, (subject)), lie);
    }

    function test_a_loan_within_an_execution_is_no_equity() public {
        _pokeFromTheVenue(0);
        _execute(subject, address(venue), 0, abi.encodeCall(HostileVenue.lend, (ERC20(dollar), 1_000_000e6)));
        eq(venue.answer(), abi.encodeWithSelector(IEquityBreaker.Executing.selector, subject), "refused");
        eq(_mark(), START, "mark");
        eq(uint256(breaker.standingOf(subject).breachedSince), 0, "no breach");
    }

    function test_a_loan_hides_no_loss() public {
        bytes memory inner = abi.encodePacked(address(venue), uint256(0), _tradeData(20_000, 1000));
        venue.setCallback(address(executor), abi.encodeCall(executor.act, (subject, SINGLE, inner)), 0);
        vm.expectPartialRevert(IEquityBreaker.LossPerOperation.selector);
        _execute(subject, address(venue), 0, abi.encodeCall(HostileVenue.lend, (ERC20(dollar), 1_000_000e6)));
    }

    function test_a_deposit_in_the_middle_of_an_execution_is_refused() public {
        dollar.mint(address(venue), 1e6);
        venue.setCallback(address(breaker), abi.encodeCall(breaker.deposit, (subject, address(dollar), 1e6)), 0);
        _trade(1, 0);
        eq(venue.answer(), abi.encodeWithSelector(IEquityBreaker.Executing.selector, subject), "refused");
    }

    function test_a_donation_raises_no_mark_in_one_block_and_is_the_accounts_in_two() public {
        dollar.mint(subject, 100_000e6);
        breaker.poke(subject);
        breaker.poke(subject);
        eq(_mark(), START, "one block");
        vm.prank(subject);
        dollar.transfer(address(0xBEEF), 99_000e6); // as if it had never been there
        _later(12);
        breaker.poke(subject);
        eq(_mark(), START + 2000e18, "what both blocks saw");
    }

    function test_a_lying_view_deflated_in_a_callback_latches_nothing() public {
        _pokeFromTheVenue(-90_000e18);
        venue.reenter();
        eq(uint256(breaker.standingOf(subject).breachedSince), _now(), "seen");
        _later(30);
        breaker.poke(subject);
        eq(uint256(breaker.standingOf(subject).breachedSince), 0, "an honest look forgets it");
        _later(60);
        _pokeFromTheVenue(-90_000e18);
        venue.reenter();
        _isState(RiskState.ACTIVE, "not latched");
    }

    function test_a_lying_view_inflated_in_a_callback_raises_no_mark() public {
        _pokeFromTheVenue(1_000_000e18);
        venue.reenter();
        _later(12);
        breaker.poke(subject);
        eq(_mark(), START + 1000e18, "the lower of a lie and the truth");
        _later(12);
        _pokeFromTheVenue(1_000_000e18);
        venue.reenter();
        eq(_mark(), START + 1000e18, "and of the truth and a lie");
    }

    function test_a_lying_view_makes_a_deposit_raise_the_mark_by_little_more_than_its_value() public {
        dollar.mint(address(venue), 1000e6);
        vm.prank(address(venue));
        dollar.approve(address(breaker), 1000e6);
        venue.setCallback(
            address(breaker), abi.encodeCall(breaker.deposit, (subject, address(dollar), 1000e6)), -100_999e18
        );
        venue.reenter();
        eq(venue.answer().length, 0, "accepted");
        isTrue(_mark() <= START + 1112e18, "value / (1 - drawdown)");
    }

    function test_a_trade_priced_by_a_lie_is_measured_by_the_oracle() public {
        venue.setPrice(4000e18);
        bytes memory losing = abi.encodeCall(HostileVenue.trade, (ERC20(dollar), 20_000e6, ERC20(asset), 5e18));
        vm.expectPartialRevert(IEquityBreaker.LossPerOperation.selector);
        _execute(subject, address(venue), 0, losing);
    }

    // ---- prices

    function _denied(bytes4 reason) private {
        bytes memory trade = abi.encodeCall(HostileVenue.trade, (ERC20(dollar), 1e6, ERC20(asset), 1e15));
        uint256 before = vm.snapshotState();
        _unknown(reason);
        _execute(subject, address(venue), 0, trade);
        _unknown(reason);
        breaker.poke(subject);
        _withdraw(1000);
        eq(dollar.balanceOf(cold), 1000e6, "exits pass");
        _by(guard, address(venue), trade);
        IPolicyHook.Rule memory rule =
            IPolicyHook.Rule(address(venue), HostileVenue.trade.selector, 2, new IPolicyHook.Condition[][](0));
        IPolicyHook.Settings memory settings = IPolicyHook.Settings(address(authority), 0, true);
        _changeHook(abi.encodeCall(hook.setRule, (rule, true)));
        _changeHook(abi.encodeCall(hook.setSettings, (settings)));
        _execute(subject, address(venue), 0, trade);
        vm.revertToState(before);
    }

    function _changeHook(bytes memory data) private {
        _execute(subject, address(hook), 0, abi.encodeCall(hook.announce, (data)));
        uint256 now_ = _now();
        vm.warp(now_ + CHANGE_DELAY);
        _execute(subject, address(hook), 0, data);
        vm.warp(now_);
    }

    function test_without_a_price_nothing_increases_and_exits_guards_and_reductions_pass() public {
        uint256 fresh = vm.snapshotState();
        vm.warp(_now() + HEARTBEAT + 1);
        _denied(OracleGuard.FeedStale.selector);
        vm.revertToState(fresh);
        _push(assetFeed, 0);
        _denied(OracleGuard.FeedInvalid.selector);
        vm.revertToState(fresh);
        _push(assetFeed, 1);
        _denied(OracleGuard.FeedOutOfBounds.selector);
        vm.revertToState(fresh);
        vm.etch(address(assetFeed), "");
        _denied(OracleGuard.FeedInvalid.selector);
        vm.revertToState(fresh);
        _push(sequencer, 1);
        _denied(OracleGuard.SequencerDown.selector);
        vm.revertToState(fresh);
        _push(sequencer, 1);
        _push(sequencer, 0);
        _denied(OracleGuard.SequencerGrace.selector);
    }

    function test_a_feed_that_lags_behind_the_market_denies_when_it_is_held_against_it() public {
        venue.setPrice(1500e18);
        _trade(1, 0); // not asked for every execution
        (, bytes4 problem, bool confirmed) = breaker.equityOf(subject);
        isTrue(problem == 0 && !confirmed, "not confirmed");
        IEquityBreaker.Config memory config = _breakerConfig();
        config.assets[1].always = true;
        bytes memory data = abi.encodeCall(breaker.configure, (config));
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (data)));
        _later(CHANGE_DELAY);
        venue.setPrice(2000e18);
        _execute(subject, address(breaker), 0, data);
        _trade(1, 0);
        venue.setPrice(1500e18);
        _denied(IEquityBreaker.PricesApart.selector);
    }

    // ---- assets and sources

    function test_an_asset_that_does_not_tell_its_balance_denies_and_no_exit() public {
        for (uint8 trick = 1; trick < 4; ++trick) {
            strange.setTrick(UnreadableCoin.Trick(trick));
            _denied(IEquityBreaker.BalanceUnreadable.selector);
        }
    }

    function test_an_asset_cannot_burn_the_gas_of_an_execution() public {
        strange.setTrick(UnreadableCoin.Trick.BURN_GAS);
        uint256 used = gasleft();
        vm.expectPartialRevert(IEquityBreaker.EquityUnknown.selector);
        _execute(subject, address(venue), 0, "");
        used -= gasleft();
        isTrue(used < 500_000, "bounded");
        strange.setTrick(UnreadableCoin.Trick.BOMB);
        used = gasleft();
        _trade(1, 0);
        used -= gasleft();
        isTrue(used < 1_000_000, "what it returns is not copied");
    }

    function test_a_source_cannot_burn_the_gas_of_an_execution() public {
        venue.setGreedy(true);
        uint256 used = gasleft();
        _unknown(IEquityBreaker.SourceUnreadable.selector);
        breaker.poke(subject);
        used -= gasleft();
        isTrue(used < 2_300_000, "bounded");
        _withdraw(1);
    }

    function test_a_fee_on_transfer_is_lost_and_not_withdrawn() public {
        strange.setFee(1000);
        _execute(subject, address(strange), 0, abi.encodeCall(ERC20.transfer, (cold, 1000e18)));
        _trade(1, 0);
        isTrue(_mark() > START - 900e18 && _mark() < START - 890e18, "what arrived");
    }

    function test_a_hostile_source_that_leaves_between_before_and_after_stops_what_increases() public {
        venue.setCallback(address(venue), abi.encodeCall(venue.setGreedy, (true)), 0);
        bytes memory trade = _tradeData(1, 0);
        _unknown(IEquityBreaker.SourceUnreadable.selector);
        _execute(subject, address(venue), 0, trade);
    }
}
