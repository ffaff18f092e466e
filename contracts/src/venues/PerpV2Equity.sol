// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IEquitySource} from "../interfaces/IEquitySource.sol";

/// @dev What we call of Perpetual Protocol v2's clearing house, written from its public ABI.
interface IPerpAccountValue {
    function getAccountValue(address trader) external view returns (int256);
}

/// @title What an account is worth at Perpetual Protocol v2: collateral, open positions and owed realised profit
/// @notice The venue's own account value (18 decimals), the one that it liquidates by: positions at its index price, a mean over time.
contract PerpV2Equity is IEquitySource {
    IPerpAccountValue public immutable clearingHouse;

    constructor(address clearingHouse_) {
        clearingHouse = IPerpAccountValue(clearingHouse_);
    }

    /// @inheritdoc IEquitySource
    function equity(address account) external view returns (int256) {
        return clearingHouse.getAccountValue(account);
    }
}
