// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IAutoRebalance} from "../src/interfaces/IAutoRebalance.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {RebalanceRig} from "./AutoRebalance.t.sol";
import {Exchange} from "./Exchange.sol";
import {Token} from "./Lending.sol";
import {Assertions, Vm} from "./Vm.sol";

/// Does what the world does to a basket, in any order, and judges every execution by figures of its own.
contract RebalanceWorld is RebalanceRig {
    /// What did not hold; empty while everything did.
    string public broken;
    uint256 public executions;
    uint256 private _last;
    uint256[] private _times;
    uint256[] private _traded;

    constructor() {
        setUp();
        _begin(address(account));
        IAutoRebalance.Basket memory basket = _basket();
        basket.calendar = IPolicyHook.Span.DAY;
        _arm(basket);
        vm.txGasPrice(100 gwei);
    }

    function moveEth(uint256 seed) external {
        _prices(bound(seed, 500, 8000), venue.price(address(wbtc)) / 1e18);
    }

    function moveBtc(uint256 seed) external {
        _prices(venue.price(address(weth)) / 1e18, bound(seed, 10_000, 160_000));
    }

    function pass(uint256 seed) external {
        _wait(bound(seed, 1, 9 hours));
    }

    /// Nobody brings the feeds up to date.
    function passSilently(uint256 seed) external {
        vm.warp(_now() + bound(seed, 1, 2 hours));
    }

    function give(uint256 which, uint256 seed) external {
        Token token = [weth, wbtc, usdc][which % 3];
        uint256 dollars = bound(seed, 0, 20_000) * 1e18;
        token.mint(subject, dollars * 10 ** token.decimals() / venue.price(address(token)));
    }

    function take(uint256 which, uint256 seed) external {
        Token token = [weth, wbtc, usdc][which % 3];
        uint256 amount = bound(seed, 0, token.balanceOf(subject) / 2);
        _as(subject, address(token), abi.encodeCall(token.transfer, (address(1), amount)));
    }

    function changePool(bool first, uint256 loss, uint256 lie, uint256 mean, uint256 trick) external {
        int256 lossBps = int256(bound(loss, 0, 250)) - 20;
        int256 meanBps = int256(bound(mean, 0, 500)) - 250;
        uint24 fee = first ? 500 : 3000;
        venue.setPool(fee, lossBps, int256(bound(lie, 0, 300)), meanBps);
        // Mostly honest.
        uint256 which = trick % 16;
        venue.setTrick(fee, which < 6 ? Exchange.Trick(which) : Exchange.Trick.NONE, which == 6, which == 7);
    }

    function freeze(bool whole) external {
        vm.prank(vm.addr(GUARDIAN_KEYS[0]));
        (bool success,) = address(authority)
            .call(abi.encodeCall(authority.freeze, (subject, whole ? RiskState.FROZEN : RiskState.REDUCE_ONLY)));
        success;
    }

    function thaw() external {
        (bool success,) = address(authority).call(abi.encodeCall(authority.expire, (subject)));
        success;
    }

    function armAgain() external {
        (IAutoRebalance.Basket memory basket, bool armed,,,) = guard.basketOf(subject, 1);
        if (armed) _arm(basket);
    }

    function touch() external {
        guard.touch(subject, 1);
    }

    function fireByAccount() external {
        _judge(subject);
    }

    function fireByAnyone() external {
        _judge(outsider);
    }

    function _judge(address caller) private {
        (IGuard.Due status,) = guard.due(subject, 1);
        (IAutoRebalance.Basket memory basket,, uint256 arming, uint48 since, uint48 last) = guard.basketOf(subject, 1);
        bool balanced;
        uint256 before;
        if (status == IGuard.Due.DUE) (balanced, before) = (_balanced(), _sum());
        uint256 paid = subject.balance;
        vm.recordLogs();
        vm.prank(caller);
        (bool success,) = address(guard).call(abi.encodeCall(guard.execute, (subject, 1)));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (!success) return;
        ++executions;
        if (status != IGuard.Due.DUE) broken = "executed though not due";
        (RiskState state,) = account.riskState();
        if (state != RiskState.ACTIVE) broken = "executed while not active";
        if (balanced && last / 1 days == _now() / 1 days) broken = "executed without drift or a new day";
        if (last != 0 && _now() < uint256(last) + basket.cooldown) broken = "executed while cooling down";
        if (caller != subject && (since == 0 || _now() < uint256(since) + basket.publicDelay)) {
            broken = "the public came too early";
        }
        (,, uint256 next,,) = guard.basketOf(subject, 1);
        if (next != arming + 1) broken = "not one arming";
        if (paid - subject.balance > (caller == subject ? 0 : uint256(basket.refundCap))) broken = "paid too much";
        _weighLogs(logs, before);
    }

    function _weighLogs(Vm.Log[] memory logs, uint256 before) private {
        uint256 fired = 0;
        uint256 traded = 0;
        bool limited = false;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(guard)) continue;
            if (logs[i].topics[0] == IGuard.GuardFired.selector) ++fired;
            if (logs[i].topics[0] == IAutoRebalance.Rebalanced.selector) {
                (,, traded, limited) = abi.decode(logs[i].data, (uint256, uint256, uint256, bool));
            }
        }
        if (fired != 1 || traded == 0) broken = "not fired once";
        if (_sum() + traded / 100 + 1e18 < before) broken = "lost more than the slippage bound";
        if (!limited && !_balanced()) broken = "neither balanced nor limited";
        _times.push(_now());
        _traded.push(traded);
        uint256 sum = 0;
        for (uint256 i = _times.length; i > 0 && _times[i - 1] + 1 days > _now(); --i) {
            sum += _traded[i - 1];
        }
        if (sum > 50_000e18) broken = "turned over more than the window allows";
    }

    /// Worth of the basket in dollars, 1e18, by the venue's prices and not by the module.
    function _sum() private view returns (uint256) {
        return weth.balanceOf(subject) * venue.price(address(weth)) / 1e18 + wbtc.balanceOf(subject)
            * venue.price(address(wbtc)) / 1e8 + usdc.balanceOf(subject) * 1e12;
    }
}

