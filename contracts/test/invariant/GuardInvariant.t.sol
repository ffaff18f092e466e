// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ReplayFeed} from "../../src/devnet/ReplayFeed.sol";
import {IGuard} from "../../src/interfaces/IGuard.sol";
import {IHealthGuard} from "../../src/interfaces/IHealthGuard.sol";
import {IStopLoss, OracleConfig} from "../../src/interfaces/IStopLoss.sol";
import {HealthGuard} from "../../src/modules/HealthGuard.sol";
import {Base} from "../Base.sol";
import {Lending, Token} from "../Lending.sol";
import {Venue} from "../Venue.sol";

/// A stop and a health guard under hostile prices, venues and callers.
contract GuardWorld is Base {
    uint256 private constant BPS = 10_000;
    uint16 private constant SLIPPAGE = 1000;
    uint256 private constant REFUND_CAP = 0.01 ether;

    Venue public venue;
    HealthGuard public guard;
    Lending public lending;
    Token public weth;
    Token public usdc;
    ReplayFeed public feed;
    ReplayFeed public lendingFeed;
    uint256 public price = 200;
    uint256 public fired;
    uint256 public rescued;
    string public violation;
    uint256 public trailed;
    /// Of each order since it was armed: the highest and the lowest price shown.
    uint256[3] private best;
    uint256[3] private worst;
    mapping(uint256 id => mapping(uint256 arming => uint256)) private firedIn;
    address[3] private callers = [address(0x0071), address(0x0072), address(0x0073)];

    function setUp() public override {
        if (address(venue) != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        venue = new Venue();
        feed = new ReplayFeed(address(this), 8, "ETH / USD");
        lendingFeed = new ReplayFeed(address(this), 8, "ETH / USD");
        guard = new HealthGuard();
        weth = new Token("WETH", 18);
        usdc = new Token("USDC", 6);
        lending = new Lending(weth, usdc);
        feed.push(200e8, _now());
        lendingFeed.push(2000e8, _now());
        venue.setPrices(200e18, 200e18);
        _install(address(account), 2, address(stopLoss), "");
        _install(address(account), 2, address(guard), "");
        ownerArms(0, 0);
        lending.open(address(account), 10e18, 11_000e6);
        _as(address(account), address(guard), abi.encodeCall(guard.arm, (1, _health())));
    }

    function _oracle(ReplayFeed of_, uint128 most) private pure returns (OracleConfig memory) {
        return OracleConfig(address(of_), 1 days, address(0), 0, 10e18, most, 300, 120);
    }

    function _health() private view returns (IHealthGuard.Health memory) {
        return IHealthGuard.Health({
            lending: address(lending),
            collateral: address(weth),
            debt: address(usdc),
            swap: address(lending),
            fee: 3000,
            floor: 1.2e18,
            target: 1.5e18,
            toleranceBps: 100,
            maxRepay: 5000e6,
            maxTopUp: 5e18,
            maxUnwind: 8e18,
            slippageBps: 100,
            maxSlippageBps: SLIPPAGE,
            widenSeconds: 600,
            cooldown: 60,
            publicDelay: 300,
            refundBps: 10_000,
            refundCap: uint96(REFUND_CAP),
            expiry: 0,
            oracle: _oracle(lendingFeed, 100_000e18)
        });
    }

    // ---- what everyone may do

    /// Two orders, of one group half of the time: stops, take-profits and trailing stops, of shares and of sizes.
    function ownerArms(uint256 parts, uint256 above) public {
        for (uint256 id = 1; id < 3; ++id) {
            IStopLoss.Stop memory stop = _order(parts, above + 2 * (id - 1));
            if (above & 8 != 0) stop.group = 7;
            _as(address(account), address(stopLoss), abi.encodeCall(stopLoss.arm, (id, stop)));
            (best[id], worst[id]) = (180, 180);
        }
    }

    function _order(uint256 parts, uint256 above) private view returns (IStopLoss.Stop memory) {
        uint128 most = uint128(1e18 + parts % 100e18);
        return IStopLoss.Stop({
            adapter: address(venue),
            market: "ETH",
            below: above % 2 == 0,
            triggerPrice: 180e18,
            sizeBps: above & 16 == 0 ? uint16(1 + parts % BPS) : 0,
            maxSizePerExecution: most,
            slippageBps: 100,
            maxSlippageBps: SLIPPAGE,
            widenSeconds: 600,
            cooldown: uint32(parts % 100),
            publicDelay: 300,
            refundBps: 10_000,
            refundCap: uint96(REFUND_CAP),
            expiry: 0,
            size: above & 16 == 0 ? 0 : most,
            dust: uint128(parts % 1e18),
            trail: 0,
            trailBps: above % 4 > 1 ? 500 : 0,
            group: 0,
            oracle: _oracle(feed, 10_000e18)
        });
    }

    function ownerTrades(uint256 size, bool short, uint128 debt) external {
        int256 to = int256(bound(size, 0, 50e18));
        venue.set(address(account), short ? -to : to, debt);
    }

    function priceMoves(uint256 to, uint256 fillBps, uint256 meanBps) external {
        price = bound(to, 100, 300);
        for (uint256 id = 1; id < 3; ++id) {
            if (price > best[id]) best[id] = price;
            if (price < worst[id]) worst[id] = price;
        }
        feed.push(int256(price * 1e8), _now());
        uint256 mean = price * 1e18 * bound(meanBps, 9500, 10_500) / BPS;
        venue.setPrices(price * 1e18 * bound(fillBps, 8000, 12_000) / BPS, mean);
    }

    function venueTurns(uint256 trick) external {
        venue.setTrick(Venue.Trick(trick % 8), IGuard(address(stopLoss)));
    }

    function timePasses(uint256 duration) external {
        vm.warp(_now() + bound(duration, 1, 1000));
    }

    function anyoneTouches(uint256 which) external {
        IGuard target_ = which % 2 == 0 ? IGuard(address(stopLoss)) : IGuard(address(guard));
        try target_.touch(address(account), 1 + which / 2 % 2) {} catch {}
    }

    function anyoneProves(uint256 which, uint256 back) external {
        uint256 id = 1 + which % 2;
        uint80[] memory rounds = new uint80[](1);
        rounds[0] = uint80(feed.latestRound() - back % 4);
        (uint256 before,,,) = stopLoss.markOf(address(account), id);
        vm.prank(callers[back % 3]);
        try stopLoss.prove(address(account), id, rounds) {} catch {}
        (uint256 mark,,,) = stopLoss.markOf(address(account), id);
        if (mark == before) return;
        ++trailed;
        (IStopLoss.Stop memory stop,,,,) = stopLoss.stopOf(address(account), id);
        if (stop.below ? mark < before : mark > before) violation = "a mark fell back";
        bool shown = stop.below ? mark <= best[id] * 1e18 : mark >= worst[id] * 1e18;
        if (!shown) violation = "a mark that the feed never showed since the arming";
    }

    function anyoneFires(uint256 caller, uint256 gasPrice) external {
        uint256 id = 1 + gasPrice % 2;
        (, uint256 trigger,,) = stopLoss.markOf(address(account), id);
        int256 before = venue.sizes(address(account));
        uint256 debt = venue.debts(address(account));
        uint256 ether_ = address(account).balance;
        if (!_fire(address(stopLoss), id, caller, gasPrice)) return;
        int256 afterwards = venue.sizes(address(account));
        (IStopLoss.Stop memory stop, IStopLoss.Status status, uint256 arming,,) = stopLoss.stopOf(address(account), id);
        (, IStopLoss.Status other,,,) = stopLoss.stopOf(address(account), 3 - id);
        if (stop.group != 0 && other == IStopLoss.Status.ARMED) violation = "an order of the group outlived another";
        if (status == IStopLoss.Status.FIRED) ++fired;
        if (firedIn[id][arming] != 0) violation = "a stop acted after it had fired";
        if (status == IStopLoss.Status.FIRED) ++firedIn[id][arming];
        if (trigger == 0) trigger = stop.triggerPrice;
        if (stop.below ? price * 1e18 > trigger : price * 1e18 < trigger) {
            violation = "a stop fired on the wrong side of its trigger";
        }
        uint256 was = uint256(before < 0 ? -before : before);
        uint256 is_ = uint256(afterwards < 0 ? -afterwards : afterwards);
        bool reduced =
            is_ < was && was - is_ <= stop.maxSizePerExecution && (is_ == 0 || (before > 0) == (afterwards > 0));
        if (!reduced) violation = "a stop did something else than reduce";
        if (venue.debts(address(account)) > debt) violation = "a stop raised a debt";
        uint256 fill = venue.fillPrice();
        bool fair =
            before > 0 ? fill * BPS >= price * 1e18 * (BPS - SLIPPAGE) : fill * BPS <= price * 1e18 * (BPS + SLIPPAGE);
        if (!fair) violation = "a fill was worse than the slippage cap";
        if (ether_ - address(account).balance > REFUND_CAP) violation = "a refund was above its cap";
    }

    function _fire(address module, uint256 id, uint256 caller, uint256 gasPrice) private returns (bool success) {
        vm.txGasPrice(bound(gasPrice, 0, 10_000 gwei));
        vm.prank(caller % 4 == 3 ? address(account) : callers[caller % 3]);
        (success,) = module.call(abi.encodeCall(IGuard.execute, (address(account), id)));
        vm.txGasPrice(0);
    }

    // ---- lending

    function lendingPriceMoves(uint256 to, uint256 fillBps, uint256 meanBps) external {
        uint256 dollars = bound(to, 1000, 3000);
        lendingFeed.push(int256(dollars * 1e8), _now());
        lending.setPrices(dollars);
        lending.setPool(
            dollars * 1e18 * bound(fillBps, 8000, 11_000) / BPS, dollars * 1e18 * bound(meanBps, 9700, 10_300) / BPS
        );
    }

    function ownerHolds(uint256 coins, uint256 collateral) external {
        usdc.mint(address(account), coins % 1000e6);
        weth.mint(address(account), collateral % 1e17);
    }

    function ownerBorrows(uint256 collateral, uint256 debt) external {
        uint256 supplied = bound(collateral, 1e18, 20e18);
        lending.open(address(account), supplied, bound(debt, 0, supplied * lending.price() * 8 / 10 / 1e20));
    }

    function lendingTurns(uint256 trick) external {
        lending.setTrick(Lending.Trick(trick % 6), IGuard(address(guard)));
    }

    /// Dollars (1e8) at the venue's price.
    function _equity() private view returns (int256) {
        uint256 held = (lending.supplied(address(account)) + weth.balanceOf(address(account))) * lending.price() / 1e18;
        return int256(held + usdc.balanceOf(address(account)) * 100) - int256(lending.owed(address(account)) * 100);
    }

    function anyoneRescues(uint256 caller, uint256 gasPrice) external {
        if (lending.trick() == Lending.Trick.UNREADABLE) return;
        int256 equity = _equity();
        uint256 all = lending.supplied(address(account)) + weth.balanceOf(address(account));
        uint256 ether_ = address(account).balance;
        uint256 factor = lending.health(address(account)).factor;
        uint256 owed = lending.owed(address(account));
        if (!_fire(address(guard), 1, caller, gasPrice)) return;
        ++rescued;
        if (factor > 1.2e18) violation = "a rescue above the floor";
        if (lending.health(address(account)).factor <= factor) violation = "a rescue that did not help";
        if (lending.owed(address(account)) > owed) violation = "a rescue raised the debt";
        uint256 sold = all - lending.supplied(address(account)) - weth.balanceOf(address(account));
        // A sale may lose its slippage cap; ten rounds may each round a unit of the debt.
        int256 allowed = int256(sold * lending.price() / 1e18 * SLIPPAGE / BPS + 1000);
        bool honest = lending.trick() != Lending.Trick.KEEP_REPAYMENT && lending.trick() != Lending.Trick.KEEP_SUPPLY
            && lending.trick() != Lending.Trick.LEND_MORE;
        if (honest && equity - _equity() > allowed) violation = "a rescue lost more than its slippage cap";
        if (sold > 8e18) violation = "a rescue sold more than its cap";
        if (ether_ - address(account).balance > REFUND_CAP) violation = "a refund was above its cap";
    }

    /// Whatever the callers and the module hold, beyond refunds of executions that worked.
    function taken() external view returns (bool) {
        uint256 coins;
        for (uint256 i = 0; i < 3; ++i) {
            coins += weth.balanceOf(callers[i]) + usdc.balanceOf(callers[i]);
        }
        coins += weth.balanceOf(address(guard)) + usdc.balanceOf(address(guard));
        return coins != 0 || address(guard).balance + address(stopLoss).balance != 0;
    }
}

contract GuardInvariantTest is Base {
    GuardWorld internal world;

    function setUp() public override {
        world = new GuardWorld();
        world.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    /// A trigger fires at most once per arming; what one call can lose is bounded by its slippage and refund caps.
    function invariant_guards_fire_once_and_lose_no_more_than_their_caps() external view {
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }

    function invariant_no_caller_takes_funds() external view {
        isTrue(!world.taken(), "a caller or a module holds tokens of the account");
    }

    /// The world is not kept by doing nothing.
    function test_a_stop_fires_and_a_rescue_works_in_this_world() public {
        world.ownerTrades(10e18, false, 0);
        world.priceMoves(50, 2000, 500);
        world.anyoneTouches(0);
        world.timePasses(400);
        world.anyoneFires(3, 0);
        world.lendingPriceMoves(500, 2000, 300);
        world.ownerHolds(999e6, 0);
        world.anyoneRescues(3, 0);
        isTrue(world.fired() + world.rescued() == 2, "a stop and a rescue");
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }
}
