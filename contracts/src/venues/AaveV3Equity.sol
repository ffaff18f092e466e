// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IEquitySource} from "../interfaces/IEquitySource.sol";
import {IAavePoolLike} from "./AaveV3Adapter.sol";

/// @title What an account is worth at Aave v3: collateral less debt
/// @notice At the prices of Aave's own oracle, in US dollars. Supplies that are no collateral are not seen, and the aTokens must not be listed as
/// assets beside it: they would count twice.
contract AaveV3Equity is IEquitySource {
    /// Aave's unit of account has 8 decimals.
    int256 private constant SCALE = 1e10;

    IAavePoolLike public immutable pool;

    constructor(address pool_) {
        pool = IAavePoolLike(pool_);
    }

    /// @inheritdoc IEquitySource
    function equity(address account) external view returns (int256) {
        (uint256 collateral, uint256 debt,,,,) = pool.getUserAccountData(account);
        return (int256(collateral) - int256(debt)) * SCALE;
    }
}