contract AutoRebalanceInvariantsTest is Assertions {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    RebalanceWorld private world;

    function setUp() public {
        world = new RebalanceWorld();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](16);
        selectors[0] = RebalanceWorld.moveEth.selector;
        selectors[1] = RebalanceWorld.moveBtc.selector;
        selectors[2] = RebalanceWorld.pass.selector;
        selectors[3] = RebalanceWorld.passSilently.selector;
        selectors[4] = RebalanceWorld.give.selector;
        selectors[5] = RebalanceWorld.take.selector;
        selectors[6] = RebalanceWorld.changePool.selector;
        selectors[7] = RebalanceWorld.freeze.selector;
        selectors[8] = RebalanceWorld.thaw.selector;
        selectors[9] = RebalanceWorld.armAgain.selector;
        selectors[10] = RebalanceWorld.touch.selector;
        selectors[11] = RebalanceWorld.fireByAccount.selector;
        selectors[12] = RebalanceWorld.fireByAnyone.selector;
        selectors[13] = RebalanceWorld.pass.selector;
        selectors[14] = RebalanceWorld.fireByAccount.selector;
        selectors[15] = RebalanceWorld.touch.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(world), selectors);
    }

    /// forge-config: default.invariant.runs = 24
    /// forge-config: default.invariant.depth = 120
    /// forge-config: deep.invariant.runs = 256
    /// forge-config: deep.invariant.depth = 500
    function invariant_every_execution_was_due_bounded_and_brought_the_basket_back() public view {
        isTrue(bytes(world.broken()).length == 0, world.broken());
    }

    /// The world above does get to executions, by the account and by anyone, so that the invariant judges something.
    function test_the_world_executes() public {
        world.moveEth(2500);
        world.fireByAccount();
        world.pass(7 hours);
        world.moveEth(500);
        world.touch();
        world.pass(10 minutes);
        world.fireByAnyone();
        eq(world.executions(), 2, "executions");
        isTrue(bytes(world.broken()).length == 0, world.broken());
    }
}
