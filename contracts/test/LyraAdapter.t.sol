// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IVenueAdapter} from "../src/interfaces/IVenueAdapter.sol";
import {ILyraCache, ILyraMarket, ILyraPricer, ILyraViewer, LyraAdapter} from "../src/venues/LyraAdapter.sol";
import {AdapterBehaviour} from "./AdapterBehaviour.sol";

/// What the adapter reads of Lyra, all in one contract; the market itself is exercised on the devnet. Its library values a call at a tenth
/// of the underlying's price, a put at a tenth of the strike, and answers a settable delta.
contract LyraReads {
    struct Held {
        uint256 strikeId;
        uint8 kind;
        uint256 amount;
        uint256 collateral;
        uint8 state;
        address owner;
    }

    Held private _held;
    int256 private _delta = 0.5e18;
    uint256 private _expiry;
    uint256 private _vol = 1e18;
    bool private _silent;

    error NoOwner();

    function set(uint8 kind, uint256 amount, uint256 collateral, uint8 state, address owner) external {
        _held = Held(3, kind, amount, collateral, state, owner);
    }

    function setBoard(uint256 expiry, uint256 vol, int256 delta) external {
        (_expiry, _vol, _delta) = (expiry, vol, delta);
    }

    function setSilent(bool silent) external {
        _silent = silent;
    }

    function synthetixAdapter() external view returns (address) {
        return address(this);
    }

    function marketAddresses(address market) external view returns (ILyraViewer.Addresses memory a) {
        if (market != address(this)) return a;
        a.greekCache = a.optionMarket = a.optionMarketPricer = a.optionToken = a.quoteAsset = market;
    }

    function positions(uint256 id) external view returns (uint256, uint256, uint8, uint256, uint256, uint8) {
        if (id != 7) return (0, 0, 0, 0, 0, 0);
        return (7, _held.strikeId, _held.kind, _held.amount, _held.collateral, _held.state);
    }

    function ownerOf(uint256) external view returns (address) {
        if (_held.owner == address(0)) revert NoOwner();
        return _held.owner;
    }

    function getStrikeAndBoard(uint256 id)
        external
        view
        returns (ILyraMarket.Strike memory strike, ILyraMarket.Board memory board)
    {
        (strike.id, strike.strikePrice, strike.skew) = (id, 2000e18, 1e18);
        (board.id, board.expiry, board.iv) = (1, _expiry, _vol);
    }

    function getSpotPriceForMarket(address) external pure returns (uint256) {
        return 1800e18;
    }

    function getGreekCacheParams() external pure returns (ILyraCache.Parameters memory p) {
        p.rateAndCarry = 0.05e18;
    }

    function getPricingParams() external pure returns (ILyraPricer.Pricing memory p) {
        (p.standardSize, p.skewAdjustmentFactor) = (10e18, 0.75e18);
    }

    function getTradeLimitParams() external pure returns (ILyraPricer.Limits memory l) {
        (l.minDelta, l.tradingCutoff) = (0.15e18, 12 hours);
        (l.minBaseIV, l.maxBaseIV) = (0.35e18, 2e18);
        (l.minSkew, l.maxSkew) = (0.5e18, 1.5e18);
        (l.minVol, l.maxVol) = (0.55e18, 3e18);
    }

    fallback(bytes calldata data) external returns (bytes memory) {
        if (_silent) return "";
        LyraAdapter.Inputs memory inputs = abi.decode(data[4:], (LyraAdapter.Inputs));
        if (bytes4(data) == bytes4(keccak256("optionPrices(BlackScholes.BlackScholesInputs)"))) {
            require(inputs.rateDecimal == 0.05e18 && inputs.volatilityDecimal == _vol, "inputs");
            return abi.encode(inputs.spotDecimal / 10, inputs.strikePriceDecimal / 10);
        }
        require(bytes4(data) == bytes4(keccak256("delta(BlackScholes.BlackScholesInputs)")), "selector");
        return abi.encode(_delta, _delta - 1e18);
    }
}

