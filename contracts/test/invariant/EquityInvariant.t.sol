// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {RiskState} from "../../src/interfaces/IRiskState.sol";
import {EquityBreakerBase} from "../EquityBreakerBase.sol";
import {HostileVenue} from "../HostileVenue.sol";
import {Assertions} from "../Vm.sol";

/// An owner, a module, a market, strangers and guardians do whatever they can with an account that has a breaker.
contract EquityWorld is EquityBreakerBase {
    string public violation;
    uint256 public executed;
    uint256 public refused;
    uint256 public latched;

    function _subject() internal view override returns (address) {
        return address(account);
    }

    function setUp() public override {
        if (address(breaker) == address(0)) super.setUp(); // part of what the fuzzer may call
    }

    /// One execution by the owner or a module; the loss it may make is a hundredth of what there is, whatever else happens in it.
    function _run(bool byModule, bytes memory call) private {
        uint256 before = _equity();
        RiskState state = _state();
        vm.prank(byModule ? address(executor) : address(ENTRY_POINT));
        (bool success,) = subject.call(
            abi.encodeWithSignature(
                byModule ? "executeFromExecutor(bytes32,bytes)" : "execute(bytes32,bytes)",
                SINGLE,
                abi.encodePacked(address(venue), uint256(0), call)
            )
        );
        uint256 lost = before > _equity() ? before - _equity() : 0;
        if (success) ++executed;
        else ++refused;
        if (lost > before / 100) violation = "an execution lost more than its bound";
        if (success && state != RiskState.ACTIVE) violation = "an execution that is no exit, while not ACTIVE";
        _afterLook(success && state == RiskState.ACTIVE);
    }

    /// After a look that stands, the account is within its bounds, or latched, or rests.
    function _afterLook(bool looked) private {
        if (!looked) return;
        if (_state() != RiskState.ACTIVE) {
            ++latched;
            return;
        }
        bool rests = _now() < breaker.standingOf(subject).restUntil;
        if (!rests && _equity() < _mark() * 9 / 10) violation = "below the drawdown and still ACTIVE";
    }

    function trades(uint256 dollars, uint256 bps, bool byModule) external {
        _run(byModule, _tradeData(bound(dollars, 1, 60_000), bound(bps, 0, 3000)));
    }

    function tradesWithinItself(uint256 dollars, uint256 bps, bool outerByModule) external {
        bytes memory inner =
            abi.encodePacked(address(venue), uint256(0), _tradeData(bound(dollars, 1, 9000), bps % 2000));
        venue.setCallback(address(executor), abi.encodeCall(executor.act, (subject, SINGLE, inner)), 0);
        _run(outerByModule, abi.encodeCall(HostileVenue.lend, (ERC20(dollar), 500_000e6)));
        venue.setCallback(address(0), "", 0);
    }

    function withdraws(uint256 dollars) external {
        dollars = bound(dollars, 1, 20_000);
        bool enough = dollar.balanceOf(subject) >= dollars * 1e6;
        vm.prank(address(ENTRY_POINT));
        (bool success,) = subject.call(_executeData(address(dollar), 0, _withdrawal(dollars)));
        if (success != enough) violation = "an exit was refused";
    }

    function strangersGive(uint256 dollars, bool declared) external {
        uint256 amount = bound(dollars, 1, 50_000) * 1e6;
        dollar.mint(declared ? address(this) : subject, amount);
        if (!declared) return;
        dollar.approve(address(breaker), amount);
        try breaker.deposit(subject, address(dollar), amount) {} catch {}
    }

    function strangersPoke(bool fromTheVenue, int256 lie) external {
        if (fromTheVenue) {
            venue.setCallback(address(breaker), abi.encodeCall(breaker.poke, (subject)), lie % 1e24);
            venue.reenter();
            return;
        }
        try breaker.poke(subject) {} catch {}
    }

    function pricesMove(uint256 dollars, uint256 seconds_) external {
        vm.warp(_now() + bound(seconds_, 1, 2 days));
        _price(int256(bound(dollars, 1500, 2600)));
    }
}

contract EquityInvariantTest is Assertions {
    EquityWorld internal world;

    function setUp() public {
        world = new EquityWorld();
        world.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    function invariant_no_execution_loses_more_than_its_bound_and_no_look_leaves_a_drawdown_unlatched() external view {
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }

    /// The world is not kept by doing nothing.
    function test_executions_stand_are_refused_and_latch_in_this_world() public {
        world.trades(10_000, 500, true);
        eq(world.executed(), 1, "stands");
        world.trades(30_000, 1000, false);
        eq(world.refused(), 1, "refused");
        world.pricesMove(1500 - 1500, 60);
        world.trades(1, 0, false);
        eq(world.latched(), 1, "latched");
    }
}
