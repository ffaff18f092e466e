// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";

/// @title The state of any account, for modules that rest unless it is ACTIVE
/// @notice An account that names its authority (IRiskState) is asked itself; else the authority that is configured; without one there are no
/// states. One that does not answer counts as FROZEN.
library AccountState {
    /// @return state ACTIVE where there are no states. @return authority zero where there are none.
    function read(address account, address configured) internal view returns (RiskState state, address authority) {
        (bool success, bytes memory answer) = account.staticcall(abi.encodeCall(IRiskState.riskAuthority, ()));
        if (success && answer.length == 32 && uint256(bytes32(answer)) >> 160 == 0) {
            authority = address(uint160(uint256(bytes32(answer))));
        }
        if (authority != address(0)) return (_ask(account, abi.encodeCall(IRiskState.riskState, ())), authority);
        if (configured == address(0)) return (RiskState.ACTIVE, address(0));
        return (_ask(configured, abi.encodeCall(IEmergencyFreeze.stateOf, (account))), configured);
    }

    /// @notice Whether `authority` lists this contract as a guard of the account.
    function isGuard(address account, address authority) internal view returns (bool) {
        try IEmergencyFreeze(authority).isGuard(account, address(this)) returns (bool guard) {
            return guard;
        } catch {
            return false;
        }
    }

    function _ask(address whom, bytes memory question) private view returns (RiskState) {
        (bool success, bytes memory answer) = whom.staticcall(question);
        if (!success || answer.length != 64) return RiskState.FROZEN;
        (uint256 state,) = abi.decode(answer, (uint256, uint256));
        return state > uint256(RiskState.FROZEN) ? RiskState.FROZEN : RiskState(state);
    }
}
