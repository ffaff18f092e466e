// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IVenueAdapter} from "./IVenueAdapter.sol";

/// @title A venue on which a position can be changed either way
interface IHedgeAdapter is IVenueAdapter {
    /// @notice The calls, made by `account`, that change the position by `size` base units (1e18; positive buys) or revert if the mean fill is
    /// worse than `limitPrice` (quote per base, 1e18).
    function tradeCalls(address account, bytes calldata market, int256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory);
}
