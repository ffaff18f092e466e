// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";

/// @title A lending venue, seen by a guard
/// @notice Stateless: it reads an account's health and writes the call data of what can only improve it. Values are in the venue's own unit
/// of account (Aave v3: US dollars, 8 decimals), amounts in token units; a price is value per whole token.
interface ILendingAdapter {
    /// @param factor health factor, 1e18 = liquidatable below; the largest uint256 without debt.
    /// @param thresholdBps the collateral's mean liquidation threshold: factor = collateral * thresholdBps / 10000 / debt.
    struct Health {
        uint256 factor;
        uint256 collateral;
        uint256 debt;
        uint256 thresholdBps;
    }

    /// @param supplied @param owed token units of the account in this collateral and this debt.
    /// @param thresholdBps of this collateral alone, for this account.
    struct Market {
        uint256 supplied;
        uint256 owed;
        uint256 collateralPrice;
        uint256 debtPrice;
        uint256 thresholdBps;
    }

    function health(address account) external view returns (Health memory);

    /// @notice Reverts for an asset that the venue does not list.
    function market(address account, address collateral, address debt) external view returns (Market memory);

    /// @notice Calls of `account` that repay exactly `amount` of its own debt, supply exactly `amount` as its own collateral, or withdraw it to
    /// itself. No allowance is left behind.
    function repayCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory);
    function supplyCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory);
    function withdrawCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory);
}