contract LyraAdapterTest is AdapterBehaviour {
    LyraReads private lyra = new LyraReads();
    LyraAdapter private adapter;
    bytes private market = abi.encode(uint256(7));
    address private constant FUND = address(0xF00D);

    function setUp() public {
        vm.warp(1_000_000);
        adapter = new LyraAdapter(address(lyra), address(lyra), address(lyra));
        lyra.setBoard(block.timestamp + 30 days, 1e18, 0.5e18);
    }

    function _subject() internal override returns (Subject memory) {
        _hold(3, 3000e18);
        address[] memory targets = new address[](1);
        targets[0] = address(lyra);
        return Subject(adapter, FUND, market, 10e18, 1, 1800e18, targets, abi.encode(uint256(8)));
    }

    function _empty() internal override {
        lyra.set(0, 0, 0, 2, address(0));
    }

    function _hold(uint8 kind, uint256 collateral) private {
        lyra.set(kind, 10e18, collateral, 1, FUND);
    }

    function _trade(Execution memory call, bytes4 selector) private view returns (ILyraMarket.Trade memory trade) {
        eq(call.target, address(lyra), "market");
        eq(call.value, 0, "value");
        bytes memory data = call.callData;
        bytes4 found;
        assembly ("memory-safe") {
            found := mload(add(data, 0x20))
            data := add(data, 4)
            mstore(data, 256)
        }
        isTrue(found == selector, "selector");
        trade = abi.decode(data, (ILyraMarket.Trade));
    }

    function test_sign_follows_what_the_position_gains_from() public {
        int256[5] memory sizes = [int256(10e18), -10e18, -10e18, -10e18, 10e18];
        uint256[5] memory debts = [uint256(0), 0, 18_000e18, 18_000e18, 20_000e18];
        for (uint8 kind = 0; kind < 5; ++kind) {
            _hold(kind, 5e18);
            IVenueAdapter.Position memory p = adapter.position(FUND, market);
            eq(p.size, sizes[kind], "size");
            eq(p.debt, debts[kind], "debt");
            eq(p.notional, kind == 1 || kind == 4 ? 2000e18 : 1800e18, "notional");
        }
        eq(adapter.venuePrice(market), 1800e18, "price");
    }

    function test_closed_or_foreign_positions_are_nothing() public {
        lyra.set(0, 0, 0, 2, address(0));
        eq(adapter.position(FUND, market).size, 0, "closed");
        lyra.set(0, 10e18, 0, 1, address(1));
        eq(adapter.position(FUND, market).size, 0, "foreign");
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.NotReducing.selector, 0, 1));
        adapter.reduceCalls(FUND, market, 1, 1e18);
    }

    function test_a_long_is_sold_for_what_it_is_worth_at_the_limit() public {
        _hold(0, 0);
        Execution[] memory calls = adapter.reduceCalls(FUND, market, 4e18 + 1, 1700e18);
        eq(calls.length, 1, "calls");
        ILyraMarket.Trade memory t = _trade(calls[0], ILyraMarket.closePosition.selector);
        eq(t.strikeId, 3, "strike");
        eq(t.positionId, 7, "position");
        eq(t.amount, 4e18 + 1, "amount");
        eq(t.minTotalCost, 4 * 170e18 + 170, "minimum, rounded up");
        eq(t.maxTotalCost, type(uint256).max, "no maximum");
        eq(t.setCollateralTo, 0, "collateral");
    }

    function test_a_short_is_bought_back_for_at_most_that_and_allows_no_more() public {
        _hold(3, 3000e18);
        Execution[] memory calls = adapter.reduceCalls(FUND, market, 4e18 + 1, 1900e18);
        eq(calls.length, 3, "calls");
        ILyraMarket.Trade memory t = _trade(calls[1], ILyraMarket.closePosition.selector);
        uint256 most = 4 * 190e18 + 190;
        eq(t.minTotalCost, 0, "no minimum");
        eq(t.maxTotalCost, most, "maximum");
        eq(t.setCollateralTo, 1800e18 - 300, "share of the collateral");
        eq(calls[0].target, address(lyra), "quote");
        eq(calls[0].callData, abi.encodeCall(IERC20.approve, (address(lyra), most)), "allowance");
        eq(calls[2].callData, abi.encodeCall(IERC20.approve, (address(lyra), 0)), "taken back");
        calls = adapter.reduceCalls(FUND, market, 10e18, 1900e18);
        t = _trade(calls[1], ILyraMarket.closePosition.selector);
        eq(t.setCollateralTo, 0, "whole: all collateral comes back");
    }

    /// Each limit by itself turns an ordinary close into a forced one.
    function test_a_close_that_the_market_would_refuse_is_forced() public {
        uint256 expiry = block.timestamp + 30 days;
        _forced(0, 4e18, block.timestamp + 12 hours - 1, 1e18, 0.5e18, true);
        _forced(0, 4e18, block.timestamp + 12 hours, 1e18, 0.5e18, false);
        _forced(0, 4e18, expiry, 1e18, 0.15e18 - 1, true);
        _forced(0, 4e18, expiry, 1e18, 0.15e18, false);
        _forced(0, 4e18, expiry, 1e18, 0.85e18 + 1, true);
        _forced(0, 4e18, expiry, 1e18, 0.85e18, false);
        _forced(0, 4e18, expiry, 0.555e18, 0.5e18, true); // 0.555 - 0.004, skew 0.997: 0.549 < 0.55
        _forced(3, 4e18, expiry, 0.555e18, 0.5e18, false); // a purchase has no lower limit
        _forced(3, 4e18, expiry, 1.997e18, 0.5e18, true); // 1.997 + 0.004 > 2
        _forced(0, 4e18, expiry, 1.997e18, 0.5e18, false); // a sale has no upper limit
        _forced(0, 8000e18, expiry, 1e18, 0.5e18, true); // moves volatility below zero
    }

    function _forced(uint8 kind, uint256 size, uint256 expiry, uint256 vol, int256 delta, bool expected) private {
        lyra.set(kind, 10_000e18, 3000e18, 1, FUND);
        lyra.setBoard(expiry, vol, delta);
        Execution[] memory calls = adapter.reduceCalls(FUND, market, size, 1700e18);
        bytes4 selector = expected ? ILyraMarket.forceClosePosition.selector : ILyraMarket.closePosition.selector;
        eq(_trade(calls[kind == 0 ? 0 : 1], selector).amount, size, "amount");
    }

    function test_expired_oversized_or_unlimited_reductions_are_refused() public {
        _hold(0, 0);
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.NotReducing.selector, 10e18, 10e18 + 1));
        adapter.reduceCalls(FUND, market, 10e18 + 1, 1e18);
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.NotReducing.selector, 10e18, 0));
        adapter.reduceCalls(FUND, market, 0, 1e18);
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.InvalidLimit.selector, 0));
        adapter.reduceCalls(FUND, market, 1e18, 0);
        lyra.setBoard(block.timestamp, 1e18, 0.5e18);
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.Expired.selector, 7, block.timestamp));
        adapter.reduceCalls(FUND, market, 1e18, 1e18);
    }

    function test_unknown_markets_and_venues_are_refused() public {
        _hold(0, 0);
        bytes[3] memory unknown = [abi.encode(uint256(8)), abi.encode(uint256(0)), abi.encodePacked(uint128(7))];
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(LyraAdapter.UnknownMarket.selector, unknown[i]));
            adapter.position(FUND, unknown[i]);
            vm.expectRevert(abi.encodeWithSelector(LyraAdapter.UnknownMarket.selector, unknown[i]));
            adapter.venuePrice(unknown[i]);
        }
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.InvalidVenue.selector, address(1)));
        new LyraAdapter(address(lyra), address(1), address(lyra));
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.InvalidVenue.selector, address(2)));
        new LyraAdapter(address(lyra), address(lyra), address(2));
        lyra.setSilent(true);
        vm.expectRevert(abi.encodeWithSelector(LyraAdapter.InvalidVenue.selector, address(lyra)));
        adapter.position(FUND, market);
    }
}
