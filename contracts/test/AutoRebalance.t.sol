// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {IAutoRebalance} from "../src/interfaces/IAutoRebalance.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {AutoRebalance} from "../src/modules/AutoRebalance.sol";
import {BasketConfig} from "../src/modules/rebalance/BasketConfig.sol";
import {Base} from "./Base.sol";
import {Exchange} from "./Exchange.sol";
import {Token} from "./Lending.sol";
import {HostileCoin} from "./Tokens.sol";
import {Vm} from "./Vm.sol";

/// A basket of 100,000 dollars: half ETH at 2,000, 30 % BTC at 40,000, 20 % dollars; bands of 5 %, slippage of 1 %.
abstract contract RebalanceRig is Base {
    address internal subject;
    AutoRebalance internal guard;
    Exchange internal venue;
    Token internal weth;
    Token internal wbtc;
    Token internal usdc;
    ReplayFeed internal ethFeed;
    ReplayFeed internal btcFeed;
    ReplayFeed internal usdFeed;
    ReplayFeed internal sequencer;
    address internal outsider = address(0x0075);

    function _begin(address on) internal {
        subject = on;
        guard = new AutoRebalance();
        venue = new Exchange(guard);
        (weth, wbtc, usdc) = (new Token("WETH", 18), new Token("WBTC", 8), new Token("USDC", 6));
        (ethFeed, btcFeed) = (_feed("ETH / USD"), _feed("BTC / USD"));
        usdFeed = _feed("USDC / USD");
        sequencer = new ReplayFeed(address(this), 0, "sequencer");
        sequencer.push(0, _now() - 1 days);
        venue.setPool(500, 0, 0, 0);
        venue.setPool(3000, 20, 0, 0);
        _prices(2000, 40_000);
        weth.mint(subject, 25e18);
        wbtc.mint(subject, 0.75e8);
        usdc.mint(subject, 20_000e6);
        _install(subject, 2, address(guard), "");
        _arm(_basket());
    }

    function _feed(string memory name) internal returns (ReplayFeed) {
        return new ReplayFeed(address(this), 8, name);
    }

    function _oracle(ReplayFeed feed) internal view returns (OracleConfig memory) {
        return OracleConfig({
            feed: address(feed),
            heartbeat: 3600,
            sequencerFeed: address(sequencer),
            gracePeriod: 900,
            minPrice: 0.1e18,
            maxPrice: 1_000_000e18,
            maxDeviationBps: 200,
            deviationPatience: 0
        });
    }

    function _asset(Token token, uint16 targetBps, ReplayFeed feed)
        internal
        view
        returns (IAutoRebalance.Asset memory asset)
    {
        (asset.token, asset.targetBps, asset.bandBps, asset.oracle) = (address(token), targetBps, 500, _oracle(feed));
        asset.pools[0] = IAutoRebalance.Pool(address(venue), 500);
        asset.pools[1] = IAutoRebalance.Pool(address(venue), 3000);
    }

    function _basket() internal view returns (IAutoRebalance.Basket memory basket) {
        basket = IAutoRebalance.Basket({
            authority: address(authority),
            cash: address(usdc),
            cashBandBps: 500,
            cashOracle: _oracle(usdFeed),
            onDrift: true,
            calendar: IPolicyHook.Span.NONE,
            offsetMinutes: 0,
            minTrade: 100e18,
            maxTurnover: 50_000e18,
            turnoverSeconds: 1 days,
            slippageBps: 100,
            cooldown: 60,
            publicDelay: 300,
            refundBps: 10_000,
            refundCap: 0.01 ether,
            expiry: 0,
            assets: new IAutoRebalance.Asset[](2)
        });
        basket.assets[0] = _asset(weth, 5000, ethFeed);
        basket.assets[1] = _asset(wbtc, 3000, btcFeed);
    }

    function _prices(uint256 eth, uint256 btc) internal {
        ethFeed.push(int256(eth * 1e8), _now());
        btcFeed.push(int256(btc * 1e8), _now());
        usdFeed.push(1e8, _now());
        venue.setPrice(address(weth), eth * 1e18);
        venue.setPrice(address(wbtc), btc * 1e18);
        venue.setPrice(address(usdc), 1e18);
    }

    function _arm(IAutoRebalance.Basket memory basket) internal {
        _as(subject, address(guard), abi.encodeCall(guard.arm, (1, basket)));
    }

    function _fire() internal {
        _as(subject, address(guard), abi.encodeCall(guard.execute, (subject, 1)));
    }

    function _wait(uint256 duration) internal {
        vm.warp(_now() + duration);
        _renew(ethFeed);
        _renew(btcFeed);
        _renew(usdFeed);
    }

    function _renew(ReplayFeed feed) private {
        (, int256 answer,,,) = feed.latestRoundData();
        feed.push(answer, _now());
    }

    function _is(IGuard.Due wanted, bytes4 why) internal view {
        (IGuard.Due status, bytes4 reason) = guard.due(subject, 1);
        eq(uint256(status), uint256(wanted), "due");
        eq(bytes32(reason), bytes32(why), "reason");
    }

    function _values() internal view returns (uint256[] memory values, uint256 equity) {
        (values,) = guard.valuesOf(subject, 1);
        for (uint256 i = 0; i < values.length; ++i) {
            equity += values[i];
        }
    }

    /// Whether every weight is inside its band of 5 %.
    function _balanced() internal view returns (bool) {
        (uint256[] memory values, uint256 equity) = _values();
        uint256[3] memory targets = [uint256(5000), 3000, 2000];
        for (uint256 i = 0; i < 3; ++i) {
            uint256 target = equity * targets[i];
            uint256 value = values[i] * 10_000;
            if ((value > target ? value - target : target - value) > equity * 500) return false;
        }
        return true;
    }
}

