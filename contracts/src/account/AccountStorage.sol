// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {
    AccountERC7579HookedUpgradeable
} from "@openzeppelin/contracts-upgradeable/account/extensions/draft-AccountERC7579HookedUpgradeable.sol";
import {RiskState} from "../interfaces/IRiskState.sol";

/// @title Where a risk account keeps what
/// @notice Its own ERC-7201 storage, the state word it shares with OpenZeppelin's hook, and OpenZeppelin's sets of modules.
abstract contract AccountStorage is AccountERC7579HookedUpgradeable {
    /// Not while the state is what it is.
    error NotInState(RiskState state);

    /// The word that OpenZeppelin's hooked account keeps its hook in, and beside it our state. OpenZeppelin declares only `hook` and
    /// writes only those 160 bits.
    /// @param attested how many installed validators close the native owner path.
    struct StateWord {
        address hook;
        RiskState state;
        uint8 attested;
        uint64 epoch;
    }

    /// @custom:storage-location erc7201:seawall.storage.RiskAccount
    /// @param activeCap prefund cap while ACTIVE (wei), saturated at 2^88 - 1, which no deposit can reach.
    /// @param installs grows with every installation; announcements made before it are void.
    struct RiskAccountStorage {
        address owner;
        uint8 ownerKind;
        uint88 activeCap;
        address authority;
        uint48 adminDelay;
        uint48 installs;
        uint128 reduceOnlyCap;
        uint128 frozenCap;
        bytes ownerKey;
        mapping(bytes32 actionHash => Announcement) announcements;
        mapping(address validator => bool) attested;
        mapping(address handler => uint256) handlers;
    }

    struct Announcement {
        uint48 executableAt;
        uint48 installs;
    }

    // keccak256(abi.encode(uint256(keccak256("openzeppelin.storage.AccountERC7579Hooked")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 internal constant STATE_WORD_SLOT = 0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700;
    // keccak256(abi.encode(uint256(keccak256("openzeppelin.storage.AccountERC7579")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 internal constant MODULES_SLOT = 0x0a47d913d72b2639f4ca1c145cc07ddf7170b73b257c8e0d4fced7cc8e3e3900;
    // keccak256(abi.encode(uint256(keccak256("seawall.storage.RiskAccount")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 internal constant STORAGE_SLOT = 0x5a2c7621610bb5812fa23aae5b9db82720aab3ec04bc07a265af9c8fad35fb00;

    modifier onlyActive() {
        _requireActive();
        _;
    }

    function _requireActive() internal view {
        RiskState state = _word().state;
        if (state != RiskState.ACTIVE) revert NotInState(state);
    }

    function _word() internal pure returns (StateWord storage word) {
        assembly ("memory-safe") {
            word.slot := STATE_WORD_SLOT
        }
    }

    function _modules() internal pure returns (AccountERC7579Storage storage $) {
        assembly ("memory-safe") {
            $.slot := MODULES_SLOT
        }
    }

    function _storage() internal pure returns (RiskAccountStorage storage $) {
        assembly ("memory-safe") {
            $.slot := STORAGE_SLOT
        }
    }
}
