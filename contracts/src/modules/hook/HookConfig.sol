// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC165Checker} from "@openzeppelin/contracts/utils/introspection/ERC165Checker.sol";
import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {IPolicyHook} from "../../interfaces/IPolicyHook.sol";
import {IRiskState} from "../../interfaces/IRiskState.sol";
import {Conditions} from "../../libraries/Conditions.sol";
import {SpendingWindow} from "../../libraries/SpendingWindow.sol";

/// @title What a PolicyHook knows of each account
/// @notice Rules, windows, caps and allowances, changed by the account alone and, where it wants that, only after an announcement.
/// @dev Every mapping has the account innermost. Values carry the generation of the installation, so that nothing of an earlier one survives
/// a removal, announcements included.
abstract contract HookConfig is IPolicyHook {
    /// @param flags see the constants below. @param windows how many spending windows there are.
    struct Account {
        address authority;
        uint32 generation;
        uint32 changeDelay;
        uint8 flags;
        uint8 windows;
    }

    struct AllowanceState {
        uint128 refill;
        uint128 maxRefill;
        uint128 balance;
        uint64 timestamp;
        uint64 period;
    }

    struct Announcement {
        uint32 generation;
        uint48 executableAt;
    }

    /// Selector of a rule for every selector of its target.
    bytes4 public constant ANY_SELECTOR = 0xffffffff;
    /// Cap that permits any allowance.
    uint128 public constant UNLIMITED = type(uint128).max;
    uint8 public constant PAYABLE = 1;
    uint8 internal constant REDUCING = 2;
    uint8 internal constant EXIT_FIRST = 4;
    uint8 internal constant NO_EXECUTOR = 8;
    /// Seconds in which an announced change can be carried out.
    uint48 public constant CHANGE_WINDOW = 14 days;
    uint256 internal constant MAX_WINDOWS = 16;

    uint8 internal constant INSTALLED = 1;
    uint8 internal constant ENFORCED = 2;
    /// The account keeps its own risk state and delays the removal of modules itself.
    uint8 internal constant NATIVE = 4;
    /// An equity breaker is asked before and after.
    uint8 internal constant BREAKER = 8;

    uint256 private constant KNOWN_FLAGS = PAYABLE | REDUCING | EXIT_FIRST | NO_EXECUTOR;
    uint256 private constant MAX_ALTERNATIVES = 16;
    uint256 private constant MAX_CONDITIONS = 16;

    mapping(address account => Account) internal _accounts;
    /// generation << 168 | flags << 160 | where the conditions are kept (zero: none).
    mapping(bytes32 key => mapping(address account => uint256)) internal _rules;
    mapping(uint256 index => mapping(address account => uint256)) internal _windowConfigs;
    mapping(uint256 index => mapping(address account => uint256)) internal _windowStates;
    /// generation << 128 | cap.
    mapping(bytes32 key => mapping(address account => uint256)) internal _caps;
    mapping(bytes32 key => mapping(address account => AllowanceState)) internal _allowances;
    mapping(bytes32 changeHash => mapping(address account => Announcement)) private _announcements;
    mapping(address account => address) internal _breakers;

    /// @dev A change by the calling account: at once without a delay, else as announced and once.
    modifier change() {
        Account memory a = _installed(msg.sender);
        if (a.changeDelay != 0) _consumeAnnouncement(msg.sender, keccak256(msg.data));
        _;
    }

    // ------------------------------------------------------------------ changes

    /// @inheritdoc IPolicyHook
    function setSettings(Settings calldata settings) external change {
        _setSettings(settings);
    }

    /// @inheritdoc IPolicyHook
    function setRule(Rule calldata rule, bool enabled) external change {
        _setRule(rule, enabled);
    }

    /// @inheritdoc IPolicyHook
    function setWindows(Window[] calldata windows) external change {
        _setWindows(windows);
    }

    /// @inheritdoc IPolicyHook
    function setApproval(Approval calldata approval) external change {
        _setApproval(approval);
    }

    /// @inheritdoc IPolicyHook
    function setAllowance(Allowance calldata allowance) external change {
        _setAllowance(allowance);
    }

    /// @inheritdoc IPolicyHook
    function setBreaker(address breaker) external {
        Account memory a = _installed(msg.sender);
        if (a.flags & BREAKER != 0 && a.changeDelay != 0) _consumeAnnouncement(msg.sender, keccak256(msg.data));
        _requireUnmeasured();
        _breakers[msg.sender] = breaker;
        _accounts[msg.sender].flags = breaker == address(0) ? a.flags & ~BREAKER : a.flags | BREAKER;
        emit BreakerSet(msg.sender, breaker);
    }

    /// @inheritdoc IPolicyHook
    function announce(bytes calldata data) external {
        Account memory a = _installed(msg.sender);
        bytes32 changeHash = keccak256(data);
        if (executableAt(msg.sender, changeHash) != 0) revert AlreadyAnnounced(changeHash);
        uint48 time = uint48(block.timestamp) + a.changeDelay;
        _announcements[changeHash][msg.sender] = Announcement({generation: a.generation, executableAt: time});
        emit ChangeAnnounced(msg.sender, changeHash, data, time);
    }

    /// @inheritdoc IPolicyHook
    function cancel(address account, bytes32 changeHash) external {
        Account memory a = _installed(account);
        if (msg.sender != account && msg.sender != a.authority) revert NotInstalled(msg.sender);
        if (_announcements[changeHash][account].executableAt == 0) revert NotAnnounced(changeHash);
        delete _announcements[changeHash][account];
        emit ChangeCancelled(account, changeHash);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IPolicyHook
    function settingsOf(address account) external view returns (bool installed, Settings memory settings) {
        Account memory a = _accounts[account];
        return (
            a.flags & INSTALLED != 0,
            Settings({authority: a.authority, changeDelay: a.changeDelay, enforceAllowlist: a.flags & ENFORCED != 0})
        );
    }

    /// @inheritdoc IPolicyHook
    function breakerOf(address account) external view returns (address) {
        return _accounts[account].flags & BREAKER == 0 ? address(0) : _breakers[account];
    }

    /// @inheritdoc IPolicyHook
    function ruleOf(address account, address target, bytes4 selector)
        external
        view
        returns (bool enabled, Rule memory rule)
    {
        uint256 word = _ruleWord(_accounts[account], account, target, selector);
        (rule.target, rule.selector, rule.flags) = (target, selector, uint8(word >> 160));
        address pointer = address(uint160(word));
        if (pointer != address(0)) rule.anyOf = abi.decode(SSTORE2.read(pointer), (Condition[][]));
        return (word != 0, rule);
    }

    /// @inheritdoc IPolicyHook
    function windowsOf(address account)
        external
        view
        returns (Window[] memory windows, uint256[] memory spent, uint256[] memory available)
    {
        uint256 count = _accounts[account].windows;
        (windows, spent, available) = (new Window[](count), new uint256[](count), new uint256[](count));
        for (uint256 i = 0; i < count; ++i) {
            uint256 config = _windowConfigs[i][account];
            windows[i] = SpendingWindow.unpack(config);
            spent[i] = SpendingWindow.spent(config, _windowStates[i][account], block.timestamp);
            if (spent[i] < windows[i].limit) available[i] = windows[i].limit - spent[i];
        }
    }

    /// @inheritdoc IPolicyHook
    function approvalOf(address account, address token, address spender) external view returns (uint128) {
        return _capOf(_accounts[account].generation, account, token, spender);
    }

    /// @inheritdoc IPolicyHook
    function allowanceOf(address account, bytes32 id) external view returns (Allowance memory) {
        AllowanceState memory state = _accrued(_allowances[_allowanceKey(_accounts[account].generation, id)][account]);
        return Allowance({
            id: id,
            refill: state.refill,
            maxRefill: state.maxRefill,
            period: state.period,
            balance: state.balance,
            timestamp: state.timestamp
        });
    }

    /// @inheritdoc IPolicyHook
    function executableAt(address account, bytes32 changeHash) public view returns (uint48) {
        Announcement memory announcement = _announcements[changeHash][account];
        Account memory a = _accounts[account];
        bool alive = a.flags & INSTALLED != 0 && announcement.generation == a.generation
            && block.timestamp <= announcement.executableAt + CHANGE_WINDOW;
        return alive ? announcement.executableAt : 0;
    }

    // ------------------------------------------------------------------ installing

    function _install(InstallData memory init) internal {
        Account storage a = _accounts[msg.sender];
        if (a.flags & INSTALLED != 0) revert AlreadyInstalled(msg.sender);
        ++a.generation;
        a.windows = 0;
        a.flags =
            ERC165Checker.supportsInterface(msg.sender, type(IRiskState).interfaceId) ? INSTALLED | NATIVE : INSTALLED;
        _setSettings(init.settings);
        for (uint256 i = 0; i < init.rules.length; ++i) {
            _setRule(init.rules[i], true);
        }
        if (init.windows.length != 0) _setWindows(init.windows);
        for (uint256 i = 0; i < init.approvals.length; ++i) {
            _setApproval(init.approvals[i]);
        }
        for (uint256 i = 0; i < init.allowances.length; ++i) {
            _setAllowance(init.allowances[i]);
        }
    }

    function _uninstall() internal {
        _installed(msg.sender);
        _accounts[msg.sender].flags = 0;
    }

    // ------------------------------------------------------------------ inside

    /// @dev What is measured changes only in an execution that calls nothing but this module: the before of one list and the after of
    /// another say nothing.
    function _requireUnmeasured() internal view virtual;

    function _installed(address account) internal view returns (Account memory a) {
        a = _accounts[account];
        if (a.flags & INSTALLED == 0) revert NotInstalled(account);
    }

    function _consumeAnnouncement(address account, bytes32 changeHash) internal {
        uint48 time = executableAt(account, changeHash);
        if (time == 0) revert NotAnnounced(changeHash);
        if (block.timestamp < time) revert TooEarly(time);
        delete _announcements[changeHash][account];
    }

    function _setSettings(Settings memory settings) private {
        if (settings.authority != address(0) && settings.authority.code.length == 0) {
            revert InvalidAuthority(settings.authority);
        }
        Account storage a = _accounts[msg.sender];
        a.authority = settings.authority;
        a.changeDelay = settings.changeDelay;
        a.flags = settings.enforceAllowlist ? a.flags | ENFORCED : a.flags & ~ENFORCED;
        emit SettingsSet(msg.sender, settings);
    }

    function _setRule(Rule memory rule, bool enabled) private {
        address pointer;
        bool sound = rule.target != msg.sender && rule.target != address(this) && rule.flags & ~KNOWN_FLAGS == 0
            && rule.anyOf.length <= MAX_ALTERNATIVES;
        if (rule.anyOf.length != 0) {
            for (uint256 i = 0; i < rule.anyOf.length; ++i) {
                sound = sound && rule.anyOf[i].length <= MAX_CONDITIONS;
                for (uint256 j = 0; sound && j < rule.anyOf[i].length; ++j) {
                    sound = Conditions.isSound(rule.anyOf[i][j]);
                }
            }
            if (sound && enabled) pointer = SSTORE2.write(abi.encode(rule.anyOf));
        }
        if (!sound) revert InvalidRule(rule.target, rule.selector);
        uint256 word =
            uint256(_accounts[msg.sender].generation) << 168 | uint256(rule.flags) << 160 | uint256(uint160(pointer));
        _rules[_ruleKey(rule.target, rule.selector)][msg.sender] = enabled ? word : 0;
        emit RuleSet(msg.sender, rule.target, rule.selector, rule, enabled);
    }

    function _setWindows(Window[] memory windows) private {
        _requireUnmeasured();
        if (windows.length > MAX_WINDOWS) revert InvalidWindow(windows.length);
        Account storage a = _accounts[msg.sender];
        uint256 before = a.windows;
        uint256[] memory configs = new uint256[](before);
        uint256[] memory states = new uint256[](before);
        for (uint256 i = 0; i < before; ++i) {
            (configs[i], states[i]) = (_windowConfigs[i][msg.sender], _windowStates[i][msg.sender]);
        }
        for (uint256 i = 0; i < windows.length; ++i) {
            (bool sound, uint256 config) = SpendingWindow.pack(windows[i]);
            if (!sound) revert InvalidWindow(i);
            uint256 state = SpendingWindow.FRESH;
            for (uint256 j = 0; j < before; ++j) {
                if (SpendingWindow.alike(configs[j], config)) {
                    state = SpendingWindow.carry(configs[j], config, states[j]);
                    break;
                }
            }
            (_windowConfigs[i][msg.sender], _windowStates[i][msg.sender]) = (config, state);
        }
        a.windows = uint8(windows.length);
        emit WindowsSet(msg.sender, windows);
    }

    function _setApproval(Approval memory approval) private {
        uint256 word = uint256(_accounts[msg.sender].generation) << 128 | approval.cap;
        _caps[_capKey(approval.token, approval.spender)][msg.sender] = word;
        emit ApprovalSet(msg.sender, approval.token, approval.spender, approval.cap);
    }

    function _setAllowance(Allowance memory allowance) private {
        // Zero reads no clock: an account that is being born may not.
        bool ahead = allowance.timestamp != 0 && allowance.timestamp > block.timestamp;
        if (ahead) revert InvalidAllowance(allowance.id);
        _allowances[_allowanceKey(_accounts[msg.sender].generation, allowance.id)][msg.sender] = AllowanceState({
            refill: allowance.refill,
            maxRefill: allowance.maxRefill,
            balance: allowance.balance,
            timestamp: allowance.timestamp,
            period: allowance.period
        });
        emit AllowanceSet(msg.sender, allowance.id, allowance);
    }

    /// @dev 0 when there is none of this installation.
    function _ruleWord(Account memory a, address account, address target, bytes4 selector)
        internal
        view
        returns (uint256 word)
    {
        word = _rules[_ruleKey(target, selector)][account];
        if (word >> 168 != a.generation) return 0;
    }

    function _capOf(uint32 generation, address account, address token, address spender)
        internal
        view
        returns (uint128)
    {
        uint256 word = _caps[_capKey(token, spender)][account];
        return word >> 128 == generation ? uint128(word) : 0;
    }

    function _accrued(AllowanceState memory state) internal view returns (AllowanceState memory) {
        if (state.period == 0 || block.timestamp < uint256(state.timestamp) + state.period) return state;
        uint256 periods = (block.timestamp - state.timestamp) / state.period;
        if (state.balance < state.maxRefill) {
            uint256 balance = state.balance + periods * state.refill;
            state.balance = balance < state.maxRefill ? uint128(balance) : state.maxRefill;
        }
        state.timestamp += uint64(periods * state.period);
        return state;
    }

    function _ruleKey(address target, bytes4 selector) private pure returns (bytes32) {
        return bytes32(uint256(uint160(target)) << 32 | uint32(selector));
    }

    function _capKey(address token, address spender) private pure returns (bytes32 key) {
        assembly ("memory-safe") {
            mstore(0, shr(96, shl(96, token)))
            mstore(0x20, shr(96, shl(96, spender)))
            key := keccak256(0, 0x40)
        }
    }

    function _allowanceKey(uint32 generation, bytes32 id) internal pure returns (bytes32) {
        return keccak256(abi.encode(generation, id));
    }
}
