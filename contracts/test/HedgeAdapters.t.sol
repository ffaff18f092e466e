// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ILyraCache, ILyraMarket, ILyraViewer} from "../src/venues/LyraAdapter.sol";
import {ILyraHoldings, LyraDelta} from "../src/venues/LyraDelta.sol";
import {IPerpClearingHouse, PerpV2Adapter} from "../src/venues/PerpV2Adapter.sol";
import {PerpV2HedgeAdapter} from "../src/venues/PerpV2HedgeAdapter.sol";
import {IUniswapV3QuoterLike, UniswapV3RouteAdapter} from "../src/venues/UniswapV3RouteAdapter.sol";
import {UniswapV3Adapter} from "../src/venues/UniswapV3Adapter.sol";
import {VenueReads} from "./Venues.t.sol";
import {Assertions} from "./Vm.sol";

/// Answers a quote, and remembers what was asked.
contract QuoterReads {
    uint256 public out;
    uint256 public amountIn;
    uint24 public fee;

    function set(uint256 out_) external {
        out = out_;
    }

    function quoteExactInputSingle(IUniswapV3QuoterLike.QuoteExactInputSingleParams calldata params)
        external
        returns (uint256, uint160, uint32, uint256)
    {
        (amountIn, fee) = (params.amountIn, params.fee);
        return (out, 0, 0, 0);
    }
}

contract UniswapV3RouteAdapterTest is Assertions {
    VenueReads private asset = new VenueReads();
    VenueReads private money = new VenueReads();
    QuoterReads private quoter = new QuoterReads();
    UniswapV3RouteAdapter private adapter =
        new UniswapV3RouteAdapter(address(asset), address(asset), address(quoter), 60);
    bytes private market = abi.encode(address(asset), address(money), uint24(3000));

    function test_a_quote_is_a_price_in_whole_units_after_fees() public {
        asset.setToken(8, 0);
        money.setToken(6, 0);
        quoter.set(60_000e6);
        eq(adapter.quote(market, 1.5e18), 40_000e18, "per whole token");
        eq(quoter.amountIn(), 1.5e8, "in token units");
        eq(quoter.fee(), 3000, "of that pool");
    }

    function test_dust_and_unknown_pools_have_no_quote() public {
        asset.setToken(8, 0);
        money.setToken(6, 0);
        vm.expectRevert(abi.encodeWithSelector(UniswapV3Adapter.NotReducing.selector, 0, 1e9));
        adapter.quote(market, 1e9);
        bytes memory unknown = abi.encode(address(asset), address(money), uint24(500));
        vm.expectRevert(abi.encodeWithSelector(UniswapV3Adapter.UnknownMarket.selector, unknown));
        adapter.quote(unknown, 1e18);
    }
}

contract PerpV2HedgeAdapterTest is Assertions {
    VenueReads private venue = new VenueReads();
    PerpV2HedgeAdapter private adapter = new PerpV2HedgeAdapter(address(venue), 60);
    bytes private market = abi.encode(address(venue));

    function _order(int256 size, uint256 limit)
        private
        view
        returns (IPerpClearingHouse.OpenPositionParams memory order)
    {
        Execution[] memory calls = adapter.tradeCalls(address(1), market, size, limit);
        eq(calls.length, 1, "one call");
        eq(calls[0].target, address(venue), "target");
        bytes memory data = calls[0].callData;
        bytes memory arguments = new bytes(data.length - 4);
        for (uint256 i = 4; i < data.length; ++i) {
            arguments[i - 4] = data[i];
        }
        return abi.decode(arguments, (IPerpClearingHouse.OpenPositionParams));
    }

    function test_a_purchase_pays_at_most_and_a_sale_brings_at_least_the_limit_rounded_for_the_account() public view {
        IPerpClearingHouse.OpenPositionParams memory order = _order(3, 0.5e18);
        isTrue(!order.isBaseToQuote && !order.isExactInput, "a purchase of exactly so much base");
        eq(order.amount, 3, "amount");
        eq(order.oppositeAmountBound, 1, "at most, down");
        order = _order(-3, 0.5e18);
        isTrue(order.isBaseToQuote && order.isExactInput, "a sale of exactly so much base");
        eq(order.amount, 3, "amount");
        eq(order.oppositeAmountBound, 2, "at least, up");
    }

    function test_no_size_no_bound_and_an_unknown_market_are_refused() public {
        vm.expectRevert(abi.encodeWithSelector(PerpV2Adapter.NotReducing.selector, 0, 0));
        adapter.tradeCalls(address(1), market, 0, 1e18);
        vm.expectRevert(abi.encodeWithSelector(PerpV2Adapter.InvalidLimit.selector, 0.5e18));
        adapter.tradeCalls(address(1), market, 1, 0.5e18);
        bytes memory unknown = abi.encode(address(3));
        vm.expectRevert(abi.encodeWithSelector(PerpV2Adapter.UnknownMarket.selector, unknown));
        adapter.tradeCalls(address(1), unknown, 1e18, 1e18);
    }
}

