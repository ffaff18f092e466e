// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// What an account may do. The same three names are used on and off chain.
/// - ACTIVE: everything its validators and hook allow.
/// - REDUCE_ONLY: calls along declared exits and by declared guards only, ERC-1271 silent.
/// - FROZEN: declared exits and guards only, ERC-1271 silent; left only through the state authority.
enum RiskState {
    ACTIVE,
    REDUCE_ONLY,
    FROZEN
}

/// @title The one word that every module reads
/// @notice Implemented by an account that keeps its own risk state (`RiskAccount`). For any other ERC-7579 account the
/// state lives in the `EmergencyFreeze` module that is installed as its hook; `EmergencyFreeze.stateOf` answers for both.
interface IRiskState {
    event RiskStateChanged(RiskState indexed from, RiskState indexed to, uint64 epoch);

    /// @notice The state and the epoch, which grows by one with every change of state.
    function riskState() external view returns (RiskState state, uint64 epoch);

    /// @notice The only address that may change the state: the account's `EmergencyFreeze`.
    function riskAuthority() external view returns (address);

    /// @notice Change the state. Only `riskAuthority()`.
    function setRiskState(RiskState state) external;
}
