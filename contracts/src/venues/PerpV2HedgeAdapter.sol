// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IHedgeAdapter} from "../interfaces/IHedgeAdapter.sol";
import {IPerpClearingHouse, PerpV2Adapter} from "./PerpV2Adapter.sol";

/// @title Perpetual Protocol v2, traded either way
/// @notice As `PerpV2Adapter`, and buys or sells whatever the position is. Collateral must lie at the venue already; too little makes it revert.
contract PerpV2HedgeAdapter is PerpV2Adapter, IHedgeAdapter {
    constructor(address clearingHouse_, uint32 twapSeconds_) PerpV2Adapter(clearingHouse_, twapSeconds_) {}

    /// @inheritdoc IHedgeAdapter
    /// @dev The venue's bound compares quote after fees with us, so fees count as slippage.
    function tradeCalls(address, bytes calldata market, int256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory calls)
    {
        address base = _base(market);
        if (size == 0) revert NotReducing(0, 0);
        bool sale = size < 0;
        uint256 amount = sale ? uint256(-size) : uint256(size);
        uint256 quote = Math.mulDiv(amount, limitPrice, 1e18, sale ? Math.Rounding.Ceil : Math.Rounding.Floor);
        if (quote == 0) revert InvalidLimit(limitPrice); // the venue takes a bound of zero for "none"
        calls = new Execution[](1);
        calls[0].target = address(clearingHouse);
        calls[0].callData = abi.encodeCall(
            IPerpClearingHouse.openPosition,
            (IPerpClearingHouse.OpenPositionParams({
                    baseToken: base,
                    isBaseToQuote: sale,
                    isExactInput: sale,
                    amount: amount,
                    oppositeAmountBound: quote,
                    deadline: block.timestamp,
                    sqrtPriceLimitX96: 0,
                    referralCode: bytes32(0)
                }))
        );
    }
}
