// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";
import {TickPrice} from "../libraries/TickPrice.sol";

/// @dev What we call of Uniswap v3, written from its public ABI.
interface IUniswapV3FactoryLike {
    function getPool(address tokenA, address tokenB, uint24 fee) external view returns (address);
}

interface IUniswapV3PoolLike {
    function observe(uint32[] calldata secondsAgos)
        external
        view
        returns (int56[] memory tickCumulatives, uint160[] memory secondsPerLiquidityCumulativeX128s);
}

interface IUniswapV3RouterLike {
    struct ExactInputSingleParams {
        address tokenIn;
        address tokenOut;
        uint24 fee;
        address recipient;
        uint256 deadline;
        uint256 amountIn;
        uint256 amountOutMinimum;
        uint160 sqrtPriceLimitX96;
    }

    function exactInputSingle(ExactInputSingleParams calldata params) external payable returns (uint256 amountOut);
}

/// @title Spot holdings sold through one Uniswap v3 pool
/// @notice The position is the account's balance of the asset. A reduction approves the router for exactly what it sells, and the router
/// takes exactly that, so no allowance is left (an older allowance to the router is overwritten).
contract UniswapV3Adapter is IVenueAdapter {
    error UnknownMarket(bytes market);
    error NotReducing(uint256 balance, uint256 size);
    error InvalidLimit(uint256 limitPrice);

    IUniswapV3FactoryLike public immutable factory;
    IUniswapV3RouterLike public immutable router;
    /// Seconds over which `venuePrice` is the mean.
    uint32 public immutable twapSeconds;

    struct Market {
        address asset;
        address quote;
        uint24 fee;
        address pool;
    }

    /// @param router_ Uniswap's first `SwapRouter` (the one whose parameters carry a deadline).
    constructor(address factory_, address router_, uint32 twapSeconds_) {
        if (twapSeconds_ == 0) revert InvalidLimit(0);
        factory = IUniswapV3FactoryLike(factory_);
        router = IUniswapV3RouterLike(router_);
        twapSeconds = twapSeconds_;
    }

    /// @inheritdoc IVenueAdapter
    function position(address account, bytes calldata market) external view virtual returns (Position memory p) {
        Market memory m = _market(market);
        uint256 size = _toWad(IERC20(m.asset).balanceOf(account), IERC20Metadata(m.asset).decimals());
        p.size = int256(size);
        if (size != 0) p.notional = Math.mulDiv(size, _meanPrice(m), 1e18);
    }

    /// @inheritdoc IVenueAdapter
    function venuePrice(bytes calldata market) external view returns (uint256) {
        return _meanPrice(_market(market));
    }

    /// @inheritdoc IVenueAdapter
    function reduceCalls(address account, bytes calldata market, uint256 size, uint256 limitPrice)
        external
        view
        virtual
        returns (Execution[] memory calls)
    {
        Market memory m = _market(market);
        uint256 amountIn = _amountIn(m, account, size);
        uint256 minimum = _minimumOut(m, size, limitPrice);
        calls = new Execution[](2);
        (calls[0], calls[1]) = _sale(m, account, amountIn, minimum);
    }

    /// @dev Allow the router what it sells, and sell it for at least `minimum` (token units both).
    function _sale(Market memory m, address account, uint256 amountIn, uint256 minimum)
        internal
        view
        returns (Execution memory allow, Execution memory swap)
    {
        allow = Execution(m.asset, 0, abi.encodeCall(IERC20.approve, (address(router), amountIn)));
        swap.target = address(router);
        swap.callData = abi.encodeCall(
            IUniswapV3RouterLike.exactInputSingle,
            (IUniswapV3RouterLike.ExactInputSingleParams({
                    tokenIn: m.asset,
                    tokenOut: m.quote,
                    fee: m.fee,
                    recipient: account,
                    deadline: block.timestamp,
                    amountIn: amountIn,
                    amountOutMinimum: minimum,
                    sqrtPriceLimitX96: 0
                }))
        );
    }

    /// @dev Token units of `size`; the whole balance exactly when `size` is all of it.
    function _amountIn(Market memory m, address account, uint256 size) private view returns (uint256 amount) {
        uint256 balance = IERC20(m.asset).balanceOf(account);
        uint8 decimals = IERC20Metadata(m.asset).decimals();
        uint256 whole = _toWad(balance, decimals);
        amount = size == whole ? balance : _fromWad(size, decimals, Math.Rounding.Floor);
        if (size > whole || amount == 0) revert NotReducing(whole, size);
    }

    function _minimumOut(Market memory m, uint256 size, uint256 limitPrice) internal view returns (uint256 minimum) {
        uint256 quote = Math.mulDiv(size, limitPrice, 1e18, Math.Rounding.Ceil);
        minimum = _fromWad(quote, IERC20Metadata(m.quote).decimals(), Math.Rounding.Ceil);
        if (minimum == 0) revert InvalidLimit(limitPrice);
    }

    function _meanPrice(Market memory m) internal view returns (uint256) {
        uint32[] memory ago = new uint32[](2);
        ago[0] = twapSeconds;
        (int56[] memory cumulatives,) = IUniswapV3PoolLike(m.pool).observe(ago);
        int256 tick = TickPrice.mean(cumulatives[0], cumulatives[1], twapSeconds);
        // The pool's tick is of token1 per token0.
        if (m.asset > m.quote) tick = -tick;
        int256 shift =
            int256(uint256(IERC20Metadata(m.asset).decimals())) - int256(uint256(IERC20Metadata(m.quote).decimals()));
        return TickPrice.wad(tick, shift);
    }

    function _market(bytes calldata market) internal view returns (Market memory m) {
        if (market.length != 96) revert UnknownMarket(market);
        (m.asset, m.quote, m.fee) = abi.decode(market, (address, address, uint24));
        m.pool = factory.getPool(m.asset, m.quote, m.fee);
        if (m.pool == address(0)) revert UnknownMarket(market);
    }

    function _toWad(uint256 amount, uint8 decimals) internal pure returns (uint256) {
        return decimals <= 18 ? amount * 10 ** (18 - decimals) : amount / 10 ** (decimals - 18);
    }

    function _fromWad(uint256 amount, uint8 decimals, Math.Rounding rounding) internal pure returns (uint256) {
        if (decimals > 18) return amount * 10 ** (decimals - 18);
        return Math.mulDiv(amount, 1, 10 ** (18 - decimals), rounding);
    }
}
