// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IVenueAdapter} from "../src/interfaces/IVenueAdapter.sol";
import {AaveV3UnwindAdapter} from "../src/venues/AaveV3UnwindAdapter.sol";
import {IUniswapV3RouterLike, UniswapV3Adapter} from "../src/venues/UniswapV3Adapter.sol";
import {AdapterBehaviour} from "./AdapterBehaviour.sol";
import {Lending, Token} from "./Lending.sol";

/// Factory, pool and router of Uniswap in one contract: it fills at 2,000 whatever the amount, and its mean says so. The real ones, and the real
/// Aave, are tried on the devnet.
contract FlatPool {
    error TooLittle(uint256 amount, uint256 minimum);

    /// 1.0001^-200311 = 2.0e-9: units of 6 decimals for one of 18.
    int56 private constant TICK = -200_311;
    Token private immutable WETH;
    Token private immutable USDC;

    constructor(Token weth, Token usdc) {
        (WETH, USDC) = (weth, usdc);
    }

    function getPool(address a, address b, uint24 fee) external view returns (address) {
        return a == address(WETH) && b == address(USDC) && fee == 500 ? address(this) : address(0);
    }

    function observe(uint32[] calldata ago) external view returns (int56[] memory ticks, uint160[] memory liquidity) {
        (ticks, liquidity) = (new int56[](2), new uint160[](2));
        ticks[1] = (address(WETH) < address(USDC) ? TICK : -TICK) * int56(uint56(ago[0]));
    }

    function exactInputSingle(IUniswapV3RouterLike.ExactInputSingleParams calldata p) external returns (uint256 out) {
        WETH.transferFrom(msg.sender, address(this), p.amountIn);
        out = p.amountIn * 2000 / 1e12;
        if (out < p.amountOutMinimum) revert TooLittle(out, p.amountOutMinimum);
        USDC.mint(p.recipient, out);
    }
}

contract AaveV3UnwindAdapterTest is AdapterBehaviour {
    Token private weth = new Token("WETH", 18);
    Token private usdc = new Token("USDC", 6);
    Lending private lending = new Lending(weth, usdc);
    FlatPool private pool = new FlatPool(weth, usdc);
    AaveV3UnwindAdapter private adapter = new AaveV3UnwindAdapter(address(lending), address(pool), address(pool), 60);
    bytes private market = abi.encode(address(weth), address(usdc), uint24(500));
    address private constant FUND = address(0xF00D);
    /// 1 % below what the pool fills at.
    uint256 private constant LIMIT = 1980e18;

    function _subject() internal override returns (Subject memory s) {
        lending.open(FUND, 10e18, 0);
        address[] memory targets = new address[](4);
        (targets[0], targets[1], targets[2], targets[3]) =
        (address(lending), address(pool), address(weth), address(usdc));
        bytes memory unknown = abi.encode(address(weth), address(usdc), uint24(3000));
        return Subject(adapter, FUND, market, 10e18, 2, LIMIT, targets, unknown);
    }

    function _empty() internal override {
        lending.open(FUND, 0, 0);
    }

    /// Make the calls as the account would, all or none.
    function _reduce(uint256 size) private {
        Execution[] memory calls = adapter.reduceCalls(FUND, market, size, LIMIT);
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(FUND);
            (bool success,) = calls[i].target.call(calls[i].callData);
            isTrue(success, "a call failed");
            if (calls[i].target == address(lending) && lending.owed(FUND) != 0) {
                isTrue(lending.health(FUND).factor >= adapter.WITHDRAWAL_FLOOR(), "below the floor on the way");
            }
        }
    }

    function _nothingAllowed() private view {
        eq(weth.allowance(FUND, address(pool)) + usdc.allowance(FUND, address(lending)), 0, "an allowance is left");
    }

    function test_a_position_is_what_is_supplied_and_its_debt_what_is_owed() public {
        lending.open(FUND, 10e18, 11_000e6);
        IVenueAdapter.Position memory p = adapter.position(FUND, market);
        eq(p.size, 10e18, "size");
        eq(p.debt, 11_000e18, "debt");
        isTrue(p.notional > 19_990e18 && p.notional < 20_010e18, "notional at the pool's mean");
    }

    /// Health 1.5: one withdrawal cannot take it all.
    function test_a_loan_is_unwound_in_rounds_until_nothing_is_owed_or_supplied() public {
        lending.open(FUND, 10e18, 11_067e6);
        isTrue(adapter.reduceCalls(FUND, market, 10e18, LIMIT).length > 10, "rounds");
        _reduce(10e18);
        eq(lending.supplied(FUND), 0, "supplied");
        eq(lending.owed(FUND), 0, "owed");
        uint256 left = usdc.balanceOf(FUND);
        isTrue(left > 8932e6 && left <= 8933e6, "the rest is the account's");
        isTrue(weth.balanceOf(FUND) < 10, "units of rounding");
        _nothingAllowed();
    }

    function test_without_a_debt_it_is_one_withdrawal_and_one_sale() public {
        lending.open(FUND, 10e18, 0);
        eq(adapter.reduceCalls(FUND, market, 4e18, LIMIT).length, 3, "withdraw, allow, sell");
        _reduce(4e18);
        eq(lending.supplied(FUND), 6e18 + 1, "rounded for the venue");
        eq(usdc.balanceOf(FUND), 8000e6 - 1, "proceeds");
    }

    function test_a_part_repays_with_the_least_that_its_sale_brings() public {
        lending.open(FUND, 10e18, 8000e6);
        _reduce(1e18);
        eq(lending.supplied(FUND), 9e18 + 1, "a tenth");
        eq(lending.owed(FUND), 8000e6 - 1980e6, "repaid at the limit");
        eq(usdc.balanceOf(FUND), 20e6 - 1, "what the sale brought beyond it");
        _nothingAllowed();
    }

    function test_at_the_floor_of_health_nothing_can_leave() public {
        lending.open(FUND, 10e18, 16_520e6); // 16,600 / 16,520 = 1.0048
        vm.expectRevert(abi.encodeWithSelector(UniswapV3Adapter.NotReducing.selector, 10e18, 1e18));
        adapter.reduceCalls(FUND, market, 1e18, LIMIT);
    }

    /// In bounds that ten rounds reach and beyond them: never more than asked, never below the floor, never a larger debt.
    function testFuzz_any_loan_comes_down_by_no_more_than_asked(uint256 supplied, uint256 loan, uint256 size) public {
        supplied = bound(supplied, 1e15, 1e24);
        uint256 owed = bound(loan, 0, supplied * 1600 / 1e12); // health 1.0375 and more
        lending.open(FUND, supplied, owed);
        size = bound(size, 1e13, supplied);
        _reduce(size);
        uint256 rest = lending.supplied(FUND);
        isTrue(rest < supplied && supplied - rest <= size, "by no more than asked");
        isTrue(lending.owed(FUND) <= owed, "debt");
        if (owed == 0) isTrue(size == supplied ? rest == 0 : supplied - rest == size - 1, "all that was asked");
        _nothingAllowed();
    }
}
