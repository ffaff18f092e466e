// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IVenueAdapter} from "../src/interfaces/IVenueAdapter.sol";
import {TickPrice} from "../src/libraries/TickPrice.sol";
import {IPerpClearingHouse, PerpV2Adapter} from "../src/venues/PerpV2Adapter.sol";
import {IUniswapV3RouterLike, UniswapV3Adapter} from "../src/venues/UniswapV3Adapter.sol";
import {AdapterBehaviour} from "./AdapterBehaviour.sol";
import {Assertions} from "./Vm.sol";

/// What the adapters read of their venues; the venues themselves are exercised on the devnet.
contract VenueReads {
    int256 public getSize;
    int256 public getNotional;
    uint160 public sqrtPrice;
    uint8 public decimals;
    uint256 public balance;
    int56 public tickDelta;
    uint32 public seenPeriod;

    function set(int256 size, int256 notional, uint160 sqrtPrice_) external {
        (getSize, getNotional, sqrtPrice) = (size, notional, sqrtPrice_);
    }

    function setToken(uint8 decimals_, uint256 balance_) external {
        (decimals, balance) = (decimals_, balance_);
    }

    function setTickDelta(int56 delta) external {
        tickDelta = delta;
    }

    function getAccountBalance() external view returns (address) {
        return address(this);
    }

    function getExchange() external view returns (address) {
        return address(this);
    }

    function getMarketRegistry() external view returns (address) {
        return address(this);
    }

    function hasPool(address base) external view returns (bool) {
        return base == address(this);
    }

    function getTakerPositionSize(address, address) external view returns (int256) {
        return getSize;
    }

    function getTakerOpenNotional(address, address) external view returns (int256) {
        return getNotional;
    }

    function getMarkPrice(address) external pure returns (uint256) {
        return 200e18;
    }

    function getIndexPrice(uint256) external pure returns (uint256) {
        return 210e18;
    }

    function getSqrtMarketTwapX96(address, uint32) external view returns (uint160) {
        return sqrtPrice;
    }

    function getPool(address a, address, uint24 fee) external view returns (address) {
        return fee == 3000 && a != address(0) ? address(this) : address(0);
    }

    function observe(uint32[] calldata ago) external view returns (int56[] memory ticks, uint160[] memory liquidity) {
        (ticks, liquidity) = (new int56[](2), new uint160[](2));
        require(ago.length == 2 && ago[1] == 0, "ago");
        (ticks[0], ticks[1]) = (1_000_000, 1_000_000 + tickDelta);
    }

    function balanceOf(address) external view returns (uint256) {
        return balance;
    }
}