/// One suite, run on our account and on OpenZeppelin's.
abstract contract AutoRebalanceBehaviour is RebalanceRig {
    // ---- when

    function test_inside_the_bands_nothing_happens_and_outside_every_weight_is_brought_back() public {
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NotDue.selector, subject, 1));
        _fire();
        // 62,500 of 112,500 is 55.6 %
        _prices(2500, 40_000);
        _is(IGuard.Due.DUE, 0);
        _fire();
        (uint256[] memory values, uint256 equity) = _values();
        isTrue(equity >= 112_499e18, "at the oracle's price nothing is lost");
        isTrue(values[0] > 56_249e18 && values[0] < 56_251e18, "half");
        isTrue(values[1] > 33_749e18 && values[1] < 33_751e18, "30 %");
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
    }

    function test_at_the_edge_of_the_band_it_is_inside_and_beyond_it_outside() public {
        // 55,000 of 100,000: exactly 5 % over
        weth.mint(subject, 2.5e18);
        _as(subject, address(usdc), abi.encodeCall(usdc.transfer, (address(1), 5000e6)));
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
        weth.mint(subject, 0.001e18);
        _is(IGuard.Due.DUE, 0);
    }

    function test_too_much_or_too_little_cash_is_a_drift_too() public {
        usdc.mint(subject, 7000e6);
        _is(IGuard.Due.DUE, 0);
        _fire();
        isTrue(_balanced(), "spent on the others");
        uint256 held = usdc.balanceOf(subject);
        _as(subject, address(usdc), abi.encodeCall(usdc.transfer, (address(1), held - 10_000e6)));
        _wait(60);
        _is(IGuard.Due.DUE, 0);
        _fire();
        isTrue(_balanced(), "raised from the others");
    }

    function test_an_empty_basket_and_one_that_is_off_by_less_than_the_least_trade_are_not_due() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.minTrade = 20_000e18;
        _arm(basket);
        _prices(2500, 40_000);
        _is(IGuard.Due.NOT_DUE, AutoRebalance.BelowMinimum.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.BelowMinimum.selector, subject, 1));
        _fire();
        _arm(_basket());
        for (uint256 i = 0; i < 3; ++i) {
            Token token = [weth, wbtc, usdc][i];
            uint256 held = token.balanceOf(subject);
            _as(subject, address(token), abi.encodeCall(token.transfer, (address(1), held)));
        }
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
    }

    function test_a_new_calendar_month_makes_it_due_once() public {
        IAutoRebalance.Basket memory basket = _basket();
        (basket.onDrift, basket.calendar) = (false, IPolicyHook.Span.MONTH);
        _arm(basket);
        _prices(2100, 40_000); // 51.2 %: inside the band
        _is(IGuard.Due.DUE, 0); // never executed: at once
        _fire();
        _prices(4000, 40_000);
        _wait(15 days); // 2023-11-29: drift is not asked
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
        _arm(basket); // arming again does not make the period new
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
        _wait(2 days);
        _is(IGuard.Due.DUE, 0);
        _fire();
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NotDue.selector, subject, 1));
        _fire();
    }

    function test_calendar_days_begin_at_the_offset() public {
        IAutoRebalance.Basket memory basket = _basket();
        (basket.calendar, basket.offsetMinutes) = (IPolicyHook.Span.DAY, -120);
        _arm(basket);
        _prices(2100, 40_000);
        _fire();
        _prices(2200, 40_000);
        // 1,700,000,000 is 22:13:20 UTC; the day of UTC-2 begins at 02:00.
        _wait(3 hours + 46 minutes + 39 seconds);
        _is(IGuard.Due.NOT_DUE, AutoRebalance.NotDue.selector);
        _wait(1);
        _is(IGuard.Due.DUE, 0);
    }

    // ---- how much

    function test_the_turnover_cap_cuts_every_trade_alike_and_frees_with_its_window() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.maxTurnover = 4000e18;
        _arm(basket);
        _prices(3000, 40_000); // 12,500 over in ETH
        uint256 before = weth.balanceOf(subject);
        _fire();
        uint256 sold = (before - weth.balanceOf(subject)) * 3000 / 1e18;
        isTrue(sold > 2000 && sold < 4000, "part of it");
        (, uint256 left) = guard.valuesOf(subject, 1);
        isTrue(left < 2e18, "used up");
        _wait(60);
        _is(IGuard.Due.BLOCKED, AutoRebalance.TurnoverUsed.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.TurnoverUsed.selector, left));
        _fire();
        _arm(basket);
        _is(IGuard.Due.BLOCKED, AutoRebalance.TurnoverUsed.selector); // arming again frees nothing
        _wait(1 days + 4 hours + 7);
        _is(IGuard.Due.DUE, 0);
        _fire();
    }

    function test_a_trade_below_the_least_is_left_out_and_said() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.minTrade = 3000e18;
        _arm(basket);
        _prices(2500, 40_000); // 6,250 of ETH over, 3,750 of BTC and 2,500 of dollars under
        vm.recordLogs();
        _fire();
        (,,, bool limited) = _rebalanced();
        isTrue(!limited, "both of at least 3,000");
        weth.mint(subject, 7e18); // 17,500 more: 8,750 over; 5,250 under
        basket.minTrade = 6000e18;
        _arm(basket);
        _wait(60);
        vm.recordLogs();
        uint256 btc = wbtc.balanceOf(subject);
        _fire();
        (,,, limited) = _rebalanced();
        isTrue(limited, "said");
        eq(wbtc.balanceOf(subject), btc, "left out");
    }

    function _rebalanced() internal returns (uint256 before, uint256 afterwards, uint256 turnover, bool limited) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != IAutoRebalance.Rebalanced.selector) continue;
            return abi.decode(logs[i].data, (uint256, uint256, uint256, bool));
        }
        isTrue(false, "no event");
    }

    function test_the_cool_down_holds_and_each_execution_is_an_arming_of_its_own() public {
        _prices(2500, 40_000);
        (,, uint256 arming,,) = guard.basketOf(subject, 1);
        _fire();
        (,, uint256 next,,) = guard.basketOf(subject, 1);
        eq(next, arming + 1, "arming");
        _prices(4000, 40_000);
        _is(IGuard.Due.BLOCKED, AutoRebalance.CoolingDown.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.CoolingDown.selector, _now() + 60));
        _fire();
        _wait(60);
        _fire();
    }

    // ---- where

    function test_the_pool_that_quotes_best_is_taken() public {
        _prices(2500, 40_000);
        _fire();
        eq(venue.lastFee(), 500, "the better");
        venue.setPool(500, 50, 0, 0);
        _prices(3200, 40_000);
        _wait(60);
        _fire();
        eq(venue.lastFee(), 3000, "the other now");
    }

    function test_a_pool_that_is_away_from_the_oracle_or_does_not_answer_is_passed_over() public {
        venue.setPool(500, 0, 0, 201);
        _prices(2500, 40_000);
        _fire();
        eq(venue.lastFee(), 3000, "mean too far");
        venue.setPool(500, 0, 0, 200);
        _prices(3200, 40_000);
        _wait(60);
        _fire();
        eq(venue.lastFee(), 500, "at the limit it agrees");
        venue.setTrick(500, Exchange.Trick.NONE, true, false);
        _prices(4000, 40_000);
        _wait(60);
        _fire();
        eq(venue.lastFee(), 3000, "no quote");
        venue.setTrick(500, Exchange.Trick.NONE, false, true);
        _prices(5000, 40_000);
        _wait(1 days);
        _fire();
        eq(venue.lastFee(), 3000, "no mean");
    }

    function test_when_no_pool_agrees_it_waits_and_when_none_fills_within_the_bound_too() public {
        venue.setPool(500, 0, 0, 201);
        venue.setPool(3000, 0, 0, -201);
        _prices(2500, 40_000);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Deviation.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.Deviation.selector, subject, 1));
        _fire();
        venue.setTrick(500, Exchange.Trick.NONE, false, true);
        venue.setTrick(3000, Exchange.Trick.NONE, false, true);
        _is(IGuard.Due.BLOCKED, AutoRebalance.VenueUnreadable.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.VenueUnreadable.selector, subject, 1));
        _fire();
        venue.setTrick(500, Exchange.Trick.NONE, false, false);
        venue.setTrick(3000, Exchange.Trick.NONE, false, false);
        venue.setPool(500, 101, 0, 0);
        venue.setPool(3000, 200, 0, 0);
        _is(IGuard.Due.DUE, 0);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NoRoute.selector, subject, 1));
        _fire();
    }

    function test_when_a_sale_finds_no_route_nothing_is_bought_below_the_cash_s_target() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.assets[0].pools[0].fee = 100;
        basket.assets[0].pools[1] = IAutoRebalance.Pool(address(0), 0);
        venue.setPool(100, 500, 0, 0);
        _arm(basket);
        _prices(2500, 40_000); // ETH over, BTC and cash under: BTC could be bought, but not with what must stay
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NoRoute.selector, subject, 1));
        _fire();
        venue.setPool(100, 500, 0, 300);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Deviation.selector);
    }

    // ---- prices

    function test_every_feed_of_the_basket_is_guarded() public {
        _prices(2500, 40_000);
        ReplayFeed[3] memory feeds = [ethFeed, btcFeed, usdFeed];
        for (uint256 i = 0; i < 3; ++i) {
            uint256 state = vm.snapshotState();
            feeds[i].push(0, _now());
            _is(IGuard.Due.BLOCKED, OracleGuard.FeedInvalid.selector);
            vm.expectRevert(
                abi.encodeWithSelector(AutoRebalance.OracleProblem.selector, OracleGuard.FeedInvalid.selector)
            );
            _fire();
            vm.expectRevert(
                abi.encodeWithSelector(AutoRebalance.OracleProblem.selector, OracleGuard.FeedInvalid.selector)
            );
            guard.valuesOf(subject, 1);
            guard.touch(subject, 1); // nothing is learnt
            feeds[i].push(2_000_000e8, _now());
            _is(IGuard.Due.BLOCKED, OracleGuard.FeedOutOfBounds.selector);
            vm.revertToState(state);
        }
        vm.warp(_now() + 3601);
        _is(IGuard.Due.BLOCKED, OracleGuard.FeedStale.selector);
        _wait(0);
        sequencer.push(1, _now());
        _is(IGuard.Due.BLOCKED, OracleGuard.SequencerDown.selector);
        sequencer.push(0, _now());
        _is(IGuard.Due.BLOCKED, OracleGuard.SequencerGrace.selector);
    }

    function test_the_cash_s_own_price_counts_and_without_a_feed_it_is_one() public {
        usdFeed.push(0.5e8, _now());
        venue.setPrice(address(usdc), 0.5e18);
        _is(IGuard.Due.DUE, 0); // 10,000 of 90,000 is 11 %
        _fire();
        isTrue(_balanced(), "weighed at half a dollar");
        IAutoRebalance.Basket memory basket = _basket();
        delete basket.cashOracle;
        _arm(basket);
        (uint256[] memory values,) = _values();
        eq(values[2], usdc.balanceOf(subject) * 1e12, "one");
    }

    function test_a_quote_decides_where_and_never_at_what_price() public {
        venue.setPool(500, 150, 300, 0); // says 1.5 % better than fair, fills 1.5 % worse
        _prices(2500, 40_000);
        vm.expectRevert(); // TooLittle, of the pool
        _fire();
        venue.setPool(500, 99, 300, 0);
        (, uint256 before) = _values();
        _fire();
        (, uint256 afterwards) = _values();
        isTrue(before - afterwards <= 12_500e18 / 100, "within 1 % of what was traded");
    }

    // ---- states

    function test_frozen_it_does_nothing() public virtual;

    // ---- who

    function test_anyone_may_execute_after_the_public_delay_and_is_paid_within_the_caps() public {
        _prices(2500, 40_000);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
        guard.touch(subject, 1);
        _wait(299);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NotPublicYet.selector, _now() + 1));
        vm.prank(outsider);
        guard.execute(subject, 1);
        _wait(1);
        vm.txGasPrice(100 gwei);
        vm.prank(outsider);
        guard.execute(subject, 1);
        isTrue(outsider.balance > 0 && outsider.balance <= 0.01 ether, "refund");
        isTrue(_balanced(), "rebalanced");
        // The next one is due anew before the public may.
        _prices(4000, 40_000);
        _wait(60);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
    }

    function test_a_drift_that_passed_starts_the_public_delay_anew() public {
        _prices(2500, 40_000);
        guard.touch(subject, 1);
        _wait(200);
        _prices(2000, 40_000);
        guard.touch(subject, 1);
        _prices(2500, 40_000);
        _wait(150);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NotPublicYet.selector, 0));
        vm.prank(outsider);
        guard.execute(subject, 1);
    }

    function test_a_refund_that_cannot_be_paid_undoes_nothing() public {
        _prices(2500, 40_000);
        guard.touch(subject, 1);
        _wait(300);
        vm.deal(subject, 0);
        vm.txGasPrice(1000 gwei);
        vm.prank(outsider);
        guard.execute(subject, 1);
        isTrue(_balanced(), "rebalanced");
        eq(outsider.balance, 0, "nothing paid");
    }

    function test_only_the_account_arms_and_cancels() public {
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.NotInstalled.selector, outsider));
        vm.prank(outsider);
        guard.arm(1, _basket());
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.Final.selector, outsider, 1));
        vm.prank(outsider);
        guard.cancel(1);
        _as(subject, address(guard), abi.encodeCall(guard.cancel, (1)));
        _prices(2500, 40_000);
        _is(IGuard.Due.FINAL, BasketConfig.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.Final.selector, subject, 1));
        _fire();
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.Final.selector, subject, 1));
        guard.touch(subject, 1);
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.Final.selector, subject, 1));
        guard.valuesOf(subject, 1);
        (, bool armed,,,) = guard.basketOf(subject, 1);
        isTrue(!armed, "cancelled");
    }

    function test_it_ends_with_its_expiry_and_with_its_installation() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.expiry = uint48(_now() + 10);
        _arm(basket);
        _prices(2500, 40_000);
        _wait(10);
        _is(IGuard.Due.DUE, 0);
        _wait(1);
        _is(IGuard.Due.FINAL, BasketConfig.Final.selector);
        _arm(_basket());
        _is(IGuard.Due.DUE, 0);
        _as(subject, address(guard), abi.encodeCall(guard.onUninstall, ("")));
        _is(IGuard.Due.FINAL, BasketConfig.Final.selector);
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.NotInstalled.selector, subject));
        _as(subject, address(guard), abi.encodeCall(guard.onUninstall, ("")));
        _as(subject, address(guard), abi.encodeCall(guard.onInstall, ("")));
        _is(IGuard.Due.FINAL, BasketConfig.Final.selector); // what was armed does not come back
        vm.expectRevert(abi.encodeWithSelector(BasketConfig.AlreadyInstalled.selector, subject));
        _as(subject, address(guard), abi.encodeCall(guard.onInstall, ("")));
    }

    function test_what_is_read_is_what_was_armed() public view {
        (IAutoRebalance.Basket memory basket, bool armed,,,) = guard.basketOf(subject, 1);
        isTrue(armed, "armed");
        eq(keccak256(abi.encode(basket)), keccak256(abi.encode(_basket())), "basket");
    }

    function test_armed_at_installation_it_touches_only_the_account_s_own_slots() public {
        _as(subject, address(guard), abi.encodeCall(guard.onUninstall, ("")));
        (uint256[] memory ids, IAutoRebalance.Basket[] memory baskets) =
            (new uint256[](1), new IAutoRebalance.Basket[](1));
        (ids[0], baskets[0]) = (7, _full());
        vm.startMappingRecording();
        vm.record();
        _as(subject, address(guard), abi.encodeCall(guard.onInstall, (abi.encode(ids, baskets))));
        _onlyAssociatedReads(address(guard), subject);
        vm.stopMappingRecording();
        (IAutoRebalance.Basket memory basket, bool armed,,,) = guard.basketOf(subject, 7);
        isTrue(armed && basket.assets.length == 8, "armed");
    }

    function _full() internal returns (IAutoRebalance.Basket memory basket) {
        basket = _basket();
        basket.assets = new IAutoRebalance.Asset[](8);
        for (uint256 i = 0; i < 8; ++i) {
            basket.assets[i] = _asset(new Token("T", 18), 1250, ethFeed);
        }
    }

    // ---- hostile venue and token

    function test_a_pool_that_takes_more_gives_less_or_nothing_is_undone() public {
        _prices(2500, 40_000);
        for (uint256 i = uint256(Exchange.Trick.KEEP); i <= uint256(Exchange.Trick.TAKE_NOTHING); ++i) {
            venue.setTrick(500, Exchange.Trick(i), false, false);
            vm.expectPartialRevert(AutoRebalance.Misfilled.selector);
            _fire();
        }
        eq(weth.balanceOf(subject), 25e18, "untouched");
    }

    function test_a_pool_that_calls_back_finds_the_door_shut() public {
        _prices(2500, 40_000);
        venue.setTrick(500, Exchange.Trick.REENTER, false, false);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        _fire();
    }

    function _hostile() internal returns (HostileCoin coin) {
        coin = new HostileCoin();
        IAutoRebalance.Basket memory basket = _basket();
        basket.assets[1].token = address(coin);
        venue.setPrice(address(coin), 40_000e18);
        coin.mint(subject, 0.75e18);
        _arm(basket);
        _prices(2000, 20_000);
        venue.setPrice(address(coin), 20_000e18);
    }

    function test_a_token_that_calls_back_finds_the_door_shut() public {
        HostileCoin coin = _hostile();
        coin.mint(subject, 3e18); // far over its target: it is sold
        coin.setCallback(address(guard), abi.encodeCall(guard.execute, (subject, 1)));
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        _fire();
        coin.setCallback(address(guard), abi.encodeCall(guard.touch, (subject, 1)));
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        _fire();
    }

    function test_a_token_that_takes_a_fee_or_lies_about_balances_is_undone() public {
        HostileCoin coin = _hostile();
        coin.mint(subject, 3e18);
        uint256 before = coin.balanceOf(subject);
        coin.setFee(10);
        vm.expectPartialRevert(AutoRebalance.Misfilled.selector);
        _fire();
        coin.setFee(0);
        coin.setLie(before);
        vm.expectPartialRevert(AutoRebalance.Misfilled.selector);
        _fire();
        eq(usdc.balanceOf(subject), 20_000e6, "untouched");
    }

    // ---- settings

    function test_senseless_settings_are_refused() public {
        for (uint256 i = 0; i < 31; ++i) {
            IAutoRebalance.Basket memory basket = _basket();
            if (i == 0) basket.assets = new IAutoRebalance.Asset[](0);
            if (i == 1) basket.assets[0].targetBps = 7001;
            if (i == 2) basket.cash = address(1);
            if (i == 3) basket.assets[1].token = basket.cash;
            if (i == 4) basket.assets[1].token = address(weth);
            if (i == 5) basket.assets[1].token = address(1);
            if (i == 6) basket.assets[0].bandBps = 99;
            if (i == 7) basket.cashBandBps = 99;
            if (i == 8) basket.assets[0].oracle.feed = address(0);
            if (i == 9) basket.assets[0].oracle.heartbeat = 0;
            if (i == 10) basket.assets[0].oracle.minPrice = 0;
            if (i == 11) basket.assets[0].oracle.minPrice = basket.assets[0].oracle.maxPrice + 1;
            if (i == 12) basket.assets[0].oracle.deviationPatience = 1;
            if (i == 13) basket.assets[0].oracle.sequencerFeed = address(1);
            if (i == 14) basket.cashOracle.heartbeat = 0;
            if (i == 15) basket.assets[0].pools[0].adapter = address(0);
            if (i == 16) basket.assets[0].pools[2].adapter = address(1);
            if (i == 17) basket.minTrade = 0;
            if (i == 18) basket.minTrade = basket.maxTurnover + 1;
            if (i == 19) basket.slippageBps = 0;
            if (i == 20) (basket.slippageBps, basket.cashBandBps) = (1001, 2000);
            if (i == 21) basket.refundBps = 10_001;
            if (i == 22) basket.onDrift = false;
            if (i == 23) basket.calendar = IPolicyHook.Span.ROLLING;
            if (i == 24) basket.offsetMinutes = 60;
            if (i == 25) basket.turnoverSeconds = 0;
            if (i == 26) basket.maxTurnover = 50_000_000_000_000_000_000_001;
            if (i == 27) basket.authority = address(1);
            if (i == 28) basket.assets = new IAutoRebalance.Asset[](9);
            if (i == 29) basket.assets[1].pools[0].adapter = address(1);
            if (i == 30) basket.maxTurnover = 0;
            if (i == 20) (basket.assets[0].bandBps, basket.assets[1].bandBps) = (2000, 2000);
            if (i == 28) {
                for (uint256 k = 0; k < 9; ++k) {
                    basket.assets[k] = _asset(new Token("T", 18), 1000, ethFeed);
                }
            }
            vm.expectRevert(abi.encodeWithSelector(BasketConfig.InvalidBasket.selector, 1));
            _arm(basket);
        }
        IAutoRebalance.Basket memory elsewhere = _basket();
        elsewhere.assets[0].pools[2] = IAutoRebalance.Pool(address(venue), 10_000);
        vm.expectRevert(abi.encodeWithSelector(Exchange.NoPool.selector, 10_000));
        _arm(elsewhere);
    }

    function test_tokens_of_many_decimals_and_a_basket_of_eight_are_weighed_right() public {
        IAutoRebalance.Basket memory basket = _full();
        for (uint256 i = 0; i < 8; ++i) {
            Token token = new Token("T", uint8(2 + 2 * i));
            basket.assets[i].token = address(token);
            basket.assets[i].targetBps = 1000;
            venue.setPrice(address(token), 2000e18);
            token.mint(subject, (i + 1) * 10 ** token.decimals());
        }
        (basket.maxTurnover, basket.minTrade) = (1_000_000e18, 1e18);
        _arm(basket);
        (uint256[] memory values,) = guard.valuesOf(subject, 1);
        for (uint256 i = 0; i < 8; ++i) {
            eq(values[i], (i + 1) * 2000e18, "value");
        }
        _fire();
        uint256 equity;
        (values, equity) = _values();
        for (uint256 i = 0; i < 8; ++i) {
            // Two decimals of a token at 2,000 dollars are steps of 20.
            isTrue(values[i] + 21e18 > equity / 10 && values[i] < equity / 10 + 21e18, "a tenth each");
        }
    }

    // ---- whatever the numbers

    function testFuzz_a_call_loses_no_more_than_its_bound_and_balances_or_was_limited(
        uint256 eth,
        uint256 btc,
        uint256 idle,
        uint256 worse,
        uint256 turnover
    ) public {
        worse = bound(worse, 0, 99); // at the bound itself rounding decides, for the account
        turnover = bound(turnover, 1000, 100_000) * 1e18;
        IAutoRebalance.Basket memory basket = _basket();
        basket.maxTurnover = uint128(turnover);
        _arm(basket);
        usdc.mint(subject, bound(idle, 0, 200_000e6));
        venue.setPool(500, int256(worse), 0, 0);
        venue.setPool(3000, int256(worse + 1), 0, 0);
        _prices(bound(eth, 100, 20_000), bound(btc, 1000, 400_000));
        bool drifted = !_balanced();
        (IGuard.Due status,) = guard.due(subject, 1);
        isTrue((status == IGuard.Due.DUE) == drifted, "due when out of a band");
        if (!drifted) return;
        (, uint256 before) = _values();
        vm.recordLogs();
        _fire();
        (, uint256 afterwards, uint256 traded, bool limited) = _rebalanced();
        isTrue(traded <= turnover, "turnover");
        isTrue(before <= afterwards + traded / 100 + 1e18, "loss within the slippage bound");
        isTrue(limited || _balanced(), "inside every band, or limited");
        eq(venue.lastFee(), 500, "the better pool");
        eq(weth.allowance(subject, address(venue)), 0, "no allowance is left");
        eq(usdc.allowance(subject, address(venue)), 0, "no allowance is left");
    }

    function testFuzz_the_best_pool_is_the_one_with_the_least_loss(uint256 first, uint256 second, uint256 third)
        public
    {
        IAutoRebalance.Basket memory basket = _basket();
        basket.assets[0].pools[2] = IAutoRebalance.Pool(address(venue), 10_000);
        basket.assets[1].targetBps = 0;
        _as(subject, address(wbtc), abi.encodeCall(wbtc.transfer, (address(1), 0.75e8)));
        (first, second, third) = (bound(first, 0, 200), bound(second, 0, 200), bound(third, 0, 200));
        venue.setPool(500, int256(first), 0, 0);
        venue.setPool(3000, int256(second), 0, 0);
        venue.setPool(10_000, int256(third), 0, 0);
        _arm(basket);
        uint256 least = first < second ? first : second;
        if (third < least) least = third;
        if (least > 99) {
            if (least > 100) vm.expectRevert(abi.encodeWithSelector(AutoRebalance.NoRoute.selector, subject, 1));
            else return; // rounding
            _fire();
            return;
        }
        _fire();
        uint24 wanted = least == first ? 500 : least == second ? 3000 : 10_000;
        eq(venue.lastFee(), wanted, "pool");
    }
}

