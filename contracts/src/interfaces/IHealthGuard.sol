// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IGuard} from "./IGuard.sol";
import {OracleConfig} from "./IStopLoss.sol";

/// @title Keeps a lending account's health factor between a floor and a target
interface IHealthGuard is IGuard {
    /// @param lending the venue (ILendingAdapter). @param collateral @param debt the assets it acts on; the health is that of the whole account.
    /// @param swap the IVenueAdapter that sells collateral for debt, and `fee` the pool's: market abi.encode(collateral, debt, fee).
    /// @param floor due at or below this health factor (1e18 = liquidatable). @param target what it is brought to, above the floor.
    /// @param toleranceBps how far above the target an execution may end.
    /// @param maxRepay most debt units, `maxTopUp` and `maxUnwind` most collateral units that one execution may take; 0: that way is closed.
    /// Ways are tried in this order: repay from the account's own balance, top up collateral from it, unwind collateral.
    /// @param slippageBps bound of an unwinding sale against the guarded price, widening to `maxSlippageBps` over `widenSeconds` from when
    /// the health was first recorded at or below the floor.
    /// @param oracle price of the collateral in debt, 1e18; only the sale needs it.
    /// Others as in IStopLoss.Stop.
    struct Health {
        address lending;
        address collateral;
        address debt;
        address swap;
        uint24 fee;
        uint128 floor;
        uint128 target;
        uint16 toleranceBps;
        uint128 maxRepay;
        uint128 maxTopUp;
        uint128 maxUnwind;
        uint16 slippageBps;
        uint16 maxSlippageBps;
        uint32 widenSeconds;
        uint32 cooldown;
        uint32 publicDelay;
        uint16 refundBps;
        uint96 refundCap;
        uint48 expiry;
        OracleConfig oracle;
    }

    event HealthArmed(address indexed account, uint256 indexed id, uint256 arming, Health health);
    event HealthCancelled(address indexed account, uint256 indexed id);
    event HealthTouched(address indexed account, uint256 indexed id, uint48 dueSince);
    /// Token units of debt repaid from the balance, of collateral supplied from it, and of collateral withdrawn and sold.
    event HealthRestored(
        address indexed account,
        uint256 indexed id,
        uint256 factorBefore,
        uint256 factorAfter,
        uint256 repaid,
        uint256 suppliedMore,
        uint256 unwound
    );

    /// @notice Arm (or replace) guard `id` of the calling account. It stays armed: each execution counts as an arming of its own.
    /// onInstall data: empty or abi.encode(uint256[] ids, Health[] healths).
    function arm(uint256 id, Health calldata health) external;
    function cancel(uint256 id) external;

    /// @param arming grows with every `arm` and every execution.
    function healthOf(address account, uint256 id)
        external
        view
        returns (Health memory health, bool armed, uint256 arming, uint48 dueSince, uint48 lastExecution);
}