contract PerpV2AdapterTest is AdapterBehaviour {
    VenueReads private venue = new VenueReads();
    PerpV2Adapter private adapter = new PerpV2Adapter(address(venue), 60);
    bytes private market = abi.encode(address(venue));

    function _subject() internal override returns (Subject memory) {
        venue.set(-2e18, 390e18, 1 << 100);
        address[] memory targets = new address[](1);
        targets[0] = address(venue);
        return Subject(adapter, address(1), market, 2e18, 1, 200e18, targets, abi.encode(address(1)));
    }

    function _empty() internal override {
        venue.set(0, 0, 1 << 100);
    }

    function test_position_of_long_and_short() public {
        venue.set(2e18, -390e18, 0);
        IVenueAdapter.Position memory p = adapter.position(address(1), market);
        eq(p.size, 2e18, "long");
        eq(p.notional, 400e18, "notional");
        eq(p.debt, 390e18, "debt");
        venue.set(-2e18, 390e18, 0);
        p = adapter.position(address(1), market);
        eq(p.size, -2e18, "short");
        eq(p.notional, 400e18, "notional");
        eq(p.debt, 420e18, "debt is the base at index price");
        venue.set(0, -5e18, 0);
        p = adapter.position(address(1), market);
        eq(p.notional + p.debt, 0, "no position");
    }

    function testFuzz_price_is_the_square_of_the_root(uint160 root) public {
        root = uint160(bound(root, 1 << 70, 1 << 120));
        venue.set(0, 0, root);
        // plain: root^2 * 1e18 / 2^192, each factor small enough here
        uint256 plain = (uint256(root) * root >> 96) * 1e18 >> 96;
        eq(adapter.venuePrice(market), plain, "price");
    }

    function test_whole_position_is_closed_and_a_part_is_traded_against() public {
        venue.set(2e18, -390e18, 0);
        Execution[] memory calls = adapter.reduceCalls(address(1), market, 2e18, 190e18);
        eq(calls.length, 1, "calls");
        eq(calls[0].target, address(venue), "target");
        eq(
            calls[0].callData,
            abi.encodeCall(
                IPerpClearingHouse.closePosition,
                (IPerpClearingHouse.ClosePositionParams(address(venue), 0, 380e18, block.timestamp, 0))
            ),
            "close"
        );
        calls = adapter.reduceCalls(address(1), market, 1e18 + 1, 190e18);
        eq(calls[0].callData, _open(true, 1e18 + 1, 190e18 + 190), "sell, minimum rounded up");
        venue.set(-2e18, 390e18, 0);
        calls = adapter.reduceCalls(address(1), market, 1e18 + 1, 190.5e18);
        eq(calls[0].callData, _open(false, 1e18 + 1, 190.5e18 + 190), "buy back, maximum rounded down");
    }

    function _open(bool sale, uint256 size, uint256 quote) private view returns (bytes memory) {
        return abi.encodeCall(
            IPerpClearingHouse.openPosition,
            (IPerpClearingHouse.OpenPositionParams(address(venue), sale, sale, size, quote, block.timestamp, 0, 0))
        );
    }

    function test_no_position_too_much_no_limit_or_an_unknown_market_are_refused() public {
        venue.set(2e18, 0, 0);
        vm.expectPartialRevert(PerpV2Adapter.NotReducing.selector);
        adapter.reduceCalls(address(1), market, 2e18 + 1, 1e18);
        vm.expectPartialRevert(PerpV2Adapter.NotReducing.selector);
        adapter.reduceCalls(address(1), market, 0, 1e18);
        vm.expectPartialRevert(PerpV2Adapter.InvalidLimit.selector);
        adapter.reduceCalls(address(1), market, 1e18, 0);
        bytes[3] memory unknown =
            [abi.encode(address(1)), abi.encode(uint256(uint160(address(venue))) | 1 << 200), abi.encodePacked(venue)];
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(PerpV2Adapter.UnknownMarket.selector, unknown[i]));
            adapter.position(address(1), unknown[i]);
        }
        vm.expectPartialRevert(PerpV2Adapter.InvalidLimit.selector);
        new PerpV2Adapter(address(venue), 9);
    }
}

contract UniswapV3AdapterTest is AdapterBehaviour {
    VenueReads private low = new VenueReads();
    VenueReads private high = new VenueReads();
    UniswapV3Adapter private adapter;
    bytes private market;
    address private constant ROUTER = address(0xABCD);

    function setUp() public {
        if (address(low) > address(high)) (low, high) = (high, low);
        low.setToken(18, 3e18 + 7);
        high.setToken(6, 50e6);
        adapter = new UniswapV3Adapter(address(low), ROUTER, 60);
        market = abi.encode(address(low), address(high), uint24(3000));
        low.setTickDelta(-201_225 * 60); // 1.0001^-201225 = 1.8256e-9, so 1825.6 units of 6 decimals for one of 18
    }

    function _subject() internal view override returns (Subject memory) {
        address[] memory targets = new address[](2);
        (targets[0], targets[1]) = (address(low), ROUTER);
        bytes memory unknown = abi.encode(address(low), address(high), uint24(500));
        return Subject(adapter, address(1), market, 3e18 + 7, 1, 1825e18, targets, unknown);
    }

    function _empty() internal override {
        low.setToken(18, 0);
    }

    function test_price_in_both_directions() public {
        uint256 price = adapter.venuePrice(market);
        isTrue(price > 1825e18 && price < 1827e18, "asset is token0");
        bytes memory reverse = abi.encode(address(high), address(low), uint24(3000));
        uint256 inverse = adapter.venuePrice(reverse);
        uint256 product = price * inverse / 1e18;
        isTrue(product > 1e18 - 1e10 && product < 1e18 + 1e10, "reciprocal");
        low.setTickDelta(-201_225 * 60 - 1); // mean rounds down
        isTrue(adapter.venuePrice(market) < price, "floor");
    }

    function test_position_is_the_balance() public view {
        IVenueAdapter.Position memory p = adapter.position(address(1), market);
        eq(p.size, 3e18 + 7, "size");
        eq(p.debt, 0, "debt");
        isTrue(p.notional > 3 * 1825e18 && p.notional < 3 * 1827e18, "notional");
        p = adapter.position(address(1), abi.encode(address(high), address(low), uint24(3000)));
        eq(p.size, 50e18, "6 decimals");
    }

    function test_reduction_approves_and_sells_exactly() public view {
        Execution[] memory calls = adapter.reduceCalls(address(1), market, 1e18 + 1, 1800e18);
        _check(calls, address(low), address(high), 1e18 + 1, 1800e6 + 1);
        calls = adapter.reduceCalls(address(1), market, 3e18 + 7, 1800e18);
        _check(calls, address(low), address(high), 3e18 + 7, 5400e6 + 1);
        bytes memory reverse = abi.encode(address(high), address(low), uint24(3000));
        calls = adapter.reduceCalls(address(1), reverse, 10e18 + 1, 0.0005e18);
        _check(calls, address(high), address(low), 10e6, 0.005e18 + 1);
    }

    function _check(Execution[] memory calls, address asset, address quote, uint256 amount, uint256 minimum)
        private
        view
    {
        eq(calls.length, 2, "calls");
        eq(calls[0].target, asset, "asset");
        eq(calls[0].callData, abi.encodeCall(IERC20.approve, (ROUTER, amount)), "approve");
        eq(calls[1].target, ROUTER, "router");
        eq(
            calls[1].callData,
            abi.encodeCall(
                IUniswapV3RouterLike.exactInputSingle,
                (IUniswapV3RouterLike.ExactInputSingleParams(
                        asset, quote, 3000, address(1), block.timestamp, amount, minimum, 0
                    ))
            ),
            "swap"
        );
    }

    function test_too_much_dust_no_limit_or_an_unknown_market_are_refused() public {
        vm.expectPartialRevert(UniswapV3Adapter.NotReducing.selector);
        adapter.reduceCalls(address(1), market, 3e18 + 8, 1e18);
        vm.expectPartialRevert(UniswapV3Adapter.NotReducing.selector);
        adapter.reduceCalls(address(1), market, 0, 1e18);
        vm.expectPartialRevert(UniswapV3Adapter.InvalidLimit.selector);
        adapter.reduceCalls(address(1), market, 1e18, 0);
        vm.expectPartialRevert(UniswapV3Adapter.UnknownMarket.selector);
        adapter.venuePrice(abi.encode(address(low), address(high), uint24(500)));
        vm.expectPartialRevert(UniswapV3Adapter.UnknownMarket.selector);
        adapter.venuePrice("");
        vm.expectPartialRevert(UniswapV3Adapter.InvalidLimit.selector);
        new UniswapV3Adapter(address(low), ROUTER, 0);
    }
}