contract AutoRebalanceOnRiskAccountTest is AutoRebalanceBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(account));
    }

    function test_frozen_it_does_nothing() public override {
        _prices(2500, 40_000);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.FROZEN);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
        guard.touch(subject, 1);
        _wait(300);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.Halted.selector, subject));
        vm.prank(outsider);
        guard.execute(subject, 1);
    }

    function test_reduce_only_it_rests_and_as_a_declared_guard_it_sells_and_buys_nothing() public {
        _prices(2500, 40_000);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.REDUCE_ONLY);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
        _wait(1 days);
        authority.expire(subject);
        _as(subject, address(authority), abi.encodeCall(authority.setGuard, (address(guard), true)));
        _wait(2 days);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.REDUCE_ONLY);
        _is(IGuard.Due.DUE, 0);
        guard.touch(subject, 1);
        _wait(300);
        (uint256 eth, uint256 btc) = (weth.balanceOf(subject), wbtc.balanceOf(subject));
        vm.prank(outsider);
        guard.execute(subject, 1);
        isTrue(weth.balanceOf(subject) < eth, "sold");
        eq(wbtc.balanceOf(subject), btc, "nothing bought");
        // Only purchases are left: they wait.
        weth.mint(subject, 1e18);
        _as(subject, address(wbtc), abi.encodeCall(wbtc.transfer, (address(1), btc)));
        _prices(2000, 40_000);
        _wait(60);
        // ETH is over by what BTC lost; bring it under too.
        uint256 held = weth.balanceOf(subject);
        _as(subject, address(weth), abi.encodeCall(weth.transfer, (address(1), held)));
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
        // And FROZEN, declared or not, it does nothing.
        weth.mint(subject, 2 * eth);
        _wait(1 days);
        authority.expire(subject);
        _wait(4 days);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.FROZEN);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
    }

    function test_the_account_s_own_authority_counts_and_not_the_basket_s() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.authority = address(0);
        _arm(basket);
        _prices(2500, 40_000);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.FROZEN);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
    }

    function test_gas_of_a_rebalance() public {
        _prices(2500, 40_000);
        guard.touch(subject, 1);
        _wait(300);
        vm.prank(outsider);
        guard.execute(subject, 1);
        vm.snapshotGasLastCall("modules", "AutoRebalance.execute by anyone, three tokens, two trades of two pools each");
    }
}

contract AutoRebalanceOnForeignAccountTest is AutoRebalanceBehaviour {
    function setUp() public override {
        super.setUp();
        _install(address(foreign), 4, address(authority), abi.encode(_freezeData()));
        _begin(address(foreign));
    }

    function test_frozen_it_does_nothing() public override {
        _prices(2500, 40_000);
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        authority.freeze(subject, RiskState.FROZEN);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
        vm.expectRevert(abi.encodeWithSelector(AutoRebalance.Halted.selector, subject));
        _fire();
    }

    function test_an_authority_that_does_not_answer_counts_as_frozen() public {
        IAutoRebalance.Basket memory basket = _basket();
        basket.authority = address(venue);
        _arm(basket);
        _prices(2500, 40_000);
        _is(IGuard.Due.BLOCKED, AutoRebalance.Halted.selector);
        basket.authority = address(0); // an account without states
        _arm(basket);
        _is(IGuard.Due.DUE, 0);
        _fire();
    }
}
