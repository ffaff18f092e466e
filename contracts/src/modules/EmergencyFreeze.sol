// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {CallType, ERC7579Utils, Mode} from "@openzeppelin/contracts/account/utils/draft-ERC7579Utils.sol";
import {
    Execution,
    IERC7579Execution,
    IERC7579Hook,
    IERC7579Module,
    MODULE_TYPE_EXECUTOR,
    MODULE_TYPE_HOOK
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {ERC165Checker} from "@openzeppelin/contracts/utils/introspection/ERC165Checker.sol";
import {IEmergencyFreeze} from "../interfaces/IEmergencyFreeze.sol";
import {IRiskAccount} from "../interfaces/IRiskAccount.sol";
import {IRiskState, RiskState} from "../interfaces/IRiskState.sol";
import {ExitRegistry} from "./ExitRegistry.sol";

/// @title Who may stop an account, and what still works then
/// @notice One contract for all accounts. The state has two layers: a lasting one that only a quorum tightens or (after a delay) loosens,
/// and a solo freeze by one guardian on top of it, which ends by itself. The account is in the stricter of the two.
/// No account can be bricked: a solo freeze expires and cannot be renewed by one guardian before its cool-down, and the account itself
/// can always start an escape, which after a delay lands one step looser unless the quorum cancels it.
contract EmergencyFreeze is ExitRegistry, IERC7579Hook, EIP712 {
    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error NotGuardian(address caller);
    error InvalidGuardian(address guardian);
    error InvalidQuorum(uint8 quorum, uint8 guardians);
    /// The cool-down must be longer than the freeze, or one guardian could hold the account for ever.
    error InvalidTimes();
    /// A freeze names REDUCE_ONLY or FROZEN and never loosens; a thaw never tightens.
    error WrongDirection(RiskState current, RiskState asked);
    /// One guardian may freeze again only then; the quorum may now.
    error CoolingDown(uint48 until);
    error Expired(uint48 expiry);
    /// One signature or the quorum, ascending signers that are guardians, each signature valid.
    error InvalidSignatures();
    error NothingPending();
    error TooEarly(uint48 executableAt);
    error NotInState(RiskState state);
    /// The hook refuses this call of a foreign account in its present state.
    error NotPermitted(RiskState state, address target, uint256 value, bytes data);
    error NotAGuard(address executor);
    error CallRefused(RiskState state, bytes4 selector);

    event QuorumSet(address indexed account, uint8 quorum);

    /// @param generation of the installation; 0 before the first.
    /// @param native the account keeps its own state word and this module is its authority.
    /// @param nonce of signed messages; never reset.
    struct Config {
        uint64 generation;
        bool installed;
        bool native;
        uint8 quorum;
        uint8 guardians;
        uint48 soloFreezeSeconds;
        uint48 soloCooldownSeconds;
        uint48 thawDelaySeconds;
        uint48 escapeDelaySeconds;
        uint128 nonce;
    }

    /// @param state in force (foreign accounts only; a native account has its own). @param epoch likewise.
    /// @param lasting the layer that only quorum, thaw and escape move.
    /// @param solo the layer of one guardian, until `soloUntil` (0: none). No further one before `soloAgainAt`.
    struct Layers {
        RiskState state;
        uint64 epoch;
        RiskState lasting;
        RiskState solo;
        uint48 soloUntil;
        uint48 soloAgainAt;
    }

    /// @param thawEpoch the epoch in which the thaw was asked for: it ends a solo freeze of that epoch and of no later one.
    struct Pending {
        uint48 thawAt;
        uint48 escapeAt;
        RiskState thawTo;
        uint64 thawEpoch;
    }

    bytes32 private constant FREEZE_TYPEHASH =
        keccak256("Freeze(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant THAW_TYPEHASH =
        keccak256("Thaw(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant CANCEL_TYPEHASH =
        keccak256("Cancel(address account,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant REPLACE_GUARDIAN_TYPEHASH = keccak256(
        "ReplaceGuardian(address account,address oldGuardian,address newGuardian,uint64 epoch,uint256 nonce,uint48 expiry)"
    );
    bytes32 private constant CANCEL_ADMIN_TYPEHASH =
        keccak256("CancelAdmin(address account,bytes32 actionHash,uint64 epoch,uint256 nonce,uint48 expiry)");

    mapping(address account => Config) private _configs;
    mapping(address account => Layers) private _layers;
    mapping(address account => Pending) private _pendings;
    mapping(address guardian => mapping(address account => uint64 generation)) private _guardians;
    constructor() EIP712("Seawall EmergencyFreeze", "1") {}

    modifier onlyInstalled(address account) {
        if (!_configs[account].installed) revert NotInstalled(account);
        _;
    }

    /// @dev Settings change by the account's own call while it is ACTIVE.
    modifier onlyActiveAccount() {
        if (!_configs[msg.sender].installed) revert NotInstalled(msg.sender);
        (RiskState state,) = stateOf(msg.sender);
        if (state != RiskState.ACTIVE) revert NotInState(state);
        _;
    }

    // ------------------------------------------------------------------ module

    /// @inheritdoc IERC7579Module
    /// @dev As executor of an account that implements `IRiskState`, as hook of any other.
    function onInstall(bytes calldata data) external {
        address account = msg.sender;
        Config storage config = _configs[account];
        if (config.installed) revert AlreadyInstalled(account);
        InstallData memory init = abi.decode(data, (InstallData));
        config.installed = true;
        config.native = ERC165Checker.supportsInterface(account, type(IRiskState).interfaceId);
        ++config.generation;
        _setDelays(
            account,
            Delays(init.soloFreezeSeconds, init.soloCooldownSeconds, init.thawDelaySeconds, init.escapeDelaySeconds)
        );
        config.guardians = 0;
        for (uint256 i = 0; i < init.guardians.length; ++i) {
            _addGuardian(config, account, init.guardians[i]);
        }
        _setQuorum(config, account, init.quorum);
        for (uint256 i = 0; i < init.guards.length; ++i) {
            _setGuard(account, init.guards[i], true);
        }
        for (uint256 i = 0; i < init.exits.length; ++i) {
            _setExit(account, init.exits[i], true);
        }
    }

    /// @inheritdoc IERC7579Module
    /// @dev Forgets the state of a foreign account; its hook is gone, so nothing would enforce it.
    function onUninstall(bytes calldata) external onlyInstalled(msg.sender) {
        _configs[msg.sender].installed = false;
        uint64 epoch = _layers[msg.sender].epoch;
        delete _layers[msg.sender];
        delete _pendings[msg.sender];
        _layers[msg.sender].epoch = epoch + 1;
    }

    /// @inheritdoc IERC7579Module
    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == MODULE_TYPE_EXECUTOR || moduleTypeId == MODULE_TYPE_HOOK;
    }

    /// @inheritdoc IERC7579Hook
    /// @notice On a foreign account: outside ACTIVE only declared exits pass, and guards act. Its own removal waits for ACTIVE, which the
    /// escape always reaches.
    function preCheck(address msgSender, uint256, bytes calldata msgData) external view returns (bytes memory) {
        Config storage config = _configs[msg.sender];
        if (!config.installed || config.native) return "";
        RiskState state = _layers[msg.sender].state;
        if (state == RiskState.ACTIVE) return "";
        bytes4 selector = bytes4(msgData);
        bool byExecutor = selector == IERC7579Execution.executeFromExecutor.selector;
        if (!byExecutor && selector != IERC7579Execution.execute.selector) revert CallRefused(state, selector);
        if (byExecutor && !isGuard(msg.sender, msgSender)) revert NotAGuard(msgSender);
        (bytes32 mode, bytes memory executionCalldata) = abi.decode(msgData[4:], (bytes32, bytes));
        (CallType callType,,,) = ERC7579Utils.decodeMode(Mode.wrap(mode));
        if (callType == ERC7579Utils.CALLTYPE_SINGLE) {
            this.checkSingle(msg.sender, state, byExecutor, executionCalldata);
        } else if (callType == ERC7579Utils.CALLTYPE_BATCH) {
            // Decoded strictly: an encoding that reaches outside its own bytes could mean other calls to the account than to us.
            Execution[] memory calls = abi.decode(executionCalldata, (Execution[]));
            for (uint256 i = 0; i < calls.length; ++i) {
                _checkCall(msg.sender, state, byExecutor, calls[i].target, calls[i].value, calls[i].callData);
            }
        } else {
            revert CallRefused(state, selector);
        }
        return "";
    }

    /// @inheritdoc IERC7579Hook
    function postCheck(bytes calldata) external {}

    /// @dev A part of `preCheck` that needs its argument in call data.
    function checkSingle(address account, RiskState state, bool byExecutor, bytes calldata executionCalldata)
        external
        view
    {
        (address target, uint256 value, bytes calldata data) = ERC7579Utils.decodeSingle(executionCalldata);
        _checkCall(account, state, byExecutor, target, value, data);
    }

    // ------------------------------------------------------------------ freezing

    /// @inheritdoc IEmergencyFreeze
    /// @dev A declared guard may call it too: a breaker. Its freeze lasts until a thaw or an escape, and takes neither back.
    function freeze(address account, RiskState state) external onlyInstalled(account) {
        if (isGuard(account, msg.sender)) return _guardFreeze(account, state);
        if (!isGuardian(account, msg.sender)) revert NotGuardian(msg.sender);
        _soloFreeze(account, state, msg.sender);
    }

    /// @inheritdoc IEmergencyFreeze
    function freezeBySig(
        address account,
        RiskState state,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external onlyInstalled(account) {
        bool byQuorum = signers.length >= _configs[account].quorum;
        if (!byQuorum && signers.length != 1) revert InvalidSignatures();
        (, uint64 epoch) = stateOf(account);
        bytes32 structHash =
            keccak256(abi.encode(FREEZE_TYPEHASH, account, state, epoch, uint256(_configs[account].nonce), expiry));
        _consume(account, structHash, expiry, signers, signatures);
        if (byQuorum) _quorumFreeze(account, state, signers[0]);
        else _soloFreeze(account, state, signers[0]);
    }

    /// @inheritdoc IEmergencyFreeze
    function expire(address account) external onlyInstalled(account) {
        Layers storage layers = _layers[account];
        uint48 until = layers.soloUntil;
        if (until == 0) revert NothingPending();
        if (block.timestamp < until) revert TooEarly(until);
        _endSolo(layers);
        emit Thawed(account, _settle(account));
    }

    // ------------------------------------------------------------------ ways back

    /// @inheritdoc IEmergencyFreeze
    function requestThaw(
        address account,
        RiskState state,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external onlyInstalled(account) {
        (RiskState current, uint64 epoch) = stateOf(account);
        if (state >= current) revert WrongDirection(current, state);
        _requireQuorum(account, signers);
        bytes32 structHash =
            keccak256(abi.encode(THAW_TYPEHASH, account, state, epoch, uint256(_configs[account].nonce), expiry));
        _consume(account, structHash, expiry, signers, signatures);
        Pending storage pending = _pendings[account];
        uint48 thawAt = uint48(block.timestamp) + _configs[account].thawDelaySeconds;
        (pending.thawAt, pending.thawTo, pending.thawEpoch) = (thawAt, state, epoch);
        emit ThawRequested(account, thawAt);
    }

    /// @inheritdoc IEmergencyFreeze
    function thaw(address account) external onlyInstalled(account) {
        Pending storage pending = _pendings[account];
        uint48 thawAt = pending.thawAt;
        if (thawAt == 0) revert NothingPending();
        if (block.timestamp < thawAt) revert TooEarly(thawAt);
        Layers storage layers = _layers[account];
        (, uint64 epoch) = stateOf(account);
        if (epoch == pending.thawEpoch) _endSolo(layers);
        if (pending.thawTo < layers.lasting) layers.lasting = pending.thawTo;
        pending.thawAt = 0;
        emit Thawed(account, _settle(account));
    }

    /// @inheritdoc IEmergencyFreeze
    function cancel(address account, uint48 expiry, address[] calldata signers, bytes[] calldata signatures)
        external
        onlyInstalled(account)
    {
        _requireQuorum(account, signers);
        (, uint64 epoch) = stateOf(account);
        bytes32 structHash =
            keccak256(abi.encode(CANCEL_TYPEHASH, account, epoch, uint256(_configs[account].nonce), expiry));
        _consume(account, structHash, expiry, signers, signatures);
        Pending storage pending = _pendings[account];
        if (pending.thawAt == 0 && pending.escapeAt == 0) revert NothingPending();
        if (pending.thawAt != 0) emit ThawCancelled(account);
        if (pending.escapeAt != 0) emit EscapeCancelled(account);
        (pending.thawAt, pending.escapeAt) = (0, 0);
    }

    /// @inheritdoc IEmergencyFreeze
    function startEscape() external onlyInstalled(msg.sender) {
        (RiskState state,) = stateOf(msg.sender);
        // Armed only against a freeze that exists: an escape started in advance would void the next one.
        if (state == RiskState.ACTIVE) revert NotInState(state);
        uint48 escapeAt = uint48(block.timestamp) + _configs[msg.sender].escapeDelaySeconds;
        _pendings[msg.sender].escapeAt = escapeAt;
        emit EscapeStarted(msg.sender, escapeAt);
    }

    /// @inheritdoc IEmergencyFreeze
    function finishEscape(address account) external onlyInstalled(account) {
        Pending storage pending = _pendings[account];
        uint48 escapeAt = pending.escapeAt;
        if (escapeAt == 0) revert NothingPending();
        if (block.timestamp < escapeAt) revert TooEarly(escapeAt);
        (RiskState current,) = stateOf(account);
        Layers storage layers = _layers[account];
        RiskState target = current == RiskState.FROZEN ? RiskState.REDUCE_ONLY : RiskState.ACTIVE;
        if (layers.lasting > target) layers.lasting = target;
        if (target <= layers.lasting) _endSolo(layers);
        else if (layers.solo > target) layers.solo = target;
        pending.escapeAt = 0;
        emit Thawed(account, _settle(account));
    }

    // ------------------------------------------------------------------ settings

    /// @inheritdoc IEmergencyFreeze
    function setGuardian(address guardian, bool enabled) external onlyActiveAccount {
        Config storage config = _configs[msg.sender];
        if (enabled) _addGuardian(config, msg.sender, guardian);
        else _removeGuardian(config, msg.sender, guardian);
        if (config.quorum > config.guardians) revert InvalidQuorum(config.quorum, config.guardians);
    }

    /// @inheritdoc IEmergencyFreeze
    function replaceGuardian(
        address account,
        address oldGuardian,
        address newGuardian,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external onlyInstalled(account) {
        _requireQuorum(account, signers);
        Config storage config = _configs[account];
        (, uint64 epoch) = stateOf(account);
        bytes32 structHash = keccak256(
            abi.encode(
                REPLACE_GUARDIAN_TYPEHASH, account, oldGuardian, newGuardian, epoch, uint256(config.nonce), expiry
            )
        );
        _consume(account, structHash, expiry, signers, signatures);
        _removeGuardian(config, account, oldGuardian);
        _addGuardian(config, account, newGuardian);
    }

    /// @inheritdoc IEmergencyFreeze
    function cancelAdmin(
        address account,
        bytes32 actionHash,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) external onlyInstalled(account) {
        _requireQuorum(account, signers);
        (, uint64 epoch) = stateOf(account);
        bytes32 structHash = keccak256(
            abi.encode(CANCEL_ADMIN_TYPEHASH, account, actionHash, epoch, uint256(_configs[account].nonce), expiry)
        );
        _consume(account, structHash, expiry, signers, signatures);
        IRiskAccount(account).cancelAdmin(actionHash);
    }

    /// @inheritdoc IEmergencyFreeze
    function setQuorum(uint8 quorum) external onlyActiveAccount {
        _setQuorum(_configs[msg.sender], msg.sender, quorum);
    }

    /// @inheritdoc IEmergencyFreeze
    function setGuard(address guard, bool enabled) external onlyActiveAccount {
        _setGuard(msg.sender, guard, enabled);
    }

    /// @inheritdoc IEmergencyFreeze
    function setExit(Exit calldata exit, bool enabled) external onlyActiveAccount {
        _setExit(msg.sender, exit, enabled);
    }

    /// @inheritdoc IEmergencyFreeze
    function setDelays(Delays calldata delays) external onlyActiveAccount {
        _setDelays(msg.sender, delays);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IEmergencyFreeze
    function stateOf(address account) public view returns (RiskState state, uint64 epoch) {
        if (_configs[account].native) return IRiskState(account).riskState();
        Layers storage layers = _layers[account];
        return (layers.state, layers.epoch);
    }

    /// @inheritdoc IEmergencyFreeze
    function isGuardian(address account, address guardian) public view returns (bool) {
        return _isCurrent(account, _guardians[guardian][account]);
    }

    /// @inheritdoc IEmergencyFreeze
    function quorumOf(address account) external view returns (uint8 quorum, uint8 guardians) {
        Config storage config = _configs[account];
        return (config.quorum, config.guardians);
    }

    /// @inheritdoc IEmergencyFreeze
    function delaysOf(address account) external view returns (Delays memory) {
        Config storage config = _configs[account];
        return Delays(
            config.soloFreezeSeconds, config.soloCooldownSeconds, config.thawDelaySeconds, config.escapeDelaySeconds
        );
    }

    /// @inheritdoc IEmergencyFreeze
    function pendingOf(address account)
        external
        view
        returns (uint48 thawAt, RiskState thawTo, uint48 escapeAt, uint48 soloUntil)
    {
        Pending storage pending = _pendings[account];
        return (pending.thawAt, pending.thawTo, pending.escapeAt, _layers[account].soloUntil);
    }

    /// @inheritdoc IEmergencyFreeze
    function nonceOf(address account) external view returns (uint256) {
        return _configs[account].nonce;
    }

    /// @notice The EIP-712 domain separator that guardians sign under.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // ------------------------------------------------------------------ inside

    function _checkCall(
        address account,
        RiskState state,
        bool byExecutor,
        address target,
        uint256 value,
        bytes memory data
    ) private view {
        bool permitted = byExecutor
            ? target != address(0) && target != account && target != address(this)
            : _permits(account, state, target, value, data);
        if (!permitted) revert NotPermitted(state, target, value, data);
    }

    function _generationOf(address account) internal view override returns (uint64) {
        Config storage config = _configs[account];
        return config.installed ? config.generation : 0;
    }

    function _addGuardian(Config storage config, address account, address guardian) private {
        if (guardian == address(0) || guardian == account || isGuardian(account, guardian)) {
            revert InvalidGuardian(guardian);
        }
        _guardians[guardian][account] = config.generation;
        ++config.guardians;
        emit GuardianSet(account, guardian, true);
    }

    function _removeGuardian(Config storage config, address account, address guardian) private {
        if (!isGuardian(account, guardian)) revert InvalidGuardian(guardian);
        delete _guardians[guardian][account];
        --config.guardians;
        emit GuardianSet(account, guardian, false);
    }

    function _setQuorum(Config storage config, address account, uint8 quorum) private {
        if (quorum == 0 || quorum > config.guardians) revert InvalidQuorum(quorum, config.guardians);
        config.quorum = quorum;
        emit QuorumSet(account, quorum);
    }

    function _setDelays(address account, Delays memory delays) private {
        if (delays.soloCooldown <= delays.soloFreeze || delays.soloFreeze == 0) revert InvalidTimes();
        Config storage config = _configs[account];
        (config.soloFreezeSeconds, config.soloCooldownSeconds) = (delays.soloFreeze, delays.soloCooldown);
        (config.thawDelaySeconds, config.escapeDelaySeconds) = (delays.thaw, delays.escape);
        emit DelaysSet(account, delays);
    }

    function _soloFreeze(address account, RiskState state, address by) private {
        Config storage config = _configs[account];
        Layers storage layers = _layers[account];
        (RiskState current,) = stateOf(account);
        uint48 time = uint48(block.timestamp);
        bool running = layers.soloUntil != 0 && time < layers.soloUntil;
        if (!running) {
            // A solo freeze whose time is over ends here when nobody called `expire`.
            if (layers.soloUntil != 0) {
                (current, layers.soloUntil, layers.solo) = (layers.lasting, 0, RiskState.ACTIVE);
            }
            if (time < layers.soloAgainAt) revert CoolingDown(layers.soloAgainAt);
            layers.soloUntil = time + config.soloFreezeSeconds;
            layers.soloAgainAt = time + config.soloCooldownSeconds;
        }
        // While one runs, a guardian may tighten it but not lengthen it.
        if (state <= current) revert WrongDirection(current, state);
        layers.solo = state;
        _settle(account);
        emit Frozen(account, state, by, layers.soloUntil);
    }

    function _guardFreeze(address account, RiskState state) private {
        (RiskState current,) = stateOf(account);
        if (state <= current) revert WrongDirection(current, state);
        _layers[account].lasting = state;
        _settle(account);
        emit Frozen(account, state, msg.sender, 0);
    }

    function _quorumFreeze(address account, RiskState state, address by) private {
        if (state == RiskState.ACTIVE) revert WrongDirection(RiskState.ACTIVE, state);
        Layers storage layers = _layers[account];
        if (state > layers.lasting) layers.lasting = state;
        if (layers.solo <= layers.lasting) _endSolo(layers);
        Pending storage pending = _pendings[account];
        if (pending.thawAt != 0) emit ThawCancelled(account);
        if (pending.escapeAt != 0) emit EscapeCancelled(account);
        (pending.thawAt, pending.escapeAt) = (0, 0);
        emit Frozen(account, _settle(account), by, 0);
    }

    function _endSolo(Layers storage layers) private {
        (layers.solo, layers.soloUntil) = (RiskState.ACTIVE, 0);
    }

    /// @dev Make the account's state the stricter of the two layers. An escape is over once the account is ACTIVE.
    function _settle(address account) private returns (RiskState state) {
        Layers storage layers = _layers[account];
        state = layers.solo > layers.lasting ? layers.solo : layers.lasting;
        if (state == RiskState.ACTIVE) _pendings[account].escapeAt = 0;
        if (_configs[account].native) {
            IRiskState(account).setRiskState(state);
        } else if (state != layers.state) {
            emit IRiskState.RiskStateChanged(layers.state, state, layers.epoch + 1);
            layers.state = state;
            ++layers.epoch;
        }
    }

    function _requireQuorum(address account, address[] calldata signers) private view {
        if (signers.length < _configs[account].quorum) revert InvalidSignatures();
    }

    /// @dev Check a signed message and use up its nonce.
    function _consume(
        address account,
        bytes32 structHash,
        uint48 expiry,
        address[] calldata signers,
        bytes[] calldata signatures
    ) private {
        if (block.timestamp > expiry) revert Expired(expiry);
        if (signers.length == 0 || signers.length != signatures.length) revert InvalidSignatures();
        ++_configs[account].nonce;
        bytes32 digest = _hashTypedDataV4(structHash);
        address last = address(0);
        for (uint256 i = 0; i < signers.length; ++i) {
            address signer = signers[i];
            bool valid = signer > last && isGuardian(account, signer)
                && SignatureChecker.isValidSignatureNowCalldata(signer, digest, signatures[i]);
            if (!valid) revert InvalidSignatures();
            last = signer;
        }
    }
}