contract TickPriceTest is Assertions {
    function price(int256 tick, int256 shift) external pure returns (uint256) {
        return TickPrice.wad(tick, shift);
    }

    /// 1.0001^n by squaring, 1e27 = one, for n >= 0 and results that fit.
    function _plain(uint256 n) private pure returns (uint256 result) {
        result = 1e27;
        uint256 base = 1.0001e27;
        for (; n != 0; n >>= 1) {
            if (n & 1 == 1) result = result * base / 1e27;
            base = base * base / 1e27;
            if (base > 1e38) base = 1e38; // not reached for the ticks tested
        }
    }

    function testFuzz_is_the_power_computed_plainly(uint256 seed) public view {
        uint256 n = bound(seed, 0, 120_000);
        uint256 plain = _plain(n) / 1e9;
        uint256 got = this.price(int256(n), 0);
        isTrue(got <= plain + plain / 1e12 && got + plain / 1e12 + 1 >= plain, "positive tick");
        uint256 inverse = this.price(-int256(n), 0);
        uint256 wanted = 1e36 / plain;
        isTrue(inverse <= wanted + wanted / 1e12 + 1 && inverse + wanted / 1e12 + 2 >= wanted, "negative tick");
    }

    function testFuzz_decimals_shift_the_price(uint256 seed, uint256 shift) public view {
        int256 tick = int256(bound(seed, 0, 200_000)) - 100_000;
        shift = bound(shift, 0, 6);
        uint256 wanted = this.price(tick, 0) * 10 ** shift;
        uint256 got = this.price(tick, int256(shift));
        uint256 tolerance = wanted / 1e12 + 10 ** shift;
        isTrue(got <= wanted + tolerance && got + tolerance >= wanted, "shift");
    }

    function test_known_prices_and_the_ends() public {
        eq(this.price(0, 0), 1e18, "one");
        isTrue(this.price(-887_272, 0) == 0, "smallest rounds to nothing");
        isTrue(this.price(887_272, 0) > 3.3e56, "largest");
        vm.expectRevert(abi.encodeWithSelector(TickPrice.TickOutOfRange.selector, int256(887_273)));
        this.price(887_273, 0);
        eq(TickPrice.mean(10, 16, 4), 1, "up");
        eq(TickPrice.mean(16, 10, 4), -2, "toward negative infinity");
        eq(TickPrice.mean(18, 10, 4), -2, "exact");
    }
}
