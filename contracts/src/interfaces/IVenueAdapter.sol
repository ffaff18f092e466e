// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";

/// @title A venue, seen by a guard
/// @notice Stateless: an adapter holds no funds and no configuration but immutable venue addresses. It reads positions and writes
/// the call data of a reduction; the guard bounds, executes and measures it. A caller never supplies call data.
/// `market` is the adapter's own encoding (Perpetual Protocol v2: `abi.encode(address baseToken)`;
/// Uniswap v3 spot: `abi.encode(address assetToken, address quoteToken, uint24 fee)`).
interface IVenueAdapter {
    /// @param size signed base amount, 1e18 = one unit of the base asset; negative is short. Spot holdings are positive.
    /// @param notional absolute value of the position in quote, 1e18 = one unit, at the venue's own mark.
    /// @param debt what the account owes the venue for this market in quote, 1e18 = one unit; 0 for spot.
    struct Position {
        int256 size;
        uint256 notional;
        uint256 debt;
    }

    /// @notice The position of `account` in `market`. Reverts if `market` is not one of the venue's.
    function position(address account, bytes calldata market) external view returns (Position memory);

    /// @notice The venue's own price of one base unit in quote, 1e18 = one unit, as a short time-weighted mean: the second
    /// source that a guard holds the oracle against. Never a spot price that one trade can set.
    function venuePrice(bytes calldata market) external view returns (uint256);

    /// @notice The calls, made by `account`, that reduce the position by `size` base units (absolute, 1e18) or revert if the mean
    /// fill price is worse than `limitPrice` (quote per base, 1e18). A `size` equal to the whole position closes it exactly.
    function reduceCalls(address account, bytes calldata market, uint256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory);
}
