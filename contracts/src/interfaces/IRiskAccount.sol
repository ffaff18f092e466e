// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IRiskState} from "./IRiskState.sol";

/// A module installed when the account is born. `initData` is passed to the module's `onInstall`.
struct ModuleInit {
    uint256 moduleTypeId;
    address module;
    bytes initData;
}

/// Everything an account starts with; its hash is inside the CREATE2 salt, so a front-run deployment deploys the same account.
/// @param owner the owner's signer: one kind byte, then its data. 0x00 = secp256k1 key (20-byte address, recovered, never
/// called); 0x01 = ERC-7913 verifier (20-byte address, then key); 0x02 = ERC-1271 contract (20-byte address).
/// @param authority the `EmergencyFreeze` that may change the risk state. It must also be among `modules`.
/// @param adminDelay seconds between scheduling and executing an upgrade, an uninstallation or a change of owner or authority.
/// @param prefundCaps the largest required prefund (wei) of one operation that the account pays itself, by state
/// (ACTIVE, REDUCE_ONLY, FROZEN).
struct AccountConfig {
    bytes owner;
    address authority;
    uint48 adminDelay;
    uint128[3] prefundCaps;
    ModuleInit[] modules;
}

/// @title The account's own surface, beside ERC-4337, ERC-7579, ERC-1271 and ERC-165
interface IRiskAccount is IRiskState {
    event AdminScheduled(bytes32 indexed actionHash, bytes data, uint48 executableAt);
    event AdminCancelled(bytes32 indexed actionHash);
    event AdminExecuted(bytes32 indexed actionHash);
    event OwnerChanged(bytes owner);

    /// @notice Set up a fresh proxy. Once, by the factory, in the transaction that creates the account.
    function initialize(AccountConfig calldata config) external;

    /// @notice The owner's signer in the encoding of `AccountConfig.owner`.
    function ownerSigner() external view returns (bytes memory);

    /// @notice Whether `signature` over `hash` is the owner's. Ignores the risk state: for validators, not for third parties.
    function isOwnerSignature(bytes32 hash, bytes calldata signature) external view returns (bool);

    /// @notice Whether the built-in owner path is open: true until a validator that needs an attestation is installed.
    function nativeOwnerPath() external view returns (bool);

    /// @notice Announce an administrative self-call (`upgradeToAndCall`, `setOwner`, `setRiskAuthority`, `setPrefundCaps`,
    /// `uninstallModule`, `forceUninstallModule`). Entry point or self.
    function scheduleAdmin(bytes calldata data) external;

    /// @notice Withdraw an announcement. Entry point, self or `riskAuthority()`.
    function cancelAdmin(bytes32 actionHash) external;

    /// @notice Carry out an announced call once its delay is over. Anyone. Not while the state is FROZEN.
    function executeAdmin(bytes calldata data) external;
}
