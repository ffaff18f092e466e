// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {Execution, IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ReplayFeed} from "../src/devnet/ReplayFeed.sol";
import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {IEquityBreaker} from "../src/interfaces/IEquityBreaker.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {EquityBreaker} from "../src/modules/EquityBreaker.sol";
import {PolicyHook} from "../src/modules/PolicyHook.sol";
import {PlainModule} from "./Actors.sol";
import {Base} from "./Base.sol";
import {HostileVenue} from "./HostileVenue.sol";
import {Coin} from "./Tokens.sol";

/// An account with 100,000 dollars: 50,000 in a dollar token and 25 of an asset at 2,000, a hook that lets everything pass, and a breaker of
/// 1 % an execution, 5 % a day, 10 % from the mark.
abstract contract EquityBreakerBase is Base {
    uint256 internal constant HEARTBEAT = 1 hours;
    uint32 internal constant CHANGE_DELAY = 2 days;
    uint256 internal constant START = 100_000e18;
    bytes32 internal constant BATCH_TRY = bytes32(bytes2(0x0101));

    PolicyHook internal hook;
    EquityBreaker internal breaker;
    HostileVenue internal venue;
    Coin internal dollar;
    Coin internal asset;
    ReplayFeed internal dollarFeed;
    ReplayFeed internal assetFeed;
    ReplayFeed internal sequencer;
    PlainModule internal executor;
    PlainModule internal guard;
    address internal subject;

    function _subject() internal virtual returns (address);

    function setUp() public virtual override {
        super.setUp();
        (hook, breaker, venue) = (new PolicyHook(), new EquityBreaker(), new HostileVenue());
        (dollar, asset) = (new Coin(6), new Coin(18));
        dollarFeed = _feed(8, 1e8);
        assetFeed = _feed(8, 2000e8);
        sequencer = _feed(0, 0);
        (executor, guard) = (new PlainModule(), new PlainModule());
        venue.setPrice(2000e18);
        subject = _subject();
        dollar.mint(subject, 50_000e6);
        asset.mint(subject, 25e18);
        dollar.mint(address(venue), 1e15);
        asset.mint(address(venue), 1e24);
        vm.warp(_now() + 1 days);
        _refresh();
        _install(subject, 2, address(executor), "");
        _install(subject, 2, address(guard), "");
        _declare(address(guard));
        _declare(address(breaker));
        _declareExit(address(dollar));
        _execute(subject, address(dollar), 0, abi.encodeCall(ERC20.approve, (address(venue), type(uint256).max)));
        _execute(subject, address(asset), 0, abi.encodeCall(ERC20.approve, (address(venue), type(uint256).max)));
        _install(subject, 2, address(breaker), abi.encode(_breakerConfig()));
        IPolicyHook.InstallData memory data;
        data.settings = IPolicyHook.Settings(address(authority), CHANGE_DELAY, false);
        _install(subject, 4, address(hook), abi.encode(data));
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setBreaker, (address(breaker))));
    }

    // ---- building

    function _feed(uint8 decimals, int256 answer) internal returns (ReplayFeed feed) {
        feed = new ReplayFeed(address(this), decimals, "");
        feed.push(answer, _now() - 12 hours);
    }

    /// Every price as it was, and fresh.
    function _refresh() internal {
        _push(dollarFeed, dollarFeed.latestAnswer());
        _push(assetFeed, assetFeed.latestAnswer());
    }

    function _push(ReplayFeed feed, int256 answer) internal {
        feed.push(answer, _now());
    }

    function _price(int256 dollars) internal {
        _push(dollarFeed, 1e8);
        _push(assetFeed, dollars * 1e8);
        venue.setPrice(uint256(dollars) * 1e18);
    }

    function _later(uint256 seconds_) internal {
        vm.warp(_now() + seconds_);
        _refresh();
    }

    function _declare(address module) private {
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setGuard, (module, true)));
    }

    function _declareExit(address token) internal {
        bytes32[] memory args = new bytes32[](1);
        args[0] = bytes32(uint256(uint160(cold)));
        IEmergencyFreeze.Exit memory exit = IEmergencyFreeze.Exit(token, ERC20.transfer.selector, true, false, 1, args);
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setExit, (exit, true)));
    }

    function _oracle(ReplayFeed feed, uint128 low, uint128 high) internal view returns (OracleConfig memory) {
        return OracleConfig(address(feed), uint32(HEARTBEAT), address(sequencer), 1800, low, high, 500, 0);
    }

    function _breakerConfig() internal view virtual returns (IEquityBreaker.Config memory config) {
        config.settings = IEquityBreaker.Settings({
            hook: address(hook),
            authority: address(authority),
            lossPerOperationBps: 100,
            lossPerDayBps: 500,
            drawdownBps: 1000,
            onDayLoss: RiskState.REDUCE_ONLY,
            onDrawdown: RiskState.FROZEN,
            changeDelay: CHANGE_DELAY,
            patience: 60
        });
        config.assets = new IEquityBreaker.Asset[](2);
        config.assets[0] =
            IEquityBreaker.Asset(address(dollar), address(0), false, _oracle(dollarFeed, 0.98e18, 1.02e18), "");
        config.assets[1] =
            IEquityBreaker.Asset(address(asset), address(venue), false, _oracle(assetFeed, 1e18, 1e24), "ASSET");
        config.sources = new address[](1);
        config.sources[0] = address(venue);
    }

    // ---- acting

    /// Sell dollars for the asset at a loss of `bps` of what is sold.
    function _trade(uint256 dollars, uint256 bps) internal {
        _execute(subject, address(venue), 0, _tradeData(dollars, bps));
    }

    function _tradeData(uint256 dollars, uint256 bps) internal view returns (bytes memory) {
        uint256 price = uint256(assetFeed.latestAnswer()) * 1e10;
        uint256 out = dollars * 1e18 * (10_000 - bps) / 10_000 * 1e18 / price;
        return abi.encodeCall(HostileVenue.trade, (ERC20(dollar), dollars * 1e6, ERC20(asset), out));
    }

    function _batch(bytes32 mode, Execution[] memory calls) internal {
        _op(subject, abi.encodeCall(IERC7579Execution.execute, (mode, abi.encode(calls))));
    }

    function _by(PlainModule module, address to, bytes memory data) internal {
        module.act(subject, SINGLE, abi.encodePacked(to, uint256(0), data));
    }

    function _withdraw(uint256 dollars) internal {
        _execute(subject, address(dollar), 0, _withdrawal(dollars));
    }

    function _withdrawal(uint256 dollars) internal view returns (bytes memory) {
        return abi.encodeCall(ERC20.transfer, (cold, dollars * 1e6));
    }

    function _state() internal view returns (RiskState state) {
        (state,) = authority.stateOf(subject);
    }

    function _isState(RiskState wanted, string memory what) internal view {
        eq(uint256(_state()), uint256(wanted), what);
    }

    function _mark() internal view returns (uint256) {
        return breaker.standingOf(subject).mark;
    }

    function _equity() internal view returns (uint256 equity) {
        (equity,,) = breaker.equityOf(subject);
    }

    function _unknown(bytes4 reason) internal {
        vm.expectRevert(abi.encodeWithSelector(IEquityBreaker.EquityUnknown.selector, reason));
    }

    function _near(uint256 got, uint256 wanted, string memory what) internal pure {
        uint256 distance = got > wanted ? got - wanted : wanted - got;
        if (distance > wanted / 1e9 + 1) eq(got, wanted, what);
    }
}
