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

/// @title What an account reports about itself
interface IAccountEvents {
    event AdminScheduled(bytes32 indexed actionHash, bytes data, uint48 executableAt);
    event AdminCancelled(bytes32 indexed actionHash);
    event AdminExecuted(bytes32 indexed actionHash);
    event OwnerChanged(bytes owner);
    event AuthorityChanged(address indexed authority);
    event PrefundCapsChanged(uint128[3] prefundCaps);
    /// Calls of this library by DELEGATECALL are open while its code has this hash; zero: no more.
    event LibraryPinned(address indexed library_, bytes32 codeHash);
    /// An EIP-7702 account has dropped all its configuration.
    event Left();
}

/// @title The account's own surface, beside ERC-4337, ERC-7579, ERC-1271 and ERC-165
interface IRiskAccount is IRiskState, IAccountEvents {
    /// @notice Set up a fresh proxy, once, by the factory, in the transaction that creates the account; or let an EIP-7702 account join, by its own
    /// call or operation. Before, such an account is its own owner without modules, so that nobody else can make that call.
    function initialize(AccountConfig calldata config) external;

    /// @notice The owner's signer in the encoding of `AccountConfig.owner`.
    function ownerSigner() external view returns (bytes memory);

    /// @notice Whether `signature` over `hash` is the owner's. Ignores the risk state: for validators, not for third parties.
    function isOwnerSignature(bytes32 hash, bytes calldata signature) external view returns (bool);

    /// @notice Whether the built-in owner path is open: true until a validator that needs an attestation is installed.
    function nativeOwnerPath() external view returns (bool);

    /// @notice Seconds between announcing and carrying out an administrative call; 0 means at once.
    function adminDelay() external view returns (uint48);

    /// @notice The largest required prefund (wei) of one operation that the account pays itself, by `RiskState`.
    function prefundCaps() external view returns (uint128[3] memory);

    /// @notice When the announced call with this hash may be carried out; 0 when there is none, it was withdrawn, it lapsed, or a
    /// module was installed since (what was announced before a module existed may not act on it).
    function adminExecutableAt(bytes32 actionHash) external view returns (uint48);

    /// @notice Announced calls only (`executeAdmin`).
    function setOwner(bytes calldata owner) external;
    function setRiskAuthority(address authority) external;
    function setPrefundCaps(uint128[3] calldata caps) external;

    /// @notice Let the account run a library's code as its own (one DELEGATECALL by entry point or self, ACTIVE only, never by an executor), as
    /// long as the code has this hash; zero ends it. Such code can write every slot of the account: pin nothing that is a proxy, takes its
    /// own targets from call data, or was not read to the end. Announced calls only.
    function pinLibrary(address library_, bytes32 codeHash) external;

    /// @notice The code hash that `library_` is pinned by, or zero.
    function pinnedCodeHash(address library_) external view returns (bytes32);

    /// @notice Announce `setOwner(owner)` for an account whose owner is gone, in any state. Only an installed executor that the authority lists
    /// as a guard. It waits for the longer of `delay` and `adminDelay()`, everyone who can withdraw an announcement can withdraw it, and
    /// only who announced it can carry it out, in FROZEN too.
    function announceRecovery(bytes calldata owner, uint48 delay) external returns (uint48 executableAt);

    /// @notice As `uninstallModule`, but the module cannot prevent it: its `onUninstall` gets bounded gas, what it returns or reverts
    /// with is ignored, and the hook is not consulted. Announced calls only.
    function forceUninstallModule(uint256 moduleTypeId, address module, bytes calldata deInitData) external;

    /// @notice Let an EIP-7702 account leave: every module is removed by force, owner, caps, delay, authority and state are as before it joined, and what
    /// was announced is void. Name the selectors of all fallback handlers. At once in a transaction of the root key to itself, which no
    /// contract can prevent; announced else; by entry point or self while the account has not joined. Then delegate elsewhere, or to no one.
    function leave(bytes4[] calldata selectors) external;

    /// @notice Announce an administrative self-call (`leave`, `upgradeToAndCall`, `setOwner`, `setRiskAuthority`, `setPrefundCaps`, `pinLibrary`,
    /// `uninstallModule`, `forceUninstallModule`). Entry point or self, ACTIVE only. actionHash = keccak256(data).
    function scheduleAdmin(bytes calldata data) external;

    /// @notice Withdraw an announcement. Entry point, self, `riskAuthority()` or who announced it.
    function cancelAdmin(bytes32 actionHash) external;

    /// @notice Carry out an announced call once its delay is over and until it lapses (14 days later). Anyone. Not while the state is
    /// FROZEN, but for a recovery; removing or replacing the authority only while ACTIVE.
    function executeAdmin(bytes calldata data) external;
}
