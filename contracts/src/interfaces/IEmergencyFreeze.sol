// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {RiskState} from "./IRiskState.sol";

/// @title Who may stop an account, and what still works then
/// @notice On an account that implements `IRiskState` with this module as authority, the state is the account's own word and this
/// module is installed as an executor. On any other ERC-7579 account it is installed as the hook and keeps the state itself.
/// ERC-1271 and validation of a foreign account are outside its reach.
interface IEmergencyFreeze {
    /// A call that stays open in REDUCE_ONLY and FROZEN. `target`.`selector` with no value; when `argMask` has bit i set, the i-th
    /// 32-byte argument word must equal the corresponding entry of `args` (in order of set bits). With `plainValue` set
    /// (`selector` and `argMask` zero) it means instead: any value to `target` with empty call data.
    /// @param inFrozen open in FROZEN too, else in REDUCE_ONLY only.
    struct Exit {
        address target;
        bytes4 selector;
        bool inFrozen;
        bool plainValue;
        uint8 argMask;
        bytes32[] args;
    }

    /// In seconds; as in InstallData.
    struct Delays {
        uint48 soloFreeze;
        uint48 soloCooldown;
        uint48 thaw;
        uint48 escape;
    }

    /// onInstall data: abi.encode(InstallData).
    /// @param soloFreezeSeconds how long one guardian's freeze lasts before anyone may `expire` it.
    /// @param soloCooldownSeconds how long after a solo freeze's start no further solo freeze is taken (the quorum may always);
    /// more than `soloFreezeSeconds`, so that one guardian alone cannot hold an account for ever.
    /// @param thawDelaySeconds between a quorum's thaw request and the thaw.
    /// @param escapeDelaySeconds between the account's own `startEscape` and `finishEscape`, which lands one step looser.
    /// @param guards modules that may act in every state (they can only reduce).
    struct InstallData {
        address[] guardians;
        uint8 quorum;
        uint48 soloFreezeSeconds;
        uint48 soloCooldownSeconds;
        uint48 thawDelaySeconds;
        uint48 escapeDelaySeconds;
        address[] guards;
        Exit[] exits;
    }

    event Frozen(address indexed account, RiskState state, address indexed by, uint48 until);
    event ThawRequested(address indexed account, uint48 executableAt);
    event ThawCancelled(address indexed account);
    event Thawed(address indexed account, RiskState state);
    event EscapeStarted(address indexed account, uint48 executableAt);
    event EscapeCancelled(address indexed account);
    event GuardianSet(address indexed account, address indexed guardian, bool enabled);
    event GuardSet(address indexed account, address indexed guard, bool enabled);
    event DelaysSet(address indexed account, Delays delays);
    event ExitSet(address indexed account, bytes32 indexed exitId, Exit exit, bool enabled);

    /// @notice The state of `account`, wherever it is kept.
    function stateOf(address account) external view returns (RiskState state, uint64 epoch);

    /// @notice One guardian stops the account at once (REDUCE_ONLY or FROZEN; never loosens). Caller is a guardian.
    function freeze(address account, RiskState state) external;

    /// @notice The same by signatures that anyone may relay: Freeze(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry).
    /// One signature is a solo freeze; `quorum` signatures (signers ascending) make it last until a thaw.
    function freezeBySig(
        address account,
        RiskState state,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external;

    /// @notice End a solo freeze whose time is over; lands in the state before it. Anyone.
    function expire(address account) external;

    /// @notice Quorum asks for a thaw: Thaw(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry). Anyone relays.
    function requestThaw(
        address account,
        RiskState state,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external;

    /// @notice Carry out a thaw whose delay is over. Anyone.
    function thaw(address account) external;

    /// @notice Quorum withdraws a thaw or an escape: Cancel(address account,uint64 epoch,uint256 nonce,uint48 expiry).
    function cancel(address account, uint48 expiry, address[] calldata signers, bytes[] calldata signatures) external;

    /// @notice Quorum replaces a guardian, in any state (a lost or hostile key while FROZEN):
    /// ReplaceGuardian(address account,address oldGuardian,address newGuardian,uint64 epoch,uint256 nonce,uint48 expiry).
    function replaceGuardian(
        address account,
        address oldGuardian,
        address newGuardian,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external;

    /// @notice Quorum withdraws an announced administrative call of a `RiskAccount`:
    /// CancelAdmin(address account,bytes32 actionHash,uint64 epoch,uint256 nonce,uint48 expiry).
    function cancelAdmin(
        address account,
        bytes32 actionHash,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external;

    /// @notice The account itself starts a delayed way out (an exit that is always open, only while not ACTIVE). Guardians may cancel
    /// it with the quorum. It lands one step looser than the state is then: FROZEN in REDUCE_ONLY, REDUCE_ONLY in ACTIVE.
    function startEscape() external;
    function finishEscape(address account) external;

    function setGuardian(address guardian, bool enabled) external;
    function setQuorum(uint8 quorum) external;
    function setGuard(address guard, bool enabled) external;
    function setExit(Exit calldata exit, bool enabled) external;

    /// @notice What is under way keeps its time. Called by the account while ACTIVE, as the four above.
    function setDelays(Delays calldata delays) external;
    function delaysOf(address account) external view returns (Delays memory);

    /// @notice Whether exactly this exit is declared, with its `inFrozen`.
    function isExit(address account, Exit calldata exit) external view returns (bool);

    function isGuardian(address account, address guardian) external view returns (bool);
    function isGuard(address account, address guard) external view returns (bool);
    function quorumOf(address account) external view returns (uint8 quorum, uint8 guardians);

    /// @notice When a thaw or an escape under way may be carried out (0: none), and when a solo freeze ends (0: none).
    function pendingOf(address account)
        external
        view
        returns (uint48 thawAt, RiskState thawTo, uint48 escapeAt, uint48 soloUntil);

    function nonceOf(address account) external view returns (uint256);

    /// @notice Whether a call is open in `state`. `target`'s own escape functions of this module always are.
    function permits(address account, RiskState state, address target, uint256 value, bytes calldata data)
        external
        view
        returns (bool);
}
