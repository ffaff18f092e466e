// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IVenueAdapter} from "./IVenueAdapter.sol";

/// @title A venue that can say what a sale would bring
/// @notice For spot: a sale of `size` in market abi.encode(address asset, address quote, uint24 fee). With asset and quote exchanged it buys.
interface IRouteAdapter is IVenueAdapter {
    /// @notice The mean fill price (quote per base, 1e18, after fees, rounded down) of selling `size` base units (1e18) now; too low a price
    /// where not all of it could be sold. Changes nothing, though the venue's quoter is no view. Reverts for an unknown market.
    /// @dev Only to choose between pools: it is what the pool says of itself, so whoever trades on it bounds the fill by other means.
    function quote(bytes calldata market, uint256 size) external returns (uint256 price);
}
