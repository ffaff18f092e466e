// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IGuard} from "./IGuard.sol";
import {IPolicyHook} from "./IPolicyHook.sol";
import {OracleConfig} from "./IStopLoss.sol";

/// @title Keeps a basket of tokens at its target weights
interface IAutoRebalance is IGuard {
    /// A pool that trades an asset for the basket's cash: market abi.encode(asset, cash, fee) and its reverse.
    /// @param adapter IRouteAdapter; zero: no pool.
    struct Pool {
        address adapter;
        uint24 fee;
    }

    /// @param targetBps share of the basket's equity. @param bandBps how far (basis points of equity) the share may be away from it.
    /// @param oracle price in the unit of account, 1e18; `deviationPatience` is 0, because a rebalance can wait.
    /// @param pools the best of these is used, each held against the oracle by its own mean price.
    struct Asset {
        address token;
        uint16 targetBps;
        uint16 bandBps;
        OracleConfig oracle;
        Pool[3] pools;
    }

    /// @param authority EmergencyFreeze of an account that does not name its own (IRiskState); zero: an account without states.
    /// @param cash the asset that every trade is with; its target is what the others leave, its band `cashBandBps`.
    /// @param cashOracle its price in the unit of account; no feed: it is the unit of account, 1.
    /// @param onDrift due while a weight is outside its band. @param calendar DAY, WEEK or MONTH: also due in each new calendar period (UTC
    /// shifted by `offsetMinutes`) until it has been executed in it, so a new basket is due at once; NONE: on drift only.
    /// @param minTrade least value (unit of account, 1e18) of one trade.
    /// @param maxTurnover most value of all trades in any `turnoverSeconds`; at most nine significant decimal digits.
    /// @param slippageBps worst fill of a trade against the oracle, the pool's fee included.
    /// @param cooldown seconds between executions. Others as in IStopLoss.Stop.
    struct Basket {
        address authority;
        address cash;
        uint16 cashBandBps;
        OracleConfig cashOracle;
        bool onDrift;
        IPolicyHook.Span calendar;
        int16 offsetMinutes;
        uint128 minTrade;
        uint128 maxTurnover;
        uint32 turnoverSeconds;
        uint16 slippageBps;
        uint32 cooldown;
        uint32 publicDelay;
        uint16 refundBps;
        uint96 refundCap;
        uint48 expiry;
        Asset[] assets;
    }

    event BasketArmed(address indexed account, uint256 indexed id, uint256 arming, Basket basket);
    event BasketCancelled(address indexed account, uint256 indexed id);
    event BasketTouched(address indexed account, uint256 indexed id, uint48 dueSince);
    /// Token units that left and came.
    event Traded(
        address indexed account,
        uint256 indexed id,
        address tokenIn,
        address tokenOut,
        address adapter,
        uint24 fee,
        uint256 amountIn,
        uint256 amountOut
    );
    /// Values in the unit of account, 1e18. @param limited a trade was cut or left out: by the turnover cap, the least trade, or for want of a
    /// pool that fills within the bound.
    event Rebalanced(
        address indexed account,
        uint256 indexed id,
        uint256 equityBefore,
        uint256 equityAfter,
        uint256 turnover,
        bool limited
    );

    /// @notice Arm (or replace) basket `id` of the calling account. It stays armed: each execution counts as an arming of its own. What was
    /// traded within the turnover window still counts. onInstall data: empty or abi.encode(uint256[] ids, Basket[] baskets).
    function arm(uint256 id, Basket calldata basket) external;
    function cancel(uint256 id) external;

    /// @param arming grows with every `arm` and every execution.
    function basketOf(address account, uint256 id)
        external
        view
        returns (Basket memory basket, bool armed, uint256 arming, uint48 dueSince, uint48 lastExecution);

    /// @notice Values (unit of account, 1e18) of the assets in their order and of the cash last, at the guarded prices, and the value that the
    /// turnover window leaves. Reverts as `execute` would while a price is not there.
    function valuesOf(address account, uint256 id) external view returns (uint256[] memory values, uint256 turnoverLeft);
}