/// What the delta reads of Lyra, all in one contract; a call's delta is 0.6 while the vol is as it should be.
contract LyraHoldingsReads {
    ILyraHoldings.Holding[] private _held;
    uint256 public expiry;
    bool public silent;

    function hold(uint8 kind, uint256 amount, uint8 state) external {
        _held.push(ILyraHoldings.Holding(_held.length + 1, 3, kind, amount, 0, state));
    }

    function set(uint256 expiry_, bool silent_) external {
        (expiry, silent) = (expiry_, silent_);
    }

    function marketAddresses(address market) external view returns (ILyraViewer.Addresses memory a) {
        if (market != address(this)) return a;
        a.greekCache = a.optionMarket = a.optionToken = market;
    }

    function getOwnerPositions(address owner) external view returns (ILyraHoldings.Holding[] memory) {
        return owner == address(0xA) ? _held : new ILyraHoldings.Holding[](0);
    }

    function getStrikeAndBoard(uint256 id)
        external
        view
        returns (ILyraMarket.Strike memory strike, ILyraMarket.Board memory board)
    {
        (strike.id, strike.strikePrice, strike.skew) = (id, 1500e18, 1.1e18);
        (board.expiry, board.iv) = (expiry, 0.8e18);
    }

    function getGreekCacheParams() external pure returns (ILyraCache.Parameters memory p) {
        p.rateAndCarry = 0.05e18;
    }

    fallback(bytes calldata data) external returns (bytes memory) {
        if (silent || bytes4(data) != bytes4(keccak256("delta(BlackScholes.BlackScholesInputs)"))) return "";
        (uint256 left, uint256 vol, uint256 spot, uint256 strike, int256 rate) =
            abi.decode(data[4:], (uint256, uint256, uint256, uint256, int256));
        require(
            left == expiry - block.timestamp && vol == 0.88e18 && spot == 1600e18 && strike == 1500e18
                && rate == 0.05e18
        );
        return abi.encode(int256(0.6e18), int256(-0.4e18));
    }
}

contract LyraDeltaTest is Assertions {
    address private constant HOLDER = address(0xA);
    LyraHoldingsReads private venue = new LyraHoldingsReads();
    LyraDelta private source = new LyraDelta(address(venue), address(venue), address(venue));

    function setUp() public {
        vm.warp(1_700_000_000);
        venue.set(_now() + 7 days, false);
    }

    function _delta() private view returns (int256) {
        return source.delta(HOLDER, 1600e18);
    }

    function test_every_kind_has_its_sign_and_they_add_up() public {
        eq(_delta(), 0, "nothing held");
        int256[5] memory deltas = [int256(0.6e18), -0.4e18, -0.6e18, -0.6e18, 0.4e18];
        int256 sum = 0;
        for (uint8 kind = 0; kind < 5; ++kind) {
            uint256 amount = uint256(kind) + 2;
            venue.hold(kind, amount * 1e18, 1);
            sum += deltas[kind] * int256(amount);
            eq(_delta(), sum, "sum");
        }
        eq(source.delta(address(0xB), 1600e18), 0, "another's");
    }

    function test_what_is_closed_empty_or_expired_has_none() public {
        venue.hold(0, 5e18, 2);
        venue.hold(0, 0, 1);
        eq(_delta(), 0, "closed and empty");
        venue.hold(0, 5e18, 1);
        eq(_delta(), 3e18, "open");
        venue.set(_now(), false);
        eq(_delta(), 0, "expired");
    }

    function test_too_many_positions_and_a_library_that_does_not_answer_are_told() public {
        for (uint256 i = 0; i < 32; ++i) {
            venue.hold(0, 1e18, 1);
        }
        eq(_delta(), 32 * 0.6e18, "as many as can be summed");
        venue.hold(0, 1e18, 1);
        vm.expectRevert(abi.encodeWithSelector(LyraDelta.TooMany.selector, HOLDER, 33));
        source.delta(HOLDER, 1600e18);
        LyraHoldingsReads other = new LyraHoldingsReads();
        other.hold(0, 1e18, 1);
        other.set(_now() + 1, true);
        LyraDelta mute = new LyraDelta(address(other), address(other), address(other));
        vm.expectRevert(abi.encodeWithSelector(LyraDelta.InvalidVenue.selector, address(other)));
        mute.delta(HOLDER, 1600e18);
    }

    function test_it_is_built_on_a_market_of_the_viewer_and_a_library_only() public {
        vm.expectRevert(abi.encodeWithSelector(LyraDelta.InvalidVenue.selector, address(1)));
        new LyraDelta(address(venue), address(1), address(venue));
        vm.expectRevert(abi.encodeWithSelector(LyraDelta.InvalidVenue.selector, address(0)));
        new LyraDelta(address(venue), address(0), address(venue));
        vm.expectRevert(abi.encodeWithSelector(LyraDelta.InvalidVenue.selector, address(1)));
        new LyraDelta(address(venue), address(venue), address(1));
    }
}
