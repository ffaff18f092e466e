// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ILendingAdapter} from "../interfaces/ILendingAdapter.sol";

/// @dev What we call of Aave v3, written from its public ABI.
interface IAavePoolLike {
    struct ReserveData {
        uint256 configuration;
        uint128 liquidityIndex;
        uint128 currentLiquidityRate;
        uint128 variableBorrowIndex;
        uint128 currentVariableBorrowRate;
        uint128 currentStableBorrowRate;
        uint40 lastUpdateTimestamp;
        uint16 id;
        address aToken;
        address stableDebtToken;
        address variableDebtToken;
        address interestRateStrategy;
        uint128 accruedToTreasury;
        uint128 unbacked;
        uint128 isolationModeTotalDebt;
    }

    function ADDRESSES_PROVIDER() external view returns (IAaveProviderLike);
    function getReserveData(address asset) external view returns (ReserveData memory);
    function getUserEMode(address user) external view returns (uint256);
    function getUserAccountData(address user)
        external
        view
        returns (uint256 collateral, uint256 debt, uint256 available, uint256 threshold, uint256 ltv, uint256 factor);
    function repay(address asset, uint256 amount, uint256 rateMode, address onBehalfOf) external returns (uint256);
    function supply(address asset, uint256 amount, address onBehalfOf, uint16 referralCode) external;
    function withdraw(address asset, uint256 amount, address to) external returns (uint256);
}

interface IAaveProviderLike {
    function getPriceOracle() external view returns (IAaveOracleLike);
}

interface IAaveOracleLike {
    function getAssetPrice(address asset) external view returns (uint256);
}

/// @title Aave v3: variable debt of an account and its collateral
/// @notice An efficiency mode replaces the reserves' own thresholds, so there the account's mean is used.
contract AaveV3Adapter is ILendingAdapter {
    error UnknownAsset(address asset);

    uint256 private constant VARIABLE_RATE = 2;

    IAavePoolLike public immutable pool;

    constructor(address pool_) {
        pool = IAavePoolLike(pool_);
    }

    /// @inheritdoc ILendingAdapter
    function health(address account) public view returns (Health memory h) {
        (h.collateral, h.debt,, h.thresholdBps,, h.factor) = pool.getUserAccountData(account);
    }

    /// @inheritdoc ILendingAdapter
    function market(address account, address collateral, address debt) external view returns (Market memory m) {
        IAavePoolLike.ReserveData memory held = _reserve(collateral);
        IAavePoolLike.ReserveData memory owed = _reserve(debt);
        IAaveOracleLike oracle = pool.ADDRESSES_PROVIDER().getPriceOracle();
        m.supplied = IERC20(held.aToken).balanceOf(account);
        m.owed = IERC20(owed.variableDebtToken).balanceOf(account);
        m.collateralPrice = oracle.getAssetPrice(collateral);
        m.debtPrice = oracle.getAssetPrice(debt);
        bool inMode = pool.getUserEMode(account) != 0;
        // Bits 16 to 31 of a reserve's configuration.
        m.thresholdBps = inMode ? health(account).thresholdBps : uint16(held.configuration >> 16);
    }

    /// @inheritdoc ILendingAdapter
    function repayCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory) {
        return _withApproval(asset, amount, abi.encodeCall(pool.repay, (asset, amount, VARIABLE_RATE, account)));
    }

    /// @inheritdoc ILendingAdapter
    function supplyCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory) {
        return _withApproval(asset, amount, abi.encodeCall(pool.supply, (asset, amount, account, 0)));
    }

    /// @inheritdoc ILendingAdapter
    function withdrawCalls(address account, address asset, uint256 amount)
        external
        view
        returns (Execution[] memory calls)
    {
        calls = new Execution[](1);
        calls[0] = Execution(address(pool), 0, abi.encodeCall(pool.withdraw, (asset, amount, account)));
    }

    function _withApproval(address asset, uint256 amount, bytes memory call)
        private
        view
        returns (Execution[] memory calls)
    {
        calls = new Execution[](2);
        calls[0] = Execution(asset, 0, abi.encodeCall(IERC20.approve, (address(pool), amount)));
        calls[1] = Execution(address(pool), 0, call);
    }

    function _reserve(address asset) private view returns (IAavePoolLike.ReserveData memory reserve) {
        reserve = pool.getReserveData(asset);
        if (reserve.aToken == address(0)) revert UnknownAsset(asset);
    }
}
