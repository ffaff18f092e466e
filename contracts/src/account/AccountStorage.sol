// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {
    AccountERC7579HookedUpgradeable
} from "@openzeppelin/contracts-upgradeable/account/extensions/draft-AccountERC7579HookedUpgradeable.sol";
import {AccountProxy} from "./AccountProxy.sol";
import {
    MODULE_TYPE_EXECUTOR,
    MODULE_TYPE_FALLBACK,
    MODULE_TYPE_VALIDATOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IAccountEvents} from "../interfaces/IRiskAccount.sol";
import {RiskState} from "../interfaces/IRiskState.sol";

/// @title Where a risk account keeps what
/// @notice Its own ERC-7201 storage, the state word it shares with OpenZeppelin's hook, and OpenZeppelin's sets of modules.
abstract contract AccountStorage is AccountERC7579HookedUpgradeable, IAccountEvents {
    using EnumerableSet for EnumerableSet.AddressSet;

    /// Not while the state is what it is.
    error NotInState(RiskState state);
    error AlreadyAnnounced(bytes32 actionHash);

    /// The word that OpenZeppelin's hooked account keeps its hook in, and beside it our state. OpenZeppelin declares only `hook` and
    /// writes only those 160 bits.
    /// @param attested how many installed validators close the native owner path.
    /// @param flags `STORED`, `JOINED`, `ATTESTED`, `SESSIONS`. @param upgraded tells the proxy to look into the ERC-1967 slot (see `AccountProxy`).
    struct StateWord {
        address hook;
        RiskState state;
        uint8 attested;
        uint64 epoch;
        uint8 flags;
        uint8 upgraded;
    }

    /// @custom:storage-location erc7201:seawall.storage.RiskAccount
    /// @param signer kind (8) | owner (160) | prefund cap while ACTIVE (88 bits), as in the birth data. This slot, `limits` and `ownerKey` count
    /// only while the flag `STORED` is set; before, the birth data in the account's code does.
    /// @param limits cap while REDUCE_ONLY (88) | while FROZEN (88) | admin delay (48), in the upper 224 bits.
    /// @param installs grows with every installation; announcements made before it are void. Never falls.
    /// @param fallbacks how many selectors have a handler.
    /// @param pinned hash of the code that a library must have for the account to run it as its own; zero: it never does.
    struct RiskAccountStorage {
        uint256 signer;
        uint256 limits;
        address authority;
        uint48 installs;
        uint48 fallbacks;
        bytes ownerKey;
        mapping(bytes32 actionHash => Announcement) announcements;
        mapping(address validator => bool) attested;
        mapping(address handler => uint256) handlers;
        mapping(address library_ => bytes32) pinned;
    }

    /// @param by the executor that announced a recovery and alone may carry it out; zero for what the account announced itself.
    struct Announcement {
        uint48 executableAt;
        uint48 installs;
        address by;
    }

    /// Seconds after `executableAt` in which an announced call can still be carried out.
    uint48 public constant ADMIN_WINDOW = 14 days;

    /// Owner, caps and delay are in storage: they were changed since birth, or the account has no birth data.
    uint8 internal constant STORED = 0x01;
    /// An EIP-7702 account has joined: its modules count.
    uint8 internal constant JOINED = 0x02;
    /// The validators that the code names are installed. Their entries in the list of validators say the same; the flags save reading those.
    uint8 internal constant ATTESTED = 0x04;
    uint8 internal constant SESSIONS = 0x08;
    uint256 internal constant STORED_BIT = uint256(STORED) << 240;
    uint256 internal constant JOINED_BIT = uint256(JOINED) << 240;

    // keccak256(abi.encode(uint256(keccak256("openzeppelin.storage.AccountERC7579Hooked")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 internal constant STATE_WORD_SLOT = 0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700;
    // keccak256(abi.encode(uint256(keccak256("openzeppelin.storage.AccountERC7579")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 internal constant MODULES_SLOT = 0x0a47d913d72b2639f4ca1c145cc07ddf7170b73b257c8e0d4fced7cc8e3e3900;
    // keccak256(abi.encode(uint256(keccak256("seawall.storage.RiskAccount")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 internal constant STORAGE_SLOT = 0x5a2c7621610bb5812fa23aae5b9db82720aab3ec04bc07a265af9c8fad35fb00;

    /// The validators that most accounts have; zero where there is none.
    address internal immutable RISK_VALIDATOR;
    address internal immutable SESSION_VALIDATOR;

    constructor(address riskValidator, address sessionValidator) {
        (RISK_VALIDATOR, SESSION_VALIDATOR) = (riskValidator, sessionValidator);
    }

    modifier onlyActive() {
        _requireActive();
        _;
    }

    function _requireActive() internal view {
        RiskState state = _word().state;
        if (state != RiskState.ACTIVE) revert NotInState(state);
    }

    /// @dev kind (8) | owner (160) | prefund cap while ACTIVE (88 bits). An account without birth data and storage is an EIP-7702 delegation
    /// that has not joined: its owner is its own key, which no contract can have.
    function _signer(uint256 word) internal view returns (uint256 signer) {
        if (word & STORED_BIT != 0) return _storage().signer;
        signer = AccountProxy.birthWord(0);
        if (signer == 0) signer = uint256(uint160(address(this))) << 88 | type(uint88).max;
    }

    /// @dev Cap while REDUCE_ONLY (88) | while FROZEN (88) | admin delay (48 bits) | unused (32).
    function _limits(uint256 word) internal view returns (uint256 limits) {
        if (word & STORED_BIT != 0) return _storage().limits;
        limits = AccountProxy.birthWord(32) >> 32 << 32; // the owner key begins there
        // Without birth data there are no caps: an account that binds nobody yet.
        if (limits == 0 && AccountProxy.birthWord(0) == 0) limits = type(uint256).max << 80;
    }

    function _ownerKey(uint256 word) internal view returns (bytes memory) {
        return word & STORED_BIT != 0 ? _storage().ownerKey : AccountProxy.birthKey();
    }

    /// @dev Make storage the place of owner, caps and delay, with what they are now.
    function _store() internal returns (RiskAccountStorage storage $) {
        uint256 word = _rawWord();
        $ = _storage();
        if (word & STORED_BIT != 0) return $;
        $.signer = _signer(word) & ~(uint256(AccountProxy.UNFINISHED) << 248);
        $.limits = _limits(word);
        $.ownerKey = _ownerKey(word);
        _word().flags |= STORED;
    }

    /// @dev What the account itself keeps about a module that has gone.
    function _afterUninstall(uint256 moduleTypeId, address module) internal {
        RiskAccountStorage storage $ = _storage();
        if (moduleTypeId == MODULE_TYPE_VALIDATOR) {
            _word().flags &= ~_flagOf(module);
            if (!$.attested[module]) return;
            delete $.attested[module];
            --_word().attested;
        } else if (moduleTypeId == MODULE_TYPE_FALLBACK && $.handlers[module] != 0) {
            --$.handlers[module];
            --$.fallbacks;
        } else if (moduleTypeId == MODULE_TYPE_EXECUTOR && module == $.authority) {
            delete $.authority;
            emit AuthorityChanged(address(0));
        }
    }

    /// @dev The flag of a validator that the code names, 0 of any other.
    function _flagOf(address validator) internal view returns (uint8) {
        if (validator == address(0)) return 0;
        return validator == RISK_VALIDATOR ? ATTESTED : validator == SESSION_VALIDATOR ? SESSIONS : 0;
    }

    function _announce(bytes memory data, uint48 delay, address by) internal returns (uint48 executableAt) {
        RiskAccountStorage storage $ = _storage();
        bytes32 actionHash = keccak256(data);
        if (_announcedFor(actionHash) != 0) revert AlreadyAnnounced(actionHash);
        executableAt = uint48(block.timestamp) + delay;
        $.announcements[actionHash] = Announcement({executableAt: executableAt, installs: $.installs, by: by});
        emit AdminScheduled(actionHash, data, executableAt);
    }

    /// @dev When it may be carried out; 0: there is none, or it lapsed.
    function _announcedFor(bytes32 actionHash) internal view returns (uint48) {
        RiskAccountStorage storage $ = _storage();
        Announcement memory announcement = $.announcements[actionHash];
        bool alive = announcement.installs == $.installs && block.timestamp <= announcement.executableAt + ADMIN_WINDOW;
        return alive ? announcement.executableAt : 0;
    }

    /// @dev An installed executor that the authority lists as a guard: it could move everything in every state anyway. Without an authority
    /// nobody can undo an announcement but the owner, so nobody may recover.
    function _mayRecover(address module) internal view returns (bool) {
        address authority = _storage().authority;
        return authority != address(0) && _modules()._executors.contains(module)
            && IEmergencyFreeze(authority).isGuard(address(this), module);
    }

    function _adminDelay() internal view returns (uint48) {
        return uint48(_limits(_rawWord()) >> 32);
    }

    function _rawWord() internal view returns (uint256 raw) {
        assembly ("memory-safe") {
            raw := sload(STATE_WORD_SLOT)
        }
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
