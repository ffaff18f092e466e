// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IEntryPointNonces} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {
    IERC7579Execution,
    IERC7579Module,
    MODULE_TYPE_EXECUTOR
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {ERC165Checker} from "@openzeppelin/contracts/utils/introspection/ERC165Checker.sol";
import {IRecovery} from "../interfaces/IRecovery.sol";
import {IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {IRiskState} from "../interfaces/IRiskState.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";

/// What most ERC-4337 accounts answer, this toolkit's and OpenZeppelin's among them.
interface IEntryPointOf {
    function entryPoint() external view returns (IEntryPointNonces);
}

/// @title Guardians and a dead-man switch
/// @notice One contract for all accounts. A `RiskAccount` keeps the delay itself too: what is proposed is announced there, where its owner, its
/// authority's quorum and every later installation of a module can undo it, and only this module can carry it out. On any other account this
/// module keeps the delay alone. A stolen owner key can cancel as well as the owner can: against a thief there is the freeze.
contract Recovery is IRecovery, IERC7579Module, EIP712 {
    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    /// Delay or silence out of bounds, too many lanes, no entry point for them, or no way to change the owner.
    error InvalidSettings();
    /// On this account the new owner must be a single address.
    error InvalidOwner(bytes newOwner);
    error InvalidSignature();
    error Expired(uint48 expiry);
    error NoHeir();
    /// The owner was seen; the heir waits until `until`, counted anew from each sign of life. Call `witness` if `movedSince`.
    error OwnerAlive(uint48 until, bool movedSince);
    error AlreadyPending(uint48 executableAt);
    error NothingPending();
    error TooEarly(uint48 executableAt);
    error Lapsed();
    error AlreadyAnnounced(bytes32 changeHash);
    error NotAnnounced(bytes32 changeHash);

    /// @param native the account announces and carries out changes of owner itself.
    /// @param generation of the installation; announcements of an earlier one are void.
    /// @param seenAt last sign of life. @param lanesSeen hash of the lanes' nonces then.
    struct Account {
        bool installed;
        bool native;
        uint32 generation;
        uint48 seenAt;
        bytes32 lanesSeen;
        uint256 nonce;
        Settings settings;
        Pending pending;
    }

    struct Pending {
        bytes newOwner;
        uint48 executableAt;
        bool byHeir;
    }

    struct Announcement {
        uint32 generation;
        uint48 executableAt;
    }

    uint48 public constant MIN_DELAY = 1 hours;
    uint48 public constant MIN_SILENCE = 1 days;
    /// No delay and no silence may be so long that it is for ever.
    uint48 public constant MAX_WAIT = 3650 days;
    uint256 public constant MAX_LANES = 8;
    /// Seconds after a delay in which what it was for can be done.
    uint48 public constant WINDOW = 14 days;

    bytes32 private constant PROPOSE_TYPEHASH =
        keccak256("Propose(address account,bytes newOwner,uint256 nonce,uint48 expiry)");
    bytes32 private constant CLAIM_TYPEHASH =
        keccak256("Claim(address account,bytes newOwner,uint256 nonce,uint48 expiry)");
    bytes32 private constant CANCEL_TYPEHASH = keccak256("Cancel(address account,uint256 nonce,uint48 expiry)");
    bytes32 private constant WITHDRAW_TYPEHASH = keccak256("Withdraw(address account,uint256 nonce,uint48 expiry)");

    mapping(address account => Account) private _accounts;
    mapping(address account => mapping(bytes32 changeHash => Announcement)) private _announcements;

    constructor() EIP712("Seawall Recovery", "1") {}

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    function onInstall(bytes calldata data) external {
        Account storage a = _accounts[msg.sender];
        if (a.installed) revert AlreadyInstalled(msg.sender);
        a.installed = true;
        a.native = ERC165Checker.supportsInterface(msg.sender, type(IRiskState).interfaceId);
        ++a.generation;
        _setSettings(a, abi.decode(data, (Settings)));
    }

    /// @inheritdoc IERC7579Module
    /// @dev A `RiskAccount` delays the removal itself; elsewhere it must have been announced here.
    function onUninstall(bytes calldata) external {
        Account storage a = _installed(msg.sender);
        if (!a.native) _consumeAnnouncement();
        a.installed = false;
        delete a.pending;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_EXECUTOR;
    }

    // ------------------------------------------------------------------ recovery

    /// @inheritdoc IRecovery
    function propose(address account, bytes calldata newOwner, uint48 expiry, bytes calldata signature) external {
        Account storage a = _installed(account);
        bytes32 structHash = keccak256(abi.encode(PROPOSE_TYPEHASH, account, keccak256(newOwner), a.nonce, expiry));
        _authorise(a, a.settings.guardians, structHash, expiry, signature);
        _start(a, account, newOwner, false);
    }

    /// @inheritdoc IRecovery
    function claim(address account, bytes calldata newOwner, uint48 expiry, bytes calldata signature) external {
        Account storage a = _installed(account);
        if (a.settings.heir.length == 0) revert NoHeir();
        _requireSilence(a, account);
        bytes32 structHash = keccak256(abi.encode(CLAIM_TYPEHASH, account, keccak256(newOwner), a.nonce, expiry));
        _authorise(a, a.settings.heir, structHash, expiry, signature);
        _start(a, account, newOwner, true);
    }

    /// @inheritdoc IRecovery
    function cancel() external {
        Account storage a = _installed(msg.sender);
        _seen(a, msg.sender);
        _stop(a, msg.sender);
    }

    /// @inheritdoc IRecovery
    function cancelBySig(address account, uint48 expiry, bytes calldata signature) external {
        Account storage a = _installed(account);
        if (block.timestamp > expiry) revert Expired(expiry);
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(CANCEL_TYPEHASH, account, a.nonce, expiry)));
        ++a.nonce;
        bool signed = a.native
            ? IRiskAccount(account).isOwnerSignature(digest, signature)
            : SignatureChecker.isValidERC1271SignatureNowCalldata(account, digest, signature);
        if (!signed) revert InvalidSignature();
        _seen(a, account);
        _stop(a, account);
    }

    /// @inheritdoc IRecovery
    function withdraw(address account, uint48 expiry, bytes calldata signature) external {
        Account storage a = _installed(account);
        bytes32 structHash = keccak256(abi.encode(WITHDRAW_TYPEHASH, account, a.nonce, expiry));
        _authorise(a, a.settings.guardians, structHash, expiry, signature);
        _stop(a, account);
    }

    /// @inheritdoc IRecovery
    function execute(address account) external {
        Account storage a = _installed(account);
        Pending memory pending = a.pending;
        if (pending.executableAt == 0) revert NothingPending();
        if (block.timestamp < pending.executableAt) revert TooEarly(pending.executableAt);
        if (block.timestamp > pending.executableAt + WINDOW) revert Lapsed();
        if (pending.byHeir) _requireSilence(a, account);
        delete a.pending;
        _seen(a, account);
        emit Recovered(account, pending.newOwner);
        if (a.native) {
            IRiskAccount(account).executeAdmin(_setOwnerCall(pending.newOwner));
        } else {
            Settings storage s = a.settings;
            bytes memory argument =
                s.plainAddress ? abi.encode(address(bytes20(pending.newOwner))) : abi.encode(pending.newOwner);
            bytes memory call_ = abi.encodePacked(s.target, uint256(0), s.selector, argument);
            IERC7579Execution(account).executeFromExecutor(bytes32(0), call_);
        }
    }

    // ------------------------------------------------------------------ life

    /// @inheritdoc IRecovery
    function heartbeat() external {
        _seen(_installed(msg.sender), msg.sender);
    }

    /// @inheritdoc IRecovery
    function witness(address account) external {
        Account storage a = _installed(account);
        if (_lanes(a.settings, account) != a.lanesSeen) _seen(a, account);
    }

    // ------------------------------------------------------------------ settings

    /// @inheritdoc IRecovery
    function announce(bytes calldata data) external {
        Account storage a = _installed(msg.sender);
        bytes32 changeHash = keccak256(data);
        if (executableAt(msg.sender, changeHash) != 0) revert AlreadyAnnounced(changeHash);
        uint48 time = uint48(block.timestamp) + a.settings.delay;
        _announcements[msg.sender][changeHash] = Announcement({generation: a.generation, executableAt: time});
        emit ChangeAnnounced(msg.sender, changeHash, data, time);
    }

    /// @inheritdoc IRecovery
    function withdrawChange(bytes32 changeHash) external {
        if (executableAt(msg.sender, changeHash) == 0) revert NotAnnounced(changeHash);
        delete _announcements[msg.sender][changeHash];
        emit ChangeWithdrawn(msg.sender, changeHash);
    }

    /// @inheritdoc IRecovery
    function setSettings(Settings calldata settings) external {
        Account storage a = _installed(msg.sender);
        if (_isPending(a, msg.sender)) revert AlreadyPending(a.pending.executableAt);
        _consumeAnnouncement();
        _setSettings(a, settings);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IRecovery
    function settingsOf(address account) external view returns (bool installed, Settings memory) {
        return (_accounts[account].installed, _accounts[account].settings);
    }

    /// @inheritdoc IRecovery
    function pendingOf(address account)
        external
        view
        returns (bytes memory newOwner, uint48 executableAt_, bool byHeir)
    {
        Account storage a = _accounts[account];
        if (!_isPending(a, account)) return ("", 0, false);
        return (a.pending.newOwner, a.pending.executableAt, a.pending.byHeir);
    }

    /// @inheritdoc IRecovery
    function seenOf(address account) external view returns (uint48 seenAt, bool movedSince) {
        Account storage a = _accounts[account];
        return (a.seenAt, a.installed && _lanes(a.settings, account) != a.lanesSeen);
    }

    /// @inheritdoc IRecovery
    function executableAt(address account, bytes32 changeHash) public view returns (uint48) {
        Account storage a = _accounts[account];
        Announcement memory announcement = _announcements[account][changeHash];
        bool alive = a.installed && announcement.generation == a.generation
            && block.timestamp <= announcement.executableAt + WINDOW;
        return alive ? announcement.executableAt : 0;
    }

    /// @inheritdoc IRecovery
    function nonceOf(address account) external view returns (uint256) {
        return _accounts[account].nonce;
    }

    /// @notice The EIP-712 domain separator that guardians, heir and owner sign under.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // ------------------------------------------------------------------ inside

    function _installed(address account) private view returns (Account storage a) {
        a = _accounts[account];
        if (!a.installed) revert NotInstalled(account);
    }

    function _setSettings(Account storage a, Settings memory s) private {
        bool heir = s.heir.length != 0;
        bool sound = s.delay >= MIN_DELAY && s.delay <= MAX_WAIT && s.lanes.length <= MAX_LANES
            && (!heir || (s.silence >= MIN_SILENCE && s.silence <= MAX_WAIT))
            && (s.entryPoint == address(0) || s.entryPoint.code.length != 0) && a.native == (s.target == address(0))
            && s.target != address(this);
        if (!sound) revert InvalidSettings();
        OwnerLib.decode(s.guardians);
        if (heir) OwnerLib.decode(s.heir);
        a.settings = s;
        _seen(a, msg.sender);
        emit SettingsSet(msg.sender, s);
    }

    /// @dev The party's own call, or its signature over a message that is used up.
    function _authorise(
        Account storage a,
        bytes memory party,
        bytes32 structHash,
        uint48 expiry,
        bytes calldata signature
    ) private {
        if (block.timestamp > expiry) revert Expired(expiry);
        ++a.nonce;
        (uint8 kind, address signer, bytes memory key) = OwnerLib.decode(party);
        if (kind != OwnerLib.KIND_ERC7913 && msg.sender == signer) return;
        if (!OwnerLib.isValid(kind, signer, key, _hashTypedDataV4(structHash), signature)) revert InvalidSignature();
    }

    function _start(Account storage a, address account, bytes calldata newOwner, bool byHeir) private {
        if (_isPending(a, account)) revert AlreadyPending(a.pending.executableAt);
        if (a.settings.plainAddress && (newOwner.length != 20 || bytes20(newOwner) == 0)) {
            revert InvalidOwner(newOwner);
        }
        uint48 time = uint48(block.timestamp) + a.settings.delay;
        if (a.native) {
            OwnerLib.decode(newOwner);
            time = IRiskAccount(account).announceRecovery(newOwner, a.settings.delay);
        }
        a.pending = Pending({newOwner: newOwner, executableAt: time, byHeir: byHeir});
        emit RecoveryProposed(account, newOwner, byHeir, time);
    }

    function _stop(Account storage a, address account) private {
        if (!_isPending(a, account)) revert NothingPending();
        bytes memory newOwner = a.pending.newOwner;
        delete a.pending;
        emit RecoveryCancelled(account, newOwner);
        if (a.native) IRiskAccount(account).cancelAdmin(keccak256(_setOwnerCall(newOwner)));
    }

    /// @dev On a `RiskAccount` only while the account's own announcement stands.
    function _isPending(Account storage a, address account) private view returns (bool) {
        uint48 time = a.pending.executableAt;
        if (time == 0 || block.timestamp > time + WINDOW) return false;
        return
            !a.native || IRiskAccount(account).adminExecutableAt(keccak256(_setOwnerCall(a.pending.newOwner))) == time;
    }

    function _setOwnerCall(bytes memory newOwner) private pure returns (bytes memory) {
        return abi.encodeCall(IRiskAccount.setOwner, (newOwner));
    }

    function _seen(Account storage a, address account) private {
        a.seenAt = uint48(block.timestamp);
        a.lanesSeen = _lanes(a.settings, account);
        emit SeenAlive(account, uint48(block.timestamp));
    }

    function _requireSilence(Account storage a, address account) private view {
        bool movedSince = _lanes(a.settings, account) != a.lanesSeen;
        uint48 until = a.seenAt + a.settings.silence;
        if (movedSince || block.timestamp < until) revert OwnerAlive(until, movedSince);
    }

    function _lanes(Settings storage s, address account) private view returns (bytes32 hash) {
        address counter = s.entryPoint;
        if (counter == address(0) && s.lanes.length != 0) counter = address(IEntryPointOf(account).entryPoint());
        for (uint256 i = 0; i < s.lanes.length; ++i) {
            uint256 nonce = IEntryPointNonces(counter).getNonce(account, s.lanes[i]);
            hash = keccak256(abi.encode(hash, nonce));
        }
    }

    function _consumeAnnouncement() private {
        bytes32 changeHash = keccak256(msg.data);
        uint48 time = executableAt(msg.sender, changeHash);
        if (time == 0) revert NotAnnounced(changeHash);
        if (block.timestamp < time) revert TooEarly(time);
        delete _announcements[msg.sender][changeHash];
    }
}
