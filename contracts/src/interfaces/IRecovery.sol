// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title A new owner for an account whose owner is gone
/// @notice Guardians propose, everybody sees it coming, the owner may cancel until a delay is over, then anyone carries it out. An heir may do
/// the same once the owner has shown no life for a set time. Works in every risk state, as a declared guard.
///
/// Guardians and heir are each one signer in the encoding of `AccountConfig.owner`: a key, a passkey, a contract, or any m of n or weights of
/// these through `MultisigOwner`. A signer that is an address may call instead of signing.
interface IRecovery {
    /// @param guardians who may propose. @param heir who may after `silence`; empty: nobody.
    /// @param delay seconds between proposal and change of owner, and between announcing a change of these settings and making it.
    /// @param silence seconds without a sign of life after which the heir may claim.
    /// @param entryPoint where the owner's operations are counted; zero: the account's own `entryPoint()`.
    /// @param lanes nonce keys that only the owner uses: an operation under any of them is a sign of life.
    /// @param target what changes the owner of an account that is no `RiskAccount`: its validator, or the account itself; zero on a `RiskAccount`.
    /// @param selector of the function there. @param plainAddress it takes an address, else bytes.
    struct Settings {
        bytes guardians;
        bytes heir;
        uint48 delay;
        uint48 silence;
        address entryPoint;
        uint192[] lanes;
        address target;
        bytes4 selector;
        bool plainAddress;
    }

    event SettingsSet(address indexed account, Settings settings);
    event ChangeAnnounced(address indexed account, bytes32 indexed changeHash, bytes data, uint48 executableAt);
    event ChangeWithdrawn(address indexed account, bytes32 indexed changeHash);
    event RecoveryProposed(address indexed account, bytes newOwner, bool byHeir, uint48 executableAt);
    event RecoveryCancelled(address indexed account, bytes newOwner);
    event Recovered(address indexed account, bytes newOwner);
    event SeenAlive(address indexed account, uint48 at);

    /// @notice Guardians propose: Propose(address account,bytes newOwner,uint256 nonce,uint48 expiry). Anyone relays.
    function propose(address account, bytes calldata newOwner, uint48 expiry, bytes calldata signature) external;

    /// @notice The heir claims after the silence: Claim(address account,bytes newOwner,uint256 nonce,uint48 expiry). Anyone relays. A sign
    /// of life until the end stops it.
    function claim(address account, bytes calldata newOwner, uint48 expiry, bytes calldata signature) external;

    /// @notice The account cancels what is under way. Also a sign of life.
    function cancel() external;

    /// @notice The same by the owner's signature, in every state: Cancel(address account,uint256 nonce,uint48 expiry). Anyone relays.
    function cancelBySig(address account, uint48 expiry, bytes calldata signature) external;

    /// @notice Guardians take it back: Withdraw(address account,uint256 nonce,uint48 expiry). Anyone relays.
    function withdraw(address account, uint48 expiry, bytes calldata signature) external;

    /// @notice Change the owner once the delay is over, within 14 days. Anyone.
    function execute(address account) external;

    /// @notice The account shows that its owner lives.
    function heartbeat() external;

    /// @notice Record that operations of the owner were made since the last record: the silence begins anew. Anyone.
    function witness(address account) external;

    /// @notice Announce a change of settings (call data of `setSettings`) or, on an account without a delay of its own, the removal (call data of
    /// `onUninstall`). By the account.
    function announce(bytes calldata data) external;

    /// @notice Take an announcement back. By the account.
    function withdrawChange(bytes32 changeHash) external;

    /// @notice As announced, while nothing is under way. By the account.
    function setSettings(Settings calldata settings) external;

    function settingsOf(address account) external view returns (bool installed, Settings memory);

    /// @notice What is under way; `executableAt` 0: nothing.
    function pendingOf(address account) external view returns (bytes memory newOwner, uint48 executableAt, bool byHeir);

    /// @notice When the owner was last seen, and whether operations since wait to be recorded by `witness`.
    function seenOf(address account) external view returns (uint48 seenAt, bool movedSince);

    /// @notice When the announced change may be made; 0: there is none, it was withdrawn, made, or it lapsed.
    function executableAt(address account, bytes32 changeHash) external view returns (uint48);

    function nonceOf(address account) external view returns (uint256);
}
