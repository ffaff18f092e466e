// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IRouteAdapter} from "../interfaces/IRouteAdapter.sol";
import {UniswapV3Adapter} from "./UniswapV3Adapter.sol";

/// @dev What we call of Uniswap's QuoterV2, written from its public ABI.
interface IUniswapV3QuoterLike {
    struct QuoteExactInputSingleParams {
        address tokenIn;
        address tokenOut;
        uint256 amountIn;
        uint24 fee;
        uint160 sqrtPriceLimitX96;
    }

    function quoteExactInputSingle(QuoteExactInputSingleParams calldata params)
        external
        returns (uint256 amountOut, uint160 sqrtPriceX96After, uint32 initializedTicksCrossed, uint256 gasEstimate);
}

/// @title Uniswap v3 pools that can be compared
/// @notice As `UniswapV3Adapter`, and asks the venue's own QuoterV2 what a sale would bring.
contract UniswapV3RouteAdapter is UniswapV3Adapter, IRouteAdapter {
    IUniswapV3QuoterLike public immutable quoter;

    constructor(address factory_, address router_, address quoter_, uint32 twapSeconds_)
        UniswapV3Adapter(factory_, router_, twapSeconds_)
    {
        quoter = IUniswapV3QuoterLike(quoter_);
    }

    /// @inheritdoc IRouteAdapter
    function quote(bytes calldata market, uint256 size) external returns (uint256 price) {
        Market memory m = _market(market);
        uint256 amount = _fromWad(size, IERC20Metadata(m.asset).decimals(), Math.Rounding.Floor);
        if (amount == 0) revert NotReducing(0, size);
        (uint256 out,,,) = quoter.quoteExactInputSingle(
            IUniswapV3QuoterLike.QuoteExactInputSingleParams({
                tokenIn: m.asset, tokenOut: m.quote, amountIn: amount, fee: m.fee, sqrtPriceLimitX96: 0
            })
        );
        price = Math.mulDiv(_toWad(out, IERC20Metadata(m.quote).decimals()), 1e18, size);
    }
}
